//! The uffd rungs: a thread of ours, or on uffd-sigbus the thread that took the fault, installs what was touched.
//!
//! Owns: the userfaultfd, its thread, arming. Called by: Engine. Must not: hold a lock that a thread of the program can hold
//! while it touches a mapping (there is none: rule 4), or touch the program's memory itself.

use core::sync::atomic::Ordering;
use std::sync::Arc;

use super::StoreTracking;
use super::mappings::Mapping;
use super::state::{COLD, READ, WRITE};
use super::uffd_thread::Server;
use crate::config::{Config, EngineChoice, Prefetch};
use crate::host::{self, Handle, Runtime};
use crate::pager::table::WINDOW_PAGES;
use crate::sys::errno::Errno;
use crate::sys::mem;
use crate::sys::pagemap::Pagemap;
use crate::sys::uffd::{Features, MODE_MISSING, MODE_WP, Uffd};

/// Mappings up to this many bytes are armed whole when they are made; larger ones window by window: arming makes page tables
/// (33 MiB of them for 16 GiB).
const ARM_WHOLE_BYTES: usize = 64 << 20;

/// See the module.
pub struct UffdEngine {
    uffd: Arc<Uffd>,
    pub(super) pagemap: Option<Pagemap>,
    /// How stores are seen.
    pub stores: StoreTracking,
    /// Whether touches inside system calls are served.
    pub kernel_faults: bool,
    /// Whether a fault is SIGBUS, served in the thread that takes it.
    in_thread: bool,
    prefetch: Prefetch,
}

impl UffdEngine {
    /// Opens a userfaultfd for one of the uffd rungs, with all that the kernel and NETMEM_MASK allow.
    pub fn open(rung: EngineChoice, config: &Config) -> Result<UffdEngine, Errno> {
        let kernel_faults = rung == EngineChoice::Uffd;
        let in_thread = rung == EngineChoice::UffdSigbus;
        let pagemap =
            if config.mask.pagemap_scan { None } else { Pagemap::open(None).ok().filter(Pagemap::works) };
        let want = Features {
            wp_shmem: true,
            // Asynchronous notes can hold nobody.
            wp_async: !config.mask.wp_async && !config.snapshot && pagemap.is_some(),
            poison: !config.mask.poison && !in_thread,
            sigbus: in_thread,
            thread_id: config.sites && !in_thread,
        };
        let uffd = Uffd::open(kernel_faults, want)?;
        if !uffd.features.wp_shmem || uffd.features.sigbus != in_thread {
            return Err(Errno(libc::EOPNOTSUPP));
        }
        let stores = if uffd.features.wp_async { StoreTracking::Async } else { StoreTracking::Sync };
        let prefetch = config.prefetch;
        Ok(UffdEngine { uffd: Arc::new(uffd), pagemap, stores, kernel_faults, in_thread, prefetch })
    }

    /// For logs and netmem_engine().
    pub fn name(&self) -> &'static str {
        match self.rung() {
            EngineChoice::Uffd => "uffd",
            EngineChoice::UffdSigbus => "uffd-sigbus",
            _ => "uffd-user",
        }
    }

    /// Which of the uffd rungs this is.
    pub fn rung(&self) -> EngineChoice {
        match (self.in_thread, self.kernel_faults) {
            (true, _) => EngineChoice::UffdSigbus,
            (false, true) => EngineChoice::Uffd,
            (false, false) => EngineChoice::UffdUser,
        }
    }

    /// In a forked child: closes the parent's descriptors.
    pub fn abandon(self) {
        let number = self.uffd.raw();
        crate::sys::fd::forget(number);
        crate::sys::fd::close_raw(number);
        // The thread's share in it was copied with the memory, and is never dropped.
        core::mem::forget(self.uffd);
    }

    /// Starts the thread, or makes SIGBUS ours.
    pub fn start(&self) -> Result<(), Errno> {
        if self.in_thread {
            return super::takeover::make_ours(libc::SIGBUS);
        }
        let mut server = Server::new(self.uffd.clone(), self.prefetch);
        crate::sys::thread::spawn(Box::new(move || server.run()))
    }

    /// uffd-sigbus: serves a fault of this thread, whose signals are blocked. EFAULT behind the end of the file; `None` if faults are
    /// no signals here.
    pub(super) fn serve(
        &self,
        runtime: &'static Runtime,
        mapping: &Mapping,
        address: usize,
        write: bool,
    ) -> Option<Result<(), Errno>> {
        if !self.in_thread {
            return None;
        }
        let inside = host::handle(mapping.handle).pages_inside();
        if inside.is_ok_and(|inside| mapping.page_at(address) >= inside) {
            return Some(Err(Errno(libc::EFAULT)));
        }
        let touched = address & !(mem::PAGE - 1);
        let served = Server::here(self.uffd.clone(), self.prefetch, touched).serve(runtime);
        // The page may be here, and protected; or it came protected.
        Some(served.and_then(|()| if write { self.let_store_through(mapping, address) } else { Ok(()) }))
    }

    /// Registers a mapping that nobody can access yet, and arms what may already be there.
    pub fn register(&self, mapping: &Mapping, handle: &Handle) -> Result<(), Errno> {
        let mode = if mapping.private { MODE_MISSING } else { MODE_MISSING | MODE_WP };
        self.uffd.register(mapping.start, mapping.length(), mode)?;
        if mapping.private {
            return Ok(());
        }
        if mapping.length() <= ARM_WHOLE_BYTES || self.stores == StoreTracking::Sync {
            self.uffd.write_protect(mapping.start, mapping.length(), true)?;
            for block in mapping.state.blocks.iter() {
                block.store(READ, Ordering::SeqCst);
            }
            return Ok(());
        }
        let (first, end) = (mapping.first_page, mapping.end_page());
        let mut result = Ok(());
        handle.region.each_resident_window(first..end, |window| {
            let (from, to) = (window.max(first), (window + WINDOW_PAGES).min(end));
            if from < to && result.is_ok() {
                let (from, to) = (mapping.address_of(from), mapping.address_of(to - 1) + mem::PAGE);
                result = self.uffd.write_protect(from, to - from, true);
            }
        });
        result
    }

    /// The same in a forked child, where page tables of shared mappings start empty and unarmed: until a window is armed at its
    /// first fault, or by a scan, its pages count as written, which a checksum settles.
    pub fn register_in_child(&self, mapping: &Mapping, handle: &Handle) -> Result<(), Errno> {
        for block in mapping.state.blocks.iter() {
            block.store(COLD, Ordering::SeqCst);
        }
        self.register(mapping, handle)
    }

    /// Marks what was stored through shared mappings of a region and arms them again.
    pub fn harvest_pieces(&self, mappings: &[Mapping], handle: &Handle) {
        let region = &handle.region;
        if let (StoreTracking::Async, Some(pagemap)) = (self.stores, &self.pagemap) {
            super::harvest::scan_mappings(pagemap, mappings, region);
            return;
        }
        let mut windows = Vec::new();
        region.each_dirty_window(|window| windows.push(window));
        for mapping in mappings {
            let skip = windows.partition_point(|window| window + WINDOW_PAGES <= mapping.first_page);
            for window in windows[skip..].iter().take_while(|window| **window < mapping.end_page()) {
                let from = (*window).max(mapping.first_page);
                let to = (window + WINDOW_PAGES).min(mapping.end_page());
                let length = (to - from) as usize * mem::PAGE;
                self.protect_window(mapping, mapping.address_of(from), length);
            }
        }
    }

    /// Protects a part of a mapping again, one block after the other, so that the thread that lets a store through is either
    /// before the mark or behind the protection (D3). A block that no store was let into since is protected still; one that is
    /// locked may have a store let in just now, whose mark was taken already.
    fn protect_window(&self, mapping: &Mapping, start: usize, length: usize) {
        let _quiet = crate::sys::signal::SignalMask::block_all();
        let state = mapping.state;
        for block in state.number(start)..=state.number(start + length - 1) {
            if state.is_quiet(block) {
                continue;
            }
            let (from, to) = state.range(block, mapping.start, mapping.end);
            let now = state.lock(block);
            if super::pins::covers(from, to) {
                self.protect_around_pins(mapping, from, to);
                state.unlock(block, WRITE);
                continue;
            }
            let done = self.uffd.write_protect(from, to - from, true).is_ok();
            state.unlock(block, if done { READ } else { now });
        }
    }

    /// A block with pages that stay open, whose tags stay with them; so do those of what can't be protected.
    fn protect_around_pins(&self, mapping: &Mapping, from: usize, to: usize) {
        let region = &host::handle(mapping.handle).region;
        let protect = |from: usize, to: usize| {
            if from < to && self.uffd.write_protect(from, to - from, true).is_err() {
                region.mark_writer(mapping.page_at(from), ((to - from) / mem::PAGE) as u64);
            }
        };
        let mut start = from;
        for at in (from..to).step_by(mem::PAGE) {
            if super::pins::covers(at, at + mem::PAGE) {
                protect(start, at);
                region.mark_pinned(mapping.page_at(at), 1);
                start = at + mem::PAGE;
            }
        }
        protect(start, to);
    }

    /// Protects what is not pinned, whatever is known of it.
    pub fn protect_whole(&self, mapping: &Mapping) -> Result<(), Errno> {
        if super::pins::covers(mapping.start, mapping.end) {
            self.protect_around_pins(mapping, mapping.start, mapping.end);
            return Ok(());
        }
        self.uffd.write_protect(mapping.start, mapping.length(), true)
    }

    /// Synchronous tracking: mark, then let go on; not while somebody keeps the region from changing (I2).
    pub fn let_store_through(&self, mapping: &Mapping, address: usize) -> Result<(), Errno> {
        self.let_through(mapping, address, true)
    }

    /// The same at once, for a page that is pinned: who keeps the region from changing opens such pages himself.
    pub fn open_for_kernel(&self, mapping: &Mapping, address: usize) -> Result<(), Errno> {
        self.let_through(mapping, address, false)
    }

    fn let_through(&self, mapping: &Mapping, address: usize, waits: bool) -> Result<(), Errno> {
        if self.stores == StoreTracking::Async || mapping.private {
            return Ok(());
        }
        let _quiet = crate::sys::signal::SignalMask::block_all();
        let runtime = host::runtime_if_started().ok_or(Errno(libc::EIO))?;
        let mut mapping = *mapping;
        loop {
            let handle = host::handle(mapping.handle);
            if waits {
                host::hold::wait(handle);
            }
            let page = mapping.page_at(address);
            let block = mapping.state.number(address);
            let before = mapping.state.lock(block);
            if waits && host::hold::is_held(handle) {
                mapping.state.unlock(block, before);
                continue;
            }
            let now = runtime.mappings.find(address);
            if now.is_some_and(|now| core::ptr::eq(now.state, mapping.state)) {
                let region = &host::handle(mapping.handle).region;
                let marked = if waits { region.mark_writer(page, 1) } else { region.mark_pinned(page, 1) };
                if !marked {
                    // It leaves, or has left: whoever wants to store looks again, and finds it missing when it is gone (E1).
                    mapping.state.unlock(block, before);
                    return self.uffd.wake(address & !(mem::PAGE - 1), mem::PAGE);
                }
                let result = self.uffd.write_protect(mapping.address_of(page), mem::PAGE, false);
                mapping.state.unlock(block, WRITE);
                return result;
            }
            // The mapping was cut or joined while its block was waited for: a note in the old blocks would be seen by nobody.
            mapping.state.unlock(block, before);
            match now {
                Some(now) if !now.private => mapping = now,
                // Gone, and what waits for it finds that out.
                _ => return self.uffd.wake(address & !(mem::PAGE - 1), mem::PAGE),
            }
        }
    }

    /// Rung 2: pages a system call is about to touch are brought in and mapped. Nothing is touched: what the program or another
    /// process does to the mapping or the file meanwhile is the call's to find out, by EFAULT, and no signal of ours.
    pub fn prepare(&self, mapping: &Mapping, from: usize, to: usize, write: bool) -> Result<(), Errno> {
        if self.kernel_faults {
            return Ok(());
        }
        let handle = host::handle(mapping.handle);
        let pages = mapping.page_at(from)..mapping.page_at(to - 1) + 1;
        handle.bring_in(pages.start, pages.end)?;
        let write = write && mapping.prot & libc::PROT_WRITE != 0;
        let (first, behind) =
            (mapping.address_of(pages.start), mapping.address_of(pages.end - 1) + mem::PAGE);
        if write {
            // What can't be let through is gone.
            for at in (first..behind).step_by(mem::PAGE) {
                let _ = self.let_store_through(mapping, at);
            }
        }
        let advice = if write { libc::MADV_POPULATE_WRITE } else { libc::MADV_POPULATE_READ };
        // SAFETY: a touch of each page by the kernel, as the call is about to make, that stops where there is none.
        if unsafe { mem::madvise(first, behind - first, advice) }.is_err() {
            // A page of zeros that is a hole in the file, where the kernel would have to ask us. (Or no such advice, before 5.14.)
            for page in pages {
                handle.fill_hole(page)?;
            }
        }
        Ok(())
    }
}

impl UffdEngine {
    /// Lets a page that was given up be touched again; it is in the file now. The caller keeps the table from changing.
    pub fn unpoison(&self, mapping: &Mapping, page: u64, handle: &Handle) -> Result<(), Errno> {
        if host::hold::is_held(handle) {
            // The next try comes soon.
            return Err(Errno(libc::EBUSY));
        }
        if !self.uffd.features.poison {
            return self.map_again(mapping, page, handle);
        }
        // SAFETY: in a shared mapping this drops the page table's entry and no data; a private one never had a copy here.
        unsafe { mem::madvise(mapping.address_of(page), mem::PAGE, libc::MADV_DONTNEED)? };
        if mapping.private || self.stores == StoreTracking::Async {
            return Ok(());
        }
        self.uffd.write_protect(mapping.address_of(page), mem::PAGE, true)
    }

    /// The page's mapping had been replaced by nothing. The right one takes its place in one step, so that no touch meets a
    /// third thing; a store that comes before it is registered is marked beforehand (D4), as one that was let through.
    fn map_again(&self, mapping: &Mapping, page: u64, handle: &Handle) -> Result<(), Errno> {
        let (at, offset) = (mapping.address_of(page), page * mem::PAGE as u64);
        let flags = if mapping.private { libc::MAP_PRIVATE } else { libc::MAP_SHARED };
        let mode = if mapping.private { MODE_MISSING } else { MODE_MISSING | MODE_WP };
        let fd = handle.region.cache.fd().raw();
        // SAFETY: a new mapping where the kernel likes, which nobody else knows.
        let aside = unsafe { mem::mmap(0, mem::PAGE, mapping.prot, flags, fd, offset)? };
        let block = mapping.state.number(at);
        let now = mapping.state.lock(block);
        if !mapping.private {
            handle.region.mark_writer(page, 1);
        }
        mem::no_huge_pages(aside, mem::PAGE);
        let how = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
        let moved = mem::set_fork(aside, mem::PAGE, false)
            // SAFETY: what it replaces is the mapping of nothing that `fail_page` put there, or the page itself after a failure here.
            .and_then(|()| unsafe { mem::mremap(aside, mem::PAGE, mem::PAGE, how, at) });
        if moved.is_err() {
            // SAFETY: it is still where nobody knows it.
            let _ = unsafe { mem::munmap(aside, mem::PAGE) };
        }
        let shown = moved.and_then(|_| self.uffd.register(at, mem::PAGE, mode));
        mapping.state.unlock(block, now);
        shown
    }
}

impl StoreTracking {
    /// For the log.
    pub fn name(self) -> &'static str {
        match self {
            StoreTracking::Async => "asynchronous",
            StoreTracking::Sync => "synchronous",
        }
    }
}
