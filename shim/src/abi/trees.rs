//! Walks by fts(3): libc walks the local tree, the program sees the paths that it gave.
//!
//! Owns: which walks are of our trees, and what an entry shows. Called by: exports. Must not: leave an entry changed while libc looks at it.
//!
//! libc reads an entry's own path again when it goes on from it. So what is shown is put into the entry that libc returned, and taken
//! out before the next call on the same walk. A walk under way belongs to one thread, as fts(3) has it: it is out of the table meanwhile.

use core::ffi::{CStr, c_char, c_int, c_long, c_void};
use std::ffi::CString;

use super::follow::Last;
use super::outcome::{Exit, NOT_OURS, Outcome};
use super::{status, walk};
use crate::host::cwd;
use crate::sync::QuietMutex;

/// fts(3) follows those that it was given.
pub const FTS_COMFOLLOW: c_int = 1;
/// fts(3) follows all.
pub const FTS_LOGICAL: c_int = 2;
/// A regular file, whose status is there.
const FTS_F: u16 = 8;
/// The level of the trees that were given.
const ROOT_LEVEL: i16 = 0;

/// FTSENT, the same with 64.
#[repr(C)]
pub struct Entry {
    links: [*mut c_void; 3],
    number: c_long,
    pointer: *mut c_void,
    access: *mut c_char,
    path: *mut c_char,
    failed: c_int,
    symbol: c_int,
    path_length: u16,
    name_length: u16,
    identity: [u64; 3],
    level: i16,
    info: u16,
    flags: u16,
    instruction: u16,
    status: *mut c_void,
}

/// A tree: the local path that libc walks, and the one that the program gave.
pub type Tree = (CString, CString);

/// A walk, by the address of libc's FTS.
struct Walk {
    stream: usize,
    trees: Vec<Tree>,
    /// The tree that the last entry is of.
    now: usize,
    shown: Vec<u8>,
    entry: *mut Entry,
    /// What libc has in that entry: its ways of access and path, and how long the path is.
    libcs: (*mut c_char, *mut c_char, u16),
}

// SAFETY: the pointers are looked at only by the thread that walks, in calls on its walk.
unsafe impl Send for Walk {}

/// Lock order: taken alone.
static WALKS: QuietMutex<Vec<Walk>> = QuietMutex::new(Vec::new());

/// Around a fork: nobody is half-way through the table in the child.
pub fn lock_across_fork() {
    let _: crate::sync::Kept = WALKS.lock_keeping_mask();
}

/// Gives it back, in the parent and in the child.
pub fn unlock_after_fork() {
    WALKS.unlock_kept();
}

/// The local paths of the trees that fts_open(3) is going to walk, null at the end, and which of them are ours. Paths that are not stay.
///
/// # Safety
/// `paths` is null or an array of C strings with a null at its end.
pub unsafe fn local(paths: *const *const c_char, options: c_int) -> Outcome<(Vec<Tree>, Vec<*const c_char>)> {
    let last = Last::only(options, FTS_LOGICAL | FTS_COMFOLLOW);
    let (mut trees, mut out) = (Vec::new(), Vec::new());
    if paths.is_null() {
        return Err(NOT_OURS);
    }
    // SAFETY: the caller's array, up to its null.
    for given in (0..).map(|i| unsafe { *paths.add(i) }).take_while(|path| !path.is_null()) {
        // SAFETY: one of its strings.
        match unsafe { walk::local_tree(given, last) } {
            Ok(local) => {
                out.push(local.as_ptr());
                // SAFETY: the same.
                trees.push((local, unsafe { CStr::from_ptr(given) }.to_owned()));
            }
            // What is wrong with one, the walk itself says.
            Err(Exit::Pass(_) | Exit::Fail(_)) => out.push(given),
        }
    }
    out.push(core::ptr::null());
    if trees.is_empty() { Err(NOT_OURS) } else { Ok((trees, out)) }
}

/// A walk has begun.
pub fn began(stream: *mut c_void, trees: Vec<Tree>) -> *mut c_void {
    if !stream.is_null() {
        let libcs = (core::ptr::null_mut(), core::ptr::null_mut(), 0);
        let entry = core::ptr::null_mut();
        WALKS.lock().push(Walk { stream: stream as usize, trees, now: 0, shown: Vec::new(), entry, libcs });
    }
    stream
}

/// A call on a walk: what it returns is the walk's next entry (`moves`), or leaves it where it is.
///
/// # Safety
/// `stream` is an FTS that is open, `make` libc's call on it.
pub unsafe fn call<R>(
    stream: *mut c_void,
    make: impl FnOnce() -> R,
    next: impl FnOnce(&R) -> Option<*mut Entry>,
) -> R {
    let Some(mut walk) = take(stream) else { return make() };
    // SAFETY: the entry that the last call on this walk returned, which libc keeps until the next.
    unsafe { walk.give_back() };
    let result = make();
    // Without FTS_NOCHDIR libc changes directories by calls that do not pass through us.
    cwd::changed();
    let (entry, moved) = next(&result).map_or((walk.entry, false), |entry| (entry, true));
    // SAFETY: libc's own entry, or null.
    unsafe { walk.show(entry, moved) };
    WALKS.lock().push(walk);
    result
}

/// fts_close(3).
///
/// # Safety
/// As of `call`.
pub unsafe fn end(stream: *mut c_void, make: impl FnOnce() -> c_int) -> c_int {
    if let Some(walk) = take(stream) {
        // SAFETY: as in `call`.
        unsafe { walk.give_back() };
    }
    let result = make();
    cwd::changed();
    result
}

fn take(stream: *mut c_void) -> Option<Walk> {
    let mut walks = WALKS.lock();
    let at = walks.iter().position(|walk| walk.stream == stream as usize)?;
    Some(walks.swap_remove(at))
}

impl Walk {
    unsafe fn give_back(&self) {
        if !self.entry.is_null() {
            // SAFETY: the caller's.
            unsafe {
                ((*self.entry).access, (*self.entry).path, (*self.entry).path_length) = self.libcs;
            }
        }
    }

    /// Puts the program's path into an entry of one of our trees.
    unsafe fn show(&mut self, entry: *mut Entry, moved: bool) {
        self.entry = core::ptr::null_mut();
        // SAFETY: null, or libc's own.
        let Some(found) = (unsafe { entry.as_mut() }) else { return };
        // SAFETY: its path, which ends with a null.
        let path = unsafe { CStr::from_ptr(found.path) }.to_bytes();
        if moved && found.level == ROOT_LEVEL {
            self.now =
                self.trees.iter().position(|(local, _)| local.as_bytes() == path).unwrap_or(self.trees.len());
        }
        let Some((local, given)) = self.trees.get(self.now) else { return };
        let Some(rest) = path.strip_prefix(local.as_bytes()) else { return };
        let given = given.as_bytes();
        let short = given.strip_suffix(b"/").unwrap_or(given);
        // Behind the root's path libc may have left a slash, which is not counted.
        let below = usize::from(found.path_length).saturating_sub(local.count_bytes());
        let length = if below == 0 { given.len() } else { short.len() + below };
        let Ok(length) = u16::try_from(length) else { return };
        self.shown.clear();
        self.shown.extend_from_slice(if rest.is_empty() { given } else { short });
        self.shown.extend_from_slice(rest);
        self.shown.push(0);
        (self.entry, self.libcs) = (entry, (found.access, found.path, found.path_length));
        let shown = self.shown.as_mut_ptr().cast();
        found.access = if found.access == found.path { shown } else { found.access };
        (found.path, found.path_length) = (shown, length);
        if found.info == FTS_F {
            // SAFETY: libc's own struct stat of this entry.
            unsafe { status::shown_status(0, found.status) };
        }
    }
}
