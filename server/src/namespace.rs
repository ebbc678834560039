//! Names: directories, and the regions and symbolic links in them.
//!
//! Owns: the table of names, rename(2)'s and link(2)'s rules. Called by: catalog, under its lock. Must not: know what a region is
//! besides its number.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::Arc;

use imbl::{HashMap, OrdMap};
use netmem_protocol::{ErrorCode, LINKS_MAX, NAME_BYTES_MAX, RegionId, RegionName};

use crate::refusal::{Answer, Refusal};
use crate::region::now_ns;

mod rows;

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Child {
    /// A region, which may have further names.
    Region(RegionId),
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink(Arc<Symlink>),
}

/// A symbolic link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Symlink {
    /// What it says: not empty, no NUL.
    pub target: Vec<u8>,
    /// Nanoseconds since 1970 of the last change.
    pub modified_ns: u64,
}

/// A directory's attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirectoryAttributes {
    /// Permission bits.
    pub mode: u32,
    /// Nanoseconds since 1970 of the last change.
    pub modified_ns: u64,
}

#[derive(Clone)]
struct Directory {
    attributes: DirectoryAttributes,
    children: OrdMap<String, Child>,
}

impl Directory {
    fn new(mode: u32) -> Self {
        let attributes = DirectoryAttributes { mode, modified_ns: now_ns() };
        Directory { attributes, children: OrdMap::new() }
    }
}

/// The table: every directory by its full name, the root's empty. A clone shares what is not changed, and costs nothing.
#[derive(Clone)]
pub struct Namespace {
    directories: OrdMap<String, Directory>,
    /// Every region's names. Changed by `put` and `take` alone, and by whole directories that move.
    names: HashMap<RegionId, BTreeSet<String>>,
    /// How many symbolic links there are.
    symlinks: u64,
    /// What changed since it was last asked.
    touched: Touched,
}

/// Rows that a store has to write.
#[derive(Clone, Default)]
struct Touched {
    directories: BTreeSet<String>,
    children: BTreeSet<(String, String)>,
}

/// Permission bits of the root directory.
const ROOT_MODE: u32 = 0o755;

impl Default for Namespace {
    fn default() -> Self {
        let directories = OrdMap::unit(String::new(), Directory::new(ROOT_MODE));
        Namespace { directories, names: HashMap::new(), symlinks: 0, touched: Touched::default() }
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
    /// Names of all regions that have some.
    pub fn regions(&self) -> impl Iterator<Item = RegionId> {
        self.names.keys().copied()
    }

    /// Directories, the root counted.
    pub fn directories(&self) -> u64 {
        self.directories.len() as u64
    }

    /// Symbolic links.
    pub fn symlinks(&self) -> u64 {
        self.symlinks
    }

    /// Names of a region, in byte order.
    pub fn names(&self, region: RegionId) -> impl Iterator<Item = &String> {
        self.names.get(&region).into_iter().flatten()
    }

    /// How many names a region has.
    pub fn links(&self, region: RegionId) -> u32 {
        self.names.get(&region).map_or(0, |names| names.len() as u32)
    }

    /// What a name stands for. A symbolic link on the way is a refusal, at the end of it is what is found.
    pub fn find(&self, name: &RegionName) -> Answer<Child> {
        if name.as_str().is_empty() {
            return Ok(Child::Directory);
        }
        match self.directory(name.parent())?.children.get(name.last()) {
            Some(child) => Ok(child.clone()),
            None => refuse(ErrorCode::NotFound, name.as_str(), "is not there"),
        }
    }

    /// What a directory that is there has under a name.
    pub fn child(&self, directory: &str, last: &str) -> Answer<Option<Child>> {
        Ok(self.directory(directory)?.children.get(last).cloned())
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
        self.touched.directories.insert(name.to_owned());
        match self.directories.get_mut(name) {
            Some(directory) => Ok(directory),
            None => refuse(ErrorCode::NotFound, name, "is not there"),
        }
    }

    /// NotDirectory if a component on the way is a region, Link if one is a symbolic link, else NotFound.
    fn why_no_directory(&self, name: &str) -> Refusal {
        let mut above = name;
        while !above.is_empty() {
            let (parent, last) = above.rsplit_once('/').unwrap_or(("", above));
            match self.directories.get(parent).and_then(|directory| directory.children.get(last)) {
                Some(Child::Region(_)) => {
                    let text = format!("{above:?} is a region, not a directory");
                    return Refusal::new(ErrorCode::NotDirectory, text);
                }
                Some(Child::Symlink(_)) => {
                    let text = format!("{above:?} is a symbolic link; ask where it leads");
                    return Refusal::new(ErrorCode::Link, text);
                }
                Some(Child::Directory) | None => above = parent,
            }
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
        self.touched.directories.insert(name.as_str().to_owned());
        Ok(())
    }

    /// Adds a symbolic link under a name that is free.
    pub fn add_symlink(&mut self, name: &RegionName, target: Vec<u8>) -> Answer<()> {
        self.add(name, Child::Symlink(Arc::new(Symlink { target, modified_ns: now_ns() })))
    }

    /// Adds a further name, which is free, for the region of `from`.
    pub fn add_link(&mut self, from: &RegionName, to: &RegionName) -> Answer<RegionId> {
        let child = self.find(from)?;
        if self.directory(to.parent())?.children.contains_key(to.last()) {
            return refuse(ErrorCode::Exists, to.as_str(), "is there already");
        }
        let region = match child {
            Child::Region(region) => region,
            Child::Directory => {
                return refuse(ErrorCode::IsDirectory, from.as_str(), "is a directory, which has one name");
            }
            Child::Symlink(_) => {
                return refuse(ErrorCode::Link, from.as_str(), "is a symbolic link, which has one name");
            }
        };
        if self.links(region) as usize >= LINKS_MAX {
            let why = format!("has {LINKS_MAX} names, which is the limit");
            return refuse(ErrorCode::TooManyLinks, from.as_str(), &why);
        }
        self.add(to, Child::Region(region))?;
        Ok(region)
    }

    /// Sets when a symbolic link was changed.
    pub fn touch_symlink(&mut self, name: &RegionName, modified_ns: u64) -> Answer<()> {
        self.touched.children.insert((name.parent().to_owned(), name.last().to_owned()));
        let parent = self.directory_mut(name.parent())?;
        if let Some(Child::Symlink(link)) = parent.children.get_mut(name.last()) {
            Arc::make_mut(link).modified_ns = modified_ns;
        }
        Ok(())
    }

    fn add(&mut self, name: &RegionName, child: Child) -> Answer<()> {
        if self.directory(name.parent())?.children.contains_key(name.last()) {
            return refuse(ErrorCode::Exists, name.as_str(), "is there already");
        }
        self.put(name, child)
    }

    /// Up to `limit` children of a directory behind `after`, in byte order, and whether there are more.
    pub fn list(&self, directory: &str, after: &str, limit: usize) -> Answer<(Vec<(String, Child)>, bool)> {
        let from = if after.is_empty() { Bound::Unbounded } else { Bound::Excluded(after) };
        let mut rest = self.directory(directory)?.children.range::<_, str>((from, Bound::Unbounded));
        let part = rest.by_ref().take(limit).map(|(name, child)| (name.clone(), child.clone())).collect();
        Ok((part, rest.next().is_some()))
    }

    /// Removes a name: a region's, which is returned, a symbolic link's, or an empty directory's.
    pub fn remove(&mut self, name: &RegionName, directory: bool) -> Answer<Option<RegionId>> {
        let child = self.find(name)?;
        match (&child, directory) {
            (Child::Region(_) | Child::Symlink(_), true) => {
                return refuse(ErrorCode::NotDirectory, name.as_str(), "is no directory");
            }
            (Child::Directory, false) => {
                return refuse(ErrorCode::IsDirectory, name.as_str(), "is a directory");
            }
            (Child::Directory, true) => {
                self.check_empty(name.as_str())?;
                self.directories.remove(name.as_str());
                self.touched.directories.insert(name.as_str().to_owned());
            }
            (Child::Region(_) | Child::Symlink(_), false) => {}
        }
        self.take(name)?;
        Ok(match child {
            Child::Region(region) => Some(region),
            Child::Directory | Child::Symlink(_) => None,
        })
    }

    fn check_empty(&self, name: &str) -> Answer<()> {
        if self.directory(name)?.children.is_empty() {
            return Ok(());
        }
        refuse(ErrorCode::NotEmpty, name, "is a directory with entries; remove them first")
    }

    /// Takes a name out of its directory.
    fn take(&mut self, name: &RegionName) -> Answer<()> {
        self.touched.children.insert((name.parent().to_owned(), name.last().to_owned()));
        let parent = self.directory_mut(name.parent())?;
        parent.attributes.modified_ns = now_ns();
        match parent.children.remove(name.last()) {
            Some(Child::Region(region)) => {
                if let Some(names) = self.names.get_mut(&region) {
                    names.remove(name.as_str());
                    if names.is_empty() {
                        self.names.remove(&region);
                    }
                }
            }
            Some(Child::Symlink(_)) => self.symlinks -= 1,
            Some(Child::Directory) | None => {}
        }
        Ok(())
    }

    /// Puts a child into its directory, under a name that is free.
    fn put(&mut self, name: &RegionName, child: Child) -> Answer<()> {
        self.directory(name.parent())?;
        self.touched.children.insert((name.parent().to_owned(), name.last().to_owned()));
        match &child {
            Child::Region(region) => {
                _ = self.names.entry(*region).or_default().insert(name.as_str().to_owned())
            }
            Child::Symlink(_) => self.symlinks += 1,
            Child::Directory => {}
        }
        let parent = self.directory_mut(name.parent())?;
        parent.attributes.modified_ns = now_ns();
        parent.children.insert(name.last().to_owned(), child);
        Ok(())
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
        let target = self.directory(to.parent())?.children.get(to.last()).cloned();
        if no_replace && target.is_some() {
            return refuse(ErrorCode::Exists, to.as_str(), "is there already");
        }
        // Two names of one region: both stay, as rename(2) has it.
        let same =
            matches!((&child, &target), (Child::Region(one), Some(Child::Region(other))) if one == other);
        if from == to || same {
            return Ok(None);
        }
        if is_below(to.as_str(), from.as_str()) {
            return refuse(ErrorCode::Invalid, from.as_str(), "cannot move into itself");
        }
        let replaced = match (&child, &target) {
            (_, None) => None,
            (Child::Region(_) | Child::Symlink(_), Some(Child::Region(region))) => Some(*region),
            (Child::Region(_) | Child::Symlink(_), Some(Child::Symlink(_))) => None,
            (Child::Region(_) | Child::Symlink(_), Some(Child::Directory)) => {
                return refuse(ErrorCode::IsDirectory, to.as_str(), "is a directory");
            }
            (Child::Directory, Some(Child::Region(_) | Child::Symlink(_))) => {
                return refuse(ErrorCode::NotDirectory, to.as_str(), "is no directory");
            }
            (Child::Directory, Some(Child::Directory)) => {
                self.check_empty(to.as_str())?;
                None
            }
        };
        let moved = if child == Child::Directory { self.take_subtree(from, to)? } else { Vec::new() };
        if self.directories.remove(to.as_str()).is_some() {
            self.touched.directories.insert(to.as_str().to_owned());
        }
        self.place_subtree(moved);
        self.take(from)?;
        if target.is_some() {
            self.take(to)?;
        }
        self.put(to, child)?;
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
        self.place_subtree(moved);
        // Each in the place of the other: both are out before one is in, or a region's names would be miscounted.
        self.take(one)?;
        self.take(other)?;
        self.put(one, second)?;
        self.put(other, first)
    }

    /// Names of a directory and all directories below it.
    fn subtree(&self, top: &str) -> Vec<String> {
        let below = format!("{top}/");
        let mut names: Vec<String> = self
            .directories
            .range::<_, str>((Bound::Included(below.as_str()), Bound::Unbounded))
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
        let mut taken = Vec::new();
        for name in self.subtree(from.as_str()) {
            let Some(directory) = self.directories.remove(&name) else { continue };
            let new = format!("{}{}", to.as_str(), &name[from.as_str().len()..]);
            self.touched.directories.insert(name.clone());
            for (last, child) in &directory.children {
                self.touched.children.insert((name.clone(), last.clone()));
                if let Child::Region(region) = child
                    && let Some(names) = self.names.get_mut(region)
                {
                    names.remove(&format!("{name}/{last}"));
                }
            }
            taken.push((new, directory));
        }
        Ok(taken)
    }

    /// Puts back what was taken, all of it: a region may have names in both of two directories that are exchanged.
    fn place_subtree(&mut self, moved: Vec<(String, Directory)>) {
        for (name, directory) in moved {
            self.touched.directories.insert(name.clone());
            for (last, child) in &directory.children {
                self.touched.children.insert((name.clone(), last.clone()));
                if let Child::Region(region) = child {
                    self.names.entry(*region).or_default().insert(format!("{name}/{last}"));
                }
            }
            self.directories.insert(name, directory);
        }
    }
}

#[cfg(test)]
#[path = "namespace_tests.rs"]
mod tests;
