//! Waiting for a word in memory to change, across processes too.
//!
//! Owns: the futex call. Called by: sync, the page table's claims. Must not: use private futexes: the words may lie in the
//! control file that all processes of the host map.

use core::sync::atomic::{AtomicU32, AtomicU64};
use core::time::Duration;

use super::syscall::raw;

const WAIT: usize = 0;
const WAKE: usize = 1;

/// Sleeps while `word` is `seen`, at most for `limit`. May return early; the caller looks again.
pub fn wait(word: &AtomicU32, seen: u32, limit: Option<Duration>) {
    let spec = limit.map(|limit| libc::timespec {
        tv_sec: limit.as_secs().min(1 << 30) as libc::time_t,
        tv_nsec: limit.subsec_nanos().into(),
    });
    let at = spec.as_ref().map_or(0, |spec| spec as *const libc::timespec as usize);
    // SAFETY: the word and the time are live for the call.
    unsafe { raw(libc::SYS_futex, [word.as_ptr() as usize, WAIT, seen as usize, at, 0, 0]) };
}

/// Sleeps.
pub fn pause(length: Duration) {
    wait(&AtomicU32::new(0), 0, Some(length));
}

/// Wakes at most `count` sleepers.
pub fn wake(word: &AtomicU32, count: i32) {
    // SAFETY: waking reads no memory.
    unsafe { raw(libc::SYS_futex, [word.as_ptr() as usize, WAKE, count as usize, 0, 0, 0]) };
}

/// The low half of a 64-bit word, on which one can wait.
pub fn low_half(word: &AtomicU64) -> &AtomicU32 {
    // SAFETY: an AtomicU64 is aligned for an AtomicU32, and on the little-endian machines we run on its low half is first;
    // mixed-size atomic access to it is only ever made by the kernel's compare.
    unsafe { &*(word.as_ptr() as *const AtomicU32) }
}
