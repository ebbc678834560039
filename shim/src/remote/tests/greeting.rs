//! The first exchange, with those who do not want it.

use std::time::{Duration, Instant};

use netmem_protocol::{FRAME_BODY_MAX, Header, HelloStatus, Kind, ProtocolError};

use super::{one, protocol_error, remote, remote_for, script};
use crate::config::ServerAddress;
use crate::remote::lying::{Liar, Peer, answer_header, server_hello};
use crate::remote::{FIRST_CONTACT, RemoteError, Why};

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
fn a_server_that_is_there_and_busy_is_waited_for() {
    let liar = one(|peer| {
        peer.hello();
        std::thread::sleep(FIRST_CONTACT + Duration::from_millis(300));
        peer.send_hello(HelloStatus::Welcome, 1);
        let (header, _) = peer.request(Kind::Ping);
        peer.answer(&header, &());
    });
    assert_eq!(remote(&liar).ping(), Ok(()));
    liar.finish();
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
