//! The pager where another host commits in a moment that a test chooses.

use core::time::Duration;
use std::sync::Mutex;

use netmem_protocol::control::{Changes, Committed};
use netmem_protocol::{CommitId, Epoch, PAGE_SIZE, RegionId, Run};

use super::commit::CommitOptions;
use super::fake::{FakeCache, FakeFiles};
use super::region::PagerError;
use super::{Frames, Region};
use crate::remote::fake::{FakeSource, When};
use crate::remote::{CommitBody, CommitFailure, PageSink, PageSource, RemoteError};
use crate::sys::clock::Deadline;

const PAGE: u64 = PAGE_SIZE as u64;

fn soon() -> Deadline {
    Deadline::after(Some(Duration::from_secs(10)))
}

fn filled(byte: u8) -> [u8; PAGE_SIZE] {
    [byte; PAGE_SIZE]
}

/// A server with a region of `pages` pages that hold 1, 2, 3, …, and a host that has none of them.
fn server_and_host(pages: u64) -> (FakeSource, RegionId, &'static FakeFiles) {
    let source = FakeSource::new();
    let id = source.create(pages * PAGE);
    let content: Vec<_> = (0..pages).map(|page| (page, filled((page as u8).wrapping_add(1)))).collect();
    source.commit_as_other(id, &content, None);
    let files = FakeFiles::primed(pages * PAGE, source.epoch(id));
    (source, id, files)
}

fn commit(
    region: &Region<FakeCache>,
    source: &dyn PageSource,
    stored: &[u64],
    strict: bool,
) -> Result<u64, PagerError> {
    let harvest = |note: &mut dyn FnMut(u64, u64)| stored.iter().for_each(|page| note(*page, 1));
    region.commit(source, &harvest, CommitOptions { strict }, soon()).map(|report| report.pages)
}

type Act<'a> = Mutex<Box<dyn FnMut() + Send + 'a>>;

/// A server beside which something happens: before pages come from it, before it gets a commit, and after.
struct Beside<'a> {
    source: &'a FakeSource,
    fetching: Act<'a>,
    committing: Act<'a>,
    committed: Act<'a>,
}

impl<'a> Beside<'a> {
    fn of(source: &'a FakeSource) -> Self {
        let (fetching, committing, committed) = (act(|| ()), act(|| ()), act(|| ()));
        Beside { source, fetching, committing, committed }
    }
}

fn act<'a>(act: impl FnMut() + Send + 'a) -> Act<'a> {
    Mutex::new(Box::new(act))
}

/// Only the first time.
fn once<'a>(first: impl FnOnce() + Send + 'a) -> Act<'a> {
    let mut first = Some(first);
    act(move || first.take().into_iter().for_each(|first| first()))
}

fn happen(act: &Act<'_>) {
    act.lock().unwrap()();
}

impl PageSource for Beside<'_> {
    fn fetch(
        &self,
        region: RegionId,
        epoch: Epoch,
        runs: &[Run],
        sink: &mut PageSink<'_>,
    ) -> Result<(), RemoteError> {
        happen(&self.fetching);
        self.source.fetch(region, epoch, runs, sink)
    }

    fn changes(&self, region: RegionId, epoch: Epoch, until: Epoch) -> Result<Changes, RemoteError> {
        self.source.changes(region, epoch, until)
    }

    fn view(&self, region: RegionId, epoch: Epoch) -> Result<(), RemoteError> {
        self.source.view(region, epoch)
    }

    fn commit(&self, body: &mut CommitBody<'_>) -> Result<Vec<Committed>, CommitFailure> {
        let mut staged_first = |sink: &mut dyn crate::remote::StageSink| {
            let commit = body(sink);
            happen(&self.committing);
            commit
        };
        let committed = self.source.commit(&mut staged_first);
        happen(&self.committed);
        committed
    }

    fn keep(&self, of: RegionId, known: RegionId) -> Result<(RegionId, Epoch), RemoteError> {
        self.source.keep(of, known)
    }

    fn keeps(&self, _: RegionId, _: RegionId) {}

    fn commit_status(&self, region: RegionId, commit: CommitId) -> Result<Committed, RemoteError> {
        self.source.commit_status(region, commit)
    }
}

#[test]
fn what_was_written_again_behind_a_cut_is_committed_whatever_another_host_put_there() {
    let (source, id, files) = server_and_host(8);
    let region = files.attach(id, 0);
    region.bring_in(&source, 0, 8, false, soon()).unwrap();
    // The file is cut and written again, page 5 with what it had, page 2 with something else.
    region.truncate(&source, PAGE + 10, soon()).unwrap();
    region.truncate(&source, 8 * PAGE, soon()).unwrap();
    region.bring_in(&source, 0, 8, true, soon()).unwrap();
    files.store(5, 0, &filled(6));
    files.store(2, 0, &filled(70));
    files.store(1, 2000, &[2; 100]);
    // Another host knows nothing of that.
    source.commit_as_other(id, &[(1, filled(91)), (2, filled(92)), (5, filled(95)), (6, filled(96))], None);
    region.refresh(&source).unwrap();
    commit(&region, &source, &[1, 2, 5], false).unwrap();
    for page in 0..8 {
        assert!(files.see(page) == source.page(id, page), "page {page} is another on the server");
    }
    assert_eq!((files.see(2), files.see(5), files.see(6)), (filled(70), filled(6), filled(0)));
    let page = files.see(1);
    assert_eq!((page[9], page[10], page[1999], page[2000], page[2100]), (91, 0, 0, 2, 0));
}

#[test]
fn a_file_that_another_host_made_longer_is_never_longer_here_than_what_can_be_had_of_it() {
    let (source, id, files) = server_and_host(2);
    let region = files.attach(id, 0);
    region.bring_in(&source, 0, 2, false, soon()).unwrap();
    source.commit_as_other(id, &[(0, filled(50)), (5, filled(55))], Some(6 * PAGE));
    let beside = Beside::of(&source);
    let look = || {
        let inside = region.cache.size().unwrap().div_ceil(PAGE);
        let zeros = inside > 5 && region.reads_right(5, 6) && files.see(5) != filled(55);
        assert!(!zeros, "a read that comes now would get zeros");
    };
    *beside.fetching.lock().unwrap() = Box::new(look);
    region.refresh(&beside).unwrap();
    region.bring_in(&source, 5, 6, false, soon()).unwrap();
    assert_eq!((files.see(0), files.see(5)), (filled(50), filled(55)));
}

#[test]
fn what_another_host_appended_is_here_also_where_a_write_went_behind_it_meanwhile() {
    let (source, id, files) = server_and_host(2);
    let region = files.attach(id, 0);
    region.bring_in(&source, 0, 2, false, soon()).unwrap();
    region.truncate(&source, PAGE + 100, soon()).unwrap();
    commit(&region, &source, &[], false).unwrap();
    let mut theirs = source.page(id, 1);
    theirs[50] = 44;
    theirs[100..200].fill(55);
    source.commit_as_other(id, &[(1, theirs)], Some(PAGE + 200));
    let written: Vec<_> = [[0; 150].as_slice(), &[7; 50]].concat();
    let mut beside = Beside::of(&source);
    beside.fetching = once(|| assert!(region.cache.append(PAGE + 100, &written).unwrap()));
    region.refresh(&beside).unwrap();
    commit(&region, &source, &[1], false).unwrap();
    assert_eq!((region.cache.size().unwrap(), source.size(id)), (PAGE + 300, PAGE + 300));
    theirs[250..300].fill(7);
    assert!(files.see(1) == theirs && source.page(id, 1) == theirs);
}

#[test]
fn a_store_made_during_a_commit_that_was_merged_stays_also_if_it_is_the_old_value() {
    let (source, id, files) = server_and_host(3);
    let region = files.attach(id, 0);
    region.bring_in(&source, 0, 3, false, soon()).unwrap();
    files.store(0, 100, &[77, 78, 79]);
    let mut theirs = filled(1);
    theirs[101] = 33;
    theirs[200] = 44;
    let mut beside = Beside::of(&source);
    beside.committing = once(|| _ = source.commit_as_other(id, &[(0, theirs), (1, filled(99))], None));
    // It went up as 77, and is what it was when the answer comes.
    beside.committed = once(|| files.store(0, 100, &[1, 1]));
    commit(&region, &beside, &[0], false).unwrap();
    let page = files.see(0);
    assert_eq!((page[100], page[101], page[102], page[200]), (1, 1, 79, 44));
    assert_eq!(files.see(1), filled(99));
    let page = source.page(id, 0);
    assert_eq!((page[100], page[101], page[102], page[200]), (77, 78, 79, 44));
    commit(&region, &source, &[0], true).unwrap();
    assert!(source.page(id, 0) == files.see(0));
}

#[test]
fn a_merged_commit_follows_what_another_host_appended_and_keeps_what_was_appended_here() {
    for (mine, theirs) in [(6, 4), (4, 6), (5, 5)] {
        let (source, id, files) = server_and_host(3);
        let region = files.attach(id, 0);
        region.truncate(&source, mine * PAGE, soon()).unwrap();
        region.bring_in(&source, mine - 1, mine, true, soon()).unwrap();
        files.store(mine - 1, 0, b"mine");
        let their_page = filled(9);
        let mut beside = Beside::of(&source);
        beside.committing =
            once(|| _ = source.commit_as_other(id, &[(theirs - 1, their_page)], Some(theirs * PAGE)));
        commit(&region, &beside, &[mine - 1], false).unwrap();
        assert_eq!(source.size(id), 6.max(mine) * PAGE - u64::from(mine == 5) * PAGE);
        assert_eq!(region.cache.size().unwrap(), source.size(id), "{mine} {theirs}");
        let pages = source.size(id) / PAGE;
        region.bring_in(&source, 0, pages, false, soon()).unwrap();
        for page in 0..pages {
            assert!(files.see(page) == source.page(id, page), "{mine} {theirs}: page {page}");
        }
        assert_eq!(region.view(), source.epoch(id));
    }
}

#[test]
fn whatever_call_fails_around_a_merged_commit_both_hosts_bytes_and_sizes_stay() {
    for (k, when) in (0..40).flat_map(|k| [(k, When::Before), (k, When::After)]) {
        let (source, id, files) = server_and_host(3);
        let region = files.attach(id, 0);
        region.bring_in(&source, 0, 3, false, soon()).unwrap();
        region.truncate(&source, 8 * PAGE, soon()).unwrap();
        region.bring_in(&source, 7, 8, true, soon()).unwrap();
        files.store(0, 100, &[77, 78, 79]);
        files.store(7, 0, b"mine");
        let mut theirs = filled(1);
        theirs[101] = 33;
        theirs[200] = 44;
        let mut beside = Beside::of(&source);
        beside.committing = once(|| {
            source.commit_as_other(id, &[(0, theirs), (2, filled(99)), (4, filled(98))], Some(5 * PAGE));
        });
        beside.committed = once(|| files.store(0, 100, &[1, 1]));
        source.fail_after(k, when);
        let first = commit(&region, &beside, &[0, 7], false);
        let struck = source.failed();
        assert!(region.cache.size().unwrap() >= 8 * PAGE, "k={k}: shorter than it was made here");
        if let Err(error) = &first {
            assert!(struck, "k={k}: {error}");
        }
        commit(&region, &beside, &[0, 7], false).unwrap();
        region.refresh(&source).unwrap();
        region.bring_in(&source, 0, 8, false, soon()).unwrap();
        for page in 0..8 {
            assert!(files.see(page) == source.page(id, page), "k={k}: page {page}");
        }
        let page = files.see(0);
        assert_eq!((page[102], page[200]), (79, 44), "k={k}");
        assert_eq!(page[100], 1, "k={k}: what was stored last");
        assert_eq!((&files.see(7)[..4], files.see(2)[0], files.see(4)[0]), (&b"mine"[..], 99, 98), "k={k}");
        assert_eq!((source.size(id), region.cache.size().unwrap()), (8 * PAGE, 8 * PAGE));
        if !struck && when == When::After {
            break;
        }
    }
}

#[test]
fn what_is_stored_between_the_two_halves_of_a_merged_commit_stays_also_if_it_is_the_old_value() {
    let pages = 300;
    let (source, id, files) = server_and_host(pages);
    let region = files.attach(id, 0);
    region.bring_in(&source, 0, pages, false, soon()).unwrap();
    let mut others = Vec::new();
    for page in 0..pages {
        let mut theirs = files.see(page);
        theirs[200] ^= 1;
        others.push((page, theirs));
        files.store(page, 100, &[77]);
    }
    let (before, mut fetches) = (files.see(0), 0);
    let mut beside = Beside::of(&source);
    beside.committing = once(|| _ = source.commit_as_other(id, &others, None));
    // The first pages are here, the others are not.
    beside.fetching = act(|| {
        fetches += 1;
        if fetches == 4 {
            source.fail_after(0, When::Before);
        }
    });
    let all: Vec<_> = (0..pages).collect();
    commit(&region, &beside, &all, false).unwrap();
    assert!(source.failed() && files.see(0)[200] != before[200] && files.see(pages - 1)[200] == 44);
    files.store(0, 200, &[before[200]]);
    commit(&region, &source, &[0], false).unwrap();
    assert!(files.see(0) == before && source.page(id, 0) == before);
    assert!((1..pages).all(|page| files.see(page) == source.page(id, page) && files.see(page)[100] == 77));
}

#[test]
fn while_the_other_half_of_a_merged_commit_is_missing_no_newer_epoch_comes_in_its_place() {
    let (source, id, files) = server_and_host(1);
    let region = files.attach(id, 0);
    region.bring_in(&source, 0, 1, false, soon()).unwrap();
    files.store(0, 100, &[77]);
    let mut theirs = filled(1);
    theirs[200] = 44;
    let mut beside = Beside::of(&source);
    beside.committing = once(|| _ = source.commit_as_other(id, &[(0, theirs)], None));
    beside.committed = once(|| {
        files.store(0, 100, &[1]);
        source.fail_after(0, When::Before);
    });
    commit(&region, &beside, &[0], false).unwrap();
    // What became of it is asked, and then what changed, in vain again.
    source.fail_after(1, When::Before);
    region.refresh(&source).unwrap_err();
    commit(&region, &source, &[0], false).unwrap();
    assert!(files.see(0) == theirs && source.page(id, 0) == theirs);
}

#[test]
fn what_becomes_known_late_of_a_commit_takes_nothing_back_that_a_peer_has_brought_since() {
    let (source, id, files) = server_and_host(3);
    let (one, peer) = (files.attach(id, 0), files.attach(id, 1));
    one.bring_in(&source, 0, 3, false, soon()).unwrap();
    files.store(0, 0, &[77]);
    source.forget_commits(true);
    // A stage, and the commit itself, whose answer is lost; so is what became of it.
    source.fail_after(1, When::After);
    commit(&one, &source, &[0], false).unwrap_err();
    assert_eq!(source.page(id, 0)[0], 77, "it has happened");
    let mut theirs = source.page(id, 0);
    theirs[1] = 88;
    source.commit_as_other(id, &[(0, theirs), (1, filled(99))], None);
    peer.refresh(&source).unwrap();
    let view = peer.view();
    source.forget_commits(false);
    // Another host again, so that what is older than the view would be patched.
    theirs[1] = 89;
    source.commit_as_other(id, &[(0, theirs)], None);
    commit(&one, &source, &[0], false).unwrap();
    assert!(one.view() >= view, "the view went back");
    one.refresh(&source).unwrap();
    assert_eq!((&files.see(0)[..3], files.see(1)[0]), (&[77, 89, 1][..], 99));
    commit(&one, &source, &[0], false).unwrap();
    assert!(source.page(id, 0) == files.see(0));
}

#[test]
fn a_file_cut_and_written_again_survives_a_peer_that_knows_nothing_of_the_lost_answer() {
    let (source, id, files) = server_and_host(3);
    let (one, peer) = (files.attach(id, 0), files.attach(id, 1));
    one.truncate(&source, 0, soon()).unwrap();
    one.truncate(&source, 3 * PAGE, soon()).unwrap();
    one.bring_in(&source, 0, 3, true, soon()).unwrap();
    (0..3).for_each(|page| files.store(page, 0, &filled(60 + page as u8)));
    source.forget_commits(true);
    source.fail_after(1, When::After);
    commit(&one, &source, &[0, 1, 2], false).unwrap_err();
    assert_eq!(source.page(id, 1), filled(61), "it has happened");
    files.kill(0);
    peer.refresh(&source).unwrap();
    commit(&peer, &source, &[], false).unwrap();
    for page in 0..3 {
        assert!(source.page(id, page) == filled(60 + page as u8), "page {page} is lost");
    }
}
