//! Which pages to bring in with the one that was touched.
//!
//! Owns: the detector of streams. Called by: the engines, one a mapping. Must not: fetch anything itself.
//!
//! A fault that goes on where a stream is expected to go on gets twice as many pages as the last one did. Else the last faults are
//! looked through for an arithmetic progression that ends here, whatever lies between: so scans with a stride, backwards, and several at once
//! are found, as by the majority of Leap (Al Maruf and Chowdhury, ATC 2020). Streams that came to nothing raise the evidence asked for.

use core::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};

use crate::config::Prefetch;

/// Pages brought in for a stream with one fault at the most: 4 MiB.
pub const AHEAD_MAX: u64 = 1024;
/// The same where they lie apart, and each is a call of its own.
const APART_AHEAD_MAX: u64 = AHEAD_MAX / 2;
/// Pages brought in at the first touch where the program says that it reads in order.
const SEQUENTIAL_LEAST: u64 = 64;
/// Faults remembered.
const HISTORY: usize = 16;
/// Streams followed at a time.
const STREAMS: usize = 8;
/// The largest stride, in pages.
const STRIDE_MAX: i64 = 256;
/// Steps by which a stream may go on later than expected, over pages that were here before.
const SKIPPED_MAX: i64 = 3;
/// Strides up to here are taken to be small.
const STRIDE_SMALL: u64 = 16;
/// Equal steps asked for at the most, before a stream is believed.
const EVIDENCE_MAX: u64 = 5;

/// What to bring in: `page + i * stride` for `i` in `0..count`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// From one page to the next; not 0.
    pub stride: i64,
    /// Pages, the touched one counted; at least 1.
    pub count: u64,
}

/// What the program says of the order in which it will touch pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// Nothing.
    #[default]
    Unknown,
    /// MADV_RANDOM: nothing is brought in but what is touched.
    Random,
    /// MADV_SEQUENTIAL: a touch that follows no stream begins one.
    Sequential,
}

/// The touched page alone.
const ALONE: Plan = Plan { stride: 1, count: 1 };

/// Watches the faults of one mapping. A wrong guess costs pages, never correctness, so the words need no order, and threads that
/// fault at once may spoil each other's.
pub struct Detector {
    /// The last faults: page + 1, or 0.
    history: [AtomicU64; HISTORY],
    /// Faults so far.
    faults: AtomicU64,
    streams: [Stream; STREAMS],
    /// Streams that were begun since one was followed.
    guesses: AtomicU64,
    /// An [`Order`].
    order: AtomicU8,
}

/// Faults that follow one another at a distance.
struct Stream {
    /// Where it goes on.
    next: AtomicU64,
    /// An `i64`.
    stride: AtomicU64,
    /// Pages brought in last; 0: no stream.
    ahead: AtomicU64,
    /// The fault that it was last seen at.
    seen: AtomicU64,
}

impl Default for Detector {
    fn default() -> Self {
        Self::new()
    }
}

impl Detector {
    /// A reader that has shown nothing yet.
    pub const fn new() -> Self {
        Detector {
            history: [const { AtomicU64::new(0) }; HISTORY],
            faults: AtomicU64::new(0),
            streams: [const {
                Stream {
                    next: AtomicU64::new(0),
                    stride: AtomicU64::new(1),
                    ahead: AtomicU64::new(0),
                    seen: AtomicU64::new(0),
                }
            }; STREAMS],
            guesses: AtomicU64::new(0),
            order: AtomicU8::new(Order::Unknown as u8),
        }
    }

    /// Notes what the program says.
    pub fn expect(&self, order: Order) {
        self.order.store(order as u8, Relaxed);
    }

    /// What it said.
    pub fn expected(&self) -> Order {
        match self.order.load(Relaxed) {
            order if order == Order::Random as u8 => Order::Random,
            order if order == Order::Sequential as u8 => Order::Sequential,
            _ => Order::Unknown,
        }
    }

    /// What to bring in for a fault on `page`. A stream that is new gets `least` pages, which should be about what the wire carries
    /// in a round trip.
    pub fn plan(&self, page: u64, setting: Prefetch, least: u64) -> Plan {
        match setting {
            Prefetch::Off => return ALONE,
            Prefetch::Pages(pages) => return Plan { stride: 1, count: u64::from(pages) },
            Prefetch::Auto => {}
        }
        let order = self.expected();
        if order == Order::Random {
            return ALONE;
        }
        let now = self.faults.fetch_add(1, Relaxed) + 1;
        let begin = || match order {
            Order::Sequential => Some(self.enter(1, page, now, least.max(SEQUENTIAL_LEAST))),
            _ => self.stride_to(page, now).map(|stride| self.enter(stride, page, now, least)),
        };
        let plan = self.follow(page, now).or_else(begin).unwrap_or(ALONE);
        self.history[now as usize % HISTORY].store(page + 1, Relaxed);
        plan
    }

    /// A stream that goes on here, or not much further on: some of its pages may have been here before.
    fn follow(&self, page: u64, now: u64) -> Option<Plan> {
        for stream in &self.streams {
            let (ahead, stride) = (stream.ahead.load(Relaxed), stream.stride.load(Relaxed) as i64);
            let beyond = page.wrapping_sub(stream.next.load(Relaxed)) as i64;
            if ahead == 0 || beyond % stride != 0 || !(0..=SKIPPED_MAX).contains(&(beyond / stride)) {
                continue;
            }
            let most = if stride.unsigned_abs() == 1 { AHEAD_MAX } else { APART_AHEAD_MAX };
            let count = (ahead * 2).min(most);
            stream.ahead.store(count, Relaxed);
            stream.next.store(page.wrapping_add_signed(stride * count as i64), Relaxed);
            stream.seen.store(now, Relaxed);
            self.guesses.store(0, Relaxed);
            return Some(Plan { stride, count });
        }
        None
    }

    /// The stride of a new stream, if the last faults lead here in equal steps.
    fn stride_to(&self, page: u64, now: u64) -> Option<i64> {
        let known: [u64; HISTORY] = core::array::from_fn(|i| self.history[i].load(Relaxed));
        let was = |page: u64| known.contains(&(page + 1));
        let evidence = (1 + self.guesses.load(Relaxed)).min(EVIDENCE_MAX);
        let newest_first =
            (0..HISTORY as u64).map(|back| known[now.wrapping_sub(1 + back) as usize % HISTORY]);
        newest_first.filter(|known| *known != 0).find_map(|known| {
            let stride = page.wrapping_sub(known - 1) as i64;
            // Neighbours come by chance more seldom than pages that are as far apart as some others.
            let steps = match stride.unsigned_abs() {
                1 => evidence,
                2..=STRIDE_SMALL => evidence + 1,
                _ => evidence + 2,
            };
            let back = |step: u64| page.checked_add_signed(-stride * step as i64);
            let led = stride != 0
                && (-STRIDE_MAX..=STRIDE_MAX).contains(&stride)
                && (1..=steps).all(|step| back(step).is_some_and(was));
            led.then_some(stride)
        })
    }

    /// Begins a stream, in the place of the one that was seen longest ago.
    fn enter(&self, stride: i64, page: u64, now: u64, least: u64) -> Plan {
        let age =
            |stream: &&Stream| if stream.ahead.load(Relaxed) == 0 { 0 } else { stream.seen.load(Relaxed) };
        let Some(stream) = self.streams.iter().min_by_key(age) else { return ALONE };
        // Until it is followed, it is a guess; the next one is to be better founded and smaller.
        let guesses = self.guesses.fetch_add(1, Relaxed);
        let count = (least >> guesses.min(EVIDENCE_MAX)).clamp(2, AHEAD_MAX);
        stream.stride.store(stride as u64, Relaxed);
        stream.next.store(page.wrapping_add_signed(stride * count as i64), Relaxed);
        stream.ahead.store(count, Relaxed);
        stream.seen.store(now, Relaxed);
        Plan { stride, count }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{AHEAD_MAX, Detector, Order, Plan};
    use crate::config::Prefetch;

    /// Touches pages in order: how many faults that takes, and how many pages come that nobody touches.
    fn run(pages: impl Iterator<Item = u64> + Clone) -> (u64, usize) {
        let detector = Detector::new();
        let (mut here, mut faults) = (BTreeSet::new(), 0);
        for page in pages.clone() {
            if !here.contains(&page) {
                faults += 1;
                let plan = detector.plan(page, Prefetch::Auto, 4);
                here.extend((0..plan.count as i64).filter_map(|i| page.checked_add_signed(plan.stride * i)));
            }
        }
        let touched: BTreeSet<u64> = pages.collect();
        (faults, here.difference(&touched).count())
    }

    #[test]
    fn a_scan_takes_few_faults_forwards_backwards_and_by_strides() {
        assert_eq!(run(0..65536).0, 73);
        assert!(run((0..65536).rev()).0 < 80);
        assert!(run((0..65536).step_by(7)).0 < 120);
    }

    #[test]
    fn two_interleaved_scans_are_both_seen() {
        let pages = (0..30000u64).flat_map(|i| [i, 1_000_000 - i]);
        assert!(run(pages).0 < 100);
        let four = (0..10000u64).flat_map(|i| [i, 100_000 + i, 200_000 + 3 * i, 900_000 - i]);
        assert!(run(four).0 < 200);
    }

    #[test]
    fn random_touches_bring_little_that_nobody_asked_for() {
        let mut seed = 1u64;
        let pages: Vec<u64> = std::iter::repeat_with(|| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) % 1_000_000
        })
        .take(20_000)
        .collect();
        let (faults, wasted) = run(pages.iter().copied());
        assert!(faults > 19_000 && wasted < 200, "{faults} faults, {wasted} wasted");
    }

    #[test]
    fn records_of_two_pages_at_random_places_are_no_streams() {
        let mut seed = 1u64;
        let pages: Vec<u64> = std::iter::repeat_with(|| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) % 500_000 * 2
        })
        .take(10_000)
        .flat_map(|page| [page, page + 1])
        .collect();
        let (faults, wasted) = run(pages.iter().copied());
        assert!(wasted < 500, "{faults} faults, {wasted} wasted");
    }

    #[test]
    fn a_setting_is_obeyed_and_the_first_pages_are_what_a_round_trip_carries() {
        let detector = Detector::new();
        assert_eq!(detector.plan(1, Prefetch::Off, 4).count, 1);
        assert_eq!(detector.plan(1, Prefetch::Pages(9), 4), Plan { stride: 1, count: 9 });
        assert_eq!(detector.plan(5, Prefetch::Auto, 64).count, 1);
        assert_eq!(detector.plan(6, Prefetch::Auto, 64), Plan { stride: 1, count: 64 });
        assert_eq!(detector.plan(70, Prefetch::Auto, 64).count, 128);
        for page in [198, 454, 966, 1990, 3014] {
            assert!(detector.plan(page, Prefetch::Auto, 64).count <= AHEAD_MAX);
        }
        detector.expect(Order::Random);
        assert_eq!(detector.plan(4038, Prefetch::Auto, 64).count, 1);
        detector.expect(Order::Sequential);
        assert_eq!(detector.plan(90_000, Prefetch::Auto, 4), Plan { stride: 1, count: 64 });
    }
}
