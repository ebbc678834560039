//! What a model is made of.

pub mod files;
pub mod server;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use core::sync::atomic::put_fences_behind;
use loom::model::Builder;
use loom::thread::JoinHandle;
use netmem_protocol::RegionId;

use crate::pager::Region;
use crate::pager::commit::CommitOptions;
use crate::sys::clock::Deadline;
use files::{Cache, Files};
use server::Server;

/// Bytes of a page.
pub const PAGE: u64 = netmem_protocol::PAGE_SIZE as u64;

/// A region's files and its server, for the threads of one interleaving.
#[derive(Clone)]
pub struct World {
    pub files: Arc<Files>,
    pub server: Arc<Server>,
}

impl World {
    /// A host that has nothing of a region of `pages` pages.
    pub fn new(pages: u64) -> World {
        World { files: Arc::new(Files::new(pages)), server: Arc::new(Server::new(pages)) }
    }

    /// One that has all of it.
    pub fn warm(pages: u64) -> World {
        let world = World::new(pages);
        world.process(0).bring_in(&*world.server, 0, pages, false, soon()).expect("it comes");
        world.files.schedule();
        world
    }

    /// The process with this number.
    pub fn process(&self, me: usize) -> Region<Cache> {
        Region::new(RegionId(1), Cache { files: self.files.clone(), me })
    }

    /// A thread of the process `me`.
    pub fn thread(
        &self,
        me: usize,
        body: impl FnOnce(&World, Region<Cache>) + Send + 'static,
    ) -> JoinHandle<()> {
        let world = self.clone();
        spawn(move || {
            let region = world.process(me);
            body(&world, region);
        })
    }

    /// Commits, with these marks from page tables.
    pub fn commit(&self, region: &Region<Cache>, harvest: impl Fn(&mut dyn FnMut(u64, u64))) {
        region.commit(&*self.server, &harvest, CommitOptions::default(), soon()).expect("a commit");
    }

    /// The server has what is here, after a commit with nothing but the marks that there are.
    pub fn check_committed(&self) {
        self.commit(&self.process(0), |_| ());
        for page in 0..self.files.pages() {
            let (here, there) = (self.files.see(page), self.server.newest(page));
            assert_eq!(here, there, "page {page} is one here and another there: a store was forgotten");
        }
    }
}

/// A thread's stack, in words: loom's own would not take a few pages.
const STACK: usize = 1 << 16;

fn spawn(body: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
    loom::thread::Builder::new().stack_size(STACK).spawn(body).expect("a thread")
}

pub fn soon() -> Deadline {
    Deadline::after(None)
}

/// Plays every interleaving.
pub fn every(model: fn()) {
    play(None, model);
}

/// Those in which a thread is interrupted so often at the most, where all would be too many.
pub fn every_up_to(interruptions: usize, model: fn()) {
    play(Some(interruptions), model);
}

fn play(interruptions: Option<usize>, model: fn()) {
    let played = Arc::new(AtomicUsize::new(0));
    for behind in [false, true] {
        put_fences_behind(behind);
        let played = played.clone();
        let mut builder = Builder::new();
        builder.max_branches = 100_000;
        builder.preemption_bound = interruptions;
        builder.check(move || {
            played.fetch_add(1, Ordering::Relaxed);
            spawn(model).join().expect("it ends");
        });
    }
    println!("{} interleavings", played.load(Ordering::Relaxed));
}
