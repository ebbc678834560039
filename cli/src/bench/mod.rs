//! `netmem bench`: what a server, the network to it and this machine's engine give, and which of them limits.
//!
//! Owns: its options, its figures, and how they are told. Called by: `main.rs`. Must not: leave anything on the server.

mod engine;
mod memory;
mod wire;
mod words;
mod worker;

pub use worker::Worker;

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use clap::builder::PossibleValuesParser;
use netmem_protocol::PAGE_SIZE;
use serde::{Deserialize, Serialize};
use serde_json::json;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

use crate::activity::Percentiles;
use crate::args::{ServerOptions, human_bytes, output_failed, parse_bytes};
use crate::bench::words::{Limit, limits, rate};
use crate::bench::worker::Measured;
use crate::doctor::rung;
use crate::error::Failure;
use crate::facts::Facts;
use crate::link::ServerAddress;
use crate::top::micros;

/// A page's first word is this, times its number and one.
pub(crate) const WORD: u64 = 0x9e37_79b9_7f4a_7c15;
/// Pages that are touched in no order: 8 MiB.
const SCATTERED_PAGES: usize = 2048;
/// How long a step that is repeated may take.
const STEP: Duration = Duration::from_millis(1500);
/// How often a step is repeated before its time matters.
const REPEATS_MIN: usize = 16;
const SIZE_LEAST: u64 = 1 << 20;
const SIZE_MOST: u64 = 4 << 30;

/// `netmem bench`
#[derive(Args, Debug)]
pub struct Bench {
    /// The server, tcp://host:port or unix:/path, instead of --server
    url: Option<ServerAddress>,
    /// Bytes that are read in order and synced; suffixes K, M, G; 1M to 4G. The server needs twice as much for a while, and 8M
    #[arg(long, value_name = "SIZE", default_value = "64M", value_parser = parse_size)]
    size: u64,
    /// How faults are caught: auto is what programs get here; all is each that works here
    #[arg(long, default_value = "auto", value_parser = PossibleValuesParser::new(["auto", "uffd", "uffd-user", "uffd-sigbus", "sigsegv", "all"]))]
    engine: String,
    /// The same as one JSON object, for programs
    #[arg(long)]
    json: bool,
    /// The library to measure [default: libnetmem.so beside netmem, in ../lib or ../lib/netmem]
    #[arg(long, env = "NETMEM_LIBRARY", value_name = "PATH")]
    library: Option<PathBuf>,
    /// A tmpfs directory in which a page cache of its own is made and removed [default: that beside NETMEM_DIR, or /dev/shm]
    #[arg(long, value_name = "PATH")]
    dir: Option<PathBuf>,
    #[command(flatten)]
    server: ServerOptions,
}

fn parse_size(text: &str) -> Result<u64, String> {
    let bytes = parse_bytes(text)?;
    if (SIZE_LEAST..=SIZE_MOST).contains(&bytes) {
        return Ok(bytes.next_multiple_of(PAGE_SIZE as u64));
    }
    Err(format!("{text} is not within 1M and 4G"))
}

/// How long something took, done again and again.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// How often.
    pub count: usize,
    /// Microseconds within which one in two was done.
    pub p50_us: f64,
    /// Microseconds within which 99 in 100 were.
    pub p99_us: f64,
}

impl Spread {
    /// Does something up to `most` times, as long as the time lasts, and asks how long it took.
    pub fn of<E>(
        limit: Duration,
        most: usize,
        mut step: impl FnMut() -> Result<Duration, E>,
    ) -> Result<Spread, E> {
        let (began, mut took) = (Instant::now(), Vec::with_capacity(most));
        while took.len() < most && (took.len() < REPEATS_MIN || began.elapsed() < limit) {
            took.push(step()?);
        }
        Ok(Spread::of_times(took))
    }

    /// Of times that were measured.
    pub fn of_times(mut took: Vec<Duration>) -> Spread {
        took.sort_unstable();
        let at = |share: f64| {
            let place = (took.len() as f64 * share).ceil() as usize;
            took.get(place.saturating_sub(1)).map_or(0.0, |took| took.as_secs_f64() * 1e6)
        };
        Spread { count: took.len(), p50_us: at(0.5), p99_us: at(0.99) }
    }
}

/// How long something takes.
pub(crate) fn timed<E>(step: impl FnOnce() -> Result<(), E>) -> Result<Duration, E> {
    let began = Instant::now();
    step()?;
    Ok(began.elapsed())
}

/// What the connection gives, without paging.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct WireFigures {
    /// A ping and its answer.
    pub round_trip: Spread,
    /// One page asked for and received.
    pub page: Spread,
    /// 10^6 bytes of pages a second, several frames asked for at a time, received and dropped.
    pub fetch_mb_s: f64,
    /// 10^6 bytes of pages a second, sent and committed.
    pub commit_mb_s: f64,
    /// What the server itself took over the fetches of one page; `None` if others fetched meanwhile, or it does not tell.
    #[serde(serialize_with = "told")]
    pub server: Option<Percentiles>,
}

fn told<S: serde::Serializer>(server: &Option<Percentiles>, to: S) -> Result<S::Ok, S::Error> {
    server.map(|found| json!({ "p50_us": found.p50_us, "p99_us": found.p99_us })).serialize(to)
}

/// What programs get under an engine.
#[derive(Clone, Debug, Serialize)]
pub struct EngineFigures {
    /// Its name.
    pub engine: String,
    /// As measured.
    #[serde(flatten)]
    pub measured: Measured,
    /// Pages that were read in order, and synced.
    pub pages: usize,
    /// 10^6 bytes a second, touched in order.
    pub scan_mb_s: f64,
    /// 10^6 bytes a second, all changed, synced.
    pub sync_mb_s: f64,
    /// What limits it.
    pub limits: Vec<Limit>,
}

/// The signal that came, or 0. A second one ends the process at once.
#[derive(Clone, Debug)]
pub(crate) struct Interrupted(Arc<AtomicUsize>);

impl Interrupted {
    fn watch() -> io::Result<Interrupted> {
        let (again, came) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&again))?;
            flag::register(signal, Arc::clone(&again))?;
            flag::register_usize(signal, Arc::clone(&came), signal as usize)?;
        }
        Ok(Interrupted(came))
    }

    pub(crate) fn check(&self) -> Result<(), Failure> {
        match self.0.load(Ordering::Relaxed) {
            0 => Ok(()),
            signal => {
                let what = "what it had made on the server is removed";
                Err(Failure::new("netmem bench", "interrupted", what).with_status(128 + signal as u8))
            }
        }
    }
}

impl Bench {
    fn pages(&self) -> usize {
        (self.size / PAGE_SIZE as u64) as usize
    }

    /// The engines to measure, and what the library is told for each.
    fn engines(&self, facts: &Facts) -> Vec<(String, &'static str)> {
        let sigsegv = if facts.guard_shared.is_ok() { "sigsegv-guard" } else { "sigsegv-mprotect" };
        let known = [
            ("uffd", "uffd"),
            ("uffd-user", "uffd-user"),
            ("uffd-sigbus", "uffd-sigbus"),
            (sigsegv, "sigsegv"),
        ];
        match self.engine.as_str() {
            "auto" => vec![(rung(facts).name().to_owned(), "auto")],
            "all" => known.map(|(name, setting)| (name.to_owned(), setting)).to_vec(),
            one => known
                .iter()
                .filter(|(_, setting)| *setting == one)
                .map(|(name, setting)| ((*name).to_owned(), *setting))
                .collect(),
        }
    }

    /// Measures, and tells.
    pub fn run(mut self) -> Result<u8, Failure> {
        if let Some(url) = self.url.take() {
            self.server.server = url;
        }
        let interrupted = Interrupted::watch()
            .map_err(|error| Failure::new("signals", crate::error::describe_io(&error), "try again"))?;
        let text = self.measure(&interrupted);
        // What failed may have failed for that.
        interrupted.check()?;
        io::stdout().lock().write_all(text?.as_bytes()).map_err(output_failed)?;
        Ok(0)
    }

    fn measure(&self, interrupted: &Interrupted) -> Result<String, Failure> {
        let facts = Facts::gather();
        let place = engine::Place::find(self, &facts)?;
        let mut figures = None;
        let mut engines = Vec::new();
        for (name, setting) in self.engines(&facts) {
            let mut region = wire::Region::make(self, interrupted)?;
            let wire = match figures {
                Some(wire) => wire,
                None => *figures.insert(region.measure(self.pages(), interrupted)?),
            };
            match place.measure(self, setting, &mut region, interrupted) {
                Ok(measured) => engines.push(self.figures(&wire, name, measured)),
                // One that this machine refuses is no failure of the others.
                Err(failure) if self.engine == "all" => {
                    interrupted.check()?;
                    eprintln!("netmem: {name}: {}", failure.line);
                }
                Err(failure) => return Err(failure),
            }
        }
        let Some(wire) = figures.filter(|_| !engines.is_empty()) else {
            return Err(Failure::new(
                "netmem bench",
                "no engine could be measured",
                "the lines above say why",
            ));
        };
        Ok(if self.json { self.json(&wire, &engines) } else { self.text(&wire, &engines) })
    }

    fn figures(&self, wire: &WireFigures, engine: String, measured: Measured) -> EngineFigures {
        let megabytes = self.size as f64 / 1e6;
        let (scan_mb_s, sync_mb_s) = (megabytes / measured.scan_s, megabytes / measured.sync_s);
        let pages = self.pages();
        let mut figures = EngineFigures { engine, measured, pages, scan_mb_s, sync_mb_s, limits: Vec::new() };
        figures.limits = limits(wire, &figures);
        figures
    }

    fn json(&self, wire: &WireFigures, engines: &[EngineFigures]) -> String {
        let object = json!({
            "server": self.server.server.to_string(),
            "size_bytes": self.size,
            "wire": wire,
            "engines": engines,
        });
        format!("{object:#}\n")
    }

    fn text(&self, wire: &WireFigures, engines: &[EngineFigures]) -> String {
        let spread = |name: &str, spread: &Spread| {
            format!("{name:32}{:>10}{:>10}\n", micros(spread.p50_us), micros(spread.p99_us))
        };
        let speed = |name: &str, mb_s: f64| format!("{name:32}{:>10}\n", rate(mb_s));
        let size = human_bytes(self.size);
        let mut text = format!("{:32}{:>10}{:>10}\n", self.server.server.to_string(), "p50", "p99");
        if self.server.server.is_here() {
            text += "the server's address is this machine's: where the scheduler puts both decides much (taskset pins them)\n";
        }
        text += &spread("round trip", &wire.round_trip);
        text += &spread("a page, without paging", &wire.page);
        if let Some(server) = &wire.server {
            text += &format!(
                "{:32}{:>10}{:>10}\n",
                "  of it the server",
                micros(server.p50_us),
                micros(server.p99_us)
            );
        }
        text += &speed(&format!("{size} fetched, not paged"), wire.fetch_mb_s);
        text += &speed(&format!("{size} committed, not paged"), wire.commit_mb_s);
        for engine in engines {
            text += &format!("\nengine {}\n", engine.engine);
            text += &spread("first touch of a page", &engine.measured.fault);
            text += &speed(&format!("{size} touched in order"), engine.scan_mb_s);
            text += &spread("msync of one page", &engine.measured.sync_page);
            text += &speed(&format!("msync of {size}"), engine.sync_mb_s);
            for limit in &engine.limits {
                text += &format!("  {}: {}\n", limit.what, limit.words);
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_repeated_a_few_times_whatever_it_takes_and_no_more_often_than_asked() {
        let count =
            |limit, most| Spread::of(limit, most, || timed(|| Ok::<(), ()>(()))).map(|spread| spread.count);
        assert_eq!(count(Duration::ZERO, 1000), Ok(REPEATS_MIN));
        assert_eq!(count(Duration::from_secs(60), 20), Ok(20));
        assert_eq!(Spread::of(Duration::ZERO, 9, || Err("no")), Err("no"));
    }

    #[test]
    fn sizes_are_bounded_and_whole_pages() {
        assert_eq!(parse_size("1M"), Ok(1 << 20));
        assert_eq!(parse_size("1048577"), Ok((1 << 20) + 4096));
        for text in ["4K", "5G", "x"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }
}
