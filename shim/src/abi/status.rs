//! Calls on what a file has besides bytes: permissions, owner, times.
//!
//! Owns: which of them the server keeps, and what a struct stat shows. Called by: exports, walk. Must not: answer what the kernel can
//! answer.

use core::ffi::{c_char, c_void};
use std::ffi::CString;

use netmem_protocol::control::EntryKind;

use super::follow::{self, Last, Where};
use super::outcome::{NOT_OURS, Outcome};
use super::path;
use crate::host::paths::{self, Name};
use crate::host::{fds, names, runtime, runtime_if_started, times};
use crate::pager::table::Board;
use crate::sys::errno::Errno;

/// The name that a descriptor was opened by, or has now. `None` if it is not ours, or has none any more.
pub fn name_of_descriptor(number: i32) -> Option<Name> {
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
    last: Last,
    modified: Option<u64>,
    make: impl FnOnce(*const c_char) -> i32,
) -> Outcome<i32> {
    if path.is_null() {
        return set_times_of(directory, modified, || make(path));
    }
    let found = |name: &Name| {
        let (local, entry) = names::lookup(runtime()?, name)?;
        last.check(entry.kind)?;
        Ok((local, name.clone()))
    };
    // SAFETY: the caller's.
    match unsafe { follow::at(directory, path, last, found) }? {
        Where::Elsewhere(path) => Ok(make(path.as_ptr())),
        Where::Here((local, name)) => {
            let inode = rustix::fs::lstat(local.as_str())?.st_ino;
            let local = CString::new(local).map_err(|_| Errno(libc::EINVAL))?;
            Ok(names::set_times(runtime()?, Some(&name), inode, modified, || make(local.as_ptr()))?)
        }
    }
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
pub fn touch_status(local: &str) {
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
pub unsafe fn local_to_change(directory: i32, path: *const c_char, last: Last) -> Outcome<CString> {
    // SAFETY: the caller's.
    let local = unsafe { path::local(directory, path, last) }?;
    touch_status(&local.to_string_lossy());
    Ok(local)
}

/// chmod: the server keeps the bits, the local file has them too.
///
/// # Safety
/// `path` is null or a C string.
pub unsafe fn change_mode(directory: i32, path: *const c_char, mode: u32, last: Last) -> Outcome<CString> {
    let change = |name: &Name| {
        if last == Last::Itself && names::lookup(runtime()?, name)?.1.kind == EntryKind::Symlink {
            // A link has no mode of its own; the kernel says so.
            return Err(Errno(libc::EOPNOTSUPP).into());
        }
        names::change_mode(runtime()?, name, mode)?;
        let local = runtime()?.directory.local(&name.0);
        touch_status(&local);
        Ok(CString::new(local).map_err(|_| Errno(libc::EINVAL))?)
    };
    // SAFETY: the caller's.
    unsafe { follow::at(directory, path, last, change) }.map(Where::path)
}
