//! A catalog as a durable store kept it.
//!
//! Owns: what is put together at the start, and what is wrong with it. Called by: lib. Must not: write.

use std::sync::Arc;
use std::time::{Duration, Instant};

use netmem_protocol::RegionId;

use super::{Catalog, State};
use crate::config::Limits;
use crate::history::Kept;
use crate::memory::Memory;
use crate::namespace::Namespace;
use crate::region::Region;
use crate::store::durable::Loaded;
use crate::store::rows::Attribute;
use crate::store::{Store, StoreError};

impl Catalog {
    /// The catalog of a store that was opened. Regions without a name stay for a lease, so that those who held them can come back.
    pub fn restored(
        memory: Arc<Memory>,
        store: Arc<dyn Store>,
        limits: Limits,
        lease: Duration,
        mut loaded: Loaded,
    ) -> Result<Self, StoreError> {
        let damaged = |what: String| StoreError::broken(format!("the index is damaged: {what}"));
        let mut state = State { last_region: loaded.names.last_region, ..State::default() };
        for (id, row) in &loaded.names.regions {
            let tree = loaded.trees.current.remove(id).unwrap_or_default();
            let region = Arc::new(Region::restored(*id, row, tree, memory.reaper.clone()));
            memory.regions_mut().insert(*id, Arc::clone(&region));
            state.kept.insert(*id, super::Kept { region, holds: 0 });
            state.last_region = state.last_region.max(id.0);
        }
        let region = |id: RegionId| {
            let found = state.kept.get(&id).map(|kept| &kept.region);
            found.ok_or_else(|| damaged(format!("region {id} is named, and is not there")))
        };
        for (id, which, value) in &loaded.names.attributes {
            let (mode, modified) = (Attribute::Mode as u8, Attribute::Modified as u8);
            let mode = (*which == mode).then(|| u32::try_from(*value).unwrap_or(0));
            region(*id)?.set_attributes(mode, (*which == modified).then_some(*value));
        }
        for (id, client, ended) in &loaded.names.applied {
            region(*id)?.remember(*client, ended);
        }
        for (id, cache, epoch) in &loaded.names.made {
            region(*id)?.turn().made(*cache, *epoch);
        }
        for (id, row) in &loaded.names.log {
            region(*id)?.history().note(*row);
        }
        for (id, row) in loaded.names.recent(limits.keep_epochs) {
            let of = region(id)?;
            if let Some(tree) = loaded.trees.kept.get(&(id, row.epoch)).cloned() {
                let root = Arc::new(of.as_it_was(row.epoch, row.size, tree));
                of.history().recent.push_back(root);
            }
        }
        let mut shown = Vec::new();
        for (id, name, row) in &loaded.names.snapshots {
            let of = Arc::clone(region(*id)?);
            let tree = loaded.trees.kept.get(&(*id, row.epoch)).cloned();
            let tree =
                tree.ok_or_else(|| damaged(format!("snapshot {name:?} of region {id} is not there")))?;
            let known = of.history().root(row.epoch).cloned();
            let root = known.unwrap_or_else(|| Arc::new(of.as_it_was(row.epoch, row.size, tree)));
            let (made_ns, shown_by, automatic) = (row.made_ns, RegionId(row.shown_by), row.automatic);
            of.history().snapshots.insert(name.clone(), Kept { root, made_ns, shown_by, automatic });
            state.last_region = state.last_region.max(row.shown_by);
            shown.push((of, name.clone()));
        }
        for (clone, row) in &loaded.names.regions {
            let Some((parent, epoch)) = row.origin else { continue };
            let parent = RegionId(parent);
            let tree = loaded.trees.kept.get(&(parent, epoch)).cloned().unwrap_or_default();
            let parent = region(parent)?;
            let root = Arc::new(parent.as_it_was(epoch, 0, tree));
            parent.history().cloned(root, *clone);
        }
        let names = Namespace::restored(loaded.names.directories, loaded.names.children);
        let names = names.ok_or_else(|| damaged("a name is in a directory that is not there".to_owned()))?;
        for id in names.regions() {
            region(id)?;
        }
        for (id, kept) in &state.kept {
            // What was there for its clones alone has nothing else; who held one of no bytes comes back and says so.
            let entry = kept.region.entry();
            let is_empty = entry.size == 0 && entry.stored_pages == 0;
            kept.region.set_ended(names.links(*id) == 0 && is_empty && kept.region.history().has_clones());
        }
        state.left = state.kept.keys().copied().filter(|id| names.links(*id) == 0).collect();
        state.names = names;
        let grace = (!state.kept.is_empty()).then(|| Instant::now() + lease);
        let catalog = Catalog { state: State::default().into(), memory, store, limits, lease, grace };
        for (of, name) in shown {
            let history = of.history();
            if let Some(kept) = history.snapshots.get(&name) {
                catalog.show(&mut state, &of, &name, kept);
                state.left.extend(kept.automatic.then_some(kept.shown_by));
            }
        }
        *catalog.state() = state;
        Ok(catalog)
    }
}
