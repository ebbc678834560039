//! libnetmem.so: what lives inside the program.
//!
//! RULES OF THE HOUSE (comments and reviews cite the number)
//!
//! 1. We are a guest: never the program's heap, its locks, its stdio; never outlive its exit.
//! 2. A call that is not ours is one comparison and the call itself: same result, same errno.
//! 3. A call that is ours and can't be honoured fails early and says so.
//! 4. Application memory is never touched with a lock or a claim held, and never through a reference.
//! 5. Every lock blocks signals while it is held ([`sync::QuietMutex`]); the order of locks is in docs/DESIGN.md.
//! 6. errno belongs to the program: only a hook that returns an error sets it.
//! 7. A page is present before it is accessible, and marked before it is writable.
//! 8. A failed commit puts its marks back before it returns.
//! 9. Nothing is logged above debug level on the way through a fault that succeeds.
//! 10. Each block of `unsafe` has its reason above it; `pager` and `remote` have none.
//!
//! The arrow: `abi ► host ► engine ► far ► pager ► remote ► sys ► kernel`. A module uses those to its right (and config, log, stats
//! and sync, which use only sys); the engine asks host for a handle by number. A test in tests/ holds it.

#![deny(unsafe_op_in_unsafe_fn)]

#[cfg(not(test))]
mod abi;
pub mod config;
pub mod engine;
pub mod far;
pub mod host;
pub mod log;
pub mod pager;
pub mod remote;
pub mod stats;
pub mod sync;
pub mod sys;

#[cfg(not(test))]
#[global_allocator]
static HEAP: sys::alloc::PrivateHeap = sys::alloc::PrivateHeap::new();
