//! Routes, reloads, retries, mirrors and transformations, by a configuration file.

use crate::{
    gateway::{Gateway, eventually, to_one},
    upstream::Upstream,
};

#[test]
fn a_reload_changes_routes_and_a_broken_file_keeps_them() {
    let (one, two) =
        (Upstream::answering(|_| answer("one")), Upstream::answering(|_| answer("two")));
    let sections = |name: &str| {
        format!(
            "upstreams: {{one: {{url: 'http://{}'}}, two: {{url: 'http://{}'}}}}\n\
             routes: [{{upstream: {name}}}]",
            one.address, two.address
        )
    };
    let gateway = Gateway::start(&sections("one"), &[]);
    let mut client = gateway.connect();
    let mut ask = || {
        client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        client.answer().text()
    };
    assert_eq!(ask(), "one");
    gateway.rewrite(&sections("two"));
    eventually("the route changes on the same connection", || (ask() == "two").then_some(()));
    gateway.rewrite(&sections("three"));
    let state = eventually("the failure is told", || {
        let ready = gateway.own("/health/ready");
        (ready.json()["configuration"]["state"] == "stale").then(|| ready.json())
    });
    let reason = state["configuration"]["reason"].as_str().unwrap();
    assert!(reason.contains("config.yaml") && reason.contains("`three`"), "{reason}");
    assert!(gateway.own("/metrics").text().contains("stoa_config_is_stale 1"));
    assert_eq!(ask(), "two");
    gateway.rewrite(&sections("one"));
    eventually("it heals", || (ask() == "one").then_some(()));
    // The same content again, by SIGHUP.
    let generation = gateway.own("/health/ready").json()["configuration"]["generation"].as_u64();
    gateway.signal("HUP");
    eventually("SIGHUP reloads", || {
        let now = gateway.own("/health/ready").json()["configuration"]["generation"].as_u64();
        (now > generation).then_some(())
    });
}

#[test]
fn what_only_a_restart_brings_into_force_is_told() {
    let upstream = Upstream::echo();
    let sections = |more: &str| to_one(upstream.address, more);
    let gateway = Gateway::start(&sections(""), &[]);
    let needs = || gateway.own("/health/ready").json()["configuration"]["needs_restart"].clone();
    assert_eq!(needs(), serde_json::json!([]));
    gateway.rewrite(&sections("drain_seconds: 3\n"));
    let told = eventually("it is told", || (needs() != serde_json::json!([])).then(needs));
    let told: Vec<&str> = told.as_array().unwrap().iter().filter_map(|t| t.as_str()).collect();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("`drain_seconds`"), "{told:?}");
    assert!(gateway.own("/metrics").text().contains("stoa_config_restart_needed 1"));
    assert_eq!(gateway.get("/").status, 200);
    // A section that is misspelt is not one that is gone.
    gateway.rewrite(&sections("").replace("routes:", "rotues:"));
    let reason = eventually("the failure is told", || {
        let ready = gateway.own("/health/ready").json();
        ready["configuration"]["reason"].as_str().map(str::to_owned)
    });
    assert!(reason.contains("rotues"), "{reason}");
    assert_eq!(gateway.get("/").status, 200);
    gateway.rewrite(&sections(""));
    eventually("it is as it was", || (needs() == serde_json::json!([])).then_some(()));
    assert!(gateway.own("/metrics").text().contains("stoa_config_restart_needed 0"));
}

fn answer(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

#[test]
fn routes_rewrite_redirect_and_change_headers() {
    let upstream = Upstream::echo();
    let gateway = Gateway::start(
        &format!(
            "upstreams: {{u: {{url: 'http://{}'}}}}\nroutes:\n\
             - name: api\n  upstream: u\n  tenant: acme\n  matches: [{{path: {{prefix: /api}}}}]\n\
             \x20 rewrite: {{prefix: /v1, host: inner.example}}\n\
             \x20 request: {{set: {{X-A: '1'}}, add: {{X-B: '2'}}, remove: [X-C]}}\n\
             \x20 response: {{set: {{X-D: '4'}}}}\n\
             - name: old\n  matches: [{{path: {{prefix: /old}}}}]\n\
             \x20 redirect: {{scheme: https, host: new.example, prefix: /new, status: 308}}\n",
            upstream.address
        ),
        &[],
    );
    let answer =
        gateway.ask("GET /api/x?y HTTP/1.1\r\nHost: e\r\nX-A: 0\r\nX-B: 1\r\nX-C: 1\r\n\r\n");
    let seen = answer.text();
    assert!(seen.starts_with("GET /v1/x?y HTTP/1.1\r\nhost: inner.example\r\n"), "{seen}");
    for line in ["x-a: 1\r\n", "x-b: 1\r\nx-b: 2\r\n", "x-tenant-id: acme"] {
        assert!(seen.contains(line), "{line} is not in {seen}");
    }
    assert!(!seen.contains("x-c"), "{seen}");
    assert_eq!(answer.header("x-d"), Some("4"));
    let answer = gateway.get("/old/a?b");
    assert_eq!(
        (answer.status, answer.header("location")),
        (308, Some("https://new.example/new/a?b"))
    );
    assert_eq!(gateway.get("/none").status, 404);
    assert_eq!(gateway.get("/none").json()["code"], "no_route");
}

#[test]
fn retries_are_for_what_can_be_repeated_and_have_a_budget() {
    let flaky = Upstream::start(|connection| {
        if let Some(request) = connection.request() {
            let is_first = connection.number == 0 && !request.head.contains("/ok");
            let status = if is_first { "503 No" } else { "200 OK" };
            connection.send(format!(
                "HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            ));
        }
    });
    let route = "retries: {attempts: 1}";
    let gateway = Gateway::start(
        &format!(
            "upstreams: {{u: {{url: 'http://{}'}}}}\nroutes: [{{upstream: u, {route}}}]",
            flaky.address
        ),
        &[],
    );
    assert_eq!(gateway.get("/").status, 200);
    let always = Upstream::answering(|_| "HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n".to_owned());
    let gateway = Gateway::start(
        &format!(
            "upstreams: {{u: {{url: 'http://{}'}}}}\nroutes: [{{upstream: u, retries: {{attempts: 5}}}}]",
            always.address
        ),
        &[],
    );
    assert_eq!(gateway.ask("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx").status, 503);
    for _ in 0..30 {
        assert_eq!(gateway.get("/").status, 503);
    }
    let requests = always.received().matches(" / HTTP/1.1").count();
    assert!((33..=40).contains(&requests), "{requests}: 20 % of 31, and 3 at the start");
}

#[test]
fn weights_and_endpoints_spread_requests() {
    let names = ["a", "b", "c"];
    let upstreams = names.map(|name| Upstream::answering(move |_| answer(name)));
    let gateway = Gateway::start(
        &format!(
            "upstreams:\n  a: {{url: 'http://{}'}}\n  bc: {{endpoints: [{{address: '{}'}}, {{address: '{}'}}]}}\n\
             routes: [{{backends: [{{upstream: a, weight: 1}}, {{upstream: bc, weight: 3}}]}}]",
            upstreams[0].address, upstreams[1].address, upstreams[2].address
        ),
        &[],
    );
    let mut client = gateway.connect();
    let mut counts = std::collections::BTreeMap::new();
    for _ in 0..400 {
        client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        *counts.entry(client.answer().text()).or_insert(0) += 1;
    }
    // Seven standard deviations of the binomial distribution.
    assert!((40..=160).contains(&counts["a"]), "{counts:?}");
    assert!(i32::abs(counts["b"] - counts["c"]) <= 1, "{counts:?}");
}

#[test]
fn a_mirror_gets_the_request_and_nobody_its_answer() {
    let (main, copy) =
        (Upstream::answering(|_| answer("main")), Upstream::answering(|_| answer("copy")));
    let gateway = Gateway::start(
        &format!(
            "upstreams: {{m: {{url: 'http://{}'}}, c: {{url: 'http://{}'}}}}\n\
             routes: [{{upstream: m, mirrors: [{{upstream: c}}]}}]",
            main.address, copy.address
        ),
        &[],
    );
    let answer = gateway.ask("POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody");
    assert_eq!(answer.text(), "main");
    eventually("the mirror got it", || {
        let received = copy.received();
        (received.starts_with("POST /x HTTP/1.1") && received.ends_with("body")).then_some(())
    });
}

#[test]
fn bodies_are_transformed_only_when_asked() {
    let upstream = Upstream::answering(|request| {
        let body =
            format!("{{\"got\": {}, \"secret\": 1}}", String::from_utf8_lossy(&request.body));
        format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nETag: x\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    });
    let sections = format!(
        "upstreams: {{u: {{url: 'http://{}'}}}}\nroutes:\n- upstream: u\n\
         \x20 request: {{body: {{rename: {{a: b}}, set: {{c: 1}}}}}}\n\
         \x20 response: {{body: {{remove: [secret]}}}}\n",
        upstream.address
    );
    let ask = "POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 8\r\n\r\n{\"a\": 7}";
    let gateway = Gateway::start(&sections, &[]);
    assert_eq!(gateway.ask(ask).json(), serde_json::json!({"got": {"a": 7}, "secret": 1}));
    let gateway = Gateway::start(&sections, &["--transform-request", "--transform-response"]);
    let answer = gateway.ask(ask);
    assert_eq!(answer.json(), serde_json::json!({"got": {"b": 7, "c": 1}}));
    assert_eq!(answer.header("etag"), None);
}

#[test]
fn the_access_log_has_a_line_for_each_answer_and_no_query() {
    let upstream = Upstream::echo();
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("access.log");
    let gateway = Gateway::before(upstream.address, &["--access-log", log.to_str().unwrap()]);
    gateway
        .ask("GET /a?token=hunter2 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer hunter2\r\n\r\n");
    let line = eventually("a line", || {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        text.lines().next().map(str::to_owned)
    });
    assert!(!line.contains("hunter2"), "{line}");
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!((&line["path"], &line["status"]), (&"/a".into(), &200.into()));
}
