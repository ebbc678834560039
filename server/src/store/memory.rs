//! The store that is the server's own memory: a commit is kept as long as the server runs.
//!
//! Owns: an identity, new at each start. Called by: region through [`Store`]. Must not: fail.

use netmem_protocol::StoreId;

use super::rows::Update;
use super::{Record, Store, StoreError};

/// Memory, and nothing else.
pub struct Memory {
    id: StoreId,
}

impl Memory {
    /// A store with an identity, which should be a new one.
    pub fn new(id: StoreId) -> Self {
        Memory { id }
    }
}

impl Store for Memory {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn id(&self) -> StoreId {
        self.id
    }

    fn commit(&self, _records: &mut [Record<'_>]) -> Result<(), StoreError> {
        Ok(())
    }

    fn change(&self, _update: Update) -> Result<(), StoreError> {
        Ok(())
    }

    fn is_durable(&self) -> bool {
        false
    }
}
