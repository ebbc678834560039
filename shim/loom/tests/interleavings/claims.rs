//! Claims: who brings a page in, and what becomes of that when the page goes or changes meanwhile (C1 to C4).

use std::sync::atomic::Ordering::SeqCst;

use crate::pager::page::{Event, State};
use crate::pager::table::Claim;
use crate::world::files::DEAD;
use crate::world::{PAGE, World, every, every_up_to, soon};

/// A host that has nothing, from now on in the model's hands.
fn cold(pages: u64) -> World {
    let world = World::new(pages);
    world.files.schedule();
    world
}

#[test]
fn a_page_that_two_processes_want_is_installed_once_and_both_get_it() {
    every(|| {
        let world = cold(1);
        let other = world.thread(1, |world, region| {
            region.bring_in(&*world.server, 0, 1, false, soon()).expect("it comes");
            assert_eq!(world.files.see(0), 10);
        });
        world.process(0).bring_in(&*world.server, 0, 1, false, soon()).expect("it comes");
        assert_eq!(world.files.see(0), 10);
        other.join().expect("it ends");
        assert_eq!(world.files.installed.load(SeqCst), 1);
    });
}

#[test]
fn a_page_that_is_brought_in_while_the_view_moves_is_that_of_the_new_view() {
    every(|| {
        let world = cold(1);
        world.server.commit_as_other(0, 20);
        let reader = world.thread(1, |world, region| {
            region.bring_in(&*world.server, 0, 1, false, soon()).expect("it comes");
        });
        let region = world.process(0);
        region.refresh(&*world.server).expect("a refresh");
        reader.join().expect("it ends");
        assert_eq!(region.view().0, 2);
        assert_eq!(world.files.see(0), 20, "a page of the old view");
        assert_eq!(world.files.entry(0).state(), State::Present);
    });
}

#[test]
fn a_page_that_is_cut_off_while_it_comes_is_zeros() {
    every(|| {
        let world = cold(2);
        let reader = world.thread(1, |world, region| {
            region.bring_in(&*world.server, 1, 2, false, soon()).expect("it comes, or is gone");
        });
        let region = world.process(0);
        region.truncate(&*world.server, PAGE, soon()).expect("a cut");
        reader.join().expect("it ends");
        assert_eq!((world.files.see(1), region.fetchable()), (0, 1), "what was cut off came back");
        assert_ne!(world.files.entry(1).state(), State::Claimed);
    });
}

#[test]
fn a_page_that_is_punched_while_it_comes_is_zeros_here_and_on_the_server() {
    every(|| {
        let world = cold(1);
        let reader = world.thread(1, |world, region| {
            region.bring_in(&*world.server, 0, 1, false, soon()).expect("it comes");
        });
        world.process(0).punch(&*world.server, 0, PAGE, soon()).expect("a hole");
        reader.join().expect("it ends");
        assert_eq!(world.files.see(0), 0, "what was punched came back");
        world.check_committed();
    });
}

#[test]
fn a_claim_whose_owner_died_is_taken_over_once() {
    every_up_to(3, || {
        let world = World::new(1);
        assert_eq!(world.files.entry(0).claim(DEAD, 0), Claim::Taken);
        world.files.schedule();
        let other = world.thread(1, |world, region| {
            region.bring_in(&*world.server, 0, 1, false, soon()).expect("it comes");
            assert_eq!(world.files.see(0), 10);
        });
        world.process(0).bring_in(&*world.server, 0, 1, false, soon()).expect("it comes");
        assert_eq!(world.files.see(0), 10);
        other.join().expect("it ends");
        assert_eq!(world.files.installed.load(SeqCst), 1);
    });
}

#[test]
fn a_page_that_its_owner_installed_before_it_died_stays_and_is_sent() {
    every(|| {
        let world = World::new(1);
        assert_eq!(world.files.entry(0).claim(DEAD, 0), Claim::Taken);
        // Somebody has stored into it already.
        world.files.store(0, 77);
        world.files.schedule();
        let other = world.thread(1, |world, region| {
            region.bring_in(&*world.server, 0, 1, false, soon()).expect("it is here");
        });
        world.process(0).bring_in(&*world.server, 0, 1, false, soon()).expect("it is here");
        other.join().expect("it ends");
        assert_eq!((world.files.see(0), world.files.installed.load(SeqCst)), (77, 0));
        world.check_committed();
    });
}

#[test]
fn a_claim_that_is_given_back_leaves_a_page_that_can_be_claimed() {
    every(|| {
        let world = cold(1);
        let other = world.thread(1, |world, _| {
            let entry = world.files.entry(0);
            if entry.claim(1, 0) == Claim::Taken {
                entry.settle(Event::Release, 0);
            }
        });
        world.process(0).bring_in(&*world.server, 0, 1, false, soon()).expect("it comes");
        other.join().expect("it ends");
        assert_eq!((world.files.see(0), world.files.entry(0).state()), (10, State::Present));
    });
}
