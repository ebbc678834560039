//! The thread that takes old trees apart, so that no commit and no reader does.
//!
//! Owns: the queue of trees to drop. Called by: region (whenever a root ends), memory and commit (to wait for it). Must not: take any
//! lock but the slabs'.

use std::thread;

use crossbeam_channel::{Sender, bounded, unbounded};

use crate::tree::Tree;

/// Trees that wait before those who make more of them do. Each holds the pages of a commit or more.
const WAITING_MAX: usize = 256;

enum Job {
    Drop(Tree),
    Answer(Sender<()>),
}

/// A handle on the thread. It ends with the last handle.
#[derive(Clone)]
pub struct Reaper {
    jobs: Sender<Job>,
}

impl Reaper {
    /// Starts the thread. Without one (no memory for it), trees are dropped where they end.
    pub fn start() -> Self {
        let (jobs, queue) = unbounded();
        let run = move || {
            for job in queue {
                match job {
                    Job::Drop(tree) => drop(tree),
                    Job::Answer(done) => _ = done.send(()),
                }
            }
        };
        if let Err(error) = thread::Builder::new().name("reaper".into()).spawn(run) {
            tracing::warn!("no reaper thread ({error}): old pages are freed by those who use them");
        }
        Reaper { jobs }
    }

    /// Drops a tree, elsewhere.
    pub fn drop_tree(&self, tree: Tree) {
        // If the thread is gone, the error gives the tree back and it is dropped here.
        let _ = self.jobs.send(Job::Drop(tree));
    }

    /// Returns when few trees wait: a stream of commits must not leave old epochs faster than they are taken apart.
    pub fn keep_up(&self) {
        if self.jobs.len() > WAITING_MAX {
            self.wait();
        }
    }

    /// Returns when every tree that was handed over before is gone.
    pub fn wait(&self) {
        let (done, answer) = bounded(1);
        if self.jobs.send(Job::Answer(done)).is_ok() {
            let _ = answer.recv();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_hands_trees_over_faster_than_they_are_taken_apart_waits() {
        let reaper = Reaper::start();
        for _ in 0..20_000 {
            reaper.drop_tree(Tree::default());
            reaper.keep_up();
            assert!(reaper.jobs.len() <= WAITING_MAX);
        }
    }
}
