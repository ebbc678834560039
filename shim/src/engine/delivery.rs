//! The fault signal that is ours, SIGSEGV or SIGBUS: what is a fault of ours is served, everything else goes to the program as if we were not there.
//!
//! Owns: the handler, and the program's own action for the signal. Called by: the kernel; abi::signal for the action; takeover.
//! Must not: run the program's handler on anything but the frame that the kernel made for it.
//!
//! The entry takes a stack of ours, decides there, goes back to the kernel's frame, and either returns from it or jumps to the
//! program's handler, which then finds stack, registers and arguments as if the kernel had called it. SA_ONSTACK and SA_RESTART
//! are the kernel's to honour, so our action carries the program's.

use core::ffi::c_void;
use core::sync::atomic::{AtomicI32, Ordering};

use super::state::Looking;
use super::{handler_stack, sites};
use crate::host;
use crate::log;
use crate::sync::QuietMutex;
use crate::sys::errno::{self, Errno};
use crate::sys::mem;
use crate::sys::signal::{self, KernelAction, Set, bit};

/// The program's own action for our signal. Lock order: a leaf, for a copy; fork takes it.
static PROGRAMS: QuietMutex<KernelAction> =
    QuietMutex::new(KernelAction { handler: libc::SIG_DFL, flags: 0, restorer: 0, mask: 0 });

/// The process whose mappings the table has.
static OWNER: AtomicI32 = AtomicI32::new(0);

/// Whether a signal is ours ([`signal::ours`]), so that the program's wishes about it are kept here.
pub fn owns_a_signal() -> bool {
    signal::stand_in().is_some()
}

/// The program's own action for our signal.
pub fn program_action() -> KernelAction {
    *PROGRAMS.lock()
}

/// The lock that the fork hook takes.
pub fn lock_for_fork() -> crate::sync::QuietGuard<'static, KernelAction> {
    PROGRAMS.lock()
}

/// In a forked child, and when a signal becomes ours.
pub fn begin_again() {
    OWNER.store(rustix::process::getpid().as_raw_nonzero().get(), Ordering::Relaxed);
    handler_stack::nobody_is_on_them();
}

/// Notes the program's own action for our signal; returns the one before.
pub fn set_program_action(action: &KernelAction) -> KernelAction {
    let mut programs = PROGRAMS.lock();
    let before = core::mem::replace(&mut *programs, *action);
    let number = signal::stand_in().unwrap_or(signal::ours());
    if action.handler == libc::SIG_IGN && before.handler != libc::SIG_IGN {
        // As the kernel does: what waits is thrown away.
        let ignore = KernelAction { handler: libc::SIG_IGN, ..KernelAction::default() };
        // SAFETY: SIG_IGN runs nothing.
        let _ = unsafe { signal::action(number, Some(&ignore)) };
    }
    install(&programs);
    before
}

/// Puts our handler in place for our signal and its stand-in, with what the kernel must honour of the program's action.
fn install(programs: &KernelAction) {
    let own_stack = programs.handler <= libc::SIG_IGN || programs.flags & libc::SA_ONSTACK as u64 != 0;
    let restart = programs.handler <= libc::SIG_IGN || programs.flags & libc::SA_RESTART as u64 != 0;
    let mut flags = 0;
    if own_stack {
        flags |= libc::SA_ONSTACK as u64;
    }
    if restart {
        flags |= libc::SA_RESTART as u64;
    }
    // Every signal waits while a fault is served: a handler of the program that ran in the middle could touch the page
    // that its own thread is bringing in.
    let ours = signal::our_action(entry, Set::MAX, flags);
    for number in [Some(signal::ours()), signal::stand_in()].into_iter().flatten() {
        // SAFETY: the entry is written to run anywhere.
        if let Err(errno) = unsafe { signal::action(number, Some(&ours)) } {
            log::error!("signal {number}: {errno}");
        }
    }
}

/// Before exec: the next program inherits that our signal is ignored. Says whether that changed anything.
pub fn show_programs_disposition() -> bool {
    let programs = PROGRAMS.lock();
    let ignored = owns_a_signal() && programs.handler == libc::SIG_IGN;
    if ignored {
        let ignore = KernelAction { handler: libc::SIG_IGN, ..KernelAction::default() };
        // SAFETY: SIG_IGN runs nothing.
        let _ = unsafe { signal::action(signal::ours(), Some(&ignore)) };
    }
    ignored
}

/// The exec failed.
pub fn take_back_disposition() {
    install(&PROGRAMS.lock());
}

/// What the entry does next.
#[repr(C)]
struct Next {
    /// 0, or the program's handler.
    handler: usize,
    /// The mask to run it with.
    mask: Set,
}

const RETURN: Next = Next { handler: 0, mask: 0 };

#[cfg(target_arch = "x86_64")]
#[unsafe(naked)]
unsafe extern "C" fn entry(number: i32, info: *mut libc::siginfo_t, context: *mut c_void) {
    // The registers are the frame's to give back: none needs saving here but rbp, by which a debugger finds the frame.
    core::arch::naked_asm!(
        ".cfi_startproc",
        "push rbp",
        ".cfi_def_cfa_offset 16",
        ".cfi_offset rbp, -16",
        "mov rbp, rsp",
        ".cfi_def_cfa_register rbp",
        "mov r12d, edi",
        "mov r13, rsi",
        "mov r14, rdx",
        "cld",
        "and rsp, -16",
        "call {take}",
        "mov rbx, rax",
        "test rax, rax",
        "cmovnz rsp, rax",
        "mov edi, r12d",
        "mov rsi, r13",
        "mov rdx, r14",
        "call {decide}",
        "mov r15, rax",
        "lea rsp, [rbp - 32]",
        "mov [rsp], rdx",
        "and rsp, -16",
        "mov rdi, rbx",
        "call {give}",
        "test r15, r15",
        "jz 2f",
        // rt_sigprocmask(SIG_SETMASK, &mask, 0, 8), on the program's stack, then the handler in place of this one.
        "lea rsi, [rbp - 32]",
        "mov edi, 2",
        "xor edx, edx",
        "mov r10d, 8",
        "mov eax, 14",
        "syscall",
        "mov edi, dword ptr [rip + {ours}]",
        "mov rsi, r13",
        "mov rdx, r14",
        "xor eax, eax",
        "mov rsp, rbp",
        "pop rbp",
        ".cfi_def_cfa rsp, 8",
        "jmp r15",
        "2:",
        ".cfi_def_cfa rbp, 16",
        "mov rsp, rbp",
        "pop rbp",
        ".cfi_def_cfa rsp, 8",
        "ret",
        ".cfi_endproc",
        take = sym handler_stack::take,
        give = sym handler_stack::give,
        decide = sym decide,
        ours = sym signal::OURS,
    )
}

#[cfg(target_arch = "aarch64")]
unsafe extern "C" fn entry(number: i32, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel's own arguments.
    let next = unsafe { decide(number, info, context) };
    if next.handler != 0 {
        signal::change(libc::SIG_SETMASK, next.mask);
        // SAFETY: the program installed this function for this signal; one that takes less ignores the rest.
        unsafe {
            let handler: extern "C" fn(i32, *mut libc::siginfo_t, *mut c_void) =
                core::mem::transmute(next.handler);
            handler(signal::ours(), info, context);
        }
    }
}

/// What a signal means. Every signal is blocked.
///
/// # Safety
/// The kernel's own arguments.
unsafe extern "C" fn decide(number: i32, info: *mut libc::siginfo_t, context: *mut c_void) -> Next {
    let saved = errno::get();
    let quiet = signal::SignalMask::already_blocked();
    // SAFETY: the caller's.
    let next = unsafe {
        if number == signal::ours() { on_fault(info, context) } else { on_stand_in(number, info, context) }
    };
    drop(quiet);
    errno::set(saved);
    next
}

unsafe fn on_fault(info: *mut libc::siginfo_t, context: *mut c_void) -> Next {
    let looking = Looking::start();
    // SAFETY: the caller's.
    let fault = unsafe { signal::read_fault(info, context) };
    let began = sites::wanted().then(std::time::Instant::now);
    let serve = |fault: signal::HardwareFault| {
        let runtime = host::runtime_if_started()?;
        let mapping = runtime.mappings.find(fault.address)?;
        // What may be written or executed may be read.
        let allowed = mapping.prot & fault.wish != 0 || fault.wish == libc::PROT_READ && mapping.prot != 0;
        // A child that was cloned past us has the handler and the table, but not the mapping.
        let here = OWNER.load(Ordering::Relaxed) == rustix::process::getpid().as_raw_nonzero().get()
            || mem::is_mapped(fault.address & !(mem::PAGE - 1), mem::PAGE);
        if !here {
            return None;
        }
        match runtime.engine() {
            super::Engine::Sigsegv(_) if !allowed => None,
            super::Engine::Sigsegv(engine) => Some(engine.serve(&mapping, fault.address, fault.write())),
            // The kernel has looked at what is allowed, or will: a page that is not to be executed comes in before it says so.
            super::Engine::Uffd(engine) => engine.serve(runtime, &mapping, fault.address, fault.write()),
        }
    };
    let served = fault.and_then(|fault| sites::in_fault(|| serve(fault)));
    drop(looking);
    if let (Some(began), Some(Ok(()))) = (began, &served) {
        // SAFETY: the caller's.
        let (instruction, stack) = unsafe { signal::interrupted_at(context) };
        sites::note(sites::Wait::Touch, sites::of(instruction, stack), began);
    }
    match served {
        Some(Ok(())) => RETURN,
        Some(Err(why)) => {
            if why != Errno(libc::EFAULT) {
                crate::stats::add(&crate::stats::GIVEN_UP, 1);
                log::error!("a page can't be had ({why}): SIGBUS");
            }
            if signal::ours() == libc::SIGBUS {
                // SAFETY: the caller's.
                return unsafe { hand_on(info, context) };
            }
            // SAFETY: the caller's.
            unsafe { bus_error(info, context) };
            RETURN
        }
        // SAFETY: the caller's.
        None => unsafe { hand_on(info, context) },
    }
}

/// What the interrupted code had blocked.
unsafe fn mask_of(context: *mut c_void) -> *mut Set {
    // SAFETY: the kernel's context, whose mask is of 8 bytes.
    unsafe { &raw mut (*(context as *mut libc::ucontext_t)).uc_sigmask as *mut Set }
}

/// What was blocked when the signal came: the same, but in a call that waits with a mask of its own.
unsafe fn mask_in_effect(context: *mut c_void) -> Set {
    // SAFETY: the kernel's context, in the thread that it interrupted.
    unsafe { signal::interrupted_wait(context).unwrap_or_else(|| *mask_of(context)) }
}

/// SIGBUS for the address of the fault, as for an I/O error on a mapped file: queued to this thread, and delivered by the kernel
/// when the handler returns.
unsafe fn bus_error(info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: asking changes nothing.
    let action = unsafe { signal::action(libc::SIGBUS, None) }.unwrap_or_default();
    // SAFETY: the caller's.
    unsafe {
        let mask = mask_of(context);
        if *mask & bit(libc::SIGBUS) != 0 || action.handler == libc::SIG_IGN {
            // A fault can't wait and can't be ignored: it ends the program.
            *mask &= !bit(libc::SIGBUS);
            let _ = signal::action(libc::SIGBUS, Some(&KernelAction::default()));
        }
        (*info).si_signo = libc::SIGBUS;
        (*info).si_code = libc::BUS_ADRERR;
        let _ = signal::queue_to_thread(signal::thread_number(), libc::SIGBUS, info);
    }
}

/// Ends the program by this signal when the handler returns.
unsafe fn end_by(number: i32, info: *mut libc::siginfo_t, was_sent: bool) {
    // SAFETY: SIG_DFL runs nothing.
    let _ = unsafe { signal::action(number, Some(&KernelAction::default())) };
    // An access that faulted is made again, and ends the program with the right address in its core.
    if was_sent {
        let _ = signal::queue_to_thread(signal::thread_number(), number, info);
    }
}

/// Word of a siginfo that says that we queued it: behind what kill, tgkill and sigqueue fill.
const MARK_WORD: usize = 5;
const MARK: u64 = 0x6e65_746d_656d_5345;

unsafe fn mark_of(info: *mut libc::siginfo_t) -> *mut u64 {
    // SAFETY: a siginfo is 128 bytes, aligned to 8; the kernel copies 48 of them.
    unsafe { (info as *mut u64).add(MARK_WORD) }
}

/// Gives a fault signal that is not of our making to the program.
unsafe fn hand_on(info: *mut libc::siginfo_t, context: *mut c_void) -> Next {
    // SAFETY: the caller's. A code of 0 or less says that someone sent the signal.
    let (was_sent, before) = unsafe { ((*info).si_code <= 0, mask_in_effect(context)) };
    let blocked = signal::to_program(before) & bit(signal::ours()) != 0;
    let Some(stand_in) = signal::stand_in() else { return RETURN };
    if blocked && was_sent {
        // It waits in the kernel under the other number, until the program unblocks ours by whatever way.
        if signal::pending() & bit(stand_in) == 0 {
            // SAFETY: the kernel's siginfo, on our stack's frame.
            unsafe {
                *mark_of(info) = MARK;
                if (*info).si_code == libc::SI_TKILL {
                    let _ = signal::queue_to_thread(signal::thread_number(), stand_in, info);
                } else {
                    signal::queue_to_process(stand_in, info);
                }
            }
        }
        return RETURN;
    }
    // SAFETY: the caller's.
    unsafe { deliver(info, before, was_sent, blocked) }
}

/// The other number: a signal that waited, or one that somebody sent under that number, which has no other meaning than to
/// end the program.
unsafe fn on_stand_in(number: i32, info: *mut libc::siginfo_t, context: *mut c_void) -> Next {
    // SAFETY: the caller's.
    unsafe {
        if *mark_of(info) != MARK {
            end_by(number, info, true);
            return RETURN;
        }
        show_as_ours(info);
        deliver(info, mask_in_effect(context), true, false)
    }
}

/// What waited under the other number is our signal again.
///
/// # Safety
/// A siginfo that the kernel gave for the stand-in.
pub unsafe fn show_as_ours(info: *mut libc::siginfo_t) {
    // SAFETY: the caller's.
    unsafe {
        *mark_of(info) = 0;
        (*info).si_signo = signal::ours();
    }
}

unsafe fn deliver(info: *mut libc::siginfo_t, before: Set, was_sent: bool, blocked: bool) -> Next {
    let mut programs = PROGRAMS.lock();
    let action = *programs;
    let default = action.handler == libc::SIG_DFL || action.handler == libc::SIG_IGN;
    if was_sent && action.handler == libc::SIG_IGN {
        return RETURN;
    }
    if default || blocked {
        // A fault can't be ignored, and can't wait.
        drop(programs);
        // SAFETY: the caller's.
        unsafe { end_by(signal::ours(), info, was_sent) };
        return RETURN;
    }
    if action.flags & libc::SA_RESETHAND as u64 != 0 {
        programs.handler = libc::SIG_DFL;
        install(&programs);
    }
    drop(programs);
    let own = if action.flags & libc::SA_NODEFER as u64 != 0 { 0 } else { bit(signal::ours()) };
    // Both are in the program's terms: what it had blocked, and what it wants blocked meanwhile.
    let mask = signal::to_kernel(signal::to_program(before) | action.mask | own);
    Next { handler: action.handler, mask }
}
