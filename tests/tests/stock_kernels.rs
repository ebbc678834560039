//! The tests of this package on kernels that distributions ship, in a machine that is emulated.
//!
//! Owns: what runs on which kernel, as whom, and under which permissions. Called by: `cargo test`, `make test-vm`. Must not:
//! pass if a part of a plan did not run, or ran no test.

use std::fmt::Write;
use std::process::Command;
use std::time::Duration;

use netmem_tests::built::target_directory;
use netmem_tests::kernel;
use netmem_tests::skip::skip;
use netmem_tests::vm::{BUILT, Console, Vm};

/// Who runs a test binary in the machine. The harness of a root runs what is on the user-mode rung as nobody.
#[derive(Clone, Copy, Debug)]
enum User {
    Root,
    Nobody,
}
use User::{Nobody, Root};

/// One test binary, run in the machine.
struct Part {
    user: User,
    /// Its name, and names or parts of names of its tests; all of them if there is none.
    tests: String,
    /// Variables, as the shell has them.
    variables: &'static str,
    /// A line of shell, before.
    before: &'static str,
}

fn part(user: User, tests: &str) -> Part {
    Part { user, tests: tests.to_owned(), variables: "", before: "" }
}

impl Part {
    fn with(self, variables: &'static str) -> Part {
        Part { variables, ..self }
    }

    fn after(self, before: &'static str) -> Part {
        Part { before, ..self }
    }
}

/// The rung that the library takes by itself, `before` having said what the machine allows.
fn ladder(user: User, before: &'static str, expected: &'static str) -> Part {
    part(user, "ladder").after(before).with(expected)
}

const UFFD: &str = "NETMEM_TEST_EXPECT_ENGINE=uffd";
const UFFD_USER: &str = "NETMEM_TEST_EXPECT_ENGINE=uffd-user";
const MPROTECT: &str = "NETMEM_TEST_EXPECT_ENGINE=sigsegv-mprotect";
/// A rung that should be there and is not is no reason to skip.
const COLD: &str = "NETMEM_TEST_WAYS='two hosts' NETMEM_TEST_REQUIRE=uffd,uffd-user";
const WARM: &str = "NETMEM_TEST_WAYS='one process,two processes'";

/// Programs that the short form runs: what a mapped file is, quick enough under emulation. All of them run in the long one.
const QUICK: [&str; 30] = [
    "append",
    "exit_commits",
    "fallocate_absent",
    "fork_child_sees_and_writes",
    "fork_private_cow",
    "lseek_set_cur_end_data_hole",
    "madvise_dontneed_shared_keeps",
    "map_errors",
    "map_netmem_flag",
    "map_private_isolated",
    "mprotect_none_and_back",
    "msync_errors",
    "open_flags",
    "osync_write",
    "partial_munmap",
    "partial_write_absent",
    "pread_absent",
    "readonly_fd_shared_map",
    "readv_writev",
    "rename_then_open",
    "sigbus_past_end",
    "split_mapping_keeps_stores",
    "store_then_read",
    "tail_zero",
    "threads_fault_together",
    "truncate_shrink_grow_zeros",
    "two_mappings_agree",
    "underscore_exit_commits",
    "unlink_while_mapped",
    "write_then_load",
];

/// In `make test`: quick programs, in two processes of two hosts, each on one of the rungs by turns.
fn short() -> Vec<Part> {
    let rungs = ["uffd", "uffd_user", "sigsegv_mprotect"];
    let mut tests = "programs --exact".to_owned();
    for (name, rung) in QUICK.iter().zip(rungs.iter().cycle()) {
        let _ = write!(tests, " {rung}::{name}");
    }
    vec![
        part(Root, "ladder the_engine").with(UFFD),
        part(Nobody, "ladder the_engine").with(UFFD_USER),
        part(Root, &tests).with(COLD),
    ]
}

/// A few minutes: every program on every rung; what is kept, fork, threads; and what a machine may allow or refuse.
fn usual() -> Vec<Part> {
    vec![
        ladder(Root, "", UFFD),
        ladder(Nobody, "", UFFD_USER),
        ladder(Nobody, "chmod 666 /dev/userfaultfd", UFFD),
        ladder(Nobody, "chmod 600 /dev/userfaultfd", UFFD_USER),
        ladder(Nobody, "echo 1 > /proc/sys/vm/unprivileged_userfaultfd", UFFD),
        part(Nobody, "programs uffd::").with(COLD),
        ladder(Nobody, "echo 0 > /proc/sys/vm/unprivileged_userfaultfd", UFFD_USER),
        part(Nobody, "programs uffd_user:: sigsegv_mprotect::")
            .with(WARM)
            .after("mount -o remount,size=64M /dev/shm"),
        part(Root, "programs uffd:: uffd_user:: sigsegv_mprotect::")
            .with(COLD)
            .after("mount -o remount,size=50% /dev/shm"),
        part(Root, "fork uffd:: uffd_user:: uffd_sigbus:: sigsegv_mprotect::"),
        part(Root, "durability uffd:: uffd_user:: uffd_sigbus:: sigsegv_mprotect::"),
        // Thousands of mprotects under emulation are minutes: the lowest rung's threads are in the full form.
        part(Root, "threads uffd:: uffd_user::"),
        part(Root, "locks uffd:: uffd_user:: sigsegv_mprotect::"),
    ]
}

/// What NETMEM_TEST_VM=full adds.
fn full() -> Vec<Part> {
    vec![
        part(Nobody, "durability uffd_user:: sigsegv_mprotect::"),
        part(Nobody, "fork uffd_user:: sigsegv_mprotect::"),
        part(Root, "threads sigsegv_mprotect::").with("NETMEM_TEST_PATIENCE=12"),
        part(Nobody, "threads uffd_user::"),
        part(Nobody, "programs uffd_user:: sigsegv_mprotect::").with(COLD),
        part(Root, "programs uffd:: uffd_user:: sigsegv_mprotect::").with(WARM),
        part(Root, "bad_input"),
        part(Root, "server_away"),
        part(Root, "races"),
        part(Root, "doors"),
    ]
}

/// A kernel before 5.19: userfaultfd is there, and can't tell of stores into shared memory.
fn old() -> Vec<Part> {
    vec![
        ladder(Root, "", MPROTECT),
        ladder(Nobody, "", MPROTECT),
        part(Root, "programs sigsegv_mprotect::"),
        part(Nobody, "programs sigsegv_mprotect::").with("NETMEM_TEST_WAYS='two hosts'"),
        part(Root, "fork sigsegv_mprotect::"),
        part(Root, "durability sigsegv_mprotect::"),
        part(Root, "threads sigsegv_mprotect::"),
    ]
}

/// The script of these parts. Every part runs, whatever became of those before.
fn plan(parts: &[Part]) -> String {
    let target = target_directory();
    let (deps, programs) = (target.join("debug/deps"), target.join("test-programs"));
    let mut plan = format!(
        "export NETMEM_TEST_BIN_DIR={BUILT} NETMEM_TEST_PREBUILT=1 NETMEM_TEST_STOCK_KERNEL=1 NETMEM_TEST_PATIENCE=4 RUST_BACKTRACE=0\n\
         failed=0\nuname -a\n{BUILT}/netmem doctor\n"
    );
    for Part { user, tests, variables, before } in parts {
        let become_user = match user {
            Root => "",
            Nobody => "setpriv --reuid 65534 --regid 65534 --clear-groups",
        };
        // A lock that another user made can't be opened.
        let _ = write!(
            plan,
            "rm -f {programs}/*.lock\n{before}\n\
             echo 'netmem-vm: {name} as {user:?} {quoted}'\n\
             {variables} timeout -k 5 900 {become_user} {deps}/{tests} --test-threads 3 || failed=1\n",
            programs = programs.display(),
            deps = deps.display(),
            name = tests.split_whitespace().take(4).collect::<Vec<_>>().join(" "),
            quoted = format!("{before} {variables}").replace('\'', ""),
        );
    }
    plan + "exit $failed\n"
}

/// Every part has run tests, and all of them passed.
fn passed(console: &Console, parts: usize) {
    let ends = console.text.lines().filter_map(|line| line.strip_prefix("test result: "));
    let good = ends.clone().filter(|end| end.starts_with("ok. ") && !end.starts_with("ok. 0 passed")).count();
    let bad: Vec<&str> = console.text.lines().filter(|line| line.ends_with("... FAILED")).collect();
    assert!(
        console.status == Some(0) && good == parts && ends.count() == parts,
        "{good} of {parts} parts passed, the plan ended with {:?}\n{}\n---- the console\n{}",
        console.status,
        bad.join("\n"),
        console.text
    );
}

/// Boots a kernel of this series and runs the parts there.
fn on(series: &str, form: &str, parts: Vec<Part>, limit: Duration) {
    if Command::new("qemu-system-x86_64").arg("--version").output().is_err() {
        return skip("vm", "no qemu-system-x86_64: Debian's package is qemu-system-x86");
    }
    let image = match kernel::image(series) {
        Ok(image) => image,
        Err(why) => return skip("vm", &format!("no kernel {series}: {why}")),
    };
    let mut tests: Vec<&str> = parts.iter().filter_map(|part| part.tests.split(' ').next()).collect();
    tests.sort_unstable();
    tests.dedup();
    let vm = Vm { name: format!("{series}-{form}"), image, tests, plan: plan(&parts), limit };
    let console = vm.run();
    println!("{}", console.text);
    passed(&console, parts.len());
}

/// `make test-vm`: the usual parts, or the short ones, or all and more, or a part of the caller's.
fn long(series: &str, usual: Vec<Part>, full: Vec<Part>) {
    let mut parts = usual;
    match (std::env::var("NETMEM_TEST_VM"), std::env::var("NETMEM_TEST_VM_ONLY")) {
        (_, Ok(only)) if !only.is_empty() => parts = vec![part(Root, &only), part(Nobody, &only)],
        (Ok(form), _) if form == "full" => parts.extend(full),
        (Ok(form), _) if form == "short" => parts = short(),
        _ => {}
    }
    on(series, "long", parts, Duration::from_secs(3600));
}

#[test]
fn programs_behave_on_debian_12s_kernel_as_root_and_as_a_user() {
    on("6.1", "short", short(), Duration::from_secs(300));
}

#[test]
#[ignore = "long: make test-vm"]
fn promises_hold_on_linux_6_1_of_debian_12() {
    long("6.1", usual(), full());
}

#[test]
#[ignore = "long: make test-vm"]
fn promises_hold_on_linux_6_12_of_debian_12_and_13() {
    long("6.12", usual(), full());
}

#[test]
#[ignore = "long: make test-vm"]
fn promises_hold_on_linux_5_10_of_debian_11() {
    long("5.10", old(), Vec::new());
}
