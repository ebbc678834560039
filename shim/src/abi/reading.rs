//! Reads of our files: what the kernel copies out of a cache file is the data, whatever leaves the page cache meanwhile.
//!
//! Owns: [`read`]. Called by: file. Must not: return bytes of a page that was a hole while it was read.

use super::buffers::{self, Kind, Step};
use super::file::position;
use crate::host::{Handle, runtime_if_started};
use crate::sys::app::Span;
use crate::sys::errno::Errno;
use crate::sys::syscall::call;

/// How often pages are read without a word to those who take pages out.
const TRIES_BESIDE_DEPARTURES: u32 = 2;

/// What was read and found no place in the program's buffers is read again by the next call, as if the kernel had stopped there.
pub fn give_back(number: i32, before: u64, filled: usize) {
    let behind = before + filled as u64;
    if position(number).is_ok_and(|now| now > behind) {
        go_to(number, behind);
    }
}

fn go_to(number: i32, at: u64) {
    let _ =
        // SAFETY: by value.
        unsafe { call(libc::SYS_lseek, [number as usize, at as usize, libc::SEEK_SET as usize, 0, 0, 0]) };
}

/// Reads `range.1` bytes at `range.0`, which is where the descriptor `own` stands if one is named. In pieces, where not all of it can be
/// here at once; and a piece is read again if pages of it left meanwhile (E2).
pub fn read(
    handle: &Handle,
    own: Option<i32>,
    spans: &[Span],
    range: (u64, u64),
    make: impl Fn(Step<'_>) -> Result<usize, Errno>,
) -> Result<usize, Errno> {
    let (at, length) = range;
    let batch = runtime_if_started().map_or(u64::MAX, |runtime| runtime.budget.batch() * 4096);
    let mut done = 0;
    loop {
        let piece = if length - done <= batch { length - done } else { batch - (at + done) % 4096 };
        let came = read_piece(
            handle,
            own,
            spans,
            (at + done, piece),
            (done as usize, done + piece == length),
            &make,
        );
        let came = match came {
            Err(errno) if done == 0 => return Err(errno),
            Err(_) => return Ok(done as usize),
            Ok(came) => came as u64,
        };
        done += came;
        if came < piece || done == length {
            return Ok(done as usize);
        }
    }
}

fn read_piece(
    handle: &Handle,
    own: Option<i32>,
    spans: &[Span],
    (at, length): (u64, u64),
    (done, last): (usize, bool),
    make: &impl Fn(Step<'_>) -> Result<usize, Errno>,
) -> Result<usize, Errno> {
    let fill = || {
        if done == 0 && last {
            return buffers::fill(spans, || Kind::Regular, make);
        }
        let part = part(spans, done, length as usize);
        buffers::fill(
            &part,
            || Kind::Regular,
            |step: Step<'_>| make(Step { vectors: step.vectors, done: done + step.done }),
        )
    };
    let (mut tries, mut they_stay) = (0, None);
    loop {
        tries += 1;
        if tries > TRIES_BESIDE_DEPARTURES && they_stay.is_none() {
            // Where pages come and go all the time, they would never all be here (E3).
            they_stay = Some(handle.using(at, length)?);
        }
        let before = handle.departures(at, length);
        if !handle.is_here(at, length)? {
            handle.bring_in_for_read(at, length)?;
            continue;
        }
        let came = fill();
        if they_stay.is_some() || handle.departures(at, length) == before {
            return came;
        }
        if let Some(own) = own {
            go_to(own, at);
        }
    }
}

/// The bytes from `skip` on, `length` of them.
fn part(spans: &[Span], skip: usize, length: usize) -> Vec<Span> {
    let mut rest = length;
    let mut part = buffers::behind(spans, skip);
    for span in &mut part {
        span.length = span.length.min(rest);
        rest -= span.length;
    }
    part.retain(|span| span.length != 0);
    part
}
