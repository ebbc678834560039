//! Stream sockets to the server: blocking, with a deadline for every wait, out of the program's sight.
//!
//! Owns: socket options, the send and receive loops, and the two places where `remote` needs unsafe code. Called by:
//! `remote` only. Must not: know the protocol, raise SIGPIPE, or go through libc names that the program may have replaced.

use core::net::{SocketAddrV4, SocketAddrV6};
use core::ptr;
use core::sync::atomic::{AtomicPtr, Ordering};
use core::time::Duration;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fd::BorrowedFd;
use rustix::io::{Errno, IoSlice};
use rustix::net::sockopt::{self, Timeout};
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown, SocketAddrUnix, SocketFlags,
    SocketType,
};
use rustix::time::Timespec;

use super::fd::OwnFd;

/// The longest time that one system call sleeps: how late a deadline can be noticed.
pub const WAIT_SLICE_MAX: Duration = Duration::from_secs(1);
/// A peer whose host vanished without a word is found out within this time, even if we have nothing to say.
pub const HALF_OPEN_MAX: Duration = Duration::from_secs(10);
/// Seconds of silence before the first keepalive probe.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(4);
/// Seconds between probes.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(2);
/// Probes without an answer that end a connection: 4 + 3 × 2 = [`HALF_OPEN_MAX`] seconds.
const KEEPALIVE_PROBES: u32 = 3;

/// A moment after which nobody wants the answer any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline(Option<Instant>);

impl Deadline {
    /// `limit` from now; `None`: never.
    pub fn after(limit: Option<Duration>) -> Self {
        Deadline::at(Instant::now(), limit)
    }

    /// `limit` from `start`; `None`: never.
    pub fn at(start: Instant, limit: Option<Duration>) -> Self {
        Deadline(limit.and_then(|limit| start.checked_add(limit)))
    }

    /// Time left: zero when it is over, `None` when it never is.
    pub fn remaining(self) -> Option<Duration> {
        self.0.map(|at| at.saturating_duration_since(Instant::now()))
    }

    /// Whether it is over.
    pub fn expired(self) -> bool {
        self.remaining().is_some_and(|left| left.is_zero())
    }

    /// The earlier of the two.
    pub fn min(self, other: Deadline) -> Deadline {
        match (self.0, other.0) {
            (Some(a), Some(b)) => Deadline(Some(a.min(b))),
            (a, b) => Deadline(a.or(b)),
        }
    }
}

/// Where to connect to.
#[derive(Clone, Debug)]
pub enum Endpoint {
    /// TCP over IPv4.
    V4(SocketAddrV4),
    /// TCP over IPv6.
    V6(SocketAddrV6),
    /// A Unix stream socket.
    Unix(SocketAddrUnix),
}

impl Endpoint {
    /// A Unix socket's path.
    pub fn unix(path: &str) -> Result<Self, Errno> {
        SocketAddrUnix::new(path).map(Endpoint::Unix)
    }

    /// Whether it is on this machine, as far as its address says.
    pub fn is_here(&self) -> bool {
        match self {
            Endpoint::V4(address) => address.ip().is_loopback(),
            Endpoint::V6(address) => address.ip().is_loopback(),
            Endpoint::Unix(_) => true,
        }
    }
}

/// Why a socket did not do as it was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetError {
    /// The peer ended the connection.
    Closed,
    /// The deadline is over.
    TimedOut,
    /// The kernel says so.
    Os(Errno),
}

impl From<Errno> for NetError {
    fn from(errno: Errno) -> Self {
        NetError::Os(errno)
    }
}

/// A stream socket of ours; closed when dropped.
#[derive(Debug)]
pub struct Socket {
    fd: OwnFd,
    /// SO_RCVTIMEO and SO_SNDTIMEO.
    slice: Duration,
}

impl Socket {
    /// A socket that is not yet connected. `timeout` is that of the operations to come: a single call sleeps for half of it at
    /// the most, so that the rest can be waited for to the millisecond.
    pub fn new(endpoint: &Endpoint, timeout: Option<Duration>) -> Result<Self, NetError> {
        let (family, tcp) = match endpoint {
            Endpoint::V4(_) => (AddressFamily::INET, true),
            Endpoint::V6(_) => (AddressFamily::INET6, true),
            Endpoint::Unix(_) => (AddressFamily::UNIX, false),
        };
        let fd = rustix::net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        let fd = OwnFd::from_rustix(fd);
        let slice = timeout
            .map_or(WAIT_SLICE_MAX, |timeout| (timeout / 2).clamp(Duration::from_millis(1), WAIT_SLICE_MAX));
        let socket = Socket { fd, slice };
        sockopt::set_socket_timeout(socket.borrow(), Timeout::Recv, Some(slice))?;
        sockopt::set_socket_timeout(socket.borrow(), Timeout::Send, Some(slice))?;
        if tcp {
            sockopt::set_tcp_nodelay(socket.borrow(), true)?;
            sockopt::set_socket_keepalive(socket.borrow(), true)?;
            sockopt::set_tcp_keepidle(socket.borrow(), KEEPALIVE_IDLE)?;
            sockopt::set_tcp_keepintvl(socket.borrow(), KEEPALIVE_INTERVAL)?;
            sockopt::set_tcp_keepcnt(socket.borrow(), KEEPALIVE_PROBES)?;
            sockopt::set_tcp_user_timeout(socket.borrow(), HALF_OPEN_MAX.as_millis() as u32)?;
        }
        Ok(socket)
    }

    /// Its number.
    pub fn raw(&self) -> i32 {
        self.fd.raw()
    }

    /// Connects.
    pub fn connect(&self, endpoint: &Endpoint, deadline: Deadline) -> Result<(), NetError> {
        // SO_SNDTIMEO bounds connect too; calling it again waits on for the same handshake.
        loop {
            let Some(wait) = self.next_wait(deadline) else { return Err(NetError::TimedOut) };
            if wait < self.slice {
                sockopt::set_socket_timeout(
                    self.borrow(),
                    Timeout::Send,
                    Some(wait.max(Duration::from_millis(1))),
                )?;
            }
            let outcome = match endpoint {
                Endpoint::V4(at) => rustix::net::connect(self.borrow(), at),
                Endpoint::V6(at) => rustix::net::connect(self.borrow(), at),
                Endpoint::Unix(at) => rustix::net::connect(self.borrow(), at),
            };
            match outcome {
                Ok(()) | Err(Errno::ISCONN) => break,
                Err(Errno::INTR | Errno::INPROGRESS | Errno::ALREADY | Errno::AGAIN) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        sockopt::set_socket_timeout(self.borrow(), Timeout::Send, Some(self.slice))?;
        Ok(())
    }

    /// Sends `front`, then `data`, without copying either. An error comes with the number of bytes that were taken before.
    pub fn send(&self, front: &[u8], data: &[u8], deadline: Deadline) -> Result<(), (usize, NetError)> {
        let total = front.len() + data.len();
        let mut done = 0;
        let mut flags = SendFlags::NOSIGNAL;
        while done < total {
            let outcome = match front.get(done..) {
                Some(rest) if !rest.is_empty() && !data.is_empty() => {
                    let parts = [IoSlice::new(rest), IoSlice::new(data)];
                    rustix::net::sendmsg(self.borrow(), &parts, &mut SendAncillaryBuffer::default(), flags)
                }
                Some(rest) if !rest.is_empty() => rustix::net::send(self.borrow(), rest, flags),
                _ => {
                    let rest = data.get(done - front.len()..).unwrap_or(&[]);
                    rustix::net::send(self.borrow(), rest, flags)
                }
            };
            match outcome {
                Ok(sent) => done += sent,
                Err(Errno::PIPE) => return Err((done, NetError::Closed)),
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(errno) => return Err((done, errno.into())),
            }
            if done < total {
                let dontwait = self.wait(PollFlags::OUT, deadline).map_err(|error| (done, error))?;
                flags.set(SendFlags::DONTWAIT, dontwait);
            }
        }
        Ok(())
    }

    /// Appends at least one byte and at most `most` bytes to `buffer`; with `all`, waits for `most` of them as long as one
    /// slice. The first wait starts without a look at the clock: that keeps a fetch at one send and one receive.
    pub fn receive(
        &self,
        buffer: &mut Vec<u8>,
        most: usize,
        all: bool,
        deadline: Deadline,
    ) -> Result<usize, NetError> {
        buffer.reserve(most);
        let mut flags = RecvFlags::empty();
        flags.set(RecvFlags::WAITALL, all);
        loop {
            let spare = buffer.spare_capacity_mut();
            let spare = match spare.len() > most {
                true => &mut spare[..most],
                false => spare,
            };
            match rustix::net::recv(self.borrow(), spare, flags) {
                Ok((_, 0)) => return Err(NetError::Closed),
                Ok((_, got)) => {
                    let length = buffer.len() + got;
                    // SAFETY: recv filled `got` bytes of the spare capacity, from its start.
                    unsafe { buffer.set_len(length) };
                    return Ok(got);
                }
                Err(Errno::CONNRESET) => return Err(NetError::Closed),
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
            let dontwait = self.wait(PollFlags::IN, deadline)?;
            flags.set(RecvFlags::DONTWAIT, dontwait);
        }
    }

    /// Whether an idle connection still stands: open, and nothing has come that nobody asked for.
    pub fn is_quiet(&self) -> bool {
        let mut byte = [0u8; 1];
        let peeked = rustix::net::recv(self.borrow(), &mut byte, RecvFlags::PEEK | RecvFlags::DONTWAIT);
        matches!(peeked, Err(Errno::AGAIN))
    }

    /// Ends the connection for every process that has a copy of the descriptor.
    pub fn shut_down(&self) {
        // An error means that it is over already.
        let _ = rustix::net::shutdown(self.borrow(), Shutdown::Both);
    }

    /// Gives the descriptor up without closing it: its number was closed elsewhere (see [`close_abandoned`]).
    pub fn abandon(self) {
        core::mem::forget(self.fd);
    }

    fn borrow(&self) -> BorrowedFd<'_> {
        borrow(&self.fd)
    }

    /// The time that the next call may sleep; `None` when the deadline is over.
    fn next_wait(&self, deadline: Deadline) -> Option<Duration> {
        match deadline.remaining() {
            None => Some(self.slice),
            Some(left) if left.is_zero() => None,
            Some(left) => Some(left.min(self.slice)),
        }
    }

    /// Between two attempts: says whether the next one must not block, having waited for what was left of the time.
    fn wait(&self, events: PollFlags, deadline: Deadline) -> Result<bool, NetError> {
        let Some(wait) = self.next_wait(deadline) else { return Err(NetError::TimedOut) };
        if wait >= self.slice {
            return Ok(false);
        }
        let limit = timespec(wait);
        match poll(&mut [PollFd::from_borrowed_fd(self.borrow(), events)], Some(&limit)) {
            Ok(_) | Err(Errno::INTR) => Ok(true),
            Err(errno) => Err(errno.into()),
        }
    }
}

/// In a forked child: closes our copy of a descriptor whose [`Socket`] is out of reach (a thread had it that does not exist
/// here) or will be abandoned. The connection lives on in the parent.
pub fn close_abandoned(raw: i32) {
    super::fd::forget(raw);
    super::fd::close_raw(raw);
}

/// Sleeps. May return early.
pub fn sleep(duration: Duration) {
    let _ = rustix::thread::nanosleep(&timespec(duration));
}

/// Up to `limit` bytes of a file; `None` if it can't be read.
pub fn read_file(path: &str, limit: usize) -> Option<Vec<u8>> {
    use rustix::fs::{Mode, OFlags};
    let fd = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY, Mode::empty()).ok()?;
    let fd = OwnFd::from_rustix(fd);
    let mut bytes = vec![0; limit];
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match rustix::io::read(borrow(&fd), rest) {
            Ok(0) => break,
            Ok(got) => filled += got,
            Err(Errno::INTR) => {}
            Err(_) => return None,
        }
    }
    bytes.truncate(filled);
    Some(bytes)
}

/// A number that nobody can guess, for jitter.
pub fn random_u32() -> u32 {
    let mut bytes = [0u8; 4];
    match rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::NONBLOCK) {
        Ok(_) | Err(_) => u32::from_le_bytes(bytes),
    }
}

fn borrow(fd: &OwnFd) -> BorrowedFd<'_> {
    // SAFETY: the descriptor is open as long as the OwnFd that is borrowed for the same time; it is not -1.
    unsafe { BorrowedFd::borrow_raw(fd.raw()) }
}

fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: duration.as_secs().min(i64::MAX as u64) as i64,
        tv_nsec: duration.subsec_nanos().into(),
    }
}

/// A place where one thread leaves a box for whichever thread comes first. No locks: a fork can't catch it half-way, and it
/// may be used from a signal handler.
#[derive(Debug)]
pub struct Parking<T>(AtomicPtr<T>);

// SAFETY: it hands a T from thread to thread and never shares one.
unsafe impl<T: Send> Sync for Parking<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Send for Parking<T> {}

impl<T> Parking<T> {
    /// An empty one.
    pub const fn new() -> Self {
        Parking(AtomicPtr::new(ptr::null_mut()))
    }

    /// Takes what is there.
    pub fn take(&self) -> Option<Box<T>> {
        if self.0.load(Ordering::Relaxed).is_null() {
            return None;
        }
        let taken = self.0.swap(ptr::null_mut(), Ordering::AcqRel);
        // SAFETY: only `park` stores pointers, from `Box::into_raw`, and the swap makes this thread the only one that has it.
        (!taken.is_null()).then(|| unsafe { Box::from_raw(taken) })
    }

    /// Leaves a box, and hands back the one that was there.
    pub fn park(&self, value: Box<T>) -> Option<Box<T>> {
        let before = self.0.swap(Box::into_raw(value), Ordering::AcqRel);
        // SAFETY: as in `take`.
        (!before.is_null()).then(|| unsafe { Box::from_raw(before) })
    }
}

impl<T> Default for Parking<T> {
    fn default() -> Self {
        Parking::new()
    }
}

impl<T> Drop for Parking<T> {
    fn drop(&mut self) {
        drop(self.take());
    }
}
