//! The program under the library that `netmem bench` measures: this command itself, started again.
//!
//! Owns: its steps, each within its time. Called by: `main.rs`, as a subcommand that nobody is told of. Must not: speak to a server; it
//! loads, stores and syncs.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use serde::{Deserialize, Serialize};

use crate::bench::memory::Mapping;
use crate::bench::{Spread, WORD, timed};
use crate::error::{Failure, describe_io};

/// `netmem bench-worker`
#[derive(Args, Debug)]
pub struct Worker {
    /// The region's path
    path: PathBuf,
    /// Pages at its start that are touched in no order
    scattered: usize,
    /// Pages behind them that are read in order
    ordered: usize,
    /// How long a step that is repeated may take, in milliseconds
    limit_ms: u64,
}

/// What the worker measured.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// A load from an absent page, in no order.
    pub fault: Spread,
    /// Seconds to load a word of each of the ordered pages.
    pub scan_s: f64,
    /// msync of one changed page.
    pub sync_page: Spread,
    /// Seconds to msync the ordered pages, all changed.
    pub sync_s: f64,
}

/// Syncs of one page at the most.
const SYNCS_MAX: usize = 200;
/// What the worker says first.
pub const READY: &str = "ready";

/// Each page once, in an order that no detector of strides follows: each step (times an odd number, xor with its own upper half) takes
/// the numbers below a power of two to themselves.
fn scattered(count: usize) -> impl Iterator<Item = usize> {
    let size = count.next_power_of_two();
    let half = size.trailing_zeros().div_ceil(2).max(1);
    let mix = move |page: usize| {
        let once = page.wrapping_mul(0x9e37_79b1) % size;
        (once ^ (once >> half)).wrapping_mul(0x85eb_ca6b) % size
    };
    (0..size).map(mix).filter(move |page| *page < count)
}

impl Worker {
    /// Measures, and says what.
    pub fn run(&self) -> Result<u8, Failure> {
        let failed = |error: io::Error| {
            Failure::new(
                self.path.display(),
                describe_io(&error),
                "the library's line above says why, if there is one",
            )
        };
        let file = OpenOptions::new().read(true).write(true).open(&self.path).map_err(failed)?;
        // Two mappings: advice to a part is advice to the whole.
        let scattered = Mapping::new(&file, 0, self.scattered).map_err(failed)?;
        let ordered = Mapping::new(&file, self.scattered, self.ordered).map_err(failed)?;
        // From here on the region ends with this process, whatever ends it.
        fs::remove_file(&self.path).map_err(failed)?;
        println!("{READY}");
        io::stdout().flush().map_err(failed)?;
        let measured = self.measure(&scattered, &ordered).map_err(failed)?;
        drop((scattered, ordered, file));
        println!("{}", serde_json::json!(measured));
        Ok(0)
    }

    fn measure(&self, jumping: &Mapping, ordered: &Mapping) -> io::Result<Measured> {
        let limit = Duration::from_millis(self.limit_ms);
        jumping.jumps_about()?;
        let mut pages = scattered(self.scattered);
        let fault = Spread::of(limit, self.scattered, || {
            let page = pages.next().ok_or(io::ErrorKind::UnexpectedEof)?;
            timed(|| check(jumping.load(page), page))
        })?;
        let began = Instant::now();
        for page in 0..self.ordered {
            check(ordered.load(page), self.scattered + page)?;
        }
        let scan_s = began.elapsed().as_secs_f64();
        let mut word = 0;
        let sync_page = Spread::of(limit, SYNCS_MAX, || {
            word += 1;
            ordered.store(0, word);
            timed(|| ordered.sync())
        })?;
        for page in 0..self.ordered {
            ordered.store(page, !(page as u64));
        }
        let began = Instant::now();
        ordered.sync()?;
        Ok(Measured { fault, scan_s, sync_page, sync_s: began.elapsed().as_secs_f64() })
    }
}

/// What a page begins with must be what was committed there.
fn check(word: u64, page: usize) -> io::Result<()> {
    if word == WORD.wrapping_mul(page as u64 + 1) {
        return Ok(());
    }
    Err(io::Error::other(format!("page {page} is not what was committed")))
}

#[cfg(test)]
mod tests {
    use super::scattered;
    use std::collections::BTreeSet;

    #[test]
    fn scattered_pages_are_all_pages_once_and_in_no_order() {
        for count in [1, 2, 100, 2048] {
            let pages: Vec<usize> = scattered(count).collect();
            assert_eq!(pages.len(), count, "each once");
            assert_eq!(pages.iter().copied().collect::<BTreeSet<_>>(), (0..count).collect::<BTreeSet<_>>());
        }
        let pages: Vec<usize> = scattered(2048).collect();
        let next = pages.windows(2).filter(|pair| pair[1].abs_diff(pair[0]) <= 4).count();
        assert!(next < 50, "{next} neighbours follow each other");
    }
}
