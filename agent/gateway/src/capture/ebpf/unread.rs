//! What the kernel counts as captured and nobody read: it is lost all the same.

use std::collections::BTreeMap;

use stoa_common::{
    record::{HEADER_LEN, RecordHeader, direction, kind},
    tally::Amount,
};

use super::records;

/// Amounts by slot.
#[derive(Default)]
pub(super) struct Unread {
    by_slot: BTreeMap<u32, Amount>,
    /// Exchanges whose request was among it; of several in one segment only one is told.
    exchanges: BTreeMap<u32, u64>,
    current: Option<Current>,
}

/// The segment whose records are being counted.
struct Current {
    flow: u64,
    direction: u8,
    at: u64,
    slot: u32,
    is_whole: bool,
}

impl Unread {
    /// Counts one record as the ring has it.
    pub(super) fn add_record(&mut self, record: &[u8]) {
        if let Some(header) = records::read::<RecordHeader>(record) {
            self.add(&header, record.get(HEADER_LEN..).unwrap_or_default());
        }
    }

    /// Counts records, in the ring's order, by header and payload. A segment is one or more of them,
    /// made at one time.
    fn add(&mut self, header: &RecordHeader, payload: &[u8]) {
        if header.kind != kind::SEGMENT || header.captured == 0 {
            return;
        }
        self.by_slot.entry(header.slot).or_default().bytes += u64::from(header.captured);
        if header.direction == direction::TO_SERVER && begins_request(payload) {
            *self.exchanges.entry(header.slot).or_default() += 1;
        }
        // A segment of which a part was left out is counted as lost already.
        let is_whole = header.captured == header.len;
        match &mut self.current {
            Some(of)
                if (of.flow, of.direction, of.at) == (header.flow, header.direction, header.at) =>
            {
                of.is_whole &= is_whole;
            }
            _ => {
                self.finish();
                let RecordHeader { flow, direction, at, slot, .. } = *header;
                self.current = Some(Current { flow, direction, at, slot, is_whole });
            }
        }
    }

    /// What comes next begins another segment.
    pub(super) fn finish(&mut self) {
        if let Some(segment) = self.current.take()
            && segment.is_whole
        {
            self.by_slot.entry(segment.slot).or_default().segments += 1;
        }
    }

    pub(super) fn of(&self, slot: u32) -> Amount {
        self.by_slot.get(&slot).copied().unwrap_or_default()
    }

    pub(super) fn exchanges_of(&self, slot: u32) -> u64 {
        self.exchanges.get(&slot).copied().unwrap_or_default()
    }
}

/// A method and a space (RFC 9112 section 3).
fn begins_request(payload: &[u8]) -> bool {
    let method = payload.iter().take_while(|byte| byte.is_ascii_uppercase()).count();
    (3..=16).contains(&method) && payload.get(method) == Some(&b' ')
}

#[cfg(test)]
mod tests {
    use stoa_common::record::reason;

    use super::*;

    fn header(flow: u64, at: u64, captured: u32, len: u32) -> RecordHeader {
        RecordHeader {
            flow,
            at,
            slot: 2,
            seq: 0,
            ack: 0,
            len,
            captured,
            kind: kind::SEGMENT,
            direction: 0,
            flags: 0,
            reason: reason::NONE,
        }
    }

    #[test]
    fn segments_of_several_records_count_once() {
        let mut unread = Unread::default();
        for (flow, at, captured, len) in [
            (1, 10, 16_384, 16_384),
            (1, 10, 500, 500),
            (1, 11, 16_384, 16_384),
            (1, 11, 100, 700),
            (2, 12, 5, 5),
        ] {
            unread.add(&header(flow, at, captured, len), b"GET / HTTP/1.1");
        }
        unread.finish();
        assert_eq!(unread.of(2).bytes, 2 * 16_384 + 605);
        assert_eq!(unread.of(2).segments, 2, "the second was cut by the budget");
        assert_eq!(unread.of(3).segments, 0);
        assert_eq!(unread.exchanges_of(2), 5);
        unread.add(&header(3, 13, 5, 5), b"and the rest of a body");
        unread.add(&RecordHeader { direction: 1, ..header(3, 14, 5, 5) }, b"GET / HTTP/1.1");
        assert_eq!(unread.exchanges_of(2), 5, "what goes on or comes back is no request");
    }
}
