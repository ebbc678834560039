//! Faults of the uffd rungs that someone waits in.
//!
//! Owns: what is kept of one. Called by: uffd_thread. Must not: know how a page comes.

use core::cell::Cell;
use std::time::Instant;

use super::sites::{self, Place, Wait};
use crate::host::Runtime;
use crate::sys::clock::Deadline;
use crate::sys::errno::Errno;

/// A fault that someone waits in.
#[derive(Clone, Copy)]
pub(super) struct Pending {
    pub(super) address: usize,
    pub(super) waits: Waits,
    pub(super) deadline: Deadline,
}

/// Since when someone waits, and where in the program.
#[derive(Clone, Copy)]
pub(super) struct Waits {
    began: Instant,
    place: Option<Place>,
}

impl Waits {
    /// The wait is over.
    pub(super) fn end(self) {
        crate::stats::FAULT_TIME.note(self.began);
        if let Some(place) = self.place {
            sites::note(Wait::Touch, place, self.began);
        }
    }
}

impl Pending {
    /// One that has just been heard of; `thread`: who took it, if that is known.
    pub(super) fn now(address: usize, thread: u32, runtime: &Runtime) -> Self {
        let began = Instant::now();
        let waits = Waits { began, place: sites::of_thread(thread) };
        Pending { address, waits, deadline: Deadline::since(began, runtime.config.timeout) }
    }
}

/// A page that this thread itself waits for.
pub(super) struct Touched {
    pub(super) address: usize,
    /// Why it can't be had.
    pub(super) lost: Cell<Option<Errno>>,
}

impl Touched {
    /// The page at an address.
    pub(super) fn new(address: usize) -> Self {
        Touched { address, lost: Cell::new(None) }
    }
}
