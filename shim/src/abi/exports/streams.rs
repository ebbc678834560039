//! stdio.
//!
//! Owns: the names below. Called by: the program. Must not: do more than convert and call an operation.

use super::*;

hook! {
    unsafe fn fopen(path: *const c_char, mode: *const c_char) -> *mut c_void => nm_fopen {
        pointer(stdio::open(path, mode), || real!(fopen)(path, mode))
    }
}

hook! {
    unsafe fn fopen64(path: *const c_char, mode: *const c_char) -> *mut c_void => nm_fopen64 {
        pointer(stdio::open(path, mode), || real!(fopen64)(path, mode))
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
