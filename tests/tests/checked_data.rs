//! Bits that change between two memories are errors, and are mended where they can be: never data.
//!
//! Owns: which bit changes when. Called by: `cargo test`. Must not: change more than one at a time.

use netmem_tests::cli::{exported, import, netmem};
use netmem_tests::{Agent, Engine, Host, Proxy, Run, Server, on_each_rung};

on_each_rung! {
    pages_that_change_on_their_way_here_are_asked_for_again
    pages_that_change_on_their_way_to_the_server_are_sent_again
    packed_pages_that_change_on_their_way_are_asked_for_and_sent_again
}

const PAGES: usize = 32;
const BYTES: usize = PAGES * 4096;

/// Bytes that say where they are.
fn content() -> Vec<u8> {
    (0..BYTES).map(|at| b'a' + (at / 4096 % 26) as u8).collect()
}

fn pages_that_change_on_their_way_here_are_asked_for_again(engine: Engine) {
    let (server, host) = (Server::start(), Host::new(engine));
    import(&server, "a", &content());
    let proxy = Proxy::to(server.address());
    let mut agent = Agent::start(&host, proxy.url());
    let fd = agent.ok("open /netmem/a rw");
    agent.ok(&format!("map {fd} 0 {BYTES} shared w"));
    proxy.flip_a_bit(false);
    for page in 0..PAGES {
        let letter = char::from(b'a' + (page % 26) as u8);
        assert_eq!(agent.ok(&format!("same 0 {} 4096 {letter}", page * 4096)), "yes", "page {page}");
    }
    assert!(!proxy.is_to_flip(), "a bit was changed");
    assert!(agent.stderr().contains("changed on its way"), "{}", agent.stderr());
    assert_eq!(agent.end("exit 0").code(), Some(0));
    assert_eq!(exported(&server, "a"), content());
}

fn pages_that_change_on_their_way_to_the_server_are_sent_again(engine: Engine) {
    for durable in [false, true] {
        let server = if durable { Server::durable(&[]) } else { Server::start() };
        let host = Host::new(engine);
        let proxy = Proxy::to(server.address());
        let mut agent = Agent::start(&host, proxy.url());
        let fd = agent.ok("open /netmem/a rwc");
        agent.ok(&format!("truncate {fd} {BYTES}"));
        agent.ok(&format!("map {fd} 0 {BYTES} shared w"));
        for page in 0..PAGES {
            agent.ok(&format!("fill 0 {} 4096 {}", page * 4096, char::from(b'a' + (page % 26) as u8)));
        }
        proxy.flip_a_bit(true);
        agent.ok(&format!("sync 0 0 {BYTES} s"));
        assert!(!proxy.is_to_flip(), "a bit was changed");
        assert!(agent.stderr().contains("changed on its way"), "{}", agent.stderr());
        assert_eq!(exported(&server, "a"), content());
        assert_eq!(netmem(&server, &["scrub"]).output().code(), 0);
        assert_eq!(agent.end("exit 0").code(), Some(0));
    }
}

/// Of words that compress to half: what is packed is still longer than a page.
fn words() -> Vec<u8> {
    let mut state = 88_172_645_463_325_252_u64;
    let words = (0..BYTES / 8).map(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state & 0xff_ffff
    });
    words.flat_map(u64::to_le_bytes).collect()
}

fn packed_pages_that_change_on_their_way_are_asked_for_and_sent_again(engine: Engine) {
    let (server, host) = (Server::start(), Host::new(engine));
    import(&server, "a", &words());
    let proxy = Proxy::to(server.address());
    let said = host.files().join("said");
    let copy = |from: &str, to: &str, towards_server: bool| {
        proxy.flip_a_bit(towards_server);
        let run = Run::on(&host, proxy.url(), "cp").args([from, to]).env("NETMEM_COMPRESS", "on");
        let output = run.env("NETMEM_STATS", &said).output();
        assert_eq!(output.code(), 0, "{output}");
        assert!(!proxy.is_to_flip(), "a bit was changed");
        assert!(output.stderr.contains("changed on"), "{output}");
        let told = std::fs::read_to_string(&said).expect("NETMEM_STATS");
        assert!(!told.contains("pages_packed 0\n"), "{told}");
    };
    let local = host.files().join("local").display().to_string();
    copy("/netmem/a", &local, false);
    assert!(std::fs::read(&local).expect("a copy") == words());
    copy(&local, "/netmem/b", true);
    assert!(exported(&server, "b") == words());
}
