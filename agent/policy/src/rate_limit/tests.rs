use std::{
    future::Future,
    pin::pin,
    task::{Context, Poll, Waker},
    thread,
};

use super::*;
use crate::counters::{Counted, Unavailable, Waiting};

const SECOND: u64 = 1_000_000_000;

/// Runs what never waits.
fn ready<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("it waits"),
    }
}

fn at(seconds: u64) -> Moment {
    Moment { monotonic: (100 + seconds) * SECOND, unix: 1_800_000_000 + seconds }
}

fn caller<'a>(tenant: &'a str, consumer: &'a str) -> Caller<'a> {
    Caller {
        tenant: Some(tenant),
        consumer: Some(consumer),
        plan: None,
        route: Some("orders"),
        source: [192, 0, 2, 1].into(),
    }
}

fn limiter_with(config: &str, shared: Option<Arc<dyn SharedCounters>>) -> RateLimiter {
    let config: RateLimitConfig = serde_json::from_str(config).unwrap();
    let table = Arc::new(LimitTable::new(1024));
    RateLimiter::build("default", &config, &Plans::default(), table, shared).unwrap()
}

fn limiter(config: &str) -> RateLimiter {
    limiter_with(config, None)
}

fn admitted(limiter: &RateLimiter, caller: &Caller<'_>, seconds: u64, times: usize) -> usize {
    (0..times).filter(|_| ready(limiter.evaluate(caller, at(seconds))).denial.is_none()).count()
}

fn header<'a>(verdict: &'a Outcome, name: &str) -> &'a str {
    let found = verdict.headers.iter().find(|(n, _)| n == name);
    found.unwrap_or_else(|| panic!("no header {name}")).1.to_str().unwrap()
}

#[test]
fn each_consumer_of_each_tenant_has_its_own_limit() {
    let limiter = limiter(r#"{"consumer": {"requests_per_minute": 3}}"#);
    assert_eq!(admitted(&limiter, &caller("acme", "a"), 0, 5), 3);
    assert_eq!(admitted(&limiter, &caller("acme", "b"), 0, 5), 3);
    assert_eq!(admitted(&limiter, &caller("other", "a"), 0, 5), 3);
}

#[test]
fn a_tenant_shares_its_limit_among_its_consumers() {
    let limiter = limiter(r#"{"tenant": {"requests": 4, "window_seconds": 60}}"#);
    assert_eq!(admitted(&limiter, &caller("acme", "a"), 0, 3), 3);
    assert_eq!(admitted(&limiter, &caller("acme", "b"), 0, 3), 1);
    assert_eq!(admitted(&limiter, &caller("other", "b"), 0, 3), 3);
}

#[test]
fn anonymous_callers_are_told_apart_by_address() {
    let limiter = limiter(r#"{"consumer": {"requests_per_minute": 2}}"#);
    let anonymous =
        |last| Caller { consumer: None, source: [192, 0, 2, last].into(), ..caller("", "") };
    assert_eq!(admitted(&limiter, &anonymous(1), 0, 5), 2);
    assert_eq!(admitted(&limiter, &anonymous(2), 0, 5), 2);
}

#[test]
fn a_request_that_one_limit_refuses_takes_nothing_from_the_others() {
    let limiter = limiter(
        r#"{"tenant": {"requests_per_minute": 10}, "consumer": {"requests_per_minute": 2}}"#,
    );
    assert_eq!(admitted(&limiter, &caller("acme", "a"), 0, 100), 2);
    // Eight are left of the tenant's ten.
    let others =
        ["b", "c", "d", "e", "f"].map(|name| admitted(&limiter, &caller("acme", name), 0, 2));
    assert_eq!(others, [2, 2, 2, 2, 0]);
}

#[test]
fn the_second_and_the_minute_both_hold() {
    let limiter = limiter(
        r#"{"consumer": {"requests_per_second": 5, "requests_per_minute": 12, "burst": 5}}"#,
    );
    let counts = [0, 1, 2, 3].map(|second| admitted(&limiter, &caller("acme", "a"), second, 10));
    assert_eq!(counts, [5, 5, 2, 0], "a minute's twelve, no more than five a second");
}

#[test]
fn a_plan_decides_unless_there_is_none() {
    let limiter = limiter(r#"{"plan": "community"}"#);
    let of = |plan| Caller { plan, ..caller("acme", plan.unwrap_or("none")) };
    assert_eq!(admitted(&limiter, &of(Some("Silver")), 0, 100), 20);
    assert_eq!(admitted(&limiter, &of(Some("unheard of")), 0, 100), 5);
    assert_eq!(admitted(&limiter, &of(None), 0, 100), 5);
}

#[test]
fn a_client_is_told_what_is_left_and_when_to_come_back() {
    let limiter = limiter(r#"{"consumer": {"requests_per_second": 5, "requests_per_minute": 3}}"#);
    let first = ready(limiter.evaluate(&caller("acme", "a"), at(0)));
    assert_eq!(header(&first, "ratelimit"), r#""consumer-60s";r=2;t=20"#);
    assert_eq!(
        header(&first, "ratelimit-policy"),
        r#""consumer-1s";q=5;w=1, "consumer-60s";q=3;w=60"#
    );
    assert_eq!(header(&first, "x-ratelimit-limit"), "3");
    assert_eq!(header(&first, "x-ratelimit-remaining"), "2");
    assert_eq!(header(&first, "x-ratelimit-reset"), "1800000020");
    assert_eq!(first.state, Some(RateLimitState { limit: 3, remaining: 2, reset_after: 20 }));
    assert!(first.headers.iter().all(|(name, _)| name != RETRY_AFTER));

    admitted(&limiter, &caller("acme", "a"), 0, 2);
    let refused = ready(limiter.evaluate(&caller("acme", "a"), at(1)));
    let denial = refused.denial.as_ref().unwrap();
    assert_eq!(denial.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(header(&refused, "retry-after"), "19");
    assert_eq!(header(&refused, "x-ratelimit-remaining"), "0");
    let body = serde_json::to_value(ExceededBody::of(denial, 19)).unwrap();
    assert_eq!(body["error"], "quota_exceeded");
    assert_eq!(body["retry_after_secs"], 19);
    // And it is true: a client that waits so long is admitted.
    assert_eq!(admitted(&limiter, &caller("acme", "a"), 1 + 19, 1), 1);
}

#[test]
fn headers_can_be_had_in_one_style_or_not_at_all() {
    let count = |style: &str| {
        let limiter =
            limiter(&format!(r#"{{"headers": "{style}", "route": {{"requests_per_second": 1}}}}"#));
        ready(limiter.evaluate(&caller("acme", "a"), at(0))).headers.len()
    };
    assert_eq!([count("both"), count("standard"), count("legacy"), count("none")], [5, 2, 3, 0]);
}

#[test]
fn what_makes_no_sense_is_refused_with_its_place() {
    let refused = |config: &str| {
        let config: RateLimitConfig = serde_json::from_str(config).unwrap();
        let table = Arc::new(LimitTable::new(8));
        let refusal = RateLimiter::build("x", &config, &Plans::default(), table, None).unwrap_err();
        format!("{}: {}", refusal.key, refusal.reason)
    };
    assert_eq!(refused(r#"{"tenant": {}}"#), "tenant: limits nothing");
    assert_eq!(
        refused(r#"{"route": {"requests": 5}}"#),
        "route: `requests` and `window_seconds` mean something only together"
    );
    assert_eq!(
        refused(r#"{"source": {"requests": 5, "window_seconds": 2, "requests_per_minute": 1}}"#),
        "source: `requests` and `requests_per_minute` are both given"
    );
    assert_eq!(
        refused(r#"{"plan": "gold", "consumer": {"requests_per_second": 1}}"#),
        "plan: limits the consumer, and `consumer` does so too"
    );
    assert_eq!(refused(r#"{"plan": "tin"}"#), "plan: there is no plan `tin`");
    assert!(serde_json::from_str::<RateLimitConfig>(r#"{"per_hour": 1}"#).is_err());
}

#[derive(Debug)]
struct Lost(OnLoss);

impl SharedCounters for Lost {
    fn take<'a>(&'a self, _: &'a [Draw<'a>]) -> Waiting<'a, Result<Answers, Unavailable>> {
        Box::pin(async { Err(Unavailable) })
    }

    fn count<'a>(
        &'a self,
        _: &'a [crate::counters::Count<'a>],
    ) -> Waiting<'a, Result<Counted, Unavailable>> {
        Box::pin(async { Err(Unavailable) })
    }

    fn on_loss(&self) -> OnLoss {
        self.0
    }
}

#[test]
fn lost_shared_counters_leave_local_ones_or_nothing() {
    let config = r#"{"consumer": {"requests_per_minute": 3}}"#;
    let open = limiter_with(config, Some(Arc::new(Lost(OnLoss::Open))));
    assert_eq!(admitted(&open, &caller("acme", "a"), 0, 5), 3, "open is not unlimited");
    let closed = limiter_with(config, Some(Arc::new(Lost(OnLoss::Closed))));
    let verdict = ready(closed.evaluate(&caller("acme", "a"), at(0)));
    assert_eq!(verdict.denial.unwrap().status, StatusCode::SERVICE_UNAVAILABLE);
}

#[test]
fn workers_together_admit_no_more_than_the_limits() {
    let limiter = Arc::new(limiter(
        r#"{"tenant": {"requests_per_minute": 300}, "consumer": {"requests_per_minute": 100}}"#,
    ));
    let workers: Vec<_> = (0..8)
        .map(|_| {
            let limiter = limiter.clone();
            thread::spawn(move || {
                ["a", "b", "c", "d"].map(|name| admitted(&limiter, &caller("acme", name), 0, 200))
            })
        })
        .collect();
    let mut totals = [0; 4];
    for worker in workers {
        for (total, count) in totals.iter_mut().zip(worker.join().unwrap()) {
            *total += count;
        }
    }
    assert!(totals.iter().all(|total| *total <= 100), "{totals:?}");
    // Requests that lost a race may have taken from one limit and been refused by another.
    let sum: usize = totals.iter().sum();
    assert!((250..=300).contains(&sum), "{sum} of 300");
}

#[test]
fn a_flood_of_new_names_is_bounded_and_counted() {
    let config: RateLimitConfig =
        serde_json::from_str(r#"{"consumer": {"requests_per_minute": 1}}"#).unwrap();
    let table = Arc::new(LimitTable::new(64));
    let limiter = RateLimiter::build("x", &config, &Plans::default(), table.clone(), None).unwrap();
    for name in 0..10_000 {
        admitted(&limiter, &caller("acme", &name.to_string()), 0, 1);
    }
    assert!(table.used() <= 64);
    assert!(table.evicted() >= 10_000 - 64);
    // A minute later nothing that could be forgotten was worth keeping.
    let before = table.evicted();
    for name in 10_000..10_064 {
        admitted(&limiter, &caller("acme", &name.to_string()), 61, 1);
        admitted(&limiter, &caller("acme", &name.to_string()), 130, 1);
    }
    assert!(table.evicted() - before < 64);
}
