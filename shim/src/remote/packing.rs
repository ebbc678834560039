//! Whether pages are compressed on their way: by what they were seen to cost, packed and as they are.
//!
//! Owns: [`Packing`], what was measured and what was saved. Called by: fetch and commit, before and after. Must not: wait, or take a lock: it is
//! asked inside fault handlers.
//!
//! Nobody knows beforehand what pays: that depends on the wire, on what the pages hold, on both CPUs and on who else uses them. So both ways are
//! tried, for fetches of few pages and of many and for commits apart, and the one by which a page took less time is taken; the other is tried again
//! now and then, seldom if it was far behind. What is saved has to be a tenth.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Instant;

use crate::config::Compress;

/// Transfers that go as they are before the other way is first tried: the first ones pay for what is made once.
const WARM_UP: u32 = 8;
/// The other way is tried once in so many transfers,
const TRY_EVERY: u32 = 32;
/// and once in so many if it took twice as long.
const TRY_FAR_BEHIND_EVERY: u32 = 512;
/// A commit of fewer pages says nothing: its time is that of the answer.
const COMMIT_PAGES_LEAST: u64 = 16;

/// Two ways to do one thing.
#[derive(Debug, Default)]
struct Choice {
    turns: AtomicU32,
    /// Nanoseconds a page takes, as it is and packed; 0: not known. Averages in which a new time weighs a quarter,
    /// unless it is less than half.
    page_ns: [AtomicU64; 2],
}

impl Choice {
    const fn new() -> Self {
        Choice { turns: AtomicU32::new(0), page_ns: [const { AtomicU64::new(0) }; 2] }
    }

    /// Whether the next transfer is to be packed.
    fn next(&self) -> bool {
        let turn = self.turns.fetch_add(1, Ordering::Relaxed);
        let [plain, packed] = [&self.page_ns[0], &self.page_ns[1]].map(|ns| ns.load(Ordering::Relaxed));
        if plain == 0 || packed == 0 {
            return plain != 0 && turn >= WARM_UP;
        }
        let packs = packed < plain - plain / 10;
        let (ahead, behind) = if packs { (packed, plain) } else { (plain, packed) };
        let every = if behind / 2 > ahead { TRY_FAR_BEHIND_EVERY } else { TRY_EVERY };
        packs != turn.is_multiple_of(every)
    }

    fn note(&self, packed: bool, page_ns: u64) {
        let average = &self.page_ns[usize::from(packed)];
        let before = average.load(Ordering::Relaxed);
        let ns = page_ns.max(1);
        // Nothing is quick by chance. Who did not run for a while says nothing of the wire.
        let ns = if before == 0 || ns < before / 2 {
            ns
        } else {
            before - before / 4 + ns.min(before.saturating_mul(4)).div_ceil(4)
        };
        average.store(ns, Ordering::Relaxed);
    }
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
    fetches: [Choice; 4],
    commits: Choice,
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
            fetches: [const { Choice::new() }; 4],
            commits: Choice::new(),
            pages: AtomicU64::new(0),
            saved: AtomicU64::new(0),
        }
    }

    fn choice(&self, transfer: Transfer) -> &Choice {
        match transfer {
            Transfer::Fetch(0..=1) => &self.fetches[0],
            Transfer::Fetch(..=4) => &self.fetches[1],
            Transfer::Fetch(..=15) => &self.fetches[2],
            Transfer::Fetch(_) => &self.fetches[3],
            Transfer::Commit => &self.commits,
        }
    }

    /// Whether this one is to be packed.
    pub(super) fn choose(&self, transfer: Transfer) -> bool {
        match self.setting {
            Compress::Off => false,
            Compress::On => true,
            Compress::Auto => self.choice(transfer).next(),
        }
    }

    /// It began then and is done, and moved so many pages with content.
    pub(super) fn took(&self, transfer: Transfer, packed: bool, pages: u64, began: Instant) {
        let says_something = transfer != Transfer::Commit || pages >= COMMIT_PAGES_LEAST;
        if self.setting == Compress::Auto && says_something && pages > 0 {
            self.choice(transfer).note(packed, began.elapsed().as_nanos() as u64 / pages);
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
        let fast_wire = packed(&packing, 10_000, 3_000, 9_000);
        assert!((1..700).contains(&fast_wire), "{fast_wire}");
        let slow_again = packed(&packing, 10_000, 330_000, 150_000);
        assert!(slow_again > 8_000, "{slow_again}");
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
            packing.took(Transfer::Commit, false, 15, Instant::now());
        }
        let (on, off) = (Packing::new(Compress::On), Packing::new(Compress::Off));
        for _ in 0..100 {
            assert!(on.choose(Transfer::Fetch(1)) && !off.choose(Transfer::Fetch(1)));
            on.took(Transfer::Fetch(1), true, 1, Instant::now());
            off.took(Transfer::Fetch(1), false, 1, Instant::now());
        }
    }
}
