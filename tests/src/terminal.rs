//! A program on a terminal: a pty, and what its bytes make of a screen.
//!
//! Owns: both, and the program until its end. Called by: tests of what is drawn. Must not: wait for a time; it waits for what is on the
//! screen.

use std::fs::File;
use std::io::{Read, Write};
use std::num::NonZeroU16;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::pty::{OpenptyResult, Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{LocalFlags, tcgetattr};
use nix::unistd::Pid;
use vt100::Parser;

use crate::hang::{kill_group, patient, wait};

/// How long something may take to be on the screen.
const LIMIT: Duration = Duration::from_secs(30);
/// Rows and columns.
const SIZE: (u16, u16) = (24, 120);

/// Written behind all that the program wrote.
const ENDED: &str = "(ended)";

/// What the program's bytes have made of the screen.
struct Shown {
    parser: Mutex<Parser>,
    changed: Condvar,
}

/// A program on a terminal of its own.
pub struct Terminal {
    keys: File,
    /// Ours: while it is open, the terminal outlives the program, and can be asked what it is like.
    line: File,
    child: Option<Child>,
    pid: u32,
    shown: Arc<Shown>,
    cooked: LocalFlags,
}

fn lines(number: u16) -> NonZeroU16 {
    NonZeroU16::new(number).unwrap_or(NonZeroU16::MIN)
}

impl Shown {
    fn lock(&self) -> MutexGuard<'_, Parser> {
        self.parser.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Terminal {
    /// Starts a command in a session of its own, whose terminal this is.
    pub fn start(program: &str, arguments: &[&str], variables: &[(&str, &str)]) -> Terminal {
        let size = Winsize { ws_row: SIZE.0, ws_col: SIZE.1, ws_xpixel: 0, ws_ypixel: 0 };
        let OpenptyResult { master, slave } = openpty(&size, None).expect("a pty");
        for end in [&master, &slave] {
            fcntl(end, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).expect("a descriptor");
        }
        let cooked = tcgetattr(&slave).expect("a terminal").local_flags;
        let end = || slave.try_clone().expect("a descriptor");
        let mut command = Command::new("setsid");
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("NETMEM_") {
                command.env_remove(name);
            }
        }
        command.env("TERM", "xterm-256color").envs(variables.iter().copied());
        command.args(["--ctty", program]).args(arguments).stdin(end()).stdout(end()).stderr(end());
        let child = command.spawn().unwrap_or_else(|error| panic!("setsid {program}: {error}"));
        drop(command);
        let parser = Mutex::new(Parser::new(lines(SIZE.0), lines(SIZE.1), 0));
        let shown = Arc::new(Shown { parser, changed: Condvar::new() });
        let keys = File::from(master);
        let (mut bytes, theirs) = (keys.try_clone().expect("a descriptor"), Arc::clone(&shown));
        thread::spawn(move || {
            let mut part = [0; 4096];
            // EIO when nobody has the other end any more.
            while let Ok(count @ 1..) = bytes.read(&mut part) {
                theirs.lock().process(&part[..count]);
                theirs.changed.notify_all();
            }
        });
        let pid = child.id();
        Terminal { keys, line: File::from(slave), child: Some(child), pid, shown, cooked }
    }

    /// What is on the screen.
    pub fn screen(&self) -> String {
        self.shown.lock().screen().contents()
    }

    /// Waits until the screen is so, and returns it.
    pub fn until(&self, what: &str, is: impl Fn(&str) -> bool) -> String {
        let (mut parser, end) = (self.shown.lock(), Instant::now() + patient(LIMIT));
        loop {
            let screen = parser.screen().contents();
            if is(&screen) {
                return screen;
            }
            let left = end.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "the screen never showed {what}; it is\n{screen}");
            (parser, _) =
                self.shown.changed.wait_timeout(parser, left).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits until this text is on the screen.
    pub fn shows(&self, text: &str) -> String {
        self.until(&format!("{text:?}"), |screen| screen.contains(text))
    }

    /// Presses keys.
    pub fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).expect("a terminal that is there");
    }

    /// Sends the program a signal.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid as i32), signal).expect("a program that runs");
    }

    /// Whether lines are edited and shown as they are typed, as before the program.
    pub fn is_cooked(&self) -> bool {
        tcgetattr(&self.line).expect("a terminal").local_flags == self.cooked
    }

    /// Waits for the program's end. The terminal must be as it was: its modes, its screen, its cursor.
    pub fn ended(&mut self) -> ExitStatus {
        let child = self.child.take().expect("a program");
        let status = wait(child, patient(LIMIT)).unwrap_or_else(|hang| panic!("{hang}\n{}", self.screen()));
        assert!(self.is_cooked(), "the terminal is left raw");
        // What the program wrote last comes before what is written after it.
        self.line.write_all(ENDED.as_bytes()).expect("the terminal");
        self.shows(ENDED);
        let parser = self.shown.lock();
        let screen = parser.screen();
        assert!(!screen.alternate_screen(), "the other screen is left\n{}", screen.contents());
        assert!(!screen.hide_cursor(), "the cursor is left hidden");
        status
    }

    /// The same, and its exit status, or minus its signal.
    pub fn code(&mut self) -> i32 {
        let status = self.ended();
        status.code().unwrap_or_else(|| -status.signal().unwrap_or(0))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            kill_group(self.pid);
            let _ = child.wait();
        }
    }
}
