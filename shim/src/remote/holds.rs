//! What this process holds at the server: over a restart of the server, and of its parent's after a fork.
//!
//! Owns: the count of holds, and when the server is told of them. Called by: client, for each new connection; names. Must not: ask anything
//! before the server knows what we hold.

use netmem_protocol::control::{Entry, Keep, Reclaim};
use netmem_protocol::{Epoch, Kind, RegionId};

use super::client::Remote;
use super::connection::{Ask, Trouble};
use super::pool::Lease;
use crate::sys::net::Deadline;

impl Remote {
    /// The server gave us a hold.
    pub(super) fn holds(&self, region: RegionId) {
        *self.identity.lock().holds.entry(region).or_default() += 1;
    }

    /// We are about to give one up.
    pub(super) fn holds_no_more(&self, region: RegionId) {
        let mut identity = self.identity.lock();
        if let Some(count) = identity.holds.get_mut(&region) {
            *count -= 1;
            if *count == 0 {
                identity.holds.remove(&region);
                identity.pending.remove(&region);
            }
        }
    }

    /// What is pending of a region is in that one, and has to be kept if the server is restarted.
    pub fn notes_pending(&self, of: RegionId, pending: RegionId) {
        self.identity.lock().pending.insert(of, pending);
    }

    /// A server that was restarted is told what we hold before anything else: a region without a name would end.
    pub(super) fn reclaim<'a>(
        &self,
        mut lease: Lease<'a>,
        instance: u64,
        deadline: Deadline,
    ) -> Result<Lease<'a>, Trouble> {
        let mut identity = self.identity.lock();
        let known = core::mem::replace(&mut identity.instance, instance);
        let holds: Vec<(RegionId, u32)> = identity.holds.iter().map(|(id, count)| (*id, *count)).collect();
        let pending: Vec<_> = identity.pending.iter().map(|(of, known)| (*of, *known)).collect();
        drop(identity);
        if [0, instance].contains(&known) || instance == 0 || holds.is_empty() {
            return Ok(lease);
        }
        crate::log::debug!(
            "{}: the server was restarted; it is told of {} regions",
            self.server(),
            holds.len()
        );
        let body = Reclaim { holds };
        let ask = Ask { kind: Kind::Reclaim, region: RegionId(0), epoch: Epoch(0), body: &body };
        let mut answer: Result<(), Trouble> =
            lease.get().map_or(Ok(()), |connection| connection.exchange(&ask, deadline));
        for (of, known) in pending {
            let body = Keep { of };
            let ask = Ask { kind: Kind::Keep, region: known, epoch: Epoch(0), body: &body };
            let said: Result<Entry, Trouble> = match (&answer, lease.get()) {
                (Ok(()), Some(connection)) => connection.exchange(&ask, deadline),
                _ => break,
            };
            match said {
                // Another process may have said so, and of what is gone nothing can be had.
                Ok(_) | Err(Trouble::Answer(..)) => {}
                Err(trouble) => answer = Err(trouble),
            }
        }
        let mut identity = self.identity.lock();
        match answer {
            // What a forked child has of its parent's is among them.
            Ok(()) => identity.inheritance = None,
            // The next connection says it.
            Err(_) => identity.instance = known,
        }
        drop(identity);
        answer.map(|()| lease)
    }

    /// In a forked child, first of all: what the parent holds is held here, too.
    pub(super) fn inherit<'a>(&self, mut lease: Lease<'a>, deadline: Deadline) -> Result<Lease<'a>, Trouble> {
        let Some(inherit) = self.identity.lock().inheritance.take() else { return Ok(lease) };
        let ask = Ask { kind: Kind::Inherit, region: RegionId(0), epoch: Epoch(0), body: &inherit };
        let answer = lease.get().map_or(Ok(()), |connection| connection.exchange(&ask, deadline));
        if answer.is_err() {
            self.identity.lock().inheritance = Some(inherit);
        }
        answer.map(|()| lease)
    }

    /// Whether the server knows what a forked child holds. It is told now, if it can be reached at once.
    pub fn tell_what_is_inherited(&self) -> bool {
        let mut patience = self.patience();
        patience.deadline = patience.deadline.min(patience.first_contact);
        if let Ok(lease) = self.lease(&mut patience, true) {
            lease.keep();
        }
        self.identity.lock().inheritance.is_none()
    }
}
