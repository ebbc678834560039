//! Far memory: what of a program's anonymous memory exceeds its budget lives on the server.
//!
//! Owns: [`Far`], what its two threads share, and the counters. Called by: host, at the start of a process that has NETMEM_MEMORY_BYTES, and
//! around fork. Must not: take part in allocation: it is a swap, and as long as the program fits, it looks at a number now and then.
//!
//! The keeper (`keeper.rs`) moves cold pages into the waiting room and sends them; the monitor (`monitor.rs`) brings back what is touched,
//! and follows what the program does to its address space. The rules A1 to A9 are in docs/DESIGN.md, "Far memory".

pub mod areas;
mod arriving;
mod family;
pub mod fork;
mod full;
mod going;
pub mod growth;
mod journal;
mod keeper;
mod leaving;
mod monitor;
mod order;
mod room;
pub mod still;
mod table;

use core::sync::atomic::{AtomicBool, AtomicI64, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use core::time::Duration;
use std::sync::OnceLock;

use netmem_protocol::{CacheId, ClientId, RegionId};

use crate::config::{Prefetch, WhenFull};
use crate::log;
use crate::remote::{Remote, RemoteConfig};
use crate::sync::QuietMutex;
use crate::sys::alloc;
use crate::sys::apart;
use crate::sys::clock::monotonic_ns;
use crate::sys::errno::Errno;
use crate::sys::futex;
use crate::sys::limit;
use crate::sys::mem::{self, PAGE};
use crate::sys::pagemap::Pagemap;
use crate::sys::uffd::memory::Event;
use crate::sys::uffd::{MODE_MISSING, Uffd};
use areas::{Area, Ranges};
use full::{Full, has_passed};
use going::Going;
use growth::News;
use room::{BLOCK_PAGES, Room};
use table::Table;

/// How long new memory is slowed down while nothing leaves.
const PATIENCE: Duration = Duration::from_secs(1);
/// The same before the first answer of a server, which has to write to its disk for that.
const PATIENCE_AT_FIRST: Duration = Duration::from_secs(5);
/// Pages beyond the budget from which on new memory comes page by page.
const LITTLE_PAGES: i64 = 256;
/// Pages beyond the budget that may be brought beside those that were touched.
const AHEAD_PAGES: i64 = 768;
/// Pages beyond the budget and a twentieth of it that new memory may take while the server is full.
const SLACK_PAGES: i64 = 1024;

/// What the host knows and this layer needs.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Bytes of anonymous memory that may be resident; not 0.
    pub memory_bytes: u64,
    /// The server.
    pub remote: RemoteConfig,
    /// What is brought in beside a page that was touched.
    pub prefetch: Prefetch,
    /// What fails when neither the budget nor the server has room.
    pub when_full: WhenFull,
    /// The file in which the members of the family are counted; None: those who were forked.
    pub family: Option<String>,
}

/// Counters, relaxed.
pub mod counters {
    use core::sync::atomic::AtomicU64;
    /// Pages that went to the server.
    pub static PAGES_OUT: AtomicU64 = AtomicU64::new(0);
    /// Pages that came back from there.
    pub static PAGES_IN: AtomicU64 = AtomicU64::new(0);
    /// Of these, pages that nobody had touched yet.
    pub static PAGES_AHEAD: AtomicU64 = AtomicU64::new(0);
    /// Pages that left without being sent: the server had them as they were.
    pub static PAGES_CLEAN: AtomicU64 = AtomicU64::new(0);
    /// Pages that left without being sent: zeros.
    pub static PAGES_ZERO: AtomicU64 = AtomicU64::new(0);
    /// Touches of pages that had to come from the server.
    pub static FAULTS_FAR: AtomicU64 = AtomicU64::new(0);
    /// Touches of pages that were still in the waiting room.
    pub static FAULTS_NEAR: AtomicU64 = AtomicU64::new(0);
    /// How long threads waited for pages from the server, in nanoseconds, from when we heard of them.
    pub static WAITED_NS: AtomicU64 = AtomicU64::new(0);
    /// First touches of new memory that were served here.
    pub static FAULTS_NEW: AtomicU64 = AtomicU64::new(0);
    /// Pages the kernel would not move: shared with a child, or pinned.
    pub static PAGES_REFUSED: AtomicU64 = AtomicU64::new(0);
    /// The most that was resident, in pages, when the keeper looked.
    pub static RESIDENT_MAX: AtomicU64 = AtomicU64::new(0);
    /// The same of all members of the family together.
    pub static FAMILY_MAX: AtomicU64 = AtomicU64::new(0);
}

/// What keeper and monitor share.
pub struct Far {
    settings: Settings,
    uffd: Uffd,
    /// Where pages are, in truth.
    pagemap: Pagemap,
    remote: Remote,
    /// Known once the server has made it.
    region: OnceLock<RegionId>,
    /// Whether what is new is registered: not before there is an answer, where there was none.
    serves: AtomicBool,
    /// Whose memory it is.
    owner: rustix::process::Pid,
    /// Blocks in the waiting room.
    blocks: usize,
    /// What the program's threads registered themselves.
    news: News,
    /// Whether something was told of addresses, or is about to be read, that is not followed yet.
    hears: AtomicBool,
    /// Lock order: a leaf. Held by whoever moves or installs pages, while he does, and while messages are read (A2).
    state: QuietMutex<State>,
    /// Clones that forked children have not taken yet. Lock order: a leaf, held for a copy.
    lent: QuietMutex<Vec<fork::Lent>>,
    /// The epoch of our last commit.
    epoch: AtomicU64,
    /// Pages that may still be brought in before the keeper has to look.
    allowance: AtomicI64,
    /// Whether the server has room.
    full: Full,
    /// Changes when the keeper has made room.
    made_room: AtomicU32,
    /// Since when nothing has left although it was waited for, on the monotonic clock, in nanoseconds; 0: something has.
    vain: AtomicU64,
    /// Of a forked child: mappings that it got from its parent and that are registered.
    inherited: AtomicUsize,
}

struct State {
    table: Table,
    room: Room,
    /// Where touches of missing pages come to us.
    registered: Ranges,
    going: Going,
}

/// Far memory that has a userfaultfd and a monitor. Null, or as [`FAR`] will be.
static BEGUN: AtomicPtr<Far> = AtomicPtr::new(core::ptr::null_mut());
/// The same once pages may be away.
static FAR: AtomicPtr<Far> = AtomicPtr::new(core::ptr::null_mut());
/// There was no server when it was looked for last, by this process or its parent: it is not waited for any more.
static MISSED: AtomicBool = AtomicBool::new(false);
/// What [`start`] was given; null before.
static STARTED: AtomicPtr<Settings> = AtomicPtr::new(core::ptr::null_mut());
/// Changes when the keeper should look.
static KICK: AtomicU32 = AtomicU32::new(0);

/// Far memory of this process, once it needed it.
fn far_if_started() -> Option<&'static Far> {
    // SAFETY: null, or a leaked box.
    unsafe { FAR.load(Ordering::Acquire).as_ref() }
}

/// From now on the budget is kept. Called by the main thread.
pub fn start(settings: Settings) {
    fork::note_this_thread();
    family::found(settings.family.as_deref());
    STARTED.store(Box::into_raw(Box::new(settings.clone())), Ordering::Release);
    if let Err(errno) = spawn_keeper(settings, None, None) {
        log::error!("NETMEM_MEMORY_BYTES: no thread can be made ({errno}); the budget is not kept");
    }
}

/// With what a forked child inherited.
fn spawn_keeper(
    settings: Settings,
    far: Option<&'static Far>,
    inherited: Option<Vec<Area>>,
) -> Result<(), Errno> {
    still::somebody_answers();
    let run = move || keeper::run(settings, far, inherited.as_deref());
    apart::spawn(Box::new(run)).inspect_err(|_| still::nobody_answers())
}

/// Before the process ends or becomes another program: limits that are not its own end here, and what it has is no longer counted. If it does
/// not, the keeper sees to both again.
pub fn ends() {
    family::leave();
    limit::restore();
}

/// Whether pages may be away.
pub fn is_started() -> bool {
    far_if_started().is_some()
}

/// Whether there is a budget to be kept: the one comparison that a mapping costs where there is none.
#[inline]
pub fn is_wanted() -> bool {
    !STARTED.load(Ordering::Acquire).is_null()
}

/// Whether a child has something to forget.
pub fn has_begun() -> bool {
    !BEGUN.load(Ordering::Acquire).is_null()
}

/// What the statistics say of it: name and value.
pub fn told() -> Vec<(&'static str, u64)> {
    let Some(far) = far_if_started() else { return Vec::new() };
    [
        ("far_pages_out", &counters::PAGES_OUT),
        ("far_pages_in", &counters::PAGES_IN),
        ("far_pages_ahead", &counters::PAGES_AHEAD),
        ("far_pages_clean", &counters::PAGES_CLEAN),
        ("far_pages_zero", &counters::PAGES_ZERO),
        ("far_faults_far", &counters::FAULTS_FAR),
        ("far_faults_near", &counters::FAULTS_NEAR),
        ("far_waited_ns", &counters::WAITED_NS),
        ("far_faults_new", &counters::FAULTS_NEW),
        ("far_pages_refused", &counters::PAGES_REFUSED),
        ("far_resident_max_pages", &counters::RESIDENT_MAX),
        ("far_family_max_pages", &counters::FAMILY_MAX),
        ("far_pages_packed", &far.remote.packing.pages),
        ("far_bytes_packing_saved", &far.remote.packing.saved),
    ]
    .map(|(name, counter)| (name, crate::stats::get(counter)))
    .to_vec()
}

impl Far {
    /// Takes a userfaultfd and a waiting room of so many pages, and starts the monitor. The server is not asked yet.
    fn begin(settings: &Settings, room_pages: usize) -> Result<&'static Far, Errno> {
        let blocks = room_pages.div_ceil(BLOCK_PAGES).max(2);
        let far = Self::begin_with(settings, blocks, Table::default())?;
        BEGUN.store(core::ptr::from_ref(far).cast_mut(), Ordering::Release);
        Ok(far)
    }

    /// The same with the table that a parent left.
    fn begin_with(settings: &Settings, blocks: usize, table: Table) -> Result<&'static Far, Errno> {
        let uffd = Uffd::open_for_memory()?;
        alloc::open_spare_room();
        let remote = Remote::new(settings.remote.clone(), random_client()?, CacheId(random_client()?.0));
        let room_bytes = blocks * BLOCK_PAGES * PAGE;
        let at = mem::reserve(room_bytes)?;
        mem::no_huge_pages(at, room_bytes);
        // A forked child has one of its own, and nobody waits there when it is made.
        mem::set_fork(at, room_bytes, false)?;
        uffd.register(at, room_bytes, MODE_MISSING)?;
        let state =
            State { table, room: Room::new(at, blocks), registered: Ranges::default(), going: Going::new() };
        let far: &'static Far = Box::leak(Box::new(Far {
            settings: settings.clone(),
            uffd,
            pagemap: Pagemap::open(None)?,
            remote,
            region: OnceLock::new(),
            serves: AtomicBool::new(false),
            owner: rustix::process::getpid(),
            blocks,
            news: News::new(),
            hears: AtomicBool::new(false),
            state: QuietMutex::new(state),
            lent: QuietMutex::new(Vec::new()),
            epoch: AtomicU64::new(0),
            allowance: AtomicI64::new(0),
            full: Full::default(),
            made_room: AtomicU32::new(0),
            vain: AtomicU64::new(0),
            inherited: AtomicUsize::new(0),
        }));
        monitor::start(far)?;
        Ok(far)
    }

    /// Has the server make a region, or opens the one that a parent had it clone.
    fn connect(&self, region: Option<RegionId>) -> Result<(), Errno> {
        let entry =
            region.map_or_else(|| self.remote.create_unnamed(0), |region| self.remote.open_id(region));
        let entry = entry.map_err(|error| {
            say_once(&error);
            Errno(error.errno())
        })?;
        self.epoch.store(entry.epoch.0, Ordering::Relaxed);
        let _ = self.region.set(entry.region);
        log::info!(
            "far memory: pages beyond {} bytes go to {}",
            self.settings.memory_bytes,
            self.remote.server()
        );
        Ok(())
    }

    /// Whether the server has made the region.
    fn is_connected(&self) -> bool {
        self.region.get().is_some()
    }

    /// The region; before there is one, nothing is away that could be in it.
    fn region(&self) -> RegionId {
        self.region.get().copied().unwrap_or(RegionId(0))
    }

    /// From now on pages may be away.
    fn begins(&'static self) {
        let this = core::ptr::from_ref(self).cast_mut();
        self.serves.store(true, Ordering::Release);
        BEGUN.store(this, Ordering::Release);
        FAR.store(this, Ordering::Release);
    }

    /// Moves pages, all of them to places that are empty. The kernel can say less than it did: where a try that it repeats had to wait for
    /// a page, it moves and then finds the place taken (seen on 6.18). So where it stopped the places are looked at.
    fn move_all(&self, to: usize, from: usize, length: usize) -> (usize, Option<Errno>) {
        let (mut moved, errno) = self.uffd.move_pages(to, from, length);
        if errno.is_some() {
            while moved < length && self.pagemap.is_there(to + moved) && !self.pagemap.is_there(from + moved)
            {
                moved += PAGE;
            }
        }
        let errno = if moved == 0 { errno } else { errno.map(|_| Errno(libc::EAGAIN)) };
        (moved, if moved == length { None } else { errno })
    }

    /// Says how many pages may come in.
    fn allow(&self, pages: i64) {
        self.allowance.store(pages, Ordering::Relaxed);
        self.made_room.fetch_add(1, Ordering::Release);
        futex::wake(&self.made_room, i32::MAX);
    }

    /// Pages are about to come in. Waits for the keeper if the budget is spent, but not for long: he may wait for the server, or for a lock
    /// of who waits for us.
    fn wait_for_room(&self) {
        const PAUSE: Duration = Duration::from_millis(5);
        const TRIES: u32 = 4;
        let mut tries = 0;
        while self.allowance.load(Ordering::Relaxed) <= 0 {
            let seen = self.made_room.load(Ordering::Acquire);
            if tries == TRIES {
                let _ = self.vain.compare_exchange(0, monotonic_ns(), Ordering::Relaxed, Ordering::Relaxed);
                return;
            }
            kick();
            futex::wait(&self.made_room, seen, Some(PAUSE));
            tries += 1;
        }
        self.vain.store(0, Ordering::Relaxed);
    }

    /// So many of them come in.
    fn spend(&self, pages: usize) {
        self.allowance.fetch_sub(pages as i64, Ordering::Relaxed);
    }

    /// Whether new memory may come in more than a page at a time: the budget is not exceeded by much, or nothing has left for long, and so
    /// will not.
    fn is_generous(&self) -> bool {
        self.room_beyond(LITTLE_PAGES) > 0
    }

    /// How many pages may come in for whom nobody waits, so many and a thirty-second beyond the budget.
    fn room_beyond(&self, pages: i64) -> usize {
        let little = (self.settings.memory_bytes / PAGE as u64 / 32) as i64 + pages;
        let vain = self.vain.load(Ordering::Relaxed);
        let patience = if self.is_connected() { PATIENCE } else { PATIENCE_AT_FIRST };
        if vain != 0 && has_passed(vain, patience) {
            return usize::MAX;
        }
        (self.allowance.load(Ordering::Relaxed) + little).max(0) as usize
    }

    /// Before memory that is new comes in: the same. False: neither the budget nor the server has room for it (F1).
    fn wait_for_new(&self) -> bool {
        let beyond = (self.settings.memory_bytes / PAGE as u64 / 20) as i64 + SLACK_PAGES;
        while self.full.is() && self.allowance.load(Ordering::Relaxed) < -beyond {
            if self.full.is_for_good() {
                // What was allocated before nobody could be told of any more.
                if self.settings.when_full == WhenFull::Enomem {
                    break;
                }
                return false;
            }
            kick();
            futex::pause(Duration::from_millis(5));
        }
        self.wait_for_room();
        true
    }
}

/// Says why the budget is not kept, the first time.
fn say_once(why: &dyn core::fmt::Display) {
    static WAS_TOLD: AtomicBool = AtomicBool::new(false);
    if !WAS_TOLD.swap(true, Ordering::Relaxed) {
        log::error!("NETMEM_MEMORY_BYTES is not kept: {why}");
    }
}

/// The same of what it takes to begin.
fn say_what_it_wants(errno: Errno) {
    match errno {
        Errno(libc::EOPNOTSUPP | libc::EPERM | libc::ENOSYS) => say_once(&format_args!(
            "it wants a userfaultfd with kernel faults and Linux 6.8 ({errno}); see netmem doctor"
        )),
        _ => say_once(&format_args!("there is no memory, descriptor or thread left for it ({errno})")),
    }
}

/// A name that nobody else has.
fn random_client() -> Result<ClientId, Errno> {
    let mut id = [0; 16];
    rustix::rand::getrandom(&mut id, rustix::rand::GetRandomFlags::empty())?;
    Ok(ClientId(id))
}

/// The keeper looks now.
fn kick() {
    KICK.fetch_add(1, Ordering::Release);
    futex::wake(&KICK, 1);
}

impl State {
    /// Does what a message about addresses says. A fault is not one.
    fn follow(&mut self, event: Event) {
        journal::follow(event);
        let room = &mut self.room;
        self.table.follow(event, |place, page| room.set(place, page));
        match event {
            Event::Fault { .. } => {}
            Event::Removed { start, end } => self.going.add(start, end),
            Event::Unmapped { start, end } => {
                self.registered.remove(start, end);
                self.going.was_missing(start, end);
            }
            Event::Moved { from, to, length } => {
                // Where it was is told of by itself, if it ends.
                self.registered.add(to, to + length);
                if journal::is_open() {
                    // It may have been given its flag, or not.
                    let _ = mem::set_fork(to, length, true);
                }
                self.going.was_missing(from, from + length);
            }
        }
    }
}
