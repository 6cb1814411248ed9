//! Writes events as a pcapng file that Wireshark and [`crate::read_capture`] read.
//!
//! Packets are made up from segments (LINKTYPE_RAW, one interface per service). Bytes that were
//! not seen are packets of which only the headers were "captured", with a comment that says why.

use std::{
    collections::HashMap,
    io::{self, Write},
    net::{IpAddr, SocketAddr},
};

use crate::{
    packet::LinkType,
    pcapng::{
        BYTE_ORDER, ENHANCED_PACKET, INTERFACE, OPTION_COMMENT, OPTION_IF_NAME, OPTION_IF_TSRESOL,
        OPTION_USER_APPLICATION, SECTION_HEADER,
    },
    segment::{Direction, Endpoints, Event, FlowId, Loss, Nanos, Segment},
};

pub(crate) const APPLICATION: &[u8] = b"stoa-gateway recording";
const REASON: &str = "missing: ";
/// An IP datagram holds no more than 65,535 bytes, headers included.
const LONGEST: usize = 65_000;

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// The reason in a packet's comment.
pub(crate) fn parse_reason(comment: &[u8]) -> Option<Loss> {
    let name = comment.strip_prefix(REASON.as_bytes())?;
    Loss::ALL.into_iter().find(|reason| reason.name().as_bytes() == name)
}

struct Flow {
    endpoints: Endpoints,
    interface: u32,
    /// Its SYN is still to be made up.
    needs_syn: bool,
    /// The number behind the last byte of each direction, once it is known.
    next: [Option<u32>; 2],
    fins: [bool; 2],
    is_reset: bool,
}

pub struct Recorder<W: Write> {
    output: W,
    flows: HashMap<FlowId, Flow>,
    interfaces: HashMap<u32, u32>,
    names: HashMap<u32, String>,
}

/// What one made-up packet says.
struct Packet<'a> {
    at: Nanos,
    direction: Direction,
    seq: u32,
    ack: Option<u32>,
    flags: u8,
    bytes: &'a [u8],
    /// On the wire.
    len: usize,
    missing: Option<Loss>,
}

impl<W: Write> Recorder<W> {
    /// Writes the file's header.
    pub fn new(mut output: W) -> io::Result<Self> {
        let mut body = Vec::new();
        body.extend_from_slice(&BYTE_ORDER.to_le_bytes());
        body.extend_from_slice(&1_u16.to_le_bytes());
        body.extend_from_slice(&0_u16.to_le_bytes());
        body.extend_from_slice(&u64::MAX.to_le_bytes());
        push_option(&mut body, OPTION_USER_APPLICATION, APPLICATION);
        write_block(&mut output, SECTION_HEADER, body)?;
        Ok(Self {
            output,
            flows: HashMap::new(),
            interfaces: HashMap::new(),
            names: HashMap::new(),
        })
    }

    /// Names the service behind a number; call it before the first event of that service.
    pub fn name_service(&mut self, service: u32, name: &str) -> io::Result<()> {
        self.names.insert(service, name.to_owned());
        Ok(())
    }

    pub fn record(&mut self, event: Event<'_>) -> io::Result<()> {
        match event {
            Event::Open { flow, endpoints, from_start, .. } => {
                let interface = self.interface(endpoints.service)?;
                let flow_state = Flow {
                    endpoints,
                    interface,
                    needs_syn: from_start,
                    next: [None; 2],
                    fins: [false; 2],
                    is_reset: false,
                };
                self.flows.insert(flow, flow_state);
                Ok(())
            }
            Event::Segment(segment) => self.record_segment(&segment),
            Event::Lost { flow, direction, at, seq, len, reason } => {
                let Some(flow) = self.flows.get_mut(&flow) else { return Ok(()) };
                let ack = flow.next[side(direction.opposite())];
                advance(flow, direction, seq.wrapping_add(len));
                let packet = Packet {
                    at,
                    direction,
                    seq,
                    ack,
                    flags: 0,
                    bytes: &[],
                    len: len as usize,
                    missing: Some(reason),
                };
                write_packets(&mut self.output, flow, packet)
            }
            Event::Close { flow, at } => {
                let Some(flow) = self.flows.remove(&flow) else { return Ok(()) };
                if flow.is_reset {
                    return Ok(());
                }
                for direction in [Direction::ToServer, Direction::ToClient] {
                    let ack = flow.next[side(direction.opposite())];
                    // A direction that never spoke begins anywhere.
                    let seq = flow.next[side(direction)].unwrap_or(1);
                    if !flow.fins[side(direction)] {
                        let flags = FIN;
                        let packet = Packet {
                            at,
                            direction,
                            seq,
                            ack,
                            flags,
                            bytes: &[],
                            len: 0,
                            missing: None,
                        };
                        write_packets(&mut self.output, &flow, packet)?;
                    }
                }
                Ok(())
            }
        }
    }

    pub fn finish(mut self) -> io::Result<W> {
        self.output.flush()?;
        Ok(self.output)
    }

    fn record_segment(&mut self, segment: &Segment<'_>) -> io::Result<()> {
        let Some(flow) = self.flows.get_mut(&segment.flow) else { return Ok(()) };
        let direction = segment.direction;
        if std::mem::take(&mut flow.needs_syn) && !segment.syn && !segment.rst {
            let (mine, theirs) = (segment.seq, segment.ack.unwrap_or(1));
            let (client, server) = match direction {
                Direction::ToServer => (mine, theirs),
                Direction::ToClient => (theirs, mine),
            };
            let at = segment.at;
            let bytes: &[u8] = &[];
            let syn = Packet {
                at,
                direction: Direction::ToServer,
                seq: client.wrapping_sub(1),
                ack: None,
                flags: SYN,
                bytes,
                len: 0,
                missing: None,
            };
            let answer = Packet {
                direction: Direction::ToClient,
                seq: server.wrapping_sub(1),
                ack: Some(client),
                ..syn
            };
            write_packets(&mut self.output, flow, syn)?;
            write_packets(&mut self.output, flow, answer)?;
        }
        let flags = (if segment.syn { SYN } else { 0 })
            | (if segment.fin { FIN } else { 0 })
            | (if segment.rst { RST } else { 0 });
        flow.is_reset |= segment.rst;
        flow.fins[side(direction)] |= segment.fin;
        let taken = segment.len + u32::from(segment.syn) + u32::from(segment.fin);
        if !segment.rst {
            advance(flow, direction, segment.seq.wrapping_add(taken));
        }
        let packet = Packet {
            at: segment.at,
            direction,
            seq: segment.seq,
            ack: segment.ack,
            flags,
            bytes: segment.data,
            len: segment.len as usize,
            missing: segment.missing,
        };
        write_packets(&mut self.output, flow, packet)
    }

    fn interface(&mut self, service: u32) -> io::Result<u32> {
        if let Some(known) = self.interfaces.get(&service) {
            return Ok(*known);
        }
        let number = self.interfaces.len() as u32;
        let name =
            self.names.get(&service).cloned().unwrap_or_else(|| format!("service-{service}"));
        let mut body = Vec::new();
        body.extend_from_slice(&LinkType::RAW.0.to_le_bytes());
        body.extend_from_slice(&[0; 2]);
        body.extend_from_slice(&0_u32.to_le_bytes());
        push_option(&mut body, OPTION_IF_NAME, name.as_bytes());
        // Nanoseconds.
        push_option(&mut body, OPTION_IF_TSRESOL, &[9]);
        write_block(&mut self.output, INTERFACE, body)?;
        self.interfaces.insert(service, number);
        Ok(number)
    }
}

fn side(direction: Direction) -> usize {
    match direction {
        Direction::ToServer => 0,
        Direction::ToClient => 1,
    }
}

fn advance(flow: &mut Flow, direction: Direction, to: u32) {
    let next = &mut flow.next[side(direction)];
    if next.is_none_or(|known| (to.wrapping_sub(known) as i32) > 0) {
        *next = Some(to);
    }
}

/// Splits what no datagram can hold.
fn write_packets<W: Write>(output: &mut W, flow: &Flow, packet: Packet<'_>) -> io::Result<()> {
    let mut at = 0;
    loop {
        let len = (packet.len - at).min(LONGEST);
        let is_last = at + len == packet.len;
        let first = packet.bytes.len().min(at);
        let bytes = &packet.bytes[first..packet.bytes.len().min(at + len)];
        let flags = packet.flags & if at == 0 { SYN | RST } else { 0 }
            | packet.flags & if is_last { FIN } else { 0 };
        let seq = packet.seq.wrapping_add(at as u32);
        write_packet(output, flow, Packet { seq, flags, bytes, len, ..packet })?;
        at += len;
        if is_last {
            return Ok(());
        }
    }
}

fn write_packet<W: Write>(output: &mut W, flow: &Flow, packet: Packet<'_>) -> io::Result<()> {
    let (source, destination) = match packet.direction {
        Direction::ToServer => (flow.endpoints.client, flow.endpoints.server),
        Direction::ToClient => (flow.endpoints.server, flow.endpoints.client),
    };
    let mut headers = Vec::with_capacity(60);
    push_ip(&mut headers, source, destination, 20 + packet.len);
    push_tcp(&mut headers, source, destination, &packet);
    let captured = headers.len() + packet.bytes.len();
    let original = headers.len() + packet.len;
    let mut body = Vec::with_capacity(captured + 64);
    body.extend_from_slice(&flow.interface.to_le_bytes());
    body.extend_from_slice(&((packet.at >> 32) as u32).to_le_bytes());
    body.extend_from_slice(&(packet.at as u32).to_le_bytes());
    body.extend_from_slice(&(captured as u32).to_le_bytes());
    body.extend_from_slice(&(original as u32).to_le_bytes());
    body.extend_from_slice(&headers);
    body.extend_from_slice(packet.bytes);
    pad(&mut body);
    if let Some(reason) = packet.missing.filter(|_| captured < original) {
        push_option(&mut body, OPTION_COMMENT, format!("{REASON}{}", reason.name()).as_bytes());
    }
    write_block(output, ENHANCED_PACKET, body)
}

/// Checksums are left zero, as where a network card computes them.
fn push_ip(out: &mut Vec<u8>, source: SocketAddr, destination: SocketAddr, payload: usize) {
    let canonical = (source.ip().to_canonical(), destination.ip().to_canonical());
    if let (IpAddr::V4(from), IpAddr::V4(to)) = canonical {
        let total = (20 + payload) as u16;
        out.extend_from_slice(&[0x45, 0]);
        out.extend_from_slice(&total.to_be_bytes());
        out.extend_from_slice(&[0, 0, 0x40, 0, 64, 6, 0, 0]);
        out.extend_from_slice(&from.octets());
        out.extend_from_slice(&to.octets());
        return;
    }
    let octets = |ip: IpAddr| match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    };
    out.extend_from_slice(&[0x60, 0, 0, 0]);
    out.extend_from_slice(&(payload as u16).to_be_bytes());
    out.extend_from_slice(&[6, 64]);
    out.extend_from_slice(&octets(source.ip()));
    out.extend_from_slice(&octets(destination.ip()));
}

fn push_tcp(out: &mut Vec<u8>, source: SocketAddr, destination: SocketAddr, packet: &Packet<'_>) {
    out.extend_from_slice(&source.port().to_be_bytes());
    out.extend_from_slice(&destination.port().to_be_bytes());
    out.extend_from_slice(&packet.seq.to_be_bytes());
    out.extend_from_slice(&packet.ack.unwrap_or(0).to_be_bytes());
    let flags = packet.flags | if packet.ack.is_some() { ACK } else { 0 };
    out.extend_from_slice(&[0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
}

fn push_option(body: &mut Vec<u8>, code: u16, value: &[u8]) {
    let value = &value[..value.len().min(1024)];
    body.extend_from_slice(&code.to_le_bytes());
    body.extend_from_slice(&(value.len() as u16).to_le_bytes());
    body.extend_from_slice(value);
    pad(body);
}

fn pad(body: &mut Vec<u8>) {
    body.resize(body.len().next_multiple_of(4), 0);
}

fn write_block<W: Write>(output: &mut W, kind: u32, body: Vec<u8>) -> io::Result<()> {
    let length = (body.len() + 12) as u32;
    output.write_all(&kind.to_le_bytes())?;
    output.write_all(&length.to_le_bytes())?;
    output.write_all(&body)?;
    output.write_all(&length.to_le_bytes())
}

#[cfg(test)]
#[path = "recording_tests.rs"]
mod tests;
