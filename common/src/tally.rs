//! Exact accounting, one per service and CPU.

use crate::record::reason;

/// Counts of one service on one CPU. Always `due = captured + sum(lost)`, in segments and in
/// bytes: each segment is counted once on both sides.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// Payload segments of HTTP flows of this service.
    pub due: Amount,
    /// Bytes that went into the ring, and the segments that went there whole.
    pub captured: Amount,
    /// What did not, by reason. A segment captured in part counts its missing bytes here.
    pub lost: [Amount; reason::COUNT],
    /// Exchanges that were left out whole because the ring was filling up.
    pub shed_exchanges: u64,
    /// Flows found to speak something else than HTTP/1.
    pub foreign_flows: u64,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Amount {
    pub segments: u64,
    pub bytes: u64,
}

#[cfg(feature = "user")]
// SAFETY: C layout, only integers, no padding (all fields are u64).
unsafe impl aya::Pod for Tally {}
