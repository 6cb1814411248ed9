//! The engine's decisions, as a client and an upstream see them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{
    gateway::{Gateway, eventually, pause},
    upstream::Upstream,
};

#[test]
fn a_request_without_a_token_goes_no_further() {
    let upstream = Upstream::echo();
    let secret = "a secret of the tests, long enough";
    let gateway = Gateway::before(upstream.address, &["--jwt-secret", secret]);
    for authorization in ["", "Authorization: Bearer x.y.z\r\n"] {
        let answer = gateway.ask(&format!("GET / HTTP/1.1\r\nHost: x\r\n{authorization}\r\n"));
        assert_eq!(answer.status, 401, "{}", answer.text());
        assert_eq!(answer.json()["policy"], "identity");
        assert!(answer.header("www-authenticate").is_some(), "{}", answer.head);
    }
    assert_eq!(upstream.connection_count(), 0);
    assert_eq!(gateway.own("/health/ready").status, 200);
}

#[test]
fn personal_data_is_masked_both_ways() {
    let upstream = Upstream::answering(|request| {
        assert!(!request.head.contains("gzip"), "{}", request.head);
        let seen = String::from_utf8_lossy(&request.body).into_owned();
        let body = format!("{{\"seen\": {seen}, \"email\": \"john.roe@example.org\"}}");
        format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    });
    let gateway = Gateway::before(upstream.address, &["--guardrails-pii-enabled=true"]);
    let body = "{\"email\": \"jane.doe@example.org\", \"n\": 7}";
    let answer = gateway.ask(&format!(
        "POST / HTTP/1.1\r\nHost: x\r\nAccept-Encoding: gzip\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    ));
    assert_eq!(answer.status, 200, "{}", answer.text());
    let text = answer.text();
    assert!(!text.contains("jane.doe") && !text.contains("john.roe"), "{text}");
    assert_eq!(answer.json()["seen"]["n"], 7, "{text}");
    assert!(!upstream.received().contains("jane.doe"));
}

fn statuses(gateway: &Gateway, requests: usize) -> Vec<u16> {
    (0..requests).map(|_| gateway.get("/").status).collect()
}

#[test]
fn variables_limit_each_tenant() {
    let upstream = Upstream::echo();
    let limit = ["--rate-limit-default=3", "--rate-limit-window-seconds=3600"];
    let gateway = Gateway::start(
        &format!(
            "upstreams: {{u: {{url: 'http://{}'}}}}\nroutes:\n- {{upstream: u, tenant: acme, \
             matches: [{{path: {{prefix: /acme}}}}]}}\n- {{upstream: u}}\n",
            upstream.address
        ),
        &limit,
    );
    assert_eq!(statuses(&gateway, 4), [200, 200, 200, 429]);
    let answer = gateway.get("/acme");
    assert_eq!(answer.status, 200, "another tenant has limits of its own");
    assert_eq!(answer.header("x-ratelimit-remaining"), Some("2"), "{}", answer.head);
    let refused = gateway.get("/");
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=1200).contains(&wait), "{wait}");
    assert_eq!(refused.json()["code"], "quota_exceeded");
    let metrics = gateway.own("/metrics").text();
    for line in [
        "stoa_policy_denials_total{policy=\"rate_limit\",code=\"quota_exceeded\"} 2",
        "stoa_policy_duration_seconds_count{policy=\"rate_limit\"} 6",
        "stoa_rate_limit_buckets 2",
    ] {
        assert!(metrics.lines().any(|l| l == line), "{line} is not in {metrics}");
    }
}

#[test]
fn a_policy_file_decides_and_is_read_again() {
    let upstream = Upstream::echo();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("authz.rego");
    let policy = |method| {
        format!(
            "package acme\nimport rego.v1\ndefault allow := false\n\
             allow if input.request.method == \"{method}\"\n"
        )
    };
    std::fs::write(&file, policy("GET")).unwrap();
    let (path, url) = (file.to_str().unwrap(), format!("http://{}", upstream.address));
    let more = ["--upstream", &url, "--policy-path", path, "--policy-query", "data.acme.allow"];
    let gateway = Gateway::start("", &more);
    assert_eq!(gateway.get("/").status, 200);
    assert_eq!(gateway.ask("DELETE / HTTP/1.1\r\nHost: x\r\n\r\n").status, 403);
    std::fs::write(&file, policy("DELETE")).unwrap();
    eventually("the other policy", || (gateway.get("/").status == 403).then_some(()));
    std::fs::write(&file, "package acme\nallow if {").unwrap();
    let reason = eventually("the failure is told", || {
        let ready = gateway.own("/health/ready").json();
        ready["configuration"]["reason"].as_str().map(str::to_owned)
    });
    assert!(reason.contains("policies.default.rego"), "{reason}");
    assert_eq!(gateway.ask("DELETE / HTTP/1.1\r\nHost: x\r\n\r\n").status, 200);
    // Turned off, whatever else is given.
    let off = Gateway::start("", &[&more[..], &["--policy-enabled=false"]].concat());
    assert_eq!(off.get("/").status, 200);
}

/// Answers 500 while it is broken, and counts.
fn breakable() -> (Upstream, Arc<AtomicBool>, Arc<AtomicUsize>) {
    let (is_broken, asked) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicUsize::new(0)));
    let (broken, count) = (Arc::clone(&is_broken), Arc::clone(&asked));
    let upstream = Upstream::answering(move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        let status = if broken.load(Ordering::SeqCst) { "500 No" } else { "200 OK" };
        format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n")
    });
    (upstream, is_broken, asked)
}

#[test]
fn an_open_breaker_sends_nothing_and_closes_again() {
    let (upstream, is_broken, asked) = breakable();
    let sections = |policies: &str| {
        format!(
            "upstreams: {{u: {{url: 'http://{}'}}}}\nroutes:\n\
             - {{upstream: u, name: broken, policies: p, retries: {{attempts: 9, statuses: [500]}}}}\n\
             policies: {{p: {policies}}}\n",
            upstream.address
        )
    };
    let breaker =
        "{circuit_breaker: {strategy: consecutive, failures: 3, reset: 2s, successes: 1}}";
    let gateway = Gateway::start(&sections(breaker), &[]);
    // The third attempt trips it, and there is no fourth: the client gets what the third got.
    assert_eq!(gateway.get("/").status, 500);
    assert_eq!(asked.load(Ordering::SeqCst), 3);
    let refused = gateway.get("/");
    assert_eq!(refused.status, 503, "{}", refused.text());
    assert_eq!(refused.json()["code"], "circuit_open");
    assert!(matches!(refused.header("retry-after"), Some("1" | "2")), "{}", refused.head);
    assert_eq!(asked.load(Ordering::SeqCst), 3);
    // A probe that fails opens it again.
    eventually("a probe", || {
        (asked.load(Ordering::SeqCst) == 4 || {
            gateway.get("/");
            false
        })
        .then_some(())
    });
    assert_eq!(gateway.get("/").status, 503);
    let metrics = gateway.own("/metrics").text();
    let trips = "stoa_circuit_breaker_trips_total{upstream=\"u\",reason=";
    assert!(metrics.contains(&format!("{trips}\"consecutive_failures\"}} 1")), "{metrics}");
    assert!(metrics.contains(&format!("{trips}\"probe_failed\"}} 1")), "{metrics}");
    is_broken.store(false, Ordering::SeqCst);
    eventually("it closes", || (gateway.get("/").status == 200).then_some(()));
    assert_eq!(statuses(&gateway, 5), [200; 5]);
    gateway.rewrite(&sections("{}"));
    eventually("it is forgotten", || {
        let components = gateway.own("/health/ready").json()["components"].clone();
        (components["circuit_breakers"]["configured"] == 0).then_some(())
    });
}

#[test]
fn what_a_client_does_wrong_opens_no_breaker() {
    let upstream = Upstream::echo();
    let gateway = Gateway::before(upstream.address, &["--cb-failure-threshold=1"]);
    for _ in 0..3 {
        let mut client = gateway.connect();
        client.send("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab");
        drop(client);
        let answer =
            gateway.ask("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n");
        assert_eq!(answer.status, 400, "{}", answer.text());
    }
    assert_eq!(gateway.get("/").status, 200);
}

#[test]
fn a_body_that_trickles_in_gets_408_where_it_is_needed_whole() {
    let upstream = Upstream::echo();
    let gateway = Gateway::before(
        upstream.address,
        &["--guardrails-pii-enabled", "--request-body-seconds=1"],
    );
    let head = "POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n";
    let mut client = gateway.connect();
    client.send(format!("{head}Transfer-Encoding: chunked\r\n\r\n"));
    let begun = Instant::now();
    // Never idle for long, so that only a deadline for all of it can end it.
    let mut stream = client.stream.try_clone().unwrap();
    let trickle = std::thread::spawn(move || {
        use std::io::Write;
        while begun.elapsed() < Duration::from_secs(15) && stream.write_all(b"1\r\n \r\n").is_ok() {
            pause(50);
        }
    });
    let answer = client.answer();
    assert_eq!(answer.status, 408, "{}", answer.text());
    assert_eq!(answer.json()["code"], "request_body_late");
    assert_eq!(answer.header("connection"), Some("close"), "{}", answer.head);
    let took = begun.elapsed();
    assert!(took >= Duration::from_secs(1) && took < Duration::from_secs(10), "{took:?}");
    assert_eq!(upstream.connection_count(), 0);
    trickle.join().unwrap();
    let metrics = gateway.own("/metrics").text();
    let line = "stoa_proxy_failures_total{reason=\"request_body_late\"} 1";
    assert!(metrics.contains(line), "{metrics}");
    // One that comes in time is not harmed by it.
    let whole = gateway.ask(&format!("{head}Content-Length: 2\r\n\r\n{{}}"));
    assert_eq!(whole.status, 200, "{}", whole.text());
}
