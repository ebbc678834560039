//! The README does not lie: every block that can be pasted is pasted, and every file that it points to is there.
//!
//! Owns: running the README. Called by: the test runner. Must not: run what a reader is told not to paste (```text blocks).

use std::fs;
use std::time::Duration;

use netmem_tests::Run;
use netmem_tests::built::{alone, built, root};

fn readme() -> String {
    fs::read_to_string(root().join("README.md")).expect("the README")
}

/// The `sh` blocks, in order.
fn blocks() -> Vec<String> {
    let text = readme();
    let parts = text.split("```sh\n").skip(1);
    parts.map(|part| part.split("```").next().unwrap_or_default().to_owned()).collect()
}

#[test]
fn every_command_of_the_readme_can_be_pasted() {
    let _one = alone("readme");
    built();
    let blocks = blocks();
    assert!(blocks.len() >= 5, "only {} blocks", blocks.len());
    // The README speaks of a checkout as it is, wherever the tests themselves are built.
    Run::plain("env")
        .args(["-u", "CARGO_TARGET_DIR", "make", "--no-print-directory", "all"])
        .cwd(root())
        .limit(Duration::from_secs(110))
        .ok();
    for block in blocks {
        let run = Run::plain("env")
            .args(["-u", "CARGO_TARGET_DIR", "bash", "-euc", &block])
            .cwd(root())
            .limit(Duration::from_secs(60));
        let output = run.output();
        assert_eq!(output.code(), 0, "this block of the README:\n{block}\n{output}");
    }
}

#[test]
fn every_file_that_the_readme_points_to_is_there() {
    let text = readme();
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let mut seen = 0;
    for target in targets.filter(|target| !target.starts_with("http") && !target.starts_with('#')) {
        let path = target.split('#').next().unwrap_or_default();
        assert!(root().join(path).exists(), "README.md points to {path}");
        seen += 1;
    }
    assert!(seen >= 10, "only {seen} links");
}

/// The commands in the table of "Programs that work", each with the first of its program names.
fn programs_that_work() -> Vec<(String, String)> {
    let text = readme();
    let section = text.split("## Programs that work").nth(1).expect("the section");
    let section = section.split("\n## ").next().unwrap_or_default();
    let rows = section.lines().filter(|line| line.starts_with("| ") && line.contains('`'));
    rows.map(|row| {
        let command = row.split_once('`').and_then(|(_, rest)| rest.rsplit_once('`')).expect("a command").0;
        (row.split('|').nth(1).unwrap_or_default().trim().to_owned(), command.replace("\\|", "|"))
    })
    .collect()
}

#[test]
fn every_program_that_is_said_to_work_works() {
    let rows = programs_that_work();
    assert!(rows.len() >= 12, "only {} rows", rows.len());
    for (programs, command) in rows {
        let run = netmem_run_in_checkout(&command);
        // 127 is a shell's word for a program that is not there.
        if run.code() == 127 {
            netmem_tests::skip::skip(&programs, &format!("{programs}: not installed"));
            continue;
        }
        assert_eq!(run.code(), 0, "{programs}: {command}\n{run}");
        assert_eq!(run.lines_of_ours(), Vec::<&str>::new(), "{programs}: {run}");
    }
}

fn netmem_run_in_checkout(command: &str) -> netmem_tests::Output {
    let host = netmem_tests::Host::new(netmem_tests::engine::best());
    Run::plain(&built().command)
        .env("NETMEM_LIBRARY", &built().library)
        .env("NETMEM_DIR", host.cache())
        .env("HOME", host.files())
        .args(["run", "--", "bash", "-euc", command])
        .cwd(root())
        .output()
}
