//! A script, played on one file system: which process obeys which line, in one order for all.
//!
//! Owns: the processes and the hosts of one script. Called by: the comparison. Must not: wait without a limit, or leave a
//! process behind.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::FileExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::process::Child;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use tempfile::NamedTempFile;

use super::{Ground, Script};
use crate::built::compile;
use crate::engine::Engine;
use crate::hang::{kill_group, picture, wait};
use crate::host::Host;
use crate::proxy::Proxy;
use crate::run::Run;
use crate::server::Server;

/// How long one line may take.
const LIMIT: Duration = Duration::from_secs(25);
/// The names that scripts use; at the end each is read on a host that has none of its pages.
pub const NAMES: [&str; 4] = ["f0", "f1", "f2", "f3"];
const PAGE: u64 = 4096;
/// Bytes that a late wire passes on at a time: a page takes two.
const PIECE: usize = 3000;

/// What came of a script.
#[derive(Clone, Debug)]
pub struct Played {
    /// Each line and its answer.
    pub answers: Vec<(String, String)>,
    /// What the processes wrote to standard error, or were doing when they hung.
    pub stderr: String,
}

struct Process {
    lines: BufReader<UnixStream>,
    /// If it was started rather than forked.
    child: Option<Child>,
    group: u32,
    parent: String,
}

struct Player {
    ground: Ground,
    server: Server,
    /// Between the programs and the server, where that is late.
    wire: Option<Proxy>,
    hosts: Vec<Host>,
    /// The one that processes start on.
    here: usize,
    socket: String,
    connected: Receiver<(String, UnixStream)>,
    processes: BTreeMap<String, Process>,
    stderr: NamedTempFile,
    hung: String,
    answers: Vec<(String, String)>,
}

/// Plays a script, and looks at every file afterwards on a host that has no page of it.
pub fn play(ground: impl Into<Ground>, script: &Script) -> Played {
    let mut player = Player::new(ground.into());
    let look = NAMES.iter().enumerate().map(|(slot, name)| format!("a open {slot} {name} r"));
    let end = std::iter::once("cold".to_owned()).chain(look).chain(["check".to_owned()]);
    for line in script.iter().cloned().chain(end) {
        player.obey(&line);
        if !player.hung.is_empty() {
            break;
        }
    }
    player.end()
}

impl Player {
    fn new(ground: Ground) -> Player {
        let server = Server::start();
        let wire = ground.late.map(|late| {
            let wire = Proxy::to(server.address());
            wire.split(PIECE);
            wire.jitter(late);
            wire
        });
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let socket = format!("netmem-model-{}-{count}", std::process::id());
        let address = SocketAddr::from_abstract_name(&socket).expect("a name");
        let listener = UnixListener::bind_addr(&address).expect("an abstract socket");
        let (send, connected) = channel();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let mut label = String::new();
                let mut reader = BufReader::new(stream);
                if reader.read_line(&mut label).is_err() || label.trim().is_empty() {
                    return;
                }
                let _ = send.send((label.trim().to_owned(), reader.into_inner()));
            }
        });
        Player {
            ground,
            server,
            wire,
            hosts: vec![Host::new(ground.engine)],
            here: 0,
            socket,
            connected,
            processes: BTreeMap::new(),
            stderr: NamedTempFile::new().expect("a file"),
            hung: String::new(),
            answers: Vec::new(),
        }
    }

    fn obey(&mut self, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["start", label] => self.start(label),
            ["restart"] => self.begin_again(false),
            ["cold"] => self.begin_again(true),
            ["back"] => self.go_back(),
            ["check"] => {
                let labels: Vec<String> = self.processes.keys().cloned().collect();
                labels.iter().for_each(|label| self.tell(label, "check"));
            }
            [label, "fork", child] => {
                if self.processes.contains_key(child) {
                    return self.note(line, "taken");
                }
                self.tell(label, &line[label.len() + 1..]);
                let forked = self.answers.last().is_some_and(|(_, answer)| answer == "0");
                if forked && let Some(group) = self.processes.get(label).map(|parent| parent.group) {
                    self.welcome(child, None, group, label);
                }
            }
            [label, "exit" | "_exit" | "kill"] => self.end_of(label, words[1]),
            [label, ..] => self.tell(label, line[label.len()..].trim()),
            [] => {}
        }
    }

    fn note(&mut self, line: &str, answer: &str) {
        self.answers.push((line.to_owned(), answer.to_owned()));
    }

    fn start(&mut self, label: &str) {
        if self.processes.contains_key(label) {
            return self.note(&format!("start {label}"), "taken");
        }
        let host = &self.hosts[self.here];
        let url = self.wire.as_ref().map_or(self.server.url(), Proxy::url);
        let run = Run::on(host, url, compile("tests/model/model.c", &[]));
        let run = run.arg(&self.socket).arg(label).arg(host.netmem());
        let run = if self.ground.engine == Engine::Kernel { run.arg("reference") } else { run };
        let run = match self.ground.prefetch {
            Some(prefetch) => run.env("NETMEM_PREFETCH", prefetch),
            None => run,
        };
        let run = if self.ground.packed { run.env("NETMEM_COMPRESS", "on") } else { run };
        let stderr = OpenOptions::new().append(true).open(self.stderr.path()).expect("the file");
        let (child, _) = run.spawn(stderr.into());
        let group = child.id();
        self.welcome(label, Some(child), group, "");
    }

    fn welcome(&mut self, label: &str, child: Option<Child>, group: u32, parent: &str) {
        let Ok((_, stream)) = self.connected.recv_timeout(LIMIT) else {
            return self.hang(group, &format!("{label} did not come up"));
        };
        stream.set_read_timeout(Some(LIMIT)).expect("a limit");
        let lines = BufReader::new(stream);
        self.processes.insert(label.to_owned(), Process { lines, child, group, parent: parent.to_owned() });
    }

    fn hang(&mut self, group: u32, what: &str) {
        self.hung = format!("{what}\n{}", picture(group));
        self.note(what, "HANG");
    }

    /// Gives a process a line, and notes its answer.
    fn tell(&mut self, label: &str, line: &str) {
        let whole = format!("{label} {line}");
        let Some(process) = self.processes.get_mut(label) else { return self.note(&whole, "nobody") };
        let mut answer = String::new();
        let sent = process.lines.get_mut().write_all(format!("{line}\n").as_bytes());
        match sent.and_then(|()| process.lines.read_line(&mut answer)) {
            Ok(1..) => self.note(&whole, answer.trim_end()),
            Ok(0) => self.died(label, &whole),
            Err(error)
                if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) =>
            {
                let group = process.group;
                self.hang(group, &whole);
            }
            Err(_) => self.died(label, &whole),
        }
    }

    fn died(&mut self, label: &str, line: &str) {
        self.note(line, "DIED");
        self.gone(label);
    }

    /// A process has ended: whoever started it waits for it.
    fn gone(&mut self, label: &str) {
        let Some(process) = self.processes.remove(label) else { return };
        match process.child {
            Some(child) => match wait(child, LIMIT) {
                Ok(status) => self.note(&format!("{label} ended"), &status.to_string()),
                Err(picture) => {
                    self.hung = picture;
                    self.note(&format!("{label} ends"), "HANG");
                }
            },
            None if self.processes.contains_key(&process.parent) => self.tell(&process.parent, "reap"),
            None => {}
        }
    }

    fn end_of(&mut self, label: &str, how: &str) {
        let line = format!("{label} {how}");
        let Some(process) = self.processes.get_mut(label) else { return self.note(&line, "nobody") };
        let _ = process.lines.get_mut().write_all(format!("{how}\n").as_bytes());
        let mut rest = String::new();
        match process.lines.read_line(&mut rest) {
            Err(error)
                if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) =>
            {
                let group = process.group;
                self.hang(group, &line);
            }
            _ => self.gone(label),
        }
    }

    /// All processes end in order; one starts anew, on the same host or on another.
    fn begin_again(&mut self, cold: bool) {
        let labels: Vec<String> = self.processes.keys().rev().cloned().collect();
        for label in labels {
            self.end_of(&label, "exit");
        }
        if !self.hung.is_empty() {
            return;
        }
        if cold && self.ground.engine == Engine::Kernel {
            self.clear_tails();
        } else if cold {
            self.hosts.push(Host::new(self.ground.engine));
            self.here = self.hosts.len() - 1;
        }
        self.start("a");
    }

    /// The same on a host that was there before, whose pages are of then. What lies behind the ends of files there is nobody's.
    fn go_back(&mut self) {
        self.here = (self.here + self.hosts.len() - 1) % self.hosts.len();
        self.begin_again(false);
        self.tell("a", &format!("tails {}", NAMES.join(" ")));
    }

    /// What lies behind the end of a file in its last page is nobody's, and does not go from host to host.
    fn clear_tails(&self) {
        let entries = fs::read_dir(self.hosts[0].files()).into_iter().flatten().flatten();
        for entry in entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file())) {
            let file: File = OpenOptions::new().write(true).open(entry.path()).expect("a file");
            let size = file.metadata().expect("its size").len();
            let zeros = vec![0; ((PAGE - size % PAGE) % PAGE) as usize];
            file.write_all_at(&zeros, size).expect("zeros");
            file.set_len(size).expect("its size");
        }
    }

    fn end(mut self) -> Played {
        for process in std::mem::take(&mut self.processes).into_values() {
            kill_group(process.group);
            if let Some(mut child) = process.child {
                let _ = child.wait();
            }
        }
        // The thread that accepts ends with a connection that says nothing.
        let address = SocketAddr::from_abstract_name(&self.socket).expect("a name");
        drop(UnixStream::connect_addr(&address));
        let said = fs::read_to_string(self.stderr.path()).unwrap_or_default();
        Played { answers: self.answers, stderr: said + &self.hung }
    }
}
