//! The client against servers that lie, hang, die and come back.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use netmem_protocol::control::{Commit, Committed, Create, EntryKind, Rename};
use netmem_protocol::{
    CacheId, ClientId, CommitId, Epoch, ErrorCode, FRAME_BODY_MAX, Header, HelloStatus, Kind, PAGE_SIZE,
    PageBody, PageBodyBuilder, ProtocolError, RegionId, Run, RunKind, decode_body,
};

use super::lying::{
    Liar, Peer, Script, answer_header, committed, content, entry, nobody, pages_answer, pages_of,
    server_hello,
};
use super::{
    Applied, CONNECTIONS_MAX, FIRST_CONTACT, PageSource, Remote, RemoteConfig, RemoteError, StageSink, Why,
};
use crate::config::ServerAddress;

const REGION: RegionId = RegionId(7);
const EPOCH: Epoch = Epoch(3);

fn remote_for(address: &ServerAddress, timeout: Option<Duration>) -> Remote {
    let config = RemoteConfig { address: address.clone(), timeout };
    Remote::new(config, ClientId([1; 16]), CacheId([2; 16]))
}

fn remote(liar: &Liar) -> Remote {
    remote_for(&liar.address, Some(Duration::from_secs(10)))
}

fn script(script: impl FnOnce(&mut Peer) + Send + 'static) -> Script {
    Box::new(script)
}

fn one(only: impl FnOnce(&mut Peer) + Send + 'static) -> Liar {
    Liar::serve(vec![script(only)])
}

fn fetch(remote: &Remote, runs: &[Run]) -> Result<Vec<u64>, RemoteError> {
    let mut seen = Vec::new();
    let outcome = remote.fetch(REGION, EPOCH, runs, &mut |page, data| {
        assert_eq!(data.copied(), content(page), "content of page {page}");
        seen.push(page);
    });
    outcome.map(|()| seen)
}

fn protocol_error(outcome: Result<impl core::fmt::Debug, RemoteError>) -> ProtocolError {
    match outcome {
        Err(RemoteError::Protocol { error, .. }) => error,
        other => panic!("not a protocol error: {other:?}"),
    }
}

fn empty_commit() -> Commit {
    Commit { commit: CommitId(0), staged_pages: 0, base: EPOCH, strict: false, cut: None, size: None }
}

// The first exchange.

#[test]
fn a_peer_that_speaks_something_else_is_named_at_once() {
    let liar = one(|peer| {
        peer.hello();
        peer.send(&[b'H'; 64]);
        peer.expect_end();
    });
    let remote = remote(&liar);
    assert_eq!(protocol_error(remote.hello()), ProtocolError::NotNetmem([b'H'; 8]));
    liar.finish();
}

#[test]
fn a_server_of_another_version_is_told_at_once_with_both_versions() {
    let liar = one(|peer| {
        peer.hello();
        let mut hello = server_hello(HelloStatus::Version, 1);
        (hello.version_min, hello.version_max) = (8, 9);
        peer.send(&hello.encode());
        peer.expect_end();
    });
    let remote = remote(&liar);
    let error = remote.hello().expect_err("agreed");
    let text = error.to_string();
    assert!(text.contains("versions 8 to 9") && text.starts_with("tcp://127.0.0.1:"), "{text}");
    assert_eq!(error.errno(), 5);
    liar.finish();
}

#[test]
fn a_wrong_address_is_told_within_the_time_for_first_contact() {
    // A port that was free a moment ago, and that nobody listens on.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    let port = listener.local_addr().expect("address").port();
    drop(listener);
    let address = ServerAddress::Tcp { host: "localhost".to_owned(), port };
    let remote = remote_for(&address, None);
    let start = Instant::now();
    let error = remote.lookup("a").expect_err("answered");
    let text = error.to_string();
    assert!(text.starts_with(&format!("tcp://localhost:{port}: connection refused")), "{text}");
    assert!(text.ends_with("start netmem-server there or set NETMEM_SERVER"), "{text}");
    assert!(start.elapsed() >= FIRST_CONTACT && start.elapsed() < FIRST_CONTACT * 3, "{:?}", start.elapsed());
    assert_eq!(error.errno(), 5);
}

#[test]
fn a_server_that_takes_no_more_connections_says_so() {
    fn full(peer: &mut Peer) {
        peer.hello();
        peer.send_hello(HelloStatus::TooManyConnections, 1);
        peer.expect_end();
    }
    let liar = Liar::serve(vec![
        script(full),
        script(full),
        script(|peer| {
            peer.welcome();
            let (header, _) = peer.request(Kind::Ping);
            peer.answer(&header, &());
        }),
    ]);
    let first = remote(&liar);
    assert_eq!(first.ping(), Ok(()), "a place became free");
    liar.finish();

    let liar = Liar::serve(vec![script(full)]);
    let second = remote_for(&liar.address, Some(Duration::ZERO));
    // No time at all: one attempt, or none.
    assert!(second.ping().is_err());
    let third = remote(&liar);
    let error = third.ping().expect_err("taken");
    let text = error.to_string();
    assert!(
        text.contains("as many connections as it allows") || text.contains("connection refused"),
        "{text}"
    );
    liar.finish();
}

#[test]
fn a_server_that_accepts_and_says_nothing_is_unreachable() {
    let liar = one(|peer| {
        peer.hello();
        peer.expect_end();
    });
    let remote = remote_for(&liar.address, Some(Duration::from_millis(100)));
    let outcome = remote.hello();
    assert!(matches!(outcome, Err(RemoteError::Unreachable { why: Why::Silent, .. })), "{outcome:?}");
    liar.finish();
}

#[test]
fn a_unix_socket_does_as_well() {
    let path = std::env::temp_dir().join(format!("netmem-remote-{}.sock", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let listener = std::os::unix::net::UnixListener::bind(&path).expect("bind");
    let server = std::thread::spawn(move || {
        use std::io::{Read, Write};
        let (mut stream, _) = listener.accept().expect("accept");
        stream.read_exact(&mut [0; 64]).expect("hello");
        stream.write_all(&server_hello(HelloStatus::Welcome, 1).encode()).expect("hello");
        let mut head = [0; 32];
        stream.read_exact(&mut head).expect("request");
        let header = Header::decode(&head, FRAME_BODY_MAX).expect("header");
        stream.write_all(&answer_header(&header, Kind::Ping.answer()).encode()).expect("answer");
    });
    let address = ServerAddress::Unix(path.to_str().expect("path").to_owned());
    assert_eq!(remote_for(&address, None).ping(), Ok(()));
    server.join().expect("server");
    std::fs::remove_file(&path).expect("remove");
    let error = remote_for(&address, Some(Duration::from_millis(50))).ping().expect_err("answered");
    assert!(error.to_string().contains("there is no such socket"), "{error}");
}

// Answers that are wrong.

fn lie(answer: impl FnOnce(&Header) -> Vec<u8> + Send + 'static) -> ProtocolError {
    let liar = one(|peer| {
        peer.welcome();
        let (header, _) = peer.request(Kind::Fetch);
        peer.send(&answer(&header));
        // The connection is not used again.
        peer.expect_end();
    });
    let remote = remote(&liar);
    let mut handed = 0;
    let outcome = remote.fetch(REGION, EPOCH, &[Run::new(1, 4)], &mut |_, _| handed += 1);
    let error = protocol_error(outcome);
    assert_eq!(handed, 0, "a page of a wrong answer was handed on");
    liar.finish();
    error
}

#[test]
fn pages_that_were_not_asked_for_are_never_handed_on() {
    let not_ours = ProtocolError::Malformed { what: "answer to a fetch: not the pages that were asked for" };
    for pages in
        [vec![1, 2, 3], vec![1, 2, 3, 4, 5], vec![2, 1, 3, 4], vec![1, 2, 3, 6], vec![], vec![1, 1, 2, 3]]
    {
        assert_eq!(lie(move |header| pages_answer(header, pages)), not_ours);
    }
}

#[test]
fn data_that_is_not_as_long_as_its_runs_say_is_refused() {
    let error = lie(|header| {
        let mut out = pages_answer(header, [1, 2, 3, 4]);
        let short = out.len() - PAGE_SIZE;
        out.truncate(short);
        let length = (short - 32) as u32;
        out[..4].copy_from_slice(&length.to_le_bytes());
        out
    });
    assert_eq!(error, ProtocolError::Malformed { what: "page body: data length" });
}

#[test]
fn an_answer_to_another_request_is_refused() {
    let error = lie(|header| pages_answer(&nobody(header), [1, 2, 3, 4]));
    assert_eq!(error, ProtocolError::Malformed { what: "answer: its request number" });
}

#[test]
fn an_answer_of_another_kind_is_refused() {
    let error = lie(|header| answer_header(header, Kind::View.answer()).encode().to_vec());
    assert_eq!(error, ProtocolError::UnexpectedKind { kind: Kind::View.answer() });
}

#[test]
fn a_frame_over_the_limit_is_refused_before_anything_is_allocated_for_it() {
    let error = lie(|header| {
        let mut long = answer_header(header, Kind::Fetch.answer());
        long.length = u32::MAX;
        long.encode().to_vec()
    });
    assert_eq!(error, ProtocolError::FrameTooLong { length: u32::MAX, limit: FRAME_BODY_MAX });
}

#[test]
fn a_control_body_that_does_not_decode_is_refused() {
    let liar = one(|peer| {
        peer.welcome();
        let (header, _) = peer.request(Kind::Lookup);
        peer.answer(&header, &"not an entry");
        peer.expect_end();
    });
    let remote = remote(&liar);
    assert_eq!(protocol_error(remote.lookup("a")), ProtocolError::Malformed { what: "answer" });
    liar.finish();
}

#[test]
fn an_answer_that_nobody_waits_for_costs_the_connection_and_no_request() {
    let liar = Liar::serve(vec![
        script(|peer| {
            peer.welcome();
            let (header, _) = peer.request(Kind::Ping);
            let mut twice = answer_header(&header, Kind::Ping.answer()).encode().to_vec();
            twice.extend_from_slice(&answer_header(&header, Kind::Ping.answer()).encode());
            peer.send(&twice);
            peer.expect_end();
        }),
        script(|peer| {
            peer.welcome();
            let (header, _) = peer.request(Kind::Ping);
            peer.answer(&header, &());
        }),
    ]);
    let remote = remote(&liar);
    assert_eq!(remote.ping(), Ok(()));
    assert_eq!(remote.ping(), Ok(()));
    liar.finish();
}

// Servers that hang.

#[test]
fn a_server_that_hangs_is_given_up_at_the_timeout() {
    let liar = one(|peer| {
        peer.welcome();
        peer.request(Kind::Fetch);
        peer.expect_end();
    });
    let timeout = Duration::from_millis(150);
    let remote = remote_for(&liar.address, Some(timeout));
    let start = Instant::now();
    let error = fetch(&remote, &[Run::new(1, 1)]).expect_err("answered");
    assert!(matches!(error, RemoteError::TimedOut { .. }), "{error:?}");
    assert!(start.elapsed() >= timeout && start.elapsed() < timeout * 8, "{:?}", start.elapsed());
    liar.finish();
}

#[test]
fn a_server_that_answers_a_byte_at_a_time_is_given_up_at_the_timeout() {
    let liar = one(|peer| {
        peer.welcome();
        let (header, _) = peer.request(Kind::Fetch);
        for byte in pages_answer(&header, [1]) {
            // The pace of the lie, not a wait for anything.
            std::thread::sleep(Duration::from_millis(10));
            if !peer.send(&[byte]) {
                return;
            }
        }
    });
    let timeout = Duration::from_millis(150);
    let remote = remote_for(&liar.address, Some(timeout));
    let start = Instant::now();
    let error = fetch(&remote, &[Run::new(1, 1)]).expect_err("answered");
    assert!(matches!(error, RemoteError::TimedOut { .. }), "{error:?}");
    assert!(start.elapsed() < timeout * 8, "{:?}", start.elapsed());
    liar.finish();
}

#[test]
fn a_server_that_does_not_read_is_given_up_at_the_timeout() {
    let (done, wait) = std::sync::mpsc::channel::<()>();
    let liar = one(move |peer| {
        peer.welcome();
        let _ = wait.recv_timeout(Duration::from_secs(20));
    });
    let timeout = Duration::from_millis(150);
    let remote = remote_for(&liar.address, Some(timeout));
    let mut stream = remote.begin_commit(REGION).expect("begin");
    let (builder, data) = stage_of(0..256);
    let error = (0..64).find_map(|_| stream.stage(&builder, &data).err()).expect("64 MiB fit in its buffers");
    assert!(matches!(error, RemoteError::TimedOut { .. }), "{error:?}");
    let failure = stream.finish(empty_commit()).expect_err("committed");
    assert_eq!(failure.applied, Applied::No);
    done.send(()).expect("send");
    liar.finish();
}

// Servers that die and come back.

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

// Fetches of many pages.

#[test]
fn a_large_fetch_keeps_four_frames_in_flight_and_hands_the_pages_on_in_order() {
    let liar = one(|peer| {
        peer.welcome();
        let mut ahead: Vec<(Header, Vec<u8>)> = (0..4).map(|_| peer.request(Kind::Fetch)).collect();
        while !ahead.is_empty() {
            let (header, body) = ahead.remove(0);
            peer.answer_fetch(&header, &body);
            if header.request.0 + 4 <= 8 {
                ahead.push(peer.request(Kind::Fetch));
            }
        }
        peer.expect_end();
    });
    let remote = remote(&liar);
    let runs = [Run::new(3, 1000), Run::new(0, 1), Run::new(5000, 1000)];
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
            assert_eq!(asked, [Run::new(256, 44)]);
            peer.answer_fetch(&header, &body);
        }),
    ]);
    let remote = remote(&liar);
    let runs = [Run::new(0, 300)];
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
        leases.push(remote.begin_commit(REGION).expect("begin"));
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

// Requests that must not simply be sent again.

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

// Commits.

fn stage_of(pages: impl Iterator<Item = u64>) -> (PageBodyBuilder, Vec<u8>) {
    let mut builder = PageBodyBuilder::default();
    let mut data = Vec::new();
    for page in pages {
        match content(page) {
            Some(bytes) => {
                builder.push(page, RunKind::Data);
                data.extend_from_slice(&bytes);
            }
            None => builder.push(page, RunKind::Zero),
        }
    }
    (builder, data)
}

fn expect_stage(peer: &mut Peer, pages: impl IntoIterator<Item = u64>) -> CommitId {
    let (header, body) = peer.request(Kind::Stage);
    assert_eq!(header.region, REGION);
    let body = PageBody::parse(&body).expect("a stage that decodes");
    let mut staged = Vec::new();
    for (page, data) in body.pages() {
        assert_eq!(data.copied(), content(page), "page {page}");
        staged.push(page);
    }
    assert_eq!(staged, pages.into_iter().collect::<Vec<_>>());
    body.commit
}

fn commit_pages(remote: &Remote) -> Result<Committed, super::CommitFailure> {
    remote.commit(REGION, &mut |sink| {
        for pages in [1..3, 3..9] {
            let (builder, data) = stage_of(pages);
            sink.stage(&builder, &data)?;
        }
        Ok(empty_commit())
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
        assert_eq!(commit_pages(&remote), Ok(committed(epoch)));
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
    let mut stream = remote.begin_commit(REGION).expect("begin");
    let (builder, data) = stage_of(1..3);
    stream.stage(&builder, &data).expect("the first stage");
    // The peer has hung up now or will in a moment; what is sent to it is lost sooner or later.
    liar.finish();
    let (builder, data) = stage_of(0..256);
    let error =
        (0..64).find_map(|_| stream.stage(&builder, &data).err()).expect("64 MiB were taken by nobody");
    assert!(matches!(error, RemoteError::Lost { answered: Applied::No, .. }), "{error:?}");
    assert_eq!(stream.finish(empty_commit()).expect_err("committed").applied, Applied::No);
}

#[test]
fn an_abandoned_commit_takes_its_connection_with_it() {
    let liar = one(|peer| {
        peer.welcome();
        expect_stage(peer, 1..3);
        peer.expect_end();
    });
    let remote = remote(&liar);
    let outcome = remote.commit(REGION, &mut |sink| {
        let (builder, data) = stage_of(1..3);
        sink.stage(&builder, &data)?;
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
    let mut stream = remote.begin_commit(REGION).expect("begin");
    let (builder, data) = stage_of(1..9);
    stream.stage(&builder, &data).expect("stage");
    assert_eq!(stream.finish(empty_commit()), Ok(committed(4)));
    liar.finish();
}

// Fork.

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
            let (header, _) = peer.request(Kind::Ping);
            peer.answer(&header, &());
        }),
    ]);
    let remote = remote(&liar);
    assert_eq!(remote.ping(), Ok(()));
    remote.forget_connections(ClientId([9; 16]));
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
    let stream = remote.begin_commit(REGION).expect("begin");
    remote.forget_connections(ClientId([9; 16]));
    drop(stream);
    liar.finish();
}
