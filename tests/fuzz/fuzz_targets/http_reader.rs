//! A conversation of arbitrary bytes, with holes: no panic, bounded memory, every byte that was
//! sent is either seen or lost, and what is complete lost nothing.
#![no_main]

use libfuzzer_sys::fuzz_target;
use stoa_wire::{
    Reader, ReaderConfig,
    segment::{Direction, Endpoints, Event, FlowId, Loss, Segment},
};

const MEMORY: usize = 64 << 10;

fuzz_target!(|input: &[u8]| {
    let Some((&first, mut rest)) = input.split_first() else { return };
    let config = ReaderConfig {
        body_limit: 256,
        head_limit: 4096,
        flow_memory_limit: MEMORY,
        decode_limit: 64 << 10,
        hash_bodies: true,
        ..ReaderConfig::default()
    };
    let mut reader = Reader::new(config);
    let flow = FlowId(1);
    let mut sink = |exchange: stoa_wire::exchange::Exchange| {
        if exchange.is_complete() {
            assert_eq!(exchange.bytes_lost(), 0);
        }
        assert!(exchange.request.is_some() || !exchange.incomplete.is_empty());
        let _ = stoa_wire::exchange_json::to_json(&exchange, "fuzz").to_string();
    };
    let endpoints = Endpoints {
        client: ([10, 0, 0, 1], 4000).into(),
        server: ([10, 0, 0, 2], 80).into(),
        service: 0,
    };
    reader.push(Event::Open { flow, at: 0, endpoints, from_start: first & 1 == 0 }, &mut sink);
    let mut next = [1_u32, 1];
    let mut at = 0;
    // Kind, length (2 bytes), bytes.
    while let Some((&[kind, low, high], after)) = rest.split_first_chunk::<3>() {
        let len = usize::from(low) | usize::from(high & 0x07) << 8;
        let data = &after[..after.len().min(len)];
        rest = &after[data.len()..];
        at += 1;
        let side = usize::from(kind & 1);
        let direction = if side == 0 { Direction::ToServer } else { Direction::ToClient };
        let seq = next[side];
        let ack = (kind & 0x40 == 0).then_some(next[1 - side]);
        match kind >> 1 & 7 {
            0 => {
                next[side] = seq.wrapping_add(len as u32);
                let reason = Loss::ALL[usize::from(high) % Loss::ALL.len()];
                let len = len as u32;
                reader.push(Event::Lost { flow, direction, at, seq, len, reason }, &mut sink);
                continue;
            }
            // Nobody says that these are lost.
            1 => {
                next[side] = seq.wrapping_add(len as u32);
                continue;
            }
            2 => {
                reader.expire(at * 1_500_000_000, &mut sink);
                continue;
            }
            _ => {}
        }
        let is_again = kind >> 1 & 7 == 3;
        let seq = if is_again { seq.wrapping_sub(u32::from(low)) } else { seq };
        if !is_again {
            next[side] = seq.wrapping_add(data.len() as u32);
        }
        let segment = Segment {
            flow,
            direction,
            at,
            seq,
            ack,
            syn: false,
            fin: kind & 0x80 != 0,
            rst: kind == 0x7f,
            len: data.len() as u32,
            data,
            missing: None,
        };
        reader.push(Event::Segment(segment), &mut sink);
        assert!(reader.counters().memory <= MEMORY as u64 + 4096);
    }
    if first & 2 == 0 {
        reader.push(Event::Close { flow, at }, &mut sink);
    }
    reader.finish(&mut sink);
    assert_eq!((reader.counters().memory, reader.counters().flows), (0, 0));
});
