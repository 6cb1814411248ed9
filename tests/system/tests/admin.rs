//! The admin API of proxy and sidecar mode, asked by curl, with quotas that nodes share.

use std::{
    net::SocketAddr,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

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

/// As they do while one takes over from the other.
#[test]
fn two_proxies_with_one_state_directory_add_to_one_list() -> Result<()> {
    let dir = stage::directory("admin-shared")?;
    let upstream = Upstream::start()?;
    let start = |name: &str| Proxy::start(&dir, name, "", &[("STOA_ADMIN_API_TOKEN", TOKEN)]);
    let (one, two) = (start("one")?, start("two")?);
    let api = |id: &str| {
        json!({"id": id, "name": id, "path_prefix": format!("/{id}"),
               "backend_url": format!("http://{}", upstream.address)})
    };
    let serves = |proxy: &Proxy, path: &str| -> Result<()> {
        let deadline = Instant::now() + sandbox::patience(Duration::from_secs(10));
        while proxy.get(path)?.status != 200 {
            ensure!(Instant::now() < deadline, "{path} is not served");
            sandbox::pause(Duration::from_millis(50));
        }
        Ok(())
    };
    ensure!(post(one.metrics_address(), "apis", &api("orders"))?.0 == 201);
    ensure!(post(two.metrics_address(), "apis", &api("carts"))?.0 == 201);
    for (proxy, path) in [(&one, "/carts/1"), (&two, "/orders/1")] {
        serves(proxy, path)?;
    }
    // At once, from both.
    std::thread::scope(|scope| {
        let adding: Vec<_> = [("a", &one), ("b", &two)]
            .into_iter()
            .map(|(name, proxy)| {
                let (api, admin) = (&api, proxy.metrics_address());
                scope.spawn(move || -> Result<()> {
                    for n in 0..8 {
                        ensure!(post(admin, "apis", &api(&format!("{name}{n}")))?.0 == 201);
                    }
                    Ok(())
                })
            })
            .collect();
        adding.into_iter().try_for_each(|thread| thread.join().expect("it panics not"))
    })?;
    serves(&one, "/b7/1")?;
    serves(&two, "/a7/1")?;
    let (_, listed) = curl(one.metrics_address(), &[], "apis")?;
    ensure!(listed.as_array().is_some_and(|apis| apis.len() == 18), "{listed}");
    ensure!(curl(two.metrics_address(), &["--request", "DELETE"], "apis/orders")?.0 == 204);
    one.kill()?;
    two.kill()?;
    // What was kept is what both have made.
    let again = start("again")?;
    ensure!((again.get("/orders/1")?.status, again.get("/b0/1")?.status) == (404, 200));
    again.stop()
}

/// A new agent runs beside the one that drains, in one directory.
#[test]
fn who_takes_over_steering_has_what_was_added_before() -> Result<()> {
    let dir = stage::directory("admin-handover")?;
    let upstream = Upstream::start()?;
    let socket = dir.join("redirect.sock");
    let socket = socket.to_str().context("no text")?;
    let variables = [("STOA_ADMIN_API_TOKEN", TOKEN), ("STOA_REDIRECT_SOCKET", socket)];
    let api = |id: &str| {
        json!({"id": id, "name": id, "path_prefix": format!("/{id}"),
               "backend_url": format!("http://{}", upstream.address)})
    };
    let mut old = Proxy::start(&dir, "old", "", &variables)?;
    ensure!(post(old.metrics_address(), "apis", &api("orders"))?.0 == 201);
    let new = Proxy::start(&dir, "new", "", &variables)?;
    ensure!(new.get("/orders/1")?.status == 200);
    // It ends because the other has taken over.
    let status = old.process().wait(Duration::from_secs(20))?;
    ensure!(status.success(), "{}", old.process().stderr());
    ensure!(post(new.metrics_address(), "apis", &api("carts"))?.0 == 201);
    ensure!((new.get("/orders/1")?.status, new.get("/carts/1")?.status) == (200, 200));
    new.stop()
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
