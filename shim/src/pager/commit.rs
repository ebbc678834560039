//! Commits: everything dirty in a region, or in several, goes up and becomes visible at once.
//!
//! Owns: staging, and what is known of a region afterwards. Called by: abi for msync and its kin. Must not:
//! return an error before the marks are back (habit 8).

use core::sync::atomic::Ordering;

use netmem_protocol::control::{Commit, Committed};
use netmem_protocol::{CommitId, Epoch, ErrorCode, RegionId};

use super::flush::{Capture, Flush};
use super::region::{PagerError, Region, Unresolved};
use super::table::{Board, Frames, HostLock, SUM_UNKNOWN};
use super::view::{BEHIND, Own};
use crate::remote::{Applied, CommitFailure, PageSource, RemoteError};
use crate::sys::clock::Deadline;
use crate::sys::errno::Errno;

/// How often a commit starts over because the connection broke under it.
const ATTEMPTS_MAX: u32 = 8;

/// Where marks come from before a capture: the engine's own notes and the page tables of this and of other processes.
pub type Harvest<'a> = dyn Fn(&mut dyn FnMut(u64, u64)) + 'a;

/// What a commit did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CommitReport {
    /// The region's epoch afterwards.
    pub epoch: Epoch,
    /// Pages that went up, pages of zeros counted.
    pub pages: u64,
}

/// How a commit is to be made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CommitOptions {
    /// Fail with ESTALE rather than merge with another host's commit.
    pub strict: bool,
}

/// Why an attempt failed, before it is known whether it did.
enum CommitError {
    /// On this side: it did.
    Pager(PagerError),
    /// On the way.
    Server(CommitFailure),
}

impl From<Errno> for CommitError {
    fn from(errno: Errno) -> Self {
        CommitError::Pager(errno.into())
    }
}

/// Nobody on the host stores into the regions of a commit while it lives.
pub trait Held {
    /// Lets everybody go on. EBUSY if somebody did so before.
    fn end(self: Box<Self>) -> Result<(), Errno>;
}

/// Stops everybody's stores, for a commit of one instant.
pub type Holding<'a> = dyn Fn() -> Result<Box<dyn Held + 'a>, Errno> + 'a;

/// How regions are committed.
#[derive(Clone, Copy)]
pub struct How<'a> {
    /// To where.
    pub source: &'a dyn PageSource,
    /// By which rules.
    pub options: CommitOptions,
    /// As they are at one instant, or each page as it goes.
    pub holding: Option<&'a Holding<'a>>,
    /// Until when it may take.
    pub deadline: Deadline,
}

/// A region that is committed, and where its marks come from.
#[derive(Clone, Copy)]
pub struct Member<'a, C> {
    /// The region.
    pub region: &'a Region<C>,
    /// Its harvest.
    pub harvest: &'a Harvest<'a>,
}

/// Commits everything that was stored in these regions before the call, by any process of the host: as one commit. Each is named once, in
/// the order in which a process takes its regions' locks. One report for each.
pub fn commit_together<C: Board + Frames>(
    members: &[Member<'_, C>],
    how: &How<'_>,
) -> Result<Vec<CommitReport>, PagerError> {
    let _one_at_a_time: Vec<_> = members.iter().map(|member| member.region.maintenance.lock()).collect();
    // Among the processes of a host there is an order, too: that of the numbers.
    let mut files: Vec<_> = members.iter().map(|member| (member.region.id, &member.region.cache)).collect();
    files.sort_unstable_by_key(|(id, _)| *id);
    let hosts = files.into_iter().map(|(_, cache)| HostLock::take(cache)).collect::<Result<Vec<_>, Errno>>();
    let _hosts = hosts?;
    let mut attempt = 0;
    loop {
        attempt += 1;
        match commit_once(members, how) {
            Err(PagerError::Remote(RemoteError::Lost { .. }))
                if attempt < ATTEMPTS_MAX && !how.deadline.passed() => {}
            // What a process that was killed had committed has been brought here. Under strict rules that may be another host's, too.
            Err(error) if error.is_behind() && !how.options.strict && attempt < ATTEMPTS_MAX => {}
            result => return result,
        }
    }
}

fn commit_once<C: Board + Frames>(
    members: &[Member<'_, C>],
    how: &How<'_>,
) -> Result<Vec<CommitReport>, PagerError> {
    let How { source, options, holding, deadline } = *how;
    for Member { region, .. } in members {
        region.settle_unresolved(source)?;
        if region.cache.control().behind.load(Ordering::SeqCst) != 0 {
            region.refresh_locked(source)?;
        }
    }
    let held = holding.map(|holding| holding()).transpose()?;
    let flushes = members.iter().map(|member| member.region.gather(member.harvest, deadline));
    let mut flushes = flushes.collect::<Result<Vec<_>, PagerError>>()?;
    if let Some(held) = held {
        // I4: what goes up is what the pages were at one instant, between the last answer and this.
        flushes.iter_mut().try_for_each(Flush::freeze)?;
        held.end()?;
    }
    let result = send(source, &mut flushes, options);
    let done = match resolve_lost(source, result, &flushes) {
        Ok(done) => done,
        Err(error) => {
            drop(flushes);
            if error.is_stale() || error.is_behind() {
                // Nothing to merge against is left on the server; what was stored here stays and goes up on top of the
                // newest commit next time.
                members.iter().try_for_each(|member| member.region.refresh_locked(source))?;
            }
            return Err(error);
        }
    };
    let reports = flushes.iter().map(|flush| {
        let done = done.iter().find(|(id, _)| *id == flush.region.id).map(|(_, done)| *done);
        flush.region.conclude(source, flush.sending.clone(), done)
    });
    // Not lazily: each is concluded.
    let reports: Vec<_> = reports.collect();
    let pending = flushes.iter().map(|flush| (flush.region, flush.pending.clone()));
    let emptied =
        |(region, pages): &(&Region<C>, Vec<u64>)| !pages.is_empty() && region.unresolved.lock().is_none();
    let emptied: Vec<_> = pending.filter(emptied).collect();
    // All of them: what went up is no longer dirty, whatever becomes of one. Not before its checksum and the view are those of the commit:
    // it could leave, and come back as it was (E5).
    flushes.into_iter().for_each(Flush::end);
    for (region, pages) in emptied {
        region.empty_pending(source, &pages, deadline);
    }
    reports.into_iter().collect()
}

/// The commit's regions that changed, and what became of them.
type Done = Vec<(RegionId, Committed)>;

/// Captures, drops what equals its base, stages the rest and makes it visible. Nothing: nothing had changed.
fn send<C: Board + Frames>(
    source: &dyn PageSource,
    flushes: &mut [Flush<'_, C>],
    options: CommitOptions,
) -> Result<Done, CommitError> {
    let mut parts: Vec<&mut Flush<'_, C>> = flushes.iter_mut().filter(|flush| !flush.is_empty()).collect();
    parts.sort_unstable_by_key(|flush| flush.region.id);
    let mut parts = parts.into_iter().map(Part::begin).collect::<Result<Vec<_>, Errno>>()?;
    // Up to the first page that really changed, nobody is asked for a connection.
    parts.retain(|part| part.more || !part.pending.is_empty() || part.cut.is_some() || part.resized);
    if parts.is_empty() {
        return Ok(Vec::new());
    }
    let mut trouble = None;
    let done = source.commit(&mut |sink| {
        let mut messages = Vec::with_capacity(parts.len());
        for part in &mut parts {
            let region = part.region;
            *part.id = sink.id();
            while part.more {
                let (pages, data) = part.capture.frame();
                sink.stage(region, pages, data)?;
                match part.capture.next(part.sent) {
                    Ok(another) => part.more = another,
                    Err(errno) => {
                        // An unreadable page cache: the stream is dropped unfinished, and the server forgets it.
                        trouble = Some(errno);
                        let (code, text) = (ErrorCode::Internal, "the page cache failed".into());
                        return Err(RemoteError::Answer { code, text });
                    }
                }
            }
            Region::<C>::stage_pending(sink, (region, part.place), part.pending)?;
            part.sent.extend(part.pending.iter().map(|page| (*page, SUM_UNKNOWN)));
            part.sent.sort_unstable_by_key(|(page, _)| *page);
            // The stream fills in number and page count.
            let (commit, staged_pages, base, cut) = (CommitId(0), 0, part.base, part.cut);
            let size = part.resized.then_some(part.size);
            messages.push((region, Commit { commit, staged_pages, base, strict: options.strict, cut, size }));
        }
        Ok(messages)
    });
    match (done, trouble) {
        (_, Some(errno)) => Err(CommitError::Pager(errno.into())),
        (Ok(done), None) => Ok(parts.iter().map(|part| part.region).zip(done).collect()),
        (Err(failure), None) => Err(CommitError::Server(failure)),
    }
}

/// A region on its way up.
struct Part<'a, C: Board + Frames> {
    region: RegionId,
    capture: Capture<'a, C>,
    /// The frame has pages that did not go up yet.
    more: bool,
    /// Pages that are pending, and where.
    pending: &'a [u64],
    place: RegionId,
    id: &'a mut CommitId,
    sent: &'a mut Vec<(u64, u64)>,
    base: Epoch,
    cut: Option<u64>,
    size: u64,
    resized: bool,
}

impl<'a, C: Board + Frames> Part<'a, C> {
    fn begin(flush: &'a mut Flush<'_, C>) -> Result<Self, Errno> {
        let Flush { region, pages, pending, sending, resized, frozen, .. } = flush;
        let Unresolved { id, base, sent, size, cut, .. } = sending;
        let mut capture = Capture::new(region, pages, frozen, *size);
        let more = capture.next(sent)?;
        Ok(Part {
            region: region.id,
            capture,
            more,
            pending,
            place: region.pending_place().0,
            id,
            sent,
            base: *base,
            cut: *cut,
            size: *size,
            resized: *resized,
        })
    }
}

/// A commit whose answer was lost has happened or not; the server knows by its number.
fn resolve_lost<C: Board + Frames>(
    source: &dyn PageSource,
    result: Result<Done, CommitError>,
    flushes: &[Flush<'_, C>],
) -> Result<Done, PagerError> {
    let (error, id) = match result {
        Ok(done) => return Ok(done),
        Err(CommitError::Pager(error)) => return Err(error),
        Err(CommitError::Server(CommitFailure { error, applied: Applied::No, .. })) => {
            return Err(error.into());
        }
        Err(CommitError::Server(CommitFailure { error, id, applied: Applied::Maybe })) => (error, id),
    };
    let sent = || flushes.iter().filter(|flush| flush.sending.id == id);
    let mut done = Vec::new();
    for flush in sent() {
        match source.commit_status(flush.region.id, id) {
            Ok(committed) => done.push((flush.region.id, committed)),
            // What the server denies of one region it will not apply to any.
            Err(RemoteError::Answer { code: ErrorCode::NotFound, .. }) => return Err(error.into()),
            Err(error) => {
                sent().for_each(|flush| flush.region.keep_unresolved(flush.sending.clone()));
                return Err(error.into());
            }
        }
    }
    Ok(done)
}

impl<C: Board + Frames> Region<C> {
    /// Commits everything that was stored in the region before the call, by any process of the host.
    pub fn commit(
        &self,
        source: &dyn PageSource,
        harvest: &Harvest<'_>,
        options: CommitOptions,
        deadline: Deadline,
    ) -> Result<CommitReport, PagerError> {
        let reports = commit_together(
            &[Member { region: self, harvest }],
            &How { source, options, holding: None, deadline },
        )?;
        Ok(reports.first().copied().unwrap_or_default())
    }

    /// After a commit that stands.
    fn conclude(
        &self,
        source: &dyn PageSource,
        sending: Unresolved,
        done: Option<Committed>,
    ) -> Result<CommitReport, PagerError> {
        let Some(done) = done else { return Ok(CommitReport { epoch: sending.base, pages: 0 }) };
        let pages = sending.sent.len() as u64;
        match self.committed(source, sending, done) {
            // The next commit, or the next refresh, starts with what is missing of it.
            Err(error) if self.unresolved.lock().is_some() => {
                crate::log::debug!("refresh after commit {}: {error}", done.epoch);
            }
            committed => committed?,
        }
        Ok(CommitReport { epoch: self.view(), pages })
    }

    /// Finds out about a commit whose outcome was not known when it was given up. Until that is known nothing can be compared:
    /// a page may differ from the server's although it equals its base here.
    pub(super) fn settle_unresolved(&self, source: &dyn PageSource) -> Result<(), PagerError> {
        let Some(lost) = self.unresolved.lock().take() else { return Ok(()) };
        let settled = match source.commit_status(self.id, lost.id) {
            // Another process of the host has brought it here in the meantime, like another host's; what it has done to the size
            // since then stays, and what was stored is compared with what the server has.
            Ok(done) if self.view() >= done.epoch => Ok(()),
            Ok(done) => self.committed(source, lost, done),
            Err(RemoteError::Answer { code: ErrorCode::NotFound, .. }) => Ok(()),
            Err(error) => {
                self.keep_unresolved(lost);
                Err(error.into())
            }
        };
        if self.unresolved.lock().is_none()
            && let Some(kept) = self.kept.lock().take()
        {
            self.cache.end_use(kept);
        }
        settled
    }

    /// In a forked child, whose place in the region is another: as before.
    pub fn keep_again(&self) {
        if let Some(kept) = &mut *self.kept.lock() {
            *kept = self.cache.begin_use(0, u64::MAX);
        }
    }

    /// Leaves a commit to be settled. Until then no page may leave: one that went up and was made again what it was before would be
    /// taken for clean (E5).
    fn keep_unresolved(&self, lost: Unresolved) {
        self.kept.lock().get_or_insert_with(|| self.cache.begin_use(0, u64::MAX));
        *self.unresolved.lock() = Some(lost);
    }

    /// Moves the bases to what was sent, and the view to the new epoch. If that fails, it is left to be settled: a newer epoch that came
    /// in its place would undo what was stored since.
    fn committed(
        &self,
        source: &dyn PageSource,
        mut sent: Unresolved,
        done: Committed,
    ) -> Result<(), PagerError> {
        let control = self.cache.control();
        // Once: pages that were patched since have the checksum of what they were merged to, by which the second attempt knows them.
        if !sent.noted {
            for (page, sum) in &sent.sent {
                self.with_entry(*page, |entry| entry.sum.store(*sum, Ordering::Release))?;
            }
            control.cut.store(u64::MAX, Ordering::SeqCst);
            control.size_changed.store(0, Ordering::SeqCst);
            control.server_size.store(sent.size, Ordering::SeqCst);
            sent.noted = true;
        }
        if done.previous == sent.base || done.epoch == sent.base {
            control.view.store(done.epoch.0, Ordering::SeqCst);
            self.no_longer_pending(&sent.sent);
            return Ok(());
        }
        // Another host was in between: what it changed has to come here too, in our pages where we did not change them.
        let own = Own { sent: &sent.sent, cut: sent.cut.unwrap_or(u64::MAX), done };
        let followed = match self.move_view(source, done.previous, Some(own)) {
            // The server was short of memory: what it has now is all that can be had.
            Err(error) if error.is_stale() => self.refresh_locked(source),
            followed => followed,
        };
        if followed.is_err() {
            control.behind.fetch_max(BEHIND, Ordering::SeqCst);
            self.keep_unresolved(sent);
        }
        followed
    }
}
