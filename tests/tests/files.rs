//! Files: what differs from the kernel's, and what the kernel's tmpfs does not give.
//!
//! Owns: nothing. Called by: the test runner. Must not: repeat what tests/programs compare with the kernel.

use std::fs;
use std::time::Duration;

use netmem_tests::built::compile;
use netmem_tests::cli::{import, netmem};
use netmem_tests::engine::best;
use netmem_tests::{Engine, Host, Run, Server, on_each_rung};

on_each_rung! {
    a_store_moves_the_time_of_the_last_change_when_it_is_synced
}

fn a_store_moves_the_time_of_the_last_change_when_it_is_synced(engine: Engine) {
    let (server, host) = (Server::start(), Host::new(engine));
    import(&server, "f", &[b'0'; 8192]);
    let output =
        Run::on(&host, server.url(), compile("tests/agent/files.c", &[])).args(["stored", "/netmem/f"]).ok();
    assert_eq!(output.stdout, "loaded same\nstored moved\nset 1234\n", "{output}");
}

#[test]
fn what_a_region_can_not_be_is_refused_with_an_errno_of_its_kind() {
    let (server, host) = (Server::start(), Host::new(best()));
    let output =
        Run::on(&host, server.url(), compile("tests/agent/files.c", &[])).args(["refused", "/netmem/f"]).ok();
    let expected = "link EXDEV\nlinkat EXDEV\nlinkat-descriptor EXDEV\nmkfifo EPERM\nmknod EPERM\n\
                    tmpfile EOPNOTSUPP\nread-lease EAGAIN\nwrite-lease EAGAIN\nwhiteout EINVAL\nelsewhere EXDEV\n";
    assert_eq!(output.stdout, expected, "{output}");
}

#[test]
fn links_are_seen_and_followed_on_every_host() {
    let (server, first, second) = (Server::start(), Host::new(best()), Host::new(best()));
    let sh = |host: &Host, script: &str| Run::on(host, server.url(), "sh").args(["-ec", script]).ok().stdout;
    sh(
        &first,
        "cd /netmem; mkdir d; echo one >d/x; ln -s d/x l; ln -s d dir; ln -s none dangling; cp -P l copy",
    );
    let seen = "cat /netmem/l /netmem/dir/x; readlink /netmem/l /netmem/copy; cd /netmem/dir; pwd -P; test -L ../dangling";
    assert_eq!(sh(&second, seen), "one\none\nd/x\nd/x\n/netmem/d\n");
    // What was a link here is a directory there, and the other way round; no file is taken for another.
    sh(&second, "cd /netmem; rm dir; mkdir dir; echo two >dir/x; mv d/x y; rmdir d; ln -s dir d");
    assert_eq!(
        sh(&first, "cd /netmem; cat dir/x y d/x; rm dir/x; ls; ls d/"),
        "two\none\ntwo\ncopy\nd\ndangling\ndir\nl\ny\n"
    );
    assert_eq!(sh(&second, "cd /netmem; echo three >dir/x; cat l y; rm d"), "three\none\n");
    let listed = netmem(&server, &["ls"]).ok().stdout;
    assert_eq!(listed, "copy -> d/x\ndangling -> none\ndir/\nl -> d/x\ny\n");
    let long = netmem(&server, &["ls", "--long"]).ok().stdout;
    assert!(long.lines().next().is_some_and(|line| line.starts_with("lrwxrwxrwx")), "{long}");
    netmem(&server, &["rm", "l", "dangling"]).ok();
    assert_eq!(sh(&first, "ls /netmem"), "copy\ndir\ny\n");
}

#[test]
fn names_of_one_region_are_one_file_on_every_host() {
    let (server, first, second) = (Server::start(), Host::new(best()), Host::new(best()));
    let sh = |host: &Host, script: &str| Run::on(host, server.url(), "sh").args(["-ec", script]).ok().stdout;
    let counts = "cd /netmem; stat -c '%n %h' *; stat -c %i * | uniq | wc -l";
    sh(&first, "cd /netmem; echo one >a");
    // Seen there with one name, never opened; opened with one; made there: each meets the names that come later.
    assert_eq!(sh(&second, counts), "a 1\n1\n");
    sh(&first, "cd /netmem; ln a b");
    assert_eq!(sh(&second, counts), "a 2\nb 2\n1\n");
    assert_eq!(sh(&second, "cd /netmem; cat b; ln b c; echo two >>c; cat a"), "one\none\ntwo\n");
    assert_eq!(sh(&first, counts), "a 3\nb 3\nc 3\n1\n");
    assert_eq!(sh(&first, "cd /netmem; cat c; rm a; mv b d; stat -c %h c"), "one\ntwo\n2\n");
    assert_eq!(sh(&second, "cd /netmem; stat -c %h c; cat d; echo three >d; ls"), "2\none\ntwo\nc\nd\n");
    // A name that became another file's does not show the old one.
    sh(&second, "cd /netmem; rm d; echo other >d");
    assert_eq!(sh(&first, "cd /netmem; cat c d; stat -c %h c d; rm c"), "three\nother\n1\n1\n");
    assert_eq!(sh(&second, counts), "d 1\n1\n");
}

#[test]
fn the_time_of_the_last_change_stays_through_commits_and_follows_other_hosts() {
    let (server, first, second) = (Server::start(), Host::new(best()), Host::new(best()));
    let program = compile("tests/agent/files.c", &[]);
    let run =
        |host: &Host, case: &str| Run::on(host, server.url(), &program).args([case, "/netmem/f"]).ok().stdout;
    let written = run(&first, "written");
    assert_eq!(run(&first, "shown"), written, "after its commit, for another process");
    assert_eq!(run(&first, "shown"), written, "and again");
    let there = run(&second, "shown");
    assert_eq!(run(&second, "shown"), there, "another host's is the same each time");
    let other = run(&second, "written");
    assert_ne!(run(&first, "shown"), written, "what the other host wrote moves it");
    assert_eq!(run(&second, "shown"), other);
    Run::on(&second, server.url(), "touch").args(["-d", "@1000.5", "/netmem/f"]).ok();
    assert_eq!(run(&first, "shown"), "1000.500000000\n", "a time that is set is every host's");
    assert_eq!(run(&second, "shown"), "1000.500000000\n");
}

#[test]
fn copies_that_look_for_holes_have_all_of_the_data() {
    for engine in [best(), Engine::SigsegvMprotect] {
        let (server, host) = (Server::start(), Host::new(engine));
        // Data, a hole of the file's own, and data again, of which nothing is here yet.
        let mut bytes = vec![0u8; 3 << 20];
        for (i, byte) in bytes.iter_mut().enumerate().filter(|(i, _)| i >> 20 != 1) {
            *byte = (i % 251) as u8 | 1;
        }
        import(&server, "f", &bytes);
        for flags in [
            ["--sparse=auto", "--reflink=auto"],
            ["--sparse=always", "--reflink=never"],
            ["--sparse=never", "--reflink=auto"],
        ] {
            let (there, back) = ("/netmem/copy", host.files().join("back"));
            // Each on pages that are not here.
            let copy = |host: &Host, from: &str, to: &str| {
                Run::on(host, server.url(), "cp").args(flags).args([from, to]).ok();
            };
            copy(&Host::new(engine), "/netmem/f", there);
            copy(&host, there, back.to_str().expect("a path"));
            assert!(fs::read(&back).expect("the copy") == bytes, "{engine} {flags:?}");
            Run::on(&host, server.url(), "rm").arg(there).ok();
        }
        let clone =
            Run::on(&host, server.url(), "cp").args(["--reflink=always", "/netmem/f", "/netmem/c"]).output();
        assert!(!clone.status.success() && clone.stderr.contains("Operation not supported"), "{clone}");
    }
}

#[test]
fn streams_of_cpp_read_and_write() {
    const PROGRAM: &str = r#"
#include <fstream>
#include <iostream>
#include <string>
int main(int, char **argv) {
    { std::ofstream out(argv[1]); for (int i = 0; i < 20000; i++) out << "line " << i << "\n"; }
    { std::ofstream more(argv[1], std::ios::app); more << "end\n"; }
    std::fstream both(argv[1], std::ios::in | std::ios::out | std::ios::binary);
    both.seekp(5); both.put('X'); both.seekg(0, std::ios::end);
    std::cout << both.tellg() << "\n"; both.seekg(0);
    std::string line; long lines = 0, bytes = 0;
    while (std::getline(both, line)) { if (lines++ == 0) std::cout << line << "\n"; bytes += line.size() + 1; }
    std::cout << lines << " " << bytes << " " << line << "\n";
    std::filebuf one; one.open(argv[1], std::ios::in | std::ios::out | std::ios::trunc); one.sputn("abc", 3);
    std::cout << one.pubseekoff(0, std::ios::cur) << "\n";
}
"#;
    if Run::plain("/bin/sh").args(["-c", "command -v g++"]).output().code() != 0 {
        netmem_tests::skip::skip("g++", "g++: not installed; apt-get install g++");
        return;
    }
    let build = Host::new(Engine::Kernel);
    let (source, program) = (build.files().join("s.cpp"), build.files().join("s"));
    fs::write(&source, PROGRAM).expect("the source");
    Run::plain("g++").arg("-o").arg(&program).arg(&source).ok();
    let expected = Run::plain(&program).arg(build.files().join("f")).ok().stdout;
    for engine in [best(), Engine::SigsegvMprotect] {
        let (server, host) = (Server::start(), Host::new(engine));
        let output = Run::on(&host, server.url(), &program).arg("/netmem/f").ok();
        assert_eq!(output.stdout, expected, "{engine}");
        let kept = Run::on(&Host::new(engine), server.url(), "cat").arg("/netmem/f").ok();
        assert_eq!(kept.stdout, "abc", "{engine}");
    }
}

/// The kernel allows a process 65,530 mappings.
/// For the longer form, which takes half a minute when nothing else runs.
const LIMIT: Duration = Duration::from_secs(150);

fn many_regions_in_turn(count: &str) {
    let (server, host) = (Server::start(), Host::new(best()));
    let output = Run::on(&host, server.url(), compile("tests/agent/many.c", &[]))
        .args([count, "/netmem"])
        .limit(LIMIT)
        .ok();
    assert_eq!(output.stdout, "mappings few\nchild 7\n", "{output}");
}

#[test]
fn regions_that_were_closed_take_no_place_among_the_mappings() {
    many_regions_in_turn("1000");
}

#[test]
#[ignore = "long: make test-long"]
fn a_program_opens_twenty_five_thousand_regions_one_after_the_other() {
    many_regions_in_turn("25000");
}

#[test]
fn huge_pages_are_refused() {
    let (server, host) = (Server::start(), Host::new(best()));
    let output =
        Run::on(&host, server.url(), compile("tests/agent/differs.c", &[])).args(["/netmem/differs"]).ok();
    assert_eq!(output.stdout, "MADV_COLLAPSE EINVAL\nand holds what it held\n", "{output}");
}
