//! Time that only goes forward.
//!
//! Owns: [`Deadline`]. Called by: whoever waits. Must not: be confused with the time of day.

use core::time::Duration;
use std::time::Instant;

/// When to stop waiting; `None` inside means never.
#[derive(Clone, Copy, Debug)]
pub struct Deadline(Option<Instant>);

impl Deadline {
    /// `limit` from now; `None`: never.
    pub fn after(limit: Option<Duration>) -> Self {
        Self::since(Instant::now(), limit)
    }

    /// `limit` from a moment; `None`: never.
    pub fn since(began: Instant, limit: Option<Duration>) -> Self {
        Deadline(limit.and_then(|limit| began.checked_add(limit)))
    }

    /// Whether it has come.
    pub fn passed(self) -> bool {
        self.0.is_some_and(|at| Instant::now() >= at)
    }
}

/// Nanoseconds since some moment before the process began, the same for all processes (CLOCK_MONOTONIC).
pub fn monotonic_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    (now.tv_sec as u64).wrapping_mul(1_000_000_000).wrapping_add(now.tv_nsec as u64)
}

/// Nanoseconds since 1970.
pub fn now_realtime_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// What the calling thread has had of a processor.
pub fn thread_time() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}
