//! What messages may look like, and what they may not.

use super::*;

// --- bad framing --------------------------------------------------------------------------------

#[test]
fn length_and_chunked_together() {
    let mut talk = Talk::new();
    talk.client(
        "POST /a HTTP/1.1\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /evil HTTP/1.1\r\n\r\n",
    );
    talk.server(ok("1")).server(ok("2")).close();
    assert_eq!(talk.summary(), ["POST /a 200 !"]);
    assert_eq!(talk.seen[0].incomplete, [Incomplete::BadFraming]);
}

#[test]
fn lengths_that_differ() {
    for lengths in
        ["Content-Length: 1, 2", "Content-Length: 1\r\nContent-Length: 2", "Content-Length: +1"]
    {
        let mut talk = Talk::new();
        talk.client(get("/a")).server(format!("HTTP/1.1 200 OK\r\n{lengths}\r\n\r\nxy"));
        assert_eq!(talk.seen[0].incomplete, [Incomplete::BadFraming], "{lengths}");
    }
}

#[test]
fn chunked_in_http_1_0() {
    let mut talk = Talk::new();
    talk.client("POST /a HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n").close();
    assert!(talk.seen[0].incomplete.contains(&Incomplete::BadFraming));
}

#[test]
fn folded_header_is_refused() {
    let mut talk = Talk::new();
    talk.client("GET /a HTTP/1.1\r\nX: a\r\n b\r\n\r\n").close();
    assert!(talk.seen.is_empty());
    assert_eq!(talk.reader.counters().heads_refused, 1);
}

#[test]
fn broken_chunk_size() {
    let mut talk = Talk::new();
    talk.client(get("/a"))
        .server("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0x3\r\nabc");
    assert_eq!(talk.seen[0].incomplete, [Incomplete::BadFraming]);
}

// --- not HTTP -----------------------------------------------------------------------------------

#[test]
fn tls_is_dropped_at_once() {
    let mut talk = Talk::new();
    talk.client(b"\x16\x03\x01\x02\x00\x01").server(b"\x16\x03\x03").close();
    assert!(talk.seen.is_empty());
    assert_eq!(talk.reader.counters().flows_not_http, 1);
}

#[test]
fn banner_is_dropped_at_once() {
    let mut talk = Talk::new();
    talk.server("SSH-2.0-OpenSSH_9\r\n").client("SSH-2.0-x\r\n");
    assert!(talk.seen.is_empty());
    assert_eq!(talk.reader.counters().flows_not_http, 1);
}

#[test]
fn http_2_preface_is_not_http_1() {
    let mut talk = Talk::new();
    talk.client("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    assert_eq!(talk.reader.counters().flows_not_http, 1);
}

// --- lengths, codings, chunks (RFC 9112 sections 6 and 7) ---------------------------------------

/// One response with these header lines and this body; then another exchange on the connection.
fn answered(lines: &str, body: &str) -> Talk {
    let mut talk = Talk::new();
    talk.client(get("/a")).server(format!("HTTP/1.1 200 OK\r\n{lines}\r\n\r\n{body}"));
    talk.client(get("/b")).server(ok("2")).close();
    talk
}

/// The same with a request.
fn asked(lines: &str, body: &str) -> Talk {
    let mut talk = Talk::new();
    talk.client(format!("POST /a HTTP/1.1\r\n{lines}\r\n\r\n{body}")).server(ok("1"));
    talk.client(get("/b")).server(ok("2")).close();
    talk
}

#[test]
fn lengths_that_are_numbers() {
    for length in ["5", "5 ", "\t5", "5, 5", "5,5 ,5", "0005"] {
        let line = format!("content-LENGTH: {length}");
        for talk in [answered(&line, "hello"), asked(&line, "hello")] {
            assert_eq!(talk.summary().len(), 2, "{length:?}");
            assert!(talk.seen.iter().all(Exchange::is_complete), "{length:?}");
        }
    }
}

#[test]
fn lengths_that_are_none() {
    for length in
        ["+5", "-5", "", "5 5", "5;5", "5,", ",5", "0x5", "5.0", "5, 6", "18446744073709551616"]
    {
        let line = format!("Content-Length: {length}");
        let talk = answered(&line, "hello");
        assert_eq!(talk.seen[0].incomplete, [Incomplete::BadFraming], "{length:?}");
        assert!(talk.seen.iter().skip(1).all(|e| e.response.is_none()), "{length:?}");
        let talk = asked(&line, "hello");
        assert_eq!(talk.seen[0].incomplete, [Incomplete::BadFraming], "{length:?}");
        assert_eq!(talk.seen.len(), 1, "{length:?}");
    }
}

#[test]
fn length_beyond_all_that_comes() {
    for length in [u64::MAX, 1 << 62, 6] {
        let mut talk = Talk::new();
        talk.client(get("/a"));
        talk.server(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\nhello")).close();
        let reasons = [Incomplete::ResponseBodyTruncated, Incomplete::ConnectionEnded];
        assert_eq!(talk.seen[0].incomplete, reasons);
        assert_eq!(talk.response_body(0), b"hello");
    }
}

#[test]
fn codings_that_end_with_chunked() {
    for coding in ["chunked", "Chunked", " chunked ", "identity, chunked", "gzip\r\nTE: x"] {
        let line = format!("Transfer-Encoding: {coding}");
        let talk = asked(&line, "5\r\nhello\r\n0\r\n\r\n");
        let is_whole = coding.to_ascii_lowercase().contains("chunked");
        assert_eq!(talk.seen[0].is_complete(), is_whole, "{coding:?}");
        assert_eq!(talk.seen.len(), if is_whole { 2 } else { 1 }, "{coding:?}");
    }
}

#[test]
fn codings_that_do_not() {
    for lines in [
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: chunked, chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 5",
        "Content-Length: 0\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: xchunked\r\nContent-Length: 5",
    ] {
        for talk in [answered(lines, "0\r\n\r\n"), asked(lines, "0\r\n\r\n")] {
            assert_eq!(talk.seen[0].incomplete, [Incomplete::BadFraming], "{lines:?}");
            assert!(talk.seen.iter().skip(1).all(|e| e.response.is_none()), "{lines:?}");
        }
    }
    assert_eq!(asked("Transfer-Encoding: xchunked", "0\r\n\r\n").seen.len(), 1);
}

#[test]
fn unknown_coding_of_a_response_lasts_until_the_end() {
    let talk = answered("Transfer-Encoding: xchunked", "0\r\n\r\n");
    let response = talk.seen[0].response.as_ref().unwrap();
    assert_eq!(response.message.body.partial, Some(Partial::Undecodable));
    assert!(response.message.body.content.is_empty());
}

#[test]
fn chunks() {
    let zeros = "0".repeat(500);
    for (body, is_sound) in [
        ("5\r\nhello\r\n0\r\n\r\n".to_owned(), true),
        (format!("{zeros}5\r\nhello\r\n{zeros}\r\n\r\n"), true),
        ("5;a=b;c=\"d;\"\r\nhello\r\n0;x\r\n\r\n".into(), true),
        ("5 \r\nhello\r\n0\t\r\nX: y\r\n\r\n".into(), true),
        ("ffffffffffffffffff\r\nhello".into(), false),
        ("7fffffffffffffff\r\nhello".into(), false),
        ("5\nhello\r\n0\r\n\r\n".into(), false),
        ("5;a\nhello\r\n0\r\n\r\n".into(), false),
        ("5;a\rb\r\nhello\r\n0\r\n\r\n".into(), false),
        (" 5\r\nhello\r\n0\r\n\r\n".into(), false),
        ("-5\r\nhello\r\n0\r\n\r\n".into(), false),
        ("\r\nhello\r\n0\r\n\r\n".into(), false),
        ("5\r\nhelloX\r\n0\r\n\r\n".into(), false),
        ("5\r\nhello\n0\r\n\r\n".into(), false),
        ("5\r\nhello\r\n0\r\nX : y\r\n\r\n".into(), false),
        (format!("5;{}\r\nhello\r\n0\r\n\r\n", "a".repeat(5000)), false),
    ] {
        for talk in [
            answered("Transfer-Encoding: chunked", &body),
            asked("Transfer-Encoding: chunked", &body),
        ] {
            let shown = &body[..body.len().min(40)];
            assert_eq!(talk.seen[0].is_complete(), is_sound, "{shown:?}");
            assert_eq!(talk.seen[0].incomplete.is_empty(), is_sound, "{shown:?}");
            assert_eq!(talk.seen.iter().all(Exchange::is_complete), is_sound, "{shown:?}");
        }
    }
}

// --- heads --------------------------------------------------------------------------------------

#[test]
fn heads_that_are_none() {
    for line in
        ["X : y", "X: a\0b", "X: a\rb", " X: y", "X: a\r\n\tb", "X", ": y", "X y: z", "X\u{e9}: y"]
    {
        let mut talk = Talk::new();
        talk.client(get("/0")).server(ok("0"));
        talk.client(format!("GET /a HTTP/1.1\r\n{line}\r\n\r\n")).close();
        assert_eq!(talk.summary(), ["GET /0 200"], "{line:?}");
        assert_eq!(talk.reader.counters().heads_refused, 1, "{line:?}");
        let mut talk = Talk::new();
        talk.client(get("/a")).server(format!("HTTP/1.1 200 OK\r\n{line}\r\n\r\n"));
        talk.server(ok("x")).close();
        assert_eq!(talk.summary(), ["GET /a - !"], "{line:?}");
        assert!(talk.seen[0].incomplete.contains(&Incomplete::BadFraming), "{line:?}");
    }
}

#[test]
fn start_lines_that_are_none() {
    for line in
        ["GET /a", "GET  /a HTTP/1.1", "GET /a HTTP/2.0", "GET /a b HTTP/1.1", "GET\t/ HTTP/1.1"]
    {
        let mut talk = Talk::new();
        talk.client(format!("{line}\r\n\r\n")).server(ok("1")).close();
        assert!(talk.seen.iter().all(|e| e.request.is_none()), "{line:?}");
    }
    for line in
        ["HTTP/1.1 20 OK", "HTTP/1.1 2000 OK", "HTTP/1.1 abc", "HTTP/1.1", "HTTP/3.1 200 OK"]
    {
        let mut talk = Talk::new();
        talk.client(get("/a")).server(format!("{line}\r\n\r\n")).close();
        assert_eq!(talk.summary(), ["GET /a - !"], "{line:?}");
    }
}

#[test]
fn unusual_start_lines() {
    for line in [
        "get /a",
        "PROPFIND /dav",
        "QUERY /q",
        "M-SEARCH *",
        "OPTIONS *",
        "GET http://x/a?b#c",
        "PATCH /%ff%00/\u{e9}",
    ] {
        let mut talk = Talk::new();
        talk.client(format!("{line} HTTP/1.1\r\nHost: x\r\n\r\n"))
            .server("HTTP/1.1 207\r\nContent-Length: 0\r\n\r\n");
        talk.client(get("/b")).server(ok("2"));
        assert_eq!(talk.summary(), [format!("{line} 207"), "GET /b 200".into()]);
    }
}

#[test]
fn more_headers_than_usual() {
    let lines: String = (0..1000).map(|i| format!("x-{i}: {i}\r\n")).collect();
    let mut talk = Talk::new();
    talk.client(format!("GET /a HTTP/1.1\r\n{lines}\r\n")).server(ok("1"));
    assert_eq!(talk.seen[0].request.as_ref().unwrap().message.headers.len(), 1000);
}

#[test]
fn request_head_beyond_the_limit_leaves_no_wrong_pair() {
    let mut talk = Talk::new();
    talk.client(get("/0")).server(ok("0"));
    talk.client(format!("GET /a HTTP/1.1\r\nX: {}\r\n\r\n", "y".repeat(70_000))).server(ok("a"));
    talk.client(get("/b")).server(ok("b")).close();
    assert_eq!(talk.summary()[0], "GET /0 200");
    assert!(talk.seen.iter().skip(1).all(|e| e.request.is_none() || e.response.is_none()));
    assert_eq!(talk.reader.counters().heads_refused, 1);
}

// --- responses without a body, and several responses --------------------------------------------

#[test]
fn pipelined_head_requests() {
    let mut talk = Talk::new();
    let head = "HEAD /h HTTP/1.1\r\n\r\n".to_owned();
    talk.client([head.clone(), get("/a"), head].concat());
    let empty = "HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n".to_owned();
    talk.server([empty.clone(), ok("a"), empty].concat());
    assert_eq!(talk.summary(), ["HEAD /h 200", "GET /a 200", "HEAD /h 200"]);
    assert_eq!(talk.response_body(1), b"a");
}

#[test]
fn no_body_whatever_the_fields_say() {
    for (status, lines) in [
        (204, "Content-Length: 4"),
        (204, "Transfer-Encoding: chunked"),
        (304, "Content-Length: 4, 5"),
        (304, "Transfer-Encoding: chunked"),
    ] {
        let mut talk = Talk::new();
        talk.client(get("/a")).server(format!("HTTP/1.1 {status} x\r\n{lines}\r\n\r\n"));
        talk.client(get("/b")).server(ok("2"));
        assert_eq!(talk.summary(), [format!("GET /a {status}"), "GET /b 200".into()], "{lines}");
    }
}

#[test]
fn bytes_behind_a_response_without_body() {
    let mut talk = Talk::new();
    talk.client(get("/a")).server("HTTP/1.1 204 No\r\nContent-Length: 4\r\n\r\nbody");
    talk.client(get("/b")).server(ok("2")).close();
    assert_eq!(talk.summary()[0], "GET /a 204");
    assert!(talk.seen.iter().skip(1).all(|e| !e.is_complete()));
}

#[test]
fn interim_responses() {
    let mut talk = Talk::new();
    talk.client("POST /a HTTP/1.1\r\nContent-Length: 2\r\n\r\nhi");
    talk.server(
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\nContent-Length: 7\r\n\r\n",
    );
    talk.server("HTTP/1.1 103 Hints\r\nLink: </a>\r\n\r\n").server(ok("1"));
    talk.client(get("/b")).server(ok("2"));
    assert_eq!(talk.summary(), ["POST /a 200", "GET /b 200"]);
    assert_eq!(talk.seen[0].interim, [100, 102, 103]);
}

#[test]
fn interim_responses_without_end_are_bounded() {
    let mut talk = Talk::new();
    talk.client(get("/a"));
    for _ in 0..10_000 {
        talk.server("HTTP/1.1 102 x\r\n\r\n");
    }
    talk.server(ok("1"));
    assert_eq!((talk.summary(), talk.seen[0].interim.len()), (vec!["GET /a 200".to_owned()], 64));
}

#[test]
fn upgrade_to_http_2() {
    let mut talk = Talk::new();
    talk.client(
        "GET /a HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n\r\n",
    );
    talk.server("HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\r\n\0\0\x06\x04\0\0\0\0\0");
    talk.client("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").server(ok("no")).close();
    assert_eq!(talk.summary(), ["GET /a 101"]);
}

#[test]
fn upgrade_refused() {
    let mut talk = Talk::new();
    talk.client("GET /a HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n").server(ok("1"));
    talk.client(get("/b")).server(ok("2"));
    assert_eq!(talk.summary(), ["GET /a 200", "GET /b 200"]);
}

// --- heads that were cut ------------------------------------------------------------------------

#[test]
fn cut_heads_keep_what_was_seen_whole() {
    let mut talk = Talk::new();
    talk.client("POST /a?b=1 HTTP/1.1\r\nHost: x\r\nContent-Length: 77\r\nX-Half: hal");
    talk.lost(ToServer, 100, Loss::Unseen);
    talk.server("HTTP/1.1 201 Created\r\nContent-Length: 30\r\nEta").lost(
        ToClient,
        40,
        Loss::RingFull,
    );
    talk.client(get("/b")).server(ok("2"));
    assert_eq!(talk.summary(), ["POST /a?b=1 201 !", "GET /b 200"]);
    let exchange = &talk.seen[0];
    assert_eq!(exchange.incomplete, [Incomplete::RequestHeadLost, Incomplete::ResponseHeadLost]);
    assert_eq!(exchange.lost, [(Loss::RingFull, 40), (Loss::Unseen, 100)]);
    let (request, response) =
        (exchange.request.as_ref().unwrap(), exchange.response.as_ref().unwrap());
    let names =
        |m: &crate::exchange::Message| m.headers().map(|(n, _)| n.to_owned()).collect::<Vec<_>>();
    assert_eq!(names(&request.message), ["Host", "Content-Length"]);
    assert_eq!(names(&response.message), ["Content-Length"]);
    assert_eq!((request.message.body.length, response.message.body.length), (77, 30));
    assert!(request.message.head.ends_with(b"77\r\n"));
    let partial = [&request.message.body, &response.message.body].map(|b| b.partial);
    assert_eq!(partial, [Some(Partial::Loss); 2]);
}

#[test]
fn status_needs_its_three_digits_and_what_follows() {
    for (seen, status) in [
        ("HTTP/1.1 200 ", Some(200)),
        ("HTTP/1.1 404\r", Some(404)),
        ("HTTP/1.1 503 Service Unav", Some(503)),
        ("HTTP/1.1 200", None),
        ("HTTP/1.1 20", None),
    ] {
        let mut talk = Talk::new();
        talk.client(get("/a")).server(seen).lost(ToClient, 100, Loss::Unseen);
        talk.client(get("/b")).server(ok("2")).close();
        assert_eq!(talk.seen[0].response.as_ref().map(|r| r.status), status, "{seen}");
        assert!(talk.seen[0].incomplete.contains(&Incomplete::ResponseHeadLost));
        assert_eq!(talk.summary()[1], "GET /b 200");
        assert_eq!(talk.lost_of(0), [(Loss::Unseen, 100)]);
    }
}

#[test]
fn target_needs_its_whole_line() {
    for seen in ["GET /long/pa", "GET /a HTTP/1.1", "GET /a HTTP/1.1\r", "GE"] {
        let mut talk = Talk::new();
        talk.client(get("/0")).server(ok("0"));
        talk.client(seen).lost(ToServer, 50, Loss::Unseen).server(ok("1"));
        talk.client(get("/b")).server(ok("2")).close();
        assert_eq!(talk.summary(), ["GET /0 200", "- 200 !", "GET /b 200"], "{seen}");
        assert_eq!(talk.response_body(1), b"1");
    }
}

#[test]
fn head_cut_by_the_end_of_the_connection() {
    let mut talk = Talk::new();
    talk.client(get("/a")).server("HTTP/1.1 502 Bad Gat").close();
    assert_eq!(talk.summary(), ["GET /a 502 !"]);
    assert_eq!(
        talk.seen[0].incomplete,
        [Incomplete::ResponseHeadLost, Incomplete::ConnectionEnded]
    );
    let mut talk = Talk::new();
    talk.client("GET /slow HTTP/1.1\r\nHo").close();
    assert_eq!(talk.summary(), ["GET /slow - !"]);
}

#[test]
fn cut_upload_is_not_taken_for_a_request() {
    let mut talk = Talk::new();
    talk.client("POST /a HTTP/1.1\r\nExpect").lost(ToServer, 50, Loss::Unseen);
    talk.server("HTTP/1.1 100 Continue\r\n\r\n");
    talk.client("GET /fake HTTP/1.1\r\n\r\n").server(ok("a"));
    talk.client(get("/b")).server(ok("b"));
    assert_eq!(talk.summary(), ["POST /a 200 !", "GET /b 200"]);
    assert_eq!(talk.response_body(0), b"a");
}

#[test]
fn pipelined_requests_in_a_cut_segment() {
    let mut talk = Talk::new();
    talk.client("GET /a HTTP/1.1\r\nHo").lost(ToServer, 200, Loss::Unseen);
    talk.server([ok("a"), ok("b")].concat()).client(get("/c")).server(ok("c"));
    assert_eq!(talk.summary(), ["GET /a 200 !", "- 200 !", "GET /c 200"]);
    assert_eq!((talk.response_body(0), talk.response_body(2)), (&b"a"[..], &b"c"[..]));
}

#[test]
fn cut_tunnels() {
    let mut talk = Talk::new();
    talk.client("CONNECT h:443 HTTP/1.1\r\nHo").lost(ToServer, 9, Loss::Unseen);
    talk.server("HTTP/1.1 200 OK\r\nVi").lost(ToClient, 9, Loss::Unseen);
    talk.client(get("/x")).server(ok("y")).close();
    assert_eq!(talk.summary(), ["CONNECT h:443 200 !"]);
    assert_eq!(talk.lost_of(0), [(Loss::Unseen, 18)]);
}
