//! Snapshots and clones on a disk: what they share, what they keep, and what they give back.

use std::time::Instant;

use netmem_protocol::control::{CloneRegion, Lookup, MakeDir, Remove, Rename, SetAttr, Snapshot};
use netmem_protocol::{Epoch, ErrorCode};

use super::tests::{LIMITS, ME, Machine};
use crate::config::Limits;
use crate::refusal::Answer;
use crate::store::simulated::Simulated;

#[test]
fn snapshots_and_clones_share_pages_and_give_their_room_back() {
    let disk = Simulated::new(None);
    let machine = Machine::start(&disk).expect("an empty disk");
    let id = machine.open("a").expect("a region");
    let all = |fill| (0..200).map(|page| (page, fill)).collect::<Vec<_>>();
    machine.commit(id, 1, &all(1), None).expect("a commit");
    let stored = |machine: &Machine| {
        machine.memory.reaper.wait();
        machine.store.pages().usage().0
    };
    assert_eq!(stored(&machine), 200);
    let snapshot = |name: &str| Snapshot { name: "a".into(), snapshot: name.into() };
    machine.catalog.snapshot(&snapshot("s")).expect("a snapshot");
    let clone = CloneRegion { from: "a@s".into(), to: "b".into() };
    let cloned = machine.catalog.clone_region(ME, &clone).expect("a clone").region;
    assert_eq!(stored(&machine), 200, "neither takes room");
    machine.commit(cloned, 2, &[(3, 2)], None).expect("a commit");
    machine.commit(id, 3, &[(3, 3), (4, 3)], None).expect("a commit");
    machine.memory.region(id).expect("a region").views().forget(ME.cache);
    machine.memory.region(cloned).expect("a region").views().forget(ME.cache);
    assert_eq!(stored(&machine), 203, "what differs, and nothing else");
    let machine = Machine::start(&disk.after_kill(None)).expect("it opens");
    assert_eq!(stored(&machine), 203);
    let frozen = machine.open("a@s").expect("the snapshot");
    assert_eq!(
        machine.commit(frozen, 4, &[(0, 9)], None).map_err(|refusal| refusal.code),
        Err(ErrorCode::ReadOnly)
    );
    machine.catalog.close(ME, frozen).expect("a hold");
    machine.catalog.remove(&Remove { name: "a".into(), directory: false }).expect("a name");
    machine.catalog.expire(Instant::now());
    assert_eq!(stored(&machine), 200, "of what the clone began as what it sees is left, and is its own");
    assert_eq!(machine.memory.regions().len(), 1);
    machine.catalog.remove(&Remove { name: "b".into(), directory: false }).expect("a name");
    assert_eq!(stored(&machine), 0);
    assert_eq!(machine.memory.regions().len(), 0);
}

#[test]
fn an_epoch_that_is_kept_is_read_by_its_number_and_goes_with_the_last_hold() {
    let disk = Simulated::new(None);
    let machine = Machine::start(&disk).expect("an empty disk");
    let id = machine.open("a").expect("a region");
    machine.commit(id, 1, &[(0, 1)], None).expect("a commit");
    let now = machine.open("a@2").expect("the newest epoch");
    machine.commit(id, 2, &[(0, 2)], None).expect("a commit");
    let told = machine.catalog.history(&Lookup { name: "a".into() }).expect("its history");
    assert_eq!(
        told.log.iter().map(|logged| (logged.epoch.0, logged.kept)).collect::<Vec<_>>(),
        [(2, true), (3, true)]
    );
    assert!(told.snapshots.is_empty(), "nobody named it");
    let byte = |machine: &Machine, id| {
        let root = machine.memory.region(id).expect("a region").root(Epoch(0)).expect("an epoch");
        root.tree.get(0).expect("a page").load(&machine.memory).expect("its bytes")[9]
    };
    assert_eq!((byte(&machine, now), byte(&machine, id)), (1, 2));
    // Over a restart, for who comes back.
    let disk = disk.after_kill(None);
    let machine = Machine::start(&disk).expect("it opens");
    machine.catalog.reclaim(ME, &[(now, 1)]);
    machine.catalog.expire(Instant::now());
    assert_eq!(byte(&machine, now), 1);
    machine.catalog.close(ME, now).expect("a hold");
    assert!(machine.memory.region(now).is_err());
    for gone in ["a@1", "a@2", "a@4"] {
        assert!(machine.catalog.lookup(&Lookup { name: gone.into() }).is_err(), "{gone}");
    }
}

#[test]
fn names_of_snapshots_are_refused_where_they_can_not_be() {
    let machine = Machine::start(&Simulated::new(None)).expect("an empty disk");
    machine.open("a").expect("a region");
    let make = |snapshot: &str| {
        let asked = Snapshot { name: "a".into(), snapshot: snapshot.into() };
        machine.catalog.snapshot(&asked).map(drop).map_err(|refusal| refusal.code)
    };
    for name in ["", "17", "x/y", "x@y", ".", ".."] {
        assert_eq!(make(name), Err(ErrorCode::NameInvalid), "{name:?}");
    }
    assert_eq!(make("s"), Ok(()));
    assert_eq!(make("s"), Err(ErrorCode::Exists));
    let taken = "a@s".to_owned();
    let catalog = &machine.catalog;
    let code = |answer: Answer<()>| answer.map_err(|refusal| refusal.code);
    let read_only = Err(ErrorCode::ReadOnly);
    assert_eq!(code(catalog.remove(&Remove { name: taken.clone(), directory: false })), read_only);
    assert_eq!(code(catalog.make_dir(&MakeDir { name: taken.clone(), mode: 0o755 }).map(drop)), read_only);
    let rename = Rename { from: "a".into(), to: taken.clone(), exchange: false, no_replace: false };
    assert_eq!(code(catalog.rename(&rename)), read_only);
    let mode = SetAttr { name: taken, mode: Some(0o777), modified_ns: None };
    assert_eq!(code(catalog.set_attributes(&mode).map(drop)), read_only);
    // A region may have an @ in its name all the same.
    assert_eq!(code(catalog.make_dir(&MakeDir { name: "a@t".into(), mode: 0o755 }).map(drop)), Ok(()));
}

#[test]
fn the_last_epochs_stay_readable_over_a_restart_and_older_ones_give_their_room_back() {
    let disk = Simulated::new(None);
    let limits = Limits { keep_epochs: 3, ..LIMITS };
    let machine = Machine::with(&disk, limits).expect("an empty disk");
    let id = machine.open("a").expect("a region");
    for number in 1..=60 {
        machine.commit(id, number, &[(number % 4, number as u8)], None).expect("a commit");
    }
    let byte = |machine: &Machine, epoch: u64, page| {
        let root = machine.memory.region(id).expect("a region").root(Epoch(epoch)).ok()?;
        let content = root.tree.get(page).expect("a page").load(&machine.memory).expect("its bytes");
        Some(content[9])
    };
    let look = |machine: &Machine| {
        machine.memory.region(id).expect("a region").views().forget(ME.cache);
        machine.memory.reaper.wait();
        // Commit n made epoch n + 1.
        assert_eq!([61, 60, 59, 58].map(|epoch| byte(machine, epoch, 0)), [60, 56, 56, 56].map(Some));
        assert_eq!([61, 60, 59, 58].map(|epoch| byte(machine, epoch, 3)), [59, 59, 55, 55].map(Some));
        assert_eq!(byte(machine, 57, 0), None, "one too many");
        assert_eq!(
            machine.store.pages().usage().0,
            7,
            "four pages, and one more for each epoch that is kept"
        );
        let told = machine.catalog.history(&Lookup { name: "a".into() }).expect("its history");
        assert_eq!(told.log.iter().filter(|logged| logged.kept).count(), 4);
    };
    look(&machine);
    let machine = Machine::with(&disk.after_kill(None), limits).expect("it opens");
    look(&machine);
    let shown = machine.open("a@59").expect("an epoch");
    let entry = machine.catalog.lookup(&Lookup { name: "a@59".into() }).expect("it is shown");
    assert_eq!((entry.region, entry.epoch), (shown, Epoch(59)));
    // With fewer, at the next start.
    let disk = disk.after_kill(None);
    drop(machine);
    let machine = Machine::start(&disk).expect("it opens");
    assert_eq!((byte(&machine, 60, 0), machine.store.pages().usage().0), (None, 4));
}

#[test]
fn snapshots_and_epochs_that_are_opened_count_as_regions_do() {
    let limits = Limits { regions: 3, ..LIMITS };
    let machine = Machine::with(&Simulated::new(None), limits).expect("an empty disk");
    machine.open("a").expect("a region");
    let snapshot = |name: &str| {
        let asked = Snapshot { name: "a".into(), snapshot: name.into() };
        machine.catalog.snapshot(&asked).map(drop).map_err(|refusal| refusal.code)
    };
    assert_eq!(snapshot("s"), Ok(()));
    machine.open("a@1").expect("its epoch");
    let full = Err(ErrorCode::TooManyRegions);
    assert_eq!(snapshot("t"), full);
    let clone = CloneRegion { from: "a".into(), to: "b".into() };
    assert_eq!(machine.catalog.clone_region(ME, &clone).map(drop).map_err(|refusal| refusal.code), full);
    machine
        .catalog
        .remove_snapshot(&Snapshot { name: "a".into(), snapshot: "s".into() })
        .expect("a snapshot");
    assert_eq!(snapshot("t"), Ok(()));
}
