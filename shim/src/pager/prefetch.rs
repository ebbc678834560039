//! How many pages to bring in with the one that was touched.
//!
//! Owns: the sequential detector. Called by: the engines, one a mapping. Must not: fetch anything itself.

use core::sync::atomic::{AtomicU64, Ordering};

use crate::config::Prefetch;

/// Pages fetched ahead of a sequential reader at the most: 512 KiB.
const AHEAD_MAX: u64 = 128;
/// The first step of a reader that looks sequential.
const AHEAD_MIN: u64 = 4;

/// Watches the faults of one mapping. A wrong guess costs pages, never correctness, so the words need no order.
#[derive(Default)]
pub struct Detector {
    /// The page that a sequential reader would fault on next.
    next: AtomicU64,
    /// Pages brought in with the last fault.
    ahead: AtomicU64,
}

impl Detector {
    /// A reader that has shown nothing yet.
    pub const fn new() -> Self {
        Detector { next: AtomicU64::new(u64::MAX), ahead: AtomicU64::new(1) }
    }

    /// How many pages from `page` on to bring in, at least 1.
    pub fn plan(&self, page: u64, setting: Prefetch) -> u64 {
        match setting {
            Prefetch::Off => return 1,
            Prefetch::Pages(pages) => return u64::from(pages),
            Prefetch::Auto => {}
        }
        let ahead = if self.next.load(Ordering::Relaxed) == page {
            (self.ahead.load(Ordering::Relaxed) * 2).clamp(AHEAD_MIN, AHEAD_MAX)
        } else {
            1
        };
        self.ahead.store(ahead, Ordering::Relaxed);
        self.next.store(page + ahead, Ordering::Relaxed);
        ahead
    }
}

#[cfg(test)]
mod tests {
    use super::{AHEAD_MAX, Detector};
    use crate::config::Prefetch;

    #[test]
    fn a_sequential_reader_gets_more_each_time_and_a_random_one_never_more_than_it_asked_for() {
        let detector = Detector::new();
        let mut page = 0;
        let mut plans = Vec::new();
        for _ in 0..8 {
            let plan = detector.plan(page, Prefetch::Auto);
            plans.push(plan);
            page += plan;
        }
        assert_eq!(plans, [1, 4, 8, 16, 32, 64, 128, AHEAD_MAX]);
        let random = Detector::new();
        assert!([900, 3, 77, 12, 500].into_iter().all(|page| random.plan(page, Prefetch::Auto) == 1));
        assert_eq!((random.plan(1, Prefetch::Off), random.plan(1, Prefetch::Pages(9))), (1, 9));
    }
}
