//! Lines on standard error.
//!
//! Owns: the log level and the one write per line. Called by: every layer but the pager's hot path. Must not: use stdio, or
//! write above debug level from a fault (rule 9).

use core::fmt;
use core::sync::atomic::{AtomicU8, Ordering};

pub use crate::config::LogLevel;
use crate::sys::own::{LAST_BYTES, own};

static LEVEL: AtomicU8 = AtomicU8::new(LogLevel::Warn as u8);

/// Sets what is written from now on.
pub fn set_level(level: LogLevel) {
    LEVEL.store(level as u8, Ordering::Relaxed);
}

/// Whether a line of this level would be written.
pub fn enabled(level: LogLevel) -> bool {
    level as u8 <= LEVEL.load(Ordering::Relaxed)
}

fn remember(text: &str) {
    let mut last = [0; LAST_BYTES];
    let mut length = text.len().min(LAST_BYTES - 1);
    while !text.is_char_boundary(length) {
        length -= 1;
    }
    last[..length].copy_from_slice(&text.as_bytes()[..length]);
    own().last.set(last);
}

/// The text of this thread's last error, a C string that the next error changes; empty if there was none.
pub fn last_error() -> *const core::ffi::c_char {
    own().last.as_ptr() as *const core::ffi::c_char
}

/// For an error that had no line of its own.
pub fn note_error_number(errno: crate::sys::errno::Errno) {
    let silent = own().last.get()[0] == 0;
    if silent {
        remember(&format!("{errno}"));
    }
}

/// Writes `netmem: TEXT`, in one system call so that lines of several threads do not mix.
pub fn line(level: LogLevel, text: fmt::Arguments<'_>) {
    if level == LogLevel::Error {
        remember(&text.to_string());
    }
    if enabled(level) {
        let line = match level {
            LogLevel::Debug => format!("netmem[{}]: {text}\n", rustix::process::getpid().as_raw_nonzero()),
            LogLevel::Off | LogLevel::Error | LogLevel::Warn | LogLevel::Info => format!("netmem: {text}\n"),
        };
        crate::sys::fd::write_all(2, line.as_bytes());
    }
}

/// What failed: the thing, and what to do.
macro_rules! error { ($($arg:tt)*) => { $crate::log::line($crate::log::LogLevel::Error, format_args!($($arg)*)) } }
/// What was decided.
macro_rules! info { ($($arg:tt)*) => { $crate::log::line($crate::log::LogLevel::Info, format_args!($($arg)*)) } }
/// Why something was or was not intercepted.
macro_rules! debug {
    ($($arg:tt)*) => {
        if $crate::log::enabled($crate::log::LogLevel::Debug) {
            $crate::log::line($crate::log::LogLevel::Debug, format_args!($($arg)*))
        }
    };
}
pub(crate) use {debug, error, info};
