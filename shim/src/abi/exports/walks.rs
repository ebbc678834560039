//! Directories, and what walks through them: listings, the working directory, realpath, nftw, fts, glob.
//!
//! Owns: the names below. Called by: the program. Must not: do more than convert and call an operation.

use super::*;

hook! {
    unsafe fn readlink(path: *const c_char, into: *mut c_char, length: size_t) -> ssize_t => nm_readlink {
        buffers::filled(into, length, |into| with_local(path::local(libc::AT_FDCWD, path, Last::Itself), path, |local| real!(readlink)(local, into, length)))
    }
}

hook! {
    unsafe fn readlinkat(directory: c_int, path: *const c_char, into: *mut c_char, length: size_t) -> ssize_t => nm_readlinkat {
        buffers::filled(into, length, |into| with_local(path::local(directory, path, Last::Itself), path, |local| real!(readlinkat)(directory, local, into, length)))
    }
}

hook! {
    unsafe fn chdir(path: *const c_char) -> c_int => nm_chdir {
        path::moved(with_local(path::local(libc::AT_FDCWD, path, Last::Followed), path, |local| real!(chdir)(local)))
    }
}

hook! {
    unsafe fn fchdir(number: c_int) -> c_int => nm_fchdir {
        path::moved(real!(fchdir)(number))
    }
}

hook! {
    unsafe fn opendir(path: *const c_char) -> *mut c_void => nm_opendir {
        with_local_pointer(path::local_directory(libc::AT_FDCWD, path), path, |local| real!(opendir)(local))
    }
}

hook! {
    unsafe fn scandir(path: *const c_char, names: *mut c_void, filter: *const c_void, compare: *const c_void) -> c_int => nm_scandir {
        with_local(path::local_directory(libc::AT_FDCWD, path), path, |local| real!(scandir)(local, names, filter, compare))
    }
}

hook! {
    unsafe fn scandir64(path: *const c_char, names: *mut c_void, filter: *const c_void, compare: *const c_void) -> c_int => nm_scandir64 {
        with_local(path::local_directory(libc::AT_FDCWD, path), path, |local| real!(scandir64)(local, names, filter, compare))
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
    unsafe fn scandirat(directory: c_int, path: *const c_char, names: *mut c_void, filter: *const c_void, compare: *const c_void) -> c_int => nm_scandirat {
        with_local(path::local_directory(directory, path), path, |local| real!(scandirat)(directory, local, names, filter, compare))
    }
}

hook! {
    unsafe fn scandirat64(directory: c_int, path: *const c_char, names: *mut c_void, filter: *const c_void, compare: *const c_void) -> c_int => nm_scandirat64 {
        with_local(path::local_directory(directory, path), path, |local| real!(scandirat64)(directory, local, names, filter, compare))
    }
}

hook! {
    unsafe fn fdopendir(number: c_int) -> *mut c_void => nm_fdopendir {
        walk::list_again(number);
        real!(fdopendir)(number)
    }
}

hook! {
    unsafe fn rewinddir(stream: *mut libc::DIR) -> () => nm_rewinddir {
        walk::list_again(libc::dirfd(stream));
        real!(rewinddir)(stream)
    }
}

hook! {
    unsafe fn __getcwd_chk(into: *mut c_char, length: size_t, room: size_t) -> *mut c_char => nm___getcwd_chk {
        show_path(real!(__getcwd_chk)(into, length, room))
    }
}

hook! {
    unsafe fn getwd(into: *mut c_char) -> *mut c_char => nm_getwd {
        show_path(real!(getwd)(into))
    }
}

hook! {
    unsafe fn __getwd_chk(into: *mut c_char, room: size_t) -> *mut c_char => nm___getwd_chk {
        show_path(real!(__getwd_chk)(into, room))
    }
}

hook! {
    unsafe fn realpath(path: *const c_char, into: *mut c_char) -> *mut c_char => nm_realpath {
        pointer_of(walk::resolved(walk::real(path), into, |path| real!(realpath)(path, into)), || real!(realpath)(path, into))
    }
}

hook! {
    unsafe fn __realpath_chk(path: *const c_char, into: *mut c_char, room: size_t) -> *mut c_char => nm___realpath_chk {
        pointer_of(walk::resolved(walk::real(path), into, |path| real!(__realpath_chk)(path, into, room)), || real!(__realpath_chk)(path, into, room))
    }
}

hook! {
    unsafe fn canonicalize_file_name(path: *const c_char) -> *mut c_char => nm_canonicalize_file_name {
        nm_realpath(path, core::ptr::null_mut())
    }
}

hook! {
    unsafe fn __readlink_chk(path: *const c_char, into: *mut c_char, length: size_t, room: size_t) -> ssize_t => nm___readlink_chk {
        with_local(path::local(libc::AT_FDCWD, path, Last::Itself), path, |local| real!(__readlink_chk)(local, into, length, room))
    }
}

hook! {
    unsafe fn __readlinkat_chk(directory: c_int, path: *const c_char, into: *mut c_char, length: size_t, room: size_t) -> ssize_t => nm___readlinkat_chk {
        with_local(path::local(directory, path, Last::Itself), path, |local| real!(__readlinkat_chk)(directory, local, into, length, room))
    }
}

hook! {
    unsafe fn nftw(path: *const c_char, visit: *const c_void, open: c_int, flags: c_int) -> c_int => nm_nftw {
        walked(walk::local_tree(path, Last::unless(flags, walk::FTW_PHYS)), path, (visit, true), |local, visit| real!(nftw)(local, visit, open, flags))
    }
}

hook! {
    unsafe fn nftw64(path: *const c_char, visit: *const c_void, open: c_int, flags: c_int) -> c_int => nm_nftw64 {
        walked(walk::local_tree(path, Last::unless(flags, walk::FTW_PHYS)), path, (visit, true), |local, visit| real!(nftw64)(local, visit, open, flags))
    }
}

hook! {
    unsafe fn ftw(path: *const c_char, visit: *const c_void, open: c_int) -> c_int => nm_ftw {
        walked(walk::local_tree(path, Last::Followed), path, (visit, false), |local, visit| real!(ftw)(local, visit, open))
    }
}

hook! {
    unsafe fn ftw64(path: *const c_char, visit: *const c_void, open: c_int) -> c_int => nm_ftw64 {
        walked(walk::local_tree(path, Last::Followed), path, (visit, false), |local, visit| real!(ftw64)(local, visit, open))
    }
}

hook! {
    unsafe fn fts_open(paths: *const *const c_char, options: c_int, compare: *const c_void) -> *mut c_void => nm_fts_open {
        with_trees(trees::local(paths, options), paths, |paths| real!(fts_open)(paths, options, compare))
    }
}

hook! {
    unsafe fn fts64_open(paths: *const *const c_char, options: c_int, compare: *const c_void) -> *mut c_void => nm_fts64_open {
        with_trees(trees::local(paths, options), paths, |paths| real!(fts64_open)(paths, options, compare))
    }
}

hook! {
    unsafe fn fts_read(stream: *mut c_void) -> *mut trees::Entry => nm_fts_read {
        trees::call(stream, || real!(fts_read)(stream), |entry| Some(*entry))
    }
}

hook! {
    unsafe fn fts_children(stream: *mut c_void, options: c_int) -> *mut trees::Entry => nm_fts_children {
        trees::call(stream, || real!(fts_children)(stream, options), |_| None)
    }
}

hook! {
    unsafe fn fts_close(stream: *mut c_void) -> c_int => nm_fts_close {
        trees::end(stream, || real!(fts_close)(stream))
    }
}

hook! {
    unsafe fn fts64_read(stream: *mut c_void) -> *mut trees::Entry => nm_fts64_read {
        trees::call(stream, || real!(fts64_read)(stream), |entry| Some(*entry))
    }
}

hook! {
    unsafe fn fts64_children(stream: *mut c_void, options: c_int) -> *mut trees::Entry => nm_fts64_children {
        trees::call(stream, || real!(fts64_children)(stream, options), |_| None)
    }
}

hook! {
    unsafe fn fts64_close(stream: *mut c_void) -> c_int => nm_fts64_close {
        trees::end(stream, || real!(fts64_close)(stream))
    }
}

hook! {
    unsafe fn glob(pattern: *const c_char, flags: c_int, failed: *const c_void, into: *mut walk::Glob) -> c_int => nm_glob {
        globbed(pattern, flags, into, |flags| real!(glob)(pattern, flags, failed, into))
    }
}

hook! {
    unsafe fn glob64(pattern: *const c_char, flags: c_int, failed: *const c_void, into: *mut walk::Glob) -> c_int => nm_glob64 {
        globbed(pattern, flags, into, |flags| real!(glob64)(pattern, flags, failed, into))
    }
}

/// A walk of a tree that may be ours.
unsafe fn walked(
    local: Outcome<CString>,
    given: *const c_char,
    visit: (*const c_void, bool),
    make: impl FnOnce(*const c_char, *const c_void) -> c_int,
) -> c_int {
    match local {
        Ok(local) => walk::walk((&local, given), visit, make),
        Err(Exit::Pass(_)) => make(given, visit.0),
        Err(Exit::Fail(failed)) => {
            errno::set(failed);
            -1
        }
    }
}

/// A walk of several trees.
unsafe fn with_trees(
    local: Outcome<(Vec<trees::Tree>, Vec<*const c_char>)>,
    given: *const *const c_char,
    make: impl FnOnce(*const *const c_char) -> *mut c_void,
) -> *mut c_void {
    match local {
        Ok((local, paths)) => trees::began(make(paths.as_ptr()), local),
        Err(_) => make(given),
    }
}

/// glob(3), through our eyes where the pattern may be ours.
unsafe fn globbed(
    pattern: *const c_char,
    flags: c_int,
    into: *mut walk::Glob,
    make: impl FnOnce(c_int) -> c_int,
) -> c_int {
    if into.is_null() || !walk::is_pattern_of_ours(pattern, flags) {
        return make(flags);
    }
    (*into).close_directory = libc::closedir as *const c_void;
    (*into).read_directory = libc::readdir as *const c_void;
    (*into).open_directory = nm_opendir as *const c_void;
    (*into).link_status = super::attributes::nm_lstat as *const c_void;
    (*into).status = super::attributes::nm_stat as *const c_void;
    make(flags | libc::GLOB_ALTDIRFUNC)
}
