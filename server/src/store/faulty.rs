//! A store that fails when a test says so.
//!
//! Owns: a countdown in front of another store. Called by: tests. Must not: be reachable from the command line.

use std::sync::atomic::{AtomicU64, Ordering};

use netmem_protocol::StoreId;

use super::rows::Update;
use super::{Record, Store, StoreError};

/// Hands on to another store, except for one commit.
pub struct Faulty<S> {
    inner: S,
    /// Commits until the one that fails; `u64::MAX`: none does.
    countdown: AtomicU64,
}

impl<S: Store> Faulty<S> {
    /// Fails the commit number `countdown`, counted from 0, and no other.
    pub fn new(inner: S, countdown: u64) -> Self {
        Faulty { inner, countdown: AtomicU64::new(countdown) }
    }
}

impl<S: Store> Store for Faulty<S> {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn id(&self) -> StoreId {
        self.inner.id()
    }

    fn commit(&self, records: &mut [Record<'_>]) -> Result<(), StoreError> {
        if self.countdown.fetch_sub(1, Ordering::Relaxed) == 0 {
            return Err(StoreError::broken("a fault that a test asked for".into()));
        }
        self.inner.commit(records)
    }

    fn change(&self, update: Update) -> Result<(), StoreError> {
        self.inner.change(update)
    }

    fn is_durable(&self) -> bool {
        self.inner.is_durable()
    }
}
