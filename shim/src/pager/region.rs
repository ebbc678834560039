//! One region of the host's page cache: who may touch a page, and what is noted of it.
//!
//! Owns: [`Region`] and the rules of claims and of the gate (DESIGN.md, invariants C1 to C4). Called by: abi before a read, the
//! engines in a fault. Must not: fetch (that is bring_in's).

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use core::time::Duration;

use netmem_protocol::{Epoch, ErrorCode, PAGE_SIZE, RegionId, Run};
use thiserror::Error;

use super::page::{Event, State};
use super::table::{Board, CHUNK_PAGES, Claim, Entry, Frames, InUse, SUM_ZERO, TAKING, page_sum, window_bit};
use crate::remote::RemoteError;
use crate::sync::QuietMutex;
use crate::sys::clock::Deadline;
use crate::sys::errno::Errno;

/// How long one sleep on someone else's claim lasts before its owner is checked for life.
const CLAIM_POLL: Duration = Duration::from_millis(20);

/// Why a page or a commit could not be had.
#[derive(Debug, Error)]
pub enum PagerError {
    /// The server, or the way to it.
    #[error("{0}")]
    Remote(#[from] RemoteError),
    /// The page cache itself.
    #[error("the page cache: {0}")]
    Cache(Errno),
    /// Someone else held a page, or the region, for too long.
    #[error("timed out waiting for another process of this host")]
    Busy,
}

impl From<Errno> for PagerError {
    fn from(errno: Errno) -> Self {
        PagerError::Cache(errno)
    }
}

impl PagerError {
    /// What the program gets.
    pub fn errno(&self) -> Errno {
        match self {
            PagerError::Remote(error) => Errno(error.errno()),
            PagerError::Cache(errno) => *errno,
            PagerError::Busy => Errno(libc::EIO),
        }
    }

    /// Whether the server no longer has the epoch asked for.
    pub fn is_stale(&self) -> bool {
        matches!(self, PagerError::Remote(RemoteError::Answer { code: ErrorCode::Stale, .. }))
    }

    /// Whether a process of this host, which is gone, had committed what its host does not know of yet.
    pub fn is_behind(&self) -> bool {
        matches!(self, PagerError::Remote(RemoteError::Answer { code: ErrorCode::Behind, .. }))
    }

    /// Whether the server is there, and says no.
    pub fn is_answer(&self) -> bool {
        matches!(self, PagerError::Remote(RemoteError::Answer { .. }))
    }
}

/// What someone who needs a page has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Nothing: it is here.
    Nothing,
    /// It is ours to bring in from the server.
    Fetch,
    /// It is ours to bring in from where the region's pending pages are.
    Home,
    /// It is ours to bring in, as zeros.
    Zeros,
    /// Wait: someone else brings it in, or the gate is closed.
    Wait,
}

/// A region that is attached.
pub struct Region<C> {
    /// Its number on the server.
    pub id: RegionId,
    /// Its files.
    pub cache: C,
    /// Commits, moves of the view and changes of size, one at a time. Lock order: 2 (DESIGN.md).
    pub maintenance: QuietMutex<()>,
    /// A commit of this process of which nobody knows whether it happened, or that happened and whose merged pages are not here. Used with the maintenance lock held.
    pub(super) unresolved: QuietMutex<Option<Unresolved>>,
    /// What keeps all pages here as long as there is one.
    pub(super) kept: QuietMutex<Option<InUse>>,
    /// Where what is pending is, as the source was told last.
    pub(super) noted: AtomicU64,
    /// Something may have been stored through a mapping since the last commit; a commit that finds pages then moves the time of
    /// the last change.
    pub stored: AtomicBool,
}

/// What has to be known of a commit once it turns out to have happened.
#[derive(Clone)]
pub struct Unresolved {
    /// Its number.
    pub id: netmem_protocol::CommitId,
    /// The view it was based on.
    pub base: Epoch,
    /// The pages that went up, with the checksums they were captured at.
    pub sent: Vec<(u64, u64)>,
    /// The size that went up.
    pub size: u64,
    /// Where it cut the region, if it did.
    pub cut: Option<u64>,
    /// It happened, and what is known of pages and sizes here says so; other hosts' half may be missing.
    pub noted: bool,
}

impl<C: Board + Frames> Region<C> {
    /// A region over its files.
    pub fn new(id: RegionId, cache: C) -> Self {
        Region {
            id,
            cache,
            maintenance: QuietMutex::new(()),
            unresolved: QuietMutex::new(None),
            kept: QuietMutex::new(None),
            noted: AtomicU64::new(0),
            stored: AtomicBool::new(false),
        }
    }

    /// The epoch everything is fetched at.
    pub fn view(&self) -> Epoch {
        Epoch(self.cache.control().view.load(Ordering::SeqCst))
    }

    /// The first page from which on all are zeros without asking.
    pub fn fetchable(&self) -> u64 {
        self.committed_end().max(self.cache.control().pending_end.load(Ordering::SeqCst))
    }

    /// The first page from which on all that are neither here nor pending are zeros.
    pub fn committed_end(&self) -> u64 {
        self.cache.control().fetchable.load(Ordering::SeqCst)
    }

    /// Runs `body` on a page's entry.
    pub fn with_entry<T>(&self, page: u64, body: impl FnOnce(&Entry) -> T) -> Result<T, Errno> {
        let chunk = self.cache.chunk(page / CHUNK_PAGES)?;
        chunk.entries.get((page % CHUNK_PAGES) as usize).map(body).ok_or(Errno(libc::EFBIG))
    }

    /// Whether the program can have the page without anyone's help.
    pub fn is_present(&self, page: u64) -> bool {
        self.with_entry(page, |entry| entry.state() == State::Present).unwrap_or(false)
    }

    /// Whether it is not here, nor on its way.
    pub fn is_absent(&self, page: u64) -> bool {
        self.with_entry(page, |entry| entry.state() == State::Absent).unwrap_or(false)
    }

    /// Whether every page of `first..end` is here.
    pub fn all_present(&self, first: u64, end: u64) -> bool {
        let mut page = first;
        while page < end {
            let at = page % CHUNK_PAGES;
            let count = (CHUNK_PAGES - at).min(end - page);
            let here = self.cache.chunk(page / CHUNK_PAGES).is_ok_and(|chunk| {
                let entries = &chunk.entries[at as usize..(at + count) as usize];
                entries.iter().all(|entry| entry.state() == State::Present)
            });
            if !here {
                return false;
            }
            page += count;
        }
        true
    }

    /// Whether a read of the cache file would give the data of every page in `first..end`.
    pub fn reads_right(&self, first: u64, end: u64) -> bool {
        let committed = self.committed_end();
        if end <= committed {
            return self.all_present(first, end);
        }
        self.all_present(first, end.min(committed))
            && (first.max(committed)..end.min(self.fetchable())).all(|page| {
                let reads = |entry: &Entry| match entry.state() {
                    State::Absent => !entry.is_pending(),
                    state => state == State::Present,
                };
                self.with_entry(page, reads).unwrap_or(false)
            })
            // What was pending, or left, meanwhile raised it before.
            && self.committed_end() == committed
    }

    /// Tries to become the one who brings `page` in (C1). The claim must be settled soon.
    pub fn need(&self, page: u64) -> Result<Need, Errno> {
        let me = self.cache.me();
        // Claimed, and then looked: a commit may take the mark away, and nobody makes one.
        let claim = |entry: &Entry| (entry.claim(me, page), entry.is_pending());
        let is_pending = match self.with_entry(page, claim)? {
            (Claim::Present, _) => return Ok(Need::Nothing),
            (Claim::Busy(_), _) => return Ok(Need::Wait),
            (Claim::Taken, is_pending) => is_pending,
        };
        // C2: claim, then look at the gate. Whoever closes the gate does it the other way round, so one sees the other.
        if self.cache.control().gate.load(Ordering::SeqCst) != 0 {
            self.settle(page, Event::Release);
            return Ok(Need::Wait);
        }
        self.note_resident(page)?;
        if is_pending {
            return Ok(Need::Home);
        }
        Ok(if page < self.committed_end() { Need::Fetch } else { Need::Zeros })
    }

    /// Notes that something of a page's window is, or is about to be, here: harvests look only at such windows.
    pub fn note_resident(&self, page: u64) -> Result<(), Errno> {
        let chunk = self.cache.chunk(page / CHUNK_PAGES)?;
        let (word, bit) = window_bit(page);
        if chunk.resident[word].load(Ordering::SeqCst) & bit == 0 {
            chunk.resident[word].fetch_or(bit, Ordering::SeqCst);
        }
        Ok(())
    }

    /// Ends our claim on a page.
    pub fn settle(&self, page: u64, event: Event) {
        let _ = self.with_entry(page, |entry| {
            let control = self.cache.control();
            match event {
                Event::Leave => entry.note_departure(control.clock.load(Ordering::Relaxed) % TAKING),
                Event::Install => self.note_arrival(entry),
                // Or it would be sent again and again in one round.
                Event::Stay => entry.note_stay(control.clock.load(Ordering::Relaxed)),
                _ => {}
            }
            if entry.settle(event, page) {
                self.cache.wake(entry.word());
            }
            if matches!(event, Event::Install | Event::Stay | Event::Leave) && entry.is_dirty() {
                self.mark_window(page);
            }
        });
    }

    fn note_arrival(&self, entry: &Entry) {
        entry.note_arrival(self.cache.control().clock.load(Ordering::Relaxed));
    }

    /// Ends our claim on a page that is in its place now, with this checksum.
    pub fn settle_installed(&self, page: u64, sum: u64) {
        let _ = self.with_entry(page, |entry| entry.sum.store(sum, Ordering::Release));
        self.settle(page, Event::Install);
    }

    /// Ends our claim on a page that was pending and is in its place now. Its base is what it was.
    pub fn settle_home(&self, page: u64) {
        crate::stats::add(&crate::stats::PAGES_HOME, 1);
        let _ = self.with_entry(page, |entry| {
            self.note_arrival(entry);
            if entry.settle_home(page) {
                self.cache.wake(entry.word());
            }
            self.mark_window(page);
        });
    }

    /// Waits until nobody holds a claim on the page and the gate is open, and takes over from the dead.
    pub fn wait_for(&self, page: u64, deadline: Deadline) -> Result<(), PagerError> {
        self.wait_for_gate(deadline)?;
        self.wait_for_claim(page, deadline)
    }

    /// Waits until nobody holds a claim on the page (C3: a dead owner's claim is released).
    pub fn wait_for_claim(&self, page: u64, deadline: Deadline) -> Result<(), PagerError> {
        loop {
            let chunk = self.cache.chunk(page / CHUNK_PAGES)?;
            let entry = &chunk.entries[(page % CHUNK_PAGES) as usize];
            let word = entry.word().load(Ordering::SeqCst);
            let state = entry.state();
            if !state.is_taken() {
                return Ok(());
            }
            let owner = Entry::owner(word);
            if !self.cache.alive(owner) {
                let me = self.cache.me();
                if entry.take_over(word, me) {
                    // The owner may have died between installing and saying so. A page that is in the file was installed
                    // whole; fetching it again would overwrite stores made since, so its content decides.
                    if state == State::Leaving { self.adopt_leaving(page)? } else { self.adopt_orphan(page)? }
                }
                continue;
            }
            if let Some(seen) = entry.announce_waiter(word) {
                self.cache.wait(entry.word(), seen, CLAIM_POLL);
            }
            if deadline.passed() {
                return Err(PagerError::Busy);
            }
        }
    }

    fn adopt_orphan(&self, page: u64) -> Result<(), PagerError> {
        // On the heap: this may run on a small alternate signal stack.
        let mut data = vec![0u8; PAGE_SIZE];
        self.cache.read(page, &mut data)?;
        if page_sum(&data) == SUM_ZERO {
            self.settle(page, Event::Release);
        } else {
            self.settle_installed(page, super::table::SUM_UNKNOWN);
            self.mark_dirty(page, 1);
        }
        Ok(())
    }

    /// One that was being taken out: it is out, or still what it was, or put back. Zeros that are in the file are the program's.
    fn adopt_leaving(&self, page: u64) -> Result<(), PagerError> {
        if self.cache.is_hole(page)? {
            self.settle(page, Event::Leave);
        } else {
            self.settle(page, Event::Stay);
            self.mark_dirty(page, 1);
        }
        Ok(())
    }

    /// Waits until pages may be installed again.
    pub fn wait_for_gate(&self, deadline: Deadline) -> Result<(), PagerError> {
        let gate = &self.cache.control().gate;
        loop {
            let holder = gate.load(Ordering::SeqCst);
            if holder == 0 {
                return Ok(());
            }
            if !self.cache.alive(holder as usize - 1) {
                let _ = gate.compare_exchange(holder, 0, Ordering::SeqCst, Ordering::Relaxed);
                continue;
            }
            self.cache.wait(gate, holder, CLAIM_POLL);
            if deadline.passed() {
                return Err(PagerError::Busy);
            }
        }
    }

    /// Notes that pages may differ from their bases.
    pub fn mark_dirty(&self, first: u64, count: u64) {
        self.mark_with(first, count, Entry::mark_dirty);
    }

    /// Notes pages that this process can store into unnoticed from now on. False if none of them could be noted: absent, or leaving.
    pub fn mark_writer(&self, first: u64, count: u64) -> bool {
        let me = self.cache.me();
        self.stored.store(true, Ordering::Relaxed);
        self.mark_with(first, count, |entry| entry.mark_writer(me))
    }

    /// The same of pages that the kernel may store into at any moment: they do not leave.
    pub fn mark_pinned(&self, first: u64, count: u64) -> bool {
        let me = self.cache.me();
        self.stored.store(true, Ordering::Relaxed);
        self.mark_with(first, count, |entry| entry.mark_pinned(me))
    }

    /// Slot `me` can no longer store into `first..end` unnoticed.
    pub fn clear_writer(&self, first: u64, end: u64, me: usize) {
        for page in first..end {
            let _ = self.with_entry(page, |entry| entry.clear_writer(me, false));
        }
    }

    fn mark_with(&self, first: u64, count: u64, mark: impl Fn(&Entry) -> bool) -> bool {
        let mut page = first;
        let end = first.saturating_add(count);
        let mut marked = false;
        while page < end {
            let Ok(chunk) = self.cache.chunk(page / CHUNK_PAGES) else { return marked };
            let stop = end.min((page / super::table::WINDOW_PAGES + 1) * super::table::WINDOW_PAGES);
            let mut any = false;
            for at in page..stop {
                any |= chunk.entries.get((at % CHUNK_PAGES) as usize).is_some_and(&mark);
            }
            if any {
                let (word, bit) = window_bit(page);
                chunk.dirty[word].fetch_or(bit, Ordering::SeqCst);
            }
            marked |= any;
            page = stop;
        }
        marked
    }

    /// Makes sure that what is known of the pages can be told here: a harvest passes over what it can't mark, and where the range
    /// goes afterwards, nobody would ever learn of the stores there. ENOMEM where mappings run out.
    pub fn reach_used_chunks(&self) -> Result<(), Errno> {
        self.used_chunks().try_for_each(|number| self.cache.chunk(number).map(|_| ()))
    }

    /// The chunks that were ever used, in order.
    pub fn used_chunks(&self) -> impl Iterator<Item = u64> + '_ {
        let words = self.cache.control().chunks.iter().enumerate();
        let words = words.map(|(i, word)| (i, word.load(Ordering::SeqCst))).filter(|(_, bits)| *bits != 0);
        words.flat_map(|(i, bits)| {
            (0..64).filter(move |bit| bits & (1 << bit) != 0).map(move |bit| i as u64 * 64 + bit)
        })
    }
}

/// Joins sorted page numbers to runs.
pub fn runs_of(pages: &[u64]) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for page in pages {
        match runs.last_mut() {
            Some(last) if last.end() == *page => last.count += 1,
            _ => runs.push(Run::new(*page, 1)),
        }
    }
    runs
}
