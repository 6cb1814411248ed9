//! The way to the agent: records are reserved, filled and submitted, and nobody is woken.

use aya_ebpf::{
    bindings::{__sk_buff, BPF_RB_AVAIL_DATA, BPF_RB_NO_WAKEUP},
    helpers::generated::bpf_jiffies64,
    macros::map,
    maps::{PerCpuArray, RingBuf},
};
use stoa_common::record::{CLASSES, OpenRecord, RecordHeader};

use crate::{packet::load_some, settings::SHED_ABOVE};

/// The loader sets the size.
#[map]
static EVENTS: RingBuf = RingBuf::with_byte_size(8 << 20, 0);

pub const DELIVERED: u64 = 0;
pub const FULL: u64 = 1;
pub const UNREADABLE: u64 = 2;

/// Part of a segment that fits one record.
#[repr(C)]
pub struct Chunk {
    pub header: RecordHeader,
    /// Of the payload, from the IP header.
    pub offset: u32,
}

#[repr(C)]
struct Record<const N: usize> {
    header: RecordHeader,
    data: [u8; N],
}

/// The tick of the clock in which the ring was last found crowded.
#[map]
static CROWDED_AT: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// Whether new exchanges are to be left out whole. While the ring is crowded it is asked once a
/// tick (1 to 10 ms): the answer is in cache lines that the agent's CPU writes at each record.
#[inline(always)]
pub fn is_crowded() -> bool {
    let Some(crowded_at) = CROWDED_AT.get_ptr_mut(0) else { return false };
    // SAFETY: a plain helper call; points into the map, and whoever comes between asks the ring.
    unsafe {
        let now = bpf_jiffies64();
        if *crowded_at == now {
            return true;
        }
        if EVENTS.query(BPF_RB_AVAIL_DATA.into()) <= SHED_ABOVE.load() {
            return false;
        }
        *crowded_at = now;
        true
    }
}

/// Hands on a record without payload.
#[inline(always)]
pub fn put_header(header: &RecordHeader) -> bool {
    let Some(mut entry) = EVENTS.reserve::<RecordHeader>(0) else { return false };
    entry.write(*header);
    entry.submit(BPF_RB_NO_WAKEUP.into());
    true
}

#[inline(always)]
pub fn put_open(record: *const OpenRecord) -> bool {
    let Some(mut entry) = EVENTS.reserve::<OpenRecord>(0) else { return false };
    // SAFETY: the callers' records are whole.
    entry.write(unsafe { *record });
    entry.submit(BPF_RB_NO_WAKEUP.into());
    true
}

/// The same of one that `describe` writes in its place; 0 from there if it cannot. On the stack it
/// would be too much: the frames of a chain of calls have 512 bytes, and before Linux 6.9 each counts
/// in steps of 32 (`check_max_stack_depth` of kernel/bpf/verifier.c).
#[inline(always)]
pub fn put_open_with(describe: impl FnOnce(*mut OpenRecord) -> u64) -> u64 {
    let Some(mut entry) = EVENTS.reserve::<OpenRecord>(0) else { return 0 };
    let is_whole = describe(entry.as_mut_ptr());
    if is_whole != 0 {
        entry.submit(BPF_RB_NO_WAKEUP.into());
    } else {
        entry.discard(BPF_RB_NO_WAKEUP.into());
    }
    is_whole
}

/// Hands on a record with the `header.captured` bytes at `offset`, at most [`CHUNK`].
#[inline(never)]
pub fn put_chunk(skb: *mut __sk_buff, chunk: &Chunk) -> u64 {
    let n = chunk.header.captured as usize;
    if n <= CLASSES[0] {
        put::<{ CLASSES[0] }>(skb, chunk)
    } else if n <= CLASSES[1] {
        put::<{ CLASSES[1] }>(skb, chunk)
    } else if n <= CLASSES[2] {
        put::<{ CLASSES[2] }>(skb, chunk)
    } else if n <= CLASSES[3] {
        put::<{ CLASSES[3] }>(skb, chunk)
    } else {
        put::<{ CLASSES[4] }>(skb, chunk)
    }
}

/// The same for exactly [`CHUNK`] bytes; the verifier walks through it once a turn of the loop.
#[inline(never)]
pub fn put_whole(skb: *mut __sk_buff, chunk: &Chunk) -> u64 {
    put::<{ CLASSES[4] }>(skb, chunk)
}

#[inline(always)]
fn put<const N: usize>(skb: *mut __sk_buff, chunk: &Chunk) -> u64 {
    let Some(mut entry) = EVENTS.reserve::<Record<N>>(0) else { return FULL };
    let record = entry.as_mut_ptr();
    // SAFETY: the reservation is as large as the record.
    unsafe {
        (*record).header = chunk.header;
        let data = (&raw mut (*record).data).cast::<u8>();
        if !load_some(skb, chunk.offset, data, chunk.header.captured, N) {
            entry.discard(BPF_RB_NO_WAKEUP.into());
            return UNREADABLE;
        }
    }
    entry.submit(BPF_RB_NO_WAKEUP.into());
    DELIVERED
}
