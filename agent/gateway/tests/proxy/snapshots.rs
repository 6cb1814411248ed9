//! Error snapshots: what is kept of an exchange that failed, and what is not.

use serde_json::{Value, json};

use crate::{
    gateway::{Answer, Client, Gateway, eventually, to_one},
    upstream::Upstream,
};

const TOKEN: &str = "a-token-of-the-tests-0123456789";

fn start(sections: &str, more: &[&str]) -> Gateway {
    let token = format!("--admin-api-token={TOKEN}");
    Gateway::start(sections, &[&[token.as_str(), "--snapshot-enabled"], more].concat())
}

fn ask(gateway: &Gateway, method: &str, path: &str) -> Answer {
    let mut client = Client::connect(gateway.admin);
    client.send(format!(
        "{method} /admin/{path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"
    ));
    client.answer_to(method)
}

fn snapshots(gateway: &Gateway, count: usize) -> Vec<Value> {
    eventually("the snapshots", || {
        let list = ask(gateway, "GET", "snapshots").json();
        let found = list["snapshots"].as_array().unwrap().clone();
        (found.len() == count).then_some(found)
    })
}

/// Answers 500, with more of its customers than anybody should see.
fn failing() -> Upstream {
    Upstream::answering(|_| {
        let body = format!(
            r#"{{"error":"no row for ann@example.com","password":"s3cr3t","code":42,"rest":"{}"}}"#,
            "s3cr3t ".repeat(2000)
        );
        format!(
            "HTTP/1.1 500 Internal Server Error\r\nContent-Type: application/json\r\n\
             Set-Cookie: sid=s3cr3t\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    })
}

#[test]
fn a_failure_is_kept_without_its_secrets() {
    let upstream = failing();
    let gateway =
        start(&to_one(upstream.address, ""), &["--snapshot-extra-pii-patterns=ACME-[0-9]+"]);
    let body = r#"{"card":"4111 1111 1111 1111","note":"ACME-77","quantity":3}"#;
    let mut client = gateway.connect();
    client.send(format!(
        "POST /users/ann@example.com/orders?token=s3cr3t HTTP/1.1\r\nHost: x\r\n\
         Authorization: Bearer s3cr3t\r\nCookie: sid=s3cr3t\r\nX-Request-ID: abc-123\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    ));
    let answer = client.answer();
    // The client gets all of it.
    assert_eq!((answer.status, answer.body.len() > 14_000), (500, true));
    client.send("GET /health HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(client.answer().status, 500, "the connection is of use again");

    let found = snapshots(&gateway, 2);
    let one = ask(&gateway, "GET", "snapshots/abc-123");
    assert_eq!((one.status, &one.json()), (200, &found[1]), "the newest is first");
    let text = one.text();
    for secret in ["s3cr3t", "ann@", "4111", "ACME-77"] {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
    let one = one.json();
    assert_eq!(one["path"], "/users/[REDACTED]/orders");
    assert_eq!(one["request_headers"]["authorization"], "[REDACTED]");
    assert_eq!(one["response_headers"]["set-cookie"], "[REDACTED]");
    let excerpt =
        |name: &str| -> Value { serde_json::from_str(one[name].as_str().unwrap()).unwrap() };
    assert_eq!(excerpt("request_body_excerpt")["quantity"], 3);
    let response = excerpt("response_body_excerpt");
    assert_eq!((&response["code"], &response["rest"]), (&json!(42), &Value::Null), "{response}");
    assert_eq!((&one["status_code"], &one["error_category"]), (&json!(500), &json!("backend")));
    assert_eq!(one["pii_found"], true);
    assert!(found[0]["request_id"].as_str().unwrap().len() == 32, "{}", found[0]);

    let list = ask(&gateway, "GET", "snapshots?limit=1&offset=1").json();
    assert_eq!(
        (&list["total"], &list["limit"], &list["offset"]),
        (&json!(2), &json!(1), &json!(1))
    );
    assert_eq!(list["snapshots"][0]["request_id"], "abc-123");
    let metrics = gateway.own("/metrics").text();
    assert!(metrics.contains("stoa_snapshots_captured_total 2"), "{metrics}");
    assert_eq!(ask(&gateway, "GET", "snapshots?limit=x").status, 400);
    assert_eq!(ask(&gateway, "GET", "snapshots/other").status, 404);
    assert_eq!(ask(&gateway, "DELETE", "snapshots").json(), json!({"cleared": 2}));
    assert_eq!(snapshots(&gateway, 0), Vec::<Value>::new());
    let log = std::fs::read_to_string(gateway.directory.path().join("log")).unwrap();
    assert!(!log.contains("s3cr3t") && !log.contains("ann@"), "{log}");
}

#[test]
fn an_upstream_that_is_away_is_a_failure_of_the_network() {
    let gateway = start(&to_one("127.0.0.1:1".parse().unwrap(), ""), &[]);
    assert_eq!(gateway.get("/a").status, 503);
    let found = snapshots(&gateway, 1);
    assert_eq!(
        (&found[0]["error_category"], &found[0]["error_code"]),
        (&json!("network"), &json!("upstream_unreachable"))
    );
    let problem = found[0]["response_body_excerpt"].as_str().unwrap();
    assert!(problem.contains("upstream_unreachable"), "{problem}");
}

#[test]
fn what_goes_well_or_is_the_clients_fault_is_not_kept() {
    let upstream = Upstream::answering(|request| {
        let status =
            if request.line().starts_with("GET /bad") { "404 Not Found" } else { "200 OK" };
        format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n")
    });
    let gateway = start(&to_one(upstream.address, ""), &["--snapshot-max-count=2"]);
    assert_eq!((gateway.get("/").status, gateway.get("/bad").status), (200, 404));
    assert_eq!(snapshots(&gateway, 0).len(), 0);
    // What is not configured is said to be so.
    let token = format!("--admin-api-token={TOKEN}");
    let gateway = Gateway::before(upstream.address, &[&token]);
    let answer = ask(&gateway, "GET", "snapshots");
    assert_eq!(answer.status, 404);
    assert!(answer.text().contains("STOA_SNAPSHOT_ENABLED"), "{}", answer.text());
}
