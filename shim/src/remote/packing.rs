//! Whether pages are compressed on their way: by what they were seen to cost, packed and as they are.
//!
//! Owns: [`Packing`], what was measured and what was saved. Called by: fetch and commit, before and after. Must not: wait, or take a lock: it is
//! asked inside fault handlers.
//!
//! Nobody knows beforehand what pays: that depends on the wire, on what the pages hold, on both CPUs and on who else uses them. So both ways are
//! tried, for fetches of different sizes and for commits apart, and the one by which a page took less time is taken; the other is tried again
//! now and then, seldom if it was far behind. What is saved has to be a tenth.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Instant;

use crate::config::Compress;

/// Transfers that go as they are before the other way is first tried, of few pages and of many: the first ones pay for what is made once.
const WARM_UP: [u32; 2] = [16, 3];
/// So many packed ones are timed before it is decided: these, too, pay for what is made once.
const FIRST_TRIES: u32 = 3;
/// The other way is tried once in so many transfers that were timed,
const TRY_EVERY: u32 = 32;
/// and once in so many if it took twice as long.
const TRY_FAR_BEHIND_EVERY: u32 = 512;
/// A time that is longer than the least moves that by one part in so many of what it is longer, and of what it is at the most.
const FORGETTING: u64 = 16;
/// What LZ4 takes for a page on both sides, where it is quick: who moves pages in less is not helped, and does not try.
const LZ4_NS: u64 = 4_000;
/// A commit of fewer pages says nothing: its time is that of the answer.
const COMMIT_PAGES_LEAST: u64 = 64;

/// Two ways to do one thing.
#[derive(Debug, Default)]
struct Choice {
    /// Transfers that were timed since the other way was; until that was tried often enough, those that were.
    timed: AtomicU32,
    /// Packed ones that were timed, up to [`FIRST_TRIES`].
    tries: AtomicU32,
    /// Nanoseconds a page takes at the least, lately, as it is and packed; 0: not known.
    page_ns: [AtomicU64; 2],
}

impl Choice {
    const fn new() -> Self {
        Choice {
            timed: AtomicU32::new(0),
            tries: AtomicU32::new(0),
            page_ns: [const { AtomicU64::new(0) }; 2],
        }
    }

    /// Whether packed is quicker, as far as is known, and how often the other way is tried.
    fn known(&self) -> (bool, u32) {
        let [plain, packed] = [&self.page_ns[0], &self.page_ns[1]].map(|ns| ns.load(Ordering::Relaxed));
        let packs = packed < plain - plain / 10;
        let (ahead, behind) = if packs { (packed, plain) } else { (plain, packed) };
        (packs, if behind / 2 > ahead { TRY_FAR_BEHIND_EVERY } else { TRY_EVERY })
    }

    /// Whether the next transfer is to be packed. `quickest`: nanoseconds in which a page went as it is.
    fn next(&self, quickest: u64, warm_up: u32) -> bool {
        if (1..LZ4_NS).contains(&quickest) {
            return false;
        }
        let timed = self.timed.load(Ordering::Relaxed);
        if self.tries.load(Ordering::Relaxed) < FIRST_TRIES {
            return timed >= warm_up;
        }
        let (packs, every) = self.known();
        // A try that could not be timed is made again.
        packs != (timed >= every)
    }

    fn note(&self, packed: bool, page_ns: u64) {
        note_least(&self.page_ns[usize::from(packed)], page_ns);
        if packed && self.tries.load(Ordering::Relaxed) < FIRST_TRIES {
            self.tries.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let was_other = self.tries.load(Ordering::Relaxed) >= FIRST_TRIES && packed != self.known().0;
        if was_other {
            self.timed.store(0, Ordering::Relaxed);
        } else {
            self.timed.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Fetches of 1 page, of 2 and 3, of 4 to 7, … of 1,024 and more.
const SIZES: usize = 11;
/// So many pages hide how long the way is.
const MANY: u64 = 16;

/// Notes how long a page took. Nothing is quick by chance, and on a machine that is busy most are late for reasons of their own. So the least
/// counts, and is forgotten slowly.
fn note_least(least: &AtomicU64, ns: u64) {
    let (before, ns) = (least.load(Ordering::Relaxed), ns.max(1));
    let ns = if before == 0 || ns < before { ns } else { before + (ns - before).min(before) / FORGETTING };
    least.store(ns, Ordering::Relaxed);
}

/// What a transfer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transfer {
    /// A fetch of so many pages.
    Fetch(u64),
    /// A commit.
    Commit,
}

/// The choice for each kind of transfer, and what it gave.
#[derive(Debug)]
pub struct Packing {
    setting: Compress,
    /// By the power of two of their pages.
    fetches: [Choice; SIZES],
    commits: Choice,
    /// Nanoseconds in which a page came as it was, in fetches of [`MANY`] pages and more: what the wire can do.
    quickest: AtomicU64,
    /// Pages that went or came packed.
    pub pages: AtomicU64,
    /// Bytes that they did not take on the wire.
    pub saved: AtomicU64,
}

impl Packing {
    /// Nothing is known yet.
    pub(super) const fn new(setting: Compress) -> Self {
        Packing {
            setting,
            fetches: [const { Choice::new() }; SIZES],
            commits: Choice::new(),
            quickest: AtomicU64::new(0),
            pages: AtomicU64::new(0),
            saved: AtomicU64::new(0),
        }
    }

    fn choice(&self, transfer: Transfer) -> &Choice {
        match transfer {
            Transfer::Fetch(pages) => &self.fetches[pages.max(1).ilog2().min(SIZES as u32 - 1) as usize],
            Transfer::Commit => &self.commits,
        }
    }

    /// Whether this one is to be packed.
    pub(super) fn choose(&self, transfer: Transfer) -> bool {
        match self.setting {
            Compress::Off => false,
            Compress::On => true,
            Compress::Auto | Compress::Measured => {
                let choice = self.choice(transfer);
                let (quickest, warm_up) = match transfer {
                    Transfer::Commit => (&choice.page_ns[0], WARM_UP[1]),
                    Transfer::Fetch(pages) => (&self.quickest, WARM_UP[usize::from(pages >= MANY)]),
                };
                choice.next(quickest.load(Ordering::Relaxed), warm_up)
            }
        }
    }

    /// It began then and is done, and moved so many pages with content.
    pub(super) fn took(&self, transfer: Transfer, packed: bool, pages: u64, began: Instant) {
        let says_something = transfer != Transfer::Commit || pages >= COMMIT_PAGES_LEAST;
        let measures = matches!(self.setting, Compress::Auto | Compress::Measured);
        if measures && says_something && pages > 0 {
            let page_ns = began.elapsed().as_nanos() as u64 / pages;
            self.choice(transfer).note(packed, page_ns);
            if matches!(transfer, Transfer::Fetch(MANY..)) && !packed {
                note_least(&self.quickest, page_ns);
            }
        }
    }

    /// So many pages were packed, and took so many bytes less.
    pub(super) fn saved(&self, pages: u32, bytes: usize) {
        self.pages.fetch_add(u64::from(pages), Ordering::Relaxed);
        self.saved.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod unit {
    use super::*;

    /// Of `turns` transfers that take so long as they are, and packed: how many were packed.
    fn packed(packing: &Packing, turns: u32, plain_ns: u64, packed_ns: u64) -> u32 {
        let mut count = 0;
        for turn in 0..turns {
            let packs = packing.choose(Transfer::Fetch(32));
            // One in ten is held up.
            let late = if turn % 10 == 3 { 300_000 } else { 0 };
            let ns = if packs { packed_ns } else { plain_ns } * 32 + late;
            packing.choice(Transfer::Fetch(32)).note(packs, ns / 32);
            if !packs {
                note_least(&packing.quickest, ns / 32);
            }
            count += u32::from(packs);
        }
        count
    }

    #[test]
    fn what_takes_less_time_is_done_and_the_other_is_tried_now_and_then() {
        let packing = Packing::new(Compress::Auto);
        let slow_wire = packed(&packing, 10_000, 33_000, 19_000);
        assert!((9_500..9_990).contains(&slow_wire), "{slow_wire}");
        let other_pages = packed(&packing, 10_000, 33_000, 36_000);
        assert!((100..1_000).contains(&other_pages), "{other_pages}");
        let fast_wire = packed(&packing, 10_000, 5_000, 11_000);
        assert!((1..700).contains(&fast_wire), "{fast_wire}");
        packed(&packing, 1_000, 3_000, 9_000);
        let very_fast_wire = packed(&packing, 10_000, 3_000, 9_000);
        assert_eq!(very_fast_wire, 0);
        let slow_again = packed(&packing, 10_000, 330_000, 150_000);
        assert!(slow_again > 8_000, "{slow_again}");
    }

    #[test]
    fn what_the_first_packed_one_takes_for_its_memory_does_not_decide() {
        let packing = Packing::new(Compress::Auto);
        let choice = packing.choice(Transfer::Fetch(32));
        let mut first = true;
        for _ in 0..200 {
            let packs = choice.next(0, WARM_UP[0]);
            let ns = if packs && first {
                500_000
            } else if packs {
                20_000
            } else {
                33_000
            };
            first &= !packs;
            choice.note(packs, ns);
        }
        assert!(choice.known() == (true, TRY_EVERY));
    }

    #[test]
    fn a_try_that_could_not_be_timed_is_made_again() {
        let packing = Packing::new(Compress::Auto);
        let choice = &packing.commits;
        let (mut small_tries, mut large_tries) = (0, 0);
        for turn in 0..2_000 {
            let packs = choice.next(0, WARM_UP[0]);
            // Each second one is too small to be timed.
            if turn % 2 == 0 {
                small_tries += u32::from(packs);
                continue;
            }
            large_tries += u32::from(packs);
            choice.note(packs, if packs { 36_000 } else { 33_000 });
        }
        assert!((20..100).contains(&large_tries) && small_tries < 200, "{large_tries}, {small_tries}");
    }

    #[test]
    fn what_is_saved_by_less_than_a_tenth_is_not_saved() {
        let packing = Packing::new(Compress::Auto);
        assert!(packed(&packing, 10_000, 10_000_000, 9_500_000) < 1_000);
    }

    #[test]
    fn short_commits_and_settings_are_not_measured() {
        let packing = Packing::new(Compress::Auto);
        for _ in 0..100 {
            assert!(!packing.choose(Transfer::Commit));
            packing.took(Transfer::Commit, false, COMMIT_PAGES_LEAST - 1, Instant::now());
        }
        let (on, off) = (Packing::new(Compress::On), Packing::new(Compress::Off));
        for _ in 0..100 {
            assert!(on.choose(Transfer::Fetch(1)) && !off.choose(Transfer::Fetch(1)));
            on.took(Transfer::Fetch(1), true, 1, Instant::now());
            off.took(Transfer::Fetch(1), false, 1, Instant::now());
        }
    }
}
