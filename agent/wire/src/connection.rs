//! One connection: two streams, and the order in which their bytes may be read.

use std::collections::VecDeque;

use crate::{
    assembler::{Arrival, Assembler},
    pairing::{Context, Pairing},
    segment::{Direction, Endpoints, FlowId, Loss, Nanos, Segment},
};

/// How many events a hole may outlive the proof that it is one: a capture may show an
/// acknowledgement shortly before the bytes that it acknowledges.
const PATIENCE: u32 = 3;
/// Response segments that wait for the request bytes that they acknowledge.
const MOST_WAITING: usize = 16;
const LONGEST_WAIT: Nanos = 1_000_000_000;

#[derive(Default)]
struct Half {
    assembler: Assembler,
    /// Offset behind the last byte, once a FIN was seen.
    fin: Option<u64>,
    /// What the peer acknowledged, as an offset of this half.
    acked: u64,
    /// Events since it was proven that the first hole will not be filled.
    stalled: u32,
}

impl Half {
    fn is_stalled(&self) -> bool {
        self.assembler.first_held().is_some_and(|_| self.acked > self.assembler.next())
    }

    fn is_ended(&self) -> bool {
        self.fin.is_some_and(|fin| self.assembler.next() >= fin)
    }
}

/// A segment of the server that came before what it answers.
struct Waiting {
    at: Nanos,
    seq: u32,
    ack: Option<u32>,
    len: u32,
    missing: Loss,
    bytes: Box<[u8]>,
}

pub(crate) struct Connection {
    pairing: Pairing,
    to_server: Half,
    to_client: Half,
    waiting: VecDeque<Waiting>,
    waiting_bytes: usize,
    is_reset: bool,
    pub last_seen: Nanos,
    /// As last told to the reader's account.
    pub accounted: usize,
}

impl Connection {
    pub fn new(flow: FlowId, endpoints: Endpoints, from_start: bool, at: Nanos) -> Self {
        Self {
            pairing: Pairing::new(flow, endpoints, from_start),
            to_server: Half::default(),
            to_client: Half::default(),
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            is_reset: false,
            last_seen: at,
            accounted: 0,
        }
    }

    pub fn endpoints(&self) -> Endpoints {
        self.pairing.endpoints()
    }

    pub fn is_not_http(&self) -> bool {
        self.pairing.is_not_http
    }

    /// Nothing of this connection will be read any more.
    pub fn is_over(&self) -> bool {
        self.pairing.is_over()
    }

    pub fn memory(&mut self) -> usize {
        size_of::<Self>()
            + self.pairing.memory()
            + self.to_server.assembler.memory()
            + self.to_client.assembler.memory()
            + self.waiting_bytes
    }

    pub fn take_segment(&mut self, segment: &Segment<'_>, cx: &mut Context<'_>) {
        self.last_seen = self.last_seen.max(segment.at);
        self.is_reset |= segment.rst;
        let seq = segment.seq.wrapping_add(u32::from(segment.syn));
        let (half, peer) = match segment.direction {
            Direction::ToServer => (&mut self.to_server, &mut self.to_client),
            Direction::ToClient => (&mut self.to_client, &mut self.to_server),
        };
        // A reset's numbers may be anything (RFC 9293 section 3.10.7.1).
        if !segment.rst {
            if segment.syn || segment.len > 0 {
                half.assembler.start(seq);
            }
            if let Some(ack) = segment.ack {
                peer.assembler.start(ack);
                peer.acked = peer.acked.max(peer.assembler.locate(ack));
            }
        }
        if segment.fin && half.assembler.is_started() {
            let end = half.assembler.locate(seq.wrapping_add(segment.len));
            half.fin.get_or_insert(end);
        }
        let missing = segment.missing.unwrap_or(Loss::Unseen);
        let arrival = Arrival {
            seq,
            bytes: segment.data,
            len: segment.len,
            missing,
            at: segment.at,
            ack: segment.ack,
        };
        match segment.direction {
            Direction::ToServer => self.insert_to_server(arrival, cx),
            Direction::ToClient if self.must_wait(segment.ack) && segment.len > 0 => {
                self.waiting_bytes += segment.data.len() + size_of::<Waiting>();
                self.waiting.push_back(Waiting {
                    at: segment.at,
                    seq,
                    ack: segment.ack,
                    len: segment.len,
                    missing,
                    bytes: segment.data.into(),
                });
            }
            Direction::ToClient => self.insert_to_client(arrival, cx),
        }
        self.settle(segment.at, cx);
    }

    pub fn take_loss(
        &mut self,
        direction: Direction,
        at: Nanos,
        seq: u32,
        len: u32,
        reason: Loss,
        cx: &mut Context<'_>,
    ) {
        self.last_seen = self.last_seen.max(at);
        let (pairing, locate) = (&mut self.pairing, locate_in);
        match direction {
            Direction::ToServer => {
                let peer = self.to_client.assembler.next();
                self.to_server.assembler.lose(seq, len, reason, &mut |piece| {
                    pairing.take_from_client(piece, |ack| locate(peer, ack), cx);
                });
            }
            Direction::ToClient => {
                self.release(cx, true);
                let peer = self.to_server.assembler.next();
                let pairing = &mut self.pairing;
                self.to_client.assembler.lose(seq, len, reason, &mut |piece| {
                    pairing.take_from_server(piece, |ack| locate(peer, ack), cx);
                });
            }
        }
        self.settle(at, cx);
    }

    /// `is_clean`: the source says that the connection is over, and so all of it was shown.
    pub fn close(&mut self, is_clean: bool, cx: &mut Context<'_>) {
        // Without a FIN the last acknowledgement may or may not count one.
        let end_of = |half: &Half| half.fin.unwrap_or(half.acked.saturating_sub(1));
        let (client_end, server_end) = (end_of(&self.to_server), end_of(&self.to_client));
        self.give_up_to_server(client_end, cx);
        self.flush_to_server(cx);
        self.release(cx, true);
        self.give_up_to_client(server_end, cx);
        while let Some(first) = self.to_client.assembler.first_held() {
            self.give_up_to_client(first, cx);
        }
        self.end_streams(cx);
        self.pairing.close(is_clean && !self.is_reset, cx);
    }

    /// Gives up on what has been waiting since before `deadline`.
    pub fn expire_holes(&mut self, now: Nanos, cx: &mut Context<'_>) {
        if self.last_seen.saturating_add(LONGEST_WAIT) > now {
            return;
        }
        if self.to_server.is_stalled() {
            self.flush_to_server(cx);
        }
        self.release(cx, true);
        if self.to_client.is_stalled() {
            while let Some(first) = self.to_client.assembler.first_held() {
                self.give_up_to_client(first, cx);
            }
        }
        self.end_streams(cx);
    }

    /// Lets go of what is held out of order, largest holder first, until `limit` is met.
    pub fn shrink(&mut self, limit: usize, cx: &mut Context<'_>) {
        while self.memory() > limit {
            let (up, down) = (self.to_server.assembler.memory(), self.to_client.assembler.memory());
            if up == 0 && down == 0 && self.waiting.is_empty() {
                break;
            }
            if up >= down && up > 0 {
                if let Some(first) = self.to_server.assembler.first_held() {
                    self.give_up_to_server(first, cx);
                }
            } else if let Some(first) = self.to_client.assembler.first_held() {
                self.give_up_to_client(first, cx);
            } else {
                self.release(cx, true);
            }
        }
    }

    // --- streams ------------------------------------------------------------------------------

    fn insert_to_server(&mut self, arrival: Arrival<'_>, cx: &mut Context<'_>) {
        let peer = self.to_client.assembler.next();
        let pairing = &mut self.pairing;
        self.to_server.assembler.insert(arrival, &mut |piece| {
            pairing.take_from_client(piece, |ack| locate_in(peer, ack), cx);
        });
    }

    fn insert_to_client(&mut self, arrival: Arrival<'_>, cx: &mut Context<'_>) {
        let peer = self.to_server.assembler.next();
        let pairing = &mut self.pairing;
        self.to_client.assembler.insert(arrival, &mut |piece| {
            pairing.take_from_server(piece, |ack| locate_in(peer, ack), cx);
        });
    }

    fn give_up_to_server(&mut self, offset: u64, cx: &mut Context<'_>) {
        let peer = self.to_client.assembler.next();
        let pairing = &mut self.pairing;
        self.to_server.assembler.give_up(offset, Loss::Unseen, &mut |piece| {
            pairing.take_from_client(piece, |ack| locate_in(peer, ack), cx);
        });
    }

    fn give_up_to_client(&mut self, offset: u64, cx: &mut Context<'_>) {
        let peer = self.to_server.assembler.next();
        let pairing = &mut self.pairing;
        self.to_client.assembler.give_up(offset, Loss::Unseen, &mut |piece| {
            pairing.take_from_server(piece, |ack| locate_in(peer, ack), cx);
        });
    }

    fn flush_to_server(&mut self, cx: &mut Context<'_>) {
        while let Some(first) = self.to_server.assembler.first_held() {
            self.give_up_to_server(first, cx);
        }
    }

    // --- order between the streams ------------------------------------------------------------

    /// A response cannot be read before its request. Where the server acknowledges client bytes
    /// that have not come by, and no request waits for an answer, the request is among those.
    fn must_wait(&self, ack: Option<u32>) -> bool {
        if !self.waiting.is_empty() {
            return true;
        }
        let client = &self.to_server.assembler;
        let is_ahead =
            ack.is_some_and(|ack| client.is_started() && client.locate(ack) > client.next());
        is_ahead
            && !self.pairing.awaits_response()
            && !self.pairing.is_over()
            && !self.is_fin_only(ack)
    }

    /// The acknowledgement covers nothing unseen but the client's FIN.
    fn is_fin_only(&self, ack: Option<u32>) -> bool {
        let client = &self.to_server;
        client.is_ended()
            && ack.is_some_and(|ack| client.assembler.locate(ack) <= client.assembler.next() + 1)
    }

    /// Reads waiting segments as far as they may be read; all of them if `is_forced`.
    fn release(&mut self, cx: &mut Context<'_>, is_forced: bool) {
        while let Some(first) = self.waiting.front() {
            let client = &self.to_server.assembler;
            let covered = first.ack.map_or(0, |ack| client.locate(ack));
            if covered > client.next() && !self.pairing.awaits_response() {
                if !is_forced {
                    return;
                }
                // The server had these bytes, so they will not be seen any more.
                self.give_up_to_server(covered, cx);
            }
            let Some(first) = self.waiting.pop_front() else { return };
            self.waiting_bytes -= first.bytes.len() + size_of::<Waiting>();
            let arrival = Arrival {
                seq: first.seq,
                bytes: &first.bytes,
                len: first.len,
                missing: first.missing,
                at: first.at,
                ack: first.ack,
            };
            self.insert_to_client(arrival, cx);
        }
    }

    /// After every event: what can be read now, and which holes are proven.
    fn settle(&mut self, at: Nanos, cx: &mut Context<'_>) {
        if self.to_server.is_stalled() {
            self.to_server.stalled += 1;
            if self.to_server.stalled > PATIENCE
                && let Some(first) = self.to_server.assembler.first_held()
            {
                self.to_server.stalled = 0;
                self.give_up_to_server(first.min(self.to_server.acked), cx);
            }
        } else {
            self.to_server.stalled = 0;
        }
        if !self.waiting.is_empty() {
            let is_late = self.waiting.len() > MOST_WAITING
                || self.waiting_bytes > 256 << 10
                || self.waiting.front().is_some_and(|w| w.at.saturating_add(LONGEST_WAIT) < at);
            self.release(cx, is_late);
        }
        if self.to_client.is_stalled() {
            self.to_client.stalled += 1;
            if self.to_client.stalled > PATIENCE
                && let Some(first) = self.to_client.assembler.first_held()
            {
                self.to_client.stalled = 0;
                self.give_up_to_client(first.min(self.to_client.acked), cx);
            }
        } else {
            self.to_client.stalled = 0;
        }
        self.end_streams(cx);
    }

    fn end_streams(&mut self, cx: &mut Context<'_>) {
        if self.to_client.is_ended() && self.waiting.is_empty() && !self.is_reset {
            self.pairing.end_server(cx);
        }
    }
}

/// The offset, in a stream whose next byte is at `next`, that a sequence number stands for.
fn locate_in(next: u64, seq: u32) -> u64 {
    next.saturating_add_signed(i64::from(seq.wrapping_sub(next as u32) as i32))
}
