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

/// One line a counter, `name value`, for NETMEM_STATS.
pub fn render(runtime: &crate::host::Runtime) -> String {
    let wire = runtime.remote.stats();
    let lines = [
        ("faults", get(&FAULTS)),
        ("pages_fetched", get(&wire.pages_fetched)),
        ("zero_pages_filled", get(&ZERO_PAGES)),
        ("pages_committed", get(&PAGES_COMMITTED)),
        ("commits", get(&COMMITS)),
        ("bytes_received", get(&wire.bytes_in)),
        ("bytes_sent", get(&wire.bytes_out)),
        ("requests", get(&wire.requests)),
        ("reconnects", get(&wire.reconnects)),
        ("view_moves", get(&VIEW_MOVES)),
        ("pages_given_up", get(&crate::engine::uffd::GIVEN_UP)),
    ];
    let mut text = format!("engine {}\n", runtime.engine().name());
    for (name, value) in lines {
        text += &format!("{name} {value}\n");
    }
    text
}
