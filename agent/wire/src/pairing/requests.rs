//! The client's direction: requests.

use super::{Context, Found, Pairing, Phase, Place, empty_body, end_request, find_head};
use crate::{
    assembler::{Origin, Piece},
    exchange::{Body, Incomplete, Partial},
    http1::{
        body::{self, BodyReader},
        framing::{self, Framing},
        head::{self, RequestHead},
    },
    segment::Loss,
};

/// Requests that may wait for their responses on one connection.
const MOST_PENDING: usize = 1024;

impl Pairing {
    /// `locate` turns an acknowledgement number of the client into a server offset.
    pub(crate) fn take_from_client(
        &mut self,
        piece: Piece<'_>,
        locate: impl Fn(u32) -> u64,
        cx: &mut Context<'_>,
    ) {
        match piece {
            Piece::Data { offset, bytes, origin } => {
                self.read_client(offset, bytes, origin, &locate, cx);
                if let Some(ack) = origin.ack {
                    self.client_ack = Some(locate(ack));
                }
            }
            Piece::Gap { len, reason, .. } => {
                cx.counters.add_lost(reason, len);
                self.miss_client(len, reason, &locate, cx);
            }
        }
    }

    pub(super) fn read_client(
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
            match &mut self.client.phase {
                Phase::Stopped | Phase::Paused => {
                    self.discarded_while_paused = true;
                    cx.counters.bytes_unread += rest.len() as u64;
                    return;
                }
                Phase::Seeking => {
                    let is_boundary = at == 0 && origin.starts_segment;
                    let is_blank = matches!(rest.first(), Some(b'\r' | b'\n'));
                    // Told to go on (100), the client goes on with a body, whatever it looks like.
                    let is_upload = self
                        .queue
                        .back()
                        .is_some_and(|p| !p.interim.is_empty() && p.response.is_none());
                    if !is_boundary || is_blank || is_upload || !head::may_begin_request(rest) {
                        cx.counters.bytes_unread += rest.len() as u64;
                        return;
                    }
                    self.client.phase = Phase::Head;
                    self.client.is_tentative = true;
                }
                Phase::Head => {
                    let here = offset + at as u64;
                    match find_head(
                        &mut self.client,
                        rest,
                        here,
                        origin,
                        cx.config,
                        head::parse_request,
                        head::may_begin_request,
                    ) {
                        Found::NotYet => {
                            if self.client.head_start == here {
                                self.ack_before_head = self.client_ack;
                            }
                            return;
                        }
                        Found::Refused => {
                            cx.counters.bytes_unread += rest.len() as u64;
                            self.refuse_request(cx);
                            return;
                        }
                        Found::Head { head, start, origin, used } => {
                            at += used;
                            if start == here {
                                self.ack_before_head = self.client_ack;
                            }
                            let after = &bytes[at..];
                            let place = Place {
                                start,
                                end: offset + at as u64,
                                after,
                                ack: origin.ack.map(locate),
                            };
                            at += self.begin_request(head, place, origin, cx);
                        }
                    }
                }
                Phase::Body(body) => {
                    let back = self.queue.back_mut();
                    let mut trailers = Vec::new();
                    let progress = body.read(rest, &mut trailers);
                    if let Some(pending) = back {
                        pending.ended = pending.ended.max(origin.at);
                        if let Some(request) = &mut pending.request
                            && !trailers.is_empty()
                        {
                            request.message.trailers = trailers;
                        }
                    }
                    match progress {
                        Ok(progress) => {
                            at += progress.taken as usize;
                            if progress.is_done {
                                let next = end_request(&mut self.queue, body, cx);
                                let is_last = matches!(self.server.phase, Phase::Stopped);
                                self.client.phase = if is_last { Phase::Stopped } else { next };
                                self.emit_finished(cx);
                            }
                        }
                        Err(_) => {
                            body.cut();
                            if let Some(pending) = self.queue.back_mut() {
                                pending.mark(Incomplete::BadFraming);
                            }
                            end_request(&mut self.queue, body, cx);
                            self.client.phase = Phase::Stopped;
                            self.emit_finished(cx);
                        }
                    }
                }
            }
        }
    }

    pub(super) fn refuse_request(&mut self, cx: &mut Context<'_>) {
        let was_tentative = self.client.is_tentative;
        self.client.clear_head();
        if was_tentative {
            self.client.phase = Phase::Seeking;
            return;
        }
        cx.counters.heads_refused += 1;
        self.client.phase = Phase::Stopped;
        if !self.has_seen_http {
            self.is_not_http = true;
            self.server.phase = Phase::Stopped;
        }
    }

    /// Returns how many of the bytes behind the head were the body.
    pub(super) fn begin_request(
        &mut self,
        request: RequestHead,
        place: Place<'_>,
        origin: Origin,
        cx: &mut Context<'_>,
    ) -> usize {
        self.has_seen_http = true;
        let mut used = 0;
        let mut pending = self.pending_of(origin, place.start, place.end, place.ack);
        let method = request.method();
        (pending.is_head, pending.is_connect) = (method == b"HEAD", method == b"CONNECT");
        self.has_client_gap = false;
        self.note_pipelining(&pending);
        let layout = framing::request_layout(&request.head);
        let mut body = Body::default();
        self.client.phase = match layout {
            _ if pending.is_connect => {
                pending.request_done = true;
                self.discarded_while_paused = false;
                Phase::Paused
            }
            Err(_) => {
                pending.mark(Incomplete::BadFraming);
                pending.request_done = true;
                body.partial = Some(Partial::Cut);
                Phase::Stopped
            }
            Ok(layout) if layout.framing == Framing::Empty => {
                pending.request_done = true;
                body = empty_body(layout.content, cx.config);
                Phase::Head
            }
            Ok(layout) => match body::read_whole(&layout, place.after, cx.config) {
                Some((whole, length)) => {
                    pending.request_done = true;
                    (body, used) = (whole, length);
                    Phase::Head
                }
                None => Phase::Body(Box::new(BodyReader::new(layout, cx.config))),
            },
        };
        pending.request = Some(request.with_body(body));
        self.account();
        self.queue.push_back(pending);
        if self.queue.len() > MOST_PENDING {
            self.drop_front(cx);
            self.lose_server();
        }
        used
    }

    pub(super) fn miss_client(
        &mut self,
        len: u64,
        reason: Loss,
        locate: &impl Fn(u32) -> u64,
        cx: &mut Context<'_>,
    ) {
        match &mut self.client.phase {
            Phase::Body(body) => {
                let progress = body.skip(len, reason);
                // What an unknown framing leaves of the gap counts as this message's.
                let taken = progress.map_or(len, |p| p.taken);
                if let Some(pending) = self.queue.back_mut() {
                    pending.add_lost(reason, taken);
                    pending.mark(Incomplete::RequestBodyTruncated);
                }
                if progress.is_none_or(|p| p.is_done) {
                    self.client.phase = end_request(&mut self.queue, body, cx);
                    self.emit_finished(cx);
                }
                if progress.is_none() || taken < len {
                    self.lose_client(len - taken, reason, cx);
                }
            }
            Phase::Head | Phase::Seeking => {
                if !self.keep_cut_request(Some((len, reason)), locate, cx) {
                    self.lose_client(len, reason, cx);
                }
            }
            Phase::Paused => self.discarded_while_paused = true,
            Phase::Stopped => {}
        }
    }

    pub(super) fn lose_client(&mut self, len: u64, reason: Loss, cx: &mut Context<'_>) {
        cx.counters.bytes_unread += self.client.buffer.len() as u64;
        match self.queue.back_mut() {
            // Of a head that was cut, more may be lost than the segment that it began in.
            Some(last) if last.is_request_cut && last.response.is_none() => {
                last.add_lost(reason, len);
            }
            _ => {
                self.unattributed[reason as usize] += len;
                self.has_foreign_gap |= len > 0;
            }
        }
        self.lose_client_place();
    }
}
