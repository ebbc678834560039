//! Page bodies: what `Fetch` asks for, and what its answer and `Stage` carry.
//!
//! Owns: the raw layout of pages on the wire. Called by: both peers on their hot paths. Must not: copy page data:
//! a builder makes the front, a reader hands out slices, and the caller sends and receives pages where they lie.
//!
//! A page body is: commit 8 bytes (0 in answers to `Fetch`), run count 4, data page count 4; then a run each 16 bytes: first
//! page 8, count 4, kind 4; then, where both hellos have [`CAPABILITY_SUMS`], the checksum of each data page, 8 bytes ([`page_sum`]); then the
//! pages of the data runs, 4,096 bytes each, in the order of the runs. A `Fetch` body is the same without pages and checksums, with every run of
//! kind [`RunKind::Data`] and a data page count of 0.

use crate::error::ProtocolError;
use crate::ids::{CommitId, Run};
use crate::{FRAME_PAGES_MAX, FRAME_RUNS_MAX, PAGE_SIZE};

/// Capability bit: page bodies have checksums.
pub const CAPABILITY_SUMS: u64 = 2;
/// Bytes of a checksum.
pub const SUM_BYTES: usize = 8;

/// The checksum of a page: XXH3, 64 bits, seed 0; 1 where that is 0 or all ones, which mean something to those who keep checksums.
pub fn page_sum(data: &[u8]) -> u64 {
    match twox_hash::XxHash3_64::oneshot(data) {
        0 | u64::MAX => 1,
        sum => sum,
    }
}

/// Bytes before the runs.
pub const PAGE_BODY_HEAD_BYTES: usize = 16;
/// Bytes of one run.
pub const RUN_BYTES: usize = 16;
/// The first page number that no region can have.
pub const PAGE_INDEX_END: u64 = crate::REGION_BYTES_MAX / PAGE_SIZE as u64;

/// Whether a run's pages are on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum RunKind {
    /// They are.
    Data = 0,
    /// They are all zeros, and are not.
    Zero = 1,
}

/// A run in a page body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WireRun {
    /// Which pages.
    pub run: Run,
    /// Whether they follow.
    pub kind: RunKind,
}

/// Collects runs and encodes the front of a page body.
#[derive(Clone, Debug, Default)]
pub struct PageBodyBuilder {
    runs: Vec<WireRun>,
    /// Of the data pages, if the caller gave them.
    sums: Vec<u64>,
    pages: u32,
    data_pages: u32,
}

impl PageBodyBuilder {
    /// Empties it, keeping its memory.
    pub fn clear(&mut self) {
        self.runs.clear();
        self.sums.clear();
        self.pages = 0;
        self.data_pages = 0;
    }

    /// Pages collected, zero pages counted.
    pub fn pages(&self) -> u32 {
        self.pages
    }

    /// Pages that the caller will send behind the front.
    pub fn data_pages(&self) -> u32 {
        self.data_pages
    }

    /// Whether another page fits.
    pub fn has_room(&self) -> bool {
        self.pages < FRAME_PAGES_MAX
    }

    /// Adds one page, joining it to the last run where it can. The caller checks [`Self::has_room`] first.
    pub fn push(&mut self, page: u64, kind: RunKind) {
        debug_assert!(self.has_room());
        self.pages += 1;
        if kind == RunKind::Data {
            self.data_pages += 1;
        }
        if let Some(last) = self.runs.last_mut()
            && last.kind == kind
            && last.run.end() == page
        {
            last.run.count += 1;
            return;
        }
        self.runs.push(WireRun { run: Run::new(page, 1), kind });
    }

    /// Adds a page with content, and its checksum.
    pub fn push_data(&mut self, page: u64, sum: u64) {
        self.push(page, RunKind::Data);
        self.sums.push(sum);
    }

    /// Adds a page with its checksum; without one it is zeros.
    pub fn push_page(&mut self, page: u64, sum: Option<u64>) {
        match sum {
            Some(sum) => self.push_data(page, sum),
            None => self.push(page, RunKind::Zero),
        }
    }

    /// The checksums that came with data pages, in order.
    pub fn sums(&self) -> &[u64] {
        &self.sums
    }

    /// Appends the front to `out`, with checksums if the peers agreed on them; the data pages are for the caller to send. Returns the bytes
    /// the whole body takes. With checksums, every data page must have come with one.
    pub fn encode(&self, commit: CommitId, with_sums: bool, out: &mut Vec<u8>) -> u32 {
        let length = self.encode_front(commit, out);
        if !with_sums {
            return length;
        }
        debug_assert_eq!(self.sums.len(), self.data_pages as usize);
        for sum in &self.sums {
            out.extend_from_slice(&sum.to_le_bytes());
        }
        length + (self.sums.len() * SUM_BYTES) as u32
    }

    /// The same without checksums.
    pub fn encode_front(&self, commit: CommitId, out: &mut Vec<u8>) -> u32 {
        out.extend_from_slice(&commit.0.to_le_bytes());
        out.extend_from_slice(&(self.runs.len() as u32).to_le_bytes());
        out.extend_from_slice(&self.data_pages.to_le_bytes());
        for wire in &self.runs {
            encode_run(wire, out);
        }
        (PAGE_BODY_HEAD_BYTES + self.runs.len() * RUN_BYTES) as u32 + self.data_pages * PAGE_SIZE as u32
    }
}

fn encode_run(wire: &WireRun, out: &mut Vec<u8>) {
    out.extend_from_slice(&wire.run.first.0.to_le_bytes());
    out.extend_from_slice(&wire.run.count.to_le_bytes());
    out.extend_from_slice(&(wire.kind as u32).to_le_bytes());
}

/// Appends the body of a `Fetch` to `out`.
pub fn encode_fetch(runs: &[Run], out: &mut Vec<u8>) {
    out.extend_from_slice(&0u64.to_le_bytes());
    out.extend_from_slice(&(runs.len() as u32).to_le_bytes());
    out.extend_from_slice(&0u32.to_le_bytes());
    for run in runs {
        encode_run(&WireRun { run: *run, kind: RunKind::Data }, out);
    }
}

/// A page body that was checked as a whole.
#[derive(Clone, Copy, Debug)]
pub struct PageBody<'a> {
    /// The commit it belongs to; 0 in an answer.
    pub commit: CommitId,
    runs: &'a [u8],
    /// Empty if there are none.
    sums: &'a [u8],
    data: &'a [u8],
}

impl<'a> PageBody<'a> {
    /// Checks the body of a `Stage` or of the answer to a `Fetch`: every count within its limit, every run inside the largest
    /// region, and exactly as many bytes as the runs say.
    pub fn parse(body: &'a [u8], with_sums: bool) -> Result<Self, ProtocolError> {
        let (front, data_pages) = Self::parse_front(body, with_sums)?;
        front.check_data(data_pages, front.data.len())?;
        Ok(front)
    }

    /// Compares every page with its checksum, if there are checksums.
    pub fn verify(&self) -> Result<(), ProtocolError> {
        if self.sums.is_empty() {
            return Ok(());
        }
        let pages = self.pages().filter_map(|(page, data)| Some((page, data?)));
        for ((page, data), sum) in pages.zip(self.sums()) {
            if page_sum(data) != sum {
                return Err(ProtocolError::Corrupt { page });
            }
        }
        Ok(())
    }

    /// The checksums of the data pages, in order; none if there are none.
    pub fn sums(&self) -> impl Iterator<Item = u64> + 'a {
        self.sums.as_chunks::<SUM_BYTES>().0.iter().map(|sum| u64::from_le_bytes(*sum))
    }

    /// Checks the body of a `Fetch`.
    pub fn parse_fetch(body: &'a [u8]) -> Result<Self, ProtocolError> {
        let (front, data_pages) = Self::parse_front(body, false)?;
        if data_pages != 0 || !front.data.is_empty() {
            return Err(ProtocolError::Malformed { what: "fetch: data" });
        }
        if front.runs().any(|wire| wire.kind != RunKind::Data) {
            return Err(ProtocolError::Malformed { what: "fetch: run kind" });
        }
        Ok(front)
    }

    /// Checks the front of the body of a `Stage`, as [`Self::parse`] does, before its pages are here: `start` is how it starts, `length`
    /// how long the whole of it is. Returns the body, for its runs alone, how many pages of data follow, and how many bytes go before
    /// them. `None` if more of it is needed.
    pub fn parse_start(
        start: &'a [u8],
        length: usize,
        with_sums: bool,
    ) -> Result<Option<(Self, u32, usize)>, ProtocolError> {
        let Some(head) = start.first_chunk::<PAGE_BODY_HEAD_BYTES>() else { return Ok(None) };
        let runs = u32::from_le_bytes([head[8], head[9], head[10], head[11]]) as usize;
        let pages = u32::from_le_bytes([head[12], head[13], head[14], head[15]]) as usize;
        let sums = if with_sums { pages.min(FRAME_PAGES_MAX as usize + 1) * SUM_BYTES } else { 0 };
        let front = PAGE_BODY_HEAD_BYTES + runs.min(FRAME_RUNS_MAX as usize + 1) * RUN_BYTES + sums;
        let Some(start) = start.get(..front) else { return Ok(None) };
        let (body, data_pages) = Self::parse_front(start, with_sums)?;
        body.check_data(data_pages, length.wrapping_sub(front))?;
        Ok(Some((body, data_pages, front)))
    }

    /// The front of a whole body, for its runs alone. What follows is not looked at.
    pub fn front(body: &'a [u8], with_sums: bool) -> Result<Self, ProtocolError> {
        let (front, _) = Self::parse_front(body, with_sums)?;
        Ok(PageBody { data: &[], ..front })
    }

    /// The first page of its first run.
    pub(crate) fn first_page(&self) -> u64 {
        self.runs().next().map_or(0, |wire| wire.run.first.0)
    }

    /// Of a whole body: how many bytes go before its pages, and how many pages follow. What follows is not looked at.
    pub(crate) fn front_and_pages(body: &'a [u8], with_sums: bool) -> Result<(usize, u32), ProtocolError> {
        let (front, data_pages) = Self::parse_front(body, with_sums)?;
        Ok((body.len() - front.data.len(), data_pages))
    }

    fn check_data(&self, data_pages: u32, bytes: usize) -> Result<(), ProtocolError> {
        let data = self.runs().filter(|wire| wire.kind == RunKind::Data);
        let wanted: u64 = data.map(|wire| u64::from(wire.run.count)).sum();
        if wanted != u64::from(data_pages) || bytes as u64 != wanted * PAGE_SIZE as u64 {
            return Err(ProtocolError::Malformed { what: "page body: data length" });
        }
        Ok(())
    }

    fn parse_front(body: &'a [u8], with_sums: bool) -> Result<(Self, u32), ProtocolError> {
        let Some((head, rest)) = body.split_first_chunk::<PAGE_BODY_HEAD_BYTES>() else {
            return Err(ProtocolError::Malformed { what: "page body: head" });
        };
        let commit = CommitId(u64::from_le_bytes([
            head[0], head[1], head[2], head[3], head[4], head[5], head[6], head[7],
        ]));
        let run_count = u32::from_le_bytes([head[8], head[9], head[10], head[11]]);
        let data_pages = u32::from_le_bytes([head[12], head[13], head[14], head[15]]);
        if run_count > FRAME_RUNS_MAX || data_pages > FRAME_PAGES_MAX {
            return Err(ProtocolError::Malformed { what: "page body: counts" });
        }
        let Some((runs, rest)) = rest.split_at_checked(run_count as usize * RUN_BYTES) else {
            return Err(ProtocolError::Malformed { what: "page body: runs" });
        };
        let sums = if with_sums { data_pages as usize * SUM_BYTES } else { 0 };
        let Some((sums, data)) = rest.split_at_checked(sums) else {
            return Err(ProtocolError::Malformed { what: "page body: checksums" });
        };
        let front = PageBody { commit, runs, sums, data };
        let mut pages = 0u64;
        for chunk in runs.chunks_exact(RUN_BYTES) {
            let wire = decode_run(chunk).ok_or(ProtocolError::Malformed { what: "page body: run kind" })?;
            let end = wire.run.first.0.checked_add(u64::from(wire.run.count));
            if wire.run.count == 0 || end.is_none_or(|end| end > PAGE_INDEX_END) {
                return Err(ProtocolError::Malformed { what: "page body: run" });
            }
            pages += u64::from(wire.run.count);
        }
        if pages > u64::from(FRAME_PAGES_MAX) {
            return Err(ProtocolError::Malformed { what: "page body: pages" });
        }
        Ok((front, data_pages))
    }

    /// Pages with content.
    pub fn data_pages(&self) -> u32 {
        (self.data.len() / PAGE_SIZE) as u32
    }

    /// The runs, in order.
    pub fn runs(&self) -> impl Iterator<Item = WireRun> + 'a {
        self.runs.chunks_exact(RUN_BYTES).filter_map(decode_run)
    }

    /// Every run with the bytes of its pages, in order.
    pub fn spans(&self) -> impl Iterator<Item = PageSpan<'a>> + 'a {
        let (mut data, mut sums) = (self.data, self.sums);
        self.runs().map(move |wire| {
            if wire.kind != RunKind::Data {
                return PageSpan { run: wire.run, data: None, sums: &[] };
            }
            let (mine, rest) = data.split_at(wire.run.count as usize * PAGE_SIZE);
            data = rest;
            let (its, rest) = sums.split_at(sums.len().min(wire.run.count as usize * SUM_BYTES));
            sums = rest;
            PageSpan { run: wire.run, data: Some(mine), sums: its }
        })
    }

    /// Every page with its data, `None` for a zero page, in order.
    pub fn pages(&self) -> impl Iterator<Item = (u64, Option<&'a [u8; PAGE_SIZE]>)> + 'a {
        self.spans().flat_map(PageSpan::pages)
    }
}

/// Consecutive pages and their bytes, side by side where they were received.
#[derive(Clone, Copy, Debug)]
pub struct PageSpan<'a> {
    /// Which pages.
    pub run: Run,
    /// `run.count` pages; `None` if all of them are zeros.
    pub data: Option<&'a [u8]>,
    /// Their checksums, 8 bytes each; empty if there are none.
    pub sums: &'a [u8],
}

impl<'a> PageSpan<'a> {
    /// The checksum of its page number `at`, from 0, if it came with one.
    pub fn sum(&self, at: usize) -> Option<u64> {
        self.sums.as_chunks::<SUM_BYTES>().0.get(at).map(|sum| u64::from_le_bytes(*sum))
    }

    /// Page by page.
    pub fn pages(self) -> impl Iterator<Item = (u64, Option<&'a [u8; PAGE_SIZE]>)> + 'a {
        (0..self.run.count as usize).map(move |i| {
            let page = self.data.and_then(|data| data.get(i * PAGE_SIZE..)?.first_chunk::<PAGE_SIZE>());
            (self.run.first.0 + i as u64, page)
        })
    }

    /// Its first `count` pages, and the rest. `count` is at most the run's.
    pub fn split_at(self, count: u32) -> (PageSpan<'a>, PageSpan<'a>) {
        let parts = self.data.map(|data| data.split_at(count as usize * PAGE_SIZE));
        let sums = self.sums.split_at(self.sums.len().min(count as usize * SUM_BYTES));
        let front = Run { first: self.run.first, count };
        let back = Run::new(self.run.first.0 + u64::from(count), self.run.count - count);
        (
            PageSpan { run: front, data: parts.map(|parts| parts.0), sums: sums.0 },
            PageSpan { run: back, data: parts.map(|parts| parts.1), sums: sums.1 },
        )
    }
}

fn decode_run(chunk: &[u8]) -> Option<WireRun> {
    let (first, rest) = chunk.split_first_chunk::<8>()?;
    let (count, rest) = rest.split_first_chunk::<4>()?;
    let kind = match u32::from_le_bytes(*rest.first_chunk::<4>()?) {
        0 => RunKind::Data,
        1 => RunKind::Zero,
        _ => return None,
    };
    Some(WireRun { run: Run::new(u64::from_le_bytes(*first), u32::from_le_bytes(*count)), kind })
}
