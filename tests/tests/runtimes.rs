//! Language runtimes that have a SIGSEGV handler of their own: what they load through a mapping is right, and what is their own
//! fault stays theirs.
//!
//! Owns: compiling tests/runtimes. Called by: `cargo test`. Must not: know what a runtime prints: that of a local file counts.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use netmem_tests::built::{alone, root, target_directory};
use netmem_tests::real::have;
use netmem_tests::{Engine, Host, Output, Run, Server, on_each_rung};

on_each_rung! {
    rusts_std_keeps_its_overflow_handler
    cpythons_faulthandler_keeps_its_own
    the_jvm_finds_null_pointers_between_absent_pages
    go_through_cgo_recovers_between_absent_pages
}

/// The directory of what is compiled, after `make` made `product` in it unless it is newer than `source`.
fn compiled(source: &str, product: &str, make: impl FnOnce(&Path, &Path) -> Command) -> PathBuf {
    let source = root().join("tests/runtimes").join(source);
    let directory = target_directory().join("test-programs/runtimes");
    fs::create_dir_all(&directory).expect("a directory");
    let _alone = alone("runtimes.lock");
    let time = |path: &Path| fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
    let made = directory.join(product);
    if time(&made) < time(&source) {
        let output = make(&source, &directory).output().expect("a compiler");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    made
}

/// Runs `program FILE PHASE` for each phase, each on a host that has no page yet, and on a local file; returns both ends.
fn beside_the_kernel(
    engine: Engine,
    phases: &[&str],
    program: impl Fn(&Host, &Server) -> Run,
) -> Vec<(Output, Output)> {
    let server = Server::start();
    let local = Host::new(Engine::Kernel);
    let run = |host: &Host, phase: &str| {
        program(host, &server).arg(host.path("f")).arg(phase).env("RUST_BACKTRACE", "0").output()
    };
    let both = |phase: &&str| (run(&Host::new(engine), phase), run(&local, phase));
    let ends: Vec<_> = phases.iter().map(both).collect();
    for (ours, kernels) in &ends {
        assert_eq!(ours.stdout, kernels.stdout, "{ours}{kernels}");
        assert_eq!(ours.code(), kernels.code(), "{ours}{kernels}");
        assert_eq!(ours.lines_of_ours(), Vec::<&str>::new(), "{ours}");
    }
    ends
}

fn rusts_std_keeps_its_overflow_handler(engine: Engine) {
    let program = compiled("stack.rs", "stack", |source, directory| {
        let mut rustc = Command::new("rustc");
        rustc.args(["--edition=2024", "-O", "-o"]).arg(directory.join("stack")).arg(source);
        rustc
    });
    let ends = beside_the_kernel(engine, &["write", "read", "overflow"], |host, server| {
        Run::on(host, server.url(), &program)
    });
    let (ours, _) = &ends[2];
    assert!(ours.stderr.contains("thread 'deep'") && ours.stderr.contains("overflowed its stack"), "{ours}");
}

fn cpythons_faulthandler_keeps_its_own(engine: Engine) {
    if !have(&["python3"], "python3") {
        return;
    }
    let script = root().join("tests/runtimes/faults.py");
    let ends = beside_the_kernel(engine, &["write", "read", "fault"], |host, server| {
        let script = fs::read_to_string(&script).expect("the script");
        Run::on(host, server.url(), "python3").arg("-c").arg(script)
    });
    let (ours, kernels) = &ends[2];
    assert_eq!(ours.code(), -11, "{ours}");
    assert!(ours.stderr.contains("Fatal Python error: Segmentation fault"), "{ours}{kernels}");
}

fn the_jvm_finds_null_pointers_between_absent_pages(engine: Engine) {
    if !have(&["java", "javac"], "openjdk-17-jdk-headless") {
        return;
    }
    let class = compiled("Faults.java", "Faults.class", |source, directory| {
        let mut javac = Command::new("javac");
        javac.arg("-d").arg(directory).arg(source);
        javac
    });
    let directory = class.parent().expect("a directory").to_owned();
    beside_the_kernel(engine, &["write", "read"], |host, server| {
        let run = Run::on(host, server.url(), "java");
        run.args(["-Xmx64m", "-XX:+UseSerialGC", "-XX:-UsePerfData", "-cp"]).arg(&directory).arg("Faults")
    });
}

fn go_through_cgo_recovers_between_absent_pages(engine: Engine) {
    if !have(&["go"], "golang-go") {
        return;
    }
    let program = compiled("faults.go", "faults", |source, directory| {
        let mut go = Command::new("go");
        let cache = directory.join("go-cache");
        go.env("GOCACHE", cache).env("GO111MODULE", "off").env("CGO_ENABLED", "1");
        go.args(["build", "-o"]).arg(directory.join("faults")).arg(source);
        go
    });
    beside_the_kernel(engine, &["write", "read"], |host, server| Run::on(host, server.url(), &program));
}
