//! The connections of a process: at most [`CONNECTIONS_MAX`], each used by one thread at a time.
//!
//! Owns: which connection is free, and the descriptors of all. Called by: client. Must not: take a lock: threads come here
//! from inside a fault handler, and a forked child finds whatever its parent was doing.

use core::sync::atomic::{AtomicI32, AtomicU32, Ordering};

use super::RemoteStats;
use super::connection::Connection;
use crate::sys::futex;
use crate::sys::net::{Deadline, Parking, close_abandoned};

/// Connections of one process to its server at the most.
pub const CONNECTIONS_MAX: usize = 8;

/// Nobody has this place.
const FREE: i32 = -1;
/// Someone is about to open a socket for it.
const RESERVED: i32 = -2;

#[derive(Debug)]
pub(super) struct Pool {
    /// The descriptor of each place's connection, idle or in use; or one of the two above.
    descriptors: [AtomicI32; CONNECTIONS_MAX],
    idle: [Parking<Connection>; CONNECTIONS_MAX],
    /// Grows whenever a place or a connection becomes free.
    returns: AtomicU32,
    waiters: AtomicU32,
    pub(super) stats: RemoteStats,
}

/// What [`Pool::take`] found.
#[derive(Debug)]
pub(super) enum Taken<'a> {
    /// An open connection.
    Open(Lease<'a>),
    /// Room for another one.
    Room(Place<'a>),
}

impl Pool {
    pub(super) const fn new() -> Self {
        Pool {
            descriptors: [const { AtomicI32::new(FREE) }; CONNECTIONS_MAX],
            idle: [const { Parking::new() }; CONNECTIONS_MAX],
            returns: AtomicU32::new(0),
            waiters: AtomicU32::new(0),
            stats: RemoteStats::new(),
        }
    }

    /// An idle connection, else room for one, else waits for either; `None` when the deadline is over. The first place comes
    /// first, so that a program with one thread keeps to one warm connection.
    pub(super) fn take(&self, deadline: Deadline) -> Option<Taken<'_>> {
        loop {
            let seen = self.returns.load(Ordering::SeqCst);
            if let Some(connection) = self.idle.iter().find_map(Parking::take) {
                return Some(Taken::Open(Lease { pool: self, connection: Some(connection) }));
            }
            for (slot, descriptor) in self.descriptors.iter().enumerate() {
                if descriptor.compare_exchange(FREE, RESERVED, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                    return Some(Taken::Room(Place { pool: self, slot, used: false }));
                }
            }
            let left = deadline.remaining();
            if left.is_some_and(|left| left.is_zero()) {
                return None;
            }
            self.waiters.fetch_add(1, Ordering::SeqCst);
            futex::wait(&self.returns, seen, left);
            self.waiters.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// Drops what is idle: after a connection broke, its neighbours are as old as it was.
    pub(super) fn drop_idle(&self) {
        for connection in self.idle.iter().filter_map(Parking::take) {
            drop(Lease { pool: self, connection: Some(connection) });
        }
    }

    /// In a forked child: closes our copies of all sockets, says nothing on them, and starts anew.
    pub(super) fn forget(&self) {
        for (descriptor, idle) in self.descriptors.iter().zip(&self.idle) {
            let raw = descriptor.swap(FREE, Ordering::AcqRel);
            if raw >= 0 {
                close_abandoned(raw);
            }
            if let Some(connection) = idle.take() {
                connection.socket.abandon();
            }
        }
        self.waiters.store(0, Ordering::SeqCst);
    }

    /// Adds what a connection has moved since the last time.
    fn count(&self, connection: &mut Connection) {
        let stats = &self.stats;
        stats.bytes_in.fetch_add(core::mem::take(&mut connection.bytes_in), Ordering::Relaxed);
        stats.bytes_out.fetch_add(core::mem::take(&mut connection.bytes_out), Ordering::Relaxed);
    }

    fn free(&self, slot: usize) {
        if let Some(descriptor) = self.descriptors.get(slot) {
            descriptor.store(FREE, Ordering::Release);
        }
        self.announce();
    }

    fn announce(&self) {
        self.returns.fetch_add(1, Ordering::SeqCst);
        if self.waiters.load(Ordering::SeqCst) > 0 {
            futex::wake(&self.returns, 1);
        }
    }
}

/// A connection on loan. Dropped, it is closed; only [`Lease::keep`] gives it back, when nothing went wrong on it.
#[derive(Debug)]
pub(super) struct Lease<'a> {
    pool: &'a Pool,
    connection: Option<Box<Connection>>,
}

impl Lease<'_> {
    /// The connection; `None` once it is kept.
    pub(super) fn get(&mut self) -> Option<&mut Connection> {
        self.connection.as_deref_mut()
    }

    /// Whether the connection still stands, as far as this host knows.
    pub(super) fn is_quiet(&self) -> bool {
        self.connection.as_ref().is_some_and(|connection| connection.socket.is_quiet())
    }

    /// Back to the others, unless something came on it that nobody asked for.
    pub(super) fn keep(mut self) {
        if !self.connection.as_ref().is_some_and(|connection| connection.is_clean()) {
            return;
        }
        let Some(mut connection) = self.connection.take() else { return };
        self.pool.count(&mut connection);
        let Some(idle) = self.pool.idle.get(connection.slot) else { return };
        // The place is this connection's alone, so nothing is in it.
        drop(idle.park(connection));
        self.pool.announce();
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        let Some(mut connection) = self.connection.take() else { return };
        self.pool.count(&mut connection);
        let Connection { socket, slot, .. } = *connection;
        let raw = socket.raw();
        let ours = self.pool.descriptors.get(slot).is_some_and(|descriptor| {
            descriptor.compare_exchange(raw, RESERVED, Ordering::AcqRel, Ordering::Relaxed).is_ok()
        });
        if ours {
            // A child that was forked at a bad moment may still have a copy: end the connection itself, too.
            socket.shut_down();
            drop(socket);
            self.pool.free(slot);
        } else {
            // This is a child whose copies were closed while this lease was out; the number may be someone else's by now.
            socket.abandon();
        }
    }
}

/// Room for one connection. Dropped unused, it is free again.
#[derive(Debug)]
pub(super) struct Place<'a> {
    pool: &'a Pool,
    slot: usize,
    used: bool,
}

impl<'a> Place<'a> {
    /// Its number.
    pub(super) fn slot(&self) -> usize {
        self.slot
    }

    /// Notes the socket of an attempt to connect, so that a forked child can close it.
    pub(super) fn note(&self, raw: i32) {
        if let Some(descriptor) = self.pool.descriptors.get(self.slot) {
            descriptor.store(raw, Ordering::Release);
        }
    }

    /// Forgets it again, before the socket is closed.
    pub(super) fn forget(&self) {
        self.note(RESERVED);
    }

    /// Fills it.
    pub(super) fn fill(mut self, connection: Connection) -> Lease<'a> {
        self.used = true;
        Lease { pool: self.pool, connection: Some(Box::new(connection)) }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if !self.used {
            self.pool.free(self.slot);
        }
    }
}
