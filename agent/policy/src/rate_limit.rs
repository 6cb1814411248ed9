//! Rate limits: requests a second and a minute, and how many at once, of a tenant, a consumer, a
//! route or a source address.

use std::{borrow::Cow, collections::BTreeMap, fmt::Write as _, sync::Arc, time::Duration};

use http::{HeaderName, HeaderValue, StatusCode, header::RETRY_AFTER};
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use crate::{
    context::RequestContext,
    counter_table::{CounterTable, Key},
    counters::{Answers, Caller, Draw, OnLoss, Scope, SharedCounters, seconds_up},
    decision::{Decision, Denial, PolicyKind, RateLimitState, Verdict},
    error::Refusal,
    gcra::{Answer, Rate},
    moment::Moment,
    plan::{Plan, Plans},
};

pub const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
pub const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
pub const X_RATELIMIT_LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
pub const X_RATELIMIT_REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
pub const X_RATELIMIT_RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

/// The `rate_limit` section of a policy set.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct RateLimitConfig {
    /// All of a tenant's requests together.
    pub tenant: Option<LimitConfig>,
    /// Those of one application or user; of one address where neither is known.
    pub consumer: Option<LimitConfig>,
    /// Instead of `consumer`: the limits of the consumer's plan, and of the plan named here where
    /// the consumer has none.
    pub plan: Option<String>,
    /// All of a route's requests together.
    pub route: Option<LimitConfig>,
    /// Those from one address (of IPv6, from one /64).
    pub source: Option<LimitConfig>,
    pub headers: HeaderStyle,
}

/// 0 is unlimited.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct LimitConfig {
    pub requests_per_second: u64,
    pub requests_per_minute: u64,
    /// With `window_seconds`, instead of `requests_per_minute`.
    pub requests: u64,
    pub window_seconds: u64,
    /// Requests at once, of the limit with the shorter window; 0: as many as its limit.
    pub burst: u64,
}

/// Which headers tell the client of its limits.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum HeaderStyle {
    #[default]
    Both,
    /// `RateLimit` and `RateLimit-Policy`, draft-ietf-httpapi-ratelimit-headers-11.
    Standard,
    /// `X-RateLimit-*`, the reset in seconds since 1970.
    Legacy,
    None,
}

impl RateLimitConfig {
    /// What `STOA_RATE_LIMIT_DEFAULT` and `STOA_RATE_LIMIT_WINDOW_SECONDS` say: so many requests
    /// of each tenant in a window.
    pub fn of_each_tenant(requests: u64, window_seconds: u64) -> Self {
        let tenant = LimitConfig { requests, window_seconds, ..LimitConfig::default() };
        Self { tenant: Some(tenant), ..Self::default() }
    }
}

/// At most two rates: a second's, and that of a longer window.
type Rates = SmallVec<[Rate; 2]>;

impl LimitConfig {
    fn rates(&self, scope: Scope) -> Result<Rates, Refusal> {
        let refusal = |reason, remedy| Err(Refusal::new(scope.name(), reason, remedy));
        if (self.requests == 0) != (self.window_seconds == 0) {
            return refusal(
                "`requests` and `window_seconds` mean something only together",
                "give both or neither",
            );
        }
        let (limit, window) = match (self.requests_per_minute, self.requests) {
            (0, requests) => (requests, self.window_seconds),
            (a_minute, 0) => (a_minute, 60),
            _ => {
                return refusal(
                    "`requests` and `requests_per_minute` are both given",
                    "remove one of them",
                );
            }
        };
        let rates = rates_of(self.requests_per_second, limit, window, self.burst);
        if rates.is_empty() {
            return refusal(
                "limits nothing",
                "give `requests_per_second`, `requests_per_minute`, or `requests` and \
                 `window_seconds`",
            );
        }
        Ok(rates)
    }
}

fn rates_of(a_second: u64, limit: u64, window: u64, burst: u64) -> Rates {
    let mut rates = Rates::new();
    if a_second > 0 {
        rates.push(Rate::new(a_second, 1, burst));
    }
    if limit > 0 {
        // Behind a second's limit, the longer one has its own whole depth.
        rates.push(Rate::new(limit, window, if a_second > 0 { 0 } else { burst }));
    }
    rates
}

fn rates_of_plan(plan: &Plan) -> Rates {
    rates_of(plan.requests_per_second, plan.requests_per_minute, 60, plan.burst)
}

/// The counters of all rate limits of this process. Outlives a reload.
#[derive(Debug)]
pub struct LimitTable(CounterTable<2>);

impl Default for LimitTable {
    /// Room for as many as a node is likely to see in a minute: 1.5 MB.
    fn default() -> Self {
        Self::new(1 << 16)
    }
}

impl LimitTable {
    /// Room for the counters of so many subjects, 24 bytes each.
    pub fn new(capacity: usize) -> Self {
        Self(CounterTable::new(capacity))
    }

    /// Subjects counted now (`stoa_rate_limit_buckets`).
    pub fn used(&self) -> u64 {
        self.0.used()
    }

    /// Subjects whose counters were forgotten before they were full again.
    pub fn evicted(&self) -> u64 {
        self.0.evicted()
    }

    fn key(&self, draw: &Draw<'_>) -> Key {
        self.0.key((draw.set, draw.tenant, draw.subject))
    }

    /// Takes one request from every rate of every draw, or from none.
    pub fn take(&self, draws: &[Draw<'_>], now: u64) -> Answers {
        // A bucket that is full again says no more than a new one.
        let worth = |cells: &[u64; 2]| cells.iter().max().map_or(0, |at| at.saturating_sub(now));
        let found: SmallVec<[_; 4]> =
            draws.iter().map(|draw| self.0.find_or_insert(self.key(draw), worth, |_| ())).collect();
        let all = || {
            draws.iter().zip(&found).flat_map(|(draw, cells)| draw.rates.iter().zip(cells.iter()))
        };
        if all().nth(1).is_some() {
            let peeked: Answers = all().map(|(rate, cell)| rate.peek(cell, now)).collect();
            if peeked.iter().any(|answer| matches!(answer, Answer::Refused { .. })) {
                return peeked;
            }
        }
        // Between look and take another worker may have been faster: then this request is refused
        // and what it took so far stays taken. Giving it back could admit one too many.
        all().map(|(rate, cell)| rate.take(cell, now)).collect()
    }
}

/// The limits of one policy set.
#[derive(Debug)]
pub struct RateLimiter {
    set: Box<str>,
    fixed: SmallVec<[Limit; 4]>,
    by_plan: Option<ByPlan>,
    style: HeaderStyle,
    table: Arc<LimitTable>,
    shared: Option<Arc<dyn SharedCounters>>,
}

#[derive(Clone, Debug)]
struct Limit {
    scope: Scope,
    rates: Rates,
}

#[derive(Debug)]
struct ByPlan {
    plans: BTreeMap<Box<str>, Limit>,
    otherwise: Box<str>,
}

/// What the limits say of a request.
#[derive(Clone, Debug, Default)]
struct Outcome {
    /// The tightest limit.
    state: Option<RateLimitState>,
    headers: SmallVec<[(HeaderName, HeaderValue); 6]>,
    denial: Option<Denial>,
}

impl RateLimiter {
    pub fn build(
        set: &str,
        config: &RateLimitConfig,
        plans: &Plans,
        table: Arc<LimitTable>,
        shared: Option<Arc<dyn SharedCounters>>,
    ) -> Result<Self, Refusal> {
        let otherwise = plans.named_by_policy(config.plan.as_deref(), config.consumer.is_some())?;
        let mut fixed = SmallVec::new();
        for (scope, limit) in [
            (Scope::Tenant, &config.tenant),
            (Scope::Consumer, &config.consumer),
            (Scope::Route, &config.route),
            (Scope::Source, &config.source),
        ] {
            if let Some(limit) = limit {
                fixed.push(Limit { scope, rates: limit.rates(scope)? });
            }
        }
        let by_plan = otherwise.map(|otherwise| {
            let limit = |plan| Limit { scope: Scope::Consumer, rates: rates_of_plan(plan) };
            let plans = plans.iter().map(|(name, plan)| (name.into(), limit(plan))).collect();
            ByPlan { plans, otherwise: otherwise.into() }
        });
        Ok(Self { set: set.into(), fixed, by_plan, style: config.headers, table, shared })
    }

    /// Counts the request, and tells the client in the response's headers.
    pub async fn check(
        &self,
        request: &RequestContext<'_>,
        decision: &mut Decision,
        now: Moment,
    ) -> Verdict {
        let (identity, tenant) = (decision.identity.as_deref(), decision.tenant.as_deref());
        let outcome = self.evaluate(&Caller::of(request, identity, tenant), now).await;
        decision.rate_limit = outcome.state;
        decision.response_headers.extend(outcome.headers);
        outcome.denial.map_or(Ok(()), Err)
    }

    async fn evaluate(&self, caller: &Caller<'_>, now: Moment) -> Outcome {
        let limits = self.limits_of(caller);
        let draws: SmallVec<[Draw<'_>; 4]> = limits
            .iter()
            .map(|limit| Draw {
                set: &self.set,
                tenant: caller.tenant.unwrap_or(""),
                subject: caller.subject(limit.scope),
                rates: &limit.rates,
            })
            .collect();
        let answers = match &self.shared {
            None => self.table.take(&draws, now.monotonic),
            Some(shared) => match (shared.take(&draws).await, shared.on_loss()) {
                (Ok(answers), _) => answers,
                (Err(_), OnLoss::Open) => self.table.take(&draws, now.monotonic),
                (Err(_), OnLoss::Closed) => return unavailable(),
            },
        };
        self.outcome(&limits, &answers, now)
    }

    fn limits_of(&self, caller: &Caller<'_>) -> SmallVec<[&Limit; 4]> {
        let of_plan = self.by_plan.as_ref().and_then(|by_plan| {
            let plan = caller.plan.and_then(|plan| {
                let plans = &by_plan.plans;
                plans.get(plan).or_else(|| plans.get(plan.to_ascii_lowercase().as_str()))
            });
            plan.or_else(|| by_plan.plans.get(&by_plan.otherwise))
        });
        self.fixed.iter().chain(of_plan).filter(|limit| !limit.rates.is_empty()).collect()
    }

    fn outcome(&self, limits: &[&Limit], answers: &[Answer], now: Moment) -> Outcome {
        let rates = limits.iter().flat_map(|l| l.rates.iter().map(|rate| (l.scope, rate)));
        let Some(tightest) = rates.zip(answers).max_by_key(|(_, answer)| tightness(answer)) else {
            return Outcome::default();
        };
        let ((scope, rate), answer) = tightest;
        let (remaining, reset_after, retry_after) = match *answer {
            Answer::Admitted { remaining, full_after } => (remaining, full_after, None),
            Answer::Refused { retry_after, full_after } => (0, full_after, Some(retry_after)),
        };
        let state = RateLimitState {
            limit: rate.limit,
            remaining: remaining.min(rate.limit),
            reset_after: seconds_up(reset_after),
        };
        let retry_after = retry_after.map(|wait| seconds_up(wait).max(1));
        let mut outcome = Outcome { state: Some(state), ..Outcome::default() };
        self.write_headers(&mut outcome, limits, scope, rate, state, now);
        if let Some(seconds) = retry_after {
            outcome.headers.push((RETRY_AFTER, HeaderValue::from(seconds)));
            outcome.denial = Some(exceeded(
                PolicyKind::RateLimit,
                format!(
                    "Rate limit exceeded: {} requests in {} s for this {}. Try again in {seconds} s",
                    rate.limit,
                    rate.window,
                    scope.name(),
                ),
            ));
        }
        outcome
    }

    fn write_headers(
        &self,
        outcome: &mut Outcome,
        limits: &[&Limit],
        scope: Scope,
        rate: &Rate,
        state: RateLimitState,
        now: Moment,
    ) {
        if matches!(self.style, HeaderStyle::Both | HeaderStyle::Standard) {
            let mut policy = String::with_capacity(64);
            for limit in limits {
                for rate in &limit.rates {
                    let comma = if policy.is_empty() { "" } else { ", " };
                    // Writing to a string does not fail.
                    let _ = write!(
                        policy,
                        "{comma}\"{}-{}s\";q={};w={}",
                        limit.scope.name(),
                        rate.window,
                        rate.limit,
                        rate.window
                    );
                }
            }
            let limit = format!(
                "\"{}-{}s\";r={};t={}",
                scope.name(),
                rate.window,
                state.remaining,
                state.reset_after
            );
            push_text(outcome, RATELIMIT_POLICY, policy);
            push_text(outcome, RATELIMIT, limit);
        }
        if matches!(self.style, HeaderStyle::Both | HeaderStyle::Legacy) {
            let reset = now.unix.saturating_add(state.reset_after);
            for (name, number) in [
                (X_RATELIMIT_LIMIT, state.limit),
                (X_RATELIMIT_REMAINING, state.remaining),
                (X_RATELIMIT_RESET, reset),
            ] {
                outcome.headers.push((name, HeaderValue::from(number)));
            }
        }
    }
}

fn push_text(outcome: &mut Outcome, name: HeaderName, text: String) {
    // Names of scopes and digits: always a valid value.
    if let Ok(value) = HeaderValue::try_from(text) {
        outcome.headers.push((name, value));
    }
}

/// The longest wait, or else the least left; between equals, the longer window.
fn tightness(answer: &Answer) -> (bool, Duration, u64) {
    match *answer {
        Answer::Refused { retry_after, .. } => (true, retry_after, 0),
        Answer::Admitted { remaining, .. } => (false, Duration::ZERO, u64::MAX - remaining),
    }
}

fn unavailable() -> Outcome {
    Outcome {
        denial: Some(unavailable_denial(PolicyKind::RateLimit)),
        headers: SmallVec::from_iter([(RETRY_AFTER, HeaderValue::from(1u64))]),
        state: None,
    }
}

/// The denial while shared counters are lost and no request may go uncounted.
pub(crate) fn unavailable_denial(policy: PolicyKind) -> Denial {
    Denial {
        policy,
        status: StatusCode::SERVICE_UNAVAILABLE,
        code: "limits_unavailable",
        reason: "The limits cannot be checked now. Try again in 1 s".into(),
    }
}

/// The denial of a limit or quota that is used up.
pub(crate) fn exceeded(policy: PolicyKind, reason: impl Into<Cow<'static, str>>) -> Denial {
    Denial {
        policy,
        status: StatusCode::TOO_MANY_REQUESTS,
        code: "quota_exceeded",
        reason: reason.into(),
    }
}

/// The body of a 429 answer, for limits and quotas alike.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ExceededBody<'a> {
    pub error: &'a str,
    pub message: &'a str,
    pub retry_after_secs: u64,
}

impl<'a> ExceededBody<'a> {
    pub fn of(denial: &'a Denial, retry_after_secs: u64) -> Self {
        Self { error: denial.code, message: &denial.reason, retry_after_secs }
    }
}

#[cfg(test)]
mod tests;
