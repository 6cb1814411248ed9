//! Tokens of a real Keycloak: of services and of users, for us and for others, before, while and
//! after it changes its keys.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use sandbox::pause;
use serde_json::{Value, json};
use system_tests::{
    decisions::Sidecar,
    keycloak::{BILLING, Keycloak, ORDERS, REALM, USER},
    stage,
};

fn decide(sidecar: &Sidecar, token: &str) -> Result<(u16, Value)> {
    let reply = sidecar.ask(&json!({
        "method": "GET", "path": "/orders",
        "headers": {"authorization": format!("Bearer {token}")},
    }))?;
    Ok((reply.status, serde_json::from_slice(&reply.body).context("not a decision")?))
}

fn assert_refused(sidecar: &Sidecar, token: &str, what: &str) -> Result<()> {
    let (status, decision) = decide(sidecar, token)?;
    ensure!(status == 401, "{what} got {status}: {decision}");
    Ok(())
}

/// With another letter in the middle of its signature, and with none at all.
fn forgeries(token: &str) -> Result<[String; 2]> {
    let (signed, signature) = token.rsplit_once('.').context("not a token")?;
    let middle = signature.len() / 2;
    let letter = if signature[middle..].starts_with('x') { "y" } else { "x" };
    let mut changed = signature.to_owned();
    changed.replace_range(middle..=middle, letter);
    Ok([format!("{signed}.{changed}"), format!("{signed}.")])
}

#[test]
fn tokens_of_keycloak_are_verified_through_a_change_of_keys() -> Result<()> {
    let dir = stage::directory("sidecar-keycloak")?;
    let mut keycloak = Keycloak::start(&dir)?;
    let url = keycloak.url();
    // No leeway, so that a token of one second's life is seen to expire.
    let config = format!(
        "policies:\n  default:\n    identity: {{methods: [{{jwt: {{keycloak: {{url: '{url}', realm: \
         {REALM}}}, audience: orders, leeway: 0s}}}}]}}\n    tenant: {{}}\n    scopes: {{any_of: \
         [stoa:read]}}\n"
    );
    let sidecar = Sidecar::start(&dir, &config, &[("STOA_DECISION_FORMAT", "JsonBody")])?;
    let old = keycloak.service_token(ORDERS)?;
    let (status, decision) = decide(&sidecar, &old)?;
    ensure!(status == 200, "{decision}");
    let added = &decision["headers_to_add"];
    ensure!(added["x-tenant-id"] == "acme", "{decision}");
    ensure!(
        added["x-user-scopes"].as_str().is_some_and(|scopes| scopes.contains("stoa:read")),
        "{decision}"
    );
    let (status, decision) = decide(&sidecar, &keycloak.user_token(ORDERS)?)?;
    ensure!(status == 200, "the user {USER}: {decision}");

    // The realm says itself where its keys are, to whoever knows its name only.
    let place = dir.join("discovery");
    std::fs::create_dir_all(&place)?;
    let issuer = format!("{url}/realms/{REALM}");
    let variables = [
        ("STOA_JWT_ISSUER", issuer.as_str()),
        ("STOA_JWT_AUDIENCE", "orders"),
        ("STOA_DECISION_FORMAT", "JsonBody"),
    ];
    let discovering = Sidecar::start(&place, "", &variables)?;
    let (status, decision) = decide(&discovering, &old)?;
    ensure!(status == 200, "by discovery: {decision}");
    for forged in forgeries(&old)? {
        assert_refused(&discovering, &forged, "a forged token, by discovery")?;
    }
    discovering.stop()?;

    for forged in forgeries(&old)? {
        assert_refused(&sidecar, &forged, "a forged token")?;
    }
    assert_refused(&sidecar, &keycloak.service_token(BILLING)?, "a token for another audience")?;
    assert_refused(&sidecar, &keycloak.token_of_another_realm()?, "a token of another issuer")?;
    keycloak.set_token_life(1)?;
    let short = keycloak.service_token(ORDERS)?;
    keycloak.set_token_life(600)?;
    // `exp` is in whole seconds; a token that was believed is not believed for longer than that.
    let deadline = Instant::now() + Duration::from_secs(10);
    while decide(&sidecar, &short)?.0 == 200 {
        ensure!(Instant::now() < deadline, "a token of one second lives for ten");
        pause(Duration::from_millis(100));
    }
    assert_refused(&sidecar, &short, "an expired token")?;

    // The realm signs with a new key: unknown until it is fetched, which its first token causes.
    keycloak.add_key("rotated", 200)?;
    let new = keycloak.service_token(ORDERS)?;
    ensure!(
        old.split('.').next() != new.split('.').next(),
        "Keycloak still signs with its old key"
    );
    // Keys are fetched at most once in five seconds, whoever asks.
    let deadline = Instant::now() + Duration::from_secs(30);
    while decide(&sidecar, &new)?.0 != 200 {
        ensure!(Instant::now() < deadline, "the new key is not believed after 30 s");
        pause(Duration::from_millis(200));
    }
    ensure!(decide(&sidecar, &old)?.0 == 200, "the old key is published still");

    // Without Keycloak, the keys at hand go on to count.
    keycloak.stop()?;
    ensure!(decide(&sidecar, &new)?.0 == 200, "keys at hand are not used");
    sidecar.stop()
}
