//! Page bodies that are compressed, over the wire: where both say so, what was staged is what comes back, packed or not.

mod common;

use std::io::{Read, Write};
use std::net::SocketAddr;

use common::{Client, code, commit_body, dial, page, server};
use netmem_protocol::hello::HELLO_BYTES;
use netmem_protocol::pages::encode_fetch;
use netmem_protocol::{
    CAPABILITY_PACKED, CAPABILITY_SUMS, CacheId, ClientHello, ClientId, CommitId, ErrorCode, FLAG_PACKED,
    FRAME_BODY_MAX, Header, Kind, PAGE_SIZE, Packer, PageBody, PageBodyBuilder, RegionId, Run, RunKind,
    ServerHello, page_sum, unpack,
};

/// A client that packs, if the server does.
fn packing(address: SocketAddr) -> Client {
    let mut client = Client::connect(address);
    client.stream = dial(address);
    let capabilities = CAPABILITY_SUMS | CAPABILITY_PACKED;
    let hello = ClientHello { capabilities, ..ClientHello::new(ClientId([7; 16]), CacheId([8; 16])) };
    client.stream.write_all(&hello.encode()).expect("a hello");
    let mut answer = [0; HELLO_BYTES];
    client.stream.read_exact(&mut answer).expect("the server's hello");
    client.hello = ServerHello::decode(&answer).expect("a hello that we understand");
    assert_eq!(client.hello.capabilities, capabilities);
    client
}

/// A page of words that say where they are.
fn content(number: u64) -> Vec<u8> {
    (0..PAGE_SIZE as u64 / 8).flat_map(|word| (number * 1000 + word).to_le_bytes()).collect()
}

/// Random bytes.
fn noise(mut state: u64) -> Vec<u8> {
    let words = (0..PAGE_SIZE / 8).map(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    });
    words.flat_map(u64::to_le_bytes).collect()
}

/// The front of a body of these pages, and the pages.
fn body(commit: u64, pages: &[(u64, Option<Vec<u8>>)]) -> (Vec<u8>, Vec<u8>) {
    let (mut builder, mut data) = (PageBodyBuilder::default(), Vec::new());
    for (number, bytes) in pages {
        match bytes {
            Some(bytes) => {
                builder.push_data(*number, page_sum(bytes));
                data.extend_from_slice(bytes);
            }
            None => builder.push(*number, RunKind::Zero),
        }
    }
    let mut front = Vec::new();
    builder.encode(CommitId(commit), true, &mut front);
    (front, data)
}

fn stage_packed(client: &mut Client, region: RegionId, front: &[u8], block: &[u8]) -> Header {
    let header = Header { flags: FLAG_PACKED, ..client.header(Kind::Stage, region, 0) };
    client.send(header, &[front, block].concat());
    header
}

/// What a fetch of pages 0 to `count` gives, and whether it came packed.
fn fetch(client: &mut Client, region: RegionId, count: u32, flags: u16) -> (Vec<Option<Vec<u8>>>, bool) {
    let mut ask = Vec::new();
    encode_fetch(&[Run::new(0, count)], &mut ask);
    let header = Header { flags, ..client.header(Kind::Fetch, region, 0) };
    client.send(header, &ask);
    let (answer, bytes) = client.receive();
    assert_eq!((answer.kind, answer.request), (Kind::Fetch.answer(), header.request));
    let is_packed = answer.flags & FLAG_PACKED != 0;
    let mut whole = bytes.clone();
    if is_packed {
        let length = unpack(&bytes, true, FRAME_BODY_MAX, &mut whole).expect("well packed");
        assert!(bytes.len() < length);
        whole.truncate(length);
    }
    let parsed = PageBody::parse(&whole, true).expect("a page body");
    parsed.verify().expect("right sums");
    (parsed.pages().map(|(_, bytes)| bytes.map(|bytes| bytes.to_vec())).collect(), is_packed)
}

#[test]
fn pages_that_went_packed_come_back_packed_or_as_they_are() {
    let (_server, address) = server(&[]);
    let mut client = packing(address);
    let region = client.open("region").region;
    let mut pages: Vec<(u64, Option<Vec<u8>>)> = (0..100).map(|at| (at, Some(content(at)))).collect();
    pages[3].1 = None;
    // Zeros that are sent as data.
    pages[4].1 = Some(vec![0; PAGE_SIZE]);
    let (front, data) = body(1, &pages);
    let mut packer = Packer::default();
    let block = packer.pack(&data).expect("worth it");
    stage_packed(&mut client, region, &front, block);
    client.finish(region, &commit_body(1, 100, 1)).expect("a commit");
    pages[4].1 = None;
    let wanted: Vec<_> = pages.into_iter().map(|(_, bytes)| bytes).collect();
    assert_eq!(fetch(&mut client, region, 100, FLAG_PACKED), (wanted.clone(), true));
    assert_eq!(fetch(&mut client, region, 100, 0), (wanted.clone(), false));
    assert_eq!(fetch(&mut client, region, 1, FLAG_PACKED), (wanted[..1].to_vec(), true));
    let mut plain = Client::connect(address);
    let first_bytes: Vec<u8> = wanted.iter().map(|page| page.as_ref().map_or(0, |page| page[0])).collect();
    assert_eq!(plain.fetch(region, 0, &[Run::new(0, 100)]).expect("pages").fills(), first_bytes);
}

#[test]
fn what_does_not_shrink_and_what_is_zeros_comes_as_it_is() {
    let (_server, address) = server(&[]);
    let mut client = packing(address);
    let region = client.open("region").region;
    let (front, data) = body(1, &[(0, Some(noise(5))), (1, Some(noise(6)))]);
    assert!(Packer::default().pack(&data).is_none());
    let header = client.header(Kind::Stage, region, 0);
    client.send(header, &[&front[..], &data].concat());
    client.finish(region, &commit_body(1, 2, 1)).expect("a commit");
    assert_eq!(fetch(&mut client, region, 2, FLAG_PACKED), (vec![Some(noise(5)), Some(noise(6))], false));
    let empty = client.open("empty").region;
    assert_eq!(fetch(&mut client, empty, 2, FLAG_PACKED), (vec![None, None], false));
}

#[test]
fn a_block_that_is_broken_or_of_other_pages_fails_its_commit_and_is_sent_again() {
    let (_server, address) = server(&[]);
    let pages: Vec<(u64, Option<Vec<u8>>)> = (0..20).map(|at| (at, Some(content(at)))).collect();
    let (front, data) = body(1, &pages);
    let mut packer = Packer::default();
    let block = packer.pack(&data).expect("worth it").to_vec();
    let mut longer = block.clone();
    longer.extend_from_slice(&[0; 20]);
    for (at, wrong) in [&block[..block.len() - 1], &longer, &[], &[0xff; 300]].into_iter().enumerate() {
        let mut client = packing(address);
        let region = client.open(&format!("region{at}")).region;
        stage_packed(&mut client, region, &front, wrong);
        assert_eq!(code(client.finish(region, &commit_body(1, 20, 1))), ErrorCode::Corrupt);
        assert_eq!(fetch(&mut client, region, 1, FLAG_PACKED).0, [None]);
        stage_packed(&mut client, region, &front, &block);
        client.finish(region, &commit_body(1, 20, 1)).expect("sent again");
    }
    // A front that says nothing, or names no commit, is the client's fault.
    let mut client = packing(address);
    let region = client.open("another").region;
    let header = stage_packed(&mut client, region, &body(0, &pages).0, &[]);
    assert_eq!(code(client.answer(header)), ErrorCode::Malformed);
    let mut client = packing(address);
    let region = client.open("other").region;
    let header = stage_packed(&mut client, region, &front[..15], &[]);
    assert_eq!(code(client.answer(header)), ErrorCode::Malformed);
    assert!(client.try_receive().is_err(), "the connection is over");
    let mut client = packing(address);
    let region = client.open("region").region;
    let mut others = data;
    others[5000] ^= 1;
    let block = packer.pack(&others).expect("worth it").to_vec();
    stage_packed(&mut client, region, &front, &block);
    assert_eq!(code(client.finish(region, &commit_body(1, 20, 1))), ErrorCode::Corrupt);
    assert_eq!(fetch(&mut client, region, 1, FLAG_PACKED).0, [None]);
}

#[test]
fn what_would_unpack_to_more_than_a_frame_may_have_is_refused() {
    let (_server, address) = server(&["--max-frame", "131072"]);
    let mut client = packing(address);
    let region = client.open("region").region;
    let pages: Vec<(u64, Option<Vec<u8>>)> = (0..40).map(|at| (at, Some(page(1).to_vec()))).collect();
    let (front, data) = body(1, &pages);
    let block = Packer::default().pack(&data).expect("worth it").to_vec();
    let header = stage_packed(&mut client, region, &front, &block);
    assert_eq!(code(client.answer(header)), ErrorCode::Malformed);
}

#[test]
fn who_did_not_say_that_he_packs_is_not_answered_so() {
    let (_server, address) = server(&[]);
    let mut client = Client::connect(address);
    let region = client.open("region").region;
    client.commit(region, 1, &[(0, Some(page(9)))]).expect("a commit");
    let mut ask = Vec::new();
    encode_fetch(&[Run::new(0, 1)], &mut ask);
    let header = Header { flags: FLAG_PACKED, ..client.header(Kind::Fetch, region, 0) };
    client.send(header, &ask);
    let (answer, bytes) = client.receive();
    assert_eq!(answer.flags, 0);
    assert!(PageBody::parse(&bytes, false).is_ok());
}
