//! Whole captures, packet by packet: what TCP, IP and links do to a conversation.
use crate::{
    Counters, ReaderConfig,
    exchange::{Exchange, Incomplete},
    packet_file::{Summary, read_capture},
};

const GET: &[u8] = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n";
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";
const FIN: u8 = 0x11;
const SYN: u8 = 0x02;
const RST: u8 = 0x14;
const ACK: u8 = 0x10;
const PUSH: u8 = 0x18;

#[derive(Clone, Copy, PartialEq)]
enum Side {
    Client,
    Server,
}
use Side::{Client, Server};

/// A TCP segment, to be put into whatever datagram.
fn tcp(port: u16, side: Side, seq: u32, ack: u32, flags: u8, data: &[u8]) -> Vec<u8> {
    let (from, to) = if side == Client { (port, 80) } else { (80, port) };
    let mut out = [from.to_be_bytes(), to.to_be_bytes()].concat();
    out.extend([seq.to_be_bytes(), ack.to_be_bytes()].concat());
    out.extend([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    out.extend_from_slice(data);
    out
}

fn ipv4(side: Side, segment: &[u8]) -> Vec<u8> {
    let (from, to) = if side == Client { (1, 2) } else { (2, 1) };
    let mut out = vec![0x45, 0];
    out.extend((20 + segment.len() as u16).to_be_bytes());
    out.extend([0, 0, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, from, 10, 0, 0, to]);
    out.extend_from_slice(segment);
    out
}

/// `next`: number of the first header's kind; `rest`: what follows the fixed header.
fn ipv6(side: Side, next: u8, rest: &[u8]) -> Vec<u8> {
    let (from, to) = if side == Client { (1, 2) } else { (2, 1) };
    let mut out = vec![0x60, 0, 0, 0];
    out.extend((rest.len() as u16).to_be_bytes());
    out.extend([next, 64]);
    for last in [from, to] {
        out.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]);
    }
    out.extend_from_slice(rest);
    out
}

fn ether(kind: u16, rest: &[u8]) -> Vec<u8> {
    [&[0; 12][..], &kind.to_be_bytes(), rest].concat()
}

/// One connection whose packets are written in the order of the calls.
struct Wire {
    port: u16,
    next: [u32; 2],
    packets: Vec<Vec<u8>>,
}

impl Wire {
    fn new(port: u16, client: u32, server: u32) -> Self {
        Self { port, next: [client, server], packets: Vec::new() }
    }

    fn open(mut self) -> Self {
        let [c, s] = self.next;
        self.raw(Client, c.wrapping_sub(1), 0, SYN, b"");
        self.raw(Server, s.wrapping_sub(1), c, SYN | ACK, b"");
        self
    }

    fn raw(&mut self, side: Side, seq: u32, ack: u32, flags: u8, data: &[u8]) {
        self.packets.push(ipv4(side, &tcp(self.port, side, seq, ack, flags, data)));
    }

    fn send(mut self, side: Side, data: &[u8]) -> Self {
        let (own, peer) = (side as usize, 1 - side as usize);
        self.raw(side, self.next[own], self.next[peer], PUSH, data);
        self.next[own] = self.next[own].wrapping_add(data.len() as u32);
        self
    }

    fn round(self) -> Self {
        self.send(Client, GET).send(Server, OK)
    }

    fn flag(mut self, side: Side, flags: u8) -> Self {
        let (own, peer) = (side as usize, 1 - side as usize);
        self.raw(side, self.next[own], self.next[peer], flags, b"");
        self
    }

    fn end(self) -> Self {
        let mut wire = self.flag(Client, FIN);
        wire.next[0] = wire.next[0].wrapping_add(1);
        let mut wire = wire.flag(Server, FIN);
        wire.next[1] = wire.next[1].wrapping_add(1);
        wire.flag(Client, ACK)
    }
}

/// `link`, and each packet with the second in which it was seen and its length on the wire.
fn pcap(link: u32, packets: impl IntoIterator<Item = (u32, Vec<u8>, usize)>) -> Vec<u8> {
    let mut out = Vec::new();
    for word in [0xa1b2_c3d4, 0x0004_0002, 0, 0, 262_144, link] {
        out.extend(u32::to_le_bytes(word));
    }
    for (at, packet, wire) in packets {
        for word in [at, 0, packet.len() as u32, wire as u32] {
            out.extend(word.to_le_bytes());
        }
        out.extend(packet);
    }
    out
}

fn read(file: &[u8]) -> (Summary, Vec<Exchange>) {
    let mut seen = Vec::new();
    let summary = read_capture(file, ReaderConfig::offline(), &mut |e| seen.push(e)).unwrap();
    (summary, seen)
}

fn read_raw(packets: impl IntoIterator<Item = Vec<u8>>) -> Vec<Exchange> {
    read(&pcap(101, packets.into_iter().map(|p| (1, p.clone(), p.len())))).1
}

/// `/a 200` for each exchange; `!` where it is not complete.
fn show(seen: &[Exchange]) -> Vec<String> {
    let one = |e: &Exchange| {
        let target = e.request.as_ref().map_or("-".into(), |r| String::from_utf8_lossy(r.target()));
        let status = e.response.as_ref().map_or("-".into(), |r| r.status.to_string());
        format!("{target} {status}{}", if e.is_complete() { "" } else { " !" })
    };
    seen.iter().map(one).collect()
}

// --- TCP ----------------------------------------------------------------------------------------

#[test]
fn numbers_wrap_within_a_conversation() {
    for start in [u32::MAX - 70, u32::MAX - 3, u32::MAX] {
        let wire = Wire::new(4000, start, start.wrapping_add(9)).open();
        let wire = (0..6).fold(wire, |wire, _| wire.round()).end();
        assert_eq!(show(&read_raw(wire.packets)), ["/a 200"; 6], "{start}");
    }
}

#[test]
fn every_packet_twice() {
    let wire = Wire::new(4000, 10, 20).open().round().round().end();
    let twice = wire.packets.into_iter().flat_map(|packet| [packet.clone(), packet]);
    assert_eq!(show(&read_raw(twice)), ["/a 200"; 2]);
}

#[test]
fn every_packet_twice_and_cut() {
    let wire = Wire::new(4000, 10, 20).open().round().round().end();
    let packets = wire.packets.into_iter().flat_map(|packet| {
        let cut = packet[..packet.len().min(40 + 20)].to_vec();
        [(1, cut.clone(), packet.len()), (1, cut, packet.len())]
    });
    let (_, seen) = read(&pcap(101, packets));
    assert_eq!(show(&seen), ["/a 200 !"; 2]);
    let lost = (GET.len() - 20 + OK.len() - 20) as u64;
    assert!(seen.iter().all(|e| e.bytes_lost() == lost));
}

#[test]
fn endpoints_used_again_after_the_end() {
    let first = Wire::new(4000, 10, 20).open().round().end();
    for (client, server) in [(5000, 9000), (0x9000_0000, 0x7000_0000), (1, 2)] {
        for is_opened in [true, false] {
            let next = Wire::new(4000, client, server);
            let next = if is_opened { next.open() } else { next }.round().round().end();
            let seen = read_raw(first.packets.iter().cloned().chain(next.packets));
            assert_eq!(show(&seen), ["/a 200"; 3], "{client} {is_opened}");
        }
    }
}

#[test]
fn endpoints_used_again_without_an_end() {
    let first = Wire::new(4000, 10, 20).open().round();
    let next = Wire::new(4000, 0x6000_0000, 0x5000_0000).round().round();
    let seen = read_raw(first.packets.into_iter().chain(next.packets));
    assert_eq!(show(&seen), ["/a 200"; 3]);
}

#[test]
fn last_segments_again() {
    let mut wire = Wire::new(4000, 10, 20).open().round().end();
    let again: Vec<_> = wire.packets.iter().rev().take(4).rev().cloned().collect();
    wire.packets.extend(again);
    assert_eq!(show(&read_raw(wire.packets)), ["/a 200"]);
}

#[test]
fn reset_within_a_response() {
    let wire = Wire::new(4000, 10, 20).open().send(Client, GET);
    for head in ["HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhi", "HTTP/1.1 200 OK\r\n\r\nhi"] {
        let packets = wire.packets.clone();
        let wire = Wire { packets, ..wire }.send(Server, head.as_bytes()).flag(Server, RST);
        let seen = read_raw(wire.packets);
        assert_eq!(show(&seen), ["/a 200 !"]);
        let reasons = [Incomplete::ResponseBodyTruncated, Incomplete::ConnectionEnded];
        assert_eq!(seen[0].incomplete, reasons);
    }
}

#[test]
fn probes_carry_nothing_new() {
    let mut wire = Wire::new(4000, 10, 20).open().round();
    let [c, s] = wire.next;
    for garbage in [&b"\0"[..], b""] {
        wire.raw(Client, c - 1, s, ACK, garbage);
        wire.raw(Server, s, c, ACK, b"");
        wire.raw(Server, s - 1, c, ACK, garbage);
    }
    // A zero-window probe: the first byte of what is sent once the window opens.
    wire.raw(Client, c, s, ACK, &GET[..1]);
    wire.raw(Server, s, c, ACK, b"");
    assert_eq!(show(&read_raw(wire.round().end().packets)), ["/a 200"; 2]);
}

#[test]
fn handshake_after_the_data() {
    let mut wire = Wire::new(4000, 10, 20).open().round().round().end();
    wire.packets[..4].rotate_left(2);
    assert_eq!(show(&read_raw(wire.packets)), ["/a 200"; 2]);
}

#[test]
fn data_in_the_syn() {
    for is_taken in [true, false] {
        let mut wire = Wire::new(4000, 10, 20);
        wire.raw(Client, 9, 0, SYN, GET);
        let taken = if is_taken { GET.len() as u32 } else { 0 };
        wire.raw(Server, 19, 10 + taken, SYN | ACK, b"");
        if is_taken {
            wire.next[0] += taken;
        } else {
            wire = wire.send(Client, GET);
        }
        let seen = read_raw(wire.send(Server, OK).round().end().packets);
        assert_eq!(show(&seen), ["/a 200"; 2], "{is_taken}");
    }
}

#[test]
fn responses_stand_before_their_requests() {
    let mut wire = Wire::new(4000, 10, 20).open().round().round().round().end();
    for at in [2, 4, 6] {
        wire.packets.swap(at, at + 1);
    }
    assert_eq!(show(&read_raw(wire.packets)), ["/a 200"; 3]);
}

#[test]
fn connections_take_turns() {
    let wires: Vec<_> = (0..8)
        .map(|n| {
            let wire = Wire::new(4000 + n, 77 * u32::from(n), 99).open();
            (0..5).fold(wire, |wire, _| wire.round()).end().packets
        })
        .collect();
    let packets = (0..wires[0].len()).flat_map(|i| wires.iter().map(move |w| w[i].clone()));
    let seen = read_raw(packets.collect::<Vec<_>>());
    assert_eq!(show(&seen), ["/a 200"; 40]);
}

#[test]
fn body_until_the_end_of_the_connection() {
    let wire = Wire::new(4000, 10, 20).open().send(Client, b"GET /a HTTP/1.0\r\n\r\n");
    let wire = wire.send(Server, b"HTTP/1.0 200 OK\r\n\r\n").send(Server, b"some");
    let seen = read_raw(wire.send(Server, b" text").flag(Server, FIN).packets);
    assert_eq!(show(&seen), ["/a 200"]);
    assert_eq!(seen[0].response.as_ref().unwrap().message.body.length, 9);
}

// --- IP and links -------------------------------------------------------------------------------

fn with_each(build: impl Fn(Side, &[u8]) -> Vec<u8>, link: u32) -> (Summary, Vec<Exchange>) {
    let request = build(Client, &tcp(4000, Client, 10, 20, PUSH, GET));
    let response = build(Server, &tcp(4000, Server, 20, 10 + GET.len() as u32, PUSH, OK));
    read(&pcap(link, [request, response].map(|p| (1, p.clone(), p.len()))))
}

#[test]
fn links() {
    type Build = fn(Side, &[u8]) -> Vec<u8>;
    let cases: [(u32, Build); 11] = [
        (1, |s, t| ether(0x0800, &ipv4(s, t))),
        (1, |s, t| ether(0x86dd, &ipv6(s, 6, t))),
        (1, |s, t| ether(0x8100, &[&[0, 7, 8, 0][..], &ipv4(s, t)].concat())),
        (1, |s, t| {
            ether(0x88a8, &[&[0, 7, 0x81, 0, 0, 9, 0x86, 0xdd], &ipv6(s, 6, t)[..]].concat())
        }),
        (113, |s, t| [&[0; 14][..], &[8, 0], &ipv4(s, t)].concat()),
        (276, |s, t| [&[0x86, 0xdd][..], &[0; 18], &ipv6(s, 6, t)].concat()),
        (0, |s, t| [&[2, 0, 0, 0][..], &ipv4(s, t)].concat()),
        (0, |s, t| [&[0, 0, 0, 30][..], &ipv6(s, 6, t)].concat()),
        (108, |s, t| [&[0, 0, 0, 2][..], &ipv4(s, t)].concat()),
        (101, |s, t| ipv6(s, 6, t)),
        (229, |s, t| ipv6(s, 6, t)),
    ];
    for (i, (link, build)) in cases.into_iter().enumerate() {
        assert_eq!(show(&with_each(build, link).1), ["/a 200"], "case {i}, link {link}");
    }
}

#[test]
fn frames_padded_to_their_least_length() {
    let pad = |side, segment: &[u8]| [ether(0x0800, &ipv4(side, segment)), vec![0xee; 18]].concat();
    let (summary, seen) = with_each(pad, 1);
    assert_eq!(show(&seen), ["/a 200"]);
    assert_eq!(summary.reader.bytes_seen, (GET.len() + OK.len()) as u64);
}

#[test]
fn length_left_to_the_network_card() {
    let zero = |side, segment: &[u8]| {
        let mut ip = ipv4(side, segment);
        ip[2..4].fill(0);
        ether(0x0800, &ip)
    };
    assert_eq!(show(&with_each(zero, 1).1), ["/a 200"]);
    // RFC 2675 section 3: the length of a jumbogram is zero too.
    let zero = |side, segment: &[u8]| {
        let mut ip = ipv6(side, 6, segment);
        ip[4..6].fill(0);
        ether(0x86dd, &ip)
    };
    assert_eq!(show(&with_each(zero, 1).1), ["/a 200"]);
}

#[test]
fn extension_headers() {
    // Hop-by-hop, destination options, routing; an atomic fragment (RFC 6946); authentication.
    let cases: [(u8, &[u8]); 4] = [
        (
            0,
            &[
                60, 0, 1, 4, 0, 0, 0, 0, 43, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0,
                0, 0, 0, 0, 0,
            ],
        ),
        (44, &[6, 0, 0, 0, 0, 0, 0, 9]),
        (60, &[44, 0, 1, 4, 0, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 9]),
        (51, &[6, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1]),
    ];
    for (next, headers) in cases {
        let build = |side, segment: &[u8]| ipv6(side, next, &[headers, segment].concat());
        assert_eq!(show(&with_each(build, 101).1), ["/a 200"], "{next}");
    }
}

#[test]
fn fragments_in_any_order() {
    for is_reversed in [false, true] {
        let mut packets = Vec::new();
        for (id, side, segment) in [
            (7_u16, Client, tcp(4000, Client, 10, 20, PUSH, GET)),
            (8, Server, tcp(4000, Server, 20, 10 + GET.len() as u32, PUSH, OK)),
        ] {
            let count = segment.len().div_ceil(16);
            let mut parts: Vec<_> = segment
                .chunks(16)
                .enumerate()
                .map(|(i, part)| {
                    let mut ip = ipv4(side, part);
                    ip[4..6].copy_from_slice(&id.to_be_bytes());
                    let more = if i + 1 < count { 0x2000 } else { 0 };
                    ip[6..8].copy_from_slice(&((i * 2) as u16 | more).to_be_bytes());
                    ip
                })
                .collect();
            if is_reversed {
                parts.reverse();
            }
            packets.extend(parts);
        }
        assert_eq!(show(&read_raw(packets)), ["/a 200"]);
    }
}

// --- pcapng -------------------------------------------------------------------------------------

struct Blocks {
    is_big: bool,
    out: Vec<u8>,
}

impl Blocks {
    fn new(is_big: bool) -> Self {
        Self { is_big, out: Vec::new() }
    }

    fn half(&self, n: u16) -> [u8; 2] {
        if self.is_big { n.to_be_bytes() } else { n.to_le_bytes() }
    }

    fn word(&self, n: u32) -> [u8; 4] {
        if self.is_big { n.to_be_bytes() } else { n.to_le_bytes() }
    }

    fn block(&mut self, kind: u32, words: &[u32], bytes: &[u8]) {
        let padded = bytes.len().next_multiple_of(4);
        let length = (12 + words.len() * 4 + padded) as u32;
        for word in [kind, length].iter().chain(words) {
            self.out.extend(self.word(*word));
        }
        self.out.extend_from_slice(bytes);
        self.out.resize(self.out.len() + padded - bytes.len(), 0);
        self.out.extend(self.word(length));
    }

    fn section(&mut self) {
        let version = if self.is_big { 0x0001_0000 } else { 1 };
        self.block(0x0a0d_0d0a, &[0x1a2b_3c4d, version, u32::MAX, u32::MAX], &[]);
    }

    /// `resolution`: the value of `if_tsresol`.
    fn interface(&mut self, link: u16, snap: u32, resolution: Option<u8>) {
        let mut bytes = [self.half(link), [0; 2]].concat();
        bytes.extend(self.word(snap));
        if let Some(resolution) = resolution {
            bytes.extend([self.half(9), self.half(1)].concat());
            bytes.extend([resolution, 0, 0, 0, 0, 0, 0, 0]);
        }
        self.block(1, &[], &bytes);
    }

    fn enhanced(&mut self, interface: u32, ticks: u64, packet: &[u8]) {
        let len = packet.len() as u32;
        self.block(6, &[interface, (ticks >> 32) as u32, ticks as u32, len, len], packet);
    }
}

fn pair() -> [Vec<u8>; 2] {
    let wire = Wire::new(4000, 10, 20).round();
    [wire.packets[0].clone(), wire.packets[1].clone()]
}

#[test]
fn both_byte_orders() {
    for is_big in [false, true] {
        let mut file = Blocks::new(is_big);
        file.section();
        file.interface(101, 0, None);
        file.block(0x0bad, &[1, 2, 3], b"of no interest");
        pair().iter().for_each(|packet| file.enhanced(0, 5_000_001, packet));
        let (summary, seen) = read(&file.out);
        assert_eq!((show(&seen), summary.damaged_at), (vec!["/a 200".to_owned()], None));
        assert_eq!(seen[0].started, 5_000_001_000);
    }
}

#[test]
fn simple_and_obsolete_packets() {
    for is_big in [false, true] {
        let mut file = Blocks::new(is_big);
        file.section();
        file.interface(101, 0, None);
        let [request, response] = pair();
        file.block(3, &[request.len() as u32], &request);
        // Interface and drop count share the first word.
        let len = response.len() as u32;
        file.block(2, &[0, 0, 9, len, len], &response);
        assert_eq!(show(&read(&file.out).1), ["/a 200"], "{is_big}");
    }
}

#[test]
fn simple_packets_are_cut_at_the_snap_length() {
    let mut file = Blocks::new(false);
    file.section();
    file.interface(101, 60, None);
    for packet in pair() {
        file.block(3, &[packet.len() as u32], &packet[..60]);
    }
    let (summary, seen) = read(&file.out);
    assert_eq!((show(&seen), summary.packets.snapped), (vec!["/a 200 !".to_owned()], 2));
}

#[test]
fn sections_and_interfaces_with_clocks_of_their_own() {
    let mut file = Blocks::new(true);
    file.section();
    file.interface(101, 0, Some(9));
    file.interface(1, 0, Some(0x80 | 10));
    let [request, response] = pair();
    file.enhanced(0, 3_000_000_007, &request);
    // 2^-10 seconds each; another interface, another link.
    file.enhanced(1, 4 * 1024 + 512, &ether(0x0800, &response));
    let mut second = Blocks::new(false);
    second.section();
    second.interface(113, 0, Some(3));
    for packet in &Wire::new(5000, 10, 20).round().packets {
        second.enhanced(0, 6_001, &[&[0; 14][..], &[8, 0], packet].concat());
    }
    let (summary, seen) = read(&[file.out, second.out].concat());
    assert_eq!((show(&seen), summary.damaged_at), (vec!["/a 200".to_owned(); 2], None));
    let times: Vec<_> = seen.iter().map(|e| (e.started, e.ended)).collect();
    assert_eq!(times, [(3_000_000_007, 4_500_000_000), (6_001_000_000, 6_001_000_000)]);
}

#[test]
fn losses_add_up() {
    let wire = Wire::new(4000, 10, 20).open().round().round().round().end();
    let all: usize = 3 * (GET.len() + OK.len());
    for snap in 40..120 {
        let cut = wire.packets.iter().map(|p| (1, p[..p.len().min(snap)].to_vec(), p.len()));
        let (summary, seen) = read(&pcap(101, cut));
        let reader: &Counters = &summary.reader;
        let lost: u64 = reader.lost_by_reason().map(|(_, n)| n).sum();
        assert_eq!(reader.bytes_seen + lost, all as u64, "snap {snap}");
        let told: u64 = seen.iter().map(Exchange::bytes_lost).sum();
        assert!(told <= lost);
        if snap >= 40 + 17 {
            assert_eq!(seen.len(), 3, "snap {snap}");
            assert_eq!(told, lost, "snap {snap}");
            assert!(show(&seen).iter().all(|line| line.starts_with("/a 200")), "snap {snap}");
        }
    }
}
