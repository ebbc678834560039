//! A request that is refused, with the line that the client's user reads.
//!
//! Owns: the pair of code and text. Called by: everything that serves a request. Must not: know about frames.

use netmem_protocol::ErrorCode;
use thiserror::Error;

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{text}")]
pub struct Refusal {
    /// The code on the wire.
    pub code: ErrorCode,
    /// One line: the thing, and what to do.
    pub text: String,
}

impl Refusal {
    /// A refusal with a code and a line.
    pub fn new(code: ErrorCode, text: impl Into<String>) -> Self {
        Refusal { code, text: text.into() }
    }
}

/// What serving a request gives.
pub type Answer<T> = Result<T, Refusal>;
