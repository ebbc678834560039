//! What a host keeps on the server before it is committed, over the wire: who keeps it, and what a commit takes from it.

mod common;

use std::io::Write;
use std::net::SocketAddr;
use std::time::Duration;

use common::{Answered, Client, code, commit_body, config, page, server_with, until};
use netmem_protocol::control::{Committed, Entry, Keep, Reclaim, StageFrom};
use netmem_protocol::{
    ClientId, CommitId, Epoch, ErrorCode, Header, Kind, RegionId, Run, StoreId, encode_frame,
};
use netmem_server::Server;
use netmem_server::store::simulated::Simulated;

fn start_on(disk: &Simulated) -> (Server, SocketAddr) {
    let server = Server::start_on(&config(&[]), Box::new(disk.clone()), StoreId([5; 16]));
    let server = server.expect("the server starts");
    let address = server.urls()[0].strip_prefix("tcp://").expect("tcp").parse().expect("an address");
    (server, address)
}

fn keep(client: &mut Client, of: RegionId, known: RegionId) -> Answered<Entry> {
    client.call(Kind::Keep, known, &Keep { of })
}

fn fills(client: &mut Client, region: RegionId, pages: u32) -> Vec<u8> {
    client.fetch(region, 0, &[Run::new(0, pages)]).expect("pages").fills()
}

fn send(client: &mut Client, region: RegionId, from: &StageFrom) -> Header {
    let header = client.header(Kind::StageFrom, region, 0);
    let mut frame = Vec::new();
    encode_frame(header, from, &mut frame).expect("it encodes");
    client.stream.write_all(&frame).expect("the server reads");
    header
}

fn commit_from(client: &mut Client, region: RegionId, base: u64, from: &StageFrom) -> Answered<Committed> {
    send(client, region, from);
    let pages = from.runs.iter().map(|run| u64::from(run.count)).sum();
    client.finish(region, &commit_body(from.commit.0, pages, base))
}

#[test]
fn what_is_pending_stays_while_a_client_of_the_cache_holds_its_region_and_goes_with_the_last() {
    let mut config = config(&[]);
    config.lease = Duration::ZERO;
    let (server, address) = server_with(&config);
    let mut watcher = Client::connect(address);
    let mut first = Client::connect(address);
    let of = first.open("region").region;
    let kept = keep(&mut first, of, RegionId(0)).expect("a region");
    assert_eq!((kept.created, kept.links, kept.size), (true, 0, 0));
    first.commit(kept.region, kept.epoch.0, &[(0, Some(page(7)))]).expect("a commit");
    let mut second = Client::as_one(address, ClientId([2; 16]), first.cache);
    second.open("region");
    let mut other = Client::connect(address);
    assert_eq!(code(keep(&mut other, of, RegionId(0))), ErrorCode::NotFound, "it does not hold the region");
    other.open("region");
    drop(first);
    until("the end of the first", || watcher.stat().connections == 3);
    assert_eq!(fills(&mut second, kept.region, 1), [7]);
    // Asked for again it is the same, by whomever of this cache; another cache has another.
    let again = keep(&mut second, of, RegionId(0)).expect("a region");
    assert_eq!((again.region, again.created, again.epoch.0), (kept.region, false, 2));
    assert_ne!(keep(&mut other, of, RegionId(0)).expect("a region").region, kept.region);
    assert_eq!(watcher.stat().regions, 3);
    second.raw(Kind::Close, of, 0, &[]).expect("its hold");
    until("the end of what the first cache kept", || watcher.stat().regions == 2);
    until("the end of its pages", || watcher.stat().stored_pages == 0);
    drop(other);
    until("the end of what the other kept", || watcher.stat().regions == 1);
    assert!(server.stop());
}

#[test]
fn what_is_pending_is_found_again_after_a_restart_and_nothing_else_is_taken_for_it() {
    let disk = Simulated::new(None);
    let (server, address) = start_on(&disk);
    let mut host = Client::connect(address);
    let of = host.open("region").region;
    let kept = keep(&mut host, of, RegionId(0)).expect("a region").region;
    host.commit(kept, 1, &[(0, Some(page(7)))]).expect("a commit");
    let cache = host.cache;
    drop(host);
    assert!(server.stop());
    let (server, address) = start_on(&disk);
    let mut host = Client::as_one(address, ClientId([1; 16]), cache);
    host.call_empty(Kind::Reclaim, RegionId(0), &Reclaim { holds: vec![(of, 1)] }).expect("its hold");
    assert_eq!(code(keep(&mut host, of, of)), ErrorCode::Invalid, "it has a name");
    assert_eq!(keep(&mut host, of, kept).map(|entry| entry.region), Ok(kept));
    assert_eq!(fills(&mut host, kept, 1), [7]);
    let mut other = Client::connect(address);
    other.open("region");
    assert_eq!(code(keep(&mut other, of, kept)), ErrorCode::Invalid, "it is another's");
    assert!(server.stop());
}

#[test]
fn a_commit_takes_pages_from_another_region_and_merges_them_as_those_that_were_sent() {
    for on_disk in [false, true] {
        let (server, address) =
            if on_disk { start_on(&Simulated::new(None)) } else { server_with(&config(&[])) };
        let mut host = Client::connect(address);
        let region = host.open("region").region;
        host.commit(region, 1, &[(0, Some(page(1))), (1, Some(page(1))), (2, Some(page(1)))])
            .expect("a commit");
        let kept = keep(&mut host, region, RegionId(0)).expect("a region");
        let mut half = page(1);
        half[..100].fill(5);
        let pages = [(0, Some(half)), (1, None), (2, Some(page(6)))];
        host.commit(kept.region, kept.epoch.0, &pages).expect("what is pending");
        assert_eq!(fills(&mut host, region, 3), [1, 1, 1], "nobody sees it");
        let mut other = Client::connect(address);
        let mut theirs = page(1);
        theirs[4000..].fill(8);
        other.commit(region, 2, &[(0, Some(theirs))]).expect("another host's");
        let from = |commit, runs| StageFrom { commit: CommitId(commit), from: kept.region, runs };
        let stored = host.stat().stored_pages;
        let done = commit_from(&mut host, region, 2, &from(100, vec![Run::new(0, 2)])).expect("a commit");
        assert_eq!((done.previous, done.epoch), (Epoch(3), Epoch(4)));
        let merged = other.fetch(region, 0, &[Run::new(0, 3)]).expect("pages");
        let first = merged.pages[0].1.expect("data");
        assert_eq!((first[0], first[99], first[100], first[3999], first[4000]), (5, 5, 1, 1, 8));
        assert_eq!(merged.fills()[1..], [0, 1]);
        if !on_disk {
            let done = commit_from(&mut host, region, 4, &from(101, vec![Run::new(2, 1)])).expect("a commit");
            assert_eq!(done.epoch, Epoch(5));
            assert!(host.stat().stored_pages <= stored + 1, "one page is both regions'");
        }
        // What is given up there afterwards stays here.
        host.commit(kept.region, kept.epoch.0 + 1, &[(0, None), (1, None), (2, None)]).expect("given up");
        assert_eq!(other.fetch(region, 0, &[Run::new(0, 1)]).expect("pages").fills(), [5]);
        assert!(server.stop());
    }
}

#[test]
fn pages_of_a_region_that_is_not_there_fail_the_commit_and_change_nothing() {
    let (server, address) = server_with(&config(&[]));
    let mut host = Client::connect(address);
    let region = host.open("region").region;
    host.commit(region, 1, &[(0, Some(page(1)))]).expect("a commit");
    let gone = StageFrom { commit: CommitId(50), from: RegionId(99), runs: vec![Run::new(0, 1)] };
    assert_eq!(code(commit_from(&mut host, region, 2, &gone)), ErrorCode::NotFound);
    let far = StageFrom { commit: CommitId(51), from: region, runs: vec![Run::new(1 << 32, 1)] };
    let header = send(&mut host, region, &far);
    assert_eq!(code(host.answer(header)), ErrorCode::Malformed);
    let mut host = Client::connect(address);
    assert_eq!(fills(&mut host, region, 1), [1]);
    assert!(server.stop());
}
