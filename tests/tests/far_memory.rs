//! Far memory: a program whose anonymous memory is many times its budget finds every byte, whatever it does to its addresses.
//!
//! Owns: nothing. Called by: `cargo test`. Must not: wait for a time that a test did not set.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use netmem_tests::built::{built, compile};
use netmem_tests::dice::seeded;
use netmem_tests::far::{FLOOR, can_move};
use netmem_tests::{Engine, Far, Host, Output, Run, Server};
use nix::unistd::geteuid;

const MIB: u64 = 1 << 20;

fn stress(seconds: u64) {
    let Some(far) = Far::new() else { return };
    let seed = seeded().below(u64::from(u32::MAX));
    let program = compile("tests/far/stress.c", &[]);
    let run = far.run(6 * MIB, program).args([seed.to_string(), seconds.to_string()]);
    let output = run.limit(Duration::from_secs(seconds * 2 + 60)).output();
    print!("{}", output.stdout);
    assert_eq!((output.code(), output.stderr.as_str()), (0, ""), "seed {seed}: {output}");
    assert!(far.told().get("far_pages_in").copied().unwrap_or(0) > 1000, "{:?}", far.told());
}

#[test]
fn two_processes_of_eight_threads_find_every_byte_whatever_they_do_to_their_memory() {
    stress(20);
}

#[test]
#[ignore = "long: make test-long"]
fn two_processes_of_eight_threads_find_every_byte_for_an_hour() {
    stress(3600);
}

/// A program that fills so many MiB, goes over them, and checks them all; its last argument is where it stops for a line.
fn walk(far: &Far, budget: u64, mib: u64) -> Run {
    far.run(budget, compile("tests/far/walk.c", &[])).arg(mib.to_string())
}

#[test]
fn a_program_that_fits_makes_no_connection() {
    if can_move().is_none() {
        return;
    }
    // Nobody accepts here, and who connected is in the queue.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    let host = Host::new(Engine::Uffd);
    let output = Run::on(&host, &format!("tcp://{address}"), compile("tests/far/walk.c", &[]))
        .arg("30")
        .env("NETMEM_MEMORY_BYTES", "64M")
        .output();
    assert_eq!((output.code(), output.stdout.as_str(), output.stderr.as_str()), (0, "ok\n", ""), "{output}");
    listener.set_nonblocking(true).expect("a listener that does not wait");
    assert!(listener.accept().is_err(), "it made a connection");
}

/// The program went on without a budget, and one line says why.
fn went_on_without(output: &Output, words: &[&str]) {
    assert_eq!((output.code(), output.stdout.as_str()), (0, "ok\n"), "{output}");
    assert_eq!(output.stderr.lines().count(), 1, "one line: {output}");
    let said = output.stderr.as_str();
    assert!(said.starts_with("netmem: NETMEM_MEMORY_BYTES is not kept: "), "{output}");
    assert!(words.iter().all(|word| said.contains(word)), "{words:?}: {output}");
}

#[test]
fn without_a_server_the_program_goes_on_and_one_line_says_so() {
    if can_move().is_none() {
        return;
    }
    let port = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("its address");
    let output =
        Run::on(&Host::new(Engine::Uffd), &format!("tcp://{port}"), compile("tests/far/walk.c", &[]))
            .arg("48")
            .env("NETMEM_MEMORY_BYTES", "16M")
            .output();
    went_on_without(&output, &[&port.to_string(), "refused"]);
}

#[test]
fn a_user_without_a_userfaultfd_goes_on_and_one_line_says_so() {
    if !geteuid().is_root() {
        return netmem_tests::skip::skip("root", "only root can run a program of another user");
    }
    let server = Server::start();
    let output = Run::on(&Host::new(Engine::UffdUser), server.url(), compile("tests/far/walk.c", &[]))
        .arg("48")
        .env("NETMEM_MEMORY_BYTES", "16M")
        .output();
    went_on_without(&output, &["userfaultfd", "netmem doctor"]);
}

#[test]
fn a_budget_that_cannot_be_read_is_told_and_the_program_runs() {
    let server = Server::start();
    let output = Run::on(&Host::new(Engine::Uffd), server.url(), compile("tests/far/walk.c", &[]))
        .arg("8")
        .env("NETMEM_MEMORY_BYTES", "many")
        .output();
    assert_eq!((output.code(), output.stdout.as_str()), (0, "ok\n"), "{output}");
    assert!(output.stderr.contains("NETMEM_MEMORY_BYTES=many"), "{output}");
}

#[test]
fn a_program_goes_on_over_restarts_of_a_server_with_a_store() {
    let Some(mut far) = Far::with(|| Server::durable(&[])) else { return };
    let (budget, mib) = (16 * MIB, 96);
    let (mut program, _) = walk(&far, budget, mib).args(["3", "stop"]).spawn(std::process::Stdio::inherit());
    let mut said = std::io::BufReader::new(program.stdout.take().expect("its output"));
    let mut line = String::new();
    use std::io::{BufRead, Write};
    while said.read_line(&mut line).is_ok_and(|count| count > 0) && line != "ok\n" {
        assert_eq!(line, "stopped\n");
        far.server.restart();
        let input = program.stdin.as_mut().expect("its input");
        input.write_all(b"\n").expect("a program that listens");
        line.clear();
    }
    assert_eq!(line, "ok\n");
    let status = netmem_tests::hang::wait(program, Duration::from_secs(60)).unwrap_or_else(|e| panic!("{e}"));
    assert!(status.success(), "{status}");
    far.assert_kept(budget, mib * MIB / 2);
}

#[test]
fn while_the_server_is_away_a_page_that_is_away_is_a_sigbus_and_never_something_else() {
    let Some(mut far) = Far::new() else { return };
    let run = walk(&far, 16 * MIB, 96).args(["1", "stop"]).env("NETMEM_TIMEOUT_MS", "500");
    let (mut program, _) = run.spawn(std::process::Stdio::piped());
    let mut said = std::io::BufReader::new(program.stdout.take().expect("its output"));
    let mut line = String::new();
    use std::io::{BufRead, Read, Write};
    said.read_line(&mut line).expect("its line");
    assert_eq!(line, "stopped\n");
    far.server.kill();
    let start = Instant::now();
    program.stdin.as_mut().expect("its input").write_all(b"\n").expect("a program that listens");
    let mut errors = program.stderr.take().expect("its errors");
    let status = netmem_tests::hang::wait(program, Duration::from_secs(60)).unwrap_or_else(|e| panic!("{e}"));
    let mut text = String::new();
    errors.read_to_string(&mut text).expect("what it said");
    assert_eq!(
        std::os::unix::process::ExitStatusExt::signal(&status),
        Some(libc_sigbus()),
        "{status} {text}"
    );
    assert!(text.contains("far memory: pages can't be had"), "{text}");
    assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
}

fn libc_sigbus() -> i32 {
    nix::sys::signal::Signal::SIGBUS as i32
}

#[test]
fn the_command_says_what_moved_and_ends_as_the_program_did() {
    let Some(far) = Far::new() else { return };
    let walk = compile("tests/far/walk.c", &[]).display().to_string();
    let run = |rest: &[&str]| {
        Run::plain(&built().command)
            .env("NETMEM_LIBRARY", &built().library)
            .env("NETMEM_DIR", far.host.cache())
            .args(["run", "--server", far.server.url(), "--memory", "16M", "--"])
            .args(rest)
            .output()
    };
    let output = run(&[&walk, "64"]);
    assert_eq!((output.code(), output.stdout.as_str()), (0, "ok\n"), "{output}");
    for part in
        ["netmem: memory 16.0 MiB: at most", "pages left:", "pages came back", "touches of pages", "moved"]
    {
        assert!(output.stderr.contains(part), "no {part}: {output}");
    }
    let output = run(&["/bin/sh", "-c", "exit 7"]);
    assert_eq!(
        (output.code(), output.stderr.as_str()),
        (7, "netmem: memory 16.0 MiB: all of it fitted\n"),
        "{output}"
    );
}

#[test]
fn what_is_resident_stays_within_the_budget_and_all_of_it_is_right() {
    let Some(far) = Far::new() else { return };
    let (budget, mib) = (32 * MIB, 160);
    let output = walk(&far, budget, mib).arg("3").ok();
    assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("ok\n", ""), "{output}");
    far.assert_kept(budget, mib * MIB - budget - FLOOR);
}
