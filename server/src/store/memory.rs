//! The store that is the server's own memory: a commit is kept as long as the server runs.
//!
//! Owns: an identity, new at each start. Called by: region through [`Store`]. Must not: fail.

use std::fs::File;
use std::io::{self, Read};

use netmem_protocol::StoreId;

use super::{Record, Store, StoreError};

/// Memory, and nothing else.
pub struct Memory {
    id: StoreId,
}

impl Memory {
    /// A store with a random identity.
    pub fn new() -> io::Result<Self> {
        let mut id = [0; 16];
        File::open("/dev/urandom")?.read_exact(&mut id)?;
        Ok(Memory { id: StoreId(id) })
    }
}

impl Store for Memory {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn id(&self) -> StoreId {
        self.id
    }

    fn commit(&self, _record: &Record<'_>) -> Result<(), StoreError> {
        Ok(())
    }
}
