//! Which pages were written, and which are there: `PAGEMAP_SCAN` (Linux 6.7) on our own page tables and on those of living peers.
//!
//! Owns: the ioctl. Called by: engine::uffd, the harvest of peers, far. Must not: take WRITTEN for dirty: whatever is not
//! armed reads as written, absent pages included (DESIGN.md, dirty pages).

use super::errno::Errno;
use super::fd::OwnFd;
use super::mem::PAGE;
use super::syscall::call;

const IOCTL_SCAN: usize = 0xc060_6610;
const WP_MATCHING: u64 = 1;
const CHECK_WPASYNC: u64 = 2;
const PAGE_IS_WRITTEN: u64 = 1 << 1;
const PAGE_IS_FILE: u64 = 1 << 2;
const PAGE_IS_PRESENT: u64 = 1 << 3;
const PAGE_IS_PFNZERO: u64 = 1 << 5;
/// Regions taken from the kernel in one call.
const REGIONS_MAX: usize = 512;

#[repr(C)]
struct Scan {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    regions: u64,
    regions_len: u64,
    pages_max: u64,
    category_inverted: u64,
    category_mask: u64,
    category_anyof_mask: u64,
    return_mask: u64,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Region {
    start: u64,
    end: u64,
    categories: u64,
}

/// Some process's page tables.
pub struct Pagemap(OwnFd);

impl Pagemap {
    /// `/proc/PID/pagemap`, or our own for `None`.
    pub fn open(pid: Option<i32>) -> Result<Pagemap, Errno> {
        let path = pid.map_or_else(|| "/proc/self/pagemap".to_owned(), |pid| format!("/proc/{pid}/pagemap"));
        let fd = rustix::fs::open(
            path.as_str(),
            rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC,
            rustix::fs::Mode::empty(),
        )?;
        Ok(Pagemap(OwnFd::from_rustix(fd)))
    }

    /// Whether this kernel has the ioctl.
    pub fn works(&self) -> bool {
        let mut nothing = |_: usize, _: usize| {};
        !matches!(self.scan(0, 0, false, &mut nothing), Err(Errno(libc::ENOTTY | libc::EINVAL)))
    }

    /// Names every written range between two addresses, `sink(start, end)`, and with `arm` protects it again in the same step.
    pub fn scan(
        &self,
        start: usize,
        end: usize,
        arm: bool,
        sink: &mut dyn FnMut(usize, usize),
    ) -> Result<(), Errno> {
        let flags = if arm { WP_MATCHING | CHECK_WPASYNC } else { 0 };
        self.walk((start, end), flags, (PAGE_IS_WRITTEN, 0), sink)
    }

    /// Names every range of anonymous pages that take memory.
    pub fn resident(
        &self,
        start: usize,
        end: usize,
        sink: &mut dyn FnMut(usize, usize),
    ) -> Result<(), Errno> {
        let not = PAGE_IS_FILE | PAGE_IS_PFNZERO;
        self.walk((start, end), 0, (PAGE_IS_PRESENT | not, not), sink)
    }

    /// Whether a page is in memory, or in the kernel's own swap.
    pub fn is_there(&self, at: usize) -> bool {
        const PRESENT_OR_SWAPPED: u64 = 3 << 62;
        let mut entry = [0; 8];
        let got = rustix::io::pread(self.0.borrow(), &mut entry, (at / PAGE * 8) as u64);
        got == Ok(8) && u64::from_ne_bytes(entry) & PRESENT_OR_SWAPPED != 0
    }

    /// Names the ranges of pages that have all categories of `mask`, those of `inverted` being ones that they must not have.
    fn walk(
        &self,
        (start, end): (usize, usize),
        flags: u64,
        (mask, inverted): (u64, u64),
        sink: &mut dyn FnMut(usize, usize),
    ) -> Result<(), Errno> {
        let mut regions = [Region { start: 0, end: 0, categories: 0 }; REGIONS_MAX];
        let mut at = start as u64;
        loop {
            let mut arg = Scan {
                size: size_of::<Scan>() as u64,
                flags,
                start: at,
                end: end as u64,
                walk_end: 0,
                regions: regions.as_mut_ptr() as u64,
                regions_len: REGIONS_MAX as u64,
                pages_max: 0,
                category_inverted: inverted,
                category_mask: mask,
                category_anyof_mask: 0,
                return_mask: mask,
            };
            // SAFETY: the structure is linux/fs.h's struct pm_scan_arg and its array is live.
            let found = unsafe {
                call(libc::SYS_ioctl, [self.0.raw() as usize, IOCTL_SCAN, &raw mut arg as usize, 0, 0, 0])?
            };
            for region in regions.iter().take(found) {
                sink(region.start as usize, region.end as usize);
            }
            at = arg.walk_end;
            if at >= end as u64 {
                return Ok(());
            }
        }
    }
}
