//! Upstreams that lie. Their connections are closed, and nobody gets another's answer.

use std::{net::Shutdown, sync::atomic::Ordering};

use crate::{
    gateway::{Gateway, eventually},
    upstream::Upstream,
};

/// Sends `answer` to the first request of its first connection; every other connection is honest.
fn lying_once(answer: &'static [u8]) -> Upstream {
    Upstream::start(move |connection| {
        if connection.number == 0 {
            connection.head();
            connection.send(answer);
            let _ = connection.stream.shutdown(Shutdown::Write);
            connection.take(usize::MAX);
            return;
        }
        while connection.request().is_some() {
            connection.send("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhonest");
        }
    })
}

#[test]
fn answers_that_cannot_be_trusted_become_502() {
    let flood = Box::leak("HTTP/1.1 103 Early Hints\r\n\r\n".repeat(100).into_boxed_str());
    let long = Box::leak(
        format!("HTTP/1.1 200 OK\r\nA: {}\r\n\r\n", "x".repeat(70 << 10)).into_boxed_str(),
    );
    for (name, answer) in [
        (
            "both lengths",
            &b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\nabc"[..],
        ),
        ("two lengths", b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd"),
        ("an unknown coding", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nabc"),
        ("a bare LF", b"HTTP/1.1 200 OK\nContent-Length: 3\n\nabc"),
        ("a folded line", b"HTTP/1.1 200 OK\r\nA: 1\r\n 2\r\n\r\n"),
        ("no head", b"hello"),
        ("nothing", b""),
        ("half a head", b"HTTP/1.1 200 OK\r\nContent-Le"),
        ("an unasked switch", b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n"),
        ("a flood of interim answers", flood.as_bytes()),
        ("a head too long", long.as_bytes()),
        ("HTTP/0.9", b"<html>"),
        ("a strange version", b"HTTP/4.0 200 OK\r\n\r\n"),
        ("a strange status", b"HTTP/1.1 20 OK\r\n\r\n"),
    ] {
        let upstream = lying_once(answer);
        let gateway = Gateway::before(upstream.address, &[]);
        let mut client = gateway.connect();
        client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        let refused = client.answer();
        assert_eq!(refused.status, 502, "{name}: {}", refused.text());
        client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!(client.answer().text(), "honest", "{name}");
        assert_eq!(upstream.connections.load(Ordering::SeqCst), 2, "{name}");
    }
}

#[test]
fn what_follows_an_answer_is_never_taken_for_the_next_one() {
    for answer in [
        &b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"[..],
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
        b"HTTP/1.1 204 No Content\r\nContent-Length: 4\r\n\r\nevil",
    ] {
        let upstream = lying_once(answer);
        let gateway = Gateway::before(upstream.address, &[]);
        let mut client = gateway.connect();
        client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        assert!(client.answer().status < 300);
        client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!(client.answer().text(), "honest");
    }
}

#[test]
fn an_answer_that_is_cut_short_never_looks_whole() {
    for answer in [
        &b"HTTP/1.1 200 OK\r\nContent-Length: 30\r\n\r\nabc"[..],
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n5\r\nde",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nzz\r\n",
    ] {
        let upstream = lying_once(answer);
        let gateway = Gateway::before(upstream.address, &[]);
        let mut client = gateway.connect();
        client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        let head = client.head().unwrap();
        assert_eq!(head.status, 200);
        let rest = String::from_utf8(client.rest()).unwrap();
        assert!(rest.contains("abc") && !rest.contains("0\r\n\r\n"), "{rest:?}");
        eventually("it is counted", || {
            gateway.own("/metrics").text().contains("stoa_proxy_cut_off_total 1").then_some(())
        });
    }
}
