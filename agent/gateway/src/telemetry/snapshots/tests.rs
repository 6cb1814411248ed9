use http::HeaderName;

use super::*;

const CARD: &str = "4111 1111 1111 1111";

fn settings() -> SnapshotSettings {
    SnapshotSettings {
        most: 3,
        age: Duration::from_secs(3600),
        body_bytes: 4096,
        patterns: vec![Regex::new("ACME-[0-9]{4,}").unwrap()],
    }
}

fn headers(lines: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
    }
    headers
}

fn failure(request_id: &str) -> Failure {
    Failure {
        request_id: request_id.to_owned(),
        method: "POST".to_owned(),
        path: "/orders/7".to_owned(),
        status: 502,
        category: Category::Network,
        took: Duration::from_micros(1500),
        request_headers: HeaderMap::new(),
        request_body: Beginning::default(),
        response_headers: HeaderMap::new(),
        response_body: Beginning::default(),
        route: Some("orders".into()),
        tenant: None,
        upstream: None,
        code: Some("upstream_closed"),
        event: None,
    }
}

fn shown(failure: &Failure) -> Value {
    show(failure, UNIX_EPOCH + Duration::from_millis(1), &Mask::new(settings().patterns)).1
}

fn body(content_type: &str, text: &str, is_cut: bool) -> Value {
    let mut failure = failure("a");
    failure.response_headers = headers(&[("content-type", content_type)]);
    failure.response_body = Beginning { bytes: text.into(), is_cut };
    shown(&failure)["response_body_excerpt"].clone()
}

fn wait_for(snapshots: &Snapshots, captured: u64) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while snapshots.kept.captured.load(Relaxed) < captured {
        assert!(Instant::now() < deadline);
        std::thread::yield_now();
    }
}

#[test]
fn a_snapshot_has_the_documented_members() {
    let shown = shown(&failure("0af7651916cd43dd8448eb211c80319c"));
    let expected = json!({
        "request_id": "0af7651916cd43dd8448eb211c80319c",
        "timestamp": "1970-01-01T00:00:00.001Z",
        "method": "POST", "path": "/orders/7", "status_code": 502,
        "error_category": "network", "duration_ms": 1.5,
        "request_headers": {}, "request_body_excerpt": null,
        "response_headers": {}, "response_body_excerpt": null,
        "pii_found": false, "route": "orders", "error_code": "upstream_closed",
    });
    assert_eq!(shown, expected);
}

#[test]
fn nothing_personal_and_no_credential_is_kept() {
    let mut failure = failure("ann@example.com");
    failure.path = "/users/ann%40example.com/orders/ACME-12345".to_owned();
    failure.request_headers = headers(&[
        ("authorization", "Bearer s3cr3t"),
        ("cookie", "sid=s3cr3t"),
        ("x-api-key", "s3cr3t"),
        ("x-auth-token", "s3cr3t"),
        ("x-user-id", "s3cr3t"),
        ("referer", "https://shop.example/reset?code=s3cr3t"),
        ("x-note", "call ann@example.com about ACME-12345"),
        ("x-forwarded-for", "203.0.113.9"),
        ("x-request-id", "0af7651916cd43dd8448eb211c80319c"),
        ("accept", "application/json"),
        ("user-agent", "curl/8.5.0"),
    ]);
    failure.request_headers.insert("content-type", "application/json".parse().unwrap());
    failure.request_body = Beginning {
        bytes: format!(
            r#"{{"password":"s3cr3t","card":"{CARD}","note":"token=s3cr3t","n":7,"open":"s3cr3t"#
        )
        .into_bytes(),
        is_cut: true,
    };
    failure.response_headers =
        headers(&[("set-cookie", "a=s3cr3t"), ("set-cookie", "b=s3cr3t"), ("server", "x")]);
    let shown = shown(&failure);
    let text = shown.to_string();
    for secret in ["s3cr3t", "ann", CARD, "ACME-1", "203.0.113.9"] {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
    assert_eq!(shown["path"], "/users/[REDACTED]/orders/[REDACTED]");
    assert_eq!(shown["request_headers"]["authorization"], "[REDACTED]");
    assert_eq!(shown["request_headers"]["x-request-id"], "0af7651916cd43dd8448eb211c80319c");
    assert_eq!(shown["request_headers"]["accept"], "application/json");
    assert_eq!(shown["request_headers"]["user-agent"], "curl/8.5.0");
    assert_eq!(shown["response_headers"]["set-cookie"], json!(["[REDACTED]", "[REDACTED]"]));
    assert_eq!(shown["pii_found"], true);
    let kept: Value =
        serde_json::from_str(shown["request_body_excerpt"].as_str().unwrap()).unwrap();
    assert_eq!(kept["n"], 7, "{kept}");
}

#[test]
fn only_bodies_that_can_be_taken_apart_are_kept() {
    assert_eq!(body("text/plain", "no such table", false), "no such table");
    assert_eq!(
        body("text/html; charset=utf-8", "<h1>Bad Gateway</h1>", false),
        "<h1>Bad Gateway</h1>"
    );
    assert_eq!(
        body("text/plain", "login failed: password=hunter2, user 7", false),
        "login failed: password=[REDACTED], user 7"
    );
    assert_eq!(body("text/plain", "card 4111 1111 1111 11", true), "card");
    assert_eq!(
        body("application/x-www-form-urlencoded", "a=1&password=x&b=2&cu", true),
        "a=1&password=[REDACTED]&b=2"
    );
    assert_eq!(
        body("text/plain", r#"{"password":"x","a":1}"#, false),
        r#"{"password":"[REDACTED]","a":1}"#
    );
    for (media, text) in [
        ("application/json", "{broken \"password\": x"),
        ("application/xml", "<password>x</password>"),
        ("application/octet-stream", "abc"),
        ("multipart/form-data; boundary=x", "--x"),
        ("text/plain", r#"{"password" "x"#),
    ] {
        assert_eq!(body(media, text, false), Value::Null, "{media}");
    }
}

#[test]
fn bounds_hold_and_what_goes_is_counted() {
    let snapshots = Snapshots::start(&settings(), None).unwrap();
    for at in 0..5_u64 {
        snapshots.offer(failure(&format!("abc-{at}")));
        wait_for(&snapshots, at + 1);
    }
    let (newest, total) = snapshots.list(2, 0);
    let ids: Vec<_> = newest.iter().map(|s| s["request_id"].clone()).collect();
    assert_eq!((ids, total), (vec![json!("abc-4"), json!("abc-3")], 3));
    assert_eq!(snapshots.list(20, 2).0.len(), 1);
    assert!(snapshots.find("abc-2").is_some() && snapshots.find("abc-1").is_none());
    let mut text = String::new();
    snapshots.render(&mut text);
    for line in [
        "stoa_snapshots_captured_total 5",
        "stoa_snapshot_store_size 3",
        "stoa_snapshots_evicted_total 2",
        "stoa_snapshots_dropped_total 0",
    ] {
        assert!(text.contains(line), "{line} not in {text}");
    }
    assert_eq!((snapshots.clear(), snapshots.clear()), (3, 0));
}

#[test]
fn the_old_go() {
    let settings = SnapshotSettings { age: Duration::ZERO, ..settings() };
    let snapshots = Snapshots::start(&settings, None).unwrap();
    snapshots.offer(failure("a"));
    wait_for(&snapshots, 1);
    assert_eq!(snapshots.list(20, 0).1, 0);
}

#[test]
fn categories_say_where_to_look() {
    for (status, policy, code, category) in [
        (500, None, None, "backend"),
        (504, None, None, "timeout"),
        (504, None, Some("upstream_timeout"), "timeout"),
        (504, None, Some("upstream_connect_timeout"), "timeout"),
        (502, None, Some("upstream_tls"), "certificate"),
        (503, None, Some("upstream_unreachable"), "network"),
        (502, None, Some("upstream_malformed"), "backend"),
        (503, None, Some("circuit_open"), "backend"),
        (503, Some("identity"), Some("keys_unavailable"), "auth"),
        (503, Some("rate_limit"), Some("x"), "ratelimit"),
        (503, Some("rego"), Some("x"), "policy"),
        (503, None, Some("policies_missing"), "policy"),
        (500, None, Some("x"), "unknown"),
    ] {
        assert_eq!(Category::of(status, policy, code).name(), category, "{status} {code:?}");
    }
}
