//! Pages that leave, against the fakes: nothing is lost, nothing reads as zeros, and what may not leave stays.

use core::time::Duration;

use netmem_protocol::{PAGE_SIZE, RegionId};
use proptest::prelude::*;

use super::Region;
use super::commit::{CommitOptions, Harvest};
use super::evict::Use;
use super::fake::{FakeCache, FakeFiles};
use super::page::{Event, State};
use super::region::Need;
use super::table::SUM_ZERO;
use crate::remote::fake::FakeSource;
use crate::sys::clock::Deadline;

const PAGE: u64 = PAGE_SIZE as u64;

pub(super) fn soon() -> Deadline {
    Deadline::after(Some(Duration::from_secs(10)))
}

/// A server with a region of `pages` pages that hold 1, 2, 3, …, and a host that has all of them.
pub(super) fn full_host(pages: u64) -> (FakeSource, RegionId, &'static FakeFiles, Region<FakeCache>) {
    let source = FakeSource::new();
    let id = source.create(pages * PAGE);
    let content: Vec<_> = (0..pages).map(|page| (page, [page as u8 + 1; PAGE_SIZE])).collect();
    source.commit_as_other(id, &content, None);
    let files = FakeFiles::primed(pages * PAGE, source.epoch(id));
    let region = files.attach(id, 0);
    region.bring_in(&source, 0, pages, false, soon()).unwrap();
    (source, id, files, region)
}

/// Two rounds: the first spares what is young.
fn evict(region: &Region<FakeCache>, most: u64) -> u64 {
    let round = |most| region.evict(0..512, most, false, &|_, _| true).unwrap();
    let first = round(most);
    first + round(most - first)
}

fn commit(region: &Region<FakeCache>, source: &FakeSource, harvest: &Harvest<'_>) -> u64 {
    region.commit(source, harvest, CommitOptions::default(), soon()).unwrap().pages
}

#[test]
fn what_is_clean_leaves_and_comes_back_and_a_young_page_is_spared_once() {
    let (source, _, files, region) = full_host(8);
    assert_eq!(region.evict(0..512, 8, false, &|_, _| true).unwrap(), 0);
    assert_eq!(region.evict(0..512, 3, false, &|_, _| true).unwrap(), 3);
    assert_eq!(files.blocks(), 5);
    assert!(!region.is_present(0) && region.is_present(3));
    region.bring_in(&source, 0, 8, false, soon()).unwrap();
    assert!((0..8).all(|page| files.see(page) == [page as u8 + 1; PAGE_SIZE]));
}

#[test]
fn what_is_dirty_or_can_be_stored_into_or_is_used_stays() {
    let (_, id, files, region) = full_host(8);
    region.mark_dirty(0, 1);
    region.mark_writer(1, 1);
    let peer = files.attach(id, 1);
    let used = Use::begin(&peer.cache, 2, 4);
    assert_eq!(evict(&region, 8), 4);
    assert!((0..4).all(|page| region.is_present(page)) && !region.is_present(4));
    drop(used);
    assert_eq!(evict(&region, 8), 2);
    // What the dead use is nobody's.
    core::mem::forget(Use::begin(&peer.cache, 0, 8));
    files.kill(1);
    region.with_entry(0, |entry| entry.end_flush(true)).unwrap();
    region.mark_dirty(0, 1);
    assert_eq!((evict(&region, 8), files.blocks()), (0, 2));
}

#[test]
fn a_store_of_the_last_moment_that_nobody_was_told_of_is_put_back_and_committed() {
    let (source, id, files, region) = full_host(4);
    region.evict(0..512, 4, false, &|_, _| true).unwrap();
    files.store_before_taking(2, 100, b"late");
    assert_eq!(region.evict(0..512, 4, false, &|_, _| true).unwrap(), 3);
    assert_eq!((&files.see(2)[99..105], files.blocks()), (&b"\x03late\x03"[..], 1));
    assert_eq!(commit(&region, &source, &|_| {}), 1);
    assert_eq!(&source.page(id, 2)[99..105], b"\x03late\x03");
}

#[test]
fn what_is_marked_without_reason_leaves_and_what_changed_stays_marked() {
    let (source, id, files, region) = full_host(4);
    region.evict(0..512, 4, false, &|_, _| true).unwrap();
    region.mark_dirty(0, 4);
    files.store(1, 0, b"one");
    region.mark_writer(3, 1);
    assert_eq!(region.evict(0..512, 4, false, &|_, _| true).unwrap(), 0);
    let pinned = region.mark_pinned(2, 1);
    assert_eq!((region.evict(0..512, 4, true, &|_, _| true).unwrap(), pinned), (2, true));
    assert_eq!((files.blocks(), region.is_present(2)), (2, true));
    // Somebody may be able to store into the one with the tag, when it is back, without a mark.
    region.bring_in(&source, 3, 4, false, soon()).unwrap();
    assert_eq!(region.with_entry(3, super::entry::Entry::is_dirty), Ok(true));
    assert_eq!(commit(&region, &source, &|_| {}), 1);
    assert_eq!(&source.page(id, 1)[..4], b"one\x02");
}

#[test]
fn a_page_that_is_leaving_is_waited_for_and_takes_no_writer() {
    let (_, _, _, region) = full_host(2);
    let entry_of = |page: u64, what: fn(&super::entry::Entry) -> bool| region.with_entry(page, what).unwrap();
    assert!(!entry_of(1, |entry| entry.evict(0, 1, false, 0)), "it is young");
    assert!(entry_of(1, |entry| entry.evict(0, 1, false, 0)));
    assert_eq!(region.need(1), Ok(Need::Wait));
    assert!(!region.is_present(1) && !region.mark_writer(1, 1));
    // A suspicion that came meanwhile is answered by the look that follows.
    region.mark_dirty(1, 1);
    region.settle(1, Event::Leave);
    assert!(!entry_of(1, super::entry::Entry::is_dirty));
    assert_eq!(region.need(1), Ok(Need::Fetch));
}

#[test]
fn what_a_dead_one_was_taking_out_is_what_the_file_says() {
    let (source, id, files, survivor) = full_host(4);
    let dying = files.attach(id, 1);
    for page in 0..3 {
        dying
            .with_entry(page, |entry| entry.evict(1, page, false, 0) || entry.evict(1, page, false, 0))
            .unwrap();
    }
    // Page 0 was out; 1 was not yet; 2 had been made zeros by the program, and was not yet looked at.
    let mut out = [0; PAGE_SIZE];
    super::Frames::take_out(&dying.cache, 0, &mut out).unwrap();
    files.store(2, 0, &[0; PAGE_SIZE]);
    files.kill(1);
    survivor.bring_in(&source, 0, 4, false, soon()).unwrap();
    assert_eq!((files.see(0)[0], files.see(1)[0], files.see(2)[0]), (1, 2, 0));
    assert_eq!(commit(&survivor, &source, &|_| {}), 1);
    assert_eq!(source.page(id, 2), [0; PAGE_SIZE]);
}

#[test]
fn who_reads_beside_a_departure_sees_that_there_was_one() {
    let (_, _, files, region) = full_host(4);
    region.evict(0..512, 1, false, &|_, _| true).unwrap();
    let before = region.departures(0, 4);
    assert_eq!(region.evict(0..512, 1, false, &|_, _| true).unwrap(), 1);
    assert_eq!(files.see(0), [0; PAGE_SIZE]);
    assert!(region.departures(0, 4) != before && region.departures(512, 600) == 0);
}

#[test]
fn who_does_not_close_keeps_the_pages_and_so_does_a_closed_gate() {
    let (_, _, files, region) = full_host(2);
    region.evict(0..512, 2, false, &|_, _| true).unwrap();
    assert_eq!(region.evict(0..512, 2, false, &|_, _| false).unwrap(), 0);
    region.evict(0..512, 2, false, &|_, _| true).unwrap();
    let gate = super::view::ClosedGate::close(&region);
    assert_eq!(evict(&region, 2), 0);
    drop(gate);
    assert_eq!((evict(&region, 2), files.blocks()), (2, 0));
}

#[test]
fn a_page_of_zeros_that_takes_no_room_need_not_leave() {
    let (source, id, files, region) = full_host(4);
    region.punch(&source, 0, PAGE, soon()).unwrap();
    files.forget(0);
    commit(&region, &source, &|_| {});
    assert_eq!(
        region.with_entry(0, |entry| entry.sum.load(core::sync::atomic::Ordering::SeqCst)),
        Ok(SUM_ZERO)
    );
    assert_eq!(evict(&region, 4), 3);
    assert!(region.is_present(0) && source.page(id, 0) == [0; PAGE_SIZE]);
}

/// What a random history is made of.
#[derive(Clone, Debug)]
enum Step {
    Load(u64),
    Store(u64, usize, u8),
    SilentStore(u64, usize, u8),
    Commit,
    Refresh,
    Evict(u64, bool),
    EvictPending(u64),
    OtherStores(u64, usize, u8),
    Truncate(u64),
    Punch(u64, u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    const PAGES: u64 = 6;
    let place = || (0..PAGES, 0..64usize, 1..255u8);
    let step = prop_oneof![
        4 => (0..PAGES).prop_map(Step::Load),
        4 => place().prop_map(|(page, at, byte)| Step::Store(page, at * 64, byte)),
        2 => place().prop_map(|(page, at, byte)| Step::SilentStore(page, at * 64, byte)),
        3 => Just(Step::Commit),
        2 => Just(Step::Refresh),
        6 => (1..PAGES, any::<bool>()).prop_map(|(most, suspected)| Step::Evict(most, suspected)),
        4 => (1..PAGES).prop_map(Step::EvictPending),
        // The other host keeps to odd offsets, so that no byte is changed by both.
        3 => place().prop_map(|(page, at, byte)| Step::OtherStores(page, at * 64 + 1, byte)),
        1 => (0..=PAGES * PAGE).prop_map(Step::Truncate),
        1 => (0..PAGES, 1..3u64).prop_map(|(page, count)| Step::Punch(page, count)),
    ];
    proptest::collection::vec(step, 1..80)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// What a program sees of its own bytes is what it stored, and after a commit the server has it, whatever left in between.
    #[test]
    fn histories_with_departures_are_those_without(steps in steps()) {
        let (source, id, files, region) = full_host(6);
        // The bytes at even offsets are this host's alone.
        let mut mine = vec![0u8; 6 * PAGE_SIZE];
        for (at, byte) in mine.iter_mut().enumerate() {
            *byte = (at / PAGE_SIZE) as u8 + 1;
        }
        let mut size = 6 * PAGE;
        let check = |mine: &[u8], size: u64| {
            region.bring_in(&source, 0, 6, false, soon()).unwrap();
            for at in (0..size as usize).step_by(64) {
                let seen = files.see(at as u64 / PAGE)[at % PAGE_SIZE];
                assert_eq!(seen, mine[at], "byte {at} of {size}");
            }
        };
        for step in steps {
            match step {
                Step::Load(page) => region.bring_in(&source, page, page + 1, false, soon()).unwrap(),
                Step::Store(page, at, byte) | Step::SilentStore(page, at, byte) => {
                    let offset = page * PAGE + at as u64;
                    if offset >= size { continue }
                    region.bring_in(&source, page, page + 1, true, soon()).unwrap();
                    if matches!(step, Step::Store(..)) { region.mark_dirty(page, 1); }
                    files.store(page, at, &[byte]);
                    mine[offset as usize] = byte;
                }
                Step::Commit => {
                    // What no mark tells of, a scan does.
                    commit(&region, &source, &|note| note(0, 6));
                }
                Step::Refresh => region.refresh(&source).unwrap(),
                Step::Evict(most, suspected) => {
                    region.evict(0..512, most, suspected, &|_, _| true).unwrap();
                }
                Step::EvictPending(most) => {
                    region.evict_pending(&source, 0..512, most, &|_, _| true).unwrap();
                }
                Step::OtherStores(page, at, byte) => {
                    if (page + 1) * PAGE > size { continue }
                    let mut content = source.page(id, page);
                    content[at] = byte;
                    source.commit_as_other(id, &[(page, content)], None);
                }
                Step::Truncate(to) => {
                    // What is cut here and grown there are two hosts' wishes about one byte.
                    commit(&region, &source, &|note| note(0, 6));
                    region.refresh(&source).unwrap();
                    region.truncate(&source, to, soon()).unwrap();
                    mine[to.min(size) as usize..].fill(0);
                    size = to;
                    commit(&region, &source, &|note| note(0, 6));
                }
                Step::Punch(page, count) => {
                    region.punch(&source, page * PAGE, count * PAGE, soon()).unwrap();
                    let end = ((page + count) * PAGE).min(6 * PAGE) as usize;
                    mine[((page * PAGE) as usize).min(end)..end].fill(0);
                }
            }
            check(&mine, size);
        }
        commit(&region, &source, &|note| note(0, 6));
        for at in (0..size as usize).step_by(64) {
            prop_assert_eq!(source.page(id, at as u64 / PAGE)[at % PAGE_SIZE], mine[at]);
        }
        prop_assert!(!matches!(region.with_entry(0, |entry| entry.state()), Ok(State::Leaving)));
    }
}
