//! A file system for a machine that boots: a cpio archive of the "newc" kind, as the kernel's initramfs has it.
//!
//! Owns: the format, and which libraries a program needs. Called by: vm.rs. Must not: know what the machine is for.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// An archive in the making.
#[derive(Debug, Default)]
pub struct Initramfs {
    bytes: Vec<u8>,
    names: BTreeSet<PathBuf>,
}

/// Bits of a mode that say what a file is.
const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;

impl Initramfs {
    /// A directory and those above it, each 0755 unless it is there already.
    pub fn directory(&mut self, path: &Path, mode: u32) {
        if path == Path::new("/") || self.names.contains(path) {
            return;
        }
        if let Some(parent) = path.parent() {
            self.directory(parent, 0o755);
        }
        self.entry(path, DIRECTORY | mode, &[]);
    }

    /// A file of these bytes; the first of a name counts.
    pub fn file(&mut self, path: &Path, mode: u32, bytes: &[u8]) {
        if self.names.contains(path) {
            return;
        }
        self.directory(path.parent().expect("an absolute path"), 0o755);
        self.entry(path, REGULAR | mode, bytes);
    }

    /// A file of this machine, under another name or its own.
    pub fn copy(&mut self, from: &Path, to: &Path) {
        if self.names.contains(to) {
            return;
        }
        let read = || -> io::Result<(u32, Vec<u8>)> {
            Ok((fs::metadata(from)?.permissions().mode() & 0o7777, fs::read(from)?))
        };
        let (mode, bytes) = read().unwrap_or_else(|error| panic!("{}: {error}", from.display()));
        self.file(to, mode, &bytes);
    }

    /// A program of this machine without what only debuggers read, and the libraries that it needs.
    pub fn program(&mut self, from: &Path, to: &Path) {
        let stripped = tempfile::NamedTempFile::new().expect("a file");
        let strip =
            Command::new("strip").arg("--strip-debug").arg("-o").arg(stripped.path()).arg(from).output();
        let bytes = match strip {
            Ok(output) if output.status.success() => fs::read(stripped.path()),
            _ => fs::read(from),
        };
        let bytes = bytes.unwrap_or_else(|error| panic!("{}: {error}", from.display()));
        self.file(to, 0o755, &bytes);
        for library in libraries(from) {
            self.copy(&library, &library);
        }
    }

    /// The archive.
    pub fn finish(mut self) -> Vec<u8> {
        self.entry(Path::new("/TRAILER!!!"), 0, &[]);
        self.bytes
    }

    fn entry(&mut self, path: &Path, mode: u32, data: &[u8]) {
        let name = path.strip_prefix("/").expect("an absolute path").to_str().expect("a name in UTF-8");
        self.names.insert(path.to_owned());
        let inode = self.names.len() as u32;
        let links = if mode & DIRECTORY != 0 { 2 } else { 1 };
        let size = u32::try_from(data.len()).expect("a file below 4 GiB");
        let name_size = name.len() as u32 + 1;
        // inode, mode, user, group, links, time, size, four device numbers, size of the name, checksum
        let fields = [inode, mode, 0, 0, links, 0, size, 0, 0, 0, 0, name_size, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08X}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(data);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

/// What the loader says that a program needs, itself included. None for a static program.
fn libraries(program: &Path) -> Vec<PathBuf> {
    let output = Command::new("ldd").arg(program).output().expect("ldd");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let paths = text.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')));
    paths.map(PathBuf::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_has_its_entries_in_order_each_aligned_and_ends_with_a_trailer() {
        let mut archive = Initramfs::default();
        archive.file(Path::new("/a/b"), 0o644, b"hello");
        archive.file(Path::new("/a/b"), 0o644, b"not this");
        let bytes = archive.finish();
        assert_eq!(bytes.len() % 4, 0);
        let magics: Vec<usize> = (0..bytes.len() - 6).filter(|&at| &bytes[at..at + 6] == b"070701").collect();
        assert_eq!(magics.len(), 3, "the directory, the file, the trailer");
        assert!(magics.iter().all(|at| at % 4 == 0));
        let name = |at: usize| bytes[at + 110..].split(|byte| *byte == 0).next().unwrap_or_default();
        let names: Vec<&[u8]> = magics.iter().map(|at| name(*at)).collect();
        assert_eq!(names, [&b"a"[..], b"a/b", b"TRAILER!!!"]);
        assert_eq!(&bytes[magics[1] + 116..][..5], b"hello");
    }
}
