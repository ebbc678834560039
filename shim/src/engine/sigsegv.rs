//! The lowest rung: absent pages are guarded or inaccessible, and SIGSEGV brings them in, in the thread that touched them.
//!
//! Owns: block protections and what a SIGSEGV on them means. Called by: Engine, delivery. Must not: let a page be
//! accessible before it is present, or a block be writable before its pages are marked (DESIGN.md, D4).

use core::sync::atomic::Ordering;
use std::time::Instant;

use super::count_fault;
use super::mappings::Mapping;
use super::state::{COLD, READ, WRITE};
use crate::config::{Config, Prefetch};
use crate::host::handle::Using;
use crate::host::{self, Handle};
use crate::log;
use crate::pager::prefetch::Plan;
use crate::pager::table::{CHUNK_PAGES, CHUNKS_MAX};
use crate::sys::errno::Errno;
use crate::sys::mem;
use crate::sys::signal;

mod leaving;

/// Blocks of a mapping at the most, so that alternating protections stay far below vm.max_map_count (65,530).
const BLOCKS_MAX: u64 = 8192;

/// Pages in a block where guards keep single pages away: a store makes a whole block's pages candidates for the next commit, and
/// each costs a checksum.
const GUARD_BLOCK_PAGES: u64 = 16;

/// Pages that a region can have: what lies behind never needs to be brought in.
const PAGES_MAX: u64 = CHUNK_PAGES * CHUNKS_MAX as u64;

/// What is to be made of a page.
#[derive(Clone, Copy)]
struct Access {
    /// Its block is to be writable.
    write: bool,
    /// It was touched although it is here: whatever its block is by our account, the kernel is told.
    again: bool,
    /// It is pinned, and opened even while somebody keeps the region from changing: he does so himself.
    pinned: bool,
}

impl Access {
    fn to(write: bool) -> Access {
        Access { write, again: false, pinned: false }
    }
}

/// See the module.
pub struct Sigsegv {
    guards: bool,
    prefetch: Prefetch,
}

impl Sigsegv {
    /// Finds out whether guard pages work on shared memory (Linux 6.15).
    pub fn new(config: &Config) -> Result<Sigsegv, Errno> {
        let guards = !config.mask.guard && guards_work();
        Ok(Sigsegv { guards, prefetch: config.prefetch })
    }

    /// For logs and netmem_engine().
    pub fn name(&self) -> &'static str {
        if self.guards { "sigsegv-guard" } else { "sigsegv-mprotect" }
    }

    /// See [`super::Engine::block_pages`].
    pub fn block_pages(&self, length: usize) -> u64 {
        let pages = (length / mem::PAGE) as u64;
        let least = if self.guards { GUARD_BLOCK_PAGES } else { 1 };
        (pages / BLOCKS_MAX).next_power_of_two().max(least)
    }

    /// Makes SIGSEGV ours.
    pub fn start(&self) -> Result<(), Errno> {
        super::takeover::make_ours(libc::SIGSEGV)
    }

    /// Applies the program's protection to what each block allows.
    pub fn protect(&self, mapping: &Mapping) -> Result<(), Errno> {
        let _quiet = signal::SignalMask::block_all();
        let state = mapping.state;
        for block in 0..state.blocks.len() {
            let (from, to) = state.range(block, mapping.start, mapping.end);
            let now = state.lock(block);
            let result =
                if from < to { mem::mprotect(from, to - from, allowed(now, mapping)) } else { Ok(()) };
            state.unlock(block, now);
            match result {
                Err(Errno(libc::ENOMEM)) => return self.close(mapping),
                result => result?,
            }
        }
        Ok(())
    }

    /// Out of mappings: blocks with one protection are one mapping for the kernel. They open again when they are touched. What was
    /// stored is marked already.
    fn close(&self, mapping: &Mapping) -> Result<(), Errno> {
        let state = mapping.state;
        let before: Vec<u8> = (0..state.blocks.len()).map(|block| state.lock(block)).collect();
        let closed = mem::mprotect(mapping.start, mapping.length(), libc::PROT_NONE);
        for (block, now) in before.into_iter().enumerate() {
            state.unlock(block, if closed.is_ok() { COLD } else { now });
        }
        closed
    }

    /// See [`super::Engine::with_page_shut`].
    pub fn with_page_shut(
        &self,
        mapping: &Mapping,
        page: usize,
        make: impl FnOnce() -> Result<usize, Errno>,
    ) -> Result<usize, Errno> {
        let _quiet = signal::SignalMask::block_all();
        let block = mapping.state.number(page);
        let now = mapping.state.lock(block);
        let made = mem::mprotect(page, mem::PAGE, libc::PROT_NONE).and_then(|()| make());
        // If that is refused, the next touch opens it.
        let _ = mem::mprotect(page, mem::PAGE, allowed(now, mapping));
        mapping.state.unlock(block, now);
        made
    }

    /// Marks what may have been stored, and stops further stores from going unnoticed.
    pub fn harvest_piece(&self, mapping: &Mapping, handle: &Handle) {
        if mapping.private {
            return;
        }
        let _quiet = signal::SignalMask::block_all();
        let state = mapping.state;
        for block in 0..state.blocks.len() {
            if state.blocks[block].load(Ordering::SeqCst) & WRITE == 0 {
                continue;
            }
            let now = state.lock(block);
            let (from, to) = state.range(block, mapping.start, mapping.end);
            if now == WRITE && from < to {
                let (first, end) = (mapping.page_at(from), mapping.page_at(to - 1) + 1);
                handle.region.mark_dirty(first, end - first);
                if !super::pins::covers(from, to)
                    && mem::mprotect(from, to - from, allowed(READ, mapping)).is_ok()
                {
                    state.unlock(block, READ);
                    continue;
                }
                leaving::mark_patiently(handle, first, end);
            }
            state.unlock(block, now);
        }
    }

    /// Brings in and opens what a system call is about to touch.
    pub fn prepare(&self, mapping: &Mapping, from: usize, to: usize, write: bool) -> Result<(), Errno> {
        let write = write && mapping.prot & libc::PROT_WRITE != 0;
        let handle = host::handle(mapping.handle);
        handle.bring_in(mapping.page_at(from), mapping.page_at(to - 1) + 1)?;
        let mut at = from;
        while at < to {
            self.open(mapping, handle, (at, at + 1), Access::to(write))?;
            at = (at / mem::PAGE + 1) * mem::PAGE;
        }
        Ok(())
    }

    /// See [`super::Engine::open_for_kernel`].
    pub fn open_for_kernel(&self, mapping: &Mapping, address: usize) -> Result<(), Errno> {
        let handle = host::handle(mapping.handle);
        let _here = using(handle, mapping.page_at(address), mapping.page_at(address) + 1)?;
        handle.bring_in(mapping.page_at(address), mapping.page_at(address) + 1)?;
        self.open(mapping, handle, (address, address + 1), Access { pinned: true, ..Access::to(true) })
    }

    /// Serves one fault of the program. The thread's signals are blocked.
    pub(super) fn serve(&self, mapping: &Mapping, address: usize, write: bool) -> Result<(), Errno> {
        let handle = host::handle(mapping.handle);
        let page = mapping.page_at(address);
        count_fault(handle);
        let began = Instant::now();
        // It must not leave again before it is shown.
        let _here = using(handle, page, page + 1)?;
        let inside = handle.pages_inside()?.min(mapping.end_page());
        if page >= inside {
            return Err(Errno(libc::EFAULT));
        }
        // The block may be open by our account and not for the kernel, which had no mappings left to open it again with.
        let again = handle.region.is_present(page);
        // Closed and here: a store to a block that was read, or a page that came in with others. That is no step of a stream.
        let plan = if again { Plan { stride: 1, count: 1 } } else { self.plan(page, mapping) };
        let (first, end) = match plan.stride {
            1 => (page, page + plan.count),
            -1 => ((page + 1).saturating_sub(plan.count), page + 1),
            stride => {
                // What lies apart comes in with one request, and is opened when it is touched.
                let steps = (0..plan.count as i64).map(|step| page.wrapping_add_signed(stride * step));
                let pages: Vec<u64> =
                    steps.take_while(|page| (mapping.first_page..inside).contains(page)).collect();
                handle.prefetch(&pages);
                (page, page + 1)
            }
        };
        let (mut first, mut end) = (first.max(mapping.first_page), end.min(inside));
        let state = mapping.state;
        let guarded = self.guarded(mapping);
        let needed = if guarded {
            (page, page + 1)
        } else {
            // Without guards the block comes in whole, in the same request.
            let (start, stop) = state.range(state.number(address), mapping.start, mapping.end);
            (mapping.page_at(start), (mapping.page_at(stop - 1) + 1).min(PAGES_MAX))
        };
        let all = (first.min(needed.0), end.max(needed.1));
        if let Err(errno) = handle.bring_in(all.0, all.1) {
            if all == needed {
                return Err(errno);
            }
            // What one page lacks that was asked for ahead is no reason to give up another.
            handle.bring_in(needed.0, needed.1)?;
            (first, end) = (page, page + 1);
        }
        let (from, to) = (mapping.address_of(first), mapping.address_of(end - 1) + mem::PAGE);
        self.open(mapping, handle, (address, address + 1), Access { again, ..Access::to(write) })?;
        if !again {
            crate::stats::FAULT_TIME.note(began);
        }
        if end - first == 1 {
            return Ok(());
        }
        for block in state.number(from)..=state.number(to - 1) {
            let (start, stop) = state.range(block, from, to);
            // Without guards a block opens whole, and so it must have come whole; the others are opened when they are touched.
            if guarded || (start, stop) == state.range(block, mapping.start, mapping.end) {
                self.open(mapping, handle, (start, stop), Access::to(false))?;
            }
        }
        Ok(())
    }

    fn plan(&self, page: u64, mapping: &Mapping) -> Plan {
        let runtime = host::runtime_if_started();
        let least = runtime.map_or(1, |runtime| runtime.remote.pages_in_a_round_trip());
        let plan = mapping.state.detector.plan(page, self.prefetch, least);
        Plan { count: plan.count.min(runtime.map_or(1, |runtime| runtime.budget.batch())), ..plan }
    }

    /// Whether the pages of a mapping are kept away one by one. Locked memory takes no guards: its blocks come in whole. So do those of a
    /// private one: a guard on a page that left would drop the copy that the program has of it.
    fn guarded(&self, mapping: &Mapping) -> bool {
        self.guards && !mapping.private && !mapping.state.unguarded.load(Ordering::SeqCst)
    }

    /// Makes pages of one block, which are present, accessible, and with `write` their block writable, after marking.
    fn open(
        &self,
        mapping: &Mapping,
        handle: &Handle,
        pages: (usize, usize),
        access: Access,
    ) -> Result<(), Errno> {
        let result = self.try_to_open(mapping, handle, pages, access);
        if result != Err(Errno(libc::EINVAL)) || !self.guarded(mapping) {
            return result;
        }
        log::debug!("locked memory at {:#x} takes no guards", mapping.start);
        mapping.state.unguarded.store(true, Ordering::SeqCst);
        self.try_to_open(mapping, handle, pages, access)
    }

    fn try_to_open(
        &self,
        mapping: &Mapping,
        handle: &Handle,
        pages: (usize, usize),
        access: Access,
    ) -> Result<(), Errno> {
        let address = pages.0;
        let _quiet = signal::SignalMask::block_all();
        let state = mapping.state;
        let block = state.number(address);
        let (from, to) = state.range(block, mapping.start, mapping.end);
        let (first, end) = (mapping.page_at(from), mapping.page_at(to - 1) + 1);
        // Asked once: what is brought in and what is opened must be the same.
        let guarded = self.guarded(mapping);
        let shown = if guarded {
            (mapping.page_at(address), mapping.page_at(pages.1 - 1) + 1)
        } else {
            (first, end.min(PAGES_MAX))
        };
        let _here = using(handle, shown.0, shown.1)?;
        if !guarded {
            // Without guards the whole block opens at once, so all of it must be here, what lies behind the end of the file too: it
            // is patched in place when the file grows elsewhere. Before the block is locked, since a harvest waits for blocks
            // while it holds what bringing in may need.
            handle.bring_in(first, end.min(PAGES_MAX))?;
        }
        let runtime = host::runtime_if_started().ok_or(Errno(libc::EIO))?;
        // Not while somebody keeps the region from changing (I2).
        let now = loop {
            let may_wait = access.write && !access.pinned && !mapping.private;
            if may_wait {
                host::hold::wait(handle);
            }
            let now = state.lock(block);
            if now == WRITE || !may_wait || !host::hold::is_held(handle) {
                break now;
            }
            state.unlock(block, now);
        };
        // As it is now: the program may have changed its protection since it was looked up, and whoever does so later waits for
        // this block and sets it right.
        let found = runtime.mappings.find(address).filter(|found| core::ptr::eq(found.state, state));
        let Some(mapping) = &found else {
            // The mapping was cut or replaced meanwhile; the access is tried again and finds the new one.
            state.unlock(block, now);
            return Ok(());
        };
        if !handle.region.all_present(shown.0, shown.1) {
            // What left before it was used is asked for again when it is touched.
            state.unlock(block, now);
            return Ok(());
        }
        let next = if access.write || mapping.private { now.max(WRITE) } else { now.max(READ) };
        let result = self.open_block(mapping, handle, pages, (now, next, guarded), access.again);
        state.unlock(block, if result.is_ok() { next } else { now });
        match result {
            Err(Errno(libc::ENOMEM)) => self.open_whole(mapping, handle),
            // Tried again, by a fault, when it is known whether a page of the block leaves.
            Err(Errno(libc::EAGAIN)) => Ok(()),
            result => result,
        }
    }

    fn open_block(
        &self,
        mapping: &Mapping,
        handle: &Handle,
        pages: (usize, usize),
        step: (u8, u8, bool),
        again: bool,
    ) -> Result<(), Errno> {
        let (now, next, guarded) = step;
        let state = mapping.state;
        let (from, to) = state.range(state.number(pages.0), mapping.start, mapping.end);
        let (first, end) = (mapping.page_at(from), mapping.page_at(to - 1) + 1);
        if now == COLD && guarded {
            guard_absent(mapping, handle, first, end)?;
        }
        if next == WRITE && !mapping.private {
            let page = mapping.page_at(pages.0);
            // All that is present becomes writable with the block; what is still guarded is marked when it is let in.
            let all = if now == WRITE { (page, mapping.page_at(pages.1 - 1) + 1) } else { (first, end) };
            if !leaving::mark(handle, all.0, all.1) {
                return Err(Errno(libc::EAGAIN));
            }
        }
        if now != next || again {
            if mapping.private && mem::is_locked(from, to - from) {
                // The kernel copies each page of locked private memory that becomes writable, and would copy what was only read.
                mem::lock_on_fault(from, to - from)?;
            }
            mem::mprotect(from, to - from, allowed(next, mapping))?;
        }
        if guarded {
            let at = pages.0 & !(mem::PAGE - 1);
            mem::guard_remove(at, (pages.1 - at).next_multiple_of(mem::PAGE))?;
        } else if self.guards {
            // From before the memory was locked.
            mem::guard_remove(from, to - from)?;
        }
        Ok(())
    }

    /// Out of mappings: one protection for all that lies in the file costs its tracking, not its data.
    fn open_whole(&self, mapping: &Mapping, handle: &Handle) -> Result<(), Errno> {
        if host::hold::is_held(handle) {
            // Tried again, by a fault, when stores may go on.
            host::hold::wait(handle);
            return Ok(());
        }
        log::debug!("vm.max_map_count reached; a mapping of {} bytes is opened whole", mapping.length());
        let state = mapping.state;
        let inside = handle.pages_inside()?.clamp(mapping.first_page + 1, mapping.end_page());
        let last = state.number(mapping.address_of(inside - 1));
        let behind = state.range(last, mapping.start, mapping.end).1;
        let end = mapping.page_at(behind - 1) + 1;
        let _here = using(handle, mapping.first_page, end.min(PAGES_MAX))?;
        handle.bring_in(mapping.first_page, end.min(PAGES_MAX))?;
        let _quiet = signal::SignalMask::block_all();
        let before: Vec<u8> = (0..=last).map(|block| state.lock(block)).collect();
        let runtime = host::runtime_if_started().ok_or(Errno(libc::EIO))?;
        let found = runtime.mappings.find(mapping.start).filter(|found| core::ptr::eq(found.state, state));
        let Some(mapping) = &found else {
            before.into_iter().enumerate().for_each(|(block, now)| state.unlock(block, now));
            return Ok(());
        };
        leaving::mark_patiently(handle, mapping.first_page, end);
        let mut result = mem::mprotect(mapping.start, behind - mapping.start, mapping.prot);
        if self.guards && result.is_ok() {
            result = mem::guard_remove(mapping.start, behind - mapping.start);
        }
        for block in 0..=last {
            state.unlock(block, WRITE);
        }
        result
    }
}

/// Keeps pages here that are here when they are looked at next (E3).
fn using(handle: &Handle, first: u64, end: u64) -> Result<Using<'_>, Errno> {
    handle.using(first * mem::PAGE as u64, end.saturating_sub(first) * mem::PAGE as u64)
}

/// Guards every page of a cold block that is not present.
fn guard_absent(mapping: &Mapping, handle: &Handle, first: u64, end: u64) -> Result<(), Errno> {
    let mut page = first;
    while page < end {
        if handle.region.is_present(page) {
            page += 1;
            continue;
        }
        let start = page;
        while page < end && !handle.region.is_present(page) {
            page += 1;
        }
        mem::guard_install(mapping.address_of(start), (page - start) as usize * mem::PAGE)?;
    }
    Ok(())
}

/// What the kernel may let through: the program's wish, cut down to what the block's state allows.
fn allowed(state: u8, mapping: &Mapping) -> i32 {
    match state {
        COLD => libc::PROT_NONE,
        // Memory that may be written may be read.
        READ if mapping.prot & libc::PROT_WRITE != 0 => mapping.prot & !libc::PROT_WRITE | libc::PROT_READ,
        READ => mapping.prot,
        _ => mapping.prot,
    }
}

fn guards_work() -> bool {
    let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
    // SAFETY: a new mapping of our own, given back at once.
    unsafe {
        let Ok(at) = mem::mmap(0, mem::PAGE, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) else {
            return false;
        };
        let works = mem::guard_install(at, mem::PAGE).is_ok();
        let _ = mem::munmap(at, mem::PAGE);
        works
    }
}
