//! Ranges of addresses that a call names: which parts are mappings of ours.
//!
//! Owns: msync. Called by: exports and the other families. Must not: change the mapping table.

use super::outcome::{NOT_OURS, Outcome};
use super::worker;
use crate::engine::mappings::Mapping;
use crate::host::{Handle, handle, runtime_if_started};
use crate::pager::commit::CommitOptions;
use crate::sys::errno::Errno;
use crate::sys::mem::{self, PAGE};
use crate::sys::syscall::call;

/// The mappings of ours in a range; not ours if there is none.
pub(super) fn pieces(at: usize, length: usize) -> Result<Vec<Mapping>, super::outcome::Exit> {
    let runtime = runtime_if_started().ok_or(NOT_OURS)?;
    let end = at.saturating_add(length);
    if !runtime.mappings.may_overlap(at, end) {
        return Err(NOT_OURS);
    }
    let pieces = runtime.mappings.overlapping(at, end);
    if pieces.is_empty() { Err(NOT_OURS) } else { Ok(pieces) }
}

fn regions_of(pieces: &[Mapping]) -> Vec<&'static Handle> {
    let mut indices: Vec<u32> =
        pieces.iter().filter(|piece| !piece.private).map(|piece| piece.handle).collect();
    indices.sort_unstable();
    indices.dedup();
    indices.into_iter().map(handle).collect()
}

/// msync(2).
pub fn msync(at: usize, length: usize, flags: i32) -> Outcome<i32> {
    let pieces = pieces(at, length)?;
    let known = libc::MS_ASYNC | libc::MS_INVALIDATE | libc::MS_SYNC;
    let both = libc::MS_ASYNC | libc::MS_SYNC;
    if !at.is_multiple_of(PAGE) || flags & !known != 0 || flags & both == both {
        return Err(Errno(libc::EINVAL).into());
    }
    // The kernel's own checks: ENOMEM for holes in the range, EBUSY to invalidate what is locked. The pages live in memory, so
    // it writes nothing.
    // SAFETY: msync changes no data.
    let checked = unsafe { call(libc::SYS_msync, [at, length, flags as usize, 0, 0, 0]) };
    if checked == Err(Errno(libc::EBUSY)) {
        return Err(Errno(libc::EBUSY).into());
    }
    for handle in regions_of(&pieces) {
        if flags & libc::MS_INVALIDATE != 0 {
            handle.refresh()?;
        }
        if flags & libc::MS_SYNC != 0 {
            handle.commit(CommitOptions::default())?;
        } else if flags & libc::MS_ASYNC != 0 {
            worker::commit_soon(handle)?;
        }
    }
    checked?;
    Ok(0)
}

/// Where the range's parts are ours and where not, in order: `(start, end, mapping)`.
pub fn parts(at: usize, end: usize, pieces: &[Mapping]) -> Vec<(usize, usize, Option<Mapping>)> {
    let mut parts = Vec::new();
    let mut from = at;
    for piece in pieces {
        if from < piece.start {
            parts.push((from, piece.start, None));
        }
        parts.push((piece.start.max(at), piece.end.min(end), Some(*piece)));
        from = piece.end;
    }
    if from < end {
        parts.push((from, end, None));
    }
    parts
}

/// Rounds up to pages; `None` past the end of the address space.
pub fn page_end(at: usize, length: usize) -> Option<usize> {
    at.checked_add(length)?.checked_next_multiple_of(mem::PAGE)
}
