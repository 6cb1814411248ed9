//! Which exchanges are worth copying while the node's CPUs are short.

use aya_ebpf::{helpers::generated::bpf_get_prandom_u32, macros::map, maps::Array};

use crate::flow::Flow;

/// Of the exchanges that begin from now on, one in so many is copied; 0 and 1 mean all. The agent
/// writes it.
#[map]
static COPY_ONE_IN: Array<u32> = Array::with_max_entries(1, 0);

/// Whether the exchange that begins now is to be left out whole.
///
/// By chance: a client that takes its requests in turn would otherwise always show the same one.
///
/// Where a client sends requests before it has the answers, only who has seen all of them can tell
/// whose answer is whose: such a connection is copied, or from the first exchange that is left out
/// on, nothing of it is. One that has not begun yet may be such a connection.
///
/// # Safety
/// `flow` points into a map.
#[inline(always)]
pub unsafe fn is_passed_over(flow: *const Flow, is_first: bool) -> bool {
    // SAFETY: see above; a plain helper call.
    unsafe {
        let is_pipelined = (*flow).is_pipelined != 0;
        if is_pipelined && (*flow).has_shed != 0 {
            return true;
        }
        let Some(one_in) = COPY_ONE_IN.get(0) else { return false };
        if *one_in <= 1 {
            return false;
        }
        let chance = if is_pipelined || is_first {
            // Fibonacci hashing: the upper half depends on all bits.
            ((*flow).cookie.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u32
        } else {
            bpf_get_prandom_u32()
        };
        chance > u32::MAX / *one_in
    }
}
