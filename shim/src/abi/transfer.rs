//! Calls that move bytes from descriptor to descriptor inside the kernel.
//!
//! Owns: copy_file_range, sendfile and splice where either end is ours. Called by: exports. Must not: let the kernel copy a hole that
//! is an absent page.

use super::buffers;
use super::outcome::{Exit, NOT_OURS, Outcome};
use crate::host::hold::Writing;
use crate::host::{Handle, fds};
use crate::sys::errno::Errno;
use crate::sys::syscall::call;

/// Bytes brought in for one call; a caller asks again for the rest.
const STEP: usize = 1 << 20;

/// One end of a transfer: a descriptor, and the program's offset or null.
#[derive(Clone, Copy)]
pub struct End {
    /// The descriptor.
    pub number: i32,
    /// The program's offset, which the call moves; 0 for the descriptor's own.
    pub offset: usize,
}

impl End {
    fn region(self) -> Result<Option<&'static Handle>, Errno> {
        fds::region(self.number)
    }

    /// Bytes from its position to the end, for a regular file.
    fn left(self) -> Option<u64> {
        let stat = rustix::fs::fstat(crate::sys::fd::borrow(self.number)).ok()?;
        let regular = rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::RegularFile;
        regular.then(|| Some((stat.st_size as u64).saturating_sub(self.position().ok()?))).flatten()
    }

    fn position(self) -> Result<u64, Errno> {
        if self.offset != 0 {
            // The program's own offset, which may be anywhere.
            let mut bytes = [0; 8];
            if buffers::load(self.offset, &mut bytes) < bytes.len() {
                return Err(Errno(libc::EFAULT));
            }
            return Ok(u64::from_ne_bytes(bytes));
        }
        // SAFETY: by value.
        unsafe { call(libc::SYS_lseek, [self.number as usize, 0, libc::SEEK_CUR as usize, 0, 0, 0]) }
            .map(|at| at as u64)
    }
}

/// copy_file_range(2).
pub fn copy_range(from: End, to: End, length: usize, flags: u32) -> Outcome<isize> {
    move_bytes(from, to, length, |offset, length| {
        let args = [from.number as usize, offset, to.number as usize, to.offset, length, flags as usize];
        // SAFETY: the program's own arguments, but for an offset of ours.
        unsafe { call(libc::SYS_copy_file_range, args) }
    })
}

/// sendfile(2).
pub fn send_file(to: i32, from: End, length: usize) -> Outcome<isize> {
    move_bytes(from, End { number: to, offset: 0 }, length, |offset, length| {
        // SAFETY: the program's own arguments, but for an offset of ours.
        unsafe { call(libc::SYS_sendfile, [to as usize, from.number as usize, offset, length, 0, 0]) }
    })
}

/// splice(2): one end is a pipe.
pub fn splice(from: End, to: End, length: usize, flags: u32) -> Outcome<isize> {
    let make = |offset: usize, length: usize, flags: u32| {
        let args = [from.number as usize, offset, to.number as usize, to.offset, length, flags as usize];
        // SAFETY: the program's own arguments, but for an offset of ours.
        unsafe { call(libc::SYS_splice, args) }
    };
    if to.region()?.is_none() {
        return move_bytes(from, to, length, |offset, length| make(offset, length, flags));
    }
    // Out of a pipe: nobody waits for its other end with an offset locked.
    let waits = flags & libc::SPLICE_F_NONBLOCK == 0;
    loop {
        let length = match available(from.number, waits)? {
            // An empty pipe: its end, or an error, is the kernel's to tell.
            0 => return Ok(make(from.offset, length, flags)? as isize),
            there => length.min(there),
        };
        let flags = flags | libc::SPLICE_F_NONBLOCK;
        match move_bytes(from, to, length, |offset, length| make(offset, length, flags)) {
            // Somebody else emptied it.
            Err(Exit::Fail(Errno(libc::EAGAIN))) if waits => {}
            result => return result,
        }
    }
}

/// Bytes in a pipe; with `wait`, once there are any, or nobody is left to write some. 0 for what is no pipe.
fn available(number: i32, wait: bool) -> Result<usize, Errno> {
    if wait {
        let mut poll = libc::pollfd { fd: number, events: libc::POLLIN, revents: 0 };
        // SAFETY: one live structure; no time limit, no mask.
        unsafe { call(libc::SYS_ppoll, [&raw mut poll as usize, 1, 0, 0, 0, 0])? };
    }
    let mut bytes = 0i32;
    // SAFETY: FIONREAD fills an int.
    let asked = unsafe {
        call(libc::SYS_ioctl, [number as usize, libc::FIONREAD as usize, &raw mut bytes as usize, 0, 0, 0])
    };
    Ok(asked.map_or(0, |_| usize::try_from(bytes).unwrap_or(0)))
}

/// Moves bytes where one end is ours. `make` gets the address of the source's offset, and how many bytes.
///
/// A source's own offset is not locked while the bytes go, since they may go to a pipe whose reader wants the same lock: what is
/// brought in and what is read are the same bytes because the call reads at an offset of ours, and the descriptor's follows
/// afterwards, as in the kernel, which does not lock it in these calls either.
fn move_bytes(
    from: End,
    to: End,
    length: usize,
    make: impl Fn(usize, usize) -> Result<usize, Errno>,
) -> Outcome<isize> {
    let (source, target) = (from.region()?, to.region()?);
    if source.is_none() && target.is_none() {
        return Err(NOT_OURS);
    }
    let mode = |end: End| super::file::status_flags(end.number).unwrap_or(libc::O_PATH);
    let refused = mode(from) & (libc::O_WRONLY | libc::O_PATH) != 0
        || mode(to) & libc::O_PATH != 0
        || mode(to) & libc::O_ACCMODE == libc::O_RDONLY
        || target.is_some() && mode(to) & libc::O_APPEND != 0;
    // What has no offset has no wrong one.
    if refused || [from, to].iter().any(|end| end.position().is_ok_and(|at| at > i64::MAX as u64)) {
        // The kernel's to refuse.
        return Ok(make(from.offset, length)? as isize);
    }
    let mut length = length.min(STEP);
    let (mut own_offset, mut _from) = (None, None);
    if let Some(source) = source {
        let at = from.position()?;
        // What went into a pipe or a socket can't be read again.
        _from = Some(source.using(at, length as u64)?);
        source.bring_in_for_read(at, length as u64)?;
        if from.offset == 0 {
            own_offset = Some(at as i64);
        }
    }
    // What the source does not have is not written, and must not be made present in the target.
    if let Some(left) = from.left() {
        length = length.min(usize::try_from(left).unwrap_or(usize::MAX));
    }
    // A file that is made longer has its tail cleared before, which nobody else may be extending meanwhile.
    let _offset = target.map(Handle::lock_offset).transpose()?;
    let (mut at, mut _end, mut _to) = (0, None, None);
    if let Some(target) = target {
        at = to.position()?;
        super::file::room(target, at, length as u64)?;
        _to = Some(target.using(at, length as u64)?);
        loop {
            target.bring_in_for_write(at, length as u64)?;
            let size = target.size()?;
            if at.saturating_add(length as u64) <= size {
                break;
            }
            _end = target.lock_end_at(size)?;
            if _end.is_some() {
                break;
            }
        }
    }
    let writing = target.map(Writing::begin_to_wait);
    let done = match own_offset.as_mut() {
        Some(offset) => make(core::ptr::from_mut(offset) as usize, length)?,
        None => make(from.offset, length)?,
    };
    if let Some(offset) = own_offset {
        // SAFETY: by value.
        unsafe {
            call(libc::SYS_lseek, [from.number as usize, offset as usize, libc::SEEK_SET as usize, 0, 0, 0])?
        };
    }
    if let Some(target) = target {
        target.wrote(at, done as u64);
        drop((_end, writing));
        super::file::commit_if_synchronous(target, to.number)?;
    }
    Ok(done as isize)
}
