//! Descriptors: opening, closing, duplicating, locking.
//!
//! Owns: the names below. Called by: the program. Must not: do more than convert and call an operation.

use super::*;

hook! {
    unsafe fn open(path: *const c_char, flags: c_int, mode: mode_t) -> c_int => nm_open {
        finish(links::open(libc::AT_FDCWD, path, flags, mode), || links::foreign(path, real!(open)(path, flags, mode)))
    }
}

hook! {
    unsafe fn openat(directory: c_int, path: *const c_char, flags: c_int, mode: mode_t) -> c_int => nm_openat {
        finish(links::open(directory, path, flags, mode), || links::foreign(path, real!(openat)(directory, path, flags, mode)))
    }
}

hook! {
    unsafe fn __open_2(path: *const c_char, flags: c_int) -> c_int => nm___open_2 {
        finish(links::open(libc::AT_FDCWD, path, flags, 0), || links::foreign(path, real!(__open_2)(path, flags)))
    }
}

hook! {
    unsafe fn __openat_2(directory: c_int, path: *const c_char, flags: c_int) -> c_int => nm___openat_2 {
        finish(links::open(directory, path, flags, 0), || links::foreign(path, real!(__openat_2)(directory, path, flags)))
    }
}

hook! {
    unsafe fn creat(path: *const c_char, mode: mode_t) -> c_int => nm_creat {
        finish(links::open(libc::AT_FDCWD, path, CREATE, mode), || links::foreign(path, real!(creat)(path, mode)))
    }
}

hook! {
    unsafe fn open64(path: *const c_char, flags: c_int, mode: mode_t) -> c_int => nm_open64 {
        finish(links::open(libc::AT_FDCWD, path, flags, mode), || links::foreign(path, real!(open64)(path, flags, mode)))
    }
}

hook! {
    unsafe fn openat64(directory: c_int, path: *const c_char, flags: c_int, mode: mode_t) -> c_int => nm_openat64 {
        finish(links::open(directory, path, flags, mode), || links::foreign(path, real!(openat64)(directory, path, flags, mode)))
    }
}

hook! {
    unsafe fn __open64_2(path: *const c_char, flags: c_int) -> c_int => nm___open64_2 {
        finish(links::open(libc::AT_FDCWD, path, flags, 0), || links::foreign(path, real!(__open64_2)(path, flags)))
    }
}

hook! {
    unsafe fn __openat64_2(directory: c_int, path: *const c_char, flags: c_int) -> c_int => nm___openat64_2 {
        finish(links::open(directory, path, flags, 0), || links::foreign(path, real!(__openat64_2)(directory, path, flags)))
    }
}

hook! {
    unsafe fn creat64(path: *const c_char, mode: mode_t) -> c_int => nm_creat64 {
        finish(links::open(libc::AT_FDCWD, path, CREATE, mode), || links::foreign(path, real!(creat64)(path, mode)))
    }
}

hook! {
    unsafe fn shm_open(name: *const c_char, flags: c_int, mode: mode_t) -> c_int => nm_shm_open {
        finish(path::open_shared_memory(name, flags, mode), || links::foreign(name, real!(shm_open)(name, flags, mode)))
    }
}

hook! {
    unsafe fn shm_unlink(name: *const c_char) -> c_int => nm_shm_unlink {
        finish(path::unlink_shared_memory(name), || real!(shm_unlink)(name))
    }
}

hook! {
    unsafe fn close(number: c_int) -> c_int => nm_close {
        finish(links::close(number), || real!(close)(number))
    }
}

hook! {
    unsafe fn close_range(first: c_uint, last: c_uint, flags: c_int) -> c_int => nm_close_range {
        finish(links::close_range(first, last, flags as u32), || real!(close_range)(first, last, flags))
    }
}

hook! {
    unsafe fn closefrom(from: c_int) -> () => nm_closefrom {
        if links::close_range(from.max(0) as u32, u32::MAX, 0).is_err() { real!(closefrom)(from) }
    }
}

hook! {
    unsafe fn dup(number: c_int) -> c_int => nm_dup {
        links::duplicated(number, real!(dup)(number))
    }
}

hook! {
    unsafe fn dup2(from: c_int, to: c_int) -> c_int => nm_dup2 {
        if from == to { return real!(dup2)(from, to) }
        finish(links::duplicate_onto(from, to, 0), || real!(dup2)(from, to))
    }
}

hook! {
    unsafe fn dup3(from: c_int, to: c_int, flags: c_int) -> c_int => nm_dup3 {
        if from == to { return real!(dup3)(from, to, flags) }
        finish(links::duplicate_onto(from, to, flags), || real!(dup3)(from, to, flags))
    }
}

/// Bytes behind fcntl's argument, where it is a pointer.
fn control_bytes(command: c_int) -> usize {
    match command {
        libc::F_GETLK | libc::F_SETLK | libc::F_SETLKW => size_of::<libc::flock>(),
        libc::F_OFD_GETLK | libc::F_OFD_SETLK | libc::F_OFD_SETLKW => size_of::<libc::flock>(),
        _ => 0,
    }
}

hook! {
    unsafe fn fcntl(number: c_int, command: c_int, argument: usize) -> c_int => nm_fcntl {
        buffers::filled(argument as *mut c_void, control_bytes(command), |argument| finish(lock::control(number, command, argument as usize, |command, argument| real!(fcntl)(number, command, argument)), || real!(fcntl)(number, command, argument as usize)))
    }
}

hook! {
    unsafe fn fcntl64(number: c_int, command: c_int, argument: usize) -> c_int => nm_fcntl64 {
        buffers::filled(argument as *mut c_void, control_bytes(command), |argument| finish(lock::control(number, command, argument as usize, |command, argument| real!(fcntl64)(number, command, argument)), || real!(fcntl64)(number, command, argument as usize)))
    }
}

hook! {
    unsafe fn lockf(number: c_int, command: c_int, length: off_t) -> c_int => nm_lockf {
        finish(lock::section(number, command, |command| real!(lockf)(number, command, length)), || real!(lockf)(number, command, length))
    }
}

hook! {
    unsafe fn lockf64(number: c_int, command: c_int, length: off_t) -> c_int => nm_lockf64 {
        finish(lock::section(number, command, |command| real!(lockf64)(number, command, length)), || real!(lockf64)(number, command, length))
    }
}

hook! {
    unsafe fn flock(number: c_int, operation: c_int) -> c_int => nm_flock {
        finish(lock::whole_file(number, operation, |operation| real!(flock)(number, operation)), || real!(flock)(number, operation))
    }
}
