//! Descriptor → region: which of the program's descriptors are ours.
//!
//! Owns: a word for each descriptor. Called by: every hook that takes a descriptor. Must not: make a call that is not ours
//! cost more than one load.

use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use super::attach::Held;
use super::{Handle, attach, config, directory, handle, runtime, runtime_if_started};
use crate::log;
use crate::sys::errno::Errno;
use crate::sys::{fd, proc};

/// Descriptors below this have a word; others are asked about each time.
const TABLE: usize = 1 << 16;
const UNKNOWN: u32 = 0;
const FOREIGN: u32 = 1;
const DIRECTORY: u32 = 2;
const FIRST_HANDLE: u32 = 3;

static WORDS: [AtomicU32; TABLE] = [const { AtomicU32::new(UNKNOWN) }; TABLE];

/// Set when there is no cache directory, so that nothing inherited can be ours.
static NOTHING_INHERITED: AtomicBool = AtomicBool::new(false);

/// What a descriptor is.
#[derive(Clone, Copy)]
pub enum Descriptor {
    /// Not ours, or closed.
    Foreign,
    /// A directory under the prefix.
    Directory,
    /// A region.
    Region(&'static Handle),
}

/// What a descriptor is. An error: it is ours and can't be served.
#[inline]
pub fn classify(number: i32) -> Result<Descriptor, Errno> {
    match WORDS.get(number as usize).map_or(UNKNOWN, |word| word.load(Ordering::Relaxed)) {
        FOREIGN => Ok(Descriptor::Foreign),
        UNKNOWN => discover(number),
        DIRECTORY => Ok(Descriptor::Directory),
        index => Ok(Descriptor::Region(handle::handle(index - FIRST_HANDLE))),
    }
}

/// The region behind a descriptor, if it is one of ours.
#[inline]
pub fn region(number: i32) -> Result<Option<&'static Handle>, Errno> {
    match WORDS.get(number as usize).map_or(UNKNOWN, |word| word.load(Ordering::Relaxed)) {
        FOREIGN => Ok(None),
        _ => Ok(match classify(number)? {
            Descriptor::Region(handle) => Some(handle),
            Descriptor::Foreign | Descriptor::Directory => None,
        }),
    }
}

#[cold]
fn discover(number: i32) -> Result<Descriptor, Errno> {
    if number < 0 {
        return Ok(Descriptor::Foreign);
    }
    // Held until the table shows it.
    let (found, _held) = look(number)?;
    set(number, found);
    Ok(found)
}

fn look(number: i32) -> Result<(Descriptor, Option<Held>), Errno> {
    if runtime_if_started().is_none() {
        if NOTHING_INHERITED.load(Ordering::Relaxed) || config().disable {
            return Ok((Descriptor::Foreign, None));
        }
        if !crate::sys::file::exists(&directory::root_path(config())) {
            NOTHING_INHERITED.store(true, Ordering::Relaxed);
            return Ok((Descriptor::Foreign, None));
        }
    }
    let Ok(stat) = rustix::fs::fstat(fd::borrow(number)) else { return Ok((Descriptor::Foreign, None)) };
    let kind = rustix::fs::FileType::from_raw_mode(stat.st_mode);
    let file = kind == rustix::fs::FileType::RegularFile;
    if !file && kind != rustix::fs::FileType::Directory {
        return Ok((Descriptor::Foreign, None));
    }
    if let Some(runtime) = runtime_if_started() {
        if stat.st_dev != runtime.directory.device {
            return Ok((Descriptor::Foreign, None));
        }
        if file && let Some(known) = runtime.attached.find(stat.st_ino) {
            return Ok((Descriptor::Region(known.handle()), Some(known)));
        }
    }
    let Some(path) = proc::descriptor_path(number) else { return Ok((Descriptor::Foreign, None)) };
    if !path.starts_with(&format!("{}/", directory::root_path(config()))) {
        return Ok((Descriptor::Foreign, None));
    }
    let started = runtime()?;
    let Some(name) = path.strip_prefix(started.directory.tree.as_str()) else {
        log::debug!("descriptor {number} ({path}): in another store's cache");
        return Ok((Descriptor::Foreign, None));
    };
    if !file {
        return Ok((Descriptor::Directory, None));
    }
    let name = name.trim_start_matches('/').trim_end_matches(" (deleted)");
    let held = attach::attach_descriptor(started, name, stat.st_ino, number)?;
    Ok((Descriptor::Region(held.handle()), Some(held)))
}

/// Notes what a descriptor is from now on. What it was before must have been [`forget`]ten.
pub fn set(number: i32, what: Descriptor) {
    let Some(word) = WORDS.get(number as usize) else { return };
    let value = match what {
        Descriptor::Foreign => FOREIGN,
        Descriptor::Directory => DIRECTORY,
        Descriptor::Region(handle) => {
            handle.descriptors.fetch_add(1, Ordering::SeqCst);
            FIRST_HANDLE + handle.index
        }
    };
    release(word.swap(value, Ordering::SeqCst));
}

/// A descriptor was closed, or is about to be. Returns its region if this was the last one.
pub fn forget(number: i32) -> Option<&'static Handle> {
    release(WORDS.get(number as usize)?.swap(UNKNOWN, Ordering::SeqCst))
}

fn release(was: u32) -> Option<&'static Handle> {
    if was < FIRST_HANDLE {
        return None;
    }
    let handle = handle::find(was - FIRST_HANDLE)?;
    (handle.descriptors.fetch_sub(1, Ordering::SeqCst) == 1).then_some(handle)
}

/// Whether a descriptor is known to be ours.
pub fn is_ours(number: i32) -> bool {
    WORDS.get(number as usize).is_some_and(|word| word.load(Ordering::Relaxed) >= DIRECTORY)
}

/// Whatever had these numbers may be something else from now on; ours were dealt with before.
pub fn forget_foreign_between(first: u32, last: u32) {
    for word in WORDS.iter().take(last as usize + 1).skip(first as usize) {
        if word.load(Ordering::Relaxed) == FOREIGN {
            word.store(UNKNOWN, Ordering::Relaxed);
        }
    }
}

/// A descriptor that is not known to be ours was closed: whoever gets its number next is unknown.
pub fn forget_quick(number: i32) {
    if let Some(word) = WORDS.get(number as usize)
        && word.load(Ordering::Relaxed) == FOREIGN
    {
        word.store(UNKNOWN, Ordering::Relaxed);
    }
}

/// A descriptor was duplicated.
pub fn copied(from: i32, to: i32) {
    if let Ok(what) = classify(from) {
        set(to, what);
    }
}

/// The region behind a descriptor that is known to be one.
pub fn known_region(number: i32) -> Option<&'static Handle> {
    let word = WORDS.get(number as usize)?.load(Ordering::Relaxed);
    handle::find(word.checked_sub(FIRST_HANDLE)?)
}

/// The region behind a descriptor, if closing it would be the last close.
pub fn last_of(number: i32) -> Option<&'static Handle> {
    let handle = known_region(number)?;
    (handle.descriptors.load(Ordering::SeqCst) == 1).then_some(handle)
}

/// The numbers in `first..=last` that are not known to be someone else's, for calls that close many.
pub fn ours_between(first: u32, last: u32) -> Vec<i32> {
    let last = last.min(TABLE as u32 - 1);
    (first..=last)
        .filter(|i| WORDS[*i as usize].load(Ordering::Relaxed) >= DIRECTORY)
        .map(|i| i as i32)
        .collect()
}
