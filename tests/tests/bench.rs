//! The benchmarks run to their end and say what they are to say.
//!
//! Owns: `make bench` and `make bench-ab` in their quick forms. Called by: `cargo test`. Must not: judge a figure: on a machine that
//! runs tests, none means anything.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use netmem_tests::built::{built, compile, root};
use netmem_tests::skip::skip;
use netmem_tests::source::files;
use netmem_tests::{Engine, Run};
use tempfile::TempDir;

const BEGIN: &str = "<!-- measured: begin -->";
const END: &str = "<!-- measured: end -->";

/// How the title of each table begins.
const TABLES: [&str; 17] = [
    "First touch of a page on the server",
    "First touches a second by threads",
    "First touches of ",
    "First touches in random order without",
    "First touch in order",
    "The same program twice",
    "msync(MS_SYNC) of 8 MiB",
    "msync(MS_SYNC) of one changed page",
    "Random fetches of 4 KiB",
    "Resident memory of the server",
    "Memory of the client",
    "A region of 1 TiB",
    "The same work in regions of several sizes",
    "Access to pages that are here",
    "pread of pages that are here",
    "pwrite of pages that are here",
    "What is wanted, and what is",
];

/// Whether the machine has what the benchmarks and their floors need.
fn possible() -> bool {
    if Command::new("python3").arg("--version").output().is_err() {
        skip("python3", "python3: not installed");
        return false;
    }
    Engine::Uffd.require().is_some()
}

/// The files of the release build in one directory, and the benchmark programs under their names in another.
fn place() -> TempDir {
    let place = TempDir::new().expect("a directory");
    let link = |to: &Path, name: &str| symlink(to, place.path().join(name)).expect("a link");
    for name in ["bin", "programs", "out"] {
        fs::create_dir(place.path().join(name)).expect("a directory");
    }
    link(&built().library, "bin/libnetmem.so");
    link(&built().server, "bin/netmem-server");
    link(&built().command, "bin/netmem");
    let include = root().join("tests/floor").display().to_string();
    for source in files("tests/floor", &[".c"]).into_iter().chain(files("tests/bench", &[".c"])) {
        let name = source.path.rsplit('/').next().unwrap_or_default().trim_end_matches(".c");
        link(&compile(&source.path, &["-I", &include]), &format!("programs/{name}"));
    }
    place
}

fn python(script: &str, place: &TempDir) -> Run {
    let at = |name: &str| place.path().join(name).display().to_string();
    Run::plain("python3")
        .arg(root().join("tests/bench").join(script))
        .args(["--bin", &at("bin"), "--programs", &at("programs"), "--out", &at("out"), "--quick"])
        .limit(Duration::from_secs(100))
}

#[test]
fn every_table_of_the_benchmark_has_its_figures() {
    if !possible() {
        return;
    }
    let place = place();
    let document = place.path().join("document.md");
    fs::write(&document, format!("before\n{BEGIN}\nold figures\n{END}\nafter\n")).expect("a document");
    let write = document.display().to_string();
    let output = python("bench.py", &place).args(["--rungs", "uffd", "--write", &write]).ok();
    let said = &output.stdout;
    assert!(!said.contains("FAILED"), "{output}");
    for title in TABLES {
        let table = said.split("\n\n").skip_while(|part| !part.starts_with(title)).nth(1);
        let table = table.unwrap_or_else(|| panic!("no table {title:?}: {output}"));
        assert!(table.lines().count() > 1, "{title:?} is empty: {output}");
    }
    for word in said.split_whitespace() {
        assert!(!["nan", "inf", "-nan", "-inf"].contains(&word), "{word}: {output}");
    }
    // A dash is a figure that is missing: of one page in much memory, for any rung but the default; of the first run on a local file.
    let wanted = said.split("What is wanted, and what is").nth(1).unwrap_or_default();
    let wanted = wanted.split("\n\n").nth(1).unwrap_or_default();
    for line in wanted.lines() {
        assert!(!line.split_whitespace().any(|word| word == "-"), "{line}");
    }
    csv_is_whole(&place.path().join("out/results.csv"));

    let written = fs::read_to_string(&document).expect("the document");
    let (before, rest) = written.split_once(BEGIN).expect("the first mark");
    let (inside, after) = rest.split_once(END).expect("the second mark");
    assert_eq!((before, after), ("before\n", "\nafter\n"));
    assert!(inside.contains(TABLES[0]) && !inside.contains("old figures"), "{inside}");

    let figures: Vec<_> = fs::read_dir(place.path().join("out"))
        .expect("a directory")
        .flatten()
        .filter(|entry| entry.path().extension().is_some_and(|kind| kind == "svg"))
        .collect();
    if Command::new("gnuplot").arg("--version").output().is_err() {
        assert!(said.contains("no figures were drawn"), "{output}");
        skip("gnuplot", "gnuplot: not installed");
        return;
    }
    assert!(figures.len() >= 5, "{} figures: {output}", figures.len());
    for figure in figures {
        let text = fs::read_to_string(figure.path()).expect("a figure");
        assert!(text.contains("<svg") && text.trim_end().ends_with("</svg>"), "{}", figure.path().display());
    }
}

/// Every line has its six fields, a round and a finite value.
fn csv_is_whole(path: &Path) {
    let text = fs::read_to_string(path).expect("the rounds");
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("placement,test,contender,metric,round,value"));
    let mut count = 0;
    for line in lines {
        // The name of a contender may have a comma, and is then in quotes.
        let plain: String =
            line.split('"').enumerate().map(|(i, part)| if i % 2 == 1 { "x" } else { part }).collect();
        let fields: Vec<&str> = plain.split(',').collect();
        assert_eq!(fields.len(), 6, "{line}");
        assert!(["one", "two"].contains(&fields[0]), "{line}");
        fields[4].parse::<u32>().unwrap_or_else(|_| panic!("{line}"));
        let value: f64 = fields[5].parse().unwrap_or_else(|_| panic!("{line}"));
        assert!(value.is_finite(), "{line}");
        count += 1;
    }
    assert!(count > 100, "only {count} values");
}

#[test]
fn a_document_without_the_marks_is_left_alone() {
    if !possible() {
        return;
    }
    let place = place();
    let document = place.path().join("document.md");
    fs::write(&document, "no marks\n").expect("a document");
    let write = document.display().to_string();
    let output = python("bench.py", &place)
        .args(["--rungs", "uffd", "--only", "calls", "--placements", "one", "--write", &write])
        .output();
    assert_eq!(output.code(), 1, "{output}");
    assert!(output.stderr.contains("has no line <!-- measured: begin -->"), "{output}");
    assert_eq!(fs::read_to_string(&document).expect("the document"), "no marks\n");
}

#[test]
fn a_revision_beside_itself_has_a_ratio_and_a_spread_in_every_row() {
    if !possible() {
        return;
    }
    let place = place();
    let files = place.path().join("bin").display().to_string();
    let output = python("ab.py", &place)
        .args(["--base", "itself", "--base-bin", &files, "--rounds", "3", "--only", "cold"])
        .ok();
    assert!(!output.stdout.contains("FAILED"), "{output}");
    let rows: Vec<&str> = output.stdout.lines().filter(|line| line.contains("netmem, uffd")).collect();
    for (metric, count) in [("p50", 2), ("p99", 2), ("mean", 2)] {
        let of: Vec<_> = rows.iter().filter(|row| row.contains(&format!(", {metric} "))).collect();
        assert_eq!(of.len(), count, "{metric}: {output}");
        for row in of {
            assert!(row.contains(" to "), "{row}");
            assert!(
                ["within noise", "faster", "slower"].iter().any(|verdict| row.ends_with(verdict)),
                "{row}"
            );
        }
    }
}

/// The mounts of FUSE file systems below a directory, and whatever else has its path in a process's arguments.
fn left_of(place: &Path) -> Vec<String> {
    let place = place.display().to_string();
    let mounts = fs::read_to_string("/proc/self/mounts").expect("the mounts");
    let mut left: Vec<String> =
        mounts.lines().filter(|line| line.contains(&place)).map(str::to_owned).collect();
    for entry in fs::read_dir("/proc").expect("/proc").flatten() {
        let words = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let words = String::from_utf8_lossy(&words).replace('\0', " ");
        if words.contains(&place) && !words.contains("/deps/") {
            left.push(words);
        }
    }
    left
}

#[test]
#[ignore = "long: make test-long"]
fn the_peers_are_measured_in_both_placements_and_leave_nothing_behind() {
    if !possible() {
        return;
    }
    for program in ["nbdkit", "nbdfuse", "sshfs", "fusermount3", "ssh-keygen", "/usr/sbin/sshd"] {
        if Command::new(program).arg("-?").output().is_err() {
            return skip("peers", &format!("{program}: not installed (make bench-peers installs it)"));
        }
    }
    if !Path::new("/dev/fuse").exists() || !nix::unistd::geteuid().is_root() {
        return skip("peers", "the peers need root and /dev/fuse");
    }
    let (place, shared) = (place(), TempDir::new_in("/dev/shm").expect("a directory"));
    let output = python("bench.py", &place)
        .args(["--peers", "--rungs", "uffd", "--only", "cold,seq"])
        .arg("--tmpfs")
        .arg(shared.path())
        .ok();
    assert!(!output.stdout.contains("FAILED"), "{output}");
    let tables: Vec<_> =
        output.stdout.split("\n\n").skip_while(|part| !part.starts_with("Beside others")).collect();
    assert!(tables.len() > 1, "{output}");
    for peer in ["nbdfuse + nbdkit memory  ", "sshfs  "] {
        let rows: Vec<_> = output.stdout.lines().filter(|line| line.trim_start().starts_with(peer)).collect();
        assert!(rows.len() == 2 && rows.iter().all(|row| !row.contains(" -")), "{peer}: {output}");
    }
    assert_eq!(left_of(shared.path()), Vec::<String>::new());
    assert_eq!(fs::read_dir(shared.path()).expect("a directory").count(), 0);
}
