//! The background committer for `msync(MS_ASYNC)`.
//!
//! Owns: one thread, started at the first such call, and the queue to it. Called by: range. Must not: be entered from a signal
//! handler of ours: a queue belongs to threads.

use core::sync::atomic::{AtomicPtr, Ordering};

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::host::{Handle, handle};
use crate::pager::commit::CommitOptions;
use crate::sys::errno::Errno;
use crate::sys::thread;

/// Regions waiting at the most; beyond it the caller commits by itself.
const QUEUE_MAX: usize = 256;

static QUEUE: AtomicPtr<Sender<u32>> = AtomicPtr::new(core::ptr::null_mut());

/// Commits a region soon. An error is that of a commit made here and now because no thread could be had.
pub fn commit_soon(handle: &Handle) -> Result<(), Errno> {
    let queued = queue().is_some_and(|queue| queue.try_send(handle.index).is_ok());
    if queued { Ok(()) } else { handle.commit(CommitOptions::default()).map(drop) }
}

/// A forked child has no worker.
pub fn forget_after_fork() {
    QUEUE.store(core::ptr::null_mut(), Ordering::SeqCst);
}

fn queue() -> Option<&'static Sender<u32>> {
    // SAFETY: null or a leaked box.
    if let Some(queue) = unsafe { QUEUE.load(Ordering::Acquire).as_ref() } {
        return Some(queue);
    }
    let (sender, receiver) = bounded(QUEUE_MAX);
    let ours = Box::into_raw(Box::new(sender));
    match QUEUE.compare_exchange(core::ptr::null_mut(), ours, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => {
            thread::spawn(Box::new(move || work(&receiver))).ok()?;
            // SAFETY: just leaked.
            Some(unsafe { &*ours })
        }
        Err(theirs) => {
            // SAFETY: ours was never shown; theirs is a leaked box.
            unsafe {
                drop(Box::from_raw(ours));
                Some(&*theirs)
            }
        }
    }
}

fn work(receiver: &Receiver<u32>) {
    while let Ok(index) = receiver.recv() {
        let handle = handle(index);
        if let Err(errno) = handle.commit(CommitOptions::default()) {
            handle.late_errno.store(errno.0 as u32, Ordering::Release);
        }
    }
}
