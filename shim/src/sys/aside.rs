//! Memory for the one thread that may not wait for the heap while a fork holds it: the monitor of far memory.
//!
//! Owns: a stretch that is handed out from its start, and the list of what that thread gave up meanwhile. Called by: alloc. Must not: be
//! used by two threads; giving back is anybody's.
//!
//! A thread of the program may have an arena of libc's, for which the fork waits with our heap held, and wait itself for a page that the
//! monitor has to bring (DESIGN.md, A6).

use core::alloc::Layout;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};

use super::own::{Own, own};

/// Reserved; what is never used costs nothing.
const BYTES: usize = 16 << 20;

static THREAD: AtomicPtr<Own> = AtomicPtr::new(core::ptr::null_mut());
static FORKING: AtomicBool = AtomicBool::new(false);
/// 0 before there is any.
static AT: AtomicUsize = AtomicUsize::new(0);
static USED: AtomicUsize = AtomicUsize::new(0);
/// Pieces that are in use.
static LIVE: AtomicUsize = AtomicUsize::new(0);
/// Blocks of the heap that were given up meanwhile; each begins with the address of the next one, its size and its alignment.
static LATER: AtomicUsize = AtomicUsize::new(0);

/// The calling thread is that one.
pub fn begin() {
    if AT.load(Ordering::Acquire) == 0 {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        if let Ok(at) = super::mem::map_ours(BYTES, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) {
            AT.store(at, Ordering::Release);
        }
    }
    THREAD.store(core::ptr::from_ref(own()).cast_mut(), Ordering::Release);
}

/// Whether the calling thread is that one.
pub fn is_mine() -> bool {
    let thread = THREAD.load(Ordering::Relaxed);
    !thread.is_null() && core::ptr::eq(thread, own())
}

/// Before a fork takes the heap's lock, and after it gave it up.
pub fn set_forking(forking: bool) {
    FORKING.store(forking, Ordering::SeqCst);
}

/// Whether one has it, or is about to.
pub fn is_forking() -> bool {
    FORKING.load(Ordering::SeqCst)
}

/// In a forked child that thread is not there, and what it was giving up stays where it is.
pub fn forget_after_fork() {
    THREAD.store(core::ptr::null_mut(), Ordering::Release);
    LATER.store(0, Ordering::Relaxed);
}

/// Whether a block is one of these.
pub fn contains(ptr: *mut u8) -> bool {
    let at = AT.load(Ordering::Relaxed);
    at != 0 && (at..at + BYTES).contains(&(ptr as usize))
}

/// Zeros or not. None when it is all used.
pub fn take(layout: Layout) -> Option<*mut u8> {
    let at = AT.load(Ordering::Relaxed);
    if LIVE.load(Ordering::Acquire) == 0 {
        USED.store(0, Ordering::Relaxed);
    }
    let from = (at + USED.load(Ordering::Relaxed)).next_multiple_of(layout.align());
    if at == 0 || from + layout.size() > at + BYTES {
        return None;
    }
    USED.store(from + layout.size() - at, Ordering::Relaxed);
    LIVE.fetch_add(1, Ordering::Relaxed);
    Some(from as *mut u8)
}

/// One of these is not needed any more.
pub fn give_back() {
    LIVE.fetch_sub(1, Ordering::Release);
}

/// A block of the heap is not needed any more, and the heap can't be asked.
///
/// # Safety
/// The block is the caller's to give up, with its layout; every block of the heap has room for three words.
pub unsafe fn keep_for_later(ptr: *mut u8, layout: Layout) {
    let mut next = LATER.load(Ordering::Relaxed);
    loop {
        // SAFETY: the caller's.
        unsafe { ptr.cast::<[usize; 3]>().write_unaligned([next, layout.size(), layout.align()]) };
        match LATER.compare_exchange(next, ptr as usize, Ordering::Release, Ordering::Relaxed) {
            Ok(_) => return,
            Err(now) => next = now,
        }
    }
}

/// What was kept for later, one after the other, with size and alignment. The heap's lock is held.
pub fn kept() -> impl Iterator<Item = (*mut u8, usize, usize)> {
    let mut next = if LATER.load(Ordering::Relaxed) == 0 { 0 } else { LATER.swap(0, Ordering::Acquire) };
    core::iter::from_fn(move || {
        let ptr = next as *mut u8;
        if ptr.is_null() {
            return None;
        }
        // SAFETY: a block that begins with these words; read before the caller frees it.
        let [behind, size, align] = unsafe { ptr.cast::<[usize; 3]>().read_unaligned() };
        next = behind;
        Some((ptr, size, align))
    })
}
