//! Whether what a server says of names and regions can be: names become paths in the page cache, and sizes those of files in it.
//!
//! Owns: the checks of control bodies. Called by: names. Must not: know what was asked for more than a check needs.

use netmem_protocol::control::{Committed, Entry, EntryKind, Listing, Reached, Resolve, Resolved};
use netmem_protocol::{
    LINKS_MAX, LIST_ENTRIES_MAX, ProtocolError, REGION_BYTES_MAX, RegionId, RegionName, SYMLINKS_MAX,
    TARGET_BYTES_MAX,
};

fn only_if(possible: bool, what: &'static str) -> Result<(), ProtocolError> {
    if possible { Ok(()) } else { Err(ProtocolError::Malformed { what }) }
}

/// An entry of any kind.
pub(super) fn entry(entry: &Entry) -> Result<(), ProtocolError> {
    let none = entry.region == RegionId(0);
    let of_its_kind = match entry.kind {
        EntryKind::Region | EntryKind::Snapshot => !none && entry.size <= REGION_BYTES_MAX,
        EntryKind::Directory => none,
        EntryKind::Symlink => {
            let length = entry.target.len();
            let whole = entry.size == length as u64 && (1..=TARGET_BYTES_MAX).contains(&length);
            none && whole && !entry.target.contains(&0)
        }
    };
    only_if(of_its_kind && entry.mode <= 0o7777, "entry: none that can be")
}

/// That of a region.
pub(super) fn region(of: &Entry) -> Result<(), ProtocolError> {
    only_if(of.kind.has_pages(), "entry: not a region's").and_then(|()| entry(of))
}

/// That of a clone without a name: what is committed to it must not go to the one that it began as.
pub(super) fn clone(clone: &Entry, of: RegionId) -> Result<(), ProtocolError> {
    only_if(clone.kind == EntryKind::Region && clone.region != of, "entry: not a clone's")
}

/// That of a region for what is pending of another one.
pub(super) fn kept(kept: &Entry, of: RegionId) -> Result<(), ProtocolError> {
    only_if(kept.kind == EntryKind::Region && kept.region != of, "entry: not that of what is pending")
        .and_then(|()| entry(kept))
}

/// A part of a directory, behind `after`: in order, so that it ends.
pub(super) fn listing(listing: &Listing, after: &str) -> Result<(), ProtocolError> {
    let mut last = after;
    for (name, of) in &listing.entries {
        let component = RegionName::parse(name).is_ok() && !name.contains('/');
        only_if(component && name.as_str() > last, "listing: its names")?;
        entry(of)?;
        last = name;
    }
    let count = listing.entries.len();
    let ends = count > 0 || !listing.more;
    only_if(ends && count <= LIST_ENTRIES_MAX as usize, "listing: how much it is")
}

/// All names of a region.
pub(super) fn names(names: &[String]) -> Result<(), ProtocolError> {
    let all = names.iter().all(|name| RegionName::parse(name).is_ok());
    only_if(all && names.len() <= LINKS_MAX, "names: none that can be")
}

/// Where a path led. One that leads out may lead back in, and is asked about again: it has become shorter by then, or has one link less to
/// follow, so that this ends.
pub(super) fn resolved(resolved: &Resolved, asked: &Resolve) -> Result<(), ProtocolError> {
    let there = match resolved.reached {
        Reached::There => RegionName::parse_directory(&resolved.name).is_ok(),
        Reached::Missing => RegionName::parse(&resolved.name).is_ok(),
        Reached::Outside => {
            let length = resolved.outside.len();
            let on = resolved.links > asked.links || length <= asked.path.len();
            resolved.name.is_empty() && length > 0 && on && !resolved.outside.contains(&0)
        }
    };
    let links = resolved.links >= asked.links && resolved.links <= SYMLINKS_MAX;
    only_if(there && links, "where a path leads: nowhere that can be")
}

/// A commit that happened.
pub(super) fn committed(committed: &Committed) -> Result<(), ProtocolError> {
    let possible = committed.epoch >= committed.previous && committed.size <= REGION_BYTES_MAX;
    only_if(possible, "commit: none that can have happened")
}
