//! The rung that the library takes by itself on this machine, and what `netmem doctor` says it will.
//!
//! Owns: the comparison of the two. Called by: `cargo test`, and stock_kernels.rs in machines that allow less. Must not:
//! force a rung.
//!
//! NETMEM_TEST_EXPECT_ENGINE says which one a machine was set up to give to the user who runs the tests.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use netmem_tests::built::{built, compile, program};
use netmem_tests::cli::netmem;
use netmem_tests::{Engine, Host, Output, Run, Server};
use nix::sys::statfs::{TMPFS_MAGIC, statfs};
use nix::unistd::geteuid;

/// Who asks, by the rung whose tests run as that user: ourselves, and nobody if we are root.
fn users() -> Vec<Engine> {
    let mut users = vec![Engine::Uffd];
    if geteuid().is_root() {
        users.push(Engine::UffdUser);
    }
    users
}

/// A program of the user's, with the library's own choice of a rung, behind a filter that answers with this errno.
fn run(host: &Host, server: &Server, filter: Option<i32>, command: &str) -> Run {
    let run = match filter {
        Some(errno) => {
            let refuse = compile("tests/agent/refuse.c", &[]);
            Run::on(host, server.url(), refuse).arg(errno.to_string()).arg(command)
        }
        None => Run::on(host, server.url(), command),
    };
    run.env("NETMEM_ENGINE", "auto")
}

/// What the library takes.
fn taken(host: &Host, server: &Server, filter: Option<i32>) -> String {
    let stats = host.files().join("stats");
    let program = program("store_then_read").display().to_string();
    run(host, server, filter, &program).arg("/netmem").env("NETMEM_STATS", &stats).ok();
    let text = fs::read_to_string(&stats).expect("NETMEM_STATS");
    let engine = text.lines().find_map(|line| line.strip_prefix("engine "));
    engine.unwrap_or_else(|| panic!("no engine in {text}")).to_owned()
}

/// What the command says.
fn doctor(host: &Host, server: &Server, filter: Option<i32>) -> Output {
    let command = built().command.display().to_string();
    run(host, server, filter, &command).arg("doctor").env("LD_PRELOAD", "").ok()
}

fn named(doctor: &Output) -> String {
    let engine = doctor.stdout.lines().find_map(|line| line.strip_prefix("engine: "));
    engine.unwrap_or_else(|| panic!("no engine in {doctor}")).to_owned()
}

#[test]
fn the_engine_that_is_taken_is_the_one_that_doctor_names() {
    let server = Server::start();
    for user in users() {
        let host = Host::new(user);
        let doctor = doctor(&host, &server, None);
        assert_eq!(taken(&host, &server, None), named(&doctor), "as {:?}: {doctor}", user.user());
    }
}

#[test]
fn the_engine_is_the_one_that_this_machine_was_set_up_for() {
    let Ok(expected) = std::env::var("NETMEM_TEST_EXPECT_ENGINE") else { return };
    let server = Server::start();
    assert_eq!(taken(&Host::new(Engine::Uffd), &server, None), expected);
}

/// What a container engine's default profile leaves: the user has no device, and the system call is refused.
#[test]
fn where_a_filter_refuses_userfaultfd_the_sigsegv_rung_serves_and_doctor_says_so() {
    let (server, user) = (Server::start(), *users().last().expect("a user"));
    for errno in [libc::EPERM, libc::ENOSYS] {
        let host = Host::new(user);
        let doctor = doctor(&host, &server, Some(errno));
        let device =
            doctor.stdout.lines().any(|line| line.starts_with("/dev/userfaultfd") && line.contains("works"));
        let taken = taken(&host, &server, Some(errno));
        assert_eq!(taken, named(&doctor), "{doctor}");
        assert!(taken.starts_with(if device { "uffd" } else { "sigsegv-" }), "{errno}: {doctor}");
        assert!(doctor.stdout.contains("a filter is on"), "{doctor}");
        assert!(device || doctor.stdout.contains("\nfor engine uffd: "), "{doctor}");
    }
}

#[test]
fn programs_behave_behind_such_a_filter_as_without_it() {
    let (server, user) = (Server::start(), *users().last().expect("a user"));
    let local = Host::new(Engine::Kernel);
    for name in ["store_then_read", "readv_writev", "fork_child_sees_and_writes", "threads_fault_together"] {
        let program = program(name).display().to_string();
        let expected = Run::on(&local, server.url(), &program).arg(local.netmem()).ok();
        let output = run(&Host::new(user), &server, Some(libc::EPERM), &program).arg("/netmem").ok();
        assert_eq!((output.stdout, output.stderr), (expected.stdout, expected.stderr), "{name}");
    }
}

/// No /dev/shm, or a directory that is on a disk: nothing of ours works, the rest of the program does, and a line says why.
#[test]
fn without_a_tmpfs_for_the_page_caches_a_program_is_told_so_in_a_line() {
    let (server, host) = (Server::start(), Host::new(Engine::Uffd));
    let elsewhere = tempfile::tempdir().expect("a directory");
    fs::set_permissions(elsewhere.path(), fs::Permissions::from_mode(0o700)).expect("its mode");
    let mut refused = vec![("/no/such/directory", "Input/output error")];
    if statfs(elsewhere.path()).is_ok_and(|data| data.filesystem_type() != TMPFS_MAGIC) {
        refused.push((elsewhere.path().to_str().expect("a path"), "Invalid argument"));
    }
    for (directory, errno) in refused {
        let script = "echo kept > here; cat here; cat /netmem/f";
        let output = Run::on(&host, server.url(), "/bin/sh")
            .args(["-c", script])
            .env("NETMEM_ENGINE", "auto")
            .env("NETMEM_DIR", directory)
            .output();
        assert_eq!((output.stdout.as_str(), output.code()), ("kept\n", 1), "{output}");
        let lines = output.lines_of_ours();
        assert!(lines.len() == 1 && lines[0].contains("set NETMEM_DIR to"), "{output}");
        assert!(output.stderr.contains(&format!("cat: /netmem/f: {errno}")), "{output}");
    }
    assert_eq!(netmem(&server, &["ls"]).ok().stdout, "");
}
