//! What the index says of regions, pages and names, and what a transaction changes of it.
//!
//! Owns: the rows, and how a leaf's is written. Called by: index, and whoever puts an update together. Must not: know how rows are kept.

use netmem_protocol::control::Committed;
use netmem_protocol::{CacheId, ClientId, CommitId, RegionId};
use serde::{Deserialize, Serialize};

use crate::history::LogRow;
use crate::tree::FAN_OUT;

/// A region, without its pages and attributes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegionRow {
    /// Bytes.
    pub size: u64,
    /// The newest epoch.
    pub epoch: u64,
    /// Epoch, pages left, pages before, of each cut that is remembered.
    pub cuts: Vec<(u64, u64, u64)>,
    /// The region and the epoch that it began as: its leaves that are not here are there.
    pub origin: Option<(u64, u64)>,
}

/// A snapshot of a region.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotRow {
    /// The epoch that it keeps.
    pub epoch: u64,
    /// Bytes.
    pub size: u64,
    /// Nanoseconds since 1970.
    pub made_ns: u64,
    /// The number of the region that shows it.
    pub shown_by: u64,
    /// It goes with the last hold on it.
    pub automatic: bool,
}

/// What of a region changes beside its commits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attribute {
    /// Permission bits.
    Mode = 0,
    /// Nanoseconds since 1970 of the last change.
    Modified = 1,
}

/// What is in a directory under a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ChildRow {
    /// A region's number.
    Region(u64),
    /// A directory, which is in its own table.
    Directory,
    /// A symbolic link: what it says, and when it was changed.
    Symlink(Vec<u8>, u64),
}

/// A directory's mode and time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectoryRow {
    /// Permission bits.
    pub mode: u32,
    /// Nanoseconds since 1970.
    pub modified_ns: u64,
}

impl Names {
    /// The last `count` epochs of each region before its newest, in order, as far as the log has them.
    pub fn recent(&self, count: usize) -> impl Iterator<Item = (RegionId, LogRow)> {
        self.log.chunk_by(|one, next| one.0 == next.0).flat_map(move |log| {
            let newest = self.regions.binary_search_by_key(&log[0].0, |(id, _)| *id);
            let newest = newest.map_or(0, |at| self.regions[at].1.epoch);
            let older = log.iter().filter(|(_, row)| row.epoch < newest).count();
            log[..older].iter().skip(older.saturating_sub(count)).copied()
        })
    }
}

/// A page in the index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PageRow {
    /// The epoch that last changed it; 0: none did.
    pub version: u64,
    /// Its slot; 0: zeros.
    pub slot: u64,
    /// Its checksum.
    pub sum: u64,
}

/// What one transaction changes: rows that are written, and with `None` rows that go.
#[derive(Default)]
pub struct Update {
    /// Regions that are new, and those that go, with all that is theirs.
    pub regions: Vec<(RegionId, Option<RegionRow>)>,
    /// Attributes of regions that are there.
    pub attributes: Vec<(RegionId, Attribute, u64)>,
    /// Commits. One to a region that went meanwhile is left out.
    pub commits: Vec<CommitRows>,
    /// Snapshots of regions that are there, by name.
    pub snapshots: Vec<(RegionId, String, Option<SnapshotRow>)>,
    /// Regions of which no other epochs than these, in order, and the newest are kept any more.
    pub pruned: Vec<(RegionId, Vec<u64>)>,
    /// Regions that go, and what of them goes to their only clones.
    pub heirs: Vec<Heir>,
    /// Directories.
    pub directories: Vec<(String, Option<DirectoryRow>)>,
    /// What is in directories.
    pub children: Vec<(String, String, Option<ChildRow>)>,
    /// The last number that a region got.
    pub last_region: Option<u64>,
}

/// A clone that gets the rows of the region that it began as, which goes.
pub struct Heir {
    /// The region that goes.
    pub from: RegionId,
    /// The epoch that the clone began with.
    pub until: u64,
    /// The clone.
    pub to: RegionId,
    /// The clone's row: it began as what the other one began as.
    pub row: RegionRow,
    /// Older epochs of the clone that are kept, in order.
    pub kept: Vec<u64>,
}

/// The last commits of a client.
pub type Ended = Vec<(CommitId, Committed)>;

/// What a commit changes.
pub struct CommitRows {
    /// Its region.
    pub region: RegionId,
    /// The region after it.
    pub row: RegionRow,
    /// Leaves that changed; `None` for one that has nothing any more.
    pub leaves: Vec<(u64, Option<Vec<u8>>)>,
    /// Older epochs that are kept, in order.
    pub kept: Vec<u64>,
    /// Its line in the log.
    pub log: Option<LogRow>,
    /// The last commits of its client, and with `None` of one that is forgotten.
    pub applied: Vec<(ClientId, Option<Ended>)>,
    /// The newest epoch of its page cache, and with `None` of one that is forgotten.
    pub made: Vec<(CacheId, Option<u64>)>,
}

/// All that the index says, but for the leaves.
#[derive(Default)]
pub struct Names {
    /// Regions.
    pub regions: Vec<(RegionId, RegionRow)>,
    /// Their attributes: number of the attribute, and what it is.
    pub attributes: Vec<(RegionId, u8, u64)>,
    /// The last commits of clients.
    pub applied: Vec<(RegionId, ClientId, Ended)>,
    /// The newest epochs that page caches made.
    pub made: Vec<(RegionId, CacheId, u64)>,
    /// Snapshots, by name.
    pub snapshots: Vec<(RegionId, String, SnapshotRow)>,
    /// The logs of regions, in order.
    pub log: Vec<(RegionId, LogRow)>,
    /// Directories.
    pub directories: Vec<(String, DirectoryRow)>,
    /// What is in directories.
    pub children: Vec<(String, String, ChildRow)>,
    /// The last number that a region got.
    pub last_region: u64,
}

/// A leaf's row: a bit for each page that has a version, a bit for each that has a slot; versions; slots and checksums. `None` if there
/// is nothing to say.
pub fn encode_leaf(pages: &[PageRow; FAN_OUT]) -> Option<Vec<u8>> {
    let bits = |has: fn(&PageRow) -> bool| {
        pages.iter().enumerate().fold(0, |bits, (at, page)| bits | u64::from(has(page)) << at)
    };
    let (versions, slots) = (bits(|page| page.version != 0), bits(|page| page.slot != 0));
    if versions == 0 {
        return None;
    }
    let mut row = Vec::with_capacity(16 + FAN_OUT * 24);
    row.extend(versions.to_le_bytes());
    row.extend(slots.to_le_bytes());
    for page in pages.iter().filter(|page| page.version != 0) {
        row.extend(page.version.to_le_bytes());
    }
    for page in pages.iter().filter(|page| page.slot != 0) {
        row.extend(page.slot.to_le_bytes());
        row.extend(page.sum.to_le_bytes());
    }
    Some(row)
}

/// The row of a leaf that has nothing.
pub const NOTHING: [u8; 16] = [0; 16];

/// Undoes [`encode_leaf`].
pub fn decode_leaf(row: &[u8]) -> Option<[PageRow; FAN_OUT]> {
    let (words, rest) = row.as_chunks::<8>();
    let mut words = words.iter().map(|word| u64::from_le_bytes(*word));
    let (versions, slots) = (words.next()?, words.next()?);
    if !rest.is_empty() || slots & !versions != 0 {
        return None;
    }
    let mut pages = [PageRow::default(); FAN_OUT];
    for (_, page) in pages.iter_mut().enumerate().filter(|(at, _)| versions >> at & 1 != 0) {
        page.version = words.next()?;
    }
    for (_, page) in pages.iter_mut().enumerate().filter(|(at, _)| slots >> at & 1 != 0) {
        (page.slot, page.sum) = (words.next()?, words.next()?);
    }
    words.next().is_none().then_some(pages)
}
