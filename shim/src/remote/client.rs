//! Requests: a connection, an exchange, and what happens when the connection breaks.
//!
//! Owns: retry, replay and the check that the server is still the same one. Called by: everything in the shim that has a
//! question for the server. Must not: hold a lock while it waits for the network.
//!
//! Which requests are sent again, and how the second answer is read, is in `names.rs`.

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use core::time::Duration;
use std::collections::BTreeMap;
use std::sync::Arc;

use netmem_protocol::control::Inherit;
use netmem_protocol::{
    CAPABILITY_PACKED, CAPABILITY_SUMS, CacheId, ClientHello, ClientId, CommitId, Disposition, Epoch,
    HelloStatus, Kind, REGION_BYTES_MAX, RegionId, ServerHello,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::address::resolve;
use super::connection::{Ask, Connection, Trouble};
use super::error::{Applied, RemoteError, Why};
use super::packing::Packing;
use super::patience::Patience;
use super::pool::{Lease, Place, Pool, Taken};
use super::{RemoteConfig, RemoteStats};
use crate::config::Compress;
use crate::sync::QuietMutex;
use crate::sys::net::{Deadline, Socket};

/// How long the very first connection is tried for: a wrong address is told at once, not after the timeout.
pub const FIRST_CONTACT: Duration = Duration::from_secs(1);
/// How long a server that has taken the very first connection may take to say hello: it is there, and may be busy.
const FIRST_GREETING: Duration = Duration::from_secs(3);
/// How long one attempt to connect and say hello may take, if the request has that long.
const ATTEMPT_MAX: Duration = Duration::from_secs(5);

/// The server of this process.
pub struct Remote {
    config: RemoteConfig,
    server: Arc<str>,
    cache: CacheId,
    pub(super) pool: Pool,
    /// Whether `identity.first` is set: the question that needs no lock.
    contacted: AtomicBool,
    /// What `identity.first` says of the largest region, likewise; 0: nothing yet.
    region_bytes_max: AtomicU64,
    /// Lock order: a leaf. Held for a copy, never while waiting.
    pub(super) identity: QuietMutex<Identity>,
    commits: AtomicU64,
    /// Whether pages are packed.
    pub packing: Packing,
    /// Connections that broke and were not yet made again.
    broken: AtomicU32,
}

#[derive(Clone, Debug)]
pub(super) struct Identity {
    client: ClientId,
    /// The first hello, to which all others are compared.
    first: Option<ServerHello>,
    /// In a forked child, until the server knows what it holds of its parent's.
    pub(super) inheritance: Option<Inherit>,
    /// The run of the server that knows what we hold; 0: none does yet, or it does not say.
    pub(super) instance: u64,
    /// How many holds of which regions the server gave us.
    pub(super) holds: BTreeMap<RegionId, u32>,
    /// Where it keeps what is pending of them.
    pub(super) pending: BTreeMap<RegionId, RegionId>,
}

/// Whether a request may be sent again when its answer was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Replay {
    /// As often as it takes.
    Freely,
    /// Once; see the table in `names.rs`.
    Once,
    /// Never.
    Never,
}

impl core::fmt::Debug for Remote {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Remote").field("server", &self.server).finish_non_exhaustive()
    }
}

impl Remote {
    /// A server that nobody has talked to yet. Makes no connection.
    pub fn new(config: RemoteConfig, client: ClientId, cache: CacheId) -> Remote {
        let server = Arc::from(config.address.to_string());
        let packing = Packing::new(config.compress);
        Remote {
            config,
            server,
            cache,
            pool: Pool::new(),
            contacted: AtomicBool::new(false),
            region_bytes_max: AtomicU64::new(0),
            identity: QuietMutex::new(Identity {
                client,
                first: None,
                inheritance: None,
                instance: 0,
                holds: BTreeMap::new(),
                pending: BTreeMap::new(),
            }),
            commits: AtomicU64::new(0),
            packing,
            broken: AtomicU32::new(0),
        }
    }

    /// Gives requests another time from now on.
    #[cfg(test)]
    pub(super) fn give_time(&mut self, timeout: Duration) {
        self.config.timeout = Some(timeout);
    }

    /// What the server said at the first connection; makes it if there was none.
    pub fn hello(&self) -> Result<ServerHello, RemoteError> {
        if !self.contacted.load(Ordering::Acquire) {
            self.lease(&mut self.patience(), true)?.keep();
        }
        match self.identity.lock().first {
            Some(hello) => Ok(hello),
            None => Err(self.unreachable(Why::Closed, Duration::ZERO)),
        }
    }

    /// Bytes that the server allows in a region. Asked before every write.
    pub fn region_bytes_max(&self) -> u64 {
        match self.region_bytes_max.load(Ordering::Relaxed) {
            0 => self.hello().map_or(REGION_BYTES_MAX, |hello| hello.region_bytes_max),
            most => most,
        }
    }

    /// The server's URL.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// What went over the wire.
    pub fn stats(&self) -> &RemoteStats {
        &self.pool.stats
    }

    /// In a forked child, before any other use: gives up the parent's connections without a word on them, and goes by the name of
    /// `client` from now on, which holds what the parent does of `regions` from the first connection on; `pending` is where the server keeps
    /// what is pending of which. Waits for nobody.
    pub fn forget_connections(
        &self,
        client: ClientId,
        regions: Vec<RegionId>,
        pending: Vec<(RegionId, RegionId)>,
    ) {
        self.identity.reset_after_fork();
        self.pool.forget();
        let mut identity = self.identity.lock();
        let holds_nothing = !self.contacted.load(Ordering::Acquire);
        let inherited = !holds_nothing && !regions.is_empty();
        // If the parent is a child that could not tell the server yet, what it has is its own parent's.
        let parent = identity.inheritance.as_ref().map_or(identity.client, |its| its.parent);
        // The parent may have been caught changing it: not even dropped.
        core::mem::forget(core::mem::take(&mut identity.holds));
        core::mem::forget(core::mem::take(&mut identity.pending));
        identity.holds = regions.iter().map(|region| (*region, 1)).collect();
        identity.pending = pending.into_iter().collect();
        identity.inheritance = inherited.then_some(Inherit { parent, regions });
        identity.client = client;
        // The parent may have been caught writing it.
        if holds_nothing {
            self.region_bytes_max.store(0, Ordering::Relaxed);
            identity.first = None;
        }
    }

    /// Forgets which store the server had, for a process that holds nothing of it any more: whatever store is there at the next
    /// connection is the right one.
    pub fn forget_store(&self) {
        let mut identity = self.identity.lock();
        self.contacted.store(false, Ordering::Release);
        self.region_bytes_max.store(0, Ordering::Relaxed);
        identity.first = None;
        identity.inheritance = None;
        identity.instance = 0;
        identity.holds.clear();
        identity.pending.clear();
        drop(identity);
        self.pool.drop_idle();
    }

    /// A number for a commit, never given twice.
    pub(super) fn next_commit(&self) -> CommitId {
        CommitId(self.commits.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// Asks until there is an answer, and says whether an earlier one may have been lost.
    pub(super) fn ask_at<B: Serialize, T: DeserializeOwned>(
        &self,
        kind: Kind,
        region: RegionId,
        epoch: Epoch,
        body: &B,
        replay: Replay,
    ) -> (Result<T, RemoteError>, bool) {
        let ask = Ask { kind, region, epoch, body };
        let mut patience = self.patience();
        let mut replayed = false;
        let answer = loop {
            let mut lease = match self.lease(&mut patience, true) {
                Ok(lease) => lease,
                Err(error) => break Err(error),
            };
            let Some(connection) = lease.get() else {
                break Err(self.unreachable(Why::Closed, patience.waited()));
            };
            let trouble = match connection.exchange(&ask, patience.deadline) {
                Ok(value) => {
                    self.answered(lease);
                    break Ok(value);
                }
                Err(trouble) => trouble,
            };
            if let Trouble::Broken { sent: true, why } = &trouble {
                match (replay, replayed) {
                    (Replay::Freely, _) | (Replay::Once, false) => replayed = true,
                    (Replay::Once, true) | (Replay::Never, _) => {
                        self.broke(lease);
                        break Err(self.lost(why.clone(), Applied::Maybe));
                    }
                }
            }
            if let Err(error) = self.recover(lease, trouble, &mut patience) {
                break Err(error);
            }
        };
        (answer, replayed)
    }

    /// After a request failed on a connection: Ok if it is worth another attempt.
    pub(super) fn recover(
        &self,
        lease: Lease<'_>,
        trouble: Trouble,
        patience: &mut Patience,
    ) -> Result<(), RemoteError> {
        match trouble {
            Trouble::Answer(code, text) => match code.disposition() {
                Disposition::Answer => {
                    self.answered(lease);
                    Err(RemoteError::Answer { code, text })
                }
                Disposition::Fatal => {
                    drop(lease);
                    Err(RemoteError::Answer { code, text })
                }
                Disposition::Reconnect => {
                    self.broke(lease);
                    patience.pause(patience.deadline).map_err(|()| RemoteError::Answer { code, text })
                }
            },
            Trouble::Broken { why, .. } => {
                self.broke(lease);
                patience.pause(patience.deadline).map_err(|()| self.unreachable(why, patience.waited()))
            }
            Trouble::TimedOut { .. } => {
                drop(lease);
                Err(RemoteError::TimedOut { server: self.server.clone(), waited: patience.waited() })
            }
            Trouble::Protocol(error) => {
                drop(lease);
                Err(RemoteError::Protocol { server: self.server.clone(), error })
            }
            Trouble::Refused(status) => Err(RemoteError::Refused { server: self.server.clone(), status }),
        }
    }

    /// A connection of one's own. With `checked`, one that this host knows to be dead is not handed out, so that requests
    /// that can't be repeated freely are not wasted on it.
    pub(super) fn lease(&self, patience: &mut Patience, checked: bool) -> Result<Lease<'_>, RemoteError> {
        // What a server said is worth more than that it did not answer the next time.
        let mut said = None;
        loop {
            let (limit, greeting) = if self.contacted.load(Ordering::Acquire) {
                (patience.deadline, patience.deadline)
            } else {
                let greeting = Deadline::after(Some(FIRST_GREETING));
                (patience.deadline.min(patience.first_contact), patience.deadline.min(greeting))
            };
            let place = match self.pool.take(limit) {
                Some(Taken::Open(lease)) if !checked || lease.is_quiet() => return Ok(lease),
                Some(Taken::Open(lease)) => {
                    self.broke(lease);
                    continue;
                }
                Some(Taken::Room(place)) => place,
                None => return Err(self.unreachable(Why::Busy, patience.waited())),
            };
            let attempt = Deadline::after(Some(ATTEMPT_MAX));
            let trouble = match self.connect(place, limit.min(attempt), greeting.min(attempt)) {
                Ok((connected, hello)) => {
                    let lease = self.check_store(connected, hello)?;
                    let deadline = greeting.min(attempt);
                    let lease = self.reclaim(lease, hello.instance, deadline);
                    match lease.and_then(|lease| self.inherit(lease, deadline)) {
                        Ok(lease) => return Ok(lease),
                        Err(trouble) => trouble,
                    }
                }
                Err(trouble) => trouble,
            };
            let again = match &trouble {
                Trouble::Broken { .. } | Trouble::TimedOut { .. } => true,
                Trouble::Refused(status) => *status != HelloStatus::Version,
                Trouble::Protocol(_) | Trouble::Answer(..) => false,
            };
            if let Trouble::Refused(status) = &trouble {
                said = Some(*status);
            }
            if again && patience.pause(limit).is_ok() {
                continue;
            }
            let waited = patience.waited();
            return Err(match said.map_or(trouble, Trouble::Refused) {
                Trouble::Broken { why, .. } => self.unreachable(why, waited),
                Trouble::TimedOut { .. } => self.unreachable(Why::Silent, waited),
                Trouble::Refused(status) => RemoteError::Refused { server: self.server.clone(), status },
                Trouble::Protocol(error) => RemoteError::Protocol { server: self.server.clone(), error },
                Trouble::Answer(code, text) => RemoteError::Answer { code, text },
            });
        }
    }

    fn connect<'a>(
        &self,
        place: Place<'a>,
        deadline: Deadline,
        greeting: Deadline,
    ) -> Result<(Lease<'a>, ServerHello), Trouble> {
        let broken = |why| Trouble::Broken { sent: false, why };
        let client = self.identity.lock().client;
        let mut last = Why::NoAddress;
        for endpoint in resolve(&self.config.address).map_err(broken)? {
            let socket = match Socket::new(&endpoint, self.config.timeout) {
                Ok(socket) => socket,
                Err(error) => {
                    last = error.into();
                    continue;
                }
            };
            // From here on a forked child knows the descriptor; it must forget the number before anyone closes it.
            place.note(socket.raw());
            if let Err(error) = socket.connect(&endpoint, deadline) {
                place.forget();
                last = error.into();
                continue;
            }
            let mut connection = Connection::new(socket, place.slot());
            let packs = match self.config.compress {
                Compress::Off => false,
                // What is here has no wire, and memory and processors are shared with it.
                Compress::Auto => !endpoint.is_here(),
                Compress::Measured | Compress::On => true,
            };
            let capabilities = CAPABILITY_SUMS | if packs { CAPABILITY_PACKED } else { 0 };
            let hello = ClientHello { capabilities, ..ClientHello::new(client, self.cache) };
            return match connection.greet(&hello, greeting) {
                Ok(hello) => Ok((place.fill(connection), hello)),
                Err(trouble) => {
                    place.forget();
                    Err(trouble)
                }
            };
        }
        Err(broken(last))
    }

    fn check_store<'a>(&self, lease: Lease<'a>, hello: ServerHello) -> Result<Lease<'a>, RemoteError> {
        let mut identity = self.identity.lock();
        let ServerHello { store: first, region_bytes_max, .. } = *identity.first.get_or_insert(hello);
        self.region_bytes_max.store(region_bytes_max, Ordering::Relaxed);
        self.contacted.store(true, Ordering::Release);
        drop(identity);
        if first != hello.store {
            drop(lease);
            return Err(RemoteError::StoreChanged { server: self.server.clone(), first, now: hello.store });
        }
        if self.broken.swap(0, Ordering::Relaxed) > 0 {
            self.pool.stats.reconnects.fetch_add(1, Ordering::Relaxed);
            crate::log::debug!("{}: connected again", self.server);
        }
        Ok(lease)
    }

    /// Whether the server can be reached at once.
    pub fn is_there(&self) -> bool {
        let mut patience = self.patience();
        patience.deadline = patience.deadline.min(patience.first_contact);
        self.lease(&mut patience, true).map(Lease::keep).is_ok()
    }

    /// A request was answered: its connection goes back to the others.
    pub(super) fn answered(&self, lease: Lease<'_>) {
        self.pool.stats.requests.fetch_add(1, Ordering::Relaxed);
        lease.keep();
    }

    /// A connection broke: it goes, and so do the idle ones, which are as old.
    pub(super) fn broke(&self, lease: Lease<'_>) {
        drop(lease);
        self.broken.fetch_add(1, Ordering::Relaxed);
        self.pool.drop_idle();
    }

    pub(super) fn lost(&self, why: Why, answered: Applied) -> RemoteError {
        RemoteError::Lost { server: self.server.clone(), why, answered }
    }

    pub(super) fn unreachable(&self, why: Why, waited: Duration) -> RemoteError {
        RemoteError::Unreachable { server: self.server.clone(), why, waited }
    }

    pub(super) fn server_name(&self) -> Arc<str> {
        self.server.clone()
    }

    pub(super) fn patience(&self) -> Patience {
        Patience::new(self.config.timeout)
    }
}
