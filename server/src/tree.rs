//! The immutable radix tree of pages: 64 children a node, one root an epoch.
//!
//! Owns: nodes, which share whatever a commit did not touch. Called by: region, commit, session (to read), store. Must not:
//! allocate pages, take locks. Nodes that only the tree under construction owns are changed in place.

use std::ops::Range;
use std::sync::Arc;

use crate::content::Content;

/// Children of a node, and slots of a leaf.
pub const FAN_OUT: usize = 64;
/// Bits of a page number that one level decides.
const LEVEL_BITS: u32 = FAN_OUT.trailing_zeros();

/// Inner nodes are half as large as leaves and one in 64 of all: a box of its own would cost more than it saves.
#[allow(clippy::large_enum_variant, reason = "see above")]
#[derive(Clone)]
enum Node {
    Leaf(Leaf),
    Inner(Inner),
}

/// A leaf of a tree: 64 pages.
#[derive(Clone)]
pub struct Leaf {
    /// The largest of `versions`.
    newest: u64,
    /// How many of `pages` are there.
    stored: u64,
    /// The epoch that last changed each page. A page that became zeros has a version and no content.
    versions: [u64; FAN_OUT],
    pages: [Option<Content>; FAN_OUT],
}

#[derive(Clone)]
struct Inner {
    /// At least the largest version below.
    newest: u64,
    /// Pages stored below.
    stored: u64,
    children: [Option<Arc<Node>>; FAN_OUT],
}

/// A tree. A clone shares every node.
#[derive(Clone, Default)]
pub struct Tree {
    root: Option<Arc<Node>>,
    /// Levels, the leaves counted; 0 for a tree that never had a page.
    height: u32,
}

/// Pages below a node of this height: 64 for a leaf.
const fn span(height: u32) -> u64 {
    1 << (LEVEL_BITS * height)
}

/// Which child of a node of this height leads to `page`.
const fn child_of(page: u64, height: u32) -> usize {
    (page >> (LEVEL_BITS * (height - 1))) as usize % FAN_OUT
}

impl Node {
    fn empty(height: u32) -> Node {
        if height == 1 {
            Node::Leaf(Leaf {
                newest: 0,
                stored: 0,
                versions: [0; FAN_OUT],
                pages: [const { None }; FAN_OUT],
            })
        } else {
            Node::Inner(Inner { newest: 0, stored: 0, children: [const { None }; FAN_OUT] })
        }
    }

    fn newest(&self) -> u64 {
        match self {
            Node::Leaf(leaf) => leaf.newest,
            Node::Inner(inner) => inner.newest,
        }
    }

    fn stored(&self) -> u64 {
        match self {
            Node::Leaf(leaf) => leaf.stored,
            Node::Inner(inner) => inner.stored,
        }
    }
}

impl Leaf {
    /// The epoch that last changed each page; 0 if none did.
    pub fn versions(&self) -> &[u64; FAN_OUT] {
        &self.versions
    }

    /// What each page holds; `None` for zeros.
    pub fn contents(&self) -> &[Option<Content>; FAN_OUT] {
        &self.pages
    }

    fn set(&mut self, slot: usize, content: Option<Content>, version: u64) {
        self.stored += u64::from(content.is_some());
        self.stored -= u64::from(self.pages[slot].is_some());
        self.pages[slot] = content;
        self.versions[slot] = version;
        self.newest = self.newest.max(version);
    }
}

impl Tree {
    /// Pages stored, all-zero ones not counted.
    pub fn stored(&self) -> u64 {
        self.root.as_ref().map_or(0, |root| root.stored())
    }

    /// A page's content; `None` for zeros.
    pub fn get(&self, page: u64) -> Option<&Content> {
        self.leaf(page).and_then(|leaf| leaf.pages[page as usize % FAN_OUT].as_ref())
    }

    /// The epoch that last changed the page; 0 if none did, or a cut took it away.
    pub fn version(&self, page: u64) -> u64 {
        self.leaf(page).map_or(0, |leaf| leaf.versions[page as usize % FAN_OUT])
    }

    /// A reader for pages that lie near each other.
    pub fn cursor(&self) -> Cursor<'_> {
        Cursor { tree: self, block: u64::MAX, leaf: None }
    }

    /// The leaf number `leaf`, of pages `64 * leaf` and on.
    pub fn leaf_at(&self, leaf: u64) -> Option<&Leaf> {
        self.leaf(leaf * FAN_OUT as u64)
    }

    /// Puts a whole leaf in the place of what is there, as a store kept it.
    pub fn put_leaf(&mut self, leaf: u64, versions: [u64; FAN_OUT], pages: [Option<Content>; FAN_OUT]) {
        let page = leaf * FAN_OUT as u64;
        self.grow_to(page);
        let newest = versions.iter().copied().max().unwrap_or(0);
        let stored = pages.iter().flatten().count() as u64;
        put_below(&mut self.root, self.height, page, Leaf { newest, stored, versions, pages });
    }

    /// The first leaf from `leaf` on that has a page, and its number.
    pub fn next_leaf(&self, leaf: u64) -> Option<(u64, &Leaf)> {
        let root = self.root.as_ref()?;
        if self.height == 0 || leaf >= span(self.height) / FAN_OUT as u64 {
            return None;
        }
        next_below(root, self.height, 0, leaf)
    }

    /// What of these pages lies in leaves that are there: the others are zeros, and always were or have been cut away.
    pub fn known(&self, pages: Range<u64>) -> Vec<Range<u64>> {
        let mut known: Vec<Range<u64>> = Vec::new();
        let mut leaf = pages.start / FAN_OUT as u64;
        while let Some((number, _)) = self.next_leaf(leaf) {
            let first = (number * FAN_OUT as u64).max(pages.start);
            let end = ((number + 1) * FAN_OUT as u64).min(pages.end);
            if first >= end {
                break;
            }
            match known.last_mut() {
                Some(last) if last.end == first => last.end = end,
                _ => known.push(first..end),
            }
            leaf = number + 1;
        }
        known
    }

    /// Calls `visit` with every leaf that has a page whose version is above `since`, in order.
    pub fn changed_leaves(&self, since: u64, visit: &mut impl FnMut(u64, &Leaf)) {
        if let Some(root) = &self.root {
            leaves_below(root, self.height, 0, since, visit);
        }
    }

    /// Calls `change` with the content of every page whose leaf is one of [`Tree::changed_leaves`], in the same order. A leaf that another
    /// tree shares is copied.
    pub fn replace_changed(&mut self, since: u64, change: &mut impl FnMut(&mut Content)) {
        if let Some(root) = &mut self.root {
            replace_below(root, since, change);
        }
    }

    fn leaf(&self, page: u64) -> Option<&Leaf> {
        if self.height == 0 || page >= span(self.height) {
            return None;
        }
        let mut node = self.root.as_deref()?;
        let mut height = self.height;
        loop {
            match node {
                Node::Leaf(leaf) => return Some(leaf),
                Node::Inner(inner) => {
                    node = inner.children[child_of(page, height)].as_deref()?;
                    height -= 1;
                }
            }
        }
    }

    /// Sets a page's content as of `version`. Zeros over zeros change nothing, not even the version.
    pub fn set(&mut self, page: u64, content: Option<Content>, version: u64) {
        if content.is_none() && self.get(page).is_none() {
            return;
        }
        self.grow_to(page);
        set_below(&mut self.root, self.height, page, content, version);
    }

    fn grow_to(&mut self, page: u64) {
        while self.height == 0 || page >= span(self.height) {
            self.height += 1;
            if let Some(old) = self.root.take() {
                let mut top =
                    Inner { newest: old.newest(), stored: old.stored(), children: [const { None }; FAN_OUT] };
                top.children[0] = Some(old);
                self.root = Some(Arc::new(Node::Inner(top)));
            }
        }
    }

    /// Takes away every page from `first` on, versions included.
    pub fn cut(&mut self, first: u64) {
        if self.height > 0 && first < span(self.height) {
            cut_below(&mut self.root, self.height, first);
        }
    }

    /// Calls `visit` with every page whose version is above `since`, in order.
    pub fn changed_since(&self, since: u64, visit: &mut impl FnMut(u64)) {
        if let Some(root) = &self.root {
            changed_below(root, self.height, 0, since, visit);
        }
    }
}

fn set_below(
    slot: &mut Option<Arc<Node>>,
    height: u32,
    page: u64,
    content: Option<Content>,
    version: u64,
) -> u64 {
    let node = Arc::make_mut(slot.get_or_insert_with(|| Arc::new(Node::empty(height))));
    match node {
        Node::Leaf(leaf) => {
            leaf.set(page as usize % FAN_OUT, content, version);
            leaf.stored
        }
        Node::Inner(inner) => {
            let child = &mut inner.children[child_of(page, height)];
            let before = child.as_ref().map_or(0, |child| child.stored());
            let after = set_below(child, height - 1, page, content, version);
            inner.stored = inner.stored - before + after;
            inner.newest = inner.newest.max(version);
            inner.stored
        }
    }
}

fn put_below(slot: &mut Option<Arc<Node>>, height: u32, page: u64, leaf: Leaf) {
    if height == 1 {
        *slot = Some(Arc::new(Node::Leaf(leaf)));
        return;
    }
    let node = Arc::make_mut(slot.get_or_insert_with(|| Arc::new(Node::empty(height))));
    if let Node::Inner(inner) = node {
        let child = &mut inner.children[child_of(page, height)];
        inner.stored -= child.as_ref().map_or(0, |child| child.stored());
        inner.newest = inner.newest.max(leaf.newest);
        put_below(child, height - 1, page, leaf);
        inner.stored += child.as_ref().map_or(0, |child| child.stored());
    }
}

/// Cuts a subtree at `first`, which counts from the subtree's own first page.
fn cut_below(slot: &mut Option<Arc<Node>>, height: u32, first: u64) {
    if first == 0 {
        *slot = None;
    }
    let Some(node) = slot else { return };
    let empty = match Arc::make_mut(node) {
        Node::Leaf(leaf) => {
            for at in first as usize % FAN_OUT..FAN_OUT {
                leaf.stored -= u64::from(leaf.pages[at].take().is_some());
                leaf.versions[at] = 0;
            }
            leaf.versions.iter().all(|version| *version == 0)
        }
        Node::Inner(inner) => {
            let at = child_of(first, height);
            cut_below(&mut inner.children[at], height - 1, first % span(height - 1));
            inner.children[at + 1..].fill(None);
            inner.stored = inner.children.iter().flatten().map(|child| child.stored()).sum();
            inner.children.iter().all(Option::is_none)
        }
    };
    if empty {
        *slot = None;
    }
}

fn changed_below(node: &Node, height: u32, base: u64, since: u64, visit: &mut impl FnMut(u64)) {
    if node.newest() <= since {
        return;
    }
    match node {
        Node::Leaf(leaf) => {
            for (at, version) in leaf.versions.iter().enumerate() {
                if *version > since {
                    visit(base + at as u64);
                }
            }
        }
        Node::Inner(inner) => {
            for (at, child) in inner.children.iter().enumerate() {
                if let Some(child) = child {
                    changed_below(child, height - 1, base + at as u64 * span(height - 1), since, visit);
                }
            }
        }
    }
}

fn next_below(node: &Node, height: u32, base: u64, from: u64) -> Option<(u64, &Leaf)> {
    match node {
        Node::Leaf(leaf) => (base >= from).then_some((base, leaf)),
        Node::Inner(inner) => {
            let leaves = span(height - 1) / FAN_OUT as u64;
            let skip = (from.saturating_sub(base) / leaves) as usize;
            let children = inner.children.iter().enumerate().skip(skip);
            children
                .filter_map(|(at, child)| Some((at, child.as_deref()?)))
                .find_map(|(at, child)| next_below(child, height - 1, base + at as u64 * leaves, from))
        }
    }
}

fn leaves_below(node: &Node, height: u32, base: u64, since: u64, visit: &mut impl FnMut(u64, &Leaf)) {
    if node.newest() <= since {
        return;
    }
    match node {
        Node::Leaf(leaf) => visit(base, leaf),
        Node::Inner(inner) => {
            for (at, child) in inner.children.iter().enumerate() {
                if let Some(child) = child {
                    let leaves = span(height - 1) / FAN_OUT as u64;
                    leaves_below(child, height - 1, base + at as u64 * leaves, since, visit);
                }
            }
        }
    }
}

fn replace_below(node: &mut Arc<Node>, since: u64, change: &mut impl FnMut(&mut Content)) {
    if node.newest() <= since {
        return;
    }
    match Arc::make_mut(node) {
        Node::Leaf(leaf) => leaf.pages.iter_mut().flatten().for_each(change),
        Node::Inner(inner) => {
            inner.children.iter_mut().flatten().for_each(|child| replace_below(child, since, change));
        }
    }
}

/// Reads pages, remembering the leaf of the last one.
pub struct Cursor<'a> {
    tree: &'a Tree,
    block: u64,
    leaf: Option<&'a Leaf>,
}

impl<'a> Cursor<'a> {
    /// A page's content; `None` for zeros.
    pub fn get(&mut self, page: u64) -> Option<&'a Content> {
        let block = page / FAN_OUT as u64;
        if block != self.block {
            self.leaf = self.tree.leaf(page);
            self.block = block;
        }
        self.leaf.and_then(|leaf| leaf.pages[page as usize % FAN_OUT].as_ref())
    }
}

#[cfg(test)]
#[path = "tree_tests.rs"]
mod tests;
