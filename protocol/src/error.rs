//! Errors, by what the one who gets them should do.
//!
//! Owns: error codes and their errno. Called by: both peers. Must not: format for a particular user.

use thiserror::Error;

/// Why a server refuses a request. The numbers are on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum ErrorCode {
    /// No such name, region or commit.
    NotFound = 1,
    /// The name is there.
    Exists = 2,
    /// The directory has entries.
    NotEmpty = 3,
    /// A directory where a region was wanted.
    IsDirectory = 4,
    /// A region where a directory was wanted.
    NotDirectory = 5,
    /// A name that no region can have.
    NameInvalid = 6,
    /// A name, or one of its components, is too long.
    NameTooLong = 7,
    /// The store is full.
    Full = 8,
    /// The region would be larger than the server allows.
    TooLarge = 9,
    /// More regions than the server allows.
    TooManyRegions = 10,
    /// The epoch is no longer there, or the commit's base changed under a strict commit.
    Stale = 11,
    /// The request makes no sense.
    Malformed = 12,
    /// The server does not know the request.
    Unsupported = 13,
    /// The server is shutting down.
    Closing = 14,
    /// The server failed.
    Internal = 15,
    /// The request's arguments are out of range.
    Invalid = 16,
    /// A symbolic link is in the way and has to be followed, or too many are.
    Link = 17,
    /// The region has as many names as it can have.
    TooManyLinks = 18,
    /// A snapshot, which does not change.
    ReadOnly = 19,
    /// A page came with other bytes than its checksum is of.
    Corrupt = 20,
    /// A commit's base is older than what the same page cache has committed.
    Behind = 21,
}

impl ErrorCode {
    /// All codes.
    pub const ALL: [ErrorCode; 21] = [
        ErrorCode::NotFound,
        ErrorCode::Exists,
        ErrorCode::NotEmpty,
        ErrorCode::IsDirectory,
        ErrorCode::NotDirectory,
        ErrorCode::NameInvalid,
        ErrorCode::NameTooLong,
        ErrorCode::Full,
        ErrorCode::TooLarge,
        ErrorCode::TooManyRegions,
        ErrorCode::Stale,
        ErrorCode::Malformed,
        ErrorCode::Unsupported,
        ErrorCode::Closing,
        ErrorCode::Internal,
        ErrorCode::Invalid,
        ErrorCode::Link,
        ErrorCode::TooManyLinks,
        ErrorCode::ReadOnly,
        ErrorCode::Corrupt,
        ErrorCode::Behind,
    ];

    /// The code with this number, `Internal` for one that a newer server may have.
    pub fn from_wire(number: u16) -> ErrorCode {
        ErrorCode::ALL.into_iter().find(|code| *code as u16 == number).unwrap_or(ErrorCode::Internal)
    }

    /// What the one who asked should do.
    pub const fn disposition(self) -> Disposition {
        match self {
            ErrorCode::Closing | ErrorCode::Corrupt => Disposition::Reconnect,
            ErrorCode::Malformed | ErrorCode::Unsupported => Disposition::Fatal,
            ErrorCode::NotFound
            | ErrorCode::Exists
            | ErrorCode::NotEmpty
            | ErrorCode::IsDirectory
            | ErrorCode::NotDirectory
            | ErrorCode::NameInvalid
            | ErrorCode::NameTooLong
            | ErrorCode::Full
            | ErrorCode::TooLarge
            | ErrorCode::TooManyRegions
            | ErrorCode::Stale
            | ErrorCode::Behind
            | ErrorCode::Internal
            | ErrorCode::Invalid
            | ErrorCode::Link
            | ErrorCode::TooManyLinks
            | ErrorCode::ReadOnly => Disposition::Answer,
        }
    }

    /// The Linux errno (x86-64 and aarch64 agree) that the kernel gives for the like.
    pub const fn errno(self) -> i32 {
        match self {
            ErrorCode::NotFound => 2,                    // ENOENT
            ErrorCode::Exists => 17,                     // EEXIST
            ErrorCode::NotEmpty => 39,                   // ENOTEMPTY
            ErrorCode::IsDirectory => 21,                // EISDIR
            ErrorCode::NotDirectory => 20,               // ENOTDIR
            ErrorCode::NameInvalid => 22,                // EINVAL
            ErrorCode::NameTooLong => 36,                // ENAMETOOLONG
            ErrorCode::Full => 28,                       // ENOSPC
            ErrorCode::TooLarge => 27,                   // EFBIG
            ErrorCode::TooManyRegions => 28,             // ENOSPC
            ErrorCode::Stale | ErrorCode::Behind => 116, // ESTALE
            ErrorCode::Malformed => 71,                  // EPROTO
            ErrorCode::Unsupported => 95,                // EOPNOTSUPP
            ErrorCode::Closing => 5,                     // EIO
            ErrorCode::Internal => 5,                    // EIO
            ErrorCode::Invalid => 22,                    // EINVAL
            ErrorCode::Link => 40,                       // ELOOP
            ErrorCode::TooManyLinks => 31,               // EMLINK
            ErrorCode::ReadOnly => 30,                   // EROFS
            ErrorCode::Corrupt => 5,                     // EIO
        }
    }
}

/// What to do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// Hand it to the one who asked; the connection is fine.
    Answer,
    /// Drop the connection, make a new one, ask again.
    Reconnect,
    /// Drop the connection; asking again would end the same way.
    Fatal,
}

/// Bytes that are not what the protocol says.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ProtocolError {
    /// The peer does not speak netmem.
    #[error("the peer does not speak netmem (its first bytes are {0:02x?})")]
    NotNetmem([u8; 8]),
    /// No version in common.
    #[error("the peer speaks protocol versions {peer_min} to {peer_max}, this side {our_min} to {our_max}")]
    Version {
        /// The peer's oldest.
        peer_min: u16,
        /// The peer's newest.
        peer_max: u16,
        /// Our oldest.
        our_min: u16,
        /// Our newest.
        our_max: u16,
    },
    /// A frame is longer than allowed.
    #[error("a frame of {length} bytes is over the limit of {limit}")]
    FrameTooLong {
        /// Bytes of body the header announced.
        length: u32,
        /// Bytes allowed.
        limit: u32,
    },
    /// A body does not decode, or is not of the length its parts say.
    #[error("malformed {what}")]
    Malformed {
        /// The part that is wrong.
        what: &'static str,
    },
    /// The bytes of a page are not those that its checksum is of.
    #[error("page {page} was changed on its way: its checksum is another")]
    Corrupt {
        /// Which page.
        page: u64,
    },
    /// A frame that does not belong here.
    #[error("unexpected message kind {kind:#06x}")]
    UnexpectedKind {
        /// Its number.
        kind: u16,
    },
}
