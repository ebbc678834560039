//! Random sequences of calls, executed on a local file and on a rung, and compared after each.
//!
//! Owns: what a script is, and the comparison. Called by: tests/model.rs. Must not: know what a call should do: the local
//! file's answer is the reference.
//!
//! A script is a list of lines. `start P`, `restart` (of all), `cold` (on a new host), `back` (on an older one) and `check` are the
//! player's; any other line begins with the label
//! of a process (tests/model/model.c), which obeys the rest. Each line means something whatever came before it, so that a
//! script stays one when lines are left out.

pub mod dice;
pub use dice::Dice;
mod generate;
mod play;
mod shrink;

use std::fmt::{self, Write};
use std::path::Path;
use std::time::Duration;

pub use generate::generate;
pub use play::{Played, play};
pub use shrink::shrink;

use crate::engine::Engine;

/// Where a script is played.
#[derive(Clone, Copy, Debug)]
pub struct Ground {
    /// How faults are caught.
    pub engine: Engine,
    /// NETMEM_PREFETCH, if it is set.
    pub prefetch: Option<&'static str>,
    /// What goes over the wire goes in pieces, and each is late by up to so much.
    pub late: Option<Duration>,
    /// And is compressed.
    pub packed: bool,
}

impl From<Engine> for Ground {
    fn from(engine: Engine) -> Ground {
        Ground { engine, prefetch: None, late: None, packed: false }
    }
}

impl fmt::Display for Ground {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.engine)?;
        if let Some(prefetch) = self.prefetch {
            write!(f, " with NETMEM_PREFETCH={prefetch}")?;
        }
        if self.packed {
            write!(f, " packed")?;
        }
        self.late.map_or(Ok(()), |late| write!(f, " and parts late by up to {late:?}"))
    }
}

/// The lines of a script.
pub type Script = Vec<String>;

/// A script from its text: empty lines and what follows `#` are left out.
pub fn parse(text: &str) -> Script {
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    lines.filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

/// The script in a file.
pub fn read(path: &Path) -> Script {
    parse(&std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
}

/// Where a rung parted from the local file.
#[derive(Clone, Debug)]
pub struct Difference {
    at: usize,
    reference: Played,
    ours: Played,
}

impl Difference {
    /// Whether nobody was there to hold the files for a process that was killed: what it stored is dropped by design.
    fn lacks_a_holder(&self) -> bool {
        self.reference.answers.iter().any(|(line, answer)| line.contains(" tails ") && answer == "nobody")
    }
}

/// Plays a script on both; `None` if every answer was the same.
pub fn compare(ground: impl Into<Ground>, script: &Script) -> Option<Difference> {
    difference(play(Engine::Kernel, script), play(ground, script))
}

fn difference(reference: Played, ours: Played) -> Option<Difference> {
    let both = reference.answers.iter().zip(&ours.answers);
    let at = both.take_while(|(reference, ours)| reference == ours).count();
    let ended = at == reference.answers.len() && at == ours.answers.len();
    (!ended).then_some(Difference { at, reference, ours })
}

/// Generates `runs` scripts of `operations` from seeds that follow from one another, and fails at the first that differs, with the
/// shortest script found within `patience` that differs still.
pub fn explore(ground: impl Into<Ground>, seed: u64, runs: u64, operations: usize, patience: Duration) {
    let ground = ground.into();
    for run in 0..runs {
        let seed = seed.wrapping_add(run);
        let script = generate(seed, operations);
        let Some(first) = compare(ground, &script) else { continue };
        let smallest = shrink(ground, &script, patience);
        let again = compare(ground, &smallest);
        panic!(
            "NETMEM_MODEL_SEED={seed} NETMEM_MODEL_OPS={operations} NETMEM_MODEL_RUNS=1 on {ground}\n{}",
            report(&smallest, again.as_ref().unwrap_or(&first))
        );
    }
}

/// What the script is, where it differed, and what was said meanwhile.
pub fn report(script: &Script, difference: &Difference) -> String {
    let Difference { at, reference, ours } = difference;
    let mut text =
        format!("---- the script, {} lines\n{}\n---- answers before\n", script.len(), script.join("\n"));
    for (line, answer) in reference.answers.iter().take(*at).skip(at.saturating_sub(12)) {
        let _ = writeln!(text, "{line}  →  {answer}");
    }
    let none = (String::new(), "no answer".to_owned());
    let (line, expected) = reference.answers.get(*at).unwrap_or(&none);
    let (_, got) = ours.answers.get(*at).unwrap_or(&none);
    let _ = write!(text, "---- the first difference: {line}\nkernel  {expected}\nnetmem  {got}\n");
    text.push_str(&words_apart(expected, got));
    if !ours.stderr.is_empty() {
        let _ = write!(text, "---- said\n{}\n", ours.stderr);
    }
    text
}

/// Of two long answers, the words that differ.
fn words_apart(expected: &str, got: &str) -> String {
    let (left, right): (Vec<_>, Vec<_>) = (expected.split(' ').collect(), got.split(' ').collect());
    let apart = |one: &[&str], other: &[&str]| {
        one.iter().filter(|word| !other.contains(word)).take(12).copied().collect::<Vec<_>>().join(" ")
    };
    format!("apart: kernel [{}] netmem [{}]\n", apart(&left, &right), apart(&right, &left))
}
