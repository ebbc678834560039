//! What is in memory: mlock and its kin, mincore.
//!
//! Owns: bringing in what is to be locked. Called by: exports, map. Must not: lock before the kernel agreed to, nor leave an
//! absent page inside a range whose lock was reported.

use core::sync::atomic::{AtomicI32, Ordering};

use super::buffers;
use super::map::make_ready;
use super::outcome::{NOT_OURS, Outcome};
use super::range::page_end;
use crate::engine::mappings::Mapping;
use crate::engine::state::Looking;
use crate::host::{Runtime, locked, runtime_if_started};
use crate::sys::errno::Errno;
use crate::sys::mem::{self, PAGE};
use crate::sys::syscall::call;

/// The process that asked for all its future mappings to be locked, at once and not when they are touched. (A forked child
/// does not inherit it.)
static ALL_LOCKED: AtomicI32 = AtomicI32::new(0);
/// The same for one that asked for them to be locked when they are touched.
static ALL_ON_FAULT: AtomicI32 = AtomicI32::new(0);

/// Whether mlockall(MCL_FUTURE) is in force.
pub fn all_is_locked() -> bool {
    is_own(&ALL_LOCKED)
}

/// Whether mlockall(MCL_FUTURE | MCL_ONFAULT) is in force.
pub fn future_is_locked_on_fault() -> bool {
    is_own(&ALL_ON_FAULT)
}

fn is_own(who: &AtomicI32) -> bool {
    let who = who.load(Ordering::Relaxed);
    who != 0 && who == own_pid()
}

fn own_pid() -> i32 {
    rustix::process::getpid().as_raw_nonzero().get()
}

/// mlock(2) and mlock2(2).
pub fn lock(at: usize, length: usize, flags: u32) -> Outcome<i32> {
    let Some(runtime) = runtime_if_started() else { return Err(NOT_OURS) };
    let start = at & !(PAGE - 1);
    let Some(end) = page_end(at, length) else { return Err(NOT_OURS) };
    if flags & !libc::MLOCK_ONFAULT != 0 || !runtime.mappings.may_overlap(start, end) {
        return Err(NOT_OURS);
    }
    let _looking = Looking::start();
    if runtime.engine().in_blocks() {
        // A piece of its own, until it is unlocked: what is locked takes no guards.
        let mut table = runtime.mappings.write();
        table.split(start)?;
        table.split(end)?;
    }
    // First without bringing anything in: limits and holes are told before a page is fetched.
    let kernel = |flags: u32| {
        // SAFETY: locking changes no data.
        unsafe { call(libc::SYS_mlock2, [at, length, flags as usize, 0, 0, 0]) }
    };
    kernel(libc::MLOCK_ONFAULT)?;
    ask_on_fault(runtime, start, end, flags & libc::MLOCK_ONFAULT != 0)?;
    // Before they come in: what is here from then on stays (E3).
    if let Err(errno) = locked::add(runtime, start, end) {
        let _ = unlock(at, length);
        return Err(errno.into());
    }
    if flags & libc::MLOCK_ONFAULT != 0 {
        return Ok(0);
    }
    for piece in runtime.mappings.overlapping(start, end) {
        bring_in(runtime, &piece, start.max(piece.start), end.min(piece.end));
    }
    // The kernel's own answer: ENOMEM for what could not be had, or lies behind the end of the file.
    kernel(0)?;
    Ok(0)
}

fn bring_in(runtime: &Runtime, piece: &Mapping, from: usize, to: usize) {
    if piece.prot != libc::PROT_NONE {
        // A private page that can be written is copied now, as by the kernel.
        let write = piece.private && piece.prot & libc::PROT_WRITE != 0;
        let _ = make_ready(runtime, piece, from, to, write);
    }
}

/// mlockall(2).
pub fn lock_all(flags: i32) -> Outcome<i32> {
    // SAFETY: locking changes no data.
    unsafe { call(libc::SYS_mlockall, [flags as usize, 0, 0, 0, 0, 0])? };
    let on_fault = flags & libc::MCL_ONFAULT != 0;
    let future = |asked: bool| if flags & libc::MCL_FUTURE != 0 && asked { own_pid() } else { 0 };
    ALL_LOCKED.store(future(!on_fault), Ordering::Relaxed);
    ALL_ON_FAULT.store(future(on_fault), Ordering::Relaxed);
    if let Some(runtime) = runtime_if_started().filter(|_| flags & libc::MCL_CURRENT != 0) {
        let _looking = Looking::start();
        ask_on_fault(runtime, 0, usize::MAX, on_fault)?;
        // What is more than fits comes in all the same, and does not stay.
        for piece in runtime.mappings.overlapping(0, usize::MAX) {
            let _ = locked::add(runtime, piece.start, piece.end);
        }
        if on_fault {
            return Ok(0);
        }
        for piece in runtime.mappings.overlapping(0, usize::MAX) {
            bring_in(runtime, &piece, piece.start, piece.end);
        }
    }
    Ok(0)
}

/// Notes how the program asked for a range to be locked.
fn ask_on_fault(runtime: &Runtime, start: usize, end: usize, on_fault: bool) -> Result<(), Errno> {
    let pieces = runtime.mappings.overlapping(start, end);
    if pieces.iter().all(|piece| piece.on_fault == on_fault) {
        return Ok(());
    }
    let mut table = runtime.mappings.write();
    let (from, to) = (start.max(pieces[0].start), end.min(pieces[pieces.len() - 1].end));
    table.edit(from, to, |piece| piece.on_fault = on_fault)?;
    if !runtime.engine().in_blocks() {
        table.join(from, to);
    }
    Ok(())
}

/// Calls `with` with the start and the length of each part of a range that is locked. Asks page by page if anything is.
pub fn each_locked(
    from: usize,
    to: usize,
    with: impl Fn(usize, usize) -> Result<(), Errno>,
) -> Result<(), Errno> {
    if from >= to || !mem::is_locked(from, to - from) {
        return Ok(());
    }
    let mut at = from;
    while at < to {
        let start = at;
        let locked = mem::is_locked(start, PAGE);
        while at < to && mem::is_locked(at, PAGE) == locked {
            at += PAGE;
        }
        if locked {
            with(start, at - start)?;
        }
    }
    Ok(())
}

/// munlock(2): what is no longer locked takes guards again, and need not be a piece of its own.
pub fn unlock(at: usize, length: usize) -> Outcome<i32> {
    // SAFETY: locking changes no data.
    unsafe { call(libc::SYS_munlock, [at, length, 0, 0, 0, 0])? };
    if let Some(end) = page_end(at, length) {
        locked::remove(at & !(PAGE - 1), end);
    }
    if let (Some(runtime), Some(end)) = (runtime_if_started(), page_end(at, length)) {
        let start = at & !(PAGE - 1);
        if runtime.mappings.may_overlap(start, end) {
            take_guards_again(runtime, start, end);
        }
    }
    Ok(0)
}

/// munlockall(2).
pub fn unlock_all() -> Outcome<i32> {
    ALL_LOCKED.store(0, Ordering::Relaxed);
    ALL_ON_FAULT.store(0, Ordering::Relaxed);
    // SAFETY: locking changes no data.
    unsafe { call(libc::SYS_munlockall, [0; 6])? };
    locked::remove(0, usize::MAX);
    if let Some(runtime) = runtime_if_started() {
        take_guards_again(runtime, 0, usize::MAX);
    }
    Ok(0)
}

fn take_guards_again(runtime: &Runtime, start: usize, end: usize) {
    let _ = ask_on_fault(runtime, start, end, false);
    let mut table = runtime.mappings.write();
    for piece in runtime.mappings.overlapping(start, end) {
        // If a part of it is still locked, the next guard that is refused says so.
        piece.state.unguarded.store(false, Ordering::SeqCst);
    }
    table.join(start, end);
}

/// mincore(2): the kernel's answer is about the cache file, in which an absent page is a hole. Its answer may have to go into
/// a mapping of ours.
pub fn in_core(at: usize, length: usize, into: usize) -> Result<usize, Errno> {
    buffers::filled(into as *mut u8, length.div_ceil(PAGE), |into| {
        // SAFETY: the program's own arguments.
        unsafe { call(libc::SYS_mincore, [at, length, into as usize, 0, 0, 0]) }
    })
}
