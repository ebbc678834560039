//! Names: directories, and the regions in them.
//!
//! Owns: the table of names and rename(2)'s rules. Called by: catalog, under its lock. Must not: know what a region is
//! besides its number.

use std::collections::BTreeMap;
use std::ops::Bound;

use netmem_protocol::{ErrorCode, NAME_BYTES_MAX, RegionId, RegionName};

use crate::refusal::{Answer, Refusal};
use crate::region::now_ns;

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Child {
    /// A region.
    Region(RegionId),
    /// A directory.
    Directory,
}

/// A directory's attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirectoryAttributes {
    /// Permission bits.
    pub mode: u32,
    /// Nanoseconds since 1970 of the last change.
    pub modified_ns: u64,
}

struct Directory {
    attributes: DirectoryAttributes,
    children: BTreeMap<String, Child>,
}

impl Directory {
    fn new(mode: u32) -> Self {
        let attributes = DirectoryAttributes { mode, modified_ns: now_ns() };
        Directory { attributes, children: BTreeMap::new() }
    }
}

/// The table: every directory by its full name, the root's empty.
pub struct Namespace {
    directories: BTreeMap<String, Directory>,
}

/// Permission bits of the root directory.
const ROOT_MODE: u32 = 0o755;

impl Default for Namespace {
    fn default() -> Self {
        Namespace { directories: BTreeMap::from([(String::new(), Directory::new(ROOT_MODE))]) }
    }
}

fn refuse<T>(code: ErrorCode, name: &str, why: &str) -> Answer<T> {
    Err(Refusal::new(code, format!("{name:?} {why}")))
}

/// Whether `name` lies below directory `above`.
fn is_below(name: &str, above: &str) -> bool {
    name.strip_prefix(above).is_some_and(|rest| rest.starts_with('/'))
}

impl Namespace {
    /// Directories, the root counted.
    pub fn directories(&self) -> u64 {
        self.directories.len() as u64
    }

    /// What a name stands for.
    pub fn find(&self, name: &RegionName) -> Answer<Child> {
        if name.as_str().is_empty() {
            return Ok(Child::Directory);
        }
        match self.directory(name.parent())?.children.get(name.last()) {
            Some(child) => Ok(*child),
            None => refuse(ErrorCode::NotFound, name.as_str(), "is not there"),
        }
    }

    /// Whether there is a directory of this name.
    pub fn directory_is_there(&self, name: &str) -> bool {
        self.directories.contains_key(name)
    }

    fn directory(&self, name: &str) -> Answer<&Directory> {
        match self.directories.get(name) {
            Some(directory) => Ok(directory),
            None => Err(self.why_no_directory(name)),
        }
    }

    fn directory_mut(&mut self, name: &str) -> Answer<&mut Directory> {
        if !self.directories.contains_key(name) {
            return Err(self.why_no_directory(name));
        }
        match self.directories.get_mut(name) {
            Some(directory) => Ok(directory),
            None => refuse(ErrorCode::NotFound, name, "is not there"),
        }
    }

    /// NotDirectory if a component on the way is a region, else NotFound.
    fn why_no_directory(&self, name: &str) -> Refusal {
        let mut above = name;
        while !above.is_empty() {
            let (parent, last) = above.rsplit_once('/').unwrap_or(("", above));
            if let Some(directory) = self.directories.get(parent)
                && let Some(Child::Region(_)) = directory.children.get(last)
            {
                return Refusal::new(
                    ErrorCode::NotDirectory,
                    format!("{above:?} is a region, not a directory"),
                );
            }
            above = parent;
        }
        Refusal::new(ErrorCode::NotFound, format!("directory {name:?} is not there; make it first"))
    }

    /// Attributes of a directory.
    pub fn attributes(&self, name: &str) -> Answer<DirectoryAttributes> {
        self.directory(name).map(|directory| directory.attributes)
    }

    /// Changes attributes of a directory.
    pub fn attributes_mut(&mut self, name: &str) -> Answer<&mut DirectoryAttributes> {
        self.directory_mut(name).map(|directory| &mut directory.attributes)
    }

    /// Adds a region under a name that is free.
    pub fn add_region(&mut self, name: &RegionName, region: RegionId) -> Answer<()> {
        self.add(name, Child::Region(region))
    }

    /// Adds an empty directory under a name that is free.
    pub fn add_directory(&mut self, name: &RegionName, mode: u32) -> Answer<()> {
        self.add(name, Child::Directory)?;
        self.directories.insert(name.as_str().to_owned(), Directory::new(mode));
        Ok(())
    }

    fn add(&mut self, name: &RegionName, child: Child) -> Answer<()> {
        let parent = self.directory_mut(name.parent())?;
        if parent.children.contains_key(name.last()) {
            return refuse(ErrorCode::Exists, name.as_str(), "is there already");
        }
        parent.children.insert(name.last().to_owned(), child);
        parent.attributes.modified_ns = now_ns();
        Ok(())
    }

    /// Up to `limit` children of a directory behind `after`, in byte order, and whether there are more.
    pub fn list(&self, directory: &str, after: &str, limit: usize) -> Answer<(Vec<(String, Child)>, bool)> {
        let from = if after.is_empty() { Bound::Unbounded } else { Bound::Excluded(after) };
        let mut rest = self.directory(directory)?.children.range::<str, _>((from, Bound::Unbounded));
        let part = rest.by_ref().take(limit).map(|(name, child)| (name.clone(), *child)).collect();
        Ok((part, rest.next().is_some()))
    }

    /// Removes a name: a region's, which is returned, or an empty directory's.
    pub fn remove(&mut self, name: &RegionName, directory: bool) -> Answer<Option<RegionId>> {
        let child = self.find(name)?;
        match (child, directory) {
            (Child::Region(_), true) => {
                return refuse(ErrorCode::NotDirectory, name.as_str(), "is a region, not a directory");
            }
            (Child::Directory, false) => {
                return refuse(ErrorCode::IsDirectory, name.as_str(), "is a directory");
            }
            (Child::Directory, true) => {
                self.check_empty(name.as_str())?;
                self.directories.remove(name.as_str());
            }
            (Child::Region(_), false) => {}
        }
        self.unlink(name)?;
        Ok(match child {
            Child::Region(region) => Some(region),
            Child::Directory => None,
        })
    }

    fn check_empty(&self, name: &str) -> Answer<()> {
        if self.directory(name)?.children.is_empty() {
            return Ok(());
        }
        refuse(ErrorCode::NotEmpty, name, "is a directory with entries; remove them first")
    }

    fn unlink(&mut self, name: &RegionName) -> Answer<Option<Child>> {
        let parent = self.directory_mut(name.parent())?;
        parent.attributes.modified_ns = now_ns();
        Ok(parent.children.remove(name.last()))
    }

    /// Renames, replacing what `to` names as rename(2) does. Returns the region that lost its name.
    pub fn rename(
        &mut self,
        from: &RegionName,
        to: &RegionName,
        no_replace: bool,
    ) -> Answer<Option<RegionId>> {
        let child = self.find(from)?;
        self.directory(to.parent())?;
        let target = self.directory(to.parent())?.children.get(to.last()).copied();
        if no_replace && target.is_some() {
            return refuse(ErrorCode::Exists, to.as_str(), "is there already");
        }
        if from == to {
            return Ok(None);
        }
        if is_below(to.as_str(), from.as_str()) {
            return refuse(ErrorCode::Invalid, from.as_str(), "cannot move into itself");
        }
        let replaced = match (child, target) {
            (_, None) => None,
            (Child::Region(_), Some(Child::Region(region))) => Some(region),
            (Child::Region(_), Some(Child::Directory)) => {
                return refuse(ErrorCode::IsDirectory, to.as_str(), "is a directory");
            }
            (Child::Directory, Some(Child::Region(_))) => {
                return refuse(ErrorCode::NotDirectory, to.as_str(), "is a region, not a directory");
            }
            (Child::Directory, Some(Child::Directory)) => {
                self.check_empty(to.as_str())?;
                None
            }
        };
        let moved = if child == Child::Directory { self.take_subtree(from, to)? } else { Vec::new() };
        self.directories.remove(to.as_str());
        self.directories.extend(moved);
        self.unlink(from)?;
        self.link(to, child)?;
        Ok(replaced)
    }

    /// Exchanges two names that are both there.
    pub fn exchange(&mut self, one: &RegionName, other: &RegionName) -> Answer<()> {
        let (first, second) = (self.find(one)?, self.find(other)?);
        if one == other {
            return Ok(());
        }
        if is_below(one.as_str(), other.as_str()) || is_below(other.as_str(), one.as_str()) {
            return refuse(
                ErrorCode::Invalid,
                one.as_str(),
                "cannot be exchanged with what lies above or below it",
            );
        }
        self.check_lengths(one.as_str(), other.as_str())?;
        let mut moved = if second == Child::Directory { self.take_subtree(other, one)? } else { Vec::new() };
        if first == Child::Directory {
            moved.extend(self.take_subtree(one, other)?);
        }
        self.directories.extend(moved);
        self.link(one, second)?;
        self.link(other, first)
    }

    fn link(&mut self, name: &RegionName, child: Child) -> Answer<()> {
        let parent = self.directory_mut(name.parent())?;
        parent.attributes.modified_ns = now_ns();
        parent.children.insert(name.last().to_owned(), child);
        Ok(())
    }

    /// Names of a directory and all directories below it.
    fn subtree(&self, top: &str) -> Vec<String> {
        let below = format!("{top}/");
        let mut names: Vec<String> = self
            .directories
            .range::<str, _>((Bound::Included(below.as_str()), Bound::Unbounded))
            .map(|(name, _)| name)
            .take_while(|name| name.starts_with(&below))
            .cloned()
            .collect();
        if self.directories.contains_key(top) {
            names.push(top.to_owned());
        }
        names
    }

    /// Whether every name below `from` stays within its limit when it moves to `to`.
    fn check_lengths(&self, from: &str, to: &str) -> Answer<()> {
        for name in self.subtree(from) {
            let children =
                self.directories.get(&name).into_iter().flat_map(|directory| directory.children.keys());
            let longest = children.map(|child| child.len() + 1).max().unwrap_or(0);
            if name.len() - from.len() + to.len() + longest > NAME_BYTES_MAX {
                let why = format!("holds names that would become longer than {NAME_BYTES_MAX} bytes");
                return refuse(ErrorCode::NameTooLong, from, &why);
            }
        }
        Ok(())
    }

    /// Takes a directory and all below it out of the table, under their names to be.
    fn take_subtree(&mut self, from: &RegionName, to: &RegionName) -> Answer<Vec<(String, Directory)>> {
        self.check_lengths(from.as_str(), to.as_str())?;
        let names = self.subtree(from.as_str());
        let take = |name: String| {
            let directory = self.directories.remove(&name)?;
            Some((format!("{}{}", to.as_str(), &name[from.as_str().len()..]), directory))
        };
        Ok(names.into_iter().filter_map(take).collect())
    }
}

#[cfg(test)]
#[path = "namespace_tests.rs"]
mod tests;
