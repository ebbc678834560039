//! Paths: what is looked up, made, renamed and removed by name.
//!
//! Owns: the names below. Called by: the program. Must not: do more than convert and call an operation.

use super::*;

hook! {
    unsafe fn unlink(path: *const c_char) -> c_int => nm_unlink {
        finish(path::remove(libc::AT_FDCWD, path, false), || real!(unlink)(path))
    }
}

hook! {
    unsafe fn unlinkat(directory: c_int, path: *const c_char, flags: c_int) -> c_int => nm_unlinkat {
        finish(path::remove_with(directory, path, flags), || real!(unlinkat)(directory, path, flags))
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
        finish(path::link((libc::AT_FDCWD, from), (libc::AT_FDCWD, to), 0), || real!(link)(from, to))
    }
}

hook! {
    unsafe fn symlink(target: *const c_char, path: *const c_char) -> c_int => nm_symlink {
        finish(path::make_symlink(target, libc::AT_FDCWD, path), || real!(symlink)(target, path))
    }
}

hook! {
    unsafe fn symlinkat(target: *const c_char, directory: c_int, path: *const c_char) -> c_int => nm_symlinkat {
        finish(path::make_symlink(target, directory, path), || real!(symlinkat)(target, directory, path))
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
    unsafe fn linkat(from_directory: c_int, from: *const c_char, to_directory: c_int, to: *const c_char, flags: c_int) -> c_int => nm_linkat {
        finish(path::link((from_directory, from), (to_directory, to), flags), || real!(linkat)(from_directory, from, to_directory, to, flags))
    }
}

hook! {
    unsafe fn mknod(path: *const c_char, mode: mode_t, device: libc::dev_t) -> c_int => nm_mknod {
        finish(path::make_node(libc::AT_FDCWD, path, mode), || real!(mknod)(path, mode, device))
    }
}

hook! {
    unsafe fn mknodat(directory: c_int, path: *const c_char, mode: mode_t, device: libc::dev_t) -> c_int => nm_mknodat {
        finish(path::make_node(directory, path, mode), || real!(mknodat)(directory, path, mode, device))
    }
}

hook! {
    unsafe fn __xmknod(version: c_int, path: *const c_char, mode: mode_t, device: *mut libc::dev_t) -> c_int => nm___xmknod {
        finish(path::make_node(libc::AT_FDCWD, path, mode), || real!(__xmknod)(version, path, mode, device))
    }
}

hook! {
    unsafe fn __xmknodat(version: c_int, directory: c_int, path: *const c_char, mode: mode_t, device: *mut libc::dev_t) -> c_int => nm___xmknodat {
        finish(path::make_node(directory, path, mode), || real!(__xmknodat)(version, directory, path, mode, device))
    }
}

hook! {
    unsafe fn mkfifo(path: *const c_char, mode: mode_t) -> c_int => nm_mkfifo {
        finish(path::make_node(libc::AT_FDCWD, path, mode & 0o7777 | libc::S_IFIFO), || real!(mkfifo)(path, mode))
    }
}

hook! {
    unsafe fn mkfifoat(directory: c_int, path: *const c_char, mode: mode_t) -> c_int => nm_mkfifoat {
        finish(path::make_node(directory, path, mode & 0o7777 | libc::S_IFIFO), || real!(mkfifoat)(directory, path, mode))
    }
}
