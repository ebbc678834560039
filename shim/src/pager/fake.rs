//! The two files of a region, in memory, for the pager's tests.
//!
//! Owns: [`FakeCache`], which implements [`Board`] and [`Frames`]. Called by: tests. Must not: be cleverer than the kernel: a
//! hole reads as zeros, without a word.

use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use core::time::Duration;
use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;

use netmem_protocol::{Epoch, PAGE_SIZE, PageIndex, RegionId};

use super::Region;
use super::table::{
    Board, CHUNK_PAGES, CHUNK_WINDOWS, Chunk, Control, Entry, Frames, InUse, pages_of_word, pages_word,
};
use crate::sys::errno::Errno;

type Page = [u8; PAGE_SIZE];

/// Memory that a fake leaks, so that it can be shared like a control file.
struct ChunkMemory {
    entries: Vec<Entry>,
    dirty: Vec<AtomicU64>,
    resident: Vec<AtomicU64>,
    departures: Vec<AtomicU64>,
}

/// What a region's two files hold; shared by the fake processes of a fake host.
pub struct FakeFiles {
    control: Box<Control>,
    chunks: Mutex<HashMap<u64, &'static ChunkMemory>>,
    pages: Mutex<BTreeMap<u64, Box<Page>>>,
    size: AtomicU64,
    dead: [AtomicBool; 8],
    /// Reads of pages until one fails.
    reads_left: AtomicUsize,
    /// Pages that can still be installed.
    room: AtomicUsize,
    /// Uses under way, and whose.
    uses: Mutex<Vec<(usize, u64)>>,
    /// What a program does at the last moment before pages are taken out.
    before_taking: Mutex<Option<(u64, usize, Vec<u8>)>>,
}

/// One process's view of the files.
pub struct FakeCache {
    /// The files.
    pub files: &'static FakeFiles,
    slot: usize,
}

impl FakeFiles {
    /// Files primed as a fresh attachment primes them.
    pub fn primed(size: u64, epoch: Epoch) -> &'static FakeFiles {
        let files = FakeFiles {
            control: Box::default(),
            chunks: Mutex::default(),
            pages: Mutex::default(),
            size: AtomicU64::new(size),
            dead: Default::default(),
            reads_left: AtomicUsize::new(usize::MAX),
            room: AtomicUsize::new(usize::MAX),
            uses: Mutex::default(),
            before_taking: Mutex::default(),
        };
        files.control.view.store(epoch.0, Ordering::SeqCst);
        files.control.server_size.store(size, Ordering::SeqCst);
        files.control.fetchable.store(PageIndex::ceil(size).0, Ordering::SeqCst);
        files.control.cut.store(u64::MAX, Ordering::SeqCst);
        Box::leak(Box::new(files))
    }

    /// A process attached to them.
    pub fn attach(&'static self, id: RegionId, slot: usize) -> Region<FakeCache> {
        Region::new(id, FakeCache { files: self, slot })
    }

    /// The process in a slot is gone.
    pub fn kill(&self, slot: usize) {
        self.dead[slot].store(true, Ordering::SeqCst);
    }

    /// The k-th read of the cache file fails.
    pub fn fail_read(&self, k: usize) {
        self.reads_left.store(k, Ordering::SeqCst);
    }

    /// So many more pages can be installed, and then the tmpfs is full.
    pub fn leave_room(&self, pages: usize) {
        self.room.store(pages, Ordering::SeqCst);
    }

    /// A store that falls when the next pages are taken out, and nobody is told of.
    pub fn store_before_taking(&self, page: u64, offset: usize, bytes: &[u8]) {
        *self.before_taking.lock().unwrap() = Some((page, offset, bytes.to_vec()));
    }

    /// The kernel takes a page of zeros back.
    pub fn forget(&self, page: u64) {
        self.pages.lock().unwrap().remove(&page);
    }

    /// Pages that take room.
    pub fn blocks(&self) -> usize {
        self.pages.lock().unwrap().len()
    }

    /// What a program sees of a page: holes are zeros.
    pub fn see(&self, page: u64) -> Page {
        self.pages.lock().unwrap().get(&page).map_or([0; PAGE_SIZE], |page| **page)
    }

    /// What a program does to a page through a mapping. Nobody is told.
    pub fn store(&self, page: u64, offset: usize, bytes: &[u8]) {
        let mut pages = self.pages.lock().unwrap();
        let page = pages.entry(page).or_insert_with(|| Box::new([0; PAGE_SIZE]));
        page[offset..offset + bytes.len()].copy_from_slice(bytes);
    }
}

impl Board for FakeCache {
    fn control(&self) -> &Control {
        &self.files.control
    }

    fn chunk(&self, number: u64) -> Result<Chunk<'_>, Errno> {
        let mut chunks = self.files.chunks.lock().unwrap();
        let memory = chunks.entry(number).or_insert_with(|| {
            self.files.control.chunks[number as usize / 64].fetch_or(1 << (number % 64), Ordering::SeqCst);
            Box::leak(Box::new(ChunkMemory {
                entries: (0..CHUNK_PAGES).map(|_| Entry::default()).collect(),
                dirty: (0..CHUNK_WINDOWS / 64).map(|_| AtomicU64::new(0)).collect(),
                resident: (0..CHUNK_WINDOWS / 64).map(|_| AtomicU64::new(0)).collect(),
                departures: (0..CHUNK_WINDOWS).map(|_| AtomicU64::new(0)).collect(),
            }))
        });
        let ChunkMemory { entries, dirty, resident, departures } = memory;
        Ok(Chunk { entries, dirty, resident, departures })
    }

    fn me(&self) -> usize {
        self.slot
    }

    fn alive(&self, slot: usize) -> bool {
        !self.files.dead[slot].load(Ordering::SeqCst)
    }

    fn wait(&self, word: &AtomicU64, seen: u64, _limit: Duration) {
        // A spurious wake-up, which every caller has to stand.
        if word.load(Ordering::SeqCst) as u32 == seen as u32 {
            std::thread::yield_now();
        }
    }

    fn wake(&self, _word: &AtomicU64) {}

    fn begin_use(&self, first: u64, end: u64) -> InUse {
        let end = end.min(first + u64::from(u32::MAX));
        let mut uses = self.files.uses.lock().unwrap();
        uses.push((self.slot, pages_word(first, end)));
        InUse::Pages(self.slot, pages_word(first, end))
    }

    fn end_use(&self, which: InUse) {
        let InUse::Pages(slot, word) = which else { return };
        let mut uses = self.files.uses.lock().unwrap();
        if let Some(at) = uses.iter().position(|known| *known == (slot, word)) {
            uses.remove(at);
        }
    }

    fn in_use(&self, first: u64, end: u64) -> bool {
        self.files.uses.lock().unwrap().iter().any(|(slot, word)| {
            let (from, to) = pages_of_word(*word);
            self.alive(*slot) && from < end && to > first
        })
    }
}

impl Frames for FakeCache {
    fn read(&self, first: u64, into: &mut [u8]) -> Result<(), Errno> {
        if self.files.reads_left.fetch_sub(1, Ordering::SeqCst) == 0 {
            return Err(Errno(libc::EIO));
        }
        for (i, chunk) in into.chunks_exact_mut(PAGE_SIZE).enumerate() {
            chunk.copy_from_slice(&self.files.see(first + i as u64));
        }
        Ok(())
    }

    fn install(&self, first: u64, data: &[u8]) -> Result<(), (u64, Errno)> {
        let size = self.files.size.load(Ordering::SeqCst);
        for (page, data) in (first..).zip(data.chunks(PAGE_SIZE)) {
            if self
                .files
                .room
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |room| room.checked_sub(1))
                .is_err()
            {
                return Err((page - first, Errno(libc::ENOSPC)));
            }
            let inside = size.saturating_sub(page * PAGE_SIZE as u64).min(PAGE_SIZE as u64) as usize;
            if inside != 0 {
                self.files.store(page, 0, &data[..inside]);
            }
        }
        Ok(())
    }

    fn merge(&self, page: u64, base: &Page, new: &Page) -> Result<(), Errno> {
        let mut pages = self.files.pages.lock().unwrap();
        let here = pages.entry(page).or_insert_with(|| Box::new([0; PAGE_SIZE]));
        for i in 0..PAGE_SIZE {
            if base[i] != new[i] && here[i] == base[i] {
                here[i] = new[i];
            }
        }
        Ok(())
    }

    fn size(&self) -> Result<u64, Errno> {
        Ok(self.files.size.load(Ordering::SeqCst))
    }

    fn set_size(&self, size: u64) -> Result<(), Errno> {
        let before = self.files.size.swap(size, Ordering::SeqCst);
        if size < before {
            let mut pages = self.files.pages.lock().unwrap();
            pages.split_off(&PageIndex::ceil(size).0);
            if let Some(tail) = pages.get_mut(&PageIndex::containing(size).0) {
                tail[(size % PAGE_SIZE as u64) as usize..].fill(0);
            }
        }
        Ok(())
    }

    fn resize(&self, from: u64, to: u64) -> Result<bool, Errno> {
        if self.files.size.load(Ordering::SeqCst) != from {
            return Ok(false);
        }
        if let Some(tail) = self.files.pages.lock().unwrap().get_mut(&PageIndex::containing(from).0) {
            tail[(from % PAGE_SIZE as u64) as usize..].fill(0);
        }
        self.set_size(to)?;
        Ok(true)
    }

    fn append(&self, end: u64, bytes: &[u8]) -> Result<bool, Errno> {
        if self.files.size.load(Ordering::SeqCst) != end {
            return Ok(false);
        }
        self.files.store(end / PAGE_SIZE as u64, (end % PAGE_SIZE as u64) as usize, bytes);
        self.files.size.store(end + bytes.len() as u64, Ordering::SeqCst);
        Ok(true)
    }

    fn lock_host(&self) -> Result<(), Errno> {
        Ok(())
    }

    fn try_lock_host(&self) -> bool {
        true
    }

    fn unlock_host(&self) {}

    fn punch(&self, offset: u64, length: u64) -> Result<(), Errno> {
        let mut pages = self.files.pages.lock().unwrap();
        for at in offset..offset + length {
            if let Some(page) = pages.get_mut(&(at / PAGE_SIZE as u64)) {
                page[(at % PAGE_SIZE as u64) as usize] = 0;
            }
        }
        Ok(())
    }

    fn take_out(&self, first: u64, into: &mut [u8]) -> Result<u64, Errno> {
        if let Some((page, offset, bytes)) = self.files.before_taking.lock().unwrap().take() {
            self.files.store(page, offset, &bytes);
        }
        let mut pages = self.files.pages.lock().unwrap();
        let taken = into.len() / PAGE_SIZE;
        for (page, into) in (first..).zip(into.chunks_exact_mut(PAGE_SIZE)) {
            into.copy_from_slice(&*pages.remove(&page).unwrap_or_else(|| Box::new([0; PAGE_SIZE])));
        }
        Ok(taken as u64)
    }

    fn is_hole(&self, page: u64) -> Result<bool, Errno> {
        Ok(!self.files.pages.lock().unwrap().contains_key(&page))
    }
}
