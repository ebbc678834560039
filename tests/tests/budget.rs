//! The budget of the page cache: it is kept to, and nothing is lost for it.
//!
//! Owns: the measure of what a host's page caches take. Called by: `cargo test`. Must not: sleep to let something happen: a program
//! runs to its end, and is looked at meanwhile.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use netmem_tests::built::compile;
use netmem_tests::{Engine, Host, Output, Run, Server, on_each_rung};

on_each_rung! {
    who_is_killed_while_pages_leave_takes_no_store_of_others_along
    a_twentieth_of_a_file_is_enough_for_who_stores_loads_reads_and_writes
    a_twentieth_is_enough_for_who_hardly_ever_syncs
    what_is_stored_beyond_the_budget_is_seen_by_no_other_host_before_the_sync
    what_is_locked_stays_until_it_is_unlocked_and_more_than_fits_is_refused
}

/// Pages of the file, and the twentieth of them that the host may have.
const PAGES: usize = 4096;
const BUDGET: u64 = (PAGES * 4096 / 20) as u64;
const LIMIT: Duration = Duration::from_secs(120);

/// Bytes of all cache files of a host.
fn taken(directory: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(directory) else { return 0 };
    let sizes = entries.flatten().map(|entry| {
        let Ok(status) = entry.metadata() else { return 0 };
        let path = entry.path();
        let is_a_tree = path.components().any(|part| part.as_os_str() == "tree");
        if status.is_dir() {
            taken(&path)
        } else if is_a_tree {
            status.blocks() * 512
        } else {
            0
        }
    });
    sizes.sum()
}

fn departures(host: &Host, server: &Server, arguments: &[&str]) -> Run {
    let program = compile("tests/agent/departures.c", &["-pthread"]);
    Run::on(host, server.url(), program).arg("/netmem/d").args(arguments).limit(LIMIT)
}

/// Runs programs on a host at the same time; the most that the page caches took meanwhile, and what each said.
fn together(host: &Host, runs: Vec<Run>) -> (u64, Vec<String>) {
    std::thread::scope(|scope| {
        let started: Vec<_> = runs.into_iter().map(|run| scope.spawn(|| run.output())).collect();
        let mut most = 0;
        while !started.iter().all(|run| run.is_finished()) {
            most = most.max(taken(&host.cache()));
            std::thread::yield_now();
        }
        let outputs = started.into_iter().map(|run| run.join().expect("a run"));
        let last =
            |output: Output| format!("{}{}", output.stdout.lines().last().unwrap_or_default(), output.stderr);
        (most, outputs.map(last).collect())
    })
}

fn a_twentieth_of_a_file_is_enough_for_who_stores_loads_reads_and_writes(engine: Engine) {
    let (server, host) = (Server::start(), Host::new(engine));
    let pages = PAGES.to_string();
    departures(&Host::new(engine), &server, &["make", &pages]).ok();
    let worker = |first: &str| {
        departures(&host, &server, &[first, "3", &pages, "1500"])
            .env("NETMEM_CACHE_BYTES", BUDGET.to_string())
    };
    let (most, said) = together(&host, vec![worker("0"), worker("3")]);
    assert_eq!(said, ["0 wrong", "0 wrong"]);
    println!("{most} bytes of {BUDGET}");
    assert!(most <= BUDGET * 105 / 100, "{most} bytes of {BUDGET}");
    let output = departures(&Host::new(engine), &server, &["check", "6", &pages]).output();
    assert_eq!(output.stdout, "0 wrong\n", "{output}");
}

/// The caches were within their budget, and something left that was not committed.
fn assert_kept(host: &Host, most: u64) {
    let pending = host.told().get("pages_pending").copied().unwrap_or(0);
    println!("{most} bytes of {BUDGET}, {pending} pages pending");
    assert!(most <= BUDGET * 105 / 100, "{most} bytes of {BUDGET}");
    assert!(pending > PAGES as u64 / 4, "{pending} pages pending");
}

fn a_twentieth_is_enough_for_who_hardly_ever_syncs(engine: Engine) {
    let (server, host) = (Server::start(), Host::new(engine));
    let pages = PAGES.to_string();
    departures(&Host::new(engine), &server, &["make", &pages]).ok();
    let worker = |first: &str| {
        departures(&host, &server, &[first, "3", &pages, "800", "500"])
            .env("NETMEM_CACHE_BYTES", BUDGET.to_string())
            .env("NETMEM_STATS", host.stats())
    };
    let (most, said) = together(&host, vec![worker("0"), worker("3")]);
    assert_eq!(said, ["0 wrong", "0 wrong"]);
    assert_kept(&host, most);
    let output = departures(&Host::new(engine), &server, &["check", "6", &pages]).output();
    assert_eq!(output.stdout, "0 wrong\n", "{output}");
}

fn what_is_stored_beyond_the_budget_is_seen_by_no_other_host_before_the_sync(engine: Engine) {
    let (server, host) = (Server::start(), Host::new(engine));
    let pages = PAGES.to_string();
    let program = |host: &Host| {
        let program = compile("tests/agent/beyond.c", &[]);
        Run::on(host, server.url(), program).arg("/netmem/b").arg(&pages).limit(LIMIT)
    };
    program(&Host::new(engine)).arg("make").ok();
    let run = program(&host).arg("store").env("NETMEM_CACHE_BYTES", BUDGET.to_string());
    let (mut storing, what) = run.env("NETMEM_STATS", host.stats()).spawn(Stdio::piped());
    let mut said = BufReader::new(storing.stdout.take().expect("its output")).lines();
    let mut says = |line: &str| assert_eq!(said.next().expect("a line").expect("text"), line, "{what}");
    says("stored");
    let most = taken(&host.cache());
    assert_eq!(program(&Host::new(engine)).arg("old").output().stdout, "0 wrong\n");
    drop(storing.stdin.take());
    says("0 wrong");
    assert!(storing.wait().expect("its end").success());
    assert_kept(&host, most);
    assert_eq!(program(&Host::new(engine)).arg("new").output().stdout, "0 wrong\n");
}

fn what_is_locked_stays_until_it_is_unlocked_and_more_than_fits_is_refused(engine: Engine) {
    let server = Server::start();
    let run = |locked: &str| {
        let host = Host::new(engine);
        let program = compile("tests/agent/locked.c", &[]);
        let run = Run::on(&host, server.url(), program).args(["/netmem/l", &PAGES.to_string(), locked]);
        run.env("NETMEM_CACHE_BYTES", BUDGET.to_string()).limit(LIMIT).output()
    };
    let output = run("60");
    let numbers: Vec<u32> = output.stdout.split_whitespace().flat_map(str::parse).collect();
    assert!(numbers.len() == 2 && numbers[0] == 60 && numbers[1] < 60, "{output}");
    let output = run("200");
    assert_eq!(output.stdout, "ENOMEM\n", "{output}");
    assert!(output.stderr.contains("mlock: 200 pages are more than NETMEM_CACHE_BYTES"), "{output}");
}

fn who_is_killed_while_pages_leave_takes_no_store_of_others_along(engine: Engine) {
    if matches!(engine, Engine::Uffd | Engine::UffdUser | Engine::UffdSigbus) {
        // Where stores are noted asynchronously, one of the very moment may go with it (docs/SEMANTICS.md).
        return;
    }
    let (server, host) = (Server::start(), Host::new(engine));
    let pages = PAGES.to_string();
    departures(&Host::new(engine), &server, &["make", &pages]).ok();
    let worker = |first: &str, count: &str, operations: &str| {
        departures(&host, &server, &[first, count, &pages, operations])
            .env("NETMEM_CACHE_BYTES", BUDGET.to_string())
    };
    std::thread::scope(|scope| {
        let survivor = scope.spawn(|| worker("3", "3", "1500").output());
        for lines in 1..=4 {
            let (mut dying, _) = worker("0", "3", "1000000").spawn(Stdio::null());
            let said = BufReader::new(dying.stdout.take().expect("its output")).lines();
            assert_eq!(
                said.take(lines).filter(|line| line.as_ref().is_ok_and(|line| line == "on")).count(),
                lines
            );
            dying.kill().expect("a kill");
            dying.wait().expect("its end");
        }
        let output = survivor.join().expect("a run");
        assert_eq!(output.stdout.lines().last(), Some("0 wrong"), "{output}");
    });
    worker("0", "3", "1").ok();
    let output = departures(&Host::new(engine), &server, &["check", "6", &pages]).output();
    assert_eq!(output.stdout, "0 wrong\n", "{output}");
}
