//! A region's two files on the host's tmpfs: the cache file with its pages, and the control file with what is known of them.
//!
//! Owns: [`RegionFile`], mapping the control file, locks on it. Called by: attach and detach, the pager through its
//! traits. Must not: decide anything about pages.

use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use core::time::Duration;

use netmem_protocol::{PAGE_SIZE, REGION_BYTES_MAX};
use rustix::fs::{FallocateFlags, OFlags};

use crate::pager::table::{
    Board, CHUNK_PAGES, CHUNK_WINDOWS, CHUNKS_MAX, Chunk, Control, Entry, Frames, InUse, LAYOUT, MAGIC,
    SLOTS_MAX, Slot, Tracking, owner_number,
};
use crate::sync::{QuietGuard, QuietMutex};
use crate::sys::errno::Errno;
use crate::sys::fd::OwnFd;
use crate::sys::shm::{self, extend, map, map_apart, merge_word, reopen_in_place};
use crate::sys::{fd, file, futex, mem};

/// Bytes of the header, whole pages.
const CONTROL_BYTES: usize = size_of::<Control>().next_multiple_of(mem::PAGE);
/// Bytes of a chunk's entries.
const ENTRIES_BYTES: usize = CHUNK_PAGES as usize * size_of::<Entry>();
/// Bytes of one of a chunk's two bitmaps, which lie in one page; a count for each window is the next.
const BITMAP_BYTES: usize = CHUNK_WINDOWS / 8;
/// Bytes of a chunk, whole pages.
const CHUNK_BYTES: usize = ENTRIES_BYTES + mem::PAGE + CHUNK_WINDOWS * size_of::<AtomicU64>();
/// Locks on slots lie behind any byte the file can have.
pub(super) const SLOT_LOCK_BASE: i64 = 1 << 60;
/// The byte of [`EndLock`]'s lock between processes.
const END_LOCK: i64 = SLOT_LOCK_BASE - 2;

/// The two files of a region that this process is attached to.
pub struct RegionFile {
    file: OwnFd,
    pub(super) control_file: OwnFd,
    pub(super) control: &'static Control,
    /// `CHUNKS_MAX` pointers, in memory of our own that starts as zeros.
    chunks: &'static [AtomicPtr<u8>],
    pub(super) slot: AtomicUsize,
    closed: AtomicBool,
    /// The kernel reads the file for this process at any moment: see [`Self::keep_all`].
    pub(super) keeps_all: AtomicBool,
    /// See [`Self::ask_before_pages_leave`].
    pub(super) shows: AtomicBool,
    /// Lock order: 2e. See [`EndLock`].
    end: QuietMutex<()>,
    /// Device of the cache file.
    pub device: u64,
    /// Inode of the cache file; names the control file.
    pub inode: u64,
    control_path: String,
}

/// Keeps the end of the file where it is, on this host, but for writes of who has it. A write that makes the file longer has it from
/// finding out where the end is to noting what was written, and a refresh that follows another host's size has it around that.
pub struct EndLock<'a> {
    file: &'a RegionFile,
    _process: QuietGuard<'a, ()>,
}

impl Drop for EndLock<'_> {
    fn drop(&mut self) {
        let _ = shm::lock_byte(&self.file.control_file, END_LOCK, libc::F_UNLCK, libc::F_OFD_SETLKW);
    }
}

/// What attaching found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attachment {
    /// The control file is new, or was given up: it says nothing of the region yet.
    pub fresh: bool,
    /// A process that was attached is dead, others live: pages may be dirty without a mark.
    pub suspects: bool,
    /// Nobody else is attached, and what is here was left by processes that ended well.
    pub alone: bool,
    /// It was given up, and others may have committed until a moment ago: what the server said before is too old.
    pub given_up: bool,
}

impl RegionFile {
    /// Attaches to the region `id` whose cache file is open as `file`. The control file's lock is held on return
    /// ([`Frames::unlock_host`] gives it up), so that the caller can prime a fresh one before anyone looks.
    pub fn attach(
        file: OwnFd,
        control_path: String,
        id: u64,
        tracking: Tracking,
    ) -> Result<(Self, Attachment), Errno> {
        let stat = rustix::fs::fstat(file.borrow())?;
        let control_file = file::open(&control_path, OFlags::RDWR | OFlags::CREATE, 0o600)?;
        file::lock_exclusive(&control_file)?;
        extend(&control_file, CONTROL_BYTES as u64)?;
        let at = map_apart(&control_file, 0, CONTROL_BYTES)?;
        // SAFETY: the mapping is as long as a Control, page-aligned, never unmapped (but see `forget_memory`), and all its fields are atomics.
        let control = unsafe { &*(at as *const Control) };
        let table = mem::reserve(CHUNKS_MAX * size_of::<AtomicPtr<u8>>())?;
        // SAFETY: zeroed memory of that length is that many null pointers; never unmapped.
        let chunks = unsafe { core::slice::from_raw_parts(table as *const AtomicPtr<u8>, CHUNKS_MAX) };
        let region = RegionFile {
            file,
            control_file,
            control,
            chunks,
            slot: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
            keeps_all: AtomicBool::new(false),
            shows: AtomicBool::new(false),
            end: QuietMutex::new(()),
            device: stat.st_dev,
            inode: stat.st_ino,
            control_path,
        };
        let (mut found, gone) = region.take_stock(id);
        if found.fresh {
            // Of who is killed until it is there again nothing is taken for a page cache; of who is killed behind, a slot says so.
            control.magic.store(0, Ordering::SeqCst);
            region.wipe(id)?;
        }
        region.take_slot(tracking, &gone)?;
        region.bury(&gone);
        if found.fresh {
            control.magic.store(MAGIC, Ordering::SeqCst);
        }
        found.suspects &= !found.fresh;
        Ok((region, found))
    }

    /// Makes both files say nothing. The cache file keeps its size until it gets another: somebody may just be asking for it.
    fn wipe(&self, id: u64) -> Result<(), Errno> {
        super::budget::forget(self.control);
        // All of every page: of one that is punched in part, zeros stay in the file, which nobody would take for absent.
        self.punch(0, REGION_BYTES_MAX)?;
        rustix::fs::ftruncate(self.control_file.borrow(), 0)?;
        extend(&self.control_file, CONTROL_BYTES as u64)?;
        self.control.layout.store(LAYOUT, Ordering::SeqCst);
        self.control.region.store(id, Ordering::SeqCst);
        self.control.cut.store(u64::MAX, Ordering::SeqCst);
        Ok(())
    }

    /// In a forked child: descriptions of our own, and a slot of our own. The parent's stay the parent's.
    pub fn attach_again_after_fork(&self, tracking: Tracking) -> Result<(), Errno> {
        // The same numbers, so that nobody need look: the parent's descriptions are closed here in the same step.
        // No lock lies on the cache file, and its mode may not let us open it again.
        reopen_in_place(&self.control_file)?;
        self.join_again(tracking)
    }

    /// Takes a slot for a process that has none: a forked child, or one whose exec failed.
    pub fn join_again(&self, tracking: Tracking) -> Result<(), Errno> {
        file::lock_exclusive(&self.control_file)?;
        let taken = self.take_slot(tracking, &[]);
        file::unlock(&self.control_file);
        taken
    }

    /// Whether the file's name was removed.
    pub fn is_unlinked(&self) -> bool {
        rustix::fs::fstat(self.file.borrow()).is_ok_and(|stat| stat.st_nlink == 0)
    }

    /// Closes both files, once. Nobody may use them any more.
    pub fn close_files(&self) {
        if !self.closed.swap(true, Ordering::SeqCst) {
            self.forget_memory();
            for number in [self.file.raw(), self.control_file.raw()] {
                fd::forget(number);
                fd::close_raw(number);
            }
        }
    }

    /// A region that was given up takes no memory and no place among the mappings of the process, of which there is a limit: zeros of
    /// nobody's, and ranges of them that lie side by side are one. They say nothing to a thread that still looks there.
    fn forget_memory(&self) {
        let chunks = self.chunks.iter().map(|chunk| (chunk.load(Ordering::Acquire) as usize, CHUNK_BYTES));
        let chunks: Vec<_> = chunks.filter(|(at, _)| *at != 0).collect();
        let table = (self.chunks.as_ptr() as usize, size_of_val(self.chunks));
        let control = (&raw const *self.control as usize, CONTROL_BYTES);
        for (at, length) in [table].into_iter().chain(chunks).chain([control]) {
            // SAFETY: ours alone, and made of atomics for which zeros are values.
            if let Err(errno) = unsafe { mem::replace_by_zeros(at, length) } {
                crate::log::debug!("{length} bytes at {at:#x} stay mapped: {errno}");
            }
        }
    }

    /// From now on no page leaves, for as long as this process, or a forked child, is attached.
    pub fn keep_all(&self) {
        if !self.keeps_all.swap(true, Ordering::SeqCst) {
            self.slot_of_mine().uses_all.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Removes the control file with its name; those who have it open keep it.
    pub fn remove_control(&self) {
        super::budget::forget(self.control);
        let _ = rustix::fs::unlink(self.control_path.as_str());
    }

    /// The cache file's descriptor, open for reading and writing.
    pub fn fd(&self) -> &OwnFd {
        &self.file
    }

    /// Whether another process of the host has the lock of [`Frames::lock_host`]. The caller keeps the threads of this one from it, whose
    /// lock would be given up here.
    pub fn is_locked_elsewhere(&self) -> bool {
        let free = file::try_lock_exclusive(&self.control_file);
        if free {
            file::unlock(&self.control_file);
        }
        !free
    }

    /// Takes the lock on shared file offsets, waiting for other processes.
    pub fn lock_offset(&self) -> Result<(), Errno> {
        self.offset_lock(libc::F_WRLCK)
    }

    /// Gives it up.
    pub fn unlock_offset(&self) {
        let _ = self.offset_lock(libc::F_UNLCK);
    }

    /// See [`EndLock`]. Nothing that may need the server, or the maintenance lock, is done with it.
    pub fn lock_end(&self) -> Result<EndLock<'_>, Errno> {
        let process = self.end.lock();
        shm::lock_byte(&self.control_file, END_LOCK, libc::F_WRLCK, libc::F_OFD_SETLKW)?;
        Ok(EndLock { file: self, _process: process })
    }

    /// The part of it that lies in memory, for the fork hook.
    pub fn lock_end_for_fork(&self) -> QuietGuard<'_, ()> {
        self.end.lock()
    }

    fn offset_lock(&self, kind: i32) -> Result<(), Errno> {
        shm::lock_byte(&self.control_file, SLOT_LOCK_BASE - 1, kind, libc::F_OFD_SETLKW).map(drop)
    }

    /// Makes a hole in the file a page of zeros, unless someone filled it meanwhile, or cut it off: a page behind the end that is in the
    /// file all the same would be there without a fault when the file grows. So the kernel loads from it through a mapping of ours,
    /// which is registered nowhere: under the page's lock, and, since it does so for a call, without SIGBUS.
    pub fn populate(&self, page: u64) -> Result<(), Errno> {
        let at = map(&self.file, page * PAGE_SIZE as u64, PAGE_SIZE)?;
        if page * (PAGE_SIZE as u64) < self.size()? {
            crate::sys::app::copy_in(at, &mut [0]);
        }
        // SAFETY: our own mapping, used by nobody else.
        unsafe { mem::munmap(at, PAGE_SIZE) }
    }

    /// Makes the bytes of the last page that lie behind `size` zeros: tmpfs, unlike a file system on a disk, shows them when the file
    /// grows. The caller keeps others from making the file longer ([`Self::lock_end`]).
    pub fn zero_tail(&self, size: u64) -> Result<(), Errno> {
        self.punch(size, size.next_multiple_of(PAGE_SIZE as u64) - size)
    }

    fn map_chunk(&self, number: u64) -> Result<*mut u8, Errno> {
        if self.closed.load(Ordering::SeqCst) {
            return Err(Errno(libc::EBADF));
        }
        let offset = CONTROL_BYTES as u64 + number * CHUNK_BYTES as u64;
        extend(&self.control_file, offset + CHUNK_BYTES as u64)?;
        let at = map_apart(&self.control_file, offset, CHUNK_BYTES)? as *mut u8;
        let slot = &self.chunks[number as usize];
        match slot.compare_exchange(core::ptr::null_mut(), at, Ordering::SeqCst, Ordering::SeqCst) {
            Ok(_) => {
                self.control.chunks[number as usize / 64].fetch_or(1 << (number % 64), Ordering::SeqCst);
                Ok(at)
            }
            Err(theirs) => {
                // SAFETY: nobody has seen our mapping.
                let _ = unsafe { mem::munmap(at as usize, CHUNK_BYTES) };
                Ok(theirs)
            }
        }
    }
}

impl Board for RegionFile {
    fn control(&self) -> &Control {
        self.control
    }

    fn chunk(&self, number: u64) -> Result<Chunk<'_>, Errno> {
        let slot =
            self.chunks.get(usize::try_from(number).unwrap_or(usize::MAX)).ok_or(Errno(libc::EFBIG))?;
        let mut at = slot.load(Ordering::Acquire);
        if at.is_null() {
            at = self.map_chunk(number)?;
        }
        // SAFETY: the mapping is CHUNK_BYTES long, never unmapped, and made of atomics: CHUNK_PAGES entries, then two bitmaps, then counts.
        unsafe {
            let bitmaps = at.add(ENTRIES_BYTES);
            Ok(Chunk {
                entries: core::slice::from_raw_parts(at as *const Entry, CHUNK_PAGES as usize),
                dirty: core::slice::from_raw_parts(bitmaps as *const AtomicU64, CHUNK_WINDOWS / 64),
                resident: core::slice::from_raw_parts(
                    bitmaps.add(BITMAP_BYTES) as *const AtomicU64,
                    CHUNK_WINDOWS / 64,
                ),
                departures: core::slice::from_raw_parts(
                    bitmaps.add(mem::PAGE) as *const AtomicU64,
                    CHUNK_WINDOWS,
                ),
            })
        }
    }

    fn me(&self) -> usize {
        let slot = self.my_slot();
        owner_number(slot, self.control.slots[slot].taken.load(Ordering::Relaxed))
    }

    fn alive(&self, owner: usize) -> bool {
        let number = owner & (SLOTS_MAX - 1);
        let slot: &Slot = &self.control.slots[number];
        let same = owner == owner_number(number, slot.taken.load(Ordering::SeqCst));
        same && slot.pid.load(Ordering::SeqCst) != 0
            && (number == self.my_slot() || self.lock_is_held(number))
    }

    fn wait(&self, word: &AtomicU64, seen: u64, limit: Duration) {
        futex::wait(futex::low_half(word), seen as u32, Some(limit));
    }

    fn wake(&self, word: &AtomicU64) {
        futex::wake(futex::low_half(word), i32::MAX);
    }

    fn begin_use(&self, first: u64, end: u64) -> InUse {
        self.note_use(first, end)
    }

    fn end_use(&self, which: InUse) {
        self.forget_use(which);
    }

    fn in_use(&self, first: u64, end: u64) -> bool {
        self.is_used(first, end)
    }
}

impl Frames for RegionFile {
    fn read(&self, first: u64, into: &mut [u8]) -> Result<(), Errno> {
        file::read_at(&self.file, into, first * PAGE_SIZE as u64)
    }

    fn install(&self, first: u64, data: &[u8]) -> Result<(), (u64, Errno)> {
        // A write to holes goes page by page: whoever faults meanwhile waits for the page's lock and sees all of it. It must not
        // make the file longer.
        let offset = first * PAGE_SIZE as u64;
        let size = self.size().map_err(|errno| (0, errno))?;
        let inside = size.saturating_sub(offset).min(data.len() as u64) as usize;
        file::write_some(&self.file, &data[..inside], offset)
            .map_err(|(written, errno)| ((written / PAGE_SIZE) as u64, errno))
    }

    fn merge(&self, page: u64, base: &[u8; PAGE_SIZE], new: &[u8; PAGE_SIZE]) -> Result<(), Errno> {
        // A page behind the end of the file has no bytes to change. The maintenance lock keeps the end where it is.
        if base == new || page * PAGE_SIZE as u64 >= self.size()? {
            return Ok(());
        }
        let at = map(&self.file, page * PAGE_SIZE as u64, PAGE_SIZE)?;
        for (i, (base, new)) in base.chunks_exact(8).zip(new.chunks_exact(8)).enumerate() {
            if base != new {
                // SAFETY: inside the page just mapped; the page lies inside the file, which the maintenance lock keeps.
                let word = unsafe { &*((at + i * 8) as *const AtomicU64) };
                merge_word(word, base, new);
            }
        }
        // SAFETY: our own mapping, used by nobody else.
        unsafe { mem::munmap(at, PAGE_SIZE) }
    }

    fn size(&self) -> Result<u64, Errno> {
        // Not fstat, which makes the kernel take a finer, slower clock for the next write's times. Nothing uses this offset.
        Ok(rustix::fs::seek(self.file.borrow(), rustix::fs::SeekFrom::End(0))?)
    }

    fn set_size(&self, size: u64) -> Result<(), Errno> {
        let _end = self.lock_end()?;
        Ok(rustix::io::retry_on_intr(|| rustix::fs::ftruncate(self.file.borrow(), size))?)
    }

    fn resize(&self, from: u64, to: u64) -> Result<bool, Errno> {
        let _end = self.lock_end()?;
        if self.size()? != from {
            return Ok(false);
        }
        if to > from && !from.is_multiple_of(PAGE_SIZE as u64) {
            self.zero_tail(from)?;
        }
        rustix::io::retry_on_intr(|| rustix::fs::ftruncate(self.file.borrow(), to))?;
        Ok(true)
    }

    fn append(&self, end: u64, bytes: &[u8]) -> Result<bool, Errno> {
        let _end = self.lock_end()?;
        if self.size()? != end {
            return Ok(false);
        }
        // The kernel moves the end after the bytes are in their place.
        file::write_some(&self.file, bytes, end).map_err(|(_, errno)| errno)?;
        Ok(true)
    }

    fn lock_host(&self) -> Result<(), Errno> {
        file::lock_exclusive(&self.control_file)
    }

    fn try_lock_host(&self) -> bool {
        file::try_lock_exclusive(&self.control_file)
    }

    fn unlock_host(&self) {
        file::unlock(&self.control_file);
    }

    fn punch(&self, offset: u64, length: u64) -> Result<(), Errno> {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        Ok(rustix::io::retry_on_intr(|| rustix::fs::fallocate(self.file.borrow(), flags, offset, length))?)
    }

    fn take_out(&self, first: u64, into: &mut [u8]) -> Result<u64, Errno> {
        // What the file lacks of its last page is zeros to everybody.
        let taken = crate::sys::take_out::take_out(&self.file, first * PAGE_SIZE as u64, into)?;
        into[taken..].fill(0);
        Ok(taken.div_ceil(PAGE_SIZE) as u64)
    }

    fn is_hole(&self, page: u64) -> Result<bool, Errno> {
        let at = page * PAGE_SIZE as u64;
        match rustix::fs::seek(self.file.borrow(), rustix::fs::SeekFrom::Data(at)) {
            Ok(found) => Ok(found >= at + PAGE_SIZE as u64),
            // Nothing but a hole up to the end.
            Err(rustix::io::Errno::NXIO) => Ok(true),
            Err(errno) => Err(errno.into()),
        }
    }
}
