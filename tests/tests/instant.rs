//! Commits of one instant, of a region into which several processes store all the time.
//!
//! Owns: what one instant can look like. Called by: `cargo test`. Must not: have a commit of anybody else's between a commit and a look at it.

use std::io::{BufRead, BufReader, Lines, Write};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use netmem_tests::built::compile;
use netmem_tests::cli::bytes_at;
use netmem_tests::hang::kill_group;
use netmem_tests::{Agent, Engine, Host, Run, Server, on_each_rung};

const PAGE: usize = 4096;
const PAGES: usize = 42;
const CHAIN: usize = 8;
/// `NETMEM_SNAPSHOT` of netmem.h.
const SNAPSHOT: u32 = 2;

on_each_rung! {
    what_is_committed_is_what_the_memory_was_at_one_instant
    a_process_that_was_not_told_to_hold_is_named_and_nothing_is_lost
    a_process_that_does_not_stop_fails_the_commit_and_not_the_next_one
    writers_go_on_when_the_process_that_holds_them_is_killed
}

/// The program, its writers, and what it says.
struct Program {
    child: Child,
    input: Option<ChildStdin>,
    lines: Lines<BufReader<ChildStdout>>,
    /// One of the writers.
    writer: i32,
}

impl Program {
    fn start(host: &Host, server: &Server) -> Program {
        let program = compile("tests/failures/one_instant.c", &["-pthread"]);
        let run = Run::on(host, server.url(), program).env("NETMEM_SNAPSHOT", "1").arg(host.path("r"));
        let (mut child, _) = run.spawn(Stdio::inherit());
        let input = child.stdin.take();
        let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines();
        let ready = lines.next().expect("a line").expect("text");
        let writer =
            ready.strip_prefix("ready ").unwrap_or_else(|| panic!("{ready}")).parse().expect("a process");
        Program { child, input, lines, writer }
    }

    fn ask(&mut self, flags: u32) -> String {
        writeln!(self.input.as_mut().expect("its input"), "{flags}").expect("it reads");
        self.lines.next().expect("an answer").expect("text")
    }

    fn commit(&mut self, flags: u32) -> u64 {
        let answer = self.ask(flags);
        answer.parse().unwrap_or_else(|_| panic!("{answer}"))
    }

    /// Ends the writers; the median and the longest time for which they were held, in nanoseconds.
    fn end(&mut self) -> (u64, u64) {
        drop(self.input.take());
        let last = self.lines.next().expect("a line").expect("text");
        let (median, longest) = last
            .strip_prefix("held ")
            .and_then(|held| held.split_once(' '))
            .unwrap_or_else(|| panic!("{last}"));
        (median.parse().expect("a number"), longest.parse().expect("a number"))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        kill_group(self.child.id());
        let _ = self.child.wait();
    }
}

/// Whether the newest commit can be one instant; what can't, if not.
fn torn(server: &Server) -> Option<String> {
    let bytes = bytes_at(server, "r", 0, PAGES * PAGE);
    let word = |page: usize| u64::from_le_bytes(bytes[page * PAGE..][..8].try_into().expect("eight bytes"));
    let chains = [0, 8, 16, 24, 34];
    let chain = |first: &usize| {
        let numbers: Vec<u64> = (*first..first + CHAIN).map(word).collect();
        let falls = numbers.windows(2).all(|two| two[0] >= two[1]);
        (!falls || numbers[0] > numbers[CHAIN - 1] + 1).then(|| format!("{numbers:?}"))
    };
    let turns =
        (!(word(33)..=word(33) + 1).contains(&word(32))).then(|| format!("{} {}", word(32), word(33)));
    chains.iter().find_map(chain).or(turns)
}

fn what_is_committed_is_what_the_memory_was_at_one_instant(engine: Engine) {
    let (server, host) = (Server::start(), Host::new(engine));
    let mut program = Program::start(&host, &server);
    let rounds = if std::env::var_os("NETMEM_TEST_LONG").is_some() { 500 } else { 30 };
    let (mut last, mut instants) = (0, 0);
    for round in 0..rounds {
        let epoch = program.commit(SNAPSHOT);
        // On a busy machine nobody may have come to store anything since the last one.
        instants += u64::from(epoch > last);
        last = epoch;
        assert_eq!(torn(&server), None, "round {round}");
    }
    let torn_without = (0..rounds).filter(|_| {
        program.commit(0);
        torn(&server).is_some()
    });
    let torn_without = torn_without.count();
    let (median, longest) = program.end();
    assert!(longest > 0 && instants > rounds / 2, "the writers stand still");
    println!(
        "{instants} instants, none torn; {torn_without} of {rounds} without the flag are; held {} us, {} at the most",
        median / 1000,
        longest / 1000
    );
}

fn a_process_that_was_not_told_to_hold_is_named_and_nothing_is_lost(engine: Engine) {
    let (server, host) = (Server::start(), Host::new(engine));
    let mut told = Agent::with(&host, server.url(), &[("NETMEM_SNAPSHOT", "1")]);
    let fd = told.ok("open /netmem/r rwc");
    told.ok(&format!("truncate {fd} 8192"));
    told.ok(&format!("map {fd} 0 8192 shared w"));
    told.ok("store 0 0 mine");
    let mut other = Agent::start(&host, server.url());
    let its = other.ok("open /netmem/r rw");
    other.ok(&format!("map {its} 0 8192 shared w"));
    other.ok("store 0 4096 theirs");
    assert_eq!(told.ask(&format!("commit {fd} instant")), Err("EOPNOTSUPP".to_owned()));
    assert_eq!(other.ask(&format!("commit {its} instant")), Err("EOPNOTSUPP".to_owned()));
    assert_eq!(other.end("exit 0").code(), Some(0));
    told.ok(&format!("commit {fd} instant"));
    assert_eq!(&bytes_at(&server, "r", 4096, 6), b"theirs");
    assert_eq!(&bytes_at(&server, "r", 0, 4), b"mine");
}

fn a_process_that_does_not_stop_fails_the_commit_and_not_the_next_one(engine: Engine) {
    let (server, host) = (Server::start(), Host::new(engine));
    let mut program = Program::start(&host, &server);
    signal(program.writer, libc::SIGSTOP);
    while !is_stopped(program.writer) {
        std::thread::yield_now();
    }
    assert_eq!(program.ask(SNAPSHOT), "err EBUSY");
    signal(program.writer, libc::SIGCONT);
    program.commit(SNAPSHOT);
    assert_eq!(torn(&server), None);
}

fn writers_go_on_when_the_process_that_holds_them_is_killed(engine: Engine) {
    for _ in 0..2 {
        let (server, host) = (Server::start(), Host::new(engine));
        let mut program = Program::start(&host, &server);
        let (mut watch, fd) = {
            let mut watch = Agent::with(&host, server.url(), &[("NETMEM_SNAPSHOT", "1")]);
            let fd = watch.ok("open /netmem/r rw");
            watch.ok(&format!("map {fd} 0 {} shared w", PAGES * PAGE));
            (watch, fd)
        };
        // A hold may be under way, or not.
        writeln!(program.input.as_mut().expect("its input"), "{SNAPSHOT}\n{SNAPSHOT}").expect("it reads");
        signal(program.child.id() as i32, libc::SIGKILL);
        watch.ok("store 0 100 still");
        watch.ok(&format!("commit {fd} instant"));
        assert_eq!(torn(&server), None);
        assert_eq!(&bytes_at(&server, "r", 100, 5), b"still");
    }
}

/// Whether all threads of a process are.
fn is_stopped(process: i32) -> bool {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task")).expect("its threads");
    tasks.map(|task| task.expect("a thread").path().join("stat")).all(|stat| {
        let stat = std::fs::read_to_string(stat).expect("its state");
        stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
    })
}

fn signal(process: i32, number: i32) {
    // SAFETY: no memory is involved.
    assert_eq!(unsafe { libc::kill(process, number) }, 0, "a process to signal");
}
