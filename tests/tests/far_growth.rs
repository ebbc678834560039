//! Far memory and programs that take memory as they fill it: nothing of it is there when they begin.
//!
//! Owns: nothing. Called by: `cargo test`. Must not: ask how fast.

use netmem_tests::Far;
use netmem_tests::built::compile;

const MIB: u64 = 1 << 20;

/// Ten budgets, by and by.
fn grows(how: &str) {
    let Some(far) = Far::new() else { return };
    let (budget, mib) = (16 * MIB, 160);
    let output = far.run(budget, compile("tests/far/grow.c", &[])).args([how, &mib.to_string()]).output();
    assert_eq!((output.code(), output.stdout.as_str(), output.stderr.as_str()), (0, "ok\n", ""), "{output}");
    far.assert_kept(budget, mib * MIB / 2);
}

#[test]
fn a_heap_that_grows_by_brk_stays_within_the_budget() {
    grows("heap");
}

#[test]
fn chunks_that_malloc_maps_stay_within_the_budget() {
    grows("chunks");
}

#[test]
fn small_mappings_one_after_the_other_stay_within_the_budget() {
    grows("maps");
}

#[test]
fn a_threads_arena_stays_within_the_budget() {
    grows("arena");
}

#[test]
fn memory_that_is_read_before_it_is_filled_stays_within_the_budget() {
    grows("reads");
}

#[test]
fn what_the_kernel_refuses_malloc_and_brk_refuse_as_without_us() {
    let Some(far) = Far::new() else { return };
    let program = compile("tests/far/grow.c", &[]);
    let output = far.run(16 * MIB, program).args(["limit", "160"]).output();
    assert_eq!((output.code(), output.stdout.as_str()), (0, "refused\n"), "{output}");
}
