//! What page caches keep here of regions before it is committed.
//!
//! Owns: which region is whose. Called by: requests, and the catalog where holds end. Must not: look at pages.

use std::sync::Arc;
use std::time::Instant;

use netmem_protocol::control::Entry;
use netmem_protocol::{CacheId, ErrorCode, RegionId};

use super::{Catalog, State, UNNAMED_MODE};
use crate::refusal::{Answer, Refusal};
use crate::region::{Region, Who};

/// So many leases after the last client of a cache that held a region was heard of, what is pending of it ends. It is what the host stored,
/// and may be silent for.
const PENDING_LEASES: u32 = 120;

/// What is pending of a region in a cache.
pub struct Pending {
    /// Where it is.
    place: RegionId,
    /// Since when no client of the cache holds the region.
    left: Option<Instant>,
}

impl Catalog {
    /// `Keep`: `known` is the one it was before this server was started, or 0.
    pub fn keep_pending(&self, who: Who, of: RegionId, known: RegionId) -> Answer<Entry> {
        let mut state = self.state();
        let holds = |region: &RegionId| {
            state.clients.get(&who.client).is_some_and(|client| client.holds.contains_key(region))
        };
        if !holds(&of) && !state.pending.contains_key(&(of, who.cache)) {
            let text = format!("region {of} is not held by this client, so it has nothing pending of it");
            return Err(Refusal::new(ErrorCode::NotFound, text));
        }
        let is_held = Self::is_held(&state, of, who.cache);
        if let Some(pending) = state.pending.get_mut(&(of, who.cache)) {
            if is_held {
                pending.left = None;
            }
            let place = pending.place;
            if let Some(kept) = state.kept.get(&place) {
                return Ok(kept.region.open_entry(who.cache));
            }
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
        state.pending.insert((of, who.cache), Pending { place: region.id, left: None });
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
        if !state.pending.contains_key(&(of, cache)) || Self::is_held(state, of, cache) {
            return None;
        }
        let Pending { place, .. } = state.pending.remove(&(of, cache))?;
        self.release(state, place, 1)
    }

    /// Whether a client of the cache holds a region.
    fn is_held(state: &State, of: RegionId, cache: CacheId) -> bool {
        let mut clients = state.clients.values().filter(|client| client.cache == cache);
        clients.any(|client| client.holds.contains_key(&of))
    }

    /// The lease of a client that held a region has ended, in silence: what is pending of it stays for longer, if it was the last.
    pub(super) fn leave_pending(state: &mut State, of: RegionId, cache: CacheId, now: Instant) {
        let is_held = Self::is_held(state, of, cache);
        if let Some(pending) = state.pending.get_mut(&(of, cache))
            && !is_held
        {
            pending.left.get_or_insert(now);
        }
    }

    /// Ends what has been left for too long, and returns what that was the end of.
    pub(super) fn expire_pending(&self, state: &mut State, now: Instant) -> Vec<Arc<Region>> {
        let lease = self.lease * PENDING_LEASES;
        let is_over =
            |pending: &Pending| pending.left.is_some_and(|left| now.saturating_duration_since(left) >= lease);
        let over = state.pending.iter().filter(|(_, pending)| is_over(pending));
        let over: Vec<(RegionId, CacheId)> = over.map(|(key, _)| *key).collect();
        let mut ended = Vec::new();
        for key in over {
            // Somebody may hold the region again, and have had no need to say so.
            if Self::is_held(state, key.0, key.1) {
                state.pending.entry(key).and_modify(|pending| pending.left = None);
            } else if let Some(Pending { place, .. }) = state.pending.remove(&key) {
                ended.extend(self.release(state, place, 1));
            }
        }
        ended
    }
}
