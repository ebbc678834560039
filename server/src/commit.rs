//! How a commit becomes a new root: cut, then the staged pages (merged where others were first), then the size.
//!
//! Owns: the order of those steps. Called by: requests. Must not: change anything that a reader can see before the store
//! has taken the commit.

use std::sync::Arc;

use netmem_protocol::control::{self, Committed};
use netmem_protocol::{ClientId, CommitId, Epoch, ErrorCode, PAGE_SIZE, PageIndex};

use crate::changes::{Cut, with_cut};
use crate::content::Content;
use crate::history::LogRow;
use crate::memory::Memory;
use crate::refusal::{Answer, Refusal};
use crate::region::{Applied, Region, Root, Who, now_ns};
use crate::slab::{PageBytes, PageRef, is_zero};
use crate::staging::Staged;
use crate::stats::Counts;
use crate::store::rows::{Ended, Update};
use crate::store::{Record, Store};
use crate::tree::Tree;

const PAGE: u64 = PAGE_SIZE as u64;
const ZEROS: PageBytes = [0; PAGE_SIZE];

/// What a commit needs besides its region.
pub struct Commits<'a> {
    /// Where pages come from.
    pub memory: &'a Memory,
    /// Where commits go.
    pub store: &'a dyn Store,
    /// What counts a commit besides its region.
    pub counts: [&'a Counts; 2],
    /// Bytes allowed in a region.
    pub region_bytes_max: u64,
    /// Epochs before the newest that stay readable.
    pub keep_epochs: usize,
}

/// What a commit changes.
struct Change<'a> {
    base: u64,
    strict: bool,
    cut: Option<u64>,
    size: Option<u64>,
    staged: &'a [Staged],
    /// Its client and number, and the commits that are remembered; `None` of one that has no number.
    identity: Option<(ClientId, CommitId, &'a Applied)>,
}

impl Change<'_> {
    /// The size that it leaves. Who did not make the region shorter since the base wants it at least as long as he says: what another
    /// made longer meanwhile stays, as the pages do that another changed.
    fn size_after(&self, current: &Root) -> u64 {
        match self.size {
            Some(size) if self.cut.is_none() && self.base != current.epoch => size.max(current.size),
            Some(size) => size,
            None => staged_size(current.size, self.staged),
        }
    }

    /// What a store has to remember of clients' commits: those of this one's client, and that another is forgotten.
    fn remembered(&self, committed: Committed) -> Vec<(ClientId, Option<Ended>)> {
        let Some((client, commit, applied)) = self.identity else { return Vec::new() };
        let ended = applied.with(client, commit, committed);
        let forgotten = applied.forgotten_for(client).map(|forgotten| (forgotten, None));
        forgotten.into_iter().chain([(client, Some(ended))]).collect()
    }
}

impl Commits<'_> {
    /// Applies a commit, once for each id.
    pub fn commit(
        &self,
        region: &Region,
        who: Who,
        request: &control::Commit,
        staged: &[Staged],
    ) -> Answer<Committed> {
        let mut applied = region.turn();
        if let Some(committed) = applied.find(who.client, request.commit) {
            return Ok(committed);
        }
        if applied.is_settled(who.client, request.commit) {
            let text = format!(
                "region {}: commit {} comes too late: its client was told that it was not applied",
                region.id, request.commit
            );
            return Err(Refusal::new(ErrorCode::Stale, text));
        }
        let newest = applied.newest_of(who.cache);
        if (1..newest).contains(&request.base.0) {
            // The processes of a host commit one after the other, each on the last. This one's is gone, and its commit was on the way.
            let text = format!(
                "region {}: base {} is older than epoch {newest}, which the same page cache made; refresh, and commit again",
                region.id, request.base
            );
            return Err(Refusal::new(ErrorCode::Stale, text));
        }
        let change = Change {
            base: request.base.0,
            strict: request.strict,
            cut: request.cut,
            size: request.size,
            staged,
            identity: Some((who.client, request.commit, &applied)),
        };
        let committed = self.apply(region, who, &change, true)?;
        applied.add(who.client, request.commit, committed);
        if committed.epoch != committed.previous {
            applied.made(who.cache, committed.epoch.0);
        }
        Ok(committed)
    }

    /// Sets the size, as a commit of its own.
    pub fn resize(&self, region: &Region, who: Who, size: u64) -> Answer<Committed> {
        let turn = region.turn();
        let base = region.views().current().epoch;
        let change = Change { base, strict: false, cut: None, size: Some(size), staged: &[], identity: None };
        let committed = self.apply(region, who, &change, false);
        drop(turn);
        committed
    }

    /// The caller holds the region's turn. `moves` says whether the cache's view moves on from `base`.
    fn apply(&self, region: &Region, who: Who, change: &Change<'_>, moves: bool) -> Answer<Committed> {
        if region.is_frozen() {
            let text = format!("region {} is a snapshot, which does not change; clone it", region.id);
            return Err(Refusal::new(ErrorCode::ReadOnly, text));
        }
        let (current, base) = {
            let views = region.views();
            (
                Arc::clone(views.current()),
                (change.base != 0).then(|| views.at(change.base).cloned()).flatten(),
            )
        };
        let base = base.or_else(|| region.history().root(change.base).cloned());
        if change.base > current.epoch {
            let text = format!(
                "region {}: base {} is behind the newest epoch {}",
                region.id, change.base, current.epoch
            );
            return Err(Refusal::new(ErrorCode::Invalid, text));
        }
        let size = change.size_after(&current);
        if size > self.region_bytes_max {
            let text = format!(
                "region {}: {size} bytes are more than the {} that this server allows (--max-region)",
                region.id, self.region_bytes_max
            );
            return Err(Refusal::new(ErrorCode::TooLarge, text));
        }
        let cut = change.cut.filter(|cut| *cut < current.size);
        if change.staged.is_empty() && cut.is_none() && size == current.size {
            region.views().pin(who.cache, current.epoch);
            let epoch = Epoch(current.epoch);
            return Ok(Committed { epoch, previous: epoch, size });
        }
        let build = Build { region, memory: self.memory, current: &current, base: base.as_deref(), change };
        let root = build.root(cut, size)?;
        self.publish(region, who, &current, root, change, moves)
    }

    fn publish(
        &self,
        region: &Region,
        who: Who,
        current: &Arc<Root>,
        mut root: Root,
        change: &Change<'_>,
        moves: bool,
    ) -> Answer<Committed> {
        let cut = root.cuts.last().filter(|cut| cut.epoch == root.epoch).map(|cut| cut.kept);
        let previous = Epoch(current.epoch);
        let committed = Committed { epoch: Epoch(root.epoch), previous, size: root.size };
        let modified_ns = now_ns();
        let applied = change.remembered(committed);
        let pages = change.staged.iter().map(Staged::pages).sum();
        let log = LogRow { epoch: root.epoch, when_ns: modified_ns, pages, size: root.size };
        let mut record = Record {
            region: region.id,
            root: &mut root,
            of: region,
            before: current,
            previous,
            cut,
            modified_ns,
            applied,
            kept: self.kept(region, current.epoch),
            log,
        };
        self.store.commit(&mut record).map_err(|error| {
            let text = format!(
                "region {}: the store did not take the commit ({error}); nothing was changed",
                region.id
            );
            Refusal::new(error.code(), text)
        })?;
        region.touch(modified_ns);
        let mut history = region.history();
        history.note(log);
        let pruned = history.replaced(current, self.keep_epochs).then(|| history.epochs());
        drop(history);
        let mut views = region.views();
        if moves && change.base != current.epoch {
            // What others had changed comes to the cache from here.
            views.pin(who.cache, current.epoch);
        }
        views.publish(Arc::new(root));
        if moves {
            views.committed(who.cache, change.base, current.epoch);
        } else {
            views.pin(who.cache, committed.epoch.0);
        }
        drop(views);
        if let Some(kept) = pruned {
            let update = Update { pruned: vec![(region.id, kept)], ..Update::default() };
            if let Err(error) = self.store.change(update) {
                tracing::warn!(
                    region = region.id.0,
                    "epochs that nobody needs stay on the disk for now: {error}"
                );
            }
        }
        self.counts.into_iter().chain([&region.counts]).for_each(|counts| counts.committed(pages));
        Ok(committed)
    }
}

impl Commits<'_> {
    /// Epochs of a region that are kept when its newest one is replaced.
    fn kept(&self, region: &Region, newest: u64) -> Vec<u64> {
        let mut kept = region.history().epochs();
        if self.keep_epochs > 0 && kept.last() != Some(&newest) {
            kept.push(newest);
        }
        kept
    }
}

impl Staged {
    fn pages(&self) -> u64 {
        match self {
            Staged::Data(..) => 1,
            Staged::Zero(first, end) => end - first,
        }
    }
}

/// The size that a commit without one leaves: a staged page that lies wholly behind the end makes the region longer. The page
/// that the end lies in does not: what it holds behind the end is no part of the region.
fn staged_size(size: u64, staged: &[Staged]) -> u64 {
    let end = |part: &Staged| match part {
        Staged::Data(page, _) => page + 1,
        Staged::Zero(_, end) => *end,
    };
    let end = staged.iter().map(end).max().unwrap_or(0);
    if end > size.div_ceil(PAGE) { end.saturating_mul(PAGE) } else { size }
}

/// A root under construction.
struct Build<'a> {
    region: &'a Region,
    memory: &'a Memory,
    current: &'a Root,
    base: Option<&'a Root>,
    change: &'a Change<'a>,
}

impl Build<'_> {
    fn root(&self, cut: Option<u64>, size: u64) -> Answer<Root> {
        let epoch = self.current.epoch + 1;
        let mut tree = self.current.tree.clone();
        if let Some(cut) = cut {
            self.cut_bytes(&mut tree, cut, epoch)?;
        }
        // Merging reads what was there before this commit's own pages: a page that was staged twice is not merged with itself.
        let floor = tree.clone();
        for part in self.change.staged {
            match part {
                Staged::Data(page, mine) => self.place(&mut tree, &floor, *page, Some(mine), cut, size)?,
                Staged::Zero(first, end) => {
                    for page in *first..(*end).min(PageIndex::ceil(size).0) {
                        self.place(&mut tree, &floor, page, None, cut, size)?;
                    }
                }
            }
        }
        let shrunk = size < self.current.size;
        if shrunk {
            self.cut_bytes(&mut tree, size, epoch)?;
        }
        let least = cut.into_iter().chain(shrunk.then_some(size)).min();
        let cuts = match least.map(|least| PageIndex::ceil(least).0) {
            Some(kept) if kept < self.current.pages() => {
                let before = self.current.pages();
                with_cut(&self.current.cuts, Cut { epoch, kept, before }).into()
            }
            _ => Arc::clone(&self.current.cuts),
        };
        Ok(Root { epoch, size, tree, cuts, reaper: self.current.reaper.clone() })
    }

    /// Makes everything at and behind byte `at` zeros.
    fn cut_bytes(&self, tree: &mut Tree, at: u64, epoch: u64) -> Answer<()> {
        tree.cut(PageIndex::ceil(at).0);
        let keep = (at % PAGE) as usize;
        let page = at / PAGE;
        if keep != 0
            && let Some(content) = tree.get(page).cloned()
        {
            let trimmed = self.trim(Some(content.clone()), keep)?;
            if !trimmed.as_ref().is_some_and(|trimmed| trimmed.is(&content)) {
                tree.set(page, trimmed, epoch);
            }
        }
        Ok(())
    }

    /// The page with zeros from byte `keep` on; the same page if it has them.
    fn trim(&self, content: Option<Content>, keep: usize) -> Answer<Option<Content>> {
        let Some(whole) = content else { return Ok(None) };
        let content = whole.load(self.memory)?;
        if is_zero(&content[keep..]) {
            drop(content);
            return Ok(Some(whole));
        }
        if is_zero(&content[..keep]) {
            return Ok(None);
        }
        let mut page = self.memory.fresh()?;
        page[..keep].copy_from_slice(&content[..keep]);
        page[keep..].fill(0);
        Ok(Some(page.seal().into()))
    }

    /// Puts one staged page into the tree.
    fn place(
        &self,
        tree: &mut Tree,
        floor: &Tree,
        page: u64,
        mine: Option<&PageRef>,
        cut: Option<u64>,
        size: u64,
    ) -> Answer<()> {
        if page.saturating_mul(PAGE) >= size {
            return Ok(());
        }
        let mut content = mine.cloned().map(Content::from);
        let others = self.change.base != self.current.epoch && self.current.version(page) > self.change.base;
        if others && self.change.strict {
            let text = format!(
                "region {}: page {page} was changed since epoch {}; refresh, and commit again",
                self.region.id, self.change.base
            );
            return Err(Refusal::new(ErrorCode::Stale, text));
        }
        // A page wholly behind the cut is zeros to everyone before this commit: there is nothing to merge with.
        let kept = cut.map_or(PAGE_SIZE, |cut| cut.saturating_sub(page * PAGE).min(PAGE) as usize);
        if others && kept > 0 {
            content = self.merge(floor.get(page), page, mine, kept)?;
        }
        if size - page * PAGE < PAGE {
            content = self.trim(content, (size % PAGE) as usize)?;
        }
        tree.set(page, content, self.current.epoch + 1);
        Ok(())
    }

    /// Byte by byte: mine where I changed it since the base, else the other's. `kept` bytes of the base were not cut.
    fn merge(
        &self,
        theirs: Option<&Content>,
        page: u64,
        mine: Option<&PageRef>,
        kept: usize,
    ) -> Answer<Option<Content>> {
        let Some(base) = self.base else {
            return Err(self.region.stale(Epoch(self.change.base), self.current.epoch));
        };
        let bytes = |page: Option<&Content>| -> Answer<PageBytes> {
            page.map_or(Ok(ZEROS), |page| page.load(self.memory).map(|page| **page))
        };
        let (mine, theirs) = (mine.map_or(ZEROS, |page| **page), bytes(theirs)?);
        let mut base = bytes(base.tree.get(page))?;
        base[kept..].fill(0);
        let merged = merge_bytes(&mine, &theirs, &base);
        if is_zero(&merged) { Ok(None) } else { self.memory.copy_of(&merged).map(|page| Some(page.into())) }
    }
}

/// Each byte is mine where it differs from the base, and theirs elsewhere.
fn merge_bytes(mine: &PageBytes, theirs: &PageBytes, base: &PageBytes) -> PageBytes {
    let mut out = *theirs;
    for ((out, mine), base) in out.iter_mut().zip(mine).zip(base) {
        if mine != base {
            *out = *mine;
        }
    }
    out
}

#[cfg(test)]
#[path = "commit_tests.rs"]
mod tests;
