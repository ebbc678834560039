//! fork, _Fork and clone: nothing of libc's or of ours is half-way in the child.
//!
//! Owns: the order in which a fork takes libc's list of streams and our locks. Called by: libc's fork, through
//! pthread_atfork; exports. Must not: take our locks first (DESIGN.md, Processes).

use core::ffi::{c_int, c_void};
use core::sync::atomic::{AtomicI32, Ordering};

use super::{process, resolve, spawn, stdio, trees, worker};
use crate::host::{fork, runtime_if_started};
use crate::sys::errno::{self, Errno};
use crate::sys::signal::SignalMask;

unsafe extern "C" {
    fn _IO_list_lock();
    fn _IO_list_unlock();
    fn _IO_list_resetlock();
}

/// At load.
pub fn register() {
    // SAFETY: the handlers stay for good (the library is never unloaded).
    unsafe { libc::pthread_atfork(Some(prepare), Some(parent), Some(child)) };
}

/// The program's errno while a fork of libc's is under way, kept by the thread that forks, which has `host::STARTING` meanwhile.
static ERRNO: AtomicI32 = AtomicI32::new(0);

unsafe extern "C" fn prepare() {
    let quiet = SignalMask::block_all();
    // libc takes the list after our handlers ran; a thread that flushes all streams holds it while its write to a region waits for
    // what we are about to take. So the list comes first. It is recursive: libc's own turn finds it taken by this thread.
    // SAFETY: libc's own pair of functions, for use around a fork.
    unsafe { _IO_list_lock() };
    quiet.keep();
    take_ours();
    touch_streams();
    crate::far::still::nobody_hears();
    // Nothing else tells `parent` of a fork that failed: libc runs it all the same, and does not touch errno if it did not.
    ERRNO.store(errno::get().0, Ordering::Relaxed);
    errno::set(Errno(0));
}

/// In the child libc goes through its streams before it runs our handler: they have to be here, if pages of the program may be away.
fn touch_streams() {
    if !crate::far::is_started() {
        return;
    }
    // glibc's struct _IO_FILE (libio/bits/types/struct_FILE.h), on 64-bit machines.
    const CHAIN: usize = 0x68;
    const LOCK: usize = 0x88;
    const END: usize = 0xe0;
    unsafe extern "C" {
        static _IO_list_all: *const u8;
    }
    // SAFETY: this thread has the list, so no stream comes or goes; each is as long as said.
    unsafe {
        let mut stream = (&raw const _IO_list_all).read();
        while !stream.is_null() {
            stream.add(END - 1).read_volatile();
            let lock = stream.add(LOCK).cast::<*const u8>().read_volatile();
            if !lock.is_null() {
                lock.read_volatile();
            }
            stream = stream.add(CHAIN).cast::<*const u8>().read_volatile();
        }
    }
}

unsafe extern "C" fn parent() {
    let forked = errno::get() == Errno(0);
    if forked {
        errno::set(Errno(ERRNO.load(Ordering::Relaxed)));
    }
    ours_in_parent(forked);
    // SAFETY: `prepare` took it.
    unsafe { _IO_list_unlock() };
    drop(SignalMask::resume());
}

unsafe extern "C" fn child() {
    ours_in_child();
    errno::set(Errno(ERRNO.load(Ordering::Relaxed)));
    // libc made it new if there were other threads, and left it to us if not; new is right in both cases.
    // SAFETY: the child has one thread, and nobody else can hold it.
    unsafe { _IO_list_resetlock() };
    drop(SignalMask::resume());
}

fn take_ours() {
    stdio::lock_across_fork();
    spawn::lock_across_fork();
    trees::lock_across_fork();
    fork::prepare();
}

fn ours_in_parent(forked: bool) {
    fork::parent(forked);
    trees::unlock_after_fork();
    spawn::unlock_after_fork();
    stdio::unlock_after_fork();
}

fn ours_in_child() {
    process::note_pid();
    crate::sys::thread::forget_after_fork();
    fork::child();
    trees::unlock_after_fork();
    spawn::unlock_after_fork();
    stdio::unlock_after_fork();
    worker::forget_after_fork();
}

/// _Fork, which runs no handlers. It takes no lock of libc's either.
pub fn around(make: impl FnOnce() -> libc::pid_t) -> libc::pid_t {
    if process::in_shared_memory_child() {
        return make();
    }
    let quiet = SignalMask::block_all();
    take_ours();
    crate::far::still::nobody_hears();
    let result = make();
    if result == 0 {
        ours_in_child()
    } else {
        ours_in_parent(result > 0)
    }
    drop(quiet);
    result
}

/// What a cloned child runs.
struct Start {
    function: extern "C" fn(*mut c_void) -> c_int,
    argument: *mut c_void,
}

extern "C" fn start_child(start: *mut c_void) -> c_int {
    ours_in_child();
    drop(SignalMask::resume());
    // SAFETY: the box that `cloned` made, of which this process has a copy of its own.
    let start = unsafe { Box::from_raw(start as *mut Start) };
    let status = (start.function)(start.argument);
    process::at_exit();
    // libc would end this thread alone, and leave ours.
    // SAFETY: nothing comes after it.
    unsafe { libc::_exit(status) }
}

/// clone(2) by libc's function. A child with memory of its own is a fork without handlers; one that shares ours is as a thread, or as
/// after vfork.
pub fn cloned(
    function: extern "C" fn(*mut c_void) -> c_int,
    flags: c_int,
    argument: *mut c_void,
    make: impl FnOnce(extern "C" fn(*mut c_void) -> c_int, *mut c_void) -> c_int,
) -> c_int {
    let nothing_to_do = runtime_if_started().is_none() && !crate::far::has_begun();
    if flags & libc::CLONE_VM != 0 || nothing_to_do || process::in_shared_memory_child() {
        return make(function, argument);
    }
    let start = Box::into_raw(Box::new(Start { function, argument }));
    let quiet = SignalMask::block_all();
    take_ours();
    crate::far::still::nobody_hears();
    let result = make(start_child, start.cast());
    ours_in_parent(result > 0);
    drop(quiet);
    // SAFETY: the child has a copy of its own.
    drop(unsafe { Box::from_raw(start) });
    result
}

/// Before the program's first thread: a child of a program with threads must not have to look for a function of libc's, which
/// takes a lock that a thread of its parent may have held.
pub fn before_thread() {
    resolve::all();
}
