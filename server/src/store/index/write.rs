//! One transaction of the index.
//!
//! Owns: which rows an update writes, and which it takes away. Called by: index. Must not: take a row away that the newest epoch or one that is
//! kept needs.

use netmem_protocol::control::Committed;
use netmem_protocol::{CacheId, ClientId, CommitId, RegionId};
use redb::{ReadableTable, WriteTransaction};

use super::{
    APPLIED, ATTRIBUTES, CACHES, CHILDREN, DIRECTORIES, LEAVES, LOG, META, REGIONS, SNAPSHOTS, encode, failed,
};
use crate::history::{LOG_MAX, LogRow};
use crate::store::StoreError;
use crate::store::rows::{CommitRows, Heir, NOTHING, RegionRow, Update};

pub(super) fn write_update(write: &WriteTransaction, update: &Update) -> Result<(), StoreError> {
    for (region, row) in &update.regions {
        write_region(write, region.0, row.as_ref())?;
    }
    if !update.attributes.is_empty() {
        let regions = write.open_table(REGIONS).map_err(failed)?;
        let mut attributes = write.open_table(ATTRIBUTES).map_err(failed)?;
        for (region, which, value) in &update.attributes {
            if regions.get(region.0).map_err(failed)?.is_some() {
                attributes.insert((region.0, *which as u8), value).map_err(failed)?;
            }
        }
    }
    for commit in &update.commits {
        write_commit(write, commit)?;
    }
    write_snapshots(write, update)?;
    for heir in &update.heirs {
        write_heir(write, heir)?;
    }
    write_names(write, update)
}

fn write_commit(write: &WriteTransaction, commit: &CommitRows) -> Result<(), StoreError> {
    let RegionId(region) = commit.region;
    let mut regions = write.open_table(REGIONS).map_err(failed)?;
    if regions.get(region).map_err(failed)?.is_none() {
        return Ok(());
    }
    regions.insert(region, &encode(&commit.row)?[..]).map_err(failed)?;
    let mut leaves = write.open_table(LEAVES).map_err(failed)?;
    for (leaf, row) in &commit.leaves {
        let newest = leaves
            .range((region, *leaf, 0)..(region, leaf + 1, 0))
            .map_err(failed)?
            .next_back()
            .transpose()
            .map_err(failed)?
            .map(|(key, _)| key.value());
        // A row is of its epoch and all later ones up to the next row's.
        let mut is_below = commit.row.origin.is_some();
        if let Some(key) = newest {
            if commit.kept.iter().any(|epoch| *epoch >= key.2) {
                is_below = true;
            } else {
                leaves.remove(key).map_err(failed)?;
                let older = leaves.range((region, *leaf, 0)..(region, leaf + 1, 0)).map_err(failed)?.next();
                is_below |= older.is_some();
            }
        }
        match row {
            Some(row) => drop(leaves.insert((region, *leaf, commit.row.epoch), &row[..]).map_err(failed)?),
            // What lies below must not show.
            None if is_below => {
                drop(leaves.insert((region, *leaf, commit.row.epoch), &NOTHING[..]).map_err(failed)?);
            }
            None => {}
        }
    }
    if let Some(LogRow { epoch, when_ns, pages, size }) = commit.log {
        let mut log = write.open_table(LOG).map_err(failed)?;
        log.insert((region, epoch), (when_ns, pages, size)).map_err(failed)?;
        if let Some(old) = epoch.checked_sub(LOG_MAX as u64) {
            log.remove((region, old)).map_err(failed)?;
        }
    }
    let mut applied = write.open_table(APPLIED).map_err(failed)?;
    for (ClientId(client), commits) in &commit.applied {
        let Some(commits) = commits else {
            applied.remove((region, *client)).map_err(failed)?;
            continue;
        };
        let ended = |(commit, ended): &(CommitId, Committed)| {
            (commit.0, [ended.epoch.0, ended.previous.0, ended.size])
        };
        let row: Vec<(u64, [u64; 3])> = commits.iter().map(ended).collect();
        applied.insert((region, *client), &encode(&row)?[..]).map_err(failed)?;
    }
    let mut caches = write.open_table(CACHES).map_err(failed)?;
    for (CacheId(cache), epoch) in &commit.made {
        match epoch {
            Some(epoch) => drop(caches.insert((region, *cache), epoch).map_err(failed)?),
            None => drop(caches.remove((region, *cache)).map_err(failed)?),
        }
    }
    Ok(())
}

fn write_snapshots(write: &WriteTransaction, update: &Update) -> Result<(), StoreError> {
    if !update.snapshots.is_empty() {
        let regions = write.open_table(REGIONS).map_err(failed)?;
        let mut snapshots = write.open_table(SNAPSHOTS).map_err(failed)?;
        for (RegionId(region), name, row) in &update.snapshots {
            match row {
                Some(row) if regions.get(region).map_err(failed)?.is_some() => {
                    drop(snapshots.insert((*region, &name[..]), &encode(row)?[..]).map_err(failed)?);
                }
                Some(_) => {}
                None => drop(snapshots.remove((*region, &name[..])).map_err(failed)?),
            }
        }
    }
    for (RegionId(region), kept) in &update.pruned {
        let mut leaves = write.open_table(LEAVES).map_err(failed)?;
        let range = (*region, 0, 0)..(region + 1, 0, 0);
        let mut gone = Vec::new();
        let mut before: Option<(u64, u64, u64)> = None;
        for row in leaves.range(range).map_err(failed)? {
            let key = row.map_err(failed)?.0.value();
            if let Some(old) = before.filter(|old| old.1 == key.1)
                && !kept.iter().any(|epoch| (old.2..key.2).contains(epoch))
            {
                gone.push(old);
            }
            before = Some(key);
        }
        for key in gone {
            leaves.remove(key).map_err(failed)?;
        }
    }
    Ok(())
}

/// The rows that a clone sees through its own become its own; those of the same leaves that it has are of later epochs.
fn write_heir(write: &WriteTransaction, heir: &Heir) -> Result<(), StoreError> {
    let (RegionId(from), RegionId(to)) = (heir.from, heir.to);
    let mut leaves = write.open_table(LEAVES).map_err(failed)?;
    let mut began: Vec<(u64, u64, Vec<u8>)> = Vec::new();
    for row in leaves.range((from, 0, 0)..(from + 1, 0, 0)).map_err(failed)? {
        let (key, row) = row.map_err(failed)?;
        let (_, leaf, epoch) = key.value();
        if epoch > heir.until {
            continue;
        }
        // The newest of a leaf comes last.
        began.pop_if(|older| older.0 == leaf);
        began.push((leaf, epoch, row.value().to_vec()));
    }
    for (leaf, epoch, row) in began {
        let mut own = leaves.range((to, leaf, 0)..(to, leaf + 1, 0)).map_err(failed)?;
        let first = own.next().transpose().map_err(failed)?.map(|(key, _)| key.value().2);
        drop(own);
        if first.is_none_or(|first| heir.kept.iter().any(|kept| *kept < first)) {
            leaves.insert((to, leaf, epoch), &row[..]).map_err(failed)?;
        }
    }
    drop(leaves);
    write_region(write, from, None)?;
    write_region(write, to, Some(&heir.row))
}

fn write_region(write: &WriteTransaction, region: u64, row: Option<&RegionRow>) -> Result<(), StoreError> {
    let mut regions = write.open_table(REGIONS).map_err(failed)?;
    if let Some(row) = row {
        regions.insert(region, &encode(row)?[..]).map_err(failed)?;
        return Ok(());
    }
    regions.remove(region).map_err(failed)?;
    let mut attributes = write.open_table(ATTRIBUTES).map_err(failed)?;
    attributes.retain_in((region, 0)..(region + 1, 0), |_, _| false).map_err(failed)?;
    let mut leaves = write.open_table(LEAVES).map_err(failed)?;
    leaves.retain_in((region, 0, 0)..(region + 1, 0, 0), |_, _| false).map_err(failed)?;
    let mut snapshots = write.open_table(SNAPSHOTS).map_err(failed)?;
    snapshots.retain_in((region, "")..(region + 1, ""), |_, _| false).map_err(failed)?;
    let mut log = write.open_table(LOG).map_err(failed)?;
    log.retain_in((region, 0)..(region + 1, 0), |_, _| false).map_err(failed)?;
    let mut applied = write.open_table(APPLIED).map_err(failed)?;
    applied.retain_in((region, [0; 16])..(region + 1, [0; 16]), |_, _| false).map_err(failed)?;
    let mut caches = write.open_table(CACHES).map_err(failed)?;
    caches.retain_in((region, [0; 16])..(region + 1, [0; 16]), |_, _| false).map_err(failed)?;
    Ok(())
}

fn write_names(write: &WriteTransaction, update: &Update) -> Result<(), StoreError> {
    if !update.directories.is_empty() {
        let mut directories = write.open_table(DIRECTORIES).map_err(failed)?;
        for (name, row) in &update.directories {
            match row {
                Some(row) => drop(directories.insert(&name[..], &encode(row)?[..]).map_err(failed)?),
                None => drop(directories.remove(&name[..]).map_err(failed)?),
            }
        }
    }
    if !update.children.is_empty() {
        let mut children = write.open_table(CHILDREN).map_err(failed)?;
        for (directory, name, row) in &update.children {
            let key = format!("{directory}\0{name}");
            match row {
                Some(row) => drop(children.insert(&key[..], &encode(row)?[..]).map_err(failed)?),
                None => drop(children.remove(&key[..]).map_err(failed)?),
            }
        }
    }
    if let Some(last) = update.last_region {
        let mut meta = write.open_table(META).map_err(failed)?;
        let there = meta.get("last region").map_err(failed)?.and_then(|value| value.value().try_into().ok());
        let last = last.max(there.map_or(0, u64::from_le_bytes));
        meta.insert("last region", &last.to_le_bytes()[..]).map_err(failed)?;
    }
    Ok(())
}
