//! Snapshots: a name for what a region was.
//!
//! Owns: the names behind an `@`, and the regions that show them. Called by: catalog, requests. Must not: hold the catalog's lock while it waits
//! for a region's turn; the other way round is the order.

use std::sync::{Arc, MutexGuard};

use netmem_protocol::control::{History, Lookup, Snapshot, Snapshotted};
use netmem_protocol::{ErrorCode, RegionId, RegionName};

use super::{Catalog, Kept, State, name_of};
use crate::history::{self, SNAPSHOTS_MAX};
use crate::namespace::Child;
use crate::refusal::{Answer, Refusal};
use crate::region::{Region, now_ns};
use crate::store::rows::Update;

/// A region's name, and what stands behind its `@`.
pub(super) fn parts(name: &RegionName) -> Option<(RegionName, &str)> {
    let (base, snapshot) = name.as_str().rsplit_once('@')?;
    let base = RegionName::parse(base).ok()?;
    (!snapshot.is_empty() && !snapshot.contains('/')).then_some((base, snapshot))
}

/// Whether a snapshot can have this name.
fn check_snapshot(name: &str) -> Answer<()> {
    let component = RegionName::parse(name).is_ok() && !name.contains(['/', '@']);
    if component && !name.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(());
    }
    let text = format!(
        "{name:?} is no name of a snapshot: one component, without \"@\", and not a number, which is an epoch"
    );
    Err(Refusal::new(ErrorCode::NameInvalid, text))
}

pub(super) fn not_there(region: &str, snapshot: &str) -> Refusal {
    Refusal::new(ErrorCode::NotFound, format!("{region:?} has no snapshot {snapshot:?}"))
}

impl Catalog {
    /// How many names there are for what this region shows.
    pub(super) fn links(&self, state: &State, id: RegionId) -> u32 {
        state.names.links(state.frozen.get(&id).map_or(id, |(of, _)| *of))
    }

    pub(super) fn region_named(&self, state: &State, name: &RegionName) -> Answer<Arc<Region>> {
        match state.names.find(name)? {
            Child::Region(id) => self.memory.region(id),
            Child::Directory => {
                Err(Refusal::new(ErrorCode::IsDirectory, format!("{:?} is a directory", name.as_str())))
            }
            Child::Symlink(_) => {
                let text = format!("{:?} is a symbolic link; name the region", name.as_str());
                Err(Refusal::new(ErrorCode::Link, text))
            }
        }
    }

    /// The region that shows what `region@snapshot` names, if that is one, with the catalog locked; an epoch that can be read and that no
    /// snapshot has is given one, which ends when nobody uses it. The caller has no lock.
    pub(super) fn show_snapshot(
        &self,
        name: &RegionName,
    ) -> Answer<Option<(MutexGuard<'_, State>, RegionId)>> {
        let Some((base, snapshot)) = parts(name) else { return Ok(None) };
        let Ok(region) = self.region_named(&self.state(), &base) else { return Ok(None) };
        let turn = region.turn();
        let mut state = self.state();
        if let Some(kept) = region.history().snapshots.get(snapshot) {
            return Ok(Some((state, kept.shown_by)));
        }
        let Ok(epoch) = snapshot.parse::<u64>() else { return Ok(None) };
        let current = Arc::clone(region.views().current());
        let root = if current.epoch == epoch { Some(current) } else { region.history().root(epoch).cloned() };
        let Some(root) = root else { return Ok(None) };
        self.check_room(&state)?;
        state.last_region += 1;
        let shown_by = RegionId(state.last_region);
        let kept = history::Kept { root, made_ns: now_ns(), shown_by, automatic: true };
        self.keep(&mut state, &region, snapshot, kept)?;
        state.left.push(shown_by);
        drop(turn);
        Ok(Some((state, shown_by)))
    }

    /// Keeps a root under a name. The caller has the region's turn (H1).
    fn keep(&self, state: &mut State, region: &Region, name: &str, kept: history::Kept) -> Answer<()> {
        let update = Update {
            snapshots: vec![(region.id, name.to_owned(), Some(kept.row()))],
            last_region: Some(state.last_region),
            ..Update::default()
        };
        self.take(update)?;
        self.show(state, region, name, &kept);
        region.history().snapshots.insert(name.to_owned(), kept);
        Ok(())
    }

    /// Makes the region that shows a snapshot.
    pub(super) fn show(&self, state: &mut State, region: &Region, name: &str, kept: &history::Kept) {
        let (mode, _) = region.attributes();
        let frozen = Region::frozen(kept.shown_by, Arc::clone(&kept.root), mode, kept.made_ns);
        let frozen = Arc::new(frozen);
        state.kept.insert(kept.shown_by, Kept { region: Arc::clone(&frozen), holds: 0 });
        state.frozen.insert(kept.shown_by, (region.id, name.to_owned()));
        self.memory.regions_mut().insert(kept.shown_by, frozen);
    }

    /// `Snapshot`.
    pub fn snapshot(&self, request: &Snapshot) -> Answer<Snapshotted> {
        check_snapshot(&request.snapshot)?;
        let name = name_of(&request.name)?;
        name_of(&format!("{}@{}", request.name, request.snapshot))?;
        let region = self.region_named(&self.state(), &name)?;
        // No commit is under way, and none begins, until the snapshot is kept (H1).
        let turn = region.turn();
        let root = Arc::clone(region.views().current());
        let mut state = self.state();
        let snapshots = region.history().snapshots.len();
        if region.history().snapshots.contains_key(&request.snapshot) {
            let text = format!("{:?} has a snapshot {:?} already", request.name, request.snapshot);
            return Err(Refusal::new(ErrorCode::Exists, text));
        }
        if snapshots >= SNAPSHOTS_MAX {
            let text =
                format!("{:?} has {snapshots} snapshots, which is the limit; prune some", request.name);
            return Err(Refusal::new(ErrorCode::TooManyRegions, text));
        }
        self.check_room(&state)?;
        state.last_region += 1;
        let shown_by = RegionId(state.last_region);
        let kept = history::Kept { root, made_ns: now_ns(), shown_by, automatic: false };
        let told = Snapshotted { snapshot: request.snapshot.clone(), ..history::shown(&kept) };
        self.keep(&mut state, &region, &request.snapshot, kept)?;
        drop(turn);
        Ok(told)
    }

    /// `RemoveSnapshot`. Whoever holds it reads on.
    pub fn remove_snapshot(&self, request: &Snapshot) -> Answer<()> {
        let name = name_of(&request.name)?;
        let mut state = self.state();
        let region = self.region_named(&state, &name)?;
        self.forget_snapshot(&mut state, &region, &request.snapshot)
    }

    fn forget_snapshot(&self, state: &mut State, region: &Region, name: &str) -> Answer<()> {
        let mut history = region.history();
        let Some(kept) = history.snapshots.remove(name) else {
            return Err(not_there(&format!("region {}", region.id), name));
        };
        let pruned = vec![(region.id, history.epochs())];
        let update =
            Update { snapshots: vec![(region.id, name.to_owned(), None)], pruned, ..Update::default() };
        if let Err(refusal) = self.take(update) {
            history.snapshots.insert(name.to_owned(), kept);
            return Err(refusal);
        }
        drop(history);
        state.frozen.remove(&kept.shown_by);
        if state.kept.get(&kept.shown_by).is_some_and(|kept| kept.holds == 0) {
            state.kept.remove(&kept.shown_by);
            self.memory.regions_mut().remove(&kept.shown_by);
        }
        Ok(())
    }

    /// The last hold on what shows a snapshot is gone: one that was made by an open goes too.
    pub(super) fn end_automatic(&self, state: &mut State, id: RegionId, of: RegionId, name: &str) {
        let is_held = state.kept.get(&id).is_none_or(|kept| kept.holds > 0);
        let Ok(region) = self.memory.region(of) else { return };
        let automatic = region.history().snapshots.get(name).is_some_and(|kept| kept.automatic);
        if is_held || !automatic {
            return;
        }
        if self.is_in_grace() || self.forget_snapshot(state, &region, name).is_err() {
            state.left.push(id);
        }
    }

    /// The snapshots of a region end; whoever holds one reads on.
    pub(super) fn hide_snapshots(&self, state: &mut State, region: &Region) {
        let ended = std::mem::take(&mut region.history().snapshots);
        for kept in ended.into_values() {
            state.frozen.remove(&kept.shown_by);
            if state.kept.get(&kept.shown_by).is_some_and(|kept| kept.holds == 0) {
                state.kept.remove(&kept.shown_by);
                self.memory.regions_mut().remove(&kept.shown_by);
            }
        }
    }

    /// `History`.
    pub fn history(&self, request: &Lookup) -> Answer<History> {
        let name = name_of(&request.name)?;
        let region = self.region_named(&self.state(), &name)?;
        let current = region.views().current().epoch;
        let told = region.history().told(current);
        Ok(told)
    }

    /// Refuses what would change a snapshot.
    pub(super) fn refuse_snapshot(&self, state: &State, name: &RegionName) -> Answer<()> {
        if state.names.find(name).is_ok() {
            return Ok(());
        }
        let Some((base, snapshot)) = parts(name) else { return Ok(()) };
        let Ok(Child::Region(of)) = state.names.find(&base) else { return Ok(()) };
        let region = self.memory.region(of)?;
        let is_there = region.history().snapshots.contains_key(snapshot);
        if is_there {
            let text = format!("{:?} is a snapshot, which does not change; clone it", name.as_str());
            return Err(Refusal::new(ErrorCode::ReadOnly, text));
        }
        Ok(())
    }
}
