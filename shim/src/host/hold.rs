//! Commits of one instant: for as long as a region's pages are copied, no process of the host stores into it.
//!
//! Owns: [`Hold`], the thread that answers when another process holds, and how a store waits. Called by: Handle's commit, the engines before
//! they let a store through, writes to files. Must not: wait for a hold with anything locked that a harvest takes.
//!
//! Who holds says so in the region's control file and rings the bell, a word that all of the store's processes on the host wait on. Each
//! closes its mappings to stores, waits for its writes under way, and answers in its slot (DESIGN.md, I1 to I4).

use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering};
use core::time::Duration;
use std::time::Instant;

use rustix::fs::OFlags;

use super::{Handle, Runtime, handle, runtime_if_started};
use crate::engine::harvest;
use crate::log;
use crate::pager::Board;
use crate::pager::commit::Held;
use crate::pager::table::{Slot, Tracking, hold_word, holder};
use crate::stats;
use crate::sys::errno::Errno;
use crate::sys::signal::SignalMask;
use crate::sys::{file, futex, shm, thread};

/// How long the processes of a host have to stop their stores.
const ANSWER_LIMIT: Duration = Duration::from_secs(1);
/// A hold that lasts so long is broken by those who wait: its process was stopped in the middle.
const HOLD_LIMIT: Duration = Duration::from_secs(5);
/// How often who waits looks whether the other still lives.
const POLL: Duration = Duration::from_millis(5);

/// The bell: rung when somebody begins to hold, or wants pages closed. Null until this process needs it.
static BELL: AtomicPtr<AtomicU64> = AtomicPtr::new(core::ptr::null_mut());

/// Whether this process has the thread that answers.
static ANSWERS: AtomicBool = AtomicBool::new(false);

/// From now on this process answers, if NETMEM_SNAPSHOT=1 says so or its engine must be asked before pages leave. Before its first mapping; a
/// second call, after something else failed, does nothing.
pub fn start(runtime: &'static Runtime) -> Result<(), Errno> {
    if !runtime.config.snapshot && !runtime.engine().in_blocks() || ANSWERS.load(Ordering::Acquire) {
        return Ok(());
    }
    bell(runtime)?;
    spawn(runtime)?;
    ANSWERS.store(true, Ordering::Release);
    Ok(())
}

/// In a forked child, which has the bell and no thread, and none of the writes that its parent's threads were at.
pub fn start_again(runtime: &'static Runtime) -> Result<(), Errno> {
    handle::all().for_each(|handle| handle.writing.store(0, Ordering::SeqCst));
    if ANSWERS.load(Ordering::Acquire) { spawn(runtime) } else { Ok(()) }
}

/// The bell, which is mapped when it is needed first.
pub fn bell(runtime: &Runtime) -> Result<&'static AtomicU64, Errno> {
    let at = BELL.load(Ordering::Acquire);
    // SAFETY: null, or a mapping that is never given up, of a file that nobody makes shorter.
    if let Some(bell) = unsafe { at.as_ref() } {
        return Ok(bell);
    }
    let file = file::open(runtime.directory.bell_path(), OFlags::RDWR | OFlags::CREATE, 0o600)?;
    shm::extend(&file, crate::sys::mem::PAGE as u64)?;
    // Two threads may each map it; either will do.
    let at = shm::map(&file, 0, crate::sys::mem::PAGE)? as *mut AtomicU64;
    BELL.store(at, Ordering::Release);
    // SAFETY: as above.
    Ok(unsafe { &*at })
}

/// Rings it: whoever answers looks at its regions.
pub fn ring(runtime: &Runtime) -> Result<(), Errno> {
    let bell = bell(runtime)?;
    bell.fetch_add(1, Ordering::SeqCst);
    futex::wake(futex::low_half(bell), i32::MAX);
    Ok(())
}

fn spawn(runtime: &'static Runtime) -> Result<(), Errno> {
    let bell = bell(runtime)?;
    thread::spawn(Box::new(move || {
        loop {
            let rung = bell.load(Ordering::SeqCst);
            handle::all().for_each(|handle| {
                answer(runtime, handle);
                super::closing::answer(runtime, handle);
            });
            futex::wait(futex::low_half(bell), rung as u32, None);
        }
    }))
}

/// Stops the stores of this process, if another one asks for that.
fn answer(runtime: &'static Runtime, handle: &'static Handle) {
    let Ok(_pin) = handle.pin() else { return };
    let cache = &handle.region.cache;
    let word = cache.control().hold.load(Ordering::SeqCst);
    let slot = cache.slot_of_mine();
    if holder(word).is_none_or(|owner| owner == cache.me()) || slot.held.load(Ordering::SeqCst) == word {
        return;
    }
    let stopped = stop_stores(runtime, handle);
    if let Err(errno) = stopped {
        log::error!("{}: stores can't be held: {errno}", handle.name);
    }
    slot.held.store(if stopped.is_ok() { word } else { !word }, Ordering::SeqCst);
    cache.wake(&slot.held);
}

/// Closes every mapping of the region to stores, and waits for the writes under way. I2: whoever opens one afterwards sees the hold.
fn stop_stores(runtime: &'static Runtime, handle: &Handle) -> Result<(), Errno> {
    harvest::close(runtime, handle)?;
    let until = Instant::now() + ANSWER_LIMIT;
    loop {
        let writing = handle.writing.load(Ordering::SeqCst);
        if writing == 0 {
            return Ok(());
        }
        if Instant::now() > until {
            return Err(Errno(libc::EBUSY));
        }
        handle.region.cache.wait(&handle.writing, writing, POLL);
    }
}

/// Waits while somebody keeps the region from changing.
pub fn wait(handle: &Handle) {
    let cache = &handle.region.cache;
    let hold = &cache.control().hold;
    let mut began = None;
    loop {
        let word = hold.load(Ordering::SeqCst);
        let Some(owner) = holder(word) else { return };
        let began = began.get_or_insert_with(Instant::now);
        if began.elapsed() > HOLD_LIMIT || !cache.alive(owner) {
            log::debug!("{}: the hold of another process is broken", handle.name);
            if hold.compare_exchange(word, 0, Ordering::SeqCst, Ordering::Relaxed).is_ok() {
                cache.wake(hold);
            }
            continue;
        }
        cache.wait(hold, word, POLL);
    }
}

/// A write to the region's file under way, where this process can be held.
pub struct Writing<'a> {
    counted: Option<&'a Handle>,
    _quiet: Option<SignalMask>,
}

impl<'a> Writing<'a> {
    /// Begins when nobody holds. I3: count, then look; who holds looks at the count after it said so. Signals wait: a handler that leaves
    /// by siglongjmp would leave the count behind.
    pub fn begin(handle: &'a Handle) -> Writing<'a> {
        Self::counted(handle, || Some(SignalMask::block_all()))
    }

    /// The same for a call that may wait for a pipe or a socket, whose signals can't wait with it.
    pub fn begin_to_wait(handle: &'a Handle) -> Writing<'a> {
        Self::counted(handle, || None)
    }

    fn counted(handle: &'a Handle, quiet: impl Fn() -> Option<SignalMask>) -> Writing<'a> {
        if !super::config().snapshot {
            return Writing { counted: None, _quiet: None };
        }
        loop {
            let quiet = quiet();
            handle.writing.fetch_add(1, Ordering::SeqCst);
            let writing = Writing { counted: Some(handle), _quiet: quiet };
            if !is_held(handle) {
                return writing;
            }
            drop(writing);
            wait(handle);
        }
    }
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        let Some(handle) = self.counted else { return };
        if handle.writing.fetch_sub(1, Ordering::SeqCst) == 1 && is_held(handle) {
            handle.region.cache.wake(&handle.writing);
        }
    }
}

/// Whether somebody keeps the region from changing.
pub fn is_held(handle: &Handle) -> bool {
    handle.region.cache.control().hold.load(Ordering::SeqCst) != 0
}

/// Nobody on the host stores into these regions while it lives.
pub struct Hold<'a> {
    regions: Vec<(&'a Handle, u64)>,
    began: Instant,
}

impl<'a> Hold<'a> {
    /// Stops everybody. The caller has the regions' locks, so that nobody else holds, attaches, or changes a size. EOPNOTSUPP where a process
    /// does not answer by what it was started with, EBUSY where one does not in time.
    pub fn begin(handles: &[&'a Handle]) -> Result<Hold<'a>, Errno> {
        let runtime = runtime_if_started().ok_or(Errno(libc::EIO))?;
        if !runtime.config.snapshot {
            log::error!("NETMEM_SNAPSHOT wants NETMEM_SNAPSHOT=1 in the environment");
            return Err(Errno(libc::EOPNOTSUPP));
        }
        let mut hold = Hold { regions: Vec::new(), began: Instant::now() };
        for handle in handles {
            let cache = &handle.region.cache;
            if let Some((pid, _)) = cache.peers().iter().find(|(_, tracking)| *tracking != Tracking::Holds) {
                log::error!(
                    "{}: process {pid} uses it without NETMEM_SNAPSHOT=1 in its environment, and can't be held",
                    handle.name
                );
                return Err(Errno(libc::EOPNOTSUPP));
            }
        }
        for handle in handles {
            let cache = &handle.region.cache;
            let word = hold_word(cache.me(), crate::sys::clock::monotonic_ns());
            cache.control().hold.store(word, Ordering::SeqCst);
            hold.regions.push((handle, word));
        }
        ring(runtime)?;
        for (handle, _) in &hold.regions {
            stop_stores(runtime, handle)?;
        }
        for (handle, word) in &hold.regions {
            for (number, slot) in handle.region.cache.living_peers() {
                hold.await_answer(handle, *word, (number, slot))?;
            }
        }
        Ok(hold)
    }

    fn await_answer(&self, handle: &Handle, word: u64, (number, slot): (usize, &Slot)) -> Result<(), Errno> {
        let cache = &handle.region.cache;
        loop {
            let held = slot.held.load(Ordering::SeqCst);
            // What the dead stored is found by its checksums, as always.
            if held == word || !cache.lock_is_held(number) {
                return Ok(());
            }
            let pid = slot.pid.load(Ordering::SeqCst);
            if held == !word {
                log::error!("{}: process {pid} can't stop its stores", handle.name);
                return Err(Errno(libc::EBUSY));
            }
            if self.began.elapsed() > ANSWER_LIMIT {
                log::error!("{}: process {pid} did not stop its stores in {ANSWER_LIMIT:?}", handle.name);
                return Err(Errno(libc::EBUSY));
            }
            cache.wait(&slot.held, held, POLL);
        }
    }
}

impl Held for Hold<'_> {
    fn end(mut self: Box<Self>) -> Result<(), Errno> {
        stats::HOLD_TIME.note(self.began);
        if self.let_go() {
            return Ok(());
        }
        log::error!(
            "not committed: this process stood still for more than {HOLD_LIMIT:?} while it held the others"
        );
        Err(Errno(libc::EBUSY))
    }
}

impl Hold<'_> {
    /// False if somebody broke it.
    fn let_go(&mut self) -> bool {
        let mut whole = true;
        for (handle, word) in self.regions.drain(..) {
            let hold = &handle.region.cache.control().hold;
            whole &= hold.compare_exchange(word, 0, Ordering::SeqCst, Ordering::Relaxed).is_ok();
            handle.region.cache.wake(hold);
        }
        whole
    }
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        self.let_go();
    }
}
