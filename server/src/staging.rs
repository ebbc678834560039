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

    /// Whether nothing is.
    pub fn is_empty(&self) -> bool {
        self.commits.is_empty()
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use netmem_protocol::{PAGE_SIZE, PageBodyBuilder, RunKind};

    use super::*;
    use crate::reaper::Reaper;
    use crate::region::Region;

    const REGION: RegionId = RegionId(1);

    fn memory() -> Memory {
        let memory = Memory::new(100 * PAGE_SIZE as u64, Reaper::start());
        let region = Arc::new(Region::new(REGION, 0o644, 0, memory.reaper.clone()));
        memory.regions_mut().insert(REGION, region);
        memory
    }

    fn body(commit: u64, pages: impl Iterator<Item = (u64, RunKind)>) -> Vec<u8> {
        let mut builder = PageBodyBuilder::default();
        for (page, kind) in pages {
            builder.push(page, kind);
        }
        let mut bytes = Vec::new();
        builder.encode_front(CommitId(commit), &mut bytes);
        bytes.resize(bytes.len() + builder.data_pages() as usize * PAGE_SIZE, 1);
        bytes
    }

    fn add(staging: &mut Staging, memory: &Memory, bytes: &[u8]) {
        let body = PageBody::parse(bytes).expect("a page body");
        staging.add(REGION, &body, 1 << 32, memory);
    }

    #[test]
    fn the_oldest_of_too_many_commits_in_the_making_is_forgotten_with_its_pages() {
        let memory = memory();
        let mut staging = Staging::default();
        for commit in 1..=COMMITS_STAGED_MAX as u64 + 1 {
            add(&mut staging, &memory, &body(commit, std::iter::once((0, RunKind::Data))));
        }
        assert_eq!(memory.usage().0, COMMITS_STAGED_MAX as u64);
        assert_eq!(staging.take(REGION, CommitId(1)).pages, 0);
        assert_eq!(staging.take(REGION, CommitId(2)).pages, 1);
        drop(staging);
        assert_eq!(memory.usage().0, 0);
    }

    #[test]
    fn zero_pages_in_a_row_are_one_part_and_too_many_parts_are_refused() {
        let memory = memory();
        let mut staging = Staging::default();
        for start in 0..10 {
            let run = (start * 256..(start + 1) * 256).map(|page| (page, RunKind::Zero));
            add(&mut staging, &memory, &body(1, run));
        }
        let staged = staging.take(REGION, CommitId(1));
        assert_eq!((staged.parts.len(), staged.pages), (1, 2560));
        for frame in 0..=ZERO_RUNS_STAGED_MAX as u64 / 256 {
            let apart = (0..256).map(|at| ((frame * 256 + at) * 2, RunKind::Zero));
            add(&mut staging, &memory, &body(2, apart));
        }
        let staged = staging.take(REGION, CommitId(2));
        assert_eq!(staged.error.map(|refusal| refusal.code), Some(ErrorCode::Full));
        assert_eq!(staged.pages, ZERO_RUNS_STAGED_MAX as u64 + 256, "all are counted");
    }

    #[test]
    fn what_goes_wrong_first_is_what_the_commit_reports_and_the_pages_are_given_back() {
        let memory = memory();
        let mut staging = Staging::default();
        add(&mut staging, &memory, &body(1, (0..90).map(|page| (page, RunKind::Data))));
        add(&mut staging, &memory, &body(1, (90..120).map(|page| (page, RunKind::Data))));
        assert_eq!(memory.usage().0, 0);
        add(&mut staging, &memory, &body(1, (120..130).map(|page| (page, RunKind::Data))));
        let staged = staging.take(REGION, CommitId(1));
        assert_eq!((staged.pages, staged.error.map(|refusal| refusal.code)), (130, Some(ErrorCode::Full)));
    }
}
