//! Locks: what was stored under one is committed when it is given up.
//!
//! Owns: nothing. Called by: the test runner. Must not: expect one host to wait for another's lock.

use netmem_tests::built::compile;
use netmem_tests::cli::{exported, import};
use netmem_tests::{Engine, Host, Run, Server, on_each_rung};

on_each_rung! {
    what_was_stored_under_a_lock_is_committed_with_its_end
}

fn what_was_stored_under_a_lock_is_committed_with_its_end(engine: Engine) {
    let server = Server::start();
    let program = compile("tests/agent/lock.c", &[]);
    import(&server, "f", &[b'0'; 4096]);
    let mut before = b'0';
    for (kind, byte) in [("record", b'1'), ("description", b'2'), ("file", b'3'), ("section", b'4')] {
        // Each on a host of its own: it sees what the one before it committed.
        let host = Host::new(engine);
        let text = (byte as char).to_string();
        let output = Run::on(&host, server.url(), &program).args([kind, "/netmem/f", &text]).output();
        assert_eq!(output.stdout, format!("{}\n", before as char), "{kind}: {output}");
        assert_eq!(exported(&server, "f")[0], byte, "{kind}: {output}");
        before = byte;
    }
}
