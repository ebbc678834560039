//! The store on a disk: pages in the slots of a file, and a transaction of the index for each commit.
//!
//! Owns: the order in which things reach the disk. Called by: commit and catalog through [`Store`], lib to open it. Must not: answer before
//! what it answers for is on the disk.
//!
//! A commit's pages are written into free slots; then they are synced; then the index names them, in one transaction; and then the commit
//! has happened. Commits that come while a transaction is under way share the next one, and its two syncs.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use netmem_protocol::{RegionId, StoreId};

use super::disk::Disk;
use super::index::Index;
use super::pages::{self, Pages, Stored};
use super::rows::{Attribute, CommitRows, Names, PageRow, Update, encode_leaf};
use super::{Record, Store, StoreError};
use crate::content::Content;
use crate::tree::{FAN_OUT, Tree};

/// What a store holds when it is opened.
pub struct Loaded {
    /// Names, regions, and the last commits of clients.
    pub names: Names,
    /// Their pages.
    pub trees: Trees,
}

/// The pages of all regions.
#[derive(Default)]
pub struct Trees {
    /// At their newest epochs.
    pub current: HashMap<RegionId, Tree>,
    /// At epochs that snapshots and clones keep.
    pub kept: HashMap<(RegionId, u64), Tree>,
    /// Regions with rows that nothing needs, and the epochs that are kept of them.
    pruned: Vec<(RegionId, Vec<u64>)>,
}

/// An update that waits, and how it went.
#[derive(Default)]
struct Queue {
    waiting: Vec<(u64, Update)>,
    done: HashMap<u64, Result<(), StoreError>>,
    next: u64,
    /// A thread is making a transaction.
    leading: bool,
    /// The number of the last transaction.
    transaction: u64,
    /// Why no change is taken any more.
    failed: Option<StoreError>,
}

/// The store.
pub struct Durable {
    id: StoreId,
    disk: Box<dyn Disk>,
    pages: Arc<Pages>,
    /// Held by whoever leads. `None` after it failed and could not be opened again.
    index: Mutex<Option<Index>>,
    /// Lock order: before `index`; not held while anything is written.
    queue: Mutex<Queue>,
    turned: Condvar,
}

impl Durable {
    /// Opens what is on a disk, or begins anew if nothing is. `id` is the identity of a new store; `keep_epochs` of each region's last epochs are
    /// kept.
    pub fn open(
        disk: Box<dyn Disk>,
        id: StoreId,
        keep_epochs: usize,
    ) -> Result<(Durable, Loaded), StoreError> {
        let new = !Index::is_there(&*disk);
        let pages = Pages::open(disk.open(pages::FILE)?, new)?;
        if new {
            // What a store begins with is there whole, or not at all.
            Index::make(&*disk, id)?;
        }
        let (index, id) = Index::open(&*disk)?;
        let names = index.names()?;
        let mut trees = load_trees(&index, &pages, &names, keep_epochs)?;
        let mut queue = Queue { transaction: index.transaction()?, ..Queue::default() };
        let pruned = std::mem::take(&mut trees.pruned);
        if !pruned.is_empty() {
            queue.transaction += 1;
            index.apply(queue.transaction, &[Update { pruned, ..Update::default() }])?;
        }
        let loaded = Loaded { names, trees };
        let store = Durable {
            id,
            disk,
            pages,
            index: Mutex::new(Some(index)),
            queue: Mutex::new(queue),
            turned: Condvar::new(),
        };
        Ok((store, loaded))
    }

    /// Its pages.
    pub fn pages(&self) -> &Arc<Pages> {
        &self.pages
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns when an update is on the disk, or was refused.
    fn submit(&self, update: Update) -> Result<(), StoreError> {
        let mut queue = self.queue();
        let ticket = queue.next;
        queue.next += 1;
        queue.waiting.push((ticket, update));
        loop {
            if let Some(result) = queue.done.remove(&ticket) {
                return result;
            }
            if queue.leading {
                queue = self.turned.wait(queue).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            queue.leading = true;
            let (tickets, updates): (Vec<u64>, Vec<Update>) = queue.waiting.drain(..).unzip();
            queue.transaction += 1;
            let (number, failed) = (queue.transaction, queue.failed.clone());
            drop(queue);
            let result = failed.map_or_else(|| self.write(number, &updates), Err);
            queue = self.queue();
            queue.leading = false;
            queue.done.extend(tickets.into_iter().map(|ticket| (ticket, result.clone())));
            self.turned.notify_all();
        }
    }

    /// Makes a transaction of updates.
    fn write(&self, number: u64, updates: &[Update]) -> Result<(), StoreError> {
        if updates.iter().any(|update| !update.commits.is_empty())
            && let Err(error) = self.pages.sync().map_err(StoreError::from)
        {
            return Err(self.after_failure(error));
        }
        let mut index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        let result = match &*index {
            Some(index) => index.apply(number, updates),
            None => Err(StoreError::broken("the index is closed".to_owned())),
        };
        let Err(error) = result else { return Ok(()) };
        if error.full {
            // What a transaction has written when the disk is full is not named by anything. But the database says so until it is opened
            // anew, and whether the last step of all was made has to be looked up.
            *index = None;
            if let Ok((again, _)) = Index::open(&*self.disk)
                && let Ok(last) = again.transaction()
            {
                *index = Some(again);
                return if last == number { Ok(()) } else { Err(error) };
            }
        }
        drop(index);
        Err(self.after_failure(StoreError { full: false, ..error }))
    }

    /// After a failure that leaves it open what is on the disk, nothing is taken any more: a second sync that succeeds says nothing of the
    /// first.
    fn after_failure(&self, error: StoreError) -> StoreError {
        if error.full {
            return error;
        }
        let text = format!("{error}; the store takes no changes until netmem-server is started again");
        tracing::error!("{}: {text}", self.disk.name());
        self.pages.stick();
        let error = StoreError::broken(text);
        self.queue().failed = Some(error.clone());
        error
    }

    /// Writes a commit's pages, and puts into the tree where they are.
    fn write_pages(&self, record: &mut Record<'_>) -> Result<Vec<Arc<Stored>>, StoreError> {
        let since = record.previous.0;
        let mut here = Vec::new();
        record.root.tree.changed_leaves(since, &mut |_, leaf| {
            here.extend(leaf.contents().iter().flatten().filter_map(|content| content.here().cloned()));
        });
        if here.is_empty() {
            return Ok(Vec::new());
        }
        let written = self.pages.write(&here)?;
        let mut stored = written.iter();
        record.root.tree.replace_changed(since, &mut |content| {
            if content.here().is_some()
                && let Some(stored) = stored.next()
            {
                *content = Content::Stored(Arc::clone(stored));
            }
        });
        Ok(written)
    }
}

impl Store for Durable {
    fn name(&self) -> &'static str {
        "disk"
    }

    fn id(&self) -> StoreId {
        self.id
    }

    fn commit(&self, records: &mut [Record<'_>]) -> Result<(), StoreError> {
        let mut written = Vec::new();
        let mut update = Update::default();
        for record in records {
            match self.write_pages(record) {
                Ok(more) => written.extend(more),
                Err(error) => {
                    // Nothing names them, and nothing will.
                    self.pages.discard(&written);
                    return Err(error);
                }
            }
            update.commits.push(commit_rows(record));
            update.attributes.push((record.region, Attribute::Modified, record.modified_ns));
        }
        if let Err(error) = self.submit(update) {
            if error.full {
                self.pages.discard(&written);
            }
            return Err(error);
        }
        self.pages.punch();
        Ok(())
    }

    fn change(&self, update: Update) -> Result<(), StoreError> {
        self.submit(update)
    }

    fn is_durable(&self) -> bool {
        true
    }
}

/// What a commit changes in the index.
fn commit_rows(record: &mut Record<'_>) -> CommitRows {
    let tree = &record.root.tree;
    let mut leaves = BTreeMap::new();
    if let Some(kept) = record.cut {
        // What was cut off has gone, and no version says so.
        let mut from = kept / FAN_OUT as u64;
        while let Some((leaf, _)) = record.before.tree.next_leaf(from) {
            leaves.insert(leaf, encode_leaf(&page_rows(tree, leaf)));
            from = leaf + 1;
        }
    }
    tree.changed_leaves(record.previous.0, &mut |leaf, _| {
        leaves.insert(leaf, encode_leaf(&page_rows(tree, leaf)));
    });
    CommitRows {
        region: record.region,
        row: record.of.row(record.root),
        leaves: leaves.into_iter().collect(),
        kept: std::mem::take(&mut record.kept),
        log: Some(record.log),
        applied: std::mem::take(&mut record.applied),
        made: std::mem::take(&mut record.made),
    }
}

fn page_rows(tree: &Tree, leaf: u64) -> [PageRow; FAN_OUT] {
    let mut rows = [PageRow::default(); FAN_OUT];
    let Some(leaf) = tree.leaf_at(leaf) else { return rows };
    for ((row, version), content) in rows.iter_mut().zip(leaf.versions()).zip(leaf.contents()) {
        row.version = *version;
        if let Some(Content::Stored(stored)) = content {
            (row.slot, row.sum) = (stored.slot(), stored.sum());
        }
    }
    rows
}

/// Loads the trees of all regions, and those of epochs that snapshots and clones keep.
fn load_trees(
    index: &Index,
    pages: &Arc<Pages>,
    names: &Names,
    keep_epochs: usize,
) -> Result<Trees, StoreError> {
    let mut wanted: HashMap<RegionId, BTreeSet<u64>> = HashMap::new();
    for (region, _, row) in &names.snapshots {
        wanted.entry(*region).or_default().insert(row.epoch);
    }
    for (region, row) in names.recent(keep_epochs) {
        wanted.entry(region).or_default().insert(row.epoch);
    }
    for (parent, epoch) in names.regions.iter().filter_map(|(_, row)| row.origin) {
        wanted.entry(RegionId(parent)).or_default().insert(epoch);
    }
    for region in index.regions_with_leaves()? {
        if names.regions.binary_search_by_key(&region, |(id, _)| *id).is_err() {
            return Err(damaged(&format!("region {region} has pages, and is not there")));
        }
    }
    let mut loader = Loader { pages, shared: (!wanted.is_empty()).then(HashMap::new) };
    let mut trees = Trees::default();
    // In the order of their numbers: what a region began as has a lower one.
    for (region, row) in &names.regions {
        let mut tree = match row.origin {
            None => Tree::default(),
            Some((parent, epoch)) => {
                let began = trees.kept.get(&(RegionId(parent), epoch)).cloned();
                began.ok_or_else(|| damaged(&format!("region {region} began as one that is not there")))?
            }
        };
        let mut epochs = wanted.remove(region).unwrap_or_default();
        let leaves = index.leaves(*region)?;
        let needed = Needed::of(&leaves, &epochs);
        if needed.all < leaves.len() {
            // A crash came between the end of what needed them and the end of the rows.
            trees.pruned.push((*region, epochs.iter().copied().collect()));
        }
        for (written, leaf, rows) in leaves {
            if !needed.has(leaf, written) {
                continue;
            }
            while let Some(epoch) = epochs.first().copied().filter(|epoch| *epoch < written) {
                epochs.pop_first();
                trees.kept.insert((*region, epoch), tree.clone());
            }
            tree.put_leaf(leaf, rows.map(|row| row.version), loader.contents(*region, &rows)?);
        }
        for epoch in epochs {
            trees.kept.insert((*region, epoch), tree.clone());
        }
        trees.current.insert(*region, tree);
    }
    Ok(trees)
}

/// Which rows of a region's leaves show at its newest epoch or at one that is kept.
struct Needed {
    rows: HashSet<(u64, u64)>,
    all: usize,
}

impl Needed {
    fn of(leaves: &[(u64, u64, [PageRow; FAN_OUT])], kept: &BTreeSet<u64>) -> Needed {
        let mut next: HashMap<u64, u64> = HashMap::new();
        let mut rows = HashSet::new();
        // From the newest on: a row shows up to the next one's epoch.
        for (written, leaf, _) in leaves.iter().rev() {
            let until = next.insert(*leaf, *written);
            if until.is_none_or(|until| kept.range(written..&until).next().is_some()) {
                rows.insert((*leaf, *written));
            }
        }
        let all = rows.len();
        Needed { rows, all }
    }

    fn has(&self, leaf: u64, written: u64) -> bool {
        self.rows.contains(&(leaf, written))
    }
}

fn damaged(what: &str) -> StoreError {
    StoreError::broken(format!("the index is damaged: {what}"))
}

/// Makes pages of rows: one of each slot, whoever names it.
struct Loader<'a> {
    pages: &'a Arc<Pages>,
    /// Slots that are known, if one may be named twice.
    shared: Option<HashMap<u64, Arc<Stored>>>,
}

impl Loader<'_> {
    fn contents(
        &mut self,
        region: RegionId,
        rows: &[PageRow; FAN_OUT],
    ) -> Result<[Option<Content>; FAN_OUT], StoreError> {
        let mut contents = [const { None }; FAN_OUT];
        for (content, row) in contents.iter_mut().zip(rows).filter(|(_, row)| row.slot != 0) {
            *content = Some(Content::Stored(self.stored(region, row)?));
        }
        Ok(contents)
    }

    fn stored(&mut self, region: RegionId, row: &PageRow) -> Result<Arc<Stored>, StoreError> {
        let wrong = || {
            let slot = row.slot;
            damaged(&format!("region {region} has a page in slot {slot}, which is another's or not there"))
        };
        if let Some(known) = self.shared.as_ref().and_then(|shared| shared.get(&row.slot)) {
            return if known.sum() == row.sum { Ok(Arc::clone(known)) } else { Err(wrong()) };
        }
        let stored = self.pages.known(row.slot, row.sum).ok_or_else(wrong)?;
        if let Some(shared) = &mut self.shared {
            shared.insert(row.slot, Arc::clone(&stored));
        }
        Ok(stored)
    }
}

#[cfg(test)]
#[path = "clone_tests.rs"]
mod clone_tests;
#[cfg(test)]
#[path = "snapshot_tests.rs"]
mod snapshot_tests;
#[cfg(test)]
#[path = "durable_tests.rs"]
mod tests;
