//! Sending the waiting room to the server, a few blocks a commit.
//!
//! Owns: what of a block has to be sent, and what the answer changes. Called by: the keeper, and fork. Must not: hold the lock while it
//! sends or sums up: who is touched meanwhile gets a copy, and the page stays where it is.
//!
//! A7. What the server has of a page counts as unknown from before it is sent until that is acknowledged. So a page that was touched
//! meanwhile is never taken for what was there before.

use core::sync::atomic::Ordering;

use netmem_protocol::control::Commit;
use netmem_protocol::pages::page_sum;
use netmem_protocol::{CommitId, Epoch, ErrorCode, FRAME_PAGES_MAX, PageBodyBuilder, RegionId, Run, RunKind};

use super::table::{Place, SUM_UNKNOWN};
use super::{Far, counters};
use crate::remote::{PageSource, RemoteError, StageSink};
use crate::stats;
use crate::sys::mem::{self, PAGE};
use crate::sys::uffd::MODE_MISSING;

/// Pages in one frame at the most: it is put together in memory that counts.
const STAGE_PAGES: u32 = 64;
const _: () = assert!(STAGE_PAGES <= FRAME_PAGES_MAX);
/// Blocks in one commit at the most.
const BLOCKS_MAX: usize = 4;
/// Runs of places that nobody needs any more, in one commit at the most.
const EMPTIED_RUNS_MAX: usize = 64;
/// Pages of such runs in one commit at the most.
const EMPTIED_PAGES_MAX: u32 = 16 << 10;

/// A page to be sent.
struct Sent {
    slot: u64,
    place: u32,
    sum: u64,
}

/// What has to be sent, or that it can't be.
type Chosen = Result<Vec<Sent>, ()>;

impl Far {
    /// Sends the blocks that waited longest, with `all` those that are not full too. How many pages of memory were given back, none if there
    /// was no block; an error was logged, and everything waits on.
    pub(super) fn send(&self, all: bool) -> Result<Option<usize>, ()> {
        let mut blocks = Vec::new();
        let mut waiting = Vec::new();
        {
            let mut state = self.state.lock();
            while blocks.len() < BLOCKS_MAX
                && let Some(block) = state.room.leave(all)
            {
                blocks.push(block);
                waiting.extend(state.room.waiting(block));
            }
        }
        if blocks.is_empty() {
            return Ok(None);
        }
        let address = |place: u32| self.state.lock().room.address(place);
        let base = address(0);
        let page_in = |place: u32| -> &[u8] {
            // SAFETY: the block is leaving, so nobody moves its pages or gives them back but this function, at its end.
            unsafe { core::slice::from_raw_parts((base + place as usize * PAGE) as *const u8, PAGE) }
        };
        let sums: Vec<Option<u64>> = waiting.iter().map(|(place, _)| sum_of(page_in(*place))).collect();
        let (chosen, emptied) = self.choose(&waiting, &sums);
        if self.full.is() && !emptied.is_empty() {
            // What is given up goes first: what comes finds its room.
            if self.send_pages(&[], &emptied, &page_in).is_ok() {
                self.state.lock().table.emptied(&emptied);
            } else {
                self.state.lock().table.not_emptied(emptied);
            }
            return self.send_chosen(&blocks, (&waiting, chosen), Vec::new(), &page_in);
        }
        self.send_chosen(&blocks, (&waiting, chosen), emptied, &page_in)
    }

    fn send_chosen<'p>(
        &self,
        blocks: &[u32],
        (waiting, chosen): (&[(u32, usize)], Chosen),
        emptied: Vec<Run>,
        page_in: &impl Fn(u32) -> &'p [u8],
    ) -> Result<Option<usize>, ()> {
        let sent = chosen.as_deref().unwrap_or_default();
        let came =
            chosen.is_ok().then_some(()).ok_or(()).and_then(|()| self.send_pages(sent, &emptied, page_in));
        let mut state = self.state.lock();
        let Ok(()) = came else {
            state.table.not_emptied(emptied);
            blocks.iter().rev().for_each(|block| state.room.come_back(*block));
            return Err(());
        };
        for Sent { place, sum, .. } in sent {
            // At the address that it has now; it took its place at the server along.
            if let Some(page) = state.room.page_at(*place) {
                state.room.set(*place, None);
                state.table.note(page, |entry| (entry.place, entry.sum) = (Place::Far, *sum));
            }
        }
        state.table.emptied(&emptied);
        drop(state);
        for block in blocks {
            let (at, length) = self.state.lock().room.span(*block);
            // Past the userfaultfd, or the monitor would be asked first.
            if self.uffd.unregister(at, length).is_ok() {
                // SAFETY: nobody waits in the block.
                let _ = unsafe { mem::madvise(at, length, libc::MADV_DONTNEED) };
                let _ = self.uffd.register(at, length, MODE_MISSING);
            }
            self.state.lock().room.emptied(*block);
        }
        stats::add(&counters::PAGES_OUT, sent.len() as u64);
        Ok(Some(waiting.len()))
    }

    /// What has to be sent; the others are where they belong. Who is zeros is forgotten, and who is as the server has him is far.
    /// An error if the region is as large as one can be.
    fn choose(&self, waiting: &[(u32, usize)], sums: &[Option<u64>]) -> (Chosen, Vec<Run>) {
        let mut sent = Vec::with_capacity(waiting.len());
        let (mut zero, mut clean) = (0, 0);
        let mut state = self.state.lock();
        let state = &mut *state;
        for ((place, _), sum) in waiting.iter().zip(sums) {
            // Nobody: touched meanwhile, or given up. The address may be another by now.
            let Some(page) = state.room.page_at(*place) else { continue };
            match sum {
                None => {
                    state.table.drop_range(page..page + 1, |_| {});
                    state.room.set(*place, None);
                    zero += 1;
                }
                Some(sum) if *sum == state.table.get(page).sum => {
                    state.table.note(page, |entry| entry.place = Place::Far);
                    state.room.set(*place, None);
                    clean += 1;
                }
                Some(sum) => {
                    let Some(slot) = state.table.slot_for(page) else { return (Err(()), Vec::new()) };
                    state.table.note(page, |entry| entry.sum = SUM_UNKNOWN);
                    sent.push(Sent { slot, place: *place, sum: *sum });
                }
            }
        }
        let mut emptied = state.table.take_dropped(EMPTIED_RUNS_MAX);
        let mut pages = 0;
        let fits = emptied.iter().take_while(|run| {
            pages += run.count;
            pages <= EMPTIED_PAGES_MAX
        });
        let fits = fits.count();
        state.table.not_emptied(emptied.split_off(fits.max(1).min(emptied.len())));
        sent.sort_unstable_by_key(|sent| sent.slot);
        stats::add(&counters::PAGES_ZERO, zero);
        stats::add(&counters::PAGES_CLEAN, clean);
        (Ok(sent), emptied)
    }

    /// One commit. Whether it happened, or was not needed.
    fn send_pages<'p>(
        &self,
        sent: &[Sent],
        emptied: &[Run],
        page_in: &impl Fn(u32) -> &'p [u8],
    ) -> Result<(), ()> {
        if sent.is_empty() && emptied.is_empty() {
            return Ok(());
        }
        let base = Epoch(self.epoch.load(Ordering::Relaxed));
        let commit =
            Commit { commit: CommitId(0), staged_pages: 0, base, strict: false, cut: None, size: None };
        let committed = self.remote.commit(&mut |sink| {
            stage(sink, self.region(), sent, page_in)?;
            stage_zeros(sink, self.region(), emptied)?;
            Ok(vec![(self.region(), commit.clone())])
        });
        match committed {
            Ok(done) => {
                let epoch = done.first().map_or(base.0, |done| done.epoch.0);
                self.epoch.store(epoch, Ordering::Relaxed);
                if !sent.is_empty() {
                    self.full.ends();
                }
                Ok(())
            }
            Err(failure) => {
                if matches!(failure.error, RemoteError::Answer { code: ErrorCode::Full, .. }) {
                    self.full.begins(&failure.error);
                    self.state.lock().table.give_up_copies();
                } else {
                    self.full.say(&failure.error);
                }
                // It may have happened all the same: then what comes next has to begin there. What it sent counts as unknown (A7).
                if let Ok(entry) = self.remote.open_id(self.region()) {
                    self.epoch.store(entry.epoch.0, Ordering::Relaxed);
                }
                Err(())
            }
        }
    }
}

/// None for zeros.
fn sum_of(page: &[u8]) -> Option<u64> {
    let is_zero = page.first() == Some(&0) && page.iter().all(|byte| *byte == 0);
    (!is_zero).then(|| page_sum(page))
}

fn stage<'p>(
    sink: &mut dyn StageSink,
    region: RegionId,
    sent: &[Sent],
    page_in: &impl Fn(u32) -> &'p [u8],
) -> Result<(), RemoteError> {
    let mut builder = PageBodyBuilder::default();
    let mut data = Vec::with_capacity(sent.len().min(STAGE_PAGES as usize) * PAGE);
    for one in sent {
        builder.push_data(one.slot, one.sum);
        data.extend_from_slice(page_in(one.place));
        if builder.pages() == STAGE_PAGES {
            sink.stage(region, &builder, &data)?;
            builder.clear();
            data.clear();
        }
    }
    if builder.pages() > 0 { sink.stage(region, &builder, &data) } else { Ok(()) }
}

fn stage_zeros(sink: &mut dyn StageSink, region: RegionId, runs: &[Run]) -> Result<(), RemoteError> {
    let mut builder = PageBodyBuilder::default();
    for slot in runs.iter().flat_map(|run| run.first.0..run.end()) {
        builder.push(slot, RunKind::Zero);
        if !builder.has_room() {
            sink.stage(region, &builder, &[])?;
            builder.clear();
        }
    }
    if builder.pages() > 0 { sink.stage(region, &builder, &[]) } else { Ok(()) }
}
