//! The command `netmem`, as a library: its client for the wire protocol, and its subcommands.
//!
//! Owns: the module list. Called by: `main.rs` and the workspace's black-box tests, which use [`client::Client`].
//! Must not: hold code. `unsafe` lives in `probe.rs` (system calls that no library wraps) and `private.rs` (what runs
//! between fork and exec) and `bench/memory.rs` (loads and stores in a mapping), and nowhere else.

#![deny(unsafe_code)]

pub mod activity;
pub mod args;
pub mod bench;
pub mod bulk;
pub mod client;
pub mod doctor;
pub mod error;
pub mod export;
pub mod facts;
pub mod link;
pub mod list;
pub mod private;
pub mod probe;
pub mod run;
pub mod scrub;
pub mod settings;
pub mod sites;
pub mod snapshot;
pub mod summary;
pub mod target;
pub mod top;
pub mod transfer;

#[cfg(test)]
mod lies;
