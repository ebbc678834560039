//! The client against servers that lie, hang, die and come back: what the tests share.

mod commits;
mod fetches;
mod fuzz;
mod greeting;
mod lies;
mod nonsense;
mod recovery;
mod replay;

use std::time::Duration;

use netmem_protocol::control::Commit;
use netmem_protocol::{
    CacheId, ClientId, CommitId, Epoch, PageBodyBuilder, ProtocolError, RegionId, Run, RunKind, page_sum,
};

use crate::config::{Compress, ServerAddress};
use crate::remote::lying::{Liar, Peer, Script, content};
use crate::remote::{PageSource, Remote, RemoteConfig, RemoteError};

const REGION: RegionId = RegionId(7);
const EPOCH: Epoch = Epoch(3);

fn remote_for(address: &ServerAddress, timeout: Option<Duration>) -> Remote {
    let config = RemoteConfig { address: address.clone(), timeout, compress: Compress::On };
    Remote::new(config, ClientId([1; 16]), CacheId([2; 16]))
}

fn remote(liar: &Liar) -> Remote {
    remote_for(&liar.address, Some(Duration::from_secs(10)))
}

fn script(script: impl FnOnce(&mut Peer) + Send + 'static) -> Script {
    Box::new(script)
}

fn one(only: impl FnOnce(&mut Peer) + Send + 'static) -> Liar {
    Liar::serve(vec![script(only)])
}

fn fetch(remote: &Remote, runs: &[Run]) -> Result<Vec<u64>, RemoteError> {
    let mut seen = Vec::new();
    let outcome = remote.fetch(REGION, EPOCH, runs, &mut |span, _| {
        for (page, data) in span.pages() {
            assert_eq!(data.copied(), content(page), "content of page {page}");
            seen.push(page);
        }
    });
    outcome.map(|()| seen)
}

fn protocol_error(outcome: Result<impl core::fmt::Debug, RemoteError>) -> ProtocolError {
    match outcome {
        Err(RemoteError::Protocol { error, .. }) => error,
        other => panic!("not a protocol error: {other:?}"),
    }
}

fn empty_commit() -> Commit {
    Commit { commit: CommitId(0), staged_pages: 0, base: EPOCH, strict: false, cut: None, size: None }
}

fn stage_of(pages: impl Iterator<Item = u64>) -> (PageBodyBuilder, Vec<u8>) {
    let mut builder = PageBodyBuilder::default();
    let mut data = Vec::new();
    for page in pages {
        match content(page) {
            Some(bytes) => {
                builder.push_data(page, page_sum(&bytes));
                data.extend_from_slice(&bytes);
            }
            None => builder.push(page, RunKind::Zero),
        }
    }
    (builder, data)
}
