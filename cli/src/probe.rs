//! What the kernel does when it is asked: userfaultfd, its features, PAGEMAP_SCAN, guard pages, capabilities of files.
//!
//! Owns: the system calls that no library wraps, and their structures. Called by: `doctor.rs`, `target.rs`. Must not:
//! judge what an answer means, leave a descriptor or a mapping behind, or touch memory that it did not map itself.

#![allow(unsafe_code)]

use std::ffi::{CString, OsStr};
use std::fs::File;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr::NonNull;

use nix::errno::Errno;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};

const PAGE: usize = netmem_protocol::PAGE_SIZE;

/// `UFFD_USER_MODE_ONLY`: faults of the kernel are not reported.
const UFFD_USER_MODE_ONLY: libc::c_int = 1;
/// `USERFAULTFD_IOC_NEW`, `_IO(0xAA, 0x00)`.
const USERFAULTFD_IOC_NEW: libc::Ioctl = 0xAA00;
/// `UFFDIO_API`, `_IOWR(0xAA, 0x3F, struct uffdio_api)`, 24 bytes.
const UFFDIO_API: libc::Ioctl = 0xC018_AA3F_u32 as libc::Ioctl;
/// `UFFD_API`.
const UFFD_API: u64 = 0xAA;
/// `PAGEMAP_SCAN`, `_IOWR('f', 16, struct pm_scan_arg)`, 96 bytes.
const PAGEMAP_SCAN: libc::Ioctl = 0xC060_6610_u32 as libc::Ioctl;
/// `PAGE_IS_PRESENT`.
const PAGE_IS_PRESENT: u64 = 1 << 3;
/// `MADV_GUARD_INSTALL`, Linux 6.13.
const MADV_GUARD_INSTALL: libc::c_int = 102;

/// The features that netmem can use, as `<linux/userfaultfd.h>` numbers them.
pub const UFFD_FEATURES: [(&str, u64); 12] = [
    ("PAGEFAULT_FLAG_WP", 1 << 0),
    ("MISSING_SHMEM", 1 << 5),
    ("SIGBUS", 1 << 7),
    ("THREAD_ID", 1 << 8),
    ("MINOR_SHMEM", 1 << 10),
    ("EXACT_ADDRESS", 1 << 11),
    ("WP_HUGETLBFS_SHMEM", 1 << 12),
    ("WP_UNPOPULATED", 1 << 13),
    ("POISON", 1 << 14),
    ("WP_ASYNC", 1 << 15),
    ("MOVE", 1 << 16),
    ("EVENT_FORK", 1 << 1),
];

/// What a userfaultfd can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UffdFeatures(pub u64);

impl UffdFeatures {
    /// Whether it has the feature of this name in [`UFFD_FEATURES`].
    pub fn has(self, name: &str) -> bool {
        UFFD_FEATURES.iter().any(|(known, bit)| *known == name && self.0 & bit != 0)
    }

    /// The names of those it has.
    pub fn names(self) -> Vec<&'static str> {
        UFFD_FEATURES.iter().filter(|(_, bit)| self.0 & bit != 0).map(|(name, _)| *name).collect()
    }
}

/// The features of the descriptor that `/dev/userfaultfd` gives, with kernel faults.
pub fn uffd_of_device() -> Result<UffdFeatures, Errno> {
    let device = File::options()
        .read(true)
        .write(true)
        .open("/dev/userfaultfd")
        .map_err(|e| Errno::from_raw(e.raw_os_error().unwrap_or(libc::EIO)))?;
    let flags = libc::O_CLOEXEC | libc::O_NONBLOCK;
    // SAFETY: the descriptor is open; USERFAULTFD_IOC_NEW takes its flags by value and touches no memory of ours.
    let raw = Errno::result(unsafe { libc::ioctl(device.as_raw_fd(), USERFAULTFD_IOC_NEW, flags) })?;
    // SAFETY: the kernel has just made this descriptor for us and nobody else knows it.
    features(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// The features of the descriptor that the system call gives, with or without `UFFD_USER_MODE_ONLY`.
pub fn uffd_of_syscall(user_mode_only: bool) -> Result<UffdFeatures, Errno> {
    let mode = if user_mode_only { UFFD_USER_MODE_ONLY } else { 0 };
    let flags = libc::O_CLOEXEC | libc::O_NONBLOCK | mode;
    // SAFETY: userfaultfd takes its flags by value and touches no memory of ours.
    let raw = Errno::result(unsafe { libc::syscall(libc::SYS_userfaultfd, flags) })?;
    // SAFETY: the kernel has just made this descriptor for us and nobody else knows it.
    features(unsafe { OwnedFd::from_raw_fd(raw as libc::c_int) })
}

/// Asked for no features, the kernel answers with all that it has.
fn features(uffd: OwnedFd) -> Result<UffdFeatures, Errno> {
    #[repr(C)]
    struct UffdioApi {
        api: u64,
        features: u64,
        ioctls: u64,
    }
    let mut api = UffdioApi { api: UFFD_API, features: 0, ioctls: 0 };
    // SAFETY: UFFDIO_API reads and writes 24 bytes, which is what `api` is, live and exclusively ours for the call.
    Errno::result(unsafe { libc::ioctl(uffd.as_raw_fd(), UFFDIO_API, &raw mut api) })?;
    Ok(UffdFeatures(api.features))
}

/// A page that is mapped for one probe.
struct Page(NonNull<libc::c_void>);

impl Page {
    fn anonymous() -> Result<Page, Errno> {
        let length = NonZeroUsize::MIN.saturating_add(PAGE - 1);
        // SAFETY: a new private mapping at an address of the kernel's choice; it overlays nothing.
        unsafe {
            mmap_anonymous(None, length, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_PRIVATE)
        }
        .map(Page)
    }

    fn shared(file: impl AsFd) -> Result<Page, Errno> {
        let length = NonZeroUsize::MIN.saturating_add(PAGE - 1);
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new shared mapping at an address of the kernel's choice; it overlays nothing.
        unsafe { mmap(None, length, protection, MapFlags::MAP_SHARED, file, 0) }.map(Page)
    }

    fn guard(&self) -> Result<(), Errno> {
        // SAFETY: the range is exactly our own page; nobody has a reference into it, so that it may stop being
        // accessible. Kernels without the advice answer EINVAL.
        Errno::result(unsafe { libc::madvise(self.0.as_ptr(), PAGE, MADV_GUARD_INSTALL) }).map(drop)
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // SAFETY: made by `anonymous` or `shared` with this length, unmapped once, and no pointer into it is left. It
        // can't fail for a range that is mapped.
        let _ = unsafe { munmap(self.0, PAGE) };
    }
}

/// Whether `ioctl(PAGEMAP_SCAN)` works on this process's own pagemap.
pub fn pagemap_scan() -> Result<(), Errno> {
    /// `struct pm_scan_arg`: size, flags, start, end, walk_end, vec, vec_len, max_pages, category_inverted,
    /// category_mask, category_anyof_mask, return_mask.
    const WORDS: usize = 12;
    let pagemap = File::open("/proc/self/pagemap")
        .map_err(|e| Errno::from_raw(e.raw_os_error().unwrap_or(libc::EIO)))?;
    let page = Page::anonymous()?;
    let start = page.0.as_ptr() as u64;
    // One `struct page_region`: start, end, categories.
    let mut found = [0u64; 3];
    let vector = found.as_mut_ptr() as u64;
    let mut argument: [u64; WORDS] = [0; WORDS];
    argument[0] = (WORDS * 8) as u64;
    argument[2] = start;
    argument[3] = start + PAGE as u64;
    argument[5] = vector;
    argument[6] = 1;
    argument[9] = PAGE_IS_PRESENT;
    argument[11] = PAGE_IS_PRESENT;
    // SAFETY: the kernel reads and writes the 96 bytes of `argument` and writes at most one region, 24 bytes, to
    // `found`; both outlive the call. The scan has no write-protect flag, so it changes nothing.
    Errno::result(unsafe { libc::ioctl(pagemap.as_raw_fd(), PAGEMAP_SCAN, argument.as_mut_ptr()) }).map(drop)
}

/// Whether guard pages can be put into shared file memory.
pub fn guard_shared() -> Result<(), Errno> {
    let memfd = memfd_create("netmem-doctor", MFdFlags::MFD_CLOEXEC)?;
    nix::unistd::ftruncate(&memfd, PAGE as i64)?;
    Page::shared(&memfd)?.guard()
}

/// Whether guard pages can be put into private anonymous memory.
pub fn guard_anonymous() -> Result<(), Errno> {
    Page::anonymous()?.guard()
}

/// Whether a file carries capabilities.
pub fn has_capabilities(path: &Path) -> bool {
    let attribute = c"security.capability";
    let Ok(path) = CString::new(OsStr::as_bytes(path.as_os_str())) else { return false };
    // SAFETY: both strings end with NUL and live through the call; with a length of 0 the kernel writes nothing to the
    // buffer, so that it may be null.
    unsafe { libc::getxattr(path.as_ptr(), attribute.as_ptr(), std::ptr::null_mut(), 0) > 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_probe_ends_with_an_answer_or_an_errno() {
        let answers = [pagemap_scan(), guard_shared(), guard_anonymous(), uffd_of_syscall(true).map(drop)];
        for answer in answers {
            let refused =
                [Errno::EPERM, Errno::EACCES, Errno::ENOSYS, Errno::EINVAL, Errno::ENOTTY, Errno::ENOENT];
            assert!(answer.is_ok() || refused.contains(&answer.unwrap_err()), "{answer:?}");
        }
    }

    #[test]
    fn features_are_told_by_name() {
        let features = UffdFeatures(1 << 15 | 1 << 5);
        assert_eq!(features.names(), ["MISSING_SHMEM", "WP_ASYNC"]);
        assert!(features.has("WP_ASYNC") && !features.has("POISON") && !features.has("no such feature"));
    }

    #[test]
    fn an_ordinary_file_has_no_capabilities() {
        assert!(!has_capabilities(Path::new("/proc/self/exe")));
        assert!(!has_capabilities(Path::new("/no/such/file")));
    }
}
