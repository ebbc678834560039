//! What a region owes the server: its dirty pages, taken up for a commit and copied out.
//!
//! Owns: [`Flush`] and the marks while it lives. Called by: commit. Must not: lose a mark: one that did not go up is dirty again.

use core::ops::Range;
use core::sync::atomic::{AtomicU64, Ordering};

use netmem_protocol::{CommitId, FRAME_PAGES_MAX, PAGE_SIZE, PageBodyBuilder, PageIndex, RunKind};

use super::commit::Harvest;
use super::page::State;
use super::region::{PagerError, Region, Unresolved, runs_of};
use super::table::{Board, CHUNK_PAGES, Chunk, Frames, SUM_UNKNOWN, SUM_ZERO, WINDOW_PAGES, page_sum};
use crate::sys::clock::Deadline;
use crate::sys::errno::Errno;

/// A region's part of a commit under way: its dirty pages are flushing ones, and become dirty again if this is dropped.
pub struct Flush<'a, C: Board + Frames> {
    /// The region.
    pub region: &'a Region<C>,
    /// Pages to be looked at, in order.
    pub pages: Vec<u64>,
    /// Pages that are pending, in order.
    pub pending: Vec<u64>,
    /// What has to be known of it once it is sent.
    pub sending: Unresolved,
    /// The region has another size than the server knows.
    pub resized: bool,
    /// The pages as they were at one instant, one after the other; or they are read as they go.
    pub frozen: Option<Vec<u8>>,
    sent: bool,
}

/// Pages of a flush that begins: those that are here, and those that are pending.
#[derive(Default)]
struct Flushing {
    pages: Vec<u64>,
    pending: Vec<u64>,
}

impl<C: Board + Frames> Drop for Flush<'_, C> {
    fn drop(&mut self) {
        self.region.end_flush(&self.pages, self.sent);
        self.region.end_flush(&self.pending, self.sent);
    }
}

impl<C: Board + Frames> Flush<'_, C> {
    /// Whether nothing can have changed.
    pub fn is_empty(&self) -> bool {
        self.pages.is_empty() && self.pending.is_empty() && self.sending.cut.is_none() && !self.resized
    }

    /// Keeps the pages as they are.
    pub fn freeze(&mut self) -> Result<(), Errno> {
        let mut all = Vec::new();
        all.try_reserve_exact(self.pages.len() * PAGE_SIZE).map_err(|_| Errno(libc::ENOMEM))?;
        all.resize(self.pages.len() * PAGE_SIZE, 0);
        read_runs(self.region, &self.pages, &mut all)?;
        self.frozen = Some(all);
        Ok(())
    }

    /// It has gone up: gives the marks up, but for those of pages that were stored into meanwhile.
    pub fn end(mut self) {
        self.sent = true;
    }
}

/// Reads pages, which are in order, one after the other.
fn read_runs<C: Board + Frames>(region: &Region<C>, pages: &[u64], into: &mut [u8]) -> Result<(), Errno> {
    let mut filled = 0;
    for run in runs_of(pages) {
        let bytes = run.count as usize * PAGE_SIZE;
        region.cache.read(run.first.0, &mut into[filled..filled + bytes])?;
        filled += bytes;
    }
    Ok(())
}

/// Copies pages out, a frame's worth at a time, and keeps those that differ from their bases.
pub struct Capture<'a, C: Board + Frames> {
    region: &'a Region<C>,
    batches: core::slice::Chunks<'a, u64>,
    /// Where the pages of the next batch are, if they are not in the file.
    frozen: Option<&'a [u8]>,
    size: u64,
    buffer: Vec<u8>,
    builder: PageBodyBuilder,
}

impl<'a, C: Board + Frames> Capture<'a, C> {
    /// Begins with the first of these pages of a region of `size` bytes.
    pub fn new(region: &'a Region<C>, pages: &'a [u64], frozen: &'a Option<Vec<u8>>, size: u64) -> Self {
        Capture {
            region,
            frozen: frozen.as_deref(),
            batches: pages.chunks(FRAME_PAGES_MAX as usize),
            size,
            buffer: vec![0u8; pages.len().min(FRAME_PAGES_MAX as usize) * PAGE_SIZE],
            builder: PageBodyBuilder::default(),
        }
    }

    /// The pages that [`Capture::next`] found, and their data.
    pub fn frame(&self) -> (&PageBodyBuilder, &[u8]) {
        (&self.builder, &self.buffer[..self.builder.data_pages() as usize * PAGE_SIZE])
    }

    /// Fills the frame with the next pages that changed; false when there are no more.
    pub fn next(&mut self, sent: &mut Vec<(u64, u64)>) -> Result<bool, Errno> {
        self.builder.clear();
        while let Some(batch) = self.batches.next() {
            self.take(batch, sent)?;
            if self.builder.pages() != 0 {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn take(&mut self, batch: &[u64], sent: &mut Vec<(u64, u64)>) -> Result<(), Errno> {
        let buffer = &mut self.buffer;
        let bytes = batch.len() * PAGE_SIZE;
        match &mut self.frozen {
            Some(frozen) => {
                let (now, rest) = frozen.split_at(bytes);
                buffer[..bytes].copy_from_slice(now);
                *frozen = rest;
            }
            None => read_runs(self.region, batch, &mut buffer[..bytes])?,
        }
        let mut kept = 0;
        for (i, page) in batch.iter().enumerate() {
            let data = &mut buffer[i * PAGE_SIZE..(i + 1) * PAGE_SIZE];
            // What a program stores behind the end of the file in its last page is never the file's.
            let inside = self.size.saturating_sub(page * PAGE_SIZE as u64).min(PAGE_SIZE as u64) as usize;
            data[inside..].fill(0);
            let sum = page_sum(data);
            if self.region.with_entry(*page, |entry| entry.sum.load(Ordering::Acquire))? == sum {
                continue;
            }
            sent.push((*page, sum));
            if sum == SUM_ZERO {
                self.builder.push(*page, RunKind::Zero);
            } else {
                self.builder.push_data(*page, sum);
                buffer.copy_within(i * PAGE_SIZE..(i + 1) * PAGE_SIZE, kept * PAGE_SIZE);
                kept += 1;
            }
        }
        Ok(())
    }
}

impl<C: Board + Frames> Region<C> {
    /// Takes up what is dirty.
    pub(super) fn gather(
        &self,
        harvest: &Harvest<'_>,
        deadline: Deadline,
    ) -> Result<Flush<'_, C>, PagerError> {
        let control = self.cache.control();
        // Before the harvest: pages behind this size that are written meanwhile belong to the next commit.
        let size = self.cache.size()?;
        self.reach_used_chunks()?;
        harvest(&mut |first, count| self.mark_dirty(first, count));
        let Flushing { pages, pending } = self.begin_flush(size, deadline)?;
        let (id, base, noted) = (CommitId(0), self.view(), false);
        let sending = Unresolved { id, base, sent: Vec::new(), size, cut: None, noted };
        let mut flush =
            Flush { region: self, pages, pending, sending, resized: false, frozen: None, sent: false };
        if self.cache.size()? != size {
            // The page with the old end is sent as far as that; what was appended to it is the next commit's, and its mark may
            // just have been taken.
            self.mark_dirty(PageIndex::containing(size).0, 1);
        }
        flush.sending.cut = Some(control.cut.load(Ordering::SeqCst)).filter(|cut| *cut != u64::MAX);
        flush.resized = control.size_changed.load(Ordering::SeqCst) != 0
            || size != control.server_size.load(Ordering::SeqCst);
        Ok(flush)
    }

    /// Turns dirty marks into flushing ones and names the pages, in order. If it fails, the marks are as they were.
    fn begin_flush(&self, size: u64, deadline: Deadline) -> Result<Flushing, PagerError> {
        let end = PageIndex::ceil(size).0;
        let mut flushing = Flushing::default();
        let give_up = |flushing: &Flushing| {
            self.end_flush(&flushing.pages, false);
            self.end_flush(&flushing.pending, false);
        };
        for number in self.used_chunks() {
            let chunk = match self.cache.chunk(number) {
                Ok(chunk) => chunk,
                Err(errno) => {
                    give_up(&flushing);
                    return Err(errno.into());
                }
            };
            for (word, bits) in chunk.dirty.iter().enumerate() {
                let mut windows = bits.swap(0, Ordering::SeqCst);
                while windows != 0 {
                    let window = word as u64 * 64 + u64::from(windows.trailing_zeros());
                    let first = number * CHUNK_PAGES + window * WINDOW_PAGES;
                    if let Err(error) = self.begin_flush_window(&chunk, first, end, deadline, &mut flushing) {
                        bits.fetch_or(windows, Ordering::SeqCst);
                        give_up(&flushing);
                        return Err(error);
                    }
                    windows &= windows - 1;
                }
            }
        }
        Ok(flushing)
    }

    fn begin_flush_window(
        &self,
        chunk: &Chunk<'_>,
        first: u64,
        end: u64,
        deadline: Deadline,
        flushing: &mut Flushing,
    ) -> Result<(), PagerError> {
        for page in first..first + WINDOW_PAGES {
            let entry = &chunk.entries[(page % CHUNK_PAGES) as usize];
            if !entry.is_dirty() {
                continue;
            }
            if page >= end {
                // Behind the end of the file as it was when the commit began: the next commit's.
                self.mark_window(page);
                continue;
            }
            while entry.is_dirty() {
                match entry.state() {
                    State::Claimed | State::Leaving => self.wait_for_claim(page, deadline)?,
                    State::Absent if entry.begin_flush_pending() => {
                        flushing.pending.push(page);
                        break;
                    }
                    State::Absent if entry.is_nowhere() => break,
                    // Somebody has just brought it home, or is about to.
                    State::Absent => {}
                    State::Present if entry.begin_flush() => {
                        flushing.pages.push(page);
                        break;
                    }
                    State::Present => {}
                }
            }
        }
        Ok(())
    }

    fn end_flush(&self, flushing: &[u64], sent: bool) {
        for page in flushing {
            let again = self.with_entry(*page, |entry| entry.end_flush(sent)).unwrap_or(false);
            if again {
                self.mark_window(*page);
            }
        }
    }

    pub(super) fn mark_window(&self, page: u64) {
        if let Ok(chunk) = self.cache.chunk(page / CHUNK_PAGES) {
            let (word, bit) = super::table::window_bit(page);
            chunk.dirty[word].fetch_or(bit, Ordering::SeqCst);
        }
    }

    /// Treats every page that is here as possibly dirty: after a process died whose page tables knew more than the marks.
    pub fn suspect_everything(&self) {
        self.each_resident_window(0..u64::MAX, |first| {
            self.mark_dirty(first, WINDOW_PAGES);
            // A commit that died has taken the mark of the window away, and not that of its pages.
            if self.has_pending_in(first) {
                self.mark_window(first);
            }
        });
    }

    /// Names the first page of every window in which a page ever was and that has one of these pages, in order.
    pub fn each_resident_window(&self, pages: Range<u64>, body: impl FnMut(u64)) {
        self.each_window(|chunk| chunk.resident, pages, body);
    }

    /// Names the first page of every window with marks.
    pub fn each_dirty_window(&self, body: impl FnMut(u64)) {
        self.each_window(|chunk| chunk.dirty, 0..u64::MAX, body);
    }

    /// Whether anything may be dirty.
    pub fn has_marks(&self) -> bool {
        let mut any = false;
        self.each_dirty_window(|_| any = true);
        any
    }

    fn each_window<'a>(
        &'a self,
        bitmap: impl Fn(Chunk<'a>) -> &'a [AtomicU64],
        pages: Range<u64>,
        mut body: impl FnMut(u64),
    ) {
        const WORD_PAGES: u64 = 64 * WINDOW_PAGES;
        let chunks = pages.start / CHUNK_PAGES..pages.end.div_ceil(CHUNK_PAGES);
        for number in self.used_chunks().filter(|number| chunks.contains(number)) {
            let Ok(chunk) = self.cache.chunk(number) else { continue };
            let base = number * CHUNK_PAGES;
            let skip = pages.start.saturating_sub(base) / WORD_PAGES;
            for (word, bits) in bitmap(chunk).iter().enumerate().skip(skip as usize) {
                let first = base + word as u64 * WORD_PAGES;
                if first >= pages.end {
                    break;
                }
                let mut windows = bits.load(Ordering::SeqCst);
                while windows != 0 {
                    let window = first + u64::from(windows.trailing_zeros()) * WINDOW_PAGES;
                    windows &= windows - 1;
                    if window < pages.end && window + WINDOW_PAGES > pages.start {
                        body(window);
                    }
                }
            }
        }
    }

    /// Makes the next commit send a page whatever its content.
    pub fn forget_base(&self, page: u64) {
        let _ = self.with_entry(page, |entry| entry.sum.store(SUM_UNKNOWN, Ordering::Release));
    }
}
