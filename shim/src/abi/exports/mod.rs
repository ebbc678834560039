//! Every symbol that the library exports, and nothing else: a file a family.
//!
//! Owns: the names. Called by: the program. Must not: do more than convert and call an operation; one expression a body.
//!
//! The file calls go on to libc's own function (found lazily by redhook), so that cancellation points stay ones; the mmap
//! family goes on as a raw system call (kernel-level mmap is called before anything of libc works, and by dlsym itself).
//! Comparing a change with shim/exports.txt is what a test does; a new name is a line there.
#![allow(
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    static_mut_refs,
    clippy::missing_safety_doc
)]
#![allow(
    unsafe_op_in_unsafe_fn,
    missing_docs,
    clippy::undocumented_unsafe_blocks,
    clippy::too_many_arguments,
    clippy::wildcard_imports
)]

/// redhook's, with a note of where the function of libc is looked up (resolve.rs).
macro_rules! hook {
    (unsafe fn $name:ident $($rest:tt)*) => {
        redhook::hook! { unsafe fn $name $($rest)* }
        const _: () = {
            extern "C" fn look_up() {
                const NAME: &core::ffi::CStr =
                    match core::ffi::CStr::from_bytes_with_nul(concat!(stringify!($name), "\0").as_bytes()) {
                        Ok(name) => name,
                        Err(_) => panic!("a name"),
                    };
                if !crate::abi::resolve::next(NAME).is_null() {
                    let _ = redhook::real!($name);
                }
            }
            #[used]
            #[unsafe(link_section = "netmem_hooks")]
            static LOOK_UP: extern "C" fn() = look_up;
        };
    };
}

pub mod attributes;
pub mod blocks;
pub mod buffered;
pub mod descriptors;
pub mod files;
pub mod handlers;
pub mod header;
pub mod later;
pub mod libraries;
pub mod memory;
pub mod names;
mod numbered;
pub mod numbers;
pub mod processes;
pub mod raw;
pub mod requests;
pub mod sockets;
pub mod streams;
pub mod temporaries;
pub mod transfers;
pub mod walks;
pub mod wide;

use core::ffi::{c_char, c_int, c_long, c_uint, c_void};
use std::ffi::CString;

use libc::{iovec, mode_t, off_t, size_t, ssize_t};
use redhook::real;

use super::buffers::{self, Bounce, Step};
use super::file::Direction::{Read, ReadOnce, Write};
use super::follow::Last;
use super::map::Request;
use super::outcome::{Exit, Outcome, finish, raw_result};
use super::transfer::End;
use super::{
    advice, asynchronous, capi, daemons, exec, file, fork, links, loader, lock, map, messages, path, process,
    range, remap, residence, resolve, signal as signals, spawn, status, stdio, temporary, transfer, trees,
    walk,
};
use crate::sys::app::Span;
use crate::sys::errno::{self, Errno};
use crate::sys::syscall::call;

/// A variadic name: its registers go on to variadic.c as they came.
macro_rules! jump {
    ($name:ident, $to:ident) => {
        #[unsafe(naked)]
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name() {
            #[cfg(target_arch = "x86_64")]
            core::arch::naked_asm!("jmp {to}", to = sym $to);
            #[cfg(target_arch = "aarch64")]
            core::arch::naked_asm!("b {to}", to = sym $to);
        }
    };
}
use jump;

const CREATE: c_int = libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC;

/// What libc's own function returned.
fn of_libc(result: ssize_t) -> Result<usize, Errno> {
    if result < 0 { Err(errno::get()) } else { Ok(result as usize) }
}

unsafe fn with_local<T: super::outcome::CReturn>(
    local: Outcome<CString>,
    given: *const c_char,
    make: impl FnOnce(*const c_char) -> T,
) -> T {
    match local {
        Ok(local) => make(local.as_ptr()),
        Err(Exit::Pass(_)) => make(given),
        Err(Exit::Fail(failed)) => {
            errno::set(failed);
            T::FAILED
        }
    }
}

/// Ends a hook whose call returns null when it sets errno.
unsafe fn pointer(outcome: Outcome<*mut c_void>, pass: impl FnOnce() -> *mut c_void) -> *mut c_void {
    pointer_of(outcome, pass)
}

unsafe fn pointer_of<T>(outcome: Outcome<*mut T>, pass: impl FnOnce() -> *mut T) -> *mut T {
    match outcome {
        Ok(pointer) => pointer,
        Err(Exit::Pass(_)) => pass(),
        Err(Exit::Fail(failed)) => {
            errno::set(failed);
            core::ptr::null_mut()
        }
    }
}

unsafe fn with_local_pointer(
    local: Outcome<CString>,
    given: *const c_char,
    make: impl FnOnce(*const c_char) -> *mut c_void,
) -> *mut c_void {
    let result = with_local(local, given, make);
    if result as usize == usize::MAX { core::ptr::null_mut() } else { result }
}

/// A path that libc gave back, as the program is to see it. What is shown is never longer than what is there.
unsafe fn show_path(real: *mut c_char) -> *mut c_char {
    if let Some(text) = crate::sys::app::path(real)
        && let Some(shown) = path::shown(&text)
        && shown.len() <= text.len()
    {
        core::ptr::copy_nonoverlapping(shown.as_ptr().cast(), real, shown.len());
        real.add(shown.len()).write(0);
    }
    real
}

unsafe fn raw6(number: libc::c_long, args: [usize; 6]) -> isize {
    raw_result(call(number, args))
}
