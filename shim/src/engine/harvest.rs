//! What was stored where: this process's mappings and those of living peers.
//!
//! Owns: turning written ranges into dirty marks. Called by: host before a commit, the engines before a range goes. Must not:
//! lose a range: a scan arms again in the same step, so what it names is known to nobody else.

use core::sync::atomic::Ordering;

use crate::host::cache_file::RegionFile;
use crate::host::{Handle, Runtime};
use crate::log;
use crate::pager::table::{Tracking, WINDOW_PAGES};
use crate::pager::{Board, Region};
use crate::sys::mem;
use crate::sys::pagemap::Pagemap;
use crate::sys::proc;

/// Marks every written page of an address range that shows the region from `first_page` on, and arms the range again. Only
/// windows in which a page ever was are looked at.
pub fn scan(pagemap: &Pagemap, start: usize, end: usize, first_page: u64, region: &Region<RegionFile>) {
    scan_as(pagemap, (start, end), first_page, region, true);
}

fn scan_as(
    pagemap: &Pagemap,
    range: (usize, usize),
    first_page: u64,
    region: &Region<RegionFile>,
    arm: bool,
) {
    let (start, end) = range;
    let end_page = first_page + ((end - start) / mem::PAGE) as u64;
    let (mut from, mut to) = (0, 0);
    let scan_run = |from: u64, to: u64| {
        let address = |page: u64| start + (page - first_page) as usize * mem::PAGE;
        let failed = pagemap.scan(address(from), address(to), arm, &mut |written, behind| {
            let first = first_page + ((written - start) / mem::PAGE) as u64;
            region.mark_dirty(first, ((behind - written) / mem::PAGE) as u64);
        });
        if let Err(errno) = failed {
            log::debug!(
                "scan of {:#x}-{:#x}: {errno}; taking every page there for written",
                address(from),
                address(to)
            );
            region.mark_dirty(from, to - from);
        }
    };
    region.each_resident_window(|window| {
        let (first, behind) = (window.max(first_page), (window + WINDOW_PAGES).min(end_page));
        if first >= behind {
            return;
        }
        if first == to {
            to = behind;
            return;
        }
        if from < to {
            scan_run(from, to);
        }
        (from, to) = (first, behind);
    });
    if from < to {
        scan_run(from, to);
    }
}

/// Everything that any process of this host stored through a mapping of the region becomes a mark.
pub fn harvest(runtime: &Runtime, handle: &Handle) {
    {
        // While the table can't change, each address shows what its row says: a scan of what was mapped there before would
        // swallow another region's notes.
        let _table = runtime.mappings.write();
        let pieces = runtime.mappings.of_handle(handle.index);
        // In two passes (D3): a page that is mapped twice must not lose the tag of a store made through the one mapping while
        // the other is harvested.
        for mapping in &pieces {
            runtime.engine().clear_writers(mapping, handle);
        }
        for mapping in &pieces {
            runtime.engine().harvest_piece(mapping, handle);
        }
    }
    let region = &handle.region;
    if region.cache.bury_the_dead() {
        region.suspect_everything();
    }
    let peers = region.cache.peers();
    let marks = |tracking: Tracking| tracking == Tracking::Marks;
    let unarmed = runtime.engine().loses_arming() || peers.iter().any(|(_, tracking)| marks(*tracking));
    if unarmed && region.cache.control().cuts.load(Ordering::SeqCst) != 0 {
        // Somewhere a page may be mapped again, unprotected and without a mark: checksums settle it.
        region.suspect_everything();
    }
    for (pid, tracking) in peers {
        if tracking == Tracking::PageTables && !harvest_peer(pid, region) {
            region.suspect_everything();
        }
    }
}

/// Scans a peer's page tables. False if they can't be read.
fn harvest_peer(pid: i32, region: &Region<RegionFile>) -> bool {
    let Ok(mappings) = proc::shared_mappings(pid, region.cache.device, region.cache.inode) else {
        return false;
    };
    if mappings.is_empty() {
        return true;
    }
    let Ok(pagemap) = Pagemap::open(Some(pid)) else { return false };
    for mapping in mappings {
        // Without arming: the peer may have mapped something else there by now, whose notes are not ours to take. What it wrote
        // is named again next time, and dropped by its checksum, until it looks itself.
        scan_as(&pagemap, (mapping.start, mapping.end), mapping.offset / mem::PAGE as u64, region, false);
    }
    true
}
