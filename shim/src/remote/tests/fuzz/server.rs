//! A server that answers every request, and changes many of its answers on their way.

use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use netmem_protocol::codec::HEADER_BYTES;
use netmem_protocol::control::{
    Changes, CommitTogether, Committed, CommittedTogether, Entry, EntryKind, ErrorBody, Listing, Names,
    Reached, Resolved, ServerStat,
};
use netmem_protocol::{
    CAPABILITY_PACKED, CAPABILITY_SUMS, CommitId, Epoch, FLAG_PACKED, FRAME_BODY_MAX, Header, HelloStatus,
    Kind, PAGE_SIZE, PageBody, PageBodyBuilder, RegionId, RequestId, Run, ServerHello, decode_body,
    encode_frame, page_sum,
};
use serde::Serialize;

use super::Dice;
use crate::config::ServerAddress;
use crate::remote::lying::{
    Peer, answer_header, committed, content, entry, frame, nobody, pages_answer_packed, pages_answer_with,
    server_hello,
};

/// The server of one case.
pub struct Case {
    dice: Mutex<Dice>,
    /// Pages have checksums.
    pub sums: bool,
    /// And are packed where that is asked for.
    packs: bool,
    /// Of 16 hellos, those that are changed.
    hellos: u64,
    /// From now on it is a server as it should be.
    pub honest: AtomicBool,
    /// Answers that it gave, hellos counted, and those of them that were changed.
    pub played: AtomicU64,
    pub lies: AtomicU64,
}

impl Case {
    fn new(seed: u64) -> Case {
        let mut dice = Dice(seed);
        let (sums, packs, hellos) = (dice.below(2) == 0, dice.below(2) == 0, dice.pick([1, 1, 1, 14]));
        let (dice, honest, zero) = (Mutex::new(dice), AtomicBool::new(false), || AtomicU64::new(0));
        Case { dice, sums, packs, hellos, honest, played: zero(), lies: zero() }
    }

    /// One answer more; the dice, if it is to be changed, which it is `of` times in 16.
    fn lie(&self, of: u64) -> Option<Dice> {
        self.played.fetch_add(1, Ordering::SeqCst);
        let mut dice = self.dice.lock().expect("dice");
        if self.honest.load(Ordering::SeqCst) || dice.below(16) >= of {
            return None;
        }
        self.lies.fetch_add(1, Ordering::SeqCst);
        Some(Dice(dice.roll()))
    }
}

/// What happens after an answer.
#[derive(PartialEq)]
enum After {
    GoOn,
    HangUp,
    /// The answer does not come, or no more of it.
    Hang,
}

/// Listens as long as the tests run.
pub struct Server {
    pub address: ServerAddress,
    case: Arc<Mutex<Arc<Case>>>,
}

impl Server {
    pub fn start() -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let port = listener.local_addr().expect("address").port();
        let address = ServerAddress::Tcp { host: "127.0.0.1".to_owned(), port };
        let case = Arc::new(Mutex::new(Arc::new(Case::new(0))));
        let played = case.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let case = played.lock().expect("a case").clone();
                let mut peer = Peer::new(stream.expect("accept"));
                std::thread::spawn(move || serve(&mut peer, &case));
            }
        });
        Server { address, case }
    }

    /// What connections that come from now on are part of.
    pub fn begin(&self, seed: u64) -> Arc<Case> {
        let case = Arc::new(Case::new(seed));
        *self.case.lock().expect("a case") = case.clone();
        case
    }
}

fn serve(peer: &mut Peer, case: &Case) {
    if peer.try_hello().is_none() {
        return;
    }
    let capabilities =
        if case.sums { CAPABILITY_SUMS } else { 0 } | if case.packs { CAPABILITY_PACKED } else { 0 };
    let welcome = ServerHello { capabilities, instance: 1, ..server_hello(HelloStatus::Welcome, 1) };
    let mut hello = welcome.encode().to_vec();
    let after =
        case.lie(case.hellos).map_or(After::GoOn, |mut dice| change_hello(&mut dice, welcome, &mut hello));
    peer.send(&hello);
    if !go_on(peer, after) {
        return;
    }
    while let Some((header, body)) = peer.try_request() {
        let Some(kind) = Kind::from_request(header.kind) else { panic!("kind {:#x}", header.kind) };
        if matches!(kind, Kind::Stage | Kind::StageFrom) {
            // It has no answer; a lie is one that comes all the same.
            if let Some(mut dice) = case.lie(1) {
                peer.send(&refusal(&mut dice, &header));
            }
            continue;
        }
        let mut answer = if case.packs && header.flags & FLAG_PACKED != 0 {
            pages_answer_packed(&header, asked(&body), case.sums)
        } else {
            honest(case.sums, kind, &header, &body)
        };
        let after = case
            .lie(9)
            .map_or(After::GoOn, |mut dice| change(&mut dice, case.sums, (&header, &body), &mut answer));
        if !peer.send(&answer) || !go_on(peer, after) {
            return;
        }
    }
}

fn go_on(peer: &mut Peer, after: After) -> bool {
    if after == After::Hang {
        peer.drain();
    }
    after == After::GoOn
}

/// What a good server says.
fn honest(sums: bool, kind: Kind, header: &Header, body: &[u8]) -> Vec<u8> {
    fn control<T: Serialize>(header: &Header, body: &T) -> Vec<u8> {
        let mut out = Vec::new();
        encode_frame(answer_header(header, header.kind | 0x8000), body, &mut out).expect("it encodes");
        out
    }
    let number = header.region.0.max(9);
    match kind {
        Kind::Fetch => pages_answer_with(header, asked(body), sums),
        Kind::Open | Kind::OpenId | Kind::CreateUnnamed | Kind::Lookup | Kind::SetAttr | Kind::Link => {
            control(header, &entry(number))
        }
        Kind::CloneUnnamed => control(header, &entry(number + 1)),
        Kind::Keep => control(header, &entry(number)),
        Kind::MakeDir | Kind::MakeSymlink => control(header, &entry(number)),
        Kind::List => {
            let entries = (0..40).map(|i| (format!("name{i:02}"), entry(i + 1))).collect();
            control(header, &Listing { entries, more: false })
        }
        Kind::Names => control(header, &Names { names: vec!["a".to_owned(), "d/b".to_owned()] }),
        Kind::Resolve => {
            let (reached, name, outside) = (Reached::There, "a".to_owned(), Vec::new());
            control(header, &Resolved { reached, name, slash: false, links: 1, outside })
        }
        Kind::Resize | Kind::Commit | Kind::CommitStatus => control(header, &committed(9)),
        Kind::CommitTogether => {
            let asked: CommitTogether = decode_body(body, "commit").expect("it decodes");
            control(header, &CommittedTogether { parts: vec![committed(9); asked.parts.len()] })
        }
        Kind::Changes => {
            let until: Epoch = decode_body(body, "until").expect("it decodes");
            let epoch = if until == Epoch(0) { Epoch(header.epoch.0 + 1) } else { until };
            let runs = vec![Run::new(1, 2), Run::new(7, 1), Run::new(1 << 30, 5)];
            control(header, &Changes { epoch, size: 1 << 43, runs, base_kept: true })
        }
        Kind::ServerStat => {
            let (version, store) = ("1".to_owned(), "memory".to_owned());
            let (uptime_s, regions, connections, stored_pages, pages_max) = (1, 2, 3, 4, 5);
            let (pages_sent, pages_committed, commits, fetches) = (6, 7, 8, 9);
            control(
                header,
                &ServerStat {
                    version,
                    store,
                    uptime_s,
                    regions,
                    connections,
                    stored_pages,
                    pages_max,
                    pages_sent,
                    pages_committed,
                    commits,
                    fetches,
                },
            )
        }
        Kind::Ping
        | Kind::Close
        | Kind::Remove
        | Kind::Rename
        | Kind::View
        | Kind::Inherit
        | Kind::Reclaim => control(header, &()),
        Kind::ServerActivity
        | Kind::RegionActivity
        | Kind::ClientActivity
        | Kind::Scrub
        | Kind::Snapshot
        | Kind::RemoveSnapshot
        | Kind::Clone
        | Kind::History
        | Kind::Stage
        | Kind::StageFrom
        | Kind::Error => panic!("the library does not ask {kind:?}"),
    }
}

fn asked(body: &[u8]) -> Vec<u64> {
    let body = PageBody::parse_fetch(body).expect("a fetch that decodes");
    body.runs().flat_map(|wire| wire.run.first.0..wire.run.end()).collect()
}

/// A hello that is not what it should be. What it says of the store is left alone unless it is all else, too: a client that saw another
/// store must not go on with this one.
fn change_hello(dice: &mut Dice, welcome: ServerHello, bytes: &mut Vec<u8>) -> After {
    let places = [0..24, 40..64].map(|range| range.collect::<Vec<usize>>()).concat();
    match dice.below(8) {
        0 => {
            let at = dice.pick(places);
            bytes[at] ^= 1 << dice.below(8);
        }
        1 => {
            let at = dice.pick([0usize, 8, 16, 40, 44, 48, 56]);
            let word = dice.number().to_le_bytes();
            bytes[at..at + 8].copy_from_slice(&word);
        }
        2 => {
            bytes.truncate(dice.below(64) as usize);
            return dice.pick([After::HangUp, After::Hang, After::HangUp, After::HangUp]);
        }
        3 => {
            let lies = [HelloStatus::Closing, HelloStatus::TooManyConnections];
            *bytes = ServerHello { status: dice.pick(lies), ..welcome }.encode().to_vec();
        }
        4 => *bytes = ServerHello { instance: dice.roll(), ..welcome }.encode().to_vec(),
        5 => *bytes = ServerHello { frame_body_max: dice.number() as u32, ..welcome }.encode().to_vec(),
        6 => *bytes = dice.bytes(64),
        _ => bytes.extend_from_slice(&vec![0; dice.below(200) as usize]),
    }
    After::GoOn
}

fn refusal(dice: &mut Dice, header: &Header) -> Vec<u8> {
    let mut out = Vec::new();
    let length = dice.pick([0usize, 1, 300, 4096, 100_000, 1_000_000]);
    let text = dice.pick(["x", "\x1b[2J", "a\nnetmem: b", "ä", "\u{202e}"]).repeat(length / 4 + 1);
    let other = dice.roll() as u16;
    let code = dice.pick([0, 1, 2, 8, 11, 12, 13, 14, 15, 20, 21, 0xffff, other]);
    let body = ErrorBody { code, text: text.chars().take(length).collect() };
    if encode_frame(answer_header(header, Kind::Error as u16), &body, &mut out).is_err() {
        return frame(&answer_header(header, Kind::Error as u16), &[0; 9]);
    }
    out
}

/// Changes an answer to the request `header`, `body`.
fn change(dice: &mut Dice, sums: bool, (header, body): (&Header, &[u8]), answer: &mut Vec<u8>) -> After {
    let right = Header::decode(answer.first_chunk().expect("a header"), FRAME_BODY_MAX).expect("a header");
    let length = answer.len() as u64;
    match dice.below(15) {
        0 => {
            let at = dice.below(length) as usize;
            answer[at] ^= 1 << dice.below(8);
        }
        1 => {
            let at = dice.below(length) as usize;
            let word = dice.number().to_le_bytes();
            let count = word.len().min(answer.len() - at);
            answer[at..at + count].copy_from_slice(&word[..count]);
        }
        2 => {
            answer.truncate(dice.below(length) as usize);
            // To be silent costs the client its time, and the test.
            return if dice.below(8) == 0 { After::Hang } else { After::HangUp };
        }
        3 => {
            let body = dice.pick([0, 1, 15, 16, 17, 31, 4096, length as usize, length as usize + 4096]);
            answer.resize(HEADER_BYTES + body, dice.roll() as u8);
            answer[..4].copy_from_slice(&(body as u32).to_le_bytes());
        }
        4 => *answer = answer.repeat(dice.pick([2, 3, 64])),
        5 => {
            let lie = match dice.below(7) {
                0 => Header {
                    request: RequestId(right.request.0.wrapping_add(dice.pick([1, u64::MAX]))),
                    ..right
                },
                1 => Header { region: dice.region(), ..right },
                2 => Header { epoch: Epoch(dice.number()), ..right },
                3 => Header { kind: dice.pick(Kind::REQUESTS) as u16 | dice.pick([0, 0x8000]), ..right },
                4 => Header { kind: dice.roll() as u16, ..right },
                5 => {
                    Header { flags: dice.pick([FLAG_PACKED ^ right.flags, u16::MAX, !FLAG_PACKED]), ..right }
                }
                _ => Header { length: dice.pick([FRAME_BODY_MAX, FRAME_BODY_MAX + 1, u32::MAX]), ..right },
            };
            answer[..HEADER_BYTES].copy_from_slice(&lie.encode());
            if lie.length != right.length {
                return After::HangUp;
            }
        }
        6 => {
            let count = dice.pick([1, 31, 32, 33, 500, 100_000]);
            *answer = dice.bytes(count);
            return After::HangUp;
        }
        7 => {
            answer.clear();
            return if dice.below(8) == 0 { After::Hang } else { After::HangUp };
        }
        8 => *answer = refusal(dice, header),
        9 => {
            // The body of an answer to something else.
            let kind =
                dice.pick([Kind::Changes, Kind::List, Kind::Names, Kind::Resolve, Kind::Commit, Kind::Ping]);
            *answer = frame(&right, &honest(sums, kind, header, &[0])[HEADER_BYTES..]);
        }
        10 => {
            // A list, or a string, of more than there can be.
            let mut lie = answer[HEADER_BYTES..].to_vec();
            let at = dice.below(lie.len() as u64 + 1) as usize;
            lie.truncate(at.min(FRAME_BODY_MAX as usize / 2));
            lie.push(dice.pick([251, 252, 253, 254, 255]));
            lie.extend_from_slice(&dice.number().to_le_bytes());
            lie.resize(lie.len() + dice.pick([0, 9, 5_000]), dice.pick([0, 1, 0xff]));
            *answer = frame(&right, &lie);
        }
        11 => {
            // As many elements as a body has bytes.
            let count = FRAME_BODY_MAX - 5;
            let mut lie = vec![252];
            lie.extend_from_slice(&count.to_le_bytes());
            lie.resize(FRAME_BODY_MAX as usize, 0);
            *answer = frame(&right, &lie);
        }
        _ if right.kind == Kind::Fetch.answer() => *answer = other_pages(dice, sums, header, asked(body)),
        _ if dice.below(4) > 0 => *answer = frame(&right, &wild(dice, answer)[HEADER_BYTES..]),
        _ => answer[HEADER_BYTES..].iter_mut().for_each(|byte| *byte = dice.roll() as u8),
    }
    After::GoOn
}

/// An answer that decodes, and says what can't be.
fn wild(dice: &mut Dice, answer: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let header = Header::decode(answer.first_chunk().expect("a header"), FRAME_BODY_MAX).expect("a header");
    let names = ["..", "../../x", "a/../b", "/x", "", ".", "x\0", "a//b", "a/", "a", "b/c", "zz"];
    let (name, size) = (dice.pick(names).to_owned(), dice.number());
    let kinds = [EntryKind::Region, EntryKind::Directory, EntryKind::Symlink, EntryKind::Snapshot];
    let entry = Entry { kind: dice.pick(kinds), size, mode: dice.number() as u32, ..entry(dice.below(2)) };
    let encoded = match Kind::REQUESTS.into_iter().find(|kind| kind.answer() == header.kind) {
        Some(Kind::List) => {
            let entries = (0..dice.below(4)).map(|_| (dice.pick(names).to_owned(), entry.clone())).collect();
            encode_frame(header, &Listing { entries, more: dice.below(2) == 0 }, &mut out)
        }
        Some(Kind::Names) => encode_frame(header, &Names { names: vec![name; 2] }, &mut out),
        Some(Kind::Resolve) => {
            let reached = dice.pick([Reached::There, Reached::Missing, Reached::Outside]);
            let outside = dice.pick(names).as_bytes().to_vec();
            let links = dice.number() as u32;
            encode_frame(header, &Resolved { reached, name, slash: false, links, outside }, &mut out)
        }
        Some(Kind::Resize | Kind::Commit | Kind::CommitStatus) => {
            let (epoch, previous) = (Epoch(dice.number()), Epoch(dice.number()));
            encode_frame(header, &Committed { epoch, previous, size }, &mut out)
        }
        Some(Kind::CommitTogether) => {
            let parts = vec![Committed { size, ..committed(9) }; dice.below(5) as usize];
            encode_frame(header, &CommittedTogether { parts }, &mut out)
        }
        _ => encode_frame(header, &entry, &mut out),
    };
    encoded.expect("it encodes");
    out
}

/// Pages that were not asked for, or not so.
fn other_pages(dice: &mut Dice, sums: bool, header: &Header, mut pages: Vec<u64>) -> Vec<u8> {
    let (first, at) = (pages[0], dice.below(pages.len() as u64) as usize);
    match dice.below(12) {
        0 => _ = pages.remove(at),
        1 => pages.insert(at, pages[at]),
        2 => pages[at] += 1 + dice.below(3),
        3 => pages.iter_mut().for_each(|page| *page += 1),
        4 => pages.push(pages[pages.len() - 1] + 1),
        5 => pages.clear(),
        6 if pages.len() > 1 => pages.reverse(),
        7 => {
            // Too many runs, or pages, for a frame.
            let many = dice.pick([257, 300, 5_000]);
            let runs: Vec<_> = (0..many).map(|i| (first + i * 2, 1, 1)).collect();
            return raw_pages(header, &runs, 0);
        }
        8 => return raw_pages(header, &[(first, dice.pick([257, 1 << 20, u32::MAX]), dice.pick([0, 1]))], 1),
        9 | 10 => return pages_of_another(dice, sums, header, &pages),
        _ => {
            let wild = [(u64::MAX, 2, 1), (1 << 32, 1, 1), (first, 0, 1), (first, 1, 7), (first, 1, 0)];
            return raw_pages(header, &[dice.pick(wild)], dice.pick([0, 2, 257, u32::MAX]));
        }
    }
    pages.truncate(200);
    pages_answer_with(header, pages, sums)
}

/// The right pages of another region, of another epoch, or for another request: whole, and with other bytes.
fn pages_of_another(dice: &mut Dice, sums: bool, header: &Header, pages: &[u64]) -> Vec<u8> {
    let (mut builder, mut data) = (PageBodyBuilder::default(), Vec::new());
    for page in pages {
        let bytes = [0x5a ^ *page as u8; PAGE_SIZE];
        builder.push_data(*page, page_sum(&bytes));
        data.extend_from_slice(&bytes);
    }
    let mut body = Vec::new();
    builder.encode(CommitId(0), sums, &mut body);
    body.extend_from_slice(&data);
    let right = Header { epoch: header.epoch, ..answer_header(header, Kind::Fetch.answer()) };
    let lies = [
        Header { region: RegionId(header.region.0 + 1), ..right },
        Header { region: RegionId(0), ..right },
        Header { epoch: Epoch(header.epoch.0 + 1), ..right },
        Header { epoch: Epoch(0), ..right },
        nobody(&right),
    ];
    frame(&dice.pick(lies), &body)
}

/// Runs as they are given, and a page of data for each that `data` promises, up to two.
fn raw_pages(header: &Header, runs: &[(u64, u32, u32)], data: u32) -> Vec<u8> {
    let mut body =
        [0u64.to_le_bytes().as_slice(), &(runs.len() as u32).to_le_bytes(), &data.to_le_bytes()].concat();
    for (first, count, kind) in runs {
        body.extend_from_slice(&first.to_le_bytes());
        body.extend_from_slice(&count.to_le_bytes());
        body.extend_from_slice(&kind.to_le_bytes());
    }
    for _ in 0..data.min(2) {
        body.extend_from_slice(&content(1).unwrap_or([0; PAGE_SIZE]));
    }
    frame(&Header { epoch: header.epoch, ..answer_header(header, Kind::Fetch.answer()) }, &body)
}
