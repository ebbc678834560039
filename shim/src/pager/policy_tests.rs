//! Who leaves, over histories of touches: how often a page that is wanted is here, beside policies that see each touch.
//!
//! A touch of a page that is here is seen by nobody, so the policy knows only which pages came, and when. Some histories are made here, with
//! known properties: skewed touches, the same with scans between, loops, and sets that move. The others are of real programs
//! (`tests/traces`, recorded by `tests/tools/record-touches.sh`).

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use netmem_protocol::PAGE_SIZE;

use super::Region;
use super::entry::SPARED_MOST;
use super::fake::{FakeCache, FakeFiles};
use super::table::{Frames, WINDOW_PAGES};
use crate::remote::fake::FakeSource;
use crate::sys::clock::Deadline;

const PAGES: u64 = 512;
const TOUCHES: usize = 12_000;
/// Pages that there is room for.
const ROOM: u64 = 100;
/// Of those the part that is taken out together (host/room.rs).
const SPARE_PART: u64 = 32;

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
    let count = touches.iter().max().map_or(0, |last| last + 1);
    let id = source.create(count * PAGE_SIZE as u64);
    let content: Vec<_> = (0..count).map(|page| (page, [page as u8 | 1; PAGE_SIZE])).collect();
    source.commit_as_other(id, &content, None);
    let files = FakeFiles::primed(count * PAGE_SIZE as u64, source.epoch(id));
    let region: Region<FakeCache> = files.attach(id, 0);
    let (mut here, mut hits) = (0, 0);
    for page in touches {
        if region.is_present(*page) {
            hits += 1;
            continue;
        }
        if here >= room {
            here -=
                region.take_out_round((room / SPARE_PART).max(1), SPARED_MOST + 1, &mut |window, most| {
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
        ("skewed", 95),
        ("skewed, with scans", 100),
        ("a loop that does not fit", 0),
        ("a set that moves", 98),
    ] {
        let touches = history(kind);
        let (ours, lru) = (hits(&touches, ROOM), hits_of_lru(&touches, ROOM));
        println!("{kind}: {ours} of {}, {lru} by the last touch", touches.len());
        assert!(ours * 100 >= lru * least, "{kind}: {ours}, and {lru}");
    }
}

/// The same of a queue in the order of arrival: all that can be had of arrivals alone, without who came before.
fn hits_of_fifo(touches: &[u64], room: u64) -> usize {
    let (mut queue, mut here) = (VecDeque::new(), HashSet::new());
    let mut hits = 0;
    for page in touches {
        if here.contains(page) {
            hits += 1;
            continue;
        }
        if here.len() as u64 == room
            && let Some(oldest) = queue.pop_front()
        {
            here.remove(&oldest);
        }
        queue.push_back(*page);
        here.insert(*page);
    }
    hits
}

/// The same of S3-FIFO, which counts each touch: a small queue of a tenth for newcomers, a main one for who was touched again there or came
/// back, and the numbers of as many that left as there is room for (Yang et al., SOSP 2023).
fn hits_of_s3_fifo(touches: &[u64], room: u64) -> usize {
    let (mut small, mut main, mut ghosts) = (VecDeque::new(), VecDeque::new(), VecDeque::new());
    let mut counts: HashMap<u64, u32> = HashMap::new();
    let mut hits = 0;
    for page in touches {
        if let Some(count) = counts.get_mut(page) {
            *count = (*count + 1).min(3);
            hits += 1;
            continue;
        }
        while counts.len() as u64 >= room {
            if small.len() as u64 * 10 >= room || main.is_empty() {
                let Some(oldest) = small.pop_front() else { break };
                if counts.get(&oldest).is_some_and(|count| *count > 1) {
                    counts.insert(oldest, 0);
                    main.push_back(oldest);
                } else {
                    counts.remove(&oldest);
                    ghosts.push_back(oldest);
                    if ghosts.len() as u64 > room {
                        ghosts.pop_front();
                    }
                }
            } else if let Some(oldest) = main.pop_front() {
                match counts.get_mut(&oldest) {
                    Some(count) if *count > 0 => {
                        *count -= 1;
                        main.push_back(oldest);
                    }
                    _ => _ = counts.remove(&oldest),
                }
            }
        }
        if ghosts.contains(page) {
            main.push_back(*page);
        } else {
            small.push_back(*page);
        }
        counts.insert(*page, 0);
    }
    hits
}

/// The pages that a real program touched.
fn recorded(bytes: &[u8]) -> Vec<u64> {
    bytes.as_chunks::<2>().0.iter().map(|page| u64::from(u16::from_le_bytes(*page))).collect()
}

/// What of a trace is here with room for each of these parts of its pages.
fn play(trace: &(&str, &[u8]), touches: usize, parts: &[u64]) {
    let (name, bytes) = trace;
    let touches = &recorded(bytes)[..touches.min(bytes.len() / 2)];
    let pages = touches.iter().collect::<HashSet<_>>().len() as u64;
    for part in parts {
        let room = pages / part;
        let ours = hits(touches, room);
        let [lru, fifo, s3] = [hits_of_lru, hits_of_fifo, hits_of_s3_fifo].map(|of| of(touches, room));
        let rate = |hits: usize| format!("{:.1} %", hits as f64 * 100.0 / touches.len() as f64);
        println!(
            "{name}, room for 1/{part}: {} are here, {} in the order of arrival, {} by the last touch, {} S3-FIFO",
            rate(ours),
            rate(fifo),
            rate(lru),
            rate(s3)
        );
        assert!(ours > fifo && ours * 100 >= lru * 98, "{name}, 1/{part}: {ours}, {fifo}, {lru}");
    }
}

const TRACES: [(&str, &[u8]); 3] = [
    ("SQLite, lookups and scans", include_bytes!("../../../tests/traces/sqlite.pages")),
    ("SQLite, joins", include_bytes!("../../../tests/traces/join.pages")),
    ("LMDB, lookups and scans", include_bytes!("../../../tests/traces/lmdb.pages")),
];

#[test]
fn of_what_real_programs_touch_as_much_is_here_as_if_each_touch_were_seen_but_for_a_fiftieth() {
    TRACES.iter().for_each(|trace| play(trace, 20_000, &[4]));
}

#[test]
#[ignore = "minutes: all of the traces, with room for a half, a quarter and a tenth"]
fn of_whole_traces_as_much_is_here_as_if_each_touch_were_seen_but_for_a_fiftieth() {
    TRACES.iter().for_each(|trace| play(trace, usize::MAX, &[2, 4, 10]));
}
