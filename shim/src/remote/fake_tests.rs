//! The fake server against the rules of the real one.
//!
//! Owns: nothing. Called by: `cargo test`. Must not: use a network.

use netmem_protocol::RunKind;

use super::*;

fn filled(byte: u8) -> Page {
    [byte; PAGE_SIZE]
}

fn put(
    fake: &FakeSource,
    region: RegionId,
    base: Epoch,
    page: u64,
    bytes: Page,
) -> Result<Committed, CommitFailure> {
    let done = fake.commit(&mut |sink| {
        let mut builder = PageBodyBuilder::default();
        builder.push(page, RunKind::Data);
        sink.stage(region, &builder, &bytes)?;
        let (commit, staged_pages) = (CommitId(0), 0);
        Ok(vec![(region, Commit { commit, staged_pages, base, strict: false, cut: None, size: None })])
    });
    done.map(|done| done[0])
}

#[test]
fn two_hosts_that_change_different_bytes_of_a_page_both_survive() {
    let fake = FakeSource::new();
    let region = fake.create(8192);
    let mut theirs = filled(0);
    theirs[0] = 1;
    fake.commit_as_other(region, &[(1, theirs)], None);
    let mut mine = filled(0);
    mine[4095] = 2;
    let committed = put(&fake, region, Epoch(1), 1, mine).expect("merged");
    assert_eq!((committed.epoch, committed.previous), (Epoch(3), Epoch(2)));
    let page = fake.page(region, 1);
    assert_eq!((page[0], page[4095], page[2000]), (1, 2, 0));
}

#[test]
fn an_old_epoch_shows_what_it_was() {
    let fake = FakeSource::new();
    let region = fake.create(4096);
    fake.commit_as_other(region, &[(0, filled(7))], None);
    for (epoch, content) in [(1, None), (2, Some(filled(7)))] {
        let sink = &mut |span: PageSpan<'_>, _| assert_eq!(span.data, content.as_ref().map(|page| &page[..]));
        fake.fetch(region, Epoch(epoch), &[Run::new(0, 1)], sink).expect("fetch");
    }
    assert_eq!(fake.changes(region, Epoch(1), Epoch(0)).expect("changes").runs, [Run::new(0, 1)]);
    fake.drop_old_epochs(region);
    let gone = fake.fetch(region, Epoch(1), &[Run::new(0, 1)], &mut |_, _| {});
    assert_eq!(gone.expect_err("fetched").code(), Some(ErrorCode::Stale));
}

#[test]
fn every_call_can_be_made_to_fail_before_and_after() {
    for when in [When::Before, When::After] {
        let mut rounds = 0;
        for calls in 0.. {
            let fake = FakeSource::new();
            let region = fake.create(4096);
            fake.fail_after(calls, when);
            let outcome = put(&fake, region, Epoch(1), 0, filled(3));
            if !fake.failed() {
                assert!(outcome.is_ok());
                break;
            }
            let failure = outcome.expect_err("the failure went unnoticed");
            let happened = fake.commit_status(region, failure.id).is_ok();
            assert_eq!(happened, failure.applied == Applied::Maybe, "{when:?} {calls}");
            rounds += 1;
        }
        assert_eq!(rounds, 2, "a stage and a commit");
    }
}

#[test]
fn a_cut_leaves_zeros_behind_it_for_good() {
    let fake = FakeSource::new();
    let region = fake.create(8192);
    fake.commit_as_other(region, &[(0, filled(1)), (1, filled(2))], None);
    fake.resize_as_other(region, 100);
    fake.commit_as_other(region, &[], Some(8192));
    let page = fake.page(region, 0);
    assert_eq!((page[99], page[100], fake.page(region, 1)[0], fake.size(region)), (1, 0, 0, 8192));
}
