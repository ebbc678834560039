//! What a server is doing, asked for.
//!
//! Owns: the three requests, a snapshot of their answers, and percentiles of latencies. Called by: stat, top, bench. Must not: believe an
//! answer that can't be, or read on for ever.

use histogram::{Config, Quantile, SparseHistogram};
use netmem_protocol::activity::{
    CAPABILITY_ACTIVITY, ClientActivities, ClientActivity, ClientsAfter, LATENCY_GROUPING_POWER,
    LATENCY_MAX_POWER, Latencies, RegionActivities, RegionActivity, RegionsAfter, ServerActivity,
};
use netmem_protocol::{ClientId, Epoch, Kind, RegionId, StoreId};

use crate::client::Client;
use crate::error::ClientError;

/// Regions, and clients, in a snapshot at the most: 64 answers of each.
pub const SNAPSHOT_ROWS_MAX: usize = 16_384;
const BUCKETS: Config = match Config::new(LATENCY_GROUPING_POWER, LATENCY_MAX_POWER) {
    Ok(config) => config,
    Err(_) => panic!("the protocol's powers are no histogram's"),
};

/// What a server has done until now. Its parts are asked for one after the other, so one may be a little ahead of another.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The store behind the server: another one means another start.
    pub store: StoreId,
    /// The whole server.
    pub server: ServerActivity,
    /// Its regions, by number.
    pub regions: Vec<RegionActivity>,
    /// Its clients, by id.
    pub clients: Vec<ClientActivity>,
    /// Whether there are more regions than these.
    pub more_regions: bool,
    /// Whether there are more clients than these.
    pub more_clients: bool,
}

/// How long most of them took, and how long all but one in a hundred.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Percentiles {
    /// How many there were.
    pub count: u64,
    /// Microseconds within which one in two was done.
    pub p50_us: f64,
    /// Microseconds within which 99 in 100 were.
    pub p99_us: f64,
}

impl Client {
    /// Whether the server tells what it does.
    pub fn tells_activity(&self) -> bool {
        self.hello().capabilities & CAPABILITY_ACTIVITY != 0
    }

    fn ask_activity<B: serde::Serialize, A: serde::de::DeserializeOwned>(
        &mut self,
        kind: Kind,
        body: &B,
        what: &'static str,
    ) -> Result<A, ClientError> {
        if !self.tells_activity() {
            let server = self.server();
            return Err(ClientError::Request(format!(
                "{server}: the server is of an older release, which does not tell what it does; install the same netmem release on both sides"
            )));
        }
        self.call(kind, RegionId(0), Epoch(0), body, what)
    }

    /// What the whole server is doing.
    pub fn server_activity(&mut self) -> Result<ServerActivity, ClientError> {
        let activity: ServerActivity =
            self.ask_activity(Kind::ServerActivity, &(), "the server's activity")?;
        activity.check().map_err(|source| self.protocol(source))?;
        Ok(activity)
    }

    /// Regions behind the one of this number.
    pub fn region_activity(&mut self, after: RegionId) -> Result<RegionActivities, ClientError> {
        let body = RegionsAfter { after };
        let part: RegionActivities =
            self.ask_activity(Kind::RegionActivity, &body, "the regions' activity")?;
        part.check(after).map_err(|source| self.protocol(source))?;
        Ok(part)
    }

    /// Clients behind the one of this id.
    pub fn client_activity(&mut self, after: Option<ClientId>) -> Result<ClientActivities, ClientError> {
        let body = ClientsAfter { after };
        let part: ClientActivities =
            self.ask_activity(Kind::ClientActivity, &body, "the clients' activity")?;
        part.check(after).map_err(|source| self.protocol(source))?;
        Ok(part)
    }

    /// All of it, within [`SNAPSHOT_ROWS_MAX`].
    pub fn snapshot(&mut self) -> Result<Snapshot, ClientError> {
        let server = self.server_activity()?;
        let (mut regions, mut more_regions) = (Vec::<RegionActivity>::new(), true);
        while more_regions && regions.len() < SNAPSHOT_ROWS_MAX {
            let part = self.region_activity(regions.last().map_or(RegionId(0), |row| row.region))?;
            regions.extend(part.rows);
            more_regions = part.more;
        }
        let (mut clients, mut more_clients) = (Vec::<ClientActivity>::new(), true);
        while more_clients && clients.len() < SNAPSHOT_ROWS_MAX {
            let part = self.client_activity(clients.last().map(|row| row.client))?;
            clients.extend(part.rows);
            more_clients = part.more;
        }
        Ok(Snapshot { store: self.hello().store, server, regions, clients, more_regions, more_clients })
    }
}

/// The percentiles of what was counted after `before`; `None` if that is nothing. The upper end of a bucket is told, which is at most 1/32
/// too much.
pub fn percentiles(before: &Latencies, now: &Latencies) -> Option<Percentiles> {
    let mut earlier = before.buckets.iter().peekable();
    let (mut index, mut counts) = (Vec::new(), Vec::new());
    for (bucket, count) in &now.buckets {
        while earlier.next_if(|(other, _)| other < bucket).is_some() {}
        let base = earlier.next_if(|(other, _)| other == bucket).map_or(0, |(_, count)| *count);
        // A counter that went back is a server that lies: it says nothing.
        if *count > base {
            index.push(*bucket);
            counts.push(count - base);
        }
    }
    let count = counts.iter().sum();
    let histogram = SparseHistogram::from_parts(BUCKETS, index, counts).ok()?;
    let result = histogram.quantiles(&[0.5, 0.99]).ok()??;
    let end_us = |quantile| {
        let bucket = result.get(&Quantile::new(quantile).ok()?)?;
        Some(bucket.end() as f64 / 1000.0)
    };
    Some(Percentiles { count, p50_us: end_us(0.5)?, p99_us: end_us(0.99)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_what_came_between_two_snapshots() {
        let latencies = |buckets: &[(u32, u64)]| Latencies { buckets: buckets.to_vec() };
        let before = latencies(&[(10, 5), (50, 7)]);
        assert_eq!(percentiles(&before, &before), None);
        assert_eq!(percentiles(&Latencies::default(), &Latencies::default()), None);
        // 98 of 20 ns, one of 50, one of 64 to 65 (the first bucket that is two wide).
        let now = latencies(&[(10, 5), (20, 98), (50, 8), (64, 1)]);
        let found = percentiles(&before, &now).expect("there were some");
        assert_eq!((found.count, found.p50_us, found.p99_us), (100, 0.020, 0.050));
        let found = percentiles(&Latencies::default(), &latencies(&[(64, 3)])).expect("there were some");
        assert_eq!((found.p50_us, found.p99_us), (0.065, 0.065));
        // What went back is left out.
        assert_eq!(percentiles(&now, &before), None);
    }
}
