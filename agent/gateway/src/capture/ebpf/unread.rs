//! What the kernel counts as captured and nobody read: it is lost all the same.

use std::collections::BTreeMap;

use memchr::memmem;
use stoa_common::{
    record::{HEADER_LEN, RecordHeader, direction, kind},
    tally::Amount,
};

use super::records;

/// `GET`; of those that are registered, `UPDATEREDIRECTREF` is the longest.
const SHORTEST_METHOD: usize = 3;
const LONGEST_METHOD: usize = 17;
/// What a status line begins with (RFC 9112 section 4).
const RESPONSE: &[u8] = b"HTTP/1.";

/// Amounts by slot.
#[derive(Default)]
pub(super) struct Unread {
    by_slot: BTreeMap<u32, Amount>,
    /// Exchanges of which something was among it.
    exchanges: BTreeMap<u32, u64>,
    current: Option<Current>,
    /// By the kernel's name, until they are counted: no more than the ring has records.
    flows: BTreeMap<u64, Flow>,
}

/// What of one connection was not read.
#[derive(Default)]
struct Flow {
    slot: u32,
    requests: u64,
    /// Final ones, and the rest of one that had begun before.
    responses: u64,
    has_answered: bool,
}

impl Flow {
    /// A response that was not read answers either a request that was not read, or one that was and
    /// that nobody will see answered.
    fn exchanges(&self) -> u64 {
        self.requests.max(self.responses)
    }
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
            let captured = usize::try_from(header.captured).unwrap_or(usize::MAX);
            let payload = record.get(HEADER_LEN..).and_then(|rest| rest.get(..captured));
            self.add(&header, payload.unwrap_or_default());
        }
    }

    /// Counts records, in the ring's order, by header and payload. A segment is one or more of them,
    /// made at one time.
    fn add(&mut self, header: &RecordHeader, payload: &[u8]) {
        if header.kind != kind::SEGMENT || header.captured == 0 {
            return;
        }
        self.by_slot.entry(header.slot).or_default().bytes += u64::from(header.captured);
        let flow = self.flows.entry(header.flow).or_default();
        flow.slot = header.slot;
        if header.direction == direction::TO_SERVER {
            flow.requests += requests_in(payload);
        } else {
            let goes_on = !flow.has_answered && !payload.starts_with(RESPONSE);
            flow.responses += responses_in(payload) + u64::from(goes_on);
            flow.has_answered = true;
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
                self.finish_segment();
                let RecordHeader { flow, direction, at, slot, .. } = *header;
                self.current = Some(Current { flow, direction, at, slot, is_whole });
            }
        }
    }

    /// What was added last is all there is of its connections.
    pub(super) fn finish(&mut self) {
        self.finish_segment();
        for flow in std::mem::take(&mut self.flows).into_values() {
            *self.exchanges.entry(flow.slot).or_default() += flow.exchanges();
        }
    }

    /// What comes next begins another segment.
    fn finish_segment(&mut self) {
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

/// How many requests begin here, behind a body or another request too: request lines (RFC 9112
/// section 3), and the beginning of one that goes on in the next segment.
///
/// Nobody follows the framing any more, so a line in a body that looks like one counts as well.
fn requests_in(payload: &[u8]) -> u64 {
    const VERSION: &[u8] = b" HTTP/1.";
    let first_line = payload.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let is_cut = first_line.len() == payload.len();
    let whole = memmem::find_iter(payload, VERSION).filter(|at| {
        let (before, after) = payload.split_at(*at);
        let ends = matches!(
            &after[VERSION.len()..],
            [b'0' | b'1', b'\n', ..] | [b'0' | b'1', b'\r', b'\n', ..]
        );
        ends && ends_in_method_and_target(before)
    });
    whole.count() as u64 + u64::from(is_cut && begins_with_method(payload))
}

/// How many final responses begin here. Interim ones (1xx) answer nothing, but for 101, behind which
/// there is no HTTP.
fn responses_in(payload: &[u8]) -> u64 {
    let begins = memmem::find_iter(payload, RESPONSE).filter(|at| {
        let line = payload.get(at + RESPONSE.len()..).unwrap_or_default();
        match line {
            [b'0' | b'1', b' ', b'1', b'0', b'1', ..] => true,
            [b'0' | b'1', b' ', b'2'..=b'9', second, third, ..] => {
                second.is_ascii_digit() && third.is_ascii_digit()
            }
            _ => false,
        }
    });
    begins.count() as u64
}

/// What stands before them may be the end of a body.
fn ends_in_method_and_target(line: &[u8]) -> bool {
    let mut words = line.rsplitn(3, |byte| matches!(byte, b' ' | b'\n'));
    let (target, method) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let letters = method.iter().rev().take_while(|byte| byte.is_ascii_uppercase()).count();
    !target.is_empty() && letters >= SHORTEST_METHOD
}

fn begins_with_method(payload: &[u8]) -> bool {
    let method = payload.iter().take_while(|byte| byte.is_ascii_uppercase()).count();
    (SHORTEST_METHOD..=LONGEST_METHOD).contains(&method) && payload.get(method) == Some(&b' ')
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
    }

    #[test]
    fn an_exchange_counts_by_whatever_of_it_was_not_read() {
        const GET: &[u8] = b"GET / HTTP/1.1\r\n\r\n";
        const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
        let (to_server, to_client) = (direction::TO_SERVER, direction::TO_CLIENT);
        for (records, expected) in [
            (&[(to_server, GET), (to_client, OK)][..], 1),
            // Sent and answered in one go.
            (&[(to_server, &GET.repeat(3)), (to_client, &OK.repeat(3))], 3),
            // Their requests had been read.
            (&[(to_client, &OK.repeat(2)), (to_server, GET), (to_client, OK)], 3),
            // It goes on in both directions, and ends.
            (&[(to_server, b"rest of a body"), (to_client, OK)], 1),
            (&[(to_client, b"rest of a body"), (to_client, b"more of it")], 1),
            (&[(to_client, b"rest"), (to_server, GET), (to_client, OK)], 2),
            (&[(to_client, b"HTTP/1.1 100 Continue\r\n\r\n"), (to_client, OK)], 1),
            // Not answered yet.
            (&[(to_server, GET)], 1),
        ] {
            let mut unread = Unread::default();
            for (direction, payload) in records {
                let len = payload.len() as u32;
                let header = RecordHeader { direction: *direction, ..header(1, 1, len, len) };
                unread.add(&header, payload);
            }
            assert_eq!(unread.exchanges_of(2), 0, "not before all of it is known");
            unread.finish();
            assert_eq!(unread.exchanges_of(2), expected, "{records:?}");
        }
    }

    #[test]
    fn requests_are_counted_wherever_they_begin() {
        let get = "GET /m/1 HTTP/1.1\r\nHost: a\r\n\r\n";
        let post = "POST /m/2?x=HTTP/1.1 HTTP/1.1\r\nContent-Length: 7\r\n\r\n";
        for (payload, expected) in [
            (get.to_owned(), 1),
            (get.repeat(8), 8),
            (format!("{post}{{\"a\":1}}{get}{post}GET / HT"), 3),
            // The end of a body, and what comes behind it.
            (format!("0\r\n\r\n{get}"), 1),
            (format!("aaaa.aaaa{get}"), 1),
            ("GET / HTTP/1.0\n\n".to_owned(), 1),
            // Goes on in the next segment.
            ("GET /a/very/long".to_owned(), 1),
            ("GET /a HTTP/1.".to_owned(), 1),
            ("POST /a HTTP/1.1\r\nContent-Le".to_owned(), 1),
            // Not the beginning of one.
            ("ngth: 7\r\n\r\n1234567".to_owned(), 0),
            ("Via: HTTP/1.1 a\r\nX: see HTTP/1.1\r\n".to_owned(), 0),
            ("a \"GET / HTTP/1.1\" 200".to_owned(), 0),
            (" HTTP/1.".to_owned(), 0),
            (String::new(), 0),
        ] {
            assert_eq!(requests_in(payload.as_bytes()), expected, "{payload:?}");
        }
    }
}
