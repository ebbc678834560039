//! The program's memory: never a reference to it, always a copy.
//!
//! Owns: [`Span`], copying in and out. Called by: abi. Must not: be used with a lock held (rule 4): any
//! byte may be an absent page of ours.

use core::ffi::{CStr, c_char};
use core::sync::atomic::{AtomicBool, Ordering};

use super::errno::Errno;
use super::mem::PAGE;
use super::syscall::call;

/// Some bytes of the program: an address and a length, nothing more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// First byte.
    pub at: usize,
    /// Bytes.
    pub length: usize,
}

impl Span {
    /// From a pointer argument.
    pub fn new<T>(at: *const T, length: usize) -> Self {
        Span { at: at as usize, length }
    }

    /// First byte behind; saturates.
    pub fn end(self) -> usize {
        self.at.saturating_add(self.length)
    }
}

/// Copies a path argument. `None` for a null pointer. What is not UTF-8 gets a zero byte in its place, which no name may have: a
/// region can't be called so, and the call is refused rather than left to the kernel.
///
/// # Safety
/// The pointer is null or a C string, as for the call it was given to.
pub unsafe fn path(at: *const c_char) -> Option<String> {
    if at.is_null() {
        return None;
    }
    // SAFETY: the caller's.
    let text = unsafe { CStr::from_ptr(at) };
    Some(match text.to_str() {
        Ok(text) => text.to_owned(),
        Err(_) => text.to_string_lossy().replace(char::REPLACEMENT_CHARACTER, "\0"),
    })
}

/// Copies a string argument that need not be UTF-8. `None` for a null pointer.
///
/// # Safety
/// As [`path`].
pub unsafe fn bytes(at: *const c_char) -> Option<Vec<u8>> {
    // SAFETY: the caller's.
    (!at.is_null()).then(|| unsafe { CStr::from_ptr(at) }.to_bytes().to_vec())
}

/// The first bytes of a path argument, to see cheaply whether it can be ours.
///
/// # Safety
/// As [`path`].
pub unsafe fn path_starts_with(at: *const c_char, prefix: &[u8]) -> bool {
    if at.is_null() {
        return false;
    }
    for (i, want) in prefix.iter().enumerate() {
        // SAFETY: no byte behind the terminating zero is read, since the prefix has no zero.
        if unsafe { *at.add(i) } as u8 != *want {
            return false;
        }
    }
    true
}

/// Whether a path argument is an empty string.
///
/// # Safety
/// As [`path`].
pub unsafe fn is_empty(at: *const c_char) -> bool {
    // SAFETY: a C string has at least its zero.
    !at.is_null() && unsafe { *at } == 0
}

/// Set once the kernel refused to copy for us (a seccomp filter).
static NO_KERNEL_COPIES: AtomicBool = AtomicBool::new(false);

/// Copies between our memory and the program's as the kernel does it: stops at the first byte that can't be had, and takes no
/// fault. How many bytes were copied.
fn kernel_copy(number: libc::c_long, ours: usize, program: usize, length: usize) -> usize {
    let step = |done: usize, length: usize| -> Result<usize, Errno> {
        let local = libc::iovec { iov_base: (ours + done) as *mut _, iov_len: length };
        let remote = libc::iovec { iov_base: (program + done) as *mut _, iov_len: length };
        let me = rustix::process::getpid().as_raw_nonzero().get() as usize;
        // SAFETY: the caller's for our side; the kernel checks the program's.
        unsafe { call(number, [me, &raw const local as usize, 1, &raw const remote as usize, 1, 0]) }
    };
    let mut done = 0;
    while done < length {
        let to_page_end = PAGE - (program + done) % PAGE;
        // What is not all there may still be there up to the end of a page.
        let copied = match step(done, length - done) {
            Err(Errno(libc::EFAULT)) => step(done, (length - done).min(to_page_end)),
            copied => copied,
        };
        match copied {
            Ok(copied) if copied > 0 => done += copied,
            Err(Errno(libc::ENOSYS | libc::EPERM | libc::EACCES)) => {
                NO_KERNEL_COPIES.store(true, Ordering::Relaxed);
                break;
            }
            _ => break,
        }
    }
    done
}

/// Copies bytes of the program to memory of ours; how many came before one that can't be read now.
pub fn copy_in(at: usize, into: &mut [u8]) -> usize {
    let mut done = 0;
    if !NO_KERNEL_COPIES.load(Ordering::Relaxed) {
        done = kernel_copy(libc::SYS_process_vm_readv, into.as_mut_ptr() as usize, at, into.len());
    }
    if NO_KERNEL_COPIES.load(Ordering::Relaxed) {
        let rest = &mut into[done..];
        // SAFETY: the program named these bytes; a fault on them is served, or its own.
        unsafe { core::ptr::copy((at + done) as *const u8, rest.as_mut_ptr(), rest.len()) };
        done += rest.len();
    }
    done
}

/// Copies what can be had without a fault; 0 bytes where the kernel copies nothing for us.
pub fn peek(at: usize, into: &mut [u8]) -> usize {
    if NO_KERNEL_COPIES.load(Ordering::Relaxed) {
        return 0;
    }
    kernel_copy(libc::SYS_process_vm_readv, into.as_mut_ptr() as usize, at, into.len())
}

/// Copies bytes of ours to the program; how many went before one that can't be stored now.
pub fn copy_out(at: usize, from: &[u8]) -> usize {
    let mut done = 0;
    if !NO_KERNEL_COPIES.load(Ordering::Relaxed) {
        done = kernel_copy(libc::SYS_process_vm_writev, from.as_ptr() as usize, at, from.len());
    }
    if NO_KERNEL_COPIES.load(Ordering::Relaxed) {
        let rest = &from[done..];
        // SAFETY: the program named these bytes; a fault on them is served, or its own.
        unsafe { core::ptr::copy(rest.as_ptr(), (at + done) as *mut u8, rest.len()) };
        done += rest.len();
    }
    done
}
