//! The store on a disk that fails, fills up and loses power at every step: what was acknowledged is there, whole.

use std::fmt::Write;
use std::time::{Duration, Instant};

use netmem_protocol::control::{
    self, CloneRegion, Create, CreateUnnamed, Link, List, Lookup, MakeDir, MakeSymlink, Open, Remove, Rename,
    SetAttr, Snapshot,
};
use netmem_protocol::{CacheId, ClientId, CommitId, Epoch, ErrorCode, PAGE_SIZE};

use super::*;
use crate::catalog::Catalog;
use crate::commit::{Commits, Part};
use crate::config::Limits;
use crate::memory::Memory;
use crate::reaper::Reaper;
use crate::refusal::Answer;
use crate::region::Who;
use crate::slab::PageBytes;
use crate::staging::Staged;
use crate::stats::Counts;
use crate::store::simulated::{Fault, Simulated};

pub(super) const ME: Who = Who { client: ClientId([1; 16]), cache: CacheId([1; 16]) };
pub(super) const LIMITS: Limits = Limits {
    memory_bytes: 1 << 20,
    frame_body: 1 << 20,
    region_bytes: 1 << 30,
    regions: 1000,
    connections: 5,
    keep_epochs: 0,
};

/// What a server is without its sockets.
pub(super) struct Machine {
    pub(super) catalog: Catalog,
    pub(super) memory: Arc<Memory>,
    pub(super) store: Arc<Durable>,
    keep_epochs: usize,
}

impl Machine {
    pub(super) fn start(disk: &Simulated) -> Result<Machine, StoreError> {
        Self::with(disk, LIMITS)
    }

    /// With another memory, or with epochs that are kept.
    pub(super) fn with(disk: &Simulated, limits: Limits) -> Result<Machine, StoreError> {
        Self::leased(disk, limits, Duration::ZERO)
    }

    pub(super) fn leased(disk: &Simulated, limits: Limits, lease: Duration) -> Result<Machine, StoreError> {
        let (bytes, keep_epochs) = (limits.memory_bytes, limits.keep_epochs);
        let (store, loaded) = Durable::open(Box::new(disk.clone()), StoreId([9; 16]), keep_epochs)?;
        let store = Arc::new(store);
        let memory = Arc::new(Memory::with_store(bytes, Reaper::start(), Arc::clone(store.pages())));
        let (holds, keeps) = (Arc::clone(&memory), Arc::clone(&store) as Arc<dyn Store>);
        let catalog = Catalog::restored(holds, keeps, limits, lease, loaded)?;
        Ok(Machine { catalog, memory, store, keep_epochs })
    }

    pub(super) fn open(&self, name: &str) -> Answer<RegionId> {
        let open = Open { name: name.into(), create: Create::IfMissing, mode: 0o640 };
        self.catalog.open(ME, &open).map(|entry| entry.region)
    }

    /// Commits pages on the newest epoch; 0 is a page of zeros.
    pub(super) fn commit(
        &self,
        id: RegionId,
        number: u64,
        pages: &[(u64, u8)],
        cut: Option<u64>,
    ) -> Answer<control::Committed> {
        self.commit_together(number, &[(id, pages, cut)]).map(|done| done[0])
    }

    /// The same in several regions at once, in the order of their numbers.
    fn commit_together(&self, number: u64, parts: &[Changed<'_>]) -> Answer<Vec<control::Committed>> {
        let mut regions = Vec::new();
        for (id, pages, cut) in parts {
            let region = self.memory.region(*id)?;
            let mut staged = Vec::new();
            for (page, fill) in *pages {
                staged.push(match fill {
                    0 => Staged::Zero(*page, page + 1),
                    fill => Staged::Data(*page, self.memory.copy_of(&filled(*page, *fill))?),
                });
            }
            let (commit, staged_pages, base) = (CommitId(number), pages.len() as u64, region.entry().epoch);
            let request =
                control::Commit { commit, staged_pages, base, strict: false, cut: *cut, size: None };
            regions.push((region, request, staged));
        }
        let counts = [Counts::default(), Counts::default()];
        let commits = Commits {
            memory: &self.memory,
            store: &*self.store,
            counts: counts.each_ref(),
            region_bytes_max: LIMITS.region_bytes,
            keep_epochs: self.keep_epochs,
        };
        let parts: Vec<Part<'_>> =
            regions.iter().map(|(region, request, staged)| Part { region, request, staged }).collect();
        commits.commit(ME, &parts)
    }

    /// All that there is to see but times: names, sizes, epochs, and the first byte of each page.
    fn dump(&self) -> String {
        let mut out = String::new();
        self.dump_directory("", &mut out);
        out
    }

    fn dump_directory(&self, directory: &str, out: &mut String) {
        let list = List { directory: directory.into(), after: String::new() };
        for (last, entry) in self.catalog.list(&list).expect("a directory").entries {
            let name = if directory.is_empty() { last } else { format!("{directory}/{last}") };
            let (links, mode, target) = (entry.links, entry.mode, String::from_utf8_lossy(&entry.target));
            writeln!(out, "{name} {:?} {links} {mode:o} {} {} {target}", entry.kind, entry.size, entry.epoch)
                .expect("text");
            match entry.kind {
                control::EntryKind::Directory => self.dump_directory(&name, out),
                control::EntryKind::Region | control::EntryKind::Snapshot => {
                    self.dump_pages(entry.region, out);
                    self.dump_snapshots(&name, out);
                }
                control::EntryKind::Symlink => {}
            }
        }
    }

    fn dump_snapshots(&self, name: &str, out: &mut String) {
        let told = self.catalog.history(&Lookup { name: name.into() }).expect("a region");
        for logged in told.log {
            write!(out, " [{} {} {}]", logged.epoch, logged.pages, logged.size).expect("text");
        }
        for snapshot in told.snapshots {
            let full = format!("{name}@{}", snapshot.snapshot);
            let entry = self.catalog.lookup(&Lookup { name: full }).expect("a snapshot");
            writeln!(
                out,
                "@{} {} {} {}",
                snapshot.snapshot, snapshot.epoch, entry.size, snapshot.stored_pages
            )
            .expect("text");
            self.dump_pages(entry.region, out);
        }
    }

    fn dump_pages(&self, id: RegionId, out: &mut String) {
        let root = self.memory.region(id).expect("a region").root(Epoch(0)).expect("its newest epoch");
        for page in 0..root.pages() {
            if let Some(content) = root.tree.get(page) {
                let bytes = content.load(&self.memory).expect("a page that is not damaged");
                assert!(**bytes == filled(page, bytes[8]) || bytes[8] == 0, "page {page} is torn");
                write!(out, " {page}:{}@{}", bytes[8], root.version(page)).expect("text");
            }
        }
        writeln!(out).expect("text");
    }
}

/// A region, pages with what fills them, and where it is cut.
type Changed<'a> = (RegionId, &'a [(u64, u8)], Option<u64>);

/// A page that says which it is, all over.
fn filled(page: u64, fill: u8) -> PageBytes {
    let mut bytes = [fill; PAGE_SIZE];
    bytes[..8].copy_from_slice(&page.to_le_bytes());
    bytes
}

/// The steps of the workload: all that a store takes. Each is one change.
const STEPS: u64 = 41;

fn step(machine: &Machine, number: u64) -> Answer<()> {
    let name = |name: &str| name.to_owned();
    let catalog = &machine.catalog;
    let commit = |name: &str, pages: &[(u64, u8)], cut| {
        let id = catalog.lookup(&Lookup { name: name.into() })?.region;
        machine.commit(id, 100 + number, pages, cut).map(drop)
    };
    let snapshot = |region: &str, snapshot: &str| {
        catalog.snapshot(&Snapshot { name: region.into(), snapshot: snapshot.into() }).map(drop)
    };
    let clone = |from: &str, to: &str| {
        catalog.clone_region(ME, &CloneRegion { from: from.into(), to: to.into() }).map(drop)
    };
    match number {
        0 => machine.open("a").map(drop),
        1 => commit("a", &[(0, 1), (1, 2), (70, 3)], None),
        2 => catalog.make_dir(&MakeDir { name: name("d"), mode: 0o750 }).map(drop),
        3 => machine.open("d/b").map(drop),
        4 => commit("d/b", &(0..200).map(|page| (page, 4)).collect::<Vec<_>>(), None),
        5 => commit("a", &[(1, 5), (2, 6)], None),
        6 => commit("d/b", &[(3, 0), (199, 7)], Some(100 * PAGE_SIZE as u64)),
        7 => catalog.link(&Link { from: name("a"), to: name("d/c") }).map(drop),
        8 => catalog.make_symlink(&MakeSymlink { name: name("s"), target: b"d/b".to_vec() }).map(drop),
        9 => catalog.rename(&Rename { from: name("d"), to: name("e"), exchange: false, no_replace: false }),
        10 => commit("e/b", &[(3, 8)], Some(10 * PAGE_SIZE as u64)),
        11 => catalog
            .set_attributes(&SetAttr { name: name("a"), mode: Some(0o600), modified_ns: Some(7) })
            .map(drop),
        12 => catalog.remove(&Remove { name: name("a"), directory: false }),
        13 => commit("e/c", &[(70, 0), (71, 9)], None),
        14 => catalog.rename(&Rename { from: name("e"), to: name("s"), exchange: true, no_replace: false }),
        15 => machine.open("s/x").map(drop),
        16 => commit("s/x", &(0..130).map(|page| (page, 10)).collect::<Vec<_>>(), None),
        17 => commit("s/x", &(0..130).map(|page| (page, 11)).collect::<Vec<_>>(), None),
        18 => commit("s/x", &[(64, 12)], None),
        19 => commit("s/x", &(0..64).map(|page| (page, 0)).collect::<Vec<_>>(), None),
        20 => catalog
            .set_attributes(&SetAttr { name: name("s"), mode: Some(0o711), modified_ns: None })
            .map(drop),
        21 => {
            catalog.rename(&Rename { from: name("s/x"), to: name("s/b"), exchange: false, no_replace: false })
        }
        22 => commit("s/b", &[(5, 13)], Some(0)),
        23 => catalog.remove(&Remove { name: name("e"), directory: false }),
        24 => commit("s/b", &(0..140).map(|page| (page, 14)).collect::<Vec<_>>(), None),
        25 => snapshot("s/b", "one"),
        26 => commit("s/b", &[(0, 15), (70, 0), (139, 16)], None),
        27 => snapshot("s/b", "two"),
        28 => clone("s/b@one", "k"),
        29 => commit("s/b", &[(1, 17)], Some(64 * PAGE_SIZE as u64)),
        30 => commit("k", &[(1, 18), (100, 0)], None),
        31 => clone("k", "kk"),
        32 => commit("k", &[(0, 19)], Some(70 * PAGE_SIZE as u64)),
        33 => catalog.remove_snapshot(&Snapshot { name: name("s/b"), snapshot: name("one") }),
        34 => commit("s/b", &[(100, 20)], None),
        35 => catalog.remove(&Remove { name: name("k"), directory: false }),
        36 => commit("kk", &[(2, 21)], None),
        37 => machine.open("t").map(drop),
        38 => {
            let id = |name: &str| catalog.lookup(&Lookup { name: name.into() }).map(|entry| entry.region);
            let (b, kk, t) = (id("s/b")?, id("kk")?, id("t")?);
            let pages: Vec<_> = (0..80).map(|page| (page, 22)).collect();
            let parts: [Changed<'_>; 3] = [
                (b, &[(100, 0), (0, 23)], Some(20 * PAGE_SIZE as u64)),
                (kk, &[], Some(0)),
                (t, &pages, None),
            ];
            machine.commit_together(100 + number, &parts).map(drop)
        }
        39 => commit("t", &[(3, 24)], None),
        _ => catalog.remove(&Remove { name: name("s/b"), directory: false }),
    }
}

/// What there is to see after each step, and before the first.
fn dumps() -> Vec<String> {
    let machine = Machine::start(&Simulated::new(None)).expect("an empty disk");
    let mut all = vec![machine.dump()];
    for number in 0..STEPS {
        step(&machine, number).expect("a step");
        all.push(machine.dump());
        assert_ne!(all[all.len() - 1], all[all.len() - 2], "step {number} changes something");
    }
    all
}

/// A dice that gives the same bits for the same seed; seeds 0 and 1 give nothing and everything.
pub(super) fn dice(seed: u64) -> impl FnMut() -> bool {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        match seed {
            0 => false,
            1 => true,
            _ => state >> 40 & 1 != 0,
        }
    }
}

/// Plays the workload up to the first step that fails, and says how many were acknowledged.
fn play(disk: &Simulated) -> u64 {
    let Ok(machine) = Machine::start(disk) else { return 0 };
    (0..STEPS).find(|number| step(&machine, *number).is_err()).unwrap_or(STEPS)
}

#[test]
fn after_a_power_cut_at_any_write_or_sync_every_acknowledged_change_is_there_whole_and_at_most_one_more() {
    let dumps = dumps();
    let seeds: u64 = if std::env::var_os("NETMEM_TEST_LONG").is_some() { 40 } else { 3 };
    let mut visited = 0;
    for at in 0.. {
        let disk = Simulated::new(Some((at, Fault::PowerCut)));
        let done = play(&disk) as usize;
        for seed in 0..seeds {
            let after = disk.after_power_cut(None, dice(seed));
            let machine =
                Machine::start(&after).unwrap_or_else(|error| panic!("cut at {at}, seed {seed}: {error}"));
            let dump = machine.dump();
            let allowed = &dumps[done..(done + 2).min(dumps.len())];
            assert!(
                allowed.contains(&dump),
                "cut at {at}, seed {seed}, {done} acknowledged:\n{dump}\nand not\n{allowed:?}"
            );
            visited += 1;
            // What is there goes on from where it is.
            if seed == 2 {
                let from = dumps.iter().position(|known| *known == dump).expect("a known state") as u64;
                (from..STEPS)
                    .for_each(|number| step(&machine, number).expect("a step on the disk that was found"));
                assert_eq!(machine.dump(), dumps[STEPS as usize]);
            }
        }
        if done == STEPS as usize && disk.operations() <= at {
            println!("{at} crash points, {visited} disks opened again");
            return;
        }
    }
}

#[test]
fn after_a_kill_at_any_write_or_sync_every_acknowledged_change_is_there() {
    let dumps = dumps();
    for at in 0.. {
        let disk = Simulated::new(Some((at, Fault::PowerCut)));
        let done = play(&disk) as usize;
        let machine = Machine::start(&disk.after_kill(None)).expect("a store that was killed opens");
        let dump = machine.dump();
        assert!(dumps[done..(done + 2).min(dumps.len())].contains(&dump), "killed at {at}: {dump}");
        if done == STEPS as usize {
            return;
        }
    }
}

#[test]
fn a_disk_that_is_full_at_any_write_refuses_that_change_and_takes_the_next() {
    let dumps = dumps();
    for at in 0.. {
        let disk = Simulated::new(Some((at, Fault::Full)));
        let Ok(machine) = Machine::start(&disk) else { continue };
        let mut refused = 0;
        for number in 0..STEPS {
            if let Err(refusal) = step(&machine, number) {
                assert_eq!(refusal.code, ErrorCode::Full, "at {at}: {refusal}");
                assert_eq!(machine.dump(), dumps[number as usize], "at {at}: a refused step changes nothing");
                step(&machine, number)
                    .unwrap_or_else(|refusal| panic!("at {at}, the second time: {refusal}"));
                refused += 1;
            }
            assert_eq!(machine.dump(), dumps[number as usize + 1], "at {at}");
        }
        assert!(refused <= 1);
        let again = Machine::start(&disk.after_kill(None)).expect("it opens");
        assert_eq!(again.dump(), dumps[STEPS as usize], "at {at}");
        if refused == 0 && disk.operations() <= at {
            return;
        }
    }
}

#[test]
fn a_disk_that_breaks_takes_nothing_more_and_what_was_acknowledged_can_still_be_read() {
    let dumps = dumps();
    for at in 0.. {
        let disk = Simulated::new(Some((at, Fault::Broken)));
        let Ok(machine) = Machine::start(&disk) else { continue };
        let done = (0..STEPS).find(|number| step(&machine, *number).is_err()).unwrap_or(STEPS);
        assert_eq!(machine.dump(), dumps[done as usize], "at {at}");
        if done == STEPS && disk.operations() <= at {
            return;
        }
        if done < STEPS {
            // A write that failed before anything was synced leaves the store as it was; all else ends it until it is opened anew.
            let again = Machine::start(&disk.after_kill(None)).expect("it opens");
            let dump = again.dump();
            assert!(dumps[done as usize..=done as usize + 1].contains(&dump), "at {at}: {dump}");
        }
    }
}

#[test]
fn a_byte_that_changed_on_the_disk_is_an_error_that_names_the_slot_and_never_data() {
    let disk = Simulated::new(None);
    let machine = Machine::start(&disk).expect("an empty disk");
    let id = machine.open("a").expect("a region");
    machine.commit(id, 1, &[(0, 1), (1, 2)], None).expect("a commit");
    drop(machine);
    let root_of =
        |machine: &Machine| machine.memory.region(id).expect("a region").root(Epoch(0)).expect("an epoch");
    let slot_of = |machine: &Machine| match root_of(machine).tree.get(1) {
        Some(Content::Stored(stored)) => stored.slot(),
        _ => panic!("page 1 is not on the disk"),
    };
    let machine = Machine::start(&disk).expect("it opens");
    let slot = slot_of(&machine);
    disk.flip(pages::FILE, slot * PAGE_SIZE as u64 + 77);
    let root = root_of(&machine);
    let load = |page| root.tree.get(page).expect("a page").load(&machine.memory).map(drop);
    let refusal = load(1).expect_err("a damaged page");
    assert_eq!(refusal.code, ErrorCode::Internal);
    assert!(refusal.text.contains(&format!("slot {slot}")) && refusal.text.contains("damaged"), "{refusal}");
    load(0).expect("the other page");
}

#[test]
fn a_region_larger_than_the_servers_memory_is_read_back_whole() {
    let disk = Simulated::new(None);
    let machine = Machine::with(&disk, Limits { memory_bytes: 64 * PAGE_SIZE as u64, ..LIMITS })
        .expect("an empty disk");
    let id = machine.open("a").expect("a region");
    for (number, first) in (1..).zip((0..1000).step_by(20)) {
        let pages: Vec<_> = (first..first + 20).map(|page| (page, 1 + (page % 250) as u8)).collect();
        machine.commit(id, number, &pages, None).expect("a commit");
    }
    assert!(machine.memory.used() <= 64);
    let root = machine.memory.region(id).expect("a region").root(Epoch(0)).expect("an epoch");
    for round in 0..2 {
        for page in 0..1000 {
            let content = root.tree.get(page).expect("a page");
            let bytes =
                content.load(&machine.memory).unwrap_or_else(|refusal| panic!("round {round}: {refusal}"));
            assert_eq!(bytes[100], 1 + (page % 250) as u8);
        }
    }
    assert!(machine.memory.used() <= 64);
}

#[test]
fn what_is_written_over_and_over_takes_its_room_once() {
    let disk = Simulated::new(None);
    let machine = Machine::start(&disk).expect("an empty disk");
    let id = machine.open("a").expect("a region");
    for number in 1..=500 {
        machine.commit(id, number, &[(number % 8, (number % 250) as u8 + 1)], None).expect("a commit");
        machine.memory.reaper.wait();
    }
    let (stored, slots) = machine.store.pages().usage();
    assert!(stored <= 8 + 2 && slots < 40, "{stored} stored in {slots} slots");
    assert!(machine.store.pages().copies() < 100, "{} copies", machine.store.pages().copies());
}

#[test]
fn commits_that_wait_for_a_transaction_share_the_next_one() {
    let disk = Simulated::new(None);
    let machine = Machine::start(&disk).expect("an empty disk");
    let ids: Vec<RegionId> = (0..9).map(|i| machine.open(&format!("r{i}")).expect("a region")).collect();
    let before = machine.store.queue().transaction;
    let held = machine.store.index.lock().expect("no panic");
    std::thread::scope(|scope| {
        for id in &ids {
            let machine = &machine;
            scope.spawn(move || machine.commit(*id, 1, &[(0, 1)], None).expect("a commit"));
        }
        let until = Instant::now() + Duration::from_secs(20);
        // One leads, and waits for the index; the others wait for it.
        while machine.store.queue().waiting.len() < ids.len() - 1 {
            assert!(Instant::now() < until, "nobody waits");
            std::thread::yield_now();
        }
        drop(held);
    });
    assert_eq!(machine.store.queue().transaction, before + 2);
}

#[test]
fn a_commit_that_was_applied_before_the_server_ended_is_answered_and_not_applied_again() {
    let disk = Simulated::new(None);
    let machine = Machine::start(&disk).expect("an empty disk");
    let id = machine.open("a").expect("a region");
    let first = machine.commit(id, 7, &[(0, 1)], None).expect("a commit");
    drop(machine);
    let machine = Machine::start(&disk.after_power_cut(None, dice(3))).expect("it opens");
    let region = machine.memory.region(id).expect("the region");
    assert_eq!(region.commit_status(ME.client, CommitId(7)), Ok(first));
    machine.commit(id, 8, &[(0, 2)], None).expect("another");
    assert_eq!(machine.commit(id, 7, &[(0, 1)], None), Ok(first));
    assert!(machine.dump().contains(" 0:2@"), "{}", machine.dump());
}

#[test]
fn a_region_without_a_name_outlives_the_server_for_those_who_come_back_and_ends_without_them() {
    let disk = Simulated::new(None);
    let machine = Machine::start(&disk).expect("an empty disk");
    let unnamed =
        |size| machine.catalog.create_unnamed(ME, &CreateUnnamed { size }).expect("a region").region;
    let (kept, left) = (unnamed(8192), unnamed(8192));
    machine.commit(kept, 1, &[(1, 5)], None).expect("a commit");
    let disk = disk.after_kill(None);
    let machine = Machine::start(&disk).expect("it opens");
    machine.catalog.open_id(ME, kept).expect("it is still there");
    machine.catalog.expire(Instant::now());
    assert!(machine.memory.region(left).is_err(), "nobody came for it");
    assert!(machine.memory.region(kept).is_ok());
    machine.catalog.close(ME, kept).expect("a hold");
    let machine = Machine::start(&disk.after_kill(None)).expect("it opens");
    assert!(machine.memory.region(kept).is_err());
    assert_eq!(machine.store.pages().usage().0, 0);
}
