//! Making room in the page cache: whoever is about to bring pages in takes others out before, if the budget wants it.
//!
//! Owns: whose turn it is to lose pages. Called by: handle before a fetch, the uffd engines before they claim. Must not: wait for anything
//! that may wait for the caller: locks are tried, and no claim is held.

use core::sync::atomic::Ordering;
use core::time::Duration;
use std::time::Instant;

use netmem_protocol::PAGE_SIZE;

use super::cache_file::RegionFile;
use super::{Handle, Runtime, handle};
use crate::engine::harvest;
use crate::log;
use crate::pager::table::{Board, Tracking, WINDOW_PAGES};
use crate::pager::Region;
use crate::stats;
use crate::sync::QuietGuard;
use crate::sys::clock::monotonic_ns;
use crate::sys::{file, futex};

/// How long somebody waits for others who make room, or who commit what could leave.
const PATIENCE: Duration = Duration::from_millis(200);
/// Between two looks.
const POLL: Duration = Duration::from_micros(300);
/// After a round without a page to take out, the next one comes so many times later as it took.
const REST: u32 = 20;

/// What came of a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Round {
    /// Pages went, or need not go.
    Done,
    /// Somebody commits, or moves a view.
    Busy,
    /// Nothing that is here may go.
    Nothing,
}

/// Makes room for so many pages. While others make room, or commit what could go, this waits a little; then the budget is exceeded.
pub fn make(runtime: &'static Runtime, pages: u64) {
    let budget = &runtime.budget;
    if !budget.is_short_of(pages) || !budget.works {
        return;
    }
    let began = Instant::now();
    while budget.is_short_of(pages) && monotonic_ns() >= budget.again_at.load(Ordering::Relaxed) {
        let round = Instant::now();
        let maker = Maker::begin(runtime);
        match maker.as_ref().map_or(Round::Busy, |maker| maker.make(pages)) {
            Round::Done => {}
            Round::Nothing => return budget.rest(round.elapsed() * REST),
            Round::Busy if began.elapsed() > PATIENCE => return,
            Round::Busy => {
                drop(maker);
                futex::pause(POLL);
            }
        }
    }
}

/// The one thread of the host that makes room.
struct Maker {
    runtime: &'static Runtime,
    _quiet: crate::sys::signal::SignalMask,
}

impl Drop for Maker {
    fn drop(&mut self) {
        file::unlock(&self.runtime.directory.budget_file);
        self.runtime.budget.maker.store(0, Ordering::SeqCst);
    }
}

impl Maker {
    fn begin(runtime: &'static Runtime) -> Option<Maker> {
        // A handler that touched a page that this thread takes out would wait for it.
        let quiet = crate::sys::signal::SignalMask::block_all();
        let me = rustix::process::getpid().as_raw_nonzero().get();
        let maker = &runtime.budget.maker;
        // In this process first: its threads share the lock's description.
        let free = |now: i32| (now != me).then_some(me);
        maker.fetch_update(Ordering::SeqCst, Ordering::SeqCst, free).ok()?;
        if !file::try_lock_exclusive(&runtime.directory.budget_file) {
            maker.store(0, Ordering::SeqCst);
            return None;
        }
        Some(Maker { runtime, _quiet: quiet })
    }

    /// One round over this process's regions.
    fn make(&self, pages: u64) -> Round {
        let budget = &self.runtime.budget;
        let pinned = || handle::all().filter_map(|handle| Some((handle, handle.pin().ok()?)));
        let mut regions = 0;
        for (handle, _pin) in pinned() {
            budget.look(handle);
            regions += 1;
        }
        // Some more than is wanted now, so that the next one who comes need not begin again.
        let wanted = pages + budget.batch();
        let mut round = if budget.is_short_of(pages) { Round::Nothing } else { return Round::Done };
        for turn in 0..2 {
            for (handle, _pin) in pinned() {
                if !budget.is_short_of(wanted) {
                    return Round::Done;
                }
                let want = (budget.used() + wanted * PAGE_SIZE as u64 - budget.limit()) / PAGE_SIZE as u64 + 1;
                // At first each gives its part.
                let want = if turn == 0 { want.div_ceil(regions) } else { want };
                match self.take_from(handle, want) {
                    None if round == Round::Nothing => round = Round::Busy,
                    None | Some(0) => {}
                    Some(_) => round = Round::Done,
                }
            }
        }
        round
    }

    /// Takes so many pages out of a region. `None` if somebody is at it.
    fn take_from(&self, handle: &'static Handle, want: u64) -> Option<u64> {
        let locks = Locks::try_take(handle)?;
        if handle.region.cache.someone_must_be_asked() {
            return Some(0);
        }
        if self.runtime.engine().tracking() == Tracking::PageTables {
            // What was stored is marked, and not looked at.
            harvest::mark_for_room(self.runtime, handle);
        }
        let left = take_out(&handle.region, want);
        drop(locks);
        stats::add(&stats::PAGES_EVICTED, left);
        self.runtime.budget.look(handle);
        Some(left)
    }
}

/// A region's locks, which keep commits, moves of the view and changes of size away. Tried, never waited for: who has them may wait for
/// whoever makes room.
struct Locks<'a> {
    cache: &'a RegionFile,
    _process: QuietGuard<'a, ()>,
}

impl<'a> Locks<'a> {
    fn try_take(handle: &'a Handle) -> Option<Locks<'a>> {
        let process = handle.region.maintenance.try_lock()?;
        let cache = &handle.region.cache;
        cache.try_lock_host().then_some(Locks { cache, _process: process })
    }
}

impl Drop for Locks<'_> {
    fn drop(&mut self) {
        crate::pager::Frames::unlock_host(self.cache);
    }
}

/// Goes around a region's pages from where the last one stopped, twice at the most: a young page is spared the first time.
fn take_out(region: &Region<RegionFile>, want: u64) -> u64 {
    let mut windows = Vec::new();
    region.each_resident_window(0..u64::MAX, |window| windows.push(window));
    let hand = &region.cache.control().hand;
    let start = windows.partition_point(|window| *window + WINDOW_PAGES <= hand.load(Ordering::Relaxed));
    let mut left = 0;
    for window in windows[start..].iter().chain(&windows).chain(&windows) {
        if left >= want {
            break;
        }
        match region.evict(*window..window + WINDOW_PAGES, want - left, &|_, _| true) {
            Ok(gone) => left += gone,
            Err(error) => {
                log::debug!("{}: pages could not be taken out: {error}", region.id);
                break;
            }
        }
        hand.store(window + if left >= want { 0 } else { WINDOW_PAGES }, Ordering::Relaxed);
    }
    left
}
