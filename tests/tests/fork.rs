//! Children: they see what their parent saw, and what they change is kept or theirs alone, as fork says.
//!
//! Owns: nothing. Called by: `cargo test`. Must not: look into the library.

use std::fs;

use netmem_tests::built::compile;
use netmem_tests::cli::{exported, import};
use netmem_tests::{Agent, Engine, Host, Run, Server, on_each_rung};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

on_each_rung! {
    a_child_loads_pages_that_its_parent_never_touched
    a_child_of_a_child_loads_them_too
    what_a_child_stores_is_shared_and_committed
    a_private_mapping_is_each_ones_own
    a_child_commits_by_itself
    a_daemon_goes_on_where_its_parent_left
    a_child_of_a_program_with_many_threads_finds_every_page
    a_child_that_ends_does_not_disturb_its_parent
    a_child_that_was_cloned_past_us_gets_sigsegv_and_spoils_nothing
    a_region_is_not_executed
}

const PAGE: usize = 4096;

/// 64 pages of letters on a server, and an agent that has them mapped and has touched none.
fn fresh(engine: Engine, server: &Server, host: &Host, kind: &str) -> Agent {
    let bytes: Vec<u8> = (0..64 * PAGE).map(|at| b'a' + (at / PAGE % 26) as u8).collect();
    import(server, "f", &bytes);
    let mut agent = Agent::start(host, server.url());
    assert_eq!(host.engine(), engine);
    let fd = agent.ok("open /netmem/f rw");
    agent.ok(&format!("map {fd} 0 {} {kind} w", 64 * PAGE));
    agent
}

fn a_child_loads_pages_that_its_parent_never_touched(engine: Engine) {
    let (server, host) = (Server::start(), Host::new(engine));
    let mut agent = fresh(engine, &server, &host, "shared");
    for page in [0, 1, 20, 40, 63] {
        let letter = char::from(b'a' + (page % 26) as u8);
        assert_eq!(agent.ok(&format!("forked same 0 {} 4096 {letter}", page * PAGE)), "yes", "page {page}");
        assert_eq!(agent.ok(&format!("same 0 {} 4096 {letter}", page * PAGE)), "yes", "page {page}");
    }
}

fn a_child_of_a_child_loads_them_too(engine: Engine) {
    let (server, host) = (Server::start(), Host::new(engine));
    let mut agent = fresh(engine, &server, &host, "shared");
    assert_eq!(agent.ok("forked forked load 0 8190 4"), "bbcc");
    assert_eq!(agent.ok("forked forked forked load 0 122878 4"), "ddee");
    assert_eq!(agent.ok("load 0 8190 4"), "bbcc");
}

fn what_a_child_stores_is_shared_and_committed(engine: Engine) {
    let (server, host) = (Server::start(), Host::new(engine));
    let mut agent = fresh(engine, &server, &host, "shared");
    agent.ok("forked fill 0 4096 4096 1");
    assert_eq!(agent.ok("same 0 4096 4096 1"), "yes");
    agent.ok("store 0 8192 parent");
    agent.ok("forked store 0 8198 child");
    assert_eq!(agent.ok("load 0 8192 11"), "parentchild");
    agent.ok("sync 0 0 262144 s");
    let content = exported(&server, "f");
    assert!(content[4096..8192].iter().all(|byte| *byte == b'1'));
    assert_eq!(&content[8192..8204], b"parentchildc");
}

fn a_private_mapping_is_each_ones_own(engine: Engine) {
    let (server, host) = (Server::start(), Host::new(engine));
    let mut agent = fresh(engine, &server, &host, "private");
    agent.ok("store 0 0 parent");
    agent.ok("forked store 0 0 child");
    assert_eq!(agent.ok("load 0 0 7"), "parenta");
    assert_eq!(agent.ok("forked load 0 0 7"), "parenta");
    assert_eq!(agent.ok("forked load 0 126974 4"), "eeff");
    agent.ok("sync 0 0 262144 s");
    assert_eq!(&exported(&server, "f")[..8], b"aaaaaaaa");
}

fn a_child_commits_by_itself(engine: Engine) {
    let (server, host) = (Server::start(), Host::new(engine));
    let mut agent = fresh(engine, &server, &host, "shared");
    agent.ok("store 0 0 parent");
    agent.ok("forked sync 0 0 262144 s");
    assert_eq!(&exported(&server, "f")[..7], b"parenta");
    agent.ok("store 0 0 PARENT");
    agent.ok("sync 0 0 262144 s");
    assert_eq!(&exported(&server, "f")[..7], b"PARENTa");
}

fn a_daemon_goes_on_where_its_parent_left(engine: Engine) {
    let (server, host) = (Server::start(), Host::new(engine));
    let fifo = host.files().join("end");
    mkfifo(&fifo, Mode::from_bits_truncate(0o666)).expect("a fifo");
    nix::sys::stat::fchmodat(
        nix::fcntl::AT_FDCWD,
        &fifo,
        Mode::from_bits_truncate(0o666),
        nix::sys::stat::FchmodatFlags::FollowSymlink,
    )
    .expect("its mode");
    let program = compile("tests/agent/away.c", &[]);
    let (send, ended) = std::sync::mpsc::sync_channel(1);
    let reader = fifo.clone();
    // Reading ends when the daemon does: it alone holds the other side.
    std::thread::spawn(move || send.send(fs::read(reader)));
    Run::on(&host, server.url(), program).arg("/netmem/f").arg(&fifo).ok();
    ended.recv_timeout(std::time::Duration::from_secs(30)).expect("the daemon ends").expect("the fifo");
    let content = exported(&server, "f");
    let letters: Vec<u8> = content.chunks(PAGE).map(|page| page[0]).collect();
    assert_eq!(letters, b"pde\0\0\0\0\0");
}

fn a_child_of_a_program_with_many_threads_finds_every_page(engine: Engine) {
    let (server, host) = (Server::start(), Host::new(engine));
    let program = compile("tests/agent/crowd.c", &[]);
    Run::on(&host, server.url(), &program).args(["/netmem/c", "0", "512", "0", "none"]).ok();
    // Cold: parent and children race for pages that are not here.
    let cold = Host::new(engine);
    let output =
        Run::on(&cold, server.url(), &program).args(["/netmem/c", "8", "512", "20000", "fork"]).output();
    assert_eq!((output.stdout.as_str(), output.code()), ("crowd: 0 wrong\n", 0), "{output}");
}

fn a_child_that_ends_does_not_disturb_its_parent(engine: Engine) {
    let (server, host) = (Server::start(), Host::new(engine));
    let mut agent = fresh(engine, &server, &host, "shared");
    agent.ok("store 0 0 one");
    for round in 0..5 {
        agent.ok(&format!("forked load 0 {} 1", round * 9 * PAGE));
        agent.tell("forked kill 9");
        assert_eq!(agent.ok("load 0 0 3"), "one");
    }
    agent.ok("fill 0 0 4096 2");
    agent.ok("sync 0 0 262144 s");
    assert!(exported(&server, "f")[..PAGE].iter().all(|byte| *byte == b'2'));
    assert_eq!(agent.ok("same 0 258048 4096 l"), "yes");
}

fn a_child_that_was_cloned_past_us_gets_sigsegv_and_spoils_nothing(engine: Engine) {
    let (server, host) = (Server::start(), Host::new(engine));
    let bytes: Vec<u8> = (0..64 * PAGE).map(|at| b'a' + (at / PAGE % 26) as u8).collect();
    import(&server, "f", &bytes);
    let program = compile("tests/agent/cloned.c", &[]);
    let output = Run::on(&host, server.url(), program).arg("/netmem/f").ok();
    assert_eq!(output.stdout, "SIGSEGV a\nSIGSEGV b\nSIGSEGV c\nSIGSEGV d\n");
    assert!(exported(&server, "f") == bytes);
}

fn a_region_is_not_executed(engine: Engine) {
    let (server, host) = (Server::start(), Host::new(engine));
    import(&server, "script", b"#!/bin/sh\nexit 21\n");
    let script = "chmod 700 /netmem/script; /netmem/script; echo $?; sh /netmem/script; echo $?";
    let output = Run::on(&host, server.url(), "/bin/sh").args(["-c", script]).ok();
    assert_eq!(output.stdout, "126\n21\n", "{output}");
    assert!(output.stderr.contains("Permission denied"), "{output}");
}
