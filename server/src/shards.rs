//! Threads that serve many connections: one waits for all of a shard's, and whoever has long work lets another wait meanwhile.
//!
//! Owns: which thread serves which connection when. Called by: listen, with connections that were greeted. Must not: read or write
//! sockets itself.
//!
//! Leader and followers: of a shard's threads one, the leader, waits for its connections and serves them where it waits, without handing
//! anything over. Before a request that may take long, or a write that has to wait for the peer, it takes the connection out of the
//! shard, gives the lead to a follower, and goes on alone; when it is done the connection goes back, and the thread follows.

use std::collections::HashMap;
use std::io;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use crate::session::{Session, Then};
use crate::wire::Socket;

/// Connections that one wait can name.
const EVENTS_MAX: usize = 64;
/// Shards at the most; there is one for each CPU that the server may use.
const SHARDS_MAX: usize = 16;
/// Threads of a shard that wait to lead at the most.
const FOLLOWERS_MAX: usize = 2;
/// Bytes of stack of a thread.
const STACK_BYTES: usize = 512 << 10;
/// The number under which a shard waits for its own end.
const STOP: u64 = 0;

/// All of a server's shards.
pub struct Shards {
    shards: Vec<Arc<Shard>>,
    /// Closing it ends the threads.
    _stop: UnixStream,
}

/// Connections that are waited for together.
struct Shard {
    epoll: Epoll,
    stopped: UnixStream,
    /// Connections that nobody serves just now. Lock order: alone.
    waiting: Mutex<HashMap<u64, Session>>,
    /// Connections, those that are being served counted.
    connections: AtomicUsize,
    /// Held by the leader.
    lead: Mutex<()>,
    followers: AtomicUsize,
    last: AtomicU64,
}

/// One connection's time with a thread.
pub struct Turn<'a, 's> {
    shard: &'a Arc<Shard>,
    lead: Option<MutexGuard<'a, ()>>,
    serving: &'s Socket,
}

impl Shards {
    /// As many as there are CPUs, with a thread each.
    pub fn start() -> io::Result<Shards> {
        let (stop, stopped) = UnixStream::pair()?;
        let count = thread::available_parallelism().map_or(1, |cpus| cpus.get().min(SHARDS_MAX));
        let mut shards = Vec::new();
        for _ in 0..count {
            let shard = Shard {
                epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
                stopped: stopped.try_clone()?,
                waiting: Mutex::default(),
                connections: AtomicUsize::new(0),
                lead: Mutex::new(()),
                followers: AtomicUsize::new(0),
                last: AtomicU64::new(STOP),
            };
            shard.epoll.add(&shard.stopped, EpollEvent::new(EpollFlags::EPOLLIN, STOP))?;
            let shard = Arc::new(shard);
            shard.spawn()?;
            shards.push(shard);
        }
        Ok(Shards { shards, _stop: stop })
    }

    /// Serves a connection from now on.
    pub fn add(&self, session: Session) {
        let Some(shard) = self.shards.iter().min_by_key(|shard| shard.connections.load(Ordering::Relaxed))
        else {
            return;
        };
        shard.connections.fetch_add(1, Ordering::Relaxed);
        let number = shard.last.fetch_add(1, Ordering::Relaxed) + 1;
        shard.wait_for(number, session);
    }
}

impl Shard {
    fn waiting(&self) -> MutexGuard<'_, HashMap<u64, Session>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a connection where the leader sees it. It must not be there.
    fn wait_for(&self, number: u64, session: Session) {
        let socket = session.socket();
        // First where it is looked for, then where it is heard of.
        self.waiting().insert(number, session);
        if let Err(error) = self.epoll.add(&*socket, EpollEvent::new(EpollFlags::EPOLLIN, number)) {
            tracing::warn!("a connection can't be waited for ({error}): it was closed");
            self.connections.fetch_sub(1, Ordering::Relaxed);
            // Its end may free pages, which nobody is to wait for.
            let session = self.waiting().remove(&number);
            drop(session);
        }
    }

    fn spawn(self: &Arc<Self>) -> io::Result<()> {
        let shard = Arc::clone(self);
        let name = "session".to_owned();
        thread::Builder::new().name(name).stack_size(STACK_BYTES).spawn(move || shard.work()).map(drop)
    }

    /// The life of a thread: it follows, leads, serves alone, and follows again if there are not enough that do.
    fn work(self: Arc<Self>) {
        while self.may_follow() {
            let lead = self.lead.lock().unwrap_or_else(PoisonError::into_inner);
            self.followers.fetch_sub(1, Ordering::SeqCst);
            let mut lead = Some(lead);
            while let Some(leading) = lead {
                match self.round(leading) {
                    Ok(still) => lead = still,
                    Err(()) => return,
                }
            }
        }
    }

    /// Counts the thread among those that wait to lead, if there are too few. Nobody is counted who will not: a leader that goes
    /// on alone looks here whether another takes the lead.
    fn may_follow(&self) -> bool {
        let more = |count| (count < FOLLOWERS_MAX).then_some(count + 1);
        self.followers.fetch_update(Ordering::SeqCst, Ordering::SeqCst, more).is_ok()
    }

    /// Waits once and serves who is ready. Gives the lead back, unless it was given up on the way; an error: the server ended.
    fn round<'a>(self: &'a Arc<Self>, lead: MutexGuard<'a, ()>) -> Result<Option<MutexGuard<'a, ()>>, ()> {
        let mut events = [EpollEvent::empty(); EVENTS_MAX];
        let count = match self.epoll.wait(&mut events, EpollTimeout::NONE) {
            Ok(count) => count,
            Err(nix::errno::Errno::EINTR) => 0,
            Err(error) => {
                tracing::error!("cannot wait for connections: {error}");
                return Err(());
            }
        };
        let mut lead = Some(lead);
        for event in &events[..count] {
            let number = event.data();
            if number == STOP {
                return Err(());
            }
            // A connection that is being served alone is not here; its last event may still be.
            let Some(session) = self.waiting().remove(&number) else { continue };
            lead = self.serve(number, session, lead);
            if lead.is_none() {
                // The others are ready for the new leader as well.
                break;
            }
        }
        Ok(lead)
    }

    fn serve<'a>(
        self: &'a Arc<Self>,
        number: u64,
        mut session: Session,
        lead: Option<MutexGuard<'a, ()>>,
    ) -> Option<MutexGuard<'a, ()>> {
        let socket = session.socket();
        let mut turn = Turn { shard: self, lead, serving: &socket };
        let outcome = session.serve(&mut turn);
        let lead = turn.lead;
        match outcome {
            Ok(Then::Waits) if lead.is_some() => drop(self.waiting().insert(number, session)),
            Ok(Then::Waits) => self.wait_for(number, session),
            over => {
                if let Err(error) = over {
                    tracing::debug!("a connection ended: {error}");
                }
                if lead.is_some() {
                    let _ = self.epoll.delete(&*socket);
                }
                self.connections.fetch_sub(1, Ordering::Relaxed);
                drop(session);
            }
        }
        lead
    }
}

impl Turn<'_, '_> {
    /// What comes may take long: others are served meanwhile, if there are others.
    pub fn may_take_long(&mut self) {
        if self.shard.connections.load(Ordering::Relaxed) > 1 {
            self.will_wait();
        }
    }

    /// What comes waits for the peer: whoever else comes is served meanwhile.
    pub fn will_wait(&mut self) {
        let Some(lead) = self.lead.take() else { return };
        let _ = self.shard.epoll.delete(self.serving);
        drop(lead);
        if self.shard.followers.load(Ordering::SeqCst) == 0
            && let Err(error) = self.shard.spawn()
        {
            tracing::warn!("no thread for other connections ({error}): they wait");
        }
    }

    /// Whether the connection has this thread to itself.
    pub fn is_alone(&self) -> bool {
        self.lead.is_none()
    }
}
