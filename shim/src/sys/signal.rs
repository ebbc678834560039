//! Signals: blocking them around critical sections, and the fault signals of the sigsegv engine.
//!
//! Owns: signal masks, raw sigaction, reading a fault out of a ucontext. Called by: sync, engine::takeover, engine::delivery,
//! abi::signal. Must not: decide what a fault means.

use core::ffi::c_void;
use core::marker::PhantomData;
use core::sync::atomic::{AtomicI32, Ordering};

use super::errno::Errno;
use super::own::own;
use super::syscall::{call, raw};

/// A kernel signal set: bit n-1 is signal n.
pub type Set = u64;

/// A call under way that waits with a mask of its own. It lies on the stack just above the frame of libc's function.
struct Wait {
    mark: u64,
    set: Set,
}

const WAITS: u64 = 0x6e65_746d_656d_5741;
/// Between a [`Wait`] and the stack pointer of the call's system call there are fewer bytes than this, and than the smallest
/// signal frame, below which a handler that interrupted the call runs.
const WAIT_FRAME: usize = 1000;

/// Makes a call that waits with a mask of the kernel's terms.
pub fn waiting_with<T>(set: Set, make: impl FnOnce() -> T) -> T {
    let mut wait = Wait { mark: WAITS, set };
    // A handler of the program's that runs meanwhile may wait, too.
    let before = own().waiting.replace((&raw const wait).cast());
    let result = make();
    own().waiting.set(before);
    // SAFETY: our own. What a jump out of a handler leaves behind is marked, and what comes back here is not.
    unsafe { (&raw mut wait.mark).write_volatile(0) };
    result
}

/// The mask of the wait that a signal interrupted, if it did: the kernel shows a handler the one from before the wait.
///
/// # Safety
/// The context that the kernel gave to a handler, in the thread that it interrupted.
pub unsafe fn interrupted_wait(context: *const c_void) -> Option<Set> {
    // SAFETY: the caller's.
    let machine = unsafe { &(*(context as *const libc::ucontext_t)).uc_mcontext };
    #[cfg(target_arch = "x86_64")]
    let (result, stack) =
        (machine.gregs[libc::REG_RAX as usize], machine.gregs[libc::REG_RSP as usize] as usize);
    #[cfg(target_arch = "aarch64")]
    let (result, stack) = (machine.regs[0] as i64, machine.sp as usize);
    let wait = own().waiting.get() as *const Wait;
    let between = (wait as usize).wrapping_sub(stack);
    // A handler that the wait was interrupted by first runs further down, or on another stack.
    if wait.is_null() || result != -i64::from(libc::EINTR) || between > WAIT_FRAME {
        return None;
    }
    // SAFETY: between the interrupted frame and its thread's callers: memory of the stack in use.
    let wait = unsafe { wait.read() };
    (wait.mark == WAITS).then_some(wait.set)
}

/// Holds the thread's signals off while it lives. Only the outermost one of a thread makes system calls.
pub struct SignalMask {
    /// Whether dropping the outermost one gives the program its mask back.
    restore: bool,
    // The mask belongs to this thread.
    _thread: PhantomData<*const ()>,
}

impl SignalMask {
    /// Blocks every signal of this thread.
    pub fn block_all() -> Self {
        let depth = own().depth.get();
        if depth == 0 {
            own().before.set(change(libc::SIG_SETMASK, Set::MAX));
        }
        // A handler that ran between the two lines would have found the depth as it was, and left it so.
        own().depth.set(depth + 1);
        SignalMask { restore: true, _thread: PhantomData }
    }

    /// Keeps the signals blocked until [`Self::resume`] in the same thread, or in a forked child's copy of it.
    pub fn keep(self) {
        core::mem::forget(self);
    }

    /// What was kept, to be dropped.
    pub fn resume() -> Self {
        SignalMask { restore: true, _thread: PhantomData }
    }

    /// For code that runs with every signal blocked already: a thread of ours, or our handler.
    pub fn already_blocked() -> Self {
        own().depth.set(own().depth.get() + 1);
        SignalMask { restore: false, _thread: PhantomData }
    }
}

impl Drop for SignalMask {
    fn drop(&mut self) {
        let depth = own().depth.get() - 1;
        own().depth.set(depth);
        if depth == 0 && self.restore {
            change(libc::SIG_SETMASK, own().before.get());
        }
    }
}

/// rt_sigprocmask(2): returns the set before.
pub fn change(how: i32, set: Set) -> Set {
    let mut before: Set = 0;
    // SAFETY: both sets are live and 8 bytes long, as the last argument says.
    unsafe {
        raw(
            libc::SYS_rt_sigprocmask,
            [how as usize, &raw const set as usize, &raw mut before as usize, 8, 0, 0],
        )
    };
    before
}

/// The bit of a signal in a [`Set`].
pub const fn bit(signal: i32) -> Set {
    1 << (signal - 1)
}

/// The fault signal that is ours, SIGSEGV or SIGBUS by the engine, once it is.
pub(crate) static OURS: AtomicI32 = AtomicI32::new(libc::SIGSEGV);
/// The signal that stands in masks for it while the program has it blocked; 0 before it is ours.
static STAND_IN: AtomicI32 = AtomicI32::new(0);

/// See [`OURS`]. Means nothing while there is no stand-in.
pub fn ours() -> i32 {
    OURS.load(Ordering::Relaxed)
}

/// See [`STAND_IN`]. `None` while every signal is the program's own.
pub fn stand_in() -> Option<i32> {
    Some(STAND_IN.load(Ordering::Relaxed)).filter(|number| *number != 0)
}

/// From now on `ours` is not blocked by any mask: masks are translated.
pub fn set_stand_in(ours: i32, number: i32) {
    OURS.store(ours, Ordering::SeqCst);
    STAND_IN.store(number, Ordering::SeqCst);
}

/// A set of the program's as the kernel is to have it: our signal is never blocked, its stand-in is.
pub fn to_kernel(set: Set) -> Set {
    match stand_in() {
        None => set,
        Some(number) => {
            let rest = set & !bit(ours()) & !bit(number);
            if set & bit(ours()) != 0 { rest | bit(number) } else { rest }
        }
    }
}

/// A set of the kernel's as the program is to see it.
pub fn to_program(set: Set) -> Set {
    match stand_in() {
        Some(number) if set & bit(number) != 0 => set & !bit(number) | bit(ours()),
        _ => set,
    }
}

/// Changes what the program has blocked in this thread, also while a [`SignalMask`] keeps everything blocked.
pub fn change_programs(translate: impl Fn(Set) -> Set) {
    if own().depth.get() > 0 {
        own().before.set(translate(own().before.get()));
    } else {
        let mask = SignalMask::block_all();
        own().before.set(translate(own().before.get()));
        drop(mask);
    }
}

/// What the kernel's sigaction takes (not libc's struct).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct KernelAction {
    /// SIG_DFL (0), SIG_IGN (1) or a function.
    pub handler: usize,
    /// SA_* bits.
    pub flags: u64,
    /// x86-64: the function that returns from the handler.
    pub restorer: usize,
    /// Blocked while the handler runs.
    pub mask: Set,
}

/// SA_RESTORER, which libc hides.
pub const SA_RESTORER: u64 = 0x0400_0000;

/// rt_sigaction(2).
///
/// # Safety
/// The handler must be one that may run at any instruction.
pub unsafe fn action(signal: i32, new: Option<&KernelAction>) -> Result<KernelAction, Errno> {
    let mut old = KernelAction::default();
    let new = new.map_or(0, |new| new as *const KernelAction as usize);
    // SAFETY: both structures are live; the caller answers for the handler.
    unsafe { call(libc::SYS_rt_sigaction, [signal as usize, new, &raw mut old as usize, 8, 0, 0])? };
    Ok(old)
}

#[cfg(target_arch = "x86_64")]
core::arch::global_asm!(
    ".hidden netmem_restore_rt",
    ".globl netmem_restore_rt",
    ".type netmem_restore_rt,@function",
    "netmem_restore_rt:",
    "mov rax, 15",
    "syscall",
    ".size netmem_restore_rt, . - netmem_restore_rt",
);

#[cfg(target_arch = "x86_64")]
unsafe extern "C" {
    fn netmem_restore_rt();
}

/// A handler of ours in the kernel's form.
pub fn our_action(
    handler: unsafe extern "C" fn(i32, *mut libc::siginfo_t, *mut c_void),
    mask: Set,
    flags: u64,
) -> KernelAction {
    #[cfg(target_arch = "x86_64")]
    let (restorer, extra) = (netmem_restore_rt as *const () as usize, SA_RESTORER);
    #[cfg(target_arch = "aarch64")]
    let (restorer, extra) = (0, 0);
    KernelAction { handler: handler as usize, flags: flags | libc::SA_SIGINFO as u64 | extra, restorer, mask }
}

/// A hardware fault as the kernel reported it.
#[derive(Clone, Copy, Debug)]
pub struct HardwareFault {
    /// The byte that was touched.
    pub address: usize,
    /// What it was: the one bit of PROT_READ, PROT_WRITE or PROT_EXEC that it needed.
    pub wish: i32,
}

impl HardwareFault {
    /// Whether it was a store.
    pub fn write(&self) -> bool {
        self.wish == libc::PROT_WRITE
    }
}

/// `si_code` of a fault by a protection key, which no page of ours can mend.
const SEGV_PKUERR: i32 = 4;

/// Reads a fault out of what a handler was given. `None` if the signal was sent by someone rather than raised by the
/// hardware (si_code of kill, tgkill, sigqueue), or by something that bringing a page in does not change.
///
/// # Safety
/// The pointers must be those the kernel gave to a SIGSEGV or SIGBUS handler.
pub unsafe fn read_fault(info: *const libc::siginfo_t, context: *const c_void) -> Option<HardwareFault> {
    // SAFETY: the kernel filled both; si_addr is meaningful for positive si_code.
    unsafe {
        if (*info).si_code <= 0 || (*info).si_code == SEGV_PKUERR {
            return None;
        }
        let context = context as *const libc::ucontext_t;
        // The page fault's error code: bit 1 is a store, bit 4 an instruction.
        #[cfg(target_arch = "x86_64")]
        let wish = match (*context).uc_mcontext.gregs[libc::REG_ERR as usize] {
            error if error & 2 != 0 => libc::PROT_WRITE,
            error if error & 16 != 0 => libc::PROT_EXEC,
            _ => libc::PROT_READ,
        };
        // The syndrome register is in a record of the reserved area; without it a fault counts as a store, which only makes
        // the page a candidate for the next commit.
        #[cfg(target_arch = "aarch64")]
        let wish = {
            let _ = context;
            libc::PROT_WRITE
        };
        Some(HardwareFault { address: (*info).si_addr() as usize, wish })
    }
}

/// The interrupted code's instruction, and its stack pointer.
///
/// # Safety
/// The context that the kernel gave to a handler.
pub unsafe fn interrupted_at(context: *const c_void) -> (usize, usize) {
    // SAFETY: the caller's.
    let machine = unsafe { &(*(context as *const libc::ucontext_t)).uc_mcontext };
    #[cfg(target_arch = "x86_64")]
    return (machine.gregs[libc::REG_RIP as usize] as usize, machine.gregs[libc::REG_RSP as usize] as usize);
    #[cfg(target_arch = "aarch64")]
    return (machine.pc as usize, machine.sp as usize);
}

/// Sends a signal to a thread of this process with a siginfo of our choice, which the kernel passes on.
pub fn queue_to_thread(thread: i32, number: i32, info: *const libc::siginfo_t) -> Result<(), Errno> {
    let pid = rustix::process::getpid().as_raw_nonzero().get() as usize;
    // SAFETY: the caller's siginfo, whole.
    unsafe {
        let args = [pid, thread as usize, number as usize, info as usize, 0, 0];
        call(libc::SYS_rt_tgsigqueueinfo, args).map(drop)
    }
}

/// The same to the process: any thread that has it unblocked.
pub fn queue_to_process(number: i32, info: *const libc::siginfo_t) {
    let pid = rustix::process::getpid().as_raw_nonzero().get() as usize;
    // SAFETY: as above.
    let _ = unsafe { call(libc::SYS_rt_sigqueueinfo, [pid, number as usize, info as usize, 0, 0, 0]) };
}

/// The signals that wait for this thread to unblock them.
pub fn pending() -> Set {
    let mut set: Set = 0;
    // SAFETY: the set is live and 8 bytes long.
    unsafe { raw(libc::SYS_rt_sigpending, [&raw mut set as usize, 8, 0, 0, 0, 0]) };
    set
}

/// This thread's number.
pub fn thread_number() -> i32 {
    // SAFETY: no memory is involved.
    unsafe { raw(libc::SYS_gettid, [0; 6]) as i32 }
}

/// Sends a signal to this very thread.
pub fn raise_here(signal: i32) {
    // SAFETY: no memory is involved.
    unsafe {
        let pid = raw(libc::SYS_getpid, [0; 6]) as usize;
        let tid = raw(libc::SYS_gettid, [0; 6]) as usize;
        raw(libc::SYS_tgkill, [pid, tid, signal as usize, 0, 0, 0]);
    }
}
