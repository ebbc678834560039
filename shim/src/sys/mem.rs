//! The mmap family as raw system calls.
//!
//! Owns: nothing; every call is the kernel's. Called by: abi::map (pass-through and our own mappings), engine. Must not: go
//! through libc's names, which are our own hooks.

use core::sync::atomic::{AtomicUsize, Ordering};

use super::errno::Errno;
use super::syscall::call;

/// Bytes in a page.
pub const PAGE: usize = 4096;
/// MADV_GUARD_INSTALL (Linux 6.13; shared and file memory 6.15).
pub const MADV_GUARD_INSTALL: i32 = 102;
/// MADV_GUARD_REMOVE.
pub const MADV_GUARD_REMOVE: i32 = 103;
/// MADV_DONTNEED_LOCKED (5.18).
pub const MADV_DONTNEED_LOCKED: i32 = 24;

/// mmap(2).
///
/// # Safety
/// With MAP_FIXED it replaces whatever is there.
pub unsafe fn mmap(
    at: usize,
    length: usize,
    prot: i32,
    flags: i32,
    fd: i32,
    offset: u64,
) -> Result<usize, Errno> {
    // SAFETY: the caller's.
    unsafe {
        call(
            libc::SYS_mmap,
            [at, length, prot as usize, flags as usize, fd as isize as usize, offset as usize],
        )
    }
}

/// Where the next mapping of our own is asked for, 0 at first.
static NEXT: AtomicUsize = AtomicUsize::new(0);
/// The stretch of addresses from which ours are asked for: 16 TiB that neither the kernel nor libc hands out by itself.
const OURS: usize = 0x2000_0000_0000;
const OURS_BYTES: usize = 1 << 44;

/// How often memory of our own is asked for while the program takes what was made room for.
const LIMIT_TRIES: usize = 64;

/// mmap(2) for memory of our own, at addresses that no program comes by: whatever a program unmapped stays unmapped, and whatever
/// it maps lies where it would lie without us. Where that stretch is taken, or there is none, the kernel finds a place.
pub fn map_ours(length: usize, prot: i32, flags: i32, fd: i32, offset: u64) -> Result<usize, Errno> {
    // As random as the place of the library.
    let first = OURS + ((&raw const NEXT as usize) & (OURS_BYTES - 1)) / 2 / PAGE * PAGE;
    let _ = NEXT.compare_exchange(0, first, Ordering::Relaxed, Ordering::Relaxed);
    let room = length.next_multiple_of(PAGE);
    let mut hint = NEXT.fetch_add(room, Ordering::Relaxed);
    if hint.saturating_add(room) > OURS + OURS_BYTES {
        NEXT.store(first, Ordering::Relaxed);
        hint = first;
    }
    for _ in 0..LIMIT_TRIES {
        // SAFETY: a new mapping; a hint replaces nothing.
        match unsafe { mmap(hint, length, prot, flags, fd, offset) } {
            // What the program may not have any more, we may. It can have been faster.
            Err(Errno(libc::ENOMEM)) if super::limit::make_room(room) => {}
            mapped => return mapped,
        }
    }
    Err(Errno(libc::ENOMEM))
}

/// Whether an address lies where [`map_ours`] asks for memory.
pub fn is_ours(at: usize) -> bool {
    (OURS..OURS + OURS_BYTES).contains(&at)
}

/// munmap(2).
///
/// # Safety
/// Nobody may use the range any more.
pub unsafe fn munmap(at: usize, length: usize) -> Result<(), Errno> {
    // SAFETY: the caller's.
    unsafe { call(libc::SYS_munmap, [at, length, 0, 0, 0, 0]) }.map(drop)
}

/// mprotect(2). On a range of a mapping of ours, by engine and hooks: it can make an access fault, never change data.
pub fn mprotect(at: usize, length: usize, prot: i32) -> Result<(), Errno> {
    // SAFETY: protection changes what faults, and faults are what we handle; no data is touched.
    unsafe { call(libc::SYS_mprotect, [at, length, prot as usize, 0, 0, 0]) }.map(drop)
}

/// pkey_mprotect(2), as [`mprotect`].
pub fn pkey_mprotect(at: usize, length: usize, prot: i32, key: i32) -> Result<(), Errno> {
    // SAFETY: as above.
    unsafe { call(libc::SYS_pkey_mprotect, [at, length, prot as usize, key as usize, 0, 0]) }.map(drop)
}

/// mremap(2).
///
/// # Safety
/// As mmap and munmap together.
pub unsafe fn mremap(at: usize, old: usize, new: usize, flags: i32, to: usize) -> Result<usize, Errno> {
    // SAFETY: the caller's.
    unsafe { call(libc::SYS_mremap, [at, old, new, flags as usize, to, 0]) }
}

/// madvise(2).
///
/// # Safety
/// Some advice (DONTNEED on private memory, REMOVE) drops data.
pub unsafe fn madvise(at: usize, length: usize, advice: i32) -> Result<(), Errno> {
    // SAFETY: the caller's.
    unsafe { call(libc::SYS_madvise, [at, length, advice as usize, 0, 0, 0]) }.map(drop)
}

/// Says whether a mapping is copied to forked children (MADV_DONTFORK, MADV_DOFORK).
pub fn set_fork(at: usize, length: usize, copied: bool) -> Result<(), Errno> {
    let advice = if copied { libc::MADV_DOFORK } else { libc::MADV_DONTFORK };
    // SAFETY: this advice touches no data.
    unsafe { madvise(at, length, advice) }
}

/// Keeps the kernel from filling neighbours in with huge pages.
pub fn no_huge_pages(at: usize, length: usize) {
    // SAFETY: this advice touches no data. A kernel without huge pages says EINVAL, which is as good.
    let _ = unsafe { madvise(at, length, libc::MADV_NOHUGEPAGE) };
}

/// Makes touching the range a SIGSEGV without splitting the mapping. Shared mappings only: on private ones it drops copies.
pub fn guard_install(at: usize, length: usize) -> Result<(), Errno> {
    // SAFETY: page table entries go, the file's pages stay.
    unsafe { call(libc::SYS_madvise, [at, length, MADV_GUARD_INSTALL as usize, 0, 0, 0]) }.map(drop)
}

/// Undoes [`guard_install`]; nothing to do is success.
pub fn guard_remove(at: usize, length: usize) -> Result<(), Errno> {
    // SAFETY: as above.
    unsafe { call(libc::SYS_madvise, [at, length, MADV_GUARD_REMOVE as usize, 0, 0, 0]) }.map(drop)
}

/// Anonymous zeroed memory of our own, reserved but not committed; never given back.
pub fn reserve(length: usize) -> Result<usize, Errno> {
    let prot = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    map_ours(length, prot, flags, -1, 0)
}

/// Zeros that forked children share.
pub fn map_shared(length: usize) -> Result<usize, Errno> {
    map_ours(length, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS, -1, 0)
}

/// What [`reserve`] gives, in the place of a mapping of ours.
///
/// # Safety
/// What is mapped there is given up.
pub unsafe fn replace_by_zeros(at: usize, length: usize) -> Result<(), Errno> {
    let prot = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED;
    // SAFETY: the caller's.
    unsafe { mmap(at, length, prot, flags, -1, 0) }.map(drop)
}

/// Whether a page of the range is locked in memory.
pub fn is_locked(at: usize, length: usize) -> bool {
    // SAFETY: MS_INVALIDATE alone does nothing on Linux but look for locked pages.
    let asked = unsafe { call(libc::SYS_msync, [at, length, libc::MS_INVALIDATE as usize, 0, 0, 0]) };
    asked == Err(Errno(libc::EBUSY))
}

/// mlock2(2) with MLOCK_ONFAULT: what is locked so is not touched by the kernel when its protection changes.
pub fn lock_on_fault(at: usize, length: usize) -> Result<(), Errno> {
    let flags = libc::MLOCK_ONFAULT as usize;
    // SAFETY: locking changes no data.
    unsafe { call(libc::SYS_mlock2, [at, length, flags, 0, 0, 0]) }.map(drop)
}

/// munlock(2).
pub fn munlock(at: usize, length: usize) -> Result<(), Errno> {
    // SAFETY: lets the kernel reclaim pages, and changes none.
    unsafe { call(libc::SYS_munlock, [at, length, 0, 0, 0, 0]) }.map(drop)
}

/// Whether every page of the range is mapped by something: what msync says ENOMEM about if not.
pub fn is_mapped(at: usize, length: usize) -> bool {
    // SAFETY: MS_ASYNC does nothing on Linux but check the range.
    unsafe { call(libc::SYS_msync, [at, length, libc::MS_ASYNC as usize, 0, 0, 0]) }.is_ok()
}
