//! Waiting for a process with a limit, and what every thread of it was doing when its time was up.
//!
//! Owns: that picture, and ending a process with all that it started. Called by: whatever waits for a process. Must not:
//! wait without a limit itself.

use std::fmt::Write;
use std::fs;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

/// A limit, as it is for this machine: NETMEM_TEST_PATIENCE says how many times slower than usual that is (emulated ones).
pub fn patient(limit: Duration) -> Duration {
    let times = std::env::var("NETMEM_TEST_PATIENCE").ok().and_then(|times| times.parse().ok());
    limit * times.unwrap_or(1)
}

/// Waits for a child. If it does not end in time, it and its group are killed, and the error is what they were doing.
pub fn wait(mut child: Child, limit: Duration) -> Result<ExitStatus, String> {
    let pid = child.id();
    let (send, ended) = sync_channel(1);
    thread::spawn(move || {
        let _ = send.send(child.wait());
    });
    match ended.recv_timeout(limit) {
        Ok(status) => status.map_err(|error| error.to_string()),
        Err(_) => {
            let threads = picture(pid);
            kill_group(pid);
            Err(format!("not at its end after {} s\n{threads}", limit.as_secs_f32()))
        }
    }
}

/// Lines on each thread of `pid` and of its descendants.
pub fn picture(pid: u32) -> String {
    let mut text = String::new();
    let mut waiting = vec![pid];
    while let Some(pid) = waiting.pop() {
        one_process(pid, &mut text);
        waiting.extend(children(pid));
    }
    text
}

fn children(pid: u32) -> Vec<u32> {
    let mut found = Vec::new();
    for task in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
        let list = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        found.extend(list.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
    }
    found
}

fn one_process(pid: u32, text: &mut String) {
    let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let command = String::from_utf8_lossy(&command).replace('\0', " ");
    let _ = writeln!(text, "---- process {pid}: {command}");
    for task in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
        let path = task.path();
        let read = |name: &str| fs::read_to_string(path.join(name)).unwrap_or_default().trim().to_owned();
        let thread = task.file_name();
        let state = read("status").lines().find(|line| line.starts_with("State")).unwrap_or("").to_owned();
        let (name, wchan, call) = (read("comm"), read("wchan"), read("syscall"));
        let _ = writeln!(text, "thread {} ({name}): {state} wchan {wchan} syscall {call}", thread.display());
        for line in read("stack").lines() {
            let _ = writeln!(text, "    {line}");
        }
    }
    text.push_str(&debugger(pid));
}

/// What gdb says, where there is one. It gets twenty seconds.
fn debugger(pid: u32) -> String {
    let output = Command::new("timeout")
        .args(["--kill-after=1", "20", "gdb", "-p", &pid.to_string(), "-batch", "-nx"])
        .args(["-iex", "set debuginfod enabled off", "-ex", "thread apply all bt 30"])
        .stdin(Stdio::null())
        .output();
    match output {
        Ok(output) => String::from_utf8_lossy(&output.stdout)
            .lines()
            .filter(|line| line.starts_with('#') || line.starts_with("Thread"))
            .fold(String::new(), |text, line| text + "    " + line + "\n"),
        Err(_) => String::new(),
    }
}

/// Ends a process and its group at once.
pub fn kill_group(pid: u32) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap_or(i32::MAX));
    let _ = killpg(pid, Signal::SIGKILL);
    let _ = kill(pid, Signal::SIGKILL);
}
