//! A server that has no room: who is told, who waits, and what fails in the end.
//!
//! Owns: [`Full`]; with its end, that of the limit of allocation (NETMEM_MEMORY_FULL). Called by: keeper, leaving, monitor. Must not: give up a
//! page.
//!
//! F1. What was stored is kept here or there, whatever that takes; so where neither has room, nothing new is begun: a first touch of new memory
//! waits a while, and then fails as on a disk that is full.

use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;

use crate::log;
use crate::sys::clock::monotonic_ns;
use crate::sys::limit;

/// How long new memory waits for room before it is refused.
const PATIENCE: Duration = Duration::from_secs(1);
/// Between two tries to send something.
const PAUSE: Duration = Duration::from_millis(50);
/// Between two lines about it.
const SAID_AGAIN: Duration = Duration::from_secs(10);

/// Since when the server has had no room.
#[derive(Default)]
pub(super) struct Full {
    /// Nanoseconds of the monotonic clock; 0: it has.
    since: AtomicU64,
    tried: AtomicU64,
    said: AtomicU64,
}

pub(super) fn has_passed(since: u64, time: Duration) -> bool {
    monotonic_ns().saturating_sub(since) >= time.as_nanos() as u64
}

impl Full {
    /// Pages could not leave. Says so now and then.
    pub(super) fn begins(&self, what: &dyn core::fmt::Display) {
        self.tried.store(monotonic_ns(), Ordering::Relaxed);
        let _ = self.since.compare_exchange(0, monotonic_ns(), Ordering::Relaxed, Ordering::Relaxed);
        self.say(what);
    }

    /// Says that pages can't leave, now and then.
    pub(super) fn say(&self, what: &dyn core::fmt::Display) {
        let said = self.said.load(Ordering::Relaxed);
        if said == 0 || has_passed(said, SAID_AGAIN) {
            self.said.store(monotonic_ns(), Ordering::Relaxed);
            log::error!("far memory: pages can't leave: {what}");
        }
    }

    /// Some could.
    pub(super) fn ends(&self) {
        if self.since.swap(0, Ordering::Relaxed) != 0 {
            limit::restore();
        }
    }

    /// Whether it has none.
    pub(super) fn is(&self) -> bool {
        self.since.load(Ordering::Relaxed) != 0
    }

    /// Whether it was asked a moment ago.
    pub(super) fn rests(&self) -> bool {
        self.is() && !has_passed(self.tried.load(Ordering::Relaxed), PAUSE)
    }

    /// Whether new memory has waited long enough.
    pub(super) fn is_for_good(&self) -> bool {
        let since = self.since.load(Ordering::Relaxed);
        since != 0 && has_passed(since, PATIENCE)
    }
}
