//! The atomics of `core`, but for [`AtomicU64`].
//!
//! Owns: the translation of orderings. Called by: the library's files, which take it for `core::sync::atomic`. Must not: schedule what no
//! model asks for.
//!
//! Loom takes a sequentially consistent access for one that acquires and releases, and finds interleavings that can't be. Its fences are
//! what they should be, so such an access has one: before it or behind it, which are the two ways in which compilers make it of fences. Each
//! keeps what the language promises, and gives something beside: with the fence before, a load that only acquires may come early, ahead of
//! a sequentially consistent store; with the fence behind, one after a store that only releases may. A model is right if it is so with both.

use std::cell::Cell;
use std::fmt;
use std::sync::OnceLock;

pub use core::sync::atomic::*;

use core::sync::atomic::AtomicU64 as Plain;
use loom::sync::atomic::{AtomicU64 as Scheduled, fence as scheduled_fence};

/// An atomic word. Until [`AtomicU64::schedule`] it is one that the model knows nothing of: for words that nobody changes meanwhile.
pub struct AtomicU64 {
    plain: Plain,
    scheduled: OnceLock<Scheduled>,
}

thread_local! {
    /// Of the thread that plays a model, and so of all threads in it.
    static BEHIND: Cell<bool> = const { Cell::new(false) };
}

/// Says where the fence of a sequentially consistent access is in the models that this thread plays from now on.
pub fn put_fences_behind(behind: bool) {
    BEHIND.set(behind);
}

/// Makes an access whose ordering becomes `enough`, if it is sequentially consistent, and puts its fence beside it.
fn fenced<T>(order: Ordering, enough: Ordering, access: impl FnOnce(Ordering) -> T) -> T {
    if order != Ordering::SeqCst {
        return access(order);
    }
    let behind = BEHIND.get();
    if !behind {
        scheduled_fence(order);
    }
    let value = access(enough);
    if behind {
        scheduled_fence(order);
    }
    value
}

macro_rules! changes {
    ($($name:ident),*) => {
        $(#[doc = "As in `core`."]
        pub fn $name(&self, value: u64, order: Ordering) -> u64 {
            match self.scheduled.get() {
                Some(word) => fenced(order, Ordering::AcqRel, |order| word.$name(value, order)),
                None => self.plain.$name(value, order),
            }
        })*
    };
}

impl AtomicU64 {
    /// A word that nobody schedules yet.
    pub const fn new(value: u64) -> Self {
        AtomicU64 { plain: Plain::new(value), scheduled: OnceLock::new() }
    }

    /// From here on each access is one of the model's. Before the threads of the model begin.
    pub fn schedule(&self) {
        self.scheduled.get_or_init(|| Scheduled::new(self.plain.load(Ordering::SeqCst)));
    }

    /// As in `core`.
    pub fn load(&self, order: Ordering) -> u64 {
        match self.scheduled.get() {
            Some(word) => fenced(order, Ordering::Acquire, |order| word.load(order)),
            None => self.plain.load(order),
        }
    }

    /// As in `core`.
    pub fn store(&self, value: u64, order: Ordering) {
        match self.scheduled.get() {
            Some(word) => fenced(order, Ordering::Release, |order| word.store(value, order)),
            None => self.plain.store(value, order),
        }
    }

    changes!(swap, fetch_add, fetch_sub, fetch_and, fetch_or, fetch_max, fetch_min);

    /// As in `core`.
    pub fn compare_exchange(
        &self,
        current: u64,
        new: u64,
        success: Ordering,
        failure: Ordering,
    ) -> Result<u64, u64> {
        match self.scheduled.get() {
            Some(word) => fenced(success, Ordering::AcqRel, |success| {
                word.compare_exchange(current, new, success, weaker(failure))
            }),
            None => self.plain.compare_exchange(current, new, success, failure),
        }
    }

    /// As in `core`. It does not fail without need.
    pub fn compare_exchange_weak(
        &self,
        current: u64,
        new: u64,
        success: Ordering,
        failure: Ordering,
    ) -> Result<u64, u64> {
        self.compare_exchange(current, new, success, failure)
    }

    /// As in `core`.
    pub fn fetch_update(
        &self,
        set: Ordering,
        fetch: Ordering,
        mut change: impl FnMut(u64) -> Option<u64>,
    ) -> Result<u64, u64> {
        let mut before = self.load(fetch);
        while let Some(after) = change(before) {
            match self.compare_exchange(before, after, set, fetch) {
                Ok(_) => return Ok(before),
                Err(now) => before = now,
            }
        }
        Err(before)
    }
}

fn weaker(failure: Ordering) -> Ordering {
    match failure {
        Ordering::SeqCst => Ordering::Acquire,
        order => order,
    }
}

impl Default for AtomicU64 {
    fn default() -> Self {
        AtomicU64::new(0)
    }
}

impl fmt::Debug for AtomicU64 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Looking would be an access.
        f.write_str("AtomicU64")
    }
}
