//! Commits, whole and broken.

use netmem_protocol::control::{Commit, Committed};
use netmem_protocol::{CommitId, ErrorCode, Header, HelloStatus, Kind, PageBody, decode_body};

use super::{REGION, empty_commit, one, remote, script, stage_of};
use crate::remote::lying::{Liar, Peer, committed, content, server_hello};
use crate::remote::{Applied, CommitFailure, PageSource, Remote, RemoteError, StageSink};

fn expect_stage(peer: &mut Peer, pages: impl IntoIterator<Item = u64>) -> CommitId {
    let (header, body) = peer.request(Kind::Stage);
    assert_eq!(header.region, REGION);
    let body = PageBody::parse(&body, false).expect("a stage that decodes");
    let mut staged = Vec::new();
    for (page, data) in body.pages() {
        assert_eq!(data.copied(), content(page), "page {page}");
        staged.push(page);
    }
    assert_eq!(staged, pages.into_iter().collect::<Vec<_>>());
    body.commit
}

fn commit_pages(remote: &Remote) -> Result<Vec<Committed>, CommitFailure> {
    remote.commit(&mut |sink| {
        for pages in [1..3, 3..9] {
            let (builder, data) = stage_of(pages);
            sink.stage(REGION, &builder, &data)?;
        }
        Ok(vec![(REGION, empty_commit())])
    })
}

fn expect_commit(peer: &mut Peer) -> Header {
    let first = expect_stage(peer, 1..3);
    assert_eq!(expect_stage(peer, 3..9), first);
    let (header, body) = peer.request(Kind::Commit);
    let commit: Commit = decode_body(&body, "commit").expect("a commit that decodes");
    assert_eq!((commit.commit, commit.staged_pages), (first, 8));
    header
}

#[test]
fn a_commit_sends_its_pages_then_its_count() {
    let liar = one(|peer| {
        peer.welcome();
        for epoch in 4..6 {
            let header = expect_commit(peer);
            peer.answer(&header, &committed(epoch));
        }
    });
    let remote = remote(&liar);
    for epoch in 4..6 {
        assert_eq!(commit_pages(&remote), Ok(vec![committed(epoch)]));
    }
    liar.finish();
}

#[test]
fn a_commit_whose_answer_was_lost_can_be_asked_after() {
    let liar = Liar::serve(vec![
        script(|peer| {
            peer.welcome();
            expect_commit(peer);
        }),
        script(|peer| {
            peer.welcome();
            let (header, body) = peer.request(Kind::CommitStatus);
            let status: netmem_protocol::control::CommitStatus =
                decode_body(&body, "status").expect("status");
            assert_eq!(status.commit, CommitId(1));
            peer.answer(&header, &committed(4));
        }),
    ]);
    let remote = remote(&liar);
    let failure = commit_pages(&remote).expect_err("committed");
    assert_eq!((failure.id, failure.applied), (CommitId(1), Applied::Maybe));
    assert!(matches!(failure.error, RemoteError::Lost { answered: Applied::Maybe, .. }), "{failure:?}");
    assert_eq!(remote.commit_status(REGION, failure.id), Ok(committed(4)));
    liar.finish();
}

#[test]
fn a_commit_that_was_cut_off_between_its_pages_has_not_happened() {
    let liar = one(|peer| {
        peer.welcome();
        expect_stage(peer, 1..3);
    });
    let remote = remote(&liar);
    let mut stream = remote.begin_commit().expect("begin");
    let (builder, data) = stage_of(1..3);
    stream.stage(REGION, &builder, &data).expect("the first stage");
    // The peer has hung up now or will in a moment; what is sent to it is lost sooner or later.
    liar.finish();
    let (builder, data) = stage_of(0..256);
    let error = (0..64)
        .find_map(|_| stream.stage(REGION, &builder, &data).err())
        .expect("64 MiB were taken by nobody");
    assert!(matches!(error, RemoteError::Lost { answered: Applied::No, .. }), "{error:?}");
    assert_eq!(stream.finish(vec![(REGION, empty_commit())]).expect_err("committed").applied, Applied::No);
}

#[test]
fn an_abandoned_commit_takes_its_connection_with_it() {
    let liar = one(|peer| {
        peer.welcome();
        expect_stage(peer, 1..3);
        peer.expect_end();
    });
    let remote = remote(&liar);
    let outcome = remote.commit(&mut |sink| {
        let (builder, data) = stage_of(1..3);
        sink.stage(REGION, &builder, &data)?;
        Err(RemoteError::Answer { code: ErrorCode::Invalid, text: "changed my mind".to_owned() })
    });
    assert_eq!(outcome.expect_err("committed").applied, Applied::No);
    liar.finish();
}

#[test]
fn stages_are_cut_to_what_the_server_takes() {
    let liar = one(|peer| {
        peer.hello();
        let mut hello = server_hello(HelloStatus::Welcome, 1);
        hello.frame_body_max = 3 * 4112 + 100;
        peer.send(&hello.encode());
        expect_stage(peer, 1..4);
        expect_stage(peer, 4..8);
        expect_stage(peer, 8..9);
        let (header, _) = peer.request(Kind::Commit);
        peer.answer(&header, &committed(4));
    });
    let remote = remote(&liar);
    let mut stream = remote.begin_commit().expect("begin");
    let (builder, data) = stage_of(1..9);
    stream.stage(REGION, &builder, &data).expect("stage");
    assert_eq!(stream.finish(vec![(REGION, empty_commit())]), Ok(vec![committed(4)]));
    liar.finish();
}
