//! stdio.
//!
//! Owns: the names below. Called by: the program. Must not: do more than convert and call an operation.

use super::*;

hook! {
    unsafe fn fopen(path: *const c_char, mode: *const c_char) -> *mut c_void => nm_fopen {
        pointer(stdio::open(path, mode, |path, mode| real!(fopen)(path, mode)), || real!(fopen)(path, mode))
    }
}

hook! {
    unsafe fn fopen64(path: *const c_char, mode: *const c_char) -> *mut c_void => nm_fopen64 {
        pointer(stdio::open(path, mode, |path, mode| real!(fopen64)(path, mode)), || real!(fopen64)(path, mode))
    }
}

hook! {
    unsafe fn fdopen(number: c_int, mode: *const c_char) -> *mut c_void => nm_fdopen {
        pointer(stdio::from_descriptor(number, mode), || real!(fdopen)(number, mode))
    }
}

hook! {
    unsafe fn fileno(file: *mut c_void) -> c_int => nm_fileno {
        finish(stdio::number_of(file), || real!(fileno)(file))
    }
}

hook! {
    unsafe fn fileno_unlocked(file: *mut c_void) -> c_int => nm_fileno_unlocked {
        finish(stdio::number_of(file), || real!(fileno_unlocked)(file))
    }
}

hook! {
    unsafe fn freopen(path: *const c_char, mode: *const c_char, file: *mut c_void) -> *mut c_void => nm_freopen {
        pointer(stdio::reopen(path, mode, file, |path, mode| real!(freopen)(path, mode, file)), || stdio::reopened(file, || real!(freopen)(path, mode, file)))
    }
}

hook! {
    unsafe fn freopen64(path: *const c_char, mode: *const c_char, file: *mut c_void) -> *mut c_void => nm_freopen64 {
        pointer(stdio::reopen(path, mode, file, |path, mode| real!(freopen64)(path, mode, file)), || stdio::reopened(file, || real!(freopen64)(path, mode, file)))
    }
}

hook! {
    unsafe fn vdprintf(number: c_int, format: *const c_char, list: *mut c_void) -> c_int => nm_vdprintf {
        if stdio::prints_to_ours(number) { return netmem_vdprintf(number, format, list) }
        real!(vdprintf)(number, format, list)
    }
}

hook! {
    unsafe fn __vdprintf_chk(number: c_int, flag: c_int, format: *const c_char, list: *mut c_void) -> c_int => nm___vdprintf_chk {
        if stdio::prints_to_ours(number) { return netmem_vdprintf(number, format, list) }
        real!(__vdprintf_chk)(number, flag, format, list)
    }
}

// The variadic ones: variadic.c makes a list of their arguments and comes back through these.

unsafe extern "C" {
    fn netmem_dprintf();
    fn netmem_dprintf_chk();
    fn netmem_vdprintf(number: c_int, format: *const c_char, list: *mut c_void) -> c_int;
}

super::jump!(dprintf, netmem_dprintf);
super::jump!(__dprintf_chk, netmem_dprintf_chk);

#[unsafe(no_mangle)]
unsafe extern "C" fn netmem_hook_vdprintf(
    number: c_int,
    flag: c_int,
    format: *const c_char,
    list: *mut c_void,
) -> c_int {
    if flag < 0 { nm_vdprintf(number, format, list) } else { nm___vdprintf_chk(number, flag, format, list) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn netmem_hook_print(number: c_int, text: *const c_char, length: size_t) -> c_int {
    finish(stdio::print(number, text, length), || -1)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn netmem_hook_allocate(bytes: size_t) -> *mut c_char {
    stdio::allocate(bytes)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn netmem_hook_release(at: *mut c_char, bytes: size_t) {
    stdio::release(at, bytes)
}
