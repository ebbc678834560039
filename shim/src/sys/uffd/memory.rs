//! userfaultfd for anonymous memory: pages are moved out and back, and the kernel tells what becomes of addresses.
//!
//! Owns: the ioctls and messages that shared mappings need not. Called by: far. Must not: decide which page goes.
//!
//! Until a message about addresses has been read, `UFFDIO_MOVE` and `UFFDIO_COPY` are EAGAIN (fs/userfaultfd.c, mmap_changing): nothing
//! is moved or installed by what was true before.

use super::{
    API_VERSION, Api, Copy, EVENT_PAGEFAULT, FEATURE_POISON, IOCTL_API, IOCTL_COPY, MESSAGE_BYTES,
    MESSAGES_MAX, Uffd, ioctl, set_blocking,
};
use crate::sys::errno::Errno;
use crate::sys::syscall::call;

const FEATURE_EVENT_REMAP: u64 = 1 << 2;
const FEATURE_EVENT_REMOVE: u64 = 1 << 3;
const FEATURE_EVENT_UNMAP: u64 = 1 << 6;
/// Linux 6.8.
const FEATURE_MOVE: u64 = 1 << 16;

const IOCTL_MOVE: usize = 0xc028_aa05;
const IOCTL_CONTINUE: usize = 0xc020_aa07;

const EVENT_REMAP: u8 = 0x14;
const EVENT_REMOVE: u8 = 0x15;
const EVENT_UNMAP: u8 = 0x16;

/// What a descriptor for anonymous memory says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Somebody waits for a page.
    Fault {
        /// The page, rounded down.
        address: usize,
    },
    /// The program gives up what the range holds, and is about to drop it (MADV_DONTNEED, MADV_FREE).
    Removed {
        /// First byte.
        start: usize,
        /// First byte behind.
        end: usize,
    },
    /// The range is mapped no more; something else may be there already.
    Unmapped {
        /// First byte.
        start: usize,
        /// First byte behind.
        end: usize,
    },
    /// mremap(2) moved the pages, and the registration with them.
    Moved {
        /// Where they were.
        from: usize,
        /// Where they are.
        to: usize,
        /// Bytes.
        length: usize,
    },
}

impl Uffd {
    /// One that serves the kernel's faults too and tells of changes. EOPNOTSUPP where pages can't be moved (before Linux 6.8).
    pub fn open_for_memory() -> Result<Uffd, Errno> {
        let supported = Self::probe(true)?;
        let events = FEATURE_EVENT_REMAP | FEATURE_EVENT_REMOVE | FEATURE_EVENT_UNMAP;
        let wanted = events | FEATURE_MOVE | FEATURE_POISON;
        if supported & wanted != wanted {
            return Err(Errno(libc::EOPNOTSUPP));
        }
        let fd = Self::new_fd(true)?;
        set_blocking(&fd, false)?;
        let mut api = Api { api: API_VERSION, features: wanted, ioctls: 0 };
        ioctl(&fd, IOCTL_API, &mut api)?;
        Ok(Uffd { fd, features: super::Features { poison: true, ..Default::default() } })
    }

    /// Moves pages with what they hold; who touches one afterwards waits. Returns how many bytes were moved; an error is that of the
    /// first page that was not.
    pub fn move_pages(&self, to: usize, from: usize, length: usize) -> (usize, Option<Errno>) {
        let mut arg = Copy { to: to as u64, from: from as u64, length: length as u64, mode: 0, copied: 0 };
        let result = ioctl(&self.fd, IOCTL_MOVE, &mut arg);
        told(arg.copied, length, result)
    }

    /// Installs pages that can be stored into, and wakes whoever waits.
    pub fn fill(&self, to: usize, from: usize, length: usize) -> (usize, Option<Errno>) {
        let mut arg = Copy { to: to as u64, from: from as u64, length: length as u64, mode: 0, copied: 0 };
        let result = ioctl(&self.fd, IOCTL_COPY, &mut arg);
        told(arg.copied, length, result)
    }

    /// Whether a message about addresses is on its way.
    pub fn is_changing(&self) -> bool {
        // The kernel looks at that first, and finds out only then that there is nothing to do.
        matches!(self.fill(0, 0, 0), (_, Some(Errno(libc::EAGAIN))))
    }

    /// Whether the range lies in one mapping, and touches of its missing pages come here; None while a message about addresses is on its way.
    pub fn covers(&self, at: usize, length: usize) -> Option<bool> {
        // There is nothing to continue in anonymous memory: EINVAL once all else was found to be right (mm/userfaultfd.c, mfill_atomic).
        let mut arg = [at as u64, length as u64, 0, 0];
        match ioctl(&self.fd, IOCTL_CONTINUE, &mut arg) {
            Err(Errno(libc::EAGAIN)) => None,
            result => Some(result == Err(Errno(libc::EINVAL))),
        }
    }

    /// Whether there is something to read.
    pub fn has_events(&self) -> bool {
        let fd = crate::sys::fd::borrow(self.fd.raw());
        let mut fds = [rustix::event::PollFd::new(&fd, rustix::event::PollFlags::IN)];
        let now = rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 };
        rustix::event::poll(&mut fds, Some(&now)).is_ok_and(|count| count > 0)
    }

    /// What has arrived; EAGAIN for nothing.
    pub fn read_events(&self, into: &mut Vec<Event>) -> Result<(), Errno> {
        let mut buffer = [0u8; MESSAGE_BYTES * MESSAGES_MAX];
        // SAFETY: the buffer is live and as long as said.
        let got = unsafe {
            call(
                libc::SYS_read,
                [self.fd.raw() as usize, buffer.as_mut_ptr() as usize, buffer.len(), 0, 0, 0],
            )?
        };
        for message in buffer[..got].chunks_exact(MESSAGE_BYTES) {
            let word = |at: usize| {
                let mut word = [0; 8];
                word.copy_from_slice(&message[at..at + 8]);
                u64::from_ne_bytes(word) as usize
            };
            into.push(match message[0] {
                EVENT_PAGEFAULT => Event::Fault { address: word(16) & !4095 },
                EVENT_REMOVE => Event::Removed { start: word(8), end: word(16) },
                EVENT_UNMAP => Event::Unmapped { start: word(8), end: word(16) },
                EVENT_REMAP => Event::Moved { from: word(8), to: word(16), length: word(24) },
                _ => continue,
            });
        }
        Ok(())
    }
}

/// How far an ioctl came: the kernel says so, or the errno again, in the structure's last word.
fn told(done: i64, length: usize, result: Result<(), Errno>) -> (usize, Option<Errno>) {
    match result {
        Ok(()) => (length, None),
        Err(errno) => (usize::try_from(done).unwrap_or(0), Some(errno)),
    }
}
