//! One direction of a TCP connection: segments in any order in, a stream out.
//!
//! Where segments overlap, the bytes that came first win: they are what most receivers have
//! already handed to the application. A retransmission with other content is therefore not seen.
//!
//! Offsets are 64 bits wide and their low 32 bits are the TCP sequence number, so that a stream
//! may wrap around as often as it likes (RFC 9293 section 3.4).

use std::collections::BTreeMap;

use crate::segment::{Loss, Nanos};

/// Beyond the largest window that TCP permits (RFC 7323 section 2.3: below 2^30), a sequence number
/// cannot belong to this stream.
const WINDOW: i64 = 1 << 30;

/// What a held piece costs besides its bytes.
const PIECE_COST: usize = 128;

/// Where and when a run of bytes was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    pub at: Nanos,
    /// The acknowledgement number that the segment carried.
    pub ack: Option<u32>,
    /// The bytes begin where their segment began.
    pub starts_segment: bool,
}

/// The next part of the stream.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    Data { offset: u64, bytes: &'a [u8], origin: Origin },
    Gap { offset: u64, len: u64, reason: Loss },
}

#[derive(Debug)]
enum Held {
    Data(Box<[u8]>, Origin),
    Lost(u64, Loss),
}

impl Held {
    fn len(&self) -> u64 {
        match self {
            Self::Data(bytes, _) => bytes.len() as u64,
            Self::Lost(len, _) => *len,
        }
    }
}

#[derive(Debug, Default)]
pub struct Assembler {
    /// Offset of the next byte to yield; 0 until the stream's place is known.
    next: u64,
    held: BTreeMap<u64, Held>,
    held_bytes: usize,
}

/// What a segment (or a report of loss) says about the stream.
#[derive(Clone, Copy, Debug)]
pub struct Arrival<'a> {
    pub seq: u32,
    pub bytes: &'a [u8],
    /// On the wire; `bytes` may be shorter.
    pub len: u32,
    /// Why the rest of `len` is missing.
    pub missing: Loss,
    pub at: Nanos,
    pub ack: Option<u32>,
}

impl Assembler {
    pub fn is_started(&self) -> bool {
        self.next != 0
    }

    /// The stream's next byte has this sequence number. Only the first call counts.
    pub fn start(&mut self, seq: u32) {
        if self.next == 0 {
            self.next = (1 << 32) | u64::from(seq);
        }
    }

    /// Offset of the next byte to yield.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// The offset that a sequence number near the present place stands for.
    pub fn locate(&self, seq: u32) -> u64 {
        let ahead = seq.wrapping_sub(self.next as u32) as i32;
        self.next.saturating_add_signed(i64::from(ahead))
    }

    /// Bytes held, bookkeeping included.
    pub fn memory(&self) -> usize {
        self.held_bytes
    }

    /// Where the first piece begins that waits behind a hole.
    pub fn first_held(&self) -> Option<u64> {
        self.held.first_key_value().map(|(offset, _)| *offset)
    }

    pub fn insert(&mut self, arrival: Arrival<'_>, out: &mut impl FnMut(Piece<'_>)) {
        if arrival.len == 0 {
            return;
        }
        self.start(arrival.seq);
        let seen = &arrival.bytes[..arrival.bytes.len().min(arrival.len as usize)];
        // In order, with nothing waiting: no copy.
        if self.held.is_empty()
            && arrival.seq == self.next as u32
            && seen.len() == arrival.len as usize
        {
            let origin = Origin { at: arrival.at, ack: arrival.ack, starts_segment: true };
            let offset = self.next;
            self.next += seen.len() as u64;
            out(Piece::Data { offset, bytes: seen, origin });
            return;
        }
        let start = self.locate(arrival.seq);
        if start.abs_diff(self.next) > WINDOW as u64 {
            return;
        }
        let (seen_end, end) = (start + seen.len() as u64, start + u64::from(arrival.len));
        self.insert_seen(start, seen, arrival.at, arrival.ack, out);
        if seen_end < end {
            self.hold_lost(seen_end.max(self.next), end, arrival.missing);
        }
        self.drain(out);
    }

    /// The source will never deliver these bytes.
    pub fn lose(&mut self, seq: u32, len: u32, reason: Loss, out: &mut impl FnMut(Piece<'_>)) {
        self.start(seq);
        let start = self.locate(seq);
        if len == 0 || start.abs_diff(self.next) > WINDOW as u64 {
            return;
        }
        self.hold_lost(start.max(self.next), start + u64::from(len), reason);
        self.drain(out);
    }

    /// Gives up waiting for everything below `offset` that is not there.
    pub fn give_up(&mut self, offset: u64, reason: Loss, out: &mut impl FnMut(Piece<'_>)) {
        if self.next == 0 || offset <= self.next {
            return;
        }
        self.hold_lost(self.next, offset, reason);
        self.drain(out);
    }

    /// Gives up the first hole, if anything waits behind one.
    pub fn give_up_first(&mut self, reason: Loss, out: &mut impl FnMut(Piece<'_>)) -> bool {
        let Some(first) = self.first_held() else { return false };
        self.give_up(first, reason, out);
        true
    }

    fn insert_seen(
        &mut self,
        start: u64,
        bytes: &[u8],
        at: Nanos,
        ack: Option<u32>,
        out: &mut impl FnMut(Piece<'_>),
    ) {
        let end = start + bytes.len() as u64;
        let mut cursor = start.max(self.next);
        while cursor < end {
            let covering = self
                .held
                .range(..=cursor)
                .next_back()
                .map(|(offset, held)| (*offset, held.len(), matches!(held, Held::Lost(..))))
                .filter(|(offset, len, _)| offset + len > cursor);
            match covering {
                Some((offset, len, false)) => cursor = offset + len,
                // Said to be lost, and seen all the same (a retransmission).
                Some((offset, len, true)) => self.split_lost(offset, len, cursor, end),
                None => {
                    let stop = self.held.range(cursor..).next().map_or(end, |(o, _)| end.min(*o));
                    let part = &bytes[(cursor - start) as usize..(stop - start) as usize];
                    let origin = Origin { at, ack, starts_segment: cursor == start };
                    if cursor == self.next {
                        self.next = stop;
                        out(Piece::Data { offset: cursor, bytes: part, origin });
                    } else {
                        self.held_bytes += part.len() + PIECE_COST;
                        self.held.insert(cursor, Held::Data(part.into(), origin));
                    }
                    cursor = stop;
                }
            }
        }
    }

    fn split_lost(&mut self, offset: u64, len: u64, from: u64, to: u64) {
        let Some(Held::Lost(_, reason)) = self.held.remove(&offset) else { return };
        self.held_bytes -= PIECE_COST;
        for (start, end) in [(offset, from), (to, offset + len)] {
            if start < end {
                self.held_bytes += PIECE_COST;
                self.held.insert(start, Held::Lost(end - start, reason));
            }
        }
    }

    fn hold_lost(&mut self, start: u64, end: u64, reason: Loss) {
        let mut cursor = start;
        while cursor < end {
            let covered = self.held.range(..=cursor).next_back().map(|(o, h)| o + h.len());
            if let Some(covered) = covered.filter(|covered| *covered > cursor) {
                cursor = covered;
                continue;
            }
            let stop = self.held.range(cursor..).next().map_or(end, |(o, _)| end.min(*o));
            self.held_bytes += PIECE_COST;
            self.held.insert(cursor, Held::Lost(stop - cursor, reason));
            cursor = stop;
        }
    }

    fn drain(&mut self, out: &mut impl FnMut(Piece<'_>)) {
        while let Some(entry) = self.held.first_entry() {
            if *entry.key() > self.next {
                return;
            }
            let (offset, held) = entry.remove_entry();
            self.next = offset + held.len();
            self.held_bytes -= PIECE_COST;
            match held {
                Held::Data(bytes, origin) => {
                    self.held_bytes -= bytes.len();
                    out(Piece::Data { offset, bytes: &bytes, origin });
                }
                Held::Lost(len, reason) => out(Piece::Gap { offset, len, reason }),
            }
        }
    }
}

#[cfg(test)]
#[path = "assembler_tests.rs"]
mod tests;
