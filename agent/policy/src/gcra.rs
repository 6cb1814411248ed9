//! The generic cell rate algorithm (ITU-T I.371): a token bucket whose whole state is one number,
//! the theoretical arrival time of the next request.
//!
//! With `T` the time that one request costs and a depth of `C` requests, no half-open window of
//! length `W` sees more than `W / T + C - 1` requests admitted, whatever the arrivals.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

const NANOSECONDS: u64 = 1_000_000_000;
/// A depth is bounded so that `tolerance` cannot overflow: a century in nanoseconds.
const LONGEST_TOLERANCE: u64 = 100 * 365 * 86_400 * NANOSECONDS;

/// So many requests a window, and so many at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    pub limit: u64,
    /// Seconds.
    pub window: u64,
    /// Requests that may come at once after a pause.
    pub depth: u64,
    /// Nanoseconds that one request costs.
    interval: u64,
    /// How far the theoretical arrival time may run ahead of the clock: `(depth - 1) * interval`.
    tolerance: u64,
}

/// What is left after a request was admitted, or how long to wait for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Admitted { remaining: u64, full_after: Duration },
    Refused { retry_after: Duration, full_after: Duration },
}

impl Rate {
    /// `limit` requests in `window` seconds. A `burst` of 0 lets the whole limit be used at once.
    pub fn new(limit: u64, window: u64, burst: u64) -> Self {
        let limit = limit.max(1);
        let window = window.clamp(1, LONGEST_TOLERANCE / NANOSECONDS);
        let depth = if burst == 0 { limit } else { burst };
        // Rounded up, so that rounding never admits more than the limit.
        let interval = window.saturating_mul(NANOSECONDS).div_ceil(limit).max(1);
        let tolerance = (depth - 1).saturating_mul(interval).min(LONGEST_TOLERANCE);
        Self { limit, window, depth, interval, tolerance }
    }

    /// A rate that need not be whole: `thousandths / 1000` a second. A `burst` of 0 lets what comes
    /// in a second be used at once.
    pub fn per_second(thousandths: u64, burst: u64) -> Self {
        let burst = if burst == 0 { thousandths.div_ceil(1000).max(1) } else { burst };
        Self::new(thousandths, 1000, burst)
    }

    pub fn interval(&self) -> Duration {
        Duration::from_nanos(self.interval)
    }

    pub fn tolerance(&self) -> Duration {
        Duration::from_nanos(self.tolerance)
    }

    /// Whether a request would be admitted at `now`, without taking anything.
    pub fn peek(&self, cell: &AtomicU64, now: u64) -> Answer {
        self.ask(cell.load(Relaxed), now)
    }

    /// Admits a request or refuses it. `now` is in nanoseconds of a clock that never runs
    /// backwards; threads may disagree about it by what they need from reading it to here.
    pub fn take(&self, cell: &AtomicU64, now: u64) -> Answer {
        let mut arrival = cell.load(Relaxed);
        loop {
            let answer = self.ask(arrival, now);
            if matches!(answer, Answer::Refused { .. }) {
                return answer;
            }
            let next = arrival.max(now).saturating_add(self.interval);
            // The number is all there is: no other memory is published by it.
            match cell.compare_exchange_weak(arrival, next, Relaxed, Relaxed) {
                Ok(_) => return answer,
                Err(current) => arrival = current,
            }
        }
    }

    fn ask(&self, arrival: u64, now: u64) -> Answer {
        let ahead = arrival.saturating_sub(now);
        if ahead > self.tolerance {
            return Answer::Refused {
                retry_after: Duration::from_nanos(ahead - self.tolerance),
                full_after: Duration::from_nanos(ahead),
            };
        }
        Answer::Admitted {
            remaining: (self.tolerance - ahead) / self.interval,
            full_after: Duration::from_nanos(ahead.saturating_add(self.interval)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Barrier};

    use proptest::prelude::*;

    use super::*;

    fn is_admitted(answer: Answer) -> bool {
        matches!(answer, Answer::Admitted { .. })
    }

    #[test]
    fn the_whole_depth_passes_at_once_and_then_one_an_interval() {
        let rate = Rate::new(60, 60, 0);
        let cell = AtomicU64::new(0);
        let start = 5 * NANOSECONDS;
        let admitted = (0..100).filter(|_| is_admitted(rate.take(&cell, start))).count();
        assert_eq!(admitted, 60);
        let Answer::Refused { retry_after, full_after } = rate.take(&cell, start) else {
            panic!("admitted")
        };
        assert_eq!(retry_after, Duration::from_secs(1));
        assert_eq!(full_after, Duration::from_secs(60));
        assert!(is_admitted(rate.take(&cell, start + NANOSECONDS)));
        assert!(!is_admitted(rate.take(&cell, start + NANOSECONDS)));
    }

    #[test]
    fn what_remains_counts_down_to_the_last_request() {
        let rate = Rate::new(3, 1, 0);
        let cell = AtomicU64::new(0);
        let remaining: Vec<u64> = (0..3)
            .map(|_| match rate.take(&cell, NANOSECONDS) {
                Answer::Admitted { remaining, .. } => remaining,
                Answer::Refused { .. } => panic!("refused"),
            })
            .collect();
        assert_eq!(remaining, [2, 1, 0]);
    }

    #[test]
    fn extreme_numbers_neither_panic_nor_open_the_limit() {
        for (limit, window, burst) in
            [(u64::MAX, 1, u64::MAX), (1, u64::MAX, u64::MAX), (1, 1, 1), (0, 0, 0)]
        {
            let rate = Rate::new(limit, window, burst);
            let cell = AtomicU64::new(0);
            for now in [0, 1, u64::MAX / 2, u64::MAX] {
                rate.take(&cell, now);
            }
        }
    }

    proptest! {
        /// The bound that the module's first lines state, for every window of every run.
        #[test]
        fn no_window_sees_more_than_limit_and_burst(
            limit in 1u64..50,
            burst in 1u64..50,
            steps in prop::collection::vec(0u64..200_000_000, 1..400),
        ) {
            let rate = Rate::new(limit, 1, burst);
            let cell = AtomicU64::new(0);
            let mut now = NANOSECONDS;
            let mut admitted: Vec<u64> = Vec::new();
            for step in steps {
                now += step;
                if is_admitted(rate.take(&cell, now)) {
                    admitted.push(now);
                }
            }
            for (first, start) in admitted.iter().enumerate() {
                let within = admitted[first..].iter().take_while(|t| *t - start < NANOSECONDS);
                prop_assert!((within.count() as u64) < limit + burst);
            }
        }

        /// A reading of the clock that is behind another thread's takes nothing back.
        #[test]
        fn a_late_reader_of_the_clock_never_makes_room(
            nows in prop::collection::vec(0u64..10 * NANOSECONDS, 1..200),
        ) {
            let rate = Rate::new(10, 1, 10);
            let cell = AtomicU64::new(0);
            let mut before = 0;
            for now in nows {
                rate.take(&cell, now);
                let after = cell.load(Relaxed);
                prop_assert!(after >= before);
                before = after;
            }
        }
    }

    #[test]
    fn threads_together_get_no_more_than_one_would() {
        const THREADS: usize = 8;
        let rate = Rate::new(1000, 60, 500);
        for _ in 0..20 {
            let cell = Arc::new(AtomicU64::new(0));
            let barrier = Arc::new(Barrier::new(THREADS));
            let threads: Vec<_> = (0..THREADS)
                .map(|_| {
                    let (cell, barrier) = (cell.clone(), barrier.clone());
                    std::thread::spawn(move || {
                        barrier.wait();
                        (0..1000).filter(|_| is_admitted(rate.take(&cell, NANOSECONDS))).count()
                    })
                })
                .collect();
            let admitted: usize = threads.into_iter().map(|t| t.join().unwrap()).sum();
            assert_eq!(admitted, 500);
        }
    }
}
