//! Ranges of addresses that a call names: which parts are mappings of ours.
//!
//! Owns: buffers of system calls (bringing them in where the kernel can't fault), msync, madvise. Called by: exports and the
//! other families. Must not: change the mapping table.

use super::outcome::{NOT_OURS, Outcome};
use super::worker;
use crate::engine::mappings::Mapping;
use crate::host::{Handle, handle, runtime_if_started};
use crate::pager::commit::CommitOptions;
use crate::sys::app::Span;
use crate::sys::errno::Errno;
use crate::sys::mem::{self, PAGE};
use crate::sys::syscall::call;

/// Calls on a buffer are tried again so often when another thread's harvest protects it in between.
pub const BUFFER_TRIES: u32 = 16;

/// Makes a buffer ready for the kernel to read, or with `write` to fill. Does nothing where kernel faults are served.
pub fn prepare(span: Span, write: bool) -> Result<(), Errno> {
    let Some(runtime) = runtime_if_started() else { return Ok(()) };
    if runtime.engine().kernel_faults() || !runtime.mappings.may_overlap(span.at, span.end()) {
        return Ok(());
    }
    for mapping in runtime.mappings.overlapping(span.at, span.end()) {
        // Behind the end of the file there is nothing to bring in; the kernel says EFAULT there.
        let inside = handle(mapping.handle).pages_inside()?;
        if inside <= mapping.first_page {
            continue;
        }
        let end = mapping.address_of(inside.min(mapping.end_page()) - 1) + PAGE;
        let (from, to) = (span.at.max(mapping.start), span.end().min(end));
        if mapping.prot != libc::PROT_NONE && from < to {
            runtime.engine().prepare(&mapping, from, to, write)?;
        }
    }
    Ok(())
}

/// Whether a buffer needs [`prepare`] at all.
#[inline]
pub fn needs_care(span: Span) -> bool {
    runtime_if_started().is_some_and(|runtime| {
        runtime.mappings.may_overlap(span.at, span.end()) && !runtime.engine().kernel_faults()
    })
}

/// Makes a call whose buffers were prepared, again if a harvest came in between.
pub fn with_buffers(
    spans: &[Span],
    write: bool,
    make: impl Fn() -> Result<usize, Errno>,
) -> Result<usize, Errno> {
    if !spans.iter().any(|span| needs_care(*span)) {
        return make();
    }
    let mut tries = 0;
    loop {
        for span in spans {
            prepare(*span, write)?;
        }
        let result = make();
        tries += 1;
        if result != Err(Errno(libc::EFAULT)) || tries == BUFFER_TRIES {
            return result;
        }
    }
}

fn pieces(at: usize, length: usize) -> Result<Vec<Mapping>, super::outcome::Exit> {
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

/// madvise(2).
pub fn madvise(at: usize, length: usize, advice: i32) -> Outcome<i32> {
    let pieces = pieces(at, length)?;
    let runtime = runtime_if_started().ok_or(NOT_OURS)?;
    let end = at.saturating_add(length);
    let clip = |piece: &Mapping| (at.max(piece.start), end.min(piece.end));
    match advice {
        // Copied to children or not is ours to say (DESIGN.md, fork).
        libc::MADV_DOFORK | libc::MADV_HUGEPAGE => Ok(0),
        libc::MADV_REMOVE => {
            for piece in &pieces {
                if piece.private || !piece.may_write {
                    return Err(Errno(if piece.private { libc::EINVAL } else { libc::EACCES }).into());
                }
                let (from, to) = clip(piece);
                let offset = piece.page_at(from) * PAGE as u64;
                handle(piece.handle).punch(offset, (to - from) as u64)?;
            }
            Ok(0)
        }
        libc::MADV_WILLNEED | libc::MADV_POPULATE_READ | libc::MADV_POPULATE_WRITE => {
            for piece in &pieces {
                let (from, to) = clip(piece);
                let handle = handle(piece.handle);
                let last = (piece.page_at(to - 1) + 1).min(handle.pages_inside()?);
                handle.bring_in(piece.page_at(from), last)?;
                if advice != libc::MADV_WILLNEED && !runtime.engine().kernel_faults() {
                    runtime.engine().prepare(piece, from, to, advice == libc::MADV_POPULATE_WRITE)?;
                }
            }
            Err(NOT_OURS)
        }
        _ => Err(NOT_OURS),
    }
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
