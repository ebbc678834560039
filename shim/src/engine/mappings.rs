//! Address → mapping: every range of this process that shows one of our cache files.
//!
//! Owns: a sorted table that fault handlers read without a lock. Called by: abi::map to change it, engines and the buffer
//! checks to look. Must not: be read through references: readers copy a row and check that no writer was there (seqlock).

use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering, fence};

use crate::sync::{QuietGuard, QuietMutex};
use crate::sys::errno::Errno;
use crate::sys::mem;

use super::state::MapState;

/// Mappings in a process at the most: the kernel's own default limit on all of them (vm.max_map_count) is lower.
pub const MAPPINGS_MAX: usize = 1 << 16;
const ROW_WORDS: usize = 8;
/// Rows that there is room for: the table lies somewhere in it, so that a mapping at either end is entered and taken out without
/// moving the others. The kernel hands out addresses downwards.
const ROOM: usize = if cfg!(test) { 1 << 10 } else { 4 * MAPPINGS_MAX };

/// One range with one protection.
#[derive(Clone, Copy)]
pub struct Mapping {
    /// First byte, on a page.
    pub start: usize,
    /// First byte behind, on a page.
    pub end: usize,
    /// The region's page at `start`.
    pub first_page: u64,
    /// The region's handle.
    pub handle: u32,
    /// MAP_PRIVATE.
    pub private: bool,
    /// Whether PROT_WRITE is allowed: shared mappings of a descriptor open for reading only do not.
    pub may_write: bool,
    /// What the kernel may let through at the most, PROT_* bits: what the program asked for, or nothing of a fenced range.
    pub prot: i32,
    /// What the program asked for.
    pub asked: i32,
    /// The program's own guards lie here (MADV_GUARD_INSTALL): no access until it takes them away.
    pub fenced: bool,
    /// The program asked that its children do not get it (MADV_DONTFORK). For the kernel all of ours are so, but in a fork.
    pub kept: bool,
    /// The program asked that it be locked as it is touched (MLOCK_ONFAULT). What the kernel has may be that for other reasons.
    pub on_fault: bool,
    /// The engine's own.
    pub state: &'static MapState,
}

impl Mapping {
    /// Bytes.
    pub fn length(&self) -> usize {
        self.end - self.start
    }

    /// The region's page at an address inside.
    pub fn page_at(&self, address: usize) -> u64 {
        self.first_page + ((address - self.start) / mem::PAGE) as u64
    }

    /// The first page behind.
    pub fn end_page(&self) -> u64 {
        self.first_page + (self.length() / mem::PAGE) as u64
    }

    /// The address of a page of the region, which lies inside.
    pub fn address_of(&self, page: u64) -> usize {
        self.start + (page - self.first_page) as usize * mem::PAGE
    }

    /// The part of the mapping between two addresses inside it, with a state of its own.
    fn part(&self, start: usize, end: usize) -> Mapping {
        Mapping { start, end, first_page: self.page_at(start), state: self.state.part(start, end), ..*self }
    }

    /// Sets what the program asked for.
    pub fn ask(&mut self, prot: i32) {
        self.asked = prot;
        self.prot = if self.fenced { libc::PROT_NONE } else { prot };
    }

    /// Puts the program's guards on the range, or takes them away.
    pub fn fence(&mut self, fenced: bool) {
        self.fenced = fenced;
        self.ask(self.asked);
    }

    /// Whether `next` goes on where this one ends, and is the same in everything but its blocks.
    pub fn goes_on_in(&self, next: &Mapping) -> bool {
        self.end == next.start
            && self.end_page() == next.first_page
            && self.handle == next.handle
            && (self.private, self.may_write, self.fenced, self.kept, self.on_fault)
                == (next.private, next.may_write, next.fenced, next.kept, next.on_fault)
            && self.asked == next.asked
    }
}

type Row = [AtomicU64; ROW_WORDS];

/// The table; see the module.
pub struct Mappings {
    room: &'static [Row],
    /// The table's first row in there.
    first: AtomicUsize,
    count: AtomicUsize,
    /// Odd while a writer is at it.
    sequence: AtomicU64,
    /// Bounds of everything in the table, for the quickest no.
    lowest: AtomicUsize,
    highest: AtomicUsize,
    writer: QuietMutex<()>,
}

/// The right to change the table.
pub struct Writer<'a> {
    table: &'a Mappings,
    _lock: QuietGuard<'a, ()>,
}

fn encode(mapping: &Mapping) -> [u64; ROW_WORDS] {
    let bits = [mapping.private, mapping.may_write, mapping.fenced, mapping.kept, mapping.on_fault];
    let bits = bits.iter().rev().fold(0, |all, bit| all << 1 | u64::from(*bit));
    let flags = bits | (mapping.prot as u64) << 8 | (mapping.asked as u64) << 16;
    [
        mapping.start as u64,
        mapping.end as u64,
        mapping.first_page,
        mapping.handle.into(),
        flags,
        mapping.state as *const MapState as u64,
        0,
        0,
    ]
}

fn decode(row: [u64; ROW_WORDS]) -> Mapping {
    Mapping {
        start: row[0] as usize,
        end: row[1] as usize,
        first_page: row[2],
        handle: row[3] as u32,
        private: row[4] & 1 != 0,
        may_write: row[4] & 2 != 0,
        fenced: row[4] & 4 != 0,
        kept: row[4] & 8 != 0,
        on_fault: row[4] & 16 != 0,
        prot: (row[4] >> 8 & 0xff) as i32,
        asked: (row[4] >> 16 & 0xff) as i32,
        // SAFETY: rows are only written by `encode`, from a live reference, and a state outlives its row (state.rs).
        state: unsafe { &*(row[5] as *const MapState) },
    }
}

impl Mappings {
    /// An empty table.
    pub fn new() -> Result<Mappings, Errno> {
        let at = mem::reserve(ROOM * size_of::<Row>())?;
        // SAFETY: zeroed memory of that length is that many rows of zero words; never unmapped.
        let room = unsafe { core::slice::from_raw_parts(at as *const Row, ROOM) };
        Ok(Mappings {
            room,
            first: AtomicUsize::new(ROOM / 2),
            count: AtomicUsize::new(0),
            sequence: AtomicU64::new(0),
            lowest: AtomicUsize::new(usize::MAX),
            highest: AtomicUsize::new(0),
            writer: QuietMutex::new(()),
        })
    }

    /// Whether any of `start..end` may be ours: two comparisons for most calls.
    pub fn may_overlap(&self, start: usize, end: usize) -> bool {
        start < self.highest.load(Ordering::Relaxed) && end > self.lowest.load(Ordering::Relaxed)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count.load(Ordering::Relaxed) == 0
    }

    /// The mapping that holds an address.
    pub fn find(&self, address: usize) -> Option<Mapping> {
        self.first_ending_behind(address).filter(|mapping| mapping.start <= address)
    }

    /// The first mapping with a byte in `start..end`.
    pub fn first_overlapping(&self, start: usize, end: usize) -> Option<Mapping> {
        self.first_ending_behind(start).filter(|mapping| mapping.start < end)
    }

    /// Every mapping with a byte in `start..end`, cut to nothing.
    pub fn overlapping(&self, start: usize, end: usize) -> Vec<Mapping> {
        let mut found = Vec::new();
        let mut at = start;
        while let Some(mapping) = self.first_overlapping(at, end) {
            at = mapping.end;
            found.push(mapping);
        }
        found
    }

    /// Every mapping of a region, in the order of their addresses.
    pub fn of_handle(&self, handle: u32) -> Vec<Mapping> {
        self.read(|rows| {
            let of_it = rows.iter().filter(|row| row[3].load(Ordering::Relaxed) == u64::from(handle));
            of_it.map(|row| row.each_ref().map(|word| word.load(Ordering::Relaxed))).collect::<Vec<_>>()
        })
        .into_iter()
        .map(decode)
        .collect()
    }

    fn first_ending_behind(&self, address: usize) -> Option<Mapping> {
        self.read(|rows| {
            let at = rows.partition_point(|row| row[1].load(Ordering::Relaxed) as usize <= address);
            rows.get(at).map(|row| row.each_ref().map(|word| word.load(Ordering::Relaxed)))
        })
        .map(decode)
    }

    fn rows(&self) -> &'static [Row] {
        let first = self.first.load(Ordering::Relaxed).min(ROOM);
        let count = self.count.load(Ordering::Relaxed).min(ROOM - first);
        &self.room[first..first + count]
    }

    /// What `body` makes of the rows, which no writer changed meanwhile; so it runs again if one did, and must not take what
    /// it sees for rows that belong together.
    fn read<T>(&self, body: impl Fn(&[Row]) -> T) -> T {
        loop {
            let before = self.sequence.load(Ordering::Acquire);
            if before & 1 == 0 {
                let seen = body(self.rows());
                fence(Ordering::Acquire);
                if self.sequence.load(Ordering::Relaxed) == before {
                    return seen;
                }
            }
            // A writer is at it, with signals blocked and no fault possible; it will be done soon.
            rustix::thread::sched_yield();
        }
    }

    /// Waits for the right to change the table.
    pub fn write(&self) -> Writer<'_> {
        Writer { table: self, _lock: self.writer.lock() }
    }
}

impl Writer<'_> {
    /// Whether anything shows a region.
    pub fn shows(&self, handle: u32) -> bool {
        self.table.rows().iter().any(|row| row[3].load(Ordering::Relaxed) == u64::from(handle))
    }

    /// Enters a mapping that overlaps none. ENOMEM when the table is full, as for too many mappings.
    pub fn insert(&mut self, mapping: &Mapping) -> Result<(), Errno> {
        let table = self.table;
        let count = table.count.load(Ordering::Relaxed);
        if count == MAPPINGS_MAX {
            return Err(Errno(libc::ENOMEM));
        }
        let at = self.first_from(mapping.start);
        self.change(|| {
            self.make_room(at);
            self.store(at, mapping);
        });
        table.lowest.fetch_min(mapping.start, Ordering::SeqCst);
        table.highest.fetch_max(mapping.end, Ordering::SeqCst);
        Ok(())
    }

    /// Takes the mapping that starts at `start` out.
    pub fn remove(&mut self, start: usize) -> Option<Mapping> {
        let table = self.table;
        let count = table.count.load(Ordering::Relaxed);
        let at = self.row_of(start)?;
        let gone = decode(table.rows()[at].each_ref().map(|word| word.load(Ordering::Relaxed)));
        self.change(|| self.take_out(at));
        if count == 1 {
            table.lowest.store(usize::MAX, Ordering::SeqCst);
            table.highest.store(0, Ordering::SeqCst);
        }
        super::pins::remove(gone.start, gone.end);
        crate::host::poison::forget(gone.start, gone.end);
        super::state::retire(gone.state);
        Some(gone)
    }

    /// Cuts the mapping that holds `address` in two there; nothing if it starts there or there is none. Readers see the one
    /// or the two, never neither.
    pub fn split(&mut self, address: usize) -> Result<(), Errno> {
        let Some(whole) = self.table.find(address).filter(|mapping| mapping.start < address) else {
            return Ok(());
        };
        let count = self.table.count.load(Ordering::Relaxed);
        if count == MAPPINGS_MAX {
            return Err(Errno(libc::ENOMEM));
        }
        let Some(at) = self.row_of(whole.start) else { return Ok(()) };
        // Blocks stay as they are while they are copied; who waits for one looks the mapping up again.
        let states: Vec<u8> = (0..whole.state.blocks.len()).map(|block| whole.state.lock(block)).collect();
        let (left, right) = (whole.part(whole.start, address), whole.part(address, whole.end));
        self.change(|| {
            self.make_room(at + 1);
            self.store(at, &left);
            self.store(at + 1, &right);
        });
        for (block, state) in states.into_iter().enumerate() {
            whole.state.unlock(block, state);
        }
        super::state::retire(whole.state);
        Ok(())
    }

    /// Changes every piece inside `start..end`, cutting at both ends first.
    pub fn edit(
        &mut self,
        start: usize,
        end: usize,
        change: impl Fn(&mut Mapping),
    ) -> Result<Vec<Mapping>, Errno> {
        self.split(start)?;
        self.split(end)?;
        let mut pieces = self.table.overlapping(start, end);
        for piece in &mut pieces {
            change(piece);
            if let Some(at) = self.row_of(piece.start) {
                self.change(|| self.store(at, piece));
            }
        }
        Ok(pieces)
    }

    /// The first row that starts at an address or behind.
    fn first_from(&self, start: usize) -> usize {
        self.table.rows().partition_point(|row| (row[0].load(Ordering::Relaxed) as usize) < start)
    }

    /// The row of the mapping that starts at an address.
    fn row_of(&self, start: usize) -> Option<usize> {
        let number = self.first_from(start);
        let row = self.table.rows().get(number)?;
        (row[0].load(Ordering::Relaxed) as usize == start).then_some(number)
    }

    /// Makes one of neighbours in `start..end`, its edges included, that are alike, as the kernel does: a program that protects
    /// page after page and lets it go again would fill the table otherwise.
    pub fn join(&mut self, start: usize, end: usize) {
        let mut at = start;
        while let Some(right) = self.table.first_overlapping(at, end.saturating_add(1)) {
            if right.start > 0
                && let Some(left) = self.table.find(right.start - 1)
                && left.goes_on_in(&right)
            {
                self.join_two(&left, &right);
            }
            at = right.end;
        }
    }

    fn join_two(&mut self, left: &Mapping, right: &Mapping) {
        let Some(row) = self.row_of(left.start) else { return };
        let lock = |piece: &Mapping| -> Vec<u8> {
            (0..piece.state.blocks.len()).map(|block| piece.state.lock(block)).collect()
        };
        let unlock = |piece: &Mapping, states: Vec<u8>| {
            states.into_iter().enumerate().for_each(|(block, state)| piece.state.unlock(block, state));
        };
        let (before, behind) = (lock(left), lock(right));
        let joined = left.state.joined(right.state, (left.start, left.end, right.end), &before, &behind);
        if let Some(state) = joined {
            let whole = Mapping { end: right.end, state, ..*left };
            self.change(|| {
                self.store(row, &whole);
                self.take_out(row + 1);
            });
        }
        unlock(left, before);
        unlock(right, behind);
        if joined.is_some() {
            super::state::retire(left.state);
            super::state::retire(right.state);
        }
    }

    fn change(&self, body: impl FnOnce()) {
        let sequence = &self.table.sequence;
        sequence.fetch_add(1, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        body();
        sequence.fetch_add(1, Ordering::SeqCst);
    }

    /// A free row with number `at`: those on its shorter side move.
    fn make_room(&self, at: usize) {
        let (first, count) = self.bounds();
        if first == 0 || first + count == ROOM {
            self.move_to((ROOM - count) / 2);
        }
        let (first, count) = self.bounds();
        if at < count - at {
            self.move_rows(first, first - 1, at);
            self.table.first.store(first - 1, Ordering::Relaxed);
        } else {
            self.move_rows(first + at, first + at + 1, count - at);
        }
        self.table.count.store(count + 1, Ordering::Relaxed);
    }

    /// The opposite.
    fn take_out(&self, at: usize) {
        let (first, count) = self.bounds();
        if at < count - 1 - at {
            self.move_rows(first, first + 1, at);
            self.table.first.store(first + 1, Ordering::Relaxed);
        } else {
            self.move_rows(first + at + 1, first + at, count - 1 - at);
        }
        self.table.count.store(count - 1, Ordering::Relaxed);
    }

    fn move_to(&self, to: usize) {
        let (first, count) = self.bounds();
        self.move_rows(first, to, count);
        self.table.first.store(to, Ordering::Relaxed);
    }

    fn bounds(&self) -> (usize, usize) {
        (self.table.first.load(Ordering::Relaxed), self.table.count.load(Ordering::Relaxed))
    }

    /// Moves rows within the room, as memmove does.
    fn move_rows(&self, from: usize, to: usize, count: usize) {
        for i in 0..count {
            let i = if to < from { i } else { count - 1 - i };
            for (new, old) in self.table.room[to + i].iter().zip(&self.table.room[from + i]) {
                new.store(old.load(Ordering::Relaxed), Ordering::Relaxed);
            }
        }
    }

    fn store(&self, row: usize, mapping: &Mapping) {
        for (word, value) in self.table.rows()[row].iter().zip(encode(mapping)) {
            word.store(value, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
#[path = "mappings_tests.rs"]
mod tests;
