use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    time::Instant,
};

use super::*;

fn start(target: SocketAddr, queue_bytes: usize) -> InlineSource {
    InlineSource::start(InlineConfig {
        listen: "127.0.0.1:0".parse().unwrap(),
        target: Target { host: target.ip().to_string(), port: target.port() },
        service: 3,
        max_connections: 8,
        queue_bytes,
    })
    .unwrap()
}

/// A server that reads to the end of the request stream, then answers with the number of bytes.
fn serve_counts() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut all = Vec::new();
            stream.read_to_end(&mut all).unwrap();
            stream.write_all(all.len().to_string().as_bytes()).unwrap();
        }
    });
    address
}

fn exchange(address: SocketAddr, bytes: &[u8]) -> String {
    let mut client = TcpStream::connect(address).unwrap();
    client.write_all(bytes).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    answer
}

#[derive(Default)]
struct Seen {
    requests: Vec<u8>,
    responses: Vec<u8>,
    lost: u64,
    opened: usize,
    closed: usize,
    ends: usize,
}

fn drain_until_closed(source: &mut InlineSource, connections: usize) -> Seen {
    let mut seen = Seen::default();
    let deadline = Instant::now() + Duration::from_secs(10);
    while seen.closed < connections && Instant::now() < deadline {
        let count = source
            .drain(&mut |event| match event {
                Event::Open { endpoints, from_start, .. } => {
                    assert!(from_start && endpoints.service == 3);
                    seen.opened += 1;
                }
                Event::Segment(segment) => {
                    let stream = match segment.direction {
                        Direction::ToServer => &mut seen.requests,
                        Direction::ToClient => &mut seen.responses,
                    };
                    stream.extend_from_slice(segment.data);
                    seen.ends += usize::from(segment.fin);
                }
                Event::Lost { len, .. } => seen.lost += u64::from(len),
                Event::Close { .. } => seen.closed += 1,
            })
            .unwrap();
        if count == 0 {
            std::thread::park_timeout(Duration::from_millis(2));
        }
    }
    seen
}

#[test]
fn bytes_pass_unchanged_and_half_close_is_honoured() {
    let mut source = start(serve_counts(), 1 << 20);
    let bytes: Vec<u8> = (0..100_000_u32).map(|i| (i % 251) as u8).collect();
    assert_eq!(exchange(source.address(), &bytes), "100000");
    let seen = drain_until_closed(&mut source, 1);
    assert!(seen.requests == bytes);
    assert_eq!(seen.responses, b"100000");
    assert_eq!((seen.opened, seen.ends, seen.lost), (1, 2, 0));
    let counters = source.counters();
    assert_eq!(counters[0].due_bytes, 100_006);
    assert_eq!(counters[0].captured_bytes, 100_006);
}

#[test]
fn an_analysis_that_does_not_drain_costs_bytes_of_the_copy_only() {
    let mut source = start(serve_counts(), 64 << 10);
    let bytes = vec![b'x'; 4 << 20];
    assert_eq!(exchange(source.address(), &bytes), (4 << 20).to_string());
    let seen = drain_until_closed(&mut source, 1);
    let counters = source.counters().remove(0);
    assert_eq!(counters.due_bytes, (4 << 20) + 7);
    let lost: u64 = counters.lost.iter().map(|(_, _, bytes)| bytes).sum();
    assert!(lost > 0);
    assert_eq!(counters.captured_bytes + lost, counters.due_bytes);
    assert_eq!((seen.requests.len() + seen.responses.len()) as u64, counters.captured_bytes);
}

#[test]
fn a_target_that_is_down_resets_the_client_and_is_counted() {
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let source = start(gone, 1 << 20);
    let mut client = TcpStream::connect(source.address()).unwrap();
    let _ = client.write_all(b"GET / HTTP/1.1\r\n\r\n");
    assert_eq!(client.read(&mut [0; 16]).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    assert!(source.source_counters().contains(&("inline_connect_errors", 1)));
}

#[test]
fn an_address_in_use_is_an_error_that_names_the_flag() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let error = InlineSource::start(InlineConfig {
        listen: taken.local_addr().unwrap(),
        target: Target { host: "127.0.0.1".to_owned(), port: 1 },
        service: 0,
        max_connections: 1,
        queue_bytes: 1 << 20,
    })
    .err()
    .unwrap()
    .to_string();
    assert!(error.contains("--inline-listen"), "{error}");
}
