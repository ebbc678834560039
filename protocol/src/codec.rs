//! Frames: a header of 32 bytes, little-endian, and a body.
//!
//! Owns: turning bytes into headers and control bodies and back. Called by: both peers. Must not: read or write
//! anything; a caller feeds it bytes. Short input is `Ok(None)`, never an error.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::ProtocolError;
use crate::ids::{Epoch, RegionId, RequestId};

/// Bytes in a header.
pub const HEADER_BYTES: usize = 32;

/// The front of every frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Bytes of body behind the header.
    pub length: u32,
    /// The number of a [`crate::Kind`], with [`crate::message::ANSWER`] set in answers.
    pub kind: u16,
    /// [`crate::FLAG_PACKED`], or zero; a receiver ignores bits it does not know.
    pub flags: u16,
    /// Copied from the request into its answer.
    pub request: RequestId,
    /// The region, where the kind has one; else 0.
    pub region: RegionId,
    /// The epoch, where the kind has one; else 0.
    pub epoch: Epoch,
}

impl Header {
    /// Its bytes: length 4, kind 2, flags 2, request 8, region 8, epoch 8.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        out[..4].copy_from_slice(&self.length.to_le_bytes());
        out[4..6].copy_from_slice(&self.kind.to_le_bytes());
        out[6..8].copy_from_slice(&self.flags.to_le_bytes());
        out[8..16].copy_from_slice(&self.request.0.to_le_bytes());
        out[16..24].copy_from_slice(&self.region.0.to_le_bytes());
        out[24..32].copy_from_slice(&self.epoch.0.to_le_bytes());
        out
    }

    /// Reads a header and checks its length against `limit` before anyone allocates for it.
    pub fn decode(bytes: &[u8; HEADER_BYTES], limit: u32) -> Result<Self, ProtocolError> {
        let word = |at: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&bytes[at..at + 8]);
            u64::from_le_bytes(word)
        };
        let length = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        if length > limit {
            return Err(ProtocolError::FrameTooLong { length, limit });
        }
        Ok(Header {
            length,
            kind: u16::from_le_bytes([bytes[4], bytes[5]]),
            flags: u16::from_le_bytes([bytes[6], bytes[7]]),
            request: RequestId(word(8)),
            region: RegionId(word(16)),
            epoch: Epoch(word(24)),
        })
    }
}

/// Finds frames in a buffer that is still growing.
#[derive(Clone, Copy, Debug)]
pub struct FrameParser {
    /// Bytes of body allowed.
    pub limit: u32,
}

impl FrameParser {
    /// The first frame of `bytes`: its header and the bytes it takes altogether; `None` while it is not all there.
    pub fn peek(&self, bytes: &[u8]) -> Result<Option<(Header, usize)>, ProtocolError> {
        let Some(head) = bytes.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
        let header = Header::decode(head, self.limit)?;
        let total = HEADER_BYTES + header.length as usize;
        Ok((bytes.len() >= total).then_some((header, total)))
    }
}

fn config() -> impl bincode::config::Config {
    // The limit is on what decoding may allocate: a body that announces a longer string than a frame can hold is refused
    // before the string is made.
    bincode::config::standard().with_limit::<{ crate::FRAME_BODY_MAX as usize }>()
}

/// Appends a frame with a control body to `out` and fills in the header's length.
pub fn encode_frame<T: Serialize>(
    mut header: Header,
    body: &T,
    out: &mut Vec<u8>,
) -> Result<(), ProtocolError> {
    let start = out.len();
    out.extend_from_slice(&[0; HEADER_BYTES]);
    let encoded = bincode::serde::encode_to_vec(body, config())
        .map_err(|_| ProtocolError::Malformed { what: "control body to send" })?;
    header.length = u32::try_from(encoded.len()).unwrap_or(u32::MAX);
    if header.length > crate::FRAME_BODY_MAX {
        out.truncate(start);
        return Err(ProtocolError::FrameTooLong { length: header.length, limit: crate::FRAME_BODY_MAX });
    }
    out[start..start + HEADER_BYTES].copy_from_slice(&header.encode());
    out.extend_from_slice(&encoded);
    Ok(())
}

/// Reads a control body. Bytes behind it are an error: both sides speak the same version.
pub fn decode_body<T: DeserializeOwned>(bytes: &[u8], what: &'static str) -> Result<T, ProtocolError> {
    match bincode::serde::decode_from_slice(bytes, config()) {
        Ok((value, used)) if used == bytes.len() => Ok(value),
        Ok(_) | Err(_) => Err(ProtocolError::Malformed { what }),
    }
}
