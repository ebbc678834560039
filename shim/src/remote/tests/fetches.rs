//! Fetches of many pages, and of many threads.

use netmem_protocol::{ErrorCode, Header, Kind, PageBody, Run};

use super::{fetch, one, remote, script};
use crate::remote::CONNECTIONS_MAX;
use crate::remote::lying::{Liar, Peer, pages_of};

#[test]
fn a_large_fetch_keeps_four_frames_in_flight_and_hands_the_pages_on_in_order() {
    let liar = one(|peer| {
        peer.welcome();
        let mut ahead: Vec<(Header, Vec<u8>)> = (0..4).map(|_| peer.request(Kind::Fetch)).collect();
        while !ahead.is_empty() {
            let (header, body) = ahead.remove(0);
            peer.answer_fetch(&header, &body);
            if header.request.0 + 4 <= 6 {
                ahead.push(peer.request(Kind::Fetch));
            }
        }
        peer.expect_end();
    });
    let remote = remote(&liar);
    let runs = [Run::new(3, 500), Run::new(0, 1), Run::new(5000, 100)];
    assert_eq!(fetch(&remote, &runs), Ok(pages_of(&runs)));
    drop(remote);
    liar.finish();
}

#[test]
fn a_fetch_that_was_cut_off_in_the_middle_goes_on_where_it_was() {
    let liar = Liar::serve(vec![
        script(|peer| {
            peer.welcome();
            let (header, body) = peer.request(Kind::Fetch);
            peer.answer_fetch(&header, &body);
            peer.request(Kind::Fetch);
        }),
        script(|peer| {
            peer.welcome();
            let (header, body) = peer.request(Kind::Fetch);
            let asked: Vec<Run> =
                PageBody::parse_fetch(&body).expect("fetch").runs().map(|wire| wire.run).collect();
            assert_eq!(asked, [Run::new(16, 64)]);
            peer.answer_fetch(&header, &body);
        }),
    ]);
    let remote = remote(&liar);
    let runs = [Run::new(0, 80)];
    assert_eq!(fetch(&remote, &runs), Ok(pages_of(&runs)));
    liar.finish();
}

#[test]
fn a_refused_fetch_gives_the_reason_and_the_connection_is_used_again() {
    let liar = one(|peer| {
        peer.welcome();
        let (header, _) = peer.request(Kind::Fetch);
        peer.refuse(&header, ErrorCode::Stale);
        let (header, body) = peer.request(Kind::Fetch);
        peer.answer_fetch(&header, &body);
    });
    let remote = remote(&liar);
    assert_eq!(fetch(&remote, &[Run::new(1, 1)]).expect_err("fetched").code(), Some(ErrorCode::Stale));
    assert_eq!(fetch(&remote, &[Run::new(1, 1)]), Ok(vec![1]));
    liar.finish();
}

#[test]
fn more_threads_than_connections_take_turns() {
    fn honest(peer: &mut Peer) {
        peer.welcome();
        while let Some((header, body)) = peer.try_request() {
            peer.answer_fetch(&header, &body);
        }
    }
    let liar = Liar::serve_at_once(CONNECTIONS_MAX, honest);
    let remote = remote(&liar);
    // All connections are taken at once, so that the server sees as many as it expects.
    let mut leases = Vec::new();
    for _ in 0..CONNECTIONS_MAX {
        leases.push(remote.begin_commit().expect("begin"));
    }
    std::thread::scope(|scope| {
        for thread in 0..3 * CONNECTIONS_MAX as u64 {
            let remote = &remote;
            scope.spawn(move || {
                for round in 0..20 {
                    let page = thread * 100 + round;
                    assert_eq!(fetch(remote, &[Run::new(page, 1)]), Ok(vec![page]));
                }
            });
        }
        for stream in leases {
            stream.give_back();
        }
    });
    drop(remote);
    liar.finish();
}
