//! The command `netmem`, as a library: its client for the wire protocol, and its subcommands.
//!
//! Owns: the module list. Called by: `main.rs` and the workspace's black-box tests, which use [`client::Client`].
//! Must not: hold code. `unsafe` lives in `probe.rs` (system calls that no library wraps) and nowhere else.

#![deny(unsafe_code)]

pub mod bulk;
pub mod client;
pub mod error;
pub mod link;

#[cfg(test)]
mod lies;
