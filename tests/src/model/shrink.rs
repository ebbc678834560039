//! A shorter script that still shows the difference.
//!
//! Owns: delta debugging over the lines. Called by: the exploration, when a script differs. Must not: go on without end.

use std::time::{Duration, Instant};

use super::{Ground, Script, compare};

/// Leaves out ever smaller pieces while the rest still differs, until single lines can't be left out or the time is up.
pub fn shrink(ground: Ground, script: &Script, patience: Duration) -> Script {
    let until = Instant::now() + patience;
    let mut smallest = until_it_differs(ground, script);
    let mut piece = smallest.len().div_ceil(2);
    while piece > 0 {
        let mut at = 0;
        let before = smallest.len();
        while at < smallest.len() {
            if Instant::now() > until {
                return smallest;
            }
            let mut shorter = smallest.clone();
            shorter.drain(at..(at + piece).min(smallest.len()));
            if still_means_the_same(&shorter)
                && compare(ground, &shorter).is_some_and(|found| !found.lacks_a_holder())
            {
                smallest = shorter;
            } else {
                at += piece;
            }
        }
        piece = if piece == 1 && smallest.len() < before { 1 } else { piece / 2 };
    }
    smallest
}

/// Some lines are only there together, since alone they show a difference that is one by design: what the last process of a host
/// stored is dropped when it is killed, so that another holds the files before (docs/SEMANTICS.md).
fn still_means_the_same(script: &[String]) -> bool {
    (0..script.len()).all(|i| {
        let killed = script[i].split(' ').nth(1) == Some("kill");
        let held = i > 0 && script[i - 1].split(' ').nth(1) == Some("tails");
        !killed || held
    })
}

/// What comes after the first difference is of no use, if the script differs without it.
fn until_it_differs(ground: Ground, script: &Script) -> Script {
    let (mut low, mut high) = (0, script.len());
    while low < high {
        let middle = low + (high - low) / 2;
        if compare(ground, &script[..middle].to_vec()).is_some() {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    script[..high].to_vec()
}
