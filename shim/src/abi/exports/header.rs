//! The functions of include/netmem.h.
//!
//! Owns: the names below. Called by: the program. Must not: do more than convert and call an operation.

use super::*;

// include/netmem.h.

#[unsafe(no_mangle)]
pub unsafe extern "C" fn netmem_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn netmem_open(name: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    explain(capi::open(name, flags, mode))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn netmem_map(
    number: c_int,
    at: *mut c_void,
    length: size_t,
    prot: c_int,
    flags: c_int,
    offset: off_t,
) -> *mut c_void {
    explain(capi::map(number, at as usize, length, prot, flags, offset).map(|at| at as *mut c_void))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn netmem_unmap(at: *mut c_void, length: size_t) -> c_int {
    explain(capi::unmap(at as usize, length))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn netmem_sync(at: *mut c_void, length: size_t, flags: c_int) -> c_int {
    explain(capi::sync(at as usize, length, flags))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn netmem_commit(number: c_int, flags: c_uint, epoch: *mut u64) -> c_int {
    explain(capi::commit(number, flags, epoch))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn netmem_commit_together(
    numbers: *const c_int,
    count: size_t,
    flags: c_uint,
    epochs: *mut u64,
) -> c_int {
    explain(capi::commit_together(numbers, count, flags, epochs))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn netmem_refresh(number: c_int, epoch: *mut u64) -> c_int {
    explain(capi::refresh(number, epoch))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn netmem_prefetch(number: c_int, offset: off_t, length: size_t) -> c_int {
    explain(capi::prefetch(number, offset, length))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn netmem_size(number: c_int, size: *mut u64) -> c_int {
    explain(capi::size(number, size))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn netmem_resize(number: c_int, size: u64) -> c_int {
    explain(capi::resize(number, size))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn netmem_stats(out: *mut c_void, size: size_t) -> c_int {
    explain(capi::statistics(out, size))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn netmem_engine() -> *const c_char {
    capi::engine()
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn netmem_last_error() -> *const c_char {
    crate::log::last_error()
}

/// Ends a function of netmem.h: errno as for libc, and the text for netmem_last_error.
unsafe fn explain<T: crate::abi::outcome::CReturn>(outcome: Outcome<T>) -> T {
    if let Err(exit) = outcome {
        let failed = if let Exit::Fail(failed) = exit { failed } else { Errno(libc::EBADF) };
        crate::log::note_error_number(failed);
        errno::set(failed);
        return T::FAILED;
    }
    finish(outcome, || T::FAILED)
}
