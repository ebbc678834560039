//! Hosts that do something to one file, or one name, at the same time.
//!
//! Owns: nothing. Called by: the test runner. Must not: sleep, or count on who comes first.

use std::time::Duration;

use netmem_tests::built::compile;
use netmem_tests::cli::{exported, import};
use netmem_tests::{Agent, Engine, Host, Run, Server, on_each_rung};

on_each_rung! {
    a_file_that_another_host_replaces_all_the_time_is_whole
    what_two_hosts_append_is_not_cut_by_the_later
    what_a_write_with_flags_of_its_own_stored_is_committed
    what_is_appended_while_another_host_makes_the_file_longer_is_committed
}

const PAGE: usize = 4096;
/// For programs that take a second or two when nothing is wrong.
const LIMIT: Duration = Duration::from_secs(50);

fn a_file_that_another_host_replaces_all_the_time_is_whole(engine: Engine) {
    let (server, here, there) = (Server::start(), Host::new(engine), Host::new(engine));
    let words: Vec<u8> = (0..12 * 1024).flat_map(|_| 1u32.to_ne_bytes()).collect();
    import(&server, "file", &words);
    let program = compile("tests/races/replaced.c", &[]);
    std::thread::scope(|scope| {
        let run = |host: &Host, arguments: &[&str]| {
            Run::on(host, server.url(), &program).args(arguments).limit(LIMIT).ok()
        };
        let reader = scope.spawn(move || run(&here, &["r", "/netmem"]));
        run(&there, &["w", "/netmem", "1500"]);
        assert_eq!(reader.join().expect("a reader").stdout, "0 wrong\n");
    });
}

fn what_two_hosts_append_is_not_cut_by_the_later(engine: Engine) {
    let (server, here, there) = (Server::start(), Host::new(engine), Host::new(engine));
    import(&server, "f", &[b'0'; PAGE]);
    let (mut one, mut other) = (Agent::start(&here, server.url()), Agent::start(&there, server.url()));
    let (mine, theirs) = (one.ok("open /netmem/f rw"), other.ok("open /netmem/f rw"));
    one.ok(&format!("pwrite {mine} {PAGE} mine"));
    other.ok(&format!("pwrite {theirs} {} theirs", 9 * PAGE));
    other.ok(&format!("fsync {theirs}"));
    one.ok(&format!("fsync {mine}"));
    assert_eq!(one.ok("size /netmem/f"), (9 * PAGE + 6).to_string());
    assert_eq!(one.ok(&format!("pread {mine} {} 6", 9 * PAGE)), "theirs");
    let content = exported(&server, "f");
    assert_eq!(content.len(), 9 * PAGE + 6);
    assert_eq!((&content[PAGE..PAGE + 4], &content[9 * PAGE..]), (&b"mine"[..], &b"theirs"[..]));
}

fn what_a_write_with_flags_of_its_own_stored_is_committed(engine: Engine) {
    let (server, host) = (Server::start(), Host::new(engine));
    import(&server, "f", &[b'0'; 3 * PAGE + 100]);
    Run::on(&host, server.url(), compile("tests/races/flags_of_writes.c", &[]))
        .arg("/netmem/f")
        .limit(LIMIT)
        .ok();
    let content = exported(&server, "f");
    assert_eq!(content.len(), 3 * PAGE + 104);
    assert_eq!((&content[PAGE..PAGE + 5], &content[3 * PAGE + 100..]), (&b"mark0"[..], &b"mark"[..]));
}

fn what_is_appended_while_another_host_makes_the_file_longer_is_committed(engine: Engine) {
    let (server, here, there, third) =
        (Server::start(), Host::new(engine), Host::new(engine), Host::new(engine));
    import(&server, "f", b"0");
    let program = compile("tests/races/append_beside_growth.c", &[]);
    let places = here.files().join("places").display().to_string();
    let run = |host: &Host, what: &str| {
        Run::on(host, server.url(), &program).args([what, "/netmem/f", &places]).limit(LIMIT).ok().stdout
    };
    std::thread::scope(|scope| {
        scope.spawn(|| run(&there, "g"));
        run(&here, "a");
    });
    assert_eq!(run(&third, "c"), "0 lost\n");
}
