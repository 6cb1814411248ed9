use std::sync::Arc;

use http_body_util::BodyExt;
use serde_json::{Value, json};
use stoa_policy::decision::{Identity, Obligations, Ran, RateLimitState};

use super::*;
use crate::config::sidecar::UpstreamType;

fn names() -> Names {
    Names::of(UpstreamType::Generic, HeaderName::from_static("x-tenant-id"))
}

fn allowed() -> Decided {
    let identity = Identity {
        subject: Arc::from("ann"),
        scopes: vec![Arc::from("stoa:read"), Arc::from("stoa:write")],
        roles: vec![Arc::from("viewer")],
        ..Identity::default()
    };
    let ran = |policy| Ran { policy, took: std::time::Duration::from_micros(1) };
    let decision = Decision {
        identity: Some(Arc::new(identity)),
        tenant: Some(Arc::from("acme")),
        headers_to_remove: smallvec::smallvec![HeaderName::from_static("x-api-key")],
        response_headers: smallvec::smallvec![(
            HeaderName::from_static("ratelimit"),
            HeaderValue::from_static("\"default\";r=9;t=30"),
        )],
        rate_limit: Some(RateLimitState { limit: 10, remaining: 9, reset_after: 30 }),
        ran: smallvec::smallvec![
            ran(PolicyKind::Identity),
            ran(PolicyKind::Tenant),
            ran(PolicyKind::RateLimit),
            ran(PolicyKind::Scopes)
        ],
        took: std::time::Duration::from_micros(17),
        ..Decision::default()
    };
    Decided { decision, request_id: HeaderValue::from_static("r-1") }
}

fn denied(status: StatusCode, policy: PolicyKind, reason: &'static str) -> Decided {
    let mut decided = allowed();
    decided.decision.denial = Some(Denial { policy, status, code: "code", reason: reason.into() });
    decided
}

fn insufficient() -> Decided {
    denied(
        StatusCode::FORBIDDEN,
        PolicyKind::Scopes,
        "Insufficient scopes: requires one of [stoa:admin]",
    )
}

fn body_of(answer: Answer) -> Vec<u8> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(answer.into_body().collect()).unwrap().to_bytes().to_vec()
}

fn json_of(answer: Answer) -> Value {
    serde_json::from_slice(&body_of(answer)).unwrap()
}

const IDENTITY: [(&str, &str); 5] = [
    ("x-user-id", "ann"),
    ("x-tenant-id", "acme"),
    ("x-request-id", "r-1"),
    ("x-user-scopes", "stoa:read,stoa:write"),
    ("x-user-roles", "viewer"),
];

#[test]
fn status_code_says_it_in_the_status() {
    let answer = of_document(&allowed(), DecisionFormat::StatusCode, &names());
    assert_eq!(answer.status(), StatusCode::OK);
    for (name, value) in IDENTITY {
        assert_eq!(answer.headers()[name], value);
    }
    assert_eq!(answer.headers()["ratelimit"], "\"default\";r=9;t=30");
    assert_eq!(body_of(answer), b"");
    for status in [401, 403, 429] {
        let status = StatusCode::from_u16(status).unwrap();
        let decided = denied(status, PolicyKind::Identity, "no");
        let answer = of_document(&decided, DecisionFormat::StatusCode, &names());
        assert_eq!(answer.status(), status);
        assert!(!answer.headers().contains_key("x-user-id"));
        let has_challenge = answer.headers().contains_key(header::WWW_AUTHENTICATE);
        assert_eq!(has_challenge, status == StatusCode::UNAUTHORIZED);
        assert_eq!(body_of(answer), b"");
    }
}

#[test]
fn json_body_is_the_whole_decision() {
    let answer = of_document(&allowed(), DecisionFormat::JsonBody, &names());
    assert_eq!(answer.headers()[header::CONTENT_TYPE], "application/json");
    let mut body = json_of(answer);
    let reset_at = body["metadata"]["rate_limit"]["reset_at"].take().as_u64().unwrap();
    assert!(reset_at.abs_diff(now() + 30) <= 2);
    assert_eq!(
        body,
        json!({
            "allowed": true,
            "status_code": 200,
            "headers_to_add": {
                "x-user-id": "ann",
                "x-tenant-id": "acme",
                "x-request-id": "r-1",
                "x-user-scopes": "stoa:read,stoa:write",
                "x-user-roles": "viewer",
            },
            "headers_to_remove": ["x-api-key"],
            "denial_reason": null,
            "denial_code": null,
            "denied_by_policy": null,
            "metadata": {
                "request_id": "r-1",
                "policies_evaluated":
                    ["identity", "tenant", "consumer_rate_limit", "scope_enforcement"],
                "evaluation_time_us": 17,
                "rate_limit": {"current": 1, "limit": 10, "reset_at": null, "remaining": 9},
            },
        })
    );
    let answer = of_document(&insufficient(), DecisionFormat::JsonBody, &names());
    assert_eq!(answer.status(), StatusCode::FORBIDDEN);
    let body = json_of(answer);
    assert_eq!((&body["allowed"], &body["status_code"]), (&json!(false), &json!(403)));
    assert_eq!(body["denied_by_policy"], "scope_enforcement");
    assert_eq!(body["denial_reason"], "Insufficient scopes: requires one of [stoa:admin]");
    assert_eq!(body["headers_to_add"], json!({}));
}

#[test]
fn what_only_the_gateway_can_do_is_said() {
    let mut decided = allowed();
    decided.decision.obligations = Obligations { mask_response: true, ..Obligations::default() };
    let body = json_of(of_document(&decided, DecisionFormat::JsonBody, &names()));
    assert_eq!(body["obligations"], json!(["mask_response"]));
}

#[test]
fn envoy_ext_authz_prefixes_the_fields() {
    let answer = of_document(&allowed(), DecisionFormat::EnvoyExtAuthz, &names());
    for (name, value) in IDENTITY {
        assert_eq!(answer.headers()[&format!("x-ext-authz-{name}")], value);
        assert!(!answer.headers().contains_key(name));
    }
    let answer = of_document(&insufficient(), DecisionFormat::EnvoyExtAuthz, &names());
    assert_eq!(answer.status(), StatusCode::FORBIDDEN);
    let expected = json!({
        "error": "Insufficient scopes: requires one of [stoa:admin]",
        "policy": "scope_enforcement",
    });
    assert_eq!(json_of(answer), expected);
}

#[test]
fn kong_plugin_has_its_document() {
    let answer = of_document(&allowed(), DecisionFormat::KongPlugin, &names());
    let body = json_of(answer);
    assert_eq!(body["status"], "ok");
    assert_eq!(body["headers"]["x-user-id"], "ann");
    assert_eq!(body["remove_headers"], json!(["x-api-key"]));
    let answer = of_document(&insufficient(), DecisionFormat::KongPlugin, &names());
    assert_eq!(answer.status(), StatusCode::FORBIDDEN);
    let message = "Insufficient scopes: requires one of [stoa:admin]";
    assert_eq!(json_of(answer), json!({"status": "denied", "message": message}));
}

#[test]
fn kongs_opa_plugin_reads_a_result() {
    let body = json_of(of_kong_opa(&allowed(), &names()));
    assert_eq!(body["result"]["allow"], true);
    assert_eq!(body["result"]["headers"]["x-tenant-id"], "acme");
    let answer = of_kong_opa(&insufficient(), &names());
    assert_eq!(answer.status(), StatusCode::OK);
    let body = json_of(answer);
    assert_eq!((&body["result"]["allow"], &body["result"]["status"]), (&json!(false), &json!(403)));
    assert_eq!(body["result"]["headers"]["ratelimit"], "\"default\";r=9;t=30");
}

#[test]
fn nginx_is_told_what_it_can_pass_on() {
    let decided =
        denied(StatusCode::TOO_MANY_REQUESTS, PolicyKind::RateLimit, "Rate limit exceeded");
    let answer = of_nginx(&decided, &names());
    assert_eq!(answer.status(), StatusCode::FORBIDDEN);
    assert_eq!(answer.headers()["x-stoa-decision-status"], "429");
    let decided = denied(StatusCode::UNAUTHORIZED, PolicyKind::Identity, "no");
    assert_eq!(of_nginx(&decided, &names()).status(), StatusCode::UNAUTHORIZED);
    assert_eq!(of_nginx(&allowed(), &names()).status(), StatusCode::OK);
    assert_eq!(of_forwarded(&insufficient(), &names()).status(), StatusCode::FORBIDDEN);
}

#[test]
fn envoy_is_told_what_does_not_go_on() {
    let mut decided = allowed();
    let answer = of_envoy_http(&decided, &names());
    assert_eq!(answer.headers()["x-envoy-auth-headers-to-remove"], "x-api-key");
    decided.decision.identity = None;
    let answer = of_envoy_http(&decided, &names());
    let removed = "x-user-id,x-user-scopes,x-user-roles,x-api-key";
    assert_eq!(answer.headers()["x-envoy-auth-headers-to-remove"], removed);
    let answer = of_envoy_http(&insufficient(), &names());
    assert!(!answer.headers().contains_key("x-envoy-auth-headers-to-remove"));
}
