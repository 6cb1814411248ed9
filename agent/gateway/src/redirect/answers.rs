//! How requests under policies were answered, and how long that took.

use std::{
    array,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use http::StatusCode;

use crate::proxy::counters::{BUCKETS, bucket_of, class_of};

/// Of one workload and direction, from every thread.
#[derive(Debug, Default)]
pub struct Answers {
    /// By the first digit of their status, 1 to 5.
    classes: [AtomicU64; 5],
    buckets: [AtomicU64; BUCKETS.len() + 1],
    microseconds: AtomicU64,
}

/// What they were at one moment.
pub struct Totals {
    pub classes: [u64; 5],
    pub buckets: [u64; BUCKETS.len() + 1],
    pub microseconds: u64,
}

impl Answers {
    pub fn count(&self, status: StatusCode, took: Duration) {
        let microseconds = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.classes[class_of(status)].fetch_add(1, Relaxed);
        self.buckets[bucket_of(microseconds)].fetch_add(1, Relaxed);
        self.microseconds.fetch_add(microseconds, Relaxed);
    }

    /// `None`: there were none.
    pub fn read(&self) -> Option<Totals> {
        let totals = Totals {
            classes: array::from_fn(|n| self.classes[n].load(Relaxed)),
            buckets: array::from_fn(|n| self.buckets[n].load(Relaxed)),
            microseconds: self.microseconds.load(Relaxed),
        };
        totals.buckets.iter().any(|count| *count > 0).then_some(totals)
    }
}
