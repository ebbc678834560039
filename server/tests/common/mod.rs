//! A blocking client, a server in a child process, and a server in this one.
//!
//! Owns: nothing of the server: it speaks the protocol only. Called by: the black-box tests. Must not: wait without a limit.

#![allow(dead_code, reason = "each test binary uses a part")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use clap::Parser;
use netmem_protocol::codec::HEADER_BYTES;
use netmem_protocol::control::{Changes, Commit, Committed, Create, Entry, ErrorBody, Open, ServerStat};
use netmem_protocol::hello::HELLO_BYTES;
use netmem_protocol::pages::encode_fetch;
use netmem_protocol::{
    CacheId, ClientHello, ClientId, CommitId, Epoch, ErrorCode, FRAME_BODY_MAX, Header, Kind, PAGE_SIZE,
    PageBody, PageBodyBuilder, RegionId, RequestId, Run, RunKind, ServerHello, decode_body, encode_frame,
};
use netmem_server::Server;
use netmem_server::config::{Arguments, Config};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// No answer takes longer in these tests; a server that hangs fails them.
pub const LIMIT: Duration = Duration::from_secs(20);

pub type Page = [u8; PAGE_SIZE];

/// A server in a process of its own, ended with the value.
pub struct Process {
    pub child: Child,
    pub ready: String,
}

impl Process {
    pub fn start(arguments: &[&str]) -> Process {
        let mut child = Command::new(env!("CARGO_BIN_EXE_netmem-server"))
            .args(["--port", "0", "--log", "warn"])
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .expect("the server starts");
        let out = child.stdout.take().expect("its output is piped");
        let (send, line) = mpsc::channel();
        std::thread::spawn(move || {
            let mut ready = String::new();
            let _ = BufReader::new(out).read_line(&mut ready);
            let _ = send.send(ready);
        });
        let ready = line.recv_timeout(LIMIT).expect("a ready line in time");
        assert!(ready.starts_with("netmem-server ready on ") && ready.ends_with('\n'), "{ready:?}");
        Process { child, ready: ready.trim_end().to_owned() }
    }

    pub fn address(&self) -> SocketAddr {
        let url = self.ready.split_whitespace().find_map(|word| word.strip_prefix("tcp://"));
        url.expect("a tcp address").parse().expect("an address")
    }

    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        let pid = nix::unistd::Pid::from_raw(self.child.id() as i32);
        nix::sys::signal::kill(pid, signal).expect("the server is there");
    }

    pub fn wait(&mut self) -> ExitStatus {
        let until = Instant::now() + LIMIT;
        loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                return status;
            }
            assert!(Instant::now() < until, "the server did not end in time");
            std::thread::yield_now();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The configuration of these arguments, on any port.
pub fn config(arguments: &[&str]) -> Config {
    let all = ["netmem-server", "--port", "0"].iter().chain(arguments);
    Arguments::try_parse_from(all).expect("arguments").into_config().expect("a configuration")
}

/// A server in this process.
pub fn server(arguments: &[&str]) -> (Server, SocketAddr) {
    server_with(&config(arguments))
}

pub fn server_with(config: &Config) -> (Server, SocketAddr) {
    let server = Server::start(config).expect("the server starts");
    let address = server.urls()[0].strip_prefix("tcp://").expect("tcp").parse().expect("an address");
    (server, address)
}

/// What a request gave.
pub type Answered<T> = Result<T, (ErrorCode, String)>;

pub struct Client {
    pub stream: TcpStream,
    pub client: ClientId,
    pub cache: CacheId,
    pub hello: ServerHello,
    next: u64,
}

/// A number that was not given before.
pub fn unique() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    LAST.fetch_add(1, Ordering::Relaxed) + 1
}

fn id() -> [u8; 16] {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&unique().to_le_bytes());
    id
}

pub fn page(fill: u8) -> Page {
    [fill; PAGE_SIZE]
}

/// A raw connection with a time limit.
pub fn dial(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("the server listens");
    stream.set_read_timeout(Some(LIMIT)).expect("a timeout");
    stream.set_write_timeout(Some(LIMIT)).expect("a timeout");
    stream.set_nodelay(true).expect("no delay");
    stream
}

impl Client {
    /// A process with a page cache of its own.
    pub fn connect(address: SocketAddr) -> Client {
        Client::as_one(address, ClientId(id()), CacheId(id()))
    }

    pub fn as_one(address: SocketAddr, client: ClientId, cache: CacheId) -> Client {
        let mut stream = dial(address);
        stream.write_all(&ClientHello::new(client, cache).encode()).expect("a hello");
        let mut hello = [0; HELLO_BYTES];
        stream.read_exact(&mut hello).expect("the server's hello");
        let hello = ServerHello::decode(&hello).expect("a hello that we understand");
        Client { stream, client, cache, hello, next: 0 }
    }

    pub fn header(&mut self, kind: Kind, region: RegionId, epoch: u64) -> Header {
        self.next += 1;
        let request = RequestId(self.next);
        Header { length: 0, kind: kind as u16, flags: 0, request, region, epoch: Epoch(epoch) }
    }

    pub fn send(&mut self, header: Header, body: &[u8]) {
        let mut frame = Header { length: body.len() as u32, ..header }.encode().to_vec();
        frame.extend_from_slice(body);
        self.stream.write_all(&frame).expect("the server reads");
    }

    pub fn receive(&mut self) -> (Header, Vec<u8>) {
        self.try_receive().expect("an answer")
    }

    pub fn try_receive(&mut self) -> std::io::Result<(Header, Vec<u8>)> {
        let mut head = [0; HEADER_BYTES];
        self.stream.read_exact(&mut head)?;
        let header = Header::decode(&head, FRAME_BODY_MAX).expect("a header");
        let mut body = vec![0; header.length as usize];
        self.stream.read_exact(&mut body)?;
        Ok((header, body))
    }

    /// The answer to this request, its epoch and its body.
    pub fn answer(&mut self, header: Header) -> Answered<(u64, Vec<u8>)> {
        let (answer, body) = self.receive();
        assert_eq!(answer.request, header.request);
        if answer.kind == Kind::Error as u16 {
            let error: ErrorBody = decode_body(&body, "error").expect("an error body");
            assert!(!error.text.is_empty() && !error.text.contains('\n'), "{:?}", error.text);
            return Err((ErrorCode::from_wire(error.code), error.text));
        }
        assert_eq!(answer.kind, header.kind | netmem_protocol::message::ANSWER);
        Ok((answer.epoch.0, body))
    }

    pub fn raw(&mut self, kind: Kind, region: RegionId, epoch: u64, body: &[u8]) -> Answered<(u64, Vec<u8>)> {
        let header = self.header(kind, region, epoch);
        self.send(header, body);
        self.answer(header)
    }

    pub fn call<B: Serialize, A: DeserializeOwned>(
        &mut self,
        kind: Kind,
        region: RegionId,
        body: &B,
    ) -> Answered<A> {
        let header = self.header(kind, region, 0);
        let mut frame = Vec::new();
        encode_frame(header, body, &mut frame).expect("a body that encodes");
        self.stream.write_all(&frame).expect("the server reads");
        let (_, body) = self.answer(header)?;
        Ok(decode_body(&body, "answer").expect("an answer that decodes"))
    }

    pub fn call_empty<B: Serialize>(&mut self, kind: Kind, region: RegionId, body: &B) -> Answered<()> {
        let header = self.header(kind, region, 0);
        let mut frame = Vec::new();
        encode_frame(header, body, &mut frame).expect("a body that encodes");
        self.stream.write_all(&frame).expect("the server reads");
        let (_, body) = self.answer(header)?;
        assert!(body.is_empty());
        Ok(())
    }

    pub fn open(&mut self, name: &str) -> Entry {
        self.try_open(name, Create::IfMissing).expect("a region")
    }

    pub fn try_open(&mut self, name: &str, create: Create) -> Answered<Entry> {
        self.call(Kind::Open, RegionId(0), &Open { name: name.into(), create, mode: 0o644 })
    }

    pub fn stage(&mut self, region: RegionId, commit: u64, pages: &[(u64, Option<Page>)]) {
        for part in pages.chunks(netmem_protocol::FRAME_PAGES_MAX as usize) {
            let mut builder = PageBodyBuilder::default();
            let mut data = Vec::new();
            for (page, content) in part {
                builder.push(*page, if content.is_some() { RunKind::Data } else { RunKind::Zero });
                data.extend_from_slice(content.as_ref().map_or(&[][..], |content| &content[..]));
            }
            let mut body = Vec::new();
            builder.encode_front(CommitId(commit), &mut body);
            body.extend_from_slice(&data);
            let header = self.header(Kind::Stage, region, 0);
            self.send(header, &body);
        }
    }

    /// Stages and commits on `base`.
    pub fn commit(
        &mut self,
        region: RegionId,
        base: u64,
        pages: &[(u64, Option<Page>)],
    ) -> Answered<Committed> {
        let commit = unique();
        self.stage(region, commit, pages);
        self.finish(region, &commit_body(commit, pages.len() as u64, base))
    }

    pub fn finish(&mut self, region: RegionId, commit: &Commit) -> Answered<Committed> {
        self.call(Kind::Commit, region, commit)
    }

    pub fn fetch(&mut self, region: RegionId, epoch: u64, runs: &[Run]) -> Answered<Fetched> {
        let mut body = Vec::new();
        encode_fetch(runs, &mut body);
        let (epoch, body) = self.raw(Kind::Fetch, region, epoch, &body)?;
        let parsed = PageBody::parse(&body, false).expect("a page body");
        let pages = parsed.pages().map(|(page, content)| (page, content.copied())).collect();
        Ok(Fetched { epoch, pages, bytes: body.len() })
    }

    pub fn changes(&mut self, region: RegionId, since: u64) -> Answered<Changes> {
        self.changes_until(region, since, 0)
    }

    pub fn changes_until(&mut self, region: RegionId, since: u64, until: u64) -> Answered<Changes> {
        // A number of less than 251 is one byte.
        let (_, body) = self.raw(Kind::Changes, region, since, &[u8::try_from(until).expect("small")])?;
        Ok(decode_body(&body, "changes").expect("changes"))
    }

    pub fn view(&mut self, region: RegionId, epoch: u64) -> Answered<()> {
        self.raw(Kind::View, region, epoch, &[]).map(|_| ())
    }

    pub fn stat(&mut self) -> ServerStat {
        let (_, body) = self.raw(Kind::ServerStat, RegionId(0), 0, &[]).expect("statistics");
        decode_body(&body, "stat").expect("statistics")
    }
}

pub fn commit_body(commit: u64, staged_pages: u64, base: u64) -> Commit {
    Commit { commit: CommitId(commit), staged_pages, base: Epoch(base), strict: false, cut: None, size: None }
}

#[derive(Debug)]
pub struct Fetched {
    pub epoch: u64,
    pub pages: Vec<(u64, Option<Page>)>,
    pub bytes: usize,
}

impl Fetched {
    /// The byte that fills each page; 0 for a zero page.
    pub fn fills(&self) -> Vec<u8> {
        self.pages.iter().map(|(_, content)| content.map_or(0, |content| content[0])).collect()
    }
}

/// The code of a refusal.
pub fn code<T: std::fmt::Debug>(answer: Answered<T>) -> ErrorCode {
    answer.expect_err("a refusal").0
}

/// Waits for something that another thread brings about.
pub fn until(what: &str, mut is: impl FnMut() -> bool) {
    let end = Instant::now() + LIMIT;
    while !is() {
        assert!(Instant::now() < end, "{what} did not happen in time");
        std::thread::yield_now();
    }
}
