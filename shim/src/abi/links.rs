//! The descriptors of the program: opening, closing, duplicating.
//!
//! Owns: what a close commits, and keeping the program's hands off our own descriptors. Called by: exports. Must not: edit the
//! parent's table in a vfork child.

use core::ffi::c_char;
use core::sync::atomic::Ordering;

use super::follow::{self, Last, Where};
use super::outcome::{NOT_OURS, Outcome};
use super::process::{disabled, in_shared_memory_child};
use crate::host::fds::{self, Descriptor};
use crate::host::names::{self, Opened};
use crate::host::paths::{self, Name};
use crate::host::{Handle, attach, runtime, runtime_if_started};
use crate::host::{cwd, directory};
use crate::log;
use crate::pager::commit::CommitOptions;
use crate::sys::errno::Errno;
use crate::sys::syscall::call;
use crate::sys::{app, fd, file};

/// The name of a path argument, if it is ours. Cheap for what is not: the first bytes, and the working directory once.
///
/// # Safety
/// `path` is null or a C string.
pub unsafe fn name_of(directory: i32, path: *const c_char) -> Option<Name> {
    if path.is_null() || disabled() {
        return None;
    }
    super::buffers::path_ready(path);
    let config = crate::host::config();
    // SAFETY: the caller's.
    unsafe {
        let absolute = app::path_starts_with(path, b"/");
        let prefixed = absolute && app::path_starts_with(path, config.prefix_directory().as_bytes());
        let could_be = if absolute {
            // Also by what getcwd or /proc/self/fd said of it, to this program or to one that started it.
            let in_tree = || match runtime_if_started() {
                Some(runtime) => app::path_starts_with(path, runtime.directory.tree.as_bytes()),
                None => {
                    app::path_starts_with(path, directory::root_path_once().as_bytes())
                        && app::path(path).is_some_and(|path| cwd::inside(&path).is_some())
                }
            };
            prefixed || !config.paths.is_empty() || in_tree()
        } else {
            cwd::may_be_ours(directory) || paths::may_enter(path)
        };
        if !could_be {
            return None;
        }
        paths::resolve(directory, &app::path(path)?)
    }
}

/// open(2) and openat(2).
///
/// # Safety
/// `path` is null or a C string.
pub unsafe fn open(directory: i32, path: *const c_char, flags: i32, mode: u32) -> Outcome<i32> {
    // The argument is only there when the call makes a file; otherwise it is whatever the register held.
    let makes = flags & libc::O_CREAT != 0 || flags & libc::O_TMPFILE == libc::O_TMPFILE;
    let mode = if makes { mode } else { 0 };
    let last = match flags & (libc::O_CREAT | libc::O_EXCL) {
        // A link that is there is what is there.
        flags if flags == libc::O_CREAT | libc::O_EXCL => Last::Itself,
        _ => Last::unless(flags, libc::O_NOFOLLOW),
    };
    // SAFETY: the caller's.
    let from_glob = || unsafe { app::path(path) }.is_some_and(|path| paths::is_from_glob(&path));
    let open = |name: &Name| {
        if flags & libc::O_CREAT != 0 && from_glob() {
            names::make_parents(runtime()?, name);
        }
        open_name(name, flags, mode)
    };
    // SAFETY: the caller's.
    match unsafe { follow::at(directory, path, last, open) }? {
        Where::Here(number) => Ok(number),
        Where::Elsewhere(elsewhere) => {
            let at = libc::AT_FDCWD as isize as usize;
            let args = [at, elsewhere.as_ptr() as usize, flags as usize, mode as usize, 0, 0];
            // SAFETY: the path is a C string.
            let number = unsafe { call(libc::SYS_openat, args)? } as i32;
            // SAFETY: the same.
            Ok(unsafe { foreign(elsewhere.as_ptr(), number) })
        }
    }
}

/// openat2(2) with restrictions: a link on the way is ELOOP.
///
/// # Safety
/// `path` is null or a C string.
pub unsafe fn open_unfollowed(directory: i32, path: *const c_char, flags: i32, mode: u32) -> Outcome<i32> {
    // SAFETY: the caller's.
    let name = unsafe { name_of(directory, path) }.ok_or(NOT_OURS)?;
    open_name(&name, flags, mode)
}

/// Opens a name under the prefix and gives the program a descriptor of its cache file.
pub fn open_name(name: &Name, flags: i32, mode: u32) -> Outcome<i32> {
    let runtime = runtime()?;
    if flags & libc::O_TMPFILE == libc::O_TMPFILE {
        return Err(Errno(libc::EOPNOTSUPP).into());
    }
    match names::open(runtime, name, flags, mode)? {
        Opened::Directory(local) => {
            let number = open_local(&local, flags & !libc::O_CREAT)?;
            fds::set(number, Descriptor::Directory);
            Ok(number)
        }
        // What can be done with such a descriptor the kernel does for the local link.
        Opened::Link(local) => Ok(open_local(&local, flags)?),
        Opened::Region(local, handle, created) => {
            // The very file that we attached to, whatever has its name by now; its mode is checked all the same.
            let here = format!("/proc/self/fd/{}", handle.region.cache.fd().raw());
            let flags_here =
                flags & !(libc::O_CREAT | libc::O_EXCL | libc::O_TRUNC | libc::O_DIRECT | libc::O_NOFOLLOW);
            let number = match open_local(&here, flags_here) {
                // Whoever makes a file may open it in any way, whatever mode it gave it.
                Err(Errno(libc::EACCES)) if created => {
                    file::with_access(&here, || open_local(&here, flags_here))?
                }
                // Where there is no /proc.
                Err(Errno(libc::ENOENT)) => open_local(&local, flags_here)?,
                opened => opened?,
            };
            fds::set(number, Descriptor::Region(handle.handle()));
            if flags & libc::O_TRUNC != 0
                && flags & libc::O_ACCMODE != libc::O_RDONLY
                && let Err(errno) = handle.handle().truncate(0)
            {
                let _ = close(number);
                return Err(errno.into());
            }
            if let Err(errno) = fill_standard_stream(number) {
                let _ = close(number);
                return Err(errno.into());
            }
            log::debug!("open {}: descriptor {number}", handle.name);
            Ok(number)
        }
    }
}

fn open_local(local: &str, flags: i32) -> Result<i32, Errno> {
    let path = std::ffi::CString::new(local).map_err(|_| Errno(libc::EINVAL))?;
    let at = libc::AT_FDCWD as isize as usize;
    // SAFETY: the path is a C string.
    let number = unsafe { call(libc::SYS_openat, [at, path.as_ptr() as usize, flags as usize, 0, 0, 0])? };
    fds::forget(number as i32);
    Ok(number as i32)
}

/// A descriptor that a call not ours returned: whatever had the number before is gone.
///
/// # Safety
/// `path` is null or a C string.
pub unsafe fn foreign(path: *const c_char, number: i32) -> i32 {
    if number >= 0 && !in_shared_memory_child_quick(number) {
        // `/dev/stdin` and `/proc/self/fd/3` are other names of what may be one of ours; that is found out at the first use.
        let alias =
            // SAFETY: the caller's.
            unsafe { app::path_starts_with(path, b"/proc/") || app::path_starts_with(path, b"/dev/") };
        if alias {
            fds::forget(number);
        } else {
            fds::set(number, Descriptor::Foreign);
        }
    }
    number
}

/// Descriptors that came in a message (SCM_RIGHTS) may be anything, ours too.
///
/// # Safety
/// `message` is what recvmsg(2) just filled, if `result` is not negative.
pub unsafe fn received(message: *const libc::msghdr, result: isize) -> isize {
    if result < 0 {
        return result;
    }
    // SAFETY: the caller's; the macros walk what the kernel wrote.
    unsafe {
        let mut at = libc::CMSG_FIRSTHDR(message);
        while let Some(header) = at.as_ref() {
            if header.cmsg_level == libc::SOL_SOCKET && header.cmsg_type == libc::SCM_RIGHTS {
                let data = libc::CMSG_DATA(at) as *const i32;
                let bytes = header.cmsg_len.saturating_sub(libc::CMSG_LEN(0) as usize);
                for i in 0..bytes / size_of::<i32>() {
                    fds::forget(data.add(i).read_unaligned());
                }
            }
            at = libc::CMSG_NXTHDR(message, at);
        }
    }
    result
}

/// Whether noting anything about a descriptor would edit the parent's table. Asked only where the table would change.
fn in_shared_memory_child_quick(number: i32) -> bool {
    fds::is_ours(number) && in_shared_memory_child()
}

/// The descriptor of a region is about to be closed while others stay: the record locks of the process on it go with any close,
/// and what was stored under them is committed before others can have them.
fn commit_if_locked(number: i32) -> Result<(), Errno> {
    match fds::known_region(number) {
        Some(handle) if handle.record_locks.swap(false, Ordering::SeqCst) => {
            handle.commit(CommitOptions::default()).map(drop)
        }
        _ => Ok(()),
    }
}

/// Whatever used a region without a descriptor is done: if nothing else shows it, this was the last close.
pub fn settle_if_idle(handle: &'static Handle) -> Result<(), Errno> {
    let Some(runtime) = runtime_if_started() else { return Ok(()) };
    if handle.is_idle(&runtime.mappings.write()) {
        handle.commit(CommitOptions::default())?;
        attach::release_if_idle(runtime, handle);
    }
    Ok(())
}

/// libc is about to close a descriptor by an inner call.
pub fn before_inner_close(number: i32) {
    if fds::known_region(number).is_some() && !in_shared_memory_child() {
        let _ = commit_if_locked(number);
        let _ = commit_if_last(number);
    }
    fds::forget(number);
}

/// A standard stream lies on a file of ours from now on: libc's inner reads must not meet holes that are absent pages.
fn fill_standard_stream(number: i32) -> Result<(), Errno> {
    match fds::known_region(number) {
        Some(handle) if (0..=2).contains(&number) => super::file::fill_for_inner_calls(handle, number),
        _ => Ok(()),
    }
}

fn commit_if_last(number: i32) -> Result<(), Errno> {
    match fds::last_of(number) {
        Some(handle) => handle.commit(CommitOptions::default()).map(drop),
        None => Ok(()),
    }
}

/// close(2). The descriptor is gone even if the commit fails, as for NFS.
pub fn close(number: i32) -> Outcome<i32> {
    if fd::is_internal(number) {
        return Err(Errno(libc::EBADF).into());
    }
    if runtime_if_started().is_none() || !fds::is_ours(number) {
        fds::forget_quick(number);
        return Err(NOT_OURS);
    }
    if in_shared_memory_child() {
        return Err(NOT_OURS);
    }
    let unlocked = commit_if_locked(number);
    // Forgotten first: of two threads that close the last two, one is the last.
    let last = fds::forget(number);
    let committed =
        last.map_or(Ok(()), |handle| handle.commit(CommitOptions::default()).map(drop)).and(unlocked);
    // SAFETY: the program's own descriptor.
    unsafe { call(libc::SYS_close, [number as usize, 0, 0, 0, 0, 0])? };
    committed?;
    if let (Some(handle), Some(runtime)) = (last, runtime_if_started()) {
        attach::release_if_idle(runtime, handle);
    }
    Ok(0)
}

/// close_range(2): our own descriptors stay.
pub fn close_range(first: u32, last: u32, flags: u32) -> Outcome<i32> {
    if flags & libc::CLOSE_RANGE_CLOEXEC != 0 {
        return Err(NOT_OURS);
    }
    fds::forget_foreign_between(first, last);
    if runtime_if_started().is_none() {
        return Err(NOT_OURS);
    }
    if first > last {
        return Err(Errno(libc::EINVAL).into());
    }
    if !in_shared_memory_child() {
        for number in fds::ours_between(first, last) {
            let _ = commit_if_locked(number);
            let _ = commit_if_last(number);
            fds::forget(number);
        }
    }
    let mut from = first;
    for ours in fd::internal_between(first, last) {
        if ours > from {
            close_span(from, ours - 1, flags)?;
        }
        from = ours + 1;
    }
    if from <= last {
        close_span(from, last, flags)?;
    }
    Ok(0)
}

fn close_span(first: u32, last: u32, flags: u32) -> Result<(), Errno> {
    // SAFETY: none of ours is between.
    unsafe { call(libc::SYS_close_range, [first as usize, last as usize, flags as usize, 0, 0, 0]) }.map(drop)
}

/// dup2(2) and dup3(2): what the target was is closed first.
pub fn duplicate_onto(from: i32, to: i32, flags: i32) -> Outcome<i32> {
    if runtime_if_started().is_none() {
        fds::forget_quick(to);
        return Err(NOT_OURS);
    }
    if fd::is_internal(from) || fd::is_internal(to) {
        return Err(Errno(libc::EBADF).into());
    }
    if in_shared_memory_child() {
        return Err(NOT_OURS);
    }
    if from != to {
        if (0..=2).contains(&to)
            && let Some(handle) = fds::region(from)?
        {
            super::file::fill_for_inner_calls(handle, from)?;
        }
        commit_if_locked(to)?;
        commit_if_last(to)?;
    }
    let number =
        // SAFETY: descriptors by value.
        unsafe { call(libc::SYS_dup3, [from as usize, to as usize, flags as usize, 0, 0, 0])? } as i32;
    fds::copied(from, number);
    Ok(number)
}

/// dup(2) and fcntl(F_DUPFD…): the copy is what the original is.
pub fn duplicated(from: i32, number: i32) -> i32 {
    if number >= 0 && !in_shared_memory_child() {
        fds::copied(from, number);
        if let Err(errno) = fill_standard_stream(number) {
            let _ = close(number);
            crate::sys::errno::set(errno);
            return -1;
        }
    }
    number
}
