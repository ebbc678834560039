//! Answers that decode, and say of names and regions what can't be.

use core::fmt::Debug;

use netmem_protocol::control::{
    Committed, Create, Entry, EntryKind, Listing, Names, Reached, Resolve, Resolved,
};
use netmem_protocol::{CommitId, Epoch, ProtocolError, RegionId};
use serde::Serialize;

use super::{REGION, one, protocol_error, remote};
use crate::remote::lying::{committed, entry};
use crate::remote::{Remote, RemoteError};

/// What the client makes of an answer.
fn told<A: Serialize + Send + 'static, T>(
    answer: A,
    ask: impl FnOnce(&Remote) -> Result<T, RemoteError>,
) -> Result<T, RemoteError> {
    let liar = one(move |peer| {
        peer.welcome();
        let (header, _) = peer.try_request().expect("a request");
        peer.answer(&header, &answer);
    });
    let outcome = ask(&remote(&liar));
    liar.finish();
    outcome
}

#[track_caller]
fn refused(outcome: Result<impl Debug, RemoteError>, about: &str) {
    let ProtocolError::Malformed { what } = protocol_error(outcome) else { panic!("not malformed") };
    assert!(what.starts_with(about), "{what}");
}

/// No name of a file below a directory.
const WILD: [&str; 8] = ["..", ".", "", "../x", "/x", "a//b", "a/../../b", "x\0"];

#[test]
fn a_directory_with_names_that_lead_elsewhere_or_without_end_is_refused() {
    let listed = |names: &[&str], more| {
        let entries = names.iter().map(|name| ((*name).to_owned(), entry(1))).collect();
        told(Listing { entries, more }, |remote| remote.list("d", "a"))
    };
    assert_eq!(listed(&["b", "c"], true).map(|part| part.entries.len()), Ok(2));
    for name in WILD {
        refused(listed(&[name], false), "listing");
    }
    for names in [&["b/c"][..], &["c", "b"], &["b", "b"], &["a"], &["A"]] {
        refused(listed(names, false), "listing");
    }
    refused(listed(&[], true), "listing");
    let many: Vec<String> = (0..513).map(|i| format!("b{i:03}")).collect();
    refused(listed(&many.iter().map(String::as_str).collect::<Vec<_>>(), false), "listing");
}

#[test]
fn names_of_a_region_that_lead_elsewhere_are_refused() {
    let named = |names: Vec<String>| told(Names { names }, |remote| remote.names(REGION));
    assert_eq!(named(vec!["d/a".to_owned()]), Ok(vec!["d/a".to_owned()]));
    for name in WILD {
        refused(named(vec!["a".to_owned(), name.to_owned()]), "names");
    }
    refused(named(vec!["a".to_owned(); 1001]), "names");
}

#[test]
fn a_path_that_leads_nowhere_or_round_and_round_is_refused() {
    let ask = Resolve { base: String::new(), path: "../a/b".to_owned(), follow: true, links: 3 };
    let led = |reached, name: &str, links, outside: &str| {
        let (name, outside) = (name.to_owned(), outside.as_bytes().to_vec());
        told(Resolved { reached, name, slash: false, links, outside }, |remote| remote.resolve(&ask))
    };
    for (reached, name, links, outside) in [
        (Reached::There, "d/a", 3, ""),
        (Reached::There, "", 40, ""),
        (Reached::Outside, "", 3, "../a/b"),
        (Reached::Outside, "", 4, "/netmem/a/longer/one"),
    ] {
        assert!(led(reached, name, links, outside).is_ok(), "{name:?} {links} {outside:?}");
    }
    for name in WILD {
        refused(led(Reached::Missing, name, 3, ""), "where a path leads");
    }
    refused(led(Reached::Outside, "a", 3, ".."), "where a path leads");
    for (reached, links, outside) in [
        (Reached::There, 2, ""),
        (Reached::There, 41, ""),
        (Reached::Outside, 3, ""),
        (Reached::Outside, 3, "/netmem/a/b"),
        (Reached::Outside, 4, "/a\0"),
    ] {
        let name = if reached == Reached::Outside { "" } else { "a" };
        refused(led(reached, name, links, outside), "where a path leads");
    }
}

#[test]
fn an_entry_that_cannot_be_is_refused_and_not_held() {
    let lies: [fn(&mut Entry); 8] = [
        |entry| entry.region = RegionId(0),
        |entry| entry.size = (1 << 44) + 1,
        |entry| entry.mode = 0o10000,
        |entry| entry.kind = EntryKind::Directory,
        |entry| entry.kind = EntryKind::Symlink,
        |entry| {
            *entry = Entry {
                kind: EntryKind::Symlink,
                region: RegionId(0),
                size: 2,
                target: vec![b'a'],
                ..entry.clone()
            }
        },
        |entry| {
            *entry = Entry {
                kind: EntryKind::Symlink,
                region: RegionId(0),
                size: 1,
                target: vec![0],
                ..entry.clone()
            }
        },
        |entry| {
            *entry = Entry {
                kind: EntryKind::Symlink,
                region: RegionId(0),
                size: 4096,
                target: vec![1; 4096],
                ..entry.clone()
            }
        },
    ];
    for lie in lies {
        let mut wrong = entry(9);
        lie(&mut wrong);
        refused(told(wrong.clone(), |remote| remote.lookup("a")), "entry");
        refused(told(wrong, |remote| remote.open("a", Create::Never, 0)), "entry");
    }
    let directory = Entry { kind: EntryKind::Directory, ..entry(0) };
    assert_eq!(told(directory.clone(), |remote| remote.lookup("a")), Ok(directory.clone()));
    refused(told(directory, |remote| remote.open("a", Create::Never, 0)), "entry");
}

#[test]
fn a_commit_that_cannot_have_happened_is_refused() {
    assert_eq!(told(committed(9), |remote| remote.commit_status(REGION, CommitId(1))), Ok(committed(9)));
    for lie in
        [Committed { previous: Epoch(10), ..committed(9) }, Committed { size: u64::MAX, ..committed(9) }]
    {
        refused(told(lie, |remote| remote.commit_status(REGION, CommitId(1))), "commit");
        refused(told(lie, |remote| remote.resize(REGION, 1)), "commit");
    }
}
