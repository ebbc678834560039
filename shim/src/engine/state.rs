//! What an engine keeps of one mapping: a byte for each block, and the prefetcher's memory.
//!
//! Owns: [`MapState`] and the life of its memory. Called by: mappings and the engines. Must not: be freed while a fault
//! handler may still look at it: a retired state lives on while anyone is [`Looking`].

use core::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};

use crate::pager::prefetch::Detector;
use crate::sync::{QuietGuard, QuietMutex};

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
    /// The kernel takes no guards here (locked memory): blocks come in whole, even where guards work elsewhere.
    pub unguarded: AtomicBool,
}

impl MapState {
    /// Blocks for `start..end`, all cold.
    pub fn new(start: usize, end: usize, block_bytes: usize) -> &'static MapState {
        let base = start - start % block_bytes;
        let count = (end - base).div_ceil(block_bytes);
        let blocks = (0..count).map(|_| AtomicU8::new(COLD)).collect();
        let detector = Detector::new();
        let unguarded = AtomicBool::new(false);
        Box::leak(Box::new(MapState { base, block_bytes, blocks, detector, unguarded }))
    }

    /// The same blocks for `start..end`, a part of what this one covers, in memory of its own.
    pub fn part(&self, start: usize, end: usize) -> &'static MapState {
        let part = MapState::new(start, end, self.block_bytes);
        for (i, block) in part.blocks.iter().enumerate() {
            let from = self.number(part.base + i * self.block_bytes);
            block.store(self.blocks[from].load(Ordering::SeqCst) & !BUSY, Ordering::SeqCst);
        }
        part.detector.expect(self.detector.expected());
        part.unguarded.store(self.unguarded.load(Ordering::SeqCst), Ordering::SeqCst);
        part
    }

    /// One state for this range and the one behind it, `from..edge..end`, whose blocks are locked and were in the states given.
    /// None if a block that both share is in two states, or the blocks are of two sizes.
    pub fn joined(
        &self,
        next: &MapState,
        (from, edge, end): (usize, usize, usize),
        before: &[u8],
        behind: &[u8],
    ) -> Option<&'static MapState> {
        let shares = !edge.is_multiple_of(self.block_bytes);
        if self.block_bytes != next.block_bytes || shares && before.last() != behind.first() {
            return None;
        }
        let joined = MapState::new(from, end, self.block_bytes);
        let states = before.iter().chain(behind.iter().skip(usize::from(shares)));
        for (block, state) in joined.blocks.iter().zip(states) {
            block.store(*state, Ordering::SeqCst);
        }
        let unguarded = self.unguarded.load(Ordering::SeqCst) || next.unguarded.load(Ordering::SeqCst);
        joined.unguarded.store(unguarded, Ordering::SeqCst);
        joined.detector.expect(self.detector.expected());
        Some(joined)
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

    /// Whether stores go into a block unnoticed.
    pub fn is_open(&self, block: usize) -> bool {
        self.blocks[block].load(Ordering::SeqCst) & WRITE != 0
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

/// States that nobody finds any more: those that were given up in this phase, and those of the phase before.
struct Retired {
    young: Vec<usize>,
    old: Vec<usize>,
}

static RETIRED: QuietMutex<Retired> = QuietMutex::new(Retired { young: Vec::new(), old: Vec::new() });
/// The phase; its lowest bit says which of the two counters new lookers take.
static PHASE: AtomicUsize = AtomicUsize::new(0);
/// Threads that may be using a state they found in the table, by the phase in which they began to look.
static LOOKING: [AtomicUsize; 2] = [const { AtomicUsize::new(0) }; 2];

/// Keeps retired states alive while a thread uses one that it found.
pub struct Looking(usize);

impl Looking {
    /// To be called before the table is asked.
    pub fn start() -> Self {
        loop {
            let phase = PHASE.load(Ordering::SeqCst);
            LOOKING[phase & 1].fetch_add(1, Ordering::SeqCst);
            if PHASE.load(Ordering::SeqCst) == phase {
                return Looking(phase & 1);
            }
            // The phase went on in between, and nobody may join the one before.
            LOOKING[phase & 1].fetch_sub(1, Ordering::SeqCst);
        }
    }
}

impl Drop for Looking {
    fn drop(&mut self) {
        LOOKING[self.0].fetch_sub(1, Ordering::SeqCst);
    }
}

/// Gives a state up. The caller took it out of the table. With nobody left who began to look in the phase before, what was given
/// up then is freed, and a new phase begins: however many threads look all the time, two phases later a state is gone.
pub fn retire(state: &'static MapState) {
    let gone = {
        let mut retired = RETIRED.lock();
        retired.young.push(state as *const MapState as usize);
        let phase = PHASE.load(Ordering::SeqCst);
        if LOOKING[(phase + 1) & 1].load(Ordering::SeqCst) == 0 {
            // Who looks now began in this phase, when the old ones were out of the table already.
            let gone = core::mem::take(&mut retired.old);
            retired.old = core::mem::take(&mut retired.young);
            PHASE.store(phase + 1, Ordering::SeqCst);
            gone
        } else {
            Vec::new()
        }
    };
    for state in gone {
        // SAFETY: it came from Box::leak in `new`, was retired once, and nobody who found it is left.
        drop(unsafe { Box::from_raw(state as *mut MapState) });
    }
}

/// In a forked child: the parent's threads are not here to stop looking.
pub fn nobody_looks() {
    LOOKING.iter().for_each(|count| count.store(0, Ordering::SeqCst));
}

/// The lock that the fork hook takes.
pub fn lock_for_fork() -> QuietGuard<'static, impl Sized> {
    RETIRED.lock()
}
