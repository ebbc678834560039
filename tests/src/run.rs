//! A program, run to its end under an engine.
//!
//! Owns: its environment, its input, its output, its time. Called by: tests, and [`crate::Agent`] for the environment.
//! Must not: let anything of the caller's NETMEM_* settings through.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io::{Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::built::built;
use crate::engine::Engine;
use crate::hang::{kill_group, patient, wait};
use crate::host::Host;

/// How long a program may run, unless a test says otherwise.
pub const LIMIT: Duration = Duration::from_secs(60);

/// A program that is going to run.
#[derive(Debug)]
pub struct Run {
    command: Command,
    stdin: Vec<u8>,
    limit: Duration,
    what: String,
}

/// What became of it.
#[derive(Clone, Debug)]
pub struct Output {
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// How it ended.
    pub status: ExitStatus,
    what: String,
}

impl Run {
    /// Without the library.
    pub fn plain(program: impl AsRef<OsStr>) -> Run {
        let mut command = Command::new(&program);
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            // What this run's own make says to its children is not for the make that a test starts.
            let from_make = ["MAKEFLAGS", "MAKELEVEL", "MFLAGS"].contains(&&*text);
            if text.starts_with("NETMEM_") || text == "LD_PRELOAD" || from_make {
                command.env_remove(&name);
            }
        }
        command.process_group(0);
        let what = Path::new(program.as_ref())
            .file_name()
            .unwrap_or(program.as_ref())
            .to_string_lossy()
            .into_owned();
        Run { command, stdin: Vec::new(), limit: LIMIT, what }
    }

    /// On a host, against the server at `url`; under [`Engine::Kernel`] without both.
    pub fn on(host: &Host, url: &str, program: impl AsRef<OsStr>) -> Run {
        let mut run = Run::plain(program);
        run.what = format!("{} under {}", run.what, host.engine());
        run.command.current_dir(host.files());
        if host.engine() == Engine::Kernel {
            return run;
        }
        if let Some((uid, gid)) = host.engine().user() {
            run.command.uid(uid).gid(gid);
        }
        run.command
            .env("LD_PRELOAD", &built().library)
            .env("NETMEM_SERVER", url)
            .env("NETMEM_DIR", host.cache());
        run.command.envs(host.engine().environment().iter().copied());
        run
    }

    /// One more argument.
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Run {
        self.what = format!("{} {}", self.what, argument.as_ref().to_string_lossy());
        self.command.arg(argument);
        self
    }

    /// More arguments.
    pub fn args<T: AsRef<OsStr>>(self, arguments: impl IntoIterator<Item = T>) -> Run {
        arguments.into_iter().fold(self, |run, argument| run.arg(argument))
    }

    /// One more variable.
    pub fn env(mut self, name: &str, value: impl Into<OsString>) -> Run {
        self.command.env(name, value.into());
        self
    }

    /// The working directory.
    pub fn cwd(mut self, directory: impl AsRef<Path>) -> Run {
        self.command.current_dir(directory);
        self
    }

    /// What it reads from standard input; nothing, unless said.
    pub fn stdin(mut self, text: impl Into<Vec<u8>>) -> Run {
        self.stdin = text.into();
        self
    }

    /// How long it may take.
    pub fn limit(mut self, limit: Duration) -> Run {
        self.limit = limit;
        self
    }

    /// Started, its input and output piped.
    pub fn spawn(mut self, stderr: Stdio) -> (Child, String) {
        self.command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(stderr);
        let child = self.command.spawn().unwrap_or_else(|error| panic!("{}: {error}", self.what));
        (child, self.what)
    }

    /// Runs it to its end. One that takes too long is killed with all it started, and the test fails.
    pub fn output(mut self) -> Output {
        let (limit, input) = (self.limit, std::mem::take(&mut self.stdin));
        let (mut child, what) = self.spawn(Stdio::piped());
        let pid = child.id();
        let mut stdin = child.stdin.take().expect("its input");
        thread::spawn(move || stdin.write_all(&input));
        let out = collect(child.stdout.take().expect("its output"));
        let error = collect(child.stderr.take().expect("its errors"));
        let status = wait(child, patient(limit));
        if status.is_err() {
            kill_group(pid);
        }
        let (stdout, stderr) = (text(out), text(error));
        match status {
            Ok(status) => Output { stdout, stderr, status, what },
            Err(hang) => panic!("{what}: {hang}\n---- stdout\n{stdout}\n---- stderr\n{stderr}"),
        }
    }

    /// Runs it, and fails unless it exits 0.
    pub fn ok(self) -> Output {
        let output = self.output();
        assert!(output.status.success(), "{output}");
        output
    }
}

fn collect(mut from: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut all = Vec::new();
        let _ = from.read_to_end(&mut all);
        all
    })
}

/// A daemon that it left behind may hold the pipe; what came until then is enough, and the group is ended with us.
fn text(reader: JoinHandle<Vec<u8>>) -> String {
    String::from_utf8_lossy(&reader.join().unwrap_or_default()).into_owned()
}

impl Output {
    /// Its exit status, or minus its signal.
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or_else(|| -self.status.signal().unwrap_or(0))
    }

    /// The lines of standard error that the library wrote.
    pub fn lines_of_ours(&self) -> Vec<&str> {
        self.stderr.lines().filter(|line| line.starts_with("netmem")).collect()
    }
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Output { stdout, stderr, status, what } = self;
        write!(f, "{what}: {status}\n---- stdout\n{stdout}\n---- stderr\n{stderr}")
    }
}
