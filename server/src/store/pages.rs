//! The file of pages: each in a slot of 4096 bytes, which is written once and then read, until nobody needs it any more.
//!
//! Owns: which slots are free, and which pages have a copy in memory. Called by: durable, and whoever reads a page. Must not: know whose
//! page a slot holds; the index does.
//!
//! S1: what the index names, a root in memory holds. So a slot whose last [`Stored`] is dropped is in no index, and free. A root is dropped
//! after the transaction that replaced it is on the disk, and not before.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use netmem_protocol::{ErrorCode, PAGE_SIZE, page_sum};

use super::disk::DiskFile;
use crate::memory::Memory;
use crate::refusal::{Answer, Refusal};
use crate::slab::{PageBytes, PageRef};

/// Its name on the disk.
pub const FILE: &str = "pages";
/// Slots that the front of the file takes: what a reader of the file finds first.
const FRONT_SLOTS: u64 = 1;
/// What the front says.
const FRONT: &[u8] = b"netmem pages, format 1: slots of 4096 bytes, named by the file \"index\"\n";
/// Pages in one write: the kernel takes no more than 1024 pieces (IOV_MAX).
const WRITE_PAGES_MAX: usize = 1024;
/// Slots that were freed before their room is given back to the file system: 4096 × 4 KiB = 16 MiB.
const FREED_BEFORE_PUNCH: u64 = 4096;
/// Free slots side by side that are worth a hole: 64 × 4 KiB = 256 KiB.
const PUNCH_SLOTS_LEAST: u64 = 64;

/// A page in the file.
pub struct Stored {
    slot: u64,
    sum: u64,
    pages: Arc<Pages>,
    /// Read since it was last looked at as one that could leave memory.
    touched: AtomicBool,
    /// The log has it that it is damaged.
    told: AtomicBool,
    /// Its copy in memory. Locked while it is read from the disk, so that it is read once.
    copy: Mutex<Option<PageRef>>,
}

impl Drop for Stored {
    fn drop(&mut self) {
        self.pages.slots().free(self.slot);
    }
}

impl Stored {
    /// Which slot it is in.
    pub fn slot(&self) -> u64 {
        self.slot
    }

    /// The checksum that its bytes must have.
    pub fn sum(&self) -> u64 {
        self.sum
    }

    fn copy(&self) -> MutexGuard<'_, Option<PageRef>> {
        self.copy.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it can be had without the disk.
    pub fn is_at_hand(&self) -> bool {
        self.copy().is_some()
    }

    /// The page, from memory or from the disk.
    pub fn load(self: &Arc<Self>, memory: &Memory) -> Answer<PageRef> {
        let mut copy = self.copy();
        self.touched.store(true, Ordering::Relaxed);
        if let Some(page) = &*copy {
            return Ok(page.clone());
        }
        let mut page = memory.fresh()?;
        self.read(&mut page).map_err(|damage| {
            if !self.told.swap(true, Ordering::Relaxed) {
                tracing::error!("{damage}");
            }
            Refusal::new(ErrorCode::Internal, damage)
        })?;
        let page = page.seal();
        *copy = Some(page.clone());
        drop(copy);
        self.pages.cached(std::iter::once(self));
        Ok(page)
    }

    /// Reads the page from the disk and compares its checksum. The error is a line that names the damage.
    pub fn read(&self, bytes: &mut PageBytes) -> Result<(), String> {
        let slot = self.slot;
        let read = self.pages.file.read_at(bytes, slot * PAGE_SIZE as u64);
        read.map_err(|error| format!("slot {slot} of the file of pages can't be read: {error}"))?;
        let sum = page_sum(bytes);
        if sum != self.sum {
            return Err(format!(
                "slot {slot} of the file of pages is damaged: its checksum is {sum:016x}, and {:016x} was stored",
                self.sum
            ));
        }
        Ok(())
    }

    /// Lets its copy go, unless it was used since the last look.
    fn give_up_copy(&self) -> bool {
        if self.touched.swap(false, Ordering::Relaxed) {
            return false;
        }
        // Someone is at it: it is in use.
        let Ok(mut copy) = self.copy.try_lock() else { return false };
        copy.take();
        true
    }
}

/// Which slots are in use. A bit a slot.
#[derive(Default)]
struct Slots {
    used: Vec<u64>,
    /// Those that have room on the disk.
    filled: Vec<u64>,
    /// Slots in the file.
    end: u64,
    free: u64,
    /// Where the search for free ones goes on.
    next: u64,
    freed: u64,
    /// Nobody knows what the index names: nothing is free any more.
    stuck: bool,
}

fn bit(map: &[u64], at: u64) -> bool {
    map.get((at / 64) as usize).is_some_and(|word| word >> (at % 64) & 1 != 0)
}

fn set_bit(map: &mut Vec<u64>, at: u64, to: bool) {
    let word = (at / 64) as usize;
    if map.len() <= word {
        map.resize(word + 1, 0);
    }
    map[word] = map[word] & !(1 << (at % 64)) | u64::from(to) << (at % 64);
}

impl Slots {
    /// So many free slots, side by side where it can be had.
    fn take(&mut self, count: u64) -> Vec<u64> {
        let mut taken = Vec::with_capacity(count as usize);
        if self.free >= count {
            let mut looked = 0;
            while (taken.len() as u64) < count && looked < self.end {
                if self.next >= self.end {
                    self.next = FRONT_SLOTS;
                }
                // A word that is full is passed at once.
                if self.next.is_multiple_of(64) && self.used[(self.next / 64) as usize] == u64::MAX {
                    self.next += 64;
                    looked += 64;
                    continue;
                }
                if !bit(&self.used, self.next) {
                    taken.push(self.next);
                    set_bit(&mut self.used, self.next, true);
                    self.free -= 1;
                }
                self.next += 1;
                looked += 1;
            }
        }
        while (taken.len() as u64) < count {
            set_bit(&mut self.used, self.end, true);
            taken.push(self.end);
            self.end += 1;
        }
        for slot in &taken {
            set_bit(&mut self.filled, *slot, true);
        }
        taken
    }

    fn free(&mut self, slot: u64) {
        if self.stuck || !bit(&self.used, slot) {
            return;
        }
        set_bit(&mut self.used, slot, false);
        self.free += 1;
        self.freed += 1;
    }

    /// Free slots side by side that still have room on the disk, taken so that nobody writes there meanwhile.
    fn take_holes(&mut self) -> Vec<(u64, u64)> {
        let mut holes = Vec::new();
        let mut at = FRONT_SLOTS;
        while at < self.end {
            let start = at;
            while at < self.end && !bit(&self.used, at) && bit(&self.filled, at) {
                at += 1;
            }
            if at - start >= PUNCH_SLOTS_LEAST {
                holes.push((start, at));
            }
            at += u64::from(at == start);
        }
        for (start, end) in &holes {
            for slot in *start..*end {
                set_bit(&mut self.used, slot, true);
                set_bit(&mut self.filled, slot, false);
            }
            self.free -= end - start;
        }
        self.freed = 0;
        holes
    }
}

/// Runs of slots: the first, and how many; in one write each.
fn side_by_side(stored: &[Arc<Stored>]) -> Vec<(u64, usize)> {
    let mut runs: Vec<(u64, usize)> = Vec::new();
    for page in stored {
        match runs.last_mut() {
            Some((first, count)) if *first + *count as u64 == page.slot && *count < WRITE_PAGES_MAX => {
                *count += 1
            }
            _ => runs.push((page.slot, 1)),
        }
    }
    runs
}

/// The file of pages.
pub struct Pages {
    file: Arc<dyn DiskFile>,
    /// Lock order: after everything but the slabs'.
    slots: Mutex<Slots>,
    /// Pages with a copy in memory, as they came in, and some that have none any more. Lock order: before a page's `copy`.
    ring: Mutex<VecDeque<Weak<Stored>>>,
    /// About how many of the ring's pages have a copy.
    copies: AtomicU64,
}

impl Pages {
    /// Opens the file, with no slot in use; a new one is begun.
    pub fn open(file: Arc<dyn DiskFile>, new: bool) -> io::Result<Arc<Pages>> {
        let length = file.length()?;
        let mut front = [0; PAGE_SIZE];
        front[..FRONT.len()].copy_from_slice(FRONT);
        if new {
            file.write_at(&mut [IoSlice::new(&front)], 0)?;
            file.sync()?;
        } else {
            let mut there = [0; PAGE_SIZE];
            file.read_at(&mut there, 0)?;
            if there != front {
                return Err(io::Error::other("its file \"pages\" is none of this version's"));
            }
        }
        let end = (length / PAGE_SIZE as u64).max(FRONT_SLOTS);
        let words = end.div_ceil(64) as usize;
        let mut slots =
            Slots { used: vec![0; words], filled: vec![u64::MAX; words], end, ..Slots::default() };
        slots.free = end - FRONT_SLOTS;
        for slot in 0..FRONT_SLOTS {
            set_bit(&mut slots.used, slot, true);
        }
        Ok(Arc::new(Pages {
            file,
            slots: Mutex::new(slots),
            ring: Mutex::default(),
            copies: AtomicU64::new(0),
        }))
    }

    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Pages stored, and pages that the file has room for.
    pub fn usage(&self) -> (u64, u64) {
        let slots = self.slots();
        (slots.end - FRONT_SLOTS - slots.free, slots.end)
    }

    /// Pages that have a copy in memory, about.
    pub fn copies(&self) -> u64 {
        self.copies.load(Ordering::Relaxed)
    }

    /// From now on nothing is freed.
    pub fn stick(&self) {
        self.slots().stuck = true;
    }

    /// A page that the index names, when the store is opened. `None` if it lies behind the end of the file.
    pub fn known(self: &Arc<Self>, slot: u64, sum: u64) -> Option<Arc<Stored>> {
        let mut slots = self.slots();
        if slot < FRONT_SLOTS || slot >= slots.end || bit(&slots.used, slot) {
            return None;
        }
        set_bit(&mut slots.used, slot, true);
        slots.free -= 1;
        drop(slots);
        Some(Arc::new(self.stored(slot, sum, None)))
    }

    fn stored(self: &Arc<Self>, slot: u64, sum: u64, copy: Option<PageRef>) -> Stored {
        let pages = Arc::clone(self);
        Stored {
            slot,
            sum,
            pages,
            touched: AtomicBool::new(false),
            told: AtomicBool::new(false),
            copy: Mutex::new(copy),
        }
    }

    /// Writes pages into free slots. They are on the disk after [`Pages::sync`].
    pub fn write(self: &Arc<Self>, pages: &[PageRef]) -> io::Result<Vec<Arc<Stored>>> {
        let slots = self.slots().take(pages.len() as u64);
        // What fails from here on gives its slots back by being dropped.
        let stored: Vec<Arc<Stored>> = slots
            .into_iter()
            .zip(pages)
            .map(|(slot, page)| Arc::new(self.stored(slot, page.sum(), Some(page.clone()))))
            .collect();
        let mut at = 0;
        for (first, count) in side_by_side(&stored) {
            let mut slices: Vec<IoSlice<'_>> =
                pages[at..at + count].iter().map(|page| IoSlice::new(&page[..])).collect();
            if let Err(error) = self.file.write_at(&mut slices, first * PAGE_SIZE as u64) {
                self.discard(&stored);
                return Err(error);
            }
            at += count;
        }
        self.cached(stored.iter());
        Ok(stored)
    }

    /// Gives the room of pages back that nobody will read: a disk that they filled has none for anything else.
    pub fn discard(&self, stored: &[Arc<Stored>]) {
        for (first, count) in side_by_side(stored) {
            self.file.punch(first * PAGE_SIZE as u64, (count * PAGE_SIZE) as u64);
        }
        let mut slots = self.slots();
        for page in stored {
            set_bit(&mut slots.filled, page.slot, false);
        }
    }

    /// Returns when everything that was written is on the disk.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }

    /// Notes that pages have copies in memory.
    fn cached<'a>(&self, pages: impl Iterator<Item = &'a Arc<Stored>>) {
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let before = ring.len();
        ring.extend(pages.map(Arc::downgrade));
        let copies = self.copies.fetch_add((ring.len() - before) as u64, Ordering::Relaxed);
        // Pages that are no more, or that came in twice, stay in the ring until it is twice as long as what it is about.
        if ring.len() as u64 > 2 * self.slots().end && copies > 0 {
            ring.retain(|page| page.strong_count() > 0);
            self.copies.store(ring.len() as u64, Ordering::Relaxed);
        }
    }

    /// Lets copies of pages go that nobody used lately, `count` if it can.
    pub fn shrink(&self, count: u64) {
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut given, mut looks) = (0, 2 * ring.len());
        while given < count && looks > 0 {
            looks -= 1;
            let Some(page) = ring.pop_front() else { break };
            let Some(stored) = page.upgrade() else {
                self.copies.fetch_sub(1, Ordering::Relaxed);
                continue;
            };
            if stored.give_up_copy() {
                given += 1;
                self.copies.fetch_sub(1, Ordering::Relaxed);
            } else {
                ring.push_back(page);
            }
        }
    }

    /// Gives the room of what was freed back to the file system, if that is much.
    pub fn punch(&self) {
        let mut slots = self.slots();
        if slots.freed < FREED_BEFORE_PUNCH {
            return;
        }
        let holes = slots.take_holes();
        drop(slots);
        for (start, end) in &holes {
            self.file.punch(start * PAGE_SIZE as u64, (end - start) * PAGE_SIZE as u64);
        }
        let mut slots = self.slots();
        for (start, end) in holes {
            (start..end).for_each(|slot| slots.free(slot));
        }
        slots.freed = 0;
    }
}
