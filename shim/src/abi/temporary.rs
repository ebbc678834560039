//! Temporary files and directories: names that libc makes up and opens inside itself.
//!
//! Owns: mkstemp and its kin below the prefix, tmpfile where TMPDIR lies there. Called by: exports. Must not: take a name that
//! is there.

use core::ffi::{CStr, c_char};

use super::follow::{self, Last, Where};
use super::links::{self, name_of};
use super::outcome::{Exit, NOT_OURS, Outcome};
use crate::host::paths::Name;
use crate::host::{names, runtime};
use crate::sys::errno::Errno;

/// Names tried at the most, as libc does.
const TRIES: u32 = 62 * 62 * 62;
const LETTERS: &[u8; 62] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";

/// Fills in the template's six Xs before a suffix until `attempt` finds the name free. The name stays in the template.
unsafe fn each(
    template: *mut c_char,
    suffix: i32,
    mut attempt: impl FnMut(&Name) -> Outcome<i32>,
) -> Outcome<i32> {
    // SAFETY: the caller's: null or a C string.
    if unsafe { name_of(libc::AT_FDCWD, template) }.is_none() {
        return Err(NOT_OURS);
    }
    // SAFETY: not null, since it has a name.
    let length = unsafe { CStr::from_ptr(template) }.count_bytes();
    let at = usize::try_from(suffix).ok().and_then(|suffix| length.checked_sub(suffix.checked_add(6)?));
    // SAFETY: inside the string.
    let letters = at.map(|at| unsafe { template.add(at) });
    // SAFETY: six bytes of the string.
    let is_x = |at: *mut c_char| (0..6).all(|i| unsafe { *at.add(i) } == b'X' as c_char);
    let letters = letters.filter(|at| is_x(*at)).ok_or(Errno(libc::EINVAL))?;
    for _ in 0..TRIES {
        let mut random = [0; 6];
        rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())?;
        for (i, byte) in random.iter().enumerate() {
            // SAFETY: six bytes of the string, which the call is there to fill.
            unsafe { letters.add(i).write(LETTERS[usize::from(*byte) % LETTERS.len()] as c_char) };
        }
        // SAFETY: still a C string.
        match unsafe { follow::at(libc::AT_FDCWD, template, Last::Named, &mut attempt) } {
            Err(Exit::Fail(Errno(libc::EEXIST))) => {}
            Ok(Where::Here(made)) => return Ok(made),
            // A directory elsewhere, by way of one of our links.
            Ok(Where::Elsewhere(_)) => return Err(Errno(libc::EXDEV).into()),
            Err(exit) => return Err(exit),
        }
    }
    Err(Errno(libc::EEXIST).into())
}

/// mkstemp(3) and its kin.
///
/// # Safety
/// `template` is null or a C string that may be changed.
pub unsafe fn file(template: *mut c_char, suffix: i32, flags: i32) -> Outcome<i32> {
    let flags = flags & !libc::O_ACCMODE | libc::O_RDWR | libc::O_CREAT | libc::O_EXCL;
    // SAFETY: the caller's.
    unsafe { each(template, suffix, |name| links::open_name(name, flags, 0o600)) }
}

/// mkdtemp(3).
///
/// # Safety
/// As [`file`].
pub unsafe fn directory(template: *mut c_char) -> Outcome<*mut c_char> {
    let make = |name: &Name| {
        names::make_directory(runtime()?, name, 0o700)?;
        Ok(0)
    };
    // SAFETY: the caller's.
    unsafe { each(template, 0, make) }.map(|_| template)
}

/// mktemp(3): a name that is free now. libc gives the template back, empty if there is none.
///
/// # Safety
/// As [`file`].
pub unsafe fn name(template: *mut c_char) -> Outcome<*mut c_char> {
    let is_free = |name: &Name| match names::lookup(runtime()?, name) {
        Ok(_) => Err(Errno(libc::EEXIST).into()),
        Err(Errno(libc::ENOENT)) => Ok(0),
        Err(errno) => Err(errno.into()),
    };
    // SAFETY: the caller's.
    match unsafe { each(template, 0, is_free) } {
        Err(Exit::Fail(errno)) => {
            // SAFETY: it is a C string that the call may change, or it would not be ours.
            unsafe { template.write(0) };
            crate::sys::errno::set(errno);
            Ok(template)
        }
        result => result.map(|_| template),
    }
}

/// The descriptor of tmpfile(3), where TMPDIR lies below the prefix (libc itself makes it in /tmp, wherever TMPDIR is).
pub fn unnamed() -> Outcome<i32> {
    let place = crate::sys::env::get("TMPDIR").ok_or(NOT_OURS)?;
    if crate::host::paths::absolute(&place).is_none() {
        return Err(NOT_OURS);
    }
    let template = std::ffi::CString::new(format!("{place}/tmpfXXXXXX")).map_err(|_| Errno(libc::EINVAL))?;
    let template = template.into_raw();
    // SAFETY: a C string of our own.
    let number = unsafe { file(template, 0, 0) };
    // SAFETY: as above; it comes back to where it was made.
    let removed = unsafe { super::path::remove(libc::AT_FDCWD, template, false) };
    // SAFETY: from into_raw.
    drop(unsafe { std::ffi::CString::from_raw(template) });
    let number = number?;
    removed.map(|_| number)
}
