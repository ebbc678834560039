//! What is kept, when, and who sees it: the table of guarantees, a row a test.
//!
//! Owns: nothing. Called by: `cargo test`. Must not: look into the library: two hosts are two directories.

use std::time::{Duration, Instant};

use netmem_tests::cli::{bytes_at, exported, letters};
use netmem_tests::engine::best;
use netmem_tests::hang::patient;
use netmem_tests::{Agent, Engine, Host, Proxy, Server, on_each_rung};

const PAGE: usize = 4096;

on_each_rung! {
    what_was_synced_is_what_everybody_reads
    a_killed_program_leaves_the_last_commit_whole
    a_killed_program_leaves_the_page_that_its_file_ends_in
    the_last_close_commits
    exit_and_underscore_exit_commit
    exec_commits
    a_peer_on_the_host_sees_a_store_at_once
    the_stores_of_a_killed_process_are_committed_by_its_peer
    another_host_sees_a_commit_when_it_refreshes_and_not_before
    absent_pages_are_of_the_same_view_as_present_ones
    a_refresh_keeps_the_stores_of_this_host
    two_hosts_change_different_bytes_of_a_page
    a_byte_that_both_hosts_changed_goes_to_the_later_commit
    a_strict_commit_merges_nothing_and_keeps_what_was_stored
    a_new_size_is_part_of_the_commit
    a_sync_without_the_server_is_eio_and_loses_nothing
    a_load_without_the_server_is_sigbus_and_comes_back
    a_page_that_came_back_keeps_what_is_stored_into_it
    a_load_waits_while_the_wire_is_healed
    msync_async_commits_in_the_background
}

/// An agent with /netmem/NAME of `pages` pages mapped as mapping 0; its descriptor.
fn open(host: &Host, url: &str, name: &str, pages: usize) -> (Agent, String) {
    open_with(host, url, name, pages, &[])
}

fn open_with(
    host: &Host,
    url: &str,
    name: &str,
    pages: usize,
    variables: &[(&str, &str)],
) -> (Agent, String) {
    let mut agent = Agent::with(host, url, variables);
    let fd = agent.ok(&format!("open {} rwc", host.path(name)));
    if agent.ok(&format!("size {}", host.path(name))) == "0" {
        agent.ok(&format!("truncate {fd} {}", pages * PAGE));
    }
    agent.ok(&format!("map {fd} 0 {} shared w", pages * PAGE));
    (agent, fd)
}

fn what_was_synced_is_what_everybody_reads(engine: Engine) {
    let server = Server::start();
    let (here, there) = (Host::new(engine), Host::new(engine));
    let (mut writer, fd) = open(&here, server.url(), "a", 8);
    writer.ok("fill 0 0 8192 a");
    writer.ok("store 0 20480 hello");
    writer.ok(&format!("truncate {fd} {}", 6 * PAGE + 100));
    writer.ok("fill 0 24576 100 z");
    writer.ok("sync 0 0 32768 s");
    let content = exported(&server, "a");
    assert_eq!(content.len(), 6 * PAGE + 100);
    assert!(content[..8192].iter().all(|byte| *byte == b'a') && &content[20480..20485] == b"hello");
    assert!(content[24576..].iter().all(|byte| *byte == b'z') && content[8192] == 0);

    let (mut reader, fd) = open(&there, server.url(), "a", 8);
    assert_eq!(reader.ok(&format!("pread {fd} 20480 6")), "hello.");
    assert_eq!(reader.ok("same 0 0 8192 a"), "yes");
    assert_eq!(reader.ok("load 0 24670 7"), "zzzzzz.");
    assert_eq!(reader.ask("load 0 28672 1"), Err("SIGBUS".to_owned()));
}

fn a_killed_program_leaves_the_last_commit_whole(engine: Engine) {
    let (server, host) = (Server::start(), Host::new(engine));
    let (mut agent, _) = open(&host, server.url(), "a", 8);
    agent.ok("fill 0 0 32768 1");
    agent.ok("sync 0 0 32768 s");
    agent.ok("fill 0 0 32768 2");
    agent.kill();
    assert_eq!(letters(&server, "a"), "11111111");
    // What was stored after it ended with the last process of the host that held the region.
    let (mut next, _) = open(&host, server.url(), "a", 8);
    assert_eq!(next.ok("same 0 0 32768 1"), "yes");
    next.end("exit 0");
    assert_eq!(letters(&server, "a"), "11111111");
}

fn a_killed_program_leaves_the_page_that_its_file_ends_in(engine: Engine) {
    let (server, host) = (Server::start(), Host::new(engine));
    let agent = || {
        let mut agent = Agent::with(&host, server.url(), &[]);
        let fd = agent.ok("open /netmem/a rwc");
        agent.ok(&format!("truncate {fd} 5006"));
        agent.ok(&format!("map {fd} 0 8192 private r"));
        (agent, fd)
    };
    let (mut agent_that_ends, fd) = agent();
    agent_that_ends.ok(&format!("pwrite {fd} 0 {}", "1".repeat(3000)));
    agent_that_ends.ok(&format!("pwrite {fd} 3000 {}", "1".repeat(2006)));
    agent_that_ends.ok(&format!("fsync {fd}"));
    agent_that_ends.kill();
    let (mut next, _) = agent();
    assert_eq!(next.ok("same 0 0 5006 1"), "yes");
}

fn the_last_close_commits(engine: Engine) {
    let (server, host) = (Server::start(), Host::new(engine));
    let (mut agent, fd) = open(&host, server.url(), "a", 4);
    agent.ok("fill 0 0 8192 c");
    agent.ok("unmap 0 0 16384");
    agent.ok(&format!("close {fd}"));
    assert_eq!(letters(&server, "a"), "cc..");
}

fn exit_and_underscore_exit_commit(engine: Engine) {
    for ending in ["exit 3", "_exit 3"] {
        let (server, host) = (Server::start(), Host::new(engine));
        let (mut agent, _) = open(&host, server.url(), "a", 4);
        agent.ok("fill 0 4096 8192 e");
        assert_eq!(agent.end(ending).code(), Some(3));
        assert_eq!(letters(&server, "a"), ".ee.", "{ending}");
    }
}

fn exec_commits(engine: Engine) {
    let (server, host) = (Server::start(), Host::new(engine));
    let (mut agent, _) = open(&host, server.url(), "a", 4);
    agent.ok("fill 0 4096 8192 x");
    assert!(agent.end("exec /bin/true").success());
    assert_eq!(letters(&server, "a"), ".xx.");
}

fn a_peer_on_the_host_sees_a_store_at_once(engine: Engine) {
    let (server, host) = (Server::start(), Host::new(engine));
    let (mut one, _) = open(&host, server.url(), "a", 4);
    let (mut other, fd) = open(&host, server.url(), "a", 4);
    one.ok("store 0 5000 one");
    assert_eq!(other.ok("load 0 5000 3"), "one");
    other.ok("store 0 5003 two");
    assert_eq!(one.ok("load 0 5000 6"), "onetwo");
    one.ok("store 0 9000 three");
    assert_eq!(other.ok(&format!("pread {fd} 9000 5")), "three");
    other.ok(&format!("pwrite {fd} 9005 four"));
    assert_eq!(one.ok("load 0 9000 9"), "threefour");
    // A sync of either is a commit of what both stored.
    other.ok("sync 0 0 16384 s");
    let content = exported(&server, "a");
    assert_eq!((&content[5000..5006], &content[9000..9009]), (&b"onetwo"[..], &b"threefour"[..]));
}

fn the_stores_of_a_killed_process_are_committed_by_its_peer(engine: Engine) {
    let (server, host) = (Server::start(), Host::new(engine));
    let (mut one, _) = open(&host, server.url(), "a", 4);
    let (mut other, _) = open(&host, server.url(), "a", 4);
    assert_eq!(other.ok("load 0 0 1"), ".");
    one.ok("fill 0 4096 4096 k");
    one.kill();
    assert_eq!(other.ok("same 0 4096 4096 k"), "yes");
    other.ok("sync 0 0 16384 s");
    assert_eq!(letters(&server, "a"), ".k..");
}

fn another_host_sees_a_commit_when_it_refreshes_and_not_before(engine: Engine) {
    let server = Server::start();
    let (here, there) = (Host::new(engine), Host::new(engine));
    let (mut writer, _) = open(&here, server.url(), "a", 4);
    writer.ok("store 0 0 old");
    writer.ok("sync 0 0 16384 s");
    let (mut reader, _) = open(&there, server.url(), "a", 4);
    assert_eq!(reader.ok("load 0 0 3"), "old");
    writer.ok("store 0 0 new");
    writer.ok("sync 0 0 16384 s");
    assert_eq!(reader.ok("load 0 0 3"), "old");
    reader.ok("sync 0 0 16384 i");
    assert_eq!(reader.ok("load 0 0 3"), "new");
    writer.ok("store 0 0 3rd");
    writer.ok("sync 0 0 16384 s");
    assert_eq!(reader.ok("load 0 0 3"), "new");
    // Opening moves the view of the whole host.
    let (mut fresh, _) = open(&there, server.url(), "a", 4);
    assert_eq!(fresh.ok("load 0 0 3"), "3rd");
    assert_eq!(reader.ok("load 0 0 3"), "3rd");
}

fn absent_pages_are_of_the_same_view_as_present_ones(engine: Engine) {
    let server = Server::start();
    let (here, there) = (Host::new(engine), Host::new(engine));
    let (mut writer, _) = open(&here, server.url(), "a", 1024);
    writer.ok("fill 0 0 4194304 1");
    writer.ok("sync 0 0 4194304 s");
    let (mut reader, _) = open_with(&there, server.url(), "a", 1024, &[("NETMEM_PREFETCH", "off")]);
    assert_eq!(reader.ok("load 0 0 1"), "1");
    writer.ok("fill 0 0 4194304 2");
    writer.ok("sync 0 0 4194304 s");
    assert_eq!(reader.ok("same 0 0 4194304 1"), "yes");
    reader.ok("sync 0 0 4194304 i");
    assert_eq!(reader.ok("same 0 0 4194304 2"), "yes");
}

fn a_refresh_keeps_the_stores_of_this_host(engine: Engine) {
    let server = Server::start();
    let (here, there) = (Host::new(engine), Host::new(engine));
    let (mut far, _) = open(&there, server.url(), "a", 2);
    let (mut near, _) = open(&here, server.url(), "a", 2);
    near.ok("store 0 10 mine");
    far.ok("store 0 20 theirs");
    far.ok("store 0 4096 too");
    far.ok("sync 0 0 8192 s");
    near.ok("sync 0 0 8192 i");
    assert_eq!(near.ok("load 0 10 16"), "mine......theirs");
    assert_eq!(near.ok("load 0 4096 3"), "too");
    assert_eq!(&exported(&server, "a")[10..26], b"\0\0\0\0\0\0\0\0\0\0theirs");
    near.ok("sync 0 0 8192 s");
    assert_eq!(&exported(&server, "a")[10..26], b"mine\0\0\0\0\0\0theirs");
}

fn two_hosts_change_different_bytes_of_a_page(engine: Engine) {
    let server = Server::start();
    let (here, there) = (Host::new(engine), Host::new(engine));
    let (mut one, _) = open(&here, server.url(), "a", 1);
    let (mut other, _) = open(&there, server.url(), "a", 1);
    for round in 0..8 {
        one.ok(&format!("store 0 {} a", 2 * round));
        other.ok(&format!("store 0 {} b", 2 * round + 1));
        one.ok("sync 0 0 4096 s");
        other.ok("sync 0 0 4096 s");
    }
    assert_eq!(&exported(&server, "a")[..17], b"abababababababab\0");
    // A commit moves the view of its host: what the others committed before it is seen after it.
    assert_eq!(other.ok("load 0 0 16"), "abababababababab");
    one.ok("sync 0 0 4096 i");
    assert_eq!(one.ok("load 0 0 16"), "abababababababab");
}

fn a_byte_that_both_hosts_changed_goes_to_the_later_commit(engine: Engine) {
    let server = Server::start();
    let (here, there) = (Host::new(engine), Host::new(engine));
    let (mut one, _) = open(&here, server.url(), "a", 1);
    let (mut other, _) = open(&there, server.url(), "a", 1);
    one.ok("store 0 0 first");
    other.ok("store 0 0 later");
    one.ok("sync 0 0 4096 s");
    other.ok("sync 0 0 4096 s");
    assert_eq!(&exported(&server, "a")[..5], b"later");
}

fn a_strict_commit_merges_nothing_and_keeps_what_was_stored(engine: Engine) {
    let (server, here, there) = (Server::start(), Host::new(engine), Host::new(engine));
    let (mut one, first) = open(&here, server.url(), "a", 4);
    let (mut other, second) = open(&there, server.url(), "a", 4);
    one.ok(&format!("commit {first} strict"));
    other.ok(&format!("refresh {second}"));
    // Different pages: nothing to merge.
    one.ok("fill 0 0 4096 1");
    other.ok("fill 0 4096 4096 2");
    one.ok(&format!("commit {first} strict"));
    other.ok(&format!("commit {second} strict"));
    one.ok(&format!("refresh {first}"));
    // Different bytes of one page.
    one.ok("fill 0 8192 1 3");
    other.ok("fill 0 8193 1 4");
    one.ok(&format!("commit {first} strict"));
    assert_eq!(other.ask(&format!("commit {second} strict")), Err("ESTALE".to_owned()));
    assert_eq!(bytes_at(&server, "a", 8192, 2), b"3\0", "nothing of it was committed");
    assert_eq!(other.ok("load 0 8193 1"), "4", "and nothing of it is lost");
    other.ok(&format!("refresh {second}"));
    assert_eq!(other.ok("load 0 8192 2"), "34");
    other.ok(&format!("commit {second} strict"));
    assert_eq!(bytes_at(&server, "a", 8192, 2), b"34");
}

fn a_new_size_is_part_of_the_commit(engine: Engine) {
    let server = Server::start();
    let (here, there) = (Host::new(engine), Host::new(engine));
    let (mut one, fd) = open(&here, server.url(), "a", 4);
    one.ok("fill 0 0 16384 a");
    one.ok(&format!("fsync {fd}"));
    one.ok(&format!("truncate {fd} 5000"));
    let (mut peer, _) = open(&here, server.url(), "a", 4);
    assert_eq!(peer.ok(&format!("size {}", here.path("a"))), "5000");
    one.ok(&format!("fsync {fd}"));
    one.ok(&format!("truncate {fd} 16384"));
    one.ok(&format!("fsync {fd}"));
    let content = exported(&server, "a");
    assert_eq!(content.len(), 16384);
    assert!(
        content[..5000].iter().all(|byte| *byte == b'a') && content[5000..].iter().all(|byte| *byte == 0)
    );
    let (mut other, _) = open(&there, server.url(), "a", 4);
    assert_eq!(other.ok("load 0 4998 4"), "aa..");
}

/// Long enough for a loaded machine to answer, short enough to wait for.
const TIMEOUT: &[(&str, &str)] =
    &[("NETMEM_TIMEOUT_MS", "500"), ("NETMEM_LOG", "off"), ("NETMEM_PREFETCH", "off")];

fn a_sync_without_the_server_is_eio_and_loses_nothing(engine: Engine) {
    let (server, host) = (Server::start(), Host::new(engine));
    let wire = Proxy::to(server.address());
    let (mut agent, fd) = open_with(&host, wire.url(), "a", 4, TIMEOUT);
    agent.ok("fill 0 0 8192 1");
    agent.ok("sync 0 0 16384 s");
    agent.ok("fill 0 0 8192 2");
    for broken in [Proxy::cut, Proxy::stall] {
        broken(&wire);
        assert_eq!(agent.ask("sync 0 0 16384 s"), Err("EIO".to_owned()));
        assert_eq!(agent.ask(&format!("fsync {fd}")), Err("EIO".to_owned()));
        wire.heal();
        assert!(matches!(letters(&server, "a").as_str(), "11.." | "22.."));
    }
    assert_eq!(agent.ok("same 0 0 8192 2"), "yes");
    agent.ok("sync 0 0 16384 s");
    assert_eq!(letters(&server, "a"), "22..");
}

fn a_load_without_the_server_is_sigbus_and_comes_back(engine: Engine) {
    // Pages that no rung brings in together.
    const APART: usize = 1024;
    let (server, writers, readers) = (Server::start(), Host::new(engine), Host::new(engine));
    let (mut writer, _) = open(&writers, server.url(), "a", 5 * APART);
    writer.ok(&format!("fill 0 0 {} d", 5 * APART * PAGE));
    writer.end("exit 0");
    let wire = Proxy::to(server.address());
    let (mut reader, fd) = open_with(&readers, wire.url(), "a", 5 * APART, TIMEOUT);
    assert_eq!(reader.ok("load 0 0 1"), "d");
    for (page, broken) in [(APART, Proxy::cut as fn(&Proxy)), (3 * APART, Proxy::stall)] {
        broken(&wire);
        let load = format!("load 0 {} 2", page * PAGE);
        assert_eq!(reader.ask(&load), Err("SIGBUS".to_owned()));
        assert_eq!(reader.ok("load 0 0 2"), "dd", "a page that is here needs no server");
        let read = reader.ask(&format!("pread {fd} {} 10", (page + APART) * PAGE));
        assert_eq!(read, Err("EIO".to_owned()));
        wire.heal();
        assert_eq!(ask_until_it_is_back(&mut reader, &load), Ok("dd".to_owned()), "{}", reader.stderr());
        assert_eq!(reader.ok(&format!("pread {fd} {} 3", (page + APART) * PAGE)), "ddd");
    }
    assert_eq!(reader.ok(&format!("same 0 0 {} d", 5 * APART * PAGE)), "yes");
}

/// A page that was given up gives SIGBUS until the library has seen the server again.
fn ask_until_it_is_back(agent: &mut Agent, line: &str) -> Result<String, String> {
    let until = Instant::now() + patient(Duration::from_secs(10));
    let mut answer = agent.ask(line);
    while answer == Err("SIGBUS".to_owned()) && Instant::now() < until {
        answer = agent.ask(line);
    }
    answer
}

fn a_page_that_came_back_keeps_what_is_stored_into_it(engine: Engine) {
    const APART: usize = 1024;
    let (server, writers, readers) = (Server::start(), Host::new(engine), Host::new(engine));
    let (mut writer, _) = open(&writers, server.url(), "a", 3 * APART);
    writer.ok(&format!("fill 0 0 {} d", 3 * APART * PAGE));
    writer.end("exit 0");
    let wire = Proxy::to(server.address());
    let (mut reader, fd) = open_with(&readers, wire.url(), "a", 3 * APART, TIMEOUT);
    reader.ok(&format!("map {fd} 0 {} private w", 3 * APART * PAGE));
    wire.cut();
    let (shared, private) = (APART * PAGE, 2 * APART * PAGE);
    assert_eq!(reader.ask(&format!("load 0 {shared} 2")), Err("SIGBUS".to_owned()));
    assert_eq!(reader.ask(&format!("store 1 {private} x")), Err("SIGBUS".to_owned()));
    wire.heal();
    // A store may be the first that finds it back.
    let answer = ask_until_it_is_back(&mut reader, &format!("store 0 {} one", shared + 1));
    assert!(answer.is_ok(), "{answer:?} {}", reader.stderr());
    let answer = ask_until_it_is_back(&mut reader, &format!("store 1 {private} mine"));
    assert!(answer.is_ok(), "{answer:?} {}", reader.stderr());
    let sync = format!("sync 0 0 {} s", 3 * APART * PAGE);
    let seen = |at: usize| bytes_at(&server, "a", at, 6);
    reader.ok(&sync);
    assert_eq!(seen(shared), b"donedd");
    reader.ok(&format!("store 0 {} two", shared + 2));
    reader.ok(&format!("forked store 0 {} X", shared + 5));
    reader.ok(&sync);
    assert_eq!(seen(shared), b"dotwoX");
    assert_eq!(
        (reader.ok(&format!("load 1 {private} 6")), seen(private)),
        ("minedd".to_owned(), b"dddddd".to_vec())
    );
}

fn a_load_waits_while_the_wire_is_healed(engine: Engine) {
    let (server, writers, readers) = (Server::start(), Host::new(engine), Host::new(engine));
    let (mut writer, _) = open(&writers, server.url(), "a", 8);
    writer.ok("fill 0 0 32768 d");
    writer.end("exit 0");
    let wire = Proxy::to(server.address());
    let (mut reader, _) = open_with(&readers, wire.url(), "a", 8, &[("NETMEM_PREFETCH", "off")]);
    for (page, broken) in [(1, Proxy::cut as fn(&Proxy)), (3, Proxy::stall)] {
        broken(&wire);
        let load = format!("load 0 {} 2", page * PAGE);
        reader.tell(&load);
        wire.heal();
        assert_eq!(reader.answer(&load), Ok("dd".to_owned()));
    }
}

fn msync_async_commits_in_the_background(engine: Engine) {
    let (server, host) = (Server::start(), Host::new(engine));
    let (mut agent, _) = open(&host, server.url(), "a", 4);
    agent.ok("fill 0 0 4096 a");
    agent.ok("sync 0 0 16384 a");
    agent.ok("fill 0 4096 4096 b");
    agent.ok("sync 0 0 16384 s");
    assert_eq!(letters(&server, "a"), "ab..");
}

/// Every place at which the wire can break during a commit is visited: k bytes pass, k = 0, one page more each time, until
/// the commit passes untouched.
#[test]
fn a_commit_that_is_cut_anywhere_is_whole_or_nothing() {
    const PAGES: usize = 24;
    let (server, host) = (Server::start(), Host::new(best()));
    let wire = Proxy::to(server.address());
    let (mut agent, _) = open_with(&host, wire.url(), "a", PAGES, TIMEOUT);
    let (mut old, sync) = (".".repeat(PAGES), format!("sync 0 0 {} s", PAGES * PAGE));
    agent.ok(&sync);
    for step in 0..=PAGES + 8 {
        let letter = char::from(b'a' + (step % 26) as u8);
        let new = letter.to_string().repeat(PAGES);
        agent.ok(&format!("fill 0 0 {} {letter}", PAGES * PAGE));
        wire.cut_after((step * PAGE) as u64);
        let first = agent.ask(&sync);
        let untouched = !wire.is_cut();
        let seen = letters(&server, "a");
        assert!(seen == new || (first.is_err() && seen == old), "{step}: {first:?} {seen}");
        wire.heal();
        agent.ok(&sync);
        assert_eq!(letters(&server, "a"), new, "{step}");
        if untouched {
            assert_eq!(first, Ok(String::new()));
            return;
        }
        old = new;
    }
    panic!("a commit of {PAGES} pages takes more than {} pages of bytes", PAGES + 8);
}

#[test]
fn a_server_on_a_unix_socket_serves_as_well() {
    let host = Host::new(best());
    let socket = host.files().join("server.sock");
    let server = Server::unix(socket.to_str().expect("a path"));
    let (mut agent, _) = open(&host, server.url(), "a", 4);
    agent.ok("fill 0 0 16384 u");
    agent.ok("sync 0 0 16384 s");
    assert_eq!(letters(&server, "a"), "uuuu");
}
