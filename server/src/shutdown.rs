//! Ending: who is connected, and how they are told to finish.
//!
//! Owns: the list of sessions and the flag. Called by: listen, session, the server. Must not: wait longer than it says.

use std::collections::HashMap;
use std::net;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::wire::Socket;

/// How long a server that was told to end takes at the most.
pub const SHUTDOWN_MAX: Duration = Duration::from_secs(5);
/// How long requests that keep coming are served after the server was told to end. What has arrived by then is answered.
pub const DRAIN_MAX: Duration = Duration::from_secs(1);

#[derive(Default)]
struct State {
    since: Option<Instant>,
    last: u64,
    sessions: HashMap<u64, Arc<Socket>>,
}

/// The sessions of a server.
#[derive(Default)]
pub struct Sessions {
    /// Lock order: alone.
    state: Mutex<State>,
    fewer: Condvar,
}

/// A session's place in the list.
pub struct Place {
    sessions: Arc<Sessions>,
    number: u64,
}

/// Why a connection gets no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoPlace {
    /// As many as allowed.
    Full,
    /// The server is ending.
    Closing,
}

impl Sessions {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a new connection, out of `limit`.
    pub fn join(self: &Arc<Self>, socket: &Arc<Socket>, limit: u64) -> Result<Place, NoPlace> {
        let mut state = self.state();
        if state.since.is_some() {
            return Err(NoPlace::Closing);
        }
        if state.sessions.len() as u64 >= limit {
            return Err(NoPlace::Full);
        }
        state.last += 1;
        let number = state.last;
        state.sessions.insert(number, Arc::clone(socket));
        Ok(Place { sessions: Arc::clone(self), number })
    }

    /// Connections now.
    pub fn count(&self) -> u64 {
        self.state().sessions.len() as u64
    }

    /// Whether requests are no longer served.
    pub fn is_over(&self) -> bool {
        self.state().since.is_some_and(|since| since.elapsed() >= DRAIN_MAX)
    }

    /// Tells every session to finish what has arrived, and waits. False if some had to be cut off.
    pub fn end(&self) -> bool {
        let mut state = self.state();
        let since = *state.since.get_or_insert_with(Instant::now);
        for socket in state.sessions.values() {
            socket.shutdown(net::Shutdown::Read);
        }
        while !state.sessions.is_empty() {
            let left = SHUTDOWN_MAX.saturating_sub(since.elapsed());
            if left.is_zero() {
                for socket in state.sessions.values() {
                    socket.shutdown(net::Shutdown::Both);
                }
                return false;
            }
            state = self.fewer.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}

impl Place {
    /// A number that no other connection has had.
    pub fn number(&self) -> u64 {
        self.number
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.sessions.state().sessions.remove(&self.number);
        self.sessions.fewer.notify_all();
    }
}
