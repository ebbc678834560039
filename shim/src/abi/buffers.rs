//! Buffers of system calls that lie in mappings of ours, where the kernel can't bring a page in (DESIGN.md, "Buffers").
//!
//! Owns: bytes that go over private memory, and copying between it and the program's. Called by: exports and the other families.
//! Must not: be used with a lock held but for an offset's, or cost a call that is not concerned more than one look.

use core::ffi::c_char;
use core::sync::atomic::Ordering;
use core::time::Duration;

use libc::iovec;

use super::private::Private;
use crate::engine::state::Looking;
use crate::host::handle::Using;
use crate::host::{handle, runtime_if_started};
use crate::pager::Board;
use crate::sys::app::{self, Span};
use crate::sys::errno::Errno;
use crate::sys::mem::PAGE;

/// How often in a row a page that is ours and there may be protected by another thread's harvest before a call gives up: for some
/// seconds.
const TRIES: u32 = 4096;
/// After so many, a try waits a millisecond. A harvest that lost its CPU between protecting a page and telling the other CPUs
/// leaves it open to stores of the program, by the CPU's cached translation, and closed to the kernel's.
const TRIES_AT_ONCE: u32 = 16;
/// Bytes of a regular file that are read at a time; what is asked for in pieces is what is asked for at once.
const PIECE: usize = 1 << 20;
/// Bytes of a path at the most (PATH_MAX).
const PATH_BYTES: usize = 4096;

/// Whether no buffer of this process can need care: what a call that is not concerned asks.
#[inline]
pub fn idle() -> bool {
    runtime_if_started().is_none_or(|runtime| runtime.mappings.is_empty() || runtime.engine().kernel_faults())
}

/// Whether bytes lie in a mapping that the kernel can't fault in.
pub fn touches(span: Span) -> bool {
    span.length != 0
        && runtime_if_started().is_some_and(|runtime| {
            runtime.mappings.may_overlap(span.at, span.end())
                && !runtime.engine().kernel_faults()
                && runtime.mappings.first_overlapping(span.at, span.end()).is_some()
        })
}

/// How many bytes from the start can be reached, as far as our mappings say: a protection or the end of a file stops them. What
/// is not ours is the kernel's to judge.
fn reachable(span: Span, write: bool) -> usize {
    let Some(runtime) = runtime_if_started() else { return span.length };
    let wanted = if write { libc::PROT_WRITE } else { libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC };
    for mapping in runtime.mappings.overlapping(span.at, span.end()) {
        let start = mapping.start.max(span.at) - span.at;
        if mapping.prot & wanted == 0 {
            return start;
        }
        let Ok(inside) = handle(mapping.handle).pages_inside() else { return span.length };
        let end = inside.clamp(mapping.first_page, mapping.end_page()) - mapping.first_page;
        let end = mapping.start + end as usize * PAGE;
        if end < mapping.end.min(span.end()) {
            return end.max(span.at) - span.at;
        }
    }
    span.length
}

/// Makes the pages of a buffer present and open to the kernel. Another thread's harvest can take a store's permission back, but
/// never a load's.
pub fn prepare(span: Span, write: bool) -> Result<(), Errno> {
    let Some(runtime) = runtime_if_started() else { return Ok(()) };
    let span = Span { length: reachable(span, write), ..span };
    if span.length == 0 {
        return Ok(());
    }
    let _looking = Looking::start();
    for mapping in runtime.mappings.overlapping(span.at, span.end()) {
        let (from, to) = (span.at.max(mapping.start), span.end().min(mapping.end));
        runtime.engine().prepare(&mapping, from, to, write)?;
    }
    Ok(())
}

/// Before a write to a file of ours, on every rung: the kernel holds the file's lock while it reads the buffers. A page of theirs
/// that had to come in then could wait for whoever installs a page of the same file, by a write that waits for that lock. What can't
/// be had now is the call's to find out. They stay while what is returned lives.
pub fn bring_in(spans: &[Span]) -> Vec<Using<'static>> {
    let mut uses = Vec::new();
    let Some(runtime) = runtime_if_started() else { return uses };
    for span in spans.iter().filter(|span| runtime.mappings.may_overlap(span.at, span.end())) {
        for mapping in runtime.mappings.overlapping(span.at, span.end()) {
            let (from, to) = (span.at.max(mapping.start), span.end().min(mapping.end));
            let handle = handle(mapping.handle);
            if let Ok(inside) = handle.pages_inside() {
                uses.extend(handle.using(mapping.page_at(from) * PAGE as u64, (to - from + PAGE) as u64));
                let _ = handle.bring_in(mapping.page_at(from), (mapping.page_at(to - 1) + 1).min(inside));
            }
        }
    }
    uses
}

/// Copies in steps until all is done, or a byte is met that is not ours to prepare.
fn copy(span: Span, write: bool, mut step: impl FnMut(usize) -> usize) -> usize {
    let (mut done, mut tries) = (0, 0);
    let cuts = cuts(&[span]);
    while done < span.length {
        let more = step(done);
        done += more;
        tries = if more == 0 { tries + 1 } else { 0 };
        if more == 0 && cuts != self::cuts(&[span]) {
            break;
        }
        wait_for_a_harvest(tries);
        let rest = Span { at: span.at + done, length: span.length - done };
        let ours = touches(Span { length: rest.length.min(1), ..rest });
        if done == span.length || tries == TRIES || !ours || reachable(rest, write) == 0 {
            break;
        }
        if prepare(rest, write).is_err() {
            break;
        }
    }
    done
}

/// How often the files that spans show were cut. A byte that lay behind the end of its file for a moment of a call can't be had by the
/// kernel's own account, and whoever cuts a file again and again must not be waited for.
fn cuts(spans: &[Span]) -> u64 {
    let Some(runtime) = runtime_if_started() else { return 0 };
    let shown = spans.iter().flat_map(|span| runtime.mappings.overlapping(span.at, span.end()));
    shown.map(|mapping| handle(mapping.handle).region.cache.control().cuts.load(Ordering::SeqCst)).sum()
}

fn wait_for_a_harvest(tries: u32) {
    if tries > TRIES_AT_ONCE {
        crate::sys::futex::pause(Duration::from_millis(1));
    }
}

/// Copies bytes of the program in; how many, up to the first that can't be read.
pub fn load(at: usize, into: &mut [u8]) -> usize {
    copy(Span { at, length: into.len() }, false, |done| app::copy_in(at + done, &mut into[done..]))
}

/// Copies bytes out to the program; how many, up to the first that can't be stored.
pub fn store(at: usize, from: &[u8]) -> usize {
    copy(Span { at, length: from.len() }, true, |done| app::copy_out(at + done, &from[done..]))
}

/// A 32-bit number of the program's, 0 if it can't be read: the length behind a `socklen_t *`.
pub fn word(at: usize) -> usize {
    let mut bytes = [0; 4];
    if at != 0 && load(at, &mut bytes) == 4 { u32::from_ne_bytes(bytes) as usize } else { 0 }
}

/// An I/O vector of the program's. EFAULT as the kernel says it, EINVAL for a count that it refuses.
pub fn vectors(at: *const iovec, count: i32) -> Result<Vec<Span>, Errno> {
    let count = usize::try_from(count).ok().filter(|count| *count <= 1024).ok_or(Errno(libc::EINVAL))?;
    let mut bytes = vec![0; count * size_of::<iovec>()];
    if load(at as usize, &mut bytes) != bytes.len() {
        return Err(Errno(libc::EFAULT));
    }
    let number = |bytes: &[u8]| bytes.try_into().map_or(0, usize::from_ne_bytes);
    let spans: Vec<Span> = bytes
        .chunks_exact(size_of::<iovec>())
        .map(|one| Span { at: number(&one[..8]), length: number(&one[8..]) })
        .collect();
    if spans.iter().any(|span| span.length > isize::MAX as usize) {
        return Err(Errno(libc::EINVAL));
    }
    Ok(spans)
}

/// Makes a call with spans as the kernel wants them; a few need no memory.
pub fn with_vectors<R>(spans: &[Span], make: impl FnOnce(&[iovec]) -> R) -> R {
    let one = |span: &Span| iovec { iov_base: span.at as *mut _, iov_len: span.length };
    let mut few = [iovec { iov_base: core::ptr::null_mut(), iov_len: 0 }; 8];
    if spans.len() > few.len() {
        return make(&spans.iter().map(one).collect::<Vec<_>>());
    }
    for (to, span) in few.iter_mut().zip(spans) {
        *to = one(span);
    }
    make(&few[..spans.len()])
}

/// Makes the pages of a path readable, so that the kernel can read it wherever it lies.
pub fn path_ready(path: *const c_char) {
    let whole = Span::new(path, PATH_BYTES);
    if idle() || !touches(whole) {
        return;
    }
    let mut at = whole.at;
    let mut bytes = [0; 256];
    while at < whole.end() {
        let length = (PAGE - at % PAGE).min(bytes.len());
        if load(at, &mut bytes[..length]) < length || bytes[..length].contains(&0) {
            return;
        }
        at += length;
    }
}

/// The buffers of one call that go over private memory: structs, addresses, strings.
pub struct Bounce {
    slots: Vec<Slot>,
}

struct Slot {
    at: usize,
    bytes: Private,
    /// What an output held before the call.
    before: Option<Private>,
}

impl Bounce {
    /// None yet.
    pub const fn new() -> Self {
        Bounce { slots: Vec::new() }
    }

    /// What the kernel is to read: the pointer itself, or that of a copy. A buffer that can't be read stays as it is: the
    /// kernel says EFAULT, or something else that it sees first.
    pub fn input<T>(&mut self, at: *const T, length: impl FnOnce() -> usize) -> *const T {
        self.take(at as usize, length, false) as *const T
    }

    /// The same for a string, its zero included.
    pub fn string<T>(&mut self, at: *const T, length: impl FnOnce() -> usize) -> *const T {
        path_ready(at.cast());
        let _ = length;
        at
    }

    /// What the kernel is to fill, or to read and change.
    pub fn output<T>(&mut self, at: *mut T, length: impl FnOnce() -> usize) -> *mut T {
        self.take(at as usize, length, true) as *mut T
    }

    fn take(&mut self, at: usize, length: impl FnOnce() -> usize, write: bool) -> usize {
        // No struct, nor a vector of them, is longer; its length may have to be read from the program.
        if at == 0 || !touches(Span { at, length: 1 << 20 }) {
            return at;
        }
        let span = Span { at, length: length() };
        if !touches(span) || reachable(span, write) < span.length {
            return at;
        }
        let Some(mut bytes) = Private::new(span.length) else { return at };
        if load(at, bytes.slice()) < span.length {
            return at;
        }
        let mut before = None;
        if write {
            let Some(mut copy) = Private::new(span.length) else { return at };
            copy.slice().copy_from_slice(bytes.slice());
            before = Some(copy);
        }
        let here = bytes.address();
        self.slots.push(Slot { at, bytes, before });
        here
    }

    /// Gives the program what the kernel stored: the bytes that changed and no others, so that what another thread stores
    /// beside them stays.
    pub fn finish(mut self) {
        for slot in &mut self.slots {
            let Some(before) = slot.before.as_mut() else { continue };
            let (before, after) = (before.slice(), slot.bytes.slice());
            let mut from = 0;
            while let Some(start) = (from..after.len()).find(|i| before[*i] != after[*i]) {
                let end = (start..after.len()).find(|i| before[*i] == after[*i]).unwrap_or(after.len());
                store(slot.at + start, &after[start..end]);
                from = end;
            }
        }
    }
}

/// A call with one buffer that it fills.
pub fn filled<T, R>(into: *mut T, length: usize, make: impl FnOnce(*mut T) -> R) -> R {
    if idle() {
        return make(into);
    }
    let mut bounce = Bounce::new();
    let mine = bounce.output(into, || length);
    let result = make(mine);
    bounce.finish();
    result
}

/// A call with one buffer that it reads.
pub fn given<T, R>(from: *const T, length: usize, make: impl FnOnce(*const T) -> R) -> R {
    if idle() {
        return make(from);
    }
    let mut bounce = Bounce::new();
    make(bounce.input(from, || length))
}

/// What a descriptor makes of a call that asks for less.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The rest is there for the next call.
    Regular,
    /// The rest is there, and the next call may have to wait for it.
    Stream,
    /// The rest of the message is lost.
    Message,
}

/// The kind of a descriptor that is not ours.
pub fn kind_of(number: i32) -> Kind {
    use rustix::fs::FileType;
    let fd = crate::sys::fd::borrow(number);
    match rustix::fs::fstat(fd).map(|stat| FileType::from_raw_mode(stat.st_mode)) {
        Ok(FileType::RegularFile) => Kind::Regular,
        Ok(FileType::Socket) => match rustix::net::sockopt::socket_type(fd) {
            Ok(rustix::net::SocketType::STREAM) => Kind::Stream,
            _ => Kind::Message,
        },
        _ => Kind::Stream,
    }
}

/// Puts bytes that came where the program wants them, from `skip` bytes on; how many went.
pub fn scatter(spans: &[Span], mut skip: usize, mut bytes: &[u8]) -> usize {
    let mut done = 0;
    for span in spans {
        let behind = skip.min(span.length);
        skip -= behind;
        let (now, rest) = bytes.split_at((span.length - behind).min(bytes.len()));
        let stored = store(span.at + behind, now);
        done += stored;
        if stored < now.len() || rest.is_empty() {
            break;
        }
        bytes = rest;
    }
    done
}

/// Bytes that all spans can take, up to the first that can't.
fn room(spans: &[Span], write: bool) -> usize {
    let mut room = 0usize;
    for span in spans {
        let reached = reachable(*span, write);
        room = room.saturating_add(reached);
        if reached < span.length {
            break;
        }
    }
    room
}

fn total(spans: &[Span]) -> usize {
    spans.iter().fold(0, |sum: usize, span| sum.saturating_add(span.length)).min(super::file::RW_BYTES_MAX)
}

/// What a call is made with: buffers, and how many bytes of the whole came before.
pub struct Step<'a> {
    /// The buffers.
    pub vectors: &'a [iovec],
    /// Bytes that earlier steps moved.
    pub done: usize,
}

/// A call that fills buffers with as many bytes as it returns, none of which may get lost on the way.
pub fn fill(
    spans: &[Span],
    kind: impl FnOnce() -> Kind,
    mut make: impl FnMut(Step<'_>) -> Result<usize, Errno>,
) -> Result<usize, Errno> {
    let usable = if spans.iter().any(|span| touches(*span)) { room(spans, true) } else { 0 };
    if usable == 0 {
        // Not concerned, or EFAULT by the kernel.
        return with_vectors(spans, |vectors| make(Step { vectors, done: 0 }));
    }
    let kind = kind();
    let wanted = if kind == Kind::Message { total(spans) } else { usable.min(total(spans)) };
    let piece = if kind == Kind::Regular { wanted.min(PIECE) } else { wanted };
    let mut bytes = Private::new(piece).ok_or(Errno(libc::ENOMEM))?;
    let mut done = 0;
    loop {
        let asked = piece.min(wanted - done);
        let came = match make(Step { vectors: &[bytes.vector(asked)], done }) {
            Err(errno) if done == 0 => return Err(errno),
            Err(_) => return Ok(done),
            Ok(came) => came,
        };
        let stored = scatter(spans, done, &bytes.slice()[..came.min(asked)]);
        done += stored;
        if stored < came.min(asked) {
            // A message that does not fit where it shall go is lost, and the kernel says so.
            return if done == 0 || kind == Kind::Message { Err(Errno(libc::EFAULT)) } else { Ok(done) };
        }
        if came < asked || kind != Kind::Regular || done == wanted {
            // A message may have been longer than what there was room for, and say so (MSG_TRUNC).
            return Ok(if kind == Kind::Message { came } else { done });
        }
    }
}

/// A call that reads buffers. What a load may reach stays reachable once it was prepared, so nothing is copied; a call that still
/// ends with EFAULT took nothing, and is made again.
pub fn drain(
    spans: &[Span],
    kind: impl FnOnce() -> Kind,
    mut make: impl FnMut(Step<'_>) -> Result<usize, Errno>,
) -> Result<usize, Errno> {
    if !spans.iter().any(|span| touches(*span)) {
        return with_vectors(spans, |vectors| make(Step { vectors, done: 0 }));
    }
    // B2: what was made readable stays so, and here, while the call lasts.
    let _here = bring_in(spans);
    let (kind, wanted) = (kind(), total(spans).min(room(spans, false)));
    let (mut done, mut tries) = (0, 0);
    let cuts = cuts(spans);
    loop {
        let rest = behind(spans, done);
        for span in &rest {
            prepare(*span, false)?;
        }
        match with_vectors(&rest, |vectors| make(Step { vectors, done })) {
            Err(Errno(libc::EFAULT)) if done < wanted && tries < TRIES && cuts == self::cuts(spans) => {
                tries += 1;
                wait_for_a_harvest(tries);
            }
            Err(errno) => return if done == 0 { Err(errno) } else { Ok(done) },
            Ok(0) => return Ok(done),
            Ok(went) => {
                done += went;
                // A write to a regular file is short for a page that went in between, or for the last time.
                if kind != Kind::Regular || done >= wanted {
                    return Ok(done);
                }
            }
        }
    }
}

/// Spans without their first bytes.
pub fn behind(spans: &[Span], mut skip: usize) -> Vec<Span> {
    let mut rest = Vec::with_capacity(spans.len());
    for span in spans {
        let gone = skip.min(span.length);
        skip -= gone;
        if gone == 0 || gone < span.length {
            rest.push(Span { at: span.at + gone, length: span.length - gone });
        }
    }
    rest
}

/// A call on words that the kernel looks at and changes where they are (futexes): they are made ready, and the call is made again
/// if it found them protected, since it has done nothing then.
pub fn on_words(
    words: &[usize],
    write: bool,
    mut make: impl FnMut() -> Result<usize, Errno>,
) -> Result<usize, Errno> {
    let spans = || words.iter().map(|word| Span { at: *word, length: 4 }).filter(|span| touches(*span));
    let mut tries = 0;
    loop {
        for span in spans() {
            prepare(span, write)?;
        }
        match make() {
            Err(Errno(libc::EFAULT)) if tries < TRIES && spans().all(|span| reachable(span, write) == 4) => {
                tries += 1;
                wait_for_a_harvest(tries);
                if spans().next().is_none() {
                    return Err(Errno(libc::EFAULT));
                }
            }
            result => return result,
        }
    }
}

/// Gathers what spans hold; false if a byte of it can't be read.
pub fn gather(spans: &[Span], mut into: &mut [u8]) -> bool {
    for span in spans {
        let (now, rest) = into.split_at_mut(span.length.min(into.len()));
        if load(span.at, now) < now.len() {
            return false;
        }
        into = rest;
    }
    true
}
