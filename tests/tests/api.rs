//! include/netmem.h, as a C program uses it: linked with the library, and with the library preloaded.
//!
//! Owns: nothing. Called by: the test runner. Must not: look behind the header.

use netmem_tests::built::linked;
use netmem_tests::cli::exported;
use netmem_tests::{Engine, Host, Run, Server, on_each_rung};

on_each_rung! {
    the_functions_of_the_header_do_what_it_says
}

fn the_functions_of_the_header_do_what_it_says(engine: Engine) {
    let (server, host) = (Server::start(), Host::new(engine));
    let program = linked("tests/linked/api.c");
    let output = Run::on(&host, server.url(), &program).output();
    assert!(output.code() == 0 && !output.stdout.contains("FAIL"), "{output}");
    let content = exported(&server, "api");
    assert_eq!((content[0], content[4096], content[32 * 4096]), (b'x', b'1', b'2'));
}
