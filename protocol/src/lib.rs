//! The messages that netmem clients and servers exchange.
//!
//! Owns: every byte that crosses the wire, and every limit on it. Called by: the shim, the server, the
//! command line. Must not: do I/O, hold state, use `unsafe`.
//!
//! A connection starts with one [`ClientHello`] and one [`ServerHello`] of 64 bytes each. After that both
//! sides send frames: a [`Header`] of 32 bytes and a body of `header.length` bytes. Control bodies are serde
//! types in bincode ([`control`]); page bodies are raw ([`pages`]).

#![forbid(unsafe_code)]

pub mod activity;
pub mod codec;
pub mod control;
pub mod error;
pub mod hello;
pub mod ids;
pub mod message;
pub mod name;
pub mod packed;
pub mod pages;
mod pending;

pub use codec::{FrameParser, Header, decode_body, encode_frame};
pub use error::{Disposition, ErrorCode, ProtocolError};
pub use hello::{ClientHello, HelloStatus, ServerHello};
pub use ids::{CacheId, ClientId, CommitId, Epoch, PageIndex, RegionId, RequestId, Run, StoreId};
pub use message::Kind;
pub use name::RegionName;
pub use packed::{CAPABILITY_PACKED, FLAG_PACKED, Packer, unpack};
pub use pages::{CAPABILITY_SUMS, PageBody, PageBodyBuilder, PageSpan, RunKind, WireRun, page_sum};

/// Bytes in a page: the unit of fetching, dirtiness and storage.
pub const PAGE_SIZE: usize = 4096;

/// The first eight bytes of both hellos.
pub const MAGIC: [u8; 8] = *b"NETMEM\r\n";

/// What changed in the protocol, oldest first. The newest one is what we speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u16)]
pub enum Version {
    /// 0.1.0: namespace, fetch at an epoch, staged commits, changes between epochs.
    V1 = 1,
    /// Symbolic links, several names for one region. V1 is no longer spoken: its entries can't say either.
    V2 = 2,
}

/// The oldest version this build can speak.
pub const VERSION_MIN: u16 = Version::V2 as u16;
/// The newest version this build can speak.
pub const VERSION_MAX: u16 = Version::V2 as u16;

/// Pages in one `Fetch` or one `Stage` at the most. 256 × 4 KiB = 1 MiB of data in a frame.
pub const FRAME_PAGES_MAX: u32 = 256;
/// Runs in one `Fetch`, `Pages` or `Stage` at the most: each run has at least one page.
pub const FRAME_RUNS_MAX: u32 = FRAME_PAGES_MAX;
/// Bytes of body in one frame at the most: a full page frame, 16 + 256 × 16 + 256 × 8 + 256 × 4096 = 1,054,736,
/// rounded up to leave room for control bodies.
pub const FRAME_BODY_MAX: u32 = 1_114_112;
/// Pages in one `StageFrom` at the most: 16 MiB of which none are on the wire.
pub const STAGE_FROM_PAGES_MAX: u64 = 4096;
/// Regions in one commit at the most.
pub const COMMIT_REGIONS_MAX: usize = 64;
/// Bytes in a region's name at the most, `/` included (Linux PATH_MAX is 4096 with the prefix before it).
pub const NAME_BYTES_MAX: usize = 1024;
/// Bytes in one component of a name at the most (Linux NAME_MAX).
pub const COMPONENT_BYTES_MAX: usize = 255;
/// Bytes in the target of a symbolic link at the most (Linux PATH_MAX, less its NUL).
pub const TARGET_BYTES_MAX: usize = 4095;
/// Symbolic links that are followed in one path at the most (Linux MAXSYMLINKS).
pub const SYMLINKS_MAX: u32 = 40;
/// Names of one region at the most: 1,000 × (1,024 + 3) bytes fit into one answer.
pub const LINKS_MAX: usize = 1_000;
/// Bytes in a region at the most, unless the server sets less: 16 TiB = 2^32 pages.
pub const REGION_BYTES_MAX: u64 = 1 << 44;
/// Runs in one `Changes` answer at the most; beyond it neighbours are merged (a superset is harmless).
pub const CHANGES_RUNS_MAX: usize = 32_768;
/// Directory entries in one `List` answer at the most.
pub const LIST_ENTRIES_MAX: u32 = 512;
/// Bytes of targets in one `List` answer, beyond which it ends: 512 names and entries take less than 200 KiB besides.
pub const LIST_TARGET_BYTES: usize = 256 * 1024;
