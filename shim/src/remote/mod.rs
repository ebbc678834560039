//! The server, as the rest of the shim sees it.
//!
//! Owns: connections, deadlines, reconnecting, replay and the identity of commits. Called by: the pager through
//! [`PageSource`], the namespace operations through [`Remote`]. Must not: touch application memory, take a lock that another
//! thread may hold for long, or panic: it runs inside fault handlers.
//!
//! What is sent again after a connection broke, and what a lost answer can do, is in `names.rs`.

mod address;
mod checks;
mod client;
mod commit;
mod connection;
mod error;
mod fetch;
mod holds;
mod names;
mod packing;
mod patience;
mod pool;
mod source;

#[cfg(test)]
pub mod fake;
#[cfg(test)]
mod lying;
#[cfg(test)]
mod tests;

use core::sync::atomic::AtomicU64;
use core::time::Duration;

pub use client::{FIRST_CONTACT, Remote};
pub use commit::CommitStream;
pub use error::{Applied, CommitFailure, RemoteError, Why};
pub use pool::CONNECTIONS_MAX;
pub use source::{CommitBody, PageSink, PageSource, StageSink};

use crate::config::{Compress, Config, ServerAddress};

/// What a [`Remote`] needs to know.
#[derive(Clone, Debug)]
pub struct RemoteConfig {
    /// Where the server is.
    pub address: ServerAddress,
    /// How long one request may take, all reconnecting counted; `None`: for ever.
    pub timeout: Option<Duration>,
    /// Whether pages are compressed on the wire.
    pub compress: Compress,
}

impl From<&Config> for RemoteConfig {
    fn from(config: &Config) -> Self {
        RemoteConfig { address: config.server.clone(), timeout: config.timeout, compress: config.compress }
    }
}

/// What went over the wire since the start; a forked child counts on from where its parent was.
#[derive(Debug)]
pub struct RemoteStats {
    /// Bytes received.
    pub bytes_in: AtomicU64,
    /// Bytes sent.
    pub bytes_out: AtomicU64,
    /// Requests that were answered, refusals counted.
    pub requests: AtomicU64,
    /// Connections made after one had broken.
    pub reconnects: AtomicU64,
    /// Pages that came, zero pages counted.
    pub pages_fetched: AtomicU64,
    /// What a fetch of a few pages took lately, in nanoseconds: an average in which the last ones weigh an eighth each.
    pub round_trip_ns: AtomicU64,
}

impl RemoteStats {
    const fn new() -> Self {
        RemoteStats {
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            reconnects: AtomicU64::new(0),
            pages_fetched: AtomicU64::new(0),
            round_trip_ns: AtomicU64::new(0),
        }
    }
}
