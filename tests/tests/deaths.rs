//! A program that dies: which ways commit what it stored, which don't, and what becomes of it then.
//!
//! Owns: the list of ways. Called by: `cargo test`. Must not: ask the program what was kept: the server says it, or a program that comes later.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use netmem_tests::cli::{letters, whole};
use netmem_tests::{Agent, Engine, Host, Server, on_each_rung};

on_each_rung! {
    a_way_that_runs_code_of_ours_commits_all_that_was_stored
    a_signal_that_ends_a_program_commits_nothing_and_the_last_commit_is_whole
    what_a_program_stored_that_dies_by_a_signal_is_committed_by_others_of_its_host
    who_comes_after_the_last_of_a_host_died_sees_the_server_and_nothing_else
}

const PAGE: usize = 4096;

/// Ways that commit, and what the program's parent sees.
const IN_ORDER: [(&str, i32); 7] = [
    ("return 3", 3),
    ("exit 3", 3),
    ("_exit 3", 3),
    ("_Exit 3", 3),
    ("quick_exit 3", 3),
    // The last thread of the process.
    ("pthread_exit", 0),
    ("exec /bin/true", 0),
];

/// Ways that don't: the signal's default action.
const BY_SIGNAL: [(&str, i32); 4] = [
    ("abort", libc::SIGABRT),
    ("kill 15", libc::SIGTERM),
    ("kill 9", libc::SIGKILL),
    // Any other one.
    ("kill 10", libc::SIGUSR1),
];

/// A program of the host with /netmem/a, which is eight pages or becomes so, as mapping 0; its descriptor.
fn start(host: &Host, server: &Server) -> (Agent, String) {
    let mut agent = Agent::with(host, server.url(), &[("NETMEM_PREFETCH", "off")]);
    let fd = agent.ok(&format!("open {} rwc", host.path("a")));
    if agent.ok(&format!("size {}", host.path("a"))) == "0" {
        agent.ok(&format!("truncate {fd} {}", 8 * PAGE));
    }
    agent.ok(&format!("map {fd} 0 {} shared w", 12 * PAGE));
    (agent, fd)
}

/// Stores `letter` into pages 1, by the mapping, and 2, by a write, makes the file ten pages long and stores into the last one, and makes page 4 a hole.
fn change(agent: &mut Agent, fd: &str, letter: char) {
    agent.ok(&format!("fill 0 {PAGE} {PAGE} {letter}"));
    agent.ok(&format!("pwrite {fd} {} {}", 2 * PAGE, letter.to_string().repeat(PAGE)));
    agent.ok(&format!("truncate {fd} {}", 10 * PAGE));
    agent.ok(&format!("fill 0 {} {PAGE} {letter}", 9 * PAGE));
    agent.ok(&format!("punch {fd} {} {PAGE}", 4 * PAGE));
}

fn ended_by(status: ExitStatus, signal: i32, way: &str) {
    assert_eq!(status.signal(), Some(signal), "{way}: {status}");
}

fn a_way_that_runs_code_of_ours_commits_all_that_was_stored(engine: Engine) {
    for (way, code) in IN_ORDER {
        let (server, host) = (Server::start(), Host::new(engine));
        let (mut agent, fd) = start(&host, &server);
        agent.ok(&format!("fill 0 0 {} 1", 8 * PAGE));
        agent.ok(&format!("fsync {fd}"));
        change(&mut agent, &fd, '2');
        assert_eq!(letters(&server, "a"), "11111111", "{way}: not before");
        assert_eq!(agent.end(way).code(), Some(code), "{way}");
        assert_eq!(letters(&server, "a"), "1221.111.2", "{way}");
    }
}

fn a_signal_that_ends_a_program_commits_nothing_and_the_last_commit_is_whole(engine: Engine) {
    for (way, signal) in BY_SIGNAL {
        let (server, host) = (Server::start(), Host::new(engine));
        let (mut agent, fd) = start(&host, &server);
        agent.ok(&format!("fill 0 0 {} 1", 8 * PAGE));
        agent.ok(&format!("fsync {fd}"));
        change(&mut agent, &fd, '2');
        ended_by(agent.end(way), signal, way);
        assert_eq!(letters(&server, "a"), "11111111", "{way}");
    }
}

fn what_a_program_stored_that_dies_by_a_signal_is_committed_by_others_of_its_host(engine: Engine) {
    for (way, signal) in BY_SIGNAL {
        let (server, host) = (Server::start(), Host::new(engine));
        let (mut dies, fd) = start(&host, &server);
        let (mut stays, its) = start(&host, &server);
        dies.ok(&format!("fill 0 0 {} 1", 8 * PAGE));
        dies.ok(&format!("fsync {fd}"));
        stays.ok(&format!("fill 0 {} {PAGE} s", 6 * PAGE));
        change(&mut dies, &fd, '2');
        ended_by(dies.end(way), signal, way);
        // They are there at once, the new size too, and nobody else has them yet.
        assert_eq!(stays.ok(&format!("same 0 {PAGE} {} 2", 2 * PAGE)), "yes", "{way}");
        assert_eq!(stays.ok(&format!("load 0 {} 1", 4 * PAGE)), ".", "{way}");
        assert_eq!(stays.ok(&format!("size {}", host.path("a"))), (10 * PAGE).to_string(), "{way}");
        assert_eq!(letters(&server, "a"), "11111111", "{way}");
        stays.ok(&format!("fsync {its}"));
        assert_eq!(letters(&server, "a"), "1221.1s1.2", "{way}");
        // And once is enough: the end of the other has nothing to add.
        let epoch = whole(&server, "a").expect("the region").0.epoch;
        stays.end("exit 0");
        assert_eq!(whole(&server, "a").expect("the region").0.epoch, epoch, "{way}");
    }
}

fn who_comes_after_the_last_of_a_host_died_sees_the_server_and_nothing_else(engine: Engine) {
    for ((way, signal), others_commit) in BY_SIGNAL.into_iter().flat_map(|way| [(way, false), (way, true)]) {
        let (server, host, elsewhere) = (Server::start(), Host::new(engine), Host::new(engine));
        let (mut first, fd) = start(&host, &server);
        first.ok(&format!("fill 0 0 {} 1", 8 * PAGE));
        first.ok(&format!("fsync {fd}"));
        // Two that die one after the other, and each has stores that the other has not.
        let (mut second, its) = start(&host, &server);
        second.ok(&format!("fill 0 0 {PAGE} 3"));
        change(&mut first, &fd, '2');
        ended_by(first.end(way), signal, way);
        second.ok(&format!("pwrite {its} {} 3", 5 * PAGE));
        ended_by(second.end(way), signal, way);
        if others_commit {
            let (mut other, fd) = start(&elsewhere, &server);
            other.ok(&format!("fill 0 {} {PAGE} o", 2 * PAGE));
            other.ok(&format!("fill 0 {} {PAGE} o", 7 * PAGE));
            other.ok(&format!("fsync {fd}"));
            other.end("exit 0");
        }
        let (entry, content) = whole(&server, "a").expect("the region");
        let wanted = if others_commit { "11o1111o" } else { "11111111" };
        assert_eq!(letters(&server, "a"), wanted, "{way}");
        let (mut next, fd) = start(&host, &server);
        assert_eq!(next.ok(&format!("size {}", host.path("a"))), content.len().to_string(), "{way}");
        for (page, letter) in wanted.chars().enumerate() {
            assert_eq!(
                next.ok(&format!("same 0 {} {PAGE} {letter}", page * PAGE)),
                "yes",
                "{way}: page {page}"
            );
            assert_eq!(
                next.ok(&format!("pread {fd} {} 1", page * PAGE)),
                letter.to_string(),
                "{way}: page {page}"
            );
        }
        assert_eq!(next.ask(&format!("load 0 {} 1", 9 * PAGE)), Err("SIGBUS".to_owned()), "{way}");
        // Nothing of those who died goes up with what comes later.
        next.end("exit 0");
        let (after, same) = whole(&server, "a").expect("the region");
        assert_eq!((after.epoch, same == content), (entry.epoch, true), "{way}");
    }
}
