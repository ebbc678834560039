//! What is known of one page, in one word that all processes of the host change by compare-and-swap.
//!
//! Owns: [`Entry`], and every change of its word. Called by: the rest of the pager. Must not: know where the page or the word lies.

use core::sync::atomic::{AtomicU64, Ordering};

use super::page::{Event, State, must};
use super::table::{SUM_ZERO, TAKING};

/// What is known of one page.
#[repr(C)]
#[derive(Debug, Default)]
pub struct Entry {
    /// State and marks; see the constants.
    word: AtomicU64,
    /// Checksum of the page as it is at the view epoch. Written only by the owner of the claim, or under the region's lock.
    pub sum: AtomicU64,
}

const STATE: u64 = 0b11;
const DIRTY: u64 = 1 << 2;
const FLUSHING: u64 = 1 << 3;
const WAITERS: u64 = 1 << 4;
/// It was brought in, or put back, since the evictor came by last.
const YOUNG: u64 = 1 << 5;
/// The kernel must be able to store into it at any moment: it never leaves.
const PINNED: u64 = 1 << 6;
/// It is not here, and what was stored in it is: where the region's pending pages are (P1).
const PENDING: u64 = 1 << 7;
const OWNER_SHIFT: u32 = 8;
const OWNER: u64 = 0xffff << OWNER_SHIFT;
const WRITER_SHIFT: u32 = 24;
const WRITER: u64 = 0xffff << WRITER_SHIFT;
/// Of a page that is not here the hand's round in which it left last, 1 to 255; 0: it never did, or that was forgotten. Of one that is here
/// how often pages had been taken out when it came or was put back, likewise.
const LEFT_SHIFT: u32 = 40;
const LEFT: u64 = 0xff << LEFT_SHIFT;
/// Rounds for which it is still spared, since it was wanted soon after it left.
const HEAT_SHIFT: u32 = 48;
const HEAT: u64 = 0b11 << HEAT_SHIFT;
/// More than one process may store without a mark.
const WRITER_MANY: u64 = 0xffff;

fn state_of(word: u64) -> State {
    match word & STATE {
        0 => State::Absent,
        1 => State::Claimed,
        2 => State::Present,
        _ => State::Leaving,
    }
}

fn with_state(word: u64, state: State) -> u64 {
    (word & !STATE) | state as u64
}

/// Who comes back within so many rounds of the hand is wanted often.
const ROUNDS_SOON: u64 = 1;
/// For so many rounds more it is spared then.
const HEAT_OF_A_RETURN: u64 = 3;
/// How often the hand passes over a page that may leave, at the most.
pub const SPARED_MOST: u64 = 1 + HEAT_OF_A_RETURN;

/// A count as it is kept in an entry: 1 to 255.
fn stamp(count: u64) -> u64 {
    count % 255 + 1
}

/// How long ago that was, modulo 255; never, for 0.
fn ago(stamp: u64, count: u64) -> u64 {
    if stamp == 0 { u64::MAX } else { (count % 255 + 256 - stamp) % 255 }
}

/// Marks of pages that are not taken out.
fn kept_if(suspected: bool) -> u64 {
    FLUSHING | PINNED | if suspected { 0 } else { DIRTY | WRITER }
}

/// What came of trying to claim a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// It is here.
    Present,
    /// It is ours to bring in.
    Taken,
    /// Someone else is at it; the word to wait on.
    Busy(u64),
}

impl Entry {
    /// The page's state. C2: whoever has closed the gate must not see what was before.
    pub fn state(&self) -> State {
        state_of(self.word.load(Ordering::SeqCst))
    }

    /// The number of the process that claimed it, as of `word`.
    pub fn owner(word: u64) -> usize {
        ((word & OWNER) >> OWNER_SHIFT) as usize
    }

    /// The word, to wait on.
    pub fn word(&self) -> &AtomicU64 {
        &self.word
    }

    /// Tries to claim the page for process `me`.
    pub fn claim(&self, me: usize, page: u64) -> Claim {
        // E3: who has said that it uses the page looks here next.
        let mut word = self.word.load(Ordering::SeqCst);
        loop {
            match state_of(word) {
                State::Present => return Claim::Present,
                State::Claimed | State::Leaving => return Claim::Busy(word),
                State::Absent => {}
            }
            let next = with_state(word, must(State::Absent, Event::Claim, page)) & !OWNER
                | (me as u64) << OWNER_SHIFT;
            match self.word.compare_exchange_weak(word, next, Ordering::SeqCst, Ordering::Acquire) {
                Ok(_) => return Claim::Taken,
                Err(now) => word = now,
            }
        }
    }

    /// Takes over the claim that `word` shows, whose owner is dead.
    pub fn take_over(&self, word: u64, me: usize) -> bool {
        let next = word & !OWNER | (me as u64) << OWNER_SHIFT;
        self.word.compare_exchange(word, next, Ordering::SeqCst, Ordering::Relaxed).is_ok()
    }

    /// Whether that could be: a glance.
    pub fn may_be_evicted(&self, suspected: bool) -> bool {
        let word = self.word.load(Ordering::Acquire);
        state_of(word) == State::Present && word & kept_if(suspected) == 0
    }

    /// Takes a page that is here for process `me`, which alone says then whether it leaves (E1). One that came since pages
    /// were taken out last, `times` times until now, is spared once: it may not even have been touched yet. One that is marked is taken only if
    /// it is `suspected` without reason.
    pub fn evict(&self, me: usize, page: u64, suspected: bool, times: u64) -> bool {
        let kept = kept_if(suspected);
        let mut word = self.word.load(Ordering::Acquire);
        loop {
            if state_of(word) != State::Present || word & kept != 0 {
                return false;
            }
            let is_new = word & YOUNG != 0 && ago((word & LEFT) >> LEFT_SHIFT, times) == 0;
            let spared = is_new || word & HEAT != 0;
            let next = if is_new {
                word & !YOUNG
            } else if spared {
                (word & !YOUNG) - (1 << HEAT_SHIFT)
            } else {
                with_state(word & !YOUNG, must(State::Present, Event::Evict, page)) & !OWNER
                    | (me as u64) << OWNER_SHIFT
            };
            match self.word.compare_exchange_weak(word, next, Ordering::SeqCst, Ordering::Acquire) {
                Ok(_) => return !spared,
                Err(now) => word = now,
            }
        }
    }

    /// It leaves in this round of the hand. The caller has it claimed.
    pub fn note_departure(&self, round: u64) {
        let left = stamp(round) << LEFT_SHIFT;
        let _ =
            self.word.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| Some(word & !LEFT | left));
    }

    /// It comes in this round, perhaps back: soon after it left, or after long. So often pages were taken out until now.
    pub fn note_arrival(&self, clock: u64) {
        let (round, times) = (clock % TAKING, clock / TAKING);
        let _ = self.word.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| {
            let is_soon = ago((word & LEFT) >> LEFT_SHIFT, round) <= ROUNDS_SOON;
            let heat = if is_soon { HEAT_OF_A_RETURN } else { 0 };
            Some(word & !(LEFT | HEAT) | stamp(times) << LEFT_SHIFT | heat << HEAT_SHIFT)
        });
    }

    /// It is put back: as one that comes, but for what was known of it.
    pub fn note_stay(&self, clock: u64) {
        let came = stamp(clock / TAKING) << LEFT_SHIFT;
        let _ =
            self.word.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| Some(word & !LEFT | came));
    }

    /// Ends our claim. Returns whether someone waits.
    pub fn settle(&self, event: Event, page: u64) -> bool {
        self.settle_with(event, page, 0)
    }

    /// Ends our claim on a page that was pending and is in its place now: dirty, whatever became of a commit meanwhile.
    pub fn settle_home(&self, page: u64) -> bool {
        self.settle_with(Event::Install, page, DIRTY)
    }

    fn settle_with(&self, event: Event, page: u64, mark: u64) -> bool {
        let before = self
            .word
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |word| {
                let next = with_state(word, must(state_of(word), event, page)) & !(OWNER | WAITERS) | mark;
                Some(match event {
                    // Somewhere it may be mapped, or will be, without protection and without a mark: it is a candidate again.
                    Event::Install | Event::Stay if next & (WRITER | PENDING) != 0 => {
                        next & !PENDING | YOUNG | DIRTY
                    }
                    Event::Install | Event::Stay => next | YOUNG,
                    // Whoever suspected it meanwhile is answered: it was compared when nobody could store any more (E4); or it never came.
                    Event::Leave | Event::Release => next & !DIRTY,
                    Event::Claim | Event::Cut | Event::Overwrite | Event::Evict => next,
                })
            })
            .unwrap_or_else(|word| word);
        before & WAITERS != 0
    }

    /// Says that we are about to wait for `word` to change. False if it has changed already.
    pub fn announce_waiter(&self, word: u64) -> Option<u64> {
        let next = word | WAITERS;
        match self.word.compare_exchange(word, next, Ordering::SeqCst, Ordering::Relaxed) {
            Ok(_) => Some(next),
            Err(_) => None,
        }
    }

    /// Notes that the page may differ from its base. Absent pages are left alone: there is nothing to send. Returns whether
    /// it was noted.
    pub fn mark_dirty(&self) -> bool {
        self.word
            .fetch_update(Ordering::SeqCst, Ordering::Relaxed, |word| {
                (state_of(word) != State::Absent).then_some(word | DIRTY)
            })
            .is_ok()
    }

    /// Notes that process `me` may store into the page without telling anyone. Not of one that is leaving: who wants to store waits.
    pub fn mark_writer(&self, me: usize) -> bool {
        let mine = me as u64 + 1;
        self.word
            .fetch_update(Ordering::SeqCst, Ordering::Relaxed, |word| {
                let writer = match (word & WRITER) >> WRITER_SHIFT {
                    0 => mine,
                    other if other == mine => mine,
                    _ => WRITER_MANY,
                };
                (!matches!(state_of(word), State::Absent | State::Leaving))
                    .then_some(word & !WRITER | writer << WRITER_SHIFT | DIRTY)
            })
            .is_ok()
    }

    /// The same of a page that the kernel may store into at any moment.
    pub fn mark_pinned(&self, me: usize) -> bool {
        let pin = |word: u64| (state_of(word) == State::Present).then_some(word | PINNED);
        let _ = self.word.fetch_update(Ordering::SeqCst, Ordering::Relaxed, pin);
        self.mark_writer(me)
    }

    /// Process `me` can no longer store unnoticed. With `alone`, nobody can. Of a page that is not here that is not known: where it was not
    /// protected when it left, it is not when it comes back.
    pub fn clear_writer(&self, me: usize, alone: bool) {
        let mine = me as u64 + 1;
        let _ = self.word.fetch_update(Ordering::SeqCst, Ordering::Relaxed, |word| {
            let writer = (word & WRITER) >> WRITER_SHIFT;
            let here = state_of(word) == State::Present;
            (here && (writer == mine || alone && writer != 0)).then_some(word & !WRITER)
        });
    }

    /// Whether the page may be dirty, or pending, or is on its way.
    pub fn is_dirty(&self) -> bool {
        self.word.load(Ordering::Acquire) & (DIRTY | FLUSHING | PENDING) != 0
    }

    /// Whether what was stored in the page is where the region's pending pages are.
    pub fn is_pending(&self) -> bool {
        self.word.load(Ordering::SeqCst) & PENDING != 0
    }

    /// Whether the page is neither here, nor on its way, nor pending.
    pub fn is_nowhere(&self) -> bool {
        self.word.load(Ordering::SeqCst) & (STATE | PENDING) == 0
    }

    /// Of a page that is leaving: a copy of it is where pending pages are. From here on a hole in its place is not the end of it.
    pub fn set_pending(&self) {
        self.word.fetch_or(PENDING, Ordering::SeqCst);
    }

    /// What was pending is committed.
    pub fn clear_pending(&self) {
        self.word.fetch_and(!PENDING, Ordering::SeqCst);
    }

    /// Starts a flush of a page that is pending. Returns whether it does: not if somebody brings it in.
    pub fn begin_flush_pending(&self) -> bool {
        let before = self.word.fetch_update(Ordering::SeqCst, Ordering::Relaxed, |word| {
            (word & PENDING != 0 && state_of(word) == State::Absent).then_some(word | FLUSHING)
        });
        before.is_ok()
    }

    /// Starts a flush: dirty becomes flushing. Returns whether it does: not if there is nothing to flush, or if the page is not here, or is
    /// somebody's, who may be taking it out.
    pub fn begin_flush(&self) -> bool {
        let before = self.word.fetch_update(Ordering::SeqCst, Ordering::Relaxed, |word| {
            (word & (DIRTY | FLUSHING) != 0 && state_of(word) == State::Present)
                .then_some(word & !DIRTY | FLUSHING)
        });
        before.is_ok()
    }

    /// Ends a flush. A page that failed, or that someone can store into unnoticed, is dirty again. Returns whether it is.
    pub fn end_flush(&self, sent: bool) -> bool {
        let before = self
            .word
            .fetch_update(Ordering::SeqCst, Ordering::Relaxed, |word| {
                let again = (!sent || word & WRITER != 0) && state_of(word) != State::Absent;
                Some(word & !FLUSHING | if again { DIRTY } else { 0 })
            })
            .unwrap_or_else(|word| word);
        !sent || before & (WRITER | DIRTY | PENDING) != 0
    }

    /// The program cut the page off, or made it zeros: state, marks and base follow.
    /// False, and nothing done, while someone has it claimed.
    pub fn reset(&self, event: Event, page: u64) -> bool {
        let done = self.word.fetch_update(Ordering::SeqCst, Ordering::Relaxed, |word| {
            let state = state_of(word);
            (!state.is_taken())
                .then(|| with_state(word, must(state, event, page)) & !(DIRTY | FLUSHING | PENDING))
        });
        if done.is_ok() && event == Event::Cut {
            self.sum.store(SUM_ZERO, Ordering::Release);
        }
        done.is_ok()
    }
}
