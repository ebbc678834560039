//! `netmem run`, from outside: exit statuses, signals, the check that the library was loaded.
//!
//! Owns: tests with a stand-in for libnetmem.so, compiled here. Called by: `cargo test`. Must not: need a server: every
//! run names one that is never asked.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// What libnetmem.so's constructor does about NETMEM_LOADED_FD.
const STAND_IN: &str = "
#include <stdlib.h>
#include <unistd.h>
__attribute__((constructor)) static void up(void) {
    const char *text = getenv(\"NETMEM_LOADED_FD\");
    if (text) {
        int fd = atoi(text);
        if (write(fd, \"1\", 1) != 1) abort();
        close(fd);
        unsetenv(\"NETMEM_LOADED_FD\"); // The number means nothing to the programs that this one starts.
    }
}
";

struct Place {
    directory: tempfile::TempDir,
    library: PathBuf,
}

impl Place {
    fn new() -> Place {
        let directory = tempfile::tempdir().unwrap();
        let library = directory.path().join("libnetmem.so");
        let place = Place { directory, library };
        assert!(place.compile(STAND_IN, "libnetmem.so", &["-shared", "-fPIC"]), "a C compiler is needed");
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn compile(&self, text: &str, name: &str, flags: &[&str]) -> bool {
        let source = self.path(&format!("{name}.c"));
        fs::write(&source, text).unwrap();
        let compiled = Command::new("cc").args(flags).arg("-o").arg(self.path(name)).arg(source).status();
        compiled.is_ok_and(|status| status.success())
    }

    /// `netmem run` with `library` and these options and command. 60 s are the limit on every test here.
    fn command(&self, library: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new("timeout");
        command.args([
            "--foreground",
            "--kill-after=1",
            "60",
            env!("CARGO_BIN_EXE_netmem"),
            "run",
            "--library",
        ]);
        command.arg(library).arg("--server").arg("tcp://127.0.0.1:1").args(arguments);
        command.env_remove("LD_PRELOAD").env_remove("NETMEM_DISABLE");
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(&self.library, arguments).output().unwrap()
    }
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn the_exit_status_is_the_commands() {
    let place = Place::new();
    let output = place.run(&["--", "sh", "-c", "exit 7"]);
    assert_eq!((output.status.code(), stderr(&output)), (Some(7), String::new()));
    let output = place.run(&["--", "sh", "-c", "kill -KILL $$"]);
    assert_eq!(output.status.code(), Some(128 + 9));
}

#[test]
fn a_missing_command_is_127_and_one_that_is_no_program_126() {
    let place = Place::new();
    let output = place.run(&["--", "no-such-command-at-all"]);
    assert_eq!(output.status.code(), Some(127));
    assert!(stderr(&output).contains("no-such-command-at-all: command not found"), "{}", stderr(&output));
    let output = place.run(&["--", place.path("libnetmem.so.c").to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(126));
}

#[test]
fn the_environment_has_the_library_and_the_settings() {
    let place = Place::new();
    let output = place.run(&["--engine", "sigsegv", "--cache-bytes=1M", "--", "sh", "-c", "env"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let preload = format!("LD_PRELOAD={}", fs::canonicalize(&place.library).unwrap().display());
    for line in
        [&preload, "NETMEM_ENGINE=sigsegv", "NETMEM_CACHE_BYTES=1048576", "NETMEM_SERVER=tcp://127.0.0.1:1"]
    {
        assert!(text.lines().any(|have| have == line), "no {line} in {text}");
    }
}

#[test]
fn a_library_that_did_not_get_in_is_a_warning() {
    let place = Place::new();
    assert!(place.compile("int nothing;", "silent.so", &["-shared", "-fPIC"]));
    let output = place.command(&place.path("silent.so"), &["--", "true"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(stderr(&output), "netmem: warning: libnetmem.so was not loaded into true\n");
}

#[test]
fn a_static_program_runs_with_one_warning() {
    let place = Place::new();
    // Skipped where there is no static C library.
    if !place.compile("int main(void) { return 3; }", "program", &["-static"]) {
        return;
    }
    let output = place.run(&["--", place.path("program").to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(stderr(&output).lines().count(), 1, "{}", stderr(&output));
    assert!(stderr(&output).contains("statically linked"), "{}", stderr(&output));
}

/// Says "up", then counts SIGTERMs until SIGUSR1, and ends with their number.
const COUNTER: &str = "
#include <signal.h>
#include <unistd.h>
int main(void) {
    sigset_t set; int signal, count = 0;
    sigemptyset(&set); sigaddset(&set, SIGTERM); sigaddset(&set, SIGUSR1);
    sigprocmask(SIG_BLOCK, &set, 0);
    if (write(1, \"up\\n\", 3) != 3) return 99;
    for (;;) {
        sigwait(&set, &signal);
        if (signal == SIGUSR1) return count;
        count++;
        if (write(1, \"term\\n\", 5) != 5) return 99;
    }
}
";

fn next_line(child: &mut Child, reader: &mut impl BufRead) -> String {
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    assert!(!line.is_empty(), "ended with {:?}", child.wait());
    line
}

#[test]
fn a_signal_sent_to_netmem_reaches_the_command_once() {
    let place = Place::new();
    assert!(place.compile(COUNTER, "counter", &[]));
    let mut child = Command::new(env!("CARGO_BIN_EXE_netmem"))
        .args(["run", "--server", "tcp://127.0.0.1:1", "--library"])
        .arg(&place.library)
        .arg("--")
        .arg(place.path("counter"))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut reader = BufReader::new(child.stdout.take().unwrap());
    assert_eq!(next_line(&mut child, &mut reader), "up\n");
    let pid = Pid::from_raw(child.id() as i32);
    kill(pid, Signal::SIGTERM).unwrap();
    assert_eq!(next_line(&mut child, &mut reader), "term\n");
    kill(pid, Signal::SIGUSR1).unwrap();
    let mut rest = String::new();
    reader.read_to_string(&mut rest).unwrap();
    let status = child.wait().unwrap();
    assert_eq!((status.code(), status.signal(), rest.as_str()), (Some(1), None, ""));
}
