//! Path → name: which of the program's paths are regions.
//!
//! Owns: the prefix, the globs, and normalisation. Called by: abi before a path call. Must not: make a path that is not ours
//! cost more than a comparison of its first bytes (and of the working directory, once).

use core::ffi::c_char;

use super::{config, cwd, runtime_if_started};
use crate::sys::app;

/// A name under the prefix, normalised: no empty component, no `.` or `..`. Empty for the directory itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name(pub String, pub Tail);

/// What a path ends with that says it is a directory's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tail {
    /// Nothing.
    None,
    /// A slash.
    Slash,
    /// `.`
    Dot,
    /// `..`
    DotDot,
}

impl Name {
    /// A name that was not given as a path.
    pub fn plain(name: String) -> Name {
        Name(name, Tail::None)
    }

    /// The name that a path has, which says whether it is a directory's.
    pub fn of(name: String, path: &str) -> Name {
        let tail = match path.rsplit('/').next() {
            Some("") => Tail::Slash,
            Some(".") => Tail::Dot,
            Some("..") => Tail::DotDot,
            Some(_) | None => Tail::None,
        };
        Name(name, tail)
    }

    /// The name that a path with this end led to; a link on the way may have had a slash at its end.
    pub fn ending(self, tail: Tail, slash: bool) -> Name {
        Name(self.0, if slash && tail == Tail::None { Tail::Slash } else { tail })
    }

    /// Whether only a directory can have this name.
    pub fn is_of_directory(&self) -> bool {
        self.1 != Tail::None
    }
}

/// Resolves `.` and `..` in a path below the prefix. `None` if it climbs out.
fn normalise(path: &str) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// An absolute path without `.`, `..` and empty components, by its text: see [`goes_back`].
fn lexical(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// The rest of a path below the prefix; empty for the prefix itself.
fn below_prefix<'a>(path: &'a str, directory: &str) -> Option<&'a str> {
    path.strip_prefix(directory).filter(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Whether a path has a `..` behind a name, which may be a symbolic link's: its text alone does not say where it leads.
pub fn goes_back(path: &str) -> bool {
    path.split('/').skip_while(|part| matches!(*part, "" | "." | "..")).any(|part| part == "..")
}

/// Where a path of ours starts, a directory's name, and what is left of it, with its dots and slashes.
pub fn start(directory: i32, path: &str) -> Option<(String, String)> {
    let config = config();
    let prefix = config.prefix_directory();
    let below = |path: &str, directory: &str| {
        below_prefix(path, directory).map(|rest| (String::new(), rest.trim_start_matches('/').to_owned()))
    };
    if path.starts_with('/') {
        let in_tree = || below(path, &runtime_if_started()?.directory.tree);
        let by_glob = || is_from_glob(path).then(|| (String::new(), path[1..].to_owned()));
        return below(path, prefix).or_else(in_tree).or_else(by_glob);
    }
    match cwd::base_of(directory) {
        Some(base) => Some((base, path.to_owned())),
        None => below(&lexical(&format!("{}/{path}", cwd::real_path(directory)?)), prefix),
    }
}

/// Whether a relative path may lead below the prefix from a directory that is not there: it does if it begins, after `..`s,
/// with a component of the prefix's own. Copies nothing: every relative path of the program passes here.
///
/// # Safety
/// `path` is a C string.
pub unsafe fn may_enter(path: *const c_char) -> bool {
    // SAFETY: the caller's; nothing behind the terminating zero is read.
    unsafe {
        let mut at = path;
        while matches!(*at as u8, b'.' | b'/') {
            at = at.add(1);
        }
        let mut parts = config().prefix_directory().split('/').filter(|part| !part.is_empty());
        parts.any(|part| {
            app::path_starts_with(at, part.as_bytes()) && matches!(*at.add(part.len()) as u8, 0 | b'/')
        })
    }
}

/// Where a path leads that starts under the prefix, or in a directory under it, and climbs out.
pub fn outside(directory: i32, path: &str) -> Option<String> {
    let prefix = config().prefix_directory();
    let whole = if path.starts_with('/') {
        below_prefix(path, prefix)?;
        lexical(path)
    } else {
        lexical(&format!("{prefix}/{}/{path}", cwd::base_of(directory).filter(|_| !path.is_empty())?))
    };
    below_prefix(&whole, prefix).is_none().then_some(whole)
}

/// The name of an absolute path, if it is one of ours.
pub fn absolute(path: &str) -> Option<Name> {
    let config = config();
    let directory = config.prefix_directory();
    if below_prefix(path, directory).is_some() {
        return below_prefix(&lexical(path), directory).and_then(normalise).map(|name| Name::of(name, path));
    }
    if let Some(runtime) = runtime_if_started()
        && let Some(rest) = below_prefix(path, &runtime.directory.tree)
    {
        return normalise(rest).map(|name| Name::of(name, path));
    }
    config
        .paths
        .iter()
        .any(|glob| matches(glob, path))
        .then(|| normalise(path).map(|name| Name::of(name, path)))
        .flatten()
}

/// The name of a path as it was given to a call: absolute, or relative to a directory descriptor (`AT_FDCWD`: the working
/// directory).
pub fn resolve(directory: i32, path: &str) -> Option<Name> {
    if path.starts_with('/') {
        return absolute(path);
    }
    if path.is_empty() {
        return None;
    }
    let prefix = config().prefix_directory();
    let whole = match cwd::base_of(directory) {
        Some(base) => format!("{prefix}/{base}/{path}"),
        None => format!("{}/{path}", cwd::real_path(directory)?),
    };
    below_prefix(&lexical(&whole), prefix).and_then(normalise).map(|name| Name::of(name, path))
}

/// A path out of the namespace's root directory, as the program would write it.
pub fn above_root(path: &str) -> String {
    lexical(&format!("{}/{path}", config().prefix_directory()))
}

/// Whether a name came in by a glob, so that its directories are made as needed.
pub fn is_from_glob(path: &str) -> bool {
    config().paths.iter().any(|glob| matches(glob, path))
}

fn matches(glob: &str, path: &str) -> bool {
    let (Ok(glob), Ok(path)) = (std::ffi::CString::new(glob), std::ffi::CString::new(path)) else {
        return false;
    };
    // SAFETY: both are C strings.
    unsafe { libc::fnmatch(glob.as_ptr(), path.as_ptr(), libc::FNM_PATHNAME) == 0 }
}

/// The path under the prefix for a path inside the page cache's tree: what the program sees of it. The first thing that a
/// program asks may be its working directory, which a shell that went before it left in the tree.
pub fn shown(path: &str) -> Option<String> {
    let rest = cwd::inside(path)?;
    let prefix = config().prefix_directory();
    Some(if rest.is_empty() { prefix.to_owned() } else { format!("{prefix}/{rest}") })
}

#[cfg(test)]
mod tests {
    use super::{below_prefix, goes_back, lexical, matches, normalise};

    #[test]
    fn names_are_normalised_and_never_climb_out() {
        for (path, name) in [
            ("", Some("")),
            ("/", Some("")),
            ("/a//b/", Some("a/b")),
            ("/a/./b/../c", Some("a/c")),
            ("/../etc/passwd", None),
            ("/a/../../x", None),
        ] {
            assert_eq!(normalise(path).as_deref(), name, "{path}");
        }
        for (path, whole) in [
            ("/", "/"),
            ("/a/../..", "/"),
            ("/netmem/../netmem//x/.", "/netmem/x"),
            ("/netmem/a/../../x", "/x"),
        ] {
            assert_eq!(lexical(path), whole, "{path}");
        }
        for (path, back) in
            [("/netmem/a", false), ("../../a/b", false), ("/netmem/a/..", true), ("a/./../b", true)]
        {
            assert_eq!(goes_back(path), back, "{path}");
        }
        assert_eq!(below_prefix("/netmem", "/netmem"), Some(""));
        assert_eq!(below_prefix("/netmemory", "/netmem"), None);
        assert!(matches("/data/*.db", "/data/x.db"));
        assert!(!matches("/data/*.db", "/data/y/x.db"));
    }
}
