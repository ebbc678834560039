//! The tree itself: the arrow, the ceilings, the exports, the header.
//!
//! Owns: the lists of exceptions, each with its reason. Called by: `cargo test`. Must not: check what a compiler or clippy
//! checks.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use netmem_tests::built::{built, root};
use netmem_tests::skip::skip;
use netmem_tests::source::{Source, files};

/// Lines in a file at the most.
const LINES_MAX: usize = 500;

/// The layers of the shim, from the program to the kernel: each uses those after it.
const LAYERS: [&str; 7] = ["abi", "host", "engine", "far", "pager", "remote", "sys"];
/// What every layer may use, and what uses only the last one.
const COMMON: [&str; 4] = ["config", "log", "stats", "sync"];

/// Steps against the arrow.
const AGAINST: &[(&str, &str, &str)] = &[
    ("engine", "host", "a fault knows the number of a region only, and asks for its handle"),
    ("host", "HEAP", "fork takes the private allocator's lock last, so that a child finds it whole"),
    ("sys", "sync", "the private allocator locks, and the lock waits through sys::futex"),
];

/// The code of a file: without comments, text in quotes and what is compiled for tests only.
fn code(source: &Source) -> String {
    let text = source.text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    let mut out = String::new();
    for line in text.lines() {
        out.push_str(line.split("//").next().unwrap_or_default());
        out.push('\n');
    }
    out
}

/// The first words behind `crate::`, those in braces too.
fn crate_modules(code: &str) -> BTreeSet<String> {
    let word = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        match rest.strip_prefix('{').and_then(|inside| inside.split_once('}')) {
            Some((inside, _)) => found.extend(inside.split(',').map(|part| word(part.trim()))),
            None => {
                found.insert(word(rest));
            }
        }
    }
    found
}

fn is_double(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or_default();
    path.contains("src/remote/tests/")
        || path.contains("src/pager/tests/")
        || name == "fake.rs"
        || name == "lying.rs"
        || name == "lies.rs"
        || name.ends_with("tests.rs")
}

#[test]
fn the_shims_layers_use_only_those_to_their_right() {
    let mut wrong = Vec::new();
    for source in files("shim/src", &[".rs"]) {
        let inside = source.path.trim_start_matches("shim/src/");
        if is_double(&source.path) || inside == "lib.rs" {
            continue;
        }
        let from = inside.split(['/', '.']).next().unwrap_or_default();
        for to in crate_modules(&code(&source)) {
            let place = |name: &str| LAYERS.iter().position(|layer| *layer == name);
            let allowed = match (place(from), place(&to)) {
                _ if from == to || AGAINST.iter().any(|(f, t, _)| *f == from && *t == to) => true,
                (Some(from), Some(to)) => from < to,
                (Some(_), None) => COMMON.contains(&to.as_str()),
                (None, Some(_)) => to == "sys",
                (None, None) => COMMON.contains(&from) && COMMON.contains(&to.as_str()),
            };
            if !allowed {
                wrong.push(format!("{}: {from} uses {to}", source.path));
            }
        }
    }
    assert!(wrong.is_empty(), "against the arrow:\n{}", wrong.join("\n"));
}

#[test]
fn the_engines_the_protocol_and_the_store_know_only_what_is_below_them() {
    for (package, forbidden) in [
        ("protocol", &["netmem-shim", "netmem-server", "netmem-cli", "netmem_server", "netmem_cli"][..]),
        ("server", &["netmem-shim", "netmem-cli", "netmem_cli"]),
        ("shim", &["netmem-server", "netmem-cli", "netmem_server", "netmem_cli"]),
        ("cli", &["netmem-shim", "netmem_server::"]),
    ] {
        let manifest = fs::read_to_string(root().join(package).join("Cargo.toml")).expect("a manifest");
        let dependencies = manifest.split("[dependencies]").nth(1).unwrap_or_default();
        let dependencies = dependencies.split("\n[").next().unwrap_or_default();
        for name in forbidden {
            assert!(!dependencies.contains(name), "{package} depends on {name}");
            for source in files(&format!("{package}/src"), &[".rs"]) {
                let uses = code(&source)
                    .lines()
                    .any(|line| line.trim_start().starts_with("use ") && line.contains(name));
                assert!(!uses, "{} uses {name}", source.path);
            }
        }
    }
}

#[test]
fn no_file_is_longer_than_one_can_hold_in_the_head() {
    let mut long = Vec::new();
    for directory in ["protocol", "shim", "server", "cli", "tests", "include", "examples-c"] {
        for source in files(directory, &[".rs", ".c", ".h", ".cpp", ".hpp", ".py"]) {
            let lines = source.text.lines().count();
            if lines > LINES_MAX {
                long.push(format!("{}: {lines} lines", source.path));
            }
        }
    }
    assert!(long.is_empty(), "over {LINES_MAX} lines:\n{}", long.join("\n"));
}

/// Words of a document between backquotes that have `::` in them: FILE::NAME, where FILE is one of tests/tests.
fn named_tests(text: &str) -> Vec<(&str, &str)> {
    let quoted = text.split('`').skip(1).step_by(2);
    quoted.filter_map(|word| word.split_once("::")).filter(|(_, name)| !name.is_empty()).collect()
}

#[test]
fn every_test_that_the_semantics_name_is_there() {
    let text = fs::read_to_string(root().join("docs/SEMANTICS.md")).expect("docs/SEMANTICS.md");
    let sources = files("tests/tests", &[".rs"]);
    let mut missing = Vec::new();
    for (file, name) in named_tests(&text) {
        let there = sources.iter().find(|source| source.path == format!("tests/tests/{file}.rs"));
        let words = |source: &Source| {
            source.text.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == name)
        };
        if file != "file" && !there.is_some_and(words) {
            missing.push(format!("{file}::{name}"));
        }
    }
    for (at, _) in text.match_indices("`programs/") {
        let name = text[at + 1..].split('`').next().unwrap_or_default();
        if name != "programs/name" && !root().join(format!("tests/{name}.c")).exists() {
            missing.push(name.to_owned());
        }
    }
    assert!(missing.is_empty(), "docs/SEMANTICS.md names tests that are not there:\n{}", missing.join("\n"));
}

#[test]
fn unsafe_code_is_where_the_rules_of_the_house_say() {
    let uses = |source: &Source| {
        let code = code(source);
        code.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == "unsafe")
    };
    for directory in ["protocol/src", "shim/src/pager", "shim/src/remote"] {
        for source in files(directory, &[".rs"]) {
            assert!(is_double(&source.path) || !uses(&source), "{} has unsafe code", source.path);
        }
    }
    let allowed = ["server/src/slab.rs", "cli/src/probe.rs", "cli/src/private.rs", "cli/src/bench/memory.rs"];
    for source in files("server/src", &[".rs"]).into_iter().chain(files("cli/src", &[".rs"])) {
        assert!(!uses(&source) || allowed.contains(&source.path.as_str()), "{} has unsafe code", source.path);
    }
}

#[test]
fn nothing_is_left_to_do_in_the_code() {
    // In two parts, so that this file does not find itself.
    let marks =
        [["to", "do!"], ["FIX", "ME"], ["XX", "X "], ["TO", "DO"], ["db", "g!("], ["unimple", "mented!"]];
    for directory in ["protocol", "shim", "server", "cli", "tests", "include", "examples-c", "docs"] {
        for source in files(directory, &[".rs", ".c", ".h", ".cpp", ".hpp", ".md"]) {
            for mark in marks.map(|mark| mark.concat()) {
                assert!(!source.text.contains(&mark), "{} has a {mark}", source.path);
            }
        }
    }
}

#[test]
fn a_module_starts_with_what_it_owns_and_must_not_do() {
    let mut wrong = Vec::new();
    for directory in ["protocol/src", "shim/src", "server/src", "cli/src", "tests/src", "tests/tests"] {
        for source in files(directory, &[".rs"]) {
            let head: String = source.text.lines().take_while(|line| line.starts_with("//!")).collect();
            let head = head.replace("//!", " ").replace("  ", " ");
            let complete = ["Owns:", "Called by:", "Must not:"].iter().all(|part| head.contains(part));
            if !complete && !is_double(&source.path) && source.path != "shim/src/lib.rs" {
                wrong.push(source.path);
            }
        }
    }
    assert!(wrong.is_empty(), "no Owns, Called by, Must not at the top of:\n{}", wrong.join("\n"));
}

fn symbols(option: &str) -> BTreeSet<String> {
    let output = Command::new("nm").args(["-D", option]).arg(&built().library).output().expect("nm");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let names = text.lines().filter_map(|line| line.split_whitespace().last());
    names.map(|name| name.split('@').next().unwrap_or(name).to_owned()).collect()
}

#[test]
fn the_library_exports_what_the_list_says_and_nothing_else() {
    let list = fs::read_to_string(root().join("shim/exports.txt")).expect("shim/exports.txt");
    let lines: Vec<&str> = list.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    assert!(lines.windows(2).all(|pair| pair[0] < pair[1]), "shim/exports.txt is sorted, each name once");
    let listed: BTreeSet<String> = lines.iter().map(|&line| line.to_owned()).collect();
    let exported = symbols("--defined-only");
    let missing: Vec<_> = listed.difference(&exported).collect();
    let more: Vec<_> = exported.difference(&listed).collect();
    assert!(missing.is_empty() && more.is_empty(), "not exported: {missing:?}\nnot listed: {more:?}");
}

#[test]
fn every_function_of_the_header_is_exported() {
    let header = fs::read_to_string(root().join("include/netmem.h")).expect("include/netmem.h");
    let exported = symbols("--defined-only");
    let mut count = 0;
    for line in header.lines().filter(|line| line.ends_with(");") && !line.starts_with([' ', '*'])) {
        let name: String =
            line.split('(').next().unwrap_or_default().rsplit([' ', '*']).next().unwrap_or_default().into();
        assert!(exported.contains(&name), "{name} is declared and not exported");
        count += 1;
    }
    assert!(count >= 12, "only {count} declarations were found");
}

#[test]
fn the_library_needs_nothing_that_a_guest_might_not_have() {
    let output = Command::new("readelf").arg("-d").arg(&built().library).output().expect("readelf");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    for line in text.lines().filter(|line| line.contains("(NEEDED)")) {
        let known = ["libc.so.6", "ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1", "libgcc_s.so.1"];
        assert!(known.iter().any(|name| line.contains(name)), "{line}");
    }
    assert!(text.contains("INITFIRST"), "its destructor runs last only with -z initfirst:\n{text}");
}

fn compiles(compiler: &str, language: &str, standard: &str, header: &str) {
    let mut command = Command::new(compiler);
    command.args([
        "-fsyntax-only",
        "-Wall",
        "-Wextra",
        "-pedantic",
        "-Werror",
        "-Wno-pragma-once-outside-header",
    ]);
    let output = command
        .args(["-x", language, &format!("-std={standard}")])
        .arg(root().join("include").join(header))
        .output()
        .expect("a compiler");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{compiler} -std={standard} {header}:\n{said}");
}

#[test]
fn the_headers_compile_in_every_standard_without_a_warning() {
    for (c, cpp) in [("gcc", "g++"), ("clang", "clang++")] {
        if Command::new(c).arg("--version").output().is_err() {
            skip(c, &format!("{c}: not installed"));
            continue;
        }
        for standard in ["c99", "gnu99", "c11", "gnu11", "c17", "gnu17", "c2x", "gnu2x"] {
            compiles(c, "c", standard, "netmem.h");
        }
        for standard in ["c++11", "gnu++11", "c++14", "c++17", "c++20", "c++2b"] {
            compiles(cpp, "c++", standard, "netmem.h");
        }
        for standard in ["c++17", "gnu++17", "c++20", "c++2b"] {
            compiles(cpp, "c++", standard, "netmem.hpp");
        }
    }
}

#[test]
fn the_programs_and_examples_compile_without_a_warning() {
    for directory in [
        "tests/programs",
        "tests/floor",
        "tests/agent",
        "tests/races",
        "tests/model",
        "tests/far",
        "examples-c",
    ] {
        // What is linked with the library is compiled, with the same flags, by the test that runs it.
        for source in files(directory, &[".c"]).iter().filter(|source| source.path != "tests/agent/api.c") {
            netmem_tests::built::compile(&source.path, &["-lm"]);
        }
    }
    for source in files("tests/linked", &[".c"]) {
        netmem_tests::built::linked(&source.path);
    }
}
