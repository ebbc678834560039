//! The functions of include/netmem.h.
//!
//! Owns: their arguments and errors. Called by: exports. Must not: do more than the operations that unmodified programs reach.

use core::ffi::{c_char, c_int, c_void};

use netmem_protocol::COMMIT_REGIONS_MAX;

use super::map::{self, Request};
use super::outcome::{Exit, Outcome};
use crate::host::paths::Name;
use crate::host::{Handle, config, fds, handle, runtime_if_started};
use crate::pager::commit::CommitOptions;
use crate::stats;
use crate::sys::app;
use crate::sys::errno::Errno;
use crate::sys::syscall::call;

const NETMEM_STRICT: u32 = 1;
const NETMEM_SNAPSHOT: u32 = 2;

/// What the flags of a commit say: how, and whether at one instant.
fn commit_flags(flags: u32) -> Result<(CommitOptions, bool), Errno> {
    if flags & !(NETMEM_STRICT | NETMEM_SNAPSHOT) != 0 {
        return Err(Errno(libc::EINVAL));
    }
    Ok((CommitOptions { strict: flags & NETMEM_STRICT != 0 }, flags & NETMEM_SNAPSHOT != 0))
}

fn region(number: c_int) -> Result<&'static Handle, Exit> {
    Ok(fds::region(number)?.ok_or(Errno(libc::EBADF))?)
}

/// netmem_open.
///
/// # Safety
/// `name` is null or a C string.
pub unsafe fn open(name: *const c_char, flags: c_int, mode: u32) -> Outcome<c_int> {
    let failed = Errno(if name.is_null() { libc::EFAULT } else { libc::EINVAL });
    // SAFETY: the caller's.
    let text = unsafe { app::path(name) }.ok_or(failed)?;
    let text = text.strip_prefix(config().prefix.as_str()).unwrap_or(&text).trim_start_matches('/');
    super::links::open_name(&Name::plain(text.to_owned()), flags, mode)
}

/// netmem_map.
pub fn map(
    number: c_int,
    at: usize,
    length: usize,
    prot: c_int,
    flags: c_int,
    offset: i64,
) -> Outcome<usize> {
    if number != map::NETMEM_FD {
        region(number)?;
    }
    map::map(&Request { at, length, prot, flags, number, offset })
}

/// netmem_unmap.
pub fn unmap(at: usize, length: usize) -> Outcome<c_int> {
    map::unmap(at, length).map_err(|exit| match exit {
        Exit::Pass(_) => Exit::Fail(Errno(libc::EINVAL)),
        Exit::Fail(_) => exit,
    })
}

/// netmem_sync.
pub fn sync(at: usize, length: usize, flags: c_int) -> Outcome<c_int> {
    match super::range::msync(at, length, flags) {
        Err(Exit::Pass(_)) => {
            // SAFETY: msync changes no data.
            unsafe { call(libc::SYS_msync, [at, length, flags as usize, 0, 0, 0])? };
            Ok(0)
        }
        outcome => outcome,
    }
}

/// netmem_commit.
///
/// # Safety
/// `epoch` is null or writable.
pub unsafe fn commit(number: c_int, flags: u32, epoch: *mut u64) -> Outcome<c_int> {
    let (options, instant) = commit_flags(flags)?;
    let report = Handle::commit_together(&[region(number)?], options, instant)?[0];
    if !epoch.is_null() {
        // SAFETY: the caller's.
        unsafe { epoch.write(report.epoch.0) };
    }
    Ok(0)
}

/// netmem_commit_together.
///
/// # Safety
/// `numbers` is readable, and `epochs` null or writable, for `count`.
pub unsafe fn commit_together(
    numbers: *const c_int,
    count: usize,
    flags: u32,
    epochs: *mut u64,
) -> Outcome<c_int> {
    let (options, instant) = commit_flags(flags)?;
    if count == 0 || numbers.is_null() {
        return Err(Errno(libc::EINVAL).into());
    }
    let (mut handles, mut named): (Vec<&Handle>, Vec<u32>) = (Vec::new(), Vec::new());
    for at in 0..count {
        // SAFETY: the caller's.
        let handle = region(unsafe { numbers.add(at).read() })?;
        named.push(handle.index);
        // Several descriptors of one region name it once.
        if let Err(place) = handles.binary_search_by_key(&handle.index, |known| known.index) {
            if handles.len() == COMMIT_REGIONS_MAX {
                return Err(Errno(libc::E2BIG).into());
            }
            handles.insert(place, handle);
        }
    }
    let reports = Handle::commit_together(&handles, options, instant)?;
    for (at, index) in named.iter().enumerate().filter(|_| !epochs.is_null()) {
        if let Ok(place) = handles.binary_search_by_key(index, |known| known.index) {
            // SAFETY: the caller's.
            unsafe { epochs.add(at).write(reports[place].epoch.0) };
        }
    }
    Ok(0)
}

/// netmem_refresh.
///
/// # Safety
/// `epoch` is null or writable.
pub unsafe fn refresh(number: c_int, epoch: *mut u64) -> Outcome<c_int> {
    let handle = region(number)?;
    handle.refresh()?;
    if !epoch.is_null() {
        // SAFETY: the caller's.
        unsafe { epoch.write(handle.region.view().0) };
    }
    Ok(0)
}

/// netmem_prefetch.
pub fn prefetch(number: c_int, offset: i64, length: usize) -> Outcome<c_int> {
    let handle = region(number)?;
    let at = u64::try_from(offset).map_err(|_| Errno(libc::EINVAL))?;
    let size = handle.size()?;
    let end = if length == 0 { size } else { at.saturating_add(length as u64).min(size) };
    if at < end {
        handle.bring_in(at / 4096, end.div_ceil(4096))?;
    }
    Ok(0)
}

/// netmem_size.
///
/// # Safety
/// `size` is null or writable.
pub unsafe fn size(number: c_int, size: *mut u64) -> Outcome<c_int> {
    if size.is_null() {
        return Err(Errno(libc::EINVAL).into());
    }
    let bytes = region(number)?.size()?;
    // SAFETY: the caller's.
    unsafe { size.write(bytes) };
    Ok(0)
}

/// netmem_resize.
pub fn resize(number: c_int, size: u64) -> Outcome<c_int> {
    region(number)?;
    super::file::truncate(number, i64::try_from(size).map_err(|_| Errno(libc::EFBIG))?)
}

/// netmem_stats.
///
/// # Safety
/// `out` is null or writable for `size` bytes.
pub unsafe fn statistics(out: *mut c_void, size: usize) -> Outcome<c_int> {
    if out.is_null() || size == 0 || !size.is_multiple_of(8) {
        return Err(Errno(libc::EINVAL).into());
    }
    let words = runtime_if_started().map_or([0; 23], |runtime| {
        let wire = runtime.remote.stats();
        let (fault, fetch) = (stats::FAULT_TIME.summary(), stats::FETCH_TIME.summary());
        let (commit, hold) = (stats::COMMIT_TIME.summary(), stats::HOLD_TIME.summary());
        [
            stats::get(&stats::FAULTS),
            stats::get(&wire.pages_fetched),
            stats::get(&stats::ZERO_PAGES),
            stats::get(&stats::PAGES_COMMITTED),
            stats::get(&stats::COMMITS),
            stats::get(&wire.bytes_in),
            stats::get(&wire.bytes_out),
            stats::get(&wire.reconnects),
            stats::get(&stats::VIEW_MOVES),
            runtime.mappings.overlapping(0, usize::MAX).len() as u64,
            handle::all().filter(|handle| !handle.is_idle(&runtime.mappings.write())).count() as u64,
            fault.p50,
            fault.p99,
            fault.max,
            fetch.p50,
            fetch.p99,
            fetch.max,
            commit.p50,
            commit.p99,
            commit.max,
            hold.p50,
            hold.p99,
            hold.max,
        ]
    });
    for i in 0..size / 8 {
        // SAFETY: the caller's.
        unsafe { (out as *mut u64).add(i).write_unaligned(words.get(i).copied().unwrap_or(0)) };
    }
    Ok(0)
}

/// netmem_engine.
pub fn engine() -> *const c_char {
    let name = runtime_if_started().map_or(c"none", |runtime| match runtime.engine().name() {
        "uffd" => c"uffd",
        "uffd-user" => c"uffd-user",
        "uffd-sigbus" => c"uffd-sigbus",
        "sigsegv-guard" => c"sigsegv-guard",
        _ => c"sigsegv-mprotect",
    });
    name.as_ptr()
}
