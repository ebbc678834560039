//! What a region was: its snapshots, the epochs that its clones began with, and a log of its last commits.
//!
//! Owns: the roots that these keep. Called by: region, commit, catalog. Must not: write; a store keeps it over a restart.
//!
//! H1. What is kept is known to whoever commits: a snapshot is made, and given up, with the region's turn held, and a commit tells the store
//! which epochs are kept, so that it takes no row away that one of them needs.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use netmem_protocol::control::{History as Told, Logged, Snapshotted};
use netmem_protocol::{Epoch, RegionId};

use crate::region::Root;
use crate::store::rows::SnapshotRow;

/// Snapshots of a region.
pub const SNAPSHOTS_MAX: usize = 1024;
/// Commits in a region's log.
pub const LOG_MAX: usize = 256;

/// Epochs that are given up before the rows that only they needed go.
const PRUNE_LEAST: usize = 16;

/// A snapshot.
pub struct Kept {
    /// What it keeps.
    pub root: Arc<Root>,
    /// Nanoseconds since 1970.
    pub made_ns: u64,
    /// The number of the region that shows it.
    pub shown_by: RegionId,
    /// Made by an open of an epoch by its number: it goes with the last hold.
    pub automatic: bool,
}

impl Kept {
    /// Its row in a store.
    pub fn row(&self) -> SnapshotRow {
        SnapshotRow {
            epoch: self.root.epoch,
            size: self.root.size,
            made_ns: self.made_ns,
            shown_by: self.shown_by.0,
            automatic: self.automatic,
        }
    }
}

/// A commit that was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogRow {
    /// The epoch that it made.
    pub epoch: u64,
    /// Nanoseconds since 1970.
    pub when_ns: u64,
    /// Pages that it changed.
    pub pages: u64,
    /// Bytes of the region after it.
    pub size: u64,
}

/// What a region was.
#[derive(Default)]
pub struct History {
    /// By name.
    pub snapshots: BTreeMap<String, Kept>,
    /// By epoch: the root, for its pages alone, and the clones that began with it. A store that keeps every region whole needs none.
    clones: BTreeMap<u64, (Arc<Root>, BTreeSet<RegionId>)>,
    /// The last epochs before the current one, if the server keeps some; the newest last.
    pub recent: VecDeque<Arc<Root>>,
    /// Epochs that left `recent` since the store was told.
    unpruned: usize,
    /// The newest last.
    log: VecDeque<LogRow>,
}

impl History {
    /// Epochs that are kept besides the current one, in order.
    pub fn epochs(&self) -> Vec<u64> {
        let snapshots = self.snapshots.values().map(|kept| kept.root.epoch);
        let mut epochs: Vec<u64> = snapshots.chain(self.clones.keys().copied()).collect();
        epochs.extend(self.recent.iter().map(|root| root.epoch));
        epochs.sort_unstable();
        epochs.dedup();
        epochs
    }

    /// The root of an epoch that can be read.
    pub fn root(&self, epoch: u64) -> Option<&Arc<Root>> {
        let snapshots = self.snapshots.values().map(|kept| &kept.root);
        snapshots.chain(&self.recent).find(|root| root.epoch == epoch)
    }

    /// Whether anything depends on the region's old epochs that can't be given up with it.
    pub fn has_clones(&self) -> bool {
        !self.clones.is_empty()
    }

    /// A commit has happened.
    pub fn note(&mut self, row: LogRow) {
        if self.log.len() >= LOG_MAX {
            self.log.pop_front();
        }
        self.log.push_back(row);
    }

    /// Keeps a root that was replaced, one of `keep`. Returns whether enough of them have gone since that their rows are worth a transaction.
    pub fn replaced(&mut self, root: &Arc<Root>, keep: usize) -> bool {
        if keep > 0 {
            self.recent.push_back(Arc::clone(root));
        }
        while self.recent.len() > keep {
            self.recent.pop_front();
            self.unpruned += 1;
        }
        let enough = self.unpruned >= keep.max(PRUNE_LEAST);
        if enough {
            self.unpruned = 0;
        }
        enough
    }

    /// A clone begins with a root.
    pub fn cloned(&mut self, root: Arc<Root>, clone: RegionId) {
        self.clones.entry(root.epoch).or_insert_with(|| (root, BTreeSet::new())).1.insert(clone);
    }

    /// A clone that began with an epoch needs it no more.
    pub fn unclone(&mut self, epoch: u64, clone: RegionId) {
        if let Some((_, clones)) = self.clones.get_mut(&epoch) {
            clones.remove(&clone);
            if clones.is_empty() {
                self.clones.remove(&epoch);
            }
        }
    }

    /// Another region begins with an epoch in the place of a clone.
    pub fn handed_over(&mut self, epoch: u64, clone: RegionId, to: RegionId) {
        if let Some((_, clones)) = self.clones.get_mut(&epoch) {
            clones.remove(&clone);
            clones.insert(to);
        }
    }

    /// Epochs that clones began with, in order.
    pub fn cloned_epochs(&self) -> Vec<u64> {
        self.clones.keys().copied().collect()
    }

    /// The clone, and the epoch that it began with, if there is but one.
    pub fn only_clone(&self) -> Option<(u64, RegionId)> {
        let mut all =
            self.clones.iter().flat_map(|(epoch, (_, clones))| clones.iter().map(|id| (*epoch, *id)));
        all.next().filter(|_| all.next().is_none())
    }

    /// All of it, for a client.
    pub fn told(&self, current: u64) -> Told {
        let kept = self.epochs();
        let log = self.log.iter().map(|row| Logged {
            epoch: Epoch(row.epoch),
            when_ns: row.when_ns,
            pages: row.pages,
            size: row.size,
            kept: row.epoch == current || kept.binary_search(&row.epoch).is_ok(),
        });
        let named = self.snapshots.iter().filter(|(_, kept)| !kept.automatic);
        let snapshots = named.map(|(name, kept)| Snapshotted { snapshot: name.clone(), ..shown(kept) });
        Told { log: log.collect(), snapshots: snapshots.collect() }
    }
}

/// A snapshot for a client, without its name.
pub fn shown(kept: &Kept) -> Snapshotted {
    Snapshotted {
        snapshot: String::new(),
        epoch: Epoch(kept.root.epoch),
        made_ns: kept.made_ns,
        size: kept.root.size,
        stored_pages: kept.root.tree.stored(),
    }
}
