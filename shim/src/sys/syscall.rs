//! One system call, with nothing in between.
//!
//! Owns: the instruction. Called by: sys, and the hooks of the mmap family, which pass through as raw calls. Must not:
//! touch errno, which belongs to the program.

use core::arch::asm;

use super::errno::Errno;

/// Makes system call `number`.
///
/// # Safety
/// As for the call itself: whatever memory the kernel is told to read or write must be the caller's to give.
#[inline]
pub unsafe fn raw(number: libc::c_long, args: [usize; 6]) -> isize {
    let result: isize;
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the kernel clobbers rcx and r11 and nothing else; the caller answers for the call's own effects.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number as isize => result,
            in("rdi") args[0], in("rsi") args[1], in("rdx") args[2],
            in("r10") args[3], in("r8") args[4], in("r9") args[5],
            lateout("rcx") _, lateout("r11") _,
            options(nostack)
        );
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: as above; aarch64 clobbers only x0.
    unsafe {
        asm!(
            "svc 0",
            in("x8") number,
            inlateout("x0") args[0] as isize => result,
            in("x1") args[1], in("x2") args[2], in("x3") args[3], in("x4") args[4], in("x5") args[5],
            options(nostack)
        );
    }
    result
}

/// The same as a `Result`.
///
/// # Safety
/// As [`raw`].
#[inline]
pub unsafe fn call(number: libc::c_long, args: [usize; 6]) -> Result<usize, Errno> {
    // SAFETY: the caller's.
    let result = unsafe { raw(number, args) };
    if (-4095..0).contains(&result) { Err(Errno(-result as i32)) } else { Ok(result as usize) }
}
