//! Page bodies whose pages are compressed.
//!
//! Owns: [`Packer`], which makes them, and [`unpack`], which makes page bodies of them again. Called by: both peers, where the one who
//! fetches or stages has found that it pays. Must not: allocate more than a frame's pages take, whatever a peer says.
//!
//! A packed body is a page body ([`crate::pages`]) in whose place of the pages there is one LZ4 block
//! (<https://github.com/lz4/lz4/blob/dev/doc/lz4_Block_format.md>) of all of them. Checksums are those of the pages. One block for all pages of a frame:
//! what pages have in common is there once, and a page that does not shrink costs a few bytes.

use lz4_flex::block::{CompressTable, compress_into_with_table, decompress_into, get_maximum_output_size};

use crate::error::ProtocolError;
use crate::pages::PageBody;
use crate::{FRAME_BODY_MAX, PAGE_SIZE};

/// Capability bit: page bodies may be packed.
pub const CAPABILITY_PACKED: u64 = 4;
/// Header flag. In a `Fetch`: the answer may be packed. In a `Stage`, and in the answer to a `Fetch`: the body is.
pub const FLAG_PACKED: u16 = 1;

/// Packed pages are sent if they take at most so many eighths of what they are: to unpack them is not for nothing.
const WORTH_EIGHTHS: usize = 7;

/// Compresses pages, and keeps the memory that this takes: 16 KiB and as much as the largest frame so far.
#[derive(Default)]
pub struct Packer {
    table: Option<Box<CompressTable>>,
    /// As long as it ever had to be.
    block: Vec<u8>,
}

impl core::fmt::Debug for Packer {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Packer").finish_non_exhaustive()
    }
}

impl Packer {
    /// Itself, or one without memory if it has more than frames of 64 pages take.
    #[must_use]
    pub fn if_small(self) -> Packer {
        if self.block.len() <= get_maximum_output_size(64 * PAGE_SIZE) { self } else { Packer::default() }
    }

    /// The block that stands for `pages`; `None` if it is not worth it.
    pub fn pack(&mut self, pages: &[u8]) -> Option<&[u8]> {
        let most = get_maximum_output_size(pages.len());
        if self.block.len() < most {
            self.block.resize(most, 0);
        }
        let table = self.table.get_or_insert_with(|| Box::new(CompressTable::large()));
        let length = compress_into_with_table(pages, &mut self.block, table).ok()?;
        (length <= pages.len() / 8 * WORTH_EIGHTHS).then(|| &self.block[..length])
    }
}

/// Makes the page body again of which `packed` was made, in `out`, which keeps its memory and may be longer. Returns its length. Only the
/// front and the length of the pages are checked: what it says is for [`PageBody::parse`]. Where there are checksums, a block that can't be
/// unpacked is [`ProtocolError::Corrupt`], as a page with other bytes is.
pub fn unpack(packed: &[u8], with_sums: bool, limit: u32, out: &mut Vec<u8>) -> Result<usize, ProtocolError> {
    let (front, pages) = PageBody::front_and_pages(packed, with_sums)?;
    let length = front + pages as usize * PAGE_SIZE;
    let limit = limit.min(FRAME_BODY_MAX);
    if length > limit as usize {
        return Err(ProtocolError::FrameTooLong { length: length as u32, limit });
    }
    if out.len() < length {
        out.resize(length, 0);
    }
    let (head, block) = packed.split_at(front);
    out[..front].copy_from_slice(head);
    match decompress_into(block, &mut out[front..length]) {
        Ok(unpacked) if front + unpacked == length => Ok(length),
        _ if with_sums => Err(ProtocolError::Corrupt { page: PageBody::front(packed, true)?.first_page() }),
        _ => Err(ProtocolError::Malformed { what: "packed pages" }),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::RunKind;
    use crate::pages::{PageBodyBuilder, page_sum};
    use crate::{CommitId, FRAME_PAGES_MAX};

    /// Pages that compress more or less: the first `noise` of 64 words of each are random.
    fn pages(count: usize, noise: usize, seed: u64) -> Vec<u8> {
        let mut state = seed | 1;
        let words = (0..count * PAGE_SIZE / 8).map(|at| {
            if at % 64 < noise {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state
            } else {
                at as u64 / 100
            }
        });
        words.flat_map(u64::to_le_bytes).collect()
    }

    fn front(data: &[u8]) -> Vec<u8> {
        let mut builder = PageBodyBuilder::default();
        for (at, page) in data.chunks_exact(PAGE_SIZE).enumerate() {
            builder.push_data(at as u64 * 2, page_sum(page));
            if builder.pages() < FRAME_PAGES_MAX / 4 {
                builder.push(at as u64 * 2 + 1, RunKind::Zero);
            }
        }
        let mut out = Vec::new();
        builder.encode(CommitId(9), true, &mut out);
        out
    }

    #[test]
    fn pages_that_do_not_shrink_are_not_packed() {
        let mut packer = Packer::default();
        assert!(packer.pack(&pages(3, 64, 5)).is_none());
        assert!(packer.pack(&pages(3, 60, 5)).is_none());
        assert!(packer.pack(&pages(3, 30, 5)).is_some());
    }

    #[test]
    fn what_unpacks_to_more_than_a_frame_is_refused_before_memory_is_made() {
        let data = vec![7; FRAME_PAGES_MAX as usize / 2 * PAGE_SIZE];
        let mut packed = front(&data);
        packed.extend_from_slice(Packer::default().pack(&data).expect("worth it"));
        let mut out = Vec::new();
        let refused = unpack(&packed, true, 131_072, &mut out);
        assert!(matches!(refused, Err(ProtocolError::FrameTooLong { limit: 131_072, .. })), "{refused:?}");
        assert!(out.is_empty());
        assert!(unpack(&packed, true, u32::MAX, &mut out).is_ok());
    }

    proptest! {
        #[test]
        fn what_was_packed_is_the_same_afterwards(
            counts in proptest::collection::vec(1usize..40, 1..4), noise in 0usize..52, seed in any::<u64>(),
        ) {
            // One after the other with the same memory.
            let (mut packer, mut out) = (Packer::default(), Vec::new());
            for count in counts {
                let data = pages(count, noise, seed);
                let front = front(&data);
                let block = packer.pack(&data).expect("worth it");
                prop_assert!(block.len() <= data.len() * 7 / 8);
                let length = unpack(&[&front[..], block].concat(), true, FRAME_BODY_MAX, &mut out);
                let whole = [&front[..], &data[..]].concat();
                prop_assert!(out[..length.expect("well made")] == whole);
                prop_assert!(PageBody::parse(&whole, true).expect("well made").verify().is_ok());
            }
        }

        #[test]
        fn no_bytes_of_a_peer_are_more_than_an_error(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..200), cut in 0usize..5000, flips in
            proptest::collection::vec((any::<prop::sample::Index>(), 1u8..), 0..6), count in 1usize..4,
        ) {
            let data = pages(count, 10, 3);
            let mut packed = front(&data);
            packed.extend_from_slice(Packer::default().pack(&data).expect("worth it"));
            for (at, bits) in flips {
                let at = at.index(packed.len());
                packed[at] ^= bits;
            }
            packed.truncate(cut);
            let mut out = Vec::new();
            for bytes in [&packed, &bytes] {
                if let Ok(length) = unpack(bytes, true, FRAME_BODY_MAX, &mut out) {
                    prop_assert!(length <= FRAME_BODY_MAX as usize);
                    let _ = PageBody::parse(&out[..length], true);
                }
            }
            // A front that is right, and noise behind it.
            let mut noise = front(&data);
            noise.append(&mut bytes);
            let _ = unpack(&noise, true, FRAME_BODY_MAX, &mut out);
        }
    }
}
