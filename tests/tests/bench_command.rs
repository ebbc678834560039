//! `netmem bench`: figures that are possible, words that follow from them, and nothing left behind.
//!
//! Owns: nothing. Called by: `cargo test`. Must not: expect a speed.

use std::fs;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use netmem_tests::built::built;
use netmem_tests::cli::netmem;
use netmem_tests::engine::best;
use netmem_tests::hang::wait;
use netmem_tests::{Host, Proxy, Run, Server};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// How long something that must come may take.
const LIMIT: Duration = Duration::from_secs(30);

/// A small benchmark of the server at this address, with its page cache on a host.
fn bench(host: &Host, url: &str, arguments: &[&str]) -> Run {
    Run::plain(&built().command)
        .env("NETMEM_LIBRARY", &built().library)
        .args(["bench", "--size", "1M", "--dir"])
        .arg(host.files())
        .args(arguments)
        .arg(url)
}

fn figures(host: &Host, url: &str, arguments: &[&str]) -> Value {
    let output = bench(host, url, &[&["--json"], arguments].concat()).ok();
    serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output}"))
}

fn number(value: &Value, path: &str) -> f64 {
    value.pointer(path).and_then(Value::as_f64).unwrap_or_else(|| panic!("no {path} in {value}"))
}

fn limit<'a>(engine: &'a Value, what: &str) -> &'a Value {
    let limits = engine["limits"].as_array().expect("limits");
    limits
        .iter()
        .find(|limit| limit["what"] == what)
        .unwrap_or_else(|| panic!("nothing of a {what}: {engine}"))
}

/// Neither a region nor a page on the server, nor a page cache on the host.
fn nothing_is_left(server: &Server, host: &Host) {
    assert_eq!(netmem(server, &["ls", "-R"]).ok().stdout, "");
    let mut client = server.client();
    let stat = client.server_stat().expect("statistics");
    assert_eq!(stat.regions, 0, "{stat:?}");
    let files: Vec<_> = fs::read_dir(host.files()).expect("a directory").collect();
    assert!(files.is_empty(), "{files:?}");
}

#[test]
fn each_engine_is_measured_and_nothing_is_left() {
    let (server, host) = (Server::start(), Host::new(best()));
    let all = figures(&host, server.url(), &["--engine", "all"]);
    nothing_is_left(&server, &host);
    let wire = &all["wire"];
    assert!(number(wire, "/round_trip/p50_us") > 0.0 && number(wire, "/fetch_mb_s") > 0.0, "{all}");
    assert!(number(wire, "/page/p99_us") >= number(wire, "/page/p50_us"), "{all}");
    // The server took no longer over a page than its client, give or take a bucket's width.
    assert!(number(wire, "/server/p50_us") <= number(wire, "/page/p50_us") * 1.04, "{all}");
    let engines = all["engines"].as_array().expect("engines");
    assert!(!engines.is_empty());
    for engine in engines {
        for path in ["/fault/p50_us", "/sync_page/p50_us", "/scan_mb_s", "/sync_mb_s"] {
            assert!(number(engine, path) > 0.0, "{path}: {engine}");
        }
        assert!(number(engine, "/fault/count") >= 16.0);
        for what in ["fault", "scan", "sync of one page", "sync"] {
            let share = number(limit(engine, what), "/percent");
            assert!((0.0..=100.0).contains(&share), "{engine}");
        }
    }
    let named: Vec<&str> = engines.iter().filter_map(|engine| engine["engine"].as_str()).collect();
    let doctor = Run::plain(&built().command).args(["doctor", "--json"]).output();
    let doctor: Value = serde_json::from_str(&doctor.stdout).expect("an object");
    assert!(named.contains(&doctor["engine"].as_str().expect("an engine")), "{named:?}");
}

#[test]
fn the_words_about_what_limits_follow_the_network() {
    let (server, host) = (Server::start(), Host::new(best()));
    let far = Proxy::to(server.address());
    far.delay(Duration::from_millis(2));
    let there = figures(&host, far.url(), &[]);
    let engine = &there["engines"][0];
    // Two milliseconds each way.
    assert!(number(&there, "/wire/round_trip/p50_us") >= 4000.0, "{there}");
    let fault = limit(engine, "fault");
    assert_eq!(fault["by"], "round trip", "{fault}");
    assert!(number(fault, "/percent") >= 50.0, "{fault}");
    assert!(
        fault["words"].as_str().is_some_and(|words| words.contains("a nearer server, or prefetching")),
        "{fault}"
    );
    assert_eq!(limit(engine, "sync of one page")["by"], "round trip", "{engine}");
    // The server's own time does not grow with the way to it.
    assert!(number(&there, "/wire/server/p50_us") < 4000.0, "{there}");
    let text = bench(&host, server.url(), &[]).ok();
    assert!(text.stdout.contains("first touch of a page") && text.stdout.contains("  fault: "), "{text}");
    assert!(!text.stdout.contains("nearer server"), "{text}");
    nothing_is_left(&server, &host);
}

#[test]
fn a_server_without_room_is_left_alone() {
    let (server, host) = (Server::with(&["--max-memory", "9M"]), Host::new(best()));
    let refused = bench(&host, server.url(), &[]).output();
    assert_eq!((refused.code(), refused.stderr.lines().count()), (1, 1), "{refused}");
    assert!(refused.stderr.contains("needs 11.0 MiB on the server, and 9.0 MiB are free"), "{refused}");
    assert!(refused.stderr.contains("smaller --size"), "{refused}");
    let wrong = bench(&host, server.url(), &["--size", "8G"]).output();
    assert_eq!(wrong.code(), 2, "{wrong}");
    nothing_is_left(&server, &host);
    let mut client = server.client();
    assert_eq!(client.server_stat().expect("statistics").commits, 0);
}

#[test]
fn a_library_that_is_no_library_is_told_and_nothing_is_left() {
    let (server, host) = (Server::start(), Host::new(best()));
    let place = tempfile::tempdir().expect("a directory");
    let library = place.path().join("libnetmem.so");
    fs::write(&library, "no").expect("a file");
    let failed = bench(&host, server.url(), &[]).env("NETMEM_LIBRARY", &library).output();
    assert_eq!(failed.code(), 1, "{failed}");
    assert!(failed.stderr.contains("its worker ended"), "{failed}");
    nothing_is_left(&server, &host);
}

#[test]
fn a_benchmark_that_is_interrupted_leaves_no_name_and_no_cache() {
    let (server, host) = (Server::start(), Host::new(best()));
    // While the region is filled, and when the worker has begun: the second connection is its own.
    for connections in [1, 2] {
        let wire = Proxy::to(server.address());
        wire.delay(Duration::from_millis(2));
        let mut command = Command::new(&built().command);
        command.args(["bench", "--size", "4M", wire.url(), "--dir"]).arg(host.files());
        command.env("NETMEM_LIBRARY", &built().library);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().expect("netmem starts");
        let pid = Pid::from_raw(child.id() as i32);
        let end = Instant::now() + LIMIT;
        while wire.connections() < connections {
            assert!(Instant::now() < end, "no {connections} connections");
            thread::yield_now();
        }
        kill(pid, Signal::SIGINT).expect("it runs");
        let status = wait(child, LIMIT).unwrap_or_else(|hang| panic!("{hang}"));
        assert_eq!(status.code(), Some(130), "with {connections} connections");
        assert_eq!(netmem(&server, &["ls", "-R"]).ok().stdout, "");
        let files: Vec<_> = fs::read_dir(host.files()).expect("a directory").collect();
        assert!(files.is_empty(), "{files:?}");
    }
}
