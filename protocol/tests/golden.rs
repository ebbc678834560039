//! The wire, byte by byte. A failure here means that old and new builds no longer understand each other: raise the version.

use netmem_protocol::activity::{
    CAPABILITY_ACTIVITY, ClientActivities, ClientActivity, ClientsAfter, Latencies, RegionActivities,
    RegionActivity, RegionsAfter, Served, ServerActivity,
};
use netmem_protocol::control::{Commit, Create, Entry, EntryKind, Open, StageFrom};
use netmem_protocol::pages::encode_fetch;
use netmem_protocol::{
    CAPABILITY_PACKED, CacheId, ClientHello, ClientId, CommitId, Epoch, FLAG_PACKED, FRAME_BODY_MAX,
    FrameParser, Header, HelloStatus, Kind, PAGE_SIZE, PageBody, PageBodyBuilder, ProtocolError, RegionId,
    RequestId, Run, RunKind, ServerHello, StoreId, decode_body, encode_frame, page_sum, unpack,
};
use proptest::prelude::*;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn the_first_exchange_has_these_bytes_for_ever() {
    let client = ClientHello::new(ClientId([0x11; 16]), CacheId([0x22; 16]));
    assert_eq!(
        hex(&client.encode()),
        concat!(
            "4e45544d454d0d0a",
            "0200",
            "0200",
            "00000000",
            "0000000000000000",
            "11111111111111111111111111111111",
            "22222222222222222222222222222222",
            "0000000000000000"
        )
    );
    assert_eq!(ClientHello::decode(&client.encode()), Ok(client));
    let watching = ClientHello { capabilities: CAPABILITY_ACTIVITY, ..client };
    assert_eq!(hex(&watching.encode()[16..24]), "0100000000000000");
    let server = ServerHello {
        status: HelloStatus::Welcome,
        version_min: 2,
        version_max: 2,
        capabilities: 0,
        store: StoreId([0x33; 16]),
        frame_body_max: 0x0011_0000,
        region_bytes_max: 1 << 44,
        instance: 0,
    };
    assert_eq!(
        hex(&server.encode()),
        concat!(
            "4e45544d454d0d0a",
            "0200",
            "0200",
            "0000",
            "0000",
            "0000000000000000",
            "33333333333333333333333333333333",
            "00001100",
            "00000000",
            "0000000000100000",
            "0000000000000000"
        )
    );
    assert_eq!(ServerHello::decode(&server.encode()), Ok(server));
    let run = ServerHello { instance: 0x0102_0304, ..server };
    assert_eq!(hex(&run.encode()[56..]), "0403020100000000");
    assert_eq!(ServerHello::decode(&run.encode()), Ok(run));
}

#[test]
fn a_peer_of_another_version_or_another_protocol_is_named() {
    let mut bytes = [0u8; 64];
    bytes[..8].copy_from_slice(b"HTTP/1.1");
    assert_eq!(ServerHello::decode(&bytes), Err(ProtocolError::NotNetmem(*b"HTTP/1.1")));
    let server = ServerHello {
        status: HelloStatus::Version,
        version_min: 7,
        version_max: 9,
        capabilities: 0,
        store: StoreId::default(),
        frame_body_max: 0,
        region_bytes_max: 0,
        instance: 0,
    };
    assert!(matches!(
        ServerHello::decode(&server.encode()),
        Err(ProtocolError::Version { peer_min: 7, peer_max: 9, .. })
    ));
}

fn header(kind: u16) -> Header {
    Header { length: 0, kind, flags: 0, request: RequestId(5), region: RegionId(6), epoch: Epoch(7) }
}

#[test]
fn frames_have_these_bytes() {
    let mut out = Vec::new();
    let open = Open { name: "a/b".into(), create: Create::IfMissing, mode: 0o644 };
    encode_frame(header(Kind::Open as u16), &open, &mut out).unwrap();
    assert_eq!(
        hex(&out),
        concat!(
            "08000000",
            "1000",
            "0000",
            "0500000000000000",
            "0600000000000000",
            "0700000000000000",
            "03612f6201fba401"
        )
    );
    let (parsed, used) = FrameParser { limit: FRAME_BODY_MAX }.peek(&out).unwrap().unwrap();
    assert_eq!((parsed.length, used), (8, out.len()));
    assert_eq!(decode_body::<Open>(&out[32..], "open"), Ok(open));

    let commit = Commit {
        commit: CommitId(9),
        staged_pages: 3,
        base: Epoch(4),
        strict: false,
        cut: None,
        size: Some(8192),
    };
    out.clear();
    encode_frame(header(Kind::Commit as u16), &commit, &mut out).unwrap();
    assert_eq!(hex(&out[32..]), "090304000001fb0020");

    out.clear();
    encode_frame(header(Kind::CloneUnnamed as u16), &(), &mut out).unwrap();
    let body_is_empty =
        concat!("00000000", "5400", "0000", "0500000000000000", "0600000000000000", "0700000000000000");
    assert_eq!(hex(&out), body_is_empty);
    assert_eq!(Kind::CloneUnnamed.answer(), 0x8054);
    assert_eq!((Kind::Keep as u16, Kind::Keep.answer()), (0x0056, 0x8056));

    let runs = vec![Run::new(3, 2), Run::new(300, 1)];
    let from = StageFrom { commit: CommitId(9), from: RegionId(8), runs };
    out.clear();
    encode_frame(header(Kind::StageFrom as u16), &from, &mut out).unwrap();
    assert_eq!(hex(&out[4..6]), "4e00");
    assert_eq!(hex(&out[32..]), "0908020302fb2c0101");
    assert_eq!(from.check(), Ok(3));

    let entry = Entry {
        kind: EntryKind::Symlink,
        region: RegionId(0),
        size: 3,
        epoch: Epoch(0),
        mode: 0o777,
        modified_ns: 1,
        stored_pages: 0,
        created: true,
        links: 1,
        target: b"../".to_vec(),
    };
    out.clear();
    encode_frame(header(Kind::Lookup.answer()), &entry, &mut out).unwrap();
    assert_eq!(hex(&out[32..]), "02000300fbff010100010103".to_owned() + "2e2e2f");
    assert_eq!(decode_body::<Entry>(&out[32..], "entry"), Ok(entry));
}

#[test]
fn page_bodies_have_these_bytes() {
    let mut out = Vec::new();
    encode_fetch(&[Run::new(3, 2)], &mut out);
    assert_eq!(
        hex(&out),
        concat!("0000000000000000", "01000000", "00000000", "0300000000000000", "02000000", "00000000")
    );
    let mut builder = PageBodyBuilder::default();
    builder.push(3, RunKind::Zero);
    builder.push(4, RunKind::Data);
    out.clear();
    assert_eq!(builder.encode_front(CommitId(1), &mut out) as usize, out.len() + PAGE_SIZE);
    out.extend_from_slice(&[0xab; PAGE_SIZE]);
    let body = PageBody::parse(&out, false).unwrap();
    let pages: Vec<_> = body.pages().collect();
    assert_eq!(pages, vec![(3, None), (4, Some(&[0xab; PAGE_SIZE]))]);
}

#[test]
fn page_bodies_with_checksums_have_these_bytes_and_a_changed_bit_is_named() {
    let page = [0xab; PAGE_SIZE];
    let mut builder = PageBodyBuilder::default();
    builder.push(3, RunKind::Zero);
    builder.push_data(4, page_sum(&page));
    let mut out = Vec::new();
    assert_eq!(builder.encode(CommitId(1), true, &mut out) as usize, out.len() + PAGE_SIZE);
    assert_eq!(hex(&out[48..]), "e8421458d640d798");
    out.extend_from_slice(&page);
    let body = PageBody::parse(&out, true).unwrap();
    assert_eq!(body.verify(), Ok(()));
    assert_eq!(body.spans().map(|span| span.sum(0)).collect::<Vec<_>>(), [None, Some(page_sum(&page))]);
    assert!(PageBody::parse(&out, false).is_err(), "it is longer than one without");
    assert!(PageBody::parse(&out[..out.len() - 1], true).is_err());
    let (start, pages, front) = PageBody::parse_start(&out[..60], out.len(), true).unwrap().unwrap();
    assert_eq!((pages, front, start.sums().count()), (1, 56, 1));
    assert!(PageBody::parse_start(&out[..55], out.len(), true).unwrap().is_none(), "a checksum is missing");
    out[2000] ^= 1;
    assert_eq!(PageBody::parse(&out, true).unwrap().verify(), Err(ProtocolError::Corrupt { page: 4 }));
}

#[test]
fn what_a_server_is_doing_has_these_bytes() {
    let served = Served { fetches: 1, pages_sent: 2, commits: 3, pages_committed: 4 };
    let mut out = Vec::new();
    let mut bytes = |kind: Kind, body: &dyn Fn(Header, &mut Vec<u8>)| {
        out.clear();
        body(header(kind as u16), &mut out);
        (hex(&out[4..6]), hex(&out[32..]))
    };
    let server = ServerActivity {
        uptime_ns: 5,
        regions: 6,
        clients: 7,
        connections: 8,
        stored_pages: 9,
        pages_max: 10,
        served,
        bytes_in: 11,
        bytes_out: 12,
        fetch_ns: Latencies { buckets: vec![(13, 14)] },
        commit_ns: Latencies::default(),
    };
    let (kind, body) =
        bytes(Kind::ServerActivity, &|header, out| encode_frame(header, &server, out).unwrap());
    assert_eq!((kind.as_str(), body.as_str()), ("3200", "05060708090a010203040b0c010d0e00"));
    let ask = RegionsAfter { after: RegionId(15) };
    let (kind, body) = bytes(Kind::RegionActivity, &|header, out| encode_frame(header, &ask, out).unwrap());
    assert_eq!((kind.as_str(), body.as_str()), ("3400", "0f"));
    let region = RegionActivity {
        region: RegionId(16),
        name: "a".into(),
        names: 1,
        size: 17,
        stored_pages: 18,
        holds: 19,
        served,
    };
    let regions = RegionActivities { rows: vec![region], more: true };
    let (_, body) = bytes(Kind::RegionActivity, &|header, out| encode_frame(header, &regions, out).unwrap());
    assert_eq!(body, "01100161011112130102030401");
    let ask = ClientsAfter { after: Some(ClientId([0x22; 16])) };
    let (kind, body) = bytes(Kind::ClientActivity, &|header, out| encode_frame(header, &ask, out).unwrap());
    assert_eq!((kind, body), ("3600".to_owned(), "01".to_owned() + &"22".repeat(16)));
    let client = ClientActivity {
        client: ClientId([0x33; 16]),
        address: "b".into(),
        connections: 20,
        holds: 21,
        since_s: 22,
        served,
        bytes_in: 23,
        bytes_out: 24,
    };
    let clients = ClientActivities { rows: vec![client], more: false };
    let (_, body) = bytes(Kind::ClientActivity, &|header, out| encode_frame(header, &clients, out).unwrap());
    assert_eq!(body, "01".to_owned() + &"33".repeat(16) + "0162" + "141516" + "01020304" + "1718" + "00");
}

#[test]
fn kinds_are_numbered_once() {
    for (i, kind) in Kind::REQUESTS.iter().enumerate() {
        assert_eq!(Kind::from_request(*kind as u16), Some(*kind));
        assert!(Kind::REQUESTS[i + 1..].iter().all(|other| *other as u16 != *kind as u16));
    }
}

proptest! {
    #[test]
    fn no_bytes_make_the_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..6000)) {
        let _ = FrameParser { limit: FRAME_BODY_MAX }.peek(&bytes);
        let _ = decode_body::<Open>(&bytes, "open");
        let _ = decode_body::<Commit>(&bytes, "commit");
        let _ = decode_body::<ServerActivity>(&bytes, "server").map(|body| body.check());
        let _ = decode_body::<RegionActivities>(&bytes, "regions").map(|body| body.check(RegionId(0)));
        let _ = decode_body::<ClientActivities>(&bytes, "clients").map(|body| body.check(None));
        let _ = PageBody::parse_fetch(&bytes);
        if let Ok(body) = PageBody::parse(&bytes, false) {
            let _ = body.pages().count();
        }
        if let Some(hello) = bytes.first_chunk::<64>() {
            let _ = ClientHello::decode(hello);
            let _ = ServerHello::decode(hello);
        }
    }

    #[test]
    fn pages_come_out_as_they_went_in(pages in proptest::collection::btree_map(0u64..5000, any::<Option<u8>>(), 0..100)) {
        let mut builder = PageBodyBuilder::default();
        let mut data = Vec::new();
        for (page, fill) in &pages {
            builder.push(*page, if fill.is_some() { RunKind::Data } else { RunKind::Zero });
            if let Some(fill) = fill { data.extend_from_slice(&[*fill; PAGE_SIZE]); }
        }
        let mut out = Vec::new();
        let length = builder.encode_front(CommitId(0), &mut out);
        out.extend_from_slice(&data);
        prop_assert_eq!(length as usize, out.len());
        let back: Vec<_> = PageBody::parse(&out, false).unwrap().pages().map(|(page, data)| (page, data.map(|d| d[0]))).collect();
        prop_assert_eq!(back, pages.into_iter().collect::<Vec<_>>());
    }
}

#[test]
fn a_packed_body_unpacks_to_the_pages_that_it_was_made_of() {
    let mut builder = PageBodyBuilder::default();
    builder.push_data(5, page_sum(&[7; PAGE_SIZE]));
    builder.push(9, RunKind::Zero);
    let mut front = Vec::new();
    builder.encode(CommitId(3), true, &mut front);
    // A literal 7, a match of 4,089 bytes one back, and six literals, as LZ4 ends.
    let block = b"\x1f\x07\x01\x00\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xf5\x60\x07\x07\x07\x07\x07\x07";
    let whole = [&front[..], &[7; PAGE_SIZE]].concat();
    let mut out = Vec::new();
    let length = unpack(&[&front[..], block].concat(), true, FRAME_BODY_MAX, &mut out);
    assert_eq!(length, Ok(whole.len()));
    assert!(out[..whole.len()] == whole);
    assert_eq!((CAPABILITY_PACKED, FLAG_PACKED), (4, 1));
}
