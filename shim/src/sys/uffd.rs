//! userfaultfd, its ioctls and its messages.
//!
//! Owns: the structures of linux/userfaultfd.h. Called by: engine, far. Must not: decide what to install.

use super::errno::Errno;
use super::fd::OwnFd;
use super::mem::PAGE;
use super::syscall::call;

pub mod memory;

/// Faults are reported for pages that are missing.
pub const MODE_MISSING: u64 = 1;
/// Faults are reported, or with WP_ASYNC noted, for writes to protected pages.
pub const MODE_WP: u64 = 2;

const FEATURE_PAGEFAULT_FLAG_WP: u64 = 1;
const FEATURE_MISSING_SHMEM: u64 = 1 << 5;
const FEATURE_SIGBUS: u64 = 1 << 7;
const FEATURE_THREAD_ID: u64 = 1 << 8;
const FEATURE_WP_HUGETLBFS_SHMEM: u64 = 1 << 12;
const FEATURE_POISON: u64 = 1 << 14;
const FEATURE_WP_ASYNC: u64 = 1 << 15;

const API_VERSION: u64 = 0xaa;
const USER_MODE_ONLY: usize = 1;

const IOCTL_API: usize = 0xc018_aa3f;
const IOCTL_REGISTER: usize = 0xc020_aa00;
const IOCTL_UNREGISTER: usize = 0x8010_aa01;
const IOCTL_WAKE: usize = 0x8010_aa02;
const IOCTL_COPY: usize = 0xc028_aa03;
const COPY_DONT_WAKE: u64 = 1;
const COPY_PROTECTED: u64 = 2;
const IOCTL_WRITEPROTECT: usize = 0xc018_aa06;
const IOCTL_POISON: usize = 0xc020_aa08;
/// USERFAULTFD_IOC_NEW on /dev/userfaultfd (Linux 6.1).
const IOCTL_NEW: usize = 0xaa00;

const EVENT_PAGEFAULT: u8 = 0x12;

/// What a descriptor can do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// Write protection of shared memory, missing pages included.
    pub wp_shmem: bool,
    /// Writes are noted without a message.
    pub wp_async: bool,
    /// Pages can be made to give SIGBUS.
    pub poison: bool,
    /// A fault is SIGBUS for the thread that takes it, and no message (Linux 4.14).
    pub sigbus: bool,
    /// A message names the thread that faulted (Linux 4.14).
    pub thread_id: bool,
}

/// A userfaultfd.
pub struct Uffd {
    fd: OwnFd,
    /// What was agreed.
    pub features: Features,
}

/// A fault that someone waits in.
#[derive(Clone, Copy, Debug)]
pub struct Message {
    /// The page that was touched, rounded down.
    pub address: usize,
    /// Whether it was a store to a protected page rather than a touch of a missing one.
    pub write_protect: bool,
    /// The thread, if that was asked for; else 0.
    pub thread: u32,
}

#[repr(C)]
#[derive(Default)]
struct Api {
    api: u64,
    features: u64,
    ioctls: u64,
}

#[repr(C)]
struct Register {
    start: u64,
    length: u64,
    mode: u64,
    ioctls: u64,
}

#[repr(C)]
struct Copy {
    to: u64,
    from: u64,
    length: u64,
    mode: u64,
    copied: i64,
}

/// A message is 32 bytes: event 1, padding 7, then for a fault flags 8, address 8, thread 4.
const MESSAGE_BYTES: usize = 32;
/// Messages taken in one read.
pub const MESSAGES_MAX: usize = 16;

impl Uffd {
    /// Opens one. With `kernel_faults` touches inside system calls are served too: by /dev/userfaultfd if it can be opened,
    /// else by the system call, which wants CAP_SYS_PTRACE or vm.unprivileged_userfaultfd.
    pub fn open(kernel_faults: bool, want: Features) -> Result<Uffd, Errno> {
        let supported = Self::probe(kernel_faults)?;
        let features = Features {
            wp_shmem: want.wp_shmem && supported & FEATURE_WP_HUGETLBFS_SHMEM != 0,
            wp_async: want.wp_async && supported & FEATURE_WP_ASYNC != 0,
            poison: want.poison && supported & FEATURE_POISON != 0,
            sigbus: want.sigbus && supported & FEATURE_SIGBUS != 0,
            thread_id: want.thread_id && supported & FEATURE_THREAD_ID != 0,
        };
        if supported & FEATURE_MISSING_SHMEM == 0 {
            return Err(Errno(libc::EOPNOTSUPP));
        }
        let fd = Self::new_fd(kernel_faults)?;
        set_blocking(&fd, true)?;
        let mut api = Api { api: API_VERSION, features: FEATURE_MISSING_SHMEM, ioctls: 0 };
        if features.wp_shmem {
            api.features |= FEATURE_PAGEFAULT_FLAG_WP | FEATURE_WP_HUGETLBFS_SHMEM;
            if features.wp_async {
                api.features |= FEATURE_WP_ASYNC;
            }
        }
        if features.poison {
            api.features |= FEATURE_POISON;
        }
        if features.thread_id {
            api.features |= FEATURE_THREAD_ID;
        }
        if features.sigbus {
            api.features |= FEATURE_SIGBUS;
        }
        ioctl(&fd, IOCTL_API, &mut api)?;
        Ok(Uffd { fd, features })
    }

    fn probe(kernel_faults: bool) -> Result<u64, Errno> {
        // A descriptor's API is agreed once, so asking costs one of its own.
        let fd = Self::new_fd(kernel_faults)?;
        let mut api = Api { api: API_VERSION, ..Api::default() };
        ioctl(&fd, IOCTL_API, &mut api)?;
        Ok(api.features)
    }

    fn new_fd(kernel_faults: bool) -> Result<OwnFd, Errno> {
        let flags = (libc::O_CLOEXEC | libc::O_NONBLOCK) as usize;
        if kernel_faults {
            let device = c"/dev/userfaultfd".as_ptr() as usize;
            let open = [libc::AT_FDCWD as usize, device, (libc::O_RDWR | libc::O_CLOEXEC) as usize, 0, 0, 0];
            // SAFETY: the path is a C string; the ioctl takes flags by value.
            let made = unsafe {
                call(libc::SYS_openat, open).and_then(|device| {
                    let made = call(libc::SYS_ioctl, [device, IOCTL_NEW, flags, 0, 0, 0]);
                    super::fd::close_raw(device as i32);
                    made
                })
            };
            if let Ok(fd) = made {
                return Ok(OwnFd::adopt(fd as i32));
            }
        }
        let mode = if kernel_faults { flags } else { flags | USER_MODE_ONLY };
        // SAFETY: flags by value.
        let fd = unsafe { call(libc::SYS_userfaultfd, [mode, 0, 0, 0, 0, 0])? };
        Ok(OwnFd::adopt(fd as i32))
    }

    /// In a forked child, which has the number and must not use it: what its parent's userfaultfd says is for its parent.
    pub fn close_in_child(&self) {
        super::fd::forget(self.fd.raw());
        super::fd::close_raw(self.fd.raw());
    }

    /// The descriptor's number.
    pub fn raw(&self) -> i32 {
        self.fd.raw()
    }

    /// From now on touches of missing pages in the range wait for us.
    pub fn register(&self, at: usize, length: usize, mode: u64) -> Result<(), Errno> {
        let mut arg = Register { start: at as u64, length: length as u64, mode, ioctls: 0 };
        ioctl(&self.fd, IOCTL_REGISTER, &mut arg)
    }

    /// No longer; whoever waits goes on, and reads zeros.
    pub fn unregister(&self, at: usize, length: usize) -> Result<(), Errno> {
        ioctl(&self.fd, IOCTL_UNREGISTER, &mut [at as u64, length as u64])
    }

    /// Lets those who wait in the range look again.
    pub fn wake(&self, at: usize, length: usize) -> Result<(), Errno> {
        ioctl(&self.fd, IOCTL_WAKE, &mut [at as u64, length as u64])
    }

    /// Installs `from` at `to` in one step, protected, and wakes whoever waits there unless that is left to [`Self::wake`]. Returns how
    /// many bytes came in; an error is that of the first page that did not.
    pub fn copy(&self, to: usize, from: &[u8], wake: bool) -> (usize, Option<Errno>) {
        let mut arg = Copy {
            to: to as u64,
            from: from.as_ptr() as u64,
            length: from.len() as u64,
            mode: COPY_PROTECTED | if wake { 0 } else { COPY_DONT_WAKE },
            copied: 0,
        };
        match ioctl(&self.fd, IOCTL_COPY, &mut arg) {
            Ok(()) => (from.len(), None),
            Err(errno) => {
                let copied = usize::try_from(arg.copied).unwrap_or(0);
                (copied, Some(errno))
            }
        }
    }

    /// Arms (`protect`) or disarms the range; disarming wakes whoever waits to store there.
    ///
    /// Before Linux 6.3 the range must lie in one mapping of the kernel's, and advice, locks and protections of parts make
    /// several of one of ours: ENOENT, and nothing was armed (programs/split_mapping_keeps_stores). So it is halved until each
    /// part lies in one. What is registered in the range is armed in any case; an error is that of a part that is not.
    pub fn write_protect(&self, at: usize, length: usize, protect: bool) -> Result<(), Errno> {
        match ioctl(&self.fd, IOCTL_WRITEPROTECT, &mut [at as u64, length as u64, u64::from(protect)]) {
            Err(Errno(libc::ENOENT)) if length > PAGE => {
                let half = length / PAGE / 2 * PAGE;
                let first = self.write_protect(at, half, protect);
                self.write_protect(at + half, length - half, protect).and(first)
            }
            result => result,
        }
    }

    /// Makes touching the missing pages of the range a SIGBUS, until their page table entries are dropped. Wakes nobody.
    pub fn poison(&self, at: usize, length: usize) -> Result<(), Errno> {
        // An armed page has a marker, over which no other can be put. A private mapping was never armed: EINVAL or ENOENT.
        const DONT_WAKE: u64 = 2;
        let _ = ioctl(&self.fd, IOCTL_WRITEPROTECT, &mut [at as u64, length as u64, DONT_WAKE]);
        ioctl(&self.fd, IOCTL_POISON, &mut [at as u64, length as u64, 0, 0])
    }

    /// Whether [`Self::read`] waits. poll(2) gives POLLERR for a userfaultfd that is not O_NONBLOCK (fs/userfaultfd.c,
    /// userfaultfd_poll: by the flags it was made with, in newer kernels by those it has).
    pub fn set_blocking(&self, blocking: bool) -> Result<(), Errno> {
        set_blocking(&self.fd, blocking)
    }

    /// Waits for faults and hands them over.
    pub fn read(&self, into: &mut Vec<Message>) -> Result<(), Errno> {
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
                u64::from_ne_bytes(word)
            };
            if message[0] == EVENT_PAGEFAULT {
                into.push(Message {
                    address: word(16) as usize & !4095,
                    write_protect: word(8) & 2 != 0,
                    thread: word(24) as u32,
                });
            }
        }
        Ok(())
    }
}

fn set_blocking(fd: &OwnFd, blocking: bool) -> Result<(), Errno> {
    let flags = if blocking { 0 } else { libc::O_NONBLOCK } as usize;
    // SAFETY: by value.
    unsafe { call(libc::SYS_fcntl, [fd.raw() as usize, libc::F_SETFL as usize, flags, 0, 0, 0]) }.map(drop)
}

fn ioctl<T>(fd: &OwnFd, request: usize, arg: &mut T) -> Result<(), Errno> {
    // SAFETY: every request above is called with the structure that linux/userfaultfd.h gives it.
    unsafe { call(libc::SYS_ioctl, [fd.raw() as usize, request, arg as *mut T as usize, 0, 0, 0]) }.map(drop)
}
