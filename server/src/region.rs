//! A region: its current root, the roots that views keep, and the commits it has applied.
//!
//! Owns: one region's state and its two locks. Called by: requests, catalog. Must not: know names, sockets or frames.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{SystemTime, UNIX_EPOCH};

use netmem_protocol::control::{Changes, Committed, Entry, EntryKind};
use netmem_protocol::{CHANGES_RUNS_MAX, CacheId, ClientId, CommitId, Epoch, ErrorCode, PageIndex, RegionId};

use crate::changes::{Cut, changed_runs, cut_epoch};
use crate::history::History;
use crate::reaper::Reaper;
use crate::refusal::{Answer, Refusal};
use crate::stats::Counts;
use crate::store::rows::{Ended, RegionRow};
use crate::tree::Tree;
use crate::views::Views;

/// Applied commits that are remembered for a client, so that a repeated one is answered and not applied again.
pub const APPLIED_MAX: usize = 8;
/// Clients whose applied commits a region remembers.
pub const APPLIED_CLIENTS_MAX: usize = 1024;

/// Permission bits that a snapshot keeps.
const READ_BITS: u32 = 0o444;

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub struct Who {
    /// The process.
    pub client: ClientId,
    /// The page cache it works on.
    pub cache: CacheId,
}

/// A region at one epoch. It never changes.
pub struct Root {
    /// The epoch.
    pub epoch: u64,
    /// Bytes.
    pub size: u64,
    /// Its pages. Nothing at or behind `size` is anything but zeros.
    pub tree: Tree,
    /// Cuts so far.
    pub cuts: Arc<[Cut]>,
    /// Takes the tree apart.
    pub reaper: Reaper,
}

impl Root {
    /// Pages that `size` bytes take.
    pub fn pages(&self) -> u64 {
        PageIndex::ceil(self.size).0
    }

    /// The epoch that last changed a page, be it by cutting it away.
    pub fn version(&self, page: u64) -> u64 {
        self.tree.version(page).max(cut_epoch(&self.cuts, page))
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        self.reaper.drop_tree(std::mem::take(&mut self.tree));
    }
}

/// The commits that were applied, by client.
#[derive(Default)]
pub struct Applied {
    clients: HashMap<ClientId, Ends>,
    /// Counts up with every commit, to find the client that committed longest ago.
    clock: u64,
    /// The newest epoch that each page cache made.
    caches: HashMap<CacheId, u64>,
}

/// How one client's commits ended.
#[derive(Default)]
struct Ends {
    /// The clock at the last of them.
    when: u64,
    /// The last ones that were applied.
    commits: VecDeque<(CommitId, Committed)>,
    /// The client was told that a commit was not applied: neither it nor one before it may be applied any more.
    settled: CommitId,
}

impl Applied {
    /// How the commit ended, if it was applied.
    pub fn find(&self, client: ClientId, commit: CommitId) -> Option<Committed> {
        let ends = self.clients.get(&client)?;
        ends.commits.iter().find(|(id, _)| *id == commit).map(|(_, committed)| *committed)
    }

    /// Whether a commit that is not found is none any more: the client was told so, or has had a later one applied. Its numbers only grow,
    /// and in a region it commits one at a time; so one that comes behind a later one was applied and is forgotten, or was given up.
    pub fn is_settled(&self, client: ClientId, commit: CommitId) -> bool {
        let later = |ends: &Ends| ends.commits.iter().any(|(applied, _)| commit < *applied);
        self.clients.get(&client).is_some_and(|ends| commit <= ends.settled || later(ends))
    }

    /// Remembers a commit.
    pub fn add(&mut self, client: ClientId, commit: CommitId, committed: Committed) {
        let commits = &mut self.ends(client).commits;
        if commits.len() >= APPLIED_MAX {
            commits.pop_front();
        }
        commits.push_back((commit, committed));
    }

    /// How a client's last commits ended, if this one is added.
    pub fn with(&self, client: ClientId, commit: CommitId, committed: Committed) -> Ended {
        let before = self.clients.get(&client).map(|ends| &ends.commits);
        let skip = before.map_or(0, |commits| (commits.len() + 1).saturating_sub(APPLIED_MAX));
        let before = before.into_iter().flatten().skip(skip).copied();
        before.chain([(commit, committed)]).collect()
    }

    /// The client that is forgotten if this one is remembered.
    pub fn forgotten_for(&self, client: ClientId) -> Option<ClientId> {
        if self.clients.contains_key(&client) || self.clients.len() < APPLIED_CLIENTS_MAX {
            return None;
        }
        self.clients.iter().min_by_key(|(_, ends)| ends.when).map(|(id, _)| *id)
    }

    /// Remembers that the client is told that a commit was not applied.
    pub fn settle(&mut self, client: ClientId, commit: CommitId) {
        let settled = &mut self.ends(client).settled;
        *settled = (*settled).max(commit);
    }

    /// The newest epoch that a page cache made, as far as that is remembered.
    pub fn newest_of(&self, cache: CacheId) -> u64 {
        self.caches.get(&cache).copied().unwrap_or(0)
    }

    /// Remembers that a page cache made an epoch.
    pub fn made(&mut self, cache: CacheId, epoch: u64) {
        if let Some(oldest) = self.cache_forgotten_for(cache) {
            self.caches.remove(&oldest);
        }
        self.caches.insert(cache, epoch);
    }

    /// The page cache that is forgotten if this one is remembered.
    pub fn cache_forgotten_for(&self, cache: CacheId) -> Option<CacheId> {
        if self.caches.contains_key(&cache) || self.caches.len() < APPLIED_CLIENTS_MAX {
            return None;
        }
        self.caches.iter().min_by_key(|(_, epoch)| **epoch).map(|(id, _)| *id)
    }

    fn ends(&mut self, client: ClientId) -> &mut Ends {
        self.clock += 1;
        if let Some(oldest) = self.forgotten_for(client) {
            self.clients.remove(&oldest);
        }
        let ends = self.clients.entry(client).or_default();
        ends.when = self.clock;
        ends
    }
}

/// A region.
pub struct Region {
    /// Its number.
    pub id: RegionId,
    /// What was served of it.
    pub counts: Counts,
    mode: AtomicU32,
    modified_ns: AtomicU64,
    /// Held by one commit at a time, from start to end. Lock order: first of all.
    turn: Mutex<Applied>,
    /// A snapshot: it never changes.
    frozen: bool,
    /// It is there for its clones alone.
    ended: AtomicBool,
    /// The region and the epoch that this one began as, where the store keeps of a clone what differs. Changed with the turn held. Lock
    /// order: a leaf.
    origin: Mutex<Option<(RegionId, u64)>>,
    /// Lock order: after `turn`, before `views`.
    history: Mutex<History>,
    /// Held for a few pointer moves. Readers take it. Lock order: after everything but the slabs'.
    views: Mutex<Views>,
}

impl Region {
    /// A region of `size` bytes of zeros, at epoch 1.
    pub fn new(id: RegionId, mode: u32, size: u64, reaper: Reaper) -> Self {
        let root = Root { epoch: 1, size, tree: Tree::default(), cuts: Arc::new([]), reaper };
        let region = Self::of(id, Arc::new(root), None, false);
        region.set_attributes(Some(mode), Some(now_ns()));
        region
    }

    /// A region that begins as another one is, or was. `origin` says which, if the store has to know.
    pub fn clone_of(id: RegionId, mode: u32, root: &Root, origin: Option<(RegionId, u64)>) -> Self {
        let (tree, cuts) = (root.tree.clone(), Arc::clone(&root.cuts));
        let same = Root { epoch: root.epoch, size: root.size, tree, cuts, reaper: root.reaper.clone() };
        let region = Self::of(id, Arc::new(same), origin, false);
        region.set_attributes(Some(mode), Some(now_ns()));
        region
    }

    /// What shows a snapshot.
    pub fn frozen(id: RegionId, root: Arc<Root>, mode: u32, made_ns: u64) -> Self {
        let region = Self::of(id, root, None, true);
        region.set_attributes(Some(mode & READ_BITS), Some(made_ns));
        region
    }

    /// A region as a store kept it, but for its attributes and the commits that it remembers.
    pub fn restored(id: RegionId, row: &RegionRow, tree: Tree, reaper: Reaper) -> Self {
        let cuts = row.cuts.iter().map(|&(epoch, kept, before)| Cut { epoch, kept, before }).collect();
        let root = Root { epoch: row.epoch, size: row.size, tree, cuts, reaper };
        let origin = row.origin.map(|(parent, epoch)| (RegionId(parent), epoch));
        Self::of(id, Arc::new(root), origin, false)
    }

    fn of(id: RegionId, root: Arc<Root>, origin: Option<(RegionId, u64)>, frozen: bool) -> Self {
        Region {
            id,
            counts: Counts::default(),
            mode: AtomicU32::new(0),
            modified_ns: AtomicU64::new(0),
            turn: Mutex::default(),
            frozen,
            ended: AtomicBool::new(false),
            origin: Mutex::new(origin),
            history: Mutex::default(),
            views: Mutex::new(Views::new(root)),
        }
    }

    /// An older epoch of it, as a store kept it.
    pub fn as_it_was(&self, epoch: u64, size: u64, tree: Tree) -> Root {
        let now = Arc::clone(self.views().current());
        let cuts = now.cuts.iter().copied().filter(|cut| cut.epoch <= epoch).collect();
        Root { epoch, size, tree, cuts, reaper: now.reaper.clone() }
    }

    /// Whether it is a snapshot.
    pub fn is_frozen(&self) -> bool {
        self.frozen
    }

    /// Whether a commit can be applied. The caller has its turn.
    pub(crate) fn may_change(&self) -> Answer<()> {
        if self.has_ended() {
            let text = format!("region {}: nobody holds it any more, and it has ended", self.id);
            return Err(Refusal::new(ErrorCode::NotFound, text));
        }
        if self.frozen {
            let text = format!("region {} is a snapshot, which does not change; clone it", self.id);
            return Err(Refusal::new(ErrorCode::ReadOnly, text));
        }
        Ok(())
    }

    /// Whether it is there for its clones alone: nobody comes to it by its number any more.
    pub fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    /// Says so, or that somebody holds it after all.
    pub fn set_ended(&self, ended: bool) {
        self.ended.store(ended, Ordering::Relaxed);
    }

    /// The region and the epoch that it began as, if the store keeps what differs.
    pub fn origin(&self) -> Option<(RegionId, u64)> {
        *self.origin.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on it is as if it had begun so. The caller has its turn.
    pub fn set_origin(&self, origin: Option<(RegionId, u64)>) {
        *self.origin.lock().unwrap_or_else(PoisonError::into_inner) = origin;
    }

    /// What it was.
    pub fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its row in a store.
    pub fn row(&self, root: &Root) -> RegionRow {
        RegionRow {
            size: root.size,
            epoch: root.epoch,
            cuts: root.cuts.iter().map(|cut| (cut.epoch, cut.kept, cut.before)).collect(),
            origin: self.origin().map(|(parent, epoch)| (parent.0, epoch)),
        }
    }

    /// Remembers commits that a store kept.
    pub fn remember(&self, client: ClientId, ended: &Ended) {
        let mut turn = self.turn();
        for (commit, committed) in ended {
            turn.add(client, *commit, *committed);
        }
    }

    /// Permission bits, and nanoseconds since 1970.
    pub fn attributes(&self) -> (u32, u64) {
        (self.mode.load(Ordering::Relaxed), self.modified_ns.load(Ordering::Relaxed))
    }

    /// The roots. For a few pointer moves only.
    pub fn views(&self) -> MutexGuard<'_, Views> {
        self.views.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The right to commit.
    pub(crate) fn turn(&self) -> MutexGuard<'_, Applied> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The right to commit, if nobody has it: for those who must not wait for a commit that is under way.
    pub(crate) fn try_turn(&self) -> Option<MutexGuard<'_, Applied>> {
        match self.turn.try_lock() {
            Ok(turn) => Some(turn),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// The region at an epoch, to read from. Epoch 0 is the current one.
    pub fn root(&self, epoch: Epoch) -> Answer<Arc<Root>> {
        let (viewed, current) = {
            let views = self.views();
            (views.at(epoch.0).cloned(), views.current().epoch)
        };
        // A host's view outlives a restart of the server if its epoch is kept.
        viewed.or_else(|| self.history().root(epoch.0).cloned()).ok_or_else(|| self.stale(epoch, current))
    }

    pub(crate) fn stale(&self, epoch: Epoch, current: u64) -> Refusal {
        let text = format!(
            "region {}: epoch {epoch} is not kept any more, the newest is {current}; refresh the view",
            self.id
        );
        Refusal::new(ErrorCode::Stale, text)
    }

    /// What the region is now.
    pub fn entry(&self) -> Entry {
        let root = Arc::clone(self.views().current());
        self.entry_at(&root)
    }

    /// What the region is now, keeping that epoch for the cache.
    pub fn open_entry(&self, cache: CacheId) -> Entry {
        let mut views = self.views();
        let root = Arc::clone(views.current());
        views.pin(cache, root.epoch);
        drop(views);
        self.entry_at(&root)
    }

    fn entry_at(&self, root: &Root) -> Entry {
        Entry {
            kind: if self.frozen { EntryKind::Snapshot } else { EntryKind::Region },
            region: self.id,
            size: root.size,
            epoch: Epoch(root.epoch),
            mode: self.mode.load(Ordering::Relaxed),
            modified_ns: self.modified_ns.load(Ordering::Relaxed),
            stored_pages: root.tree.stored(),
            created: false,
            // The catalog knows.
            links: 0,
            target: Vec::new(),
        }
    }

    /// Sets permission bits and the modification time.
    pub fn set_attributes(&self, mode: Option<u32>, modified_ns: Option<u64>) {
        if let Some(mode) = mode {
            self.mode.store(mode, Ordering::Relaxed);
        }
        if let Some(modified_ns) = modified_ns {
            self.modified_ns.store(modified_ns, Ordering::Relaxed);
        }
    }

    /// The content has changed.
    pub(crate) fn touch(&self, modified_ns: u64) {
        self.modified_ns.store(modified_ns, Ordering::Relaxed);
    }

    /// How a commit ended. Waits for one that is under way. One that is still on its way, on a connection that its client has given
    /// up, is not applied any more after this has denied it: the client commits the same pages anew, and newer ones after them.
    pub fn commit_status(&self, client: ClientId, commit: CommitId) -> Answer<Committed> {
        let mut turn = self.turn();
        turn.find(client, commit).ok_or_else(|| {
            turn.settle(client, commit);
            let text = format!(
                "region {}: commit {commit} was not applied; send it again, under another number",
                self.id
            );
            Refusal::new(ErrorCode::NotFound, text)
        })
    }

    /// What changed since an epoch, which need not be kept, until another, which must be; 0: the current one. The cache keeps both from
    /// here on.
    pub fn changes(&self, cache: CacheId, since: Epoch, until: Epoch) -> Answer<Changes> {
        let mut views = self.views();
        let current = views.current().epoch;
        let root = views.at(until.0).cloned().ok_or_else(|| self.stale(until, current))?;
        if since.0 > root.epoch {
            return Err(self.stale(since, root.epoch));
        }
        let base_kept = since.0 != 0 && views.at(since.0).is_some();
        views.asked_from(cache, since.0);
        drop(views);
        let runs = changed_runs(&root.tree, &root.cuts, root.pages(), since.0, CHANGES_RUNS_MAX);
        Ok(Changes { epoch: Epoch(root.epoch), size: root.size, runs, base_kept })
    }

    /// The cache has moved to an epoch.
    pub fn view(&self, cache: CacheId, epoch: Epoch) -> Answer<()> {
        let mut views = self.views();
        let current = views.current().epoch;
        if epoch.0 > current {
            return Err(self.stale(epoch, current));
        }
        let epoch = if epoch.0 == 0 { current } else { epoch.0 };
        views.moved_to(cache, epoch);
        Ok(())
    }
}

/// Nanoseconds since 1970; 0 on a clock before that.
pub fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_commits_of_the_last_clients_are_remembered_and_no_more() {
        let mut applied = Applied::default();
        let committed = |epoch| Committed { epoch: Epoch(epoch), previous: Epoch(epoch - 1), size: 0 };
        let client = |number: u64| {
            let mut id = [0; 16];
            id[..8].copy_from_slice(&number.to_le_bytes());
            ClientId(id)
        };
        for commit in 1..=APPLIED_MAX as u64 + 1 {
            applied.add(client(0), CommitId(commit), committed(commit + 1));
        }
        assert_eq!(applied.find(client(0), CommitId(1)), None);
        assert_eq!(applied.find(client(0), CommitId(2)), Some(committed(3)));
        assert!(applied.is_settled(client(0), CommitId(1)), "it is forgotten, and others came after it");
        let next = CommitId(APPLIED_MAX as u64 + 2);
        assert!(!applied.is_settled(client(0), next) && !applied.is_settled(client(1), CommitId(1)));
        for number in 1..APPLIED_CLIENTS_MAX as u64 {
            applied.add(client(number), CommitId(1), committed(2));
        }
        applied.add(client(0), CommitId(99), committed(9));
        applied.add(client(5000), CommitId(1), committed(2));
        assert_eq!(applied.find(client(0), CommitId(99)), Some(committed(9)), "it committed a moment ago");
        assert_eq!(applied.find(client(1), CommitId(1)), None, "its commit was the longest ago");
        assert_eq!(applied.clients.len(), APPLIED_CLIENTS_MAX);
    }
}
