//! The table of names: rename(2)'s rules, one by one.

use netmem_protocol::ErrorCode::{
    Exists, Invalid, IsDirectory, Link, NameTooLong, NotDirectory, NotEmpty, NotFound,
};

use super::*;

fn name(name: &str) -> RegionName {
    RegionName::parse(name).expect("a good name")
}

/// `d/`, `d/sub/`, `d/sub/x` = 1, `d/y` = 2, `e/`, `f` = 3, `g` = 4.
fn table() -> Namespace {
    let mut table = Namespace::default();
    for directory in ["d", "d/sub", "e"] {
        table.add_directory(&name(directory), 0o755).expect("a directory");
    }
    for (region, id) in [("d/sub/x", 1), ("d/y", 2), ("f", 3), ("g", 4)] {
        table.add_region(&name(region), RegionId(id)).expect("a region");
    }
    table
}

fn tree(table: &Namespace) -> Vec<String> {
    let mut all = Vec::new();
    let mut directories = vec![String::new()];
    while let Some(directory) = directories.pop() {
        for (last, child) in table.list(&directory, "", 1000).expect("a directory").0 {
            let full = if directory.is_empty() { last } else { format!("{directory}/{last}") };
            match child {
                Child::Region(id) => all.push(format!("{full}={id}")),
                Child::Symlink(link) => {
                    all.push(format!("{full}->{}", String::from_utf8_lossy(&link.target)));
                }
                Child::Directory => {
                    all.push(format!("{full}/"));
                    directories.push(full);
                }
            }
        }
    }
    all.sort();
    all
}

#[test]
fn every_rename_gives_what_the_kernel_gives() {
    for (from, to, no_replace, result) in [
        ("f", "h", false, Ok(None)),
        ("f", "g", false, Ok(Some(4))),
        ("f", "g", true, Err(Exists)),
        ("f", "f", false, Ok(None)),
        ("f", "f", true, Err(Exists)),
        ("missing", "h", false, Err(NotFound)),
        ("missing", "missing", false, Err(NotFound)),
        ("f", "missing/h", false, Err(NotFound)),
        ("f", "g/h", false, Err(NotDirectory)),
        ("f/x", "h", false, Err(NotDirectory)),
        ("f", "e", false, Err(IsDirectory)),
        ("d", "f", false, Err(NotDirectory)),
        ("d", "e", false, Ok(None)),
        ("e", "d", false, Err(NotEmpty)),
        ("d/sub", "d", false, Err(NotEmpty)),
        ("d", "d/sub/new", false, Err(Invalid)),
        ("d", "d/new", false, Err(Invalid)),
        ("d", "h", false, Ok(None)),
        ("d/sub", "e/moved", false, Ok(None)),
    ] {
        let mut names = table();
        let before = tree(&names);
        let got = names.rename(&name(from), &name(to), no_replace);
        let got = got.map(|region| region.map(|id| id.0)).map_err(|refusal| refusal.code);
        assert_eq!(got, result, "{from} to {to}");
        if result.is_err() || from == to {
            assert_eq!(tree(&names), before, "{from} to {to}");
        }
    }
}

#[test]
fn a_directory_takes_everything_below_it_along() {
    let mut names = table();
    names.rename(&name("d"), &name("e/deep"), false).expect("a rename");
    assert_eq!(tree(&names), ["e/", "e/deep/", "e/deep/sub/", "e/deep/sub/x=1", "e/deep/y=2", "f=3", "g=4"]);
    assert_eq!(names.directories(), 4);
    // A name that only starts alike is not below.
    names.add_directory(&name("e/deeper"), 0o700).expect("a directory");
    names.rename(&name("e/deep"), &name("d"), false).expect("a rename back");
    assert_eq!(tree(&names), ["d/", "d/sub/", "d/sub/x=1", "d/y=2", "e/", "e/deeper/", "f=3", "g=4"]);
    assert_eq!(names.attributes("e/deeper").map(|attributes| attributes.mode), Ok(0o700));
}

#[test]
fn an_exchange_swaps_whatever_the_two_are() {
    let mut names = table();
    names.exchange(&name("d/sub"), &name("f")).expect("an exchange");
    assert_eq!(tree(&names), ["d/", "d/sub=3", "d/y=2", "e/", "f/", "f/x=1", "g=4"]);
    names.exchange(&name("d"), &name("f")).expect("two directories");
    assert_eq!(tree(&names), ["d/", "d/x=1", "e/", "f/", "f/sub=3", "f/y=2", "g=4"]);
    let code = |result: Answer<()>| result.expect_err("a refusal").code;
    assert_eq!(code(names.exchange(&name("f"), &name("f/sub"))), Invalid);
    assert_eq!(code(names.exchange(&name("f/sub"), &name("f"))), Invalid);
    assert_eq!(code(names.exchange(&name("f"), &name("missing"))), NotFound);
}

#[test]
fn only_what_is_there_and_empty_is_removed() {
    let mut names = table();
    let mut remove =
        |which: &str, directory| names.remove(&name(which), directory).map_err(|refusal| refusal.code);
    assert_eq!(remove("d", true), Err(NotEmpty));
    assert_eq!(remove("d", false), Err(IsDirectory));
    assert_eq!(remove("f", true), Err(NotDirectory));
    assert_eq!(remove("missing", false), Err(NotFound));
    assert_eq!(remove("f/x", false), Err(NotDirectory));
    assert_eq!(remove("f", false), Ok(Some(RegionId(3))));
    assert_eq!(remove("e", true), Ok(None));
    assert_eq!(remove("e", true), Err(NotFound));
}

#[test]
fn a_listing_goes_on_where_the_last_part_ended() {
    let mut names = Namespace::default();
    for at in 0..10 {
        names.add_region(&name(&format!("r{at}")), RegionId(at)).expect("a region");
    }
    names.add_directory(&name("r3-d"), 0o755).expect("a directory");
    names.add_region(&name("r3-d/below"), RegionId(99)).expect("a region");
    let mut all: Vec<String> = Vec::new();
    loop {
        let after = all.last().cloned().unwrap_or_default();
        let (part, more) = names.list("", &after, 3).expect("the root");
        all.extend(part.into_iter().map(|(name, _)| name));
        if !more {
            break;
        }
    }
    assert_eq!(all, ["r0", "r1", "r2", "r3", "r3-d", "r4", "r5", "r6", "r7", "r8", "r9"]);
    assert_eq!(names.list("r0", "", 3).expect_err("a region").code, NotDirectory);
}

#[test]
fn a_move_that_would_make_a_name_below_too_long_is_refused() {
    let mut names = Namespace::default();
    let long = "x".repeat(250);
    let mut path = String::from("a");
    names.add_directory(&name("a"), 0o755).expect("a directory");
    for _ in 0..4 {
        path = format!("{path}/{}", &long[..240]);
        names.add_directory(&name(&path), 0o755).expect("a directory");
    }
    let refused = names.rename(&name("a"), &name(&long), false).expect_err("too long");
    assert_eq!(refused.code, NameTooLong);
    assert!(names.find(&name(&path)).is_ok(), "nothing was moved");
    assert!(names.rename(&name("a"), &name("b"), false).is_ok());
}

/// The index of names, checked against the table itself.
fn names_of(table: &Namespace, id: u64) -> Vec<String> {
    let names: Vec<String> = table.names(RegionId(id)).cloned().collect();
    let found: Vec<String> = tree(table)
        .iter()
        .filter_map(|entry| entry.strip_suffix(&format!("={id}")))
        .map(str::to_owned)
        .collect();
    assert_eq!(names, found);
    assert_eq!(table.links(RegionId(id)) as usize, names.len());
    names
}

#[test]
fn a_region_has_several_names_wherever_they_move() {
    let mut names = table();
    let code = |result: Answer<RegionId>| result.expect_err("a refusal").code;
    assert_eq!(names.add_link(&name("f"), &name("e/f2")), Ok(RegionId(3)));
    names.add_link(&name("e/f2"), &name("d/sub/f3")).expect("a third name");
    assert_eq!(code(names.add_link(&name("d"), &name("d2"))), IsDirectory);
    assert_eq!(code(names.add_link(&name("f"), &name("g"))), Exists);
    assert_eq!(code(names.add_link(&name("missing"), &name("m"))), NotFound);
    assert_eq!(code(names.add_link(&name("f"), &name("none/m"))), NotFound);
    assert_eq!(names_of(&names, 3), ["d/sub/f3", "e/f2", "f"]);
    // Two names of one region: nothing happens.
    assert_eq!(names.rename(&name("f"), &name("e/f2"), false), Ok(None));
    assert_eq!(names_of(&names, 3), ["d/sub/f3", "e/f2", "f"]);
    names.exchange(&name("d"), &name("e")).expect("two directories with names of one region");
    assert_eq!(names_of(&names, 3), ["d/f2", "e/sub/f3", "f"]);
    assert_eq!(names_of(&names, 1), ["e/sub/x"]);
    names.rename(&name("e"), &name("h"), false).expect("a rename");
    assert_eq!(names_of(&names, 3), ["d/f2", "f", "h/sub/f3"]);
    assert_eq!(names.rename(&name("g"), &name("f"), false), Ok(Some(RegionId(3))));
    assert_eq!(names.remove(&name("d/f2"), false), Ok(Some(RegionId(3))));
    assert_eq!(names.remove(&name("h/sub/f3"), false), Ok(Some(RegionId(3))));
    assert_eq!(names_of(&names, 3), [""; 0]);
}

#[test]
fn a_symbolic_link_is_moved_and_removed_itself_and_followed_by_nobody_here() {
    let mut names = table();
    names.add_symlink(&name("l"), b"d".to_vec()).expect("a link");
    assert_eq!(names.symlinks(), 1);
    let code = |result: Answer<Option<RegionId>>| result.expect_err("a refusal").code;
    assert_eq!(names.find(&name("l/y")).expect_err("behind a link").code, Link);
    assert_eq!(names.list("l", "", 9).expect_err("a link").code, Link);
    assert_eq!(code(names.remove(&name("l"), true)), NotDirectory);
    assert_eq!(code(names.rename(&name("l"), &name("e"), false)), IsDirectory);
    assert_eq!(code(names.rename(&name("d"), &name("l"), false)), NotDirectory);
    assert_eq!(names.rename(&name("l"), &name("f"), false), Ok(Some(RegionId(3))));
    assert_eq!(names.rename(&name("g"), &name("f"), false), Ok(None), "the link is replaced");
    assert_eq!(names.symlinks(), 0);
    names.add_symlink(&name("l"), b"d".to_vec()).expect("a link");
    names.exchange(&name("l"), &name("d")).expect("an exchange");
    assert_eq!(tree(&names), ["d->d", "e/", "f=4", "l/", "l/sub/", "l/sub/x=1", "l/y=2"]);
    assert_eq!(names.remove(&name("d"), false), Ok(None));
    assert_eq!(names.symlinks(), 0);
}
