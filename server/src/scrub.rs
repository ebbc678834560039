//! A scrub: stored pages are read from the disk and compared with their checksums, while everybody goes on.
//!
//! Owns: how much of it is one request. Called by: requests. Must not: use copies in memory, or bring any in.

use std::time::{Duration, Instant};

use netmem_protocol::control::{Damage, ScrubAfter, Scrubbed};
use netmem_protocol::{Epoch, PAGE_SIZE, RegionId};

use crate::content::Content;
use crate::memory::Memory;
use crate::slab::PageBytes;
use crate::tree::FAN_OUT;

/// How long one request may read.
const PART_TIME: Duration = Duration::from_millis(200);
/// Damaged pages in one answer.
const DAMAGED_MAX: usize = 256;

/// Goes on from `after`, for a while. `name` gives a name of a region.
pub fn scrub(memory: &Memory, after: ScrubAfter, name: impl Fn(RegionId) -> String) -> Scrubbed {
    let until = Instant::now() + PART_TIME;
    let mut done = Scrubbed { pages: 0, damaged: Vec::new(), next: None };
    for region in regions_from(memory, after.region) {
        let root = memory.region(region).and_then(|region| region.root(Epoch(0)));
        // One that ended meanwhile has no pages.
        let Ok(root) = root else { continue };
        // The one where it was may have ended; the next ones are looked at from their start.
        let mut leaf = if region == after.region { after.page / FAN_OUT as u64 } else { 0 };
        while let Some((number, pages)) = root.tree.next_leaf(leaf) {
            // Some of it in each part, however slow the machine: whoever asks goes on from a later place each time.
            if done.pages > 0 && (Instant::now() >= until || done.damaged.len() >= DAMAGED_MAX) {
                done.next = Some(ScrubAfter { region, page: number * FAN_OUT as u64 });
                return done;
            }
            for (at, content) in pages.contents().iter().enumerate() {
                let Some(Content::Stored(stored)) = content else { continue };
                let mut bytes: PageBytes = [0; PAGE_SIZE];
                done.pages += 1;
                if let Err(text) = stored.read(&mut bytes) {
                    let page = number * FAN_OUT as u64 + at as u64;
                    tracing::error!(region = region.0, page, "{text}");
                    done.damaged.push(Damage { region, name: name(region), page, text });
                }
            }
            leaf = number + 1;
        }
    }
    done
}

fn regions_from(memory: &Memory, first: RegionId) -> Vec<RegionId> {
    let mut regions: Vec<RegionId> = memory.regions().keys().copied().filter(|id| *id >= first).collect();
    regions.sort_unstable();
    regions
}
