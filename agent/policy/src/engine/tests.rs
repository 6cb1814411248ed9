use std::{
    pin::pin,
    task::{Context, Poll, Waker},
};

use http::HeaderMap;
use serde_json::json;

use super::*;
use crate::context::{Body, Stated, tests::request};

fn policies(value: serde_json::Value) -> Policies {
    serde_json::from_value(value).unwrap()
}

/// Polls once: what needs nothing from outside must be ready.
fn decide(engine: &Engine, set: &str, request: &RequestContext<'_>) -> Decision {
    let id = engine.find(set).unwrap();
    match pin!(engine.decide(id, request)).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(decision) => decision,
        Poll::Pending => panic!("the engine waits for nothing"),
    }
}

#[test]
fn an_empty_set_allows() {
    let engine = Engine::build(&policies(json!({"default": {}})), &Outside::default()).unwrap();
    let decision = decide(&engine, "default", &request(&HeaderMap::new()));
    assert!(decision.is_allowed());
    assert!(decision.ran.is_empty());
    assert_eq!(engine.find("other"), None);
}

#[test]
fn policies_run_in_order_up_to_the_one_that_denies() {
    let sets = policies(json!({"default": {
        "scopes": {"any_of": ["a"]},
        "tenant": {"required": false},
    }}));
    let engine = Engine::build(&sets, &Outside::default()).unwrap();
    let decision = decide(&engine, "default", &request(&HeaderMap::new()));
    let ran: Vec<_> = decision.ran.iter().map(|ran| ran.policy).collect();
    assert_eq!(ran, [PolicyKind::Tenant, PolicyKind::Scopes]);
    assert_eq!(decision.denial.as_ref().unwrap().policy, PolicyKind::Scopes);
    assert_eq!(decision.took, decision.ran.iter().map(|ran| ran.took).sum::<Duration>());
}

#[test]
fn a_set_that_cannot_be_built_fails_a_reload_and_denies_at_the_start() {
    let sets = policies(json!({
        "broken": {"scopes": {}, "tenant": {"header": {"sources": []}}},
        "good": {},
    }));
    let errors = Engine::build(&sets, &Outside::default()).unwrap_err();
    assert_eq!(errors.0.len(), 2);
    let text = errors.to_string();
    assert!(text.contains("policies.broken.tenant.header.sources: is empty"), "{text}");
    assert!(text.contains("policies.broken.scopes: demands nothing; list scopes"), "{text}");

    let (engine, errors) = Engine::build_closed(&sets, &Outside::default());
    assert_eq!(errors.unwrap().0.len(), 2);
    let denial = decide(&engine, "broken", &request(&HeaderMap::new())).denial.unwrap();
    assert_eq!((denial.status.as_u16(), denial.code), (503, "policy_unavailable"));
    assert!(decide(&engine, "good", &request(&HeaderMap::new())).is_allowed());
}

#[test]
fn a_set_of_another_engine_denies() {
    let engine = Engine::default();
    let headers = HeaderMap::new();
    let context = request(&headers);
    let mut future = pin!(engine.decide(SetId(7), &context));
    let Poll::Ready(decision) = future.as_mut().poll(&mut Context::from_waker(Waker::noop()))
    else {
        panic!("waits");
    };
    assert!(!decision.is_allowed());
}

#[test]
fn bodies_are_read_as_far_as_the_policies_of_the_set_need() {
    let document = json!({"openapi": "3.1.0", "paths": {"/": {"post": {
        "requestBody": {"content": {"application/json": {"schema": {"type": "object"}}}},
        "responses": {"200": {"content": {"application/json": {"schema": {"type": "array"}}}}},
    }}}});
    let sets = policies(json!({
        "none": {},
        "both": {
            "guardrails": {"personal_data": {"request": "mask", "up_to": "1KiB"}},
            "contract": {"document": document, "requests": "block", "responses": "block", "up_to": "2KiB"},
        },
    }));
    let engine = Engine::build(&sets, &Outside::default()).unwrap();
    let mut headers = HeaderMap::new();
    headers.insert("content-type", http::HeaderValue::from_static("application/json"));
    let mut context = request(&headers);
    let (none, both) = (engine.find("none").unwrap(), engine.find("both").unwrap());
    assert_eq!(engine.body_need(none, &context), BodyNeed::None);
    assert_eq!(engine.body_need(both, &context), BodyNeed::UpTo(1 << 10));
    let method = http::Method::POST;
    context.method = &method;
    assert_eq!(engine.body_need(both, &context), BodyNeed::UpTo(2 << 10));

    context.body = Body::Whole(br#"{"mail":"jane@acme.example"}"#);
    let decision = decide(&engine, "both", &context);
    assert!(decision.is_allowed(), "{:?}", decision.denial);
    assert_eq!(decision.masked_body.as_deref(), Some(&br#"{"mail":"[REDACTED]"}"#[..]));
    let status = StatusCode::OK;
    let operation = decision.operation;
    let need = engine.response_body_need(both, operation, status, &headers);
    assert_eq!(need, BodyNeed::UpTo(2 << 10));
    let answer = |body| {
        let response = ResponseContext { method: &method, status, headers: &headers, body };
        engine.check_response(both, operation, &response)
    };
    let good = answer(Body::Whole(br#"["jane@acme.example"]"#));
    assert_eq!(good.masked_body.as_deref(), Some(&br#"["[REDACTED]"]"#[..]));
    assert_eq!(answer(Body::Whole(b"{}")).denial.unwrap().code, "response_contract");
}

#[test]
fn the_decision_doors_caller_is_believed_where_nobody_checks_identities() {
    let sets = policies(json!({
        "open": {"scopes": {"any_of": ["a"]}},
        "strict": {"identity": {"methods": [{"trusted": {"sources": ["10.0.0.0/8"], "stated": false}}]}},
    }));
    let engine = Engine::build(&sets, &Outside::default()).unwrap();
    let headers = HeaderMap::new();
    let stated = Stated { id: Some("u1".into()), scopes: vec!["a".into()], ..Stated::default() };
    let mut context = request(&headers);
    context.stated = Some(&stated);
    assert!(decide(&engine, "open", &context).is_allowed());
    assert_eq!(decide(&engine, "strict", &context).denial.unwrap().code, "credentials_missing");
}

#[test]
fn unknown_keys_are_errors() {
    let error = serde_json::from_value::<Policies>(json!({"default": {"scops": {}}})).unwrap_err();
    assert!(error.to_string().contains("scops"), "{error}");
}

#[test]
fn workers_share_an_engine() {
    fn is_shared<T: Send + Sync>() {}
    is_shared::<Engine>();
    fn is_sent<T: Send>(_: T) {}
    let engine = Engine::default();
    let headers = HeaderMap::new();
    let context = request(&headers);
    is_sent(engine.decide(SetId(0), &context));
}

#[test]
fn limits_quotas_and_rego_run_in_their_places() {
    let sets = policies(json!({"default": {
        "rate_limit": {"source": {"requests_per_minute": 3}},
        "quota": {"consumer": {"requests_per_day": 2}},
        "rego": {"policy": "package stoa.authz\nallow := input.request.method == \"GET\""},
        "circuit_breaker": {},
    }}));
    let engine = Engine::build(&sets, &Outside::default()).unwrap();
    let headers = HeaderMap::new();
    let denied_by = || {
        let decision = decide(&engine, "default", &request(&headers));
        (decision.denial.map(|denial| denial.policy), decision.ran.len())
    };
    assert_eq!(denied_by(), (None, 4));
    assert_eq!(denied_by(), (None, 4));
    assert_eq!(denied_by(), (Some(PolicyKind::Quota), 2));
    assert_eq!(denied_by(), (Some(PolicyKind::RateLimit), 1));
    let set = engine.find("default").unwrap();
    assert_eq!(engine.breaker_config(set).unwrap().failures, 5);
    let breaker = engine.breaker(set, "orders").unwrap();
    assert!(Arc::ptr_eq(&breaker, &engine.breaker(set, "orders").unwrap()));
}

#[test]
fn a_reload_forgets_no_limit() {
    let sets = policies(json!({"default": {"rate_limit": {"source": {"requests_per_minute": 1}}}}));
    let outside = Outside::default();
    let headers = HeaderMap::new();
    let is_allowed = || {
        let engine = Engine::build(&sets, &outside).unwrap();
        decide(&engine, "default", &request(&headers)).is_allowed()
    };
    assert_eq!([is_allowed(), is_allowed()], [true, false]);
}
