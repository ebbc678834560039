//! Pages that leave the page cache, so that others have room (DESIGN.md, "Eviction", E1 to E6).
//!
//! Owns: [`Region::evict`], and [`Use`], which keeps pages here. Called by: host::budget, and whoever lets the kernel at the cache file.
//! Must not: decide which region's turn it is.

use core::ops::Range;
use core::sync::atomic::Ordering;

use netmem_protocol::{PAGE_SIZE, PageIndex};

use super::page::{Event, State};
use super::region::{PagerError, Region};
use super::table::{Board, CHUNK_PAGES, Frames, InUse, SUM_ZERO, WINDOW_PAGES, page_sum, window_in_chunk};

/// Pages taken out in one step at the most.
pub const STEP_PAGES: u64 = 128;

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

impl<C: Board + Frames> Region<C> {
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

    /// Takes pages of `pages`, which lie in one window, out of the page cache: those that are clean and in nobody's use, `most` at the most.
    /// Returns how many left. The caller has the region's locks, so that no commit and no move of the view is under way. `close` makes
    /// the processes that have to be asked close pages; false if one did not.
    pub fn evict(
        &self,
        pages: Range<u64>,
        most: u64,
        close: &dyn Fn(u64, u64) -> bool,
    ) -> Result<u64, PagerError> {
        let inside = PageIndex::ceil(self.cache.size()?).0;
        let chunk = self.cache.chunk(pages.start / CHUNK_PAGES)?;
        let me = self.cache.me();
        let (mut left, mut at) = (0, pages.start);
        let end = pages.end.min(inside);
        let wants = |page: u64| {
            let entry = &chunk.entries[(page % CHUNK_PAGES) as usize];
            entry.state() == State::Present && !self.takes_no_room(page) && entry.evict(me, page)
        };
        while at < end && left < most {
            if !wants(at) {
                at += 1;
                continue;
            }
            let first = at;
            let stop = end.min(first + STEP_PAGES.min(most - left));
            at += 1;
            while at < stop && wants(at) {
                at += 1;
            }
            left += self.evict_unused(first, at, close)?;
        }
        Ok(left)
    }

    /// Takes what nobody uses out of a run that we have claimed.
    fn evict_unused(
        &self,
        first: u64,
        end: u64,
        close: &dyn Fn(u64, u64) -> bool,
    ) -> Result<u64, PagerError> {
        // E3: claimed, then looked.
        if !self.cache.in_use(first, end) {
            return self.evict_run(first, end, close);
        }
        let (mut left, mut from) = (0, first);
        for page in first..end {
            if self.cache.in_use(page, page + 1) {
                self.settle(page, Event::Stay);
                left += self.evict_run(from, page, close).inspect_err(|_| {
                    (page + 1..end).for_each(|page| self.settle(page, Event::Stay));
                })?;
                from = page + 1;
            }
        }
        Ok(left + self.evict_run(from, end, close)?)
    }

    /// Takes a run out that we have claimed, and says of each page how that ended.
    fn evict_run(&self, first: u64, end: u64, close: &dyn Fn(u64, u64) -> bool) -> Result<u64, PagerError> {
        let stay = |pages: Range<u64>| pages.for_each(|page| self.settle(page, Event::Stay));
        if first == end {
            return Ok(0);
        }
        // C2: claimed, then looked.
        if self.cache.control().gate.load(Ordering::SeqCst) != 0 {
            stay(first..end);
            return Ok(0);
        }
        let chunk = self.cache.chunk(first / CHUNK_PAGES)?;
        // E2: before the first of them is a hole.
        chunk.departures[window_in_chunk(first)].fetch_add(1, Ordering::SeqCst);
        if !close(first, end) {
            stay(first..end);
            return Ok(0);
        }
        let mut held = vec![0u8; (end - first) as usize * PAGE_SIZE];
        let taken = match self.cache.take_out(first, &mut held) {
            Ok(taken) => taken,
            Err(errno) => {
                stay(first..end);
                return Err(errno.into());
            }
        };
        stay(first + taken..end);
        let mut left = 0;
        for (page, data) in (first..first + taken).zip(held.chunks_exact(PAGE_SIZE)) {
            let base = self.with_entry(page, |entry| entry.sum.load(Ordering::Acquire))?;
            if page_sum(data) == base {
                // It may lie behind what the server had when the file was opened: it went up since, or it would not be clean.
                if base != SUM_ZERO {
                    self.cache.control().fetchable.fetch_max(page + 1, Ordering::SeqCst);
                }
                self.settle(page, Event::Leave);
                left += 1;
            } else {
                self.put_back(page, data);
            }
        }
        Ok(left)
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

    /// Whether a page is zeros and takes no room.
    pub fn takes_no_room(&self, page: u64) -> bool {
        let zero = self.with_entry(page, |entry| entry.sum.load(Ordering::Acquire) == SUM_ZERO);
        zero.unwrap_or(false) && self.cache.is_hole(page).unwrap_or(false)
    }
}
