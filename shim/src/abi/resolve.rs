//! Where libc's own functions are.
//!
//! Owns: looking all of them up before the first thread is made. Called by: fork, exports. Must not: look anything up in a child of a
//! program with threads.
//!
//! redhook looks a function up at its first call, under a Once and the loader's lock; a fork that falls into another thread's
//! look-up leaves both taken in the child.

use core::ffi::{CStr, c_void};
use core::sync::atomic::{AtomicBool, Ordering};

unsafe extern "C" {
    /// The section in which each `hook!` notes its own look-up; the linker gives its ends these names.
    static __start_netmem_hooks: extern "C" fn();
    static __stop_netmem_hooks: extern "C" fn();
}

static DONE: AtomicBool = AtomicBool::new(false);

/// Looks up every function that we pass calls on to.
pub fn all() {
    if DONE.swap(true, Ordering::SeqCst) {
        return;
    }
    let (mut at, end) = (&raw const __start_netmem_hooks, &raw const __stop_netmem_hooks);
    while at != end {
        // SAFETY: between the two lie the pointers that `hook!` put there.
        unsafe {
            (*at)();
            at = at.add(1);
        }
    }
}

/// The next library's function of this name, or null: an older libc lacks some.
pub fn next(name: &CStr) -> *mut c_void {
    // SAFETY: the name is a C string.
    let found = unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr()) };
    if found.is_null() {
        // SAFETY: the program's next dlerror must not tell of our look-up.
        unsafe { libc::dlerror() };
    }
    found
}
