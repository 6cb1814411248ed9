//! Requests that two readers might understand differently never reach an upstream.

use crate::{gateway::Gateway, upstream::Upstream};

/// Name, request, status. Every one of them also carries a second request that must not be read.
const REFUSED: &[(&str, &str, u16)] = &[
    (
        "both lengths",
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    (
        "both lengths, reversed",
        "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
        400,
    ),
    (
        "two lengths",
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nContent-Length: 4\r\n\r\n",
        400,
    ),
    (
        "the same length twice",
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nContent-Length: 4\r\n\r\nabcd",
        400,
    ),
    ("a list of lengths", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4, 4\r\n\r\nabcd", 400),
    ("a signed length", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: +4\r\n\r\nabcd", 400),
    (
        "a length too large",
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 18446744073709551617\r\n\r\n",
        400,
    ),
    (
        "an unknown coding",
        "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        501,
    ),
    (
        "chunked not last",
        "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
        400,
    ),
    (
        "chunked twice",
        "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    (
        "chunked in 1.0",
        "POST / HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    (
        "a vertical tab in the coding",
        "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    (
        "a space before the colon",
        "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    (
        "a folded line",
        "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    ("a bare LF", "GET / HTTP/1.1\nHost: x\n\n", 400),
    ("a bare LF after a field", "GET / HTTP/1.1\r\nHost: x\nX: 1\r\n\r\n", 400),
    (
        "a bare CR in a value",
        "GET / HTTP/1.1\r\nHost: x\r\nX: a\rTransfer-Encoding: chunked\r\n\r\n",
        400,
    ),
    ("a NUL in a value", "GET / HTTP/1.1\r\nHost: x\r\nX: a\0b\r\n\r\n", 400),
    ("no Host", "GET / HTTP/1.1\r\n\r\n", 400),
    ("two Hosts", "GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400),
    ("an invalid Host", "GET / HTTP/1.1\r\nHost: x/y\r\n\r\n", 400),
    ("a user in Host", "GET / HTTP/1.1\r\nHost: u@x\r\n\r\n", 400),
    ("an authority as target", "GET x:443 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    ("a relative target", "GET a HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    ("a path above its root", "GET /../etc HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    ("an encoded slash", "GET /a%2f..%2fb HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    ("a backslash", "GET /a\\..\\b HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    ("a fragment", "GET /a#b HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    ("version 2 in the line", "GET / HTTP/2.0\r\nHost: x\r\n\r\n", 505),
    ("no version", "GET /\r\nHost: x\r\n\r\n", 400),
    ("CONNECT to an authority", "CONNECT x:443 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
];

const SECOND: &str = "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n";

#[test]
fn ambiguous_requests_are_refused_and_the_connection_is_closed() {
    let upstream = Upstream::echo();
    let gateway = Gateway::before(upstream.address, &[]);
    for (name, request, status) in REFUSED {
        let mut client = gateway.connect();
        client.send(format!("{request}{SECOND}"));
        let answer = client.answer();
        assert_eq!(answer.status, *status, "{name}: {}", answer.text());
        assert_eq!(answer.header("connection"), Some("close"), "{name}");
        assert!(client.is_closed(), "{name}");
    }
    assert_eq!(upstream.received(), "", "something reached the upstream");
    assert_eq!(gateway.get("/fine").status, 200, "the gateway still works");
}

#[test]
fn a_chunked_body_that_is_not_strict_never_looks_whole() {
    let upstream = Upstream::echo();
    let gateway = Gateway::before(upstream.address, &[]);
    for body in [
        "5\nhello\r\n0\r\n\r\n",
        "5\r\nhello0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "5 \r\nhello\r\n0\r\n\r\n",
        "5\r\nhello\r\n0\r\nX: 1\n\r\n",
        "ffffffffffffffff5\r\nhello\r\n0\r\n\r\n",
        "5;a\rb\r\nhello\r\n0\r\n\r\n",
        // What follows the line that is wrong could be read as the end of a body.
        "5\rhello\r\n0\r\n\r\n",
        "5\r\nhello\r\n0\r\nX : 1\r\n\r\n",
        "5\r\nhello\r\n0\r\nX\r\n\r\n",
    ] {
        let mut client = gateway.connect();
        client.send(format!(
            "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{body}{SECOND}"
        ));
        let answer = client.answer();
        assert_eq!(answer.status, 400, "{body:?}");
        assert!(client.is_closed(), "{body:?}");
    }
    let received = upstream.received();
    assert!(!received.contains("0\r\n\r\n"), "a body was ended: {received}");
    assert!(!received.contains("smuggled"), "{received}");
}

#[test]
fn a_url_as_target_counts_more_than_host() {
    let upstream = Upstream::echo();
    let gateway = Gateway::before(upstream.address, &[]);
    let answer = gateway.ask("GET http://real.example/a?b HTTP/1.1\r\nHost: other\r\n\r\n");
    assert!(answer.text().starts_with("GET /a?b HTTP/1.1\r\nhost: real.example\r\n"));
}

#[test]
fn route_policy_and_upstream_see_one_path() {
    let upstream = Upstream::echo();
    let sections = format!(
        "upstreams: {{u: {{url: 'http://{}'}}}}\nroutes:\n\
         - {{name: open, upstream: u, matches: [{{path: {{prefix: /}}}}]}}\n\
         - {{name: closed, matches: [{{path: {{prefix: /admin}}}}], redirect: {{host: login}}}}\n",
        upstream.address
    );
    let gateway = Gateway::start(&sections, &[]);
    for path in
        ["/admin", "/admin/x", "/%61dmin", "//admin", "/x/../admin", "/x/%2e%2e/admin", "/./admin/"]
    {
        assert_eq!(gateway.get(path).status, 302, "{path}");
    }
    let seen = gateway.get("/a/./b//%63?q=%2e%2e//").text();
    assert!(seen.starts_with("GET /a/b/c?q=%2e%2e// HTTP/1.1\r\n"), "{seen}");
}

#[test]
fn heads_have_a_bound() {
    let upstream = Upstream::echo();
    let gateway = Gateway::before(upstream.address, &[]);
    let long = "x".repeat(70 << 10);
    assert_eq!(gateway.ask(&format!("GET / HTTP/1.1\r\nHost: x\r\nA: {long}\r\n\r\n")).status, 431);
    let many = "A: b\r\n".repeat(200);
    assert_eq!(gateway.ask(&format!("GET / HTTP/1.1\r\nHost: x\r\n{many}\r\n")).status, 431);
    let target = "x".repeat(40 << 10);
    assert_eq!(gateway.ask(&format!("GET /{target} HTTP/1.1\r\nHost: x\r\n\r\n")).status, 414);
    assert_eq!(upstream.connection_count(), 0);
}
