//! Far memory and programs that take memory as they fill it, and move it: nothing of it is there when they begin.
//!
//! Owns: nothing. Called by: `cargo test`. Must not: ask how fast.

use std::time::Duration;

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

/// A program with a few MiB whose mappings move, and which has children.
fn moves(budget: u64, arguments: &[&str]) {
    let Some(far) = Far::new() else { return };
    let mut run = far.run(budget, compile("tests/far/moves.c", &[])).args(arguments);
    if arguments == ["file"] {
        run = run.arg(far.host.files().join("moves"));
    }
    // A wait for somebody who is not there would be at each of hundreds of steps.
    let output = run.limit(Duration::from_secs(20)).output();
    assert_eq!((output.code(), output.stdout.as_str(), output.stderr.as_str()), (0, "ok\n", ""), "{output}");
}

#[test]
fn a_mapping_of_a_file_that_moved_is_there_in_all_children() {
    moves(16 * MIB, &["file"]);
}

#[test]
fn shared_memory_that_moved_is_there_in_all_children() {
    moves(16 * MIB, &["shared"]);
}

#[test]
fn two_mappings_side_by_side_move_as_one_where_the_second_would_not_fit() {
    moves(32 * MIB, &["union"]);
}

#[test]
fn a_child_that_was_made_past_libc_takes_memory_and_waits_for_nobody() {
    moves(16 * MIB, &["past"]);
}
