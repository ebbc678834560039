//! Intervals between snapshots that are written down here.

use netmem_protocol::activity::{ClientActivity, Latencies, RegionActivity, ServerActivity};
use netmem_protocol::{ClientId, RegionId, StoreId};

use super::*;

/// A server after so many seconds, with two regions and a client, that has served `fetches` fetches of two pages.
pub fn snapshot(seconds: u64, fetches: u64) -> Snapshot {
    let served = Served { fetches, pages_sent: 2 * fetches, commits: 1, pages_committed: 10 };
    let region = |number, name: &str, served| RegionActivity {
        region: RegionId(number),
        name: name.to_owned(),
        names: u32::from(!name.is_empty()),
        size: 8192,
        stored_pages: 2,
        holds: 1,
        served,
    };
    let client = ClientActivity {
        client: ClientId([7; 16]),
        address: "10.0.0.9:4711".to_owned(),
        connections: 2,
        holds: 3,
        since_s: seconds,
        served,
        bytes_in: 100 * fetches,
        bytes_out: 8300 * fetches,
    };
    Snapshot {
        store: StoreId([1; 16]),
        server: ServerActivity {
            uptime_ns: seconds * 1_000_000_000,
            regions: 2,
            clients: 1,
            connections: 2,
            stored_pages: 4,
            pages_max: 1024,
            served,
            bytes_in: 100 * fetches,
            bytes_out: 8300 * fetches,
            fetch_ns: Latencies { buckets: vec![(40, fetches)] },
            commit_ns: Latencies::default(),
        },
        regions: vec![region(1, "a/b", served), region(5, "", Served::default())],
        clients: vec![client],
        more_regions: false,
        more_clients: false,
    }
}

#[test]
fn an_interval_is_what_came_between_divided_by_the_servers_seconds() {
    let interval = Interval::between(&snapshot(10, 100), &snapshot(12, 300)).expect("one server");
    assert_eq!((interval.seconds, interval.uptime_s), (2.0, 12.0));
    let rates = Rates { fetches: 100.0, pages_out: 200.0, commits: 0.0, pages_in: 0.0 };
    assert_eq!(interval.rates, rates);
    assert_eq!((interval.bytes_in, interval.bytes_out), (10_000.0, 830_000.0));
    assert_eq!(interval.memory, (4 * 4096, 1024 * 4096));
    assert_eq!(interval.fetch, Some(Percentiles { count: 200, p50_us: 0.040, p99_us: 0.040 }));
    assert_eq!(interval.commit, None);
    assert_eq!((interval.regions[0].name.as_str(), interval.regions[0].rates), ("a/b", rates));
    assert_eq!((interval.regions[1].name.as_str(), interval.regions[1].rates), ("#5", Rates::default()));
    assert_eq!((interval.clients[0].rates, interval.clients[0].bytes_out), (rates, 830_000.0));
}

#[test]
fn a_server_that_was_started_anew_begins_again() {
    assert_eq!(Interval::between(&snapshot(12, 300), &snapshot(1, 5)), None);
    let other = Snapshot { store: StoreId([2; 16]), ..snapshot(20, 500) };
    assert_eq!(Interval::between(&snapshot(12, 300), &other), None);
}

#[test]
fn a_row_that_is_new_counted_from_nothing_and_one_that_was_left_out_is_not_guessed_at() {
    let mut before = snapshot(10, 100);
    before.regions.clear();
    let new = Interval::between(&before, &snapshot(11, 100)).expect("one server");
    assert_eq!(new.regions[0].rates.fetches, 100.0);
    before.regions = vec![RegionActivity { region: RegionId(0), ..snapshot(1, 1).regions[0].clone() }];
    before.more_regions = true;
    let unknown = Interval::between(&before, &snapshot(11, 100)).expect("one server");
    assert_eq!(unknown.regions[0].rates.fetches, 0.0);
}

#[test]
fn a_server_that_counts_back_or_stops_its_clock_gives_no_wild_numbers() {
    let interval = Interval::between(&snapshot(10, 300), &snapshot(10, 100)).expect("one server");
    assert_eq!((interval.rates, interval.fetch), (Rates::default(), None));
    let text = interval.json("tcp://h:1").to_string();
    assert!(text.contains("\"fetch\":null") && !text.contains("inf"), "{text}");
}
