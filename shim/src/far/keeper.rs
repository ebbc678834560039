//! The keeper: looks how much is resident, and moves out what is too much.
//!
//! Owns: the thread, the marks, the hand that goes round the program's memory. Called by: far. Must not: touch the program's memory, or hold
//! the lock over the network.
//!
//! Who leaves is decided by a clock hand and the waiting room: the hand takes pages in the order of their addresses, and who is touched in
//! the waiting room goes back and is passed over the next time.

use core::sync::atomic::Ordering;
use core::time::Duration;

use super::areas::{self, Area, Ranges, Resident};
use super::family::Family;
use super::fork::{self, is_control};
use super::growth;
use super::table::{Entry, Place, WINDOW_PAGES};
use super::{Far, KICK, MISSED, Settings, State, counters, is_started, journal, say_what_it_wants, still};
use crate::config::WhenFull;
use crate::log;
use crate::stats;
use crate::sys::errno::Errno;
use crate::sys::futex;
use crate::sys::limit;
use crate::sys::mem::{self, PAGE};
use crate::sys::pagemap::Pagemap;
use crate::sys::thread;
use crate::sys::uffd::MODE_MISSING;

/// Pages that a program can touch first in a second, at the most: how soon the keeper has to look again.
const PAGES_A_SECOND: usize = 1 << 20;
/// The longest and the shortest pause between two looks.
const PAUSE_MAX: Duration = Duration::from_millis(100);
const PAUSE_MIN: Duration = Duration::from_millis(1);
/// The longest one of a process that shares its budget.
const PAUSE_IN_COMPANY: Duration = Duration::from_millis(10);
/// The pause after no server was found.
const PAUSE_UNKEPT: Duration = Duration::from_secs(1);
/// The pause after nothing could leave.
const PAUSE_NOTHING: Duration = Duration::from_millis(20);
/// glibc keeps the head of an arena at the start of a heap that is aligned so (HEAP_MAX_SIZE, malloc/arena.c); fork needs it while nobody
/// serves faults.
const ARENA_ALIGNMENT: usize = 64 << 20;
/// How often a mapping is tried to be registered while addresses change.
const TRIES: usize = 5;
/// Pages moved while the lock is held.
const BATCH_PAGES: usize = 32;

/// Amounts of resident memory, in pages, at which something happens.
struct Marks {
    /// A userfaultfd, a monitor and a waiting room are taken, so that nothing has to be made when it counts.
    prepare: usize,
    /// The server is asked for a region.
    begin: usize,
    /// Where leaving ends; from here on first touches come to the monitor, who can slow them down.
    low: usize,
    /// Where leaving begins.
    high: usize,
    /// Pages in the waiting room.
    room: usize,
}

impl Marks {
    fn of(budget: usize) -> Marks {
        Marks {
            prepare: budget / 2,
            begin: budget - budget / 8,
            low: budget - budget / 16,
            high: budget - budget / 32,
            room: (budget / 16).clamp(256, 32 << 10),
        }
    }
}

/// The thread.
struct Keeper {
    settings: Settings,
    /// Pages that the family may have, and of these what this process may: the marks are those of that.
    budget: usize,
    share: usize,
    family: Family,
    marks: Marks,
    pagemap: Pagemap,
    far: Option<&'static Far>,
    /// Whether it was tried to have it in time.
    tried: bool,
    areas: Vec<Area>,
    /// Where the hand stands: an area, and an address in it.
    hand: (usize, usize),
}

/// Runs for as long as the process does.
pub(super) fn run(settings: Settings, far: Option<&'static Far>, inherited: Option<&[Area]>) {
    if let Some(memory) = inherited {
        far.into_iter().for_each(|far| far.inherit(memory));
        still::begun();
    }
    thread::go_first();
    let budget = (settings.memory_bytes / PAGE as u64) as usize;
    let (Ok(resident), Ok(pagemap)) = (Resident::open(), Pagemap::open(None)) else {
        log::error!("NETMEM_MEMORY_BYTES is not kept: /proc can't be read");
        return still::nobody_answers();
    };
    let marks = Marks::of(budget);
    let (family, tried, areas, hand) = (Family::join(), false, Vec::new(), (0, 0));
    let mut keeper =
        Keeper { settings, budget, share: budget, family, marks, pagemap, far, tried, areas, hand };
    loop {
        let seen = KICK.load(Ordering::Acquire);
        let all = resident.pages();
        counters::RESIDENT_MAX.fetch_max(all as u64, Ordering::Relaxed);
        let pages = keeper.count(all);
        let again = || {
            let now = resident.pages();
            counters::RESIDENT_MAX.fetch_max(now as u64, Ordering::Relaxed);
            now.saturating_sub(all - pages)
        };
        let pause = match keeper.look(pages, again, || resident.data()) {
            Ok(pause) => pause,
            // It was said why.
            Err(Errno(libc::EOPNOTSUPP | libc::EPERM | libc::ENOSYS)) => return still::nobody_answers(),
            Err(_) => PAUSE_UNKEPT,
        };
        if still::is_asked() {
            keeper.stand_still();
        } else {
            futex::wait(&KICK, seen, Some(pause));
        }
    }
}

impl Keeper {
    /// Of so many resident pages, those that count; and what the family leaves to this process.
    fn count(&mut self, resident: usize) -> usize {
        let pages = self.family.own_part(resident);
        let share = self.family.limit(self.budget, pages);
        if share != self.share {
            self.share = share;
            self.marks = Marks::of(share);
        }
        pages
    }

    /// Does what the number asks for, and says when to look again.
    fn look(
        &mut self,
        mut pages: usize,
        again: impl Fn() -> usize,
        data: impl Fn() -> usize,
    ) -> Result<Duration, Errno> {
        let soon = pages + growth::wanted();
        if (pages >= self.marks.prepare || soon >= self.marks.begin) && self.far.is_none() && !self.tried {
            self.tried = true;
            // If it can't be had, that is nobody's concern before it is needed.
            self.far = Far::begin(&self.settings, self.marks.room).ok();
        }
        let near = if is_started() { self.marks.low } else { self.marks.begin };
        growth::looked(near as i64 - pages as i64);
        if pages < self.marks.begin {
            let room = self.marks.begin - pages;
            let pause = Duration::from_micros((room * 1_000_000 / PAGES_A_SECOND) as u64);
            if let Some(far) = self.far {
                far.full.ends();
                far.look_at_lent();
                // Without a server nobody waits.
                if !MISSED.load(Ordering::Relaxed) {
                    far.allow((self.marks.high - pages) as i64);
                }
            }
            // Others may grow as well.
            let longest = if self.family.has_others() { PAUSE_IN_COMPANY } else { PAUSE_MAX };
            return Ok(pause.clamp(PAUSE_MIN, longest));
        }
        let far = match self.far {
            Some(far) => far,
            None => self.far.insert(
                Far::begin(&self.settings, self.marks.room).inspect_err(|errno| say_what_it_wants(*errno))?,
            ),
        };
        if !is_started() {
            self.connect(far, pages)?;
            // The program went on while the server was asked.
            pages = again();
        }
        far.look_at_lent();
        if pages >= self.marks.low {
            self.register_all(far);
        }
        if far.full.is() && self.settings.when_full == WhenFull::Enomem {
            // No more can be allocated than is: mmap(2) and brk(2) say ENOMEM, malloc(3) gives NULL.
            limit::set((data() * PAGE) as u64);
        }
        while pages > self.marks.high && !still::is_asked() && !far.full.rests() {
            let out = self.make_room(far, pages - self.marks.low);
            pages = again();
            if out == 0 {
                // Locked or pinned; a look at all of it takes long, and would show the same.
                return Ok(PAUSE_NOTHING);
            }
        }
        far.allow(self.marks.high as i64 - pages as i64);
        Ok(PAUSE_MIN)
    }

    /// A8. Looks for the server, and slows down first touches meanwhile, but not for long. Without one the program goes on as it likes.
    fn connect(&mut self, far: &'static Far, pages: usize) -> Result<(), Errno> {
        // What the server says is nothing that would end the keeper.
        let none = Errno(libc::EIO);
        if MISSED.load(Ordering::Relaxed) {
            far.let_go();
            far.connect(None).map_err(|_| none)?;
        } else {
            far.allow(self.marks.high as i64 - pages as i64);
            far.serves.store(true, Ordering::Release);
            self.register_all(far);
            far.connect(None).map_err(|_| {
                MISSED.store(true, Ordering::SeqCst);
                far.let_go();
                none
            })?;
        }
        MISSED.store(false, Ordering::Relaxed);
        {
            // A fork that has begun without it ends without it.
            let _no_fork = fork::FORKS.lock();
            far.begins();
        }
        far.allow(self.marks.high as i64 - pages as i64);
        // What was registered is looked up again, and not copied any more to a child that a clone makes past us.
        far.lock().registered = Ranges::default();
        self.register_all(far);
        Ok(())
    }

    /// For as long as a fork takes.
    fn stand_still(&self) {
        still::stand(
            || self.far.into_iter().for_each(fork::begin),
            || self.far.into_iter().for_each(fork::end),
        );
    }

    /// Looks again at what is mapped, and registers it, so that all touches of missing pages come to the monitor.
    fn register_all(&mut self, far: &Far) {
        self.find_areas();
        far.register_areas(&self.areas);
    }

    fn find_areas(&mut self) {
        if let Ok(areas) = areas::areas() {
            let at = self.hand.1;
            self.areas = areas;
            let index = self.areas.partition_point(|area| area.end <= at);
            let start = self.areas.get(index).map_or(0, |area| area.leaves.max(at));
            self.hand = (index, start);
        }
    }

    /// Fills the waiting room and sends who waited longest. How many pages less there are.
    fn make_room(&mut self, far: &Far, wanted: usize) -> usize {
        let mut out = 0;
        while out < wanted && !still::is_asked() {
            self.fill_room(far);
            match far.send(false) {
                Ok(None) => break,
                Ok(Some(sent)) => {
                    out += sent;
                    far.vain.store(0, Ordering::Relaxed);
                    far.allowance.fetch_add(sent as i64, Ordering::Relaxed);
                    far.made_room.fetch_add(1, Ordering::Release);
                    futex::wake(&far.made_room, i32::MAX);
                }
                Err(()) => break,
            }
        }
        out
    }

    /// Moves the hand on until the waiting room is full, or the hand has come round with nothing in it.
    fn fill_room(&mut self, far: &Far) {
        let mut rounds = 0;
        while far.state.lock().room.free_blocks() > 0 && !still::is_asked() {
            let Some((from, to)) = self.next_window() else {
                rounds += 1;
                self.register_all(far);
                self.hand = (0, self.areas.first().map_or(0, |area| area.leaves));
                if rounds > 2 || self.areas.is_empty() {
                    return;
                }
                continue;
            };
            for (first, end) in self.resident(far, from, to) {
                let mut at = first;
                while at < end {
                    let next = (at + BATCH_PAGES).min(end);
                    if let Some(shared) = far.move_out((at, next), true) {
                        own(shared, next);
                        far.move_out((shared, next), false);
                    }
                    at = next;
                }
            }
        }
    }

    /// Runs of pages that are there, between two addresses.
    fn resident(&self, far: &Far, from: usize, to: usize) -> Vec<(usize, usize)> {
        let mut state = far.state.lock();
        let mut runs = Vec::new();
        let _ = self.pagemap.resident(from, to, &mut |start, end| runs.push((start / PAGE, end / PAGE)));
        if state.going.meets(from, to) {
            // Looked at with the state locked: what is said to go was said before it was missing.
            let mut at = from;
            for (first, end) in runs.iter().chain([&(to / PAGE, to / PAGE)]) {
                state.going.was_missing(at, first * PAGE);
                at = end * PAGE;
            }
        }
        state.going.turn();
        runs
    }

    /// The next part of the program's memory, or None at its end.
    fn next_window(&mut self) -> Option<(usize, usize)> {
        let (index, at) = self.hand;
        let area = *self.areas.get(index)?;
        let end = (at / PAGE / WINDOW_PAGES + 1) * WINDOW_PAGES * PAGE;
        let to = end.min(area.end);
        self.hand = if to == area.end {
            (index + 1, self.areas.get(index + 1).map_or(usize::MAX, |area| area.leaves))
        } else {
            (index, to)
        };
        Some((at, to))
    }
}

/// Pages that were shared with a child are this process's own afterwards: copied if they still are shared. The kernel moves no others, nor
/// those whose last sharer has gone, until somebody stores there. No lock is held: what is gone meanwhile is a touch like any other.
fn own(first: usize, end: usize) {
    // SAFETY: it changes nothing that a program could see; where nothing may be stored it does nothing.
    let _ = unsafe { mem::madvise(first * PAGE, (end - first) * PAGE, libc::MADV_POPULATE_WRITE) };
}

/// What libc or the kernel needs while nobody serves faults.
fn has_to_stay(page: usize) -> bool {
    (page * PAGE).is_multiple_of(ARENA_ALIGNMENT) || is_control(page)
}

impl Far {
    /// Registers what a forked child got from its parent, and where something of it is away.
    fn inherit(&self, memory: &[Area]) {
        for area in memory {
            if !self.register(&mut self.state.lock(), (area.start, area.end)) {
                return log::error!("far memory: a forked child can't have its memory at {:#x}", area.start);
            }
            self.inherited.fetch_add(1, Ordering::Release);
        }
    }

    /// There is no server: touches of missing pages come to us no more, but where addresses have just changed.
    fn let_go(&self) {
        self.serves.store(false, Ordering::Release);
        let mut state = self.lock();
        self.allow(i64::MAX / 2);
        let all: Vec<(usize, usize)> = state.registered.iter().collect();
        for (start, end) in all {
            if self.uffd.unregister(start, end - start).is_err() {
                // Something else lies in it by now.
                for area in areas::anonymous().unwrap_or_default() {
                    let (start, end) = (start.max(area.start), end.min(area.end));
                    if start < end {
                        let _ = self.uffd.unregister(start, end - start);
                    }
                }
            }
            state.registered.remove(start, end);
        }
    }

    /// What lies side by side is registered in one step: a program may be about to move two mappings that have become one.
    fn register_areas(&self, areas: &[Area]) {
        let mut runs = areas.iter().map(|area| (area.start, area.end)).peekable();
        while let Some((start, mut end)) = runs.next() {
            while let Some(next) = runs.next_if(|next| next.0 == end) {
                end = next.1;
            }
            for _ in 0..TRIES {
                let mut state = self.lock();
                if state.registered.covers(start, end) || self.register(&mut state, (start, end)) {
                    break;
                }
                drop(state);
                futex::pause(Duration::from_micros(20));
            }
        }
    }

    /// Touches of missing pages come to us from now on; false if the kernel says no, or while a message about addresses is on its way: what is
    /// new where something was moved away must not have messages that overtake that one (A2). Not copied to a child that a clone makes past
    /// us: it would read zeros there. One that we know of gets it, and the parent's are set back afterwards.
    fn register(&self, state: &mut State, (start, end): (usize, usize)) -> bool {
        if !self.serves.load(Ordering::Acquire)
            || self.uffd.is_changing()
            || self.uffd.register(start, end - start, MODE_MISSING).is_err()
        {
            return false;
        }
        if is_started() && !journal::is_open() {
            let _ = mem::set_fork(start, end - start, false);
        }
        state.registered.add(start, end);
        true
    }

    /// Moves pages into the waiting room, but for those that were touched there lately. A2: registered, moved and noted with the lock held.
    /// With `ask` it ends at the first one that is shared or pinned, and returns it.
    fn move_out(&self, (first, end): (usize, usize), ask: bool) -> Option<usize> {
        // A5. The area was looked up a while ago; a thread of ours may have its stack there by now.
        if thread::is_near_ours(first * PAGE, end * PAGE) {
            return None;
        }
        let mut state = self.state.lock();
        let state = &mut *state;
        if !state.registered.covers(first * PAGE, end * PAGE) {
            // Something new: it is registered with the next look.
            return None;
        }
        let may_not = |state: &State, page: usize| {
            has_to_stay(page) || state.going.meets(page * PAGE, (page + 1) * PAGE)
        };
        let mut at = first;
        while at < end {
            let stays = |state: &mut State, page: usize| {
                let hot = state.table.get(page).hot;
                if hot {
                    state.table.update(page, |entry| entry.hot = false);
                }
                hot || may_not(state, page)
            };
            if stays(state, at) {
                at += 1;
                continue;
            }
            let mut next = at + 1;
            while next < end && !state.table.get(next).hot && !may_not(state, next) {
                next += 1;
            }
            while at < next {
                let mut count = next - at;
                // Addresses may have changed: the monitor has to hear of it first.
                if !self.uffd.covers(at * PAGE, count * PAGE)? {
                    // It lies in several mappings, or in something new, of which nobody has told us.
                    count = 1;
                    if !self.uffd.covers(at * PAGE, PAGE)? {
                        state.registered.remove(at * PAGE, (at + 1) * PAGE);
                        at += 1;
                        continue;
                    }
                }
                let (place, room) = state.room.take(count)?;
                let to = state.room.address(place);
                let (moved, errno) = self.move_all(to, at * PAGE, room * PAGE);
                let moved = moved / PAGE;
                state.room.put(place, at, moved);
                for i in 0..moved {
                    let waiting = Place::Waiting(place + i as u32);
                    let left = |entry: &mut Entry| (entry.place, entry.inherited) = (waiting, false);
                    state.table.update(at + i, left);
                }
                at += moved;
                match errno {
                    None => {}
                    Some(Errno(libc::EAGAIN)) if moved > 0 => {}
                    Some(Errno(libc::EAGAIN)) => return None,
                    Some(Errno(libc::EBUSY)) if ask => return Some(at),
                    // Something lies in the place: it is passed over until its block is emptied.
                    Some(Errno(libc::EEXIST)) => {
                        let place = place + moved as u32;
                        state.room.put(place, at, 1);
                        state.room.set(place, None);
                    }
                    Some(_) => {
                        stats::add(&counters::PAGES_REFUSED, 1);
                        at += 1;
                    }
                }
            }
        }
        None
    }
}
