//! The first segment of a connection whose listener defers (`TCP_DEFER_ACCEPT`), or with Fast Open.
//!
//! Such a listener makes the connection's socket only when the first request is there, so that
//! segment is filtered as the listener's (`tcp_v4_rcv` of net/ipv4/tcp_ipv4.c, `TCP_NEW_SYN_RECV`),
//! and never as the new socket's. It is copied all the same, as that of a connection with a name of
//! its own. Still in the same softirq the new socket is established, and `lifecycle` finds here what
//! was seen: it tells the agent which connection those records belong to. Where the listener has no
//! room, no socket comes and the client sends the segment again.

use aya_ebpf::{
    bindings::__sk_buff,
    helpers::generated::{bpf_get_smp_processor_id, bpf_ktime_get_ns},
    macros::map,
    maps::PerCpuArray,
};
use stoa_common::record::{DEFERRED, DEFERRED_CPU_SHIFT, OpenRecord, direction::TO_SERVER};

use crate::{
    flow::{self, Flow},
    packet::{Packet, SYN},
    segment::observe_payload,
    telling::describe_ends,
    watch,
};

const INWARD: usize = TO_SERVER as usize;

/// One per CPU is enough: nothing else is filtered on a CPU between a segment and the socket that
/// is made of it. Should that ever be different, the numbers below do not match.
#[map]
static FIRST_SEGMENTS: PerCpuArray<FirstSegment> = PerCpuArray::with_max_entries(1, 0);

#[repr(C)]
pub struct FirstSegment {
    /// How many have been seen on this CPU: part of the next one's name.
    count: u64,
    /// No socket has taken it.
    is_waiting: u64,
    open: OpenRecord,
    flow: Flow,
}

#[inline(always)]
pub fn slot_of_this_cpu() -> *mut FirstSegment {
    FIRST_SEGMENTS.get_ptr_mut(0).unwrap_or(core::ptr::null_mut())
}

/// Looks at a packet that arrives at a listening socket. Nearly all of them are handshakes.
#[inline(never)]
pub fn observe_deferred(skb: *mut __sk_buff) {
    if begin_deferred(skb) == 0 {
        return;
    }
    let Some(packet) = Packet::read(skb) else { return };
    let first = slot_of_this_cpu();
    if first.is_null() {
        return;
    }
    // SAFETY: points into the map; nothing else runs on this CPU that uses it (see above).
    unsafe { observe_payload::<INWARD>(skb, &raw mut (*first).flow, &packet) };
}

/// Names the connection of a segment that a listening socket of a watched service receives; 0 if
/// it is none.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn begin_deferred(skb: *mut __sk_buff) -> u32 {
    let Some(packet) = Packet::read(skb) else { return 0 };
    if packet.len == 0 {
        return 0;
    }
    let watching = watch::current();
    let local_port = u32::from(packet.destination_port);
    let slot = watch::find_slot(skb, local_port, &watching);
    if slot == watch::NOBODY {
        return 0;
    }
    let first = slot_of_this_cpu();
    if first.is_null() {
        return 0;
    }
    // SAFETY: points into the map; nothing else runs on this CPU that uses it (see above).
    unsafe {
        let count = (*first).count.wrapping_add(1);
        (*first).count = count;
        let cpu = u64::from(bpf_get_smp_processor_id());
        let flow = &raw mut (*first).flow;
        flow.write(Flow::NOTHING);
        (*flow).cookie =
            DEFERRED | cpu << DEFERRED_CPU_SHIFT | count & ((1 << DEFERRED_CPU_SHIFT) - 1);
        (*flow).deferred = (*flow).cookie;
        (*flow).slot = slot;
        (*flow).state = flow::UNPROVEN;
        // The agent is told of the ends with the socket's own name, when it has one.
        (*flow).is_open_told = 1;
        flow::begin_streams(
            flow,
            packet.seq.wrapping_add(u32::from(packet.flags & SYN != 0)),
            packet.ack,
        );
        let open = &raw mut (*first).open;
        let is_whole = describe_ends::<INWARD>(skb, flow, &packet, bpf_ktime_get_ns(), open);
        (*first).is_waiting = is_whole;
        is_whole as u32
    }
}

/// What was seen of the connection that is being established now, with these numbers.
///
/// # Safety
/// `first` points into the map.
#[inline(always)]
pub unsafe fn take(
    first: *mut FirstSegment,
    client_port: u16,
    server_port: u16,
    client_seq: u32,
    server_seq: u32,
) -> Option<(*const Flow, *mut OpenRecord)> {
    // SAFETY: see above.
    unsafe {
        let (flow, open) = (&raw const (*first).flow, &raw mut (*first).open);
        let is_it = (*first).is_waiting != 0
            && (*flow).first[INWARD] == client_seq
            // A SYN with Fast Open acknowledges nothing yet.
            && ((*flow).first[1 - INWARD] == server_seq || (*flow).first[1 - INWARD] == 0)
            && (*open).client_port == client_port
            && (*open).server_port == server_port;
        if !is_it {
            return None;
        }
        (*first).is_waiting = 0;
        Some((flow, open))
    }
}
