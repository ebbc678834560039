//! Servers that die and come back, and forked children.

use std::sync::atomic::Ordering;

use netmem_protocol::control::{Inherit, Reclaim};
use netmem_protocol::{ClientId, ErrorCode, HelloStatus, Kind, RegionId, Run, ServerHello, decode_body};

use super::{REGION, fetch, remote, script};
use crate::remote::lying::{Liar, Peer, entry, pages_answer, server_hello};

#[test]
fn a_fetch_that_was_cut_off_is_made_again_on_a_new_connection() {
    let liar = Liar::serve(vec![
        script(|peer| {
            peer.welcome();
            let (header, _) = peer.request(Kind::Fetch);
            let answer = pages_answer(&header, [1, 2, 3]);
            peer.send(&answer[..5000]);
        }),
        script(|peer| {
            peer.welcome();
            let (header, body) = peer.request(Kind::Fetch);
            peer.answer_fetch(&header, &body);
            peer.expect_end();
        }),
    ]);
    let remote = remote(&liar);
    assert_eq!(fetch(&remote, &[Run::new(1, 3)]), Ok(vec![1, 2, 3]));
    assert_eq!(remote.stats().reconnects.load(Ordering::Relaxed), 1);
    assert_eq!(remote.stats().pages_fetched.load(Ordering::Relaxed), 3);
    drop(remote);
    liar.finish();
}

#[test]
fn a_server_that_was_restarted_between_two_requests_is_not_noticed() {
    fn once(peer: &mut Peer) {
        peer.welcome();
        let (header, body) = peer.request(Kind::Fetch);
        peer.answer_fetch(&header, &body);
    }
    let liar = Liar::serve(vec![script(once), script(once), script(once)]);
    let remote = remote(&liar);
    for page in [1, 5, 6] {
        assert_eq!(fetch(&remote, &[Run::new(page, 1)]), Ok(vec![page]));
    }
    assert_eq!(remote.stats().reconnects.load(Ordering::Relaxed), 2);
    liar.finish();
}

#[test]
fn a_server_that_is_closing_is_asked_again() {
    let liar = Liar::serve(vec![
        script(|peer| {
            peer.welcome();
            let (header, _) = peer.request(Kind::Remove);
            peer.refuse(&header, ErrorCode::Closing);
            peer.expect_end();
        }),
        script(|peer| {
            peer.welcome();
            let (header, _) = peer.request(Kind::Remove);
            peer.refuse(&header, ErrorCode::NotFound);
        }),
    ]);
    let remote = remote(&liar);
    // Closing means that the first one was not carried out: this NotFound is genuine.
    assert_eq!(remote.remove("a", false).expect_err("removed").errno(), 2);
    liar.finish();
}

#[test]
fn a_server_that_comes_back_with_another_store_is_told_each_time() {
    fn other(peer: &mut Peer) {
        peer.hello();
        peer.send_hello(HelloStatus::Welcome, 2);
        peer.expect_end();
    }
    let liar = Liar::serve(vec![
        script(|peer| {
            peer.welcome();
            let (header, _) = peer.request(Kind::Ping);
            peer.answer(&header, &());
        }),
        script(other),
        script(other),
        script(|peer| {
            peer.hello();
            peer.send_hello(HelloStatus::Welcome, 2);
            let (header, _) = peer.request(Kind::Ping);
            peer.answer(&header, &());
        }),
    ]);
    let remote = remote(&liar);
    assert_eq!(remote.ping(), Ok(()));
    for _ in 0..2 {
        let error = remote.ping().expect_err("answered");
        assert_eq!(error.errno(), 116);
        assert!(error.to_string().contains("lost its memory"), "{error}");
    }
    remote.forget_store();
    assert_eq!(remote.ping(), Ok(()));
    liar.finish();
}

/// A hello of one run of a server.
fn run_of_a_server(peer: &mut Peer, instance: u64) {
    peer.hello();
    peer.send(&ServerHello { instance, ..server_hello(HelloStatus::Welcome, 7) }.encode());
}

#[test]
fn a_server_that_was_restarted_is_told_first_of_all_what_is_held() {
    let liar = Liar::serve(vec![
        script(|peer| {
            run_of_a_server(peer, 1);
            for region in [5, 6, 5] {
                let (header, _) = peer.request(Kind::OpenId);
                peer.answer(&header, &entry(region));
            }
            let (header, _) = peer.request(Kind::Close);
            peer.answer(&header, &());
        }),
        script(|peer| {
            run_of_a_server(peer, 2);
            let (header, body) = peer.request(Kind::Reclaim);
            let holds = vec![(RegionId(5), 2)];
            assert_eq!(decode_body(&body, "Reclaim"), Ok(Reclaim { holds }));
            peer.answer(&header, &());
            let (header, _) = peer.request(Kind::Ping);
            peer.answer(&header, &());
        }),
        // The same run again: nothing is told.
        script(|peer| {
            run_of_a_server(peer, 2);
            let (header, _) = peer.request(Kind::Ping);
            peer.answer(&header, &());
        }),
    ]);
    let remote = remote(&liar);
    for region in [5, 6, 5] {
        remote.open_id(RegionId(region)).expect("an entry");
    }
    remote.close(RegionId(6)).expect("a hold");
    assert_eq!(remote.ping(), Ok(()));
    assert_eq!(remote.ping(), Ok(()));
    liar.finish();
}

#[test]
fn a_forked_child_closes_its_copies_and_comes_under_its_own_name() {
    let liar = Liar::serve(vec![
        script(|peer| {
            assert_eq!(peer.welcome().client, ClientId([1; 16]));
            let (header, _) = peer.request(Kind::Ping);
            peer.answer(&header, &());
            peer.expect_end();
        }),
        script(|peer| {
            assert_eq!(peer.welcome().client, ClientId([9; 16]));
            let (header, body) = peer.request(Kind::Inherit);
            let inherit = Inherit { parent: ClientId([1; 16]), regions: vec![REGION] };
            assert_eq!(decode_body(&body, "Inherit"), Ok(inherit));
            peer.answer(&header, &());
            let (header, _) = peer.request(Kind::Ping);
            peer.answer(&header, &());
        }),
    ]);
    let remote = remote(&liar);
    assert_eq!(remote.ping(), Ok(()));
    remote.forget_connections(ClientId([9; 16]), vec![REGION], Vec::new());
    assert_eq!(remote.ping(), Ok(()));
    assert_eq!(remote.stats().reconnects.load(Ordering::Relaxed), 0);
    liar.finish();
}

#[test]
fn a_connection_that_was_out_when_its_process_forked_does_not_close_a_number_that_is_not_its_own() {
    let liar = Liar::serve(vec![script(|peer| {
        peer.welcome();
        peer.expect_end();
    })]);
    let remote = remote(&liar);
    let stream = remote.begin_commit().expect("begin");
    remote.forget_connections(ClientId([9; 16]), Vec::new(), Vec::new());
    drop(stream);
    liar.finish();
}
