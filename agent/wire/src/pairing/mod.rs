//! Both directions of one connection: messages out of the streams, responses to their requests.
//!
//! Responses come in the order of the requests (RFC 9112 section 9.3.2), so while both streams are
//! known without a hole, counting is exact. After a hole that may have swallowed a message boundary
//! counting proves nothing. Then a response that begins at server offset S belongs to a request
//! whose own segment acknowledged exactly S: a client that does not pipeline sends its next request
//! when it has the whole response to the one before. Anything else is left without a response: the
//! client was seen to pipeline; or what was lost before the request must have been another one that
//! is not answered yet, because the server had not even acknowledged it, or S follows the response
//! to the request before.

mod cut_heads;
mod requests;
mod responses;

use std::collections::VecDeque;

use crate::{
    assembler::Origin,
    counters::Counters,
    exchange::{Body, Exchange, Incomplete},
    http1::{body::BodyReader, head::Parsed},
    pending::Pending,
    reader::ReaderConfig,
    segment::{Endpoints, FlowId, Loss},
};

pub(crate) struct Context<'a> {
    pub config: &'a ReaderConfig,
    pub counters: &'a mut Counters,
    pub sink: &'a mut dyn FnMut(Exchange),
}

enum Phase {
    /// At the beginning of a message, or within its head.
    Head,
    Body(Box<BodyReader>),
    /// After a hole: until a segment begins with a message.
    Seeking,
    /// After CONNECT, until it is known whether the connection becomes a tunnel.
    Paused,
    /// Nothing more is read.
    Stopped,
}

struct Side {
    phase: Phase,
    /// The beginning of a head, and where it came from.
    buffer: Vec<u8>,
    head_start: u64,
    head_origin: Option<Origin>,
    /// The head being read was found by seeking: if it is none, seeking goes on.
    is_tentative: bool,
}

impl Side {
    fn new(phase: Phase) -> Self {
        Self { phase, buffer: Vec::new(), head_start: 0, head_origin: None, is_tentative: false }
    }

    fn memory(&self) -> usize {
        let body = match &self.phase {
            Phase::Body(body) => size_of::<BodyReader>() + body.memory(),
            _ => 0,
        };
        self.buffer.capacity() + body
    }

    fn clear_head(&mut self) {
        // A head that came in pieces is rare: do not keep its room.
        self.buffer = Vec::new();
        self.head_origin = None;
        self.is_tentative = false;
    }
}

/// Where a head lies in its stream.
struct Place<'a> {
    start: u64,
    end: u64,
    /// What is already there of the bytes behind it.
    after: &'a [u8],
    /// What its sender had of the other stream by then.
    ack: Option<u64>,
}

/// What came of looking for a head.
enum Found<T> {
    NotYet,
    Refused,
    Head { head: T, start: u64, origin: Origin, used: usize },
}

pub(crate) struct Pairing {
    flow: FlowId,
    endpoints: Endpoints,
    queue: VecDeque<Pending>,
    /// Bytes of what is in the queue, as last accounted for.
    queued_memory: usize,
    client: Side,
    server: Side,
    /// The server's stream is known without a hole since a response that surely answered its
    /// request.
    is_server_sure: bool,
    /// The client sends requests before it has the responses to those before: then its
    /// acknowledgements prove nothing.
    is_pipelining: bool,
    /// Client bytes were missed since the last request that cannot be its own.
    has_foreign_gap: bool,
    /// The response being read answers a known request.
    is_answering: bool,
    /// Server offset behind the last response, if it was to a known request and nothing of the
    /// stream was missed since; 0 at the beginning of the stream.
    answered_to: Option<u64>,
    /// What the server had acknowledged of the client's bytes with the last of its own, if those
    /// were seen.
    heard: Option<u64>,
    /// Client bytes were missed since the last request, and perhaps requests with them.
    has_client_gap: bool,
    /// What the client had acknowledged in its last data.
    client_ack: Option<u64>,
    /// The same, before the head that is being read began.
    ack_before_head: Option<u64>,
    /// Grows whenever server bytes go by that no request can claim.
    unclaimed: u64,
    /// Lost where no message was known; the next response without a request takes it.
    unattributed: [u64; Loss::ALL.len()],
    joined_mid_stream: bool,
    has_seen_http: bool,
    discarded_while_paused: bool,
    pub is_not_http: bool,
}

impl Pairing {
    pub fn new(flow: FlowId, endpoints: Endpoints, from_start: bool) -> Self {
        let phase = || if from_start { Phase::Head } else { Phase::Seeking };
        Self {
            flow,
            endpoints,
            queue: VecDeque::new(),
            queued_memory: 0,
            client: Side::new(phase()),
            server: Side::new(phase()),
            is_server_sure: from_start,
            is_pipelining: false,
            has_foreign_gap: false,
            is_answering: false,
            answered_to: from_start.then_some(0),
            heard: None,
            has_client_gap: !from_start,
            client_ack: None,
            ack_before_head: None,
            unclaimed: 0,
            unattributed: [0; Loss::ALL.len()],
            joined_mid_stream: !from_start,
            has_seen_http: false,
            discarded_while_paused: false,
            is_not_http: false,
        }
    }

    pub fn endpoints(&self) -> Endpoints {
        self.endpoints
    }

    /// Nothing on this connection will be read any more.
    pub fn is_over(&self) -> bool {
        self.queue.is_empty()
            && matches!(self.client.phase, Phase::Stopped)
            && matches!(self.server.phase, Phase::Stopped)
    }

    /// Server bytes can be read now without knowing more of the client's.
    pub fn awaits_response(&self) -> bool {
        self.queue.iter().any(|pending| !pending.response_done && !pending.is_response_cut)
    }

    pub fn memory(&mut self) -> usize {
        self.account();
        self.client.memory() + self.server.memory() + self.queued_memory
    }

    /// Requests grow at the back of the queue and responses at its front; what lies between does
    /// not change, and with many requests waiting it must not be gone through for every segment.
    fn account(&mut self) {
        if let Some(front) = self.queue.front_mut() {
            self.queued_memory += front.update_account();
        }
        if self.queue.len() > 1
            && let Some(back) = self.queue.back_mut()
        {
            self.queued_memory += back.update_account();
        }
    }

    // --- endings --------------------------------------------------------------------------------

    /// The server's stream ended, with all of it known.
    pub fn end_server(&mut self, cx: &mut Context<'_>) {
        if let Phase::Body(body) = &self.server.phase
            && body.ends_with_connection()
        {
            self.end_response(cx);
            self.server.phase = Phase::Stopped;
        }
    }

    /// The connection is over. `is_clean`: neither reset nor merely out of sight.
    pub fn close(&mut self, is_clean: bool, cx: &mut Context<'_>) {
        if matches!(self.client.phase, Phase::Body(_)) {
            if let Some(pending) = self.queue.back_mut() {
                pending.mark(Incomplete::RequestBodyTruncated);
                pending.mark(Incomplete::ConnectionEnded);
            }
            self.cut_request(cx);
        }
        // The connection may end within a head, too.
        if !self.keep_cut_request(None, &|_| 0, cx) {
            cx.counters.bytes_unread += self.client.buffer.len() as u64;
        }
        self.client.clear_head();
        if let Phase::Body(body) = &mut self.server.phase {
            let is_whole = body.close(is_clean);
            let ended_early = !(body.ends_with_connection() && is_clean);
            if let Some(front) = self.queue.front_mut()
                && !is_whole
            {
                front.mark(Incomplete::ResponseBodyTruncated);
                if ended_early {
                    front.mark(Incomplete::ConnectionEnded);
                }
            }
            self.end_response(cx);
        } else if self.server.head_origin.is_some() {
            self.keep_cut_response(None, None, cx);
        }
        while let Some(front) = self.queue.front_mut() {
            if front.response.is_none() {
                front.mark(Incomplete::ConnectionEnded);
            }
            self.drop_front(cx);
        }
        self.stop();
    }

    fn stop(&mut self) {
        self.server.clear_head();
        self.client.clear_head();
        self.server.phase = Phase::Stopped;
        // A request body that is being read may still end by itself.
        if !matches!(self.client.phase, Phase::Body(_)) {
            self.client.phase = Phase::Stopped;
        }
    }

    /// The server went on to the next response while it was still being sent this request.
    fn abandon_request(&mut self, cx: &mut Context<'_>) {
        if let Some(front) = self.queue.front_mut() {
            front.mark(Incomplete::RequestBodyTruncated);
        }
        self.cut_request(cx);
        self.client.phase = Phase::Seeking;
        self.has_client_gap = true;
        self.emit_finished(cx);
    }

    fn cut_request(&mut self, cx: &mut Context<'_>) {
        if let Phase::Body(mut body) = std::mem::replace(&mut self.client.phase, Phase::Stopped) {
            body.cut();
            end_request(&mut self.queue, &mut body, cx);
        }
    }

    fn drop_front(&mut self, cx: &mut Context<'_>) {
        let Some(pending) = self.queue.front_mut() else { return };
        if pending.response.is_none() {
            if pending.unclaimed != self.unclaimed {
                pending.mark(Incomplete::PairingUnprovable);
            }
            if self.joined_mid_stream && !self.is_server_sure {
                pending.mark(Incomplete::JoinedMidStream);
            }
        }
        self.emit_front(cx);
    }

    fn emit_finished(&mut self, cx: &mut Context<'_>) {
        while self.queue.front().is_some_and(|p| p.request_done && p.response_done) {
            self.emit_front(cx);
        }
        // Nothing that could still be asked for: what the server says now answers nothing known.
        if self.queue.is_empty()
            && matches!(self.client.phase, Phase::Stopped)
            && !matches!(self.server.phase, Phase::Body(_))
        {
            self.server.phase = Phase::Stopped;
        }
    }

    fn emit_front(&mut self, cx: &mut Context<'_>) {
        let Some(front) = self.queue.front_mut() else { return };
        self.queued_memory -= front.accounted;
        let exchange = front.take_exchange(self.flow, self.endpoints);
        // Mostly there is but one, and dropping it where it lies spares a move.
        if self.queue.len() == 1 {
            self.queue.clear();
        } else {
            self.queue.pop_front();
        }
        cx.counters.add_exchange(&exchange);
        (cx.sink)(exchange);
    }
}

fn empty_body(codings: Vec<crate::exchange::Coding>, config: &ReaderConfig) -> Body {
    let digest = config.hash_bodies.then(|| {
        use sha2::Digest;
        sha2::Sha256::digest([]).into()
    });
    Body {
        codings,
        sha256: digest,
        decoded_length: Some(0),
        decoded_sha256: digest,
        ..Body::default()
    }
}

fn end_request(
    queue: &mut VecDeque<Pending>,
    body: &mut BodyReader,
    cx: &mut Context<'_>,
) -> Phase {
    if let Some(pending) = queue.back_mut() {
        pending.request_done = true;
        if let Some(request) = &mut pending.request {
            let (body, failed) = body.finish(cx.config);
            cx.counters.decode_failures += u64::from(failed);
            request.message.body = body;
        }
    }
    Phase::Head
}

fn find_head<T>(
    side: &mut Side,
    bytes: &[u8],
    offset: u64,
    origin: Origin,
    config: &ReaderConfig,
    parse: fn(&[u8]) -> Parsed<T>,
    may_begin: fn(&[u8]) -> bool,
) -> Found<T> {
    let Some(head_origin) = side.head_origin else {
        return match parse(bytes) {
            Parsed::Whole(head, used) if used <= config.head_limit => {
                side.is_tentative = false;
                Found::Head { head, start: offset, origin, used }
            }
            Parsed::Partial if bytes.len() <= config.head_limit && may_begin(bytes) => {
                side.buffer.extend_from_slice(bytes);
                side.head_start = offset;
                side.head_origin = Some(origin);
                Found::NotYet
            }
            _ => Found::Refused,
        };
    };
    let before = side.buffer.len();
    let room = (config.head_limit + 1).saturating_sub(before);
    side.buffer.extend_from_slice(&bytes[..bytes.len().min(room)]);
    // Parsing a head again for every few bytes of it would cost its square.
    let fresh = &side.buffer[before.saturating_sub(3)..];
    let may_end = fresh.windows(2).any(|w| w == b"\n\n" || w == b"\n\r");
    let parsed = if may_end { parse(&side.buffer) } else { Parsed::Partial };
    match parsed {
        Parsed::Whole(head, used) if used <= config.head_limit => {
            let start = side.head_start;
            side.clear_head();
            Found::Head { head, start, origin: head_origin, used: used.saturating_sub(before) }
        }
        Parsed::Partial if side.buffer.len() <= config.head_limit && may_begin(&side.buffer) => {
            Found::NotYet
        }
        _ => Found::Refused,
    }
}

#[cfg(test)]
mod tests;
