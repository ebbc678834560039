//! A server for one command: started, waited for, stopped.
//!
//! Owns: the netmem-server process of `netmem run` and its socket's directory. Called by: `run.rs`. Must not: outlive
//! its netmem, or be reached by the terminal's signals before the command has written its last pages.

#![allow(unsafe_code)]

use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getpid, getppid};
use tempfile::TempDir;

use crate::error::{Failure, describe_io, printable};

/// How long a server may take to say that it is ready.
const READY_WAIT: Duration = Duration::from_secs(10);
/// How long a server may take to end, before it is killed.
const STOP_WAIT: Duration = Duration::from_secs(5);

/// A running private server. Dropped, it is stopped.
#[derive(Debug)]
pub struct PrivateServer {
    child: Child,
    ended: Option<ExitStatus>,
    // Dropped after the server has gone: the directory of its socket.
    _directory: TempDir,
    address: String,
}

impl PrivateServer {
    /// Starts netmem-server on a Unix socket in a directory of its own and waits for its ready line.
    pub fn start(max_memory: Option<u64>, log: &str) -> Result<PrivateServer, Failure> {
        let program = find_program();
        let base = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.is_dir());
        let base = base.unwrap_or_else(std::env::temp_dir);
        let directory = tempfile::Builder::new().prefix("netmem-run-").tempdir_in(&base).map_err(|e| {
            Failure::new(base.display(), describe_io(&e), "set TMPDIR to a directory that you may write")
        })?;
        let socket = directory.path().join("server");
        let mut command = Command::new(&program);
        command.arg("--unix").arg(&socket).arg("--no-tcp").args(["--log", log]);
        if let Some(bytes) = max_memory {
            command.arg("--max-memory").arg(bytes.to_string());
        }
        // The server is nobody's guest, even when this netmem runs below another one.
        command.env_remove("LD_PRELOAD").env_remove("NETMEM_LOADED_FD");
        // A group of its own: Ctrl-C is for the command, which commits before it ends.
        command.stdin(Stdio::null()).stdout(Stdio::piped()).process_group(0);
        end_with_parent(&mut command);
        let mut child = command.spawn().map_err(|e| {
            let what_to_do = "install it beside netmem or in PATH, or name a running server with --server";
            Failure::new(program.display(), describe_io(&e), what_to_do)
        })?;
        let stdout = child.stdout.take();
        let address = format!("unix:{}", socket.display());
        let mut server = PrivateServer { child, ended: None, _directory: directory, address };
        server.wait_ready(stdout)?;
        Ok(server)
    }

    /// What to set NETMEM_SERVER to.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Its exit status, once, if it ended by itself.
    pub fn ended_early(&mut self) -> Option<ExitStatus> {
        if self.ended.is_some() {
            return None;
        }
        self.ended = self.child.try_wait().ok().flatten();
        self.ended
    }

    /// A thread reads the line, so that a server that says nothing can't hold us; it then reads on, so that a server
    /// that says more is not held by a full pipe.
    fn wait_ready(&mut self, stdout: Option<ChildStdout>) -> Result<(), Failure> {
        let (send, receive) = sync_channel(1);
        thread::spawn(move || {
            let Some(stdout) = stdout else { return };
            let mut lines = BufReader::new(stdout).split(b'\n');
            if let Some(Ok(line)) = lines.next() {
                let _ = send.send(String::from_utf8_lossy(&line).into_owned());
            }
            drop(send);
            for _ in lines.map_while(Result::ok) {}
        });
        match receive.recv_timeout(READY_WAIT) {
            Ok(_line) => Ok(()),
            Err(RecvTimeoutError::Timeout) => {
                let why = format!("not ready after {} s", READY_WAIT.as_secs());
                Err(Failure::new(
                    "netmem-server",
                    why,
                    "start it by hand and name it with --server to see more",
                ))
            }
            Err(RecvTimeoutError::Disconnected) => {
                let status = self.child.wait();
                self.ended = status.as_ref().ok().copied();
                let why = match status {
                    Ok(status) => format!("ended before it was ready ({status})"),
                    Err(e) => describe_io(&e),
                };
                Err(Failure::new("netmem-server", printable(&why), "its own message above says why"))
            }
        }
    }
}

impl Drop for PrivateServer {
    fn drop(&mut self) {
        if self.ended.is_some() || self.ended_early().is_some() {
            return;
        }
        let pid = Pid::from_raw(self.child.id() as i32);
        let _ = kill(pid, Signal::SIGTERM);
        let deadline = Instant::now() + STOP_WAIT;
        // There is no wait(2) with a time limit, and SIGCHLD is the caller's.
        let mut pause = Duration::from_micros(200);
        while Instant::now() < deadline {
            if self.ended_early().is_some() {
                return;
            }
            thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Beside this executable, else in PATH.
fn find_program() -> PathBuf {
    let beside = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.join("netmem-server")));
    beside.filter(|path| path.is_file()).unwrap_or_else(|| PathBuf::from(OsString::from("netmem-server")))
}

/// A netmem that is killed can't stop what it started, so the kernel does.
pub(crate) fn end_with_parent(command: &mut Command) {
    let parent = getpid();
    let arrange = move || {
        set_pdeathsig(Signal::SIGTERM)?;
        // If the parent died before the line above, nobody will send the signal any more.
        if getppid() == parent { Ok(()) } else { Err(std::io::ErrorKind::Interrupted.into()) }
    };
    // SAFETY: between fork and exec the closure makes two system calls and allocates nothing (both errors are plain
    // numbers), so it is safe whatever locks other threads held.
    unsafe { command.pre_exec(arrange) };
}
