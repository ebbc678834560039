//! The atomics of the models themselves: what a language promises, and no more.

extern crate netmem_shim_loom as core;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use core::sync::atomic::{AtomicU64, Ordering, put_fences_behind};

/// Whether two threads that each store into a word and then load the other's can both miss the other's store.
fn both_can_miss(store: Ordering, load: Ordering) -> bool {
    let missed = Arc::new(AtomicBool::new(false));
    let noted = missed.clone();
    loom::model(move || {
        let words = Arc::new([AtomicU64::new(0), AtomicU64::new(0)]);
        words.iter().for_each(AtomicU64::schedule);
        let theirs = words.clone();
        let other = loom::thread::spawn(move || {
            theirs[1].store(1, store);
            theirs[0].load(load)
        });
        words[0].store(1, store);
        let here = words[1].load(load);
        if (here, other.join().expect("it ends")) == (0, 0) {
            noted.store(true, Ordering::SeqCst);
        }
    });
    missed.load(Ordering::SeqCst)
}

#[test]
fn a_sequentially_consistent_access_is_that_and_no_more() {
    use Ordering::{Acquire, Release, SeqCst};
    let played = [false, true].map(|behind| {
        put_fences_behind(behind);
        [(SeqCst, SeqCst), (SeqCst, Acquire), (Release, SeqCst), (Release, Acquire)]
            .map(|(store, load)| both_can_miss(store, load))
    });
    // Fences before, and fences behind: what neither shows can't be.
    assert_eq!(played, [[false, true, false, true], [false, false, true, true]]);
}
