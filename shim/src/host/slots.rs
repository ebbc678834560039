//! Who is attached to a region: a slot of the control file for each process, and a lock that says whether it lives.
//!
//! Owns: slots and their locks. Called by: cache_file, harvest and hold. Must not: take a number that stands for a process that lives.

use core::sync::atomic::{AtomicU64, Ordering};

use super::cache_file::{Attachment, RegionFile, SLOT_LOCK_BASE};
use crate::pager::table::{InUse, LAYOUT, MAGIC, SLOTS_MAX, Slot, Tracking, USES, pages_of_word, pages_word};
use crate::sys::errno::Errno;
use crate::sys::{proc, shm};

impl RegionFile {
    /// Looks at who is attached, and who is dead. They are there until they are buried: whoever does that has to be found dead himself if he
    /// is killed before he has done what that asks for.
    pub(super) fn take_stock(&self, id: u64) -> (Attachment, Vec<usize>) {
        let control = self.control;
        let ours = control.magic.load(Ordering::SeqCst) == MAGIC
            && control.layout.load(Ordering::SeqCst) == LAYOUT
            && control.region.load(Ordering::SeqCst) == id;
        if !ours {
            return (Attachment { fresh: true, ..Attachment::default() }, Vec::new());
        }
        let (mut living, mut dead, mut executed) = (0, 0, 0);
        let mut gone = Vec::new();
        for (number, slot) in control.slots.iter().enumerate() {
            let pid = slot.pid.load(Ordering::SeqCst);
            if pid == 0 {
                continue;
            }
            if self.lock_is_held(number) {
                living += 1;
                continue;
            }
            // The lock is gone with the descriptor, by death or by an exec that went past us; the latter loses nothing.
            let same = proc::start_time(pid as i32) == Some(slot.started.load(Ordering::SeqCst));
            if same {
                executed += 1
            } else {
                dead += 1
            }
            gone.push(number);
        }
        if living + executed == 0 {
            control.heirs.store(0, Ordering::SeqCst);
        }
        // With the last holder dead, nobody can tell its stores from what was committed: the pages go, and the last commit
        // is what the next one sees.
        let fresh = dead > 0 && living + executed == 0;
        let alone = living + executed == 0 && !fresh;
        (Attachment { fresh, suspects: dead + executed > 0, alone, given_up: fresh }, gone)
    }

    /// Nobody looks at those who are gone any more, but at this process, if it has one of their slots.
    pub(super) fn bury(&self, gone: &[usize]) {
        for number in gone.iter().filter(|number| **number != self.my_slot()) {
            self.control.slots[*number].pid.store(0, Ordering::SeqCst);
        }
    }

    /// Takes a slot that is free, or of one who is gone.
    pub(super) fn take_slot(&self, tracking: Tracking, gone: &[usize]) -> Result<(), Errno> {
        for (number, slot) in self.control.slots.iter().enumerate() {
            let is_free = slot.pid.load(Ordering::SeqCst) == 0 || gone.contains(&number);
            if is_free && self.try_lock_slot(number) {
                slot.tracking.store(tracking as u64, Ordering::SeqCst);
                let pid = rustix::process::getpid().as_raw_nonzero().get();
                slot.started.store(proc::start_time(pid).unwrap_or(0), Ordering::SeqCst);
                slot.taken.fetch_add(1, Ordering::SeqCst);
                let words = slot.uses.iter().chain([&slot.closed, &slot.locked]);
                words.for_each(|word| word.store(0, Ordering::SeqCst));
                slot.uses_all.store(self.keeps_all.load(Ordering::SeqCst).into(), Ordering::SeqCst);
                slot.asks.store(self.shows.load(Ordering::SeqCst).into(), Ordering::SeqCst);
                slot.pid.store(pid as u64, Ordering::SeqCst);
                self.slot.store(number, Ordering::SeqCst);
                return Ok(());
            }
        }
        crate::log::error!("more than {SLOTS_MAX} processes are attached to one region; end some of them");
        Err(Errno(libc::EMFILE))
    }

    pub(super) fn my_slot(&self) -> usize {
        self.slot.load(Ordering::Relaxed)
    }

    /// This process's slot.
    pub fn slot_of_mine(&self) -> &Slot {
        &self.control.slots[self.my_slot()]
    }

    /// Leaves: what is dirty is noted, so nobody need suspect anything.
    pub fn detach(&self) {
        let slot = self.my_slot();
        self.control.slots[slot].pid.store(0, Ordering::SeqCst);
        let _ = self.slot_lock(slot, libc::F_UNLCK, libc::F_OFD_SETLK);
    }

    /// Living processes attached, this one not counted, with how they learn of their stores.
    pub fn peers(&self) -> Vec<(i32, Tracking)> {
        let tracking = |slot: &Slot| Tracking::from_word(slot.tracking.load(Ordering::SeqCst));
        self.living_peers()
            .map(|(_, slot)| (slot.pid.load(Ordering::SeqCst) as i32, tracking(slot)))
            .collect()
    }

    /// Their slots, and the numbers of those.
    pub fn living_peers(&self) -> impl Iterator<Item = (usize, &'static Slot)> + '_ {
        let slots = self.control.slots.iter().enumerate();
        slots.filter(|(number, slot)| {
            slot.pid.load(Ordering::SeqCst) != 0 && *number != self.my_slot() && self.lock_is_held(*number)
        })
    }

    /// Whether another process may be attached; a glance, that may say yes for a dead one.
    pub fn has_company(&self) -> bool {
        let me = self.my_slot();
        self.control
            .slots
            .iter()
            .enumerate()
            .any(|(number, slot)| number != me && slot.pid.load(Ordering::Relaxed) != 0)
    }

    /// Frees slots whose processes died. Returns whether there were any: their stores can only be found by checksum.
    pub fn bury_the_dead(&self) -> bool {
        let mut any = false;
        for (number, slot) in self.control.slots.iter().enumerate() {
            let free = slot.pid.load(Ordering::SeqCst) == 0;
            if !free && number != self.my_slot() && !self.lock_is_held(number) {
                slot.pid.store(0, Ordering::SeqCst);
                any = true;
            }
        }
        any
    }

    fn try_lock_slot(&self, slot: usize) -> bool {
        self.slot_lock(slot, libc::F_WRLCK, libc::F_OFD_SETLK).is_ok()
    }

    /// Whether another process holds the lock on a slot, and is the one that took it: a child that was cloned past us keeps
    /// the lock of a parent that is dead.
    pub fn lock_is_held(&self, number: usize) -> bool {
        let held =
            self.slot_lock(number, libc::F_WRLCK, libc::F_OFD_GETLK).is_ok_and(|kind| kind != libc::F_UNLCK);
        let slot = &self.control.slots[number];
        // The lock alone is not enough: a child that was cloned past us has its parent's descriptors, and with them the lock. It is
        // enough only where /proc can't be read just now.
        held && proc::start_time(slot.pid.load(Ordering::SeqCst) as i32)
            .is_none_or(|started| started == slot.started.load(Ordering::SeqCst))
    }

    /// Locks of our open file description: the kernel drops them when the process dies, and a forked child makes a
    /// description of its own. (Record locks of the process would go with any close of the file in it.)
    fn slot_lock(&self, slot: usize, kind: i32, command: i32) -> Result<i32, Errno> {
        shm::lock_byte(&self.control_file, SLOT_LOCK_BASE + slot as i64, kind, command)
    }

    /// E3: said first, so that whoever takes pages out sees it, or the pages are seen as leaving.
    pub(super) fn note_use(&self, first: u64, end: u64) -> InUse {
        let slot = self.slot_of_mine();
        if end <= first {
            return InUse::Pages(USES, 0);
        }
        let word = pages_word(first, end);
        let free =
            |use_: &AtomicU64| use_.compare_exchange(0, word, Ordering::SeqCst, Ordering::Relaxed).is_ok();
        let told_apart = end <= 1 << 32;
        match slot.uses.iter().position(|use_| told_apart && free(use_)) {
            Some(place) => InUse::Pages(place, word),
            None => {
                slot.uses_all.fetch_add(1, Ordering::SeqCst);
                InUse::All
            }
        }
    }

    pub(super) fn forget_use(&self, which: InUse) {
        let slot = self.slot_of_mine();
        match which {
            InUse::Pages(place, _) => {
                if let Some(use_) = slot.uses.get(place) {
                    use_.store(0, Ordering::SeqCst);
                }
            }
            InUse::All => {
                // A forked child has a slot of its own, where its parent's uses never were.
                let fewer = |uses: u64| uses.checked_sub(1);
                let _ = slot.uses_all.fetch_update(Ordering::SeqCst, Ordering::SeqCst, fewer);
            }
        }
    }

    pub(super) fn is_used(&self, first: u64, end: u64) -> bool {
        let overlaps = |word: u64| {
            let (from, to) = pages_of_word(word);
            from < end && to > first
        };
        let uses = |slot: &Slot| {
            slot.uses_all.load(Ordering::SeqCst) != 0
                || slot.uses.iter().chain([&slot.locked]).any(|use_| overlaps(use_.load(Ordering::SeqCst)))
        };
        let slots = self.control.slots.iter().enumerate();
        let mut attached = slots.filter(|(_, slot)| slot.pid.load(Ordering::SeqCst) != 0 && uses(slot));
        // The dead use nothing.
        attached.any(|(number, _)| number == self.my_slot() || self.lock_is_held(number))
    }

    /// The process has these pages locked, or none: they don't leave.
    pub fn set_locked(&self, pages: Option<(u64, u64)>) {
        let word = match pages {
            Some((first, end)) if end <= 1 << 32 => pages_word(first, end),
            Some(_) | None => 0,
        };
        self.slot_of_mine().locked.store(word, Ordering::SeqCst);
    }

    /// From now on this process, and a forked child of it, is asked before pages leave: it shows some.
    pub fn ask_before_pages_leave(&self) {
        self.shows.store(true, Ordering::SeqCst);
        self.slot_of_mine().asks.store(1, Ordering::SeqCst);
    }

    /// The number of this process's slot.
    pub fn slot_number(&self) -> usize {
        self.my_slot()
    }
}
