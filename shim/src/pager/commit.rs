//! Commits: everything dirty in a region goes up and becomes visible at once.
//!
//! Owns: capture, staging, and what happens to the marks when it fails. Called by: abi for msync and its kin. Must not:
//! return an error before the marks are back (habit 8).

use core::ops::Range;
use core::sync::atomic::{AtomicU64, Ordering};

use netmem_protocol::control::{Commit, Committed};
use netmem_protocol::{
    CommitId, Epoch, ErrorCode, FRAME_PAGES_MAX, PAGE_SIZE, PageBodyBuilder, PageIndex, RunKind,
};

use super::page::State;
use super::region::{PagerError, Region, Unresolved, runs_of};
use super::table::{
    Board, CHUNK_PAGES, Chunk, Frames, HostLock, SUM_UNKNOWN, SUM_ZERO, WINDOW_PAGES, page_sum,
};
use super::view::{BEHIND, Own};
use crate::remote::{Applied, CommitFailure, PageSource, RemoteError};
use crate::sys::clock::Deadline;
use crate::sys::errno::Errno;

/// How often a commit starts over because the connection broke under it.
const ATTEMPTS_MAX: u32 = 8;

/// Where marks come from before a capture: the engine's own notes and the page tables of this and of other processes.
pub type Harvest<'a> = dyn Fn(&mut dyn FnMut(u64, u64)) + 'a;

/// What a commit did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CommitReport {
    /// The region's epoch afterwards.
    pub epoch: Epoch,
    /// Pages that went up, pages of zeros counted.
    pub pages: u64,
}

/// How a commit is to be made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CommitOptions {
    /// Fail with ESTALE rather than merge with another host's commit.
    pub strict: bool,
}

/// Why an attempt failed, before it is known whether it did.
enum CommitError {
    /// On this side: it did.
    Pager(PagerError),
    /// On the way.
    Server(CommitFailure),
}

impl From<Errno> for CommitError {
    fn from(errno: Errno) -> Self {
        CommitError::Pager(errno.into())
    }
}

/// Copies pages out, a frame's worth at a time, and keeps those that differ from their bases.
struct Capture<'a, C: Board + Frames> {
    region: &'a Region<C>,
    batches: core::slice::Chunks<'a, u64>,
    size: u64,
    buffer: Vec<u8>,
    builder: PageBodyBuilder,
}

impl<C: Board + Frames> Capture<'_, C> {
    /// Fills builder and buffer with the next pages that changed; false when there are no more.
    fn next(&mut self, sent: &mut Vec<(u64, u64)>) -> Result<bool, Errno> {
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
        let mut filled = 0;
        for run in runs_of(batch) {
            let bytes = run.count as usize * PAGE_SIZE;
            self.region.cache.read(run.first.0, &mut buffer[filled..filled + bytes])?;
            filled += bytes;
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
    /// Commits everything that was stored in the region before the call, by any process of the host.
    pub fn commit(
        &self,
        source: &dyn PageSource,
        harvest: &Harvest<'_>,
        options: CommitOptions,
        deadline: Deadline,
    ) -> Result<CommitReport, PagerError> {
        let _one_at_a_time = self.maintenance.lock();
        let _host = HostLock::take(&self.cache)?;
        let mut attempt = 0;
        loop {
            attempt += 1;
            match self.commit_once(source, harvest, options, deadline) {
                Err(PagerError::Remote(RemoteError::Lost { .. }))
                    if attempt < ATTEMPTS_MAX && !deadline.passed() => {}
                result => return result,
            }
        }
    }

    fn commit_once(
        &self,
        source: &dyn PageSource,
        harvest: &Harvest<'_>,
        options: CommitOptions,
        deadline: Deadline,
    ) -> Result<CommitReport, PagerError> {
        let control = self.cache.control();
        self.settle_unresolved(source)?;
        if control.behind.load(Ordering::SeqCst) != 0 {
            self.refresh_locked(source)?;
        }
        // Before the harvest: pages behind this size that are written meanwhile belong to the next commit.
        let size = self.cache.size()?;
        self.reach_used_chunks()?;
        harvest(&mut |first, count| self.mark_dirty(first, count));
        let flushing = self.begin_flush(size, deadline)?;
        if self.cache.size()? != size {
            // The page with the old end is sent as far as that; what was appended to it is the next commit's, and its mark may
            // just have been taken.
            self.mark_dirty(PageIndex::containing(size).0, 1);
        }
        let base = self.view();
        let cut = Some(control.cut.load(Ordering::SeqCst)).filter(|cut| *cut != u64::MAX);
        let resized = control.size_changed.load(Ordering::SeqCst) != 0
            || size != control.server_size.load(Ordering::SeqCst);
        let mut sending = Unresolved { id: CommitId(0), base, sent: Vec::new(), size, cut, noted: false };
        let result = if flushing.is_empty() && cut.is_none() && !resized {
            Ok(None)
        } else {
            let size = resized.then_some(size);
            // The stream fills in number and page count.
            let (commit, staged_pages) = (CommitId(0), 0);
            let message = Commit { commit, staged_pages, base, strict: options.strict, cut, size };
            self.send(source, &flushing, &mut sending, &message)
        };
        match self.resolve_lost(source, result, &sending) {
            Ok(done) => {
                self.end_flush(&flushing, true);
                let Some(done) = done else { return Ok(CommitReport { epoch: base, pages: 0 }) };
                let pages = sending.sent.len() as u64;
                match self.committed(source, sending, done) {
                    // The commit stands; the next one, or the next refresh, starts with what is missing of it.
                    Err(error) if self.unresolved.lock().is_some() => {
                        crate::log::debug!("refresh after commit {}: {error}", done.epoch);
                    }
                    committed => committed?,
                }
                Ok(CommitReport { epoch: self.view(), pages })
            }
            Err(error) => {
                self.end_flush(&flushing, false);
                if error.is_stale() {
                    // Nothing to merge against is left on the server; what was stored here stays and goes up on top of the
                    // newest commit next time.
                    self.refresh_locked(source)?;
                }
                Err(error)
            }
        }
    }

    /// A commit whose answer was lost has happened or not; the server knows by its number.
    fn resolve_lost(
        &self,
        source: &dyn PageSource,
        result: Result<Option<Committed>, CommitError>,
        sending: &Unresolved,
    ) -> Result<Option<Committed>, PagerError> {
        match result {
            Ok(done) => Ok(done),
            Err(CommitError::Pager(error)) => Err(error),
            Err(CommitError::Server(CommitFailure { error, applied: Applied::No, .. })) => Err(error.into()),
            Err(CommitError::Server(CommitFailure { error, id, applied: Applied::Maybe })) => {
                match source.commit_status(self.id, id) {
                    Ok(done) => Ok(Some(done)),
                    Err(RemoteError::Answer { code: ErrorCode::NotFound, .. }) => Err(error.into()),
                    Err(error) => {
                        *self.unresolved.lock() = Some(Unresolved { id, ..sending.clone() });
                        Err(error.into())
                    }
                }
            }
        }
    }

    /// Finds out about a commit whose outcome was not known when it was given up. Until that is known nothing can be compared:
    /// a page may differ from the server's although it equals its base here.
    pub(super) fn settle_unresolved(&self, source: &dyn PageSource) -> Result<(), PagerError> {
        let Some(lost) = self.unresolved.lock().take() else { return Ok(()) };
        match source.commit_status(self.id, lost.id) {
            // Another process of the host has brought it here in the meantime, like another host's; what it has done to the size
            // since then stays, and what was stored is compared with what the server has.
            Ok(done) if self.view() >= done.epoch => Ok(()),
            Ok(done) => self.committed(source, lost, done),
            Err(RemoteError::Answer { code: ErrorCode::NotFound, .. }) => Ok(()),
            Err(error) => {
                *self.unresolved.lock() = Some(lost);
                Err(error.into())
            }
        }
    }

    /// Turns dirty marks into flushing ones and names the pages, in order. If it fails, the marks are as they were.
    fn begin_flush(&self, size: u64, deadline: Deadline) -> Result<Vec<u64>, PagerError> {
        let end = PageIndex::ceil(size).0;
        let mut flushing = Vec::new();
        for number in self.used_chunks() {
            let chunk = match self.cache.chunk(number) {
                Ok(chunk) => chunk,
                Err(errno) => {
                    self.end_flush(&flushing, false);
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
                        self.end_flush(&flushing, false);
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
        flushing: &mut Vec<u64>,
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
            if entry.state() == State::Claimed {
                self.wait_for_claim(page, deadline)?;
            }
            if entry.begin_flush() {
                flushing.push(page);
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

    fn mark_window(&self, page: u64) {
        if let Ok(chunk) = self.cache.chunk(page / CHUNK_PAGES) {
            let (word, bit) = super::table::window_bit(page);
            chunk.dirty[word].fetch_or(bit, Ordering::SeqCst);
        }
    }

    /// Captures, drops what equals its base, stages the rest and makes it visible. `None`: nothing had changed.
    fn send(
        &self,
        source: &dyn PageSource,
        flushing: &[u64],
        sending: &mut Unresolved,
        commit: &Commit,
    ) -> Result<Option<Committed>, CommitError> {
        let Unresolved { id, sent, size, .. } = sending;
        let mut capture = Capture {
            region: self,
            batches: flushing.chunks(FRAME_PAGES_MAX as usize),
            size: *size,
            buffer: vec![0u8; flushing.len().min(FRAME_PAGES_MAX as usize) * PAGE_SIZE],
            builder: PageBodyBuilder::default(),
        };
        // Up to the first page that really changed, nobody is asked for a connection.
        let mut more = capture.next(sent)?;
        if !more && commit.cut.is_none() && commit.size.is_none() {
            return Ok(None);
        }
        let mut trouble = None;
        let done = source.commit(self.id, &mut |sink| {
            *id = sink.id();
            while more {
                let data = capture.builder.data_pages() as usize * PAGE_SIZE;
                sink.stage(&capture.builder, &capture.buffer[..data])?;
                match capture.next(sent) {
                    Ok(another) => more = another,
                    Err(errno) => {
                        // An unreadable page cache: the stream is dropped unfinished, and the server forgets it.
                        trouble = Some(errno);
                        return Err(RemoteError::Answer {
                            code: ErrorCode::Internal,
                            text: "the page cache failed".into(),
                        });
                    }
                }
            }
            Ok(commit.clone())
        });
        match (done, trouble) {
            (_, Some(errno)) => Err(CommitError::Pager(errno.into())),
            (Ok(done), None) => Ok(Some(done)),
            (Err(failure), None) => Err(CommitError::Server(failure)),
        }
    }

    /// Moves the bases to what was sent, and the view to the new epoch. If that fails, it is left to be settled: a newer epoch that came
    /// in its place would undo what was stored since.
    fn committed(
        &self,
        source: &dyn PageSource,
        mut sent: Unresolved,
        done: Committed,
    ) -> Result<(), PagerError> {
        let control = self.cache.control();
        // Once: pages that were patched since have the checksum of what they were merged to, by which the second attempt knows them.
        if !sent.noted {
            for (page, sum) in &sent.sent {
                self.with_entry(*page, |entry| entry.sum.store(*sum, Ordering::Release))?;
            }
            control.cut.store(u64::MAX, Ordering::SeqCst);
            control.size_changed.store(0, Ordering::SeqCst);
            control.server_size.store(sent.size, Ordering::SeqCst);
            sent.noted = true;
        }
        if done.previous == sent.base || done.epoch == sent.base {
            control.view.store(done.epoch.0, Ordering::SeqCst);
            return Ok(());
        }
        // Another host was in between: what it changed has to come here too, in our pages where we did not change them.
        let own = Own { sent: &sent.sent, cut: sent.cut.unwrap_or(u64::MAX), done };
        let followed = match self.move_view(source, done.previous, Some(own)) {
            // The server was short of memory: what it has now is all that can be had.
            Err(error) if error.is_stale() => self.refresh_locked(source),
            followed => followed,
        };
        if followed.is_err() {
            control.behind.fetch_max(BEHIND, Ordering::SeqCst);
            *self.unresolved.lock() = Some(sent);
        }
        followed
    }

    /// Treats every page that is here as possibly dirty: after a process died whose page tables knew more than the marks.
    pub fn suspect_everything(&self) {
        self.each_resident_window(0..u64::MAX, |first| self.mark_dirty(first, WINDOW_PAGES));
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
