//! A catalog as a durable store kept it.
//!
//! Owns: what is put together at the start, and what is wrong with it. Called by: lib. Must not: write.

use std::sync::Arc;
use std::time::{Duration, Instant};

use netmem_protocol::RegionId;

use super::{Catalog, Kept, State};
use crate::config::Limits;
use crate::memory::Memory;
use crate::namespace::Namespace;
use crate::region::Region;
use crate::store::durable::Loaded;
use crate::store::index::Attribute;
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
            let tree = loaded.trees.remove(id).unwrap_or_default();
            let region = Arc::new(Region::restored(*id, row, tree, memory.reaper.clone()));
            memory.regions_mut().insert(*id, Arc::clone(&region));
            state.kept.insert(*id, Kept { region, holds: 0 });
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
        let names = Namespace::restored(loaded.names.directories, loaded.names.children);
        let names = names.ok_or_else(|| damaged("a name is in a directory that is not there".to_owned()))?;
        for id in names.regions() {
            region(id)?;
        }
        if let Some(id) = loaded.trees.keys().next() {
            return Err(damaged(format!("region {id} has pages, and is not there")));
        }
        state.left = state.kept.keys().copied().filter(|id| names.links(*id) == 0).collect();
        state.names = names;
        let grace = (!state.kept.is_empty()).then(|| Instant::now() + lease);
        Ok(Catalog { state: state.into(), memory, store, limits, lease, grace })
    }
}
