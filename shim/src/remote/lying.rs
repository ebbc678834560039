//! A server that does what a test tells it to: lie, stop half-way, hang up, hang.
//!
//! Owns: the other end of the socket in tests. Called by: tests. Must not: be polite on its own: a script says every byte, and
//! anything the client sends beyond it fails the test.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread::JoinHandle;
use std::time::Duration;

use netmem_protocol::codec::HEADER_BYTES;
use netmem_protocol::control::{Committed, Entry, EntryKind, ErrorBody};
use netmem_protocol::hello::HELLO_BYTES;
use netmem_protocol::{
    ClientHello, CommitId, Epoch, ErrorCode, FLAG_PACKED, FRAME_BODY_MAX, Header, HelloStatus, Kind,
    PAGE_SIZE, Packer, PageBody, PageBodyBuilder, REGION_BYTES_MAX, RegionId, RequestId, Run, RunKind,
    ServerHello, StoreId, encode_frame, page_sum,
};
use serde::Serialize;

use crate::config::ServerAddress;

/// No script waits longer than this for the client.
const PATIENCE: Duration = Duration::from_secs(20);

/// What one connection does.
pub type Script = Box<dyn FnOnce(&mut Peer) + Send>;

/// A listening server that serves one script a connection, in order, then listens no more.
pub struct Liar {
    pub address: ServerAddress,
    thread: JoinHandle<()>,
}

impl Liar {
    /// One connection after the other.
    pub fn serve(scripts: Vec<Script>) -> Liar {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let address = address_of(&listener);
        let thread = std::thread::spawn(move || {
            for script in scripts {
                let (stream, _) = listener.accept().expect("accept");
                script(&mut Peer::new(stream));
            }
        });
        Liar { address, thread }
    }

    /// `count` connections at once, all with the same script.
    pub fn serve_at_once(count: usize, script: fn(&mut Peer)) -> Liar {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let address = address_of(&listener);
        let thread = std::thread::spawn(move || {
            let accept = |_| {
                let (stream, _) = listener.accept().expect("accept");
                std::thread::spawn(move || script(&mut Peer::new(stream)))
            };
            let peers: Vec<_> = (0..count).map(accept).collect();
            peers.into_iter().for_each(|peer| peer.join().expect("a script failed"));
        });
        Liar { address, thread }
    }

    /// All scripts went as written, and nobody came besides.
    pub fn finish(self) {
        self.thread.join().expect("a script failed");
    }
}

fn address_of(listener: &TcpListener) -> ServerAddress {
    let port = listener.local_addr().expect("address").port();
    ServerAddress::Tcp { host: "127.0.0.1".to_owned(), port }
}

/// The server's end of one connection.
pub struct Peer {
    stream: TcpStream,
}

impl Peer {
    /// That of a connection that was accepted.
    pub fn new(stream: TcpStream) -> Peer {
        stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
        stream.set_write_timeout(Some(PATIENCE)).expect("timeout");
        stream.set_nodelay(true).expect("nodelay");
        Peer { stream }
    }

    /// Reads the client's hello.
    pub fn hello(&mut self) -> ClientHello {
        self.try_hello().expect("the client's hello")
    }

    /// Reads it, if the client stays for so long.
    pub fn try_hello(&mut self) -> Option<ClientHello> {
        let mut bytes = [0; HELLO_BYTES];
        self.stream.read_exact(&mut bytes).ok()?;
        Some(ClientHello::decode(&bytes).expect("a hello that decodes"))
    }

    /// Answers it.
    pub fn send_hello(&mut self, status: HelloStatus, store: u8) {
        self.send(&server_hello(status, store).encode());
    }

    /// Both, as a good server would.
    pub fn welcome(&mut self) -> ClientHello {
        let hello = self.hello();
        self.send_hello(HelloStatus::Welcome, 1);
        hello
    }

    /// Reads a request of this kind.
    pub fn request(&mut self, kind: Kind) -> (Header, Vec<u8>) {
        let got = self.try_request().expect("a request, not the end");
        assert_eq!(got.0.kind, kind as u16, "kind of request");
        got
    }

    /// Reads a request; `None` at the end.
    pub fn try_request(&mut self) -> Option<(Header, Vec<u8>)> {
        let mut head = [0; HEADER_BYTES];
        let first = self.stream.read(&mut head[..1]).unwrap_or(0);
        if first == 0 {
            return None;
        }
        self.stream.read_exact(&mut head[1..]).expect("rest of a header");
        let header = Header::decode(&head, FRAME_BODY_MAX).expect("a header that decodes");
        let mut body = vec![0; header.length as usize];
        self.stream.read_exact(&mut body).expect("rest of a body");
        Some((header, body))
    }

    /// Sends bytes. The client may be gone.
    pub fn send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// Answers with a control body.
    pub fn answer<T: Serialize>(&mut self, request: &Header, body: &T) {
        let mut out = Vec::new();
        encode_frame(answer_header(request, request.kind | 0x8000), body, &mut out).expect("encode");
        self.send(&out);
    }

    /// Refuses.
    pub fn refuse(&mut self, request: &Header, code: ErrorCode) {
        let mut out = Vec::new();
        let body = ErrorBody { code: code as u16, text: format!("{code:?}") };
        encode_frame(answer_header(request, Kind::Error as u16), &body, &mut out).expect("encode");
        self.send(&out);
    }

    /// Answers a fetch with these pages, whatever was asked.
    pub fn answer_pages(&mut self, request: &Header, pages: impl IntoIterator<Item = u64>) {
        self.send(&pages_answer(request, pages));
    }

    /// Answers a fetch with what it asks for.
    pub fn answer_fetch(&mut self, request: &Header, body: &[u8]) {
        let asked = PageBody::parse_fetch(body).expect("a fetch that decodes");
        self.answer_pages(request, asked.runs().flat_map(|wire| wire.run.first.0..wire.run.end()));
    }

    /// Reads until the client hangs up, whatever it says.
    pub fn drain(&mut self) {
        let mut part = [0; 4096];
        while self.stream.read(&mut part).is_ok_and(|got| got > 0) {}
    }

    /// Waits until the client hangs up, and checks that it said nothing more.
    pub fn expect_end(&mut self) {
        let mut byte = [0];
        match self.stream.read(&mut byte) {
            Ok(0) => {}
            Ok(_) => panic!("the client said more"),
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}"),
        }
    }
}

/// What page `page` holds in every region here: all zeros if its number is a multiple of five.
pub fn content(page: u64) -> Option<[u8; PAGE_SIZE]> {
    (!page.is_multiple_of(5)).then(|| {
        let mut bytes = [page as u8 | 1; PAGE_SIZE];
        bytes[..8].copy_from_slice(&page.to_le_bytes());
        bytes
    })
}

/// The bytes of an answer with these pages.
pub fn pages_answer(request: &Header, pages: impl IntoIterator<Item = u64>) -> Vec<u8> {
    pages_answer_with(request, pages, false)
}

/// The same, with checksums if that was agreed.
pub fn pages_answer_with(request: &Header, pages: impl IntoIterator<Item = u64>, with_sums: bool) -> Vec<u8> {
    let mut builder = PageBodyBuilder::default();
    let mut data = Vec::new();
    for page in pages {
        match content(page) {
            Some(bytes) => {
                builder.push_data(page, page_sum(&bytes));
                data.extend_from_slice(&bytes);
            }
            None => builder.push(page, RunKind::Zero),
        }
    }
    let mut body = Vec::new();
    builder.encode(CommitId(0), with_sums, &mut body);
    body.extend_from_slice(&data);
    let header = Header { epoch: request.epoch, ..answer_header(request, Kind::Fetch.answer()) };
    frame(&header, &body)
}

/// The same packed, if that is worth it.
pub fn pages_answer_packed(
    request: &Header,
    pages: impl IntoIterator<Item = u64>,
    with_sums: bool,
) -> Vec<u8> {
    let whole = pages_answer_with(request, pages, with_sums);
    let body = PageBody::parse(&whole[HEADER_BYTES..], with_sums).expect("well made");
    let data_bytes = body.data_pages() as usize * PAGE_SIZE;
    let (front, data) = whole.split_at(whole.len() - data_bytes);
    let mut packer = Packer::default();
    let Some(block) = packer.pack(data).filter(|_| data_bytes > 0) else { return whole };
    let header = Header { epoch: request.epoch, ..answer_header(request, Kind::Fetch.answer()) };
    frame(&Header { flags: FLAG_PACKED, ..header }, &[&front[HEADER_BYTES..], block].concat())
}

/// A frame with a body that is raw.
pub fn frame(header: &Header, body: &[u8]) -> Vec<u8> {
    let mut out = Header { length: body.len() as u32, ..*header }.encode().to_vec();
    out.extend_from_slice(body);
    out
}

pub fn answer_header(request: &Header, kind: u16) -> Header {
    Header { length: 0, kind, flags: 0, request: request.request, region: request.region, epoch: Epoch(0) }
}

pub fn server_hello(status: HelloStatus, store: u8) -> ServerHello {
    ServerHello {
        status,
        version_min: netmem_protocol::VERSION_MIN,
        version_max: netmem_protocol::VERSION_MAX,
        capabilities: 0,
        store: StoreId([store; 16]),
        frame_body_max: FRAME_BODY_MAX,
        region_bytes_max: REGION_BYTES_MAX,
        instance: 0,
    }
}

pub fn entry(region: u64) -> Entry {
    Entry {
        kind: EntryKind::Region,
        region: RegionId(region),
        size: 0,
        epoch: Epoch(1),
        mode: 0o600,
        modified_ns: 0,
        stored_pages: 0,
        created: false,
        links: 1,
        target: Vec::new(),
    }
}

pub fn committed(epoch: u64) -> Committed {
    Committed { epoch: Epoch(epoch), previous: Epoch(epoch - 1), size: 0 }
}

/// A request that nobody made.
pub fn nobody(header: &Header) -> Header {
    Header { request: RequestId(header.request.0 + 1), ..*header }
}

/// Runs as pages.
pub fn pages_of(runs: &[Run]) -> Vec<u64> {
    runs.iter().flat_map(|run| run.first.0..run.end()).collect()
}
