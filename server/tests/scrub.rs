//! What one part of a scrub looks at.

mod common;

use common::{Client, page, server};
use netmem_protocol::control::{ScrubAfter, Scrubbed};
use netmem_protocol::{Kind, RegionId};

#[test]
fn a_scrub_whose_region_has_ended_goes_on_with_the_whole_of_the_next() {
    let place = tempfile::TempDir::new().expect("a directory");
    let store = place.path().join("store").display().to_string();
    let (_server, address) = server(&["--store", &store]);
    let mut client = Client::connect(address);
    let region = client.open("a").region;
    let pages: Vec<_> = (0..70).map(|at| (at, Some(page(1 + at as u8)))).collect();
    client.commit(region, 1, &pages).expect("a commit");
    let mut scrub = |region, page| {
        let after = ScrubAfter { region: RegionId(region), page };
        let done: Scrubbed = client.call(Kind::Scrub, RegionId(0), &after).expect("a scrub");
        assert_eq!((done.damaged.len(), done.next), (0, None));
        done.pages
    };
    assert_eq!(scrub(0, 0), 70);
    assert_eq!(scrub(region.0, 64), 6);
    // It was far into a region with a lower number.
    assert_eq!(scrub(region.0 - 1, 1 << 20), 70);
    assert_eq!(scrub(region.0 + 1, 0), 0);
}
