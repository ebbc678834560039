//! The thread that reads a userfaultfd, and brings in what was touched; or, on uffd-sigbus, what a thread that took a fault does.
//!
//! Owns: faults that wait, the batch being fetched, installing. Called by: engine::uffd, which starts it. Must not: hold a lock
//! that a thread of the program can hold while it touches a mapping (there is none: rule 4), or touch the program's memory.

use core::sync::atomic::Ordering;
use std::sync::Arc;

use netmem_protocol::{PageSpan, Run};

use super::count_fault;
use super::harvest::Shown;
use super::mappings::Mapping;
use super::state::{COLD, Looking, READ};
use super::uffd::UffdEngine;
use super::waiting::{Pending, Touched, Waits};
use crate::config::Prefetch;
use crate::host::budget::Coming;
use crate::host::{self, Handle, Runtime};
use crate::log;
use crate::pager::page::Event;
use crate::pager::prefetch::AHEAD_MAX;
use crate::pager::region::{Need, PagerError};
use crate::pager::table::{SUM_ZERO, sum_of_page};
use crate::remote::PageSource;
use crate::sys::clock::Deadline;
use crate::sys::errno::Errno;
use crate::sys::mem;
use crate::sys::uffd::{Message, Uffd};

/// Faults that are being served or wait for someone else's claim, at the most, before the thread stops reading more.
const PENDING_MAX: usize = 256;
/// Pages fetched together at the most: two streams' worth.
const BATCH_PAGES_MAX: u64 = 2 * AHEAD_MAX;
/// So many prefetched pages side by side, or more, are worth a wake-up of their own.
const WAKE_PAGES: u32 = 16;
/// How far apart pages can be whose wake-ups are one call; who waits for a page in between looks once more.
const WAKE_BYTES_MAX: usize = 4 << 20;
/// How often the thread looks whether a page that could not be had can be had again.
const HEAL_POLL_MS: i64 = 500;

mod install;
mod missing;

use install::ZEROS;

/// Pages side by side that we claimed and will fetch.
#[derive(Clone, Copy)]
struct Wanted {
    first: u64,
    count: u32,
    handle: &'static Handle,
    /// They are pending.
    home: bool,
    mapping: Mapping,
    /// The page that a thread waits for, and since when, unless the prefetcher wants them.
    demanded: Option<(u64, Waits)>,
}

impl Wanted {
    fn end(&self) -> u64 {
        self.first + u64::from(self.count)
    }
}

/// The thread's own.
pub(super) struct Server {
    uffd: Arc<Uffd>,
    prefetch: Prefetch,
    pending: Vec<Pending>,
    batch: Vec<Wanted>,
    /// Pages in `batch`.
    pages: u64,
    /// How many there may be before no more are claimed ahead.
    most: u64,
    /// Where pages were installed whose waiters, if any, sleep still.
    asleep: Option<(usize, usize)>,
    /// Whether a read of the userfaultfd waits.
    blocking: bool,
    /// In the thread that took the fault: what it touched.
    touched: Option<Touched>,
}

impl Server {
    /// The thread's state before its first fault.
    pub(super) fn new(uffd: Arc<Uffd>, prefetch: Prefetch) -> Self {
        let (pending, batch) = (Vec::new(), Vec::new());
        Server {
            uffd,
            prefetch,
            pending,
            batch,
            pages: 0,
            most: 1,
            asleep: None,
            blocking: true,
            touched: None,
        }
    }

    /// For one fault, of this very thread, on the page at `address`.
    pub(super) fn here(uffd: Arc<Uffd>, prefetch: Prefetch, address: usize) -> Self {
        let touched = Some(Touched::new(address));
        Server { touched, ..Self::new(uffd, prefetch) }
    }

    /// Serves that fault: the page is here, or was for a moment, or can't be had.
    pub(super) fn serve(&mut self, runtime: &'static Runtime) -> Result<(), Errno> {
        let Some(address) = self.touched.as_ref().map(|touched| touched.address) else { return Ok(()) };
        let mut waits = Some(Pending::now(address, 0, runtime));
        while let Some(fault) = waits {
            let coming = self.expect(runtime, 1);
            self.begin(runtime, fault);
            self.fetch_batch(runtime);
            drop(coming);
            waits = self.pending.pop();
        }
        self.touched.as_ref().and_then(|touched| touched.lost.get()).map_or(Ok(()), Err)
    }

    /// Serves faults for as long as the process lives.
    pub(super) fn run(&mut self) {
        let mut messages: Vec<Message> = Vec::with_capacity(crate::sys::uffd::MESSAGES_MAX);
        let Some(runtime) = host::wait_for_runtime() else { return };
        loop {
            messages.clear();
            // With faults that wait for someone else, or pages that wait for the server, look at them again soon; else sleep in
            // the read until there is a fault.
            let waiting = !self.pending.is_empty() || host::poison::any();
            if waiting == self.blocking && self.uffd.set_blocking(!waiting).is_ok() {
                self.blocking = !waiting;
            }
            let soon = if self.pending.is_empty() { HEAL_POLL_MS } else { 1 };
            if !waiting || self.pending.len() < PENDING_MAX && readable(&self.uffd, soon) {
                match self.uffd.read(&mut messages) {
                    Ok(()) | Err(Errno(libc::EINTR | libc::EAGAIN)) => {}
                    Err(errno) => {
                        log::error!(
                            "userfaultfd: {errno}; faults can't be served any more, stopping the program"
                        );
                        std::process::abort();
                    }
                }
            }
            let _looking = Looking::start();
            let mut todo = core::mem::take(&mut self.pending);
            for message in &messages {
                if message.write_protect {
                    self.let_store_through(runtime, message.address);
                } else {
                    todo.push(Pending::now(message.address, message.thread, runtime));
                }
            }
            // Before anything is claimed: who makes room may have to wait for who waits for a claim.
            let coming = self.expect(runtime, todo.len());
            for fault in todo {
                self.begin(runtime, fault);
            }
            self.fetch_batch(runtime);
            drop(coming);
            host::poison::heal();
        }
    }

    /// Makes room for what so many faults may need, and for what is claimed along with it.
    fn expect(&mut self, runtime: &'static Runtime, faults: usize) -> Option<Coming<'static>> {
        if faults == 0 {
            return None;
        }
        self.most = runtime.budget.batch().min(BATCH_PAGES_MAX);
        let coming = runtime.budget.expect(faults as u64 + self.most);
        host::room::make(runtime);
        Some(coming)
    }

    /// Synchronous tracking: mark, then let go on.
    fn let_store_through(&self, runtime: &Runtime, address: usize) {
        let let_through = match (runtime.mappings.find(address), runtime.engine()) {
            (Some(mapping), super::Engine::Uffd(engine)) if !mapping.private => {
                engine.let_store_through(&mapping, address)
            }
            _ => self.uffd.write_protect(address, mem::PAGE, false),
        };
        if let_through.is_err() {
            // What the store waits in is being replaced, and is not registered just now; it finds that out by itself.
            let _ = self.uffd.wake(address & !(mem::PAGE - 1), mem::PAGE);
        }
    }

    /// Decides what a fault needs: nothing, zeros, a fetch, or patience.
    fn begin(&mut self, runtime: &'static Runtime, fault: Pending) {
        let Some(mapping) = runtime.mappings.find(fault.address) else {
            let _ = self.uffd.wake(fault.address, mem::PAGE);
            return;
        };
        let handle = host::handle(mapping.handle);
        let Ok(_pin) = handle.pin() else {
            let _ = self.uffd.wake(fault.address, mem::PAGE);
            return;
        };
        let page = mapping.page_at(fault.address);
        self.arm_window(runtime, &mapping, handle, fault.address);
        match handle.region.need(page) {
            Ok(Need::Nothing) => self.fill_hole(runtime, &mapping, page),
            Ok(Need::Zeros) => {
                count_fault(handle);
                runtime.budget.came(handle, 1);
                if self.install(&mapping, page, &ZEROS, true).is_empty() {
                    handle.region.settle_installed(page, SUM_ZERO);
                } else {
                    handle.region.settle(page, Event::Release);
                }
                fault.waits.end();
                crate::stats::ZERO_PAGES.fetch_add(1, Ordering::Relaxed);
            }
            Ok(need @ (Need::Fetch | Need::Home)) => {
                count_fault(handle);
                self.claim_around(runtime, &mapping, (handle, need), (page, fault.waits));
            }
            Ok(Need::Wait) => self.wait_or_give_up(runtime, fault, handle, page),
            Err(errno) => self.give_up(&mapping, fault.address, &PagerError::Cache(errno)),
        }
    }

    fn wait_or_give_up(&mut self, runtime: &Runtime, fault: Pending, handle: &Handle, page: u64) {
        // Our own batch may hold the claim; it is fetched right after. Others' are looked at again, and the dead's are freed.
        let is_it = |wanted: &Wanted| {
            (wanted.first..wanted.end()).contains(&page) && core::ptr::eq(wanted.handle, handle)
        };
        if !self.batch.iter().any(is_it) {
            let _ =
                handle.region.wait_for(page, Deadline::after(Some(core::time::Duration::from_micros(200))));
        }
        if fault.deadline.passed() {
            if let Some(mapping) = runtime.mappings.find(fault.address) {
                self.give_up(&mapping, fault.address, &PagerError::Busy);
            }
        } else {
            self.pending.push(fault);
        }
    }

    /// Puts a page that we claimed on the list, with those that the same reader will want next.
    fn claim_around(
        &mut self,
        runtime: &Runtime,
        mapping: &Mapping,
        (handle, need): (&'static Handle, Need),
        demanded: (u64, Waits),
    ) {
        let page = demanded.0;
        let least = runtime.remote.pages_in_a_round_trip();
        let plan = mapping.state.detector.plan(page, self.prefetch, least);
        self.push(mapping, (handle, need), page, Some(demanded));
        let inside = mapping.first_page..mapping.end_page().min(handle.region.fetchable());
        for step in 1..plan.count as i64 {
            let next = page.wrapping_add_signed(plan.stride * step);
            if !inside.contains(&next) || self.pages >= self.most {
                return;
            }
            match handle.region.need(next) {
                Ok(need @ (Need::Fetch | Need::Home)) => self.push(mapping, (handle, need), next, None),
                // Here already; what lies behind may not be.
                Ok(Need::Nothing) => {}
                Ok(Need::Zeros) => return handle.region.settle(next, Event::Release),
                Ok(Need::Wait) | Err(_) => return,
            }
        }
    }

    fn push(
        &mut self,
        mapping: &Mapping,
        (handle, need): (&'static Handle, Need),
        page: u64,
        demanded: Option<(u64, Waits)>,
    ) {
        self.pages += 1;
        let home = need == Need::Home;
        if let (None, Some(last)) = (demanded, self.batch.last_mut())
            && last.home == home
        {
            // Those that are claimed ahead follow what they were claimed for.
            if last.end() == page {
                last.count += 1;
                return;
            }
            if page + 1 == last.first {
                last.first = page;
                last.count += 1;
                return;
            }
        }
        self.batch.push(Wanted { first: page, count: 1, handle, home, mapping: *mapping, demanded });
    }

    /// Arms a window where pages may show up without a fault, before the first page of it is installed; what was stored through such pages is
    /// noted. In a window that is new to the host, pages come in armed.
    fn arm_window(&self, runtime: &Runtime, mapping: &Mapping, handle: &Handle, address: usize) {
        let state = mapping.state;
        let block = state.number(address);
        if mapping.private || state.blocks[block].load(Ordering::SeqCst) != COLD {
            return;
        }
        let (from, to) = state.range(block, mapping.start, mapping.end);
        if let super::Engine::Uffd(UffdEngine { pagemap: Some(pagemap), .. }) = runtime.engine() {
            let shown = Shown { start: from, end: to, first_page: mapping.page_at(from) };
            super::harvest::scan(pagemap, &[shown], &handle.region, true);
        }
        state.blocks[block].store(READ, Ordering::SeqCst);
    }

    /// Fetches everything claimed, region by region, and installs it.
    fn fetch_batch(&mut self, runtime: &'static Runtime) {
        self.pages = 0;
        // What is pending first: a view that has to move for the others brings home what it would change, and waits for who does so.
        while let Some(first) = self.batch.iter().find(|wanted| wanted.home).or(self.batch.first()).copied() {
            let (mine, rest): (Vec<Wanted>, Vec<Wanted>) = self
                .batch
                .drain(..)
                .partition(|wanted| core::ptr::eq(wanted.handle, first.handle) && wanted.home == first.home);
            self.batch = rest;
            self.fetch_one_region(runtime, (first.handle, first.home), mine);
        }
    }

    fn fetch_one_region(
        &mut self,
        runtime: &'static Runtime,
        (handle, home): (&'static Handle, bool),
        mut mine: Vec<Wanted>,
    ) {
        // Claims are held, so the handle was there when they were made; the mapping may go while we fetch.
        let _pin = handle.pin();
        mine.sort_unstable_by_key(|wanted| wanted.first);
        let mut runs: Vec<Run> = Vec::new();
        for wanted in &mine {
            match runs.last_mut() {
                Some(last) if last.end() == wanted.first => last.count += wanted.count,
                _ => runs.push(Run::new(wanted.first, wanted.count)),
            }
        }
        runtime.budget.came(handle, runs.iter().map(|run| u64::from(run.count)).sum());
        let region = &handle.region;
        if home {
            region.note_place(&runtime.remote);
        }
        let (from, epoch) = if home { region.pending_place() } else { (region.id, region.view()) };
        // Of the wanted, all before this one have come, and this many pages of it.
        let (mut at, mut taken) = (0, 0);
        let result = runtime.remote.fetch(from, epoch, &runs, &mut |mut span, more| {
            while let Some(wanted) = mine.get(at)
                && span.run.count > 0
            {
                let (now, rest) = span.split_at(span.run.count.min(wanted.count - taken));
                self.deliver(wanted, now);
                taken += now.run.count;
                if taken == wanted.count {
                    (at, taken) = (at + 1, 0);
                }
                span = rest;
            }
            if !more {
                self.wake();
            }
        });
        self.wake();
        let Err(error) = result else { return };
        let error = PagerError::from(error);
        let mut missing = mine.split_off(at);
        if let Some(first) = missing.first_mut() {
            first.first += u64::from(taken);
            first.count -= taken;
        }
        self.did_not_come(runtime, handle, (from, epoch), &missing, &error);
    }

    /// Installs pages that came for a mapping, and ends their claims. Who waits for a page that was asked for goes on at once; for one
    /// that was not, when those that came with it are here: a reader right behind would only wait again, for the next one.
    fn deliver(&mut self, wanted: &Wanted, span: PageSpan<'_>) {
        let region = &wanted.handle.region;
        let (first, end) = (span.run.first.0, span.run.end());
        let is_demanded = wanted.demanded.is_some_and(|(page, _)| (first..end).contains(&page));
        let wake = is_demanded || span.run.count >= WAKE_PAGES;
        if !wake {
            let (from, to) = (wanted.mapping.address_of(first), wanted.mapping.address_of(end));
            if self.asleep.is_some_and(|(low, high)| high.max(to) - low.min(from) > WAKE_BYTES_MAX) {
                self.wake();
            }
            let (low, high) = self.asleep.unwrap_or((from, to));
            self.asleep = Some((low.min(from), high.max(to)));
        }
        let failed = match span.data {
            Some(data) => self.install(&wanted.mapping, first, data, wake),
            None => (first..end).flat_map(|page| self.install(&wanted.mapping, page, &ZEROS, wake)).collect(),
        };
        for (at, (page, data)) in span.pages().enumerate() {
            if failed.contains(&page) {
                region.settle(page, Event::Release);
            } else if wanted.home {
                region.settle_home(page);
            } else {
                region.settle_installed(page, sum_of_page(data, span.sum(at)));
            }
        }
        if let Some((_, waits)) = wanted.demanded.filter(|_| is_demanded) {
            waits.end();
        }
    }

    /// Wakes whoever waits for what was installed since the last time.
    fn wake(&mut self) {
        if let Some((low, high)) = self.asleep.take() {
            let _ = self.uffd.wake(low, high - low);
        }
    }
}

fn readable(uffd: &Uffd, timeout_ms: i64) -> bool {
    let fd = crate::sys::fd::borrow(uffd.raw());
    let mut fds = [rustix::event::PollFd::new(&fd, rustix::event::PollFlags::IN)];
    let limit = rustix::event::Timespec { tv_sec: 0, tv_nsec: timeout_ms * 1_000_000 };
    rustix::event::poll(&mut fds, Some(&limit)).is_ok_and(|ready| ready > 0)
}
