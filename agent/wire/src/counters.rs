//! What a reader did with what it was given.

use crate::{
    exchange::{Exchange, Incomplete},
    segment::Loss,
};

/// Every number only grows, but for the two gauges `flows` and `memory`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Flows known at this moment.
    pub flows: u64,
    /// Bytes held for all of them at this moment, bookkeeping included.
    pub memory: u64,
    pub flows_opened: u64,
    pub flows_closed: u64,
    /// Let go of because of a bound on memory or on the number of flows.
    pub flows_evicted: u64,
    /// Let go of because nothing was seen for `idle_timeout`.
    pub flows_expired: u64,
    /// Recognised as something other than HTTP/1 and read no further.
    pub flows_not_http: u64,
    /// Events that named a flow that was never opened, or was let go of.
    pub events_without_flow: u64,
    pub exchanges_complete: u64,
    pub exchanges_incomplete: u64,
    /// Heads that were no HTTP/1 message or longer than `head_limit`.
    pub heads_refused: u64,
    /// Bodies whose content coding was broken, unknown or expanded beyond the permitted ratio.
    pub decode_failures: u64,
    /// Payload bytes that were given to the reader, retransmissions included.
    pub bytes_seen: u64,
    /// Seen bytes that belong to no exchange: between a gap and the point of resynchronisation,
    /// on flows that are not HTTP, or after an upgrade.
    pub bytes_unread: u64,
    incomplete: [u64; Incomplete::ALL.len()],
    lost: [u64; Loss::ALL.len()],
}

impl Counters {
    /// All that were handed on, complete or not.
    pub fn exchanges(&self) -> u64 {
        self.exchanges_complete + self.exchanges_incomplete
    }

    /// Exchanges that are incomplete for this reason; one exchange may have several.
    pub fn incomplete(&self, reason: Incomplete) -> u64 {
        self.incomplete[reason as usize]
    }

    pub fn incomplete_by_reason(&self) -> impl Iterator<Item = (Incomplete, u64)> + '_ {
        Incomplete::ALL.iter().map(|&r| (r, self.incomplete(r)))
    }

    /// Stream bytes that were on the wire and not seen, whether or not they fell into an exchange.
    pub fn lost(&self, reason: Loss) -> u64 {
        self.lost[reason as usize]
    }

    pub fn lost_by_reason(&self) -> impl Iterator<Item = (Loss, u64)> + '_ {
        Loss::ALL.iter().map(|&r| (r, self.lost(r)))
    }

    pub(crate) fn add_lost(&mut self, reason: Loss, bytes: u64) {
        self.lost[reason as usize] += bytes;
    }

    pub(crate) fn add_exchange(&mut self, exchange: &Exchange) {
        if exchange.is_complete() {
            self.exchanges_complete += 1;
        } else {
            self.exchanges_incomplete += 1;
        }
        for reason in &exchange.incomplete {
            self.incomplete[*reason as usize] += 1;
        }
    }
}
