//! Proxy and sidecar mode with what their policies ask: a real Redis and a real OPA that are lost
//! and come back, quotas on disk, and a real upstream that fails.

use std::{fs, path::Path, time::Duration};

use anyhow::{Result, ensure};
use serde_json::json;
use system_tests::{
    decisions::{Sidecar, Upstream, token, wait_for},
    proxy::{Proxy, Server, metric_at},
    stage,
};

fn before(upstream: &Upstream) -> String {
    format!("upstream: http://{}\n", upstream.address)
}

/// Five requests an hour, so that no time on a busy machine makes room.
const LIMIT: [(&str, &str); 3] = [
    ("STOA_RATE_LIMIT_DEFAULT", "5"),
    ("STOA_RATE_LIMIT_WINDOW_SECONDS", "3600"),
    // Wide, for a machine that runs other tests too.
    ("STOA_REDIS_TIMEOUT_MS", "2000"),
];

#[test]
fn proxies_share_a_limit_while_redis_answers_and_each_has_its_own_meanwhile() -> Result<()> {
    let dir = stage::directory("enforcement-redis-open")?;
    let (upstream, mut redis) = (Upstream::start()?, Server::redis(&dir)?);
    let url = format!("redis://{}/3", redis.address);
    let variables = [&LIMIT[..], &[("STOA_REDIS_URL", &url)]].concat();
    let start = |name: &str| Proxy::start(&dir, name, &before(&upstream), &variables);
    let (one, two) = (start("one")?, start("two")?);
    let state = "/components/redis/state";
    one.wait_for_health(state, "answering")?;
    two.wait_for_health(state, "answering")?;
    ensure!((one.count_passed(3)?, two.count_passed(5)?) == (3, 2), "they do not share");
    ensure!(one.get("/")?.status == 429, "one does not see what two has taken");

    redis.kill()?;
    // Each for itself: nobody has counted anything here yet.
    ensure!((one.count_passed(7)?, two.count_passed(7)?) == (5, 5), "not five for each");
    one.wait_for_health(state, "lost")?;
    ensure!(one.health("/status")? == "ready", "a lost Redis makes nobody unready");
    ensure!(one.metric("stoa_redis_up")? == 0.0);
    ensure!(one.metric("stoa_redis_losses_total")? == 1.0);
    ensure!(one.metric("stoa_redis_unanswered_total")? == 7.0);

    redis.start_again()?;
    one.wait_for_health(state, "answering")?;
    two.wait_for_health(state, "answering")?;
    // It has forgotten, and counts for both again.
    let passed = (one.count_passed(4)?, two.count_passed(4)?);
    ensure!(passed == (4, 1), "after Redis came back: {passed:?}");
    ensure!(one.metric("stoa_redis_up")? == 1.0);
    one.stop()?;
    two.stop()
}

#[test]
fn a_lost_redis_refuses_what_is_limited_where_that_is_asked_for() -> Result<()> {
    let dir = stage::directory("enforcement-redis-closed")?;
    let (upstream, mut redis) = (Upstream::start()?, Server::redis(&dir)?);
    let url = format!("redis://{}", redis.address);
    let closed = [("STOA_REDIS_URL", url.as_str()), ("STOA_REDIS_FAIL_MODE", "closed")];
    let variables = [&LIMIT[..], &closed].concat();
    let config = format!(
        "upstreams: {{u: {{url: 'http://{}'}}}}\nroutes:\n- {{upstream: u, matches: [{{path: \
         {{prefix: /free}}}}], policies: free}}\n- {{upstream: u}}\npolicies: {{free: {{}}}}\n",
        upstream.address
    );
    let proxy = Proxy::start(&dir, "proxy", &config, &variables)?;
    proxy.wait_for_health("/components/redis/state", "answering")?;
    ensure!(proxy.health("/components/redis/on_loss")? == "closed");
    ensure!(proxy.get("/")?.status == 200);
    redis.kill()?;
    let seen = upstream.seen();
    for _ in 0..3 {
        let refused = proxy.get("/")?;
        ensure!(refused.status == 503, "it got {}", refused.status);
        ensure!(refused.text().contains("limits_unavailable"), "{}", refused.text());
        ensure!(refused.header("retry-after") == Some("1"), "{:?}", refused.headers);
    }
    ensure!(upstream.seen() == seen, "a request went through uncounted");
    ensure!(proxy.get("/free")?.status == 200, "what has no limits needs no Redis");
    redis.start_again()?;
    proxy.wait_for_health("/components/redis/state", "answering")?;
    ensure!(proxy.count_passed(7)? == 5, "it does not heal");
    proxy.stop()
}

#[test]
fn quotas_survive_a_kill_and_a_stop() -> Result<()> {
    let dir = stage::directory("enforcement-quotas")?;
    let upstream = Upstream::start()?;
    let variables = [
        ("STOA_QUOTA_ENFORCEMENT_ENABLED", "true"),
        ("STOA_QUOTA_DEFAULT_DAILY_LIMIT", "6"),
        ("STOA_QUOTA_DEFAULT_RATE_PER_MINUTE", "0"),
    ];
    let start = |name: &str| Proxy::start(&dir, name, &before(&upstream), &variables);
    let mut one = start("one")?;
    ensure!(one.count_passed(1)? == 1);
    ensure!(one.health("/components/quotas/state")? == "kept");
    // Each count is on the disk within about a second.
    let is_written = |one: &mut Proxy, before: f64| {
        let metrics = one.metrics_address();
        wait_for(one.process(), Duration::from_secs(20), &mut || {
            metric_at(metrics, "stoa_quota_store_writes_total").is_ok_and(|now| now > before)
        })
    };
    is_written(&mut one, 0.0)?;
    let before_second = one.metric("stoa_quota_store_writes_total")?;
    ensure!(one.count_passed(1)? == 1);
    is_written(&mut one, before_second)?;
    one.kill()?;
    let two = start("two")?;
    ensure!(two.count_passed(2)? == 2);
    two.stop()?;
    let three = start("three")?;
    let passed = three.count_passed(5)?;
    ensure!(passed == 2, "{passed} of 6 were left, 4 were used before");
    let refused = three.get("/")?;
    ensure!(refused.status == 429 && refused.text().contains("day"), "{}", refused.text());
    let wait: u64 = refused.header("retry-after").unwrap_or("0").parse()?;
    ensure!((1..=86_400).contains(&wait), "Retry-After: {wait}");
    three.stop()
}

const POLICY: &str = r#"package acme.http
import rego.v1
default allow := false
allow if input.request.method == "GET"
allow if "writer" in input.roles
denial_reason := "only writers write" if not allow
"#;

fn opa(dir: &Path) -> Result<Server> {
    fs::write(dir.join("policy.rego"), POLICY)?;
    Server::opa(dir)
}

#[test]
fn a_real_opa_decides_for_the_proxy() -> Result<()> {
    let dir = stage::directory("enforcement-opa-proxy")?;
    let (upstream, mut opa) = (Upstream::start()?, opa(&dir)?);
    let url = format!("http://{}", opa.address);
    let variables = [
        ("STOA_OPA_ENDPOINT", url.as_str()),
        ("STOA_POLICY_QUERY", "data.acme.http.allow"),
        // Wide, for a machine that runs other tests too.
        ("STOA_OPA_TIMEOUT_MS", "5000"),
    ];
    let closed = Proxy::start(&dir, "closed", &before(&upstream), &variables)?;
    let open = [&variables[..], &[("STOA_OPA_FAIL_MODE", "open")]].concat();
    let open = Proxy::start(&dir, "open", &before(&upstream), &open)?;
    for proxy in [&closed, &open] {
        ensure!(proxy.get("/a")?.status == 200);
        let refused = proxy.ask("DELETE", "/a", &[])?;
        ensure!(refused.status == 403, "{}: {}", refused.status, refused.text());
        ensure!(refused.text().contains("only writers write"), "{}", refused.text());
    }
    let seen = upstream.seen();
    opa.kill()?;
    let refused = closed.get("/a")?;
    ensure!(refused.status == 503, "without OPA it got {}", refused.status);
    ensure!(upstream.seen() == seen, "undecided, it reached the upstream");
    ensure!(open.ask("DELETE", "/a", &[])?.status == 200, "open, it is not let pass");
    let noted = r#"stoa_policy_notes_total{policy="rego",code="opa_unavailable"}"#;
    ensure!(open.metric(noted)? == 1.0);
    ensure!(closed.health("/components/opa/state")? == "failing");
    ensure!(closed.metric("stoa_opa_up")? == 0.0);
    ensure!(closed.metric("stoa_opa_failures_total")? == 1.0);
    opa.start_again()?;
    ensure!(closed.get("/a")?.status == 200, "it does not heal");
    ensure!(closed.health("/components/opa/state")? == "answering");
    ensure!(open.ask("DELETE", "/a", &[])?.status == 403, "it does not heal");
    let series = r#"stoa_policy_denials_total{policy="rego",code="policy_denied"}"#;
    ensure!(closed.metric(series)? == 1.0);
    ensure!(closed.metric(r#"stoa_policy_duration_seconds_count{policy="rego"}"#)? == 4.0);
    closed.stop()?;
    open.stop()
}

#[test]
fn a_real_opa_decides_for_the_sidecar() -> Result<()> {
    let dir = stage::directory("enforcement-opa-sidecar")?;
    let mut opa = opa(&dir)?;
    let url = format!("http://{}", opa.address);
    let variables = [
        ("STOA_OPA_ENDPOINT", url.as_str()),
        ("STOA_POLICY_QUERY", "data.acme.http.allow"),
        ("STOA_OPA_TIMEOUT_MS", "5000"),
        ("STOA_DECISION_FORMAT", "JsonBody"),
    ];
    let sidecar = Sidecar::start(&dir, "", &variables)?;
    let question = |method: &str, role: &str| {
        json!({"method": method, "path": "/", "tenant_id": "acme",
               "user": {"id": "ann", "roles": [role]}})
    };
    for (method, role, status) in
        [("GET", "reader", 200), ("PUT", "reader", 403), ("PUT", "writer", 200)]
    {
        let reply = sidecar.ask(&question(method, role))?;
        ensure!(reply.status == status, "{method} {role}: {} {}", reply.status, reply.text());
    }
    opa.kill()?;
    ensure!(sidecar.ask(&question("GET", "reader"))?.status == 503);
    ensure!(sidecar.metric("stoa_opa_failures_total")? == 1.0);
    opa.start_again()?;
    ensure!(sidecar.ask(&question("GET", "reader"))?.status == 200, "it does not heal");
    sidecar.stop()
}

#[test]
fn a_sidecar_counts_its_consumers_in_redis() -> Result<()> {
    let dir = stage::directory("enforcement-redis-sidecar")?;
    let redis = Server::redis(&dir)?;
    let url = format!("redis://{}", redis.address);
    let variables = [
        ("STOA_REDIS_URL", url.as_str()),
        ("STOA_REDIS_TIMEOUT_MS", "2000"),
        ("STOA_QUOTA_ENFORCEMENT_ENABLED", "true"),
        ("STOA_QUOTA_DEFAULT_RATE_PER_MINUTE", "0"),
        ("STOA_QUOTA_DEFAULT_DAILY_LIMIT", "2"),
    ];
    let mut sidecar = Sidecar::start(&dir, "", &variables)?;
    let address = sidecar.address();
    wait_for(sidecar.process(), Duration::from_secs(20), &mut || {
        let ready = sandbox::http::get(address, "/health/ready").map(|reply| reply.text());
        ready.is_ok_and(|text| text.contains(r#""state":"answering""#))
    })?;
    let ask = |user: &str| -> Result<u16> {
        let user = json!({"id": user});
        let question = json!({"method": "GET", "path": "/", "tenant_id": "acme", "user": user});
        Ok(sidecar.ask(&question)?.status)
    };
    ensure!([ask("ann")?, ask("ann")?, ask("ann")?, ask("bob")?] == [200, 200, 429, 200]);
    ensure!(sidecar.metric("stoa_redis_unanswered_total")? == 0.0, "it was not Redis");
    ensure!(!dir.join("state").exists(), "what Redis keeps needs no directory");
    sidecar.stop()
}

#[test]
fn a_breaker_leaves_a_dead_upstream_alone_and_lets_it_back() -> Result<()> {
    let dir = stage::directory("enforcement-breaker")?;
    let mut nginx = Server::nginx(&dir)?;
    let config = format!("upstream: http://{}\n", nginx.address);
    let variables = [
        ("STOA_CB_FAILURE_THRESHOLD", "3"),
        ("STOA_CB_RESET_TIMEOUT_SECS", "5"),
        ("STOA_CB_SUCCESS_THRESHOLD", "2"),
    ];
    let proxy = Proxy::start(&dir, "proxy", &config, &variables)?;
    let state = r#"stoa_circuit_breaker_state{upstream="--upstream"}"#;
    for _ in 0..5 {
        ensure!(proxy.get("/")?.status == 200);
    }
    ensure!(proxy.metric(state)? == 0.0);
    // Failures that it answers count as well.
    for _ in 0..2 {
        ensure!(proxy.get("/broken")?.status == 500);
    }
    nginx.kill()?;
    let refused = proxy.get("/")?;
    ensure!(refused.text().contains("upstream_unreachable"), "{}", refused.text());
    let open = proxy.get("/")?;
    ensure!(open.status == 503 && open.text().contains("circuit_open"), "{}", open.text());
    let wait: u64 = open.header("retry-after").unwrap_or("0").parse()?;
    ensure!((1..=5).contains(&wait), "Retry-After: {wait}");
    ensure!(proxy.metric(state)? == 1.0);
    ensure!(proxy.health("/components/circuit_breakers/open")? == json!(["--upstream"]));
    let rejected = r#"stoa_circuit_breaker_rejected_total{upstream="--upstream"}"#;
    ensure!(proxy.metric(rejected)? >= 1.0);

    nginx.start_again()?;
    let mut proxy = proxy;
    let address = proxy.address;
    wait_for(proxy.process(), Duration::from_secs(20), &mut || {
        sandbox::http::get(address, "/").is_ok_and(|reply| reply.status == 200)
    })?;
    ensure!(proxy.count_passed(20)? == 20, "it has not healed");
    ensure!(proxy.metric(state)? == 0.0);
    ensure!(proxy.health("/components/circuit_breakers/open")? == json!([]));
    proxy.stop()
}

#[test]
fn limits_are_of_the_consumers_plan() -> Result<()> {
    let dir = stage::directory("enforcement-plans")?;
    let upstream = Upstream::start()?;
    let config = format!("plans: {{Tiny: {{requests_per_day: 1}}}}\n{}", before(&upstream));
    let variables = [
        ("STOA_QUOTA_ENFORCEMENT_ENABLED", "true"),
        ("STOA_QUOTA_DEFAULT_DAILY_LIMIT", "3"),
        ("STOA_JWT_SECRET", system_tests::decisions::SECRET),
        ("STOA_JWT_ISSUER", "tests"),
    ];
    let proxy = Proxy::start(&dir, "proxy", &config, &variables)?;
    for (user, plan, passes) in [("ann", Some("tiny"), 1), ("bob", None, 3), ("eve", Some("x"), 3)]
    {
        let mut claims = json!({"sub": user, "tenant": "acme"});
        if let Some(plan) = plan {
            claims["plan"] = json!(plan);
        }
        let bearer = format!("Bearer {}", token(&claims)?);
        let mut passed = 0;
        for _ in 0..5 {
            let reply = proxy.ask("GET", "/", &[("Authorization", &bearer)])?;
            passed += usize::from(reply.status == 200);
            ensure!(matches!(reply.status, 200 | 429), "{}: {}", reply.status, reply.text());
        }
        ensure!(passed == passes, "{user}: {passed} of 5 passed");
    }
    proxy.stop()
}
