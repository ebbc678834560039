//! What a region and the catalog need from a store to acknowledge a change.
//!
//! Owns: the trait. Called by: commit, with the region's turn held; catalog, with its lock held. Must not: decide what is visible; a change
//! is shown after the store took it, and not otherwise.

pub mod disk;
pub mod durable;
pub mod faulty;
pub mod index;
pub mod memory;
pub mod pages;
pub mod rows;
pub mod simulated;

use std::io::{self, ErrorKind};

use netmem_protocol::{CacheId, ClientId, Epoch, ErrorCode, RegionId, StoreId};
use thiserror::Error;

use crate::history::LogRow;
use crate::region::{Region, Root};
use rows::{Ended, Update};

/// A commit that is about to become visible.
pub struct Record<'a> {
    /// Its region.
    pub region: RegionId,
    /// The region as it will be. What the commit changed is `root.tree.changed_since(previous)`, and what it cut. A store that keeps pages
    /// elsewhere puts there where they are.
    pub root: &'a mut Root,
    /// The region, for its row.
    pub of: &'a Region,
    /// The region as it is.
    pub before: &'a Root,
    /// The epoch before it.
    pub previous: Epoch,
    /// Whole pages that are left of those before it, if some were cut away.
    pub cut: Option<u64>,
    /// Nanoseconds since 1970 at which it happens.
    pub modified_ns: u64,
    /// How the last commits of its client ended, this one included; of a client that is forgotten, nothing.
    pub applied: Vec<(ClientId, Option<Ended>)>,
    /// The newest epoch that each page cache made, as far as the commit changes that; of one that is forgotten, nothing.
    pub made: Vec<(CacheId, Option<u64>)>,
    /// Older epochs that are kept, in order.
    pub kept: Vec<u64>,
    /// Its line in the region's log.
    pub log: LogRow,
}

/// The store could not take a change.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{text}")]
pub struct StoreError {
    /// It is full, and takes another change once there is room.
    pub full: bool,
    /// Why, for the user.
    pub text: String,
}

impl StoreError {
    /// It can't, whatever room there is.
    pub fn broken(text: String) -> Self {
        StoreError { full: false, text }
    }

    /// What a client is told.
    pub fn code(&self) -> ErrorCode {
        if self.full { ErrorCode::Full } else { ErrorCode::Internal }
    }
}

impl From<io::Error> for StoreError {
    fn from(error: io::Error) -> Self {
        let full = matches!(
            error.kind(),
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge
        );
        StoreError { full, text: error.to_string() }
    }
}

/// Where commits and names are kept.
pub trait Store: Send + Sync {
    /// Its name in `ServerStat`.
    fn name(&self) -> &'static str;

    /// Its identity: another one means that nothing which was there before still is.
    fn id(&self) -> StoreId;

    /// Takes a commit, of one region or of several, by the store's own rule. After an error it has happened to none of them, and never will.
    fn commit(&self, records: &mut [Record<'_>]) -> Result<(), StoreError>;

    /// Takes a change of names, attributes, or of which regions there are; the same holds.
    fn change(&self, update: Update) -> Result<(), StoreError>;

    /// Whether changes outlive the server. If not, nobody need put one together.
    fn is_durable(&self) -> bool;
}
