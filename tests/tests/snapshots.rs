//! Snapshots and clones, as programs and people see them.
//!
//! Owns: nothing. Called by: `cargo test`. Must not: look into the server.

use netmem_tests::cli::{exported, netmem};
use netmem_tests::{Agent, Engine, Host, Server, on_each_rung};

on_each_rung! {
    a_snapshot_shows_what_was_and_takes_no_write
    a_clone_goes_its_own_way
}

fn a_snapshot_shows_what_was_and_takes_no_write(engine: Engine) {
    let (mut server, host) = (Server::durable(&[]), Host::new(engine));
    let mut agent = Agent::start(&host, server.url());
    let fd = agent.ok("open /netmem/a rwc");
    agent.ok(&format!("truncate {fd} 16384"));
    agent.ok(&format!("map {fd} 0 16384 shared w"));
    agent.ok("fill 0 0 8192 1");
    agent.ok("sync 0 0 16384 s");
    netmem(&server, &["snapshot", "a", "first"]).ok();
    agent.ok("fill 0 0 4096 2");
    agent.ok(&format!("truncate {fd} 6000"));
    agent.ok("sync 0 0 4096 s");
    for round in 0..2 {
        let was = agent.ok("open /netmem/a@first r");
        assert_eq!(agent.ok("size /netmem/a@first"), "16384");
        assert_eq!(agent.ok(&format!("pread {was} 4095 2")), "11", "round {round}");
        assert_eq!(agent.ok(&format!("pread {was} 8191 2")), "1.");
        assert_eq!(agent.ok(&format!("pread {fd} 4095 2")), "21");
        for call in ["open /netmem/a@first rw", "open /netmem/a@first rwc", "unlink /netmem/a@first"] {
            assert_eq!(agent.ask(call), Err("EROFS".to_owned()), "{call}");
        }
        agent.ok(&format!("close {was}"));
        server.restart();
    }
    let was = agent.ok("open /netmem/a@first r");
    netmem(&server, &["snapshot", "--delete", "a", "first"]).ok();
    assert_eq!(agent.ask("open /netmem/a@first r"), Err("ENOENT".to_owned()));
    // Who has it reads on, of pages that were never here too.
    assert_eq!(agent.ok(&format!("pread {was} 4000 1")), "1");
    assert_eq!(agent.end("exit 0").code(), Some(0));
}

fn a_clone_goes_its_own_way(engine: Engine) {
    let (server, host) = (Server::durable(&[]), Host::new(engine));
    let mut agent = Agent::start(&host, server.url());
    let fd = agent.ok("open /netmem/a rwc");
    agent.ok(&format!("pwrite {fd} 0 {}", "1".repeat(3000)));
    agent.ok(&format!("pwrite {fd} 8192 {}", "1".repeat(3000)));
    agent.ok(&format!("fsync {fd}"));
    netmem(&server, &["clone", "a", "b"]).ok();
    let other = agent.ok("open /netmem/b rw");
    agent.ok(&format!("pwrite {other} 8192 22"));
    agent.ok(&format!("fsync {other}"));
    agent.ok(&format!("pwrite {fd} 0 33"));
    agent.ok(&format!("fsync {fd}"));
    assert_eq!(agent.ok(&format!("pread {other} 0 3")), "111");
    assert_eq!(agent.ok(&format!("pread {other} 8192 3")), "221");
    assert_eq!((exported(&server, "a")[8192], exported(&server, "b")[0]), (b'1', b'1'));
    agent.ok("unlink /netmem/a");
    assert_eq!(agent.ok(&format!("pread {other} 10000 1")), "1");
    assert_eq!(agent.end("exit 0").code(), Some(0));
    assert_eq!(exported(&server, "b").len(), 11_192);
}

#[test]
fn the_log_names_commits_and_snapshots_and_pruning_leaves_the_newest() {
    let server = Server::durable(&[]);
    let mut client = server.client();
    let region =
        client.open("a", netmem_protocol::control::Create::IfMissing, 0o644).expect("a region").region;
    for (number, name) in ["one", "two", "three"].into_iter().enumerate() {
        client.resize(region, 4096 * (number as u64 + 1)).expect("a commit");
        let said = netmem(&server, &["snapshot", "a", name]).ok().stdout;
        assert_eq!(said, format!("a@{name} keeps epoch {}\n", number + 2));
    }
    let log = || netmem(&server, &["log", "a"]).ok().stdout;
    let words: Vec<String> =
        log().lines().skip(1).map(|line| line.split_whitespace().last().unwrap_or("").to_owned()).collect();
    assert_eq!(words, ["one", "two", "three"]);
    let would = netmem(&server, &["prune", "--keep", "1", "--dry-run", "a"]).ok().stdout;
    assert_eq!(would.lines().count(), 2, "{would}");
    assert!(log().contains("one"), "nothing was removed");
    assert_eq!(netmem(&server, &["prune", "--older-than", "7d", "a"]).ok().stdout, "");
    netmem(&server, &["prune", "--keep", "1", "a"]).ok();
    assert!(!log().contains("one") && log().contains("three"), "{}", log());
    let missing = netmem(&server, &["snapshot", "nothing", "x"]).output();
    assert_eq!(missing.code(), 1, "{missing}");
    assert_eq!(missing.stderr.lines().count(), 1, "{missing}");
}
