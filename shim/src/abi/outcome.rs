//! How an operation ends: done, not ours, or failed.
//!
//! Owns: [`Exit`] and its way back to C. Called by: every hook. Must not: touch errno on success or pass-through (rule 6).

use crate::sys::errno::{self, Errno};

/// Why a call is left to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Not our descriptor, path or range.
    NotOurs,
}

/// An operation that did not produce a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Make the call as it is.
    Pass(Why),
    /// Give the program this error.
    Fail(Errno),
}

impl From<Errno> for Exit {
    fn from(errno: Errno) -> Self {
        Exit::Fail(errno)
    }
}

impl From<rustix::io::Errno> for Exit {
    fn from(errno: rustix::io::Errno) -> Self {
        Exit::Fail(errno.into())
    }
}

/// What an operation gives.
pub type Outcome<T> = Result<T, Exit>;

/// A C return value that has an error value.
pub trait CReturn {
    /// What the call returns when it sets errno.
    const FAILED: Self;
}

impl CReturn for i32 {
    const FAILED: Self = -1;
}
impl CReturn for isize {
    const FAILED: Self = -1;
}
impl CReturn for i64 {
    const FAILED: Self = -1;
}
impl<T> CReturn for *mut T {
    // mmap's MAP_FAILED; hooks that return null on failure do not use `finish`.
    const FAILED: Self = usize::MAX as *mut T;
}

/// Ends a hook: the operation's value, the error, or the call itself.
pub fn finish<T: CReturn>(outcome: Outcome<T>, pass: impl FnOnce() -> T) -> T {
    match outcome {
        Ok(value) => value,
        Err(Exit::Pass(_)) => pass(),
        Err(Exit::Fail(errno)) => {
            errno::set(errno);
            T::FAILED
        }
    }
}

/// The result of a raw system call as a C return value.
pub fn raw_result(result: Result<usize, Errno>) -> isize {
    match result {
        Ok(value) => value as isize,
        Err(errno) => {
            errno::set(errno);
            -1
        }
    }
}

/// What is not ours.
pub const NOT_OURS: Exit = Exit::Pass(Why::NotOurs);
