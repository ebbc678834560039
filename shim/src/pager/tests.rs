//! The pager against its fakes: each rule on its own, every failure point, and random histories against the naive version.

use core::time::Duration;
use std::collections::BTreeMap;

use netmem_protocol::{PAGE_SIZE, RegionId};
use proptest::prelude::*;

use super::Region;
use super::commit::{CommitOptions, Harvest, How, Member, commit_together};
use super::fake::{FakeCache, FakeFiles};
use super::page::{Event, State};
use super::region::{Need, PagerError};
use crate::remote::fake::{FakeSource, When};
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
    let content: Vec<_> = (0..pages).map(|page| (page, filled((page % 200) as u8 + 1))).collect();
    source.commit_as_other(id, &content, None);
    let files = FakeFiles::primed(pages * PAGE, source.epoch(id));
    (source, id, files)
}

fn commit(region: &Region<FakeCache>, source: &FakeSource, stored: &[u64]) -> Result<u64, PagerError> {
    let harvest = |note: &mut dyn FnMut(u64, u64)| stored.iter().for_each(|page| note(*page, 1));
    region.commit(source, &harvest, CommitOptions::default(), soon()).map(|report| report.pages)
}

#[test]
fn a_page_is_fetched_once_and_shows_what_the_server_has() {
    let (source, id, files) = server_and_host(8);
    let region = files.attach(id, 0);
    region.bring_in(&source, 2, 5, false, soon()).unwrap();
    assert_eq!((files.see(2)[0], files.see(4)[0], files.see(5)[0]), (3, 5, 0));
    let calls = source.calls();
    region.bring_in(&source, 2, 5, false, soon()).unwrap();
    assert_eq!(source.calls(), calls);
    assert!(!region.reads_right(2, 6) && region.reads_right(2, 5));
}

#[test]
fn a_page_behind_what_the_server_knows_is_zeros_without_asking() {
    let (source, id, files) = server_and_host(2);
    let region = files.attach(id, 0);
    region.truncate(&source, 10 * PAGE, soon()).unwrap();
    let calls = source.calls();
    region.bring_in(&source, 2, 10, true, soon()).unwrap();
    assert_eq!(source.calls(), calls);
    assert!(region.is_present(9));
}

#[test]
fn a_commit_sends_what_changed_and_nothing_else() {
    let (source, id, files) = server_and_host(8);
    let region = files.attach(id, 0);
    region.bring_in(&source, 0, 8, false, soon()).unwrap();
    files.store(3, 100, b"new");
    // Pages 1, 2 and 3 are reported as written; only 3 differs from its base.
    assert_eq!(commit(&region, &source, &[1, 2, 3]).unwrap(), 1);
    assert_eq!(&source.page(id, 3)[99..104], b"\x04new\x04");
    let epoch = source.epoch(id);
    assert_eq!(commit(&region, &source, &[1, 2, 3]).unwrap(), 0);
    assert_eq!(source.epoch(id), epoch);
    assert_eq!(region.view(), epoch);
}

#[test]
fn bytes_behind_the_end_of_the_file_are_never_sent() {
    let source = FakeSource::new();
    let id = source.create(100);
    let files = FakeFiles::primed(100, source.epoch(id));
    let region = files.attach(id, 0);
    region.bring_in(&source, 0, 1, true, soon()).unwrap();
    files.store(0, 90, &[7; 200]);
    assert_eq!(commit(&region, &source, &[0]).unwrap(), 1);
    let page = source.page(id, 0);
    assert!(page[90..100] == [7; 10] && page[100..].iter().all(|byte| *byte == 0));
}

#[test]
fn whatever_call_fails_a_commit_is_whole_or_absent_and_nothing_stored_is_lost() {
    for when in [When::Before, When::After] {
        for k in 0.. {
            let (source, id, files) = server_and_host(600);
            let region = files.attach(id, 0);
            region.bring_in(&source, 0, 600, false, soon()).unwrap();
            for page in 0..600 {
                files.store(page, 8, b"stored");
            }
            let all: Vec<u64> = (0..600).collect();
            source.fail_after(k, when);
            let result = commit(&region, &source, &all);
            let there = (0..600).filter(|page| &source.page(id, *page)[8..14] == b"stored").count();
            assert!(there == 0 || there == 600, "k={k} {when:?}: {there} of 600 pages");
            if result.is_ok() {
                assert_eq!(there, 600, "k={k} {when:?}: acknowledged and not there");
            }
            // The marks are back: the next commit needs nobody to tell it anything again.
            commit(&region, &source, &[]).unwrap();
            assert!((0..600).all(|page| &source.page(id, page)[8..14] == b"stored"), "k={k} {when:?}: lost");
            if !source.failed() {
                break;
            }
        }
    }
}

#[test]
fn whatever_call_fails_regions_commit_together_or_not_at_all_and_nothing_stored_is_lost() {
    for when in [When::Before, When::After] {
        for k in 0.. {
            let (source, first, files) = server_and_host(300);
            let (second, third) = (source.create(300 * PAGE), source.create(0));
            let sizes = [(second, 300 * PAGE), (third, 0)];
            let others = sizes.map(|(id, size)| (id, FakeFiles::primed(size, source.epoch(id))));
            let mut regions = vec![files.attach(first, 0)];
            regions.extend(others.iter().map(|(id, files)| files.attach(*id, 0)));
            // The third changes nothing but its size.
            regions[2].truncate(&source, 300 * PAGE, soon()).unwrap();
            for (region, files) in regions.iter().zip([&files, &others[0].1]) {
                region.bring_in(&source, 0, 300, true, soon()).unwrap();
                (0..300).for_each(|page| files.store(page, 8, b"stored"));
            }
            let all = |note: &mut dyn FnMut(u64, u64)| note(0, 300);
            let none = |_: &mut dyn FnMut(u64, u64)| {};
            let together = |harvests: [&Harvest<'_>; 3]| {
                // In an order that is not that of their numbers.
                let members = [2, 0, 1].map(|at| Member { region: &regions[at], harvest: harvests[at] });
                commit_together(
                    &members,
                    &How {
                        source: &source,
                        options: CommitOptions::default(),
                        holding: None,
                        deadline: soon(),
                    },
                )
            };
            source.fail_after(k, when);
            let result = together([&all, &all, &none]);
            let stored = |id| (0..300).filter(|page| &source.page(id, *page)[8..14] == b"stored").count();
            let there = (stored(first), stored(second), source.size(third));
            let (all_there, none_there) = ((300, 300, 300 * PAGE), (0, 0, 0));
            assert!(there == all_there || there == none_there, "k={k} {when:?}: {there:?}");
            assert!(result.is_err() || there == all_there, "k={k} {when:?}: acknowledged and not there");
            together([&none, &none, &none]).unwrap();
            assert_eq!(
                (stored(first), stored(second), source.size(third)),
                all_there,
                "k={k} {when:?}: lost"
            );
            if !source.failed() {
                break;
            }
        }
    }
}

#[test]
fn a_page_cache_that_can_not_be_read_fails_the_commit_and_keeps_the_marks() {
    for k in 0..4 {
        let (source, id, files) = server_and_host(600);
        let region = files.attach(id, 0);
        region.bring_in(&source, 0, 600, false, soon()).unwrap();
        files.store(0, 0, b"a");
        files.store(599, 0, b"b");
        files.fail_read(k);
        let failed = commit(&region, &source, &(0..600).collect::<Vec<_>>()).is_err();
        files.fail_read(usize::MAX);
        commit(&region, &source, &[]).unwrap();
        assert_eq!((source.page(id, 0)[0], source.page(id, 599)[0]), (b'a', b'b'), "k={k} failed={failed}");
    }
}

#[test]
fn a_refresh_brings_other_hosts_bytes_and_keeps_our_own() {
    let (source, id, files) = server_and_host(4);
    let region = files.attach(id, 0);
    region.bring_in(&source, 0, 3, false, soon()).unwrap();
    files.store(1, 0, b"ours");
    let mut theirs = filled(2);
    theirs[100..106].copy_from_slice(b"theirs");
    source.commit_as_other(id, &[(1, theirs), (3, filled(99))], None);
    region.refresh(&source).unwrap();
    assert_eq!((&files.see(1)[..4], &files.see(1)[100..106]), (&b"ours"[..], &b"theirs"[..]));
    assert_eq!(region.view(), source.epoch(id));
    region.bring_in(&source, 3, 4, false, soon()).unwrap();
    assert_eq!(files.see(3), filled(99));
    // Ours is still to be committed, and goes up on top of theirs.
    assert_eq!(commit(&region, &source, &[1]).unwrap(), 1);
    assert_eq!((&source.page(id, 1)[..4], &source.page(id, 1)[100..106]), (&b"ours"[..], &b"theirs"[..]));
}

#[test]
fn a_refresh_that_broke_half_way_undoes_nobodys_commit_afterwards() {
    for k in 0.. {
        let (source, id, files) = server_and_host(600);
        let region = files.attach(id, 0);
        region.bring_in(&source, 0, 600, false, soon()).unwrap();
        let theirs = |byte: u8| -> Vec<_> { (0..600).map(|page| (page, filled(byte))).collect() };
        source.commit_as_other(id, &theirs(0xb0), None);
        source.fail_after(k, When::Before);
        let broke = region.refresh(&source).is_err();
        source.commit_as_other(id, &theirs(0xc0), None);
        (0..600).for_each(|page| files.store(page, 8, b"\xf1\xf2\xf3\xf4"));
        let all: Vec<u64> = (0..600).collect();
        assert_eq!(commit(&region, &source, &all).unwrap(), 600, "k={k}");
        for page in 0..600 {
            let content = source.page(id, page);
            assert_eq!(
                (&content[8..12], content[0], content[4095]),
                (&b"\xf1\xf2\xf3\xf4"[..], 0xc0, 0xc0),
                "k={k}, page {page}"
            );
            assert_eq!(files.see(page), content, "k={k}, page {page} here");
        }
        assert_eq!(region.view(), source.epoch(id));
        if !broke {
            assert!(k > 3);
            return;
        }
    }
}

#[test]
fn two_hosts_that_change_different_bytes_of_a_page_both_survive() {
    let (source, id, files) = server_and_host(1);
    let region = files.attach(id, 0);
    region.bring_in(&source, 0, 1, false, soon()).unwrap();
    files.store(0, 0, b"ours");
    let mut theirs = filled(1);
    theirs[50..56].copy_from_slice(b"theirs");
    source.commit_as_other(id, &[(0, theirs)], None);
    assert_eq!(commit(&region, &source, &[0]).unwrap(), 1);
    for page in [source.page(id, 0), files.see(0)] {
        assert_eq!((&page[..4], &page[50..56]), (&b"ours"[..], &b"theirs"[..]));
    }
}

#[test]
fn a_cut_after_a_commit_of_which_nobody_knows_whether_it_happened_reaches_the_server() {
    for when in [When::Before, When::After] {
        for k in 0.. {
            let (source, id, files) = server_and_host(8);
            let region = files.attach(id, 0);
            region.bring_in(&source, 0, 8, false, soon()).unwrap();
            files.store(3, 100, b"new");
            source.forget_commits(true);
            source.fail_after(k, when);
            let _ = commit(&region, &source, &[3]);
            let struck = source.failed();
            source.fail_after(u64::MAX, when);
            source.forget_commits(false);
            region.truncate(&source, PAGE, soon()).unwrap();
            region.truncate(&source, 8 * PAGE, soon()).unwrap();
            commit(&region, &source, &[]).unwrap();
            assert!(source.page(id, 0) == filled(1) && source.size(id) == 8 * PAGE, "k={k} {when:?}");
            assert!((1..8).all(|page| source.page(id, page) == filled(0)), "k={k} {when:?}: it came back");
            if !struck {
                break;
            }
        }
    }
}

#[test]
fn a_commit_whose_base_the_server_gave_up_is_stale_once_and_loses_nothing() {
    let (source, id, files) = server_and_host(1);
    let region = files.attach(id, 0);
    region.bring_in(&source, 0, 1, false, soon()).unwrap();
    files.store(0, 0, b"ours");
    source.commit_as_other(id, &[(0, filled(9))], None);
    source.drop_old_epochs(id);
    let error = commit(&region, &source, &[0]).unwrap_err();
    assert_eq!(error.errno().0, libc::ESTALE);
    commit(&region, &source, &[0]).unwrap();
    assert_eq!(&source.page(id, 0)[..4], b"ours");
}

#[test]
fn cut_off_pages_stay_zeros_when_the_file_grows_again_and_the_server_learns_of_it() {
    let (source, id, files) = server_and_host(8);
    let region = files.attach(id, 0);
    region.truncate(&source, 2 * PAGE + 10, soon()).unwrap();
    region.truncate(&source, 8 * PAGE, soon()).unwrap();
    region.bring_in(&source, 0, 8, true, soon()).unwrap();
    let check = |page: &dyn Fn(u64) -> [u8; PAGE_SIZE]| {
        assert_eq!(page(1), filled(2));
        assert!(page(2)[..10] == [3; 10] && page(2)[10..].iter().all(|byte| *byte == 0));
        assert!((3..8).all(|p| page(p) == filled(0)));
    };
    check(&|page| files.see(page));
    commit(&region, &source, &[]).unwrap();
    check(&|page| source.page(id, page));
    assert_eq!(source.size(id), 8 * PAGE);
}

#[test]
fn a_punched_page_that_was_never_here_is_zeros_here_and_after_the_commit_there() {
    let (source, id, files) = server_and_host(4);
    let region = files.attach(id, 0);
    region.punch(&source, PAGE, 2 * PAGE, soon()).unwrap();
    region.bring_in(&source, 0, 4, false, soon()).unwrap();
    assert_eq!((files.see(0), files.see(1), files.see(3)), (filled(1), filled(0), filled(4)));
    commit(&region, &source, &[]).unwrap();
    assert_eq!(
        (source.page(id, 1), source.page(id, 2), source.page(id, 3)),
        (filled(0), filled(0), filled(4))
    );
}

#[test]
fn pages_for_which_there_was_room_are_here_and_are_not_installed_again() {
    let (source, id, files) = server_and_host(8);
    let region = files.attach(id, 0);
    files.leave_room(3);
    let full = region.bring_in(&source, 0, 8, false, soon()).expect_err("there is no room");
    assert_eq!(full.errno().0, libc::ENOSPC);
    assert_eq!((0..8).filter(|page| region.is_present(*page)).collect::<Vec<_>>(), [0, 1, 2]);
    // A page that is in the file is shown to everyone, and stored into.
    files.store(1, 0, b"mine");
    files.leave_room(100);
    region.bring_in(&source, 0, 8, false, soon()).unwrap();
    assert_eq!((&files.see(1)[..4], files.see(7)[0]), (&b"mine"[..], 8));
}

#[test]
fn a_claim_of_a_dead_process_is_taken_over_and_so_is_its_gate() {
    let (source, id, files) = server_and_host(4);
    let dying = files.attach(id, 1);
    assert_eq!(dying.need(2), Ok(Need::Fetch));
    let survivor = files.attach(id, 0);
    assert_eq!(survivor.need(2), Ok(Need::Wait));
    files.kill(1);
    survivor.bring_in(&source, 0, 4, false, soon()).unwrap();
    assert_eq!(files.see(2), filled(3));
    core::mem::forget(super::view::ClosedGate::close(&dying));
    assert_eq!(survivor.with_entry(9, |entry| entry.state()), Ok(State::Absent));
    survivor.truncate(&source, 20 * PAGE, soon()).unwrap();
    survivor.bring_in(&source, 4, 20, true, soon()).unwrap();
}

#[test]
fn a_claim_that_is_not_settled_because_the_fetch_failed_is_given_back() {
    let (source, id, files) = server_and_host(4);
    let region = files.attach(id, 0);
    source.fail_after(0, When::Before);
    assert!(region.bring_in(&source, 0, 4, false, soon()).is_err());
    region.bring_in(&source, 0, 4, false, soon()).unwrap();
    assert_eq!(files.see(3), filled(4));
}

#[test]
fn a_page_that_another_process_can_store_into_unnoticed_stays_a_candidate() {
    let (source, id, files) = server_and_host(2);
    let (ours, theirs) = (files.attach(id, 0), files.attach(id, 1));
    ours.bring_in(&source, 0, 2, false, soon()).unwrap();
    theirs.mark_writer(1, 1);
    files.store(1, 0, b"one");
    commit(&ours, &source, &[]).unwrap();
    assert_eq!(&source.page(id, 1)[..3], b"one");
    files.store(1, 0, b"two");
    commit(&ours, &source, &[]).unwrap();
    assert_eq!(&source.page(id, 1)[..3], b"two");
    theirs.clear_writer(1, 2, 1);
    commit(&ours, &source, &[]).unwrap();
    assert_eq!(ours.with_entry(1, |entry| entry.is_dirty()), Ok(false));
}

#[test]
fn settling_wakes_only_when_someone_waits() {
    let (_, id, files) = server_and_host(1);
    let region = files.attach(id, 0);
    assert_eq!(region.need(0), Ok(Need::Fetch));
    let word = region.with_entry(0, |entry| entry.word().load(core::sync::atomic::Ordering::SeqCst)).unwrap();
    assert!(region.with_entry(0, |entry| entry.announce_waiter(word)).unwrap().is_some());
    assert_eq!(region.with_entry(0, |entry| entry.settle(Event::Release, 0)), Ok(true));
    assert_eq!(region.need(0), Ok(Need::Fetch));
    assert_eq!(region.with_entry(0, |entry| entry.settle(Event::Release, 0)), Ok(false));
}

/// What a random history is made of.
#[derive(Clone, Debug)]
enum Step {
    Load(u64),
    Store(u64, usize, u8),
    Commit,
    Refresh,
    OtherStores(u64, usize, u8),
    Truncate(u64),
    Punch(u64, u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    const PAGES: u64 = 6;
    let step = prop_oneof![
        4 => (0..PAGES).prop_map(Step::Load),
        6 => (0..PAGES, 0..64usize, 1..255u8).prop_map(|(page, at, byte)| Step::Store(page, at * 64, byte)),
        3 => Just(Step::Commit),
        2 => Just(Step::Refresh),
        // The other host keeps to odd offsets, so that no byte is changed by both.
        4 => (0..PAGES, 0..64usize, 1..255u8).prop_map(|(page, at, byte)| Step::OtherStores(page, at * 64 + 1, byte)),
        1 => (0..=PAGES * PAGE).prop_map(Step::Truncate),
        1 => (0..PAGES, 1..3u64).prop_map(|(page, count)| Step::Punch(page, count)),
    ];
    proptest::collection::vec(step, 1..60)
}

/// The naive version of this host: every byte that it stored and what it saw last.
#[derive(Default)]
struct Model {
    stored: BTreeMap<u64, u8>,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Whatever happens, a byte that this host stored is seen here from then on (unless it was cut or punched here), and is at
    /// the server after a commit.
    #[test]
    fn no_history_loses_a_store(history in steps()) {
        let (source, id, files) = server_and_host(6);
        let region = files.attach(id, 0);
        let mut model = Model::default();
        let mut size = 6 * PAGE;
        let mut touched: Vec<u64> = Vec::new();
        for step in &history {
            match step {
                Step::Load(page) => region.bring_in(&source, *page, page + 1, true, soon()).unwrap(),
                Step::Store(page, at, byte) if page * PAGE + (*at as u64) < size => {
                    region.bring_in(&source, *page, page + 1, true, soon()).unwrap();
                    files.store(*page, *at, &[*byte]);
                    touched.push(*page);
                    model.stored.insert(page * PAGE + *at as u64, *byte);
                }
                Step::Store(..) => {}
                Step::Commit => {
                    commit(&region, &source, &touched).unwrap();
                    touched.clear();
                    for (at, byte) in &model.stored {
                        prop_assert_eq!(source.page(id, at / PAGE)[(at % PAGE) as usize], *byte);
                    }
                }
                Step::Refresh => {
                    region.mark_dirty(0, 6);
                    region.refresh(&source).unwrap();
                }
                Step::OtherStores(page, at, byte) => {
                    let mut content = source.page(id, *page);
                    content[*at] = *byte;
                    if page * PAGE + (*at as u64) < source.size(id) {
                        source.commit_as_other(id, &[(*page, content)], None);
                    }
                }
                Step::Truncate(to) => {
                    region.truncate(&source, *to, soon()).unwrap();
                    size = *to;
                    model.stored.retain(|at, _| at < to);
                }
                Step::Punch(page, count) => {
                    region.punch(&source, page * PAGE, count * PAGE, soon()).unwrap();
                    let range = page * PAGE..(page + count) * PAGE;
                    model.stored.retain(|at, _| !range.contains(at));
                }
            }
            for (at, byte) in &model.stored {
                prop_assert_eq!(files.see(at / PAGE)[(at % PAGE) as usize], *byte, "after {:?}", step);
            }
        }
    }
}
