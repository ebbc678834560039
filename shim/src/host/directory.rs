//! Where the page caches lie: `DIR/STORE-PIDNS/{tree,control}` on a tmpfs.
//!
//! Owns: making, checking and tidying those directories. Called by: host at the first use. Must not: trust a directory that is
//! someone else's: a program without the library would read holes as zeros, so it is 0700 and ours.

use core::sync::atomic::{AtomicPtr, Ordering};

use netmem_protocol::{CacheId, StoreId};
use rustix::fs::{Mode, OFlags};

use crate::config::Config;
use crate::log;
use crate::sys::errno::Errno;
use crate::sys::fd::OwnFd;
use crate::sys::{file, proc};

/// The user's directory, before the server is known.
pub struct Root {
    path: String,
    /// Names this cache to servers.
    pub cache: CacheId,
    lock: OwnFd,
}

/// The directory of one store.
pub struct HostDirectory {
    /// The device of everything in it.
    pub device: u64,
    /// Where the cache files lie under their names; no slash at the end.
    pub tree: String,
    /// Where the control files lie under their inodes.
    pub control: String,
    /// See [`HostDirectory::bell_path`].
    bell: String,
    /// Taken around changes of names. Lock order: 1, after the namespace mutex.
    pub names_lock: OwnFd,
    /// Shared while we live, so that nobody tidies us away.
    alive: OwnFd,
    /// What the store's page caches take on this host (see host::budget). Locked while somebody makes room.
    pub budget_file: OwnFd,
}

/// Where the caches are to lie.
pub fn root_path(config: &Config) -> String {
    config.dir.clone().unwrap_or_else(|| format!("/dev/shm/netmem-{}", rustix::process::geteuid().as_raw()))
}

/// The same, found once: asked for every absolute path of a program that does not use netmem yet. Whoever changes its user
/// afterwards has a directory of its own only if it starts anew.
pub fn root_path_once() -> &'static str {
    static ROOT: AtomicPtr<String> = AtomicPtr::new(core::ptr::null_mut());
    // SAFETY: null or a leaked box that nobody changes.
    if let Some(root) = unsafe { ROOT.load(Ordering::Acquire).as_ref() } {
        return root;
    }
    // Two threads may each make one; either will do.
    let root = Box::leak(Box::new(root_path(super::config())));
    ROOT.store(root, Ordering::Release);
    root
}

impl Root {
    /// Makes or checks the directory.
    pub fn open(config: &Config) -> Result<Root, Errno> {
        let path = root_path(config);
        make_directory(&path)?;
        let stat = rustix::fs::lstat(path.as_str())?;
        let is_directory =
            rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::Directory;
        if !is_directory || stat.st_uid != rustix::process::geteuid().as_raw() || stat.st_mode & 0o077 != 0 {
            log::error!(
                "{path}: must be a directory of your own with mode 0700; move it away or set NETMEM_DIR"
            );
            return Err(Errno(libc::EACCES));
        }
        if !is_tmpfs(&path) {
            log::error!(
                "{path}: not on a tmpfs, where page caches must lie; set NETMEM_DIR to a directory on one"
            );
            return Err(Errno(libc::EINVAL));
        }
        let lock = file::open(&format!("{path}/lock"), OFlags::RDWR | OFlags::CREATE, 0o600)?;
        file::lock_exclusive(&lock)?;
        let cache = read_or_make_cache_id(&format!("{path}/cache-id"))?;
        file::unlock(&lock);
        Ok(Root { path, cache, lock })
    }

    /// Makes or enters the directory of a store, and removes those of stores that the same server had before.
    pub fn enter(self, store: StoreId, server: &str) -> Result<HostDirectory, Errno> {
        file::lock_exclusive(&self.lock)?;
        let name = format!("{store}-{:x}", proc::pid_namespace());
        let base = format!("{}/{name}", self.path);
        for path in [base.clone(), format!("{base}/tree"), format!("{base}/control")] {
            make_directory(&path)?;
        }
        file::write_whole(&format!("{base}/server"), server.as_bytes())?;
        let alive = file::open(&format!("{base}/alive"), OFlags::RDWR | OFlags::CREATE, 0o600)?;
        file::lock_shared(&alive)?;
        let names_lock = file::open(&format!("{base}/names"), OFlags::RDWR | OFlags::CREATE, 0o600)?;
        let budget_file = file::open(&format!("{base}/budget"), OFlags::RDWR | OFlags::CREATE, 0o600)?;
        tidy(&self.path, &name, server);
        file::unlock(&self.lock);
        let device = rustix::fs::stat(base.as_str())?.st_dev;
        Ok(HostDirectory {
            device,
            tree: format!("{base}/tree"),
            control: format!("{base}/control"),
            bell: format!("{base}/bell"),
            names_lock,
            alive,
            budget_file,
        })
    }
}

impl HostDirectory {
    /// The local path of a region or directory; the root directory for an empty name.
    pub fn local(&self, name: &str) -> String {
        if name.is_empty() { self.tree.clone() } else { format!("{}/{name}", self.tree) }
    }

    /// The control file of a cache file.
    pub fn control_path(&self, inode: u64) -> String {
        format!("{}/{inode:x}", self.control)
    }

    /// A file with one word, which the store's processes on this host wait on (see host::hold).
    pub fn bell_path(&self) -> &str {
        &self.bell
    }

    /// In a forked child: descriptions of our own, since locks belong to descriptions.
    pub fn reopen_after_fork(&self) -> Result<(), Errno> {
        crate::sys::shm::reopen_in_place(&self.alive)?;
        file::lock_shared(&self.alive)?;
        crate::sys::shm::reopen_in_place(&self.budget_file)?;
        crate::sys::shm::reopen_in_place(&self.names_lock)
    }
}

fn make_directory(path: &str) -> Result<(), Errno> {
    match rustix::fs::mkdir(path, Mode::from_raw_mode(0o700)) {
        // Ours, whatever the program's umask.
        Ok(()) => Ok(rustix::fs::chmod(path, Mode::from_raw_mode(0o700))?),
        Err(rustix::io::Errno::EXIST) => Ok(()),
        Err(errno) => {
            log::error!("{path}: {errno}; set NETMEM_DIR to a directory on a tmpfs");
            // Not ENOENT: that would be an answer about the program's file, and a wrong one.
            let about_us = matches!(errno, rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR);
            Err(if about_us { Errno(libc::EIO) } else { errno.into() })
        }
    }
}

fn is_tmpfs(path: &str) -> bool {
    const TMPFS_MAGIC: libc::__fsword_t = 0x0102_1994;
    rustix::fs::statfs(path).is_ok_and(|stat| stat.f_type == TMPFS_MAGIC)
}

fn read_or_make_cache_id(path: &str) -> Result<CacheId, Errno> {
    if let Ok(bytes) = file::read_whole(path)
        && let Some(id) = bytes.first_chunk::<16>()
    {
        return Ok(CacheId(*id));
    }
    let mut id = [0; 16];
    rustix::rand::getrandom(&mut id, rustix::rand::GetRandomFlags::empty())?;
    file::write_whole(path, &id)?;
    Ok(CacheId(id))
}

/// Removes directories of stores that are gone: the same server's, with nobody in them.
fn tidy(root: &str, keep: &str, server: &str) {
    let Ok(names) = list(root) else { return };
    for name in names {
        let base = format!("{root}/{name}");
        if name == keep
            || file::read_whole(&format!("{base}/server")).map_or(true, |was| was != server.as_bytes())
        {
            continue;
        }
        let Ok(alive) = file::open(&format!("{base}/alive"), OFlags::RDWR, 0) else { continue };
        if file::try_lock_exclusive(&alive) {
            log::debug!("removing {base}: {server} has another store now");
            remove_all(&base);
        }
    }
}

/// The names in a directory, `.` and `..` left out.
pub fn list(path: &str) -> Result<Vec<String>, Errno> {
    let fd = file::open(path, OFlags::RDONLY | OFlags::DIRECTORY, 0)?;
    let mut buffer = Vec::with_capacity(32 * 1024);
    let mut names = Vec::new();
    let mut entries = rustix::fs::RawDir::new(fd.borrow(), buffer.spare_capacity_mut());
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(String::from_utf8_lossy(name).into_owned());
        }
    }
    Ok(names)
}

/// Removes a file, or a directory and all below.
pub fn remove_all(path: &str) {
    if rustix::fs::unlink(path).is_ok() {
        return;
    }
    for name in list(path).unwrap_or_default() {
        remove_all(&format!("{path}/{name}"));
    }
    let _ = rustix::fs::rmdir(path);
}
