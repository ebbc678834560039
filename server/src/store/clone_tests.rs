//! Clones without a name on a disk: forks of forks, what stays of those that ended, and a power cut at every step.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::{Duration, Instant};

use netmem_protocol::control::{CreateUnnamed, Remove, Snapshot};
use netmem_protocol::{Epoch, ErrorCode, PAGE_SIZE, RegionId};

use super::tests::{LIMITS, ME, Machine, dice};
use crate::refusal::Answer;
use crate::store::simulated::{Fault, Simulated};

const PAGES: u64 = 240;

/// What is done to regions, which are numbered as they are made.
enum Step {
    New,
    Clone(u64),
    Commit(u64, Vec<(u64, u8)>, Option<u64>),
    Close(u64),
}

fn steps() -> Vec<Step> {
    use Step::{Clone, Close, Commit, New};
    vec![
        New,
        Commit(1, (0..130).map(|page| (page, 1)).collect(), None),
        Clone(1), // 2
        Commit(1, vec![(0, 2), (64, 0), (200, 2)], None),
        Commit(2, vec![(1, 3)], None),
        Clone(2), // 3
        Commit(2, vec![(0, 4), (129, 0)], None),
        // All that 2 sees of it goes to 2.
        Close(1),
        Commit(3, (0..64).map(|page| (page, 0)).collect(), None),
        Clone(3), // 4
        Commit(3, vec![(2, 5), (70, 5)], None),
        Clone(3), // 5
        Commit(3, vec![(2, 6)], Some(65)),
        // It stays for two.
        Close(3),
        Commit(4, vec![(0, 7), (65, 0)], None),
        // What 3 alone sees of it goes to 3, which has ended itself.
        Close(2),
        Commit(5, vec![(71, 8)], None),
        // And what 5 alone sees of 3 now goes to 5.
        Close(4),
        Commit(5, vec![(3, 9)], Some(100)),
        Clone(5), // 6
        Close(5),
        Commit(6, vec![(2, 10), (99, 10)], None),
        Close(6),
    ]
}

/// The pages that are not zeros of the regions that somebody holds.
#[derive(Clone, Default)]
struct Model {
    regions: BTreeMap<u64, BTreeMap<u64, u8>>,
    made: u64,
}

impl Model {
    fn play(&mut self, step: &Step) {
        match step {
            Step::New => {
                self.made += 1;
                self.regions.insert(self.made, BTreeMap::new());
            }
            Step::Clone(of) => {
                self.made += 1;
                self.regions.insert(self.made, self.regions[of].clone());
            }
            Step::Commit(id, pages, cut) => {
                let region = self.regions.get_mut(id).expect("a region");
                if let Some(cut) = cut {
                    region.retain(|page, _| page < cut);
                }
                region.extend(pages.iter().copied());
                region.retain(|_, fill| *fill != 0);
            }
            Step::Close(id) => drop(self.regions.remove(id)),
        }
    }

    fn dump(&self) -> String {
        let mut out = String::new();
        for (id, pages) in &self.regions {
            write!(out, "\n{id}:").expect("text");
            pages.iter().for_each(|(page, fill)| write!(out, " {page}:{fill}").expect("text"));
        }
        out
    }
}

/// What there is before each step, and after the last.
fn models(steps: &[Step]) -> Vec<Model> {
    let mut all = vec![Model::default()];
    for step in steps {
        let mut next = all[all.len() - 1].clone();
        next.play(step);
        all.push(next);
    }
    all
}

fn play(machine: &Machine, number: usize, step: &Step) -> Answer<()> {
    let catalog = &machine.catalog;
    match step {
        Step::New => catalog.create_unnamed(ME, &CreateUnnamed { size: PAGES * PAGE_SIZE as u64 }).map(drop),
        Step::Clone(of) => catalog.clone_unnamed(ME, RegionId(*of)).map(drop),
        Step::Commit(id, pages, cut) => {
            let cut = cut.map(|page| page * PAGE_SIZE as u64);
            machine.commit(RegionId(*id), 100 + number as u64, pages, cut).map(drop)
        }
        Step::Close(id) => catalog.close(ME, RegionId(*id)),
    }
}

fn dump(machine: &Machine) -> String {
    let mut ids: Vec<RegionId> = machine.memory.regions().keys().copied().collect();
    ids.sort_unstable();
    let mut out = String::new();
    for id in ids {
        // Not those that are there for their clones alone.
        let Ok(region) = machine.memory.region(id) else { continue };
        let root = region.root(Epoch(0)).expect("its newest epoch");
        write!(out, "\n{id}:").expect("text");
        for page in 0..root.pages() {
            if let Some(content) = root.tree.get(page) {
                let bytes = content.load(&machine.memory).expect("a page that is not damaged");
                assert_eq!(bytes[..8], page.to_le_bytes(), "region {id}: page {page} is another's");
                write!(out, " {page}:{}", bytes[9]).expect("text");
            }
        }
    }
    out
}

/// Starts on a disk, for a client that comes back for what it holds.
fn come_back(disk: &Simulated, holds: &Model) -> Machine {
    let machine = Machine::start(disk).unwrap_or_else(|error| panic!("the store does not open: {error}"));
    let held: Vec<(RegionId, u32)> = holds.regions.keys().map(|id| (RegionId(*id), 1)).collect();
    machine.catalog.reclaim(ME, &held);
    machine.catalog.expire(Instant::now());
    machine
}

fn stored(machine: &Machine) -> u64 {
    machine.memory.reaper.wait();
    machine.store.pages().usage().0
}

#[test]
fn after_a_power_cut_at_any_write_or_sync_forks_of_forks_are_there_whole_and_at_most_one_change_more() {
    let steps = steps();
    let models = models(&steps);
    for at in 0.. {
        let disk = Simulated::new(Some((at, Fault::PowerCut)));
        let failed = Machine::start(&disk).ok().map(|machine| {
            let mut numbered = steps.iter().enumerate();
            numbered.find(|(number, step)| play(&machine, *number, step).is_err()).map(|(number, _)| number)
        });
        let done = failed.map_or(0, |failed| failed.unwrap_or(steps.len()));
        let next = (done + 1).min(steps.len());
        for seed in 0..3 {
            let after = disk.after_power_cut(None, dice(seed));
            let machine = come_back(&after, &models[next]);
            let found = dump(&machine);
            let from = (done..=next).find(|state| models[*state].dump() == found);
            let from = from.unwrap_or_else(|| {
                panic!("cut at {at}, seed {seed}, {done} done: {found}\nand not{}", models[done].dump())
            });
            // A second start finds what the first one did, with what the first one tidied up.
            let machine = come_back(&after.after_kill(None), &models[from]);
            assert_eq!(dump(&machine), found, "cut at {at}, seed {seed}: the second start");
            if seed < 2 {
                continue;
            }
            for (number, step) in steps.iter().enumerate().skip(from) {
                play(&machine, number, step).expect("a step on the disk that was found");
                assert_eq!(dump(&machine), models[number + 1].dump(), "cut at {at}, step {number}");
            }
            assert_eq!(
                (stored(&machine), machine.memory.regions().len()),
                (0, 0),
                "cut at {at}, seed {seed}"
            );
        }
        if done == steps.len() && disk.operations() <= at {
            println!("{at} crash points");
            return;
        }
    }
}

#[test]
fn a_disk_that_is_full_at_any_write_makes_forks_wait_and_loses_none() {
    let steps = steps();
    let models = models(&steps);
    for at in 0.. {
        let disk = Simulated::new(Some((at, Fault::Full)));
        let Ok(machine) = Machine::start(&disk) else { continue };
        for (number, step) in steps.iter().enumerate() {
            if play(&machine, number, step).is_err() {
                assert_eq!(dump(&machine), models[number].dump(), "at {at}: a refused step changes nothing");
                play(&machine, number, step).expect("the second time");
            }
            // What could not end is tried again.
            machine.catalog.expire(Instant::now());
            assert_eq!(dump(&machine), models[number + 1].dump(), "at {at}, step {number}");
        }
        assert_eq!((stored(&machine), machine.memory.regions().len()), (0, 0), "at {at}");
        if disk.operations() <= at {
            return;
        }
    }
}

#[test]
fn a_line_of_forks_whose_middle_ones_are_gone_takes_the_room_of_one() {
    let disk = Simulated::new(None);
    let mut machine = Machine::start(&disk).expect("an empty disk");
    let size = PAGES * PAGE_SIZE as u64;
    let mut last = machine.catalog.create_unnamed(ME, &CreateUnnamed { size }).expect("a region").region;
    for generation in 1..=40u8 {
        let pages: Vec<_> = (0..PAGES).filter(|page| page % 3 != 1).map(|page| (page, generation)).collect();
        let first: Vec<_> = (0..PAGES).map(|page| (page, generation)).collect();
        let all = if generation == 1 { &first } else { &pages };
        machine.commit(last, u64::from(generation), all, None).expect("a commit");
        let clone = machine.catalog.clone_unnamed(ME, last).expect("a clone").region;
        machine.commit(last, 100 + u64::from(generation), &[(0, 200)], None).expect("a commit of the parent");
        machine.catalog.close(ME, last).expect("the parent's hold");
        last = clone;
        assert_eq!(machine.memory.regions().len(), 1, "generation {generation}");
        assert_eq!(stored(&machine), PAGES, "generation {generation}");
        if generation % 8 == 0 {
            machine = Machine::start(&disk.after_kill(None)).expect("it opens");
            machine.catalog.reclaim(ME, &[(last, 1)]);
            machine.catalog.expire(Instant::now());
            assert_eq!((stored(&machine), machine.memory.regions().len()), (PAGES, 1));
            // The disk is another one from here on.
            machine.catalog.close(ME, last).expect("its hold");
            assert_eq!((stored(&machine), machine.memory.regions().len()), (0, 0));
            machine = Machine::start(&disk).expect("the first disk opens");
            machine.catalog.reclaim(ME, &[(last, 1)]);
            machine.catalog.expire(Instant::now());
        }
    }
    let found = dump(&machine);
    assert!(found.contains(" 0:40 1:1 2:40") && found.contains(" 238:1 239:40"), "{found}");
}

#[test]
fn what_ended_and_stays_for_its_clones_is_not_there_for_anybody_else() {
    let disk = Simulated::new(None);
    let machine = Machine::start(&disk).expect("an empty disk");
    let catalog = &machine.catalog;
    let region = catalog.create_unnamed(ME, &CreateUnnamed { size: 8192 }).expect("a region").region;
    machine.commit(region, 1, &[(0, 1), (1, 1)], None).expect("a commit");
    let clones = [(); 3].map(|()| catalog.clone_unnamed(ME, region).expect("a clone").region);
    machine.commit(region, 2, &[(0, 2), (1, 2)], None).expect("a commit");
    catalog.close(ME, region).expect("its hold");
    let not_there = |machine: &Machine| {
        let code = |answer: Answer<()>| answer.map_err(|refusal| refusal.code);
        let gone = Err(ErrorCode::NotFound);
        assert_eq!(code(machine.catalog.open_id(ME, region).map(drop)), gone);
        assert_eq!(code(machine.catalog.clone_unnamed(ME, region).map(drop)), gone);
        assert_eq!(code(machine.commit(region, 3, &[(0, 9)], None).map(drop)), gone);
        assert_eq!(stored(machine), 2, "what the clones began with, and no more");
    };
    not_there(&machine);
    let disk = disk.after_kill(None);
    let machine = Machine::start(&disk).expect("it opens");
    machine.catalog.reclaim(ME, &clones.map(|id| (id, 1)));
    not_there(&machine);
    machine.catalog.expire(Instant::now());
    not_there(&machine);
    assert_eq!(machine.memory.regions().len(), 4);
    machine.catalog.close(ME, clones[0]).expect("its hold");
    assert_eq!(machine.memory.regions().len(), 3, "for two it stays");
    machine.catalog.close(ME, clones[2]).expect("its hold");
    assert_eq!(machine.memory.regions().len(), 1, "the one that is left has it all");
    assert_eq!(dump(&machine), format!("\n{}: 0:1 1:1", clones[1]));
}

#[test]
fn a_clone_outlives_the_server_for_who_comes_back_within_the_lease() {
    let disk = Simulated::new(None);
    let machine = Machine::start(&disk).expect("an empty disk");
    let region = machine.catalog.create_unnamed(ME, &CreateUnnamed { size: 8192 }).expect("a region").region;
    machine.commit(region, 1, &[(0, 1), (1, 1)], None).expect("a commit");
    let clone = machine.catalog.clone_unnamed(ME, region).expect("a clone").region;
    machine.commit(clone, 2, &[(1, 2)], None).expect("a commit");
    // Two hold the region; the first one to come back gives it up before the second one comes.
    let lease = Duration::from_secs(3600);
    let machine = Machine::leased(&disk.after_kill(None), LIMITS, lease).expect("it opens");
    machine.catalog.reclaim(ME, &[(region, 1)]);
    machine.catalog.close(ME, region).expect("its hold");
    machine.catalog.expire(Instant::now());
    machine.catalog.open_id(ME, region).expect("the second one");
    machine.catalog.open_id(ME, clone).expect("the child, by its number");
    assert_eq!(dump(&machine), format!("\n{region}: 0:1 1:1\n{clone}: 0:1 1:2"));
    // With nobody who comes back both end.
    let machine = come_back(&disk.after_kill(None), &Model::default());
    assert_eq!((stored(&machine), machine.memory.regions().len()), (0, 0));
}

#[test]
fn a_commit_that_is_under_way_delays_the_end_of_a_region_and_of_its_line() {
    let disk = Simulated::new(None);
    let machine = Machine::start(&disk).expect("an empty disk");
    let region = machine.catalog.create_unnamed(ME, &CreateUnnamed { size: 8192 }).expect("a region").region;
    machine.commit(region, 1, &[(0, 1), (1, 1)], None).expect("a commit");
    let clone = machine.catalog.clone_unnamed(ME, region).expect("a clone").region;
    machine.commit(region, 2, &[(0, 2)], None).expect("a commit");
    for id in [region, clone] {
        let busy = machine.memory.regions().get(&id).cloned().expect("it stays");
        let turn = busy.turn();
        if id == region {
            machine.catalog.close(ME, region).expect("its hold");
        }
        machine.catalog.expire(Instant::now());
        assert_eq!(machine.memory.regions().len(), 2, "{id}");
        assert!(machine.memory.region(region).is_err(), "and nobody comes to it any more");
        drop(turn);
    }
    machine.catalog.expire(Instant::now());
    assert_eq!((stored(&machine), dump(&machine)), (2, format!("\n{clone}: 0:1 1:1")));
    assert_eq!(machine.memory.regions().len(), 1);
}

#[test]
fn what_shows_a_snapshot_can_be_cloned_until_the_snapshot_is_removed() {
    let disk = Simulated::new(None);
    let machine = Machine::start(&disk).expect("an empty disk");
    let catalog = &machine.catalog;
    let region = machine.open("a").expect("a region");
    machine.commit(region, 1, &[(0, 1)], None).expect("a commit");
    let asked = Snapshot { name: "a".into(), snapshot: "s".into() };
    catalog.snapshot(&asked).expect("a snapshot");
    machine.commit(region, 2, &[(0, 2)], None).expect("a commit");
    let shown = machine.open("a@s").expect("the snapshot");
    let clone = catalog.clone_unnamed(ME, shown).expect("a clone").region;
    machine.commit(clone, 3, &[(1, 3)], None).expect("a clone takes commits");
    catalog.remove_snapshot(&asked).expect("a snapshot");
    assert_eq!(catalog.clone_unnamed(ME, shown).expect_err("removed").code, ErrorCode::NotFound);
    catalog.close(ME, shown).expect("its hold");
    catalog.remove(&Remove { name: "a".into(), directory: false }).expect("its name");
    catalog.close(ME, region).expect("its hold");
    let machine = Machine::start(&disk.after_kill(None)).expect("it opens");
    machine.catalog.reclaim(ME, &[(clone, 1)]);
    machine.catalog.expire(Instant::now());
    assert_eq!((stored(&machine), dump(&machine)), (2, format!("\n{clone}: 0:1 1:3")));
}

/// Writes pages and drops them again, as a process does that has its memory here: it never says which epoch it looks at.
#[test]
fn a_stream_of_commits_by_one_client_leaves_nothing_behind() {
    let count = if std::env::var_os("NETMEM_TEST_LONG").is_some() { 100_000 } else { 2_000 };
    let disk = Simulated::new(None);
    let machine = Machine::start(&disk).expect("an empty disk");
    let region =
        machine.catalog.create_unnamed(ME, &CreateUnnamed { size: 1 << 20 }).expect("a region").region;
    let began = Instant::now();
    let mut room = 0;
    for number in 1..=count {
        let page = number * 7 % 256;
        let pages = [(page, (number % 250) as u8 + 1), ((page + 128) % 256, 0)];
        machine.commit(region, number, &pages, None).expect("a commit");
        if number % 1000 == 0 {
            let kept = machine.memory.region(region).expect("the region").views().kept();
            assert_eq!(kept, [number, number + 1], "the newest epoch, and the one before it");
            assert!(stored(&machine) <= 128 + 2, "{} pages", stored(&machine));
            let index = machine.store.index.lock().expect("no panic");
            let index = index.as_ref().expect("it is open");
            assert_eq!(index.leaves(region).expect("its leaves").len(), 4, "a row for each 64 pages");
            let names = index.names().expect("its rows");
            let commits: usize = names.applied.iter().map(|(_, _, ended)| ended.len()).sum();
            assert_eq!((names.log.len(), names.applied.len(), commits, names.made.len()), (256, 1, 8, 1));
            let length = disk.length("index");
            assert!(room == 0 || length <= 2 * room, "an index of {length} bytes, of {room} at first");
            room = if room == 0 { length } else { room };
        }
    }
    println!("{} us a commit", began.elapsed().as_micros() / u128::from(count));
}
