//! What an engine keeps of one mapping: a byte for each block, and the prefetcher's memory.
//!
//! Owns: [`MapState`] and the life of its memory. Called by: mappings and the engines. Must not: be freed while a fault
//! handler may still look at it: a retired state lives on while anyone is [`Looking`].

use core::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::collections::VecDeque;

use crate::pager::prefetch::Detector;
use crate::sync::QuietMutex;

/// Nothing of the block was touched: no access.
pub const COLD: u8 = 0;
/// Stores are not let through; or, on uffd, the window is armed.
pub const READ: u8 = 1;
/// Stores go through unnoticed; on uffd with synchronous tracking, to some of its pages.
pub const WRITE: u8 = 2;
/// Set while one thread changes the block's protection.
const BUSY: u8 = 0x80;

/// See the module.
pub struct MapState {
    /// The address at which block 0 would start, had the mapping begun on a block.
    pub base: usize,
    /// Bytes in a block.
    pub block_bytes: usize,
    /// One byte a block: COLD, READ or WRITE.
    pub blocks: Box<[AtomicU8]>,
    /// The sequential detector.
    pub detector: Detector,
}

impl MapState {
    /// Blocks for `start..end`, all cold.
    pub fn new(start: usize, end: usize, block_bytes: usize) -> &'static MapState {
        let base = start - start % block_bytes;
        let count = (end - base).div_ceil(block_bytes);
        let blocks = (0..count).map(|_| AtomicU8::new(COLD)).collect();
        Box::leak(Box::new(MapState { base, block_bytes, blocks, detector: Detector::new() }))
    }

    /// The same blocks for `start..end`, a part of what this one covers, in memory of its own.
    pub fn part(&self, start: usize, end: usize) -> &'static MapState {
        let part = MapState::new(start, end, self.block_bytes);
        for (i, block) in part.blocks.iter().enumerate() {
            let from = self.number(part.base + i * self.block_bytes);
            block.store(self.blocks[from].load(Ordering::SeqCst) & !BUSY, Ordering::SeqCst);
        }
        part
    }

    /// The block that holds an address.
    pub fn number(&self, address: usize) -> usize {
        (address - self.base) / self.block_bytes
    }

    /// The addresses of a block, cut to `start..end`.
    pub fn range(&self, block: usize, start: usize, end: usize) -> (usize, usize) {
        let from = self.base + block * self.block_bytes;
        (from.max(start), (from + self.block_bytes).min(end))
    }

    /// Waits to be the only one who changes a block; returns its state. The caller has signals blocked.
    pub fn lock(&self, block: usize) -> u8 {
        let byte = &self.blocks[block];
        loop {
            let now = byte.load(Ordering::SeqCst);
            if now & BUSY == 0
                && byte.compare_exchange(now, now | BUSY, Ordering::SeqCst, Ordering::Relaxed).is_ok()
            {
                return now;
            }
            rustix::thread::sched_yield();
        }
    }

    /// Whether no store went into a block since it was protected, and none is let in just now.
    pub fn is_quiet(&self, block: usize) -> bool {
        self.blocks[block].load(Ordering::SeqCst) & (WRITE | BUSY) == 0
    }

    /// In a forked child: frees the blocks that a thread of the parent had locked, and names them.
    pub fn blocks_caught_by_fork(&self) -> Vec<usize> {
        let caught = |block: &usize| self.blocks[*block].fetch_and(!BUSY, Ordering::SeqCst) & BUSY != 0;
        (0..self.blocks.len()).filter(caught).collect()
    }

    /// Lets go of a block with its new state.
    pub fn unlock(&self, block: usize, state: u8) {
        self.blocks[block].store(state, Ordering::SeqCst);
    }
}

/// States that nobody finds any more.
static RETIRED: QuietMutex<VecDeque<usize>> = QuietMutex::new(VecDeque::new());
/// Threads that may be using a state they found in the table.
static LOOKING: AtomicUsize = AtomicUsize::new(0);

/// Keeps retired states alive while a thread uses one that it found.
pub struct Looking(());

impl Looking {
    /// To be called before the table is asked.
    pub fn start() -> Self {
        LOOKING.fetch_add(1, Ordering::SeqCst);
        Looking(())
    }
}

impl Drop for Looking {
    fn drop(&mut self) {
        LOOKING.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Gives a state up. The caller took it out of the table. With nobody looking, all that were given up so far are freed: who
/// looks from now on can't find them.
pub fn retire(state: &'static MapState) {
    let gone = {
        let mut retired = RETIRED.lock();
        retired.push_back(state as *const MapState as usize);
        // The caller may be looking itself, at this very state; it goes with a later one.
        if LOOKING.load(Ordering::SeqCst) == 0 && retired.len() > 1 {
            let last = retired.pop_back();
            let gone = core::mem::take(&mut *retired);
            retired.extend(last);
            gone
        } else {
            VecDeque::new()
        }
    };
    for state in gone {
        // SAFETY: it came from Box::leak in `new`, was retired once, and nobody who found it is left.
        drop(unsafe { Box::from_raw(state as *mut MapState) });
    }
}

/// In a forked child: the parent's threads are not here to stop looking.
pub fn nobody_looks() {
    LOOKING.store(0, Ordering::SeqCst);
}

/// The lock that the fork hook takes.
pub fn lock_for_fork() -> crate::sync::QuietGuard<'static, VecDeque<usize>> {
    RETIRED.lock()
}
