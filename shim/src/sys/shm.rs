//! Memory and locks that processes share through files on a tmpfs.
//!
//! Owns: mapping a file of ours, byte locks, descriptions of our own after a fork, changing bytes under other threads' stores.
//! Called by: host::cache_file and its neighbours. Must not: know what the files hold.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use rustix::fs::OFlags;

use super::errno::Errno;
use super::fd::OwnFd;
use super::syscall::call;
use super::{file, mem};

/// Tries a lock of the descriptor's open file description on one byte (fcntl_locking(2), F_OFD_*): the kernel drops it when
/// the process dies. `command` is F_OFD_SETLK, F_OFD_SETLKW or F_OFD_GETLK. Returns the kind of lock that is there.
pub fn lock_byte(fd: &OwnFd, byte: i64, kind: i32, command: i32) -> Result<i32, Errno> {
    // SAFETY: all zeros is a valid flock.
    let mut lock: libc::flock = unsafe { core::mem::zeroed() };
    lock.l_type = kind as i16;
    lock.l_whence = libc::SEEK_SET as i16;
    lock.l_start = byte;
    lock.l_len = 1;
    // SAFETY: the structure is live.
    unsafe { call(libc::SYS_fcntl, [fd.raw() as usize, command as usize, &raw mut lock as usize, 0, 0, 0])? };
    Ok(lock.l_type.into())
}

/// Replaces one page of address space by memory whose touch is a SIGBUS: a mapping of an empty file.
pub fn map_nothing(at: usize) -> Result<(), Errno> {
    let empty =
        OwnFd::from_rustix(rustix::fs::memfd_create(c"netmem-lost-page", rustix::fs::MemfdFlags::CLOEXEC)?);
    let flags = libc::MAP_SHARED | libc::MAP_FIXED;
    // SAFETY: the caller gives the page up.
    unsafe { mem::mmap(at, mem::PAGE, libc::PROT_READ | libc::PROT_WRITE, flags, empty.raw(), 0) }.map(drop)
}

/// Maps a part of a file for reading and writing, shared, by an open file description of the mapping's own: a forked child has the mapping too,
/// and would keep the locks of its parent's description when the parent is dead.
pub fn map_apart(fd: &OwnFd, offset: u64, length: usize) -> Result<usize, Errno> {
    map(&description(fd)?, offset, length)
}

fn description(fd: &OwnFd) -> Result<OwnFd, Errno> {
    file::open(&format!("/proc/self/fd/{}", fd.raw()), OFlags::RDWR, 0)
}

/// Gives a descriptor an open file description of its own, as locks belong to descriptions.
pub fn reopen_in_place(fd: &OwnFd) -> Result<(), Errno> {
    let fresh = description(fd)?;
    // SAFETY: both descriptors are ours; dup3 replaces one by a copy of the other.
    unsafe {
        call(libc::SYS_dup3, [fresh.raw() as usize, fd.raw() as usize, libc::O_CLOEXEC as usize, 0, 0, 0])
    }
    .map(drop)
}

/// Makes a file at least `size` bytes long; never shorter, whoever else does the same.
pub fn extend(fd: &OwnFd, size: u64) -> Result<(), Errno> {
    if (rustix::fs::fstat(fd.borrow())?.st_size as u64) < size {
        file::write_at(fd, &[0], size - 1)?;
    }
    Ok(())
}

/// Maps a part of a file for reading and writing, shared.
pub fn map(fd: &OwnFd, offset: u64, length: usize) -> Result<usize, Errno> {
    mem::map_ours(length, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED, fd.raw(), offset)
}

/// A word of zero that forked children share, in a page of its own; None if there is no memory.
pub fn shared_word() -> Option<&'static AtomicU32> {
    let at = mem::map_shared(mem::PAGE).ok()?;
    // SAFETY: mapped, aligned, and there until `drop_shared_word`.
    Some(unsafe { &*(at as *const AtomicU32) })
}

/// Gives it up in this process, which has no other reference to it.
pub fn drop_shared_word(word: &'static AtomicU32) {
    // SAFETY: the caller's, and a page of its own.
    let _ = unsafe { mem::munmap(word.as_ptr() as usize, mem::PAGE) };
}

/// Changes the bytes of one word that differ between `base` and `new` and still are those of `base`; a store that another
/// thread makes meanwhile is never lost.
pub fn merge_word(word: &AtomicU64, base: &[u8], new: &[u8]) {
    let _ = word.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |now| {
        let mut bytes = now.to_ne_bytes();
        for ((byte, base), new) in bytes.iter_mut().zip(base).zip(new) {
            if base != new && *byte == *base {
                *byte = *new;
            }
        }
        Some(u64::from_ne_bytes(bytes))
    });
}

#[cfg(test)]
mod tests {
    use core::sync::atomic::{AtomicU64, Ordering};

    use super::merge_word;

    #[test]
    fn merging_a_word_changes_only_bytes_that_others_changed_and_we_did_not() {
        let word = AtomicU64::new(u64::from_ne_bytes([1, 9, 3, 4, 5, 6, 7, 8]));
        merge_word(&word, &[1, 2, 3, 4, 5, 6, 7, 8], &[10, 20, 3, 4, 5, 6, 7, 80]);
        assert_eq!(word.load(Ordering::SeqCst).to_ne_bytes(), [10, 9, 3, 4, 5, 6, 7, 80]);
    }
}
