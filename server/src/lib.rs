//! netmem-server: what keeps the pages.
//!
//! Owns: a running server. Called by: main, tests. Must not: read arguments or touch signals.
//!
//! The arrow, one way only: main → listen → shards → session → requests → catalog, region, commit → tree → slab; store beside them.
//! Lock order: a region's turn; the catalog's lock; the list of regions; a region's history; its views; the store's; the slabs.

#![deny(unsafe_code)]

pub mod catalog;
pub mod changes;
pub mod check;
pub mod commit;
pub mod config;
pub mod content;
pub mod greeting;
pub mod history;
pub mod listen;
pub mod memory;
pub mod namespace;
pub mod packs;
pub mod presence;
pub mod reaper;
pub mod refusal;
pub mod region;
pub mod requests;
pub mod resolve;
pub mod scrub;
pub mod session;
pub mod shards;
pub mod shutdown;
pub mod slab;
pub mod staging;
pub mod stats;
pub mod store;
pub mod tree;
pub mod views;
pub mod wire;

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{RecvTimeoutError, Sender, bounded};
use netmem_protocol::StoreId;
use thiserror::Error;

use crate::catalog::Catalog;
use crate::config::{Config, StoreKind};
use crate::listen::Listener;
use crate::memory::Memory;
use crate::reaper::Reaper;
use crate::requests::Shared;
use crate::shards::Shards;
use crate::shutdown::Sessions;
use crate::stats::Stats;
use crate::store::Store;
use crate::store::disk::{Directory, Disk};
use crate::store::durable::Durable;

/// How often leases are looked at.
const HOUSEKEEPING: Duration = Duration::from_secs(1);

/// Why a server does not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// An address that it cannot listen on.
    #[error("cannot listen on {address}: {error}")]
    Listen {
        /// The address.
        address: String,
        /// Why.
        error: io::Error,
    },
    /// A store that can't be opened; the line for the user.
    #[error("{0}")]
    Store(String),
    /// No thread, no random number, no descriptor.
    #[error("the system refuses {what}: {error}")]
    System {
        /// What it refuses.
        what: &'static str,
        /// Why.
        error: io::Error,
    },
}

/// A server that listens.
pub struct Server {
    urls: Vec<String>,
    shared: Arc<Shared>,
    /// Lives as long as anything is served.
    shards: Arc<Shards>,
    /// Closing it ends the accepting threads.
    stop: UnixStream,
    accepting: Vec<JoinHandle<()>>,
    /// Closing it ends housekeeping.
    housekeeping: Sender<()>,
}

impl Server {
    /// Opens the store, and listens.
    pub fn start(config: &Config) -> Result<Self, StartError> {
        let id = random_id().map_err(|error| StartError::System { what: "a random number", error })?;
        match &config.store {
            StoreKind::Memory => Self::start_with(config, Arc::new(store::memory::Memory::new(id))),
            StoreKind::Directory(path) => {
                let disk = Directory::open(path, true).map_err(StartError::Store)?;
                Self::start_on(config, Box::new(disk), id)
            }
        }
    }

    /// Opens the store that is on a disk, or begins one with this identity, and listens.
    pub fn start_on(config: &Config, disk: Box<dyn Disk>, id: StoreId) -> Result<Self, StartError> {
        let (name, started) = (disk.name(), Instant::now());
        let failed = |error| StartError::Store(format!("the store in {name} can't be opened: {error}"));
        let (store, loaded) = Durable::open(disk, id, config.limits.keep_epochs).map_err(failed)?;
        let (regions, (pages, _)) = (loaded.names.regions.len(), store.pages().usage());
        let took = started.elapsed();
        tracing::info!("{name}: {regions} regions, {pages} pages, opened in {} ms", took.as_millis());
        let bytes = config.limits.memory_bytes;
        let memory = Arc::new(Memory::with_store(bytes, Reaper::start(), Arc::clone(store.pages())));
        let store: Arc<dyn Store> = Arc::new(store);
        let (keeps, holds) = (Arc::clone(&store), Arc::clone(&memory));
        let catalog = Catalog::restored(holds, keeps, config.limits, config.lease, loaded).map_err(failed)?;
        Self::listen(config, store, memory, catalog)
    }

    /// Listens, with this store, which is empty.
    pub fn start_with(config: &Config, store: Arc<dyn Store>) -> Result<Self, StartError> {
        let memory = Arc::new(Memory::new(config.limits.memory_bytes, Reaper::start()));
        let (keeps, holds) = (Arc::clone(&store), Arc::clone(&memory));
        let catalog = Catalog::new(holds, keeps, config.limits, config.lease);
        Self::listen(config, store, memory, catalog)
    }

    fn listen(
        config: &Config,
        store: Arc<dyn Store>,
        memory: Arc<Memory>,
        catalog: Catalog,
    ) -> Result<Self, StartError> {
        let system = |what| move |error| StartError::System { what, error };
        let shared = Arc::new(Shared {
            limits: config.limits,
            hello_timeout: config.hello_timeout,
            instance: random_instance().map_err(system("a random number"))?,
            catalog,
            memory,
            store,
            stats: Stats::default(),
            sessions: Arc::new(Sessions::default()),
        });
        let listeners = listeners(config)?;
        let (stop, stopped) = UnixStream::pair().map_err(system("a socket pair"))?;
        let urls = listeners.iter().map(Listener::url).collect();
        let shards = Arc::new(Shards::start().map_err(system("threads"))?);
        let mut accepting = Vec::new();
        for listener in listeners {
            let (shared, shards) = (Arc::clone(&shared), Arc::clone(&shards));
            let stopped = stopped.try_clone().map_err(system("a descriptor"))?;
            let run = move || listener.run(&shared, &shards, &stopped);
            let thread = thread::Builder::new().name("accept".into()).spawn(run);
            accepting.push(thread.map_err(system("a thread"))?);
        }
        let housekeeping = keep_house(&shared, config.lease).map_err(system("a thread"))?;
        Ok(Server { urls, shared, shards, stop, accepting, housekeeping })
    }

    /// Where it listens, as clients name it: TCP first.
    pub fn urls(&self) -> &[String] {
        &self.urls
    }

    /// What its sessions share.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Stops accepting, lets sessions finish what has arrived, within [`shutdown::SHUTDOWN_MAX`]. False if some were cut off.
    pub fn stop(self) -> bool {
        drop(self.stop);
        for thread in self.accepting {
            let _ = thread.join();
        }
        drop(self.housekeeping);
        let all = self.shared.sessions.end();
        drop(self.shards);
        all
    }
}

fn random_instance() -> io::Result<u64> {
    let StoreId(id) = random_id()?;
    Ok(id.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte)).max(1))
}

/// An identity for a new store.
pub fn random_id() -> io::Result<StoreId> {
    let mut id = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut id)?;
    Ok(StoreId(id))
}

fn listeners(config: &Config) -> Result<Vec<Listener>, StartError> {
    let mut listeners = Vec::new();
    if let Some(address) = config.tcp {
        let failed = |error| StartError::Listen { address: format!("tcp://{address}"), error };
        listeners.push(Listener::tcp(address).map_err(failed)?);
    }
    if let Some(path) = &config.unix {
        let failed = |error| StartError::Listen { address: format!("unix:{}", path.display()), error };
        listeners.push(Listener::unix(path).map_err(failed)?);
    }
    Ok(listeners)
}

/// Starts the thread that ends leases.
fn keep_house(shared: &Arc<Shared>, lease: Duration) -> io::Result<Sender<()>> {
    let (end, ended) = bounded::<()>(0);
    let shared = Arc::clone(shared);
    let every = HOUSEKEEPING.min(lease.max(Duration::from_millis(10)));
    thread::Builder::new().name("housekeeping".into()).spawn(move || {
        while ended.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
            shared.catalog.expire(Instant::now());
        }
    })?;
    Ok(end)
}
