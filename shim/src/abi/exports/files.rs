//! The shape of a file: offset, size, room, sync.
//!
//! Owns: the names below. Called by: the program. Must not: do more than convert and call an operation.

use super::*;

hook! {
    unsafe fn lseek(number: c_int, offset: off_t, whence: c_int) -> off_t => nm_lseek {
        finish(file::seek(number, offset, whence), || real!(lseek)(number, offset, whence))
    }
}

hook! {
    unsafe fn ftruncate(number: c_int, size: off_t) -> c_int => nm_ftruncate {
        finish(file::truncate(number, size), || real!(ftruncate)(number, size))
    }
}

hook! {
    unsafe fn truncate(path: *const c_char, size: off_t) -> c_int => nm_truncate {
        finish(path::truncate(path, size), || real!(truncate)(path, size))
    }
}

hook! {
    unsafe fn fallocate(number: c_int, mode: c_int, offset: off_t, length: off_t) -> c_int => nm_fallocate {
        finish(file::allocate(number, mode, offset, length), || real!(fallocate)(number, mode, offset, length))
    }
}

hook! {
    unsafe fn posix_fallocate(number: c_int, offset: off_t, length: off_t) -> c_int => nm_posix_fallocate {
        finish(file::posix_allocate(number, offset, length), || real!(posix_fallocate)(number, offset, length))
    }
}

hook! {
    unsafe fn lseek64(number: c_int, offset: off_t, whence: c_int) -> off_t => nm_lseek64 {
        finish(file::seek(number, offset, whence), || real!(lseek64)(number, offset, whence))
    }
}

hook! {
    unsafe fn ftruncate64(number: c_int, size: off_t) -> c_int => nm_ftruncate64 {
        finish(file::truncate(number, size), || real!(ftruncate64)(number, size))
    }
}

hook! {
    unsafe fn truncate64(path: *const c_char, size: off_t) -> c_int => nm_truncate64 {
        finish(path::truncate(path, size), || real!(truncate64)(path, size))
    }
}

hook! {
    unsafe fn fallocate64(number: c_int, mode: c_int, offset: off_t, length: off_t) -> c_int => nm_fallocate64 {
        finish(file::allocate(number, mode, offset, length), || real!(fallocate64)(number, mode, offset, length))
    }
}

hook! {
    unsafe fn posix_fallocate64(number: c_int, offset: off_t, length: off_t) -> c_int => nm_posix_fallocate64 {
        finish(file::posix_allocate(number, offset, length), || real!(posix_fallocate64)(number, offset, length))
    }
}

hook! {
    unsafe fn fsync(number: c_int) -> c_int => nm_fsync {
        finish(file::sync(number), || real!(fsync)(number))
    }
}

hook! {
    unsafe fn fdatasync(number: c_int) -> c_int => nm_fdatasync {
        finish(file::sync(number), || real!(fdatasync)(number))
    }
}

hook! {
    unsafe fn sync() -> () => nm_sync {
        process::commit_all();
        real!(sync)()
    }
}

hook! {
    unsafe fn syncfs(number: c_int) -> c_int => nm_syncfs {
        finish(file::sync_all(number), || real!(syncfs)(number))
    }
}

hook! {
    unsafe fn sync_file_range(number: c_int, offset: off_t, length: off_t, flags: c_uint) -> c_int => nm_sync_file_range {
        finish(file::sync_range(number, || real!(sync_file_range)(number, offset, length, flags)), || real!(sync_file_range)(number, offset, length, flags))
    }
}

hook! {
    unsafe fn posix_fadvise(number: c_int, offset: off_t, length: off_t, advice: c_int) -> c_int => nm_posix_fadvise {
        file::advise(number, offset, length, advice);
        real!(posix_fadvise)(number, offset, length, advice)
    }
}

hook! {
    unsafe fn posix_fadvise64(number: c_int, offset: off_t, length: off_t, advice: c_int) -> c_int => nm_posix_fadvise64 {
        file::advise(number, offset, length, advice);
        real!(posix_fadvise64)(number, offset, length, advice)
    }
}

hook! {
    unsafe fn readahead(number: c_int, offset: off_t, length: size_t) -> ssize_t => nm_readahead {
        file::advise(number, offset, length as off_t, libc::POSIX_FADV_WILLNEED);
        real!(readahead)(number, offset, length)
    }
}
