//! Counters, always on.
//!
//! Owns: the process's counters and how they are written. Called by: everyone to count, boot at exit. Must not: cost more
//! than a relaxed addition.

use core::sync::atomic::{AtomicU64, Ordering};

/// Touches of absent pages that were served.
pub static FAULTS: AtomicU64 = AtomicU64::new(0);
/// Pages that came from the server through faults.
pub static PAGES_FETCHED: AtomicU64 = AtomicU64::new(0);
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

/// Adds.
pub fn add(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}

/// Reads.
pub fn get(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}
