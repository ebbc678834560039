//! Far memory: a program whose anonymous memory is many times its budget finds every byte, whatever it does to its addresses.
//!
//! Owns: nothing. Called by: `cargo test`. Must not: wait for a time that a test did not set.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdout, Stdio};
use std::time::{Duration, Instant};

use netmem_tests::built::{built, compile};
use netmem_tests::dice::seeded;
use netmem_tests::far::{FLOOR, LIMIT, can_move, ends_well, go_on, hears, resident};
use netmem_tests::hang::wait;
use netmem_tests::skip::skip;
use netmem_tests::{Engine, Far, Host, Run, Server};
use nix::sys::signal::Signal;
use nix::unistd::geteuid;

const MIB: u64 = 1 << 20;

fn stress(seconds: u64, compress: &str) {
    let Some(far) = Far::new() else { return };
    let seed = seeded().below(u64::from(u32::MAX));
    let program = compile("tests/far/stress.c", &[]);
    // Of two processes, and of the children that they fork.
    // An hour of it must not make the tests beside it late.
    let nice = if seconds > 600 { "19" } else { "0" };
    let run = far.run(12 * MIB, "/usr/bin/nice").args(["-n", nice]).arg(program);
    let run = run.args([seed.to_string(), seconds.to_string()]).env("NETMEM_COMPRESS", compress);
    let output = run.limit(Duration::from_secs(seconds * 2 + 60)).output();
    print!("{}", output.stdout);
    assert_eq!((output.code(), output.stderr.as_str()), (0, ""), "seed {seed}: {output}");
    assert!(far.told().get("far_pages_in").copied().unwrap_or(0) > 1000, "{:?}", far.told());
}

#[test]
fn two_processes_of_eight_threads_find_every_byte_whatever_they_do_to_their_memory() {
    stress(20, "auto");
}

#[test]
#[ignore = "long: make test-long"]
fn two_processes_of_eight_threads_find_every_byte_for_an_hour() {
    // Nothing is compressed for a server on this machine, unless one asks.
    stress(3600, "on");
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

/// The program goes on without a budget, and one line says why. It waits for that line itself.
fn goes_on_without(host: &Host, url: &str, words: &[&str]) {
    let (mut program, what) = Run::on(host, url, compile("tests/far/walk.c", &[]))
        .args(["48", "1", "stop"])
        .env("NETMEM_MEMORY_BYTES", "16M")
        .env("NETMEM_TIMEOUT_MS", "1000")
        .spawn(Stdio::piped());
    let mut errors = BufReader::new(program.stderr.take().expect("its errors"));
    let mut line = String::new();
    errors.read_line(&mut line).expect("a line");
    assert!(line.starts_with("netmem: NETMEM_MEMORY_BYTES is not kept: "), "{what}: {line}");
    assert!(words.iter().all(|word| line.contains(word)), "{words:?}: {line}");
    program.stdin.as_mut().expect("its input").write_all(b"\n").expect("a program that listens");
    let (mut said, mut more) = (String::new(), String::new());
    program.stdout.take().expect("its output").read_to_string(&mut said).expect("what it says");
    errors.read_to_string(&mut more).expect("what it says");
    assert_eq!((said.as_str(), more.as_str()), ("stopped\nok\n", ""), "{what}");
    let status = wait(program, LIMIT).unwrap_or_else(|hang| panic!("{hang}"));
    assert!(status.success(), "{what}: {status}");
}

#[test]
fn without_a_server_the_program_goes_on_and_one_line_says_so() {
    if can_move().is_none() {
        return;
    }
    let port = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("its address");
    goes_on_without(&Host::new(Engine::Uffd), &format!("tcp://{port}"), &[&port.to_string(), "refused"]);
}

#[test]
fn a_user_without_a_userfaultfd_goes_on_and_one_line_says_so() {
    if !geteuid().is_root() {
        return skip("root", "only root can run a program of another user");
    }
    let server = Server::start();
    goes_on_without(&Host::new(Engine::UffdUser), server.url(), &["userfaultfd", "netmem doctor"]);
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
    let (mut program, _) = walk(&far, 16 * MIB, 96).args(["3", "stop"]).spawn(Stdio::inherit());
    let mut said = BufReader::new(program.stdout.take().expect("its output"));
    let mut line = String::new();
    while said.read_line(&mut line).is_ok_and(|count| count > 0) && line != "ok\n" {
        assert_eq!(line, "stopped\n");
        far.server.restart();
        let input = program.stdin.as_mut().expect("its input");
        input.write_all(b"\n").expect("a program that listens");
        line.clear();
    }
    assert_eq!(line, "ok\n");
    let status = wait(program, LIMIT).unwrap_or_else(|hang| panic!("{hang}"));
    assert!(status.success(), "{status}");
    // While the server is away nothing leaves, so the budget is not asked for.
    assert!(far.told().get("far_pages_out").is_some_and(|pages| pages * 4096 > 80 * MIB), "{:?}", far.told());
}

/// A walk that has filled its memory and waits for a line, and what it says from then on.
fn stopped(run: Run) -> (Child, BufReader<ChildStdout>) {
    let (mut program, _) = run.spawn(Stdio::piped());
    let mut said = BufReader::new(program.stdout.take().expect("its output"));
    hears(&mut said, "stopped\n");
    (program, said)
}

/// What it said on standard error, of a program that ended by SIGBUS.
fn ends_by_sigbus(mut program: Child) -> String {
    let mut errors = program.stderr.take().expect("its errors");
    let status = wait(program, LIMIT).unwrap_or_else(|hang| panic!("{hang}"));
    let mut text = String::new();
    errors.read_to_string(&mut text).expect("what it said");
    assert_eq!(status.signal(), Some(Signal::SIGBUS as i32), "{status} {text}");
    text
}

#[test]
fn while_the_server_is_away_a_page_that_is_away_is_a_sigbus_and_never_something_else() {
    let Some(mut far) = Far::new() else { return };
    let run = walk(&far, 16 * MIB, 96).args(["1", "stop"]).env("NETMEM_TIMEOUT_MS", "500");
    let (mut program, _said) = stopped(run);
    far.server.kill();
    let start = Instant::now();
    go_on(&mut program);
    let text = ends_by_sigbus(program);
    assert!(text.contains("far memory: pages can't be had"), "{text}");
    assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
}

#[test]
fn a_page_that_could_not_be_had_is_there_again_once_the_server_is() {
    let Some(mut far) = Far::with(|| Server::durable(&[])) else { return };
    let run = walk(&far, 16 * MIB, 96).args(["1", "lost"]).env("NETMEM_TIMEOUT_MS", "500");
    let (mut program, mut said) = stopped(run);
    far.server.kill();
    go_on(&mut program);
    hears(&mut said, "lost\n");
    far.server.restart();
    go_on(&mut program);
    hears(&mut said, "ok\n");
    ends_well(program);
}

#[test]
fn a_server_that_forgot_is_a_sigbus_and_never_zeros() {
    let Some(mut far) = Far::new() else { return };
    let (mut program, _said) = stopped(walk(&far, 16 * MIB, 96).args(["1", "stop"]));
    far.server.restart();
    go_on(&mut program);
    ends_by_sigbus(program);
}

#[test]
fn a_server_that_comes_later_is_found() {
    let Some(mut far) = Far::new() else { return };
    far.server.kill();
    let (mut program, _said) = stopped(walk(&far, 16 * MIB, 96).args(["1", "stop"]));
    let mut line = String::new();
    let mut errors = BufReader::new(program.stderr.take().expect("its errors"));
    errors.read_line(&mut line).expect("what it said");
    assert!(line.contains("NETMEM_MEMORY_BYTES is not kept"), "{line}");
    far.server.restart();
    let start = Instant::now();
    while resident(&program) > 48 * MIB {
        assert!(start.elapsed() < LIMIT, "{} bytes are resident", resident(&program));
        std::thread::yield_now();
    }
    go_on(&mut program);
    ends_well(program);
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

/// A program that takes memory until budget and server are full, 16 MiB each, and its two numbers of pages.
fn until_full(how: &str, mib: u64, setting: &str) -> Option<(Far, u64, u64, String)> {
    let far = Far::with(|| Server::with(&["--max-memory", "16M"]))?;
    let program = compile("tests/far/full.c", &[]);
    let output =
        far.run(16 * MIB, program).args([how, &mib.to_string()]).env("NETMEM_MEMORY_FULL", setting).output();
    assert_eq!(output.code(), 0, "{output}");
    let mut numbers = output.stdout.split_whitespace().map(|word| word.parse::<u64>().expect("a number"));
    let (had, again) = (numbers.next().expect("pages"), numbers.next().expect("pages again"));
    Some((far, had, again, output.stderr))
}

#[test]
fn where_budget_and_server_are_full_new_memory_is_a_sigbus_and_all_else_is_right_and_room_is_found_again() {
    let Some((far, had, again, said)) = until_full("touch", 96, "sigbus") else { return };
    // What both have room for, but for what the library needs; and what one process may have beyond its budget.
    assert!((6000..12_000).contains(&had), "{had} pages");
    assert_eq!(again, had / 2 + had / 4);
    for words in ["the server's 4096 pages (16777216 bytes) are in use", "there is no page for 0x"] {
        assert!(said.contains(words), "{words:?}: {said}");
    }
    // Now and then, and not at each try.
    assert!(said.lines().count() < 10, "{said}");
    far.assert_kept_but_for(4 * MIB, 16 * MIB, MIB);
}

#[test]
fn with_memory_full_enomem_allocation_fails_and_nothing_else() {
    let Some((_, had, again, said)) = until_full("malloc", 1024, "enomem") else { return };
    // It fails at all, however far a program comes on a busy machine before the first page has left.
    assert!((6000..1024 << 8).contains(&had), "{had} pages");
    assert!(again >= had / 2, "{again} of {had} pages");
    assert!(said.contains("are in use") && !said.contains("there is no page"), "{said}");
}
