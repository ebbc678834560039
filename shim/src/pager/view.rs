//! The view: which epoch a host sees, and how it moves.
//!
//! Owns: refresh. Called by: open, MS_INVALIDATE, netmem_refresh, and a commit that met another host's. Must not: punch: a
//! page that changed is patched where it lies, the differing bytes only, so that no store of this host is lost.

use core::ops::Range;
use core::sync::atomic::Ordering;

use netmem_protocol::control::{Changes, Committed};
use netmem_protocol::{Epoch, FRAME_PAGES_MAX, PAGE_SIZE, PageIndex, PageSpan};

use super::page::{Event, State};
use super::region::{PagerError, Region, runs_of};
use super::table::{Board, CHUNK_PAGES, Frames, HostLock, SUM_UNKNOWN, page_sum};
use crate::remote::PageSource;
use crate::sys::clock::Deadline;
use crate::sys::errno::Errno;

/// What [`Control::behind`](super::table::Control::behind) says where no page was brought further than the view yet.
pub const BEHIND: u64 = 1;

type Page = [u8; PAGE_SIZE];

/// A commit of ours that the server merged with what others had changed since its base.
#[derive(Clone, Copy)]
pub(super) struct Own<'a> {
    /// The pages that went up, in order, and their checksums.
    pub sent: &'a [(u64, u64)],
    /// Where it cut the region before.
    pub cut: u64,
    /// What it became.
    pub done: Committed,
}

/// A move of the view under way.
struct Move<'a> {
    from: Epoch,
    changes: &'a Changes,
    /// Nothing at and behind this byte is the server's any more: it is cut off here, and there with the commit that comes or came.
    cut: u64,
    /// Where the file ends. What another host has behind that comes when the file grows.
    end: u64,
    /// The commit in whose place the move ends: right behind the epoch that it is made to.
    own: Option<Own<'a>>,
}

impl Move<'_> {
    fn is_own(&self, page: u64) -> bool {
        self.own.is_some_and(|own| own.sent.binary_search_by_key(&page, |(page, _)| *page).is_ok())
    }

    /// Bytes of a page that lie before `at`.
    fn before(at: u64, page: u64) -> usize {
        at.saturating_sub(page.saturating_mul(PAGE_SIZE as u64)).min(PAGE_SIZE as u64) as usize
    }
}

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
                if chunk.entries[(page % CHUNK_PAGES) as usize].state().is_taken() {
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
            match self.move_view(source, half_way, None) {
                // Nobody can tell any more what another host stored in between into pages that were stored into here.
                Err(error) if error.is_stale() => {}
                moved => moved?,
            }
        }
        self.move_view(source, Epoch(0), None)
    }

    /// Moves it to the epoch `until`, 0 for the newest; with `own`, which comes right behind that one, to that commit's.
    pub(super) fn move_view(
        &self,
        source: &dyn PageSource,
        until: Epoch,
        own: Option<Own<'_>>,
    ) -> Result<(), PagerError> {
        let control = self.cache.control();
        let from = self.view();
        let changes = source.changes(self.id, from, until)?;
        if own.is_none() && changes.epoch == from && changes.runs.is_empty() {
            control.behind.store(0, Ordering::SeqCst);
            return Ok(());
        }
        control.behind.store(changes.epoch.0.max(BEHIND), Ordering::SeqCst);
        // P4: only what is here can be patched. Before the gate is closed, behind which nothing comes in.
        self.bring_home(source, &changes.runs)?;
        let gate = ClosedGate::close(self);
        for run in &changes.runs {
            gate.drain(run.first.0, run.end())?;
        }
        let pending = control.cut.load(Ordering::SeqCst);
        let cut = own.map_or(pending, |own| own.cut);
        let (epoch, size) = own.map_or((changes.epoch, changes.size), |own| (own.done.epoch, own.done.size));
        let fetchable = PageIndex::ceil(size.min(pending)).0;
        let moved = Move { from, changes: &changes, cut, end: self.cache.size()?, own };
        // A file that grew must have the pages behind its old end before they can be patched, and all that can be had before it
        // grows is patched before; one that shrank is cut after.
        let (mut last, inside) = (None, PageIndex::ceil(moved.end).0);
        self.patch_changed(source, &moved, 0..inside, &mut last)?;
        self.follow_growth(&moved, (size, fetchable), last)?;
        let grown = Move { end: u64::MAX, ..moved };
        self.patch_changed(source, &grown, inside..u64::MAX, &mut None)?;
        if own.is_some() || until.0 == 0 || size >= self.cache.size()? {
            self.follow_cut(&gate, size)?;
            control.server_size.store(size, Ordering::SeqCst);
        }
        control.fetchable.store(fetchable, Ordering::SeqCst);
        control.view.store(epoch.0, Ordering::SeqCst);
        if let Some(own) = own {
            self.no_longer_pending(own.sent);
        }
        control.behind.store(0, Ordering::SeqCst);
        drop(gate);
        source.view(self.id, epoch)?;
        Ok(())
    }

    fn patch_changed(
        &self,
        source: &dyn PageSource,
        moved: &Move<'_>,
        pages: Range<u64>,
        last: &mut Option<Page>,
    ) -> Result<(), PagerError> {
        let mut here = Vec::new();
        // What was cut off here is not the server's any more; what was written there again goes up whole.
        let end = pages.end.min(PageIndex::ceil(moved.cut).0);
        for run in &moved.changes.runs {
            // Only used chunks can hold pages; a change to a terabyte of absent ones costs nothing.
            for number in self.used_chunks() {
                let start = number * CHUNK_PAGES;
                let chunk = self.cache.chunk(number)?;
                let first = run.first.0.max(start).max(pages.start);
                for page in first..run.end().min(start + CHUNK_PAGES).min(end) {
                    if chunk.entries[(page % CHUNK_PAGES) as usize].state() == State::Present {
                        here.push(page);
                    }
                }
            }
        }
        here.sort_unstable();
        here.dedup();
        for batch in here.chunks(FRAME_PAGES_MAX as usize) {
            self.patch_batch(source, moved, batch, last)?;
        }
        Ok(())
    }

    fn patch_batch(
        &self,
        source: &dyn PageSource,
        moved: &Move<'_>,
        batch: &[u64],
        last: &mut Option<Page>,
    ) -> Result<(), PagerError> {
        // The base of a page that nobody stored into is what lies here; the base of any other one is on the server.
        let mut bases = vec![[0u8; PAGE_SIZE]; batch.len()];
        let (mut ask, mut own) = (Vec::new(), Vec::new());
        for (page, base) in batch.iter().zip(&mut bases) {
            let is_own = moved.is_own(*page);
            self.cache.read(*page, base)?;
            if is_own || self.sum(*page)? != page_sum(base) {
                ask.push(*page);
            }
            own.extend(is_own.then_some(*page));
        }
        if moved.changes.base_kept {
            self.fetch_into(source, moved.from, &ask, |page, data| {
                batch.binary_search(&page).into_iter().for_each(|i| bases[i] = *data);
            })?;
        }
        let mut merged = vec![[0u8; PAGE_SIZE]; own.len()];
        if let Some(Own { done, .. }) = moved.own {
            self.fetch_into(source, done.epoch, &own, |page, data| {
                own.binary_search(&page).into_iter().for_each(|i| merged[i] = *data);
            })?;
        }
        let mut failed = None;
        self.fetch_into(source, moved.changes.epoch, batch, |page, new| {
            let Ok(i) = batch.binary_search(&page) else { return };
            let known = moved.changes.base_kept || ask.binary_search(&page).is_err();
            let merged = own.binary_search(&page).ok().map(|i| &merged[i]);
            let patched = self.patch(moved, page, known.then_some(bases[i]), (*new, merged), last);
            failed = failed.or(patched.err());
        })?;
        failed.map_or(Ok(()), |errno| Err(PagerError::Cache(errno)))
    }

    /// Changes one page where it lies. `merged` is what our own commit has made of it.
    fn patch(
        &self,
        moved: &Move<'_>,
        page: u64,
        base: Option<Page>,
        (mut new, merged): (Page, Option<&Page>),
        last: &mut Option<Page>,
    ) -> Result<(), Errno> {
        let kept = Move::before(moved.cut, page);
        new[kept..].fill(0);
        let mut base = base;
        if let Some(base) = &mut base {
            base[kept..].fill(0);
        }
        let sum = page_sum(merged.unwrap_or(&new));
        let inside = Move::before(moved.end, page);
        if inside < PAGE_SIZE {
            *last = Some(new);
        }
        if self.sum(page)? == sum {
            // Its base is this already: it did not change, or a move of the view that broke had come as far as this.
            return Ok(());
        }
        let Some(base) = base else {
            // Which bytes are ours can't be told any more: ours stay, and go up with the next commit.
            self.forget_base(page);
            self.mark_dirty(page, 1);
            return Ok(());
        };
        if let Some(merged) = merged {
            // What we sent is there, and the page may hold something newer, be it what it was before.
            for ((new, merged), base) in new.iter_mut().zip(merged).zip(&base) {
                *new = if new == merged { *new } else { *base };
            }
        }
        new[inside..].copy_from_slice(&base[inside..]);
        self.cache.merge(page, &base, &new)?;
        if self.with_entry(page, |entry| entry.sum.swap(sum, Ordering::AcqRel))? == SUM_UNKNOWN {
            self.mark_dirty(page, 1);
        }
        Ok(())
    }

    fn sum(&self, page: u64) -> Result<u64, Errno> {
        self.with_entry(page, |entry| entry.sum.load(Ordering::Acquire))
    }

    /// Fetches pages that are in order, zeros too, and asks nobody for none.
    fn fetch_into(
        &self,
        source: &dyn PageSource,
        epoch: Epoch,
        pages: &[u64],
        mut each: impl FnMut(u64, &Page),
    ) -> Result<(), PagerError> {
        if pages.is_empty() {
            return Ok(());
        }
        let sink = &mut |span: PageSpan<'_>, _| {
            span.pages().for_each(|(page, data)| each(page, data.unwrap_or(&[0; PAGE_SIZE])));
        };
        Ok(source.fetch(self.id, epoch, &runs_of(pages), sink)?)
    }

    /// Makes the file as long as another host made it, unless it was cut here since. Whoever reads behind its old end from then on
    /// finds what is there: absent pages count as fetchable before, and wait for the gate; the rest of the page in which it ended comes together with the size,
    /// in the place of what a mapping may have stored there.
    fn follow_growth(
        &self,
        moved: &Move<'_>,
        (size, fetchable): (u64, u64),
        last: Option<Page>,
    ) -> Result<(), PagerError> {
        let control = self.cache.control();
        let cut_here = control.cut.load(Ordering::SeqCst) != u64::MAX;
        if cut_here || moved.end >= size {
            return Ok(());
        }
        control.fetchable.fetch_max(fetchable, Ordering::SeqCst);
        let (page, inside) = (PageIndex::containing(moved.end).0, (moved.end % PAGE_SIZE as u64) as usize);
        let within = inside != 0 && self.is_present(page);
        let new = last.unwrap_or([0; PAGE_SIZE]);
        let whole = within && self.cache.append(moved.end, &new[inside..Move::before(size, page)])?;
        // A write of this host may make the file longer meanwhile.
        let mut here = self.cache.size()?;
        while here < size && !self.cache.resize(here, size)? {
            here = self.cache.size()?;
        }
        if within && !whole {
            let mut base = new;
            base[inside..].fill(0);
            self.cache.merge(page, &base, &new)?;
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
