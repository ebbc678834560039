//! Each program of tests/programs does on every rung what it does on the kernel's own files.
//!
//! Owns: the list of programs. Called by: `cargo test`. Must not: keep expected output: the kernel's is the reference.

use std::collections::BTreeMap;
use std::fs;
use std::sync::{Mutex, PoisonError};

use netmem_tests::built::{alone, program, root};
use netmem_tests::skip::skip;
use netmem_tests::{Engine, Host, Output, Run, Server};

/// The ways to run one: in one process; in two on one host; in two on two hosts, so that the second finds no page here.
const WAYS: [(&str, &[(&str, bool)]); 3] = [
    ("one process", &[("", false)]),
    ("two processes", &[("write", false), ("check", false)]),
    ("two hosts", &[("write", false), ("check", true)]),
];

/// Those that NETMEM_TEST_WAYS names, separated by commas: a slow machine takes some.
fn ways() -> impl Iterator<Item = (&'static str, &'static [(&'static str, bool)])> {
    let some = std::env::var("NETMEM_TEST_WAYS").ok();
    WAYS.into_iter()
        .filter(move |(way, _)| some.as_ref().is_none_or(|some| some.split(',').any(|one| one == *way)))
}

fn run(name: &str, host: &Host, server: &Server, phase: &str) -> Output {
    let run = Run::on(host, server.url(), program(name)).arg(host.netmem());
    if phase.is_empty() { run.output() } else { run.arg(phase).output() }
}

/// What the kernel gives, asked once in a process. POSIX shared memory has one namespace, so that one program runs at a time.
fn reference(name: &str, server: &Server, phases: &[(&str, bool)]) -> Vec<Output> {
    type Answers = BTreeMap<String, Vec<Output>>;
    static KNOWN: Mutex<Answers> = Mutex::new(BTreeMap::new());
    let known = || KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let key = format!("{name} {phases:?}");
    if let Some(outputs) = known().get(&key) {
        return outputs.clone();
    }
    let _alone = (name == "shm_open_door").then(|| alone("reference.lock"));
    let host = Host::new(Engine::Kernel);
    let outputs: Vec<Output> = phases.iter().map(|(phase, _)| run(name, &host, server, phase)).collect();
    known().insert(key, outputs.clone());
    outputs
}

fn compare(name: &str, engine: Engine) {
    let Some(engine) = engine.require() else { return };
    for (way, phases) in ways() {
        let server = Server::start();
        let expected = reference(name, &server, phases);
        let (first, second) = (Host::new(engine), Host::new(engine));
        for ((phase, cold), expected) in phases.iter().zip(expected) {
            if expected.stdout.contains("FAIL") && std::env::var_os("NETMEM_TEST_STOCK_KERNEL").is_some() {
                // What an older kernel does not have is no reference for us.
                return skip("kernel", &format!("{name}: this kernel itself does not: {expected}"));
            }
            assert!(!expected.stdout.contains("FAIL"), "the reference itself: {expected}");
            let output = run(name, if *cold { &second } else { &first }, &server, phase);
            let same = output.stdout == expected.stdout && output.code() == expected.code();
            assert!(same, "{way} {phase}: {output}\n---- the kernel's\n{expected}");
            assert_eq!(output.stderr, expected.stderr, "{way} {phase}: {output}");
        }
    }
}

macro_rules! programs {
    ($($engine:ident $module:ident),*; $names:tt) => {
        $(mod $module { on_engine!($engine $names); })*
        listed!($names);
    };
}

macro_rules! on_engine {
    ($engine:ident ($($name:ident),* $(,)?)) => {
        $(#[test] fn $name() { super::compare(stringify!($name), netmem_tests::Engine::$engine); })*
    };
}

macro_rules! listed {
    (($($name:ident),* $(,)?)) => { const LISTED: &[&str] = &[$(stringify!($name)),*]; };
}

programs!(
    Uffd uffd, UffdSync uffd_sync, UffdUser uffd_user, UffdUserSync uffd_user_sync, UffdSigbus uffd_sigbus,
    SigsegvGuard sigsegv_guard, SigsegvMprotect sigsegv_mprotect;
    (
        abort_keeps_synced,
        advice_of_other_names,
        append,
        attributes,
        buffers_beside_msync,
        buffers_of_files,
        buffers_of_requests,
        buffers_of_sockets,
        buffers_of_structs,
        children_of_every_kind,
        daemons_close_everything,
        description_locks,
        dup_shares_offset,
        exec_from_a_directory,
        exit_commits,
        exit_ways,
        fallocate_absent,
        faults_have_their_codes,
        fcntl_getfl_and_dupfd,
        fork_beside_fflush,
        fork_child_sees_and_writes,
        fork_private_cow,
        hard_links,
        kernel_aio,
        libraries,
        lseek_set_cur_end_data_hole,
        madvise_dontneed_shared_keeps,
        madvise_every_advice,
        madvise_fork_wishes,
        madvise_guards,
        map_errors,
        map_every_mode_of_open,
        map_fixed,
        map_flags,
        map_netmem_flag,
        map_private_isolated,
        mappings_run_out,
        mincore_tells,
        mkdir_readdir_rmdir,
        mlock_brings_in,
        moving_bytes,
        mprotect_none_and_back,
        mremap_moves,
        msync_errors,
        name_errors,
        open_flags,
        osync_write,
        partial_munmap,
        partial_write_absent,
        paths_in_and_out,
        pread_absent,
        private_shows_until_written,
        process_shared_locks,
        protect_page_by_page,
        raw_syscalls,
        readonly_fd_shared_map,
        readv_writev,
        record_locks,
        relative_paths_chdir,
        remap_file_pages_and_keys,
        rename_then_open,
        segv_handlers,
        segv_masks,
        segv_old_functions,
        segv_stacks,
        shared_offset_readers,
        shm_open_door,
        sigbus_past_end,
        signals_by_number,
        split_mapping_keeps_stores,
        stat_family_sizes,
        stdin_redirect_read,
        stdio_standard,
        stdio_streams,
        stdio_write_fails,
        stdout_append,
        store_then_read,
        symbolic_links,
        syscall_function,
        tail_zero,
        temporary_names,
        temporary_streams,
        threads_fault_together,
        times,
        truncate_shrink_grow_zeros,
        truncate_under_mappings,
        two_mappings_agree,
        underscore_exit_commits,
        unlink_while_mapped,
        walks,
        wide_streams,
        write_then_load,
        wrong_offsets,
    )
);

#[test]
fn every_program_of_the_directory_is_in_the_list() {
    let mut there: Vec<String> = fs::read_dir(root().join("tests/programs"))
        .expect("tests/programs")
        .flatten()
        .filter_map(|entry| entry.file_name().to_string_lossy().strip_suffix(".c").map(str::to_owned))
        .collect();
    there.sort();
    assert_eq!(LISTED, there);
}

#[test]
fn the_engine_that_was_asked_for_is_the_one_that_runs() {
    for engine in netmem_tests::engine::RUNGS {
        let Some(engine) = engine.require() else { continue };
        let (server, host) = (Server::start(), Host::new(engine));
        let stats = host.files().join("stats");
        Run::on(&host, server.url(), program("store_then_read"))
            .arg("/netmem")
            .env("NETMEM_STATS", &stats)
            .ok();
        let text = fs::read_to_string(&stats).expect("NETMEM_STATS");
        assert_eq!(
            text.lines().next(),
            Some(format!("engine {}", engine.name()).as_str()),
            "{engine}: {text}"
        );
    }
}
