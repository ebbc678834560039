//! Which epochs stay, step by step.

use super::*;
use crate::reaper::Reaper;
use crate::tree::Tree;

const ME: CacheId = CacheId([1; 16]);
const OTHER: CacheId = CacheId([2; 16]);

fn root(epoch: u64) -> Arc<Root> {
    Arc::new(Root { epoch, size: 0, tree: Tree::default(), cuts: Arc::new([]), reaper: Reaper::start() })
}

/// A region at epoch `last`, in which the cache has pinned `pins`.
fn views(pins: &[u64], last: u64) -> Views {
    let mut views = Views::new(root(1));
    for epoch in 1..=last {
        if epoch > 1 {
            views.publish(root(epoch));
        }
        if pins.contains(&epoch) {
            views.pin(ME, epoch);
        }
    }
    views
}

#[test]
fn an_epoch_nobody_pins_goes_with_the_next_commit() {
    let views = views(&[2], 4);
    let there: Vec<u64> = (0..6).filter(|epoch| views.at(*epoch).is_some()).collect();
    assert_eq!(there, [0, 2, 4]);
}

#[test]
fn a_view_drops_what_is_older_and_keeps_what_is_newer() {
    let mut views = views(&[1, 2, 4], 5);
    views.moved_to(ME, 3);
    assert_eq!(views.kept(), [4], "3 was not there to keep");
    views.moved_to(ME, 5);
    assert_eq!(views.kept(), [5]);
}

#[test]
fn a_commit_on_the_newest_epoch_keeps_its_base_until_the_next_step() {
    let mut views = views(&[1, 2, 3], 3);
    views.publish(root(4));
    views.committed(ME, 3, 3);
    assert_eq!(views.kept(), [3, 4]);
    views.publish(root(5));
    views.committed(ME, 4, 4);
    assert_eq!(views.kept(), [4, 5]);
    views.asked_from(ME, 5);
    assert_eq!(views.kept(), [5]);
}

#[test]
fn a_commit_that_was_merged_keeps_its_base_until_the_view_moves() {
    let mut views = views(&[2], 4);
    views.publish(root(5));
    views.committed(ME, 2, 4);
    assert_eq!(views.kept(), [2, 5]);
    views.asked_from(ME, 2);
    assert_eq!(views.kept(), [2, 5], "the epoch asked from stays");
    views.moved_to(ME, 5);
    assert_eq!(views.kept(), [5]);
}

#[test]
fn one_cache_does_not_end_the_pins_of_another() {
    let mut views = views(&[1, 2], 2);
    views.pin(OTHER, 1);
    views.moved_to(ME, 2);
    assert_eq!(views.kept(), [1, 2]);
    views.forget(OTHER);
    assert_eq!(views.kept(), [2]);
    views.give_up(2);
    assert_eq!(views.kept(), []);
    assert!(views.at(2).is_some(), "it is current");
}

#[test]
fn a_cache_that_pins_too_much_loses_its_oldest() {
    let all: Vec<u64> = (1..=PINS_MAX as u64 + 3).collect();
    let views = views(&all, *all.last().expect("some"));
    assert_eq!(views.kept(), all[3..]);
}
