//! A commit on its way up: pages as they are captured, then the message that makes them visible.
//!
//! Owns: the commit's number, its page count, and the answer to "can it have happened?". Called by: the pager's flush. Must
//! not: repeat anything: the pager still has the pages, and starts again.

use std::time::Instant;

use netmem_protocol::control::{Commit, CommitTogether, Committed, CommittedTogether, StageFrom};
use netmem_protocol::pages::{PAGE_BODY_HEAD_BYTES, RUN_BYTES, SUM_BYTES};
use netmem_protocol::{
    CommitId, Disposition, Epoch, ErrorCode, FLAG_PACKED, Kind, PAGE_SIZE, PageBody, PageBodyBuilder,
    ProtocolError, RegionId, Run, RunKind,
};

use super::client::Remote;
use super::connection::{Ask, Connection, Trouble};
use super::error::{Applied, CommitFailure, RemoteError, Why};
use super::packing::Transfer;
use super::pool::Lease;
use super::{CommitBody, StageSink};
use crate::sys::net::Deadline;

/// One commit on one connection. Dropped unfinished, it takes the connection with it, and the server forgets the pages.
#[derive(Debug)]
pub struct CommitStream<'a> {
    remote: &'a Remote,
    lease: Lease<'a>,
    id: CommitId,
    /// How many pages went up of each region.
    staged_pages: Vec<(RegionId, u64)>,
    began: Instant,
    /// Whether they are packed.
    packs: bool,
    /// How many pages went up with content.
    data_pages: u64,
    /// What went wrong first; nothing is sent after that.
    failed: Option<RemoteError>,
}

impl Remote {
    /// Starts a commit.
    pub fn begin_commit(&self) -> Result<CommitStream<'_>, RemoteError> {
        let mut lease = self.lease(&mut self.patience(), true)?;
        let id = self.next_commit();
        let packs =
            self.packing.choose(Transfer::Commit) && lease.get().is_some_and(|connection| connection.packs);
        let (staged_pages, began) = (Vec::new(), Instant::now());
        Ok(CommitStream { remote: self, lease, id, staged_pages, began, packs, data_pages: 0, failed: None })
    }
}

impl StageSink for CommitStream<'_> {
    fn stage(&mut self, region: RegionId, builder: &PageBodyBuilder, data: &[u8]) -> Result<(), RemoteError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let sent = self.send_stage(region, builder, data);
        if let Err(error) = &sent {
            self.failed = Some(error.clone());
        }
        sent
    }

    fn stage_from(&mut self, region: RegionId, from: RegionId, runs: &[Run]) -> Result<(), RemoteError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let patience = self.remote.patience();
        let body = StageFrom { commit: self.id, from, runs: runs.to_vec() };
        let ask = Ask { kind: Kind::StageFrom, region, epoch: Epoch(0), body: &body };
        let lost = Trouble::Broken { sent: false, why: Why::Closed };
        let sent = self.lease.get().map_or(Err(lost), |connection| connection.send(&ask, patience.deadline));
        match sent {
            Ok(_) => {
                self.staged(region, runs.iter().map(|run| u64::from(run.count)).sum());
                Ok(())
            }
            Err(trouble) => {
                let error = self.explain(trouble, Applied::No, patience.waited());
                self.failed = Some(error.clone());
                Err(error)
            }
        }
    }

    fn id(&self) -> CommitId {
        self.id
    }
}

impl CommitStream<'_> {
    fn send_stage(
        &mut self,
        region: RegionId,
        builder: &PageBodyBuilder,
        data: &[u8],
    ) -> Result<(), RemoteError> {
        if data.len() != builder.data_pages() as usize * PAGE_SIZE {
            let error =
                ProtocolError::Malformed { what: "stage to send: its data is not as long as its runs" };
            return Err(RemoteError::Protocol { server: self.remote.server_name(), error });
        }
        let taken = self.lease.get().map_or(0, |connection| connection.frame_body_max);
        if body_bytes_most(builder) <= taken {
            return self.send_frame(region, builder, data);
        }
        let parts = split(builder, data, taken)
            .map_err(|error| RemoteError::Protocol { server: self.remote.server_name(), error })?;
        let mut rest = data;
        for part in parts {
            let (mine, behind) =
                rest.split_at_checked(part.data_pages() as usize * PAGE_SIZE).unwrap_or((rest, &[]));
            self.send_frame(region, &part, mine)?;
            rest = behind;
        }
        Ok(())
    }

    fn send_frame(
        &mut self,
        region: RegionId,
        builder: &PageBodyBuilder,
        data: &[u8],
    ) -> Result<(), RemoteError> {
        let patience = self.remote.patience();
        let id = self.id;
        let lost = || self.remote.lost(Why::Closed, Applied::No);
        let connection = self.lease.get().ok_or_else(lost)?;
        let with_sums = connection.with_sums;
        let mut packer = core::mem::take(&mut connection.packer);
        let block = if self.packs && !data.is_empty() { packer.pack(data) } else { None };
        let saved = block.map_or(0, |block| data.len() - block.len());
        let flags = if block.is_some() { FLAG_PACKED } else { 0 };
        let front = |out: &mut Vec<u8>| builder.encode(id, with_sums, out) - saved as u32;
        let (stage, to) = ((Kind::Stage, flags), (region, Epoch(0)));
        let sent = connection.send_raw(stage, to, front, block.unwrap_or(data), patience.deadline);
        connection.packer = packer.if_small();
        match sent {
            Ok(_) => {
                self.data_pages += u64::from(builder.data_pages());
                if saved > 0 {
                    self.remote.packing.saved(builder.data_pages(), saved);
                }
                self.staged(region, u64::from(builder.pages()));
                Ok(())
            }
            Err(trouble) => Err(self.explain(trouble, Applied::No, patience.waited())),
        }
    }

    fn staged(&mut self, region: RegionId, pages: u64) {
        match self.staged_pages.last_mut() {
            Some((last, count)) if *last == region => *count += pages,
            _ => self.staged_pages.push((region, pages)),
        }
    }

    /// Makes it happen. The stream fills in the commit's number and page counts.
    pub fn finish(mut self, mut parts: Vec<(RegionId, Commit)>) -> Result<Vec<Committed>, CommitFailure> {
        let id = self.id;
        if let Some(error) = self.failed.take() {
            return Err(CommitFailure { error, id, applied: Applied::No });
        }
        for (region, commit) in &mut parts {
            let staged = self.staged_pages.iter().filter(|(staged, _)| staged == region);
            (commit.commit, commit.staged_pages) = (id, staged.map(|(_, pages)| pages).sum());
        }
        let patience = self.remote.patience();
        let outcome = match self.lease.get() {
            Some(connection) => ask_for(connection, parts, patience.deadline),
            None => Err(Trouble::Broken { sent: false, why: Why::Closed }),
        };
        let trouble = match outcome {
            Ok(committed) => {
                self.remote.packing.took(Transfer::Commit, self.packs, self.data_pages, self.began);
                self.remote.answered(self.lease);
                return Ok(committed);
            }
            Err(trouble) => trouble,
        };
        let applied = match &trouble {
            Trouble::Broken { sent, .. } | Trouble::TimedOut { sent } => {
                if *sent {
                    Applied::Maybe
                } else {
                    Applied::No
                }
            }
            // A server that fails half-way, or answers nonsense, may have done it.
            Trouble::Answer(ErrorCode::Internal, _) | Trouble::Protocol(_) => Applied::Maybe,
            Trouble::Answer(..) | Trouble::Refused(_) => Applied::No,
        };
        if let Trouble::Answer(ErrorCode::Corrupt, text) = &trouble {
            // The pages are as they were captured: the commit starts over, on another connection.
            crate::log::error!("{}: {text}", self.remote.server());
            let error = self.remote.lost(Why::Closed, Applied::No);
            self.remote.broke(self.lease);
            return Err(CommitFailure { error, id, applied: Applied::No });
        }
        if let Trouble::Answer(code, text) = trouble {
            if code.disposition() == Disposition::Answer {
                self.remote.answered(self.lease);
            }
            return Err(CommitFailure { error: RemoteError::Answer { code, text }, id, applied });
        }
        let error = self.explain(trouble, applied, patience.waited());
        if matches!(error, RemoteError::Lost { .. }) {
            self.remote.broke(self.lease);
        }
        Err(CommitFailure { error, id, applied })
    }

    #[cfg(test)]
    pub(super) fn give_back(self) {
        self.lease.keep();
    }

    fn explain(&self, trouble: Trouble, answered: Applied, waited: core::time::Duration) -> RemoteError {
        let server = self.remote.server_name();
        match trouble {
            Trouble::Broken { why, .. } => RemoteError::Lost { server, why, answered },
            Trouble::TimedOut { .. } => RemoteError::TimedOut { server, waited },
            Trouble::Protocol(error) => RemoteError::Protocol { server, error },
            Trouble::Refused(status) => RemoteError::Refused { server, status },
            Trouble::Answer(code, text) => RemoteError::Answer { code, text },
        }
    }
}

/// Sends the message that makes it happen, and reads the answer.
fn ask_for(
    connection: &mut Connection,
    parts: Vec<(RegionId, Commit)>,
    deadline: Deadline,
) -> Result<Vec<Committed>, Trouble> {
    if let [(region, body)] = &parts[..] {
        let ask = Ask { kind: Kind::Commit, region: *region, epoch: Epoch(0), body };
        let done = connection.exchange(&ask, deadline)?;
        super::checks::committed(&done)?;
        return Ok(vec![done]);
    }
    let body = CommitTogether { parts };
    let ask = Ask { kind: Kind::CommitTogether, region: RegionId(0), epoch: Epoch(0), body: &body };
    let done: CommittedTogether = connection.exchange(&ask, deadline)?;
    if done.parts.len() != body.parts.len() {
        let what = "answer to CommitTogether: not one for each region";
        return Err(Trouble::Protocol(ProtocolError::Malformed { what }));
    }
    done.parts.iter().try_for_each(super::checks::committed)?;
    Ok(done.parts)
}

/// Bytes that a frame's body takes, if each of its pages is a run of its own.
fn body_bytes_most(builder: &PageBodyBuilder) -> u32 {
    let pages = builder.data_pages() * (PAGE_SIZE + SUM_BYTES) as u32;
    PAGE_BODY_HEAD_BYTES as u32 + builder.pages() * RUN_BYTES as u32 + pages
}

/// The same pages in frames that a server with a lower limit takes; at least one page each.
fn split(builder: &PageBodyBuilder, data: &[u8], limit: u32) -> Result<Vec<PageBodyBuilder>, ProtocolError> {
    // Rare enough for a copy: only whole bodies can be parsed.
    let mut whole = Vec::new();
    builder.encode_front(CommitId(0), &mut whole);
    whole.extend_from_slice(data);
    let mut parts = Vec::new();
    let mut part = PageBodyBuilder::default();
    let mut sums = builder.sums().iter();
    for (page, content) in PageBody::parse(&whole, false)?.pages() {
        if part.pages() > 0 && body_bytes_most(&part) + (RUN_BYTES + PAGE_SIZE + SUM_BYTES) as u32 > limit {
            parts.push(core::mem::take(&mut part));
        }
        let sum = content.and_then(|_| sums.next());
        match (content, sum) {
            (None, _) => part.push(page, RunKind::Zero),
            (Some(_), Some(sum)) => part.push_data(page, *sum),
            (Some(_), None) => part.push(page, RunKind::Data),
        }
    }
    parts.push(part);
    Ok(parts)
}

/// One attempt at a commit, from its first page to its answer.
pub(super) fn run_commit(
    remote: &Remote,
    body: &mut CommitBody<'_>,
) -> Result<Vec<Committed>, CommitFailure> {
    let before = |error, id| CommitFailure { error, id, applied: Applied::No };
    let mut stream = remote.begin_commit().map_err(|error| before(error, CommitId(0)))?;
    let id = stream.id();
    match body(&mut stream) {
        Ok(parts) => stream.finish(parts),
        Err(error) => Err(before(error, id)),
    }
}
