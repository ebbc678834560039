//! How a commit becomes a new root: cut, then the staged pages (merged where others were first), then the size.
//!
//! Owns: the order of those steps. Called by: requests. Must not: change anything that a reader can see before the store
//! has taken the commit.

use std::sync::Arc;

use netmem_protocol::control::{self, Committed};
use netmem_protocol::{CacheId, ClientId, CommitId, Epoch, ErrorCode, PAGE_SIZE, PageIndex};

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
    /// Whose it is, its number, and the commits that are remembered; `None` of one that has no number.
    identity: Option<(Who, CommitId, &'a Applied)>,
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
        let Some((Who { client, .. }, commit, applied)) = self.identity else { return Vec::new() };
        let ended = applied.with(client, commit, committed);
        let forgotten = applied.forgotten_for(client).map(|forgotten| (forgotten, None));
        forgotten.into_iter().chain([(client, Some(ended))]).collect()
    }

    /// The same of page caches.
    fn made(&self, epoch: u64) -> Vec<(CacheId, Option<u64>)> {
        let Some((Who { cache, .. }, _, applied)) = self.identity else { return Vec::new() };
        let forgotten = applied.cache_forgotten_for(cache).map(|forgotten| (forgotten, None));
        forgotten.into_iter().chain([(cache, Some(epoch))]).collect()
    }
}

/// A region's part of a commit.
pub struct Part<'a> {
    /// The region.
    pub region: &'a Region,
    /// What it is to become.
    pub request: &'a control::Commit,
    /// Its pages.
    pub staged: &'a [Staged],
}

/// A region as a commit makes it, which nobody sees yet.
struct Ready<'a> {
    region: &'a Region,
    change: Change<'a>,
    current: Arc<Root>,
    root: Root,
    log: LogRow,
}

impl Ready<'_> {
    fn committed(&self) -> Committed {
        let previous = Epoch(self.current.epoch);
        Committed { epoch: Epoch(self.root.epoch), previous, size: self.root.size }
    }

    fn record(&mut self, kept: Vec<u64>) -> Record<'_> {
        let applied = self.change.remembered(self.committed());
        let made = self.change.made(self.root.epoch);
        let cut = self.root.cuts.last().filter(|cut| cut.epoch == self.root.epoch).map(|cut| cut.kept);
        Record {
            region: self.region.id,
            root: &mut self.root,
            of: self.region,
            before: &self.current,
            previous: Epoch(self.current.epoch),
            cut,
            modified_ns: self.log.when_ns,
            applied,
            made,
            kept,
            log: self.log,
        }
    }
}

/// What becomes of a part.
enum Prepared<'a> {
    /// Nothing: it changes nothing.
    Same(&'a Region, Committed),
    /// A new root.
    Ready(Box<Ready<'a>>),
}

impl<'a> Prepared<'a> {
    fn region(&self) -> &'a Region {
        match self {
            Prepared::Same(region, _) => region,
            Prepared::Ready(ready) => ready.region,
        }
    }
}

impl Commits<'_> {
    /// Applies a commit to the regions that it is of, once for each id: to all, or to none. They are in the order of their numbers, which is
    /// also the order of their turns.
    pub fn commit(&self, who: Who, parts: &[Part<'_>]) -> Answer<Vec<Committed>> {
        let mut turns: Vec<_> = parts.iter().map(|part| part.region.turn()).collect();
        let each = || parts.iter().zip(&turns);
        let ended = each().map(|(part, turn)| turn.find(who.client, part.request.commit));
        if let Some(ended) = ended.collect::<Option<Vec<Committed>>>() {
            return Ok(ended);
        }
        let mut changes = Vec::with_capacity(parts.len());
        for (part, applied) in each() {
            let Part { region, request, staged } = *part;
            may_come(region, who, request, applied)?;
            let change = Change {
                base: request.base.0,
                strict: request.strict,
                cut: request.cut,
                size: request.size,
                staged,
                identity: Some((who, request.commit, &**applied)),
            };
            changes.push((region, change));
        }
        let done = self.apply(who, changes, true)?;
        for ((part, turn), committed) in parts.iter().zip(&mut turns).zip(&done) {
            turn.add(who.client, part.request.commit, *committed);
            if committed.epoch != committed.previous {
                turn.made(who.cache, committed.epoch.0);
            }
        }
        Ok(done)
    }

    /// Sets the size, as a commit of its own.
    pub fn resize(&self, region: &Region, who: Who, size: u64) -> Answer<Committed> {
        let turn = region.turn();
        let base = region.views().current().epoch;
        let change = Change { base, strict: false, cut: None, size: Some(size), staged: &[], identity: None };
        let committed = self.apply(who, vec![(region, change)], false)?;
        drop(turn);
        Ok(committed[0])
    }

    /// The caller holds the regions' turns. `moves` says whether the cache's views move on from the bases.
    fn apply(&self, who: Who, changes: Vec<(&Region, Change<'_>)>, moves: bool) -> Answer<Vec<Committed>> {
        let prepare = |(region, change)| self.prepare(region, change);
        let mut prepared = changes.into_iter().map(prepare).collect::<Answer<Vec<Prepared<'_>>>>()?;
        let mut records = Vec::new();
        for part in &mut prepared {
            if let Prepared::Ready(ready) = part {
                let kept = self.kept(ready.region, ready.current.epoch);
                records.push(ready.record(kept));
            }
        }
        if !records.is_empty() {
            let region = records[0].region;
            self.store.commit(&mut records).map_err(|error| {
                let text = format!(
                    "region {region}: the store did not take the commit ({error}); nothing was changed"
                );
                Refusal::new(error.code(), text)
            })?;
        }
        drop(records);
        Ok(self.publish(who, prepared, moves))
    }

    fn prepare<'a>(&self, region: &'a Region, change: Change<'a>) -> Answer<Prepared<'a>> {
        region.may_change()?;
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
            let epoch = Epoch(current.epoch);
            return Ok(Prepared::Same(region, Committed { epoch, previous: epoch, size }));
        }
        let build =
            Build { region, memory: self.memory, current: &current, base: base.as_deref(), change: &change };
        let root = build.root(cut, size)?;
        let pages = change.staged.iter().map(Staged::pages).sum();
        let log = LogRow { epoch: root.epoch, when_ns: now_ns(), pages, size: root.size };
        Ok(Prepared::Ready(Box::new(Ready { region, change, current, root, log })))
    }

    /// Shows what the store has taken, of all regions in one step: who sees the new root of one finds those of the others.
    fn publish(&self, who: Who, prepared: Vec<Prepared<'_>>, moves: bool) -> Vec<Committed> {
        let mut pruned = Vec::new();
        for part in &prepared {
            if let Prepared::Ready(ready) = part {
                ready.region.touch(ready.log.when_ns);
                let mut history = ready.region.history();
                history.note(ready.log);
                if history.replaced(&ready.current, self.keep_epochs) {
                    pruned.push((ready.region.id, history.epochs()));
                }
            }
        }
        let mut views: Vec<_> = prepared.iter().map(|part| part.region().views()).collect();
        let mut done = Vec::with_capacity(prepared.len());
        for (part, views) in prepared.into_iter().zip(&mut views) {
            let ready = match part {
                Prepared::Same(_, committed) => {
                    views.pin(who.cache, committed.epoch.0);
                    done.push(committed);
                    continue;
                }
                Prepared::Ready(ready) => ready,
            };
            let committed = ready.committed();
            let Ready { region, change, current, root, log } = *ready;
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
            self.counts.into_iter().chain([&region.counts]).for_each(|counts| counts.committed(log.pages));
            done.push(committed);
        }
        drop(views);
        self.memory.reaper.keep_up();
        if !pruned.is_empty()
            && let Err(error) = self.store.change(Update { pruned, ..Update::default() })
        {
            tracing::warn!("epochs that nobody needs stay on the disk for now: {error}");
        }
        done
    }
}

/// Whether a commit may still be applied.
fn may_come(region: &Region, who: Who, request: &control::Commit, applied: &Applied) -> Answer<()> {
    if applied.is_settled(who.client, request.commit) {
        let text = format!(
            "region {}: commit {} comes too late: its client was told that it was not applied, or has committed since",
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
        return Err(Refusal::new(ErrorCode::Behind, text));
    }
    Ok(())
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
                    let all = *first..(*end).min(PageIndex::ceil(size).0);
                    // With nobody in between, what is not there is what it should be.
                    let alone = self.change.base == self.current.epoch;
                    for page in if alone { tree.known(all) } else { vec![all] }.into_iter().flatten() {
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
