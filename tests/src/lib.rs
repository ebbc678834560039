//! What the black-box tests are made of: the real library, the real server, real programs, and a limit on every wait.
//!
//! Owns: the module list. Called by: tests/tests/*.rs. Must not: link the library or the server: they are built, and run
//! as files.
//!
//! A test waits for an answer, a line or an end, never for a time; what does not come in time fails with a picture of
//! every thread that was still there.

pub mod agent;
pub mod built;
pub mod cli;
pub mod dice;
pub mod engine;
pub mod far;
pub mod frames;
pub mod hang;
pub mod host;
pub mod initramfs;
pub mod kernel;
pub mod model;
pub mod proxy;
pub mod real;
pub mod run;
pub mod server;
pub mod skip;
pub mod source;
pub mod terminal;
pub mod vm;

pub use agent::Agent;
pub use engine::Engine;
pub use far::Far;
pub use host::Host;
pub use proxy::Proxy;
pub use run::{Output, Run};
pub use server::Server;
pub use terminal::Terminal;
