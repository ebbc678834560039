//! A fault signal becomes ours, in a program that may have had its own plans with it for long: SIGSEGV, or SIGBUS on uffd-sigbus.
//!
//! Owns: that moment. Called by: the rungs that serve faults in the thread that took them, at their start, once in a process. Must
//! not: leave a thread that blocks the signal, whose first touch of an absent page would end the program.
//!
//! From then on a stand-in, a realtime signal that libc gave away, is what the kernel has blocked where the program has the signal
//! blocked (DESIGN.md, Signals). Masks of threads and of handlers that were there before are translated here.

use core::ffi::c_void;
use core::sync::atomic::{AtomicUsize, Ordering};
use core::time::Duration;

use super::delivery;
use crate::log;
use crate::sys::errno::Errno;
use crate::sys::signal::{self, Set, bit};
use crate::sys::{file, proc};

unsafe extern "C" {
    /// glibc's way to give a realtime signal away: the program's SIGRTMAX is one less from then on.
    fn __libc_allocate_rtsig(high: i32) -> i32;
}

/// Signals at the most, and the one that glibc keeps for setuid and lets nobody block.
const SIGNALS_MAX: i32 = 64;
const SIGSETXID: i32 = 33;

/// How long threads are waited for that have to be told.
const TELL_TRIES: u32 = 2_000;

/// See the module. The second call does nothing.
pub(super) fn make_ours(ours: i32) -> Result<(), Errno> {
    if delivery::owns_a_signal() {
        return Ok(());
    }
    let stand_in = choose().ok_or_else(|| {
        log::error!(
            "every realtime signal is in use: none is left to stand in for the blocked signal of a fault"
        );
        Errno(libc::EAGAIN)
    })?;
    // SAFETY: asking changes nothing.
    let programs = unsafe { signal::action(ours, None)? };
    delivery::begin_again();
    signal::set_stand_in(ours, stand_in);
    delivery::set_program_action(&programs);
    signal::change_programs(signal::to_kernel);
    for number in (1..=SIGNALS_MAX).filter(|number| *number != stand_in && *number != ours) {
        translate_action(number);
    }
    tell_other_threads();
    Ok(())
}

/// A realtime signal that nobody uses.
fn choose() -> Option<i32> {
    loop {
        // SAFETY: no memory is involved.
        let number = unsafe { __libc_allocate_rtsig(0) };
        if number <= 0 {
            return None;
        }
        // SAFETY: asking changes nothing.
        let action = unsafe { signal::action(number, None) }.ok()?;
        if action.handler == libc::SIG_DFL && signal::pending() & bit(number) == 0 {
            return Some(number);
        }
    }
}

fn translate_action(number: i32) {
    // SAFETY: asking changes nothing.
    let Ok(mut action) = (unsafe { signal::action(number, None) }) else { return };
    let mask = signal::to_kernel(action.mask);
    if action.handler > libc::SIG_IGN && mask != action.mask {
        action.mask = mask;
        // SAFETY: the program's own action, but for its mask.
        let _ = unsafe { signal::action(number, Some(&action)) };
    }
}

/// Tells every thread that has our signal blocked, by the one signal that libc lets no thread block, and waits until it has
/// translated its mask. Threads that are made meanwhile inherit theirs from one that was told, or are told in the next round.
///
/// A thread that blocks that signal too is inside libc, which makes a thread, or inside ours, perhaps waiting for the lock that is
/// held here. It is told and not waited for: it translates its mask in the moment in which it takes its own back. So the handler
/// stays, before libc's own.
fn tell_other_threads() {
    let me = signal::thread_number();
    let all = blocking_threads(me);
    if all.is_empty() {
        return;
    }
    let telling = signal::our_action(on_told, Set::MAX, (libc::SA_RESTART | libc::SA_ONSTACK) as u64);
    // SAFETY: the handler is written to run anywhere, and passes on what is not ours.
    let Ok(before) = (unsafe { signal::action(SIGSETXID, Some(&telling)) }) else { return };
    LIBCS.store(before.handler, Ordering::SeqCst);
    let mut told: Vec<i32> = Vec::new();
    let mut blocking = all;
    for _ in 0..TELL_TRIES {
        for (thread, _) in &blocking {
            if !told.contains(thread) && signal::queue_to_thread(*thread, SIGSETXID, &TOLD.0).is_ok() {
                told.push(*thread);
            }
        }
        if blocking.iter().all(|(_, inside)| *inside) {
            return;
        }
        crate::sys::futex::pause(Duration::from_millis(1));
        blocking = blocking_threads(me);
    }
    log::error!(
        "threads {blocking:?} block signal {} for good: a touch of an absent page ends the program there",
        signal::ours()
    );
}

/// The threads of this process, but `me`, that have our signal blocked, and whether they block what no program can.
fn blocking_threads(me: i32) -> Vec<(i32, bool)> {
    proc::threads()
        .into_iter()
        .filter(|thread| *thread != me)
        .filter_map(|thread| {
            let status = file::read_whole(&format!("/proc/self/task/{thread}/status")).unwrap_or_default();
            let text = String::from_utf8_lossy(&status);
            let blocked = text.lines().find_map(|line| line.strip_prefix("SigBlk:"));
            let gone = text.lines().any(|line| line.starts_with("State:") && line.contains(['Z', 'X']));
            let set = blocked.and_then(|digits| Set::from_str_radix(digits.trim(), 16).ok()).unwrap_or(0);
            (!gone && set & bit(signal::ours()) != 0).then_some((thread, set & bit(SIGSETXID) != 0))
        })
        .collect()
}

/// The siginfo by which a thread knows that we are telling it.
struct Told(libc::siginfo_t);
// SAFETY: never changed.
unsafe impl Sync for Told {}
const TOLD_WORDS: [u64; size_of::<libc::siginfo_t>() / 8] = {
    let mut words = [0; size_of::<libc::siginfo_t>() / 8];
    // si_signo, si_errno; si_code SI_QUEUE; si_value.
    words[0] = SIGSETXID as u64;
    words[1] = libc::SI_QUEUE as u32 as u64;
    words[3] = TOLD_VALUE;
    words
};
const TOLD_VALUE: u64 = 0x6e65_746d_656d_5442;
// SAFETY: a siginfo is plain words.
static TOLD: Told = Told(unsafe { core::mem::transmute::<[u64; 16], libc::siginfo_t>(TOLD_WORDS) });

/// libc's own handler for that signal, which ours stands before.
static LIBCS: AtomicUsize = AtomicUsize::new(0);

unsafe extern "C" fn on_told(number: i32, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel's own arguments; si_value is the fourth word of a queued signal.
    unsafe {
        let value = (info as *const u64).add(3).read();
        if (*info).si_code == libc::SI_QUEUE && value == TOLD_VALUE {
            let mask = &raw mut (*(context as *mut libc::ucontext_t)).uc_sigmask as *mut Set;
            *mask = signal::to_kernel(*mask);
        } else if LIBCS.load(Ordering::SeqCst) > libc::SIG_IGN {
            let handler: unsafe extern "C" fn(i32, *mut libc::siginfo_t, *mut c_void) =
                core::mem::transmute(LIBCS.load(Ordering::SeqCst));
            handler(number, info, context);
        }
    }
}
