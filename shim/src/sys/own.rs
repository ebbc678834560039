//! What each thread has of its own, without a look at memory of the program's.
//!
//! Owns: the words. Called by: signal, log. Must not: have a destructor, or be reached by Rust's thread-locals: those ask libc's
//! `__tls_get_addr`, whose vector lies in the program's heap, which may be far away while far memory's own threads run (DESIGN.md, A5).

use core::cell::Cell;
use core::ffi::c_void;

use super::signal::Set;

/// Bytes of the last error's text, its terminating zero counted.
pub const LAST_BYTES: usize = 256;

/// A thread's words; zeros at first. As `struct netmem_own` in own.c.
#[repr(C)]
pub struct Own {
    /// What the program had blocked before the first [`super::signal::SignalMask`].
    pub before: Cell<Set>,
    /// The call under way that waits with a mask of its own.
    pub waiting: Cell<*const c_void>,
    /// How many [`super::signal::SignalMask`]s there are.
    pub depth: Cell<u32>,
    /// The last error, for netmem_last_error().
    pub last: Cell<[u8; LAST_BYTES]>,
}

unsafe extern "C" {
    fn netmem_own() -> *const Own;
}

/// This thread's.
pub fn own<'a>() -> &'a Own {
    // SAFETY: the words live as long as the thread; a reference can't leave it, since cells are not Sync.
    unsafe { &*netmem_own() }
}
