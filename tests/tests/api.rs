//! include/netmem.h, as a C program uses it: linked with the library, and with the library preloaded.
//!
//! Owns: nothing. Called by: the test runner. Must not: look behind the header.

use netmem_tests::built::{built, compile};
use netmem_tests::cli::exported;
use netmem_tests::{Engine, Host, Run, Server, on_each_rung};

on_each_rung! {
    the_functions_of_the_header_do_what_it_says
}

fn the_functions_of_the_header_do_what_it_says(engine: Engine) {
    let (server, host) = (Server::start(), Host::new(engine));
    let directory = built().library.parent().expect("a directory").display().to_string();
    let (place, run_path) = (format!("-L{directory}"), format!("-Wl,-rpath,{directory}"));
    let program = compile("tests/agent/api.c", &[&place, "-lnetmem", &run_path]);
    let output = Run::on(&host, server.url(), &program).output();
    assert!(output.code() == 0 && !output.stdout.contains("FAIL"), "{output}");
    let content = exported(&server, "api");
    assert_eq!((content[0], content[4096], content[32 * 4096]), (b'x', b'1', b'2'));
}
