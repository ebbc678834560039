//! mremap and remap_file_pages: mappings that move, grow, shrink, or show other pages.
//!
//! Owns: what the kernel's own rules for both ask for. Called by: exports. Must not: leave a moment in which a page of ours is
//! accessible and unregistered: a move drops the registration, so it happens without access.

use super::advice;
use super::map::{self, Request, reopen, replacing, shut};
use super::outcome::{NOT_OURS, Outcome};
use super::range::page_end;
use crate::engine::mappings::Mapping;
use crate::engine::state::{Looking, MapState};
use crate::host::{Runtime, handle, poison, runtime_if_started};
use crate::log;
use crate::sys::errno::Errno;
use crate::sys::mem::{self, PAGE};

/// The arguments of mremap(2), lengths in whole pages.
#[derive(Clone, Copy)]
struct Move {
    at: usize,
    old: usize,
    new: usize,
    flags: i32,
    to: usize,
}

impl Move {
    fn has(&self, flag: i32) -> bool {
        self.flags & flag != 0
    }

    /// Whether the kernel refuses the arguments, whatever is mapped: it is left to say so.
    fn is_refused(&self) -> bool {
        let known = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED | libc::MREMAP_DONTUNMAP;
        let (fixed, dont_unmap) = (self.has(libc::MREMAP_FIXED), self.has(libc::MREMAP_DONTUNMAP));
        let (end, behind) = (self.at.checked_add(self.old), self.to.checked_add(self.new));
        let overlaps = || end.is_none_or(|end| end > self.to) && behind.is_none_or(|behind| behind > self.at);
        !self.at.is_multiple_of(PAGE)
            || self.new == 0
            || self.flags & !known != 0
            || (fixed || dont_unmap) && !self.has(libc::MREMAP_MAYMOVE)
            || dont_unmap && self.old != self.new
            || (fixed || dont_unmap) && (!self.to.is_multiple_of(PAGE) || behind.is_none() || overlaps())
    }
}

/// mremap(2).
pub fn remap(at: usize, old: usize, new: usize, flags: i32, to: usize) -> Outcome<usize> {
    let Some(runtime) = runtime_if_started() else { return Err(NOT_OURS) };
    let (Some(old), Some(new)) = (page_end(0, old), page_end(0, new)) else { return Err(NOT_OURS) };
    let Some(old_end) = page_end(at, old) else { return Err(NOT_OURS) };
    let wish = Move { at, old, new, flags, to };
    let fixed = wish.has(libc::MREMAP_FIXED);
    let target = fixed && runtime.mappings.may_overlap(to, to.saturating_add(new));
    if wish.is_refused() || !target && !runtime.mappings.may_overlap(at, old_end.max(at + 1)) {
        return Err(NOT_OURS);
    }
    let _looking = Looking::start();
    let source = runtime.mappings.overlapping(at, old_end.max(at + 1));
    let Some(first) = source.first().copied() else {
        if !target {
            return Err(NOT_OURS);
        }
        // SAFETY: the program's own wish, for memory that is not ours.
        let make = || unsafe { mem::mremap(at, old, new, flags, to) };
        return Ok(replacing(runtime, &mut runtime.mappings.write(), (to, new), make)?);
    };
    let moves = new > old || fixed || wish.has(libc::MREMAP_DONTUNMAP);
    if first.start > at {
        // Part of the range is someone else's, which matters only if it moves.
        if moves || old == 0 {
            return Err(Errno(libc::EFAULT).into());
        }
        // SAFETY: changes nothing; an error if nothing is mapped there.
        unsafe { mem::mremap(at, PAGE, PAGE, 0, 0)? };
    } else if old == 0 {
        return duplicate(runtime, &first, &wish);
    }
    if moves && !is_one(&source, at + old.min(new)) {
        return Err(Errno(libc::EFAULT).into());
    }
    if new < old {
        // Of several mappings too, and of what is none.
        map::unmap_range(runtime, at + new, old - new)?;
    }
    let wish = Move { old: old.min(new), ..wish };
    if !moves || !fixed && !wish.has(libc::MREMAP_DONTUNMAP) && grow_in_place(runtime, &wish)? {
        return Ok(at);
    }
    relocate(runtime, &wish)
}

/// Whether pieces are one mapping for the kernel, up to `end`.
fn is_one(pieces: &[Mapping], end: usize) -> bool {
    pieces.windows(2).all(|pair| pair[0].goes_on_in(&pair[1]))
        && pieces.last().is_some_and(|last| last.end >= end)
}

/// An old length of 0: a second mapping of what a shared one shows.
fn duplicate(runtime: &Runtime, of: &Mapping, wish: &Move) -> Outcome<usize> {
    if of.private || !wish.has(libc::MREMAP_MAYMOVE) {
        return Err(Errno(libc::EINVAL).into());
    }
    let fixed = if wish.has(libc::MREMAP_FIXED) { libc::MAP_FIXED } else { 0 };
    let locked = if mem::is_locked(wish.at, PAGE) { libc::MAP_LOCKED } else { 0 };
    let request = Request {
        at: if fixed == 0 { 0 } else { wish.to },
        length: wish.new,
        // The program's guards stay where they are.
        prot: of.asked,
        flags: libc::MAP_SHARED | fixed | locked,
        number: -1,
        offset: (of.page_at(wish.at) * PAGE as u64) as i64,
    };
    let at = map::map_region(handle(of.handle), &request, false, of.may_write)?;
    if of.kept {
        advice::keep_from_children(runtime, at, at + wish.new, true)?;
    }
    Ok(at)
}

/// Grows a mapping where it lies, if there is room behind it. What it shows stays as it is all the while, since other threads may
/// be at it: only the kernel's mapping of its last page grows, and what is new becomes a mapping of its own that is then joined.
fn grow_in_place(runtime: &'static Runtime, wish: &Move) -> Result<bool, Errno> {
    let (end, more) = (wish.at + wish.old, wish.new - wish.old);
    let last_page = end - PAGE;
    let mut table = runtime.mappings.write();
    let last = runtime.mappings.find(last_page).filter(|last| last.end == end);
    // Locked memory grows filled (M1), so it loses its access first.
    let Some(last) = last.filter(|_| !mem::is_locked(last_page, PAGE)) else { return Ok(false) };
    // SAFETY: the program's own wish; nothing else lies there if it succeeds.
    let make = || unsafe { mem::mremap(last_page, PAGE, PAGE + more, 0, 0) };
    if runtime.engine().with_page_shut(&last, last_page, make).is_err() {
        // No room here: to another place, or an error that is the kernel's to name.
        return Ok(false);
    }
    let block_bytes = last.state.block_bytes;
    let (first_page, state) = (last.end_page(), MapState::new(end, end + more, block_bytes));
    let (prot, fenced) = (last.asked, false);
    let grown = Mapping { start: end, end: end + more, first_page, state, prot, fenced, ..last };
    let entered = table.insert(&grown);
    drop(table);
    let taken = entered.and_then(|()| runtime.engine().take_charge(&grown, handle(grown.handle)));
    let mut table = runtime.mappings.write();
    if let Err(errno) = taken {
        table.remove(end);
        // SAFETY: nobody has seen it.
        unsafe { mem::munmap(end, more)? };
        return Err(errno);
    }
    table.join(end, end);
    log::debug!("mremap {:#x}, {} bytes, in place", wish.at, wish.new);
    Ok(true)
}

/// What is locked together with the range to be moved: to the kernel, memory that is locked and memory that is not are two mappings, and so
/// is what lies before and behind the place that the range goes to.
fn locked_around(runtime: &Runtime, wish: &Move) -> Option<(usize, usize)> {
    let whole = runtime.mappings.find(wish.at).filter(|_| mem::is_locked(wish.at, PAGE))?;
    let (mut from, mut behind) = (wish.at, wish.at + wish.old);
    let (mut least, mut most) = (whole.start, whole.end);
    if wish.has(libc::MREMAP_FIXED) {
        let target = wish.to..wish.to.saturating_add(wish.new);
        if target.end <= from {
            least = least.max(target.end);
        }
        if target.start >= behind {
            most = most.min(target.start);
        }
    }
    while from > least && mem::is_locked(from - PAGE, PAGE) {
        from -= PAGE;
    }
    while behind < most && mem::is_locked(behind, PAGE) {
        behind += PAGE;
    }
    Some((from, behind))
}

/// Moves or grows a range that is one mapping.
fn relocate(runtime: &'static Runtime, wish: &Move) -> Outcome<usize> {
    let Move { at, old, new, flags, to } = *wish;
    let end = at + old;
    let locked = wish.has(libc::MREMAP_DONTUNMAP).then(|| locked_around(runtime, wish)).flatten();
    let mut table = runtime.mappings.write();
    let mut cut = |from: usize, to: usize| -> Result<Vec<Mapping>, Errno> {
        table.split(from)?;
        table.split(to)?;
        Ok(runtime.mappings.overlapping(from, to))
    };
    // What lies at the target goes with the move itself: unmapped before, the place would be anyone's.
    let replaced = if wish.has(libc::MREMAP_FIXED) { cut(to, to + new)? } else { Vec::new() };
    let pieces = cut(at, end)?;
    let Some(first) = pieces.first().copied() else { return Err(Errno(libc::EFAULT).into()) };
    // SAFETY: the program's own wish.
    let make = || unsafe { mem::mremap(at, old, new, flags, to) };
    let mut moved = shut(runtime, &replaced).and_then(|()| shut(runtime, &pieces)).and_then(|()| make());
    if moved == Err(Errno(libc::EFAULT)) && first.private && runtime.engine().in_blocks() {
        moved = move_blocks(&pieces, wish);
    }
    let moved = match moved {
        Ok(moved) => moved,
        Err(errno) => {
            reopen(runtime, &pieces);
            for piece in &replaced {
                // The kernel may have unmapped the target before it gave up.
                if mem::is_mapped(piece.start, piece.length()) {
                    reopen(runtime, &[*piece]);
                } else {
                    table.remove(piece.start);
                }
            }
            table.join(at, end);
            return Err(errno.into());
        }
    };
    let poisoned = poison::take(at, end);
    for piece in replaced.iter().chain(&pieces) {
        table.remove(piece.start);
    }
    poison::put(poisoned.into_iter().map(|address| address - at + moved));
    let fresh = |start: usize, length: usize| {
        let end = start + length;
        let block_bytes = runtime.engine().block_pages(length) as usize * PAGE;
        Mapping { start, end, state: MapState::new(start, end, block_bytes), ..first }
    };
    // What is left behind (MREMAP_DONTUNMAP) shows the file anew.
    let left = wish.has(libc::MREMAP_DONTUNMAP).then(|| fresh(at, old));
    let all: Vec<Mapping> = left.into_iter().chain([fresh(moved, new)]).collect();
    for mapping in &all {
        table.insert(mapping)?;
    }
    drop(table);
    for mapping in &all {
        runtime.engine().take_charge(mapping, handle(mapping.handle))?;
    }
    if let Some((from, to)) = locked {
        // The kernel unlocks all of the mapping of which a part stays behind; here the part was one of its own by then.
        let _ = mem::munlock(from, to - from);
    }
    if new > old && mem::is_locked(moved, PAGE) {
        map::populate(runtime, &all[all.len() - 1], moved + old, moved + new);
    }
    log::debug!("mremap {at:#x} to {moved:#x}, {new} bytes");
    Ok(moved)
}

/// Blocks of a private mapping stay mappings of their own for the kernel once some of them were written, even with one protection,
/// and it moves one at a time.
fn move_blocks(pieces: &[Mapping], wish: &Move) -> Result<usize, Errno> {
    let Move { at, old, new, flags, to } = *wish;
    let fd = handle(pieces[0].handle).region.cache.fd().raw();
    let behind = (pieces[0].first_page * PAGE as u64) + old as u64;
    let tail = |start: usize, flags: i32| {
        if new == old {
            return Ok(0);
        }
        // SAFETY: at a place that is free, or was reserved below.
        unsafe { mem::mmap(start + old, new - old, libc::PROT_NONE, libc::MAP_PRIVATE | flags, fd, behind) }
    };
    if !wish.has(libc::MREMAP_FIXED | libc::MREMAP_DONTUNMAP) {
        let grown = tail(at, libc::MAP_FIXED_NOREPLACE);
        if grown.is_ok() {
            return Ok(at);
        } else if !wish.has(libc::MREMAP_MAYMOVE) {
            return Err(Errno(libc::ENOMEM));
        }
    }
    let target = if wish.has(libc::MREMAP_FIXED) {
        to
    } else {
        // An address that is not to be had is a hint, as for mmap.
        let hint = if wish.has(libc::MREMAP_DONTUNMAP) { to & !(PAGE - 1) } else { 0 };
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a place that is free.
        unsafe { mem::mmap(hint, new, libc::PROT_NONE, flags, -1, 0)? }
    };
    let step = pieces.iter().map(|piece| piece.state.block_bytes).min().unwrap_or(PAGE);
    let how = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED | flags & libc::MREMAP_DONTUNMAP;
    let carry = |start: usize, there: usize, back: bool| {
        let (from, end) = (start, (start / step + 1) * step);
        let length = end.min(at + old) - from;
        let (from, there) = if back { (there, from) } else { (from, there) };
        // SAFETY: from the program's range to the one that was reserved for it, or back.
        unsafe { mem::mremap(from, length, length, how, there) }.map(|_| length)
    };
    let mut from = at;
    while from < at + old {
        match carry(from, target + (from - at), false) {
            Ok(length) => from += length,
            Err(errno) => {
                // All of it, or nothing.
                let mut undone = at;
                while undone < from {
                    undone += carry(undone, target + (undone - at), true)?;
                }
                return Err(errno);
            }
        }
    }
    tail(target, libc::MAP_FIXED)?;
    Ok(target)
}

/// remap_file_pages(2): from now on a range of a shared mapping shows other pages of the file.
pub fn remap_file_pages(at: usize, length: usize, prot: i32, page: usize, flags: i32) -> Outcome<i32> {
    let Some(runtime) = runtime_if_started() else { return Err(NOT_OURS) };
    let (at, length) = (at & !(PAGE - 1), length & !(PAGE - 1));
    let end = at.saturating_add(length);
    if prot != 0 || end <= at || !runtime.mappings.may_overlap(at, end) {
        return Err(NOT_OURS);
    }
    let _looking = Looking::start();
    let pieces = runtime.mappings.overlapping(at, end);
    let Some(first) = pieces.first().copied() else { return Err(NOT_OURS) };
    let offset = (page as u64).checked_mul(PAGE as u64).and_then(|offset| i64::try_from(offset).ok());
    let same = |pair: &[Mapping]| pair[0].end == pair[1].start && pair[0].handle == pair[1].handle;
    let whole = first.start <= at
        && pieces.windows(2).all(same)
        && pieces.last().is_some_and(|last| last.end >= end)
        // (For the kernel a mapping of a file that was opened for reading is not a shared one.)
        && pieces.iter().all(|piece| !piece.private && piece.may_write && piece.asked == first.asked);
    let (true, Some(offset)) = (whole, offset) else { return Err(Errno(libc::EINVAL).into()) };
    let locked = if mem::is_locked(at, length) { libc::MAP_LOCKED } else { 0 };
    let flags = libc::MAP_SHARED | libc::MAP_FIXED | libc::MAP_POPULATE | locked | flags & libc::MAP_NONBLOCK;
    let request = Request { at, length, prot: first.asked, flags, number: -1, offset };
    map::map_region(handle(first.handle), &request, false, first.may_write)?;
    Ok(0)
}
