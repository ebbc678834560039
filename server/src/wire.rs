//! A connection's two ends: bytes in through a buffer of our own, bytes out without copying pages.
//!
//! Owns: the socket of one connection, TCP or Unix. Called by: session, shutdown. Must not: know what frames mean.

use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use netmem_protocol::codec::HEADER_BYTES;
use netmem_protocol::{FrameParser, Header, ProtocolError};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, getsockopt, recv, recvmsg, sendmsg, setsockopt, sockopt};

/// Bytes that a read asks for when no frame says how many are to come.
const READ_BYTES: usize = 16 << 10;
/// How long a peer may leave a full socket buffer unread before it is dropped.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);
/// Seconds of silence after which the kernel asks whether the peer is still there.
const KEEPALIVE_IDLE_S: u32 = 30;
/// Seconds between such questions.
const KEEPALIVE_INTERVAL_S: u32 = 10;
/// Questions without an answer after which the connection is over.
const KEEPALIVE_PROBES: u32 = 3;
/// Milliseconds of silence that end a connection, probes or not.
const SILENCE_MAX_MS: u32 = 1000 * (KEEPALIVE_IDLE_S + KEEPALIVE_PROBES * KEEPALIVE_INTERVAL_S);

/// A stream socket.
#[derive(Debug)]
pub enum Socket {
    /// TCP.
    Tcp(TcpStream),
    /// Unix.
    Unix(UnixStream),
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Socket::Tcp(stream) => stream.as_fd(),
            Socket::Unix(stream) => stream.as_fd(),
        }
    }
}

impl Socket {
    /// Sets what every connection needs. A kernel that refuses an option is no reason to refuse the client.
    pub fn prepare(&self) -> io::Result<()> {
        match self {
            Socket::Tcp(stream) => {
                stream.set_nonblocking(false)?;
                stream.set_nodelay(true)?;
                let _ = setsockopt(stream, sockopt::KeepAlive, &true);
                let _ = setsockopt(stream, sockopt::TcpKeepIdle, &KEEPALIVE_IDLE_S);
                let _ = setsockopt(stream, sockopt::TcpKeepInterval, &KEEPALIVE_INTERVAL_S);
                let _ = setsockopt(stream, sockopt::TcpKeepCount, &KEEPALIVE_PROBES);
                // An answer that nobody acknowledges is sent again for a quarter of an hour, and no probe meanwhile.
                let _ = setsockopt(stream, sockopt::TcpUserTimeout, &SILENCE_MAX_MS);
                stream.set_write_timeout(Some(WRITE_TIMEOUT))
            }
            Socket::Unix(stream) => {
                stream.set_nonblocking(false)?;
                stream.set_write_timeout(Some(WRITE_TIMEOUT))
            }
        }
    }

    /// Where the peer is: its address and port, or its process and user on this machine. Empty if the kernel does not say.
    pub fn peer(&self) -> String {
        match self {
            Socket::Tcp(stream) => stream.peer_addr().map(|address| address.to_string()).unwrap_or_default(),
            Socket::Unix(stream) => getsockopt(stream, sockopt::PeerCredentials)
                .map(|peer| format!("pid {} uid {}", peer.pid(), peer.uid()))
                .unwrap_or_default(),
        }
    }

    /// Limits how long one read waits; `None`: for ever.
    pub fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        match self {
            Socket::Tcp(stream) => stream.set_read_timeout(timeout),
            Socket::Unix(stream) => stream.set_read_timeout(timeout),
        }
    }

    /// Ends one direction or both. What has arrived can still be read.
    pub fn shutdown(&self, how: Shutdown) {
        let _ = match self {
            Socket::Tcp(stream) => stream.shutdown(how),
            Socket::Unix(stream) => stream.shutdown(how),
        };
    }

    /// One read, not ended by a signal. Without `wait`, [`ErrorKind::WouldBlock`] where nothing is there.
    pub fn read(&self, buffer: &mut [u8], wait: bool) -> io::Result<usize> {
        let flags = if wait { MsgFlags::empty() } else { MsgFlags::MSG_DONTWAIT };
        loop {
            match recv(self.as_fd().as_raw_fd(), buffer, flags) {
                Err(Errno::EINTR) => {}
                result => return Ok(result?),
            }
        }
    }

    /// One read into several places that does not wait, not ended by a signal.
    pub fn read_some_into(&self, slices: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        loop {
            let result = recvmsg::<()>(self.as_fd().as_raw_fd(), slices, None, MsgFlags::MSG_DONTWAIT);
            match result.map(|message| message.bytes) {
                Err(Errno::EINTR) => {}
                result => return Ok(result?),
            }
        }
    }

    /// Waits until there is something to read. False if nothing came in time.
    pub fn readable_within(&self, timeout: PollTimeout) -> bool {
        let mut fds = [PollFd::new(self.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, timeout).is_ok_and(|ready| ready > 0)
    }

    /// One write that does not wait. Returns how many bytes were taken.
    pub fn write_some(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        loop {
            match sendmsg::<()>(self.as_fd().as_raw_fd(), slices, &[], flags, None) {
                Err(Errno::EINTR) => {}
                result => return Ok(result?),
            }
        }
    }

    /// Sends what the peer can take without waiting. Returns how many bytes that was.
    pub fn write_ready(&self, mut slices: &mut [IoSlice<'_>]) -> io::Result<usize> {
        let mut written = 0;
        while !slices.is_empty() {
            match self.write_some(slices) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(taken) => {
                    written += taken;
                    IoSlice::advance_slices(&mut slices, taken);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(written)
    }

    /// Writes all of it, gathering, and waits for the peer where it must.
    pub fn write_all(&self, mut slices: &mut [IoSlice<'_>]) -> io::Result<()> {
        IoSlice::advance_slices(&mut slices, 0);
        while !slices.is_empty() {
            let result = match self {
                Socket::Tcp(stream) => (&mut &*stream).write_vectored(slices),
                Socket::Unix(stream) => (&mut &*stream).write_vectored(slices),
            };
            match result {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => IoSlice::advance_slices(&mut slices, written),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Frames out of a stream of bytes.
pub struct FrameReader {
    buffer: Vec<u8>,
    /// Where unread bytes start.
    start: usize,
    /// Where they end.
    end: usize,
    parser: FrameParser,
}

impl FrameReader {
    /// A reader that refuses bodies longer than `limit` bytes.
    pub fn new(limit: u32) -> Self {
        FrameReader { buffer: vec![0; READ_BYTES], start: 0, end: 0, parser: FrameParser { limit } }
    }

    /// The next frame that is all there, and takes it out; `None` while more must be read.
    pub fn next_frame(&mut self) -> Result<Option<(Header, &[u8])>, ProtocolError> {
        let Some((header, total)) = self.parser.peek(&self.buffer[self.start..self.end])? else {
            return Ok(None);
        };
        let body = self.start + HEADER_BYTES..self.start + total;
        self.start += total;
        Ok(Some((header, &self.buffer[body])))
    }

    /// The header at the front, whatever it announces, to answer it by.
    pub fn front_header(&self) -> Option<Header> {
        let head = self.buffer[self.start..self.end].first_chunk::<HEADER_BYTES>()?;
        Header::decode(head, u32::MAX).ok()
    }

    /// What is here of a frame that is not all there: its header, and how its body starts.
    pub fn part_of_a_frame(&self) -> Option<(Header, &[u8])> {
        let body = self.buffer[self.start..self.end].get(HEADER_BYTES..)?;
        self.front_header().map(|header| (header, body))
    }

    /// What is here of that frame is taken out: the rest of it is read elsewhere.
    pub fn take_part(&mut self) {
        self.start = self.end;
    }

    /// Whether the front of a frame is here and the rest is not.
    pub fn is_within_a_frame(&self) -> bool {
        self.end > self.start
    }

    /// Gives back the memory of a large frame, if nothing is here.
    pub fn give_back(&mut self) {
        if self.start == self.end && self.buffer.len() > 4 * READ_BYTES {
            *self = FrameReader::new(self.parser.limit);
        }
    }

    /// Reads once, waiting or not. 0 is the end of the stream.
    pub fn fill(&mut self, socket: &Socket, wait: bool) -> io::Result<usize> {
        let have = self.end - self.start;
        let wanted = self.front_header().map_or(0, |header| {
            // `next_frame` has refused what is over the limit.
            HEADER_BYTES + header.length.min(self.parser.limit) as usize
        });
        if have == 0 || self.start + wanted.max(have + 1) > self.buffer.len() {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, have);
        }
        if wanted.max(have + 1) > self.buffer.len() {
            self.buffer.resize(wanted.max(have + READ_BYTES), 0);
        }
        // Within a large frame no byte of the next one is read: it would have to be moved to the front afterwards.
        let until = if wanted > READ_BYTES { self.start + wanted } else { self.buffer.len() };
        let read = socket.read(&mut self.buffer[self.end..until], wait)?;
        self.end += read;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use netmem_protocol::{Epoch, RegionId, RequestId};
    use proptest::prelude::*;

    fn frame(length: usize, request: u64) -> Vec<u8> {
        let header = Header {
            length: length as u32,
            kind: 2,
            flags: 0,
            request: RequestId(request),
            region: RegionId(0),
            epoch: Epoch(0),
        };
        let mut bytes = header.encode().to_vec();
        bytes.extend((0..length).map(|i| (i as u64 ^ request) as u8));
        bytes
    }

    proptest! {
        #[test]
        fn frames_come_out_as_they_went_in_however_they_are_cut(
            lengths in proptest::collection::vec(0usize..60_000, 1..8),
            pieces in proptest::collection::vec(1usize..30_000, 1..20),
        ) {
            let (ours, theirs) = UnixStream::pair().map_err(|e| TestCaseError::fail(e.to_string()))?;
            let wire: Vec<u8> = lengths.iter().enumerate().flat_map(|(i, length)| frame(*length, i as u64)).collect();
            let writer = std::thread::spawn(move || {
                let mut rest = &wire[..];
                for piece in pieces.iter().cycle() {
                    let (now, later) = rest.split_at(rest.len().min(*piece));
                    if (&theirs).write_all(now).is_err() || later.is_empty() {
                        return;
                    }
                    rest = later;
                }
            });
            let socket = Socket::Unix(ours);
            let mut reader = FrameReader::new(1 << 20);
            let mut got = Vec::new();
            loop {
                while let Some((header, body)) = reader.next_frame().map_err(|e| TestCaseError::fail(e.to_string()))? {
                    let mut bytes = header.encode().to_vec();
                    bytes.extend_from_slice(body);
                    got.push(bytes);
                }
                if reader.fill(&socket, true).map_err(|e| TestCaseError::fail(e.to_string()))? == 0 {
                    break;
                }
            }
            let wanted: Vec<Vec<u8>> = lengths.iter().enumerate().map(|(i, length)| frame(*length, i as u64)).collect();
            prop_assert_eq!(got, wanted);
            prop_assert!(writer.join().is_ok());
        }
    }
}
