//! Far memory before the server has answered for the first time.
//!
//! Owns: nothing. Called by: `cargo test`. Must not: ask how long a program takes: only whether it waits while nothing can leave.

use std::io::BufReader;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use netmem_tests::built::compile;
use netmem_tests::far::{can_move, ends_well, go_on, hears, resident};
use netmem_tests::{Host, Proxy, Run, Server};

const MIB: u64 = 1 << 20;
/// What a program with 16 MiB may have beyond them, its files and libraries among it.
const LATE: u64 = 12 * MIB;

/// A program with 16 MiB, whose server hears it and does not answer yet.
fn unanswered(source: &str, arguments: &[&str]) -> Option<(Server, Host, Proxy, Child)> {
    let host = Host::new(can_move()?);
    let server = Server::start();
    let proxy = Proxy::to(server.address());
    proxy.stall();
    let (program, _) = Run::on(&host, proxy.url(), compile(source, &[]))
        .args(arguments)
        .env("NETMEM_MEMORY_BYTES", "16M")
        .env("NETMEM_STATS", host.stats())
        .spawn(Stdio::inherit());
    proxy.wait_until_held();
    Some((server, host, proxy, program))
}

#[test]
fn new_memory_waits_while_the_server_is_asked_for_the_first_time() {
    let Some((_server, host, proxy, program)) = unanswered("tests/far/walk.c", &["96"]) else { return };
    // It waits for five seconds, and fills all of it in a tenth of that if it does not.
    let start = Instant::now();
    loop {
        let has = resident(&program);
        if start.elapsed() > Duration::from_millis(1000) {
            break;
        }
        assert!(has < 16 * MIB + LATE, "{has} bytes are resident");
        std::thread::yield_now();
    }
    proxy.heal();
    ends_well(program);
    let told = host.told();
    assert!(
        told.get("far_resident_max_pages").is_some_and(|pages| pages * 4096 < 16 * MIB + LATE),
        "{told:?}"
    );
    assert!(told.get("far_pages_out").is_some_and(|pages| pages * 4096 > 48 * MIB), "{told:?}");
}

#[test]
fn new_memory_does_not_wait_for_long_for_a_server_that_does_not_answer() {
    let Some((_server, _host, _proxy, mut program)) = unanswered("tests/far/walk.c", &["96", "1", "stop"])
    else {
        return;
    };
    let mut said = BufReader::new(program.stdout.take().expect("its output"));
    hears(&mut said, "stopped\n");
    assert!(resident(&program) > 96 * MIB, "{} bytes are resident", resident(&program));
    go_on(&mut program);
    hears(&mut said, "ok\n");
    ends_well(program);
}

#[test]
fn programs_fork_and_change_addresses_while_the_server_is_asked_for_the_first_time() {
    let Some((_server, host, proxy, mut program)) = unanswered("tests/far/early.c", &[]) else { return };
    let mut said = BufReader::new(program.stdout.take().expect("its output"));
    hears(&mut said, "forked\n");
    proxy.heal();
    go_on(&mut program);
    hears(&mut said, "ok\n");
    ends_well(program);
    assert!(host.told().get("far_pages_out").is_some_and(|pages| *pages > 1000), "{:?}", host.told());
}
