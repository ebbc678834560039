//! The self-checks of other programs, unchanged: stores of keys, servers of tables, mail indexes' kin, and languages that load libraries.
//!
//! Owns: how each is called. Called by: `cargo test`. Must not: install anything: what is missing is skipped, with the command that
//! would bring it.

use std::time::Duration;

use netmem_tests::Engine;
use netmem_tests::real::{REAL_RUNGS, have, same_on};

/// On a loaded machine with two processors.
const LIMIT: Duration = Duration::from_secs(50);

/// `t COMMAND` runs a test of a package's own, and says how it ended; what it prints has times in it.
const SAY_HOW_IT_ENDS: &str =
    r#"t() { if "$@" >$L/said 2>&1; then echo "ok $*"; else echo "$? $*"; tail -n 3 $L/said; fi; }; cd $D;"#;

#[test]
fn tokyo_cabinets_own_tests_of_every_kind_of_database() {
    if !have(&["tchtest", "tcbtest", "tcftest", "tcttest"], "tokyocabinet-bin") {
        return;
    }
    let script = r#"
        t tchtest write -mt -td a.tch 20000; t tchtest read -mt a.tch; t tchtest rcat b.tch 5000; t tchtest misc c.tch 2000
        t tchtest wicked d.tch 3000; t tchmttest typical e.tch 3 2000; t tchmttest race f.tch 3 2000; tchmgr list a.tch | md5sum
        t tcbtest write a.tcb 20000; t tcbtest queue b.tcb 2000; t tcbtest misc c.tcb 2000; t tcbtest wicked d.tcb 3000
        t tcbmttest wicked e.tcb 3 1000; tcbmgr list a.tcb | md5sum
        t tcftest write a.tcf 20000; t tcftest misc b.tcf 2000; t tcftest wicked c.tcf 3000
        t tcttest write a.tct 1000; t tcttest misc b.tct 300; t tcttest wicked c.tct 300; ls | grep -v said"#;
    same_on(&REAL_RUNGS, &format!("{SAY_HOW_IT_ENDS}{script}"), LIMIT);
}

#[test]
fn kyoto_cabinets_own_tests_with_transactions_and_threads() {
    if !have(&["kchashtest", "kctreetest", "kcdirtest"], "kyotocabinet-utils") {
        return;
    }
    let script = r#"
        t kchashtest order -th 4 -rnd a.kch 2000; t kchashtest queue -th 2 b.kch 3000; t kchashtest wicked -th 3 -it 2 c.kch 2000
        t kchashtest tran -th 2 -it 2 d.kch 1000; t kchashtest tran -hard e.kch 200; t kctreetest order a.kct 3000
        t kctreetest wicked -th 3 -it 2 b.kct 1000; t kctreetest tran -th 2 c.kct 500; kctreemgr list a.kct | md5sum
        t kcdirtest wicked a.kcd 100; t kcforesttest tran a.kcf 50; ls | grep -v said"#;
    same_on(&REAL_RUNGS, &format!("{SAY_HOW_IT_ENDS}{script}"), LIMIT);
}

#[test]
fn sysbench_validates_what_it_wrote_by_calls_and_through_mappings() {
    if !have(&["sysbench"], "sysbench") {
        return;
    }
    let script = r#"
        cd $D
        bench() { sysbench fileio --file-total-size=16M --file-num=4 --validate=on --file-io-mode=$mode "$@"; }
        for mode in sync mmap; do
            bench prepare >/dev/null
            for test in seqrd rndrd rndwr rndrw seqrewr; do
                bench --file-test-mode=$test --threads=2 --events=1000 --time=20 --file-fsync-freq=50 run >$L/said ||
                    { cat $L/said; exit 1; }
                echo $mode $test
            done
            bench cleanup >/dev/null
        done; find . -name 'test_file*' | wc -l"#;
    same_on(&REAL_RUNGS, script, LIMIT);
}

#[test]
fn fio_verifies_what_it_wrote_with_libaio() {
    if !have(&["fio"], "fio") {
        return;
    }
    let script = r#"
        run() { fio --ioengine=libaio --verify_state_save=0 --iodepth=16 "$@" >$L/said 2>&1 || { cat $L/said; exit 1; }; }
        run --name=a --filename=$D/a --rw=randrw --size=4m --verify=crc32c --direct=1 --bs=4k,8k
        run --name=b --filename=$D/b --rw=write --size=2m --verify=md5 --fsync=16
        run --name=c --filename=$D/c --rw=randwrite --size=2m --verify=crc32c --bssplit=512/50:4k/50
        cd $D; stat -c '%n %s' a b c"#;
    same_on(&REAL_RUNGS, script, LIMIT);
}

/// The rungs that a server has that refuses to run as root.
const USERS: [Engine; 1] = [Engine::UffdUser];

const POSTGRES: &str = r#"
B=$(dirname "$(readlink -f "$(command -v initdb || ls /usr/lib/postgresql/*/bin/initdb | tail -n 1)")")
run() { "$@"; }
if [[ $(id -u) == 0 ]]; then
    chown -R nobody $L $D 2>/dev/null || true
    run() { setpriv --reuid 65534 --regid 65534 --clear-groups "$@"; }
fi
cd $L
run $B/initdb -D $D/pg -A trust -U postgres --locale=C -E UTF8 >$L/said 2>&1 || { cat $L/said; exit 1; }
printf "listen_addresses = ''\nunix_socket_directories = '$L'\nshared_buffers = 16MB\n" >> $D/pg/postgresql.conf
P="-h $L -U postgres"
start() { run $B/pg_ctl -D $D/pg -l $L/log -w -t 40 start >/dev/null || { cat $L/log; exit 1; }; }
start
run $B/pgbench $P -i -s 1 -q postgres >/dev/null 2>&1
run $B/pgbench $P -c 4 -j 2 -t 50 postgres 2>/dev/null | grep -E "actually|failed"
check="select sum(abalance) = (select sum(delta) from pgbench_history), count(*) from pgbench_accounts"
run $B/psql $P -Atc "$check" -c "create table t as select g, md5(g::text) m from generate_series(1, 20000) g" \
    -c "create index on t(m)" -c "vacuum full t" -c checkpoint -c "select count(*), sum(g) from t where m > '8'" postgres
# Processes that end without writing anything, and a start that plays the log.
run $B/pg_ctl -D $D/pg -m immediate -w stop >/dev/null
start
run $B/psql $P -Atc "$check" -c "select count(*), sum(g) from t where m > '8'" postgres
run $B/pg_ctl -D $D/pg -m fast -w stop >/dev/null
run $B/pg_controldata $D/pg | grep "cluster state"
grep PANIC $L/log || true
"#;

#[test]
#[ignore = "long: make test-long"]
fn postgresql_keeps_its_cluster_and_recovers_it() {
    if have(&["pg_ctl", "pgbench", "psql"], "postgresql") {
        same_on(&USERS, POSTGRES, LIMIT);
    }
}

#[test]
fn php_and_its_extensions_read_and_write() {
    if !have(&["php"], "php-cli") {
        return;
    }
    let script = r#"
        cd $D; mkdir cache; echo '<?php function twice($x) { return $x * 2; }' > lib.php
        cat > main.php <<'END'
<?php
require "lib.php";
$f = fopen("x", "c+"); flock($f, LOCK_EX); fwrite($f, "hello world\n"); rewind($f); echo fgets($f); ftruncate($f, 3);
for ($i = 0; $i < 30; $i++) file_put_contents("lines", "$i\n", FILE_APPEND | LOCK_EX);
echo count(file("lines")), " ", filesize("x"), " ", twice(21), "\n";
$p = new PharData("p.tar"); $p->addFile("lines"); unset($p); echo count(new PharData("p.tar")), "\n";
mkdir("a/b", 0755, true); touch("a/b/t", 1000000000); echo filemtime("a/b/t"), "\n";
foreach (new RecursiveIteratorIterator(new RecursiveDirectoryIterator("a", FilesystemIterator::SKIP_DOTS)) as $e) echo $e, "\n";
END
        for i in 1 2; do
            rm -rf a p.tar lines
            # opcache is an extension, and these are files that it maps and checks.
            php -d opcache.enable_cli=1 -d opcache.file_cache=$D/cache -d opcache.file_cache_only=1 \
                -d opcache.file_update_protection=0 main.php
        done
        find cache -name '*.bin' | wc -l"#;
    same_on(&REAL_RUNGS, script, LIMIT);
}

#[test]
fn tcl_copies_renames_and_deletes_trees() {
    if !have(&["tclsh"], "tcl") {
        return;
    }
    let script = r#"
        D=$D/own; mkdir $D; cat > $L/trees.tcl <<'END'
file mkdir a/b/c
set f [open a/b/x w+]; puts $f hello; seek $f 0; puts [gets $f]; chan truncate $f 3; close $f
file copy a copied; file rename a/b/x y; file link -symbolic link y
puts [list [file size copied/b/x] [file readlink link] [lsort [glob * */*]]]
file delete -force a copied; puts [list [file exists a] [file exists copied] [lsort [glob *]]]
file mkdir $env(D)/d/e; file copy $env(D)/d $env(D)/f; file delete -force $env(D)/d; puts [lsort [glob -tails -directory $env(D) *]]
END
        cd $D; tclsh $L/trees.tcl"#;
    same_on(&REAL_RUNGS, script, LIMIT);
}

#[test]
fn python_asks_libc_itself_for_its_functions() {
    if !have(&["/usr/bin/python3"], "python3") {
        return;
    }
    let script = r#"
        cat > $L/ask.py <<'END'
import ctypes, os
c = ctypes.CDLL("libc.so.6", use_errno=True)
c.mmap.restype = ctypes.c_void_p
c.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
c.msync.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
name = os.environ["D"].encode() + b"/file"
fd = c.open(name, os.O_RDWR | os.O_CREAT, 0o600)
os.ftruncate(fd, 1 << 20)
at = c.mmap(None, 1 << 20, 3, 1, fd, 0)
ctypes.memset(at, 65, 100000)
print(fd >= 0, c.msync(at, 1 << 20, 4), os.pread(fd, 2, 99999), c.msync(at, 1 << 20, 5), ctypes.get_errno())
END
        /usr/bin/python3 $L/ask.py; stat -c %s $D/file"#;
    same_on(&REAL_RUNGS, script, LIMIT);
}
