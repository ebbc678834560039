//! Pages that could not be had: SIGBUS for whoever touches them, until the server is back.
//!
//! Owns: the list of such pages. Called by: the uffd engine's thread; whoever takes a range away or moves it. Must not: leave a
//! page poisoned once it can be had, or take one for poisoned that is not.

use core::sync::atomic::{AtomicBool, Ordering};

use super::{Runtime, handle, runtime_if_started};
use crate::engine::mappings::Mapping;
use crate::engine::uffd::UffdEngine;
use crate::log;
use crate::sync::QuietMutex;
use crate::sys::errno::Errno;
use crate::sys::mem;
use crate::sys::uffd::Uffd;

/// Addresses of poisoned pages. Lock order: 4.
static POISONED: QuietMutex<Vec<usize>> = QuietMutex::new(Vec::new());
/// Whether the list is worth a look.
static ANY: AtomicBool = AtomicBool::new(false);

/// Ends a wait for a page with SIGBUS. Where the kernel can't poison (before 6.6) the page loses its mapping until it can be
/// had: memory of nothing, beyond the end of an empty file, whose touch is a SIGBUS too.
pub fn fail_page(uffd: &Uffd, mapping: &Mapping, address: usize) {
    crate::stats::GIVEN_UP.fetch_add(1, Ordering::Relaxed);
    // While the table can't change: the address must still be the program's view of the page, or it is not ours to spoil.
    let Some(runtime) = runtime_if_started() else { return };
    let table = runtime.mappings.write();
    if !runtime.mappings.find(address).is_some_and(|now| core::ptr::eq(now.state, mapping.state)) {
        drop(table);
        let _ = uffd.wake(address, mem::PAGE);
        return;
    }
    // A page that can't be poisoned came meanwhile; whoever waits looks again.
    let spoilt = if uffd.features.poison {
        uffd.poison(address, mem::PAGE).is_ok()
    } else {
        if let Err(errno) = crate::sys::shm::map_nothing(address) {
            log::error!("a page could neither be had nor be given up ({errno}); stopping the program");
            std::process::abort();
        }
        true
    };
    if spoilt {
        let mut pages = POISONED.lock();
        pages.push(address);
        ANY.store(true, Ordering::SeqCst);
    }
    let _ = uffd.wake(address, mem::PAGE);
}

/// Whether any page waits to be brought back.
pub fn any() -> bool {
    ANY.load(Ordering::Relaxed)
}

/// Brings poisoned pages back if the server answers again. Called by the engine's thread when it has nothing else to do.
pub fn heal() {
    if !any() {
        return;
    }
    let pages = POISONED.lock().clone();
    let Some(runtime) = runtime_if_started() else { return };
    let crate::engine::Engine::Uffd(engine) = runtime.engine() else { return };
    for address in pages {
        let Some(mapping) = runtime.mappings.find(address) else { continue };
        let page = mapping.page_at(address);
        // It must be here still when it is shown.
        let Ok(_here) = handle(mapping.handle).using(page * mem::PAGE as u64, 1) else { continue };
        // What can't be had yet is asked for again.
        let _ = handle(mapping.handle)
            .bring_in(page, page + 1)
            .and_then(|()| show_again(runtime, engine, address));
    }
    let pages = POISONED.lock();
    ANY.store(!pages.is_empty(), Ordering::SeqCst);
}

/// Lets a page that is in the file by now be touched again, unless the address has become something else meanwhile: another
/// mapping's private copy of a page would be lost.
fn show_again(runtime: &Runtime, engine: &UffdEngine, address: usize) -> Result<(), Errno> {
    let _table = runtime.mappings.write();
    let Some(mapping) = runtime.mappings.find(address).filter(|_| POISONED.lock().contains(&address)) else {
        return Ok(());
    };
    engine.unpoison(&mapping, mapping.page_at(address), handle(mapping.handle))?;
    forget(address, address + mem::PAGE);
    Ok(())
}

/// What lies between two addresses goes, or the program drops what is there. The caller holds the table.
pub fn forget(from: usize, to: usize) {
    if any() {
        POISONED.lock().retain(|address| !(from..to).contains(address));
    }
}

/// Takes what is poisoned in a range that moves off the list: the kernel takes it along. The caller holds the table.
pub fn take(from: usize, to: usize) -> Vec<usize> {
    if !any() {
        return Vec::new();
    }
    POISONED.lock().extract_if(.., |address| (from..to).contains(address)).collect()
}

/// Puts on the list again what [`take`] took, where it is now.
pub fn put(addresses: impl Iterator<Item = usize>) {
    let mut pages = POISONED.lock();
    pages.extend(addresses);
    ANY.store(!pages.is_empty(), Ordering::SeqCst);
}

/// The lock that the fork hook takes.
pub(super) fn lock_for_fork() -> crate::sync::QuietGuard<'static, Vec<usize>> {
    POISONED.lock()
}
