//! A server with a store on a disk that is killed and started again: what was synced is there, whole, and the programs go on.
//!
//! Owns: when it is killed. Called by: `cargo test`. Must not: wait for a time: a server is killed after so many syncs.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use netmem_tests::built::compile;
use netmem_tests::cli::{bytes_at, exported, import, netmem};
use netmem_tests::dice::seeded;
use netmem_tests::engine::best;
use netmem_tests::hang::{kill_group, patient};
use netmem_tests::real::{have, run_script_on};
use netmem_tests::{Agent, Engine, Host, Run, Server, on_each_rung};

const PAGE: usize = 4096;
/// How long a sync may take, a restart of the server in the middle of it.
const LIMIT: Duration = Duration::from_secs(60);

on_each_rung! {
    a_program_goes_on_over_a_restart_and_what_it_synced_is_there
    a_region_without_a_name_outlives_a_restart_with_its_program
    what_is_pending_outlives_a_restart_with_its_program
    a_page_cache_stays_warm_over_a_restart
    writers_lose_no_sync_to_servers_that_are_killed
    a_region_is_whole_whenever_its_program_is_killed
}

fn is_long() -> bool {
    std::env::var_os("NETMEM_TEST_LONG").is_some()
}

fn a_program_goes_on_over_a_restart_and_what_it_synced_is_there(engine: Engine) {
    let (mut server, host) = (Server::durable(&[]), Host::new(engine));
    let mut agent = Agent::start(&host, server.url());
    let fd = agent.ok("open /netmem/a rwc").clone();
    agent.ok(&format!("truncate {fd} 65536"));
    agent.ok(&format!("map {fd} 0 65536 shared w"));
    agent.ok("fill 0 0 32768 a");
    agent.ok("sync 0 0 65536 s");
    agent.ok("fill 0 32768 4096 b");
    server.restart();
    // Stored before, synced after.
    agent.ok("fill 0 4096 4096 c");
    agent.ok("sync 0 0 65536 s");
    agent.ok("fill 0 8192 4096 d");
    server.stop();
    server.restart();
    let other = Host::new(engine);
    let mut reader = Agent::start(&other, server.url());
    let its = reader.ok("open /netmem/a r");
    for (page, letter) in ["a", "c", "a", "a", "a", "a", "a", "a", "b"].into_iter().enumerate() {
        assert_eq!(reader.ok(&format!("pread {its} {} 1", page * PAGE)), letter, "page {page}");
    }
    agent.ok(&format!("fsync {fd}"));
    assert_eq!(exported(&server, "a")[8192], b'd');
    assert_eq!(agent.end("exit 0").code(), Some(0));
}

fn a_region_without_a_name_outlives_a_restart_with_its_program(engine: Engine) {
    let (mut server, host) = (Server::durable(&[]), Host::new(engine));
    let mut agent = Agent::start(&host, server.url());
    let fd = agent.ok("open /netmem/a rwc");
    agent.ok(&format!("truncate {fd} 65536"));
    agent.ok(&format!("map {fd} 0 65536 shared w"));
    agent.ok("fill 0 0 65536 a");
    agent.ok("unlink /netmem/a");
    agent.ok("sync 0 0 65536 s");
    server.restart();
    agent.ok("fill 0 0 4096 b");
    agent.ok("sync 0 0 65536 s");
    server.restart();
    assert_eq!(agent.ok(&format!("pread {fd} 4095 2")), "ba");
    assert!(netmem(&server, &["stat", "a"]).output().code() != 0, "its name is gone");
    assert_eq!(agent.end("exit 0").code(), Some(0));
}

fn what_is_pending_outlives_a_restart_with_its_program(engine: Engine) {
    let (mut server, host) = (Server::durable(&[]), Host::new(engine));
    let run = |server: &Server, what: &str| {
        let program = compile("tests/agent/beyond.c", &[]);
        let run = Run::on(&host, server.url(), program).args(["/netmem/b", "1024", what]);
        run.env("NETMEM_CACHE_BYTES", "1M").env("NETMEM_STATS", host.stats()).limit(LIMIT)
    };
    // The second time the page cache is found as the first has left it.
    for _ in 0..2 {
        run(&server, "make").ok();
        let (mut storing, what) = run(&server, "store").spawn(Stdio::piped());
        let mut said = BufReader::new(storing.stdout.take().expect("its output")).lines();
        let mut says = |line: &str| assert_eq!(said.next().expect("a line").expect("text"), line, "{what}");
        says("stored");
        server.restart();
        drop(storing.stdin.take());
        says("0 wrong");
        assert!(storing.wait().expect("its end").success());
    }
    assert!(host.told().get("pages_pending").copied().unwrap_or(0) > 2000, "{:?}", host.told());
    assert_eq!(run(&server, "new").output().stdout, "0 wrong\n");
}

fn a_page_cache_stays_warm_over_a_restart(engine: Engine) {
    let (mut server, host) = (Server::durable(&[]), Host::new(engine));
    let mut first = Agent::start(&host, server.url());
    let fd = first.ok("open /netmem/a rwc");
    first.ok(&format!("pwrite {fd} 0 {}", "x".repeat(3000)));
    first.ok(&format!("fsync {fd}"));
    assert_eq!(first.end("exit 0").code(), Some(0));
    server.restart();
    let mut second = Agent::start(&host, server.url());
    let fd = second.ok("open /netmem/a r");
    assert_eq!(second.ok(&format!("pread {fd} 2998 4")), "xx");
    assert_eq!(server.client().server_stat().expect("a server").fetches, 0);
}

/// Programs that commit all pages of a region of their own, over and over.
struct Writers {
    children: Vec<Child>,
    said: Receiver<(usize, String)>,
    say: Sender<(usize, String)>,
    /// The last number that each has seen committed.
    acknowledged: Vec<u64>,
}

const PAGES: usize = 12;

impl Writers {
    fn start(count: usize, host: &Host, server: &Server) -> Writers {
        let (say, said) = channel();
        let mut writers = Writers { children: Vec::new(), said, say, acknowledged: vec![0; count] };
        for number in 0..count {
            let child = writers.spawn(number, host, server);
            writers.children.push(child);
        }
        writers
    }

    fn spawn(&self, number: usize, host: &Host, server: &Server) -> Child {
        let program = compile("tests/failures/pages_agree.c", &[]);
        let run = Run::on(host, server.url(), program).arg(host.path(&format!("r{number}")));
        let (mut child, _) = run.arg(PAGES.to_string()).spawn(Stdio::inherit());
        let (out, say) = (child.stdout.take().expect("its output"), self.say.clone());
        thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                let _ = say.send((number, line));
            }
            let _ = say.send((number, "end".to_owned()));
        });
        child
    }

    /// Waits for one that was killed to have said all that it said.
    fn drain(&mut self, number: usize) {
        while self.next() != Some(number) {}
    }

    /// Waits for the next line. Returns whose end it was, if it was one.
    fn next(&mut self) -> Option<usize> {
        let (number, line) = self.said.recv_timeout(patient(LIMIT)).expect("a writer goes on");
        if line == "end" {
            return Some(number);
        }
        match line.strip_prefix("start ") {
            Some(found) => {
                let found: u64 = found.parse().expect("a number");
                let least = self.acknowledged[number];
                assert!((least..=least + 1).contains(&found), "writer {number} finds {found} after {least}");
                self.acknowledged[number] = found;
            }
            None => {
                let done: u64 = line.parse().unwrap_or_else(|_| panic!("writer {number}: {line}"));
                assert_eq!(done, self.acknowledged[number] + 1, "writer {number}");
                self.acknowledged[number] = done;
            }
        }
        None
    }

    /// Waits until so many more commits were acknowledged. Nobody may end meanwhile.
    fn await_commits(&mut self, count: u64) {
        for _ in 0..count {
            assert_eq!(self.next(), None, "a writer ended");
        }
    }

    /// The server has each region whole, at least as new as what was acknowledged. Those that were not opened yet are left out.
    fn check(&self, server: &Server) {
        for (number, acknowledged) in self.acknowledged.iter().enumerate().filter(|(_, seen)| **seen > 0) {
            let bytes = bytes_at(server, &format!("r{number}"), 0, PAGES * PAGE);
            let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
            let found = word(0);
            assert!(found >= *acknowledged, "region {number} is at {found}, {acknowledged} was acknowledged");
            for page in 0..PAGES {
                assert_eq!(word(page * PAGE), found, "region {number}, page {page} is of another commit");
                for at in 1..PAGE / 8 {
                    let wanted = found.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (page as u64) << 32 ^ at as u64;
                    assert_eq!(word(page * PAGE + at * 8), wanted, "region {number}, page {page}, word {at}");
                }
            }
        }
    }
}

impl Drop for Writers {
    fn drop(&mut self) {
        for child in &mut self.children {
            kill_group(child.id());
            let _ = child.wait();
        }
    }
}

fn writers_lose_no_sync_to_servers_that_are_killed(engine: Engine) {
    let (writers, kills) = if is_long() { (8, 210) } else { (8, 20) };
    let mut dice = seeded();
    let (mut server, host) = (Server::durable(&[]), Host::new(engine));
    let mut writers = Writers::start(writers, &host, &server);
    for _ in 0..kills {
        writers.await_commits(1 + dice.below(60));
        server.restart();
        writers.check(&server);
    }
    writers.await_commits(20);
    println!("{kills} kills of the server, {} commits", writers.acknowledged.iter().sum::<u64>());
}

fn a_region_is_whole_whenever_its_program_is_killed(engine: Engine) {
    let kills = if is_long() { 210 } else { 20 };
    let mut dice = seeded();
    let (server, host) = (Server::durable(&[]), Host::new(engine));
    let mut writers = Writers::start(2, &host, &server);
    for _ in 0..kills {
        writers.await_commits(1 + dice.below(30));
        let number = dice.below(2) as usize;
        kill_group(writers.children[number].id());
        let _ = writers.children[number].wait();
        writers.drain(number);
        writers.check(&server);
        writers.children[number] = writers.spawn(number, &host, &server);
    }
    println!("{kills} kills of programs, {} commits", writers.acknowledged.iter().sum::<u64>());
}

/// Kills the server again and again while a script runs on it. Returns how often.
fn killing_while(server: &mut Server, kills: u64, script: impl FnOnce(String) + Send + 'static) -> u64 {
    let url = server.url().to_owned();
    let work = thread::spawn(move || script(url));
    let mut killed = 0;
    let mut dice = seeded();
    while killed < kills && !work.is_finished() {
        // By what the server has done, not by time.
        let commits = 2 + dice.below(40);
        let mut client = server.client();
        let mut served = || client.server_stat().expect("a server").commits;
        let before = served();
        while served() < before + commits && !work.is_finished() {
            thread::yield_now();
        }
        server.restart();
        killed += 1;
    }
    if let Err(panic) = work.join() {
        std::panic::resume_unwind(panic);
    }
    killed
}

#[test]
fn lmdb_loses_nothing_to_servers_that_are_killed_under_it() {
    if !have(&["mdb_stat", "mdb_dump"], "lmdb-utils liblmdb-dev") {
        return;
    }
    let program = compile("tests/real/lmdb_writers.c", &["-llmdb"]);
    for mode in ["default", "writemap"] {
        let script = format!(
            "mkdir $D/env; {} $D/env {mode}; mdb_stat -a $D/env; mdb_dump -p $D/env | sha256sum",
            program.display()
        );
        let local = netmem_tests::real::run_script(Engine::Kernel, &script, LIMIT);
        let mut server = Server::durable(&[]);
        let killed = killing_while(&mut server, if is_long() { 60 } else { 10 }, move |url| {
            let ours = run_script_on(&Host::new(best()), &url, &script, 3 * LIMIT);
            assert_eq!((ours.code(), &ours.stdout), (0, &local.stdout), "{ours}\n---- the kernel's\n{local}");
        });
        println!("{mode}: {killed} kills of the server");
        assert!(killed > 0, "the program was done before the first kill");
    }
}

#[test]
fn sqlite_loses_no_row_to_servers_that_are_killed_under_it() {
    if !have(&["sqlite3"], "sqlite3") {
        return;
    }
    for mode in ["delete", "wal"] {
        let script = r#"
sqlite3 $D/db "PRAGMA journal_mode=MODE; CREATE TABLE t(k INTEGER PRIMARY KEY, v TEXT)"
for i in $(seq 1 60); do
    echo "PRAGMA mmap_size=67108864; BEGIN IMMEDIATE; WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c WHERE x<30)
        INSERT INTO t SELECT $i*1000+x, hex(zeroblob(50+x)) FROM c; COMMIT; SELECT 'committed $i';"
done | sqlite3 -bail $D/db | grep -c committed
sqlite3 $D/db "PRAGMA integrity_check; SELECT count(*), sum(k), sum(length(v)) FROM t"
sqlite3 $D/db .dump | sha256sum"#;
        let script = script.replace("MODE", mode);
        let local = netmem_tests::real::run_script(Engine::Kernel, &script, LIMIT);
        let mut server = Server::durable(&[]);
        let killed = killing_while(&mut server, if is_long() { 60 } else { 10 }, move |url| {
            let ours = run_script_on(&Host::new(best()), &url, &script, 3 * LIMIT);
            assert_eq!((ours.code(), &ours.stdout), (0, &local.stdout), "{ours}\n---- the kernel's\n{local}");
        });
        println!("{mode}: {killed} kills of the server");
        assert!(killed > 0, "the program was done before the first kill");
    }
}

#[test]
fn a_directory_that_is_in_use_is_refused_with_a_line_that_names_it() {
    let server = Server::durable(&[]);
    let directory = server.store().display().to_string();
    let second =
        Run::plain(&netmem_tests::built::built().server).args(["--port", "0", "--store", &directory]);
    let output = second.output();
    assert_eq!(output.code(), 1, "{output}");
    assert!(output.stderr.contains(&directory) && output.stderr.contains("in use"), "{output}");
}

#[test]
fn damage_on_the_disk_is_named_by_scrub_and_by_check_and_nothing_else_is() {
    let mut server = Server::durable(&[]);
    import(&server, "good", &[b'g'; 40_000]);
    import(&server, "bad", &[b'b'; 40_000]);
    let clean = netmem(&server, &["scrub"]).ok();
    assert_eq!(clean.stdout, "20 pages, all as they were written\n");
    let store = server.store();
    let check = |store: &std::path::Path| {
        Run::plain(&netmem_tests::built::built().server).arg("check").arg(store).output()
    };
    let busy = check(&store);
    assert!(busy.code() == 1 && busy.stderr.contains("in use"), "{busy}");
    assert_eq!(server.stop().code(), Some(0));
    let fine = check(&store);
    assert_eq!(fine.code(), 0, "{fine}");
    assert!(fine.stdout.ends_with("2 regions, 20 pages, all as they were written\n"), "{fine}");
    // One bit of a page of `bad`.
    let pages = store.join("pages");
    let mut bytes = std::fs::read(&pages).expect("the file of pages");
    let at = bytes.iter().rposition(|byte| *byte == b'b').expect("a page of it");
    bytes[at - 100] ^= 4;
    std::fs::write(&pages, bytes).expect("the file of pages");
    let damaged = check(&store);
    assert_eq!(damaged.code(), 1, "{damaged}");
    assert_eq!(damaged.stdout.lines().count(), 1, "{damaged}");
    assert!(damaged.stdout.starts_with("bad, page ") && damaged.stdout.contains("damaged"), "{damaged}");
    server.restart();
    let scrubbed = netmem(&server, &["scrub"]).output();
    assert_eq!(scrubbed.code(), 1, "{scrubbed}");
    assert!(
        scrubbed.stdout.starts_with("bad: page ") && scrubbed.stderr.contains("1 of 20 pages"),
        "{scrubbed}"
    );
    // It is an error to who reads it, and never data; what else there is can be read.
    let host = Host::new(best());
    let mut agent = Agent::start(&host, server.url());
    let (good, bad) = (agent.ok("open /netmem/good r"), agent.ok("open /netmem/bad r"));
    assert_eq!(agent.ok(&format!("pread {good} 39999 1")), "g");
    let read = |page: usize| format!("pread {bad} {} 1", page * PAGE);
    let answers: Vec<_> = (0..10).map(|page| agent.ask(&read(page))).collect();
    assert_eq!(answers.iter().filter(|answer| **answer == Err("EIO".to_owned())).count(), 1, "{answers:?}");
    assert_eq!(answers.iter().filter(|answer| **answer == Ok("b".to_owned())).count(), 9, "{answers:?}");
    // And by loads, on a host that has none of the pages.
    for engine in netmem_tests::engine::RUNGS.into_iter().filter_map(|engine| engine.require()) {
        let cold = Host::new(engine);
        let mut agent = Agent::start(&cold, server.url());
        let fd = agent.ok("open /netmem/bad r");
        agent.ok(&format!("map {fd} 0 40960 shared r"));
        let answers: Vec<_> = (0..10).map(|page| agent.ask(&format!("load 0 {} 1", page * PAGE))).collect();
        let count =
            |wanted: &Result<String, String>| answers.iter().filter(|answer| *answer == wanted).count();
        let wanted = (count(&Ok("b".to_owned())), count(&Err("SIGBUS".to_owned())));
        assert_eq!(wanted, (9, 1), "{engine}: {answers:?}");
    }
}

#[test]
fn a_full_disk_is_enospc_for_the_sync_and_the_server_and_the_stores_stay() {
    let place = tempfile::TempDir::new().expect("a directory");
    let mounted =
        Run::plain("mount").args(["-t", "tmpfs", "-o", "size=12m", "tmpfs"]).arg(place.path()).output();
    if mounted.code() != 0 {
        netmem_tests::skip::skip("mount", "mounting a small file system needs root");
        return;
    }
    let store = place.path().join("store").display().to_string();
    let server = Server::with(&["--store", &store]);
    let host = Host::new(best());
    let mut agent = Agent::start(&host, server.url());
    let fd = agent.ok("open /netmem/a rwc");
    agent.ok(&format!("truncate {fd} 33554432"));
    agent.ok(&format!("map {fd} 0 33554432 shared w"));
    agent.ok("fill 0 0 1048576 1");
    agent.ok("sync 0 0 4096 s");
    agent.ok("fill 0 1048576 16777216 2");
    assert_eq!(agent.ask("sync 0 0 4096 s"), Err("ENOSPC".to_owned()), "{}", agent.stderr());
    assert_eq!(agent.ask("sync 0 0 4096 s"), Err("ENOSPC".to_owned()), "{}", agent.stderr());
    assert_eq!(exported(&server, "a")[0], b'1', "the server serves on, and has the last commit");
    assert_eq!(exported(&server, "a")[1_048_576], 0, "and nothing of the one that it refused");
    // What is too much goes; the rest is committed.
    agent.ok(&format!("truncate {fd} 2097152"));
    agent.ok("sync 0 0 4096 s");
    let bytes = exported(&server, "a");
    assert_eq!((bytes.len(), bytes[1_048_576], bytes[2_097_151]), (2_097_152, b'2', b'2'));
    assert_eq!(agent.end("exit 0").code(), Some(0));
    drop(server);
    let _ = Run::plain("umount").arg(place.path()).output();
}

/// Two hosts change different bytes of a page, and the server is restarted in between. Returns what the first's syncs answered, and those bytes.
fn two_hosts_over_a_restart(keep: &str) -> (Vec<Result<String, String>>, [u8; 2]) {
    let mut server = Server::durable(&["--keep-epochs", keep]);
    let hosts = [Host::new(best()), Host::new(best())];
    let mut agents = hosts.each_ref().map(|host| Agent::start(host, server.url()));
    for agent in &mut agents {
        let fd = agent.ok("open /netmem/a rwc");
        agent.ok(&format!("truncate {fd} 8192"));
        agent.ok(&format!("map {fd} 0 8192 shared w"));
        agent.ok("sync 0 0 8192 s");
    }
    let [one, other] = &mut agents;
    one.ok("fill 0 0 4096 .");
    one.ok("sync 0 0 8192 s");
    other.ok("sync 0 0 8192 si");
    other.ok("fill 0 100 1 o");
    other.ok("sync 0 0 8192 s");
    one.ok("fill 0 0 1 m");
    server.restart();
    let mut answers = Vec::new();
    while answers.len() < 3 && !matches!(answers.last(), Some(Ok(_))) {
        answers.push(one.ask("sync 0 0 8192 s"));
    }
    let bytes = exported(&server, "a");
    (answers, [bytes[0], bytes[100]])
}

#[test]
fn two_hosts_merge_over_a_restart_where_the_server_keeps_epochs() {
    let (answers, bytes) = two_hosts_over_a_restart("8");
    assert_eq!((answers.len(), bytes), (1, [b'm', b'o']), "{answers:?}");
}

#[test]
fn a_host_whose_base_is_gone_with_a_restart_is_told_and_loses_nothing_of_its_own() {
    let (answers, bytes) = two_hosts_over_a_restart("0");
    assert_eq!(answers[0], Err("ESTALE".to_owned()), "{answers:?}");
    assert!(answers[1].is_ok(), "{answers:?}");
    assert_eq!(bytes[0], b'm');
}
