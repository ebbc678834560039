//! What page caches keep here of regions before it is committed.
//!
//! Owns: which region is whose. Called by: requests, and the catalog where holds end. Must not: look at pages.

use std::sync::Arc;

use netmem_protocol::control::Entry;
use netmem_protocol::{CacheId, ErrorCode, RegionId};

use super::{Catalog, State, UNNAMED_MODE};
use crate::refusal::{Answer, Refusal};
use crate::region::{Region, Who};

impl Catalog {
    /// `Keep`: `known` is the one it was before this server was started, or 0.
    pub fn keep_pending(&self, who: Who, of: RegionId, known: RegionId) -> Answer<Entry> {
        let mut state = self.state();
        let holds = |region: &RegionId| {
            state.clients.get(&who.client).is_some_and(|client| client.holds.contains_key(region))
        };
        if !holds(&of) {
            let text = format!("region {of} is not held by this client, so it has nothing pending of it");
            return Err(Refusal::new(ErrorCode::NotFound, text));
        }
        if let Some(kept) = state.pending.get(&(of, who.cache)).and_then(|id| state.kept.get(id)) {
            return Ok(kept.region.open_entry(who.cache));
        }
        let region = if known == RegionId(0) {
            self.check_room(&state)?;
            let make = |id| Region::new(id, UNNAMED_MODE, 0, self.memory.reaper.clone());
            self.new_region(&mut state, make, |_, _| Ok(()))?
        } else {
            self.left_by_a_restart(&state, known)?
        };
        if let Some(kept) = state.kept.get_mut(&region.id) {
            kept.holds += 1;
        }
        state.pending.insert((of, who.cache), region.id);
        let entry = region.open_entry(who.cache);
        Ok(Entry { created: known == RegionId(0), ..entry })
    }

    /// A region without a name that nobody has held since the start.
    fn left_by_a_restart(&self, state: &State, id: RegionId) -> Answer<Arc<Region>> {
        let region = self.memory.region(id)?;
        let is_free = state.kept.get(&id).is_some_and(|kept| kept.holds == 0);
        if is_free && state.names.links(id) == 0 {
            return Ok(region);
        }
        Err(Refusal::new(ErrorCode::Invalid, format!("region {id} is in use: nothing is pending in it")))
    }

    /// A hold of one of a cache's clients on a region has ended. If it was the last, so does what is pending; it is returned if that was its
    /// end.
    pub(super) fn end_pending(&self, state: &mut State, of: RegionId, cache: CacheId) -> Option<Arc<Region>> {
        let is_held = |state: &State| {
            let mut clients = state.clients.values().filter(|client| client.cache == cache);
            clients.any(|client| client.holds.contains_key(&of))
        };
        if !state.pending.contains_key(&(of, cache)) || is_held(state) {
            return None;
        }
        let kept = state.pending.remove(&(of, cache))?;
        self.release(state, kept, 1)
    }
}
