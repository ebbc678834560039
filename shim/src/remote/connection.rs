//! One connection: the first exchange, frames out, frames in.
//!
//! Owns: a socket, its buffers and its request numbers. Called by: client, fetch, commit, each with a connection of its own
//! for as long as a request takes. Must not: reconnect or retry.

use netmem_protocol::codec::HEADER_BYTES;
use netmem_protocol::control::ErrorBody;
use netmem_protocol::hello::HELLO_BYTES;
use netmem_protocol::pages::{PAGE_BODY_HEAD_BYTES, RUN_BYTES, SUM_BYTES};
use netmem_protocol::{
    CAPABILITY_PACKED, CAPABILITY_SUMS, ClientHello, Epoch, ErrorCode, FLAG_PACKED, FRAME_BODY_MAX, Header,
    HelloStatus, Kind, PAGE_SIZE, Packer, ProtocolError, REGION_BYTES_MAX, RegionId, RequestId, Run,
    ServerHello, decode_body, encode_frame, unpack,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::error::Why;
use super::fetch::PACKED_FRAME_PAGES;
use crate::sys::net::{Deadline, NetError, Socket};

/// Bytes of the first receive of an answer: a page with its header (4,160 bytes) comes in one call.
const FIRST_RECEIVE_BYTES: usize = 8 << 10;

/// The longest page body that may come packed, each of its pages a run of its own.
const UNPACKED_BYTES: usize =
    PAGE_BODY_HEAD_BYTES + PACKED_FRAME_PAGES[1] as usize * (RUN_BYTES + SUM_BYTES + PAGE_SIZE);

/// Characters of a server's refusal that are kept.
const ERROR_TEXT_MAX: usize = 4096;
/// With less in a frame no page could be sent.
const FRAME_BODY_LEAST: u32 = 8192;

/// Why an exchange on one connection failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// The connection is gone. `sent`: all of the request had been handed over.
    Broken { sent: bool, why: Why },
    /// The deadline is over.
    TimedOut { sent: bool },
    /// The peer does not keep to the protocol.
    Protocol(ProtocolError),
    /// The peer does not take the connection.
    Refused(HelloStatus),
    /// The server refuses the request; unless it is closing, the connection is fine.
    Answer(ErrorCode, String),
}

impl Trouble {
    fn net(sent: bool, error: NetError) -> Self {
        match error {
            NetError::TimedOut => Trouble::TimedOut { sent },
            NetError::Closed | NetError::Os(_) => Trouble::Broken { sent, why: error.into() },
        }
    }
}

impl From<ProtocolError> for Trouble {
    fn from(error: ProtocolError) -> Self {
        match error {
            // Not the peer's fault, perhaps; another time it may come whole.
            ProtocolError::Corrupt { page } => Trouble::Broken { sent: true, why: Why::Corrupt(page) },
            error => Trouble::Protocol(error),
        }
    }
}

fn malformed(what: &'static str) -> Trouble {
    Trouble::Protocol(ProtocolError::Malformed { what })
}

/// An open connection, used by one thread at a time.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) socket: Socket,
    /// Its place in the pool.
    pub(super) slot: usize,
    /// Bytes of body that the server takes in one frame.
    pub(super) frame_body_max: u32,
    /// Page bodies have checksums.
    pub(super) with_sums: bool,
    /// They may be packed.
    pub(super) packs: bool,
    requests: u64,
    /// Where requests are put together.
    out: Vec<u8>,
    /// The newest answer, and what has come behind it.
    inbox: Vec<u8>,
    /// Bytes of `inbox` that the newest answer takes.
    answer_bytes: usize,
    /// Its flags.
    answer_flags: u16,
    /// A page body that came packed.
    unpacked: Vec<u8>,
    /// What packs those that go.
    pub(super) packer: Packer,
    /// What a fetch waits for.
    pub(super) wanted: Vec<Run>,
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
}

impl Connection {
    /// A connected socket, in its place.
    pub(super) fn new(socket: Socket, slot: usize) -> Self {
        Connection {
            socket,
            slot,
            frame_body_max: 0,
            with_sums: false,
            packs: false,
            requests: 0,
            out: Vec::new(),
            inbox: Vec::with_capacity(FIRST_RECEIVE_BYTES),
            answer_bytes: 0,
            answer_flags: 0,
            unpacked: Vec::new(),
            packer: Packer::default(),
            wanted: Vec::new(),
            bytes_in: 0,
            bytes_out: 0,
        }
    }

    /// Makes the first exchange.
    pub(super) fn greet(&mut self, hello: &ClientHello, deadline: Deadline) -> Result<ServerHello, Trouble> {
        self.send_parts(&hello.encode(), &[], deadline)?;
        while self.inbox.len() < HELLO_BYTES {
            self.receive_more(HELLO_BYTES - self.inbox.len(), false, deadline)?;
            if self.inbox.len() < HELLO_BYTES && deadline.expired() {
                return Err(Trouble::TimedOut { sent: true });
            }
        }
        let Some(bytes) = self.inbox.first_chunk::<HELLO_BYTES>() else { return Err(malformed("hello")) };
        let server = ServerHello::decode(bytes)?;
        if server.status != HelloStatus::Welcome {
            return Err(Trouble::Refused(server.status));
        }
        if server.frame_body_max < FRAME_BODY_LEAST || server.region_bytes_max > REGION_BYTES_MAX {
            return Err(malformed("hello: its limits"));
        }
        self.inbox.clear();
        self.frame_body_max = server.frame_body_max;
        self.with_sums = server.capabilities & hello.capabilities & CAPABILITY_SUMS != 0;
        self.packs = server.capabilities & hello.capabilities & CAPABILITY_PACKED != 0;
        if self.packs {
            // Here, and not at the first body that comes packed: that may be one for which nobody may wait for the heap.
            self.unpacked.reserve_exact(UNPACKED_BYTES);
        }
        Ok(server)
    }

    /// Sends a request with a control body and reads its answer.
    pub(super) fn exchange<B: Serialize, T: DeserializeOwned>(
        &mut self,
        ask: &Ask<'_, B>,
        deadline: Deadline,
    ) -> Result<T, Trouble> {
        let request = self.send(ask, deadline)?;
        self.receive_answer((ask.kind, ask.region), request, deadline)?;
        Ok(decode_body(self.body(), "answer")?)
    }

    /// Sends a request with a control body.
    pub(super) fn send<B: Serialize>(
        &mut self,
        ask: &Ask<'_, B>,
        deadline: Deadline,
    ) -> Result<RequestId, Trouble> {
        let request = self.next_request();
        let header = Header {
            length: 0,
            kind: ask.kind as u16,
            flags: 0,
            request,
            region: ask.region,
            epoch: ask.epoch,
        };
        let mut out = core::mem::take(&mut self.out);
        out.clear();
        let sent = encode_frame(header, ask.body, &mut out)
            .map_err(Trouble::Protocol)
            .and_then(|()| self.send_parts(&out, &[], deadline));
        self.out = out;
        sent.map(|()| request)
    }

    /// Sends a request whose body is raw: `front` appends what goes before `data` and says how long the whole body is.
    pub(super) fn send_raw(
        &mut self,
        (kind, flags): (Kind, u16),
        (region, epoch): (RegionId, Epoch),
        front: impl FnOnce(&mut Vec<u8>) -> u32,
        data: &[u8],
        deadline: Deadline,
    ) -> Result<RequestId, Trouble> {
        let request = self.next_request();
        let mut out = core::mem::take(&mut self.out);
        out.clear();
        out.resize(HEADER_BYTES, 0);
        let length = front(&mut out);
        let header = Header { length, kind: kind as u16, flags, request, region, epoch };
        if let Some(place) = out.first_chunk_mut::<HEADER_BYTES>() {
            *place = header.encode();
        }
        let sent = if length > self.frame_body_max {
            Err(ProtocolError::FrameTooLong { length, limit: self.frame_body_max }.into())
        } else if out.len() + data.len() != HEADER_BYTES + length as usize {
            Err(malformed("frame to send: its parts do not add up"))
        } else {
            self.send_parts(&out, data, deadline)
        };
        self.out = out;
        sent.map(|()| request)
    }

    /// Waits for the answer to `request`, the oldest that is unanswered; its body is then [`Self::body`]. Returns the epoch of which it is.
    pub(super) fn receive_answer(
        &mut self,
        (kind, region): (Kind, RegionId),
        request: RequestId,
        deadline: Deadline,
    ) -> Result<Epoch, Trouble> {
        let header = self.receive_frame(deadline)?;
        if header.request != request {
            return Err(malformed("answer: its request number"));
        }
        if header.kind == kind.answer() {
            if region != RegionId(0) && header.region != region {
                return Err(malformed("answer: its region"));
            }
            return Ok(header.epoch);
        }
        if header.kind != Kind::Error as u16 {
            return Err(ProtocolError::UnexpectedKind { kind: header.kind }.into());
        }
        let body: ErrorBody = decode_body(self.body(), "error answer")?;
        Err(Trouble::Answer(ErrorCode::from_wire(body.code), one_line(&body.text)))
    }

    /// The body of the newest answer.
    pub(super) fn body(&self) -> &[u8] {
        self.inbox.get(HEADER_BYTES..self.answer_bytes).unwrap_or(&[])
    }

    /// The page body of the newest answer, and how many bytes longer it is than it was on the wire, packed.
    pub(super) fn pages_body(&mut self) -> Result<(&[u8], usize), ProtocolError> {
        if !self.packs || self.answer_flags & FLAG_PACKED == 0 {
            return Ok((self.body(), 0));
        }
        let packed = self.inbox.get(HEADER_BYTES..self.answer_bytes).unwrap_or(&[]);
        let length = unpack(packed, self.with_sums, FRAME_BODY_MAX, &mut self.unpacked)?;
        Ok((self.unpacked.get(..length).unwrap_or(&[]), length.saturating_sub(packed.len())))
    }

    /// Whether it can be used again: everything that came was asked for.
    pub(super) fn is_clean(&self) -> bool {
        self.answer_bytes == self.inbox.len()
    }

    fn next_request(&mut self) -> RequestId {
        self.requests += 1;
        RequestId(self.requests)
    }

    fn send_parts(&mut self, front: &[u8], data: &[u8], deadline: Deadline) -> Result<(), Trouble> {
        let total = (front.len() + data.len()) as u64;
        match self.socket.send(front, data, deadline) {
            Ok(()) => {
                self.bytes_out += total;
                Ok(())
            }
            Err((done, error)) => {
                self.bytes_out += done as u64;
                Err(Trouble::net(false, error))
            }
        }
    }

    fn receive_more(&mut self, most: usize, all: bool, deadline: Deadline) -> Result<(), Trouble> {
        let got = self.socket.receive(&mut self.inbox, most, all, deadline);
        self.bytes_in += got.map_err(|error| Trouble::net(true, error))? as u64;
        Ok(())
    }

    /// Reads until a whole frame is at the start of the inbox. Only its first receive may bring bytes of a later frame, so
    /// what has to be moved up is short.
    fn receive_frame(&mut self, deadline: Deadline) -> Result<Header, Trouble> {
        self.inbox.drain(..self.answer_bytes.min(self.inbox.len()));
        self.answer_bytes = 0;
        let mut received = false;
        loop {
            let have = self.inbox.len();
            let missing = match self.inbox.first_chunk::<HEADER_BYTES>() {
                None => FIRST_RECEIVE_BYTES.saturating_sub(have),
                Some(head) => {
                    let header = Header::decode(head, FRAME_BODY_MAX)?;
                    let total = HEADER_BYTES + header.length as usize;
                    if have >= total {
                        self.answer_bytes = total;
                        self.answer_flags = header.flags;
                        return Ok(header);
                    }
                    total - have
                }
            };
            // A peer that sends a byte now and then must not keep us for ever.
            if received && deadline.expired() {
                return Err(Trouble::TimedOut { sent: true });
            }
            self.receive_more(missing, have >= HEADER_BYTES, deadline)?;
            received = true;
        }
    }
}

/// A server's line as it may go to the terminal of whoever runs the program: without what would move its cursor, and not endless.
fn one_line(text: &str) -> String {
    let printable = |c: char| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c };
    text.chars().take(ERROR_TEXT_MAX).map(printable).collect()
}

/// A request with a control body.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ask<'a, B> {
    pub(super) kind: Kind,
    pub(super) region: RegionId,
    pub(super) epoch: Epoch,
    pub(super) body: &'a B,
}
