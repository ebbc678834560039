//! A wire that can be cut, between a program and its server.
//!
//! Owns: a listener and two threads for each connection, and what they recorded. Called by: tests of what happens when the server is
//! away. Must not: change a byte, unless it is told to.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::frames::{Countdown, Frames, Place};
use crate::hang::patient;
use crate::model::Dice;

/// How long something that must come may take.
const LIMIT: Duration = Duration::from_secs(20);

/// What happens to the wire at a place that was waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Every connection ends, and new ones are taken.
    Breaks,
    /// Every connection ends, and new ones at once, until it is mended.
    Cut,
    /// Bytes are held, until it is mended; then they go on.
    Stalls,
}

/// What the wire does.
#[derive(Debug, Default)]
struct State {
    /// Connections are ended, and new ones too.
    cut: bool,
    /// Bytes are held.
    stalled: bool,
    /// The server's bytes are held.
    mute: bool,
    /// Parts of a stream that wait now, towards the server and back.
    held: [usize; 2],
    /// Each part of the stream is this late.
    delay: Duration,
    /// And by up to so much more.
    jitter: Option<(Dice, Duration)>,
    /// Bytes towards the server, and back, until the wire is cut by itself.
    left: [Option<u64>; 2],
    /// Bytes that go on at a time; 0: as many as came.
    piece: usize,
    /// A bit of the next part that is longer than a page is changed, towards the server, and back.
    flips: [bool; 2],
    /// The bytes until the cut were counted, and the last of them are on their way.
    spent: bool,
    /// The frame towards the server, and back, in which something is to happen.
    countdowns: [Option<Countdown>; 2],
    /// And what.
    fate: Option<Fate>,
    /// It has happened.
    met: bool,
    /// What each connection carried towards the server, where that is wanted.
    records: Option<Vec<Vec<u8>>>,
    live: Vec<TcpStream>,
    /// Connections that were made in all.
    made: usize,
    ended: bool,
}

#[derive(Debug, Default)]
struct Wire {
    state: Mutex<State>,
    changed: Condvar,
}

/// A wire.
#[derive(Debug)]
pub struct Proxy {
    wire: Arc<Wire>,
    url: String,
    port: u16,
}

impl Wire {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits while the wire is stalled, and counts. How many of the bytes go on; `None`: the wire is cut.
    fn pass(&self, bytes: usize, towards_server: bool) -> Option<usize> {
        let (mut state, direction) = (self.lock(), usize::from(!towards_server));
        state.held[direction] += 1;
        self.changed.notify_all();
        while (state.stalled || state.mute && !towards_server) && !state.cut && !state.ended {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.held[direction] -= 1;
        let open = !state.cut && !state.ended;
        let mut go = bytes;
        if let Some(left) = state.left[direction].filter(|_| open) {
            go = bytes.min(left as usize);
            state.left[direction] = Some(left - go as u64);
            if go < bytes {
                state.spent = true;
            }
        }
        let more = state.jitter.as_mut().map(|(dice, most)| dice.below(most.as_nanos() as u64));
        let delay = state.delay + more.map_or(Duration::ZERO, Duration::from_nanos);
        drop(state);
        // Not to wait for something: the delay is what is tested.
        thread::sleep(delay);
        open.then_some(go)
    }

    /// Changes a bit of a part, if one is to be changed and the part has one that lies in a page.
    fn flip(&self, part: &mut [u8], towards_server: bool) {
        const BEHIND_FRONT: usize = 4096 + 1024;
        let mut state = self.lock();
        let flip = &mut state.flips[usize::from(!towards_server)];
        if *flip && part.len() >= BEHIND_FRONT {
            *flip = false;
            let at = part.len() - 1000;
            part[at] ^= 0x10;
        }
    }

    /// How many of these bytes go on before something is to happen, and what.
    fn until_fate(&self, frames: &mut Frames, bytes: &[u8], towards_server: bool) -> (usize, Option<Fate>) {
        let mut state = self.lock();
        match frames.advance(bytes, &mut state.countdowns[usize::from(!towards_server)]) {
            Some(before) => (before, state.fate),
            None => (bytes.len(), None),
        }
    }

    /// The place has come.
    fn meet(&self, fate: Fate) {
        let mut state = self.lock();
        state.met = true;
        match fate {
            Fate::Breaks => end_all(&mut state),
            Fate::Cut => cut(&mut state),
            Fate::Stalls => state.stalled = true,
        }
        self.changed.notify_all();
    }

    /// Keeps what a connection carries.
    fn record(&self, connection: usize, bytes: &[u8]) {
        if let Some(records) = &mut self.lock().records {
            records.resize_with(records.len().max(connection + 1), Vec::new);
            records[connection].extend_from_slice(bytes);
        }
    }

    /// The bytes until the cut have gone.
    fn end_if_spent(&self) {
        let mut state = self.lock();
        if state.spent {
            cut(&mut state);
            self.changed.notify_all();
        }
    }
}

fn cut(state: &mut State) {
    state.cut = true;
    end_all(state);
}

fn end_all(state: &mut State) {
    for stream in state.live.drain(..) {
        let _ = stream.shutdown(Shutdown::Both);
    }
}

impl Proxy {
    /// A wire to `server`, HOST:PORT, in good order.
    pub fn to(server: &str) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("its address").port();
        let wire = Arc::new(Wire::default());
        let (server, ours) = (server.to_owned(), Arc::clone(&wire));
        thread::spawn(move || {
            for near in listener.incoming() {
                if ours.lock().ended {
                    break;
                }
                match near {
                    Ok(near) => connect(&ours, near, &server),
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(_) => break,
                }
            }
        });
        Proxy { wire, url: format!("tcp://127.0.0.1:{port}"), port }
    }

    /// What NETMEM_SERVER must be.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Ends every connection, and each new one at once.
    pub fn cut(&self) {
        cut(&mut self.wire.lock());
        self.wire.changed.notify_all();
    }

    /// Cuts the wire when this many more bytes have gone towards the server.
    pub fn cut_after(&self, bytes: u64) {
        self.wire.lock().left[0] = Some(bytes);
    }

    /// The same for bytes that come from the server.
    pub fn cut_after_answers(&self, bytes: u64) {
        self.wire.lock().left[1] = Some(bytes);
    }

    /// Something happens in the frame that starts, towards the server or back, when `frames` others have.
    pub fn in_frame(&self, towards_server: bool, frames: u64, place: Place, fate: Fate) {
        let mut state = self.wire.lock();
        let countdown = Countdown { left: frames, place, found: false };
        state.countdowns[usize::from(!towards_server)] = Some(countdown);
        (state.fate, state.met) = (Some(fate), false);
    }

    /// Waits until it has happened.
    pub fn wait_until_met(&self) {
        let (mut state, until) = (self.wire.lock(), Instant::now() + patient(LIMIT));
        while !state.met {
            let left = until.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "the frame did not come in {LIMIT:?}");
            (state, _) = self.wire.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Whether it has happened.
    pub fn is_met(&self) -> bool {
        self.wire.lock().met
    }

    /// Keeps what every connection from now on carries towards the server, whether it goes on or not.
    pub fn record(&self) {
        self.wire.lock().records = Some(Vec::new());
    }

    /// What was kept, a stream for each connection.
    pub fn recorded(&self) -> Vec<Vec<u8>> {
        let records = self.wire.lock().records.clone().unwrap_or_default();
        records.into_iter().filter(|record| !record.is_empty()).collect()
    }

    /// Waits until it is cut, or for `limit`. Whether it is.
    pub fn wait_until_cut(&self, limit: Duration) -> bool {
        let (mut state, until) = (self.wire.lock(), Instant::now() + limit);
        while !state.cut {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            (state, _) = self.wire.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner);
        }
        true
    }

    /// Changes a bit of the next pages that go to the server, or that come from it.
    pub fn flip_a_bit(&self, towards_server: bool) {
        self.wire.lock().flips[usize::from(!towards_server)] = true;
    }

    /// Whether that is still to come.
    pub fn is_to_flip(&self) -> bool {
        self.wire.lock().flips.contains(&true)
    }

    /// Passes on so many bytes at a time from now on; 0: as they come.
    pub fn split(&self, bytes: usize) {
        self.wire.lock().piece = bytes;
    }

    /// Takes bytes and connections, and passes nothing on.
    pub fn stall(&self) {
        self.wire.lock().stalled = true;
    }

    /// Passes on what goes to the server, and nothing that comes from it.
    pub fn mute(&self) {
        self.wire.lock().mute = true;
    }

    /// Waits until a stalled wire holds a request, or a mute one an answer.
    pub fn wait_until_held(&self) {
        let (mut state, until) = (self.wire.lock(), Instant::now() + LIMIT);
        while state.held[usize::from(state.mute)] == 0 {
            let left = until.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "nothing came in {LIMIT:?}");
            (state, _) = self.wire.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Makes each part of the stream late.
    pub fn delay(&self, delay: Duration) {
        self.wire.lock().delay = delay;
    }

    /// Makes each part of the stream late by some time that differs from part to part, up to this; the times follow from a seed.
    pub fn jitter(&self, most: Duration) {
        self.wire.lock().jitter = Some((Dice(1), most));
    }

    /// All well again.
    pub fn heal(&self) {
        let mut state = self.wire.lock();
        (state.cut, state.stalled, state.mute, state.spent) = (false, false, false, false);
        (state.left, state.piece) = ([None; 2], 0);
        (state.countdowns, state.fate) = ([None; 2], None);
        (state.delay, state.jitter) = (Duration::ZERO, None);
        drop(state);
        self.wire.changed.notify_all();
    }

    /// Whether the wire is cut, by us or after its bytes.
    pub fn is_cut(&self) -> bool {
        self.wire.lock().cut
    }

    /// Connections so far.
    pub fn connections(&self) -> usize {
        self.wire.lock().made
    }
}

fn connect(wire: &Arc<Wire>, near: TcpStream, server: &str) {
    let mut state = wire.lock();
    let number = state.made;
    state.made += 1;
    if state.cut {
        let _ = near.shutdown(Shutdown::Both);
        return;
    }
    let Ok(far) = TcpStream::connect(server) else { return };
    for stream in [&near, &far] {
        let _ = stream.set_nodelay(true);
        state.live.extend(stream.try_clone());
    }
    drop(state);
    let copies = (near.try_clone(), far.try_clone());
    let (Ok(near_too), Ok(far_too)) = copies else { return };
    for (from, to, towards_server) in [(near, far, Some(number)), (far_too, near_too, None)] {
        let wire = Arc::clone(wire);
        thread::spawn(move || pump(&wire, from, to, towards_server));
    }
}

/// Carries one direction of a connection, towards the server if it has that connection's number.
fn pump(wire: &Wire, mut from: TcpStream, mut to: TcpStream, number: Option<usize>) {
    let mut part = vec![0; 64 << 10];
    let mut frames = Frames::default();
    loop {
        let piece = match wire.lock().piece {
            0 => part.len(),
            piece => piece.min(part.len()),
        };
        let Ok(count @ 1..) = from.read(&mut part[..piece]) else { break };
        if let Some(number) = number {
            wire.record(number, &part[..count]);
        }
        if !carry(wire, &mut to, &mut frames, &mut part[..count], number.is_some()) {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}

/// Passes a part on, and says whether the connection goes on.
fn carry(
    wire: &Wire,
    to: &mut TcpStream,
    frames: &mut Frames,
    mut part: &mut [u8],
    towards_server: bool,
) -> bool {
    while !part.is_empty() {
        let (count, fate) = wire.until_fate(frames, part, towards_server);
        let (now, rest) = part.split_at_mut(count);
        if count > 0 {
            let Some(go) = wire.pass(count, towards_server) else { return false };
            wire.flip(&mut now[..go], towards_server);
            let written = to.write_all(&now[..go]);
            if go < count {
                wire.end_if_spent();
            }
            if written.is_err() || go < count {
                return false;
            }
        }
        if let Some(fate) = fate {
            wire.meet(fate);
            if fate != Fate::Stalls {
                return false;
            }
        }
        part = rest;
    }
    true
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let mut state = self.wire.lock();
        state.ended = true;
        cut(&mut state);
        drop(state);
        self.wire.changed.notify_all();
        // The listener's thread wakes up and sees that it is over.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}
