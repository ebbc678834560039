//! Requests that the kernel, or a thread of libc's, carries out later: io_uring, kernel AIO, POSIX AIO.
//!
//! Owns: serving kernel AIO on regions, refusing the rest. Called by: exports. Must not: let one through: carried out past us, a read
//! of an absent page gives zeros, and a write is not noted.
//!
//! Kernel AIO can be served because a page cache file lies on a tmpfs, whose reads and writes io_submit(2) itself carries out: what
//! has to come in comes in before it, and what was written is noted behind it. The kernel makes the completion, with the
//! request's own address and data, so that io_getevents(2) and whoever reads the ring need nothing of ours.

use super::buffers::{self, Step};
use super::file::{self, Direction};
use super::outcome::{Exit, NOT_OURS, Outcome};
use crate::host::{Handle, fds, runtime_if_started};
use crate::log;
use crate::pager::commit::CommitOptions;
use crate::sys::app::Span;
use crate::sys::errno::Errno;
use crate::sys::syscall::call;

/// The kernel's struct iocb.
#[repr(C)]
#[derive(Clone, Copy)]
struct Request {
    data: u64,
    key: u32,
    how: i32,
    operation: u16,
    priority: i16,
    descriptor: i32,
    buffer: u64,
    bytes: u64,
    offset: i64,
    reserved: u64,
    flags: u32,
    event: u32,
}

/// Its operations.
const PREAD: u16 = 0;
const PWRITE: u16 = 1;
const FSYNC: u16 = 2;
const FDSYNC: u16 = 3;
const PREADV: u16 = 7;
const PWRITEV: u16 = 8;

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

/// io_submit(2): one request after the other, as soon as one is about a region.
///
/// # Safety
/// `requests` points to `count` pointers to struct iocb.
pub unsafe fn submit(context: usize, count: isize, requests: *const *const u8) -> Outcome<isize> {
    // SAFETY: the caller's; the kernel reads it next.
    let at = |i: usize| unsafe { requests.add(i).read_unaligned() }.cast::<Request>();
    let count = usize::try_from(count).unwrap_or(0);
    let mut any = false;
    for i in (0..count).filter(|i| !at(*i).is_null()) {
        // SAFETY: the same.
        any |= fds::region(unsafe { (&raw const (*at(i)).descriptor).read_unaligned() })?.is_some();
    }
    if !any {
        return Err(NOT_OURS);
    }
    for i in 0..count {
        // SAFETY: the same.
        match unsafe { submit_one(context, at(i)) } {
            Ok(()) => {}
            Err(errno) if i == 0 => return Err(errno.into()),
            Err(_) => return Ok(i as isize),
        }
    }
    Ok(count as isize)
}

/// One request: carried out when this returns, or refused.
///
/// # Safety
/// `at` is null or points to a struct iocb.
unsafe fn submit_one(context: usize, at: *const Request) -> Result<(), Errno> {
    let kernels = || {
        // SAFETY: the kernel reads one pointer, ours, and behind it the program's request.
        unsafe { call(libc::SYS_io_submit, [context, 1, (&raw const at) as usize, 0, 0, 0]) }.map(|_| ())
    };
    if at.is_null() {
        return kernels();
    }
    // SAFETY: the caller's.
    let request = unsafe { at.read_unaligned() };
    let Ok(Some(handle)) = fds::region(request.descriptor) else { return kernels() };
    let direction = match request.operation {
        PREAD | PREADV => Direction::ReadOnce,
        PWRITE | PWRITEV => Direction::Write,
        FSYNC | FDSYNC => {
            handle.commit(CommitOptions::default())?;
            return kernels();
        }
        // A poll, or what the kernel does not know either.
        _ => return kernels(),
    };
    let spans = match request.operation {
        PREADV | PWRITEV => {
            buffers::vectors(request.buffer as *const _, i32::try_from(request.bytes).unwrap_or(i32::MAX))?
        }
        _ => vec![Span { at: request.buffer as usize, length: request.bytes as usize }],
    };
    let whole = Span { at: at as usize, length: size_of::<Request>() };
    if spans.iter().chain([&whole]).any(|span| buffers::touches(*span)) {
        log::error!("{}: asynchronous I/O with a buffer in a mapping of a region is refused", handle.name);
        return Err(Errno(libc::EINVAL));
    }
    let length = spans.iter().fold(0, |sum: usize, span| sum.saturating_add(span.length));
    ready_for_less(handle, direction, request.offset, length as u64)?;
    // How much it moved, the completion says; at the most it is all.
    let make = |_: Step<'_>| kernels().map(|()| length.min(file::RW_BYTES_MAX));
    match file::at_offset(request.descriptor, (direction, request.how), &spans, request.offset, make) {
        Ok(_) => Ok(()),
        Err(Exit::Fail(errno)) => Err(errno),
        // Closed meanwhile.
        Err(Exit::Pass(_)) => Err(Errno(libc::EBADF)),
    }
}

/// A write that the kernel cuts short is noted whole: what it did not write has to be there then.
fn ready_for_less(handle: &Handle, direction: Direction, at: i64, length: u64) -> Result<(), Errno> {
    let (Direction::Write, Ok(at)) = (direction, u64::try_from(at)) else { return Ok(()) };
    if file::room(handle, at, length)? < length {
        return Err(Errno(libc::EFBIG));
    }
    handle.bring_in_for_read(at, length)
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
