//! Prints what one exchange costs in `redact`, and in `redact` and `knowledge` together: two JSON
//! bodies of about 1 KB, a path, a query, a few headers.
//! Argument: thousands of exchanges a round (20); one for `valgrind --tool=callgrind`, which counts
//! instructions however busy the machine is.

use std::{hint::black_box, time::Instant};

use stoa_contract::{
    knowledge::{Knowledge, Limits},
    redact::{RedactConfig, Redactor},
};
use stoa_wire::{
    exchange::{Body, Exchange, Header, Message, Request, Response},
    segment::{Endpoints, FlowId},
};

fn message(start: &str, headers: &[(&str, &str)], body: &str) -> Message {
    let mut head = start.to_owned();
    let mut spans = Vec::new();
    for (name, value) in headers {
        let name = (head.len() as u32, (head.len() + name.len()) as u32, name);
        head.push_str(name.2);
        head.push_str(": ");
        let value_start = head.len() as u32;
        head.push_str(value);
        spans.push(Header { name: (name.0, name.1), value: (value_start, head.len() as u32) });
        head.push_str("\r\n");
    }
    head.push_str("\r\n");
    Message {
        head: head.into_bytes().into(),
        headers: spans,
        minor: 1,
        trailers: Vec::new(),
        body: Body {
            length: body.len() as u64,
            content: body.as_bytes().to_vec().into(),
            ..Body::default()
        },
    }
}

fn body(seed: usize) -> String {
    let lines: Vec<String> = (0..6)
        .map(|i| {
            format!(
                r#"{{"id":{},"sku":"SKU-{}","title":"A thing that people buy, number {i}","quantity":{i},"price":{}.95,"status":"active"}}"#,
                seed * 31 + i, seed % 97 + i, seed % 50
            )
        })
        .collect();
    format!(
        r#"{{"id":"550e8400-e29b-41d4-a716-{:012}","customer":{{"name":"Jean Dupont","email":"jean{seed}@shop.example","phone":"+33612345678"}},"createdAt":"2026-11-20T10:20:30Z","currency":"EUR","items":[{}]}}"#,
        seed,
        lines.join(",")
    )
}

fn main() {
    let exchanges: Vec<Exchange> = (0..1000)
        .map(|seed| {
            let address = ([127, 0, 0, 1], 80).into();
            let target = format!("/api/v1/shops/{}/orders/{}", seed % 20, seed * 7919);
            let start = format!("PUT {target}?limit=10&sort=created_at HTTP/1.1\r\n");
            let end = start.len() as u32 - 11;
            let headers = [
                ("Host", "shop.example"),
                ("User-Agent", "curl/8"),
                ("Content-Type", "application/json"),
                ("Authorization", "Bearer q8Zr2Lk9Xw4Tn7Vb1Yc5"),
                ("Idempotency-Key", "f3b2"),
            ];
            Exchange {
                flow: FlowId(seed as u64 % 64),
                endpoints: Endpoints { client: address, server: address, service: 0 },
                started: 1_700_000_000_000_000_000,
                ended: 1_700_000_000_001_000_000,
                request: Some(Request {
                    method: 0..3,
                    target: 4..end,
                    message: message(&start, &headers, &body(seed)),
                }),
                response: Some(Response {
                    status: 200,
                    message: message(
                        "HTTP/1.1 200 OK\r\n",
                        &[("Content-Type", "application/json"), ("Date", "x")],
                        &body(seed + 1),
                    ),
                }),
                interim: Vec::new(),
                incomplete: Vec::new(),
                lost: Vec::new(),
            }
        })
        .collect();
    let bytes: usize = exchanges
        .iter()
        .filter_map(|e| e.request.as_ref())
        .map(|r| r.message.body.content.len())
        .sum();
    println!("two bodies of {} bytes", bytes / exchanges.len());
    let rounds: u32 = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(20);
    let mut redactor = Redactor::new([7; 16], RedactConfig::default());
    let mut knowledge = Knowledge::new(Limits::default());
    let count = u128::from(rounds) * exchanges.len() as u128;
    for round in 0..5 {
        let begin = Instant::now();
        for _ in 0..rounds {
            for exchange in &exchanges {
                black_box(redactor.observe(black_box(exchange)));
            }
        }
        let redact = begin.elapsed().as_nanos() / count;
        let begin = Instant::now();
        for _ in 0..rounds {
            for exchange in &exchanges {
                if let Some(observation) = redactor.observe(black_box(exchange)) {
                    knowledge.record("shop", "node", 3600, black_box(&observation));
                }
            }
        }
        let both = begin.elapsed().as_nanos() / count;
        println!("round {round}: {redact} ns an exchange to redact, {both} with recording");
    }
}
