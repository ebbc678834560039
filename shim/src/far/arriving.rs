//! Pages on their way in from the server.
//!
//! Owns: which are asked for, those that come along, and those that can't be had. Called by: the monitor. Must not: hold the lock over the
//! network, or allocate: around a fork the heap is locked, and libc may touch pages that are away.

use core::time::Duration;
use std::time::Instant;

use netmem_protocol::pages::page_sum;
use netmem_protocol::{Epoch, PageSpan, Run};

use super::monitor::{BATCH_PAGES_MAX, Monitor, Put, Touch};
use super::table::Place;
use super::{AHEAD_PAGES, State, counters};
use crate::log;
use crate::remote::PageSource;
use crate::stats;
use crate::sys::mem::PAGE;

/// How often what was lost is tried again.
pub(super) const HEAL_PAUSE: Duration = Duration::from_millis(500);

/// A page on its way in.
#[derive(Clone, Copy)]
pub(super) struct Wanted {
    slot: u64,
    page: usize,
    /// When we heard that somebody waits for it, if one does.
    since: Option<Instant>,
}

impl Monitor {
    /// Notes a page that has to come from the server, with those that the program will touch next.
    pub(super) fn want(&mut self, state: &State, touch: Touch) {
        let page = touch.page;
        let Some(slot) = state.table.get(page).slot() else { return };
        let since = Some(touch.since);
        stats::add(&counters::FAULTS_FAR, 1);
        if let Some(wanted) = self.wanted.iter_mut().find(|wanted| wanted.page == page) {
            wanted.since = since;
            return;
        }
        let before = self.wanted.len();
        self.wanted.push(Wanted { slot, page, since });
        let least = self.far.remote.pages_in_a_round_trip();
        let plan = self.detector.plan(page as u64, self.far.settings.prefetch, least);
        let count = if self.far.full.is() { 1 } else { plan.count as i64 };
        for step in 1..count {
            let next = (page as u64).wrapping_add_signed(plan.stride * step) as usize;
            let entry = state.table.get(next);
            let Some(slot) = entry.slot().filter(|_| entry.place == Place::Far) else { continue };
            if self.wanted.len() >= BATCH_PAGES_MAX {
                return;
            }
            // Those of this plan differ from each other; and who else is wanted was touched.
            if !self.wanted[..before].iter().any(|wanted| wanted.page == next) {
                self.wanted.push(Wanted { slot, page: next, since: None });
            }
        }
    }

    /// Fetches what is wanted and installs it as it comes; not all of those for whom nobody waits where there is no room, unless it is
    /// to be `all`.
    pub(super) fn bring(&mut self, all: bool) {
        if self.wanted.is_empty() {
            return;
        }
        let far = self.far;
        let mut wanted = core::mem::take(&mut self.wanted);
        far.wait_for_room();
        let mut room = if all { usize::MAX } else { far.room_beyond(AHEAD_PAGES) };
        wanted.retain(|wanted| {
            let stays = wanted.since.is_some() || room > 0;
            room = room.saturating_sub(1);
            stays
        });
        far.spend(wanted.len());
        let ahead = wanted.iter().filter(|wanted| wanted.since.is_none()).count();
        stats::add(&counters::PAGES_AHEAD, ahead as u64);
        wanted.sort_unstable_by_key(|wanted| wanted.slot);
        // Nothing is allocated on this way: around a fork the heap is locked, and libc may touch pages that are away.
        let mut runs = core::mem::take(&mut self.runs);
        runs.clear();
        for Wanted { slot, .. } in &wanted {
            match runs.last_mut() {
                Some(last) if last.end() == *slot => last.count += 1,
                _ => runs.push(Run::new(*slot, 1)),
            }
        }
        let mut came = 0;
        let result = far.remote.fetch(far.region(), Epoch(0), &runs, &mut |span, _| {
            let count = span.run.count as usize;
            self.install(&wanted[came..came + count], span);
            came += count;
        });
        if let Err(error) = result {
            if wanted.iter().any(|wanted| wanted.since.is_some()) {
                log::error!("far memory: pages can't be had: {error}");
            }
            wanted[came..].iter().for_each(|wanted| self.give_up(wanted));
        }
        for since in wanted.iter().filter_map(|wanted| wanted.since) {
            stats::add(&counters::WAITED_NS, since.elapsed().as_nanos() as u64);
        }
        wanted.clear();
        (self.wanted, self.runs) = (wanted, runs);
    }

    /// Puts pages where they belong, if they still do.
    fn install(&mut self, wanted: &[Wanted], span: PageSpan<'_>) {
        let far = self.far;
        let data = span.data.unwrap_or(&[]);
        let mut state = far.state.lock();
        let mut at = 0;
        while at < wanted.len() {
            let Wanted { slot, page, .. } = wanted[at];
            let is_far = |state: &State, page: usize, slot: u64| {
                let entry = state.table.get(page);
                entry.place == Place::Far && entry.slot() == Some(slot)
            };
            if !is_far(&state, page, slot) {
                // Given up, or moved: who waits there has to look again.
                let _ = far.uffd.wake(page * PAGE, PAGE);
                at += 1;
                continue;
            }
            // Never anything else than what was sent: a server that has forgotten it shows zeros.
            let is_right = |state: &State, at: usize, page: usize| {
                let data = data.get(at * PAGE..(at + 1) * PAGE);
                let sum = data.map(|data| span.sum(at).unwrap_or_else(|| page_sum(data)));
                sum == Some(state.table.get(page).sum)
            };
            if !is_right(&state, at, page) {
                log::error!("far memory: the server has something else for page {:#x}", page * PAGE);
                self.poison(page);
                at += 1;
                continue;
            }
            let mut count = 1;
            while let Some(next) = wanted.get(at + count)
                && next.page == page + count
                && is_far(&state, next.page, next.slot)
                && is_right(&state, at + count, next.page)
            {
                count += 1;
            }
            let from = data[at * PAGE..].as_ptr() as usize;
            let put =
                self.put(&mut state, (page, count), |uffd, count| uffd.fill(page * PAGE, from, count * PAGE));
            let here = match put {
                Put::Pages(done) => {
                    stats::add(&counters::PAGES_IN, done as u64);
                    done
                }
                Put::There => 1,
                Put::Nowhere => 0,
                Put::Changed => continue,
            };
            (page..page + here).for_each(|page| state.table.note(page, |entry| entry.place = Place::Here));
            at += here.max(1);
        }
    }

    /// A touch of this page ends as on a disk that fails.
    pub(super) fn poison(&self, page: usize) {
        let _ = self.far.uffd.poison(page * PAGE, PAGE);
        let _ = self.far.uffd.wake(page * PAGE, PAGE);
        stats::add(&stats::GIVEN_UP, 1);
    }

    /// Until the server is there again.
    fn give_up(&mut self, wanted: &Wanted) {
        let page = wanted.page;
        let state = self.far.state.lock();
        let entry = state.table.get(page);
        if entry.place == Place::Far && entry.slot() == Some(wanted.slot) {
            self.poison(page);
            self.lost.push(page);
        } else {
            let _ = self.far.uffd.wake(page * PAGE, PAGE);
        }
    }

    /// Brings what was given up, once the server is there again; what is brought replaces what fails.
    pub(super) fn heal(&mut self) {
        if self.lost.is_empty() || self.healed.elapsed() < HEAL_PAUSE {
            return;
        }
        self.healed = Instant::now();
        if !self.far.remote.is_there() {
            return;
        }
        {
            let state = self.far.state.lock();
            let first = self.lost.len().saturating_sub(BATCH_PAGES_MAX);
            for page in self.lost.drain(first..) {
                let entry = state.table.get(page);
                if let Some(slot) = entry.slot().filter(|_| entry.place == Place::Far)
                    && !self.wanted.iter().any(|wanted| wanted.page == page)
                {
                    self.wanted.push(Wanted { slot, page, since: None });
                }
            }
        }
        self.bring(true);
    }
}
