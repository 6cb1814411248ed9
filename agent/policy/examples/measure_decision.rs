//! Prints what a decision costs, and each policy of it:
//!
//! ```sh
//! cargo run --release -p stoa-policy --example measure_decision -- [set] [count]
//! ```
//!
//! Without arguments all sets run. With one set and a count it runs under `valgrind
//! --tool=callgrind`, which counts instructions where the clock cannot be trusted.

use std::{
    collections::BTreeMap,
    hint::black_box,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde_json::{Value, json};
use stoa_policy::{
    config::Policies,
    context::{Body, Door, RequestContext},
    decision::{Decision, PolicyKind},
    engine::{Engine, SetId},
    outside::Outside,
};

const RECORDED: &str = include_str!("../tests/data/tokens.json");
const KEY: &str = "4f1c9e0b7a6d48f29a3c5d7e8b1f2a4c";

fn policies(recorded: &Value) -> Policies {
    let jwt = json!({"jwt": {
        "issuer": "https://issuer.example", "audience": "orders", "jwks": recorded["jwks"],
    }});
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, KEY.as_bytes());
    let hash: String = hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let api_key = json!({"api_key": {"keys": [{"name": "batch", "sha256": hash}]}});
    let contract = json!({"openapi": "3.1.0", "paths": {"/orders/{id}": {"get": {
        "parameters": [{"name": "id", "in": "path", "required": true, "schema": {"type": "integer"}}],
    }}}});
    let sets = json!({
        "empty": {},
        "jwt": {"identity": {"methods": [jwt]}},
        "jwt, told to the upstream": {"identity": {
            "methods": [jwt], "forward_as": {"subject": "X-User-ID", "scopes": "X-User-Scopes"},
        }},
        "api key": {"identity": {"methods": [api_key]}},
        "jwt, tenant and scopes": {
            "identity": {"methods": [jwt]},
            "tenant": {"required": false},
            "scopes": {"any_of": ["orders:read"]},
        },
        "limits": {"guardrails": {"limits": {"headers": "32KiB", "target": "8KiB", "body": "1MiB"}}},
        "contract": {"contract": {"document": contract, "requests": "block"}},
    });
    serde_json::from_value(sets).expect("the sets are well-formed")
}

fn headers(recorded: &Value) -> HeaderMap {
    let token = recorded["tokens"]["RS256"].as_str().unwrap_or_default();
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("host", "orders.example"),
        ("user-agent", "measure/1"),
        ("accept", "*/*"),
        ("authorization", &format!("Bearer {token}")),
        ("x-api-key", KEY),
    ] {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_str(value).expect("plain"));
    }
    headers
}

fn decide(engine: &Engine, set: SetId, request: &RequestContext<'_>) -> Decision {
    match pin!(engine.decide(set, request)).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(decision) => decision,
        Poll::Pending => unreachable!("nothing here is outside"),
    }
}

fn main() {
    let recorded: Value = serde_json::from_str(RECORDED).expect("the recording is JSON");
    let engine = Engine::build(&policies(&recorded), &Outside::default()).expect("it builds");
    let engine = Arc::new(engine);
    let headers = headers(&recorded);
    let request = RequestContext {
        door: Door::Proxy,
        method: &Method::GET,
        scheme: "https",
        authority: "orders.example",
        path: "/orders/17",
        query: None,
        headers: &headers,
        source: ([192, 0, 2, 1], 40_000).into(),
        destination: None,
        client_certificate: None,
        stated: None,
        route: Some("orders"),
        tenant: None,
        upstream: None,
        body: Body::Unread,
    };
    let mut arguments = std::env::args().skip(1);
    let only = arguments.next();
    let count: u32 = arguments.next().and_then(|text| text.parse().ok()).unwrap_or(1_000_000);
    println!("{} bytes of decision, {} bytes of future", size_of::<Decision>(), {
        let set = engine.find("empty").expect("it is there");
        size_of_val(&engine.decide(set, &request))
    });
    for name in policies(&recorded).keys() {
        if only.as_ref().is_some_and(|only| only != name) {
            continue;
        }
        let set = engine.find(name).expect("it is there");
        let first = decide(&engine, set, &request);
        assert!(first.is_allowed(), "{name}: {:?}", first.denial);
        let mut policies: BTreeMap<PolicyKind, Duration> = BTreeMap::new();
        let started = Instant::now();
        for _ in 0..count {
            let decision = black_box(decide(&engine, set, black_box(&request)));
            for ran in &decision.ran {
                *policies.entry(ran.policy).or_default() += ran.took;
            }
        }
        let each = started.elapsed() / count;
        println!("{name}: {} ns ({} ns at first)", each.as_nanos(), first.took.as_nanos());
        for (policy, took) in policies {
            println!("    {}: {} ns", policy.name(), (took / count).as_nanos());
        }
    }
}
