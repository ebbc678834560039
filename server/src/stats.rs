//! Counters since the start.
//!
//! Owns: relaxed atomics. Called by: session, region. Must not: order anything: a reader may see one counter ahead of another.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// The counters of one server.
pub struct Stats {
    /// When the server started.
    pub started: Instant,
    /// Pages sent, zero pages not counted.
    pub pages_sent: AtomicU64,
    /// Pages committed, zero pages counted.
    pub pages_committed: AtomicU64,
    /// Commits that raised an epoch.
    pub commits: AtomicU64,
    /// Fetch requests.
    pub fetches: AtomicU64,
}

impl Default for Stats {
    fn default() -> Self {
        let zero = || AtomicU64::new(0);
        Stats {
            started: Instant::now(),
            pages_sent: zero(),
            pages_committed: zero(),
            commits: zero(),
            fetches: zero(),
        }
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
