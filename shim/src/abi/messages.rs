//! sendmsg, recvmsg and their kin, whose argument is a struct of pointers to buffers.
//!
//! Owns: copies of message headers, and what they point to. Called by: exports. Must not: lose a byte of what was received.

use core::mem::offset_of;

use libc::{iovec, mmsghdr, msghdr};

use super::buffers::{self, Bounce, scatter};
use super::private::Private;
use crate::sys::app::Span;
use crate::sys::errno::{self, Errno};

/// Messages in one call at the most (UIO_MAXIOV).
const MESSAGES_MAX: usize = 1024;

/// Which way the bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// sendmsg.
    Out,
    /// recvmsg.
    In,
}

/// A message of the program's, in memory that the kernel can reach.
struct Message {
    at: usize,
    header: msghdr,
    bounce: Bounce,
    spans: Vec<Span>,
    vectors: Vec<iovec>,
    /// What is received first comes here.
    payload: Option<Private>,
}

impl Message {
    /// `None` if the header or its vector can't be read, or counts too much: the kernel's to refuse.
    fn open(at: usize, way: Way) -> Option<Message> {
        let header: msghdr = read(at)?;
        let count = i32::try_from(header.msg_iovlen).ok()?;
        let spans = buffers::vectors(header.msg_iov, count).ok()?;
        let payload = None;
        let mut message = Message { at, header, bounce: Bounce::new(), spans, vectors: Vec::new(), payload };
        let (name, name_length) = (header.msg_name, header.msg_namelen as usize);
        let (control, control_length) = (header.msg_control, header.msg_controllen);
        let bounce = &mut message.bounce;
        if way == Way::In {
            message.header.msg_name = bounce.output(name, || name_length);
            message.header.msg_control = bounce.output(control, || control_length);
        } else {
            message.header.msg_name = bounce.input(name, || name_length).cast_mut();
            message.header.msg_control = bounce.input(control, || control_length).cast_mut();
        }
        let total = message.spans.iter().fold(0usize, |sum, span| sum.saturating_add(span.length));
        if message.spans.iter().any(|span| buffers::touches(*span)) {
            let mut payload = Private::new(total.min(super::file::RW_BYTES_MAX))?;
            if way == Way::Out && !buffers::gather(&message.spans, payload.slice()) {
                return None;
            }
            message.vectors.push(payload.vector(total));
            message.payload = Some(payload);
        } else {
            let one = |span: &Span| iovec { iov_base: span.at as *mut _, iov_len: span.length };
            message.vectors.extend(message.spans.iter().map(one));
        }
        Some(message)
    }

    /// The header for the kernel. The message must not move until the call is over.
    fn header(&mut self) -> msghdr {
        self.header.msg_iov = self.vectors.as_mut_ptr();
        self.header.msg_iovlen = self.vectors.len() as _;
        self.header
    }

    /// Gives the program what came: `length` bytes, and what the kernel wrote into the header. EFAULT if some of it has no place.
    fn close(mut self, after: &msghdr, length: usize) -> Result<(), Errno> {
        let mut placed = Ok(());
        if let Some(payload) = &mut self.payload {
            let bytes = payload.slice();
            let bytes = &bytes[..length.min(bytes.len())];
            if scatter(&self.spans, 0, bytes) < bytes.len() {
                placed = Err(Errno(libc::EFAULT));
            }
        }
        self.bounce.finish();
        write(self.at + offset_of!(msghdr, msg_namelen), &after.msg_namelen.to_ne_bytes())?;
        write(self.at + offset_of!(msghdr, msg_controllen), &after.msg_controllen.to_ne_bytes())?;
        write(self.at + offset_of!(msghdr, msg_flags), &after.msg_flags.to_ne_bytes())?;
        placed
    }
}

fn read<T>(at: usize) -> Option<T> {
    let mut value = core::mem::MaybeUninit::<T>::zeroed();
    // SAFETY: zeroed memory of that size; T is one of libc's structs of integers and pointers, for which any bytes do.
    unsafe {
        let bytes = core::slice::from_raw_parts_mut(value.as_mut_ptr().cast::<u8>(), size_of::<T>());
        (buffers::load(at, bytes) == size_of::<T>()).then(|| value.assume_init())
    }
}

fn write(at: usize, bytes: &[u8]) -> Result<(), Errno> {
    if buffers::store(at, bytes) == bytes.len() { Ok(()) } else { Err(Errno(libc::EFAULT)) }
}

/// Whether any part of a message may lie in memory that needs care.
fn concerned(at: usize) -> bool {
    if buffers::touches(Span { at, length: size_of::<msghdr>() }) {
        return true;
    }
    let Some(header) = read::<msghdr>(at) else { return false };
    let touches = |at: usize, length: usize| buffers::touches(Span { at, length });
    touches(header.msg_name as usize, header.msg_namelen as usize)
        || touches(header.msg_control as usize, header.msg_controllen)
        || touches(header.msg_iov as usize, header.msg_iovlen.saturating_mul(size_of::<iovec>()))
        || i32::try_from(header.msg_iovlen).is_ok_and(|count| {
            buffers::vectors(header.msg_iov, count)
                .is_ok_and(|spans| spans.iter().any(|span| buffers::touches(*span)))
        })
}

/// sendmsg(2) and recvmsg(2).
pub fn one(at: *mut msghdr, way: Way, make: impl Fn(*mut msghdr) -> isize) -> isize {
    if buffers::idle() || !concerned(at as usize) {
        return make(at);
    }
    let Some(mut message) = Message::open(at as usize, way) else { return make(at) };
    let mut header = message.header();
    let result = make(&raw mut header);
    if result < 0 || way == Way::Out {
        return result;
    }
    match message.close(&header, result as usize) {
        Ok(()) => result,
        Err(errno) => {
            errno::set(errno);
            -1
        }
    }
}

/// sendmmsg(2) and recvmmsg(2).
pub fn many(at: *mut mmsghdr, count: u32, way: Way, make: impl Fn(*mut mmsghdr, u32) -> i32) -> i32 {
    const SIZE: usize = size_of::<mmsghdr>();
    let place = |i: usize| at as usize + i * SIZE;
    let wanted = (count as usize).min(MESSAGES_MAX);
    if buffers::idle() || !(0..wanted).any(|i| concerned(place(i))) {
        return make(at, count);
    }
    let mut messages: Vec<Message> = (0..wanted).map_while(|i| Message::open(place(i), way)).collect();
    if messages.is_empty() {
        return make(at, count);
    }
    let mut headers: Vec<mmsghdr> =
        messages.iter_mut().map(|message| mmsghdr { msg_hdr: message.header(), msg_len: 0 }).collect();
    let result = make(headers.as_mut_ptr(), headers.len() as u32);
    for (i, (message, header)) in messages.into_iter().zip(&headers).take(result.max(0) as usize).enumerate()
    {
        let length = header.msg_len;
        let placed = match way {
            Way::In => message.close(&header.msg_hdr, length as usize),
            Way::Out => Ok(()),
        };
        let noted = write(place(i) + offset_of!(mmsghdr, msg_len), &length.to_ne_bytes());
        if let Err(errno) = placed.and(noted) {
            if i == 0 {
                errno::set(errno);
                return -1;
            }
            return i as i32;
        }
    }
    result
}
