use super::*;
use crate::{
    exchange::{Incomplete, Partial},
    segment::{Direction, Loss, Segment},
};

#[path = "message_tests.rs"]
mod messages;

const FLOW: FlowId = FlowId(7);

/// A conversation between a client and a server, both of whose streams start at 1.
struct Talk {
    reader: Reader,
    seen: Vec<Exchange>,
    next: [u32; 2],
    at: Nanos,
}

use Direction::{ToClient, ToServer};

impl Talk {
    fn with(config: ReaderConfig, from_start: bool) -> Self {
        let mut talk = Self { reader: Reader::new(config), seen: Vec::new(), next: [1, 1], at: 1 };
        let endpoints = Endpoints {
            client: ([10, 0, 0, 1], 40_000).into(),
            server: ([10, 0, 0, 2], 80).into(),
            service: 3,
        };
        talk.event(Event::Open { flow: FLOW, at: 1, endpoints, from_start });
        talk
    }

    fn new() -> Self {
        Self::with(ReaderConfig { hash_bodies: true, ..ReaderConfig::default() }, true)
    }

    fn joined() -> Self {
        Self::with(ReaderConfig::default(), false)
    }

    fn event(&mut self, event: Event<'_>) -> &mut Self {
        let seen = &mut self.seen;
        self.reader.push(event, &mut |exchange| seen.push(exchange));
        self
    }

    fn segment(&mut self, direction: Direction, text: &[u8], seq: u32, ack: u32) -> &mut Self {
        self.at += 1;
        let segment = Segment {
            flow: FLOW,
            direction,
            at: self.at,
            seq,
            ack: Some(ack),
            syn: false,
            fin: false,
            rst: false,
            len: text.len() as u32,
            data: text,
            missing: None,
        };
        self.event(Event::Segment(segment))
    }

    fn client(&mut self, text: impl AsRef<[u8]>) -> &mut Self {
        let (seq, ack) = (self.next[0], self.next[1]);
        self.next[0] += text.as_ref().len() as u32;
        self.segment(ToServer, text.as_ref(), seq, ack)
    }

    fn server(&mut self, text: impl AsRef<[u8]>) -> &mut Self {
        let (seq, ack) = (self.next[1], self.next[0]);
        self.next[1] += text.as_ref().len() as u32;
        self.segment(ToClient, text.as_ref(), seq, ack)
    }

    /// Bytes that are sent and never seen by the capture; nobody says so.
    fn unseen(&mut self, direction: Direction, text: impl AsRef<[u8]>) -> &mut Self {
        self.next[usize::from(direction == ToClient)] += text.as_ref().len() as u32;
        self
    }

    fn lost(&mut self, direction: Direction, len: u32, reason: Loss) -> &mut Self {
        let next = &mut self.next[usize::from(direction == ToClient)];
        let seq = *next;
        *next += len;
        self.event(Event::Lost { flow: FLOW, direction, at: 2, seq, len, reason })
    }

    fn close(&mut self) -> &mut Self {
        self.event(Event::Close { flow: FLOW, at: 9 })
    }

    fn finish(&mut self) -> &mut Self {
        let seen = &mut self.seen;
        self.reader.finish(&mut |exchange| seen.push(exchange));
        self
    }

    /// `GET /a 200` for each exchange, `-` for what is missing.
    fn summary(&self) -> Vec<String> {
        let show = |e: &Exchange| {
            let request = e.request.as_ref().map_or("-".into(), |r| {
                format!("{} {}", r.method(), String::from_utf8_lossy(r.target()))
            });
            let status = e.response.as_ref().map_or("-".into(), |r| r.status.to_string());
            let mark = if e.is_complete() { "" } else { " !" };
            format!("{request} {status}{mark}")
        };
        self.seen.iter().map(show).collect()
    }

    fn response_body(&self, i: usize) -> &[u8] {
        &self.seen[i].response.as_ref().unwrap().message.body.content
    }

    fn lost_of(&self, i: usize) -> &[(Loss, u64)] {
        &self.seen[i].lost
    }
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")
}

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

// --- no loss ------------------------------------------------------------------------------------

#[test]
fn one_exchange() {
    let mut talk = Talk::new();
    talk.client(get("/a")).server(ok("hi"));
    assert_eq!(talk.summary(), ["GET /a 200"]);
    assert_eq!(talk.response_body(0), b"hi");
}

#[test]
fn keep_alive() {
    let mut talk = Talk::new();
    talk.client(get("/a")).server(ok("1")).client(get("/b")).server(ok("2"));
    assert_eq!(talk.summary(), ["GET /a 200", "GET /b 200"]);
}

#[test]
fn byte_by_byte() {
    let mut talk = Talk::new();
    for byte in get("/a").bytes() {
        talk.client([byte]);
    }
    for byte in ok("hello").bytes() {
        talk.server([byte]);
    }
    assert_eq!(talk.summary(), ["GET /a 200"]);
    assert_eq!(talk.response_body(0), b"hello");
}

#[test]
fn pipelined() {
    let mut talk = Talk::new();
    talk.client([get("/a"), get("/b"), get("/c")].concat());
    talk.server([ok("1"), ok("2"), ok("3")].concat());
    assert_eq!(talk.summary(), ["GET /a 200", "GET /b 200", "GET /c 200"]);
    assert_eq!(talk.response_body(2), b"3");
}

#[test]
fn response_captured_before_its_request() {
    let mut talk = Talk::new();
    let request = get("/a");
    talk.client(get("/0")).server(ok("0"));
    let (c, s) = (talk.next[0], talk.next[1]);
    talk.unseen(ToServer, &request).server(ok("1"));
    talk.segment(ToServer, request.as_bytes(), c, s);
    assert_eq!(talk.summary(), ["GET /0 200", "GET /a 200"]);
}

#[test]
fn chunked_with_extension_and_trailer() {
    let mut talk = Talk::new();
    talk.client(get("/a")).server("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    talk.server("3;x=\"y\"\r\nabc\r\n00A \r\n0123456789\r\n0\r\nX-Sum: 7\r\n\r\n");
    talk.client(get("/b")).server(ok("2"));
    assert_eq!(talk.summary(), ["GET /a 200", "GET /b 200"]);
    assert_eq!(talk.response_body(0), b"abc0123456789");
    let trailers = &talk.seen[0].response.as_ref().unwrap().message.trailers;
    assert_eq!(trailers[0], ("X-Sum".into(), "7".into()));
}

#[test]
fn head_has_no_body_whatever_it_says() {
    let mut talk = Talk::new();
    talk.client("HEAD /a HTTP/1.1\r\n\r\n").server("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n");
    talk.client(get("/b")).server(ok("2"));
    assert_eq!(talk.summary(), ["HEAD /a 200", "GET /b 200"]);
}

#[test]
fn no_content_and_not_modified() {
    let mut talk = Talk::new();
    talk.client(get("/a")).server("HTTP/1.1 204 No\r\n\r\n");
    talk.client(get("/b")).server("HTTP/1.1 304 Not\r\nContent-Length: 99\r\n\r\n");
    talk.client(get("/c")).server(ok("3"));
    assert_eq!(talk.summary(), ["GET /a 204", "GET /b 304", "GET /c 200"]);
}

#[test]
fn expect_continue() {
    let mut talk = Talk::new();
    talk.client("POST /a HTTP/1.1\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n");
    talk.server("HTTP/1.1 100 Continue\r\n\r\n").client("hi").server(ok("1"));
    assert_eq!(talk.summary(), ["POST /a 200"]);
    assert_eq!(talk.seen[0].interim, [100]);
}

#[test]
fn upgrade_stops_reading() {
    let mut talk = Talk::new();
    talk.client("GET /ws HTTP/1.1\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n");
    talk.server("HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\n\r\n\x01\x02");
    talk.client(get("/not-http")).server(ok("no")).close();
    assert_eq!(talk.summary(), ["GET /ws 101"]);
}

#[test]
fn connect_becomes_a_tunnel() {
    let mut talk = Talk::new();
    talk.client("CONNECT h:443 HTTP/1.1\r\nHost: h:443\r\n\r\n");
    talk.server("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n").client(get("/x")).server(ok("y"));
    assert_eq!(talk.summary(), ["CONNECT h:443 200"]);
}

#[test]
fn refused_connect_leaves_http() {
    let mut talk = Talk::new();
    talk.client("CONNECT h:443 HTTP/1.1\r\n\r\n");
    talk.server("HTTP/1.1 407 No\r\nContent-Length: 1\r\n\r\nx").client(get("/b")).server(ok("y"));
    assert_eq!(talk.summary(), ["CONNECT h:443 407", "GET /b 200"]);
}

#[test]
fn body_until_close() {
    let mut talk = Talk::new();
    talk.client("GET /a HTTP/1.0\r\n\r\n").server("HTTP/1.0 200 OK\r\n\r\nsome").server(" text");
    assert!(talk.seen.is_empty());
    talk.close();
    assert_eq!(talk.summary(), ["GET /a 200"]);
    assert_eq!(talk.response_body(0), b"some text");
}

#[test]
fn body_until_close_out_of_sight_is_cut() {
    let mut talk = Talk::new();
    talk.client("GET /a HTTP/1.0\r\n\r\n").server("HTTP/1.0 200 OK\r\n\r\nsome").finish();
    let exchange = &talk.seen[0];
    assert_eq!(
        exchange.incomplete,
        [Incomplete::ResponseBodyTruncated, Incomplete::ConnectionEnded]
    );
    assert_eq!(exchange.response.as_ref().unwrap().message.body.partial, Some(Partial::Cut));
}

#[test]
fn empty_line_before_a_request() {
    let mut talk = Talk::new();
    talk.client("POST /a HTTP/1.1\r\nContent-Length: 2\r\n\r\nhi\r\n").server(ok("1"));
    talk.client(get("/b")).server(ok("2"));
    assert_eq!(talk.summary(), ["POST /a 200", "GET /b 200"]);
}

#[test]
fn long_body_is_kept_in_part() {
    let mut talk = Talk::new();
    talk.client(get("/a")).server(ok(&"x".repeat(20_000)));
    let body = &talk.seen[0].response.as_ref().unwrap().message.body;
    assert_eq!((body.length, body.content.len()), (20_000, 16 << 10));
    assert_eq!(body.partial, Some(Partial::Limit));
    assert!(talk.seen[0].is_complete() && body.sha256.is_some());
}

#[test]
fn equal_lengths_are_one() {
    let mut talk = Talk::new();
    talk.client(get("/a"));
    talk.server("HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\nContent-Length: 2\r\n\r\nhi");
    assert_eq!(talk.summary(), ["GET /a 200"]);
}

#[test]
fn response_without_request_is_not_invented_into_one() {
    let mut talk = Talk::new();
    talk.server("HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n").close();
    assert_eq!(talk.summary(), ["- 408 !"]);
}

#[test]
fn request_without_response() {
    let mut talk = Talk::new();
    talk.client(get("/a")).close();
    let exchange = &talk.seen[0];
    assert!(exchange.response.is_none());
    assert_eq!(exchange.incomplete, [Incomplete::ResponseMissing, Incomplete::ConnectionEnded]);
}

// --- loss ---------------------------------------------------------------------------------------

#[test]
fn hole_in_a_body_of_known_length() {
    let mut talk = Talk::new();
    talk.client(get("/a")).server("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nab");
    talk.lost(ToClient, 6, Loss::RingFull).server("cd").client(get("/b")).server(ok("2"));
    assert_eq!(talk.summary(), ["GET /a 200 !", "GET /b 200"]);
    assert_eq!(talk.seen[0].incomplete, [Incomplete::ResponseBodyTruncated]);
    assert_eq!(talk.lost_of(0), [(Loss::RingFull, 6)]);
    let body = &talk.seen[0].response.as_ref().unwrap().message.body;
    assert_eq!(
        (body.length, &body.content[..], body.partial),
        (10, &b"ab"[..], Some(Partial::Loss))
    );
}

#[test]
fn budget_is_a_limit_and_not_a_loss() {
    let mut talk = Talk::new();
    talk.client("POST /a HTTP/1.1\r\nContent-Length: 10\r\n\r\nab");
    talk.lost(ToServer, 8, Loss::Budget).server(ok("1"));
    let body = &talk.seen[0].request.as_ref().unwrap().message.body;
    assert_eq!((body.partial, body.length), (Some(Partial::Limit), 10));
    assert_eq!(talk.lost_of(0), [(Loss::Budget, 8)]);
}

#[test]
fn hole_in_a_chunked_response() {
    let mut talk = Talk::new();
    talk.client(get("/a")).server("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab");
    talk.lost(ToClient, 500, Loss::Budget).client(get("/b")).server(ok("2"));
    assert_eq!(talk.summary(), ["GET /a 200 !", "GET /b 200"]);
    assert_eq!(talk.lost_of(0), [(Loss::Budget, 500)]);
    assert_eq!(talk.response_body(1), b"2");
}

#[test]
fn hole_within_one_chunk_is_harmless() {
    let mut talk = Talk::new();
    talk.client(get("/a")).server("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n8\r\nab");
    talk.lost(ToClient, 4, Loss::RingFull)
        .server("gh\r\n0\r\n\r\n")
        .client(get("/b"))
        .server(ok("2"));
    assert_eq!(talk.summary(), ["GET /a 200 !", "GET /b 200"]);
}

#[test]
fn lost_response_is_not_given_the_next_one() {
    let mut talk = Talk::new();
    talk.client(get("/a")).unseen(ToClient, ok("1")).client(get("/b")).server(ok("2"));
    talk.client(get("/c")).server(ok("3")).client(get("/d")).server(ok("4")).close();
    assert_eq!(talk.summary(), ["GET /a - !", "GET /b 200", "GET /c 200", "GET /d 200"]);
    assert_eq!(talk.response_body(1), b"2");
    assert_eq!(talk.lost_of(0), [(Loss::Unseen, ok("1").len() as u64)]);
}

#[test]
fn lost_request_does_not_shift_the_responses() {
    let mut talk = Talk::new();
    talk.client(get("/a")).server(ok("1"));
    talk.unseen(ToServer, get("/b")).server(ok("2"));
    talk.client(get("/c")).server(ok("3")).client(get("/d")).server(ok("4")).close();
    assert_eq!(talk.summary(), ["GET /a 200", "- 200 !", "GET /c 200", "GET /d 200"]);
    assert_eq!(talk.response_body(1), b"2");
    assert_eq!(talk.response_body(2), b"3");
    assert_eq!(talk.lost_of(1), [(Loss::Unseen, get("/b").len() as u64)]);
}

#[test]
fn pipelined_request_lost() {
    let mut talk = Talk::new();
    let ack = talk.next[1];
    talk.client(get("/a")).lost(ToServer, get("/b").len() as u32, Loss::RingFull);
    let seq = talk.next[0];
    talk.next[0] += get("/c").len() as u32;
    talk.segment(ToServer, get("/c").as_bytes(), seq, ack);
    talk.server([ok("1"), ok("2"), ok("3")].concat()).close();
    assert_eq!(talk.summary()[0], "GET /a 200");
    assert_eq!(talk.response_body(0), b"1");
    let third = talk.seen.iter().find(|e| e.request.as_ref().is_some_and(|r| r.target() == b"/c"));
    let third = third.unwrap();
    assert!(third.response.is_none());
    assert!(third.incomplete.contains(&Incomplete::PairingUnprovable));
}

#[test]
fn request_in_the_body_of_a_lost_upload_gets_no_response() {
    let mut talk = Talk::new();
    let ack = talk.next[1];
    talk.client("POST /up HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n");
    talk.lost(ToServer, 100, Loss::RingFull);
    let seq = talk.next[0];
    talk.next[0] += get("/fake").len() as u32;
    talk.segment(ToServer, get("/fake").as_bytes(), seq, ack);
    talk.server(ok("up")).client(get("/b")).server(ok("2")).close();
    assert_eq!(talk.summary(), ["POST /up 200 !", "GET /fake - !", "GET /b 200"]);
    assert_eq!(talk.response_body(2), b"2");
}

#[test]
fn response_in_the_body_of_a_lost_response_is_not_believed() {
    let mut talk = Talk::new();
    talk.client(get("/a")).server("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n400\r\n");
    talk.lost(ToClient, 4000, Loss::RingFull).server("HTTP/1.1 500 Fake\r\n\r\n");
    talk.client(get("/b")).server(ok("2")).close();
    assert_eq!(talk.summary(), ["GET /a 200 !", "GET /b 200"]);
}

#[test]
fn join_in_the_middle_of_a_response() {
    let mut talk = Talk::joined();
    (talk.next[0], talk.next[1]) = (5000, 7000);
    talk.server("rest of a body")
        .client(get("/a"))
        .server(ok("1"))
        .client(get("/b"))
        .server(ok("2"));
    assert_eq!(talk.summary(), ["GET /a 200", "GET /b 200"]);
}

#[test]
fn join_in_the_middle_of_a_request() {
    let mut talk = Talk::joined();
    talk.client("end of an upload").server(ok("up")).client(get("/a")).server(ok("1"));
    assert_eq!(talk.summary(), ["GET /a 200"]);
    assert_eq!(talk.response_body(0), b"1");
}

#[test]
fn two_gaps_in_one_response() {
    let mut talk = Talk::new();
    talk.client(get("/a")).server("HTTP/1.1 200 OK\r\nContent-Length: 30\r\n\r\n");
    talk.lost(ToClient, 10, Loss::Budget).server("0123456789").lost(ToClient, 10, Loss::RingFull);
    assert_eq!(talk.lost_of(0), [(Loss::RingFull, 10), (Loss::Budget, 10)]);
}

// --- bounds -------------------------------------------------------------------------------------

#[test]
fn head_longer_than_the_limit() {
    let mut talk = Talk::new();
    talk.client("GET /a HTTP/1.1\r\n");
    for _ in 0..80 {
        talk.client(format!("X: {}\r\n", "y".repeat(1000)));
    }
    assert_eq!(talk.reader.counters().heads_refused, 1);
    assert!(talk.reader.counters().memory < 10_000);
}

#[test]
fn memory_of_all_flows_is_bounded() {
    let limit = 1 << 20;
    let config = ReaderConfig { memory_limit: limit, ..ReaderConfig::default() };
    let mut talk = Talk::with(config, true);
    let endpoints = talk.seen.first().map_or(
        Endpoints {
            client: ([1, 1, 1, 1], 1).into(),
            server: ([2, 2, 2, 2], 2).into(),
            service: 0,
        },
        |e| e.endpoints,
    );
    for i in 0..2000 {
        let flow = FlowId(100 + i);
        talk.event(Event::Open { flow, at: i, endpoints, from_start: true });
        let data = [b"POST /a HTTP/1.1\r\nContent-Length: 99999\r\n\r\n".as_slice(), &[b'x'; 8000]]
            .concat();
        let segment = Segment {
            flow,
            direction: ToServer,
            at: i,
            seq: 1,
            ack: Some(1),
            syn: false,
            fin: false,
            rst: false,
            len: data.len() as u32,
            data: &data,
            missing: None,
        };
        talk.event(Event::Segment(segment));
        assert!(talk.reader.counters().memory <= limit as u64);
    }
    assert!(talk.reader.counters().flows_evicted > 1000);
    talk.finish();
    assert_eq!(talk.reader.counters().memory, 0);
    assert_eq!(talk.seen.len(), 2000);
}

#[test]
fn idle_flow_expires() {
    let mut talk = Talk::new();
    talk.client(get("/a"));
    let seen = &mut talk.seen;
    talk.reader.expire(400_000_000_000, &mut |e| seen.push(e));
    assert_eq!(talk.summary(), ["GET /a - !"]);
    assert_eq!(talk.reader.counters().flows, 0);
}

#[test]
fn cut_heads_are_exchanges_all_the_same() {
    let mut talk = Talk::new();
    for _ in 0..3 {
        talk.client("GET /a HTTP/1.1\r\nHo").lost(ToServer, 8, Loss::Unseen);
        talk.server("HTTP/1.1 200 OK\r\nCo").lost(ToClient, 50, Loss::Unseen);
    }
    talk.close();
    assert_eq!(talk.summary(), ["GET /a 200 !", "GET /a 200 !", "GET /a 200 !"]);
    for exchange in &talk.seen {
        assert_eq!(exchange.lost, [(Loss::Unseen, 58)]);
        let reasons = [Incomplete::RequestHeadLost, Incomplete::ResponseHeadLost];
        assert!(reasons.iter().all(|r| exchange.incomplete.contains(r)));
    }
}

/// The kernel tells of each direction's loss just before that direction's next bytes, so the loss
/// of a response arrives after the request that followed it.
#[test]
fn shed_exchange_does_not_burden_the_next_one() {
    let mut talk = Talk::new();
    let shed = ok("shed");
    talk.client(get("/a")).server(ok("a")).lost(ToServer, 50, Loss::Shed);
    let (seq, len) = (talk.next[1], shed.len() as u32);
    talk.unseen(ToClient, shed).client(get("/c"));
    let reason = Loss::Shed;
    talk.event(Event::Lost { flow: FLOW, direction: ToClient, at: 2, seq, len, reason });
    talk.server(ok("c"));
    assert_eq!(talk.summary(), ["GET /a 200", "GET /c 200"]);
    assert_eq!(talk.lost_of(1), []);
}

#[test]
fn first_of_a_pipelined_burst_lost() {
    let mut talk = Talk::new();
    talk.client(get("/0")).server(ok("0"));
    let ack = talk.next[1];
    talk.unseen(ToServer, get("/a"));
    let seq = talk.next[0];
    talk.next[0] += get("/b").len() as u32;
    talk.segment(ToServer, get("/b").as_bytes(), seq, ack);
    talk.server(ok("a")).server(ok("b")).client(get("/c")).server(ok("c")).close();
    assert_eq!(talk.summary(), ["GET /0 200", "- 200 !", "- 200 !", "GET /b - !", "GET /c 200"]);
    assert_eq!(talk.response_body(4), b"c");
}
