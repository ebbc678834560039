//! A stream of the protocol, as far as a wire has to understand it: where each frame ends, and what was sent once, sent again.
//!
//! Owns: that arithmetic, and the second connection. Called by: the proxy, and tests of what comes twice. Must not: look into a request's
//! body.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use netmem_protocol::codec::HEADER_BYTES;
use netmem_protocol::control::ErrorBody;
use netmem_protocol::hello::HELLO_BYTES;
use netmem_protocol::message::ANSWER;
use netmem_protocol::{ErrorCode, FRAME_BODY_MAX, FrameParser, Header, Kind, decode_body};

use crate::hang::patient;

/// How long a server may say nothing to what is sent again.
const LIMIT: Duration = Duration::from_secs(20);

/// A place in a frame. The hello, of 64 bytes, is the first frame of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Before its first byte.
    Front,
    /// In its header.
    Header,
    /// In the middle of its body, or of the header if it has none.
    Middle,
    /// Before its last byte.
    Last,
}

impl Place {
    /// All of them.
    pub const ALL: [Place; 4] = [Place::Front, Place::Header, Place::Middle, Place::Last];

    /// Bytes of a frame of `length` bytes that lie before it.
    fn in_frame(self, length: usize) -> usize {
        match self {
            Place::Front => 0,
            Place::Header => 10,
            Place::Middle if length > HEADER_BYTES => HEADER_BYTES + (length - HEADER_BYTES) / 2,
            Place::Middle => length / 2,
            Place::Last => length - 1,
        }
    }
}

/// A frame in which something is to happen: the one that starts when so many others have, over all connections.
#[derive(Clone, Copy, Debug)]
pub struct Countdown {
    /// Frames that start before it.
    pub left: u64,
    /// Where in it.
    pub place: Place,
    /// It has started.
    pub found: bool,
}

/// Where a stream is in its frames.
#[derive(Debug, Default)]
pub struct Frames {
    greeted: bool,
    /// The frame that is under way has been counted.
    counted: bool,
    /// Its first bytes, four at the most: they say how long it is.
    front: Vec<u8>,
    /// Bytes of it that have gone.
    gone: usize,
    /// It is the one to stop in.
    stop: Option<Place>,
}

impl Frames {
    /// The length of the frame that is under way, as soon as it is known.
    fn length(&self) -> Option<usize> {
        if !self.greeted {
            return Some(HELLO_BYTES);
        }
        let front: [u8; 4] = self.front.as_slice().try_into().ok()?;
        Some(HEADER_BYTES + u32::from_le_bytes(front) as usize)
    }

    /// Takes note of bytes that go on, up to the place that is waited for. How many lie before it, if it is reached.
    pub fn advance(&mut self, bytes: &[u8], countdown: &mut Option<Countdown>) -> Option<usize> {
        let mut at = 0;
        while at < bytes.len() {
            if !self.counted {
                self.counted = true;
                self.stop = countdown.as_mut().and_then(Countdown::start);
            }
            let Some(length) = self.length() else {
                if self.stop == Some(Place::Front) {
                    self.stop = None;
                    return Some(at);
                }
                self.note(&bytes[at..=at]);
                at += 1;
                continue;
            };
            let end = self.stop.map_or(length, |place| place.in_frame(length));
            if self.stop.is_some() && self.gone == end {
                self.stop = None;
                return Some(at);
            }
            let step = (end - self.gone).min(bytes.len() - at);
            self.note(&bytes[at..at + step]);
            at += step;
            if self.gone == length {
                *self = Frames { greeted: true, ..Frames::default() };
            }
        }
        None
    }

    fn note(&mut self, bytes: &[u8]) {
        let room = 4_usize.saturating_sub(self.front.len());
        if self.greeted {
            self.front.extend_from_slice(&bytes[..room.min(bytes.len())]);
        }
        self.gone += bytes.len();
    }
}

impl Countdown {
    /// A frame starts. Where to stop, if it is the one.
    fn start(&mut self) -> Option<Place> {
        if self.found {
            return None;
        }
        self.found = self.left == 0;
        self.left = self.left.saturating_sub(1);
        self.found.then_some(self.place)
    }
}

/// The requests of a recorded stream, each with its bytes; the hello is not among them, nor what is not whole.
pub fn requests(stream: &[u8]) -> Vec<(Kind, &[u8])> {
    let parser = FrameParser { limit: FRAME_BODY_MAX };
    let (mut rest, mut all) = (stream.get(HELLO_BYTES..).unwrap_or_default(), Vec::new());
    while let Some((header, length)) = parser.peek(rest).expect("a client's frames") {
        let kind = Kind::from_request(header.kind).expect("a kind of request");
        all.push((kind, &rest[..length]));
        rest = &rest[length..];
    }
    all
}

/// What a server said to one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The request's kind; `None` if it was refused.
    pub kind: Option<Kind>,
    /// Why.
    pub refused: Option<ErrorCode>,
}

/// A connection on which bytes that another one has carried come again.
#[derive(Debug)]
pub struct Again {
    stream: TcpStream,
    said: JoinHandle<Vec<u8>>,
}

impl Again {
    /// To a server, HOST:PORT.
    pub fn to(server: &str) -> Again {
        let stream = TcpStream::connect(server).expect("the server");
        stream.set_read_timeout(Some(patient(LIMIT))).expect("a limit");
        let mut reader = stream.try_clone().expect("the same connection");
        let said = thread::spawn(move || {
            let mut said = Vec::new();
            reader.read_to_end(&mut said).expect("the server ends the connection");
            said
        });
        Again { stream, said }
    }

    /// Sends bytes. A server that has ended the connection does not take them.
    pub fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// No more comes: waits until the server has answered all of it.
    pub fn answers(self) -> Vec<Answer> {
        let _ = self.stream.shutdown(Shutdown::Write);
        let said = self.said.join().expect("what the server said");
        let parser = FrameParser { limit: FRAME_BODY_MAX };
        let (mut rest, mut all) = (said.get(HELLO_BYTES..).unwrap_or_default(), Vec::new());
        while let Some((header, length)) = parser.peek(rest).expect("a server's frames") {
            all.push(answer(&header, &rest[HEADER_BYTES..length]));
            rest = &rest[length..];
        }
        all
    }
}

fn answer(header: &Header, body: &[u8]) -> Answer {
    if header.kind == Kind::Error as u16 {
        let error: ErrorBody = decode_body(body, "error").expect("an error's body");
        return Answer { kind: None, refused: Some(ErrorCode::from_wire(error.code)) };
    }
    Answer { kind: Kind::from_request(header.kind & !ANSWER), refused: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A hello, and frames with so many bytes of body each.
    fn stream(bodies: &[u32]) -> Vec<u8> {
        let mut all = vec![7; HELLO_BYTES];
        for length in bodies {
            all.extend_from_slice(&length.to_le_bytes());
            all.resize(all.len() + HEADER_BYTES - 4 + *length as usize, 9);
        }
        all
    }

    #[test]
    fn a_stream_stops_at_the_same_byte_however_it_is_cut_into_pieces() {
        let bodies = [0, 1, 500, 3];
        let all = stream(&bodies);
        for left in 0..=bodies.len() as u64 {
            for place in Place::ALL {
                let before =
                    bodies[..(left as usize).saturating_sub(1)].iter().map(|body| 32 + *body as usize);
                let before: usize = before.sum::<usize>() + if left == 0 { 0 } else { HELLO_BYTES };
                let length = if left == 0 { HELLO_BYTES } else { 32 + bodies[left as usize - 1] as usize };
                for piece in [1, 3, 32, 40, all.len()] {
                    let mut countdown = Some(Countdown { left, place, found: false });
                    let (mut frames, mut gone) = (Frames::default(), 0);
                    let stop = all.chunks(piece).find_map(|bytes| {
                        let stop = frames.advance(bytes, &mut countdown);
                        let at = stop.map(|stop| gone + stop);
                        gone += bytes.len();
                        at
                    });
                    assert_eq!(stop, Some(before + place.in_frame(length)), "{left} {place:?} {piece}");
                }
            }
        }
        let mut countdown = Some(Countdown { left: 5, place: Place::Front, found: false });
        assert_eq!(Frames::default().advance(&all, &mut countdown), None, "there is no sixth");
    }
}
