//! Commits and fetches, seen from outside.

mod common;

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::{Client, LIMIT, Process, code, commit_body, config, page, server, server_with, unique, until};
use netmem_protocol::control::{Commit, CommitStatus, Committed, Create, CreateUnnamed, Entry, Resize};
use netmem_protocol::{
    CommitId, Epoch, ErrorCode, Header, Kind, PAGE_SIZE, PageBodyBuilder, RegionId, Run, RunKind,
};

const PAGE: u64 = PAGE_SIZE as u64;

#[test]
fn a_page_that_was_committed_is_fetched_and_listed_as_changed() {
    let process = Process::start(&[]);
    let mut client = Client::connect(process.address());
    let entry = client.open("a");
    assert!(entry.created);
    assert_eq!((entry.epoch.0, entry.size, entry.mode), (1, 0, 0o644));
    let committed =
        client.commit(entry.region, 1, &[(0, Some(page(7))), (3, Some(page(9)))]).expect("a commit");
    assert_eq!(committed, Committed { epoch: Epoch(2), previous: Epoch(1), size: 4 * PAGE });
    let fetched = client.fetch(entry.region, 0, &[Run::new(0, 5)]).expect("pages");
    assert_eq!(fetched.epoch, 2);
    assert_eq!(fetched.fills(), [7, 0, 0, 9, 0]);
    let changes = client.changes(entry.region, 1).expect("changes");
    assert_eq!(changes.runs, [Run::new(0, 1), Run::new(3, 1)]);
    assert!(changes.base_kept);
}

#[test]
fn a_commit_is_atomic_to_concurrent_readers() {
    let (server, address) = server(&[]);
    let mut writer = Client::connect(address);
    let region = writer.open("a").region;
    let end = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let mut reader = Client::connect(address);
                reader.try_open("a", Create::Never).expect("there");
                let mut newest = 0;
                while !end.load(Ordering::Relaxed) {
                    let runs = [Run::new(0, 100), Run::new(5000, 60)];
                    let fetched = reader.fetch(region, 0, &runs).expect("pages");
                    assert!(fetched.epoch >= newest, "epochs only grow");
                    newest = fetched.epoch;
                    let fills = fetched.fills();
                    assert!(fills.iter().all(|fill| *fill == (newest - 1) as u8), "a mix at epoch {newest}");
                }
            });
        }
        let mut epoch = 1;
        for _ in 0..100 {
            let fill = epoch as u8;
            let pages: Vec<_> = (0..100).chain(5000..5060).map(|at| (at, Some(page(fill)))).collect();
            epoch = writer.commit(region, epoch, &pages).expect("a commit").epoch.0;
        }
        end.store(true, Ordering::Relaxed);
    });
    assert!(server.stop());
}

#[test]
fn changes_are_told_until_an_epoch_that_is_kept() {
    let (server, address) = server(&[]);
    let (mut writer, mut reader) = (Client::connect(address), Client::connect(address));
    let region = writer.open("a").region;
    for at in 0..3 {
        writer.commit(region, at + 1, &[(at, Some(page(1)))]).expect("a commit");
    }
    reader.open("a");
    // What was the newest when it was asked for is kept, whatever comes.
    assert_eq!(reader.changes(region, 2).expect("changes").epoch.0, 4);
    for at in 3..6 {
        writer.commit(region, at + 1, &[(at, Some(page(1)))]).expect("a commit");
    }
    let changes = reader.changes_until(region, 2, 4).expect("changes until a kept epoch");
    assert_eq!((changes.epoch.0, changes.size, changes.runs), (4, 3 * 4096, vec![Run::new(1, 2)]));
    assert_eq!(code(reader.changes_until(region, 2, 5)), ErrorCode::Stale);
    assert_eq!(code(reader.changes_until(region, 6, 4)), ErrorCode::Stale);
    assert!(server.stop());
}

#[test]
fn an_old_epoch_is_fetched_while_it_is_viewed_and_stale_afterwards() {
    let (server, address) = server(&[]);
    let (mut writer, mut reader) = (Client::connect(address), Client::connect(address));
    let region = writer.open("a").region;
    writer.commit(region, 1, &[(0, Some(page(1)))]).expect("a commit");
    assert_eq!(reader.open("a").epoch.0, 2);
    for epoch in 2..5 {
        writer.commit(region, epoch, &[(0, Some(page(epoch as u8)))]).expect("a commit");
    }
    let run = [Run::new(0, 1)];
    assert_eq!(reader.fetch(region, 2, &run).expect("viewed").fills(), [1]);
    assert_eq!(writer.fetch(region, 2, &run).expect("kept for the other").fills(), [1]);
    assert_eq!(code(reader.fetch(region, 3, &run)), ErrorCode::Stale);
    assert_eq!(code(reader.fetch(region, 99, &run)), ErrorCode::Stale);
    assert_eq!(reader.fetch(region, 4, &run).expect("the base of the writer's commit").fills(), [3]);
    let changes = reader.changes(region, 2).expect("changes");
    assert_eq!((changes.epoch.0, changes.base_kept), (5, true));
    assert_eq!(reader.fetch(region, 2, &run).expect("kept until the view moves").fills(), [1]);
    reader.view(region, 5).expect("moved");
    assert_eq!(code(reader.fetch(region, 2, &run)), ErrorCode::Stale);
    let changes = reader.changes(region, 2).expect("changes since an epoch that is gone");
    assert_eq!((changes.runs, changes.base_kept), (vec![Run::new(0, 1)], false));
    assert_eq!(code(reader.changes(region, 6)), ErrorCode::Stale);
    assert_eq!(code(reader.view(region, 6)), ErrorCode::Stale);
    assert!(server.stop());
}

#[test]
fn what_was_staged_and_not_committed_ends_with_the_connection() {
    let (server, address) = server(&[]);
    let mut watcher = Client::connect(address);
    let region = watcher.open("a").region;
    let mut client = Client::connect(address);
    let commit = unique();
    client.stage(region, commit, &[(0, Some(page(1))), (1, Some(page(2)))]);
    client.raw(Kind::Ping, RegionId(0), 0, &[]).expect("the stages were taken in");
    assert_eq!(watcher.stat().stored_pages, 2);
    let (id, cache) = (client.client, client.cache);
    drop(client);
    until("the end of the connection", || watcher.stat().stored_pages == 0);
    let mut again = Client::as_one(address, id, cache);
    let status = CommitStatus { commit: CommitId(commit) };
    assert_eq!(code(again.call::<_, Committed>(Kind::CommitStatus, region, &status)), ErrorCode::NotFound);
    assert_eq!(code(again.finish(region, &commit_body(commit, 2, 1))), ErrorCode::Malformed);
    assert_eq!(watcher.fetch(region, 0, &[Run::new(0, 2)]).expect("pages").epoch, 1);
    assert!(server.stop());
}

#[test]
fn a_stage_that_comes_in_pieces_is_whole_and_one_that_ends_halfway_gives_its_pages_back() {
    let (server, address) = server(&[]);
    let mut client = Client::connect(address);
    client.stream.set_nodelay(true).expect("small segments");
    let mut watcher = Client::connect(address);
    let region = client.open("a").region;
    let mut builder = PageBodyBuilder::default();
    let mut data = Vec::new();
    for at in 0..200 {
        builder.push(at * 2, RunKind::Data);
        data.extend_from_slice(&page(at as u8 + 1));
    }
    for (round, cut) in [1, 30, 64, 3000, 16 << 10, 100_000, 700_000].into_iter().enumerate() {
        let commit = unique();
        let mut body = Vec::new();
        builder.encode_front(CommitId(commit), &mut body);
        body.extend_from_slice(&data);
        let header = client.header(Kind::Stage, region, 0);
        let mut frame = Header { length: body.len() as u32, ..header }.encode().to_vec();
        frame.extend_from_slice(&body);
        let mut halfway = Client::connect(address);
        halfway.stream.write_all(&frame[..cut]).expect("the server reads");
        let (first, rest) = frame.split_at(cut);
        client.stream.write_all(first).expect("the server reads");
        // What was sent before is taken in, piece by piece, while this waits for its answer.
        drop(halfway);
        until("the end of the other connection", || watcher.stat().connections == 2);
        for piece in rest.chunks(50_021) {
            client.stream.write_all(piece).expect("the server reads");
        }
        client.finish(region, &commit_body(commit, 200, 1 + round as u64)).expect("a commit");
        let runs: Vec<Run> = (0..200).map(|at| Run::new(at * 2, 1)).collect();
        let fills = client.fetch(region, 2 + round as u64, &runs).expect("pages").fills();
        assert_eq!(fills, (1..=200).collect::<Vec<u8>>());
        client.view(region, 2 + round as u64).expect("moved");
        until("the end of what was before", || client.stat().stored_pages == 200);
    }
    assert!(server.stop());
}

#[test]
fn a_commit_that_is_sent_again_is_applied_once() {
    let (server, address) = server(&[]);
    let mut client = Client::connect(address);
    let region = client.open("a").region;
    let commit = unique();
    client.stage(region, commit, &[(0, Some(page(1)))]);
    let body = commit_body(commit, 1, 1);
    let first = client.finish(region, &body).expect("a commit");
    let mut other = Client::connect(address);
    other.commit(region, 2, &[(0, Some(page(2)))]).expect("another's");
    let mut again = Client::as_one(address, client.client, client.cache);
    again.stage(region, commit, &[(0, Some(page(1)))]);
    assert_eq!(again.finish(region, &body), Ok(first));
    assert_eq!(again.finish(region, &body), Ok(first), "even without its stages");
    let status = CommitStatus { commit: CommitId(commit) };
    assert_eq!(again.call(Kind::CommitStatus, region, &status), Ok(first));
    assert_eq!(again.fetch(region, 0, &[Run::new(0, 1)]).expect("pages").fills(), [2]);
    assert_eq!(again.stat().commits, 2);
    assert!(server.stop());
}

#[test]
fn zero_pages_are_neither_stored_nor_sent() {
    let (server, address) = server(&[]);
    let mut client = Client::connect(address);
    let region = client.open("a").region;
    let pages = [(0, Some(page(0))), (1, None), (2, Some(page(5))), (3, Some(page(0)))];
    client.commit(region, 1, &pages).expect("a commit");
    let stat = client.stat();
    assert_eq!((stat.stored_pages, stat.pages_committed, stat.pages_sent), (1, 4, 0));
    let fetched = client.fetch(region, 0, &[Run::new(0, 256)]).expect("pages");
    assert_eq!(fetched.bytes, 16 + 3 * 16 + PAGE_SIZE, "a head, three runs, one page");
    assert_eq!(client.stat().pages_sent, 1);
    client.commit(region, 2, &[(2, None)]).expect("a hole");
    assert_eq!(client.fetch(region, 0, &[Run::new(2, 1)]).expect("pages").fills(), [0]);
    client.view(region, 3).expect("moved");
    until("the old page's end", || client.stat().stored_pages == 0);
    assert_eq!(client.changes(region, 2).expect("changes").runs, [Run::new(2, 1)]);
    assert!(server.stop());
}

#[test]
fn a_full_store_says_so_changes_nothing_and_goes_on() {
    let (server, address) = server(&["--max-memory", "64K"]);
    let mut client = Client::connect(address);
    let region = client.open("a").region;
    let many: Vec<_> = (0..16).map(|at| (at, Some(page(1)))).collect();
    client.commit(region, 1, &many[..12]).expect("12 of 16");
    let (error, text) = client.commit(region, 2, &many).expect_err("12 and 16 are more than 16");
    assert_eq!(error, ErrorCode::Full);
    assert!(text.contains("--max-memory"), "{text}");
    assert_eq!(client.stat().stored_pages, 12, "nothing of it stayed");
    assert_eq!(client.fetch(region, 0, &[Run::new(0, 1)]).expect("pages").epoch, 2);
    client.commit(region, 2, &[(0, Some(page(2)))]).expect("there is room for one");
    let shrunk: Committed = client.call(Kind::Resize, region, &Resize { size: 0 }).expect("smaller");
    assert_eq!((shrunk.epoch.0, shrunk.size), (4, 0));
    client.commit(region, 4, &many).expect("views of old epochs are given up for it");
    assert_eq!(code(client.fetch(region, 3, &[Run::new(0, 1)])), ErrorCode::Stale);
    assert_eq!(client.fetch(region, 5, &[Run::new(0, 16)]).expect("pages").fills(), [1; 16]);
    assert!(server.stop());
}

#[test]
fn a_region_cannot_be_larger_than_the_server_allows() {
    let (server, address) = server(&["--max-region", "1M"]);
    let mut client = Client::connect(address);
    assert_eq!(client.hello.region_bytes_max, 1 << 20);
    let region = client.open("a").region;
    for answer in [
        client.commit(region, 1, &[(256, Some(page(1)))]),
        client.call(Kind::Resize, region, &Resize { size: (1 << 20) + 1 }),
        client.finish(region, &Commit { size: Some(1 << 21), ..commit_body(unique(), 0, 1) }),
        client
            .call::<_, Entry>(Kind::CreateUnnamed, RegionId(0), &CreateUnnamed { size: 1 << 21 })
            .map(|_| Committed { epoch: Epoch(0), previous: Epoch(0), size: 0 }),
    ] {
        let (error, text) = answer.expect_err("too large");
        assert_eq!(error, ErrorCode::TooLarge);
        assert!(text.contains("--max-region"), "{text}");
    }
    assert!(client.commit(region, 1, &[(255, Some(page(1)))]).is_ok());
    assert!(client.call::<_, Committed>(Kind::Resize, region, &Resize { size: 1 << 20 }).is_ok());
    assert!(server.stop());
}

#[test]
fn a_lost_stage_is_malformed_and_never_half_a_commit() {
    let (server, address) = server(&[]);
    let mut client = Client::connect(address);
    let region = client.open("a").region;
    let commit = unique();
    client.stage(region, commit, &[(0, Some(page(1)))]);
    assert_eq!(code(client.finish(region, &commit_body(commit, 2, 1))), ErrorCode::Malformed);
    assert_eq!(client.fetch(region, 0, &[Run::new(0, 1)]).expect("pages").epoch, 1);
    assert_eq!(client.stat().stored_pages, 0);
    let unknown = RegionId(77);
    let commit = unique();
    client.stage(unknown, commit, &[(0, Some(page(1)))]);
    assert_eq!(code(client.finish(unknown, &commit_body(commit, 1, 1))), ErrorCode::NotFound);
    assert!(server.stop());
}

#[test]
fn an_unnamed_region_ends_with_its_last_holder_and_its_lease() {
    let mut config = config(&[]);
    config.lease = Duration::ZERO;
    let (server, address) = server_with(&config);
    let mut watcher = Client::connect(address);
    let mut client = Client::connect(address);
    let entry: Entry =
        client.call(Kind::CreateUnnamed, RegionId(0), &CreateUnnamed { size: 3 * PAGE }).expect("a region");
    assert_eq!(entry.size, 3 * PAGE);
    client.commit(entry.region, 1, &[(1, Some(page(1)))]).expect("a commit");
    watcher.raw(Kind::OpenId, entry.region, 0, &[]).expect("by number");
    drop(client);
    until("the end of the connection", || watcher.stat().connections == 1);
    assert_eq!(watcher.fetch(entry.region, 0, &[Run::new(1, 1)]).expect("held").fills(), [1]);
    watcher.raw(Kind::Close, entry.region, 0, &[]).expect("held");
    // The first holder's lease may still have a moment to go.
    until("the region's end", || watcher.stat().regions == 0 && watcher.stat().stored_pages == 0);
    assert_eq!(code(watcher.fetch(entry.region, 0, &[Run::new(1, 1)])), ErrorCode::NotFound);
    assert!(server.stop());
}

#[test]
fn readers_do_not_wait_for_a_large_commit() {
    let (server, address) = server(&[]);
    let mut writer = Client::connect(address);
    let region = writer.open("a").region;
    writer.commit(region, 1, &[(0, Some(page(1)))]).expect("a commit");
    let commit = unique();
    let zeros: Vec<_> = (1..50_000u64).map(|at| (at, Some(page(1 + (at % 100) as u8)))).collect();
    writer.stage(region, commit, &zeros);
    let mut frame = Vec::new();
    let header = writer.header(Kind::Commit, region, 0);
    netmem_protocol::encode_frame(header, &commit_body(commit, zeros.len() as u64, 2), &mut frame)
        .expect("a frame");
    std::io::Write::write_all(&mut writer.stream, &frame).expect("sent");
    let mut reader = Client::connect(address);
    let start = Instant::now();
    loop {
        let fetched = reader.fetch(region, 0, &[Run::new(0, 1), Run::new(49_999, 1)]).expect("pages");
        match fetched.epoch {
            2 => assert_eq!(fetched.fills(), [1, 0]),
            _ => break assert_eq!(fetched.fills(), [1, 100]),
        }
        assert!(start.elapsed() < LIMIT);
    }
    writer.answer(header).expect("committed");
    assert!(server.stop());
}
