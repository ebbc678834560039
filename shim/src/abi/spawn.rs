//! posix_spawn: its child runs in our memory with no handlers, and its inner calls do not come through us.
//!
//! Owns: which file actions open regions. Called by: exports. Must not: look into libc's own structures.
//!
//! An action that opens a region names the local file instead; the region itself is opened here, in the parent, with the flags
//! that were asked for, when the child is made, so that it is there, emptied or refused before the child looks.

use core::ffi::{c_char, c_int, c_void};
use std::ffi::CString;

use super::exec::{self, Program, Strings};
use super::follow::{self, Last, Where};
use super::outcome::{Exit, NOT_OURS, Outcome};
use super::process::in_shared_memory_child;
use super::{buffers, links, path, signal};
use crate::host::paths::Name;
use crate::host::{names, runtime, runtime_if_started};
use crate::sync::QuietMutex;
use crate::sys::app::Span;
use crate::sys::errno::Errno;

/// glibc's sizes of posix_spawn_file_actions_t and posix_spawnattr_t.
const ACTIONS_BYTES: usize = 80;
const ATTRIBUTES_BYTES: usize = 336;

/// An action that opens a region.
#[derive(Clone)]
struct Open {
    /// The posix_spawn_file_actions_t that holds it.
    actions: usize,
    name: Name,
    flags: c_int,
    mode: u32,
}

/// A leaf, taken for a copy; fork takes it.
static OPENS: QuietMutex<Vec<Open>> = QuietMutex::new(Vec::new());

/// Around a fork.
pub fn lock_across_fork() {
    let _: crate::sync::Kept = OPENS.lock_keeping_mask();
}

/// Gives it back, in the parent and in the child.
pub fn unlock_after_fork() {
    OPENS.unlock_kept();
}

/// What a local open in the child must not do again.
const DONE_HERE: c_int = libc::O_CREAT | libc::O_EXCL | libc::O_TRUNC | libc::O_DIRECT;

/// posix_spawn_file_actions_init and _destroy: whatever was at this address is gone.
pub fn forget(actions: *const c_void) {
    OPENS.lock().retain(|open| open.actions != actions as usize);
}

/// posix_spawn_file_actions_addopen: the local path and flags for the child, if it is a region. What is returned on failure is the
/// error, as the function does.
///
/// # Safety
/// `program_path` is null or a C string.
pub unsafe fn add_open(
    actions: *const c_void,
    program_path: *const c_char,
    flags: c_int,
    mode: u32,
    make: impl FnOnce(*const c_char, c_int) -> c_int,
) -> c_int {
    // SAFETY: the caller's.
    let found = match unsafe { opened_name(program_path, flags) } {
        Ok(found) => found,
        Err(Exit::Pass(_)) => return make(program_path, flags),
        Err(Exit::Fail(errno)) => return errno.0,
    };
    let (local, name) = match found {
        Where::Here(found) => found,
        Where::Elsewhere(path) => return make(path.as_ptr(), flags),
    };
    let result = make(local.as_ptr(), flags & !DONE_HERE);
    if result == 0 {
        OPENS.lock().push(Open { actions: actions as usize, name, flags, mode });
    }
    result
}

/// The local path and the name that an open will make or find, symbolic links followed as far as they are there now.
unsafe fn opened_name(path: *const c_char, flags: c_int) -> Outcome<Where<(CString, Name)>> {
    let last = Last::unless(flags, libc::O_NOFOLLOW);
    let find = |name: &Name| {
        match names::lookup(runtime()?, name) {
            Ok((_, entry)) => last.check(entry.kind)?,
            Err(errno @ Errno(libc::ELOOP)) => return Err(errno.into()),
            // What else is wrong with it is said when it is opened.
            Err(_) => {}
        }
        let local = CString::new(runtime()?.directory.local(&name.0)).map_err(|_| Errno(libc::EINVAL))?;
        Ok((local, name.clone()))
    };
    // SAFETY: the caller's.
    unsafe { follow::at(libc::AT_FDCWD, path, last, find) }
}

/// posix_spawn_file_actions_addchdir_np.
///
/// # Safety
/// `program_path` is null or a C string.
pub unsafe fn add_directory(program_path: *const c_char, make: impl FnOnce(*const c_char) -> c_int) -> c_int {
    // SAFETY: the caller's.
    match unsafe { path::local(libc::AT_FDCWD, program_path, Last::Followed) } {
        Ok(local) => make(local.as_ptr()),
        Err(Exit::Pass(_)) => make(program_path),
        Err(Exit::Fail(errno)) => errno.0,
    }
}

/// The descriptors of regions that the child will open by itself.
fn open_here(actions: *const c_void) -> Outcome<Vec<c_int>> {
    let wanted: Vec<Open> =
        OPENS.lock().iter().filter(|open| open.actions == actions as usize).cloned().collect();
    let mut numbers = Vec::new();
    for open in wanted {
        match links::open_name(&open.name, open.flags | libc::O_CLOEXEC, open.mode) {
            Ok(number) => numbers.push(number),
            Err(exit) => {
                close_all(&numbers);
                return Err(exit);
            }
        }
    }
    Ok(numbers)
}

fn close_all(numbers: &[c_int]) {
    for number in numbers {
        let _ = links::close(*number);
    }
}

/// posix_spawn and posix_spawnp, which return their error.
///
/// # Safety
/// As for the calls.
pub unsafe fn spawn(
    pid: *mut libc::pid_t,
    program: Program,
    (actions, attributes): (*const c_void, *const c_void),
    lists: [Strings; 2],
    make: impl FnOnce(*mut libc::pid_t, *const c_char) -> c_int,
) -> c_int {
    if in_shared_memory_child() || runtime_if_started().is_none() {
        return make(pid, program.argument());
    }
    // SAFETY: the caller's.
    let elsewhere = unsafe { exec::refuse_region(program) };
    if let Err(Exit::Fail(errno)) = elsewhere {
        return errno.0;
    }
    let path = elsewhere.as_ref().map_or(program.argument(), |path| path.as_ptr());
    let opened = if OPENS.lock().is_empty() { Err(NOT_OURS) } else { open_here(actions) };
    if let Err(Exit::Fail(errno)) = opened {
        return errno.0;
    }
    let opened = opened.unwrap_or_default();
    // libc reads all of it with every signal blocked, and so does its child, where nothing can bring a page in.
    // SAFETY: the caller's.
    unsafe { exec::bring_in(program.argument(), lists) };
    for (at, length) in [(actions, ACTIONS_BYTES), (attributes, ATTRIBUTES_BYTES)] {
        let _ = buffers::prepare(Span::new(at, if at.is_null() { 0 } else { length }), false);
    }
    let mut child = 0;
    let result = signal::as_inherited(|| make(&raw mut child, path));
    close_all(&opened);
    if result == 0 && !pid.is_null() {
        // SAFETY: the caller's; here a fault can be served.
        unsafe { pid.write(child) };
    }
    result
}
