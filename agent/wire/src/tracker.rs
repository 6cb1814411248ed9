//! Packets in, events of connections with known directions out.

use std::{
    collections::{HashMap, VecDeque},
    net::SocketAddr,
};

use crate::{
    fragments::Fragments,
    http1::head,
    packet::{self, Cut, Datagram, LinkType, Refused, TcpPacket},
    segment::{Direction, Endpoints, Event, FlowId, Loss, Nanos, Segment},
};

/// After both FINs (or a reset) a retransmission may still come.
const LINGER: Nanos = 2_000_000_000;
/// Held per flow while it is not known who is the server.
const MOST_HELD: usize = 64;

#[derive(Clone, Debug)]
pub struct TrackerConfig {
    pub max_flows: usize,
    /// Bytes held for flows whose server side is not known yet, and for IP fragments.
    pub memory_limit: usize,
    pub idle_timeout: Nanos,
}

impl Default for TrackerConfig {
    fn default() -> Self {
        Self { max_flows: 65_536, memory_limit: 16 << 20, idle_timeout: 300_000_000_000 }
    }
}

/// What became of packets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PacketCounters {
    pub packets: u64,
    pub tcp_segments: u64,
    /// Not IP, or IP but not TCP.
    pub not_tcp: u64,
    /// Headers cut by the snap length, or inconsistent.
    pub malformed: u64,
    /// Of a link type that is not read.
    pub unsupported_link: u64,
    /// Fragments that never became a whole datagram.
    pub fragments_dropped: u64,
    /// Packets whose end was cut off by the snap length.
    pub snapped: u64,
    /// Segments of flows of which it never became known who was the server.
    pub segments_undecided: u64,
    /// Flows let go of because of a bound on memory or number.
    pub flows_evicted: u64,
}

/// One captured frame.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    pub link: LinkType,
    pub at: Nanos,
    pub bytes: &'a [u8],
    /// Length on the wire; `bytes` may be a shorter prefix.
    pub original_len: u32,
    /// Why it is shorter.
    pub missing: Loss,
    /// Where the source groups servers into services: the group. Otherwise each server address
    /// and port is a service.
    pub group: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct FlowKey(SocketAddr, SocketAddr);

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum ServiceKey {
    Server(SocketAddr),
    Group(u32),
}

struct Held {
    source: SocketAddr,
    at: Nanos,
    seq: u32,
    ack: Option<u32>,
    fin: bool,
    rst: bool,
    len: u32,
    missing: Loss,
    bytes: Box<[u8]>,
}

struct Flow {
    id: FlowId,
    /// `None` until it is known.
    client: Option<SocketAddr>,
    /// First sequence number (a SYN's own) seen from the lower and from the higher address.
    first_seq: [Option<u32>; 2],
    /// Number behind the newest payload byte of each.
    newest: [Option<u32>; 2],
    fins: [bool; 2],
    is_closing: bool,
    last_seen: Nanos,
    held: Vec<Held>,
}

impl Flow {
    /// The segment begins a message at a number that this connection cannot have reached: its
    /// endpoints are in use again, and the handshake went by unseen.
    fn is_foreign(&self, side: usize, tcp: &TcpPacket<'_>) -> bool {
        let (Some(first), Some(newest)) = (self.first_seq[side], self.newest[side]) else {
            return false;
        };
        let distance = |from: u32| tcp.seq.wrapping_sub(from) as i32;
        let is_out_of_place = if self.is_closing {
            let is_behind_end = distance(newest) > 0 || (self.fins[side] && distance(newest) == 0);
            is_behind_end || distance(first) < 0
        } else {
            // RFC 7323 section 2.3: no window is as wide.
            distance(newest).unsigned_abs() > 1 << 30
        };
        let payload = tcp.payload.seen;
        is_out_of_place && (looks_like_request(payload) || looks_like_response(payload))
    }
}

pub struct Tracker {
    config: TrackerConfig,
    counters: PacketCounters,
    flows: HashMap<FlowKey, Flow>,
    closing: VecDeque<(Nanos, FlowKey, FlowId)>,
    fragments: Fragments,
    services: Vec<SocketAddr>,
    service_numbers: HashMap<ServiceKey, u32>,
    groups: Vec<Option<u32>>,
    next_id: u64,
    held_bytes: usize,
}

impl Tracker {
    pub fn new(config: TrackerConfig) -> Self {
        Self {
            config,
            counters: PacketCounters::default(),
            flows: HashMap::new(),
            closing: VecDeque::new(),
            fragments: Fragments::default(),
            services: Vec::new(),
            service_numbers: HashMap::new(),
            groups: Vec::new(),
            next_id: 1,
            held_bytes: 0,
        }
    }

    /// `original_len`: length of the frame on the wire; `frame` may be a shorter prefix of it.
    pub fn push(
        &mut self,
        link: LinkType,
        at: Nanos,
        frame: &[u8],
        original_len: u32,
        sink: &mut dyn FnMut(Event<'_>),
    ) {
        let missing = Loss::Unseen;
        let frame = Frame { link, at, bytes: frame, original_len, missing, group: None };
        self.push_frame(&frame, sink);
    }

    pub fn push_frame(&mut self, frame: &Frame<'_>, sink: &mut dyn FnMut(Event<'_>)) {
        self.counters.packets += 1;
        self.close_lingering(frame.at.saturating_sub(LINGER), sink);
        let wire = (frame.original_len as usize).max(frame.bytes.len());
        self.counters.snapped += u64::from(wire > frame.bytes.len());
        let datagram = packet::read_frame(frame.link, Cut { seen: frame.bytes, wire });
        let outcome = match datagram {
            Ok(Datagram::Whole { source, destination, payload, .. }) => {
                packet::read_tcp(source, destination, payload)
                    .map(|tcp| self.take_tcp(&tcp, frame, sink))
            }
            Ok(Datagram::Fragment { key, offset, is_last, payload }) => {
                let limit = self.config.memory_limit / 2;
                let whole = self.fragments.insert(key, offset, is_last, payload, frame.at, limit);
                self.counters.fragments_dropped = self.fragments.dropped;
                match whole {
                    Some(whole) if key.protocol == 6 => {
                        let cut = Cut { seen: &whole, wire: whole.len() };
                        packet::read_tcp(key.source, key.destination, cut)
                            .map(|tcp| self.take_tcp(&tcp, frame, sink))
                    }
                    _ => Ok(()),
                }
            }
            Err(refused) => Err(refused),
        };
        match outcome {
            Ok(()) => {}
            Err(Refused::NotTcp) => self.counters.not_tcp += 1,
            Err(Refused::Malformed) => self.counters.malformed += 1,
            Err(Refused::UnsupportedLink) => self.counters.unsupported_link += 1,
        }
        if self.counters.packets.is_multiple_of(4096) {
            self.forget_idle(frame.at);
        }
    }

    /// Closes the flows that were seen to end. Those that the capture merely stops watching stay
    /// open: the reader's own `finish` ends them as what they are.
    pub fn finish(&mut self, sink: &mut dyn FnMut(Event<'_>)) {
        self.close_lingering(Nanos::MAX, sink);
        self.fragments.finish();
        self.counters.fragments_dropped = self.fragments.dropped;
        for flow in self.flows.values() {
            self.counters.segments_undecided += flow.held.len() as u64;
        }
        self.flows.clear();
        self.held_bytes = 0;
    }

    /// The server address and port behind each `Endpoints::service` number; of a group, the first
    /// one seen.
    pub fn services(&self) -> &[SocketAddr] {
        &self.services
    }

    /// The group behind each service number, where the source made one.
    pub fn groups(&self) -> &[Option<u32>] {
        &self.groups
    }

    pub fn counters(&self) -> &PacketCounters {
        &self.counters
    }

    fn take_tcp(
        &mut self,
        tcp: &TcpPacket<'_>,
        frame: &Frame<'_>,
        sink: &mut dyn FnMut(Event<'_>),
    ) {
        self.counters.tcp_segments += 1;
        let is_low = tcp.source <= tcp.destination;
        let key = if is_low {
            FlowKey(tcp.source, tcp.destination)
        } else {
            FlowKey(tcp.destination, tcp.source)
        };
        let side = usize::from(!is_low);
        let first = tcp.seq.wrapping_add(u32::from(tcp.syn));
        // A SYN with another number on the same endpoints is another connection.
        let is_reborn = self.flows.get(&key).is_some_and(|flow| match tcp.syn {
            true => flow.first_seq[side].is_some_and(|known| known != first),
            false => flow.is_foreign(side, tcp),
        });
        if is_reborn {
            self.close(&key, frame.at, sink);
        }
        if !self.flows.contains_key(&key) {
            if tcp.rst {
                return;
            }
            if self.flows.len() >= self.config.max_flows {
                self.evict_oldest();
            }
            let id = FlowId(self.next_id);
            self.next_id += 1;
            let flow = Flow {
                id,
                client: None,
                first_seq: [None; 2],
                newest: [None; 2],
                fins: [false; 2],
                is_closing: false,
                last_seen: frame.at,
                held: Vec::new(),
            };
            self.flows.insert(key, flow);
        }
        let known_server =
            |address: &SocketAddr| self.service_numbers.contains_key(&ServiceKey::Server(*address));
        let guess = match (tcp.syn, tcp.ack) {
            (true, None) => Some(tcp.source),
            (true, Some(_)) => Some(tcp.destination),
            _ if looks_like_response(tcp.payload.seen) => Some(tcp.destination),
            _ if looks_like_request(tcp.payload.seen) => Some(tcp.source),
            _ if known_server(&tcp.destination) && !known_server(&tcp.source) => Some(tcp.source),
            _ if known_server(&tcp.source) && !known_server(&tcp.destination) => {
                Some(tcp.destination)
            }
            _ => None,
        };
        let Some(flow) = self.flows.get_mut(&key) else { return };
        flow.last_seen = flow.last_seen.max(frame.at);
        if !tcp.rst {
            flow.first_seq[side].get_or_insert(first);
            let end = first.wrapping_add(tcp.payload.wire as u32);
            if flow.newest[side].is_none_or(|newest| end.wrapping_sub(newest) as i32 > 0) {
                flow.newest[side] = Some(end);
            }
        }
        flow.fins[side] |= tcp.fin;
        let len = u32::try_from(tcp.payload.wire).unwrap_or(u32::MAX);
        if flow.client.is_none() {
            let Some(client) = guess else {
                self.held_bytes += hold(flow, tcp, frame, len, &mut self.counters);
                if self.held_bytes > self.config.memory_limit / 2 {
                    self.let_go_of_held();
                }
                return;
            };
            flow.client = Some(client);
            let server = if client == key.0 { key.1 } else { key.0 };
            let service_key = frame.group.map_or(ServiceKey::Server(server), ServiceKey::Group);
            let number = *self.service_numbers.entry(service_key).or_insert_with(|| {
                self.services.push(server);
                self.groups.push(frame.group);
                self.services.len() as u32 - 1
            });
            let held = std::mem::take(&mut flow.held);
            let endpoints = Endpoints { client, server, service: number };
            let from_start = tcp.syn && held.iter().all(|h| h.len == 0);
            let at = held.first().map_or(frame.at, |h| h.at);
            sink(Event::Open { flow: flow.id, at, endpoints, from_start });
            for h in &held {
                self.held_bytes -= h.bytes.len() + size_of::<Held>();
                sink(Event::Segment(Segment {
                    flow: flow.id,
                    direction: direction(h.source, client),
                    at: h.at,
                    seq: h.seq,
                    ack: h.ack,
                    syn: false,
                    fin: h.fin,
                    rst: h.rst,
                    len: h.len,
                    data: &h.bytes,
                    missing: (h.bytes.len() < h.len as usize).then_some(h.missing),
                }));
            }
        }
        let Some(client) = flow.client else { return };
        sink(Event::Segment(Segment {
            flow: flow.id,
            direction: direction(tcp.source, client),
            at: frame.at,
            seq: tcp.seq,
            ack: tcp.ack,
            syn: tcp.syn,
            fin: tcp.fin,
            rst: tcp.rst,
            len,
            data: tcp.payload.seen,
            missing: (tcp.payload.seen.len() < tcp.payload.wire).then_some(frame.missing),
        }));
        if !flow.is_closing && (tcp.rst || flow.fins == [true; 2]) {
            flow.is_closing = true;
            self.closing.push_back((frame.at, key, flow.id));
        }
    }

    fn close(&mut self, key: &FlowKey, at: Nanos, sink: &mut dyn FnMut(Event<'_>)) {
        if let Some(flow) = self.forget(key)
            && flow.client.is_some()
        {
            sink(Event::Close { flow: flow.id, at });
        }
    }

    fn close_lingering(&mut self, deadline: Nanos, sink: &mut dyn FnMut(Event<'_>)) {
        while self.closing.front().is_some_and(|(at, ..)| *at <= deadline) {
            let Some((at, key, id)) = self.closing.pop_front() else { return };
            if self.flows.get(&key).is_some_and(|f| f.id == id) {
                self.close(&key, at, sink);
            }
        }
    }

    fn forget(&mut self, key: &FlowKey) -> Option<Flow> {
        let flow = self.flows.remove(key)?;
        self.counters.segments_undecided += flow.held.len() as u64;
        let held: usize = flow.held.iter().map(|h| h.bytes.len() + size_of::<Held>()).sum();
        self.held_bytes -= held;
        Some(flow)
    }

    /// The reader has its own clock for idle flows, so nothing need be said of them.
    fn forget_idle(&mut self, now: Nanos) {
        let deadline = now.saturating_sub(self.config.idle_timeout);
        let idle: Vec<_> =
            self.flows.iter().filter(|(_, f)| f.last_seen < deadline).map(|(k, _)| *k).collect();
        for key in idle {
            self.forget(&key);
        }
    }

    fn evict_oldest(&mut self) {
        let mut all: Vec<_> = self.flows.iter().map(|(k, f)| (f.last_seen, *k)).collect();
        let count = all.len() / 16 + 1;
        all.sort_unstable();
        for (_, key) in all.into_iter().take(count) {
            self.counters.flows_evicted += 1;
            self.forget(&key);
        }
    }

    fn let_go_of_held(&mut self) {
        for flow in self.flows.values_mut() {
            self.counters.segments_undecided += flow.held.len() as u64;
            flow.held = Vec::new();
        }
        self.held_bytes = 0;
    }
}

/// Returns the bytes that it costs.
fn hold(
    flow: &mut Flow,
    tcp: &TcpPacket<'_>,
    frame: &Frame<'_>,
    len: u32,
    counters: &mut PacketCounters,
) -> usize {
    if flow.held.len() >= MOST_HELD {
        // Whoever has not begun a message by now is in the middle of a long one.
        counters.segments_undecided += 1;
        return 0;
    }
    flow.held.push(Held {
        source: tcp.source,
        at: frame.at,
        seq: tcp.seq,
        ack: tcp.ack,
        fin: tcp.fin,
        rst: tcp.rst,
        len,
        missing: frame.missing,
        bytes: tcp.payload.seen.into(),
    });
    tcp.payload.seen.len() + size_of::<Held>()
}

fn direction(source: SocketAddr, client: SocketAddr) -> Direction {
    if source == client { Direction::ToServer } else { Direction::ToClient }
}

fn looks_like_response(bytes: &[u8]) -> bool {
    bytes.len() >= 7 && head::may_begin_response(bytes)
}

fn looks_like_request(bytes: &[u8]) -> bool {
    const METHODS: [&[u8]; 9] = [
        b"GET ",
        b"POST ",
        b"PUT ",
        b"DELETE ",
        b"HEAD ",
        b"PATCH ",
        b"OPTIONS ",
        b"CONNECT ",
        b"TRACE ",
    ];
    if METHODS.iter().any(|m| bytes.starts_with(m)) {
        return true;
    }
    let line = bytes.split(|b| *b == b'\n').next().unwrap_or_default();
    let line = &line[..line.len().min(8192)];
    head::may_begin_request(bytes) && line.windows(8).any(|w| w == b" HTTP/1.")
}

#[cfg(test)]
#[path = "tracker_tests.rs"]
mod tests;
