//! Server addresses, and the byte stream behind one.
//!
//! Owns: `tcp://host:port` and `unix:/path`, connecting, and reads and writes that end at a deadline. Called by:
//! [`crate::client`]. Must not: know what a frame is.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::{Duration, Instant};

use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, UnixAddr, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};

/// The server that is used when nobody names one.
pub const SERVER_DEFAULT: &str = "tcp://127.0.0.1:7117";

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerAddress {
    /// `tcp://host:port`; the string is `host:port`.
    Tcp(String),
    /// `unix:/path`.
    Unix(PathBuf),
}

impl ServerAddress {
    /// Whether the address is this machine's own, by its looks.
    pub fn is_here(&self) -> bool {
        match self {
            ServerAddress::Tcp(address) => {
                ["127.", "localhost:", "[::1]:"].iter().any(|here| address.starts_with(here))
            }
            ServerAddress::Unix(_) => true,
        }
    }
}

impl FromStr for ServerAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(host_port) = text.strip_prefix("tcp://") {
            let host_port = host_port.trim_end_matches('/');
            let port = host_port.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port);
            if !port.is_some_and(|port| port.parse::<u16>().is_ok_and(|port| port > 0)) {
                return Err(format!(
                    "{text}: no host and port; write it as tcp://host:port, {SERVER_DEFAULT} for example"
                ));
            }
            return Ok(ServerAddress::Tcp(host_port.to_owned()));
        }
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            if !path.starts_with('/') {
                return Err(format!("{text}: no absolute path; write it as unix:/path/of/the/socket"));
            }
            return Ok(ServerAddress::Unix(PathBuf::from(path)));
        }
        Err(format!("{text}: not a server address; write tcp://host:port or unix:/path"))
    }
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ServerAddress::Tcp(host_port) => write!(f, "tcp://{host_port}"),
            ServerAddress::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A connected stream of either kind.
#[derive(Debug)]
pub enum Link {
    /// TCP, with Nagle's algorithm off.
    Tcp(TcpStream),
    /// A Unix stream socket.
    Unix(UnixStream),
}

impl Link {
    /// Connects, waiting at most `timeout` for each address that a host name stands for.
    pub fn connect(address: &ServerAddress, timeout: Duration) -> io::Result<Link> {
        match address {
            ServerAddress::Tcp(host_port) => connect_tcp(host_port, timeout).map(Link::Tcp),
            ServerAddress::Unix(path) => connect_unix(path, timeout).map(Link::Unix),
        }
    }

    /// Fills `buffer`. `TimedOut` at the deadline, `UnexpectedEof` if the peer closes first.
    pub fn read_exact_by(&mut self, buffer: &mut [u8], deadline: Instant) -> io::Result<()> {
        let mut done = 0;
        while done < buffer.len() {
            let left = Some(remaining(deadline)?);
            let got = match self {
                Link::Tcp(stream) => {
                    stream.set_read_timeout(left).and_then(|()| stream.read(&mut buffer[done..]))
                }
                Link::Unix(stream) => {
                    stream.set_read_timeout(left).and_then(|()| stream.read(&mut buffer[done..]))
                }
            };
            done += match settle(got)? {
                Some(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Some(count) => count,
                None => 0,
            };
        }
        Ok(())
    }

    /// Sends all of `bytes`. `TimedOut` if the peer has not taken them by the deadline.
    pub fn write_all_by(&mut self, bytes: &[u8], deadline: Instant) -> io::Result<()> {
        let mut done = 0;
        while done < bytes.len() {
            let left = Some(remaining(deadline)?);
            let sent = match self {
                Link::Tcp(stream) => {
                    stream.set_write_timeout(left).and_then(|()| stream.write(&bytes[done..]))
                }
                Link::Unix(stream) => {
                    stream.set_write_timeout(left).and_then(|()| stream.write(&bytes[done..]))
                }
            };
            done += match settle(sent)? {
                Some(0) => return Err(ErrorKind::WriteZero.into()),
                Some(count) => count,
                None => 0,
            };
        }
        Ok(())
    }
}

/// What is left until the deadline, never zero (a zero time-out means "for ever" to the kernel).
fn remaining(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(ErrorKind::TimedOut.into()) } else { Ok(left.max(Duration::from_millis(1))) }
}

/// A signal or an expired socket time-out is no result yet: the caller's loop looks at the deadline again.
fn settle(result: io::Result<usize>) -> io::Result<Option<usize>> {
    match result {
        Ok(count) => Ok(Some(count)),
        Err(e)
            if matches!(e.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
        {
            Ok(None)
        }
        Err(e) => Err(e),
    }
}

fn connect_tcp(host_port: &str, timeout: Duration) -> io::Result<TcpStream> {
    let mut last = io::Error::new(ErrorKind::NotFound, "the host has no address");
    for address in host_port.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, timeout) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(e) => last = e,
        }
    }
    Err(last)
}

/// `UnixStream::connect` waits for ever while the server's queue is full, so the send time-out, which
/// connect(2) obeys, is set first.
fn connect_unix(path: &std::path::Path, timeout: Duration) -> io::Result<UnixStream> {
    let socket = socket::socket(
        AddressFamily::Unix,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC,
        None::<socket::SockProtocol>,
    )?;
    let wait = TimeVal::milliseconds(i64::try_from(timeout.as_millis()).unwrap_or(i64::MAX).max(1));
    socket::setsockopt(&socket, sockopt::SendTimeout, &wait)?;
    let address = UnixAddr::new(path)?;
    socket::connect(socket.as_raw_fd(), &address).map_err(|e| match e {
        nix::errno::Errno::EAGAIN => ErrorKind::TimedOut.into(),
        e => io::Error::from(e),
    })?;
    Ok(UnixStream::from(socket))
}

#[cfg(test)]
mod tests {
    use super::ServerAddress;

    #[test]
    fn an_address_is_read_and_printed_alike() {
        for text in
            ["tcp://127.0.0.1:7117", "tcp://[::1]:7117", "tcp://host.example:1", "unix:/run/netmem.sock"]
        {
            assert_eq!(text.parse::<ServerAddress>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_bad_address_says_how_to_write_one() {
        for text in [
            "",
            "127.0.0.1:7117",
            "tcp://",
            "tcp://:7117",
            "tcp://host",
            "tcp://host:0",
            "tcp://host:x",
            "unix:relative",
            "unix:",
        ] {
            let why = text.parse::<ServerAddress>().unwrap_err();
            assert!(why.contains("tcp://host:port") || why.contains("unix:/path"), "{text}: {why}");
        }
    }
}
