//! Stores: each is committed, or known to be still to be (D1 to D4).

use loom::sync::{Arc, Mutex};

use crate::pager::commit::CommitOptions;
use crate::world::{World, every, soon};

#[test]
fn a_write_that_is_marked_afterwards_is_committed_or_stays_dirty() {
    every(|| {
        let world = World::warm(1);
        let writer = world.thread(1, |world, region| {
            world.files.store(0, 99);
            region.mark_dirty(0, 1);
        });
        world.commit(&world.process(0), |_| ());
        writer.join().expect("it ends");
        world.check_committed();
    });
}

#[test]
fn writes_of_two_processes_are_committed_or_stay_dirty() {
    every(|| {
        let world = World::warm(2);
        world.process(0).mark_dirty(1, 1);
        world.files.store(1, 98);
        let writer = world.thread(1, |world, region| {
            world.files.store(0, 99);
            region.mark_dirty(0, 1);
            world.files.store(1, 97);
            region.mark_dirty(1, 1);
        });
        world.commit(&world.process(0), |_| ());
        writer.join().expect("it ends");
        world.check_committed();
    });
}

#[test]
fn a_commit_that_fails_leaves_its_marks_beside_those_that_came_meanwhile() {
    every(|| {
        let world = World::warm(1);
        world.files.store(0, 98);
        world.process(0).mark_dirty(0, 1);
        world.server.refuse_one();
        let writer = world.thread(1, |world, region| {
            world.files.store(0, 99);
            region.mark_dirty(0, 1);
        });
        let refused = world.process(0).commit(&*world.server, &|_| (), CommitOptions::default(), soon());
        assert!(refused.is_err());
        writer.join().expect("it ends");
        world.check_committed();
    });
}

#[test]
fn a_page_that_comes_for_a_write_is_committed_as_it_was_written() {
    every(|| {
        let world = World::new(1);
        world.files.schedule();
        let writer = world.thread(1, |world, region| {
            region.bring_in(&*world.server, 0, 1, true, soon()).expect("it comes");
            world.files.store(0, 99);
            region.mark_dirty(0, 1);
        });
        world.commit(&world.process(0), |_| ());
        writer.join().expect("it ends");
        assert_eq!(world.files.see(0), 99);
        world.check_committed();
    });
}

/// Whether a block can be stored into: the protection of its pages, which a store looks at and an engine changes.
#[derive(Clone)]
struct Block(Arc<Mutex<bool>>);

impl Block {
    fn protected() -> Block {
        Block(Arc::new(Mutex::new(false)))
    }

    fn protect(&self) {
        *self.0.lock().expect("nobody panics") = false;
    }

    /// A store of the program: the processor looks at the protection, and the engine answers its fault.
    fn store(&self, world: &World, region: &crate::pager::Region<crate::world::files::Cache>, value: u64) {
        loop {
            let mut writable = self.0.lock().expect("nobody panics");
            if *writable {
                world.files.store(0, value);
                return;
            }
            region.mark_writer(0, 1);
            *writable = true;
        }
    }
}

#[test]
fn a_store_through_a_block_that_is_protected_again_by_a_commit_is_committed_or_stays_dirty() {
    every(|| {
        let world = World::warm(1);
        let block = Block::protected();
        let programs = block.clone();
        let program = world.thread(0, move |world, region| {
            programs.store(world, &region, 98);
            programs.store(world, &region, 99);
        });
        let region = world.process(0);
        // D3: the tag goes first, then the protection comes back.
        world.commit(&region, |_| {
            region.clear_writer(0, 1, 0);
            block.protect();
        });
        program.join().expect("it ends");
        assert_eq!(world.files.see(0), 99);
        region.clear_writer(0, 1, 0);
        block.protect();
        world.check_committed();
    });
}

#[test]
fn a_page_that_another_process_can_store_into_stays_a_candidate() {
    every(|| {
        let world = World::warm(1);
        let program = world.thread(1, |world, region| {
            region.mark_writer(0, 1);
            world.files.store(0, 98);
            world.files.store(0, 99);
        });
        world.commit(&world.process(0), |_| ());
        program.join().expect("it ends");
        world.check_committed();
        // It does not fault, and tells nobody.
        world.files.store(0, 100);
        world.check_committed();
    });
}

#[test]
fn the_tag_of_one_process_outlives_what_another_does_to_its_own() {
    every(|| {
        let world = World::warm(1);
        let other = world.thread(1, |world, region| {
            region.mark_writer(0, 1);
            world.files.store(0, 99);
            region.clear_writer(0, 1, 1);
        });
        world.process(0).mark_writer(0, 1);
        other.join().expect("it ends");
        world.check_committed();
        world.files.store(0, 100);
        world.check_committed();
    });
}
