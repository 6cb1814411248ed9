//! `POST /authz` of the running binary: formats, who may ask, reloads.

use std::{fs, time::Duration};

use anyhow::{Context, Result, ensure};
use sandbox::http::{Connection, get};
use serde_json::{Value, json};
use system_tests::{
    decisions::{SECRET, Sidecar, policies, token, wait_for},
    stage,
};

fn ann(scopes: &[&str]) -> Value {
    json!({"method": "GET", "path": "/orders", "tenant_id": "acme",
           "user": {"id": "ann", "roles": ["viewer"], "scopes": scopes}})
}

#[test]
fn every_format_says_the_same() -> Result<()> {
    let dir = stage::directory("sidecar-formats")?;
    for format in ["StatusCode", "JsonBody", "EnvoyExtAuthz", "KongPlugin"] {
        let sidecar = Sidecar::start(&dir, &policies(), &[("STOA_DECISION_FORMAT", format)])?;
        let allowed = sidecar.ask(&ann(&["stoa:read"]))?;
        ensure!(allowed.status == 200, "{format}: {}", allowed.text());
        let prefix = if format == "EnvoyExtAuthz" { "x-ext-authz-" } else { "" };
        for (name, value) in [
            ("x-user-id", "ann"),
            ("x-tenant-id", "acme"),
            ("x-user-scopes", "stoa:read"),
            ("x-user-roles", "viewer"),
        ] {
            let told = allowed.header(&format!("{prefix}{name}"));
            ensure!(told == Some(value), "{format}: {name}: {:?}", allowed.headers);
        }
        // The order of the policies: each denies before the next is asked.
        let mut question = ann(&["other"]);
        let mut expect = |change: &dyn Fn(&mut Value), status: u16, reason: &str| -> Result<()> {
            change(&mut question);
            let reply = sidecar.ask(&question)?;
            ensure!(reply.status == status, "{format}: {question} got {}", reply.status);
            let text = reply.text();
            let says = if format == "StatusCode" { text.is_empty() } else { text.contains(reason) };
            ensure!(says, "{format}: {question}: {text}");
            Ok(())
        };
        expect(&|_| (), 403, "Insufficient scopes: requires one of [stoa:read]")?;
        expect(&|q| q["tenant_id"] = Value::Null, 403, "Missing tenant ID")?;
        expect(&|q| q["user"] = Value::Null, 401, "Missing user information")?;
        sidecar.stop()?;
    }
    Ok(())
}

#[test]
fn a_document_without_a_user_may_bring_a_token() -> Result<()> {
    let dir = stage::directory("sidecar-token")?;
    // As variables make it, without a file.
    let variables = [("STOA_JWT_SECRET", SECRET), ("STOA_JWT_ISSUER", "tests")];
    let sidecar = Sidecar::start(&dir, "", &variables)?;
    let bearer = format!("Bearer {}", token(&json!({"sub": "ann", "tenant": "acme"}))?);
    let mut question = json!({"method": "GET", "path": "/", "headers": {"authorization": bearer}});
    let reply = sidecar.ask(&question)?;
    ensure!(reply.status == 200 && reply.header("x-user-id") == Some("ann"), "{reply:?}");
    // The tenant that the gateway states is to be the token's.
    question["tenant_id"] = json!("other");
    ensure!(sidecar.ask(&question)?.status == 403, "two tenants at once");
    question["tenant_id"] = json!("acme");
    ensure!(sidecar.ask(&question)?.status == 200, "the same tenant twice");
    question["headers"]["authorization"] = json!("Bearer a.b.c");
    ensure!(sidecar.ask(&question)?.status == 401, "a forged token");
    sidecar.stop()
}

#[test]
fn what_is_no_question_is_refused() -> Result<()> {
    let dir = stage::directory("sidecar-malformed")?;
    let sidecar = Sidecar::start(&dir, &policies(), &[])?;
    let reply = sidecar.ask(&json!({"method": "GET", "path": "/", "tenantid": "acme"}))?;
    ensure!(reply.status == 400, "{reply:?}");
    ensure!(reply.header("content-type") == Some("application/problem+json"), "{reply:?}");
    let problem: Value = serde_json::from_slice(&reply.body)?;
    ensure!(problem["field"] == "tenantid", "{problem}");
    let mut connection = Connection::open(sidecar.address())?;
    let long = vec![b' '; (1 << 20) + 1];
    let reply = connection.exchange("POST", "/authz", &[], &long)?;
    ensure!(reply.status == 413, "a question without end got {}", reply.status);
    for (method, target, status) in [
        ("GET", "/authz", 405),
        ("POST", "/authz/nginx", 405),
        ("GET", "/authz/nginx", 400),
        ("GET", "/authz/forward", 400),
        ("GET", "/authz/forward/policyset=a", 400),
        ("GET", "/authz/", 404),
        ("GET", "/mcp", 404),
        ("POST", "/metrics", 405),
    ] {
        let headers = [("Connection", "close")];
        let reply = Connection::open(sidecar.address())?.exchange(method, target, &headers, b"")?;
        ensure!(reply.status == status, "{method} {target} got {}", reply.status);
    }
    let refused = r#"stoa_decision_questions_refused_total{reason="malformed"}"#;
    ensure!(sidecar.metric(refused)? == 4.0, "{}", sidecar.metric(refused)?);
    sidecar.stop()
}

#[test]
fn only_listed_addresses_may_ask() -> Result<()> {
    let dir = stage::directory("sidecar-untrusted")?;
    let variables = [("STOA_TRUSTED_CALLERS", "192.0.2.0/24")];
    let sidecar = Sidecar::start(&dir, &policies(), &variables)?;
    let reply = sidecar.ask(&ann(&["stoa:read"]))?;
    ensure!(reply.status == 403 && reply.text().contains("STOA_TRUSTED_CALLERS"), "{reply:?}");
    ensure!(get(sidecar.address(), "/health")?.status == 200, "health is for everyone");
    let refused = r#"stoa_decision_questions_refused_total{reason="untrusted"}"#;
    ensure!(sidecar.metric(refused)? == 1.0, "it is not counted");
    sidecar.stop()
}

#[test]
fn a_reload_that_fails_keeps_the_policies() -> Result<()> {
    let dir = stage::directory("sidecar-reload")?;
    let mut sidecar = Sidecar::start(&dir, &policies(), &[])?;
    let address = sidecar.address();
    let file = dir.join("sidecar.yaml");
    let is_current = |wanted: &str| {
        let text = get(address, "/metrics").map(|reply| reply.text()).unwrap_or_default();
        text.lines().any(|line| line == format!("stoa_configuration_current {wanted}"))
    };
    fs::write(&file, "policies: {default: {scopes: {any_of: []}}}")?;
    let patience = Duration::from_secs(15);
    wait_for(sidecar.process(), patience, &mut || is_current("0"))?;
    ensure!(sidecar.ask(&ann(&["stoa:read"]))?.status == 200, "the policies are gone");
    ensure!(sidecar.ask(&ann(&["other"]))?.status == 403, "the policies are gone");
    let ready: Value = serde_json::from_slice(&get(address, "/health/ready")?.body)?;
    let failure = ready["checks"]["configuration_failure"].as_str().context("no failure")?;
    ensure!(failure.contains("scopes"), "{failure}");

    fs::write(&file, policies().replace("stoa:read", "stoa:write"))?;
    sidecar.process().signal("HUP")?;
    wait_for(sidecar.process(), patience, &mut || is_current("1"))?;
    ensure!(sidecar.ask(&ann(&["stoa:read"]))?.status == 403, "the new policies are not used");
    ensure!(sidecar.ask(&ann(&["stoa:write"]))?.status == 200, "the new policies are not used");
    sidecar.stop()
}
