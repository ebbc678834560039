//! Fetching pages: split into frames, several in flight, checked before a page is handed on.
//!
//! Owns: the order and completeness of what comes. Called by: the pager, in the faulting thread or a prefetcher. Must not:
//! copy pages: the sink sees them where they were received, or unpacked.

use core::sync::atomic::Ordering;
use std::time::Instant;

use netmem_protocol::control::{Changes, Committed};
use netmem_protocol::pages::encode_fetch;
use netmem_protocol::{
    CommitId, Disposition, Epoch, FLAG_PACKED, FRAME_PAGES_MAX, FRAME_RUNS_MAX, Kind, PageBody,
    ProtocolError, RegionId, RequestId, Run,
};

use super::client::Remote;
use super::commit::run_commit;
use super::connection::{Connection, Trouble};
use super::error::{CommitFailure, RemoteError, Why};
use super::packing::Transfer;
use super::patience::Patience;
use super::{CommitBody, PageSink, PageSource};

/// Requests sent ahead of the answer that is being read: enough to keep the wire busy while pages are installed.
const FRAMES_IN_FLIGHT_MAX: u64 = 4;

impl PageSource for Remote {
    fn fetch(
        &self,
        region: RegionId,
        epoch: Epoch,
        runs: &[Run],
        sink: &mut PageSink<'_>,
    ) -> Result<(), RemoteError> {
        let mut patience = self.patience();
        let began = Instant::now();
        // What was handed over stays so: after a reconnect it goes on with the next frame.
        let mut done = Cursor::default();
        let transfer = Transfer::Fetch(runs.iter().map(|run| u64::from(run.count)).sum());
        let mut packs = self.packing.choose(transfer);
        let mut as_a_whole = true;
        let mut job = Job { region, epoch, runs, sink, began: Some(began), packs, data_pages: 0 };
        while done.more(runs) {
            let mut lease = self.lease(&mut patience, false)?;
            let Some(connection) = lease.get() else {
                return Err(self.unreachable(Why::Closed, patience.waited()));
            };
            let before = done;
            packs &= connection.packs;
            job.packs = packs;
            // Kept with the connection, so that a fetch of a page allocates nothing.
            let mut wanted = core::mem::take(&mut connection.wanted);
            let outcome = job.run(connection, &mut wanted, &mut done, &mut patience, self);
            connection.wanted = wanted;
            match outcome {
                Ok(()) => self.answered(lease),
                Err((Trouble::Answer(code, text), in_flight))
                    if in_flight > 1 && code.disposition() == Disposition::Answer =>
                {
                    // The answers to what was sent ahead are still to come, and nobody will read them.
                    drop(lease);
                    return Err(RemoteError::Answer { code, text });
                }
                Err((trouble, _)) => {
                    as_a_whole = false;
                    if before != done {
                        patience.renew();
                    }
                    self.recover(lease, trouble, &mut patience)?;
                }
            }
        }
        if as_a_whole {
            self.packing.took(transfer, packs, job.data_pages, began);
        }
        Ok(())
    }

    fn changes(&self, region: RegionId, epoch: Epoch, until: Epoch) -> Result<Changes, RemoteError> {
        Remote::changes(self, region, epoch, until)
    }

    fn view(&self, region: RegionId, epoch: Epoch) -> Result<(), RemoteError> {
        Remote::view(self, region, epoch)
    }

    fn commit(&self, body: &mut CommitBody<'_>) -> Result<Vec<Committed>, CommitFailure> {
        run_commit(self, body)
    }

    fn keep(&self, of: RegionId, known: RegionId) -> Result<(RegionId, Epoch), RemoteError> {
        Remote::keep(self, of, known)
    }

    fn keeps(&self, of: RegionId, place: RegionId) {
        self.notes_pending(of, place);
    }

    fn commit_status(&self, region: RegionId, commit: CommitId) -> Result<Committed, RemoteError> {
        Remote::commit_status(self, region, commit)
    }
}

/// What a page costs on its way when many are: the rate that a new stream is first taken to have.
const PAGE_NS: u64 = 3_000;
/// Fetches of so many pages at the most are taken for a round trip.
const FEW_PAGES: u64 = 4;

impl Remote {
    /// How many pages the wire carries while one is waited for: 4 to 64.
    pub fn pages_in_a_round_trip(&self) -> u64 {
        (self.pool.stats.round_trip_ns.load(Ordering::Relaxed) / PAGE_NS).clamp(4, 64)
    }

    fn note_round_trip(&self, took: core::time::Duration) {
        let average = &self.pool.stats.round_trip_ns;
        let (before, took) = (average.load(Ordering::Relaxed), took.as_nanos() as u64);
        average.store(if before == 0 { took } else { before - before / 8 + took / 8 }, Ordering::Relaxed);
    }
}

struct Job<'a, 'b> {
    region: RegionId,
    epoch: Epoch,
    runs: &'a [Run],
    sink: &'a mut PageSink<'b>,
    /// When it was asked for, until something has come.
    began: Option<Instant>,
    /// Whether the answers may be packed.
    packs: bool,
    /// Pages that came with content.
    data_pages: u64,
}

impl Job<'_, '_> {
    /// Fetches from `done` on, moving it forward frame by frame. An error comes with the number of unread answers.
    fn run(
        &mut self,
        connection: &mut Connection,
        wanted: &mut Vec<Run>,
        done: &mut Cursor,
        patience: &mut Patience,
        remote: &Remote,
    ) -> Result<(), (Trouble, u64)> {
        let flags = if self.packs { FLAG_PACKED } else { 0 };
        let mut asked = *done;
        let mut oldest = RequestId(0);
        let mut in_flight = 0;
        while done.more(self.runs) {
            while in_flight < FRAMES_IN_FLIGHT_MAX && asked.more(self.runs) {
                wanted.clear();
                asked = asked.frame(self.runs, self.packs, wanted);
                let front = |out: &mut Vec<u8>| {
                    let start = out.len();
                    encode_fetch(wanted, out);
                    (out.len() - start) as u32
                };
                let request = connection
                    .send_raw((Kind::Fetch, flags), (self.region, self.epoch), front, &[], patience.deadline)
                    .map_err(|trouble| (trouble, in_flight))?;
                if in_flight == 0 {
                    oldest = request;
                }
                in_flight += 1;
            }
            let epoch = connection
                .receive_answer((Kind::Fetch, self.region), oldest, patience.deadline)
                .map_err(|trouble| (trouble, in_flight))?;
            if epoch != self.epoch && self.epoch != Epoch(0) {
                let error = ProtocolError::Malformed { what: "answer to a fetch: its epoch" };
                return Err((Trouble::Protocol(error), in_flight));
            }
            if let Some(began) = self.began.take() {
                crate::stats::FETCH_TIME.note(began);
                if self.runs.iter().map(|run| u64::from(run.count)).sum::<u64>() <= FEW_PAGES {
                    remote.note_round_trip(began.elapsed());
                }
            }
            wanted.clear();
            let next = done.frame(self.runs, self.packs, wanted);
            let with_sums = connection.with_sums;
            let body = connection.pages_body();
            body.and_then(|body| self.deliver(body, with_sums, wanted, remote)).map_err(|error| {
                if let ProtocolError::Corrupt { .. } = error {
                    crate::log::error!("{}: {error}; it is asked for again", remote.server());
                }
                (error.into(), in_flight)
            })?;
            *done = next;
            oldest = RequestId(oldest.0 + 1);
            in_flight -= 1;
            if done.more(self.runs) {
                patience.renew();
            }
        }
        Ok(())
    }

    /// Hands a frame's pages on if they are exactly those that were asked for.
    fn deliver(
        &mut self,
        (body, saved): (&[u8], usize),
        with_sums: bool,
        wanted: &[Run],
        remote: &Remote,
    ) -> Result<(), ProtocolError> {
        let pages = PageBody::parse(body, with_sums)?;
        let came = pages.runs().flat_map(|wire| wire.run.first.0..wire.run.end());
        if !came.eq(wanted.iter().flat_map(|run| run.first.0..run.end())) {
            return Err(ProtocolError::Malformed {
                what: "answer to a fetch: not the pages that were asked for",
            });
        }
        pages.verify()?;
        // Counted first: whoever waits for a page may be gone when the sink returns.
        let count: u64 = wanted.iter().map(|run| u64::from(run.count)).sum();
        remote.pool.stats.pages_fetched.fetch_add(count, Ordering::Relaxed);
        self.data_pages += u64::from(pages.data_pages());
        if saved > 0 {
            remote.packing.saved(pages.data_pages(), saved);
        }
        let mut spans = pages.spans().peekable();
        while let Some(span) = spans.next() {
            (self.sink)(span, spans.peek().is_some());
        }
        Ok(())
    }
}

/// Pages in the first frame of a fetch and in the others where they may come packed: they are unpacked in memory that far memory counts.
pub(super) const PACKED_FRAME_PAGES: [u32; 2] = [16, 64];
/// Pages in the first frame of a fetch, so that whoever waits has his soon, and in the others: few enough to be in the cache still
/// when they are installed.
const FRAME_PAGES: [u32; 2] = [16, 128];
const _: () = assert!(FRAME_PAGES[0] <= FRAME_PAGES_MAX && FRAME_PAGES[1] <= FRAME_PAGES_MAX);

/// A place in a list of runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Cursor {
    run: usize,
    page: u32,
    frames: usize,
}

impl Cursor {
    /// Whether pages are left.
    fn more(self, runs: &[Run]) -> bool {
        let mut left = runs.iter().skip(self.run).map(|run| run.count);
        left.next().is_some_and(|count| count > self.page) || left.any(|count| count > 0)
    }

    /// Appends what the next frame asks for, and returns the place behind it.
    fn frame(mut self, runs: &[Run], packs: bool, out: &mut Vec<Run>) -> Cursor {
        let most = if packs { PACKED_FRAME_PAGES } else { FRAME_PAGES };
        let mut room = most[self.frames.min(1)];
        self.frames += 1;
        let mut pieces = 0;
        while let Some(run) = runs.get(self.run) {
            if room == 0 || pieces == FRAME_RUNS_MAX {
                break;
            }
            let count = (run.count - self.page).min(room);
            if count > 0 {
                out.push(Run::new(run.first.0 + u64::from(self.page), count));
                room -= count;
                pieces += 1;
            }
            self.page += count;
            if self.page == run.count {
                self = Cursor { run: self.run + 1, page: 0, ..self };
            }
        }
        self
    }
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn frames_cover_every_page_once_and_in_order() {
        let runs = [Run::new(5, 1), Run::new(0, 0), Run::new(100, 700), Run::new(7, 2), Run::new(9, 0)];
        let mut cursor = Cursor::default();
        let mut pages = Vec::new();
        let mut sizes = Vec::new();
        while cursor.more(&runs) {
            let mut frame = Vec::new();
            cursor = cursor.frame(&runs, false, &mut frame);
            sizes.push(frame.iter().map(|run| run.count).sum::<u32>());
            pages.extend(frame.iter().flat_map(|run| run.first.0..run.end()));
        }
        let wanted: Vec<u64> = runs.iter().flat_map(|run| run.first.0..run.end()).collect();
        assert_eq!(pages, wanted);
        assert_eq!(sizes, [16, 128, 128, 128, 128, 128, 47]);
    }

    #[test]
    fn nothing_asked_is_no_frame() {
        assert!(!Cursor::default().more(&[]));
        assert!(!Cursor::default().more(&[Run::new(3, 0)]));
    }
}
