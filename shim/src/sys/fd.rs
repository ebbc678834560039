//! Our own descriptors: high, close-on-exec, and known by number.
//!
//! Owns: the set of internal descriptors. Called by: everything that opens one, and the hooks that must not let the program
//! close or replace them. Must not: hold the program's descriptors.

use core::sync::atomic::{AtomicU64, Ordering};
use rustix::fd::{BorrowedFd, RawFd};

use super::errno::Errno;
use super::syscall::{call, raw};

/// Descriptors of ours lie at or above this, or above half of the limit if that is lower: out of the way of programs that
/// count on getting small numbers.
pub const HIGH_FD_MIN: RawFd = 512;

/// Descriptors at or above this are never ours (the kernel's own default limit is 2^20).
const FD_END: usize = 1 << 16;

static INTERNAL: [AtomicU64; FD_END / 64] = [const { AtomicU64::new(0) }; FD_END / 64];

/// Moves a new descriptor up and notes it as ours. If there is no room up there it stays where it is.
pub fn raise(fd: RawFd) -> RawFd {
    let floor = HIGH_FD_MIN.min(soft_limit() / 2);
    let mut kept = fd;
    if fd < floor {
        // SAFETY: duplicating a descriptor touches no memory.
        if let Ok(up) = unsafe {
            call(libc::SYS_fcntl, [fd as usize, libc::F_DUPFD_CLOEXEC as usize, floor as usize, 0, 0, 0])
        } {
            close_raw(fd);
            kept = up as RawFd;
        }
    }
    if let Some(word) = INTERNAL.get(kept as usize / 64) {
        word.fetch_or(1 << (kept as usize % 64), Ordering::Relaxed);
    }
    kept
}

/// Notes that a descriptor is no longer ours. To be called before it is closed.
pub fn forget(fd: RawFd) {
    if let Some(word) = INTERNAL.get(fd as usize / 64) {
        word.fetch_and(!(1 << (fd as usize % 64)), Ordering::Relaxed);
    }
}

/// Whether this descriptor is ours and not the program's.
pub fn is_internal(fd: RawFd) -> bool {
    fd >= 0
        && INTERNAL
            .get(fd as usize / 64)
            .is_some_and(|word| word.load(Ordering::Relaxed) & (1 << (fd as usize % 64)) != 0)
}

/// The numbers of our own descriptors in `first..=last`, in order.
pub fn internal_between(first: u32, last: u32) -> Vec<u32> {
    (first..=last.min(FD_END as u32 - 1)).filter(|fd| is_internal(*fd as RawFd)).collect()
}

/// A descriptor of ours; closed when dropped.
#[derive(Debug)]
pub struct OwnFd(RawFd);

impl OwnFd {
    /// Takes a descriptor that nobody else has, moves it up and notes it.
    pub fn adopt(fd: RawFd) -> Self {
        OwnFd(raise(fd))
    }

    /// Takes one from rustix.
    pub fn from_rustix(fd: rustix::fd::OwnedFd) -> Self {
        OwnFd::adopt(rustix::fd::IntoRawFd::into_raw_fd(fd))
    }

    /// Its number.
    pub fn raw(&self) -> RawFd {
        self.0
    }

    /// To hand to rustix.
    pub fn borrow(&self) -> BorrowedFd<'_> {
        borrow(self.0)
    }
}

impl Drop for OwnFd {
    fn drop(&mut self) {
        forget(self.0);
        close_raw(self.0);
    }
}

/// A descriptor of the program, to hand to rustix for the length of one call. A number that is not open gives EBADF there.
pub fn borrow<'a>(fd: RawFd) -> BorrowedFd<'a> {
    // SAFETY: -1 is the one value BorrowedFd must not have; any other closed number is an error of the call and no more.
    unsafe { BorrowedFd::borrow_raw(if fd == -1 { RawFd::MAX } else { fd }) }
}

/// close(2).
pub fn close_raw(fd: RawFd) {
    // SAFETY: the caller owns the descriptor.
    unsafe { raw(libc::SYS_close, [fd as usize, 0, 0, 0, 0, 0]) };
}

/// Writes all bytes or gives up: for the log and the statistics.
pub fn write_all(fd: RawFd, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        // SAFETY: the bytes are live.
        match unsafe { call(libc::SYS_write, [fd as usize, bytes.as_ptr() as usize, bytes.len(), 0, 0, 0]) } {
            Ok(0) => return,
            Ok(written) => bytes = bytes.get(written..).unwrap_or(&[]),
            Err(Errno(libc::EINTR)) => {}
            Err(_) => return,
        }
    }
}

fn soft_limit() -> RawFd {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(1024);
    RawFd::try_from(limit.min(FD_END as u64)).unwrap_or(1024)
}
