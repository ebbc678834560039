//! The shim's own heap, over raw mmap.
//!
//! Owns: the global allocator of this library. Called by: every Box and Vec in it. Must not: use the program's malloc or
//! libc's mmap (rule 1). The lock blocks signals, so that a handler that interrupts us can allocate; the fork hook holds
//! it across fork.

use core::alloc::{GlobalAlloc, Layout};
use core::sync::atomic::{AtomicUsize, Ordering};
use core::time::Duration;

use dlmalloc::Dlmalloc;

use super::aside;
use super::syscall::{call, raw};
use crate::sync::{QuietGuard, QuietMutex};

struct RawPages;

/// Bytes kept for the moment in which the kernel gives the process no more mappings (vm.max_map_count) or addresses (RLIMIT_AS): a
/// program survives that, and so must we. Reserved without access, so they cost nothing.
const SPARE_BYTES: usize = 24 << 20;
/// Of these, what far memory needs when pages come in: frames of a thousand pages.
const OPEN_BYTES: usize = 8 << 20;
/// How often the thread that has memory aside tries to have the heap: some 20 ms.
const ASIDE_TRIES: u32 = 300;
/// Where they lie; 0 before there are any.
static SPARE: AtomicUsize = AtomicUsize::new(0);
/// Bytes of them that are in use.
static SPARE_USED: AtomicUsize = AtomicUsize::new(0);

/// Reserves them, once in a process. Without them the heap can do what the kernel lets it.
pub fn keep_spare_room() {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    if let Ok(at) = super::mem::map_ours(SPARE_BYTES, libc::PROT_NONE, flags, -1, 0) {
        // The first page is open already: opening more of it next to that moves an edge and makes no mapping.
        if super::mem::mprotect(at, super::mem::PAGE, libc::PROT_READ | libc::PROT_WRITE).is_ok() {
            SPARE_USED.store(super::mem::PAGE, Ordering::Relaxed);
            SPARE.store(at, Ordering::Release);
        }
    }
}

/// Has some of them where the program's own limit of its data (RLIMIT_DATA) is reached, too: they count from now on, as if they were used.
pub fn open_spare_room() {
    if SPARE.load(Ordering::Acquire) == 0 {
        keep_spare_room();
    }
    let at = SPARE.load(Ordering::Acquire);
    if at != 0 {
        let _ = super::mem::mprotect(at, OPEN_BYTES, libc::PROT_READ | libc::PROT_WRITE);
    }
}

/// Bytes of the spare room. The heap's lock is held.
fn from_spare_room(size: usize) -> Option<usize> {
    let (at, used) = (SPARE.load(Ordering::Acquire), SPARE_USED.load(Ordering::Relaxed));
    if at == 0 || size > SPARE_BYTES - used {
        return None;
    }
    super::mem::mprotect(at + used, size, libc::PROT_READ | libc::PROT_WRITE).ok()?;
    SPARE_USED.store(used + size, Ordering::Relaxed);
    Some(at + used)
}

fn is_spare(ptr: *mut u8) -> bool {
    let at = SPARE.load(Ordering::Acquire);
    at != 0 && (at..at + SPARE_BYTES).contains(&(ptr as usize))
}

// SAFETY: hands out fresh private mappings, page-aligned, and gives back exactly what dlmalloc names.
unsafe impl dlmalloc::Allocator for RawPages {
    fn alloc(&self, size: usize) -> (*mut u8, usize, u32) {
        let (prot, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        match super::mem::map_ours(size, prot, flags, -1, 0).ok().or_else(|| from_spare_room(size)) {
            Some(at) => (at as *mut u8, size, 0),
            None => (core::ptr::null_mut(), 0, 0),
        }
    }

    fn remap(&self, ptr: *mut u8, oldsize: usize, newsize: usize, can_move: bool) -> *mut u8 {
        if is_spare(ptr) {
            return core::ptr::null_mut();
        }
        let flags = if can_move { libc::MREMAP_MAYMOVE as usize } else { 0 };
        // SAFETY: dlmalloc names one of its own mappings.
        match unsafe { call(libc::SYS_mremap, [ptr as usize, oldsize, newsize, flags, 0, 0]) } {
            Ok(at) => at as *mut u8,
            Err(_) => core::ptr::null_mut(),
        }
    }

    fn free_part(&self, ptr: *mut u8, oldsize: usize, newsize: usize) -> bool {
        !is_spare(ptr)
            // SAFETY: the tail of one of dlmalloc's own mappings, which it no longer uses.
            && unsafe { raw(libc::SYS_munmap, [ptr as usize + newsize, oldsize - newsize, 0, 0, 0, 0]) == 0 }
    }

    fn free(&self, ptr: *mut u8, size: usize) -> bool {
        // SAFETY: one of dlmalloc's own mappings, which it no longer uses.
        !is_spare(ptr) && unsafe { raw(libc::SYS_munmap, [ptr as usize, size, 0, 0, 0, 0]) == 0 }
    }

    fn can_release_part(&self, _flags: u32) -> bool {
        true
    }

    fn allocates_zeros(&self) -> bool {
        true
    }

    fn page_size(&self) -> usize {
        4096
    }
}

/// See the module.
pub struct PrivateHeap {
    inner: QuietMutex<Dlmalloc<RawPages>>,
}

impl PrivateHeap {
    /// An empty heap.
    #[allow(clippy::new_without_default)]
    pub const fn new() -> Self {
        PrivateHeap { inner: QuietMutex::new(Dlmalloc::new_with_allocator(RawPages)) }
    }

    /// Takes the heap's lock for the duration of a fork. Nothing may be allocated until it is given back, but by the thread that has memory
    /// aside.
    pub fn lock_across_fork(&'static self) {
        aside::set_forking(true);
        let _: crate::sync::Kept = self.inner.lock_keeping_mask();
    }

    /// Gives it back, in the parent and in the child.
    pub fn unlock_after_fork(&'static self) {
        self.inner.unlock_kept();
        aside::set_forking(false);
    }

    /// The heap; None for the thread that may not wait for a fork.
    fn heap(&self) -> Option<QuietGuard<'_, Dlmalloc<RawPages>>> {
        let mut heap = if aside::is_mine() {
            let mut tries = 0;
            loop {
                // Whoever has it may also wait for a page of his stack.
                if aside::is_forking() || tries == ASIDE_TRIES {
                    return None;
                }
                match self.inner.try_lock() {
                    Some(heap) => break heap,
                    None => super::futex::pause(Duration::from_micros(5)),
                }
                tries += 1;
            }
        } else {
            self.inner.lock()
        };
        for (block, size, align) in aside::kept() {
            // SAFETY: it came from this heap with this layout.
            unsafe { heap.free(block, size, align) };
        }
        Some(heap)
    }

    /// The heap, or memory aside.
    fn heap_or_aside(&self, layout: Layout) -> Result<QuietGuard<'_, Dlmalloc<RawPages>>, *mut u8> {
        match self.heap() {
            Some(heap) => Ok(heap),
            None => aside::take(layout).map_or_else(|| Ok(self.inner.lock()), Err),
        }
    }
}

// SAFETY: dlmalloc honours layouts, and the lock makes every call exclusive; what lies aside is handed out once.
unsafe impl GlobalAlloc for PrivateHeap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match self.heap_or_aside(layout) {
            // SAFETY: a layout of size 0 never comes here (GlobalAlloc's contract).
            Ok(mut heap) => unsafe { heap.malloc(layout.size(), layout.align()) },
            Err(aside) => aside,
        }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        if aside::contains(ptr) {
            return aside::give_back(ptr);
        }
        match self.heap() {
            // SAFETY: the caller got it from us with this layout.
            Some(mut heap) => unsafe { heap.free(ptr, layout.size(), layout.align()) },
            // SAFETY: as above; dlmalloc's smallest block has 24 bytes.
            None => unsafe { aside::keep_for_later(ptr, layout) },
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        match self.heap_or_aside(layout) {
            // SAFETY: as alloc.
            Ok(mut heap) => unsafe { heap.calloc(layout.size(), layout.align()) },
            // SAFETY: as long as the layout says.
            Err(aside) => unsafe {
                aside.write_bytes(0, layout.size());
                aside
            },
        }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        if !aside::contains(ptr)
            && let Some(mut heap) = self.heap()
        {
            // SAFETY: as dealloc and alloc.
            return unsafe { heap.realloc(ptr, layout.size(), layout.align(), new_size) };
        }
        // SAFETY: as alloc and dealloc; both blocks are as long as said, and the caller sees to it that the new layout is one.
        unsafe {
            let new = self.alloc(Layout::from_size_align_unchecked(new_size, layout.align()));
            if !new.is_null() {
                core::ptr::copy_nonoverlapping(ptr, new, layout.size().min(new_size));
                self.dealloc(ptr, layout);
            }
            new
        }
    }
}
