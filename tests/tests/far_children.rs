//! Far memory and children of every kind: each has the memory that its parent had, and its own from then on.
//!
//! Owns: nothing. Called by: `cargo test`. Must not: ask for more than a page cache of memory.

use std::time::Duration;

use netmem_tests::Far;
use netmem_tests::built::compile;

/// A fifth of what the program fills.
const BUDGET: u64 = 10 << 20;

fn children(what: &str) {
    let Some(far) = Far::new() else { return };
    let run = far.run(BUDGET, compile("tests/far/children.c", &[])).arg(what);
    let output = run.limit(Duration::from_secs(100)).output();
    assert_eq!(output.stdout, format!("ok {what}\n"), "{output}");
    assert_eq!((output.code(), output.stderr.as_str()), (0, ""), "{output}");
    assert!(far.told().get("far_pages_out").copied().unwrap_or(0) > 5000, "{:?}", far.told());
}

#[test]
fn a_forked_child_and_its_child_and_the_parent_each_have_their_own() {
    children("forks");
}

#[test]
fn posix_spawn_vfork_exec_system_and_popen_find_their_arguments() {
    children("programs");
}

#[test]
fn a_fork_beside_threads_whose_stacks_have_no_guard_finds_their_control_blocks() {
    children("stacks");
}

#[test]
fn a_daemon_has_its_memory_when_its_parent_is_gone() {
    children("daemons");
}

#[test]
fn a_clone_that_libc_knows_nothing_of_dies_and_never_reads_zeros() {
    children("raw");
}

#[test]
fn handlers_that_leave_by_siglongjmp_interrupt_waits_for_pages() {
    children("jumping");
}
