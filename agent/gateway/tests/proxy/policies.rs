//! The engine's decisions, as a client and an upstream see them.

use crate::{gateway::Gateway, upstream::Upstream};

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
