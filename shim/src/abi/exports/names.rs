//! Paths: what is looked up, made, renamed and removed by name.
//!
//! Owns: the names below. Called by: the program. Must not: do more than convert and call an operation.

use super::*;

hook! {
    unsafe fn stat(path: *const c_char, into: *mut c_void) -> c_int => nm_stat {
        buffers::filled(into, size_of::<libc::stat>(), |into| with_local(path::local(libc::AT_FDCWD, path), path, |local| real!(stat)(local, into)))
    }
}

hook! {
    unsafe fn lstat(path: *const c_char, into: *mut c_void) -> c_int => nm_lstat {
        buffers::filled(into, size_of::<libc::stat>(), |into| with_local(path::local(libc::AT_FDCWD, path), path, |local| real!(lstat)(local, into)))
    }
}

hook! {
    unsafe fn stat64(path: *const c_char, into: *mut c_void) -> c_int => nm_stat64 {
        buffers::filled(into, size_of::<libc::stat>(), |into| with_local(path::local(libc::AT_FDCWD, path), path, |local| real!(stat64)(local, into)))
    }
}

hook! {
    unsafe fn lstat64(path: *const c_char, into: *mut c_void) -> c_int => nm_lstat64 {
        buffers::filled(into, size_of::<libc::stat>(), |into| with_local(path::local(libc::AT_FDCWD, path), path, |local| real!(lstat64)(local, into)))
    }
}

hook! {
    unsafe fn fstatat(directory: c_int, path: *const c_char, into: *mut c_void, flags: c_int) -> c_int => nm_fstatat {
        buffers::filled(into, size_of::<libc::stat>(), |into| with_local(path::local(directory, path), path, |local| real!(fstatat)(directory, local, into, flags)))
    }
}

hook! {
    unsafe fn fstatat64(directory: c_int, path: *const c_char, into: *mut c_void, flags: c_int) -> c_int => nm_fstatat64 {
        buffers::filled(into, size_of::<libc::stat>(), |into| with_local(path::local(directory, path), path, |local| real!(fstatat64)(directory, local, into, flags)))
    }
}

hook! {
    unsafe fn statx(directory: c_int, path: *const c_char, flags: c_int, mask: c_uint, into: *mut c_void) -> c_int => nm_statx {
        buffers::filled(into, size_of::<libc::statx>(), |into| with_local(path::local(directory, path), path, |local| real!(statx)(directory, local, flags, mask, into)))
    }
}

hook! {
    unsafe fn __xstat(version: c_int, path: *const c_char, into: *mut c_void) -> c_int => nm___xstat {
        buffers::filled(into, size_of::<libc::stat>(), |into| with_local(path::local(libc::AT_FDCWD, path), path, |local| real!(__xstat)(version, local, into)))
    }
}

hook! {
    unsafe fn __lxstat(version: c_int, path: *const c_char, into: *mut c_void) -> c_int => nm___lxstat {
        buffers::filled(into, size_of::<libc::stat>(), |into| with_local(path::local(libc::AT_FDCWD, path), path, |local| real!(__lxstat)(version, local, into)))
    }
}

hook! {
    unsafe fn __xstat64(version: c_int, path: *const c_char, into: *mut c_void) -> c_int => nm___xstat64 {
        buffers::filled(into, size_of::<libc::stat>(), |into| with_local(path::local(libc::AT_FDCWD, path), path, |local| real!(__xstat64)(version, local, into)))
    }
}

hook! {
    unsafe fn __lxstat64(version: c_int, path: *const c_char, into: *mut c_void) -> c_int => nm___lxstat64 {
        buffers::filled(into, size_of::<libc::stat>(), |into| with_local(path::local(libc::AT_FDCWD, path), path, |local| real!(__lxstat64)(version, local, into)))
    }
}

hook! {
    unsafe fn __fxstatat(version: c_int, directory: c_int, path: *const c_char, into: *mut c_void, flags: c_int) -> c_int => nm___fxstatat {
        buffers::filled(into, size_of::<libc::stat>(), |into| with_local(path::local(directory, path), path, |local| real!(__fxstatat)(version, directory, local, into, flags)))
    }
}

hook! {
    unsafe fn __fxstatat64(version: c_int, directory: c_int, path: *const c_char, into: *mut c_void, flags: c_int) -> c_int => nm___fxstatat64 {
        buffers::filled(into, size_of::<libc::stat>(), |into| with_local(path::local(directory, path), path, |local| real!(__fxstatat64)(version, directory, local, into, flags)))
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
        buffers::filled(into, size_of::<libc::statfs>(), |into| with_local(path::local(libc::AT_FDCWD, path), path, |local| real!(statfs)(local, into)))
    }
}

hook! {
    unsafe fn statfs64(path: *const c_char, into: *mut c_void) -> c_int => nm_statfs64 {
        buffers::filled(into, size_of::<libc::statfs>(), |into| with_local(path::local(libc::AT_FDCWD, path), path, |local| real!(statfs64)(local, into)))
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
        buffers::filled(into, length, |into| with_local(path::local(libc::AT_FDCWD, path), path, |local| real!(readlink)(local, into, length)))
    }
}

hook! {
    unsafe fn readlinkat(directory: c_int, path: *const c_char, into: *mut c_char, length: size_t) -> ssize_t => nm_readlinkat {
        buffers::filled(into, length, |into| with_local(path::local(directory, path), path, |local| real!(readlinkat)(directory, local, into, length)))
    }
}

hook! {
    unsafe fn getxattr(path: *const c_char, name: *const c_char, into: *mut c_void, length: size_t) -> ssize_t => nm_getxattr {
        buffers::filled(into, length, |into| with_local(path::local(libc::AT_FDCWD, path), path, |local| real!(getxattr)(local, name, into, length)))
    }
}

hook! {
    unsafe fn lgetxattr(path: *const c_char, name: *const c_char, into: *mut c_void, length: size_t) -> ssize_t => nm_lgetxattr {
        buffers::filled(into, length, |into| with_local(path::local(libc::AT_FDCWD, path), path, |local| real!(lgetxattr)(local, name, into, length)))
    }
}

hook! {
    unsafe fn listxattr(path: *const c_char, into: *mut c_char, length: size_t) -> ssize_t => nm_listxattr {
        buffers::filled(into, length, |into| with_local(path::local(libc::AT_FDCWD, path), path, |local| real!(listxattr)(local, into, length)))
    }
}

hook! {
    unsafe fn llistxattr(path: *const c_char, into: *mut c_char, length: size_t) -> ssize_t => nm_llistxattr {
        buffers::filled(into, length, |into| with_local(path::local(libc::AT_FDCWD, path), path, |local| real!(llistxattr)(local, into, length)))
    }
}

hook! {
    unsafe fn utimensat(directory: c_int, path: *const c_char, times: *const c_void, flags: c_int) -> c_int => nm_utimensat {
        buffers::given(times, 32, |times| with_local(path::local(directory, path), path, |local| real!(utimensat)(directory, local, times, flags)))
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
    unsafe fn getcwd(into: *mut c_char, length: size_t) -> *mut c_char => nm_getcwd {
        let found = buffers::filled(into, length, |into| real!(getcwd)(into, length));
        show_path(if found.is_null() || into.is_null() { found } else { into })
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
