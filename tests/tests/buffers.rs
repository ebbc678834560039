//! What goes past the calls: requests that are handed to the kernel in memory.
//!
//! Owns: nothing. Called by: the test runner. Must not: repeat what tests/programs shows of buffers.

use netmem_tests::built::compile;
use netmem_tests::{Engine, Host, Run, Server, on_each_rung};

on_each_rung! {
    libaio_is_served_and_io_uring_refused_where_netmem_is_in_use
}

fn libaio_is_served_and_io_uring_refused_where_netmem_is_in_use(engine: Engine) {
    let (server, host) = (Server::start(), Host::new(engine));
    Run::on(&host, server.url(), compile("tests/agent/requests.c", &[])).arg("/netmem/requests").ok();
}
