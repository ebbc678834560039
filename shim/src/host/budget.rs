//! What the page caches of a store take on this host, and how much of it they may.
//!
//! Owns: [`Budget`], and the count that all processes of the host share. Called by: room, handle, cache_file. Must not: take a page out
//! (that is room's).
//!
//! Each cache file's share in the count is in its control file ([`Control::bytes`]), and the count is their sum. A share grows with each page
//! that came, and is set right when somebody looks at the file: pages of zeros may take no room. What is coming is counted apart, by process,
//! since a process may be killed before it comes.

use core::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, AtomicUsize, Ordering};
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
/// By what part of the budget it must be exceeded before that is said.
const TOLD_PART: u64 = 20;
/// And for how long, in nanoseconds.
const TOLD_AFTER_NS: u64 = 1_000_000_000;
/// What may be coming at once, as a part of the budget.
const COMING_PART: u64 = 8;
/// Bytes of a region that are counted before its file is looked at.
const LOOK_BYTES: u64 = 1 << 20;

/// Where [`Budget::own_place`] was last.
static OWN_PLACE: AtomicUsize = AtomicUsize::new(usize::MAX);

/// Processes of a store on a host that count what is coming for themselves; more than these count it in the sum alone.
const PROCESSES: usize = 200;

/// The words that all processes share: the front of the store's file `budget`.
#[repr(C)]
struct Shared {
    /// Bytes of all cache files of the store.
    used: AtomicU64,
    /// Bytes that are about to come in, all processes together.
    coming: AtomicU64,
    /// And of each.
    processes: [Process; PROCESSES],
}

#[repr(C)]
struct Process {
    /// Its number; 0: nobody's.
    pid: AtomicU64,
    coming: AtomicU64,
}

/// See the module.
pub struct Budget {
    shared: &'static Shared,
    /// Bytes that all may take, as far as this process is concerned.
    limit: AtomicU64,
    /// The process of the thread that makes room here; 0: none. A forked child finds its parent's.
    pub(super) maker: AtomicI32,
    /// When a thread that found no page to take out tries again: nanoseconds of the monotonic clock.
    pub(super) again_at: AtomicU64,
    /// When what is dirty is sent to the server again: likewise.
    pub(super) send_again_at: AtomicU64,
    /// How often in a row that did not go.
    pub(super) send_failures: AtomicU32,
    /// Since when it has been exceeded with nothing to take out: nanoseconds of the monotonic clock, 0 if it is not.
    over_since: AtomicU64,
    /// It was said that there is nothing to take out.
    told: AtomicBool,
    /// Pages can be taken out here.
    pub(super) works: bool,
}

/// Pages that are coming.
pub struct Coming<'a> {
    budget: &'a Budget,
    bytes: u64,
    process: Option<usize>,
}

impl Drop for Coming<'_> {
    fn drop(&mut self) {
        let shared = self.budget.shared;
        if let Some(process) = self.process {
            shared.processes[process].coming.fetch_sub(self.bytes, Ordering::SeqCst);
        }
        subtract(&shared.coming, self.bytes);
    }
}

/// The count may have been set right meanwhile.
fn subtract(word: &AtomicU64, bytes: u64) {
    let less = |now: u64| Some(now.saturating_sub(bytes));
    let _ = word.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less);
}

impl Budget {
    /// Reads the budget and finds the count.
    pub fn open(directory: &HostDirectory, config: &Config) -> Result<Budget, Errno> {
        const { assert!(size_of::<Shared>() <= mem::PAGE) };
        shm::extend(&directory.budget_file, mem::PAGE as u64)?;
        let at = shm::map_apart(&directory.budget_file, 0, mem::PAGE)?;
        // SAFETY: a mapping of a page that is never given up, of a file that nobody makes shorter, and made of atomics.
        let shared = unsafe { &*(at as *const Shared) };
        let auto = || room_of_host(directory).saturating_add(shared.used.load(Ordering::Relaxed)) / 2;
        let limit = config.cache_bytes.unwrap_or_else(auto).max(LEAST);
        let works = !has_huge_pages(directory.device);
        if !works && config.cache_bytes.is_some() {
            log::error!(
                "NETMEM_CACHE_BYTES can't be kept to: the tmpfs of the page caches is mounted with huge pages; mount it with huge=never"
            );
        }
        log::debug!("page caches may take {limit} bytes on this host");
        Ok(Budget {
            shared,
            limit: AtomicU64::new(limit),
            maker: AtomicI32::new(0),
            again_at: AtomicU64::new(0),
            send_again_at: AtomicU64::new(0),
            send_failures: AtomicU32::new(0),
            over_since: AtomicU64::new(0),
            told: AtomicBool::new(false),
            works,
        })
    }

    /// Bytes that are taken, or about to be.
    pub fn used(&self) -> u64 {
        self.shared.used.load(Ordering::SeqCst) + self.shared.coming.load(Ordering::SeqCst)
    }

    /// Bytes that may be.
    pub fn limit(&self) -> u64 {
        self.limit.load(Ordering::Relaxed)
    }

    /// Pages to bring in together at the most; fewer if many do so at once.
    pub fn batch(&self) -> u64 {
        let coming = self.shared.coming.load(Ordering::Relaxed);
        let rest = (self.limit() / COMING_PART).saturating_sub(coming);
        ((self.limit() / BATCH_PART).min(rest) / PAGE_SIZE as u64).max(1)
    }

    /// Whether there is more, or about to be, than there may be.
    pub fn is_short(&self) -> bool {
        self.used() > self.limit()
    }

    /// Counts pages that are about to come in, until what is returned is dropped.
    pub fn expect(&self, pages: u64) -> Coming<'_> {
        let bytes = pages * PAGE_SIZE as u64;
        let process = self.own_place();
        if let Some(process) = process {
            self.shared.processes[process].coming.fetch_add(bytes, Ordering::SeqCst);
        }
        self.shared.coming.fetch_add(bytes, Ordering::SeqCst);
        Coming { budget: self, bytes, process }
    }

    /// This process's place among those that count for themselves. A forked child finds that its parent's is not its own.
    fn own_place(&self) -> Option<usize> {
        let me = rustix::process::getpid().as_raw_nonzero().get() as u64;
        let places = &self.shared.processes;
        let hint = OWN_PLACE.load(Ordering::Relaxed);
        if places.get(hint).is_some_and(|place| place.pid.load(Ordering::Relaxed) == me) {
            return Some(hint);
        }
        let take = |place: &Process, from: u64| {
            let taken = place.pid.compare_exchange(from, me, Ordering::SeqCst, Ordering::Relaxed).is_ok();
            taken || place.pid.load(Ordering::SeqCst) == me
        };
        let free = places.iter().position(|place| take(place, 0));
        let place = free.or_else(|| {
            self.bury_the_dead();
            places.iter().position(|place| take(place, 0))
        })?;
        OWN_PLACE.store(place, Ordering::Relaxed);
        Some(place)
    }

    /// What was coming for processes that are dead does not come.
    pub(super) fn bury_the_dead(&self) {
        for place in &self.shared.processes {
            let pid = place.pid.load(Ordering::SeqCst);
            if pid != 0 && crate::sys::proc::start_time(pid as i32) == Some(0) {
                subtract(&self.shared.coming, place.coming.swap(0, Ordering::SeqCst));
                let _ = place.pid.compare_exchange(pid, 0, Ordering::SeqCst, Ordering::Relaxed);
            }
        }
    }

    /// The tmpfs is full: what is there now is all that there may be.
    pub fn is_full(&self) {
        let now = self.used();
        if now < self.limit() {
            log::error!("the tmpfs of the page caches is full: they keep to {now} bytes");
        }
        self.limit.fetch_min(now.max(LEAST), Ordering::Relaxed);
    }

    /// Counts pages of a region that came.
    pub fn came(&self, handle: &Handle, pages: u64) {
        let bytes = pages * PAGE_SIZE as u64;
        let share = &handle.region.cache.control().bytes;
        let before = share.fetch_add(bytes, Ordering::SeqCst);
        self.shared.used.fetch_add(bytes, Ordering::SeqCst);
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
        let now = monotonic_ns();
        self.again_at.store(now.saturating_add(rest), Ordering::Relaxed);
        // A little more, or more for a moment, is nobody's concern: a commit may be under way.
        if self.used() <= self.limit() + self.limit() / TOLD_PART {
            return self.over_since.store(0, Ordering::Relaxed);
        }
        let since = match self.over_since.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => now,
            Err(since) => since,
        };
        if now.saturating_sub(since) > TOLD_AFTER_NS && !self.told.swap(true, Ordering::Relaxed) {
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
        self.over_since.store(0, Ordering::Relaxed);
    }

    fn change(&self, now: u64, before: u64) {
        let changed = |used: u64| Some(used.saturating_add(now).saturating_sub(before));
        let _ = self.shared.used.fetch_update(Ordering::SeqCst, Ordering::SeqCst, changed);
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
        || mounts
            .lines()
            .filter(is_ours)
            .any(|line| line.contains("huge=always") || line.contains("huge=within_size"))
}
