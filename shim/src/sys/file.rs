//! Files of our own, by raw system calls.
//!
//! Owns: small helpers over rustix. Called by: sys::shm, host, config readers. Must not: be used on the program's
//! descriptors where a signal may interrupt: these retry.

use rustix::fs::{Mode, OFlags};
use rustix::io::retry_on_intr;

use super::errno::Errno;
use super::fd::OwnFd;
use super::syscall::call;

/// Opens with CLOEXEC, high. A file that is made gets exactly `mode`, whatever the program's umask: it is ours.
pub fn open(path: &str, flags: OFlags, mode: u32) -> Result<OwnFd, Errno> {
    let fd = retry_on_intr(|| rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::from_raw_mode(mode)))?;
    if flags.contains(OFlags::CREATE) {
        let _ = rustix::fs::fchmod(&fd, Mode::from_raw_mode(mode));
    }
    Ok(OwnFd::from_rustix(fd))
}

/// Does something with a file of ours while its owner may read and write it; its mode is the same afterwards.
pub fn with_access<T>(path: &str, body: impl FnOnce() -> Result<T, Errno>) -> Result<T, Errno> {
    let mode = Mode::from_raw_mode(rustix::fs::stat(path)?.st_mode & 0o7777);
    rustix::fs::chmod(path, mode | Mode::RUSR | Mode::WUSR)?;
    let result = body();
    rustix::fs::chmod(path, mode)?;
    result
}

/// A whole small file.
pub fn read_whole(path: &str) -> Result<Vec<u8>, Errno> {
    let fd = open(path, OFlags::RDONLY, 0)?;
    let mut out = Vec::new();
    // On the heap: this may run on a small alternate signal stack.
    let mut buffer = vec![0u8; 4096];
    loop {
        let got = retry_on_intr(|| rustix::io::read(fd.borrow(), &mut buffer[..]))?;
        if got == 0 {
            return Ok(out);
        }
        out.extend_from_slice(&buffer[..got]);
    }
}

/// Replaces a small file.
pub fn write_whole(path: &str, bytes: &[u8]) -> Result<(), Errno> {
    let fd = open(path, OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC, 0o600)?;
    write_at(&fd, bytes, 0)
}

/// Adds to the end of a small file.
pub fn append_whole(path: &str, bytes: &[u8]) -> Result<(), Errno> {
    let fd = open(path, OFlags::WRONLY | OFlags::CREATE | OFlags::APPEND, 0o644)?;
    super::fd::write_all(fd.raw(), bytes);
    Ok(())
}

/// Reads at an offset; behind the end of the file there are zeros.
pub fn read_at(fd: &OwnFd, buffer: &mut [u8], offset: u64) -> Result<(), Errno> {
    let mut done = 0;
    while done < buffer.len() {
        let got =
            retry_on_intr(|| rustix::io::pread(fd.borrow(), &mut buffer[done..], offset + done as u64))?;
        if got == 0 {
            buffer[done..].fill(0);
            return Ok(());
        }
        done += got;
    }
    Ok(())
}

/// Writes all bytes at an offset.
pub fn write_at(fd: &OwnFd, bytes: &[u8], offset: u64) -> Result<(), Errno> {
    write_some(fd, bytes, offset).map_err(|(_, errno)| errno)
}

/// The same; an error comes with the number of bytes that were written before.
pub fn write_some(fd: &OwnFd, bytes: &[u8], offset: u64) -> Result<(), (usize, Errno)> {
    let mut done = 0;
    while done < bytes.len() {
        done += retry_on_intr(|| rustix::io::pwrite(fd.borrow(), &bytes[done..], offset + done as u64))
            .map_err(|errno| (done, errno.into()))?;
    }
    Ok(())
}

/// truncate(2).
pub fn truncate(path: &str, size: u64) -> Result<(), Errno> {
    let path = std::ffi::CString::new(path).map_err(|_| Errno(libc::EINVAL))?;
    // SAFETY: the path is a C string.
    unsafe { call(libc::SYS_truncate, [path.as_ptr() as usize, size as usize, 0, 0, 0, 0]) }.map(drop)
}

/// Takes the whole-file lock of this open file description, waiting for it. It goes with the descriptor.
pub fn lock_exclusive(fd: &OwnFd) -> Result<(), Errno> {
    Ok(retry_on_intr(|| rustix::fs::flock(fd.borrow(), rustix::fs::FlockOperation::LockExclusive))?)
}

/// The same, shared with others who share it.
pub fn lock_shared(fd: &OwnFd) -> Result<(), Errno> {
    Ok(retry_on_intr(|| rustix::fs::flock(fd.borrow(), rustix::fs::FlockOperation::LockShared))?)
}

/// Takes it if nobody has it.
pub fn try_lock_exclusive(fd: &OwnFd) -> bool {
    retry_on_intr(|| rustix::fs::flock(fd.borrow(), rustix::fs::FlockOperation::NonBlockingLockExclusive))
        .is_ok()
}

/// Gives it up.
pub fn unlock(fd: &OwnFd) {
    let _ = rustix::fs::flock(fd.borrow(), rustix::fs::FlockOperation::Unlock);
}

/// What a path leads to.
pub fn status(path: &str) -> Result<rustix::fs::Stat, Errno> {
    Ok(rustix::fs::stat(path)?)
}

/// Where a path leads, its symbolic links followed; the path itself if that can't be found out.
pub fn real_path(path: &core::ffi::CStr) -> String {
    let descriptor = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, rustix::fs::Mode::empty());
    let found = descriptor.ok().and_then(|fd| super::proc::descriptor_path(OwnFd::from_rustix(fd).raw()));
    found.unwrap_or_else(|| path.to_string_lossy().into_owned())
}

/// Whether a path is there.
pub fn exists(path: &str) -> bool {
    rustix::fs::lstat(path).is_ok()
}
