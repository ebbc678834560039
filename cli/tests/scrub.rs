//! `netmem scrub`, from outside, against servers that lie: each lie is one line and a failure, and none is a wait.
//!
//! Owns: a server that answers what it is told to. Called by: `cargo test`. Must not: need netmem-server.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Output};
use std::thread;

use netmem_protocol::codec::HEADER_BYTES;
use netmem_protocol::control::{Damage, ErrorBody, ScrubAfter, Scrubbed, ServerStat};
use netmem_protocol::hello::HELLO_BYTES;
use netmem_protocol::{
    ErrorCode, FRAME_BODY_MAX, Header, HelloStatus, Kind, REGION_BYTES_MAX, RegionId, ServerHello, StoreId,
    decode_body, encode_frame,
};

/// Answers the scrub request `number`, from 0, which goes on at the second.
type Answer = Box<dyn FnMut(Header, u64, ScrubAfter) -> Vec<u8> + Send>;

fn frame<T: serde::Serialize>(header: Header, body: &T) -> Vec<u8> {
    let mut out = Vec::new();
    encode_frame(header, body, &mut out).unwrap();
    out
}

fn stat(stored_pages: u64) -> ServerStat {
    ServerStat {
        version: "1".to_owned(),
        store: "memory".to_owned(),
        uptime_s: 1,
        regions: 2,
        connections: 1,
        stored_pages,
        pages_max: 1000,
        pages_sent: 0,
        pages_committed: 0,
        commits: 0,
        fetches: 0,
    }
}

fn serve(mut stream: TcpStream, stored: u64, mut answer: Answer) {
    let hello = ServerHello {
        status: HelloStatus::Welcome,
        version_min: netmem_protocol::VERSION_MIN,
        version_max: netmem_protocol::VERSION_MAX,
        capabilities: 0,
        store: StoreId([7; 16]),
        frame_body_max: FRAME_BODY_MAX,
        region_bytes_max: REGION_BYTES_MAX,
        instance: 1,
    };
    stream.read_exact(&mut [0; HELLO_BYTES]).unwrap();
    stream.write_all(&hello.encode()).unwrap();
    let (mut head, mut number) = ([0; HEADER_BYTES], 0);
    while stream.read_exact(&mut head).is_ok() {
        let asked = Header::decode(&head, FRAME_BODY_MAX).unwrap();
        let mut body = vec![0; asked.length as usize];
        stream.read_exact(&mut body).unwrap();
        let header = Header { length: 0, kind: asked.kind | 0x8000, ..asked };
        let bytes = if asked.kind == Kind::ServerStat as u16 {
            frame(header, &stat(stored))
        } else {
            assert_eq!(asked.kind, Kind::Scrub as u16);
            number += 1;
            answer(header, number - 1, decode_body(&body, "scrub").unwrap())
        };
        // The command may be gone.
        if stream.write_all(&bytes).is_err() {
            return;
        }
    }
}

/// Scrubs such a server. 60 s are the limit.
fn scrub(stored: u64, answer: Answer) -> Output {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("tcp://{}", listener.local_addr().unwrap());
    let server = thread::spawn(move || serve(listener.accept().unwrap().0, stored, answer));
    let mut command = Command::new("timeout");
    command.args(["--kill-after=1", "60", env!("CARGO_BIN_EXE_netmem"), "scrub", "--server", &address]);
    let output = command.args(["--timeout-ms", "2000"]).output().unwrap();
    server.join().unwrap();
    output
}

/// It fails with one line that has `part`.
#[track_caller]
fn expect_lie(part: &str, answer: impl FnMut(Header, u64, ScrubAfter) -> Vec<u8> + Send + 'static) {
    let output = scrub(10, Box::new(answer));
    let (out, line) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert_eq!(output.status.code(), Some(1), "{line}");
    assert!(line.starts_with("netmem: tcp://127.0.0.1:") && line.contains(part), "no {part:?} in {line:?}");
    let body = line.strip_suffix('\n').unwrap_or(&line);
    assert!(!body.contains(char::is_control) && body.len() < 400, "not a line: {line:?}");
    assert!(!out.contains("all as they were written"), "{out}");
}

fn at(region: u64, page: u64) -> ScrubAfter {
    ScrubAfter { region: RegionId(region), page }
}

fn part(pages: u64, next: Option<ScrubAfter>) -> Scrubbed {
    Scrubbed { pages, damaged: Vec::new(), next }
}

fn damage(region: u64, page: u64) -> Damage {
    Damage { region: RegionId(region), name: "a".to_owned(), page, text: "damaged".to_owned() }
}

#[test]
fn a_scrub_in_parts_is_the_sum_of_them() {
    let parts = [part(64, Some(at(3, 64))), part(3, Some(at(9, 0))), part(5, None)];
    let output = scrub(
        40,
        Box::new(move |header, number, after| {
            assert_eq!(after, [at(0, 0), at(3, 64), at(9, 0)][number as usize]);
            frame(header, &parts[number as usize])
        }),
    );
    assert_eq!(String::from_utf8_lossy(&output.stdout), "72 pages, all as they were written\n");
    assert!(output.status.success() && output.stderr.is_empty());
}

#[test]
fn a_scrub_that_goes_back_or_stays_where_it_is_fails() {
    for next in [at(5, 10), at(5, 9), at(4, 99), at(0, 0)] {
        expect_lie("does not get on", move |header, number, _| {
            frame(header, &part(1, Some(if number == 0 { at(5, 10) } else { next })))
        });
    }
}

#[test]
fn a_scrub_that_reads_nothing_and_goes_on_fails() {
    expect_lie("does not get on", |header, number, _| frame(header, &part(0, Some(at(number + 1, 0)))));
}

#[test]
fn a_scrub_without_end_fails_when_it_has_read_more_than_there_can_be() {
    expect_lie("pages of the 10 that it has", |header, number, _| {
        frame(header, &part(1, Some(at(1, number + 1))))
    });
    expect_lie("pages of the 10 that it has", |header, number, _| {
        frame(header, &part(u64::MAX, Some(at(number + 1, 0))))
    });
}

#[test]
fn damage_where_the_scrub_did_not_come_by_fails() {
    let lies: [(u64, Vec<Damage>); 6] = [
        (0, vec![damage(5, 1)]),
        (9, vec![damage(5, 2), damage(5, 1)]),
        (9, vec![damage(5, 1), damage(5, 1)]),
        (9, vec![damage(7, 0)]),
        (9, vec![damage(5, u64::MAX)]),
        (u64::MAX, (0..20_000).map(|page| damage(5, page)).collect()),
    ];
    for (pages, damaged) in lies {
        let lie = Scrubbed { pages, damaged, next: Some(at(7, 0)).filter(|_| pages != 0) };
        expect_lie("damaged pages", move |header, _, _| frame(header, &lie));
    }
}

#[test]
fn what_is_no_answer_to_a_scrub_fails() {
    expect_lie("unexpected message kind", |header, _, _| {
        frame(Header { kind: Kind::Ping.answer(), ..header }, &())
    });
    expect_lie("answered request", |header, _, _| {
        frame(Header { request: netmem_protocol::RequestId(77), ..header }, &part(1, None))
    });
    expect_lie("malformed Scrub", |header, _, _| frame(header, &"nonsense"));
    // A list that says it is as long as can be written.
    expect_lie("malformed Scrub", |header, _, _| frame(header, &(1u64, u64::MAX, 0u8)));
    expect_lie("over the limit", |header, _, _| Header { length: u32::MAX, ..header }.encode().to_vec());
    expect_lie("no answer to Scrub within 2000 ms", |_, _, _| Vec::new());
}

#[test]
fn a_refusal_of_a_scrub_is_its_line() {
    let refuse = |header: Header, _: u64, _: ScrubAfter| {
        let text = "there is nothing to scrub\x1b[2J\n; go away".to_owned();
        let body = ErrorBody { code: ErrorCode::Unsupported as u16, text };
        frame(Header { kind: Kind::Error as u16, ..header }, &body)
    };
    let output = scrub(10, Box::new(refuse));
    let line = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(line, "netmem: there is nothing to scrub\\u{1b}[2J\\n; go away\n");
}
