//! Pages that the kernel may store into at any moment, without a fault that anyone could serve: alternate signal stacks, and the
//! words of robust mutexes that are held.
//!
//! Owns: which pages these are. Called by: the engines' harvests, which leave them open; the table of mappings, when a range goes.
//! Must not: take a lock: a harvest asks with a block locked.
//!
//! A pin costs its page a checksum at each commit, and nothing is wrong with one too many. P1: a page is pinned before it is
//! opened, and a harvest asks with the page's block locked; so either the harvest sees the pin, or the opening comes after its
//! protection.

use core::sync::atomic::{AtomicUsize, Ordering};

use crate::sys::mem::PAGE;

/// Pinned pages of a process at the most; what goes beyond that is opened, and protected again by the next harvest.
pub const PINS_MAX: usize = 1024;

/// Addresses of pages; 0 is free.
static PINS: [AtomicUsize; PINS_MAX] = [const { AtomicUsize::new(0) }; PINS_MAX];
/// The first word behind all that were ever used.
static USED: AtomicUsize = AtomicUsize::new(0);

fn each() -> impl Iterator<Item = &'static AtomicUsize> {
    PINS.iter().take(USED.load(Ordering::SeqCst))
}

/// Pins the page that holds an address; false if there is no room.
pub fn add(address: usize) -> bool {
    let page = address & !(PAGE - 1);
    if each().any(|pin| pin.load(Ordering::SeqCst) == page) {
        return true;
    }
    for (i, pin) in PINS.iter().enumerate() {
        if pin.compare_exchange(0, page, Ordering::SeqCst, Ordering::Relaxed).is_ok() {
            USED.fetch_max(i + 1, Ordering::SeqCst);
            return true;
        }
    }
    false
}

/// Whether any page of `from..to` is pinned.
pub fn covers(from: usize, to: usize) -> bool {
    each().any(|pin| (from..to).contains(&pin.load(Ordering::SeqCst)))
}

/// Nothing in `from..to` is pinned any more.
pub fn remove(from: usize, to: usize) {
    for pin in each() {
        let page = pin.load(Ordering::SeqCst);
        if page != 0 && (from..to).contains(&page) {
            let _ = pin.compare_exchange(page, 0, Ordering::SeqCst, Ordering::Relaxed);
        }
    }
}
