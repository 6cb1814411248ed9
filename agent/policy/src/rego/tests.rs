use std::{
    pin::pin,
    task::{Context, Poll, Waker},
    time::Instant,
};

use http::{HeaderMap, Method};
use serde_json::json;

use super::*;
use crate::{context::tests::request, decision::Identity};

fn ready<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("it waits"),
    }
}

fn build(config: serde_json::Value) -> Result<Rego, Refusal> {
    Rego::build(&serde_json::from_value(config).unwrap(), None, None)
}

fn identity(scopes: &[&str], roles: &[&str]) -> Decision {
    let list = |words: &[&str]| words.iter().map(|word| Arc::from(*word)).collect();
    let identity = Identity {
        subject: "u1".into(),
        scopes: list(scopes),
        roles: list(roles),
        ..Identity::default()
    };
    Decision {
        identity: Some(Arc::new(identity)),
        tenant: Some("acme".into()),
        ..Decision::default()
    }
}

fn check(rego: &Rego, mut decision: Decision) -> (Verdict, Decision) {
    let headers = HeaderMap::new();
    let verdict = ready(rego.check(&request(&headers), &mut decision));
    (verdict, decision)
}

/// Each row of the table of actions, and that nothing else is allowed.
#[test]
fn the_default_policy_allows_what_its_table_says() {
    const READ: &[&str] = &["Read", "List", "Search"];
    const WRITE: &[&str] = &[
        "Create",
        "Update",
        "Delete",
        "CreateApi",
        "UpdateApi",
        "DeleteApi",
        "PublishApi",
        "DeprecateApi",
    ];
    const EXECUTE: &[&str] =
        &["Read", "List", "Search", "Subscribe", "Unsubscribe", "ManageSubscription"];
    const METRICS: &[&str] = &["ViewMetrics", "ViewLogs"];
    const DEPLOY: &[&str] = &["PublishApi", "DeprecateApi"];
    let all: Vec<&str> = [READ, WRITE, EXECUTE, METRICS, &["ViewAudit", "Anything"]].concat();
    let rows: &[(&[&str], &[&str], Vec<&str>)] = &[
        (&[], &[], vec![]),
        (&["stoa:admin"], &[], all.clone()),
        (&[], &["cpi-admin"], all.clone()),
        (&["stoa:write"], &["tenant-admin"], all.clone()),
        (&[], &["tenant-admin"], vec![]),
        (&["stoa:read"], &[], [READ, METRICS].concat()),
        (&["stoa:write"], &[], WRITE.to_vec()),
        (&["stoa:execute"], &[], EXECUTE.to_vec()),
        (&["stoa:audit"], &[], [METRICS, &["ViewAudit"]].concat()),
        (&["stoa:deploy"], &[], DEPLOY.to_vec()),
        (&["stoa:deploy"], &["devops"], all.clone()),
        (&[], &["devops"], vec![]),
        (&["stoa:read", "stoa:deploy"], &["viewer"], [READ, METRICS, DEPLOY].concat()),
        (&["stoa:reader"], &["admin"], vec![]),
    ];
    let rego = build(json!({})).unwrap();
    assert!(rego.is_for_machine());
    let Evaluation::Embedded(compiled) = &rego.evaluation else { panic!("not embedded") };
    for (scopes, roles, allowed) in rows {
        for action in &all {
            let input = json!({"scopes": scopes, "roles": roles, "action": action});
            let answer = rego.ask_embedded(compiled, Value::from(input)).unwrap();
            let expected = allowed.contains(action);
            assert_eq!(answer.is_allowed, expected, "{scopes:?} {roles:?} {action}");
            assert_eq!(answer.message.is_some(), !expected);
        }
    }
}

#[test]
fn plain_http_is_judged_by_its_method() {
    let rego = build(json!({})).unwrap();
    let headers = HeaderMap::new();
    for (method, scope) in [
        (Method::GET, "stoa:read"),
        (Method::HEAD, "stoa:execute"),
        (Method::POST, "stoa:write"),
        (Method::PATCH, "stoa:write"),
        (Method::DELETE, "stoa:write"),
    ] {
        let mut context = request(&headers);
        context.method = &method;
        assert_eq!(ready(rego.check(&context, &mut identity(&[scope], &[]))), Ok(()), "{method}");
        let denial = ready(rego.check(&context, &mut identity(&["stoa:audit"], &[]))).unwrap_err();
        assert_eq!((denial.status, denial.code), (StatusCode::FORBIDDEN, "policy_denied"));
        assert!(denial.reason.contains("is not allowed"), "{}", denial.reason);
    }
}

#[test]
fn a_policy_sees_both_forms_of_the_input() {
    let policy = r#"
        package acme
        allow if {
            input.user_id == "u1"
            input.tenant_id == input.request.tenant_id
            input.request.method == "GET"
            input.request.path == "/"
            input.request.headers.accept == "a/b, c/d"
            input.context.client_ip == "192.0.2.1"
            input.context.user_agent == "curl/8"
            input.context.authentication == "anonymous"
            input.token == {}
            input.user_email == null
            data.limits.most > 3
        }"#;
    let config =
        json!({"policy": policy, "query": "data.acme.allow", "data": {"limits": {"most": 4}}});
    let rego = build(config).unwrap();
    let mut headers = HeaderMap::new();
    for (name, value) in [("accept", "a/b"), ("accept", "c/d"), ("user-agent", "curl/8")] {
        headers.append(name, HeaderValue::from_static(value));
    }
    assert_eq!(ready(rego.check(&request(&headers), &mut identity(&[], &[]))), Ok(()));
}

#[test]
fn an_object_says_what_to_answer() {
    let policy = r#"
        package acme
        result := {"allow": true, "headers": {"X-Team": "orders", "Content-Length": "0"}} if {
            "stoa:read" in input.scopes
        } else := {
            "allow": false, "status": 402, "message": "pay first", "headers": {"X-Price": "3"},
        }"#;
    let rego = build(json!({"policy": policy, "query": "data.acme.result"})).unwrap();
    let (verdict, decision) = check(&rego, identity(&["stoa:read"], &[]));
    assert_eq!(verdict, Ok(()));
    assert_eq!(decision.headers_to_set.len(), 1, "framing is not a policy's to set");
    let (verdict, decision) = check(&rego, identity(&[], &[]));
    let denial = verdict.unwrap_err();
    assert_eq!((denial.status.as_u16(), &*denial.reason), (402, "pay first"));
    assert_eq!(decision.response_headers[0].0, "x-price");
}

#[test]
fn what_is_neither_yes_nor_no_denies() {
    for value in ["3", "\"true\"", "[true]", "{\"allow\": \"yes\"}"] {
        let policy = format!("package acme\nallow := {value}");
        let rego = build(json!({"policy": policy, "query": "data.acme.allow"})).unwrap();
        let denial = check(&rego, identity(&[], &[])).0.unwrap_err();
        assert_eq!(denial.code, "policy_failed", "{value}");
    }
    // Undefined is no.
    let policy = "package acme\nallow if input.user_id == \"nobody\"";
    let rego = build(json!({"policy": policy, "query": "data.acme.allow"})).unwrap();
    assert_eq!(check(&rego, identity(&[], &[])).0.unwrap_err().code, "policy_denied");
}

#[test]
fn what_cannot_be_loaded_is_refused_by_name() {
    let refused = |rules: &str| {
        let policy = format!("package acme\nimport data.acme.lib as lib\n{rules}");
        let config = json!({"policy": policy, "query": "data.acme.allow"});
        let refusal = build(config).unwrap_err();
        format!("{}: {}; {}", refusal.key, refusal.reason, refusal.remedy)
    };
    for (rules, part) in [
        (
            "allow if http.send({}).status == 200",
            "policy:3 calls `http.send`, which is not allowed",
        ),
        ("allow if rand.intn(\"a\", 2) == 1", "`rand.intn`"),
        ("allow if opa.runtime().env.HOME", "`opa.runtime`"),
        (
            "allow if crypto.sha256(\"a\") == \"b\"",
            "`crypto.sha256`, which this build does not have",
        ),
        ("allow if io.jwt.encode_sign({}, {}, {})", "`io.jwt.encode_sign`"),
        ("allow if unheard_of(1)", "`unheard_of`"),
        ("allow if data.acme.unheard_of(1)", "`data.acme.unheard_of`"),
        ("allow if lib.f(1)", "`data.acme.lib.f`"),
        // Where regorus alone would leave the function undefined, and nobody would be denied.
        ("f(x) := crypto.md5(x)\nbad if f(\"a\") == \"b\"\nallow if not bad", "`crypto.md5`"),
        ("allow if { every x in [1] { [y | y := uuid.rfc4122(x)] != [] } }", "`uuid.rfc4122`"),
        ("allow if count([1]) == 1 with count as http.send", "`http.send`"),
        ("allow := x", "`x`"),
        ("allow if {", "cannot be loaded"),
        ("allow if io.jwt.decode(input.t, [h, p, s])", "cannot be loaded"),
        ("other := true", "query"),
    ] {
        let said = refused(rules);
        let part = part.replace("`data.acme.lib.f`", "`lib.f`").replace("`x`", "x");
        assert!(said.contains(&part), "{rules}: {said}");
    }
}

#[test]
fn own_functions_and_imports_are_no_unknown_calls() {
    let policy = r#"
        package acme
        import data.acme as here
        default g(_) := 0
        f(x) := g(x) + here.h(x) + data.acme.h(x)
        h(x) := x
        mocked := 1 if time.now_ns() == 5 with time.now_ns as 5
        allow if { f(2) == 4; mocked == 1; here["h"](3) == 3 }"#;
    let rego = build(json!({"policy": policy, "query": "data.acme.allow"})).unwrap();
    assert!(!rego.is_for_machine(), "`with` is for the interpreter");
    assert_eq!(check(&rego, identity(&[], &[])).0, Ok(()));
}

#[test]
fn a_policy_that_does_not_end_is_ended() {
    let loops = "count([1 | some i in xs; some j in xs; some k in xs; i + j + k > 0]) > 0";
    for rules in [
        format!("xs := data.xs\nallow if {{ input.user_id == \"u1\"; {loops} }}"),
        "allow if { input.user_id == \"u1\"; count(numbers.range(1, 1000000000)) > 0 }".to_owned(),
        format!("xs := numbers.range(1, 2000)\nallow if {{ input.user_id == \"u1\"; ({loops}) with input.x as 1 }}")
            .replace("(count", "count").replace("> 0)", "> 0"),
    ] {
        let policy = format!("package acme\n{rules}");
        let config = json!({"policy": policy, "query": "data.acme.allow", "timeout": "50ms", "data": {"xs": (1..2000).collect::<Vec<_>>()}});
        let rego = build(config).unwrap();
        let started = Instant::now();
        let denial = check(&rego, identity(&[], &[])).0.unwrap_err();
        assert_eq!((denial.code, denial.status.as_u16()), ("policy_failed", 500));
        assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
        // And the next request is not hurt by it.
        assert_eq!(check(&rego, Decision::default()).0.unwrap_err().code, "policy_denied");
    }
}

#[derive(Debug)]
struct Opa(Result<Option<serde_json::Value>, OpaUnavailable>);

impl RemoteOpa for Opa {
    fn evaluate<'a>(
        &'a self,
        rule: &'a str,
        input: &'a str,
    ) -> Waiting<'a, Result<Option<serde_json::Value>, OpaUnavailable>> {
        let input: serde_json::Value = serde_json::from_str(input).unwrap();
        assert_eq!(input["user_id"], "u1");
        let reason = rule.ends_with("denial_reason").then(|| Ok(Some(json!("says OPA"))));
        Box::pin(std::future::ready(reason.unwrap_or_else(|| self.0.clone())))
    }
}

#[test]
fn a_real_opa_decides_where_there_is_one() {
    let ask = |answer, config: serde_json::Value| {
        let opa: Arc<dyn RemoteOpa> = Arc::new(Opa(answer));
        let config = serde_json::from_value(config).unwrap();
        let rego = Rego::build(&config, None, Some(opa)).unwrap();
        check(&rego, identity(&[], &[])).0.map_err(|denial| (denial.code, denial.reason))
    };
    assert_eq!(ask(Ok(Some(json!(true))), json!({})), Ok(()));
    assert_eq!(ask(Ok(Some(json!(false))), json!({})), Err(("policy_denied", "says OPA".into())));
    assert_eq!(ask(Ok(None), json!({})).unwrap_err().0, "policy_denied");
    assert_eq!(ask(Err(OpaUnavailable), json!({})).unwrap_err().0, "policy_failed");
    assert_eq!(ask(Err(OpaUnavailable), json!({"on_loss": "open"})), Ok(()));
    // A policy of one's own is evaluated here all the same.
    let own = json!({"policy": "package stoa.authz\nallow := true"});
    assert_eq!(ask(Err(OpaUnavailable), own), Ok(()));
    let none = build(json!({"engine": "opa"})).unwrap_err();
    assert_eq!(none.key, "engine");
}
