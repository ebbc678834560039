//! Entries and slots against a naive model.
//!
//! Owns: the model. Called by: `cargo test`. Must not: look into the table's insides.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Leave(usize),
    Return(usize),
    Drop(usize, usize),
    Move(usize, usize, usize),
    Empty,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let page = 0..3000usize;
    let step = prop_oneof![
        4 => page.clone().prop_map(Step::Leave),
        2 => page.clone().prop_map(Step::Return),
        1 => (page.clone(), 1..900usize).prop_map(|(at, count)| Step::Drop(at, count)),
        1 => (page, 4000..7000usize, 1..900usize).prop_map(|(from, to, count)| Step::Move(from, to, count)),
        1 => Just(Step::Empty),
    ];
    proptest::collection::vec(step, 1..200)
}

proptest! {
    #[test]
    fn no_two_pages_share_a_slot_and_what_is_known_moves_and_ends_with_its_page(steps in steps()) {
        let mut table = Table::default();
        // Page → its slot.
        let mut model: BTreeMap<usize, u64> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Leave(page) => {
                    let slot = table.slot_for(page).unwrap();
                    table.update(page, |entry| (entry.place, entry.sum) = (Place::Far, page as u64 + 1));
                    prop_assert_eq!(*model.entry(page).or_insert(slot), slot);
                }
                Step::Return(page) => table.note(page, |entry| entry.place = Place::Here),
                Step::Drop(at, count) => {
                    table.drop_range(at..at + count, |_| {});
                    model.retain(|page, _| !(at..at + count).contains(page));
                }
                Step::Move(from, to, count) => {
                    table.move_range(from, to, count, |_, _| {});
                    model.retain(|page, _| !(to..to + count).contains(page));
                    let moved: Vec<_> = model.range(from..from + count).map(|(page, slot)| (*page, *slot)).collect();
                    for (page, slot) in moved {
                        model.remove(&page);
                        model.insert(page - from + to, slot);
                    }
                }
                Step::Empty => {
                    let runs = table.take_dropped(3);
                    table.emptied(&runs);
                }
            }
            let kept = |table: &Table| table.kept().iter().map(|kept| kept.page).collect::<Vec<_>>();
            prop_assert_eq!(kept(&table), model.keys().copied().collect::<Vec<_>>());
            for (page, slot) in &model {
                prop_assert_eq!(table.get(*page).slot(), Some(*slot));
            }
            let slots: BTreeSet<u64> = model.values().copied().collect();
            prop_assert_eq!(slots.len(), model.len());
        }
    }
}

#[test]
fn neighbours_have_neighbouring_slots_and_a_place_that_was_emptied_is_used_again() {
    let mut table = Table::default();
    let first = table.slot_for(512).unwrap();
    let slots: Vec<u64> = (512..1024).map(|page| table.slot_for(page).unwrap()).collect();
    assert_eq!(slots, (first..first + 512).collect::<Vec<_>>());
    table.drop_range(0..4096, |_| {});
    let gone = table.take_dropped(usize::MAX);
    assert_eq!(gone, [Run::new(first, 512)]);
    assert_ne!(table.slot_for(9000).unwrap() / 512, first / 512, "the server may still have the old page");
    table.emptied(&gone);
    assert_eq!(table.slot_for(1 << 30).unwrap() / 512, first / 512);
}

#[test]
fn who_waits_is_told_of_what_becomes_of_its_page() {
    let mut table = Table::default();
    table.update(5, |entry| entry.place = Place::Waiting(7));
    let mut told = Vec::new();
    table.move_range(5, 600, 1, |at, page| told.push((at, page)));
    assert_eq!(told, [(7, Some(600))]);
    let mut dropped = Vec::new();
    table.drop_range(0..1000, |at| dropped.push(at));
    assert_eq!(dropped, [7]);
    assert_eq!(table.get(600).place, Place::Here);
}

#[test]
fn a_childs_table_is_its_parents_without_what_it_does_not_map_and_neither_disturbs_the_other() {
    let mut table = Table::default();
    for page in (0..2000).step_by(3) {
        let slot = table.slot_for(page).unwrap();
        table.update(page, |entry| (entry.place, entry.sum) = (Place::Far, slot + 1));
    }
    let mut child = Table::of_kept(&table.kept());
    child.follow(Event::Unmapped { start: 1000 * PAGE, end: 2000 * PAGE }, |_, _| {});
    for page in (0..1000).step_by(3) {
        assert_eq!(child.get(page), table.get(page));
    }
    assert_eq!((child.get(1002).slot(), child.get(1).slot()), (None, None));
    let fresh = child.slot_for(1).unwrap();
    assert!(
        table.kept().iter().all(|kept| table.get(kept.page).slot() != Some(fresh)),
        "it may be what a page has"
    );
    let gone: u32 = child.take_dropped(usize::MAX).iter().map(|run| run.count).sum();
    assert_eq!(gone as usize, (1000..2000).filter(|page| page % 3 == 0).count());
}
