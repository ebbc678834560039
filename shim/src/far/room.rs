//! The waiting room: pages that were taken from the program, until they are at the server.
//!
//! Owns: [`Room`], who waits where, and which part leaves next. Called by: far's two threads, under its lock. Must not: make system calls,
//! or look at the pages.
//!
//! It is a second chance: who is touched while he waits goes back without the network. Blocks fill one after the other, and leave in that
//! order.

use std::collections::VecDeque;

use crate::sys::mem::PAGE;

/// Pages in a block: what leaves together.
pub const BLOCK_PAGES: usize = 128;
/// Nobody waits there.
const NOBODY: usize = usize::MAX;

/// Places for pages, numbered from 0.
pub struct Room {
    at: usize,
    /// The page that waits in each place.
    pages: Vec<usize>,
    leaving: Vec<bool>,
    free: Vec<u32>,
    /// A block that has room, and how many of its places were used.
    filling: Option<(u32, usize)>,
    full: VecDeque<u32>,
}

impl Room {
    /// Of memory at `at` that has room for so many blocks.
    pub fn new(at: usize, blocks: usize) -> Room {
        Room {
            at,
            pages: vec![NOBODY; blocks * BLOCK_PAGES],
            leaving: vec![false; blocks],
            free: (0..blocks as u32).rev().collect(),
            filling: None,
            full: VecDeque::new(),
        }
    }

    /// Places side by side for at most `count` pages: the first, and how many. None when all blocks are taken.
    pub fn take(&mut self, count: usize) -> Option<(u32, usize)> {
        let (block, used) = match self.filling {
            Some(filling) => filling,
            None => (self.free.pop()?, 0),
        };
        let count = count.min(BLOCK_PAGES - used);
        self.filling = Some((block, used));
        Some((block * BLOCK_PAGES as u32 + used as u32, count))
    }

    /// Pages, side by side, have come to the first places that [`Self::take`] offered.
    pub fn put(&mut self, place: u32, page: usize, count: usize) {
        for i in 0..count {
            self.pages[place as usize + i] = page + i;
        }
        let Some((block, used)) = &mut self.filling else { return };
        *used += count;
        if *used == BLOCK_PAGES {
            let block = *block;
            self.filling = None;
            self.full.push_back(block);
        }
    }

    /// The next who waits, from a place on: the place, the page, and how many pages that follow it wait in the places that follow.
    pub fn next_waiting(&self, from: u32) -> Option<(u32, usize, usize)> {
        let rest = &self.pages[from as usize..];
        let skipped = rest.iter().position(|page| *page != NOBODY)?;
        let page = rest[skipped];
        let count = rest[skipped..].iter().enumerate().take_while(|(i, next)| **next == page + i).count();
        Some((from + skipped as u32, page, count))
    }

    /// Who waits in a place.
    pub fn page_at(&self, place: u32) -> Option<usize> {
        Some(self.pages[place as usize]).filter(|page| *page != NOBODY)
    }

    /// Nobody waits there any more, or a page that has another address now.
    pub fn set(&mut self, place: u32, page: Option<usize>) {
        self.pages[place as usize] = page.unwrap_or(NOBODY);
    }

    /// Where the page lies.
    pub fn address(&self, place: u32) -> usize {
        self.at + place as usize * PAGE
    }

    /// Whether the place is on its way to the server, and has to stay as it is.
    pub fn is_leaving(&self, place: u32) -> bool {
        self.leaving[place as usize / BLOCK_PAGES]
    }

    /// The block that has waited longest leaves. With `even_the_last` one that is not full does, too.
    pub fn leave(&mut self, even_the_last: bool) -> Option<u32> {
        if self.full.is_empty()
            && even_the_last
            && let Some((block, _)) = self.filling.take()
        {
            self.full.push_back(block);
        }
        let block = self.full.pop_front()?;
        self.leaving[block as usize] = true;
        Some(block)
    }

    /// It did not get away: it waits on, as the next.
    pub fn come_back(&mut self, block: u32) {
        self.leaving[block as usize] = false;
        self.full.push_front(block);
    }

    /// Its memory was given back: it can be filled again.
    pub fn emptied(&mut self, block: u32) {
        self.leaving[block as usize] = false;
        self.pages[block as usize * BLOCK_PAGES..][..BLOCK_PAGES].fill(NOBODY);
        self.free.push(block);
    }

    /// Who waits in a block, and where.
    pub fn waiting(&self, block: u32) -> impl Iterator<Item = (u32, usize)> {
        let first = block * BLOCK_PAGES as u32;
        let pages = &self.pages[first as usize..][..BLOCK_PAGES];
        pages
            .iter()
            .enumerate()
            .filter(|(_, page)| **page != NOBODY)
            .map(move |(i, page)| (first + i as u32, *page))
    }

    /// Blocks that can be filled.
    pub fn free_blocks(&self) -> usize {
        self.free.len() + usize::from(self.filling.is_some())
    }

    /// Where a block lies: its address and its bytes.
    pub fn span(&self, block: u32) -> (usize, usize) {
        (self.at + block as usize * BLOCK_PAGES * PAGE, BLOCK_PAGES * PAGE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_leave_in_the_order_in_which_they_filled_and_one_that_comes_back_is_the_next() {
        let mut room = Room::new(1 << 30, 3);
        let fill = |room: &mut Room, first: usize| {
            let mut done = 0;
            while done < BLOCK_PAGES {
                let (place, count) = room.take(100).unwrap();
                assert!(count > 0 && done + count <= BLOCK_PAGES);
                room.put(place, first + done, count);
                done += count;
            }
        };
        (0..3).for_each(|i| fill(&mut room, i * 1000));
        assert_eq!((room.take(1), room.free_blocks()), (None, 0));
        let first = room.leave(false).unwrap();
        assert_eq!(
            room.waiting(first).map(|(_, page)| page).collect::<Vec<_>>(),
            (0..128).collect::<Vec<_>>()
        );
        room.come_back(first);
        assert_eq!(room.leave(false), Some(first));
        assert!(room.is_leaving(first * 128 + 5));
        room.emptied(first);
        assert_eq!(room.take(1), Some((first * 128, 1)));
        let second = room.leave(false).unwrap();
        assert_eq!(room.page_at(second * 128), Some(1000));
        room.set(second * 128, None);
        assert_eq!(room.waiting(second).count(), 127);
    }

    #[test]
    fn a_block_that_is_not_full_leaves_only_when_everybody_has_to() {
        let mut room = Room::new(0, 2);
        let (place, _) = room.take(7).unwrap();
        room.put(place, 40, 7);
        assert_eq!(room.leave(false), None);
        let block = room.leave(true).unwrap();
        assert_eq!(room.waiting(block).count(), 7);
    }
}
