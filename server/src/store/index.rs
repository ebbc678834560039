//! The index of a durable store: a redb database that says which page is in which slot, which regions there are, and their names.
//!
//! Owns: the tables and how their rows are written. Called by: durable. Must not: know what is visible, or what a slot holds.
//!
//! | table | key | value |
//! |---|---|---|
//! | `meta` | a name | the format, the store's identity, the number of the last transaction, the last region's number |
//! | `regions` | region | [`RegionRow`] |
//! | `attributes` | region, [`Attribute`] | a number |
//! | `leaves` | region, leaf, epoch | 64 pages: versions, slots and checksums ([`encode_leaf`]) |
//! | `applied` | region, client | the client's last commits |
//! | `snapshots` | region, name | [`SnapshotRow`] |
//! | `log` | region, epoch | when, pages changed, size |
//! | `directories` | full name | mode and time |
//! | `children` | directory, NUL, name | [`ChildRow`] |

use std::io::{self, IoSlice};
use std::sync::Arc;

use netmem_protocol::control::Committed;
use netmem_protocol::{ClientId, CommitId, Epoch, RegionId, StoreId};
use redb::{Database, ReadableDatabase, ReadableTable, StorageBackend, TableDefinition, WriteTransaction};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::StoreError;
use super::disk::{Disk, DiskFile};
use crate::history::{LOG_MAX, LogRow};
use crate::tree::FAN_OUT;

/// Its name on the disk.
pub const FILE: &str = "index";
/// Its name while it is made.
const FILE_NEW: &str = "index.new";
/// Written into `meta`. Another one is not read.
const FORMAT: u64 = 1;
/// Bytes of the index that are kept in memory.
const CACHE_BYTES: usize = 64 << 20;

const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
const REGIONS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("regions");
const ATTRIBUTES: TableDefinition<'_, (u64, u8), u64> = TableDefinition::new("attributes");
const LEAVES: TableDefinition<'_, (u64, u64, u64), &[u8]> = TableDefinition::new("leaves");
const APPLIED: TableDefinition<'_, (u64, [u8; 16]), &[u8]> = TableDefinition::new("applied");
const SNAPSHOTS: TableDefinition<'_, (u64, &str), &[u8]> = TableDefinition::new("snapshots");
const LOG: TableDefinition<'_, (u64, u64), (u64, u64, u64)> = TableDefinition::new("log");
const DIRECTORIES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("directories");
const CHILDREN: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("children");

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
    /// Directories.
    pub directories: Vec<(String, Option<DirectoryRow>)>,
    /// What is in directories.
    pub children: Vec<(String, String, Option<ChildRow>)>,
    /// The last number that a region got.
    pub last_region: Option<u64>,
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

fn failed(error: impl Into<redb::Error>) -> StoreError {
    match error.into() {
        redb::Error::Io(error) => StoreError::from(error),
        error => StoreError::broken(format!("the index: {error}")),
    }
}

fn damaged(what: &str) -> StoreError {
    StoreError::broken(format!("the index is damaged: {what}"))
}

fn encode<T: Serialize>(row: &T) -> Result<Vec<u8>, StoreError> {
    bincode::serde::encode_to_vec(row, bincode::config::standard())
        .map_err(|error| StoreError::broken(format!("a row that does not encode: {error}")))
}

fn decode<T: DeserializeOwned>(bytes: &[u8], what: &str) -> Result<T, StoreError> {
    match bincode::serde::decode_from_slice(bytes, bincode::config::standard()) {
        Ok((row, read)) if read == bytes.len() => Ok(row),
        _ => Err(damaged(what)),
    }
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
const NOTHING: [u8; 16] = [0; 16];

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

#[derive(Debug)]
struct Backend(Arc<dyn DiskFile>);

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        self.0.length()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read_at(out, offset)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.0.set_len(length)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_at(&mut [IoSlice::new(data)], offset)
    }
}

/// The index.
pub struct Index {
    database: Database,
}

impl Index {
    /// Whether there is one.
    pub fn is_there(disk: &dyn Disk) -> bool {
        disk.has(FILE)
    }

    /// Makes an empty one, of a store with this identity.
    pub fn make(disk: &dyn Disk, id: StoreId) -> Result<(), StoreError> {
        let file = disk.open(FILE_NEW)?;
        file.set_len(0)?;
        let index = Self::of(file)?;
        let write = index.database.begin_write().map_err(failed)?;
        {
            let mut meta = write.open_table(META).map_err(failed)?;
            meta.insert("format", &FORMAT.to_le_bytes()[..]).map_err(failed)?;
            meta.insert("store", &id.0[..]).map_err(failed)?;
        }
        write.open_table(REGIONS).map_err(failed)?;
        write.open_table(ATTRIBUTES).map_err(failed)?;
        write.open_table(LEAVES).map_err(failed)?;
        write.open_table(APPLIED).map_err(failed)?;
        write.open_table(SNAPSHOTS).map_err(failed)?;
        write.open_table(LOG).map_err(failed)?;
        write.open_table(DIRECTORIES).map_err(failed)?;
        write.open_table(CHILDREN).map_err(failed)?;
        write.commit().map_err(failed)?;
        drop(index);
        Ok(disk.rename(FILE_NEW, FILE)?)
    }

    fn of(file: Arc<dyn DiskFile>) -> Result<Index, StoreError> {
        let mut builder = Database::builder();
        builder.set_cache_size(CACHE_BYTES);
        Ok(Index { database: builder.create_with_backend(Backend(file)).map_err(failed)? })
    }

    /// Opens it. Returns its identity.
    pub fn open(disk: &dyn Disk) -> Result<(Index, StoreId), StoreError> {
        let index = Self::of(disk.open(FILE)?)?;
        let read = index.database.begin_read().map_err(failed)?;
        let meta = read.open_table(META).map_err(failed)?;
        let value = |name| -> Result<Vec<u8>, StoreError> {
            let value = meta.get(name).map_err(failed)?;
            value.map(|value| value.value().to_vec()).ok_or_else(|| damaged(name))
        };
        if value("format")? != FORMAT.to_le_bytes() {
            return Err(StoreError::broken("it is of another version of netmem-server".to_owned()));
        }
        let id = StoreId(value("store")?.try_into().map_err(|_| damaged("store"))?);
        drop((meta, read));
        Ok((index, id))
    }

    fn number(&self, name: &str) -> Result<u64, StoreError> {
        let read = self.database.begin_read().map_err(failed)?;
        let meta = read.open_table(META).map_err(failed)?;
        let value = meta.get(name).map_err(failed)?;
        value.map_or(Ok(0), |value| {
            value.value().try_into().map(u64::from_le_bytes).map_err(|_| damaged("a number in meta"))
        })
    }

    /// The number of the last transaction; 0 if there was none.
    pub fn transaction(&self) -> Result<u64, StoreError> {
        self.number("transaction")
    }

    /// Makes all updates, in order, or none. They are on the disk when it returns.
    pub fn apply(&self, transaction: u64, updates: &[Update]) -> Result<(), StoreError> {
        let write = self.database.begin_write().map_err(failed)?;
        for update in updates {
            write_update(&write, update)?;
        }
        {
            let mut meta = write.open_table(META).map_err(failed)?;
            meta.insert("transaction", &transaction.to_le_bytes()[..]).map_err(failed)?;
        }
        write.commit().map_err(failed)
    }

    /// All that it says, but for the leaves.
    pub fn names(&self) -> Result<Names, StoreError> {
        let read = self.database.begin_read().map_err(failed)?;
        let mut names = Names { last_region: self.number("last region")?, ..Names::default() };
        for row in read.open_table(REGIONS).map_err(failed)?.iter().map_err(failed)? {
            let (region, row) = row.map_err(failed)?;
            names.regions.push((RegionId(region.value()), decode(row.value(), "a region")?));
        }
        for row in read.open_table(ATTRIBUTES).map_err(failed)?.iter().map_err(failed)? {
            let (key, value) = row.map_err(failed)?;
            let (region, which) = key.value();
            names.attributes.push((RegionId(region), which, value.value()));
        }
        for row in read.open_table(APPLIED).map_err(failed)?.iter().map_err(failed)? {
            let (key, row) = row.map_err(failed)?;
            let (region, client) = key.value();
            let commits: Vec<(u64, [u64; 3])> = decode(row.value(), "commits")?;
            let commits = commits.into_iter().map(|(commit, [epoch, previous, size])| {
                (CommitId(commit), Committed { epoch: Epoch(epoch), previous: Epoch(previous), size })
            });
            names.applied.push((RegionId(region), ClientId(client), commits.collect()));
        }
        for row in read.open_table(SNAPSHOTS).map_err(failed)?.iter().map_err(failed)? {
            let (key, row) = row.map_err(failed)?;
            let (region, name) = key.value();
            names.snapshots.push((RegionId(region), name.to_owned(), decode(row.value(), "a snapshot")?));
        }
        for row in read.open_table(LOG).map_err(failed)?.iter().map_err(failed)? {
            let (key, row) = row.map_err(failed)?;
            let ((region, epoch), (when_ns, pages, size)) = (key.value(), row.value());
            names.log.push((RegionId(region), LogRow { epoch, when_ns, pages, size }));
        }
        for row in read.open_table(DIRECTORIES).map_err(failed)?.iter().map_err(failed)? {
            let (name, row) = row.map_err(failed)?;
            names.directories.push((name.value().to_owned(), decode(row.value(), "a directory")?));
        }
        for row in read.open_table(CHILDREN).map_err(failed)?.iter().map_err(failed)? {
            let (key, row) = row.map_err(failed)?;
            let (directory, name) = key.value().split_once('\0').ok_or_else(|| damaged("a name"))?;
            let row = decode(row.value(), "a name")?;
            names.children.push((directory.to_owned(), name.to_owned(), row));
        }
        Ok(names)
    }

    /// A region's leaves in the order in which they were written: epoch, leaf, pages.
    pub fn leaves(&self, region: RegionId) -> Result<Vec<(u64, u64, [PageRow; FAN_OUT])>, StoreError> {
        let read = self.database.begin_read().map_err(failed)?;
        let table = read.open_table(LEAVES).map_err(failed)?;
        let mut leaves = Vec::new();
        for row in table.range((region.0, 0, 0)..(region.0 + 1, 0, 0)).map_err(failed)? {
            let (key, row) = row.map_err(failed)?;
            let (_, leaf, epoch) = key.value();
            leaves.push((epoch, leaf, decode_leaf(row.value()).ok_or_else(|| damaged("a leaf"))?));
        }
        leaves.sort_unstable_by_key(|(epoch, leaf, _)| (*epoch, *leaf));
        Ok(leaves)
    }

    /// Regions that have leaves.
    pub fn regions_with_leaves(&self) -> Result<Vec<RegionId>, StoreError> {
        let read = self.database.begin_read().map_err(failed)?;
        let table = read.open_table(LEAVES).map_err(failed)?;
        let (mut regions, mut from) = (Vec::new(), 0);
        loop {
            let next = table.range((from, 0, 0)..).map_err(failed)?.next().transpose().map_err(failed)?;
            let Some((key, _)) = next else { return Ok(regions) };
            let (region, ..) = key.value();
            regions.push(RegionId(region));
            from = region + 1;
        }
    }

    /// Whether all of its pages have the checksums that they must have. May mend what a crash left.
    pub fn check(&mut self) -> Result<bool, StoreError> {
        self.database.check_integrity().map_err(failed)
    }
}

fn write_update(write: &WriteTransaction, update: &Update) -> Result<(), StoreError> {
    for (region, row) in &update.regions {
        write_region(write, region.0, row.as_ref())?;
    }
    if !update.attributes.is_empty() {
        let regions = write.open_table(REGIONS).map_err(failed)?;
        let mut attributes = write.open_table(ATTRIBUTES).map_err(failed)?;
        for (region, which, value) in &update.attributes {
            if regions.get(region.0).map_err(failed)?.is_some() {
                attributes.insert((region.0, *which as u8), value).map_err(failed)?;
            }
        }
    }
    for commit in &update.commits {
        write_commit(write, commit)?;
    }
    write_snapshots(write, update)?;
    write_names(write, update)
}

fn write_commit(write: &WriteTransaction, commit: &CommitRows) -> Result<(), StoreError> {
    let RegionId(region) = commit.region;
    let mut regions = write.open_table(REGIONS).map_err(failed)?;
    if regions.get(region).map_err(failed)?.is_none() {
        return Ok(());
    }
    regions.insert(region, &encode(&commit.row)?[..]).map_err(failed)?;
    let mut leaves = write.open_table(LEAVES).map_err(failed)?;
    for (leaf, row) in &commit.leaves {
        let newest = leaves
            .range((region, *leaf, 0)..(region, leaf + 1, 0))
            .map_err(failed)?
            .next_back()
            .transpose()
            .map_err(failed)?
            .map(|(key, _)| key.value());
        // A row is of its epoch and all later ones up to the next row's.
        let mut is_below = commit.row.origin.is_some();
        if let Some(key) = newest {
            if commit.kept.iter().any(|epoch| *epoch >= key.2) {
                is_below = true;
            } else {
                leaves.remove(key).map_err(failed)?;
                let older = leaves.range((region, *leaf, 0)..(region, leaf + 1, 0)).map_err(failed)?.next();
                is_below |= older.is_some();
            }
        }
        match row {
            Some(row) => drop(leaves.insert((region, *leaf, commit.row.epoch), &row[..]).map_err(failed)?),
            // What lies below must not show.
            None if is_below => {
                drop(leaves.insert((region, *leaf, commit.row.epoch), &NOTHING[..]).map_err(failed)?);
            }
            None => {}
        }
    }
    if let Some(LogRow { epoch, when_ns, pages, size }) = commit.log {
        let mut log = write.open_table(LOG).map_err(failed)?;
        log.insert((region, epoch), (when_ns, pages, size)).map_err(failed)?;
        if let Some(old) = epoch.checked_sub(LOG_MAX as u64) {
            log.remove((region, old)).map_err(failed)?;
        }
    }
    let mut applied = write.open_table(APPLIED).map_err(failed)?;
    for (ClientId(client), commits) in &commit.applied {
        let Some(commits) = commits else {
            applied.remove((region, *client)).map_err(failed)?;
            continue;
        };
        let ended = |(commit, ended): &(CommitId, Committed)| {
            (commit.0, [ended.epoch.0, ended.previous.0, ended.size])
        };
        let row: Vec<(u64, [u64; 3])> = commits.iter().map(ended).collect();
        applied.insert((region, *client), &encode(&row)?[..]).map_err(failed)?;
    }
    Ok(())
}

fn write_snapshots(write: &WriteTransaction, update: &Update) -> Result<(), StoreError> {
    if !update.snapshots.is_empty() {
        let regions = write.open_table(REGIONS).map_err(failed)?;
        let mut snapshots = write.open_table(SNAPSHOTS).map_err(failed)?;
        for (RegionId(region), name, row) in &update.snapshots {
            match row {
                Some(row) if regions.get(region).map_err(failed)?.is_some() => {
                    drop(snapshots.insert((*region, &name[..]), &encode(row)?[..]).map_err(failed)?);
                }
                Some(_) => {}
                None => drop(snapshots.remove((*region, &name[..])).map_err(failed)?),
            }
        }
    }
    for (RegionId(region), kept) in &update.pruned {
        let mut leaves = write.open_table(LEAVES).map_err(failed)?;
        let range = (*region, 0, 0)..(region + 1, 0, 0);
        let mut gone = Vec::new();
        let mut before: Option<(u64, u64, u64)> = None;
        for row in leaves.range(range).map_err(failed)? {
            let key = row.map_err(failed)?.0.value();
            if let Some(old) = before.filter(|old| old.1 == key.1)
                && !kept.iter().any(|epoch| (old.2..key.2).contains(epoch))
            {
                gone.push(old);
            }
            before = Some(key);
        }
        for key in gone {
            leaves.remove(key).map_err(failed)?;
        }
    }
    Ok(())
}

fn write_region(write: &WriteTransaction, region: u64, row: Option<&RegionRow>) -> Result<(), StoreError> {
    let mut regions = write.open_table(REGIONS).map_err(failed)?;
    if let Some(row) = row {
        regions.insert(region, &encode(row)?[..]).map_err(failed)?;
        return Ok(());
    }
    regions.remove(region).map_err(failed)?;
    let mut attributes = write.open_table(ATTRIBUTES).map_err(failed)?;
    attributes.retain_in((region, 0)..(region + 1, 0), |_, _| false).map_err(failed)?;
    let mut leaves = write.open_table(LEAVES).map_err(failed)?;
    leaves.retain_in((region, 0, 0)..(region + 1, 0, 0), |_, _| false).map_err(failed)?;
    let mut snapshots = write.open_table(SNAPSHOTS).map_err(failed)?;
    snapshots.retain_in((region, "")..(region + 1, ""), |_, _| false).map_err(failed)?;
    let mut log = write.open_table(LOG).map_err(failed)?;
    log.retain_in((region, 0)..(region + 1, 0), |_, _| false).map_err(failed)?;
    let mut applied = write.open_table(APPLIED).map_err(failed)?;
    applied.retain_in((region, [0; 16])..(region + 1, [0; 16]), |_, _| false).map_err(failed)?;
    Ok(())
}

fn write_names(write: &WriteTransaction, update: &Update) -> Result<(), StoreError> {
    if !update.directories.is_empty() {
        let mut directories = write.open_table(DIRECTORIES).map_err(failed)?;
        for (name, row) in &update.directories {
            match row {
                Some(row) => drop(directories.insert(&name[..], &encode(row)?[..]).map_err(failed)?),
                None => drop(directories.remove(&name[..]).map_err(failed)?),
            }
        }
    }
    if !update.children.is_empty() {
        let mut children = write.open_table(CHILDREN).map_err(failed)?;
        for (directory, name, row) in &update.children {
            let key = format!("{directory}\0{name}");
            match row {
                Some(row) => drop(children.insert(&key[..], &encode(row)?[..]).map_err(failed)?),
                None => drop(children.remove(&key[..]).map_err(failed)?),
            }
        }
    }
    if let Some(last) = update.last_region {
        let mut meta = write.open_table(META).map_err(failed)?;
        let there = meta.get("last region").map_err(failed)?.and_then(|value| value.value().try_into().ok());
        let last = last.max(there.map_or(0, u64::from_le_bytes));
        meta.insert("last region", &last.to_le_bytes()[..]).map_err(failed)?;
    }
    Ok(())
}
