//! Calls on paths: names go to the server, then the kernel answers for the local file.
//!
//! Owns: rewriting a path under the prefix. Called by: exports. Must not: answer what the kernel can answer.

use core::ffi::{c_char, c_void};
use std::ffi::CString;

use super::links::name_of;
use super::outcome::{NOT_OURS, Outcome};
use crate::host::names::Opened;
use crate::host::paths::Name;
use crate::host::{cwd, fds, names, paths, runtime, runtime_if_started, times};
use crate::pager::table::Board;
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
pub unsafe fn local_directory(directory: i32, path: *const c_char) -> Outcome<CString> {
    // SAFETY: the caller's.
    let name = unsafe { name_of(directory, path) }.ok_or(NOT_OURS)?;
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
            touch_status(&runtime()?.directory.local(&to.0));
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
pub unsafe fn link(from: Option<(i32, *const c_char)>, to: (i32, *const c_char)) -> Outcome<i32> {
    // SAFETY: the caller's.
    let ours = unsafe {
        name_of(to.0, to.1).is_some()
            || from.is_some_and(|(directory, path)| {
                name_of(directory, path).is_some() || (app::is_empty(path) && fds::is_ours(directory))
            })
    };
    if ours { Err(Errno(libc::EPERM).into()) } else { Err(NOT_OURS) }
}

/// mknod and mkfifo: a regular file is a region; there are no others.
///
/// # Safety
/// `path` is null or a C string.
pub unsafe fn make_node(directory: i32, path: *const c_char, mode: u32) -> Outcome<i32> {
    // SAFETY: the caller's.
    let name = unsafe { name_of(directory, path) }.ok_or(NOT_OURS)?;
    if !matches!(mode & libc::S_IFMT, 0 | libc::S_IFREG) {
        return Err(Errno(libc::EPERM).into());
    }
    if let Opened::Region(_, held, _) = names::open(runtime()?, &name, libc::O_CREAT | libc::O_EXCL, mode)? {
        let handle = held.handle();
        drop(held);
        super::links::settle_if_idle(handle)?;
    }
    Ok(0)
}

/// The name that a descriptor was opened by, or has now. `None` if it is not ours, or has none any more.
fn name_of_descriptor(number: i32) -> Option<Name> {
    if !fds::is_ours(number) && fds::region(number).ok().flatten().is_none() {
        return None;
    }
    let path = crate::sys::proc::descriptor_path(number)?;
    paths::absolute(&path).filter(|_| !path.ends_with(" (deleted)"))
}

/// The times that a utimensat(2) sets: nanoseconds since 1970 for that of the last change, if it is set.
///
/// # Safety
/// `times` is null, or two structures whose second has a number of seconds and one of nanoseconds (or microseconds) as 64-bit words.
pub unsafe fn modified_by(times: *const c_void, per_second: i64) -> Option<u64> {
    if times.is_null() {
        return Some(times::now());
    }
    // SAFETY: the caller's.
    let [seconds, fraction] = unsafe { times.cast::<[i64; 2]>().add(1).read_unaligned() };
    match fraction {
        libc::UTIME_NOW if per_second == 1_000_000_000 => Some(times::now()),
        libc::UTIME_OMIT if per_second == 1_000_000_000 => None,
        // What is out of range the kernel refuses first.
        _ => {
            let fraction = fraction.wrapping_mul(1_000_000_000 / per_second);
            Some(seconds.wrapping_mul(1_000_000_000).wrapping_add(fraction) as u64)
        }
    }
}

/// The same for utime(2), whose second word is a number of seconds.
///
/// # Safety
/// `times` is null, or two 64-bit words.
pub unsafe fn modified_by_seconds(times: *const c_void) -> Option<u64> {
    if times.is_null() {
        return Some(times::now());
    }
    // SAFETY: the caller's.
    let seconds = unsafe { times.cast::<i64>().add(1).read_unaligned() };
    Some(seconds.wrapping_mul(1_000_000_000) as u64)
}

/// The calls that set times by a path. `make` is libc's, on another path.
///
/// # Safety
/// `path` is null or a C string.
pub unsafe fn set_times(
    directory: i32,
    path: *const c_char,
    modified: Option<u64>,
    make: impl FnOnce(*const c_char) -> i32,
) -> Outcome<i32> {
    if path.is_null() {
        return set_times_of(directory, modified, || make(path));
    }
    // SAFETY: the caller's.
    let Some(name) = (unsafe { name_of(directory, path) }) else {
        // SAFETY: the caller's.
        let elsewhere = unsafe { elsewhere(directory, path) }.ok_or(NOT_OURS)?;
        return Ok(make(elsewhere.as_ptr()));
    };
    let (local, _) = names::lookup(runtime()?, &name)?;
    let inode = rustix::fs::lstat(local.as_str())?.st_ino;
    let local = CString::new(local).map_err(|_| Errno(libc::EINVAL))?;
    Ok(names::set_times(runtime()?, Some(&name), inode, modified, || make(local.as_ptr()))?)
}

/// The same by a descriptor.
pub fn set_times_of(number: i32, modified: Option<u64>, make: impl FnOnce() -> i32) -> Outcome<i32> {
    let handle = fds::region(number)?.ok_or(NOT_OURS)?;
    let name = name_of_descriptor(number);
    Ok(names::set_times(runtime()?, name.as_ref(), handle.region.cache.inode, modified, make)?)
}

/// The status of a file of ours has the times that are kept for it.
///
/// # Safety
/// `into` is a struct stat that a call with this result filled.
pub unsafe fn shown_status(result: i32, into: *mut c_void) -> i32 {
    if result == 0
        && let Some(runtime) = runtime_if_started()
    {
        let into = into.cast::<libc::stat>();
        // SAFETY: the caller's.
        unsafe {
            let ours =
                (*into).st_dev == runtime.directory.device && (*into).st_mode & libc::S_IFMT == libc::S_IFREG;
            if ours && let Some(times) = times::of(runtime, (*into).st_ino) {
                ((*into).st_mtime, (*into).st_mtime_nsec) = parts(times.modified);
                ((*into).st_ctime, (*into).st_ctime_nsec) = parts(times.changed);
            }
        }
    }
    result
}

/// The same for statx(2).
///
/// # Safety
/// `into` is a struct statx that a call with this result filled.
pub unsafe fn shown_statx(result: i32, into: *mut c_void) -> i32 {
    if result == 0
        && let Some(runtime) = runtime_if_started()
    {
        let into = into.cast::<libc::statx>();
        // SAFETY: the caller's.
        unsafe {
            let device = rustix::fs::makedev((*into).stx_dev_major, (*into).stx_dev_minor);
            let ours = device == runtime.directory.device
                && u32::from((*into).stx_mode) & libc::S_IFMT == libc::S_IFREG;
            if ours && let Some(times) = times::of(runtime, (*into).stx_ino) {
                for (shown, time) in [
                    (&raw mut (*into).stx_mtime, times.modified),
                    (&raw mut (*into).stx_ctime, times.changed),
                ] {
                    let (seconds, fraction) = parts(time);
                    (*shown).tv_sec = seconds;
                    (*shown).tv_nsec = fraction as u32;
                }
            }
        }
    }
    result
}

/// Seconds, and nanoseconds behind them.
fn parts(time: u64) -> (i64, i64) {
    let time = time as i64;
    (time.div_euclid(1_000_000_000), time.rem_euclid(1_000_000_000))
}

/// fchmod: the kernel changes the local file, and the server is told, if it has a name.
pub fn change_mode_of(number: i32, mode: u32) -> Outcome<i32> {
    if let Some(name) = name_of_descriptor(number) {
        names::change_mode(runtime()?, &name, mode)?;
    }
    changes_status_of(number)
}

/// The status of a local file of ours changes.
fn touch_status(local: &str) {
    if let (Some(runtime), Ok(status)) = (runtime_if_started(), crate::sys::file::status(local)) {
        times::set(runtime, status.st_ino, None);
    }
}

/// fchown and its kin: the kernel changes the status of the local file.
pub fn changes_status_of(number: i32) -> Outcome<i32> {
    if let Some(handle) = fds::region(number)? {
        times::touch_status(handle.region.cache.control());
    }
    Err(NOT_OURS)
}

/// The local path for a call that changes the status of a file.
///
/// # Safety
/// `path` is null or a C string.
pub unsafe fn local_to_change(directory: i32, path: *const c_char) -> Outcome<CString> {
    // SAFETY: the caller's.
    let local = unsafe { local(directory, path) }?;
    touch_status(&local.to_string_lossy());
    Ok(local)
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
    let local = runtime()?.directory.local(&name.0);
    touch_status(&local);
    CString::new(local).map_err(|_| Errno(libc::EINVAL).into())
}

/// truncate(2).
///
/// # Safety
/// `path` is null or a C string.
pub unsafe fn truncate(path: *const c_char, size: i64) -> Outcome<i32> {
    // SAFETY: the caller's.
    let name = unsafe { name_of(libc::AT_FDCWD, path) }.ok_or(NOT_OURS)?;
    let size = u64::try_from(size).map_err(|_| Errno(libc::EINVAL))?;
    let runtime = runtime()?;
    // Without a descriptor: closing one would drop the program's record locks on the file.
    let Opened::Region(local, held, _) = names::open(runtime, &name, libc::O_RDWR, 0)? else {
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
    super::links::settle_if_idle(handle)?;
    Ok(0)
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
