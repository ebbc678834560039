//! What the page caches of a store take on this host, and how much of it they may.
//!
//! Owns: [`Budget`], and the count that all processes of the host share. Called by: room, handle, cache_file. Must not: take a page out
//! (that is room's).
//!
//! Each cache file's share in the count is in its control file ([`Control::bytes`]), and the count is their sum. What is about to be
//! brought in is counted before, so the count is never less than what is there; what did not come, or takes no room, goes from it when
//! somebody looks at the file.

use core::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use core::time::Duration;

use netmem_protocol::PAGE_SIZE;
use rustix::fs::{AtFlags, StatxFlags};

use super::directory::HostDirectory;
use super::{Handle, runtime_if_started};
use crate::config::Config;
use crate::log;
use crate::pager::Board;
use crate::pager::table::Control;
use crate::sys::clock::monotonic_ns;
use crate::sys::errno::Errno;
use crate::sys::fd::OwnFd;
use crate::sys::{file, mem, shm};

/// The least that can be kept to, whatever is asked for: threads that fault together must find room for what each needs.
const LEAST: u64 = 256 * 1024;
/// Pages that come in together at the most, as a part of the budget.
const BATCH_PART: u64 = 32;
/// Bytes of a region that are counted before its file is looked at.
const LOOK_BYTES: u64 = 1 << 20;

/// See the module.
pub struct Budget {
    /// Bytes of all cache files of the store, reserved ones too.
    used: &'static AtomicU64,
    /// Bytes that they may take, as far as this process is concerned.
    limit: AtomicU64,
    /// The process of the thread that makes room here; 0: none. A forked child finds its parent's.
    pub(super) maker: AtomicI32,
    /// When a thread that found no page to take out tries again: nanoseconds of the monotonic clock.
    pub(super) again_at: AtomicU64,
    /// It was said that there is nothing to take out.
    told: AtomicBool,
    /// Pages can be taken out here.
    pub(super) works: bool,
}

impl Budget {
    /// Reads the budget and finds the count.
    pub fn open(directory: &HostDirectory, config: &Config) -> Result<Budget, Errno> {
        shm::extend(&directory.budget_file, mem::PAGE as u64)?;
        let at = shm::map_apart(&directory.budget_file, 0, mem::PAGE)?;
        // SAFETY: a mapping of a page that is never given up, of a file that nobody makes shorter.
        let used = unsafe { &*(at as *const AtomicU64) };
        let auto = || room_of_host(directory).saturating_add(used.load(Ordering::Relaxed)) / 2;
        let limit = config.cache_bytes.unwrap_or_else(auto).max(LEAST);
        let works = !has_huge_pages(directory.device);
        if !works && config.cache_bytes.is_some() {
            log::error!(
                "NETMEM_CACHE_BYTES can't be kept to: the tmpfs of the page caches is mounted with huge pages; mount it with huge=never"
            );
        }
        log::debug!("page caches may take {limit} bytes on this host");
        Ok(Budget {
            used,
            limit: AtomicU64::new(limit),
            maker: AtomicI32::new(0),
            again_at: AtomicU64::new(0),
            told: AtomicBool::new(false),
            works,
        })
    }

    /// Bytes that are taken, or about to be.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::SeqCst)
    }

    /// Bytes that may be.
    pub fn limit(&self) -> u64 {
        self.limit.load(Ordering::Relaxed)
    }

    /// Pages to bring in together at the most.
    pub fn batch(&self) -> u64 {
        (self.limit() / BATCH_PART / PAGE_SIZE as u64).max(1)
    }

    /// Whether so many more pages are more than there is room for.
    pub fn is_short_of(&self, pages: u64) -> bool {
        self.used().saturating_add(pages * PAGE_SIZE as u64) > self.limit()
    }

    /// The tmpfs is full: what is there now is all that there may be.
    pub fn is_full(&self) {
        let now = self.used();
        if now < self.limit() {
            log::error!("the tmpfs of the page caches is full: they keep to {now} bytes");
        }
        self.limit.fetch_min(now.max(LEAST), Ordering::Relaxed);
    }

    /// Counts pages of a region that are about to come in.
    pub fn reserve(&self, handle: &Handle, pages: u64) {
        let bytes = pages * PAGE_SIZE as u64;
        let share = &handle.region.cache.control().bytes;
        let before = share.fetch_add(bytes, Ordering::SeqCst);
        self.used.fetch_add(bytes, Ordering::SeqCst);
        if before / LOOK_BYTES != (before + bytes) / LOOK_BYTES {
            self.look(handle);
        }
    }

    /// Counts what a region's file really takes.
    pub fn look(&self, handle: &Handle) {
        let Ok(now) = bytes_of(handle.region.cache.fd()) else { return };
        let before = handle.region.cache.control().bytes.swap(now, Ordering::SeqCst);
        self.change(now, before);
    }

    /// Nothing can be taken out just now: nobody looks again for a while.
    pub(super) fn rest(&self, rest: Duration) {
        let rest = u64::try_from(rest.as_nanos()).unwrap_or(u64::MAX);
        self.again_at.store(monotonic_ns().saturating_add(rest), Ordering::Relaxed);
        if !self.told.swap(true, Ordering::Relaxed) {
            log::error!(
                "the page caches take more than NETMEM_CACHE_BYTES ({} of {} bytes): what they hold is not committed, or in use",
                self.used(),
                self.limit()
            );
        }
    }

    /// What was not committed is: it may be taken out.
    pub fn may_go(&self) {
        self.again_at.store(0, Ordering::Relaxed);
    }

    fn change(&self, now: u64, before: u64) {
        let changed = |used: u64| Some(used.saturating_add(now).saturating_sub(before));
        let _ = self.used.fetch_update(Ordering::SeqCst, Ordering::SeqCst, changed);
    }
}

/// A cache file is given up: it counts for nothing.
pub fn forget(control: &Control) {
    let before = control.bytes.swap(0, Ordering::SeqCst);
    if let Some(runtime) = runtime_if_started() {
        runtime.budget.change(0, before);
    }
}

/// Not fstat: see `Frames::size`.
fn bytes_of(file: &OwnFd) -> Result<u64, Errno> {
    let status = rustix::fs::statx(file.borrow(), "", AtFlags::EMPTY_PATH, StatxFlags::BLOCKS)?;
    Ok(status.stx_blocks * 512)
}

/// What is free in memory and on the tmpfs, whichever is less.
fn room_of_host(directory: &HostDirectory) -> u64 {
    let free = rustix::fs::fstatfs(directory.budget_file.borrow())
        .map_or(u64::MAX, |status| status.f_bavail.saturating_mul(status.f_bsize as u64));
    let text = file::read_whole("/proc/meminfo").unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let available = line.and_then(|line| line.split_ascii_whitespace().next()?.parse::<u64>().ok());
    // A tmpfs may be mounted without a limit, and a kernel may not say how much memory it has.
    free.min(available.map_or(u64::MAX, |kilobytes| kilobytes * 1024)).min(1 << 50)
}

/// Whether a tmpfs makes huge pages by itself: of one that somebody holds, the kernel makes a part zeros instead of taking it out.
fn has_huge_pages(device: u64) -> bool {
    let forced = file::read_whole("/sys/kernel/mm/transparent_hugepage/shmem_enabled");
    let forced = forced.is_ok_and(|text| String::from_utf8_lossy(&text).contains("[force]"));
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let mounts = file::read_whole("/proc/self/mountinfo").unwrap_or_default();
    let mounts = String::from_utf8_lossy(&mounts);
    let number = format!("{major}:{minor}");
    let is_ours = |line: &&str| line.split_ascii_whitespace().nth(2) == Some(number.as_str());
    forced
        || mounts.lines().filter(is_ours).any(|line| {
            line.contains("huge=always") || line.contains("huge=within_size")
        })
}
