//! Databases, unchanged: what they keep in a region is what they keep in a local file, with several processes at it.
//!
//! Owns: how each is called. Called by: `cargo test`. Must not: install anything: what is missing is skipped, with the
//! command that would bring it.

use std::time::Duration;

use netmem_tests::built::compile;
use netmem_tests::real::{REAL_RUNGS, have, run_script, same_on};
use netmem_tests::{Engine, on_each_rung};

/// On a loaded machine with two processors.
const LIMIT: Duration = Duration::from_secs(50);

const SQLITE: &str = r#"
sqlite3 $D/db "PRAGMA journal_mode=MODE; CREATE TABLE t(k INTEGER PRIMARY KEY, w INT, v TEXT)"
writer() {
    for i in $(seq 1 12); do
        echo "PRAGMA mmap_size=67108864; PRAGMA busy_timeout=40000; BEGIN IMMEDIATE;
            WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c WHERE x<40)
            INSERT INTO t SELECT $1*100000+$i*100+x, $1, hex(zeroblob(50+x*$i%200))||$1 FROM c; COMMIT;"
    done | sqlite3 -bail $D/db >/dev/null
}
writer 1 & first=$!; writer 2 & second=$!; writer 3 & third=$!
wait $first; wait $second; wait $third
sqlite3 $D/db "PRAGMA mmap_size=67108864; PRAGMA integrity_check; SELECT count(*), sum(k), sum(length(v)) FROM t;
    CREATE INDEX i ON t(v); DELETE FROM t WHERE k%3=0; VACUUM; PRAGMA integrity_check; SELECT w, count(*) FROM t GROUP BY w"
sqlite3 $D/db .dump | sha256sum
sqlite3 $D/db ".backup $D/copy"; sqlite3 $D/copy .dump | sha256sum
"#;

fn sqlite(mode: &str) {
    if have(&["sqlite3"], "sqlite3") {
        same_on(&REAL_RUNGS, &SQLITE.replace("MODE", mode), LIMIT);
    }
}

#[test]
fn sqlite_with_a_rollback_journal_and_three_writers() {
    sqlite("delete");
}

#[test]
fn sqlite_with_a_write_ahead_log_and_three_writers() {
    sqlite("wal");
}

#[test]
fn lmdb_is_loaded_dumped_copied_and_compacted() {
    if !have(&["mdb_load", "mdb_dump", "mdb_stat", "mdb_copy"], "lmdb-utils") {
        return;
    }
    let script = r#"
        (printf 'VERSION=3\nformat=print\ntype=btree\nmapsize=16777216\nHEADER=END\n'
        for i in $(seq 1 1500); do printf ' key%05d\n value %d %0*d\n' $i $((i*i)) $((i%90)) 7; done
        echo DATA=END) > $L/dump
        mkdir $D/env $D/copy
        mdb_load -f $L/dump $D/env
        mdb_stat -a $D/env
        mdb_dump -p $D/env | sha256sum
        mdb_copy -c $D/env $D/copy
        mdb_dump -p $D/copy | sha256sum
        mdb_stat -a $D/copy
        mdb_load -n -f $L/dump $D/single; mdb_dump -n $D/single | sha256sum"#;
    same_on(&REAL_RUNGS, script, LIMIT);
}

/// One program, three writing processes, two reading threads, a writer that is killed in its transaction.
fn lmdb_in_many_processes(engine: Engine) {
    if !have(&["mdb_stat"], "lmdb-utils liblmdb-dev") {
        return;
    }
    let program = compile("tests/real/lmdb_writers.c", &["-llmdb"]);
    for mode in ["default", "writemap"] {
        let script =
            format!("mkdir $D/env; {} $D/env {mode}; mdb_stat -e $D/env | grep -c .", program.display());
        same_on(&[engine], &script, LIMIT);
    }
}

on_each_rung!(lmdb_in_many_processes);

#[test]
fn gdbmtool_keeps_a_database() {
    if !have(&["gdbmtool", "gdbm_dump"], "gdbmtool") {
        return;
    }
    let script = r#"
        (for i in $(seq 1 300); do echo "store k$i v$((i*i))"; done
        printf 'count\ndelete k7\nreorganize\nfetch k17\nfirst\ncount\nlist\n') > $L/commands
        gdbmtool --newdb $D/g.db < $L/commands
        gdbmtool $D/g.db count
        gdbm_dump $D/g.db - | grep -v '^#' | sha256sum
        gdbm_dump $D/g.db $L/dump; gdbm_load $L/dump $D/h.db; gdbmtool $D/h.db list | sort | sha256sum"#;
    same_on(&REAL_RUNGS, script, LIMIT);
}

#[test]
fn tdbtool_keeps_a_database() {
    if !have(&["tdbtool", "tdbdump", "tdbrestore"], "tdb-tools") {
        return;
    }
    let script = r#"
        (echo "create $D/t.tdb"; for i in $(seq 1 300); do echo "insert k$i v$i"; done
        printf 'delete k5\nmove k6 k7\ncheck\nquit\n') > $L/commands
        tdbtool < $L/commands | tail -n 1
        tdbdump $D/t.tdb | sort | sha256sum
        tdbdump $D/t.tdb | tdbrestore $D/u.tdb; tdbdump $D/u.tdb | sort | sha256sum
        for p in 1 2 3; do for i in $(seq 1 60); do echo "insert p$p-$i $p"; done | tdbtool $D/t.tdb >/dev/null & done; wait
        echo check | tdbtool $D/t.tdb | grep -o 'OK.*'; tdbdump $D/t.tdb | sort | sha256sum"#;
    same_on(&REAL_RUNGS, script, LIMIT);
}

#[test]
fn rrdtool_keeps_rounds() {
    if !have(&["rrdtool"], "rrdtool") {
        return;
    }
    let script = r#"
        rrdtool create $D/r.rrd --start 1000000000 --step 60 DS:a:GAUGE:120:U:U DS:b:COUNTER:120:U:U \
            RRA:AVERAGE:0.5:1:600 RRA:MAX:0.5:10:100
        for i in $(seq 1 200); do echo "update $D/r.rrd $((1000000000+i*60)):$((i%17)):$((i*7))"; done | rrdtool - | grep -c OK
        rrdtool fetch $D/r.rrd AVERAGE -s 1000000000 -e 1000012000 | sha256sum
        rrdtool tune $D/r.rrd -h a:300; rrdtool lastupdate $D/r.rrd
        rrdtool dump $D/r.rrd $D/r.xml; rrdtool restore $D/r.xml $D/s.rrd
        rrdtool resize $D/s.rrd 0 GROW 100
        rrdtool dump $D/s.rrd | sha256sum"#;
    same_on(&REAL_RUNGS, script, LIMIT);
}

/// AOF and RDB files, with a child that rewrites them, and a restart from each. Waiting is for lines of the server's log.
const REDIS: &str = r#"
mkdir $D/redis
cli() { redis-cli -s $L/socket "$@"; }
await() { while read -r line <&3; do case "$line" in *"$1"*) return 0;; esac; done; echo "the log ended before: $1"; exit 1; }
start() {
    exec 3< <(exec redis-server --port 0 --unixsocket $L/socket --dir $D/redis --save "" --enable-debug-command yes "$@" 2>&1)
    await "ready to accept connections"
}
start --appendonly yes
cli debug populate 3000 key 100
redis-benchmark -s $L/socket -n 3000 -r 1000 -q -t set,lpush,hset >/dev/null
cli bgrewriteaof; await "Background AOF rewrite finished successfully"
cli set after rewrite
cli bgsave; await "Background saving terminated with success"
cli hset last of all
digest=$(cli debug digest)
cli shutdown nosave; await "bye bye"
start --appendonly yes
[[ $(cli debug digest) == "$digest" ]] && echo same after a restart from the AOF
cli save
cli shutdown nosave; await "bye bye"
start --appendonly no
[[ $(cli debug digest) == "$digest" ]] && echo same after a restart from the RDB file
cli shutdown nosave; await "bye bye"
redis-check-rdb $D/redis/dump.rdb | grep -o 'RDB looks OK.*'
redis-check-aof $D/redis/appendonlydir/appendonly.aof.manifest | tail -n 1
"#;

#[test]
fn redis_server_keeps_its_files() {
    if have(&["redis-server", "redis-cli", "redis-benchmark"], "redis-server redis-tools") {
        same_on(&REAL_RUNGS, REDIS, LIMIT);
    }
}

#[test]
fn rocksdb_writes_compacts_and_reads_with_mapped_files() {
    if !have(&["db_bench", "ldb", "sst_dump"], "rocksdb-tools") {
        return;
    }
    let script = r#"
        ldb --db=$D/rocks --create_if_missing put one 1 && ldb --db=$D/rocks get one
        db_bench --db=$D/bench --benchmarks=fillseq,fillsync,overwrite,compact,verifychecksum,readseq --num=2000 --threads=2 \
            --mmap_read=1 --mmap_write=1 --compression_type=none --statistics=0 >$L/out 2>&1 || { cat $L/out; exit 1; }
        ldb --db=$D/bench checkconsistency
        for f in $D/bench/*.sst; do sst_dump --file=$f --command=verify; done | grep -ci corrupt || echo no corruption"#;
    same_on(&REAL_RUNGS, script, LIMIT);
}

#[test]
fn pythons_dbm_modules_keep_theirs() {
    if !have(&["/usr/bin/python3"], "python3") {
        return;
    }
    let script = r#"
        cat > $L/keep.py <<'END'
import dbm, importlib, os, shelve, sys
for kind in ("dbm.dumb", "dbm.ndbm", "dbm.gnu"):
    try:
        module = importlib.import_module(kind)
    except ImportError:
        print(kind, "is not there")
        continue
    name = os.path.join(os.environ["D"], kind)
    with module.open(name, "c") as db:
        for i in range(400):
            db["key %d" % i] = b"x" * (i % 50)
        for i in range(0, 400, 7):
            del db["key %d" % i]
    with module.open(name, "r") as db:
        print(kind, len(db.keys()), sum(len(db[key]) for key in db.keys()))
with shelve.open(os.path.join(os.environ["D"], "shelf"), writeback=True) as shelf:
    shelf["list"] = [1, 2]
    shelf["list"].append(3)
with shelve.open(os.path.join(os.environ["D"], "shelf")) as shelf:
    print(shelf["list"])
END
        /usr/bin/python3 $L/keep.py"#;
    same_on(&REAL_RUNGS, script, LIMIT);
}

/// Else none of the above would mean anything.
#[test]
fn a_script_that_fails_is_seen_to_fail() {
    let output = run_script(Engine::Kernel, "false; echo not reached", LIMIT);
    assert_eq!((output.code(), output.stdout.as_str()), (1, ""), "{output}");
}
