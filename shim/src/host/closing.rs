//! Pages that are about to leave, in processes whose touch of a page that is gone is no fault: they close them first.
//!
//! Owns: asking, and the answer. Called by: room, the thread of hold. Must not: let a page leave that somebody may still show.

use core::sync::atomic::Ordering;
use core::time::Duration;
use std::time::Instant;

use super::{Handle, Runtime, hold};
use crate::pager::Board;
use crate::pager::table::{Slot, hold_word, holder, pages_of_word, pages_word};
use crate::sys::clock::monotonic_ns;

/// How long the processes of a host have to close pages; one that does not in time keeps them.
const ANSWER_LIMIT: Duration = Duration::from_millis(50);
/// How often who waits looks whether the other still lives.
const POLL: Duration = Duration::from_millis(5);

/// Makes every process of the host close pages that were claimed, if it has to. False if one did not. One thread of the host does this at a time.
pub fn close(runtime: &'static Runtime, handle: &Handle, first: u64, end: u64) -> bool {
    let cache = &handle.region.cache;
    let asks = |slot: &Slot| slot.asks.load(Ordering::SeqCst) != 0;
    if asks(cache.slot_of_mine()) && runtime.engine().close_pages(runtime, handle, first, end).is_err() {
        return false;
    }
    let must_be_asked = cache.control().slots.iter().enumerate().any(|(number, slot)| {
        number != cache.slot_number() && slot.pid.load(Ordering::SeqCst) != 0 && asks(slot)
    });
    !must_be_asked || ask(runtime, handle, first, end)
}

fn ask(runtime: &Runtime, handle: &Handle, first: u64, end: u64) -> bool {
    let cache = &handle.region.cache;
    let control = cache.control();
    let word = hold_word(cache.me(), monotonic_ns());
    control.leaving_pages.store(pages_word(first, end), Ordering::SeqCst);
    control.leaving.store(word, Ordering::SeqCst);
    let rung = hold::ring(runtime).is_ok();
    let asked = cache.living_peers().filter(|(_, slot)| slot.asks.load(Ordering::SeqCst) != 0);
    let began = Instant::now();
    let closed = rung
        && asked.into_iter().all(|(number, slot)| {
            loop {
                let answer = slot.closed.load(Ordering::SeqCst);
                if answer == word || answer == !word || !cache.lock_is_held(number) {
                    return answer != !word;
                }
                if began.elapsed() > ANSWER_LIMIT {
                    return false;
                }
                cache.wait(&slot.closed, answer, POLL);
            }
        });
    control.leaving.store(0, Ordering::SeqCst);
    closed
}

/// Closes what another process wants to take out.
pub(super) fn answer(runtime: &'static Runtime, handle: &'static Handle) {
    let Ok(_pin) = handle.pin() else { return };
    let cache = &handle.region.cache;
    let word = cache.control().leaving.load(Ordering::SeqCst);
    let slot = cache.slot_of_mine();
    if holder(word).is_none_or(|owner| owner == cache.me()) || slot.closed.load(Ordering::SeqCst) == word {
        return;
    }
    let (first, end) = pages_of_word(cache.control().leaving_pages.load(Ordering::SeqCst));
    let closed = runtime.engine().close_pages(runtime, handle, first, end);
    // If it is another request's word by now, who asked first has given up.
    if cache.control().leaving.load(Ordering::SeqCst) == word {
        slot.closed.store(if closed.is_ok() { word } else { !word }, Ordering::SeqCst);
        cache.wake(&slot.closed);
    }
}
