//! Pages on their way into a mapping.
//!
//! Owns: installing, filling holes, giving pages up. Called by: uffd_thread. Must not: put anything where a page may leave meanwhile, or into
//! what the address has become since.

use netmem_protocol::PAGE_SIZE;

use super::super::mappings::Mapping;
use super::Server;
use crate::host::{self, Runtime};
use crate::log;
use crate::pager::evict::Use;
use crate::pager::region::PagerError;
use crate::sys::errno::Errno;
use crate::sys::mem;

pub(super) static ZEROS: [u8; PAGE_SIZE] = [0; PAGE_SIZE];

impl Server {
    /// A page that is present but not in the file is a page of zeros; one that is in the file needs only another look. Nobody has
    /// a claim on it, so zeros may go nowhere but into a hole: not past the mapping into the file; and only while it can't leave.
    pub(super) fn fill_hole(&self, runtime: &'static Runtime, mapping: &Mapping, page: u64) {
        let address = mapping.address_of(page);
        let handle = host::handle(mapping.handle);
        let here = Use::begin(&handle.region.cache, page, page + 1);
        if !handle.region.is_present(page) {
            drop(here);
            let _ = self.uffd.wake(address, mem::PAGE);
            return;
        }
        if mapping.private {
            // Missing in a private mapping means a hole in the file: fill it there, so that the copy has something to copy.
            if let Err(errno) = handle.fill_hole(page) {
                self.give_up(mapping, address, &PagerError::Cache(errno));
            }
        } else {
            runtime.budget.came(handle, 1);
            let table = runtime.mappings.write();
            let mut result = None;
            if runtime.mappings.find(address).is_some_and(|now| core::ptr::eq(now.state, mapping.state)) {
                while {
                    result = self.uffd.copy(address, &ZEROS, true).1;
                    result == Some(Errno(libc::EAGAIN))
                } {}
            }
            drop(table);
            if let Some(errno @ Errno(libc::ENOMEM)) = result
                && !self.make_room(runtime)
            {
                // The tmpfs is full: whoever waits would wait for ever.
                self.give_up(mapping, address, &PagerError::Cache(errno));
            }
        }
        let _ = self.uffd.wake(address, mem::PAGE);
    }

    /// Puts pages where a mapping wants them, each in one step for everyone. Names those for which there was no room.
    pub(super) fn install(&self, mapping: &Mapping, page: u64, data: &[u8], wake: bool) -> Vec<u64> {
        let address = mapping.address_of(page);
        if mapping.private {
            return self.install_in_file(mapping, page, data);
        }
        let Some(runtime) = host::runtime_if_started() else {
            return self.install_in_file(mapping, page, data);
        };
        let (mut failed, mut full) = (Vec::new(), None);
        // While the table can't change, the address shows what it showed when the page was asked for, or it does not: unmapped,
        // or another region's by now.
        let table = runtime.mappings.write();
        if !runtime.mappings.find(address).is_some_and(|now| core::ptr::eq(now.state, mapping.state)) {
            return self.install_in_file(mapping, page, data);
        }
        let mut done = 0;
        while done < data.len() {
            let (copied, errno) = self.uffd.copy(address + done, &data[done..], wake);
            done += copied;
            match errno {
                None | Some(Errno(libc::EAGAIN)) => {}
                Some(Errno(libc::EEXIST)) => {
                    // Someone's write(2) was first. What is there counts; whoever waits has to be told (it is not woken).
                    let _ = self.uffd.wake(address + done, PAGE_SIZE);
                    done += PAGE_SIZE;
                }
                Some(Errno(libc::ENOENT | libc::EFAULT | libc::EINVAL)) => {
                    // The file was cut, or the kernel took the mapping: the page belongs in the file if it lies inside.
                    let next = page + (done / PAGE_SIZE) as u64;
                    failed.extend(self.install_in_file(mapping, next, &data[done..done + PAGE_SIZE]));
                    done += PAGE_SIZE;
                }
                Some(errno) => {
                    full = Some(errno);
                    break;
                }
            }
        }
        drop(table);
        if let Some(errno) = full {
            let rest = page + (done / PAGE_SIZE) as u64;
            if self.make_room(runtime) {
                failed.extend(self.install(mapping, rest, &data[done..], wake));
                return failed;
            }
            log::error!(
                "no room for a page in the cache ({errno}): is the tmpfs full? NETMEM_DIR can name a larger one"
            );
            failed.extend(rest..page + (data.len() / PAGE_SIZE) as u64);
        }
        for lost in &failed {
            self.give_up(mapping, mapping.address_of(*lost), &PagerError::Cache(Errno(libc::ENOSPC)));
        }
        failed
    }

    /// The tmpfs is full: that is the budget. Whether pages left it.
    fn make_room(&self, runtime: &'static Runtime) -> bool {
        runtime.budget.is_full();
        let before = crate::stats::get(&crate::stats::PAGES_EVICTED);
        let coming = runtime.budget.expect(runtime.budget.batch());
        host::room::make(runtime);
        drop(coming);
        crate::stats::get(&crate::stats::PAGES_EVICTED) != before
    }

    /// Puts pages into the region's file, past any mapping, and lets whoever waits look again.
    fn install_in_file(&self, mapping: &Mapping, page: u64, data: &[u8]) -> Vec<u64> {
        let handle = host::handle(mapping.handle);
        let installed = crate::pager::Frames::install(&handle.region.cache, page, data);
        let _ = self.uffd.wake(mapping.address_of(page), data.len());
        match installed {
            Ok(()) => Vec::new(),
            Err((there, _)) => (page + there..page + (data.len() / PAGE_SIZE) as u64).collect(),
        }
    }

    /// Makes a touch end as it does on a disk that fails: SIGBUS. The page can come back later.
    pub(super) fn give_up(&self, mapping: &Mapping, address: usize, error: &PagerError) {
        if let Some(touched) = &self.touched {
            // By the signal that this thread is in; whoever else waits for the page asks by itself.
            if touched.address == address & !(mem::PAGE - 1) {
                touched.lost.set(Some(error.errno()));
            }
            return;
        }
        log::error!("a page can't be had: {error}");
        host::fail_page(&self.uffd, mapping, address);
    }
}
