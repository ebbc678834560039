//! A program with a budget for its anonymous memory.
//!
//! Owns: its server, its host, the counters that its processes leave. Called by: the tests of far memory. Must not: let a program pass
//! that had nothing to move.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, Write};
use std::process::Child;
use std::time::Duration;

use nix::sys::utsname::uname;

use crate::engine::Engine;
use crate::hang::wait;
use crate::host::Host;
use crate::run::{Output, Run};
use crate::server::Server;
use crate::skip::skip;

/// What is resident and never leaves, whatever the budget: stacks, the variables of libraries, what the library itself needs.
pub const FLOOR: u64 = 8 << 20;

/// For a program to end, on a loaded machine with two processors.
pub const LIMIT: Duration = Duration::from_secs(60);

/// A machine on which memory may leave.
#[derive(Debug)]
pub struct Far {
    /// Where it goes.
    pub server: Server,
    /// Who sends it.
    pub host: Host,
}

/// Whether memory can be moved out here: root's userfaultfd, and Linux 6.8. Else SKIP.
pub fn can_move() -> Option<Engine> {
    let engine = Engine::Uffd.require()?;
    let release = uname().map(|name| name.release().to_string_lossy().into_owned()).unwrap_or_default();
    let mut numbers = release.split(['.', '-']).map_while(|word| word.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version < (6, 8) {
        skip("far", &format!("far memory wants Linux 6.8, this is {release}"));
        return None;
    }
    Some(engine)
}

impl Far {
    /// With a server of its own, or None and SKIP.
    pub fn new() -> Option<Far> {
        Far::with(Server::start)
    }

    /// The same with that server.
    pub fn with(server: impl FnOnce() -> Server) -> Option<Far> {
        let engine = can_move()?;
        Some(Far { server: server(), host: Host::new(engine) })
    }

    /// A program whose processes may have so many bytes each.
    pub fn run(&self, budget: u64, program: impl AsRef<std::ffi::OsStr>) -> Run {
        Run::on(&self.host, self.server.url(), program)
            .env("NETMEM_MEMORY_BYTES", budget.to_string())
            .env("NETMEM_STATS", self.host.stats())
            .env("NETMEM_DIR", self.host.cache())
    }

    /// A script of bash whose `$R PROGRAM` is one with a budget, and `$L` a local directory.
    pub fn script(&self, budget: u64, script: &str, limit: Duration) -> Output {
        // Only what `$R` starts has the library: the shell and its helpers are not the subject.
        let library = crate::built::built().library.display().to_string();
        Run::plain("/bin/bash")
            .args(["-c", &format!("set -euo pipefail\n{script}")])
            .cwd(self.host.files())
            .env("L", self.host.files())
            .env("LC_ALL", "C")
            .env("NETMEM_SERVER", self.server.url())
            .env("NETMEM_DIR", self.host.cache())
            .env("NETMEM_STATS", self.host.stats())
            .env("NETMEM_MEMORY_BYTES", budget.to_string())
            .env("R", format!("env LD_PRELOAD={library}"))
            .limit(limit)
            .output()
    }

    /// See [`Host::told`].
    pub fn told(&self) -> BTreeMap<String, u64> {
        self.host.told()
    }

    /// At least `moved` bytes left, and no process had more than its budget, 5 % of it, and [`FLOOR`].
    pub fn assert_kept(&self, budget: u64, moved: u64) {
        self.assert_kept_but_for(0, budget, moved);
    }

    /// The same if so many bytes more are allowed.
    pub fn assert_kept_but_for(&self, more: u64, budget: u64, moved: u64) {
        let told = self.told();
        let get = |name: &str| told.get(name).copied().unwrap_or(0) * 4096;
        let most = get("far_resident_max_pages");
        let left = get("far_pages_out") + get("far_pages_clean");
        println!("budget {budget}: at most {most} resident, {left} bytes left, {told:?}");
        assert!(left >= moved, "only {left} bytes left: {told:?}");
        assert!(
            most <= budget + budget / 20 + FLOOR + more,
            "{most} bytes were resident with {budget}: {told:?}"
        );
    }
}

/// Bytes of memory that a program has resident, of all kinds.
pub fn resident(program: &Child) -> u64 {
    let path = format!("/proc/{}/statm", program.id());
    let statm = fs::read_to_string(path).expect("a program that lives");
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).expect("a number") * 4096
}

/// The program's next line is this.
pub fn hears(said: &mut impl BufRead, what: &str) {
    let mut line = String::new();
    said.read_line(&mut line).expect("its line");
    assert_eq!(line, what);
}

/// Gives a program the line for which it waits.
pub fn go_on(program: &mut Child) {
    program.stdin.as_mut().expect("its input").write_all(b"\n").expect("a program that listens");
}

/// A program ends by itself, with 0.
pub fn ends_well(program: Child) {
    let status = wait(program, LIMIT).unwrap_or_else(|hang| panic!("{hang}"));
    assert!(status.success(), "{status}");
}
