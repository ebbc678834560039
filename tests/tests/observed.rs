//! What a program can learn of its own waits: counters, latencies, and the lines that wait.
//!
//! Owns: programs whose waits are known. Called by: `cargo test`. Must not: judge how long anything takes.

use std::collections::BTreeMap;
use std::fs;

use netmem_tests::built::{built, compile, root};
use netmem_tests::cli::netmem_run;
use netmem_tests::{Engine, Host, Output, Run, Server, on_each_rung};

on_each_rung! {
    the_lines_that_wait_are_found_and_counted
    latencies_are_told_of_what_happened_and_of_nothing_else
}

const SOURCE: &str = "tests/agent/waits.c";
const THIRD: u64 = 50;

/// A region of three thirds on a server, and a host that has none of it.
fn cold(engine: Engine) -> (Server, Host) {
    let server = Server::start();
    let program = compile(SOURCE, &[]);
    Run::on(&Host::new(engine), server.url(), program).args(["/netmem/f", &pages(), "fill"]).ok();
    (server, Host::new(engine))
}

fn pages() -> String {
    (3 * THIRD).to_string()
}

/// Runs the program on the cold host, with NETMEM_STATS as said of the file it gives back.
fn run(host: &Host, server: &Server, behind: &str) -> String {
    let stats = host.files().join("stats");
    let setting = format!("{}{behind}", stats.display());
    let program = compile(SOURCE, &[]);
    let output =
        Run::on(host, server.url(), program).args(["/netmem/f", &pages()]).env("NETMEM_STATS", setting).ok();
    assert_eq!(output.stdout, format!("{}\n", 3 * THIRD));
    fs::read_to_string(&stats).expect("NETMEM_STATS")
}

/// The line of the source that has this remark.
fn line_of(remark: &str) -> String {
    let text = fs::read_to_string(root().join(SOURCE)).expect("the source");
    let found = text.lines().position(|line| line.contains(&format!("waits: {remark} ")));
    format!("waits.c:{}", found.expect("the remark") + 1)
}

fn sites(host: &Host, arguments: &[&str]) -> Output {
    Run::plain(&built().command).arg("sites").arg(host.files().join("stats")).args(arguments).output()
}

fn the_lines_that_wait_are_found_and_counted(engine: Engine) {
    let (server, host) = cold(engine);
    run(&host, &server, ",sites");
    let output = sites(&host, &["-n", "0", "--json"]);
    let sites: serde_json::Value =
        serde_json::from_str(&output.stdout).unwrap_or_else(|_| panic!("{output}"));
    let found = |line: &str, wait: &str| {
        let sites = sites.as_array().expect("an array").iter();
        let mine = sites.filter(|site| {
            site["line"].as_str().is_some_and(|at| at.ends_with(line)) && site["wait"] == wait
        });
        mine.map(|site| site["count"].as_u64().expect("a count")).sum::<u64>()
    };
    assert_eq!(found(&line_of("touch"), "touch"), THIRD, "{output}");
    assert_eq!(found(&line_of("copy"), "touch"), THIRD, "{output}");
    let reads = found(&line_of("read"), "call");
    assert!((1..=THIRD).contains(&reads), "{reads}: {output}");
    assert_eq!(found(&line_of("sync"), "sync"), 1, "{output}");
    // The longest first, and no more than was asked for.
    let output = self::sites(&host, &["-n", "1"]).stdout;
    assert_eq!(output.lines().count(), 2, "{output}");
    assert!(output.contains("waits.c:"), "{output}");
}

fn latencies_are_told_of_what_happened_and_of_nothing_else(engine: Engine) {
    let (server, host) = cold(engine);
    let text = run(&host, &server, "");
    let told: BTreeMap<&str, u64> = text
        .lines()
        .filter_map(|line| line.split_once(' '))
        .filter_map(|(name, value)| Some((name, value.parse().ok()?)))
        .collect();
    assert!(!text.contains("site "), "{text}");
    for what in ["fault", "fetch", "commit"] {
        let at = |which: &str| told[format!("{what}_{which}_ns").as_str()];
        let values = [at("p50"), at("p99"), at("p999"), at("max")];
        assert!(values[0] > 0 && values.is_sorted(), "{what}: {values:?}");
    }
    // On the same host again nothing is fetched, and no fault waits.
    fs::remove_file(host.files().join("stats")).expect("the old statistics");
    let text = run(&host, &server, "");
    for name in ["pages_fetched 0", "fetch_p50_ns 0", "fetch_max_ns 0"] {
        assert!(text.lines().any(|line| line == name), "{name}: {text}");
    }
}

#[test]
fn places_without_debugging_information_and_files_without_places_are_said_so() {
    let (server, host) = cold(netmem_tests::engine::best());
    run(&host, &server, "");
    let output = sites(&host, &[]);
    assert_eq!(output.code(), 1);
    assert!(output.stderr.contains("NETMEM_STATS=FILE,sites"), "{output}");
    let missing = Run::plain(&built().command).args(["sites", "/nowhere/at/all"]).output();
    assert!(missing.code() == 1 && missing.stderr.contains("/nowhere/at/all"), "{missing}");
    // Code that has no tables: the interpreter of Perl, which reads by calls.
    let stats = host.files().join("perl");
    let read = "open(my $f, '<', '/netmem/f') or die; local $/; print length(<$f>), qq(\\n)";
    let setting = format!("{},sites", stats.display());
    let cold = Host::new(netmem_tests::engine::best());
    let output = netmem_run(&cold, &server, &["perl", "-e", read]).env("NETMEM_STATS", setting).ok();
    assert_eq!(output.stdout, format!("{}\n", 3 * THIRD * 4096));
    let output = Run::plain(&built().command).arg("sites").arg(&stats).ok().stdout;
    assert!(output.lines().skip(1).any(|line| line.contains(" call ") && line.contains("perl")), "{output}");
}
