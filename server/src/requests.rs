//! One request, one answer.
//!
//! Owns: which kind is served by what. Called by: session. Must not: read or write sockets; `Fetch` alone is the session's.

use std::sync::Arc;
use std::time::Duration;

use netmem_protocol::activity::{Served, ServerActivity};
use netmem_protocol::control::{
    ChangesUntil, Commit, CommitStatus, CommitTogether, Committed, CommittedTogether, Entry, ErrorBody,
    Inherit, Keep, Reclaim, Resize, ServerStat,
};
use netmem_protocol::{
    Epoch, ErrorCode, FLAG_PACKED, Header, Kind, PAGE_SIZE, ProtocolError, RegionId, decode_body,
    encode_frame,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::catalog::Catalog;
use crate::commit::{Commits, Part};
use crate::config::Limits;
use crate::memory::Memory;
use crate::refusal::{Answer, Refusal};
use crate::region::{Region, Who};
use crate::scrub::scrub;
use crate::shutdown::Sessions;
use crate::staging::Staging;
use crate::stats::{Counts, Stats};
use crate::store::Store;

/// What all sessions share.
pub struct Shared {
    /// What the server allows.
    pub limits: Limits,
    /// How long a connection may take over its hello.
    pub hello_timeout: Duration,
    /// This run of the server, by a random number that is not 0.
    pub instance: u64,
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

/// Whose request it is, and where it is counted.
#[derive(Clone, Copy)]
pub struct Asker<'a> {
    /// Who asks.
    pub who: Who,
    /// The counters of the client, and of the lane of its connection.
    pub counts: [&'a Counts; 2],
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
    let header = answer_header(request, Kind::Error as u16, request.region, Epoch(0));
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

/// Bytes of pages that are taken in while other connections wait.
pub const SHORT_STAGE_BYTES: u32 = 64 << 10;
/// Whether other connections should not have to wait for a request: all but those that are a look into memory.
pub fn may_take_long(header: &Header, body: &[u8]) -> bool {
    match Kind::from_request(header.kind) {
        // What stands behind an @ may be an epoch that has to be kept first, and a commit be waited for.
        Some(Kind::Lookup) if body.contains(&b'@') => true,
        Some(
            Kind::Fetch | Kind::Ping | Kind::View | Kind::Lookup | Kind::CommitStatus | Kind::ServerStat,
        ) => false,
        Some(Kind::Stage) => header.length > SHORT_STAGE_BYTES || header.flags & FLAG_PACKED != 0,
        _ => true,
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

/// The refusal of a frame that is larger than one may be.
pub fn too_long(error: &ProtocolError) -> Refusal {
    Refusal::new(ErrorCode::Malformed, format!("{error} (--max-frame); send smaller frames"))
}

/// What a served request gives: the region and epoch for the header, and the body.
struct Reply<'a> {
    header: &'a Header,
    kind: Kind,
    out: &'a mut Vec<u8>,
}

impl Reply<'_> {
    fn body<T: Serialize>(self, region: RegionId, epoch: Epoch, body: &T) -> Result<(), Failure> {
        let header = answer_header(self.header, self.kind.answer(), region, epoch);
        encode_frame(header, body, self.out).map_err(|error| {
            let text = format!("the answer does not fit: {error}");
            Failure::Refused(Refusal::new(ErrorCode::Internal, text))
        })
    }

    fn entry(self, entry: &Entry) -> Result<(), Failure> {
        self.body(entry.region, entry.epoch, entry)
    }

    fn committed(self, committed: &Committed) -> Result<(), Failure> {
        let region = self.header.region;
        self.body(region, committed.epoch, committed)
    }

    /// The answer of a request that gives nothing: `()`, which the caller has so that it has served it.
    fn empty(self, (): ()) -> Result<(), Failure> {
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
    /// Serves a request other than `Fetch`, `Stage` and `StageFrom`, and appends its answer to `out`.
    pub fn serve(
        &self,
        asker: Asker<'_>,
        kind: Kind,
        header: &Header,
        bytes: &[u8],
        staging: &mut Staging,
        out: &mut Vec<u8>,
    ) -> Next {
        let start = out.len();
        let result = self.dispatch(asker, bytes, staging, Reply { header, kind, out });
        let (refusal, next) = match result {
            Ok(()) => return Next::Go,
            Err(Failure::Malformed(error)) => (malformed(&error), Next::End),
            Err(Failure::Refused(refusal)) => (refusal, Next::Go),
        };
        tracing::debug!(client = %asker.who.client, ?kind, code = ?refusal.code, "refused: {refusal}");
        out.truncate(start);
        refuse(header, &refusal, out);
        next
    }

    fn dispatch(
        &self,
        asker: Asker<'_>,
        bytes: &[u8],
        staging: &mut Staging,
        reply: Reply<'_>,
    ) -> Result<(), Failure> {
        let (catalog, who) = (&self.catalog, asker.who);
        let (id, epoch) = (reply.header.region, reply.header.epoch);
        let region = || self.memory.region(id);
        match reply.kind {
            Kind::Ping => reply.empty(nothing(bytes, "Ping")?),
            Kind::Open => reply.entry(&catalog.open(who, &body(bytes, "Open")?)?),
            Kind::OpenId => {
                nothing(bytes, "OpenId")?;
                reply.entry(&catalog.open_id(who, id)?)
            }
            Kind::CreateUnnamed => reply.entry(&catalog.create_unnamed(who, &body(bytes, "CreateUnnamed")?)?),
            Kind::Keep => {
                let Keep { of } = body(bytes, "Keep")?;
                reply.entry(&catalog.keep_pending(who, of, id)?)
            }
            Kind::Close => {
                nothing(bytes, "Close")?;
                reply.empty(catalog.close(who, id)?)
            }
            Kind::Inherit => {
                let Inherit { parent, regions } = body(bytes, "Inherit")?;
                catalog.inherit(who, parent, &regions);
                reply.empty(())
            }
            Kind::Reclaim => {
                let Reclaim { holds } = body(bytes, "Reclaim")?;
                catalog.reclaim(who, &holds);
                reply.empty(())
            }
            Kind::Scrub => {
                let after = body(bytes, "Scrub")?;
                let scrubbed = scrub(&self.memory, after, |id| catalog.name_of(id));
                reply.body(RegionId(0), Epoch(0), &scrubbed)
            }
            Kind::Snapshot => {
                let told = catalog.snapshot(&body(bytes, "Snapshot")?)?;
                reply.body(RegionId(0), told.epoch, &told)
            }
            Kind::RemoveSnapshot => reply.empty(catalog.remove_snapshot(&body(bytes, "RemoveSnapshot")?)?),
            Kind::Clone => reply.entry(&catalog.clone_region(who, &body(bytes, "Clone")?)?),
            Kind::CloneUnnamed => {
                nothing(bytes, "CloneUnnamed")?;
                let entry = catalog.clone_unnamed(who, id)?;
                reply.body(id, entry.epoch, &entry)
            }
            Kind::History => {
                let told = catalog.history(&body(bytes, "History")?)?;
                reply.body(RegionId(0), Epoch(0), &told)
            }
            Kind::Lookup => reply.entry(&catalog.lookup(&body(bytes, "Lookup")?)?),
            Kind::List => {
                let listing = catalog.list(&body(bytes, "List")?)?;
                reply.body(RegionId(0), Epoch(0), &listing)
            }
            Kind::Remove => reply.empty(catalog.remove(&body(bytes, "Remove")?)?),
            Kind::Rename => reply.empty(catalog.rename(&body(bytes, "Rename")?)?),
            Kind::MakeDir => reply.entry(&catalog.make_dir(&body(bytes, "MakeDir")?)?),
            Kind::SetAttr => reply.entry(&catalog.set_attributes(&body(bytes, "SetAttr")?)?),
            Kind::Resize => {
                let resize: Resize = body(bytes, "Resize")?;
                reply.committed(&self.commits(asker).resize(&*region()?, who, resize.size)?)
            }
            Kind::ServerStat => {
                nothing(bytes, "ServerStat")?;
                reply.body(RegionId(0), Epoch(0), &self.stat())
            }
            Kind::ServerActivity => {
                nothing(bytes, "ServerActivity")?;
                reply.body(RegionId(0), Epoch(0), &self.activity())
            }
            Kind::RegionActivity => {
                let ask = body(bytes, "RegionActivity")?;
                reply.body(RegionId(0), Epoch(0), &catalog.region_activity(&ask))
            }
            Kind::ClientActivity => {
                let ask = body(bytes, "ClientActivity")?;
                reply.body(RegionId(0), Epoch(0), &catalog.client_activity(&ask))
            }
            Kind::Resolve => {
                let resolved = catalog.resolve(&body(bytes, "Resolve")?)?;
                reply.body(RegionId(0), Epoch(0), &resolved)
            }
            Kind::MakeSymlink => reply.entry(&catalog.make_symlink(&body(bytes, "MakeSymlink")?)?),
            Kind::Link => reply.entry(&catalog.link(&body(bytes, "Link")?)?),
            Kind::Names => {
                nothing(bytes, "Names")?;
                reply.body(id, Epoch(0), &catalog.names(id)?)
            }
            Kind::Commit => {
                let committed = self.commit(asker, &[(id, body(bytes, "Commit")?)], staging)?;
                reply.committed(&committed[0])
            }
            Kind::CommitTogether => {
                let together: CommitTogether = body(bytes, "CommitTogether")?;
                together.check()?;
                let parts = self.commit(asker, &together.parts, staging)?;
                reply.body(RegionId(0), Epoch(0), &CommittedTogether { parts })
            }
            Kind::CommitStatus => {
                let status: CommitStatus = body(bytes, "CommitStatus")?;
                reply.committed(&region()?.commit_status(who.client, status.commit)?)
            }
            Kind::Changes => {
                let ask: ChangesUntil = body(bytes, "Changes")?;
                let changes = region()?.changes(who.cache, epoch, ask.until)?;
                reply.body(id, changes.epoch, &changes)
            }
            Kind::View => {
                nothing(bytes, "View")?;
                reply.empty(region()?.view(who.cache, epoch)?)
            }
            Kind::Fetch | Kind::Stage | Kind::StageFrom | Kind::Error => {
                let text = "a request that this server does not take here";
                Err(Failure::Refused(Refusal::new(ErrorCode::Unsupported, text)))
            }
        }
    }

    fn commits<'a>(&'a self, asker: Asker<'a>) -> Commits<'a> {
        Commits {
            memory: &self.memory,
            store: &*self.store,
            counts: asker.counts,
            region_bytes_max: self.limits.region_bytes,
            keep_epochs: self.limits.keep_epochs,
        }
    }

    /// Commits what was staged under one number for these regions, which are in order. One answer for each.
    fn commit(
        &self,
        asker: Asker<'_>,
        asked: &[(RegionId, Commit)],
        staging: &mut Staging,
    ) -> Answer<Vec<Committed>> {
        // Whatever comes of it, nothing stays staged.
        let staged: Vec<_> = asked.iter().map(|(id, request)| staging.take(*id, request.commit)).collect();
        let regions =
            asked.iter().map(|(id, _)| self.memory.region(*id)).collect::<Answer<Vec<Arc<Region>>>>()?;
        let mut parts = Vec::with_capacity(asked.len());
        for (((_, request), staged), region) in asked.iter().zip(&staged).zip(&regions) {
            // A repeated commit is answered whatever became of its stages.
            if region.turn().find(asker.who.client, request.commit).is_none() {
                if staged.pages != request.staged_pages {
                    let text = format!(
                        "commit {} says {} pages, {} were staged; stage them again under a new commit",
                        request.commit, request.staged_pages, staged.pages
                    );
                    return Err(Refusal::new(ErrorCode::Malformed, text));
                }
                if let Some(refusal) = &staged.error {
                    return Err(refusal.clone());
                }
            }
            parts.push(Part { region, request, staged: &staged.parts });
        }
        self.commits(asker).commit(asker.who, &parts)
    }

    fn stat(&self) -> ServerStat {
        let (stored_pages, pages_max) = self.memory.usage();
        let Served { fetches, pages_sent, commits, pages_committed } = self.stats.served();
        ServerStat {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            store: self.store.name().to_owned(),
            uptime_s: self.stats.started.elapsed().as_secs(),
            regions: self.memory.regions().len() as u64,
            connections: self.sessions.count(),
            stored_pages,
            pages_max,
            pages_sent,
            pages_committed,
            commits,
            fetches,
        }
    }

    fn activity(&self) -> ServerActivity {
        let (stored_pages, pages_max) = self.memory.usage();
        let (bytes_in, bytes_out) = self.stats.bytes();
        ServerActivity {
            uptime_ns: u64::try_from(self.stats.started.elapsed().as_nanos()).unwrap_or(u64::MAX),
            regions: self.memory.regions().len() as u64,
            clients: self.catalog.clients(),
            connections: self.sessions.count(),
            stored_pages,
            pages_max,
            served: self.stats.served(),
            bytes_in,
            bytes_out,
            fetch_ns: self.stats.fetch_latencies(),
            commit_ns: self.stats.commit_latencies(),
        }
    }

    /// Pages that a region may have.
    pub fn region_pages_max(&self) -> u64 {
        self.limits.region_bytes.div_ceil(PAGE_SIZE as u64)
    }
}
