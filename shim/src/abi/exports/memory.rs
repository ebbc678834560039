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
    if crate::far::is_wanted() {
        return map_and_tell(&request, args);
    }
    if map::is_plain(&request) {
        return raw6(libc::SYS_mmap, args) as *mut c_void;
    }
    finish(map::map(&request).map(|at| at as *mut c_void), || raw6(libc::SYS_mmap, args) as *mut c_void)
}

/// The same in a program with a budget, which hears of memory that is new.
#[cold]
unsafe fn map_and_tell(request: &Request, args: [usize; 6]) -> *mut c_void {
    let tell = || {
        let mapped = raw6(libc::SYS_mmap, args) as *mut c_void;
        if mapped != libc::MAP_FAILED {
            crate::far::growth::mapped(mapped as usize, request.length, request.prot, request.flags);
        }
        mapped
    };
    if map::is_plain(request) {
        return tell();
    }
    finish(map::map(request).map(|at| at as *mut c_void), tell)
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
    let moved = remap::remap(at as usize, old, new, flags, to as usize).inspect(|now| {
        let end = |at: usize, length: usize| at.saturating_add(length);
        crate::host::locked::moved((at as usize, end(at as usize, old)), (*now, end(*now, new)));
    });
    finish(moved.map(|at| at as *mut c_void), || {
        crate::far::growth::before_move(at as usize, old);
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
    finish(advice::madvise(at as usize, length, advice), || {
        raw6(libc::SYS_madvise, [at as usize, length, advice as usize, 0, 0, 0]) as c_int
    })
}

/// posix_madvise(3) returns its error.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn posix_madvise(at: *mut c_void, length: size_t, advice: c_int) -> c_int {
    advice::posix_madvise(at as usize, length, advice)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn process_madvise(
    pidfd: c_int,
    ranges: *const iovec,
    count: size_t,
    advice: c_int,
    flags: c_uint,
) -> ssize_t {
    finish(advice::process_madvise(pidfd, ranges, count, advice, flags), || {
        let args = [pidfd as usize, ranges as usize, count, advice as usize, flags as usize, 0];
        raw6(libc::SYS_process_madvise, args)
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn pkey_mprotect(at: *mut c_void, length: size_t, prot: c_int, key: c_int) -> c_int {
    finish(map::protect_with_key(at as usize, length, prot, key), || {
        raw6(libc::SYS_pkey_mprotect, [at as usize, length, prot as usize, key as usize, 0, 0]) as c_int
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn remap_file_pages(
    at: *mut c_void,
    length: size_t,
    prot: c_int,
    page: size_t,
    flags: c_int,
) -> c_int {
    finish(remap::remap_file_pages(at as usize, length, prot, page, flags), || {
        let args = [at as usize, length, prot as usize, page, flags as usize, 0];
        raw6(libc::SYS_remap_file_pages, args) as c_int
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn mincore(at: *mut c_void, length: size_t, into: *mut u8) -> c_int {
    raw_result(residence::in_core(at as usize, length, into as usize)) as c_int
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn mlock(at: *const c_void, length: size_t) -> c_int {
    finish(residence::lock(at as usize, length, 0), || {
        raw6(libc::SYS_mlock, [at as usize, length, 0, 0, 0, 0]) as c_int
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn mlock2(at: *const c_void, length: size_t, flags: c_uint) -> c_int {
    finish(residence::lock(at as usize, length, flags), || {
        raw6(libc::SYS_mlock2, [at as usize, length, flags as usize, 0, 0, 0]) as c_int
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn munlock(at: *const c_void, length: size_t) -> c_int {
    finish(residence::unlock(at as usize, length), || {
        raw6(libc::SYS_munlock, [at as usize, length, 0, 0, 0, 0]) as c_int
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn mlockall(flags: c_int) -> c_int {
    finish(residence::lock_all(flags), || raw6(libc::SYS_mlockall, [flags as usize, 0, 0, 0, 0, 0]) as c_int)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn munlockall() -> c_int {
    finish(residence::unlock_all(), || raw6(libc::SYS_munlockall, [0; 6]) as c_int)
}
