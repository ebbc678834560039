//! Pages that were asked for and did not come.
//!
//! Owns: what becomes of their claims and of those who wait. Called by: uffd_thread. Must not: leave a claim, or a thread that waits and
//! nobody wakes.

use netmem_protocol::{Epoch, PAGE_SIZE, PageSpan, RegionId, Run};

use super::{Server, Wanted};
use crate::host::{Handle, Runtime};
use crate::pager::page::Event;
use crate::pager::region::PagerError;
use crate::remote::PageSource;

impl Server {
    /// Gives claims back, and up what can't be had.
    pub(super) fn did_not_come(
        &mut self,
        runtime: &'static Runtime,
        handle: &'static Handle,
        (from, epoch): (RegionId, Epoch),
        missing: &[Wanted],
        error: &PagerError,
    ) {
        let region = &handle.region;
        let demanded =
            |wanted: &Wanted| wanted.demanded.map(|(page, _)| page).filter(|page| *page >= wanted.first);
        // What one page lacks that was asked for ahead is no reason to give up another.
        let is_alone = missing.iter().map(|wanted| wanted.count).sum::<u32>() <= 1;
        let one_by_one = error.is_answer() && !error.is_stale() && !is_alone;
        for wanted in missing {
            let kept = if one_by_one { demanded(wanted) } else { None };
            for page in (wanted.first..wanted.end()).filter(|page| Some(*page) != kept) {
                region.settle(page, Event::Release);
            }
        }
        if error.is_stale() {
            if region.view() == epoch {
                let _ = region.refresh(&runtime.remote);
            }
            // Who waits looks again and asks at the new epoch.
            for wanted in missing {
                let length = wanted.count as usize * PAGE_SIZE;
                let _ = self.uffd.wake(wanted.mapping.address_of(wanted.first), length);
            }
            return;
        }
        for wanted in missing {
            let Some(page) = demanded(wanted) else { continue };
            let mut failed = Some(error);
            let again;
            if one_by_one {
                let run = [Run::new(page, 1)];
                let deliver = &mut |span: PageSpan<'_>, _| self.deliver(wanted, span);
                again = runtime.remote.fetch(from, epoch, &run, deliver).map_err(PagerError::from);
                failed = again.as_ref().err();
                if failed.is_some() {
                    region.settle(page, Event::Release);
                }
            }
            match failed {
                Some(error) => self.give_up(&wanted.mapping, wanted.mapping.address_of(page), error),
                None => self.wake(),
            }
        }
    }
}
