//! Page bodies that are compressed on the wire.
//!
//! Owns: the memory that this takes, of each thread that serves. Called by: session. Must not: keep pages.

use std::cell::RefCell;

use netmem_protocol::{Packer, ProtocolError, unpack};

thread_local! {
    /// Up to three frames. Of the thread and not of the connection: there are many of these.
    static PACKS: RefCell<Packs> = RefCell::default();
}

/// Calls `use_them` with this thread's.
pub fn with<T>(use_them: impl FnOnce(&mut Packs) -> T) -> T {
    PACKS.with_borrow_mut(use_them)
}

/// What packing and unpacking page bodies takes, kept from one to the next.
#[derive(Default)]
pub struct Packs {
    packer: Packer,
    /// Pages side by side, to be packed.
    pages: Vec<u8>,
    body: Vec<u8>,
}

impl Packs {
    /// The block for these pages; `None` if it is not worth it.
    pub fn pack<'a>(&mut self, pages: impl Iterator<Item = &'a [u8]>) -> Option<&[u8]> {
        self.pages.clear();
        pages.for_each(|page| self.pages.extend_from_slice(page));
        if self.pages.is_empty() { None } else { self.packer.pack(&self.pages) }
    }

    /// The page body of which a packed one was made, if that is no longer than a frame may be.
    pub fn unpack(&mut self, packed: &[u8], with_sums: bool, limit: u32) -> Result<&[u8], ProtocolError> {
        let length = unpack(packed, with_sums, limit, &mut self.body)?;
        Ok(&self.body[..length])
    }
}
