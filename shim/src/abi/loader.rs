//! The loader's doors past us: a handle of libc's own, and a library that binds to libc before it looks at us.
//!
//! Owns: where the loader's own functions are, and what a look-up through a handle gives. Called by: exports/libraries.rs, whose jumps keep
//! the caller's return address, by which the loader knows who asks. Must not: change what a look-up gives that does not end at libc's
//! function behind one of ours.
//!
//! A program that asks libc.so.6 itself for `mmap` (ctypes, JNA, an FFI) would get a mapping that we don't know of, in which an absent page
//! is zeros. It gets ours instead, as the program's own code does. RTLD_DEEPBIND, by which PHP loads its extensions, is taken out of
//! dlopen's flags: with it a library's calls of libc pass us by.

use core::ffi::{CStr, c_char, c_int, c_void};
use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, Ordering};

use super::resolve;

/// The loader's functions, or null until they were looked for.
pub static DLSYM: AtomicPtr<c_void> = AtomicPtr::new(null_mut());
pub static DLOPEN: AtomicPtr<c_void> = AtomicPtr::new(null_mut());
/// This library, as a handle to look names up in.
static OURSELVES: AtomicPtr<c_void> = AtomicPtr::new(null_mut());

/// The first version of the names below that a machine's libc has.
#[cfg(target_arch = "x86_64")]
const VERSION: &CStr = c"GLIBC_2.2.5";
#[cfg(not(target_arch = "x86_64"))]
const VERSION: &CStr = c"GLIBC_2.17";

/// Looks for both. dlsym can't be asked for itself, since it is ours.
pub extern "C" fn find() {
    for (name, place) in [(c"dlsym", &DLSYM), (c"dlopen", &DLOPEN)] {
        if place.load(Ordering::Acquire).is_null() {
            // SAFETY: C strings.
            let found = unsafe { libc::dlvsym(libc::RTLD_NEXT, name.as_ptr(), VERSION.as_ptr()) };
            place.store(found, Ordering::Release);
        }
    }
}

type Find = unsafe extern "C" fn(*mut c_void, *const c_char) -> *mut c_void;
type Open = unsafe extern "C" fn(*const c_char, c_int) -> *mut c_void;

/// dlsym(3) with a handle: ours for what is libc's function behind ours, else what was found.
///
/// # Safety
/// As dlsym(3): an open handle, a C string.
pub unsafe extern "C" fn by_handle(handle: *mut c_void, name: *const c_char) -> *mut c_void {
    find();
    // SAFETY: dlsym, which every libc has.
    let real: Find = unsafe { core::mem::transmute(DLSYM.load(Ordering::Acquire)) };
    // SAFETY: the caller's arguments.
    let found = unsafe { real(handle, name) };
    // SAFETY: a name that was found is a C string.
    if found.is_null() || resolve::next(unsafe { CStr::from_ptr(name) }) != found {
        return found;
    }
    // SAFETY: our own handle, and the same name. Behind our names it finds libc's, which is what was found.
    let ours = unsafe { real(ourselves(), name) };
    if ours.is_null() {
        // SAFETY: the program's next dlerror must not tell of our look-up.
        unsafe { libc::dlerror() };
        return found;
    }
    ours
}

/// Our handle; at worst the program's, in whose order we come first.
fn ourselves() -> *mut c_void {
    let known = OURSELVES.load(Ordering::Acquire);
    if !known.is_null() {
        return known;
    }
    // SAFETY: all zeros is a value.
    let mut info: libc::Dl_info = unsafe { core::mem::zeroed() };
    // SAFETY: an address of ours; room for the answer.
    let there = unsafe { libc::dladdr(by_handle as *const c_void, &raw mut info) } != 0;
    // SAFETY: dlopen, which every libc has.
    let open: Open = unsafe { core::mem::transmute(DLOPEN.load(Ordering::Acquire)) };
    let path = if there { info.dli_fname } else { core::ptr::null() };
    // SAFETY: a path of the loader's, or null for the program.
    let handle = unsafe { open(path, libc::RTLD_LAZY | libc::RTLD_NOLOAD) };
    OURSELVES.store(handle, Ordering::Release);
    handle
}
