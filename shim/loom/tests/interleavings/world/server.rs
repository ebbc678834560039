//! A server with one region, whose page `p` is `10 + p` at epoch 1, and another one for what is pending of it.

use std::sync::Mutex;

use netmem_protocol::control::{Changes, Commit, Committed};
use netmem_protocol::{CommitId, Epoch, ErrorCode, PageBody, PageBodyBuilder, PageSpan, RegionId, Run};

use super::PAGE;
use super::files::{bytes_of, number_of};
use crate::remote::{Applied, CommitBody, CommitFailure, PageSink, PageSource, RemoteError, StageSink};

/// A page at each epoch, from 1.
type Epochs = Vec<Vec<u64>>;

pub struct Server {
    /// Held for a look, never while the model changes threads.
    epochs: Mutex<Epochs>,
    /// What is pending.
    pending: Mutex<Vec<u64>>,
    /// Commits that are still to be refused.
    refuse: Mutex<u32>,
}

impl Server {
    pub fn new(pages: u64) -> Server {
        let epochs = Mutex::new(vec![(0..pages).map(|page| 10 + page).collect()]);
        Server { epochs, pending: Mutex::new(vec![0; pages as usize]), refuse: Mutex::new(0) }
    }

    /// Another host changes a page.
    pub fn commit_as_other(&self, page: u64, value: u64) {
        self.add(&[(page, value)]);
    }

    /// The next commit is refused.
    pub fn refuse_one(&self) {
        *self.refuse.lock().expect("a number") += 1;
    }

    pub fn newest(&self, page: u64) -> u64 {
        self.epochs.lock().expect("pages").last().expect("an epoch")[page as usize]
    }

    fn add(&self, pages: &[(u64, u64)]) -> Committed {
        let mut epochs = self.epochs.lock().expect("pages");
        let mut next = epochs.last().expect("an epoch").clone();
        pages.iter().for_each(|(page, value)| next[*page as usize] = *value);
        let size = next.len() as u64 * PAGE;
        epochs.push(next);
        let epoch = epochs.len() as u64;
        Committed { epoch: Epoch(epoch), previous: Epoch(epoch - 1), size }
    }
}

/// The place of what is pending.
const PENDING: RegionId = RegionId(2);

struct Staged<'a>(Vec<(u64, u64)>, &'a Server);

impl StageSink for Staged<'_> {
    fn stage(&mut self, _: RegionId, builder: &PageBodyBuilder, data: &[u8]) -> Result<(), RemoteError> {
        let mut body = Vec::new();
        builder.encode_front(self.id(), &mut body);
        body.extend_from_slice(data);
        let pages = PageBody::parse(&body, false).expect("a body");
        self.0.extend(pages.pages().map(|(page, data)| (page, data.map_or(0, |data| number_of(data)))));
        Ok(())
    }

    fn stage_from(&mut self, _: RegionId, from: RegionId, runs: &[Run]) -> Result<(), RemoteError> {
        assert_eq!(from, PENDING);
        let pending = self.1.pending.lock().expect("pages");
        let pages = runs.iter().flat_map(|run| run.first.0..run.end());
        self.0.extend(pages.map(|page| (page, pending[page as usize])));
        Ok(())
    }

    fn id(&self) -> CommitId {
        CommitId(1)
    }
}

impl PageSource for Server {
    fn fetch(
        &self,
        region: RegionId,
        epoch: Epoch,
        runs: &[Run],
        sink: &mut PageSink<'_>,
    ) -> Result<(), RemoteError> {
        for page in runs.iter().flat_map(|run| run.first.0..run.end()) {
            let value = match region {
                PENDING => self.pending.lock().expect("pages")[page as usize],
                _ => self.epochs.lock().expect("pages")[epoch.0 as usize - 1][page as usize],
            };
            let bytes = bytes_of(value);
            let data = (value != 0).then_some(bytes.as_slice());
            sink(PageSpan { run: Run::new(page, 1), data, sums: &[] }, false);
        }
        Ok(())
    }

    fn changes(&self, _: RegionId, epoch: Epoch, until: Epoch) -> Result<Changes, RemoteError> {
        let epochs = self.epochs.lock().expect("pages");
        let until = if until == Epoch(0) { epochs.len() } else { until.0 as usize };
        let (old, new) = (&epochs[epoch.0 as usize - 1], &epochs[until - 1]);
        let changed = (0..).zip(old.iter().zip(new)).filter(|(_, (old, new))| old != new);
        let runs = changed.map(|(page, _)| Run::new(page, 1)).collect();
        Ok(Changes { epoch: Epoch(until as u64), size: new.len() as u64 * PAGE, runs, base_kept: true })
    }

    fn view(&self, _: RegionId, _: Epoch) -> Result<(), RemoteError> {
        Ok(())
    }

    fn commit(&self, body: &mut CommitBody<'_>) -> Result<Vec<Committed>, CommitFailure> {
        let mut staged = Staged(Vec::new(), self);
        let failure = |error| CommitFailure { error, id: CommitId(1), applied: Applied::No };
        let parts: Vec<(RegionId, Commit)> = body(&mut staged).map_err(failure)?;
        if parts[0].0 == PENDING {
            let mut pending = self.pending.lock().expect("pages");
            staged.0.iter().for_each(|(page, value)| pending[*page as usize] = *value);
            return Ok(vec![Committed { epoch: Epoch(1), previous: Epoch(1), size: 0 }]);
        }
        let mut refuse = self.refuse.lock().expect("a number");
        if *refuse > 0 {
            *refuse -= 1;
            let text = "full".to_owned();
            return Err(failure(RemoteError::Answer { code: ErrorCode::Full, text }));
        }
        Ok(vec![self.add(&staged.0)])
    }

    fn keep(&self, _: RegionId, _: RegionId) -> Result<(RegionId, Epoch), RemoteError> {
        Ok((PENDING, Epoch(1)))
    }

    fn keeps(&self, _: RegionId, _: RegionId) {}

    fn commit_status(&self, _: RegionId, _: CommitId) -> Result<Committed, RemoteError> {
        Err(RemoteError::Answer { code: ErrorCode::NotFound, text: String::new() })
    }
}
