//! A circuit breaker for each upstream: one that keeps failing is left alone for a while.
//!
//! ```text
//!            too many failures                 reset time over
//!   Closed -------------------> Open ---------------------------> HalfOpen
//!     ^                          ^                                  |  |
//!     |                          '----------- a probe fails --------'  |
//!     '------------------------- enough probes succeed ----------------'
//! ```
//!
//! A state is one atomic number with a generation in it. What is reported for an earlier
//! generation (a request that was sent before the breaker tripped) changes nothing.

mod failures;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use http::{HeaderValue, StatusCode, header::RETRY_AFTER};
use serde::{Deserialize, Serialize};

use self::failures::Failures;
use crate::{
    context::RequestContext,
    counters::seconds_up,
    decision::{Decision, Denial, PolicyKind, Verdict},
    error::Refusal,
    moment::Moment,
    units::Span,
};

/// The `circuit_breaker` section of a policy set.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct CircuitBreakerConfig {
    pub strategy: Strategy,
    /// Failures within the window, or in a row, that trip it.
    pub failures: u32,
    /// For `failures` and `rate`.
    pub window: Span,
    /// For `rate`: the share of failures that trips it, above 0 and up to 1.
    pub rate: f64,
    /// For `rate`: requests within the window below which it does not trip.
    pub minimum_requests: u32,
    /// How long it stays open.
    pub reset: Span,
    /// Probes that must succeed before it closes.
    pub successes: u32,
    /// Probes under way at once while it is half open.
    pub probes: u32,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// So many within the window.
    #[default]
    Failures,
    /// So many in a row.
    Consecutive,
    /// Such a share of the requests within the window.
    Rate,
}

impl Default for CircuitBreakerConfig {
    fn default() -> Self {
        Self {
            strategy: Strategy::default(),
            failures: 5,
            window: Span::seconds(60),
            rate: 0.5,
            minimum_requests: 20,
            reset: Span::seconds(30),
            successes: 2,
            probes: 1,
        }
    }
}

impl CircuitBreakerConfig {
    fn refuse_nonsense(&self) -> Result<(), Refusal> {
        let positive =
            [("failures", self.failures), ("successes", self.successes), ("probes", self.probes)];
        let wrong = positive.iter().find(|(_, number)| !(1..=1_000_000).contains(number));
        if let Some((key, _)) = wrong {
            return Err(Refusal::new(
                *key,
                "is not between 1 and 1000000",
                "give a number that is",
            ));
        }
        for (key, span) in [("window", self.window), ("reset", self.reset)] {
            if !(Duration::from_millis(1)..=Duration::from_secs(86_400)).contains(&span.0) {
                return Err(Refusal::new(key, "is not between 1ms and 1d", "give a time that is"));
            }
        }
        if !(self.rate > 0.0 && self.rate <= 1.0) {
            return Err(Refusal::new(
                "rate",
                "is not a share",
                "give a number above 0 and up to 1",
            ));
        }
        Ok(())
    }
}

/// Why a breaker opened, for metrics and stats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum TripReason {
    FailuresInWindow { failures: u32 },
    ConsecutiveFailures { failures: u32 },
    FailureRate { failures: u32, requests: u32 },
    ProbeFailed,
}

impl TripReason {
    pub const NAMES: [&'static str; 4] =
        ["failures_in_window", "consecutive_failures", "failure_rate", "probe_failed"];

    /// Its place in [`Self::NAMES`].
    fn index(self) -> usize {
        match self {
            Self::FailuresInWindow { .. } => 0,
            Self::ConsecutiveFailures { .. } => 1,
            Self::FailureRate { .. } => 2,
            Self::ProbeFailed => 3,
        }
    }

    pub fn name(self) -> &'static str {
        Self::NAMES[self.index()]
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    Closed,
    Open,
    HalfOpen,
}

/// 2 bits state, 20 bits generation, 42 bits the millisecond in which it was entered.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Word(u64);

const GENERATIONS: u64 = 1 << 20;

impl Word {
    fn new(state: State, generation: u64, at: u64) -> Self {
        let milliseconds = (at / 1_000_000) & ((1 << 42) - 1);
        Self((state as u64) << 62 | (generation % GENERATIONS) << 42 | milliseconds)
    }

    fn state(self) -> State {
        match self.0 >> 62 {
            0 => State::Closed,
            1 => State::Open,
            _ => State::HalfOpen,
        }
    }

    fn generation(self) -> u64 {
        self.0 >> 42 & (GENERATIONS - 1)
    }

    fn since(self, now: u64) -> Duration {
        Duration::from_millis((now / 1_000_000).saturating_sub(self.0 & ((1 << 42) - 1)))
    }

    fn next(self, state: State, now: u64) -> Self {
        Self::new(state, self.generation() + 1, now)
    }
}

/// The breaker of one upstream.
#[derive(Debug)]
pub struct Breaker {
    name: Box<str>,
    config: CircuitBreakerConfig,
    word: AtomicU64,
    failures: Failures,
    /// 32 bits generation, 16 bits probes under way, 16 bits probes that succeeded.
    probes: AtomicU64,
    succeeded: AtomicU64,
    failed: AtomicU64,
    rejected: AtomicU64,
    trips: [AtomicU64; 4],
    last_trip: ArcSwap<Option<TripReason>>,
}

/// The breaker is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the upstream keeps failing and is left alone for {} s", self.seconds())]
pub struct Rejected {
    pub retry_after: Duration,
}

impl Rejected {
    /// For `Retry-After`.
    pub fn seconds(self) -> u64 {
        seconds_up(self.retry_after).max(1)
    }
}

/// One request that may go to the upstream. Whoever holds it says how it went; dropped, it says
/// nothing of the upstream (the client went away).
#[derive(Debug)]
#[must_use]
pub struct Permit {
    breaker: Arc<Breaker>,
    generation: u64,
    is_probe: bool,
    is_settled: bool,
}

impl Permit {
    pub fn succeeded(mut self, now: Moment) {
        self.is_settled = true;
        self.breaker.clone().settle(&self, true, now.monotonic);
    }

    /// The upstream failed: no connection, no answer in time, an answer of 5xx.
    pub fn failed(mut self, now: Moment) {
        self.is_settled = true;
        self.breaker.clone().settle(&self, false, now.monotonic);
    }

    pub fn is_probe(&self) -> bool {
        self.is_probe
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.is_probe && !self.is_settled {
            self.breaker.end_probe(self.generation, false);
        }
    }
}

impl Breaker {
    pub fn new(name: &str, config: CircuitBreakerConfig) -> Self {
        Self {
            name: name.into(),
            config,
            word: AtomicU64::new(Word::new(State::Closed, 0, 0).0),
            failures: Failures::new(&config),
            probes: AtomicU64::new(0),
            succeeded: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            rejected: AtomicU64::new(0),
            trips: [const { AtomicU64::new(0) }; 4],
            last_trip: ArcSwap::from_pointee(None),
        }
    }

    fn load(&self) -> Word {
        Word(self.word.load(Relaxed))
    }

    fn change(&self, from: Word, to: Word) -> bool {
        self.word.compare_exchange(from.0, to.0, Relaxed, Relaxed).is_ok()
    }

    /// Whether a request would be admitted; takes no probe's place.
    pub fn peek(&self, now: Moment) -> Result<(), Rejected> {
        let word = self.load();
        let rejected = |retry_after| {
            self.rejected.fetch_add(1, Relaxed);
            Err(Rejected { retry_after })
        };
        match word.state() {
            State::Closed => Ok(()),
            State::Open => match self.config.reset.0.checked_sub(word.since(now.monotonic)) {
                Some(left) if !left.is_zero() => rejected(left),
                _ => Ok(()),
            },
            State::HalfOpen if self.has_room(word.generation()) => Ok(()),
            State::HalfOpen => rejected(Duration::from_secs(1)),
        }
    }

    pub fn admit(self: &Arc<Self>, now: Moment) -> Result<Permit, Rejected> {
        let permit = |generation, is_probe| {
            Ok(Permit { breaker: self.clone(), generation, is_probe, is_settled: false })
        };
        loop {
            let word = self.load();
            let retry_after = match word.state() {
                State::Closed => return permit(word.generation(), false),
                State::HalfOpen if self.begin_probe(word.generation()) => {
                    return permit(word.generation(), true);
                }
                // A probe tells within about a second how it went.
                State::HalfOpen => Duration::from_secs(1),
                State::Open => {
                    let left = self.config.reset.0.saturating_sub(word.since(now.monotonic));
                    if left.is_zero() {
                        // Whoever loses this race finds it half open.
                        self.change(word, word.next(State::HalfOpen, now.monotonic));
                        continue;
                    }
                    left
                }
            };
            self.rejected.fetch_add(1, Relaxed);
            return Err(Rejected { retry_after });
        }
    }

    fn has_room(&self, generation: u64) -> bool {
        let probes = self.probes.load(Relaxed);
        probes >> 32 != generation || probes >> 16 & 0xffff < u64::from(self.most_probes())
    }

    fn most_probes(&self) -> u16 {
        u16::try_from(self.config.probes).unwrap_or(u16::MAX)
    }

    fn begin_probe(&self, generation: u64) -> bool {
        let begun = self.probes.try_update(Relaxed, Relaxed, |probes| {
            if probes >> 32 != generation {
                return Some(generation << 32 | 1 << 16);
            }
            (probes >> 16 & 0xffff < u64::from(self.most_probes())).then_some(probes + (1 << 16))
        });
        begun.is_ok()
    }

    /// How many have succeeded in this generation, or `None` if it is over.
    fn end_probe(&self, generation: u64, is_success: bool) -> Option<u64> {
        let ended = self.probes.try_update(Relaxed, Relaxed, |probes| {
            let is_current = probes >> 32 == generation && probes >> 16 & 0xffff > 0;
            let succeeded = u64::from(is_success && probes & 0xffff < 0xffff);
            is_current.then(|| probes - (1 << 16) + succeeded)
        });
        ended.ok().map(|before| (before & 0xffff) + u64::from(is_success))
    }

    fn settle(&self, permit: &Permit, is_success: bool, now: u64) {
        let counter = if is_success { &self.succeeded } else { &self.failed };
        counter.fetch_add(1, Relaxed);
        if permit.is_probe {
            return self.settle_probe(permit.generation, is_success, now);
        }
        let word = self.load();
        if word.state() != State::Closed || word.generation() != permit.generation {
            return;
        }
        if is_success {
            self.failures.note_success(permit.generation, now);
        } else if let Some(reason) = self.failures.note_failure(permit.generation, now)
            && self.change(word, word.next(State::Open, now))
        {
            self.note_trip(reason);
        }
    }

    fn settle_probe(&self, generation: u64, is_success: bool, now: u64) {
        let succeeded = self.end_probe(generation, is_success);
        let word = self.load();
        if word.state() != State::HalfOpen || word.generation() != generation {
            return;
        }
        if !is_success {
            if self.change(word, word.next(State::Open, now)) {
                self.note_trip(TripReason::ProbeFailed);
            }
        } else if succeeded.is_some_and(|count| count >= u64::from(self.config.successes)) {
            self.change(word, word.next(State::Closed, now));
        }
    }

    fn note_trip(&self, reason: TripReason) {
        self.trips[reason.index()].fetch_add(1, Relaxed);
        self.last_trip.store(Arc::new(Some(reason)));
    }

    /// Closes it, whatever it was (`/admin/circuit-breakers/NAME/reset`).
    pub fn reset(&self, now: Moment) {
        loop {
            let word = self.load();
            if self.change(word, word.next(State::Closed, now.monotonic)) {
                return;
            }
        }
    }

    /// Of the upstream.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn state(&self) -> State {
        self.load().state()
    }

    pub fn stats(&self, now: Moment) -> BreakerStats {
        let word = self.load();
        let is_closed = word.state() == State::Closed;
        let generation = word.generation();
        let in_window = self.failures.in_window(generation, now.monotonic).0;
        let consecutive = self.failures.in_a_row(generation);
        let is_consecutive = self.config.strategy == Strategy::Consecutive;
        BreakerStats {
            name: self.name.clone(),
            state: word.state(),
            success_count: self.succeeded.load(Relaxed),
            failure_count: self.failed.load(Relaxed),
            failures_in_window: (!is_consecutive).then_some(if is_closed { in_window } else { 0 }),
            consecutive_failures: is_consecutive.then_some(if is_closed { consecutive } else { 0 }),
            open_count: self.trips.iter().map(|count| count.load(Relaxed)).sum(),
            rejected_count: self.rejected.load(Relaxed),
            last_trip: **self.last_trip.load(),
        }
    }

    /// How often it opened, by [`TripReason::NAMES`].
    pub fn trips(&self) -> [(&'static str, u64); 4] {
        std::array::from_fn(|i| (TripReason::NAMES[i], self.trips[i].load(Relaxed)))
    }
}

/// As `/admin/circuit-breakers` shows it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BreakerStats {
    pub name: Box<str>,
    pub state: State,
    pub success_count: u64,
    pub failure_count: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failures_in_window: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consecutive_failures: Option<u32>,
    pub open_count: u64,
    pub rejected_count: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_trip: Option<TripReason>,
}

/// The breakers of all upstreams of this process, made when an upstream is first configured.
/// Outlives a reload.
#[derive(Debug, Default)]
pub struct Breakers(ArcSwap<HashMap<Box<str>, Arc<Breaker>>>);

impl Breakers {
    pub fn find(&self, upstream: &str) -> Option<Arc<Breaker>> {
        self.0.load().get(upstream).cloned()
    }

    /// The breaker of a configured upstream. One whose configuration changed begins closed.
    pub fn find_or_make(&self, upstream: &str, config: CircuitBreakerConfig) -> Arc<Breaker> {
        let is_same = |breaker: &Arc<Breaker>| breaker.config == config;
        if let Some(found) = self.find(upstream).filter(is_same) {
            return found;
        }
        let made = Arc::new(Breaker::new(upstream, config));
        let before = self.0.rcu(|all| {
            let mut all = HashMap::clone(all);
            if !all.get(upstream).is_some_and(is_same) {
                all.insert(upstream.into(), made.clone());
            }
            all
        });
        before.get(upstream).filter(|breaker| is_same(breaker)).cloned().unwrap_or(made)
    }

    /// Forgets those of upstreams that are no longer configured.
    pub fn retain(&self, is_configured: impl Fn(&str) -> bool) {
        self.0.rcu(|all| {
            let kept = all.iter().filter(|(name, _)| is_configured(name));
            kept.map(|(name, breaker)| (name.clone(), breaker.clone())).collect::<HashMap<_, _>>()
        });
    }

    /// By name.
    pub fn all(&self) -> Vec<Arc<Breaker>> {
        let mut all: Vec<_> = self.0.load().values().cloned().collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }
}

/// The policy: a request to an upstream whose breaker is open is refused at once. The door that
/// sends the request takes the [`Permit`] and reports with it.
#[derive(Debug)]
pub struct CircuitBreaker {
    config: CircuitBreakerConfig,
    breakers: Arc<Breakers>,
}

impl CircuitBreaker {
    pub fn build(config: &CircuitBreakerConfig, breakers: Arc<Breakers>) -> Result<Self, Refusal> {
        config.refuse_nonsense()?;
        Ok(Self { config: *config, breakers })
    }

    pub fn config(&self) -> CircuitBreakerConfig {
        self.config
    }

    /// That of an upstream, for the door that sends the request.
    pub fn breaker(&self, upstream: &str) -> Arc<Breaker> {
        self.breakers.find_or_make(upstream, self.config)
    }

    pub fn check(
        &self,
        request: &RequestContext<'_>,
        decision: &mut Decision,
        now: Moment,
    ) -> Verdict {
        let breakers = self.breakers.0.load();
        let breaker = request.upstream.and_then(|upstream| breakers.get(upstream));
        let Some(Err(rejected)) = breaker.map(|breaker| breaker.peek(now)) else { return Ok(()) };
        let seconds = rejected.seconds();
        decision.response_headers.push((RETRY_AFTER, HeaderValue::from(seconds)));
        Err(Denial {
            policy: PolicyKind::CircuitBreaker,
            status: StatusCode::SERVICE_UNAVAILABLE,
            code: "circuit_open",
            reason: format!("The upstream keeps failing. Try again in {seconds} s").into(),
        })
    }
}

#[cfg(test)]
mod tests;
