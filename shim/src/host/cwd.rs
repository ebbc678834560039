//! The working directory, and directory descriptors, when they lie under the prefix.
//!
//! Owns: whether the working directory is ours. Called by: paths, abi's chdir and getcwd. Must not: ask the kernel more than
//! once while the program does not change it.

use core::sync::atomic::{AtomicU8, Ordering};

use super::{config, directory, runtime, runtime_if_started};
use crate::sys::{file, proc};

const UNKNOWN: u8 = 0;
const FOREIGN: u8 = 1;
const OURS: u8 = 2;

static CWD: AtomicU8 = AtomicU8::new(UNKNOWN);

/// The working directory may have changed.
pub fn changed() {
    CWD.store(UNKNOWN, Ordering::Relaxed);
}

/// Whether a path relative to a directory can be ours; for most programs one load.
pub fn may_be_ours(number: i32) -> bool {
    if number != libc::AT_FDCWD {
        return matches!(super::fds::classify(number), Ok(super::fds::Descriptor::Directory));
    }
    match CWD.load(Ordering::Relaxed) {
        FOREIGN => false,
        OURS => true,
        _ => base_of(number).is_some(),
    }
}

/// The name of a directory as `openat` and its kin mean it, if it is ours. Empty for the root.
pub fn base_of(number: i32) -> Option<String> {
    let path = if number == libc::AT_FDCWD {
        if CWD.load(Ordering::Relaxed) == FOREIGN {
            return None;
        }
        let path = real_path(number)?;
        let ours = inside(&path).is_some();
        CWD.store(if ours { OURS } else { FOREIGN }, Ordering::Relaxed);
        path
    } else {
        if !matches!(super::fds::classify(number), Ok(super::fds::Descriptor::Directory)) {
            return None;
        }
        real_path(number)?
    };
    inside(&path)
}

/// The kernel's path of a directory.
pub fn real_path(number: i32) -> Option<String> {
    if number == libc::AT_FDCWD {
        rustix::process::getcwd(Vec::new()).ok()?.into_string().ok()
    } else {
        proc::descriptor_path(number)
    }
}

/// What lies below the page cache's tree of a path in it; starts the library if the path can be in one.
pub fn inside(path: &str) -> Option<String> {
    if runtime_if_started().is_none() {
        let root = directory::root_path(config());
        if !path.starts_with(&root) || config().disable || !file::exists(&root) {
            return None;
        }
    }
    let runtime = runtime_if_started().or_else(|| runtime().ok())?;
    let rest = path.strip_prefix(runtime.directory.tree.as_str())?;
    (rest.is_empty() || rest.starts_with('/')).then(|| rest.trim_start_matches('/').to_owned())
}
