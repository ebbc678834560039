//! Errors, as one line a person can act on.
//!
//! Owns: [`ClientError`] (what went wrong with a server) and [`Failure`] (what a command prints before it ends).
//! Called by: the whole crate. Must not: print; and it never passes a peer's control characters to a terminal.

use std::fmt;
use std::io::{self, ErrorKind};
use std::time::Duration;

use netmem_protocol::{ErrorCode, HelloStatus, ProtocolError};
use thiserror::Error;

use crate::link::ServerAddress;

/// Why a request did not get its answer. Every variant names the server.
#[derive(Debug, Error)]
pub enum ClientError {
    /// The address can't be read.
    #[error("{0}")]
    Address(String),
    /// No connection.
    #[error("{server}: {}; {}", describe_io(.source), advise_connect(.source, .server))]
    Connect {
        /// The server.
        server: ServerAddress,
        /// Why.
        source: io::Error,
    },
    /// The server's hello says no.
    #[error("{server}: {}", describe_refusal(*.status))]
    Refused {
        /// The server.
        server: ServerAddress,
        /// What it said.
        status: HelloStatus,
    },
    /// Bytes that are not the protocol.
    #[error("{server}: {source}; {}", advise_protocol(.source))]
    Protocol {
        /// The server.
        server: ServerAddress,
        /// What is wrong with them.
        source: ProtocolError,
    },
    /// A well-formed answer that can't be true.
    #[error("{server}: the server {what}; this is a bug in it, or it is not netmem-server")]
    Lie {
        /// The server.
        server: ServerAddress,
        /// What it claims.
        what: String,
    },
    /// No answer in time.
    #[error(
        "{server}: no answer to {what} within {} ms; see whether the server is alive (netmem doctor), or raise NETMEM_TIMEOUT_MS",
        .after.as_millis()
    )]
    Timeout {
        /// The server.
        server: ServerAddress,
        /// What was asked.
        what: &'static str,
        /// How long it was waited for.
        after: Duration,
    },
    /// The connection ended.
    #[error("{server}: connection lost during {what} ({}); see whether the server is running, then try again", describe_io(.source))]
    Lost {
        /// The server.
        server: ServerAddress,
        /// What was asked.
        what: &'static str,
        /// How it ended.
        source: io::Error,
    },
    /// The connection ended earlier, and was used again.
    #[error("{server}: this connection failed before; connect again")]
    Broken {
        /// The server.
        server: ServerAddress,
    },
    /// The server answered with an error. The connection is fine.
    #[error("{}", printable(.text))]
    Answer {
        /// The code.
        code: ErrorCode,
        /// The server's line: the thing, and what to do.
        text: String,
    },
    /// A request that this client does not send.
    #[error("{0}")]
    Request(String),
}

impl ClientError {
    /// The code, if the server answered with one.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            ClientError::Answer { code, .. } => Some(*code),
            _ => None,
        }
    }
}

/// An error's text without Rust's "(os error N)".
pub fn describe_io(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => {
            let text = nix::errno::Errno::from_raw(number).desc().to_string();
            let mut letters = text.chars();
            match (letters.next(), letters.as_str()) {
                (Some(first), rest) if rest.chars().next().is_some_and(char::is_lowercase) => {
                    first.to_lowercase().chain(rest.chars()).collect()
                }
                _ => text,
            }
        }
        None if error.kind() == ErrorKind::UnexpectedEof => "closed by the server".to_owned(),
        None if error.kind() == ErrorKind::TimedOut => "connection timed out".to_owned(),
        // Libraries wrap errors to add a path; the line has its own name for the file.
        None if error.kind() == ErrorKind::NotFound && error.to_string().contains("os error") => {
            "no such file or directory".to_owned()
        }
        None if error.kind() == ErrorKind::PermissionDenied => "permission denied".to_owned(),
        None => printable(&error.to_string()),
    }
}

/// The text with control characters escaped: what a peer or a file says never drives the terminal.
pub fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        if letter.is_control() {
            out.extend(letter.escape_default());
        } else {
            out.push(letter);
        }
    }
    out
}

fn advise_connect(error: &io::Error, server: &ServerAddress) -> String {
    match (error.kind(), server) {
        (ErrorKind::PermissionDenied, ServerAddress::Unix(_)) => {
            "run as the server's user, or have it open the socket to you".to_owned()
        }
        _ => "start netmem-server or set NETMEM_SERVER".to_owned(),
    }
}

fn advise_protocol(error: &ProtocolError) -> &'static str {
    match error {
        ProtocolError::NotNetmem(_) => "something else listens there: correct --server or NETMEM_SERVER",
        ProtocolError::Version { .. } => "install the same netmem release on both machines",
        ProtocolError::Corrupt { .. } => "try again; if it stays, the network or a memory changes bits",
        ProtocolError::FrameTooLong { .. }
        | ProtocolError::Malformed { .. }
        | ProtocolError::UnexpectedKind { .. } => "this is a bug in the server, or it is not netmem-server",
    }
}

fn describe_refusal(status: HelloStatus) -> &'static str {
    match status {
        HelloStatus::TooManyConnections => {
            "the server has as many connections as it allows; close some, or raise its limit"
        }
        HelloStatus::Closing => "the server is shutting down; start it again, then retry",
        HelloStatus::Version => {
            "the server speaks no common version; install the same netmem release on both machines"
        }
        HelloStatus::Welcome => "the server said welcome and refused",
    }
}

/// Why a command ends: a line for standard error and an exit status.
#[derive(Debug)]
pub struct Failure {
    /// `NAME: why; what to do`, without the leading `netmem: `.
    pub line: String,
    /// The exit status.
    pub status: u8,
}

impl Failure {
    /// Exit status 1, with the three parts of a good line.
    pub fn new(name: impl fmt::Display, why: impl fmt::Display, what_to_do: impl fmt::Display) -> Self {
        Failure { line: format!("{}: {why}; {what_to_do}", printable(&name.to_string())), status: 1 }
    }

    /// The same with another exit status.
    #[must_use]
    pub fn with_status(mut self, status: u8) -> Self {
        self.status = status;
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "netmem: {}", self.line)
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        Failure { line: error.to_string(), status: 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::{ClientError, describe_io, printable};
    use std::io;

    #[test]
    fn a_refused_connection_names_the_server_and_what_to_do() {
        let error = ClientError::Connect {
            server: "tcp://127.0.0.1:7117".parse().unwrap(),
            source: io::Error::from_raw_os_error(libc::ECONNREFUSED),
        };
        assert_eq!(
            error.to_string(),
            "tcp://127.0.0.1:7117: connection refused; start netmem-server or set NETMEM_SERVER"
        );
    }

    #[test]
    fn an_acronym_keeps_its_capitals_and_a_sentence_loses_its_first() {
        assert_eq!(describe_io(&io::Error::from_raw_os_error(libc::EIO)), "I/O error");
        assert_eq!(describe_io(&io::Error::from_raw_os_error(libc::ENOENT)), "no such file or directory");
    }

    #[test]
    fn a_peer_cannot_drive_the_terminal() {
        assert_eq!(printable("a\x1b[2Jb\n"), "a\\u{1b}[2Jb\\n");
    }
}
