//! Pages that go out of a file, with what they held at the very last.
//!
//! Owns: [`take_out`]. Called by: host::cache_file. Must not: copy a page before it is out: a store may fall in between.
//!
//! splice(2) hands a file's pages to a pipe as they are, without a copy. The pipe keeps them when the file has let go of them, and no
//! page table shows them any more: every store that was ever made through a mapping is in what is read from the pipe then.

use rustix::fs::FallocateFlags;
use rustix::io::retry_on_intr;
use rustix::pipe::{PipeFlags, SpliceFlags};

use super::errno::Errno;
use super::fd::OwnFd;
use super::mem::PAGE;

/// Takes pages out of a file, as many as fit into `into`, from `offset` on. Returns the bytes that went, whole pages but for the end of the
/// file; an error if none did.
pub fn take_out(file: &OwnFd, offset: u64, into: &mut [u8]) -> Result<usize, Errno> {
    let (out, pipe) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
    let (out, pipe) = (OwnFd::from_rustix(out), OwnFd::from_rustix(pipe));
    // Where that is refused, fewer go at a time.
    let _ = rustix::pipe::fcntl_setpipe_size(pipe.borrow(), into.len().max(PAGE));
    let (mut at, mut held) = (offset, 0);
    while held < into.len() {
        let most = into.len() - held;
        let moved = retry_on_intr(|| {
            rustix::pipe::splice(
                file.borrow(),
                Some(&mut at),
                pipe.borrow(),
                None,
                most,
                SpliceFlags::NONBLOCK,
            )
        });
        match moved {
            Ok(0) => break,
            Ok(bytes) => held += bytes,
            // The pipe is full.
            Err(_) if held > 0 => break,
            Err(errno) => return Err(errno.into()),
        }
    }
    if held == 0 {
        return Ok(0);
    }
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    let length = held.next_multiple_of(PAGE) as u64;
    retry_on_intr(|| rustix::fs::fallocate(file.borrow(), flags, offset, length))?;
    let mut done = 0;
    while done < held {
        match retry_on_intr(|| rustix::io::read(out.borrow(), &mut into[done..held]))? {
            0 => break,
            bytes => done += bytes,
        }
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::{PAGE, take_out};
    use crate::sys::fd::OwnFd;

    #[test]
    fn what_is_taken_out_is_what_it_was_and_leaves_a_hole() {
        let name = c"netmem-test-take-out";
        let file = OwnFd::from_rustix(
            rustix::fs::memfd_create(name, rustix::fs::MemfdFlags::CLOEXEC).expect("a file"),
        );
        let content: Vec<u8> = (0..3 * PAGE + 100).map(|at| (at / 64) as u8 | 1).collect();
        crate::sys::file::write_at(&file, &content, 0).expect("room");
        let mut taken = vec![0; 4 * PAGE];
        let got = take_out(&file, PAGE as u64, &mut taken).expect("pages");
        assert!(got == 2 * PAGE + 100 && taken[..got] == content[PAGE..]);
        let mut now = vec![1; content.len()];
        crate::sys::file::read_at(&file, &mut now, 0).expect("the rest");
        assert!(now[..PAGE] == content[..PAGE] && now[PAGE..].iter().all(|byte| *byte == 0));
        assert_eq!(take_out(&file, 8 * PAGE as u64, &mut taken), Ok(0));
    }
}
