//! Attaching to regions: by an entry of the server's namespace, by an open descriptor, without a name.
//!
//! Owns: which inode is which handle. Called by: names, fds, abi::map. Must not: change names.

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::collections::BTreeMap;

use netmem_protocol::control::Entry;
use netmem_protocol::{PageIndex, RegionId};
use rustix::fs::OFlags;

use super::cache_file::RegionFile;
use super::handle::{self, HANDLES_MAX, Handle};
use super::times::{self, Times};
use super::{Runtime, config};
use crate::log;
use crate::pager::commit::CommitOptions;
use crate::pager::table::{Board, Control};
use crate::pager::{Frames, Region};
use crate::remote::RemoteError;
use crate::sync::{QuietGuard, QuietMutex};
use crate::sys::errno::Errno;
use crate::sys::fd::OwnFd;
use crate::sys::file;

/// A handle that stays attached while this lives: until a descriptor or a mapping shows it.
pub struct Held(&'static Handle);

impl Held {
    /// The caller holds the lock of `by_inode`, or the handle is shown by something.
    fn new(handle: &'static Handle) -> Self {
        handle.descriptors.fetch_add(1, Ordering::SeqCst);
        Held(handle)
    }

    /// The handle, for as long as something else shows it.
    pub fn handle(&self) -> &'static Handle {
        self.0
    }
}

impl core::ops::Deref for Held {
    type Target = Handle;
    fn deref(&self) -> &Handle {
        self.0
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.descriptors.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Inode → handle.
pub struct Attached {
    /// Lock order: 1.
    by_inode: QuietMutex<BTreeMap<u64, Known>>,
    /// Handles ever made, and the numbers of those given up.
    numbers: QuietMutex<(u32, Vec<u32>)>,
}

/// What is known of an inode.
pub struct Known {
    /// Its handle.
    index: u32,
    /// Descriptors of the file that a race made one too many. Closing any descriptor of a file drops all record locks that the
    /// process has on it (fcntl_locking(2)), and those are the program's; so they stay as long as the region.
    spare: Vec<OwnFd>,
}

/// Regions that nothing shows any more but that stay attached, for the next open.
const IDLE_KEPT: usize = 64;

/// A control file's first words, for one that we are not attached to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peek {
    /// The region.
    pub region: RegionId,
    /// The view epoch.
    pub view: u64,
    /// When it was changed.
    pub times: Times,
}

impl Attached {
    /// Nothing yet.
    pub fn new() -> Result<Attached, Errno> {
        Ok(Attached { by_inode: QuietMutex::new(BTreeMap::new()), numbers: QuietMutex::new((0, Vec::new())) })
    }

    /// The handle of an inode.
    pub fn find(&self, inode: u64) -> Option<Held> {
        let by_inode = self.by_inode.lock();
        handle::find(by_inode.get(&inode)?.index).map(Held::new)
    }

    /// The lock that the fork hook takes.
    #[allow(clippy::type_complexity)]
    pub fn lock_for_fork(&self) -> (QuietGuard<'_, (u32, Vec<u32>)>, QuietGuard<'_, BTreeMap<u64, Known>>) {
        let by_inode = self.by_inode.lock();
        (self.numbers.lock(), by_inode)
    }
}

fn refused(name: &str, error: &RemoteError) -> Errno {
    log::error!("{name}: {error}");
    Errno(error.errno())
}

/// What the control file of an inode says, if there is one that says anything.
pub fn peek(runtime: &Runtime, inode: u64) -> Option<Peek> {
    let control = file::open(&runtime.directory.control_path(inode), OFlags::RDONLY, 0).ok()?;
    let mut words = [0u8; core::mem::offset_of!(Control, chunks)];
    file::read_at(&control, &mut words, 0).ok()?;
    let word = |i: usize| words[i * 8..].first_chunk::<8>().map(|word| u64::from_le_bytes(*word));
    let ours = word(0)? == crate::pager::table::MAGIC && word(1)? == crate::pager::table::LAYOUT;
    ours.then_some(Peek { region: RegionId(word(2)?), view: word(3)?, times: times::read(&words) })
}

/// The cache file of a name. What it is does not change when the name becomes another's.
pub enum Found {
    /// This process is attached to it.
    Known(Held),
    /// It is not; the file and its inode.
    File(OwnFd, u64),
}

/// The cache file that has a name just now. The names lock is held, and the file was brought in line with the server.
pub fn find_file(runtime: &'static Runtime, local: &str) -> Result<Found, Errno> {
    // Known ones are not opened again: see `Known::spare`.
    if let Some(known) = runtime.attached.find(rustix::fs::lstat(local)?.st_ino) {
        return Ok(Found::Known(known));
    }
    let file = open_both_ways(local)?;
    let inode = rustix::fs::fstat(file.borrow())?.st_ino;
    // Tells who lists the name meanwhile that its size is about to be somebody's: see `unattached`.
    file::open(&runtime.directory.control_path(inode), OFlags::RDWR | OFlags::CREATE, 0o600)?;
    Ok(Found::File(file, inode))
}

/// Does something to a cache file that nobody has attached to, and keeps everybody from attaching meanwhile. `None` if somebody has.
/// The names lock is held.
pub fn unattached<T>(runtime: &Runtime, inode: u64, body: impl FnOnce() -> T) -> Result<Option<T>, Errno> {
    let Ok(control) = file::open(&runtime.directory.control_path(inode), OFlags::RDWR, 0) else {
        // Who attaches by name makes it with the names lock held.
        return Ok(Some(body()));
    };
    file::lock_exclusive(&control)?;
    Ok(peek(runtime, inode).is_none().then(body))
}

/// Attaches to the region of `entry`, whose cache file was found. The server already counts us as a holder.
pub fn attach(runtime: &'static Runtime, name: &str, found: Found, entry: &Entry) -> Result<Held, Errno> {
    match found {
        Found::Known(known) => {
            // The server counts holds; this process needs one.
            let _ = runtime.remote.close(entry.region);
            Ok(known)
        }
        Found::File(file, inode) => attach_file(runtime, name, file, inode, entry, false),
    }
}

/// Attaches through a descriptor that the program came by in a way that went past us: inherited, or received.
pub fn attach_descriptor(runtime: &'static Runtime, path: &str, inode: u64, fd: i32) -> Result<Held, Errno> {
    if let Some(known) = runtime.attached.find(inode) {
        return Ok(known);
    }
    let Some(peek) = peek(runtime, inode) else {
        log::error!(
            "descriptor {fd} ({path}): the page cache does not know which region it is; open it by name"
        );
        return Err(Errno(libc::EIO));
    };
    let entry = runtime.remote.open_id(peek.region).map_err(|error| refused(path, &error))?;
    let file = open_both_ways(&format!("/proc/self/fd/{fd}"))?;
    attach_file(runtime, path, file, inode, &entry, false)
}

/// Makes a region without a name, `size` bytes long.
pub fn attach_unnamed(runtime: &'static Runtime, size: u64) -> Result<Held, Errno> {
    let name = "an unnamed region";
    let entry = runtime.remote.create_unnamed(size).map_err(|error| refused(name, &error))?;
    let path = format!("{}/unnamed-{:x}", runtime.directory.control, entry.region.0);
    let file = file::open(&path, OFlags::RDWR | OFlags::CREATE | OFlags::EXCL, 0o600)?;
    let inode = rustix::fs::fstat(file.borrow())?.st_ino;
    let attached = attach_file(runtime, name, file, inode, &entry, true);
    // Forked children come by it through the descriptor.
    let _ = rustix::fs::unlink(path.as_str());
    attached
}

/// A descriptor for reading and writing of a file that is ours, whatever its mode says to the program.
fn open_both_ways(path: &str) -> Result<OwnFd, Errno> {
    match file::open(path, OFlags::RDWR, 0) {
        Err(Errno(libc::EACCES)) => file::with_access(path, || file::open(path, OFlags::RDWR, 0)),
        opened => opened,
    }
}

fn attach_file(
    runtime: &'static Runtime,
    name: &str,
    file: OwnFd,
    inode: u64,
    entry: &Entry,
    unnamed: bool,
) -> Result<Held, Errno> {
    let mut by_inode = runtime.attached.by_inode.lock();
    if let Some(known) = by_inode.get_mut(&inode) {
        known.spare.push(file);
        let index = known.index;
        drop(by_inode);
        let _ = runtime.remote.close(entry.region);
        return handle::find(index).map(Held::new).ok_or(Errno(libc::EIO));
    }
    if by_inode.len() == HANDLES_MAX {
        log::error!("{name}: this process has {HANDLES_MAX} regions open, which is the limit");
        return Err(Errno(libc::EMFILE));
    }
    let control = runtime.directory.control_path(inode);
    let tracking = runtime.engine().tracking();
    let (mut cache, mut found) = RegionFile::attach(file, control.clone(), entry.region.0, tracking)?;
    let mut region = Region::new(entry.region, cache);
    if found.alone && !is_pending_there(runtime, name, &region)? {
        // Its stores are of no use without those that are gone: as if its processes had been killed.
        let again = open_both_ways(&format!("/proc/self/fd/{}", region.cache.fd().raw()))?;
        region.cache.control().magic.store(0, Ordering::SeqCst);
        region.cache.detach();
        region.cache.unlock_host();
        region.cache.close_files();
        (cache, found) = RegionFile::attach(again, control, entry.region.0, tracking)?;
        region = Region::new(entry.region, cache);
    }
    let primed = match (found.fresh, found.given_up) {
        (false, _) => Ok(()),
        (true, false) => prime(&region, entry, unnamed),
        (true, true) => ask_again(runtime, name, entry).and_then(|entry| prime(&region, &entry, unnamed)),
    };
    if found.suspects {
        region.suspect_everything();
    }
    region.cache.unlock_host();
    primed?;
    let (place, _) = region.pending_place();
    if place != RegionId(0) {
        region.note_place(&runtime.remote);
    }
    log::debug!(
        "{name}: region {} at epoch {}, {} bytes{}",
        entry.region,
        region.view(),
        entry.size,
        if found.fresh { "" } else { ", page cache warm" }
    );
    let index = {
        let mut numbers = runtime.attached.numbers.lock();
        numbers.1.pop().unwrap_or_else(|| {
            numbers.0 += 1;
            numbers.0 - 1
        })
    };
    let attached = handle::enter(Handle {
        region,
        index,
        name: format!("{}{name}", if unnamed { "" } else { config().prefix.as_str() }),
        faults: AtomicU64::new(0),
        descriptors: AtomicU32::new(0),
        unnamed,
        offset: QuietMutex::new(()),
        inner_reads: AtomicBool::new(false),
        inner_writes: AtomicBool::new(false),
        record_locks: AtomicBool::new(false),
        late_errno: AtomicU32::new(0),
        writing: AtomicU64::new(0),
        users: AtomicU32::new(0),
        released: AtomicBool::new(false),
    });
    by_inode.insert(inode, Known { index, spare: Vec::new() });
    Ok(Held::new(attached))
}

/// Gives a region up when nothing in the process shows it any more: at once if it has no name, else when many lie idle.
pub fn release_if_idle(runtime: &'static Runtime, handle: &'static Handle) {
    if !handle.is_idle(&runtime.mappings.write()) {
        return;
    }
    // What was stored through a mapping since the last close goes up first; what can't stays, and so does the region.
    if handle.region.has_marks() && !handle.unnamed && handle.commit(CommitOptions::default()).is_err() {
        return;
    }
    let nameless = handle.unnamed || handle.region.cache.is_unlinked();
    // A forked child that could not tell the server yet holds it by our hold.
    let Some(0) = forget(runtime, handle, if nameless { 0 } else { IDLE_KEPT }) else { return };
    if let Err(error) = runtime.remote.close(handle.region.id) {
        log::debug!("{}: {error}", handle.name);
    }
}

/// In a forked child: what nothing shows is opened anew when it is wanted. The hold on it is the parent's.
pub fn forget_idle(runtime: &Runtime, handle: &Handle) {
    forget(runtime, handle, 0);
}

/// Gives up a region that nothing shows, if more than `kept` are known. Returns the heirs that it had then; `None` if it stays.
fn forget(runtime: &Runtime, handle: &Handle, kept: usize) -> Option<u64> {
    let mut by_inode = runtime.attached.by_inode.lock();
    // Another thread may have opened it meanwhile, or given it up. With the table held from the look to the end: whoever maps
    // the region holds it too, and looks whether it is given up.
    let table = runtime.mappings.write();
    let inode = handle.region.cache.inode;
    if by_inode.len() <= kept
        || by_inode.get(&inode).map(|known| known.index) != Some(handle.index)
        || !handle.is_idle(&table)
    {
        return None;
    }
    by_inode.remove(&inode);
    // No fork notes another while the lock is held, and the note is gone with the files.
    let heirs = handle.region.cache.control().heirs.load(Ordering::SeqCst);
    handle.release();
    drop(table);
    runtime.attached.numbers.lock().1.push(handle.index);
    Some(heirs)
}

/// What the server says of a region now: the last of those who had it may have committed since it was opened for us.
fn ask_again(runtime: &Runtime, name: &str, entry: &Entry) -> Result<Entry, Errno> {
    let now = runtime.remote.open_id(entry.region).map_err(|error| refused(name, &error))?;
    let _ = runtime.remote.close(entry.region);
    Ok(now)
}

/// Of a page cache that is found again: whether what is pending of it, if anything is, is at the server still.
fn is_pending_there(runtime: &Runtime, name: &str, region: &Region<RegionFile>) -> Result<bool, Errno> {
    let (known, _) = region.pending_place();
    if known == RegionId(0) {
        return Ok(true);
    }
    let has_pending = region.has_pending();
    match runtime.remote.keep(region.id, known) {
        Ok((place, _)) if place == known => return Ok(true),
        Ok(_) | Err(RemoteError::Answer { .. }) => {}
        Err(_) if !has_pending => {}
        Err(error) => {
            region.cache.detach();
            region.cache.unlock_host();
            return Err(refused(name, &error));
        }
    }
    if !has_pending {
        region.forget_pending();
        return Ok(true);
    }
    log::error!(
        "{name}: what was stored, and not committed before its programs ended, is no longer at the server: it is lost"
    );
    Ok(false)
}

/// Tells a fresh control file what the server said.
fn prime(region: &Region<RegionFile>, entry: &Entry, unnamed: bool) -> Result<(), Errno> {
    let control = region.cache.control();
    region.cache.set_size(entry.size)?;
    control.server_size.store(entry.size, Ordering::SeqCst);
    control.fetchable.store(PageIndex::ceil(entry.size).0, Ordering::SeqCst);
    control.cut.store(u64::MAX, Ordering::SeqCst);
    control.unnamed.store(unnamed.into(), Ordering::SeqCst);
    control.view.store(entry.epoch.0, Ordering::SeqCst);
    region.forget_pending();
    times::prime(control, entry);
    Ok(())
}
