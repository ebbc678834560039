//! Answers of arbitrary bytes: right ones with bytes changed, fields at their limits, cut, repeated, of another kind, about other pages, or
//! none. Whatever comes, the client ends each request within its time, allocates no more than a frame can hold, hands over no page but
//! those that were asked for, and gets on with a server that answers again as it should.
//!
//! A case follows from its seed. NETMEM_TEST_SEED plays one alone; NETMEM_FUZZ_SECONDS says for how long new ones are played. Seeds that
//! once found something are in `seeds.txt`, and are played first.

#[allow(dead_code)] // Of the methods that all tests share this one needs some.
#[path = "../../../../../tests/src/model/dice.rs"]
mod dice;
mod memory;
mod server;

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use netmem_protocol::control::{Create, Entry, EntryKind, Rename, Resolve};
use netmem_protocol::{ClientId, CommitId, Epoch, RegionId, Run};

use self::dice::Dice;
use self::memory::most_held;
use self::server::{Case, Server};
use super::{empty_commit, remote_for, stage_of};
use crate::remote::lying::content;
use crate::remote::{PageSource, Remote, RemoteError};

/// For how long cases are played, unless told otherwise.
const SECONDS: u64 = 6;
/// A request's time while the server lies.
const TIMEOUT: Duration = Duration::from_millis(60);
/// No request may take longer, however busy the machine is; the server waits for twice as long.
const LIMIT: Duration = Duration::from_secs(10);
/// What a request may hold at once: a body of [`netmem_protocol::FRAME_BODY_MAX`] bytes, and the elements that so many bytes can give.
const HELD_MAX: usize = 16 << 20;

impl Dice {
    fn pick<T>(&mut self, of: impl IntoIterator<Item = T>) -> T {
        let mut of: Vec<T> = of.into_iter().collect();
        let at = self.below(of.len() as u64) as usize;
        of.swap_remove(at)
    }

    /// A number that a field may have, at its limits more often than not.
    fn number(&mut self) -> u64 {
        let small = self.below(8);
        let limits = [64, 255, 4096, 1 << 32, (1 << 32) - 1, 1 << 44, (1 << 44) + 1, u64::MAX - 1, u64::MAX];
        self.pick(limits.into_iter().chain([small; 4]))
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.roll() as u8).collect()
    }

    fn region(&mut self) -> RegionId {
        RegionId(1 + self.below(4))
    }
}

/// Pages to ask for: a few, or several frames of them, in one or many runs, up to the end of the largest region.
fn runs(dice: &mut Dice) -> Vec<Run> {
    match dice.below(6) {
        0 => vec![Run::new(dice.below(100), 1)],
        1 => vec![Run::new((1 << 32) - 3, 3)],
        2 => vec![Run::new(5, 300)],
        3 => (0..1 + dice.below(200)).map(|i| Run::new(i * 3, 1)).collect(),
        4 => vec![Run::new(9, 0), Run::new(40, 20), Run::new(3, 2), Run::new(3, 1)],
        _ => vec![Run::new(1 + dice.below(9), 1 + dice.below(30) as u32)],
    }
}

/// Fetches, and checks that what is handed over is what was asked for, as far as it comes.
fn fetch(remote: &Remote, sums: bool, region: RegionId, runs: &[Run]) -> Result<(), RemoteError> {
    let mut asked = runs.iter().flat_map(|run| run.first.0..run.end());
    let outcome = remote.fetch(region, Epoch(3), runs, &mut |span, _| {
        for (page, data) in span.pages() {
            assert_eq!(Some(page), asked.next(), "not the page that was asked for");
            // Without checksums, changed bytes are bytes like others.
            if sums {
                assert!(data.copied() == content(page), "page {page} has other bytes than its own");
            }
        }
    });
    if outcome.is_ok() {
        assert_eq!(asked.next(), None, "a page that was asked for is missing");
    }
    outcome
}

/// A commit of pages in each of so many regions.
fn commit(remote: &Remote, regions: u64, pages: u64) -> Result<(), RemoteError> {
    let done = remote.commit(&mut |sink| {
        let (builder, data) = stage_of(1..1 + pages);
        let mut parts = Vec::new();
        for region in (7..7 + regions).map(RegionId) {
            sink.stage(region, &builder, &data)?;
            if pages.is_multiple_of(3) {
                sink.stage_from(region, RegionId(20), &[Run::new(400, 7), Run::new(5000, 1)])?;
            }
            parts.push((region, empty_commit()));
        }
        Ok(parts)
    });
    let done = done.map_err(|failure| failure.error)?;
    assert_eq!(done.len() as u64, regions, "not an answer for each region");
    Ok(())
}

/// Whether a path below a directory stays there.
fn is_inside(name: &str) -> bool {
    !name.contains('\0') && name.split('/').all(|part| !["", ".", ".."].contains(&part))
}

/// What of an entry becomes a file's.
fn possible(entry: &Entry) {
    assert!(entry.mode <= 0o7777, "{entry:?}");
    assert!(entry.kind != EntryKind::Region || entry.size <= 1 << 44 && entry.region.0 > 0, "{entry:?}");
}

/// One request of any kind.
fn ask(remote: &Remote, sums: bool, dice: &mut Dice) -> Result<(), RemoteError> {
    let (region, size) = (dice.region(), dice.number());
    let create = dice.pick([Create::Never, Create::IfMissing, Create::Exclusive]);
    match dice.below(30) {
        0 => remote.ping(),
        1 => remote.lookup("a").map(|entry| possible(&entry)),
        2 => remote.open("a", create, 0o600).map(|entry| possible(&entry)),
        3 => remote.open_id(region).map(|entry| possible(&entry)),
        4 => remote.create_unnamed(size).map(|entry| possible(&entry)),
        5 => remote.close(region),
        6 => {
            let listing = remote.list("d", "a")?;
            let names: Vec<&str> = listing.entries.iter().map(|(name, _)| name.as_str()).collect();
            assert!(names.iter().all(|name| is_inside(name) && !name.contains('/')), "{names:?}");
            assert!(names.is_sorted() && names.first() > Some(&"a") || names.is_empty() && !listing.more);
            listing.entries.iter().for_each(|(_, entry)| possible(entry));
            Ok(())
        }
        7 => remote.remove("a", false),
        8 => {
            let exchange = dice.below(2) == 0;
            let (from, to) = ("a".to_owned(), "b".to_owned());
            remote.rename(&Rename { from, to, no_replace: false, exchange })
        }
        9 => remote.make_dir("d", 0o700).map(|entry| possible(&entry)),
        10 => remote.make_symlink("l", b"a").map(|entry| possible(&entry)),
        11 => remote.link("a", "b").map(|entry| possible(&entry)),
        12 => {
            remote.names(region).map(|names| assert!(names.iter().all(|name| is_inside(name)), "{names:?}"))
        }
        13 => {
            let (base, path) = ("d".to_owned(), "../a".to_owned());
            remote
                .resolve(&Resolve { base, path, follow: true, links: 0 })
                .map(|resolved| assert!(resolved.name.is_empty() || is_inside(&resolved.name)))
        }
        14 => remote.set_attr("a", Some(0o600), None).map(|entry| possible(&entry)),
        15 => remote.resize(region, size).map(|_| ()),
        16 => remote.server_stat().map(|_| ()),
        17 | 18 => {
            let until = Epoch(dice.pick([0, 0, 9]));
            let changes = remote.changes(region, Epoch(3), until)?;
            assert_eq!(changes.check(Epoch(3), until), Ok(()), "changes that no region can have");
            Ok(())
        }
        19 => remote.view(region, Epoch(3)),
        20 => remote.commit_status(region, CommitId(1)).map(|_| ()),
        21 | 22 => commit(remote, dice.pick([1, 1, 2, 3]), 1 + dice.below(255)),
        23 => remote.clone_unnamed(region).map(|entry| {
            possible(&entry);
            assert!(entry.region != region, "a region that is its own clone");
        }),
        24 => remote.keep(region, RegionId(dice.below(3))).map(|(place, _)| {
            assert!(place != region, "what is pending would be committed");
        }),
        _ => fetch(remote, sums, region, &runs(dice)),
    }
}

/// Says which case it was, if it fails.
struct Playing(u64);

impl Drop for Playing {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("NETMEM_TEST_SEED={}", self.0);
        }
    }
}

/// What was played.
#[derive(Default)]
struct Played {
    cases: u64,
    answers: u64,
    lies: u64,
    /// The most that a request held.
    held: usize,
}

/// Makes requests while the server lies, and some more when it does not.
fn play(server: &Server, seed: u64, played: &mut Played) {
    let _playing = Playing(seed);
    let case = server.begin(seed);
    let mut dice = Dice(!seed);
    let mut remote = remote_for(&server.address, Some(TIMEOUT));
    for _ in 0..1 + dice.below(12) {
        let began = Instant::now();
        let (outcome, held) = most_held(|| ask(&remote, case.sums, &mut dice));
        assert!(began.elapsed() < LIMIT, "a request took {:?}: {outcome:?}", began.elapsed());
        assert!(held <= HELD_MAX, "a request held {held} bytes: {outcome:?}");
        played.held = played.held.max(held);
        if let Err(error) = outcome {
            let line = error.to_string();
            assert!(!line.contains(char::is_control), "not a line: {line:?}");
            assert!(error.errno() > 0, "{error:?}");
        }
        if dice.below(20) == 0 {
            remote.forget_connections(ClientId([dice.roll() as u8; 16]), vec![dice.region()], Vec::new());
        }
    }
    get_on(&mut remote, &case);
    played.cases += 1;
    played.answers += case.played.load(Ordering::SeqCst);
    played.lies += case.lies.load(Ordering::SeqCst);
}

/// The server is another now, so none of its old connections stands.
fn get_on(remote: &mut Remote, case: &Case) {
    case.honest.store(true, Ordering::SeqCst);
    remote.pool.drop_idle();
    remote.give_time(2 * LIMIT);
    assert_eq!(fetch(remote, case.sums, RegionId(7), &[Run::new(3, 400)]), Ok(()));
    assert_eq!(remote.lookup("a").map(|entry| entry.region), Ok(RegionId(9)));
    assert_eq!((commit(remote, 1, 20), commit(remote, 2, 20)), (Ok(()), Ok(())));
    assert_eq!(remote.changes(RegionId(7), Epoch(3), Epoch(0)).map(|changes| changes.epoch), Ok(Epoch(4)));
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

#[test]
fn no_answer_ends_a_client_or_keeps_it_or_gives_it_a_page_that_it_did_not_ask_for() {
    let server = Server::start();
    let mut played = Played::default();
    if let Some(seed) = setting("NETMEM_TEST_SEED") {
        return play(&server, seed, &mut played);
    }
    let found =
        include_str!("seeds.txt").lines().filter_map(|line| line.split('#').next()?.trim().parse().ok());
    found.for_each(|seed| play(&server, seed, &mut played));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a time after 1970").as_nanos() as u64;
    let until = Instant::now() + Duration::from_secs(setting("NETMEM_FUZZ_SECONDS").unwrap_or(SECONDS));
    while Instant::now() < until {
        play(&server, now.wrapping_add(played.cases), &mut played);
    }
    let Played { cases, answers, lies, held } = played;
    println!(
        "{answers} answers, {lies} of them lies, in {cases} cases; a request held {held} bytes at the most"
    );
    assert!(lies > 0, "nothing was played");
}
