//! The server's direction: responses, and whose they are.

use super::{Context, Found, Pairing, Phase, Place, empty_body, find_head};
use crate::{
    assembler::{Origin, Piece},
    exchange::{Body, Incomplete, Partial},
    http1::{
        body::{self, BodyReader},
        framing::{self, Framing},
        head::{self, ResponseHead},
    },
    pending::Pending,
    segment::{Loss, Nanos},
};

/// Interim responses that are noted per exchange.
const MOST_INTERIM: usize = 64;

impl Pairing {
    pub(crate) fn take_from_server(
        &mut self,
        piece: Piece<'_>,
        locate: impl Fn(u32) -> u64,
        cx: &mut Context<'_>,
    ) {
        match piece {
            Piece::Data { offset, bytes, origin } => {
                self.read_server(offset, bytes, origin, &locate, cx);
                // What counts is what it had heard before the head that is being read.
                if self.server.head_origin.is_none() {
                    self.heard = origin.ack.map(locate);
                }
            }
            Piece::Gap { offset, len, reason } => {
                cx.counters.add_lost(reason, len);
                self.miss_server(offset, len, reason, &locate, cx);
                self.heard = None;
            }
        }
    }

    pub(super) fn read_server(
        &mut self,
        offset: u64,
        bytes: &[u8],
        origin: Origin,
        locate: &impl Fn(u32) -> u64,
        cx: &mut Context<'_>,
    ) {
        let mut at = 0;
        while at < bytes.len() {
            let rest = &bytes[at..];
            let here = offset + at as u64;
            match &mut self.server.phase {
                Phase::Stopped | Phase::Paused => {
                    cx.counters.bytes_unread += rest.len() as u64;
                    return;
                }
                Phase::Seeking => {
                    let is_boundary = at == 0 && origin.starts_segment;
                    let is_proven = is_boundary
                        && head::may_begin_response(rest)
                        && self.find_asker(here, origin.ack.map(locate)).is_some();
                    if !is_proven {
                        self.unclaimed += 1;
                        cx.counters.bytes_unread += rest.len() as u64;
                        return;
                    }
                    self.server.phase = Phase::Head;
                    self.server.is_tentative = true;
                }
                Phase::Head => {
                    match find_head(
                        &mut self.server,
                        rest,
                        here,
                        origin,
                        cx.config,
                        head::parse_response,
                        head::may_begin_response,
                    ) {
                        Found::NotYet => return,
                        Found::Refused => {
                            cx.counters.bytes_unread += rest.len() as u64;
                            self.refuse_response(cx);
                            return;
                        }
                        Found::Head { head, start, origin, used } => {
                            at += used;
                            let place = Place {
                                start,
                                end: here + used as u64,
                                after: &bytes[at..],
                                ack: origin.ack.map(locate),
                            };
                            at += self.begin_response(head, place, origin, cx);
                            if matches!(self.server.phase, Phase::Head) {
                                self.answered_to = self.is_answering.then_some(offset + at as u64);
                            }
                        }
                    }
                }
                Phase::Body(body) => {
                    let mut trailers = Vec::new();
                    let progress = body.read(rest, &mut trailers);
                    if let Some(pending) = self.queue.front_mut() {
                        pending.ended = pending.ended.max(origin.at);
                        if let Some(response) = &mut pending.response
                            && !trailers.is_empty()
                        {
                            response.message.trailers = trailers;
                        }
                    }
                    match progress {
                        Ok(progress) => {
                            at += progress.taken as usize;
                            if progress.is_done {
                                self.end_response(cx);
                                self.answered_to = self.is_answering.then_some(offset + at as u64);
                            }
                        }
                        Err(_) => {
                            body.cut();
                            if let Some(pending) = self.queue.front_mut() {
                                pending.mark(Incomplete::BadFraming);
                            }
                            self.end_response(cx);
                            self.stop();
                        }
                    }
                }
            }
        }
    }

    pub(super) fn refuse_response(&mut self, cx: &mut Context<'_>) {
        let was_tentative = self.server.is_tentative;
        self.server.clear_head();
        if was_tentative {
            self.server.phase = Phase::Seeking;
            self.unclaimed += 1;
            return;
        }
        cx.counters.heads_refused += 1;
        self.is_not_http = !self.has_seen_http;
        if let Some(front) = self.queue.front_mut() {
            front.mark(Incomplete::BadFraming);
        }
        self.stop();
    }

    /// The one request that a response beginning at `start` provably answers. `ack`: what the
    /// server had of the client's bytes by then.
    pub(super) fn find_asker(&self, start: u64, ack: Option<u64>) -> Option<usize> {
        if self.is_pipelining {
            return None;
        }
        let mut found = None;
        for (i, pending) in self.queue.iter().enumerate() {
            if pending.head_ack != Some(start) {
                continue;
            }
            // Two requests with one acknowledgement number: the client pipelines.
            if found.is_some() {
                return None;
            }
            found = Some(i);
        }
        found.filter(|&i| {
            let p = &self.queue[i];
            // What was lost before the request is another one, and this is the response to that.
            let is_answered = self.answered_to.is_some_and(|to| to == start || to == 0);
            let is_unheard = p.gap_end.zip(self.heard).is_some_and(|(end, heard)| heard < end);
            let is_beside = is_unheard || (is_answered && p.after_foreign_gap);
            p.is_ack_new
                && !is_beside
                && p.response.is_none()
                && ack.is_none_or(|ack| ack >= p.head_end)
        })
    }

    /// Puts the exchange that a response beginning at `start` belongs to in front. False for an
    /// interim response, which is noted there and then over.
    pub(super) fn claim_response(
        &mut self,
        status: u16,
        start: u64,
        ack: Option<u64>,
        at: Nanos,
        cx: &mut Context<'_>,
    ) -> bool {
        self.has_seen_http = true;
        if self.queue.front().is_some_and(|front| front.response_done) {
            self.abandon_request(cx);
        }
        let is_next = self.is_server_sure && self.queue.front().is_some_and(|f| !f.after_gap);
        let is_answer = is_next
            || match self.find_asker(start, ack) {
                Some(asker) => {
                    for _ in 0..asker {
                        self.drop_front(cx);
                    }
                    self.is_server_sure = true;
                    if let Some(front) = self.queue.front_mut() {
                        front.after_gap = false;
                    }
                    true
                }
                None => false,
            };
        self.is_answering = is_answer;
        if (100..200).contains(&status) && status != 101 {
            match self.queue.front_mut().filter(|_| is_answer) {
                Some(front) if front.interim.len() < MOST_INTERIM => front.interim.push(status),
                Some(_) => {}
                None => self.unclaimed += 1,
            }
            return false;
        }
        if !is_answer {
            self.begin_orphan(at);
        }
        true
    }

    /// Returns how many of the bytes behind the head were the body.
    pub(super) fn begin_response(
        &mut self,
        response: ResponseHead,
        place: Place<'_>,
        origin: Origin,
        cx: &mut Context<'_>,
    ) -> usize {
        let Place { start, end, after, ack } = place;
        if !self.claim_response(response.status, start, ack, origin.at, cx) {
            return 0;
        }
        let status = response.status;
        let next_ack = self.queue.get(1).and_then(|next| next.head_ack);
        let Some(front) = self.queue.front_mut() else { return 0 };
        front.ended = front.ended.max(origin.at);
        let is_tunnel = front.is_tunnel(status);
        // The response to an unknown request may be one to HEAD: then another head follows at once.
        let may_be_head =
            front.request.is_none() && (after.starts_with(b"HTTP/1.") || next_ack == Some(end));
        let has_no_body = front.is_head || may_be_head || is_tunnel || matches!(status, 204 | 304);
        let layout = framing::response_layout(&response.head, has_no_body);
        match layout {
            Err(_) => {
                let body = Body { partial: Some(Partial::Cut), ..Body::default() };
                front.response = Some(response.with_body(body));
                front.response_done = true;
                front.mark(Incomplete::BadFraming);
                self.stop();
                self.emit_finished(cx);
            }
            Ok(layout) if layout.framing == Framing::Empty => {
                let body = empty_body(layout.content, cx.config);
                front.response = Some(response.with_body(body));
                if is_tunnel {
                    self.stop();
                }
                self.finish_response(cx);
            }
            Ok(layout) => {
                if let Some((body, used)) = body::read_whole(&layout, after, cx.config) {
                    front.response = Some(response.with_body(body));
                    self.finish_response(cx);
                    return used;
                }
                front.response = Some(response.with_body(Body::default()));
                self.server.phase = Phase::Body(Box::new(BodyReader::new(layout, cx.config)));
            }
        }
        0
    }

    /// A response whose request was not seen.
    pub(super) fn begin_orphan(&mut self, at: Nanos) {
        let mut orphan = Pending::new(at);
        orphan.request_done = true;
        orphan.add_all_lost(&std::mem::take(&mut self.unattributed));
        if self.joined_mid_stream {
            orphan.mark(Incomplete::JoinedMidStream);
        }
        if !self.queue.is_empty() || !self.has_client_gap {
            orphan.mark(Incomplete::PairingUnprovable);
        }
        self.unclaimed += 1;
        // Should its request turn up all the same, counting would be off by one.
        self.has_client_gap = true;
        if let Some(front) = self.queue.front_mut() {
            front.after_gap = true;
        }
        self.account();
        self.queue.push_front(orphan);
    }

    pub(super) fn end_response(&mut self, cx: &mut Context<'_>) {
        let phase = std::mem::replace(&mut self.server.phase, Phase::Head);
        if let Phase::Body(mut body) = phase
            && let Some(pending) = self.queue.front_mut()
            && let Some(response) = &mut pending.response
        {
            let (body, failed) = body.finish(cx.config);
            cx.counters.decode_failures += u64::from(failed);
            response.message.body = body;
        }
        self.finish_response(cx);
    }

    pub(super) fn finish_response(&mut self, cx: &mut Context<'_>) {
        let Some(front) = self.queue.front_mut() else { return };
        front.response_done = true;
        if front.is_connect && matches!(self.client.phase, Phase::Paused) {
            if self.discarded_while_paused {
                self.client.phase = Phase::Seeking;
                self.has_client_gap = true;
            } else {
                self.client.phase = Phase::Head;
            }
        }
        self.emit_finished(cx);
    }

    pub(super) fn miss_server(
        &mut self,
        offset: u64,
        len: u64,
        reason: Loss,
        locate: &impl Fn(u32) -> u64,
        cx: &mut Context<'_>,
    ) {
        match &mut self.server.phase {
            Phase::Body(body) => {
                let progress = body.skip(len, reason);
                let end = offset + len;
                // Where the framing is lost, the next request's acknowledgement tells where this
                // response ended.
                let taken = match progress {
                    Some(progress) => progress.taken,
                    None => self
                        .queue
                        .iter()
                        .skip(1)
                        .filter_map(|p| p.head_ack)
                        .find(|ack| (offset..end).contains(ack))
                        .map_or(len, |ack| ack - offset),
                };
                if let Some(front) = self.queue.front_mut() {
                    front.add_lost(reason, taken);
                    front.mark(Incomplete::ResponseBodyTruncated);
                }
                if progress.is_none_or(|p| p.is_done) {
                    self.end_response(cx);
                }
                if progress.is_none() || taken < len {
                    self.lose_server();
                    self.attribute(offset + taken, end, reason);
                }
            }
            Phase::Head | Phase::Seeking => {
                let ack = self.server.head_origin.and_then(|origin| origin.ack).map(locate);
                let is_tunnel = self.keep_cut_response(Some(reason), ack, cx);
                self.lose_server();
                self.attribute(offset, offset + len, reason);
                if is_tunnel {
                    self.stop();
                    self.finish_response(cx);
                }
            }
            Phase::Paused | Phase::Stopped => {}
        }
    }

    pub(super) fn lose_server(&mut self) {
        self.server.clear_head();
        if !matches!(self.server.phase, Phase::Stopped) {
            self.server.phase = Phase::Seeking;
        }
        self.is_server_sure = false;
        self.answered_to = None;
    }

    /// Lost server bytes belong to the last request that was sent before them.
    pub(super) fn attribute(&mut self, mut from: u64, to: u64, reason: Loss) {
        while from < to {
            let next = self.queue.iter().filter_map(|p| p.head_ack).filter(|a| *a > from).min();
            let end = next.map_or(to, |n| n.min(to));
            let owner = self
                .queue
                .iter()
                .rposition(|p| p.head_ack.is_some_and(|ack| ack <= from))
                // Before all that the requests seen acknowledge: of one that was not seen.
                .or_else(|| self.queue.front().is_some_and(|p| p.head_ack.is_none()).then_some(0));
            match owner.and_then(|owner| self.queue.get_mut(owner)) {
                Some(owner) => {
                    owner.add_lost(reason, end - from);
                    if owner.response.is_none() {
                        owner.mark(Incomplete::ResponseHeadLost);
                    }
                }
                None => self.unattributed[reason as usize] += end - from,
            }
            from = end;
        }
    }
}
