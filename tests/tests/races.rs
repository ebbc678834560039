//! Two things at once: addresses and numbers that change hands, sizes that change beside writes, answers that get lost.
//!
//! Owns: the programs of tests/races, each of which attacks one rule. Called by: `cargo test`. Must not: sleep, or count
//! on who comes first: a test that lost its race proves nothing, and passes.

use std::fs;
use std::time::Duration;

use netmem_tests::built::compile;
use netmem_tests::cli::{exported, import};
use netmem_tests::{Agent, Engine, Host, Output, Proxy, Run, Server, on_each_rung};

on_each_rung! {
    a_page_that_comes_late_does_not_land_in_the_next_mapping
    a_page_on_its_way_to_a_process_that_ends_is_had_by_the_next
    a_store_to_a_page_that_was_punched_unseen_is_committed
    a_store_after_a_truncation_down_and_up_is_committed
    what_grows_elsewhere_after_it_shrank_is_seen
    what_grows_elsewhere_below_a_large_mapping_is_seen
    what_is_appended_during_commits_is_committed
    two_writers_beyond_the_end_leave_no_zeros
    a_write_that_meets_a_truncation_ends_no_program
    a_small_file_that_grows_elsewhere_can_be_opened
    a_child_of_a_program_that_has_nothing_of_ours_does_not_hang
    stores_through_several_mappings_are_committed
    a_background_commit_does_not_take_the_next_mappings_stores
    a_peers_commit_does_not_take_the_next_mappings_stores
    a_commit_whose_answer_was_lost_is_not_forgotten
    memory_that_replaced_a_mapping_during_a_time_out_is_left_alone
    a_mapping_is_split_many_times_under_a_load
    a_child_reads_a_file_that_nobody_may_write
    what_a_vfork_child_opens_is_not_its_parents
    o_directory_has_no_third_argument
    a_mapping_that_is_refused_leaves_the_old_one
    a_buffer_behind_the_end_is_efault
    a_received_number_is_what_was_received
    many_files_in_turn_need_few_descriptors
    a_handler_that_blocks_every_signal_may_load
    a_store_beside_a_truncation_and_a_peers_load_is_committed
    a_strict_umask_spoils_no_cache
    what_an_orphan_wrote_last_is_there_for_the_next
    memory_that_replaces_a_mapping_beside_a_fork_is_had_by_children
    what_is_read_beside_a_change_of_protection_can_be_written
    a_mapping_grows_in_place_beside_its_readers
    a_buffer_that_changes_beside_its_call_ends_no_program
    a_private_store_where_a_page_was_given_up_stays
    a_page_that_was_given_up_comes_back_where_it_was_moved
}

const PAGE: usize = 4096;
/// For programs that take a second when nothing is wrong.
const LIMIT: Duration = Duration::from_secs(40);

/// A program of tests/races on a host.
fn race(host: &Host, server: &Server, name: &str, arguments: &[&str]) -> Run {
    let program = compile(&format!("tests/races/{name}.c"), &[]);
    Run::on(host, server.url(), program).args(arguments).limit(LIMIT)
}

/// A program prints what it prints on the kernel's own files.
fn as_on_the_kernel(engine: Engine, name: &str, more: &[&str]) {
    let server = Server::start();
    let run = |host: &Host| -> Output {
        let path = host.path("f");
        race(host, &server, name, &[&[path.as_str()], more].concat()).ok()
    };
    let (reference, ours) = (run(&Host::new(Engine::Kernel)), run(&Host::new(engine)));
    assert_eq!(ours.stdout, reference.stdout, "{ours}");
}

/// An agent with /netmem/f of `pages` pages as mapping 0; its descriptor.
fn open(host: &Host, url: &str, pages: usize, variables: &[(&str, &str)]) -> (Agent, String) {
    let mut agent = Agent::with(host, url, variables);
    let fd = agent.ok("open /netmem/f rwc");
    if agent.ok("size /netmem/f") == "0" {
        agent.ok(&format!("truncate {fd} {}", pages * PAGE));
    }
    agent.ok(&format!("map {fd} 0 {} shared w", pages * PAGE));
    (agent, fd)
}

/// Pages that all begin with the same word.
fn marked(pages: usize, word: u32) -> Vec<u8> {
    let page = |_| word.to_ne_bytes().into_iter().chain(std::iter::repeat_n(b'.', PAGE - 4));
    (0..pages).flat_map(page).collect()
}

/// The pages of /netmem/NAME on the server that do not begin with their number plus one.
fn lost(server: &Server, name: &str) -> Vec<(usize, u32)> {
    let content = exported(server, name);
    let words =
        content.chunks(PAGE).map(|page| u32::from_ne_bytes(page[..4].try_into().expect("a whole page")));
    words.enumerate().filter(|(number, word)| *word as usize != number + 1).collect()
}

/// Whether a page on the server is one letter all over.
fn holds(server: &Server, page: usize, letter: u8) -> bool {
    exported(server, "f")[page * PAGE..][..PAGE].iter().all(|byte| *byte == letter)
}

fn a_page_that_comes_late_does_not_land_in_the_next_mapping(engine: Engine) {
    let (server, host) = (Server::start(), Host::new(engine));
    for (name, word) in [("a", 1), ("b", 2)] {
        import(&server, name, &marked(24 * 64, word));
    }
    let run = race(&host, &server, "address_reused", &["/netmem/a", "/netmem/b", "24"]);
    assert_eq!(run.env("NETMEM_PREFETCH", "256").ok().stdout, "0 wrong\n");
    assert!(exported(&server, "b") == marked(24 * 64, 2), "what was shown wrong was committed");
}

fn a_page_on_its_way_to_a_process_that_ends_is_had_by_the_next(engine: Engine) {
    const PAGES: usize = 4 * 256;
    let (server, host) = (Server::start(), Host::new(engine));
    import(&server, "f", &vec![b'p'; PAGES * PAGE]);
    for piece in 0..4 {
        let (mut first, _) = open(&host, server.url(), PAGES, &[("NETMEM_PREFETCH", "256")]);
        let (mut peer, _) = open(&host, server.url(), PAGES, &[]);
        first.ok(&format!("load 0 {} 1", piece * 256 * PAGE));
        if piece % 2 == 0 {
            first.end("_exit 0");
        } else {
            first.kill();
        }
        // One that was there, and one that may have the place of the one that went.
        let (mut next, _) = open(&host, server.url(), PAGES, &[]);
        let same = format!("same 0 {} {} p", piece * 256 * PAGE, 256 * PAGE);
        assert_eq!((next.ok(&same), peer.ok(&same)), ("yes".to_owned(), "yes".to_owned()));
    }
}

fn a_store_to_a_page_that_was_punched_unseen_is_committed(engine: Engine) {
    const PAGES: usize = 1024;
    let (server, host) = (Server::start(), Host::new(engine));
    import(&server, "f", &vec![b'o'; PAGES * PAGE]);
    let (mut agent, fd) = open(&host, server.url(), PAGES, &[]);
    agent.ok(&format!("punch {fd} {} {}", 512 * PAGE, 512 * PAGE));
    agent.ok(&format!("fsync {fd}"));
    agent.ok(&format!("fill 0 {} 4096 X", 700 * PAGE));
    agent.ok(&format!("sync 0 0 {} s", PAGES * PAGE));
    assert!(holds(&server, 700, b'X') && holds(&server, 701, 0) && holds(&server, 511, b'o'));
}

fn a_store_after_a_truncation_down_and_up_is_committed(engine: Engine) {
    let (server, host) = (Server::start(), Host::new(engine));
    let (mut agent, fd) = open(&host, server.url(), 16, &[]);
    agent.ok("fill 0 20480 4096 A");
    agent.ok("sync 0 0 65536 s");
    agent.ok("fill 0 20480 4096 B");
    agent.ok(&format!("truncate {fd} 4096"));
    agent.ok(&format!("truncate {fd} 65536"));
    agent.ok("fill 0 20480 4096 X");
    agent.ok("sync 0 0 65536 s");
    assert!(holds(&server, 5, b'X'));
}

fn what_grows_elsewhere_after_it_shrank_is_seen(engine: Engine) {
    let (server, here, there) = (Server::start(), Host::new(engine), Host::new(engine));
    import(&server, "f", &[b'o'; 16 * PAGE]);
    let (mut near, _) = open(&here, server.url(), 16, &[]);
    let (mut far, fd) = open(&there, server.url(), 16, &[]);
    assert_eq!(near.ok("same 0 20480 4096 o"), "yes");
    far.ok(&format!("truncate {fd} 4096"));
    far.ok(&format!("fsync {fd}"));
    near.ok("sync 0 0 4096 i");
    far.ok(&format!("truncate {fd} 65536"));
    far.ok("fill 0 20480 4096 n");
    far.ok(&format!("fsync {fd}"));
    near.ok("sync 0 0 4096 i");
    assert_eq!(near.ok("same 0 20480 4096 n"), "yes");
}

fn what_grows_elsewhere_below_a_large_mapping_is_seen(engine: Engine) {
    // So large that a block of it is several pages, on the rungs that have blocks: those behind the end open with it.
    const PAGES: usize = 100_000;
    let (server, here, there) = (Server::start(), Host::new(engine), Host::new(engine));
    import(&server, "f", &[b'o'; 3 * PAGE]);
    let (mut near, _) = open(&here, server.url(), PAGES, &[]);
    let (mut far, fd) = open(&there, server.url(), PAGES, &[]);
    near.ok("store 0 8192 CCC");
    near.ok("sync 0 0 4096 s");
    far.ok(&format!("truncate {fd} {}", 40 * PAGE));
    far.ok("fill 0 12288 4096 n");
    far.ok(&format!("fsync {fd}"));
    near.ok("sync 0 0 4096 i");
    assert_eq!(near.ok("same 0 12288 4096 n"), "yes");
}

fn what_is_appended_during_commits_is_committed(engine: Engine) {
    let (server, host) = (Server::start(), Host::new(engine));
    race(&host, &server, "append_and_sync", &["/netmem/f", "1500"]).ok();
    let content = exported(&server, "f");
    assert_eq!(content.len(), 1500 * 3000);
    let records = content.chunks(3000).enumerate();
    let wrong = records.filter(|(number, record)| record.iter().any(|byte| *byte != (*number as u8 | 1)));
    let wrong: Vec<usize> = wrong.map(|(number, _)| number).collect();
    assert!(wrong.is_empty(), "records {wrong:?}");
}

fn two_writers_beyond_the_end_leave_no_zeros(engine: Engine) {
    as_on_the_kernel(engine, "grow_together", &["6000"]);
}

fn a_write_that_meets_a_truncation_ends_no_program(engine: Engine) {
    as_on_the_kernel(engine, "write_and_truncate", &["4000"]);
}

fn what_an_orphan_wrote_last_is_there_for_the_next(engine: Engine) {
    let server = Server::start();
    let host = Host::new(engine);
    let directory = host.netmem().display().to_string();
    let output = race(&host, &server, "daemon_and_open", &[&directory, "50"]).ok();
    assert_eq!(output.stdout, "0 wrong\n", "{output}");
}

fn a_small_file_that_grows_elsewhere_can_be_opened(engine: Engine) {
    let (server, here, there) = (Server::start(), Host::new(engine), Host::new(engine));
    let local = here.files().join("small");
    fs::write(&local, "small\n").expect("a file");
    Run::on(&here, server.url(), "/bin/cp").arg(&local).arg("/netmem/f").ok();
    let (mut far, fd) = open(&there, server.url(), 1, &[]);
    far.ok(&format!("truncate {fd} {}", 256 * PAGE));
    far.ok(&format!("map {fd} 0 {} shared w", 256 * PAGE));
    far.ok(&format!("fill 1 4096 {} g", 255 * PAGE));
    far.ok(&format!("fsync {fd}"));
    let output = Run::on(&here, server.url(), "/bin/cat").arg("/netmem/f").ok();
    assert!(output.stdout.len() == 256 * PAGE && output.stdout.starts_with("small\n\0"));
    assert!(output.stdout[PAGE..].bytes().all(|byte| byte == b'g'));
}

fn a_child_of_a_program_that_has_nothing_of_ours_does_not_hang(engine: Engine) {
    let (server, host) = (Server::start(), Host::new(engine));
    assert_eq!(race(&host, &server, "fork_and_stat", &["200"]).ok().stdout, "alive\n");
}

#[test]
fn a_child_walks_what_its_parents_threads_were_walking() {
    let (server, host) = (Server::start(), Host::new(netmem_tests::engine::best()));
    assert_eq!(race(&host, &server, "fork_and_walk", &["/netmem/d", "300"]).ok().stdout, "alive\n");
}

#[test]
fn a_fork_that_is_refused_leaves_nothing_behind() {
    let (server, host) = (Server::with(&["--max-regions", "8"]), Host::new(netmem_tests::engine::best()));
    race(&host, &server, "failed_forks", &["30"]).ok();
}

fn stores_through_several_mappings_are_committed(engine: Engine) {
    let (server, host) = (Server::start(), Host::new(engine));
    race(&host, &server, "store_and_sync", &["/netmem/f", "2048", "8"]).ok();
    assert_eq!(lost(&server, "f"), []);
}

fn a_background_commit_does_not_take_the_next_mappings_stores(engine: Engine) {
    let (server, host) = (Server::start(), Host::new(engine));
    race(&host, &server, "sync_and_reuse", &["/netmem/a", "/netmem/f", "800", "async"]).ok();
    assert_eq!(lost(&server, "f"), []);
}

fn a_peers_commit_does_not_take_the_next_mappings_stores(engine: Engine) {
    let (server, host) = (Server::start(), Host::new(engine));
    race(&host, &server, "sync_and_reuse", &["/netmem/a", "/netmem/f", "800", "peer"]).ok();
    assert_eq!(lost(&server, "f"), []);
}

/// Short, and without lines that say what the test did to the wire.
const HASTY: &[(&str, &str)] =
    &[("NETMEM_TIMEOUT_MS", "700"), ("NETMEM_LOG", "off"), ("NETMEM_PREFETCH", "off")];

fn a_commit_whose_answer_was_lost_is_not_forgotten(engine: Engine) {
    let (server, host) = (Server::start(), Host::new(engine));
    let wire = Proxy::to(server.address());
    let (mut agent, _) = open(&host, wire.url(), 4, HASTY);
    agent.ok("fill 0 0 4096 o");
    agent.ok("sync 0 0 16384 s");
    agent.ok("store 0 100 n");
    wire.mute();
    assert_eq!(agent.ask("sync 0 0 16384 s"), Err("EIO".to_owned()));
    wire.cut();
    wire.heal();
    // As it was at the last commit that was answered, and not as it is on the server.
    agent.ok("store 0 100 o");
    agent.ok("sync 0 0 16384 s");
    assert!(holds(&server, 0, b'o'));
    agent.ok("sync 0 0 16384 i");
    assert_eq!(agent.ok("same 0 0 4096 o"), "yes");
}

fn memory_that_replaced_a_mapping_during_a_time_out_is_left_alone(engine: Engine) {
    let (server, host) = (Server::start(), Host::new(engine));
    import(&server, "f", &[b'f'; 64 * PAGE]);
    let wire = Proxy::to(server.address());
    let variables = [("NETMEM_TIMEOUT_MS", "2000"), ("NETMEM_LOG", "off"), ("NETMEM_PREFETCH", "64")];
    let (mut agent, _) = open(&host, wire.url(), 64, &variables);
    wire.stall();
    agent.tell("aside load 0 0 1");
    wire.wait_until_held();
    let (from, length) = (8 * PAGE, 56 * PAGE);
    agent.ok(&format!("unmap 0 {from} {length}"));
    agent.ok(&format!("anonymous 0 {from} {length}"));
    agent.ok(&format!("fill 0 {from} {length} m"));
    assert_eq!(agent.ask("join"), Err("SIGBUS".to_owned()));
    assert_eq!(agent.ok(&format!("same 0 {from} {length} m")), "yes");
}

fn a_mapping_is_split_many_times_under_a_load(engine: Engine) {
    const PAGES: usize = 4096;
    let (server, host) = (Server::start(), Host::new(engine));
    import(&server, "f", &vec![b'f'; PAGES * PAGE]);
    let wire = Proxy::to(server.address());
    let (mut agent, _) = open(&host, wire.url(), PAGES, &[("NETMEM_PREFETCH", "off")]);
    wire.stall();
    agent.tell(&format!("aside load 0 {} 2", (PAGES - 6) * PAGE));
    wire.wait_until_held();
    for page in 1..1500 {
        let protection = if page % 2 == 1 { "r" } else { "rw" };
        agent.ok(&format!("protect 0 {} 4096 {protection}", page * PAGE));
    }
    wire.heal();
    assert_eq!(agent.ok("join"), "ff");
    assert_eq!(agent.ok(&format!("same 0 {} 8192 f", 700 * PAGE)), "yes");
}

fn a_child_reads_a_file_that_nobody_may_write(engine: Engine) {
    let (server, host) = (Server::start(), Host::new(engine));
    let script = "printf readable > /netmem/f && chmod 444 /netmem/f && ls -l /netmem/f";
    let made = Run::on(&host, server.url(), "/bin/sh").args(["-c", script]).ok();
    assert!(made.stdout.starts_with("-r--r--r--"), "{made}");
    let mut agent = Agent::start(&host, server.url());
    let fd = agent.ok("open /netmem/f r");
    assert_eq!(agent.ok(&format!("forked pread {fd} 0 8")), "readable");
    assert_eq!(agent.ok(&format!("forked forked pread {fd} 4 4")), "able");
}

fn what_a_vfork_child_opens_is_not_its_parents(engine: Engine) {
    let (server, host) = (Server::start(), Host::new(engine));
    import(&server, "f", b"here");
    let output = race(&host, &server, "vfork_child_opens", &["/netmem/f"]).ok();
    assert_eq!(output.stdout, "child 0, then 4 bytes: here\n");
}

fn o_directory_has_no_third_argument(engine: Engine) {
    as_on_the_kernel(engine, "open_directory", &[]);
}

fn a_mapping_that_is_refused_leaves_the_old_one(engine: Engine) {
    as_on_the_kernel(engine, "failed_map_fixed", &[]);
}

fn a_buffer_behind_the_end_is_efault(engine: Engine) {
    as_on_the_kernel(engine, "read_behind_the_end", &[]);
}

fn a_received_number_is_what_was_received(engine: Engine) {
    let (server, host) = (Server::start(), Host::new(engine));
    import(&server, "f", b"here");
    let output = race(&host, &server, "received_number", &["/netmem/f"]).ok();
    assert_eq!(output.stdout, "4 bytes: here\n");
}

fn many_files_in_turn_need_few_descriptors(engine: Engine) {
    as_on_the_kernel(engine, "descriptors_come_back", &["120"]);
}

fn a_handler_that_blocks_every_signal_may_load(engine: Engine) {
    let (server, host) = (Server::start(), Host::new(engine));
    import(&server, "f", &[b'h'; 64 * PAGE]);
    let output = race(&host, &server, "handler_loads", &["/netmem/f"]).ok();
    assert_eq!(output.stdout, "in a handler: h\nafter it: h\n");
}

/// A truncation drops the protection of the pages that go; what comes back through another process is not protected here.
fn a_store_beside_a_truncation_and_a_peers_load_is_committed(engine: Engine) {
    const PAGES: usize = 2048;
    let (server, host) = (Server::start(), Host::new(engine));
    let (mut one, fd) = open(&host, server.url(), PAGES, &[]);
    let (mut peer, _) = open(&host, server.url(), PAGES, &[]);
    one.ok(&format!("fill 0 {} 4096 A", 700 * PAGE));
    one.ok(&format!("truncate {fd} 4096"));
    one.ok(&format!("truncate {fd} {}", PAGES * PAGE));
    assert_eq!(peer.ok(&format!("load 0 {} 1", 700 * PAGE)), ".");
    one.ok(&format!("fill 0 {} 4096 X", 700 * PAGE));
    one.ok(&format!("sync 0 0 {} s", PAGES * PAGE));
    assert!(holds(&server, 700, b'X'));
}

/// The cache's own files are not the program's: its umask must not keep the next program, or this one, out of them.
fn a_strict_umask_spoils_no_cache(engine: Engine) {
    let (server, host) = (Server::start(), Host::new(engine));
    let script = "umask 0333 && printf x > /netmem/f && mkdir /netmem/d && printf y > /netmem/g";
    Run::on(&host, server.url(), "/bin/sh").args(["-c", script]).ok();
    let output =
        Run::on(&host, server.url(), "/bin/sh").args(["-c", "cat /netmem/f /netmem/g; ls -d /netmem/d"]).ok();
    assert_eq!(output.stdout, "xy/netmem/d\n");
}

fn memory_that_replaces_a_mapping_beside_a_fork_is_had_by_children(engine: Engine) {
    as_on_the_kernel(engine, "fork_and_reuse", &[]);
}

fn what_is_read_beside_a_change_of_protection_can_be_written(engine: Engine) {
    as_on_the_kernel(engine, "protect_and_load", &[]);
}

fn a_mapping_grows_in_place_beside_its_readers(engine: Engine) {
    as_on_the_kernel(engine, "grow_in_place", &[]);
}

fn a_buffer_that_changes_beside_its_call_ends_no_program(engine: Engine) {
    for change in ["size", "protection", "mapping"] {
        // Where a page has to be let through for the kernel and stays so until the next change only, a copy takes many tries.
        let rounds = if engine == Engine::UffdUserSync { "150" } else { "2000" };
        as_on_the_kernel(engine, "buffer_and_change", &[change, rounds]);
    }
}

/// A program on a wire on which page 0 of its mapping 0 and page 0 of its mapping 1 could not be had; its descriptor.
fn given_up(server: &Server, host: &Host, wire: &Proxy) -> (Agent, String) {
    import(server, "f", &[b'f'; 4 * PAGE]);
    let variables = [("NETMEM_TIMEOUT_MS", "300"), ("NETMEM_LOG", "off"), ("NETMEM_PREFETCH", "off")];
    let (mut agent, fd) = open(host, wire.url(), 4, &variables);
    agent.ok(&format!("map {fd} 0 {} shared w", 4 * PAGE));
    wire.stall();
    for mapping in 0..2 {
        assert_eq!(agent.ask(&format!("load {mapping} {} 1", mapping * PAGE)), Err("SIGBUS".to_owned()));
    }
    (agent, fd)
}

/// Until a page can be had again.
fn until_loaded(agent: &mut Agent, load: &str) {
    let start = std::time::Instant::now();
    while agent.ask(load) != Ok("f".to_owned()) {
        assert!(start.elapsed() < Duration::from_secs(20), "{load}: for good");
    }
}

fn a_private_store_where_a_page_was_given_up_stays(engine: Engine) {
    let (server, host) = (Server::start(), Host::new(engine));
    let wire = Proxy::to(server.address());
    let (mut agent, fd) = given_up(&server, &host, &wire);
    agent.ok(&format!("own 0 0 {PAGE} {fd}"));
    wire.heal();
    // By a call, of which the thread that looks after lost pages learns later than the store.
    while agent.ask(&format!("pread {fd} 0 1")) != Ok("f".to_owned()) {}
    agent.ok("fill 0 0 4096 m");
    // Lost pages come back in turn: when the second is here, the first was.
    until_loaded(&mut agent, &format!("load 1 {PAGE} 1"));
    assert_eq!(agent.ok("same 0 0 4096 m"), "yes");
}

fn a_page_that_was_given_up_comes_back_where_it_was_moved(engine: Engine) {
    let (server, host) = (Server::start(), Host::new(engine));
    let wire = Proxy::to(server.address());
    let (mut agent, _) = given_up(&server, &host, &wire);
    match agent.ask(&format!("move 1 0 {}", 4 * PAGE)) {
        Ok(_) => {}
        // Where the kernel can't poison (before 6.6) the page's place is another mapping, and several can't move.
        Err(refused) => return assert_eq!(refused, "EFAULT"),
    }
    wire.heal();
    until_loaded(&mut agent, &format!("load 1 {PAGE} 1"));
}
