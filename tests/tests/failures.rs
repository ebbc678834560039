//! Several hosts write one file while their wires are cut, held and slowed at every byte, and their programs are killed.
//!
//! Owns: the disturbances; tests/failures/lanes.c has the rules that must hold. Called by: `cargo test`. Must not: choose without a
//! seed, or wait for a time.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use netmem_cli::client::Client;
use netmem_protocol::control::Create;
use netmem_protocol::{PageIndex, Run as Pages};
use netmem_tests::built::compile;
use netmem_tests::cli::import;
use netmem_tests::engine::RUNGS;
use netmem_tests::hang::{kill_group, patient};
use netmem_tests::model::Dice;
use netmem_tests::{Agent, Engine, Host, Proxy, Run, Server};

const PROGRAM: &str = "tests/failures/lanes.c";
const PAGE: usize = 4096;
const LANE: usize = 64;
/// Pages that every commit changes: two frames.
const PAGES: usize = 300;
/// How long a writer may take to commit once its wire is in order.
const LIMIT: Duration = Duration::from_secs(25);
/// NETMEM_TIMEOUT_MS: a wire that is held is an error soon.
const TIMEOUT_MS: &str = "400";

/// What is known of a writer.
#[derive(Debug, Default)]
struct Known {
    /// Its process, while there is one.
    pid: Option<u32>,
    attempted: u64,
    committed: u64,
    /// Syncs that failed, commits, starts.
    errors: u64,
    commits: u64,
    starts: u64,
    /// Moves of the view that broke half-way.
    broken: u64,
    wrong: Vec<String>,
    stop: bool,
}

impl Known {
    /// Syncs that ended.
    fn ends(&self) -> u64 {
        self.commits + self.errors
    }
}

#[derive(Debug, Default)]
struct Writer {
    known: Mutex<Known>,
    changed: Condvar,
}

impl Writer {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until something is so.
    fn wait_until(&self, what: &str, is_so: impl Fn(&Known) -> bool) {
        let (mut known, until) = (self.known(), Instant::now() + patient(LIMIT));
        while !is_so(&known) && known.wrong.is_empty() {
            let left = until.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "not {what} in {LIMIT:?}: {known:?}");
            (known, _) = self.changed.wait_timeout(known, left).unwrap_or_else(PoisonError::into_inner);
        }
        assert!(known.wrong.is_empty(), "{}", known.wrong.join("\n"));
    }

    fn wait_for_commits(&self, more: u64) {
        let before = self.known().commits;
        self.wait_until("committed", |known| known.commits >= before + more);
    }

    fn wait_for_an_end(&self) {
        let before = self.known().ends();
        self.wait_until("at an end of a sync", |known| known.ends() > before);
    }

    fn wait_for_an_error(&self) {
        let before = self.known().errors;
        self.wait_until("told of an error", |known| known.errors > before);
    }

    fn kill(&self) {
        if let Some(pid) = self.known().pid.take() {
            kill_group(pid);
        }
    }

    /// Runs the program again and again, and notes what it says.
    fn work(&self, host: &Host, url: &str, number: usize) {
        let program = compile(PROGRAM, &[]);
        let arguments = [host.path("lanes"), number.to_string(), PAGES.to_string()];
        while !self.known().stop {
            let run = Run::on(host, url, &program).args(&arguments).env("NETMEM_TIMEOUT_MS", TIMEOUT_MS);
            let mut agent = Agent::of(run);
            let mut known = self.known();
            known.pid = Some(agent.pid());
            if known.stop {
                kill_group(agent.pid());
            }
            drop(known);
            while let Some(line) = agent.line() {
                self.note(&line);
                if line.starts_with('x') {
                    let said = agent.stderr();
                    let from = said.len().saturating_sub(6000);
                    self.known().wrong.push(format!("under {}: {}", host.engine(), &said[from..]));
                }
            }
            self.known().pid = None;
        }
    }

    fn note(&self, line: &str) {
        let mut known = self.known();
        let number = || line[2..].parse::<u64>().unwrap_or_else(|_| panic!("a writer says {line:?}"));
        match line.as_bytes() {
            [b'a', ..] => known.attempted = number(),
            [b'd', ..] => (known.committed, known.commits) = (number(), known.commits + 1),
            [b'e', ..] => known.errors += 1,
            b"m" => known.broken += 1,
            [b's', ..] => {
                known.starts += 1;
                if number() < known.committed || number() > known.attempted {
                    let line = format!("started at {line}: {known:?}");
                    known.wrong.push(line);
                }
            }
            _ => known.wrong.push(line.to_owned()),
        }
        self.changed.notify_all();
    }
}

/// One disturbance, at a place that the dice choose.
fn disturb(dice: &mut Dice, writer: &Writer, wire: &Proxy) {
    let soon = Duration::from_millis(300);
    match dice.below(8) {
        0 => {
            wire.cut_after(dice.below(3 * (PAGES * PAGE) as u64));
            wire.wait_until_cut(soon);
        }
        1 => {
            wire.cut_after_answers(dice.below(20_000));
            wire.wait_until_cut(soon);
        }
        2 => {
            // In the middle of a commit, which nobody finishes.
            wire.cut_after(dice.below(3 * (PAGES * PAGE) as u64));
            wire.wait_until_cut(soon);
            writer.kill();
        }
        3 => writer.kill(),
        4 => {
            // What is held now arrives after the program was told that it failed, and beside what it tries then.
            wire.stall();
            writer.wait_for_an_error();
        }
        5 => {
            wire.mute();
            writer.wait_for_an_error();
        }
        6 => {
            // As slow as it makes it: done in time, or an error.
            wire.split(1 + dice.small(3000) as usize);
            writer.wait_for_an_end();
        }
        _ => {
            wire.stall();
            writer.wait_for_an_error();
            writer.kill();
        }
    }
    wire.heal();
    writer.wait_for_commits(1);
}

/// `rounds` disturbances of `hosts` hosts, and what the server has at the end.
fn writers(engines: &[Engine], rounds: u64, seed: u64) {
    eprintln!("seed {seed}");
    compile(PROGRAM, &[]);
    let (server, mut dice) = (Server::start(), Dice(seed));
    import(&server, "lanes", &vec![0; PAGES * PAGE]);
    let hosts: Vec<Host> = engines.iter().map(|engine| Host::new(*engine)).collect();
    let wires: Vec<Proxy> = hosts.iter().map(|_| Proxy::to(server.address())).collect();
    let writers: Vec<Writer> = hosts.iter().map(|_| Writer::default()).collect();
    thread::scope(|scope| {
        for (number, (host, writer)) in hosts.iter().zip(&writers).enumerate() {
            let url = wires[number].url();
            scope.spawn(move || writer.work(host, url, number));
        }
        // The writers end also if this panics.
        let _end = End(&writers);
        writers.iter().for_each(|writer| writer.wait_for_commits(1));
        for _ in 0..rounds {
            let number = dice.below(hosts.len() as u64) as usize;
            disturb(&mut dice, &writers[number], &wires[number]);
        }
        writers.iter().for_each(|writer| writer.wait_for_commits(2));
    });
    let committed = lanes(&mut server.client());
    for (number, writer) in writers.iter().enumerate() {
        let known = writer.known();
        let Known { commits, errors, starts, broken, .. } = *known;
        eprintln!("{commits} commits, {errors} errors, {starts} starts, {broken} broken moves");
        assert!(broken <= 2 * rounds, "moves break without a reason");
        let numbers: Vec<u64> = committed.iter().map(|page| page[number]).collect();
        assert!(
            numbers.iter().all(|one| *one == numbers[0]),
            "writer {number}: a commit in part: {numbers:?}"
        );
        assert!((known.committed..=known.attempted).contains(&numbers[0]), "{}: {known:?}", numbers[0]);
        assert_eq!(known.wrong, Vec::<String>::new());
    }
}

struct End<'a>(&'a [Writer]);

impl Drop for End<'_> {
    fn drop(&mut self) {
        for writer in self.0 {
            writer.known().stop = true;
            writer.kill();
        }
    }
}

/// The first word of each lane of each page, as the server has it.
fn lanes(client: &mut Client) -> Vec<Vec<u64>> {
    let entry = client.open("lanes", Create::Never, 0).expect("the region");
    let mut all = Vec::new();
    for first in (0..PAGES).step_by(100) {
        let run = Pages { first: PageIndex(first as u64), count: 100 };
        for (_, page) in client.fetch_pages(entry.region, entry.epoch, &[run]).expect("pages") {
            let page = page.map_or(vec![0; PAGE], |page| page.to_vec());
            let word = |at: &[u8]| u64::from_le_bytes(at[..8].try_into().expect("eight bytes"));
            all.push(page.chunks(LANE).map(word).collect());
        }
    }
    all
}

#[test]
fn hosts_whose_wires_are_cut_and_whose_programs_are_killed_lose_and_mix_nothing() {
    let engines: Vec<Engine> = RUNGS.into_iter().filter_map(Engine::require).collect();
    writers(&[engines[0], engines[engines.len() - 1], engines[engines.len() / 2]], 12, 1);
}

#[test]
#[ignore = "long: make test-long"]
fn for_minutes_on_every_rung() {
    let engines: Vec<Engine> = RUNGS.into_iter().filter_map(Engine::require).collect();
    let seed = std::env::var("NETMEM_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    for (turn, engine) in engines.iter().enumerate() {
        let other = engines[(turn + 1) % engines.len()];
        writers(&[*engine, *engine, other], 100, seed.unwrap_or(100 + turn as u64));
    }
}
