//! Who is connected, and since when nobody is.
//!
//! Owns: the arithmetic of a lease. Called by: catalog, under its lock. Must not: know whether it is about a client or a cache.

use std::time::{Duration, Instant};

/// Connections, and when the last of them ended.
#[derive(Default)]
pub struct Presence {
    /// Connections now.
    pub connections: u64,
    gone: Option<Instant>,
}

impl Presence {
    /// Whether the lease has run out.
    pub fn is_over(&self, now: Instant, lease: Duration) -> bool {
        self.connections == 0 && self.gone.is_some_and(|gone| now.saturating_duration_since(gone) >= lease)
    }

    /// One more connection.
    pub fn enter(&mut self) {
        self.connections += 1;
        self.gone = None;
    }

    /// One connection less.
    pub fn leave(&mut self, now: Instant) {
        self.connections = self.connections.saturating_sub(1);
        if self.connections == 0 {
            self.gone = Some(now);
        }
    }
}
