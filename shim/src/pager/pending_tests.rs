//! Pages that leave with what was stored in them, against the fakes: they come home, are committed once, and are seen by nobody before.

use netmem_protocol::{PAGE_SIZE, RegionId};

use super::Region;
use super::commit::CommitOptions;
use super::evict_tests::{full_host, soon};
use super::fake::{FakeCache, FakeFiles};
use super::page::Event;
use super::region::{Need, PagerError};
use crate::remote::fake::{FakeSource, When};

const PAGE: u64 = PAGE_SIZE as u64;

/// The same host, which has stored 100, 101, … into all pages but the first.
fn host(pages: u64) -> (FakeSource, RegionId, &'static FakeFiles, Region<FakeCache>) {
    let (source, id, files, region) = full_host(pages);
    for page in 1..pages {
        files.store(page, 0, &[99 + page as u8]);
        region.mark_dirty(page, 1);
    }
    (source, id, files, region)
}

/// Two rounds: the first spares what is young.
fn leave(region: &Region<FakeCache>, source: &FakeSource) -> Result<u64, PagerError> {
    let round = || region.evict_pending(source, 0..512, 512, &|_, _| true);
    Ok(round()?.unwrap_or(0) + round()?.unwrap_or(0))
}

fn commit(region: &Region<FakeCache>, source: &FakeSource) -> Result<u64, PagerError> {
    Ok(region.commit(source, &|_| {}, CommitOptions::default(), soon())?.pages)
}

fn first_bytes(source: &FakeSource, id: RegionId, pages: u64) -> Vec<u8> {
    (0..pages).map(|page| source.page(id, page)[0]).collect()
}

fn seen(region: &Region<FakeCache>, source: &FakeSource, files: &FakeFiles, pages: u64) -> Vec<u8> {
    region.bring_in(source, 0, pages, false, soon()).unwrap();
    (0..pages).map(|page| files.see(page)[0]).collect()
}

#[test]
fn what_is_dirty_leaves_and_comes_home_and_no_one_else_sees_it_before_the_commit() {
    let (source, id, files, region) = host(4);
    assert_eq!((leave(&region, &source).unwrap(), files.blocks()), (4, 0));
    assert_eq!(first_bytes(&source, id, 4), [1, 2, 3, 4]);
    assert!(region.has_marks());
    assert_eq!(region.need(2), Ok(Need::Home));
    region.settle(2, Event::Release);
    assert_eq!(seen(&region, &source, files, 4), [1, 100, 101, 102]);
    assert_eq!((files.see(1)[1], commit(&region, &source).unwrap()), (2, 3));
    assert_eq!(first_bytes(&source, id, 4), [1, 100, 101, 102]);
}

#[test]
fn a_commit_takes_what_is_pending_from_where_it_is_and_gives_it_up_there() {
    let (source, id, files, region) = host(6);
    leave(&region, &source).unwrap();
    region.bring_in(&source, 3, 4, false, soon()).unwrap();
    files.store(3, 1, &[200]);
    assert_eq!(commit(&region, &source).unwrap(), 5);
    assert_eq!(first_bytes(&source, id, 6), [1, 100, 101, 102, 103, 104]);
    assert_eq!((source.page(id, 3)[1], source.page(id, 4)[1]), (200, 5));
    assert_eq!(files.blocks(), 1, "nothing came back for it");
    let (place, _) = region.pending_place();
    assert_eq!([1, 2, 4, 5].map(|page| source.page(place, page)[0]), [0; 4]);
    assert!(!region.has_marks());
    assert_eq!(seen(&region, &source, files, 6), [1, 100, 101, 102, 103, 104]);
    assert_eq!(commit(&region, &source).unwrap(), 0);
}

#[test]
fn what_another_host_changed_in_a_pending_page_is_merged_by_a_commit_and_by_a_refresh() {
    for refresh in [false, true] {
        let (source, id, files, region) = host(4);
        leave(&region, &source).unwrap();
        for page in [1, 3] {
            let mut theirs = source.page(id, page);
            theirs[4000] = 77;
            source.commit_as_other(id, &[(page, theirs)], None);
        }
        if refresh {
            region.refresh(&source).unwrap();
            assert_eq!(seen(&region, &source, files, 4), [1, 100, 101, 102]);
            assert_eq!((files.see(1)[4000], files.see(2)[4000], files.see(3)[4000]), (77, 3, 77));
            leave(&region, &source).unwrap();
        }
        assert_eq!(commit(&region, &source).unwrap(), 3);
        assert_eq!(seen(&region, &source, files, 4), [1, 100, 101, 102]);
        for page in [1, 3] {
            assert_eq!((files.see(page)[4000], source.page(id, page)[4000]), (77, 77));
            assert_eq!((files.see(page)[0], source.page(id, page)[0]), (99 + page as u8, 99 + page as u8));
        }
    }
}

#[test]
fn a_failure_at_any_step_of_the_way_out_the_way_home_or_the_commit_loses_nothing() {
    for when in [When::Before, When::After] {
        for calls in 0.. {
            let (source, id, files, region) = host(4);
            source.fail_after(calls, when);
            let left = leave(&region, &source);
            let there = region.bring_in(&source, 2, 3, false, soon());
            let done = commit(&region, &source);
            let moved = region.refresh(&source);
            let failed = source.failed();
            source.fail_after(u64::MAX, when);
            let results = (left.is_err(), there.is_err(), done.is_err(), moved.is_err());
            assert_eq!(seen(&region, &source, files, 4), [1, 100, 101, 102], "{when:?} {calls}: {results:?}");
            leave(&region, &source).unwrap();
            commit(&region, &source).unwrap();
            assert_eq!(first_bytes(&source, id, 4), [1, 100, 101, 102], "{when:?} {calls}: {results:?}");
            assert_eq!(seen(&region, &source, files, 4), [1, 100, 101, 102], "{when:?} {calls}: {results:?}");
            if !failed {
                assert!(calls > 8, "{calls}");
                break;
            }
        }
    }
}

#[test]
fn a_store_of_the_last_moment_is_put_back_and_not_what_was_sent() {
    let (source, id, files, region) = host(4);
    region.evict_pending(&source, 0..512, 4, &|_, _| true).unwrap();
    files.store_before_taking(2, 100, b"late");
    assert_eq!(region.evict_pending(&source, 0..512, 4, &|_, _| true).unwrap(), Some(3));
    assert_eq!((&files.see(2)[99..105], files.blocks()), (&b"\x03late\x03"[..], 1));
    assert_eq!(commit(&region, &source).unwrap(), 3);
    assert_eq!((&source.page(id, 2)[99..105], source.page(id, 2)[0]), (&b"\x03late\x03"[..], 101));
}

#[test]
fn what_a_dead_one_had_sent_and_taken_out_is_pending_and_what_it_had_not_is_here() {
    let (source, id, files, survivor) = host(4);
    let dying = files.attach(id, 1);
    leave(&dying, &source).unwrap();
    dying.bring_in(&source, 0, 4, false, soon()).unwrap();
    for page in 1..4 {
        let take = |entry: &super::entry::Entry| (0..8).any(|_| entry.evict(1, page, true, 0));
        assert_eq!(dying.with_entry(page, take), Ok(true));
    }
    // Page 1 was out; 2 was not; 3 had not even been sent.
    for page in [1, 2] {
        dying.with_entry(page, super::entry::Entry::set_pending).unwrap();
    }
    let mut out = [0; PAGE_SIZE];
    super::Frames::take_out(&dying.cache, 1, &mut out).unwrap();
    files.kill(1);
    assert_eq!(seen(&survivor, &source, files, 4), [1, 100, 101, 102]);
    assert_eq!(commit(&survivor, &source).unwrap(), 3);
    assert_eq!(first_bytes(&source, id, 4), [1, 100, 101, 102]);
}

#[test]
fn what_is_cut_punched_or_written_over_is_no_longer_pending() {
    let (source, id, files, region) = host(6);
    leave(&region, &source).unwrap();
    region.punch(&source, PAGE, PAGE, soon()).unwrap();
    region.truncate(&source, 4 * PAGE, soon()).unwrap();
    region.truncate(&source, 6 * PAGE, soon()).unwrap();
    assert_eq!(seen(&region, &source, files, 6), [1, 0, 101, 102, 0, 0]);
    commit(&region, &source).unwrap();
    assert_eq!(first_bytes(&source, id, 6), [1, 0, 101, 102, 0, 0]);
}

#[test]
fn behind_what_the_server_knows_a_pending_page_is_found_and_what_lies_around_it_is_zeros() {
    let (source, id, files, region) = host(2);
    region.truncate(&source, 20 * PAGE, soon()).unwrap();
    region.bring_in(&source, 10, 11, true, soon()).unwrap();
    files.store(10, 0, &[7]);
    region.mark_dirty(10, 1);
    leave(&region, &source).unwrap();
    assert!(!region.reads_right(8, 12) && region.reads_right(11, 20) && region.reads_right(2, 10));
    region.bring_in(&source, 8, 12, false, soon()).unwrap();
    assert!(region.reads_right(8, 12));
    assert_eq!([9, 10, 11].map(|page| files.see(page)[0]), [0, 7, 0]);
    leave(&region, &source).unwrap();
    commit(&region, &source).unwrap();
    assert_eq!((source.page(id, 10)[0], source.size(id)), (7, 20 * PAGE));
    region.bring_in(&source, 8, 12, false, soon()).unwrap();
    assert_eq!([9, 10, 11].map(|page| files.see(page)[0]), [0, 7, 0]);
}

#[test]
fn nothing_dirty_leaves_while_a_commit_is_under_way_or_unsettled() {
    let (source, _, files, region) = host(4);
    let held = region.maintenance.lock();
    assert_eq!(region.evict_pending(&source, 0..512, 4, &|_, _| true).unwrap(), None);
    drop(held);
    source.fail_after(1, When::After);
    source.forget_commits(true);
    commit(&region, &source).unwrap_err();
    assert_eq!(region.evict_pending(&source, 0..512, 4, &|_, _| true).unwrap(), None);
    let peer = files.attach(region.id, 1);
    assert_eq!(leave(&peer, &source).unwrap(), 0, "its use keeps them here");
    source.forget_commits(false);
    commit(&region, &source).unwrap();
    assert_eq!((leave(&region, &source).unwrap(), files.blocks()), (4, 0));
}

#[test]
fn a_commit_that_died_with_the_marks_of_windows_hides_no_pending_page() {
    let (source, id, files, region) = host(4);
    leave(&region, &source).unwrap();
    for bits in super::Board::chunk(&region.cache, 0).unwrap().dirty {
        bits.store(0, core::sync::atomic::Ordering::SeqCst);
    }
    assert!(region.has_pending() && !region.has_marks());
    let survivor = files.attach(id, 1);
    survivor.suspect_everything();
    assert_eq!(commit(&survivor, &source).unwrap(), 3);
    assert_eq!(first_bytes(&source, id, 4), [1, 100, 101, 102]);
}

#[test]
fn a_hole_that_the_program_made_is_not_claimed_to_leave() {
    let (source, id, files, region) = host(4);
    region.punch(&source, PAGE, 2 * PAGE, soon()).unwrap();
    files.forget(1);
    files.forget(2);
    assert_eq!(leave(&region, &source).unwrap(), 2);
    assert!(region.is_present(1) && region.is_present(2) && !region.is_present(3));
    commit(&region, &source).unwrap();
    assert_eq!(first_bytes(&source, id, 4), [1, 0, 0, 102]);
}
