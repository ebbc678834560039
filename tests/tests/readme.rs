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
