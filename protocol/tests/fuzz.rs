//! Arbitrary bytes for everything that decodes: nothing panics, and what is taken can be said again and is taken for the same.
//!
//! A case follows from its seed. NETMEM_TEST_SEED plays one alone; NETMEM_FUZZ_SECONDS says for how long new ones are played. Seeds that once
//! found something are in `fuzz_seeds.txt`, and are played first.

#[allow(dead_code)] // Of the methods that all tests share this one needs some.
#[path = "../../tests/src/model/dice.rs"]
mod dice;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use dice::Dice;
use netmem_protocol::activity::{
    ClientActivities, ClientsAfter, RegionActivities, RegionsAfter, ServerActivity,
};
use netmem_protocol::codec::HEADER_BYTES;
use netmem_protocol::control::{
    Changes, ChangesUntil, CloneRegion, Commit, CommitStatus, CommitTogether, Committed, CommittedTogether,
    CreateUnnamed, Entry, ErrorBody, History, Inherit, Keep, Link, List, Listing, Lookup, MakeDir,
    MakeSymlink, Names, Open, Reclaim, Remove, Rename, Resize, Resolve, Resolved, ScrubAfter, Scrubbed,
    ServerStat, SetAttr, Snapshot, Snapshotted, StageFrom,
};
use netmem_protocol::hello::HELLO_BYTES;
use netmem_protocol::{
    ClientHello, Epoch, FRAME_PAGES_MAX, FrameParser, Header, Kind, PAGE_SIZE, PageBody, RegionId,
    RegionName, RequestId, ServerHello, decode_body, encode_frame,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// For how long cases are played, unless told otherwise.
const SECONDS: u64 = 10;

impl Dice {
    /// Small bytes and letters more often than others; the marks of longer numbers now and then.
    fn byte(&mut self) -> u8 {
        match self.below(8) {
            0..4 => self.below(6) as u8,
            4..6 => b"ab/.@"[self.below(5) as usize],
            6 => 250 + self.below(6) as u8,
            _ => self.roll() as u8,
        }
    }

    fn bytes(&mut self) -> Vec<u8> {
        let limit = 1 + self.below(200);
        (0..self.below(limit)).map(|_| self.byte()).collect()
    }

    /// A page body, as it should be or nearly.
    fn page_body(&mut self, with_sums: bool) -> Vec<u8> {
        let runs = self.below(4) + if self.below(20) == 0 { 300 } else { 0 };
        let (mut out, mut data) = (self.below(3).to_le_bytes().to_vec(), 0u64);
        let mut all = Vec::new();
        for _ in 0..runs {
            let (first, count, kind) = (self.below(9), 1 + self.below(3), self.below(2));
            data += if kind == 0 { count } else { 0 };
            all.extend(first.to_le_bytes());
            all.extend((count as u32).to_le_bytes());
            all.extend((kind as u32).to_le_bytes());
        }
        out.extend((runs as u32).to_le_bytes());
        out.extend((data as u32).to_le_bytes());
        out.extend(all);
        out.resize(out.len() + data as usize * if with_sums { 8 + PAGE_SIZE } else { PAGE_SIZE }, 7);
        self.spoil(&mut out);
        out
    }

    /// Changes nothing, or a bit, a byte, or the length.
    fn spoil(&mut self, bytes: &mut Vec<u8>) {
        let front = bytes.len().min(80) as u64;
        match self.below(5) {
            0 if front > 0 => bytes[self.below(front) as usize] ^= 1 << self.below(8),
            1 if front > 0 => bytes[self.below(front) as usize] = self.byte(),
            2 => bytes.truncate(self.below(bytes.len() as u64 + 1) as usize),
            3 => bytes.push(self.byte()),
            _ => {}
        }
    }
}

/// Decodes a body, and what came of it again.
fn body<T: DeserializeOwned + Serialize + PartialEq + std::fmt::Debug>(bytes: &[u8]) -> u64 {
    let Ok(first) = decode_body::<T>(bytes, "fuzz") else { return 0 };
    let header =
        Header { length: 0, kind: 0, flags: 0, request: RequestId(1), region: RegionId(0), epoch: Epoch(0) };
    let mut frame = Vec::new();
    encode_frame(header, &first, &mut frame).expect("what was decoded fits in a frame");
    let again: T = decode_body(&frame[HEADER_BYTES..], "fuzz").expect("what was decoded encodes");
    assert_eq!(first, again);
    1
}

fn all_bodies(bytes: &[u8]) -> u64 {
    let requests: [fn(&[u8]) -> u64; 27] = [
        body::<Keep>,
        body::<StageFrom>,
        body::<Open>,
        body::<CreateUnnamed>,
        body::<Snapshot>,
        body::<CloneRegion>,
        body::<ScrubAfter>,
        body::<Reclaim>,
        body::<Inherit>,
        body::<Lookup>,
        body::<MakeSymlink>,
        body::<Link>,
        body::<Resolve>,
        body::<List>,
        body::<Remove>,
        body::<Rename>,
        body::<MakeDir>,
        body::<SetAttr>,
        body::<Resize>,
        body::<Commit>,
        body::<CommitStatus>,
        body::<ChangesUntil>,
        body::<RegionsAfter>,
        body::<ClientsAfter>,
        body::<CommitTogether>,
        body::<CommittedTogether>,
        body::<ErrorBody>,
    ];
    let answers: [fn(&[u8]) -> u64; 14] = [
        body::<Snapshotted>,
        body::<History>,
        body::<Scrubbed>,
        body::<Entry>,
        body::<Names>,
        body::<Resolved>,
        body::<Listing>,
        body::<Committed>,
        body::<Changes>,
        body::<ServerStat>,
        body::<ServerActivity>,
        body::<RegionActivities>,
        body::<ClientActivities>,
        |bytes| {
            if let Ok(together) = decode_body::<CommitTogether>(bytes, "fuzz") {
                let _ = together.check();
            }
            0
        },
    ];
    requests.iter().chain(&answers).map(|decode| decode(bytes)).sum()
}

/// What is said of a page body does not depend on how it is read.
fn page_body(bytes: &[u8], with_sums: bool) -> u64 {
    let _ = PageBody::parse_fetch(bytes);
    let whole = PageBody::parse(bytes, with_sums);
    for cut in [0, 7, 16, 31, 32, 33, 64, bytes.len() / 2, bytes.len()] {
        let start = &bytes[..cut.min(bytes.len())];
        match (PageBody::parse_start(start, bytes.len(), with_sums), &whole) {
            (Ok(Some((front, _, before))), Ok(whole)) => {
                assert!(front.runs().eq(whole.runs()) && before <= bytes.len());
            }
            (Ok(Some(_)), Err(error)) => panic!("its start is taken, and the whole is not: {error}"),
            (Ok(None), _) => assert!(start.len() < bytes.len() || whole.is_err()),
            (Err(error), Ok(_)) => panic!("its start is not taken, and the whole is: {error}"),
            (Err(_), Err(_)) => {}
        }
    }
    let Ok(whole) = whole else { return 0 };
    let _ = whole.verify();
    let pages = whole.pages().count();
    assert!(pages <= FRAME_PAGES_MAX as usize);
    assert_eq!(pages, whole.runs().map(|wire| wire.run.count as usize).sum::<usize>());
    1
}

/// A frame is there when all of it is, and not before.
fn frames(dice: &mut Dice) -> u64 {
    let mut bytes = Vec::new();
    let length = dice.below(40) as u32;
    let kind = Kind::REQUESTS[dice.below(Kind::REQUESTS.len() as u64) as usize] as u16;
    let (request, region, epoch) = (RequestId(dice.roll()), RegionId(dice.roll()), Epoch(dice.roll()));
    bytes.extend(Header { length, kind, flags: 0, request, region, epoch }.encode());
    bytes.extend((0..length).map(|_| dice.byte()));
    dice.spoil(&mut bytes);
    let parser = FrameParser { limit: 30 + dice.below(20) as u32 };
    let whole = parser.peek(&bytes);
    for cut in 0..bytes.len() {
        match (parser.peek(&bytes[..cut]), &whole) {
            (Ok(None), _) => {}
            (Ok(Some((_, total))), Ok(Some((_, all)))) => assert!(total == *all && cut >= total),
            (Err(_), Err(_)) => {}
            (part, whole) => panic!("{cut} bytes: {part:?}, and all of them: {whole:?}"),
        }
    }
    u64::from(matches!(whole, Ok(Some(_))))
}

/// Plays a case; how many decodings were taken.
fn play(seed: u64) -> u64 {
    let mut dice = Dice(seed);
    let bytes = dice.bytes();
    let mut taken = all_bodies(&bytes);
    if let Ok(text) = std::str::from_utf8(&bytes)
        && let Ok(name) = RegionName::parse(text)
    {
        assert_eq!(name.as_str(), text);
        taken += 1;
    }
    for with_sums in [false, true] {
        taken += page_body(&bytes, with_sums);
        taken += page_body(&dice.page_body(with_sums), with_sums);
    }
    taken += frames(&mut dice);
    let mut hello = [0; HELLO_BYTES];
    hello.iter_mut().for_each(|byte| *byte = dice.byte());
    if dice.below(2) == 0 {
        hello[..8].copy_from_slice(&netmem_protocol::MAGIC);
    }
    taken += u64::from(ClientHello::decode(&hello).is_ok());
    taken + u64::from(ServerHello::decode(&hello).is_ok())
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

#[test]
fn arbitrary_bytes_decode_to_what_can_be_said_again_or_to_an_error() {
    if let Some(seed) = setting("NETMEM_TEST_SEED") {
        play(seed);
        return;
    }
    let found = include_str!("fuzz_seeds.txt").lines();
    for seed in found.filter_map(|line| line.split('#').next()?.trim().parse().ok()) {
        play(seed);
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a time after 1970").as_nanos() as u64;
    let until = Instant::now() + Duration::from_secs(setting("NETMEM_FUZZ_SECONDS").unwrap_or(SECONDS));
    let (mut cases, mut taken) = (0, 0);
    while Instant::now() < until {
        let seed = now.wrapping_add(cases);
        let played = std::panic::catch_unwind(|| play(seed));
        taken += played.unwrap_or_else(|_| panic!("NETMEM_TEST_SEED={seed}"));
        cases += 1;
    }
    println!("{cases} cases, {taken} decodings that were taken");
    assert!(taken > 0);
}
