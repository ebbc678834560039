//! Peers that are wrong, slow, too many or gone; and the end of the server.

mod common;

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Command;
use std::time::Duration;

use common::{
    Client, LIMIT, Process, code, commit_body, config, dial, page, server, server_with, unique, until,
};
use netmem_protocol::control::{Commit, Create, ErrorBody, Lookup, Resize};
use netmem_protocol::hello::HELLO_BYTES;
use netmem_protocol::{
    CacheId, ClientHello, ClientId, Epoch, ErrorCode, HelloStatus, Kind, ProtocolError, RegionId, Run,
    ServerHello, VERSION_MAX, decode_body, encode_frame,
};
use nix::sys::signal::Signal;
use proptest::prelude::*;

fn hello() -> ClientHello {
    ClientHello::new(ClientId([9; 16]), CacheId([9; 16]))
}

/// Says hello and reads the answer's bytes.
fn greet(address: SocketAddr, hello: &ClientHello) -> [u8; HELLO_BYTES] {
    let mut stream = dial(address);
    stream.write_all(&hello.encode()).expect("sent");
    let mut answer = [0; HELLO_BYTES];
    stream.read_exact(&mut answer).expect("an answer");
    assert_eq!(stream.read(&mut [0; 1]).expect("the end"), 0, "nothing follows");
    answer
}

/// The server takes connections and answers.
fn check_alive(address: SocketAddr) {
    let mut client = Client::connect(address);
    client.raw(Kind::Ping, RegionId(0), 0, &[]).expect("a ping");
}

#[test]
fn a_client_of_another_version_is_told_so() {
    let (server, address) = server(&[]);
    let newer = ClientHello { version_min: VERSION_MAX + 1, version_max: VERSION_MAX + 3, ..hello() };
    let answer = greet(address, &newer);
    assert_eq!(u16::from_le_bytes([answer[12], answer[13]]), HelloStatus::Version as u16);
    assert!(matches!(ServerHello::decode(&answer), Err(ProtocolError::Version { .. })));
    check_alive(address);
    assert!(server.stop());
}

#[test]
fn one_connection_too_many_is_told_so_and_there_is_room_again_afterwards() {
    let (server, address) = server(&["--max-connections", "2"]);
    let (first, second) = (Client::connect(address), Client::connect(address));
    let answer = ServerHello::decode(&greet(address, &hello())).expect("a hello");
    assert_eq!(answer.status, HelloStatus::TooManyConnections);
    drop(first);
    until("room", || {
        let mut stream = dial(address);
        stream.write_all(&hello().encode()).expect("sent");
        let mut answer = [0; HELLO_BYTES];
        stream.read_exact(&mut answer).expect("an answer");
        ServerHello::decode(&answer).expect("a hello").status == HelloStatus::Welcome
    });
    drop(second);
    assert!(server.stop());
}

#[test]
fn a_connection_that_says_no_hello_is_dropped_and_so_is_one_that_does_not_speak_netmem() {
    let mut config = config(&["--max-connections", "1"]);
    config.hello_timeout = Duration::from_millis(20);
    let (server, address) = server_with(&config);
    let mut slow = dial(address);
    slow.write_all(&hello().encode()[..30]).expect("sent");
    assert_eq!(slow.read(&mut [0; 1]).ok(), Some(0), "dropped in time");
    let mut stranger = dial(address);
    stranger.write_all(&[b'x'; HELLO_BYTES]).expect("sent");
    assert!(matches!(stranger.read(&mut [0; 1]), Ok(0) | Err(_)), "nothing is said to a stranger");
    assert!(server.stop());
}

#[test]
fn an_oversized_frame_is_answered_and_the_connection_ends() {
    let (server, address) = server(&["--max-frame", "128K"]);
    let mut client = Client::connect(address);
    assert_eq!(client.hello.frame_body_max, 128 << 10);
    let header = client.header(Kind::Open, RegionId(0), 0);
    let long = netmem_protocol::Header { length: (128 << 10) + 1, ..header };
    client.stream.write_all(&long.encode()).expect("sent");
    let (error, text) = client.answer(header).expect_err("too long");
    assert_eq!(error, ErrorCode::Malformed);
    assert!(text.contains("131072") && text.contains("--max-frame"), "{text}");
    assert!(client.try_receive().is_err(), "the connection has ended");
    let mut other = Client::connect(address);
    let header = other.header(Kind::Open, RegionId(0), 0);
    other.send(header, &vec![0; 128 << 10]);
    assert_eq!(
        code(other.answer(header)),
        ErrorCode::Malformed,
        "the limit itself is allowed; this is no Open"
    );
    assert!(server.stop());
}

#[test]
fn a_malformed_body_of_any_kind_is_answered_and_the_connection_ends() {
    let (server, address) = server(&[]);
    for kind in Kind::REQUESTS {
        let mut client = Client::connect(address);
        let header = client.header(kind, RegionId(1), 0);
        client.send(header, &[0xff; 37]);
        assert_eq!(code(client.answer(header)), ErrorCode::Malformed, "{kind:?}");
        assert!(client.try_receive().is_err(), "{kind:?}: the connection has ended");
    }
    assert!(server.stop());
}

#[test]
fn an_unknown_kind_is_unsupported_and_the_connection_goes_on() {
    let (server, address) = server(&[]);
    let mut client = Client::connect(address);
    for kind in [0u16, 1, 3, 0x7ffe, 0x8002, 0xffff] {
        let mut header = client.header(Kind::Ping, RegionId(0), 0);
        header.kind = kind;
        client.send(header, b"whatever");
        let (answer, body) = client.receive();
        assert_eq!((answer.kind, answer.request), (Kind::Error as u16, header.request));
        let error: ErrorBody = decode_body(&body, "error").expect("an error");
        assert_eq!(error.code, ErrorCode::Unsupported as u16);
    }
    client.raw(Kind::Ping, RegionId(0), 0, &[]).expect("it goes on");
    assert!(server.stop());
}

/// A session as bytes: hello, open, stages, a commit, a fetch.
fn session() -> Vec<u8> {
    let mut bytes = hello().encode().to_vec();
    let header = |kind: Kind, request, region| netmem_protocol::Header {
        length: 0,
        kind: kind as u16,
        flags: 0,
        request: netmem_protocol::RequestId(request),
        region: RegionId(region),
        epoch: Epoch(0),
    };
    let open = netmem_protocol::control::Open { name: "cut".into(), create: Create::IfMissing, mode: 0o600 };
    encode_frame(header(Kind::Open, 1, 0), &open, &mut bytes).expect("a frame");
    let mut builder = netmem_protocol::PageBodyBuilder::default();
    builder.push(0, netmem_protocol::RunKind::Data);
    builder.push(1, netmem_protocol::RunKind::Zero);
    let mut body = Vec::new();
    builder.encode_front(netmem_protocol::CommitId(5), &mut body);
    body.extend_from_slice(&page(3));
    let stage = netmem_protocol::Header { length: body.len() as u32, ..header(Kind::Stage, 2, 1) };
    bytes.extend_from_slice(&stage.encode());
    bytes.extend_from_slice(&body);
    encode_frame(header(Kind::Commit, 3, 1), &commit_body(5, 2, 1), &mut bytes).expect("a frame");
    let mut body = Vec::new();
    netmem_protocol::pages::encode_fetch(&[Run::new(0, 2)], &mut body);
    let fetch = netmem_protocol::Header { length: body.len() as u32, ..header(Kind::Fetch, 4, 1) };
    bytes.extend_from_slice(&fetch.encode());
    bytes.extend_from_slice(&body);
    bytes
}

#[test]
fn a_connection_that_ends_at_any_byte_is_harmless() {
    let (server, address) = server(&[]);
    let mut witness = Client::connect(address);
    let bytes = session();
    let cuts = (0..bytes.len()).filter(|at| at % 97 == 0 || *at < 300 || bytes.len() - at < 200);
    for cut in cuts {
        let mut stream = dial(address);
        stream.write_all(&bytes[..cut]).expect("sent");
        drop(stream);
    }
    // Some may not have been taken yet when there is one connection for the first time, and then have staged pages for a moment.
    until("the end of all of them", || {
        let stat = witness.stat();
        stat.connections == 1 && stat.stored_pages <= 1
    });
    let stat = witness.stat();
    assert!(stat.commits <= 1, "{stat:?}");
    assert!(server.stop());
}

#[test]
fn random_bytes_never_end_the_server_nor_disturb_another_client() {
    let process = Process::start(&["--max-memory", "4M"]);
    let address = process.address();
    let mut witness = Client::connect(address);
    let region = witness.open("witness").region;
    witness.commit(region, 1, &[(0, Some(page(42)))]).expect("a commit");
    let witness = std::cell::RefCell::new(witness);
    let kinds = || proptest::sample::select(Kind::REQUESTS.map(|kind| kind as u16).to_vec());
    let frames = proptest::collection::vec(
        (
            prop_oneof![9 => kinds(), 1 => any::<u16>()],
            prop_oneof![Just(0u64), 1..4u64, any::<u64>()],
            prop_oneof![Just(0u64), 1..4u64, any::<u64>()],
            proptest::collection::vec(prop_oneof![0..6u8, any::<u8>()], 0..80),
            prop_oneof![8 => Just(0i64), 1 => -40..40i64],
        ),
        0..12,
    );
    let good_hello = proptest::bool::weighted(0.9);
    let noise = proptest::collection::vec(any::<u8>(), 0..200);
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(400));
    let result = runner.run(&(good_hello, frames, noise), |(good_hello, frames, noise)| {
        let mut stream = dial(address);
        let mut bytes = Vec::new();
        if good_hello {
            bytes.extend_from_slice(&hello().encode());
        }
        for (kind, region_id, epoch, body, lie) in frames {
            // Never the witness's own region: what a client may do to a region, it may do.
            let region_id = if region_id == region.0 { 0 } else { region_id };
            let header = netmem_protocol::Header {
                length: (body.len() as i64 + lie).max(0) as u32,
                kind,
                flags: 0,
                request: netmem_protocol::RequestId(unique()),
                region: RegionId(region_id),
                epoch: Epoch(epoch),
            };
            bytes.extend_from_slice(&header.encode());
            bytes.extend_from_slice(&body);
        }
        bytes.extend_from_slice(&noise);
        // The server may end the connection while we still write: that is one of the right answers.
        let _ = stream.write_all(&bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let _ = stream.read_to_end(&mut Vec::new());
        let fetched = witness.borrow_mut().fetch(region, 2, &[Run::new(0, 1)]).expect("the witness goes on");
        prop_assert_eq!(fetched.fills(), [42]);
        Ok(())
    });
    assert_eq!(result, Ok(()));
    check_alive(address);
}

#[test]
fn requests_that_are_pipelined_are_answered_in_order() {
    let (server, address) = server(&[]);
    let mut client = Client::connect(address);
    let region = client.open("a").region;
    client.commit(region, 1, &[(0, Some(page(1)))]).expect("a commit");
    let mut bytes = Vec::new();
    let mut wanted = Vec::new();
    for round in 0..500u64 {
        let kind = if round % 3 == 0 { Kind::Fetch } else { Kind::Ping };
        let mut body = Vec::new();
        if kind == Kind::Fetch {
            netmem_protocol::pages::encode_fetch(&[Run::new(round % 2, 1)], &mut body);
        }
        let header = client.header(kind, region, 0);
        let header = netmem_protocol::Header { length: body.len() as u32, ..header };
        bytes.extend_from_slice(&header.encode());
        bytes.extend_from_slice(&body);
        wanted.push(header);
    }
    client.stream.write_all(&bytes).expect("sent");
    for header in wanted {
        client.answer(header).expect("an answer");
    }
    assert!(server.stop());
}

#[test]
fn names_are_opened_looked_up_and_refused_as_in_a_file_system() {
    let (server, address) = server(&["--max-regions", "3"]);
    let mut client = Client::connect(address);
    let mut root = |name: &str| {
        let answer = client.call::<_, netmem_protocol::control::Entry>(
            Kind::Lookup,
            RegionId(0),
            &Lookup { name: name.into() },
        );
        answer.map(|entry| (entry.kind, entry.region)).map_err(|(code, _)| code)
    };
    assert_eq!(root(""), Ok((netmem_protocol::control::EntryKind::Directory, RegionId(0))));
    assert_eq!(root("a"), Err(ErrorCode::NotFound));
    assert_eq!(root("../a"), Err(ErrorCode::NameInvalid));
    assert_eq!(root(&"x".repeat(256)), Err(ErrorCode::NameTooLong));
    assert_eq!(code(client.try_open("a", Create::Never)), ErrorCode::NotFound);
    assert_eq!(code(client.try_open("d/a", Create::IfMissing)), ErrorCode::NotFound);
    let a = client.open("a");
    assert!(!client.open("a").created);
    assert_eq!(code(client.try_open("a", Create::Exclusive)), ErrorCode::Exists);
    assert_eq!(code(client.try_open("a/b", Create::IfMissing)), ErrorCode::NotDirectory);
    client.open("b");
    client.open("c");
    let (error, text) = client.try_open("d", Create::IfMissing).expect_err("one too many");
    assert_eq!(error, ErrorCode::TooManyRegions);
    assert!(text.contains("--max-regions"), "{text}");
    assert_eq!(client.open("a").region, a.region);
    assert!(server.stop());
}

#[test]
fn an_open_address_without_insecure_is_refused_in_words() {
    let run = |arguments: &[&str]| {
        let output =
            Command::new(env!("CARGO_BIN_EXE_netmem-server")).args(arguments).output().expect("it runs");
        (output.status.code(), String::from_utf8(output.stderr).expect("text"), output.stdout.len())
    };
    let (status, text, out) = run(&["--bind", "0.0.0.0", "--port", "0"]);
    assert_eq!((status, out), (Some(2), 0));
    assert!(text.contains("no authentication") && text.contains("no encryption"), "{text}");
    let (status, text, _) = run(&["--max-region", "1X"]);
    assert_eq!(status, Some(2));
    assert!(text.contains("--max-region"), "{text}");
    let process = Process::start(&["--bind", "0.0.0.0", "--insecure"]);
    check_alive(SocketAddr::from(([127, 0, 0, 1], process.address().port())));
}

#[test]
fn a_port_that_is_taken_is_an_error_with_its_name() {
    let (server, address) = server(&[]);
    let output = Command::new(env!("CARGO_BIN_EXE_netmem-server"))
        .args(["--port", &address.port().to_string()])
        .output()
        .expect("it runs");
    let text = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(1));
    assert!(text.contains(&format!("tcp://{address}")), "{text}");
    assert!(server.stop());
}

#[test]
fn a_signal_ends_the_server_with_status_0_whatever_its_clients_do() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut process = Process::start(&[]);
        let address = process.address();
        let idle = Client::connect(address);
        let mut half = dial(address);
        half.write_all(&session()[..100]).expect("sent");
        let silent = dial(address);
        process.signal(signal);
        assert_eq!(process.wait().code(), Some(0));
        drop((idle, half, silent));
    }
}

#[test]
fn a_commit_that_has_arrived_is_answered_before_the_server_ends() {
    let mut process = Process::start(&[]);
    let mut client = Client::connect(process.address());
    let region = client.open("a").region;
    let commit = unique();
    let pages: Vec<_> = (0..2000u64).map(|at| (at, Some(page(1)))).collect();
    client.stage(region, commit, &pages);
    // The pages have arrived when what was asked behind them is answered; until then they may be on this side.
    client.open("a");
    let header = client.header(Kind::Commit, region, 0);
    let mut frame = Vec::new();
    encode_frame(header, &commit_body(commit, pages.len() as u64, 1), &mut frame).expect("a frame");
    client.stream.write_all(&frame).expect("sent");
    process.signal(Signal::SIGTERM);
    let (_, body) = client.answer(header).expect("committed");
    let done: netmem_protocol::control::Committed = decode_body(&body, "Committed").expect("a body");
    assert_eq!(done.epoch.0, 2);
    assert_eq!(process.wait().code(), Some(0));
}

#[test]
fn a_unix_socket_serves_replaces_a_stale_path_and_goes_at_the_end() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("socket");
    let name = path.to_str().expect("text");
    drop(UnixListener::bind(&path).expect("a stale socket"));
    let mut process = Process::start(&["--unix", name]);
    assert_eq!(process.ready, format!("netmem-server ready on tcp://{} unix:{name}", process.address()));
    let mut stream = UnixStream::connect(&path).expect("it listens");
    stream.set_read_timeout(Some(LIMIT)).expect("a timeout");
    stream.write_all(&hello().encode()).expect("sent");
    let mut answer = [0; HELLO_BYTES];
    stream.read_exact(&mut answer).expect("a hello");
    assert_eq!(ServerHello::decode(&answer).expect("a hello").status, HelloStatus::Welcome);
    let second = Command::new(env!("CARGO_BIN_EXE_netmem-server"))
        .args(["--no-tcp", "--unix", name])
        .output()
        .expect("it runs");
    assert_eq!(second.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&second.stderr).contains("a server listens on it"));
    process.signal(Signal::SIGTERM);
    assert_eq!(process.wait().code(), Some(0));
    assert!(!path.exists(), "the path is gone");
    std::fs::write(&path, "precious").expect("a file");
    let third = Command::new(env!("CARGO_BIN_EXE_netmem-server"))
        .args(["--no-tcp", "--unix", name])
        .output()
        .expect("it runs");
    assert_eq!(third.status.code(), Some(1));
    assert_eq!(std::fs::read_to_string(&path).expect("still there"), "precious");
    std::fs::remove_file(&path).expect("ours");
    let only = Process::start(&["--no-tcp", "--unix", name]);
    assert_eq!(only.ready, format!("netmem-server ready on unix:{name}"));
}

#[test]
fn a_fetch_of_everything_a_frame_can_hold_comes_in_one_answer() {
    let (server, address) = server(&[]);
    let mut client = Client::connect(address);
    let region = client.open("a").region;
    let pages: Vec<_> = (0..256u64).map(|at| (at * 2, Some(page(at as u8)))).collect();
    client.commit(region, 1, &pages).expect("a commit");
    let runs: Vec<Run> = (0..256).map(|at| Run::new(at * 2, 1)).collect();
    let fetched = client.fetch(region, 0, &runs).expect("pages");
    assert_eq!(fetched.fills(), (0..=255).collect::<Vec<u8>>());
    let far = [Run::new((1 << 32) - 1, 1)];
    assert_eq!(client.fetch(region, 0, &far).expect("the last page there can be").fills(), [0]);
    let resized: netmem_protocol::control::Committed =
        client.call(Kind::Resize, region, &Resize { size: 1 << 44 }).expect("the largest region");
    assert_eq!(resized.epoch.0, 3);
    client.commit(region, 3, &[((1 << 32) - 1, Some(page(9)))]).expect("its last page");
    assert_eq!(client.fetch(region, 0, &far).expect("pages").fills(), [9]);
    let cut = Commit { cut: Some(0), size: Some(1 << 44), ..commit_body(unique(), 0, 4) };
    client.finish(region, &cut).expect("all of it cut");
    let changes = client.changes(region, 4).expect("changes");
    assert_eq!(changes.runs.iter().map(|run| u64::from(run.count)).sum::<u64>(), 1 << 32);
    assert!(server.stop());
}
