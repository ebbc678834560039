//! Threads of our own.
//!
//! Owns: starting one with every signal blocked. Called by: engine::uffd, the background committer. Must not: start any
//! before the first use of a mapping or an asynchronous sync.
//!
//! pthread_create is libc's and allocates a few hundred bytes from the program's heap for thread-local storage; a thread
//! without it could call nothing that sets errno (CONTRIBUTING.md, rule 1, the exception).

use core::ffi::c_void;

use super::errno::Errno;
use super::signal::SignalMask;

/// Runs `body` on a new detached thread.
pub fn spawn(body: Box<dyn FnOnce() + Send>) -> Result<(), Errno> {
    extern "C" fn start(arg: *mut c_void) -> *mut c_void {
        // SAFETY: the pointer is the box that `spawn` leaked for this thread alone.
        let body = unsafe { Box::from_raw(arg as *mut Box<dyn FnOnce() + Send>) };
        // The thread was made with every signal blocked, and stays so.
        let _quiet = SignalMask::already_blocked();
        body();
        core::ptr::null_mut()
    }
    let arg = Box::into_raw(Box::new(body));
    let _quiet = SignalMask::block_all();
    let errno = super::errno::get();
    // SAFETY: attributes and thread are live for the calls; `start` frees `arg`.
    let code = unsafe {
        let mut attributes: libc::pthread_attr_t = core::mem::zeroed();
        libc::pthread_attr_init(&raw mut attributes);
        libc::pthread_attr_setdetachstate(&raw mut attributes, libc::PTHREAD_CREATE_DETACHED);
        libc::pthread_attr_setstacksize(&raw mut attributes, STACK_BYTES);
        let mut thread: libc::pthread_t = 0;
        let code = libc::pthread_create(&raw mut thread, &raw const attributes, start, arg.cast());
        libc::pthread_attr_destroy(&raw mut attributes);
        code
    };
    super::errno::set(errno);
    if code == 0 {
        return Ok(());
    }
    // SAFETY: no thread was made, so the box is still ours.
    drop(unsafe { Box::from_raw(arg) });
    Err(Errno(code))
}

/// Bytes of stack: our deepest path keeps its buffers on the heap. glibc takes thread-local storage out of it too.
const STACK_BYTES: usize = 256 * 1024;
