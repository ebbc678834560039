//! The library's constructor and destructor.
//!
//! Owns: what happens at load and at exit. Called by: the loader. Must not: connect, open, start or read anything at load:
//! a program that does not use us must not notice.

use core::ffi::{CStr, c_char, c_void};

/// Runs at load, before libc's own constructor: it must not call into libc but for what is safe then.
extern "C" fn load(_count: i32, _arguments: *const *const c_char, environment: *const *const c_char) {
    super::fork::register();
    // SAFETY: the library is never unloaded.
    unsafe { __cxa_at_quick_exit(at_quick_exit, core::ptr::null_mut()) };
    crate::sys::env::note_at_load(environment);
    super::process::note_pid();
    announce(environment);
    super::process::fill_standard_streams();
}

/// The last of quick_exit's handlers, as it was the first to be registered: what the others stored is committed.
unsafe extern "C" fn at_quick_exit(_argument: *mut c_void) {
    super::process::at_exit();
}

unsafe extern "C" {
    /// What at_quick_exit(3) calls.
    fn __cxa_at_quick_exit(function: unsafe extern "C" fn(*mut c_void), library: *mut c_void) -> i32;
}

/// Tells `netmem run` that we are here: one byte to the descriptor it names. The variable is blanked, so that this process's
/// children do not write to whatever has that number by then.
fn announce(environment: *const *const c_char) {
    const NAME: &[u8] = b"NETMEM_LOADED_FD=";
    let mut at = environment;
    // SAFETY: the loader's own null-terminated array of C strings, on our stack's far end and writable.
    unsafe {
        while !at.is_null() && !(*at).is_null() {
            let entry = *at;
            if CStr::from_ptr(entry).to_bytes().starts_with(NAME) {
                let value = CStr::from_ptr(entry.add(NAME.len()));
                if let Some(fd) = value.to_str().ok().and_then(|text| text.parse::<i32>().ok()) {
                    crate::sys::fd::write_all(fd, b"1");
                    crate::sys::fd::close_raw(fd);
                }
                entry.add(NAME.len()).cast_mut().write(0);
                return;
            }
            at = at.add(1);
        }
    }
}

extern "C" fn unload() {
    super::process::flush_streams();
    super::process::at_exit();
}

#[used]
#[unsafe(link_section = ".init_array")]
static LOAD: extern "C" fn(i32, *const *const c_char, *const *const c_char) = load;

#[used]
#[unsafe(link_section = ".fini_array")]
static UNLOAD: extern "C" fn() = unload;
