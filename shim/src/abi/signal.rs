//! The program's wishes about SIGSEGV while the signal is ours.
//!
//! Owns: nothing; the engine keeps the program's action. Called by: exports. Must not: interfere while the engine is uffd or
//! netmem is not in use.

use super::outcome::{NOT_OURS, Outcome};
use crate::engine::sigsegv::{owns_sigsegv, program_action, program_action_set};
use crate::sys::signal::{KernelAction, Set, bit};

/// sigaction(2) for SIGSEGV: the program's action is kept, and handed faults that are not ours.
///
/// # Safety
/// As for the call.
pub unsafe fn action(signal: i32, new: *const libc::sigaction, old: *mut libc::sigaction) -> Outcome<i32> {
    if signal != libc::SIGSEGV || !owns_sigsegv() {
        return Err(NOT_OURS);
    }
    let before = program_action();
    // SAFETY: the program's own structures; libc's mask begins with the kernel's 64 bits.
    unsafe {
        if let Some(new) = new.as_ref() {
            program_action_set(&KernelAction {
                handler: new.sa_sigaction,
                flags: new.sa_flags as u64,
                restorer: 0,
                mask: *(&raw const new.sa_mask as *const Set),
            });
        }
        if let Some(old) = old.as_mut() {
            *old = core::mem::zeroed();
            old.sa_sigaction = before.handler;
            old.sa_flags = (before.flags & !crate::sys::signal::SA_RESTORER) as i32;
            *(&raw mut old.sa_mask as *mut Set) = before.mask;
        }
    }
    Ok(0)
}

/// An action for another signal whose mask would block SIGSEGV while its handler runs, without that.
///
/// # Safety
/// `new` is null or a signal action.
pub unsafe fn action_without_ours(new: *const libc::sigaction) -> Option<libc::sigaction> {
    if !owns_sigsegv() {
        return None;
    }
    // SAFETY: the caller's; libc's mask begins with the kernel's 64 bits.
    unsafe {
        let mut copy = *new.as_ref()?;
        *(&raw mut copy.sa_mask as *mut Set) &= !bit(libc::SIGSEGV);
        Some(copy)
    }
}

/// signal(3) for SIGSEGV.
pub fn simple(signal: i32, handler: usize) -> Outcome<usize> {
    if signal != libc::SIGSEGV || !owns_sigsegv() {
        return Err(NOT_OURS);
    }
    let before = program_action();
    program_action_set(&KernelAction {
        handler,
        flags: libc::SA_RESTART as u64,
        restorer: 0,
        mask: bit(signal),
    });
    Ok(before.handler)
}

/// A set to block without SIGSEGV: with it blocked, a fault of ours would end the program.
///
/// # Safety
/// `set` is null or a signal set.
pub unsafe fn without_ours(how: i32, set: *const libc::sigset_t) -> Option<libc::sigset_t> {
    if how == libc::SIG_UNBLOCK || !owns_sigsegv() {
        return None;
    }
    // SAFETY: the caller's.
    unsafe {
        let mut copy = *set.as_ref()?;
        *(&raw mut copy as *mut Set) &= !bit(libc::SIGSEGV);
        Some(copy)
    }
}
