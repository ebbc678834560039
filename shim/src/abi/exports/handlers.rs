//! Signals.
//!
//! Owns: the names below. Called by: the program. Must not: do more than convert and call an operation.

use super::*;

hook! {
    unsafe fn sigaction(number: c_int, new: *const libc::sigaction, old: *mut libc::sigaction) -> c_int => nm_sigaction {
        finish(signals::action(number, new, old), || match signals::action_without_ours(new) {
            Some(new) => real!(sigaction)(number, &raw const new, old),
            None => real!(sigaction)(number, new, old),
        })
    }
}

hook! {
    unsafe fn signal(number: c_int, handler: usize) -> usize => nm_signal {
        match signals::simple(number, handler) {
            Ok(before) => before,
            Err(_) => real!(signal)(number, handler),
        }
    }
}

hook! {
    unsafe fn sigprocmask(how: c_int, set: *const libc::sigset_t, old: *mut libc::sigset_t) -> c_int => nm_sigprocmask {
        match signals::without_ours(how, set) {
            Some(set) => real!(sigprocmask)(how, &raw const set, old),
            None => real!(sigprocmask)(how, set, old),
        }
    }
}

hook! {
    unsafe fn pthread_sigmask(how: c_int, set: *const libc::sigset_t, old: *mut libc::sigset_t) -> c_int => nm_pthread_sigmask {
        match signals::without_ours(how, set) {
            Some(set) => real!(pthread_sigmask)(how, &raw const set, old),
            None => real!(pthread_sigmask)(how, set, old),
        }
    }
}
