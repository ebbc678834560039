//! The statistics as text.
//!
//! Owns: what NETMEM_STATS writes. Called by: abi at exit. Must not: count anything itself.

use core::ffi::CStr;

use super::Runtime;
use crate::engine::sites::{self, Total, Wait};
use crate::stats::{self, Latency, Summary};

/// Under these names.
const LATENCIES: [(&str, &Latency); 4] = [
    ("fault", &stats::FAULT_TIME),
    ("fetch", &stats::FETCH_TIME),
    ("commit", &stats::COMMIT_TIME),
    ("hold", &stats::HOLD_TIME),
];

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
        ("pages_evicted", stats::get(&stats::PAGES_EVICTED)),
        ("pages_pending", stats::get(&stats::PAGES_PENDING)),
        ("pages_home", stats::get(&stats::PAGES_HOME)),
        ("pages_packed", stats::get(&runtime.remote.packing.pages)),
        ("bytes_packing_saved", stats::get(&runtime.remote.packing.saved)),
    ];
    let mut text = format!("engine {}\n", runtime.engine().name());
    for (name, value) in lines {
        text += &format!("{name} {value}\n");
    }
    for (name, latency) in LATENCIES {
        let Summary { p50, p99, p999, max } = latency.summary();
        for (which, ns) in [("p50", p50), ("p99", p99), ("p999", p999), ("max", max)] {
            text += &format!("{name}_{which}_ns {ns}\n");
        }
    }
    if runtime.config.sites {
        sites::totals().iter().for_each(|total| text += &site(total));
    }
    text
}

/// The same of far memory; empty if there was none.
pub fn far_memory() -> String {
    crate::far::told().iter().map(|(name, value)| format!("{name} {value}\n")).collect()
}

/// `site WAIT COUNT NS ADDRESS SYMBOL FILE`: the address as the file's own tables have it, for `netmem sites`; a dash for what is not
/// known.
fn site(total: &Total) -> String {
    let wait = match total.wait {
        Wait::Touch => "touch",
        Wait::Call => "call",
        Wait::Sync => "sync",
    };
    let found = place_of(total.address);
    let (address, symbol, file) = found.unwrap_or((total.address, "-".to_owned(), "-".to_owned()));
    format!("site {wait} {} {} {address:#x} {symbol} {file}\n", total.count, total.ns)
}

fn place_of(address: usize) -> Option<(usize, String, String)> {
    // SAFETY: all zeros is a Dl_info; it is filled if the answer is not 0, and the names stay while the objects are loaded.
    unsafe {
        let mut info: libc::Dl_info = core::mem::zeroed();
        if libc::dladdr(address as *const _, &raw mut info) == 0 || info.dli_fname.is_null() {
            return None;
        }
        let base = info.dli_fbase as usize;
        // ELF's e_type at byte 16: ET_EXEC is loaded where it says.
        let fixed = (info.dli_fbase as *const u16).add(8).read() == 2;
        let symbol = if info.dli_sname.is_null() { c"-" } else { CStr::from_ptr(info.dli_sname) };
        // The program itself goes by what it was called.
        let named = CStr::from_ptr(info.dli_fname);
        let absolute = named.to_bytes().first() == Some(&b'/');
        let file = crate::sys::file::real_path(if absolute { named } else { c"/proc/self/exe" });
        Some((if fixed { address } else { address - base }, symbol.to_string_lossy().into_owned(), file))
    }
}
