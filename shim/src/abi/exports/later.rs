//! Requests that are carried out later: kernel AIO by libaio's name for it, and POSIX AIO.
//!
//! Owns: the names below. Called by: the program. Must not: do more than convert and call an operation.

use super::{Exit, asynchronous, c_int, c_void, finish, real};
use core::ffi::c_long;

hook! {
    unsafe fn io_submit(context: *mut c_void, count: c_long, requests: *const *const u8) -> c_int => nm_io_submit {
        match asynchronous::submit(context as usize, count as isize, requests) {
            Ok(submitted) => submitted as c_int,
            // libaio gives the errno back instead of setting it.
            Err(Exit::Fail(failed)) => -failed.0,
            Err(Exit::Pass(_)) => real!(io_submit)(context, count, requests),
        }
    }
}

hook! {
    unsafe fn aio_read(request: *const c_int) -> c_int => nm_aio_read {
        finish(asynchronous::request(request), || real!(aio_read)(request))
    }
}

hook! {
    unsafe fn aio_read64(request: *const c_int) -> c_int => nm_aio_read64 {
        finish(asynchronous::request(request), || real!(aio_read64)(request))
    }
}

hook! {
    unsafe fn aio_write(request: *const c_int) -> c_int => nm_aio_write {
        finish(asynchronous::request(request), || real!(aio_write)(request))
    }
}

hook! {
    unsafe fn aio_write64(request: *const c_int) -> c_int => nm_aio_write64 {
        finish(asynchronous::request(request), || real!(aio_write64)(request))
    }
}

hook! {
    unsafe fn aio_fsync(operation: c_int, request: *const c_int) -> c_int => nm_aio_fsync {
        finish(asynchronous::request(request), || real!(aio_fsync)(operation, request))
    }
}

hook! {
    unsafe fn aio_fsync64(operation: c_int, request: *const c_int) -> c_int => nm_aio_fsync64 {
        finish(asynchronous::request(request), || real!(aio_fsync64)(operation, request))
    }
}

hook! {
    unsafe fn lio_listio(mode: c_int, requests: *const *const c_int, count: c_int, event: *mut c_void) -> c_int => nm_lio_listio {
        finish(asynchronous::list(requests, count), || real!(lio_listio)(mode, requests, count, event))
    }
}

hook! {
    unsafe fn lio_listio64(mode: c_int, requests: *const *const c_int, count: c_int, event: *mut c_void) -> c_int => nm_lio_listio64 {
        finish(asynchronous::list(requests, count), || real!(lio_listio64)(mode, requests, count, event))
    }
}
