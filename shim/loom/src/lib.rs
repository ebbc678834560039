//! A `core` whose 64-bit atomics loom can schedule: a test that says `extern crate netmem_shim_loom as core` compiles files of the library as
//! they are, and runs them in every interleaving.
//!
//! Owns: which atomics take part, and what their orderings mean. Called by: the tests beside it. Must not: be stricter than the library's
//! memory: what only happens to hold on one kind of processor is to be found.

pub use core::*;

/// That of `core`, with other atomics.
pub mod sync {
    pub use core::sync::*;

    pub mod atomic;
}
