//! Pages that came in for commits to come.
//!
//! Owns: what one connection has staged; it is lost with the connection. Called by: session. Must not: be seen by anyone else.

use std::collections::BTreeMap;

use netmem_protocol::{CommitId, ErrorCode, PageBody, RegionId};

use crate::memory::Memory;
use crate::refusal::{Answer, Refusal};
use crate::slab::{PageRef, is_zero};

/// Commits that one connection can have in the making. The oldest of more is forgotten, and its commit is Malformed.
pub const COMMITS_STAGED_MAX: usize = 16;
/// Runs of zero pages that one commit can have.
pub const ZERO_RUNS_STAGED_MAX: usize = 1 << 20;

/// A part of a commit.
pub enum Staged {
    /// A page and its content.
    Data(u64, PageRef),
    /// Zero pages: the first, and the first behind them.
    Zero(u64, u64),
}

/// What was staged under one commit.
#[derive(Default)]
pub struct StagedCommit {
    /// In the order of arrival.
    pub parts: Vec<Staged>,
    /// Pages, zero pages counted, also those that were refused.
    pub pages: u64,
    /// The first thing that went wrong.
    pub error: Option<Refusal>,
    zero_runs: usize,
}

/// What a connection has staged.
#[derive(Default)]
pub struct Staging {
    commits: BTreeMap<(CommitId, RegionId), StagedCommit>,
}

impl Staging {
    /// Takes in the pages of one `Stage`. What goes wrong is kept for the commit to report.
    pub fn add(&mut self, region: RegionId, body: &PageBody<'_>, region_pages_max: u64, memory: &Memory) {
        let staged = self.commits.entry((body.commit, region)).or_default();
        if staged.error.is_none()
            && let Err(refusal) = staged.take(region, body, region_pages_max, memory)
        {
            staged.parts = Vec::new();
            staged.error = Some(refusal);
        }
        staged.pages += body.runs().map(|wire| u64::from(wire.run.count)).sum::<u64>();
        if self.commits.len() > COMMITS_STAGED_MAX {
            self.commits.pop_first();
        }
    }

    /// Everything under a commit, for good.
    pub fn take(&mut self, region: RegionId, commit: CommitId) -> StagedCommit {
        self.commits.remove(&(commit, region)).unwrap_or_default()
    }
}

impl StagedCommit {
    fn take(
        &mut self,
        region: RegionId,
        body: &PageBody<'_>,
        region_pages_max: u64,
        memory: &Memory,
    ) -> Answer<()> {
        memory.region(region)?;
        if let Some(wire) = body.runs().find(|wire| wire.run.end() > region_pages_max) {
            let text = format!(
                "page {} is behind the largest region this server allows ({region_pages_max} pages, --max-region)",
                wire.run.end() - 1
            );
            return Err(Refusal::new(ErrorCode::TooLarge, text));
        }
        for (page, content) in body.pages() {
            match content {
                Some(bytes) if !is_zero(bytes) => {
                    self.parts.push(Staged::Data(page, memory.copy_of(bytes)?));
                }
                _ => self.add_zero(page)?,
            }
        }
        Ok(())
    }

    fn add_zero(&mut self, page: u64) -> Answer<()> {
        if let Some(Staged::Zero(_, end)) = self.parts.last_mut()
            && *end == page
        {
            *end += 1;
            return Ok(());
        }
        if self.zero_runs >= ZERO_RUNS_STAGED_MAX {
            let text =
                format!("a commit with more than {ZERO_RUNS_STAGED_MAX} runs of zero pages; commit in parts");
            return Err(Refusal::new(ErrorCode::Full, text));
        }
        self.zero_runs += 1;
        self.parts.push(Staged::Zero(page, page + 1));
        Ok(())
    }
}
