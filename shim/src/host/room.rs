//! Making room in the page cache: whoever is about to bring pages in takes others out before, if the budget wants it.
//!
//! Owns: whose turn it is to lose pages. Called by: handle before a fetch, the uffd engines before they claim. Must not: be entered with a
//! claim, or wait for a lock that the caller may hold.

use core::cell::Cell;
use core::sync::atomic::Ordering;
use core::time::Duration;
use std::time::Instant;

use netmem_protocol::PAGE_SIZE;

use super::{Handle, Runtime, closing, handle};
use crate::log;
use crate::pager::entry::SPARED_MOST;
use crate::pager::table::WINDOW_PAGES;
use crate::stats;
use crate::sys::clock::{monotonic_ns, thread_time};
use crate::sys::{file, futex};

/// How long somebody waits for others.
const PATIENCE: Duration = Duration::from_secs(1);
/// For how long the budget may be exceeded after somebody waited that long: others may be slow, or stopped while they make room.
const BUSY_REST: Duration = Duration::from_millis(100);
/// How long what is dirty stays after the server did not take it, the first time, and at the most; each time it is twice as long.
const SEND_PAUSES: [Duration; 2] = [Duration::from_millis(20), Duration::from_secs(1)];
/// Between two looks.
const POLL: Duration = Duration::from_micros(300);
/// What is taken out beyond what is wanted, as a part of the budget.
const SPARE_PART: u64 = 32;
/// Of what is dirty so many pages are taken out at the least, or this part of the budget: to send few costs as much as to send many, and
/// whoever needs room waits meanwhile.
const DIRTY_PAGES: u64 = 32;
const DIRTY_PART: u64 = 8;
/// After a round without a page to take out, the next one comes so many times later as it took of a processor.
const REST: u32 = 20;
/// And at the latest then.
const REST_LIMIT: Duration = Duration::from_millis(500);

/// Which pages may leave in a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Which {
    /// Those that are what they were, and that nobody suspects of something else.
    Clean,
    /// Those that are suspected, and turn out to be what they were.
    Suspected,
    /// Those that are not what they were.
    Dirty,
}

/// What came of a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Round {
    /// Pages went, or need not go.
    Done,
    /// Somebody else makes room, or commits what could go.
    Busy,
    /// Nothing that is here may go.
    Nothing,
}

/// Makes room for what is expected. While others make room, or commit what could go, this waits a little; then the budget is exceeded.
pub fn make(runtime: &'static Runtime) {
    let budget = &runtime.budget;
    if !budget.is_short() || !budget.works {
        return;
    }
    let began = Instant::now();
    while budget.is_short() && monotonic_ns() >= budget.again_at.load(Ordering::Relaxed) {
        let round = thread_time();
        let maker = Maker::begin(runtime);
        match maker.as_ref().map_or(Round::Busy, Maker::make) {
            Round::Done => {}
            Round::Nothing => {
                return budget.rest((thread_time().saturating_sub(round) * REST).min(REST_LIMIT));
            }
            Round::Busy if began.elapsed() > PATIENCE => return budget.rest(BUSY_REST),
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
    /// Some process did not close pages in time, or was committing when it was looked at.
    others: Cell<bool>,
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
        Some(Maker { runtime, others: Cell::new(false), _quiet: quiet })
    }

    /// One round over this process's regions: at first each gives its part of what is clean; then of what is marked, perhaps without reason;
    /// then of what is dirty, which the server keeps apart.
    fn make(&self) -> Round {
        let budget = &self.runtime.budget;
        let pinned = || handle::all().filter_map(|handle| Some((handle, handle.pin().ok()?)));
        let mut regions = 0;
        for (handle, _pin) in pinned() {
            budget.look(handle);
            regions += 1;
        }
        budget.bury_the_dead();
        let mut round = if budget.is_short() { Round::Nothing } else { return Round::Done };
        // Some more than is wanted now, so that the next one who comes need not begin again.
        let aim = budget.limit() - budget.limit() / SPARE_PART;
        let turns = [Which::Clean, Which::Clean, Which::Suspected, Which::Dirty];
        for (turn, which) in turns.into_iter().enumerate() {
            if which == Which::Dirty && !self.can_send() {
                break;
            }
            for (handle, _pin) in pinned() {
                let enough = if which == Which::Suspected { budget.limit() } else { aim };
                let over = budget.used().saturating_sub(enough);
                if over == 0 {
                    return Round::Done;
                }
                let want = over.div_ceil(PAGE_SIZE as u64);
                let want = match (turn, which) {
                    (0, _) => want.div_ceil(regions),
                    (_, Which::Dirty) => {
                        want.max((budget.limit() / DIRTY_PART / PAGE_SIZE as u64).min(DIRTY_PAGES))
                    }
                    _ => want,
                };
                if self.take_from(handle, want, which) > 0 {
                    round = Round::Done;
                }
            }
        }
        // What is flushing may leave when it is committed; and who was committing then may be done by now.
        let committing = || pinned().any(|(handle, _pin)| is_committing(handle));
        if round == Round::Nothing && (self.others.get() || committing()) {
            round = Round::Busy;
        }
        round
    }

    /// Whether the server can take what is dirty: it would be waited for with pages claimed.
    fn can_send(&self) -> bool {
        let budget = &self.runtime.budget;
        let now = monotonic_ns();
        if now < budget.send_again_at.load(Ordering::Relaxed) {
            return false;
        }
        let there = self.runtime.remote.is_there();
        if !there {
            self.cannot_send();
        }
        there
    }

    fn cannot_send(&self) {
        let budget = &self.runtime.budget;
        let failed = budget.send_failures.fetch_add(1, Ordering::Relaxed).min(10);
        let pause = (SEND_PAUSES[0] * (1 << failed)).min(SEND_PAUSES[1]);
        budget.send_again_at.store(monotonic_ns().saturating_add(pause.as_nanos() as u64), Ordering::Relaxed);
    }

    /// Takes so many pages out of a region.
    fn take_from(&self, handle: &'static Handle, want: u64, which: Which) -> u64 {
        let close = |first: u64, end: u64| {
            let closed = closing::close(self.runtime, handle, first, end);
            self.others.set(self.others.get() || !closed);
            closed
        };
        let region = &handle.region;
        // What is clean has two turns, and goes with the others at last.
        let times = if which == Which::Clean { 2 } else { SPARED_MOST + 1 };
        let left = region.take_out_round(want, times, &mut |window, most| {
            let pages = window..(window / WINDOW_PAGES + 1) * WINDOW_PAGES;
            if which != Which::Dirty {
                return region.evict(pages, most, which == Which::Suspected, &close).map(Some);
            }
            let left = region.evict_pending(&self.runtime.remote, pages, most, &close);
            match &left {
                Err(error) => {
                    log::error!(
                        "region {}: what is not committed stays in the page cache: {error}",
                        region.id
                    );
                    self.cannot_send();
                }
                Ok(None) => self.others.set(true),
                Ok(Some(_)) => self.runtime.budget.send_failures.store(0, Ordering::Relaxed),
            }
            left
        });
        stats::add(&stats::PAGES_EVICTED, left);
        self.runtime.budget.look(handle);
        left
    }
}

/// Whether a commit, or a move of the view, is under way in some process of the host.
fn is_committing(handle: &Handle) -> bool {
    let Some(_nobody_here) = handle.region.maintenance.try_lock() else { return true };
    handle.region.cache.is_locked_elsewhere()
}
