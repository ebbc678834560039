//! The pager's own files, in every interleaving of two or three threads of two processes: no page is installed twice, late or over newer
//! bytes, and no store is forgotten.
//!
//! The files are the library's, compiled with atomics that loom schedules (see `src/lib.rs`); everything that they call outside is here: the
//! files of a region and its server in `world/files.rs` and `world/server.rs`, what is of the kernel's or of the library's other layers below.

extern crate netmem_shim_loom as core;

#[allow(dead_code, reason = "a part of it is checked here")]
#[path = "../../../src/pager"]
mod pager {
    pub mod bring_in;
    pub mod commit;
    pub mod entry;
    pub mod evict;
    pub mod flush;
    pub mod page;
    pub mod pending;
    pub mod region;
    pub mod size;
    pub mod table;
    pub mod view;

    pub use region::Region;
}

#[allow(dead_code, reason = "a part of it is checked here")]
#[path = "../../../src/remote"]
mod remote {
    pub mod error;
    pub mod source;

    pub use error::{Applied, CommitFailure, RemoteError};
    pub use source::{CommitBody, PageSink, PageSource, StageSink};
}

mod log {
    macro_rules! said { ($($arg:tt)*) => { println!($($arg)*) } }
    pub(crate) use said as debug;
    pub(crate) use said as error;
}

/// Nobody counts.
mod stats {
    pub static PAGES_PENDING: () = ();
    pub static PAGES_HOME: () = ();

    pub fn add(_: &(), _: u64) {}
}

mod sync {
    /// A lock between the threads of a process.
    pub struct QuietMutex<T>(loom::sync::Mutex<T>);

    impl<T> QuietMutex<T> {
        pub fn new(value: T) -> Self {
            QuietMutex(loom::sync::Mutex::new(value))
        }

        pub fn lock(&self) -> loom::sync::MutexGuard<'_, T> {
            self.0.lock().expect("nobody panics")
        }

        pub fn try_lock(&self) -> Option<loom::sync::MutexGuard<'_, T>> {
            self.0.try_lock().ok()
        }
    }
}

mod sys {
    pub mod clock {
        /// It never comes: who waits for ever is found by the model.
        #[derive(Clone, Copy, Debug)]
        pub struct Deadline;

        impl Deadline {
            pub fn after(_: Option<std::time::Duration>) -> Self {
                Deadline
            }

            pub fn passed(self) -> bool {
                false
            }
        }
    }

    pub mod errno {
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct Errno(pub i32);

        impl std::fmt::Display for Errno {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "errno {}", self.0)
            }
        }

        impl Errno {
            pub fn raw_os_error(self) -> i32 {
                self.0
            }
        }
    }

    pub mod net {
        #[allow(dead_code, reason = "there is no network")]
        pub enum NetError {
            Closed,
            TimedOut,
            Os(super::errno::Errno),
        }
    }

    pub mod signal {
        pub struct SignalMask;

        impl SignalMask {
            pub fn block_all() -> Self {
                SignalMask
            }
        }
    }
}

mod claims;
mod departures;
mod stores;
mod world;
