//! The memory of a process that forks: its child's copy, over the wire, and who holds it.

mod common;

use std::time::{Duration, Instant};

use common::{Client, Process, code, config, page, server, server_with, until};
use netmem_protocol::control::{Committed, CreateUnnamed, Entry, Reclaim, Resize};
use netmem_protocol::{ClientId, ErrorCode, Kind, PAGE_SIZE, RegionId, Run, StoreId};
use netmem_server::Server;
use netmem_server::config::Config;
use netmem_server::store::simulated::Simulated;

const PAGE: u64 = PAGE_SIZE as u64;

fn start_on(config: &Config, disk: &Simulated) -> (Server, std::net::SocketAddr) {
    let server =
        Server::start_on(config, Box::new(disk.clone()), StoreId([5; 16])).expect("the server starts");
    let address = server.urls()[0].strip_prefix("tcp://").expect("tcp").parse().expect("an address");
    (server, address)
}

/// A process with so many pages of memory on the server, which say 1.
fn process(address: std::net::SocketAddr, pages: u64) -> (Client, Entry) {
    let mut parent = Client::connect(address);
    let entry: Entry = parent
        .call(Kind::CreateUnnamed, RegionId(0), &CreateUnnamed { size: pages * PAGE })
        .expect("a region");
    let all: Vec<_> = (0..pages).map(|at| (at, Some(page(1)))).collect();
    parent.commit(entry.region, 1, &all).expect("a commit");
    (parent, entry)
}

fn clone(client: &mut Client, region: RegionId) -> Entry {
    client.call(Kind::CloneUnnamed, region, &()).expect("a clone")
}

fn child_of(address: std::net::SocketAddr, parent: &Client, number: u8) -> Client {
    Client::as_one(address, ClientId([number; 16]), parent.cache)
}

fn fills(client: &mut Client, region: RegionId, pages: u32) -> Vec<u8> {
    client.fetch(region, 0, &[Run::new(0, pages)]).expect("pages").fills()
}

#[test]
fn a_child_has_what_its_parent_had_at_the_fork_and_neither_sees_what_the_other_does() {
    let mut config = config(&[]);
    config.lease = Duration::ZERO;
    for on_disk in [false, true] {
        let (server, address) =
            if on_disk { start_on(&config, &Simulated::new(None)) } else { server_with(&config) };
        let (mut parent, memory) = process(address, 3);
        let copy = clone(&mut parent, memory.region);
        assert_eq!((copy.size, copy.epoch.0, copy.links, copy.created), (3 * PAGE, 2, 0, true));
        parent.commit(memory.region, 2, &[(0, Some(page(2))), (2, None)]).expect("the parent goes on");
        let mut child = child_of(address, &parent, 0xc1);
        let (epoch, _) = child.raw(Kind::OpenId, copy.region, 0, &[]).expect("by its number");
        parent.raw(Kind::Close, copy.region, 0, &[]).expect("its hold");
        assert_eq!(fills(&mut child, copy.region, 3), [1, 1, 1]);
        child.commit(copy.region, epoch, &[(1, Some(page(3)))]).expect("the child goes on");
        assert_eq!(fills(&mut parent, memory.region, 3), [2, 1, 0]);
        // A fork of the fork, after which both of the first end.
        let next = clone(&mut child, copy.region);
        let mut grandchild = child_of(address, &parent, 0xc2);
        grandchild.raw(Kind::OpenId, next.region, 0, &[]).expect("by its number");
        child.raw(Kind::Close, next.region, 0, &[]).expect("its hold");
        drop((parent, child));
        until("the end of the others", || grandchild.stat().stored_pages == 3);
        assert_eq!(fills(&mut grandchild, next.region, 3), [1, 3, 1]);
        assert_eq!(code(grandchild.fetch(memory.region, 0, &[Run::new(0, 1)])), ErrorCode::NotFound);
        grandchild.raw(Kind::Close, next.region, 0, &[]).expect("its hold");
        until("the end of all", || grandchild.stat().regions == 0 && grandchild.stat().stored_pages == 0);
        assert!(server.stop());
    }
}

#[test]
fn a_copy_that_no_child_came_for_ends_with_its_parents_lease() {
    let mut config = config(&[]);
    config.lease = Duration::ZERO;
    let (server, address) = server_with(&config);
    let mut watcher = Client::connect(address);
    let (mut parent, memory) = process(address, 2);
    let copy = clone(&mut parent, memory.region);
    drop(parent);
    until("the end of both", || watcher.stat().regions == 0 && watcher.stat().stored_pages == 0);
    assert_eq!(code(watcher.raw(Kind::OpenId, copy.region, 0, &[])), ErrorCode::NotFound);
    assert_eq!(code(watcher.raw(Kind::CloneUnnamed, memory.region, 0, &[])), ErrorCode::NotFound);
    assert!(server.stop());
}

#[test]
fn a_copy_whose_parent_was_killed_waits_for_the_child_over_a_restart_of_the_server_too() {
    let disk = Simulated::new(None);
    let (server, address) = start_on(&config(&[]), &disk);
    let (mut parent, memory) = process(address, 2);
    let copy = clone(&mut parent, memory.region);
    parent.commit(memory.region, 2, &[(0, Some(page(9)))]).expect("a commit");
    let mut child = child_of(address, &parent, 0xc1);
    drop(parent);
    child.raw(Kind::OpenId, copy.region, 0, &[]).expect("within the lease");
    assert_eq!(fills(&mut child, copy.region, 2), [1, 1]);
    drop(child);
    assert!(server.stop());
    let mut config = config(&[]);
    config.lease = Duration::from_millis(10);
    let (server, address) = start_on(&Config { lease: Duration::from_secs(30), ..config.clone() }, &disk);
    let mut child = Client::connect(address);
    child
        .call_empty(Kind::Reclaim, RegionId(0), &Reclaim { holds: vec![(copy.region, 1)] })
        .expect("its hold");
    assert_eq!(fills(&mut child, copy.region, 2), [1, 1]);
    drop(child);
    assert!(server.stop());
    // The third time the lease is over before anybody else comes.
    let (server, address) = start_on(&config, &disk);
    let mut child = Client::connect(address);
    until("the end of both", || child.stat().regions == 0 && child.stat().stored_pages == 0);
    assert!(server.stop());
}

#[test]
fn a_copy_is_a_region_like_others_to_the_limit() {
    let (server, address) = server(&["--max-regions", "2"]);
    let (mut parent, memory) = process(address, 1);
    let copy = clone(&mut parent, memory.region);
    let (error, text) =
        parent.call::<_, Entry>(Kind::CloneUnnamed, memory.region, &()).expect_err("one too many");
    assert_eq!(error, ErrorCode::TooManyRegions);
    assert!(text.contains("--max-regions"), "{text}");
    parent.raw(Kind::Close, copy.region, 0, &[]).expect("its hold");
    clone(&mut parent, memory.region);
    assert!(server.stop());
}

/// What a process does that has its memory here: writes pages and drops them, and never says which epoch it looks at.
#[test]
fn a_stream_of_commits_without_a_view_takes_the_room_of_what_is_there() {
    let count = if std::env::var_os("NETMEM_TEST_LONG").is_some() { 100_000 } else { 2_000 };
    let server = Process::start(&[]);
    let (mut client, memory) = process(server.address(), 128);
    let (began, mut epoch, mut first) = (Instant::now(), 2, 0);
    for number in 1..=count {
        let at = number * 7 % 256;
        let pages = [(at, Some(page((number % 250) as u8 + 1))), ((at + 128) % 256, None)];
        epoch = client.commit(memory.region, epoch, &pages).expect("a commit").epoch.0;
        if number % 1000 == 0 {
            // The newest epoch's pages, and those that the one before it had others of.
            until("the end of older epochs", || client.stat().stored_pages <= 128 + 2);
            first = if first == 0 { resident(&server) } else { first };
        }
    }
    let (us, now) = (began.elapsed().as_micros() / u128::from(count), resident(&server));
    println!("{us} us a commit; {now} KiB, {first} after the first 1,000");
    assert!(now < first + 4096, "{now} KiB, {first} after the first 1,000");
    // All of it is dropped, with the room behind it in which nothing ever was.
    let size = 8000 * PAGE;
    let resized: Committed = client.call(Kind::Resize, memory.region, &Resize { size }).expect("a size");
    let last =
        client.commit(memory.region, resized.epoch.0, &[(7900, Some(page(5)))]).expect("a commit").epoch.0;
    let all: Vec<_> = (0..8000).map(|at| (at, None)).collect();
    let dropped = client.commit(memory.region, last, &all).expect("a commit").epoch.0;
    assert!(fills(&mut client, memory.region, 256).iter().all(|fill| *fill == 0));
    assert_eq!(client.fetch(memory.region, 0, &[Run::new(7900, 1)]).expect("a page").fills(), [0]);
    client.commit(memory.region, dropped, &[(0, None)]).expect("nothing more");
    client.view(memory.region, dropped).expect("the newest epoch");
    until("the end of all pages", || client.stat().stored_pages == 0);
}

/// KiB that a server has in memory.
fn resident(server: &Process) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.child.id())).expect("its status");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a line");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number")
}
