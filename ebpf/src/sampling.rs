//! Which exchanges are worth copying while the node's CPUs are short.

use aya_ebpf::{
    helpers::generated::{bpf_get_prandom_u32, bpf_jiffies64},
    macros::map,
    maps::Array,
};

use crate::flow::Flow;

/// Of the exchanges that begin from now on, one in so many is copied; 0 and 1 mean all. The agent
/// writes it.
#[map]
static COPY_ONE_IN: Array<u32> = Array::with_max_entries(1, 0);

/// Ticks for which a pipelining connection is copied or left out: some 0.3 to 2.5 s.
const PIPELINED_FOR: u64 = 8;

/// Whether the exchange that begins now is to be left out whole.
///
/// By chance: a client that takes its requests in turn would otherwise always show the same one.
/// Where the answers of one request come amid the next ones, nothing would be whole; such a
/// connection is copied for a while, or not.
///
/// # Safety
/// `flow` points into a map.
#[inline(always)]
pub unsafe fn is_passed_over(flow: *const Flow) -> bool {
    let Some(one_in) = COPY_ONE_IN.get(0) else { return false };
    if *one_in <= 1 {
        return false;
    }
    // SAFETY: see above; plain helper calls.
    let chance = unsafe {
        if (*flow).is_pipelined == 0 {
            bpf_get_prandom_u32()
        } else {
            let period = bpf_jiffies64() >> PIPELINED_FOR;
            // Fibonacci hashing: the upper half depends on all bits.
            let mixed = ((*flow).cookie ^ period << 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            (mixed >> 32) as u32
        }
    };
    chance > u32::MAX / *one_in
}
