//! A mapped file, as any program has one: pages are loaded, stored and synced by address.
//!
//! Owns: one mapping, and all that is unsafe about it. Called by: the benchmark's worker. Must not: know that the file is netmem's.

#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::ptr::NonNull;

use netmem_protocol::PAGE_SIZE;
use nix::sys::mman::{MapFlags, MmapAdvise, MsFlags, ProtFlags, madvise, mmap, msync, munmap};

/// A file, mapped shared to be read and written.
pub struct Mapping {
    base: NonNull<u8>,
    bytes: usize,
}

impl Mapping {
    /// Maps so many pages of a file, from page `first` on.
    pub fn new(file: &File, first: usize, pages: usize) -> io::Result<Mapping> {
        let bytes = pages * PAGE_SIZE;
        let length = NonZeroUsize::new(bytes).ok_or(io::ErrorKind::InvalidInput)?;
        let offset = (first * PAGE_SIZE) as libc::off_t;
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: the kernel chooses a free place, so nothing that is in use is replaced.
        let base = unsafe { mmap(None, length, access, MapFlags::MAP_SHARED, file, offset) }?;
        Ok(Mapping { base: base.cast(), bytes })
    }

    fn at(&self, page: usize) -> NonNull<u8> {
        assert!(page * PAGE_SIZE < self.bytes, "page {page} is behind the mapping");
        // SAFETY: checked: the page's first byte is within the mapping, which lives as long as `self`.
        unsafe { self.base.add(page * PAGE_SIZE) }
    }

    /// The first word of a page. If that is absent, this is the fault.
    pub fn load(&self, page: usize) -> u64 {
        // SAFETY: `at` checks the page; pages are aligned, and every pattern of bits is a u64. Volatile: the load happens here.
        unsafe { self.at(page).cast::<u64>().read_volatile() }
    }

    /// Stores a page's first word.
    pub fn store(&self, page: usize, word: u64) {
        // SAFETY: as above; the mapping may be written, and nobody has a reference into it.
        unsafe { self.at(page).cast::<u64>().write_volatile(word) }
    }

    /// Says that its pages are touched in no order.
    pub fn jumps_about(&self) -> io::Result<()> {
        // SAFETY: exactly the range that was mapped; the advice changes no content.
        unsafe { madvise(self.base.cast(), self.bytes, MmapAdvise::MADV_RANDOM) }?;
        Ok(())
    }

    /// msync(MS_SYNC) of all of it.
    pub fn sync(&self) -> io::Result<()> {
        // SAFETY: exactly the range that was mapped.
        unsafe { msync(self.base.cast(), self.bytes, MsFlags::MS_SYNC) }?;
        Ok(())
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: exactly the range that was mapped, which nobody uses any more.
        let _ = unsafe { munmap(self.base.cast(), self.bytes) };
    }
}
