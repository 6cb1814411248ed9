//! Events of many connections in, exchanges out.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
};

use crate::{
    connection::Connection,
    counters::Counters,
    exchange::Exchange,
    pairing::Context,
    segment::{Endpoints, Event, FlowId, Nanos},
};

/// Bounds and choices of a [`Reader`]. All sizes are in bytes.
#[derive(Clone, Debug)]
pub struct ReaderConfig {
    /// Body kept per message: of the encoded body while it is read, of the decoded one after.
    pub body_limit: usize,
    /// The longest head that is read.
    pub head_limit: usize,
    /// Held per flow (out-of-order segments, heads and bodies being read).
    pub flow_memory_limit: usize,
    /// Held for all flows together; the flows idle longest go first.
    pub memory_limit: usize,
    pub max_flows: usize,
    /// A flow without an event for this long is let go of.
    pub idle_timeout: Nanos,
    /// Compute SHA-256 of bodies.
    pub hash_bodies: bool,
    /// Output of content decoding per message.
    pub decode_limit: usize,
    /// Decoded bytes permitted per encoded byte, once a quarter of `decode_limit` (at most 2 MiB) came out.
    pub decode_ratio: usize,
}

impl Default for ReaderConfig {
    fn default() -> Self {
        Self {
            body_limit: 16 << 10,
            head_limit: 64 << 10,
            flow_memory_limit: 1 << 20,
            memory_limit: 32 << 20,
            max_flows: 65_536,
            idle_timeout: 300_000_000_000,
            hash_bodies: false,
            decode_limit: 256 << 10,
            decode_ratio: 256,
        }
    }
}

impl ReaderConfig {
    /// For files: bodies are hashed and kept up to 64 MiB.
    pub fn offline() -> Self {
        Self {
            body_limit: 64 << 20,
            flow_memory_limit: 192 << 20,
            memory_limit: 1 << 30,
            max_flows: 1 << 20,
            hash_bodies: true,
            decode_limit: 256 << 20,
            ..Self::default()
        }
    }
}

/// Many connections at once, in bounded memory.
pub struct Reader {
    config: ReaderConfig,
    counters: Counters,
    flows: HashMap<FlowId, Flow, BuildHasherDefault<FlowHasher>>,
    memory: usize,
    newest: Nanos,
}

enum Flow {
    Read(Box<Connection>),
    /// Known, and nothing of it will be read: not HTTP, a tunnel, or past a framing error.
    Ignored {
        last_seen: Nanos,
    },
}

/// What the table itself costs per flow.
const FLOW_COST: usize = 64;

impl Flow {
    fn last_seen(&self) -> Nanos {
        match self {
            Self::Read(connection) => connection.last_seen,
            Self::Ignored { last_seen } => *last_seen,
        }
    }

    fn memory(&self) -> usize {
        match self {
            Self::Read(connection) => connection.accounted + FLOW_COST,
            Self::Ignored { .. } => FLOW_COST,
        }
    }
}

impl Reader {
    pub fn new(config: ReaderConfig) -> Self {
        Self {
            config,
            counters: Counters::default(),
            flows: HashMap::default(),
            memory: 0,
            newest: 0,
        }
    }

    /// Takes the next event; exchanges that it ends go to `sink`.
    pub fn push(&mut self, event: Event<'_>, sink: &mut dyn FnMut(Exchange)) {
        match event {
            Event::Open { flow, at, endpoints, from_start } => {
                self.newest = self.newest.max(at);
                self.open(flow, at, endpoints, from_start, sink);
            }
            Event::Segment(segment) => {
                self.newest = self.newest.max(segment.at);
                self.counters.bytes_seen += segment.data.len() as u64;
                self.feed(segment.flow, segment.at, segment.data.len() as u64, sink, |c, cx| {
                    c.take_segment(&segment, cx);
                });
            }
            Event::Lost { flow, direction, at, seq, len, reason } => {
                self.newest = self.newest.max(at);
                self.feed(flow, at, 0, sink, |c, cx| {
                    c.take_loss(direction, at, seq, len, reason, cx);
                });
            }
            Event::Close { flow, at } => {
                self.newest = self.newest.max(at);
                if self.flows.contains_key(&flow) {
                    self.counters.flows_closed += 1;
                    self.end(flow, true, sink);
                } else {
                    self.counters.events_without_flow += 1;
                }
            }
        }
        self.update_gauges();
    }

    /// Ends what has waited too long at `now`. Call it about once a second.
    pub fn expire(&mut self, now: Nanos, sink: &mut dyn FnMut(Exchange)) {
        self.newest = self.newest.max(now);
        let deadline = now.saturating_sub(self.config.idle_timeout);
        let mut idle = Vec::new();
        let mut cx = Context { config: &self.config, counters: &mut self.counters, sink };
        for (id, flow) in &mut self.flows {
            if flow.last_seen() < deadline {
                idle.push((flow.last_seen(), *id));
            } else if let Flow::Read(connection) = flow {
                connection.expire_holes(now, &mut cx);
            }
        }
        // Hash order must not show.
        idle.sort_unstable();
        for (_, id) in idle {
            self.counters.flows_expired += 1;
            self.end(id, false, sink);
        }
        self.update_gauges();
    }

    /// Ends every flow as if its connection were out of sight.
    pub fn finish(&mut self, sink: &mut dyn FnMut(Exchange)) {
        let mut rest: Vec<_> = self.flows.iter().map(|(id, f)| (f.last_seen(), *id)).collect();
        rest.sort_unstable();
        for (_, id) in rest {
            self.end(id, false, sink);
        }
        self.update_gauges();
    }

    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    fn open(
        &mut self,
        id: FlowId,
        at: Nanos,
        endpoints: Endpoints,
        from_start: bool,
        sink: &mut dyn FnMut(Exchange),
    ) {
        if let Some(known) = self.flows.get(&id) {
            // A source may say it twice; other ends under the same name are another connection.
            if matches!(known, Flow::Read(c) if c.endpoints() == endpoints && !from_start) {
                return;
            }
            self.counters.flows_closed += 1;
            self.end(id, true, sink);
        }
        if self.flows.len() >= self.config.max_flows {
            self.evict_oldest(self.config.max_flows / 16 + 1, sink);
        }
        self.counters.flows_opened += 1;
        let mut connection = Box::new(Connection::new(id, endpoints, from_start, at));
        connection.accounted = connection.memory();
        self.memory += connection.accounted + FLOW_COST;
        self.flows.insert(id, Flow::Read(connection));
    }

    fn feed(
        &mut self,
        id: FlowId,
        at: Nanos,
        bytes: u64,
        sink: &mut dyn FnMut(Exchange),
        act: impl FnOnce(&mut Connection, &mut Context<'_>),
    ) {
        let flow = match self.flows.get_mut(&id) {
            Some(flow) => flow,
            None => {
                self.counters.events_without_flow += 1;
                return;
            }
        };
        let connection = match flow {
            Flow::Read(connection) => connection,
            Flow::Ignored { last_seen } => {
                *last_seen = at.max(*last_seen);
                self.counters.bytes_unread += bytes;
                return;
            }
        };
        let mut cx = Context { config: &self.config, counters: &mut self.counters, sink };
        act(connection, &mut cx);
        let mut memory = connection.memory();
        if memory > self.config.flow_memory_limit {
            connection.shrink(self.config.flow_memory_limit, &mut cx);
            memory = connection.memory();
        }
        self.memory = self.memory - connection.accounted + memory;
        connection.accounted = memory;
        if connection.is_not_http() || connection.is_over() {
            self.counters.flows_not_http += u64::from(connection.is_not_http());
            let mut cx = Context { config: &self.config, counters: &mut self.counters, sink };
            connection.close(false, &mut cx);
            self.memory -= connection.accounted;
            let last_seen = connection.last_seen;
            *flow = Flow::Ignored { last_seen };
        } else if memory > self.config.flow_memory_limit {
            self.counters.flows_evicted += 1;
            self.end(id, false, sink);
        }
        if self.memory > self.config.memory_limit {
            self.evict_oldest(self.flows.len() / 16 + 1, sink);
        }
    }

    fn evict_oldest(&mut self, count: usize, sink: &mut dyn FnMut(Exchange)) {
        let mut all: Vec<_> = self.flows.iter().map(|(id, f)| (f.last_seen(), *id)).collect();
        let count = count.min(all.len());
        if count == 0 {
            return;
        }
        all.select_nth_unstable(count - 1);
        all.truncate(count);
        all.sort_unstable();
        for (_, id) in all {
            self.counters.flows_evicted += 1;
            self.end(id, false, sink);
        }
    }

    fn end(&mut self, id: FlowId, is_clean: bool, sink: &mut dyn FnMut(Exchange)) {
        let Some(flow) = self.flows.remove(&id) else { return };
        self.memory -= flow.memory();
        if let Flow::Read(mut connection) = flow {
            let mut cx = Context { config: &self.config, counters: &mut self.counters, sink };
            connection.close(is_clean, &mut cx);
        }
    }

    fn update_gauges(&mut self) {
        self.counters.flows = self.flows.len() as u64;
        self.counters.memory = self.memory as u64;
    }
}

/// Flow names are the kernel's cookies or keyed hashes: nobody outside chooses them.
#[derive(Default)]
struct FlowHasher(u64);

impl Hasher for FlowHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, value: u64) {
        // Fibonacci hashing, folded so that both ends of the word vary.
        let product =
            u128::from(self.0 ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
        self.0 = (product >> 64) as u64 ^ product as u64;
    }
}

#[cfg(test)]
#[path = "reader_tests.rs"]
mod tests;
