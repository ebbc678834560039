//! What can go wrong between us and the server, by what the caller should do.
//!
//! Owns: the classification, its errno and its one line of text. Called by: everything that talks to the server. Must not:
//! decide to retry; by the time one of these is made, all retries are over.

use std::sync::Arc;
use std::time::Duration;

use netmem_protocol::{CommitId, ErrorCode, HelloStatus, ProtocolError, StoreId};
use thiserror::Error;

use crate::sys::net::NetError;

const EIO: i32 = 5;
const ESTALE: i32 = 116;

/// A request that failed for good.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RemoteError {
    /// The server answered, and the answer is no.
    #[error("the server answers: {text}")]
    Answer {
        /// Why.
        code: ErrorCode,
        /// The server's line.
        text: String,
    },
    /// No connection could be made.
    #[error("{server}: {why} (waited {} ms); start netmem-server there or set NETMEM_SERVER", waited.as_millis())]
    Unreachable {
        /// Its URL.
        server: Arc<str>,
        /// What the last attempt said.
        why: Why,
        /// For how long it was tried.
        waited: Duration,
    },
    /// The connection stands, and no answer came in time.
    #[error("{server}: no answer for {} ms; look whether the server is overloaded, or raise NETMEM_TIMEOUT_MS", waited.as_millis())]
    TimedOut {
        /// Its URL.
        server: Arc<str>,
        /// For how long it was waited for.
        waited: Duration,
    },
    /// The connection broke, and the request is one that must not simply be sent again.
    #[error("{server}: {why} {}", match answered {
        Applied::No => "before the request was complete; ask again",
        Applied::Maybe => "before the answer came; the request may have been carried out",
    })]
    Lost {
        /// Its URL.
        server: Arc<str>,
        /// What broke it.
        why: Why,
        /// Whether the server can have done it.
        answered: Applied,
    },
    /// The peer says things that the protocol does not allow.
    #[error("{server}: {error}; look whether this is a netmem-server of a version that fits")]
    Protocol {
        /// Its URL.
        server: Arc<str>,
        /// What.
        error: ProtocolError,
    },
    /// The server is there and does not take us.
    #[error("{server}: {}", match status {
        HelloStatus::TooManyConnections => "it has as many connections as it allows; raise its limit or stop a client",
        HelloStatus::Closing => "it is shutting down; start it again",
        HelloStatus::Version => "it speaks no protocol version that we speak; use the same release on both sides",
        HelloStatus::Welcome => "it welcomed us and did not mean it",
    })]
    Refused {
        /// Its URL.
        server: Arc<str>,
        /// What it said.
        status: HelloStatus,
    },
    /// The server came back with another store: what was committed to the first one is not there.
    #[error("{server}: the server lost its memory (store {first} became {now}); restart this program")]
    StoreChanged {
        /// Its URL.
        server: Arc<str>,
        /// The store of our first connection.
        first: StoreId,
        /// The store that is there now.
        now: StoreId,
    },
}

impl RemoteError {
    /// The errno for the program.
    pub fn errno(&self) -> i32 {
        match self {
            RemoteError::Answer { code, .. } => code.errno(),
            RemoteError::StoreChanged { .. } => ESTALE,
            RemoteError::Unreachable { .. }
            | RemoteError::TimedOut { .. }
            | RemoteError::Lost { .. }
            | RemoteError::Protocol { .. }
            | RemoteError::Refused { .. } => EIO,
        }
    }

    /// The server's code, if it is the server that refused.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            RemoteError::Answer { code, .. } => Some(*code),
            RemoteError::Unreachable { .. }
            | RemoteError::TimedOut { .. }
            | RemoteError::Lost { .. }
            | RemoteError::Protocol { .. }
            | RemoteError::Refused { .. }
            | RemoteError::StoreChanged { .. } => None,
        }
    }
}

/// Whether a request whose answer was lost can have been carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// It can't: the server never had all of it.
    No,
    /// It can: ask (`commit_status`).
    Maybe,
}

/// A commit that was not acknowledged.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{error}")]
pub struct CommitFailure {
    /// What went wrong.
    pub error: RemoteError,
    /// The commit, to ask after it.
    pub id: CommitId,
    /// Whether asking makes sense.
    pub applied: Applied,
}

/// What broke a connection, or kept it from being made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// The peer ended it.
    Closed,
    /// Nothing came.
    Silent,
    /// All our connections were in use.
    Busy,
    /// The kernel's errno.
    Os(i32),
    /// No address is known for the host.
    NoAddress,
    /// A page came with other bytes than its checksum is of.
    Corrupt(u64),
}

impl From<NetError> for Why {
    fn from(error: NetError) -> Self {
        match error {
            NetError::Closed => Why::Closed,
            NetError::TimedOut => Why::Silent,
            NetError::Os(errno) => Why::Os(errno.raw_os_error()),
        }
    }
}

impl core::fmt::Display for Why {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let text = match self {
            Why::Closed => "the connection was closed",
            Why::Silent => "nothing answers",
            Why::Busy => "all connections are in use",
            Why::Corrupt(page) => return write!(f, "page {page} is changed on its way, again and again"),
            Why::NoAddress => {
                "the host name is in no hosts file; write its address, such as tcp://192.0.2.1:7117"
            }
            Why::Os(2) => "there is no such socket",
            Why::Os(13) => "permission denied",
            Why::Os(23 | 24) => "no descriptor is free",
            Why::Os(36) => "the socket's path is too long",
            Why::Os(101) => "network unreachable",
            Why::Os(104) => "connection reset",
            Why::Os(110) => "connection timed out",
            Why::Os(111) => "connection refused",
            Why::Os(113) => "no route to host",
            Why::Os(errno) => return write!(f, "errno {errno}"),
        };
        f.write_str(text)
    }
}
