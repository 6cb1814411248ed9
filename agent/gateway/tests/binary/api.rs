//! The HTTP API on the shadow port.

use crate::{
    agent::{Agent, request},
    server::serve_json,
};

#[test]
fn status_contracts_and_generation() {
    let dir = tempfile::tempdir().unwrap();
    let target = serve_json(r#"{"total": 3, "ready": true}"#);
    let agent =
        Agent::start(dir.path(), target, &["--min-requests-for-uac=10", "--service=orders"]);

    let status = agent.get("/shadow/status").json();
    assert_eq!(status["transactions_captured"], 0);
    assert_eq!(status["min_requests_threshold"], 10);
    assert_eq!(status["ready_for_generation"], false);
    assert_eq!(status["services"][0]["service"], "orders");
    assert_eq!(agent.get("/shadow/contracts/orders").status, 404);
    let generated = request(agent.api, "POST", "/shadow/generate", &[], b"");
    assert_eq!(generated.json()["status"], "insufficient_data");

    agent.drive(12, |n| format!("/orders/{}", 1000 + n));
    agent.wait_for_exchanges(12);

    let status = agent.get("/shadow/status").json();
    assert_eq!(status["transactions_captured"], 12);
    assert_eq!(status["patterns_detected"], 1);
    assert_eq!(status["ready_for_generation"], true);
    let capture = &status["services"][0]["capture"];
    assert_eq!(capture["due_bytes"], capture["captured_bytes"]);

    for (accept, media_type, start) in [
        ("*/*", "application/yaml", "openapi:"),
        ("application/openapi+yaml", "application/openapi+yaml", "openapi:"),
        ("application/json", "application/json", "{"),
        ("application/vnd.oai.openapi+json", "application/vnd.oai.openapi+json", "{"),
        ("application/yaml;q=0.1, application/json", "application/json", "{"),
        ("application/vnd.gostoa.uac+json", "application/vnd.gostoa.uac+json", "{"),
        ("text/plain", "text/plain; charset=utf-8", "METHOD"),
    ] {
        let answer = agent.get_as("/shadow/contracts/orders", accept);
        assert_eq!(answer.status, 200, "{accept}: {}", answer.body);
        assert_eq!(answer.header("content-type"), Some(media_type), "{accept}");
        assert_eq!(answer.header("vary"), Some("Accept"), "{accept}");
        assert!(answer.body.starts_with(start), "{accept}: {}", answer.body);
    }
    let uac = agent.get("/shadow/contracts/orders?format=uac").json();
    assert_eq!(uac["tenant_id"], "default");
    let list = agent.get("/shadow/contracts").json();
    assert_eq!(list["contracts"][0]["operations"], 1);

    let json = [("Content-Type", "application/json")];
    let generated =
        request(agent.api, "POST", "/shadow/generate", &json, br#"{"service":"orders"}"#);
    assert_eq!(generated.json()["status"], "generated");
    for suffix in ["openapi.yaml", "openapi.json", "uac.json"] {
        let file = dir.path().join(format!("out/orders.{suffix}"));
        assert!(std::fs::read_to_string(&file).unwrap().contains("/orders/{"), "{suffix}");
    }
    assert!(agent.log().contains("\"target\":\"audit\""));
}

#[test]
fn what_cannot_be_answered_is_a_problem() {
    let dir = tempfile::tempdir().unwrap();
    let agent = Agent::start(dir.path(), serve_json("{}"), &[]);
    let json: &[(&str, &str)] = &[("Content-Type", "application/json")];
    let large = vec![b' '; 100 << 10];
    for (method, path, headers, body, status) in [
        ("GET", "/nope", json, &b""[..], 404),
        ("GET", "/shadow/contracts/nope", json, b"", 404),
        ("GET", "/shadow/contracts/..%2f..%2fetc", json, b"", 404),
        ("POST", "/shadow/generate", json, br#"{"service":"nope"}"#, 404),
        ("GET", "/shadow/generate", json, b"", 405),
        ("DELETE", "/shadow/contracts/api", json, b"", 405),
        ("POST", "/metrics", json, b"", 405),
        ("POST", "/shadow/generate", json, b"{", 400),
        ("POST", "/shadow/generate", json, b"[]", 400),
        ("POST", "/shadow/generate", json, br#"{"servise":"api"}"#, 400),
        ("POST", "/shadow/generate", &[("Content-Type", "text/csv")], b"{}", 415),
        ("GET", "/shadow/contracts/api", &[("Accept", "image/png")], b"", 406),
        ("POST", "/shadow/generate", json, &large, 413),
    ] {
        let answer = request(agent.api, method, path, headers, body);
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.body);
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
        assert_eq!(answer.json()["status"], status);
        assert_eq!(answer.header("allow").is_some(), status == 405);
    }
}

#[test]
fn health_and_metrics() {
    let dir = tempfile::tempdir().unwrap();
    let agent = Agent::start(dir.path(), serve_json("{}"), &[]);
    for path in ["/health", "/health/live", "/health/ready"] {
        assert_eq!(agent.get(path).status, 200, "{path}");
    }
    agent.drive(3, |_| "/ping".to_owned());
    agent.wait_for_exchanges(3);
    let metrics = agent.get("/metrics");
    assert_eq!(metrics.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    for line in [
        "stoa_shadow_exchanges_total{complete=\"yes\",service=\"api\"} 3",
        "stoa_shadow_capturing 1",
        "# TYPE stoa_capture_bytes_total counter",
    ] {
        assert!(metrics.body.contains(line), "`{line}` not in {}", metrics.body);
    }
    let head = request(agent.api, "HEAD", "/metrics", &[], b"");
    assert_eq!((head.status, head.body.as_str()), (200, ""));
}
