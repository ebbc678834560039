//! The times of files: when what one holds, or its status, last changed.
//!
//! Owns: what the status of a file of ours shows for them, kept in its control file, and what the server says of them. Called by:
//! names, handle, abi's status calls. Must not: use the kernel's times of the cache file, which move when a page is brought in.

use core::sync::atomic::Ordering;

use netmem_protocol::control::Entry;
use rustix::fs::OFlags;

use super::{Runtime, handle};
use crate::pager::table::{Board, Control};
use crate::sys::errno::Errno;
use crate::sys::file;

/// Byte of the control file at which [`Times`] lie, and of the words that belong to them.
const MODIFIED_AT: u64 = core::mem::offset_of!(Control, modified) as u64;
const CHANGED_AT: u64 = core::mem::offset_of!(Control, changed) as u64;
const SERVER_AT: u64 = core::mem::offset_of!(Control, server_modified) as u64;
const OWN_EPOCH_AT: u64 = core::mem::offset_of!(Control, own_epoch) as u64;

/// Nanoseconds since 1970; times before are negative numbers of the same bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// What it holds.
    pub modified: u64,
    /// Its status.
    pub changed: u64,
    /// What the server said last.
    pub server: u64,
    /// See [`Control::own_epoch`].
    pub own_epoch: u64,
}

/// The time that the kernel would give a file now: its coarse clock's, so that files of ours and others are in order.
pub fn now() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
    (now.tv_sec as u64).wrapping_mul(1_000_000_000).wrapping_add(now.tv_nsec as u64)
}

/// What the file holds has changed.
pub fn touch(control: &Control) {
    let now = now();
    control.modified.store(now, Ordering::Relaxed);
    control.changed.store(now, Ordering::Relaxed);
}

/// Its status has changed.
pub fn touch_status(control: &Control) {
    control.changed.store(now(), Ordering::Relaxed);
}

/// A fresh control file: what the server says, or now for a file that was just made.
pub fn prime(control: &Control, entry: &Entry) {
    let time = if entry.created { now() } else { entry.modified_ns };
    control.modified.store(time, Ordering::Relaxed);
    control.changed.store(time, Ordering::Relaxed);
    control.server_modified.store(entry.modified_ns, Ordering::Relaxed);
    control.own_epoch.store(0, Ordering::Relaxed);
}

/// What becomes of the times when the server shows an entry; `None` if nothing does. A time at the server that this host's own
/// commit gave it changes nothing here: the file was changed when it was written, and not when that was committed.
fn followed(times: Times, entry: &Entry, dirty: bool) -> Option<Times> {
    if times.server == entry.modified_ns {
        return None;
    }
    let own = times.own_epoch != 0 && times.own_epoch == entry.epoch.0;
    let theirs = if dirty { times.modified.max(entry.modified_ns) } else { entry.modified_ns };
    let shown = if own { (times.modified, times.changed) } else { (theirs, theirs) };
    Some(Times { modified: shown.0, changed: shown.1, server: entry.modified_ns, own_epoch: 0 })
}

fn load(control: &Control) -> Times {
    Times {
        modified: control.modified.load(Ordering::Relaxed),
        changed: control.changed.load(Ordering::Relaxed),
        server: control.server_modified.load(Ordering::Relaxed),
        own_epoch: control.own_epoch.load(Ordering::Relaxed),
    }
}

fn store(control: &Control, times: Times) {
    control.modified.store(times.modified, Ordering::Relaxed);
    control.changed.store(times.changed, Ordering::Relaxed);
    control.server_modified.store(times.server, Ordering::Relaxed);
    control.own_epoch.store(times.own_epoch, Ordering::Relaxed);
}

/// The server showed an entry for a cache file that has a control file.
pub fn follow(runtime: &Runtime, inode: u64, known: Times, entry: &Entry) {
    if let Some(held) = runtime.attached.find(inode) {
        let control = held.region.cache.control();
        if let Some(times) = followed(load(control), entry, held.region.has_marks()) {
            store(control, times);
        }
    } else if let Some(times) = followed(known, entry, false) {
        // What can't be noted now is noted when it is next seen.
        let _ = write(&runtime.directory.control_path(inode), times);
    }
}

fn write(path: &str, times: Times) -> Result<(), Errno> {
    let control = file::open(path, OFlags::WRONLY, 0)?;
    for (at, word) in [
        (MODIFIED_AT, times.modified),
        (CHANGED_AT, times.changed),
        (SERVER_AT, times.server),
        (OWN_EPOCH_AT, times.own_epoch),
    ] {
        file::write_at(&control, &word.to_ne_bytes(), at)?;
    }
    Ok(())
}

/// From the front of a control file.
pub fn read(front: &[u8]) -> Times {
    let word = |at: u64| {
        front
            .get(at as usize..)
            .and_then(|rest| rest.first_chunk::<8>())
            .map_or(0, |word| u64::from_ne_bytes(*word))
    };
    Times {
        modified: word(MODIFIED_AT),
        changed: word(CHANGED_AT),
        server: word(SERVER_AT),
        own_epoch: word(OWN_EPOCH_AT),
    }
}

/// When a file of ours was last changed, and its status; `None` for one that is not ours, or of which only the server has told.
pub fn of(runtime: &Runtime, inode: u64) -> Option<Times> {
    let times = match runtime.attached.find(inode) {
        Some(held) => load(held.region.cache.control()),
        None => super::attach::peek(runtime, inode)?.times,
    };
    (times.modified != 0).then_some(times)
}

/// The program set the time of the last change, or only another one.
pub fn set(runtime: &Runtime, inode: u64, modified: Option<u64>) {
    if let Some(held) = runtime.attached.find(inode) {
        let control = held.region.cache.control();
        touch_status(control);
        if let Some(modified) = modified {
            control.modified.store(modified, Ordering::Relaxed);
            control.server_modified.store(modified, Ordering::Relaxed);
            control.own_epoch.store(0, Ordering::Relaxed);
        }
    } else if let Some(known) = super::attach::peek(runtime, inode) {
        let times = Times { changed: now(), ..known.times };
        let times = match modified {
            Some(modified) => Times { modified, server: modified, own_epoch: 0, ..times },
            None => times,
        };
        let _ = write(&runtime.directory.control_path(inode), times);
    }
}

/// Before times are set: what was stored earlier is committed, so that no later commit moves them again.
pub fn settle(inode: u64, runtime: &Runtime) {
    if let Some(held) = runtime.attached.find(inode)
        && let Some(handle) = handle::find(held.index)
    {
        // What can't be committed now is dirty still, and said to be when it is synced.
        let _ = handle.commit(crate::pager::commit::CommitOptions::default());
    }
}

#[cfg(test)]
mod tests {
    use netmem_protocol::control::{Entry, EntryKind};
    use netmem_protocol::{Epoch, RegionId};

    use super::{Times, followed};

    fn entry(epoch: u64, modified_ns: u64) -> Entry {
        Entry {
            kind: EntryKind::Region,
            region: RegionId(1),
            epoch: Epoch(epoch),
            size: 0,
            stored_pages: 0,
            mode: 0o644,
            modified_ns,
            created: false,
            links: 1,
            target: Vec::new(),
        }
    }

    #[test]
    fn a_file_follows_what_others_did_to_its_time_and_not_its_own_commits() {
        let times = Times { modified: 10, changed: 11, server: 5, own_epoch: 3 };
        for (entry, dirty, shown) in [
            (entry(3, 5), false, None),
            (entry(3, 20), false, Some((10, 11))),
            (entry(4, 20), false, Some((20, 20))),
            (entry(4, 7), false, Some((7, 7))),
            (entry(4, 7), true, Some((10, 10))),
        ] {
            let after = followed(times, &entry, dirty);
            assert_eq!(after.map(|times| (times.modified, times.changed)), shown, "{entry:?} {dirty}");
            assert!(after.is_none_or(|after| after.server == entry.modified_ns && after.own_epoch == 0));
        }
    }
}
