//! The table of names as a store keeps it.
//!
//! Owns: rows for what changed, and the table made of rows. Called by: catalog. Must not: check names; they were.

use std::sync::Arc;

use imbl::OrdMap;
use netmem_protocol::RegionId;

use super::{Child, Directory, DirectoryAttributes, Namespace, Symlink, Touched};
use crate::store::rows::{ChildRow, DirectoryRow, Update};

impl From<DirectoryAttributes> for DirectoryRow {
    fn from(DirectoryAttributes { mode, modified_ns }: DirectoryAttributes) -> Self {
        DirectoryRow { mode, modified_ns }
    }
}

impl From<&Child> for ChildRow {
    fn from(child: &Child) -> Self {
        match child {
            Child::Region(region) => ChildRow::Region(region.0),
            Child::Directory => ChildRow::Directory,
            Child::Symlink(link) => ChildRow::Symlink(link.target.clone(), link.modified_ns),
        }
    }
}

impl Namespace {
    /// The table that a store kept. `None` if a name is in a directory that is not there.
    pub fn restored(
        directories: Vec<(String, DirectoryRow)>,
        children: Vec<(String, String, ChildRow)>,
    ) -> Option<Self> {
        let mut all = Namespace::default();
        for (name, DirectoryRow { mode, modified_ns }) in directories {
            let attributes = DirectoryAttributes { mode, modified_ns };
            all.directories.insert(name, Directory { attributes, children: OrdMap::new() });
        }
        for (directory, last, row) in children {
            let child = match row {
                ChildRow::Region(region) => {
                    let full =
                        if directory.is_empty() { last.clone() } else { format!("{directory}/{last}") };
                    all.names.entry(RegionId(region)).or_default().insert(full);
                    Child::Region(RegionId(region))
                }
                ChildRow::Directory => Child::Directory,
                ChildRow::Symlink(target, modified_ns) => {
                    all.symlinks += 1;
                    Child::Symlink(Arc::new(Symlink { target, modified_ns }))
                }
            };
            all.directories.get_mut(&directory)?.children.insert(last, child);
        }
        Some(all)
    }

    /// The rows that changed since this was last called, for a store.
    pub fn take_changes(&mut self) -> Update {
        let Touched { directories, children } = std::mem::take(&mut self.touched);
        let directories = directories.into_iter().map(|name| {
            let row = self.directories.get(&name).map(|directory| directory.attributes.into());
            (name, row)
        });
        let children = children.into_iter().map(|(directory, last)| {
            let parent = self.directories.get(&directory);
            let row = parent.and_then(|parent| parent.children.get(&last)).map(ChildRow::from);
            (directory, last, row)
        });
        Update { directories: directories.collect(), children: children.collect(), ..Update::default() }
    }
}
