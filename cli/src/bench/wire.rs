//! A region of the benchmark's own, and what the connection gives without paging.
//!
//! Owns: the region's name on the server, which goes with it, whatever happens. Called by: bench. Must not: begin where the server has
//! not enough room.

use std::time::{Duration, Instant};

use netmem_protocol::activity::Latencies;
use netmem_protocol::control::{Create, Entry};
use netmem_protocol::{ErrorCode, PAGE_SIZE, Run};

use crate::activity::percentiles;
use crate::args::{ServerOptions, human_bytes};
use crate::bench::{Bench, Interrupted, SCATTERED_PAGES, STEP, Spread, WORD, WireFigures, timed};
use crate::bulk::CommitPlan;
use crate::client::{Client, Identity};
use crate::error::{ClientError, Failure, describe_io};

/// Pages that the server needs besides: nodes of trees don't count, other clients' next commits may.
const SPARE_PAGES: u64 = 256;
/// Pages between two looks whether somebody wants to end.
const LOOK_PAGES: usize = 256;

/// The region. Dropped, its name is removed; what is left of it ends with its last holder.
pub struct Region {
    client: Client,
    options: ServerOptions,
    name: Option<String>,
    entry: Entry,
    commit_mb_s: f64,
}

/// A page of the benchmark: no two are alike, and none is zeros.
fn page(number: usize) -> [u8; PAGE_SIZE] {
    let mut bytes = [0; PAGE_SIZE];
    let word = WORD.wrapping_mul(number as u64 + 1);
    for (at, part) in bytes.chunks_exact_mut(8).enumerate() {
        part.copy_from_slice(&word.wrapping_mul(2 * at as u64 + 1).to_le_bytes());
    }
    bytes
}

impl Region {
    /// Makes it and fills it, in one commit.
    pub fn make(bench: &Bench, interrupted: &Interrupted) -> Result<Region, Failure> {
        let mut client = bench.server.connect()?;
        check_room(&mut client, bench.pages() as u64)?;
        let random = Identity::random().map_err(|error| {
            Failure::new("/dev/urandom", describe_io(&error), "netmem needs it for a name")
        })?;
        let name = format!("netmem-bench-{}", &random.client.to_string()[..16]);
        let entry = client.open(&name, Create::Exclusive, 0o600)?;
        let options = bench.server.clone();
        let mut region = Region { client, options, name: Some(name), entry, commit_mb_s: 0.0 };
        region.fill(bench.pages(), interrupted)?;
        Ok(region)
    }

    /// Commits all pages; then those that are synced later twice more, so that what is measured is a commit into memory that the server
    /// has had before, as that sync will be. Not where the network is so slow that this does not matter.
    fn fill(&mut self, ordered: usize, interrupted: &Interrupted) -> Result<(), Failure> {
        self.commit(0, SCATTERED_PAGES, interrupted)?;
        let mut took = self.commit(SCATTERED_PAGES, ordered, interrupted)?;
        if took < STEP {
            self.commit(SCATTERED_PAGES, ordered, interrupted)?;
            took = self.commit(SCATTERED_PAGES, ordered, interrupted)?;
        }
        self.commit_mb_s = megabytes(ordered) / took.as_secs_f64();
        Ok(())
    }

    /// One commit of pages; how long it took, without making the pages up. The epoch before it is given up.
    fn commit(&mut self, first: usize, pages: usize, interrupted: &Interrupted) -> Result<Duration, Failure> {
        let (region, base) = (self.entry.region, self.entry.epoch);
        let mut staging = self.client.stage(region);
        let mut took = Duration::ZERO;
        for part in (first..first + pages).step_by(LOOK_PAGES) {
            interrupted.check()?;
            let content: Vec<_> = (part..(part + LOOK_PAGES).min(first + pages)).map(page).collect();
            took += timed(|| {
                let mut numbers = part as u64..;
                content
                    .iter()
                    .zip(&mut numbers)
                    .try_for_each(|(page, number)| staging.push(number, Some(page)))
            })?;
        }
        let began = Instant::now();
        let epoch = staging.finish(CommitPlan { base, ..CommitPlan::default() })?.epoch;
        took += began.elapsed();
        self.entry.epoch = epoch;
        self.client.view(region, epoch)?;
        Ok(took)
    }

    /// What the connection gives.
    pub fn measure(&mut self, ordered: usize, interrupted: &Interrupted) -> Result<WireFigures, Failure> {
        let (region, epoch) = (self.entry.region, self.entry.epoch);
        // The first ones find everything asleep.
        for _ in 0..16 {
            self.client.ping()?;
        }
        let before = self.fetch_latencies()?;
        // By turns, so that the scheduler, which decides much between two CPUs, decides alike for both.
        let (mut number, mut pages) = (0, Vec::new());
        let round_trip = Spread::of(2 * STEP, SCATTERED_PAGES, || {
            interrupted.check()?;
            number = (number + 769) % SCATTERED_PAGES as u64;
            let began = Instant::now();
            self.client.fetch_pages(region, epoch, &[Run::new(number, 1)])?;
            pages.push(began.elapsed());
            Ok::<_, Failure>(self.client.ping()?)
        })?;
        let page = Spread::of_times(pages);
        let after = self.fetch_latencies()?;
        let server = before.zip(after).and_then(|(before, after)| percentiles(&before, &after));
        // Others' fetches can't be told apart from ours.
        let server = server.filter(|found| found.count == page.count as u64);
        let (began, runs) = (Instant::now(), [Run::new(SCATTERED_PAGES as u64, ordered as u32)]);
        self.client.fetch_each(region, epoch, runs.into_iter(), |_, _| interrupted.check())?;
        let fetch_mb_s = megabytes(ordered) / began.elapsed().as_secs_f64();
        Ok(WireFigures { round_trip, page, fetch_mb_s, commit_mb_s: self.commit_mb_s, server })
    }

    fn fetch_latencies(&mut self) -> Result<Option<Latencies>, ClientError> {
        if !self.client.tells_activity() {
            return Ok(None);
        }
        Ok(Some(self.client.server_activity()?.fetch_ns))
    }

    /// Its name, until it is taken away.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Somebody who has it open has taken its name away: our hold goes as well, and it ends with theirs.
    pub fn has_no_name(&mut self) -> Result<(), ClientError> {
        self.name = None;
        self.client.close(self.entry.region)
    }

    /// Takes its name away, over a new connection: the old one may be what failed, or have an answer under way.
    fn remove(&self, name: &str) -> Result<(), ClientError> {
        match self.options.connect()?.remove(name, false) {
            Err(error) if error.code() != Some(ErrorCode::NotFound) => Err(error),
            _ => Ok(()),
        }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        let Some(name) = self.name.take() else { return };
        if let Err(error) = self.remove(&name) {
            eprintln!(
                "netmem: warning: the region {name} is left on the server ({error}); remove it with netmem rm {name}"
            );
            return;
        }
        // The server would keep it for our lease otherwise.
        let _ = self.client.close(self.entry.region);
    }
}

fn megabytes(pages: usize) -> f64 {
    (pages * PAGE_SIZE) as f64 / 1e6
}

/// Refuses where a sync, with the old pages kept until it is through, would not fit.
fn check_room(client: &mut Client, ordered: u64) -> Result<(), Failure> {
    let stat = client.server_stat()?;
    let needed = 2 * ordered + SCATTERED_PAGES as u64 + SPARE_PAGES;
    let free = stat.pages_max.saturating_sub(stat.stored_pages);
    let bytes = |pages: u64| human_bytes(pages * PAGE_SIZE as u64);
    if free < needed {
        let why =
            format!("the benchmark needs {} on the server, and {} are free", bytes(needed), bytes(free));
        return Err(Failure::new(
            client.server(),
            why,
            "use a smaller --size, or start the server with a larger --max-memory",
        ));
    }
    let region = (ordered + SCATTERED_PAGES as u64) * PAGE_SIZE as u64;
    if region > client.hello().region_bytes_max {
        let why = format!("the server allows no region of {}", human_bytes(region));
        return Err(Failure::new(client.server(), why, "use a smaller --size"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_begins_with_its_word_and_no_two_are_alike() {
        assert_eq!(page(0)[..8], WORD.to_le_bytes());
        assert_eq!(page(6)[..8], WORD.wrapping_mul(7).to_le_bytes());
        assert_ne!(page(1), page(2));
        assert!(page(5).chunks(8).all(|part| part != [0; 8]));
    }
}
