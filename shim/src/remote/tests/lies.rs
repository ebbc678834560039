//! Answers that are wrong, and answers that do not come.

use std::time::{Duration, Instant};

use netmem_protocol::control::{Changes, ErrorBody};
use netmem_protocol::{
    Epoch, ErrorCode, FRAME_BODY_MAX, Header, HelloStatus, Kind, PAGE_SIZE, ProtocolError, RegionId, Run,
    ServerHello, encode_frame,
};

use super::{EPOCH, REGION, empty_commit, fetch, one, protocol_error, remote, remote_for, script, stage_of};
use crate::remote::lying::{Liar, answer_header, nobody, pages_answer, server_hello};
use crate::remote::{Applied, PageSource, RemoteError, StageSink};

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
    let outcome = remote.fetch(REGION, EPOCH, &[Run::new(1, 4)], &mut |span, _| handed += span.run.count);
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
fn an_answer_about_another_region_is_refused() {
    let error = lie(|header| pages_answer(&Header { region: RegionId(8), ..*header }, [1, 2, 3, 4]));
    assert_eq!(error, ProtocolError::Malformed { what: "answer: its region" });
}

#[test]
fn pages_of_another_epoch_are_refused() {
    let error = lie(|header| pages_answer(&Header { epoch: Epoch(4), ..*header }, [1, 2, 3, 4]));
    assert_eq!(error, ProtocolError::Malformed { what: "answer to a fetch: its epoch" });
}

#[test]
fn a_refusal_is_one_line_whatever_is_in_its_text() {
    let liar = one(|peer| {
        peer.welcome();
        let (header, _) = peer.request(Kind::Lookup);
        let text = format!("a\nnetmem: b\x1b[2J{}", "x".repeat(10_000));
        let mut out = Vec::new();
        let body = ErrorBody { code: ErrorCode::NotFound as u16, text };
        encode_frame(answer_header(&header, Kind::Error as u16), &body, &mut out).expect("encode");
        peer.send(&out);
    });
    let refused = remote(&liar).lookup("a").expect_err("there is none").to_string();
    assert!(refused.starts_with("the server answers: a\u{fffd}netmem: b\u{fffd}[2Jx"), "{refused}");
    assert!(refused.len() < 5_000, "{} bytes", refused.len());
    liar.finish();
}

#[test]
fn a_hello_with_limits_that_cannot_be_is_refused() {
    let lies: [fn(&mut ServerHello); 3] = [
        |hello| hello.frame_body_max = 0,
        |hello| hello.frame_body_max = 4096,
        |hello| hello.region_bytes_max = u64::MAX,
    ];
    for lie in lies {
        let liar = one(move |peer| {
            peer.hello();
            let mut hello = server_hello(HelloStatus::Welcome, 1);
            lie(&mut hello);
            peer.send(&hello.encode());
            peer.expect_end();
        });
        let error = protocol_error(remote(&liar).ping());
        assert_eq!(error, ProtocolError::Malformed { what: "hello: its limits" });
        liar.finish();
    }
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
    let mut stream = remote.begin_commit().expect("begin");
    let (builder, data) = stage_of(0..256);
    let error =
        (0..64).find_map(|_| stream.stage(REGION, &builder, &data).err()).expect("64 MiB fit in its buffers");
    assert!(matches!(error, RemoteError::TimedOut { .. }), "{error:?}");
    let failure = stream.finish(vec![(REGION, empty_commit())]).expect_err("committed");
    assert_eq!(failure.applied, Applied::No);
    done.send(()).expect("send");
    liar.finish();
}

#[test]
fn changes_that_no_region_can_have_are_refused() {
    let honest = || Changes {
        epoch: Epoch(9),
        size: 4096,
        runs: vec![Run::new(1, 2), Run::new(7, 1)],
        base_kept: true,
    };
    let lies: [fn(&mut Changes); 6] = [
        |changes| changes.epoch = Epoch(EPOCH.0 - 1),
        |changes| changes.size = u64::MAX,
        |changes| changes.runs.swap(0, 1),
        |changes| changes.runs[0].count = 0,
        |changes| changes.runs[1].first.0 = u64::MAX,
        |changes| changes.runs = vec![Run::new(0, u32::MAX); 9],
    ];
    let ask = |answer: Changes, until: u64| {
        let liar = one(move |peer| {
            peer.welcome();
            let (header, _) = peer.request(Kind::Changes);
            peer.answer(&header, &answer);
        });
        let outcome = PageSource::changes(&remote(&liar), REGION, EPOCH, Epoch(until));
        liar.finish();
        outcome
    };
    assert_eq!(ask(honest(), 0), Ok(honest()));
    assert_eq!(ask(honest(), 9), Ok(honest()));
    protocol_error(ask(honest(), 8));
    for lie in lies {
        let mut changes = honest();
        lie(&mut changes);
        protocol_error(ask(changes, 0));
    }
}
