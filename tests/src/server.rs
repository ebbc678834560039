//! A netmem-server of a test's own.
//!
//! Owns: the process, on a free port, from its ready line to its end. Called by: tests. Must not: outlive its test.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use netmem_cli::client::Client;

use crate::built::built;
use crate::hang::{patient, wait};

/// How long a server may take to say that it is ready, or to end.
const LIMIT: Duration = Duration::from_secs(20);

/// A running server.
#[derive(Debug)]
pub struct Server {
    child: Option<Child>,
    url: String,
    arguments: Vec<String>,
    said: Arc<Mutex<String>>,
    /// Where it keeps pages, if that is on a disk.
    store: Option<TempDir>,
}

impl Server {
    /// One on a free TCP port of this machine.
    pub fn start() -> Server {
        Server::with(&[])
    }

    /// The same with more arguments, `--max-memory` for example.
    pub fn with(arguments: &[&str]) -> Server {
        let mut all = vec!["--port".to_owned(), "0".to_owned()];
        all.extend(arguments.iter().map(|&argument| argument.to_owned()));
        Server::launch(all)
    }

    /// The same with a store of its own on a disk, which a restart finds again.
    pub fn durable(arguments: &[&str]) -> Server {
        let store = TempDir::new().expect("a directory");
        let path = store.path().join("store").display().to_string();
        let mut server = Server::with(&[&["--store", &path], arguments].concat());
        server.store = Some(store);
        server
    }

    /// The directory of its store.
    pub fn store(&self) -> PathBuf {
        self.store.as_ref().expect("a store on a disk").path().join("store")
    }

    /// One on a Unix socket and nothing else.
    pub fn unix(path: &str) -> Server {
        Server::launch(["--no-tcp", "--unix", path].map(str::to_owned).to_vec())
    }

    fn launch(arguments: Vec<String>) -> Server {
        let mut server =
            Server { child: None, url: String::new(), arguments, said: Arc::default(), store: None };
        server.spawn(&server.arguments.clone());
        server
    }

    fn spawn(&mut self, arguments: &[String]) {
        let mut child = Command::new(&built().server)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .expect("netmem-server starts");
        let out = child.stdout.take().expect("its output");
        let mut error = child.stderr.take().expect("its errors");
        let said = Arc::clone(&self.said);
        thread::spawn(move || {
            let mut part = [0; 4096];
            while let Ok(count @ 1..) = error.read(&mut part) {
                let text = String::from_utf8_lossy(&part[..count]).into_owned();
                said.lock().unwrap_or_else(PoisonError::into_inner).push_str(&text);
            }
        });
        self.child = Some(child);
        let line = first_line(out).recv_timeout(patient(LIMIT));
        let line =
            line.unwrap_or_else(|_| panic!("netmem-server {arguments:?} did not get ready\n{}", self.said()));
        let url = line.trim_end().strip_prefix("netmem-server ready on ");
        self.url = url.unwrap_or_else(|| panic!("netmem-server said {line:?}\n{}", self.said())).to_owned();
    }

    /// `tcp://127.0.0.1:PORT` or `unix:/path`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> &str {
        self.url.strip_prefix("tcp://").expect("a server on TCP")
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("a server that runs").id()
    }

    /// A connection to it.
    pub fn client(&self) -> Client {
        Client::connect(&self.url).unwrap_or_else(|error| panic!("{error}"))
    }

    /// What it has written to standard error.
    pub fn said(&self) -> String {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// SIGTERM, and its exit status.
    pub fn stop(&mut self) -> ExitStatus {
        let Some(child) = self.child.take() else { panic!("the server has ended already") };
        let pid = Pid::from_raw(child.id() as i32);
        kill(pid, Signal::SIGTERM).expect("the server is there");
        wait(child, patient(LIMIT))
            .unwrap_or_else(|hang| panic!("SIGTERM did not end the server: {hang}\n{}", self.said()))
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// A new server on the address of the one that ended.
    pub fn restart(&mut self) {
        self.kill();
        let mut arguments = self.arguments.clone();
        if let Some(port) = self.url.strip_prefix("tcp://").and_then(|address| address.rsplit(':').next()) {
            arguments[1] = port.to_owned();
        }
        self.spawn(&arguments);
    }
}

fn first_line(out: impl Read + Send + 'static) -> Receiver<String> {
    let (send, receive) = sync_channel(1);
    thread::spawn(move || {
        let mut reader = BufReader::new(out);
        let mut line = String::new();
        let _ = reader.read_line(&mut line);
        let _ = send.send(line);
        let _ = std::io::copy(&mut reader, &mut std::io::sink());
    });
    receive
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            eprintln!("---- what the server said:\n{}", self.said());
        }
    }
}
