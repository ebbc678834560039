//! The wire of a program that opens, faults, commits, refreshes, resizes, renames and unlinks breaks at the first message, the second, the third
//! …, each way, until all of it passes untouched. The program goes on, and the server has each commit whole or not at all.
//!
//! Owns: the work, and what may be on the server at each step of it. Called by: `cargo test`. Must not: choose by chance, or try a step a
//! second time without a reason that it has seen.

use std::time::{Duration, Instant};

use netmem_tests::cli::{letters_of, whole};
use netmem_tests::engine::RUNGS;
use netmem_tests::frames::Place;
use netmem_tests::hang::patient;
use netmem_tests::proxy::Fate;
use netmem_tests::{Agent, Engine, Host, Proxy, Server, on_each_rung};

const PAGE: usize = 4096;
/// Pages of the region that both hosts change.
const SHARED: usize = 16;
/// NETMEM_TIMEOUT_MS: what holds is an error soon; what goes on is done by then on a loaded machine too.
const TIMEOUT_MS: &str = "500";
/// How long a page that was given up may take to be had again.
const LIMIT: Duration = Duration::from_secs(20);

/// The server, and another host that changes the shared region.
struct Bench {
    server: Server,
    /// Its host, which lives as long.
    _elsewhere: Host,
    other: Agent,
    fd: String,
    /// The letter that the other host wrote last.
    letter: char,
}

impl Bench {
    fn new(engine: Engine) -> Bench {
        let (server, elsewhere) = (Server::start(), Host::new(engine));
        let mut other = Agent::start(&elsewhere, server.url());
        let fd = other.ok("open /netmem/f rwc");
        other.ok(&format!("truncate {fd} {}", SHARED * PAGE));
        other.ok(&format!("map {fd} 0 {} shared w", SHARED * PAGE));
        let mut bench = Bench { server, _elsewhere: elsewhere, other, fd, letter: 'z' };
        bench.change(0);
        bench
    }

    /// The other host commits pages from `first` on, full of the next letter.
    fn change(&mut self, first: usize) {
        self.letter = if self.letter == 'z' { 'a' } else { char::from(self.letter as u8 + 1) };
        self.other.ok(&format!("fill 0 {} {} {}", first * PAGE, (SHARED - first) * PAGE, self.letter));
        self.other.ok(&format!("fsync {}", self.fd));
    }
}

/// One point of the countdown.
#[derive(Clone, Copy, Debug)]
struct Point {
    towards_server: bool,
    frames: u64,
    place: Place,
    fate: Fate,
}

/// One pass of the work.
struct Pass<'a> {
    bench: &'a mut Bench,
    wire: Proxy,
    agent: Agent,
    point: Point,
    /// The wire was mended.
    healed: bool,
    /// What the program's own region may be now, and under which names; nothing: it may be missing.
    may_be: Vec<Option<String>>,
    names: Vec<&'static str>,
}

impl Pass<'_> {
    /// A step of the program. If the wire is why it fails, it is mended, and the step must work then, or fail with `done`, which says that
    /// the first one did.
    fn step(&mut self, line: &str, done: Option<&str>) -> String {
        let first = self.agent.ask(line);
        let Err(why) = first else { return first.unwrap_or_default() };
        let wire_is_why = self.wire.is_met() && !self.healed && self.point.fate != Fate::Breaks;
        assert!(wire_is_why && ["EIO", "SIGBUS"].contains(&why.as_str()), "{}", self.told(line, &why));
        self.check(line);
        self.heal();
        let until = Instant::now() + patient(LIMIT);
        let mut second = self.agent.ask(line);
        // The library looks from time to time whether a page that was given up can be had again.
        while second == Err("SIGBUS".to_owned()) && Instant::now() < until {
            second = self.agent.ask(line);
        }
        match second {
            Err(why) if done != Some(&why) => panic!("{}", self.told(&format!("{line}, again"), &why)),
            answer => answer.unwrap_or_default(),
        }
    }

    fn ok(&mut self, line: &str) -> String {
        self.step(line, None)
    }

    fn told(&self, line: &str, why: &str) -> String {
        format!("{:?}: {line}: {why}\n{}", self.point, self.agent.stderr())
    }

    fn heal(&mut self) {
        self.healed = true;
        self.wire.heal();
    }

    /// The server has one of the states that can be, whole.
    fn check(&self, line: &str) {
        let found = self.names.iter().find_map(|name| whole(&self.bench.server, name));
        let found = found.map(|(_, content)| letters_of(&content));
        assert!(self.may_be.contains(&found), "{:?}: {line}: {found:?}, not {:?}", self.point, self.may_be);
        let shared = letters_of(&whole(&self.bench.server, "f").expect("the shared region").1);
        assert!(!shared.contains('?') && shared.len() == SHARED, "{:?}: {line}: {shared}", self.point);
    }

    /// A sync, which makes of the region what `to` says. Once it has returned, nothing else may be there.
    fn commit(&mut self, line: &str, to: &str) {
        self.may_be.push(Some(to.to_owned()));
        self.ok(line);
        self.may_be = vec![Some(to.to_owned())];
        self.check(line);
    }

    /// Pages of the shared region, present ones and absent ones, are of the other host's last commit.
    fn looks(&mut self) {
        for page in [0, 2, 8, 15] {
            let line = format!("load 0 {} 1", page * PAGE);
            let (seen, wanted) = (self.ok(&line), self.bench.letter.to_string());
            assert_eq!(seen, wanted, "{}", self.told(&line, "another epoch"));
        }
    }

    fn work(&mut self) {
        let shared = self.ok("open /netmem/f rw");
        self.ok(&format!("map {shared} 0 {} shared w", SHARED * PAGE));
        self.looks();
        self.may_be.push(Some(String::new()));
        let fd = self.ok("open /netmem/a rwc");
        self.may_be = vec![Some(String::new())];
        self.ok(&format!("truncate {fd} {}", 8 * PAGE));
        self.ok(&format!("map {fd} 0 {} shared w", 12 * PAGE));
        self.ok(&format!("fill 1 0 {} 1", 8 * PAGE));
        self.commit(&format!("sync 1 0 {} s", 8 * PAGE), "11111111");
        self.bench.change(0);
        self.ok(&format!("refresh {shared}"));
        self.looks();
        // Longer, and pages that were not there.
        self.ok(&format!("truncate {fd} {}", 12 * PAGE));
        self.ok(&format!("fill 1 0 {} 2", 12 * PAGE));
        self.commit(&format!("fsync {fd}"), "222222222222");
        // A commit that the server puts behind another host's.
        self.ok(&format!("fill 0 {} {PAGE} #", 2 * PAGE));
        self.bench.change(3);
        self.ok(&format!("fsync {shared}"));
        self.check("two hosts");
        self.ok(&format!("refresh {shared}"));
        assert_eq!(self.ok(&format!("load 0 {} 1", 2 * PAGE)), "#");
        assert_eq!(self.ok(&format!("load 0 {} 1", 8 * PAGE)), self.bench.letter.to_string());
        // Shorter.
        self.ok(&format!("truncate {fd} {}", 4 * PAGE));
        self.ok(&format!("fill 1 0 {} 3", 4 * PAGE));
        self.commit(&format!("sync 1 0 {} s", 4 * PAGE), "3333");
        self.names = vec!["a", "b"];
        self.step("rename /netmem/a /netmem/b", Some("ENOENT"));
        self.names = vec!["b"];
        self.check("renamed");
        self.may_be.push(None);
        self.step("unlink /netmem/b", Some("ENOENT"));
        self.may_be = vec![None];
        self.check("unlinked");
        self.ok(&format!("fill 1 0 {} 4", 4 * PAGE));
        self.ok(&format!("fsync {fd}"));
        assert_eq!(self.ok(&format!("pread {fd} {} 2", 4 * PAGE - 2)), "44");
        self.ok(&format!("close {fd}"));
    }
}

/// Whether the point was reached.
fn visit(bench: &mut Bench, engine: Engine, point: Point) -> bool {
    let host = Host::new(engine);
    let wire = Proxy::to(bench.server.address());
    wire.in_frame(point.towards_server, point.frames, point.place, point.fate);
    // A wire that is there again is waited for.
    let timeout = if point.fate == Fate::Breaks { "20000" } else { TIMEOUT_MS };
    let variables = [("NETMEM_TIMEOUT_MS", timeout), ("NETMEM_PREFETCH", "off"), ("NETMEM_LOG", "error")];
    let agent = Agent::with(&host, wire.url(), &variables);
    let (may_be, names) = (vec![None], vec!["a"]);
    bench.change(0);
    let mut pass = Pass { bench, wire, agent, point, healed: false, may_be, names };
    pass.work();
    let Pass { agent, wire, bench, .. } = pass;
    assert_eq!(agent.end("exit 0").code(), Some(0), "{point:?}");
    let met = wire.is_met();
    wire.heal();
    let (_, shared) = whole(&bench.server, "f").expect("the shared region");
    let last = bench.letter.to_string();
    assert_eq!(letters_of(&shared)[2..], format!("#{}", last.repeat(SHARED - 3)), "{point:?}");
    met
}

/// Visits every frame each way, with what `at` gives for it, until the work passes untouched. How many.
fn count_down(engine: Engine, at: impl Fn(u64) -> Vec<(Place, Fate)>) -> u64 {
    let mut bench = Bench::new(engine);
    let mut visited = 0;
    for towards_server in [true, false] {
        for frames in 0.. {
            let mut met = false;
            for (place, fate) in at(frames) {
                let reached = visit(&mut bench, engine, Point { towards_server, frames, place, fate });
                met |= reached;
                visited += u64::from(reached);
            }
            if !met {
                println!("{engine}: {frames} messages {}", if towards_server { "sent" } else { "received" });
                break;
            }
        }
    }
    println!("{engine}: {visited} points visited");
    visited
}

/// One point in each message: every place of a message and every fate of the wire comes up, in turn.
fn one_in_each(engine: Engine) {
    let Some(engine) = engine.require() else { return };
    let fates = [Fate::Breaks, Fate::Cut, Fate::Breaks, Fate::Stalls, Fate::Breaks];
    let visited = count_down(engine, |frames| {
        vec![(Place::ALL[frames as usize % Place::ALL.len()], fates[frames as usize % fates.len()])]
    });
    assert!(visited > 20, "{visited} messages are not this work");
}

#[test]
fn work_whose_wire_breaks_in_any_message_is_whole_and_goes_on_with_kernel_faults() {
    one_in_each(RUNGS[0]);
}

#[test]
fn work_whose_wire_breaks_in_any_message_is_whole_and_goes_on_with_signals() {
    one_in_each(Engine::SigsegvMprotect);
}

on_each_rung! {
    #[ignore = "long: make test-long"]
    work_whose_wire_breaks_stalls_or_is_cut_anywhere_in_any_message_is_whole_and_goes_on
}

fn work_whose_wire_breaks_stalls_or_is_cut_anywhere_in_any_message_is_whole_and_goes_on(engine: Engine) {
    count_down(engine, |_| {
        let fates = [Fate::Breaks, Fate::Cut, Fate::Stalls];
        Place::ALL.into_iter().flat_map(|place| fates.map(|fate| (place, fate))).collect()
    });
}
