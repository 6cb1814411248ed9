//! What is done with one TCP segment.

use aya_ebpf::{
    bindings::{__sk_buff, bpf_sock},
    helpers::generated::{bpf_get_socket_cookie, bpf_sk_fullsock},
};
use stoa_common::{
    record::{
        CHUNK,
        direction::{TO_CLIENT, TO_SERVER},
        reason,
    },
    tally::Tally,
};

use crate::{
    copying::deliver,
    deferred::observe_deferred,
    flow::{self, Flow, Stream, is_before},
    http::{self, PEEK},
    own,
    packet::{FIN, Packet, RST, SYN, forget, load_some},
    ring, sampling,
    settings::{BODY_BUDGET, HEAD_GUESS, HEAD_LIMIT, PIPELINE_LIMIT},
    tallies,
    telling::{FAR, lose, tell_end},
    watch,
};

const INWARD: usize = TO_SERVER as usize;
const OUTWARD: usize = TO_CLIENT as usize;
/// `BPF_TCP_LISTEN` of uapi/linux/bpf.h.
const LISTENING: u32 = 10;
/// Payload segments in each direction after which a connection that was joined in the middle and
/// showed no message is let go.
const PATIENCE: u8 = 4;
/// The same for one direction alone: a long download says nothing for long.
const LONG_PATIENCE: u8 = 250;

/// A body of which so much, head included, comes in one segment with its head may be a large one.
const LARGE: u32 = 1400;

/// Looks at one packet of a socket in a watched cgroup. `D` is its direction.
#[inline(always)]
pub fn observe<const D: usize>(skb: *mut __sk_buff) {
    let socket = full_socket(skb);
    if socket.is_null() {
        return;
    }
    // SAFETY: a field of a full socket.
    if D == INWARD && unsafe { (*socket).state } == LISTENING {
        if !own::is_own(socket) {
            observe_deferred(skb);
        }
        return;
    }
    observe_connected::<D>(skb, socket);
}

/// The socket that a packet belongs to; null for time-wait and request sockets, which have no
/// storage.
#[inline(always)]
fn full_socket(skb: *mut __sk_buff) -> *mut bpf_sock {
    // SAFETY: a field of the program's context; the verifier wants the null check.
    unsafe {
        let socket = (*skb).__bindgen_anon_2.sk;
        if socket.is_null() { socket } else { bpf_sk_fullsock(socket) }
    }
}

/// Not inlined: its stack would add to that of the deferred segment's way.
#[inline(never)]
fn observe_connected<const D: usize>(skb: *mut __sk_buff, socket: *mut bpf_sock) {
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
        let local_port =
            u32::from(if D == INWARD { packet.destination_port } else { packet.source_port });
        if adopt(skb, local_port, packet.len) == 0 {
            return;
        }
        flow = flow::find(socket);
        if flow.is_null() {
            return;
        }
    }
    // SAFETY: points into the socket's storage.
    unsafe { observe_payload::<D>(skb, flow, &packet) };
}

/// Looks at a packet with payload, or at the end of a stream.
///
/// # Safety
/// `flow` points into a map.
#[inline(always)]
pub unsafe fn observe_payload<const D: usize>(
    skb: *mut __sk_buff,
    flow: *mut Flow,
    packet: &Packet,
) {
    if packet.len != 0 {
        weigh::<D>(skb, flow, packet);
    }
    // SAFETY: see above.
    unsafe {
        if packet.flags & (FIN | RST) != 0 && (*flow).is_open_told != 0 {
            tell_end::<D>(flow, packet);
        }
    }
}

/// Finds out whose socket this is, at its first payload; 0 if nobody's.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn adopt(skb: *mut __sk_buff, local_port: u32, len: u32) -> u32 {
    let socket = full_socket(skb);
    if socket.is_null() {
        return 0;
    }
    let watching = watch::current();
    let slot = watch::find_slot(skb, local_port, &watching);
    if slot == watch::NOBODY && watching.levels == 0 {
        // The port alone told, which is quicker than to remember it.
        return 0;
    }
    let flow = flow::find_or_create(socket);
    if flow.is_null() {
        let tally = tallies::of(slot);
        if !tally.is_null() {
            // SAFETY: points into the map.
            unsafe {
                tallies::count_due(tally, len);
                tallies::count_lost(tally, reason::EVICTED, 1, len);
            }
        }
        return 0;
    }
    // SAFETY: points into the socket's storage.
    unsafe {
        if own::is_own(socket) {
            (*flow).state = flow::IGNORED;
            return 0;
        }
        if slot == watch::NOBODY {
            (*flow).generation = watching.generation;
            (*flow).state = flow::UNWATCHED;
            return 0;
        }
        (*flow).cookie = bpf_get_socket_cookie(skb.cast());
        (*flow).slot = slot;
        (*flow).state = flow::UNPROVEN;
        1
    }
}

/// Decides about a segment with payload, and copies what is worth it.
#[inline(always)]
fn weigh<const D: usize>(skb: *mut __sk_buff, flow: *mut Flow, packet: &Packet) {
    let mut first = [0u8; PEEK];
    let n = if packet.len > PEEK as u32 { PEEK as u32 } else { packet.len };
    // SAFETY: at most as many bytes as there are.
    let is_readable = unsafe { load_some(skb, packet.payload, first.as_mut_ptr(), n, PEEK) };
    let start = forget(if is_readable { http::recognize(&first, packet.len) } else { http::NONE });
    // A SYN takes a number of its own (RFC 9293 section 3.4); with Fast Open it carries payload.
    let seq = packet.seq.wrapping_add(u32::from(packet.flags & SYN != 0));
    // SAFETY: points into the socket's storage.
    unsafe {
        let tally = tallies::of((*flow).slot);
        if tally.is_null() {
            return;
        }
        if (*flow).state == flow::UNPROVEN && !prove::<D>(flow, tally, start, &first) {
            return;
        }
        let stream = &raw mut (*flow).streams[D];
        let is_own_start =
            if D == INWARD { start == http::REQUEST } else { start == http::RESPONSE };
        let mut begin = seq;
        if is_own_start && ((*stream).is_started != 1 || is_before((*stream).base, seq)) {
            begin_message::<D>(flow, stream, tally, seq, packet.ack);
            if D == INWARD && (*flow).is_shed != 0 {
                look_behind(skb, flow, packet, seq);
            }
        } else if D == INWARD && (*flow).request_end != 0 {
            begin = begin_behind_tail(flow, stream, tally, seq, packet);
        }
        if (*stream).is_started == 0 {
            // The tail of a message that began before the capture did.
            return;
        }
        tallies::count_due(tally, packet.len);
        let end = seq.wrapping_add(packet.len);
        if is_before((*stream).end, end) {
            (*stream).end = end;
        }
        if !is_readable {
            tallies::count_lost(tally, reason::UNREADABLE, 1, packet.len);
            lose::<D>(flow, stream, seq, end, reason::UNREADABLE);
            return;
        }
        if (*stream).is_head_open != 0 {
            let at = forget(begin.wrapping_sub(seq) + 1) - 1;
            follow_head::<D>(skb, flow, stream, packet, at, begin, &first);
        }
        let copied = room(stream, seq);
        if copied == 0 {
            let why = (*stream).skip_reason;
            tallies::count_lost(tally, why, 1, packet.len);
            lose::<D>(flow, stream, seq, end, why);
            if seq.wrapping_sub((*stream).base).wrapping_sub(FAR) < FAR {
                // Keeps the window within comparable distance.
                (*stream).base = seq;
                (*stream).limit = seq;
                (*stream).is_head_open = 0;
            }
            return;
        }
        deliver::<D>(skb, flow, stream, tally, packet, seq, copied);
    }
}

/// Whether a connection that has shown nothing yet is worth counting with this segment.
///
/// # Safety
/// `flow` points into a socket's storage.
#[inline(always)]
unsafe fn prove<const D: usize>(
    flow: *mut Flow,
    tally: *mut Tally,
    start: u32,
    first: &[u8; PEEK],
) -> bool {
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
            tallies::count_foreign_flow(tally);
            return false;
        }
        (*flow).unproven[D] += 1;
        (*flow).is_from_start != 0
    }
}

/// Where the current request is known to end within this segment, the next one begins there: a
/// server that answers before it has read a large body lets the client's next request share a
/// segment with the tail of that body. Returns where in the stream a message begins.
///
/// # Safety
/// All point into maps.
#[inline(always)]
unsafe fn begin_behind_tail(
    flow: *mut Flow,
    stream: *mut Stream,
    tally: *mut Tally,
    seq: u32,
    packet: &Packet,
) -> u32 {
    // SAFETY: see above.
    unsafe {
        let begin = (*flow).request_end;
        let tail = begin.wrapping_sub(seq);
        if tail == 0 || tail >= packet.len || (*flow).is_shed != 0 {
            return seq;
        }
        begin_message::<INWARD>(flow, stream, tally, begin, packet.ack);
        if (*flow).is_shed == 0 {
            // The tail is copied too: only the agent reads what is before the request.
            (*stream).base = seq;
        }
        begin
    }
}

/// Nothing is copied of the request that begins with this segment, so the agent will not see what
/// else is in it: whether another request is, or where one would have to begin.
///
/// # Safety
/// `flow` points into a map.
#[inline(always)]
unsafe fn look_behind(skb: *mut __sk_buff, flow: *mut Flow, packet: &Packet, seq: u32) {
    let (payload, len) = (packet.payload, packet.len);
    let head = http::measure_head(skb, payload, len);
    if head == 0 {
        return;
    }
    let length = http::find_content_length(skb, payload, len, head);
    // SAFETY: see above.
    unsafe {
        if length != 0 {
            (*flow).request_end = seq.wrapping_add(head).wrapping_add(length);
        } else if http::is_request_at(skb, payload, len, head) != 0 {
            (*flow).is_pipelined = 1;
        }
    }
}

/// # Safety
/// Both point into a socket's storage.
#[inline(always)]
unsafe fn begin_message<const D: usize>(
    flow: *mut Flow,
    stream: *mut Stream,
    tally: *mut Tally,
    seq: u32,
    ack: u32,
) {
    // SAFETY: see above.
    unsafe {
        if D == INWARD {
            let is_first = (*stream).is_started != 1;
            // Not a byte of an answer came between this request and the one before; or what was
            // left out was more than one, and answers are still to come that the agent would take
            // for that to this one.
            let is_beside = !is_first && (*flow).request_ack == ack
                || (*flow).is_shed != 0 && (*flow).request_end != 0 && (*flow).request_end != seq;
            if is_beside {
                (*flow).is_pipelined = 1;
            }
            (*flow).request_ack = ack;
            (*flow).request_end = 0;
            // Losses are whole exchanges: better one left out than holes in many.
            let is_left_out = sampling::is_passed_over(flow, is_first) || ring::is_crowded();
            (*flow).is_shed = u8::from(is_left_out);
            if is_left_out {
                (*flow).has_shed = 1;
                tallies::count_shed_exchange(tally);
            }
        }
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
        if (*flow).is_shed != 0 {
            (*stream).limit = seq;
            (*stream).is_head_open = 0;
            (*stream).skip_reason = reason::SHED;
        } else {
            let guess = BODY_BUDGET.load() + HEAD_GUESS;
            let least = if (*flow).is_pipelined != 0 { PIPELINE_LIMIT } else { CHUNK + HEAD_GUESS };
            (*stream).limit = seq.wrapping_add(if guess > least { guess } else { least });
            (*stream).is_head_open = 1;
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
    behind: u32,
    begin: u32,
    first: &[u8; PEEK],
) {
    // SAFETY: see above.
    unsafe {
        let at = begin.wrapping_sub((*stream).base);
        if at >= HEAD_LIMIT || behind >= packet.len {
            // Late, or beyond what any head may take.
            return;
        }
        let (payload, len) = (packet.payload + behind, packet.len - behind);
        let head = http::find_head(skb, payload, len, u32::from(D == INWARD));
        if head == http::SEVERAL {
            (*flow).is_pipelined = 1;
            (*stream).is_head_open = 0;
            (*stream).limit = (*stream).base.wrapping_add(PIPELINE_LIMIT);
        } else if head != 0 {
            (*stream).is_head_open = 0;
            if (*flow).is_pipelined == 0 {
                (*stream).limit = begin.wrapping_add(head).wrapping_add(BODY_BUDGET.load());
            }
            if D == INWARD && (head == len || len > LARGE) {
                let length = http::find_content_length(skb, payload, len, head);
                if length > BODY_BUDGET.load() && length < FAR {
                    (*flow).request_end = begin.wrapping_add(head).wrapping_add(length);
                }
            }
        } else if (*flow).is_pipelined == 0
            && at.wrapping_add(len) > (*stream).limit.wrapping_sub((*stream).base)
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
