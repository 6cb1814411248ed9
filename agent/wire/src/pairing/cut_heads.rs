//! Heads of which only the beginning was seen: a short snap length, a lost segment, an early end.
//!
//! The start line and the fields that were seen whole still tell what the exchange was. Where the
//! message ends is not known, so the next one on its stream has to prove itself by acknowledgement.

use super::{Pairing, Phase};
use crate::{
    assembler::Origin,
    exchange::{Body, Incomplete, Partial},
    http1::{
        framing::{self, Framing, Layout},
        head,
    },
    pairing::Context,
    pending::Pending,
    segment::Loss,
};

impl Pairing {
    /// A request that begins where `origin` says, with what its acknowledgement proves.
    pub(super) fn pending_of(
        &self,
        origin: Origin,
        start: u64,
        head_end: u64,
        head_ack: Option<u64>,
    ) -> Pending {
        let mut pending = Pending::new(origin.at);
        // Only the segment's own acknowledgement tells what the client had when it began.
        pending.head_ack = head_ack;
        pending.head_end = head_end;
        pending.after_gap = self.has_client_gap;
        pending.gap_end = self.has_client_gap.then_some(start);
        pending.after_foreign_gap = self.has_foreign_gap;
        pending.is_ack_new = !self.has_client_gap
            || self
                .ack_before_head
                .is_none_or(|before| pending.head_ack.is_some_and(|ack| ack > before));
        pending.unclaimed = self.unclaimed;
        pending
    }

    /// The rest of the head being read is lost (`None`: was never sent). True where what there is
    /// of it makes a request; then the loss is its own.
    pub(super) fn keep_cut_request(
        &mut self,
        lost: Option<(u64, Loss)>,
        locate: &impl Fn(u32) -> u64,
        cx: &mut Context<'_>,
    ) -> bool {
        let Some(origin) = self.client.head_origin else { return false };
        let buffer = &self.client.buffer;
        let request = head::parse_cut_request(buffer);
        let head_end = self.client.head_start + buffer.len() as u64;
        let mut pending =
            self.pending_of(origin, self.client.head_start, head_end, origin.ack.map(locate));
        let seems_request = request.is_some() || head::seems_request(buffer);
        let is_request = match (self.client.is_tentative, lost) {
            // After a hole a few letters may be anything; a whole line is listed, and paired if
            // its acknowledgement proves it.
            (true, _) => {
                request.is_some()
                    || (seems_request && pending.is_ack_new && pending.head_ack.is_some())
            }
            (false, None) => request.is_some(),
            (false, Some(_)) => seems_request || self.has_seen_http,
        };
        if !is_request {
            return false;
        }
        let used = request.as_ref().map_or(0, |request| request.head.bytes.len());
        cx.counters.bytes_unread += buffer.len().saturating_sub(used) as u64;
        pending.request_done = true;
        pending.is_request_cut = true;
        pending.mark(Incomplete::RequestHeadLost);
        if let Some((len, reason)) = lost {
            pending.add_lost(reason, len);
        }
        if let Some(request) = request {
            self.has_seen_http = true;
            pending.is_head = request.method() == b"HEAD";
            pending.is_connect = request.method() == b"CONNECT";
            let layout = framing::request_layout(&request.head);
            if layout.is_err() {
                pending.mark(Incomplete::BadFraming);
            }
            let body = unseen_body(layout.ok(), lost.map(|(_, reason)| reason));
            pending.request = Some(request.with_body(body));
        }
        let is_connect = pending.is_connect;
        self.note_pipelining(&pending);
        self.account();
        self.queue.push_back(pending);
        self.lose_client_place();
        if is_connect {
            self.client.phase = Phase::Paused;
            self.discarded_while_paused = true;
        }
        true
    }

    /// The rest of the response head being read is lost (`None`: was never sent). `ack`: what the
    /// server had of the client's bytes. True where the connection becomes a tunnel by it.
    pub(super) fn keep_cut_response(
        &mut self,
        reason: Option<Loss>,
        ack: Option<u64>,
        cx: &mut Context<'_>,
    ) -> bool {
        let Some(origin) = self.server.head_origin else { return false };
        let buffer = std::mem::take(&mut self.server.buffer);
        let (start, was_tentative) = (self.server.head_start, self.server.is_tentative);
        let Some(response) = head::parse_cut_response(&buffer) else {
            cx.counters.bytes_unread += buffer.len() as u64;
            let asker = if was_tentative { self.find_asker(start, ack) } else { Some(0) };
            for _ in 0..asker.unwrap_or(0) {
                self.drop_front(cx);
            }
            if let Some(front) = self.queue.front_mut() {
                front.mark(Incomplete::ResponseHeadLost);
            }
            return false;
        };
        let used = response.head.bytes.len();
        cx.counters.bytes_unread += buffer.len().saturating_sub(used) as u64;
        if !self.claim_response(response.status, start, ack, origin.at, cx) {
            return false;
        }
        let Some(front) = self.queue.front_mut() else { return false };
        front.ended = front.ended.max(origin.at);
        front.mark(Incomplete::ResponseHeadLost);
        if reason.is_none() {
            front.mark(Incomplete::ConnectionEnded);
        }
        let is_tunnel = front.is_tunnel(response.status);
        let has_no_body = front.is_head || is_tunnel || matches!(response.status, 204 | 304);
        let layout = framing::response_layout(&response.head, has_no_body);
        if layout.is_err() {
            front.mark(Incomplete::BadFraming);
        }
        front.response = Some(response.with_body(unseen_body(layout.ok(), reason)));
        front.is_response_cut = true;
        if front.is_connect && !is_tunnel {
            // HTTP goes on, and some of it went by.
            self.lose_client_place();
        }
        is_tunnel
    }

    /// Called for every request: does it come before the response to the one before could?
    pub(super) fn note_pipelining(&mut self, next: &Pending) {
        self.has_foreign_gap = false;
        self.is_pipelining |= !next.after_gap
            && self.queue.back().is_some_and(|last| {
                last.response.is_none() && last.head_ack.is_some() && last.head_ack == next.head_ack
            });
    }

    /// What is known of the client's stream ends here.
    pub(super) fn lose_client_place(&mut self) {
        self.client.clear_head();
        self.client.phase = Phase::Seeking;
        self.has_client_gap = true;
    }
}

/// A body of which nothing was seen but, perhaps, what the head says of it.
fn unseen_body(layout: Option<Layout>, reason: Option<Loss>) -> Body {
    let partial = match reason {
        None => Partial::Cut,
        Some(Loss::Budget) => Partial::Limit,
        Some(_) => Partial::Loss,
    };
    let length = match &layout {
        Some(Layout { framing: Framing::Length(n), .. }) => *n,
        _ => 0,
    };
    let codings = layout.map(|layout| layout.content).unwrap_or_default();
    Body { length, codings, partial: Some(partial), ..Body::default() }
}
