//! The locks of the shim.
//!
//! Owns: [`QuietMutex`], a futex lock that blocks the thread's signals while it is held. Called by: every layer. Must not:
//! be held while application memory is touched (rule 4), since the fault that follows may need the same lock.
//!
//! Why not std's mutex: a signal handler of the program may run anywhere in our code and call one of our hooks again; with
//! signals blocked inside every critical section there is no such anywhere. And a forked child can reset it.

use core::cell::UnsafeCell;
use core::ops::{Deref, DerefMut};
use core::sync::atomic::{AtomicU32, Ordering};

use crate::sys::signal::SignalMask;

/// A mutual exclusion lock; see the module.
pub struct QuietMutex<T> {
    /// 0 free, 1 taken, 2 taken and someone waits.
    state: AtomicU32,
    value: UnsafeCell<T>,
}

// SAFETY: the value is only reached through the guard, which one thread at a time can have.
unsafe impl<T: Send> Sync for QuietMutex<T> {}
// SAFETY: moving the lock moves the value it owns.
unsafe impl<T: Send> Send for QuietMutex<T> {}

/// Access to what a [`QuietMutex`] protects. The thread's signals are blocked until it is dropped.
pub struct QuietGuard<'a, T> {
    lock: &'a QuietMutex<T>,
    // Dropped after the unlock in `Drop`, which gives the program its signals back.
    _mask: SignalMask,
}

/// Says that a lock is held until `unlock_kept`.
#[must_use = "the lock stays taken"]
pub struct Kept;

impl<T> QuietMutex<T> {
    /// A free lock around `value`.
    pub const fn new(value: T) -> Self {
        QuietMutex { state: AtomicU32::new(0), value: UnsafeCell::new(value) }
    }

    /// Waits for the lock.
    pub fn lock(&self) -> QuietGuard<'_, T> {
        let mask = SignalMask::block_all();
        if self.state.compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed).is_err() {
            while self.state.swap(2, Ordering::Acquire) != 0 {
                crate::sys::futex::wait(&self.state, 2, None);
            }
        }
        QuietGuard { lock: self, _mask: mask }
    }

    /// Takes the lock if it is free.
    pub fn try_lock(&self) -> Option<QuietGuard<'_, T>> {
        let mask = SignalMask::block_all();
        let taken = self.state.compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed).is_ok();
        taken.then(|| QuietGuard { lock: self, _mask: mask })
    }

    /// Takes the lock for longer than a scope, by a caller that has signals blocked already; see [`Self::unlock_kept`].
    pub fn lock_keeping_mask(&self) -> Kept {
        if self.state.compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed).is_err() {
            while self.state.swap(2, Ordering::Acquire) != 0 {
                crate::sys::futex::wait(&self.state, 2, None);
            }
        }
        Kept
    }

    /// Gives up a lock taken by [`Self::lock_keeping_mask`].
    pub fn unlock_kept(&self) {
        if self.state.swap(0, Ordering::Release) == 2 {
            crate::sys::futex::wake(&self.state, 1);
        }
    }

    /// Frees the lock in a forked child, whoever held it. Only the fork hook calls it, which took every lock whose value
    /// can be caught half-way (DESIGN.md, lock order).
    pub fn reset_after_fork(&self) {
        self.state.store(0, Ordering::Release);
    }
}

impl<T> Deref for QuietGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        // SAFETY: the guard is the proof that this thread holds the lock.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T> DerefMut for QuietGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above, and `&mut self` makes this the only reference.
        unsafe { &mut *self.lock.value.get() }
    }
}

impl<T> Drop for QuietGuard<'_, T> {
    fn drop(&mut self) {
        if self.lock.state.swap(0, Ordering::Release) == 2 {
            crate::sys::futex::wake(&self.lock.state, 1);
        }
    }
}
