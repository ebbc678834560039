//! fork with pages far away: the child gets a copy of the region, which the server makes without copying a page.
//!
//! Owns: what is done before and after a fork, in parent and child. Called by: host::fork. Must not: let the child touch a page of the
//! program before its own userfaultfd is there.
//!
//! A6. Before a fork nobody is in the waiting room, and the keeper stands still until it is over; the region is cloned, and what is known of
//! each page is written down. The child begins with that, before anything of the program runs in it. The monitor goes on meanwhile: what
//! libc does around a fork may touch pages that are away.

use core::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicUsize, Ordering};
use core::time::Duration;
use std::collections::BTreeSet;
use std::time::Instant;

use netmem_protocol::RegionId;

use super::areas::{self, Area};
use super::table::{Kept, Place, Table};
use super::{FAR, Far, MOVING, STARTED, Settings, far_if_started};
use crate::log;
use crate::sync::{QuietGuard, QuietMutex};
use crate::sys::errno::Errno;
use crate::sys::mem::{self, PAGE};
use crate::sys::uffd::memory::Event;
use crate::sys::{futex, shm, thread};

/// How long a parent keeps a clone for a child that does not take it.
const CHILD_LIMIT: Duration = Duration::from_secs(30);

/// What a fork needs of far memory, from before it until after it.
pub struct Forking {
    heir: Option<Heir>,
    controls: Option<QuietGuard<'static, BTreeSet<usize>>>,
    _still: QuietGuard<'static, ()>,
}

/// What the child gets.
struct Heir {
    far: &'static Far,
    region: Result<RegionId, Errno>,
    kept: Vec<Kept>,
    taken: Option<&'static AtomicU32>,
}

/// A clone that a child is to take over.
pub(super) struct Lent {
    region: RegionId,
    taken: &'static AtomicU32,
    since: Instant,
}

/// Messages that a fork can wait through.
const JOURNAL_MAX: usize = 4096;
/// Bytes of a thread's control block that libc looks at in a forked child: glibc's struct pthread.
const CONTROL_BYTES: usize = 2304;

/// What the program did to its addresses after a fork wrote down what is known of each page. The child has as much of it as had happened
/// when it was made: memory is copied with the stores of each thread up to one of them.
static JOURNAL: [[AtomicUsize; 4]; JOURNAL_MAX] = [const { [const { AtomicUsize::new(0) }; 4] }; JOURNAL_MAX];
static JOURNALED: AtomicUsize = AtomicUsize::new(0);
static IS_OPEN: AtomicBool = AtomicBool::new(false);
/// Of the thread in whose place the child's monitor will be: 1 once it runs, 2 when it may end.
static PARKED: AtomicU32 = AtomicU32::new(0);
/// The control blocks of the threads that the program made, also of those that have ended: libc keeps their stacks in a list. Lock order: a
/// leaf.
static CONTROLS: QuietMutex<BTreeSet<usize>> = QuietMutex::new(BTreeSet::new());

/// A thread was made, and this is where its number is.
pub fn note_thread(at: *const libc::pthread_t) {
    if STARTED.load(Ordering::Acquire).is_null() {
        return;
    }
    // The thread may have given up the memory in which its maker keeps its number.
    let mut control = [0; 8];
    if crate::sys::app::peek(at as usize, &mut control) == control.len() {
        CONTROLS.lock().insert(usize::from_ne_bytes(control));
    }
}

/// Whether a thread's control block lies in a page. It never leaves: the kernel writes there when the thread ends, and waits for nobody then.
pub(super) fn is_control(page: usize) -> bool {
    let (from, to) = (page * PAGE, (page + 1) * PAGE);
    CONTROLS.lock().range(from.saturating_sub(CONTROL_BYTES)..to).next_back().is_some()
}

/// Whether memory is to be copied to a child that is being made; with the state locked.
pub(super) fn is_under_way() -> bool {
    IS_OPEN.load(Ordering::Acquire)
}

/// With the state locked.
pub(super) fn record(event: Event) {
    if !IS_OPEN.load(Ordering::Acquire) {
        return;
    }
    let count = JOURNALED.load(Ordering::Relaxed);
    let words = match event {
        Event::Fault { .. } => return,
        Event::Removed { start, end } | Event::Unmapped { start, end } => [1, start, end, 0],
        Event::Moved { from, to, length } => [2, from, to, length],
    };
    if let Some(place) = JOURNAL.get(count) {
        place.iter().zip(words).for_each(|(place, word)| place.store(word, Ordering::Relaxed));
    }
    JOURNALED.store(count + 1, Ordering::Release);
}

/// In the child: what had happened. An error if it was too much.
fn journal() -> Result<impl Iterator<Item = Event>, Errno> {
    let count = JOURNALED.load(Ordering::Acquire);
    let entries = JOURNAL.get(..count).ok_or(Errno(libc::EAGAIN))?;
    Ok(entries.iter().map(|words| {
        let [kind, a, b, c] = words.each_ref().map(|word| word.load(Ordering::Relaxed));
        if kind == 1 {
            Event::Unmapped { start: a, end: b }
        } else {
            Event::Moved { from: a, to: b, length: c }
        }
    }))
}

/// Before anything is away. libc looks the names that it calls up at their first call, through lists of the loader's; the child's first
/// thread gets an old stack, and this process may never have made one so.
pub(super) fn look_names_up() {
    static NUMBER: AtomicI32 = AtomicI32::new(0);
    for _ in 0..2 {
        NUMBER.store(0, Ordering::SeqCst);
        let note = || NUMBER.store(crate::sys::signal::thread_number(), Ordering::SeqCst);
        if thread::spawn_brief(Box::new(note)).is_err() {
            return;
        }
        let lives = |number: i32| number == 0 || crate::sys::proc::thread_lives(number);
        while lives(NUMBER.load(Ordering::SeqCst)) {
            futex::pause(Duration::from_micros(50));
        }
    }
}

/// What libc touches in the child before its threads are there comes in now, and stays, since the keeper stands still: the control blocks
/// of all threads, and what it needs to make one. That is found out by making one; the child's first gets the stack of the newest one of the
/// same size, so this one stays until the fork is over.
fn rehearse() {
    CONTROLS.lock().retain(|control| {
        let (from, to) = (control / PAGE * PAGE, (control + CONTROL_BYTES).next_multiple_of(PAGE));
        // SAFETY: reading changes nothing.
        unsafe { mem::madvise(from, to - from, libc::MADV_POPULATE_READ) }.is_ok()
    });
    PARKED.store(0, Ordering::SeqCst);
    let made = thread::spawn_brief(Box::new(|| {
        PARKED.store(1, Ordering::SeqCst);
        futex::wake(&PARKED, 1);
        while PARKED.load(Ordering::SeqCst) == 1 {
            futex::wait(&PARKED, 1, None);
        }
    }));
    while made.is_ok() && PARKED.load(Ordering::SeqCst) == 0 {
        futex::wait(&PARKED, 0, None);
    }
}

/// Before a fork, before any lock that the threads of far memory take.
pub fn prepare() -> Forking {
    let still = MOVING.lock();
    let heir = far_if_started().map(|far| {
        rehearse();
        far.nobody_waits();
        let kept = {
            let state = far.state.lock();
            JOURNALED.store(0, Ordering::Relaxed);
            IS_OPEN.store(true, Ordering::Release);
            state.table.kept()
        };
        let region =
            if kept.is_empty() { far.remote.create_unnamed(0) } else { far.remote.clone_unnamed(far.region) };
        let region = region.map(|entry| entry.region).map_err(|error| {
            log::error!("far memory: a forked child can't have what is on the server: {error}");
            Errno(error.errno())
        });
        // Mappings grow where they are, and nobody tells.
        let mapped = areas::anonymous().unwrap_or_default();
        let mut state = far.state.lock();
        for Area { start, end, .. } in mapped {
            if state.registered.meets(start, end) {
                state.registered.add(start, end);
            }
            // Whatever we know of it: what was mapped where something else was registered a moment ago may have got its flag.
            if !mem::is_ours(start) {
                let _ = mem::set_fork(start, end - start, true);
            }
        }
        drop(state);
        Heir { far, region, kept, taken: shm::shared_word() }
    });
    Forking { heir, controls: Some(CONTROLS.lock()), _still: still }
}

impl Forking {
    /// After the fork, in the parent.
    pub fn in_parent(mut self, forked: bool) {
        let Some(Heir { far, region, taken, .. }) = self.heir.take() else { return };
        IS_OPEN.store(false, Ordering::Release);
        PARKED.store(2, Ordering::SeqCst);
        futex::wake(&PARKED, 1);
        for (start, end) in far.state.lock().registered.iter() {
            let _ = mem::set_fork(start, end - start, false);
        }
        match (region, taken) {
            (Ok(region), Some(taken)) if forked => {
                far.lent.lock().push(Lent { region, taken, since: Instant::now() });
            }
            (Ok(region), _) if !forked => drop(far.remote.close(region)),
            // Kept for as long as this process lives: nobody would say when the child has it.
            _ => {}
        }
    }

    /// After the fork, in the child, before anything else of it runs.
    pub fn in_child(mut self) -> Result<(), Errno> {
        let heir = self.heir.take();
        // The threads that are made now are noted, too.
        drop(self.controls.take());
        FAR.store(core::ptr::null_mut(), Ordering::Release);
        IS_OPEN.store(false, Ordering::Release);
        // SAFETY: the settings are set once, at the start, and never given up.
        let Some(settings) = (unsafe { STARTED.load(Ordering::Acquire).as_ref() }) else { return Ok(()) };
        // SAFETY: the calling thread's own.
        let me = unsafe { libc::pthread_self() } as usize;
        let mut kept = settings.1.clone();
        kept.push(me);
        let far = match heir {
            None => {
                thread::forget_controls_after_fork();
                None
            }
            Some(heir) => Some(begin_again(&settings.0, heir, &mut kept)?),
        };
        super::spawn_keeper(settings.0.clone(), kept, far)
    }
}

fn begin_again(settings: &Settings, heir: Heir, stacks: &mut Vec<usize>) -> Result<&'static Far, Errno> {
    // Its connections and its userfaultfd are the parent's.
    heir.far.remote.forget_connections(super::random_client()?, Vec::new());
    heir.far.uffd.close_in_child();
    let region = heir.region?;
    let mapped = areas::anonymous()?;
    let area_of = |page: usize| {
        let at = page * PAGE;
        let index = mapped.partition_point(|area| area.end <= at);
        mapped.get(index).copied().filter(|area| area.start <= at)
    };
    let mut table = Table::of_kept(&heir.kept);
    for event in journal()? {
        table.follow(event, |_, _| {});
    }
    for Kept { page, .. } in table.kept() {
        if area_of(page).is_none() {
            table.drop_range(page..page + 1, |_| {});
        }
    }
    // On one of the stacks of the parent's threads the child's monitor will run. A guard page stands before it; something of the program's
    // may stand behind it, in one mapping with it.
    let stack_of = |control: usize| {
        let start = area_of(control / PAGE).map_or(control, |area| area.start);
        (start, (control + CONTROL_BYTES).next_multiple_of(PAGE))
    };
    let own: Vec<(usize, usize)> = thread::controls().map(stack_of).collect();
    for (start, end) in &own {
        table.drop_range(start / PAGE..end / PAGE, |_| {});
    }
    let behind_stacks = |area: Area| {
        let start = own.iter().filter(|(start, _)| *start == area.start).map(|(_, end)| *end).max();
        Area { start: start.unwrap_or(area.start), ..area }
    };
    let kept = table.kept();
    thread::forget_controls_after_fork();
    let far = Far::begin_with(settings, heir.far.blocks, (table, Some(region)), stacks)?;
    if let Some(taken) = heir.taken {
        taken.store(1, Ordering::Release);
        shm::drop_shared_word(taken);
    }
    let mut state = far.state.lock();
    for Kept { page, .. } in &kept {
        if let Some(area) = area_of(*page).map(behind_stacks)
            && !state.registered.covers(area.start, area.end)
            && !far.register(&mut state, (area.start, area.end))
        {
            log::error!("far memory: a forked child can't have its memory at {:#x}", area.start);
            return Err(Errno(libc::ENOMEM));
        }
    }
    drop(state);
    Ok(far)
}

impl Far {
    /// Everybody in the waiting room goes back into the program's memory.
    fn nobody_waits(&self) {
        loop {
            let mut state = self.state.lock();
            let state = &mut *state;
            let Some((place, page)) = state.room.anybody() else { return };
            let (moved, errno) = self.move_all(page * PAGE, state.room.address(place), PAGE);
            let (moved, errno) = match errno {
                None | Some(Errno(libc::EAGAIN)) => (moved, errno),
                Some(_) => self.uffd.fill(page * PAGE, state.room.address(place), PAGE),
            };
            match errno {
                None if moved > 0 => {
                    state.room.set(place, None);
                    state.table.update(page, |entry| entry.place = Place::Here);
                }
                // The monitor has to hear of a change first.
                Some(Errno(libc::EAGAIN)) => crate::sys::futex::pause(Duration::from_micros(50)),
                _ => {
                    log::debug!("far memory: page {:#x} can't go back: {errno:?}", page * PAGE);
                    state.room.set(place, None);
                }
            }
        }
    }

    /// Gives up the clones that children have taken, or did not take in time.
    pub(super) fn look_at_lent(&self) {
        let done: Vec<Lent> = {
            let mut lent = self.lent.lock();
            if lent.is_empty() {
                return;
            }
            let is_done =
                |one: &mut Lent| one.taken.load(Ordering::Acquire) != 0 || one.since.elapsed() > CHILD_LIMIT;
            lent.extract_if(.., is_done).collect()
        };
        for one in done {
            let _ = self.remote.close(one.region);
            shm::drop_shared_word(one.taken);
        }
    }
}
