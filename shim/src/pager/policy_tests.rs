//! Who leaves, over histories of touches: how often a page that is wanted is here, beside policies that see each touch.
//!
//! A touch of a page that is here is seen by nobody, so the policy knows only which pages came, and when. The histories are made here, with
//! known properties: skewed touches, the same with scans between, loops, and sets that move.

use std::collections::{BTreeMap, HashMap};

use netmem_protocol::PAGE_SIZE;

use super::Region;
use super::fake::{FakeCache, FakeFiles};
use super::table::{Frames, WINDOW_PAGES};
use crate::remote::fake::FakeSource;
use crate::sys::clock::Deadline;

const PAGES: u64 = 512;
const TOUCHES: usize = 12_000;
/// Pages that there is room for.
const ROOM: u64 = 100;
/// Pages that are taken out together, as with a budget of a few hundred.
const BATCH: u64 = 4;

struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// Ranks by a law of Zipf, spread over the pages.
fn skewed(dice: &mut Dice, sums: &[f64]) -> u64 {
    let at = (dice.roll() >> 11) as f64 / (1u64 << 53) as f64 * sums[sums.len() - 1];
    let rank = sums.partition_point(|sum| *sum < at) as u64;
    rank * 1_367 % PAGES
}

fn history(kind: &str) -> Vec<u64> {
    let mut dice = Dice(88_172_645_463_325_252);
    let mut sum = 0.0;
    let sums: Vec<f64> = (1..=PAGES)
        .map(|rank| {
            sum += 1.0 / rank as f64;
            sum
        })
        .collect();
    let mut touches = Vec::with_capacity(TOUCHES);
    while touches.len() < TOUCHES {
        let at = touches.len() as u64;
        match kind {
            "skewed" => touches.push(skewed(&mut dice, &sums)),
            "skewed, with scans" if at % 6_000 < 3_000 => touches.push(skewed(&mut dice, &sums)),
            "skewed, with scans" => {
                // A scan beside the touches.
                touches.push(at * 3 / 2 % PAGES);
                touches.push(skewed(&mut dice, &sums));
            }
            "a loop that does not fit" => touches.push(at % (PAGES / 3)),
            _ => touches.push((dice.roll() % 75 + at / 3_000 * 60) % PAGES),
        }
    }
    touches
}

/// Touches that found their page here.
fn hits(touches: &[u64], room: u64) -> usize {
    let source = FakeSource::new();
    let id = source.create(PAGES * PAGE_SIZE as u64);
    let content: Vec<_> = (0..PAGES).map(|page| (page, [page as u8 | 1; PAGE_SIZE])).collect();
    source.commit_as_other(id, &content, None);
    let files = FakeFiles::primed(PAGES * PAGE_SIZE as u64, source.epoch(id));
    let region: Region<FakeCache> = files.attach(id, 0);
    let (mut here, mut hits) = (0, 0);
    for page in touches {
        if region.is_present(*page) {
            hits += 1;
            continue;
        }
        if here >= room {
            here -= region.take_out_round(BATCH, &mut |window, most| {
                let pages = window..(window / WINDOW_PAGES + 1) * WINDOW_PAGES;
                region.evict(pages, most, false, &|_, _| true).map(Some)
            });
        }
        region.bring_in(&source, *page, *page + 1, false, Deadline::after(None)).unwrap();
        here += u64::from(!region.cache.is_hole(*page).unwrap());
    }
    hits
}

/// The same of a list that is in the order of the last touch.
fn hits_of_lru(touches: &[u64], room: u64) -> usize {
    let (mut by_time, mut last) = (BTreeMap::new(), HashMap::new());
    let mut hits = 0;
    for (now, page) in touches.iter().enumerate() {
        match last.insert(*page, now) {
            Some(before) => {
                by_time.remove(&before);
                hits += 1;
            }
            None if by_time.len() as u64 >= room => {
                let (_, oldest) = by_time.pop_first().expect("a page");
                last.remove(&oldest);
            }
            None => {}
        }
        by_time.insert(now, *page);
    }
    hits
}

#[test]
fn what_is_wanted_often_stays_although_touches_are_not_seen_and_scans_pass_by() {
    // Per cent of what a list in the order of the last touch has: at the least.
    for (kind, least) in [
        ("skewed", 93),
        ("skewed, with scans", 93),
        ("a loop that does not fit", 0),
        ("a set that moves", 98),
    ] {
        let touches = history(kind);
        let (ours, lru) = (hits(&touches, ROOM), hits_of_lru(&touches, ROOM));
        println!("{kind}: {ours} of {}, {lru} by the last touch", touches.len());
        assert!(ours * 100 >= lru * least, "{kind}: {ours}, and {lru}");
    }
}
