//! IP datagrams that came in several pieces (RFC 791 section 3.2, RFC 8200 section 4.5).

use std::collections::{HashMap, VecDeque};

use crate::{
    packet::{Cut, FragmentKey},
    segment::Nanos,
};

const MOST_DATAGRAMS: usize = 256;
const MOST_PIECES: usize = 128;
const LONGEST: usize = 65_535;
/// RFC 8200 section 4.5: a minute.
const PATIENCE: Nanos = 60_000_000_000;

#[derive(Default)]
struct Partial {
    since: Nanos,
    pieces: Vec<(usize, Box<[u8]>)>,
    length: Option<usize>,
}

#[derive(Default)]
pub struct Fragments {
    partial: HashMap<FragmentKey, Partial>,
    order: VecDeque<FragmentKey>,
    bytes: usize,
    /// Fragments let go of: overlapping, cut by the snap length, late or too many.
    pub dropped: u64,
}

impl Fragments {
    /// Takes a fragment; returns the datagram's payload where it was the last one missing.
    pub fn insert(
        &mut self,
        key: FragmentKey,
        offset: usize,
        is_last: bool,
        payload: Cut<'_>,
        at: Nanos,
        memory_limit: usize,
    ) -> Option<Vec<u8>> {
        let end = offset + payload.wire;
        if payload.seen.len() < payload.wire || end > LONGEST {
            self.dropped += 1;
            return None;
        }
        while let Some(oldest) = self.order.front() {
            let is_late =
                self.partial.get(oldest).is_none_or(|p| p.since.saturating_add(PATIENCE) < at);
            let is_full = self.order.len() >= MOST_DATAGRAMS || self.bytes > memory_limit;
            if !is_late && !is_full {
                break;
            }
            if let Some(oldest) = self.order.pop_front() {
                self.forget(&oldest);
            }
        }
        if !self.partial.contains_key(&key) {
            self.order.push_back(key);
        }
        let partial = self.partial.entry(key).or_default();
        if partial.pieces.is_empty() {
            partial.since = at;
        }
        if partial.pieces.iter().any(|(o, b)| *o == offset && **b == *payload.seen) {
            return None;
        }
        // RFC 5722: pieces that overlap spoil the datagram.
        let overlaps = partial.pieces.iter().any(|(o, b)| *o < end && offset < o + b.len());
        if overlaps || partial.pieces.len() >= MOST_PIECES {
            self.dropped += 1;
            self.forget(&key);
            return None;
        }
        self.bytes += payload.seen.len();
        partial.pieces.push((offset, payload.seen.into()));
        if is_last {
            partial.length = Some(end);
        }
        let have: usize = partial.pieces.iter().map(|(_, b)| b.len()).sum();
        if partial.length != Some(have) {
            return None;
        }
        partial.pieces.sort_unstable_by_key(|(o, _)| *o);
        let whole: Vec<u8> = partial.pieces.iter().flat_map(|(_, b)| b.iter().copied()).collect();
        self.bytes -= have;
        self.partial.remove(&key);
        self.order.retain(|k| *k != key);
        Some(whole)
    }

    pub fn finish(&mut self) {
        for key in std::mem::take(&mut self.order) {
            self.forget(&key);
        }
    }

    fn forget(&mut self, key: &FragmentKey) {
        if let Some(partial) = self.partial.remove(key) {
            self.dropped += partial.pieces.len() as u64;
            self.bytes -= partial.pieces.iter().map(|(_, b)| b.len()).sum::<usize>();
        }
        self.order.retain(|k| k != key);
    }
}
