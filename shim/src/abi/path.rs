//! Calls on paths: names go to the server, then the kernel answers for the local file.
//!
//! Owns: rewriting a path under the prefix. Called by: exports. Must not: answer what the kernel can answer.

use core::ffi::c_char;
use std::ffi::CString;

use super::links::name_of;
use super::outcome::{NOT_OURS, Outcome};
use crate::host::paths::Name;
use crate::host::{cwd, names, paths, runtime, runtime_if_started};
use crate::sys::app;
use crate::sys::errno::Errno;
use crate::sys::syscall::call;

/// AT_FDCWD as an argument of a system call.
const AT: usize = libc::AT_FDCWD as isize as usize;

/// Where a path leads that climbs out of the prefix (`/netmem/..`, or `../..` in a working directory of ours): the prefix need not
/// be there for the kernel, and a directory of ours is somewhere else for it.
///
/// # Safety
/// `path` is null or a C string.
pub unsafe fn elsewhere(directory: i32, path: *const c_char) -> Option<CString> {
    if path.is_null() || super::process::disabled() {
        return None;
    }
    // SAFETY: the caller's.
    unsafe {
        let prefix = crate::host::config().prefix_directory().as_bytes();
        let absolute = app::path_starts_with(path, b"/");
        let could_be =
            if absolute { app::path_starts_with(path, prefix) } else { cwd::may_be_ours(directory) };
        if !could_be {
            return None;
        }
        CString::new(paths::outside(directory, &app::path(path)?)?).ok()
    }
}

/// A call on a path that climbs out, made with where it leads; NOT_OURS if it does not.
///
/// # Safety
/// `path` is null or a C string.
unsafe fn made_elsewhere(
    directory: i32,
    path: *const c_char,
    make: impl FnOnce(usize) -> Result<usize, Errno>,
) -> Outcome<i32> {
    // SAFETY: the caller's.
    let elsewhere = unsafe { elsewhere(directory, path) }.ok_or(NOT_OURS)?;
    Ok(make(elsewhere.as_ptr() as usize)? as i32)
}

/// The local path for a call that looks a path up.
///
/// # Safety
/// `path` is null or a C string.
pub unsafe fn local(directory: i32, path: *const c_char) -> Outcome<CString> {
    // SAFETY: the caller's.
    let Some(name) = (unsafe { name_of(directory, path) }) else {
        // SAFETY: the caller's.
        return unsafe { elsewhere(directory, path) }.ok_or(NOT_OURS);
    };
    let (local, _) = names::lookup(runtime()?, &name)?;
    CString::new(local).map_err(|_| Errno(libc::EINVAL).into())
}

/// The same for a call that reads the directory.
///
/// # Safety
/// `path` is null or a C string.
pub unsafe fn local_directory(path: *const c_char) -> Outcome<CString> {
    // SAFETY: the caller's.
    let name = unsafe { name_of(libc::AT_FDCWD, path) }.ok_or(NOT_OURS)?;
    names::list(runtime()?, &name)?;
    CString::new(runtime()?.directory.local(&name.0)).map_err(|_| Errno(libc::EINVAL).into())
}

/// unlink, rmdir and their kin.
///
/// # Safety
/// `path` is null or a C string.
pub unsafe fn remove(directory: i32, path: *const c_char, is_directory: bool) -> Outcome<i32> {
    // SAFETY: the caller's.
    let Some(name) = (unsafe { name_of(directory, path) }) else {
        let flags = if is_directory { libc::AT_REMOVEDIR } else { 0 } as usize;
        // SAFETY: the caller's, and what it gives is a C string.
        return unsafe {
            made_elsewhere(directory, path, |path| call(libc::SYS_unlinkat, [AT, path, flags, 0, 0, 0]))
        };
    };
    names::remove(runtime()?, &name, is_directory)?;
    Ok(0)
}

/// remove(3).
///
/// # Safety
/// `path` is null or a C string.
pub unsafe fn remove_any(path: *const c_char) -> Outcome<i32> {
    // SAFETY: the caller's.
    let name = unsafe { name_of(libc::AT_FDCWD, path) }.ok_or(NOT_OURS)?;
    match names::remove(runtime()?, &name, false) {
        Err(Errno(libc::EISDIR)) => names::remove(runtime()?, &name, true)?,
        result => result?,
    }
    Ok(0)
}

/// rename and its kin. Between the prefix and elsewhere it is EXDEV, as between file systems.
///
/// # Safety
/// Both paths are null or C strings.
pub unsafe fn rename(from: (i32, *const c_char), to: (i32, *const c_char), flags: u32) -> Outcome<i32> {
    // SAFETY: the caller's.
    match unsafe { (name_of(from.0, from.1), name_of(to.0, to.1)) } {
        // SAFETY: the caller's.
        (None, None) => unsafe { rename_elsewhere(from, to, flags) },
        (Some(from), Some(to)) => {
            names::rename(runtime()?, &from, &to, flags)?;
            Ok(0)
        }
        (Some(_), None) | (None, Some(_)) => Err(Errno(libc::EXDEV).into()),
    }
}

/// A rename between two paths that are not ours, one of which climbs out of the prefix.
///
/// # Safety
/// Both paths are null or C strings.
unsafe fn rename_elsewhere(from: (i32, *const c_char), to: (i32, *const c_char), flags: u32) -> Outcome<i32> {
    // SAFETY: the caller's.
    let (first, second) = unsafe { (elsewhere(from.0, from.1), elsewhere(to.0, to.1)) };
    if first.is_none() && second.is_none() {
        return Err(NOT_OURS);
    }
    let end = |elsewhere: &Option<CString>, given: (i32, *const c_char)| match elsewhere {
        Some(path) => (AT, path.as_ptr() as usize),
        None => (given.0 as isize as usize, given.1 as usize),
    };
    let (from, to) = (end(&first, from), end(&second, to));
    // SAFETY: C strings, or the program's own arguments.
    Ok(unsafe { call(libc::SYS_renameat2, [from.0, from.1, to.0, to.1, flags as usize, 0])? } as i32)
}

/// link and symlink: regions have one name and no links point to them.
///
/// # Safety
/// Both paths are null or C strings.
pub unsafe fn link(from: Option<*const c_char>, to: (i32, *const c_char)) -> Outcome<i32> {
    // SAFETY: the caller's.
    let ours = unsafe {
        name_of(to.0, to.1).is_some() || from.is_some_and(|from| name_of(libc::AT_FDCWD, from).is_some())
    };
    if ours { Err(Errno(libc::EPERM).into()) } else { Err(NOT_OURS) }
}

/// mkdir and mkdirat.
///
/// # Safety
/// `path` is null or a C string.
pub unsafe fn make_directory(directory: i32, path: *const c_char, mode: u32) -> Outcome<i32> {
    // SAFETY: the caller's.
    let Some(name) = (unsafe { name_of(directory, path) }) else {
        // SAFETY: the caller's, and what it gives is a C string.
        return unsafe {
            made_elsewhere(directory, path, |path| {
                call(libc::SYS_mkdirat, [AT, path, mode as usize, 0, 0, 0])
            })
        };
    };
    names::make_directory(runtime()?, &name, mode)?;
    Ok(0)
}

/// chmod: the server keeps the bits, the local file has them too.
///
/// # Safety
/// `path` is null or a C string.
pub unsafe fn change_mode(directory: i32, path: *const c_char, mode: u32) -> Outcome<CString> {
    // SAFETY: the caller's.
    let name = unsafe { name_of(directory, path) }.ok_or(NOT_OURS)?;
    names::change_mode(runtime()?, &name, mode)?;
    CString::new(runtime()?.directory.local(&name.0)).map_err(|_| Errno(libc::EINVAL).into())
}

/// truncate(2).
///
/// # Safety
/// `path` is null or a C string.
pub unsafe fn truncate(path: *const c_char, size: i64) -> Outcome<i32> {
    // SAFETY: the caller's.
    let name = unsafe { name_of(libc::AT_FDCWD, path) }.ok_or(NOT_OURS)?;
    let size = u64::try_from(size).map_err(|_| Errno(libc::EINVAL))?;
    let number = super::links::open_name(&name, libc::O_WRONLY | libc::O_CLOEXEC, 0)?;
    let result = match crate::host::fds::region(number)? {
        Some(handle) => handle.truncate(size).map_err(Into::into).map(|()| 0),
        None => Err(Errno(libc::EISDIR).into()),
    };
    let closed = super::links::close(number);
    result.and_then(|value: i32| closed.map(|_| value))
}

/// shm_open(3): names that start with `/netmem.` are regions below `shm/`.
///
/// # Safety
/// `name` is null or a C string.
pub unsafe fn shared_memory_name(name: *const c_char) -> Option<Name> {
    if super::process::disabled() {
        return None;
    }
    // SAFETY: the caller's.
    unsafe {
        if !app::path_starts_with(name, b"/netmem.") {
            return None;
        }
        let rest = app::path(name)?.strip_prefix("/netmem.")?.to_owned();
        (!rest.contains('/')).then(|| Name(format!("shm/{rest}")))
    }
}

/// shm_open(3).
///
/// # Safety
/// `name` is null or a C string.
pub unsafe fn open_shared_memory(name: *const c_char, flags: i32, mode: u32) -> Outcome<i32> {
    // SAFETY: the caller's.
    let name = unsafe { shared_memory_name(name) }.ok_or(NOT_OURS)?;
    if flags & libc::O_CREAT != 0 {
        names::make_parents(runtime()?, &name);
    }
    super::links::open_name(&name, flags | libc::O_CLOEXEC | libc::O_NOFOLLOW, mode)
}

/// shm_unlink(3).
///
/// # Safety
/// `name` is null or a C string.
pub unsafe fn unlink_shared_memory(name: *const c_char) -> Outcome<i32> {
    // SAFETY: the caller's.
    let name = unsafe { shared_memory_name(name) }.ok_or(NOT_OURS)?;
    names::remove(runtime()?, &name, false)?;
    Ok(0)
}

/// The working directory has changed.
pub fn moved(result: i32) -> i32 {
    if result == 0 {
        cwd::changed();
    }
    result
}

/// What getcwd is to show instead of the page cache's tree.
pub fn shown(real: &str) -> Option<String> {
    runtime_if_started()?;
    paths::shown(real)
}
