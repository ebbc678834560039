//! madvise, posix_madvise and process_madvise.
//!
//! Owns: the advice that means something else for a range of ours than for others. Called by: exports. Must not: let advice
//! through that fills an absent page with zeros.

use super::buffers;
use super::map::make_ready;
use super::outcome::{Exit, NOT_OURS, Outcome};
use super::range::{page_end, parts, pieces};
use crate::engine::mappings::Mapping;
use crate::engine::state::Looking;
use crate::host::{Runtime, handle, poison, runtime_if_started};
use crate::pager::prefetch::Order;
use crate::sys::app::Span;
use crate::sys::errno::Errno;
use crate::sys::mem::{self, PAGE};
use crate::sys::proc;

/// Bytes that one MADV_WILLNEED brings in at the most: it is a hint, and a program may give it for a terabyte.
const WILLNEED_BYTES: usize = 64 << 20;
/// "This process" in place of a pidfd (Linux 6.14).
const PIDFD_SELF: [i32; 2] = [-10_000, -10_001];

/// Advice that is not simply the kernel's.
#[derive(Clone, Copy)]
enum Care {
    /// Children get the range, or not.
    Fork { kept: bool },
    /// The file's pages become zeros.
    Remove,
    /// Bring in.
    WillNeed,
    /// What the prefetcher may expect.
    Order(Order),
    /// Bring in and touch.
    Populate { write: bool },
    /// The program's own guards.
    Guard { install: bool },
    /// Huge pages hold neighbours that nobody fetched.
    Huge,
    /// What a private mapping has of its own goes.
    Drop,
}

fn care(advice: i32) -> Option<Care> {
    Some(match advice {
        libc::MADV_DONTFORK => Care::Fork { kept: true },
        libc::MADV_DOFORK => Care::Fork { kept: false },
        libc::MADV_REMOVE => Care::Remove,
        libc::MADV_WILLNEED => Care::WillNeed,
        libc::MADV_NORMAL => Care::Order(Order::Unknown),
        libc::MADV_RANDOM => Care::Order(Order::Random),
        libc::MADV_SEQUENTIAL => Care::Order(Order::Sequential),
        libc::MADV_POPULATE_READ => Care::Populate { write: false },
        libc::MADV_POPULATE_WRITE => Care::Populate { write: true },
        libc::MADV_HUGEPAGE => Care::Huge,
        libc::MADV_DONTNEED | mem::MADV_DONTNEED_LOCKED if poison::any() => Care::Drop,
        mem::MADV_GUARD_INSTALL => Care::Guard { install: true },
        mem::MADV_GUARD_REMOVE => Care::Guard { install: false },
        // The rest, and what is unknown, touches no absent page.
        _ => return None,
    })
}

/// madvise(2).
pub fn madvise(at: usize, length: usize, advice: i32) -> Outcome<i32> {
    let Some(care) = care(advice) else { return Err(NOT_OURS) };
    let Some(end) = page_end(at, length).filter(|_| at.is_multiple_of(PAGE)) else { return Err(NOT_OURS) };
    let _looking = Looking::start();
    let pieces = pieces(at, end - at)?;
    let runtime = runtime_if_started().ok_or(NOT_OURS)?;
    let mut hole = false;
    for (from, to, piece) in parts(at, end, &pieces) {
        let done = match piece {
            // SAFETY: the program's own wish about its own memory.
            None => unsafe { mem::madvise(from, to - from, advice) },
            Some(piece) if matches!(care, Care::Drop) => drop_copies(runtime, &piece, (from, to), advice),
            Some(piece) => advise(runtime, &piece, (from, to), care),
        };
        match done {
            // A hole is told at the end; what lies behind it is advised all the same.
            Err(Errno(libc::ENOMEM)) if piece.is_none() && !matches!(care, Care::Populate { .. }) => {
                hole = true
            }
            done => done?,
        }
    }
    if hole { Err(Errno(libc::ENOMEM).into()) } else { Ok(0) }
}

/// MADV_DONTFORK, in the table alone: for the kernel it is on all of ours at all times but in a fork.
pub(super) fn keep_from_children(runtime: &Runtime, from: usize, to: usize, kept: bool) -> Result<(), Errno> {
    let mut table = runtime.mappings.write();
    table.edit(from, to, |piece| piece.kept = kept)?;
    table.join(from, to);
    Ok(())
}

fn advise(runtime: &Runtime, piece: &Mapping, range: (usize, usize), care: Care) -> Result<(), Errno> {
    let (from, to) = range;
    match care {
        Care::Fork { kept } => keep_from_children(runtime, from, to, kept),
        Care::Remove => up_to_locked(range, |from, to| {
            if piece.private || !piece.may_write {
                return Err(Errno(libc::EACCES));
            }
            handle(piece.handle).punch(piece.page_at(from) * PAGE as u64, (to - from) as u64)
        }),
        Care::WillNeed => {
            let to = to.min(from.saturating_add(WILLNEED_BYTES));
            let inside = handle(piece.handle).pages_inside()?;
            // What can't be had now is had, or not, when it is touched.
            let _ =
                handle(piece.handle).bring_in(piece.page_at(from), (piece.page_at(to - 1) + 1).min(inside));
            Ok(())
        }
        Care::Populate { write } => populate(runtime, piece, range, write),
        Care::Guard { install: true } => {
            up_to_locked(range, |from, to| guard(runtime, piece, (from, to), true))
        }
        Care::Guard { install: false } => guard(runtime, piece, range, false),
        Care::Order(order) => {
            // Of a part as of the whole: it is a hint, and a mapping has one prefetcher. For the kernel it makes the part a mapping
            // of its own, which mremap will notice.
            piece.state.detector.expect(order);
            let advice = match order {
                Order::Unknown => libc::MADV_NORMAL,
                Order::Random => libc::MADV_RANDOM,
                Order::Sequential => libc::MADV_SEQUENTIAL,
            };
            // SAFETY: this advice touches no data.
            unsafe { mem::madvise(from, to - from, advice) }
        }
        Care::Drop => drop_copies(runtime, piece, range, libc::MADV_DONTNEED),
        // A kernel without huge pages refuses both alike.
        // SAFETY: this advice touches no data.
        Care::Huge => unsafe { mem::madvise(from, to - from, libc::MADV_NOHUGEPAGE) },
    }
}

fn populate(runtime: &Runtime, piece: &Mapping, range: (usize, usize), write: bool) -> Result<(), Errno> {
    let (from, to) = range;
    let needs = if write { libc::PROT_WRITE } else { libc::PROT_READ | libc::PROT_EXEC };
    if piece.fenced {
        return Err(Errno(libc::EFAULT));
    }
    if piece.prot & needs == 0 {
        return Err(Errno(libc::EINVAL));
    }
    let behind = make_ready(runtime, piece, from, to, write).map_err(|_| Errno(libc::EFAULT))?;
    if from < behind {
        let advice = if write { libc::MADV_POPULATE_WRITE } else { libc::MADV_POPULATE_READ };
        // SAFETY: a touch of each page.
        unsafe { mem::madvise(from, behind - from, advice)? };
    }
    if behind < to { Err(Errno(libc::EFAULT)) } else { Ok(()) }
}

/// Advice that locked memory does not take: what lies before it is advised, then it is EINVAL.
fn up_to_locked(
    (from, to): (usize, usize),
    advise: impl FnOnce(usize, usize) -> Result<(), Errno>,
) -> Result<(), Errno> {
    let (mut free, mut locked) = (from, to + PAGE);
    while locked - free > PAGE {
        let middle = (free + (locked - free) / 2).next_multiple_of(PAGE).min(locked - PAGE);
        if mem::is_locked(free, middle - free) { locked = middle } else { free = middle }
    }
    if free > from {
        advise(from, free)?;
    }
    if free < to { Err(Errno(libc::EINVAL)) } else { Ok(()) }
}

/// The kernel's guards and write protection don't mix (an armed page with a guard never gets anywhere), and on the rung with
/// guards absent pages have them already. So the range loses all access instead, in the table.
fn guard(runtime: &Runtime, piece: &Mapping, range: (usize, usize), install: bool) -> Result<(), Errno> {
    let (from, to) = range;
    let mut table = runtime.mappings.write();
    for piece in table.edit(from, to, |piece| piece.fence(install))? {
        runtime.engine().protect(&piece)?;
    }
    table.join(from, to);
    drop(table);
    // Guards take the place of private copies.
    if install && piece.private { drop_copies(runtime, piece, range, libc::MADV_DONTNEED) } else { Ok(()) }
}

/// What was dropped is no longer poisoned either, and what is stored there from now on must not be dropped when the page can be had.
fn drop_copies(
    runtime: &Runtime,
    piece: &Mapping,
    (from, to): (usize, usize),
    advice: i32,
) -> Result<(), Errno> {
    let _table = runtime.mappings.write();
    // SAFETY: the program's own wish.
    unsafe { mem::madvise(from, to - from, advice)? };
    if piece.private {
        poison::forget(from, to);
    }
    Ok(())
}

/// posix_madvise(3), which returns its error, and whose DONTNEED does nothing.
pub fn posix_madvise(at: usize, length: usize, advice: i32) -> i32 {
    const POSIX_MADV_DONTNEED: i32 = 4;
    if advice == POSIX_MADV_DONTNEED {
        return 0;
    }
    let done = match madvise(at, length, advice) {
        Ok(_) => Ok(()),
        Err(Exit::Fail(failed)) => Err(failed),
        // SAFETY: the program's own wish.
        Err(Exit::Pass(_)) => unsafe { mem::madvise(at, length, advice) },
    };
    done.map_or_else(|failed| failed.0, |()| 0)
}

/// process_madvise(2) on this very process: each range by itself. What one may do to another process touches no absent page.
pub fn process_madvise(
    pidfd: i32,
    ranges: *const libc::iovec,
    count: usize,
    advice: i32,
    flags: u32,
) -> Outcome<isize> {
    if runtime_if_started().is_none()
        || care(advice).is_none()
        || flags != 0
        || count > 1024
        || !is_own(pidfd)
    {
        return Err(NOT_OURS);
    }
    let ranges: Vec<Span> = buffers::vectors(ranges, count as i32)?;
    let ours = |span: &&Span| pieces(span.at, span.length).is_ok();
    if !ranges.iter().any(|span| ours(&span)) {
        return Err(NOT_OURS);
    }
    let mut done = 0;
    for span in ranges {
        let advised = match madvise(span.at, span.length, advice) {
            Ok(_) => Ok(()),
            Err(Exit::Fail(errno)) => Err(errno),
            // SAFETY: the program's own wish.
            Err(Exit::Pass(_)) => unsafe { mem::madvise(span.at, span.length, advice) },
        };
        match advised {
            Ok(()) => done += span.length as isize,
            Err(errno) if done == 0 => return Err(errno.into()),
            Err(_) => return Ok(done),
        }
    }
    Ok(done)
}

/// Whether a pidfd is one of this process.
fn is_own(pidfd: i32) -> bool {
    PIDFD_SELF.contains(&pidfd)
        || proc::pid_of(pidfd) == Some(rustix::process::getpid().as_raw_nonzero().get())
}
