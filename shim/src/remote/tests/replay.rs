//! Requests that must not simply be sent again.

use netmem_protocol::control::{Create, EntryKind, Rename};
use netmem_protocol::{ErrorCode, Header, Kind, RegionId, decode_body};

use super::{REGION, one, remote, script};
use crate::remote::lying::{Liar, Peer, entry};
use crate::remote::{Applied, RemoteError};

fn broken_then(kind: Kind, second: impl FnOnce(&mut Peer, &Header) + Send + 'static) -> Liar {
    Liar::serve(vec![
        script(move |peer| {
            peer.welcome();
            peer.request(kind);
        }),
        script(move |peer| {
            peer.welcome();
            let (header, _) = peer.request(kind);
            second(peer, &header);
        }),
    ])
}

#[test]
fn a_removal_whose_answer_was_lost_is_done_when_the_name_is_gone() {
    let liar = broken_then(Kind::Remove, |peer, header| peer.refuse(header, ErrorCode::NotFound));
    assert_eq!(remote(&liar).remove("a", false), Ok(()));
    liar.finish();
}

#[test]
fn a_removal_whose_answer_was_lost_twice_is_lost() {
    let liar = broken_then(Kind::Remove, |_, _| {});
    let outcome = remote(&liar).remove("a", false);
    assert!(matches!(outcome, Err(RemoteError::Lost { answered: Applied::Maybe, .. })), "{outcome:?}");
    liar.finish();
}

#[test]
fn an_exclusive_creation_whose_answer_was_lost_opens_what_it_made() {
    let liar = broken_then(Kind::Open, |peer, header| {
        peer.refuse(header, ErrorCode::Exists);
        let (header, body) = peer.request(Kind::Open);
        let open: netmem_protocol::control::Open = decode_body(&body, "open").expect("open");
        assert_eq!(open.create, Create::Never);
        peer.answer(&header, &entry(9));
    });
    let opened = remote(&liar).open("a", Create::Exclusive, 0o600).expect("open");
    assert!(opened.created);
    assert_eq!(opened.region, RegionId(9));
    liar.finish();
}

#[test]
fn a_name_that_was_there_before_is_no_success_of_ours() {
    let liar = one(|peer| {
        peer.welcome();
        let (header, _) = peer.request(Kind::Open);
        peer.refuse(&header, ErrorCode::Exists);
    });
    assert_eq!(remote(&liar).open("a", Create::Exclusive, 0o600).expect_err("opened").errno(), 17);
    liar.finish();
}

#[test]
fn a_directory_whose_answer_was_lost_is_made_when_it_is_there() {
    let liar = broken_then(Kind::MakeDir, |peer, header| {
        peer.refuse(header, ErrorCode::Exists);
        let (header, _) = peer.request(Kind::Lookup);
        peer.answer(&header, &netmem_protocol::control::Entry { kind: EntryKind::Directory, ..entry(0) });
    });
    assert!(remote(&liar).make_dir("d", 0o700).expect("made").created);
    liar.finish();
}

#[test]
fn a_rename_whose_answer_was_lost_is_done_when_the_old_name_is_gone() {
    let rename =
        |no_replace, exchange| Rename { from: "a".to_owned(), to: "b".to_owned(), no_replace, exchange };
    let liar = broken_then(Kind::Rename, |peer, header| peer.refuse(header, ErrorCode::NotFound));
    assert_eq!(remote(&liar).rename(&rename(false, false)), Ok(()));
    liar.finish();

    let liar = broken_then(Kind::Rename, |peer, header| {
        peer.refuse(header, ErrorCode::Exists);
        let (header, _) = peer.request(Kind::Lookup);
        peer.answer(&header, &entry(9));
    });
    assert_eq!(
        remote(&liar).rename(&rename(true, false)).expect_err("renamed").errno(),
        17,
        "`a` is still there"
    );
    liar.finish();

    let liar = one(|peer| {
        peer.welcome();
        peer.request(Kind::Rename);
    });
    let outcome = remote(&liar).rename(&rename(false, true));
    assert!(matches!(outcome, Err(RemoteError::Lost { answered: Applied::Maybe, .. })), "{outcome:?}");
    liar.finish();
}

#[test]
fn a_hold_is_never_given_up_twice() {
    let liar = one(|peer| {
        peer.welcome();
        peer.request(Kind::Close);
    });
    assert_eq!(remote(&liar).close(REGION), Ok(()));
    liar.finish();
}

#[test]
fn a_clone_whose_answer_was_lost_is_asked_for_again_and_the_second_one_is_held() {
    let liar = broken_then(Kind::CloneUnnamed, |peer, header| {
        assert_eq!(header.region, REGION);
        peer.answer(header, &entry(REGION.0 + 1));
    });
    assert_eq!(remote(&liar).clone_unnamed(REGION).expect("a clone").region, RegionId(REGION.0 + 1));
    liar.finish();
}

#[test]
fn a_server_that_knows_no_clones_without_a_name_says_so_once() {
    let liar = one(|peer| {
        peer.welcome();
        let (header, _) = peer.request(Kind::CloneUnnamed);
        peer.refuse(&header, ErrorCode::Unsupported);
    });
    let error = remote(&liar).clone_unnamed(REGION).expect_err("no clone");
    assert_eq!((error.code(), error.errno()), (Some(ErrorCode::Unsupported), 95));
    liar.finish();
}

#[test]
fn a_clone_that_is_what_it_was_made_of_is_none() {
    let liar = one(|peer| {
        peer.welcome();
        let (header, _) = peer.request(Kind::CloneUnnamed);
        peer.answer(&header, &entry(REGION.0));
    });
    let outcome = remote(&liar).clone_unnamed(REGION);
    assert!(matches!(outcome, Err(RemoteError::Protocol { .. })), "{outcome:?}");
    liar.finish();
}
