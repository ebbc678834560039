//! A program that is killed at any of its system calls while it opens a region: the next one finds all that was synced.
//!
//! Owns: the counting. Called by: `cargo test`. Must not: kill by time: a moment that lasts microseconds is never met.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;

use netmem_tests::built::compile;
use netmem_tests::dice::seeded;
use netmem_tests::hang::kill_group;
use netmem_tests::{Engine, Host, Run, Server, on_each_rung};

on_each_rung! { a_region_is_whole_wherever_its_program_is_killed_while_it_opens_it }

const PAGES: &str = "3";

/// The number that a new program finds in the region, which it begins to count up from there, until it is killed.
fn found(host: &Host, server: &Server, program: &Path) -> u64 {
    let run = Run::on(host, server.url(), program).arg(host.path("r")).arg(PAGES);
    let (mut child, _) = run.spawn(Stdio::inherit());
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("its output")).read_line(&mut line).expect("its line");
    kill_group(child.id());
    let _ = child.wait();
    let found = line.trim().strip_prefix("start ").unwrap_or_else(|| panic!("{line:?}"));
    found.parse().expect("a number")
}

fn a_region_is_whole_wherever_its_program_is_killed_while_it_opens_it(engine: Engine) {
    let (server, host) = (Server::start(), Host::new(engine));
    let (program, killer) =
        (compile("tests/failures/pages_agree.c", &[]), compile("tests/failures/killed_at.c", &[]));
    let step = if std::env::var_os("NETMEM_TEST_LONG").is_some() { 1 } else { 12 };
    let mut at = 1 + seeded().below(step);
    let (mut least, mut kills) = (0, 0);
    loop {
        let run = Run::on(&host, server.url(), &killer).arg(at.to_string()).arg(&program);
        let output = run.arg(host.path("r")).arg(PAGES).output();
        assert_eq!(output.code(), 0, "call {at}: {output}");
        let said =
            output.stdout.lines().next_back().and_then(|line| line.strip_prefix("start ").or(Some(line)));
        let said: u64 = said.map_or(0, |number| number.parse().expect("a number"));
        least = least.max(said);
        let now = found(&host, &server, &program);
        assert!(now >= least, "killed at call {at}: {now} was found after {least}");
        least = now;
        kills += 1;
        // It had opened the region, and synced, more than once.
        if output.stdout.lines().count() > 4 {
            break;
        }
        at += step;
    }
    println!("{kills} kills, at calls up to {at}; {least} syncs");
    assert!(kills > 20, "{kills} kills");
}
