//! Random sequences of calls on files, mappings, threads and processes: after each, what there is to see is what there is on a
//! local file.
//!
//! Owns: seeds and lengths. Called by: `cargo test`. Must not: keep expected answers: the kernel's are the reference.
//!
//! NETMEM_MODEL_SEED, NETMEM_MODEL_OPS and NETMEM_MODEL_RUNS choose others. A failure prints the shortest script found that shows
//! it: mended, it is kept as tests/model/scripts/NAME.txt, which runs on every rung from then on.

use std::fs;
use std::time::{Duration, SystemTime};

use netmem_tests::built::{compile, root};
use netmem_tests::engine::RUNGS;
use netmem_tests::model::{Ground, compare, explore, generate, play, read, report};
use netmem_tests::{Engine, Host, Run, Server, on_each_rung};

on_each_rung! {
    known_sequences_leave_what_they_leave_on_a_local_file
    a_new_sequence_leaves_what_it_leaves_on_a_local_file
    every_kept_script_does_what_it_does_on_a_local_file
    owners_of_bytes_lose_none_whatever_others_do_beside_them
    pages_that_come_late_and_in_pieces_change_nothing_whether_prefetched_or_not
}

/// The sequences that every run plays.
const SEED: u64 = 7_117_000;
const RUNS: u64 = 8;
const OPERATIONS: usize = 120;
/// How long a failure may be made smaller.
const PATIENCE: Duration = Duration::from_secs(40);

fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text}: a number is wanted")))
}

/// Nobody has seen it before; it is printed if it fails.
fn new_seed() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a time after 1970");
    now.as_nanos() as u64
}

fn operations(otherwise: usize) -> usize {
    setting("NETMEM_MODEL_OPS").map_or(otherwise, |operations| operations as usize)
}

fn known_sequences_leave_what_they_leave_on_a_local_file(engine: Engine) {
    explore(engine, SEED, RUNS, OPERATIONS, PATIENCE);
}

fn a_new_sequence_leaves_what_it_leaves_on_a_local_file(engine: Engine) {
    let seed = setting("NETMEM_MODEL_SEED").unwrap_or_else(new_seed);
    println!("NETMEM_MODEL_SEED={seed}");
    explore(engine, seed, setting("NETMEM_MODEL_RUNS").unwrap_or(1), operations(OPERATIONS), PATIENCE);
}

fn every_kept_script_does_what_it_does_on_a_local_file(engine: Engine) {
    let directory = root().join("tests/model/scripts");
    let mut paths: Vec<_> =
        fs::read_dir(directory).expect("scripts").flatten().map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        let script = read(&path);
        if let Some(difference) = compare(engine, &script) {
            panic!("{} on {engine}\n{}", path.display(), report(&script, &difference));
        }
    }
}

/// The wire passes small pieces on, and none of them at once; what is fetched ahead comes even later than it was wanted.
fn late(engine: Engine, runs: u64, operations: usize, patience: Duration) {
    let seed = setting("NETMEM_MODEL_SEED").unwrap_or_else(new_seed);
    println!("NETMEM_MODEL_SEED={seed}");
    for prefetch in ["off", "auto", "64"] {
        let late = Some(Duration::from_millis(1));
        let ground = Ground { engine, prefetch: Some(prefetch), late, packed: prefetch != "off" };
        explore(ground, seed, runs, operations, patience);
    }
}

fn pages_that_come_late_and_in_pieces_change_nothing_whether_prefetched_or_not(engine: Engine) {
    late(engine, 1, operations(60), PATIENCE);
}

/// Processes and threads that nobody orders; each has bytes of its own, and what it leaves there is known beforehand.
fn together(engine: Engine, crowd: [&str; 3], seed: u64) {
    println!("seed {seed}");
    let (server, host, cold) = (Server::start(), Host::new(engine), Host::new(engine));
    let program = compile("tests/model/together.c", &[]);
    for (host, what) in [(&host, "run"), (&host, "check"), (&cold, "check")] {
        let run = Run::on(host, server.url(), &program).arg(host.path("f")).arg(what);
        let output = run.args(crowd).arg(seed.to_string()).output();
        assert_eq!((output.stdout.as_str(), output.code()), ("0 wrong\n", 0), "seed {seed}: {output}");
    }
}

fn owners_of_bytes_lose_none_whatever_others_do_beside_them(engine: Engine) {
    together(engine, ["2", "2", "1500"], setting("NETMEM_MODEL_SEED").unwrap_or_else(new_seed));
}

mod long {
    use super::{Duration, Engine, explore, late, new_seed, operations, setting, together};
    use netmem_tests::on_each_rung;

    // Minutes of new sequences on each rung.
    on_each_rung! {
        #[ignore = "long: make test-long"]
        many_new_sequences
        #[ignore = "long: make test-long"]
        larger_crowds
        #[ignore = "long: make test-long"]
        many_sequences_over_a_late_wire
    }

    fn many_sequences_over_a_late_wire(engine: Engine) {
        let runs = setting("NETMEM_MODEL_RUNS").unwrap_or(12);
        late(engine, runs, operations(200), Duration::from_secs(240));
    }

    fn larger_crowds(engine: Engine) {
        for round in 0..6 {
            let crowd = if round % 2 == 0 { ["4", "4", "6000"] } else { ["1", "10", "9000"] };
            together(engine, crowd, new_seed());
        }
    }

    fn many_new_sequences(engine: Engine) {
        let seed = setting("NETMEM_MODEL_SEED").unwrap_or_else(new_seed);
        println!("NETMEM_MODEL_SEED={seed}");
        explore(
            engine,
            seed,
            setting("NETMEM_MODEL_RUNS").unwrap_or(150),
            operations(300),
            Duration::from_secs(240),
        );
    }
}

/// Without it, nothing that the others find means anything.
#[test]
fn the_reference_gives_the_same_answers_twice() {
    explore(
        Engine::Kernel,
        SEED,
        setting("NETMEM_MODEL_RUNS").unwrap_or(4),
        operations(OPERATIONS),
        PATIENCE,
    );
}

/// NETMEM_MODEL_SCRIPT is a file, NETMEM_MODEL_ENGINE the number of a rung: both transcripts side by side, for whoever looks for
/// the cause of a difference. Without a file, the script of NETMEM_MODEL_SEED.
#[test]
#[ignore = "a tool: prints what a script does"]
fn a_script_of_ones_own() {
    let script = match std::env::var_os("NETMEM_MODEL_SCRIPT") {
        Some(path) => read(path.as_ref()),
        None => generate(setting("NETMEM_MODEL_SEED").unwrap_or(SEED), operations(OPERATIONS)),
    };
    let rung = setting("NETMEM_MODEL_ENGINE").map_or(Engine::Kernel, |number| RUNGS[number as usize]);
    let (reference, ours) = (play(Engine::Kernel, &script), play(rung, &script));
    for ((line, expected), (_, got)) in reference.answers.iter().zip(&ours.answers) {
        println!("{line}\n    {expected}");
        if expected != got {
            println!("  ! {got}");
        }
    }
    print!("{}", ours.stderr);
}
