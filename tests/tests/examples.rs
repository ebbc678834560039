//! The examples print what their comments and examples-c/expected promise, on local files and under netmem.
//!
//! Owns: how each is called. Called by: `cargo test`. Must not: hold expected output: it lies beside the examples.

use std::fs;

use netmem_tests::built::{compile, linked, root};
use netmem_tests::cli::{import_file, netmem_run};
use netmem_tests::engine::best;
use netmem_tests::{Engine, Host, Run, Server, on_each_rung};

on_each_rung! {
    hello
    counter
    hashtable
    pages
    wordcount
    inventory
}

fn expected(name: &str) -> String {
    fs::read_to_string(root().join("examples-c/expected").join(name)).expect("the expected output")
}

/// Runs it on a local file and on a region, a host each, with FILE replaced by the path; the outputs are the same.
fn both(engine: Engine, name: &str, arguments: &[&str]) -> String {
    let (server, program) = (Server::start(), compile(&format!("examples-c/{name}.c"), &[]));
    let run = |host: &Host| {
        let path = host.path(name);
        let arguments = arguments.iter().map(|argument| argument.replace("FILE", &path));
        Run::on(host, server.url(), &program).args(arguments).ok().stdout
    };
    let (local, ours) = (run(&Host::new(Engine::Kernel)), run(&Host::new(engine)));
    assert_eq!(ours, local);
    ours
}

fn hello(engine: Engine) {
    assert_eq!(both(engine, "hello", &["FILE"]), expected("hello.txt"));
}

fn counter(engine: Engine) {
    assert_eq!(both(engine, "counter", &["FILE"]), expected("counter.txt"));
    let (server, program) = (Server::start(), compile("examples-c/counter.c", &[]));
    for count in 1..=6 {
        // Each on a host that has never seen it.
        let output = Run::on(&Host::new(engine), server.url(), &program).ok();
        assert_eq!(output.stdout, format!("counter: {count}\n"));
    }
    let host = Host::new(engine);
    for count in 7..=12 {
        assert_eq!(Run::on(&host, server.url(), &program).ok().stdout, format!("counter: {count}\n"));
    }
}

fn hashtable(engine: Engine) {
    assert_eq!(both(engine, "hashtable", &["-f", "FILE", "stress", "10000"]), expected("hashtable.txt"));
    let (server, program) = (Server::start(), compile("examples-c/hashtable.c", &[]));
    let (here, there) = (Host::new(engine), Host::new(engine));
    let run =
        |host: &Host, arguments: &[&str]| Run::on(host, server.url(), &program).args(arguments).output();
    assert_eq!(run(&here, &["put", "colour", "blue"]).stdout, "colour = blue\n");
    assert_eq!(run(&there, &["get", "colour"]).stdout, "blue\n");
    assert_eq!(run(&there, &["put", "colour", "red"]).stdout, "colour = red\n");
    assert_eq!(run(&here, &["get", "colour"]).stdout, "red\n");
    let missing = run(&here, &["get", "taste"]);
    assert_eq!((missing.stdout.as_str(), missing.code()), ("no such key\n", 1));
}

fn pages(engine: Engine) {
    assert_eq!(both(engine, "pages", &["FILE", "1024", "seq"]), expected("pages.txt"));
    let (server, program) = (Server::start(), compile("examples-c/pages.c", &[]));
    for (order, touched) in [("seq", 2000), ("random", 2000), ("stride", 125)] {
        let output =
            Run::on(&Host::new(engine), server.url(), &program).args(["/netmem/pages", "2000", order]).ok();
        assert_eq!(output.stdout, format!("pages: {touched} touched of 2000, {order}, 0 wrong\n"));
    }
}

fn wordcount(engine: Engine) {
    let (server, host) = (Server::start(), Host::new(engine));
    let program = compile("examples-c/wordcount.c", &[]);
    let file = root().join("examples-c/expected/wordcount.in");
    import_file(&server, "words", &file);
    assert_eq!(Run::plain(&program).arg(&file).ok().stdout, expected("wordcount.txt"));
    assert_eq!(Run::on(&host, server.url(), &program).ok().stdout, expected("wordcount.txt"));
}

fn inventory(engine: Engine) {
    let program = linked("examples-c/inventory.cpp");
    let server = Server::start();
    let (here, there) = (Host::new(engine), Host::new(engine));
    let output = Run::on(&here, server.url(), &program).ok();
    assert_eq!(output.stdout, expected("inventory.txt"));
    let second = Run::on(&there, server.url(), &program).ok();
    let lines: Vec<&str> = second.stdout.lines().collect();
    assert_eq!(lines.first(), Some(&"found: bolt 70, nut 70, washer 250"), "{second}");
    assert_eq!(lines.last(), Some(&"left: bolt 40, nut 40, washer 250"), "{second}");
}

/// Linked, and not preloaded: the library is there all the same.
#[test]
fn a_program_that_is_linked_with_the_library_needs_no_preload() {
    let program = linked("examples-c/inventory.cpp");
    let (server, host) = (Server::start(), Host::new(best()));
    let output = Run::on(&host, server.url(), &program).env("LD_PRELOAD", "").ok();
    assert_eq!(output.stdout, expected("inventory.txt"));
}

#[test]
fn cp_through_a_shell_and_a_count_of_words_as_the_comment_says() {
    let (server, host) = (Server::start(), Host::new(best()));
    let program = compile("examples-c/wordcount.c", &[]);
    let line = format!(
        "cp {} /netmem/words && {}",
        root().join("examples-c/expected/wordcount.in").display(),
        program.display()
    );
    let output = netmem_run(&host, &server, &["sh", "-c", &line]).ok();
    assert_eq!(output.stdout, expected("wordcount.txt"), "{output}");
}
