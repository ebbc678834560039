//! One request, one answer.
//!
//! Owns: which kind is served by what. Called by: session. Must not: read or write sockets; `Fetch` alone is the session's.

use std::sync::Arc;

use netmem_protocol::control::{Commit, CommitStatus, ErrorBody, Resize, ServerStat};
use netmem_protocol::{
    Epoch, ErrorCode, Header, Kind, PAGE_SIZE, ProtocolError, RegionId, decode_body, encode_frame,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::catalog::Catalog;
use crate::commit::Commits;
use crate::config::Limits;
use crate::memory::Memory;
use crate::refusal::{Answer, Refusal};
use crate::region::Who;
use crate::shutdown::Sessions;
use crate::staging::Staging;
use crate::stats::{self, Stats};
use crate::store::Store;

/// What all sessions share.
pub struct Shared {
    /// What the server allows.
    pub limits: Limits,
    /// Names and holds.
    pub catalog: Catalog,
    /// Pages and regions.
    pub memory: Arc<Memory>,
    /// Where commits go.
    pub store: Arc<dyn Store>,
    /// Counters.
    pub stats: Stats,
    /// Who is connected.
    pub sessions: Arc<Sessions>,
}

/// What the session does after a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Serves the next one.
    Go,
    /// Sends what it has to send and ends.
    End,
}

/// Appends the answer to a failed request.
pub fn refuse(request: &Header, refusal: &Refusal, out: &mut Vec<u8>) {
    let header = answer_header(request, u16::from_le_bytes([0xff, 0xff]), request.region, Epoch(0));
    let mut text = refusal.text.replace(['\n', '\r'], " ");
    if text.len() > ERROR_TEXT_MAX {
        let end = (0..=ERROR_TEXT_MAX).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
    }
    let body = ErrorBody { code: refusal.code as u16, text };
    if let Err(error) = encode_frame(header, &body, out) {
        tracing::error!("an error that does not encode: {error}");
    }
}

/// Bytes of text in an error at the most.
const ERROR_TEXT_MAX: usize = 4096;

fn answer_header(request: &Header, kind: u16, region: RegionId, epoch: Epoch) -> Header {
    Header { length: 0, kind, flags: 0, request: request.request, region, epoch }
}

/// The refusal of bytes that are not what the protocol says.
pub fn malformed(error: &ProtocolError) -> Refusal {
    Refusal::new(ErrorCode::Malformed, format!("{error}; this is a fault in the client"))
}

/// What a served request gives: the region and epoch for the header, and the body.
struct Reply<'a> {
    header: &'a Header,
    kind: Kind,
    out: &'a mut Vec<u8>,
}

impl Reply<'_> {
    fn body<T: Serialize>(self, region: RegionId, epoch: Epoch, body: &T) -> Answer<()> {
        let header = answer_header(self.header, self.kind.answer(), region, epoch);
        encode_frame(header, body, self.out)
            .map_err(|error| Refusal::new(ErrorCode::Internal, format!("the answer does not fit: {error}")))
    }

    fn empty(self) -> Answer<()> {
        let header = answer_header(self.header, self.kind.answer(), self.header.region, self.header.epoch);
        self.out.extend_from_slice(&header.encode());
        Ok(())
    }
}

/// How a request fails: bytes that make no sense end the connection, a refusal does not.
enum Failure {
    Malformed(ProtocolError),
    Refused(Refusal),
}

impl From<ProtocolError> for Failure {
    fn from(error: ProtocolError) -> Self {
        Failure::Malformed(error)
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Failure::Refused(refusal)
    }
}

fn body<T: DeserializeOwned>(bytes: &[u8], what: &'static str) -> Result<T, Failure> {
    decode_body(bytes, what).map_err(Failure::Malformed)
}

fn nothing(bytes: &[u8], what: &'static str) -> Result<(), Failure> {
    if bytes.is_empty() { Ok(()) } else { Err(Failure::Malformed(ProtocolError::Malformed { what })) }
}

impl Shared {
    /// Serves a request other than `Fetch` and `Stage` and appends its answer to `out`.
    pub fn serve(
        &self,
        who: Who,
        kind: Kind,
        header: &Header,
        bytes: &[u8],
        staging: &mut Staging,
        out: &mut Vec<u8>,
    ) -> Next {
        let start = out.len();
        let reply = Reply { header, kind, out };
        let result = match kind {
            Kind::Open
            | Kind::OpenId
            | Kind::CreateUnnamed
            | Kind::Close
            | Kind::Lookup
            | Kind::List
            | Kind::Remove
            | Kind::Rename
            | Kind::MakeDir
            | Kind::SetAttr => self.serve_name(who, bytes, reply),
            Kind::Ping
            | Kind::Resize
            | Kind::ServerStat
            | Kind::Fetch
            | Kind::Stage
            | Kind::Commit
            | Kind::CommitStatus
            | Kind::Changes
            | Kind::View
            | Kind::Error => self.serve_region(who, bytes, staging, reply),
        };
        let (refusal, next) = match result {
            Ok(()) => return Next::Go,
            Err(Failure::Malformed(error)) => (malformed(&error), Next::End),
            Err(Failure::Refused(refusal)) => (refusal, Next::Go),
        };
        tracing::debug!(client = %who.client, ?kind, code = ?refusal.code, "refused: {refusal}");
        out.truncate(start);
        refuse(header, &refusal, out);
        next
    }

    fn serve_name(&self, who: Who, bytes: &[u8], reply: Reply<'_>) -> Result<(), Failure> {
        let catalog = &self.catalog;
        let region = reply.header.region;
        let entry = match reply.kind {
            Kind::Open => catalog.open(who, &body(bytes, "Open")?)?,
            Kind::OpenId => {
                nothing(bytes, "OpenId")?;
                catalog.open_id(who, region)?
            }
            Kind::CreateUnnamed => catalog.create_unnamed(who, &body(bytes, "CreateUnnamed")?)?,
            Kind::Lookup => catalog.lookup(&body(bytes, "Lookup")?)?,
            Kind::MakeDir => catalog.make_dir(&body(bytes, "MakeDir")?)?,
            Kind::SetAttr => catalog.set_attributes(&body(bytes, "SetAttr")?)?,
            Kind::Close => {
                nothing(bytes, "Close")?;
                catalog.close(who, region)?;
                return Ok(reply.empty()?);
            }
            Kind::Remove => {
                catalog.remove(&body(bytes, "Remove")?)?;
                return Ok(reply.empty()?);
            }
            Kind::Rename => {
                catalog.rename(&body(bytes, "Rename")?)?;
                return Ok(reply.empty()?);
            }
            _ => {
                let listing = catalog.list(&body(bytes, "List")?)?;
                return Ok(reply.body(RegionId(0), Epoch(0), &listing)?);
            }
        };
        Ok(reply.body(entry.region, entry.epoch, &entry)?)
    }

    fn serve_region(
        &self,
        who: Who,
        bytes: &[u8],
        staging: &mut Staging,
        reply: Reply<'_>,
    ) -> Result<(), Failure> {
        let (id, epoch) = (reply.header.region, reply.header.epoch);
        let committed = match reply.kind {
            Kind::Commit => self.commit(who, id, &body(bytes, "Commit")?, staging)?,
            Kind::Resize => {
                let resize: Resize = body(bytes, "Resize")?;
                let region = self.memory.region(id)?;
                self.commits().resize(&region, who, resize.size)?
            }
            Kind::CommitStatus => {
                let status: CommitStatus = body(bytes, "CommitStatus")?;
                self.memory.region(id)?.commit_status(who.client, status.commit)?
            }
            Kind::Changes => {
                nothing(bytes, "Changes")?;
                let changes = self.memory.region(id)?.changes(who.cache, epoch)?;
                return Ok(reply.body(id, changes.epoch, &changes)?);
            }
            Kind::View => {
                nothing(bytes, "View")?;
                self.memory.region(id)?.view(who.cache, epoch)?;
                return Ok(reply.empty()?);
            }
            Kind::ServerStat => {
                nothing(bytes, "ServerStat")?;
                return Ok(reply.body(RegionId(0), Epoch(0), &self.stat())?);
            }
            _ => {
                nothing(bytes, "Ping")?;
                return Ok(reply.empty()?);
            }
        };
        Ok(reply.body(id, committed.epoch, &committed)?)
    }

    fn commits(&self) -> Commits<'_> {
        Commits {
            memory: &self.memory,
            store: &*self.store,
            stats: &self.stats,
            region_bytes_max: self.limits.region_bytes,
        }
    }

    fn commit(
        &self,
        who: Who,
        id: RegionId,
        request: &Commit,
        staging: &mut Staging,
    ) -> Result<netmem_protocol::control::Committed, Failure> {
        let staged = staging.take(id, request.commit);
        let region = self.memory.region(id)?;
        // A repeated commit is answered whatever became of its stages.
        if let Ok(committed) = region.commit_status(who.client, request.commit) {
            return Ok(committed);
        }
        if staged.pages != request.staged_pages {
            let text = format!(
                "commit {} says {} pages, {} were staged; stage them again under a new commit",
                request.commit, request.staged_pages, staged.pages
            );
            return Err(Failure::Refused(Refusal::new(ErrorCode::Malformed, text)));
        }
        if let Some(refusal) = staged.error {
            return Err(Failure::Refused(refusal));
        }
        Ok(self.commits().commit(&region, who, request, &staged.parts)?)
    }

    fn stat(&self) -> ServerStat {
        let (stored_pages, pages_max) = self.memory.usage();
        ServerStat {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            store: self.store.name().to_owned(),
            uptime_s: self.stats.started.elapsed().as_secs(),
            regions: self.memory.regions().len() as u64,
            connections: self.sessions.count(),
            stored_pages,
            pages_max,
            pages_sent: stats::get(&self.stats.pages_sent),
            pages_committed: stats::get(&self.stats.pages_committed),
            commits: stats::get(&self.stats.commits),
            fetches: stats::get(&self.stats.fetches),
        }
    }

    /// Pages that a region may have.
    pub fn region_pages_max(&self) -> u64 {
        self.limits.region_bytes.div_ceil(PAGE_SIZE as u64)
    }
}
