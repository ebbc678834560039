//! The store on a disk: pages in the slots of a file, and a transaction of the index for each commit.
//!
//! Owns: the order in which things reach the disk. Called by: commit and catalog through [`Store`], lib to open it. Must not: answer before
//! what it answers for is on the disk.
//!
//! A commit's pages are written into free slots; then they are synced; then the index names them, in one transaction; and then the commit
//! has happened. Commits that come while a transaction is under way share the next one, and its two syncs.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use netmem_protocol::{RegionId, StoreId};

use super::disk::Disk;
use super::index::{Attribute, CommitRows, Index, Names, PageRow, RegionRow, Update, encode_leaf};
use super::pages::{self, Pages};
use super::{Record, Store, StoreError};
use crate::content::Content;
use crate::region::Root;
use crate::tree::{FAN_OUT, Tree};

/// What a store holds when it is opened.
pub struct Loaded {
    /// Names, regions, and the last commits of clients.
    pub names: Names,
    /// The pages of each region that has some.
    pub trees: HashMap<RegionId, Tree>,
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
    /// Opens what is on a disk, or begins anew if nothing is. `id` is the identity of a new store.
    pub fn open(disk: Box<dyn Disk>, id: StoreId) -> Result<(Durable, Loaded), StoreError> {
        let new = !Index::is_there(&*disk);
        let pages = Pages::open(disk.open(pages::FILE)?, new)?;
        if new {
            // What a store begins with is there whole, or not at all.
            Index::make(&*disk, id)?;
        }
        let (index, id) = Index::open(&*disk)?;
        let loaded = Loaded { names: index.names()?, trees: load_trees(&index, &pages)? };
        let queue = Queue { transaction: index.transaction()?, ..Queue::default() };
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
    fn write_pages(&self, record: &mut Record<'_>) -> Result<(), StoreError> {
        let since = record.previous.0;
        let mut here = Vec::new();
        record.root.tree.changed_leaves(since, &mut |_, leaf| {
            here.extend(leaf.contents().iter().flatten().filter_map(|content| content.here().cloned()));
        });
        if here.is_empty() {
            return Ok(());
        }
        let mut stored = self.pages.write(&here)?.into_iter();
        record.root.tree.replace_changed(since, &mut |content| {
            if content.here().is_some()
                && let Some(stored) = stored.next()
            {
                *content = Content::Stored(stored);
            }
        });
        Ok(())
    }
}

impl Store for Durable {
    fn name(&self) -> &'static str {
        "disk"
    }

    fn id(&self) -> StoreId {
        self.id
    }

    fn commit(&self, record: &mut Record<'_>) -> Result<(), StoreError> {
        self.write_pages(record)?;
        let leaf_pages = FAN_OUT as u64;
        let tree = &record.root.tree;
        let mut leaves = Vec::new();
        // The leaf that the cut goes through has lost pages, and none of its versions says so.
        let through = record.cut.filter(|kept| kept % leaf_pages != 0).map(|kept| kept / leaf_pages);
        if let Some(leaf) = through {
            leaves.push((leaf, encode_leaf(&page_rows(tree, leaf))));
        }
        tree.changed_leaves(record.previous.0, &mut |leaf, _| {
            if Some(leaf) != through {
                leaves.push((leaf, encode_leaf(&page_rows(tree, leaf))));
            }
        });
        let rows = CommitRows {
            region: record.region,
            row: row_of(record.root),
            cut: record.cut.map(|kept| kept.div_ceil(leaf_pages)),
            leaves,
            applied: std::mem::take(&mut record.applied),
        };
        let attributes = vec![(record.region, Attribute::Modified, record.modified_ns)];
        self.submit(Update { commits: vec![rows], attributes, ..Update::default() })?;
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

/// A region's row.
pub fn row_of(root: &Root) -> RegionRow {
    RegionRow {
        size: root.size,
        epoch: root.epoch,
        cuts: root.cuts.iter().map(|cut| (cut.epoch, cut.kept, cut.before)).collect(),
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

fn load_trees(index: &Index, pages: &Arc<Pages>) -> Result<HashMap<RegionId, Tree>, StoreError> {
    let mut trees: HashMap<RegionId, Tree> = HashMap::new();
    index.leaves(|region, leaf, _, rows| {
        let mut contents = [const { None }; FAN_OUT];
        for (content, row) in contents.iter_mut().zip(rows).filter(|(_, row)| row.slot != 0) {
            let stored = pages.known(row.slot, row.sum).ok_or_else(|| {
                let text = format!(
                    "the index is damaged: region {region} has a page in slot {}, which is another's or not there",
                    row.slot
                );
                StoreError::broken(text)
            })?;
            *content = Some(Content::Stored(stored));
        }
        trees.entry(region).or_default().set_leaf(leaf, rows.map(|row| row.version), contents);
        Ok(())
    })?;
    Ok(trees)
}

#[cfg(test)]
#[path = "durable_tests.rs"]
mod tests;
