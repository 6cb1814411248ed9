use super::*;
use crate::{
    recording::Recorder,
    segment::{Direction, Endpoints, Event, FlowId, Segment},
};

const REQUEST: &[u8] = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n";
const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";

fn segment(direction: Direction, seq: u32, ack: u32, data: &[u8]) -> Event<'_> {
    Event::Segment(Segment {
        flow: FlowId(1),
        direction,
        at: 1_700_000_000_000_000_001,
        seq,
        ack: Some(ack),
        syn: false,
        fin: false,
        rst: false,
        len: data.len() as u32,
        data,
        missing: None,
    })
}

fn recording(client: &str) -> Vec<u8> {
    let server = if client.starts_with('[') { "[fe80::1]:80" } else { "10.0.0.2:80" };
    let (client, server) = (client.parse().unwrap(), server.parse().unwrap());
    let mut recorder = Recorder::new(Vec::new()).unwrap();
    recorder.name_service(0, "shop").unwrap();
    let endpoints = Endpoints { client, server, service: 0 };
    let events = [
        Event::Open { flow: FlowId(1), at: 1, endpoints, from_start: true },
        segment(Direction::ToServer, 10, 20, REQUEST),
        segment(Direction::ToClient, 20, 10 + REQUEST.len() as u32, RESPONSE),
        Event::Close { flow: FlowId(1), at: 2 },
    ];
    events.into_iter().for_each(|event| recorder.record(event).unwrap());
    recorder.finish().unwrap()
}

fn read(file: &[u8]) -> (Summary, Vec<Exchange>) {
    let mut seen = Vec::new();
    let summary = read_capture(file, ReaderConfig::offline(), &mut |e| seen.push(e)).unwrap();
    (summary, seen)
}

#[test]
fn recording_is_read_back() {
    for client in ["10.0.0.1:40000", "[fe80::2]:40000"] {
        let (summary, seen) = read(&recording(client));
        assert!(seen.len() == 1 && seen[0].is_complete(), "{client}");
        assert_eq!(seen[0].endpoints.client, client.parse().unwrap());
        assert_eq!(seen[0].started, 1_700_000_000_000_000_001);
        assert_eq!(summary.service_names, [Some("shop".to_owned())]);
    }
}

#[test]
fn cut_file_gives_what_came_before() {
    let whole = recording("10.0.0.1:40000");
    for len in 28..whole.len() {
        let (summary, seen) = read(&whole[..len]);
        assert!(seen.len() <= 1);
        assert!(summary.truncated_at.is_none_or(|at| at <= len as u64));
    }
    let (summary, seen) = read(&whole[..whole.len() - 10]);
    assert_eq!((summary.truncated_at.is_some(), seen.len()), (true, 1));
}

#[test]
fn what_is_no_capture_is_named() {
    let error =
        read_capture(&b"PK\x03\x04 zip"[..], ReaderConfig::offline(), &mut |_| {}).unwrap_err();
    assert!(error.to_string().contains("pcapng"));
    let error = read_capture(&b""[..], ReaderConfig::offline(), &mut |_| {}).unwrap_err();
    assert!(error.to_string().contains("empty"));
}

/// A raw IPv4 TCP packet from 10.0.0.1:40000 to 10.0.0.2:80.
fn packet(seq: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![0x45, 0];
    out.extend_from_slice(&(40 + payload.len() as u16).to_be_bytes());
    out.extend_from_slice(&[
        0, 0, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, 0x9c, 0x40, 0, 80,
    ]);
    out.extend_from_slice(&seq.to_be_bytes());
    out.extend_from_slice(&[0, 0, 0, 0, 0x50, flags, 0, 0, 0, 0, 0, 0]);
    out.extend_from_slice(payload);
    out
}

fn pcap(link: u32, is_big: bool, is_nanos: bool, frame: &[u8]) -> Vec<u8> {
    let word = |n: u32| if is_big { n.to_be_bytes() } else { n.to_le_bytes() };
    let half = |n: u16| if is_big { n.to_be_bytes() } else { n.to_le_bytes() };
    let mut out = word(if is_nanos { 0xa1b2_3c4d } else { 0xa1b2_c3d4 }).to_vec();
    out.extend(half(2));
    out.extend(half(4));
    for n in [0, 0, 65_535, link, 7, 5, frame.len() as u32, frame.len() as u32] {
        out.extend(word(n));
    }
    out.extend_from_slice(frame);
    out
}

#[test]
fn pcap_of_both_orders_and_both_resolutions() {
    for (is_big, is_nanos, at) in [
        (false, false, 7_000_005_000),
        (true, false, 7_000_005_000),
        (false, true, 7_000_000_005),
        (true, true, 7_000_000_005),
    ] {
        let (_, seen) = read(&pcap(101, is_big, is_nanos, &packet(1, 0x18, REQUEST)));
        assert_eq!((seen.len(), seen[0].started), (1, at));
    }
}

#[test]
fn link_types() {
    let ip = packet(1, 0x18, REQUEST);
    let ether = [&[0; 12][..], &[8, 0], &ip].concat();
    let vlan = [&[0; 12][..], &[0x88, 0xa8, 0, 1, 0x81, 0, 0, 2, 8, 0], &ip].concat();
    let cooked = [&[0; 14][..], &[8, 0], &ip].concat();
    let cooked_2 = [&[8, 0][..], &[0; 18], &ip].concat();
    let null = [&[2, 0, 0, 0][..], &ip].concat();
    let frames =
        [(1, ether), (1, vlan), (113, cooked), (276, cooked_2), (0, null.clone()), (108, null)];
    for (link, frame) in frames.into_iter().chain([101, 12, 14, 228].map(|n| (n, ip.clone()))) {
        let (_, seen) = read(&pcap(link, false, false, &frame));
        assert_eq!(seen.len(), 1, "link type {link}");
    }
}

#[test]
fn ethernet_padding_is_not_payload() {
    let frame = [&[0; 12][..], &[8, 0], &packet(1, 0x10, b""), &[0xff; 6]].concat();
    let (summary, _) = read(&pcap(1, false, false, &frame));
    assert_eq!((summary.packets.tcp_segments, summary.reader.bytes_seen), (1, 0));
}
