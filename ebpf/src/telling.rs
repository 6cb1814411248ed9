//! Records without payload: a connection's ends, its end, and what of it was lost.

use aya_ebpf::{bindings::__sk_buff, helpers::generated::bpf_ktime_get_ns};
use stoa_common::record::{
    OpenRecord, RecordHeader,
    direction::{TO_CLIENT, TO_SERVER},
    kind, reason,
};

use crate::{
    flow::{Flow, Stream, is_before},
    packet::{Packet, load},
    ring,
};

const INWARD: usize = TO_SERVER as usize;
const OUTWARD: usize = TO_CLIENT as usize;
/// Sequence numbers are compared over at most this distance.
pub const FAR: u32 = 1 << 30;

/// Tells the agent what it must know before the next segment: the connection's ends, and what it
/// missed. False if the ring is full.
///
/// # Safety
/// `flow` and `stream` point into a socket's storage.
#[inline(always)]
pub unsafe fn is_caught_up<const D: usize>(
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
    ring::put_open_with(|record| unsafe { describe_ends::<D>(skb, flow, packet, at, record) })
}

/// Two addresses. Aligned, so that they are zeroed in place: a function for it would have a frame of
/// its own.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Ends([[u8; 16]; 2]);

/// Writes all that is known of a connection; 0 if the packet's addresses cannot be read.
///
/// # Safety
/// `flow` points into a map, `record` is writable.
#[inline(always)]
pub unsafe fn describe_ends<const D: usize>(
    skb: *mut __sk_buff,
    flow: *mut Flow,
    packet: &Packet,
    at: u64,
    record: *mut OpenRecord,
) -> u64 {
    // SAFETY: see above.
    unsafe {
        let mut ends = Ends([[0; 16]; 2]);
        if packet.family == 4 {
            let Some(addresses) = load::<[[u8; 4]; 2]>(skb, 12) else { return 0 };
            let mut i = 0;
            while i < 4 {
                ends.0[0][i] = addresses[0][i];
                ends.0[1][i] = addresses[1][i];
                i += 1;
            }
        } else {
            let Some(addresses) = load::<Ends>(skb, 8) else { return 0 };
            ends = addresses;
        }
        let (client, server) = if D == INWARD { (0, 1) } else { (1, 0) };
        let (client_port, server_port) = if D == INWARD {
            (packet.source_port, packet.destination_port)
        } else {
            (packet.destination_port, packet.source_port)
        };
        record.write(OpenRecord {
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
            client: ends.0[client],
            server: ends.0[server],
            client_port,
            server_port,
            family: packet.family,
            from_start: (*flow).is_from_start,
            reserved: [0; 2],
            client_seq: (*flow).first[INWARD],
            server_seq: (*flow).first[OUTWARD],
            deferred: (*flow).deferred,
        });
        1
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
pub unsafe fn lose<const D: usize>(
    flow: *mut Flow,
    stream: *mut Stream,
    from: u32,
    to: u32,
    why: u8,
) {
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
pub unsafe fn tell_end<const D: usize>(flow: *mut Flow, packet: &Packet) {
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
