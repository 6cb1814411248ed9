//! Counting, exactly.

use core::intrinsics::{AtomicOrdering, atomic_xadd};

use aya_ebpf::{macros::map, maps::PerCpuArray};
use stoa_common::{
    record::reason,
    tally::{Amount, Tally},
    watch::SLOTS,
};

#[map]
static TALLIES: PerCpuArray<Tally> = PerCpuArray::with_max_entries(SLOTS, 0);

/// The counters of a service on this CPU; null if there is no such service.
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
unsafe fn add(counter: *mut u64, n: u64) {
    // The library's atomics want compare-and-swap, which kernels have from 5.12 on; an addition
    // whose result is not used is an instruction that all have.
    // SAFETY: aligned, valid for the run of the program.
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(counter, n) };
}

/// # Safety
/// `tally` points into the map, as for all of the following.
#[inline(always)]
pub unsafe fn count_due(tally: *mut Tally, bytes: u32) {
    // SAFETY: see above.
    unsafe {
        add(&raw mut (*tally).due.segments, 1);
        add(&raw mut (*tally).due.bytes, bytes.into());
    }
}

/// # Safety
/// See [`count_due`].
#[inline(always)]
pub unsafe fn count_captured(tally: *mut Tally, segments: u64, bytes: u32) {
    // SAFETY: see above.
    unsafe {
        if segments != 0 {
            add(&raw mut (*tally).captured.segments, segments);
        }
        add(&raw mut (*tally).captured.bytes, bytes.into());
    }
}

/// # Safety
/// See [`count_due`].
#[inline(always)]
pub unsafe fn count_lost(tally: *mut Tally, reason: u8, segments: u64, bytes: u32) {
    let index = usize::from(reason);
    if index >= reason::COUNT {
        return;
    }
    // SAFETY: see above; the index is in bounds.
    unsafe {
        let amount = (&raw mut (*tally).lost).cast::<Amount>().add(index);
        if segments != 0 {
            add(&raw mut (*amount).segments, segments);
        }
        add(&raw mut (*amount).bytes, bytes.into());
    }
}

/// # Safety
/// See [`count_due`].
#[inline(always)]
pub unsafe fn count_shed_exchange(tally: *mut Tally) {
    // SAFETY: see above.
    unsafe { add(&raw mut (*tally).shed_exchanges, 1) }
}

/// # Safety
/// See [`count_due`].
#[inline(always)]
pub unsafe fn count_foreign_flow(tally: *mut Tally) {
    // SAFETY: see above.
    unsafe { add(&raw mut (*tally).foreign_flows, 1) }
}
