//! Where pages come from and go to: all that the pager knows of a server.
//!
//! Owns: [`PageSource`] and what it hands over. Called by: the pager, with the server behind it, or a fake. Must not: know a connection.

use netmem_protocol::control::{Changes, Commit, Committed};
use netmem_protocol::{CommitId, Epoch, PageBodyBuilder, PageSpan, RegionId, Run};

use super::error::{CommitFailure, RemoteError};

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
    /// and page counts. Gives an answer for each of them, in their order. After a failure with [`Applied::Maybe`](super::Applied::Maybe),
    /// [`PageSource::commit_status`] of each region tells, and of all of them the same.
    fn commit(&self, body: &mut CommitBody<'_>) -> Result<Vec<Committed>, CommitFailure>;

    /// The region in which the server keeps what is pending of another one, and its epoch: `known`, or one that it makes if that is 0.
    /// [`ErrorCode::Unsupported`](netmem_protocol::ErrorCode::Unsupported) from a server that keeps none.
    fn keep(&self, of: RegionId, known: RegionId) -> Result<(RegionId, Epoch), RemoteError>;

    /// What is pending of a region is in that one, also if the server is restarted: it is to be told then.
    fn keeps(&self, of: RegionId, place: RegionId);

    /// What became of a commit; [`ErrorCode::NotFound`](netmem_protocol::ErrorCode::NotFound) if nothing.
    fn commit_status(&self, region: RegionId, commit: CommitId) -> Result<Committed, RemoteError>;
}

/// Where a commit's pages go.
pub trait StageSink {
    /// Sends the pages of a region that `builder` names; `data` holds its data pages, in order. Sends from where they lie.
    fn stage(&mut self, region: RegionId, builder: &PageBodyBuilder, data: &[u8]) -> Result<(), RemoteError>;

    /// The same with pages that are pending: those of region `from`, at most [`netmem_protocol::STAGE_FROM_PAGES_MAX`] in a call.
    fn stage_from(&mut self, region: RegionId, from: RegionId, runs: &[Run]) -> Result<(), RemoteError>;

    /// The commit's number.
    fn id(&self) -> CommitId;
}
