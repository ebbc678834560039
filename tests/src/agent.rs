//! A program that does what it is told, one line at a time, so that a test can step through two hosts in order.
//!
//! Owns: the running tests/agent/agent.c. Called by: tests of what others see and when. Must not: wait for an answer
//! without a limit, or outlive its test.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ExitStatus};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use tempfile::NamedTempFile;

use crate::built::compile;
use crate::hang::{kill_group, patient, picture, wait};
use crate::host::Host;
use crate::run::Run;

/// How long one answer may take.
const LIMIT: Duration = Duration::from_secs(30);

/// A running agent.
#[derive(Debug)]
pub struct Agent {
    child: Option<Child>,
    pid: u32,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    stderr: NamedTempFile,
    what: String,
}

impl Agent {
    /// On a host, against the server at `url`.
    pub fn start(host: &Host, url: &str) -> Agent {
        Agent::with(host, url, &[])
    }

    /// The same with more variables.
    pub fn with(host: &Host, url: &str, variables: &[(&str, &str)]) -> Agent {
        let run = Run::on(host, url, compile("tests/agent/agent.c", &[]));
        Agent::of(variables.iter().fold(run, |run, (name, value)| run.env(name, *value)))
    }

    /// Another program that says what it does, line by line.
    pub fn of(run: Run) -> Agent {
        // A file: what was written before an answer is there when the answer is.
        let stderr = NamedTempFile::new().expect("a file");
        let (mut child, what) = run.spawn(stderr.reopen().expect("the file").into());
        let stdin = child.stdin.take();
        let out = child.stdout.take().expect("its output");
        let (send, lines) = channel();
        thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                let _ = send.send(line);
            }
        });
        let pid = child.id();
        Agent { child: Some(child), pid, stdin, lines, stderr, what }
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// What it, or the library in it, wrote to standard error so far.
    pub fn stderr(&self) -> String {
        fs::read_to_string(self.stderr.path()).unwrap_or_default()
    }

    /// Gives it a line, and does not wait.
    pub fn tell(&mut self, line: &str) {
        let stdin = self.stdin.as_mut().expect("its input");
        let told = stdin.write_all(format!("{line}\n").as_bytes());
        told.unwrap_or_else(|error| panic!("{}: {line}: {error}\n{}", self.what, self.stderr()));
    }

    /// The next line of a program that is not asked for it; `None` at its end.
    pub fn line(&mut self) -> Option<String> {
        match self.lines.recv_timeout(patient(LIMIT)) {
            Ok(line) => Some(line),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => {
                let threads = picture(self.pid);
                kill_group(self.pid);
                panic!("{}: says nothing for {LIMIT:?}\n{threads}\n{}", self.what, self.stderr());
            }
        }
    }

    /// The next answer: what came of the line, or the name of its errno or signal.
    pub fn answer(&mut self, line: &str) -> Result<String, String> {
        match self.lines.recv_timeout(patient(LIMIT)) {
            Ok(answer) => match answer.split_once(' ') {
                Some(("ok", rest)) => Ok(rest.to_owned()),
                None if answer == "ok" => Ok(String::new()),
                Some(("err", why)) => Err(why.to_owned()),
                _ => panic!("{}: {line}: {answer}\n{}", self.what, self.stderr()),
            },
            Err(_) => {
                let threads = picture(self.pid);
                kill_group(self.pid);
                panic!("{}: no answer to {line:?} in {LIMIT:?}\n{threads}\n{}", self.what, self.stderr());
            }
        }
    }

    /// Gives it a line and waits for what comes of it.
    pub fn ask(&mut self, line: &str) -> Result<String, String> {
        self.tell(line);
        self.answer(line)
    }

    /// The same where it must work.
    pub fn ok(&mut self, line: &str) -> String {
        let answer = self.ask(line);
        answer.unwrap_or_else(|why| panic!("{}: {line}: {why}\n{}", self.what, self.stderr()))
    }

    /// A line that ends it (`exit 0`), and how it ended.
    pub fn end(mut self, line: &str) -> ExitStatus {
        self.tell(line);
        self.wait()
    }

    /// SIGKILL.
    pub fn kill(mut self) {
        kill_group(self.pid);
        self.wait();
    }

    fn wait(&mut self) -> ExitStatus {
        let child = self.child.take().expect("it runs");
        wait(child, patient(LIMIT)).unwrap_or_else(|hang| panic!("{}: {hang}\n{}", self.what, self.stderr()))
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            kill_group(self.pid);
            let _ = child.wait();
        }
        if thread::panicking() && !self.stderr().is_empty() {
            eprintln!("---- stderr of {}:\n{}", self.what, self.stderr());
        }
    }
}
