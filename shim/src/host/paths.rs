//! Path → name: which of the program's paths are regions.
//!
//! Owns: the prefix, the globs, and normalisation. Called by: abi before a path call. Must not: make a path that is not ours
//! cost more than a comparison of its first bytes (and of the working directory, once).

use super::{config, cwd, runtime_if_started};

/// A name under the prefix, normalised: no empty component, no `.` or `..`. Empty for the directory itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name(pub String);

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

/// Where a path that starts under the prefix and climbs out of it leads.
pub fn outside(path: &str) -> Option<String> {
    let rest = path.strip_prefix(config().prefix_directory()).filter(|rest| rest.starts_with('/'))?;
    if normalise(rest).is_some() {
        return None;
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    Some(format!("/{}", parts.join("/")))
}

/// The name of an absolute path, if it is one of ours.
pub fn absolute(path: &str) -> Option<Name> {
    let config = config();
    let directory = config.prefix_directory();
    if let Some(rest) = path.strip_prefix(directory)
        && (rest.is_empty() || rest.starts_with('/'))
    {
        return normalise(rest).map(Name);
    }
    if let Some(runtime) = runtime_if_started()
        && let Some(rest) = path.strip_prefix(runtime.directory.tree.as_str())
        && (rest.is_empty() || rest.starts_with('/'))
    {
        return normalise(rest).map(Name);
    }
    config.paths.iter().any(|glob| matches(glob, path)).then(|| normalise(path).map(Name)).flatten()
}

/// The name of a path as it was given to a call: absolute, or relative to a directory descriptor (`AT_FDCWD`: the working
/// directory).
pub fn resolve(directory: i32, path: &str) -> Option<Name> {
    if path.starts_with('/') {
        return absolute(path);
    }
    let base = cwd::base_of(directory)?;
    if path.is_empty() {
        return None;
    }
    normalise(&format!("{base}/{path}")).map(Name)
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

/// The path under the prefix for a path inside the page cache's tree: what the program sees of it.
pub fn shown(path: &str) -> Option<String> {
    let rest = path.strip_prefix(runtime_if_started()?.directory.tree.as_str())?;
    (rest.is_empty() || rest.starts_with('/')).then(|| format!("{}{rest}", config().prefix_directory()))
}

#[cfg(test)]
mod tests {
    use super::{matches, normalise};

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
        assert!(matches("/data/*.db", "/data/x.db"));
        assert!(!matches("/data/*.db", "/data/y/x.db"));
    }
}
