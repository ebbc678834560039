//! Every symbol that the library exports, and nothing else.
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
    clippy::too_many_arguments
)]

use core::ffi::{c_char, c_int, c_uint, c_void};
use std::ffi::CString;

use libc::{iovec, mode_t, off_t, size_t, ssize_t};
use redhook::{hook, real};

use super::file::Direction::{Read, Write};
use super::map::Request;
use super::outcome::{Exit, Outcome, finish, raw_result};
use super::transfer::End;
use super::{capi, file, links, map, path, process, range, signal as signals, stdio, transfer};
use crate::sys::app::Span;
use crate::sys::errno::{self, Errno};
use crate::sys::syscall::call;

const CREATE: c_int = libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC;

unsafe fn sys3(number: libc::c_long, fd: c_int, second: usize, third: usize) -> Result<usize, Errno> {
    call(number, [fd as usize, second, third, 0, 0, 0])
}

unsafe fn sys4(
    number: libc::c_long,
    fd: c_int,
    second: usize,
    third: usize,
    offset: off_t,
) -> Result<usize, Errno> {
    call(number, [fd as usize, second, third, offset as usize, 0, 0])
}

/// The spans of a vector, for calls on our files and for buffers that need care; nothing for all others.
unsafe fn spans(number: c_int, vectors: *const iovec, count: c_int) -> Vec<Span> {
    if file::is_plain(number) { Vec::new() } else { file::spans(vectors, count) }
}

unsafe fn v2(
    number: c_int,
    direction: file::Direction,
    vectors: *const iovec,
    count: c_int,
    offset: off_t,
    flags: c_int,
) -> Outcome<ssize_t> {
    let system_call = if direction == Read { libc::SYS_preadv2 } else { libc::SYS_pwritev2 };
    let make = || {
        call(
            system_call,
            [number as usize, vectors as usize, count as usize, offset as usize, 0, flags as usize],
        )
    };
    if offset == -1 {
        file::at_position(number, direction, &spans(number, vectors, count), make)
    } else {
        file::at_offset(number, direction, &spans(number, vectors, count), offset, make)
    }
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

/// Around exec: what is dirty goes up first; if the exec fails the program goes on.
unsafe fn executed(make: impl FnOnce() -> c_int) -> c_int {
    process::before_exec();
    let result = make();
    let failed = errno::get();
    process::after_failed_exec();
    errno::set(failed);
    result
}

/// Ends a hook whose call returns null when it sets errno.
unsafe fn pointer(outcome: Outcome<*mut c_void>, pass: impl FnOnce() -> *mut c_void) -> *mut c_void {
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

hook! {
    unsafe fn fcntl(number: c_int, command: c_int, argument: usize) -> c_int => nm_fcntl {
        finish(links::control(number, command, argument), || real!(fcntl)(number, command, argument))
    }
}

hook! {
    unsafe fn fcntl64(number: c_int, command: c_int, argument: usize) -> c_int => nm_fcntl64 {
        finish(links::control(number, command, argument), || real!(fcntl64)(number, command, argument))
    }
}

hook! {
    unsafe fn lockf(number: c_int, command: c_int, length: off_t) -> c_int => nm_lockf {
        finish(links::section_lock(number, command, || real!(lockf)(number, command, length)), || real!(lockf)(number, command, length))
    }
}

hook! {
    unsafe fn lockf64(number: c_int, command: c_int, length: off_t) -> c_int => nm_lockf64 {
        finish(links::section_lock(number, command, || real!(lockf64)(number, command, length)), || real!(lockf64)(number, command, length))
    }
}

hook! {
    unsafe fn flock(number: c_int, operation: c_int) -> c_int => nm_flock {
        finish(links::whole_file_lock(number, operation), || real!(flock)(number, operation))
    }
}

hook! {
    unsafe fn read(number: c_int, buffer: *mut c_void, length: size_t) -> ssize_t => nm_read {
        finish(file::at_position(number, Read, &[Span::new(buffer, length)], || sys3(libc::SYS_read, number, buffer as usize, length)), || real!(read)(number, buffer, length))
    }
}

hook! {
    unsafe fn pread(number: c_int, buffer: *mut c_void, length: size_t, offset: off_t) -> ssize_t => nm_pread {
        finish(file::at_offset(number, Read, &[Span::new(buffer, length)], offset, || sys4(libc::SYS_pread64, number, buffer as usize, length, offset)), || real!(pread)(number, buffer, length, offset))
    }
}

hook! {
    unsafe fn pread64(number: c_int, buffer: *mut c_void, length: size_t, offset: off_t) -> ssize_t => nm_pread64 {
        finish(file::at_offset(number, Read, &[Span::new(buffer, length)], offset, || sys4(libc::SYS_pread64, number, buffer as usize, length, offset)), || real!(pread64)(number, buffer, length, offset))
    }
}

hook! {
    unsafe fn readv(number: c_int, vectors: *const iovec, count: c_int) -> ssize_t => nm_readv {
        finish(file::at_position(number, Read, &spans(number, vectors, count), || sys3(libc::SYS_readv, number, vectors as usize, count as usize)), || real!(readv)(number, vectors, count))
    }
}

hook! {
    unsafe fn preadv(number: c_int, vectors: *const iovec, count: c_int, offset: off_t) -> ssize_t => nm_preadv {
        finish(file::at_offset(number, Read, &spans(number, vectors, count), offset, || sys4(libc::SYS_preadv, number, vectors as usize, count as usize, offset)), || real!(preadv)(number, vectors, count, offset))
    }
}

hook! {
    unsafe fn preadv64(number: c_int, vectors: *const iovec, count: c_int, offset: off_t) -> ssize_t => nm_preadv64 {
        finish(file::at_offset(number, Read, &spans(number, vectors, count), offset, || sys4(libc::SYS_preadv, number, vectors as usize, count as usize, offset)), || real!(preadv64)(number, vectors, count, offset))
    }
}

hook! {
    unsafe fn preadv2(number: c_int, vectors: *const iovec, count: c_int, offset: off_t, flags: c_int) -> ssize_t => nm_preadv2 {
        finish(v2(number, Read, vectors, count, offset, flags), || real!(preadv2)(number, vectors, count, offset, flags))
    }
}

hook! {
    unsafe fn preadv64v2(number: c_int, vectors: *const iovec, count: c_int, offset: off_t, flags: c_int) -> ssize_t => nm_preadv64v2 {
        finish(v2(number, Read, vectors, count, offset, flags), || real!(preadv64v2)(number, vectors, count, offset, flags))
    }
}

hook! {
    unsafe fn write(number: c_int, buffer: *const c_void, length: size_t) -> ssize_t => nm_write {
        finish(file::at_position(number, Write, &[Span::new(buffer, length)], || sys3(libc::SYS_write, number, buffer as usize, length)), || real!(write)(number, buffer, length))
    }
}

hook! {
    unsafe fn pwrite(number: c_int, buffer: *const c_void, length: size_t, offset: off_t) -> ssize_t => nm_pwrite {
        finish(file::at_offset(number, Write, &[Span::new(buffer, length)], offset, || sys4(libc::SYS_pwrite64, number, buffer as usize, length, offset)), || real!(pwrite)(number, buffer, length, offset))
    }
}

hook! {
    unsafe fn pwrite64(number: c_int, buffer: *const c_void, length: size_t, offset: off_t) -> ssize_t => nm_pwrite64 {
        finish(file::at_offset(number, Write, &[Span::new(buffer, length)], offset, || sys4(libc::SYS_pwrite64, number, buffer as usize, length, offset)), || real!(pwrite64)(number, buffer, length, offset))
    }
}

hook! {
    unsafe fn writev(number: c_int, vectors: *const iovec, count: c_int) -> ssize_t => nm_writev {
        finish(file::at_position(number, Write, &spans(number, vectors, count), || sys3(libc::SYS_writev, number, vectors as usize, count as usize)), || real!(writev)(number, vectors, count))
    }
}

hook! {
    unsafe fn pwritev(number: c_int, vectors: *const iovec, count: c_int, offset: off_t) -> ssize_t => nm_pwritev {
        finish(file::at_offset(number, Write, &spans(number, vectors, count), offset, || sys4(libc::SYS_pwritev, number, vectors as usize, count as usize, offset)), || real!(pwritev)(number, vectors, count, offset))
    }
}

hook! {
    unsafe fn pwritev64(number: c_int, vectors: *const iovec, count: c_int, offset: off_t) -> ssize_t => nm_pwritev64 {
        finish(file::at_offset(number, Write, &spans(number, vectors, count), offset, || sys4(libc::SYS_pwritev, number, vectors as usize, count as usize, offset)), || real!(pwritev64)(number, vectors, count, offset))
    }
}

hook! {
    unsafe fn pwritev2(number: c_int, vectors: *const iovec, count: c_int, offset: off_t, flags: c_int) -> ssize_t => nm_pwritev2 {
        finish(v2(number, Write, vectors, count, offset, flags), || real!(pwritev2)(number, vectors, count, offset, flags))
    }
}

hook! {
    unsafe fn pwritev64v2(number: c_int, vectors: *const iovec, count: c_int, offset: off_t, flags: c_int) -> ssize_t => nm_pwritev64v2 {
        finish(v2(number, Write, vectors, count, offset, flags), || real!(pwritev64v2)(number, vectors, count, offset, flags))
    }
}

hook! {
    unsafe fn __read_chk(number: c_int, buffer: *mut c_void, length: size_t, room: size_t) -> ssize_t => nm___read_chk {
        if length > room { return real!(__read_chk)(number, buffer, length, room) }
        nm_read(number, buffer, length)
    }
}

hook! {
    unsafe fn __pread_chk(number: c_int, buffer: *mut c_void, length: size_t, offset: off_t, room: size_t) -> ssize_t => nm___pread_chk {
        if length > room { return real!(__pread_chk)(number, buffer, length, offset, room) }
        nm_pread(number, buffer, length, offset)
    }
}

hook! {
    unsafe fn __pread64_chk(number: c_int, buffer: *mut c_void, length: size_t, offset: off_t, room: size_t) -> ssize_t => nm___pread64_chk {
        if length > room { return real!(__pread64_chk)(number, buffer, length, offset, room) }
        nm_pread(number, buffer, length, offset)
    }
}

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
    unsafe fn sendfile(to: c_int, from: c_int, offset: *mut off_t, length: size_t) -> ssize_t => nm_sendfile {
        finish(transfer::send_file(to, End { number: from, offset: offset as usize }, length), || real!(sendfile)(to, from, offset, length))
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
    unsafe fn sendfile64(to: c_int, from: c_int, offset: *mut off_t, length: size_t) -> ssize_t => nm_sendfile64 {
        finish(transfer::send_file(to, End { number: from, offset: offset as usize }, length), || real!(sendfile64)(to, from, offset, length))
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
    unsafe fn copy_file_range(from: c_int, from_offset: *mut off_t, to: c_int, to_offset: *mut off_t, length: size_t, flags: c_uint) -> ssize_t => nm_copy_file_range {
        finish(transfer::copy_range(
                End { number: from, offset: from_offset as usize },
                End { number: to, offset: to_offset as usize },
                length,
                flags,
            ), || real!(copy_file_range)(from, from_offset, to, to_offset, length, flags))
    }
}

hook! {
    unsafe fn stat(path: *const c_char, into: *mut c_void) -> c_int => nm_stat {
        with_local(path::local(libc::AT_FDCWD, path), path, |local| real!(stat)(local, into))
    }
}

hook! {
    unsafe fn lstat(path: *const c_char, into: *mut c_void) -> c_int => nm_lstat {
        with_local(path::local(libc::AT_FDCWD, path), path, |local| real!(lstat)(local, into))
    }
}

hook! {
    unsafe fn stat64(path: *const c_char, into: *mut c_void) -> c_int => nm_stat64 {
        with_local(path::local(libc::AT_FDCWD, path), path, |local| real!(stat64)(local, into))
    }
}

hook! {
    unsafe fn lstat64(path: *const c_char, into: *mut c_void) -> c_int => nm_lstat64 {
        with_local(path::local(libc::AT_FDCWD, path), path, |local| real!(lstat64)(local, into))
    }
}

hook! {
    unsafe fn fstatat(directory: c_int, path: *const c_char, into: *mut c_void, flags: c_int) -> c_int => nm_fstatat {
        with_local(path::local(directory, path), path, |local| real!(fstatat)(directory, local, into, flags))
    }
}

hook! {
    unsafe fn fstatat64(directory: c_int, path: *const c_char, into: *mut c_void, flags: c_int) -> c_int => nm_fstatat64 {
        with_local(path::local(directory, path), path, |local| real!(fstatat64)(directory, local, into, flags))
    }
}

hook! {
    unsafe fn statx(directory: c_int, path: *const c_char, flags: c_int, mask: c_uint, into: *mut c_void) -> c_int => nm_statx {
        with_local(path::local(directory, path), path, |local| real!(statx)(directory, local, flags, mask, into))
    }
}

hook! {
    unsafe fn __xstat(version: c_int, path: *const c_char, into: *mut c_void) -> c_int => nm___xstat {
        with_local(path::local(libc::AT_FDCWD, path), path, |local| real!(__xstat)(version, local, into))
    }
}

hook! {
    unsafe fn __lxstat(version: c_int, path: *const c_char, into: *mut c_void) -> c_int => nm___lxstat {
        with_local(path::local(libc::AT_FDCWD, path), path, |local| real!(__lxstat)(version, local, into))
    }
}

hook! {
    unsafe fn __xstat64(version: c_int, path: *const c_char, into: *mut c_void) -> c_int => nm___xstat64 {
        with_local(path::local(libc::AT_FDCWD, path), path, |local| real!(__xstat64)(version, local, into))
    }
}

hook! {
    unsafe fn __lxstat64(version: c_int, path: *const c_char, into: *mut c_void) -> c_int => nm___lxstat64 {
        with_local(path::local(libc::AT_FDCWD, path), path, |local| real!(__lxstat64)(version, local, into))
    }
}

hook! {
    unsafe fn __fxstatat(version: c_int, directory: c_int, path: *const c_char, into: *mut c_void, flags: c_int) -> c_int => nm___fxstatat {
        with_local(path::local(directory, path), path, |local| real!(__fxstatat)(version, directory, local, into, flags))
    }
}

hook! {
    unsafe fn __fxstatat64(version: c_int, directory: c_int, path: *const c_char, into: *mut c_void, flags: c_int) -> c_int => nm___fxstatat64 {
        with_local(path::local(directory, path), path, |local| real!(__fxstatat64)(version, directory, local, into, flags))
    }
}

hook! {
    unsafe fn access(path: *const c_char, mode: c_int) -> c_int => nm_access {
        with_local(path::local(libc::AT_FDCWD, path), path, |local| real!(access)(local, mode))
    }
}

hook! {
    unsafe fn eaccess(path: *const c_char, mode: c_int) -> c_int => nm_eaccess {
        with_local(path::local(libc::AT_FDCWD, path), path, |local| real!(eaccess)(local, mode))
    }
}

hook! {
    unsafe fn euidaccess(path: *const c_char, mode: c_int) -> c_int => nm_euidaccess {
        with_local(path::local(libc::AT_FDCWD, path), path, |local| real!(euidaccess)(local, mode))
    }
}

hook! {
    unsafe fn faccessat(directory: c_int, path: *const c_char, mode: c_int, flags: c_int) -> c_int => nm_faccessat {
        with_local(path::local(directory, path), path, |local| real!(faccessat)(directory, local, mode, flags))
    }
}

hook! {
    unsafe fn statfs(path: *const c_char, into: *mut c_void) -> c_int => nm_statfs {
        with_local(path::local(libc::AT_FDCWD, path), path, |local| real!(statfs)(local, into))
    }
}

hook! {
    unsafe fn statfs64(path: *const c_char, into: *mut c_void) -> c_int => nm_statfs64 {
        with_local(path::local(libc::AT_FDCWD, path), path, |local| real!(statfs64)(local, into))
    }
}

hook! {
    unsafe fn statvfs(path: *const c_char, into: *mut c_void) -> c_int => nm_statvfs {
        with_local(path::local(libc::AT_FDCWD, path), path, |local| real!(statvfs)(local, into))
    }
}

hook! {
    unsafe fn statvfs64(path: *const c_char, into: *mut c_void) -> c_int => nm_statvfs64 {
        with_local(path::local(libc::AT_FDCWD, path), path, |local| real!(statvfs64)(local, into))
    }
}

hook! {
    unsafe fn readlink(path: *const c_char, into: *mut c_char, length: size_t) -> ssize_t => nm_readlink {
        with_local(path::local(libc::AT_FDCWD, path), path, |local| real!(readlink)(local, into, length))
    }
}

hook! {
    unsafe fn readlinkat(directory: c_int, path: *const c_char, into: *mut c_char, length: size_t) -> ssize_t => nm_readlinkat {
        with_local(path::local(directory, path), path, |local| real!(readlinkat)(directory, local, into, length))
    }
}

hook! {
    unsafe fn getxattr(path: *const c_char, name: *const c_char, into: *mut c_void, length: size_t) -> ssize_t => nm_getxattr {
        with_local(path::local(libc::AT_FDCWD, path), path, |local| real!(getxattr)(local, name, into, length))
    }
}

hook! {
    unsafe fn lgetxattr(path: *const c_char, name: *const c_char, into: *mut c_void, length: size_t) -> ssize_t => nm_lgetxattr {
        with_local(path::local(libc::AT_FDCWD, path), path, |local| real!(lgetxattr)(local, name, into, length))
    }
}

hook! {
    unsafe fn listxattr(path: *const c_char, into: *mut c_char, length: size_t) -> ssize_t => nm_listxattr {
        with_local(path::local(libc::AT_FDCWD, path), path, |local| real!(listxattr)(local, into, length))
    }
}

hook! {
    unsafe fn llistxattr(path: *const c_char, into: *mut c_char, length: size_t) -> ssize_t => nm_llistxattr {
        with_local(path::local(libc::AT_FDCWD, path), path, |local| real!(llistxattr)(local, into, length))
    }
}

hook! {
    unsafe fn utimensat(directory: c_int, path: *const c_char, times: *const c_void, flags: c_int) -> c_int => nm_utimensat {
        with_local(path::local(directory, path), path, |local| real!(utimensat)(directory, local, times, flags))
    }
}

hook! {
    unsafe fn utimes(path: *const c_char, times: *const c_void) -> c_int => nm_utimes {
        with_local(path::local(libc::AT_FDCWD, path), path, |local| real!(utimes)(local, times))
    }
}

hook! {
    unsafe fn utime(path: *const c_char, times: *const c_void) -> c_int => nm_utime {
        with_local(path::local(libc::AT_FDCWD, path), path, |local| real!(utime)(local, times))
    }
}

hook! {
    unsafe fn chdir(path: *const c_char) -> c_int => nm_chdir {
        path::moved(with_local(path::local(libc::AT_FDCWD, path), path, |local| real!(chdir)(local)))
    }
}

hook! {
    unsafe fn fchdir(number: c_int) -> c_int => nm_fchdir {
        path::moved(real!(fchdir)(number))
    }
}

hook! {
    unsafe fn opendir(path: *const c_char) -> *mut c_void => nm_opendir {
        with_local_pointer(path::local_directory(path), path, |local| real!(opendir)(local))
    }
}

hook! {
    unsafe fn scandir(path: *const c_char, names: *mut c_void, filter: *const c_void, compare: *const c_void) -> c_int => nm_scandir {
        with_local(path::local_directory(path), path, |local| real!(scandir)(local, names, filter, compare))
    }
}

hook! {
    unsafe fn scandir64(path: *const c_char, names: *mut c_void, filter: *const c_void, compare: *const c_void) -> c_int => nm_scandir64 {
        with_local(path::local_directory(path), path, |local| real!(scandir64)(local, names, filter, compare))
    }
}

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

hook! {
    unsafe fn getcwd(into: *mut c_char, length: size_t) -> *mut c_char => nm_getcwd {
        show_path(real!(getcwd)(into, length))
    }
}

hook! {
    unsafe fn get_current_dir_name() -> *mut c_char => nm_get_current_dir_name {
        show_path(real!(get_current_dir_name)())
    }
}

hook! {
    unsafe fn unlink(path: *const c_char) -> c_int => nm_unlink {
        finish(path::remove(libc::AT_FDCWD, path, false), || real!(unlink)(path))
    }
}

hook! {
    unsafe fn unlinkat(directory: c_int, path: *const c_char, flags: c_int) -> c_int => nm_unlinkat {
        finish(path::remove(directory, path, flags & libc::AT_REMOVEDIR != 0), || real!(unlinkat)(directory, path, flags))
    }
}

hook! {
    unsafe fn rmdir(path: *const c_char) -> c_int => nm_rmdir {
        finish(path::remove(libc::AT_FDCWD, path, true), || real!(rmdir)(path))
    }
}

hook! {
    unsafe fn remove(path: *const c_char) -> c_int => nm_remove {
        finish(path::remove_any(path), || real!(remove)(path))
    }
}

hook! {
    unsafe fn rename(from: *const c_char, to: *const c_char) -> c_int => nm_rename {
        finish(path::rename((libc::AT_FDCWD, from), (libc::AT_FDCWD, to), 0), || real!(rename)(from, to))
    }
}

hook! {
    unsafe fn renameat(from_directory: c_int, from: *const c_char, to_directory: c_int, to: *const c_char) -> c_int => nm_renameat {
        finish(path::rename((from_directory, from), (to_directory, to), 0), || real!(renameat)(from_directory, from, to_directory, to))
    }
}

hook! {
    unsafe fn renameat2(from_directory: c_int, from: *const c_char, to_directory: c_int, to: *const c_char, flags: c_uint) -> c_int => nm_renameat2 {
        finish(path::rename((from_directory, from), (to_directory, to), flags), || real!(renameat2)(from_directory, from, to_directory, to, flags))
    }
}

hook! {
    unsafe fn link(from: *const c_char, to: *const c_char) -> c_int => nm_link {
        finish(path::link(Some(from), (libc::AT_FDCWD, to)), || real!(link)(from, to))
    }
}

hook! {
    unsafe fn symlink(target: *const c_char, path: *const c_char) -> c_int => nm_symlink {
        finish(path::link(None, (libc::AT_FDCWD, path)), || real!(symlink)(target, path))
    }
}

hook! {
    unsafe fn symlinkat(target: *const c_char, directory: c_int, path: *const c_char) -> c_int => nm_symlinkat {
        finish(path::link(None, (directory, path)), || real!(symlinkat)(target, directory, path))
    }
}

hook! {
    unsafe fn mkdir(path: *const c_char, mode: mode_t) -> c_int => nm_mkdir {
        finish(path::make_directory(libc::AT_FDCWD, path, mode), || real!(mkdir)(path, mode))
    }
}

hook! {
    unsafe fn mkdirat(directory: c_int, path: *const c_char, mode: mode_t) -> c_int => nm_mkdirat {
        finish(path::make_directory(directory, path, mode), || real!(mkdirat)(directory, path, mode))
    }
}

hook! {
    unsafe fn chmod(path: *const c_char, mode: mode_t) -> c_int => nm_chmod {
        with_local(path::change_mode(libc::AT_FDCWD, path, mode), path, |local| real!(chmod)(local, mode))
    }
}

hook! {
    unsafe fn fchmodat(directory: c_int, path: *const c_char, mode: mode_t, flags: c_int) -> c_int => nm_fchmodat {
        with_local(path::change_mode(directory, path, mode), path, |local| real!(fchmodat)(directory, local, mode, flags))
    }
}

hook! {
    unsafe fn _exit(status: c_int) -> () => nm__exit {
        process::at_exit();
        real!(_exit)(status)
    }
}

hook! {
    unsafe fn quick_exit(status: c_int) -> () => nm_quick_exit {
        process::at_exit();
        real!(quick_exit)(status)
    }
}

hook! {
    unsafe fn _Exit(status: c_int) -> () => nm__Exit {
        process::at_exit();
        real!(_Exit)(status)
    }
}

hook! {
    unsafe fn execve(path: *const c_char, arguments: *const *const c_char, environment: *const *const c_char) -> c_int => nm_execve {
        executed(|| real!(execve)(path, arguments, environment))
    }
}

hook! {
    unsafe fn execv(path: *const c_char, arguments: *const *const c_char) -> c_int => nm_execv {
        executed(|| real!(execv)(path, arguments))
    }
}

hook! {
    unsafe fn execvp(path: *const c_char, arguments: *const *const c_char) -> c_int => nm_execvp {
        executed(|| real!(execvp)(path, arguments))
    }
}

hook! {
    unsafe fn execvpe(path: *const c_char, arguments: *const *const c_char, environment: *const *const c_char) -> c_int => nm_execvpe {
        executed(|| real!(execvpe)(path, arguments, environment))
    }
}

hook! {
    unsafe fn fexecve(number: c_int, arguments: *const *const c_char, environment: *const *const c_char) -> c_int => nm_fexecve {
        executed(|| real!(fexecve)(number, arguments, environment))
    }
}

hook! {
    unsafe fn sigaction(number: c_int, new: *const libc::sigaction, old: *mut libc::sigaction) -> c_int => nm_sigaction {
        finish(signals::action(number, new, old), || match signals::action_without_ours(new) {
            Some(new) => real!(sigaction)(number, &raw const new, old),
            None => real!(sigaction)(number, new, old),
        })
    }
}

hook! {
    unsafe fn recvmsg(number: c_int, message: *mut libc::msghdr, flags: c_int) -> ssize_t => nm_recvmsg {
        links::received(message, real!(recvmsg)(number, message, flags))
    }
}

hook! {
    unsafe fn signal(number: c_int, handler: usize) -> usize => nm_signal {
        match signals::simple(number, handler) {
            Ok(before) => before,
            Err(_) => real!(signal)(number, handler),
        }
    }
}

hook! {
    unsafe fn sigprocmask(how: c_int, set: *const libc::sigset_t, old: *mut libc::sigset_t) -> c_int => nm_sigprocmask {
        match signals::without_ours(how, set) {
            Some(set) => real!(sigprocmask)(how, &raw const set, old),
            None => real!(sigprocmask)(how, set, old),
        }
    }
}

hook! {
    unsafe fn pthread_sigmask(how: c_int, set: *const libc::sigset_t, old: *mut libc::sigset_t) -> c_int => nm_pthread_sigmask {
        match signals::without_ours(how, set) {
            Some(set) => real!(pthread_sigmask)(how, &raw const set, old),
            None => real!(pthread_sigmask)(how, set, old),
        }
    }
}

// The variadic ones: variadic.c collects their arguments and comes back through these.

unsafe extern "C" {
    fn netmem_execl();
    fn netmem_execlp();
    fn netmem_execle();
}

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

jump!(execl, netmem_execl);
jump!(execlp, netmem_execlp);
jump!(execle, netmem_execle);

#[unsafe(no_mangle)]
unsafe extern "C" fn netmem_hook_execv(path: *const c_char, arguments: *const *const c_char) -> c_int {
    nm_execv(path, arguments)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn netmem_hook_execvp(path: *const c_char, arguments: *const *const c_char) -> c_int {
    nm_execvp(path, arguments)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn netmem_hook_execve(
    path: *const c_char,
    arguments: *const *const c_char,
    environment: *const *const c_char,
) -> c_int {
    nm_execve(path, arguments, environment)
}

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
unsafe fn explain<T: super::outcome::CReturn>(outcome: Outcome<T>) -> T {
    if let Err(exit) = outcome {
        let failed = if let Exit::Fail(failed) = exit { failed } else { Errno(libc::EBADF) };
        crate::log::note_error_number(failed);
        errno::set(failed);
        return T::FAILED;
    }
    finish(outcome, || T::FAILED)
}
