//! Size and holes: what a program does to the shape of a file.
//!
//! Owns: truncation and punching, so that a hole the program made is never taken for an absent page. Called by: abi. Must
//! not: tell the server; the next commit does.

use core::sync::atomic::Ordering;

use netmem_protocol::{PAGE_SIZE, PageIndex};

use super::evict::Use;
use super::page::Event;
use super::region::{PagerError, Region};
use super::table::{Board, CHUNK_PAGES, Frames, HostLock};
use super::view::ClosedGate;
use crate::remote::PageSource;
use crate::sys::clock::Deadline;

impl<C: Board + Frames> Region<C> {
    /// ftruncate(2).
    pub fn truncate(&self, source: &dyn PageSource, size: u64, deadline: Deadline) -> Result<(), PagerError> {
        let tail = PageIndex::containing(size).0;
        // It must be here still when it is cut.
        let _tail = Use::begin(&self.cache, tail, tail + 1);
        if !size.is_multiple_of(PAGE_SIZE as u64) {
            // The rest of the last page becomes zeros, so the page must be here to be zeroed and sent.
            self.bring_in(source, tail, tail + 1, false, deadline)?;
        }
        let _one_at_a_time = self.maintenance.lock();
        let _host = HostLock::take(&self.cache)?;
        let control = self.cache.control();
        let mut before = self.cache.size()?;
        // A size that it has or that is larger: a write may make the file longer meanwhile, and must not be cut off again.
        while size >= before {
            if self.cache.resize(before, size)? {
                control.size_changed.fetch_max((size > before).into(), Ordering::SeqCst);
                return Ok(());
            }
            before = self.cache.size()?;
        }
        // What becomes of a commit whose answer was lost is settled first: settled later, it would take this cut for its own.
        self.settle_unresolved(source)?;
        let gate = ClosedGate::close(self);
        let end = PageIndex::ceil(before).0.max(self.fetchable());
        gate.drain(tail, end)?;
        // From here on the pages behind are zeros for whoever asks (C4): first the mark, then the file.
        control.fetchable.fetch_min(PageIndex::ceil(size).0, Ordering::SeqCst);
        control.pending_end.fetch_min(PageIndex::ceil(size).0, Ordering::SeqCst);
        control.cut.fetch_min(size, Ordering::SeqCst);
        control.size_changed.store(1, Ordering::SeqCst);
        control.cuts.fetch_add(1, Ordering::SeqCst);
        self.cache.set_size(size)?;
        self.reset_entries(PageIndex::ceil(size).0, end, Event::Cut);
        self.mark_dirty(tail, 1);
        Ok(())
    }

    /// fallocate(FALLOC_FL_PUNCH_HOLE) and madvise(MADV_REMOVE). What a mapping stored behind the end of the file in its last page
    /// is nobody's, and goes with the rest.
    pub fn punch(
        &self,
        source: &dyn PageSource,
        offset: u64,
        length: u64,
        deadline: Deadline,
    ) -> Result<(), PagerError> {
        let end = offset.saturating_add(length).min(self.cache.size()?);
        if offset >= end {
            return Ok(self.cache.punch(offset, length)?);
        }
        let (first_whole, last_whole) = (PageIndex::ceil(offset).0, end / PAGE_SIZE as u64);
        let _edges = [offset, end].map(|edge| {
            let page = PageIndex::containing(edge).0;
            Use::begin(&self.cache, page, page + 1)
        });
        for edge in [offset, end] {
            if !edge.is_multiple_of(PAGE_SIZE as u64) {
                let page = PageIndex::containing(edge).0;
                self.bring_in(source, page, page + 1, true, deadline)?;
            }
        }
        let _one_at_a_time = self.maintenance.lock();
        let _host = HostLock::take(&self.cache)?;
        let gate = ClosedGate::close(self);
        gate.drain(first_whole, last_whole)?;
        // Pages behind the fetchable mark are zeros already; those before it become ours, with a base nobody knows here.
        let known = last_whole.min(self.fetchable());
        for page in first_whole..known {
            self.note_resident(page)?;
            if !self.is_present(page) {
                self.forget_base(page);
            }
            self.reset_entry(page, Event::Overwrite)?;
        }
        self.cache.control().cuts.fetch_add(1, Ordering::SeqCst);
        self.cache.punch(offset, length)?;
        let first = PageIndex::containing(offset).0;
        self.mark_dirty(first, PageIndex::ceil(end).0 - first);
        drop(gate);
        Ok(())
    }

    /// A page that nobody brought in and that was written all the same is what the file holds.
    pub fn adopt_written(&self, page: u64) {
        self.forget_base(page);
        let _ = self.reset_entry(page, Event::Overwrite);
    }

    /// Applies an event to one entry. Behind a closed gate a claim can still be taken, to be given back at once by whoever then
    /// sees the gate (C2); that is waited for.
    fn reset_entry(&self, page: u64, event: Event) -> Result<(), PagerError> {
        while !self.with_entry(page, |entry| entry.reset(event, page))? {
            self.wait_for_claim(page, Deadline::after(None))?;
        }
        Ok(())
    }

    /// Applies an event to the entries of `first..end` that exist.
    pub fn reset_entries(&self, first: u64, end: u64, event: Event) {
        for number in self.used_chunks() {
            let start = number * CHUNK_PAGES;
            let Ok(chunk) = self.cache.chunk(number) else { continue };
            for page in first.max(start)..end.min(start + CHUNK_PAGES) {
                if !chunk.entries[(page % CHUNK_PAGES) as usize].reset(event, page) {
                    let _ = self.reset_entry(page, event);
                }
            }
        }
    }
}
