//! The mmap family, defined by hand, since it goes on as raw system calls.
//!
//! Owns: the names below. Called by: the program. Must not: do more than convert and call an operation.

use super::*;

// The mmap family: defined by hand, since they go on as raw system calls.

#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmap(
    at: *mut c_void,
    length: size_t,
    prot: c_int,
    flags: c_int,
    number: c_int,
    offset: off_t,
) -> *mut c_void {
    let request = Request { at: at as usize, length, prot, flags, number, offset };
    let args = [at as usize, length, prot as usize, flags as usize, number as usize, offset as usize];
    if map::is_plain(&request) {
        return raw6(libc::SYS_mmap, args) as *mut c_void;
    }
    finish(map::map(&request).map(|at| at as *mut c_void), || raw6(libc::SYS_mmap, args) as *mut c_void)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmap64(
    at: *mut c_void,
    length: size_t,
    prot: c_int,
    flags: c_int,
    number: c_int,
    offset: off_t,
) -> *mut c_void {
    mmap(at, length, prot, flags, number, offset)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn munmap(at: *mut c_void, length: size_t) -> c_int {
    finish(map::unmap(at as usize, length), || {
        raw6(libc::SYS_munmap, [at as usize, length, 0, 0, 0, 0]) as c_int
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn mprotect(at: *mut c_void, length: size_t, prot: c_int) -> c_int {
    finish(map::protect(at as usize, length, prot), || {
        raw6(libc::SYS_mprotect, [at as usize, length, prot as usize, 0, 0, 0]) as c_int
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn mremap(
    at: *mut c_void,
    old: size_t,
    new: size_t,
    flags: c_int,
    to: *mut c_void,
) -> *mut c_void {
    finish(map::remap(at as usize, old, new, flags, to as usize).map(|at| at as *mut c_void), || {
        raw6(libc::SYS_mremap, [at as usize, old, new, flags as usize, to as usize, 0]) as *mut c_void
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn msync(at: *mut c_void, length: size_t, flags: c_int) -> c_int {
    finish(range::msync(at as usize, length, flags), || {
        raw6(libc::SYS_msync, [at as usize, length, flags as usize, 0, 0, 0]) as c_int
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn madvise(at: *mut c_void, length: size_t, advice: c_int) -> c_int {
    finish(range::madvise(at as usize, length, advice), || {
        raw6(libc::SYS_madvise, [at as usize, length, advice as usize, 0, 0, 0]) as c_int
    })
}

/// posix_madvise(3) returns its error, and its DONTNEED does nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn posix_madvise(at: *mut c_void, length: size_t, advice: c_int) -> c_int {
    const POSIX_MADV_DONTNEED: c_int = 4;
    if advice == POSIX_MADV_DONTNEED {
        return 0;
    }
    match range::madvise(at as usize, length, advice) {
        Ok(_) => 0,
        Err(Exit::Fail(failed)) => failed.0,
        Err(Exit::Pass(_)) => {
            match call(libc::SYS_madvise, [at as usize, length, advice as usize, 0, 0, 0]) {
                Ok(_) => 0,
                Err(failed) => failed.0,
            }
        }
    }
}
