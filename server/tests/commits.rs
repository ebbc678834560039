//! Commits and fetches, seen from outside.

mod common;

use common::{Client, Process, code, commit_body, page, server, unique, until};
use netmem_protocol::control::{CommitStatus, Committed, Create, Resize};
use netmem_protocol::{CommitId, Epoch, ErrorCode, Kind, PAGE_SIZE, RegionId, Run};

#[test]
fn a_page_that_was_committed_is_fetched_and_listed_as_changed() {
    let process = Process::start(&[]);
    let mut client = Client::connect(process.address());
    let entry = client.open("a");
    assert!(entry.created);
    assert_eq!((entry.epoch.0, entry.size, entry.mode), (1, 0, 0o644));
    let committed =
        client.commit(entry.region, 1, &[(0, Some(page(7))), (3, Some(page(9)))]).expect("a commit");
    assert_eq!(committed, Committed { epoch: Epoch(2), previous: Epoch(1), size: 4 * PAGE_SIZE as u64 });
    let fetched = client.fetch(entry.region, 0, &[Run::new(0, 5)]).expect("pages");
    assert_eq!(fetched.epoch, 2);
    assert_eq!(fetched.fills(), [7, 0, 0, 9, 0]);
    let changes = client.changes(entry.region, 1).expect("changes");
    assert_eq!(changes.runs, [Run::new(0, 1), Run::new(3, 1)]);
    assert!(changes.base_kept);
}
