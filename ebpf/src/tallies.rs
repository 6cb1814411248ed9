//! Counting, exactly.

use core::intrinsics::{AtomicOrdering, atomic_xadd};

use aya_ebpf::{macros::map, maps::PerCpuArray};
use stoa_common::{tally::Tally, watch::SLOTS};

#[map]
static TALLIES: PerCpuArray<Tally> = PerCpuArray::with_max_entries(SLOTS, 0);

#[inline(always)]
pub fn of(slot: u32) -> *mut Tally {
    TALLIES.get_ptr_mut(slot).unwrap_or(core::ptr::null_mut())
}

/// Adds atomically: a softirq may interrupt the sender's process between load and store, on the
/// same CPU and the same counter.
///
/// # Safety
/// `counter` points into a map value.
#[inline(always)]
pub unsafe fn add(counter: *mut u64, n: u64) {
    // The library's atomics want compare-and-swap, which kernels have from 5.12 on; an addition
    // whose result is not used is an instruction that all have.
    // SAFETY: aligned, valid for the run of the program.
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(counter, n) };
}

#[inline(always)]
pub fn count_due(slot: u32, bytes: u32) {
    let tally = of(slot);
    if !tally.is_null() {
        // SAFETY: points into the map.
        unsafe {
            add(&raw mut (*tally).due.segments, 1);
            add(&raw mut (*tally).due.bytes, bytes.into());
        }
    }
}

#[inline(always)]
pub fn count_captured(slot: u32, segments: u64, bytes: u32) {
    let tally = of(slot);
    if !tally.is_null() {
        // SAFETY: points into the map.
        unsafe {
            if segments != 0 {
                add(&raw mut (*tally).captured.segments, segments);
            }
            add(&raw mut (*tally).captured.bytes, bytes.into());
        }
    }
}

#[inline(always)]
pub fn count_lost(slot: u32, reason: u8, segments: u64, bytes: u32) {
    let tally = of(slot);
    let index = usize::from(reason);
    if !tally.is_null() && index < stoa_common::record::reason::COUNT {
        // SAFETY: points into the map; the index is in bounds.
        unsafe {
            let lost = &raw mut (*tally).lost;
            let amount = lost.cast::<stoa_common::tally::Amount>().add(index);
            if segments != 0 {
                add(&raw mut (*amount).segments, segments);
            }
            add(&raw mut (*amount).bytes, bytes.into());
        }
    }
}

#[inline(always)]
pub fn count_shed_exchange(slot: u32) {
    let tally = of(slot);
    if !tally.is_null() {
        // SAFETY: points into the map.
        unsafe { add(&raw mut (*tally).shed_exchanges, 1) }
    }
}

#[inline(always)]
pub fn count_foreign_flow(slot: u32) {
    let tally = of(slot);
    if !tally.is_null() {
        // SAFETY: points into the map.
        unsafe { add(&raw mut (*tally).foreign_flows, 1) }
    }
}
