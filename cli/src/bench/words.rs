//! What the figures mean: which part of a fault, a scan and a sync is whose.
//!
//! Owns: the arithmetic of shares and the sentences. Called by: bench. Must not: measure.

use serde::Serialize;

use crate::bench::{EngineFigures, WireFigures};
use crate::top::micros;

/// A round trip from here on is a network that could be nearer; below it, it is this machine's own wake-ups.
const FAR_US: f64 = 500.0;
/// A share from here on is what limits.
const MOST: f64 = 0.5;
/// What gets so much of the wire is limited by it.
const NEARLY_ALL: f64 = 0.7;

/// What limits something.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Limit {
    /// A fault, a scan, a sync.
    pub what: &'static str,
    /// Who has the largest part in it.
    pub by: &'static str,
    /// How large.
    pub percent: f64,
    /// In words.
    pub words: String,
}

fn limit(what: &'static str, by: &'static str, share: f64, words: String) -> Limit {
    Limit { what, by, percent: (share * 100.0).round(), words }
}

/// `p` per cent of something.
fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}

/// The same of what something else gives, which noise may make more than all.
fn of_it(share: f64) -> String {
    if share >= 0.995 { "all of it".to_owned() } else { format!("{} of it", percent(share)) }
}

fn of_fault(wire: &WireFigures, engine: &EngineFigures) -> Limit {
    let fault = engine.measured.fault.p50_us;
    let trip = (wire.round_trip.p50_us / fault).min(1.0);
    let page = ((wire.page.p50_us - wire.round_trip.p50_us) / fault).clamp(0.0, 1.0 - trip);
    let paging = 1.0 - trip - page;
    if trip >= MOST && wire.round_trip.p50_us >= FAR_US {
        let words = format!(
            "the round trip is {} of a fault: a nearer server, or prefetching (reading in order, madvise), is what helps",
            percent(trip)
        );
        return limit("fault", "round trip", trip, words);
    }
    if trip >= MOST {
        let words = format!(
            "the round trip is {} of a fault, and at {} it is mostly this machine and the server waking up: fewer faults help (prefetching)",
            percent(trip),
            micros(wire.round_trip.p50_us)
        );
        return limit("fault", "round trip", trip, words);
    }
    if page >= paging && page >= trip {
        let words =
            format!("moving the page's bytes is {} of a fault: a faster network helps", percent(page));
        return limit("fault", "bytes", page, words);
    }
    if paging >= trip {
        let better = match engine.engine.as_str() {
            "uffd" | "uffd-sigbus" => String::new(),
            _ => "; netmem doctor says what gives a better engine".to_owned(),
        };
        let words = format!(
            "catching the fault and putting the page in is {} of it, on this machine{better}",
            percent(paging)
        );
        return limit("fault", "this machine", paging, words);
    }
    let words = format!("the round trip is {} of a fault, the rest is on this machine", percent(trip));
    limit("fault", "round trip", trip, words)
}

fn of_scan(wire: &WireFigures, engine: &EngineFigures) -> Limit {
    let share = engine.scan_mb_s / wire.fetch_mb_s;
    let given = format!("the wire gives {}, the scan gets {}", rate(wire.fetch_mb_s), of_it(share));
    if share >= NEARLY_ALL {
        return limit("scan", "wire", share.min(1.0), format!("{given}: the wire is what limits"));
    }
    let trips = engine.measured.fault.p50_us * engine.pages as f64 / (engine.measured.scan_s * 1e6);
    let words = if wire.round_trip.p50_us >= FAR_US {
        format!(
            "{given}: it waits for round trips, {trips:.0} times less than without prefetching; more ahead helps (madvise WILLNEED, --prefetch)"
        )
    } else {
        format!("{given}: the rest is putting pages in, on this machine")
    };
    let by = if wire.round_trip.p50_us >= FAR_US { "round trip" } else { "this machine" };
    limit("scan", by, 1.0 - share, words)
}

fn of_sync(wire: &WireFigures, engine: &EngineFigures) -> [Limit; 2] {
    let one = engine.measured.sync_page.p50_us;
    let trip = (wire.round_trip.p50_us / one).min(1.0);
    let by = if trip >= MOST { "round trip" } else { "this machine" };
    let helps = if trip >= MOST {
        "fewer and larger syncs help"
    } else {
        "the rest is looking for what changed, and the commit"
    };
    let words = format!("the round trip is {} of a sync of one page: {helps}", percent(trip));
    let page = limit("sync of one page", by, if trip >= MOST { trip } else { 1.0 - trip }, words);
    let share = engine.sync_mb_s / wire.commit_mb_s;
    let given =
        format!("the wire takes {} and a commit, msync gets {}", rate(wire.commit_mb_s), of_it(share));
    let all = if share >= NEARLY_ALL {
        limit("sync", "wire", share.min(1.0), format!("{given}: the wire and the server are what limits"))
    } else {
        limit(
            "sync",
            "this machine",
            1.0 - share,
            format!("{given}: the rest is finding and copying what changed, on this machine"),
        )
    };
    [page, all]
}

/// What limits an engine here.
pub fn limits(wire: &WireFigures, engine: &EngineFigures) -> Vec<Limit> {
    let mut all = vec![of_fault(wire, engine), of_scan(wire, engine)];
    all.extend(of_sync(wire, engine));
    all
}

/// `940 MB/s`, `2.5 GB/s`.
pub fn rate(mb_s: f64) -> String {
    match mb_s {
        mb_s if mb_s >= 1000.0 => format!("{:.1} GB/s", mb_s / 1000.0),
        mb_s if mb_s >= 10.0 => format!("{mb_s:.0} MB/s"),
        mb_s => format!("{mb_s:.1} MB/s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::Spread;
    use crate::bench::worker::Measured;

    fn spread(p50_us: f64) -> Spread {
        Spread { count: 100, p50_us, p99_us: 2.0 * p50_us }
    }

    fn wire(trip: f64, page: f64) -> WireFigures {
        WireFigures {
            round_trip: spread(trip),
            page: spread(page),
            fetch_mb_s: 2500.0,
            commit_mb_s: 1000.0,
            server: None,
        }
    }

    fn engine(fault: f64, scan_mb_s: f64) -> EngineFigures {
        let bytes = 64e6;
        let measured = Measured {
            fault: spread(fault),
            scan_s: bytes / 1e6 / scan_mb_s,
            sync_page: spread(50.0),
            sync_s: 0.1,
        };
        EngineFigures {
            engine: "uffd".to_owned(),
            measured,
            pages: 15_625,
            scan_mb_s,
            sync_mb_s: 900.0,
            limits: Vec::new(),
        }
    }

    fn told(wire: &WireFigures, engine: &EngineFigures, what: &str) -> Limit {
        limits(wire, engine).into_iter().find(|limit| limit.what == what).expect("each is told")
    }

    #[test]
    fn a_far_server_is_what_limits_a_fault() {
        let fault = told(&wire(850.0, 860.0), &engine(1000.0, 2000.0), "fault");
        assert_eq!((fault.by, fault.percent), ("round trip", 85.0));
        assert!(
            fault.words.starts_with("the round trip is 85 % of a fault: a nearer server"),
            "{}",
            fault.words
        );
        let near = told(&wire(14.0, 16.0), &engine(26.0, 2000.0), "fault");
        assert_eq!(near.by, "round trip");
        assert!(!near.words.contains("nearer server") && near.words.contains("54 %"), "{}", near.words);
    }

    #[test]
    fn bytes_or_this_machine_limit_a_fault_where_they_are_most_of_it() {
        let bytes = told(&wire(10.0, 80.0), &engine(100.0, 2000.0), "fault");
        assert_eq!((bytes.by, bytes.percent), ("bytes", 70.0));
        let here = told(&wire(10.0, 12.0), &engine(100.0, 2000.0), "fault");
        assert_eq!((here.by, here.percent), ("this machine", 88.0));
        assert!(!here.words.contains("doctor"), "the best engine is there already: {}", here.words);
        let lower = EngineFigures { engine: "sigsegv-guard".to_owned(), ..engine(100.0, 2000.0) };
        assert!(told(&wire(10.0, 12.0), &lower, "fault").words.contains("netmem doctor"));
        // Noise: the page came faster than the ping, a fault faster than both.
        let odd = told(&wire(30.0, 20.0), &engine(25.0, 2000.0), "fault");
        assert_eq!((odd.by, odd.percent), ("round trip", 100.0));
    }

    #[test]
    fn a_scan_gets_a_part_of_the_wire() {
        let most = told(&wire(14.0, 16.0), &engine(26.0, 2000.0), "scan");
        assert_eq!((most.by, most.percent), ("wire", 80.0));
        assert!(
            most.words.starts_with("the wire gives 2.5 GB/s, the scan gets 80 % of it"),
            "{}",
            most.words
        );
        assert_eq!(told(&wire(14.0, 16.0), &engine(26.0, 500.0), "scan").by, "this machine");
        assert_eq!(told(&wire(4000.0, 4000.0), &engine(4100.0, 50.0), "scan").by, "round trip");
    }

    #[test]
    fn a_sync_is_a_round_trip_and_what_is_found_here() {
        let near = told(&wire(14.0, 16.0), &engine(26.0, 2000.0), "sync of one page");
        assert_eq!((near.by, near.percent), ("this machine", 72.0));
        let far = told(&wire(40.0, 41.0), &engine(50.0, 2000.0), "sync of one page");
        assert_eq!((far.by, far.percent), ("round trip", 80.0));
        assert_eq!(told(&wire(14.0, 16.0), &engine(26.0, 2000.0), "sync").by, "wire");
        assert_eq!([9.5, 940.4, 2500.0].map(rate), ["9.5 MB/s", "940 MB/s", "2.5 GB/s"]);
    }
}
