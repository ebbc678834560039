//! How many instructions the two hot paths take: a call that is not ours, and fetching and installing a page.
//!
//! Owns: counting with callgrind, comparing with tests/bench/instructions.txt. Called by: `cargo test`; `make counts` accepts new
//! counts. Must not: count what depends on time.
//!
//! A count repeats exactly on one build. Another version of the compiler or of libc lays out and inlines otherwise, hence
//! [`TOLERANCE`]. It lets no needless pass over a page through: 4096 bytes are 128 loads of an AVX2 register at the least, which is 5
//! per cent of the longer path; and of the shorter one no more than four instructions.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use netmem_tests::built::{compile, root};
use netmem_tests::skip::skip;
use netmem_tests::{Engine, Host, Run, Server};

/// The share by which a count may differ from the kept one.
const TOLERANCE: f64 = 0.04;
/// Counted is what the second number of calls takes beyond the first.
const COUNTS: [u64; 2] = [256, 768];
/// Set, the counts are written down instead of compared.
const ACCEPT: &str = "NETMEM_TEST_ACCEPT_COUNTS";

fn kept() -> PathBuf {
    root().join("tests/bench/instructions.txt")
}

/// Why a count would mean nothing here.
fn impossible() -> Option<String> {
    if Command::new("valgrind").arg("--version").output().is_err() {
        return Some("valgrind: not installed".to_owned());
    }
    if !cfg!(target_arch = "x86_64") {
        return Some("the instruction counts are for x86-64".to_owned());
    }
    // The checksum of a page takes what the CPU has.
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    (!info.split_whitespace().any(|flag| flag == "avx2"))
        .then(|| "the instruction counts are for a CPU with AVX2".to_owned())
}

/// The instructions of a program inside hot().
fn collected(run: impl Fn(&Path) -> Run, place: &Path) -> u64 {
    let out = place.join("callgrind.out");
    run(&out).ok();
    let text = fs::read_to_string(&out).expect("what callgrind wrote");
    let total = text.lines().find_map(|line| line.strip_prefix("totals: ")).expect("its totals");
    total.trim().parse().expect("a number")
}

/// Instructions a call of `mode`, which all take the same way.
fn a_call(server: &Server, mode: &str, file: Option<&str>) -> f64 {
    let hot = compile("tests/bench/hot.c", &["-I", &root().join("tests/floor").display().to_string()]);
    let [few, many] = COUNTS.map(|count| {
        let host = Host::new(Engine::SigsegvMprotect);
        let run = |out: &Path| {
            Run::on(&host, server.url(), "valgrind")
                .args(["--tool=callgrind", "--collect-atstart=no", "--toggle-collect=hot"])
                .arg(format!("--callgrind-out-file={}", out.display()))
                .arg(&hot)
                .args([mode, &count.to_string()])
                .args(file)
                .env("NETMEM_PREFETCH", "off")
        };
        collected(run, &host.files())
    });
    (many - few) as f64 / (COUNTS[1] - COUNTS[0]) as f64
}

#[test]
fn the_hot_paths_take_as_many_instructions_as_are_written_down() {
    if let Some(reason) = impossible() {
        return skip("valgrind", &reason);
    }
    let server = Server::start();
    let host = Host::new(Engine::SigsegvMprotect);
    let fill = compile("tests/agent/touch.c", &[]);
    Run::on(&host, server.url(), fill).args(["/netmem/f", &COUNTS[1].to_string(), "fill"]).ok();
    let counts = BTreeMap::from([
        ("mmap", a_call(&server, "mmap", None)),
        ("read", a_call(&server, "read", Some("/netmem/f"))),
    ]);
    if std::env::var_os(ACCEPT).is_some() {
        let mut text = String::from(
            "# Instructions a call, counted by tests/tests/instructions.rs; `make counts` writes them anew.\n",
        );
        for (name, count) in &counts {
            text += &format!("{name} {count:.1}\n");
        }
        fs::write(kept(), text).expect("the counts");
        return;
    }
    let text = fs::read_to_string(kept()).expect("the counts");
    let before: BTreeMap<&str, f64> = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once(' '))
        .map(|(name, count)| (name, count.parse().expect("a number")))
        .collect();
    let mut wrong = Vec::new();
    for (name, count) in &counts {
        let expected = before.get(name).copied().unwrap_or_default();
        println!("{name}: {count:.1} instructions, {expected:.1} written down");
        if (count - expected).abs() > expected * TOLERANCE {
            wrong.push(format!("{name}: {count:.1} instructions a call, {expected:.1} written down"));
        }
    }
    assert!(wrong.is_empty(), "{}; if that is meant: make counts", wrong.join("; "));
}
