//! The ways in that are no path under the prefix: a number, a glob, and what without the library is an error.
//!
//! Owns: nothing. Called by: the test runner. Must not: test what programs.rs tests (shm_open, MAP_NETMEM).

use netmem_tests::built::{compile, root};
use netmem_tests::cli::exported;
use netmem_tests::{Engine, Host, Run, Server, on_each_rung};

on_each_rung! {
    a_number_from_the_configuration_is_a_region
    files_that_match_a_glob_are_regions
}

fn a_number_from_the_configuration_is_a_region(engine: Engine) {
    let (server, host) = (Server::start(), Host::new(engine));
    let program = compile("tests/agent/door.c", &[]);
    let run = Run::on(&host, server.url(), &program).env("NETMEM_REGION", "/netmem/from-a-number");
    assert_eq!(run.ok().stdout, "msync: 0\n");
    let content = exported(&server, "from-a-number");
    assert_eq!((content.len(), &content[4096..4105]), (3 * 4096, &b"by number"[..]));
}

fn files_that_match_a_glob_are_regions(engine: Engine) {
    let (server, host) = (Server::start(), Host::new(engine));
    let place = root().join("target/no-such-directory");
    let script =
        format!("echo from a glob > {0}/x.db && cat {0}/x.db && cp {0}/x.db {0}/y.db", place.display());
    let globs = format!("/elsewhere/*:{}/*.db", place.display());
    let output =
        Run::on(&host, server.url(), "/bin/sh").args(["-c", &script]).env("NETMEM_PATHS", globs).ok();
    assert_eq!(output.stdout, "from a glob\n");
    assert!(!place.exists(), "the directory was made on this machine");
    let name = format!("{}/y.db", place.display());
    assert_eq!(exported(&server, name.trim_start_matches('/')), b"from a glob\n");
}

#[test]
fn the_number_without_a_name_for_it_is_ebadf_and_a_line() {
    let (server, host) = (Server::start(), Host::new(netmem_tests::engine::best()));
    let program = compile("tests/agent/door.c", &[]);
    let output = Run::on(&host, server.url(), &program).output();
    assert_eq!((output.stdout.as_str(), output.code()), ("mmap: EBADF\n", 1), "{output}");
    assert!(output.stderr.contains("NETMEM_REGION"), "{output}");
}

#[test]
fn without_the_library_the_number_is_ebadf() {
    let program = compile("tests/agent/door.c", &[]);
    let output = Run::plain(&program).output();
    assert_eq!((output.stdout.as_str(), output.code()), ("mmap: EBADF\n", 1), "{output}");
}
