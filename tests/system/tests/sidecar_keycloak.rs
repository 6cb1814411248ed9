//! Tokens of a real Keycloak, before, while and after it changes its keys.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use sandbox::pause;
use serde_json::{Value, json};
use system_tests::{
    decisions::Sidecar,
    keycloak::{Keycloak, REALM},
    stage,
};

fn decide(sidecar: &Sidecar, token: &str) -> Result<(u16, Value)> {
    let reply = sidecar.ask(&json!({
        "method": "GET", "path": "/orders",
        "headers": {"authorization": format!("Bearer {token}")},
    }))?;
    Ok((reply.status, serde_json::from_slice(&reply.body).context("not a decision")?))
}

#[test]
fn tokens_of_keycloak_are_verified_through_a_change_of_keys() -> Result<()> {
    let dir = stage::directory("sidecar-keycloak")?;
    let mut keycloak = Keycloak::start(&dir)?;
    let url = keycloak.url();
    let variables = [
        ("STOA_KEYCLOAK_URL", url.as_str()),
        ("STOA_KEYCLOAK_REALM", REALM),
        ("STOA_JWT_AUDIENCE", "orders"),
        ("STOA_DECISION_FORMAT", "JsonBody"),
    ];
    let sidecar = Sidecar::start(&dir, "", &variables)?;
    let old = keycloak.token()?;
    let (status, decision) = decide(&sidecar, &old)?;
    ensure!(status == 200, "{decision}");
    let added = &decision["headers_to_add"];
    ensure!(added["x-tenant-id"] == "acme", "{decision}");
    ensure!(
        added["x-user-scopes"].as_str().is_some_and(|scopes| scopes.contains("stoa:read")),
        "{decision}"
    );

    // Of the same Keycloak, but not of this realm; of this realm, but cut or changed.
    let mut changed = old.clone();
    let last = changed.pop().context("empty")?;
    changed.push(if last == 'A' { 'B' } else { 'A' });
    // The last character carries unused bits: change one in the middle of the signature as well.
    let middle = changed.len() - 20;
    let letter = if changed[middle..].starts_with('x') { "y" } else { "x" };
    changed.replace_range(middle..=middle, letter);
    for forged in
        [changed, old.rsplit_once('.').map(|(head, _)| format!("{head}.")).unwrap_or_default()]
    {
        let (status, decision) = decide(&sidecar, &forged)?;
        ensure!(status == 401, "a forged token passed: {decision}");
    }

    // The realm signs with a new key: unknown until it is fetched, which its first token causes.
    keycloak.add_key("rotated", 200)?;
    let new = keycloak.token()?;
    // Keys are fetched at most once in five seconds, whoever asks.
    let deadline = Instant::now() + Duration::from_secs(15);
    while decide(&sidecar, &new)?.0 != 200 {
        ensure!(Instant::now() < deadline, "the new key is not believed after 15 s");
        pause(Duration::from_millis(200));
    }
    ensure!(decide(&sidecar, &old)?.0 == 200, "the old key is published still");

    // Without Keycloak, the keys at hand go on to count.
    keycloak.process().signal("KILL")?;
    keycloak.process().wait(Duration::from_secs(10))?;
    ensure!(decide(&sidecar, &new)?.0 == 200, "keys at hand are not used");
    sidecar.stop()
}
