//! netmem-server: what keeps the pages.
//!
//! Owns: a running server. Called by: main, tests. Must not: read arguments or touch signals.
//!
//! The arrow, one way only: main → listen → shards → session → requests → catalog, region, commit → tree → slab; store beside them.
//! Lock order: a region's turn, or the catalog's lock (never both); the list of regions; a region's views; the slabs.

#![deny(unsafe_code)]

pub mod catalog;
pub mod changes;
pub mod commit;
pub mod config;
pub mod listen;
pub mod memory;
pub mod namespace;
pub mod presence;
pub mod reaper;
pub mod refusal;
pub mod region;
pub mod requests;
pub mod resolve;
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

use std::io;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{RecvTimeoutError, Sender, bounded};
use thiserror::Error;

use crate::catalog::Catalog;
use crate::config::Config;
use crate::listen::Listener;
use crate::memory::Memory;
use crate::reaper::Reaper;
use crate::requests::Shared;
use crate::shards::Shards;
use crate::shutdown::Sessions;
use crate::stats::Stats;
use crate::store::Store;

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
    /// Listens, with a store of memory.
    pub fn start(config: &Config) -> Result<Self, StartError> {
        let store = store::memory::Memory::new();
        let store = store.map_err(|error| StartError::System { what: "a random number", error })?;
        Self::start_with(config, Arc::new(store))
    }

    /// Listens, with this store.
    pub fn start_with(config: &Config, store: Arc<dyn Store>) -> Result<Self, StartError> {
        let memory = Arc::new(Memory::new(config.limits.memory_bytes, Reaper::start()));
        let shared = Arc::new(Shared {
            limits: config.limits,
            hello_timeout: config.hello_timeout,
            catalog: Catalog::new(Arc::clone(&memory), config.limits, config.lease),
            memory,
            store,
            stats: Stats::default(),
            sessions: Arc::new(Sessions::default()),
        });
        let listeners = listeners(config)?;
        let system = |what| move |error| StartError::System { what, error };
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
