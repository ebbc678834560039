//! Memory for the one thread that may not wait for the heap while a fork holds it: the monitor of far memory.
//!
//! Owns: a stretch that is handed out from its start, lists of what was given back of it, and of what that thread gave up meanwhile. Called by: alloc. Must not: be
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
    // It may have been in the middle of something.
    RETURNED.store(0, Ordering::Relaxed);
    FREE.iter().for_each(|list| list.store(0, Ordering::Relaxed));
}

/// Whether a block is one of these.
pub fn contains(ptr: *mut u8) -> bool {
    let at = AT.load(Ordering::Relaxed);
    at != 0 && (at..at + BYTES).contains(&(ptr as usize))
}

/// Bytes before a block: what it has room for, and the next one in its list.
const HEAD: usize = 16;
/// Blocks of up to so many bytes are powers of two, in a list for each; larger ones have a list together.
const SMALL_MAX: usize = 64 << 10;
const LISTS: usize = SMALL_MAX.ilog2() as usize + 2;

/// Blocks that can be handed out again; that thread's own.
static FREE: [AtomicUsize; LISTS] = [const { AtomicUsize::new(0) }; LISTS];
/// Blocks that were given back since, by anybody.
static RETURNED: AtomicUsize = AtomicUsize::new(0);

/// What a block for so many bytes has room for.
fn room_for(size: usize) -> usize {
    let power = size.max(32).next_power_of_two();
    if size <= SMALL_MAX { power } else { size.next_multiple_of(power / 8) }
}

fn list_of(room: usize) -> &'static AtomicUsize {
    &FREE[if room <= SMALL_MAX { room.ilog2() as usize } else { LISTS - 1 }]
}

/// What a block has room for, and the next one in its list.
fn head(block: usize) -> &'static [AtomicUsize; 2] {
    // SAFETY: each block has a head before it, in memory that is never given up.
    unsafe { &*((block - HEAD) as *const [AtomicUsize; 2]) }
}

/// A block that was used before.
fn used_before(room: usize) -> Option<usize> {
    let mut returned = RETURNED.swap(0, Ordering::Acquire);
    while returned != 0 {
        let [has, next] = head(returned);
        let behind = next.load(Ordering::Relaxed);
        let list = list_of(has.load(Ordering::Relaxed));
        next.store(list.swap(returned, Ordering::Relaxed), Ordering::Relaxed);
        returned = behind;
    }
    // The smallest that is large enough.
    let (mut link, mut best) = (list_of(room), None);
    loop {
        let block = link.load(Ordering::Relaxed);
        if block == 0 {
            break;
        }
        let [has, next] = head(block);
        let has = has.load(Ordering::Relaxed);
        if has >= room && best.is_none_or(|(least, _)| has < least) {
            best = Some((has, link));
        }
        link = next;
    }
    let (_, link) = best?;
    let block = link.load(Ordering::Relaxed);
    link.store(head(block)[1].load(Ordering::Relaxed), Ordering::Relaxed);
    Some(block)
}

/// Nobody has anything of it: it begins anew.
fn begin_anew(at: usize) {
    RETURNED.store(0, Ordering::Relaxed);
    FREE.iter().for_each(|list| list.store(0, Ordering::Relaxed));
    if USED.swap(0, Ordering::Relaxed) > SMALL_MAX {
        // SAFETY: as said; it counts as the program's memory until then.
        let _ = unsafe { super::mem::madvise(at, BYTES, libc::MADV_DONTNEED) };
    }
}

/// Zeros or not. None when it is all used.
pub fn take(layout: Layout) -> Option<*mut u8> {
    let at = AT.load(Ordering::Relaxed);
    if at == 0 {
        return None;
    }
    if LIVE.load(Ordering::Acquire) == 0 {
        begin_anew(at);
    }
    let room = room_for(layout.size());
    let before = if layout.align() <= HEAD { used_before(room) } else { None };
    let block = match before {
        Some(block) => block,
        None => {
            let from = at + USED.load(Ordering::Relaxed) + HEAD;
            let block = from.next_multiple_of(layout.align().max(HEAD));
            if block + room > at + BYTES {
                return None;
            }
            USED.store(block + room - at, Ordering::Relaxed);
            head(block)[0].store(room, Ordering::Relaxed);
            block
        }
    };
    LIVE.fetch_add(1, Ordering::Relaxed);
    Some(block as *mut u8)
}

/// One of these is not needed any more.
pub fn give_back(ptr: *mut u8) {
    let block = ptr as usize;
    let mut next = RETURNED.load(Ordering::Relaxed);
    loop {
        head(block)[1].store(next, Ordering::Relaxed);
        match RETURNED.compare_exchange(next, block, Ordering::Release, Ordering::Relaxed) {
            Ok(_) => break,
            Err(now) => next = now,
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_given_back_is_handed_out_again_beside_what_stays() {
        begin();
        let layout = |size| Layout::from_size_align(size, 8).expect("a layout");
        let stays = take(layout(200)).expect("memory");
        let mut most = 0;
        for round in 0..10_000_usize {
            let sizes = [24, 200, 5000, 1 << 20, (1 << 20) + 4096 * (round % 50)];
            let blocks: Vec<*mut u8> = sizes.iter().filter_map(|size| take(layout(*size))).collect();
            assert_eq!(blocks.len(), sizes.len());
            for (block, size) in blocks.iter().zip(sizes) {
                // SAFETY: as long as asked for, and this test's own.
                unsafe { block.write_bytes(round as u8, size) };
            }
            blocks.into_iter().for_each(give_back);
            most = most.max(USED.load(Ordering::Relaxed));
        }
        assert!(most < 8 << 20, "{most} bytes");
        give_back(stays);
        THREAD.store(core::ptr::null_mut(), Ordering::Release);
    }
}
