//! Calls that move bytes from descriptor to descriptor inside the kernel.
//!
//! Owns: copy_file_range and sendfile where either end is ours. Called by: exports. Must not: let the kernel copy a hole that
//! is an absent page.

use super::outcome::{NOT_OURS, Outcome};
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
            // SAFETY: the program's own offset, which the kernel reads next.
            return Ok(unsafe { (self.offset as *const i64).read_unaligned() } as u64);
        }
        // SAFETY: by value.
        unsafe { call(libc::SYS_lseek, [self.number as usize, 0, libc::SEEK_CUR as usize, 0, 0, 0]) }
            .map(|at| at as u64)
    }
}

/// copy_file_range(2).
pub fn copy_range(from: End, to: End, length: usize, flags: u32) -> Outcome<isize> {
    move_bytes(from, to, length, |length| {
        let args = [from.number as usize, from.offset, to.number as usize, to.offset, length, flags as usize];
        // SAFETY: the program's own arguments.
        unsafe { call(libc::SYS_copy_file_range, args) }
    })
}

/// sendfile(2).
pub fn send_file(to: i32, from: End, length: usize) -> Outcome<isize> {
    move_bytes(from, End { number: to, offset: 0 }, length, |length| {
        // SAFETY: the program's own arguments.
        unsafe { call(libc::SYS_sendfile, [to as usize, from.number as usize, from.offset, length, 0, 0]) }
    })
}

/// The offsets of both ends, in the order of their numbers; once if they are the same region.
fn lock_offsets(
    source: Option<&'static Handle>,
    target: Option<&'static Handle>,
) -> Result<Vec<crate::host::handle::OffsetLock>, Errno> {
    let mut ends: Vec<_> = source.into_iter().chain(target).collect();
    ends.sort_by_key(|handle| handle.index);
    ends.dedup_by_key(|handle| handle.index);
    ends.into_iter().map(Handle::lock_offset).collect()
}

fn move_bytes(
    from: End,
    to: End,
    length: usize,
    make: impl Fn(usize) -> Result<usize, Errno>,
) -> Outcome<isize> {
    let (source, target) = (from.region()?, to.region()?);
    if source.is_none() && target.is_none() {
        return Err(NOT_OURS);
    }
    let mut length = length.min(STEP);
    let _offsets = lock_offsets(source, target)?;
    if let Some(source) = source {
        source.bring_in_for_read(from.position()?, length as u64)?;
    }
    // What the source does not have is not written, and must not be made present in the target.
    if let Some(left) = from.left() {
        length = length.min(usize::try_from(left).unwrap_or(usize::MAX));
    }
    let mut at = 0;
    if let Some(target) = target {
        at = to.position()?;
        target.bring_in_for_write(at, length as u64)?;
        let size = target.size()?;
        if at.saturating_add(length as u64) > size && !size.is_multiple_of(4096) {
            target.zero_tail(size)?;
        }
    }
    let done = make(length)?;
    if let Some(target) = target {
        target.wrote(at, done as u64);
    }
    Ok(done as isize)
}
