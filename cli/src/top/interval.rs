//! Two snapshots of a server, and what happened between them.
//!
//! Owns: rates, percentiles of an interval, and the rows of regions and clients. Called by: top. Must not: talk to a server or a terminal.

use std::collections::HashMap;
use std::hash::Hash;

use netmem_protocol::PAGE_SIZE;
use netmem_protocol::activity::{ClientActivity, RegionActivity, Served};
use serde_json::{Value, json};

use crate::activity::{Percentiles, Snapshot, percentiles};

/// The shortest time between two snapshots that is divided by.
const SECONDS_MIN: f64 = 0.001;

/// Of what was served, how much a second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rates {
    /// Fetch requests.
    pub fetches: f64,
    /// Pages sent.
    pub pages_out: f64,
    /// Commits.
    pub commits: f64,
    /// Pages committed.
    pub pages_in: f64,
}

/// A region.
#[derive(Clone, Debug, PartialEq)]
pub struct RegionRow {
    /// Its first name, or `#` and its number.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// Bytes of pages that are stored.
    pub stored: u64,
    /// Holds.
    pub holds: u64,
    /// What was served of it in the interval.
    pub rates: Rates,
    /// What was served of it in all.
    pub served: Served,
}

/// A client.
#[derive(Clone, Debug, PartialEq)]
pub struct ClientRow {
    /// Its id.
    pub id: String,
    /// Where it is.
    pub address: String,
    /// Connections.
    pub connections: u64,
    /// Holds.
    pub holds: u64,
    /// Seconds since its first connection.
    pub since_s: u64,
    /// What it was served in the interval.
    pub rates: Rates,
    /// Bytes received from it a second.
    pub bytes_in: f64,
    /// Bytes sent to it a second.
    pub bytes_out: f64,
    /// What it was served in all.
    pub served: Served,
    /// Bytes received and sent in all.
    pub bytes: (u64, u64),
}

/// What a server did for a while.
#[derive(Clone, Debug, PartialEq)]
pub struct Interval {
    /// How long, by the server's clock.
    pub seconds: f64,
    /// Seconds since its start.
    pub uptime_s: f64,
    /// Bytes of pages in the store, and its limit.
    pub memory: (u64, u64),
    /// Regions, clients and connections at its end.
    pub counts: (u64, u64, u64),
    /// What was served in it.
    pub rates: Rates,
    /// Bytes received a second.
    pub bytes_in: f64,
    /// Bytes sent a second.
    pub bytes_out: f64,
    /// How long fetches took in it.
    pub fetch: Option<Percentiles>,
    /// How long commits took in it.
    pub commit: Option<Percentiles>,
    /// What was served in all.
    pub served: Served,
    /// The regions.
    pub regions: Vec<RegionRow>,
    /// The clients.
    pub clients: Vec<ClientRow>,
    /// Whether regions, or clients, are left out.
    pub left_out: (bool, bool),
}

/// What was counted between two readings, a second. A server that counts back did nothing.
fn rate(before: u64, now: u64, seconds: f64) -> f64 {
    now.saturating_sub(before) as f64 / seconds
}

fn rates(before: &Served, now: &Served, seconds: f64) -> Rates {
    Rates {
        fetches: rate(before.fetches, now.fetches, seconds),
        pages_out: rate(before.pages_sent, now.pages_sent, seconds),
        commits: rate(before.commits, now.commits, seconds),
        pages_in: rate(before.pages_committed, now.pages_committed, seconds),
    }
}

fn pages_bytes(pages: u64) -> u64 {
    pages.saturating_mul(PAGE_SIZE as u64)
}

/// The rows of an earlier snapshot, to find what a row was then.
struct Earlier<'a, K, T> {
    rows: HashMap<K, &'a T>,
    /// The last of them, if there were more.
    last: Option<K>,
}

impl<'a, K: Eq + Hash + Ord + Copy, T> Earlier<'a, K, T> {
    fn new(rows: &'a [T], more: bool, key: impl Fn(&'a T) -> K) -> Self {
        let last = rows.last().map(&key).filter(|_| more);
        Earlier { rows: rows.iter().map(|row| (key(row), row)).collect(), last }
    }

    /// What the row's counters were. One that was not there counted from nothing, unless it was left out: then nothing is known of what
    /// it did.
    fn find<V: Default>(&self, key: K, counters: impl Fn(&T) -> V, now: &T) -> V {
        match self.rows.get(&key) {
            Some(row) => counters(row),
            None if self.last.is_some_and(|last| key > last) => counters(now),
            None => V::default(),
        }
    }
}

fn region_rows(before: &Snapshot, now: &Snapshot, seconds: f64) -> Vec<RegionRow> {
    let earlier = Earlier::new(&before.regions, before.more_regions, |row| row.region);
    let row = |row: &RegionActivity| {
        let then = earlier.find(row.region, |row| row.served, row);
        RegionRow {
            name: if row.name.is_empty() { format!("#{}", row.region) } else { row.name.clone() },
            size: row.size,
            stored: pages_bytes(row.stored_pages),
            holds: row.holds,
            rates: rates(&then, &row.served, seconds),
            served: row.served,
        }
    };
    now.regions.iter().map(row).collect()
}

fn client_rows(before: &Snapshot, now: &Snapshot, seconds: f64) -> Vec<ClientRow> {
    let earlier = Earlier::new(&before.clients, before.more_clients, |row| row.client);
    let row = |row: &ClientActivity| {
        let counters = |row: &ClientActivity| (row.served, row.bytes_in, row.bytes_out);
        let (served, bytes_in, bytes_out) = earlier.find(row.client, counters, row);
        ClientRow {
            id: row.client.to_string(),
            address: row.address.clone(),
            connections: row.connections,
            holds: row.holds,
            since_s: row.since_s,
            rates: rates(&served, &row.served, seconds),
            bytes_in: rate(bytes_in, row.bytes_in, seconds),
            bytes_out: rate(bytes_out, row.bytes_out, seconds),
            served: row.served,
            bytes: (row.bytes_in, row.bytes_out),
        }
    };
    now.clients.iter().map(row).collect()
}

impl Interval {
    /// What happened between two snapshots; `None` if the server was started anew in between.
    pub fn between(before: &Snapshot, now: &Snapshot) -> Option<Interval> {
        let elapsed_ns = now.server.uptime_ns.checked_sub(before.server.uptime_ns)?;
        if before.store != now.store {
            return None;
        }
        let seconds = (elapsed_ns as f64 / 1e9).max(SECONDS_MIN);
        let (then, server) = (&before.server, &now.server);
        Some(Interval {
            seconds,
            uptime_s: server.uptime_ns as f64 / 1e9,
            memory: (pages_bytes(server.stored_pages), pages_bytes(server.pages_max)),
            counts: (server.regions, server.clients, server.connections),
            rates: rates(&then.served, &server.served, seconds),
            bytes_in: rate(then.bytes_in, server.bytes_in, seconds),
            bytes_out: rate(then.bytes_out, server.bytes_out, seconds),
            fetch: percentiles(&then.fetch_ns, &server.fetch_ns),
            commit: percentiles(&then.commit_ns, &server.commit_ns),
            served: server.served,
            regions: region_rows(before, now, seconds),
            clients: client_rows(before, now, seconds),
            left_out: (now.more_regions, now.more_clients),
        })
    }

    /// The interval as one object, for programs.
    pub fn json(&self, server: &str) -> Value {
        let latency = |percentiles: &Option<Percentiles>| match percentiles {
            Some(found) => json!({ "count": found.count, "p50_us": found.p50_us, "p99_us": found.p99_us }),
            None => Value::Null,
        };
        let (regions, clients, connections) = self.counts;
        json!({
            "server": server,
            "uptime_s": self.uptime_s,
            "interval_s": self.seconds,
            "memory": { "used_bytes": self.memory.0, "limit_bytes": self.memory.1 },
            "regions": regions,
            "clients": clients,
            "connections": connections,
            "per_second": per_second(&self.rates, Some((self.bytes_in, self.bytes_out))),
            "total": self.served,
            "fetch": latency(&self.fetch),
            "commit": latency(&self.commit),
            "region_list": self.regions.iter().map(|row| json!({
                "name": row.name,
                "size_bytes": row.size,
                "stored_bytes": row.stored,
                "holds": row.holds,
                "per_second": per_second(&row.rates, None),
                "total": row.served,
            })).collect::<Vec<_>>(),
            "client_list": self.clients.iter().map(|row| json!({
                "id": row.id,
                "address": row.address,
                "connections": row.connections,
                "holds": row.holds,
                "since_s": row.since_s,
                "per_second": per_second(&row.rates, Some((row.bytes_in, row.bytes_out))),
                "total": row.served,
                "bytes_in": row.bytes.0,
                "bytes_out": row.bytes.1,
            })).collect::<Vec<_>>(),
            "regions_left_out": self.left_out.0,
            "clients_left_out": self.left_out.1,
        })
    }
}

fn per_second(rates: &Rates, bytes: Option<(f64, f64)>) -> Value {
    let mut value = json!({
        "fetches": rates.fetches,
        "pages_out": rates.pages_out,
        "commits": rates.commits,
        "pages_in": rates.pages_in,
    });
    if let Some((bytes_in, bytes_out)) = bytes {
        value["bytes_in"] = json!(bytes_in);
        value["bytes_out"] = json!(bytes_out);
    }
    value
}

#[cfg(test)]
#[path = "interval_tests.rs"]
pub(crate) mod tests;
