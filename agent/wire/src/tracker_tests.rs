use super::*;

fn frame(source: u8, destination: u8, seq: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![0x45, 0];
    out.extend_from_slice(&(40 + payload.len() as u16).to_be_bytes());
    out.extend_from_slice(&[0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 0, source, 10, 0, 0, destination]);
    out.extend_from_slice(&[9, source, 9, destination]);
    out.extend_from_slice(&seq.to_be_bytes());
    out.extend_from_slice(&[0, 0, 0, 0, 0x50, flags, 0, 0, 0, 0, 0, 0]);
    out.extend_from_slice(payload);
    out
}

/// `open 1>2 start`, `1 3 bytes`, `close`.
fn track(frames: &[Vec<u8>]) -> Vec<String> {
    let mut tracker = Tracker::new(TrackerConfig::default());
    let mut out = Vec::new();
    let mut note = |event: Event<'_>| {
        out.push(match event {
            Event::Open { endpoints, from_start, .. } => {
                let host = |a: SocketAddr| a.port() - 9 * 256;
                let start = if from_start { " start" } else { "" };
                format!("open {}>{}{start}", host(endpoints.client), host(endpoints.server))
            }
            Event::Segment(s) => format!("{:?} {}", s.direction, s.len),
            Event::Lost { .. } => "lost".into(),
            Event::Close { .. } => "close".into(),
        });
    };
    for (i, frame) in frames.iter().enumerate() {
        tracker.push(LinkType::RAW, i as u64, frame, frame.len() as u32, &mut note);
    }
    tracker.finish(&mut note);
    out
}

#[test]
fn syn_tells_the_client() {
    assert_eq!(track(&[frame(2, 1, 0, 2, b"")]), ["open 2>1 start", "ToServer 0"]);
}

#[test]
fn syn_ack_tells_the_server() {
    assert_eq!(track(&[frame(2, 1, 0, 0x12, b"")]), ["open 1>2 start", "ToClient 0"]);
}

#[test]
fn request_tells_the_client() {
    let seen = track(&[frame(1, 2, 0, 0x10, b"abc"), frame(2, 1, 0, 0x10, b"GET / HTTP/1.1\r\n")]);
    assert_eq!(seen, ["open 2>1", "ToClient 3", "ToServer 16"]);
}

#[test]
fn response_tells_the_server() {
    let seen = track(&[frame(1, 2, 0, 0x10, b"abc"), frame(2, 1, 0, 0x10, b"HTTP/1.1 200")]);
    assert_eq!(seen, ["open 1>2", "ToServer 3", "ToClient 12"]);
}

#[test]
fn undecided_flow_is_held() {
    assert!(track(&[frame(1, 2, 0, 0x10, b"abc")]).is_empty());
}

#[test]
fn new_syn_is_a_new_flow() {
    let seen = track(&[frame(1, 2, 5, 2, b""), frame(1, 2, 5, 2, b""), frame(1, 2, 99, 2, b"")]);
    let expected =
        ["open 1>2 start", "ToServer 0", "ToServer 0", "close", "open 1>2 start", "ToServer 0"];
    assert_eq!(seen, expected);
}

#[test]
fn two_fins_close() {
    let seen =
        track(&[frame(1, 2, 5, 2, b""), frame(1, 2, 6, 0x11, b""), frame(2, 1, 8, 0x11, b"")]);
    assert_eq!(seen.last().map(String::as_str), Some("close"));
}

#[test]
fn fragments_become_a_segment() {
    let whole = frame(1, 2, 0, 0x10, b"GET /long HTTP/1.1\r\n\r\n");
    let piece = |from: usize, to: usize, more: bool| {
        let mut out = whole[..20].to_vec();
        out.extend_from_slice(&whole[20 + from..20 + to]);
        let len = out.len() as u16;
        out[2..4].copy_from_slice(&len.to_be_bytes());
        out[6..8]
            .copy_from_slice(&((from / 8) as u16 | if more { 0x2000 } else { 0 }).to_be_bytes());
        out
    };
    let end = whole.len() - 20;
    let seen = track(&[piece(24, end, false), piece(0, 24, true)]);
    assert_eq!(seen, ["open 1>2", "ToServer 22"]);
}
