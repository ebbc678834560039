//! Pages that leave the page cache, so that others have room (DESIGN.md, "Eviction", E1 to E6).
//!
//! Owns: [`Region::evict`], and [`Use`], which keeps pages here. Called by: host::budget, and whoever lets the kernel at the cache file.
//! Must not: decide which region's turn it is.

use core::ops::Range;
use core::sync::atomic::Ordering;

use netmem_protocol::{PAGE_SIZE, PageIndex};

use super::page::Event;
use super::region::{PagerError, Region, runs_of};
use super::table::{
    Board, CHUNK_PAGES, Entry, Frames, InUse, SUM_ZERO, TAKING, WINDOW_PAGES, page_sum, window_in_chunk,
};
use crate::sys::errno::Errno;

/// Pages that do not leave while this lives, if they are here when they are looked at after it began.
pub struct Use<'a> {
    board: &'a dyn Board,
    which: InUse,
}

impl<'a> Use<'a> {
    /// Of pages `first..end`; nothing of an empty range.
    pub fn begin(board: &'a dyn Board, first: u64, end: u64) -> Self {
        Use { board, which: board.begin_use(first, end) }
    }
}

impl Drop for Use<'_> {
    fn drop(&mut self) {
        self.board.end_use(self.which);
    }
}

/// Pages that are claimed to be taken out, in order, and the checksums with which they may leave; they stay unless something else was said.
struct Leaving<'a, C: Board + Frames> {
    region: &'a Region<C>,
    pages: Vec<(u64, u64)>,
}

/// Puts pages, with their checksums, where the server keeps what is pending; the data is that of those which are not zeros.
pub(super) type SendPending<'a> = dyn Fn(&[(u64, u64)], &[u8]) -> Result<(), PagerError> + 'a;

impl<C: Board + Frames> Drop for Leaving<'_, C> {
    fn drop(&mut self) {
        self.keep(|_| true);
    }
}

impl<C: Board + Frames> Leaving<'_, C> {
    /// Those stay.
    fn keep(&mut self, which: impl Fn(u64) -> bool) {
        let region = self.region;
        self.pages.retain(|(page, _)| {
            let stays = which(*page);
            if stays {
                region.settle(*page, Event::Stay);
            }
            !stays
        });
    }

    /// A first look: what differs from its base by now need not go out to be put back. With `send` it goes to the server first, and leaves if
    /// it is the same still (P2).
    fn look(&mut self, send: Option<&SendPending<'_>>) -> Result<(), PagerError> {
        let (mut changed, mut copies) = (Vec::new(), Vec::new());
        for run in runs_of(&self.pages.iter().map(|(page, _)| *page).collect::<Vec<u64>>()) {
            let mut data = vec![0u8; run.count as usize * PAGE_SIZE];
            self.region.cache.read(run.first.0, &mut data)?;
            for (page, data) in (run.first.0..).zip(data.chunks_exact(PAGE_SIZE)) {
                let sum = page_sum(data);
                if sum != self.region.base(page)? {
                    changed.push((page, sum));
                    copies.extend_from_slice(if sum == SUM_ZERO { &[] } else { data });
                }
            }
        }
        let find = |page: u64| changed.binary_search_by_key(&page, |(page, _)| *page);
        let Some(send) = send.filter(|_| !changed.is_empty()) else {
            self.keep(|page| find(page).is_ok());
            changed.iter().for_each(|(page, _)| self.region.mark_dirty(*page, 1));
            return Ok(());
        };
        // A store that comes from here on is found by the second look.
        if let Err(error) = send(&changed, &copies) {
            changed.iter().for_each(|(page, _)| self.region.mark_dirty(*page, 1));
            return Err(error);
        }
        let end = changed.last().map_or(0, |(page, _)| page + 1);
        self.region.cache.control().pending_end.fetch_max(end, Ordering::SeqCst);
        for (page, sum) in &mut self.pages {
            if let Ok(at) = find(*page) {
                *sum = changed[at].1;
                self.region.with_entry(*page, Entry::set_pending)?;
            }
        }
        Ok(())
    }

    /// E4: out, and then the second look, which counts. Returns how many left.
    fn take_out(mut self) -> Result<u64, PagerError> {
        let mut left = 0;
        let all = core::mem::take(&mut self.pages);
        let mut sums = all.iter().map(|(_, sum)| *sum);
        for run in runs_of(&all.iter().map(|(page, _)| *page).collect::<Vec<u64>>()) {
            let (first, end) = (run.first.0, run.end());
            let mut held = vec![0u8; run.count as usize * PAGE_SIZE];
            let taken = self.region.cache.take_out(first, &mut held).unwrap_or_else(|errno| {
                crate::log::debug!("region {}: pages stay: {errno}", self.region.id);
                0
            });
            for ((page, sum), data) in (first..end).zip(&mut sums).zip(held.chunks_exact(PAGE_SIZE)) {
                if page >= first + taken {
                    self.region.settle(page, Event::Stay);
                    continue;
                }
                if page_sum(data) != sum {
                    self.region.put_back(page, data);
                    continue;
                }
                // It may lie behind what the server had when the file was opened: it went up since, or it would not be clean.
                if sum != SUM_ZERO && !self.region.with_entry(page, Entry::is_pending)? {
                    self.region.cache.control().fetchable.fetch_max(page + 1, Ordering::SeqCst);
                }
                self.region.settle(page, Event::Leave);
                left += 1;
            }
        }
        Ok(left)
    }
}

/// Takes pages out from one on, in its window, so many at the most, and says how many left; `None` while a commit is under way.
pub type Evict<'a> = dyn FnMut(u64, u64) -> Result<Option<u64>, PagerError> + 'a;

impl<C: Board + Frames> Region<C> {
    /// Goes around the region's pages from where the last one stopped, until so many left, and so often at the most. How many left.
    pub fn take_out_round(&self, want: u64, times: u64, evict: &mut Evict<'_>) -> u64 {
        let mut windows = Vec::new();
        self.each_resident_window(0..u64::MAX, |window| windows.push(window));
        let control = self.cache.control();
        let hand = control.hand.load(Ordering::Relaxed);
        let start = windows.partition_point(|window| *window + WINDOW_PAGES <= hand);
        let mut left = 0;
        let mut last = hand;
        for window in windows[start..].iter().chain((0..times).flat_map(|_| &windows)) {
            if left >= want {
                break;
            }
            if *window < last {
                control.clock.fetch_add(1, Ordering::Relaxed);
            }
            // Within the first window from where it stopped.
            let from = if last == hand { hand.max(*window) } else { *window };
            last = *window;
            control.hand.store(*window + WINDOW_PAGES, Ordering::Relaxed);
            match evict(from, want - left) {
                Ok(Some(gone)) => left += gone,
                Ok(None) => break,
                Err(error) => {
                    crate::log::debug!("region {}: pages could not be taken out: {error}", self.id);
                    break;
                }
            }
        }
        if left > 0 {
            control.clock.fetch_add(TAKING, Ordering::Relaxed);
        }
        left
    }

    /// How often pages left the windows of `first..end`: what was here before and after a read of the file was here all the time if this
    /// is the same (E2).
    pub fn departures(&self, first: u64, end: u64) -> u64 {
        let mut sum = 0;
        let mut page = first;
        while page < end {
            if let Ok(chunk) = self.cache.chunk(page / CHUNK_PAGES) {
                sum += chunk.departures[window_in_chunk(page)].load(Ordering::SeqCst);
            }
            page = (page / WINDOW_PAGES + 1) * WINDOW_PAGES;
        }
        sum
    }

    /// Takes pages of `pages`, which lie in one window, out of the page cache, `most` at the most: those that are in nobody's use and are what
    /// they were, and with `suspected` those, too, that are marked and may turn out to be so. Returns how many left. Nobody else does
    /// this on the host meanwhile. `close` makes the processes that have to be asked close those pages of a range that are leaving; false if
    /// one did not.
    pub fn evict(
        &self,
        pages: Range<u64>,
        most: u64,
        suspected: bool,
        close: &dyn Fn(u64, u64) -> bool,
    ) -> Result<u64, PagerError> {
        self.evict_with(pages, (most, suspected), None, close)
    }

    /// The same where the locks of the region are held, and what is dirty can be sent.
    pub(super) fn evict_with(
        &self,
        pages: Range<u64>,
        (most, suspected): (u64, bool),
        send: Option<&SendPending<'_>>,
        close: &dyn Fn(u64, u64) -> bool,
    ) -> Result<u64, PagerError> {
        let chunk = self.cache.chunk(pages.start / CHUNK_PAGES)?;
        let me = self.cache.me();
        let size = self.cache.size()?;
        let takings = self.cache.control().clock.load(Ordering::Relaxed) / TAKING;
        // What a mapping stored behind the end of the file in its last page is never the file's, and is not sent.
        let end =
            pages.end.min(if send.is_some() { size / PAGE_SIZE as u64 } else { PageIndex::ceil(size).0 });
        let mut leaving = Leaving { region: self, pages: Vec::new() };
        for page in pages.start..end {
            if leaving.pages.len() as u64 == most {
                // Where the hand goes on.
                self.cache.control().hand.store(page, Ordering::Relaxed);
                break;
            }
            let entry = &chunk.entries[(page % CHUNK_PAGES) as usize];
            // A hole is never claimed: a page that is found leaving, and a hole, is out (E6).
            if entry.may_be_evicted(suspected)
                && !self.cache.is_hole(page).unwrap_or(true)
                && entry.evict(me, page, suspected, takings)
            {
                leaving.pages.push((page, entry.sum.load(Ordering::Acquire)));
            }
        }
        leaving.look(send)?;
        let (Some((first, _)), Some((last, _))) = (leaving.pages.first(), leaving.pages.last()) else {
            return Ok(0);
        };
        let (first, end) = (*first, *last + 1);
        // C2 and E3: claimed, then looked.
        if self.cache.control().gate.load(Ordering::SeqCst) != 0 {
            return Ok(0);
        }
        if self.cache.in_use(first, end) {
            leaving.keep(|page| self.cache.in_use(page, page + 1));
        }
        // E2: before the first of them is a hole.
        chunk.departures[window_in_chunk(first)].fetch_add(1, Ordering::SeqCst);
        if leaving.pages.is_empty() || !close(first, end) {
            return Ok(0);
        }
        leaving.take_out()
    }

    /// E4: a page that somebody stored into goes where it was, whatever it takes.
    fn put_back(&self, page: u64, data: &[u8]) {
        let mut told = false;
        while let Err((_, errno)) = self.cache.install(page, data) {
            if !told {
                crate::log::error!("a page waits for room in the page cache: {errno}");
                told = true;
            }
            // Whoever makes room is another: this thread has the only copy.
            self.cache.wait(&self.cache.control().gate, 0, core::time::Duration::from_millis(1));
        }
        self.settle(page, Event::Stay);
        self.mark_dirty(page, 1);
    }

    fn base(&self, page: u64) -> Result<u64, Errno> {
        self.with_entry(page, |entry| entry.sum.load(Ordering::Acquire))
    }
}
