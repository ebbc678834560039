//! Pages that leave, where a touch of a hole in the file is no fault: mappings close them first.
//!
//! Owns: closing pages, and what a forked child makes of blocks that were open. Called by: Engine. Must not: leave a page accessible that is
//! not here, or drop a private copy.

use core::sync::atomic::Ordering;

use netmem_protocol::Run;

use super::super::mappings::Mapping;
use super::super::state::{COLD, WRITE};
use super::{Sigsegv, allowed};
use crate::host::Handle;
use crate::pager::page::State;
use crate::pager::region::runs_of;
use crate::sys::errno::Errno;
use crate::sys::{mem, signal};

impl Sigsegv {
    /// Makes pages of `first..end` that are about to leave inaccessible: with guards those alone, without them their blocks. What was stored into them is
    /// seen when they are out (E4). EBUSY where the kernel must be able to store at any moment, and of a private block that was opened: a
    /// guard would drop the copies in it, and without one nobody could tell them from pages that left.
    pub fn close_pages(&self, mapping: &Mapping, handle: &Handle, first: u64, end: u64) -> Result<(), Errno> {
        let _quiet = signal::SignalMask::block_all();
        let (first, end) = (first.max(mapping.first_page), end.min(mapping.end_page()));
        let (from, to) = (mapping.address_of(first), mapping.address_of(end - 1) + mem::PAGE);
        let state = mapping.state;
        for block in state.number(from)..=state.number(to - 1) {
            let (start, stop) = state.range(block, mapping.start, mapping.end);
            let now = state.lock(block);
            let mut next = now;
            let (low, high) = (mapping.page_at(start).max(first), (mapping.page_at(stop - 1) + 1).min(end));
            let leaving = leaving(handle, low, high);
            let closed = if now == COLD || leaving.is_empty() {
                // What is not here is guarded when it opens, or comes in with it.
                Ok(())
            } else if mapping.private || super::super::pins::covers(start, stop) {
                Err(Errno(libc::EBUSY))
            } else {
                let guard = |run: &Run| {
                    mem::guard_install(mapping.address_of(run.first.0), run.count as usize * mem::PAGE)
                };
                let refused = Err(Errno(libc::EINVAL));
                let guarded =
                    if self.guarded(mapping) { leaving.iter().try_for_each(guard) } else { refused };
                guarded.or_else(|_| {
                    next = COLD;
                    mem::mprotect(start, stop - start, libc::PROT_NONE)
                })
            };
            state.unlock(block, if closed.is_ok() { next } else { now });
            closed?;
        }
        Ok(())
    }

    /// A forked child has the parent's blocks, the writable ones too: they are its own stores to mark from now on.
    pub fn adopt_in_child(&self, mapping: &Mapping, handle: &Handle) -> Result<(), Errno> {
        for block in mapping.state.blocks_caught_by_fork() {
            // A thread of the parent was changing it, and there is no such thread here: back to what it was before.
            let (from, to) = mapping.state.range(block, mapping.start, mapping.end);
            let before = mapping.state.blocks[block].load(Ordering::SeqCst);
            if from < to {
                mem::mprotect(from, to - from, allowed(before, mapping))?;
            }
        }
        handle.region.cache.ask_before_pages_leave();
        self.close_what_left(mapping, handle)?;
        if mapping.private {
            return Ok(());
        }
        for (block, state) in mapping.state.blocks.iter().enumerate() {
            let (from, to) = mapping.state.range(block, mapping.start, mapping.end);
            if state.load(Ordering::SeqCst) == WRITE && from < to {
                let first = mapping.page_at(from);
                mark_patiently(handle, first, mapping.page_at(to - 1) + 1);
            }
        }
        Ok(())
    }

    /// What left between the fork and the moment from which this process was asked is closed.
    fn close_what_left(&self, mapping: &Mapping, handle: &Handle) -> Result<(), Errno> {
        if handle.region.departures(mapping.first_page, mapping.end_page()) == 0 {
            return Ok(());
        }
        for (block, state) in mapping.state.blocks.iter().enumerate() {
            let (from, to) = mapping.state.range(block, mapping.start, mapping.end);
            if mapping.private || from >= to || state.load(Ordering::SeqCst) == COLD {
                continue;
            }
            if !handle.region.all_present(mapping.page_at(from), mapping.page_at(to - 1) + 1) {
                mem::mprotect(from, to - from, libc::PROT_NONE)?;
                state.store(COLD, Ordering::SeqCst);
            }
        }
        Ok(())
    }
}

/// The pages of `first..end` that are leaving.
fn leaving(handle: &Handle, first: u64, end: u64) -> Vec<Run> {
    let is_leaving = |page: &u64| {
        handle.region.with_entry(*page, |entry| entry.state() == State::Leaving).unwrap_or(false)
    };
    runs_of(&(first..end).filter(is_leaving).collect::<Vec<_>>())
}

/// Marks every page of `first..end` that is here, as this process may store into it. False if one is leaving: it can't be marked, and may stay
/// all the same, accessible as it was. The caller has the block locked, so that what is absent here was so before.
pub(super) fn mark(handle: &Handle, first: u64, end: u64) -> bool {
    (first..end).all(|page| handle.region.mark_writer(page, 1) || handle.region.is_absent(page))
}

/// The same where there is no way back: who takes pages out gives up after a while, if they are not closed.
pub(super) fn mark_patiently(handle: &Handle, first: u64, end: u64) {
    while !mark(handle, first, end) {
        rustix::thread::sched_yield();
    }
}
