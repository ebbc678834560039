//! What a region was: snapshot, clone, log, prune.
//!
//! Owns: these commands and what they print. Called by: `main.rs`. Must not: touch pages.

use std::io::{self, Write};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use netmem_protocol::PAGE_SIZE;
use netmem_protocol::control::{CloneRegion, History, Snapshotted};

use crate::args::{ServerOptions, human_bytes, output_failed, parse_age, region_name, utc};
use crate::error::{Failure, printable};

/// `netmem snapshot`
#[derive(Args, Debug)]
pub struct Snapshot {
    /// Remove the snapshot; whoever has it open reads on
    #[arg(short, long)]
    delete: bool,
    /// The region
    region: String,
    /// The snapshot's name: one component without "@", and not a number
    snapshot: String,
    #[command(flatten)]
    server: ServerOptions,
}

/// `netmem clone`
#[derive(Args, Debug)]
pub struct Clone {
    /// A region, REGION@SNAPSHOT or REGION@EPOCH
    from: String,
    /// The new region
    to: String,
    #[command(flatten)]
    server: ServerOptions,
}

/// `netmem log`
#[derive(Args, Debug)]
pub struct Log {
    /// The region
    region: String,
    #[command(flatten)]
    server: ServerOptions,
}

/// `netmem prune`
#[derive(Args, Debug)]
pub struct Prune {
    /// Keep the N newest snapshots
    #[arg(long, value_name = "N", required_unless_present = "older_than")]
    keep: Option<usize>,
    /// Remove only what is older: a number with s, m, h or d behind it
    #[arg(long, value_name = "AGE", value_parser = parse_age)]
    older_than: Option<Duration>,
    /// Say what would be removed, and remove nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// The region
    region: String,
    #[command(flatten)]
    server: ServerOptions,
}

impl Snapshot {
    /// Makes one, or removes it.
    pub fn run(&self) -> Result<u8, Failure> {
        let name = region_name(&self.region)?;
        let mut client = self.server.connect()?;
        if self.delete {
            client.remove_snapshot(&name, &self.snapshot)?;
            return Ok(0);
        }
        let made = client.take_snapshot(&name, &self.snapshot)?;
        let line = format!("{name}@{} keeps epoch {}", made.snapshot, made.epoch);
        writeln!(io::stdout(), "{}", printable(&line)).map_err(output_failed)?;
        Ok(0)
    }
}

impl Clone {
    /// Makes a region.
    pub fn run(&self) -> Result<u8, Failure> {
        let (from, to) = (region_name(&self.from)?, region_name(&self.to)?);
        let mut client = self.server.connect()?;
        client.clone_region(&CloneRegion { from, to })?;
        Ok(0)
    }
}

impl Log {
    /// Prints it, the oldest first.
    pub fn run(&self) -> Result<u8, Failure> {
        let history = self.server.connect()?.history(&region_name(&self.region)?)?;
        io::stdout().lock().write_all(table(&history).as_bytes()).map_err(output_failed)?;
        Ok(0)
    }
}

/// A line a commit, and a line a snapshot of which the log does not reach back to.
fn table(history: &History) -> String {
    let mut text =
        format!("{:>8}  {:<19}  {:>9}  {:>14}  snapshots\n", "epoch", "time (UTC)", "pages", "size");
    let names_at = |epoch| {
        let names = history.snapshots.iter().filter(|snapshot| snapshot.epoch == epoch);
        names.map(|snapshot| printable(&snapshot.snapshot)).collect::<Vec<_>>().join(" ")
    };
    let mut line = |epoch: u64, when_ns, pages: &str, size: u64, names: &str| {
        let line = format!("{epoch:>8}  {}  {pages:>9}  {size:>14}  {names}", utc(when_ns));
        text.push_str(line.trim_end());
        text.push('\n');
    };
    let mut older: Vec<&Snapshotted> = history.snapshots.iter().collect();
    older.retain(|snapshot| !history.log.iter().any(|logged| logged.epoch == snapshot.epoch));
    older.sort_by_key(|snapshot| snapshot.epoch);
    older.dedup_by_key(|snapshot| snapshot.epoch);
    for snapshot in older {
        line(snapshot.epoch.0, snapshot.made_ns, "", snapshot.size, &names_at(snapshot.epoch));
    }
    for logged in &history.log {
        let pages = logged.pages.to_string();
        line(logged.epoch.0, logged.when_ns, &pages, logged.size, &names_at(logged.epoch));
    }
    text
}

impl Prune {
    /// Removes snapshots.
    pub fn run(&self) -> Result<u8, Failure> {
        let name = region_name(&self.region)?;
        let mut client = self.server.connect()?;
        let mut snapshots = client.history(&name)?.snapshots;
        snapshots.sort_by_key(|snapshot| (snapshot.epoch, snapshot.made_ns));
        let spare = snapshots.len().saturating_sub(self.keep.unwrap_or(0));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let before = self.older_than.map(|age| now.saturating_sub(age).as_nanos());
        let mut out = io::stdout().lock();
        for snapshot in snapshots.iter().take(spare) {
            if before.is_some_and(|before| u128::from(snapshot.made_ns) >= before) {
                continue;
            }
            if !self.dry_run {
                client.remove_snapshot(&name, &snapshot.snapshot)?;
            }
            let stored = human_bytes(snapshot.stored_pages * PAGE_SIZE as u64);
            let what = if self.dry_run { "would be removed" } else { "removed" };
            let line = format!("{name}@{} (epoch {}, {stored}) {what}", snapshot.snapshot, snapshot.epoch);
            writeln!(out, "{}", printable(&line)).map_err(output_failed)?;
        }
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use netmem_protocol::Epoch;
    use netmem_protocol::control::Logged;

    use super::*;

    #[test]
    fn the_log_shows_snapshots_beside_their_epochs_and_older_ones_before() {
        let snapshot = |name: &str, epoch| Snapshotted {
            snapshot: name.into(),
            epoch: Epoch(epoch),
            made_ns: 0,
            size: 4096,
            stored_pages: 1,
        };
        let logged = |epoch| Logged { epoch: Epoch(epoch), when_ns: 0, pages: 3, size: 8192, kept: true };
        let history = History {
            log: vec![logged(7), logged(8)],
            snapshots: vec![snapshot("new", 8), snapshot("old", 2), snapshot("too", 8)],
        };
        let text = table(&history);
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines.len(), 4, "{text}");
        assert_eq!((lines[1][0], lines[1].last()), ("2", Some(&"old")));
        assert_eq!((lines[2][0], lines[2].last()), ("7", Some(&"8192")));
        assert_eq!(lines[3][lines[3].len() - 2..], ["new", "too"]);
    }
}
