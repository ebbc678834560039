//! The table of mappings against a sorted set.
//!
//! Owns: nothing. Called by: `cargo test`. Must not: map anything.

use super::{Mapping, Mappings, ROOM};
use crate::engine::state::MapState;
use crate::sys::mem::PAGE;
use proptest::prelude::*;
use std::collections::BTreeSet;

fn mapping(page: usize) -> Mapping {
    let (start, end) = (page * PAGE, (page + 1) * PAGE);
    let state = MapState::new(start, end, PAGE);
    let (first_page, handle) = (page as u64, (page % 3) as u32);
    let (private, may_write, fenced, kept, on_fault) = (false, true, false, false, false);
    let (prot, asked) = (3, 3);
    Mapping { start, end, first_page, handle, private, may_write, prot, asked, fenced, kept, on_fault, state }
}

fn compare(table: &Mappings, pages: &BTreeSet<usize>) {
    let all = table.overlapping(0, usize::MAX);
    assert!(all.iter().map(|row| row.start / PAGE).eq(pages.iter().copied()));
    let third = table.of_handle(1);
    assert!(third.iter().map(|row| row.start / PAGE).eq(pages.iter().copied().filter(|page| page % 3 == 1)));
    assert_eq!(table.write().shows(1), !third.is_empty());
}

proptest! {
    #[test]
    fn it_is_the_sorted_set_of_what_was_entered(steps in prop::collection::vec(1usize..40, 1..200)) {
        let (table, mut pages) = (Mappings::new().unwrap(), BTreeSet::new());
        for page in steps {
            if pages.insert(page) {
                table.write().insert(&mapping(page)).unwrap();
            } else {
                pages.remove(&page);
                prop_assert!(table.write().remove(page * PAGE).is_some());
            }
            prop_assert!(table.write().remove(41 * PAGE).is_none());
            compare(&table, &pages);
        }
    }
}

#[test]
fn a_table_that_wanders_comes_back_to_the_middle() {
    for downwards in [true, false] {
        let table = Mappings::new().unwrap();
        let mut pages = BTreeSet::new();
        for step in 1..3 * ROOM {
            let page = if downwards { 4 * ROOM - step } else { step };
            table.write().insert(&mapping(page)).unwrap();
            pages.insert(page);
            if pages.len() > 5 {
                let gone = if downwards { pages.pop_last() } else { pages.pop_first() }.unwrap();
                assert!(table.write().remove(gone * PAGE).is_some());
            }
        }
        compare(&table, &pages);
    }
}
