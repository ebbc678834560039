//! The statistics as text.
//!
//! Owns: what NETMEM_STATS writes. Called by: abi at exit. Must not: count anything itself.

use super::Runtime;
use crate::stats;

/// One line a counter, `name value`, for NETMEM_STATS.
pub fn render(runtime: &Runtime) -> String {
    let wire = runtime.remote.stats();
    let lines = [
        ("faults", stats::get(&stats::FAULTS)),
        ("pages_fetched", stats::get(&wire.pages_fetched)),
        ("zero_pages_filled", stats::get(&stats::ZERO_PAGES)),
        ("pages_committed", stats::get(&stats::PAGES_COMMITTED)),
        ("commits", stats::get(&stats::COMMITS)),
        ("bytes_received", stats::get(&wire.bytes_in)),
        ("bytes_sent", stats::get(&wire.bytes_out)),
        ("requests", stats::get(&wire.requests)),
        ("reconnects", stats::get(&wire.reconnects)),
        ("view_moves", stats::get(&stats::VIEW_MOVES)),
        ("pages_given_up", stats::get(&stats::GIVEN_UP)),
    ];
    let mut text = format!("engine {}\n", runtime.engine().name());
    for (name, value) in lines {
        text += &format!("{name} {value}\n");
    }
    text
}
