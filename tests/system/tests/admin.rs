//! The admin API of proxy and sidecar mode, asked by curl, with quotas that nodes share.

use std::{net::SocketAddr, path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use system_tests::{
    decisions::{Sidecar, Upstream, token},
    proxy::{Proxy, Server},
    stage,
};

const TOKEN: &str = "a-token-of-the-tests-0123456789";

/// Status and body, as curl saw them.
fn curl(address: SocketAddr, arguments: &[&str], path: &str) -> Result<(u16, Value)> {
    let output = Command::new("curl")
        .args(["--silent", "--show-error", "--path-as-is", "--max-time", "20"])
        .args(["--write-out", "\n%{http_code}", "--header"])
        .arg(format!("Authorization: Bearer {TOKEN}"))
        .args(arguments)
        .arg(format!("http://{address}/admin/{path}"))
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (body, status) = text.rsplit_once('\n').context("curl says nothing")?;
    let body = if body.trim().is_empty() { Value::Null } else { serde_json::from_str(body)? };
    Ok((status.parse()?, body))
}

fn set(json: &Value) -> Vec<String> {
    vec![
        "--header".into(),
        "Content-Type: application/json".into(),
        "--data".into(),
        json.to_string(),
    ]
}

fn post(address: SocketAddr, path: &str, body: &Value) -> Result<(u16, Value)> {
    let arguments = set(body);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    curl(address, &arguments, path)
}

#[test]
fn an_api_is_put_limited_and_taken_away_while_requests_go_on() -> Result<()> {
    let dir = stage::directory("admin-proxy")?;
    let upstream = Upstream::start()?;
    let proxy = Proxy::start(&dir, "proxy", "", &[("STOA_ADMIN_API_TOKEN", TOKEN)])?;
    let admin = proxy.metrics_address();
    let (status, health) = curl(admin, &[], "health")?;
    ensure!((status, &health["status"]) == (200, &json!("ok")), "{status} {health}");
    let api = json!({"id": "orders", "name": "orders", "tenant_id": "acme", "path_prefix": "/orders",
                     "backend_url": format!("http://{}", upstream.address), "methods": ["GET"]});
    ensure!(post(admin, "apis", &api)?.0 == 201);
    ensure!(proxy.get("/orders/1")?.status == 200);
    let policy = json!({"id": "limit", "name": "limit", "policy_type": "rate_limit",
                        "config": {"limit": 3, "window_secs": 3600}, "api_id": "orders"});
    ensure!(post(admin, "policies", &policy)?.0 == 201);
    let mut passed = 0;
    for _ in 0..5 {
        passed += usize::from(proxy.get("/orders/1")?.status == 200);
    }
    ensure!(passed == 3, "{passed} of 3");
    ensure!(curl(admin, &["--request", "DELETE"], "policies/limit")?.0 == 204);
    ensure!(proxy.get("/orders/1")?.status == 200);
    ensure!(curl(admin, &["--request", "DELETE"], "apis/orders")?.0 == 204);
    ensure!(proxy.get("/orders/1")?.status == 404);
    // A port for clients is none for administrators.
    let (status, _) = curl(proxy.address, &[], "health")?;
    ensure!(status == 404, "{status}");
    proxy.stop()
}

fn members(dir: &Path, address: SocketAddr) -> Result<Sidecar> {
    std::fs::create_dir_all(dir)?;
    let url = format!("redis://{address}");
    let variables = [
        ("STOA_ADMIN_API_TOKEN", TOKEN),
        ("STOA_REDIS_URL", &url),
        ("STOA_REDIS_TIMEOUT_MS", "2000"),
        ("STOA_JWT_SECRET", system_tests::decisions::SECRET),
        ("STOA_JWT_ISSUER", "tests"),
        ("STOA_QUOTA_ENFORCEMENT_ENABLED", "true"),
        ("STOA_QUOTA_DEFAULT_RATE_PER_MINUTE", "0"),
        ("STOA_QUOTA_DEFAULT_DAILY_LIMIT", "4"),
    ];
    Sidecar::start(dir, "", &variables)
}

#[test]
fn quotas_of_all_nodes_are_seen_and_reset_from_one() -> Result<()> {
    let dir = stage::directory("admin-quotas")?;
    let redis = Server::redis(&dir)?;
    let (one, two) =
        (members(&dir.join("one"), redis.address)?, members(&dir.join("two"), redis.address)?);
    for sidecar in [&one, &two] {
        let is_there = || -> Result<bool> {
            Ok(sandbox::http::get(sidecar.address(), "/health/ready")?.text().contains("answering"))
        };
        while !is_there()? {
            sandbox::pause(std::time::Duration::from_millis(20));
        }
    }
    let bearer =
        format!("Bearer {}", token(&json!({"sub": "ann", "azp": "shop", "tenant": "acme"}))?);
    let ask = |sidecar: &Sidecar| -> Result<u16> {
        let question = json!({"method": "GET", "path": "/", "headers": {"authorization": bearer}});
        Ok(sidecar.ask(&question)?.status)
    };
    for _ in 0..2 {
        ensure!((ask(&one)?, ask(&two)?) == (200, 200));
    }
    ensure!((ask(&one)?, ask(&two)?) == (429, 429), "four a day");
    let (status, quota) = curl(one.address(), &[], "quotas/shop")?;
    ensure!(status == 200, "{status} {quota}");
    ensure!((&quota["daily_count"], &quota["daily_limit"]) == (&json!(4), &json!(4)), "{quota}");
    let (status, said) = curl(one.address(), &["--request", "POST"], "quotas/shop/reset")?;
    ensure!(status == 200, "{status} {said}");
    ensure!(ask(&two)? == 200, "the other node does not know");
    let (_, all) = curl(two.address(), &[], "quotas")?;
    ensure!(all[0]["daily_count"] == 1, "{all}");
    // What it has is routes' business, and it has none.
    ensure!(curl(one.address(), &[], "apis")?.0 == 404);
    one.stop()?;
    two.stop()
}
