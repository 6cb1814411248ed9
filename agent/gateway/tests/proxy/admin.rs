//! The admin API from the outside: who is let in, and what it changes.

use serde_json::{Value, json};

use crate::{
    gateway::{Answer, Client, Gateway, eventually, to_one},
    upstream::Upstream,
};

const TOKEN: &str = "a-token-of-the-tests-0123456789";

fn start(sections: &str, more: &[&str]) -> Gateway {
    let directory = tempfile::tempdir().unwrap();
    let state = format!("--state-dir={}", directory.path().join("state").display());
    let token = format!("--admin-api-token={TOKEN}");
    Gateway::start_in(directory, sections, &[&[state.as_str(), &token], more].concat())
}

fn ask(gateway: &Gateway, method: &str, path: &str, body: Option<&Value>) -> Answer {
    let body = body.map(Value::to_string).unwrap_or_default();
    let mut client = Client::connect(gateway.admin);
    client.send(format!(
        "{method} /admin/{path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    ));
    client.answer_to(method)
}

fn get(gateway: &Gateway, path: &str) -> Value {
    let answer = ask(gateway, "GET", path, None);
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    answer.json()
}

fn stranger(gateway: &Gateway, head: &str) -> Answer {
    let mut client = Client::connect(gateway.admin);
    client.send(format!("{head}\r\nHost: x\r\n\r\n"));
    client.answer()
}

#[test]
fn strangers_are_told_nothing() {
    let upstream = Upstream::echo();
    let gateway = start(&format!("upstream: http://{}\n", upstream.address), &[]);
    let answer = stranger(&gateway, "GET /admin/health HTTP/1.1");
    assert_eq!(answer.status, 401);
    assert!(answer.header("www-authenticate").unwrap().starts_with("Bearer"), "{}", answer.head);
    // Whatever it is spelt like, it is the admin API's or it is nothing.
    for path in ["/admin", "/admin/", "/admin/apis?x", "/admin/%2e%2e/health", "/admin//apis"] {
        let answer = stranger(&gateway, &format!("GET {path} HTTP/1.1"));
        assert_eq!(answer.status, 401, "{path}");
    }
    for path in ["/Admin/health", "//admin/health", "/%61dmin/health", "/health/../admin/health"] {
        assert_eq!(stranger(&gateway, &format!("GET {path} HTTP/1.1")).status, 404, "{path}");
    }
    // Clients of services get their own answers: that port has no admin API.
    let seen = gateway.ask(&format!(
        "GET /admin/health HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"
    ));
    assert!(seen.text().starts_with("GET /admin/health HTTP/1.1"), "{}", seen.text());
    // A body is not waited for, nor a guess answered for ever.
    for _ in 0..10 {
        let head = "POST /admin/apis HTTP/1.1\r\nAuthorization: Bearer guess";
        stranger(&gateway, head);
    }
    let answer = ask(&gateway, "GET", "health", None);
    assert_eq!(answer.status, 429, "{}", answer.text());
    assert!(answer.header("retry-after").is_some(), "{}", answer.head);
    let metrics = gateway.own("/metrics").text();
    assert!(
        metrics.contains("stoa_admin_requests_total{outcome=\"unauthorized\"} 10"),
        "{metrics}"
    );
    let log = std::fs::read_to_string(gateway.directory.path().join("log")).unwrap();
    for text in [&log, &metrics, &gateway.own("/health/ready").text()] {
        assert!(!text.contains(TOKEN), "the token is shown");
    }
    assert!(log.contains("\"action\":\"admin\""), "{log}");
}

#[test]
fn without_a_token_it_is_off() {
    let upstream = Upstream::echo();
    let gateway = Gateway::before(upstream.address, &[]);
    for head in ["GET /admin/health HTTP/1.1", "GET /admin/x HTTP/1.1\r\nAuthorization: Bearer "] {
        let answer = stranger(&gateway, head);
        assert_eq!(answer.status, 503, "{head}");
        assert!(answer.text().contains("STOA_ADMIN_API_TOKEN"), "{}", answer.text());
    }
}

#[test]
fn an_api_comes_into_force_and_survives_a_restart() {
    let upstream = Upstream::echo();
    let mut gateway = start("", &[]);
    assert_eq!(get(&gateway, "apis"), json!([]));
    assert_eq!(gateway.get("/apis/acme/orders/7").status, 404);
    let api = json!({
        "id": "api-123", "name": "orders", "tenant_id": "acme",
        "path_prefix": "/apis/acme/orders", "backend_url": format!("http://{}/v2", upstream.address),
        "methods": ["GET", "POST"], "spec_hash": "abc123", "activated": true,
    });
    let answer = ask(&gateway, "POST", "apis", Some(&api));
    assert_eq!((answer.status, answer.json()), (201, api.clone()));
    // In force when it is answered.
    let seen = gateway.get("/apis/acme/orders/7?a=b").text();
    assert!(seen.starts_with("GET /v2/7?a=b HTTP/1.1"), "{seen}");
    assert!(seen.contains("x-tenant-id: acme"), "{seen}");
    assert_eq!(gateway.ask("DELETE /apis/acme/orders/7 HTTP/1.1\r\nHost: x\r\n\r\n").status, 404);
    assert_eq!(ask(&gateway, "POST", "apis", Some(&api)).status, 200);
    assert_eq!(get(&gateway, "apis"), json!([api]));
    assert_eq!(get(&gateway, "apis/api-123"), api);
    let health = get(&gateway, "health");
    assert_eq!((&health["status"], &health["routes_count"]), (&json!("ok"), &json!(1)), "{health}");

    // A reload of the file keeps it, and so does a new agent.
    let answer = ask(&gateway, "POST", "routes/reload", None);
    assert_eq!((answer.status, &answer.json()["routes_count"]), (200, &json!(1)));
    gateway.signal("KILL");
    gateway.wait();
    let directory = std::mem::replace(&mut gateway.directory, tempfile::tempdir().unwrap());
    let state = format!("--state-dir={}", directory.path().join("state").display());
    let token = format!("--admin-api-token={TOKEN}");
    let gateway = Gateway::start_in(directory, "", &[&state, &token]);
    assert_eq!(gateway.get("/apis/acme/orders/7").status, 200);

    let mut off = api.clone();
    off["activated"] = json!(false);
    assert_eq!(ask(&gateway, "POST", "apis", Some(&off)).status, 200);
    assert_eq!(gateway.get("/apis/acme/orders/7").status, 404);
    assert_eq!(ask(&gateway, "DELETE", "apis/api-123", None).status, 204);
    assert_eq!(ask(&gateway, "DELETE", "apis/api-123", None).status, 404);
    assert_eq!(get(&gateway, "apis"), json!([]));
}

#[test]
fn policies_bind_to_apis_and_show_no_secret() {
    let upstream = Upstream::echo();
    let gateway = start("", &[]);
    let api = json!({"id": "a", "name": "a", "path_prefix": "/a",
                     "backend_url": format!("http://{}", upstream.address)});
    assert_eq!(ask(&gateway, "POST", "apis", Some(&api)).status, 201);
    let limit = json!({"id": "p", "name": "gold", "policy_type": "rate_limit", "priority": 1,
                       "api_id": "a", "config": {"limit": 2, "window_secs": 3600}});
    let answer = ask(&gateway, "POST", "policies", Some(&limit));
    assert_eq!(answer.status, 201, "{}", answer.text());
    assert_eq!(answer.json()["in_force"], true);
    let statuses: Vec<u16> = (0..3).map(|_| gateway.get("/a").status).collect();
    assert_eq!(statuses, [200, 200, 429]);
    let secret = "a secret of the tests, long enough";
    let jwt = json!({"id": "j", "name": "j", "policy_type": "jwt", "api_id": "a",
                     "config": {"secret": secret, "issuer": "tests", "any_audience": true}});
    let answer = ask(&gateway, "POST", "policies", Some(&jwt));
    assert_eq!(answer.status, 201, "{}", answer.text());
    assert_eq!(gateway.get("/a").status, 401);
    for text in [answer.text(), get(&gateway, "policies").to_string()] {
        assert!(!text.contains(secret) && text.contains("[redacted]"), "{text}");
    }
    assert_eq!(ask(&gateway, "DELETE", "policies/j", None).status, 204);
    assert_eq!(gateway.get("/a").status, 429);
    assert_eq!(ask(&gateway, "DELETE", "policies/p", None).status, 204);
    assert_eq!(gateway.get("/a").status, 200);
}

#[test]
fn what_cannot_be_put_in_force_changes_nothing() {
    let gateway = start("", &[]);
    let good = json!({"name": "a", "path_prefix": "/a", "backend_url": "http://127.0.0.1:1"});
    for (kind, body, status, told) in [
        ("apis", json!({"name": "a"}), 400, "path_prefix"),
        (
            "apis",
            json!({"name": "a", "path_prefix": "a", "backend_url": "http://x:1"}),
            400,
            "/apis",
        ),
        ("apis", json!([]), 400, "."),
        ("policies", json!({"name": "p", "policy_type": "cors", "config": {}}), 400, "rate_limit"),
        (
            "policies",
            json!({"name": "p", "policy_type": "contract", "config": {"file": "/etc/shadow"}}),
            400,
            "names a file",
        ),
    ] {
        let answer = ask(&gateway, "POST", kind, Some(&body));
        assert_eq!(answer.status, status, "{body}: {}", answer.text());
        assert!(answer.text().contains(told), "{told} is not in {}", answer.text());
    }
    assert_eq!(ask(&gateway, "POST", "apis", Some(&good)).status, 201);
    // It is well formed, and the engine cannot have it.
    let rego = json!({"name": "r", "policy_type": "rego", "config": {"policy": "package ("}});
    let answer = ask(&gateway, "POST", "policies", Some(&rego));
    assert_eq!(answer.status, 422, "{}", answer.text());
    assert!(answer.text().contains("nothing was changed"), "{}", answer.text());
    assert_eq!(get(&gateway, "policies"), json!([]));
    assert_eq!(gateway.own("/health/ready").json()["configuration"]["state"], "current");
    let long = json!({"name": "x".repeat(66_000)});
    assert_eq!(ask(&gateway, "POST", "apis", Some(&long)).status, 413);
    for (method, path, status) in [
        ("PUT", "apis", 405),
        ("POST", "health", 405),
        ("GET", "circuit-breaker/reset", 405),
        ("GET", "sessions/stats", 404),
        ("GET", "apis/none", 404),
        ("GET", "nothing", 404),
    ] {
        assert_eq!(ask(&gateway, method, path, None).status, status, "{method} {path}");
    }
}

#[test]
fn a_breaker_is_reset() {
    let upstream =
        Upstream::answering(|_| "HTTP/1.1 500 Broken\r\nContent-Length: 0\r\n\r\n".to_owned());
    let sections = format!(
        "upstreams: {{u: {{url: 'http://{}'}}}}\nroutes: [{{upstream: u, policies: p}}]\n\
         policies: {{p: {{circuit_breaker: {{failures: 2, reset: 1h}}}}}}\n",
        upstream.address
    );
    let gateway = start(&sections, &[]);
    let statuses = || (0..3).map(|_| gateway.get("/").status).collect::<Vec<_>>();
    assert_eq!(statuses(), [500, 500, 503]);
    let breakers = get(&gateway, "circuit-breakers");
    assert_eq!((&breakers[0]["name"], &breakers[0]["state"]), (&json!("u"), &json!("open")));
    assert_eq!(breakers[0]["rejected_count"], 1);
    assert_eq!(get(&gateway, "circuit-breaker/stats")["state"], "open");
    assert_eq!(ask(&gateway, "POST", "circuit-breakers/none/reset", None).status, 404);
    assert_eq!(ask(&gateway, "POST", "circuit-breakers/u/reset", None).status, 200);
    assert_eq!(statuses(), [500, 500, 503]);
    assert_eq!(ask(&gateway, "POST", "circuit-breaker/reset", None).status, 200);
    assert_eq!(get(&gateway, "circuit-breaker/stats")["state"], "closed");
}

#[test]
fn quotas_are_listed_and_reset() {
    let upstream = Upstream::echo();
    let sections = format!(
        "upstreams: {{u: {{url: 'http://{}'}}}}\nroutes: [{{upstream: u, tenant: acme, policies: p}}]\n\
         policies:\n  p:\n    identity: {{methods: [{{api_key: {{keys: [{{name: 'team a', sha256: \
         2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b}}]}}}}]}}\n    quota: \
         {{consumer: {{requests_per_day: 3}}}}\n",
        upstream.address
    );
    let gateway = start(&sections, &[]);
    // printf %s secret | sha256sum
    let once = || gateway.ask("GET / HTTP/1.1\r\nHost: x\r\nX-API-Key: secret\r\n\r\n").status;
    assert_eq!([once(), once(), once(), once()], [200, 200, 200, 429]);
    let expected = json!({
        "consumer_id": "team a", "tenant_id": "acme", "policy_set": "p",
        "daily_count": 3, "daily_limit": 3, "daily_remaining": 0,
        "monthly_count": 3, "monthly_limit": 0, "monthly_remaining": null,
    });
    assert_eq!(get(&gateway, "quotas"), json!([expected]));
    assert_eq!(get(&gateway, "quotas/team%20a"), expected);
    assert_eq!(ask(&gateway, "GET", "quotas/nobody", None).status, 404);
    assert_eq!(ask(&gateway, "GET", "quotas/team%20a?tenant_id=other", None).status, 404);
    assert_eq!(ask(&gateway, "POST", "quotas/team%20a/reset", None).status, 200);
    assert_eq!(get(&gateway, "quotas/team%20a")["daily_remaining"], 3);
    assert_eq!(once(), 200);
}

#[test]
fn remembered_tokens_are_counted_and_forgotten() {
    let upstream = Upstream::echo();
    let sections = format!(
        "upstreams: {{u: {{url: 'http://{}'}}}}\nroutes: [{{upstream: u, policies: p}}]\n\
         policies: {{p: {{identity: {{required: false, methods: [{{mtls: {{}}}}, {{jwt: {{secret: \
         'a secret of the tests, long enough', issuer: tests, any_audience: true, requires_expiry: \
         false}}}}]}}}}}}\n",
        upstream.address
    );
    let gateway = start(&sections, &[]);
    // {"iss": "tests", "sub": "ann"}, signed with that secret by Python's hmac.
    let token = include_str!("data/hs256.token").trim();
    let once = || {
        let request = format!("GET / HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n");
        assert_eq!(gateway.ask(&request).status, 200);
    };
    (0..4).for_each(|_| once());
    let expected = json!({"hits": 3, "misses": 1, "entry_count": 1, "hit_rate": 0.75});
    assert_eq!(get(&gateway, "cache/stats"), expected);
    assert_eq!(ask(&gateway, "POST", "cache/clear", None).status, 200);
    assert_eq!(get(&gateway, "cache/stats")["entry_count"], 0);
    once();
    assert_eq!(get(&gateway, "cache/stats")["misses"], 2);
    let config = json!({
        "enabled": true, "require_client_cert": false, "require_binding": false,
        "required_routes": [], "trusted_proxies": [],
    });
    assert_eq!(get(&gateway, "mtls/config"), config);
    let stats =
        json!({"total_requests": 5, "cert_validated": 0, "cert_missing": 5, "cert_invalid": 0});
    assert_eq!(get(&gateway, "mtls/stats"), stats);
}

#[test]
fn a_reload_opens_and_closes_listeners() {
    let upstream = Upstream::echo();
    let sections = |listeners: &str| to_one(upstream.address, listeners);
    let gateway = Gateway::start(&sections(""), &["--route-reload-enabled=false"]);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (used, free) = (taken.local_addr().unwrap(), {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    });
    let mut kept = gateway.connect();
    let mut on_kept = || {
        kept.send("GET /kept HTTP/1.1\r\nHost: x\r\n\r\n");
        kept.answer().status
    };
    assert_eq!(on_kept(), 200);
    let configuration =
        |key: &str| gateway.own("/health/ready").json()["configuration"][key].clone();
    // An address that somebody else has: all stays as it was, and it is said.
    gateway.rewrite(&sections(&format!("listeners: [{{name: other, address: '{used}'}}]\n")));
    gateway.signal("HUP");
    let reason =
        eventually("the failure is told", || configuration("reason").as_str().map(str::to_owned));
    assert!(reason.contains("`other`") && reason.contains(&used.to_string()), "{reason}");
    assert_eq!(gateway.get("/").status, 200);
    gateway.rewrite(&sections(&format!("listeners: [{{name: other, address: '{free}'}}]\n")));
    gateway.signal("HUP");
    let on_new = eventually("it listens", || {
        let stream = std::net::TcpStream::connect(free).ok()?;
        drop(stream);
        Some(Client::connect(free))
    });
    let mut on_new = on_new;
    on_new.send("GET /new HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(on_new.answer().status, 200);
    eventually("the first is closed", || {
        std::net::TcpStream::connect(gateway.address).is_err().then_some(())
    });
    assert_eq!(on_kept(), 200, "its connections go on");
    assert_eq!(configuration("needs_restart"), json!([]));
    assert_eq!(configuration("state"), "current");
    // Back again. What is open on the address that goes is answered still.
    gateway.rewrite(&sections(""));
    gateway.signal("HUP");
    eventually("the second is closed", || {
        std::net::TcpStream::connect(free).is_err().then_some(())
    });
    on_new.send("GET /new HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(on_new.answer().status, 200);
    // Without a drain, connections that idle are let go at once.
    gateway.signal("TERM");
}

#[test]
fn a_contract_of_the_configuration_is_enforced() {
    let upstream = Upstream::echo();
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(
        directory.path().join("orders.yaml"),
        "openapi: 3.1.0\ninfo: {title: orders, version: '1'}\npaths:\n  /orders:\n    get: \
         {responses: {'200': {description: all}}}\n",
    )
    .unwrap();
    let sections = |service: &str| {
        format!(
            "upstreams: {{u: {{url: 'http://{}'}}}}\nroutes: [{{upstream: u, policies: p}}]\n\
             contracts: {{orders: DIR/orders.yaml}}\n\
             policies: {{p: {{contract: {{service: {service}, requests: block}}}}}}\n",
            upstream.address
        )
    };
    let gateway = Gateway::start_in(directory, &sections("orders"), &[]);
    assert_eq!(gateway.get("/orders").status, 200);
    assert_eq!(gateway.get("/other").status, 404);
    gateway.rewrite(&sections("billing"));
    let reason = eventually("the failure is told", || {
        let ready = gateway.own("/health/ready").json();
        ready["configuration"]["reason"].as_str().map(str::to_owned)
    });
    assert!(reason.contains("`billing`") && reason.contains("orders"), "{reason}");
    assert_eq!(gateway.get("/other").status, 404);
}
