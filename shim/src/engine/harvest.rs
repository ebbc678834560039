//! What was stored where: this process's mappings and those of living peers.
//!
//! Owns: turning written ranges into dirty marks. Called by: host before a commit, the engines before a range goes. Must not:
//! lose a range: a scan arms again in the same step, so what it names is known to nobody else.

use core::sync::atomic::Ordering;

use super::mappings::Mapping;
use crate::host::cache_file::RegionFile;
use crate::host::{Handle, Runtime};
use crate::log;
use crate::pager::evict::Use;
use crate::pager::table::{Tracking, WINDOW_PAGES};
use crate::pager::{Board, Region};
use crate::sys::errno::Errno;
use crate::sys::mem;
use crate::sys::pagemap::Pagemap;
use crate::sys::proc;

/// A range of addresses that shows a region from a page on.
#[derive(Clone, Copy)]
pub struct Shown {
    /// First byte, on a page.
    pub start: usize,
    /// First byte behind, on a page.
    pub end: usize,
    /// The region's page at `start`.
    pub first_page: u64,
}

impl Shown {
    fn of(mapping: &Mapping) -> Shown {
        Shown { start: mapping.start, end: mapping.end, first_page: mapping.first_page }
    }

    fn page_at(&self, address: usize) -> u64 {
        self.first_page + ((address - self.start) / mem::PAGE) as u64
    }

    fn address_of(&self, page: u64) -> usize {
        self.start + (page - self.first_page) as usize * mem::PAGE
    }

    /// Marks what is shown between two addresses, as far as it lies inside.
    fn mark(&self, from: usize, to: usize, region: &Region<RegionFile>) {
        let (from, to) = (from.max(self.start), to.min(self.end));
        if from < to {
            region.stored.store(true, Ordering::Relaxed);
            region.mark_dirty(self.page_at(from), ((to - from) / mem::PAGE) as u64);
        }
    }
}

/// Marks every written page of ranges that show the region, in the order of their addresses, and with `arm` arms them again. Only
/// windows in which a page ever was are looked at. Ranges that lie side by side are looked at with one call: a program may map
/// one file some thousand times (fsx does, and keeps the mappings).
pub fn scan(pagemap: &Pagemap, shown: &[Shown], region: &Region<RegionFile>, arm: bool) {
    let mut windows = Vec::new();
    let first = shown.iter().map(|piece| piece.first_page).min().unwrap_or(0);
    let end = shown.iter().map(|piece| piece.page_at(piece.end)).max().unwrap_or(0);
    region.each_resident_window(first..end, |window| windows.push(window));
    let mut span = Span { from: 0, to: 0, first: 0, behind: 0 };
    for (number, piece) in shown.iter().enumerate() {
        let end_page = piece.page_at(piece.end);
        let skip = windows.partition_point(|window| window + WINDOW_PAGES <= piece.first_page);
        for window in windows[skip..].iter().take_while(|window| **window < end_page) {
            let from = piece.address_of((*window).max(piece.first_page));
            let to = piece.address_of((window + WINDOW_PAGES).min(end_page));
            if span.to != from {
                span.scan(pagemap, shown, region, arm);
                span = Span { from, to, first: number, behind: number };
            }
            (span.to, span.behind) = (to, number + 1);
        }
    }
    span.scan(pagemap, shown, region, arm);
}

/// Addresses without a gap, and the ranges `first..behind` that show something there.
struct Span {
    from: usize,
    to: usize,
    first: usize,
    behind: usize,
}

impl Span {
    fn scan(&self, pagemap: &Pagemap, shown: &[Shown], region: &Region<RegionFile>, arm: bool) {
        if self.from == self.to {
            return;
        }
        let shown = &shown[self.first..self.behind];
        let scanned = pagemap.scan(self.from, self.to, arm, &mut |written, behind| {
            let skip = shown.partition_point(|piece| piece.end <= written);
            for piece in shown[skip..].iter().take_while(|piece| piece.start < behind) {
                piece.mark(written, behind, region);
            }
        });
        let Err(errno) = scanned else { return };
        if let [piece] = shown {
            log::debug!(
                "scan of {:#x}-{:#x}: {errno}; taking every page there for written",
                self.from,
                self.to
            );
            piece.mark(self.from, self.to, region);
            return;
        }
        // One of them can't be scanned; the others can.
        for (number, piece) in shown.iter().enumerate() {
            let (from, to) = (self.from.max(piece.start), self.to.min(piece.end));
            Span { from, to, first: number, behind: number + 1 }.scan(pagemap, shown, region, arm);
        }
    }
}

/// The same for mappings of this process, which are all of one region and shared.
pub fn scan_mappings(pagemap: &Pagemap, mappings: &[Mapping], region: &Region<RegionFile>) {
    let shown: Vec<Shown> = mappings.iter().map(Shown::of).collect();
    scan(pagemap, &shown, region, true);
}

/// What this process stored through its mappings of the region becomes marks, and is armed again.
fn harvest_own(
    runtime: &Runtime,
    handle: &Handle,
    and: impl FnOnce(&[Mapping]) -> Result<(), Errno>,
) -> Result<(), Errno> {
    let done = {
        // While the table can't change, each address shows what its row says: a scan of what was mapped there before would
        // swallow another region's notes.
        let _table = runtime.mappings.write();
        let mut pieces = runtime.mappings.of_handle(handle.index);
        pieces.retain(|mapping| !mapping.private);
        // Without its tag and not protected yet, a page that left and came back would be clean to everybody.
        let marks = runtime.engine().tracking().marks();
        let _stays = marks.then(|| Use::begin(&handle.region.cache, 0, u64::MAX));
        // In two passes (D3): a page that is mapped twice must not lose the tag of a store made through the one mapping while
        // the other is harvested.
        runtime.engine().clear_writers(&pieces, handle);
        runtime.engine().harvest_pieces(&pieces, handle);
        and(&pieces)
    };
    if runtime.engine().tracking().marks() {
        super::robust::keep_open(runtime);
    }
    done
}

/// The same, and nothing of the region is open to stores afterwards but pinned pages; EBUSY if something is.
pub fn close(runtime: &Runtime, handle: &Handle) -> Result<(), Errno> {
    harvest_own(runtime, handle, |pieces| {
        pieces.iter().try_for_each(|mapping| runtime.engine().close(mapping))
    })
}

/// Everything that any process of this host stored through a mapping of the region becomes a mark.
pub fn harvest(runtime: &Runtime, handle: &Handle) {
    let _ = harvest_own(runtime, handle, |_| Ok(()));
    let region = &handle.region;
    if region.cache.bury_the_dead() {
        region.suspect_everything();
    }
    let peers = region.cache.peers();
    let unarmed = runtime.engine().loses_arming() || peers.iter().any(|(_, tracking)| tracking.marks());
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
    let shown: Vec<Shown> = mappings
        .iter()
        .map(|mapping| Shown {
            start: mapping.start,
            end: mapping.end,
            first_page: mapping.offset / mem::PAGE as u64,
        })
        .collect();
    // Without arming: the peer may have mapped something else there by now, whose notes are not ours to take. What it wrote
    // is named again next time, and dropped by its checksum, until it looks itself.
    scan(&pagemap, &shown, region, false);
    true
}
