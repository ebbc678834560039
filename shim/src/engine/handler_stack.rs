//! Stacks of our own for the SIGSEGV handler: bringing a page in takes more room than a small alternate stack has.
//!
//! Owns: a pool of stacks, made as they are needed and kept. Called by: delivery's entry, on the program's stack, with every
//! signal blocked; fork. Must not: use more than a few words of the stack it is called on, nor call anything that may wait.

use core::sync::atomic::{AtomicUsize, Ordering};

use crate::sys::mem;

/// Threads that can be in the handler at once on stacks of ours; more use their own.
const STACKS_MAX: usize = 128;
/// Bytes of one, below which lies a page that stops an overflow.
const STACK_BYTES: usize = 128 * 1024;

/// For each stack 0, or the first address behind it; in the lowest bit whether it is taken.
static STACKS: [AtomicUsize; STACKS_MAX] = [const { AtomicUsize::new(0) }; STACKS_MAX];
const TAKEN: usize = 1;

/// A free stack's first address behind it, or 0 if there is none.
pub(super) extern "C" fn take() -> usize {
    for stack in &STACKS {
        let now = stack.load(Ordering::Relaxed);
        if now & TAKEN != 0
            || stack.compare_exchange(now, now | TAKEN, Ordering::Acquire, Ordering::Relaxed).is_err()
        {
            continue;
        }
        if now != 0 {
            return now;
        }
        let Some(top) = make() else {
            stack.store(0, Ordering::Release);
            return 0;
        };
        stack.store(top | TAKEN, Ordering::Relaxed);
        return top;
    }
    0
}

/// Gives back what [`take`] gave.
pub(super) extern "C" fn give(top: usize) {
    if let Some(stack) = STACKS.iter().find(|stack| stack.load(Ordering::Relaxed) == top | TAKEN) {
        stack.store(top, Ordering::Release);
    }
}

fn make() -> Option<usize> {
    let length = STACK_BYTES + mem::PAGE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_STACK;
    let at = mem::map_ours(length, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0).ok()?;
    mem::mprotect(at, mem::PAGE, libc::PROT_NONE).ok()?;
    Some(at + length)
}

/// In a forked child: the parent's other threads are not here to give theirs back.
pub(super) fn nobody_is_on_them() {
    for stack in &STACKS {
        let now = stack.load(Ordering::Relaxed);
        stack.store(now & !TAKEN, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::{STACKS_MAX, give, nobody_is_on_them, take};

    #[test]
    fn stacks_are_taken_once_and_run_out() {
        let mut taken: Vec<usize> = (0..STACKS_MAX).map(|_| take()).collect();
        assert!(taken.iter().all(|top| *top != 0 && top % 16 == 0));
        taken.sort_unstable();
        taken.dedup();
        assert_eq!(taken.len(), STACKS_MAX);
        assert_eq!(take(), 0);
        give(taken[7]);
        assert_eq!(take(), taken[7]);
        nobody_is_on_them();
        assert_ne!(take(), 0);
    }
}
