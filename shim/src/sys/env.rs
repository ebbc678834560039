//! The program's environment.
//!
//! Owns: reading it. Called by: config, boot. Must not: go through libc's getenv, which the program may replace, or change
//! anything.

use core::ffi::{CStr, c_char};
use core::sync::atomic::{AtomicPtr, Ordering};

/// What the loader gave the constructor: libc's own variable is not set yet when it runs.
static AT_LOAD: AtomicPtr<*const c_char> = AtomicPtr::new(core::ptr::null_mut());

/// Notes the environment that the loader handed over.
pub fn note_at_load(environment: *const *const c_char) {
    AT_LOAD.store(environment.cast_mut(), Ordering::Relaxed);
}

unsafe extern "C" {
    static environ: *const *const c_char;
}

/// The value of `name`. Bytes that are not UTF-8 are replaced, so that an error message can show them.
pub fn get(name: &str) -> Option<String> {
    get_bytes(name).map(|value| String::from_utf8_lossy(value).into_owned())
}

/// Whether the environment has `name` at all.
pub fn has(name: &str) -> bool {
    get_bytes(name).is_some()
}

fn get_bytes(name: &str) -> Option<&'static [u8]> {
    // SAFETY: environ is null or a null-terminated array of C strings; the caller copies at once, before the program can
    // rewrite it.
    unsafe {
        let mut at = if environ.is_null() { AT_LOAD.load(Ordering::Relaxed).cast_const() } else { environ };
        while !at.is_null() && !(*at).is_null() {
            let pair = CStr::from_ptr(*at).to_bytes();
            if let Some(value) = pair.strip_prefix(name.as_bytes()).and_then(|rest| rest.strip_prefix(b"=")) {
                return Some(value);
            }
            at = at.add(1);
        }
    }
    None
}
