//! A region that this process is attached to: what abi and the engines work with.
//!
//! Owns: [`Handle`] and the operations that need both pager and engine. Called by: abi, engines. Must not: know paths.

use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, Ordering};
use std::time::Instant;

use netmem_protocol::{PAGE_SIZE, PageIndex};

use super::cache_file::{EndLock, RegionFile};
use super::hold::Hold;
use super::{Runtime, room, runtime_if_started, times};
use crate::engine::harvest;
use crate::engine::mappings::Writer;
use crate::engine::sites::{self, Wait};
use crate::log;
use crate::pager::commit::{CommitOptions, CommitReport, Held, How, Member, commit_together};
use crate::pager::evict::Use;
use crate::pager::table::{Board, WINDOW_PAGES};
use crate::pager::{Frames, PagerError, Region};
use crate::stats;
use crate::sync::{QuietGuard, QuietMutex};
use crate::sys::clock::Deadline;
use crate::sys::errno::Errno;

/// Pages brought in at a time for a call, at the most.
const BRING_IN_PAGES: u64 = 1024;

/// Regions in a process at the most.
pub const HANDLES_MAX: usize = 1 << 16;

/// See the module.
pub struct Handle {
    /// The pager's view of it.
    pub region: Region<RegionFile>,
    /// Its number in this process.
    pub index: u32,
    /// Its name when it was opened, for messages.
    pub name: String,
    /// Faults served.
    pub faults: AtomicU64,
    /// Descriptors of the program that show it.
    pub descriptors: AtomicU32,
    /// Whether the process gives the region up when its last descriptor and mapping are gone: an unnamed one.
    pub unnamed: bool,
    /// Held around reads and writes at a shared file offset whose pages are not all here. Lock order: 2.
    pub offset: QuietMutex<()>,
    /// libc reads the file by inner calls, of which nobody tells us: it is all here.
    pub inner_reads: AtomicBool,
    /// libc writes it by inner calls: it is compared at every commit.
    pub inner_writes: AtomicBool,
    /// The program took a record lock on the file, which any close of any descriptor of it gives up.
    pub record_locks: AtomicBool,
    /// The last failure of a background commit, for the next sync; an errno, 0 for none.
    pub late_errno: AtomicU32,
    /// Writes to the file under way, for who holds (see hold).
    pub writing: AtomicU64,
    /// Operations under way.
    pub(super) users: AtomicU32,
    /// Given up: nothing in the process shows the region, and its files are closed with the last operation.
    pub(super) released: AtomicBool,
}

/// Keeps everyone else, in this process and on this host, from moving shared file offsets and from making the file longer or
/// shorter, while it lives.
pub struct OffsetLock {
    host: Option<&'static Handle>,
    _process: QuietGuard<'static, ()>,
}

impl Drop for OffsetLock {
    fn drop(&mut self) {
        if let Some(handle) = self.host {
            handle.region.cache.unlock_offset();
        }
    }
}

/// Keeps a handle's files open while it lives.
pub struct Pin<'a>(&'a Handle);

impl Drop for Pin<'_> {
    fn drop(&mut self) {
        if self.0.users.fetch_sub(1, Ordering::SeqCst) == 1 && self.0.released.load(Ordering::SeqCst) {
            self.0.region.cache.close_files();
        }
    }
}

/// Pages that stay, and a handle's files open, while this lives.
pub struct Using<'a> {
    _pages: Use<'a>,
    _pin: Pin<'a>,
}

static HANDLES: [AtomicPtr<Handle>; HANDLES_MAX] =
    [const { AtomicPtr::new(core::ptr::null_mut()) }; HANDLES_MAX];

/// The handle with this number, which came from a table that only holds numbers of live handles.
pub fn handle(index: u32) -> &'static Handle {
    match find(index) {
        Some(handle) => handle,
        None => {
            log::error!("no region has number {index} in this process: a bug in netmem; stopping");
            std::process::abort()
        }
    }
}

/// The handle with this number.
pub fn find(index: u32) -> Option<&'static Handle> {
    // SAFETY: null or a leaked box: handles live as long as the process.
    unsafe { HANDLES.get(index as usize)?.load(Ordering::Acquire).as_ref() }
}

/// All handles that are not given up.
pub fn all() -> impl Iterator<Item = &'static Handle> {
    (0..HANDLES_MAX as u32).map_while(find).filter(|handle| !handle.released.load(Ordering::SeqCst))
}

/// Enters a handle, for good.
pub(super) fn enter(handle: Handle) -> &'static Handle {
    let index = handle.index as usize;
    let handle = Box::leak(Box::new(handle));
    HANDLES[index].store(handle, Ordering::Release);
    handle
}

impl Handle {
    /// See [`OffsetLock`]. Not to be taken by a thread that has it.
    pub fn lock_offset(&'static self) -> Result<OffsetLock, Errno> {
        let process = self.offset.lock();
        let company = self.region.cache.has_company();
        if company {
            self.region.cache.lock_offset()?;
        }
        Ok(OffsetLock { host: company.then_some(self), _process: process })
    }

    /// Keeps the files open for an operation. EBADF if they are given up: the descriptor was closed under it.
    pub fn pin(&self) -> Result<Pin<'_>, Errno> {
        self.users.fetch_add(1, Ordering::SeqCst);
        let pin = Pin(self);
        if self.released.load(Ordering::SeqCst) { Err(Errno(libc::EBADF)) } else { Ok(pin) }
    }

    /// Gives the region up: no descriptor and no mapping of this process shows it. Files close with the last operation.
    pub(super) fn release(&self) {
        self.leave();
        self.users.fetch_add(1, Ordering::SeqCst);
        self.released.store(true, Ordering::SeqCst);
        drop(Pin(self));
    }

    fn runtime(&self) -> Result<&'static Runtime, Errno> {
        runtime_if_started().ok_or(Errno(libc::EIO))
    }

    fn deadline(runtime: &Runtime) -> Deadline {
        Deadline::after(runtime.config.timeout)
    }

    fn report(&self, what: &str, error: &PagerError) -> Errno {
        if !matches!(error, PagerError::Cache(_)) {
            log::error!("{}: {what}: {error}", self.name);
        }
        error.errno()
    }

    /// Makes pages present; zeros too, so that a mapping can show them.
    pub fn bring_in(&self, first: u64, end: u64) -> Result<(), Errno> {
        let _pin = self.pin()?;
        if self.region.all_present(first, end) {
            return Ok(());
        }
        self.fetch(first, end, true)
    }

    /// Brings in what is not here, as many pages at a time as the budget likes.
    fn fetch(&self, first: u64, end: u64, for_write: bool) -> Result<(), Errno> {
        let runtime = self.runtime()?;
        // A fault counts itself.
        let began = (sites::wanted() && !sites::in_a_fault()).then(Instant::now);
        let deadline = Self::deadline(runtime);
        let mut result = Ok(());
        let mut at = first;
        while at < end && result.is_ok() {
            let stop = end.min(at + runtime.budget.batch().min(BRING_IN_PAGES));
            let absent = (at..stop).filter(|page| !self.region.is_present(*page)).count() as u64;
            result = self.with_room(runtime, absent, || {
                self.region.bring_in(&runtime.remote, at, stop, for_write, deadline)
            });
            at = stop;
        }
        if let Some(began) = began {
            sites::note(Wait::Call, sites::caller(), began);
        }
        result.map_err(|error| self.report("a page can't be had", &error))
    }

    /// Brings so many pages in, with room made for them before.
    fn with_room<T>(&self, runtime: &'static Runtime, pages: u64, bring_in: impl FnOnce() -> T) -> T {
        let coming = runtime.budget.expect(pages);
        room::make(runtime);
        let result = bring_in();
        runtime.budget.came(self, pages);
        drop(coming);
        result
    }

    /// Brings in those of the pages that are nobody's turn to bring in, if it can be done; who needs them will ask.
    pub fn prefetch(&self, pages: &[u64]) {
        let Ok(_pin) = self.pin() else { return };
        if let Ok(runtime) = self.runtime() {
            let pages = &pages[..pages.len().min(runtime.budget.batch() as usize)];
            let _ =
                self.with_room(runtime, pages.len() as u64, || self.region.prefetch(&runtime.remote, pages));
        }
    }

    /// Keeps pages that are here when they are looked at from now on (E3), for as long as the kernel is at the file for us.
    pub fn using(&self, offset: u64, length: u64) -> Result<Using<'_>, Errno> {
        let pin = self.pin()?;
        let (first, end) =
            (PageIndex::containing(offset).0, PageIndex::ceil(offset.saturating_add(length)).0);
        Ok(Using { _pages: Use::begin(&self.region.cache, first, end), _pin: pin })
    }

    /// See [`Region::departures`], for a range of bytes.
    pub fn departures(&self, offset: u64, length: u64) -> u64 {
        let end = PageIndex::ceil(offset.saturating_add(length)).0;
        self.region.departures(PageIndex::containing(offset).0, end)
    }

    /// Whether a read of `length` bytes at `offset` gives the data.
    pub fn is_here(&self, offset: u64, length: u64) -> Result<bool, Errno> {
        let _pin = self.pin()?;
        let first = PageIndex::containing(offset).0;
        // If all of it is here, nobody need know where the file ends.
        if self.region.reads_right(first, PageIndex::ceil(offset.saturating_add(length)).0) {
            return Ok(true);
        }
        let end = PageIndex::ceil(offset.saturating_add(length).min(self.size()?)).0;
        Ok(first >= end || self.region.reads_right(first, end))
    }

    /// Makes a read of `length` bytes at `offset` give the data, for the moment: pages may leave again.
    pub fn bring_in_for_read(&self, offset: u64, length: u64) -> Result<(), Errno> {
        let _pin = self.pin()?;
        if self.is_here(offset, length)? {
            return Ok(());
        }
        let first = PageIndex::containing(offset).0;
        let end = PageIndex::ceil(offset.saturating_add(length).min(self.size()?)).0;
        let ahead = if length < 128 * 1024 { end + 16 } else { end };
        let ahead = ahead.min(PageIndex::ceil(self.size()?).0);
        match self.fetch(first, ahead, false) {
            // What nobody asked for is no reason to fail.
            Err(_) if ahead > end => self.fetch(first, end, false),
            result => result,
        }
    }

    /// Makes a write of `length` bytes at `offset` keep the rest of its pages.
    pub fn bring_in_for_write(&self, offset: u64, length: u64) -> Result<(), Errno> {
        if length == 0 {
            return Ok(());
        }
        let first = PageIndex::containing(offset).0;
        self.bring_in(first, PageIndex::ceil(offset.saturating_add(length)).0)
    }

    /// Notes what a write changed.
    pub fn wrote(&self, offset: u64, length: u64) {
        let Ok(_pin) = self.pin() else { return };
        if length != 0 {
            let first = PageIndex::containing(offset).0;
            let end = PageIndex::ceil(offset.saturating_add(length)).0;
            let mut window = first;
            while window < end {
                let _ = self.region.note_resident(window);
                window = (window / WINDOW_PAGES + 1) * WINDOW_PAGES;
            }
            if !self.region.all_present(first, end) {
                // Cut off and written again in one moment: what was written is the page.
                let absent = (first..end).filter(|page| self.region.is_absent(*page));
                absent.for_each(|page| self.region.adopt_written(page));
            }
            self.region.mark_dirty(first, end - first);
            times::touch(self.region.cache.control());
        }
    }

    /// A present page that is a hole in the file becomes a page of zeros there, unless someone wrote it meanwhile.
    pub fn fill_hole(&self, page: u64) -> Result<(), Errno> {
        let _pin = self.pin()?;
        // Of one that left meanwhile, zeros would be in the file, and taken for it.
        let _here = Use::begin(&self.region.cache, page, page + 1);
        if !self.region.is_present(page) {
            return Ok(());
        }
        self.runtime()?.budget.came(self, 1);
        // A load through a mapping of our own, which is registered nowhere, lets the kernel do it under the page's lock.
        self.region.cache.populate(page)
    }

    /// Bytes in the file.
    pub fn size(&self) -> Result<u64, Errno> {
        let _pin = self.pin()?;
        self.region.cache.size()
    }

    /// Pages that lie at least partly inside the file.
    pub fn pages_inside(&self) -> Result<u64, Errno> {
        Ok(PageIndex::ceil(self.size()?).0)
    }

    /// Commits everything dirty.
    pub fn commit(&self, options: CommitOptions) -> Result<CommitReport, Errno> {
        Ok(Self::commit_together(&[self], options, false)?[0])
    }

    /// Commits everything dirty in these regions as one commit; with `instant` as it was at one instant. They are in the order of their
    /// numbers in this process, each once.
    pub fn commit_together(
        handles: &[&Handle],
        options: CommitOptions,
        instant: bool,
    ) -> Result<Vec<CommitReport>, Errno> {
        let Some(first) = handles.first() else { return Ok(Vec::new()) };
        let pins = handles.iter().map(|handle| handle.pin()).collect::<Result<Vec<_>, Errno>>()?;
        let runtime = first.runtime()?;
        for handle in handles.iter().filter(|handle| handle.inner_writes.load(Ordering::Relaxed)) {
            handle.suspect_inner_writes();
        }
        let mut late = 0;
        for handle in handles {
            late = late.max(handle.late_errno.swap(0, Ordering::AcqRel));
        }
        let before: Vec<_> = handles.iter().map(|handle| handle.region.view()).collect();
        let began = Instant::now();
        let harvests: Vec<_> = handles
            .iter()
            .map(|handle| |_: &mut dyn FnMut(u64, u64)| harvest::harvest(runtime, handle))
            .collect();
        let hold = || Hold::begin(handles).map(|hold| Box::new(hold) as Box<dyn Held + '_>);
        let members = handles.iter().zip(&harvests);
        let members: Vec<_> =
            members.map(|(handle, harvest)| Member { region: &handle.region, harvest }).collect();
        let committed = commit_together(
            &members,
            &How {
                source: &runtime.remote,
                options,
                holding: instant.then_some(&hold),
                deadline: Self::deadline(runtime),
            },
        );
        let reports = committed.map_err(|error| {
            for handle in handles {
                handle.report("not committed, still dirty", &error);
            }
            error.errno()
        })?;
        for ((handle, before), report) in handles.iter().zip(before).zip(&reports) {
            handle.note_commit(before.0, *report);
            if report.pages != 0 {
                log::debug!("{}: {} pages committed as epoch {}", handle.name, report.pages, report.epoch);
            }
        }
        runtime.budget.may_go();
        let pages = reports.iter().map(|report| report.pages).sum();
        if pages != 0 {
            stats::COMMIT_TIME.note(began);
            sites::note(Wait::Sync, sites::caller(), began);
            stats::add(&stats::COMMITS, 1);
            stats::add(&stats::PAGES_COMMITTED, pages);
        }
        drop(pins);
        if late == 0 { Ok(reports) } else { Err(Errno(late as i32)) }
    }

    /// After a commit: whose it was, and if it found what was stored through a mapping, that the file has changed.
    fn note_commit(&self, before: u64, report: CommitReport) {
        let control = self.region.cache.control();
        // Stores that a peer noted itself are told apart from its writes by nobody.
        let peer = || self.region.cache.peers().iter().any(|(_, tracking)| tracking.marks());
        let stored = self.region.stored.swap(false, Ordering::Relaxed);
        if report.pages != 0 && (stored || peer()) {
            times::touch(control);
        }
        if report.epoch.0 > before {
            control.own_epoch.store(report.epoch.0, Ordering::Relaxed);
        }
    }

    /// Moves the view to the newest epoch.
    pub fn refresh(&self) -> Result<(), Errno> {
        let _pin = self.pin()?;
        let runtime = self.runtime()?;
        stats::add(&stats::VIEW_MOVES, 1);
        self.region.refresh(&runtime.remote).map_err(|error| self.report("not refreshed", &error))?;
        if self.inner_reads.load(Ordering::Relaxed) { self.bring_in(0, self.pages_inside()?) } else { Ok(()) }
    }

    /// ftruncate(2).
    pub fn truncate(&'static self, size: u64) -> Result<(), Errno> {
        let _pin = self.pin()?;
        let runtime = self.runtime()?;
        if size > runtime.region_bytes_max() {
            log::error!(
                "{}: {size} bytes are more than the server allows in a region (--max-region)",
                self.name
            );
            return Err(Errno(libc::EFBIG));
        }
        let _offset = self.lock_offset()?;
        self.region
            .truncate(&runtime.remote, size, Self::deadline(runtime))
            .map_err(|error| self.report("not truncated", &error))?;
        times::touch(self.region.cache.control());
        Ok(())
    }

    /// Before bytes are written behind the end of the file, which was at `size`: keeps it there (see [`EndLock`]), with what a mapping
    /// stored behind it cleared. `None` if the end has moved.
    pub fn lock_end_at(&self, size: u64) -> Result<Option<EndLock<'_>>, Errno> {
        let _pin = self.pin()?;
        let end = self.region.cache.lock_end()?;
        if self.region.cache.size()? != size {
            return Ok(None);
        }
        if !size.is_multiple_of(PAGE_SIZE as u64) {
            self.region.cache.zero_tail(size)?;
        }
        Ok(Some(end))
    }

    /// Makes bytes zeros without changing the size.
    pub fn punch(&self, offset: u64, length: u64) -> Result<(), Errno> {
        let _pin = self.pin()?;
        let runtime = self.runtime()?;
        self.region
            .punch(&runtime.remote, offset, length, Self::deadline(runtime))
            .map_err(|error| self.report("not punched", &error))?;
        times::touch(self.region.cache.control());
        Ok(())
    }

    /// Whether nothing in this process shows the region any more. Not while the table is being changed: a mapping that moves is in
    /// it nowhere for a moment.
    pub fn is_idle(&self, table: &Writer<'_>) -> bool {
        self.descriptors.load(Ordering::SeqCst) == 0 && !table.shows(self.index)
    }

    /// Somebody may have written to the file without a word: every page inside it counts as written, checksums settle it.
    pub fn suspect_inner_writes(&self) {
        let Ok(pages) = self.pages_inside() else { return };
        // Pages that nobody brought in and that are in the file all the same were written whole, behind what the server knows.
        let beyond = self.region.committed_end();
        let _ = self.bring_in(beyond.min(pages), pages);
        self.region.mark_dirty(0, pages);
    }

    /// Gives up this process's place in the region: nothing is dirty but what the marks say.
    pub fn leave(&self) {
        let alone = self.region.cache.peers().is_empty()
            && self.region.cache.control().heirs.load(Ordering::SeqCst) == 0;
        if self.region.cache.is_unlinked() && alone {
            self.region.cache.remove_control();
        }
        self.region.cache.detach();
    }
}
