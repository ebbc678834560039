//! The command `netmem`, and the content of regions.
//!
//! Owns: how a test calls it. Called by: tests. Must not: know what a command answers.

use std::fs;
use std::path::{Path, PathBuf};

use netmem_cli::error::ClientError;
use netmem_protocol::Run as Pages;
use netmem_protocol::control::{Create, Entry};
use netmem_protocol::{ErrorCode, PageIndex};
use tempfile::TempDir;

use crate::built::built;
use crate::host::Host;
use crate::run::{Output, Run};
use crate::server::Server;

/// `netmem` with arguments, against a server.
pub fn netmem(server: &Server, arguments: &[&str]) -> Run {
    Run::plain(&built().command).env("NETMEM_SERVER", server.url()).args(arguments)
}

/// `netmem run --server … -- COMMAND`, on a host.
pub fn netmem_run(host: &Host, server: &Server, command: &[&str]) -> Run {
    let run =
        Run::plain(&built().command).env("NETMEM_LIBRARY", &built().library).env("NETMEM_DIR", host.cache());
    let run = host.engine().environment().iter().fold(run, |run, (name, value)| run.env(name, *value));
    run.args(["run", "--server", server.url(), "--"]).args(command)
}

/// What `netmem export` gives of a region.
pub fn exported(server: &Server, name: &str) -> Vec<u8> {
    let place = TempDir::new().expect("a directory");
    let file = place.path().join("exported");
    netmem(server, &["export", "--quiet", name]).arg(&file).ok();
    fs::read(&file).expect("what was exported")
}

/// Makes a region of these bytes.
pub fn import(server: &Server, name: &str, bytes: &[u8]) -> Output {
    let place = TempDir::new().expect("a directory");
    let file = place.path().join("imported");
    fs::write(&file, bytes).expect("what is imported");
    import_file(server, name, &file)
}

/// Makes a region of a file.
pub fn import_file(server: &Server, name: &str, file: &Path) -> Output {
    netmem(server, &["import"]).arg(file).arg(name).ok()
}

/// Bytes of a region at its newest epoch, over a connection of our own.
pub fn bytes_at(server: &Server, name: &str, offset: usize, count: usize) -> Vec<u8> {
    let mut client = server.client();
    let entry = client.open(name, Create::Never, 0).unwrap_or_else(|error| panic!("{name}: {error}"));
    let first = offset / 4096;
    let run =
        Pages { first: PageIndex(first as u64), count: ((offset + count).div_ceil(4096) - first) as u32 };
    let pages =
        client.fetch_pages(entry.region, entry.epoch, &[run]).unwrap_or_else(|e| panic!("{name}: {e}"));
    let all: Vec<u8> =
        pages.into_iter().flat_map(|(_, page)| page.map_or(vec![0; 4096], |page| page.to_vec())).collect();
    all[offset - first * 4096..][..count].to_vec()
}

/// A region at its newest epoch, all of it of that one; `None`: there is no such name.
pub fn whole(server: &Server, name: &str) -> Option<(Entry, Vec<u8>)> {
    let mut client = server.client();
    let entry = match client.open(name, Create::Never, 0) {
        Err(ClientError::Answer { code: ErrorCode::NotFound, .. }) => return None,
        entry => entry.unwrap_or_else(|error| panic!("{name}: {error}")),
    };
    let run = Pages { first: PageIndex(0), count: entry.size.div_ceil(4096) as u32 };
    let runs = if run.count == 0 { vec![] } else { vec![run] };
    let pages =
        client.fetch_pages(entry.region, entry.epoch, &runs).unwrap_or_else(|e| panic!("{name}: {e}"));
    let mut all: Vec<u8> =
        pages.into_iter().flat_map(|(_, page)| page.map_or(vec![0; 4096], |page| page.to_vec())).collect();
    all.truncate(entry.size as usize);
    Some((entry, all))
}

/// The letter of each page of a region at its newest epoch.
pub fn letters(server: &Server, name: &str) -> String {
    letters_of(&whole(server, name).unwrap_or_else(|| panic!("{name} is not there")).1)
}

/// The letter of each page: `.` for zeros, `?` for a page that is not the same all over.
pub fn letters_of(content: &[u8]) -> String {
    let letter = |page: &[u8]| match page.iter().all(|byte| *byte == page[0]) {
        true if page[0] == 0 => '.',
        true => char::from(page[0]),
        false => '?',
    };
    content.chunks(4096).map(letter).collect()
}

/// A file of `bytes` bytes of words in lines, the same every time, made once.
pub fn big_text(bytes: usize) -> PathBuf {
    let path = crate::built::target_directory().join("test-programs").join(format!("text-{bytes}"));
    if fs::metadata(&path).is_ok_and(|metadata| metadata.len() == bytes as u64) {
        return path;
    }
    let fresh = path.with_extension(format!("new-{}-{:?}", std::process::id(), std::thread::current().id()));
    fs::write(&fresh, text(bytes)).expect("a file of text");
    fs::rename(&fresh, &path).expect("its name");
    path
}

fn text(bytes: usize) -> Vec<u8> {
    const WORDS: [&str; 8] = ["page", "region", "epoch", "commit", "needle", "far", "memory", "x"];
    let mut text = Vec::with_capacity(bytes + 16);
    let mut state = 1u64;
    while text.len() < bytes {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        text.extend_from_slice(WORDS[(state >> 61) as usize].as_bytes());
        text.push(if state >> 32 & 15 == 0 { b'\n' } else { b' ' });
    }
    text.truncate(bytes);
    text
}
