//! The tools of a system, unchanged: what a script of them prints where its files are regions is what it prints where they are local.
//!
//! Owns: tests/tools, a script for each family. Called by: `cargo test`. Must not: keep expected output: the kernel's is the reference.

use std::time::Duration;

use netmem_tests::built::root;
use netmem_tests::skip::skip;
use netmem_tests::{Engine, Host, Output, Run, Server};

/// Where the kernel serves faults in a call's buffer, where a user-mode rung does not, and where faults are signals.
const ENGINES: [Engine; 3] = [Engine::Uffd, Engine::UffdUser, Engine::SigsegvGuard];

/// On a loaded machine with two processors.
const LONG: Duration = Duration::from_secs(100);

/// Runs tests/tools/NAME.sh with $N for the directory that is tried.
fn run(name: &str, host: &Host, url: &str) -> Output {
    let script = std::fs::read_to_string(root().join("tests/tools").join(format!("{name}.sh")));
    let place = match host.engine() {
        Engine::Kernel => host.path("N"),
        _ => "/netmem".to_owned(),
    };
    let make = if host.engine() == Engine::Kernel { "mkdir N; " } else { "" };
    Run::on(host, url, "/bin/bash")
        .args(["-euc", &format!("{make}{}", script.expect("the script"))])
        .env("N", place)
        .env("HOME", host.files())
        .env("LC_ALL", "C.UTF-8")
        .limit(LONG)
        .output()
}

fn same(name: &str, programs: &[(&str, &str)]) {
    same_on(&ENGINES, name, programs);
}

fn same_on(engines: &[Engine], name: &str, programs: &[(&str, &str)]) {
    for (program, package) in programs {
        let there = Run::plain("/bin/sh").args(["-c", &format!("command -v {program}")]).output();
        if there.code() != 0 {
            return skip(package, &format!("{program}: not installed; apt-get install {package}"));
        }
    }
    let local = run(name, &Host::new(Engine::Kernel), "");
    assert_eq!(local.code(), 0, "the reference itself: {local}");
    for engine in engines.iter().copied().filter_map(Engine::require) {
        let server = Server::start();
        let ours = run(name, &Host::new(engine), server.url());
        assert_eq!(ours.stdout, local.stdout, "{ours}\n---- the kernel's\n{local}");
        assert_eq!((ours.code(), ours.lines_of_ours()), (0, Vec::new()), "{ours}");
    }
}

#[test]
fn copies_are_copies_by_cp_dd_mv_install_split_and_tee() {
    same("copies", &[]);
}

#[test]
fn archives_are_made_listed_and_unpacked_by_tar_zip_gzip_xz_and_bzip2() {
    same("archives", &[("zip", "zip"), ("unzip", "unzip"), ("xz", "xz-utils"), ("bzip2", "bzip2")]);
}

#[test]
fn rsync_goes_into_out_of_and_in_place() {
    same("rsync", &[("rsync", "rsync")]);
}

#[test]
fn sort_uses_temporary_files_there() {
    same("sort", &[]);
}

#[test]
fn editors_replace_and_rewrite_files() {
    same("editing", &[("vim", "vim"), ("ed", "ed"), ("perl", "perl"), ("patch", "patch")]);
}

#[test]
fn names_are_found_listed_changed_and_removed() {
    same("names", &[("find", "findutils")]);
}

#[test]
fn a_shells_redirections_read_and_write() {
    same("redirections", &[]);
}

#[test]
fn make_and_gcc_build_a_program_there() {
    same("building", &[("make", "make"), ("gcc", "gcc")]);
}

#[test]
fn git_keeps_packs_checks_and_clones_a_repository_with_kernel_faults() {
    same_on(&[Engine::Uffd], "git", &[("git", "git")]);
}

#[test]
fn git_keeps_packs_checks_and_clones_a_repository_with_signals() {
    same_on(&[Engine::SigsegvGuard], "git", &[("git", "git")]);
}

#[test]
fn links_go_through_archives_copies_rsync_git_and_languages() {
    same("links", &[("rsync", "rsync"), ("git", "git"), ("python3", "python3"), ("perl", "perl")]);
}

#[test]
fn what_is_carried_out_later_is_refused_and_said() {
    let fio = |host: &Host, url: &str, engine: &str| {
        let engine = format!("--ioengine={engine}");
        Run::on(host, url, "fio")
            .args(["--name=r", "--rw=randrw", "--size=1m", "--filename=/netmem/f", &engine])
            .output()
    };
    if Run::plain("/bin/sh").args(["-c", "fio --version"]).output().code() != 0 {
        return skip("fio", "fio: not installed; apt-get install fio");
    }
    let Some(engine) = Engine::Uffd.require() else { return };
    let (server, host) = (Server::start(), Host::new(engine));
    for (engine, said) in
        [("posixaio", "error=Function not implemented"), ("io_uring", "your kernel doesn't support io_uring")]
    {
        let output = fio(&host, server.url(), engine);
        assert_ne!(output.code(), 0, "{output}");
        assert!(output.stdout.contains(said) || output.stderr.contains(said), "{output}");
        let line = output.stderr.contains("asynchronous I/O on a region is refused");
        assert_eq!(line, engine != "io_uring", "{output}");
    }
}
