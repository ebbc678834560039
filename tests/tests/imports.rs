//! No door is left open by accident: each name that real programs import from libc is exported by us, or is known to be safe to leave alone.
//!
//! Owns: the list of programs; tests/imports.txt, the names left alone in groups, each with its reason. Called by: `cargo test`. Must not:
//! guess what a name does.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use netmem_tests::built::root;

/// Programs that the tests run on regions or beside them.
const PROGRAMS: &str = "fio stress-ng mdb_stat mdb_load mdb_copy mdb_dump sqlite3 python3 /usr/bin/python3 perl ruby gdbmtool tdbtool
    tdbdump tdbbackup xfs_io rg rrdtool git sort cp dd cmp mv tar rsync sha256sum install split tee shred truncate touch find du ls stat
    sed awk ed vim gzip xz bzip2 zip unzip make gcc ld redis-server redis-cli node bash dash postgres initdb pgbench php tclsh
    sysbench tchtest kchashtest";
/// Directories whose shared objects they load.
const MODULES: [&str; 4] = [
    "/usr/lib/python3/dist-packages/numpy",
    "/usr/lib/python3.11/lib-dynload",
    "/usr/lib/x86_64-linux-gnu/perl-base",
    "/usr/lib/x86_64-linux-gnu/perl",
];
/// Libraries that the programs are linked with, and that no test of ours makes work: clients of storage systems and drivers.
const NOT_USED: [&str; 16] = [
    "librbd.",
    "librados.",
    "libgfapi.",
    "libnbd.",
    "librdmacm.",
    "libibverbs.",
    "libsctp.",
    "libGLES",
    "libEGL.",
    "libgbm.",
    "libIPSec",
    "libdevmapper.",
    "libpmem",
    "libsystemd.",
    "libkmod.",
    "libapparmor.",
];

/// Where a library's exported, or another object's imported, dynamic symbols are.
fn symbols(which: &str, object: &Path) -> BTreeSet<String> {
    let output = Command::new("nm").args(["-D", which]).arg(object).output().expect("nm");
    let text = String::from_utf8_lossy(&output.stdout);
    // `strong` and `weak` imports alike; a version is not part of the name.
    let names = text.lines().filter_map(|line| line.split_whitespace().last());
    names.map(|name| name.split('@').next().unwrap_or_default().to_owned()).collect()
}

fn found(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin"), PathBuf::from("/sbin")]);
    places.map(|place| place.join(program)).find(|path| path.is_file())
}

/// The libraries that an object is linked with directly, but for libc's own parts.
fn linked(object: &Path) -> Vec<PathBuf> {
    let output = Command::new("readelf").arg("-d").arg(object).output().expect("readelf");
    let needed: Vec<String> = String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter(|line| line.contains("(NEEDED)"))
        .filter_map(|line| Some(line.split_once('[')?.1.trim_end_matches(']').to_owned()))
        .collect();
    let output = Command::new("ldd").arg(object).output().expect("ldd");
    let places = String::from_utf8_lossy(&output.stdout).into_owned();
    let place = |name: &String| {
        let line = places.lines().find(|line| line.trim_start().starts_with(name.as_str()))?;
        Some(PathBuf::from(line.split_once("=> ")?.1.split_whitespace().next()?))
    };
    let own = ["libc.so", "libm.so", "libdl.so", "libpthread.so", "librt.so", "ld-linux"];
    let left_out = |name: &&String| own.iter().chain(&NOT_USED).any(|part| name.starts_with(part));
    needed.iter().filter(|name| !left_out(name)).filter_map(place).collect()
}

fn modules(directory: &Path, into: &mut BTreeSet<PathBuf>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            modules(&path, into);
        } else if path.extension().is_some_and(|kind| kind == "so") {
            into.insert(path);
        }
    }
}

fn words(file: &str) -> BTreeSet<String> {
    let text = fs::read_to_string(root().join(file)).expect("the list");
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .flat_map(str::split_whitespace)
        .map(str::to_owned)
        .collect()
}

/// Every shared name of libc that one of the programs, its libraries or its modules imports, with one that does.
fn imports() -> BTreeMap<String, PathBuf> {
    let mut objects: BTreeSet<PathBuf> = PROGRAMS.split_whitespace().filter_map(found).collect();
    assert!(objects.len() >= 20, "only {} of the programs are installed", objects.len());
    let libraries: BTreeSet<PathBuf> = objects.iter().flat_map(|object| linked(object)).collect();
    let libc = linked_libc(Path::new("/bin/sh"));
    objects.extend(libraries);
    for directory in MODULES {
        modules(Path::new(directory), &mut objects);
    }
    let theirs = symbols("--defined-only", &libc);
    assert!(theirs.contains("open64") && theirs.len() > 1000, "{}: {} names", libc.display(), theirs.len());
    let mut found = BTreeMap::new();
    for object in objects {
        for name in symbols("--undefined-only", &object) {
            if theirs.contains(&name) {
                found.entry(name).or_insert_with(|| object.clone());
            }
        }
    }
    found
}

fn linked_libc(object: &Path) -> PathBuf {
    let output = Command::new("ldd").arg(object).output().expect("ldd");
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find(|line| line.trim_start().starts_with("libc.so.6")).expect("libc.so.6");
    PathBuf::from(line.split_whitespace().nth(2).expect("its place"))
}

#[test]
fn every_import_of_real_programs_is_served_or_known_to_be_safe() {
    let (served, safe) = (words("shim/exports.txt"), words("tests/imports.txt"));
    let unknown: Vec<String> = imports()
        .into_iter()
        .filter(|(name, _)| !served.contains(name) && !safe.contains(name))
        .map(|(name, object)| format!("{name} ({})", object.display()))
        .collect();
    assert!(
        unknown.is_empty(),
        "export these (shim/exports.txt), or say in tests/imports.txt why they may be left alone:\n{}",
        unknown.join("\n")
    );
}

#[test]
fn no_name_is_served_and_listed_as_left_alone() {
    let both: Vec<String> =
        words("shim/exports.txt").intersection(&words("tests/imports.txt")).cloned().collect();
    assert!(
        both.is_empty(),
        "take these out of tests/imports.txt, since they are exported: {}",
        both.join(" ")
    );
}

#[test]
fn every_group_of_names_left_alone_has_its_reason() {
    let text = fs::read_to_string(root().join("tests/imports.txt")).expect("the list");
    let mut seen = BTreeSet::new();
    for (number, block) in
        text.split("\n\n").enumerate().skip(1).filter(|(_, block)| !block.trim().is_empty())
    {
        assert!(block.starts_with("# "), "group {number} has no reason: {block}");
        for name in block.lines().filter(|line| !line.starts_with('#')).flat_map(str::split_whitespace) {
            assert!(seen.insert(name.to_owned()), "{name} is in two groups");
        }
    }
}
