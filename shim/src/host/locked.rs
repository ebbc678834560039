//! Which pages of regions a process has locked: they don't leave the page cache.
//!
//! Owns: the ranges of addresses, and what the other processes of the host are told of them. Called by: abi, fork. Must not: ask the
//! kernel: it knows of locks that are for other reasons.
//!
//! Told are, of each region, the first page that is locked, the last, and all between.

use core::sync::atomic::{AtomicBool, Ordering};
use std::collections::BTreeMap;

use netmem_protocol::PAGE_SIZE;

use super::{Runtime, handle, runtime_if_started};
use crate::far::areas::Ranges;
use crate::log;
use crate::sync::QuietMutex;
use crate::sys::errno::Errno;

/// Of the budget of the page caches, what may be locked: the rest is for everybody.
const PART: (u64, u64) = (7, 8);

/// Addresses. Lock order: a leaf, but for the table of mappings, which is read with it held.
static LOCKED: QuietMutex<Ranges> = QuietMutex::new(Ranges::new());

/// Whether there are any: most programs lock nothing, and unmap much.
static ANY: AtomicBool = AtomicBool::new(false);

/// From now on what is mapped in a range is locked. ENOMEM, and nothing changed, if that is more than the page caches may take.
pub fn add(runtime: &Runtime, start: usize, end: usize) -> Result<(), Errno> {
    let mut locked = LOCKED.lock();
    ANY.store(true, Ordering::SeqCst);
    let before = locked.clone();
    locked.add(start, end);
    let pages: u64 = hulls(runtime, &locked).values().map(|(first, end)| end - first).sum();
    let most = runtime.budget.limit() / PART.1 * PART.0;
    if pages * PAGE_SIZE as u64 > most {
        *locked = before;
        log::error!("mlock: {pages} pages are more than NETMEM_CACHE_BYTES leaves room for ({most} bytes)");
        return Err(Errno(libc::ENOMEM));
    }
    tell(runtime, &locked);
    Ok(())
}

/// What is mapped in a range is not locked any more, or not mapped.
pub fn remove(start: usize, end: usize) {
    let Some(runtime) = runtime_if_started().filter(|_| ANY.load(Ordering::SeqCst)) else { return };
    let mut locked = LOCKED.lock();
    if locked.meets(start, end) {
        locked.remove(start, end);
        tell(runtime, &locked);
    }
}

/// What was mapped in a range is mapped in another, and as locked as it was.
pub fn moved(from: (usize, usize), to: (usize, usize)) {
    let Some(runtime) = runtime_if_started().filter(|_| ANY.load(Ordering::SeqCst)) else { return };
    let mut locked = LOCKED.lock();
    if locked.meets(from.0, from.1) {
        locked.remove(from.0, from.1);
        locked.add(to.0, to.1);
        tell(runtime, &locked);
    }
}

/// A forked child has nothing locked (mlock(2)).
pub fn forget_after_fork() {
    ANY.store(false, Ordering::SeqCst);
    LOCKED.reset_after_fork();
    // The parent may have been caught changing it: not even dropped.
    core::mem::forget(core::mem::replace(&mut *LOCKED.lock(), Ranges::new()));
}

/// Of each region, by its number in this process: pages from the first that is locked to behind the last.
fn hulls(runtime: &Runtime, locked: &Ranges) -> BTreeMap<u32, (u64, u64)> {
    let mut hulls: BTreeMap<u32, (u64, u64)> = BTreeMap::new();
    for (start, end) in locked.iter() {
        for piece in runtime.mappings.overlapping(start, end) {
            let (from, to) = (start.max(piece.start), end.min(piece.end));
            let pages = (piece.page_at(from), piece.page_at(to - 1) + 1);
            let hull = hulls.entry(piece.handle).or_insert(pages);
            *hull = (hull.0.min(pages.0), hull.1.max(pages.1));
        }
    }
    hulls
}

fn tell(runtime: &Runtime, locked: &Ranges) {
    let hulls = hulls(runtime, locked);
    for region in handle::all() {
        let hull = hulls.get(&region.index).copied();
        region.region.cache.set_locked(hull);
    }
}
