//! The command `netmem` with the real library and the real server.
//!
//! Owns: nothing. Called by: `cargo test`. Must not: repeat cli/tests/run.rs, which has a stand-in for the library.

use std::fs;

use netmem_tests::built::{built, compile, program, root};
use netmem_tests::cli::{big_text, exported, import, import_file, netmem, netmem_run};
use netmem_tests::engine::best;
use netmem_tests::skip::skip;
use netmem_tests::{Engine, Host, Run, Server, on_each_rung};

on_each_rung! {
    a_hundred_megabytes_are_counted_as_wc_counts_them
}

/// `netmem run` with a server of its own.
fn private(host: &Host, command: &[&str]) -> Run {
    Run::plain(&built().command)
        .env("NETMEM_DIR", host.cache())
        .cwd(host.files())
        .args(["run", "--"])
        .args(command)
}

fn a_hundred_megabytes_are_counted_as_wc_counts_them(engine: Engine) {
    let file = big_text(100_000_000);
    let (server, host) = (Server::start(), Host::new(engine));
    import_file(&server, "words", &file);
    let expected = Run::plain("wc").arg(&file).ok().stdout;
    let expected: Vec<&str> = expected.split_whitespace().take(3).collect();
    let wordcount = compile("examples-c/wordcount.c", &[]);
    let output = Run::on(&host, server.url(), &wordcount).ok();
    assert_eq!(output.stdout.split_whitespace().collect::<Vec<_>>(), expected);
}

#[test]
fn run_gives_a_program_a_server_of_its_own() {
    let host = Host::new(best());
    let hello = compile("examples-c/hello.c", &[]).display().to_string();
    let output = private(&host, &[&hello]).ok();
    assert_eq!(
        output.stdout,
        fs::read_to_string(root().join("examples-c/expected/hello.txt")).expect("the expected output")
    );
    assert_eq!(output.stderr, "");
    // The next one has another server, and nothing of this one.
    let output = private(&host, &["sh", "-c", "test -e /netmem/hello || echo gone"]).output();
    assert_eq!(output.stdout, "gone\n", "{output}");
}

#[test]
fn run_ends_as_its_command_ends() {
    let host = Host::new(best());
    assert_eq!(private(&host, &["sh", "-c", "exit 7"]).output().code(), 7);
    assert_eq!(private(&host, &["sh", "-c", "kill -KILL $$"]).output().code(), 128 + 9);
    assert_eq!(private(&host, &["no-such-command"]).output().code(), 127);
    let gone = private(&host, &["sh", "-c", "echo x > /netmem/f; exit 3"]).output();
    assert_eq!((gone.code(), gone.stderr.as_str()), (3, ""), "{gone}");
}

#[test]
fn run_warns_of_a_static_program() {
    let host = Host::new(best());
    let source = root().join("examples-c/counter.c");
    let out = host.files().join("static");
    let made = Run::plain("gcc").args(["-static", "-o"]).arg(&out).arg(source).output();
    if made.code() != 0 {
        return skip("static", "there is no static C library");
    }
    let local = host.files().join("count").display().to_string();
    let output = private(&host, &[out.to_str().expect("a path"), &local]).output();
    assert_eq!((output.code(), output.stdout.as_str()), (0, "counter: 1\n"), "{output}");
    assert_eq!(output.stderr.lines().count(), 1, "{output}");
    assert!(output.stderr.contains("statically linked"), "{output}");
}

#[test]
fn run_says_beforehand_what_is_go_and_what_is_setuid() {
    let host = Host::new(best());
    // The section by which Go's own tools know a Go program, in a C program.
    let source = host.files().join("go.c");
    let text = "__attribute__((section(\".go.buildinfo\"))) int go = 1;\nint main(void) { return 0; }\n";
    fs::write(&source, text).expect("a source");
    let go = host.files().join("go");
    Run::plain("gcc").arg("-o").arg(&go).arg(source).ok();
    let output = private(&host, &[go.to_str().expect("a path")]).ok();
    assert_eq!(output.stderr.lines().count(), 1, "{output}");
    assert!(output.stderr.contains("a Go program"), "{output}");

    if !nix::unistd::geteuid().is_root() {
        return skip("setuid", "only root can make a program that is setuid to somebody else");
    }
    let setuid = host.files().join("setuid");
    fs::copy("/bin/true", &setuid).expect("a copy");
    std::os::unix::fs::chown(&setuid, Some(netmem_tests::engine::NOBODY), None).expect("its owner");
    fs::set_permissions(&setuid, std::os::unix::fs::PermissionsExt::from_mode(0o4755)).expect("its mode");
    let output = private(&host, &[setuid.to_str().expect("a path")]).output();
    assert_eq!(output.stderr.lines().count(), 1, "{output}");
    assert!(output.stderr.contains("setuid or setgid"), "{output}");
}

#[test]
fn two_programs_share_a_server_that_was_named() {
    let (server, host) = (Server::start(), Host::new(best()));
    let counter = compile("examples-c/counter.c", &[]).display().to_string();
    for count in 1..=3 {
        assert_eq!(netmem_run(&host, &server, &[&counter]).ok().stdout, format!("counter: {count}\n"));
    }
}

#[test]
fn doctor_names_the_engine_that_then_runs() {
    let (server, host) = (Server::start(), Host::new(best()));
    let report = netmem(&server, &["doctor"]).env("NETMEM_DIR", host.cache()).ok();
    let json = netmem(&server, &["doctor", "--json"]).env("NETMEM_DIR", host.cache()).ok();
    assert!(json.stdout.starts_with('{') && json.stdout.trim_end().ends_with('}'), "{json}");
    let stats = host.files().join("stats");
    let run = Run::plain(&built().command).env("NETMEM_DIR", host.cache()).env("NETMEM_STATS", &stats);
    run.args(["run", "--server", server.url(), "--"]).arg(program("store_then_read")).arg("/netmem").ok();
    let engine = fs::read_to_string(stats).expect("NETMEM_STATS");
    let engine =
        engine.lines().next().and_then(|line| line.strip_prefix("engine ")).expect("a first line").to_owned();
    let line = report.stdout.lines().find(|line| line.starts_with("engine")).unwrap_or_default();
    let family = engine.trim_end_matches("-guard").trim_end_matches("-mprotect");
    assert!(line.contains(family), "{engine} ran; {report}");
}

#[test]
fn files_go_in_and_come_out_and_can_be_listed_moved_and_removed() {
    let server = Server::start();
    let bytes: Vec<u8> = (0..3_000_001u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    assert!(import(&server, "data", &bytes).stdout.contains("3000001 bytes"));
    assert!(exported(&server, "data") == bytes, "what comes out is what went in");
    netmem(&server, &["mkdir", "-p", "a/b"]).ok();
    netmem(&server, &["mv", "data", "a/b"]).ok();
    let listed = netmem(&server, &["ls", "-R"]).ok().stdout;
    assert!(listed.lines().any(|line| line.trim_end() == "a/b/data"), "{listed}");
    let long = netmem(&server, &["ls", "-l", "a/b"]).ok().stdout;
    assert!(long.contains("data") && long.contains("3000001"), "{long}");
    let stat = netmem(&server, &["stat", "/netmem/a/b/data"]).ok().stdout;
    assert!(stat.contains("3000001 bytes"), "{stat}");
    assert!(netmem(&server, &["stat"]).ok().stdout.contains("commits"));
    netmem(&server, &["resize", "a/b/data", "4K"]).ok();
    assert!(exported(&server, "a/b/data") == bytes[..4096]);
    assert_eq!(netmem(&server, &["rm", "a/b"]).output().code(), 1);
    netmem(&server, &["rm", "-r", "a"]).ok();
    assert_eq!(netmem(&server, &["ls"]).ok().stdout, "");
    let missing = netmem(&server, &["export", "data", "-"]).output();
    assert_eq!((missing.code(), missing.stderr.lines().count()), (1, 1), "{missing}");
}

#[test]
fn a_program_sees_what_was_imported_and_removed_meanwhile() {
    let (server, host) = (Server::start(), Host::new(best()));
    import(&server, "f", b"first\n");
    let cat = |name: &str| Run::on(&host, server.url(), "cat").arg(host.path(name)).output();
    assert_eq!(cat("f").stdout, "first\n");
    import(&server, "f", b"second, and longer\n");
    assert_eq!(cat("f").stdout, "second, and longer\n");
    import(&server, "f", b"3rd\n");
    assert_eq!(cat("f").stdout, "3rd\n");
    netmem(&server, &["mv", "f", "g"]).ok();
    assert_eq!((cat("f").code(), cat("g").stdout.as_str()), (1, "3rd\n"));
    netmem(&server, &["rm", "g"]).ok();
    assert_eq!(cat("g").code(), 1);
    let listed = Run::on(&host, server.url(), "ls").arg("/netmem").ok();
    assert_eq!(listed.stdout, "", "{listed}");
}
