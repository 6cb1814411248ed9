//! What reaches the upstream, and what comes back.

use std::{
    io::{Read, Write},
    net::Shutdown,
};

use crate::{
    gateway::{Client, Gateway, eventually, pause},
    upstream::Upstream,
};

#[test]
fn one_flag_makes_a_reverse_proxy() {
    let upstream = Upstream::echo();
    let gateway = Gateway::before(upstream.address, &[]);
    let mut client = gateway.connect();
    for path in ["/a", "/b?x=1"] {
        client.send(format!("GET {path} HTTP/1.1\r\nHost: example.com\r\nAccept: x/y\r\n\r\n"));
        let answer = client.answer();
        assert_eq!(answer.status, 200);
        let seen = answer.text();
        assert!(
            seen.starts_with(&format!("GET {path} HTTP/1.1\r\nhost: example.com\r\n")),
            "{seen}"
        );
        for line in [
            "accept: x/y",
            "x-forwarded-for: 127.0.0.1",
            "x-forwarded-proto: http",
            "x-forwarded-host: example.com",
            "via: 1.1 stoa-gateway",
            "x-tenant-id: default",
            "traceparent: 00-",
            "x-request-id: ",
            "x-stoa-trace-id: ",
        ] {
            assert!(seen.contains(&format!("\r\n{line}")), "{line} is not in {seen}");
        }
        assert!(answer.header("date").unwrap().ends_with("GMT"));
        assert_eq!(answer.header("via"), Some("1.1 stoa-gateway"));
        assert_eq!(answer.header("connection"), None);
    }
    assert_eq!(upstream.connection_count(), 1, "the connection is used again");
    // Counted when the answer has gone.
    let counted = "requests_total{route=\"--upstream\",status=\"2xx\"} 2";
    eventually("both are counted", || {
        gateway.own("/metrics").text().contains(counted).then_some(())
    });
    assert_eq!(gateway.get("/health/ready").json()["configuration"]["state"], "current");
}

#[test]
fn fields_of_one_connection_stay_there_and_claims_of_strangers_are_removed() {
    let upstream = Upstream::answering(|request| {
        let body = request.head.clone();
        format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: X-Inner\r\nX-Inner: 1\r\n\
             Keep-Alive: timeout=5\r\nUpgrade: h2c\r\nX-Outer: 2\r\n\r\n{body}",
            body.len()
        )
    });
    let gateway = Gateway::before(upstream.address, &["--inject-headers=false"]);
    let answer = gateway.ask(
        "GET / HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, X-Secret\r\nX-Secret: 1\r\n\
         Keep-Alive: 5\r\nProxy-Connection: x\r\nTE: trailers\r\nProxy-Authorization: x\r\n\
         Forwarded: for=1.2.3.4\r\nX-Forwarded-For: 1.2.3.4\r\nX-Real-IP: 1.2.3.4\r\n\
         X-Original-URL: /admin\r\nX-Forwarded-Proto: https\r\nUpgrade: h2c\r\n\r\n",
    );
    let seen = answer.text();
    for absent in [
        "x-secret",
        "connection",
        "keep-alive",
        "te:",
        "1.2.3.4",
        "x-original-url",
        "https",
        "upgrade",
        "traceparent",
        "x-tenant-id",
    ] {
        assert!(!seen.contains(absent), "{absent} is in {seen}");
    }
    for absent in ["x-inner", "keep-alive", "upgrade"] {
        assert_eq!(answer.header(absent), None);
    }
    assert_eq!(answer.header("x-outer"), Some("2"));
}

#[test]
fn a_trusted_proxy_is_believed_and_added_to() {
    let upstream = Upstream::echo();
    let sections = format!(
        "listeners: [{{address: '127.0.0.1:0', trusted_proxies: [127.0.0.0/8]}}]\n\
         upstreams: {{u: {{url: 'http://{}'}}}}\nroutes: [{{upstream: u}}]",
        upstream.address
    );
    let gateway = Gateway::start(&sections, &[]);
    let seen = gateway
        .ask(
            "GET / HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: https\r\n\
             Forwarded: for=192.0.2.1\r\nVia: 1.1 edge\r\n\r\n",
        )
        .text();
    for line in [
        "x-forwarded-for: 192.0.2.1, 127.0.0.1",
        "x-forwarded-proto: https",
        "forwarded: for=192.0.2.1, for=127.0.0.1;proto=http",
        "via: 1.1 edge, 1.1 stoa-gateway",
    ] {
        assert!(seen.contains(&format!("\r\n{line}\r\n")), "{line} is not in {seen}");
    }
}

#[test]
fn bodies_of_every_framing_pass_both_ways() {
    let upstream = Upstream::answering(|request| {
        let body = String::from_utf8_lossy(&request.body).into_owned();
        let trailer = request.head.lines().find_map(|l| l.strip_prefix("trailer "));
        match request.line().split(' ').nth(1).unwrap() {
            "/chunked" => format!(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;e=1\r\nabc\r\n{:x}\r\n{body}\r\n0\r\n\
                 X-Sum: {}\r\n\r\n",
                body.len(),
                trailer.unwrap_or("none")
            ),
            "/empty" => "HTTP/1.1 204 No Content\r\n\r\n".to_owned(),
            "/same" => {
                "HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\nETag: x\r\n\r\n".to_owned()
            }
            "/head" => "HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n".to_owned(),
            _ => format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()),
        }
    });
    let gateway = Gateway::before(upstream.address, &[]);
    let mut client = gateway.connect();
    client.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello");
    assert_eq!(client.answer().text(), "hello");
    client.send(
        "POST /chunked HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTE: trailers\r\n\r\n\
         5\r\nhello\r\n1;x\r\n!\r\n0\r\nX-Check: 7\r\n\r\n",
    );
    let answer = client.answer();
    assert_eq!(answer.text(), "abchello!");
    assert_eq!(answer.header("x-sum"), Some("x-check: 7"));
    client.send("HEAD /head HTTP/1.1\r\nHost: x\r\n\r\n");
    let answer = client.answer_to("HEAD");
    assert_eq!((answer.status, answer.header("content-length")), (200, Some("99")));
    client.send("GET /same HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(client.answer().status, 304);
    client.send("GET /empty HTTP/1.1\r\nHost: x\r\n\r\n");
    let answer = client.answer();
    assert_eq!((answer.status, answer.header("transfer-encoding")), (204, None));
    // Pipelined, and the last one closes.
    client.send(
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\na\
         POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 1\r\n\r\nb",
    );
    assert_eq!(client.answer().text(), "a");
    let answer = client.answer();
    assert_eq!((answer.text().as_str(), answer.header("connection")), ("b", Some("close")));
    assert!(client.is_closed());
    assert_eq!(upstream.connection_count(), 1);
}

#[test]
fn http_10_clients_get_what_they_can_read() {
    let upstream = Upstream::answering(|_| {
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n".to_owned()
    });
    let gateway = Gateway::before(upstream.address, &[]);
    let mut client = gateway.connect();
    client.send("GET / HTTP/1.0\r\n\r\n");
    let answer = client.answer();
    assert_eq!((answer.text().as_str(), answer.header("transfer-encoding")), ("hi", None));
}

#[test]
fn a_client_that_waits_for_continue_is_told_when_the_upstream_wants_the_body() {
    let upstream = Upstream::start(|connection| {
        while let Some(head) = connection.head() {
            if head.line().contains("/refuse") {
                connection.send("HTTP/1.1 417 No\r\nContent-Length: 0\r\n\r\n");
                return;
            }
            connection.send(
                "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n",
            );
            let body = connection.take(5).unwrap();
            connection.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n");
            connection.send(body);
        }
    });
    let gateway = Gateway::before(upstream.address, &[]);
    let ask = |path: &str| {
        format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"
        )
    };
    let mut client = gateway.connect();
    client.send(ask("/"));
    assert_eq!(client.head().unwrap().status, 103);
    assert_eq!(client.head().unwrap().status, 100);
    client.send("hello");
    assert_eq!(client.answer().text(), "hello");
    let mut client = gateway.connect();
    client.send(ask("/refuse"));
    let answer = client.head().unwrap();
    assert_eq!((answer.status, answer.header("connection")), (417, Some("close")));
}

#[test]
fn an_idle_connection_that_died_costs_a_get_nothing_and_a_post_is_not_repeated() {
    // Each connection answers once, then closes when the second request is on its way.
    let upstream = Upstream::start(|connection| {
        connection.request();
        connection.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        connection.head();
        let _ = connection.stream.shutdown(Shutdown::Both);
    });
    let gateway = Gateway::before(upstream.address, &[]);
    let mut client = gateway.connect();
    for _ in 0..4 {
        client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!(client.answer().text(), "ok");
    }
    client.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx");
    let answer = client.answer();
    assert_eq!((answer.status, answer.json()["code"].as_str()), (502, Some("upstream_closed")));
}

#[test]
fn a_large_body_passes_in_constant_memory_with_back_pressure() {
    const SIZE: usize = 256 << 20;
    let upstream = Upstream::start(|connection| {
        connection.head().unwrap();
        connection.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n"));
        let mut left = SIZE;
        while left > 0 {
            let piece = connection.some();
            if piece.is_empty() {
                return;
            }
            left -= piece.len();
            connection.send(piece);
        }
    });
    let gateway = Gateway::before(upstream.address, &[]);
    let mut client = gateway.connect();
    client.send(format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {SIZE}\r\n\r\n"));
    let mut sender = client.stream.try_clone().unwrap();
    let sending = std::thread::spawn(move || {
        let piece = vec![b'x'; 1 << 20];
        for _ in 0..SIZE >> 20 {
            sender.write_all(&piece).unwrap();
        }
    });
    let head = client.head().unwrap();
    assert_eq!(head.header("content-length"), Some(SIZE.to_string().as_str()));
    let mut left = SIZE - client.buffered();
    let mut piece = vec![0; 1 << 20];
    while left > 0 {
        let size = client.stream.read(&mut piece).unwrap();
        assert!(size > 0 && piece[..size].iter().all(|b| *b == b'x'));
        left -= size;
    }
    sending.join().unwrap();
    assert!(gateway.peak_memory() < 64 << 10, "{} KiB", gateway.peak_memory());
}

#[test]
fn websockets_pass_only_where_they_are_allowed() {
    let upstream = Upstream::start(|connection| {
        let head = connection.head().unwrap();
        assert_eq!(head.header("upgrade"), Some("websocket"));
        assert_eq!(head.header("connection"), Some("Upgrade"));
        connection.send(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Accept: x\r\n\r\nfirst",
        );
        while let Some(byte) = connection.take(1) {
            connection.send(byte);
        }
        connection.send("bye");
    });
    let ask = "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade\r\n\
               Upgrade: websocket\r\nSec-WebSocket-Key: k\r\n\r\n";
    let gateway = Gateway::before(upstream.address, &[]);
    let answer = gateway.ask(ask);
    assert_eq!(answer.status, 403);
    assert!(answer.text().contains("STOA_WEBSOCKET_PASSTHROUGH"));
    assert_eq!(upstream.connection_count(), 0);
    let gateway = Gateway::before(upstream.address, &["--websocket-passthrough"]);
    let mut client = gateway.connect();
    client.send(format!("{ask}early"));
    let answer = client.answer();
    assert_eq!((answer.status, answer.header("upgrade")), (101, Some("websocket")));
    assert_eq!(answer.header("sec-websocket-accept"), Some("x"));
    client.send("late");
    client.stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(String::from_utf8(client.rest()).unwrap(), "firstearlylatebye");
}

/// Accepts a WebSocket, and says everything back that comes.
fn websocket_echo(first: &'static [u8]) -> Upstream {
    Upstream::start(move |connection| {
        connection.head();
        connection.send(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Accept: x\r\n\r\n",
        );
        connection.send(first);
        while let Some(byte) = connection.take(1) {
            connection.send(byte);
        }
    })
}

fn open_websocket(gateway: &Gateway, early: &[u8]) -> Client {
    let ask = "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
               Sec-WebSocket-Key: k\r\n\r\n";
    let mut client = gateway.connect();
    client.send([ask.as_bytes(), early].concat());
    assert_eq!(client.answer().status, 101);
    client
}

/// RFC 6455 section 7.4.1: 1008 is 0x03f0.
const CLOSE_1008: &[u8] = b"\x88\x13\x03\xf0too many messages";

#[test]
fn a_websocket_with_too_many_messages_is_closed() {
    let upstream = websocket_echo(b"");
    let flags = ["--ws-proxy-enabled", "--ws-proxy-rate-limit-per-second=0.001"];
    let gateway = Gateway::before(
        upstream.address,
        &[&flags[..], &["--ws-proxy-rate-limit-burst=3"]].concat(),
    );
    // Two messages and a ping, which is between the frames of the first.
    let in_time: &[u8] =
        b"\x01\x82mask\x01\x02\x89\x80mask\x80\x81mask\x03\x82\x84mask\x81\x81\x81\x81";
    for is_early in [true, false] {
        let mut client = open_websocket(&gateway, if is_early { in_time } else { b"" });
        if !is_early {
            in_time.iter().for_each(|byte| client.send([*byte]));
        }
        assert_eq!(client.take(in_time.len()), in_time);
        // Much more than fits into buffers: the client must get to read why all the same.
        let excess = [&b"\x82\xff\0\0\0\0\0\x04\0\0mask"[..], &[0; 256 << 10]].concat();
        client.send(&excess);
        assert_eq!(client.rest(), CLOSE_1008);
    }
    let metrics = gateway.own("/metrics").text();
    for line in [
        "stoa_ws_proxy_rate_limited_total{route_id=\"--upstream\",source=\"client\"} 2\n",
        "stoa_ws_proxy_messages_total{direction=\"client_to_backend\",route_id=\"--upstream\"} 6\n",
        "stoa_ws_proxy_messages_total{direction=\"backend_to_client\",route_id=\"--upstream\"} 6\n",
    ] {
        assert!(metrics.contains(line), "{line} is not in {metrics}");
    }
}

#[test]
fn a_frame_under_way_ends_before_the_client_is_told() {
    // A message of eight bytes, of which the upstream sends two, and the rest when it is asked.
    let upstream = Upstream::start(|connection| {
        connection.head();
        connection.send(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Accept: x\r\n\r\n\x02\x08ab",
        );
        // The one message that is in time.
        connection.take(6);
        pause(300);
        connection.send("cdefgh\x02\x01z");
        connection.take(1);
    });
    let flags = ["--websocket-passthrough", "--ws-proxy-rate-limit-burst=1"];
    let rate = ["--ws-proxy-rate-limit-per-second=0.001"];
    let gateway = Gateway::before(upstream.address, &[&flags[..], &rate].concat());
    let mut client = open_websocket(&gateway, b"\x82\x80mask");
    client.send(b"\x82\x80mask");
    assert_eq!(client.rest(), [&b"\x02\x08abcdefgh"[..], CLOSE_1008].concat());
}

#[test]
fn an_upstream_with_too_many_messages_is_closed() {
    let upstream = websocket_echo(b"\x81\x01a\x81\x01b\x81\x01c");
    let flags = ["--ws-proxy-enabled", "--ws-proxy-rate-limit-burst=2"];
    let rate = ["--ws-proxy-rate-limit-per-second=0.001"];
    let gateway = Gateway::before(upstream.address, &[&flags[..], &rate].concat());
    let mut client = open_websocket(&gateway, b"");
    assert_eq!(client.rest(), [&b"\x81\x01a\x81\x01b"[..], CLOSE_1008].concat());
    let metrics = gateway.own("/metrics").text();
    let line = "stoa_ws_proxy_rate_limited_total{route_id=\"--upstream\",source=\"backend\"} 1\n";
    assert!(metrics.contains(line), "{metrics}");
}

#[test]
fn what_an_upstream_does_wrong_is_named() {
    let gateway = Gateway::before("127.0.0.1:1".parse().unwrap(), &[]);
    let answer = gateway.get("/");
    assert_eq!(
        (answer.status, answer.json()["code"].as_str()),
        (503, Some("upstream_unreachable"))
    );
    assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    let silent = Upstream::start(|connection| {
        connection.head();
        connection.head();
    });
    let sections = format!(
        "upstreams: {{u: {{url: 'http://{}'}}}}\n\
         routes: [{{upstream: u, timeouts: {{request: 100ms}}}}]",
        silent.address
    );
    let gateway = Gateway::start(&sections, &[]);
    let answer = gateway.get("/");
    assert_eq!((answer.status, answer.json()["code"].as_str()), (504, Some("upstream_timeout")));
    let metrics = gateway.own("/metrics").text();
    assert!(metrics.contains("failures_total{reason=\"upstream_timeout\"} 1"), "{metrics}");
}

#[test]
fn a_drain_lets_what_is_under_way_end() {
    let upstream = Upstream::start(|connection| {
        connection.head();
        connection.send("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nfirst");
        connection.take(1);
    });
    let mut gateway = Gateway::before(upstream.address, &["--drain-seconds=3"]);
    let mut idle = gateway.connect();
    let mut busy = gateway.connect();
    busy.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(busy.head().unwrap().status, 200);
    gateway.signal("TERM");
    assert!(idle.is_closed(), "an idle connection is closed at once");
    eventually("no new connection is taken", || {
        std::net::TcpStream::connect(gateway.address).is_err().then_some(())
    });
    // The busy one is cut off at the deadline, not before.
    assert_eq!(busy.rest(), b"first");
    assert!(gateway.wait().success());
}
