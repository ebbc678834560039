//! How long a request waits, and the pauses between its attempts.
//!
//! Owns: one request's deadline. Called by: client, fetch, commit. Must not: decide whether there is another attempt.

use core::time::Duration;
use std::time::Instant;

use super::client::FIRST_CONTACT;
use crate::sys::net::{Deadline, random_u32, sleep};

/// The first pause between two attempts to connect; each is twice as long as the one before.
const BACKOFF_MIN: Duration = Duration::from_millis(1);
/// The longest pause.
const BACKOFF_MAX: Duration = Duration::from_millis(500);

/// How long one request has taken, and may still take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    started: Instant,
    limit: Option<Duration>,
    pub(super) deadline: Deadline,
    pub(super) first_contact: Deadline,
    delay: Duration,
}

impl Patience {
    /// That of a request which begins now, and may take `limit`.
    pub(super) fn new(limit: Option<Duration>) -> Patience {
        let started = Instant::now();
        Patience {
            started,
            limit,
            deadline: Deadline::at(started, limit),
            first_contact: Deadline::at(started, Some(FIRST_CONTACT)),
            delay: Duration::ZERO,
        }
    }

    /// Time since the start.
    pub(super) fn waited(&self) -> Duration {
        self.started.elapsed()
    }

    /// The server has done something: from here on it has its whole time again.
    pub(super) fn renew(&mut self) {
        self.deadline = Deadline::after(self.limit);
        self.delay = Duration::ZERO;
    }

    /// Before the next attempt: none at first, then a pause of a random length between half of the step and all of it. Err
    /// when `limit` is over.
    pub(super) fn pause(&mut self, limit: Deadline) -> Result<(), ()> {
        if limit.expired() {
            return Err(());
        }
        if !self.delay.is_zero() {
            let half = self.delay / 2;
            let jitter = half.mul_f64(f64::from(random_u32()) / f64::from(u32::MAX));
            sleep(limit.remaining().map_or(half + jitter, |left| left.min(half + jitter)));
            if limit.expired() {
                return Err(());
            }
        }
        self.delay = (self.delay * 2).clamp(BACKOFF_MIN, BACKOFF_MAX);
        Ok(())
    }
}
