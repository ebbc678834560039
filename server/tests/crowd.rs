//! Many connections at once, made, misused and dropped at any moment, beside clients that behave.
//!
//! Owns: what each of them does. Called by: `cargo test`. Must not: send what no broken peer could send.

mod common;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::{Client, Page, commit_body, config, dial, page, server, server_with, until};
use netmem_protocol::hello::HELLO_BYTES;
use netmem_protocol::pages::encode_fetch;
use netmem_protocol::{CacheId, ClientHello, ClientId, Kind, RegionId, Run};

/// How long a small request may take, whatever the others do; the machine may be busy, too.
const SOON: Duration = Duration::from_secs(10);
/// Pages of the region that everybody reads.
const PAGES: u64 = 512;

/// A number that follows from the last one.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *state >> 33
}

/// Fetches that nobody will read the answers of, until the server takes no more or `most` were sent.
fn ask_and_read_nothing(client: &mut Client, region: RegionId, most: usize) {
    let mut body = Vec::new();
    encode_fetch(&[Run::new(0, 256)], &mut body);
    client.stream.set_write_timeout(Some(Duration::from_millis(20))).expect("a timeout");
    for _ in 0..most {
        let header = client.header(Kind::Fetch, region, 0);
        let mut frame = netmem_protocol::Header { length: body.len() as u32, ..header }.encode().to_vec();
        frame.extend_from_slice(&body);
        if client.stream.write_all(&frame).is_err() {
            return;
        }
    }
}

fn stages() -> Vec<(u64, Option<Page>)> {
    (0..100).map(|at| (at, Some(page(3)))).collect()
}

/// One connection's life. Those that are kept open are left in `kept`.
fn misbehave(address: SocketAddr, region: RegionId, dice: &mut u64, kept: &mut Vec<TcpStream>) {
    let what = next(dice) % 9;
    if what < 3 {
        let mut stream = dial(address);
        let hello = ClientHello::new(ClientId([9; 16]), CacheId([9; 16])).encode();
        let sent = [0, next(dice) as usize % HELLO_BYTES, HELLO_BYTES][what as usize];
        let _ = stream.write_all(&hello[..sent]);
        // A peer that says no hello, or goes without a word.
        if next(dice).is_multiple_of(4) {
            kept.push(stream);
        }
        return;
    }
    let mut client = Client::connect(address);
    match what {
        3 => {
            // The front of a frame, and never the rest.
            let header = client.header(Kind::Commit, region, 0).encode();
            let _ = client.stream.write_all(&header[..next(dice) as usize % header.len()]);
            if next(dice).is_multiple_of(2) {
                kept.push(client.stream);
            }
        }
        4 => client.stage(region, 1, &stages()),
        5 => {
            client.stage(region, 1, &stages());
            // Fewer than were staged: refused, and what was staged goes.
            let _ = client.finish(region, &commit_body(1, 7, 0));
        }
        6 => {
            ask_and_read_nothing(&mut client, region, 30);
            if next(dice).is_multiple_of(2) {
                kept.push(client.stream);
            }
        }
        7 => {
            ask_and_read_nothing(&mut client, region, 3);
            let _ = client.stream.shutdown(Shutdown::Write);
            let _ = client.stream.take(next(dice) % (1 << 20)).read_to_end(&mut Vec::new());
        }
        _ => {
            let entry = client.open("crowd");
            let fills = client.fetch(entry.region, 0, &[Run::new(0, 64)]).expect("pages").fills();
            assert!(fills.iter().all(|fill| *fill == fills[0]), "a mix");
        }
    }
}

fn crowd(each: u64) {
    let mut config = config(&["--max-connections", "4000", "--max-memory", "1G"]);
    // What the crowd views is given up with its connections.
    config.lease = Duration::from_millis(100);
    let (server, address) = server_with(&config);
    let mut writer = Client::connect(address);
    let region = writer.open("crowd").region;
    let all = |fill: u8| -> Vec<_> { (0..PAGES).map(|at| (at, Some(page(fill)))).collect() };
    let mut epoch = writer.commit(region, 1, &all(1)).expect("a commit").epoch.0;
    let (end, slowest) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let crowd: Vec<_> = (0..16u64)
            .map(|seed| {
                scope.spawn(move || {
                    let (mut dice, mut kept) = (seed * 7919 + 1, Vec::new());
                    for _ in 0..each {
                        misbehave(address, region, &mut dice, &mut kept);
                        if kept.len() > 40 {
                            kept.clear();
                        }
                    }
                })
            })
            .collect();
        scope.spawn(|| {
            let mut reader = Client::connect(address);
            while !end.load(Ordering::Relaxed) {
                let start = Instant::now();
                let fills =
                    reader.fetch(region, 0, &[Run::new(5, 1), Run::new(400, 1)]).expect("pages").fills();
                assert_eq!(fills[0], fills[1], "a mix");
                slowest.fetch_max(start.elapsed().as_millis() as u64, Ordering::Relaxed);
            }
        });
        let mut refused = None;
        while crowd.iter().any(|thread| !thread.is_finished()) && refused.is_none() {
            match writer.commit(region, epoch, &all(epoch as u8)) {
                Ok(committed) => epoch = committed.epoch.0,
                Err(refusal) => refused = Some(refusal),
            }
        }
        end.store(true, Ordering::Relaxed);
        // Memory is enough for what a commit needs, and for the pages that those who read nothing have asked for.
        assert_eq!(refused, None);
    });
    let slowest = slowest.into_inner();
    assert!(slowest < SOON.as_millis() as u64, "a page took {slowest} ms");
    until("the end of all connections but one", || writer.stat().connections == 1);
    // Two epochs at the most are kept for the writer, and nothing of what was staged.
    until("the end of what was staged", || writer.stat().stored_pages <= 2 * PAGES);
    assert!(server.stop());
}

#[test]
fn a_peer_that_reads_nothing_keeps_the_pages_that_it_asked_for_and_not_their_epoch() {
    const ALL: u64 = 4096;
    // Room for the newest epoch, the next one, and half of a third.
    let (server, address) = server(&["--max-memory", &(ALL * 5 / 2 * 4096).to_string()]);
    let mut writer = Client::connect(address);
    let region = writer.open("crowd").region;
    let all = |fill: u8| -> Vec<_> { (0..ALL).map(|at| (at, Some(page(fill)))).collect() };
    let first = writer.commit(region, 1, &all(1)).expect("a commit").epoch.0;
    let mut deaf = Client::connect(address);
    ask_and_read_nothing(&mut deaf, region, 1000);
    (0..3).fold(first, |epoch, round| {
        let committed = writer.commit(region, epoch, &all(round + 2));
        committed.expect("room: only an epoch that nobody looks at is in the way").epoch.0
    });
    // It gets all of the epoch that it began with once it reads.
    let mut answer = vec![0; 32 + 16 + 16 + 256 * 4096];
    deaf.stream.read_exact(&mut answer).expect("an answer");
    assert!(answer[64..].iter().all(|byte| *byte == 1));
    drop(deaf);
    assert!(server.stop());
}

#[test]
fn many_connections_that_come_go_hang_and_read_nothing_keep_nobody_waiting_and_leave_nothing() {
    crowd(200);
}

#[test]
#[ignore = "long: make test-long"]
fn many_more_connections() {
    crowd(1500);
}
