//! New memory is registered before the program has it.
//!
//! Owns: what is registered by the program's own threads, until the monitor or the keeper knows of it. Called by: abi, after mmap and brk,
//! libc's inner ones too, and before mremap. Must not: take the state's lock: the thread's stack may have to grow.
//!
//! A9 in docs/DESIGN.md. Whoever maps as he grows fills what is new before the keeper's next look. Here its first touches come to the
//! monitor from the beginning, who slows them down.

use core::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use core::time::Duration;
use std::time::Instant;

use super::areas::{self, Ranges};
use super::full::has_passed;
use super::{BEGUN, Far, MISSED, State, fork, is_started, is_wanted, kick, still};
use crate::sync::QuietGuard;
use crate::sys::clock::monotonic_ns;
use crate::sys::futex;
use crate::sys::mem::{self, PAGE};
use crate::sys::uffd::MODE_MISSING;

/// Mappings that can wait to be known.
const NEWS_MAX: usize = 64;
/// How long a thread waits for a moment in which all that was told is known, beside as long as it takes to fill what is new; then the keeper
/// registers that with its next look.
const FOLLOWED_LIMIT: Duration = Duration::from_millis(5);
/// The latter at the most: who maps may hold a lock.
const FILL_LIMIT: Duration = Duration::from_millis(200);
/// What can be filled.
const BYTES_A_MICROSECOND: usize = 2048;
/// How long a thread that maps much waits for the keeper to look: he may just have been made, in a forked child, and others of his kind
/// go first, too.
const LOOK_LIMIT: Duration = Duration::from_millis(500);
/// A look that is not older says enough.
const LOOK_AGE: Duration = Duration::from_millis(1);
/// Somebody writes there.
const BUSY: usize = 1;

/// Pages that may be mapped before far memory would have to begin, if all of them were filled: what the keeper's last look left, without
/// what was mapped since.
static LEFT: AtomicI64 = AtomicI64::new(0);
/// The same with it.
static LEFT_AT_LOOK: AtomicI64 = AtomicI64::new(0);
/// Whether nothing was left.
static NEAR: AtomicBool = AtomicBool::new(false);
/// The most that somebody is about to have more, in pages, since the last look.
static WANTED: AtomicI64 = AtomicI64::new(0);
/// Changes with each look.
static LOOKS: AtomicU32 = AtomicU32::new(0);
/// When the last one was, on the monotonic clock, in nanoseconds.
static LOOKED: AtomicU64 = AtomicU64::new(0);

/// What was registered, and is not in [`State`] yet: first byte, first byte behind. The latter is 0 where nothing is.
pub(super) struct News([(AtomicUsize, AtomicUsize); NEWS_MAX]);

impl News {
    pub(super) const fn new() -> News {
        News([const { (AtomicUsize::new(0), AtomicUsize::new(0)) }; NEWS_MAX])
    }

    /// False if there is no room.
    fn tell(&self, start: usize, end: usize) -> bool {
        let is_taken = |(_, place): &&(AtomicUsize, AtomicUsize)| {
            place.compare_exchange(0, BUSY, Ordering::SeqCst, Ordering::Relaxed).is_ok()
        };
        let Some((first, behind)) = self.0.iter().find(is_taken) else { return false };
        first.store(start, Ordering::Relaxed);
        behind.store(end, Ordering::SeqCst);
        true
    }

    /// All that was told is known from now on.
    pub(super) fn take(&self, into: &mut Ranges) {
        for (first, behind) in &self.0 {
            let end = behind.load(Ordering::SeqCst);
            if end > BUSY {
                into.add(first.load(Ordering::Relaxed), end);
                behind.store(0, Ordering::SeqCst);
            }
        }
    }
}

/// Far memory of this process.
fn begun() -> Option<&'static Far> {
    // SAFETY: null, or a leaked box.
    let far = unsafe { BEGUN.load(Ordering::Acquire).as_ref() }?;
    // Not in a vfork child, nor in a forked one that has not begun.
    (far.owner == rustix::process::getpid()).then_some(far)
}

/// The same if it serves new memory.
fn serving() -> Option<&'static Far> {
    begun().filter(|far| far.serves.load(Ordering::Acquire))
}

/// The most that somebody is about to have more than there is, in pages.
pub(super) fn wanted() -> usize {
    WANTED.swap(0, Ordering::Relaxed).max(0) as usize
}

/// The keeper has looked, and so many pages are left until far memory begins.
pub(super) fn looked(left: i64) {
    LEFT.store(left, Ordering::Relaxed);
    LEFT_AT_LOOK.store(left, Ordering::Relaxed);
    NEAR.store(left <= 0, Ordering::Relaxed);
    LOOKED.store(monotonic_ns(), Ordering::Relaxed);
    LOOKS.fetch_add(1, Ordering::Release);
    futex::wake(&LOOKS, i32::MAX);
}

/// Has the keeper look, unless he has just done so. `pages` is what will be had then.
fn have_a_look(pages: i64) {
    let since = Instant::now();
    WANTED.fetch_max(pages, Ordering::Relaxed);
    let before = LOOKS.load(Ordering::Acquire);
    kick();
    while LOOKS.load(Ordering::Acquire) == before && since.elapsed() < LOOK_LIMIT {
        futex::wait(&LOOKS, before, Some(LOOK_AGE));
    }
}

/// mmap(2) made a mapping.
pub fn mapped(at: usize, length: usize, prot: i32, flags: i32) {
    const KINDS: i32 = libc::MAP_ANONYMOUS | libc::MAP_PRIVATE | libc::MAP_SHARED;
    const STAYS: i32 = libc::MAP_STACK | libc::MAP_GROWSDOWN | libc::MAP_HUGETLB | libc::MAP_LOCKED;
    let fills = prot & libc::PROT_WRITE != 0 && flags & libc::MAP_NORESERVE == 0;
    let is_memory = flags & KINDS == libc::MAP_ANONYMOUS | libc::MAP_PRIVATE;
    if is_memory && flags & STAYS == 0 && prot & libc::PROT_EXEC == 0 {
        appeared(at, at.saturating_add(length), fills);
    }
}

/// Private anonymous memory is there that was not before: mmap(2) made it, or brk(2). The program knows nothing of it yet. `fills` unless
/// it is there to be used in part.
pub fn appeared(start: usize, end: usize, fills: bool) {
    let (start, end) = (start.next_multiple_of(PAGE), end.next_multiple_of(PAGE));
    if !is_wanted() || start >= end || mem::is_ours(start) {
        return;
    }
    let is_near = NEAR.load(Ordering::Relaxed) && serving().is_some();
    if !is_near && (!fills || fits(((end - start) / PAGE) as i64)) {
        return;
    }
    if let Some(far) = begun()
        && far.waits_until_followed(end - start)
    {
        register(far, start, end);
        // It may have been given up meanwhile.
        if MISSED.load(Ordering::SeqCst) {
            let _ = far.uffd.unregister(start, end - start);
        }
    }
}

/// Whether so many new pages can be filled before far memory has to begin, or it has nothing to begin with.
fn fits(pages: i64) -> bool {
    if LEFT.fetch_sub(pages, Ordering::Relaxed) >= pages || MISSED.load(Ordering::Relaxed) {
        return true;
    }
    // What was unmapped since is not counted. In a child the look was its parent's.
    if begun().is_some() && !has_passed(LOOKED.load(Ordering::Relaxed), LOOK_AGE) {
        return LEFT_AT_LOOK.load(Ordering::Relaxed) >= pages;
    }
    // There is none in a child that was made past libc.
    if !still::is_answered() {
        return true;
    }
    have_a_look(pages);
    LEFT.fetch_sub(pages, Ordering::Relaxed) >= pages
}

/// Before mremap(2) of a range. The kernel moves no range of which a part is registered, and its first mapping alone if that is not. So all
/// of it is, if it is memory that may leave at all.
pub fn before_move(at: usize, length: usize) {
    let Some(far) = begun() else { return };
    let Some(length) = length.checked_next_multiple_of(PAGE).filter(|length| *length > 0) else { return };
    let Some(end) = at.checked_add(length).filter(|_| at.is_multiple_of(PAGE)) else { return };
    let is_registered = |at: usize, length: usize| far.uffd.covers(at, length) == Some(true);
    let matters = far.serves.load(Ordering::Acquire)
        // A part of it, for all was not; what was mapped side by side is one mapping of the kernel's otherwise.
        || is_registered(at, PAGE)
        || is_registered(end - PAGE, PAGE);
    if matters && far.uffd.covers(at, length) == Some(false) && is_memory(at, end) {
        register(far, at, end);
    }
}

/// Whether all of a range is private anonymous memory.
fn is_memory(start: usize, end: usize) -> bool {
    let mut memory = Ranges::new();
    areas::anonymous().unwrap_or_default().iter().for_each(|area| memory.add(area.start, area.end));
    memory.covers(start, end)
}

/// It is known before it is so, or its end could be heard of first. If it does not come to be so, the keeper finds out: it asks the kernel
/// before it takes a page.
fn register(far: &Far, start: usize, end: usize) {
    if far.news.tell(start, end)
        && far.uffd.register(start, end - start, MODE_MISSING).is_ok()
        && is_started()
    {
        fork::keep_from_children(start, end);
    }
}

impl Far {
    /// All is known that was told of addresses before this was called; false if it took too long. What was there before had its end, and a
    /// message that comes behind the new mapping's first touch would be taken for its end (A2).
    fn waits_until_followed(&self, bytes: usize) -> bool {
        let fill = Duration::from_micros((bytes / BYTES_A_MICROSECOND) as u64);
        let limit = FOLLOWED_LIMIT + fill.min(FILL_LIMIT);
        let mut since = None;
        while self.uffd.is_changing() || self.hears.load(Ordering::SeqCst) {
            if since.get_or_insert_with(Instant::now).elapsed() > limit {
                return false;
            }
            futex::pause(Duration::from_micros(10));
        }
        true
    }

    /// The state, with all that the program's threads have registered.
    pub(super) fn lock(&self) -> QuietGuard<'_, State> {
        let mut state = self.state.lock();
        self.news.take(&mut state.registered);
        state
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_told_is_known_once_and_there_is_room_again() {
        let (news, mut known) = (News::new(), Ranges::default());
        for _ in 0..2 {
            let told = (1..).take_while(|i| news.tell(i * 0x10_000, i * 0x10_000 + PAGE)).count();
            assert_eq!(told, NEWS_MAX);
            news.take(&mut known);
            assert_eq!(known.iter().count(), NEWS_MAX);
        }
        known.remove(0, usize::MAX);
        news.take(&mut known);
        assert!(known.is_empty());
    }
}
