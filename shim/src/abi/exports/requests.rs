//! io_uring by the names of liburing, whose own calls have no name.
//!
//! Owns: the names below. Called by: the program. Must not: be in the way of a program that does not use netmem.

use super::*;

/// A ring is refused where netmem is in use, as by a kernel without them: liburing gives the errno back instead of setting it.
unsafe fn unless_used(make: impl FnOnce() -> c_int) -> c_int {
    match asynchronous::ring() {
        Err(Exit::Fail(failed)) => -failed.0,
        _ => make(),
    }
}

hook! {
    unsafe fn io_uring_setup(entries: c_uint, parameters: *mut c_void) -> c_int => nm_io_uring_setup {
        unless_used(|| real!(io_uring_setup)(entries, parameters))
    }
}

hook! {
    unsafe fn io_uring_queue_init(entries: c_uint, ring: *mut c_void, flags: c_uint) -> c_int => nm_io_uring_queue_init {
        unless_used(|| real!(io_uring_queue_init)(entries, ring, flags))
    }
}

hook! {
    unsafe fn io_uring_queue_init_params(entries: c_uint, ring: *mut c_void, parameters: *mut c_void) -> c_int => nm_io_uring_queue_init_params {
        unless_used(|| real!(io_uring_queue_init_params)(entries, ring, parameters))
    }
}

hook! {
    unsafe fn io_uring_queue_init_mem(entries: c_uint, ring: *mut c_void, parameters: *mut c_void, memory: *mut c_void, size: size_t) -> c_int => nm_io_uring_queue_init_mem {
        unless_used(|| real!(io_uring_queue_init_mem)(entries, ring, parameters, memory, size))
    }
}
