//! What was served, and how long it took: counters since the start.
//!
//! Owns: relaxed atomics. Called by: session, commit, region, catalog. Must not: order anything: a reader may see one counter ahead of
//! another.
//!
//! Counting must not be felt on the way of a fetch. So the server's own counters lie in lanes, a cache line and a histogram apart, and a
//! connection counts in one of them; who reads adds them up. A region's and a client's counters lie with what its fetches touch anyway.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use histogram::{AtomicHistogram, Config};
use netmem_protocol::activity::{LATENCY_GROUPING_POWER, LATENCY_MAX_POWER, Latencies, Served};

/// Lanes, as many as there are shards at the most.
const LANES: usize = 16;
/// The buckets that the protocol speaks of.
const BUCKETS: Config = match Config::new(LATENCY_GROUPING_POWER, LATENCY_MAX_POWER) {
    Ok(config) => config,
    Err(_) => panic!("the protocol's powers are no histogram's"),
};

/// What was served: of a region, to a client, or by a lane.
#[derive(Default)]
pub struct Counts {
    /// Fetch requests.
    pub fetches: AtomicU64,
    /// Pages sent, zero pages not counted.
    pub pages_sent: AtomicU64,
    /// Commits that raised an epoch.
    pub commits: AtomicU64,
    /// Pages committed, zero pages counted.
    pub pages_committed: AtomicU64,
}

impl Counts {
    /// As they are now.
    pub fn served(&self) -> Served {
        Served {
            fetches: get(&self.fetches),
            pages_sent: get(&self.pages_sent),
            commits: get(&self.commits),
            pages_committed: get(&self.pages_committed),
        }
    }

    /// One more commit, of so many pages.
    pub fn committed(&self, pages: u64) {
        add(&self.commits, 1);
        add(&self.pages_committed, pages);
    }
}

/// What went over connections, and what for.
#[derive(Default)]
pub struct Traffic {
    /// What was served.
    pub counts: Counts,
    /// Bytes received behind hellos.
    pub bytes_in: AtomicU64,
    /// Bytes sent behind hellos.
    pub bytes_out: AtomicU64,
}

/// How long requests of one kind took.
struct Latency(AtomicHistogram);

impl Latency {
    fn add(&self, took: Duration, count: u64) {
        let ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX).min((1 << LATENCY_MAX_POWER) - 1);
        // Never out of range after that.
        let _ = self.0.add(ns, count);
    }
}

/// The counters of a part of the connections.
#[repr(align(128))]
pub struct Lane {
    /// What went over them.
    pub traffic: Traffic,
    fetches: Latency,
    commits: Latency,
}

/// Requests whose latency is counted when their answers are on their way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unsent {
    /// Fetches.
    pub fetches: u32,
    /// Commits.
    pub commits: u32,
}

impl Lane {
    fn new() -> Lane {
        let latency = || Latency(AtomicHistogram::with_config(&BUCKETS));
        Lane { traffic: Traffic::default(), fetches: latency(), commits: latency() }
    }

    /// The answers to these requests, which had arrived at `arrived`, have been handed to the kernel.
    pub fn sent(&self, unsent: &mut Unsent, arrived: Instant) {
        let Unsent { fetches, commits } = std::mem::take(unsent);
        if fetches + commits == 0 {
            return;
        }
        let took = arrived.elapsed();
        for (latency, count) in [(&self.fetches, fetches), (&self.commits, commits)] {
            if count > 0 {
                latency.add(took, u64::from(count));
            }
        }
    }
}

/// The counters of one server.
pub struct Stats {
    /// When the server started.
    pub started: Instant,
    lanes: [Lane; LANES],
}

impl Default for Stats {
    fn default() -> Self {
        Stats { started: Instant::now(), lanes: std::array::from_fn(|_| Lane::new()) }
    }
}

impl Stats {
    /// Where the connection of this number counts.
    pub fn lane(&self, connection: u64) -> &Lane {
        &self.lanes[connection as usize % LANES]
    }

    fn sum(&self, counter: impl Fn(&Traffic) -> &AtomicU64) -> u64 {
        self.lanes.iter().map(|lane| get(counter(&lane.traffic))).sum()
    }

    /// What was served in all.
    pub fn served(&self) -> Served {
        Served {
            fetches: self.sum(|traffic| &traffic.counts.fetches),
            pages_sent: self.sum(|traffic| &traffic.counts.pages_sent),
            commits: self.sum(|traffic| &traffic.counts.commits),
            pages_committed: self.sum(|traffic| &traffic.counts.pages_committed),
        }
    }

    /// Bytes received and sent in all.
    pub fn bytes(&self) -> (u64, u64) {
        (self.sum(|traffic| &traffic.bytes_in), self.sum(|traffic| &traffic.bytes_out))
    }

    /// How long fetches took.
    pub fn fetch_latencies(&self) -> Latencies {
        self.latencies(|lane| &lane.fetches)
    }

    /// How long commits took.
    pub fn commit_latencies(&self) -> Latencies {
        self.latencies(|lane| &lane.commits)
    }

    fn latencies(&self, of: impl Fn(&Lane) -> &Latency) -> Latencies {
        let mut sums = vec![0u64; BUCKETS.total_buckets()];
        for lane in &self.lanes {
            for (sum, bucket) in sums.iter_mut().zip(of(lane).0.load().as_slice()) {
                *sum += bucket;
            }
        }
        let buckets = sums.into_iter().enumerate().filter(|(_, count)| *count > 0);
        Latencies { buckets: buckets.map(|(bucket, count)| (bucket as u32, count)).collect() }
    }
}

/// Counts up.
pub fn add(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}

/// Reads.
pub fn get(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use netmem_protocol::activity::LATENCY_BUCKETS;

    #[test]
    fn lanes_add_up_and_their_buckets_are_those_of_the_protocol() {
        let stats = Stats::default();
        assert_eq!(BUCKETS.total_buckets() as u32, LATENCY_BUCKETS);
        for connection in 0..LANES as u64 + 3 {
            add(&stats.lane(connection).traffic.counts.fetches, 2);
            add(&stats.lane(connection).traffic.bytes_out, 5);
        }
        assert_eq!(stats.served().fetches, 2 * (LANES as u64 + 3));
        assert_eq!(stats.bytes(), (0, 5 * (LANES as u64 + 3)));
        for (connection, ns) in [(0, 40), (1, 40), (2, 100), (3, u64::MAX)] {
            stats.lane(connection).fetches.add(Duration::from_nanos(ns), 1);
        }
        // 40 has a bucket of its own; 100 is in 100..=101, the 18th of those from 64 on; what is over the last bucket is in it.
        let expected = [(40, 2), (64 + 18, 1), (LATENCY_BUCKETS - 1, 1)];
        assert_eq!(stats.fetch_latencies().buckets, expected);
        assert_eq!(stats.fetch_latencies().check(), Ok(()));
        assert_eq!(stats.commit_latencies(), Latencies::default());
    }

    #[test]
    fn answers_that_go_together_are_counted_one_by_one() {
        let stats = Stats::default();
        let mut unsent = Unsent { fetches: 3, commits: 1 };
        let arrived = Instant::now();
        stats.lane(7).sent(&mut unsent, arrived);
        stats.lane(7).sent(&mut unsent, arrived);
        let sum = |latencies: Latencies| latencies.buckets.iter().map(|(_, count)| count).sum::<u64>();
        assert_eq!((sum(stats.fetch_latencies()), sum(stats.commit_latencies())), (3, 1));
        assert_eq!(unsent, Unsent::default());
    }
}
