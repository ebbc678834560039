//! Departures: a page that is taken out beside somebody who reads it, stores into it, or uses it (E1 to E4, and C3).

use crate::pager::Region;
use crate::pager::evict::Use;
use crate::pager::page::State;
use crate::world::files::{Cache, DEAD};
use crate::world::{World, every_up_to, soon};

/// Takes out what can be. The first round spares what is young.
fn evict(region: &Region<Cache>) {
    for _ in 0..2 {
        region.evict(0..1, 1, true, &|_, _| true).expect("a round");
    }
}

/// The same whatever was stored in it.
fn evict_dirty(world: &World, region: &Region<Cache>) {
    for _ in 0..2 {
        region.evict_pending(&*world.server, 0..1, 1, &|_, _| true).expect("a round");
    }
}

#[test]
fn who_reads_a_page_that_may_leave_reads_it_or_knows_that_it_left() {
    every_up_to(3, || {
        let world = World::warm(1);
        let evictor = world.thread(1, |_, region| evict(&region));
        let region = world.process(0);
        loop {
            let before = region.departures(0, 1);
            if !region.reads_right(0, 1) {
                region.bring_in(&*world.server, 0, 1, false, soon()).expect("it comes");
                continue;
            }
            let seen = world.files.read(0);
            if region.departures(0, 1) == before {
                assert_eq!(seen, 10, "a hole was read");
                break;
            }
        }
        evictor.join().expect("it ends");
    });
}

#[test]
fn a_store_that_is_marked_beside_a_departure_is_committed() {
    every_up_to(3, || {
        let world = World::warm(1);
        let writer = world.thread(1, |world, region| {
            while !region.mark_writer(0, 1) {
                region.bring_in(&*world.server, 0, 1, false, soon()).expect("it comes");
            }
            // If it leaves in between, it comes back unprotected, where another process brings it: the tag outlives that.
            while !world.files.store_if_there(0, 77) {
                region.bring_in(&*world.server, 0, 1, false, soon()).expect("it comes");
            }
        });
        evict(&world.process(0));
        writer.join().expect("it ends");
        assert_eq!(world.files.see(0), 77);
        world.check_committed();
    });
}

#[test]
fn a_store_that_nobody_is_told_of_beside_a_departure_is_committed() {
    every_up_to(3, || {
        let world = World::warm(1);
        let writer = world.thread(1, |world, region| {
            while !world.files.store_if_there(0, 77) {
                region.bring_in(&*world.server, 0, 1, false, soon()).expect("it comes");
            }
        });
        evict(&world.process(0));
        writer.join().expect("it ends");
        assert_eq!(world.files.see(0), 77, "a store was lost");
        // Whatever page tables know is noted by the next harvest.
        world.commit(&world.process(0), |note| note(0, 1));
        assert_eq!(world.server.newest(0), 77);
    });
}

#[test]
fn what_is_committed_beside_a_departure_is_what_the_page_was() {
    every_up_to(3, || {
        let world = World::warm(1);
        world.process(0).mark_dirty(0, 1);
        let evictor = world.thread(1, |_, region| evict(&region));
        world.commit(&world.process(0), |_| ());
        evictor.join().expect("it ends");
        assert_eq!(world.server.newest(0), 10, "a hole was committed");
        let region = world.process(0);
        region.bring_in(&*world.server, 0, 1, false, soon()).expect("it comes");
        assert_eq!(world.files.see(0), 10);
    });
}

#[test]
fn a_store_that_is_committed_beside_a_departure_is_there_afterwards() {
    every_up_to(3, || {
        let world = World::warm(1);
        world.files.store(0, 77);
        world.process(0).mark_dirty(0, 1);
        let evictor = world.thread(1, |_, region| evict(&region));
        world.commit(&world.process(0), |_| ());
        evictor.join().expect("it ends");
        assert_eq!(world.server.newest(0), 77);
        let region = world.process(0);
        region.bring_in(&*world.server, 0, 1, false, soon()).expect("it comes");
        assert_eq!(world.files.see(0), 77, "it came back as it was before the commit");
    });
}

#[test]
fn what_is_used_beside_a_departure_is_here_for_as_long() {
    every_up_to(3, || {
        let world = World::warm(1);
        let user = world.thread(1, |world, region| {
            let here = Use::begin(&region.cache, 0, 1);
            region.bring_in(&*world.server, 0, 1, true, soon()).expect("it comes");
            assert!(world.files.store_if_there(0, 77), "it left while it was used");
            region.mark_dirty(0, 1);
            drop(here);
        });
        evict(&world.process(0));
        user.join().expect("it ends");
        world.check_committed();
        assert_eq!(world.server.newest(0), 77);
    });
}

#[test]
fn a_page_that_a_dead_process_was_taking_out_is_settled_once() {
    every_up_to(3, || {
        let world = World::new(1);
        world.process(0).bring_in(&*world.server, 0, 1, false, soon()).expect("it comes");
        let entry = world.files.entry(0);
        assert!(!entry.evict(DEAD, 0, false, 0) && entry.evict(DEAD, 0, false, 0));
        world.files.schedule();
        let other = world.thread(1, |world, region| {
            region.bring_in(&*world.server, 0, 1, false, soon()).expect("it is here");
        });
        world.process(0).bring_in(&*world.server, 0, 1, false, soon()).expect("it is here");
        other.join().expect("it ends");
        assert_eq!((world.files.see(0), world.files.entry(0).state()), (10, State::Present));
    });
}

#[test]
fn a_store_beside_a_departure_of_what_is_dirty_is_committed() {
    every_up_to(3, || {
        let world = World::warm(1);
        world.files.store(0, 77);
        world.process(0).mark_dirty(0, 1);
        let writer = world.thread(1, |world, region| {
            while !world.files.store_if_there(0, 88) {
                region.bring_in(&*world.server, 0, 1, false, soon()).expect("it comes");
            }
        });
        evict_dirty(&world, &world.process(0));
        writer.join().expect("it ends");
        let region = world.process(0);
        region.bring_in(&*world.server, 0, 1, false, soon()).expect("it comes");
        assert_eq!(world.files.see(0), 88, "a store was lost");
        world.commit(&region, |note| note(0, 1));
        assert_eq!(world.server.newest(0), 88);
    });
}

#[test]
fn what_is_dirty_and_leaves_beside_a_commit_is_committed_by_it_and_comes_back_as_it_was() {
    every_up_to(3, || {
        let world = World::warm(1);
        world.files.store(0, 77);
        world.process(0).mark_dirty(0, 1);
        let evictor = world.thread(1, |world, region| evict_dirty(world, &region));
        world.commit(&world.process(0), |_| ());
        evictor.join().expect("it ends");
        assert_eq!(world.server.newest(0), 77);
        let region = world.process(0);
        region.bring_in(&*world.server, 0, 1, false, soon()).expect("it comes");
        assert_eq!(world.files.see(0), 77);
    });
}

#[test]
fn what_comes_home_beside_its_commit_and_is_stored_into_is_committed_by_the_next() {
    every_up_to(3, || {
        let world = World::new(1);
        let region = world.process(0);
        region.bring_in(&*world.server, 0, 1, false, soon()).expect("it comes");
        world.files.store(0, 77);
        region.mark_dirty(0, 1);
        evict_dirty(&world, &region);
        assert_eq!((world.files.see(0), world.files.entry(0).state()), (0, State::Absent));
        world.files.schedule();
        let writer = world.thread(1, |world, region| {
            region.bring_in(&*world.server, 0, 1, false, soon()).expect("it comes");
            assert!(world.files.store_if_there(0, 88), "it was brought in");
            region.mark_dirty(0, 1);
        });
        world.commit(&region, |_| ());
        assert_eq!(world.server.newest(0) % 11, 0);
        writer.join().expect("it ends");
        assert_eq!(world.files.see(0), 88, "a store was lost");
        world.check_committed();
    });
}
