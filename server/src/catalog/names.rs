//! The requests about names: looking up, listing, removing, renaming, making.
//!
//! Owns: what they answer. Called by: requests. Must not: take holds; those are the catalog's.

use std::sync::MutexGuard;

use netmem_protocol::control::{
    Entry, EntryKind, Link, List, Listing, Lookup, MakeDir, MakeSymlink, Names, Remove, Rename, Resolve,
    Resolved, SetAttr,
};
use netmem_protocol::{ErrorCode, LIST_ENTRIES_MAX, LIST_TARGET_BYTES, RegionId, TARGET_BYTES_MAX};

use super::{Catalog, State, check_mode, directory_of, name_of, plain};
use crate::namespace::{Child, Namespace};
use crate::refusal::{Answer, Refusal};
use crate::resolve;
use crate::store::rows::{Attribute, Update};

impl Catalog {
    fn entry(&self, state: &State, name: &str, child: Child) -> Answer<Entry> {
        match child {
            Child::Region(id) => {
                let links = state.names.links(id);
                self.memory.region(id).map(|region| Entry { links, ..region.entry() })
            }
            Child::Directory => {
                let attributes = state.names.attributes(name)?;
                let (mode, modified_ns) = (attributes.mode, attributes.modified_ns);
                Ok(Entry { mode, modified_ns, ..plain(EntryKind::Directory) })
            }
            Child::Symlink(link) => Ok(Entry {
                size: link.target.len() as u64,
                modified_ns: link.modified_ns,
                target: link.target.clone(),
                ..plain(EntryKind::Symlink)
            }),
        }
    }

    /// `Lookup`.
    pub fn lookup(&self, request: &Lookup) -> Answer<Entry> {
        let name = directory_of(&request.name)?;
        let state = self.state();
        let refusal = match state.names.find(&name) {
            Ok(child) => return self.entry(&state, name.as_str(), child),
            Err(refusal) => refusal,
        };
        drop(state);
        let (state, id) = self.show_snapshot(&name)?.ok_or(refusal)?;
        let links = self.links(&state, id);
        self.memory.region(id).map(|region| Entry { links, ..region.entry() })
    }

    /// `List`.
    pub fn list(&self, request: &List) -> Answer<Listing> {
        let directory = directory_of(&request.directory)?;
        let state = self.state();
        let limit = LIST_ENTRIES_MAX as usize;
        let (part, mut more) = state.names.list(directory.as_str(), &request.after, limit)?;
        let mut entries = Vec::with_capacity(part.len());
        let mut room = LIST_TARGET_BYTES;
        for (last, child) in part {
            if let Child::Symlink(link) = &child {
                if link.target.len() > room {
                    more = true;
                    break;
                }
                room -= link.target.len();
            }
            let full = match directory.as_str() {
                "" => last.clone(),
                above => format!("{above}/{last}"),
            };
            entries.push((last, self.entry(&state, &full, child)?));
        }
        Ok(Listing { entries, more })
    }

    /// Changes names so that a region may lose one, and ends it if that was its last.
    fn unlink(
        &self,
        mut state: MutexGuard<'_, State>,
        change: impl FnOnce(&mut Namespace) -> Answer<Option<RegionId>>,
    ) -> Answer<()> {
        let region = self.change(&mut state, |names, _| change(names))?;
        let ended = region.and_then(|id| self.end_if_unused(&mut state, id));
        drop(state);
        drop(ended);
        Ok(())
    }

    /// `Remove`.
    pub fn remove(&self, request: &Remove) -> Answer<()> {
        let name = name_of(&request.name)?;
        let state = self.state();
        self.refuse_snapshot(&state, &name)?;
        self.unlink(state, |names| names.remove(&name, request.directory))
    }

    /// `Rename`.
    pub fn rename(&self, request: &Rename) -> Answer<()> {
        let (from, to) = (name_of(&request.from)?, name_of(&request.to)?);
        if request.exchange && request.no_replace {
            let text = "a rename cannot both exchange and not replace";
            return Err(Refusal::new(ErrorCode::Invalid, text));
        }
        let mut state = self.state();
        self.refuse_snapshot(&state, &from)?;
        self.refuse_snapshot(&state, &to)?;
        if request.exchange {
            return self.change(&mut state, |names, _| names.exchange(&from, &to));
        }
        self.unlink(state, |names| names.rename(&from, &to, request.no_replace))
    }

    /// `MakeDir`.
    pub fn make_dir(&self, request: &MakeDir) -> Answer<Entry> {
        check_mode(request.mode)?;
        let name = name_of(&request.name)?;
        let mut state = self.state();
        if state.names.find(&name).is_err() && state.names.directory_is_there(name.parent()) {
            self.check_room(&state)?;
        }
        self.refuse_snapshot(&state, &name)?;
        self.change(&mut state, |names, _| names.add_directory(&name, request.mode))?;
        let entry = self.entry(&state, name.as_str(), Child::Directory)?;
        Ok(Entry { created: true, ..entry })
    }

    /// `SetAttr`.
    pub fn set_attributes(&self, request: &SetAttr) -> Answer<Entry> {
        let name = directory_of(&request.name)?;
        request.mode.map_or(Ok(()), check_mode)?;
        let mut state = self.state();
        self.refuse_snapshot(&state, &name)?;
        let child = state.names.find(&name)?;
        match &child {
            Child::Region(id) => {
                let region = self.memory.region(*id)?;
                let mode = request.mode.map(|mode| (*id, Attribute::Mode, mode.into()));
                let modified = request.modified_ns.map(|ns| (*id, Attribute::Modified, ns));
                let attributes = mode.into_iter().chain(modified).collect();
                self.take(Update { attributes, ..Update::default() })?;
                region.set_attributes(request.mode, request.modified_ns);
            }
            Child::Symlink(_) if request.mode.is_some() => {
                let text = format!("{:?} is a symbolic link, which has no mode", name.as_str());
                return Err(Refusal::new(ErrorCode::Link, text));
            }
            Child::Symlink(link) => {
                let modified_ns = request.modified_ns.unwrap_or(link.modified_ns);
                self.change(&mut state, |names, _| names.touch_symlink(&name, modified_ns))?;
            }
            Child::Directory => {
                self.change(&mut state, |names, _| {
                    let attributes = names.attributes_mut(name.as_str())?;
                    attributes.mode = request.mode.unwrap_or(attributes.mode);
                    attributes.modified_ns = request.modified_ns.unwrap_or(attributes.modified_ns);
                    Ok(())
                })?;
            }
        }
        let child = state.names.find(&name)?;
        self.entry(&state, name.as_str(), child)
    }

    /// `Resolve`.
    pub fn resolve(&self, request: &Resolve) -> Answer<Resolved> {
        directory_of(&request.base)?;
        resolve::resolve(&self.state().names, request)
    }

    /// `MakeSymlink`.
    pub fn make_symlink(&self, request: &MakeSymlink) -> Answer<Entry> {
        let name = name_of(&request.name)?;
        let target = &request.target;
        if target.is_empty() || target.len() > TARGET_BYTES_MAX || target.contains(&0) {
            let text = format!("a link says 1 to {TARGET_BYTES_MAX} bytes without NUL");
            return Err(Refusal::new(ErrorCode::Invalid, text));
        }
        let mut state = self.state();
        if state.names.find(&name).is_err() && state.names.directory_is_there(name.parent()) {
            self.check_room(&state)?;
        }
        self.refuse_snapshot(&state, &name)?;
        self.change(&mut state, |names, _| names.add_symlink(&name, target.clone()))?;
        let child = state.names.find(&name)?;
        let entry = self.entry(&state, name.as_str(), child)?;
        Ok(Entry { created: true, ..entry })
    }

    /// `Link`.
    pub fn link(&self, request: &Link) -> Answer<Entry> {
        let (from, to) = (name_of(&request.from)?, name_of(&request.to)?);
        let mut state = self.state();
        self.refuse_snapshot(&state, &to)?;
        let region = self.change(&mut state, |names, _| names.add_link(&from, &to))?;
        let entry = self.entry(&state, to.as_str(), Child::Region(region))?;
        Ok(Entry { created: true, ..entry })
    }

    /// One of a region's names; empty if it has none.
    pub fn name_of(&self, id: RegionId) -> String {
        self.shown_name(&self.state(), id)
    }

    pub(super) fn shown_name(&self, state: &State, id: RegionId) -> String {
        match state.frozen.get(&id) {
            None => state.names.names(id).next().cloned().unwrap_or_default(),
            Some((of, snapshot)) => {
                state.names.names(*of).next().map_or_else(String::new, |name| format!("{name}@{snapshot}"))
            }
        }
    }

    /// `Names`.
    pub fn names(&self, id: RegionId) -> Answer<Names> {
        let state = self.state();
        let Some((of, snapshot)) = state.frozen.get(&id) else {
            return Ok(Names { names: state.names.names(id).cloned().collect() });
        };
        let names = state.names.names(*of).map(|name| format!("{name}@{snapshot}"));
        Ok(Names { names: names.collect() })
    }
}
