//! Real programs, as a line for the shell that is run on a local directory and on the rungs.
//!
//! Owns: running it and comparing. Called by: tests/real_databases.rs, tests/real_torture.rs. Must not: install anything.

use std::path::PathBuf;
use std::time::Duration;

use crate::built::target_directory;
use crate::skip::skip;
use crate::{Engine, Host, Output, Run, Server};

/// The rungs that programs are run on. What runs on all six says so.
pub const REAL_RUNGS: [Engine; 4] =
    [Engine::Uffd, Engine::UffdUser, Engine::SigsegvGuard, Engine::SigsegvMprotect];

/// Whether commands are here; else SKIP with the packages that bring them.
pub fn have(commands: &[&str], packages: &str) -> bool {
    let missing = commands.iter().find(|command| {
        Run::plain("/bin/sh").args(["-c", &format!("command -v {command}")]).output().code() != 0
    });
    if let Some(command) = missing {
        skip(packages, &format!("{command}: not installed; apt-get install {packages}"));
    }
    missing.is_none()
}

/// A program that .ci/test installs from crates.io below the target directory.
pub fn cargo_tool(name: &str) -> Option<PathBuf> {
    let path = target_directory().join("tools/bin").join(name);
    if path.is_file() {
        return Some(path);
    }
    skip(name, &format!("{name}: not installed; cargo install --root TARGET/tools {name}"));
    None
}

/// Runs a script of bash with the directory `$D` and the local one `$L`, on a host of that engine and a server of its own.
pub fn run_script(engine: Engine, script: &str, limit: Duration) -> Output {
    let (server, host) = (Server::start(), Host::new(engine));
    run_script_on(&host, server.url(), script, limit)
}

/// The same on a host and against a server of the caller's.
pub fn run_script_on(host: &Host, url: &str, script: &str, limit: Duration) -> Output {
    Run::on(host, url, "/bin/bash")
        .args(["-c", &format!("set -euo pipefail\n{script}")])
        .env("D", host.netmem())
        .env("L", host.files())
        .env("LC_ALL", "C")
        .limit(limit)
        .output()
}

/// On each rung, the script writes what it writes on the kernel's own files, ends as it does there, and the library has nothing
/// to say. Lines of a script that name its directories have to drop them.
pub fn same_on(engines: &[Engine], script: &str, limit: Duration) {
    let local = run_script(Engine::Kernel, script, limit);
    assert_eq!(local.code(), 0, "the reference itself: {local}");
    assert!(!local.stdout.is_empty(), "the reference says nothing: {local}");
    for engine in engines.iter().filter_map(|engine| engine.require()) {
        let ours = run_script(engine, script, limit);
        assert_eq!(ours.stdout, local.stdout, "{ours}\n---- the kernel's\n{local}");
        assert_eq!(ours.code(), 0, "{ours}");
        assert_eq!(ours.lines_of_ours(), Vec::<&str>::new(), "{ours}");
    }
}
