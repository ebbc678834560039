//! Sessions of arbitrary bytes: valid requests in any order, with bytes changed, fields at their limits, frames cut and repeated. Whatever
//! comes, the server answers everybody else, and keeps what was committed.
//!
//! A round follows from its seed. NETMEM_TEST_SEED plays one alone; NETMEM_FUZZ_SECONDS says for how long new ones are played. Seeds that once
//! found something are in `fuzz_seeds.txt`, and are played first.

mod common;
#[allow(dead_code)] // Of the methods that all tests share this one needs some.
#[path = "../../tests/src/model/dice.rs"]
mod dice;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use common::{Client, LIMIT, Process, dial};
use dice::Dice;
use netmem_protocol::activity::{ClientsAfter, RegionsAfter};
use netmem_protocol::control::{
    ChangesUntil, CloneRegion, Commit, CommitStatus, CommitTogether, Create, CreateUnnamed, Inherit, Keep,
    Link, List, Lookup, MakeDir, MakeSymlink, Open, Reclaim, Remove, Rename, Resize, Resolve, ScrubAfter,
    SetAttr, Snapshot, StageFrom,
};
use netmem_protocol::hello::HELLO_BYTES;
use netmem_protocol::pages::encode_fetch;
use netmem_protocol::{
    CacheId, ClientHello, ClientId, CommitId, Epoch, FLAG_PACKED, Header, Kind, PAGE_SIZE, Packer,
    PageBodyBuilder, RegionId, RequestId, Run, RunKind, encode_frame, page_sum,
};
use serde::Serialize;

/// For how long sessions are played, unless told otherwise.
const SECONDS: u64 = 30;

impl Dice {
    /// A number that a field may have, at its limits more often than not.
    fn number(&mut self) -> u64 {
        let small = self.below(8);
        self.one(&[
            small,
            small,
            small,
            64,
            255,
            4096,
            8191,
            1 << 32,
            (1 << 32) - 1,
            1 << 44,
            u64::MAX - 1,
            u64::MAX,
        ])
    }

    fn name(&mut self) -> String {
        self.one(&["a", "b", "d", "d/a", "a@s", "d/a@s", "a@2", "l", "", "..", "a/b/c", "@", "a@", "x\0y"])
            .to_owned()
    }

    fn region(&mut self) -> RegionId {
        RegionId(if self.below(8) == 0 { self.number() } else { 1 + self.below(12) })
    }
}

/// A frame of a request that is as it should be.
fn request(dice: &mut Dice, number: u64, with_sums: bool) -> Vec<u8> {
    let kind = dice.one(&Kind::REQUESTS);
    let (region, epoch) = (dice.region(), Epoch(dice.below(5)));
    let header = Header { length: 0, kind: kind as u16, flags: 0, request: RequestId(number), region, epoch };
    let frame = |body: &dyn Fn(Header, &mut Vec<u8>)| {
        let mut out = Vec::new();
        body(header, &mut out);
        out
    };
    fn body<T: Serialize>(body: T) -> impl Fn(Header, &mut Vec<u8>) {
        move |header, out| encode_frame(header, &body, out).expect("it encodes")
    }
    let (name, other, value) = (dice.name(), dice.name(), dice.number());
    let commit = CommitId(dice.below(4));
    match kind {
        Kind::Open => {
            let create = dice.one(&[Create::Never, Create::IfMissing, Create::IfMissing, Create::Exclusive]);
            frame(&body(Open { name, create, mode: 0o644 }))
        }
        Kind::CreateUnnamed => frame(&body(CreateUnnamed { size: value })),
        Kind::Lookup | Kind::History => frame(&body(Lookup { name })),
        Kind::List => frame(&body(List { directory: name, after: other })),
        Kind::Remove => frame(&body(Remove { name, directory: value % 2 == 0 })),
        Kind::Rename => {
            let (no_replace, exchange) = (dice.below(3) == 0, dice.below(3) == 0);
            frame(&body(Rename { from: name, to: other, no_replace, exchange }))
        }
        Kind::MakeDir => frame(&body(MakeDir { name, mode: 0o755 })),
        Kind::SetAttr => frame(&body(SetAttr { name, mode: Some(value as u32), modified_ns: Some(value) })),
        Kind::Resize => frame(&body(Resize { size: value })),
        Kind::Resolve => {
            let (path, follow, links) = (format!("{name}/../{other}"), value % 2 == 0, dice.below(50) as u32);
            frame(&body(Resolve { base: dice.name(), path, follow, links }))
        }
        Kind::MakeSymlink => frame(&body(MakeSymlink { name, target: other.into_bytes() })),
        Kind::Link => frame(&body(Link { from: name, to: other })),
        Kind::Inherit => frame(&body(Inherit { parent: ClientId([1; 16]), regions: vec![region; 3] })),
        Kind::Reclaim => frame(&body(Reclaim { holds: vec![(region, value as u32); 3] })),
        Kind::Scrub => frame(&body(ScrubAfter { region, page: value })),
        Kind::Snapshot | Kind::RemoveSnapshot => {
            let snapshot = dice.one(&["s", "t", "7", "", "x@y"]).to_owned();
            frame(&body(Snapshot { name, snapshot }))
        }
        Kind::Clone => frame(&body(CloneRegion { from: name, to: other })),
        Kind::RegionActivity => frame(&body(RegionsAfter { after: region })),
        Kind::ClientActivity => frame(&body(ClientsAfter { after: None })),
        Kind::Commit => {
            let (cut, size) = (dice.below(3) == 0, dice.below(3) == 0);
            let (staged_pages, base, strict) = (dice.below(4), Epoch(dice.below(5)), dice.below(4) == 0);
            let (cut, size) = (cut.then_some(value), size.then(|| dice.number()));
            frame(&body(Commit { commit, staged_pages, base, strict, cut, size }))
        }
        Kind::CommitTogether => {
            let mut part = |region| {
                let commit = if dice.below(20) == 0 { CommitId(dice.below(4)) } else { commit };
                let (base, size) = (Epoch(dice.below(5)), (dice.below(3) == 0).then(|| dice.number()));
                (region, Commit { commit, staged_pages: dice.below(2), base, strict: false, cut: None, size })
            };
            let parts = vec![part(region), part(RegionId(region.0.saturating_add(1)))];
            frame(&body(CommitTogether { parts }))
        }
        Kind::CommitStatus => frame(&body(CommitStatus { commit })),
        Kind::Changes => frame(&body(ChangesUntil { until: Epoch(value) })),
        Kind::Fetch => {
            let runs: Vec<Run> =
                (0..1 + dice.below(4)).map(|_| Run::new(dice.number(), 1 + dice.below(20) as u32)).collect();
            let mut bytes = Vec::new();
            encode_fetch(&runs, &mut bytes);
            raw(Header { flags: dice.below(2) as u16, ..header }, &bytes)
        }
        Kind::Stage => {
            let (mut builder, mut data) = (PageBodyBuilder::default(), Vec::new());
            for _ in 0..1 + dice.below(30) {
                let (page, fill) = (dice.below(70), dice.below(4) as u8);
                if fill == 0 {
                    builder.push(page, RunKind::Zero);
                } else {
                    builder.push_data(page, page_sum(&[fill; PAGE_SIZE]));
                    data.extend_from_slice(&[fill; PAGE_SIZE]);
                }
            }
            let mut bytes = Vec::new();
            builder.encode(commit, with_sums, &mut bytes);
            // The fills of pages compress well; what does not, or is empty, goes as it is.
            let mut packer = Packer::default();
            let block = if with_sums && dice.below(2) == 0 { packer.pack(&data) } else { None };
            bytes.extend_from_slice(block.unwrap_or(&data));
            let flags = if block.is_some() != (dice.below(20) == 0) { FLAG_PACKED } else { 0 };
            raw(Header { flags, ..header }, &bytes)
        }
        Kind::Keep => frame(&body(Keep { of: dice.region() })),
        Kind::StageFrom => {
            let mut run = || {
                Run::new(if value % 5 == 0 { dice.number() } else { dice.below(70) }, dice.below(9) as u32)
            };
            let runs = vec![run(), run()];
            frame(&body(StageFrom { commit, from: dice.region(), runs }))
        }
        Kind::Ping
        | Kind::OpenId
        | Kind::CloneUnnamed
        | Kind::Close
        | Kind::ServerStat
        | Kind::Names
        | Kind::ServerActivity
        | Kind::View
        | Kind::Error => raw(header, &[]),
    }
}

fn raw(header: Header, body: &[u8]) -> Vec<u8> {
    let mut out = Header { length: body.len() as u32, ..header }.encode().to_vec();
    out.extend_from_slice(body);
    out
}

/// Changes a frame, or leaves it.
fn change(dice: &mut Dice, frame: &mut Vec<u8>) {
    match dice.below(10) {
        0 => {
            let at = dice.below(frame.len() as u64) as usize;
            frame[at] ^= 1 << dice.below(8);
        }
        1 => {
            let at = dice.below(frame.len() as u64) as usize;
            let word = dice.number().to_le_bytes();
            let count = word.len().min(frame.len() - at);
            frame[at..at + count].copy_from_slice(&word[..count]);
        }
        2 => frame.truncate(dice.below(frame.len() as u64) as usize),
        3 => {
            let copy = frame.clone();
            frame.extend_from_slice(&copy);
        }
        4 => {
            // The body is cut or stuffed, and the header says so.
            let body = dice.below(80) as usize;
            frame.resize(32 + body, dice.below(256) as u8);
            frame[..4].copy_from_slice(&(body as u32).to_le_bytes());
        }
        _ => {}
    }
}

/// A session. The end of it is that of the answers, within the limit: a server that hangs fails here.
fn play(address: SocketAddr, seed: u64) {
    let mut dice = Dice(seed);
    let stream = dial(address);
    let with_sums = dice.below(2) == 0;
    let capabilities = if with_sums { u64::MAX } else { 1 };
    let who = (ClientId([dice.below(3) as u8; 16]), CacheId([dice.below(3) as u8; 16]));
    let mut hello = ClientHello { capabilities, ..ClientHello::new(who.0, who.1) }.encode();
    if dice.below(20) == 0 {
        hello[dice.below(HELLO_BYTES as u64) as usize] ^= 1 << dice.below(8);
    }
    let mut bytes = hello.to_vec();
    for number in 1..=1 + dice.below(30) {
        let mut frame = request(&mut dice, number, with_sums);
        change(&mut dice, &mut frame);
        bytes.extend_from_slice(&frame);
    }
    let mut answers = stream.try_clone().expect("a descriptor");
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let mut stream = stream;
            // It may end the session at any byte.
            let _ = stream.write_all(&bytes);
            let _ = stream.shutdown(Shutdown::Write);
        });
        let (mut part, until) = (vec![0; 64 << 10], Instant::now() + LIMIT);
        loop {
            match answers.read(&mut part) {
                Ok(0) => break,
                Ok(_) => assert!(Instant::now() < until, "NETMEM_TEST_SEED={seed}: it answers for ever"),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => break,
                Err(error) => panic!("NETMEM_TEST_SEED={seed}: the server does not end the session: {error}"),
            }
        }
    });
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

fn fuzz(arguments: &[&str]) {
    let mut server = Process::start(&[&["--max-memory", "8M"], arguments].concat());
    let address = server.address();
    // Not one changed bit away from those that play: as one of them it could move its view.
    let mut witness = Client::as_one(address, ClientId([0x5a; 16]), CacheId([0xa5; 16]));
    let kept = witness.open("kept").region;
    witness.commit(kept, 1, &[(3, Some(common::page(7)))]).expect("a commit");
    let mut check = |seed: u64| {
        let fills = witness.fetch(kept, 2, &[Run::new(2, 2)]).map(|fetched| fetched.fills());
        assert_eq!(fills, Ok(vec![0, 7]), "NETMEM_TEST_SEED={seed}");
        assert!(server.child.try_wait().expect("a child").is_none(), "NETMEM_TEST_SEED={seed}: it ended");
    };
    if let Some(seed) = setting("NETMEM_TEST_SEED") {
        play(address, seed);
        return check(seed);
    }
    let found =
        include_str!("fuzz_seeds.txt").lines().filter_map(|line| line.split('#').next()?.trim().parse().ok());
    for seed in found {
        play(address, seed);
        check(seed);
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a time after 1970").as_nanos() as u64;
    let until = Instant::now() + Duration::from_secs(setting("NETMEM_FUZZ_SECONDS").unwrap_or(SECONDS));
    let mut sessions = 0;
    while Instant::now() < until {
        let seed = now.wrapping_add(sessions);
        // Before: a server that dies takes the rest of the output with it.
        play(address, seed);
        check(seed);
        sessions += 1;
    }
    println!("{sessions} sessions");
}

#[test]
fn no_session_ends_a_server_or_keeps_it_from_others() {
    fuzz(&[]);
}

#[test]
fn no_session_ends_a_server_with_a_store_or_spoils_what_it_keeps() {
    let place = tempfile::TempDir::new().expect("a directory");
    let store = place.path().join("store").display().to_string();
    fuzz(&["--store", &store, "--keep-epochs", "2"]);
    let found = netmem_server::check::check(place.path().join("store").as_ref()).expect("a store");
    assert!(found.wrong.is_empty(), "{:?}", found.wrong);
}
