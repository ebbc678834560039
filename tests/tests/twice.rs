//! What a connection carried comes a second time, on another one, at once or long after: nothing is applied twice, and nothing older undoes
//! what came later.
//!
//! Owns: when it comes again. Called by: `cargo test`. Must not: take an epoch for the content: both are compared.

use std::collections::BTreeMap;

use netmem_protocol::{ErrorCode, Kind};
use netmem_tests::cli::{letters, letters_of, whole};
use netmem_tests::frames::{Again, Answer, Place, requests};
use netmem_tests::proxy::Fate;
use netmem_tests::{Agent, Engine, Host, Proxy, Server, on_each_rung};

on_each_rung! {
    commits_that_come_a_second_time_change_nothing
    commits_of_two_hosts_that_come_a_second_time_change_nothing
    a_commit_that_comes_after_its_program_was_told_that_it_failed_changes_nothing
    half_a_commit_that_is_finished_later_changes_nothing
    commits_of_a_program_that_died_change_nothing_of_its_successor
    commits_that_come_a_second_time_after_a_restart_change_nothing
    a_commit_that_was_given_up_and_comes_after_a_restart_changes_nothing
    a_commit_of_a_program_that_died_changes_nothing_of_its_successor_over_a_restart
}

const PAGE: usize = 4096;
/// What holds is an error soon.
const BRIEF: [(&str, &str); 2] = [("NETMEM_TIMEOUT_MS", "500"), ("NETMEM_LOG", "error")];
const PAGES: usize = 12;
/// More than the commits that a server remembers of each client.
const COMMITS: usize = 20;

/// A program behind a wire that keeps what it carries.
struct Writer {
    wire: Proxy,
    agent: Agent,
    fd: String,
}

impl Writer {
    fn start(host: &Host, server: &Server, variables: &[(&str, &str)]) -> Writer {
        let wire = Proxy::to(server.address());
        wire.record();
        let mut agent = Agent::with(host, wire.url(), &[&[("NETMEM_PREFETCH", "off")], variables].concat());
        let fd = agent.ok("open /netmem/a rwc");
        if agent.ok("size /netmem/a") == "0" {
            agent.ok(&format!("truncate {fd} {}", PAGES * PAGE));
        }
        agent.ok(&format!("map {fd} 0 {} shared w", PAGES * PAGE));
        Writer { wire, agent, fd }
    }

    fn sync(&mut self) -> Result<String, String> {
        self.agent.ask(&format!("fsync {}", self.fd))
    }

    /// A commit is on its way from here on, all of it but for a byte, and all of it is kept.
    fn is_committing(&mut self) {
        // The first message is the stage, the second the commit.
        self.wire.in_frame(true, 1, Place::Last, Fate::Stalls);
        self.agent.tell(&format!("fsync {}", self.fd));
        self.wire.wait_until_met();
    }

    /// The commit number `turn`: pages that earlier ones changed too and that later ones will, shorter and longer now and then, and holes.
    fn commit(&mut self, turn: usize) {
        let letter = char::from(b'a' + (turn % 26) as u8);
        let size = match turn % 5 {
            2 => 5,
            3 => 9,
            _ => PAGES,
        };
        self.agent.ok(&format!("truncate {} {}", self.fd, size * PAGE));
        let first = turn % 4;
        self.agent.ok(&format!("fill 0 {} {} {letter}", first * PAGE, 2 * PAGE));
        self.agent.ok(&format!("fill 0 {} {PAGE} {letter}", (size - 1) * PAGE));
        if turn % 7 == 4 {
            self.agent.ok(&format!("punch {} {} {PAGE}", self.fd, (first + 1) * PAGE));
        }
        self.sync().expect("a commit");
    }
}

/// Sends streams again, each on a connection of its own, and says how the commits among them were answered.
fn again(server: &Server, streams: &[Vec<u8>]) -> BTreeMap<String, usize> {
    let mut told = BTreeMap::new();
    for stream in streams {
        let mut second = Again::to(server.address());
        second.send(stream);
        let answers = second.answers();
        let asked: Vec<Kind> =
            requests(stream).into_iter().map(|(kind, _)| kind).filter(|kind| *kind != Kind::Stage).collect();
        // It is served: a server that would not listen could not go wrong.
        assert_eq!(answers.len(), asked.len(), "requests that were answered");
        for (kind, Answer { refused, .. }) in asked.into_iter().zip(answers) {
            if kind == Kind::Commit {
                let word = refused.map_or("answered".to_owned(), |code| format!("{code:?}"));
                *told.entry(word).or_insert(0) += 1;
            }
        }
    }
    told
}

/// The epoch, the size and the letters of a region.
fn state(server: &Server) -> (u64, u64, String) {
    let (entry, content) = whole(server, "a").expect("the region");
    (entry.epoch.0, entry.size, letters_of(&content))
}

/// Sends all that a wire carried so far again, which changes nothing.
fn nothing_changes(server: &Server, wires: &[&Proxy], what: &str) -> BTreeMap<String, usize> {
    let before = state(server);
    let streams: Vec<Vec<u8>> = wires.iter().flat_map(|wire| wire.recorded()).collect();
    let told = again(server, &streams);
    assert_eq!(state(server), before, "{what}: {told:?}");
    told
}

fn commits_that_come_a_second_time_change_nothing(engine: Engine) {
    let (server, host) = (Server::start(), Host::new(engine));
    let mut writer = Writer::start(&host, &server, &[]);
    let mut told = BTreeMap::new();
    for turn in 0..COMMITS {
        writer.commit(turn);
        told = nothing_changes(&server, &[&writer.wire], &format!("after commit {turn}"));
    }
    println!("{engine}: {COMMITS} commits, sent again: {told:?}");
    assert!(told.values().sum::<usize>() >= COMMITS, "{told:?}");
    // The program has noticed nothing.
    let (_, content) = whole(&server, "a").expect("the region");
    for (page, letter) in letters_of(&content).chars().enumerate() {
        let same = writer.agent.ok(&format!("load 0 {} 1", page * PAGE));
        assert_eq!(same, letter.to_string(), "page {page}");
    }
    assert_eq!(writer.agent.end("exit 0").code(), Some(0));
}

fn commits_of_two_hosts_that_come_a_second_time_change_nothing(engine: Engine) {
    let (server, here, there) = (Server::start(), Host::new(engine), Host::new(engine));
    let mut one = Writer::start(&here, &server, &[]);
    one.sync().expect("a size");
    let mut other = Writer::start(&there, &server, &[]);
    for turn in 0..COMMITS {
        // Other bytes of the same pages: they are merged.
        let letter = char::from(b'a' + (turn % 26) as u8);
        for page in 0..3 {
            one.agent.ok(&format!("fill 0 {} 64 {letter}", page * PAGE + 64 * (turn % 8)));
            other.agent.ok(&format!("fill 0 {} 64 {letter}", page * PAGE + 2048 + 64 * (turn % 8)));
        }
        one.sync().expect("one's commit");
        if turn % 3 == 0 {
            nothing_changes(&server, &[&one.wire], &format!("{turn}, one's"));
        }
        other.sync().expect("the other's commit");
        nothing_changes(&server, &[&one.wire, &other.wire], &format!("{turn}, both"));
    }
    let (_, content) = whole(&server, "a").expect("the region");
    for page in 0..3 {
        for turn in COMMITS - 8..COMMITS {
            let letter = b'a' + (turn % 26) as u8;
            for half in [0, 2048] {
                let at = page * PAGE + half + 64 * (turn % 8);
                assert!(
                    content[at..at + 64].iter().all(|byte| *byte == letter),
                    "page {page}, {half}, {turn}"
                );
            }
        }
    }
}

fn a_commit_that_comes_after_its_program_was_told_that_it_failed_changes_nothing(engine: Engine) {
    for place in Place::ALL {
        let (server, host) = (Server::start(), Host::new(engine));
        let mut writer = Writer::start(&host, &server, &BRIEF);
        writer.commit(0);
        let kept = writer.wire.recorded().concat().len();
        writer.agent.ok(&format!("fill 0 0 {} 1", 3 * PAGE));
        // The first message is the stage, the second the commit.
        writer.wire.in_frame(true, 1, place, Fate::Stalls);
        assert_eq!(writer.sync(), Err("EIO".to_owned()), "{place:?}");
        assert!(writer.wire.is_met(), "{place:?}");
        writer.wire.cut();
        writer.wire.heal();
        let streams = writer.wire.recorded();
        assert!(streams.concat().len() > kept + 3 * PAGE, "the stage was kept");
        // Newer bytes in the same pages, on the same base.
        writer.agent.ok(&format!("fill 0 0 {} 2", 2 * PAGE));
        writer.sync().expect("the next commit");
        assert_eq!(&letters(&server, "a")[..3], "221", "{place:?}");
        let told = nothing_changes(&server, &[&writer.wire], &format!("{place:?}"));
        println!("{engine}: {place:?}: {told:?}");
        writer.agent.ok(&format!("fill 0 0 {} 3", 2 * PAGE));
        writer.sync().expect("the one after");
        nothing_changes(&server, &[&writer.wire], &format!("{place:?}, later"));
        assert_eq!(&letters(&server, "a")[..3], "331", "{place:?}");
    }
}

fn half_a_commit_that_is_finished_later_changes_nothing(engine: Engine) {
    let (server, host) = (Server::start(), Host::new(engine));
    let mut writer = Writer::start(&host, &server, &[]);
    writer.commit(0);
    let mut halves: Vec<(Again, Vec<u8>)> = Vec::new();
    for turn in 1..COMMITS {
        writer.commit(turn);
        // All that was sent until now but for the last commit's message; its pages are staged once more, and wait.
        for stream in writer.wire.recorded() {
            let Some(last) = requests(&stream).into_iter().rev().find(|(kind, _)| *kind == Kind::Commit)
            else {
                continue;
            };
            let before = last.1.as_ptr() as usize - stream.as_ptr() as usize;
            let mut second = Again::to(server.address());
            second.send(&stream[..before]);
            halves.push((second, stream[before..].to_vec()));
        }
    }
    let before = state(&server);
    let waited = halves.len();
    let mut refused = 0;
    for (mut second, rest) in halves {
        second.send(&rest);
        refused += second.answers().iter().filter(|answer| answer.refused == Some(ErrorCode::Stale)).count();
    }
    println!("{engine}: {waited} commits were finished later, {refused} refusals");
    assert!(waited >= COMMITS - 1 && refused > 0);
    assert_eq!(state(&server), before);
    writer.commit(COMMITS);
}

fn commits_of_a_program_that_died_change_nothing_of_its_successor(engine: Engine) {
    let (server, host) = (Server::start(), Host::new(engine));
    let mut first = Writer::start(&host, &server, &[]);
    (0..4).for_each(|turn| first.commit(turn));
    first.agent.ok(&format!("fill 0 0 {PAGE} x"));
    first.is_committing();
    first.agent.kill();
    let mut next = Writer::start(&host, &server, &[]);
    for turn in 4..COMMITS {
        next.commit(turn);
        nothing_changes(&server, &[&first.wire, &next.wire], &format!("after commit {turn}"));
    }
}

fn commits_that_come_a_second_time_after_a_restart_change_nothing(engine: Engine) {
    // Epochs that are kept are ones that an old commit could be merged on.
    for keep in ["0", "64"] {
        let (mut server, host) = (Server::durable(&["--keep-epochs", keep]), Host::new(engine));
        let mut writer = Writer::start(&host, &server, &[]);
        (0..COMMITS).for_each(|turn| writer.commit(turn));
        for turn in COMMITS..COMMITS + 3 {
            server.restart();
            let told =
                nothing_changes(&server, &[&writer.wire], &format!("{keep} kept, before commit {turn}"));
            println!("{engine}: {keep} epochs kept: {told:?}");
            writer.commit(turn);
            nothing_changes(&server, &[&writer.wire], &format!("{keep} kept, after commit {turn}"));
        }
    }
}

fn a_commit_that_was_given_up_and_comes_after_a_restart_changes_nothing(engine: Engine) {
    for keep in ["0", "64"] {
        let (mut server, host) = (Server::durable(&["--keep-epochs", keep]), Host::new(engine));
        let mut writer = Writer::start(&host, &server, &BRIEF);
        writer.commit(0);
        writer.agent.ok(&format!("fill 0 0 {} 1", 3 * PAGE));
        writer.is_committing();
        assert_eq!(writer.agent.answer("fsync"), Err("EIO".to_owned()));
        writer.wire.cut();
        writer.wire.heal();
        writer.agent.ok(&format!("fill 0 0 {} 2", 2 * PAGE));
        writer.sync().expect("the next commit");
        server.restart();
        let told = nothing_changes(&server, &[&writer.wire], &format!("{keep} kept"));
        println!("{engine}: {keep} epochs kept: {told:?}");
        assert_eq!(&letters(&server, "a")[..3], "221");
    }
}

fn a_commit_of_a_program_that_died_changes_nothing_of_its_successor_over_a_restart(engine: Engine) {
    for (keep, cut) in [("0", true), ("64", false)] {
        let (mut server, host) = (Server::durable(&["--keep-epochs", keep]), Host::new(engine));
        let mut first = Writer::start(&host, &server, &[]);
        (0..4).for_each(|turn| first.commit(turn));
        if cut {
            // A commit with a cut needs no base.
            first.agent.ok(&format!("truncate {} 0", first.fd));
            first.agent.ok(&format!("truncate {} {}", first.fd, PAGES * PAGE));
        }
        first.agent.ok(&format!("fill 0 0 {PAGE} x"));
        first.is_committing();
        first.agent.kill();
        let mut next = Writer::start(&host, &server, &[]);
        (4..8).for_each(|turn| next.commit(turn));
        server.restart();
        nothing_changes(&server, &[&first.wire], &format!("{keep} epochs kept"));
    }
}
