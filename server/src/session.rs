//! One connection, from its hello to its end.
//!
//! Owns: its buffers and what it has staged. Called by: listen, on a thread of its own. Must not: panic, whatever the peer sends;
//! copy pages on their way out.

use std::io::{self, ErrorKind, IoSlice};
use std::net::Shutdown;
use std::sync::Arc;
use std::time::{Duration, Instant};

use netmem_protocol::hello::HELLO_BYTES;
use netmem_protocol::{
    ClientHello, CommitId, ErrorCode, Header, HelloStatus, Kind, PageBody, PageBodyBuilder, ProtocolError,
    RunKind, ServerHello, VERSION_MAX, VERSION_MIN,
};

use crate::refusal::{Answer, Refusal};
use crate::region::Who;
use crate::requests::{Next, Shared, malformed, refuse};
use crate::staging::Staging;
use crate::stats;
use crate::wire::{FrameReader, Socket};

/// Bytes of answers that wait for more requests to be answered before they are sent.
const ANSWERS_HELD_MAX: usize = 64 << 10;
/// How long a connection that is ended for a fault is read on, so that the peer gets the answer and not a reset.
const LINGER: Duration = Duration::from_millis(500);
/// Bytes read on at the most then.
const LINGER_BYTES: usize = 4 << 20;

/// Reads the hello and answers it. `None`: the connection is over.
pub fn greet(shared: &Shared, socket: &Socket, status: HelloStatus) -> io::Result<Option<Who>> {
    let mut bytes = [0; HELLO_BYTES];
    read_by(socket, &mut bytes, Instant::now() + shared.hello_timeout)?;
    let hello = match ClientHello::decode(&bytes) {
        Ok(hello) => hello,
        Err(error) => {
            tracing::info!("a connection was dropped: {error}");
            return Ok(None);
        }
    };
    let status = if hello.version_agrees() { status } else { HelloStatus::Version };
    let answer = ServerHello {
        status,
        version_min: VERSION_MIN,
        version_max: VERSION_MAX,
        capabilities: 0,
        store: shared.store.id(),
        frame_body_max: shared.limits.frame_body,
        region_bytes_max: shared.limits.region_bytes,
    };
    socket.write_all(&mut [IoSlice::new(&answer.encode())])?;
    if status != HelloStatus::Welcome {
        tracing::info!(client = %hello.client, ?status, "a connection was refused");
        socket.shutdown(Shutdown::Write);
        return Ok(None);
    }
    socket.set_read_timeout(None)?;
    Ok(Some(Who { client: hello.client, cache: hello.cache }))
}

/// Fills `bytes` before the deadline, however slowly they come.
fn read_by(socket: &Socket, mut bytes: &mut [u8], deadline: Instant) -> io::Result<()> {
    while !bytes.is_empty() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        socket.set_read_timeout(Some(left))?;
        match socket.read(bytes)? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            read => bytes = &mut bytes[read..],
        }
    }
    Ok(())
}

/// Serves one connection until it ends.
pub fn run(shared: &Shared, socket: &Arc<Socket>) -> io::Result<()> {
    let Some(who) = greet(shared, socket, HelloStatus::Welcome)? else { return Ok(()) };
    tracing::debug!(client = %who.client, cache = %who.cache, "connected");
    shared.catalog.enter(who);
    let mut session = Session {
        shared,
        socket,
        who,
        staging: Staging::default(),
        out: Vec::new(),
        builder: PageBodyBuilder::default(),
    };
    let result = session.serve();
    shared.catalog.leave(who, Instant::now());
    tracing::debug!(client = %who.client, "disconnected");
    result
}

struct Session<'a> {
    shared: &'a Shared,
    socket: &'a Socket,
    who: Who,
    staging: Staging,
    /// Answers that are not sent yet.
    out: Vec<u8>,
    builder: PageBodyBuilder,
}

impl Session<'_> {
    fn serve(&mut self) -> io::Result<()> {
        let mut reader = FrameReader::new(self.shared.limits.frame_body);
        loop {
            match reader.next_frame() {
                Ok(Some((header, body))) => {
                    if self.request(&header, body)? == Next::End {
                        return self.end();
                    }
                    if self.out.len() > ANSWERS_HELD_MAX {
                        self.flush()?;
                    }
                }
                Ok(None) => {
                    self.flush()?;
                    if reader.fill(self.socket)? == 0 {
                        return Ok(());
                    }
                }
                Err(error) => {
                    if let Some(header) = reader.front_header() {
                        self.refuse(&header, &too_long(&error));
                    }
                    return self.end();
                }
            }
        }
    }

    fn request(&mut self, header: &Header, body: &[u8]) -> io::Result<Next> {
        if self.shared.sessions.is_over() {
            let text = "the server is shutting down; connect again";
            self.refuse(header, &Refusal::new(ErrorCode::Closing, text));
            return Ok(Next::End);
        }
        match Kind::from_request(header.kind) {
            Some(Kind::Fetch) => self.fetch(header, body),
            Some(Kind::Stage) => Ok(self.stage(header, body)),
            Some(kind) => {
                let staging = &mut self.staging;
                Ok(self.shared.serve(self.who, kind, header, body, staging, &mut self.out))
            }
            None => {
                let text = format!("message kind {:#06x} is not known to this server", header.kind);
                self.refuse(header, &Refusal::new(ErrorCode::Unsupported, text));
                Ok(Next::Go)
            }
        }
    }

    fn stage(&mut self, header: &Header, body: &[u8]) -> Next {
        let body = match PageBody::parse(body) {
            Ok(body) if body.commit != CommitId(0) => body,
            Ok(_) => {
                self.refuse(header, &malformed(&ProtocolError::Malformed { what: "Stage: commit 0" }));
                return Next::End;
            }
            Err(error) => {
                self.refuse(header, &malformed(&error));
                return Next::End;
            }
        };
        self.staging.add(header.region, &body, self.shared.region_pages_max(), &self.shared.memory);
        Next::Go
    }

    fn fetch(&mut self, header: &Header, body: &[u8]) -> io::Result<Next> {
        let body = match PageBody::parse_fetch(body) {
            Ok(body) => body,
            Err(error) => {
                self.refuse(header, &malformed(&error));
                return Ok(Next::End);
            }
        };
        stats::add(&self.shared.stats.fetches, 1);
        match self.send_pages(header, &body)? {
            Ok(()) => {}
            Err(refusal) => self.refuse(header, &refusal),
        }
        Ok(Next::Go)
    }

    /// Sends what waits, the front of the answer, and the pages from where they lie.
    fn send_pages(&mut self, header: &Header, body: &PageBody<'_>) -> io::Result<Answer<()>> {
        let root = match self.shared.memory.region(header.region).and_then(|region| region.root(header.epoch))
        {
            Ok(root) => root,
            Err(refusal) => return Ok(Err(refusal)),
        };
        self.builder.clear();
        let mut cursor = root.tree.cursor();
        let mut pages = Vec::new();
        for wire in body.runs() {
            for page in wire.run.first.0..wire.run.end() {
                let content = cursor.get(page);
                self.builder.push(page, if content.is_some() { RunKind::Data } else { RunKind::Zero });
                pages.extend(content);
            }
        }
        let front = self.out.len();
        let mut answer = Header {
            length: 0,
            kind: Kind::Fetch.answer(),
            flags: 0,
            request: header.request,
            region: header.region,
            epoch: netmem_protocol::Epoch(root.epoch),
        };
        self.out.extend_from_slice(&answer.encode());
        let at = self.out.len();
        answer.length = self.builder.encode_front(CommitId(0), &mut self.out);
        self.out[front..at].copy_from_slice(&answer.encode());
        stats::add(&self.shared.stats.pages_sent, pages.len() as u64);
        if pages.is_empty() {
            return Ok(Ok(()));
        }
        let mut slices = Vec::with_capacity(1 + pages.len());
        slices.push(IoSlice::new(&self.out));
        slices.extend(pages.into_iter().map(|page| IoSlice::new(&page[..])));
        self.socket.write_all(&mut slices)?;
        self.out.clear();
        Ok(Ok(()))
    }

    fn refuse(&mut self, header: &Header, refusal: &Refusal) {
        tracing::debug!(client = %self.who.client, kind = header.kind, code = ?refusal.code, "refused: {refusal}");
        refuse(header, refusal, &mut self.out);
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.out.is_empty() {
            return Ok(());
        }
        self.socket.write_all(&mut [IoSlice::new(&self.out)])?;
        self.out.clear();
        Ok(())
    }

    /// Sends the last answer. A socket closed with bytes unread resets the connection, and the peer may lose that answer: so
    /// a little is read on.
    fn end(&mut self) -> io::Result<()> {
        self.flush()?;
        self.socket.shutdown(Shutdown::Write);
        let deadline = Instant::now() + LINGER;
        let mut scratch = vec![0; 64 << 10];
        let mut left = LINGER_BYTES;
        while left > 0 && read_some(self.socket, &mut scratch, deadline)? > 0 {
            left = left.saturating_sub(scratch.len());
        }
        Ok(())
    }
}

fn read_some(socket: &Socket, bytes: &mut [u8], deadline: Instant) -> io::Result<usize> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Ok(0);
    }
    socket.set_read_timeout(Some(left))?;
    socket.read(bytes)
}

fn too_long(error: &ProtocolError) -> Refusal {
    Refusal::new(ErrorCode::Malformed, format!("{error} (--max-frame); send smaller frames"))
}
