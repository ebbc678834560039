//! The program's memory: never a reference to it, always a copy.
//!
//! Owns: [`Span`], copying strings and I/O vectors out. Called by: abi. Must not: be used with a lock held (rule 4): any
//! byte may be an absent page of ours.

use core::ffi::{CStr, c_char};

/// Some bytes of the program: an address and a length, nothing more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// First byte.
    pub at: usize,
    /// Bytes.
    pub length: usize,
}

impl Span {
    /// From a pointer argument.
    pub fn new<T>(at: *const T, length: usize) -> Self {
        Span { at: at as usize, length }
    }

    /// First byte behind; saturates.
    pub fn end(self) -> usize {
        self.at.saturating_add(self.length)
    }
}

/// Copies a path argument. `None` for a null pointer or bytes that are not UTF-8 (no region has such a name).
///
/// # Safety
/// The pointer is null or a C string, as for the call it was given to.
pub unsafe fn path(at: *const c_char) -> Option<String> {
    if at.is_null() {
        return None;
    }
    // SAFETY: the caller's.
    unsafe { CStr::from_ptr(at) }.to_str().ok().map(str::to_owned)
}

/// The first bytes of a path argument, to see cheaply whether it can be ours.
///
/// # Safety
/// As [`path`].
pub unsafe fn path_starts_with(at: *const c_char, prefix: &[u8]) -> bool {
    if at.is_null() {
        return false;
    }
    for (i, want) in prefix.iter().enumerate() {
        // SAFETY: no byte behind the terminating zero is read, since the prefix has no zero.
        if unsafe { *at.add(i) } as u8 != *want {
            return false;
        }
    }
    true
}

/// Copies an I/O vector. At most `IOV_MAX` entries; the kernel refuses more.
///
/// # Safety
/// The pointer names `count` entries, as for readv(2).
pub unsafe fn vectors(at: *const libc::iovec, count: i32) -> Vec<Span> {
    let count = usize::try_from(count).unwrap_or(0).min(1024);
    (0..count)
        .map(|i| {
            // SAFETY: the caller's.
            let vector = unsafe { at.add(i).read() };
            Span::new(vector.iov_base, vector.iov_len)
        })
        .collect()
}
