//! What the checks of limits, quotas, breakers and Rego cost:
//!
//! ```text
//! cargo run --release -p stoa-policy --example measure_limits
//! ```

use std::{
    future::Future,
    hint::black_box,
    net::SocketAddr,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Instant,
};

use http::{HeaderMap, HeaderValue, Method};
use stoa_policy::{
    circuit_breaker::{Breaker, CircuitBreakerConfig},
    context::{Body, Door, RequestContext},
    decision::{Decision, Identity},
    moment::Moment,
    plan::Plans,
    quota::{QuotaBook, QuotaConfig, QuotaLimits, Quotas},
    rate_limit::{HeaderStyle, LimitConfig, LimitTable, RateLimitConfig, RateLimiter},
    rego::{Rego, RegoConfig},
};

fn ready<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => unreachable!("nothing here waits"),
    }
}

/// Nanoseconds a call, the best of five rounds.
fn measure(name: &str, calls: u32, mut call: impl FnMut()) {
    let mut round = || {
        let started = Instant::now();
        (0..calls).for_each(|_| call());
        started.elapsed().as_nanos() / u128::from(calls)
    };
    let best = (0..5).map(|_| round()).min().unwrap_or_default();
    println!("{name:<48} {best:>7} ns");
}

fn main() {
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("host", "api.example"),
        ("user-agent", "curl/8.0"),
        ("accept", "application/json"),
        ("authorization", "Bearer abc"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    let request = RequestContext {
        door: Door::Proxy,
        method: &Method::GET,
        scheme: "https",
        authority: "api.example",
        path: "/orders/7",
        query: None,
        headers: &headers,
        source: SocketAddr::from(([192, 0, 2, 1], 40_000)),
        destination: None,
        client_certificate: None,
        stated: None,
        route: Some("orders"),
        tenant: Some("acme"),
        upstream: Some("orders"),
        body: Body::Unread,
    };
    let identity = Arc::new(Identity {
        subject: "user-1".into(),
        consumer: Some("shop".into()),
        scopes: vec!["stoa:read".into()],
        ..Identity::default()
    });
    let decision = || Decision {
        identity: Some(identity.clone()),
        tenant: Some("acme".into()),
        ..Decision::default()
    };

    measure("both clocks", 1_000_000, || {
        black_box(Moment::read());
    });
    let table = Arc::new(LimitTable::new(65_536));
    let plenty = LimitConfig {
        requests_per_second: 100_000_000,
        requests_per_minute: 1_000_000_000,
        ..LimitConfig::default()
    };
    let one = LimitConfig { requests_per_second: 100_000_000, ..LimitConfig::default() };
    for (name, limits) in [
        ("rate limit, one rate, no headers", (None, Some(one), HeaderStyle::None)),
        ("rate limit, one rate, all headers", (None, Some(one), HeaderStyle::Both)),
        (
            "rate limit, tenant and consumer, two rates each",
            (Some(plenty), Some(plenty), HeaderStyle::Both),
        ),
    ] {
        let (tenant, consumer, headers) = limits;
        let config = RateLimitConfig { tenant, consumer, headers, ..RateLimitConfig::default() };
        let limiter = RateLimiter::build(name, &config, &Plans::default(), table.clone(), None);
        let limiter = limiter.unwrap_or_else(|refusal| panic!("{refusal:?}"));
        measure(name, 200_000, || {
            let mut decision = decision();
            let verdict = ready(limiter.check(&request, &mut decision, Moment::read()));
            assert!(verdict.is_ok());
            black_box(decision);
        });
    }

    let book = Arc::new(QuotaBook::new(65_536));
    let limits = QuotaLimits { requests_per_day: 1 << 39, requests_per_month: 1 << 39 };
    let config = QuotaConfig { consumer: Some(limits), ..QuotaConfig::default() };
    let quotas = Quotas::build("default", &config, &Plans::default(), book, None);
    let quotas = quotas.unwrap_or_else(|refusal| panic!("{refusal:?}"));
    measure("quota, day and month", 200_000, || {
        let mut decision = decision();
        assert!(ready(quotas.check(&request, &mut decision, Moment::read())).is_ok());
        black_box(decision);
    });

    let breaker = Arc::new(Breaker::new("orders", CircuitBreakerConfig::default()));
    measure("circuit breaker, admit and report", 1_000_000, || {
        let now = Moment::read();
        if let Ok(permit) = breaker.admit(now) {
            permit.succeeded(now);
        }
    });

    let rego = Rego::build(&RegoConfig::default(), None, None);
    let rego = rego.unwrap_or_else(|refusal| panic!("{refusal:?}"));
    measure("Rego, default policy, with its input", 20_000, || {
        let mut decision = decision();
        assert!(ready(rego.check(&request, &mut decision)).is_ok());
    });
}
