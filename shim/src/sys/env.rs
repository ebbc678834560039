//! The program's environment.
//!
//! Owns: reading it. Called by: config, boot. Must not: go through libc's getenv, which the program may replace, or change
//! anything.

use core::ffi::{CStr, c_char};

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
        let mut at = environ;
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
