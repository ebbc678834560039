//! Far memory and real programs, unchanged, with a peak of at least four budgets: right answers, and the budget is kept.
//!
//! Owns: how each is called. Called by: `cargo test`. Must not: install anything: what is missing is skipped, with the command that
//! would bring it.

use std::time::Duration;

use netmem_tests::Far;
use netmem_tests::built::compile;
use netmem_tests::real::have;

const MIB: u64 = 1 << 20;
/// On a loaded machine with two processors.
const LIMIT: Duration = Duration::from_secs(150);

/// Runs a script in which `$R PROGRAM` has a budget, and looks whether it was kept and `moved` bytes left. `FACTOR` in it is 1; in the long
/// form it is 8, and the budget 8 times as much. What it printed.
fn keeps(budget: u64, moved: u64, script: &str) -> Option<String> {
    let far = Far::new()?;
    let factor = if std::env::var_os("NETMEM_TEST_LONG").is_some() { 8 } else { 1 };
    let (budget, moved, limit) = (budget * u64::from(factor), moved * u64::from(factor), LIMIT * factor);
    let output = far.script(budget, &script.replace("FACTOR", &factor.to_string()), limit);
    assert_eq!((output.code(), output.stderr.as_str()), (0, ""), "{output}");
    far.assert_kept(budget, moved);
    Some(output.stdout)
}

#[test]
fn sort_sorts_in_memory_as_it_does_without_us() {
    if !have(&["sort"], "coreutils") {
        return;
    }
    let script = r#"
        awk -v n=$((600000 * FACTOR)) 'BEGIN { srand(7); for (i = 0; i < n; i++) print int(rand() * 1e9), "line", i, rand() }' > $L/in
        sort --parallel=2 -S 2G $L/in | sha256sum > $L/plain
        $R sort --parallel=2 -S 2G $L/in | sha256sum > $L/ours
        cmp $L/plain $L/ours; wc -l < $L/in"#;
    keeps(16 * MIB, 32 * MIB, script);
}

#[test]
fn numpy_sorts_multiplies_and_sums() {
    if !have(&["/usr/bin/python3"], "python3-numpy") {
        return;
    }
    let script = r#"
        cat > $L/sums.py <<'END'
import hashlib, numpy as np
n = FACTOR
r = np.random.default_rng(5)
a = r.random((5_000 * n, 2_000))
print(hashlib.sha256(a.sum(axis=0)).hexdigest())
m = np.arange(600 * 600, dtype=np.int64).reshape(600, 600) % 1000
print(hashlib.sha256(m @ m.T).hexdigest())
f = a.ravel(); f.sort()
print(hashlib.sha256(f[:: 4096].copy()).hexdigest(), bool((f[1:] >= f[:-1]).all()) if n == 1 else True)
b = a * 2; print(float(b.max()) == 2 * float(a.max()), float(np.dot(f[:1000], f[-1000:])))
END
        export OPENBLAS_NUM_THREADS=2
        /usr/bin/python3 $L/sums.py > $L/plain
        $R /usr/bin/python3 $L/sums.py > $L/ours
        diff $L/plain $L/ours; cat $L/ours"#;
    keeps(24 * MIB, 75 * MIB, script);
}

#[test]
fn python_builds_a_large_dictionary_and_finds_all_of_it() {
    if !have(&["/usr/bin/python3"], "python3") {
        return;
    }
    let script = r#"
        cat > $L/dict.py <<'END'
n = 700_000 * FACTOR
d = {f"key {i}": (i, str(i * 7)) for i in range(n)}
assert all(d[f"key {i}"] == (i, str(i * 7)) for i in range(0, n, 3))
for i in range(0, n, 2): del d[f"key {i}"]
assert len(d) == n // 2 and sum(v[0] for v in d.values()) == sum(range(1, n, 2))
print("all of it")
END
        $R /usr/bin/python3 $L/dict.py"#;
    let said = keeps(48 * MIB, 100 * MIB, script);
    assert!(said.is_none_or(|said| said == "all of it\n"));
}

#[test]
fn containers_of_cpp_hold_what_was_put_into_them() {
    if !have(&["g++"], "g++") {
        return;
    }
    let program = compile("tests/far/containers.cpp", &[]);
    let said = keeps(48 * MIB, 100 * MIB, &format!("$R {} FACTOR", program.display()));
    assert!(said.is_none_or(|said| said == "ok\n"));
}

#[test]
fn stress_ng_verifies_the_memory_that_it_writes() {
    if !have(&["stress-ng"], "stress-ng") {
        return;
    }
    let script = r#"
        for method in rowhammer incdec flip rand-set walk-1d zero-one; do
            $R stress-ng --vm 1 --vm-bytes 200M --vm-method $method --verify --vm-ops 10000 --timeout 20 --oomable \
                --quiet --temp-path $L
        done"#;
    let Some(far) = Far::new() else { return };
    let output = far.script(48 * MIB, script, LIMIT);
    assert_eq!((output.code(), output.stderr.as_str()), (0, ""), "{output}");
    // Each process that it forks takes all of its 200 MiB in its first moment, and reads it first: on a busy machine the one that looks is late.
    far.assert_kept_but_for(64 * MIB, 48 * MIB, 150 * MIB);
    assert!(
        far.told().get("far_pages_out").is_some_and(|pages| pages * 4096 > 150 * MIB),
        "{:?}",
        far.told()
    );
}

#[test]
fn memtester_finds_nothing_wrong_with_what_it_locked() {
    if !have(&["memtester"], "memtester") {
        return;
    }
    let Some(far) = Far::new() else { return };
    let script =
        r#"$R memtester 12M 1 > $L/said || { cat $L/said; exit 1; }; grep -aiE "fail|^Done" $L/said"#;
    let output = far.script(32 * MIB, script, LIMIT);
    assert_eq!((output.code(), output.stderr.as_str()), (0, ""), "{output}");
    assert_eq!(output.stdout, "Done.\n", "{output}");
}

#[test]
fn sqlite_in_memory_answers_as_it_does_without_us() {
    if !have(&["sqlite3"], "sqlite3") {
        return;
    }
    let script = r#"
        cat > $L/q.sql <<'END'
create table t(k integer primary key, v text, w int);
with recursive c(x) as (select 1 union all select x + 1 from c where x < 500000 * FACTOR)
insert into t select x, printf('%0200d', x * 7919 % 1000003), x % 97 from c;
create index i on t(w, k);
select count(*), sum(k), sum(length(v)) from t;
select w, count(*), max(v) from t where w < 5 group by w;
delete from t where k % 3 = 0; select count(*), sum(cast(v as int)) from t;
pragma integrity_check;
END
        sqlite3 :memory: < $L/q.sql > $L/plain
        $R sqlite3 :memory: < $L/q.sql > $L/ours
        diff $L/plain $L/ours; cat $L/ours"#;
    keeps(24 * MIB, 72 * MIB, script);
}

#[test]
fn redis_keeps_all_keys_and_saves_and_loads_them() {
    if !have(&["redis-server", "redis-cli", "redis-benchmark"], "redis-server redis-tools") {
        return;
    }
    let script = r#"
        C="redis-cli -s $L/redis.sock"
        start() { $R redis-server --port 0 --unixsocket $L/redis.sock --dir $L --save "" --daemonize no --enable-debug-command yes \
            > $L/log 2>&1 & pid=$!
            until $C ping 2>/dev/null | grep -q PONG; do kill -0 $pid || { cat $L/log; exit 1; }; done; }
        start
        redis-benchmark -s $L/redis.sock -q -t set -n $((150000 * FACTOR)) -r $((75000 * FACTOR)) -d 1000 -P 32 > /dev/null
        before=$($C debug digest); keys=$($C dbsize); test $keys -gt 50000
        redis-benchmark -s $L/redis.sock -q -t get -n 25000 -r $((75000 * FACTOR)) -P 32 > /dev/null
        $C bgsave > /dev/null
        redis-benchmark -s $L/redis.sock -q -t get -n 25000 -r $((75000 * FACTOR)) -P 32 > /dev/null
        while $C info persistence | grep -q rdb_bgsave_in_progress:1; do :; done
        $C info persistence | grep -q rdb_last_bgsave_status:ok
        test "$before" = "$($C debug digest)"
        $C shutdown nosave > /dev/null 2>&1 || true; wait $pid
        start
        # It finds the file that the child wrote.
        test "$($C dbsize)" = "$keys"; test "$before" = "$($C debug digest)"
        $C shutdown nosave > /dev/null 2>&1 || true; wait $pid
        echo kept"#;
    let said = keeps(18 * MIB, 75 * MIB, script);
    assert!(said.is_none_or(|said| said == "kept\n"));
}

#[test]
fn memcached_gives_back_every_value() {
    if !have(&["memcached"], "memcached") || !have(&["/usr/bin/python3"], "python3") {
        return;
    }
    let script = r#"
        cat > $L/fill.py <<'END'
import socket, sys, time
n = 200_000 * FACTOR
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
f = s.makefile("rwb", buffering=1 << 20)
value = lambda i: (b"%d " % (i * 7919)) * 100
for at in range(0, n, 1000):
    for i in range(at, at + 1000):
        v = value(i); f.write(b"set k%d 0 0 %d noreply\r\n%s\r\n" % (i, len(v), v))
    f.write(b"version\r\n"); f.flush(); assert f.readline().startswith(b"VERSION")
for at in range(0, n, 50):
    f.write(b"get " + b" ".join(b"k%d" % i for i in range(at, at + 50)) + b"\r\n"); f.flush()
    for i in range(at, at + 50):
        assert f.readline().startswith(b"VALUE k%d " % i), i
        assert f.readline() == value(i) + b"\r\n", i
    assert f.readline() == b"END\r\n"
print("all", n)
END
        $R memcached -u root -s $L/m.sock -m $((1024 * FACTOR)) -t 2 & pid=$!
        until test -S $L/m.sock; do kill -0 $pid; done
        /usr/bin/python3 $L/fill.py $L/m.sock
        kill -TERM $pid; wait $pid || true"#;
    let said = keeps(48 * MIB, 100 * MIB, script);
    assert!(said.is_none_or(|said| said.starts_with("all ")));
}
