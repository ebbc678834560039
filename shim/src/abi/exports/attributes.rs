//! What a path has: status, permissions, owner, times, extended attributes.
//!
//! Owns: the names below. Called by: the program. Must not: do more than convert and call an operation.

use super::*;

hook! {
    unsafe fn stat(path: *const c_char, into: *mut c_void) -> c_int => nm_stat {
        buffers::filled(into, size_of::<libc::stat>(), |into| status::shown_status(with_local(path::local(libc::AT_FDCWD, path, Last::Followed), path, |local| real!(stat)(local, into)), into))
    }
}

hook! {
    unsafe fn lstat(path: *const c_char, into: *mut c_void) -> c_int => nm_lstat {
        buffers::filled(into, size_of::<libc::stat>(), |into| status::shown_status(with_local(path::local(libc::AT_FDCWD, path, Last::Itself), path, |local| real!(lstat)(local, into)), into))
    }
}

hook! {
    unsafe fn stat64(path: *const c_char, into: *mut c_void) -> c_int => nm_stat64 {
        buffers::filled(into, size_of::<libc::stat>(), |into| status::shown_status(with_local(path::local(libc::AT_FDCWD, path, Last::Followed), path, |local| real!(stat64)(local, into)), into))
    }
}

hook! {
    unsafe fn lstat64(path: *const c_char, into: *mut c_void) -> c_int => nm_lstat64 {
        buffers::filled(into, size_of::<libc::stat>(), |into| status::shown_status(with_local(path::local(libc::AT_FDCWD, path, Last::Itself), path, |local| real!(lstat64)(local, into)), into))
    }
}

hook! {
    unsafe fn fstatat(directory: c_int, path: *const c_char, into: *mut c_void, flags: c_int) -> c_int => nm_fstatat {
        buffers::filled(into, size_of::<libc::stat>(), |into| status::shown_status(with_local(path::local(directory, path, Last::unless(flags, libc::AT_SYMLINK_NOFOLLOW)), path, |local| real!(fstatat)(directory, local, into, flags)), into))
    }
}

hook! {
    unsafe fn fstatat64(directory: c_int, path: *const c_char, into: *mut c_void, flags: c_int) -> c_int => nm_fstatat64 {
        buffers::filled(into, size_of::<libc::stat>(), |into| status::shown_status(with_local(path::local(directory, path, Last::unless(flags, libc::AT_SYMLINK_NOFOLLOW)), path, |local| real!(fstatat64)(directory, local, into, flags)), into))
    }
}

hook! {
    unsafe fn statx(directory: c_int, path: *const c_char, flags: c_int, mask: c_uint, into: *mut c_void) -> c_int => nm_statx {
        buffers::filled(into, size_of::<libc::statx>(), |into| status::shown_statx(with_local(path::local(directory, path, Last::unless(flags, libc::AT_SYMLINK_NOFOLLOW)), path, |local| real!(statx)(directory, local, flags, mask, into)), into))
    }
}

hook! {
    unsafe fn __xstat(version: c_int, path: *const c_char, into: *mut c_void) -> c_int => nm___xstat {
        buffers::filled(into, size_of::<libc::stat>(), |into| status::shown_status(with_local(path::local(libc::AT_FDCWD, path, Last::Followed), path, |local| real!(__xstat)(version, local, into)), into))
    }
}

hook! {
    unsafe fn __lxstat(version: c_int, path: *const c_char, into: *mut c_void) -> c_int => nm___lxstat {
        buffers::filled(into, size_of::<libc::stat>(), |into| status::shown_status(with_local(path::local(libc::AT_FDCWD, path, Last::Itself), path, |local| real!(__lxstat)(version, local, into)), into))
    }
}

hook! {
    unsafe fn __xstat64(version: c_int, path: *const c_char, into: *mut c_void) -> c_int => nm___xstat64 {
        buffers::filled(into, size_of::<libc::stat>(), |into| status::shown_status(with_local(path::local(libc::AT_FDCWD, path, Last::Followed), path, |local| real!(__xstat64)(version, local, into)), into))
    }
}

hook! {
    unsafe fn __lxstat64(version: c_int, path: *const c_char, into: *mut c_void) -> c_int => nm___lxstat64 {
        buffers::filled(into, size_of::<libc::stat>(), |into| status::shown_status(with_local(path::local(libc::AT_FDCWD, path, Last::Itself), path, |local| real!(__lxstat64)(version, local, into)), into))
    }
}

hook! {
    unsafe fn __fxstatat(version: c_int, directory: c_int, path: *const c_char, into: *mut c_void, flags: c_int) -> c_int => nm___fxstatat {
        buffers::filled(into, size_of::<libc::stat>(), |into| status::shown_status(with_local(path::local(directory, path, Last::unless(flags, libc::AT_SYMLINK_NOFOLLOW)), path, |local| real!(__fxstatat)(version, directory, local, into, flags)), into))
    }
}

hook! {
    unsafe fn __fxstatat64(version: c_int, directory: c_int, path: *const c_char, into: *mut c_void, flags: c_int) -> c_int => nm___fxstatat64 {
        buffers::filled(into, size_of::<libc::stat>(), |into| status::shown_status(with_local(path::local(directory, path, Last::unless(flags, libc::AT_SYMLINK_NOFOLLOW)), path, |local| real!(__fxstatat64)(version, directory, local, into, flags)), into))
    }
}

hook! {
    unsafe fn access(path: *const c_char, mode: c_int) -> c_int => nm_access {
        with_local(path::local(libc::AT_FDCWD, path, Last::Followed), path, |local| real!(access)(local, mode))
    }
}

hook! {
    unsafe fn eaccess(path: *const c_char, mode: c_int) -> c_int => nm_eaccess {
        with_local(path::local(libc::AT_FDCWD, path, Last::Followed), path, |local| real!(eaccess)(local, mode))
    }
}

hook! {
    unsafe fn euidaccess(path: *const c_char, mode: c_int) -> c_int => nm_euidaccess {
        with_local(path::local(libc::AT_FDCWD, path, Last::Followed), path, |local| real!(euidaccess)(local, mode))
    }
}

hook! {
    unsafe fn faccessat(directory: c_int, path: *const c_char, mode: c_int, flags: c_int) -> c_int => nm_faccessat {
        with_local(path::local(directory, path, Last::unless(flags, libc::AT_SYMLINK_NOFOLLOW)), path, |local| real!(faccessat)(directory, local, mode, flags))
    }
}

hook! {
    unsafe fn statfs(path: *const c_char, into: *mut c_void) -> c_int => nm_statfs {
        buffers::filled(into, size_of::<libc::statfs>(), |into| with_local(path::local(libc::AT_FDCWD, path, Last::Followed), path, |local| real!(statfs)(local, into)))
    }
}

hook! {
    unsafe fn statfs64(path: *const c_char, into: *mut c_void) -> c_int => nm_statfs64 {
        buffers::filled(into, size_of::<libc::statfs>(), |into| with_local(path::local(libc::AT_FDCWD, path, Last::Followed), path, |local| real!(statfs64)(local, into)))
    }
}

hook! {
    unsafe fn statvfs(path: *const c_char, into: *mut c_void) -> c_int => nm_statvfs {
        with_local(path::local(libc::AT_FDCWD, path, Last::Followed), path, |local| real!(statvfs)(local, into))
    }
}

hook! {
    unsafe fn statvfs64(path: *const c_char, into: *mut c_void) -> c_int => nm_statvfs64 {
        with_local(path::local(libc::AT_FDCWD, path, Last::Followed), path, |local| real!(statvfs64)(local, into))
    }
}

hook! {
    unsafe fn getxattr(path: *const c_char, name: *const c_char, into: *mut c_void, length: size_t) -> ssize_t => nm_getxattr {
        buffers::filled(into, length, |into| with_local(path::local(libc::AT_FDCWD, path, Last::Followed), path, |local| real!(getxattr)(local, name, into, length)))
    }
}

hook! {
    unsafe fn lgetxattr(path: *const c_char, name: *const c_char, into: *mut c_void, length: size_t) -> ssize_t => nm_lgetxattr {
        buffers::filled(into, length, |into| with_local(path::local(libc::AT_FDCWD, path, Last::Itself), path, |local| real!(lgetxattr)(local, name, into, length)))
    }
}

hook! {
    unsafe fn listxattr(path: *const c_char, into: *mut c_char, length: size_t) -> ssize_t => nm_listxattr {
        buffers::filled(into, length, |into| with_local(path::local(libc::AT_FDCWD, path, Last::Followed), path, |local| real!(listxattr)(local, into, length)))
    }
}

hook! {
    unsafe fn llistxattr(path: *const c_char, into: *mut c_char, length: size_t) -> ssize_t => nm_llistxattr {
        buffers::filled(into, length, |into| with_local(path::local(libc::AT_FDCWD, path, Last::Itself), path, |local| real!(llistxattr)(local, into, length)))
    }
}

hook! {
    unsafe fn utimensat(directory: c_int, path: *const c_char, times: *const c_void, flags: c_int) -> c_int => nm_utimensat {
        buffers::given(times, 32, |times| finish(status::set_times(directory, path, Last::unless(flags, libc::AT_SYMLINK_NOFOLLOW), status::modified_by(times, 1_000_000_000), |path| real!(utimensat)(directory, path, times, flags)), || real!(utimensat)(directory, path, times, flags)))
    }
}

hook! {
    unsafe fn utimes(path: *const c_char, times: *const c_void) -> c_int => nm_utimes {
        buffers::given(times, 32, |times| finish(status::set_times(libc::AT_FDCWD, path, Last::Followed, status::modified_by(times, 1_000_000), |path| real!(utimes)(path, times)), || real!(utimes)(path, times)))
    }
}

hook! {
    unsafe fn utime(path: *const c_char, times: *const c_void) -> c_int => nm_utime {
        buffers::given(times, 16, |times| finish(status::set_times(libc::AT_FDCWD, path, Last::Followed, status::modified_by_seconds(times), |path| real!(utime)(path, times)), || real!(utime)(path, times)))
    }
}

hook! {
    unsafe fn chmod(path: *const c_char, mode: mode_t) -> c_int => nm_chmod {
        with_local(status::change_mode(libc::AT_FDCWD, path, mode, Last::Followed), path, |local| real!(chmod)(local, mode))
    }
}

hook! {
    unsafe fn fchmodat(directory: c_int, path: *const c_char, mode: mode_t, flags: c_int) -> c_int => nm_fchmodat {
        with_local(status::change_mode(directory, path, mode, Last::unless(flags, libc::AT_SYMLINK_NOFOLLOW)), path, |local| real!(fchmodat)(directory, local, mode, flags))
    }
}

hook! {
    unsafe fn setxattr(path: *const c_char, name: *const c_char, value: *const c_void, size: size_t, flags: c_int) -> c_int => nm_setxattr {
        with_local(status::local_to_change(libc::AT_FDCWD, path, Last::Followed), path, |local| real!(setxattr)(local, name, value, size, flags))
    }
}

hook! {
    unsafe fn lsetxattr(path: *const c_char, name: *const c_char, value: *const c_void, size: size_t, flags: c_int) -> c_int => nm_lsetxattr {
        with_local(status::local_to_change(libc::AT_FDCWD, path, Last::Itself), path, |local| real!(lsetxattr)(local, name, value, size, flags))
    }
}

hook! {
    unsafe fn removexattr(path: *const c_char, name: *const c_char) -> c_int => nm_removexattr {
        with_local(status::local_to_change(libc::AT_FDCWD, path, Last::Followed), path, |local| real!(removexattr)(local, name))
    }
}

hook! {
    unsafe fn lremovexattr(path: *const c_char, name: *const c_char) -> c_int => nm_lremovexattr {
        with_local(status::local_to_change(libc::AT_FDCWD, path, Last::Itself), path, |local| real!(lremovexattr)(local, name))
    }
}

hook! {
    unsafe fn chown(path: *const c_char, user: c_uint, group: c_uint) -> c_int => nm_chown {
        with_local(status::local_to_change(libc::AT_FDCWD, path, Last::Followed), path, |local| real!(chown)(local, user, group))
    }
}

hook! {
    unsafe fn lchown(path: *const c_char, user: c_uint, group: c_uint) -> c_int => nm_lchown {
        with_local(status::local_to_change(libc::AT_FDCWD, path, Last::Itself), path, |local| real!(lchown)(local, user, group))
    }
}

hook! {
    unsafe fn fchownat(directory: c_int, path: *const c_char, user: c_uint, group: c_uint, flags: c_int) -> c_int => nm_fchownat {
        with_local(status::local_to_change(directory, path, Last::unless(flags, libc::AT_SYMLINK_NOFOLLOW)), path, |local| real!(fchownat)(directory, local, user, group, flags))
    }
}

hook! {
    unsafe fn lchmod(path: *const c_char, mode: mode_t) -> c_int => nm_lchmod {
        with_local(status::change_mode(libc::AT_FDCWD, path, mode, Last::Itself), path, |local| real!(lchmod)(local, mode))
    }
}

hook! {
    unsafe fn fchmod(number: c_int, mode: mode_t) -> c_int => nm_fchmod {
        finish(status::change_mode_of(number, mode), || real!(fchmod)(number, mode))
    }
}

hook! {
    unsafe fn pathconf(path: *const c_char, name: c_int) -> c_long => nm_pathconf {
        with_local(path::local(libc::AT_FDCWD, path, Last::Followed), path, |local| real!(pathconf)(local, name))
    }
}

hook! {
    unsafe fn ftok(path: *const c_char, project: c_int) -> c_int => nm_ftok {
        with_local(path::local(libc::AT_FDCWD, path, Last::Followed), path, |local| real!(ftok)(local, project))
    }
}

hook! {
    unsafe fn inotify_add_watch(number: c_int, path: *const c_char, mask: u32) -> c_int => nm_inotify_add_watch {
        with_local(path::local(libc::AT_FDCWD, path, Last::unless(mask as c_int, libc::IN_DONT_FOLLOW as c_int)), path, |local| real!(inotify_add_watch)(number, local, mask))
    }
}

hook! {
    unsafe fn name_to_handle_at(directory: c_int, path: *const c_char, handle: *mut c_void, mount: *mut c_int, flags: c_int) -> c_int => nm_name_to_handle_at {
        with_local(path::local(directory, path, Last::only(flags, libc::AT_SYMLINK_FOLLOW)), path, |local| real!(name_to_handle_at)(directory, local, handle, mount, flags))
    }
}

hook! {
    unsafe fn lutimes(path: *const c_char, times: *const c_void) -> c_int => nm_lutimes {
        buffers::given(times, 32, |times| finish(status::set_times(libc::AT_FDCWD, path, Last::Itself, status::modified_by(times, 1_000_000), |path| real!(lutimes)(path, times)), || real!(lutimes)(path, times)))
    }
}

hook! {
    unsafe fn futimesat(directory: c_int, path: *const c_char, times: *const c_void) -> c_int => nm_futimesat {
        buffers::given(times, 32, |times| finish(status::set_times(directory, path, Last::Followed, status::modified_by(times, 1_000_000), |path| real!(futimesat)(directory, path, times)), || real!(futimesat)(directory, path, times)))
    }
}

hook! {
    unsafe fn futimens(number: c_int, times: *const c_void) -> c_int => nm_futimens {
        buffers::given(times, 32, |times| finish(status::set_times_of(number, status::modified_by(times, 1_000_000_000), || real!(futimens)(number, times)), || real!(futimens)(number, times)))
    }
}

hook! {
    unsafe fn futimes(number: c_int, times: *const c_void) -> c_int => nm_futimes {
        buffers::given(times, 32, |times| finish(status::set_times_of(number, status::modified_by(times, 1_000_000), || real!(futimes)(number, times)), || real!(futimes)(number, times)))
    }
}

hook! {
    unsafe fn fstat(number: c_int, into: *mut c_void) -> c_int => nm_fstat {
        buffers::filled(into, size_of::<libc::stat>(), |into| status::shown_status(real!(fstat)(number, into), into))
    }
}

hook! {
    unsafe fn fstat64(number: c_int, into: *mut c_void) -> c_int => nm_fstat64 {
        buffers::filled(into, size_of::<libc::stat>(), |into| status::shown_status(real!(fstat64)(number, into), into))
    }
}

hook! {
    unsafe fn __fxstat(version: c_int, number: c_int, into: *mut c_void) -> c_int => nm___fxstat {
        buffers::filled(into, size_of::<libc::stat>(), |into| status::shown_status(real!(__fxstat)(version, number, into), into))
    }
}

hook! {
    unsafe fn __fxstat64(version: c_int, number: c_int, into: *mut c_void) -> c_int => nm___fxstat64 {
        buffers::filled(into, size_of::<libc::stat>(), |into| status::shown_status(real!(__fxstat64)(version, number, into), into))
    }
}

hook! {
    unsafe fn fchown(number: c_int, user: c_uint, group: c_uint) -> c_int => nm_fchown {
        finish(status::changes_status_of(number), || real!(fchown)(number, user, group))
    }
}
