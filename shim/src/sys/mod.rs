//! The only place that talks to the kernel.
//!
//! Owns: raw system calls, memory that is shared with the kernel or with other processes, signals, descriptors. Called by:
//! engine, remote, abi, boot. Must not: know what a region is beyond bytes in files.
#![allow(unsafe_code)]

pub mod alloc;
pub mod apart;
pub mod app;
pub mod aside;
pub mod clock;
pub mod divert;
pub mod env;
pub mod errno;
pub mod fd;
pub mod file;
pub mod futex;
pub mod limit;
pub mod mem;
pub mod net;
pub mod own;
pub mod pagemap;
pub mod proc;
pub mod shm;
pub mod signal;
pub mod syscall;
pub mod take_out;
pub mod thread;
pub mod uffd;
