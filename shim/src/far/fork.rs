//! fork with pages far away: the child gets a copy of the region, which the server makes without copying a page.
//!
//! Owns: what is done before and after a fork, in parent and child. Called by: host::fork. Must not: let the child touch a page of the
//! program before its own userfaultfd is there.
//!
//! A6. Before a fork nobody is in the waiting room, and the keeper stands still until it is over; the region is cloned, and what is known of
//! each page is written down. The child begins with that, before anything of the program runs in it. The monitor goes on meanwhile: what
//! libc does around a fork may touch pages that are away.

use core::sync::atomic::{AtomicU32, Ordering};
use core::time::Duration;
use std::collections::BTreeSet;
use std::time::Instant;

use netmem_protocol::RegionId;

use super::areas::{self, Area};
use super::table::{Kept, Place, Table};
use super::{BEGUN, FAR, Far, STARTED, Settings, far_if_started, journal, still};
use crate::log;
use crate::sync::{QuietGuard, QuietMutex};
use crate::sys::errno::Errno;
use crate::sys::mem::{self, PAGE};
use crate::sys::signal::SignalMask;
use crate::sys::{futex, shm, thread};

/// How long a parent keeps a clone for a child that does not take it.
const CHILD_LIMIT: Duration = Duration::from_secs(30);

/// How long it is tried to bring everybody back from the waiting room.
const BACK_LIMIT: Duration = Duration::from_secs(2);

/// How long it is waited for a moment in which nobody changes addresses, after a fork: the monitor may wait for us.
const CHANGING_LIMIT: Duration = Duration::from_millis(100);

/// What a fork needs of far memory, from before it until after it.
pub struct Forking {
    heir: Option<Heir>,
    controls: Option<QuietGuard<'static, BTreeSet<usize>>>,
    _one: QuietGuard<'static, ()>,
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

/// Bytes of a thread's control block that libc looks at in a forked child: glibc's struct pthread.
const CONTROL_BYTES: usize = 2304;
/// Bytes before it that are touched by every thread: libc's own thread-locals.
const LOCALS_BYTES: usize = 2048;

/// Threads that are in [`keep_from_children`].
static SETTING: AtomicU32 = AtomicU32::new(0);
/// Held by the thread that forks. Lock order: before everything of far memory.
pub(super) static FORKS: QuietMutex<()> = QuietMutex::new(());
/// From the keeper to the thread that forks. Lock order: a leaf.
static HEIR: QuietMutex<Option<Heir>> = QuietMutex::new(None);
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

/// The calling thread is one of the program's.
pub(super) fn note_this_thread() {
    // SAFETY: the calling thread's own.
    CONTROLS.lock().insert(unsafe { libc::pthread_self() } as usize);
}

/// The pages in which a thread's control block lies, and what libc keeps before it.
fn control_pages(control: usize) -> (usize, usize) {
    let from = control.saturating_sub(LOCALS_BYTES) / PAGE * PAGE;
    (from, (control + CONTROL_BYTES).next_multiple_of(PAGE))
}

/// Whether a thread's control block lies in a page. It never leaves: the kernel writes there when the thread ends, and waits for nobody then.
pub(super) fn is_control(page: usize) -> bool {
    let (from, to) = (page * PAGE, (page + 1) * PAGE);
    let near = (from.saturating_sub(CONTROL_BYTES) + 1)..to + LOCALS_BYTES;
    // Who holds it may wait for the monitor.
    CONTROLS.try_lock().is_none_or(|controls| controls.range(near).next_back().is_some())
}

/// What libc touches in the child before its threads are there comes in now, and stays, since the keeper stands still: the control blocks
/// of all threads.
fn bring_controls() {
    CONTROLS.lock().retain(|control| {
        let (from, to) = control_pages(*control);
        // SAFETY: reading changes nothing.
        unsafe { mem::madvise(from, to - from, libc::MADV_POPULATE_READ) }.is_ok()
    });
}

/// Before a fork, before any lock that the threads of far memory take.
pub fn prepare() -> Forking {
    let one = FORKS.lock();
    // As long as nothing can be away, the keeper may be looking for a server.
    let asked = far_if_started().is_some() && still::ask();
    let heir = if asked { HEIR.lock().take() } else { None };
    Forking { heir, controls: None, _one: one }
}

/// The keeper's part of it, before it stands still.
pub(super) fn begin(far: &'static Far) {
    bring_controls();
    let all_are_back = far.nobody_waits();
    let is_empty = {
        let state = far.state.lock();
        journal::open();
        state.table.is_empty()
    };
    let region = if is_empty { far.remote.create_unnamed(0) } else { far.remote.clone_unnamed(far.region()) };
    let region = region.map(|entry| entry.region).map_err(|error| {
        log::error!("far memory: a forked child can't have what is on the server: {error}");
        Errno(error.errno())
    });
    while SETTING.load(Ordering::SeqCst) != 0 {
        futex::pause(Duration::from_micros(5));
    }
    // Mappings grow where they are, and nobody tells. What grew since it was looked up, or was given its flag, is seen the second time.
    for _ in 0..2 {
        let mapped = areas::anonymous().unwrap_or_default();
        let mut state = far.lock();
        for Area { start, end, .. } in mapped {
            if state.registered.meets(start, end) {
                state.registered.add(start, end);
            }
            // Whatever we know of it: what was mapped where something else was registered a moment ago may have got its flag.
            if !mem::is_ours(start) {
                let _ = mem::set_fork(start, end - start, true);
            }
        }
    }
    // The clone has all of it: nothing is sent meanwhile.
    let kept = {
        let state = far.state.lock();
        journal::begin();
        state.table.kept()
    };
    let region = if all_are_back { region } else { Err(Errno(libc::ENOMEM)) };
    *HEIR.lock() = Some(Heir { far, region, kept, taken: shm::shared_word() });
}

/// The keeper's part after it, in the parent.
pub(super) fn end(far: &Far) {
    let since = Instant::now();
    let state = loop {
        let state = far.lock();
        // What has just changed could be another mapping by now, which children would lack.
        if !far.uffd.is_changing() || since.elapsed() > CHANGING_LIMIT {
            break state;
        }
        drop(state);
        futex::pause(Duration::from_micros(20));
    };
    journal::close();
    drop(state);
    // What is registered from here on has its flag from who does it. Only what is memory: what was told may be something else by now.
    let mapped = areas::anonymous().unwrap_or_default();
    let state = far.lock();
    for Area { start, end, .. } in mapped {
        if state.registered.meets(start, end) {
            let _ = mem::set_fork(start, end - start, false);
        }
    }
}

/// A range is registered by a thread of the program: not copied to a child that a clone makes past us, unless it is one that is being made.
pub(super) fn keep_from_children(start: usize, end: usize) {
    // A handler may fork, which waits for who is here.
    let _quiet = SignalMask::block_all();
    SETTING.fetch_add(1, Ordering::SeqCst);
    if !journal::is_open() {
        let _ = mem::set_fork(start, end - start, false);
    }
    SETTING.fetch_sub(1, Ordering::SeqCst);
}

impl Forking {
    /// Before the fork, after all locks under which a thread may be made, and before that of the heap.
    pub fn hold_controls(&mut self) {
        self.controls = Some(CONTROLS.lock());
    }

    /// After the fork, in the parent.
    pub fn in_parent(mut self, forked: bool) {
        drop(self.controls.take());
        still::has_passed();
        still::over();
        let Some(Heir { far, region, taken, .. }) = self.heir.take() else { return };
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
        still::forget_after_fork(heir.is_some());
        // Who was there is not here.
        SETTING.store(0, Ordering::SeqCst);
        // The threads that are made now are noted, too.
        drop(self.controls.take());
        FAR.store(core::ptr::null_mut(), Ordering::Release);
        let begun = BEGUN.swap(core::ptr::null_mut(), Ordering::AcqRel);
        if heir.is_none() {
            // SAFETY: null, or a leaked box.
            unsafe { begun.as_ref() }.into_iter().for_each(Far::forget_after_fork);
        }
        journal::close();
        thread::forget_controls_after_fork();
        // SAFETY: the settings are set once, at the start, and never given up.
        let Some(settings) = (unsafe { STARTED.load(Ordering::Acquire).as_ref() }) else { return Ok(()) };
        let Some(heir) = heir else { return super::spawn_keeper(settings.clone(), None, None) };
        let (far, memory) = begin_again(settings, heir)?;
        let count = memory.len();
        super::spawn_keeper(settings.clone(), Some(far), Some(memory))?;
        still::wait_for_keeper();
        if far.inherited.load(Ordering::Acquire) == count { Ok(()) } else { Err(Errno(libc::ENOMEM)) }
    }
}

/// The child's far memory, and the mappings of which something is away.
fn begin_again(settings: &Settings, heir: Heir) -> Result<(&'static Far, Vec<Area>), Errno> {
    // Its connections and its userfaultfd are the parent's.
    heir.far.forget_after_fork();
    let region = heir.region?;
    let mapped = areas::anonymous()?;
    let area_of = |page: usize| {
        let at = page * PAGE;
        let index = mapped.partition_point(|area| area.end <= at);
        mapped.get(index).copied().filter(|area| area.start <= at)
    };
    let mut table = Table::of_kept(&heir.kept);
    for event in journal::events(&mapped)? {
        table.follow(event, |_, _| {});
    }
    for Kept { page, .. } in table.kept() {
        if area_of(page).is_none() {
            table.drop_range(page..page + 1, |_| {});
        }
    }
    let kept = table.kept();
    let far = Far::begin_with(settings, heir.far.blocks, table)?;
    far.connect(Some(region))?;
    far.begins();
    if let Some(taken) = heir.taken {
        taken.store(1, Ordering::Release);
        shm::drop_shared_word(taken);
    }
    let mut memory: Vec<Area> = kept.iter().filter_map(|kept| area_of(kept.page)).collect();
    memory.dedup();
    Ok((far, memory))
}

impl Far {
    /// In a child: its connections and its userfaultfd are the parent's.
    fn forget_after_fork(&self) {
        if let Ok(client) = super::random_client() {
            self.remote.forget_connections(client, Vec::new(), Vec::new());
        }
        self.uffd.close_in_child();
    }

    /// Everybody in the waiting room goes back into the program's memory, unless there is no memory for that. The keeper stands still.
    fn nobody_waits(&self) -> bool {
        let since = Instant::now();
        let mut from = 0;
        loop {
            let mut guard = self.state.lock();
            let state = &mut *guard;
            let Some((place, page, count)) = state.room.next_waiting(from) else { return true };
            let (moved, errno) = match self.move_all(page * PAGE, state.room.address(place), count * PAGE) {
                // Where nothing may be stored just now, or in two mappings: by itself.
                (0, Some(errno)) if errno != Errno(libc::EAGAIN) => {
                    self.uffd.fill(page * PAGE, state.room.address(place), PAGE)
                }
                result => result,
            };
            for i in 0..moved / PAGE {
                state.room.set(place + i as u32, None);
                state.table.update(page + i, |entry| entry.place = Place::Here);
            }
            from = place + (moved / PAGE) as u32;
            match errno {
                Some(errno)
                    if moved == 0
                        && (errno == Errno(libc::EEXIST)
                            || self.uffd.covers(page * PAGE, PAGE) == Some(false)) =>
                {
                    // Its address has ended without a message, or has something new.
                    log::debug!("far memory: page {:#x} can't go back: {errno}", page * PAGE);
                    state.table.drop_range(page..page + 1, |place| state.room.set(place, None));
                }
                Some(_) if moved == 0 => {
                    // The monitor has to hear of a change first.
                    drop(guard);
                    if since.elapsed() > BACK_LIMIT {
                        log::error!("far memory: a forked child can't have all of it: no memory is free");
                        return false;
                    }
                    futex::pause(Duration::from_micros(50));
                }
                _ => {}
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
