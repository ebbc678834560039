//! Hosts that are really apart: two users of a machine, and two network namespaces with a wire to the server that can be pulled.
//!
//! Owns: the namespaces. Called by: `cargo test`. Must not: leave one behind.

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use netmem_tests::built::compile;
use netmem_tests::cli::{bytes_at, exported};
use netmem_tests::skip::skip;
use netmem_tests::{Agent, Engine, Host, Run, Server};
use nix::unistd::geteuid;

const PAGE: usize = 4096;
/// The server's promise: 30 s of silence, and three probes 10 s apart.
const FOUND_BY_SERVER: Duration = Duration::from_secs(60);
/// For a machine that has other things to do.
const SLACK: Duration = Duration::from_secs(15);

/// Two programs with four pages of one region, of hosts of their own, do to it what hosts do.
fn two_hosts_merge(server: &Server, one: &mut Agent, other: &mut Agent) {
    let one_fd = one.ok("open /netmem/r rwc");
    one.ok(&format!("truncate {one_fd} {}", 4 * PAGE));
    one.ok(&format!("map {one_fd} 0 {} shared w", 4 * PAGE));
    one.ok(&format!("commit {one_fd}"));
    let other_fd = other.ok("open /netmem/r rw");
    other.ok(&format!("map {other_fd} 0 {} shared w", 4 * PAGE));
    // Different bytes of a page.
    one.ok("store 0 0 mine");
    other.ok("store 0 2000 theirs");
    one.ok(&format!("commit {one_fd}"));
    assert_eq!(other.ok("load 0 0 4"), "....", "not before its view moves");
    other.ok(&format!("commit {other_fd}"));
    let page = bytes_at(server, "r", 0, PAGE);
    assert_eq!((&page[..4], &page[2000..2006]), (&b"mine"[..], &b"theirs"[..]));
    assert_eq!(other.ok("load 0 0 4"), "mine");
    // Strict: refused, and nothing lost.
    other.ok("fill 0 4096 4096 o");
    other.ok(&format!("commit {other_fd}"));
    one.ok("store 0 5000 kept");
    assert_eq!(one.ask(&format!("commit {one_fd} strict")), Err("ESTALE".to_owned()));
    assert_eq!(one.ok("load 0 4999 6"), "okepto");
    one.ok(&format!("commit {one_fd} strict"));
    // Longer and shorter.
    other.ok(&format!("truncate {other_fd} {}", 2 * PAGE));
    other.ok(&format!("commit {other_fd}"));
    assert_eq!(&exported(server, "r")[4999..], [b"okept".to_vec(), vec![b'o'; 2 * PAGE - 5004]].concat());
}

#[test]
fn two_users_of_a_machine_are_two_hosts() {
    if !geteuid().is_root() {
        return skip("root", "only root can run programs of two users");
    }
    let server = Server::start();
    // The second runs as nobody, in a directory of its own.
    let (root, nobody) = (Host::new(Engine::Uffd), Host::new(Engine::UffdUser));
    let (mut one, mut other) = (Agent::start(&root, server.url()), Agent::start(&nobody, server.url()));
    two_hosts_merge(&server, &mut one, &mut other);
    assert_eq!((one.end("exit 0").code(), other.end("exit 0").code()), (Some(0), Some(0)));
}

/// A network namespace with a wire to this one.
struct Namespace {
    name: String,
    net: u32,
    /// This end of the wire.
    wire: String,
}

/// Runs a command; what it said if it failed.
fn ip(arguments: &str) -> Result<(), String> {
    let output = Command::new("ip").args(arguments.split(' ')).output().map_err(|error| error.to_string())?;
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

impl Namespace {
    /// With addresses 10.77.NET.1 on this side and 10.77.NET.2 on that.
    fn new(net: u32) -> Result<Namespace, String> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let unique = format!("{}x{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let namespace = Namespace { name: format!("netmem-{unique}"), net, wire: format!("n{unique}") };
        let (name, wire) = (&namespace.name, &namespace.wire);
        for command in [
            format!("netns add {name}"),
            format!("link add {wire} type veth peer name far netns {name}"),
            format!("addr add 10.77.{net}.1/24 dev {wire}"),
            format!("link set {wire} up"),
            format!("-n {name} addr add 10.77.{net}.2/24 dev far"),
            format!("-n {name} link set far up"),
            format!("-n {name} link set lo up"),
            format!("-n {name} route add default via 10.77.{net}.1"),
        ] {
            ip(&command).map_err(|error| format!("ip {command}: {error}"))?;
        }
        Ok(namespace)
    }

    /// Pulls the plug, or puts it back.
    fn plug(&self, plugged: bool) {
        let (wire, how) = (&self.wire, if plugged { "up" } else { "down" });
        ip(&format!("link set {wire} {how}")).expect("a wire");
    }

    /// From now on nothing that it says arrives anywhere, as of a machine without power; or it does again. (This end's wire is no such thing:
    /// where nothing can be sent, nobody's silence is counted.)
    fn mute(&self, mute: bool) {
        let (name, net, how) = (&self.name, self.net, if mute { "add" } else { "del" });
        ip(&format!("-n {name} route {how} blackhole 10.77.{net}.1/32")).expect("a route");
    }

    fn agent(&self, host: &Host, url: &str) -> Agent {
        let agent = compile("tests/agent/agent.c", &[]);
        Agent::of(Run::on(host, url, "ip").args(["netns", "exec", &self.name]).arg(agent))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = ip(&format!("link del {}", self.wire));
        let _ = ip(&format!("netns del {}", self.name));
    }
}

/// Two namespaces, and a server that both reach. `None`: there are none here, which is said.
fn two_namespaces() -> Option<(Namespace, Namespace, Server)> {
    if !geteuid().is_root() {
        skip("root", "only root can make network namespaces");
        return None;
    }
    // Nets that nobody else of this machine's tests has just now.
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    let net = 2 + (std::process::id() + 37 * TAKEN.fetch_add(1, Ordering::Relaxed)) % 120 * 2;
    match (Namespace::new(net), Namespace::new(net + 1)) {
        (Ok(one), Ok(other)) => {
            Some((one, other, Server::with(&["--bind", &format!("10.77.{net}.1"), "--insecure"])))
        }
        (Err(error), _) | (_, Err(error)) => {
            skip("netns", &format!("network namespaces can't be made here: {error}"));
            None
        }
    }
}

#[test]
fn two_network_namespaces_are_two_hosts_whose_wires_can_be_pulled() {
    let Some((one_net, other_net, server)) = two_namespaces() else { return };
    let url = server.url().to_owned();
    let (here, there) = (Host::new(Engine::Uffd), Host::new(Engine::Uffd));
    let (mut one, mut other) = (one_net.agent(&here, &url), other_net.agent(&there, &url));
    two_hosts_merge(&server, &mut one, &mut other);

    // A sync and a load that are under way when the plug is pulled go on when it is back.
    one.ok("fill 0 0 8192 p");
    one_net.plug(false);
    one.tell("sync 0 0 8192 s");
    other.ok("store 0 0 q");
    other.ok("sync 0 0 8192 s");
    one_net.plug(true);
    assert_eq!(one.answer("sync 0 0 8192 s"), Ok(String::new()));
    assert_eq!(other.ask("sync 0 0 8192 i"), Ok(String::new()));
    assert_eq!(other.ok("load 0 0 3"), "ppp");
    assert_eq!((one.end("exit 0").code(), other.end("exit 0").code()), (Some(0), Some(0)));
}

#[test]
#[ignore = "a minute: what is found by silence takes as long"]
fn connections_whose_other_end_is_gone_without_a_word_are_found_in_the_time_that_is_promised() {
    let Some((one_net, other_net, server)) = two_namespaces() else { return };
    let (here, there) = (Host::new(Engine::Uffd), Host::new(Engine::Uffd));
    let mut one = one_net.agent(&here, server.url());
    let mut other = other_net.agent(&there, server.url());
    let fd = one.ok("open /netmem/r rwc");
    one.ok(&format!("truncate {fd} 8192"));
    one.ok(&format!("fsync {fd}"));
    let fd = other.ok("open /netmem/r r");
    other.ok(&format!("map {fd} 0 8192 shared r"));
    let mut client = server.client();
    let mut connections = || client.server_stat().expect("a server").connections;
    let both = connections();
    // Nobody hears that it dies. The other waits for a page, longer than its dead connection is believed in.
    one_net.mute(true);
    other_net.mute(true);
    one.kill();
    other.tell("load 0 0 2");
    let began = Instant::now();
    while connections() >= both {
        assert!(began.elapsed() < FOUND_BY_SERVER + SLACK, "{} connections still", connections());
        std::thread::yield_now();
    }
    println!("the server has given a connection up after {:?}", began.elapsed());
    other_net.mute(false);
    let answer = other.answer("load 0 0 2");
    // Within its time limit of 30 s it waits for the wire; behind it, it is told, and tries again.
    assert!(answer == Ok("..".to_owned()) || answer == Err("SIGBUS".to_owned()), "{answer:?}");
    assert_eq!(other.ok("load 0 0 2"), "..");
}
