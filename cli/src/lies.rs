//! A scripted server that lies: every lie is a clear error, none is a wait.
//!
//! Owns: the fake server and its tests. Called by: `cargo test`. Must not: use more of the client than its users do.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use netmem_protocol::activity::{
    CAPABILITY_ACTIVITY, LATENCY_BUCKETS, Latencies, RegionActivities, RegionActivity, Served, ServerActivity,
};
use netmem_protocol::codec::HEADER_BYTES;
use netmem_protocol::control::{Entry, EntryKind, ErrorBody, Listing};
use netmem_protocol::hello::HELLO_BYTES;
use netmem_protocol::{
    Epoch, ErrorCode, FRAME_BODY_MAX, Header, HelloStatus, Kind, REGION_BYTES_MAX, RegionId, RequestId, Run,
    ServerHello, StoreId, encode_frame,
};

use crate::client::{Client, Identity, Timeouts};
use crate::error::ClientError;

const REGION: RegionId = RegionId(5);
const EPOCH: Epoch = Epoch(3);

fn welcome() -> ServerHello {
    ServerHello {
        status: HelloStatus::Welcome,
        version_min: netmem_protocol::VERSION_MIN,
        version_max: netmem_protocol::VERSION_MAX,
        capabilities: CAPABILITY_ACTIVITY,
        store: StoreId([7; 16]),
        frame_body_max: FRAME_BODY_MAX,
        region_bytes_max: REGION_BYTES_MAX,
        instance: 0,
    }
}

/// A server that answers the hello with `hello` and then plays `script`. It keeps the socket open until the
/// client has gone, unless the script drops it.
struct Fake {
    address: String,
    thread: JoinHandle<()>,
}

impl Fake {
    fn new(hello: Vec<u8>, script: impl FnOnce(TcpStream, Header) + Send + 'static) -> Fake {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("tcp://{}", listener.local_addr().unwrap());
        let thread = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            let mut said = [0; HELLO_BYTES];
            stream.read_exact(&mut said).unwrap();
            stream.write_all(&hello).unwrap();
            let mut head = [0; HEADER_BYTES];
            if stream.read_exact(&mut head).is_ok() {
                let header = Header::decode(&head, FRAME_BODY_MAX).unwrap();
                let mut body = vec![0; header.length as usize];
                stream.read_exact(&mut body).unwrap();
                script(stream, header);
            }
        });
        Fake { address, thread }
    }

    /// Connects, asks, and gives back the error's text; the whole thing has to end soon.
    fn error<T: std::fmt::Debug>(self, ask: impl FnOnce(&mut Client) -> Result<T, ClientError>) -> String {
        let start = Instant::now();
        let timeouts = Timeouts { connect: Duration::from_millis(300), answer: Duration::from_millis(300) };
        let address = self.address.parse().unwrap();
        let result = Client::connect_as(&address, Identity::random().unwrap(), timeouts)
            .and_then(|mut client| ask(&mut client));
        let text = result.expect_err("the lie was believed").to_string();
        assert!(start.elapsed() < Duration::from_secs(5), "took {:?}", start.elapsed());
        self.thread.join().unwrap();
        text
    }
}

/// Keeps the connection open, silent, until the client has closed it.
fn hold_open(mut stream: TcpStream) {
    let _ = stream.read(&mut [0; 1]);
}

fn frame(header: Header, body: &[u8]) -> Vec<u8> {
    let mut out = Header { length: body.len() as u32, ..header }.encode().to_vec();
    out.extend_from_slice(body);
    out
}

fn answer_to(asked: Header, kind: Kind) -> Header {
    Header { kind: kind.answer(), ..asked }
}

/// A fake whose answer to the first request is `reply(header of the request)`.
fn replying(reply: impl FnOnce(Header) -> Vec<u8> + Send + 'static) -> Fake {
    Fake::new(welcome().encode().to_vec(), move |mut stream, asked| {
        let _ = stream.write_all(&reply(asked));
        hold_open(stream);
    })
}

fn fetch(client: &mut Client) -> Result<(), ClientError> {
    client.fetch_pages(REGION, EPOCH, &[Run::new(8, 2)]).map(|_| ())
}

/// A page body with the runs `(first, count, kind)` and `pages` pages of data.
fn page_body(commit: u64, runs: &[(u64, u32, u32)], pages: u32) -> Vec<u8> {
    let mut out = commit.to_le_bytes().to_vec();
    out.extend_from_slice(&(runs.len() as u32).to_le_bytes());
    out.extend_from_slice(&pages.to_le_bytes());
    for (first, count, kind) in runs {
        out.extend_from_slice(&first.to_le_bytes());
        out.extend_from_slice(&count.to_le_bytes());
        out.extend_from_slice(&kind.to_le_bytes());
    }
    out.resize(out.len() + pages as usize * 4096, 1);
    out
}

#[track_caller]
fn expect(text: &str, parts: &[&str]) {
    assert!(text.starts_with("tcp://127.0.0.1:"), "does not name the server: {text}");
    for part in parts {
        assert!(text.contains(part), "no {part:?} in: {text}");
    }
}

#[test]
fn a_peer_that_is_not_netmem_is_recognised_by_its_first_bytes() {
    let text = Fake::new(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(), |_, _| ()).error(Client::ping);
    expect(&text, &["does not speak netmem", "something else listens there"]);
}

#[test]
fn another_version_says_install_the_same_release() {
    let hello = ServerHello { version_min: 9, version_max: 12, status: HelloStatus::Version, ..welcome() };
    let text = Fake::new(hello.encode().to_vec(), |_, _| ()).error(Client::ping);
    expect(&text, &["versions 9 to 12", "same netmem release"]);
}

#[test]
fn a_full_server_and_a_closing_server_say_so() {
    for (status, part) in
        [(HelloStatus::TooManyConnections, "as many connections"), (HelloStatus::Closing, "shutting down")]
    {
        let hello = ServerHello { status, ..welcome() };
        expect(&Fake::new(hello.encode().to_vec(), |_, _| ()).error(Client::ping), &[part]);
    }
}

#[test]
fn a_hello_that_stops_half_way_runs_into_the_deadline() {
    let hello = welcome().encode()[..20].to_vec();
    expect(&Fake::new(hello, |_, _| ()).error(Client::ping), &["no answer to hello within 300 ms"]);
}

#[test]
fn an_answer_to_another_request_is_refused() {
    let reply = |asked: Header| frame(Header { request: RequestId(77), ..answer_to(asked, Kind::Ping) }, &[]);
    expect(&replying(reply).error(Client::ping), &["answered request 77 when 1 was asked"]);
    let reply = |asked: Header| {
        let body = page_body(0, &[(8, 2, 0)], 2);
        frame(Header { request: RequestId(77), ..answer_to(asked, Kind::Fetch) }, &body)
    };
    expect(&replying(reply).error(fetch), &["answered request 77 that was not asked"]);
}

#[test]
fn an_answer_of_another_kind_or_region_or_epoch_is_refused() {
    let reply = |asked: Header| frame(answer_to(asked, Kind::Open), &[]);
    expect(&replying(reply).error(Client::ping), &["unexpected message kind 0x8010"]);
    let reply = |asked: Header| frame(Header { region: RegionId(6), ..answer_to(asked, Kind::Close) }, &[]);
    expect(&replying(reply).error(|client| client.close(REGION)), &["region 6 when 5 was asked"]);
    let reply = |asked: Header| {
        frame(Header { epoch: Epoch(4), ..answer_to(asked, Kind::Fetch) }, &page_body(0, &[(8, 2, 0)], 2))
    };
    expect(&replying(reply).error(fetch), &["pages of epoch 4 when 3 was asked"]);
}

#[test]
fn pages_other_than_those_asked_are_refused() {
    for (runs, pages, part) in [
        (vec![(9, 2, 0)], 2, "sent page 9 when 8 was asked"),
        (vec![(8, 1, 0)], 1, "sent page none when 9 was asked"),
        (vec![(8, 3, 0)], 3, "sent page 10 when none was asked"),
        (vec![(8, 1, 0), (8, 1, 0)], 2, "sent page 8 when 9 was asked"),
        (vec![(8, 2, 0)], 1, "malformed page body"),
        (vec![(8, 2, 7)], 0, "malformed page body"),
        (vec![(8, 0, 1), (8, 2, 1)], 0, "malformed page body"),
        (vec![(u64::MAX, 2, 1)], 0, "malformed page body"),
    ] {
        let reply = move |asked: Header| frame(answer_to(asked, Kind::Fetch), &page_body(0, &runs, pages));
        expect(&replying(reply).error(fetch), &[part]);
    }
    let reply = |asked: Header| frame(answer_to(asked, Kind::Fetch), &page_body(9, &[(8, 2, 0)], 2));
    expect(&replying(reply).error(fetch), &["named a commit"]);
}

#[test]
fn an_oversized_frame_is_refused_before_it_is_read() {
    let reply = |asked: Header| Header { length: u32::MAX, ..answer_to(asked, Kind::Ping) }.encode().to_vec();
    expect(&replying(reply).error(Client::ping), &["4294967295 bytes is over the limit"]);
}

#[test]
fn a_peer_that_closes_in_the_middle_of_a_frame_is_a_lost_connection() {
    for bytes in [0, 7, HEADER_BYTES, HEADER_BYTES + 10] {
        let fake = Fake::new(welcome().encode().to_vec(), move |mut stream, asked| {
            let whole = frame(answer_to(asked, Kind::Fetch), &page_body(0, &[(8, 2, 0)], 2));
            stream.write_all(&whole[..bytes]).unwrap();
        });
        expect(&fake.error(fetch), &["connection lost during fetch (closed by the server)"]);
    }
}

#[test]
fn a_peer_that_trickles_bytes_does_not_move_the_deadline() {
    let fake = Fake::new(welcome().encode().to_vec(), |mut stream, _| {
        // One byte every 20 ms keeps every single read alive; only the deadline of the whole answer ends it.
        while stream.write_all(&[0]).is_ok() {
            thread::sleep(Duration::from_millis(20));
        }
    });
    let slow = fake.error(|client| client.call::<_, ()>(Kind::Ping, RegionId(0), Epoch(0), &(), "ping"));
    expect(&slow, &["no answer to ping within 300 ms"]);
}

#[test]
fn a_body_with_bytes_behind_it_is_malformed() {
    let reply = |asked: Header| frame(answer_to(asked, Kind::Ping), b"x");
    expect(&replying(reply).error(Client::ping), &["malformed ping"]);
}

#[test]
fn a_directory_that_never_ends_or_has_wild_names_is_refused() {
    let entry = Entry {
        kind: EntryKind::Region,
        region: REGION,
        size: 0,
        epoch: EPOCH,
        mode: 0o644,
        modified_ns: 0,
        stored_pages: 0,
        created: false,
        links: 1,
        target: Vec::new(),
    };
    for names in [vec![], vec!["b", "a"], vec!["a", "a"], vec!["../x"], vec![""]] {
        let entries = names.iter().map(|name| ((*name).to_owned(), entry.clone())).collect();
        let listing = Listing { entries, more: true };
        let reply = move |asked: Header| {
            let mut out = Vec::new();
            encode_frame(answer_to(asked, Kind::List), &listing, &mut out).unwrap();
            out
        };
        expect(&replying(reply).error(|client| client.list_all("")), &["listed"]);
    }
}

/// Writes an answer, given its header.
type Body = Box<dyn Fn(Header, &mut Vec<u8>) + Send>;

/// A fake that answers each request in turn with the body of its place, and the last one again and again.
fn answering(bodies: Vec<Body>) -> Fake {
    Fake::new(welcome().encode().to_vec(), move |mut stream, first| {
        let mut asked = first;
        for count in 0.. {
            let mut out = Vec::new();
            bodies[count.min(bodies.len() - 1)](
                answer_to(asked, Kind::from_request(asked.kind).unwrap()),
                &mut out,
            );
            let mut head = [0; HEADER_BYTES];
            if stream.write_all(&out).is_err() || stream.read_exact(&mut head).is_err() {
                return;
            }
            asked = Header::decode(&head, FRAME_BODY_MAX).unwrap();
            stream.read_exact(&mut vec![0; asked.length as usize]).unwrap();
        }
    })
}

fn activity(buckets: &[(u32, u64)]) -> ServerActivity {
    ServerActivity {
        uptime_ns: 1,
        regions: 1,
        clients: 0,
        connections: 0,
        stored_pages: 0,
        pages_max: 0,
        served: Served::default(),
        bytes_in: 0,
        bytes_out: 0,
        fetch_ns: Latencies { buckets: buckets.to_vec() },
        commit_ns: Latencies::default(),
    }
}

#[test]
fn latencies_that_cannot_be_are_refused() {
    for buckets in [vec![(LATENCY_BUCKETS, 1)], vec![(9, 1), (9, 1)], vec![(1, u64::MAX), (2, u64::MAX)]] {
        let lie = activity(&buckets);
        let body = move |header, out: &mut Vec<u8>| encode_frame(header, &lie, out).unwrap();
        expect(&answering(vec![Box::new(body)]).error(Client::server_activity), &["latencies"]);
    }
}

#[test]
fn regions_without_end_are_refused_whatever_their_numbers() {
    let row = |number: u64| RegionActivity {
        region: RegionId(number),
        name: String::new(),
        names: 0,
        size: 0,
        stored_pages: 0,
        holds: 0,
        served: Served::default(),
    };
    let server = |header, out: &mut Vec<u8>| encode_frame(header, &activity(&[]), out).unwrap();
    // The same part for ever; one row at a time; none.
    for rows in [(1..=256).map(row).collect::<Vec<_>>(), vec![row(1)], vec![]] {
        let regions = RegionActivities { rows, more: true };
        let body = move |header, out: &mut Vec<u8>| encode_frame(header, &regions, out).unwrap();
        expect(
            &answering(vec![Box::new(server), Box::new(body)]).error(Client::snapshot),
            &["malformed activity"],
        );
    }
}

#[test]
fn a_server_that_does_not_tell_what_it_does_is_not_asked() {
    let hello = ServerHello { capabilities: 0, ..welcome() };
    let text = Fake::new(hello.encode().to_vec(), |_, _| panic!("asked")).error(Client::snapshot);
    expect(&text, &["older release"]);
}

#[test]
fn an_error_answer_is_its_line_and_leaves_the_connection_usable() {
    let fake = Fake::new(welcome().encode().to_vec(), |mut stream, asked| {
        let body =
            ErrorBody { code: ErrorCode::NotFound as u16, text: "x: no such region; \x1b[2J".to_owned() };
        let mut out = Vec::new();
        encode_frame(Header { kind: Kind::Error as u16, ..asked }, &body, &mut out).unwrap();
        out.extend(frame(Header { request: RequestId(2), ..answer_to(asked, Kind::Ping) }, &[]));
        stream.write_all(&out).unwrap();
        hold_open(stream);
    });
    let mut client = Client::connect(&fake.address).unwrap();
    let error = client.lookup("x").unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::NotFound));
    assert_eq!(error.to_string(), "x: no such region; \\u{1b}[2J");
    client.ping().unwrap();
    drop(client);
    fake.thread.join().unwrap();
}

#[test]
fn a_connection_that_failed_is_not_used_again() {
    let reply = |asked: Header| frame(Header { request: RequestId(77), ..answer_to(asked, Kind::Ping) }, &[]);
    let text = replying(reply).error(|client| {
        let _ = client.ping();
        client.ping()
    });
    expect(&text, &["failed before; connect again"]);
}
