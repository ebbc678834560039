//! What is known of each page that was ever moved out, and where the server keeps it.
//!
//! Owns: [`Table`], its entries and the pages of the region. Called by: far's two threads, under its lock. Must not: make system calls,
//! or know whether a page is in memory: the page tables do.
//!
//! Two facts for each page: what the server has of it ([`Entry::slot`], [`Entry::sum`]) and whether its only copy is in the waiting room
//! ([`Entry::place`]). A page without an entry that is touched is zeros.

use core::hash::{BuildHasherDefault, Hasher};
use std::collections::HashMap;

use netmem_protocol::Run;

use crate::sys::mem::PAGE;
use crate::sys::uffd::memory::Event;

/// Pages whose entries lie together, and whose slots do: 2 MiB.
pub const WINDOW_PAGES: usize = 512;
/// No slot.
const NONE: u32 = u32::MAX;
/// The slot's content is not known to be what was sent last: it is compared with nothing.
pub const SUM_UNKNOWN: u64 = 0;

/// Where a page that is not in the program's memory is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Place {
    /// In memory, or nowhere.
    #[default]
    Here,
    /// On the server alone.
    Far,
    /// In the waiting room, at this number.
    Waiting(u32),
}

/// A page and what is known of it.
#[derive(Clone, Copy, Debug)]
pub struct Kept {
    /// Its number.
    pub page: usize,
    entry: Entry,
}

/// What is known of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The checksum of what the server has; [`SUM_UNKNOWN`].
    pub sum: u64,
    slot: u32,
    /// Where the page is.
    pub place: Place,
    /// Touched while it waited to leave: the next time it is passed over.
    pub hot: bool,
    /// In a forked child: it was in its parent's memory, and has not left since. It may be missing all the same (A6).
    pub inherited: bool,
}

impl Entry {
    const EMPTY: Entry =
        Entry { sum: SUM_UNKNOWN, slot: NONE, place: Place::Here, hot: false, inherited: false };

    /// The page of the region that keeps it.
    pub fn slot(&self) -> Option<u64> {
        (self.slot != NONE).then_some(u64::from(self.slot))
    }

    fn is_empty(&self) -> bool {
        *self == Entry::EMPTY
    }
}

struct Window {
    entries: [Entry; WINDOW_PAGES],
    used: usize,
    /// The block of slots that is this window's own.
    block: Option<u32>,
}

/// Window numbers are spread by a multiplication. The standard hasher takes its keys from a thread-local of Rust's ([`crate::sys::own`]).
#[derive(Default)]
struct Spread(u64);

impl Hasher for Spread {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_usize(usize::from(*byte)));
    }

    fn write_usize(&mut self, word: usize) {
        // 2^64 divided by the golden ratio. The upper half decides: hashbrown takes its tags from the top.
        self.0 = (self.0 ^ word as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(32);
    }
}

/// The entries, by page number (address / 4096), and the slots.
#[derive(Default)]
pub struct Table {
    windows: HashMap<usize, Box<Window>, BuildHasherDefault<Spread>>,
    slots: Slots,
}

impl Table {
    /// What is known of a page.
    pub fn get(&self, page: usize) -> Entry {
        self.windows
            .get(&(page / WINDOW_PAGES))
            .map_or(Entry::EMPTY, |window| window.entries[page % WINDOW_PAGES])
    }

    /// Changes what is known of a page.
    pub fn update(&mut self, page: usize, change: impl FnOnce(&mut Entry)) {
        let window = self.windows.entry(page / WINDOW_PAGES).or_insert_with(|| {
            Box::new(Window { entries: [Entry::EMPTY; WINDOW_PAGES], used: 0, block: None })
        });
        let entry = &mut window.entries[page % WINDOW_PAGES];
        let was_empty = entry.is_empty();
        change(entry);
        match (was_empty, entry.is_empty()) {
            (true, false) => window.used += 1,
            (false, true) => window.used -= 1,
            _ => {}
        }
        self.end_if_unused(page / WINDOW_PAGES);
    }

    /// The same for a page of which something is known; cheap, since nothing is made or given up.
    pub fn note(&mut self, page: usize, change: impl FnOnce(&mut Entry)) {
        if let Some(window) = self.windows.get_mut(&(page / WINDOW_PAGES)) {
            let entry = &mut window.entries[page % WINDOW_PAGES];
            if !entry.is_empty() {
                change(entry);
            }
        }
    }

    /// Gives a page a place at the server, if it has none.
    pub fn slot_for(&mut self, page: usize) -> Option<u64> {
        if let Some(slot) = self.get(page).slot() {
            return Some(slot);
        }
        let key = page / WINDOW_PAGES;
        let own = self.windows.get(&key).and_then(|window| window.block);
        let (slot, block) = self.slots.take(own, page % WINDOW_PAGES)?;
        self.update(page, |entry| entry.slot = slot);
        if let (None, Some(window)) = (own, self.windows.get_mut(&key)) {
            window.block = Some(block);
        }
        Some(u64::from(slot))
    }

    /// The server need not keep what is in memory: it has no room for more.
    pub fn give_up_copies(&mut self) {
        let known: Vec<usize> = self.windows.keys().copied().collect();
        for key in known {
            let Some(window) = self.windows.get_mut(&key) else { continue };
            for entry in
                window.entries.iter_mut().filter(|entry| entry.place == Place::Here && entry.slot != NONE)
            {
                self.slots.give_up(entry.slot);
                (entry.slot, entry.sum, entry.inherited) = (NONE, SUM_UNKNOWN, false);
                window.used -= usize::from(entry.is_empty());
            }
            self.end_if_unused(key);
        }
    }

    /// Forgets the pages of a range: its content is given up. `waiting` is told of those in the waiting room.
    pub fn drop_range(&mut self, pages: core::ops::Range<usize>, mut waiting: impl FnMut(u32)) {
        for key in self.keys_of(&pages) {
            let Some(window) = self.windows.get_mut(&key) else { continue };
            let base = key * WINDOW_PAGES;
            let from = pages.start.max(base) - base;
            let to = pages.end.min(base + WINDOW_PAGES) - base;
            for entry in window.entries[from..to].iter_mut().filter(|entry| !entry.is_empty()) {
                if let Place::Waiting(at) = entry.place {
                    waiting(at);
                }
                if entry.slot != NONE {
                    self.slots.give_up(entry.slot);
                }
                *entry = Entry::EMPTY;
                window.used -= 1;
            }
            self.end_if_unused(key);
        }
    }

    /// The pages of a range are at another address now; what was known of that address is forgotten.
    pub fn move_range(
        &mut self,
        from: usize,
        to: usize,
        count: usize,
        mut waiting: impl FnMut(u32, Option<usize>),
    ) {
        let mut moved = Vec::new();
        for key in self.keys_of(&(from..from + count)) {
            let Some(window) = self.windows.get_mut(&key) else { continue };
            for (i, entry) in window.entries.iter_mut().enumerate() {
                let page = key * WINDOW_PAGES + i;
                if (from..from + count).contains(&page) && !entry.is_empty() {
                    moved.push((page - from + to, core::mem::replace(entry, Entry::EMPTY)));
                    window.used -= 1;
                }
            }
            self.end_if_unused(key);
        }
        self.drop_range(to..to + count, |at| waiting(at, None));
        for (page, entry) in moved {
            if let Place::Waiting(at) = entry.place {
                waiting(at, Some(page));
            }
            self.update(page, |new| *new = entry);
        }
    }

    /// Does what a message about addresses says; `waiting` is told of the pages in the waiting room, and what their address is now.
    pub fn follow(&mut self, event: Event, mut waiting: impl FnMut(u32, Option<usize>)) {
        match event {
            Event::Fault { .. } => {}
            Event::Removed { start, end } | Event::Unmapped { start, end } => {
                self.drop_range(start / PAGE..end / PAGE, |place| waiting(place, None));
            }
            Event::Moved { from, to, length } => {
                self.move_range(from / PAGE, to / PAGE, length / PAGE, waiting);
            }
        }
    }

    /// Places at the server that nobody needs any more, at most so many runs; they are free once [`Table::emptied`] says so.
    pub fn take_dropped(&mut self, most: usize) -> Vec<Run> {
        let keep = self.slots.dropped.len().saturating_sub(most);
        self.slots.dropped.split_off(keep)
    }

    /// The server has given up what it kept there.
    pub fn emptied(&mut self, runs: &[Run]) {
        for run in runs {
            (run.first.0..run.end()).for_each(|slot| self.slots.free(slot as u32));
        }
    }

    /// The server could not be asked.
    pub fn not_emptied(&mut self, runs: Vec<Run>) {
        self.slots.dropped.extend(runs);
    }

    /// Whether nothing is known of any page.
    pub fn is_empty(&self) -> bool {
        self.windows.is_empty()
    }

    /// What the server has of each page, in order: what a forked child begins with. Nobody may be in the waiting room.
    pub fn kept(&self) -> Vec<Kept> {
        let mut kept = Vec::new();
        for (key, window) in &self.windows {
            let used = window.entries.iter().enumerate().filter(|(_, entry)| entry.slot != NONE);
            kept.extend(used.map(|(i, entry)| Kept { page: key * WINDOW_PAGES + i, entry: *entry }));
        }
        kept.sort_unstable_by_key(|kept| kept.page);
        kept
    }

    /// A child's own table.
    pub fn of_kept(kept: &[Kept]) -> Table {
        let mut table = Table::default();
        for Kept { page, entry } in kept {
            table.slots.is_taken(entry.slot);
            let inherited = entry.place == Place::Here;
            table.update(*page, |new| *new = Entry { inherited, ..*entry });
        }
        table.slots.rest_is_unused();
        table
    }

    /// Windows that lie in the range, if any of them is known: by walking the shorter of the two.
    fn keys_of(&self, pages: &core::ops::Range<usize>) -> Vec<usize> {
        let keys = pages.start / WINDOW_PAGES..pages.end.div_ceil(WINDOW_PAGES);
        if keys.len() <= self.windows.len() {
            return keys.filter(|key| self.windows.contains_key(key)).collect();
        }
        self.windows.keys().copied().filter(|key| keys.contains(key)).collect()
    }

    fn end_if_unused(&mut self, key: usize) {
        if self.windows.get(&key).is_some_and(|window| window.used == 0)
            && let Some(window) = self.windows.remove(&key)
            && let Some(block) = window.block
        {
            self.slots.disown(block);
        }
    }
}

/// The pages of the region, in blocks of a window's pages, so that neighbours in memory are neighbours there.
#[derive(Default)]
struct Slots {
    blocks: Vec<Block>,
    unused: Vec<u32>,
    /// For pages that mremap brought into a window that has their place already.
    spare: Option<u32>,
    dropped: Vec<Run>,
}

#[derive(Clone, Default)]
struct Block {
    taken: [u64; WINDOW_PAGES / 64],
    count: u32,
    owned: bool,
}

impl Slots {
    /// A slot, and the block that is the window's own now. None when the region is as large as one can be.
    fn take(&mut self, own: Option<u32>, index: usize) -> Option<(u32, u32)> {
        let block = match own {
            Some(block) => block,
            None => self.new_block()?,
        };
        if self.set(block, index) {
            return Some((block * WINDOW_PAGES as u32 + index as u32, block));
        }
        loop {
            let spare = match self.spare {
                Some(spare) => spare,
                None => self.new_block()?,
            };
            self.spare = Some(spare);
            if let Some(index) = (0..WINDOW_PAGES).find(|index| self.set(spare, *index)) {
                return Some((spare * WINDOW_PAGES as u32 + index as u32, block));
            }
            self.spare = None;
            self.disown(spare);
        }
    }

    /// For a table that is made of another one's: the slot has its page.
    fn is_taken(&mut self, slot: u32) {
        let block = slot as usize / WINDOW_PAGES;
        if self.blocks.len() <= block {
            self.blocks.resize(block + 1, Block::default());
        }
        self.set(block as u32, slot as usize % WINDOW_PAGES);
    }

    /// After all of them: blocks in which there is none.
    fn rest_is_unused(&mut self) {
        let unused = self.blocks.iter().enumerate().filter(|(_, block)| block.count == 0);
        self.unused = unused.map(|(number, _)| number as u32).collect();
    }

    fn new_block(&mut self) -> Option<u32> {
        let block = match self.unused.pop() {
            Some(block) => block,
            None => {
                let block = u32::try_from(self.blocks.len()).ok()?;
                if u64::from(block + 1) * WINDOW_PAGES as u64 >= u64::from(NONE) {
                    return None;
                }
                self.blocks.push(Block::default());
                block
            }
        };
        self.blocks[block as usize].owned = true;
        Some(block)
    }

    /// False if it was taken.
    fn set(&mut self, block: u32, index: usize) -> bool {
        let block = &mut self.blocks[block as usize];
        let (word, bit) = (&mut block.taken[index / 64], 1 << (index % 64));
        let was_free = *word & bit == 0;
        if was_free {
            *word |= bit;
            block.count += 1;
        }
        was_free
    }

    fn give_up(&mut self, slot: u32) {
        match self.dropped.last_mut() {
            Some(last) if last.end() == u64::from(slot) && last.count < u32::MAX => last.count += 1,
            _ => self.dropped.push(Run::new(u64::from(slot), 1)),
        }
    }

    fn free(&mut self, slot: u32) {
        let number = slot / WINDOW_PAGES as u32;
        let block = &mut self.blocks[number as usize];
        let index = slot as usize % WINDOW_PAGES;
        block.taken[index / 64] &= !(1 << (index % 64));
        block.count -= 1;
        self.end_if_unused(number);
    }

    fn disown(&mut self, block: u32) {
        self.blocks[block as usize].owned = false;
        self.end_if_unused(block);
    }

    fn end_if_unused(&mut self, number: u32) {
        let block = &self.blocks[number as usize];
        if block.count == 0 && !block.owned {
            self.unused.push(number);
        }
    }
}

#[cfg(test)]
mod tests;
