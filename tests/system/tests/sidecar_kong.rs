//! Kong's two ways: the handler of `charts/kong`, and the protocol of Kong's OPA plugin. Kong itself
//! cannot be had here.

use std::{path::Path, process::Command};

use anyhow::{Result, ensure};
use sandbox::{command, http::Connection};
use serde_json::{Value, json};
use system_tests::{
    decisions::{Sidecar, policies, token},
    stage,
};

struct Client<'a> {
    authorization: &'a str,
    user: &'a str,
    scope: &'a str,
}

fn run_handler(url: &str, client: &Client<'_>) -> Result<Value> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut lua = Command::new("luajit");
    lua.arg(here.join("kong_handler.lua")).arg(here.join("../../charts/kong")).arg(url);
    lua.args([client.authorization, client.user, client.scope]);
    Ok(serde_json::from_str(&command::run(&mut lua)?)?)
}

#[test]
fn the_handler_keeps_to_the_decision() -> Result<()> {
    let dir = stage::directory("sidecar-kong-handler")?;
    let variables = [("STOA_DECISION_FORMAT", "KongPlugin"), ("STOA_UPSTREAM_TYPE", "kong")];
    let sidecar = Sidecar::start(&dir, &policies(), &variables)?;
    let url = format!("http://{}/authz", sidecar.address());
    let nobody = Client { authorization: "", user: "", scope: "" };

    let consumer = Client { user: "ann", scope: "stoa:read stoa:x", ..nobody };
    let done = run_handler(&url, &consumer)?;
    ensure!(done["exit"].is_null(), "{done}");
    ensure!(done["set"]["x-authenticated-userid"] == "ann", "{done}");
    ensure!(done["set"]["x-authenticated-scope"] == "stoa:read,stoa:x", "{done}");
    let cleared = done["cleared"].as_array().cloned().unwrap_or_default();
    ensure!(cleared.contains(&json!("x-consumer-groups")), "{done}");

    let bearer = token(&json!({"sub": "bob", "tenant": "acme", "scope": "stoa:read"}))?;
    let bearer = format!("Bearer {bearer}");
    let done = run_handler(&url, &Client { authorization: &bearer, ..nobody })?;
    ensure!(done["set"]["x-authenticated-userid"] == "bob", "{done}");

    let done = run_handler(&url, &nobody)?;
    ensure!(done["exit"] == 401, "{done}");
    ensure!(done["body"]["message"] == "Missing user information", "{done}");
    ensure!(done["told"]["WWW-Authenticate"].is_string(), "{done}");
    let done = run_handler(&url, &Client { user: "ann", scope: "other", ..nobody })?;
    ensure!(done["exit"] == 403, "{done}");

    // Neither another answer nor none lets anything through.
    for url in [format!("http://{}/health", sidecar.address()), "http://127.0.0.1:1/".to_owned()] {
        let done = run_handler(&url, &consumer)?;
        ensure!(done["exit"].as_u64().is_some_and(|status| status >= 400), "{url}: {done}");
    }
    sidecar.stop()
}

#[test]
fn kongs_opa_plugin_is_answered() -> Result<()> {
    let dir = stage::directory("sidecar-kong-opa")?;
    let sidecar = Sidecar::start(&dir, &policies(), &[])?;
    let ask = |target: &str, authorization: &str| -> Result<Value> {
        let input = json!({"input": {"request": {"http": {
            "host": "shop.example", "port": "8000", "method": "GET", "scheme": "http",
            "path": "/orders", "querystring": {"page": "2"}, "tls": {},
            "headers": {"authorization": authorization}}}, "client_ip": "192.0.2.7"}});
        let headers = [("Content-Type", "application/json"), ("Connection", "close")];
        let mut connection = Connection::open(sidecar.address())?;
        let reply = connection.exchange("POST", target, &headers, input.to_string().as_bytes())?;
        ensure!(reply.status == 200, "OPA answers 200, not {}: {}", reply.status, reply.text());
        Ok(serde_json::from_slice(&reply.body)?)
    };
    let bearer = token(&json!({"sub": "ann", "tenant": "acme", "scope": "stoa:read"}))?;
    let bearer = format!("Bearer {bearer}");
    let answer = ask("/authz/kong", &bearer)?;
    ensure!(answer["result"]["allow"] == true, "{answer}");
    ensure!(answer["result"]["headers"]["x-user-id"] == "ann", "{answer}");
    ensure!(ask("/v1/data/stoa/authz", &bearer)?["result"]["allow"] == true, "OPA's own path");
    let answer = ask("/authz/kong/policy_set=admin", &bearer)?;
    ensure!(answer["result"]["allow"] == false && answer["result"]["status"] == 403, "{answer}");
    let answer = ask("/authz/kong", "Bearer a.b.c")?;
    ensure!(answer["result"]["allow"] == false && answer["result"]["status"] == 401, "{answer}");
    sidecar.stop()
}
