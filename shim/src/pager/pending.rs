//! What was stored, is not committed, and has no room here: the server keeps it apart (DESIGN.md, "Eviction", P1 to P4).
//!
//! Owns: the region in which it is kept, pages on their way there and back. Called by: evict and room, bring_in, commit, view. Must not: let
//! anyone but this host see it.

use core::ops::Range;
use core::sync::atomic::Ordering;

use netmem_protocol::control::Commit;
use netmem_protocol::{
    CommitId, Epoch, FRAME_PAGES_MAX, PageBodyBuilder, RegionId, Run, RunKind, STAGE_FROM_PAGES_MAX,
};

use super::bring_in::Claims;
use super::entry::Entry;
use super::page::Event;
use super::region::{Need, PagerError, Region, runs_of};
use super::table::{Board, CHUNK_PAGES, Frames, HostLock, SUM_UNKNOWN, SUM_ZERO, WINDOW_PAGES};
use crate::remote::{PageSource, RemoteError, StageSink};
use crate::stats;
use crate::sys::clock::Deadline;

/// The place of what is pending is at another epoch than was known: it has to be asked for.
const EPOCH_UNKNOWN: u64 = u64::MAX;
/// Runs in one `StageFrom` at the most.
const RUNS_MAX: usize = 256;

impl<C: Board + Frames> Region<C> {
    /// Where pending pages are, to fetch them.
    pub fn pending_place(&self) -> (RegionId, Epoch) {
        (RegionId(self.cache.control().pending.load(Ordering::SeqCst)), Epoch(0))
    }

    /// Whether a page is pending.
    pub fn has_pending(&self) -> bool {
        let mut any = false;
        self.each_resident_window(0..u64::MAX, |first| any |= self.has_pending_in(first));
        any
    }

    /// Whether one of a window is.
    pub(super) fn has_pending_in(&self, first: u64) -> bool {
        let mut pages = first..first + WINDOW_PAGES;
        pages.any(|page| self.with_entry(page, Entry::is_pending).unwrap_or(true))
    }

    /// None is, and there is no place for them yet.
    pub fn forget_pending(&self) {
        let control = self.cache.control();
        for word in [&control.pending, &control.pending_epoch, &control.pending_end] {
            word.store(0, Ordering::SeqCst);
        }
    }

    /// P2: takes pages of `pages`, which lie in one window, out of the page cache whatever was stored in them, `most` at the most. What the
    /// server has not got goes to it before. Nothing while somebody commits or moves the view; `None` says so. Else as
    /// [`Region::evict`].
    pub fn evict_pending(
        &self,
        source: &dyn PageSource,
        pages: Range<u64>,
        most: u64,
        close: &dyn Fn(u64, u64) -> bool,
    ) -> Result<Option<u64>, PagerError> {
        let Some(_one_at_a_time) = self.maintenance.try_lock() else { return Ok(None) };
        let Some(_host) = HostLock::try_take(&self.cache) else { return Ok(None) };
        // P1: while nobody knows whether a commit happened, or it is not all here, no page leaves that it may be of.
        if self.unresolved.lock().is_some() || self.cache.control().behind.load(Ordering::SeqCst) != 0 {
            return Ok(None);
        }
        let send = |pages: &[(u64, u64)], data: &[u8]| self.send_pending(source, pages, data);
        self.evict_with(pages, (most, true), Some(&send), close).map(Some)
    }

    /// Puts pages, with their checksums, where pending ones are.
    fn send_pending(
        &self,
        source: &dyn PageSource,
        pages: &[(u64, u64)],
        data: &[u8],
    ) -> Result<(), PagerError> {
        if self.cache.control().pending.load(Ordering::SeqCst) == 0 {
            self.look_at_pending(source)?;
        }
        stats::add(&stats::PAGES_PENDING, pages.len() as u64);
        self.change_pending(source, &mut |sink, place| {
            let mut builder = PageBodyBuilder::default();
            let mut data = data;
            for part in pages.chunks(FRAME_PAGES_MAX as usize) {
                builder.clear();
                for (page, sum) in part {
                    builder.push_page(*page, (*sum != SUM_ZERO).then_some(*sum));
                }
                let (now, rest) = data.split_at(builder.data_pages() as usize * netmem_protocol::PAGE_SIZE);
                sink.stage(place, &builder, now)?;
                data = rest;
            }
            Ok(())
        })
    }

    /// Asks for the place of pending pages: finds or makes it.
    fn look_at_pending(&self, source: &dyn PageSource) -> Result<(), PagerError> {
        let control = self.cache.control();
        let known = RegionId(control.pending.load(Ordering::SeqCst));
        let (place, epoch) = source.keep(self.id, known)?;
        if known != RegionId(0) && place != known {
            // Not what this host put there: nothing of it may be shown.
            return Err(PagerError::Cache(crate::sys::errno::Errno(libc::EIO)));
        }
        control.pending_epoch.store(epoch.0, Ordering::SeqCst);
        control.pending.store(place.0, Ordering::SeqCst);
        Ok(())
    }

    /// Commits to the place of pending pages. The caller holds the region's locks, and nobody else does so: each is on the last.
    fn change_pending(
        &self,
        source: &dyn PageSource,
        stage: &mut dyn FnMut(&mut dyn StageSink, RegionId) -> Result<(), RemoteError>,
    ) -> Result<(), PagerError> {
        let control = self.cache.control();
        if control.pending_epoch.load(Ordering::SeqCst) == EPOCH_UNKNOWN {
            self.look_at_pending(source)?;
        }
        let place = RegionId(control.pending.load(Ordering::SeqCst));
        self.note_place(source);
        let base = Epoch(control.pending_epoch.load(Ordering::SeqCst));
        let commit =
            Commit { commit: CommitId(0), staged_pages: 0, base, strict: false, cut: None, size: None };
        let done = source.commit(&mut |sink| {
            stage(sink, place)?;
            Ok(vec![(place, commit.clone())])
        });
        match done {
            Ok(done) => {
                let epoch = done.first().map_or(base, |done| done.epoch);
                control.pending_epoch.store(epoch.0, Ordering::SeqCst);
                Ok(())
            }
            Err(failure) => {
                // It may have happened, or one of a process that was killed has: the next begins there.
                control.pending_epoch.store(EPOCH_UNKNOWN, Ordering::SeqCst);
                Err(failure.error.into())
            }
        }
    }

    /// Who uses what is pending sees to it that it is kept over a restart of the server, whoever made the place.
    pub fn note_place(&self, source: &dyn PageSource) {
        let (place, _) = self.pending_place();
        if self.noted.swap(place.0, Ordering::Relaxed) != place.0 {
            source.keeps(self.id, place);
        }
    }

    /// Brings pages home that are claimed, in order.
    pub(super) fn fetch_home(
        &self,
        source: &dyn PageSource,
        claims: &mut Claims<'_, C>,
    ) -> Result<(), PagerError> {
        if !claims.pages.is_empty() {
            self.note_place(source);
        }
        claims.fetch(source, self.pending_place(), |page, _| self.settle_home(page))
    }

    /// P4: brings those of these pages home that are pending, for who is about to change them where they lie. The caller holds the region's
    /// locks, so none leaves.
    pub(super) fn bring_home(&self, source: &dyn PageSource, runs: &[Run]) -> Result<(), PagerError> {
        if self.cache.control().pending.load(Ordering::SeqCst) == 0 {
            return Ok(());
        }
        let end = self.cache.control().pending_end.load(Ordering::SeqCst);
        for run in runs {
            for number in self.used_chunks() {
                let start = number * CHUNK_PAGES;
                let pages = run.first.0.max(start)..run.end().min(start + CHUNK_PAGES).min(end);
                self.bring_these_home(source, pages)?;
            }
        }
        Ok(())
    }

    fn bring_these_home(&self, source: &dyn PageSource, pages: Range<u64>) -> Result<(), PagerError> {
        let _quiet = crate::sys::signal::SignalMask::block_all();
        loop {
            let (mut home, mut busy) = (Claims::of(self), None);
            for page in pages.clone() {
                if !self.with_entry(page, Entry::is_pending)? {
                    continue;
                }
                match self.need(page)? {
                    Need::Home => home.pages.push(page),
                    Need::Wait => busy = Some(page),
                    Need::Fetch | Need::Zeros => self.settle(page, Event::Release),
                    Need::Nothing => {}
                }
            }
            self.fetch_home(source, &mut home)?;
            // Nobody waits for another's claim with one of his own.
            drop(home);
            let Some(busy) = busy else { return Ok(()) };
            self.wait_for(busy, Deadline::after(None))?;
        }
    }

    /// P3: what is pending of these pages is part of a commit: at the server, from where it is.
    pub(super) fn stage_pending(
        sink: &mut dyn StageSink,
        (region, place): (RegionId, RegionId),
        pages: &[u64],
    ) -> Result<(), RemoteError> {
        for part in pages.chunks(STAGE_FROM_PAGES_MAX as usize) {
            for runs in runs_of(part).chunks(RUNS_MAX) {
                sink.stage_from(region, place, runs)?;
            }
        }
        Ok(())
    }

    /// P3: these pages were pending and are committed, and the view is that commit's. Their bases are not known here.
    pub(super) fn no_longer_pending(&self, sent: &[(u64, u64)]) {
        for (page, _) in sent.iter().filter(|(_, sum)| *sum == SUM_UNKNOWN) {
            // The file may be longer here than it was at the server.
            self.cache.control().fetchable.fetch_max(page + 1, Ordering::SeqCst);
            let _ = self.with_entry(*page, Entry::clear_pending);
        }
    }

    /// What was pending is given up where it was. Whoever brings a page home has it first. It is no harm if this fails.
    pub(super) fn empty_pending(&self, source: &dyn PageSource, pages: &[u64], deadline: Deadline) {
        let is_over = |page: &&u64| !self.with_entry(**page, Entry::is_pending).unwrap_or(true);
        let pages: Vec<u64> = pages.iter().filter(is_over).copied().collect();
        for page in &pages {
            if self.wait_for_claim(*page, deadline).is_err() {
                return;
            }
        }
        let emptied = self.change_pending(source, &mut |sink, place| {
            for part in pages.chunks(FRAME_PAGES_MAX as usize) {
                let mut builder = PageBodyBuilder::default();
                part.iter().for_each(|page| builder.push(*page, RunKind::Zero));
                sink.stage(place, &builder, &[])?;
            }
            Ok(())
        });
        // What it was before is nobody's any more.
        let (place, epoch) =
            (self.pending_place().0, self.cache.control().pending_epoch.load(Ordering::SeqCst));
        if let Err(error) = emptied.and_then(|()| Ok(source.view(place, Epoch(epoch))?)) {
            crate::log::debug!("region {}: what was pending stays where it was: {error}", self.id);
        }
    }
}
