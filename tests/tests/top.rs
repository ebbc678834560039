//! `netmem top`: its numbers against what a program is known to have done, and its screen on a terminal.
//!
//! Owns: nothing. Called by: `cargo test`. Must not: expect a rate, which is the machine's; counts are exact.

use netmem_tests::built::built;
use netmem_tests::cli::{import, netmem};
use netmem_tests::engine::best;
use netmem_tests::{Agent, Engine, Host, Server, Terminal, on_each_rung};
use nix::sys::signal::Signal;
use serde_json::Value;

const PAGE: usize = 4096;

on_each_rung! {
    what_a_program_fetched_and_committed_is_what_top_tells
}

/// What `top --json` said next.
fn next(top: &mut Agent) -> Value {
    let line = top.line().expect("an interval");
    serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
}

fn number(value: &Value, path: &str) -> f64 {
    value.pointer(path).and_then(Value::as_f64).unwrap_or_else(|| panic!("no {path} in {value}"))
}

/// What a rate that was told in these intervals adds up to.
fn sum(intervals: &[Value], path: &str) -> f64 {
    intervals.iter().map(|one| number(one, path) * number(one, "/interval_s")).sum::<f64>().round()
}

fn what_a_program_fetched_and_committed_is_what_top_tells(engine: Engine) {
    let (server, host) = (Server::start(), Host::new(engine));
    import(&server, "data", &vec![7; 64 * PAGE]);
    let settings = [("NETMEM_PREFETCH", "off"), ("NETMEM_COMPRESS", "off")];
    let mut agent = Agent::with(&host, server.url(), &settings);
    let mut top = Agent::of(netmem(&server, &["top", "--json", "--interval", "0.1"]));
    let before = next(&mut top);
    assert_eq!(before["server"], server.url());
    assert_eq!((number(&before, "/total/fetches"), number(&before, "/total/commits")), (0.0, 1.0));

    let fd = agent.ok(&format!("open {} rw", host.path("data")));
    agent.ok(&format!("map {fd} 0 {} shared w", 64 * PAGE));
    agent.ok(&format!("sum 0 0 {}", 64 * PAGE));
    for page in [3, 9, 12, 40, 63] {
        agent.ok(&format!("store 0 {} x", page * PAGE));
    }
    agent.ok(&format!("sync 0 0 {} s", 64 * PAGE));
    let mut intervals = vec![next(&mut top)];
    while number(intervals.last().expect("one"), "/total/commits") < 2.0 {
        intervals.push(next(&mut top));
    }
    // One more: the commit's answer may have been on its way when the server was looked at.
    intervals.push(next(&mut top));
    let last = intervals.last().expect("one").clone();

    assert_eq!(
        (number(&last, "/total/pages_sent"), number(&last, "/total/pages_committed")),
        (64.0, 64.0 + 5.0)
    );
    assert_eq!(
        (sum(&intervals, "/per_second/pages_out"), sum(&intervals, "/per_second/pages_in")),
        (64.0, 5.0)
    );
    assert_eq!(sum(&intervals, "/per_second/commits"), 1.0);
    let region = &last["region_list"][0];
    assert_eq!((&region["name"], number(region, "/size_bytes")), (&Value::from("data"), (64 * PAGE) as f64));
    assert_eq!((number(region, "/total/pages_sent"), number(region, "/total/commits")), (64.0, 2.0));
    assert_eq!(number(region, "/stored_bytes"), (64 * PAGE) as f64);
    let of_agent = |one: &&Value| number(one, "/total/pages_sent") > 0.0;
    let client =
        last["client_list"].as_array().and_then(|rows| rows.iter().find(of_agent)).expect("its client");
    assert_eq!((number(client, "/total/commits"), number(client, "/total/pages_committed")), (1.0, 5.0));
    assert!(number(client, "/connections") >= 1.0 && number(client, "/bytes_out") > (64 * PAGE) as f64);
    let measured = |of: &str| -> f64 {
        intervals
            .iter()
            .filter(|one| !one[of].is_null())
            .map(|one| number(one, &format!("/{of}/count")))
            .sum()
    };
    assert_eq!(measured("fetch"), number(&last, "/total/fetches"));
    assert_eq!(measured("commit"), 1.0);
    assert_eq!(agent.end("exit 0").code(), Some(0));
}

#[test]
fn a_batch_is_plain_text_and_ends_after_its_count() {
    let server = Server::start();
    import(&server, "something", &vec![1; 3 * PAGE]);
    // No --batch: its output is no terminal.
    let output = netmem(&server, &["top", "--count", "2", "--interval", "0.1"]).ok();
    let lines: Vec<&str> = output.stdout.lines().collect();
    assert_eq!(lines.iter().filter(|line| line.starts_with(server.url())).count(), 2, "{output}");
    assert!(lines[0].contains("memory 12.0K of ") && lines[0].contains("regions 1"), "{output}");
    assert!(lines[2].starts_with("REGION") && lines[3].starts_with("something"), "{output}");
    assert!(!output.stdout.contains('\x1b'), "{output}");
    let url = server.url().to_owned();
    let json =
        netmem_tests::Run::plain(&built().command).args(["top", "--json", "-n", "1", "-i", "0.1", &url]).ok();
    assert_eq!(json.stdout.lines().count(), 1, "{json}");
    let nobody =
        netmem_tests::Run::plain(&built().command).args(["top", "-n", "1", "tcp://127.0.0.1:1"]).output();
    assert_eq!((nobody.code(), nobody.stderr.lines().count()), (1, 1), "{nobody}");
}

#[test]
fn stat_tells_how_long_the_server_took() {
    let server = Server::start();
    let before = netmem(&server, &["stat"]).ok().stdout;
    assert!(!before.contains("p99"), "nothing was asked for yet: {before}");
    import(&server, "data", &vec![1; 3 * PAGE]);
    let after = netmem(&server, &["stat"]).ok().stdout;
    let line =
        after.lines().find(|line| line.starts_with("commit took")).unwrap_or_else(|| panic!("{after}"));
    assert!(line.contains("p50 ") && line.contains("p99 "), "{line}");
    assert!(!after.contains("fetch took"), "{after}");
}

fn live(url: &str) -> Terminal {
    let command = built().command.display().to_string();
    Terminal::start(&command, &["top", "--interval", "0.1", url], &[])
}

#[test]
fn the_live_view_shows_a_program_and_obeys_keys() {
    let (server, host) = (Server::start(), Host::new(best()));
    import(&server, "data", &vec![7; 64 * PAGE]);
    let mut top = live(server.url());
    top.shows("REGION");
    let mut agent = Agent::start(&host, server.url());
    let fd = agent.ok(&format!("open {} rw", host.path("data")));
    agent.ok(&format!("map {fd} 0 {} shared w", 64 * PAGE));
    agent.ok(&format!("sum 0 0 {}", 64 * PAGE));
    // Its hold stays; the interval in which it fetched passes.
    let held = |screen: &str| screen.lines().any(|line| line.starts_with("data") && line.ends_with(" 1"));
    let screen = top.until("the hold on the region", held);
    assert!(screen.contains("256.0K"), "{screen}");
    assert!(!top.is_cooked());
    top.press("\t");
    let screen =
        top.until("the clients", |screen| screen.contains("CLIENT") && screen.contains("127.0.0.1:"));
    assert!(!screen.contains("REGION"), "{screen}");
    top.press("h");
    top.shows("sort by another column");
    top.press("?");
    top.until("the clients again", |screen| screen.contains("CLIENT"));
    top.press("p");
    top.shows(" paused ");
    top.press("p");
    top.until("no pause", |screen| !screen.contains(" paused "));
    top.press("q");
    assert_eq!(top.code(), 0);
    assert_eq!(agent.end("exit 0").code(), Some(0));
}

#[test]
fn every_end_gives_the_terminal_back() {
    let server = Server::start();
    for (keys, code) in [("q", 0), ("\x1b", 0), ("\x03", 0)] {
        let mut top = live(server.url());
        top.shows("netmem top");
        top.press(keys);
        assert_eq!(top.code(), code, "{keys:?}");
    }
    for signal in [Signal::SIGTERM, Signal::SIGHUP, Signal::SIGINT] {
        let mut top = live(server.url());
        top.shows("netmem top");
        top.signal(signal);
        assert_eq!(top.code(), 128 + signal as i32, "{signal}");
    }
}

/// A test in two roles: without the variable it runs itself with it, on a terminal.
#[test]
fn a_panic_gives_the_terminal_back() {
    const ROLE: &str = "TOP_TEST_PANICS";
    if std::env::var_os(ROLE).is_some() {
        let mut screen = netmem_cli::top::Screen::take().expect("a terminal");
        screen.draw(|frame| frame.render_widget("drawn", frame.area())).expect("it is drawn");
        // The command is built to abort: nothing is dropped on the way.
        std::mem::forget(screen);
        let mut line = String::new();
        std::io::stdin().read_line(&mut line).expect("a key");
        panic!("with {line:?}");
    }
    let own = std::env::current_exe().expect("its path").display().to_string();
    let arguments = ["--exact", "--nocapture", "a_panic_gives_the_terminal_back"];
    let mut child = Terminal::start(&own, &arguments, &[(ROLE, "1"), ("RUST_BACKTRACE", "0")]);
    child.shows("drawn");
    assert!(!child.is_cooked());
    child.press("x\n");
    assert_ne!(child.code(), 0);
    let screen = child.screen();
    assert!(screen.contains("panicked") && screen.contains("with \"x"), "the message is readable\n{screen}");
}

#[test]
fn a_server_that_goes_and_comes_back_is_shown_as_that() {
    let mut server = Server::start();
    import(&server, "before", &vec![1; PAGE]);
    let mut top = live(server.url());
    top.shows("before");
    server.kill();
    top.shows(" away for ");
    server.restart();
    import(&server, "after", &vec![1; PAGE]);
    let screen =
        top.until("the new server", |screen| screen.contains("after") && !screen.contains("away for"));
    assert!(!screen.contains("before"), "{screen}");
    top.press("q");
    assert_eq!(top.code(), 0);
}
