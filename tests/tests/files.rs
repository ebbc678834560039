//! Files: what differs from the kernel's, and what the kernel's tmpfs does not give.
//!
//! Owns: nothing. Called by: the test runner. Must not: repeat what tests/programs compare with the kernel.

use std::fs;

use netmem_tests::built::compile;
use netmem_tests::cli::import;
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
    let expected = "link EPERM\nlinkat EPERM\nlinkat-descriptor EPERM\nsymlink EPERM\nsymlinkat EPERM\nmkfifo EPERM\nmknod EPERM\n\
                    tmpfile EOPNOTSUPP\nread-lease EAGAIN\nwrite-lease EAGAIN\nwhiteout EINVAL\nelsewhere EXDEV\n";
    assert_eq!(output.stdout, expected, "{output}");
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
fn many_regions_in_turn(count: &str) {
    let (server, host) = (Server::start(), Host::new(best()));
    let output =
        Run::on(&host, server.url(), compile("tests/agent/many.c", &[])).args([count, "/netmem"]).ok();
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
