//! What the doors count: each worker for itself, added up when somebody asks.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use stoa_policy::decision::{Decision, PolicyKind};

use crate::telemetry::policy_tally::{PolicyTally, PolicyTotals};

/// The ways to ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Document,
    EnvoyGrpc,
    EnvoyHttp,
    Nginx,
    ForwardAuth,
    KongOpa,
}

impl Format {
    pub const ALL: [Self; 6] = [
        Self::Document,
        Self::EnvoyGrpc,
        Self::EnvoyHttp,
        Self::Nginx,
        Self::ForwardAuth,
        Self::KongOpa,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Document => "document",
            Self::EnvoyGrpc => "envoy_grpc",
            Self::EnvoyHttp => "envoy_http",
            Self::Nginx => "nginx",
            Self::ForwardAuth => "forward_auth",
            Self::KongOpa => "kong_opa",
        }
    }
}

/// Why a question was not put to the policies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Asked from an address that is not listed.
    Untrusted,
    Malformed,
    TooLong,
    TimedOut,
    Overloaded,
}

impl Refused {
    pub const ALL: [Self; 5] =
        [Self::Untrusted, Self::Malformed, Self::TooLong, Self::TimedOut, Self::Overloaded];

    pub fn name(self) -> &'static str {
        match self {
            Self::Untrusted => "untrusted",
            Self::Malformed => "malformed",
            Self::TooLong => "too_long",
            Self::TimedOut => "timed_out",
            Self::Overloaded => "overloaded",
        }
    }
}

/// Upper bounds in microseconds: most decisions are taken within tens of them.
pub const BUCKETS: [u64; 10] = [5, 10, 25, 50, 100, 250, 1_000, 10_000, 100_000, 1_000_000];
const POLICIES: usize = PolicyKind::ALL.len();
const FORMATS: usize = Format::ALL.len();
const REASONS: usize = Refused::ALL.len();

/// One worker's. Written by its thread alone, so that adding is never contended.
#[derive(Debug, Default)]
pub struct Counters {
    allowed: [AtomicU64; FORMATS],
    denied: [[AtomicU64; POLICIES]; FORMATS],
    refused: [AtomicU64; REASONS],
    /// Decisions up to each bound, not cumulative; the last is for the rest.
    took: [AtomicU64; BUCKETS.len() + 1],
    took_microseconds: AtomicU64,
    policies: PolicyTally,
}

impl Counters {
    pub fn decided(&self, format: Format, decision: &Decision) {
        self.policies.count(decision);
        let counter = match &decision.denial {
            None => self.allowed.get(format as usize),
            Some(denial) => {
                self.denied.get(format as usize).and_then(|row| row.get(denial.policy as usize))
            }
        };
        add(counter, 1);
        let took = microseconds(decision.took);
        let bucket = BUCKETS.iter().position(|bound| took <= *bound).unwrap_or(BUCKETS.len());
        add(self.took.get(bucket), 1);
        add(Some(&self.took_microseconds), took);
    }

    pub fn refused(&self, reason: Refused) {
        add(self.refused.get(reason as usize), 1);
    }
}

/// The thread that adds is the only one: no read-modify-write is needed.
fn add(counter: Option<&AtomicU64>, amount: u64) {
    if let Some(counter) = counter {
        let value = counter.load(Ordering::Relaxed);
        counter.store(value.wrapping_add(amount), Ordering::Relaxed);
    }
}

fn microseconds(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// The sum over workers.
#[derive(Debug, Default)]
pub struct Totals {
    /// Format, what decided (`None`: allowed), how often.
    pub decisions: Vec<(Format, Option<PolicyKind>, u64)>,
    pub refused: Vec<(Refused, u64)>,
    /// Cumulative, one for each of [`BUCKETS`].
    pub took: Vec<u64>,
    pub decided: u64,
    pub took_microseconds: u64,
    pub policies: PolicyTotals,
}

pub fn sum(workers: &[Arc<Counters>]) -> Totals {
    let read = |counter: fn(&Counters) -> &AtomicU64| -> u64 {
        workers.iter().map(|worker| counter(worker).load(Ordering::Relaxed)).sum()
    };
    let read_at = |at: &dyn Fn(&Counters) -> Option<&AtomicU64>| -> u64 {
        let values = workers.iter().filter_map(|worker| Some(at(worker)?.load(Ordering::Relaxed)));
        values.sum()
    };
    let mut totals =
        Totals { took_microseconds: read(|c| &c.took_microseconds), ..Totals::default() };
    for format in Format::ALL {
        let allowed = read_at(&|c| c.allowed.get(format as usize));
        totals.decisions.push((format, None, allowed));
        for policy in PolicyKind::ALL {
            let denied = read_at(&|c| c.denied.get(format as usize)?.get(policy as usize));
            if denied > 0 {
                totals.decisions.push((format, Some(policy), denied));
            }
        }
    }
    for reason in Refused::ALL {
        totals.refused.push((reason, read_at(&|c| c.refused.get(reason as usize))));
    }
    workers.iter().for_each(|worker| totals.policies.add(&worker.policies));
    let mut below = 0;
    for bucket in 0..=BUCKETS.len() {
        below += read_at(&|c| c.took.get(bucket));
        totals.took.push(below);
    }
    totals.decided = totals.took.pop().unwrap_or(0);
    totals
}

#[cfg(test)]
mod tests {
    use http::StatusCode;
    use stoa_policy::decision::Denial;

    use super::*;

    #[test]
    fn workers_are_added_up() {
        let workers = [Arc::new(Counters::default()), Arc::new(Counters::default())];
        let allowed = Decision { took: Duration::from_micros(7), ..Decision::default() };
        let denied = Decision {
            denial: Some(Denial {
                policy: PolicyKind::Scopes,
                status: StatusCode::FORBIDDEN,
                code: "insufficient_scope",
                reason: "".into(),
            }),
            took: Duration::from_secs(2),
            ..Decision::default()
        };
        workers[0].decided(Format::Nginx, &allowed);
        workers[1].decided(Format::Nginx, &allowed);
        workers[1].decided(Format::EnvoyGrpc, &denied);
        workers[1].refused(Refused::Untrusted);
        let totals = sum(&workers);
        assert!(totals.decisions.contains(&(Format::Nginx, None, 2)));
        assert!(totals.decisions.contains(&(Format::EnvoyGrpc, Some(PolicyKind::Scopes), 1)));
        assert_eq!(totals.decisions.iter().map(|(_, _, n)| n).sum::<u64>(), 3);
        assert!(totals.refused.contains(&(Refused::Untrusted, 1)));
        assert_eq!(totals.took, [0, 2, 2, 2, 2, 2, 2, 2, 2, 2]);
        assert_eq!((totals.decided, totals.took_microseconds), (3, 2_000_014));
    }
}
