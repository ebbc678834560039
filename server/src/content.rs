//! What a page of a tree is: bytes in memory, or a page in the file of a durable store.
//!
//! Owns: the choice between the two. Called by: tree (to keep it), commit and session (to read it). Must not: decide which pages stay in
//! memory.

use std::ops::Deref;
use std::sync::Arc;

use crate::memory::Memory;
use crate::refusal::Answer;
use crate::slab::PageRef;
use crate::store::pages::Stored;

/// A page's content that is not all zeros.
#[derive(Clone)]
pub enum Content {
    /// In memory, and nowhere else.
    Here(PageRef),
    /// In a store's file, with a copy in memory or without.
    Stored(Arc<Stored>),
}

impl From<PageRef> for Content {
    fn from(page: PageRef) -> Self {
        Content::Here(page)
    }
}

/// A page that was lent to be read.
pub enum Lent<'a> {
    /// As long as the tree is.
    Page(&'a PageRef),
    /// As long as this is.
    Copy(PageRef),
}

impl Deref for Lent<'_> {
    type Target = PageRef;

    fn deref(&self) -> &PageRef {
        match self {
            Lent::Page(page) => page,
            Lent::Copy(page) => page,
        }
    }
}

impl Lent<'_> {
    /// The page, for longer than its tree is.
    pub fn keep(self) -> PageRef {
        match self {
            Lent::Page(page) => page.clone(),
            Lent::Copy(page) => page,
        }
    }
}

impl Content {
    /// The page, if it is nowhere but in memory.
    pub fn here(&self) -> Option<&PageRef> {
        match self {
            Content::Here(page) => Some(page),
            Content::Stored(_) => None,
        }
    }

    /// Its checksum.
    pub fn sum(&self) -> u64 {
        match self {
            Content::Here(page) => page.sum(),
            Content::Stored(stored) => stored.sum(),
        }
    }

    /// Whether it can be had without the disk.
    pub fn is_at_hand(&self) -> bool {
        match self {
            Content::Here(_) => true,
            Content::Stored(stored) => stored.is_at_hand(),
        }
    }

    /// The page. From a disk it may be damaged, or there may be no memory for it.
    pub fn load(&self, memory: &Memory) -> Answer<Lent<'_>> {
        match self {
            Content::Here(page) => Ok(Lent::Page(page)),
            Content::Stored(stored) => stored.load(memory).map(Lent::Copy),
        }
    }

    /// Whether both are the same page of the same memory or file.
    pub fn is(&self, other: &Content) -> bool {
        match (self, other) {
            (Content::Here(one), Content::Here(other)) => one.as_ptr() == other.as_ptr(),
            (Content::Stored(one), Content::Stored(other)) => Arc::ptr_eq(one, other),
            (Content::Here(_), Content::Stored(_)) | (Content::Stored(_), Content::Here(_)) => false,
        }
    }
}
