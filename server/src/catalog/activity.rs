//! Regions and clients in parts, with what they were served.
//!
//! Owns: those two lists. Called by: requests. Must not: take longer over a part than [`ACTIVITY_ROWS_MAX`] rows do: everybody who opens a
//! region waits for the same lock.

use std::ops::Bound;

use netmem_protocol::activity::{
    ACTIVITY_ROWS_MAX, ClientActivities, ClientActivity, ClientsAfter, RegionActivities, RegionActivity,
    RegionsAfter,
};

use crate::catalog::Catalog;
use crate::stats;

/// The first rows of an iterator, and whether there are more.
fn part<T>(mut rows: impl Iterator<Item = T>) -> (Vec<T>, bool) {
    let part: Vec<T> = rows.by_ref().take(ACTIVITY_ROWS_MAX).collect();
    (part, rows.next().is_some())
}

impl Catalog {
    /// `RegionActivity`.
    pub fn region_activity(&self, request: &RegionsAfter) -> RegionActivities {
        let state = self.state();
        let behind = (Bound::Excluded(request.after), Bound::Unbounded);
        let (rows, more) = part(state.kept.range(behind).map(|(id, kept)| {
            let entry = kept.region.entry();
            RegionActivity {
                region: *id,
                name: self.shown_name(&state, *id),
                names: self.links(&state, *id),
                size: entry.size,
                stored_pages: entry.stored_pages,
                holds: kept.holds,
                served: kept.region.counts.served(),
            }
        }));
        RegionActivities { rows, more }
    }

    /// `ClientActivity`.
    pub fn client_activity(&self, request: &ClientsAfter) -> ClientActivities {
        let state = self.state();
        let behind = request.after.map_or(Bound::Unbounded, Bound::Excluded);
        let (rows, more) =
            part(state.clients.range((behind, Bound::Unbounded)).map(|(id, client)| ClientActivity {
                client: *id,
                address: client.address.clone(),
                connections: client.presence.connections,
                holds: client.holds.values().sum(),
                since_s: client.since.elapsed().as_secs(),
                served: client.traffic.counts.served(),
                bytes_in: stats::get(&client.traffic.bytes_in),
                bytes_out: stats::get(&client.traffic.bytes_out),
            }));
        ClientActivities { rows, more }
    }

    /// Clients that are connected, or whose lease still runs.
    pub fn clients(&self) -> u64 {
        self.state().clients.len() as u64
    }
}
