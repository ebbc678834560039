//! Error numbers as values, and the program's errno.
//!
//! Owns: [`Errno`]. Called by: everywhere. Must not: set the program's errno except where a hook returns an error.

/// A Linux error number, 1 to 4095.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Errno(pub i32);

impl From<rustix::io::Errno> for Errno {
    fn from(errno: rustix::io::Errno) -> Self {
        Errno(errno.raw_os_error())
    }
}

impl core::fmt::Display for Errno {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let name = match self.0 {
            libc::EPERM => "EPERM",
            libc::ENOENT => "ENOENT",
            libc::EIO => "EIO",
            libc::EBADF => "EBADF",
            libc::EAGAIN => "EAGAIN",
            libc::ENOMEM => "ENOMEM",
            libc::EACCES => "EACCES",
            libc::EFAULT => "EFAULT",
            libc::EBUSY => "EBUSY",
            libc::EEXIST => "EEXIST",
            libc::EINVAL => "EINVAL",
            libc::EMFILE => "EMFILE",
            libc::ENFILE => "ENFILE",
            libc::ENOSPC => "ENOSPC",
            libc::ENOSYS => "ENOSYS",
            libc::ESTALE => "ESTALE",
            libc::ETIMEDOUT => "ETIMEDOUT",
            _ => return write!(f, "errno {}", self.0),
        };
        f.write_str(name)
    }
}

/// Sets the program's errno.
pub fn set(errno: Errno) {
    // SAFETY: the location is the calling thread's own.
    unsafe { *libc::__errno_location() = errno.0 }
}

/// The program's errno, to be put back by [`set`] after a call into libc that was not the program's idea.
pub fn get() -> Errno {
    // SAFETY: as above.
    Errno(unsafe { *libc::__errno_location() })
}
