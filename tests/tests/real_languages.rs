//! Languages, unchanged: what their programs print where their files are regions is what they print where these are local.
//!
//! Owns: how each is called. Called by: `cargo test`. Must not: keep expected output: the kernel's is the reference.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use netmem_tests::built::{alone, root, target_directory};
use netmem_tests::skip::skip;
use netmem_tests::{Engine, Host, Output, Run, Server};

/// Where the kernel serves faults in a call's buffer, where a user-mode rung does not, and where faults are signals.
const ENGINES: [Engine; 3] = [Engine::Uffd, Engine::UffdUser, Engine::SigsegvGuard];
/// On a loaded machine with two processors.
const LONG: Duration = Duration::from_secs(100);

/// Runs a program of the system with $N for the directory that is tried.
fn run(limit: Duration, command: &[&str], host: &Host, url: &str) -> Output {
    let place = match host.engine() {
        Engine::Kernel => host.path("N"),
        _ => "/netmem".to_owned(),
    };
    if host.engine() == Engine::Kernel {
        fs::create_dir(&place).expect("a directory");
    }
    // Through a shell, as a user would: a tool's own wrapper is part of it.
    Run::on(host, url, "/bin/sh")
        .args(["-c", "mkdir -p $N/tmp && exec \"$@\"", "sh"])
        .args(command)
        .env("N", &place)
        .env("TMPDIR", format!("{place}/tmp"))
        .env("HOME", host.files())
        .env("LC_ALL", "C.UTF-8")
        .limit(limit)
        .output()
}

fn installed(check: &[&str], package: &str) -> bool {
    let works = Command::new(check[0]).args(&check[1..]).output().is_ok_and(|output| output.status.success());
    if !works {
        skip(package, &format!("{}: not installed; apt-get install {package}", check.join(" ")));
    }
    works
}

fn same_on(engines: &[Engine], command: &[&str]) {
    same_within(LONG, engines, command);
}

fn same_within(limit: Duration, engines: &[Engine], command: &[&str]) {
    let local = run(limit, command, &Host::new(Engine::Kernel), "");
    assert_eq!(local.code(), 0, "the reference itself: {local}");
    for engine in engines.iter().copied().filter_map(Engine::require) {
        let server = Server::start();
        let ours = run(limit, command, &Host::new(engine), server.url());
        assert_eq!(ours.stdout, local.stdout, "{ours}\n---- the kernel's\n{local}");
        assert_eq!((ours.code(), ours.lines_of_ours()), (0, Vec::new()), "{ours}");
    }
}

/// A script of tests/tools, as text: the user of a rung may not be able to read where it lies.
fn script(name: &str) -> String {
    fs::read_to_string(root().join("tests/tools").join(name)).expect("the script")
}

fn cpython(engines: &[Engine], modules: &[&str]) {
    if installed(&["/usr/bin/python3", "-c", "import test.test_mmap"], "libpython3.11-testsuite") {
        let text = script("cpython.py");
        let command: Vec<&str> =
            ["/usr/bin/python3", "-c", &text].into_iter().chain(modules.iter().copied()).collect();
        // Five modules at the most are run every time; more have longer.
        same_within(LONG * modules.len().div_ceil(5) as u32, engines, &command);
    }
}

#[test]
fn cpythons_own_tests_of_mmap() {
    cpython(&ENGINES, &["test_mmap"]);
}

#[test]
fn cpythons_own_tests_of_files() {
    cpython(
        &[Engine::Uffd],
        &["test_fileio", "test_file", "test_tempfile", "test_largefile", "test_fileinput"],
    );
}

#[test]
fn cpythons_own_tests_of_names() {
    cpython(&[Engine::SigsegvGuard], &["test_shutil", "test_pathlib", "test_glob", "test_genericpath"]);
}

#[test]
#[ignore = "long: make test-long"]
fn cpythons_own_tests_of_all_that_touches_files() {
    cpython(
        &[Engine::Uffd, Engine::SigsegvGuard],
        &[
            "test_os",
            "test_posix",
            "test_io",
            "test_dbm_dumb",
            "test_zipfile",
            "test_tarfile",
            "test_mailbox",
        ],
    );
}

#[test]
fn numpy_maps_saves_loads_and_streams_arrays() {
    if installed(&["/usr/bin/python3", "-c", "import numpy"], "python3-numpy") {
        same_on(&ENGINES, &["/usr/bin/python3", "-c", &script("arrays.py")]);
    }
}

#[test]
fn a_cache_of_perls_in_a_mapped_file_is_shared_by_processes() {
    if installed(&["perl", "-e", "use Cache::FastMmap"], "libcache-fastmmap-perl") {
        same_on(&ENGINES, &["perl", "-e", &script("fastmmap.pl")]);
    }
}

#[test]
fn perl_opens_seeks_copies_and_edits() {
    if installed(&["perl", "-e", "use File::Copy; use File::Temp"], "perl") {
        same_on(&ENGINES, &["perl", "-e", &script("perl.pl")]);
    }
}

#[test]
fn ruby_reads_writes_and_moves() {
    if installed(&["ruby", "-e", "require 'pstore'"], "ruby") {
        same_on(&ENGINES, &["ruby", "-e", &script("ruby.rb")]);
    }
}

#[test]
fn node_reads_writes_streams_and_lists() {
    if installed(&["node", "--version"], "nodejs") {
        same_on(&ENGINES, &["node", "-e", &script("node.js")]);
    }
}

/// memmap2's tests, built once from the crate's own source.
fn memmap2() -> Option<PathBuf> {
    let _one = alone("memmap2.lock");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let manifest = root().join("tests/memmap2/Cargo.toml");
    let known = Command::new(&cargo)
        .args(["metadata", "--format-version=1", "--locked", "--manifest-path"])
        .arg(&manifest)
        .output()
        .expect("cargo");
    let text = String::from_utf8_lossy(&known.stdout).into_owned();
    let place = text.split('"').find(|part| part.contains("/memmap2-0.") && part.ends_with("/Cargo.toml"));
    let Some(source) = place.and_then(|manifest| PathBuf::from(manifest).parent().map(PathBuf::from)) else {
        skip("memmap2", &format!("memmap2: {}", String::from_utf8_lossy(&known.stderr)));
        return None;
    };
    let (copy, target) = (
        target_directory().join("test-programs/memmap2"),
        target_directory().join("test-programs/memmap2-target"),
    );
    if !copy.exists() {
        Run::plain("cp").arg("-r").arg(&source).arg(&copy).ok();
        let manifest = fs::read_to_string(copy.join("Cargo.toml")).expect("its manifest");
        fs::write(copy.join("Cargo.toml"), manifest + "\n[workspace]\n").expect("its manifest");
    }
    let built = Command::new(cargo)
        .args(["test", "--no-run", "--lib", "--locked", "--message-format=short", "--target-dir"])
        .arg(&target)
        .current_dir(&copy)
        .env_remove("CARGO_TARGET_DIR")
        .output()
        .expect("cargo");
    let said = String::from_utf8_lossy(&built.stderr).into_owned();
    assert!(built.status.success(), "{said}");
    let line = said.lines().find(|line| line.contains("Executable")).expect("the name of the tests");
    let name = line.rsplit_once('(').expect("a path").1.trim_end_matches(')');
    Some(copy.join(name))
}

#[test]
fn memmap2s_own_tests() {
    let Some(tests) = memmap2() else { return };
    let count = |host: &Host, url: &str| {
        // A copy where the rung's user can execute it.
        let copy = host.files().join("tests");
        fs::copy(&tests, &copy).expect("a copy");
        let output = run(LONG, &[copy.to_str().expect("a path")], host, url);
        let line = output.stdout.lines().find(|line| line.starts_with("test result: ok."));
        let line = line.unwrap_or_else(|| panic!("{output}"));
        line.split("; finished").next().unwrap_or_default().to_owned()
    };
    let local = count(&Host::new(Engine::Kernel), "");
    for engine in ENGINES.into_iter().filter_map(Engine::require) {
        let server = Server::start();
        assert_eq!(count(&Host::new(engine), server.url()), local, "{engine}");
    }
}
