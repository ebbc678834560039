//! What a server tells of itself, against what was done to it.

mod common;

use std::os::unix::net::UnixStream;
use std::time::Duration;

use common::{Client, LIMIT, config, page, server, server_with, until};
use netmem_protocol::activity::{
    ACTIVITY_ROWS_MAX, CAPABILITY_ACTIVITY, ClientActivities, ClientActivity, ClientsAfter, Latencies,
    RegionActivities, RegionActivity, RegionsAfter, Served, ServerActivity,
};
use netmem_protocol::codec::HEADER_BYTES;
use netmem_protocol::hello::HELLO_BYTES;
use netmem_protocol::{
    CAPABILITY_PACKED, CAPABILITY_SUMS, CacheId, ClientHello, ClientId, FRAME_BODY_MAX, Header, Kind,
    RegionId, Run, ServerHello, decode_body,
};

fn whole(client: &mut Client) -> ServerActivity {
    let (_, body) = client.raw(Kind::ServerActivity, RegionId(0), 0, &[]).expect("an answer");
    let activity: ServerActivity = decode_body(&body, "activity").expect("activity");
    activity.check().expect("what can be");
    activity
}

fn regions(client: &mut Client, after: u64) -> RegionActivities {
    let after = RegionId(after);
    let part: RegionActivities =
        client.call(Kind::RegionActivity, RegionId(0), &RegionsAfter { after }).expect("an answer");
    part.check(after).expect("what can be");
    part
}

fn clients(client: &mut Client) -> Vec<ClientActivity> {
    let part: ClientActivities =
        client.call(Kind::ClientActivity, RegionId(0), &ClientsAfter { after: None }).expect("an answer");
    part.check(None).expect("what can be");
    assert!(!part.more);
    part.rows
}

fn sum(latencies: &Latencies) -> u64 {
    latencies.buckets.iter().map(|(_, count)| count).sum()
}

fn row(rows: &[ClientActivity], client: ClientId) -> ClientActivity {
    rows.iter().find(|row| row.client == client).expect("the client is there").clone()
}

#[test]
fn what_was_done_is_counted_for_the_server_the_region_and_the_client() {
    let (server, address) = server(&[]);
    let (mut worker, mut watcher) = (Client::connect(address), Client::connect(address));
    let (one, other) = (worker.open("d").region, worker.open("e").region);
    let committed = worker.commit(one, 1, &[(0, Some(page(7))), (1, None), (9, Some(page(9)))]);
    let epoch = committed.expect("a commit").epoch.0;
    worker.fetch(one, 0, &[Run::new(0, 10)]).expect("pages");
    worker.fetch(one, 0, &[Run::new(9, 1)]).expect("a page");
    worker.fetch(one, epoch + 5, &[Run::new(9, 1)]).expect_err("no such epoch");
    worker.fetch(other, 0, &[Run::new(0, 4)]).expect("zeros");
    // Answers are counted when they are on their way: before the next request of the same connection.
    worker.raw(Kind::Ping, RegionId(0), 0, &[]).expect("an answer");

    let served = Served { fetches: 4, pages_sent: 3, commits: 1, pages_committed: 3 };
    let activity = whole(&mut watcher);
    assert_eq!(activity.served, served);
    assert_eq!((activity.regions, activity.clients, activity.connections), (2, 2, 2));
    assert_eq!((sum(&activity.fetch_ns), sum(&activity.commit_ns)), (4, 1));
    assert!(activity.uptime_ns > 0 && activity.stored_pages == 2);

    let part = regions(&mut watcher, 0);
    let expected = |region, name: &str, pages: u64, served| RegionActivity {
        region,
        name: name.to_owned(),
        names: 1,
        size: pages * 4096,
        stored_pages: pages.min(2),
        holds: 1,
        served,
    };
    let first = Served { fetches: 3, ..served };
    let second = Served { fetches: 1, ..Served::default() };
    assert_eq!(part.rows, [expected(one, "d", 10, first), expected(other, "e", 0, second)]);
    assert!(!part.more);

    let rows = clients(&mut watcher);
    let mine = row(&rows, worker.client);
    assert_eq!((mine.served, mine.connections, mine.holds), (served, 1, 2));
    assert_eq!(mine.address, worker.stream.local_addr().expect("an address").to_string());
    // Three pages went out, two came in, and the frames around them are small.
    assert!((3 * 4096..3 * 4096 + 2048).contains(&mine.bytes_out), "{mine:?}");
    assert!((2 * 4096..2 * 4096 + 2048).contains(&mine.bytes_in), "{mine:?}");
    assert_eq!(row(&rows, watcher.client).served, Served::default());
    // Nothing was said since by anyone but the watcher, of whom the server knows more by now.
    let again = whole(&mut watcher);
    assert_eq!(again.served, served);
    assert!(again.bytes_in > activity.bytes_in && again.bytes_out > activity.bytes_out);
    assert!(again.bytes_out >= mine.bytes_out && again.uptime_ns > activity.uptime_ns);
    assert!(server.stop());
}

#[test]
fn requests_that_come_at_once_are_counted_one_by_one() {
    let (server, address) = server(&[]);
    let mut client = Client::connect(address);
    let region = client.open("a").region;
    client.commit(region, 1, &[(0, Some(page(1)))]).expect("a commit");
    let mut body = Vec::new();
    netmem_protocol::pages::encode_fetch(&[Run::new(0, 1), Run::new(7, 1)], &mut body);
    let headers: Vec<Header> = (0..50).map(|_| client.header(Kind::Fetch, region, 0)).collect();
    for header in &headers {
        client.send(*header, &body);
    }
    for header in headers {
        client.answer(header).expect("pages");
    }
    let activity = whole(&mut client);
    assert_eq!((activity.served.fetches, sum(&activity.fetch_ns)), (50, 50));
    assert_eq!(activity.served.pages_sent, 50);
    assert!(server.stop());
}

#[test]
fn many_regions_come_in_parts_in_the_order_of_their_numbers() {
    let (server, address) = server(&[]);
    let mut client = Client::connect(address);
    let count = 2 * ACTIVITY_ROWS_MAX + 3;
    for number in 0..count {
        client.open(&format!("r{number}"));
    }
    let (mut rows, mut more) = (Vec::<RegionActivity>::new(), true);
    let mut parts = 0;
    while more {
        let part = regions(&mut client, rows.last().map_or(0, |row| row.region.0));
        rows.extend(part.rows);
        more = part.more;
        parts += 1;
    }
    assert_eq!((rows.len(), parts), (count, 3));
    assert!(rows.windows(2).all(|pair| pair[0].region < pair[1].region));
    assert!(rows.iter().enumerate().all(|(at, row)| row.name == format!("r{at}")));
    assert!(server.stop());
}

#[test]
fn a_client_is_forgotten_with_its_lease_and_a_region_with_its_end() {
    let (server, address) =
        server_with(&netmem_server::config::Config { lease: Duration::from_millis(20), ..config(&[]) });
    let mut watcher = Client::connect(address);
    let gone = Client::connect(address);
    let (id, region) = (gone.client, watcher.open("a").region);
    drop(gone);
    until("the client is forgotten", || clients(&mut watcher).iter().all(|row| row.client != id));
    watcher.raw(Kind::Remove, RegionId(0), 0, b"\x01a\x00").expect("a name");
    assert_eq!(
        (regions(&mut watcher, 0).rows[0].name.as_str(), regions(&mut watcher, 0).rows[0].names),
        ("", 0)
    );
    watcher.raw(Kind::Close, region, 0, &[]).expect("a hold");
    assert_eq!(regions(&mut watcher, 0).rows, []);
    assert!(server.stop());
}

#[test]
fn a_client_on_a_unix_socket_is_told_by_its_process_and_user() {
    use std::io::{Read, Write};
    let place = tempfile::tempdir().expect("a directory");
    let path = place.path().join("socket");
    let (server, address) = server(&["--unix", path.to_str().expect("a path")]);
    let mut stream = UnixStream::connect(&path).expect("it listens");
    stream.set_read_timeout(Some(LIMIT)).expect("a timeout");
    let client = ClientId([9; 16]);
    let hello = ClientHello { capabilities: u64::MAX, ..ClientHello::new(client, CacheId([9; 16])) };
    stream.write_all(&hello.encode()).expect("a hello");
    let mut theirs = [0; HELLO_BYTES];
    stream.read_exact(&mut theirs).expect("the server's hello");
    // It answers the bits that both have.
    assert_eq!(
        ServerHello::decode(&theirs).expect("a hello").capabilities,
        CAPABILITY_ACTIVITY | CAPABILITY_SUMS | CAPABILITY_PACKED
    );
    // A ping's answer is behind the moment in which the server knows the client.
    let ping = Header {
        length: 0,
        kind: Kind::Ping as u16,
        flags: 0,
        request: netmem_protocol::RequestId(1),
        region: RegionId(0),
        epoch: netmem_protocol::Epoch(0),
    };
    stream.write_all(&ping.encode()).expect("it reads");
    let mut head = [0; HEADER_BYTES];
    stream.read_exact(&mut head).expect("an answer");
    assert_eq!(Header::decode(&head, FRAME_BODY_MAX).expect("a header").length, 0);
    let rows = clients(&mut Client::connect(address));
    let uid = nix::unistd::getuid();
    assert_eq!(row(&rows, client).address, format!("pid {} uid {uid}", std::process::id()));
    assert!(server.stop());
}
