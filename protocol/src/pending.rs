//! The bodies of requests about what is stored and not committed.
//!
//! Owns: what they say. Called by: both peers, through control. Must not: know about sockets.

use serde::{Deserialize, Serialize};

use crate::error::ProtocolError;
use crate::ids::{CommitId, RegionId, Run};
use crate::pages::PAGE_INDEX_END;

/// Finds, or makes, the region in which a page cache keeps what is stored in another one and not committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keep {
    /// The other one, which the client holds. What is kept of it ends with the last hold of a client of this cache on it.
    pub of: RegionId,
}

/// Stages pages that another region has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageFrom {
    /// The commit that they belong to; not 0.
    pub commit: CommitId,
    /// Whose pages they are, at its newest epoch.
    pub from: RegionId,
    /// Which: at the same places in both. At most [`crate::STAGE_FROM_PAGES_MAX`] of them.
    pub runs: Vec<Run>,
}

impl StageFrom {
    /// Whether every run lies inside the largest region, and all are few enough. Returns their pages.
    pub fn check(&self) -> Result<u64, ProtocolError> {
        let lies_inside =
            |run: &Run| run.count > 0 && run.first.0 < PAGE_INDEX_END && run.end() <= PAGE_INDEX_END;
        let pages = self.runs.iter().map(|run| u64::from(run.count)).sum();
        if self.commit == CommitId(0)
            || !self.runs.iter().all(lies_inside)
            || pages > crate::STAGE_FROM_PAGES_MAX
        {
            return Err(ProtocolError::Malformed { what: "StageFrom: commit or runs" });
        }
        Ok(pages)
    }
}
