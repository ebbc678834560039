//! Counters, always on.
//!
//! Owns: the process's counters and latencies. Called by: everyone to count, boot at exit. Must not: cost more than a relaxed
//! addition, or two looks at the clock for a latency.

use core::sync::atomic::{AtomicU64, Ordering};
use std::sync::OnceLock;
use std::time::Instant;

use histogram::AtomicHistogram;

/// Touches of absent pages that were served.
pub static FAULTS: AtomicU64 = AtomicU64::new(0);
/// Pages that were known to be zeros.
pub static ZERO_PAGES: AtomicU64 = AtomicU64::new(0);
/// Pages that went up in commits.
pub static PAGES_COMMITTED: AtomicU64 = AtomicU64::new(0);
/// Commits that carried something.
pub static COMMITS: AtomicU64 = AtomicU64::new(0);
/// Faults that could not be served.
pub static GIVEN_UP: AtomicU64 = AtomicU64::new(0);
/// Moves of a view to a newer epoch.
pub static VIEW_MOVES: AtomicU64 = AtomicU64::new(0);

/// Pages that were taken out of the page cache for room.
pub static PAGES_EVICTED: AtomicU64 = AtomicU64::new(0);
/// Of these, pages that were not committed: the server keeps them apart.
pub static PAGES_PENDING: AtomicU64 = AtomicU64::new(0);
/// Of those, pages that came back.
pub static PAGES_HOME: AtomicU64 = AtomicU64::new(0);

/// Adds.
pub fn add(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}

/// Reads.
pub fn get(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

/// Buckets within 1/32 of each other, nanoseconds up to a minute: 8 KiB each.
const GROUPING_POWER: u8 = 5;
const MAX_VALUE_POWER: u8 = 36;

/// How long something took, each time.
pub struct Latency {
    times: OnceLock<AtomicHistogram>,
    longest: AtomicU64,
}

/// What is known of a latency, in nanoseconds; zeros if it never happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Half of the times were at most this long.
    pub p50: u64,
    /// 99 of 100.
    pub p99: u64,
    /// 999 of 1,000.
    pub p999: u64,
    /// The longest.
    pub max: u64,
}

impl Latency {
    const fn new() -> Self {
        Latency { times: OnceLock::new(), longest: AtomicU64::new(0) }
    }

    /// Notes that something that began then has ended.
    pub fn note(&self, began: Instant) {
        self.note_ns(u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX));
    }

    fn note_ns(&self, ns: u64) {
        if let Some(times) = self.times.get() {
            let _ = times.increment(ns.min((1 << MAX_VALUE_POWER) - 1));
            self.longest.fetch_max(ns, Ordering::Relaxed);
        }
    }

    /// What is known so far.
    pub fn summary(&self) -> Summary {
        let Some(times) = self.times.get() else { return Summary::default() };
        let times = times.load();
        let max = self.longest.load(Ordering::Relaxed);
        // No percentile is more than the longest, although its bucket may end behind it.
        let at = |part| {
            let told = times.quantile(part).ok().flatten();
            told.and_then(|told| told.entries().values().next().map(|bucket| bucket.end()))
                .map_or(0, |ns| ns.min(max))
        };
        Summary { p50: at(0.5), p99: at(0.99), p999: at(0.999), max }
    }
}

/// Faults that brought something in, from when we heard of them until whoever waited could go on.
pub static FAULT_TIME: Latency = Latency::new();
/// Fetches, from the request to the first frame of its answer.
pub static FETCH_TIME: Latency = Latency::new();
/// Commits that carried something.
pub static COMMIT_TIME: Latency = Latency::new();

/// How long everybody's stores were held for a commit of one instant, from the request until all could go on.
pub static HOLD_TIME: Latency = Latency::new();

/// Makes room for the latencies. Before it nothing is noted: a fault must not wait for who makes it.
pub fn start() {
    for latency in [&FAULT_TIME, &FETCH_TIME, &COMMIT_TIME, &HOLD_TIME] {
        if let Ok(times) = AtomicHistogram::new(GROUPING_POWER, MAX_VALUE_POWER) {
            let _ = latency.times.set(times);
        }
    }
}

#[cfg(test)]
mod tests {
    use histogram::AtomicHistogram;

    use super::{GROUPING_POWER, Latency, MAX_VALUE_POWER, Summary};

    #[test]
    fn a_latency_is_told_to_a_thirty_second_and_the_longest_exactly() {
        let latency = Latency::new();
        latency.note_ns(7);
        assert_eq!(latency.summary(), Summary::default());
        latency.times.set(AtomicHistogram::new(GROUPING_POWER, MAX_VALUE_POWER).unwrap()).unwrap();
        (1..=1000).for_each(|us| latency.note_ns(us * 1000));
        let told = latency.summary();
        let near = |value: u64, what: u64| (what..what + what / 31).contains(&value);
        assert!(near(told.p50, 500_000) && near(told.p99, 990_000) && told.p999 <= 1_000_000, "{told:?}");
        assert_eq!(told.max, 1_000_000);
        latency.note_ns(u64::MAX);
        assert_eq!(latency.summary().max, u64::MAX);
    }
}
