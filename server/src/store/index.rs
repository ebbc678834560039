//! The index of a durable store: a redb database that says which page is in which slot, which regions there are, and their names.
//!
//! Owns: the tables and how their rows are written. Called by: durable. Must not: know what is visible, or what a slot holds.
//!
//! | table | key | value |
//! |---|---|---|
//! | `meta` | a name | the format, the store's identity, the number of the last transaction, the last region's number |
//! | `regions` | region | `RegionRow` |
//! | `attributes` | region, `Attribute` | a number |
//! | `leaves` | region, leaf, epoch | 64 pages: versions, slots and checksums (`encode_leaf`) |
//! | `applied` | region, client | the client's last commits |
//! | `caches` | region, page cache | the newest epoch that it made |
//! | `snapshots` | region, name | `SnapshotRow` |
//! | `log` | region, epoch | when, pages changed, size |
//! | `directories` | full name | mode and time |
//! | `children` | directory, NUL, name | `ChildRow` |

use std::io::{self, IoSlice};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use netmem_protocol::control::Committed;
use netmem_protocol::{CacheId, ClientId, CommitId, Epoch, RegionId, StoreId};
use redb::{Database, ReadableDatabase, ReadableTable, StorageBackend, TableDefinition};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::StoreError;
use super::disk::{Disk, DiskFile};
use super::rows::{Names, PageRow, Update, decode_leaf};
use crate::history::LogRow;
use crate::tree::FAN_OUT;

mod write;

/// Its name on the disk.
pub const FILE: &str = "index";
/// Its name while it is made.
const FILE_NEW: &str = "index.new";
/// Written into `meta`. Another one is not read.
const FORMAT: u64 = 2;
/// Bytes of the index that are kept in memory.
const CACHE_BYTES: usize = 64 << 20;

const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
const REGIONS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("regions");
const ATTRIBUTES: TableDefinition<'_, (u64, u8), u64> = TableDefinition::new("attributes");
const LEAVES: TableDefinition<'_, (u64, u64, u64), &[u8]> = TableDefinition::new("leaves");
const APPLIED: TableDefinition<'_, (u64, [u8; 16]), &[u8]> = TableDefinition::new("applied");
const CACHES: TableDefinition<'_, (u64, [u8; 16]), u64> = TableDefinition::new("caches");
const SNAPSHOTS: TableDefinition<'_, (u64, &str), &[u8]> = TableDefinition::new("snapshots");
const LOG: TableDefinition<'_, (u64, u64), (u64, u64, u64)> = TableDefinition::new("log");
const DIRECTORIES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("directories");
const CHILDREN: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("children");

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

/// The file, as redb wants it: never shorter on the disk than its first page says, whatever of the last writes got there. redb 3.1 does not
/// open one that is (`page_manager.rs`, `raw_file_len() >= layout().len()`), and orders neither of the two by a sync of its own.
#[derive(Debug)]
struct Backend {
    file: Arc<dyn DiskFile>,
    /// The length that it is to have after the next sync, which the first page tells of; until then it is longer.
    shorter: Mutex<Option<u64>>,
}

impl Backend {
    fn shorter(&self) -> MutexGuard<'_, Option<u64>> {
        self.shorter.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        self.shorter().map_or_else(|| self.file.length(), Ok)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read_at(out, offset)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let mut shorter = self.shorter();
        if let Some(before) = shorter.take_if(|before| length > *before) {
            // What lies behind that has to be zeros again.
            self.file.sync()?;
            self.file.set_len(before)?;
        }
        if length < self.file.length()? {
            *shorter = Some(length);
            return Ok(());
        }
        self.file.set_len(length)?;
        self.file.sync()
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut shorter = self.shorter();
        self.file.sync()?;
        shorter.take().map_or(Ok(()), |length| self.file.set_len(length))
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write_at(&mut [IoSlice::new(data)], offset)
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
        write.open_table(CACHES).map_err(failed)?;
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
        Ok(Index {
            database: builder
                .create_with_backend(Backend { file, shorter: Mutex::default() })
                .map_err(failed)?,
        })
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
            write::write_update(&write, update)?;
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
        for row in read.open_table(CACHES).map_err(failed)?.iter().map_err(failed)? {
            let (key, epoch) = row.map_err(failed)?;
            let (region, cache) = key.value();
            names.made.push((RegionId(region), CacheId(cache), epoch.value()));
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
