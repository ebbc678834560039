//! The tree against the naive version.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::slab::Slabs;
use netmem_protocol::PAGE_SIZE;

#[derive(Clone, Debug)]
enum Step {
    Set(u64, Option<u8>),
    Cut(u64),
    /// Keep a clone, which nothing may change from here on.
    Clone,
}

fn pages() -> impl Strategy<Value = u64> {
    prop_oneof![0..130u64, 0..5000u64, (1u64 << 18) - 3..(1 << 18) + 3, (1u64 << 32) - 70..1 << 32]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (pages(), proptest::option::weighted(0.8, 1..=255u8)).prop_map(|(page, fill)| Step::Set(page, fill)),
        1 => pages().prop_map(Step::Cut),
        1 => Just(Step::Clone),
    ];
    proptest::collection::vec(step, 1..120)
}

/// Content and version of every page that has either.
type Model = BTreeMap<u64, (Option<u8>, u64)>;

fn apply(model: &mut Model, step: &Step, version: u64) {
    match step {
        Step::Set(page, fill) => {
            let had = model.get(page).is_some_and(|(content, _)| content.is_some());
            if fill.is_some() || had {
                model.insert(*page, (*fill, version));
            }
        }
        Step::Cut(first) => drop(model.split_off(first)),
        Step::Clone => {}
    }
}

fn compare(tree: &Tree, model: &Model) -> Result<(), TestCaseError> {
    let stored = model.values().filter(|(content, _)| content.is_some()).count() as u64;
    prop_assert_eq!(tree.stored(), stored);
    let mut cursor = tree.cursor();
    for (page, (content, version)) in model {
        let near = [page.saturating_sub(1), *page, page + 1];
        for page in near {
            let wanted = model.get(&page).and_then(|(content, _)| *content);
            prop_assert_eq!(
                tree.get(page).and_then(Content::here).map(|bytes| bytes[11]),
                wanted,
                "page {}",
                page
            );
            prop_assert_eq!(
                cursor.get(page).and_then(Content::here).map(|bytes| bytes[4095]),
                wanted,
                "page {}",
                page
            );
        }
        prop_assert_eq!(tree.get(*page).and_then(Content::here).map(|bytes| bytes[0]), *content);
        prop_assert_eq!(tree.version(*page), *version);
    }
    Ok(())
}

fn changed(tree: &Tree, since: u64) -> Vec<u64> {
    let mut pages = Vec::new();
    tree.changed_since(since, &mut |page| pages.push(page));
    pages
}

proptest! {
    #[test]
    fn the_tree_equals_a_map_and_its_clones_never_change(steps in steps()) {
        let slabs = Slabs::new(10_000);
        let mut tree = Tree::default();
        let mut model = Model::new();
        let mut clones = Vec::new();
        for (version, step) in (1..).zip(&steps) {
            apply(&mut model, step, version);
            match step {
                Step::Set(page, fill) => {
                    let content = fill.and_then(|fill| slabs.copy_of(&[fill; PAGE_SIZE]).ok()).map(Content::from);
                    tree.set(*page, content, version);
                }
                Step::Cut(first) => tree.cut(*first),
                Step::Clone => clones.push((tree.clone(), model.clone())),
            }
        }
        for since in 0..=steps.len() as u64 {
            let wanted: Vec<u64> =
                model.iter().filter(|(_, (_, version))| *version > since).map(|(page, _)| *page).collect();
            prop_assert_eq!(changed(&tree, since), wanted, "since {}", since);
        }
        compare(&tree, &model)?;
        for (tree, model) in &clones {
            compare(tree, model)?;
        }
        drop((tree, clones));
        prop_assert_eq!(slabs.used(), 0);
    }
}

#[test]
fn a_commit_to_one_page_shares_every_other_leaf() {
    let slabs = Slabs::new(10_000);
    let mut tree = Tree::default();
    for page in 0..4096 {
        tree.set(page, slabs.copy_of(&[1; PAGE_SIZE]).ok().map(Content::from), 1);
    }
    let before = tree.clone();
    tree.set(100, slabs.copy_of(&[2; PAGE_SIZE]).ok().map(Content::from), 2);
    let leaf = |tree: &Tree, page| tree.leaf(page).map(std::ptr::from_ref);
    assert_ne!(leaf(&before, 100), leaf(&tree, 100));
    assert!(
        (0..64).filter(|block| *block != 1).all(|block| leaf(&before, block * 64) == leaf(&tree, block * 64))
    );
    assert_eq!(slabs.used(), 4097);
}

#[test]
fn a_node_that_only_this_tree_owns_is_changed_in_place() {
    let slabs = Slabs::new(10);
    let mut tree = Tree::default();
    tree.set(0, slabs.copy_of(&[1; PAGE_SIZE]).ok().map(Content::from), 1);
    let leaf = tree.leaf(0).map(std::ptr::from_ref);
    tree.set(1, slabs.copy_of(&[1; PAGE_SIZE]).ok().map(Content::from), 1);
    assert_eq!(tree.leaf(1).map(std::ptr::from_ref), leaf);
}

#[test]
fn a_stored_page_of_a_dense_region_costs_less_than_three_percent_more() {
    // Per leaf of 64 pages: the node and the two counters before it; its share of inner nodes; its share of slab heads.
    let node = (size_of::<Node>() + 16) as f64;
    let per_page = node / 64.0 * (1.0 + 1.0 / 63.0) + PAGE_SIZE as f64 * 512.0 / 510.0;
    assert!(per_page <= 1.03 * PAGE_SIZE as f64, "{per_page}");
}

#[test]
fn the_pages_that_are_known_are_those_of_leaves_that_are_there() {
    let (slabs, mut tree) = (Slabs::new(4), Tree::default());
    assert_eq!(tree.known(0..u64::MAX), []);
    for page in [5, 64, 130, 300_000] {
        tree.set(page, slabs.copy_of(&[1; PAGE_SIZE]).ok().map(Content::from), 1);
    }
    tree.set(130, None, 2);
    assert_eq!(tree.known(0..1 << 32), [0..192, 299_968..300_032]);
    let all = 10..100;
    assert_eq!(tree.known(all.clone()), [all]);
    assert_eq!(tree.known(192..299_968), []);
    assert_eq!(tree.known(191..299_969), [191..192, 299_968..299_969]);
}
