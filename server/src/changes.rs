//! What changed between two epochs, as runs.
//!
//! Owns: the list of cuts a region remembers, and the merging of runs. Called by: region, commit. Must not: miss a page; naming
//! one too many is allowed.

use netmem_protocol::Run;

use crate::tree::Tree;

/// Cuts that a region remembers one by one; older ones are merged.
const CUTS_MAX: usize = 64;

/// A commit that took pages away from the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The epoch it made.
    pub epoch: u64,
    /// Whole pages that were left at the least.
    pub kept: u64,
    /// Pages in the region before it.
    pub before: u64,
}

/// The list with one more cut. The two oldest are merged, as if both had happened at the later epoch, when it is full.
pub fn with_cut(cuts: &[Cut], cut: Cut) -> Vec<Cut> {
    let mut cuts = cuts.to_vec();
    if cuts.len() >= CUTS_MAX {
        let oldest = cuts.remove(0);
        let next = &mut cuts[0];
        next.kept = next.kept.min(oldest.kept);
        next.before = next.before.max(oldest.before);
    }
    cuts.push(cut);
    cuts
}

/// The newest epoch that cut `page` away; 0 if none did.
pub fn cut_epoch(cuts: &[Cut], page: u64) -> u64 {
    cuts.iter().rev().find(|cut| page >= cut.kept).map_or(0, |cut| cut.epoch)
}

/// The runs of pages that may differ between epoch `since` and the tree, `runs_max` at the most (and at least 2).
/// `pages` is how many pages the region has now.
pub fn changed_runs(tree: &Tree, cuts: &[Cut], pages: u64, since: u64, runs_max: usize) -> Vec<Run> {
    let mut later = cuts.iter().filter(|cut| cut.epoch > since);
    let gone = later.next().map(|first| {
        later.fold((first.kept, first.before.max(pages)), |(kept, end), cut| {
            (kept.min(cut.kept), end.max(cut.before))
        })
    });
    // What was cut away is one range up to the end: pages behind its start need no naming.
    let (tail, end) = gone.unwrap_or((u64::MAX, 0));
    let mut runs = Runs::new(runs_max);
    tree.changed_since(since, &mut |page| {
        if page < tail {
            runs.push(page, page + 1);
        }
    });
    if tail < end {
        runs.push(tail, end);
    }
    runs.finish()
}

/// Collects runs in order, merging neighbours when there are too many.
struct Runs {
    runs: Vec<(u64, u64)>,
    runs_max: usize,
    /// Runs this near each other are merged.
    gap: u64,
}

impl Runs {
    fn new(runs_max: usize) -> Self {
        Runs { runs: Vec::new(), runs_max: runs_max.max(2), gap: 0 }
    }

    fn push(&mut self, first: u64, end: u64) {
        if let Some(last) = self.runs.last_mut()
            && first <= last.1.saturating_add(self.gap)
        {
            last.1 = last.1.max(end);
            return;
        }
        self.runs.push((first, end));
        // A run on the wire counts its pages in 32 bits, so the largest region takes two: leave room for one more.
        while self.runs.len() >= self.runs_max {
            self.gap = self.gap * 2 + 1;
            let gap = self.gap;
            self.runs.dedup_by(|next, last| {
                let near = next.0 <= last.1.saturating_add(gap);
                if near {
                    last.1 = last.1.max(next.1);
                }
                near
            });
        }
    }

    fn finish(self) -> Vec<Run> {
        let mut out = Vec::with_capacity(self.runs.len());
        for (mut first, end) in self.runs {
            while first < end {
                let count = u32::try_from(end - first).unwrap_or(u32::MAX);
                out.push(Run::new(first, count));
                first += u64::from(count);
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_many_runs_are_merged_with_their_neighbours_and_none_is_lost() {
        let mut runs = Runs::new(16);
        let wanted: Vec<u64> = (0..1000).map(|i| i * 7 + (i % 3)).collect();
        for page in &wanted {
            runs.push(*page, *page + 1);
        }
        let runs = runs.finish();
        assert!(runs.len() <= 16);
        for page in wanted {
            assert!(runs.iter().any(|run| (run.first.0..run.end()).contains(&page)), "page {page}");
        }
    }

    #[test]
    fn a_run_over_the_whole_largest_region_is_split_to_fit_32_bits() {
        let mut runs = Runs::new(16);
        runs.push(0, 1 << 32);
        let total: u64 = runs.finish().iter().map(|run| u64::from(run.count)).sum();
        assert_eq!(total, 1 << 32);
    }

    #[test]
    fn a_cut_names_what_it_took_even_after_the_region_grew_again() {
        let cuts = [Cut { epoch: 5, kept: 3, before: 10 }, Cut { epoch: 8, kept: 6, before: 20 }];
        let runs = |since| changed_runs(&Tree::default(), &cuts, 7, since, 100);
        assert_eq!(runs(4), [Run::new(3, 17)]);
        assert_eq!(runs(5), [Run::new(6, 14)]);
        assert_eq!(runs(8), []);
        assert_eq!((cut_epoch(&cuts, 2), cut_epoch(&cuts, 4), cut_epoch(&cuts, 9)), (0, 5, 8));
    }

    #[test]
    fn a_full_list_of_cuts_forgets_when_but_not_what() {
        let mut cuts = Vec::new();
        for epoch in 1..=200 {
            cuts = with_cut(&cuts, Cut { epoch, kept: 1000 - epoch, before: 2000 });
        }
        assert_eq!(cuts.len(), CUTS_MAX);
        assert_eq!(changed_runs(&Tree::default(), &cuts, 5, 0, 10), [Run::new(800, 1200)]);
    }
}
