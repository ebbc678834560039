//! Memory that the program is about to drop.
//!
//! Owns: [`Going`]. Called by: far's two threads, under its lock. Must not: make system calls.
//!
//! A3. The kernel tells of MADV_DONTNEED before it drops the pages, and nobody tells when it did. A page that is there now may go at any
//! time: moved out, it would come back afterwards as it was. One that was seen to be missing since, or that was brought in, is past that. So
//! what is named here stays until then.

use core::time::Duration;
use std::time::Instant;

use super::areas::Ranges;

/// How long a drop can be under way. MADV_FREE, of which the kernel tells alike, leaves the pages where they are: these may leave then.
const LIMIT: Duration = Duration::from_secs(10);

/// What may go at any moment.
pub struct Going {
    lately: Ranges,
    before: Ranges,
    turned: Instant,
}

impl Going {
    /// Nothing.
    pub fn new() -> Going {
        Going { lately: Ranges::default(), before: Ranges::default(), turned: Instant::now() }
    }

    /// The program says that it drops a range.
    pub fn add(&mut self, start: usize, end: usize) {
        self.turn();
        self.lately.add(start, end);
    }

    /// A range is missing, or was and has come in.
    pub fn was_missing(&mut self, start: usize, end: usize) {
        if start < end && !self.is_empty() {
            self.lately.remove(start, end);
            self.before.remove(start, end);
        }
    }

    /// Whether part of a range may go.
    pub fn meets(&self, start: usize, end: usize) -> bool {
        !self.is_empty() && (self.lately.meets(start, end) || self.before.meets(start, end))
    }

    /// Forgets what is over.
    pub fn turn(&mut self) {
        if self.turned.elapsed() > LIMIT {
            self.before = core::mem::take(&mut self.lately);
            self.turned = Instant::now();
        }
    }

    fn is_empty(&self) -> bool {
        self.lately.is_empty() && self.before.is_empty()
    }
}
