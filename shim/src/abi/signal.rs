//! The program's wishes about SIGSEGV, or SIGBUS, while the signal is ours.
//!
//! Owns: nothing; the engine keeps the program's action, and the kernel its masks, under another number. Called by: exports.
//! Must not: interfere while the engine is uffd or netmem is not in use, or in a child that shares our memory.

use core::ffi::{CStr, c_char, c_int};
use std::ffi::CString;

use super::buffers::Bounce;
use super::outcome::{NOT_OURS, Outcome};
use super::process::in_shared_memory_child;
use crate::engine::delivery::{owns_a_signal, program_action, set_program_action};
use crate::host::runtime_if_started;
use crate::log;
use crate::sys::app::Span;
use crate::sys::errno::Errno;
use crate::sys::signal::{self, KernelAction, Set, bit};

/// `sigset`'s disposition that blocks.
const SIG_HOLD: usize = 2;
/// SA_INTERRUPT, which does nothing and is kept.
const SA_INTERRUPT: c_int = 0x2000_0000;

/// The kernel's part of libc's set: its first 64 bits.
///
/// # Safety
/// A set of the program's.
unsafe fn read(set: *const libc::sigset_t) -> Set {
    // SAFETY: the caller's.
    unsafe { (set as *const Set).read_unaligned() }
}

fn make(set: Set) -> libc::sigset_t {
    // SAFETY: a set is plain words.
    unsafe {
        let mut out: libc::sigset_t = core::mem::zeroed();
        (&raw mut out as *mut Set).write(set);
        out
    }
}

/// Makes a call that takes one set, with the set as the kernel is to have it.
///
/// # Safety
/// `set` is null or a signal set.
pub unsafe fn with_set<T>(
    set: *const libc::sigset_t,
    make_call: impl FnOnce(*const libc::sigset_t) -> T,
) -> T {
    if set.is_null() || !owns_a_signal() {
        let mut bounce = Bounce::new();
        return make_call(bounce.input(set, size_of::<libc::sigset_t>));
    }
    // SAFETY: the caller's.
    let set = signal::to_kernel(unsafe { read(set) });
    let translated = make(set);
    signal::waiting_with(set, || make_call(&raw const translated))
}

/// The same for a call that also returns a set. What it returns is stored here, where a fault can be served.
///
/// # Safety
/// Both are null or signal sets.
pub unsafe fn with_sets(
    set: *const libc::sigset_t,
    out: *mut libc::sigset_t,
    make_call: impl FnOnce(*const libc::sigset_t, *mut libc::sigset_t) -> c_int,
) -> c_int {
    if !owns_a_signal() {
        let mut bounce = Bounce::new();
        let set = bounce.input(set, size_of::<libc::sigset_t>);
        let result = make_call(set, bounce.output(out, size_of::<libc::sigset_t>));
        bounce.finish();
        return result;
    }
    let mut got = make(0);
    // SAFETY: the caller's.
    unsafe {
        let result = with_set(set, |set| make_call(set, &raw mut got));
        if result == 0 && !out.is_null() {
            out.cast::<Set>().write_unaligned(signal::to_program(read(&raw const got)));
        }
        result
    }
}

/// pthread_attr_getsigmask_np(3), which fills the set also when it says that there is none.
///
/// # Safety
/// `out` is a signal set.
pub unsafe fn with_attribute_set(
    out: *mut libc::sigset_t,
    make_call: impl FnOnce(*mut libc::sigset_t) -> c_int,
) -> c_int {
    let result = make_call(out);
    if owns_a_signal() && result <= 0 {
        // SAFETY: the caller's, and just filled.
        unsafe { out.cast::<Set>().write_unaligned(signal::to_program(read(out))) };
    }
    result
}

/// A set to wait for: our signal may come under either number.
///
/// # Safety
/// `set` is a signal set.
unsafe fn to_wait_for(set: *const libc::sigset_t) -> libc::sigset_t {
    // SAFETY: the caller's.
    let wanted = unsafe { read(set) };
    make(signal::to_kernel(wanted) | wanted & bit(signal::ours()))
}

pub fn shown_number(number: c_int) -> c_int {
    if signal::stand_in() == Some(number) { signal::ours() } else { number }
}

/// sigwaitinfo(2) and sigtimedwait(2).
///
/// # Safety
/// As for the calls.
pub unsafe fn wait_info(
    set: *const libc::sigset_t,
    info: *mut libc::siginfo_t,
    make_call: impl FnOnce(*const libc::sigset_t, *mut libc::siginfo_t) -> c_int,
) -> c_int {
    if set.is_null() || !owns_a_signal() {
        let mut bounce = Bounce::new();
        let set = bounce.input(set, size_of::<libc::sigset_t>);
        let number = make_call(set, bounce.output(info, size_of::<libc::siginfo_t>));
        bounce.finish();
        return number;
    }
    // SAFETY: the caller's; a siginfo is plain words.
    unsafe {
        let translated = to_wait_for(set);
        let mut got: libc::siginfo_t = core::mem::zeroed();
        let number = make_call(&raw const translated, &raw mut got);
        let shown = shown_number(number);
        if shown != number {
            crate::engine::delivery::show_as_ours(&raw mut got);
        }
        if number > 0 && !info.is_null() {
            info.write(got);
        }
        shown
    }
}

/// sigwait(3).
///
/// # Safety
/// As for the call.
pub unsafe fn wait(
    set: *const libc::sigset_t,
    out: *mut c_int,
    make_call: impl FnOnce(*const libc::sigset_t, *mut c_int) -> c_int,
) -> c_int {
    if set.is_null() || !owns_a_signal() {
        let mut bounce = Bounce::new();
        return make_call(bounce.input(set, size_of::<libc::sigset_t>), out);
    }
    // SAFETY: the caller's.
    unsafe {
        let translated = to_wait_for(set);
        let mut number = 0;
        let result = make_call(&raw const translated, &raw mut number);
        if result == 0 {
            out.write(shown_number(number));
        }
        result
    }
}

/// signalfd(2): our signal would be read under another number, so it is not read at all.
///
/// # Safety
/// `set` is null or a signal set.
pub unsafe fn with_descriptor_set(
    set: *const libc::sigset_t,
    make_call: impl FnOnce(*const libc::sigset_t) -> c_int,
) -> c_int {
    if set.is_null() || !owns_a_signal() {
        let mut bounce = Bounce::new();
        return make_call(bounce.input(set, size_of::<libc::sigset_t>));
    }
    // SAFETY: the caller's.
    let wanted = make(signal::to_kernel(unsafe { read(set) } & !bit(signal::ours())));
    make_call(&raw const wanted)
}

/// sigaction(2): for our signal the program's action is kept, and handed what is not ours; for others, masks are translated.
///
/// # Safety
/// As for the call.
pub unsafe fn action(
    number: c_int,
    new: *const libc::sigaction,
    old: *mut libc::sigaction,
    make_call: impl FnOnce(*const libc::sigaction, *mut libc::sigaction) -> c_int,
) -> Outcome<c_int> {
    if !owns_a_signal() {
        let mut bounce = Bounce::new();
        let new = bounce.input(new, size_of::<libc::sigaction>);
        let result = make_call(new, bounce.output(old, size_of::<libc::sigaction>));
        bounce.finish();
        return Ok(result);
    }
    if signal::stand_in() == Some(number) {
        return Err(Errno(libc::EINVAL).into());
    }
    // SAFETY: the program's own structures, read and written where a fault can be served.
    unsafe {
        let mut wanted = (!new.is_null()).then(|| new.read());
        if number == signal::ours() && !in_shared_memory_child() {
            let before = match wanted {
                Some(new) => set_program_action(&KernelAction {
                    handler: new.sa_sigaction,
                    flags: new.sa_flags as u32 as u64,
                    restorer: 0,
                    mask: read(&raw const new.sa_mask),
                }),
                None => program_action(),
            };
            if !old.is_null() {
                let mut shown: libc::sigaction = core::mem::zeroed();
                shown.sa_sigaction = before.handler;
                shown.sa_flags = (before.flags & !signal::SA_RESTORER) as c_int;
                shown.sa_mask = make(before.mask);
                old.write(shown);
            }
            return Ok(0);
        }
        if let Some(new) = &mut wanted {
            new.sa_mask = make(signal::to_kernel(read(&raw const new.sa_mask)));
        }
        let mut before: libc::sigaction = core::mem::zeroed();
        let result =
            make_call(wanted.as_ref().map_or(core::ptr::null(), core::ptr::from_ref), &raw mut before);
        if result == 0 && !old.is_null() {
            before.sa_mask = make(signal::to_program(read(&raw const before.sa_mask)));
            old.write(before);
        }
        Ok(result)
    }
}

fn ours(number: c_int) -> Result<(), super::outcome::Exit> {
    if number != signal::ours() || !owns_a_signal() || in_shared_memory_child() {
        Err(NOT_OURS)
    } else {
        Ok(())
    }
}

/// Whether siginterrupt(3) was asked for, of our signal.
static INTERRUPTS: core::sync::atomic::AtomicBool = core::sync::atomic::AtomicBool::new(false);

/// siginterrupt(3) for our signal.
pub fn interrupt(number: c_int, on: bool) -> Outcome<c_int> {
    ours(number)?;
    INTERRUPTS.store(on, core::sync::atomic::Ordering::Relaxed);
    let mut action = program_action();
    action.flags &= !(libc::SA_RESTART as u64);
    action.flags |= if on { 0 } else { libc::SA_RESTART as u64 };
    set_program_action(&action);
    Ok(0)
}

/// Which of the old functions is asked to set a handler.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// signal, bsd_signal, ssignal: stays installed, restarts calls, is blocked while it runs.
    Bsd,
    /// sysv_signal: once, interrupts, is not blocked.
    SystemV,
    /// sigset and sigignore: stays, interrupts, is blocked while it runs.
    Plain,
}

/// Sets a handler for our signal; returns the one before.
pub fn simple(number: c_int, handler: usize, style: Style) -> Outcome<usize> {
    ours(number)?;
    if handler == libc::SIG_ERR {
        return Err(Errno(libc::EINVAL).into());
    }
    let restarts = !INTERRUPTS.load(core::sync::atomic::Ordering::Relaxed);
    let (flags, mask) = match style {
        Style::Bsd => (if restarts { libc::SA_RESTART } else { 0 }, bit(number)),
        Style::SystemV => (libc::SA_RESETHAND | libc::SA_NODEFER | SA_INTERRUPT, 0),
        Style::Plain => (0, 0),
    };
    let flags = flags as u32 as u64;
    Ok(set_program_action(&KernelAction { handler, flags, restorer: 0, mask }).handler)
}

/// sigset(3) for our signal.
pub fn set(number: c_int, disposition: usize) -> Outcome<usize> {
    ours(number)?;
    let how = if disposition == SIG_HOLD { libc::SIG_BLOCK } else { libc::SIG_UNBLOCK };
    let before = if disposition == SIG_HOLD {
        program_action().handler
    } else {
        simple(number, disposition, Style::Plain)?
    };
    let was = change(how, bit(number));
    Ok(if was & bit(number) != 0 { SIG_HOLD } else { before })
}

/// sighold(3) and sigrelse(3) for our signal.
pub fn hold(number: c_int, held: bool) -> Outcome<c_int> {
    ours(number)?;
    change(if held { libc::SIG_BLOCK } else { libc::SIG_UNBLOCK }, bit(number));
    Ok(0)
}

fn change(how: c_int, set: Set) -> Set {
    signal::to_program(signal::change(how, signal::to_kernel(set)))
}

/// sigblock(3) and sigsetmask(3), whose masks are the first 32 signals.
pub fn old_mask(how: c_int, mask: c_int) -> Outcome<c_int> {
    if !owns_a_signal() {
        return Err(NOT_OURS);
    }
    Ok(change(how, mask as u32 as Set) as c_int)
}

/// The set with which sigpause(3) waits: `given` is a mask, or a signal to leave out of what is blocked.
pub fn pause_set(given: c_int, is_signal: bool) -> Option<libc::sigset_t> {
    if !owns_a_signal() {
        return None;
    }
    Some(make(if is_signal {
        change(libc::SIG_BLOCK, 0) & !bit(given.clamp(1, 64))
    } else {
        given as u32 as Set
    }))
}

/// A context that the program may have given a mask with our signal in it.
///
/// # Safety
/// Null or a context.
pub unsafe fn translate_context(context: *mut libc::ucontext_t) {
    if !context.is_null() && owns_a_signal() {
        // SAFETY: the caller's.
        unsafe {
            let mask = &raw mut (*context).uc_sigmask as *mut Set;
            if *mask & bit(signal::ours()) != 0 {
                *mask = signal::to_kernel(*mask);
            }
        }
    }
}

/// A program that starts without us has its signals as they would be without us: its mask and what it ignores are inherited.
pub fn as_inherited<T>(make_call: impl FnOnce() -> T) -> T {
    if !owns_a_signal() {
        return make_call();
    }
    let Some(stand_in) = signal::stand_in() else { return make_call() };
    let blocked = signal::change(libc::SIG_BLOCK, 0) & bit(stand_in) != 0;
    if blocked {
        signal::change(libc::SIG_BLOCK, bit(signal::ours()));
        signal::change(libc::SIG_UNBLOCK, bit(stand_in));
    }
    let result = make_call();
    if blocked {
        signal::change(libc::SIG_BLOCK, bit(stand_in));
        signal::change(libc::SIG_UNBLOCK, bit(signal::ours()));
    }
    result
}

/// The command of system(3) and popen(3) where the program ignores our signal. libc's child gives every signal that has a handler its
/// default action, and the kernel knows ours; so the shell is told, before anything else, to ignore it.
///
/// # Safety
/// `command` is null or a C string.
pub unsafe fn shell_command(command: *const c_char) -> Option<CString> {
    if command.is_null() || !owns_a_signal() || program_action().handler != libc::SIG_IGN {
        return None;
    }
    // SAFETY: the caller's.
    let given = unsafe { CStr::from_ptr(command) }.to_bytes();
    let trap: &[u8] = if signal::ours() == libc::SIGBUS { b"trap '' BUS; " } else { b"trap '' SEGV; " };
    CString::new([trap, given].concat()).ok()
}

/// A stack that the program gives away, for the kernel to store frames on: where it lies in mappings of ours, its pages come in and
/// stay writable.
pub fn hold_stack(at: usize, length: usize) {
    let span = Span { at, length };
    let Some(runtime) = runtime_if_started().filter(|_| super::buffers::touches(span)) else { return };
    for mapping in runtime.mappings.overlapping(at, span.end()) {
        let (from, to) = (at.max(mapping.start), span.end().min(mapping.end));
        if let Err(errno) = runtime.engine().pin(&mapping, from, to) {
            log::error!("a stack at {at:#x} can't be held open: {errno}");
        }
    }
}

/// sigaltstack(2). Both structures are read and written where a fault can be served.
///
/// # Safety
/// As for the call.
pub unsafe fn alternate_stack(
    new: *const libc::stack_t,
    old: *mut libc::stack_t,
    make_call: impl FnOnce(*const libc::stack_t, *mut libc::stack_t) -> c_int,
) -> c_int {
    if super::buffers::idle() || in_shared_memory_child() {
        return make_call(new, old);
    }
    // SAFETY: the caller's; a stack_t is plain words.
    unsafe {
        let wanted = (!new.is_null()).then(|| new.read());
        if let Some(wanted) = wanted.as_ref().filter(|wanted| wanted.ss_flags & libc::SS_DISABLE == 0) {
            hold_stack(wanted.ss_sp as usize, wanted.ss_size);
        }
        let mut before: libc::stack_t = core::mem::zeroed();
        let result =
            make_call(wanted.as_ref().map_or(core::ptr::null(), core::ptr::from_ref), &raw mut before);
        if result == 0 && !old.is_null() {
            old.write(before);
        }
        result
    }
}

/// Before a thread is made: the stack that its attributes name, if they name one.
///
/// # Safety
/// As for pthread_create(3).
pub unsafe fn hold_thread_stack(attributes: *const libc::pthread_attr_t) {
    if attributes.is_null() || super::buffers::idle() {
        return;
    }
    let (mut at, mut length) = (core::ptr::null_mut(), 0);
    // SAFETY: the caller's.
    if unsafe { libc::pthread_attr_getstack(attributes, &raw mut at, &raw mut length) } == 0 && !at.is_null()
    {
        hold_stack(at as usize, length);
    }
}
