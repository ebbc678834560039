//! Which pages a region needs, has, and owes the server.
//!
//! Owns: page states, dirty sets, bringing in, commits, views, sizes. Called by: abi and the engines. Must not: make system
//! calls or use `unsafe`: everything outside is behind [`Board`], [`Frames`] and [`crate::remote::PageSource`], each with a fake.
#![forbid(unsafe_code)]

pub mod bring_in;
pub mod commit;
pub mod entry;
pub mod evict;
#[cfg(test)]
mod evict_tests;
#[cfg(test)]
pub mod fake;
pub mod flush;
#[cfg(test)]
mod hosts_tests;
pub mod page;
pub mod pending;
#[cfg(test)]
mod pending_tests;
#[cfg(test)]
mod policy_tests;
pub mod prefetch;
pub mod region;
pub mod size;
pub mod table;
#[cfg(test)]
mod tests;
pub mod view;

pub use region::{PagerError, Region};
pub use table::{Board, Frames};
