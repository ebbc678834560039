//! fork: nothing of ours is half-way in the child, and every page there faults to the child's own engine.
//!
//! Owns: the three pthread_atfork handlers. Called by: libc inside fork, forkpty and daemon; abi around _Fork. Must not: cost a
//! process that never used netmem more than two locks.
//!
//! Mappings of ours are MADV_DONTFORK but between `prepare` and `parent`, so that a clone that goes past us gets SIGSEGV and
//! never zeros.

use core::cell::UnsafeCell;
use core::sync::atomic::Ordering;

use netmem_protocol::RegionId;

use super::{Handle, Runtime, handle, runtime_if_started};
use crate::log;
use crate::pager::Board;
use crate::sync::QuietGuard;
use crate::sys::errno::Errno;
use crate::sys::mem;

/// Everything locked across a fork. Fields are dropped in this order, the reverse of taking.
struct Held {
    /// None in a process that has not used netmem; its heap and its start are guarded all the same, since a path that is not
    /// ours may be looked at.
    runtime: Option<HeldRuntime>,
    starting: QuietGuard<'static, ()>,
    far: crate::far::fork::Forking,
}

/// The locks of the runtime.
struct HeldRuntime {
    _action: Box<dyn Guard>,
    _poisoned: Box<dyn Guard>,
    _retired: Box<dyn Guard>,
    _mappings: crate::engine::mappings::Writer<'static>,
    _maintenance: Vec<QuietGuard<'static, ()>>,
    _attached: Box<dyn Guard>,
    _names: QuietGuard<'static, ()>,
}

/// Any lock's guard.
trait Guard {}
impl<T> Guard for QuietGuard<'_, T> {}
impl<A: Guard, B: Guard> Guard for (A, B) {}

struct Slot(UnsafeCell<Option<Held>>);
// SAFETY: only touched by the thread that forks, which holds STARTING from `prepare` to `parent`, or is the child's only one.
unsafe impl Sync for Slot {}
static HELD: Slot = Slot(UnsafeCell::new(None));

/// Before a fork, in the parent.
pub extern "C" fn prepare() {
    // It may wait for the server, and its threads for the heap.
    let mut far = crate::far::fork::prepare();
    let starting = super::STARTING.lock();
    let runtime = runtime_if_started().map(|runtime| {
        let names = runtime.names.lock();
        let attached: Box<dyn Guard> = Box::new(runtime.attached.lock_for_fork());
        // All offsets before any maintenance lock: a read holds one offset while it may need any region's maintenance.
        let mut maintenance: Vec<_> = handle::all().map(|handle| handle.offset.lock()).collect();
        maintenance.extend(handle::all().map(|handle| handle.region.maintenance.lock()));
        maintenance.extend(handle::all().map(|handle| handle.region.cache.lock_end_for_fork()));
        for handle in handle::all() {
            handle.region.cache.control().heirs.fetch_add(1, Ordering::SeqCst);
        }
        let mappings = runtime.mappings.write();
        let retired: Box<dyn Guard> = Box::new(crate::engine::state::lock_for_fork());
        let poisoned: Box<dyn Guard> = Box::new(super::poison::lock_for_fork());
        let action: Box<dyn Guard> = Box::new(crate::engine::delivery::lock_for_fork());
        for mapping in runtime.mappings.overlapping(0, usize::MAX).iter().filter(|mapping| !mapping.kept) {
            let _ = mem::set_fork(mapping.start, mapping.length(), true);
        }
        HeldRuntime {
            _action: action,
            _poisoned: poisoned,
            _retired: retired,
            _mappings: mappings,
            _maintenance: maintenance,
            _attached: attached,
            _names: names,
        }
    });
    far.hold_controls();
    // SAFETY: STARTING is held.
    unsafe { *HELD.0.get() = Some(Held { runtime, starting, far }) };
    // The heap's lock comes last: nothing may be allocated while it is held. Signals are blocked by the others.
    #[cfg(not(test))]
    crate::HEAP.lock_across_fork();
}

/// Takes what `prepare` left, its locks held but for the heap's.
fn take_held() -> Option<Held> {
    #[cfg(not(test))]
    crate::HEAP.unlock_after_fork();
    // SAFETY: this thread took everything in `prepare`.
    unsafe { (*HELD.0.get()).take() }
}

/// After a fork, in the parent; or after one that failed: nobody comes who would take the notes back.
pub fn parent(forked: bool) {
    let Some(Held { runtime: held, starting, far }) = take_held() else { return };
    if let (Some(held), Some(runtime)) = (held, runtime_if_started()) {
        if !forked {
            handle::all().for_each(no_heir_of);
        }
        // While the table can't change: by the time it can, an address may be memory of the program's own, which its next child
        // would miss.
        for mapping in runtime.mappings.overlapping(0, usize::MAX) {
            let _ = mem::set_fork(mapping.start, mapping.length(), false);
        }
        drop(held);
    }
    drop(starting);
    far.in_parent(forked);
}

/// After a fork, in the child, before anything else of it runs.
pub extern "C" fn child() {
    crate::sys::aside::forget_after_fork();
    let Some(Held { runtime: held, starting, far }) = take_held() else { return };
    let had_runtime = held.is_some();
    drop(held);
    drop(starting);
    if let Err(errno) = far.in_child() {
        log::error!("a forked child can't go on with its far memory: {errno}");
        std::process::abort();
    }
    let Some(runtime) = runtime_if_started().filter(|_| had_runtime) else { return };
    if let Err(errno) = begin_again(runtime) {
        log::error!("a forked child can't go on with its netmem mappings: {errno}");
        std::process::abort();
    }
}

/// This process holds a region by itself, or not at all. Its note may be gone: with its parent, before it was attached itself.
fn no_heir_of(handle: &Handle) {
    let heirs = &handle.region.cache.control().heirs;
    let _ = heirs.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |heirs| heirs.checked_sub(1));
}

fn begin_again(runtime: &'static Runtime) -> Result<(), Errno> {
    crate::engine::state::nobody_looks();
    crate::engine::delivery::begin_again();
    super::locked::forget_after_fork();
    let is_idle = |handle: &&Handle| handle.is_idle(&runtime.mappings.write());
    let used = handle::all().filter(|handle| !is_idle(handle)).map(|handle| handle.region.id);
    let used: Vec<RegionId> = used.collect();
    let pending = handle::all().filter_map(|handle| {
        let place = handle.region.pending_place().0;
        (place != RegionId(0) && used.contains(&handle.region.id)).then_some((handle.region.id, place))
    });
    runtime.remote.forget_connections(super::random_client()?, used.clone(), pending.collect());
    runtime.directory.reopen_after_fork()?;
    let tracking = runtime.engine().tracking();
    for handle in handle::all() {
        handle.region.cache.attach_again_after_fork(tracking)?;
        handle.region.keep_again();
    }
    runtime.restart_engine()?;
    super::hold::start_again(runtime)?;
    for mapping in runtime.mappings.overlapping(0, usize::MAX) {
        if mapping.kept {
            // The program's own MADV_DONTFORK: nothing is there.
            runtime.mappings.write().remove(mapping.start);
            continue;
        }
        runtime.engine().take_over_in_child(&mapping, handle::handle(mapping.handle))?;
    }
    for handle in handle::all().filter(is_idle) {
        no_heir_of(handle);
        super::attach::forget_idle(runtime, handle);
    }
    // What the parent gives up ends there and then if it has no name, so it is held here, too, before the program goes on.
    if handle::all().next().is_some() && runtime.remote.tell_what_is_inherited() {
        handle::all().for_each(no_heir_of);
    }
    Ok(())
}
