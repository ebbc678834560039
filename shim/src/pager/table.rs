//! The page table of a region, shared by all processes of the host: one entry a page, in the control file.
//!
//! Owns: the layout of header, chunks and entries, and every change of an entry's word. Called by: the rest of the pager,
//! sys::shm for the layout. Must not: be extended without raising [`LAYOUT`]: other processes run other builds.

use core::sync::atomic::AtomicU64;
use core::time::Duration;

use netmem_protocol::PAGE_SIZE;

pub use super::entry::{Claim, Entry};
use crate::sys::errno::Errno;

/// The version of everything in this file.
pub const LAYOUT: u64 = 8;
/// One more time that pages were taken out, in [`Control::clock`].
pub const TAKING: u64 = 1 << 32;
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
    /// 1: a touch of a page that is not in the file is no fault here, so the process must close its mappings before pages leave.
    pub asks: AtomicU64,
    /// [`Control::leaving`] as it was when it had closed them.
    pub closed: AtomicU64,
    /// Uses under way for which there was no word in `uses`, or that are of all pages: none may leave.
    pub uses_all: AtomicU64,
    /// Pages that the process has locked (mlock(2)), as in `uses`: from the first to the last.
    pub locked: AtomicU64,
    /// Pages that the kernel reads or writes for this process just now: the first, and in the lower half how many. 0: none.
    pub uses: [AtomicU64; USES],
}

/// Uses of a region in one process that are told apart.
pub const USES: usize = 8;

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
            bytes: AtomicU64::new(0),
            hand: AtomicU64::new(0),
            clock: AtomicU64::new(0),
            leaving: AtomicU64::new(0),
            leaving_pages: AtomicU64::new(0),
            pending: AtomicU64::new(0),
            pending_epoch: AtomicU64::new(0),
            pending_end: AtomicU64::new(0),
            chunks: [const { AtomicU64::new(0) }; CHUNKS_MAX / 64],
            slots: [const {
                Slot {
                    pid: AtomicU64::new(0),
                    tracking: AtomicU64::new(0),
                    started: AtomicU64::new(0),
                    taken: AtomicU64::new(0),
                    held: AtomicU64::new(0),
                    asks: AtomicU64::new(0),
                    closed: AtomicU64::new(0),
                    uses_all: AtomicU64::new(0),
                    locked: AtomicU64::new(0),
                    uses: [const { AtomicU64::new(0) }; USES],
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
    /// What the cache file counts for in the host's budget: its bytes on the tmpfs as they were when somebody looked.
    pub bytes: AtomicU64,
    /// The page at which the next look for pages to evict begins.
    pub hand: AtomicU64,
    /// How often that has come round, and by [`TAKING`] how often pages were taken out, some or many.
    pub clock: AtomicU64,
    /// 0, or who asks the others to close pages that are about to leave ([`hold_word`]).
    pub leaving: AtomicU64,
    /// Those pages, as in [`Slot::uses`].
    pub leaving_pages: AtomicU64,
    /// The region in which the server keeps what is pending of this one; 0: none was needed yet.
    pub pending: AtomicU64,
    /// Its epoch.
    pub pending_epoch: AtomicU64,
    /// No page at or above this one is pending.
    pub pending_end: AtomicU64,
    /// A bit for each chunk that was ever used.
    pub chunks: [AtomicU64; CHUNKS_MAX / 64],
    /// The attached processes.
    pub slots: [Slot; SLOTS_MAX],
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
    /// How often pages of each window left.
    pub departures: &'a [AtomicU64],
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
    /// From now on, and until [`Board::end_use`], none of these pages leaves that is here when the caller looks next (E3).
    fn begin_use(&self, first: u64, end: u64) -> InUse;
    /// No longer.
    fn end_use(&self, which: InUse);
    /// Whether somebody alive uses a page of `first..end`.
    fn in_use(&self, first: u64, end: u64) -> bool;
}

/// One use of pages, for [`Board::end_use`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InUse {
    /// It has this word of the slot, which says so much.
    Pages(usize, u64),
    /// It counts for all pages.
    All,
}

/// The word of a use, or of a request: pages `first..end`, at least one and fewer than 2^32.
pub const fn pages_word(first: u64, end: u64) -> u64 {
    first << 32 | (end - first)
}

/// The pages of such a word.
pub const fn pages_of_word(word: u64) -> (u64, u64) {
    (word >> 32, (word >> 32) + (word & 0xffff_ffff))
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
    /// The same without waiting. Whether it has it.
    fn try_lock_host(&self) -> bool;
    /// Gives it up.
    fn unlock_host(&self);
    /// Makes a byte range zeros.
    fn punch(&self, offset: u64, length: u64) -> Result<(), Errno>;
    /// Takes whole pages from `first` on out of the file, so that their places are holes, and says what they held at last: no store of
    /// anyone falls between the two. Returns how many, from the first on, were taken; an error if none.
    fn take_out(&self, first: u64, into: &mut [u8]) -> Result<u64, Errno>;
    /// Whether the file has nothing in a page's place.
    fn is_hole(&self, page: u64) -> Result<bool, Errno>;
}

/// The bit of a window in a bitmap of a chunk.
pub fn window_bit(page: u64) -> (usize, u64) {
    let window = (page % CHUNK_PAGES / WINDOW_PAGES) as usize;
    (window / 64, 1 << (window % 64))
}

/// The number of a window in its chunk.
pub fn window_in_chunk(page: u64) -> usize {
    (page % CHUNK_PAGES / WINDOW_PAGES) as usize
}

/// The host-wide lock on one region, held while this lives.
pub struct HostLock<'a>(&'a dyn Frames);

impl<'a> HostLock<'a> {
    /// Waits for it.
    pub fn take(frames: &'a dyn Frames) -> Result<Self, Errno> {
        frames.lock_host()?;
        Ok(HostLock(frames))
    }

    /// Takes it if nobody has it.
    pub fn try_take(frames: &'a dyn Frames) -> Option<Self> {
        frames.try_lock_host().then_some(HostLock(frames))
    }
}

impl Drop for HostLock<'_> {
    fn drop(&mut self) {
        self.0.unlock_host();
    }
}
