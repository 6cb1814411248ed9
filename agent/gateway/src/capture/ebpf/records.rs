//! From the ring's records to the reader's events.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use stoa_common::record::{
    HEADER_LEN, OPEN_LEN, OpenRecord, RecordHeader, direction, kind, reason,
};
use stoa_wire::segment::{Direction, Endpoints, Event, FlowId, Loss, Nanos, Segment};

use super::{
    deferred::{Deferred, is_deferred},
    unread::Unread,
};

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

pub(super) fn loss(code: u8) -> Option<Loss> {
    match code {
        reason::RING_FULL => Some(Loss::RingFull),
        reason::BUDGET => Some(Loss::Budget),
        reason::UNREADABLE => Some(Loss::Unreadable),
        reason::SHED => Some(Loss::Shed),
        reason::EVICTED => Some(Loss::Evicted),
        _ => None,
    }
}

pub(super) fn read<T: Copy>(bytes: &[u8]) -> Option<T> {
    if bytes.len() < size_of::<T>() {
        return None;
    }
    // SAFETY: long enough, and the record types are plain integers, valid for all bit patterns.
    Some(unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
}

#[cfg(test)]
pub(super) fn write(header: &RecordHeader, to: &mut [u8]) {
    let to = &mut to[..HEADER_LEN];
    // SAFETY: long enough, and a header has no padding.
    unsafe { to.as_mut_ptr().cast::<RecordHeader>().write_unaligned(*header) }
}

/// What a decoded record needs to become an event.
pub(super) struct Context<'a> {
    /// Add to CLOCK_MONOTONIC to have the time since the epoch.
    pub epoch_offset: u64,
    /// Slot to service.
    pub services: &'a [u32],
}

/// Hands on the events of one record; returns how many. A record that makes no sense gives none.
pub(super) fn decode(
    bytes: &[u8],
    context: &Context<'_>,
    deferred: &mut Deferred,
    unread: &mut Unread,
    emit: &mut dyn FnMut(Event<'_>),
) -> usize {
    let Some(header) = read::<RecordHeader>(bytes) else { return 0 };
    if is_deferred(header.flow) {
        deferred.hold(header.flow, bytes, unread);
        return 0;
    }
    let flow = FlowId(header.flow);
    if header.kind != kind::OPEN {
        return decode_of(flow, &header, bytes, context, emit);
    }
    let Some(record) = read::<OpenRecord>(bytes.get(..OPEN_LEN).unwrap_or(&[])) else { return 0 };
    let mut events = open(flow, &record, context, emit);
    if record.deferred != 0 {
        for bytes in deferred.claim(record.deferred) {
            let Some(header) = read::<RecordHeader>(&bytes) else { continue };
            events += decode_of(flow, &header, &bytes, context, emit);
        }
    }
    events
}

/// The same of a record that belongs to this connection, whatever name it has.
fn decode_of(
    flow: FlowId,
    header: &RecordHeader,
    bytes: &[u8],
    context: &Context<'_>,
    emit: &mut dyn FnMut(Event<'_>),
) -> usize {
    let at: Nanos = header.at.wrapping_add(context.epoch_offset);
    let direction = if header.direction == direction::TO_SERVER {
        Direction::ToServer
    } else {
        Direction::ToClient
    };
    match header.kind {
        kind::SEGMENT => {
            let captured = usize::try_from(header.captured).unwrap_or(usize::MAX);
            let Some(data) = bytes.get(HEADER_LEN..).and_then(|rest| rest.get(..captured)) else {
                return 0;
            };
            emit(Event::Segment(Segment {
                flow,
                direction,
                at,
                seq: header.seq,
                ack: (header.flags & ACK != 0).then_some(header.ack),
                syn: header.flags & SYN != 0,
                fin: header.flags & FIN != 0,
                rst: header.flags & RST != 0,
                len: header.len,
                data,
                missing: loss(header.reason),
            }));
            1
        }
        kind::LOST => {
            emit(Event::Lost {
                flow,
                direction,
                at,
                seq: header.seq,
                len: header.len,
                reason: loss(header.reason).unwrap_or(Loss::Unseen),
            });
            1
        }
        kind::CLOSE => {
            emit(Event::Close { flow, at });
            1
        }
        _ => 0,
    }
}

fn open(
    flow: FlowId,
    record: &OpenRecord,
    context: &Context<'_>,
    emit: &mut dyn FnMut(Event<'_>),
) -> usize {
    let at: Nanos = record.header.at.wrapping_add(context.epoch_offset);
    let address = |bytes: [u8; 16], port: u16| {
        let ip = if record.family == 4 {
            let [a, b, c, d, ..] = bytes;
            IpAddr::V4(Ipv4Addr::new(a, b, c, d))
        } else {
            IpAddr::V6(Ipv6Addr::from(bytes))
        };
        SocketAddr::new(ip, port)
    };
    let slot = usize::try_from(record.header.slot).unwrap_or(usize::MAX);
    let Some(service) = context.services.get(slot).copied() else { return 0 };
    let endpoints = Endpoints {
        client: address(record.client, record.client_port),
        server: address(record.server, record.server_port),
        service,
    };
    let from_start = record.from_start != 0;
    emit(Event::Open { flow, at, endpoints, from_start });
    if !from_start {
        return 1;
    }
    // The SYNs are not captured; the kernel told where the streams begin.
    for (direction, first) in
        [(Direction::ToServer, record.client_seq), (Direction::ToClient, record.server_seq)]
    {
        emit(Event::Segment(Segment {
            flow,
            direction,
            at,
            seq: first.wrapping_sub(1),
            ack: None,
            syn: true,
            fin: false,
            rst: false,
            len: 0,
            data: &[],
            missing: None,
        }));
    }
    3
}
