//! Calls on paths: names go to the server, then the kernel answers for the local file.
//!
//! Owns: rewriting a path under the prefix. Called by: exports. Must not: answer what the kernel can answer.

use core::ffi::c_char;
use std::ffi::CString;

use netmem_protocol::TARGET_BYTES_MAX;

use super::follow::{self, Last, Pair, Where};
use super::outcome::{Exit, NOT_OURS, Outcome};
use super::status;
use crate::host::names::Opened;
use crate::host::paths::Name;
use crate::host::{cwd, fds, names, paths, runtime};
use crate::sys::app;
use crate::sys::errno::Errno;
use crate::sys::syscall::call;

/// AT_FDCWD as an argument of a system call.
const AT: usize = libc::AT_FDCWD as isize as usize;

/// The local path for a call that looks a path up. What leads out of the prefix is where it leads.
///
/// # Safety
/// `path` is null or a C string.
pub unsafe fn local(directory: i32, path: *const c_char, last: Last) -> Outcome<CString> {
    let find = |name: &Name| {
        let (local, entry) = names::lookup(runtime()?, name)?;
        last.check(entry.kind)?;
        Ok(CString::new(local).map_err(|_| Errno(libc::EINVAL))?)
    };
    // SAFETY: the caller's.
    unsafe { follow::at(directory, path, last, find) }.map(Where::path)
}

/// The same for a call that reads the directory.
///
/// # Safety
/// `path` is null or a C string.
pub unsafe fn local_directory(directory: i32, path: *const c_char) -> Outcome<CString> {
    let list = |name: &Name| {
        names::list(runtime()?, name)?;
        Ok(CString::new(runtime()?.directory.local(&name.0)).map_err(|_| Errno(libc::EINVAL))?)
    };
    // SAFETY: the caller's.
    unsafe { follow::at(directory, path, Last::Followed, list) }.map(Where::path)
}

/// unlink, rmdir and their kin.
///
/// # Safety
/// `path` is null or a C string.
pub unsafe fn remove(directory: i32, path: *const c_char, is_directory: bool) -> Outcome<i32> {
    let remove = |name: &Name| Ok(names::remove(runtime()?, name, is_directory)?);
    // SAFETY: the caller's.
    match unsafe { follow::at(directory, path, Last::Named, remove) }? {
        Where::Here(()) => Ok(0),
        Where::Elsewhere(path) => {
            let flags = if is_directory { libc::AT_REMOVEDIR } else { 0 } as usize;
            // SAFETY: a C string.
            Ok(unsafe { call(libc::SYS_unlinkat, [AT, path.as_ptr() as usize, flags, 0, 0, 0])? } as i32)
        }
    }
}

/// unlinkat(2).
///
/// # Safety
/// `path` is null or a C string.
pub unsafe fn remove_with(directory: i32, path: *const c_char, flags: i32) -> Outcome<i32> {
    if flags & !libc::AT_REMOVEDIR != 0 {
        // The kernel refuses it, whatever the path.
        return Err(NOT_OURS);
    }
    // SAFETY: the caller's.
    unsafe { remove(directory, path, flags != 0) }
}

/// remove(3).
///
/// # Safety
/// `path` is null or a C string.
pub unsafe fn remove_any(path: *const c_char) -> Outcome<i32> {
    // SAFETY: the caller's.
    unsafe {
        match remove(libc::AT_FDCWD, path, false) {
            Err(Exit::Fail(Errno(libc::EISDIR))) => remove(libc::AT_FDCWD, path, true),
            removed => removed,
        }
    }
}

/// rename and its kin. Between the prefix and elsewhere it is EXDEV, as between file systems.
///
/// # Safety
/// Both paths are null or C strings.
pub unsafe fn rename(from: (i32, *const c_char), to: (i32, *const c_char), flags: u32) -> Outcome<i32> {
    let rename = |from: &Name, to: &Name| {
        names::rename(runtime()?, from, to, flags)?;
        status::touch_status(&runtime()?.directory.local(&to.0));
        Ok(())
    };
    // SAFETY: the caller's.
    match unsafe { follow::pair((from, Last::Named), to, rename) }? {
        Pair::Here(()) => Ok(0),
        Pair::Apart => Err(Errno(libc::EXDEV).into()),
        Pair::Elsewhere(from, to) => {
            let ((from_at, from_path), (to_at, to_path)) = (from.arguments(), to.arguments());
            // SAFETY: C strings, or the program's own arguments.
            Ok(unsafe { call(libc::SYS_renameat2, [from_at, from_path, to_at, to_path, flags as usize, 0])? }
                as i32)
        }
    }
}

/// The name of a descriptor of ours that linkat(2) is given instead of a path: itself, with AT_EMPTY_PATH, or as `/proc/self/fd/N`.
///
/// # Safety
/// `path` is null or a C string.
unsafe fn linked_descriptor((directory, path): (i32, *const c_char), flags: i32) -> Outcome<Option<Name>> {
    // SAFETY: the caller's.
    let number = unsafe {
        if app::is_empty(path) && flags & libc::AT_EMPTY_PATH != 0 {
            Some(directory)
        } else if flags & libc::AT_SYMLINK_FOLLOW != 0 && app::path_starts_with(path, b"/proc/self/fd/") {
            app::path(path).and_then(|path| path["/proc/self/fd/".len()..].parse().ok())
        } else {
            None
        }
    };
    let Some(number) = number.filter(|number| *number >= 0) else { return Ok(None) };
    if fds::region(number)?.is_none() {
        return Ok(None);
    }
    // What has lost its last name gets no other.
    Ok(Some(status::name_of_descriptor(number).ok_or(Errno(libc::ENOENT))?))
}

/// link and its kin.
///
/// # Safety
/// Both paths are null or C strings.
pub unsafe fn link(from: (i32, *const c_char), to: (i32, *const c_char), flags: i32) -> Outcome<i32> {
    if flags & !(libc::AT_SYMLINK_FOLLOW | libc::AT_EMPTY_PATH) != 0 {
        // The kernel refuses it, whatever the paths.
        return Err(NOT_OURS);
    }
    let link = |from: &Name, to: &Name| {
        names::link(runtime()?, from, to, flags & libc::AT_SYMLINK_FOLLOW != 0)?;
        status::touch_status(&runtime()?.directory.local(&to.0));
        Ok(())
    };
    // SAFETY: the caller's.
    if let Some(from) = unsafe { linked_descriptor(from, flags) }? {
        // SAFETY: the caller's.
        return match unsafe { follow::at(to.0, to.1, Last::Named, |to| link(&from, to)) } {
            Ok(Where::Here(())) => Ok(0),
            Ok(Where::Elsewhere(_)) | Err(Exit::Pass(_)) => Err(Errno(libc::EXDEV).into()),
            Err(failed) => Err(failed),
        };
    }
    // SAFETY: the caller's.
    match unsafe { follow::pair((from, Last::only(flags, libc::AT_SYMLINK_FOLLOW)), to, link) }? {
        Pair::Here(()) => Ok(0),
        Pair::Apart => Err(Errno(libc::EXDEV).into()),
        Pair::Elsewhere(from, to) => {
            let ((from_at, from_path), (to_at, to_path)) = (from.arguments(), to.arguments());
            let args = [from_at, from_path, to_at, to_path, flags as usize, 0];
            // SAFETY: C strings, or the program's own arguments.
            Ok(unsafe { call(libc::SYS_linkat, args)? } as i32)
        }
    }
}

/// symlink and symlinkat.
///
/// # Safety
/// Both are null or C strings.
pub unsafe fn make_symlink(target: *const c_char, directory: i32, path: *const c_char) -> Outcome<i32> {
    let make = |name: &Name| {
        super::buffers::path_ready(target);
        // SAFETY: the caller's.
        let target = unsafe { app::bytes(target) }.ok_or(Errno(libc::EFAULT))?;
        match target.len() {
            0 => Err(Errno(libc::ENOENT).into()),
            TARGET_BYTES_MAX.. if target.len() > TARGET_BYTES_MAX => Err(Errno(libc::ENAMETOOLONG).into()),
            _ => Ok(names::make_symlink(runtime()?, name, &target)?),
        }
    };
    // SAFETY: the caller's.
    match unsafe { follow::at(directory, path, Last::Named, make) }? {
        Where::Here(()) => Ok(0),
        Where::Elsewhere(path) => {
            let args = [target as usize, AT, path.as_ptr() as usize, 0, 0, 0];
            // SAFETY: C strings, or the program's own argument.
            Ok(unsafe { call(libc::SYS_symlinkat, args)? } as i32)
        }
    }
}

/// mknod and mkfifo: a regular file is a region; there are no others.
///
/// # Safety
/// `path` is null or a C string.
pub unsafe fn make_node(directory: i32, path: *const c_char, mode: u32) -> Outcome<i32> {
    let make = |name: &Name| {
        if !matches!(mode & libc::S_IFMT, 0 | libc::S_IFREG) {
            return Err(Errno(libc::EPERM).into());
        }
        if let Opened::Region(_, held, _) = names::open(runtime()?, name, libc::O_CREAT | libc::O_EXCL, mode)?
        {
            let handle = held.handle();
            drop(held);
            super::links::settle_if_idle(handle)?;
        }
        Ok(())
    };
    // SAFETY: the caller's.
    match unsafe { follow::at(directory, path, Last::Named, make) }? {
        Where::Here(()) => Ok(0),
        // A device's number is the caller's, and no such node is made by way of here.
        Where::Elsewhere(_) => Err(Errno(libc::EPERM).into()),
    }
}

/// mkdir and mkdirat.
///
/// # Safety
/// `path` is null or a C string.
pub unsafe fn make_directory(directory: i32, path: *const c_char, mode: u32) -> Outcome<i32> {
    let make = |name: &Name| Ok(names::make_directory(runtime()?, name, mode)?);
    // SAFETY: the caller's.
    match unsafe { follow::at(directory, path, Last::Named, make) }? {
        Where::Here(()) => Ok(0),
        Where::Elsewhere(path) => {
            // SAFETY: a C string.
            Ok(unsafe { call(libc::SYS_mkdirat, [AT, path.as_ptr() as usize, mode as usize, 0, 0, 0])? }
                as i32)
        }
    }
}

/// truncate(2).
///
/// # Safety
/// `path` is null or a C string.
pub unsafe fn truncate(path: *const c_char, size: i64) -> Outcome<i32> {
    let cut = |name: &Name| {
        let size = u64::try_from(size).map_err(|_| Errno(libc::EINVAL))?;
        // Without a descriptor: closing one would drop the program's record locks on the file.
        let Opened::Region(local, held, _) = names::open(runtime()?, name, libc::O_RDWR, 0)? else {
            return Err(Errno(libc::EISDIR).into());
        };
        rustix::fs::accessat(
            rustix::fs::CWD,
            local.as_str(),
            rustix::fs::Access::WRITE_OK,
            rustix::fs::AtFlags::EACCESS,
        )?;
        let handle = held.handle();
        handle.truncate(size)?;
        drop(held);
        Ok(super::links::settle_if_idle(handle)?)
    };
    // SAFETY: the caller's.
    match unsafe { follow::at(libc::AT_FDCWD, path, Last::Followed, cut) }? {
        Where::Here(()) => Ok(0),
        Where::Elsewhere(path) => {
            // SAFETY: a C string.
            Ok(unsafe { call(libc::SYS_truncate, [path.as_ptr() as usize, size as usize, 0, 0, 0, 0])? }
                as i32)
        }
    }
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
        (!rest.contains('/')).then(|| Name::plain(format!("shm/{rest}")))
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
    paths::shown(real)
}
