//! libc's own mmap and brk, as libc calls them: malloc's memory.
//!
//! Owns: what stands in for the two. Called by: libc's text (`sys/divert.rs`), in a program with a budget for its memory. Must not: do
//! anything but the call where far memory does not serve.

use core::ffi::{CStr, c_int, c_void};
use core::sync::atomic::{AtomicPtr, Ordering};

use crate::far::growth;
use crate::log;
use crate::sys::divert;
use crate::sys::errno::{self, Errno};
use crate::sys::syscall::{call, raw};

unsafe extern "C" {
    /// Where the heap ends, as libc remembers it (misc/brk.c).
    safe static __curbrk: AtomicPtr<c_void>;
}

/// sysdeps/unix/sysv/linux/mmap64.c
unsafe extern "C" fn mmap(
    at: *mut c_void,
    length: usize,
    prot: c_int,
    flags: c_int,
    number: c_int,
    offset: i64,
) -> *mut c_void {
    let args =
        [at as usize, length, prot as usize, flags as usize, number as isize as usize, offset as usize];
    // SAFETY: the caller's.
    match unsafe { call(libc::SYS_mmap, args) } {
        Ok(at) => {
            growth::mapped(at, length, prot, flags);
            at as *mut c_void
        }
        Err(errno) => {
            errno::set(errno);
            libc::MAP_FAILED
        }
    }
}

/// sysdeps/unix/sysv/linux/brk.c: the kernel's answer is where the heap ends now, whatever was asked.
unsafe extern "C" fn brk(wanted: *mut c_void) -> c_int {
    // SAFETY: the caller's.
    let now = unsafe { raw(libc::SYS_brk, [wanted as usize, 0, 0, 0, 0, 0]) } as *mut c_void;
    let before = __curbrk.swap(now, Ordering::Relaxed);
    if now < wanted {
        errno::set(Errno(libc::ENOMEM));
        return -1;
    }
    if !before.is_null() {
        growth::appeared(before as usize, now as usize, true);
    }
    0
}

/// From now on far memory hears of what malloc takes from the kernel before malloc has it. Where that can't be had it finds out with its
/// next look. Called before main.
pub fn divert() {
    let with: [(&CStr, *const c_void); 2] =
        [(c"brk", brk as *const c_void), (c"mmap", mmap as *const c_void)];
    for (name, function) in with {
        // SAFETY: it does what libc's does, and tells of it.
        if let Err(errno) = unsafe { divert::divert(name, function) } {
            return log::info!("far memory: malloc's {name:?} can't be heard of ({errno})");
        }
    }
}
