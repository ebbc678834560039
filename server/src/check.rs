//! `netmem-server check DIR`: whether a store that no server uses is as it was written.
//!
//! Owns: what is said of it. Called by: main. Must not: change anything but what a crash left half-way, which the next start would mend too.

use std::path::Path;
use std::sync::Arc;

use netmem_protocol::RegionId;
use netmem_protocol::control::ScrubAfter;

use crate::catalog::Catalog;
use crate::config::Limits;
use crate::memory::Memory;
use crate::reaper::Reaper;
use crate::scrub::scrub;
use crate::store::Store;
use crate::store::disk::{Directory, Disk};
use crate::store::durable::Durable;
use crate::store::index::Index;

/// What a check found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Regions.
    pub regions: usize,
    /// Pages that were read.
    pub pages: u64,
    /// What is wrong, a line each.
    pub wrong: Vec<String>,
}

/// Checks the store in a directory. The error is a line for the user: it can't be looked at.
pub fn check(path: &Path) -> Result<Found, String> {
    let disk = Directory::open(path, false)?;
    let shown = path.display();
    if !Index::is_there(&disk) {
        return Err(format!("{shown} holds no store: there is no file \"index\" in it"));
    }
    check_disk(Box::new(disk)).or_else(|wrong| Ok(Found { wrong: vec![wrong], ..Found::default() }))
}

/// Checks what is on a disk. The error says what keeps it from being opened.
pub fn check_disk(disk: Box<dyn Disk>) -> Result<Found, String> {
    let text = |error: crate::store::StoreError| error.text;
    let (mut index, id) = Index::open(&*disk).map_err(text)?;
    let mut found = Found::default();
    if !index.check().map_err(text)? {
        found.wrong.push("the index had pages that were not as they were written, and was mended".to_owned());
    }
    drop(index);
    let (store, loaded) = Durable::open(disk, id, limits_of_a_check().keep_epochs).map_err(text)?;
    found.regions = loaded.names.regions.len();
    let memory = Arc::new(Memory::with_store(0, Reaper::start(), Arc::clone(store.pages())));
    let store: Arc<dyn Store> = Arc::new(store);
    let limits = limits_of_a_check();
    let catalog = Catalog::restored(Arc::clone(&memory), store, limits, Default::default(), loaded);
    let catalog = catalog.map_err(text)?;
    let mut after = Some(ScrubAfter { region: RegionId(0), page: 0 });
    while let Some(from) = after {
        let part = scrub(&memory, from, |id| catalog.name_of(id));
        found.pages += part.pages;
        let line = |damage: netmem_protocol::control::Damage| {
            let what = if damage.name.is_empty() { format!("region {}", damage.region) } else { damage.name };
            format!("{what}, page {}: {}", damage.page, damage.text)
        };
        found.wrong.extend(part.damaged.into_iter().map(line));
        after = part.next;
    }
    Ok(found)
}

/// Nothing is served; and what was kept stays.
fn limits_of_a_check() -> Limits {
    let keep_epochs = usize::from(u8::MAX);
    Limits { memory_bytes: 0, frame_body: 0, region_bytes: 0, regions: 0, connections: 0, keep_epochs }
}
