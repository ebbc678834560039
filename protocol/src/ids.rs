//! Newtypes for everything that is a number, so that a page is never an offset and an epoch never a count.
//!
//! Owns: identity types. Called by: all crates. Must not: know about framing.

use serde::{Deserialize, Serialize};

use crate::PAGE_SIZE;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub u64);

        impl core::fmt::Display for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number!(
    /// A region, for as long as its store lives. Never reused. 0 is no region.
    RegionId
);
number!(
    /// The number of a region's newest commit. A new region is at epoch 1.
    Epoch
);
number!(
    /// The number a client gave to one request on one connection. 0 is never used.
    RequestId
);
number!(
    /// The number a client gave to one of its commits; grows with every attempt, over all its connections.
    CommitId
);
number!(
    /// A page of a region, counted from its start: byte offset / 4096.
    PageIndex
);

impl PageIndex {
    /// The page that holds byte `offset`.
    pub const fn containing(offset: u64) -> Self {
        PageIndex(offset / PAGE_SIZE as u64)
    }

    /// The first page that lies wholly at or behind byte `offset`: the number of pages that `offset` bytes take.
    pub const fn ceil(offset: u64) -> Self {
        PageIndex(offset.div_ceil(PAGE_SIZE as u64))
    }

    /// The page's first byte. Saturates at the end of the 64-bit space.
    pub const fn offset(self) -> u64 {
        self.0.saturating_mul(PAGE_SIZE as u64)
    }
}

macro_rules! identity {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub [u8; 16]);

        impl core::fmt::Display for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                for byte in self.0 {
                    write!(f, "{byte:02x}")?;
                }
                Ok(())
            }
        }
    };
}

identity!(
    /// A process that talks to a server, over all its connections. Random.
    ClientId
);
identity!(
    /// A host's page cache, shared by the processes of one user. Random, kept beside the cache.
    CacheId
);
identity!(
    /// A server's store. A memory store gets a new one at each start; a durable store keeps its own.
    StoreId
);

/// Consecutive pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Run {
    /// The first page.
    pub first: PageIndex,
    /// How many pages, at least 1 on the wire.
    pub count: u32,
}

impl Run {
    /// A run of `count` pages from page `first` on.
    pub const fn new(first: u64, count: u32) -> Self {
        Run { first: PageIndex(first), count }
    }

    /// The first page behind the run.
    pub const fn end(self) -> u64 {
        self.first.0 + self.count as u64
    }
}
