//! What a region needs from a store to acknowledge a commit.
//!
//! Owns: the trait. Called by: region, with its commit lock held. Must not: decide what is visible; a region shows a commit
//! after the store took it, and not otherwise.

pub mod faulty;
pub mod memory;

use netmem_protocol::{Epoch, RegionId, StoreId};
use thiserror::Error;

use crate::region::Root;

/// A commit that is about to become visible.
pub struct Record<'a> {
    /// Its region.
    pub region: RegionId,
    /// The region as it will be. What the commit changed is `root.tree.changed_since(previous)`.
    pub root: &'a Root,
    /// The epoch before it.
    pub previous: Epoch,
    /// Pages that are left of those before it, if some were cut away.
    pub cut: Option<u64>,
}

/// The store could not take a commit.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct StoreError(pub String);

/// Where commits are kept.
pub trait Store: Send + Sync {
    /// Its name in `ServerStat`.
    fn name(&self) -> &'static str;

    /// Its identity: another one means that nothing which was there before still is.
    fn id(&self) -> StoreId;

    /// Takes a commit by the store's own rule. After an error the commit has not happened, and never will.
    fn commit(&self, record: &Record<'_>) -> Result<(), StoreError>;
}
