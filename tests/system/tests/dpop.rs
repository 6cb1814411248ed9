//! Proofs of possession (RFC 9449) that a library makes which is not ours, and what a thief of a
//! token could send, to a running proxy.

use std::{path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use sandbox::{
    command,
    http::{Connection, Reply},
};
use serde::Deserialize;
use system_tests::{
    decisions::{SECRET, Upstream},
    proxy::Proxy,
    servers::python,
    stage,
};

/// A request of `servers/dpop.py`.
#[derive(Deserialize)]
struct Case {
    what: String,
    method: String,
    target: String,
    headers: Vec<(String, String)>,
    /// Error and part of the description of the challenge; `None`: it is let in.
    answer: Option<(String, String)>,
}

fn start(dir: &Path, upstream: &Upstream) -> Result<Proxy> {
    let config = format!("upstream: http://{}\n", upstream.address);
    let variables = [
        ("STOA_JWT_SECRET", SECRET),
        ("STOA_JWT_ISSUER", "tests"),
        ("STOA_JWT_AUDIENCE", "shop"),
        ("STOA_DPOP__ENABLED", "true"),
        ("STOA_DPOP__REQUIRED", "true"),
        ("STOA_DPOP__MAX_AGE_SECS", "60"),
    ];
    Proxy::start(dir, "proxy", &config, &variables)
}

fn challenges(reply: &Reply) -> Vec<&str> {
    let all = reply.headers.iter().filter(|(name, _)| name == "www-authenticate");
    all.map(|(_, value)| value.as_str()).collect()
}

/// A challenge of RFC 9449 section 7.1.
fn check_challenge(reply: &Reply, error: &str, part: &str) -> Result<()> {
    let [challenge] = challenges(reply)[..] else {
        anyhow::bail!("not one challenge: {:?}", reply.headers)
    };
    ensure!(challenge.starts_with("DPoP "), "{challenge}");
    ensure!(challenge.contains(&format!("error=\"{error}\"")), "{challenge}");
    let (_, algorithms) = challenge.split_once("algs=\"").context("it names no algorithm")?;
    let algorithms: Vec<&str> = algorithms.trim_end_matches('"').split(' ').collect();
    ensure!(algorithms.contains(&"ES256") && !algorithms.contains(&"HS256"), "{challenge}");
    let (_, description) = challenge.split_once("error_description=\"").context("no reason")?;
    ensure!(description.contains(part), "{challenge} says nothing of `{part}`");
    Ok(())
}

#[test]
fn only_who_has_the_key_may_use_the_token() -> Result<()> {
    let dir = stage::directory("dpop")?;
    let upstream = Upstream::start()?;
    let proxy = start(&dir, &upstream)?;
    // Who brings nothing is told what to bring.
    let reply = proxy.get("/orders/7")?;
    let [challenge] = challenges(&reply)[..] else { anyhow::bail!("{:?}", reply.headers) };
    ensure!(reply.status == 401 && challenge.starts_with("DPoP "), "{challenge}");
    ensure!(challenge.contains("algs=\"") && !challenge.contains("error"), "{challenge}");

    let mut client = Command::new(python());
    client.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("servers/dpop.py"));
    client.args([&proxy.address.to_string(), "tests", SECRET]);
    let said = command::run(&mut client)?;
    let (mut accepted, mut refused) = (0, 0);
    for line in said.lines() {
        let case: Case = serde_json::from_str(line)?;
        let host = proxy.address.to_string();
        let mut headers = vec![("Host", host.as_str()), ("Connection", "close")];
        headers.extend(case.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        let mut connection = Connection::open(proxy.address)?;
        let reply = connection.exchange(&case.method, &case.target, &headers, b"")?;
        let what = &case.what;
        match &case.answer {
            None => {
                accepted += 1;
                ensure!(reply.status == 200, "{what}: {} {}", reply.status, reply.text());
            }
            Some((error, part)) => {
                refused += 1;
                ensure!(reply.status == 401, "{what}: {} {}", reply.status, reply.text());
                check_challenge(&reply, error, part).with_context(|| what.clone())?;
            }
        }
    }
    // Nothing was left out.
    ensure!((accepted, refused) == (16, 32), "{accepted} accepted, {refused} refused");
    proxy.stop()
}
