//! Page memory: pages of 4096 bytes in aligned slabs of 2 MiB, their reference counts and checksums beside them.
//!
//! Owns: the memory of every stored page and the count of them. Called by: tree, memory. Must not: know what a page
//! holds. The only file of this crate with `unsafe`.

#![allow(unsafe_code)]

use std::cell::UnsafeCell;
use std::mem::ManuallyDrop;
use std::num::NonZeroUsize;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use netmem_protocol::{PAGE_SIZE, page_sum};
use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap_anonymous, munmap};

/// The bytes of one page.
pub type PageBytes = [u8; PAGE_SIZE];

/// Bytes in a slab, and its alignment: a page's slab is its address rounded down.
const SLAB_BYTES: usize = 2 << 20;
/// Pages at the front of a slab that its head takes.
const HEAD_PAGES: usize = 2;
/// Pages of data in a slab: the first two of its 512 pages are the head.
const SLAB_PAGES: usize = SLAB_BYTES / PAGE_SIZE - HEAD_PAGES;
/// Slabs without a page in use that are kept for the next allocation: 64 × 2 MiB = 128 MiB, or as many as are in use. A region that
/// is written all over again, commit for commit, finds its new pages where its old ones were; clearing fresh ones costs the kernel
/// more than all else that a commit does. More go back to the kernel.
const EMPTY_SLABS_KEPT: usize = 64;
/// References to one page at the most; each is held by a leaf of more than 1 KiB, so memory ends long before.
const PAGE_REFERENCES_MAX: u32 = i32::MAX as u32;

/// No page is left within the limit, or the kernel gave no memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfPages;

/// The front of a slab.
#[repr(C)]
struct Head {
    /// Keeps the pool alive while the slab is mapped.
    pool: ManuallyDrop<Arc<Pool>>,
    /// References to each page.
    references: [AtomicU32; SLAB_PAGES],
    /// The checksum of each page, written before there is more than one reference.
    sums: [AtomicU64; SLAB_PAGES],
    /// Read and written with the pool's lock held.
    free: UnsafeCell<Free>,
}

/// Which pages of a slab are free.
struct Free {
    /// How many entries of `stack` are in use.
    count: usize,
    /// Where the slab is in `State::open`, when `count` is not 0.
    place: usize,
    /// Numbers of free pages.
    stack: [u16; SLAB_PAGES],
}

const _: () = assert!(size_of::<Head>() <= HEAD_PAGES * PAGE_SIZE);

#[derive(Clone, Copy, PartialEq, Eq)]
struct Slab(NonNull<Head>);

// SAFETY: a slab is plain memory that belongs to no thread; what is not atomic in its head is guarded by the pool's lock.
unsafe impl Send for Slab {}

struct Pool {
    pages_max: u64,
    /// Lock order: last of all; nothing else is locked while it is held.
    state: Mutex<State>,
}

struct State {
    used: u64,
    /// Slabs with pages in use and free ones. Allocation takes from the last.
    open: Vec<Slab>,
    /// Slabs without a page in use.
    empty: Vec<Slab>,
    /// Slabs that are mapped.
    mapped: usize,
    /// At least as many empty ones are kept.
    empty_kept: usize,
}

impl State {
    fn empty_max(&self) -> usize {
        if self.empty_kept == 0 { 0 } else { self.empty_kept.max(self.mapped - self.empty.len()) }
    }
}

/// A pool of pages. Dropping it leaves pages that are still referred to alone.
pub struct Slabs {
    pool: Arc<Pool>,
}

impl Slabs {
    /// A pool of at most `pages_max` pages. Maps nothing yet.
    pub fn new(pages_max: u64) -> Self {
        let state =
            State { used: 0, open: Vec::new(), empty: Vec::new(), mapped: 0, empty_kept: EMPTY_SLABS_KEPT };
        Slabs { pool: Arc::new(Pool { pages_max, state: Mutex::new(state) }) }
    }

    /// A page to fill in. Its content is arbitrary: whatever the page held before.
    pub fn fresh(&self) -> Result<FreshPage, OutOfPages> {
        Pool::take(&self.pool).map(|page| FreshPage { page: PageRef { page } })
    }

    /// A page with these bytes.
    pub fn copy_of(&self, bytes: &PageBytes) -> Result<PageRef, OutOfPages> {
        let mut page = self.fresh()?;
        page.copy_from_slice(bytes);
        Ok(page.seal())
    }

    /// Pages in use.
    pub fn used(&self) -> u64 {
        self.pool.lock().used
    }

    /// Pages allowed.
    pub fn pages_max(&self) -> u64 {
        self.pool.pages_max
    }
}

impl Drop for Slabs {
    fn drop(&mut self) {
        let mut state = self.pool.lock();
        state.empty_kept = 0;
        let empty = std::mem::take(&mut state.empty);
        state.mapped -= empty.len();
        drop(state);
        for slab in empty {
            // SAFETY: none of its pages is in use and it is in no list any more.
            unsafe { slab.unmap() };
        }
    }
}

impl Pool {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(pool: &Arc<Pool>) -> Result<NonNull<PageBytes>, OutOfPages> {
        let mut state = pool.lock();
        if state.used >= pool.pages_max {
            return Err(OutOfPages);
        }
        let slab = match state.open.last() {
            Some(slab) => *slab,
            None => {
                let slab = match state.empty.pop() {
                    Some(slab) => slab,
                    None => {
                        let slab = Slab::map(pool)?;
                        state.mapped += 1;
                        slab
                    }
                };
                state.open.push(slab);
                // SAFETY: the slab is mapped, and the lock is held.
                unsafe { (*slab.free()).place = state.open.len() - 1 };
                slab
            }
        };
        // SAFETY: the slab is mapped, and the lock is held.
        let free = unsafe { &mut *slab.free() };
        free.count -= 1;
        let number = usize::from(free.stack[free.count]);
        if free.count == 0 {
            state.open.pop();
        }
        state.used += 1;
        drop(state);
        // SAFETY: the slab is mapped; `number` came from its stack.
        unsafe { slab.head().references[number].store(1, Ordering::Relaxed) };
        Ok(slab.page(number))
    }

    /// Takes a page back. Slabs that are returned are in no list any more, and the caller's to unmap: two at a time, so that what
    /// is kept comes down with what is in use.
    fn give(&self, slab: Slab, number: usize) -> [Option<Slab>; 2] {
        let mut state = self.lock();
        state.used -= 1;
        // SAFETY: the slab is mapped since one of its pages was in use until now; the lock is held.
        let free = unsafe { &mut *slab.free() };
        if free.count == 0 {
            free.place = state.open.len();
            state.open.push(slab);
        }
        free.stack[free.count] = number as u16;
        free.count += 1;
        if free.count < SLAB_PAGES {
            return [None; 2];
        }
        let place = free.place;
        state.open.swap_remove(place);
        if let Some(moved) = state.open.get(place) {
            // SAFETY: slabs in `open` are mapped; the lock is held; `moved` is not `slab`, so `free` does not alias.
            unsafe { (*moved.free()).place = place };
        }
        state.empty.push(slab);
        [(); 2].map(|()| {
            let gone = (state.empty.len() > state.empty_max()).then(|| state.empty.pop()).flatten();
            state.mapped -= usize::from(gone.is_some());
            gone
        })
    }
}

impl Slab {
    fn map(pool: &Arc<Pool>) -> Result<Slab, OutOfPages> {
        let length = NonZeroUsize::new(2 * SLAB_BYTES).ok_or(OutOfPages)?;
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE;
        // SAFETY: a new anonymous mapping at an address of the kernel's choice touches nothing that exists.
        let wide = unsafe { mmap_anonymous(None, length, protection, flags) }.map_err(|_| OutOfPages)?;
        let before = wide.as_ptr().align_offset(SLAB_BYTES);
        // SAFETY: twice a slab's bytes hold a whole aligned slab; the parts before and behind it are ours and unused.
        let base = unsafe {
            let base = wide.byte_add(before);
            if before > 0 {
                let _ = munmap(wide, before);
            }
            if before < SLAB_BYTES {
                let _ = munmap(base.byte_add(SLAB_BYTES), SLAB_BYTES - before);
            }
            // Fewer faults while it fills up. A kernel without huge pages says no, and that is all right.
            let _ = madvise(base, SLAB_BYTES, MmapAdvise::MADV_HUGEPAGE);
            base.cast::<Head>()
        };
        let mut stack = [0; SLAB_PAGES];
        for (at, number) in stack.iter_mut().enumerate() {
            *number = (SLAB_PAGES - 1 - at) as u16;
        }
        let head = Head {
            pool: ManuallyDrop::new(Arc::clone(pool)),
            references: [const { AtomicU32::new(0) }; SLAB_PAGES],
            sums: [const { AtomicU64::new(0) }; SLAB_PAGES],
            free: UnsafeCell::new(Free { count: SLAB_PAGES, place: 0, stack }),
        };
        // SAFETY: the front is mapped, writable, aligned, large enough (asserted above) and not in use.
        unsafe { base.write(head) };
        Ok(Slab(base))
    }

    /// # Safety
    /// No page of the slab is in use, it is in no list, and nobody borrows its pool through it.
    unsafe fn unmap(self) {
        // SAFETY: the head is initialised; the Arc is taken out once, since the mapping goes with it.
        let pool = unsafe { std::ptr::read(&(*self.0.as_ptr()).pool) };
        // SAFETY: the range is a mapping of ours (`map`) that nobody refers to, by this function's precondition.
        let _ = unsafe { munmap(self.0.cast(), SLAB_BYTES) };
        drop(ManuallyDrop::into_inner(pool));
    }

    /// # Safety
    /// The slab stays mapped as long as the reference is used.
    unsafe fn head<'a>(self) -> &'a Head {
        // SAFETY: initialised by `map`, mapped by this function's precondition.
        unsafe { self.0.as_ref() }
    }

    fn free(self) -> *mut Free {
        // SAFETY: only an address is made: `UnsafeCell::raw_get` reads nothing.
        unsafe { UnsafeCell::raw_get(&raw const (*self.0.as_ptr()).free) }
    }

    fn page(self, number: usize) -> NonNull<PageBytes> {
        debug_assert!(number < SLAB_PAGES);
        // SAFETY: page `number` is behind the head, inside the slab.
        unsafe { self.0.byte_add((number + HEAD_PAGES) * PAGE_SIZE).cast() }
    }
}

/// A reference to a page that no longer changes. Eight bytes; a clone counts up, a drop counts down.
pub struct PageRef {
    page: NonNull<PageBytes>,
}

// SAFETY: what it refers to is read-only, and its count is atomic.
unsafe impl Send for PageRef {}
// SAFETY: as above.
unsafe impl Sync for PageRef {}

impl PageRef {
    fn slab(&self) -> (Slab, usize) {
        let within = self.page.addr().get() % SLAB_BYTES;
        // SAFETY: pages lie inside slabs, slabs are aligned to their size: rounding down gives the head.
        let head = unsafe { self.page.byte_sub(within) };
        (Slab(head.cast()), within / PAGE_SIZE - HEAD_PAGES)
    }

    /// Its checksum ([`page_sum`]).
    pub fn sum(&self) -> u64 {
        self.sum_place().load(Ordering::Relaxed)
    }

    fn sum_place(&self) -> &AtomicU64 {
        let (slab, number) = self.slab();
        // SAFETY: a slab stays mapped while one of its pages is in use, and this one is.
        unsafe { &slab.head().sums[number] }
    }

    fn references(&self) -> &AtomicU32 {
        let (slab, number) = self.slab();
        // SAFETY: a slab stays mapped while one of its pages is in use, and this one is.
        unsafe { &slab.head().references[number] }
    }
}

impl Clone for PageRef {
    fn clone(&self) -> Self {
        let before = self.references().fetch_add(1, Ordering::Relaxed);
        assert!(before < PAGE_REFERENCES_MAX, "a page with {before} references");
        PageRef { page: self.page }
    }
}

impl Drop for PageRef {
    fn drop(&mut self) {
        if self.references().fetch_sub(1, Ordering::Release) != 1 {
            return;
        }
        fence(Ordering::Acquire);
        let (slab, number) = self.slab();
        // SAFETY: the page counts as in use until `give` has the lock, so the slab is mapped.
        let pool: *const Pool = unsafe { Arc::as_ptr(&slab.head().pool) };
        // SAFETY: the slab's own Arc keeps the pool alive, and nobody can unmap the slab before `give` has let go of the lock.
        let gone = unsafe { (*pool).give(slab, number) };
        for slab in gone.into_iter().flatten() {
            // SAFETY: `give` took it out of the lists with no page in use; the borrow of the pool has ended.
            unsafe { slab.unmap() };
        }
    }
}

impl Deref for PageRef {
    type Target = PageBytes;

    fn deref(&self) -> &PageBytes {
        // SAFETY: the page is in use, so it is mapped and nobody writes to it.
        unsafe { self.page.as_ref() }
    }
}

/// A page with one owner, who may write to it.
pub struct FreshPage {
    page: PageRef,
}

impl FreshPage {
    /// Ends the writing, and takes the page's checksum.
    pub fn seal(self) -> PageRef {
        let sum = page_sum(&self[..]);
        self.page.sum_place().store(sum, Ordering::Relaxed);
        self.page
    }
}

impl Deref for FreshPage {
    type Target = PageBytes;

    fn deref(&self) -> &PageBytes {
        &self.page
    }
}

impl DerefMut for FreshPage {
    fn deref_mut(&mut self) -> &mut PageBytes {
        // SAFETY: the count is 1 and the reference is inside `self`, which is borrowed mutably: nobody else reads it.
        unsafe { self.page.page.as_mut() }
    }
}

/// Whether all bytes are 0.
pub fn is_zero(bytes: &[u8]) -> bool {
    // Blocks of 64 bytes are or-ed together without a branch inside, which the compiler turns into vector code.
    let blocks = bytes.chunks_exact(64);
    blocks.remainder().iter().all(|byte| *byte == 0)
        && blocks.into_iter().all(|block| block.iter().fold(0, |any, byte| any | byte) == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_keep_their_bytes_and_the_count_returns_to_zero() {
        let slabs = Slabs::new(10_000);
        let pages: Vec<PageRef> =
            (0..2_000u32).filter_map(|i| slabs.copy_of(&[i as u8; PAGE_SIZE]).ok()).collect();
        assert_eq!(slabs.used(), 2_000);
        let again = pages.clone();
        drop(pages);
        assert_eq!(slabs.used(), 2_000);
        for (i, page) in again.iter().enumerate() {
            assert!(page.iter().all(|byte| *byte == i as u8), "page {i}");
        }
        drop(again);
        assert_eq!(slabs.used(), 0);
    }

    #[test]
    fn the_limit_is_exact_and_a_freed_page_is_recycled() {
        let slabs = Slabs::new(3);
        let mut pages: Vec<PageRef> = (0..3).filter_map(|_| slabs.copy_of(&[1; PAGE_SIZE]).ok()).collect();
        assert_eq!(pages.len(), 3);
        assert!(slabs.fresh().is_err());
        let where_it_was = pages.pop().map(|page| page.as_ptr());
        let again = slabs.copy_of(&[2; PAGE_SIZE]).ok();
        assert_eq!(again.map(|page| page.as_ptr()), where_it_was);
    }

    #[test]
    fn pages_outlive_their_pool() {
        let slabs = Slabs::new(2_000);
        let pages: Vec<PageRef> = (0..1_200).filter_map(|_| slabs.copy_of(&[7; PAGE_SIZE]).ok()).collect();
        drop(slabs);
        assert!(pages.iter().all(|page| page[4095] == 7));
    }

    #[test]
    fn empty_slabs_beyond_the_reserve_go_back_to_the_kernel() {
        let slabs = Slabs::new(1 << 20);
        let count = (EMPTY_SLABS_KEPT + 10) * SLAB_PAGES;
        let pages: Vec<FreshPage> = (0..count).filter_map(|_| slabs.fresh().ok()).collect();
        assert_eq!(pages.len(), count);
        drop(pages);
        let state = slabs.pool.lock();
        assert_eq!((state.open.len(), state.empty.len()), (0, EMPTY_SLABS_KEPT));
        assert_eq!((state.mapped, state.used), (EMPTY_SLABS_KEPT, 0));
    }

    #[test]
    fn as_many_empty_slabs_are_kept_as_are_in_use() {
        let slabs = Slabs::new(1 << 20);
        let fill = |slabs_full: usize| -> Vec<FreshPage> {
            (0..slabs_full * SLAB_PAGES).filter_map(|_| slabs.fresh().ok()).collect()
        };
        let (stays, goes) = (fill(EMPTY_SLABS_KEPT + 20), fill(2 * EMPTY_SLABS_KEPT));
        drop(goes);
        assert_eq!(slabs.pool.lock().empty.len(), EMPTY_SLABS_KEPT + 20);
        drop(stays);
        assert_eq!(slabs.pool.lock().empty.len(), EMPTY_SLABS_KEPT);
    }

    #[test]
    fn threads_that_share_and_drop_pages_leave_none_behind() {
        let slabs = Slabs::new(10_000);
        std::thread::scope(|scope| {
            for seed in 0..4u8 {
                let slabs = &slabs;
                scope.spawn(move || {
                    for round in 0..200u8 {
                        let pages: Vec<PageRef> =
                            (0..50).filter_map(|_| slabs.copy_of(&[seed ^ round; PAGE_SIZE]).ok()).collect();
                        let more = pages.clone();
                        drop(pages);
                        assert!(more.iter().all(|page| page[17] == seed ^ round));
                    }
                });
            }
        });
        assert_eq!(slabs.used(), 0);
    }

    #[test]
    fn one_byte_anywhere_makes_a_page_not_zero() {
        let mut page = [0; PAGE_SIZE];
        assert!(is_zero(&page));
        for at in 0..PAGE_SIZE {
            page[at] = 1;
            assert!(!is_zero(&page), "byte {at}");
            page[at] = 0;
        }
        assert!(!is_zero(&[0, 0, 1]));
    }
}
