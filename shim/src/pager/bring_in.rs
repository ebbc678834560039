//! Bringing pages in: from the server as they are at the view, from where they are pending, or as zeros.
//!
//! Owns: [`Claims`], and what is fetched for them. Called by: abi before a read, the sigsegv engine in a fault, view. Must not: keep a claim
//! over anything but one fetch.

use netmem_protocol::{Epoch, RegionId};

use super::page::Event;
use super::region::{Need, PagerError, Region, runs_of};
use super::table::{Board, Frames, SUM_ZERO, sum_of_page};
use crate::remote::PageSource;
use crate::sys::clock::Deadline;

/// Pages claimed and fetched together at the most.
const BRING_IN_PAGES: u64 = 1024;

/// Claims that go back if they were not settled.
pub(super) struct Claims<'a, C: Board + Frames> {
    region: &'a Region<C>,
    pub(super) pages: Vec<u64>,
    settled: usize,
}

impl<'a, C: Board + Frames> Claims<'a, C> {
    pub(super) fn of(region: &'a Region<C>) -> Self {
        Claims { region, pages: Vec::new(), settled: 0 }
    }

    /// Brings the pages, which are in order, from where they are; each is settled by `settle` with its checksum.
    pub(super) fn fetch(
        &mut self,
        source: &dyn PageSource,
        (from, epoch): (RegionId, Epoch),
        settle: impl Fn(u64, u64),
    ) -> Result<(), PagerError> {
        if self.pages.is_empty() {
            return Ok(());
        }
        let mut failed = None;
        source.fetch(from, epoch, &runs_of(&self.pages), &mut |span, _| {
            if failed.is_some() {
                return;
            }
            let cache = &self.region.cache;
            let installed = span.data.map_or(Ok(()), |data| cache.install(span.run.first.0, data));
            let there = installed.map_or_else(|(there, _)| there, |()| u64::from(span.run.count));
            failed = installed.err().map(|(_, errno)| errno);
            for (at, (page, data)) in span.pages().take(there as usize).enumerate() {
                self.settled += 1;
                settle(page, sum_of_page(data, span.sum(at)));
            }
        })?;
        failed.map_or(Ok(()), |errno| Err(PagerError::Cache(errno)))
    }
}

impl<C: Board + Frames> Drop for Claims<'_, C> {
    fn drop(&mut self) {
        for page in &self.pages[self.settled..] {
            self.region.settle(*page, Event::Release);
        }
    }
}

impl<C: Board + Frames> Region<C> {
    /// Makes every page of `first..end` present, or known to be zeros. With `for_write` zeros become present as well, so
    /// that nobody installs anything over what the caller is about to write.
    pub fn bring_in(
        &self,
        source: &dyn PageSource,
        first: u64,
        end: u64,
        for_write: bool,
        deadline: Deadline,
    ) -> Result<(), PagerError> {
        let mut at = first;
        let end = if for_write { end } else { end.min(self.fetchable().max(first)) };
        while at < end {
            let stop = end.min(at + BRING_IN_PAGES);
            while let Some(busy) = self.bring_in_once(source, at, stop, for_write)? {
                self.wait_for(busy, deadline)?;
            }
            at = stop;
        }
        Ok(())
    }

    /// Brings in those of `pages`, which are in order one way or the other, that the server has and nobody else is bringing in.
    pub fn prefetch(&self, source: &dyn PageSource, pages: &[u64]) -> Result<(), PagerError> {
        let _quiet = crate::sys::signal::SignalMask::block_all();
        let (mut claims, mut home) = (Claims::of(self), Claims::of(self));
        for page in pages {
            match self.need(*page)? {
                Need::Fetch => claims.pages.push(*page),
                Need::Home => home.pages.push(*page),
                Need::Zeros => self.settle(*page, Event::Release),
                Need::Nothing | Need::Wait => {}
            }
        }
        claims.pages.sort_unstable();
        home.pages.sort_unstable();
        self.fetch_home(source, &mut home)?;
        self.fetch_claimed(source, self.view(), &mut claims)
    }

    /// One attempt at up to `BRING_IN_PAGES` pages; returns a page to wait for, if any.
    fn bring_in_once(
        &self,
        source: &dyn PageSource,
        first: u64,
        end: u64,
        for_write: bool,
    ) -> Result<Option<u64>, PagerError> {
        if self.all_present(first, end) {
            return Ok(None);
        }
        // A signal handler that touches one of these pages would wait for the thread it interrupted.
        let _quiet = crate::sys::signal::SignalMask::block_all();
        let (mut claims, mut home) = (Claims::of(self), Claims::of(self));
        let mut busy = None;
        for page in first..end {
            match self.need(page)? {
                Need::Nothing => {}
                Need::Fetch => claims.pages.push(page),
                Need::Home => home.pages.push(page),
                Need::Zeros if for_write => self.settle_installed(page, SUM_ZERO),
                Need::Zeros => self.settle(page, Event::Release),
                Need::Wait => busy = Some(page),
            }
        }
        self.fetch_home(source, &mut home)?;
        let epoch = self.view();
        match self.fetch_claimed(source, epoch, &mut claims) {
            Ok(()) => Ok(busy),
            // The view moved on meanwhile and the server let go of the old one; these pages are the same in the new one, or
            // will be asked for again.
            Err(error) if error.is_stale() => {
                drop(claims);
                if self.view() == epoch {
                    self.refresh(source)?;
                }
                Ok(Some(first))
            }
            Err(error) => Err(error),
        }
    }

    fn fetch_claimed(
        &self,
        source: &dyn PageSource,
        epoch: Epoch,
        claims: &mut Claims<'_, C>,
    ) -> Result<(), PagerError> {
        claims.fetch(source, (self.id, epoch), |page, sum| self.settle_installed(page, sum))
    }
}
