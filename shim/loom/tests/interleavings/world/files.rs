//! The two files of a region, in memory that the model schedules. A page is one number, and as bytes that number and zeros.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64 as Counter, Ordering::SeqCst};
use std::time::Duration;

use core::sync::atomic::{AtomicU64, Ordering};
use netmem_protocol::PAGE_SIZE;

use super::PAGE;
use crate::pager::table::{Board, CHUNK_PAGES, Chunk, Control, Entry, Frames, InUse, WINDOW_PAGES};
use crate::sys::errno::Errno;

/// A process that is gone.
pub const DEAD: usize = 5;

pub struct Files {
    control: Box<Control>,
    entries: Vec<Entry>,
    dirty: [AtomicU64; 1],
    resident: [AtomicU64; 1],
    departures: [AtomicU64; 1],
    /// Somebody commits, moves the view, or takes out what is dirty.
    host: AtomicU64,
    /// Whether the process of this number uses pages.
    uses: [AtomicU64; 2],
    content: Vec<AtomicU64>,
    size: Counter,
    /// How often a page was installed.
    pub installed: Counter,
}

/// A process's view of them.
pub struct Cache {
    pub files: Arc<Files>,
    pub me: usize,
}

impl Files {
    pub fn new(pages: u64) -> Files {
        let files = Files {
            control: Box::default(),
            entries: (0..WINDOW_PAGES).map(|_| Entry::default()).collect(),
            dirty: Default::default(),
            resident: Default::default(),
            departures: Default::default(),
            host: AtomicU64::new(0),
            uses: Default::default(),
            content: (0..pages).map(|_| AtomicU64::new(0)).collect(),
            size: Counter::new(pages * PAGE),
            installed: Counter::new(0),
        };
        let control = &files.control;
        control.view.store(1, Ordering::SeqCst);
        control.server_size.store(pages * PAGE, Ordering::SeqCst);
        control.fetchable.store(pages, Ordering::SeqCst);
        control.cut.store(u64::MAX, Ordering::SeqCst);
        control.chunks[0].store(1, Ordering::SeqCst);
        files
    }

    /// From here on the model decides who comes first.
    pub fn schedule(&self) {
        for word in [&self.control.gate, &self.control.view, &self.control.fetchable, &self.dirty[0]] {
            word.schedule();
        }
        self.host.schedule();
        self.uses.iter().chain(&self.departures).for_each(AtomicU64::schedule);
        for (entry, content) in self.entries.iter().zip(&self.content) {
            entry.word().schedule();
            entry.sum.schedule();
            content.schedule();
        }
    }

    pub fn pages(&self) -> u64 {
        self.content.len() as u64
    }

    pub fn entry(&self, page: u64) -> &Entry {
        &self.entries[page as usize]
    }

    /// What read(2) gives of a page: the kernel's locks order it behind whoever took the page out, if it found a hole.
    pub fn read(&self, page: u64) -> u64 {
        self.content[page as usize].load(Ordering::Acquire)
    }

    /// What a program sees of a page.
    pub fn see(&self, page: u64) -> u64 {
        self.content[page as usize].load(Ordering::Relaxed)
    }

    /// A store through a page table's entry, which is gone when the page is: false then, and nothing stored.
    pub fn store_if_there(&self, page: u64, value: u64) -> bool {
        let there = |now: u64| (now != 0).then_some(value);
        self.content[page as usize].fetch_update(Ordering::Relaxed, Ordering::Relaxed, there).is_ok()
    }

    /// What a program does to a page through a mapping. Nobody is told.
    pub fn store(&self, page: u64, value: u64) {
        self.content[page as usize].store(value, Ordering::Relaxed);
    }
}

/// The number that a page of bytes is.
pub fn number_of(page: &[u8]) -> u64 {
    u64::from_le_bytes(*page.first_chunk().expect("a page"))
}

/// A page as bytes.
pub fn bytes_of(number: u64) -> [u8; PAGE_SIZE] {
    let mut bytes = [0; PAGE_SIZE];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    bytes
}

impl Board for Cache {
    fn control(&self) -> &Control {
        &self.files.control
    }

    fn chunk(&self, number: u64) -> Result<Chunk<'_>, Errno> {
        assert_eq!(number, 0, "everything lies in the first window");
        let Files { entries, dirty, resident, departures, .. } = &*self.files;
        Ok(Chunk { entries, dirty, resident, departures })
    }

    fn me(&self) -> usize {
        self.me
    }

    fn alive(&self, owner: usize) -> bool {
        owner != DEAD
    }

    fn wait(&self, _: &AtomicU64, _: u64, _: Duration) {
        // Everybody else first.
        loom::thread::yield_now();
    }

    fn wake(&self, _: &AtomicU64) {}

    fn begin_use(&self, _: u64, _: u64) -> InUse {
        self.files.uses[self.me].store(1, Ordering::SeqCst);
        InUse::All
    }

    fn end_use(&self, _: InUse) {
        self.files.uses[self.me].store(0, Ordering::SeqCst);
    }

    fn in_use(&self, _: u64, _: u64) -> bool {
        self.files.uses.iter().any(|uses| uses.load(Ordering::SeqCst) != 0)
    }
}

impl Frames for Cache {
    fn read(&self, first: u64, into: &mut [u8]) -> Result<(), Errno> {
        for (page, bytes) in (first..).zip(into.chunks_exact_mut(PAGE_SIZE)) {
            bytes.copy_from_slice(&bytes_of(self.files.see(page)));
        }
        Ok(())
    }

    fn install(&self, first: u64, data: &[u8]) -> Result<(), (u64, Errno)> {
        for (page, bytes) in (first..).zip(data.chunks_exact(PAGE_SIZE)) {
            self.files.installed.fetch_add(1, SeqCst);
            self.files.store(page, number_of(bytes));
        }
        Ok(())
    }

    fn merge(&self, page: u64, base: &[u8; PAGE_SIZE], new: &[u8; PAGE_SIZE]) -> Result<(), Errno> {
        let (base, new) = (number_of(base), number_of(new));
        let here = &self.files.content[page as usize];
        let _ = here.compare_exchange(base, new, Ordering::Relaxed, Ordering::Relaxed);
        Ok(())
    }

    fn size(&self) -> Result<u64, Errno> {
        Ok(self.files.size.load(SeqCst))
    }

    fn set_size(&self, size: u64) -> Result<(), Errno> {
        self.files.size.store(size, SeqCst);
        (size.div_ceil(PAGE)..self.files.pages()).for_each(|page| self.files.store(page, 0));
        Ok(())
    }

    fn resize(&self, from: u64, to: u64) -> Result<bool, Errno> {
        let same = self.size()? == from;
        if same {
            self.set_size(to)?;
        }
        Ok(same)
    }

    fn append(&self, _: u64, _: &[u8]) -> Result<bool, Errno> {
        Ok(false)
    }

    fn lock_host(&self) -> Result<(), Errno> {
        while !self.try_lock_host() {
            loom::thread::yield_now();
        }
        Ok(())
    }

    fn try_lock_host(&self) -> bool {
        self.files.host.compare_exchange(0, 1, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    fn unlock_host(&self) {
        self.files.host.store(0, Ordering::SeqCst);
    }

    fn punch(&self, offset: u64, length: u64) -> Result<(), Errno> {
        (offset / PAGE..(offset + length) / PAGE).for_each(|page| self.files.store(page, 0));
        Ok(())
    }

    fn take_out(&self, first: u64, into: &mut [u8]) -> Result<u64, Errno> {
        let pages = into.len() / PAGE_SIZE;
        for (page, bytes) in (first..).zip(into.chunks_exact_mut(PAGE_SIZE)) {
            bytes.copy_from_slice(&bytes_of(self.files.content[page as usize].swap(0, Ordering::AcqRel)));
        }
        Ok(pages as u64)
    }

    fn is_hole(&self, page: u64) -> Result<bool, Errno> {
        Ok(self.files.see(page) == 0)
    }
}

const _: () = assert!(WINDOW_PAGES <= CHUNK_PAGES);
