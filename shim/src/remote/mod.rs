//! The server, as the rest of the shim sees it.
//!
//! Owns: connections, deadlines, reconnecting, replay and the identity of commits. Called by: the pager through
//! [`PageSource`], the namespace operations through [`Remote`]. Must not: touch application memory, take a lock that another
//! thread may hold for long, or panic: it runs inside fault handlers.
//!
//! What is sent again after a connection broke, and what a lost answer can do, is in `names.rs`.

mod address;
mod client;
mod commit;
mod connection;
mod error;
mod fetch;
mod names;
mod patience;
mod pool;

#[cfg(test)]
pub mod fake;
#[cfg(test)]
mod lying;
#[cfg(test)]
mod tests;

use core::sync::atomic::AtomicU64;
use core::time::Duration;

use netmem_protocol::control::{Changes, Commit, Committed};
use netmem_protocol::{CommitId, Epoch, PageBodyBuilder, PageSpan, RegionId, Run};

pub use client::{FIRST_CONTACT, Remote};
pub use commit::CommitStream;
pub use error::{Applied, CommitFailure, RemoteError, Why};
pub use pool::CONNECTIONS_MAX;

use crate::config::ServerAddress;

/// What a [`Remote`] needs to know.
#[derive(Clone, Debug)]
pub struct RemoteConfig {
    /// Where the server is.
    pub address: ServerAddress,
    /// How long one request may take, all reconnecting counted; `None`: for ever.
    pub timeout: Option<Duration>,
}

/// Takes fetched pages, as many side by side as came so, and whether more of them came together with these.
pub type PageSink<'a> = dyn FnMut(PageSpan<'_>, bool) + 'a;

/// Fills a commit: stages pages, then says what else belongs to it, for each region that it is of; in the order of their numbers.
pub type CommitBody<'a> = dyn FnMut(&mut dyn StageSink) -> Result<Vec<(RegionId, Commit)>, RemoteError> + 'a;

/// Where pages come from and go to: all that the pager knows of a server.
pub trait PageSource: Sync {
    /// Hands `sink` exactly the pages asked for, in the order of `runs`, as they were at `epoch`. After an error, a first part of
    /// them may have been handed over.
    fn fetch(
        &self,
        region: RegionId,
        epoch: Epoch,
        runs: &[Run],
        sink: &mut PageSink<'_>,
    ) -> Result<(), RemoteError>;

    /// What changed after `epoch`, until another; 0: the newest. Both epochs stay readable until [`PageSource::view`].
    fn changes(&self, region: RegionId, epoch: Epoch, until: Epoch) -> Result<Changes, RemoteError>;

    /// Older epochs are no longer needed here.
    fn view(&self, region: RegionId, epoch: Epoch) -> Result<(), RemoteError>;

    /// Makes one attempt at a commit: all of it or nothing, in every region that the body names. The source fills in the commit's id
    /// and page counts. Gives an answer for each of them, in their order. After a failure with [`Applied::Maybe`],
    /// [`PageSource::commit_status`] of each region tells, and of all of them the same.
    fn commit(&self, body: &mut CommitBody<'_>) -> Result<Vec<Committed>, CommitFailure>;

    /// What became of a commit; [`ErrorCode::NotFound`](netmem_protocol::ErrorCode::NotFound) if nothing.
    fn commit_status(&self, region: RegionId, commit: CommitId) -> Result<Committed, RemoteError>;
}

/// Where a commit's pages go.
pub trait StageSink {
    /// Sends the pages of a region that `builder` names; `data` holds its data pages, in order. Sends from where they lie.
    fn stage(&mut self, region: RegionId, builder: &PageBodyBuilder, data: &[u8]) -> Result<(), RemoteError>;

    /// The commit's number.
    fn id(&self) -> CommitId;
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
