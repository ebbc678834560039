//! Pages on their way while something happens to the place they are for: they come twice, or late, after munmap, after a truncation, after the
//! view has moved.
//!
//! Owns: the order, by a wire that holds answers back. Called by: `cargo test`. Must not: sleep, or count on who is faster: what
//! is held is on its way until the wire is mended.

use std::time::Duration;

use netmem_tests::cli::{exported, import};
use netmem_tests::{Agent, Engine, Host, Proxy, Server, on_each_rung};

on_each_rung! {
    a_page_that_comes_after_its_mapping_went_is_nobodys
    a_page_that_comes_after_other_memory_took_its_place_stays_out_of_it
    a_page_that_comes_after_a_truncation_is_not_in_the_file
    a_page_that_comes_after_its_file_was_removed_ends_with_it
    a_page_that_comes_after_the_view_moved_is_the_newer_one
    a_page_that_comes_after_it_was_given_up_is_had_by_the_next_touch
    a_page_that_comes_twice_is_the_same_page
    a_page_that_comes_to_one_who_died_is_had_by_his_peer
    a_page_that_comes_late_does_not_undo_a_write
    a_page_that_many_wait_for_comes_to_all
}

/// How long what must come may take.
const LIMIT: Duration = Duration::from_secs(20);
const PAGE: usize = 4096;
/// Pages of the file, mapped whole.
const PAGES: usize = 600;
/// The page that is waited for; those behind it come with it where prefetching is on.
const AT: usize = 96;
/// Off; what the detector makes of it; and as much as fits.
const PREFETCH: [&str; 3] = ["off", "auto", "256"];

/// What page `number` is full of.
fn letter(number: usize) -> char {
    char::from(b'a' + (number % 23) as u8)
}

/// A server with /netmem/f, a wire to it, and a host.
struct Place {
    server: Server,
    proxy: Proxy,
    host: Host,
}

impl Place {
    fn new(engine: Engine) -> Place {
        let (server, host) = (Server::start(), Host::new(engine));
        let content: Vec<u8> = (0..PAGES).flat_map(|page| [letter(page) as u8; PAGE]).collect();
        import(&server, "f", &content);
        let proxy = Proxy::to(server.address());
        Place { server, proxy, host }
    }

    /// A process behind the wire with the file as mapping 0; its descriptor.
    fn reader(&self, prefetch: &str) -> (Agent, String) {
        self.process(self.proxy.url(), &[("NETMEM_PREFETCH", prefetch)])
    }

    /// Another one of the same host, whose wire is in order.
    fn peer(&self) -> (Agent, String) {
        self.process(self.server.url(), &[("NETMEM_PREFETCH", "off")])
    }

    fn process(&self, url: &str, variables: &[(&str, &str)]) -> (Agent, String) {
        let mut agent = Agent::with(&self.host, url, variables);
        let fd = agent.ok("open /netmem/f rw");
        agent.ok(&format!("map {fd} 0 {} shared w", PAGES * PAGE));
        (agent, fd)
    }

    /// From here on AT is on its way to a thread of the process, and with it what the prefetcher asks for.
    fn hold(&self, agent: &mut Agent) {
        self.proxy.mute();
        agent.tell(&format!("aside {}", load(AT)));
        self.proxy.wait_until_held();
    }
}

fn load(page: usize) -> String {
    format!("load 0 {} 1", page * PAGE)
}

/// Every page of mapping 0 is what it was, but for those that `other` says.
fn looks(agent: &mut Agent, other: impl Fn(usize) -> Option<char>) {
    for page in 0..PAGES {
        let expected = other(page).unwrap_or(letter(page));
        assert_eq!(agent.ok(&load(page)), expected.to_string(), "page {page}");
    }
}

fn a_page_that_comes_after_its_mapping_went_is_nobodys(engine: Engine) {
    for prefetch in PREFETCH {
        let place = Place::new(engine);
        let (mut agent, fd) = place.reader(prefetch);
        place.hold(&mut agent);
        agent.ok(&format!("unmap 0 0 {}", PAGES * PAGE));
        place.proxy.heal();
        assert_eq!(agent.ask("join"), Err("SIGSEGV".to_owned()), "{prefetch}");
        agent.ok(&format!("map {fd} 0 {} shared w", PAGES * PAGE));
        assert_eq!(agent.ok(&format!("load 1 {} 1", AT * PAGE)), letter(AT).to_string());
        let (mut next, _) = place.reader("off");
        looks(&mut next, |_| None);
    }
}

fn a_page_that_comes_after_other_memory_took_its_place_stays_out_of_it(engine: Engine) {
    for prefetch in PREFETCH {
        let place = Place::new(engine);
        let (mut agent, _) = place.reader(prefetch);
        place.hold(&mut agent);
        agent.ok(&format!("anonymous 0 {} {}", AT * PAGE, 64 * PAGE));
        place.proxy.heal();
        assert_eq!(agent.ask("join"), Ok(".".to_owned()), "{prefetch}: the new memory's zeros");
        looks(&mut agent, |page| (AT..AT + 64).contains(&page).then_some('.'));
        agent.ok(&format!("sync 0 0 {} s", AT * PAGE));
        let (mut peer, _) = place.peer();
        looks(&mut peer, |_| None);
    }
}

fn a_page_that_comes_after_a_truncation_is_not_in_the_file(engine: Engine) {
    for prefetch in PREFETCH {
        let place = Place::new(engine);
        let (mut agent, fd) = place.reader(prefetch);
        place.hold(&mut agent);
        // It may wait for the page; then the page is there before it goes.
        agent.tell(&format!("truncate {fd} {}", 10 * PAGE));
        agent.tell(&format!("truncate {fd} {}", PAGES * PAGE));
        place.proxy.heal();
        agent.answer("truncate").expect("shorter");
        agent.answer("truncate").expect("as long as before");
        let seen = agent.ask("join");
        let before = Ok(letter(AT).to_string());
        assert!(seen == before || seen == Ok(".".to_owned()) || seen == Err("SIGBUS".to_owned()), "{seen:?}");
        looks(&mut agent, |page| (page >= 10).then_some('.'));
        agent.ok(&format!("fsync {fd}"));
        let content = exported(&place.server, "f");
        assert_eq!(content.len(), PAGES * PAGE);
        assert!(content[10 * PAGE..].iter().all(|byte| *byte == 0), "{prefetch}");
    }
}

fn a_page_that_comes_after_its_file_was_removed_ends_with_it(engine: Engine) {
    for prefetch in PREFETCH {
        let place = Place::new(engine);
        let (mut agent, _) = place.reader(prefetch);
        place.hold(&mut agent);
        let (mut peer, _) = place.peer();
        peer.ok("unlink /netmem/f");
        let fd = peer.ok("open /netmem/f rwc");
        peer.ok(&format!("truncate {fd} {}", PAGES * PAGE));
        peer.ok(&format!("map {fd} 0 {} shared w", PAGES * PAGE));
        place.proxy.heal();
        assert_eq!(agent.ask("join"), Ok(letter(AT).to_string()), "{prefetch}: a mapping outlives its name");
        looks(&mut agent, |_| None);
        for page in 0..PAGES {
            assert_eq!(peer.ok(&format!("load 1 {} 1", page * PAGE)), ".", "page {page} of the new file");
        }
    }
}

fn a_page_that_comes_after_the_view_moved_is_the_newer_one(engine: Engine) {
    for prefetch in PREFETCH {
        let place = Place::new(engine);
        let (mut peer, _) = place.peer();
        let (mut agent, _) = place.reader(prefetch);
        place.hold(&mut agent);
        // Another host, and a process of this one that looks at what it did: it waits for the page that is on its way.
        let elsewhere = Host::new(engine);
        let mut other = Agent::start(&elsewhere, place.server.url());
        let fd = other.ok("open /netmem/f rw");
        other.ok(&format!("pwrite {fd} {} NEW", AT * PAGE));
        other.ok(&format!("pwrite {fd} {} NEW", (AT + 1) * PAGE));
        other.ok(&format!("fsync {fd}"));
        peer.tell(&format!("sync 0 0 {} i", PAGES * PAGE));
        place.proxy.heal();
        peer.answer("sync").expect("the newest");
        let seen = agent.ask("join");
        assert!([letter(AT), 'N'].map(|one| Ok(one.to_string())).contains(&seen), "{prefetch}: {seen:?}");
        for agent in [&mut agent, &mut peer] {
            looks(agent, |page| (AT..AT + 2).contains(&page).then_some('N'));
        }
    }
}

fn a_page_that_comes_after_it_was_given_up_is_had_by_the_next_touch(engine: Engine) {
    for prefetch in PREFETCH {
        let place = Place::new(engine);
        let url = place.proxy.url().to_owned();
        let (mut agent, _) =
            place.process(&url, &[("NETMEM_PREFETCH", prefetch), ("NETMEM_TIMEOUT_MS", "300")]);
        place.hold(&mut agent);
        assert_eq!(agent.ask("join"), Err("SIGBUS".to_owned()), "{prefetch}");
        place.proxy.heal();
        let (mut peer, _) = place.peer();
        looks(&mut peer, |_| None);
        // The library looks from time to time whether what was given up can be had again.
        while agent.ask(&load(AT)) != Ok(letter(AT).to_string()) {}
        looks(&mut agent, |_| None);
    }
}

fn a_page_that_comes_twice_is_the_same_page(engine: Engine) {
    for prefetch in PREFETCH {
        let place = Place::new(engine);
        let (mut agent, _) = place.reader(prefetch);
        // The connection ends within the answer; the page is asked for again on another one.
        for (page, bytes) in [(AT, 40), (AT + 300, 2000)] {
            place.proxy.cut_after_answers(bytes);
            agent.tell(&format!("aside {}", load(page)));
            assert!(place.proxy.wait_until_cut(LIMIT), "{prefetch}");
            place.proxy.heal();
            assert_eq!(agent.ask("join"), Ok(letter(page).to_string()), "{prefetch}");
        }
        looks(&mut agent, |_| None);
    }
}

fn a_page_that_comes_to_one_who_died_is_had_by_his_peer(engine: Engine) {
    for prefetch in PREFETCH {
        let place = Place::new(engine);
        let (mut peer, _) = place.peer();
        let (mut agent, _) = place.reader(prefetch);
        place.hold(&mut agent);
        peer.tell(&format!("aside {}", load(AT)));
        agent.kill();
        assert_eq!(peer.ask("join"), Ok(letter(AT).to_string()), "{prefetch}");
        place.proxy.heal();
        looks(&mut peer, |_| None);
    }
}

fn a_page_that_comes_late_does_not_undo_a_write(engine: Engine) {
    for prefetch in PREFETCH {
        let place = Place::new(engine);
        let (mut peer, fd) = place.peer();
        let (mut agent, _) = place.reader(prefetch);
        place.hold(&mut agent);
        peer.tell(&format!("pwrite {fd} {} NEW", AT * PAGE));
        peer.tell(&format!("pwrite {fd} {} NEW", (AT + 2) * PAGE));
        place.proxy.heal();
        peer.answer("pwrite").expect("written");
        peer.answer("pwrite").expect("written");
        let seen = agent.ask("join");
        assert!([letter(AT), 'N'].map(|one| Ok(one.to_string())).contains(&seen), "{prefetch}: {seen:?}");
        for agent in [&mut agent, &mut peer] {
            looks(agent, |page| [AT, AT + 2].contains(&page).then_some('N'));
        }
        peer.ok(&format!("fsync {fd}"));
        let content = exported(&place.server, "f");
        for page in [AT, AT + 2] {
            assert_eq!(&content[page * PAGE..][..4], format!("NEW{}", letter(page)).as_bytes(), "{prefetch}");
        }
    }
}

fn a_page_that_many_wait_for_comes_to_all(engine: Engine) {
    for prefetch in PREFETCH {
        let place = Place::new(engine);
        let (mut agent, _) = place.reader(prefetch);
        let mut peers: Vec<Agent> = (0..3).map(|_| place.peer().0).collect();
        place.hold(&mut agent);
        for peer in &mut peers {
            peer.tell(&load(AT));
        }
        place.proxy.heal();
        assert_eq!(agent.ask("join"), Ok(letter(AT).to_string()), "{prefetch}");
        for peer in &mut peers {
            assert_eq!(peer.answer("load"), Ok(letter(AT).to_string()), "{prefetch}");
        }
        looks(&mut agent, |_| None);
        looks(&mut peers[0], |_| None);
    }
}
