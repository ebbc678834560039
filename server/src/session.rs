//! One connection, from after its hello to its end.
//!
//! Owns: its buffers and what it has staged. Called by: shards, in turns; listen, to open it. Must not: panic, whatever the peer
//! sends; copy pages on their way out that are not packed; keep much memory while nothing is asked.

use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::net::Shutdown;
use std::sync::Arc;
use std::time::{Duration, Instant};

use netmem_protocol::control::StageFrom;
use netmem_protocol::{
    CAPABILITY_PACKED, CAPABILITY_SUMS, CommitId, ErrorCode, FLAG_PACKED, Header, HelloStatus, Kind,
    PAGE_SIZE, PageBody, PageBodyBuilder, ProtocolError, decode_body,
};

use crate::content::{Content, Lent};
use crate::greeting::greet;
use crate::packs;
use crate::refusal::{Answer, Refusal};
use crate::region::Who;
use crate::requests::{Asker, Next, SHORT_STAGE_BYTES, Shared, malformed, may_take_long, refuse, too_long};
use crate::shards::Turn;
use crate::shutdown::Place;
use crate::slab::PageRef;
use crate::staging::{Intake, Staging};
use crate::stats::{self, Lane, Traffic, Unsent};
use crate::wire::{FrameReader, Socket};

/// Bytes of answers that wait for more requests to be answered before they are sent.
const ANSWERS_HELD_MAX: usize = 64 << 10;
/// How long a connection that is ended for a fault is read on, so that the peer gets the answer and not a reset.
const LINGER: Duration = Duration::from_millis(500);
/// Bytes read on at the most then.
const LINGER_BYTES: usize = 4 << 20;
/// Milliseconds that a thread waits for the rest of a frame.
const REST_OF_A_FRAME_MS: u8 = 2;

/// What becomes of a connection after a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// It waits for more to come.
    Waits,
    /// It is over.
    Ends,
}

/// A connection that was greeted.
pub struct Session {
    shared: Arc<Shared>,
    socket: Arc<Socket>,
    who: Who,
    /// Its page bodies have checksums.
    with_sums: bool,
    /// They may be packed.
    packs: bool,
    reader: Option<FrameReader>,
    staging: Staging,
    /// A `Stage` that is being received.
    intake: Option<Intake>,
    /// Answers that are not sent yet.
    out: Vec<u8>,
    builder: PageBodyBuilder,
    /// Its client's counters.
    traffic: Arc<Traffic>,
    /// When the read returned that brought the end of the requests that are served now.
    arrived: Instant,
    /// Those of them whose answers wait in `out`.
    unsent: Unsent,
    /// Given back last.
    place: Place,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.shared.catalog.leave(self.who, Instant::now());
        tracing::debug!(client = %self.who.client, "disconnected");
        self.socket.shutdown(Shutdown::Both);
    }
}

impl Session {
    /// Exchanges hellos. `None`: the connection is over.
    pub fn open(shared: &Arc<Shared>, socket: Arc<Socket>, place: Place) -> io::Result<Option<Session>> {
        let Some((who, capabilities)) = greet(shared, &socket, HelloStatus::Welcome)? else {
            return Ok(None);
        };
        tracing::debug!(client = %who.client, cache = %who.cache, "connected");
        let traffic = shared.catalog.enter(who, socket.peer());
        Ok(Some(Session {
            shared: Arc::clone(shared),
            socket,
            who,
            with_sums: capabilities & CAPABILITY_SUMS != 0,
            packs: capabilities & CAPABILITY_PACKED != 0,
            reader: Some(FrameReader::new(shared.limits.frame_body)),
            staging: Staging::default(),
            intake: None,
            out: Vec::new(),
            builder: PageBodyBuilder::default(),
            traffic,
            arrived: Instant::now(),
            unsent: Unsent::default(),
            place,
        }))
    }

    /// Its socket.
    pub fn socket(&self) -> Arc<Socket> {
        Arc::clone(&self.socket)
    }

    /// Reads what has come and answers the requests that are whole.
    pub fn serve(&mut self, turn: &mut Turn<'_, '_>) -> io::Result<Then> {
        let Some(mut reader) = self.reader.take() else { return Ok(Then::Ends) };
        let then = self.serve_from(&mut reader, turn);
        reader.give_back();
        self.reader = Some(reader);
        if !matches!(then, Ok(Then::Waits)) && !self.staging.is_empty() {
            // What was staged goes with the connection, page by page.
            turn.may_take_long();
        }
        then
    }

    fn serve_from(&mut self, reader: &mut FrameReader, turn: &mut Turn<'_, '_>) -> io::Result<Then> {
        loop {
            match self.receive(reader) {
                Ok(0) => return Ok(Then::Ends),
                Ok(read) => self.received(read),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    // The rest of a frame is on its way: who has a thread to himself may keep it a little longer.
                    if turn.is_alone()
                        && self.is_within_a_frame(reader)
                        && self.socket.readable_within(REST_OF_A_FRAME_MS.into())
                    {
                        continue;
                    }
                    return Ok(Then::Waits);
                }
                Err(error) => return Err(error),
            }
            while self.intake.is_none() {
                match reader.next_frame() {
                    Ok(Some((header, body))) => {
                        if may_take_long(&header, body) {
                            turn.may_take_long();
                        }
                        if self.request(&header, body, turn)? == Next::End {
                            return self.end(turn);
                        }
                        if self.out.len() > ANSWERS_HELD_MAX {
                            self.flush(turn)?;
                        }
                    }
                    Ok(None) => {
                        self.begin_intake(reader, turn);
                        break;
                    }
                    Err(error) => {
                        if let Some(header) = reader.front_header() {
                            self.refuse(&header, &too_long(&error));
                        }
                        return self.end(turn);
                    }
                }
            }
            self.flush(turn)?;
            if !turn.is_alone() && !self.is_within_a_frame(reader) {
                return Ok(Then::Waits);
            }
        }
    }

    fn is_within_a_frame(&self, reader: &FrameReader) -> bool {
        self.intake.is_some() || reader.is_within_a_frame()
    }

    /// Reads once, without waiting: to where the pages of a `Stage` stay, if that is what comes. 0 is the end of the stream.
    fn receive(&mut self, reader: &mut FrameReader) -> io::Result<usize> {
        let Some(mut intake) = self.intake.take() else { return reader.fill(&self.socket, false) };
        let read = self.socket.read_some_into(&mut intake.rest().map(IoSliceMut::new).collect::<Vec<_>>());
        intake.came(*read.as_ref().unwrap_or(&0));
        if intake.is_whole() {
            intake.end(&mut self.staging, self.shared.region_pages_max(), &self.shared.memory);
        } else {
            self.intake = Some(intake);
        }
        read
    }

    /// Of a long `Stage` whose pages are still to come, these are not received into a buffer first.
    fn begin_intake(&mut self, reader: &mut FrameReader, turn: &mut Turn<'_, '_>) {
        let Some((header, start)) = reader.part_of_a_frame() else { return };
        let is_long = header.length > SHORT_STAGE_BYTES && header.length <= self.shared.limits.frame_body;
        let is_packed = self.packs && header.flags & FLAG_PACKED != 0;
        if !is_long || is_packed || header.kind != Kind::Stage as u16 || self.shared.sessions.is_over() {
            return;
        }
        let length = header.length as usize;
        self.intake = Intake::begin(header.region, (start, length), self.with_sums, &self.shared.memory);
        if self.intake.is_some() {
            reader.take_part();
            turn.may_take_long();
        }
    }

    fn lane(&self) -> &Lane {
        self.shared.stats.lane(self.place.number())
    }

    fn received(&mut self, bytes: usize) {
        self.arrived = Instant::now();
        for traffic in [&*self.traffic, &self.lane().traffic] {
            stats::add(&traffic.bytes_in, bytes as u64);
        }
    }

    /// The kernel has taken so many bytes, with all answers that waited.
    fn sent(&mut self, bytes: usize) {
        for traffic in [&*self.traffic, &self.lane().traffic] {
            stats::add(&traffic.bytes_out, bytes as u64);
        }
        let mut unsent = std::mem::take(&mut self.unsent);
        self.lane().sent(&mut unsent, self.arrived);
    }

    fn request(&mut self, header: &Header, body: &[u8], turn: &mut Turn<'_, '_>) -> io::Result<Next> {
        if self.shared.sessions.is_over() {
            let text = "the server is shutting down; connect again";
            self.refuse(header, &Refusal::new(ErrorCode::Closing, text));
            return Ok(Next::End);
        }
        match Kind::from_request(header.kind) {
            Some(Kind::Fetch) => self.fetch(header, body, turn),
            Some(Kind::Stage) => Ok(self.stage(header, body)),
            Some(Kind::StageFrom) => Ok(self.stage_from(header, body)),
            Some(kind) => {
                self.unsent.commits += u32::from(matches!(kind, Kind::Commit | Kind::CommitTogether));
                let lane = self.shared.stats.lane(self.place.number());
                let asker = Asker { who: self.who, counts: [&lane.traffic.counts, &self.traffic.counts] };
                Ok(self.shared.serve(asker, kind, header, body, &mut self.staging, &mut self.out))
            }
            None => {
                let text = format!("message kind {:#06x} is not known to this server", header.kind);
                self.refuse(header, &Refusal::new(ErrorCode::Unsupported, text));
                Ok(Next::Go)
            }
        }
    }

    fn stage(&mut self, header: &Header, body: &[u8]) -> Next {
        let (with_sums, limit) = (self.with_sums, self.shared.limits.frame_body);
        let taken = if self.packs && header.flags & FLAG_PACKED != 0 {
            packs::with(|packs| match packs.unpack(body, with_sums, limit) {
                Err(ProtocolError::Corrupt { .. }) => {
                    let front = named(PageBody::front(body, with_sums)?)?;
                    self.staging.add_unreadable(header.region, &front);
                    Ok(())
                }
                unpacked => self.take_in(header, unpacked?),
            })
        } else {
            self.take_in(header, body)
        };
        match taken {
            Ok(()) => Next::Go,
            Err(error) => {
                self.refuse(header, &malformed(&error));
                Next::End
            }
        }
    }

    fn take_in(&mut self, header: &Header, body: &[u8]) -> Result<(), ProtocolError> {
        let body = named(PageBody::parse(body, self.with_sums)?)?;
        self.staging.add(header.region, &body, self.shared.region_pages_max(), &self.shared.memory);
        Ok(())
    }

    fn stage_from(&mut self, header: &Header, body: &[u8]) -> Next {
        let parsed = decode_body::<StageFrom>(body, "StageFrom").and_then(|body| Ok((body.check()?, body)));
        match parsed {
            Ok((pages, body)) => {
                let most = self.shared.region_pages_max();
                self.staging.add_from(header.region, (&body, pages), most, &self.shared.memory);
                Next::Go
            }
            Err(error) => {
                self.refuse(header, &malformed(&error));
                Next::End
            }
        }
    }

    fn fetch(&mut self, header: &Header, body: &[u8], turn: &mut Turn<'_, '_>) -> io::Result<Next> {
        let body = match PageBody::parse_fetch(body) {
            Ok(body) => body,
            Err(error) => {
                self.refuse(header, &malformed(&error));
                return Ok(Next::End);
            }
        };
        self.unsent.fetches += 1;
        for counts in [&self.traffic.counts, &self.lane().traffic.counts] {
            stats::add(&counts.fetches, 1);
        }
        match self.send_pages(header, &body, turn)? {
            Ok(()) => {}
            Err(refusal) => self.refuse(header, &refusal),
        }
        Ok(Next::Go)
    }

    /// Sends what waits, the front of the answer, and the pages from where they lie.
    fn send_pages(
        &mut self,
        header: &Header,
        body: &PageBody<'_>,
        turn: &mut Turn<'_, '_>,
    ) -> io::Result<Answer<()>> {
        let region = match self.shared.memory.region(header.region) {
            Ok(region) => region,
            Err(refusal) => return Ok(Err(refusal)),
        };
        stats::add(&region.counts.fetches, 1);
        let root = match region.root(header.epoch) {
            Ok(root) => root,
            Err(refusal) => return Ok(Err(refusal)),
        };
        self.builder.clear();
        let mut cursor = root.tree.cursor();
        let mut contents = Vec::new();
        for wire in body.runs() {
            for page in wire.run.first.0..wire.run.end() {
                let content = cursor.get(page);
                self.builder.push_page(page, content.map(Content::sum));
                contents.extend(content);
            }
        }
        let pages = match self.load(&contents, turn) {
            Ok(pages) => pages,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let front = self.out.len();
        let mut answer = Header {
            length: 0,
            kind: Kind::Fetch.answer(),
            flags: 0,
            request: header.request,
            region: header.region,
            epoch: netmem_protocol::Epoch(root.epoch),
        };
        self.out.extend_from_slice(&answer.encode());
        let at = self.out.len();
        answer.length = self.builder.encode(CommitId(0), self.with_sums, &mut self.out);
        self.out[front..at].copy_from_slice(&answer.encode());
        if pages.is_empty() {
            return Ok(Ok(()));
        }
        for counts in [&self.traffic.counts, &self.lane().traffic.counts, &region.counts] {
            stats::add(&counts.pages_sent, pages.len() as u64);
        }
        if self.packs && header.flags & FLAG_PACKED != 0 {
            if pages.len() * PAGE_SIZE > SHORT_STAGE_BYTES as usize {
                turn.may_take_long();
            }
            let packed = self.send_packed((answer, front, at), pages.iter().map(|page| &page[..]))?;
            if let Some((bytes, rest)) = packed {
                drop((pages, contents));
                drop(root);
                if !rest.is_empty() {
                    turn.will_wait();
                    self.socket.write_all(&mut [IoSlice::new(&rest)])?;
                }
                self.sent(bytes);
                self.out.clear();
                return Ok(Ok(()));
            }
        }
        let bytes = self.out.len() + pages.len() * PAGE_SIZE;
        let written = self.socket.write_ready(&mut slices_of(&self.out, pages.iter().map(|page| &**page)))?;
        if written < bytes {
            // A peer that does not read keeps the pages it asked for, and not the epoch that they are of.
            let kept: Vec<PageRef> = pages.into_iter().map(Lent::keep).collect();
            drop(root);
            turn.will_wait();
            let mut slices = slices_of(&self.out, kept.iter());
            let mut rest = &mut slices[..];
            IoSlice::advance_slices(&mut rest, written);
            self.socket.write_all(rest)?;
        }
        self.sent(bytes);
        self.out.clear();
        Ok(Ok(()))
    }

    /// Sends what waits, whose last part from `front` on is the header and from `at` on the front of an answer, with its pages packed, if that
    /// is worth it: then how many bytes that is, and those that the peer does not take now.
    fn send_packed<'a>(
        &mut self,
        (answer, front, at): (Header, usize, usize),
        pages: impl Iterator<Item = &'a [u8]>,
    ) -> io::Result<Option<(usize, Vec<u8>)>> {
        packs::with(|packs| {
            let Some(block) = packs.pack(pages) else { return Ok(None) };
            let length = (self.out.len() - at + block.len()) as u32;
            let answer = Header { flags: FLAG_PACKED, length, ..answer };
            self.out[front..at].copy_from_slice(&answer.encode());
            let bytes = self.out.len() + block.len();
            let written = self.socket.write_ready(&mut [IoSlice::new(&self.out), IoSlice::new(block)])?;
            // Copied, so that a peer that does not read keeps no thread's memory.
            let rest =
                if written < bytes { [&self.out, block].concat().split_off(written) } else { Vec::new() };
            Ok(Some((bytes, rest)))
        })
    }

    /// Pages to be sent. Those that are on a disk may take long.
    fn load<'a>(&self, contents: &[&'a Content], turn: &mut Turn<'_, '_>) -> Answer<Vec<Lent<'a>>> {
        if !contents.iter().all(|content| content.is_at_hand()) {
            turn.may_take_long();
        }
        contents.iter().map(|content| content.load(&self.shared.memory)).collect()
    }

    fn refuse(&mut self, header: &Header, refusal: &Refusal) {
        tracing::debug!(client = %self.who.client, kind = header.kind, code = ?refusal.code, "refused: {refusal}");
        refuse(header, refusal, &mut self.out);
    }

    fn flush(&mut self, turn: &mut Turn<'_, '_>) -> io::Result<()> {
        if self.out.is_empty() {
            return Ok(());
        }
        send(&self.socket, &mut [IoSlice::new(&self.out)], turn)?;
        self.sent(self.out.len());
        self.out.clear();
        Ok(())
    }

    /// Sends the last answer. A socket closed with bytes unread resets the connection, and the peer may lose that answer: so
    /// a little is read on.
    fn end(&mut self, turn: &mut Turn<'_, '_>) -> io::Result<Then> {
        turn.will_wait();
        self.flush(turn)?;
        self.socket.shutdown(Shutdown::Write);
        let deadline = Instant::now() + LINGER;
        let mut scratch = vec![0; 64 << 10];
        let mut left = LINGER_BYTES;
        while left > 0 && read_some(&self.socket, &mut scratch, deadline)? > 0 {
            left = left.saturating_sub(scratch.len());
        }
        Ok(Then::Ends)
    }
}

/// The body of a `Stage`, if it names a commit.
fn named(body: PageBody<'_>) -> Result<PageBody<'_>, ProtocolError> {
    if body.commit == CommitId(0) {
        Err(ProtocolError::Malformed { what: "Stage: commit 0" })
    } else {
        Ok(body)
    }
}

/// What goes out before pages, and the pages.
fn slices_of<'a>(front: &'a [u8], pages: impl Iterator<Item = &'a PageRef>) -> Vec<IoSlice<'a>> {
    std::iter::once(front).chain(pages.map(|page| &page[..])).map(IoSlice::new).collect()
}

/// Sends all of it, without waiting if the peer can take it.
fn send(socket: &Socket, mut slices: &mut [IoSlice<'_>], turn: &mut Turn<'_, '_>) -> io::Result<()> {
    while !turn.is_alone() {
        match socket.write_some(slices) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(written) => {
                IoSlice::advance_slices(&mut slices, written);
                if slices.is_empty() {
                    return Ok(());
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => turn.will_wait(),
            Err(error) => return Err(error),
        }
    }
    socket.write_all(slices)
}

fn read_some(socket: &Socket, bytes: &mut [u8], deadline: Instant) -> io::Result<usize> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Ok(0);
    }
    socket.set_read_timeout(Some(left))?;
    socket.read(bytes, true)
}
