//! A server in memory, for the pager's tests.
//!
//! Owns: regions with all their epochs, merging commits, and failures on order. Called by: tests. Must not: know sockets; it
//! keeps to the contract of [`PageSource`], and what it merges is what the real server merges.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard};

use netmem_protocol::control::{Changes, Commit, Committed};
use netmem_protocol::{
    CommitId, Epoch, ErrorCode, PAGE_SIZE, PageBodyBuilder, PageIndex, PageSpan, RegionId, Run,
};

use super::{Applied, CommitBody, CommitFailure, PageSink, PageSource, RemoteError, StageSink, Why};

type Page = [u8; PAGE_SIZE];

/// When an ordered failure strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// The server never has the request.
    Before,
    /// The server carries it out, and the answer is lost.
    After,
}

/// The server.
#[derive(Debug, Default)]
pub struct FakeSource {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    regions: HashMap<RegionId, FakeRegion>,
    commits: u64,
    calls: u64,
    /// Calls until one fails, and how.
    failure: Option<(u64, When)>,
    /// See [`FakeSource::forget_commits`].
    forgets: bool,
    /// Where what is pending is, by region.
    pending: HashMap<RegionId, RegionId>,
}

#[derive(Clone, Debug)]
struct Snapshot {
    epoch: u64,
    size: u64,
    /// All others are zeros.
    pages: BTreeMap<u64, Box<Page>>,
    /// The epoch that last changed a page, where that is not the first one.
    versions: BTreeMap<u64, u64>,
}

#[derive(Debug)]
struct FakeRegion {
    /// Oldest first; at least one.
    snapshots: Vec<Snapshot>,
    outcomes: HashMap<CommitId, Committed>,
    viewed: u64,
}

impl FakeSource {
    /// A server without regions.
    pub fn new() -> Self {
        FakeSource::default()
    }

    /// Makes an empty region of `size` bytes, at epoch 1.
    pub fn create(&self, size: u64) -> RegionId {
        let mut state = self.state();
        let id = RegionId(state.regions.len() as u64 + 1);
        state.regions.insert(id, FakeRegion::empty(size));
        id
    }

    /// Commits as another host that has seen the newest epoch: `pages` whole, and the size if given.
    pub fn commit_as_other(&self, region: RegionId, pages: &[(u64, Page)], size: Option<u64>) -> Committed {
        let mut state = self.state();
        let id = state.next_commit();
        let region = state.regions.get_mut(&region).expect("no such region");
        let base = Epoch(region.newest().epoch);
        let staged = pages.iter().map(|(page, bytes)| (*page, Box::new(*bytes))).collect();
        let commit =
            Commit { commit: id, staged_pages: pages.len() as u64, base, strict: false, cut: None, size };
        region.commit(staged, &commit).expect("a commit on the newest epoch")
    }

    /// Cuts a region as another host would.
    pub fn resize_as_other(&self, region: RegionId, size: u64) -> Committed {
        let mut state = self.state();
        let id = state.next_commit();
        let region = state.regions.get_mut(&region).expect("no such region");
        let base = Epoch(region.newest().epoch);
        let commit =
            Commit { commit: id, staged_pages: 0, base, strict: false, cut: Some(size), size: Some(size) };
        region.commit(BTreeMap::new(), &commit).expect("a commit on the newest epoch")
    }

    /// Lets the call after the next `calls` calls fail, once. A loop over `calls` = 0, 1, 2, … until [`FakeSource::failed`] says no
    /// visits every place where a failure can strike.
    pub fn fail_after(&self, calls: u64, when: When) {
        self.state().failure = Some((calls, when));
    }

    /// From now on nobody is told what became of a commit, or everybody again.
    pub fn forget_commits(&self, forget: bool) {
        self.state().forgets = forget;
    }

    /// Whether the ordered failure has struck.
    pub fn failed(&self) -> bool {
        self.state().failure.is_none()
    }

    /// Calls of [`PageSource`] methods and stages so far.
    pub fn calls(&self) -> u64 {
        self.state().calls
    }

    /// A page at the newest epoch.
    pub fn page(&self, region: RegionId, page: u64) -> Page {
        self.state().regions.get(&region).map_or([0; PAGE_SIZE], |region| region.newest().page(page))
    }

    /// The newest epoch.
    pub fn epoch(&self, region: RegionId) -> Epoch {
        self.state().regions.get(&region).map_or(Epoch(0), |region| Epoch(region.newest().epoch))
    }

    /// The size at the newest epoch.
    pub fn size(&self, region: RegionId) -> u64 {
        self.state().regions.get(&region).map_or(0, |region| region.newest().size)
    }

    /// The epoch that the cache said it views.
    pub fn viewed(&self, region: RegionId) -> Epoch {
        self.state().regions.get(&region).map_or(Epoch(0), |region| Epoch(region.viewed))
    }

    /// Gives up every epoch but the newest, as a server does with views past their lease.
    pub fn drop_old_epochs(&self, region: RegionId) {
        if let Some(region) = self.state().regions.get_mut(&region) {
            let newest = region.snapshots.len() - 1;
            region.snapshots.drain(..newest);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Counts a call; the failure that strikes it, if one does.
    fn strike(&self) -> Option<When> {
        let mut state = self.state();
        state.calls += 1;
        match state.failure {
            Some((0, when)) => {
                state.failure = None;
                Some(when)
            }
            Some((calls, when)) => {
                state.failure = Some((calls - 1, when));
                None
            }
            None => None,
        }
    }

    /// Makes a call of the kind that may fail before or after.
    fn call<T>(&self, work: impl FnOnce(&mut State) -> Result<T, RemoteError>) -> Result<T, RemoteError> {
        match self.strike() {
            Some(When::Before) => Err(lost(Applied::No)),
            Some(When::After) => {
                let outcome = work(&mut self.state());
                outcome.and(Err(lost(Applied::Maybe)))
            }
            None => work(&mut self.state()),
        }
    }
}

impl State {
    fn next_commit(&mut self) -> CommitId {
        self.commits += 1;
        CommitId(self.commits)
    }

    fn region(&mut self, region: RegionId) -> Result<&mut FakeRegion, RemoteError> {
        self.regions.get_mut(&region).ok_or_else(|| refused(ErrorCode::NotFound, "no such region"))
    }
}

impl PageSource for FakeSource {
    fn fetch(
        &self,
        region: RegionId,
        epoch: Epoch,
        runs: &[Run],
        sink: &mut PageSink<'_>,
    ) -> Result<(), RemoteError> {
        let (pages, lost) = match self.strike() {
            Some(When::Before) => return Err(lost(Applied::No)),
            strike => (self.state().region(region)?.at(epoch)?.clone(), strike),
        };
        // Without the lock: the sink may ask for more.
        for run in runs {
            let all: Vec<_> = (run.first.0..run.end()).map(|page| (page, pages.pages.get(&page))).collect();
            for alike in all.chunk_by(|one, next| one.1.is_some() == next.1.is_some()) {
                let bytes: Vec<u8> =
                    alike.iter().flat_map(|(_, page)| *page).flat_map(|page| **page).collect();
                let run = Run::new(alike[0].0, alike.len() as u32);
                sink(PageSpan { run, data: alike[0].1.is_some().then_some(&bytes[..]), sums: &[] }, false);
            }
        }
        lost.map_or(Ok(()), |_| Err(self::lost(Applied::Maybe)))
    }

    fn changes(&self, region: RegionId, epoch: Epoch, until: Epoch) -> Result<Changes, RemoteError> {
        self.call(|state| state.region(region)?.changes(epoch, until))
    }

    fn view(&self, region: RegionId, epoch: Epoch) -> Result<(), RemoteError> {
        self.call(|state| {
            let region = state.region(region)?;
            region.at(epoch)?;
            region.viewed = epoch.0;
            Ok(())
        })
    }

    fn commit(&self, body: &mut CommitBody<'_>) -> Result<Vec<Committed>, CommitFailure> {
        let id = self.state().next_commit();
        let mut stage = FakeStage { source: self, id, staged: BTreeMap::new() };
        let failure = |error, applied| CommitFailure { error, id, applied };
        let mut parts = body(&mut stage).map_err(|error| failure(error, Applied::No))?;
        let strike = self.strike();
        if strike == Some(When::Before) {
            return Err(failure(lost(Applied::No), Applied::No));
        }
        let outcome = self.state().commit(&mut parts, id, stage.staged);
        match (outcome, strike) {
            (Err(error), _) => Err(failure(error, Applied::No)),
            (Ok(_), Some(_)) => Err(failure(lost(Applied::Maybe), Applied::Maybe)),
            (Ok(done), None) => Ok(done),
        }
    }

    fn keep(&self, of: RegionId, known: RegionId) -> Result<(RegionId, Epoch), RemoteError> {
        self.call(|state| {
            let next = RegionId(state.regions.len() as u64 + 1);
            let place = *state.pending.entry(of).or_insert(next);
            assert!(known == RegionId(0) || known == place, "what is pending was somewhere else");
            let epoch = state.regions.entry(place).or_insert_with(|| FakeRegion::empty(0)).newest().epoch;
            Ok((place, Epoch(epoch)))
        })
    }

    fn keeps(&self, _: RegionId, _: RegionId) {}

    fn commit_status(&self, region: RegionId, commit: CommitId) -> Result<Committed, RemoteError> {
        if self.state().forgets {
            return Err(lost(Applied::No));
        }
        self.call(|state| {
            let outcome = state.region(region)?.outcomes.get(&commit).copied();
            outcome.ok_or_else(|| refused(ErrorCode::NotFound, "no such commit"))
        })
    }
}

struct FakeStage<'a> {
    source: &'a FakeSource,
    id: CommitId,
    staged: BTreeMap<RegionId, BTreeMap<u64, Box<Page>>>,
}

impl StageSink for FakeStage<'_> {
    fn stage(&mut self, region: RegionId, builder: &PageBodyBuilder, data: &[u8]) -> Result<(), RemoteError> {
        if self.source.strike().is_some() {
            return Err(lost(Applied::No));
        }
        let mut whole = Vec::new();
        builder.encode_front(self.id, &mut whole);
        whole.extend_from_slice(data);
        let body = netmem_protocol::PageBody::parse(&whole, false)
            .map_err(|error| refused(ErrorCode::Malformed, &error.to_string()))?;
        let pages = body.pages();
        let pages = pages.map(|(page, content)| (page, Box::new(content.copied().unwrap_or([0; PAGE_SIZE]))));
        self.staged.entry(region).or_default().extend(pages);
        Ok(())
    }

    fn stage_from(&mut self, region: RegionId, from: RegionId, runs: &[Run]) -> Result<(), RemoteError> {
        if self.source.strike().is_some() {
            return Err(lost(Applied::No));
        }
        let mut state = self.source.state();
        let newest = state.region(from)?.newest();
        let pages = runs.iter().flat_map(|run| run.first.0..run.end());
        let pages: Vec<_> = pages.map(|page| (page, Box::new(newest.page(page)))).collect();
        drop(state);
        self.staged.entry(region).or_default().extend(pages);
        Ok(())
    }

    fn id(&self) -> CommitId {
        self.id
    }
}

impl Snapshot {
    fn page(&self, page: u64) -> Page {
        self.pages.get(&page).map_or([0; PAGE_SIZE], |bytes| **bytes)
    }

    fn set(&mut self, page: u64, bytes: Page) {
        self.versions.insert(page, self.epoch);
        if bytes == [0; PAGE_SIZE] {
            self.pages.remove(&page);
        } else {
            self.pages.insert(page, Box::new(bytes));
        }
    }

    /// Makes everything at and behind a byte zeros.
    fn cut(&mut self, at: u64) {
        let behind: Vec<u64> = self.pages.range(at / PAGE_SIZE as u64..).map(|(page, _)| *page).collect();
        for page in behind {
            let kept = kept_of(page, Some(at));
            let mut bytes = self.page(page);
            if bytes[kept..].iter().any(|byte| *byte != 0) {
                bytes[kept..].fill(0);
                self.set(page, bytes);
            }
        }
    }
}

/// Bytes of a page before a cut.
fn kept_of(page: u64, cut: Option<u64>) -> usize {
    cut.map_or(PAGE_SIZE, |cut| cut.saturating_sub(PageIndex(page).offset()).min(PAGE_SIZE as u64) as usize)
}

impl State {
    /// All of it, or nothing.
    fn commit(
        &mut self,
        parts: &mut [(RegionId, Commit)],
        id: CommitId,
        mut staged: BTreeMap<RegionId, BTreeMap<u64, Box<Page>>>,
    ) -> Result<Vec<Committed>, RemoteError> {
        let mut done: Vec<(RegionId, Committed)> = Vec::new();
        for (region, commit) in parts {
            let staged = staged.remove(region).unwrap_or_default();
            (commit.commit, commit.staged_pages) = (id, staged.len() as u64);
            match self.region(*region).and_then(|region| region.commit(staged, commit)) {
                Ok(committed) => done.push((*region, committed)),
                Err(error) => {
                    for (region, committed) in done {
                        let region = self.region(region)?;
                        region.outcomes.remove(&id);
                        region.snapshots.retain(|snapshot| snapshot.epoch <= committed.previous.0);
                    }
                    return Err(error);
                }
            }
        }
        Ok(done.into_iter().map(|(_, committed)| committed).collect())
    }
}

impl FakeRegion {
    fn empty(size: u64) -> Self {
        let first = Snapshot { epoch: 1, size, pages: BTreeMap::new(), versions: BTreeMap::new() };
        FakeRegion { snapshots: vec![first], outcomes: HashMap::new(), viewed: 1 }
    }

    fn newest(&self) -> &Snapshot {
        self.snapshots.last().expect("a region has an epoch")
    }

    fn at(&self, epoch: Epoch) -> Result<&Snapshot, RemoteError> {
        let found = self.snapshots.iter().find(|snapshot| snapshot.epoch == epoch.0);
        let found = found.or_else(|| (epoch.0 == 0).then(|| self.newest()));
        found.ok_or_else(|| refused(ErrorCode::Stale, "that epoch is gone"))
    }

    fn changes(&self, since: Epoch, until: Epoch) -> Result<Changes, RemoteError> {
        let newest = if until.0 == 0 { self.newest() } else { self.at(until)? };
        let mut runs: Vec<Run> = Vec::new();
        for (&page, &version) in &newest.versions {
            match runs.last_mut() {
                _ if version <= since.0 => {}
                Some(last) if last.end() == page => last.count += 1,
                _ => runs.push(Run::new(page, 1)),
            }
        }
        Ok(Changes { epoch: Epoch(newest.epoch), size: newest.size, runs, base_kept: self.at(since).is_ok() })
    }

    /// Cut, pages, size, in this order; pages that another commit changed since the base are merged byte by byte.
    fn commit(
        &mut self,
        staged: BTreeMap<u64, Box<Page>>,
        commit: &Commit,
    ) -> Result<Committed, RemoteError> {
        let current = self.newest();
        let previous = Epoch(current.epoch);
        let staged_end = staged.keys().next_back().map_or(0, |page| PageIndex(page + 1).offset());
        let others = commit.base != previous && commit.cut.is_none();
        let least = if others || commit.size.is_none() { current.size } else { 0 };
        let size = commit.size.unwrap_or(staged_end).max(least);
        let cut = commit.cut.filter(|cut| *cut < current.size);
        let mut committed = Committed { epoch: previous, previous, size };
        if !staged.is_empty() || cut.is_some() || size != current.size {
            let next = self.build(&staged, commit, cut, size)?;
            committed.epoch = Epoch(next.epoch);
            self.snapshots.push(next);
        }
        self.outcomes.insert(commit.commit, committed);
        Ok(committed)
    }

    fn build(
        &self,
        staged: &BTreeMap<u64, Box<Page>>,
        commit: &Commit,
        cut: Option<u64>,
        size: u64,
    ) -> Result<Snapshot, RemoteError> {
        let mut next = self.newest().clone();
        next.epoch += 1;
        if let Some(cut) = cut {
            next.cut(cut);
        }
        for (page, mine) in staged.iter().filter(|(page, _)| PageIndex(**page).offset() < size) {
            let others = self.newest().versions.get(page).is_some_and(|version| *version > commit.base.0);
            if others && commit.strict {
                return Err(refused(ErrorCode::Stale, "another host changed a page"));
            }
            let kept = kept_of(*page, cut);
            if others && kept > 0 {
                let mut base = self.at(commit.base)?.page(*page);
                base[kept..].fill(0);
                let theirs = next.page(*page);
                let byte = |at: usize| if mine[at] == base[at] { theirs[at] } else { mine[at] };
                next.set(*page, core::array::from_fn(byte));
            } else {
                next.set(*page, **mine);
            }
        }
        next.cut(size);
        next.size = size;
        Ok(next)
    }
}

fn lost(answered: Applied) -> RemoteError {
    RemoteError::Lost { server: "fake:".into(), why: Why::Closed, answered }
}

fn refused(code: ErrorCode, text: &str) -> RemoteError {
    RemoteError::Answer { code, text: text.to_owned() }
}

#[cfg(test)]
#[path = "fake_tests.rs"]
mod tests;
