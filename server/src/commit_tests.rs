//! Commits against rules and against a naive model.

use std::collections::BTreeMap;
use std::sync::Arc;

use netmem_protocol::{CacheId, ClientId, CommitId, RegionId};
use proptest::prelude::*;

use super::*;
use crate::changes::changed_runs;
use crate::reaper::Reaper;
use crate::store::faulty::Faulty;
use crate::store::memory::Memory as MemoryStore;
use crate::store::{Record, StoreError};

struct Bench {
    memory: Arc<Memory>,
    store: Arc<dyn Store>,
    counts: [Counts; 2],
    region: Arc<Region>,
    last: std::cell::Cell<u64>,
}

const ME: Who = Who { client: ClientId([1; 16]), cache: CacheId([1; 16]) };
const OTHER: Who = Who { client: ClientId([2; 16]), cache: CacheId([2; 16]) };

fn bench_with(pages: u64, store: Arc<dyn Store>) -> Bench {
    let memory = Arc::new(Memory::new(pages * PAGE, Reaper::start()));
    let region = Arc::new(Region::new(RegionId(1), 0o644, 0, memory.reaper.clone()));
    memory.regions_mut().insert(RegionId(1), Arc::clone(&region));
    Bench { memory, store, counts: Default::default(), region, last: 0.into() }
}

fn bench(pages: u64) -> Bench {
    bench_with(pages, Arc::new(MemoryStore::new(netmem_protocol::StoreId([7; 16]))))
}

impl Bench {
    fn page(&self, bytes: &PageBytes) -> Staged0 {
        if is_zero(bytes) { None } else { Some(self.memory.copy_of(bytes).expect("room")) }
    }

    fn request(&self, base: u64) -> control::Commit {
        self.last.set(self.last.get() + 1);
        let commit = CommitId(self.last.get());
        control::Commit { commit, staged_pages: 0, base: Epoch(base), strict: false, cut: None, size: None }
    }

    fn commit(&self, who: Who, request: &control::Commit, pages: &[(u64, PageBytes)]) -> Answer<Committed> {
        let staged: Vec<Staged> = pages
            .iter()
            .map(|(page, bytes)| match self.page(bytes) {
                Some(content) => Staged::Data(*page, content),
                None => Staged::Zero(*page, page + 1),
            })
            .collect();
        let commits = Commits {
            memory: &self.memory,
            store: &*self.store,
            counts: self.counts.each_ref(),
            region_bytes_max: 1 << 30,
            keep_epochs: 0,
        };
        let part = Part { region: &self.region, request, staged: &staged };
        commits.commit(who, &[part]).map(|done| done[0])
    }

    fn put(&self, who: Who, base: u64, pages: &[(u64, PageBytes)]) -> Answer<Committed> {
        self.commit(who, &self.request(base), pages)
    }

    fn bytes(&self, epoch: u64, page: u64) -> PageBytes {
        let root = self.region.root(Epoch(epoch)).expect("an epoch that is kept");
        root.tree.get(page).map_or(ZEROS, |page| **page.load(&self.memory).expect("in memory"))
    }
}

type Staged0 = Option<PageRef>;

fn code<T: std::fmt::Debug>(answer: Answer<T>) -> ErrorCode {
    answer.expect_err("a refusal").code
}

/// A page of `fill` with some bytes set.
fn page(fill: u8, bytes: &[(usize, u8)]) -> PageBytes {
    let mut page = [fill; PAGE_SIZE];
    for (at, byte) in bytes {
        page[*at] = *byte;
    }
    page
}

#[test]
fn two_caches_that_change_different_bytes_of_a_page_both_survive() {
    let bench = bench(100);
    bench.put(ME, 1, &[(0, page(5, &[]))]).expect("a base");
    bench.region.open_entry(ME.cache);
    bench.region.open_entry(OTHER.cache);
    bench.put(OTHER, 2, &[(0, page(5, &[(10, 77)]))]).expect("theirs");
    let mine = bench.put(ME, 2, &[(0, page(5, &[(20, 88), (10, 5)]))]).expect("mine");
    assert_eq!((mine.previous, mine.epoch), (Epoch(3), Epoch(4)));
    assert_eq!(bench.bytes(0, 0), page(5, &[(10, 77), (20, 88)]));
    let both = bench.put(OTHER, 3, &[(0, page(5, &[(20, 99), (10, 77)]))]).expect("the same byte");
    assert_eq!((both.epoch, bench.bytes(0, 0)[20]), (Epoch(5), 99));
}

#[test]
fn a_strict_commit_over_anothers_change_is_stale_and_changes_nothing() {
    let bench = bench(100);
    bench.put(ME, 1, &[(0, page(5, &[])), (1, page(5, &[]))]).expect("a base");
    bench.put(OTHER, 2, &[(0, page(6, &[]))]).expect("theirs");
    let strict = control::Commit { strict: true, ..bench.request(2) };
    assert_eq!(code(bench.commit(ME, &strict, &[(1, page(7, &[])), (0, page(8, &[]))])), ErrorCode::Stale);
    assert_eq!((bench.bytes(0, 0), bench.bytes(0, 1)), (page(6, &[]), page(5, &[])));
    let elsewhere = control::Commit { strict: true, ..bench.request(2) };
    assert!(bench.commit(ME, &elsewhere, &[(1, page(7, &[]))]).is_ok());
}

#[test]
fn a_commit_that_comes_after_its_client_was_told_that_it_did_not_happen_does_not_happen() {
    let bench = bench(100);
    bench.region.open_entry(ME.cache);
    // It hangs on a connection that the client has given up.
    let late = bench.request(1);
    assert_eq!(code(bench.region.commit_status(ME.client, late.commit)), ErrorCode::NotFound);
    // The same number of another client is another commit.
    assert!(bench.commit(OTHER, &late, &[(7, page(7, &[]))]).is_ok());
    bench.put(ME, 1, &[(0, page(2, &[]))]).expect("the same page, newer, under another number");
    assert_eq!(code(bench.commit(ME, &late, &[(0, page(1, &[]))])), ErrorCode::Stale);
    assert_eq!(bench.bytes(0, 0), page(2, &[]));
    let next = bench.request(3);
    let done = bench.commit(ME, &next, &[(0, page(3, &[]))]).expect("a commit");
    assert_eq!(bench.region.commit_status(ME.client, next.commit).expect("applied"), done);
}

#[test]
fn what_a_killed_program_had_on_its_way_does_not_undo_what_its_successor_has_committed() {
    let bench = bench(100);
    bench.region.open_entry(ME.cache);
    let late = bench.request(1);
    // The successor has the same page cache, and is another client.
    let successor = Who { client: ClientId([3; 16]), ..ME };
    bench.put(successor, 1, &[(0, page(2, &[]))]).expect("a commit");
    assert_eq!(code(bench.commit(ME, &late, &[(0, page(1, &[]))])), ErrorCode::Behind);
    assert_eq!(bench.bytes(0, 0), page(2, &[]));
    // Other hosts may still be where they were.
    bench.region.open_entry(OTHER.cache);
    bench.put(OTHER, 1, &[(1, page(7, &[]))]).expect("another page on the old base");
    bench
        .put(successor, 2, &[(0, page(3, &[]))])
        .expect("on its own last commit, with another host's in between");
}

#[test]
fn a_merge_whose_base_is_gone_is_stale_and_one_that_needs_no_base_is_not() {
    let bench = bench(100);
    bench.put(OTHER, 1, &[(0, page(5, &[]))]).expect("a base");
    bench.put(OTHER, 2, &[(0, page(6, &[]))]).expect("a change");
    bench.put(OTHER, 3, &[(0, page(7, &[]))]).expect("a change");
    assert_eq!(code(bench.put(ME, 2, &[(0, page(8, &[]))])), ErrorCode::Stale);
    assert!(bench.put(ME, 2, &[(9, page(8, &[]))]).is_ok());
    assert_eq!(code(bench.put(ME, 99, &[(0, page(8, &[]))])), ErrorCode::Invalid);
}

#[test]
fn a_cut_takes_the_rest_away_before_the_pages_of_the_same_commit_come() {
    let bench = bench(100);
    let four: Vec<(u64, PageBytes)> = (0..4).map(|at| (at, page(9, &[]))).collect();
    bench.put(ME, 1, &four).expect("a base");
    let cut = control::Commit { cut: Some(PAGE + 100), size: Some(4 * PAGE), ..bench.request(2) };
    let done = bench.commit(ME, &cut, &[(3, page(4, &[]))]).expect("a cut");
    assert_eq!(done.size, 4 * PAGE);
    assert_eq!(bench.bytes(0, 0), page(9, &[]));
    let boundary = bench.bytes(0, 1);
    assert!(boundary[..100].iter().all(|byte| *byte == 9) && is_zero(&boundary[100..]));
    assert_eq!((bench.bytes(0, 2), bench.bytes(0, 3)), (ZEROS, page(4, &[])));
    assert_eq!(bench.bytes(2, 2), page(9, &[]), "the epoch before still has it");
}

#[test]
fn what_lies_behind_the_size_is_dropped_and_stays_zeros_when_the_region_grows() {
    let bench = bench(100);
    let small = control::Commit { size: Some(PAGE + 10), ..bench.request(1) };
    bench.commit(ME, &small, &[(1, page(3, &[])), (2, page(3, &[]))]).expect("a commit");
    let root = bench.region.root(Epoch(0)).expect("current");
    assert_eq!((root.size, root.tree.stored()), (PAGE + 10, 1));
    drop(root);
    let grown = control::Commit { size: Some(10 * PAGE), ..bench.request(2) };
    bench.commit(ME, &grown, &[]).expect("growth");
    let tail = bench.bytes(0, 1);
    assert!(tail[..10].iter().all(|byte| *byte == 3) && is_zero(&tail[10..]));
    assert_eq!(bench.bytes(0, 2), ZEROS);
}

#[test]
fn who_makes_a_region_longer_cuts_nothing_that_another_made_longer_still() {
    let bench = bench(100);
    bench.put(ME, 1, &[(0, page(1, &[]))]).expect("a base");
    let longer = |base, size| control::Commit { size: Some(size), ..bench.request(base) };
    bench.commit(OTHER, &longer(2, 10 * PAGE), &[(9, page(9, &[]))]).expect("ten pages");
    let mine = bench.commit(ME, &longer(2, 2 * PAGE), &[(1, page(2, &[]))]).expect("two pages");
    assert_eq!((mine.size, mine.previous), (10 * PAGE, Epoch(3)));
    assert_eq!((bench.bytes(0, 9), bench.bytes(0, 1)), (page(9, &[]), page(2, &[])));
    // Who made it shorter means it.
    let cut = control::Commit { cut: Some(PAGE), ..longer(3, 2 * PAGE) };
    let cut = bench.commit(OTHER, &cut, &[]).expect("a cut");
    assert_eq!((cut.size, bench.bytes(0, 9), bench.bytes(0, 1)), (2 * PAGE, ZEROS, ZEROS));
}

#[test]
fn a_page_that_the_end_lies_in_does_not_move_the_end() {
    let bench = bench(100);
    let odd = control::Commit { size: Some(PAGE + 10), ..bench.request(1) };
    bench.commit(ME, &odd, &[(1, page(3, &[]))]).expect("a commit");
    let done = bench.put(ME, 2, &[(1, page(4, &[]))]).expect("the last page again");
    assert_eq!(done.size, PAGE + 10);
    let done = bench.put(ME, 3, &[(2, page(5, &[]))]).expect("a page behind it");
    assert_eq!(done.size, 3 * PAGE);
}

#[test]
fn my_store_behind_my_own_cut_wins_even_if_it_equals_the_base() {
    let bench = bench(100);
    bench.put(ME, 1, &[(0, page(5, &[]))]).expect("a base");
    bench.region.open_entry(ME.cache);
    bench.put(OTHER, 2, &[(0, page(5, &[(0, 6)]))]).expect("theirs");
    let cut = control::Commit { cut: Some(50), size: Some(PAGE), ..bench.request(2) };
    let mut mine = page(5, &[]);
    mine[50..].fill(0);
    mine[60] = 5;
    bench.commit(ME, &cut, &[(0, mine)]).expect("mine");
    let mut wanted = mine;
    wanted[0] = 6;
    assert_eq!(bench.bytes(0, 0), wanted);
}

#[test]
fn a_commit_that_changes_nothing_keeps_the_epoch_and_a_repeated_one_is_applied_once() {
    let bench = bench(100);
    let nothing = bench.put(ME, 1, &[]).expect("nothing");
    assert_eq!((nothing.epoch, nothing.previous), (Epoch(1), Epoch(1)));
    let request = bench.request(1);
    let first = bench.commit(ME, &request, &[(0, page(1, &[]))]).expect("a commit");
    bench.put(OTHER, 2, &[(0, page(2, &[]))]).expect("another");
    assert_eq!(bench.commit(ME, &request, &[(0, page(1, &[]))]), Ok(first));
    assert_eq!(bench.bytes(0, 0), page(2, &[]));
    assert_eq!(bench.region.commit_status(ME.client, request.commit), Ok(first));
    assert_eq!(code(bench.region.commit_status(OTHER.client, request.commit)), ErrorCode::NotFound);
}

#[test]
fn a_commit_of_several_regions_happens_to_all_of_them_or_to_none_and_once() {
    let bench = bench_with(64, Arc::new(Faulty::new(MemoryStore::new(netmem_protocol::StoreId([7; 16])), 3)));
    let other = Region::new(RegionId(2), 0o644, 0, bench.memory.reaper.clone());
    let commits = Commits {
        memory: &bench.memory,
        store: &*bench.store,
        counts: bench.counts.each_ref(),
        region_bytes_max: 1 << 30,
        keep_epochs: 0,
    };
    let together = |who, requests: [&control::Commit; 2], fill| {
        let staged = [Staged::Data(0, bench.memory.copy_of(&page(fill, &[])).expect("room"))];
        let parts = [(&*bench.region, requests[0]), (&other, requests[1])];
        let parts = parts.map(|(region, request)| Part { region, request, staged: &staged });
        commits.commit(who, &parts)
    };
    let epochs = |done: Answer<Vec<Committed>>| -> Vec<u64> {
        done.expect("a commit").iter().map(|done| done.epoch.0).collect()
    };
    let now = || (bench.region.entry().epoch.0, other.entry().epoch.0);
    let first = bench.request(1);
    assert_eq!(epochs(together(ME, [&first, &first], 1)), [2, 2]);
    assert_eq!(epochs(together(ME, [&first, &first], 9)), [2, 2], "the answer again");
    assert_eq!(bench.put(OTHER, 2, &[(0, page(2, &[]))]).expect("a commit").epoch, Epoch(3));
    // Stale in the one region: nothing happens to the other.
    let mut late = bench.request(2);
    late.strict = true;
    assert_eq!(code(together(ME, [&late, &late], 3)), ErrorCode::Stale);
    assert_eq!(now(), (3, 2));
    // The client was told of one region that this commit did not happen: so it does not happen to the other either.
    let denied = bench.request(2);
    assert_eq!(code(other.commit_status(ME.client, denied.commit)), ErrorCode::NotFound);
    assert_eq!(code(together(ME, [&denied, &denied], 4)), ErrorCode::Stale);
    assert_eq!(now(), (3, 2));
    // Each is merged with what others did to it.
    let (mine, theirs) = (bench.request(2), bench.request(2));
    let theirs = control::Commit { commit: mine.commit, ..theirs };
    assert_eq!(epochs(together(ME, [&mine, &theirs], 5)), [4, 3]);
    // The store fails.
    let failed = bench.request(3);
    let failed = [&control::Commit { base: Epoch(4), ..failed.clone() }, &failed];
    assert_eq!(code(together(ME, failed, 6)), ErrorCode::Internal);
    assert_eq!(now(), (4, 3));
    assert_eq!(epochs(together(ME, failed, 6)), [5, 4]);
}

#[test]
fn a_store_that_fails_any_commit_leaves_the_region_as_it_was() {
    for failing in 0.. {
        let store = Faulty::new(MemoryStore::new(netmem_protocol::StoreId([7; 16])), failing);
        let bench = bench_with(100, Arc::new(store));
        let mut done = 0;
        for step in 0..3u8 {
            let request = bench.request(done + 1);
            let result = bench.commit(ME, &request, &[(u64::from(step), page(step + 1, &[]))]);
            let failed = u64::from(step) == failing;
            assert_eq!(
                result.as_ref().err().map(|refusal| refusal.code),
                failed.then_some(ErrorCode::Internal)
            );
            assert_eq!(bench.bytes(0, u64::from(step)) == ZEROS, failed);
            assert_eq!(bench.region.commit_status(ME.client, request.commit).is_err(), failed);
            done += u64::from(!failed);
        }
        assert_eq!(bench.region.entry().epoch.0, done + 1);
        bench.memory.reaper.wait();
        if done == 3 {
            return;
        }
    }
}

#[test]
fn when_pages_run_out_the_oldest_views_go_first_and_the_current_roots_stay() {
    let bench = bench(8);
    let mut epoch = 1;
    for fill in 1..=6u8 {
        let who = Who { cache: CacheId([fill + 10; 16]), ..ME };
        let done = bench.put(who, epoch, &[(0, page(fill, &[]))]).expect("room");
        epoch = done.epoch.0;
    }
    assert_eq!(bench.region.views().kept(), [2, 3, 4, 5, 6, 7]);
    let five: Vec<(u64, PageBytes)> = (10..15).map(|at| (at, page(8, &[]))).collect();
    bench.put(ME, epoch, &five).expect("room after views were given up");
    assert_eq!(bench.bytes(0, 0), page(6, &[]));
    assert!(bench.region.root(Epoch(2)).is_err(), "the oldest went");
    assert!(bench.region.root(Epoch(7)).is_ok(), "the newest stayed");
}

#[test]
fn a_region_that_ends_leaves_no_page_behind() {
    let bench = bench(1000);
    for round in 0..20u64 {
        bench
            .put(ME, round + 1, &[(round * 50, page(1, &[])), (0, page(round as u8 + 1, &[]))])
            .expect("room");
    }
    assert!(bench.memory.usage().0 > 0);
    bench.memory.regions_mut().clear();
    let Bench { memory, region, .. } = bench;
    drop(region);
    memory.reaper.wait();
    assert_eq!(memory.usage().0, 0);
}

#[derive(Clone, Debug)]
struct Step {
    pages: Vec<(u64, u8)>,
    cut: Option<u64>,
    size: Option<u64>,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let byte = || prop_oneof![0..20 * PAGE, (0..20u64).prop_map(|page| page * PAGE)];
    let step = (
        proptest::collection::vec((0..20u64, 0..4u8), 0..5),
        proptest::option::weighted(0.3, byte()),
        proptest::option::weighted(0.4, byte()),
    );
    let step = step.prop_map(|(pages, cut, size)| Step { pages, cut, size });
    proptest::collection::vec(step, 1..15)
}

/// The region as bytes, by the words of `control::Commit`.
fn apply(bytes: &mut Vec<u8>, step: &Step) {
    let before = bytes.len();
    if let Some(cut) = step.cut {
        let cut = bytes.len().min(cut as usize);
        bytes[cut..].fill(0);
    }
    let end = step.pages.iter().map(|(page, _)| (page + 1) * PAGE).max().unwrap_or(0) as usize;
    let kept = if end > before.next_multiple_of(PAGE_SIZE) { end } else { before };
    let size = step.size.map_or(kept, |size| size as usize);
    bytes.resize(size.max(end).max(before), 0);
    for (page, fill) in &step.pages {
        bytes[(*page * PAGE) as usize..][..PAGE_SIZE].fill(*fill);
    }
    bytes.truncate(size);
}

proptest! {
    #[test]
    fn a_region_equals_an_array_of_bytes_at_every_epoch(steps in steps()) {
        let bench = bench(10_000);
        let mut bytes = Vec::new();
        let mut epochs: BTreeMap<u64, Vec<u8>> = BTreeMap::from([(1, Vec::new())]);
        bench.region.open_entry(OTHER.cache);
        let mut epoch = 1;
        for step in &steps {
            let request = control::Commit { cut: step.cut, size: step.size, ..bench.request(epoch) };
            let pages: Vec<(u64, PageBytes)> =
                step.pages.iter().map(|(page, fill)| (*page, [*fill; PAGE_SIZE])).collect();
            let done = bench.commit(ME, &request, &pages).map_err(|e| TestCaseError::fail(e.text))?;
            apply(&mut bytes, step);
            prop_assert_eq!(done.size, bytes.len() as u64);
            epoch = done.epoch.0;
            bench.region.open_entry(OTHER.cache);
            epochs.insert(epoch, bytes.clone());
        }
        let now = bench.region.root(Epoch(0)).map_err(|e| TestCaseError::fail(e.text))?;
        for (epoch, bytes) in &epochs {
            let root = bench.region.root(Epoch(*epoch)).map_err(|e| TestCaseError::fail(e.text))?;
            prop_assert_eq!(root.size, bytes.len() as u64);
            let runs = changed_runs(&now.tree, &now.cuts, now.pages(), *epoch, 1000);
            for page in 0..20 {
                let start = bytes.len().min((page * PAGE) as usize);
                let end = bytes.len().min(start + PAGE_SIZE);
                let mut wanted = ZEROS;
                wanted[..end - start].copy_from_slice(&bytes[start..end]);
                let content = root.tree.get(page).and_then(Content::here);
                prop_assert_eq!(content.map_or(ZEROS, |page| **page), wanted, "epoch {} page {}", epoch, page);
                prop_assert!(content.is_none_or(|page| !is_zero(&page[..])), "a zero page is stored");
                let differs = now.tree.get(page).and_then(Content::here).map_or(ZEROS, |page| **page) != wanted;
                let named = runs.iter().any(|run| (run.first.0..run.end()).contains(&page));
                prop_assert!(named || !differs, "page {} differs since {} and is not named: {:?}", page, epoch, runs);
            }
        }
        drop(now);
        let Bench { memory, region, .. } = bench;
        memory.regions_mut().clear();
        drop(region);
        memory.reaper.wait();
        prop_assert_eq!(memory.usage().0, 0);
    }

    #[test]
    fn merging_gives_each_byte_to_the_one_who_changed_it_last(
        changes in proptest::collection::vec((0usize..PAGE_SIZE, any::<u8>(), any::<u8>(), any::<u8>()), 0..50)
    ) {
        let (mut base, mut mine, mut theirs) = (ZEROS, ZEROS, ZEROS);
        for (at, b, m, t) in changes {
            (base[at], mine[at], theirs[at]) = (b, m, t);
        }
        let merged = merge_bytes(&mine, &theirs, &base);
        for at in 0..PAGE_SIZE {
            prop_assert_eq!(merged[at], if mine[at] == base[at] { theirs[at] } else { mine[at] });
        }
    }
}

/// A store that looks at what it is given.
struct Watching(MemoryStore, std::sync::Mutex<Vec<(u64, Vec<u64>)>>);

impl Store for Watching {
    fn name(&self) -> &'static str {
        "watching"
    }

    fn id(&self) -> netmem_protocol::StoreId {
        self.0.id()
    }

    fn commit(&self, records: &mut [Record<'_>]) -> Result<(), StoreError> {
        for record in records {
            let mut pages = Vec::new();
            record.root.tree.changed_since(record.previous.0, &mut |page| pages.push(page));
            self.1.lock().expect("no panic").push((record.root.epoch, pages));
        }
        Ok(())
    }

    fn change(&self, _update: crate::store::rows::Update) -> Result<(), StoreError> {
        Ok(())
    }

    fn is_durable(&self) -> bool {
        false
    }
}

#[test]
fn the_store_sees_each_commit_with_the_pages_it_changed() {
    let store = Arc::new(Watching(MemoryStore::new(netmem_protocol::StoreId([7; 16])), Default::default()));
    let bench = bench_with(100, store.clone());
    bench.put(ME, 1, &[(3, page(1, &[])), (5, page(1, &[]))]).expect("a commit");
    bench.put(ME, 2, &[(4, page(1, &[])), (5, ZEROS)]).expect("a commit");
    assert_eq!(*store.1.lock().expect("no panic"), [(2, vec![3, 5]), (3, vec![4, 5])]);
}
