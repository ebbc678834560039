//! Requests that the kernel, or a thread of libc's, carries out later: io_uring, kernel AIO, POSIX AIO.
//!
//! Owns: refusing them for regions. Called by: exports. Must not: let one through: carried out past us, a read of an absent page
//! gives zeros, and a write is not noted.

use super::outcome::{NOT_OURS, Outcome};
use crate::host::{fds, runtime_if_started};
use crate::log;
use crate::sys::errno::Errno;

/// io_uring_setup(2) through syscall(): programs that are told ENOSYS do without, as on older kernels.
pub fn ring() -> Outcome<isize> {
    runtime_if_started().ok_or(NOT_OURS)?;
    log::debug!("io_uring: refused, since its requests would go past the library");
    Err(Errno(libc::ENOSYS).into())
}

/// Whether a request is about a region; then it is refused.
///
/// # Safety
/// `descriptor` is null or points to the descriptor's number in a request of the program's.
unsafe fn refused(descriptor: *const i32, errno: i32) -> Outcome<()> {
    if descriptor.is_null() {
        return Ok(());
    }
    // SAFETY: the caller's; libc or the kernel reads it next.
    match fds::region(unsafe { descriptor.read_unaligned() })? {
        None => Ok(()),
        Some(handle) => {
            log::error!("{}: asynchronous I/O on a region is refused: use read, write or mmap", handle.name);
            Err(Errno(errno).into())
        }
    }
}

/// io_submit(2): the descriptor is at byte 20 of a struct iocb.
///
/// # Safety
/// `requests` points to `count` pointers to struct iocb.
pub unsafe fn submit(count: isize, requests: *const *const u8) -> Outcome<isize> {
    for i in 0..usize::try_from(count).unwrap_or(0) {
        // SAFETY: the caller's.
        unsafe {
            let request = requests.add(i).read_unaligned();
            refused(
                if request.is_null() { core::ptr::null() } else { request.add(20).cast() },
                libc::EINVAL,
            )?;
        }
    }
    Err(NOT_OURS)
}

/// aio_read(3), aio_write(3) and aio_fsync(3): the descriptor is the first word of a struct aiocb.
///
/// # Safety
/// `request` is null or a struct aiocb.
pub unsafe fn request(request: *const i32) -> Outcome<i32> {
    // SAFETY: the caller's.
    unsafe { refused(request, libc::ENOSYS)? };
    Err(NOT_OURS)
}

/// lio_listio(3).
///
/// # Safety
/// `requests` points to `count` pointers to struct aiocb.
pub unsafe fn list(requests: *const *const i32, count: i32) -> Outcome<i32> {
    for i in 0..usize::try_from(count).unwrap_or(0) {
        // SAFETY: the caller's.
        unsafe { refused(requests.add(i).read_unaligned(), libc::ENOSYS)? };
    }
    Err(NOT_OURS)
}
