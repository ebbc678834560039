//! mmap, munmap and mprotect.
//!
//! Owns: making, cutting, protecting and removing our mappings. Called by: exports. Must not: leave a moment in which a page of ours
//! is accessible and unregistered: mapped without access, registered, then opened.

use super::outcome::{NOT_OURS, Outcome};
use super::process::disabled;
use super::range::{page_end, parts};
use super::residence;
use crate::engine::mappings::{Mapping, Writer};
use crate::engine::state::{Looking, MapState};
use crate::host::attach::Held;
use crate::host::locked;
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
                // What can't be asked (O_PATH) can't be mapped either, and the kernel says why.
                let (readable, writable) = access_of(request.number).unwrap_or((false, false));
                Some((Shown::Descriptor(handle), readable, writable))
            }
            None => None,
        }
    };
    let Some((shown, readable, writable)) = wanted else {
        // Someone else's mapping, but perhaps over one of ours.
        return map_over(request);
    };
    let private = is_private(request.flags);
    if !readable || !private && request.prot & libc::PROT_WRITE != 0 && !writable {
        // The kernel refuses it too, for this reason or for one that it looks at before.
        return Err(NOT_OURS);
    }
    if request.prot & libc::PROT_EXEC != 0 && !executable(shown.handle()) {
        return Err(Errno(libc::EPERM).into());
    }
    map_region(shown.handle(), request, private, private || writable)
}

/// MAP_FIXED of something else over one of ours.
fn map_over(request: &Request) -> Outcome<usize> {
    let Some(runtime) = runtime_if_started() else { return Err(NOT_OURS) };
    let end = request.at.saturating_add(request.length);
    if request.flags & libc::MAP_FIXED == 0 || !runtime.mappings.may_overlap(request.at, end) {
        return Err(NOT_OURS);
    }
    let _looking = Looking::start();
    let mut table = runtime.mappings.write();
    let Request { at, length, prot, flags, number, offset } = *request;
    // SAFETY: the program's own wish.
    let make = || unsafe { mem::mmap(at, length, prot, flags, number, offset as u64) };
    Ok(replacing(runtime, &mut table, (at, length), make)?)
}

/// Whether the file lies on a file system from which programs may run: asked of the kernel with a mapping of one page.
pub(super) fn executable(handle: &Handle) -> bool {
    let fd = handle.region.cache.fd().raw();
    // SAFETY: a new mapping that nobody touches, given back at once.
    unsafe {
        mem::mmap(0, PAGE, libc::PROT_EXEC, libc::MAP_PRIVATE, fd, 0)
            .is_ok_and(|at| mem::munmap(at, PAGE).is_ok())
    }
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

fn is_private(flags: i32) -> bool {
    flags & libc::MAP_TYPE == libc::MAP_PRIVATE
}

fn access_of(number: i32) -> Result<(bool, bool), Errno> {
    let flags =
        // SAFETY: by value.
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

/// Maps a region where and as the program asked, but for its protection, and takes charge of it before that is given.
pub(super) fn map_region(
    handle: &'static Handle,
    request: &Request,
    private: bool,
    may_write: bool,
) -> Outcome<usize> {
    let runtime = runtime()?;
    start_engine(runtime)?;
    let _looking = Looking::start();
    let flags = request.flags & !(libc::MAP_POPULATE | libc::MAP_ANONYMOUS | MAP_NETMEM);
    let offset = if request.flags & libc::MAP_ANONYMOUS != 0 { 0 } else { request.offset as u64 };
    let (hint, length) = (request.at, request.length);
    let fd = handle.region.cache.fd().raw();
    // SAFETY: the program's own wish; what of ours it replaces is given up around it. MAP_LOCKED brings nothing in yet: there
    // is no access.
    let make = || unsafe { mem::mmap(hint, length, libc::PROT_NONE, flags, fd, offset) };
    let mut table = runtime.mappings.write();
    // EBADF, as of a descriptor that another thread closed: the region was given up meanwhile, and its number may be another's.
    let _pin = handle.pin()?;
    handle.region.reach_used_chunks()?;
    let at = if request.flags & libc::MAP_FIXED != 0 {
        replacing(runtime, &mut table, (hint, length), make)?
    } else {
        make()?
    };
    let end = page_end(at, length).ok_or(Errno(libc::ENOMEM))?;
    let block_bytes = runtime.engine().block_pages(end - at) as usize * PAGE;
    let mapping = Mapping {
        start: at,
        end,
        first_page: offset / PAGE as u64,
        handle: handle.index,
        private,
        may_write,
        prot: request.prot & RWX,
        asked: request.prot & RWX,
        fenced: false,
        kept: false,
        on_fault: residence::future_is_locked_on_fault(),
        state: MapState::new(at, end, block_bytes),
    };
    let entered = table.insert(&mapping);
    drop(table);
    let taken = entered.and_then(|()| runtime.engine().take_charge(&mapping, handle));
    if let Err(errno) = taken {
        let mut table = runtime.mappings.write();
        table.remove(at);
        // SAFETY: nobody has seen the mapping.
        let _ = unsafe { mem::munmap(at, end - at) };
        log::error!("{}: can't be mapped: {errno}", handle.name);
        return Err(errno.into());
    }
    let wants = libc::MAP_POPULATE | libc::MAP_NONBLOCK;
    let locked = request.flags & libc::MAP_LOCKED != 0 || residence::all_is_locked();
    if locked {
        let _ = locked::add(runtime, mapping.start, mapping.end);
    } else {
        // What lay here before, and was locked, is gone.
        locked::remove(mapping.start, mapping.end);
    }
    if request.flags & wants == libc::MAP_POPULATE || locked {
        populate(runtime, &mapping, mapping.start, mapping.end);
    }
    log::debug!("mmap {}: {at:#x}-{end:#x}, page {}", handle.name, mapping.first_page);
    Ok(at)
}

/// MAP_POPULATE, MAP_LOCKED, locked memory that grows or that becomes writable: the pages of a part come in now, and a private one that
/// can be written is copied now; that they can't is no error, as for the kernel.
pub(super) fn populate(runtime: &Runtime, mapping: &Mapping, from: usize, to: usize) {
    let write = mapping.private && mapping.prot & libc::PROT_WRITE != 0;
    if mapping.prot == libc::PROT_NONE || make_ready(runtime, mapping, from, to, write).is_err() {
        return;
    }
    let advice = if write { libc::MADV_POPULATE_WRITE } else { libc::MADV_POPULATE_READ };
    // SAFETY: a touch of each page. It ends at the end of the file, and does nothing before Linux 5.14.
    let _ = unsafe { mem::madvise(from, to - from, advice) };
}

/// Brings in what a part of a mapping shows of the file, and makes it ready to be touched by the kernel. Returns where the file
/// ends, if it does so inside the part.
pub(super) fn make_ready(
    runtime: &Runtime,
    mapping: &Mapping,
    from: usize,
    to: usize,
    write: bool,
) -> Result<usize, Errno> {
    let handle = handle(mapping.handle);
    let inside = handle.pages_inside()?.clamp(mapping.first_page, mapping.end_page());
    let behind = (mapping.start + (inside - mapping.first_page) as usize * PAGE).min(to);
    if from < behind {
        handle.bring_in(mapping.page_at(from), mapping.page_at(behind - 1) + 1)?;
        runtime.engine().prepare(mapping, from, behind, write)?;
    }
    Ok(behind)
}

/// Makes a call that replaces or unmaps a range, with whatever of ours lies in it harvested before and forgotten afterwards, or as
/// it was if the call fails. The table is held, so that no other thread can enter what it maps there in between.
pub(super) fn replacing(
    runtime: &'static Runtime,
    table: &mut Writer<'_>,
    (at, length): (usize, usize),
    make: impl FnOnce() -> Result<usize, Errno>,
) -> Result<usize, Errno> {
    let Some(end) = page_end(at, length).filter(|_| at.is_multiple_of(PAGE) && length != 0) else {
        return make();
    };
    if !runtime.mappings.may_overlap(at, end) {
        return make();
    }
    table.split(at)?;
    table.split(end)?;
    let pieces = runtime.mappings.overlapping(at, end);
    let made = shut(runtime, &pieces).and_then(|()| make());
    if made.is_ok() {
        for piece in &pieces {
            table.remove(piece.start);
        }
    } else {
        reopen(runtime, &pieces);
    }
    table.join(at, end);
    made
}

/// Takes every access away and notes what was stored: no store may come between the harvest and what follows it. Locked private
/// memory is locked on fault from then on, or the kernel would copy all of it when it gets its access back.
pub(super) fn shut(runtime: &Runtime, pieces: &[Mapping]) -> Result<(), Errno> {
    for piece in pieces {
        if !piece.private {
            handle(piece.handle).region.reach_used_chunks()?;
        }
        mem::mprotect(piece.start, piece.length(), libc::PROT_NONE)?;
        runtime.engine().harvest_piece(piece, handle(piece.handle));
        // A harvest of blocks gives them back what a load needs.
        mem::mprotect(piece.start, piece.length(), libc::PROT_NONE)?;
        if piece.private {
            residence::each_locked(piece.start, piece.end, mem::lock_on_fault)?;
        }
    }
    Ok(())
}

/// Undoes [`shut`].
pub(super) fn reopen(runtime: &Runtime, pieces: &[Mapping]) {
    for piece in pieces {
        if let Err(errno) = runtime.engine().protect(piece) {
            log::error!("a mapping at {:#x} can't be opened again: {errno}", piece.start);
        }
    }
}

/// Unmaps a range, ours or not.
pub(super) fn unmap_range(runtime: &'static Runtime, at: usize, length: usize) -> Result<(), Errno> {
    // SAFETY: the program's own wish.
    let make = || unsafe { mem::munmap(at, length) }.map(|()| 0);
    replacing(runtime, &mut runtime.mappings.write(), (at, length), make).map(drop)
}

/// munmap(2): what was stored is noted and goes up with the next commit.
pub fn unmap(at: usize, length: usize) -> Outcome<i32> {
    let Some(runtime) = runtime_if_started() else { return Err(NOT_OURS) };
    if length == 0 || !runtime.mappings.may_overlap(at, at.saturating_add(length)) {
        return Err(NOT_OURS);
    }
    let _looking = Looking::start();
    let pieces = runtime.mappings.overlapping(at, at.saturating_add(length));
    let mut handles: Vec<u32> = pieces.iter().map(|piece| piece.handle).collect();
    unmap_range(runtime, at, length)?;
    locked::remove(at, at.saturating_add(length));
    handles.dedup();
    for index in handles {
        attach::release_if_idle(runtime, handle(index));
    }
    Ok(0)
}

const RWX: i32 = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC;
/// Accepted and ignored by the kernel; libc has no name for it.
const PROT_SEM: i32 = 8;

/// mprotect(2), over ours and others alike, from left to right as the kernel does it.
pub fn protect(at: usize, length: usize, prot: i32) -> Outcome<i32> {
    protect_with(at, length, prot, None)
}

/// pkey_mprotect(2).
pub fn protect_with_key(at: usize, length: usize, prot: i32, key: i32) -> Outcome<i32> {
    if key == -1 {
        return protect(at, length, prot);
    }
    if runtime_if_started().is_none_or(|runtime| !runtime.mappings.may_overlap(at, at.saturating_add(length)))
    {
        return Err(NOT_OURS);
    }
    // Whether the key is one is asked with a page of our own: nothing of the program's may change before that is known.
    let scratch = mem::reserve(PAGE)?;
    let known = mem::pkey_mprotect(scratch, PAGE, libc::PROT_NONE, key);
    // SAFETY: our own page.
    unsafe { mem::munmap(scratch, PAGE)? };
    known?;
    protect_with(at, length, prot, Some(key))
}

fn protect_with(at: usize, length: usize, prot: i32, key: Option<i32>) -> Outcome<i32> {
    let Some(runtime) = runtime_if_started() else { return Err(NOT_OURS) };
    let Some(end) = page_end(at, length).filter(|_| at.is_multiple_of(PAGE) && length != 0) else {
        return Err(NOT_OURS);
    };
    if !runtime.mappings.may_overlap(at, end) {
        return Err(NOT_OURS);
    }
    let _looking = Looking::start();
    let pieces = runtime.mappings.overlapping(at, end);
    if pieces.is_empty() {
        return Err(NOT_OURS);
    }
    if prot & !(RWX | PROT_SEM) != 0 {
        // Bits that the kernel does not know, or that only a stack's mapping may have.
        return Err(Errno(libc::EINVAL).into());
    }
    let prot = prot & RWX;
    for (from, to, piece) in parts(at, end, &pieces) {
        match piece {
            None => match key {
                None => mem::mprotect(from, to - from, prot)?,
                Some(key) => mem::pkey_mprotect(from, to - from, prot, key)?,
            },
            Some(piece) if prot & libc::PROT_WRITE != 0 && !piece.may_write => {
                return Err(Errno(libc::EACCES).into());
            }
            Some(piece) if prot & libc::PROT_EXEC != 0 && !executable(handle(piece.handle)) => {
                return Err(Errno(libc::EACCES).into());
            }
            Some(piece) => {
                protect_ours(runtime, (from, to), prot, key)?;
                // Locked private memory that becomes writable is copied: what of it the kernel could not, or was told not to.
                if prot & libc::PROT_WRITE & !piece.prot != 0 && piece.private && !piece.on_fault {
                    residence::each_locked(from, to, |at, length| {
                        for piece in runtime.mappings.overlapping(at, at + length) {
                            populate(runtime, &piece, piece.start.max(at), piece.end.min(at + length));
                        }
                        Ok(())
                    })?;
                }
            }
        }
    }
    Ok(0)
}

/// Changes the protection of what is ours in a range. What the kernel refuses (ENOMEM, where mappings run out) is as it was.
fn protect_ours(
    runtime: &'static Runtime,
    (from, to): (usize, usize),
    prot: i32,
    key: Option<i32>,
) -> Result<(), Errno> {
    let mut table = runtime.mappings.write();
    let before = table.edit(from, to, |_| ())?;
    let changed = table.edit(from, to, |piece| piece.ask(prot))?;
    let mut done = Ok(());
    for (i, piece) in changed.iter().enumerate() {
        done = apply(runtime, piece, key);
        if done.is_err() {
            for row in &before[i..] {
                table.edit(row.start, row.end, |piece| piece.ask(row.asked))?;
            }
            reopen(runtime, &before[i..=i]);
            break;
        }
    }
    table.join(from, to);
    done
}

fn apply(runtime: &Runtime, piece: &Mapping, key: Option<i32>) -> Result<(), Errno> {
    if let Some(key) = key {
        // The key stays with the range. Blocks get their access back one by one.
        let now = if runtime.engine().in_blocks() { libc::PROT_NONE } else { piece.prot };
        mem::pkey_mprotect(piece.start, piece.length(), now, key)?;
    }
    runtime.engine().protect(piece)
}
