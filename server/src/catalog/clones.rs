//! Clones: regions that begin as another is or was, and what stays of those that they began as.
//!
//! Owns: which region began as which, and when that ends to matter. Called by: catalog, requests. Must not: wait for a region's turn with the
//! catalog's lock held: where it needs one there, it takes it if it is free, and else comes back later.
//!
//! A store that keeps every region whole, as memory does, needs to know nothing of it. One on a disk keeps of a clone what differs: what a clone
//! began as stays as long as the clone, with neither name nor pages of its own.
//!
//! C1. What is there for its clones alone has two at the least: what only one is left of goes over to that one. So however long a line of
//! clones of clones becomes, those that are used bound those that are not.

use std::sync::Arc;

use netmem_protocol::control::{CloneRegion, Entry};
use netmem_protocol::{ErrorCode, RegionId, RegionName};

use super::snapshots::{not_there, parts};
use super::{Catalog, State, UNNAMED_MODE, name_of};
use crate::namespace::Namespace;
use crate::refusal::{Answer, Refusal};
use crate::region::{Region, Root, Who};
use crate::store::rows::{CommitRows, Heir, RegionRow, Update};
use crate::tree::Tree;

impl Catalog {
    /// `Clone`.
    pub fn clone_region(&self, who: Who, request: &CloneRegion) -> Answer<Entry> {
        let (from, to) = (name_of(&request.from)?, name_of(&request.to)?);
        let (region, snapshot) = self.what_to_clone(&self.state(), &from)?;
        let turn = region.turn();
        let mut state = self.state();
        let root = match snapshot {
            None => Arc::clone(region.views().current()),
            Some(name) => {
                let history = region.history();
                let named = history.snapshots.get(&name).map(|kept| &kept.root);
                let root = named.or_else(|| name.parse().ok().and_then(|epoch| history.root(epoch)));
                root.cloned().ok_or_else(|| not_there(&request.from, &name))?
            }
        };
        self.check_room(&state)?;
        self.refuse_snapshot(&state, &to)?;
        let (mode, _) = region.attributes();
        let clone =
            self.add_clone(&mut state, &region, &root, mode, |names, id| names.add_region(&to, id))?;
        let entry = clone.open_entry(who.cache);
        drop(turn);
        Ok(Entry { created: true, links: 1, ..entry })
    }

    fn what_to_clone(&self, state: &State, from: &RegionName) -> Answer<(Arc<Region>, Option<String>)> {
        match self.region_named(state, from) {
            Ok(region) => Ok((region, None)),
            Err(refusal) if refusal.code == ErrorCode::NotFound => {
                let Some((base, snapshot)) = parts(from) else { return Err(refusal) };
                Ok((self.region_named(state, &base)?, Some(snapshot.to_owned())))
            }
            Err(refusal) => Err(refusal),
        }
    }

    /// `CloneUnnamed`.
    pub fn clone_unnamed(&self, who: Who, id: RegionId) -> Answer<Entry> {
        let region = self.memory.region(id)?;
        // What shows a snapshot is not kept itself: the region is that it is of.
        let of = self.state().frozen.get(&id).map_or(id, |(of, _)| *of);
        let parent = self.memory.region(of)?;
        // No commit is under way, and none begins, until the clone is known (H1).
        let turn = parent.turn();
        let mut state = self.state();
        if region.is_frozen() && !state.frozen.contains_key(&id) {
            let text =
                format!("region {id} is a snapshot that was removed: it can be read, and not be cloned");
            return Err(Refusal::new(ErrorCode::NotFound, text));
        }
        self.check_room(&state)?;
        let root = Arc::clone(region.views().current());
        let clone = self.add_clone(&mut state, &parent, &root, UNNAMED_MODE, |_, _| Ok(()))?;
        let entry = self.hold(&mut state, who, clone.id)?;
        drop(turn);
        Ok(Entry { created: true, ..entry })
    }

    /// The caller has the parent's turn.
    fn add_clone(
        &self,
        state: &mut State,
        parent: &Region,
        root: &Arc<Root>,
        mode: u32,
        name: impl FnOnce(&mut Namespace, RegionId) -> Answer<()>,
    ) -> Answer<Arc<Region>> {
        // It may have ended while its turn was waited for, and its rows with it.
        self.memory.region(parent.id)?;
        let origin = self.store.is_durable().then_some((parent.id, root.epoch));
        let clone = self.new_region(state, |id| Region::clone_of(id, mode, root, origin), name)?;
        if origin.is_some() {
            parent.history().cloned(Arc::clone(root), clone.id);
        }
        Ok(clone)
    }

    /// A region that is there for its clones alone has nothing but what they began with, and is not there for anybody else. Returns it if it
    /// ended: the only one that was left has what it began with.
    pub(super) fn retire(&self, state: &mut State, id: RegionId) -> Option<Arc<Region>> {
        let kept = state.kept.get(&id)?;
        if kept.holds > 0 || state.names.links(id) > 0 || !kept.region.history().has_clones() {
            return None;
        }
        let region = Arc::clone(&kept.region);
        if self.is_in_grace() {
            // Who holds it may come back.
            state.left.push(id);
            return None;
        }
        region.set_ended(true);
        // A commit of a client that is gone may be under way.
        let Some(turn) = region.try_turn() else {
            state.left.push(id);
            return None;
        };
        let only = region.history().only_clone();
        let ended = match only {
            Some((epoch, clone)) => self.hand_over(state, &region, epoch, clone),
            None => {
                self.strip(state, &region);
                None
            }
        };
        drop(turn);
        ended
    }

    /// Gives what a region's only clone began with to the clone. The caller has the region's turn.
    fn hand_over(
        &self,
        state: &mut State,
        region: &Arc<Region>,
        epoch: u64,
        to: RegionId,
    ) -> Option<Arc<Region>> {
        let clone = Arc::clone(&state.kept.get(&to)?.region);
        // A commit that is under way would name the region that goes.
        let Some(turn) = clone.try_turn() else {
            state.left.push(region.id);
            return None;
        };
        let origin = region.origin();
        let now = Arc::clone(clone.views().current());
        let row = RegionRow { origin: origin.map(|(parent, epoch)| (parent.0, epoch)), ..clone.row(&now) };
        let kept = clone.history().epochs();
        let heirs = vec![Heir { from: region.id, until: epoch, to, row, kept }];
        if let Err(error) = self.store.change(Update { heirs, ..Update::default() }) {
            tracing::warn!(
                region = region.id.0,
                "what one clone alone needs stays by itself for now: {error}"
            );
            state.left.push(region.id);
            return None;
        }
        clone.set_origin(origin);
        drop(turn);
        if let Some((parent, epoch)) = origin
            && let Some(parent) = state.kept.get(&parent)
        {
            parent.region.history().handed_over(epoch, region.id, to);
        }
        self.hide_snapshots(state, region);
        self.memory.regions_mut().remove(&region.id);
        state.kept.remove(&region.id).map(|kept| kept.region)
    }

    /// Takes from a region all that its clones don't need. The caller has its turn.
    fn strip(&self, state: &mut State, region: &Region) {
        let current = Arc::clone(region.views().current());
        let history = region.history();
        let snapshots: Vec<String> = history.snapshots.keys().cloned().collect();
        let clones = history.cloned_epochs();
        let has_others = !snapshots.is_empty() || !history.recent.is_empty();
        drop(history);
        region.views().forget_all();
        if current.tree.stored() == 0 && !has_others {
            return;
        }
        let root = Root {
            epoch: current.epoch + 1,
            size: 0,
            tree: Tree::default(),
            cuts: Arc::clone(&current.cuts),
            reaper: current.reaper.clone(),
        };
        let (mut leaves, mut from) = (Vec::new(), 0);
        while let Some((leaf, _)) = current.tree.next_leaf(from) {
            leaves.push((leaf, None));
            from = leaf + 1;
        }
        let (id, row, applied) = (region.id, region.row(&root), Vec::new());
        let rows = CommitRows {
            region: id,
            row,
            leaves,
            kept: clones.clone(),
            log: None,
            applied,
            made: Vec::new(),
        };
        let update = Update {
            commits: vec![rows],
            snapshots: snapshots.into_iter().map(|name| (id, name, None)).collect(),
            pruned: vec![(id, clones)],
            ..Update::default()
        };
        if let Err(error) = self.store.change(update) {
            tracing::warn!(region = id.0, "what only clones need stays whole for now: {error}");
            state.left.push(id);
            return;
        }
        self.hide_snapshots(state, region);
        region.history().recent.clear();
        region.views().publish(Arc::new(root));
    }

    /// A clone has ended: what it began as may be without use now.
    pub(super) fn unclone(&self, state: &mut State, parent: RegionId, epoch: u64, clone: RegionId) {
        let Some(region) = state.kept.get(&parent).map(|kept| Arc::clone(&kept.region)) else { return };
        let newest = region.views().current().epoch;
        let mut history = region.history();
        history.unclone(epoch, clone);
        let kept = history.epochs();
        drop(history);
        // If it ends, all of its rows do; and where nothing was committed since, there are none that only that epoch needed.
        let needs_none = Self::is_unused(state, parent) && !self.is_in_grace();
        if !needs_none && newest != epoch && !kept.contains(&epoch) {
            let pruned = vec![(parent, kept)];
            if let Err(error) = self.store.change(Update { pruned, ..Update::default() }) {
                tracing::warn!(region = parent.0, "what a clone began as stays on the disk for now: {error}");
            }
        }
        let ended = self.end_if_unused(state, parent);
        drop(ended);
    }
}
