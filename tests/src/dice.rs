//! Where a random test gets its seed from.
//!
//! Owns: `NETMEM_TEST_SEED`. Called by: tests that roll. Must not: leave a seed unsaid: what a test prints plays the same again.

use std::time::{SystemTime, UNIX_EPOCH};

pub use crate::model::dice::Dice;

/// A dice of its own seed, which is printed, or of the one that `NETMEM_TEST_SEED` says.
pub fn seeded() -> Dice {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a time after 1970").as_nanos() as u64;
    let seed = std::env::var("NETMEM_TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(now);
    println!("NETMEM_TEST_SEED={seed}");
    Dice(seed)
}
