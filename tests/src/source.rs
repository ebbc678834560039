//! The source tree, as text, for the tests that keep it tidy.
//!
//! Owns: finding files. Called by: tests/tidy.rs. Must not: judge.

use std::fs;
use std::path::{Path, PathBuf};

use crate::built::root;

/// A file of the repository.
#[derive(Debug)]
pub struct Source {
    /// Its path from the root.
    pub path: String,
    /// What it holds.
    pub text: String,
}

/// All files below `directory` whose names end in one of `kinds`, in order.
pub fn files(directory: &str, kinds: &[&str]) -> Vec<Source> {
    let mut found = Vec::new();
    walk(&root().join(directory), kinds, &mut found);
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

fn walk(directory: &Path, kinds: &[&str], found: &mut Vec<Source>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path: PathBuf = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        if path.is_dir() {
            if name != "target" && !name.starts_with('.') {
                walk(&path, kinds, found);
            }
        } else if kinds.iter().any(|kind| name.ends_with(kind)) {
            let text =
                fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            let path = path.strip_prefix(root()).unwrap_or(&path).display().to_string();
            found.push(Source { path, text });
        }
    }
}
