//! Where a path leads: a name of ours, or a path of the kernel's that one of ours leads to.
//!
//! Owns: when symbolic links and `..` are asked about. Called by: every operation on a path. Must not: ask about a path that has
//! neither: an operation is tried under the path's own name first, and the server says that a link is in the way.

use core::ffi::c_char;
use std::ffi::CString;

use netmem_protocol::control::EntryKind;

use super::links::name_of;
use super::outcome::{Exit, NOT_OURS, Outcome};
use crate::host::paths::{self, Name};
use crate::host::{cwd, names, runtime};
use crate::sys::app;
use crate::sys::errno::Errno;

/// What a call does with a symbolic link at the end of its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Last {
    /// It means what the link leads to.
    Followed,
    /// It means the link itself, unless there is a slash behind it.
    Itself,
    /// It means the name: it makes, moves or removes it, slash or not.
    Named,
}

impl Last {
    /// Followed without this flag.
    pub fn unless(flags: i32, flag: i32) -> Last {
        if flags & flag == 0 { Last::Followed } else { Last::Itself }
    }

    /// Followed with this flag only.
    pub fn only(flags: i32, flag: i32) -> Last {
        if flags & flag == 0 { Last::Itself } else { Last::Followed }
    }

    /// ELOOP for what is a link and is to be followed: see [`at`].
    pub fn check(self, kind: EntryKind) -> Result<(), Errno> {
        let follow = self == Last::Followed && kind == EntryKind::Symlink;
        if follow { Err(Errno(libc::ELOOP)) } else { Ok(()) }
    }
}

/// An operation on a path of ours: done, or to be done where the path leads.
pub enum Where<T> {
    /// Done.
    Here(T),
    /// It leads out of the prefix: the kernel's path.
    Elsewhere(CString),
}

impl Where<CString> {
    /// The path for the kernel, either way.
    pub fn path(self) -> CString {
        match self {
            Where::Here(path) | Where::Elsewhere(path) => path,
        }
    }
}

/// A path of a call: where it starts, and its text.
type Given = (i32, *const c_char);

/// The path of a pair of which none is ours.
pub enum End {
    /// As it was given.
    Given(i32, *const c_char),
    /// Where it leads.
    Leads(CString),
}

impl End {
    /// As two arguments of a system call.
    pub fn arguments(&self) -> (usize, usize) {
        match self {
            End::Given(directory, path) => (*directory as isize as usize, *path as usize),
            End::Leads(path) => (libc::AT_FDCWD as isize as usize, path.as_ptr() as usize),
        }
    }
}

/// An operation on two paths.
pub enum Pair<T> {
    /// Done: both are ours.
    Here(T),
    /// One is ours.
    Apart,
    /// None is, but at least one leads out of the prefix.
    Elsewhere(End, End),
}

/// What a path means so far.
#[derive(PartialEq, Eq)]
enum Place {
    Ours(Name),
    Elsewhere(CString),
    Foreign,
}

/// A race with whoever changes links is tried again so often.
const TRIES: usize = 8;

/// Where a path leads that climbs out of the prefix (`/netmem/..`, or `../..` in a working directory of ours): the prefix need not
/// be there for the kernel, and a directory of ours is somewhere else for it.
///
/// # Safety
/// `path` is null or a C string.
unsafe fn climbed(directory: i32, path: *const c_char) -> Option<CString> {
    if path.is_null() || super::process::disabled() {
        return None;
    }
    // SAFETY: the caller's.
    unsafe {
        let prefix = crate::host::config().prefix_directory().as_bytes();
        let absolute = app::path_starts_with(path, b"/");
        let could_be =
            if absolute { app::path_starts_with(path, prefix) } else { cwd::may_be_ours(directory) };
        if !could_be {
            return None;
        }
        CString::new(paths::outside(directory, &app::path(path)?)?).ok()
    }
}

/// What a path means by its text alone, if that can be told: `..` behind a name may be behind a link.
unsafe fn by_text(given: Given, last: Last) -> Outcome<Place> {
    // SAFETY: the caller's.
    let (name, climbed) = unsafe {
        match name_of(given.0, given.1) {
            Some(name) => (Some(name), None),
            None => (None, climbed(given.0, given.1)),
        }
    };
    if name.is_none() && climbed.is_none() {
        return Ok(Place::Foreign);
    }
    // SAFETY: the caller's.
    if unsafe { app::path(given.1) }.is_some_and(|path| paths::goes_back(&path)) {
        // SAFETY: the caller's.
        return unsafe { walked(given, last) };
    }
    Ok(match (name, climbed) {
        (Some(name), _) => Place::Ours(name),
        (None, Some(path)) => Place::Elsewhere(path),
        (None, None) => Place::Foreign,
    })
}

/// What a path means with its links followed.
unsafe fn walked(given: Given, last: Last) -> Outcome<Place> {
    // SAFETY: the caller's.
    let path = unsafe { app::path(given.1) }.ok_or(NOT_OURS)?;
    let Some((base, rest)) = paths::start(given.0, &path) else { return Ok(Place::Foreign) };
    let tail = Name::of(String::new(), &path).1;
    let rest = if last == Last::Named { rest.trim_end_matches('/') } else { rest.as_str() };
    Ok(match names::resolve(runtime()?, base, rest, last == Last::Followed)? {
        names::Leads::To(name, slash) => Place::Ours(name.ending(tail, slash)),
        names::Leads::Out(path) => Place::Elsewhere(CString::new(path).map_err(|_| Errno(libc::ENOENT))?),
    })
}

/// Does something with what a path names. `make` gets a name and says ELOOP where a link is in the way; it is then called again with
/// the name that the path leads to.
///
/// # Safety
/// `path` is null or a C string.
pub unsafe fn at<T>(
    directory: i32,
    path: *const c_char,
    last: Last,
    mut make: impl FnMut(&Name) -> Outcome<T>,
) -> Outcome<Where<T>> {
    // SAFETY: the caller's.
    let mut place = unsafe { by_text((directory, path), last) }?;
    for _ in 0..TRIES {
        let name = match place {
            Place::Foreign => return Err(NOT_OURS),
            Place::Elsewhere(path) => return Ok(Where::Elsewhere(path)),
            Place::Ours(name) => name,
        };
        match make(&name) {
            Err(Exit::Fail(Errno(libc::ELOOP))) => {}
            made => return made.map(Where::Here),
        }
        // SAFETY: the caller's.
        place = unsafe { walked((directory, path), last) }?;
        if matches!(&place, Place::Ours(again) if *again == name) {
            break;
        }
    }
    Err(Errno(libc::ELOOP).into())
}

/// The same with two names; the second is one that is made.
///
/// # Safety
/// Both paths are null or C strings.
pub unsafe fn pair<T>(
    from: (Given, Last),
    to: Given,
    mut make: impl FnMut(&Name, &Name) -> Outcome<T>,
) -> Outcome<Pair<T>> {
    let (from, last) = from;
    // SAFETY: the caller's.
    let mut places = unsafe { (by_text(from, last)?, by_text(to, Last::Named)?) };
    if places == (Place::Foreign, Place::Foreign) {
        return Err(NOT_OURS);
    }
    for tried in 0..TRIES {
        let ours = match &places {
            (Place::Ours(from), Place::Ours(to)) => match make(from, to) {
                Err(Exit::Fail(Errno(libc::ELOOP))) => None,
                made => return made.map(Pair::Here),
            },
            // One name of ours may lead to where the other is.
            (Place::Ours(_), _) | (_, Place::Ours(_)) if tried > 0 => Some(Pair::Apart),
            (Place::Ours(_), _) | (_, Place::Ours(_)) => None,
            _ => {
                let end = |place, given: Given| match place {
                    Place::Elsewhere(path) => End::Leads(path),
                    Place::Ours(_) | Place::Foreign => End::Given(given.0, given.1),
                };
                return Ok(Pair::Elsewhere(end(places.0, from), end(places.1, to)));
            }
        };
        if let Some(apart) = ours {
            return Ok(apart);
        }
        // SAFETY: the caller's.
        let again = unsafe { (leads(from, last)?, leads(to, Last::Named)?) };
        if tried > 0 && again == places {
            break;
        }
        places = again;
    }
    Err(Errno(libc::ELOOP).into())
}

unsafe fn leads(given: Given, last: Last) -> Outcome<Place> {
    // SAFETY: the caller's.
    match unsafe { by_text(given, last) }? {
        // SAFETY: the caller's.
        Place::Ours(_) => unsafe { walked(given, last) },
        place => Ok(place),
    }
}
