//! How long the reader takes per exchange: keep-alive, in-order segments, 1 KB bodies.
//! Argument: exchanges per connection (20000); few of them for `valgrind --tool=callgrind`.
use std::{hint::black_box, time::Instant};

use stoa_wire::{
    Reader, ReaderConfig,
    segment::{Direction, Endpoints, Event, FlowId, Segment},
};

fn main() {
    const FLOWS: u64 = 64;
    let rounds: u32 = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(20_000);
    let request =
        b"GET /api/v1/orders/12345 HTTP/1.1\r\nHost: shop.example\r\nUser-Agent: wrk/4.2\r\n\
        Accept: application/json\r\nAuthorization: Bearer abcdefghijklmnop\r\n\r\n"
            .as_slice();
    let head = "HTTP/1.1 200 OK\r\nServer: nginx\r\nDate: Fri, 20 Nov 2026 14:00:00 GMT\r\n\
        Content-Type: application/json\r\nContent-Length: 1024\r\nConnection: keep-alive\r\n\r\n";
    let response = [head.as_bytes(), &[b'x'; 1024]].concat();
    for round in 0..3 {
        let mut reader = Reader::new(ReaderConfig::default());
        let mut exchanges = 0_u64;
        let mut sink = |exchange| {
            black_box(&exchange);
            exchanges += 1;
        };
        for flow in 0..FLOWS {
            let client = ([10, 0, 0, 1], 20_000 + flow as u16).into();
            let endpoints = Endpoints { client, server: ([10, 0, 0, 2], 80).into(), service: 0 };
            let open = Event::Open { flow: FlowId(flow), at: 0, endpoints, from_start: true };
            reader.push(open, &mut sink);
        }
        let start = Instant::now();
        let mut numbers = (1_u32, 1_u32);
        for i in 0..rounds {
            for flow in 0..FLOWS {
                for (direction, data) in
                    [(Direction::ToServer, request), (Direction::ToClient, &response)]
                {
                    let (seq, ack) = match direction {
                        Direction::ToServer => numbers,
                        Direction::ToClient => (numbers.1, numbers.0 + request.len() as u32),
                    };
                    let segment = Segment {
                        flow: FlowId(flow),
                        direction,
                        at: u64::from(i),
                        seq,
                        ack: Some(ack),
                        syn: false,
                        fin: false,
                        rst: false,
                        len: data.len() as u32,
                        data,
                        missing: None,
                    };
                    reader.push(Event::Segment(segment), &mut sink);
                }
            }
            numbers.0 = numbers.0.wrapping_add(request.len() as u32);
            numbers.1 = numbers.1.wrapping_add(response.len() as u32);
        }
        let spent = start.elapsed();
        let complete = reader.counters().exchanges_complete;
        println!(
            "round {round}: {exchanges} exchanges ({complete} complete), {} ns an exchange",
            spent.as_nanos() as u64 / exchanges.max(1)
        );
    }
}
