//! The way into another program: its path, arguments and environment are where the kernel finds them, its signals as they would
//! be without us.
//!
//! Owns: what is done before exec and its kin. Called by: exports, spawn. Must not: touch a byte that may not be there: a
//! pointer that the kernel refuses is its to refuse.

use core::ffi::{c_char, c_int};
use std::ffi::CString;

use super::follow::{self, Last, Where};
use super::outcome::{Exit, NOT_OURS, Outcome};
use super::process::{after_failed_exec, before_exec, in_shared_memory_child};
use super::{buffers, signal};
use crate::engine::delivery;
use crate::host::paths::Name;
use crate::host::{fds, names, runtime};
use crate::sys::app::{self, Span};
use crate::sys::errno::{self, Errno};
use crate::sys::mem::{self, PAGE};

/// Arguments or variables at the most that are looked at; the kernel allows fewer bytes than that.
const STRINGS_MAX: usize = 1 << 20;

/// Strings that a new program gets: null, or an array of C strings that ends with null.
pub type Strings = *const *const c_char;

/// Calls `each` for every word or byte from `at` on, until it says that it was the last, bringing pages in where the kernel could
/// not. What is not mapped ends it.
unsafe fn walk<T: Copy>(at: *const T, mut last: impl FnMut(T) -> bool) {
    let mut at = at as usize;
    let mut known = 0..0;
    loop {
        if !known.contains(&at) {
            let page = at & !(PAGE - 1);
            if buffers::prepare(Span { at: page, length: PAGE }, false).is_err()
                || !mem::is_mapped(page, PAGE)
            {
                return;
            }
            known = page..page + PAGE;
        }
        // SAFETY: its page is there and, if it is ours, open for reading; the caller's type divides a page.
        if last(unsafe { (at as *const T).read_unaligned() }) {
            return;
        }
        at += size_of::<T>();
    }
}

/// Where the kernel can't fault, strings that lie in mappings of ours come in before it reads them.
///
/// # Safety
/// Nothing is asked of the pointers.
pub unsafe fn bring_in(path: *const c_char, lists: [Strings; 2]) {
    if buffers::idle() {
        return;
    }
    // SAFETY: `walk` looks before it reads.
    unsafe {
        if !path.is_null() {
            walk(path, |byte| byte == 0);
        }
        for list in lists.into_iter().filter(|list| !list.is_null()) {
            let mut count = 0;
            walk(list, |string: *const c_char| {
                count += 1;
                if !string.is_null() {
                    walk(string, |byte| byte == 0);
                }
                string.is_null() || count == STRINGS_MAX
            });
        }
    }
}

/// How a program is named.
#[derive(Clone, Copy, Debug)]
pub enum Program {
    /// By a path.
    At(*const c_char),
    /// By a path from a directory on, or by a descriptor and an empty one.
    In(c_int, *const c_char),
    /// By a path, or by a name without a slash, which is looked for in PATH and never in the working directory.
    Searched(*const c_char),
}

impl Program {
    /// The argument as it was given.
    pub fn argument(self) -> *const c_char {
        match self {
            Program::At(path) | Program::Searched(path) | Program::In(_, path) => path,
        }
    }
}

/// A program that is a region: EACCES, as on a file system that is mounted noexec. Its cache file is open for writing, which the
/// kernel refuses for a program (ETXTBSY). A name of ours that leads out of the prefix, as the interpreter of a virtual environment does,
/// is the program there: its path is returned.
///
/// # Safety
/// `program` is null or a C string.
pub unsafe fn refuse_region(program: Program) -> Outcome<CString> {
    let path = program.argument();
    let directory = match program {
        Program::In(number, path) => {
            // SAFETY: the caller's.
            if unsafe { app::is_empty(path) } {
                let region = fds::region(number)?.is_some();
                return Err(if region { Errno(libc::EACCES).into() } else { NOT_OURS });
            }
            number
        }
        Program::At(_) | Program::Searched(_) => libc::AT_FDCWD,
    };
    let searched = matches!(program, Program::Searched(_))
        // SAFETY: the caller's.
        && unsafe { app::path(path) }.is_some_and(|path| !path.contains('/'));
    if searched {
        return Err(NOT_OURS);
    }
    let refuse = |name: &Name| {
        // A vfork child has no connection of its own to ask whether it is there; what its parent knew of a link is here.
        if in_shared_memory_child() {
            return names::known_to_leave(runtime()?, name).ok_or(Errno(libc::EACCES).into());
        }
        let (_, entry) = names::lookup(runtime()?, name)?;
        Last::Followed.check(entry.kind)?;
        Err(Errno(libc::EACCES).into())
    };
    // SAFETY: the caller's.
    unsafe { follow::at(directory, path, Last::Followed, refuse) }.map(Where::path)
}

/// Around exec: what is dirty goes up first; if the exec fails the program goes on.
///
/// # Safety
/// The arguments are those of the call.
pub unsafe fn execute(program: Program, lists: [Strings; 2], make: impl FnOnce(*const c_char) -> i32) -> i32 {
    // SAFETY: the caller's.
    let elsewhere = unsafe {
        bring_in(program.argument(), lists);
        refuse_region(program)
    };
    if let Err(Exit::Fail(errno)) = elsewhere {
        errno::set(errno);
        return -1;
    }
    let path = elsewhere.as_ref().map_or(program.argument(), |path| path.as_ptr());
    before_exec();
    let changed = delivery::show_programs_disposition();
    let result = signal::as_inherited(|| make(path));
    let failed = errno::get();
    if changed {
        delivery::take_back_disposition();
    }
    after_failed_exec();
    errno::set(failed);
    result
}
