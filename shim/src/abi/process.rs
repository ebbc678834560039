//! Processes: ends, execs, and children that share our memory.
//!
//! Owns: what is committed when a process ends or becomes another. Called by: exports, boot. Must not: do anything in a vfork
//! child, which runs in the parent's memory.

use core::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use crate::host::{config, fds, handle, report, runtime_if_started};
use crate::log;
use crate::pager::commit::CommitOptions;

static PID: AtomicI32 = AtomicI32::new(0);
static ENDED: AtomicBool = AtomicBool::new(false);

/// Notes who we are: at load, and in a forked child.
pub fn note_pid() {
    PID.store(raw_pid(), Ordering::Relaxed);
    ENDED.store(false, Ordering::Relaxed);
}

fn raw_pid() -> i32 {
    rustix::process::getpid().as_raw_nonzero().get()
}

/// Before main, after every constructor: a program with a budget for its memory is watched from here on.
pub fn before_main() {
    if crate::sys::env::has("NETMEM_MEMORY_BYTES") {
        // What our threads say in their last moment must not need what the loader knows: that may be away.
        super::resolve::all();
        crate::host::keep_budget(super::inner::divert);
    }
}

/// Whether this is a vfork child (or a clone that shares memory): its descriptors are its own, its tables are the parent's.
pub fn in_shared_memory_child() -> bool {
    PID.load(Ordering::Relaxed) != raw_pid()
}

/// Commits every region: for sync(2), and before the process ends or becomes another.
pub fn commit_all() {
    for handle in handle::all() {
        // The failure was logged; there is nobody left to tell.
        let _ = handle.commit(CommitOptions::default());
    }
}

/// Standard streams on our files are written by libc's own inner calls, of which nobody tells us: at the end, whatever their
/// files hold is compared with what the server has.
fn suspect_standard_streams() {
    let ours: Vec<_> = (0..=2).filter_map(|number| fds::region(number).ok().flatten()).collect();
    if ours.is_empty() {
        return;
    }
    for handle in ours {
        handle.suspect_inner_writes();
    }
}

/// At exit, and not at `_exit` or exec, which leave what is in a stream's buffer unwritten: libc flushes its streams after the
/// last destructor, which is too late, since what is in them belongs to the file. The one exception to rule 1.
pub fn flush_streams() {
    let standard = || (0..=2).any(|number| matches!(fds::region(number), Ok(Some(_))));
    if !in_shared_memory_child() && (super::stdio::any() || standard()) {
        // SAFETY: null means every output stream.
        unsafe { libc::fflush(core::ptr::null_mut()) };
    }
}

/// The same streams at load, redirected by the program that executed this one: libc's inner reads must not meet holes that are
/// absent pages, nor its inner writes leave zeros around them.
pub fn fill_standard_streams() {
    for number in 0..=2 {
        let filled = match fds::region(number) {
            Ok(None) => continue,
            Ok(Some(handle)) => super::file::fill_for_inner_calls(handle, number),
            Err(errno) => Err(errno),
        };
        if filled.is_err() {
            // The reason was logged. A descriptor that fails is what remains: one that reads as zeros must not.
            super::file::make_unusable(number);
        }
    }
}

/// The end of the process by exit, return from main, or `_exit`.
pub fn at_exit() {
    if in_shared_memory_child() || ENDED.swap(true, Ordering::SeqCst) {
        return;
    }
    crate::far::ends();
    suspect_standard_streams();
    let runtime = runtime_if_started();
    commit_all();
    for handle in handle::all() {
        handle.leave();
    }
    let text = runtime.map(report::render).unwrap_or_default() + &report::far_memory();
    if !text.is_empty()
        && let Some(path) = &config().stats
    {
        write_stats(path, &text);
    }
}

fn write_stats(path: &str, text: &str) {
    if path == "-" {
        crate::sys::fd::write_all(2, text.as_bytes());
    } else if let Err(errno) = crate::sys::file::append_whole(path, text.as_bytes()) {
        log::error!("NETMEM_STATS={path}: {errno}");
    }
}

/// Before exec: the new program starts from what is committed.
pub fn before_exec() {
    if !in_shared_memory_child() {
        crate::far::ends();
    }
    if runtime_if_started().is_some() && !in_shared_memory_child() {
        suspect_standard_streams();
        commit_all();
        // The slot's lock goes with the exec; without this it would look as if we had died with stores nobody knows.
        for handle in handle::all() {
            handle.leave();
        }
    }
}

/// The exec failed, and the program goes on.
pub fn after_failed_exec() {
    let Some(runtime) = runtime_if_started() else { return };
    if in_shared_memory_child() {
        return;
    }
    for handle in handle::all() {
        let _maintenance = handle.region.maintenance.lock();
        if let Err(errno) = handle.region.cache.join_again(runtime.engine().tracking()) {
            log::error!("{}: can't attach again after a failed exec: {errno}", handle.name);
        }
        handle.region.keep_again();
    }
}

/// Whether the library is to do nothing at all.
pub fn disabled() -> bool {
    config().disable
}
