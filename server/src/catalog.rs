//! Which regions there are: their names, who holds them, and which clients and caches are connected.
//!
//! Owns: the namespace, the holds, the leases. Called by: requests, session, housekeeping. Must not: be asked on the hot path.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use netmem_protocol::control::{Create, CreateUnnamed, Entry, EntryKind, Open};
use netmem_protocol::{CacheId, ClientId, Epoch, ErrorCode, RegionId, RegionName};

use crate::config::Limits;
use crate::memory::Memory;
use crate::namespace::{Child, Namespace};
use crate::presence::Presence;
use crate::refusal::{Answer, Refusal};
use crate::region::{Region, Who};
use crate::stats::Traffic;
use crate::store::Store;
use crate::store::rows::{Attribute, Update};

mod activity;
mod clones;
mod names;
mod pending;
mod restore;
mod snapshots;

/// The largest permission bits.
const MODE_MAX: u32 = 0o7777;
/// Permission bits of a region without a name.
const UNNAMED_MODE: u32 = 0o600;

/// What keeps a region.
struct Kept {
    region: Arc<Region>,
    /// Holds of all clients.
    holds: u64,
}

struct Client {
    presence: Presence,
    holds: HashMap<RegionId, u64>,
    since: Instant,
    /// Where its newest connection comes from.
    address: String,
    traffic: Arc<Traffic>,
    /// That of its newest connection.
    cache: CacheId,
}

impl Default for Client {
    fn default() -> Self {
        Client {
            presence: Presence::default(),
            holds: HashMap::new(),
            since: Instant::now(),
            address: String::new(),
            traffic: Arc::default(),
            cache: CacheId::default(),
        }
    }
}

#[derive(Default)]
struct State {
    names: Namespace,
    /// In order, as they are told in parts.
    kept: BTreeMap<RegionId, Kept>,
    /// What shows snapshots: of which region, and under which name.
    frozen: HashMap<RegionId, (RegionId, String)>,
    clients: BTreeMap<ClientId, Client>,
    caches: HashMap<CacheId, Presence>,
    /// Where caches keep what is pending of regions that their clients hold: one hold of each.
    pending: BTreeMap<(RegionId, CacheId), pending::Pending>,
    last_region: u64,
    /// Regions without a name and a hold that could not end yet: soon after the start, or because the store did not take it.
    left: Vec<RegionId>,
}

/// The catalog of a server.
pub struct Catalog {
    /// Lock order: after a region's turn, before everything else.
    state: Mutex<State>,
    memory: Arc<Memory>,
    store: Arc<dyn Store>,
    limits: Limits,
    lease: Duration,
    /// Until then no region ends that a store kept: those who held it have not come back yet.
    grace: Option<Instant>,
}

fn name_of(name: &str) -> Answer<RegionName> {
    RegionName::parse(name).map_err(|code| bad_name(code, name))
}

fn directory_of(name: &str) -> Answer<RegionName> {
    RegionName::parse_directory(name).map_err(|code| bad_name(code, name))
}

fn bad_name(code: ErrorCode, name: &str) -> Refusal {
    let start: String = name.chars().take(80).collect();
    let text = if code == ErrorCode::NameTooLong {
        format!("the name that starts with {start:?} is too long (1024 bytes, 255 in a component)")
    } else {
        format!("{start:?} is no name of a region: no empty, \".\" or \"..\" components, no NUL")
    };
    Refusal::new(code, text)
}

fn check_mode(mode: u32) -> Answer<()> {
    if mode <= MODE_MAX {
        return Ok(());
    }
    Err(Refusal::new(ErrorCode::Invalid, format!("mode {mode:#o} is more than 0o7777")))
}

impl Catalog {
    /// An empty catalog.
    pub fn new(memory: Arc<Memory>, store: Arc<dyn Store>, limits: Limits, lease: Duration) -> Self {
        Catalog { state: Mutex::default(), memory, store, limits, lease, grace: None }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection from `address` begins. Returns where its client's traffic is counted.
    pub fn enter(&self, who: Who, address: String) -> Arc<Traffic> {
        let mut state = self.state();
        state.caches.entry(who.cache).or_default().enter();
        let client = state.clients.entry(who.client).or_default();
        client.presence.enter();
        client.address = address;
        client.cache = who.cache;
        Arc::clone(&client.traffic)
    }

    /// A connection has ended. What it held stays for the lease.
    pub fn leave(&self, who: Who, now: Instant) {
        let mut state = self.state();
        if let Some(client) = state.clients.get_mut(&who.client) {
            client.presence.leave(now);
        }
        if let Some(cache) = state.caches.get_mut(&who.cache) {
            cache.leave(now);
        }
    }

    /// Gives up what belongs to clients and caches that are gone past their lease.
    pub fn expire(&self, now: Instant) {
        let mut state = self.state();
        let lease = self.lease;
        let clients: Vec<ClientId> = state
            .clients
            .iter()
            .filter(|(_, client)| client.presence.is_over(now, lease))
            .map(|(id, _)| *id)
            .collect();
        let mut ended = Vec::new();
        for id in clients {
            let Client { holds, cache, .. } = state.clients.remove(&id).unwrap_or_default();
            for (region, count) in holds {
                ended.extend(self.release(&mut state, region, count));
                Self::leave_pending(&mut state, region, cache, now);
            }
        }
        ended.extend(self.expire_pending(&mut state, now));
        let over = |cache: &Presence| cache.is_over(now, lease);
        let caches: Vec<CacheId> =
            state.caches.iter().filter(|(_, cache)| over(cache)).map(|(id, _)| *id).collect();
        state.caches.retain(|_, cache| !over(cache));
        let regions: Vec<Arc<Region>> = if caches.is_empty() {
            Vec::new()
        } else {
            state.kept.values().map(|kept| Arc::clone(&kept.region)).collect()
        };
        if self.grace.is_none_or(|grace| now >= grace) {
            for id in std::mem::take(&mut state.left) {
                ended.extend(self.end_if_unused(&mut state, id));
            }
        }
        // Still under the lock: a cache that comes back now pins after this, not before.
        for region in regions {
            let mut views = region.views();
            for cache in &caches {
                views.forget(*cache);
            }
        }
        drop(state);
        drop(ended);
    }

    /// Takes `count` holds from a region; returns it if that was its end.
    fn release(&self, state: &mut State, id: RegionId, count: u64) -> Option<Arc<Region>> {
        if let Some(kept) = state.kept.get_mut(&id) {
            kept.holds = kept.holds.saturating_sub(count);
        }
        self.end_if_unused(state, id)
    }

    fn is_in_grace(&self) -> bool {
        self.grace.is_some_and(|grace| Instant::now() < grace)
    }

    /// Whether nobody can come to a region any more. What a clone began as is there as long as the clone is.
    fn is_unused(state: &State, id: RegionId) -> bool {
        state.names.links(id) == 0
            && state.kept.get(&id).is_some_and(|kept| kept.holds == 0 && !kept.region.history().has_clones())
    }

    fn end_if_unused(&self, state: &mut State, id: RegionId) -> Option<Arc<Region>> {
        if let Some((of, name)) = state.frozen.get(&id).cloned() {
            self.end_automatic(state, id, of, &name);
            return None;
        }
        if !Self::is_unused(state, id) {
            return self.retire(state, id);
        }
        if self.is_in_grace() {
            state.left.push(id);
            return None;
        }
        if let Err(error) = self.store.change(Update { regions: vec![(id, None)], ..Update::default() }) {
            tracing::warn!(region = id.0, "a region that nobody uses any more stays for now: {error}");
            state.left.push(id);
            return None;
        }
        self.take_out(state, id)
    }

    fn take_out(&self, state: &mut State, id: RegionId) -> Option<Arc<Region>> {
        let kept = state.kept.remove(&id)?;
        self.memory.regions_mut().remove(&id);
        self.hide_snapshots(state, &kept.region);
        if let Some((parent, epoch)) = kept.region.origin() {
            self.unclone(state, parent, epoch, id);
        }
        Some(kept.region)
    }

    /// Changes names, and what goes with them, once the store has taken it; after an error all is as it was.
    fn change<T>(
        &self,
        state: &mut State,
        change: impl FnOnce(&mut Namespace, &mut Update) -> Answer<T>,
    ) -> Answer<T> {
        let before = state.names.clone();
        let mut more = Update::default();
        let changed = change(&mut state.names, &mut more).and_then(|changed| {
            let Update { directories, children, .. } = state.names.take_changes();
            if !self.store.is_durable() {
                return Ok(changed);
            }
            self.take(Update { directories, children, ..more })?;
            Ok(changed)
        });
        if changed.is_err() {
            state.names = before;
        }
        changed
    }

    fn take(&self, update: Update) -> Answer<()> {
        self.store.change(update).map_err(|error| {
            let text = format!("the store did not take the change ({error}); nothing was changed");
            Refusal::new(error.code(), text)
        })
    }

    fn check_room(&self, state: &State) -> Answer<()> {
        let used = state.kept.len() as u64 + state.names.directories() - 1 + state.names.symlinks();
        if used < self.limits.regions {
            return Ok(());
        }
        let text = format!(
            "the server has {used} regions, snapshots, directories and symbolic links, as many as it allows (--max-regions); remove some"
        );
        Err(Refusal::new(ErrorCode::TooManyRegions, text))
    }

    /// Takes a hold for the client, and the entry with its epoch pinned for the cache.
    fn hold(&self, state: &mut State, who: Who, id: RegionId) -> Answer<Entry> {
        let links = self.links(state, id);
        let region = self.memory.region(id)?;
        let Some(kept) = state.kept.get_mut(&id) else { return Ok(region.open_entry(who.cache)) };
        kept.holds += 1;
        let entry = Entry { links, ..kept.region.open_entry(who.cache) };
        *state.clients.entry(who.client).or_default().holds.entry(id).or_default() += 1;
        Ok(entry)
    }

    /// Enters the region that `make` makes, under a name if `name` gives it one.
    fn new_region(
        &self,
        state: &mut State,
        make: impl FnOnce(RegionId) -> Region,
        name: impl FnOnce(&mut Namespace, RegionId) -> Answer<()>,
    ) -> Answer<Arc<Region>> {
        let id = RegionId(state.last_region + 1);
        let region = Arc::new(make(id));
        self.change(state, |names, update| {
            name(names, id)?;
            let root = Arc::clone(region.views().current());
            update.regions.push((id, Some(region.row(&root))));
            let (mode, modified_ns) = region.attributes();
            update.attributes.push((id, Attribute::Mode, mode.into()));
            update.attributes.push((id, Attribute::Modified, modified_ns));
            update.last_region = Some(id.0);
            Ok(())
        })?;
        state.last_region = id.0;
        state.kept.insert(id, Kept { region: Arc::clone(&region), holds: 0 });
        self.memory.regions_mut().insert(id, Arc::clone(&region));
        Ok(region)
    }

    /// `Open`.
    pub fn open(&self, who: Who, request: &Open) -> Answer<Entry> {
        check_mode(request.mode)?;
        let name = name_of(&request.name)?;
        if name.as_str().contains('@')
            && self.state().names.find(&name).is_err()
            && let Some((mut state, id)) = self.show_snapshot(&name)?
        {
            if request.create == Create::Exclusive {
                return Err(Refusal::new(ErrorCode::Exists, format!("{:?} is a snapshot", name.as_str())));
            }
            return self.hold(&mut state, who, id);
        }
        let mut state = self.state();
        match (state.names.find(&name), request.create) {
            (Ok(_), Create::Exclusive) => {
                Err(Refusal::new(ErrorCode::Exists, format!("{:?} is there already", name.as_str())))
            }
            (Ok(Child::Directory), _) => {
                Err(Refusal::new(ErrorCode::IsDirectory, format!("{:?} is a directory", name.as_str())))
            }
            (Ok(Child::Region(id)), _) => self.hold(&mut state, who, id),
            (Ok(Child::Symlink(_)), _) => {
                let text = format!("{:?} is a symbolic link; ask where it leads", name.as_str());
                Err(Refusal::new(ErrorCode::Link, text))
            }
            // What lies behind a link may be there.
            (Err(refusal), _) if refusal.code == ErrorCode::Link => Err(refusal),
            (Err(refusal), Create::Never) => Err(refusal),
            (Err(_), Create::IfMissing | Create::Exclusive) => {
                // The name is tried before the limit: a missing directory is the better answer.
                if state.names.directory_is_there(name.parent()) {
                    self.check_room(&state)?;
                }
                let make = |id| Region::new(id, request.mode, 0, self.memory.reaper.clone());
                let region = self.new_region(&mut state, make, |names, id| names.add_region(&name, id))?;
                let entry = self.hold(&mut state, who, region.id)?;
                Ok(Entry { created: true, ..entry })
            }
        }
    }

    /// `OpenId`.
    pub fn open_id(&self, who: Who, id: RegionId) -> Answer<Entry> {
        let mut state = self.state();
        self.hold(&mut state, who, id)
    }

    /// `Inherit`.
    pub fn inherit(&self, who: Who, parent: ClientId, regions: &[RegionId]) {
        let mut state = self.state();
        for id in regions {
            let held = state.clients.get(&parent).is_some_and(|parent| parent.holds.contains_key(id));
            if let Some(kept) = state.kept.get_mut(id).filter(|_| held) {
                kept.holds += 1;
                *state.clients.entry(who.client).or_default().holds.entry(*id).or_default() += 1;
            }
        }
    }

    /// `Reclaim`. Said twice it is the same.
    pub fn reclaim(&self, who: Who, holds: &[(RegionId, u32)]) {
        let mut state = self.state();
        for (id, count) in holds {
            let had = state.clients.get(&who.client).and_then(|client| client.holds.get(id)).copied();
            let more = u64::from(*count).saturating_sub(had.unwrap_or(0));
            if let Some(kept) = state.kept.get_mut(id).filter(|_| more > 0) {
                kept.holds += more;
                kept.region.set_ended(false);
                let mut views = kept.region.views();
                let current = views.current().epoch;
                views.pin(who.cache, current);
                drop(views);
                *state.clients.entry(who.client).or_default().holds.entry(*id).or_default() += more;
            }
        }
    }

    /// `CreateUnnamed`.
    pub fn create_unnamed(&self, who: Who, request: &CreateUnnamed) -> Answer<Entry> {
        if request.size > self.limits.region_bytes {
            let text = format!(
                "{} bytes are more than the {} that this server allows in a region (--max-region)",
                request.size, self.limits.region_bytes
            );
            return Err(Refusal::new(ErrorCode::TooLarge, text));
        }
        let mut state = self.state();
        self.check_room(&state)?;
        let make = |id| Region::new(id, UNNAMED_MODE, request.size, self.memory.reaper.clone());
        let region = self.new_region(&mut state, make, |_, _| Ok(()))?;
        let entry = self.hold(&mut state, who, region.id)?;
        Ok(Entry { created: true, ..entry })
    }

    /// `Close`.
    pub fn close(&self, who: Who, id: RegionId) -> Answer<()> {
        let mut state = self.state();
        let held = state.clients.get_mut(&who.client).and_then(|client| {
            let count = client.holds.get_mut(&id)?;
            *count -= 1;
            if *count == 0 {
                client.holds.remove(&id);
            }
            Some(())
        });
        if held.is_none() {
            let text = format!("region {id} is not held by this client: it was closed before");
            return Err(Refusal::new(ErrorCode::NotFound, text));
        }
        let ended = (self.release(&mut state, id, 1), self.end_pending(&mut state, id, who.cache));
        drop(state);
        drop(ended);
        Ok(())
    }
}

/// An entry of something that is no region.
fn plain(kind: EntryKind) -> Entry {
    Entry {
        kind,
        region: RegionId(0),
        size: 0,
        epoch: Epoch(0),
        mode: 0o777,
        modified_ns: 0,
        stored_pages: 0,
        created: false,
        links: 1,
        target: Vec::new(),
    }
}

#[cfg(test)]
#[path = "catalog_tests.rs"]
mod tests;
