//! Commits of several regions at once: all of it or nothing, whoever is killed, and whatever another host did.
//!
//! Owns: nothing. Called by: `cargo test`. Must not: wait for a time: what is killed is killed after so many commits.

use std::io::{BufRead, BufReader, Lines};
use std::process::{Child, ChildStdout, Stdio};

use netmem_tests::built::compile;
use netmem_tests::cli::{bytes_at, exported};
use netmem_tests::dice::seeded;
use netmem_tests::hang::kill_group;
use netmem_tests::{Agent, Engine, Host, Run, Server, on_each_rung};

const PAGE: usize = 4096;

on_each_rung! {
    several_regions_are_one_commit_and_each_has_its_own_epoch
    a_strict_commit_that_is_stale_in_one_region_changes_none
    what_others_did_to_one_of_the_regions_is_merged
    regions_agree_whenever_their_program_is_killed
    regions_agree_whenever_their_server_is_killed
}

/// An agent with these regions of four pages, mapped in their order; their descriptors.
fn open(host: &Host, url: &str, names: &[&str]) -> (Agent, Vec<String>) {
    let mut agent = Agent::start(host, url);
    let mut fds = Vec::new();
    for name in names {
        let fd = agent.ok(&format!("open {} rwc", host.path(name)));
        if agent.ok(&format!("size {}", host.path(name))) == "0" {
            agent.ok(&format!("truncate {fd} {}", 4 * PAGE));
        }
        agent.ok(&format!("map {fd} 0 {} shared w", 4 * PAGE));
        fds.push(fd);
    }
    (agent, fds)
}

fn letters(server: &Server, name: &str) -> String {
    exported(server, name)
        .chunks(PAGE)
        .map(|page| if page[0] == 0 { '.' } else { char::from(page[0]) })
        .collect()
}

fn several_regions_are_one_commit_and_each_has_its_own_epoch(engine: Engine) {
    let (server, host) = (Server::start(), Host::new(engine));
    let (mut agent, fds) = open(&host, server.url(), &["b", "a", "c"]);
    let [b, a, c] = [&fds[0], &fds[1], &fds[2]];
    agent.ok("fill 1 0 4096 x");
    agent.ok(&format!("commit {a}"));
    agent.ok("fill 0 0 8192 1");
    agent.ok("fill 1 4096 8192 2");
    let before = server.client().server_stat().expect("a server").commits;
    let epochs = agent.ok(&format!("together {a} {b} {a} {c}"));
    let epochs: Vec<u64> = epochs.split(' ').map(|epoch| epoch.parse().expect("an epoch")).collect();
    assert_eq!((letters(&server, "a"), letters(&server, "b")), ("x22.".into(), "11..".into()));
    assert_eq!(epochs[0], epochs[2], "one region by two descriptors");
    for (fd, epoch) in [(a, epochs[0]), (b, epochs[1]), (c, epochs[3])] {
        assert_eq!(agent.ok(&format!("commit {fd}")), epoch.to_string(), "nothing is left to commit");
    }
    // Each region counts what it was committed.
    assert!(server.client().server_stat().expect("a server").commits >= before + 2);
    assert_eq!(agent.ask("together 0"), Err("EBADF".to_owned()));
    assert_eq!(agent.end("exit 0").code(), Some(0));
}

fn a_strict_commit_that_is_stale_in_one_region_changes_none(engine: Engine) {
    let (server, host, other) = (Server::start(), Host::new(engine), Host::new(engine));
    let (mut agent, fds) = open(&host, server.url(), &["a", "b"]);
    agent.ok(&format!("together {} {}", fds[0], fds[1]));
    let (mut theirs, their) = open(&other, server.url(), &["b"]);
    theirs.ok("store 0 100 theirs");
    theirs.ok(&format!("commit {}", their[0]));
    agent.ok("fill 0 0 4096 m");
    agent.ok("store 1 0 mine");
    let strict = format!("together strict {} {}", fds[0], fds[1]);
    assert_eq!(agent.ask(&strict), Err("ESTALE".to_owned()));
    assert_eq!((letters(&server, "a"), letters(&server, "b")), ("....".into(), "....".into()));
    // Seen by now, and nothing that was stored is lost.
    assert_eq!(agent.ok("load 1 100 6"), "theirs");
    agent.ok(&strict);
    assert_eq!((letters(&server, "a"), letters(&server, "b")), ("m...".into(), "m...".into()));
}

fn what_others_did_to_one_of_the_regions_is_merged(engine: Engine) {
    let (server, host, other) = (Server::start(), Host::new(engine), Host::new(engine));
    let (mut agent, fds) = open(&host, server.url(), &["a", "b"]);
    agent.ok(&format!("together {} {}", fds[0], fds[1]));
    let (mut theirs, their) = open(&other, server.url(), &["b", "a"]);
    theirs.ok("store 0 100 theirs");
    agent.ok("store 0 0 mine");
    agent.ok("store 1 0 mine");
    theirs.ok(&format!("together {} {}", their[0], their[1]));
    agent.ok(&format!("together {} {}", fds[1], fds[0]));
    let page = bytes_at(&server, "b", 0, PAGE);
    assert_eq!((&page[..4], &page[100..106]), (&b"mine"[..], &b"theirs"[..]));
    assert_eq!(agent.ok("load 1 100 6"), "theirs");
}

/// A program that keeps regions in step, and what it has said.
struct Program {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    acknowledged: u64,
}

const NAMES: [&str; 3] = ["r1", "r2", "r3"];

impl Program {
    fn start(host: &Host, server: &Server, acknowledged: u64) -> Program {
        let program = compile("tests/failures/regions_agree.c", &[]);
        let run = Run::on(host, server.url(), program).args(NAMES.map(|name| host.path(name)));
        let (mut child, _) = run.spawn(Stdio::inherit());
        let lines = BufReader::new(child.stdout.take().expect("its output")).lines();
        Program { child, lines, acknowledged }
    }

    /// Reads a line, if there is one.
    fn next(&mut self) -> bool {
        let Some(Ok(line)) = self.lines.next() else { return false };
        let number = line.strip_prefix("start ").unwrap_or(&line).parse::<u64>();
        let number = number.unwrap_or_else(|_| panic!("it says: {line}"));
        let expected = self.acknowledged..=self.acknowledged + 1;
        assert!(expected.contains(&number), "{line} after {}", self.acknowledged);
        self.acknowledged = number;
        true
    }

    fn await_commits(&mut self, count: u64) {
        for _ in 0..count {
            assert!(self.next(), "the program ended");
        }
    }

    fn kill(&mut self) {
        kill_group(self.child.id());
        let _ = self.child.wait();
        while self.next() {}
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        kill_group(self.child.id());
        let _ = self.child.wait();
    }
}

/// All regions are at one number, which is that of the last acknowledged commit or the one after it.
fn agreed(server: &Server, acknowledged: u64) {
    let word = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("eight bytes"));
    let found = word(&bytes_at(server, NAMES[0], 0, 8));
    assert!(
        (acknowledged..=acknowledged + 1).contains(&found),
        "{found}, and {acknowledged} was acknowledged"
    );
    for name in NAMES {
        for page in 0..6 {
            let wanted = if page == 0 { found } else { found.wrapping_mul(31) + page as u64 };
            assert_eq!(word(&bytes_at(server, name, page * (PAGE + 8), 8)), wanted, "{name}, page {page}");
        }
    }
}

/// Waits until the server has served what a killed program had on its way.
fn served_to_its_end(server: &Server) {
    let mut client = server.client();
    while client.server_stat().expect("a server").connections > 1 {
        std::thread::yield_now();
    }
}

fn rounds() -> u64 {
    if std::env::var_os("NETMEM_TEST_LONG").is_some() { 200 } else { 12 }
}

fn regions_agree_whenever_their_program_is_killed(engine: Engine) {
    let mut dice = seeded();
    let (server, host) = (Server::start(), Host::new(engine));
    let mut acknowledged = 0;
    for _ in 0..rounds() {
        let mut program = Program::start(&host, &server, acknowledged);
        program.await_commits(2 + dice.below(20));
        program.kill();
        served_to_its_end(&server);
        agreed(&server, program.acknowledged);
        acknowledged = u64::from_le_bytes(bytes_at(&server, NAMES[0], 0, 8).try_into().expect("eight bytes"));
    }
    println!("{} kills of the program, {acknowledged} commits", rounds());
}

fn regions_agree_whenever_their_server_is_killed(engine: Engine) {
    let mut dice = seeded();
    let (mut server, host) = (Server::durable(&[]), Host::new(engine));
    let mut acknowledged = 0;
    for _ in 0..rounds() {
        let mut program = Program::start(&host, &server, acknowledged);
        program.await_commits(2 + dice.below(10));
        server.restart();
        program.await_commits(1 + dice.below(10));
        // The program goes first, so that nothing is committed any more: what the disk has is what was committed.
        program.kill();
        server.restart();
        agreed(&server, program.acknowledged);
        acknowledged = u64::from_le_bytes(bytes_at(&server, NAMES[0], 0, 8).try_into().expect("eight bytes"));
    }
    println!("{} kills of the server, {acknowledged} commits", 2 * rounds());
}
