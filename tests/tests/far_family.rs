//! A budget of memory is that of a process and its children together.
//!
//! Owns: nothing. Called by: `cargo test`. Must not: look at one process alone.

use netmem_tests::Far;
use netmem_tests::built::{built, compile};
use netmem_tests::far::FLOOR;

const MIB: u64 = 1 << 20;
const MEMBERS: u64 = 4;
/// Of each member, and of all.
const EACH: u64 = 24 * MIB;
const BUDGET: u64 = 24 * MIB;
/// What they have together that can't leave.
const SLACK: u64 = 2 * FLOOR;

fn assert_shared(far: &Far) {
    let told = far.told();
    let get = |name: &str| told.get(name).copied().unwrap_or(0) * 4096;
    let (most, left) = (get("far_family_max_pages"), get("far_pages_out"));
    println!("at most {most} resident together, {left} bytes left, {told:?}");
    assert!(left >= MEMBERS * EACH - BUDGET - SLACK, "only {left} bytes left");
    assert!(most > BUDGET / 2, "nobody counted them");
}

#[test]
fn children_that_were_forked_share_the_budget() {
    let Some(far) = Far::new() else { return };
    let program = compile("tests/far/family.c", &[]);
    let most = (BUDGET + BUDGET / 20 + SLACK) / MIB;
    let arguments = [MEMBERS.to_string(), (EACH / MIB).to_string(), "fork".to_owned(), most.to_string()];
    let output = far.run(BUDGET, program).args(arguments).output();
    assert_eq!((output.code(), output.stdout.as_str(), output.stderr.as_str()), (0, "ok\n", ""), "{output}");
    assert_shared(&far);
}

#[test]
fn programs_that_a_command_starts_share_its_budget() {
    let Some(far) = Far::new() else { return };
    let (program, command) = (compile("tests/far/family.c", &[]), built().command.display().to_string());
    let (program, budget, each) = (program.display(), BUDGET, EACH / MIB);
    let most = (BUDGET + BUDGET / 20 + SLACK) / MIB;
    let script = format!("{command} run --memory-bytes {budget} -- {program} {MEMBERS} {each} exec {most}");
    let output = far.script(BUDGET, &script, std::time::Duration::from_secs(60));
    assert_eq!((output.code(), output.stdout.as_str()), (0, "ok\n"), "{output}");
    assert_shared(&far);
}
