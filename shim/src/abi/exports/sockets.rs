//! Sockets: what is sent and received.
//!
//! Owns: the names below. Called by: the program. Must not: do more than convert and call an operation.

use super::*;
use messages::Way;

/// A call whose buffer it fills, with a message or with what a stream has.
unsafe fn received_into(
    number: c_int,
    buffer: *mut c_void,
    length: size_t,
    make: impl Fn(*mut c_void, size_t) -> ssize_t,
) -> ssize_t {
    let span = Span::new(buffer, length);
    if buffers::idle() || !buffers::touches(span) {
        return make(buffer, length);
    }
    let moved = buffers::fill(
        &[span],
        || buffers::kind_of(number),
        |step| of_libc(make(step.vectors[0].iov_base, step.vectors[0].iov_len)),
    );
    finish(moved.map(|length| length as ssize_t).map_err(Exit::from), || -1)
}

/// A call whose buffer it reads.
unsafe fn sent_from(
    number: c_int,
    buffer: *const c_void,
    length: size_t,
    make: impl Fn(*const c_void, size_t) -> ssize_t,
) -> ssize_t {
    let span = Span::new(buffer, length);
    if buffers::idle() || !buffers::touches(span) {
        return make(buffer, length);
    }
    let moved = buffers::drain(
        &[span],
        || buffers::kind_of(number),
        |step| of_libc(make(step.vectors[0].iov_base, step.vectors[0].iov_len)),
    );
    finish(moved.map(|length| length as ssize_t).map_err(Exit::from), || -1)
}

hook! {
    unsafe fn recv(number: c_int, buffer: *mut c_void, length: size_t, flags: c_int) -> ssize_t => nm_recv {
        received_into(number, buffer, length, |buffer, length| real!(recv)(number, buffer, length, flags))
    }
}

hook! {
    unsafe fn __recv_chk(number: c_int, buffer: *mut c_void, length: size_t, room: size_t, flags: c_int) -> ssize_t => nm___recv_chk {
        if length > room { return real!(__recv_chk)(number, buffer, length, room, flags) }
        nm_recv(number, buffer, length, flags)
    }
}

hook! {
    unsafe fn recvfrom(number: c_int, buffer: *mut c_void, length: size_t, flags: c_int, address: *mut c_void, size: *mut u32) -> ssize_t => nm_recvfrom {
        if buffers::idle() { return real!(recvfrom)(number, buffer, length, flags, address, size) }
        let mut bounce = Bounce::new();
        let address = bounce.output(address, || buffers::word(size as usize));
        let size = bounce.output(size, || 4);
        let result = received_into(number, buffer, length, |buffer, length| real!(recvfrom)(number, buffer, length, flags, address, size));
        bounce.finish();
        result
    }
}

hook! {
    unsafe fn __recvfrom_chk(number: c_int, buffer: *mut c_void, length: size_t, room: size_t, flags: c_int, address: *mut c_void, size: *mut u32) -> ssize_t => nm___recvfrom_chk {
        if length > room { return real!(__recvfrom_chk)(number, buffer, length, room, flags, address, size) }
        nm_recvfrom(number, buffer, length, flags, address, size)
    }
}

hook! {
    unsafe fn recvmsg(number: c_int, message: *mut libc::msghdr, flags: c_int) -> ssize_t => nm_recvmsg {
        links::received(message, messages::one(message, Way::In, |message| real!(recvmsg)(number, message, flags)))
    }
}

hook! {
    unsafe fn recvmmsg(number: c_int, vector: *mut libc::mmsghdr, count: c_uint, flags: c_int, limit: *mut c_void) -> c_int => nm_recvmmsg {
        let result = buffers::filled(limit, 16, |limit| messages::many(vector, count, Way::In, |vector, count| real!(recvmmsg)(number, vector, count, flags, limit)));
        for i in 0..result.max(0) as usize {
            links::received(&raw const (*vector.add(i)).msg_hdr, 0);
        }
        result
    }
}

hook! {
    unsafe fn send(number: c_int, buffer: *const c_void, length: size_t, flags: c_int) -> ssize_t => nm_send {
        sent_from(number, buffer, length, |buffer, length| real!(send)(number, buffer, length, flags))
    }
}

hook! {
    unsafe fn sendto(number: c_int, buffer: *const c_void, length: size_t, flags: c_int, address: *const c_void, size: u32) -> ssize_t => nm_sendto {
        buffers::given(address, size as usize, |address| sent_from(number, buffer, length, |buffer, length| real!(sendto)(number, buffer, length, flags, address, size)))
    }
}

hook! {
    unsafe fn sendmsg(number: c_int, message: *const libc::msghdr, flags: c_int) -> ssize_t => nm_sendmsg {
        messages::one(message.cast_mut(), Way::Out, |message| real!(sendmsg)(number, message, flags))
    }
}

hook! {
    unsafe fn sendmmsg(number: c_int, vector: *mut libc::mmsghdr, count: c_uint, flags: c_int) -> c_int => nm_sendmmsg {
        messages::many(vector, count, Way::Out, |vector, count| real!(sendmmsg)(number, vector, count, flags))
    }
}
