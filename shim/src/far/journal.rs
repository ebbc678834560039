//! What the program does to its addresses while a fork is under way, for the child.
//!
//! Owns: the messages since a fork wrote down what is known of each page. Called by: the monitor, with the state locked; fork, in the child.
//! Must not: allocate, where the monitor writes.
//!
//! A thread that changes addresses goes on as soon as the kernel's message of it is read, and may store what the child will find before the
//! message is followed: it can have to wait for another one (`order.rs`). So what was read is here as it was read, and then as it was
//! followed, and both numbers are one word. Memory is copied to a child with the stores of each thread up to one of them, so the child has
//! all that was read before it was made, but for a read that is under way.

use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use super::areas::{Area, Ranges};
use super::order::Told;
use crate::sys::errno::Errno;
use crate::sys::uffd::Uffd;
use crate::sys::uffd::memory::Event;

/// Messages that a fork can wait through.
const FOLLOWED_MAX: usize = 4096;
/// Messages that can be read before they are followed.
const READ_MAX: usize = 1024;

type Words = [AtomicUsize; 4];

static FOLLOWED: [Words; FOLLOWED_MAX] = [const { [const { AtomicUsize::new(0) }; 4] }; FOLLOWED_MAX];
static READ: [Words; READ_MAX] = [const { [const { AtomicUsize::new(0) }; 4] }; READ_MAX];
/// How many there are of both: the former in the upper half. More than there is room for are counted, and not kept.
static COUNTS: AtomicU64 = AtomicU64::new(0);
/// How many were followed of those that are told of in `READ`, too.
static FOLLOWING: AtomicUsize = AtomicUsize::new(0);
/// A read is under way that brings something.
static READING: AtomicBool = AtomicBool::new(false);
static IS_OPEN: AtomicBool = AtomicBool::new(false);

fn counts() -> (usize, usize) {
    let counts = COUNTS.load(Ordering::Acquire);
    ((counts >> 32) as usize, counts as u32 as usize)
}

fn set_counts(followed: usize, read: usize) {
    COUNTS.store((followed as u64) << 32 | read as u64, Ordering::SeqCst);
}

/// From now on memory is to be copied to a child; with the state locked.
pub(super) fn open() {
    IS_OPEN.store(true, Ordering::SeqCst);
}

/// What is known of each page is written down; with the state locked, so nothing was read that was not followed.
pub(super) fn begin() {
    FOLLOWING.store(0, Ordering::Relaxed);
    set_counts(0, 0);
}

/// The child is made, or is not to be.
pub(super) fn close() {
    IS_OPEN.store(false, Ordering::SeqCst);
}

/// Whether memory is to be copied to a child that is being made; with the state locked.
pub(super) fn is_open() -> bool {
    IS_OPEN.load(Ordering::SeqCst)
}

fn write(list: &[Words], at: usize, event: Event) {
    let words = match event {
        Event::Fault { .. } => return,
        Event::Removed { start, end } => [0, start, end, 0],
        Event::Unmapped { start, end } => [1, start, end, 0],
        Event::Moved { from, to, length } => [2, from, to, length],
    };
    if let Some(place) = list.get(at) {
        place.iter().zip(words).for_each(|(place, word)| place.store(word, Ordering::Relaxed));
    }
}

fn entries(list: &[Words], count: usize) -> Result<Vec<Event>, Errno> {
    let entries = list.get(..count).ok_or(Errno(libc::EAGAIN))?;
    let event = |words: &Words| {
        let [kind, a, b, c] = words.each_ref().map(|word| word.load(Ordering::Relaxed));
        match kind {
            0 => Event::Removed { start: a, end: b },
            1 => Event::Unmapped { start: a, end: b },
            _ => Event::Moved { from: a, to: b, length: c },
        }
    };
    Ok(entries.iter().map(event).collect())
}

/// Reads what has arrived, into an empty list.
pub(super) fn read_events(uffd: &Uffd, into: &mut Vec<Event>) -> Result<(), Errno> {
    if !is_open() {
        return uffd.read_events(into);
    }
    if !uffd.has_events() {
        return Err(Errno(libc::EAGAIN));
    }
    READING.store(true, Ordering::SeqCst);
    let result = uffd.read_events(into);
    let (followed, mut read) = counts();
    for event in into.iter().filter(|event| !matches!(event, Event::Fault { .. })) {
        write(&READ, read, *event);
        read += 1;
    }
    set_counts(followed, read);
    READING.store(false, Ordering::SeqCst);
    result
}

/// A message was followed. It counts once all are that were read: until then the child orders them by itself.
pub(super) fn follow(event: Event) {
    if is_open() && !matches!(event, Event::Fault { .. }) {
        let (followed, _) = counts();
        write(&FOLLOWED, followed + FOLLOWING.fetch_add(1, Ordering::Relaxed), event);
    }
}

/// All that were read were followed.
pub(super) fn all_followed() {
    if is_open() {
        let (followed, _) = counts();
        set_counts(followed + FOLLOWING.swap(0, Ordering::Relaxed), 0);
    }
}

/// In the child: what had happened when it was made, where these mappings are what it has. An error if that is not known.
pub(super) fn events(mapped: &[Area]) -> Result<Vec<Event>, Errno> {
    if READING.load(Ordering::SeqCst) {
        return Err(Errno(libc::EAGAIN));
    }
    let (followed, read) = counts();
    let mut events = entries(&FOLLOWED, followed)?;
    events.extend(ordered(entries(&READ, read)?, mapped));
    Ok(events)
}

/// What was read and not followed, in the order in which it is to be: the child's mappings say what came last.
fn ordered(read: Vec<Event>, mapped: &[Area]) -> Vec<Event> {
    let mut registered = Ranges::default();
    mapped.iter().for_each(|area| registered.add(area.start, area.end));
    let mut told = Told::default();
    read.into_iter().for_each(|event| told.add(event));
    let mut ordered = Vec::new();
    let page = crate::sys::mem::PAGE;
    // Nothing changes any more, so there is no error.
    while let Ok(parts) = told.next(&registered, |at| Ok(registered.covers(at, at + page))) {
        if parts.is_empty() {
            break;
        }
        ordered.extend(parts);
    }
    ordered
}

#[cfg(test)]
mod tests {
    use super::*;

    const P: usize = crate::sys::mem::PAGE;

    fn moved(from: usize, to: usize, pages: usize) -> Event {
        Event::Moved { from: from * P, to: to * P, length: pages * P }
    }

    fn unmapped(start: usize, end: usize) -> Event {
        Event::Unmapped { start: start * P, end: end * P }
    }

    fn area(start: usize, end: usize) -> Area {
        Area { start: start * P, end: end * P, leaves: start * P }
    }

    #[test]
    fn what_was_read_and_not_followed_is_ordered_by_what_the_child_has() {
        // 20 went to 60, then 10 went to 20; told the other way round.
        let read = vec![moved(10, 20, 4), moved(20, 60, 4), unmapped(20, 24), unmapped(10, 14)];
        let followed = [moved(20, 60, 4), moved(10, 20, 4), unmapped(10, 14)];
        assert_eq!(ordered(read, &[area(20, 24), area(60, 64)]), followed);
    }

    #[test]
    fn the_child_has_what_was_read_until_all_of_it_is_followed_and_then_what_was_followed() {
        begin();
        open();
        let all = || events(&[area(50, 54)]).unwrap();
        write(&READ, 0, moved(10, 50, 4));
        write(&READ, 1, unmapped(10, 14));
        set_counts(0, 2);
        assert_eq!(all(), [moved(10, 50, 4), unmapped(10, 14)]);
        follow(moved(10, 50, 4));
        assert_eq!(all(), [moved(10, 50, 4), unmapped(10, 14)]);
        follow(unmapped(10, 14));
        all_followed();
        assert_eq!(counts(), (2, 0));
        assert_eq!(all(), [moved(10, 50, 4), unmapped(10, 14)]);
        READING.store(true, Ordering::SeqCst);
        assert_eq!(events(&[]), Err(Errno(libc::EAGAIN)));
        READING.store(false, Ordering::SeqCst);
        set_counts(0, READ_MAX + 1);
        assert_eq!(events(&[]), Err(Errno(libc::EAGAIN)));
        close();
        begin();
    }
}
