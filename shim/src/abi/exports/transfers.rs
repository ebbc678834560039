//! Bytes in and out: read, write, and what copies between descriptors.
//!
//! Owns: the names below. Called by: the program. Must not: do more than convert and call an operation.

use super::*;

/// A transfer, at an offset or the descriptor's own: ours by a raw call, another's by libc's function if its buffers need care,
/// else not ours.
pub(super) unsafe fn moved(
    number: c_int,
    direction: file::Direction,
    spans: &[Span],
    at: Option<off_t>,
    flags: c_int,
) -> Outcome<ssize_t> {
    let behind = |done: usize| at.map_or(-1, |at| at + done as off_t);
    let raw = |step: Step<'_>| {
        let (vectors, count) = (step.vectors.as_ptr() as usize, step.vectors.len());
        let offset = behind(step.done) as usize;
        if let ([one], 0) = (step.vectors, flags) {
            let system_call = match (direction, at) {
                (Read | ReadOnce, None) => libc::SYS_read,
                (Write, None) => libc::SYS_write,
                (Read | ReadOnce, Some(_)) => libc::SYS_pread64,
                (Write, Some(_)) => libc::SYS_pwrite64,
            };
            return call(system_call, [number as usize, one.iov_base as usize, one.iov_len, offset, 0, 0]);
        }
        let system_call = match (direction, at) {
            (Read | ReadOnce, None) if flags == 0 => libc::SYS_readv,
            (Write, None) if flags == 0 => libc::SYS_writev,
            (Read | ReadOnce, Some(_)) if flags == 0 => libc::SYS_preadv,
            (Write, Some(_)) if flags == 0 => libc::SYS_pwritev,
            (Read | ReadOnce, _) => libc::SYS_preadv2,
            (Write, _) => libc::SYS_pwritev2,
        };
        call(system_call, [number as usize, vectors, count, offset, 0, flags as usize])
    };
    let outcome = match at {
        None => file::at_position(number, (direction, flags), spans, raw),
        Some(at) => file::at_offset(number, (direction, flags), spans, at, raw),
    };
    if !matches!(outcome, Err(Exit::Pass(_)))
        || buffers::idle()
        || !spans.iter().any(|span| buffers::touches(*span))
    {
        return outcome;
    }
    let libcs = |step: Step<'_>| {
        let (vectors, count, offset) =
            (step.vectors.as_ptr(), step.vectors.len() as c_int, behind(step.done));
        of_libc(match (direction, at) {
            (Read | ReadOnce, None) if flags == 0 => real!(readv)(number, vectors, count),
            (Write, None) if flags == 0 => real!(writev)(number, vectors, count),
            (Read | ReadOnce, Some(_)) if flags == 0 => real!(preadv64)(number, vectors, count, offset),
            (Write, Some(_)) if flags == 0 => real!(pwritev64)(number, vectors, count, offset),
            (Read | ReadOnce, _) => real!(preadv64v2)(number, vectors, count, offset, flags),
            (Write, _) => real!(pwritev64v2)(number, vectors, count, offset, flags),
        })
    };
    Ok(file::foreign(number, direction, spans, at.is_none(), libcs)? as ssize_t)
}

unsafe fn moved_vectors(
    number: c_int,
    direction: file::Direction,
    vectors: *const iovec,
    count: c_int,
    at: Option<off_t>,
    flags: c_int,
) -> Outcome<ssize_t> {
    if file::is_plain(number) {
        return Err(super::super::outcome::NOT_OURS);
    }
    // What can't be read or counted is the kernel's to refuse.
    match buffers::vectors(vectors, count) {
        Ok(spans) => moved(number, direction, &spans, at, flags),
        Err(_) => Err(super::super::outcome::NOT_OURS),
    }
}

hook! {
    unsafe fn read(number: c_int, buffer: *mut c_void, length: size_t) -> ssize_t => nm_read {
        finish(moved(number, Read, &[Span::new(buffer, length)], None, 0), || real!(read)(number, buffer, length))
    }
}

hook! {
    unsafe fn pread(number: c_int, buffer: *mut c_void, length: size_t, offset: off_t) -> ssize_t => nm_pread {
        finish(moved(number, Read, &[Span::new(buffer, length)], Some(offset), 0), || real!(pread)(number, buffer, length, offset))
    }
}

hook! {
    unsafe fn pread64(number: c_int, buffer: *mut c_void, length: size_t, offset: off_t) -> ssize_t => nm_pread64 {
        finish(moved(number, Read, &[Span::new(buffer, length)], Some(offset), 0), || real!(pread64)(number, buffer, length, offset))
    }
}

hook! {
    unsafe fn readv(number: c_int, vectors: *const iovec, count: c_int) -> ssize_t => nm_readv {
        finish(moved_vectors(number, Read, vectors, count, None, 0), || real!(readv)(number, vectors, count))
    }
}

hook! {
    unsafe fn preadv(number: c_int, vectors: *const iovec, count: c_int, offset: off_t) -> ssize_t => nm_preadv {
        finish(moved_vectors(number, Read, vectors, count, Some(offset), 0), || real!(preadv)(number, vectors, count, offset))
    }
}

hook! {
    unsafe fn preadv64(number: c_int, vectors: *const iovec, count: c_int, offset: off_t) -> ssize_t => nm_preadv64 {
        finish(moved_vectors(number, Read, vectors, count, Some(offset), 0), || real!(preadv64)(number, vectors, count, offset))
    }
}

hook! {
    unsafe fn preadv2(number: c_int, vectors: *const iovec, count: c_int, offset: off_t, flags: c_int) -> ssize_t => nm_preadv2 {
        finish(moved_vectors(number, Read, vectors, count, (offset != -1).then_some(offset), flags), || real!(preadv2)(number, vectors, count, offset, flags))
    }
}

hook! {
    unsafe fn preadv64v2(number: c_int, vectors: *const iovec, count: c_int, offset: off_t, flags: c_int) -> ssize_t => nm_preadv64v2 {
        finish(moved_vectors(number, Read, vectors, count, (offset != -1).then_some(offset), flags), || real!(preadv64v2)(number, vectors, count, offset, flags))
    }
}

hook! {
    unsafe fn write(number: c_int, buffer: *const c_void, length: size_t) -> ssize_t => nm_write {
        finish(moved(number, Write, &[Span::new(buffer, length)], None, 0), || real!(write)(number, buffer, length))
    }
}

hook! {
    unsafe fn pwrite(number: c_int, buffer: *const c_void, length: size_t, offset: off_t) -> ssize_t => nm_pwrite {
        finish(moved(number, Write, &[Span::new(buffer, length)], Some(offset), 0), || real!(pwrite)(number, buffer, length, offset))
    }
}

hook! {
    unsafe fn pwrite64(number: c_int, buffer: *const c_void, length: size_t, offset: off_t) -> ssize_t => nm_pwrite64 {
        finish(moved(number, Write, &[Span::new(buffer, length)], Some(offset), 0), || real!(pwrite64)(number, buffer, length, offset))
    }
}

hook! {
    unsafe fn writev(number: c_int, vectors: *const iovec, count: c_int) -> ssize_t => nm_writev {
        finish(moved_vectors(number, Write, vectors, count, None, 0), || real!(writev)(number, vectors, count))
    }
}

hook! {
    unsafe fn pwritev(number: c_int, vectors: *const iovec, count: c_int, offset: off_t) -> ssize_t => nm_pwritev {
        finish(moved_vectors(number, Write, vectors, count, Some(offset), 0), || real!(pwritev)(number, vectors, count, offset))
    }
}

hook! {
    unsafe fn pwritev64(number: c_int, vectors: *const iovec, count: c_int, offset: off_t) -> ssize_t => nm_pwritev64 {
        finish(moved_vectors(number, Write, vectors, count, Some(offset), 0), || real!(pwritev64)(number, vectors, count, offset))
    }
}

hook! {
    unsafe fn pwritev2(number: c_int, vectors: *const iovec, count: c_int, offset: off_t, flags: c_int) -> ssize_t => nm_pwritev2 {
        finish(moved_vectors(number, Write, vectors, count, (offset != -1).then_some(offset), flags), || real!(pwritev2)(number, vectors, count, offset, flags))
    }
}

hook! {
    unsafe fn pwritev64v2(number: c_int, vectors: *const iovec, count: c_int, offset: off_t, flags: c_int) -> ssize_t => nm_pwritev64v2 {
        finish(moved_vectors(number, Write, vectors, count, (offset != -1).then_some(offset), flags), || real!(pwritev64v2)(number, vectors, count, offset, flags))
    }
}

hook! {
    unsafe fn __read_chk(number: c_int, buffer: *mut c_void, length: size_t, room: size_t) -> ssize_t => nm___read_chk {
        if length > room { return real!(__read_chk)(number, buffer, length, room) }
        nm_read(number, buffer, length)
    }
}

hook! {
    unsafe fn __pread_chk(number: c_int, buffer: *mut c_void, length: size_t, offset: off_t, room: size_t) -> ssize_t => nm___pread_chk {
        if length > room { return real!(__pread_chk)(number, buffer, length, offset, room) }
        nm_pread(number, buffer, length, offset)
    }
}

hook! {
    unsafe fn __pread64_chk(number: c_int, buffer: *mut c_void, length: size_t, offset: off_t, room: size_t) -> ssize_t => nm___pread64_chk {
        if length > room { return real!(__pread64_chk)(number, buffer, length, offset, room) }
        nm_pread(number, buffer, length, offset)
    }
}

hook! {
    unsafe fn sendfile(to: c_int, from: c_int, offset: *mut off_t, length: size_t) -> ssize_t => nm_sendfile {
        buffers::filled(offset, 8, |offset| finish(transfer::send_file(to, End { number: from, offset: offset as usize }, length), || real!(sendfile)(to, from, offset, length)))
    }
}

hook! {
    unsafe fn sendfile64(to: c_int, from: c_int, offset: *mut off_t, length: size_t) -> ssize_t => nm_sendfile64 {
        buffers::filled(offset, 8, |offset| finish(transfer::send_file(to, End { number: from, offset: offset as usize }, length), || real!(sendfile64)(to, from, offset, length)))
    }
}

hook! {
    unsafe fn copy_file_range(from: c_int, from_offset: *mut off_t, to: c_int, to_offset: *mut off_t, length: size_t, flags: c_uint) -> ssize_t => nm_copy_file_range {
        finish(transfer::copy_range(
                End { number: from, offset: from_offset as usize },
                End { number: to, offset: to_offset as usize },
                length,
                flags,
            ), || real!(copy_file_range)(from, from_offset, to, to_offset, length, flags))
    }
}

hook! {
    unsafe fn splice(from: c_int, from_offset: *mut off_t, to: c_int, to_offset: *mut off_t, length: size_t, flags: c_uint) -> ssize_t => nm_splice {
        buffers::filled(from_offset, 8, |from_offset| buffers::filled(to_offset, 8, |to_offset| finish(transfer::splice(
                End { number: from, offset: from_offset as usize },
                End { number: to, offset: to_offset as usize },
                length,
                flags,
            ), || real!(splice)(from, from_offset, to, to_offset, length, flags))))
    }
}
