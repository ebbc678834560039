//! The local tree: cache files, directories and symbolic links under their names, as the server has them.
//!
//! Owns: what lies in the tree. Called by: names, with the names lock held. Must not: go through a symbolic link: what another host has
//! made a directory meanwhile may be one here.

use netmem_protocol::control::{Entry, EntryKind};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat};

use super::attach::{self, peek};
use super::names::refused;
use super::{Runtime, directory, times};
use crate::sys::errno::Errno;
use crate::sys::file;

fn kind_of(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// The local path of a name, with nothing but directories above it.
pub fn place(runtime: &Runtime, name: &str) -> String {
    for (at, _) in name.match_indices('/') {
        let above = runtime.directory.local(&name[..at]);
        match rustix::fs::lstat(above.as_str()) {
            Ok(stat) if kind_of(&stat) == FileType::Directory => {}
            Ok(_) => {
                let _ = rustix::fs::unlink(above.as_str());
                break;
            }
            Err(_) => break,
        }
    }
    runtime.directory.local(name)
}

/// A name is gone.
pub fn forget(runtime: &Runtime, name: &str) {
    directory::remove_all(&place(runtime, name));
}

/// The local tree has another file under this name.
pub fn replaced(runtime: &Runtime, name: &str) -> Result<String, Errno> {
    let local = place(runtime, name);
    if let Some((parent, _)) = name.rsplit_once('/') {
        make_directory(runtime, parent)?;
    }
    Ok(local)
}

/// Makes the local tree show an entry of the server's. The names lock is held.
pub fn bring_in_line(runtime: &'static Runtime, name: &str, entry: &Entry) -> Result<String, Errno> {
    let local = place(runtime, name);
    match entry.kind {
        EntryKind::Region | EntryKind::Snapshot => {}
        EntryKind::Directory => {
            make_directory(runtime, name)?;
            dress_directory(&local, entry)?;
            return Ok(local);
        }
        EntryKind::Symlink => return bring_link_in_line(runtime, name, local, entry),
    }
    if let Ok(stat) = rustix::fs::lstat(local.as_str()) {
        let alone = stat.st_nlink == 1 && entry.links <= 1;
        match peek(runtime, stat.st_ino) {
            _ if kind_of(&stat) != FileType::RegularFile => directory::remove_all(&local),
            Some(known) if known.region == entry.region => {
                if stat.st_nlink != u64::from(entry.links) && !alone {
                    gather(runtime, name, entry)?;
                }
                let local = follow(runtime, name, &local, stat.st_ino, (known.view, entry))?;
                times::follow(runtime, stat.st_ino, known.times, entry);
                return Ok(local);
            }
            Some(_) => {}
            // Listed before and never opened: it has no pages, only a size. Or another process attached to it just now.
            None if alone => {
                return attach::unattached(runtime, stat.st_ino, || dress(&local, entry))?
                    .unwrap_or(Ok(()))
                    .map(|()| local);
            }
            None => return gather(runtime, name, entry).map(|()| local),
        }
    }
    if entry.links > 1 {
        return gather(runtime, name, entry).map(|()| local);
    }
    make_file(runtime, name, entry)
}

/// Where a file is made that is to get a name in one step, for who looks the name up without asking us.
fn aside(runtime: &Runtime) -> String {
    let fresh = format!("{}/new", runtime.directory.control);
    let _ = rustix::fs::unlink(fresh.as_str());
    fresh
}

/// A cache file without pages.
fn make_file(runtime: &Runtime, name: &str, entry: &Entry) -> Result<String, Errno> {
    let (fresh, local) = (aside(runtime), replaced(runtime, name)?);
    file::open(&fresh, OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL, 0o600)?;
    dress(&fresh, entry)?;
    rustix::fs::rename(fresh.as_str(), local.as_str())?;
    Ok(local)
}

/// All names of a region lead to one cache file here, the one that has pages if there is one, and no other name does: the kernel counts
/// them, and whoever opens one meets the pages of the others.
fn gather(runtime: &'static Runtime, name: &str, entry: &Entry) -> Result<(), Errno> {
    let mut names = runtime.remote.names(entry.region).map_err(|error| refused(name, &error))?;
    if !names.iter().any(|one| one == name) {
        // It has lost the name since we asked. Whoever asks again is told.
        names.push(name.to_owned());
    }
    let here: Vec<(String, Stat)> = names
        .iter()
        .map(|one| place(runtime, one))
        .filter_map(|local| rustix::fs::lstat(local.as_str()).ok().map(|stat| (local, stat)))
        .filter(|(_, stat)| kind_of(stat) == FileType::RegularFile)
        .collect();
    let has_its_pages =
        |stat: &Stat| peek(runtime, stat.st_ino).is_some_and(|known| known.region == entry.region);
    // One without pages that has no other name may be anybody's: its size is all that it has.
    let is_free = |stat: &Stat| {
        let shared = here.iter().filter(|(_, other)| other.st_ino == stat.st_ino).count() as u64;
        peek(runtime, stat.st_ino).is_none() && shared == stat.st_nlink
    };
    let found = here.iter().find(|(_, stat)| has_its_pages(stat));
    let source = match found.or_else(|| here.iter().find(|(_, stat)| is_free(stat))) {
        Some((local, stat)) if found.is_none() => {
            attach::unattached(runtime, stat.st_ino, || dress(local, entry))?.unwrap_or(Ok(()))?;
            local.clone()
        }
        Some((local, _)) => local.clone(),
        None => {
            directory::remove_all(&place(runtime, name));
            make_file(runtime, name, entry)?
        }
    };
    let inode = rustix::fs::lstat(source.as_str())?.st_ino;
    for one in &names {
        let local = replaced(runtime, one)?;
        if rustix::fs::lstat(local.as_str()).is_ok_and(|stat| stat.st_ino == inode) {
            continue;
        }
        let fresh = aside(runtime);
        rustix::fs::link(source.as_str(), fresh.as_str())?;
        if rustix::fs::rename(fresh.as_str(), local.as_str()).is_err() {
            directory::remove_all(&local);
            rustix::fs::rename(fresh.as_str(), local.as_str())?;
        }
    }
    if rustix::fs::lstat(source.as_str())?.st_nlink > names.len() as u64 {
        let keep: Vec<String> = names.iter().map(|one| runtime.directory.local(one)).collect();
        remove_others(&runtime.directory.tree, inode, &keep);
    }
    Ok(())
}

/// Removes names of a cache file that it has lost at the server: another host removed or moved them, and nobody asked for them here since.
fn remove_others(directory: &str, inode: u64, keep: &[String]) {
    for last in directory::list(directory).unwrap_or_default() {
        let local = format!("{directory}/{last}");
        match rustix::fs::lstat(local.as_str()) {
            Ok(stat) if kind_of(&stat) == FileType::Directory => remove_others(&local, inode, keep),
            Ok(stat) if stat.st_ino == inode && !keep.contains(&local) => {
                _ = rustix::fs::unlink(local.as_str())
            }
            _ => {}
        }
    }
}

/// A further name of a region whose cache file is here under `from`: no request is needed to find it.
pub fn add_name(runtime: &Runtime, from: &str, to: &str, entry: &Entry) {
    let (old, new) = (place(runtime, from), place(runtime, to));
    let its_own = |stat: &Stat| peek(runtime, stat.st_ino).is_some_and(|known| known.region == entry.region);
    if rustix::fs::lstat(old.as_str()).is_ok_and(|stat| its_own(&stat)) {
        directory::remove_all(&new);
        // Where it can't be done, the names are gathered.
        let _ = rustix::fs::link(old.as_str(), new.as_str());
    }
}

/// The same for a symbolic link: it says here what it says at the server, so that what reads the tree by itself sees it as it is.
fn bring_link_in_line(runtime: &Runtime, name: &str, local: String, entry: &Entry) -> Result<String, Errno> {
    let said = rustix::fs::readlink(local.as_str(), Vec::new());
    if said.is_err() || said.is_ok_and(|said| said.as_bytes() != entry.target) {
        directory::remove_all(&local);
        if let Some((parent, _)) = name.rsplit_once('/') {
            make_directory(runtime, parent)?;
        }
        rustix::fs::symlink(entry.target.as_slice(), local.as_str())?;
    }
    set_modified(&local, entry)?;
    Ok(local)
}

/// A cache file that has pages already: if nobody here changed it, it follows the server's newest epoch.
fn follow(
    runtime: &'static Runtime,
    name: &str,
    local: &str,
    inode: u64,
    newest: (u64, &Entry),
) -> Result<String, Errno> {
    let (view, entry) = newest;
    if view < entry.epoch.0 && runtime.attached.find(inode).is_none() {
        // Attaching settles it; it also finds out whether the last holder died.
        let entry = runtime.remote.open_id(entry.region).map_err(|error| refused(name, &error))?;
        let handle = attach::attach(runtime, name, attach::find_file(runtime, local)?, &entry)?;
        if handle.region.view().0 < entry.epoch.0 {
            handle.refresh()?;
        }
    }
    Ok(local.to_owned())
}

/// Gives a cache file without pages the entry's size, mode and time. By its path: a close of a descriptor of it would drop the
/// record locks of a program that is just opening it (see [`attach`]).
fn dress(local: &str, entry: &Entry) -> Result<(), Errno> {
    rustix::fs::chmod(local, Mode::RUSR | Mode::WUSR)?;
    file::truncate(local, entry.size)?;
    rustix::fs::chmod(local, Mode::from_raw_mode(entry.mode & 0o7777))?;
    let time = time_of(entry);
    let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
    Ok(rustix::fs::utimensat(CWD, local, &times, AtFlags::empty())?)
}

/// Gives a directory the entry's mode and time. We can always use it, whatever its mode.
fn dress_directory(local: &str, entry: &Entry) -> Result<(), Errno> {
    let stat = rustix::fs::lstat(local)?;
    let mode = entry.mode & 0o7777 | 0o700;
    if stat.st_mode & 0o7777 != mode {
        rustix::fs::chmod(local, Mode::from_raw_mode(mode))?;
    }
    set_modified(local, entry)
}

/// Gives what has no pages the entry's time.
fn set_modified(local: &str, entry: &Entry) -> Result<(), Errno> {
    let (stat, time) = (rustix::fs::lstat(local)?, time_of(entry));
    if stat.st_mtime != time.tv_sec || stat.st_mtime_nsec as i64 != time.tv_nsec {
        let access = rustix::fs::Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT as _ };
        let times = rustix::fs::Timestamps { last_access: access, last_modification: time };
        rustix::fs::utimensat(CWD, local, &times, AtFlags::SYMLINK_NOFOLLOW)?;
    }
    Ok(())
}

/// When an entry was changed, as the server has it; times before 1970 are negative numbers of the same bits.
fn time_of(entry: &Entry) -> rustix::fs::Timespec {
    let time = entry.modified_ns as i64;
    rustix::fs::Timespec {
        tv_sec: time.div_euclid(1_000_000_000),
        tv_nsec: time.rem_euclid(1_000_000_000) as _,
    }
}

/// Makes a directory and those above it, in the place of whatever else is there.
pub fn make_directory(runtime: &Runtime, name: &str) -> Result<(), Errno> {
    let mut path = runtime.directory.tree.clone();
    for part in name.split('/').filter(|part| !part.is_empty()) {
        path = format!("{path}/{part}");
        match rustix::fs::mkdir(path.as_str(), Mode::from_raw_mode(0o755)) {
            Ok(()) => rustix::fs::chmod(path.as_str(), Mode::from_raw_mode(0o755))?,
            Err(rustix::io::Errno::EXIST) => {
                let stat = rustix::fs::lstat(path.as_str())?;
                if kind_of(&stat) != FileType::Directory {
                    rustix::fs::unlink(path.as_str())?;
                    rustix::fs::mkdir(path.as_str(), Mode::from_raw_mode(0o755))?;
                }
            }
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}
