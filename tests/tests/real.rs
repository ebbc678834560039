//! Real programs, unchanged: what they compute from a region is what they compute from a local copy.
//!
//! Owns: how each is called. Called by: `cargo test`. Must not: install anything: what is missing is skipped, with the
//! command that would bring it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use netmem_tests::cli::{big_text, exported, import_file};
use netmem_tests::skip::skip;
use netmem_tests::{Engine, Host, Output, Run, Server};

/// Rungs that a program of root's can take.
const ENGINES: [Engine; 4] = [Engine::Uffd, Engine::UffdSync, Engine::SigsegvGuard, Engine::SigsegvMprotect];
/// 100 MB, of which much is prefetched and some is not.
const BYTES: usize = 100_000_000;
/// On a loaded machine with two processors.
const LONG: Duration = Duration::from_secs(300);

fn engines() -> impl Iterator<Item = Engine> {
    ENGINES.into_iter().filter_map(Engine::require)
}

/// Whether a command works here; else SKIP with how to get it.
fn have(command: &[&str], package: &str) -> bool {
    let works = Run::plain("/bin/sh").args(["-c", &command.join(" ")]).output().code() == 0;
    if !works {
        skip(package, &format!("{}: not installed; apt-get install {package}", command[0]));
    }
    works
}

fn fio(more: &[&str]) {
    if !have(&["fio", "--version"], "fio") {
        return;
    }
    for engine in engines() {
        let (server, host) = (Server::start(), Host::new(engine));
        let output = Run::on(&host, server.url(), "fio")
            .args([
                "--name=v",
                "--ioengine=mmap",
                "--filename=/netmem/vol",
                "--size=256m",
                "--rw=randrw",
                "--bs=4k",
            ])
            .args(["--verify=crc32c", "--verify_fatal=1", "--randseed=1", "--thread"])
            .args(more)
            .limit(LONG)
            .output();
        assert_eq!(output.code(), 0, "{output}");
        assert!(output.stdout.contains("err= 0"), "{output}");
        assert_eq!(output.lines_of_ours(), Vec::<&str>::new(), "{output}");
        assert_eq!(exported(&server, "vol").len(), 256 << 20);
    }
}

#[test]
fn fio_verifies_what_it_wrote_through_a_mapping() {
    fio(&[]);
}

#[test]
fn fio_verifies_what_it_wrote_and_synced() {
    fio(&["--fsync=64", "--io_size=64m"]);
}

/// The shell line with FILE for a local file, and for the same file imported, on each rung.
fn same_answer(line: &str) {
    let file = big_text(BYTES);
    let run = |run: Run, path: &Path| -> Output {
        run.args(["-c", &line.replace("FILE", &path.display().to_string())]).limit(LONG).ok()
    };
    let local = run(Run::plain("/bin/sh"), &file);
    assert!(!local.stdout.is_empty(), "{local}");
    for engine in engines() {
        let (server, host) = (Server::start(), Host::new(engine));
        import_file(&server, "text", &file);
        let ours = run(Run::on(&host, server.url(), "/bin/sh"), &PathBuf::from("/netmem/text"));
        assert_eq!(ours.stdout, local.stdout, "{ours}");
        assert_eq!(ours.lines_of_ours(), Vec::<&str>::new(), "{ours}");
    }
}

#[test]
fn ripgrep_with_and_without_mmap() {
    if have(&["rg", "--version"], "ripgrep") {
        same_answer(
            "rg --mmap -c 'needle far' FILE; rg --no-mmap -c 'x page region' FILE; rg --mmap -n -m 3 'memory memory memory memory' FILE",
        );
    }
}

#[test]
fn grep_wc_md5sum_sort_and_tail() {
    same_answer(
        "grep -c needle FILE; wc < FILE; md5sum < FILE; tail -c 1000000 FILE | sort | md5sum; cmp FILE FILE && echo same",
    );
}

#[test]
fn cp_dd_and_cat_copy_all_of_it() {
    same_answer(
        "cp FILE copy && md5sum < copy; rm copy; dd if=FILE bs=1M skip=10 count=7 2>/dev/null | md5sum; cat FILE | md5sum; head -c 5000 FILE | md5sum",
    );
}

#[test]
fn python_maps_it_and_reads_it() {
    if !have(&["python3", "-c", "1"], "python3") {
        return;
    }
    let script = "
import hashlib, mmap
with open(\"FILE\", \"rb\") as f:
    m = mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ)
    print(hashlib.md5(m).hexdigest(), m.find(b\"needle\", 50000000), m[-20:], len(m))
    f.seek(12345678); print(hashlib.md5(f.read(5000000)).hexdigest())
";
    same_answer(&format!("python3 -c '{script}'"));
}

/// The first python3 that has numpy: the one that a user put in front, or the system's own.
fn python_with_numpy() -> Option<&'static str> {
    let has = |python: &&str| {
        let import = std::process::Command::new(python).args(["-c", "import numpy"]).output();
        import.is_ok_and(|output| output.status.success())
    };
    let found = ["python3", "/usr/bin/python3"].into_iter().find(has);
    if found.is_none() {
        skip("python3-numpy", "numpy: not installed; apt-get install python3-numpy");
    }
    found
}

#[test]
fn numpy_maps_it_and_computes() {
    let Some(python) = python_with_numpy() else { return };
    let script = "
import numpy as np
a = np.memmap(\"FILE\", dtype=np.uint8, mode=\"r\")
print(int(a.sum()), int((a[1:] == a[:-1]).sum()), np.bincount(a).tolist()[90:110], int(np.median(a[::1000])))
";
    same_answer(&format!("{python} -c '{script}'"));
}

#[test]
fn numpy_writes_a_mapped_array_that_another_host_reads() {
    let Some(python) = python_with_numpy() else { return };
    for engine in engines() {
        let server = Server::start();
        let write = "
import numpy as np
a = np.lib.format.open_memmap('/netmem/a.npy', mode='w+', dtype='f8', shape=(1000, 1000))
a[:] = np.arange(1000000).reshape(1000, 1000); a[500] *= 2; a.flush(); print(a.sum())";
        let read = "
import numpy as np
print(np.load('/netmem/a.npy', mmap_mode='r').sum())";
        let run = |script: &str| {
            let output = Run::on(&Host::new(engine), server.url(), "/bin/sh")
                .args(["-c", &format!("exec {python} -")])
                .stdin(script)
                .ok();
            output.stdout
        };
        let (written, loaded) = (run(write), run(read));
        assert_eq!(written, loaded, "{engine}");
        assert_eq!(written.trim(), "500499999500.0", "{engine}");
    }
}

#[test]
fn sqlite_with_mapped_io_keeps_a_database() {
    if !have(&["python3", "-c", "'import sqlite3'"], "python3") {
        return;
    }
    for engine in engines() {
        let server = Server::start();
        let write = "
import sqlite3
c = sqlite3.connect('/netmem/db'); c.execute('pragma mmap_size=268435456'); c.execute('create table t (k integer primary key, v text)')
with c: c.executemany('insert into t values (?, ?)', ((k, 'value %d' % (k * k)) for k in range(20000)))
with c: c.execute('delete from t where k % 3 = 0')
c.close()";
        let read = "
import sqlite3
c = sqlite3.connect('/netmem/db'); c.execute('pragma mmap_size=268435456')
print(c.execute('pragma integrity_check').fetchall(), c.execute('select count(*), sum(k), max(v) from t').fetchall())";
        let run = |script: &str| {
            Run::on(&Host::new(engine), server.url(), "/bin/sh")
                .args(["-c", "exec python3 -"])
                .stdin(script)
                .ok()
        };
        run(write);
        let output = run(read);
        assert_eq!(output.stdout, "[('ok',)] [(13333, 133326667, 'value 99960004')]\n", "{engine}: {output}");
    }
}
