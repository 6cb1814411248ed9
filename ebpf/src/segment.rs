//! What is done with one TCP segment.

use aya_ebpf::{
    bindings::{__sk_buff, bpf_sock},
    helpers::generated::{bpf_get_socket_cookie, bpf_ktime_get_ns, bpf_sk_fullsock},
};
use stoa_common::record::{
    CHUNK, OpenRecord, RecordHeader,
    direction::{TO_CLIENT, TO_SERVER},
    kind, reason,
};

use crate::{
    flow::{self, Flow, Stream, is_before},
    http::{self, PEEK},
    packet::{FIN, Packet, RST, SYN, forget, load, load_bytes},
    ring::{self, Chunk},
    settings::{BODY_BUDGET, HEAD_GUESS, HEAD_LIMIT, PIPELINE_LIMIT, SHED_ABOVE},
    tallies, watch,
};

const INWARD: usize = TO_SERVER as usize;
const OUTWARD: usize = TO_CLIENT as usize;
/// `BPF_TCP_LISTEN` of uapi/linux/bpf.h.
const LISTENING: u32 = 10;
/// Segments longer than this are searched for the end of the head.
const SEARCHED_ABOVE: u32 = 1400;
/// The same where the segment looks like several requests.
const SEARCHED_FOR_PIPELINE: u32 = 512;
/// Payload segments in each direction after which a connection that was joined in the middle and
/// showed no message is let go.
const PATIENCE: u8 = 4;
/// The same for one direction alone: a long download says nothing for long.
const LONG_PATIENCE: u8 = 250;
/// Sequence numbers are compared over at most this distance.
const FAR: u32 = 1 << 30;

/// Looks at one packet of a socket in a watched cgroup. `D` is its direction.
#[inline(always)]
pub fn observe<const D: usize>(skb: *mut __sk_buff) {
    // SAFETY: a field of the program's context; the verifier wants the null checks.
    let socket = unsafe { (*skb).__bindgen_anon_2.sk };
    if socket.is_null() {
        return;
    }
    // SAFETY: checked above. Time-wait and request sockets have no storage.
    let socket = unsafe { bpf_sk_fullsock(socket) };
    if socket.is_null() {
        return;
    }
    let mut flow = flow::find(socket);
    let mut state = flow::NEW;
    if !flow.is_null() {
        // SAFETY: points into the socket's storage.
        unsafe {
            state = (*flow).state;
            if state == flow::IGNORED
                || state == flow::UNWATCHED && (*flow).generation == watch::current().generation
            {
                return;
            }
        }
    }
    // SAFETY: a field of a full socket.
    if state == flow::NEW && watch::is_port_of_others(skb, unsafe { (*socket).src_port }) != 0 {
        // Not even the headers are read of what shares the host with a watched port.
        return;
    }
    let Some(packet) = Packet::read(skb) else { return };
    if packet.len == 0 && (state != flow::SERVER || packet.flags & (FIN | RST) == 0) {
        return;
    }
    if state == flow::NEW || state == flow::UNWATCHED {
        flow = adopt::<D>(skb, socket, flow, &packet);
        if flow.is_null() {
            return;
        }
    }
    if packet.len != 0 {
        weigh::<D>(skb, flow, &packet);
    }
    // SAFETY: points into the socket's storage.
    unsafe {
        if packet.flags & (FIN | RST) != 0 && (*flow).is_open_told != 0 {
            tell_end::<D>(flow, &packet);
        }
    }
}

/// Finds out whose socket this is, at its first payload; null if nobody's.
#[inline(always)]
fn adopt<const D: usize>(
    skb: *mut __sk_buff,
    socket: *mut bpf_sock,
    known: *mut Flow,
    packet: &Packet,
) -> *mut Flow {
    let local_port =
        u32::from(if D == INWARD { packet.destination_port } else { packet.source_port });
    let watching = watch::current();
    let slot = watch::find_slot(skb, local_port, &watching);
    // SAFETY: a field of a full socket.
    if unsafe { (*socket).state } == LISTENING {
        if D == INWARD
            && let Some(slot) = slot
        {
            count_deferred(skb, packet.payload, packet.len, slot);
        }
        return core::ptr::null_mut();
    }
    if slot.is_none() && watching.levels == 0 {
        // The port alone told, which is quicker than to remember it.
        return core::ptr::null_mut();
    }
    let flow = if known.is_null() { flow::find_or_create(socket) } else { known };
    if flow.is_null() {
        if let Some(slot) = slot {
            tallies::count_due(slot, packet.len);
            tallies::count_lost(slot, reason::EVICTED, 1, packet.len);
        }
        return flow;
    }
    // SAFETY: points into the socket's storage.
    unsafe {
        match slot {
            Some(slot) => {
                (*flow).cookie = bpf_get_socket_cookie(skb.cast());
                (*flow).slot = slot;
                (*flow).state = flow::UNPROVEN;
                flow
            }
            None => {
                (*flow).generation = watching.generation;
                (*flow).state = flow::UNWATCHED;
                core::ptr::null_mut()
            }
        }
    }
}

/// Where the listener defers (`TCP_DEFER_ACCEPT`), the first request reaches the filter before its
/// connection has a socket (`tcp_v4_rcv`: a request socket's segment is filtered as the listener's).
/// It cannot be told whose it is, so it is counted as due and not readable.
#[inline(never)]
fn count_deferred(skb: *mut __sk_buff, payload: u32, len: u32, slot: u32) {
    let Some(first) = load::<[u8; PEEK]>(skb, payload) else { return };
    if http::recognize(&first, len) == http::REQUEST {
        tallies::count_due(slot, len);
        tallies::count_lost(slot, reason::UNREADABLE, 1, len);
    }
}

/// Decides about a segment with payload, and copies what is worth it.
#[inline(always)]
fn weigh<const D: usize>(skb: *mut __sk_buff, flow: *mut Flow, packet: &Packet) {
    let mut first = [0u8; PEEK];
    let n = core::hint::black_box(u64::from(packet.len));
    let n = if n > PEEK as u64 { PEEK as u64 } else { n };
    // SAFETY: at most as many bytes as there are.
    let is_readable =
        n != 0 && unsafe { load_bytes(skb, packet.payload.into(), first.as_mut_ptr(), n) } == 0;
    let start = forget(if is_readable { http::recognize(&first, packet.len) } else { http::NONE });
    // A SYN takes a number of its own (RFC 9293 section 3.4); with Fast Open it carries payload.
    let seq = packet.seq.wrapping_add(u32::from(packet.flags & SYN != 0));
    // SAFETY: points into the socket's storage.
    unsafe {
        if (*flow).state == flow::UNPROVEN && !prove::<D>(flow, start, &first) {
            return;
        }
        let stream = &raw mut (*flow).streams[D];
        let is_own_start =
            if D == INWARD { start == http::REQUEST } else { start == http::RESPONSE };
        if is_own_start && ((*stream).is_started != 1 || is_before((*stream).base, seq)) {
            begin_message::<D>(flow, stream, seq);
        }
        if (*stream).is_started == 0 {
            // The tail of a message that began before the capture did.
            return;
        }
        let slot = (*flow).slot;
        tallies::count_due(slot, packet.len);
        let end = seq.wrapping_add(packet.len);
        if is_before((*stream).end, end) {
            (*stream).end = end;
        }
        if !is_readable {
            tallies::count_lost(slot, reason::UNREADABLE, 1, packet.len);
            lose::<D>(flow, stream, seq, end, reason::UNREADABLE);
            return;
        }
        if (*stream).is_head_open != 0 {
            follow_head::<D>(skb, flow, stream, packet, seq, &first);
        }
        let copied = room(stream, seq);
        if copied == 0 {
            let why = (*stream).skip_reason;
            tallies::count_lost(slot, why, 1, packet.len);
            lose::<D>(flow, stream, seq, end, why);
            if seq.wrapping_sub((*stream).base).wrapping_sub(FAR) < FAR {
                // Keeps the window within comparable distance.
                (*stream).base = seq;
                (*stream).limit = seq;
                (*stream).is_head_open = 0;
            }
            return;
        }
        deliver::<D>(skb, flow, stream, packet, seq, copied);
    }
}

/// Whether a connection that has shown nothing yet is worth counting with this segment.
///
/// # Safety
/// `flow` points into a socket's storage.
#[inline(always)]
unsafe fn prove<const D: usize>(flow: *mut Flow, start: u32, first: &[u8; PEEK]) -> bool {
    // SAFETY: see above.
    unsafe {
        let is_server = if D == INWARD { start == http::REQUEST } else { start == http::RESPONSE };
        if is_server {
            (*flow).state = flow::SERVER;
            return true;
        }
        let is_foreign = if start != http::NONE {
            // TLS, or the client's end of a connection: the listening end records it.
            true
        } else if (*flow).is_from_start != 0 {
            // In HTTP the client speaks first, in text. A request may come in crumbs, or behind
            // an empty line (RFC 9112 section 2.2).
            D == OUTWARD
                || !http::looks_like_text(first) && first[1] != 0
                || (*flow).unproven[D] >= PATIENCE
        } else {
            (*flow).unproven[D] >= LONG_PATIENCE
                || (*flow).unproven[INWARD] >= PATIENCE && (*flow).unproven[OUTWARD] >= PATIENCE
        };
        if is_foreign {
            (*flow).state = flow::IGNORED;
            tallies::count_foreign_flow((*flow).slot);
            return false;
        }
        (*flow).unproven[D] += 1;
        (*flow).is_from_start != 0
    }
}

/// # Safety
/// Both point into a socket's storage.
#[inline(always)]
unsafe fn begin_message<const D: usize>(flow: *mut Flow, stream: *mut Stream, seq: u32) {
    // SAFETY: see above.
    unsafe {
        if (*stream).is_started == 1 {
            (*stream).previous_base = (*stream).base;
            // What follows is the new message's, to copy or to leave out.
            let limit = (*stream).limit;
            (*stream).previous_limit = if is_before(seq, limit) { seq } else { limit };
        } else if (*stream).is_started == 0 {
            (*stream).end = seq;
        }
        (*stream).is_started = 1;
        (*stream).base = seq;
        if D == OUTWARD {
            (*flow).is_unanswered = 0;
        } else {
            if (*flow).is_unanswered != 0 {
                (*flow).is_pipelined = 1;
            }
            (*flow).is_unanswered = 1;
            // Losses are whole exchanges: better one left out than holes in many.
            let is_crowded = ring::waiting_bytes() > SHED_ABOVE.load();
            (*flow).is_shed = u8::from(is_crowded);
            if is_crowded {
                tallies::count_shed_exchange((*flow).slot);
            }
        }
        if (*flow).is_shed != 0 {
            (*stream).limit = seq;
            (*stream).is_head_open = 0;
            (*stream).skip_reason = reason::SHED;
        } else {
            let guess = BODY_BUDGET.load() + HEAD_GUESS;
            let least = if (*flow).is_pipelined != 0 { PIPELINE_LIMIT } else { CHUNK + HEAD_GUESS };
            (*stream).limit = seq.wrapping_add(if guess > least { guess } else { least });
            (*stream).is_head_open = u8::from((*flow).is_pipelined == 0);
            (*stream).skip_reason = reason::BUDGET;
        }
    }
}

/// Looks for the end of the current message's head in this segment: from there on, the body's
/// budget counts.
///
/// # Safety
/// `stream` points into a socket's storage.
#[inline(always)]
unsafe fn follow_head<const D: usize>(
    skb: *mut __sk_buff,
    flow: *mut Flow,
    stream: *mut Stream,
    packet: &Packet,
    seq: u32,
    first: &[u8; PEEK],
) {
    // SAFETY: see above.
    unsafe {
        let at = seq.wrapping_sub((*stream).base);
        if at >= HEAD_LIMIT {
            // Late, or beyond what any head may take.
            return;
        }
        let is_ended = packet.len >= 4
            && load::<u32>(skb, packet.payload + packet.len - 4)
                == Some(u32::from_ne_bytes(*b"\r\n\r\n"));
        // A long segment of requests that ends as a head does is one head, or several.
        let searched_above =
            if is_ended && D == INWARD { SEARCHED_FOR_PIPELINE } else { SEARCHED_ABOVE };
        let mut head = 0;
        if packet.len > searched_above && (!is_ended || D == INWARD) {
            http::find_head_end(skb, packet.payload, packet.len, &raw mut (*stream).head);
            head = (&raw const (*stream).head).read_volatile();
        }
        if is_ended {
            if head != 0 && head < packet.len {
                (*flow).is_pipelined = 1;
                (*stream).is_head_open = 0;
                (*stream).limit = (*stream).base.wrapping_add(PIPELINE_LIMIT);
                return;
            }
            head = packet.len;
        }
        if head != 0 {
            (*stream).is_head_open = 0;
            (*stream).limit = seq.wrapping_add(head).wrapping_add(BODY_BUDGET.load());
        } else if at.wrapping_add(packet.len) > (*stream).limit.wrapping_sub((*stream).base)
            && http::looks_like_text(first)
        {
            // A long head, as far as can be told.
            (*stream).limit = (*stream).base.wrapping_add(HEAD_LIMIT);
        }
    }
}

/// How many bytes from `seq` on are within the current message's window or the one before.
///
/// # Safety
/// `stream` points into a socket's storage.
#[inline(always)]
unsafe fn room(stream: *const Stream, seq: u32) -> u32 {
    // SAFETY: see above.
    unsafe {
        let (base, limit) = ((*stream).base, (*stream).limit);
        let (at, size) = (seq.wrapping_sub(base), limit.wrapping_sub(base));
        if at < size {
            return size - at;
        }
        let (base, limit) = ((*stream).previous_base, (*stream).previous_limit);
        let (at, size) = (seq.wrapping_sub(base), limit.wrapping_sub(base));
        size.saturating_sub(at)
    }
}

/// Copies up to `room` bytes of the segment.
///
/// # Safety
/// `flow` and `stream` point into a socket's storage.
#[inline(always)]
unsafe fn deliver<const D: usize>(
    skb: *mut __sk_buff,
    flow: *mut Flow,
    stream: *mut Stream,
    packet: &Packet,
    seq: u32,
    room: u32,
) {
    // SAFETY: see above.
    unsafe {
        let slot = (*flow).slot;
        let end = seq.wrapping_add(packet.len);
        let copied = forget(if room < packet.len { room } else { packet.len });
        let at = bpf_ktime_get_ns();
        if !is_caught_up::<D>(skb, flow, stream, packet, at) {
            tallies::count_lost(slot, reason::RING_FULL, 1, packet.len);
            lose::<D>(flow, stream, seq, end, reason::RING_FULL);
            return;
        }

        let mut chunk = Chunk {
            header: RecordHeader {
                flow: (*flow).cookie,
                at,
                slot,
                seq,
                ack: packet.ack,
                len: 0,
                captured: 0,
                kind: kind::SEGMENT,
                direction: D as u8,
                // The end of the stream is told by a record of its own.
                flags: packet.flags & !(FIN | RST | SYN),
                reason: reason::NONE,
            },
            offset: packet.payload,
        };
        let why = (*stream).skip_reason;
        let mut done = 0;
        let mut result = ring::DELIVERED;
        // Whole chunks first: up to a head of 64 KiB and its body's budget.
        for _ in 0..6 {
            if result != ring::DELIVERED || copied.saturating_sub(done) <= CHUNK {
                break;
            }
            cut(&mut chunk, packet, seq, done, CHUNK, copied, why);
            result = ring::put_whole(skb, &chunk);
            if result == ring::DELIVERED {
                done += CHUNK;
            }
        }
        let left = copied.saturating_sub(done);
        if result == ring::DELIVERED && left != 0 && left <= CHUNK {
            cut(&mut chunk, packet, seq, done, left, copied, why);
            result = ring::put_chunk(skb, &chunk);
            if result == ring::DELIVERED {
                done += left;
            }
        }

        if done == packet.len {
            tallies::count_captured(slot, 1, done);
            return;
        }
        tallies::count_captured(slot, 0, done);
        let missing = packet.len - done;
        if result == ring::DELIVERED {
            tallies::count_lost(slot, why, 1, missing);
            if chunk.header.captured == chunk.header.len {
                // The window moved while this segment was being copied.
                lose::<D>(flow, stream, seq.wrapping_add(done), end, why);
            }
            return;
        }
        let cause = if result == ring::UNREADABLE { reason::UNREADABLE } else { reason::RING_FULL };
        let beyond = packet.len.saturating_sub(if copied > done { copied } else { done });
        tallies::count_lost(slot, cause, 1, missing - beyond);
        if beyond != 0 {
            tallies::count_lost(slot, why, 0, beyond);
        }
        lose::<D>(flow, stream, seq.wrapping_add(done), end, cause);
    }
}

/// Makes the chunk the `n` bytes behind the `done` ones of a segment of which `copied` will be
/// delivered. The last one stands for the rest as well.
#[inline(always)]
fn cut(chunk: &mut Chunk, packet: &Packet, seq: u32, done: u32, n: u32, copied: u32, why: u8) {
    chunk.header.seq = seq.wrapping_add(done);
    chunk.offset = packet.payload + done;
    chunk.header.captured = n;
    if done + n == copied {
        chunk.header.len = packet.len - done;
        chunk.header.reason = if copied < packet.len { why } else { reason::NONE };
    } else {
        chunk.header.len = n;
    }
}

/// Tells the agent what it must know before the next segment: the connection's ends, and what it
/// missed. False if the ring is full.
///
/// # Safety
/// `flow` and `stream` point into a socket's storage.
#[inline(always)]
unsafe fn is_caught_up<const D: usize>(
    skb: *mut __sk_buff,
    flow: *mut Flow,
    stream: *mut Stream,
    packet: &Packet,
    at: u64,
) -> bool {
    // SAFETY: see above.
    unsafe {
        if (*flow).is_open_told == 0 {
            if tell_open::<D>(skb, flow, packet, at) == 0 {
                return false;
            }
            (*flow).is_open_told = 1;
        }
        (*stream).lost_from == (*stream).lost_to || tell_lost(flow, stream, D as u64, at) != 0
    }
}

/// # Safety
/// `flow` points into a socket's storage.
#[inline(never)]
unsafe fn tell_open<const D: usize>(
    skb: *mut __sk_buff,
    flow: *mut Flow,
    packet: &Packet,
    at: u64,
) -> u64 {
    // SAFETY: see above.
    unsafe {
        let mut ends = [[0u8; 16]; 2];
        if packet.family == 4 {
            let Some(addresses) = load::<[[u8; 4]; 2]>(skb, 12) else { return 0 };
            let mut i = 0;
            while i < 4 {
                ends[0][i] = addresses[0][i];
                ends[1][i] = addresses[1][i];
                i += 1;
            }
        } else {
            let Some(addresses) = load::<[[u8; 16]; 2]>(skb, 8) else { return 0 };
            ends = addresses;
        }
        let (client, server) = if D == INWARD { (0, 1) } else { (1, 0) };
        let (client_port, server_port) = if D == INWARD {
            (packet.source_port, packet.destination_port)
        } else {
            (packet.destination_port, packet.source_port)
        };
        let record = OpenRecord {
            header: RecordHeader {
                flow: (*flow).cookie,
                at,
                slot: (*flow).slot,
                seq: 0,
                ack: 0,
                len: 0,
                captured: 0,
                kind: kind::OPEN,
                direction: D as u8,
                flags: 0,
                reason: reason::NONE,
            },
            client: ends[client],
            server: ends[server],
            client_port,
            server_port,
            family: packet.family,
            from_start: (*flow).is_from_start,
            reserved: [0; 2],
            client_seq: (*flow).first[INWARD],
            server_seq: (*flow).first[OUTWARD],
        };
        u64::from(ring::put_open(&record))
    }
}

/// Tells of lost bytes that the agent need not wait for; 0 if the ring is full.
///
/// # Safety
/// `flow` and `stream` point into a socket's storage.
#[inline(never)]
pub unsafe fn tell_lost(flow: *mut Flow, stream: *mut Stream, direction: u64, at: u64) -> u64 {
    // SAFETY: see above.
    unsafe {
        let (from, to) = ((*stream).lost_from, (*stream).lost_to);
        let header = RecordHeader {
            flow: (*flow).cookie,
            at,
            slot: (*flow).slot,
            seq: from,
            ack: 0,
            len: to.wrapping_sub(from),
            captured: 0,
            kind: kind::LOST,
            direction: direction as u8,
            flags: 0,
            reason: (*stream).lost_reason,
        };
        if !ring::put_header(&header) {
            return 0;
        }
        (*stream).lost_from = to;
        1
    }
}

/// Remembers lost bytes until the agent can be told of them.
///
/// # Safety
/// `flow` and `stream` point into a socket's storage.
#[inline(always)]
unsafe fn lose<const D: usize>(flow: *mut Flow, stream: *mut Stream, from: u32, to: u32, why: u8) {
    // SAFETY: see above.
    unsafe {
        let (known_from, known_to) = ((*stream).lost_from, (*stream).lost_to);
        let known = known_to.wrapping_sub(known_from);
        if known != 0 && from.wrapping_sub(known_from) <= known && known < FAR {
            // Adjoins what is known, whatever the reason: the counters have each by its own.
            if is_before(known_to, to) {
                (*stream).lost_to = to;
            }
            return;
        }
        if known != 0
            && ((*flow).is_open_told == 0
                || tell_lost(flow, stream, D as u64, bpf_ktime_get_ns()) == 0)
        {
            // Cannot be told now: one range from the first to the last. What was delivered in
            // between stays delivered.
            if is_before(from, known_from) {
                (*stream).lost_from = from;
            }
            if is_before(known_to, to) {
                (*stream).lost_to = to;
            }
            return;
        }
        (*stream).lost_from = from;
        (*stream).lost_to = to;
        (*stream).lost_reason = why;
    }
}

/// Tells of a FIN or RST, and before that of what was lost.
///
/// # Safety
/// `flow` points into a socket's storage.
#[inline(always)]
unsafe fn tell_end<const D: usize>(flow: *mut Flow, packet: &Packet) {
    // SAFETY: see above.
    unsafe {
        let at = bpf_ktime_get_ns();
        let stream = &raw mut (*flow).streams[D];
        if (*stream).lost_from != (*stream).lost_to {
            tell_lost(flow, stream, D as u64, at);
        }
        ring::put_header(&RecordHeader {
            flow: (*flow).cookie,
            at,
            slot: (*flow).slot,
            seq: packet.seq.wrapping_add(packet.len),
            ack: packet.ack,
            len: 0,
            captured: 0,
            kind: kind::SEGMENT,
            direction: D as u8,
            flags: packet.flags,
            reason: reason::NONE,
        });
    }
}
