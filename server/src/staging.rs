//! Pages that came in for commits to come.
//!
//! Owns: what one connection has staged; it is lost with the connection. Called by: session. Must not: be seen by anyone else.

use std::collections::BTreeMap;

use netmem_protocol::control::StageFrom;
use netmem_protocol::{
    COMMIT_REGIONS_MAX, CommitId, Epoch, ErrorCode, PAGE_SIZE, PageBody, RegionId, Run, RunKind,
};

use crate::memory::Memory;
use crate::refusal::{Answer, Refusal};
use crate::slab::{FreshPage, PageBytes, PageRef, is_zero};

/// Regions that commits in the making can have on one connection, taken together. The oldest of more is forgotten, and its commit is Malformed.
pub const COMMITS_STAGED_MAX: usize = 2 * COMMIT_REGIONS_MAX;
/// Runs of zero pages that one commit can have.
pub const ZERO_RUNS_STAGED_MAX: usize = 1 << 20;

/// A part of a commit.
pub enum Staged {
    /// A page and its content.
    Data(u64, PageRef),
    /// Zero pages: the first, and the first behind them.
    Zero(u64, u64),
}

/// Where the bytes of a page are.
enum Content<'a> {
    /// In a buffer, to be copied.
    Here(&'a PageBytes),
    /// In a page of their own.
    Received(FreshPage),
}

/// A `Stage` whose pages are received where they will stay. It is begun only if nothing can be said against it yet.
pub struct Intake {
    region: RegionId,
    with_sums: bool,
    /// What goes before the pages.
    front: Vec<u8>,
    pages: Vec<FreshPage>,
    /// Bytes of the pages that are here.
    filled: usize,
}

impl Intake {
    /// Begins with how the body starts, if its front is there, and takes the bytes of pages that are there already. `None`: it is for
    /// [`Staging::add`], which will say why.
    pub fn begin(
        region: RegionId,
        (start, length): (&[u8], usize),
        with_sums: bool,
        memory: &Memory,
    ) -> Option<Intake> {
        let (body, data_pages, front) = PageBody::parse_start(start, length, with_sums).ok().flatten()?;
        if body.commit == CommitId(0) {
            return None;
        }
        let pages = (0..data_pages).map(|_| memory.fresh().ok()).collect::<Option<Vec<FreshPage>>>()?;
        let (front, mut here) = start.split_at_checked(front)?;
        let mut intake = Intake { region, with_sums, front: front.to_vec(), pages, filled: 0 };
        for slice in intake.rest() {
            let (now, later) = here.split_at(here.len().min(slice.len()));
            slice[..now.len()].copy_from_slice(now);
            here = later;
        }
        intake.filled = start.len() - intake.front.len();
        Some(intake)
    }

    /// Where the bytes that are missing go, in order.
    pub fn rest(&mut self) -> impl Iterator<Item = &mut [u8]> {
        let (whole, within) = (self.filled / PAGE_SIZE, self.filled % PAGE_SIZE);
        let pages = self.pages.iter_mut().skip(whole).enumerate();
        pages.map(move |(at, page)| &mut page[if at == 0 { within } else { 0 }..])
    }

    /// So many more have come.
    pub fn came(&mut self, bytes: usize) {
        self.filled += bytes;
    }

    /// Whether all of it is here.
    pub fn is_whole(&self) -> bool {
        self.filled == self.pages.len() * PAGE_SIZE
    }

    /// Puts the pages where those of [`Staging::add`] are.
    pub fn end(self, staging: &mut Staging, region_pages_max: u64, memory: &Memory) {
        let length = self.front.len() + self.pages.len() * PAGE_SIZE;
        // It was parsed when this was begun.
        let parsed = PageBody::parse_start(&self.front, length, self.with_sums);
        let Ok(Some((body, ..))) = parsed else { return };
        let mut received = self.pages.into_iter();
        let mut content =
            |kind| if kind == RunKind::Data { received.next().map(Content::Received) } else { None };
        let pages = body
            .runs()
            .flat_map(|wire| (wire.run.first.0..wire.run.end()).map(move |page| (page, wire.kind)));
        let pages = pages.map(|(page, kind)| (page, content(kind)));
        staging.add_pages((self.region, &body), pages, region_pages_max, memory);
    }
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
        let pages = body.pages().map(|(page, content)| (page, content.map(Content::Here)));
        self.add_pages((region, body), pages, region_pages_max, memory);
    }

    /// Pages that came so that nobody can read them: the commit reports it.
    pub fn add_unreadable(&mut self, region: RegionId, front: &PageBody<'_>) {
        let staged = self.commits.entry((front.commit, region)).or_default();
        let text = "packed pages were changed on their way here; send them again";
        staged.error.get_or_insert_with(|| Refusal::new(ErrorCode::Corrupt, text));
        staged.parts = Vec::new();
        staged.pages += front.runs().map(|wire| u64::from(wire.run.count)).sum::<u64>();
        if self.commits.len() > COMMITS_STAGED_MAX {
            self.commits.pop_first();
        }
    }

    fn add_pages<'a>(
        &mut self,
        (region, body): (RegionId, &PageBody<'_>),
        pages: impl Iterator<Item = (u64, Option<Content<'a>>)>,
        region_pages_max: u64,
        memory: &Memory,
    ) {
        let staged = self.commits.entry((body.commit, region)).or_default();
        if staged.error.is_none()
            && let Err(refusal) = staged.take((region, body), pages, region_pages_max, memory)
        {
            staged.parts = Vec::new();
            staged.error = Some(refusal);
        }
        staged.pages += body.runs().map(|wire| u64::from(wire.run.count)).sum::<u64>();
        if self.commits.len() > COMMITS_STAGED_MAX {
            self.commits.pop_first();
        }
    }

    /// Takes in the pages of one `StageFrom`, so many. Those that are in memory are shared and not copied.
    pub fn add_from(
        &mut self,
        region: RegionId,
        (body, pages): (&StageFrom, u64),
        region_pages_max: u64,
        memory: &Memory,
    ) {
        let staged = self.commits.entry((body.commit, region)).or_default();
        if staged.error.is_none()
            && let Err(refusal) = staged.take_from(region, body, region_pages_max, memory)
        {
            staged.parts = Vec::new();
            staged.error = Some(refusal);
        }
        staged.pages += pages;
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

/// Whether a region can have these pages.
fn allow(run: Run, region_pages_max: u64) -> Answer<()> {
    if run.end() <= region_pages_max {
        return Ok(());
    }
    let text = format!(
        "page {} is behind the largest region this server allows ({region_pages_max} pages, --max-region)",
        run.end() - 1
    );
    Err(Refusal::new(ErrorCode::TooLarge, text))
}

impl StagedCommit {
    fn take<'a>(
        &mut self,
        (region, body): (RegionId, &PageBody<'_>),
        pages: impl Iterator<Item = (u64, Option<Content<'a>>)>,
        region_pages_max: u64,
        memory: &Memory,
    ) -> Answer<()> {
        memory.region(region)?;
        body.runs().try_for_each(|wire| allow(wire.run, region_pages_max))?;
        let mut sums = body.sums();
        for (page, content) in pages {
            let Some(content) = content else {
                self.add_zero(page)?;
                continue;
            };
            let sum = sums.next();
            let sealed = match content {
                Content::Here(bytes) => memory.copy_of(bytes)?,
                Content::Received(fresh) => fresh.seal(),
            };
            if sum.is_some_and(|sum| sum != sealed.sum()) {
                let text = format!(
                    "page {page} was changed on its way here: its checksum is another; send it again"
                );
                return Err(Refusal::new(ErrorCode::Corrupt, text));
            }
            if is_zero(&sealed[..]) {
                self.add_zero(page)?;
            } else {
                self.parts.push(Staged::Data(page, sealed));
            }
        }
        Ok(())
    }

    fn take_from(
        &mut self,
        region: RegionId,
        body: &StageFrom,
        region_pages_max: u64,
        memory: &Memory,
    ) -> Answer<()> {
        memory.region(region)?;
        body.runs.iter().try_for_each(|run| allow(*run, region_pages_max))?;
        let root = memory.region(body.from)?.root(Epoch(0))?;
        let mut cursor = root.tree.cursor();
        for page in body.runs.iter().flat_map(|run| run.first.0..run.end()) {
            match cursor.get(page) {
                Some(content) => self.parts.push(Staged::Data(page, content.load(memory)?.keep())),
                None => self.add_zero(page)?,
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

    use netmem_protocol::PageBodyBuilder;

    use super::*;
    use crate::reaper::Reaper;
    use crate::region::Region;

    const REGION: RegionId = RegionId(1);

    fn memory() -> Memory {
        memory_of(100)
    }

    fn memory_of(pages: u64) -> Memory {
        let memory = Memory::new(pages * PAGE_SIZE as u64, Reaper::start());
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
        let body = PageBody::parse(bytes, false).expect("a page body");
        staging.add(REGION, &body, 1 << 32, memory);
    }

    #[test]
    fn the_oldest_of_too_many_commits_in_the_making_is_forgotten_with_its_pages() {
        let memory = memory_of(COMMITS_STAGED_MAX as u64 + 10);
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

    /// What was staged: page by page, the first byte of it.
    fn staged(staging: &mut Staging) -> Vec<(u64, Option<[u8; 3]>)> {
        let parts = staging.take(REGION, CommitId(1)).parts;
        let parts = parts.into_iter().flat_map(|part| match part {
            Staged::Data(page, bytes) => vec![(page, Some([bytes[0], bytes[1], bytes[PAGE_SIZE - 1]]))],
            Staged::Zero(first, end) => (first..end).map(|page| (page, None)).collect(),
        });
        parts.collect()
    }

    #[test]
    fn pages_received_where_they_stay_are_those_of_the_whole_body_wherever_it_was_cut() {
        let memory = memory();
        let kinds =
            [RunKind::Data, RunKind::Data, RunKind::Zero, RunKind::Data, RunKind::Zero, RunKind::Data];
        let mut bytes = body(1, (7..).zip(kinds));
        let front = bytes.len() - 4 * PAGE_SIZE;
        // The third page of data has none but zeros in it.
        for (at, byte) in bytes[front..].iter_mut().enumerate() {
            *byte = if at / PAGE_SIZE == 2 { 0 } else { (at % 251) as u8 };
        }
        let mut whole = Staging::default();
        add(&mut whole, &memory, &bytes);
        let whole = staged(&mut whole);
        assert_eq!(whole.iter().filter(|(_, data)| data.is_some()).count(), 3);
        for cut in 0..bytes.len() {
            let Some(mut intake) = Intake::begin(REGION, (&bytes[..cut], bytes.len()), false, &memory) else {
                assert!(cut < front, "the front is there");
                continue;
            };
            assert!(cut >= front);
            let mut left = &bytes[cut..];
            for step in [1, 4095, 2, 6000, PAGE_SIZE, usize::MAX] {
                let (mut now, before) = (left.len().min(step), left.len());
                for slice in intake.rest() {
                    let (here, later) = left.split_at(slice.len().min(now));
                    slice[..here.len()].copy_from_slice(here);
                    (left, now) = (later, now - here.len());
                }
                intake.came(before - left.len());
                assert_eq!(intake.is_whole(), left.is_empty());
            }
            let mut received = Staging::default();
            intake.end(&mut received, 1 << 32, &memory);
            assert_eq!(staged(&mut received), whole, "cut at {cut}");
        }
        assert_eq!(memory.usage().0, 0);
    }

    #[test]
    fn what_is_wrong_with_a_body_is_not_received_in_pieces() {
        let memory = memory();
        let good = body(1, (0..20).map(|page| (page, RunKind::Data)));
        let begin = |bytes: &[u8], length| Intake::begin(REGION, (bytes, length), false, &memory).is_some();
        assert!(begin(&good[..100], good.len()));
        assert!(!begin(&good[..100], good.len() - 1), "fewer bytes than pages");
        assert!(!begin(&good[..100], good.len() + 1), "more");
        assert!(!begin(&body(0, std::iter::once((0, RunKind::Data))), 4096 + 28), "no commit");
        let large = body(1, (0..101).map(|page| (page, RunKind::Data)));
        assert!(!begin(&large[..100], large.len()), "more pages than there are");
        assert_eq!(memory.usage().0, 0);
    }
}
