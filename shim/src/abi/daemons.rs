//! daemon(3), forkpty(3) and login_tty(3): libc ends the parent, moves and replaces descriptors by inner calls that we don't see.
//!
//! Owns: the same by calls of ours. Called by: exports. Must not: differ from daemon(3) in what it leaves.

use core::ffi::c_int;

use rustix::fd::IntoRawFd;
use rustix::fs::{FileType, Mode, OFlags, makedev};

use super::exports::{descriptors, walks};
use super::process;
use crate::host::fds;
use crate::sys::errno::{self, Errno};
use crate::sys::fd;

/// daemon(3): the parent ends as by `_exit`, so that what it stored is committed and its slot is given up in order.
pub fn daemon(stay: bool, keep: bool) -> c_int {
    // SAFETY: no arguments; the handlers of fork.rs run.
    match unsafe { libc::fork() } {
        -1 => return -1,
        0 => {}
        _ => {
            process::at_exit();
            // SAFETY: nothing comes after it.
            unsafe { libc::_exit(0) }
        }
    }
    // SAFETY: no arguments.
    if unsafe { libc::setsid() } == -1 {
        return -1;
    }
    if !stay {
        // SAFETY: a C string. As in libc, nobody is told that there is no root directory.
        unsafe { walks::nm_chdir(c"/".as_ptr()) };
    }
    if keep { 0 } else { without_streams() }
}

/// Standard descriptors become /dev/null, if that is what it should be.
fn without_streams() -> c_int {
    let null = match rustix::fs::open("/dev/null", OFlags::RDWR, Mode::empty()) {
        Ok(null) => null.into_raw_fd(),
        Err(errno) => return failed(errno.into()),
    };
    let right = rustix::fs::fstat(fd::borrow(null)).is_ok_and(|stat| {
        FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == makedev(1, 3)
    });
    if right {
        for number in 0..=2 {
            // SAFETY: descriptors by value.
            unsafe { descriptors::nm_dup2(null, number) };
        }
    }
    if !right || null > 2 {
        fd::close_raw(null);
    }
    if right { 0 } else { failed(Errno(libc::ENODEV)) }
}

fn failed(errno: Errno) -> c_int {
    errno::set(errno);
    -1
}

/// libc replaced the standard descriptors itself; what they are is found out anew.
pub fn streams_replaced() {
    if !process::in_shared_memory_child() {
        for number in 0..=2 {
            fds::forget(number);
        }
    }
}
