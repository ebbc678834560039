//! The view: which epoch a host sees, and how it moves.
//!
//! Owns: refresh. Called by: open, MS_INVALIDATE, netmem_refresh, and a commit that met another host's. Must not: punch: a
//! page that changed is patched where it lies, the differing bytes only, so that no store of this host is lost.

use core::sync::atomic::Ordering;

use netmem_protocol::control::Changes;
use netmem_protocol::{Epoch, FRAME_PAGES_MAX, PAGE_SIZE, PageIndex};

use super::page::{Event, State};
use super::region::{PagerError, Region, runs_of};
use super::table::{Board, CHUNK_PAGES, Frames, HostLock, SUM_UNKNOWN, SUM_ZERO, page_sum};
use crate::remote::PageSource;
use crate::sys::clock::Deadline;

/// What [`Control::behind`](super::table::Control::behind) says where no page was brought further than the view yet.
pub const BEHIND: u64 = 1;

/// Keeps pages from being installed while it lives (C2).
pub struct ClosedGate<'a, C: Board + Frames>(&'a Region<C>);

impl<'a, C: Board + Frames> ClosedGate<'a, C> {
    /// Closes it. The caller holds the region's maintenance lock, so nobody else has it closed but the dead.
    pub fn close(region: &'a Region<C>) -> Self {
        region.cache.control().gate.store(region.cache.me() as u64 + 1, Ordering::SeqCst);
        ClosedGate(region)
    }

    /// Waits for every claim in `first..end` that was made before the gate closed. Chunks that were never used have none.
    pub fn drain(&self, first: u64, end: u64) -> Result<(), PagerError> {
        for number in self.0.used_chunks() {
            let chunk = self.0.cache.chunk(number)?;
            let start = number * CHUNK_PAGES;
            for page in first.max(start)..end.min(start + CHUNK_PAGES) {
                if chunk.entries[(page % CHUNK_PAGES) as usize].state() == State::Claimed {
                    // Its owner is in a fetch, which has a deadline of its own.
                    self.0.wait_for_claim(page, Deadline::after(None))?;
                }
            }
        }
        Ok(())
    }
}

impl<C: Board + Frames> Drop for ClosedGate<'_, C> {
    fn drop(&mut self) {
        let gate = &self.0.cache.control().gate;
        gate.store(0, Ordering::SeqCst);
        self.0.cache.wake(gate);
    }
}

impl<C: Board + Frames> Region<C> {
    /// Moves the view to the newest epoch. What this host stored and has not committed stays.
    pub fn refresh(&self, source: &dyn PageSource) -> Result<(), PagerError> {
        let _one_at_a_time = self.maintenance.lock();
        let _host = HostLock::take(&self.cache)?;
        self.refresh_locked(source)
    }

    /// The same with the maintenance lock held.
    pub fn refresh_locked(&self, source: &dyn PageSource) -> Result<(), PagerError> {
        self.settle_unresolved(source)?;
        let half_way = Epoch(self.cache.control().behind.load(Ordering::SeqCst));
        if half_way.0 > BEHIND {
            // Some pages are at that epoch already. All have to be, before there can be talk of a newer one.
            match self.move_view(source, half_way) {
                // Nobody can tell any more what another host stored in between into pages that were stored into here.
                Err(error) if error.is_stale() => {}
                moved => moved?,
            }
        }
        self.move_view(source, Epoch(0))
    }

    fn move_view(&self, source: &dyn PageSource, until: Epoch) -> Result<(), PagerError> {
        let control = self.cache.control();
        let from = self.view();
        let changes = source.changes(self.id, from, until)?;
        if changes.epoch == from && changes.runs.is_empty() {
            control.behind.store(0, Ordering::SeqCst);
            return Ok(());
        }
        control.behind.store(changes.epoch.0.max(BEHIND), Ordering::SeqCst);
        let gate = ClosedGate::close(self);
        for run in &changes.runs {
            gate.drain(run.first.0, run.end())?;
        }
        // A file that grew must have the pages before they can be patched; one that shrank is cut after.
        self.follow_growth(changes.size)?;
        self.patch_changed(source, from, &changes)?;
        self.follow_cut(&gate, changes.size)?;
        control.server_size.store(changes.size, Ordering::SeqCst);
        let cut = control.cut.load(Ordering::SeqCst);
        control.fetchable.store(PageIndex::ceil(changes.size.min(cut)).0, Ordering::SeqCst);
        control.view.store(changes.epoch.0, Ordering::SeqCst);
        control.behind.store(0, Ordering::SeqCst);
        drop(gate);
        source.view(self.id, changes.epoch)?;
        Ok(())
    }

    fn patch_changed(
        &self,
        source: &dyn PageSource,
        from: Epoch,
        changes: &Changes,
    ) -> Result<(), PagerError> {
        let mut here = Vec::new();
        for run in &changes.runs {
            // Only used chunks can hold pages; a change to a terabyte of absent ones costs nothing.
            for number in self.used_chunks() {
                let start = number * CHUNK_PAGES;
                let chunk = self.cache.chunk(number)?;
                for page in run.first.0.max(start)..run.end().min(start + CHUNK_PAGES) {
                    if chunk.entries[(page % CHUNK_PAGES) as usize].state() == State::Present {
                        here.push(page);
                    }
                }
            }
        }
        here.sort_unstable();
        here.dedup();
        for batch in here.chunks(FRAME_PAGES_MAX as usize) {
            self.patch_batch(source, from, changes, batch)?;
        }
        Ok(())
    }

    fn patch_batch(
        &self,
        source: &dyn PageSource,
        from: Epoch,
        changes: &Changes,
        batch: &[u64],
    ) -> Result<(), PagerError> {
        // The base of a page that nobody stored into is what lies here; the base of any other one is on the server.
        let mut bases = vec![0u8; batch.len() * PAGE_SIZE];
        let mut ask = Vec::new();
        for (page, base) in batch.iter().zip(bases.chunks_exact_mut(PAGE_SIZE)) {
            self.cache.read(*page, base)?;
            if self.with_entry(*page, |entry| entry.sum.load(Ordering::Acquire))? != page_sum(base) {
                ask.push(*page);
            }
        }
        if changes.base_kept && !ask.is_empty() {
            source.fetch(self.id, from, &runs_of(&ask), &mut |span| {
                for (page, data) in span.pages() {
                    if let Ok(i) = batch.binary_search(&page) {
                        let base = &mut bases[i * PAGE_SIZE..(i + 1) * PAGE_SIZE];
                        match data {
                            Some(data) => base.copy_from_slice(data),
                            None => base.fill(0),
                        }
                    }
                }
            })?;
        }
        let mut failed = None;
        let mut patch = |page: u64, data: Option<&[u8; PAGE_SIZE]>| {
            let Ok(i) = batch.binary_search(&page) else { return };
            let zeros = [0u8; PAGE_SIZE];
            let new = data.unwrap_or(&zeros);
            let sum = data.map_or(SUM_ZERO, |data| page_sum(data));
            if self.with_entry(page, |entry| entry.sum.load(Ordering::Acquire)) == Ok(sum) {
                // Its base is this already: it did not change, or a move of the view that broke had come as far as this.
                return;
            }
            let without_base = !changes.base_kept && ask.binary_search(&page).is_ok();
            if without_base {
                // Which bytes are ours can't be told any more: ours stay, and go up with the next commit.
                self.forget_base(page);
                self.mark_dirty(page, 1);
                return;
            }
            let Some(base) = bases[i * PAGE_SIZE..].first_chunk::<PAGE_SIZE>() else { return };
            if let Err(errno) = self.cache.merge(page, base, new) {
                failed = Some(errno);
                return;
            }
            let unknown =
                self.with_entry(page, |entry| entry.sum.swap(sum, Ordering::AcqRel)) == Ok(SUM_UNKNOWN);
            if unknown {
                self.mark_dirty(page, 1);
            }
        };
        source.fetch(self.id, changes.epoch, &runs_of(batch), &mut |span| {
            span.pages().for_each(|(page, data)| patch(page, data));
        })?;
        failed.map_or(Ok(()), |errno| Err(PagerError::Cache(errno)))
    }

    fn follow_growth(&self, server_size: u64) -> Result<(), PagerError> {
        if self.cache.control().size_changed.load(Ordering::SeqCst) != 0 {
            return Ok(());
        }
        let mut size = self.cache.size()?;
        // A write of this host may make the file longer meanwhile.
        while size < server_size && !self.cache.resize(size, server_size)? {
            size = self.cache.size()?;
        }
        Ok(())
    }

    /// Gives the file the server's size, if that is smaller and nothing was written behind it here.
    fn follow_cut(&self, gate: &ClosedGate<'_, C>, server_size: u64) -> Result<(), PagerError> {
        let control = self.cache.control();
        let size = self.cache.size()?;
        // A size that the server never had is this host's, not committed yet.
        let changed_here = control.size_changed.load(Ordering::SeqCst) != 0
            || size != control.server_size.load(Ordering::SeqCst);
        if size <= server_size || changed_here {
            return Ok(());
        }
        gate.drain(PageIndex::containing(server_size).0, PageIndex::ceil(size).0)?;
        control.cuts.fetch_add(1, Ordering::SeqCst);
        if self.cache.resize(size, server_size)? {
            self.reset_entries(PageIndex::ceil(server_size).0, PageIndex::ceil(size).0, Event::Cut);
        }
        Ok(())
    }
}
