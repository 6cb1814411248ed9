//! Counts failures as a breaker's strategy asks: within a rolling window, and in a row.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::{CircuitBreakerConfig, Strategy, TripReason};

/// The window moves in so many steps: a failure counts for at least eleven twelfths of it.
const STEPS: u64 = 12;
const MOST: u64 = (1 << 20) - 1;

#[derive(Debug)]
pub(super) struct Failures {
    config: CircuitBreakerConfig,
    /// Nanoseconds.
    step: u64,
    /// 24 bits which step this is (with the generation, so that an earlier one's are not counted),
    /// 20 bits failures, 20 bits successes.
    steps: [AtomicU64; STEPS as usize],
    /// 32 bits generation, 32 bits failures since the last success.
    in_a_row: AtomicU64,
}

impl Failures {
    pub(super) fn new(config: &CircuitBreakerConfig) -> Self {
        let window = u64::try_from(config.window.0.as_nanos()).unwrap_or(u64::MAX);
        Self {
            config: *config,
            step: (window / STEPS).max(1),
            steps: [const { AtomicU64::new(0) }; STEPS as usize],
            in_a_row: AtomicU64::new(0),
        }
    }

    pub(super) fn note_success(&self, generation: u64, now: u64) {
        if self.config.strategy == Strategy::Consecutive {
            self.in_a_row.store(generation << 32, Relaxed);
        } else {
            self.add(generation, now, 1);
        }
    }

    /// Why to trip, if it is time to.
    pub(super) fn note_failure(&self, generation: u64, now: u64) -> Option<TripReason> {
        let limit = self.config.failures;
        if self.config.strategy == Strategy::Consecutive {
            let add = |count: u64| {
                let begun = if count >> 32 == generation { count & 0xffff_ffff } else { 0 };
                generation << 32 | (begun + 1).min(0xffff_ffff)
            };
            let before = self.in_a_row.update(Relaxed, Relaxed, add);
            let failures = (add(before) & 0xffff_ffff) as u32;
            return (failures >= limit).then_some(TripReason::ConsecutiveFailures { failures });
        }
        self.add(generation, now, 1 << 20);
        let (failures, requests) = self.in_window(generation, now);
        match self.config.strategy {
            Strategy::Rate => {
                let is_tripped = requests >= self.config.minimum_requests
                    && f64::from(failures) >= self.config.rate * f64::from(requests);
                is_tripped.then_some(TripReason::FailureRate { failures, requests })
            }
            _ => (failures >= limit).then_some(TripReason::FailuresInWindow { failures }),
        }
    }

    /// Failures, and all requests.
    pub(super) fn in_window(&self, generation: u64, now: u64) -> (u32, u32) {
        let current = now / self.step;
        let mut counts = (0, 0);
        for back in 0..STEPS.min(current + 1) {
            let number = current - back;
            let word = self.steps[(number % STEPS) as usize].load(Relaxed);
            if word >> 40 == tag(generation, number) {
                let (failures, successes) = ((word >> 20 & MOST) as u32, (word & MOST) as u32);
                counts = (counts.0 + failures, counts.1 + failures + successes);
            }
        }
        counts
    }

    pub(super) fn in_a_row(&self, generation: u64) -> u32 {
        let count = self.in_a_row.load(Relaxed);
        if count >> 32 == generation { count as u32 } else { 0 }
    }

    fn add(&self, generation: u64, now: u64, one: u64) {
        let number = now / self.step;
        let tag = tag(generation, number);
        self.steps[(number % STEPS) as usize].update(Relaxed, Relaxed, |word| {
            if word >> 40 != tag {
                tag << 40 | one
            } else if word >> one.trailing_zeros() & MOST == MOST {
                word
            } else {
                word + one
            }
        });
    }
}

/// Tells apart steps that share a place. Never 0, which is what an unused place holds.
fn tag(generation: u64, number: u64) -> u64 {
    (generation & 0xff) << 16 | ((number / STEPS) & 0x7fff) << 1 | 1
}
