//! A real Redis and a real OPA over TLS, with an authority of ours and without.

use std::fs;

use anyhow::{Result, ensure};
use system_tests::{
    decisions::Upstream,
    proxy::{Proxy, Server, write_certificates},
    stage,
};

fn before(upstream: &Upstream) -> String {
    format!("upstream: http://{}\n", upstream.address)
}

#[test]
fn limits_are_shared_through_a_redis_over_tls() -> Result<()> {
    let dir = stage::directory("enforcement-redis-tls")?;
    write_certificates(&dir)?;
    let (upstream, redis) = (Upstream::start()?, Server::redis_over_tls(&dir)?);
    let url = format!("rediss://:hidden@{}/0", redis.address);
    let authority = dir.join("ca.pem").display().to_string();
    let base = [
        ("STOA_RATE_LIMIT_DEFAULT", "5"),
        ("STOA_RATE_LIMIT_WINDOW_SECONDS", "3600"),
        ("STOA_REDIS_TIMEOUT_MS", "2000"),
        ("STOA_REDIS_URL", &url),
    ];
    let trusting = [&base[..], &[("STOA_CA_FILE", authority.as_str())]].concat();
    let start = |name: &str| Proxy::start(&dir, name, &before(&upstream), &trusting);
    let (one, two) = (start("one")?, start("two")?);
    let state = "/components/redis/state";
    one.wait_for_health(state, "answering")?;
    two.wait_for_health(state, "answering")?;
    ensure!((one.count_passed(3)?, two.count_passed(5)?) == (3, 2), "they do not share");
    // Whoever does not know its authority does not speak to it.
    let mut strict = Proxy::start(&dir, "strict", &before(&upstream), &base)?;
    strict.wait_for_health(state, "lost")?;
    let said = strict.process().stderr();
    ensure!(said.contains("certificate"), "{said}");
    ensure!(!said.contains("hidden"), "the password is in the log:\n{said}");
    ensure!(strict.count_passed(7)? == 5, "on its own it counts for itself");
    one.stop()?;
    two.stop()?;
    strict.stop()
}

#[test]
fn a_real_opa_decides_over_tls() -> Result<()> {
    let dir = stage::directory("enforcement-opa-tls")?;
    write_certificates(&dir)?;
    fs::write(
        dir.join("policy.rego"),
        "package stoa.authz\nimport rego.v1\ndefault allow := false\nallow if input.request.method \
         == \"GET\"\n",
    )?;
    let (upstream, mut opa) = (Upstream::start()?, Server::opa_over_tls(&dir)?);
    let url = format!("https://{}", opa.address);
    let authority = dir.join("ca.pem").display().to_string();
    let base = [("STOA_OPA_ENDPOINT", url.as_str()), ("STOA_OPA_TIMEOUT_MS", "5000")];
    let trusting = [&base[..], &[("STOA_CA_FILE", authority.as_str())]].concat();
    let proxy = Proxy::start(&dir, "trusting", &before(&upstream), &trusting)?;
    for _ in 0..3 {
        ensure!(proxy.get("/a")?.status == 200);
        ensure!(proxy.ask("DELETE", "/a", &[])?.status == 403);
    }
    ensure!(proxy.health("/components/opa/state")? == "answering");
    let seen = upstream.seen();
    let mut strict = Proxy::start(&dir, "strict", &before(&upstream), &base)?;
    ensure!(strict.get("/a")?.status == 503, "an OPA that nobody vouches for decided");
    ensure!(upstream.seen() == seen, "undecided, it reached the upstream");
    let said = strict.process().stderr();
    ensure!(said.contains("UnknownIssuer"), "{said}");
    // Its connections end with it, and begin anew.
    opa.kill()?;
    ensure!(proxy.get("/a")?.status == 503);
    opa.start_again()?;
    ensure!(proxy.get("/a")?.status == 200, "it does not heal");
    proxy.stop()?;
    strict.stop()
}
