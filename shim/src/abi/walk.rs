//! Calls of libc that look paths up inside themselves: realpath, nftw, fts, glob.
//!
//! Owns: what such a call is given instead of a path below the prefix, and what the program sees of the answer. Called by:
//! exports. Must not: let libc read a directory that has not been brought in step with the server.

use core::cell::Cell;
use core::ffi::{CStr, c_char, c_int, c_void};
use std::ffi::CString;

use super::follow::{self, Last, Where};
use super::links::name_of;
use super::outcome::Outcome;
use super::status;
use crate::host::paths::{self, Name};
use crate::host::{cwd, directory, names, runtime};
use crate::sys::app;
use crate::sys::errno::Errno;

/// realpath(3): what the program is to see.
///
/// # Safety
/// `path` is null or a C string.
pub unsafe fn real(path: *const c_char) -> Outcome<Where<CString>> {
    let show = |name: &Name| {
        let (_, entry) = names::lookup(runtime()?, name)?;
        Last::Followed.check(entry.kind)?;
        // SAFETY: the caller's.
        let from_glob = unsafe { app::path(path) }.is_some_and(|path| paths::is_from_glob(&path));
        let shown = match (from_glob, name.0.is_empty()) {
            (true, _) => format!("/{}", name.0),
            (false, true) => crate::host::config().prefix_directory().to_owned(),
            (false, false) => format!("{}/{}", crate::host::config().prefix_directory(), name.0),
        };
        Ok(CString::new(shown).map_err(|_| Errno(libc::EINVAL))?)
    };
    // SAFETY: the caller's.
    unsafe { follow::at(libc::AT_FDCWD, path, Last::Followed, show) }
}

/// realpath(3)'s result: in the program's buffer of PATH_MAX bytes, or in memory that it frees.
///
/// # Safety
/// `into` is null or has room for PATH_MAX bytes.
pub unsafe fn resolved(
    real: Outcome<Where<CString>>,
    into: *mut c_char,
    libcs: impl FnOnce(*const c_char) -> *mut c_char,
) -> Outcome<*mut c_char> {
    let real = match real? {
        Where::Here(real) => real,
        Where::Elsewhere(path) => return Ok(libcs(path.as_ptr())),
    };
    let bytes = real.as_bytes_with_nul();
    if bytes.len() > libc::PATH_MAX as usize {
        return Err(Errno(libc::ENAMETOOLONG).into());
    }
    // SAFETY: what realpath(3) returns comes from malloc and is the program's: the one allocation from its heap that it asks for.
    let into = if into.is_null() { unsafe { libc::malloc(bytes.len()) }.cast() } else { into };
    if into.is_null() {
        return Err(Errno(libc::ENOMEM).into());
    }
    // SAFETY: room for that many bytes.
    unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr().cast(), into, bytes.len()) };
    Ok(into)
}

/// Brings all that is below a directory in step, since libc walks the local tree by itself.
fn list_all(name: &Name) -> Result<(), Errno> {
    let runtime = runtime()?;
    match names::list(runtime, name) {
        // A file: there is nothing below.
        Err(Errno(libc::ENOTDIR)) => return Ok(()),
        result => result?,
    }
    let local = runtime.directory.local(&name.0);
    for entry in directory::list(&local)? {
        let stat = rustix::fs::lstat(format!("{local}/{entry}"))?;
        if rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::Directory {
            let below = if name.0.is_empty() { entry } else { format!("{}/{entry}", name.0) };
            list_all(&Name::plain(below))?;
        }
    }
    Ok(())
}

/// A directory descriptor is about to be read from its start.
pub fn list_again(number: c_int) {
    if crate::host::runtime_if_started().is_some()
        && let Some(base) = cwd::base_of(number).filter(|_| number >= 0)
        && let Ok(runtime) = runtime()
    {
        // What can't be asked now is read as it was.
        let _ = names::list(runtime, &Name::plain(base));
    }
}

/// The local path of a tree that libc is going to walk.
///
/// # Safety
/// `path` is null or a C string.
pub unsafe fn local_tree(path: *const c_char, last: Last) -> Outcome<CString> {
    let list = |name: &Name| {
        let (local, entry) = names::lookup(runtime()?, name)?;
        last.check(entry.kind)?;
        list_all(name)?;
        Ok(CString::new(local).map_err(|_| Errno(libc::EINVAL))?)
    };
    // SAFETY: the caller's.
    unsafe { follow::at(libc::AT_FDCWD, path, last, list) }.map(Where::path)
}

/// The function of nftw(3) or ftw(3) that the program gave; nftw's fourth argument is ignored by ftw's.
type Visit = unsafe extern "C" fn(*const c_char, *const c_void, c_int, *mut Position) -> c_int;

/// nftw(3)'s struct FTW.
#[repr(C)]
pub struct Position {
    base: c_int,
    level: c_int,
}

/// nftw(3) follows no links.
pub const FTW_PHYS: c_int = 1;
/// nftw(3) could not have the status of an entry.
const FTW_NS: c_int = 3;

/// A walk under way.
struct Walk {
    visit: Visit,
    /// Whether `visit` is nftw's, which gets a position.
    positioned: bool,
    /// The path that the program gave, without slashes at its end, and how long the one is that libc walks instead.
    given: String,
    local: usize,
}

thread_local! {
    /// What the walk under way in this thread calls. libc hands nothing of the caller's to the function.
    static WALK: Cell<*const Walk> = const { Cell::new(core::ptr::null()) };
}

/// Walks a tree of ours: `libcs` is libc's function on a local path, with a function that shows the program its own paths.
///
/// # Safety
/// `given` is a C string, `visit` a function as nftw(3) or ftw(3) calls it.
pub unsafe fn walk(
    (local, given): (&CStr, *const c_char),
    (visit, positioned): (*const c_void, bool),
    libcs: impl FnOnce(*const c_char, *const c_void) -> c_int,
) -> c_int {
    // SAFETY: the caller's; null is a value of the Option.
    let Some(visit) = (unsafe { core::mem::transmute::<*const c_void, Option<Visit>>(visit) }) else {
        return libcs(local.as_ptr(), core::ptr::null());
    };
    // SAFETY: the caller's.
    let given = unsafe { app::path(given) }.unwrap_or_default().trim_end_matches('/').to_owned();
    let walk = Walk { visit, positioned, given, local: local.count_bytes() };
    let before = WALK.replace(&raw const walk);
    let result = libcs(local.as_ptr(), shown_visit as *const c_void);
    WALK.set(before);
    // With FTW_CHDIR libc changes directories by calls that do not pass through us.
    cwd::changed();
    result
}

/// Shows the program a path below the one that it gave for one in the local tree.
unsafe extern "C" fn shown_visit(
    given: *const c_char,
    stat: *const c_void,
    kind: c_int,
    position: *mut Position,
) -> c_int {
    cwd::changed();
    let now = WALK.get();
    // SAFETY: set by `walk`, which is under way in this thread.
    let walk = unsafe { &*now };
    // SAFETY: libc's own string.
    let rest = unsafe { CStr::from_ptr(given) }.to_bytes().get(walk.local..).unwrap_or_default();
    if !stat.is_null() && kind != FTW_NS {
        // SAFETY: libc's own struct stat, which it fills anew for each entry.
        unsafe { status::shown_status(0, stat.cast_mut()) };
    }
    let Ok(shown) = CString::new([walk.given.as_bytes(), rest].concat()) else { return -1 };
    let result = if walk.positioned {
        // SAFETY: nftw's own structure.
        let (base, level) = unsafe { ((*position).base, (*position).level) };
        // The start's own name lies in what the program gave, which may have no slash; any other lies behind it.
        let base = match level {
            0 => shown.as_bytes().iter().rposition(|byte| *byte == b'/').map_or(0, |at| at as c_int + 1),
            _ => base - walk.local as c_int + walk.given.len() as c_int,
        };
        let mut here = Position { base, level };
        // SAFETY: as libc called us.
        unsafe { (walk.visit)(shown.as_ptr(), stat, kind, &raw mut here) }
    } else {
        // SAFETY: as libc called us; ftw's function takes three arguments.
        unsafe { (walk.visit)(shown.as_ptr(), stat, kind, core::ptr::null_mut()) }
    };
    WALK.set(now);
    result
}

/// glob(3)'s glob_t, with the functions that GLOB_ALTDIRFUNC makes it use.
#[repr(C)]
pub struct Glob {
    count: usize,
    found: *mut *mut c_char,
    offset: usize,
    flags: c_int,
    pub close_directory: *const c_void,
    pub read_directory: *const c_void,
    pub open_directory: *const c_void,
    pub link_status: *const c_void,
    pub status: *const c_void,
}

/// Whether glob(3) has to look through our eyes: the pattern may lead below the prefix.
///
/// # Safety
/// `pattern` is null or a C string.
pub unsafe fn is_pattern_of_ours(pattern: *const c_char, flags: c_int) -> bool {
    // SAFETY: the caller's.
    if flags & libc::GLOB_ALTDIRFUNC != 0 || super::process::disabled() {
        return false;
    }
    let prefix = crate::host::config().prefix_directory();
    // Also in one of several in braces.
    // SAFETY: the caller's.
    unsafe {
        name_of(libc::AT_FDCWD, pattern).is_some()
            || app::path(pattern).is_some_and(|pattern| pattern.contains(prefix))
    }
}
