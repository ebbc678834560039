//! Pages that are compressed on the wire: the same pages, and fewer bytes; of themselves where the wire is slow.
//!
//! Owns: what is stored, and what it may take. Called by: `cargo test`. Must not: say how long anything takes.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use netmem_tests::built::compile;
use netmem_tests::cli::{exported, import, netmem};
use netmem_tests::far::Far;
use netmem_tests::{Engine, Host, Proxy, Run, Server, on_each_rung};

on_each_rung! {
    what_went_packed_comes_back_packed_or_not
    over_a_slow_wire_pages_are_packed_where_that_is_measured
}

const PAGES: u64 = 2048;
const PAGE: u64 = 4096;

/// What touch.c counted, of which nothing was wrong; `order` is that in which it touches, or `fill`.
fn touch(engine: Engine, url: &str, order: &str, settings: &[(&str, &str)]) -> BTreeMap<String, u64> {
    let host = Host::new(engine);
    let stats = host.files().join("stats");
    let program = compile("tests/agent/touch.c", &[]);
    let run = Run::on(&host, url, program).args(["/netmem/f", &PAGES.to_string(), order]);
    let run = settings.iter().fold(run, |run, (name, value)| run.env(name, value));
    let output = run.env("NETMEM_STATS", &stats).ok();
    if order != "fill" {
        assert!(output.stdout.ends_with(" touched, 0 wrong\n"), "{output}");
    }
    let text = fs::read_to_string(&stats).expect("NETMEM_STATS");
    let counters = text.lines().filter_map(|line| line.split_once(' '));
    counters.filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?))).collect()
}

fn what_went_packed_comes_back_packed_or_not(engine: Engine) {
    for durable in [false, true] {
        let server = if durable { Server::durable(&[]) } else { Server::start() };
        let told = touch(engine, server.url(), "fill", &[("NETMEM_COMPRESS", "on")]);
        assert_eq!(told["pages_packed"], told["pages_committed"], "{told:?}");
        assert!(told["bytes_sent"] < told["pages_committed"] * PAGE / 8, "{told:?}");
        for order in ["seq", "random"] {
            let packed = touch(engine, server.url(), order, &[("NETMEM_COMPRESS", "on")]);
            assert_eq!(packed["pages_packed"], packed["pages_fetched"], "{order}: {packed:?}");
            assert!(packed["bytes_received"] < packed["pages_fetched"] * PAGE / 8, "{order}: {packed:?}");
            // A server on this machine has no wire.
            let setting = if order == "seq" { "off" } else { "auto" };
            let plain = touch(engine, server.url(), order, &[("NETMEM_COMPRESS", setting)]);
            assert_eq!(plain["pages_packed"], 0, "{order}: {plain:?}");
            // What is fetched ahead when the program ends is not counted.
            assert!(plain["bytes_received"] > 4 * packed["bytes_received"], "{order}: {plain:?} {packed:?}");
        }
        assert_eq!(netmem(&server, &["scrub"]).output().code(), 0);
    }
}

fn over_a_slow_wire_pages_are_packed_where_that_is_measured(engine: Engine) {
    let server = Server::start();
    touch(engine, server.url(), "fill", &[]);
    let wire = Proxy::to(server.address());
    // At most a page in a millisecond.
    wire.split(PAGE as usize);
    wire.delay(Duration::from_millis(1));
    let told =
        touch(engine, wire.url(), "seq", &[("NETMEM_PREFETCH", "16"), ("NETMEM_COMPRESS", "measured")]);
    assert!(told["pages_packed"] > told["pages_fetched"] / 2, "{told:?}");
    assert!(told["bytes_packing_saved"] > told["pages_fetched"] * PAGE / 3, "{told:?}");
}

#[test]
fn bytes_that_do_not_shrink_are_not_packed_even_if_that_is_asked_for() {
    let Some(engine) = Engine::Uffd.require() else { return };
    let (server, host) = (Server::start(), Host::new(engine));
    let mut state = 88_172_645_463_325_252_u64;
    let noise: Vec<u8> = (0..64 * PAGE / 8)
        .flat_map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        })
        .collect();
    import(&server, "noise", &noise);
    let stats = host.files().join("stats");
    let copy = Run::on(&host, server.url(), "cp").args(["/netmem/noise", "/netmem/copy"]);
    copy.env("NETMEM_COMPRESS", "on").env("NETMEM_STATS", &stats).ok();
    let told = fs::read_to_string(&stats).expect("NETMEM_STATS");
    assert!(told.contains("pages_packed 0\n"), "{told}");
    assert_eq!(exported(&server, "copy"), noise);
}

#[test]
fn memory_that_leaves_packed_comes_back_as_it_was_and_the_summary_says_what_that_saved() {
    let Some(far) = Far::new() else { return };
    let program = "b = [bytes([i % 251]) * 5000 for i in range(12000)]\n\
                   assert all(x == bytes([i % 251]) * 5000 for i, x in enumerate(b))\n\
                   print('right')";
    let output = Run::plain(netmem_tests::built::built().command.clone())
        .env("NETMEM_LIBRARY", &netmem_tests::built::built().library)
        .args(["run", "--server", far.server.url(), "--memory", "16M", "--compress", "on", "--"])
        .args(["python3", "-c", program])
        .env("NETMEM_DIR", far.host.cache())
        .output();
    assert_eq!((output.code(), output.stdout.as_str()), (0, "right\n"), "{output}");
    assert!(output.stderr.contains(" less by compression\n"), "{output}");
}
