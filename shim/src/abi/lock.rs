//! Locks of files: record locks, locks of descriptions, lockf and flock.
//!
//! Owns: what taking and giving up a lock means for the view and for commits. Called by: exports. Must not: keep a lock of ours
//! on a cache file (ours lie on the control file), or open and close one: record locks go with any close.

use core::sync::atomic::Ordering;

use super::links;
use super::outcome::{NOT_OURS, Outcome};
use crate::host::{Handle, fds};
use crate::pager::commit::CommitOptions;
use crate::sys::errno::{self, Errno};
use crate::sys::fd;

/// A call of libc's, which is a cancellation point where it waits.
fn made(make: impl FnOnce() -> i32) -> Result<i32, Errno> {
    let result = make();
    if result < 0 { Err(errno::get()) } else { Ok(result) }
}

/// fcntl(2): duplicates, and record locks, which move the view and commit. `make` is the call as it is, or with another command
/// and argument.
pub fn control(number: i32, command: i32, argument: usize, make: impl Fn(i32, usize) -> i32) -> Outcome<i32> {
    if fd::is_internal(number) {
        return Err(Errno(libc::EBADF).into());
    }
    match command {
        libc::F_DUPFD | libc::F_DUPFD_CLOEXEC => {
            Ok(links::duplicated(number, made(|| make(command, argument))?))
        }
        libc::F_SETLK | libc::F_SETLKW | libc::F_OFD_SETLK | libc::F_OFD_SETLKW => {
            let Some(handle) = fds::region(number)? else { return Err(NOT_OURS) };
            let lock = argument as *const libc::flock;
            if lock.is_null() {
                return Err(NOT_OURS);
            }
            // SAFETY: the program's own struct flock, which the kernel reads next.
            let wanted = unsafe { lock.read_unaligned() };
            let of_process = matches!(command, libc::F_SETLK | libc::F_SETLKW);
            let takes = wanted.l_type != libc::F_UNLCK as i16;
            let gives_up = wanted.l_type != libc::F_WRLCK as i16;
            if takes && of_process {
                handle.record_locks.store(true, Ordering::SeqCst);
            }
            let set = if of_process { libc::F_SETLK } else { libc::F_OFD_SETLK };
            let take_back = || {
                let free = libc::flock { l_type: libc::F_UNLCK as i16, ..wanted };
                make(set, &raw const free as usize);
            };
            around(handle, (takes, gives_up), || made(|| make(command, argument)), take_back)
        }
        _ => Err(NOT_OURS),
    }
}

/// Giving a lock up, or an exclusive one for a shared one, commits first; taking one shows the newest commit. A lock under which
/// the newest commit can't be seen is none: it is given back, and the call fails.
fn around(
    handle: &Handle,
    (takes, gives_up): (bool, bool),
    make: impl FnOnce() -> Result<i32, Errno>,
    take_back: impl FnOnce(),
) -> Outcome<i32> {
    if gives_up {
        handle.commit(CommitOptions::default())?;
    }
    let result = make()?;
    if takes && let Err(errno) = handle.refresh() {
        take_back();
        return Err(errno.into());
    }
    Ok(result)
}

/// lockf(3), which takes a record lock inside libc. `make` is the call with a command.
pub fn section(number: i32, command: i32, make: impl Fn(i32) -> i32) -> Outcome<i32> {
    let Some(handle) = fds::region(number)? else { return Err(NOT_OURS) };
    if command == libc::F_TEST {
        return Err(NOT_OURS);
    }
    let takes = command != libc::F_ULOCK;
    if takes {
        handle.record_locks.store(true, Ordering::SeqCst);
    }
    let take_back = || {
        make(libc::F_ULOCK);
    };
    around(handle, (takes, !takes), || made(|| make(command)), take_back)
}

/// flock(2).
pub fn whole_file(number: i32, operation: i32, make: impl Fn(i32) -> i32) -> Outcome<i32> {
    let Some(handle) = fds::region(number)? else { return Err(NOT_OURS) };
    let takes = operation & libc::LOCK_UN == 0;
    let gives_up = operation & (libc::LOCK_UN | libc::LOCK_SH) != 0;
    let take_back = || {
        make(libc::LOCK_UN);
    };
    around(handle, (takes, gives_up), || made(|| make(operation)), take_back)
}
