//! What can't be done is refused as the kernel refuses it, or with one line that says why; and nothing is lost.
//!
//! Owns: nothing. Called by: `cargo test`. Must not: keep the kernel's answers: they are asked for.

use netmem_tests::cli::{bytes_at, exported, netmem};
use netmem_tests::engine::best;
use netmem_tests::{Agent, Engine, Host, Run, Server, on_each_rung};

on_each_rung! {
    what_the_kernel_refuses_is_refused_alike
    a_range_that_is_half_ours_behaves_as_one
    a_store_that_is_full_is_enospc_and_loses_nothing
}

/// The answers to each line, on a host.
fn answers(host: &Host, server: &Server, script: &str) -> Vec<String> {
    let mut agent = Agent::start(host, server.url());
    let lines = script.lines().map(str::trim).filter(|line| !line.is_empty());
    lines
        .map(|line| {
            let answer = agent.ask(&line.replace("DIR", &host.netmem().display().to_string()));
            let answer = answer.map_or_else(|why| format!("-> {why}"), |value| format!("-> ok {value}"));
            format!("{line} {answer}")
        })
        .collect()
}

/// The kernel's answers and ours are the same, descriptor numbers included.
fn alike(engine: Engine, script: &str) -> Server {
    let server = Server::start();
    let reference = answers(&Host::new(Engine::Kernel), &server, script);
    let ours = answers(&Host::new(engine), &server, script);
    for (ours, reference) in ours.iter().zip(&reference) {
        assert_eq!(ours, reference, "\nall of it: {reference:#?}");
    }
    server
}

fn what_the_kernel_refuses_is_refused_alike(engine: Engine) {
    let long = "x".repeat(256);
    let script = format!(
        "open DIR/f rwcx
         open DIR/f rwcx
         open DIR/missing rw
         open DIR/missing/f rwc
         open DIR/f/below rwc
         open DIR/{long} rwc
         open DIR rw
         open DIR r
         mkdir DIR/d
         mkdir DIR/d
         mkdir DIR/f
         open DIR/d/../f r
         open DIR/./d/./../f rw
         size DIR/d/../f
         rename DIR/missing DIR/g
         rename DIR/f DIR/d
         rename DIR/d DIR/f
         unlink DIR/d
         unlink DIR/missing
         truncate 3 20480
         truncate 3 -1
         truncate 5 4096
         map 3 100 4096 shared w
         map 3 0 0 shared w
         map 3 -4096 4096 shared w
         map 5 0 4096 shared w
         map 5 0 4096 shared r
         map 99 0 4096 shared r
         map 3 0 32768 shared w
         load 1 20479 1
         load 1 20480 1
         store 1 24576 x
         map 3 40960 8192 shared w
         load 2 0 1
         sync 1 0 0 s
         sync 1 1 4096 s
         sync 1 0 4096 sa
         sync 1 0 4096 s?
         sync 1 0 1 s
         sync 1 0 4097 s
         protect 1 1 4096 r
         protect 1 0 0 r
         unmap 1 1 4096
         unmap 1 0 0
         unmap 1 8192 4096
         sync 1 0 32768 s
         load 1 8192 1
         load 1 4096 1
         protect 1 0 32768 r
         pread 3 20480 10
         pread 3 999999999 10
         pread 3 -1 10
         pwrite 5 0 x
         fsync 99
         close 99
         close 3
         close 3
         load 1 0 1"
    );
    alike(engine, &script);
}

fn a_range_that_is_half_ours_behaves_as_one(engine: Engine) {
    let script = "open DIR/f rwc
        truncate 3 65536
        map 3 0 65536 shared w
        anonymous 0 16384 16384
        fill 0 0 65536 q
        same 0 0 65536 q
        pread 3 16384 4
        sync 0 0 65536 s
        sync 0 8192 16384 s
        protect 0 8192 16384 r
        store 0 8192 x
        store 0 16384 x
        load 0 24575 2
        protect 0 8192 16384 rw
        store 0 8192 ours
        store 0 16384 anonymous
        load 0 8190 8
        load 0 16382 8
        protect 0 0 65536 none
        load 0 0 1
        load 0 16384 1
        load 0 49152 1
        protect 0 0 65536 rw
        same 0 24576 8192 q
        unmap 0 28672 8192
        load 0 28671 1
        load 0 28672 1
        load 0 32768 1
        load 0 36864 1
        sync 0 0 65536 s
        sync 0 0 28672 s
        sync 0 36864 28672 s
        store 0 40960 later
        sync 0 36864 28672 i
        load 0 40960 5
        unmap 0 0 65536
        pread 3 40960 6
        pread 3 8192 5
        pread 3 16384 2
        fsync 3";
    let server = alike(engine, script);
    let content = exported(&server, "f");
    assert_eq!((&content[8192..8197], &content[40960..40966]), (&b"oursq"[..], &b"laterq"[..]));
    assert!(content[16384..32768].iter().all(|byte| *byte == 0), "what was put over the file went into it");
}

fn a_store_that_is_full_is_enospc_and_loses_nothing(engine: Engine) {
    let server = Server::with(&["--max-memory", "1M"]);
    let host = Host::new(engine);
    let mut agent = Agent::start(&host, server.url());
    let fd = agent.ok("open /netmem/f rwc");
    agent.ok(&format!("truncate {fd} 2097152"));
    agent.ok(&format!("map {fd} 0 2097152 shared w"));
    agent.ok("fill 0 0 8192 1");
    agent.ok("sync 0 0 2097152 s");
    agent.ok("fill 0 0 2097152 2");
    assert_eq!(agent.ask("sync 0 0 2097152 s"), Err("ENOSPC".to_owned()));
    assert_eq!(agent.ask(&format!("fsync {fd}")), Err("ENOSPC".to_owned()));
    let said = agent.stderr();
    assert!(
        said.lines().any(|line| line.starts_with("netmem") && line.contains('f')),
        "one line says why: {said:?}"
    );
    assert_eq!(bytes_at(&server, "f", 8190, 3), b"11\0", "the last commit, whole");
    assert_eq!(agent.ok("same 0 0 2097152 2"), "yes");
    agent.ok(&format!("truncate {fd} 524288"));
    agent.ok("sync 0 0 524288 s");
    let content = exported(&server, "f");
    assert!(content.len() == 524_288 && content.iter().all(|byte| *byte == b'2'));
}

#[test]
fn each_malformed_setting_is_einval_and_a_line_that_names_it() {
    for (name, value) in [
        ("NETMEM_SERVER", "127.0.0.1:7117"),
        ("NETMEM_SERVER", "tcp://127.0.0.1:0"),
        ("NETMEM_SERVER", "unix:relative"),
        ("NETMEM_PATHS", "relative/*"),
        ("NETMEM_DIR", "relative"),
        ("NETMEM_ENGINE", "fast"),
        ("NETMEM_MASK", "guards"),
        ("NETMEM_CACHE_BYTES", "12Q"),
        ("NETMEM_MEMORY_BYTES", "much"),
        ("NETMEM_TIMEOUT_MS", "-1"),
        ("NETMEM_TIMEOUT_MS", "30s"),
        ("NETMEM_PREFETCH", "257"),
        ("NETMEM_LOG", "loud"),
        ("NETMEM_REGION", "a/../b"),
        ("NETMEM_SNAPSHOT", "2"),
        ("NETMEM_DISABLE", "yes"),
    ] {
        let (server, host) = (Server::start(), Host::new(best()));
        let mut agent = Agent::with(&host, server.url(), &[(name, value)]);
        assert_eq!(agent.ask("open /netmem/f rwc"), Err("EINVAL".to_owned()), "{name}={value}");
        let said = agent.stderr();
        let lines: Vec<&str> = said.lines().collect();
        assert!(
            lines.len() == 1 && lines[0].contains(name) && lines[0].contains(value),
            "{name}={value}: {said}"
        );
        // What is not ours is not touched by it.
        let local = host.files().join("local").display().to_string();
        let fd = agent.ok(&format!("open {local} rwc"));
        agent.ok(&format!("pwrite {fd} 0 text"));
        assert_eq!(agent.ask("open /netmem/f rwc"), Err("EINVAL".to_owned()), "{name}={value}, again");
    }
}

#[test]
fn a_prefix_that_is_none_is_named_once_something_is_ours() {
    let (server, host) = (Server::start(), Host::new(best()));
    let mut agent = Agent::with(&host, server.url(), &[("NETMEM_PREFIX", "relative")]);
    // Its default stays, so that what would have been ours is refused rather than missed.
    assert_eq!(agent.ask("open /netmem/f rwc"), Err("EINVAL".to_owned()));
    assert!(agent.stderr().contains("NETMEM_PREFIX"), "{}", agent.stderr());
}

#[test]
fn disabled_it_does_nothing_at_all() {
    let (server, host) = (Server::start(), Host::new(best()));
    let mut agent = Agent::with(&host, server.url(), &[("NETMEM_DISABLE", "1")]);
    assert_eq!(agent.ask("open /netmem/f rwc"), Err("ENOENT".to_owned()));
    assert_eq!((agent.stderr().as_str(), agent.ok("threads").as_str()), ("", "1"));
}

#[test]
fn names_have_limits_and_never_climb_out() {
    let (server, host) = (Server::start(), Host::new(best()));
    let mut agent = Agent::start(&host, server.url());
    let long = "x".repeat(255);
    let fd = agent.ok(&format!("open /netmem/{long} rwc"));
    agent.ok(&format!("pwrite {fd} 0 x"));
    assert_eq!(agent.ask(&format!("open /netmem/{long}x rwc")), Err("ENAMETOOLONG".to_owned()));
    let mut directory = String::from("/netmem");
    for _ in 0..4 {
        directory = format!("{directory}/{}", "d".repeat(250));
        agent.ok(&format!("mkdir {directory}"));
    }
    // 1,003 bytes so far; a name has 1,024 at the most.
    agent.ok(&format!("open {directory}/{} rwc", "f".repeat(20)));
    assert_eq!(
        agent.ask(&format!("open {directory}/{} rwc", "f".repeat(21))),
        Err("ENAMETOOLONG".to_owned())
    );
    let outside = host.files().join("outside");
    std::fs::write(&outside, "local").expect("a local file");
    assert_eq!(agent.ok(&format!("size {}", outside.display())), "5");
    let climbing = agent.ask(&format!("open /netmem/..{} r", outside.display()));
    let content = climbing.map(|fd| agent.ok(&format!("pread {fd} 0 9")));
    // The kernel has no /netmem to start from, unless one is mounted there.
    assert!(content == Ok("local".to_owned()) || content == Err("ENOENT".to_owned()), "{content:?}");
    assert_eq!(agent.ask("open /netmem/../no-such-directory/f rwc"), Err("ENOENT".to_owned()));
    let listed = netmem(&server, &["ls", "-R"]).ok().stdout;
    assert!(!listed.contains("outside") && listed.contains(&long), "{listed}");
}

#[test]
fn a_region_over_the_servers_limit_is_efbig() {
    let server = Server::with(&["--max-region", "1M"]);
    let host = Host::new(best());
    let mut agent = Agent::start(&host, server.url());
    let fd = agent.ok("open /netmem/f rwc");
    assert_eq!(agent.ask(&format!("truncate {fd} 1048577")), Err("EFBIG".to_owned()));
    assert_eq!(agent.ask(&format!("pwrite {fd} 1048576 x")), Err("EFBIG".to_owned()));
    agent.ok(&format!("truncate {fd} 1048576"));
    agent.ok(&format!("fsync {fd}"));
}

#[test]
fn more_regions_than_the_server_allows_is_enospc_and_a_line() {
    let server = Server::with(&["--max-regions", "3"]);
    let host = Host::new(best());
    let mut agent = Agent::start(&host, server.url());
    let opened: Vec<_> = (0..6).map(|n| agent.ask(&format!("open /netmem/f{n} rwc"))).collect();
    let refused: Vec<_> = opened.iter().filter_map(|answer| answer.as_ref().err()).collect();
    assert!(!refused.is_empty() && refused.iter().all(|why| *why == "ENOSPC"), "{opened:?}");
    agent.ok("unlink /netmem/f0");
    // A region without a name lives until it is closed.
    agent.ok(&format!("close {}", opened[0].as_deref().expect("the first")));
    agent.ok("open /netmem/g rwc");
}

#[test]
fn a_name_that_is_not_utf8_is_refused_and_leaves_nothing() {
    let (server, host) = (Server::start(), Host::new(best()));
    let script = "name=$(printf 'a\\377'); cd /netmem && for make in 'touch $name' 'mkdir /netmem/$name' ': > $name'; do
        (eval \"$make\") 2> /dev/null && echo made; done; ls -A | wc -l; (: > /netmem/$name) 2>&1 | grep -c 'Invalid argument'";
    let output = Run::on(&host, server.url(), "/bin/bash").args(["-c", script]).ok();
    assert_eq!(output.stdout, "0\n1\n", "{output}");
}
