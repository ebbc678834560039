//! A small blocking client: one connection, one request and its answer at a time.
//!
//! Owns: connecting, the hello, request ids, and the checks on every answer. Called by: the subcommands and the
//! workspace's black-box tests. Must not: believe the peer, wait without a deadline, or reconnect by itself.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::time::{Duration, Instant};

use netmem_protocol::activity::CAPABILITY_ACTIVITY;
use netmem_protocol::codec::HEADER_BYTES;
use netmem_protocol::control::{
    Changes, ChangesUntil, CloneRegion, Commit, CommitStatus, Committed, Create, CreateUnnamed, Entry,
    EntryKind, ErrorBody, History, List, Listing, Lookup, MakeDir, Open, Remove, Rename, Resize, ScrubAfter,
    Scrubbed, ServerStat, SetAttr, Snapshot, Snapshotted,
};
use netmem_protocol::hello::HELLO_BYTES;
use netmem_protocol::{
    CAPABILITY_SUMS, CacheId, ClientHello, ClientId, CommitId, Epoch, ErrorCode, FRAME_BODY_MAX, Header,
    HelloStatus, Kind, LIST_ENTRIES_MAX, ProtocolError, REGION_BYTES_MAX, RegionId, RegionName, RequestId,
    ServerHello, decode_body, encode_frame,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::ClientError;
use crate::link::{Link, ServerAddress};

/// How long to wait for what.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// For a connection, and then for the server's hello.
    pub connect: Duration,
    /// For an answer, and for the server to take a frame.
    pub answer: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Timeouts { connect: Duration::from_secs(5), answer: Duration::from_secs(30) }
    }
}

/// Who a connection says it is. Connections with one `client` share its commits, with one `cache` its views.
#[derive(Clone, Copy, Debug)]
pub struct Identity {
    /// The process.
    pub client: ClientId,
    /// The page cache.
    pub cache: CacheId,
}

impl Identity {
    /// A new one that nobody else has.
    pub fn random() -> io::Result<Identity> {
        let mut bytes = [0; 32];
        File::open("/dev/urandom")?.read_exact(&mut bytes)?;
        let (mut client, mut cache) = ([0; 16], [0; 16]);
        client.copy_from_slice(&bytes[..16]);
        cache.copy_from_slice(&bytes[16..]);
        Ok(Identity { client: ClientId(client), cache: CacheId(cache) })
    }
}

/// A connection to a server that has said welcome.
#[derive(Debug)]
pub struct Client {
    link: Link,
    server: ServerAddress,
    hello: ServerHello,
    timeouts: Timeouts,
    next_request: u64,
    next_commit: u64,
    broken: bool,
    pub(crate) body: Vec<u8>,
    pub(crate) out: Vec<u8>,
}

impl Client {
    /// Connects to `tcp://host:port` or `unix:/path` as somebody new, with the usual time-outs.
    pub fn connect(server: &str) -> Result<Client, ClientError> {
        let address: ServerAddress = server.parse().map_err(ClientError::Address)?;
        let identity = Identity::random().map_err(|source| {
            ClientError::Request(format!("/dev/urandom: {source}; netmem needs it for its identity"))
        })?;
        Client::connect_as(&address, identity, Timeouts::default())
    }

    /// Connects as `identity`.
    pub fn connect_as(
        server: &ServerAddress,
        identity: Identity,
        timeouts: Timeouts,
    ) -> Result<Client, ClientError> {
        let link = Link::connect(server, timeouts.connect)
            .map_err(|source| ClientError::Connect { server: server.clone(), source })?;
        let nobody = ServerHello {
            status: HelloStatus::Welcome,
            version_min: 0,
            version_max: 0,
            capabilities: 0,
            store: Default::default(),
            frame_body_max: FRAME_BODY_MAX,
            region_bytes_max: REGION_BYTES_MAX,
            instance: 0,
        };
        let mut client = Client {
            link,
            server: server.clone(),
            hello: nobody,
            timeouts,
            next_request: 1,
            next_commit: 1,
            broken: false,
            body: Vec::new(),
            out: Vec::new(),
        };
        client.greet(identity)?;
        Ok(client)
    }

    fn greet(&mut self, identity: Identity) -> Result<(), ClientError> {
        let deadline = Instant::now() + self.timeouts.connect;
        let hello = ClientHello::new(identity.client, identity.cache);
        let capabilities = CAPABILITY_ACTIVITY | CAPABILITY_SUMS;
        let ours = ClientHello { capabilities, ..hello }.encode();
        let mut theirs = [0; HELLO_BYTES];
        let exchange = self.link.write_all_by(&ours, deadline);
        // A peer that speaks another protocol may say little and wait: its first bytes are enough to tell.
        let (magic, rest) = theirs.split_at_mut(netmem_protocol::MAGIC.len());
        exchange
            .and_then(|()| self.link.read_exact_by(magic, deadline))
            .map_err(|source| self.lost("hello", source, self.timeouts.connect))?;
        if magic != netmem_protocol::MAGIC {
            let mut first = [0; 8];
            first.copy_from_slice(magic);
            return Err(self.protocol(ProtocolError::NotNetmem(first)));
        }
        self.link
            .read_exact_by(rest, deadline)
            .map_err(|source| self.lost("hello", source, self.timeouts.connect))?;
        let hello = ServerHello::decode(&theirs).map_err(|source| self.protocol(source))?;
        if hello.status != HelloStatus::Welcome {
            return Err(ClientError::Refused { server: self.server.clone(), status: hello.status });
        }
        if hello.region_bytes_max > REGION_BYTES_MAX || hello.frame_body_max < 8192 {
            return Err(self.lie(format!(
                "offers frames of {} bytes and regions of {} bytes",
                hello.frame_body_max, hello.region_bytes_max
            )));
        }
        self.hello = hello;
        Ok(())
    }

    /// The server's hello.
    pub fn hello(&self) -> &ServerHello {
        &self.hello
    }

    /// Whether page bodies have checksums.
    pub(crate) fn with_sums(&self) -> bool {
        self.hello.capabilities & CAPABILITY_SUMS != 0
    }

    /// The server's address.
    pub fn server(&self) -> &ServerAddress {
        &self.server
    }

    /// The number for this connection's next commit. Grows with every call.
    pub fn next_commit_id(&mut self) -> CommitId {
        let id = CommitId(self.next_commit);
        self.next_commit += 1;
        id
    }

    /// Numbers later commits from `first` on, for a client that reconnects under its old identity.
    pub fn number_commits_from(&mut self, first: CommitId) {
        self.next_commit = self.next_commit.max(first.0);
    }

    // ---- requests -------------------------------------------------------------------------------------------

    /// Asks for nothing, and says how long that took.
    pub fn ping(&mut self) -> Result<Duration, ClientError> {
        let start = Instant::now();
        self.call::<_, ()>(Kind::Ping, RegionId(0), Epoch(0), &(), "ping")?;
        Ok(start.elapsed())
    }

    /// Opens a region and holds it until [`Client::close`] or the end of the connection.
    pub fn open(&mut self, name: &str, create: Create, mode: u32) -> Result<Entry, ClientError> {
        let body = Open { name: name.to_owned(), create, mode };
        let entry = self.call(Kind::Open, RegionId(0), Epoch(0), &body, "open")?;
        self.check_region(entry)
    }

    /// Keeps the newest epoch of a region under a name.
    pub fn take_snapshot(&mut self, name: &str, snapshot: &str) -> Result<Snapshotted, ClientError> {
        let body = Snapshot { name: name.to_owned(), snapshot: snapshot.to_owned() };
        self.call(Kind::Snapshot, RegionId(0), Epoch(0), &body, "snapshot")
    }

    /// Gives a snapshot up.
    pub fn remove_snapshot(&mut self, name: &str, snapshot: &str) -> Result<(), ClientError> {
        let body = Snapshot { name: name.to_owned(), snapshot: snapshot.to_owned() };
        self.call(Kind::RemoveSnapshot, RegionId(0), Epoch(0), &body, "remove a snapshot")
    }

    /// Makes a region that begins as another is, or was.
    pub fn clone_region(&mut self, body: &CloneRegion) -> Result<Entry, ClientError> {
        let entry = self.call(Kind::Clone, RegionId(0), Epoch(0), body, "clone")?;
        self.check_region(entry)
    }

    /// The last commits of a region, and its snapshots.
    pub fn history(&mut self, name: &str) -> Result<History, ClientError> {
        let body = Lookup { name: name.to_owned() };
        self.call(Kind::History, RegionId(0), Epoch(0), &body, "history")
    }

    /// Compares the checksums of stored pages, some at a time, from behind `after` on.
    pub fn scrub(&mut self, after: &ScrubAfter) -> Result<Scrubbed, ClientError> {
        self.call(Kind::Scrub, RegionId(0), Epoch(0), after, "Scrub")
    }

    /// Opens a region by its number.
    pub fn open_id(&mut self, region: RegionId) -> Result<Entry, ClientError> {
        let entry = self.call(Kind::OpenId, region, Epoch(0), &(), "open by number")?;
        self.check_region(entry)
    }

    /// Creates a region without a name.
    pub fn create_unnamed(&mut self, size: u64) -> Result<Entry, ClientError> {
        let entry =
            self.call(Kind::CreateUnnamed, RegionId(0), Epoch(0), &CreateUnnamed { size }, "create")?;
        self.check_region(entry)
    }

    /// Gives up one hold.
    pub fn close(&mut self, region: RegionId) -> Result<(), ClientError> {
        self.call(Kind::Close, region, Epoch(0), &(), "close")
    }

    /// What a name stands for; the empty name is the root directory.
    pub fn lookup(&mut self, name: &str) -> Result<Entry, ClientError> {
        let entry =
            self.call(Kind::Lookup, RegionId(0), Epoch(0), &Lookup { name: name.to_owned() }, "lookup")?;
        self.check_entry(entry)
    }

    /// One part of a directory, from behind the component `after`.
    pub fn list(&mut self, directory: &str, after: &str) -> Result<Listing, ClientError> {
        let body = List { directory: directory.to_owned(), after: after.to_owned() };
        let listing: Listing = self.call(Kind::List, RegionId(0), Epoch(0), &body, "list")?;
        self.check_listing(listing, after)
    }

    /// A whole directory.
    pub fn list_all(&mut self, directory: &str) -> Result<Vec<(String, Entry)>, ClientError> {
        let mut all: Vec<(String, Entry)> = Vec::new();
        loop {
            let after = all.last().map_or("", |(name, _)| name).to_owned();
            let part = self.list(directory, &after)?;
            all.extend(part.entries);
            if !part.more {
                return Ok(all);
            }
        }
    }

    /// Removes a region's name, or an empty directory.
    pub fn remove(&mut self, name: &str, directory: bool) -> Result<(), ClientError> {
        let body = Remove { name: name.to_owned(), directory };
        self.call(Kind::Remove, RegionId(0), Epoch(0), &body, "remove")
    }

    /// Renames a region or directory.
    pub fn rename(&mut self, rename: &Rename) -> Result<(), ClientError> {
        self.call(Kind::Rename, RegionId(0), Epoch(0), rename, "rename")
    }

    /// Makes a directory.
    pub fn make_dir(&mut self, name: &str, mode: u32) -> Result<Entry, ClientError> {
        let body = MakeDir { name: name.to_owned(), mode };
        let entry = self.call(Kind::MakeDir, RegionId(0), Epoch(0), &body, "make directory")?;
        self.check_entry(entry)
    }

    /// Sets permission bits or times.
    pub fn set_attr(&mut self, attributes: &SetAttr) -> Result<Entry, ClientError> {
        let entry = self.call(Kind::SetAttr, RegionId(0), Epoch(0), attributes, "set attributes")?;
        self.check_entry(entry)
    }

    /// Sets a region's size, as a commit of its own.
    pub fn resize(&mut self, region: RegionId, size: u64) -> Result<Committed, ClientError> {
        let committed = self.call(Kind::Resize, region, Epoch(0), &Resize { size }, "resize")?;
        self.check_committed(committed)
    }

    /// What the server is and holds.
    pub fn server_stat(&mut self) -> Result<ServerStat, ClientError> {
        self.call(Kind::ServerStat, RegionId(0), Epoch(0), &(), "server statistics")
    }

    /// Makes staged pages visible. [`Client::stage`] is the comfortable way.
    pub fn commit(&mut self, region: RegionId, commit: &Commit) -> Result<Committed, ClientError> {
        let committed = self.call(Kind::Commit, region, Epoch(0), commit, "commit")?;
        self.check_committed(committed)
    }

    /// Whether a commit has happened.
    pub fn commit_status(&mut self, region: RegionId, commit: CommitId) -> Result<Committed, ClientError> {
        let body = CommitStatus { commit };
        let committed = self.call(Kind::CommitStatus, region, Epoch(0), &body, "commit status")?;
        self.check_committed(committed)
    }

    /// What changed after `since`.
    pub fn changes(&mut self, region: RegionId, since: Epoch) -> Result<Changes, ClientError> {
        let changes: Changes =
            self.call(Kind::Changes, region, since, &ChangesUntil { until: Epoch(0) }, "changes")?;
        if changes.check(since, Epoch(0)).is_err() {
            return Err(self.lie(format!("answered {since} with changes that no region can have")));
        }
        Ok(changes)
    }

    /// This connection's cache has moved to `epoch`.
    pub fn view(&mut self, region: RegionId, epoch: Epoch) -> Result<(), ClientError> {
        self.call(Kind::View, region, epoch, &(), "view")
    }

    // ---- frames ---------------------------------------------------------------------------------------------

    /// Sends a request with a control body, waits for its answer, and checks and decodes that.
    pub fn call<B: Serialize, A: DeserializeOwned>(
        &mut self,
        kind: Kind,
        region: RegionId,
        epoch: Epoch,
        body: &B,
        what: &'static str,
    ) -> Result<A, ClientError> {
        let request = self.next_request();
        let header = Header { length: 0, kind: kind as u16, flags: 0, request, region, epoch };
        let mut out = std::mem::take(&mut self.out);
        out.clear();
        let sent = encode_frame(header, body, &mut out)
            .map_err(|e| ClientError::Request(format!("{what}: {e}; shorten the request")))
            .and_then(|()| self.send(&out, what));
        self.out = out;
        sent?;
        let answer = self.receive(what)?;
        if answer.request != request {
            return Err(self.lie(format!("answered request {} when {request} was asked", answer.request)));
        }
        self.check_answer(&answer, kind, region)?;
        decode_body(&self.body, what).map_err(|source| self.protocol(source))
    }

    pub(crate) fn next_request(&mut self) -> RequestId {
        let id = RequestId(self.next_request);
        self.next_request += 1;
        id
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, frame: &[u8], what: &'static str) -> Result<(), ClientError> {
        if self.broken {
            return Err(ClientError::Broken { server: self.server.clone() });
        }
        let deadline = Instant::now() + self.timeouts.answer;
        match self.link.write_all_by(frame, deadline) {
            Ok(()) => Ok(()),
            Err(source) => Err(self.lost(what, source, self.timeouts.answer)),
        }
    }

    /// Receives one frame; its body is [`Client::body`].
    pub fn receive(&mut self, what: &'static str) -> Result<Header, ClientError> {
        if self.broken {
            return Err(ClientError::Broken { server: self.server.clone() });
        }
        let deadline = Instant::now() + self.timeouts.answer;
        let mut head = [0; HEADER_BYTES];
        if let Err(source) = self.link.read_exact_by(&mut head, deadline) {
            return Err(self.lost(what, source, self.timeouts.answer));
        }
        let header = Header::decode(&head, FRAME_BODY_MAX).map_err(|source| self.protocol(source))?;
        // The limit was checked by decode, so the length is safe to allocate.
        self.body.resize(header.length as usize, 0);
        match self.link.read_exact_by(&mut self.body, deadline) {
            Ok(()) => Ok(header),
            Err(source) => Err(self.lost(what, source, self.timeouts.answer)),
        }
    }

    /// The body of the frame received last.
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// Turns an error answer into an error, and refuses an answer of another kind or about another region.
    pub(crate) fn check_answer(
        &mut self,
        answer: &Header,
        kind: Kind,
        region: RegionId,
    ) -> Result<(), ClientError> {
        if answer.kind == Kind::Error as u16 {
            let error: ErrorBody =
                decode_body(&self.body, "error answer").map_err(|source| self.protocol(source))?;
            let code = ErrorCode::from_wire(error.code);
            return Err(ClientError::Answer { code, text: error.text });
        }
        if answer.kind != kind.answer() {
            return Err(self.protocol(ProtocolError::UnexpectedKind { kind: answer.kind }));
        }
        if region != RegionId(0) && answer.region != region {
            return Err(self.lie(format!("answered about region {} when {region} was asked", answer.region)));
        }
        Ok(())
    }

    fn check_entry(&mut self, entry: Entry) -> Result<Entry, ClientError> {
        let sane = match entry.kind {
            EntryKind::Region | EntryKind::Snapshot => {
                entry.region != RegionId(0) && entry.size <= REGION_BYTES_MAX
            }
            EntryKind::Directory => entry.region == RegionId(0),
            EntryKind::Symlink => entry.region == RegionId(0) && entry.target.len() as u64 == entry.size,
        };
        if sane && entry.mode <= 0o7777 {
            Ok(entry)
        } else {
            Err(self.lie("describes an entry that can't be".to_owned()))
        }
    }

    fn check_region(&mut self, entry: Entry) -> Result<Entry, ClientError> {
        if !entry.kind.has_pages() {
            return Err(self.lie("opened a directory as a region".to_owned()));
        }
        self.check_entry(entry)
    }

    fn check_committed(&mut self, committed: Committed) -> Result<Committed, ClientError> {
        if committed.size > REGION_BYTES_MAX || committed.epoch < committed.previous {
            return Err(self.lie("reports a commit that can't be".to_owned()));
        }
        Ok(committed)
    }

    /// Names in order and behind `after`, so that a directory can't be listed for ever.
    fn check_listing(&mut self, listing: Listing, after: &str) -> Result<Listing, ClientError> {
        let mut last = after;
        for (name, entry) in &listing.entries {
            if name.contains('/') || RegionName::parse(name).is_err() || name.as_str() <= last {
                return Err(self.lie("listed a directory out of order, or a name that can't be".to_owned()));
            }
            self.check_entry(entry.clone())?;
            last = name;
        }
        if listing.entries.len() > LIST_ENTRIES_MAX as usize || (listing.more && listing.entries.is_empty()) {
            return Err(self.lie("listed too many entries at once, or none and promised more".to_owned()));
        }
        Ok(listing)
    }

    // ---- errors that end the connection ---------------------------------------------------------------------

    pub(crate) fn lost(&mut self, what: &'static str, source: io::Error, after: Duration) -> ClientError {
        self.broken = true;
        let server = self.server.clone();
        if source.kind() == ErrorKind::TimedOut {
            return ClientError::Timeout { server, what, after };
        }
        ClientError::Lost { server, what, source }
    }

    pub(crate) fn protocol(&mut self, source: ProtocolError) -> ClientError {
        self.broken = true;
        ClientError::Protocol { server: self.server.clone(), source }
    }

    pub(crate) fn lie(&mut self, what: String) -> ClientError {
        self.broken = true;
        ClientError::Lie { server: self.server.clone(), what }
    }
}
