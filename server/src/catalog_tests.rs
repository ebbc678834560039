//! Holds, leases, and the end of regions.

use netmem_protocol::TARGET_BYTES_MAX;
use netmem_protocol::control::{Link, Lookup, MakeDir, MakeSymlink, Remove, Rename, SetAttr};

use super::*;
use crate::config::LEASE;
use crate::reaper::Reaper;

fn catalog() -> Catalog {
    let memory = Arc::new(Memory::new(1 << 20, Reaper::start()));
    let limits = Limits {
        memory_bytes: 1 << 20,
        frame_body: 1 << 20,
        region_bytes: 1 << 30,
        regions: 5,
        connections: 5,
        keep_epochs: 0,
    };
    let store = crate::store::memory::Memory::new(netmem_protocol::StoreId([7; 16]));
    Catalog::new(memory, Arc::new(store), limits, LEASE)
}

fn who(number: u8) -> Who {
    Who { client: ClientId([number; 16]), cache: CacheId([number; 16]) }
}

fn open(name: &str) -> Open {
    Open { name: name.into(), create: Create::IfMissing, mode: 0o644 }
}

fn remove(name: &str) -> Remove {
    Remove { name: name.into(), directory: false }
}

fn is_there(catalog: &Catalog, id: RegionId) -> bool {
    catalog.memory.region(id).is_ok()
}

#[test]
fn what_a_client_says_it_held_it_holds_again_however_often_it_says_so() {
    let catalog = catalog();
    let id = catalog.open(who(1), &open("a")).expect("a region").region;
    let held = |client: u8, count| catalog.reclaim(who(client), &[(id, count), (RegionId(99), 1)]);
    held(2, 2);
    held(2, 2);
    held(1, 1);
    catalog.remove(&remove("a")).expect("its name");
    catalog.close(who(1), id).expect("a hold");
    assert!(catalog.close(who(1), id).is_err(), "one hold, not two");
    catalog.close(who(2), id).expect("a hold");
    assert!(is_there(&catalog, id));
    catalog.close(who(2), id).expect("another");
    assert!(!is_there(&catalog, id));
}

#[test]
fn a_removed_region_lives_until_its_last_hold_goes() {
    let catalog = catalog();
    catalog.enter(who(1), String::new());
    catalog.enter(who(2), String::new());
    let id = catalog.open(who(1), &open("a")).expect("a region").region;
    catalog.open(who(1), &open("a")).expect("a second hold");
    catalog.remove(&remove("a")).expect("removed");
    assert!(catalog.open_id(who(2), id).is_ok(), "by number it can still be opened");
    catalog.close(who(1), id).expect("held twice");
    catalog.close(who(2), id).expect("held");
    assert!(is_there(&catalog, id));
    catalog.close(who(1), id).expect("held once more");
    assert!(!is_there(&catalog, id));
    assert_eq!(catalog.close(who(1), id).expect_err("closed").code, ErrorCode::NotFound);
    assert_eq!(catalog.open_id(who(1), id).expect_err("gone").code, ErrorCode::NotFound);
}

#[test]
fn a_replaced_region_ends_unless_held() {
    let catalog = catalog();
    catalog.enter(who(1), String::new());
    let [a, b] = ["a", "b"].map(|name| catalog.open(who(1), &open(name)).expect("a region").region);
    catalog.close(who(1), b).expect("held");
    let rename = Rename { from: "a".into(), to: "b".into(), no_replace: false, exchange: false };
    catalog.rename(&rename).expect("renamed");
    assert!(is_there(&catalog, a) && !is_there(&catalog, b));
    assert_eq!(catalog.lookup(&Lookup { name: "b".into() }).map(|entry| entry.region), Ok(a));
}

#[test]
fn a_region_lives_while_a_name_or_a_hold_is_left() {
    let catalog = catalog();
    catalog.enter(who(1), String::new());
    let id = catalog.open(who(1), &open("a")).expect("a region").region;
    let linked = catalog.link(&Link { from: "a".into(), to: "b".into() }).expect("a second name");
    assert_eq!((linked.region, linked.links, linked.created), (id, 2, true));
    assert_eq!(catalog.open(who(1), &open("b")).map(|entry| (entry.region, entry.links)), Ok((id, 2)));
    catalog.remove(&remove("a")).expect("removed");
    for _ in 0..2 {
        catalog.close(who(1), id).expect("held");
    }
    assert!(is_there(&catalog, id), "it has a name");
    assert_eq!(catalog.names(id).map(|names| names.names), Ok(vec!["b".to_owned()]));
    assert_eq!(catalog.open(who(1), &open("b")).map(|entry| entry.links), Ok(1));
    catalog.remove(&remove("b")).expect("removed");
    assert_eq!(catalog.open_id(who(1), id).map(|entry| entry.links), Ok(0));
    for _ in 0..2 {
        assert!(is_there(&catalog, id));
        catalog.close(who(1), id).expect("held");
    }
    assert!(!is_there(&catalog, id));
}

#[test]
fn a_link_says_what_it_was_told_and_listings_stay_within_a_frame() {
    let catalog = catalog();
    let make = |name: &str, target: Vec<u8>| catalog.make_symlink(&MakeSymlink { name: name.into(), target });
    for target in [Vec::new(), b"a\0b".to_vec(), vec![b'x'; TARGET_BYTES_MAX + 1]] {
        assert_eq!(make("l", target).expect_err("no target").code, ErrorCode::Invalid);
    }
    let target = vec![0xff; TARGET_BYTES_MAX];
    assert_eq!(
        make("l", target.clone()).map(|entry| (entry.kind, entry.target)),
        Ok((EntryKind::Symlink, target))
    );
    assert_eq!(make("l", b"x".to_vec()).expect_err("there").code, ErrorCode::Exists);
    assert_eq!(catalog.open(who(1), &open("l")).expect_err("a link").code, ErrorCode::Link);
    assert_eq!(catalog.open(who(1), &open("l/x")).expect_err("behind it").code, ErrorCode::Link);
    let set = |mode, modified_ns| catalog.set_attributes(&SetAttr { name: "l".into(), mode, modified_ns });
    assert_eq!(set(None, Some(7)).map(|entry| entry.modified_ns), Ok(7));
    assert_eq!(set(Some(0o600), None).expect_err("a link").code, ErrorCode::Link);
    for name in ["m", "n", "o", "p"] {
        make(name, b"x".to_vec()).expect("a link");
    }
    assert_eq!(make("q", b"x".to_vec()).expect_err("one too many").code, ErrorCode::TooManyRegions);
}

#[test]
fn holds_end_with_the_lease_and_not_before() {
    let catalog = catalog();
    catalog.enter(who(1), String::new());
    catalog.enter(who(1), String::new());
    let id = catalog.create_unnamed(who(1), &CreateUnnamed { size: 4096 }).expect("a region").region;
    let now = Instant::now();
    catalog.leave(who(1), now);
    catalog.expire(now + 10 * LEASE);
    assert!(is_there(&catalog, id), "one connection is left");
    catalog.leave(who(1), now);
    catalog.expire(now + LEASE - Duration::from_millis(1));
    assert!(is_there(&catalog, id));
    catalog.enter(who(1), String::new());
    catalog.expire(now + 2 * LEASE);
    assert!(is_there(&catalog, id), "it came back in time");
    catalog.leave(who(1), now);
    catalog.expire(now + LEASE);
    assert!(!is_there(&catalog, id));
    assert!(catalog.state().clients.is_empty() && catalog.state().caches.is_empty());
}

#[test]
fn what_is_inherited_outlives_the_parents_hold() {
    let catalog = catalog();
    let (parent, child) = (who(1), Who { client: who(2).client, ..who(1) });
    catalog.enter(parent, String::new());
    catalog.enter(child, String::new());
    let id = catalog.create_unnamed(parent, &CreateUnnamed { size: 4096 }).expect("a region").region;
    let other = catalog.create_unnamed(parent, &CreateUnnamed { size: 4096 }).expect("a region").region;
    catalog.inherit(child, parent.client, &[id, RegionId(u64::MAX)]);
    catalog.close(parent, id).expect("its own hold");
    assert!(is_there(&catalog, id));
    catalog.close(parent, other).expect("its own hold");
    assert!(!is_there(&catalog, other));
    catalog.inherit(child, who(7).client, &[id]);
    catalog.close(child, id).expect("its own hold");
    assert!(!is_there(&catalog, id));
}

#[test]
fn views_end_with_the_lease_of_their_cache() {
    let catalog = catalog();
    catalog.enter(who(1), String::new());
    let id = catalog.open(who(1), &open("a")).expect("a region").region;
    let region = catalog.memory.region(id).expect("there");
    assert_eq!(region.views().kept(), [1]);
    let now = Instant::now();
    catalog.leave(who(1), now);
    catalog.expire(now + LEASE / 2);
    assert_eq!(region.views().kept(), [1]);
    catalog.expire(now + LEASE);
    assert_eq!(region.views().kept(), []);
    assert!(is_there(&catalog, id), "it has a name");
}

#[test]
fn directories_count_like_regions() {
    let catalog = catalog();
    catalog.enter(who(1), String::new());
    for name in ["d", "e"] {
        catalog.make_dir(&MakeDir { name: name.into(), mode: 0o755 }).expect("a directory");
    }
    for name in ["a", "b"] {
        catalog.open(who(1), &open(name)).expect("a region");
    }
    catalog.create_unnamed(who(1), &CreateUnnamed { size: 0 }).expect("a region");
    let over = catalog.open(who(1), &open("c")).expect_err("one too many");
    assert_eq!(over.code, ErrorCode::TooManyRegions);
    let over = catalog.make_dir(&MakeDir { name: "f".into(), mode: 0o755 }).expect_err("one too many");
    assert_eq!(over.code, ErrorCode::TooManyRegions);
    assert!(catalog.open(who(1), &open("a")).is_ok(), "what is there can be opened");
}

#[test]
fn a_clone_without_a_name_goes_its_own_way_and_outlives_what_it_began_as() {
    let catalog = catalog();
    catalog.enter(who(1), String::new());
    let first = catalog.create_unnamed(who(1), &CreateUnnamed { size: 5000 }).expect("a region");
    let clone = catalog.clone_unnamed(who(1), first.region).expect("a clone");
    assert_ne!(clone.region, first.region);
    assert_eq!((clone.size, clone.epoch, clone.links, clone.created), (5000, first.epoch, 0, true));
    assert_eq!(catalog.names(clone.region).map(|names| names.names), Ok(Vec::new()));
    catalog.close(who(1), first.region).expect("its one hold");
    assert!(!is_there(&catalog, first.region) && is_there(&catalog, clone.region));
    assert_eq!(catalog.memory.regions().len(), 1, "nothing stays of what it began as");
    let gone = catalog.clone_unnamed(who(1), first.region).expect_err("it has ended");
    assert_eq!(gone.code, ErrorCode::NotFound);
    let named = catalog.open(who(1), &open("a")).expect("a region");
    let of_named = catalog.clone_unnamed(who(1), named.region).expect("a clone of one with a name");
    assert_eq!((of_named.mode, of_named.links), (UNNAMED_MODE, 0));
    catalog.close(who(1), of_named.region).expect("its one hold");
    assert!(!is_there(&catalog, of_named.region) && is_there(&catalog, named.region));
    for _ in 0..3 {
        catalog.clone_unnamed(who(1), clone.region).expect("a clone of a clone");
    }
    let over = catalog.clone_unnamed(who(1), clone.region).expect_err("one too many");
    assert_eq!(over.code, ErrorCode::TooManyRegions);
}

#[test]
fn a_clone_that_is_made_before_a_fork_waits_for_the_child_as_long_as_a_lease() {
    for (opens_after, lives) in [(LEASE - Duration::from_millis(1), true), (LEASE, false)] {
        let catalog = catalog();
        let (parent, child) = (who(1), Who { client: who(2).client, ..who(1) });
        catalog.enter(parent, String::new());
        let memory = catalog.create_unnamed(parent, &CreateUnnamed { size: 8192 }).expect("a region").region;
        let clone = catalog.clone_unnamed(parent, memory).expect("a clone").region;
        // The parent is killed before it gave its hold on the clone up, and before the child came.
        let now = Instant::now();
        catalog.leave(parent, now);
        catalog.expire(now + opens_after);
        assert_eq!(is_there(&catalog, clone), lives);
        catalog.enter(child, String::new());
        assert_eq!(catalog.open_id(child, clone).is_ok(), lives);
        catalog.expire(now + 10 * LEASE);
        assert!(!is_there(&catalog, memory));
        assert_eq!(is_there(&catalog, clone), lives, "what the child holds is the child's");
        if lives {
            catalog.close(child, clone).expect("its one hold");
            assert!(!is_there(&catalog, clone));
        }
    }
}

#[test]
fn a_child_that_has_its_clone_keeps_it_when_the_parent_gives_its_hold_up() {
    let catalog = catalog();
    let (parent, child) = (who(1), Who { client: who(2).client, ..who(1) });
    catalog.enter(parent, String::new());
    catalog.enter(child, String::new());
    let memory = catalog.create_unnamed(parent, &CreateUnnamed { size: 8192 }).expect("a region").region;
    for by_number in [true, false] {
        let clone = catalog.clone_unnamed(parent, memory).expect("a clone").region;
        if by_number {
            catalog.open_id(child, clone).expect("the clone");
        } else {
            catalog.inherit(child, parent.client, &[clone]);
        }
        catalog.close(parent, clone).expect("its hold");
        assert!(is_there(&catalog, clone));
        // A child of the child's, in the same way.
        let next = catalog.clone_unnamed(child, clone).expect("a clone of it").region;
        catalog.close(child, clone).expect("its hold");
        assert!(!is_there(&catalog, clone) && is_there(&catalog, next));
        catalog.close(child, next).expect("its hold");
    }
    assert_eq!(catalog.memory.regions().len(), 1);
}

#[test]
fn what_is_pending_outlives_the_silence_of_its_cache_and_not_its_last_close() {
    let catalog = catalog();
    let who = who(1);
    let of = catalog.open(who, &open("region")).expect("a region").region;
    catalog.enter(who, String::new());
    let place = catalog.keep_pending(who, of, RegionId(0)).expect("a place").region;
    let now = Instant::now();
    catalog.leave(who, now);
    catalog.expire(now + 2 * LEASE);
    catalog.expire(now + 100 * LEASE);
    // It is silent no more, and holds nothing: what it has is its own still.
    assert_eq!(catalog.keep_pending(who, of, RegionId(0)).map(|entry| entry.region).ok(), Some(place));
    catalog.expire(now + 123 * LEASE);
    assert_eq!(
        catalog.keep_pending(who, of, RegionId(0)).map_err(|refusal| refusal.code).err(),
        Some(ErrorCode::NotFound)
    );
    let again = catalog.open(who, &open("region")).expect("a region").region;
    let place = catalog.keep_pending(who, again, RegionId(0)).expect("a place").region;
    catalog.close(who, again).expect("its hold");
    assert!(catalog.open_id(who, place).is_err());
}
