//! The roots a region keeps: the current one, and those that page caches look at.
//!
//! Owns: pins, which are (cache, epoch) pairs, and the roots they keep. Called by: region, under its short lock. Must not: do
//! anything that takes long; a root that ends here is taken apart by the reaper.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Instant;

use netmem_protocol::CacheId;

use crate::region::Root;

/// Epochs one cache can pin in one region. When it pins more, its oldest goes.
pub const PINS_MAX: usize = 64;

struct Kept {
    root: Arc<Root>,
    /// Caches that pin it.
    pins: usize,
    /// When a commit replaced it; `None` for the current one.
    replaced: Option<Instant>,
}

#[derive(Default)]
struct Pins {
    epochs: BTreeSet<u64>,
    /// The base of the cache's last commit: its other processes may still fetch at it, until its next step.
    base: Option<u64>,
}

/// The roots of a region.
pub struct Views {
    current: Arc<Root>,
    kept: BTreeMap<u64, Kept>,
    caches: HashMap<CacheId, Pins>,
}

impl Views {
    /// Only the current root.
    pub fn new(current: Arc<Root>) -> Self {
        Views { current, kept: BTreeMap::new(), caches: HashMap::new() }
    }

    /// The current root.
    pub fn current(&self) -> &Arc<Root> {
        &self.current
    }

    /// The root of an epoch that is current or kept. Epoch 0 is the current one.
    pub fn at(&self, epoch: u64) -> Option<&Arc<Root>> {
        if epoch == 0 || epoch == self.current.epoch {
            return Some(&self.current);
        }
        self.kept.get(&epoch).map(|kept| &kept.root)
    }

    /// Keeps an epoch for a cache. Does nothing about one that is gone.
    pub fn pin(&mut self, cache: CacheId, epoch: u64) {
        let Some(root) = self.at(epoch).cloned() else { return };
        let epoch = root.epoch;
        let replaced = (epoch != self.current.epoch).then(Instant::now);
        let pins = self.caches.entry(cache).or_default();
        if pins.epochs.insert(epoch) {
            self.kept.entry(epoch).or_insert(Kept { root, pins: 0, replaced }).pins += 1;
        }
        if pins.epochs.len() > PINS_MAX
            && let Some(oldest) = pins.epochs.first().copied()
        {
            self.unpin(cache, |epoch| epoch == oldest);
        }
    }

    /// Ends a cache's pins on the epochs that `which` names.
    fn unpin(&mut self, cache: CacheId, which: impl Fn(u64) -> bool) {
        let Some(pins) = self.caches.get_mut(&cache) else { return };
        let ended: Vec<u64> = pins.epochs.iter().copied().filter(|epoch| which(*epoch)).collect();
        for epoch in &ended {
            pins.epochs.remove(epoch);
        }
        if pins.base.is_some_and(|base| !pins.epochs.contains(&base)) {
            pins.base = None;
        }
        if pins.epochs.is_empty() {
            self.caches.remove(&cache);
        }
        for epoch in ended {
            if let Some(kept) = self.kept.get_mut(&epoch) {
                kept.pins -= 1;
                if kept.pins == 0 {
                    self.kept.remove(&epoch);
                }
            }
        }
    }

    /// `View`: the cache has moved to `epoch`.
    pub fn moved_to(&mut self, cache: CacheId, epoch: u64) {
        self.pin(cache, epoch);
        self.unpin(cache, |pinned| pinned < epoch);
    }

    /// `Changes` was asked from `asked`: the current epoch is kept, and so is the one asked from.
    pub fn asked_from(&mut self, cache: CacheId, asked: u64) {
        let base = self.caches.get_mut(&cache).and_then(|pins| pins.base.take());
        if let Some(base) = base
            && base != asked
        {
            self.unpin(cache, |epoch| epoch == base);
        }
        if asked != 0 {
            self.pin(cache, asked);
        }
        self.pin(cache, self.current.epoch);
    }

    /// Shows a new root.
    pub fn publish(&mut self, root: Arc<Root>) {
        if let Some(kept) = self.kept.get_mut(&self.current.epoch) {
            kept.replaced = Some(Instant::now());
        }
        self.current = root;
    }

    /// The cache has committed on `base`, and the epoch before the new, current one was `previous`.
    pub fn committed(&mut self, cache: CacheId, base: u64, previous: u64) {
        self.pin(cache, self.current.epoch);
        if base == previous {
            let current = self.current.epoch;
            self.unpin(cache, |epoch| epoch < base);
            if let Some(pins) = self.caches.get_mut(&cache)
                && base != current
            {
                pins.base = Some(base);
            }
        }
    }

    /// The cache is gone for good.
    pub fn forget(&mut self, cache: CacheId) {
        self.unpin(cache, |_| true);
    }

    /// Nobody looks at the region any more.
    pub fn forget_all(&mut self) {
        self.kept.clear();
        self.caches.clear();
    }

    /// Calls `each` with every kept epoch that is not current, and when it was replaced.
    pub fn for_each_old(&self, mut each: impl FnMut(Instant, u64)) {
        for (epoch, kept) in &self.kept {
            if let Some(replaced) = kept.replaced
                && *epoch != self.current.epoch
            {
                each(replaced, *epoch);
            }
        }
    }

    /// Ends every pin on an epoch.
    pub fn give_up(&mut self, epoch: u64) {
        let caches: Vec<CacheId> = self.caches.keys().copied().collect();
        for cache in caches {
            self.unpin(cache, |pinned| pinned == epoch);
        }
    }

    /// Epochs kept, the current one not counted unless pinned.
    #[cfg(test)]
    pub fn kept(&self) -> Vec<u64> {
        self.kept.keys().copied().collect()
    }
}

#[cfg(test)]
#[path = "views_tests.rs"]
mod tests;
