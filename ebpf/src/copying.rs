//! From a segment to the ring's records.

use aya_ebpf::{bindings::__sk_buff, helpers::generated::bpf_ktime_get_ns};
use stoa_common::{
    record::{CHUNK, RecordHeader, kind, reason},
    tally::Tally,
};

use crate::{
    flow::{Flow, Stream},
    packet::{FIN, Packet, RST, SYN, forget},
    ring::{self, Chunk},
    tallies,
    telling::{is_caught_up, lose},
};

/// Copies up to `room` bytes of the segment.
///
/// # Safety
/// `flow` and `stream` point into a socket's storage.
#[inline(always)]
pub unsafe fn deliver<const D: usize>(
    skb: *mut __sk_buff,
    flow: *mut Flow,
    stream: *mut Stream,
    tally: *mut Tally,
    packet: &Packet,
    seq: u32,
    room: u32,
) {
    // SAFETY: see above.
    unsafe {
        let end = seq.wrapping_add(packet.len);
        let copied = forget(if room < packet.len { room } else { packet.len });
        let at = bpf_ktime_get_ns();
        if !is_caught_up::<D>(skb, flow, stream, packet, at) {
            tallies::count_lost(tally, reason::RING_FULL, 1, packet.len);
            lose::<D>(flow, stream, seq, end, reason::RING_FULL);
            return;
        }

        let mut chunk = Chunk {
            header: RecordHeader {
                flow: (*flow).cookie,
                at,
                slot: (*flow).slot,
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
            tallies::count_captured(tally, 1, done);
            return;
        }
        tallies::count_captured(tally, 0, done);
        let missing = packet.len - done;
        if result == ring::DELIVERED {
            tallies::count_lost(tally, why, 1, missing);
            if chunk.header.captured == chunk.header.len {
                // The window moved while this segment was being copied.
                lose::<D>(flow, stream, seq.wrapping_add(done), end, why);
            }
            return;
        }
        let cause = if result == ring::UNREADABLE { reason::UNREADABLE } else { reason::RING_FULL };
        let beyond = packet.len.saturating_sub(if copied > done { copied } else { done });
        tallies::count_lost(tally, cause, 1, missing - beyond);
        if beyond != 0 {
            tallies::count_lost(tally, why, 0, beyond);
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
