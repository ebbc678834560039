//! Many threads in one mapping: every load finds the page, every store stays.
//!
//! Owns: nothing. Called by: `cargo test`. Must not: depend on which thread comes first.

use std::time::Duration;

use netmem_tests::built::compile;
use netmem_tests::{Engine, Host, Run, Server, on_each_rung};

on_each_rung! {
    threads_and_syncs_lose_nothing
    threads_and_mappings_that_come_and_go
    two_hundred_threads_find_cold_pages
    two_processes_of_a_host_share_what_their_threads_do
    sixty_four_threads_fault_map_and_unmap_one_file
}

mod for_a_minute {
    macro_rules! on {
        ($($engine:ident $name:ident)*) => {
            $(
                #[test]
                #[ignore = "long: make test-long"]
                fn $name() {
                    if let Some(engine) = netmem_tests::Engine::$engine.require() {
                        super::mappers(engine, "64", "60", std::time::Duration::from_secs(180));
                    }
                }
            )*
        };
    }
    on! {
        Uffd uffd UffdSync uffd_sync UffdUser uffd_user UffdUserSync uffd_user_sync UffdSigbus uffd_sigbus
        SigsegvGuard sigsegv_guard SigsegvMprotect sigsegv_mprotect
    }
}

fn crowd(engine: Engine, threads: &str, pages: &str, rounds: &str, what: &str) {
    let (server, program) = (Server::start(), compile("tests/agent/crowd.c", &[]));
    Run::on(&Host::new(engine), server.url(), &program).args(["/netmem/c", "0", pages, "0", "none"]).ok();
    let cold = Host::new(engine);
    let output =
        Run::on(&cold, server.url(), &program).args(["/netmem/c", threads, pages, rounds, what]).output();
    assert_eq!((output.stdout.as_str(), output.code()), ("crowd: 0 wrong\n", 0), "{output}");
    // What the threads stored was committed, and left every page's first word alone.
    let output = Run::on(&Host::new(engine), server.url(), &program)
        .args(["/netmem/c", "1", pages, "5000", "none"])
        .ok();
    assert_eq!(output.stdout, "crowd: 0 wrong\n");
}

/// Threads that map, protect, move and unmap parts of one file in every way, for `seconds` at the least.
fn mappers(engine: Engine, threads: &str, seconds: &str, limit: Duration) {
    let (server, program) = (Server::start(), compile("tests/agent/mappers.c", &[]));
    Run::on(&Host::new(engine), server.url(), &program).args(["/netmem/m", "0", "256", "0", "0"]).ok();
    let output = Run::on(&Host::new(engine), server.url(), &program)
        .args(["/netmem/m", threads, "256", "40", seconds])
        .limit(limit)
        .output();
    assert_eq!((output.stdout.as_str(), output.code()), ("mappers: 0 wrong\n", 0), "{output}");
}

fn sixty_four_threads_fault_map_and_unmap_one_file(engine: Engine) {
    mappers(engine, "64", "0", Duration::from_secs(50));
}

fn threads_and_syncs_lose_nothing(engine: Engine) {
    crowd(engine, "8", "1024", "20000", "sync");
}

fn threads_and_mappings_that_come_and_go(engine: Engine) {
    crowd(engine, "8", "512", "20000", "map");
}

fn two_hundred_threads_find_cold_pages(engine: Engine) {
    crowd(engine, "200", "2048", "200", "none");
}

fn two_processes_of_a_host_share_what_their_threads_do(engine: Engine) {
    let (server, program) = (Server::start(), compile("tests/agent/crowd.c", &[]));
    Run::on(&Host::new(engine), server.url(), &program).args(["/netmem/c", "0", "512", "0", "none"]).ok();
    let host = Host::new(engine);
    let outputs = std::thread::scope(|scope| {
        let one = |what: &'static str| {
            let (host, server, program) = (&host, &server, &program);
            scope.spawn(move || {
                // The same bytes of threads of two processes would meet; the first words are nobody's.
                let threads = if what == "sync" { "6" } else { "0" };
                Run::on(host, server.url(), program)
                    .args(["/netmem/c", threads, "512", "20000", what])
                    .output()
            })
        };
        let started: Vec<_> = ["sync", "none", "none", "none"].into_iter().map(one).collect();
        started.into_iter().map(|thread| thread.join().expect("a run")).collect::<Vec<_>>()
    });
    for output in outputs {
        assert_eq!((output.stdout.as_str(), output.code()), ("crowd: 0 wrong\n", 0), "{output}");
    }
}
