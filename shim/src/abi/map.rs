//! mmap and what changes mappings.
//!
//! Owns: making, cutting, moving and removing our mappings. Called by: exports. Must not: leave a moment in which a page of ours
//! is accessible and unregistered: mapped without access, registered, then opened.

use super::outcome::{Exit, NOT_OURS, Outcome};
use super::process::disabled;
use super::range::{page_end, parts};
use crate::engine::mappings::Mapping;
use crate::engine::state::MapState;
use crate::host::attach::Held;
use crate::host::{
    Handle, Runtime, attach, config, fds, handle, names, runtime, runtime_if_started, start_engine,
};
use crate::log;
use crate::sys::errno::Errno;
use crate::sys::mem::{self, PAGE};
use crate::sys::syscall::call;

/// netmem.h: an anonymous mapping with this bit is an unnamed region. The kernel ignores it.
pub const MAP_NETMEM: i32 = 0x4000_0000;
/// netmem.h: this descriptor stands for the region that NETMEM_REGION names.
pub const NETMEM_FD: i32 = -7117;

/// The arguments of mmap(2).
#[derive(Clone, Copy)]
pub struct Request {
    /// Where, or 0.
    pub at: usize,
    /// Bytes.
    pub length: usize,
    /// PROT_*.
    pub prot: i32,
    /// MAP_*.
    pub flags: i32,
    /// The descriptor.
    pub number: i32,
    /// Bytes into the file.
    pub offset: i64,
}

/// Whether mmap has to look further: the one comparison that a call not ours costs.
#[inline]
pub fn is_plain(request: &Request) -> bool {
    request.flags & (libc::MAP_ANONYMOUS | MAP_NETMEM | libc::MAP_FIXED) == libc::MAP_ANONYMOUS
}

/// mmap(2).
pub fn map(request: &Request) -> Outcome<usize> {
    if disabled() {
        return Err(NOT_OURS);
    }
    let anonymous = request.flags & libc::MAP_ANONYMOUS != 0;
    let wanted = if anonymous {
        if request.flags & MAP_NETMEM == 0 || request.flags & libc::MAP_HUGETLB != 0 {
            None
        } else {
            Some((Shown::Held(unnamed(request)?), true, true))
        }
    } else if request.number == NETMEM_FD {
        Some((Shown::Held(designated(request)?), true, true))
    } else {
        match fds::region(request.number)? {
            Some(handle) => {
                let (readable, writable) = access_of(request.number)?;
                Some((Shown::Descriptor(handle), readable, writable))
            }
            None => None,
        }
    };
    let Some((shown, readable, writable)) = wanted else {
        // Someone else's mapping, but perhaps over one of ours.
        if request.flags & libc::MAP_FIXED != 0 && can_succeed(request) {
            give_up_range(request.at, request.length)?;
        }
        return Err(NOT_OURS);
    };
    let private = is_private(request.flags);
    if !readable || !private && request.prot & libc::PROT_WRITE != 0 && !writable {
        return Err(Errno(libc::EACCES).into());
    }
    map_region(shown.handle(), request, private, private || writable)
}

/// What keeps a region attached until its mapping does.
enum Shown {
    Descriptor(&'static Handle),
    Held(Held),
}

impl Shown {
    fn handle(&self) -> &'static Handle {
        match self {
            Shown::Descriptor(handle) => handle,
            Shown::Held(held) => held.handle(),
        }
    }
}

/// Whether the kernel will get as far as replacing what is mapped there.
fn can_succeed(request: &Request) -> bool {
    let aligned =
        request.at.is_multiple_of(PAGE) && request.offset.unsigned_abs().is_multiple_of(PAGE as u64);
    let typed = matches!(
        request.flags & libc::MAP_TYPE,
        libc::MAP_SHARED | libc::MAP_PRIVATE | libc::MAP_SHARED_VALIDATE
    );
    let open = request.flags & libc::MAP_ANONYMOUS != 0
        || request.number == NETMEM_FD
        || access_of(request.number).is_ok_and(|(readable, _)| readable);
    aligned && typed && open && request.length != 0
}

fn is_private(flags: i32) -> bool {
    flags & libc::MAP_TYPE == libc::MAP_PRIVATE
}

fn access_of(number: i32) -> Result<(bool, bool), Errno> {
    // SAFETY: by value.
    let flags =
        unsafe { call(libc::SYS_fcntl, [number as usize, libc::F_GETFL as usize, 0, 0, 0, 0])? } as i32;
    if flags & libc::O_PATH != 0 {
        return Err(Errno(libc::EBADF));
    }
    let mode = flags & libc::O_ACCMODE;
    Ok((mode != libc::O_WRONLY, mode == libc::O_RDWR))
}

/// A region for an anonymous mapping: as long as the mapping.
fn unnamed(request: &Request) -> Result<Held, Errno> {
    if request.length == 0 {
        return Err(Errno(libc::EINVAL));
    }
    let size = request.length.checked_next_multiple_of(PAGE).ok_or(Errno(libc::ENOMEM))?;
    attach::attach_unnamed(runtime()?, size as u64)
}

/// The region of NETMEM_REGION, made and grown as needed.
fn designated(request: &Request) -> Result<Held, Errno> {
    let Some(name) = &config().region else {
        log::error!("a mapping of NETMEM_FD: set NETMEM_REGION to the region's name");
        return Err(Errno(libc::EBADF));
    };
    let runtime = runtime()?;
    let name = crate::host::paths::Name::plain(name.clone());
    let flags = libc::O_RDWR | libc::O_CREAT;
    let names::Opened::Region(_, handle, _) = names::open(runtime, &name, flags, 0o666)? else {
        return Err(Errno(libc::EISDIR));
    };
    let end = u64::try_from(request.offset).ok().and_then(|offset| offset.checked_add(request.length as u64));
    if let Some(end) = end
        && end > handle.size()?
    {
        handle.handle().truncate(end)?;
    }
    Ok(handle)
}

fn map_region(handle: &'static Handle, request: &Request, private: bool, may_write: bool) -> Outcome<usize> {
    let runtime = runtime()?;
    start_engine(runtime)?;
    let fixed = request.flags & libc::MAP_FIXED != 0;
    if fixed && can_succeed(request) {
        give_up_range(request.at, request.length)?;
    }
    let flags = request.flags & !(libc::MAP_POPULATE | libc::MAP_LOCKED | libc::MAP_ANONYMOUS | MAP_NETMEM);
    let offset = if request.flags & libc::MAP_ANONYMOUS != 0 { 0 } else { request.offset as u64 };
    // SAFETY: the program's own wish; what it replaces was given up above.
    let at = unsafe {
        mem::mmap(request.at, request.length, libc::PROT_NONE, flags, handle.region.cache.fd().raw(), offset)?
    };
    let end = page_end(at, request.length).ok_or(Errno(libc::ENOMEM))?;
    let block_bytes = runtime.engine().block_pages(end - at) as usize * PAGE;
    let mapping = Mapping {
        start: at,
        end,
        first_page: offset / PAGE as u64,
        handle: handle.index,
        private,
        may_write,
        prot: request.prot,
        state: MapState::new(at, end, block_bytes),
    };
    let entered = runtime.mappings.write().insert(&mapping);
    let taken = entered.and_then(|()| runtime.engine().take_charge(&mapping, handle));
    if let Err(errno) = taken {
        runtime.mappings.write().remove(at);
        // SAFETY: nobody has seen the mapping.
        let _ = unsafe { mem::munmap(at, end - at) };
        log::error!("{}: can't be mapped: {errno}", handle.name);
        return Err(errno.into());
    }
    if request.flags & (libc::MAP_POPULATE | libc::MAP_LOCKED) != 0 {
        populate(runtime, handle, &mapping, request.flags);
    }
    log::debug!("mmap {}: {at:#x}-{end:#x}, page {}", handle.name, mapping.first_page);
    Ok(at)
}

/// MAP_POPULATE and MAP_LOCKED: pages come in now; that they can't is no error, as for the kernel.
fn populate(runtime: &Runtime, handle: &Handle, mapping: &Mapping, flags: i32) {
    let end = handle.pages_inside().unwrap_or(0).min(mapping.end_page());
    if mapping.first_page < end && handle.bring_in(mapping.first_page, end).is_ok() {
        let to = mapping.address_of(end - 1) + PAGE;
        let _ = runtime.engine().prepare(mapping, mapping.start, to, false);
        if flags & libc::MAP_LOCKED != 0 {
            // SAFETY: locking changes no data.
            let _ = unsafe { call(libc::SYS_mlock, [mapping.start, mapping.length(), 0, 0, 0, 0]) };
        }
    }
}

/// Harvests and forgets whatever of ours lies in a range that is about to be replaced or unmapped.
fn give_up_range(at: usize, length: usize) -> Result<(), Errno> {
    let Some(runtime) = runtime_if_started() else { return Ok(()) };
    let Some(end) = page_end(at, length).filter(|_| at.is_multiple_of(PAGE)) else { return Ok(()) };
    if !runtime.mappings.may_overlap(at, end) {
        return Ok(());
    }
    let mut table = runtime.mappings.write();
    table.split(at)?;
    table.split(end)?;
    for piece in runtime.mappings.overlapping(at, end) {
        // No store may come between the harvest and the end.
        mem::mprotect(piece.start, piece.length(), libc::PROT_NONE)?;
        runtime.engine().harvest_piece(&piece, handle(piece.handle));
        table.remove(piece.start);
    }
    Ok(())
}

/// munmap(2): what was stored is noted and goes up with the next commit.
pub fn unmap(at: usize, length: usize) -> Outcome<i32> {
    let Some(runtime) = runtime_if_started() else { return Err(NOT_OURS) };
    if length == 0 || !runtime.mappings.may_overlap(at, at.saturating_add(length)) {
        return Err(NOT_OURS);
    }
    let mut handles: Vec<u32> = runtime
        .mappings
        .overlapping(at, at.saturating_add(length))
        .iter()
        .map(|piece| piece.handle)
        .collect();
    give_up_range(at, length)?;
    // SAFETY: the program's own wish.
    unsafe { mem::munmap(at, length)? };
    handles.dedup();
    for index in handles {
        attach::release_if_idle(runtime, handle(index));
    }
    Ok(0)
}

/// mprotect(2), over ours and others alike, from left to right as the kernel does it.
pub fn protect(at: usize, length: usize, prot: i32) -> Outcome<i32> {
    let Some(runtime) = runtime_if_started() else { return Err(NOT_OURS) };
    let Some(end) = page_end(at, length).filter(|_| at.is_multiple_of(PAGE) && length != 0) else {
        return Err(NOT_OURS);
    };
    if !runtime.mappings.may_overlap(at, end)
        || prot & !(libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC) != 0
    {
        return Err(NOT_OURS);
    }
    let pieces = runtime.mappings.overlapping(at, end);
    if pieces.is_empty() {
        return Err(NOT_OURS);
    }
    for (from, to, piece) in parts(at, end, &pieces) {
        match piece {
            None => mem::mprotect(from, to - from, prot)?,
            Some(piece) if prot & libc::PROT_WRITE != 0 && !piece.may_write => {
                return Err(Errno(libc::EACCES).into());
            }
            Some(_) => {
                let changed = runtime.mappings.write().set_prot(from, to, prot)?;
                for piece in changed {
                    runtime.engine().protect(&piece)?;
                }
            }
        }
    }
    Ok(0)
}

/// mremap(2).
pub fn remap(at: usize, old: usize, new: usize, flags: i32, to: usize) -> Outcome<usize> {
    let Some(runtime) = runtime_if_started() else { return Err(NOT_OURS) };
    let fixed = flags & libc::MREMAP_FIXED != 0;
    let Some(old_end) = page_end(at, old) else { return Err(NOT_OURS) };
    let target = fixed && runtime.mappings.may_overlap(to, to.saturating_add(new));
    let Some(piece) = runtime.mappings.first_overlapping(at, old_end.max(at + 1)) else {
        if target {
            give_up_range(to, new)?;
        }
        return Err(NOT_OURS);
    };
    let dont_unmap = flags & libc::MREMAP_DONTUNMAP != 0;
    if !at.is_multiple_of(PAGE) || new == 0 || old == 0 || dont_unmap {
        return Err(Errno(libc::EINVAL).into());
    }
    if piece.start > at || piece.end < old_end {
        // Several mappings at once, as for the kernel.
        return Err(Errno(libc::EFAULT).into());
    }
    if target {
        give_up_range(to, new)?;
    }
    move_piece(runtime, at, (old_end, old), new, (flags, to))
}

fn move_piece(
    runtime: &'static Runtime,
    at: usize,
    old: (usize, usize),
    new: usize,
    how: (i32, usize),
) -> Outcome<usize> {
    let (old_end, old_length) = old;
    let (flags, to) = how;
    let mut table = runtime.mappings.write();
    table.split(at)?;
    table.split(old_end)?;
    let piece = runtime.mappings.find(at).ok_or(Exit::Fail(Errno(libc::EFAULT)))?;
    let handle = handle(piece.handle);
    // A move drops the registration, and a touch of an absent page would read zeros until it is made again.
    mem::mprotect(piece.start, piece.length(), libc::PROT_NONE)?;
    runtime.engine().harvest_piece(&piece, handle);
    // SAFETY: the program's own wish.
    let moved = match unsafe { mem::mremap(at, old_length, new, flags, to) } {
        Ok(moved) => moved,
        Err(errno) => {
            runtime.engine().protect(&piece)?;
            return Err(errno.into());
        }
    };
    table.remove(at);
    let end = page_end(moved, new).ok_or(Exit::Fail(Errno(libc::ENOMEM)))?;
    let block_bytes = runtime.engine().block_pages(end - moved) as usize * PAGE;
    let mapping = Mapping { start: moved, end, state: MapState::new(moved, end, block_bytes), ..piece };
    table.insert(&mapping)?;
    drop(table);
    runtime.engine().take_charge(&mapping, handle)?;
    Ok(moved)
}
