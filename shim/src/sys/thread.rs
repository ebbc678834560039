//! Threads of our own.
//!
//! Owns: starting one with every signal blocked, and that the process ends without them. Called by: engine::uffd, the background
//! committer, pthread_exit. Must not: start any
//! before the first use of a mapping or an asynchronous sync.
//!
//! pthread_create is libc's and allocates a few hundred bytes from the program's heap for thread-local storage; a thread
//! without it could call nothing that sets errno (CONTRIBUTING.md, rule 1, the exception).

use core::ffi::c_void;
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering};
use core::time::Duration;

use super::errno::Errno;
use super::signal::{self, SignalMask};
use super::{futex, proc};

/// The numbers of our threads.
static OURS: [AtomicI32; 8] = [const { AtomicI32::new(0) }; 8];
static OURS_COUNT: AtomicUsize = AtomicUsize::new(0);
/// Whether the main thread has ended by pthread_exit, and whether somebody waits for the others to end.
static MAIN_HAS_ENDED: AtomicBool = AtomicBool::new(false);
static WATCHED: AtomicBool = AtomicBool::new(false);
/// The control block of each thread of ours, which libc puts above its stack; 0 for none.
static CONTROLS: [AtomicUsize; 16] = [const { AtomicUsize::new(0) }; 16];

/// Whether a range may hold part of the stack or the control block of a thread of ours.
pub fn is_near_ours(start: usize, end: usize) -> bool {
    /// The block itself and thread-local storage, on either side of it.
    const MORE: usize = 64 << 10;
    controls().any(|at| start < at + MORE && end > at.saturating_sub(STACK_BYTES + MORE))
}

/// Where they are.
pub fn controls() -> impl Iterator<Item = usize> {
    CONTROLS.iter().map(|place| place.load(Ordering::Acquire)).filter(|at| *at != 0)
}

/// In a forked child, once it is known what of its memory is whose.
pub fn forget_controls_after_fork() {
    CONTROLS.iter().for_each(|place| place.store(0, Ordering::SeqCst));
}

/// The calling thread goes before the program's, as far as the process may say so (CAP_SYS_NICE or RLIMIT_NICE; setpriority(2) of one thread,
/// as Linux has it): others wait for what it does, and it does not do much.
pub fn go_first() {
    const NICE: usize = -10_isize as usize;
    // SAFETY: takes numbers only; 0 is the calling thread.
    let _ = unsafe {
        super::syscall::call(libc::SYS_setpriority, [libc::PRIO_PROCESS as usize, 0, NICE, 0, 0, 0])
    };
}

/// Runs `body` on a new detached thread.
pub fn spawn(body: Box<dyn FnOnce() + Send>) -> Result<(), Errno> {
    extern "C" fn start(arg: *mut c_void) -> *mut c_void {
        // SAFETY: the pointer is the box that `spawn` leaked for this thread alone.
        let body = unsafe { Box::from_raw(arg as *mut Box<dyn FnOnce() + Send>) };
        // The thread was made with every signal blocked, and stays so.
        let _quiet = SignalMask::already_blocked();
        // SAFETY: the calling thread's own.
        let me = unsafe { libc::pthread_self() } as usize;
        let is_free =
            |place: &&AtomicUsize| place.compare_exchange(0, me, Ordering::SeqCst, Ordering::SeqCst).is_ok();
        let place = CONTROLS.iter().find(is_free);
        note_ours();
        watch_if_needed();
        body();
        if let Some(place) = place {
            place.store(0, Ordering::SeqCst);
        }
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

/// A thread of the program is about to end by pthread_exit. libc ends the process with the last thread, and counts ours: once the
/// main thread is gone, one of ours looks whether any of the program's is left.
pub fn before_exit() {
    if signal::thread_number() == rustix::process::getpid().as_raw_nonzero().get() {
        MAIN_HAS_ENDED.store(true, Ordering::SeqCst);
        watch_if_needed();
    }
}

/// The calling thread is one of ours.
pub(super) fn note_ours() {
    let place = OURS_COUNT.fetch_add(1, Ordering::SeqCst);
    if let Some(place) = OURS.get(place) {
        place.store(signal::thread_number(), Ordering::SeqCst);
    }
}

fn watch_if_needed() {
    if MAIN_HAS_ENDED.load(Ordering::SeqCst)
        && OURS_COUNT.load(Ordering::SeqCst) > 0
        && !WATCHED.swap(true, Ordering::SeqCst)
    {
        let _ = spawn(Box::new(end_with_the_last));
    }
}

/// Polls: nobody tells when a thread ends. Only a program whose main thread ended by pthread_exit has this thread.
fn end_with_the_last() {
    let ours = || OURS.iter().map(|number| number.load(Ordering::SeqCst)).collect::<Vec<_>>();
    while proc::threads().iter().any(|thread| !ours().contains(thread) && proc::thread_lives(*thread)) {
        futex::pause(Duration::from_millis(20));
    }
    // The program's exit handlers run as in its own last thread, but for their stack.
    signal::change(libc::SIG_SETMASK, 0);
    // SAFETY: what the last thread would have called.
    unsafe { libc::exit(0) }
}

/// A forked child has none of them, and its one thread is its main thread.
pub fn forget_after_fork() {
    OURS_COUNT.store(0, Ordering::SeqCst);
    for number in &OURS {
        number.store(0, Ordering::SeqCst);
    }
    MAIN_HAS_ENDED.store(false, Ordering::SeqCst);
    WATCHED.store(false, Ordering::SeqCst);
}

/// Bytes of stack: our deepest path keeps its buffers on the heap. glibc takes thread-local storage out of it too.
const STACK_BYTES: usize = 256 * 1024;
