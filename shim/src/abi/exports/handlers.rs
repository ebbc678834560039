//! Signals: actions, masks, waiting.
//!
//! Owns: the names below. Called by: the program. Must not: do more than convert and call an operation.

use super::buffered::{EVENT, POLL, TIME, fd_set};
use super::*;
use libc::{sigaction as Action, siginfo_t, sigset_t, timespec};
use signals::Style::{Bsd, Plain, SystemV};

/// A call whose other arguments may lie in mappings.
fn bounced<R>(make: impl FnOnce(&mut Bounce) -> R) -> R {
    let mut bounce = Bounce::new();
    let result = make(&mut bounce);
    bounce.finish();
    result
}

/// Ends a hook that returns a handler.
unsafe fn handler(outcome: Outcome<usize>, pass: impl FnOnce() -> usize) -> usize {
    match outcome {
        Ok(before) => before,
        Err(Exit::Pass(_)) => pass(),
        Err(Exit::Fail(failed)) => {
            errno::set(failed);
            libc::SIG_ERR
        }
    }
}

hook! {
    unsafe fn sigaction(number: c_int, new: *const Action, old: *mut Action) -> c_int => nm_sigaction {
        finish(signals::action(number, new, old, |new, old| real!(sigaction)(number, new, old)), || -1)
    }
}

hook! {
    unsafe fn __sigaction(number: c_int, new: *const Action, old: *mut Action) -> c_int => nm___sigaction {
        nm_sigaction(number, new, old)
    }
}

hook! {
    unsafe fn signal(number: c_int, to: usize) -> usize => nm_signal {
        handler(signals::simple(number, to, Bsd), || real!(signal)(number, to))
    }
}

hook! {
    unsafe fn bsd_signal(number: c_int, to: usize) -> usize => nm_bsd_signal {
        handler(signals::simple(number, to, Bsd), || real!(bsd_signal)(number, to))
    }
}

hook! {
    unsafe fn ssignal(number: c_int, to: usize) -> usize => nm_ssignal {
        handler(signals::simple(number, to, Bsd), || real!(ssignal)(number, to))
    }
}

hook! {
    unsafe fn sysv_signal(number: c_int, to: usize) -> usize => nm_sysv_signal {
        handler(signals::simple(number, to, SystemV), || real!(sysv_signal)(number, to))
    }
}

hook! {
    unsafe fn __sysv_signal(number: c_int, to: usize) -> usize => nm___sysv_signal {
        handler(signals::simple(number, to, SystemV), || real!(__sysv_signal)(number, to))
    }
}

hook! {
    unsafe fn sigset(number: c_int, to: usize) -> usize => nm_sigset {
        handler(signals::set(number, to), || real!(sigset)(number, to))
    }
}

hook! {
    unsafe fn sigignore(number: c_int) -> c_int => nm_sigignore {
        finish(signals::simple(number, libc::SIG_IGN, Plain).map(|_| 0), || real!(sigignore)(number))
    }
}

hook! {
    unsafe fn sighold(number: c_int) -> c_int => nm_sighold {
        finish(signals::hold(number, true), || real!(sighold)(number))
    }
}

hook! {
    unsafe fn sigrelse(number: c_int) -> c_int => nm_sigrelse {
        finish(signals::hold(number, false), || real!(sigrelse)(number))
    }
}

hook! {
    unsafe fn siginterrupt(number: c_int, on: c_int) -> c_int => nm_siginterrupt {
        finish(signals::interrupt(number, on != 0), || real!(siginterrupt)(number, on))
    }
}

hook! {
    unsafe fn sigblock(mask: c_int) -> c_int => nm_sigblock {
        finish(signals::old_mask(libc::SIG_BLOCK, mask), || real!(sigblock)(mask))
    }
}

hook! {
    unsafe fn sigsetmask(mask: c_int) -> c_int => nm_sigsetmask {
        finish(signals::old_mask(libc::SIG_SETMASK, mask), || real!(sigsetmask)(mask))
    }
}

hook! {
    unsafe fn siggetmask() -> c_int => nm_siggetmask {
        finish(signals::old_mask(libc::SIG_BLOCK, 0), || real!(siggetmask)())
    }
}

hook! {
    unsafe fn sigprocmask(how: c_int, set: *const sigset_t, old: *mut sigset_t) -> c_int => nm_sigprocmask {
        signals::with_sets(set, old, |set, old| real!(sigprocmask)(how, set, old))
    }
}

hook! {
    unsafe fn pthread_sigmask(how: c_int, set: *const sigset_t, old: *mut sigset_t) -> c_int => nm_pthread_sigmask {
        signals::with_sets(set, old, |set, old| real!(pthread_sigmask)(how, set, old))
    }
}

hook! {
    unsafe fn sigpending(out: *mut sigset_t) -> c_int => nm_sigpending {
        signals::with_sets(core::ptr::null(), out, |_, out| real!(sigpending)(out))
    }
}

hook! {
    unsafe fn sigsuspend(set: *const sigset_t) -> c_int => nm_sigsuspend {
        signals::with_set(set, |set| real!(sigsuspend)(set))
    }
}

hook! {
    unsafe fn __sigsuspend(set: *const sigset_t) -> c_int => nm___sigsuspend {
        signals::with_set(set, |set| real!(__sigsuspend)(set))
    }
}

hook! {
    unsafe fn sigpause(mask: c_int) -> c_int => nm_sigpause {
        match signals::pause_set(mask, false) { Some(set) => nm_sigsuspend(&raw const set), None => real!(sigpause)(mask) }
    }
}

hook! {
    unsafe fn __xpg_sigpause(number: c_int) -> c_int => nm___xpg_sigpause {
        match signals::pause_set(number, true) { Some(set) => nm_sigsuspend(&raw const set), None => real!(__xpg_sigpause)(number) }
    }
}

hook! {
    unsafe fn __sigpause(given: c_int, is_signal: c_int) -> c_int => nm___sigpause {
        match signals::pause_set(given, is_signal != 0) { Some(set) => nm_sigsuspend(&raw const set), None => real!(__sigpause)(given, is_signal) }
    }
}

hook! {
    unsafe fn sigwait(set: *const sigset_t, out: *mut c_int) -> c_int => nm_sigwait {
        signals::wait(set, out, |set, out| real!(sigwait)(set, out))
    }
}

hook! {
    unsafe fn sigwaitinfo(set: *const sigset_t, info: *mut siginfo_t) -> c_int => nm_sigwaitinfo {
        signals::wait_info(set, info, |set, info| real!(sigwaitinfo)(set, info))
    }
}

hook! {
    unsafe fn sigtimedwait(set: *const sigset_t, info: *mut siginfo_t, limit: *const timespec) -> c_int => nm_sigtimedwait {
        signals::wait_info(set, info, |set, info| bounced(|bounce| {
            let limit = bounce.input(limit, || TIME);
            real!(sigtimedwait)(set, info, limit)
        }))
    }
}

hook! {
    unsafe fn signalfd(number: c_int, set: *const sigset_t, flags: c_int) -> c_int => nm_signalfd {
        signals::with_descriptor_set(set, |set| real!(signalfd)(number, set, flags))
    }
}

hook! {
    unsafe fn ppoll(list: *mut c_void, count: libc::nfds_t, limit: *const timespec, set: *const sigset_t) -> c_int => nm_ppoll {
        signals::with_set(set, |set| bounced(|bounce| {
            let (list, limit) = (bounce.output(list, || count as usize * POLL), bounce.input(limit, || TIME));
            real!(ppoll)(list, count, limit, set)
        }))
    }
}

hook! {
    unsafe fn __ppoll_chk(list: *mut c_void, count: libc::nfds_t, limit: *const timespec, set: *const sigset_t, room: size_t) -> c_int => nm___ppoll_chk {
        signals::with_set(set, |set| bounced(|bounce| {
            let (list, limit) = (bounce.output(list, || count as usize * POLL), bounce.input(limit, || TIME));
            real!(__ppoll_chk)(list, count, limit, set, room)
        }))
    }
}

hook! {
    unsafe fn pselect(count: c_int, reads: *mut c_void, writes: *mut c_void, others: *mut c_void, limit: *const timespec, set: *const sigset_t) -> c_int => nm_pselect {
        signals::with_set(set, |set| bounced(|bounce| {
            let (reads, writes) = (bounce.output(reads, || fd_set(count)), bounce.output(writes, || fd_set(count)));
            let (others, limit) = (bounce.output(others, || fd_set(count)), bounce.input(limit, || TIME));
            real!(pselect)(count, reads, writes, others, limit, set)
        }))
    }
}

hook! {
    unsafe fn epoll_pwait(number: c_int, events: *mut c_void, count: c_int, limit: c_int, set: *const sigset_t) -> c_int => nm_epoll_pwait {
        signals::with_set(set, |set| bounced(|bounce| {
            let events = bounce.output(events, || count.max(0) as usize * EVENT);
            real!(epoll_pwait)(number, events, count, limit, set)
        }))
    }
}

hook! {
    unsafe fn epoll_pwait2(number: c_int, events: *mut c_void, count: c_int, limit: *const timespec, set: *const sigset_t) -> c_int => nm_epoll_pwait2 {
        signals::with_set(set, |set| bounced(|bounce| {
            let events = bounce.output(events, || count.max(0) as usize * EVENT);
            let limit = bounce.input(limit, || TIME);
            real!(epoll_pwait2)(number, events, count, limit, set)
        }))
    }
}

hook! {
    unsafe fn setcontext(to: *mut libc::ucontext_t) -> c_int => nm_setcontext {
        { signals::translate_context(to); real!(setcontext)(to) }
    }
}

hook! {
    unsafe fn swapcontext(from: *mut libc::ucontext_t, to: *mut libc::ucontext_t) -> c_int => nm_swapcontext {
        { signals::translate_context(to); real!(swapcontext)(from, to) }
    }
}

hook! {
    unsafe fn pthread_attr_setsigmask_np(attributes: *mut c_void, set: *const sigset_t) -> c_int => nm_pthread_attr_setsigmask_np {
        signals::with_set(set, |set| real!(pthread_attr_setsigmask_np)(attributes, set))
    }
}

hook! {
    unsafe fn pthread_attr_getsigmask_np(attributes: *const c_void, out: *mut sigset_t) -> c_int => nm_pthread_attr_getsigmask_np {
        signals::with_attribute_set(out, |out| real!(pthread_attr_getsigmask_np)(attributes, out))
    }
}

hook! {
    unsafe fn sigaltstack(new: *const libc::stack_t, old: *mut libc::stack_t) -> c_int => nm_sigaltstack {
        signals::alternate_stack(new, old, |new, old| real!(sigaltstack)(new, old))
    }
}
