//! The program's side: what libc's names mean here.
//!
//! Owns: the exported symbols and the operations behind them, a file a family. Called by: the program. Must not: hold state
//! that host does not own.
#![allow(clippy::missing_safety_doc)]

mod advice;
mod asynchronous;
mod boot;
mod buffers;
mod capi;
mod daemons;
mod exec;
mod exports;
mod file;
mod follow;
mod fork;
#[cfg(all(target_arch = "x86_64", target_env = "gnu"))]
mod inner;
#[cfg(not(all(target_arch = "x86_64", target_env = "gnu")))]
mod inner {
    //! Of another libc, or on another machine, nothing is heard of what malloc takes.
    pub fn divert() {}
}
mod links;
mod loader;
mod lock;
mod map;
mod masks;
mod messages;
mod outcome;
mod path;
mod private;
mod process;
mod range;
mod reading;
mod remap;
mod requests;
mod residence;
mod resolve;
mod signal;
mod spawn;
mod status;
mod stdio;
mod temporary;
mod transfer;
mod trees;
mod walk;
mod worker;
