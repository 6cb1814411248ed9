//! The two clocks that limits and quotas run on, read once a request.

use std::{
    sync::OnceLock,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

/// One reading of both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Nanoseconds since this process began to read it. Never runs backwards, whatever is done to
    /// the wall clock.
    pub monotonic: u64,
    /// Seconds since 1970, UTC.
    pub unix: u64,
}

impl Moment {
    pub fn read() -> Self {
        static START: OnceLock<Instant> = OnceLock::new();
        // One second ahead, so that 0 is always the past: it is what a fresh counter holds.
        let since = START.get_or_init(Instant::now).elapsed().as_nanos() + 1_000_000_000;
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        Self { monotonic: u64::try_from(since).unwrap_or(u64::MAX), unix }
    }
}
