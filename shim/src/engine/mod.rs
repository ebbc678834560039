//! How a hardware fault becomes our work, and how a store becomes known.
//!
//! Owns: the choice of the rung, and [`Engine`], which dispatches to it. Called by: host and abi. Must not: know names or
//! descriptors.

pub mod delivery;
mod handler_stack;
pub mod harvest;
pub mod mappings;
pub mod pins;
mod robust;
pub mod sigsegv;
pub mod sites;
pub mod state;
mod takeover;
pub mod uffd;
mod uffd_thread;
mod waiting;

use core::sync::atomic::Ordering;

use crate::config::{Config, EngineChoice};
use crate::host::Handle;
use crate::log;
use crate::pager::table::Tracking;
use crate::sys::errno::Errno;
use crate::sys::mem;
use crate::sys::pagemap::Pagemap;
use mappings::Mapping;
use sigsegv::Sigsegv;
use uffd::UffdEngine;

/// A rung of the ladder.
pub enum Engine {
    /// userfaultfd, with kernel faults or for user mode only.
    Uffd(UffdEngine),
    /// Guard pages or PROT_NONE.
    Sigsegv(Sigsegv),
}

/// How stores are seen on the uffd rungs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreTracking {
    /// The kernel notes them; PAGEMAP_SCAN reads the notes.
    Async,
    /// A store to a protected page waits until we have marked it.
    Sync,
}

impl Engine {
    /// Probes the ladder from the top and takes the first rung that works, or the one that was asked for.
    pub fn choose(config: &Config) -> Result<Engine, Errno> {
        let mut why = Vec::new();
        for choice in [EngineChoice::Uffd, EngineChoice::UffdUser, EngineChoice::UffdSigbus] {
            let automatic = config.engine == EngineChoice::Auto && choice != EngineChoice::UffdSigbus;
            if !automatic && config.engine != choice {
                continue;
            }
            match UffdEngine::open(choice, config) {
                Ok(engine) => {
                    log::info!("engine: {}{}", engine.name(), reasons(&why));
                    return Ok(Engine::Uffd(engine));
                }
                Err(errno) => {
                    let rung = if choice == EngineChoice::Uffd { "uffd" } else { "uffd-user" };
                    why.push(format!("{rung}: {errno}"))
                }
            }
        }
        if !matches!(config.engine, EngineChoice::Auto | EngineChoice::Sigsegv) {
            log::error!(
                "NETMEM_ENGINE asks for an engine that this kernel or these permissions refuse ({}); `netmem doctor` says what to change",
                why.join(", ")
            );
            return Err(Errno(libc::EPERM));
        }
        let engine = Sigsegv::new(config)?;
        log::info!("engine: {}{}", engine.name(), reasons(&why));
        Ok(Engine::Sigsegv(engine))
    }

    /// For logs, statistics and netmem_engine().
    pub fn name(&self) -> &'static str {
        match self {
            Engine::Uffd(engine) => engine.name(),
            Engine::Sigsegv(engine) => engine.name(),
        }
    }

    /// What peers must do to learn of this process's stores.
    pub fn tracking(&self) -> Tracking {
        match self {
            Engine::Uffd(engine) if engine.stores == StoreTracking::Async => Tracking::PageTables,
            Engine::Uffd(_) | Engine::Sigsegv(_) if crate::host::config().snapshot => Tracking::Holds,
            Engine::Uffd(_) | Engine::Sigsegv(_) => Tracking::Marks,
        }
    }

    /// Whether a page that was cut off and came back can be stored into without a mark: the kernel drops its protection, and on
    /// this rung a store without protection is silent. (PROT_WRITE of a block stays away; asynchronous notes read as written.)
    pub fn loses_arming(&self) -> bool {
        matches!(self, Engine::Uffd(engine) if engine.stores == StoreTracking::Sync)
    }

    /// Whether a system call may be given a pointer into a mapping of ours as it is.
    pub fn kernel_faults(&self) -> bool {
        match self {
            Engine::Uffd(engine) => engine.kernel_faults,
            Engine::Sigsegv(_) => false,
        }
    }

    /// Whether parts of a mapping have less access than the program asked for.
    pub fn in_blocks(&self) -> bool {
        matches!(self, Engine::Sigsegv(_))
    }

    /// Pages that a mapping of `length` bytes handles together.
    pub fn block_pages(&self, length: usize) -> u64 {
        match self {
            Engine::Uffd(_) => crate::pager::table::WINDOW_PAGES,
            Engine::Sigsegv(engine) => engine.block_pages(length),
        }
    }

    /// Before anything of ours is mapped: threads, handlers.
    pub fn start(&self) -> Result<(), Errno> {
        match self {
            Engine::Uffd(engine) => engine.start(),
            Engine::Sigsegv(engine) => engine.start(),
        }
    }

    /// Takes charge of a range that was mapped PROT_NONE and entered in the table, and lets the program in.
    pub fn take_charge(&self, mapping: &Mapping, handle: &'static Handle) -> Result<(), Errno> {
        let _looking = state::Looking::start();
        mem::set_fork(mapping.start, mapping.length(), false)?;
        mem::no_huge_pages(mapping.start, mapping.length());
        match self {
            Engine::Uffd(engine) => {
                engine.register(mapping, handle)?;
                mem::mprotect(mapping.start, mapping.length(), mapping.prot)
            }
            // Its blocks are cold. (A range that was moved may have some of its old protections.)
            Engine::Sigsegv(_) => {
                handle.region.cache.ask_before_pages_leave();
                mem::mprotect(mapping.start, mapping.length(), libc::PROT_NONE)
            }
        }
    }

    /// A forked child inherited the mapping; its registration stayed with the parent. Runs before anything of the child does.
    pub fn take_over_in_child(&self, mapping: &Mapping, handle: &'static Handle) -> Result<(), Errno> {
        mem::set_fork(mapping.start, mapping.length(), false)?;
        match self {
            Engine::Uffd(engine) => {
                engine.register_in_child(mapping, handle)?;
                let pages = (mapping.start..mapping.end).step_by(mem::PAGE);
                if pins::covers(mapping.start, mapping.end) {
                    pages
                        .filter(|page| pins::covers(*page, page + mem::PAGE))
                        .try_for_each(|page| engine.open_for_kernel(mapping, page))?;
                }
                Ok(())
            }
            // Guards and protections were copied with the page tables; whatever is writable here stays marked.
            Engine::Sigsegv(engine) => engine.adopt_in_child(mapping, handle),
        }
    }

    /// The program changed a piece's protection; the table already has the new one.
    pub fn protect(&self, mapping: &Mapping) -> Result<(), Errno> {
        let _looking = state::Looking::start();
        match self {
            Engine::Uffd(_) => mem::mprotect(mapping.start, mapping.length(), mapping.prot),
            Engine::Sigsegv(engine) => engine.protect(mapping),
        }
    }

    /// This process can no longer store unnoticed through shared mappings of a region: true once [`Self::harvest_pieces`] has
    /// run, which must follow.
    pub fn clear_writers(&self, mappings: &[Mapping], handle: &Handle) {
        if !self.tracking().marks() {
            return;
        }
        let me = crate::pager::Board::me(&handle.region.cache);
        // A page that is mapped a thousand times has one tag.
        let mut ranges: Vec<(u64, u64)> =
            mappings.iter().map(|mapping| (mapping.first_page, mapping.end_page())).collect();
        ranges.sort_unstable();
        ranges.dedup_by(|next, last| {
            let joined = next.0 <= last.1;
            if joined {
                last.1 = last.1.max(next.1);
            }
            joined
        });
        handle.region.each_dirty_window(|window| {
            let end = window + crate::pager::table::WINDOW_PAGES;
            let skip = ranges.partition_point(|range| range.1 <= window);
            for (from, to) in ranges[skip..].iter().take_while(|range| range.0 < end) {
                handle.region.clear_writer(window.max(*from), end.min(*to), me);
            }
        });
    }

    /// Makes a call of the kernel's that grows the mapping of a page in place: with the page shut on the rungs where what is new would
    /// be open to whoever comes by. Who touches the page waits.
    pub fn with_page_shut(
        &self,
        mapping: &Mapping,
        page: usize,
        make: impl FnOnce() -> Result<usize, Errno>,
    ) -> Result<usize, Errno> {
        match self {
            Engine::Uffd(_) => make(),
            Engine::Sigsegv(engine) => engine.with_page_shut(mapping, page, make),
        }
    }

    /// Notes what was stored through shared mappings of a region, and arms them again.
    pub fn harvest_pieces(&self, mappings: &[Mapping], handle: &Handle) {
        let _looking = state::Looking::start();
        match self {
            Engine::Uffd(engine) => engine.harvest_pieces(mappings, handle),
            Engine::Sigsegv(engine) => {
                for mapping in mappings {
                    engine.harvest_piece(mapping, handle);
                }
            }
        }
    }

    /// After a harvest, with a hold on the region: whether a shared mapping is closed to stores, but for pinned pages. EBUSY if not, and
    /// where stores are not told one by one.
    pub fn close(&self, mapping: &Mapping) -> Result<(), Errno> {
        if let Engine::Uffd(engine) = self {
            // Pages that were cut off and came back have lost their protection without a word.
            engine.protect_whole(mapping)?;
        }
        let open = |block: &usize| {
            let (from, to) = mapping.state.range(*block, mapping.start, mapping.end);
            from < to && mapping.state.is_open(*block) && !pins::covers(from, to)
        };
        match (0..mapping.state.blocks.len()).find(open) {
            None if self.tracking() == Tracking::Holds => Ok(()),
            _ => Err(Errno(libc::EBUSY)),
        }
    }

    /// Closes the pages of `first..end` that are about to leave, wherever they are shown. The table may
    /// change meanwhile: a mapping that is new, or moves, has nothing open, and one that is cut is closed as it was; whoever opens a
    /// block of it finds what is leaving.
    pub fn close_pages(
        &self,
        runtime: &crate::host::Runtime,
        handle: &Handle,
        first: u64,
        end: u64,
    ) -> Result<(), Errno> {
        let Engine::Sigsegv(engine) = self else { return Ok(()) };
        let _looking = state::Looking::start();
        let shown = runtime.mappings.of_handle(handle.index).into_iter();
        let shown = shown.filter(|mapping| mapping.first_page < end && mapping.end_page() > first);
        shown.into_iter().try_for_each(|mapping| engine.close_pages(&mapping, handle, first, end))
    }

    /// The same for one mapping that is about to go; nothing for a private one.
    pub fn harvest_piece(&self, mapping: &Mapping, handle: &Handle) {
        if !mapping.private {
            self.harvest_pieces(core::slice::from_ref(mapping), handle);
        }
    }

    /// Makes bytes ready for a system call that reads them (or, with `write`, stores into them).
    pub fn prepare(&self, mapping: &Mapping, from: usize, to: usize, write: bool) -> Result<(), Errno> {
        let _looking = state::Looking::start();
        match self {
            Engine::Uffd(engine) => engine.prepare(mapping, from, to, write),
            Engine::Sigsegv(engine) => engine.prepare(mapping, from, to, write),
        }
    }

    /// Keeps a part of a mapping open to stores of the kernel's own (an alternate signal stack) until [`pins::remove`]. ENOMEM
    /// if too much is pinned.
    pub fn pin(&self, mapping: &Mapping, from: usize, to: usize) -> Result<(), Errno> {
        let first = from & !(mem::PAGE - 1);
        // P1: pinned before it is opened.
        if !(first..to).step_by(mem::PAGE).all(pins::add) {
            return Err(Errno(libc::ENOMEM));
        }
        let handle = crate::host::handle(mapping.handle);
        let _here = handle.using(mapping.page_at(first) * mem::PAGE as u64, (to - first) as u64)?;
        let pages = mapping.page_at(first)..mapping.page_at(to - 1) + 1;
        handle.bring_in(pages.start, pages.end)?;
        handle.region.mark_pinned(pages.start, pages.end - pages.start);
        (first..to).step_by(mem::PAGE).try_for_each(|page| self.open_for_kernel(mapping, page))
    }

    /// Opens the page of an address to stores of the kernel's own, after it was pinned.
    pub fn open_for_kernel(&self, mapping: &Mapping, address: usize) -> Result<(), Errno> {
        let _looking = state::Looking::start();
        match self {
            Engine::Uffd(engine) => engine.open_for_kernel(mapping, address),
            Engine::Sigsegv(engine) => engine.open_for_kernel(mapping, address),
        }
    }

    /// A forked child: everything that is a process's own is made anew, for every mapping in the table.
    pub fn restart_after_fork(&mut self, config: &Config, started: bool) -> Result<(), Errno> {
        match self {
            Engine::Uffd(engine) => {
                let rung = engine.rung();
                // The parent's thread is not here to let go of its descriptor.
                let parents = core::mem::replace(engine, UffdEngine::open(rung, config)?);
                parents.abandon();
                if started { engine.start() } else { Ok(()) }
            }
            Engine::Sigsegv(_) => Ok(()),
        }
    }
}

fn reasons(why: &[String]) -> String {
    if why.is_empty() { String::new() } else { format!(" ({})", why.join(", ")) }
}

/// Whether the running kernel can scan page tables for written pages.
pub fn pagemap_scan_works() -> bool {
    Pagemap::open(None).is_ok_and(|pagemap| pagemap.works())
}

/// Counts what a fault cost; see stats.
pub fn count_fault(handle: &Handle) {
    handle.faults.fetch_add(1, Ordering::Relaxed);
    crate::stats::FAULTS.fetch_add(1, Ordering::Relaxed);
}
