//! Pages in bulk: fetches that overlap, and commits that are staged.
//!
//! Owns: the window of fetches in flight, the frames of a staged commit. Called by: [`crate::transfer`] and the
//! black-box tests, through [`Client`]. Must not: accept a page that was not asked for.

use std::collections::{HashMap, VecDeque};

use netmem_protocol::control::{Commit, Committed};
use netmem_protocol::pages::{self, PAGE_BODY_HEAD_BYTES, RUN_BYTES, SUM_BYTES};
use netmem_protocol::{
    CommitId, Epoch, FRAME_PAGES_MAX, Header, Kind, PAGE_SIZE, PageBody, PageBodyBuilder, RegionId,
    RequestId, Run, RunKind, page_sum,
};

use crate::client::Client;
use crate::error::ClientError;

/// Fetches in flight at the most: 8 × 1 MiB covers 1 GB/s at 8 ms.
pub const INFLIGHT_FETCHES_MAX: usize = 8;

/// A page's content; `None` is all zeros.
pub type PageData<'a> = Option<&'a [u8; PAGE_SIZE]>;

/// What to tell the server with the last message of a staged commit.
#[derive(Clone, Copy, Debug, Default)]
pub struct CommitPlan {
    /// The epoch the pages were based on.
    pub base: Epoch,
    /// Refuse rather than merge.
    pub strict: bool,
    /// Cut the region here first.
    pub cut: Option<u64>,
    /// The size from now on.
    pub size: Option<u64>,
}

impl Client {
    /// Fetches `runs` at `epoch`, in the order asked; `None` is a zero page. For small numbers of pages:
    /// everything is kept in memory.
    #[allow(clippy::type_complexity)]
    pub fn fetch_pages(
        &mut self,
        region: RegionId,
        epoch: Epoch,
        runs: &[Run],
    ) -> Result<Vec<(u64, Option<Box<[u8; PAGE_SIZE]>>)>, ClientError> {
        let mut found = HashMap::new();
        self.fetch_each(region, epoch, runs.iter().copied(), |page, data| {
            found.insert(page, data.map(|data| Box::new(*data)));
            Ok::<(), ClientError>(())
        })?;
        let asked = runs.iter().flat_map(|run| run.first.0..run.end());
        Ok(asked.map(|page| (page, found.get(&page).cloned().flatten())).collect())
    }

    /// Fetches `runs` at `epoch` with several requests in flight and hands every page to `take` once, in the order
    /// in which the server answers.
    pub fn fetch_each<E: From<ClientError>>(
        &mut self,
        region: RegionId,
        epoch: Epoch,
        runs: impl Iterator<Item = Run>,
        mut take: impl FnMut(u64, PageData<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut parts = Parts { runs, left: None };
        let mut in_flight: VecDeque<(RequestId, Vec<Run>)> = VecDeque::new();
        let pages_max = self.frame_pages_max();
        loop {
            while in_flight.len() < INFLIGHT_FETCHES_MAX {
                let part = parts.next_part(pages_max);
                if part.is_empty() {
                    break;
                }
                let request = self.send_fetch(region, epoch, &part)?;
                in_flight.push_back((request, part));
            }
            if in_flight.is_empty() {
                return Ok(());
            }
            let answer = self.receive("fetch")?;
            let Some(place) = in_flight.iter().position(|(request, _)| *request == answer.request) else {
                return Err(self
                    .lie(format!("answered request {} that was not asked", answer.request))
                    .into());
            };
            let asked = in_flight.remove(place).map(|(_, runs)| runs).unwrap_or_default();
            self.check_answer(&answer, Kind::Fetch, region)?;
            if answer.epoch != epoch {
                let what = format!("sent pages of epoch {} when {epoch} was asked", answer.epoch);
                return Err(self.lie(what).into());
            }
            self.hand_out(&asked, &mut take)?;
        }
    }

    fn send_fetch(&mut self, region: RegionId, epoch: Epoch, runs: &[Run]) -> Result<RequestId, ClientError> {
        let request = self.next_request();
        let length = (PAGE_BODY_HEAD_BYTES + runs.len() * RUN_BYTES) as u32;
        let header = Header { length, kind: Kind::Fetch as u16, flags: 0, request, region, epoch };
        let mut out = std::mem::take(&mut self.out);
        out.clear();
        out.extend_from_slice(&header.encode());
        pages::encode_fetch(runs, &mut out);
        let sent = self.send(&out, "fetch");
        self.out = out;
        sent.map(|()| request)
    }

    /// Checks that the body just received has exactly the pages of `asked` before any of them is used.
    fn hand_out<E: From<ClientError>>(
        &mut self,
        asked: &[Run],
        take: &mut impl FnMut(u64, PageData<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let frame = std::mem::take(&mut self.body);
        let result = (|| {
            let body = PageBody::parse(&frame, self.with_sums()).map_err(|source| self.protocol(source))?;
            body.verify().map_err(|source| self.protocol(source))?;
            if body.commit != CommitId(0) {
                return Err(self.lie("named a commit in a fetch's answer".to_owned()).into());
            }
            let mut wanted = asked.iter().flat_map(|run| run.first.0..run.end());
            let mut sent = body.runs().flat_map(|wire| wire.run.first.0..wire.run.end());
            loop {
                match (wanted.next(), sent.next()) {
                    (None, None) => break,
                    (wanted, sent) if wanted == sent => {}
                    (wanted, sent) => {
                        let name =
                            |page: Option<u64>| page.map_or("none".to_owned(), |page| page.to_string());
                        let what = format!("sent page {} when {} was asked", name(sent), name(wanted));
                        return Err(self.lie(what).into());
                    }
                }
            }
            body.pages().try_for_each(|(page, data)| take(page, data))
        })();
        self.body = frame;
        result
    }

    /// Pages that fit into one frame of this server.
    fn frame_pages_max(&self) -> u32 {
        let room = self.hello().frame_body_max as usize - PAGE_BODY_HEAD_BYTES;
        FRAME_PAGES_MAX.min((room / (PAGE_SIZE + RUN_BYTES + SUM_BYTES)) as u32)
    }

    /// Starts a commit of `region`: push pages, then finish it. Dropped unfinished, nothing becomes visible.
    pub fn stage(&mut self, region: RegionId) -> Staging<'_> {
        let commit = self.next_commit_id();
        let pages_max = self.frame_pages_max();
        Staging {
            client: self,
            region,
            commit,
            front: PageBodyBuilder::default(),
            data: Vec::new(),
            staged: 0,
            pages_max,
        }
    }
}

/// Cuts runs into requests.
struct Parts<I> {
    runs: I,
    left: Option<Run>,
}

impl<I: Iterator<Item = Run>> Parts<I> {
    /// The next runs, `pages_max` pages together at the most; empty at the end.
    fn next_part(&mut self, pages_max: u32) -> Vec<Run> {
        let (mut part, mut room) = (Vec::new(), pages_max);
        while room > 0 {
            let Some(run) = self.left.take().or_else(|| self.runs.next()) else { break };
            let count = run.count.min(room);
            if count < run.count {
                self.left = Some(Run::new(run.first.0 + u64::from(count), run.count - count));
            }
            if count > 0 {
                part.push(Run::new(run.first.0, count));
                room -= count;
            }
        }
        part
    }
}

/// A commit under way: pages leave in full frames while they are pushed.
#[derive(Debug)]
pub struct Staging<'c> {
    client: &'c mut Client,
    region: RegionId,
    commit: CommitId,
    front: PageBodyBuilder,
    data: Vec<u8>,
    staged: u64,
    pages_max: u32,
}

impl Staging<'_> {
    /// Adds a page; `None` is a page of zeros, which costs 16 bytes a run.
    pub fn push(&mut self, page: u64, data: PageData<'_>) -> Result<(), ClientError> {
        if self.front.pages() >= self.pages_max {
            self.flush()?;
        }
        match data {
            Some(data) => {
                self.front.push_data(page, page_sum(data));
                self.data.extend_from_slice(data);
            }
            None => self.front.push(page, RunKind::Zero),
        }
        self.staged += 1;
        Ok(())
    }

    /// The commit's number.
    pub fn commit_id(&self) -> CommitId {
        self.commit
    }

    /// Sends what has been pushed so far. Nothing becomes visible.
    pub fn flush(&mut self) -> Result<(), ClientError> {
        if self.front.pages() == 0 {
            return Ok(());
        }
        let request = self.client.next_request();
        let mut front = Vec::new();
        let length = self.front.encode(self.commit, self.client.with_sums(), &mut front);
        let kind = Kind::Stage as u16;
        let header = Header { length, kind, flags: 0, request, region: self.region, epoch: Epoch(0) };
        let mut head = header.encode().to_vec();
        head.append(&mut front);
        self.client.send(&head, "stage")?;
        self.client.send(&self.data, "stage")?;
        self.front.clear();
        self.data.clear();
        Ok(())
    }

    /// Makes everything pushed visible at once. An answer is proof; an error may hide a commit whose answer was
    /// lost, which [`Client::commit_status`] tells.
    pub fn finish(mut self, plan: CommitPlan) -> Result<Committed, ClientError> {
        self.flush()?;
        let CommitPlan { base, strict, cut, size } = plan;
        let commit = Commit { commit: self.commit, staged_pages: self.staged, base, strict, cut, size };
        self.client.commit(self.region, &commit)
    }

    /// The connection, for requests in between.
    pub fn client(&mut self) -> &mut Client {
        self.client
    }
}

#[cfg(test)]
mod tests {
    use super::{Parts, Run};

    #[test]
    fn runs_are_cut_at_the_frame_limit_and_small_ones_share_a_frame() {
        let runs = [Run::new(0, 3), Run::new(10, 6), Run::new(100, 1)];
        let mut parts = Parts { runs: runs.into_iter(), left: None };
        assert_eq!(parts.next_part(5), [Run::new(0, 3), Run::new(10, 2)]);
        assert_eq!(parts.next_part(5), [Run::new(12, 4), Run::new(100, 1)]);
        assert_eq!(parts.next_part(5), []);
    }
}
