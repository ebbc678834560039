//! The exchange of hellos.
//!
//! Owns: what this server can do besides its version. Called by: session, and listen for connections that are refused. Must not: wait longer
//! than for a hello.

use std::io::{self, ErrorKind, IoSlice};
use std::net::Shutdown;
use std::time::Instant;

use netmem_protocol::activity::CAPABILITY_ACTIVITY;
use netmem_protocol::hello::HELLO_BYTES;
use netmem_protocol::{
    CAPABILITY_PACKED, CAPABILITY_SUMS, ClientHello, HelloStatus, ServerHello, VERSION_MAX, VERSION_MIN,
};

use crate::region::Who;
use crate::requests::Shared;
use crate::wire::Socket;

/// What this server can do, where the client can do it as well.
const CAPABILITIES: u64 = CAPABILITY_ACTIVITY | CAPABILITY_SUMS | CAPABILITY_PACKED;

/// Reads the hello and answers it. Returns who it is, and the capabilities that both have; `None`: the connection is over.
pub fn greet(shared: &Shared, socket: &Socket, status: HelloStatus) -> io::Result<Option<(Who, u64)>> {
    let mut bytes = [0; HELLO_BYTES];
    read_by(socket, &mut bytes, Instant::now() + shared.hello_timeout)?;
    let hello = match ClientHello::decode(&bytes) {
        Ok(hello) => hello,
        Err(error) => {
            tracing::info!("a connection was dropped: {error}");
            return Ok(None);
        }
    };
    let status = if hello.version_agrees() { status } else { HelloStatus::Version };
    let answer = ServerHello {
        status,
        version_min: VERSION_MIN,
        version_max: VERSION_MAX,
        capabilities: hello.capabilities & CAPABILITIES,
        store: shared.store.id(),
        frame_body_max: shared.limits.frame_body,
        region_bytes_max: shared.limits.region_bytes,
        instance: shared.instance,
    };
    socket.write_all(&mut [IoSlice::new(&answer.encode())])?;
    if status != HelloStatus::Welcome {
        tracing::info!(client = %hello.client, ?status, "a connection was refused");
        socket.shutdown(Shutdown::Write);
        return Ok(None);
    }
    socket.set_read_timeout(None)?;
    Ok(Some((Who { client: hello.client, cache: hello.cache }, answer.capabilities)))
}

/// Fills `bytes` before the deadline, however slowly they come.
fn read_by(socket: &Socket, mut bytes: &mut [u8], deadline: Instant) -> io::Result<()> {
    while !bytes.is_empty() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        socket.set_read_timeout(Some(left))?;
        match socket.read(bytes, true)? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            read => bytes = &mut bytes[read..],
        }
    }
    Ok(())
}
