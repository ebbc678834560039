//! The page table of a region, shared by all processes of the host: one entry a page, in the control file.
//!
//! Owns: the layout of header, chunks and entries, and every change of an entry's word. Called by: the rest of the pager,
//! sys::shm for the layout. Must not: be extended without raising [`LAYOUT`]: other processes run other builds.

use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;

use netmem_protocol::PAGE_SIZE;

use super::page::{Event, State, must};
use crate::sys::errno::Errno;

/// The version of everything in this file.
pub const LAYOUT: u64 = 5;
/// The first word of a control file.
pub const MAGIC: u64 = u64::from_le_bytes(*b"netmctl\x01");
/// Pages whose entries lie in one chunk: 1 GiB of region.
pub const CHUNK_PAGES: u64 = 1 << 18;
/// Pages in a window: what is armed, and looked through for dirty pages, together. 2 MiB.
pub const WINDOW_PAGES: u64 = 512;
/// Windows in a chunk.
pub const CHUNK_WINDOWS: usize = (CHUNK_PAGES / WINDOW_PAGES) as usize;
/// Chunks in the largest region: 16 TiB.
pub const CHUNKS_MAX: usize = (netmem_protocol::REGION_BYTES_MAX / (CHUNK_PAGES * PAGE_SIZE as u64)) as usize;
/// Processes that can be attached to a region at once.
pub const SLOTS_MAX: usize = 512;

/// The checksum of a page of zeros.
pub const SUM_ZERO: u64 = 0;
/// No page has this checksum: the page differs from its base, whatever that is.
pub const SUM_UNKNOWN: u64 = u64::MAX;

/// The checksum of a page.
pub fn page_sum(data: &[u8]) -> u64 {
    if is_zero(data) {
        return SUM_ZERO;
    }
    netmem_protocol::page_sum(data)
}

/// The checksum of a page that came, with its own if it did.
pub fn sum_of_page(data: Option<&[u8; PAGE_SIZE]>, came_with: Option<u64>) -> u64 {
    match (data, came_with) {
        (None, _) => SUM_ZERO,
        (Some(_), Some(sum)) => sum,
        (Some(data), None) => page_sum(data),
    }
}

/// Whether every byte is zero.
pub fn is_zero(data: &[u8]) -> bool {
    // The compiler turns the inner loop into vector instructions; most pages fail in the first chunk.
    data.chunks(256).all(|chunk| chunk.iter().fold(0, |all, byte| all | byte) == 0)
}

/// How an attached process learns of its stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Tracking {
    /// Its page tables know, and must be scanned.
    PageTables = 1,
    /// It marks a page's entry before it lets a store through.
    Marks = 2,
    /// The same, and it holds its stores when it is asked to.
    Holds = 3,
}

impl Tracking {
    /// What a slot says.
    pub fn from_word(word: u64) -> Tracking {
        match word {
            2 => Tracking::Marks,
            3 => Tracking::Holds,
            _ => Tracking::PageTables,
        }
    }

    /// Whether its stores are marked before they are let through.
    pub fn marks(self) -> bool {
        self != Tracking::PageTables
    }
}

/// An attached process. Free while `pid` is 0; dead if the lock on its slot is free all the same.
#[repr(C)]
pub struct Slot {
    /// Process number.
    pub pid: AtomicU64,
    /// A [`Tracking`].
    pub tracking: AtomicU64,
    /// When it started, in clock ticks since boot: the same after an exec, another for another process of the same number.
    pub started: AtomicU64,
    /// How often the slot was taken: a claim of its last owner must not look like one of the next.
    pub taken: AtomicU64,
    /// [`Control::hold`] as it was when the process had stopped its stores; inverted if it can't.
    pub held: AtomicU64,
}

/// Bits of an owner's number that name its slot.
pub const SLOT_BITS: u32 = SLOTS_MAX.trailing_zeros();
/// Bits that count how often the slot was taken.
const TAKEN_BITS: u32 = 15 - SLOT_BITS;

/// The number under which a process claims pages: its slot, and which of the slot's owners it is.
pub const fn owner_number(slot: usize, taken: u64) -> usize {
    slot | ((taken as usize) & ((1 << TAKEN_BITS) - 1)) << SLOT_BITS
}

/// What [`Control::hold`] says while process `owner` holds: with a time, so that no two look alike. Its low half is never 0.
pub const fn hold_word(owner: usize, now_ns: u64) -> u64 {
    now_ns << 16 | (owner as u64 + 1)
}

/// The process that holds, by [`Control::hold`].
pub const fn holder(word: u64) -> Option<usize> {
    ((word & 0xffff) as usize).checked_sub(1)
}

#[cfg(test)]
impl Default for Control {
    fn default() -> Self {
        Control {
            magic: AtomicU64::new(MAGIC),
            layout: AtomicU64::new(LAYOUT),
            region: AtomicU64::new(0),
            view: AtomicU64::new(0),
            fetchable: AtomicU64::new(0),
            gate: AtomicU64::new(0),
            server_size: AtomicU64::new(0),
            cut: AtomicU64::new(u64::MAX),
            size_changed: AtomicU64::new(0),
            unnamed: AtomicU64::new(0),
            modified: AtomicU64::new(0),
            behind: AtomicU64::new(0),
            cuts: AtomicU64::new(0),
            changed: AtomicU64::new(0),
            server_modified: AtomicU64::new(0),
            own_epoch: AtomicU64::new(0),
            heirs: AtomicU64::new(0),
            hold: AtomicU64::new(0),
            chunks: [const { AtomicU64::new(0) }; CHUNKS_MAX / 64],
            slots: [const {
                Slot {
                    pid: AtomicU64::new(0),
                    tracking: AtomicU64::new(0),
                    started: AtomicU64::new(0),
                    taken: AtomicU64::new(0),
                    held: AtomicU64::new(0),
                }
            }; SLOTS_MAX],
        }
    }
}

/// The front of a control file. One cache line's worth of hot words first.
#[repr(C)]
pub struct Control {
    /// [`MAGIC`], written last.
    pub magic: AtomicU64,
    /// [`LAYOUT`].
    pub layout: AtomicU64,
    /// The region.
    pub region: AtomicU64,
    /// The epoch at which everything is fetched.
    pub view: AtomicU64,
    /// Absent pages below this page the server has; those at or above it are zeros.
    pub fetchable: AtomicU64,
    /// 0, or 1 + the number of the process that keeps pages from being installed (a cut or a move of the view).
    pub gate: AtomicU64,
    /// Bytes in the region at the view epoch.
    pub server_size: AtomicU64,
    /// Smallest size in bytes since the last commit; `u64::MAX` if it did not shrink.
    pub cut: AtomicU64,
    /// 1 if the program changed the size since the last commit.
    pub size_changed: AtomicU64,
    /// The region has no name and ends with its holders.
    pub unnamed: AtomicU64,
    /// When what the file holds last changed, as its status shows it: nanoseconds since 1970. The kernel's own time of the cache file
    /// moves when a page is brought in, too.
    pub modified: AtomicU64,
    /// 1 after a commit that was merged with another host's, while the merged pages could not be brought here yet; an epoch, which is
    /// more, while pages are brought from the view to that. Until that is done nothing may be committed, or bytes of the first commit
    /// would overwrite theirs.
    pub behind: AtomicU64,
    /// How often pages were cut off or punched. The kernel drops the protection of such pages from every process's page tables.
    pub cuts: AtomicU64,
    /// When the file's status last changed, likewise.
    pub changed: AtomicU64,
    /// The server's time of the last change, as it was last seen.
    pub server_modified: AtomicU64,
    /// The epoch of this host's last commit, until the time that it got at the server was seen; else 0.
    pub own_epoch: AtomicU64,
    /// Forked children that the server does not know for holders yet: their parent's hold is theirs.
    pub heirs: AtomicU64,
    /// 0, or who keeps everybody from storing into the region ([`hold_word`]).
    pub hold: AtomicU64,
    /// A bit for each chunk that was ever used.
    pub chunks: [AtomicU64; CHUNKS_MAX / 64],
    /// The attached processes.
    pub slots: [Slot; SLOTS_MAX],
}

/// What is known of one page.
#[repr(C)]
#[derive(Debug, Default)]
pub struct Entry {
    /// State and marks; see the constants.
    word: AtomicU64,
    /// Checksum of the page as it is at the view epoch. Written only by the owner of the claim, or under the region's lock.
    pub sum: AtomicU64,
}

/// The entries of one GiB, and a bit for each of their windows.
#[derive(Clone, Copy)]
pub struct Chunk<'a> {
    /// `CHUNK_PAGES` of them.
    pub entries: &'a [Entry],
    /// Windows with pages that may be dirty; `CHUNK_WINDOWS` bits.
    pub dirty: &'a [AtomicU64],
    /// Windows with pages that were ever here; `CHUNK_WINDOWS` bits.
    pub resident: &'a [AtomicU64],
}

const STATE: u64 = 0b11;
const DIRTY: u64 = 1 << 2;
const FLUSHING: u64 = 1 << 3;
const WAITERS: u64 = 1 << 4;
const OWNER_SHIFT: u32 = 8;
const OWNER: u64 = 0xffff << OWNER_SHIFT;
const WRITER_SHIFT: u32 = 24;
const WRITER: u64 = 0xffff << WRITER_SHIFT;
/// More than one process may store without a mark.
const WRITER_MANY: u64 = 0xffff;

fn state_of(word: u64) -> State {
    match word & STATE {
        0 => State::Absent,
        1 => State::Claimed,
        _ => State::Present,
    }
}

fn with_state(word: u64, state: State) -> u64 {
    (word & !STATE) | state as u64
}

/// What came of trying to claim a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// It is here.
    Present,
    /// It is ours to bring in.
    Taken,
    /// Someone else is at it; the word to wait on.
    Busy(u64),
}

impl Entry {
    /// The page's state. C2: whoever has closed the gate must not see what was before.
    pub fn state(&self) -> State {
        state_of(self.word.load(Ordering::SeqCst))
    }

    /// The number of the process that claimed it, as of `word`.
    pub fn owner(word: u64) -> usize {
        ((word & OWNER) >> OWNER_SHIFT) as usize
    }

    /// The word, to wait on.
    pub fn word(&self) -> &AtomicU64 {
        &self.word
    }

    /// Tries to claim the page for process `me`.
    pub fn claim(&self, me: usize, page: u64) -> Claim {
        let mut word = self.word.load(Ordering::Acquire);
        loop {
            match state_of(word) {
                State::Present => return Claim::Present,
                State::Claimed => return Claim::Busy(word),
                State::Absent => {}
            }
            let next = with_state(word, must(State::Absent, Event::Claim, page)) & !OWNER
                | (me as u64) << OWNER_SHIFT;
            match self.word.compare_exchange_weak(word, next, Ordering::SeqCst, Ordering::Acquire) {
                Ok(_) => return Claim::Taken,
                Err(now) => word = now,
            }
        }
    }

    /// Takes over the claim that `word` shows, whose owner is dead.
    pub fn take_over(&self, word: u64, me: usize) -> bool {
        let next = word & !OWNER | (me as u64) << OWNER_SHIFT;
        self.word.compare_exchange(word, next, Ordering::SeqCst, Ordering::Relaxed).is_ok()
    }

    /// Ends our claim. Returns whether someone waits.
    pub fn settle(&self, event: Event, page: u64) -> bool {
        let before = self
            .word
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |word| {
                Some(with_state(word, must(state_of(word), event, page)) & !(OWNER | WAITERS))
            })
            .unwrap_or_else(|word| word);
        before & WAITERS != 0
    }

    /// Says that we are about to wait for `word` to change. False if it has changed already.
    pub fn announce_waiter(&self, word: u64) -> Option<u64> {
        let next = word | WAITERS;
        match self.word.compare_exchange(word, next, Ordering::SeqCst, Ordering::Relaxed) {
            Ok(_) => Some(next),
            Err(_) => None,
        }
    }

    /// Notes that the page may differ from its base. Absent pages are left alone: there is nothing to send. Returns whether
    /// it was noted.
    pub fn mark_dirty(&self) -> bool {
        self.word
            .fetch_update(Ordering::SeqCst, Ordering::Relaxed, |word| {
                (state_of(word) != State::Absent).then_some(word | DIRTY)
            })
            .is_ok()
    }

    /// Notes that process `me` may store into the page without telling anyone.
    pub fn mark_writer(&self, me: usize) -> bool {
        let mine = me as u64 + 1;
        self.word
            .fetch_update(Ordering::SeqCst, Ordering::Relaxed, |word| {
                let writer = match (word & WRITER) >> WRITER_SHIFT {
                    0 => mine,
                    other if other == mine => mine,
                    _ => WRITER_MANY,
                };
                (state_of(word) != State::Absent).then_some(word & !WRITER | writer << WRITER_SHIFT | DIRTY)
            })
            .is_ok()
    }

    /// Process `me` can no longer store unnoticed. With `alone`, nobody can.
    pub fn clear_writer(&self, me: usize, alone: bool) {
        let mine = me as u64 + 1;
        let _ = self.word.fetch_update(Ordering::SeqCst, Ordering::Relaxed, |word| {
            let writer = (word & WRITER) >> WRITER_SHIFT;
            (writer == mine || alone && writer != 0).then_some(word & !WRITER)
        });
    }

    /// Whether the page may be dirty or is on its way.
    pub fn is_dirty(&self) -> bool {
        self.word.load(Ordering::Acquire) & (DIRTY | FLUSHING) != 0
    }

    /// Starts a flush: dirty becomes flushing. Returns whether there is anything to flush.
    pub fn begin_flush(&self) -> bool {
        let before = self.word.fetch_update(Ordering::SeqCst, Ordering::Relaxed, |word| {
            (word & (DIRTY | FLUSHING) != 0).then_some(word & !DIRTY | FLUSHING)
        });
        before.is_ok()
    }

    /// Ends a flush. A page that failed, or that someone can store into unnoticed, is dirty again. Returns whether it is.
    pub fn end_flush(&self, sent: bool) -> bool {
        let before = self
            .word
            .fetch_update(Ordering::SeqCst, Ordering::Relaxed, |word| {
                let again = !sent || word & WRITER != 0;
                Some(word & !FLUSHING | if again { DIRTY } else { 0 })
            })
            .unwrap_or_else(|word| word);
        !sent || before & (WRITER | DIRTY) != 0
    }

    /// The program cut the page off, or made it zeros: state, marks and base follow.
    /// False, and nothing done, while someone has it claimed.
    pub fn reset(&self, event: Event, page: u64) -> bool {
        let done = self.word.fetch_update(Ordering::SeqCst, Ordering::Relaxed, |word| {
            let state = state_of(word);
            (state != State::Claimed)
                .then(|| with_state(word, must(state, event, page)) & !(DIRTY | FLUSHING))
        });
        if done.is_ok() && event == Event::Cut {
            self.sum.store(SUM_ZERO, Ordering::Release);
        }
        done.is_ok()
    }
}

/// The words that all processes of a host share about one region.
pub trait Board {
    /// The header.
    fn control(&self) -> &Control;
    /// The chunk with this number, made if it is not there yet. ENOMEM or ENOSPC where the tmpfs is full.
    fn chunk(&self, chunk: u64) -> Result<Chunk<'_>, Errno>;
    /// The number under which this process claims pages ([`owner_number`]).
    fn me(&self) -> usize;
    /// Whether the process that goes by a number still runs and is attached.
    fn alive(&self, owner: usize) -> bool;
    /// Sleeps while the low half of `word` is that of `seen`, at most for `limit`.
    fn wait(&self, word: &AtomicU64, seen: u64, limit: Duration);
    /// Wakes all who wait on `word`.
    fn wake(&self, word: &AtomicU64);
}

/// The cache file's pages.
pub trait Frames {
    /// Reads whole pages from `first` on; holes and what lies behind the end are zeros.
    fn read(&self, first: u64, into: &mut [u8]) -> Result<(), Errno>;
    /// Puts pages in their places, from `first` on, in order; the caller owns their claims, and they lie inside the file. An error
    /// comes with the number of pages that are there: they are shown to everyone, and may have been stored into.
    fn install(&self, first: u64, data: &[u8]) -> Result<(), (u64, Errno)>;
    /// Changes, where it lies, every byte that differs between `base` and `new` and still equals `base`.
    fn merge(&self, page: u64, base: &[u8; PAGE_SIZE], new: &[u8; PAGE_SIZE]) -> Result<(), Errno>;
    /// Bytes in the file.
    fn size(&self) -> Result<u64, Errno>;
    /// Sets the bytes in the file.
    fn set_size(&self, size: u64) -> Result<(), Errno>;
    /// Gives the file `to` bytes if it has `from`, and says whether it had. What a mapping stored behind the end in the last page does
    /// not become the file's when the file grows over it.
    fn resize(&self, from: u64, to: u64) -> Result<bool, Errno>;
    /// Makes the file longer by these bytes, in one step, if it ends at `end`. False if it does not.
    fn append(&self, end: u64, bytes: &[u8]) -> Result<bool, Errno>;
    /// Takes the lock that keeps other processes of the host out of commits, moves of the view and changes of size.
    fn lock_host(&self) -> Result<(), Errno>;
    /// Gives it up.
    fn unlock_host(&self);
    /// Makes a byte range zeros.
    fn punch(&self, offset: u64, length: u64) -> Result<(), Errno>;
}

/// The bit of a window in a bitmap of a chunk.
pub fn window_bit(page: u64) -> (usize, u64) {
    let window = (page % CHUNK_PAGES / WINDOW_PAGES) as usize;
    (window / 64, 1 << (window % 64))
}

/// The host-wide lock on one region, held while this lives.
pub struct HostLock<'a>(&'a dyn Frames);

impl<'a> HostLock<'a> {
    /// Waits for it.
    pub fn take(frames: &'a dyn Frames) -> Result<Self, Errno> {
        frames.lock_host()?;
        Ok(HostLock(frames))
    }
}

impl Drop for HostLock<'_> {
    fn drop(&mut self) {
        self.0.unlock_host();
    }
}
