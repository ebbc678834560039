//! Names: keeping the local tree in step with the server's namespace, which is the authority.
//!
//! Owns: lookup, creation, removal, renaming, listing. Called by: abi's path operations. Must not: hold the names lock while
//! the program's memory is touched.

use netmem_protocol::control::{Create, Entry, EntryKind, Rename};
use netmem_protocol::{ErrorCode, RegionName};
use rustix::fs::{Mode, OFlags};

use super::attach::{self, Held, peek};
use super::paths::{Name, Tail};
use super::{Runtime, directory, times};
use crate::log;
use crate::remote::RemoteError;
use crate::sync::QuietGuard;
use crate::sys::errno::Errno;
use crate::sys::file;

/// Held while names change, in this process and on this host.
struct NamesLock<'a> {
    runtime: &'a Runtime,
    _process: QuietGuard<'a, ()>,
}

impl Drop for NamesLock<'_> {
    fn drop(&mut self) {
        file::unlock(&self.runtime.directory.names_lock);
    }
}

fn lock(runtime: &Runtime) -> Result<NamesLock<'_>, Errno> {
    let process = runtime.names.lock();
    file::lock_exclusive(&runtime.directory.names_lock)?;
    Ok(NamesLock { runtime, _process: process })
}

/// The errno of a refusal; one line for those that are not everyday answers.
fn refused(name: &str, error: &RemoteError) -> Errno {
    let everyday = matches!(
        error.code(),
        Some(
            ErrorCode::NotFound
                | ErrorCode::Exists
                | ErrorCode::NotEmpty
                | ErrorCode::IsDirectory
                | ErrorCode::NotDirectory
        )
    );
    if !everyday {
        log::error!("{name}: {error}");
    }
    Errno(error.errno())
}

fn check(name: &Name) -> Result<(), Errno> {
    RegionName::parse_directory(&name.0).map(drop).map_err(|code| {
        log::debug!("{}: no region can have this name ({code:?})", name.0);
        Errno(code.errno())
    })
}

/// Looks a name up at the server and brings the local tree in step. Returns the local path; the kernel answers the rest.
pub fn lookup(runtime: &'static Runtime, name: &Name) -> Result<(String, Entry), Errno> {
    check(name)?;
    let _names = lock(runtime)?;
    match runtime.remote.lookup(&name.0) {
        Ok(entry) => {
            let (local, entry) = bring_in_line_again(runtime, &name.0, entry)?;
            if name.is_of_directory() && entry.kind == EntryKind::Region {
                return Err(Errno(libc::ENOTDIR));
            }
            Ok((local, entry))
        }
        Err(error) => {
            if error.code() == Some(ErrorCode::NotFound) {
                directory::remove_all(&runtime.directory.local(&name.0));
            }
            Err(refused(&name.0, &error))
        }
    }
}

/// What an open comes to.
pub enum Opened {
    /// A directory: its local path.
    Directory(String),
    /// A region: its local path, and whether the open made it.
    Region(String, Held, bool),
}

/// open(2) up to the descriptor: the region is attached, at the newest epoch, and its cache file is there.
pub fn open(runtime: &'static Runtime, name: &Name, flags: i32, mode: u32) -> Result<Opened, Errno> {
    check(name)?;
    if name.is_of_directory() {
        if name.1 == Tail::Slash && flags & libc::O_CREAT != 0 {
            return Err(Errno(libc::EISDIR));
        }
        // Nothing is made by such a name, and a file that is there is none.
        lookup(runtime, name)?;
    }
    let create = match (flags & libc::O_CREAT != 0, flags & libc::O_EXCL != 0) {
        (false, _) => Create::Never,
        (true, false) => Create::IfMissing,
        (true, true) => Create::Exclusive,
    };
    let is_root = name.0.is_empty();
    let answer = {
        let _names = lock(runtime)?;
        let mode = if create == Create::Never { mode } else { mode & !umask() & 0o7777 };
        let answer =
            if is_root { runtime.remote.lookup("") } else { runtime.remote.open(&name.0, create, mode) };
        match answer {
            Ok(entry) if entry.kind == EntryKind::Region && flags & libc::O_DIRECTORY != 0 => {
                let _ = runtime.remote.close(entry.region);
                return Err(Errno(libc::ENOTDIR));
            }
            Ok(entry) if entry.kind == EntryKind::Region => {
                // Found as long as the name is this entry's: a moment later it may be another's, here or on another host.
                let found = bring_in_line(runtime, &name.0, &entry)
                    .and_then(|local| Ok((attach::find_file(runtime, &local)?, local)));
                match found {
                    Ok((found, local)) => Ok((local, entry, found)),
                    Err(errno) => {
                        let _ = runtime.remote.close(entry.region);
                        return Err(errno);
                    }
                }
            }
            Ok(entry) => Err((Some(entry), Errno(libc::EISDIR))),
            Err(error) if error.code() == Some(ErrorCode::IsDirectory) => Err((None, Errno(libc::EISDIR))),
            Err(error) => {
                if error.code() == Some(ErrorCode::NotFound) && create == Create::Never {
                    directory::remove_all(&runtime.directory.local(&name.0));
                }
                return Err(refused(&name.0, &error));
            }
        }
    };
    match answer {
        Ok((local, entry, found)) => {
            let handle = attach::attach(runtime, &name.0, found, &entry)?;
            if handle.region.view().0 < entry.epoch.0 {
                handle.refresh()?;
            }
            Ok(Opened::Region(local, handle, entry.created))
        }
        Err(_) if create == Create::Exclusive => Err(Errno(libc::EEXIST)),
        Err(_) if flags & libc::O_ACCMODE != libc::O_RDONLY || flags & libc::O_CREAT != 0 => {
            Err(Errno(libc::EISDIR))
        }
        Err(_) => {
            list(runtime, name)?;
            Ok(Opened::Directory(runtime.directory.local(&name.0)))
        }
    }
}

/// Brings the entries of a directory in step, for whoever reads it.
pub fn list(runtime: &'static Runtime, name: &Name) -> Result<(), Errno> {
    check(name)?;
    let _names = lock(runtime)?;
    let mut known = Vec::new();
    let mut after = String::new();
    loop {
        let listing = runtime.remote.list(&name.0, &after).map_err(|error| refused(&name.0, &error))?;
        for (last, entry) in &listing.entries {
            let full = if name.0.is_empty() { last.clone() } else { format!("{}/{last}", name.0) };
            match bring_in_line_again(runtime, &full, entry.clone()) {
                Ok(_) => known.push(last.clone()),
                // Removed since it was listed.
                Err(Errno(libc::ENOENT)) => {}
                Err(errno) => return Err(errno),
            }
        }
        match listing.entries.last() {
            Some((last, _)) if listing.more => after = last.clone(),
            _ => break,
        }
    }
    let local = runtime.directory.local(&name.0);
    make_local_directory(runtime, &name.0)?;
    for here in directory::list(&local)? {
        if !known.contains(&here) {
            directory::remove_all(&format!("{local}/{here}"));
        }
    }
    Ok(())
}

/// How often a name is looked up at the most because another host gave it to something else.
const LOOKUPS_MAX: u32 = 64;

/// The same for an entry that nobody holds: another host may replace it meanwhile, and what the name stands for then is what it is.
fn bring_in_line_again(
    runtime: &'static Runtime,
    name: &str,
    mut entry: Entry,
) -> Result<(String, Entry), Errno> {
    for _ in 1..LOOKUPS_MAX {
        match bring_in_line(runtime, name, &entry) {
            Err(Errno(libc::ENOENT)) => {
                entry = runtime.remote.lookup(name).map_err(|error| refused(name, &error))?;
            }
            result => return result.map(|local| (local, entry)),
        }
    }
    bring_in_line(runtime, name, &entry).map(|local| (local, entry))
}

/// Makes the local tree show an entry of the server's. The names lock is held.
fn bring_in_line(runtime: &'static Runtime, name: &str, entry: &Entry) -> Result<String, Errno> {
    let local = runtime.directory.local(name);
    if entry.kind == EntryKind::Directory {
        make_local_directory(runtime, name)?;
        dress_directory(&local, entry)?;
        return Ok(local);
    }
    if let Ok(stat) = rustix::fs::lstat(local.as_str()) {
        if rustix::fs::FileType::from_raw_mode(stat.st_mode) != rustix::fs::FileType::RegularFile {
            directory::remove_all(&local);
        } else if let Some(known) = peek(runtime, stat.st_ino) {
            if known.region == entry.region {
                let local = follow(runtime, name, &local, stat.st_ino, (known.view, entry))?;
                times::follow(runtime, stat.st_ino, known.times, entry);
                return Ok(local);
            }
        } else if let Some(dressed) = attach::unattached(runtime, stat.st_ino, || dress(&local, entry))? {
            // Listed before and never opened: it has no pages, only a size.
            return dressed.map(|()| local);
        } else {
            // Another process attached to it just now.
            return Ok(local);
        }
    }
    if let Some((parent, _)) = name.rsplit_once('/') {
        make_local_directory(runtime, parent)?;
    }
    // In one step, for who looks the name up without asking us.
    let fresh = format!("{}/new", runtime.directory.control);
    let _ = rustix::fs::unlink(fresh.as_str());
    file::open(&fresh, OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL, 0o600)?;
    dress(&fresh, entry)?;
    rustix::fs::rename(fresh.as_str(), local.as_str())?;
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
    Ok(rustix::fs::utimensat(rustix::fs::CWD, local, &times, rustix::fs::AtFlags::empty())?)
}

/// Gives a directory the entry's mode and time. We can always use it, whatever its mode.
fn dress_directory(local: &str, entry: &Entry) -> Result<(), Errno> {
    let stat = rustix::fs::lstat(local)?;
    let mode = entry.mode & 0o7777 | 0o700;
    if stat.st_mode & 0o7777 != mode {
        rustix::fs::chmod(local, Mode::from_raw_mode(mode))?;
    }
    let time = time_of(entry);
    if stat.st_mtime != time.tv_sec || stat.st_mtime_nsec as i64 != time.tv_nsec {
        let access = rustix::fs::Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT as _ };
        let times = rustix::fs::Timestamps { last_access: access, last_modification: time };
        rustix::fs::utimensat(rustix::fs::CWD, local, &times, rustix::fs::AtFlags::empty())?;
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

fn make_local_directory(runtime: &Runtime, name: &str) -> Result<(), Errno> {
    let mut path = runtime.directory.tree.clone();
    for part in name.split('/').filter(|part| !part.is_empty()) {
        path = format!("{path}/{part}");
        match rustix::fs::mkdir(path.as_str(), Mode::from_raw_mode(0o755)) {
            Ok(()) => rustix::fs::chmod(path.as_str(), Mode::from_raw_mode(0o755))?,
            Err(rustix::io::Errno::EXIST) => {
                let stat = rustix::fs::lstat(path.as_str())?;
                if rustix::fs::FileType::from_raw_mode(stat.st_mode) != rustix::fs::FileType::Directory {
                    rustix::fs::unlink(path.as_str())?;
                    rustix::fs::mkdir(path.as_str(), Mode::from_raw_mode(0o755))?;
                }
            }
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

/// unlink(2), and rmdir(2) with `directory`.
pub fn remove(runtime: &'static Runtime, name: &Name, is_directory: bool) -> Result<(), Errno> {
    check(name)?;
    if name.is_of_directory() {
        lookup(runtime, name)?;
        match (is_directory, name.1) {
            (false, _) => return Err(Errno(libc::EISDIR)),
            (true, Tail::Dot) => return Err(Errno(libc::EINVAL)),
            (true, Tail::DotDot) => return Err(Errno(libc::ENOTEMPTY)),
            (true, Tail::Slash | Tail::None) => {}
        }
    }
    let _names = lock(runtime)?;
    let result = runtime.remote.remove(&name.0, is_directory);
    let local = runtime.directory.local(&name.0);
    match result {
        Ok(()) => {
            directory::remove_all(&local);
            Ok(())
        }
        Err(error) => {
            if error.code() == Some(ErrorCode::NotFound) {
                directory::remove_all(&local);
            }
            Err(refused(&name.0, &error))
        }
    }
}

/// renameat2(2).
pub fn rename(runtime: &'static Runtime, from: &Name, to: &Name, flags: u32) -> Result<(), Errno> {
    check(from)?;
    check(to)?;
    if flags & !(libc::RENAME_NOREPLACE | libc::RENAME_EXCHANGE) != 0 {
        return Err(Errno(libc::EINVAL));
    }
    if matches!(from.1, Tail::Dot | Tail::DotDot) || matches!(to.1, Tail::Dot | Tail::DotDot) {
        return Err(Errno(libc::EBUSY));
    }
    // A slash behind either name: what moves is a directory.
    if (from.is_of_directory() || to.is_of_directory())
        && lookup(runtime, from)?.1.kind != EntryKind::Directory
    {
        return Err(Errno(libc::ENOTDIR));
    }
    let _names = lock(runtime)?;
    let rename = Rename {
        from: from.0.clone(),
        to: to.0.clone(),
        no_replace: flags & libc::RENAME_NOREPLACE != 0,
        exchange: flags & libc::RENAME_EXCHANGE != 0,
    };
    runtime.remote.rename(&rename).map_err(|error| rename_refused(runtime, &rename, &error))?;
    // The server has done it; the local tree only follows, and is rebuilt from the server where it can't.
    let (old, new) = (runtime.directory.local(&from.0), runtime.directory.local(&to.0));
    if let Some((parent, _)) = to.0.rsplit_once('/') {
        make_local_directory(runtime, parent)?;
    }
    let local_flags = rustix::fs::RenameFlags::from_bits_retain(flags & libc::RENAME_EXCHANGE);
    if rustix::fs::renameat_with(rustix::fs::CWD, old.as_str(), rustix::fs::CWD, new.as_str(), local_flags)
        .is_err()
    {
        if rename.exchange && rustix::fs::lstat(old.as_str()).is_err() {
            // The one was never seen here. The other may be open, and is not gone: it has the one's name now.
            let _ = rustix::fs::rename(new.as_str(), old.as_str());
            return Ok(());
        }
        directory::remove_all(&new);
        let _ = rustix::fs::rename(old.as_str(), new.as_str());
    }
    Ok(())
}

/// The kernel looks at the directories of both names before anything else, and finds that what would be replaced is not empty where it
/// holds the other.
fn rename_refused(runtime: &Runtime, rename: &Rename, error: &RemoteError) -> Errno {
    let parent = |name: &str| {
        let parent = name.rsplit_once('/').map_or("", |(parent, _)| parent);
        runtime.remote.lookup(parent).map(|entry| entry.kind)
    };
    match error.code() {
        Some(ErrorCode::NotFound)
            if parent(&rename.from).is_ok()
                && parent(&rename.to).is_ok_and(|kind| kind == EntryKind::Region) =>
        {
            Errno(libc::ENOTDIR)
        }
        Some(ErrorCode::IsDirectory) if rename.from.starts_with(&format!("{}/", rename.to)) => {
            Errno(libc::ENOTEMPTY)
        }
        // Everyday answers, too: a program may ask to find out.
        Some(ErrorCode::Invalid) => Errno(error.errno()),
        Some(_) | None => refused(&rename.from, error),
    }
}

/// mkdir(2).
pub fn make_directory(runtime: &'static Runtime, name: &Name, mode: u32) -> Result<(), Errno> {
    check(name)?;
    if name.0.is_empty() {
        return Err(Errno(libc::EEXIST));
    }
    if matches!(name.1, Tail::Dot | Tail::DotDot) {
        return lookup(runtime, name).and(Err(Errno(libc::EEXIST)));
    }
    let _names = lock(runtime)?;
    let mode = mode & !umask() & 0o7777;
    runtime.remote.make_dir(&name.0, mode).map_err(|error| refused(&name.0, &error))?;
    make_local_directory(runtime, &name.0)?;
    let _ = rustix::fs::chmod(runtime.directory.local(&name.0).as_str(), Mode::from_raw_mode(mode | 0o700));
    Ok(())
}

/// The directories above a name that came in by a glob are made as needed.
pub fn make_parents(runtime: &'static Runtime, name: &Name) {
    let mut at = 0;
    while let Some(slash) = name.0[at..].find('/') {
        at += slash;
        let _ = runtime.remote.make_dir(&name.0[..at], 0o755);
        at += 1;
    }
}

/// chmod(2).
pub fn change_mode(runtime: &'static Runtime, name: &Name, mode: u32) -> Result<(), Errno> {
    check(name)?;
    if name.is_of_directory() {
        lookup(runtime, name)?;
    }
    runtime
        .remote
        .set_attr(&name.0, Some(mode & 0o7777), None)
        .map(drop)
        .map_err(|error| refused(&name.0, &error))
}

/// utimensat(2) and its kin, with the kernel's own call as `make`: the server keeps when the file was changed.
pub fn set_times(
    runtime: &'static Runtime,
    name: Option<&Name>,
    inode: u64,
    modified: Option<u64>,
    make: impl FnOnce() -> i32,
) -> Result<i32, Errno> {
    times::settle(inode, runtime);
    let result = make();
    if result < 0 {
        return Err(crate::sys::errno::get());
    }
    if let (Some(name), Some(modified)) = (name, modified) {
        runtime.remote.set_attr(&name.0, None, Some(modified)).map_err(|error| refused(&name.0, &error))?;
    }
    times::set(runtime, inode, modified);
    Ok(result)
}

/// The process's umask, read without changing it even for a moment.
fn umask() -> u32 {
    let status = file::read_whole("/proc/self/status").unwrap_or_default();
    let text = String::from_utf8_lossy(&status);
    let line = text.lines().find_map(|line| line.strip_prefix("Umask:"));
    line.and_then(|mask| u32::from_str_radix(mask.trim(), 8).ok()).unwrap_or(0o022)
}
