//! Pages within the server's limit: when there is none left, copies of pages that are on a disk go, or views of old epochs are given up.
//!
//! Owns: the slabs and the list of regions. Called by: session (staging), commit. Must not: give up a current root.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use netmem_protocol::{ErrorCode, PAGE_SIZE, RegionId};

use crate::reaper::Reaper;
use crate::refusal::{Answer, Refusal};
use crate::region::Region;
use crate::slab::{FreshPage, PageBytes, PageRef, Slabs};
use crate::store::pages::Pages;

/// Pages that giving up views frees at a time, where it can: 1024 × 4 KiB = 4 MiB.
const RELIEF_PAGES: u64 = 1024;

type Regions = HashMap<RegionId, Arc<Region>>;

/// Where pages come from.
pub struct Memory {
    slabs: Slabs,
    /// Drops trees elsewhere.
    pub reaper: Reaper,
    /// A durable store's pages, of which copies lie in the slabs.
    stored: Option<Arc<Pages>>,
    /// Lock order: after the catalog's, before a region's `views`.
    regions: RwLock<Regions>,
}

impl Memory {
    /// Memory for so many bytes of pages.
    pub fn new(bytes: u64, reaper: Reaper) -> Self {
        let slabs = Slabs::new(bytes / PAGE_SIZE as u64);
        Memory { slabs, reaper, stored: None, regions: RwLock::default() }
    }

    /// The same with a durable store, whose pages are copied here.
    pub fn with_store(bytes: u64, reaper: Reaper, stored: Arc<Pages>) -> Self {
        Memory { stored: Some(stored), ..Memory::new(bytes, reaper) }
    }

    /// Pages stored, and pages allowed in memory. Those that are on a disk need not be in memory.
    pub fn usage(&self) -> (u64, u64) {
        let stored = self.stored.as_ref().map(|pages| pages.usage().0);
        (stored.unwrap_or_else(|| self.slabs.used()), self.slabs.pages_max())
    }

    /// Pages in memory.
    pub fn used(&self) -> u64 {
        self.slabs.used()
    }

    /// The region with this number, unless it is there for its clones alone.
    pub fn region(&self, id: RegionId) -> Answer<Arc<Region>> {
        self.regions().get(&id).filter(|region| !region.has_ended()).cloned().ok_or_else(|| {
            let text = format!(
                "region {id} is not there: it was removed, or the server was restarted; open it by name"
            );
            Refusal::new(ErrorCode::NotFound, text)
        })
    }

    /// All regions, for reading.
    pub fn regions(&self) -> RwLockReadGuard<'_, Regions> {
        self.regions.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// All regions, for adding and removing.
    pub fn regions_mut(&self) -> RwLockWriteGuard<'_, Regions> {
        self.regions.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// A page to fill in. Its content is arbitrary.
    pub fn fresh(&self) -> Answer<FreshPage> {
        if let Ok(page) = self.slabs.fresh() {
            return Ok(page);
        }
        self.relieve();
        self.slabs.fresh().map_err(|_| self.full())
    }

    /// A page with these bytes.
    pub fn copy_of(&self, bytes: &PageBytes) -> Answer<PageRef> {
        let mut page = self.fresh()?;
        page.copy_from_slice(bytes);
        Ok(page.seal())
    }

    /// The refusal when nothing can be given up any more.
    pub fn full(&self) -> Refusal {
        let bytes = self.slabs.pages_max() * PAGE_SIZE as u64;
        let what = if self.stored.is_some() { "commit less at a time" } else { "remove or shrink regions" };
        let text = format!(
            "the server's {} pages ({bytes} bytes) are in use; {what}, or start netmem-server with a larger --max-memory",
            self.slabs.pages_max()
        );
        Refusal::new(ErrorCode::Full, text)
    }

    /// Gives up views of old epochs, those that were replaced first before others, until some pages are free.
    fn relieve(&self) {
        let enough = RELIEF_PAGES.min(self.slabs.pages_max() / 4).max(1);
        let has_enough = || self.slabs.used() + enough <= self.slabs.pages_max();
        if let Some(stored) = &self.stored {
            // Old epochs take room on the disk, and none here.
            stored.shrink(enough);
            if has_enough() {
                return;
            }
            self.reaper.wait();
            stored.shrink(self.slabs.pages_max());
            return;
        }
        self.reaper.wait();
        if has_enough() {
            return;
        }
        let regions: Vec<Arc<Region>> = self.regions().values().cloned().collect();
        let mut old = Vec::new();
        for region in &regions {
            region.views().for_each_old(|since, epoch| old.push((since, epoch, region)));
        }
        old.sort_by_key(|(since, epoch, _)| (*since, *epoch));
        for (_, epoch, region) in old {
            tracing::info!(region = region.id.0, epoch, "memory is full: a view was given up");
            region.views().give_up(epoch);
            self.reaper.wait();
            if has_enough() {
                return;
            }
        }
    }
}
