//! syscall(2): the numbers that have a hook of their own go through it, all others straight to the kernel.
//!
//! Owns: which number is which hook. Called by: exports::numbers. Must not: serve a number whose arguments differ
//! from the function's.
//!
//! libuv looks files up with `syscall(SYS_statx)`, glib and systemd copy with `syscall(SYS_copy_file_range)`. What a number's hook
//! passes on goes to libc's function instead of the kernel's call, which for these numbers is the same.

use super::{
    asynchronous, attributes, c_char, c_int, c_uint, c_void, call, descriptors, files, finish, iovec, links,
    memory, mode_t, names, off_t, processes, raw_result, transfers, walks,
};
use core::ffi::c_long;

type Arguments = [usize; 6];

pub(super) unsafe fn served(number: c_long, args: Arguments) -> c_long {
    match number {
        libc::SYS_read
        | libc::SYS_write
        | libc::SYS_pread64
        | libc::SYS_pwrite64
        | libc::SYS_readv
        | libc::SYS_writev
        | libc::SYS_preadv
        | libc::SYS_pwritev
        | libc::SYS_preadv2
        | libc::SYS_pwritev2
        | libc::SYS_sendfile
        | libc::SYS_copy_file_range => bytes(number, args) as c_long,
        libc::SYS_mmap
        | libc::SYS_munmap
        | libc::SYS_mprotect
        | libc::SYS_mremap
        | libc::SYS_msync
        | libc::SYS_madvise
        | libc::SYS_process_madvise
        | libc::SYS_pkey_mprotect
        | libc::SYS_remap_file_pages
        | libc::SYS_mincore
        | libc::SYS_mlock
        | libc::SYS_mlock2
        | libc::SYS_mlockall
        | libc::SYS_munlock
        | libc::SYS_munlockall => range(number, args) as c_long,
        libc::SYS_openat
        | libc::SYS_openat2
        | libc::SYS_close
        | libc::SYS_close_range
        | libc::SYS_dup
        | libc::SYS_dup3
        | libc::SYS_fcntl
        | libc::SYS_flock
        | libc::SYS_lseek
        | libc::SYS_ftruncate
        | libc::SYS_fallocate
        | libc::SYS_fsync
        | libc::SYS_fdatasync => descriptor(number, args) as c_long,
        libc::SYS_statx
        | libc::SYS_newfstatat
        | libc::SYS_faccessat
        | libc::SYS_faccessat2
        | libc::SYS_unlinkat
        | libc::SYS_renameat2
        | libc::SYS_mkdirat
        | libc::SYS_utimensat
        | libc::SYS_readlinkat
        | libc::SYS_symlinkat
        | libc::SYS_linkat
        | libc::SYS_chdir
        | libc::SYS_fchdir => name(number, args) as c_long,
        libc::SYS_exit_group => {
            processes::nm__exit(args[0] as c_int);
            0
        }
        libc::SYS_execve => {
            processes::nm_execve(args[0] as *const c_char, args[1] as *const _, args[2] as *const _) as c_long
        }
        libc::SYS_execveat => {
            let [directory, path, arguments, environment, flags, _] = args;
            let (path, lists) = (path as *const c_char, [arguments as *const _, environment as *const _]);
            processes::nm_execveat(directory as c_int, path, lists[0], lists[1], flags as c_int) as c_long
        }
        libc::SYS_io_uring_setup => finish(asynchronous::ring(), || raw_result(call(number, args))) as c_long,
        libc::SYS_io_submit => {
            let pass = || raw_result(call(number, args));
            finish(asynchronous::submit(args[0], args[1] as isize, args[2] as *const _), pass) as c_long
        }
        _ => by_path(number, args) as c_long,
    }
}

/// The numbers of x86-64 that newer machines leave to the functions with a directory; what is none of them is the kernel's.
#[cfg(target_arch = "x86_64")]
unsafe fn by_path(number: c_long, args: Arguments) -> isize {
    let [a, b, c, ..] = args;
    let path = a as *const c_char;
    let result = match number {
        libc::SYS_open => descriptors::nm_open64(path, b as c_int, c as mode_t),
        libc::SYS_creat => descriptors::nm_creat64(path, b as mode_t),
        libc::SYS_stat => attributes::nm_stat64(path, b as *mut c_void),
        libc::SYS_lstat => attributes::nm_lstat64(path, b as *mut c_void),
        libc::SYS_access => attributes::nm_access(path, b as c_int),
        libc::SYS_unlink => names::nm_unlink(path),
        libc::SYS_rmdir => names::nm_rmdir(path),
        libc::SYS_mkdir => names::nm_mkdir(path, b as mode_t),
        libc::SYS_rename => names::nm_rename(path, b as *const c_char),
        libc::SYS_symlink => names::nm_symlink(path, b as *const c_char),
        libc::SYS_link => names::nm_link(path, b as *const c_char),
        libc::SYS_readlink => return walks::nm_readlink(path, b as *mut c_char, c),
        libc::SYS_chmod => attributes::nm_chmod(path, b as mode_t),
        libc::SYS_truncate => files::nm_truncate64(path, b as off_t),
        libc::SYS_dup2 => descriptors::nm_dup2(a as c_int, b as c_int),
        _ => return raw_result(call(number, args)),
    };
    result as isize
}

#[cfg(not(target_arch = "x86_64"))]
unsafe fn by_path(number: c_long, args: Arguments) -> isize {
    raw_result(call(number, args))
}

unsafe fn bytes(number: c_long, [a, b, c, d, e, f]: Arguments) -> isize {
    let (fd, buffer, vectors, offset) = (a as c_int, b as *mut c_void, b as *const iovec, d as off_t);
    match number {
        libc::SYS_read => transfers::nm_read(fd, buffer, c),
        libc::SYS_write => transfers::nm_write(fd, buffer, c),
        libc::SYS_pread64 => transfers::nm_pread64(fd, buffer, c, offset),
        libc::SYS_pwrite64 => transfers::nm_pwrite64(fd, buffer, c, offset),
        libc::SYS_readv => transfers::nm_readv(fd, vectors, c as c_int),
        libc::SYS_writev => transfers::nm_writev(fd, vectors, c as c_int),
        libc::SYS_preadv => transfers::nm_preadv64(fd, vectors, c as c_int, offset),
        libc::SYS_pwritev => transfers::nm_pwritev64(fd, vectors, c as c_int, offset),
        libc::SYS_preadv2 => transfers::nm_preadv64v2(fd, vectors, c as c_int, offset, f as c_int),
        libc::SYS_pwritev2 => transfers::nm_pwritev64v2(fd, vectors, c as c_int, offset, f as c_int),
        libc::SYS_sendfile => transfers::nm_sendfile64(fd, b as c_int, c as *mut off_t, d),
        _ => transfers::nm_copy_file_range(fd, b as *mut off_t, c as c_int, d as *mut off_t, e, f as c_uint),
    }
}

unsafe fn range(number: c_long, [a, b, c, d, e, f]: Arguments) -> isize {
    let at = a as *mut c_void;
    match number {
        libc::SYS_mmap => memory::mmap64(at, b, c as c_int, d as c_int, e as c_int, f as off_t) as isize,
        libc::SYS_munmap => memory::munmap(at, b) as isize,
        libc::SYS_mprotect => memory::mprotect(at, b, c as c_int) as isize,
        libc::SYS_mremap => memory::mremap(at, b, c, d as c_int, e as *mut c_void) as isize,
        libc::SYS_msync => memory::msync(at, b, c as c_int) as isize,
        libc::SYS_process_madvise => {
            memory::process_madvise(a as c_int, b as *const iovec, c, d as c_int, e as c_uint)
        }
        libc::SYS_pkey_mprotect => memory::pkey_mprotect(at, b, c as c_int, d as c_int) as isize,
        libc::SYS_remap_file_pages => memory::remap_file_pages(at, b, c as c_int, d, e as c_int) as isize,
        libc::SYS_mincore => memory::mincore(at, b, c as *mut u8) as isize,
        libc::SYS_mlock => memory::mlock(at, b) as isize,
        libc::SYS_mlock2 => memory::mlock2(at, b, c as c_uint) as isize,
        libc::SYS_mlockall => memory::mlockall(a as c_int) as isize,
        libc::SYS_munlock => memory::munlock(at, b) as isize,
        libc::SYS_munlockall => memory::munlockall() as isize,
        _ => memory::madvise(at, b, c as c_int) as isize,
    }
}

unsafe fn descriptor(number: c_long, [a, b, c, d, e, f]: Arguments) -> isize {
    let fd = a as c_int;
    match number {
        libc::SYS_openat => names_open(fd, b as *const c_char, c as c_int, d as mode_t),
        libc::SYS_openat2 => open_how(fd, b as *const c_char, c as *const u64, [a, b, c, d, e, f]),
        libc::SYS_close => descriptors::nm_close(fd) as isize,
        libc::SYS_close_range => descriptors::nm_close_range(a as c_uint, b as c_uint, c as c_int) as isize,
        libc::SYS_dup => descriptors::nm_dup(fd) as isize,
        libc::SYS_dup3 if fd == b as c_int => raw_result(call(number, [a, b, c, d, e, f])),
        libc::SYS_dup3 => descriptors::nm_dup3(fd, b as c_int, c as c_int) as isize,
        libc::SYS_fcntl => descriptors::nm_fcntl64(fd, b as c_int, c) as isize,
        libc::SYS_flock => descriptors::nm_flock(fd, b as c_int) as isize,
        libc::SYS_lseek => files::nm_lseek64(fd, b as off_t, c as c_int) as isize,
        libc::SYS_ftruncate => files::nm_ftruncate64(fd, b as off_t) as isize,
        libc::SYS_fallocate => files::nm_fallocate64(fd, b as c_int, c as off_t, d as off_t) as isize,
        libc::SYS_fsync => files::nm_fsync(fd) as isize,
        _ => files::nm_fdatasync(fd) as isize,
    }
}

unsafe fn names_open(directory: c_int, path: *const c_char, flags: c_int, mode: mode_t) -> isize {
    descriptors::nm_openat64(directory, path, flags, mode) as isize
}

/// openat2(2). A name of ours stays below the prefix; with restrictions no symbolic link is followed on the way (ELOOP).
unsafe fn open_how(directory: c_int, path: *const c_char, how: *const u64, args: Arguments) -> isize {
    if how.is_null() || links::name_of(directory, path).is_none() {
        return links::foreign(path, raw_result(call(libc::SYS_openat2, args)) as c_int) as isize;
    }
    // struct open_how: flags, mode, resolve.
    if *how.add(2) != 0 {
        let open = || links::open_unfollowed(directory, path, *how as c_int, *how.add(1) as mode_t);
        return finish(open(), || -1) as isize;
    }
    names_open(directory, path, *how as c_int, *how.add(1) as mode_t)
}

unsafe fn name(number: c_long, [a, b, c, d, e, f]: Arguments) -> isize {
    let (directory, path) = (a as c_int, b as *const c_char);
    let result = match number {
        libc::SYS_statx => attributes::nm_statx(directory, path, c as c_int, d as c_uint, e as *mut c_void),
        libc::SYS_newfstatat => attributes::nm_fstatat64(directory, path, c as *mut c_void, d as c_int),
        // The kernel's own has no flags.
        libc::SYS_faccessat => attributes::nm_faccessat(directory, path, c as c_int, 0),
        libc::SYS_faccessat2 => attributes::nm_faccessat(directory, path, c as c_int, d as c_int),
        libc::SYS_unlinkat => names::nm_unlinkat(directory, path, c as c_int),
        libc::SYS_renameat2 => {
            names::nm_renameat2(directory, path, c as c_int, d as *const c_char, e as c_uint)
        }
        libc::SYS_mkdirat => names::nm_mkdirat(directory, path, c as mode_t),
        libc::SYS_utimensat if b == 0 => return raw_result(call(number, [a, b, c, d, e, f])),
        libc::SYS_utimensat => attributes::nm_utimensat(directory, path, c as *const c_void, d as c_int),
        libc::SYS_readlinkat => return walks::nm_readlinkat(directory, path, c as *mut c_char, d),
        libc::SYS_symlinkat => names::nm_symlinkat(a as *const c_char, b as c_int, c as *const c_char),
        libc::SYS_linkat => names::nm_linkat(directory, path, c as c_int, d as *const c_char, e as c_int),
        libc::SYS_chdir => walks::nm_chdir(a as *const c_char),
        _ => walks::nm_fchdir(directory),
    };
    result as isize
}
