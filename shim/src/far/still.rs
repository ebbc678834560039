//! The keeper stands still while a fork is made, and the monitor for its last moment.
//!
//! Owns: what the forking thread and far memory's threads tell each other. Called by: fork, the keeper, the monitor. Must not: take the
//! state's lock on a thread of the program for longer than a look: its stack may have to grow, and only the monitor could serve that.

use core::sync::atomic::{AtomicU32, Ordering};
use core::time::Duration;
use std::time::Instant;

use super::{far_if_started, kick};
use crate::sys::{futex, proc, signal};

/// How long a fork waits for a moment in which nobody changes addresses.
const STILL_LIMIT: Duration = Duration::from_secs(1);
/// How often the monitor looks what a fork waits for, and how long it waits for one that waits for a CPU, or for nothing that it can see.
const PASSING: Duration = Duration::from_micros(500);
const PASSING_MAX: Duration = Duration::from_secs(1);

/// Nobody forks.
const IDLE: u32 = 0;
/// A thread is about to fork.
const ASKED: u32 = 1;
/// The keeper has done its part, and stands still.
const READY: u32 = 2;
/// The child is made, or is not to be.
const OVER: u32 = 3;

static STEP: AtomicU32 = AtomicU32::new(IDLE);
/// The process that has a keeper who could answer: a child that was made past libc has a copy of this, and none. 0: there is none.
static RUNS: AtomicU32 = AtomicU32::new(0);
/// The thread that forks, from [`nobody_hears`] until the fork is over; 0: nobody does.
static PASSES: AtomicU32 = AtomicU32::new(0);

fn set(step: u32) {
    STEP.store(step, Ordering::SeqCst);
    futex::wake(&STEP, i32::MAX);
}

fn wait_while(step: u32) {
    while STEP.load(Ordering::SeqCst) == step {
        futex::wait(&STEP, step, None);
    }
}

/// There will be a keeper at once.
pub fn somebody_answers() {
    RUNS.store(this_process(), Ordering::SeqCst);
}

fn this_process() -> u32 {
    rustix::process::getpid().as_raw_nonzero().get().cast_unsigned()
}

/// Whether there is one.
pub fn is_answered() -> bool {
    RUNS.load(Ordering::SeqCst) == this_process()
}

/// The keeper ends.
pub fn nobody_answers() {
    RUNS.store(0, Ordering::SeqCst);
    if is_asked() {
        set(IDLE);
    }
}

/// In a forked child, which has no keeper yet. The first one that it gets is asked, if it has something to do.
pub fn forget_after_fork(ask: bool) {
    RUNS.store(0, Ordering::SeqCst);
    PASSES.store(0, Ordering::SeqCst);
    STEP.store(if ask { ASKED } else { IDLE }, Ordering::SeqCst);
}

/// In a forked child: until its keeper has done its part.
pub fn wait_for_keeper() {
    wait_while(ASKED);
}

/// The keeper of a forked child has done it.
pub fn begun() {
    set(IDLE);
}

/// The keeper does its part of a fork; false if there is none.
pub fn ask() -> bool {
    if !is_answered() {
        return false;
    }
    for step in [OVER, READY] {
        wait_while(step);
    }
    set(ASKED);
    if !is_answered() {
        set(IDLE);
        return false;
    }
    kick();
    wait_while(ASKED);
    true
}

/// The keeper goes on.
pub fn over() {
    if STEP.load(Ordering::SeqCst) == READY {
        set(OVER);
    }
}

/// Whether the keeper is asked to stand still.
pub fn is_asked() -> bool {
    STEP.load(Ordering::Relaxed) == ASKED
}

/// The keeper stands still until the fork is over.
pub fn stand(before: impl FnOnce(), after: impl FnOnce()) {
    before();
    set(READY);
    wait_while(READY);
    after();
    set(IDLE);
}

/// Last of all before a fork: from here on the monitor hears of nothing for a while. So what was told has been written down, and who changes
/// addresses now does not get on before the child is made: nothing in the child can know of it.
pub fn nobody_hears() {
    let Some(far) = far_if_started() else { return };
    let since = Instant::now();
    loop {
        let state = far.state.lock();
        if !far.uffd.is_changing() || since.elapsed() > STILL_LIMIT {
            return PASSES.store(signal::thread_number().cast_unsigned(), Ordering::SeqCst);
        }
        drop(state);
        futex::pause(Duration::from_micros(20));
    }
}

/// After it, the monitor hears again.
pub fn has_passed() {
    if PASSES.swap(0, Ordering::SeqCst) != 0 {
        futex::wake(&PASSES, i32::MAX);
    }
}

/// The monitor, before it hears of anything. Not if the fork waits for a lock of libc's, whose holder may wait for us. One that is in the
/// kernel may wait for a moment in which nobody changes addresses, or for a page.
pub fn let_pass() {
    let since = Instant::now();
    let mut in_the_kernel = 0;
    loop {
        let forks = PASSES.load(Ordering::SeqCst);
        if forks == 0 {
            return;
        }
        futex::wait(&PASSES, forks, Some(PASSING));
        if PASSES.load(Ordering::SeqCst) != forks {
            continue;
        }
        match proc::thread_state(forks.cast_signed()) {
            Some('R') => in_the_kernel = 0,
            Some('D') => in_the_kernel += 1,
            _ => return,
        }
        if in_the_kernel > 4 || since.elapsed() > PASSING_MAX {
            return;
        }
    }
}
