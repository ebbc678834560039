//! Bytes in and out: read, write, and what copies between descriptors.
//!
//! Owns: the names below. Called by: the program. Must not: do more than convert and call an operation.

use super::*;

hook! {
    unsafe fn read(number: c_int, buffer: *mut c_void, length: size_t) -> ssize_t => nm_read {
        finish(file::at_position(number, Read, &[Span::new(buffer, length)], || sys3(libc::SYS_read, number, buffer as usize, length)), || real!(read)(number, buffer, length))
    }
}

hook! {
    unsafe fn pread(number: c_int, buffer: *mut c_void, length: size_t, offset: off_t) -> ssize_t => nm_pread {
        finish(file::at_offset(number, Read, &[Span::new(buffer, length)], offset, || sys4(libc::SYS_pread64, number, buffer as usize, length, offset)), || real!(pread)(number, buffer, length, offset))
    }
}

hook! {
    unsafe fn pread64(number: c_int, buffer: *mut c_void, length: size_t, offset: off_t) -> ssize_t => nm_pread64 {
        finish(file::at_offset(number, Read, &[Span::new(buffer, length)], offset, || sys4(libc::SYS_pread64, number, buffer as usize, length, offset)), || real!(pread64)(number, buffer, length, offset))
    }
}

hook! {
    unsafe fn readv(number: c_int, vectors: *const iovec, count: c_int) -> ssize_t => nm_readv {
        finish(file::at_position(number, Read, &spans(number, vectors, count), || sys3(libc::SYS_readv, number, vectors as usize, count as usize)), || real!(readv)(number, vectors, count))
    }
}

hook! {
    unsafe fn preadv(number: c_int, vectors: *const iovec, count: c_int, offset: off_t) -> ssize_t => nm_preadv {
        finish(file::at_offset(number, Read, &spans(number, vectors, count), offset, || sys4(libc::SYS_preadv, number, vectors as usize, count as usize, offset)), || real!(preadv)(number, vectors, count, offset))
    }
}

hook! {
    unsafe fn preadv64(number: c_int, vectors: *const iovec, count: c_int, offset: off_t) -> ssize_t => nm_preadv64 {
        finish(file::at_offset(number, Read, &spans(number, vectors, count), offset, || sys4(libc::SYS_preadv, number, vectors as usize, count as usize, offset)), || real!(preadv64)(number, vectors, count, offset))
    }
}

hook! {
    unsafe fn preadv2(number: c_int, vectors: *const iovec, count: c_int, offset: off_t, flags: c_int) -> ssize_t => nm_preadv2 {
        finish(v2(number, Read, vectors, count, offset, flags), || real!(preadv2)(number, vectors, count, offset, flags))
    }
}

hook! {
    unsafe fn preadv64v2(number: c_int, vectors: *const iovec, count: c_int, offset: off_t, flags: c_int) -> ssize_t => nm_preadv64v2 {
        finish(v2(number, Read, vectors, count, offset, flags), || real!(preadv64v2)(number, vectors, count, offset, flags))
    }
}

hook! {
    unsafe fn write(number: c_int, buffer: *const c_void, length: size_t) -> ssize_t => nm_write {
        finish(file::at_position(number, Write, &[Span::new(buffer, length)], || sys3(libc::SYS_write, number, buffer as usize, length)), || real!(write)(number, buffer, length))
    }
}

hook! {
    unsafe fn pwrite(number: c_int, buffer: *const c_void, length: size_t, offset: off_t) -> ssize_t => nm_pwrite {
        finish(file::at_offset(number, Write, &[Span::new(buffer, length)], offset, || sys4(libc::SYS_pwrite64, number, buffer as usize, length, offset)), || real!(pwrite)(number, buffer, length, offset))
    }
}

hook! {
    unsafe fn pwrite64(number: c_int, buffer: *const c_void, length: size_t, offset: off_t) -> ssize_t => nm_pwrite64 {
        finish(file::at_offset(number, Write, &[Span::new(buffer, length)], offset, || sys4(libc::SYS_pwrite64, number, buffer as usize, length, offset)), || real!(pwrite64)(number, buffer, length, offset))
    }
}

hook! {
    unsafe fn writev(number: c_int, vectors: *const iovec, count: c_int) -> ssize_t => nm_writev {
        finish(file::at_position(number, Write, &spans(number, vectors, count), || sys3(libc::SYS_writev, number, vectors as usize, count as usize)), || real!(writev)(number, vectors, count))
    }
}

hook! {
    unsafe fn pwritev(number: c_int, vectors: *const iovec, count: c_int, offset: off_t) -> ssize_t => nm_pwritev {
        finish(file::at_offset(number, Write, &spans(number, vectors, count), offset, || sys4(libc::SYS_pwritev, number, vectors as usize, count as usize, offset)), || real!(pwritev)(number, vectors, count, offset))
    }
}

hook! {
    unsafe fn pwritev64(number: c_int, vectors: *const iovec, count: c_int, offset: off_t) -> ssize_t => nm_pwritev64 {
        finish(file::at_offset(number, Write, &spans(number, vectors, count), offset, || sys4(libc::SYS_pwritev, number, vectors as usize, count as usize, offset)), || real!(pwritev64)(number, vectors, count, offset))
    }
}

hook! {
    unsafe fn pwritev2(number: c_int, vectors: *const iovec, count: c_int, offset: off_t, flags: c_int) -> ssize_t => nm_pwritev2 {
        finish(v2(number, Write, vectors, count, offset, flags), || real!(pwritev2)(number, vectors, count, offset, flags))
    }
}

hook! {
    unsafe fn pwritev64v2(number: c_int, vectors: *const iovec, count: c_int, offset: off_t, flags: c_int) -> ssize_t => nm_pwritev64v2 {
        finish(v2(number, Write, vectors, count, offset, flags), || real!(pwritev64v2)(number, vectors, count, offset, flags))
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
        finish(transfer::send_file(to, End { number: from, offset: offset as usize }, length), || real!(sendfile)(to, from, offset, length))
    }
}

hook! {
    unsafe fn sendfile64(to: c_int, from: c_int, offset: *mut off_t, length: size_t) -> ssize_t => nm_sendfile64 {
        finish(transfer::send_file(to, End { number: from, offset: offset as usize }, length), || real!(sendfile64)(to, from, offset, length))
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
    unsafe fn recvmsg(number: c_int, message: *mut libc::msghdr, flags: c_int) -> ssize_t => nm_recvmsg {
        links::received(message, real!(recvmsg)(number, message, flags))
    }
}
