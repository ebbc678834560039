//! Reading, writing and shaping our files through descriptors.
//!
//! Owns: bringing pages in before the kernel reads the cache file, and noting what a write changed. Called by: exports. Must
//! not: let the kernel see a hole that is an absent page.

use core::sync::atomic::Ordering;

use super::buffers::{self, Kind, Step};
use super::outcome::{NOT_OURS, Outcome};
use super::reading::{self, give_back};
use crate::host::handle::OffsetLock;
use crate::host::hold::Writing;
use crate::host::{Handle, fds, runtime_if_started};
use crate::log;
use crate::pager::commit::CommitOptions;
use crate::sys::app::Span;
use crate::sys::errno::Errno;
use crate::sys::syscall::call;

/// The most bytes that one read or write moves on Linux.
pub const RW_BYTES_MAX: usize = 0x7fff_f000;

/// Flags of pwritev2(2) that say where the bytes go, and whether they are synced.
const RWF_DSYNC: i32 = 2;
const RWF_SYNC: i32 = 4;
const RWF_APPEND: i32 = 0x10;
const RWF_NOAPPEND: i32 = 0x20;

/// Which way bytes go, and from which offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Out of the file.
    Read,
    /// The same by a call that can't be made a second time.
    ReadOnce,
    /// Into the file.
    Write,
}

fn ours(number: i32) -> Result<&'static Handle, super::outcome::Exit> {
    fds::region(number)?.ok_or(NOT_OURS)
}

/// fcntl(F_GETFL).
pub fn status_flags(number: i32) -> Result<i32, Errno> {
    // SAFETY: by value.
    unsafe { call(libc::SYS_fcntl, [number as usize, libc::F_GETFL as usize, 0, 0, 0, 0]) }
        .map(|flags| flags as i32)
}

pub(super) fn position(number: i32) -> Result<u64, Errno> {
    // SAFETY: by value.
    unsafe { call(libc::SYS_lseek, [number as usize, 0, libc::SEEK_CUR as usize, 0, 0, 0]) }
        .map(|at| at as u64)
}

/// A transfer at the descriptor's own offset: nobody of this process, nor another that shares the offset, may move it between
/// finding out where it is and the transfer, or the pages brought in would not be the pages read.
pub fn at_position(
    number: i32,
    (direction, flags): (Direction, i32),
    spans: &[Span],
    make: impl Fn(Step<'_>) -> Result<usize, Errno>,
) -> Outcome<isize> {
    let handle = ours(number)?;
    let offset = handle.lock_offset()?;
    let at = position(number)?;
    transfer(handle, number, (direction, flags), spans, (at, Some(offset)), make)
}

/// A transfer at an offset of the caller's.
pub fn at_offset(
    number: i32,
    (direction, flags): (Direction, i32),
    spans: &[Span],
    offset: i64,
    make: impl Fn(Step<'_>) -> Result<usize, Errno>,
) -> Outcome<isize> {
    let handle = ours(number)?;
    // A negative offset is the kernel's to refuse.
    transfer(
        handle,
        number,
        (direction, flags),
        spans,
        (u64::try_from(offset).unwrap_or(u64::MAX), None),
        make,
    )
}

/// A transfer of a descriptor that is not ours, at its own offset or not, whose buffers may be our memory.
pub fn foreign(
    number: i32,
    direction: Direction,
    spans: &[Span],
    own_offset: bool,
    make: impl Fn(Step<'_>) -> Result<usize, Errno>,
) -> Result<usize, Errno> {
    match direction {
        Direction::Read | Direction::ReadOnce => {
            // What has no offset says so, and keeps what it gave.
            let before = if own_offset { position(number).ok() } else { None };
            let filled = buffers::fill(spans, || buffers::kind_of(number), make);
            if let Some(before) = before {
                give_back(number, before, filled.unwrap_or(0));
            }
            filled
        }
        Direction::Write => buffers::drain(spans, || buffers::kind_of(number), make),
    }
}

fn transfer(
    handle: &'static Handle,
    number: i32,
    (direction, how): (Direction, i32),
    spans: &[Span],
    at: (u64, Option<OffsetLock>),
    make: impl Fn(Step<'_>) -> Result<usize, Errno>,
) -> Outcome<isize> {
    let (at, offset) = at;
    let length =
        spans.iter().fold(0usize, |sum, span| sum.saturating_add(span.length)).min(RW_BYTES_MAX) as u64;
    if at == u64::MAX || length == 0 {
        return Ok(buffers::drain(spans, || Kind::Regular, make)? as isize);
    }
    if direction != Direction::Write {
        let own = offset.is_some().then_some(number);
        let filled = if direction == Direction::Read {
            reading::read(handle, own, spans, (at, length), make)
        } else {
            let _here = handle.using(at, length)?;
            handle.bring_in_for_read(at, length)?;
            buffers::fill(spans, || Kind::Regular, make)
        };
        if offset.is_some() && spans.iter().any(|span| buffers::touches(*span)) {
            give_back(number, at, filled.unwrap_or(0));
        }
        return Ok(filled? as isize);
    }
    let flags = status_flags(number)?;
    if flags & libc::O_ACCMODE == libc::O_RDONLY {
        return Ok(buffers::drain(spans, || Kind::Regular, make)? as isize);
    }
    // A write that makes the file longer first clears what lies behind its end, which nobody else may be extending meanwhile.
    let append = how & RWF_APPEND != 0 || flags & libc::O_APPEND != 0 && how & RWF_NOAPPEND == 0;
    let mut size = handle.size()?;
    let offset = if offset.is_none() && (append || at.saturating_add(length) > size) {
        let lock = handle.lock_offset()?;
        size = handle.size()?;
        Some(lock)
    } else {
        offset
    };
    let done = loop {
        let at = if append { size } else { at };
        let length = room(handle, at, length)?;
        // E3: what it covers in part stays, and so do its buffers, since the kernel holds the file's lock while it reads them (C5).
        let _here = handle.using(at, length)?;
        handle.bring_in_for_write(at, length)?;
        let _buffers = buffers::bring_in(spans);
        let _writing = Writing::begin(handle);
        let _end = if at.saturating_add(length) > size {
            match handle.lock_end_at(size)? {
                None => {
                    // Another host's commit, or what libc wrote by itself, moved it.
                    size = handle.size()?;
                    continue;
                }
                end => end,
            }
        } else {
            None
        };
        let done = buffers::drain(spans, || Kind::Regular, &make)?;
        handle.wrote(at, done as u64);
        break done;
    };
    drop(offset);
    if flags & (libc::O_SYNC | libc::O_DSYNC) != 0 || how & (RWF_DSYNC | RWF_SYNC) != 0 {
        handle.commit(CommitOptions::default())?;
    }
    Ok(done as isize)
}

/// After a write by another call.
pub fn commit_if_synchronous(handle: &Handle, number: i32) -> Result<(), Errno> {
    if status_flags(number)? & (libc::O_SYNC | libc::O_DSYNC) != 0 {
        handle.commit(CommitOptions::default())?;
    }
    Ok(())
}

/// How much of a write fits into the largest region the server allows; EFBIG if nothing does, EINVAL as the kernel for what is
/// behind the end of any file.
pub fn room(handle: &Handle, at: u64, length: u64) -> Result<u64, Errno> {
    if at.saturating_add(length) > i64::MAX as u64 {
        return Err(Errno(libc::EINVAL));
    }
    let most = runtime_if_started().map_or(u64::MAX, crate::host::Runtime::region_bytes_max);
    if at.saturating_add(length) <= most {
        return Ok(length);
    }
    log::error!(
        "{}: a write at {at} is behind what the server allows in a region (--max-region)",
        handle.name
    );
    Err(Errno(libc::EFBIG))
}

/// Pages brought in at a time in search of a hole or of data.
const SEEK_STEP: u64 = 256;

/// lseek(2). For SEEK_DATA and SEEK_HOLE the pages are brought in a step at a time; then the kernel's answer for the cache file
/// is right as far as the step reaches.
pub fn seek(number: i32, offset: i64, whence: i32) -> Outcome<i64> {
    let handle = ours(number)?;
    if whence != libc::SEEK_DATA && whence != libc::SEEK_HOLE {
        return Err(NOT_OURS);
    }
    let size = handle.size()? as i64;
    if offset < 0 || offset >= size {
        return Err(Errno(libc::ENXIO).into());
    }
    let mut at = offset;
    loop {
        let first = at as u64 / 4096;
        let end = (first + SEEK_STEP).min((size as u64).div_ceil(4096));
        let here = handle.using(first * 4096, (end - first) * 4096)?;
        handle.bring_in(first, end)?;
        let found =
            // SAFETY: by value.
            unsafe { call(libc::SYS_lseek, [number as usize, at as usize, whence as usize, 0, 0, 0]) };
        drop(here);
        let known = (end * 4096) as i64;
        match found {
            Ok(found) if (found as i64) < known || known >= size => return Ok(found as i64),
            Err(errno) if errno != Errno(libc::ENXIO) || known >= size => return Err(errno.into()),
            _ => at = known,
        }
    }
}

fn writable(number: i32, otherwise: i32) -> Result<(), Errno> {
    match status_flags(number)? {
        flags if flags & libc::O_PATH != 0 => Err(Errno(libc::EBADF)),
        flags if flags & libc::O_ACCMODE == libc::O_RDONLY => Err(Errno(otherwise)),
        _ => Ok(()),
    }
}

/// ftruncate(2).
pub fn truncate(number: i32, size: i64) -> Outcome<i32> {
    let handle = ours(number)?;
    let size = u64::try_from(size).map_err(|_| Errno(libc::EINVAL))?;
    writable(number, libc::EINVAL)?;
    handle.truncate(size)?;
    Ok(0)
}

/// fsync(2) and fdatasync(2).
pub fn sync(number: i32) -> Outcome<i32> {
    let handle = ours(number)?;
    if status_flags(number)? & libc::O_PATH != 0 {
        return Err(Errno(libc::EBADF).into());
    }
    handle.commit(CommitOptions::default())?;
    Ok(0)
}

/// syncfs(2): everything of ours, if the descriptor is.
pub fn sync_all(number: i32) -> Outcome<i32> {
    match fds::classify(number)? {
        fds::Descriptor::Foreign => Err(NOT_OURS),
        fds::Descriptor::Directory | fds::Descriptor::Region(_) => {
            let mut result = Ok(0);
            for handle in crate::host::handle::all() {
                result = handle.commit(CommitOptions::default()).map_err(Into::into).and(result);
            }
            result
        }
    }
}

/// sync_file_range(2): commits all of the region, after the kernel has looked at the arguments.
pub fn sync_range(number: i32, make: impl FnOnce() -> i32) -> Outcome<i32> {
    let handle = ours(number)?;
    if make() < 0 {
        return Err(crate::sys::errno::get().into());
    }
    handle.commit(CommitOptions::default())?;
    Ok(0)
}

/// Pages that advice brings in at the most: the caller waits for them here, where the kernel would not.
const ADVISED_PAGES_MAX: u64 = 2048;

/// posix_fadvise(2) and readahead(2): what will be needed is brought in. Nothing else of an advice means anything here.
pub fn advise(number: i32, offset: i64, length: i64, advice: i32) {
    if advice != libc::POSIX_FADV_WILLNEED {
        return;
    }
    let (Ok(Some(handle)), Ok(offset)) = (fds::region(number), u64::try_from(offset)) else { return };
    // Zero: up to the end.
    let length = u64::try_from(length).unwrap_or(0);
    let length = if length == 0 { u64::MAX } else { length };
    // Advice does not fail for a page that can't be had.
    let _ = handle.bring_in_for_read(offset, length.min(ADVISED_PAGES_MAX * 4096));
}

/// The kernel's struct space_resv, of the ioctls that do what fallocate does.
#[repr(C)]
struct SpaceRange {
    kind: i16,
    whence: i16,
    start: i64,
    length: i64,
    rest: [u32; 6],
}

/// ioctl(2): the requests that make and punch room in any regular file are fallocate's. All others are the kernel's to answer, as
/// for any file on a tmpfs.
pub fn control(number: i32, request: libc::c_ulong, argument: usize) -> Outcome<i32> {
    const fn space(number: libc::c_ulong) -> libc::c_ulong {
        1 << 30 | (size_of::<SpaceRange>() as libc::c_ulong) << 16 | (b'X' as libc::c_ulong) << 8 | number
    }
    // The upper half is not looked at by the kernel.
    let request = request & 0xffff_ffff;
    let mode = if request == const { space(40) } || request == const { space(42) } {
        libc::FALLOC_FL_KEEP_SIZE
    } else if request == const { space(41) } || request == const { space(43) } {
        libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE
    } else if request == const { space(57) } {
        libc::FALLOC_FL_ZERO_RANGE | libc::FALLOC_FL_KEEP_SIZE
    } else {
        return Err(NOT_OURS);
    };
    let handle = ours(number)?;
    if argument == 0 {
        return Err(Errno(libc::EFAULT).into());
    }
    // SAFETY: the program's own structure, which the kernel would read.
    let range = unsafe { (argument as *const SpaceRange).read_unaligned() };
    let base = match i32::from(range.whence) {
        libc::SEEK_SET => 0,
        libc::SEEK_CUR => position(number)? as i64,
        libc::SEEK_END => handle.size()? as i64,
        _ => return Err(Errno(libc::EINVAL).into()),
    };
    allocate(number, mode, base.saturating_add(range.start), range.length)
}

/// fallocate(2). Space is the server's; what remains is the size, and zeros.
pub fn allocate(number: i32, mode: i32, offset: i64, length: i64) -> Outcome<i32> {
    let handle = ours(number)?;
    let (Ok(at), Ok(bytes)) = (u64::try_from(offset), u64::try_from(length)) else {
        return Err(Errno(libc::EINVAL).into());
    };
    if bytes == 0 {
        return Err(Errno(libc::EINVAL).into());
    }
    writable(number, libc::EBADF)?;
    let keep = mode & libc::FALLOC_FL_KEEP_SIZE != 0;
    let end = at.checked_add(bytes).filter(|end| *end <= i64::MAX as u64).ok_or(Errno(libc::EFBIG))?;
    if !keep {
        room(handle, at, bytes)?;
    }
    match mode & !libc::FALLOC_FL_KEEP_SIZE {
        0 => {}
        libc::FALLOC_FL_PUNCH_HOLE if keep => handle.punch(at, bytes)?,
        libc::FALLOC_FL_ZERO_RANGE => handle.punch(at, bytes)?,
        _ => return Err(Errno(libc::EOPNOTSUPP).into()),
    }
    if !keep && end > handle.size()? {
        handle.truncate(end)?;
    }
    Ok(0)
}

/// posix_fallocate(3), which returns its error.
pub fn posix_allocate(number: i32, offset: i64, length: i64) -> Outcome<i32> {
    match allocate(number, 0, offset, length) {
        Err(super::outcome::Exit::Fail(errno)) => Ok(errno.0),
        outcome => outcome,
    }
}

/// Brings in what calls that do not pass through us may read or write around: all of a file that can be read; of one that can only
/// be written, what lies at and behind the offset, and the last page.
pub fn fill_for_inner_calls(handle: &Handle, number: i32) -> Result<(), Errno> {
    let flags = status_flags(number)?;
    let pages = handle.pages_inside()?;
    let only_written = flags & libc::O_ACCMODE == libc::O_WRONLY;
    // For good: nobody tells when the last of them was made.
    handle.region.cache.keep_all();
    let tail = pages.saturating_sub(1);
    let first = match (only_written, flags & libc::O_APPEND != 0) {
        (false, _) => 0,
        (true, true) => tail,
        (true, false) => (position(number)? / 4096).min(tail),
    };
    handle.bring_in(first, pages)?;
    handle.inner_reads.store(true, Ordering::SeqCst);
    if flags & libc::O_ACCMODE != libc::O_RDONLY {
        handle.inner_writes.store(true, Ordering::SeqCst);
    }
    Ok(())
}

/// Puts a descriptor that gives an error to every read and write, and can't be opened through /proc, in a descriptor's place: a
/// socket that is connected to nothing.
pub fn make_unusable(number: i32) {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
    let Ok(socket) = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None) else {
        return;
    };
    let socket = crate::sys::fd::OwnFd::from_rustix(socket);
    // SAFETY: descriptors by value; the program has not run yet.
    let _ = unsafe { call(libc::SYS_dup3, [socket.raw() as usize, number as usize, 0, 0, 0, 0]) };
    fds::set(number, crate::host::fds::Descriptor::Foreign);
}

/// Whether a call on a descriptor needs no look at its buffers.
pub fn is_plain(number: i32) -> bool {
    buffers::idle() && matches!(fds::region(number), Ok(None))
}
