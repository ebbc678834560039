//! The monitor: brings back what is touched, and hears what the program does to its addresses.
//!
//! Owns: the thread that reads the userfaultfd, pages on their way in. Called by: far. Must not: touch memory that may be moved out, or hold
//! the lock over the network.
//!
//! A2. Messages are read with the lock held, and the kernel moves and installs nothing (EAGAIN) while one about addresses is unread. So what
//! the table says of an address is true of it for as long as the lock is held and the kernel does not say EAGAIN.

use core::sync::atomic::Ordering;
use core::time::Duration;
use std::time::Instant;

use netmem_protocol::Run;

use super::arriving::{HEAL_PAUSE, Wanted};
use super::order::{Changing, Told};
use super::table::Place;
use super::{Far, State, counters, journal};
use crate::log;
use crate::pager::prefetch::Detector;
use crate::stats;
use crate::sync::QuietGuard;
use crate::sys::apart;
use crate::sys::errno::Errno;
use crate::sys::futex;
use crate::sys::mem::PAGE;
use crate::sys::pagemap::Pagemap;
use crate::sys::uffd::Uffd;
use crate::sys::uffd::memory::Event;

/// Zeros that are installed together at the most.
const ZERO_PAGES_MAX: usize = 64;
static ZEROS: [u8; ZERO_PAGES_MAX * PAGE] = [0; ZERO_PAGES_MAX * PAGE];
/// How long it is waited for a moment in which nobody changes addresses.
const ORDER_LIMIT: Duration = Duration::from_secs(10);
/// Pages asked for together at the most.
pub(super) const BATCH_PAGES_MAX: usize = 1024;

/// A page that a thread waits for.
#[derive(Clone, Copy)]
pub(super) struct Touch {
    pub(super) page: usize,
    /// When we heard of it.
    pub(super) since: Instant,
}

/// What became of pages that were to be installed.
pub(super) enum Put {
    /// So many are there now.
    Pages(usize),
    /// The first one was there already.
    There,
    /// Its address takes none.
    Nowhere,
    /// The program changes its addresses: look again.
    Changed,
}

/// The thread.
pub(super) struct Monitor {
    pub(super) far: &'static Far,
    events: Vec<Event>,
    told: Told,
    touches: Vec<Touch>,
    pub(super) wanted: Vec<Wanted>,
    pub(super) runs: Vec<Run>,
    pub(super) detector: Detector,
    pagemap: Pagemap,
    /// Where first touches would go on, and how many pages they got last.
    fresh: (usize, usize),
    /// Pages that can't be had now.
    pub(super) lost: Vec<usize>,
    /// When they were tried last.
    pub(super) healed: Instant,
}

/// Starts the thread.
pub(super) fn start(far: &'static Far) -> Result<(), Errno> {
    let pagemap = Pagemap::open(None)?;
    apart::spawn(Box::new(move || run(far, pagemap)))
}

fn run(far: &'static Far, pagemap: Pagemap) {
    crate::sys::aside::begin();
    crate::sys::thread::go_first();
    let mut monitor = Monitor {
        far,
        events: Vec::with_capacity(64),
        told: Told::default(),
        touches: Vec::with_capacity(64),
        wanted: Vec::with_capacity(2 * BATCH_PAGES_MAX),
        runs: Vec::with_capacity(2 * BATCH_PAGES_MAX),
        detector: Detector::new(),
        pagemap,
        fresh: (0, 0),
        lost: Vec::new(),
        healed: Instant::now(),
    };
    loop {
        monitor.wait();
        let mut state = far.state.lock();
        monitor.hear(&mut state);
        drop(state);
        monitor.serve();
        monitor.heal();
    }
}

impl Monitor {
    /// Until there is a message, or time to look for the server again.
    fn wait(&self) {
        let fd = crate::sys::fd::borrow(self.far.uffd.raw());
        let mut fds = [rustix::event::PollFd::new(&fd, rustix::event::PollFlags::IN)];
        let pause = rustix::time::Timespec { tv_sec: 0, tv_nsec: HEAL_PAUSE.subsec_nanos().into() };
        let _ = rustix::event::poll(&mut fds, (!self.lost.is_empty()).then_some(&pause));
    }

    /// Reads what has arrived. What it says of addresses is true from now on; touches are kept.
    fn hear(&mut self, state: &mut State) {
        let since = Instant::now();
        super::still::let_pass();
        self.far.hears.store(true, Ordering::SeqCst);
        loop {
            while journal::read_events(&self.far.uffd, &mut self.events).is_ok() {
                for event in self.events.drain(..) {
                    match event {
                        Event::Fault { address } => self.touches.push(Touch { page: address / PAGE, since }),
                        event => self.told.add(event),
                    }
                }
            }
            self.far.news.take(&mut state.registered);
            if self.follow(state, since) == Ok(()) {
                self.far.hears.store(false, Ordering::SeqCst);
                return journal::all_followed();
            }
            futex::pause(Duration::from_micros(5));
        }
    }

    /// Follows what was told; all of it, or an error: then more has to be read first.
    fn follow(&mut self, state: &mut State, since: Instant) -> Result<(), Changing> {
        let uffd = &self.far.uffd;
        if self.told.has_moves() && uffd.is_changing() {
            if since.elapsed() < ORDER_LIMIT {
                return Err(Changing);
            }
            log::error!("far memory: addresses have been changing for {} s", since.elapsed().as_secs());
        }
        loop {
            let parts = self.told.next(&state.registered, |at| uffd.covers(at, PAGE).ok_or(Changing))?;
            if parts.is_empty() {
                return Ok(());
            }
            parts.into_iter().for_each(|event| state.follow(event));
        }
    }

    /// Serves all touches.
    fn serve(&mut self) {
        let far = self.far;
        while !self.touches.is_empty() {
            let mut state = far.state.lock();
            while let Some(touch) = self.touches.pop() {
                let entry = state.table.get(touch.page);
                match entry.place {
                    Place::Waiting(place) => self.take_back(&mut state, touch, place),
                    Place::Far => {
                        self.want(&state, touch);
                        if self.wanted.len() >= BATCH_PAGES_MAX {
                            break;
                        }
                    }
                    Place::Here if entry.slot().is_some() => self.look(&mut state, touch),
                    Place::Here => {
                        drop(state);
                        self.show_zeros(touch);
                        state = far.state.lock();
                    }
                }
            }
            drop(state);
            self.bring(false);
        }
    }

    /// A touch of a page that was brought in before: for another thread that waited, too, or for its neighbour.
    fn look(&mut self, state: &mut QuietGuard<'_, State>, touch: Touch) {
        let at = touch.page * PAGE;
        if self.pagemap.is_there(at) {
            let _ = self.far.uffd.wake(at, PAGE);
        } else if self.far.uffd.is_changing() {
            self.hear(state);
            self.touches.push(touch);
        } else if state.table.get(touch.page).inherited {
            // The child was made beside a thread that dropped it, or it is wiped in children.
            state.table.drop_range(touch.page..touch.page + 1, |_| {});
            self.touches.push(touch);
        } else {
            // Nothing takes pages away but the keeper, who says where they are.
            log::error!("far memory: page {at:#x} is gone; the process ends here");
            std::process::abort();
        }
    }

    /// Installs up to `count` pages by `step`, which is given how many.
    pub(super) fn put(
        &mut self,
        state: &mut QuietGuard<'_, State>,
        (page, count): (usize, usize),
        step: impl Fn(&Uffd, usize) -> (usize, Option<Errno>),
    ) -> Put {
        let uffd = &self.far.uffd;
        let mut result = step(uffd, count);
        if let (0, Some(Errno(libc::ENOENT | libc::EINVAL))) = result
            && count > 1
        {
            // They do not lie in one mapping of the kernel's.
            result = step(uffd, 1);
        }
        match result {
            // If it was not all, what stood in the way is looked at next.
            (1.., _) => {
                state.going.was_missing(page * PAGE, page * PAGE + result.0);
                return Put::Pages(result.0 / PAGE);
            }
            (0, Some(Errno(libc::EAGAIN))) => {
                self.hear(state);
                return Put::Changed;
            }
            _ => {}
        }
        let _ = uffd.wake(page * PAGE, PAGE);
        match result.1 {
            Some(Errno(libc::EEXIST)) => Put::There,
            errno => {
                log::debug!("far memory: page {:#x} can't be installed: {errno:?}", page * PAGE);
                Put::Nowhere
            }
        }
    }

    /// From the waiting room, without the network.
    fn take_back(&mut self, state: &mut QuietGuard<'_, State>, touch: Touch, place: u32) {
        let page = touch.page;
        let from = state.room.address(place);
        let leaving = state.room.is_leaving(place);
        let to = page * PAGE;
        let far = self.far;
        // One that leaves has to stay where it is; the program gets a copy.
        let put = self.put(state, (page, 1), |uffd, _| {
            if leaving {
                return uffd.fill(to, from, PAGE);
            }
            match far.move_all(to, from, PAGE) {
                result @ (_, None | Some(Errno(libc::EAGAIN | libc::EEXIST | libc::ENOENT))) => result,
                // A mapping that can't be written to just now takes copies only.
                _ => uffd.fill(to, from, PAGE),
            }
        });
        match put {
            Put::Pages(_) => {
                state.room.set(place, None);
                state.table.update(page, |entry| (entry.place, entry.hot) = (Place::Here, true));
                stats::add(&counters::FAULTS_NEAR, 1);
            }
            Put::Changed => self.touches.push(touch),
            // Nobody has the page but the waiting room.
            Put::There | Put::Nowhere => {}
        }
    }

    /// A first touch. Whoever goes through new memory gets more at once each time. Also who only reads gets a page of his own: nobody would
    /// hear of a store into the kernel's page of zeros.
    fn show_zeros(&mut self, touch: Touch) {
        let page = touch.page;
        if !self.far.wait_for_new() {
            log::error!(
                "far memory: the server is full, and NETMEM_MEMORY_BYTES is used up: there is no page for {:#x}",
                page * PAGE
            );
            return self.poison(page);
        }
        let (fresh_at, fresh_count) = self.fresh;
        let grows = if fresh_at == page { (fresh_count * 2).min(ZERO_PAGES_MAX) } else { 1 };
        let is_generous = !self.far.full.is() && self.far.is_generous();
        let count = if is_generous { grows } else { 1 };
        let mut state = self.far.state.lock();
        // The keeper may have been at work meanwhile.
        if state.table.get(page).place != Place::Here {
            self.touches.push(touch);
            return;
        }
        // What is not known yet may be registered all the same: the kernel says so.
        let end = state.registered.end_of(page * PAGE).map_or(page + count, |end| end / PAGE);
        let last = (page + count).min(end.max(page + 1));
        let fresh = (page..last).take_while(|page| {
            let entry = state.table.get(*page);
            entry.place == Place::Here && entry.slot().is_none()
        });
        let count = fresh.count().max(1);
        let zeros = ZEROS.as_ptr() as usize;
        let put =
            self.put(&mut state, (page, count), |uffd, count| uffd.fill(page * PAGE, zeros, count * PAGE));
        match put {
            Put::Pages(done) => {
                self.far.spend(done);
                // Whoever had to wait for a page goes on as he was when there is room.
                self.fresh = (page + done, if is_generous { done } else { grows.div_ceil(2) });
                stats::add(&counters::FAULTS_NEW, 1);
            }
            Put::Changed => self.touches.push(touch),
            Put::There | Put::Nowhere => {}
        }
    }
}
