//! stdio on our files: libc's inner reads and writes do not pass through us, so its streams get functions of ours.
//!
//! Owns: which FILE stands for which descriptor. Called by: exports. Must not: look inside a FILE.

use core::ffi::{c_char, c_int, c_void};
use core::sync::atomic::{AtomicBool, Ordering};

use super::links;
use super::outcome::{NOT_OURS, Outcome};
use crate::host::fds;
use crate::sync::QuietMutex;
use crate::sys::app;
use crate::sys::errno::Errno;

/// Streams of ours: the FILE's address and its descriptor.
static STREAMS: QuietMutex<Vec<(usize, c_int)>> = QuietMutex::new(Vec::new());
static ANY: AtomicBool = AtomicBool::new(false);

/// libc's cookie_io_functions_t.
#[repr(C)]
struct CookieFunctions {
    read: unsafe extern "C" fn(*mut c_void, *mut c_char, usize) -> isize,
    write: unsafe extern "C" fn(*mut c_void, *const c_char, usize) -> isize,
    seek: unsafe extern "C" fn(*mut c_void, *mut i64, c_int) -> c_int,
    close: unsafe extern "C" fn(*mut c_void) -> c_int,
}

unsafe extern "C" {
    fn fopencookie(cookie: *mut c_void, mode: *const c_char, functions: CookieFunctions) -> *mut c_void;
}

/// Around a fork: nobody is half-way through the table in the child.
pub fn lock_across_fork() {
    let _: crate::sync::Kept = STREAMS.lock_keeping_mask();
}

/// Gives it back, in the parent and in the child.
pub fn unlock_after_fork() {
    STREAMS.unlock_kept();
}

/// open(2) flags of an fopen mode: `r`, `w` or `a`, then any of `+`, `x`, `e`, `b` and others that mean nothing here.
fn flags_of(mode: &str) -> Option<c_int> {
    let main = mode.split(',').next()?;
    let plus = main.contains('+');
    let access = if plus { libc::O_RDWR } else { libc::O_WRONLY };
    let mut flags = match main.as_bytes().first()? {
        b'r' => {
            if plus {
                libc::O_RDWR
            } else {
                libc::O_RDONLY
            }
        }
        b'w' => access | libc::O_CREAT | libc::O_TRUNC,
        b'a' => access | libc::O_CREAT | libc::O_APPEND,
        _ => return None,
    };
    if main.contains('x') {
        flags |= libc::O_EXCL;
    }
    if main.contains('e') {
        flags |= libc::O_CLOEXEC;
    }
    Some(flags)
}

/// fopen(3).
///
/// # Safety
/// Both are null or C strings.
pub unsafe fn open(path: *const c_char, mode: *const c_char) -> Outcome<*mut c_void> {
    // SAFETY: the caller's.
    let text = unsafe { app::path(mode) };
    // SAFETY: the caller's.
    if unsafe { links::name_of(libc::AT_FDCWD, path) }.is_none() {
        return Err(NOT_OURS);
    }
    let flags = text.as_deref().and_then(flags_of).ok_or(Errno(libc::EINVAL))?;
    // SAFETY: the caller's.
    let number = unsafe { links::open(libc::AT_FDCWD, path, flags, 0o666)? };
    // SAFETY: mode is a C string by now.
    unsafe { stream(number, mode) }
}

/// fdopen(3).
///
/// # Safety
/// `mode` is null or a C string.
pub unsafe fn from_descriptor(number: c_int, mode: *const c_char) -> Outcome<*mut c_void> {
    fds::region(number)?.ok_or(NOT_OURS)?;
    // SAFETY: the caller's.
    unsafe { app::path(mode) }.as_deref().and_then(flags_of).ok_or(Errno(libc::EINVAL))?;
    // SAFETY: mode is a C string by now.
    unsafe { stream(number, mode) }
}

unsafe fn stream(number: c_int, mode: *const c_char) -> Outcome<*mut c_void> {
    let functions = CookieFunctions { read, write, seek, close };
    // SAFETY: the cookie is a number, and the functions live as long as the library.
    let file = unsafe { fopencookie(number as usize as *mut c_void, mode, functions) };
    if file.is_null() {
        return Err(Errno(libc::ENOMEM).into());
    }
    let mut streams = STREAMS.lock();
    streams.retain(|(address, descriptor)| *address != file as usize && *descriptor != number);
    streams.push((file as usize, number));
    ANY.store(true, Ordering::Release);
    Ok(file)
}

/// fileno(3): a stream with functions of its own has no descriptor for libc, but has one for the program.
pub fn number_of(file: *mut c_void) -> Outcome<c_int> {
    if !ANY.load(Ordering::Acquire) {
        return Err(NOT_OURS);
    }
    let streams = STREAMS.lock();
    streams.iter().find(|(address, _)| *address == file as usize).map(|(_, number)| *number).ok_or(NOT_OURS)
}

fn number(cookie: *mut c_void) -> c_int {
    cookie as usize as c_int
}

unsafe extern "C" fn read(cookie: *mut c_void, into: *mut c_char, length: usize) -> isize {
    // SAFETY: libc's own buffer.
    unsafe { super::exports::transfers::nm_read(number(cookie), into.cast(), length) }
}

unsafe extern "C" fn write(cookie: *mut c_void, from: *const c_char, length: usize) -> isize {
    // SAFETY: libc's own buffer.
    unsafe { super::exports::transfers::nm_write(number(cookie), from.cast(), length) }
}

unsafe extern "C" fn seek(cookie: *mut c_void, position: *mut i64, whence: c_int) -> c_int {
    // SAFETY: libc's own variable.
    unsafe {
        let at = super::exports::files::nm_lseek(number(cookie), *position, whence);
        if at < 0 {
            return -1;
        }
        *position = at;
    }
    0
}

unsafe extern "C" fn close(cookie: *mut c_void) -> c_int {
    STREAMS.lock().retain(|(_, descriptor)| *descriptor != number(cookie));
    // SAFETY: the stream's own descriptor.
    unsafe { super::exports::descriptors::nm_close(number(cookie)) }
}
