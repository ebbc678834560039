//! What a server is doing: the bodies of the three requests by which it is watched.
//!
//! Owns: their fields, their limits and the checks on them. Called by: server (answers), the command line (asks). Must not: compute
//! rates or percentiles; an answer counts since the start, and who reads two of them knows what happened between.
//!
//! They are asked only where both hellos have [`CAPABILITY_ACTIVITY`].

use serde::{Deserialize, Serialize};

use crate::error::ProtocolError;
use crate::ids::{ClientId, RegionId};
use crate::name::RegionName;
use crate::{NAME_BYTES_MAX, REGION_BYTES_MAX};

/// The bit in both hellos by which a server is known to answer, and a client to ask.
pub const CAPABILITY_ACTIVITY: u64 = 1;
/// Rows in one answer at the most: 256 × (1,024 + 100) bytes.
pub const ACTIVITY_ROWS_MAX: usize = 256;
/// Bytes in a client's address at the most.
pub const ADDRESS_BYTES_MAX: usize = 128;
/// Buckets below 2^(this + 1) hold one number each; from there on every power of two is cut into 2^this.
pub const LATENCY_GROUPING_POWER: u8 = 5;
/// Nanoseconds from 2^this on (69 s) are counted as 2^this - 1.
pub const LATENCY_MAX_POWER: u8 = 36;
/// Buckets: 2^5 × (36 - 5 + 1).
pub const LATENCY_BUCKETS: u32 =
    (LATENCY_MAX_POWER as u32 - LATENCY_GROUPING_POWER as u32 + 1) << LATENCY_GROUPING_POWER;

/// How often something took how long, in buckets that are at most 1/32 of their least number wide.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latencies {
    /// Number and count of each bucket that is not empty, in order.
    pub buckets: Vec<(u32, u64)>,
}

impl Latencies {
    /// Whether these are buckets that there are, each once, in order, with a sum that 64 bits hold.
    pub fn check(&self) -> Result<(), ProtocolError> {
        let mut least = 0;
        let mut sum = Some(0u64);
        for (bucket, count) in &self.buckets {
            if *bucket < least || *bucket >= LATENCY_BUCKETS || *count == 0 {
                return Err(ProtocolError::Malformed { what: "latencies: buckets" });
            }
            least = bucket + 1;
            sum = sum.and_then(|sum| sum.checked_add(*count));
        }
        sum.map(drop).ok_or(ProtocolError::Malformed { what: "latencies: sum" })
    }
}

/// What was served, since the server's start or since it knows the region or client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Served {
    /// Fetch requests, those that were refused included.
    pub fetches: u64,
    /// Pages sent, zero pages not counted.
    pub pages_sent: u64,
    /// Commits that raised an epoch.
    pub commits: u64,
    /// Pages committed, zero pages counted.
    pub pages_committed: u64,
}

/// What a whole server is doing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerActivity {
    /// Nanoseconds since the server's start, to compute rates by.
    pub uptime_ns: u64,
    /// Regions, unnamed ones included.
    pub regions: u64,
    /// Clients that are connected, or whose lease still runs.
    pub clients: u64,
    /// Connections now.
    pub connections: u64,
    /// Pages in the store.
    pub stored_pages: u64,
    /// The limit on `stored_pages`.
    pub pages_max: u64,
    /// What was served since the start.
    pub served: Served,
    /// Bytes received behind hellos since the start.
    pub bytes_in: u64,
    /// Bytes sent behind hellos since the start.
    pub bytes_out: u64,
    /// How long `Fetch` requests took since the start, in nanoseconds.
    pub fetch_ns: Latencies,
    /// How long `Commit` requests took since the start, in nanoseconds.
    pub commit_ns: Latencies,
}

impl ServerActivity {
    /// Whether a server can be doing this.
    pub fn check(&self) -> Result<(), ProtocolError> {
        self.fetch_ns.check()?;
        self.commit_ns.check()
    }
}

/// Asks for regions, in the order of their numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegionsAfter {
    /// Start behind this one; 0: from the start.
    pub after: RegionId,
}

/// One region.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegionActivity {
    /// Its number.
    pub region: RegionId,
    /// Its first name in byte order; empty if it has none.
    pub name: String,
    /// How many names it has.
    pub names: u32,
    /// Bytes.
    pub size: u64,
    /// Pages that are stored, all-zero ones not counted.
    pub stored_pages: u64,
    /// Holds of all clients.
    pub holds: u64,
    /// What was served of it.
    pub served: Served,
}

/// A part of the regions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegionActivities {
    /// At most [`ACTIVITY_ROWS_MAX`], and as many if there is more.
    pub rows: Vec<RegionActivity>,
    /// Whether there is more behind the last one.
    pub more: bool,
}

/// Asks for clients, in the order of their ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientsAfter {
    /// Start behind this one.
    pub after: Option<ClientId>,
}

/// One client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientActivity {
    /// Its id.
    pub client: ClientId,
    /// Where its newest connection comes from: an IP address and a port, or `pid N uid N` on a Unix socket. Empty if the system did not
    /// say.
    pub address: String,
    /// Connections now; 0 while only its lease runs.
    pub connections: u64,
    /// Holds on regions.
    pub holds: u64,
    /// Seconds since its first connection.
    pub since_s: u64,
    /// What it was served.
    pub served: Served,
    /// Bytes received from it behind hellos.
    pub bytes_in: u64,
    /// Bytes sent to it behind hellos.
    pub bytes_out: u64,
}

/// A part of the clients.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientActivities {
    /// At most [`ACTIVITY_ROWS_MAX`], and as many if there is more.
    pub rows: Vec<ClientActivity>,
    /// Whether there is more behind the last one.
    pub more: bool,
}

/// Rows in order behind what was asked, no more than there may be, and as many if more are promised: nobody is led on for ever, or by
/// small steps.
fn check_rows<T: Ord + Copy>(
    after: Option<T>,
    ids: impl Iterator<Item = T>,
    more: bool,
) -> Result<(), ProtocolError> {
    let (mut last, mut count) = (after, 0);
    for id in ids {
        if last.is_some_and(|last| id <= last) {
            return Err(ProtocolError::Malformed { what: "activity: rows out of order" });
        }
        last = Some(id);
        count += 1;
    }
    if count > ACTIVITY_ROWS_MAX || (more && count < ACTIVITY_ROWS_MAX) {
        return Err(ProtocolError::Malformed { what: "activity: too many rows, or few and more promised" });
    }
    Ok(())
}

impl RegionActivities {
    /// Whether this can be the answer to a question for what is behind `after`.
    pub fn check(&self, after: RegionId) -> Result<(), ProtocolError> {
        check_rows(Some(after), self.rows.iter().map(|row| row.region), self.more)?;
        let possible = |row: &RegionActivity| {
            let named = row.name.len() <= NAME_BYTES_MAX
                && (row.name.is_empty() || RegionName::parse(&row.name).is_ok());
            named && row.name.is_empty() == (row.names == 0) && row.size <= REGION_BYTES_MAX
        };
        if self.rows.iter().all(possible) {
            return Ok(());
        }
        Err(ProtocolError::Malformed { what: "activity: a region that can't be" })
    }
}

impl ClientActivities {
    /// Whether this can be the answer to a question for what is behind `after`.
    pub fn check(&self, after: Option<ClientId>) -> Result<(), ProtocolError> {
        check_rows(after, self.rows.iter().map(|row| row.client), self.more)?;
        if self.rows.iter().all(|row| row.address.len() <= ADDRESS_BYTES_MAX) {
            return Ok(());
        }
        Err(ProtocolError::Malformed { what: "activity: an address that can't be" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region(number: u64, name: &str) -> RegionActivity {
        RegionActivity {
            region: RegionId(number),
            name: name.to_owned(),
            names: u32::from(!name.is_empty()),
            size: 0,
            stored_pages: 0,
            holds: 0,
            served: Served::default(),
        }
    }

    #[test]
    fn regions_that_can_be_are_taken_and_others_are_not() {
        let rows = vec![region(3, "a"), region(9, "")];
        let answer = |rows: Vec<RegionActivity>, more| RegionActivities { rows, more };
        assert_eq!(answer(rows.clone(), false).check(RegionId(2)), Ok(()));
        let full = (1..=ACTIVITY_ROWS_MAX as u64).map(|number| region(number, "")).collect();
        assert_eq!(answer(full, true).check(RegionId(0)), Ok(()));
        assert_eq!(answer(vec![], false).check(RegionId(2)), Ok(()));
        let many = (1..=ACTIVITY_ROWS_MAX as u64 + 1).map(|number| region(number, "")).collect();
        for (wrong, after) in [
            (answer(rows.clone(), false), 3),
            (answer(rows.clone(), true), 0),
            (answer(rows.into_iter().rev().collect(), false), 0),
            (answer(vec![], true), 0),
            (answer(many, false), 0),
            (answer(vec![region(1, "../x")], false), 0),
            (answer(vec![RegionActivity { names: 0, ..region(1, "a") }], false), 0),
            (answer(vec![RegionActivity { size: u64::MAX, ..region(1, "a") }], false), 0),
        ] {
            assert!(wrong.check(RegionId(after)).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn clients_come_in_order_with_short_addresses() {
        let row = |first: u8, address: usize| ClientActivity {
            client: ClientId([first; 16]),
            address: "x".repeat(address),
            connections: 1,
            holds: 0,
            since_s: 0,
            served: Served::default(),
            bytes_in: 0,
            bytes_out: 0,
        };
        let answer = |rows| ClientActivities { rows, more: false };
        assert_eq!(answer(vec![row(0, 0), row(1, ADDRESS_BYTES_MAX)]).check(None), Ok(()));
        assert!(answer(vec![row(0, 0)]).check(Some(ClientId([0; 16]))).is_err());
        assert!(answer(vec![row(0, ADDRESS_BYTES_MAX + 1)]).check(None).is_err());
    }

    #[test]
    fn buckets_come_in_order_and_within_their_number() {
        let check = |buckets: &[(u32, u64)]| Latencies { buckets: buckets.to_vec() }.check();
        assert_eq!(check(&[(0, 1), (7, 9), (LATENCY_BUCKETS - 1, 1)]), Ok(()));
        for wrong in [
            &[(LATENCY_BUCKETS, 1)][..],
            &[(7, 1), (7, 1)],
            &[(7, 1), (6, 1)],
            &[(7, 0)],
            &[(7, u64::MAX), (8, 1)],
        ] {
            assert!(check(wrong).is_err(), "{wrong:?}");
        }
    }
}
