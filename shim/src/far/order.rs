//! The order in which messages about addresses are followed.
//!
//! Owns: [`Told`], the messages that were read and not followed yet. Called by: the monitor, with the state locked. Must not: make system
//! calls, or change the table.
//!
//! A2. Each thread tells of what it did once it has done it. So of two threads' messages the later change may be told first: one has given
//! an address up, the kernel has given it to the other's mremap, and that one's message comes before. Such a message waits until nobody is
//! changing anything: then everything was told, and the kernel can be asked what is true of an address now.

use super::areas::Ranges;
use crate::sys::mem::PAGE;
use crate::sys::uffd::memory::Event;

/// Messages in the order in which they were read.
#[derive(Default)]
pub struct Told {
    waiting: Vec<Event>,
    /// Where pages were moved to by what was followed already, until nothing waits.
    arrived: Ranges,
}

/// Addresses change just now: what is true of them can't be said.
#[derive(Debug, PartialEq, Eq)]
pub struct Changing;

fn overlap(a: (usize, usize), b: (usize, usize)) -> Option<(usize, usize)> {
    let (start, end) = (a.0.max(b.0), a.1.min(b.1));
    (start < end).then_some((start, end))
}

impl Told {
    /// A message was read.
    pub fn add(&mut self, event: Event) {
        self.waiting.push(event);
    }

    /// Whether it matters in which order they are followed.
    pub fn has_moves(&self) -> bool {
        !self.arrived.is_empty() || self.waiting.iter().any(|event| matches!(event, Event::Moved { .. }))
    }

    /// What is to be followed next, in parts; nothing if all was. Nobody was changing anything when this was begun. `registered` is what
    /// was told so far, and `is_registered` what is true of an address now.
    pub fn next(
        &mut self,
        registered: &Ranges,
        is_registered: impl Fn(usize) -> Result<bool, Changing>,
    ) -> Result<Vec<Event>, Changing> {
        let mut turns = self.waiting.len();
        loop {
            let Some(first) = self.waiting.first().copied() else {
                self.arrived = Ranges::default();
                return Ok(Vec::new());
            };
            let parts = match first {
                Event::Moved { to, length, .. } if registered.meets(to, to + length) && turns > 0 => {
                    if let Some(earlier) = self.moved_away(to, length, &is_registered)? {
                        turns -= 1;
                        self.waiting[..=earlier].rotate_right(1);
                        continue;
                    }
                    vec![first]
                }
                Event::Unmapped { start, end } if self.arrived.meets(start, end) => {
                    self.gone(start, end, &is_registered)?
                }
                event => vec![event],
            };
            self.waiting.remove(0);
            if let Event::Moved { to, length, .. } = first {
                self.arrived.add(to, to + length);
            }
            // All of it may have come back by what is told later.
            if !parts.is_empty() {
                return Ok(parts);
            }
        }
    }

    /// A message behind the first one by which what was there before went elsewhere, and its place ended: what is there now came by the
    /// first one. Where the place did not end, with MREMAP_DONTUNMAP, it was that of the first one.
    fn moved_away(
        &self,
        to: usize,
        length: usize,
        is_registered: impl Fn(usize) -> Result<bool, Changing>,
    ) -> Result<Option<usize>, Changing> {
        for (index, event) in self.waiting.iter().enumerate().skip(1) {
            if let Event::Moved { from, length: other, .. } = *event
                && let Some((start, _)) = overlap((from, from + other), (to, to + length))
                && self.waiting[index..].iter().any(
                    |event| matches!(*event, Event::Unmapped { start: at, end } if (at..end).contains(&start)),
                )
                && is_registered(start)?
            {
                return Ok(Some(index));
            }
        }
        Ok(None)
    }

    /// What of a range has ended, of which a part was moved there already: that part is there now, unless it has ended since.
    fn gone(
        &self,
        start: usize,
        end: usize,
        is_registered: impl Fn(usize) -> Result<bool, Changing>,
    ) -> Result<Vec<Event>, Changing> {
        let mut parts = Ranges::default();
        parts.add(start, end);
        for arrived in self.arrived.iter() {
            let Some((from, to)) = overlap(arrived, (start, end)) else { continue };
            for page in (from..to).step_by(PAGE) {
                if is_registered(page)? {
                    parts.remove(page, page + PAGE);
                }
            }
        }
        Ok(parts.iter().map(|(start, end)| Event::Unmapped { start, end }).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const P: usize = PAGE;

    fn moved(from: usize, to: usize, pages: usize) -> Event {
        Event::Moved { from: from * P, to: to * P, length: pages * P }
    }

    fn unmapped(start: usize, end: usize) -> Event {
        Event::Unmapped { start: start * P, end: end * P }
    }

    /// What is followed, when `known` was told before and `now` is registered.
    fn order(told: &[Event], known: &[(usize, usize)], now: &[(usize, usize)]) -> Vec<Event> {
        let mut list = Told::default();
        told.iter().for_each(|event| list.add(*event));
        let mut registered = Ranges::default();
        known.iter().for_each(|(start, end)| registered.add(start * P, end * P));
        let mut truth = Ranges::default();
        now.iter().for_each(|(start, end)| truth.add(start * P, end * P));
        let mut followed = Vec::new();
        loop {
            let parts = list.next(&registered, |at| Ok(truth.covers(at, at + P))).unwrap();
            if parts.is_empty() {
                assert!(list.waiting.is_empty() && !list.has_moves());
                return followed;
            }
            for part in &parts {
                match *part {
                    Event::Unmapped { start, end } => registered.remove(start, end),
                    Event::Moved { to, length, .. } => registered.add(to, to + length),
                    _ => {}
                }
            }
            followed.extend(parts);
        }
    }

    #[test]
    fn what_is_told_in_order_is_followed_in_order() {
        let told = [moved(10, 50, 4), unmapped(10, 14), moved(50, 10, 4), unmapped(50, 54)];
        assert_eq!(order(&told, &[(10, 14)], &[(10, 14)]), told);
    }

    #[test]
    fn an_end_that_is_told_late_does_not_end_what_was_moved_there() {
        let told = [moved(10, 50, 4), unmapped(10, 14), unmapped(48, 54)];
        let followed = [moved(10, 50, 4), unmapped(10, 14), unmapped(48, 50)];
        assert_eq!(order(&told, &[(10, 14), (48, 54)], &[(50, 54)]), followed);
    }

    #[test]
    fn what_was_moved_and_then_unmapped_has_ended() {
        let told = [moved(10, 50, 4), unmapped(10, 14), unmapped(50, 52), unmapped(50, 54)];
        let followed = [moved(10, 50, 4), unmapped(10, 14), unmapped(50, 52), unmapped(50, 52)];
        assert_eq!(order(&told, &[(10, 14), (50, 54)], &[(52, 54)]), followed);
    }

    #[test]
    fn what_gave_its_address_to_another_moved_before() {
        // 20 went to 60, then 10 went to 20; told the other way round.
        let told = [moved(10, 20, 4), moved(20, 60, 4), unmapped(20, 24), unmapped(10, 14)];
        let followed = [moved(20, 60, 4), moved(10, 20, 4), unmapped(10, 14)];
        assert_eq!(order(&told, &[(10, 14), (20, 24)], &[(20, 24), (60, 64)]), followed);
    }

    #[test]
    fn a_move_onto_something_and_on_from_there_stays_in_order() {
        // With MREMAP_DONTUNMAP: 20 stays registered.
        let told = [unmapped(20, 24), moved(10, 20, 4), unmapped(10, 14), moved(20, 60, 4)];
        assert_eq!(order(&told, &[(10, 14), (20, 24)], &[(20, 24), (60, 64)]), told);
    }

    #[test]
    fn a_move_away_that_leaves_its_place_mapped_comes_after_the_one_that_filled_it() {
        let told = [moved(10, 20, 4), unmapped(10, 14), unmapped(18, 24), moved(20, 60, 4)];
        let followed = [moved(10, 20, 4), unmapped(10, 14), unmapped(18, 20), moved(20, 60, 4)];
        assert_eq!(order(&told, &[(10, 14), (18, 24)], &[(20, 24), (60, 64)]), followed);
    }

    #[test]
    fn nothing_is_decided_while_addresses_change() {
        let mut list = Told::default();
        list.add(moved(10, 20, 4));
        list.add(moved(20, 60, 4));
        list.add(unmapped(20, 24));
        let mut registered = Ranges::default();
        registered.add(20 * P, 24 * P);
        assert_eq!(list.next(&registered, |_| Err(Changing)), Err(Changing));
        assert!(!list.waiting.is_empty());
    }
}
