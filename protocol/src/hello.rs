//! The first exchange: 64 bytes each way, the same in every version to come.
//!
//! Owns: agreement on version, capabilities and limits. Called by: both peers, once a connection. Must not:
//! depend on bincode or on anything that may change. The bytes are pinned by `tests/golden.rs`.

use crate::error::ProtocolError;
use crate::ids::{CacheId, ClientId, StoreId};
use crate::{MAGIC, VERSION_MAX, VERSION_MIN};

/// Bytes in either hello.
pub const HELLO_BYTES: usize = 64;

/// What a client says first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientHello {
    /// Oldest protocol version it can speak.
    pub version_min: u16,
    /// Newest protocol version it can speak.
    pub version_max: u16,
    /// Capability bits: [`crate::activity::CAPABILITY_ACTIVITY`].
    pub capabilities: u64,
    /// The process.
    pub client: ClientId,
    /// The page cache it works on.
    pub cache: CacheId,
}

/// Whether the server takes the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum HelloStatus {
    /// It does.
    Welcome = 0,
    /// No version in common; `version_min` and `version_max` are the server's.
    Version = 1,
    /// As many connections as the server allows.
    TooManyConnections = 2,
    /// The server is shutting down.
    Closing = 3,
}

/// What the server answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerHello {
    /// Whether the connection stands.
    pub status: HelloStatus,
    /// Oldest version the server speaks.
    pub version_min: u16,
    /// Newest version the server speaks; the connection uses the lower of both newest.
    pub version_max: u16,
    /// Capability bits that both have.
    pub capabilities: u64,
    /// The store behind the server.
    pub store: StoreId,
    /// Bytes of body the server accepts in one frame.
    pub frame_body_max: u32,
    /// Bytes the server allows in a region.
    pub region_bytes_max: u64,
    /// This run of the server: another number than before means that it was restarted, and knows of no holds. 0: it does not say.
    pub instance: u64,
}

fn u16_at(bytes: &[u8; HELLO_BYTES], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u64_at(bytes: &[u8; HELLO_BYTES], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

fn id_at(bytes: &[u8; HELLO_BYTES], at: usize) -> [u8; 16] {
    let mut id = [0; 16];
    id.copy_from_slice(&bytes[at..at + 16]);
    id
}

fn check_magic(bytes: &[u8; HELLO_BYTES]) -> Result<(), ProtocolError> {
    let mut magic = [0; 8];
    magic.copy_from_slice(&bytes[..8]);
    if magic == MAGIC { Ok(()) } else { Err(ProtocolError::NotNetmem(magic)) }
}

impl ClientHello {
    /// The hello of this build.
    pub fn new(client: ClientId, cache: CacheId) -> Self {
        ClientHello { version_min: VERSION_MIN, version_max: VERSION_MAX, capabilities: 0, client, cache }
    }

    /// Its bytes: magic 8, version_min 2, version_max 2, zero 4, capabilities 8, client 16, cache 16, zero 8.
    pub fn encode(&self) -> [u8; HELLO_BYTES] {
        let mut out = [0; HELLO_BYTES];
        out[..8].copy_from_slice(&MAGIC);
        out[8..10].copy_from_slice(&self.version_min.to_le_bytes());
        out[10..12].copy_from_slice(&self.version_max.to_le_bytes());
        out[16..24].copy_from_slice(&self.capabilities.to_le_bytes());
        out[24..40].copy_from_slice(&self.client.0);
        out[40..56].copy_from_slice(&self.cache.0);
        out
    }

    /// Reads a hello. Unknown bits are kept, so that a newer client can be answered.
    pub fn decode(bytes: &[u8; HELLO_BYTES]) -> Result<Self, ProtocolError> {
        check_magic(bytes)?;
        let hello = ClientHello {
            version_min: u16_at(bytes, 8),
            version_max: u16_at(bytes, 10),
            capabilities: u64_at(bytes, 16),
            client: ClientId(id_at(bytes, 24)),
            cache: CacheId(id_at(bytes, 40)),
        };
        if hello.version_min > hello.version_max {
            return Err(ProtocolError::Malformed { what: "hello: versions" });
        }
        Ok(hello)
    }

    /// Whether this build shares a version with the client.
    pub fn version_agrees(&self) -> bool {
        self.version_min <= VERSION_MAX && self.version_max >= VERSION_MIN
    }
}

impl ServerHello {
    /// Its bytes: magic 8, version_min 2, version_max 2, status 2, zero 2, capabilities 8, store 16, frame_body_max 4,
    /// zero 4, region_bytes_max 8, instance 8.
    pub fn encode(&self) -> [u8; HELLO_BYTES] {
        let mut out = [0; HELLO_BYTES];
        out[..8].copy_from_slice(&MAGIC);
        out[8..10].copy_from_slice(&self.version_min.to_le_bytes());
        out[10..12].copy_from_slice(&self.version_max.to_le_bytes());
        out[12..14].copy_from_slice(&(self.status as u16).to_le_bytes());
        out[16..24].copy_from_slice(&self.capabilities.to_le_bytes());
        out[24..40].copy_from_slice(&self.store.0);
        out[40..44].copy_from_slice(&self.frame_body_max.to_le_bytes());
        out[48..56].copy_from_slice(&self.region_bytes_max.to_le_bytes());
        out[56..64].copy_from_slice(&self.instance.to_le_bytes());
        out
    }

    /// Reads a hello and refuses one without a version in common.
    pub fn decode(bytes: &[u8; HELLO_BYTES]) -> Result<Self, ProtocolError> {
        check_magic(bytes)?;
        let (version_min, version_max) = (u16_at(bytes, 8), u16_at(bytes, 10));
        let status = match u16_at(bytes, 12) {
            0 => HelloStatus::Welcome,
            1 => HelloStatus::Version,
            2 => HelloStatus::TooManyConnections,
            3 => HelloStatus::Closing,
            _ => return Err(ProtocolError::Malformed { what: "hello: status" }),
        };
        let apart = version_min > VERSION_MAX || version_max < VERSION_MIN;
        if apart || status == HelloStatus::Version {
            return Err(ProtocolError::Version {
                peer_min: version_min,
                peer_max: version_max,
                our_min: VERSION_MIN,
                our_max: VERSION_MAX,
            });
        }
        let mut frame = [0; 4];
        frame.copy_from_slice(&bytes[40..44]);
        Ok(ServerHello {
            status,
            version_min,
            version_max,
            capabilities: u64_at(bytes, 16),
            store: StoreId(id_at(bytes, 24)),
            frame_body_max: u32::from_le_bytes(frame),
            region_bytes_max: u64_at(bytes, 48),
            instance: u64_at(bytes, 56),
        })
    }
}
