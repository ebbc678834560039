//! What is brought in with a touch: few requests for whoever goes on as expected, and nothing for whoever jumps about.
//!
//! Owns: orders of touching and what they may cost on the wire. Called by: `cargo test`. Must not: time anything.

use std::collections::BTreeMap;
use std::fs;

use netmem_tests::built::compile;
use netmem_tests::{Engine, Host, Run, Server, on_each_rung};

on_each_rung! {
    scans_in_any_direction_and_by_strides_take_few_requests
    what_is_touched_at_random_brings_little_else_in
    a_program_that_says_it_jumps_about_gets_what_it_touches_and_no_more
    without_prefetching_every_scan_is_right
}

const PAGES: u64 = 4096;

/// A file of so many pages on a server.
fn filled(pages: u64) -> Server {
    let (server, host) = (Server::start(), Host::new(Engine::Uffd));
    let program = compile("tests/agent/touch.c", &[]);
    Run::on(&host, server.url(), program).args(["/netmem/f", &pages.to_string(), "fill"]).ok();
    server
}

/// Touches on a host where nothing is, and what it did: the program's counters, and how many pages it touched.
fn touch(engine: Engine, server: &Server, order: &[&str], prefetch: &str) -> (BTreeMap<String, u64>, u64) {
    touch_some(engine, server, order, prefetch, PAGES)
}

fn touch_some(
    engine: Engine,
    server: &Server,
    order: &[&str],
    prefetch: &str,
    pages: u64,
) -> (BTreeMap<String, u64>, u64) {
    let host = Host::new(engine);
    let stats = host.files().join("stats");
    let program = compile("tests/agent/touch.c", &[]);
    let output = Run::on(&host, server.url(), program)
        .args(["/netmem/f", &pages.to_string()])
        .args(order)
        .env("NETMEM_STATS", &stats)
        .env("NETMEM_PREFETCH", prefetch)
        .ok();
    let touched =
        output.stdout.strip_suffix(" touched, 0 wrong\n").unwrap_or_else(|| panic!("{order:?}: {output}"));
    let text = fs::read_to_string(&stats).expect("NETMEM_STATS");
    let counters = text.lines().filter_map(|line| {
        let (name, value) = line.split_once(' ')?;
        Some((name.to_owned(), value.parse().ok()?))
    });
    (counters.collect(), touched.parse().expect("a number"))
}

fn scans_in_any_direction_and_by_strides_take_few_requests(engine: Engine) {
    let server = filled(PAGES);
    for order in ["seq", "reversed", "strided", "two"] {
        let (counters, touched) = touch(engine, &server, &[order], "auto");
        assert!(counters["requests"] < 100, "{order}: {touched} touched, {counters:?}");
        assert!(
            counters["pages_fetched"] < touched + touched / 4 + 64,
            "{order}: {touched} touched, {counters:?}"
        );
    }
}

fn what_is_touched_at_random_brings_little_else_in(engine: Engine) {
    let server = filled(8 * PAGES);
    let (counters, touched) = touch_some(engine, &server, &["random"], "auto", 8 * PAGES);
    // The lowest rung opens blocks, of 4 pages in a mapping of this size.
    let least = if engine == Engine::SigsegvMprotect { 4 * touched } else { touched };
    assert!(counters["pages_fetched"] < least + touched / 4, "{touched} touched, {counters:?}");
}

fn a_program_that_says_it_jumps_about_gets_what_it_touches_and_no_more(engine: Engine) {
    let server = filled(PAGES);
    let (counters, touched) = touch(engine, &server, &["seq", "random"], "auto");
    assert_eq!((counters["pages_fetched"], touched), (PAGES, PAGES));
    assert!(counters["requests"] >= PAGES, "{counters:?}");
    let (counters, _) = touch(engine, &server, &["seq", "sequential"], "auto");
    assert!(counters["requests"] < 60, "{counters:?}");
}

fn without_prefetching_every_scan_is_right(engine: Engine) {
    let server = filled(PAGES);
    for (order, prefetch) in [("two", "off"), ("strided", "off"), ("reversed", "17")] {
        let (counters, touched) = touch(engine, &server, &[order], prefetch);
        assert!(
            prefetch != "off" || counters["pages_fetched"] == touched,
            "{order}: {touched}, {counters:?}"
        );
    }
}
