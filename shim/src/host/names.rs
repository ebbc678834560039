//! Names: keeping the local tree in step with the server's namespace, which is the authority.
//!
//! Owns: lookup, creation, removal, renaming, listing. Called by: abi's path operations. Must not: hold the names lock while
//! the program's memory is touched.

use std::ffi::CString;

use netmem_protocol::control::{Create, Entry, EntryKind, Reached, Rename, Resolve};
use netmem_protocol::{ErrorCode, RegionName};
use rustix::fs::Mode;

use super::attach::{self, Held};
use super::paths::{self, Name, Tail};
use super::{Runtime, directory, times, tree};
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
pub fn refused(name: &str, error: &RemoteError) -> Errno {
    let everyday = matches!(
        error.code(),
        Some(
            ErrorCode::NotFound
                | ErrorCode::Exists
                | ErrorCode::NotEmpty
                | ErrorCode::IsDirectory
                | ErrorCode::NotDirectory
                | ErrorCode::Link
                | ErrorCode::TooManyLinks
                | ErrorCode::ReadOnly
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
            match entry.kind {
                EntryKind::Region | EntryKind::Snapshot if name.is_of_directory() => {
                    Err(Errno(libc::ENOTDIR))
                }
                // It is what the link leads to that must be one.
                EntryKind::Symlink if name.is_of_directory() => Err(Errno(libc::ELOOP)),
                EntryKind::Region | EntryKind::Snapshot | EntryKind::Directory | EntryKind::Symlink => {
                    Ok((local, entry))
                }
            }
        }
        Err(error) => {
            if error.code() == Some(ErrorCode::NotFound) {
                tree::forget(runtime, &name.0);
            }
            Err(refused(&name.0, &error))
        }
    }
}

/// What an open comes to.
pub enum Opened {
    /// A directory: its local path.
    Directory(String),
    /// A symbolic link itself (`O_PATH` with `O_NOFOLLOW`): its local path.
    Link(String),
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
            Ok(entry) if entry.kind.has_pages() && flags & libc::O_DIRECTORY != 0 => {
                let _ = runtime.remote.close(entry.region);
                return Err(Errno(libc::ENOTDIR));
            }
            Ok(entry) if entry.kind == EntryKind::Snapshot && would_write(flags) => {
                let _ = runtime.remote.close(entry.region);
                return Err(Errno(libc::EROFS));
            }
            Ok(entry) if entry.kind.has_pages() => {
                // Found as long as the name is this entry's: a moment later it may be another's, here or on another host.
                let found = tree::bring_in_line(runtime, &name.0, &entry)
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
            Err(error) if error.code() == Some(ErrorCode::Link) => Err((None, Errno(libc::ELOOP))),
            Err(error) => {
                if error.code() == Some(ErrorCode::NotFound) && create == Create::Never {
                    tree::forget(runtime, &name.0);
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
        Err((_, Errno(libc::ELOOP))) => open_link(runtime, name, flags),
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

/// Whether an open is for more than reading.
fn would_write(flags: i32) -> bool {
    flags & libc::O_PATH == 0 && (flags & libc::O_ACCMODE != libc::O_RDONLY || flags & libc::O_TRUNC != 0)
}

/// The open of a name with a symbolic link on the way, or at its end: ELOOP, unless the link itself is meant.
fn open_link(runtime: &'static Runtime, name: &Name, flags: i32) -> Result<Opened, Errno> {
    if flags & libc::O_NOFOLLOW != 0 {
        let (local, entry) = lookup(runtime, name)?;
        if entry.kind == EntryKind::Symlink && flags & libc::O_DIRECTORY != 0 {
            return Err(Errno(libc::ENOTDIR));
        }
        if entry.kind == EntryKind::Symlink && flags & libc::O_PATH != 0 {
            return Ok(Opened::Link(local));
        }
    }
    Err(Errno(libc::ELOOP))
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
    let local = tree::place(runtime, &name.0);
    tree::make_directory(runtime, &name.0)?;
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
        match tree::bring_in_line(runtime, name, &entry) {
            Err(Errno(libc::ENOENT)) => {
                entry = runtime.remote.lookup(name).map_err(|error| refused(name, &error))?;
            }
            result => return result.map(|local| (local, entry)),
        }
    }
    tree::bring_in_line(runtime, name, &entry).map(|local| (local, entry))
}

/// unlink(2), and rmdir(2) with `directory`.
pub fn remove(runtime: &'static Runtime, name: &Name, is_directory: bool) -> Result<(), Errno> {
    check(name)?;
    if name.is_of_directory() {
        match lookup(runtime, name) {
            // With a slash behind it; one with a dot behind it has been followed by now.
            Err(Errno(libc::ELOOP)) if is_symlink(runtime, name) => return Err(Errno(libc::ENOTDIR)),
            looked => looked?,
        };
        match (is_directory, name.1) {
            (false, _) => return Err(Errno(libc::EISDIR)),
            (true, Tail::Dot) => return Err(Errno(libc::EINVAL)),
            (true, Tail::DotDot) => return Err(Errno(libc::ENOTEMPTY)),
            (true, Tail::Slash | Tail::None) => {}
        }
    }
    let _names = lock(runtime)?;
    let result = runtime.remote.remove(&name.0, is_directory);
    match result {
        Ok(()) => {
            tree::forget(runtime, &name.0);
            Ok(())
        }
        Err(error) => {
            if error.code() == Some(ErrorCode::NotFound) {
                tree::forget(runtime, &name.0);
            }
            Err(refused(&name.0, &error))
        }
    }
}

/// Whether a name is a symbolic link's own.
fn is_symlink(runtime: &'static Runtime, name: &Name) -> bool {
    let plain = Name::plain(name.0.clone());
    name.1 == Tail::Slash && lookup(runtime, &plain).is_ok_and(|(_, entry)| entry.kind == EntryKind::Symlink)
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
        && lookup(runtime, &Name::plain(from.0.clone()))?.1.kind != EntryKind::Directory
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
    let (old, new) = (tree::place(runtime, &from.0), tree::replaced(runtime, &to.0)?);
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
            if parent(&rename.from).is_ok() && parent(&rename.to).is_ok_and(EntryKind::has_pages) =>
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
    tree::make_directory(runtime, &name.0)?;
    let _ = rustix::fs::chmod(runtime.directory.local(&name.0).as_str(), Mode::from_raw_mode(mode | 0o700));
    Ok(())
}

/// symlink(2).
pub fn make_symlink(runtime: &'static Runtime, name: &Name, target: &[u8]) -> Result<(), Errno> {
    check(name)?;
    if name.0.is_empty() || matches!(name.1, Tail::Dot | Tail::DotDot) {
        return Err(Errno(libc::EEXIST));
    }
    if name.1 == Tail::Slash {
        // Nothing but a directory can be made under such a name.
        return lookup(runtime, &Name::plain(name.0.clone())).and(Err(Errno(libc::EEXIST)));
    }
    let _names = lock(runtime)?;
    let entry = runtime.remote.make_symlink(&name.0, target).map_err(|error| refused(&name.0, &error))?;
    tree::bring_in_line(runtime, &name.0, &entry).map(drop)
}

/// link(2). A symbolic link that is not followed has one name: a second one is a link that says the same.
pub fn link(runtime: &'static Runtime, from: &Name, to: &Name, follow: bool) -> Result<(), Errno> {
    check(to)?;
    let (_, entry) = lookup(runtime, from)?;
    if to.0.is_empty() || matches!(to.1, Tail::Dot | Tail::DotDot) {
        return Err(Errno(libc::EEXIST));
    }
    if to.1 == Tail::Slash {
        // Nothing but a directory can be made under such a name.
        return lookup(runtime, &Name::plain(to.0.clone())).and(Err(Errno(libc::EEXIST)));
    }
    if entry.kind == EntryKind::Symlink {
        if follow {
            return Err(Errno(libc::ELOOP));
        }
        return make_symlink(runtime, to, &entry.target);
    }
    let _names = lock(runtime)?;
    let entry = runtime.remote.link(&from.0, &to.0).map_err(|error| match error.code() {
        Some(ErrorCode::IsDirectory) => Errno(libc::EPERM),
        _ => refused(&to.0, &error),
    })?;
    tree::add_name(runtime, &from.0, &to.0, &entry);
    tree::bring_in_line(runtime, &to.0, &entry).map(drop)
}

/// Where a path leads.
pub enum Leads {
    /// To a name, which may be free, and whether it must be a directory's.
    To(Name, bool),
    /// Out of the namespace: a path of the kernel's.
    Out(Vec<u8>),
}

/// Follows the symbolic links of a path that starts in the directory `base`.
pub fn resolve(runtime: &'static Runtime, base: String, path: &str, follow: bool) -> Result<Leads, Errno> {
    let mut request = Resolve { base, path: path.to_owned(), follow, links: 0 };
    loop {
        let resolved = runtime.remote.resolve(&request).map_err(|error| match error.code() {
            // What a link says may be anything.
            Some(ErrorCode::NameTooLong) => Errno(error.errno()),
            _ => refused(path, &error),
        })?;
        if resolved.reached != Reached::Outside {
            return Ok(Leads::To(Name::plain(resolved.name), resolved.slash));
        }
        // An absolute target may lead back in; only the client knows where the namespace begins for its programs.
        let out = match String::from_utf8(resolved.outside) {
            Ok(path) if path.starts_with('/') => path,
            Ok(path) => paths::above_root(&path),
            Err(error) => return Ok(Leads::Out(error.into_bytes())),
        };
        // The end of a link is followed as far as the path's own end is, and no slash may get lost.
        match paths::start(libc::AT_FDCWD, &out) {
            Some((base, path)) => request = Resolve { base, path, follow, links: resolved.links },
            None => return Ok(Leads::Out(out.into_bytes())),
        }
    }
}

/// What a symbolic link says that was seen here and leads out of the prefix by itself. Asks nobody.
pub fn known_to_leave(runtime: &Runtime, name: &Name) -> Option<CString> {
    let said = rustix::fs::readlink(runtime.directory.local(&name.0).as_str(), Vec::new()).ok()?;
    let leaves = |said: &str| said.starts_with('/') && paths::start(libc::AT_FDCWD, said).is_none();
    said.to_str().is_ok_and(leaves).then_some(said)
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
