//! Threads that libc does not know of.
//!
//! Owns: their stacks and control blocks. Called by: far. Must not: run code that uses libc's thread-locals beyond errno, or Rust's.
//!
//! libc makes a thread with memory of the program's heap, and reads its lists of libraries for it. In a forked child that memory may be far
//! away while the thread that would bring it back is being made; and a program with one thread would no longer have one, which makes its
//! malloc slower. So these are made by clone(2) alone. Their control block has what compiled code looks for: its own address, the stack
//! protector's guard, and room for the words of `own.rs` and errno at the same distance as in every thread.

use super::errno::Errno;

/// Runs `body` on a new thread with every signal blocked, in memory of our own.
#[cfg(target_arch = "x86_64")]
pub fn spawn(body: Box<dyn FnOnce() + Send>) -> Result<(), Errno> {
    use core::ffi::c_void;

    use super::mem::{self, PAGE};
    use super::signal::SignalMask;

    /// Bytes of stack, below which a page is nobody's.
    const STACK_BYTES: usize = 256 << 10;
    /// Bytes of the control block that are ours to fill (tcbhead_t, sysdeps/x86_64/nptl/tls.h).
    const BLOCK_BYTES: usize = 4096;
    /// tcb, dtv, self, multiple_threads, sysinfo, stack_guard, pointer_guard.
    const SELF: usize = 2;
    const STACK_GUARD: usize = 5;
    const POINTER_GUARD: usize = 6;
    const FLAGS: i32 = libc::CLONE_VM
        | libc::CLONE_FS
        | libc::CLONE_FILES
        | libc::CLONE_SIGHAND
        | libc::CLONE_THREAD
        | libc::CLONE_SYSVSEM
        | libc::CLONE_SETTLS;

    extern "C" fn start(arg: *mut c_void) {
        // SAFETY: the pointer is the box that `spawn` leaked for this thread alone.
        let body = unsafe { Box::from_raw(arg as *mut Box<dyn FnOnce() + Send>) };
        let _quiet = SignalMask::already_blocked();
        super::thread::note_ours();
        body();
    }

    let block = control_block();
    // SAFETY: this thread's own.
    let errno = unsafe { libc::__errno_location() } as usize;
    let own = core::ptr::from_ref(super::own::own()) as usize;
    let below = block.saturating_sub(errno.min(own)).next_multiple_of(PAGE) + PAGE;
    let length = PAGE + STACK_BYTES + below + BLOCK_BYTES;
    let at = mem::reserve(length)?;
    mem::mprotect(at, PAGE, libc::PROT_NONE)?;
    // A forked child has no use for it.
    mem::set_fork(at, length, false)?;
    let fresh = at + PAGE + STACK_BYTES + below;
    let arg = Box::into_raw(Box::new(body));
    let top = at + PAGE + STACK_BYTES - 16;
    let result: isize;
    let quiet = SignalMask::block_all();
    // SAFETY: all of it lies in memory that was just made; the new thread runs `start` on a stack of its own, and ends there.
    unsafe {
        let words = fresh as *mut usize;
        words.write(fresh);
        words.add(SELF).write(fresh);
        for guard in [STACK_GUARD, POINTER_GUARD] {
            words.add(guard).write((block as *const usize).add(guard).read());
        }
        (top as *mut usize).write(start as *const () as usize);
        (top as *mut *mut c_void).add(1).write(arg.cast());
        core::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "pop rax",
            "pop rdi",
            "call rax",
            "xor edi, edi",
            "mov eax, 60",
            "syscall",
            "ud2",
            "2:",
            inlateout("rax") libc::SYS_clone as isize => result,
            in("rdi") FLAGS as isize,
            in("rsi") top,
            in("rdx") 0,
            in("r10") 0,
            in("r8") fresh,
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    drop(quiet);
    if result > 0 {
        return Ok(());
    }
    // SAFETY: no thread was made, so both are still ours.
    unsafe {
        drop(Box::from_raw(arg));
        let _ = mem::munmap(at, length);
    }
    Err(Errno(-result as i32))
}

/// Where this thread's control block is: what it says of itself.
#[cfg(target_arch = "x86_64")]
fn control_block() -> usize {
    let at;
    // SAFETY: the ABI keeps the block's own address in its first word.
    unsafe { core::arch::asm!("mov {}, fs:0", out(reg) at, options(nostack, readonly, preserves_flags)) };
    at
}

/// Where the control block is built otherwise, libc makes the thread.
#[cfg(not(target_arch = "x86_64"))]
pub fn spawn(body: Box<dyn FnOnce() + Send>) -> Result<(), Errno> {
    super::thread::spawn(body)
}
