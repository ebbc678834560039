//! A server that is not there, is another one, or is none: soon, EIO, and a line that names the address.
//!
//! Owns: listeners that follow a script. Called by: `cargo test`. Must not: wait for a time-out that a test did not set.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use netmem_protocol::hello::HELLO_BYTES;
use netmem_protocol::{FRAME_BODY_MAX, HelloStatus, ServerHello, StoreId, VERSION_MAX};
use netmem_tests::cli::import;
use netmem_tests::engine::best;
use netmem_tests::{Agent, Host, Run, Server};

/// Longer than a refusal may take, much shorter than the time-out of 30 s.
const SOON: Duration = Duration::from_secs(5);

/// A listener that does `act` with each connection; its URL.
fn listener(act: impl Fn(TcpStream) + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("tcp://{}", listener.local_addr().expect("its address"));
    thread::spawn(move || listener.incoming().flatten().for_each(act));
    url
}

fn hello(status: HelloStatus, version: u16) -> [u8; HELLO_BYTES] {
    let hello = ServerHello {
        status,
        version_min: version,
        version_max: version,
        capabilities: 0,
        store: StoreId([7; 16]),
        frame_body_max: FRAME_BODY_MAX,
        region_bytes_max: 1 << 30,
        instance: 0,
    };
    hello.encode()
}

fn after_the_hello(mut stream: TcpStream, bytes: &[u8]) {
    let mut theirs = [0; HELLO_BYTES];
    let _ = stream.read_exact(&mut theirs);
    let _ = stream.write_all(bytes);
    let _ = stream.read_to_end(&mut Vec::new());
}

/// The first use of this server is EIO, soon, with one line that has the address and `word` in it; so is the second.
fn refused(url: &str, variables: &[(&str, &str)], word: &str) {
    let host = Host::new(best());
    let mut agent = Agent::with(&host, url, variables);
    let local = host.files().join("local").display().to_string();
    agent.ok(&format!("open {local} rwc"));
    assert_eq!(agent.stderr(), "", "nothing is said before something is ours");
    let start = Instant::now();
    assert_eq!(agent.ask("open /netmem/f rwc"), Err("EIO".to_owned()), "{}", agent.stderr());
    assert!(start.elapsed() < SOON, "{url}: {:?}", start.elapsed());
    let said = agent.stderr();
    assert_eq!(said.lines().count(), 1, "one line: {said}");
    assert!(said.starts_with("netmem: ") && said.contains(url) && said.contains(word), "{word}: {said}");
    assert_eq!(agent.ask("open /netmem/f rwc"), Err("EIO".to_owned()));
    assert_eq!(agent.ask(&format!("size {local}")), Ok("0".to_owned()));
}

#[test]
fn nobody_listens() {
    let port = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("its address");
    refused(&format!("tcp://{port}"), &[], "refused");
}

#[test]
fn nobody_listens_on_the_socket() {
    refused("unix:/no/such/socket", &[], "no such socket");
}

#[test]
fn the_host_has_no_address() {
    refused("tcp://no-such-host.invalid:7117", &[], "no-such-host");
}

#[test]
fn a_server_of_another_version() {
    let url = listener(|stream| after_the_hello(stream, &hello(HelloStatus::Version, 99)));
    refused(&url, &[], "version");
}

#[test]
fn something_else_listens() {
    let url = listener(|mut stream| {
        let _ = stream.write_all(
            b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\nServer: none\r\n\r\n",
        );
    });
    refused(&url, &[], "netmem-server");
}

#[test]
fn something_that_hangs_up_listens() {
    refused(&listener(drop), &[("NETMEM_TIMEOUT_MS", "500")], "");
}

#[test]
fn something_that_says_nothing_listens() {
    let url = listener(|stream| after_the_hello(stream, b""));
    refused(&url, &[("NETMEM_TIMEOUT_MS", "500")], "");
}

#[test]
fn a_server_that_is_closing() {
    let url = listener(|stream| after_the_hello(stream, &hello(HelloStatus::Closing, VERSION_MAX)));
    refused(&url, &[("NETMEM_TIMEOUT_MS", "500")], "shutting down");
}

#[test]
fn a_server_that_has_no_room() {
    let server = Server::with(&["--max-connections", "1"]);
    let held = server.client();
    refused(server.url(), &[("NETMEM_TIMEOUT_MS", "500")], "connections");
    drop(held);
}

#[test]
fn a_server_that_welcomes_and_then_talks_nonsense() {
    let url = listener(|mut stream| {
        let mut theirs = [0; HELLO_BYTES];
        let _ = stream.read_exact(&mut theirs);
        let _ = stream.write_all(&hello(HelloStatus::Welcome, VERSION_MAX));
        // A request comes; what goes back has a length of 4 GiB.
        let _ = stream.read(&mut [0; 4096]);
        let _ = stream.write_all(&[0xff; 4096]);
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let host = Host::new(best());
    let mut agent = Agent::with(&host, &url, &[("NETMEM_TIMEOUT_MS", "1000")]);
    let start = Instant::now();
    assert_eq!(agent.ask("open /netmem/f rwc"), Err("EIO".to_owned()));
    assert!(start.elapsed() < SOON);
    assert!(agent.stderr().contains(&url), "{}", agent.stderr());
}

#[test]
fn a_server_that_lost_its_memory_is_not_taken_for_the_old_one() {
    let (mut server, host) = (Server::start(), Host::new(best()));
    let mut agent = Agent::with(&host, server.url(), &[("NETMEM_TIMEOUT_MS", "2000")]);
    let fd = agent.ok("open /netmem/f rwc");
    agent.ok(&format!("truncate {fd} 16384"));
    agent.ok(&format!("map {fd} 0 16384 shared w"));
    agent.ok("fill 0 0 4096 1");
    agent.ok("sync 0 0 16384 s");
    server.restart();
    agent.ok("fill 0 4096 4096 2");
    let synced = agent.ask("sync 0 0 16384 s");
    assert!(matches!(synced.as_ref().map_err(String::as_str), Err("ESTALE" | "EIO")), "{synced:?}");
    assert!(agent.stderr().contains(server.url()), "{}", agent.stderr());
    assert_eq!(agent.ok("same 0 0 4096 1"), "yes", "what is here stays readable");
    agent.end("exit 0");
    // A program that starts now has nothing to do with the old store, on the same host too.
    let mut next = Agent::start(&host, server.url());
    assert_eq!(next.ask("open /netmem/f rw"), Err("ENOENT".to_owned()));
    let fd = next.ok("open /netmem/f rwc");
    assert_eq!(next.ok(&format!("pread {fd} 0 4")), "");
}

#[test]
fn a_server_that_is_stopped_in_between_is_eio_at_the_next_sync() {
    let (mut server, host) = (Server::start(), Host::new(best()));
    let mut agent = Agent::with(&host, server.url(), &[("NETMEM_TIMEOUT_MS", "500")]);
    let fd = agent.ok("open /netmem/f rwc");
    agent.ok(&format!("truncate {fd} 16384"));
    agent.ok(&format!("map {fd} 0 16384 shared w"));
    agent.ok("fill 0 0 4096 1");
    agent.ok("sync 0 0 16384 s");
    assert!(server.stop().success());
    agent.ok("fill 0 0 4096 2");
    assert_eq!(agent.ask("sync 0 0 16384 s"), Err("EIO".to_owned()));
    assert!(agent.stderr().contains(server.url()), "{}", agent.stderr());
    assert_eq!(agent.ok("same 0 0 4096 2"), "yes");
    let start = Instant::now();
    assert_eq!(agent.end("exit 5").code(), Some(5), "and the program can end");
    assert!(start.elapsed() < SOON * 2, "{:?}", start.elapsed());
}

/// A descriptor that a program inherits is as good as one that it opened: where its pages can't be had, reading fails.
#[test]
fn an_inherited_file_whose_server_went_away_is_an_error_and_not_empty() {
    for program in ["cat", "wc -l", "md5sum", "sort", "cp /dev/stdin copy"] {
        let (server, host) = (Server::start(), Host::new(best()));
        import(&server, "f", &[b'x'; 100_000]);
        let pid = server.pid();
        let script = format!(
            "exec 3< /netmem/f; kill -9 {pid}; while grep -q netmem /proc/{pid}/cmdline; do :; done; {program} <&3; echo status $?"
        );
        let run =
            Run::on(&host, server.url(), "/bin/sh").args(["-c", &script]).env("NETMEM_TIMEOUT_MS", "500");
        let output = run.output();
        let last = output.stdout.lines().last().unwrap_or_default();
        assert!(last.starts_with("status ") && last != "status 0", "{program}: {output}");
    }
}
