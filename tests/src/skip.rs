//! A test that can't run here says why.
//!
//! Owns: the line and the list of what must not be missing. Called by: everything that may be absent. Must not: skip in
//! silence.

/// Prints `SKIP reason`, or panics if `what` is in the comma-separated NETMEM_TEST_REQUIRE.
pub fn skip(what: &str, reason: &str) {
    let required = std::env::var("NETMEM_TEST_REQUIRE").unwrap_or_default();
    assert!(
        !required.split(',').any(|one| one.trim() == what),
        "{what} is in NETMEM_TEST_REQUIRE, and is not here: {reason}"
    );
    println!("SKIP {reason}");
}
