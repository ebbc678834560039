//! stdio on our files: libc's inner reads and writes do not pass through us, so its streams get functions of ours.
//!
//! Owns: which FILE stands for which descriptor. Called by: exports. Must not: look inside a FILE.

use core::ffi::{c_char, c_int, c_void};
use core::sync::atomic::{AtomicBool, Ordering};
use std::ffi::CString;

use super::links;
use super::outcome::{NOT_OURS, Outcome};
use crate::host::fds::{self, Descriptor};
use crate::sync::QuietMutex;
use crate::sys::app;
use crate::sys::errno::Errno;
use crate::sys::syscall::call;

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

/// fopen(3). `libcs` is libc's function on another path.
///
/// # Safety
/// Both are null or C strings.
pub unsafe fn open(
    path: *const c_char,
    mode: *const c_char,
    libcs: impl FnOnce(*const c_char, *const c_char) -> *mut c_void,
) -> Outcome<*mut c_void> {
    // SAFETY: the caller's.
    if unsafe { links::name_of(libc::AT_FDCWD, path) }.is_none() {
        // SAFETY: the caller's.
        return unsafe { through_alias(path, mode) };
    }
    // SAFETY: the caller's.
    let text = unsafe { app::path(mode) }.ok_or(Errno(libc::EINVAL))?;
    let flags = flags_of(&text).ok_or(Errno(libc::EINVAL))?;
    if text.contains(",ccs=") {
        // A conversion of characters is something that only libc's own streams have.
        // SAFETY: the caller's.
        return unsafe { inner(path, &text, flags, libcs) };
    }
    // SAFETY: the caller's.
    let number = unsafe { links::open(libc::AT_FDCWD, path, flags, 0o666)? };
    // SAFETY: mode is a C string by now.
    unsafe {
        if fds::is_ours(number) || fds::region(number)?.is_some() {
            return stream(number, mode);
        }
        // A symbolic link led out of the prefix.
        Ok(libc::fdopen(number, mode).cast())
    }
}

/// `/dev/stdin`, `/proc/self/fd/3` and the like may lead to a file of ours without saying so.
///
/// # Safety
/// As [`open`].
unsafe fn through_alias(path: *const c_char, mode: *const c_char) -> Outcome<*mut c_void> {
    // SAFETY: the caller's.
    unsafe {
        let device =
            ["/dev/std", "/dev/fd/"].iter().any(|alias| app::path_starts_with(path, alias.as_bytes()));
        if !device && !app::path_starts_with(path, b"/proc/") {
            return Err(NOT_OURS);
        }
        let flags = app::path(mode).as_deref().and_then(flags_of).ok_or(NOT_OURS)?;
        // Not a pipe or a terminal, whose opening has effects: those are not opened twice.
        let target = crate::sys::file::status(&app::path(path).ok_or(NOT_OURS)?).map_err(|_| NOT_OURS)?;
        if crate::host::runtime_if_started().is_none_or(|runtime| runtime.directory.device != target.st_dev) {
            return Err(NOT_OURS);
        }
        let number = super::exports::descriptors::nm_open(path, flags, 0o666);
        if number < 0 {
            return Err(crate::sys::errno::get().into());
        }
        stream(number, mode)
    }
}

/// fdopen(3).
///
/// # Safety
/// `mode` is null or a C string.
pub unsafe fn from_descriptor(number: c_int, mode: *const c_char) -> Outcome<*mut c_void> {
    fds::region(number)?.ok_or(NOT_OURS)?;
    // SAFETY: the caller's.
    let text = unsafe { app::path(mode) };
    let wanted = text.as_deref().and_then(flags_of).ok_or(Errno(libc::EINVAL))?;
    let is = status_flags(number)?;
    let allowed = match is & libc::O_ACCMODE {
        libc::O_RDWR => true,
        access => wanted & libc::O_ACCMODE == access,
    };
    if !allowed {
        return Err(Errno(libc::EINVAL).into());
    }
    if wanted & libc::O_APPEND & !is != 0 {
        // SAFETY: by value.
        unsafe {
            let flags = (is | libc::O_APPEND) as usize;
            call(libc::SYS_fcntl, [number as usize, libc::F_SETFL as usize, flags, 0, 0, 0])?
        };
    }
    // SAFETY: mode is a C string by now.
    unsafe { stream(number, mode) }
}

fn status_flags(number: c_int) -> Result<c_int, Errno> {
    // SAFETY: by value.
    unsafe { call(libc::SYS_fcntl, [number as usize, libc::F_GETFL as usize, 0, 0, 0, 0]) }
        .map(|flags| flags as c_int)
}

/// A stream of libc's own on a file of ours: its reads and writes do not come through us, so that all of the file is brought in
/// first, and what it holds is compared at every commit.
///
/// # Safety
/// `path` is a C string.
unsafe fn inner(
    path: *const c_char,
    mode: &str,
    flags: c_int,
    libcs: impl FnOnce(*const c_char, *const c_char) -> *mut c_void,
) -> Outcome<*mut c_void> {
    // Makes, empties or refuses the file.
    // SAFETY: the caller's.
    let number = unsafe { links::open(libc::AT_FDCWD, path, flags, 0o666)? };
    let opened = || -> Outcome<*mut c_void> {
        // None of ours where a symbolic link led out of the prefix.
        let handle = fds::region(number)?;
        if handle.is_none() && fds::is_ours(number) {
            return Err(Errno(libc::EISDIR).into());
        }
        if let Some(handle) = handle {
            super::file::fill_for_inner_calls(handle, number)?;
        }
        let (main, rest) = mode.split_once(',').unwrap_or((mode, ""));
        let again = format!("{},{rest}", main.replace('x', ""));
        let again = CString::new(again).map_err(|_| Errno(libc::EINVAL))?;
        let local = format!("/proc/self/fd/{number}");
        let local = CString::new(local).map_err(|_| Errno(libc::EINVAL))?;
        let file = libcs(local.as_ptr(), again.as_ptr());
        if file.is_null() {
            return Err(crate::sys::errno::get().into());
        }
        // SAFETY: a stream that libc just opened.
        let its = unsafe { libc::fileno(file.cast()) };
        fds::set(its, handle.map_or(Descriptor::Foreign, Descriptor::Region));
        Ok(file)
    };
    let file = opened();
    // SAFETY: the descriptor of a moment ago.
    let closed = unsafe { super::exports::descriptors::nm_close(number) };
    if closed < 0 { Err(crate::sys::errno::get().into()) } else { file }
}

/// freopen(3). `libcs` is libc's function with another path and mode.
///
/// # Safety
/// `path` is null or a C string, `mode` a C string, `file` a stream.
pub unsafe fn reopen(
    path: *const c_char,
    mode: *const c_char,
    file: *mut c_void,
    libcs: impl FnOnce(*const c_char, *const c_char) -> *mut c_void,
) -> Outcome<*mut c_void> {
    let stream_of_ours = number_of(file);
    // SAFETY: the caller's.
    let name = unsafe { links::name_of(libc::AT_FDCWD, path) };
    // SAFETY: the caller's.
    let text = unsafe { app::path(mode) }.ok_or(Errno(libc::EINVAL))?;
    let flags = flags_of(&text).ok_or(Errno(libc::EINVAL))?;
    if let Ok(number) = stream_of_ours {
        // SAFETY: the caller's.
        return unsafe { reopen_ours((file, number), path, flags) };
    }
    // SAFETY: the caller's; fileno of a closed one is -1.
    let was = unsafe { libc::fileno(file.cast()) };
    if name.is_none() {
        if path.is_null()
            && flags & libc::O_TRUNC != 0
            && let Some(handle) = fds::region(was)?
        {
            handle.truncate(0)?;
        }
        return Err(NOT_OURS);
    }
    // What is in its buffer belongs to the file that it leaves, which may be one of ours.
    // SAFETY: the caller's.
    unsafe { libc::fflush(file.cast()) };
    links::before_inner_close(was);
    // SAFETY: the caller's.
    unsafe { inner(path, &text, flags, libcs) }
}

/// A stream with functions of ours gets another file under its number; libc itself reopens none of these.
unsafe fn reopen_ours(
    (file, number): (*mut c_void, c_int),
    path: *const c_char,
    flags: c_int,
) -> Outcome<*mut c_void> {
    let stream = file.cast::<libc::FILE>();
    // The first word of a FILE is its flags (bits/types/struct_FILE.h), which say what a stream may do.
    const NO_READS: c_int = 0x4;
    const NO_WRITES: c_int = 0x8;
    const APPENDING: c_int = 0x1000;
    let same = CString::new(format!("/proc/self/fd/{number}")).map_err(|_| Errno(libc::EINVAL))?;
    let path = if path.is_null() { same.as_ptr() } else { path };
    // SAFETY: the program's stream, which it gave to a call that changes it, and a C string.
    unsafe {
        libc::fflush(stream);
        let fresh = super::exports::descriptors::nm_open(path, flags, 0o666);
        if fresh < 0 {
            let failed = crate::sys::errno::get();
            libc::fclose(stream);
            return Err(failed.into());
        }
        let moved = super::exports::descriptors::nm_dup3(fresh, number, flags & libc::O_CLOEXEC);
        let failed = crate::sys::errno::get();
        super::exports::descriptors::nm_close(fresh);
        if moved < 0 {
            return Err(failed.into());
        }
        let word = stream.cast::<c_int>();
        let access = match flags & libc::O_ACCMODE {
            libc::O_RDONLY => NO_WRITES,
            libc::O_WRONLY => NO_READS,
            _ => 0,
        };
        let append = if flags & libc::O_APPEND != 0 { APPENDING } else { 0 };
        // Whatever was read ahead of the old file goes: a stream that may do both is put to its start.
        word.write(word.read() & !(NO_READS | NO_WRITES | APPENDING));
        libc::fseeko(stream, 0, libc::SEEK_SET);
        libc::clearerr(stream);
        word.write(word.read() | access | append);
    }
    Ok(file)
}

/// tmpfile(3), of a file that has no name any more.
pub fn temporary(number: c_int) -> Outcome<*mut c_void> {
    // SAFETY: a C string.
    unsafe { stream(number, c"w+".as_ptr()) }
}

unsafe fn stream(number: c_int, mode: *const c_char) -> Outcome<*mut c_void> {
    // SAFETY: a C string.
    let text = unsafe { app::path(mode) }.unwrap_or_default();
    if text.starts_with('a') && !text.contains('+') {
        // As libc does for a stream that only appends; ftell tells.
        // SAFETY: by value.
        unsafe { call(libc::SYS_lseek, [number as usize, 0, libc::SEEK_END as usize, 0, 0, 0])? };
    }
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

/// Whether there are streams of ours: libc writes what is left in them after the last destructor, which is too late.
pub fn any() -> bool {
    ANY.load(Ordering::Acquire)
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
    let mut done = 0;
    while done < length {
        // SAFETY: inside libc's own buffer.
        let wrote = unsafe {
            super::exports::transfers::nm_write(number(cookie), from.add(done).cast(), length - done)
        };
        // As libc's own write of a stream does: on until it fails. A negative number would be taken for a very large one.
        if wrote <= 0 {
            break;
        }
        done += wrote as usize;
    }
    done as isize
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

/// A stream of libc's own that it reopened by inner calls: its descriptor is another one.
pub fn reopened(file: *mut c_void, make: impl FnOnce() -> *mut c_void) -> *mut c_void {
    // SAFETY: the program's stream; fileno of a closed one is -1.
    let number = |file: *mut c_void| unsafe { libc::fileno(file.cast()) };
    let was = number(file);
    if fds::known_region(was).is_some() {
        // What is in its buffer belongs to the file that it leaves.
        // SAFETY: the program's stream.
        unsafe { libc::fflush(file.cast()) };
    }
    links::before_inner_close(was);
    let result = make();
    if !result.is_null() {
        fds::forget(number(result));
    }
    result
}

/// Whether dprintf(3) has to go through us: libc writes by an inner call.
pub fn prints_to_ours(number: c_int) -> bool {
    // An error is the write's to tell.
    !matches!(fds::region(number), Ok(None))
}

/// What dprintf(3) made of its arguments.
///
/// # Safety
/// `length` bytes at `text`.
pub unsafe fn print(number: c_int, text: *const c_char, length: usize) -> Outcome<c_int> {
    let mut done = 0;
    while done < length {
        let wrote =
            // SAFETY: inside the text.
            unsafe { super::exports::transfers::nm_write(number, text.add(done).cast(), length - done) };
        if wrote < 0 {
            return Err(crate::sys::errno::get().into());
        }
        done += wrote as usize;
    }
    Ok(length as c_int)
}

/// Memory of our own heap for a text that is long; null if there is none.
pub fn allocate(bytes: usize) -> *mut c_char {
    match core::alloc::Layout::from_size_align(bytes, 1) {
        // SAFETY: not of size zero: a text has its zero.
        Ok(layout) if bytes != 0 => unsafe { std::alloc::alloc(layout) }.cast(),
        Ok(_) | Err(_) => core::ptr::null_mut(),
    }
}

/// Gives it back.
///
/// # Safety
/// From [`allocate`] with the same length.
pub unsafe fn release(at: *mut c_char, bytes: usize) {
    if let Ok(layout) = core::alloc::Layout::from_size_align(bytes, 1) {
        // SAFETY: the caller's.
        unsafe { std::alloc::dealloc(at.cast(), layout) };
    }
}
