//! The sockets that a server listens on, and the hello of each connection.
//!
//! Owns: listening sockets and the path of the Unix one. Called by: the server. Must not: read what connections send.

use std::fs;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use netmem_protocol::HelloStatus;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::greeting::greet;
use crate::requests::Shared;
use crate::session::Session;
use crate::shards::Shards;
use crate::shutdown::NoPlace;
use crate::wire::Socket;

/// Connections at a time that get a thread only to be told that there are too many. More are closed without a word.
const REFUSALS_MAX: u64 = 16;
/// How long accepting pauses when the process is out of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Bytes of stack of a connection's thread.
const STACK_BYTES: usize = 512 << 10;

/// A socket that listens.
pub enum Listener {
    /// TCP, and the address it got.
    Tcp(TcpListener, SocketAddr),
    /// Unix.
    Unix(UnixListener, UnixPath),
}

/// A socket's path, removed when it ends if it is still ours.
pub struct UnixPath {
    path: PathBuf,
    inode: (u64, u64),
}

impl Drop for UnixPath {
    fn drop(&mut self) {
        if inode(&self.path).is_ok_and(|inode| inode == self.inode) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn inode(path: &Path) -> io::Result<(u64, u64)> {
    let meta = fs::symlink_metadata(path)?;
    Ok((meta.dev(), meta.ino()))
}

impl Listener {
    /// Listens on TCP.
    pub fn tcp(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        Ok(Listener::Tcp(listener, address))
    }

    /// Listens on a Unix socket. A socket at that path on which nobody listens is replaced, anything else is not.
    pub fn unix(path: &Path) -> io::Result<Self> {
        if let Ok(meta) = fs::symlink_metadata(path) {
            if !meta.file_type().is_socket() {
                return Err(io::Error::new(
                    ErrorKind::AlreadyExists,
                    "the path is there and is not a socket",
                ));
            }
            match UnixStream::connect(path) {
                Ok(_) => return Err(io::Error::new(ErrorKind::AddrInUse, "a server listens on it")),
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => fs::remove_file(path)?,
                Err(error) => return Err(error),
            }
        }
        let listener = UnixListener::bind(path)?;
        listener.set_nonblocking(true)?;
        let path = UnixPath { path: path.to_owned(), inode: inode(path)? };
        Ok(Listener::Unix(listener, path))
    }

    /// How clients name it.
    pub fn url(&self) -> String {
        match self {
            Listener::Tcp(_, address) => format!("tcp://{address}"),
            Listener::Unix(_, path) => format!("unix:{}", path.path.display()),
        }
    }

    fn accept(&self) -> io::Result<Socket> {
        match self {
            Listener::Tcp(listener, _) => listener.accept().map(|(stream, _)| Socket::Tcp(stream)),
            Listener::Unix(listener, _) => listener.accept().map(|(stream, _)| Socket::Unix(stream)),
        }
    }

    /// Accepts until the other end of `stop` is closed.
    pub fn run(&self, shared: &Arc<Shared>, shards: &Arc<Shards>, stop: &UnixStream) {
        let listening = match self {
            Listener::Tcp(listener, _) => listener.as_fd(),
            Listener::Unix(listener, _) => listener.as_fd(),
        };
        loop {
            let mut ready =
                [PollFd::new(listening, PollFlags::POLLIN), PollFd::new(stop.as_fd(), PollFlags::POLLIN)];
            match poll(&mut ready, PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => {
                    tracing::error!("cannot wait for connections: {error}");
                    return;
                }
            }
            if ready[1].any() == Some(true) {
                return;
            }
            match self.accept() {
                Ok(socket) => start(shared, shards, socket),
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock | ErrorKind::Interrupted | ErrorKind::ConnectionAborted => {}
                    _ => {
                        tracing::warn!("cannot accept a connection: {error}");
                        thread::sleep(ACCEPT_PAUSE);
                    }
                },
            }
        }
    }
}

/// Greets a connection, on a thread that ends with that, and has it served.
fn start(shared: &Arc<Shared>, shards: &Arc<Shards>, socket: Socket) {
    if let Err(error) = socket.prepare() {
        tracing::debug!("a connection ended before it began: {error}");
        return;
    }
    let socket = Arc::new(socket);
    let place = match shared.sessions.join(&socket, shared.limits.connections) {
        Ok(place) => place,
        Err(NoPlace::Full) => return turn_away(shared, socket, HelloStatus::TooManyConnections),
        Err(NoPlace::Closing) => return turn_away(shared, socket, HelloStatus::Closing),
    };
    let (shared, shards) = (Arc::clone(shared), Arc::clone(shards));
    spawn("hello", move || match Session::open(&shared, socket, place) {
        Ok(Some(session)) => shards.add(session),
        Ok(None) => {}
        Err(error) => tracing::debug!("a connection ended before it began: {error}"),
    });
}

/// Refusals under way.
static REFUSALS: AtomicU64 = AtomicU64::new(0);

/// One of them, counted while it lives, be it that no thread could be had for it.
struct Refused;

impl Drop for Refused {
    fn drop(&mut self) {
        REFUSALS.fetch_sub(1, Ordering::Relaxed);
    }
}

fn turn_away(shared: &Arc<Shared>, socket: Arc<Socket>, status: HelloStatus) {
    let before = REFUSALS.fetch_add(1, Ordering::Relaxed);
    let refused = Refused;
    if before >= REFUSALS_MAX {
        return;
    }
    let shared = Arc::clone(shared);
    spawn("refusal", move || {
        let _refused = refused;
        if let Err(error) = greet(&shared, &socket, status) {
            tracing::debug!("a refused connection ended: {error}");
        }
    });
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) {
    if let Err(error) = thread::Builder::new().name(name.into()).stack_size(STACK_BYTES).spawn(run) {
        tracing::warn!("no thread for a connection ({error}): it was closed");
    }
}
