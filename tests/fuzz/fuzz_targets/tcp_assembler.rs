//! Whatever arrives in whatever order: what comes out is contiguous, each byte is the first that
//! was seen at its place, and nothing stays held once all holes were given up.
#![no_main]

use std::collections::HashMap;

use libfuzzer_sys::fuzz_target;
use stoa_wire::{
    assembler::{Arrival, Assembler, Piece},
    segment::Loss,
};

fn check(piece: Piece<'_>, place: &mut u64, seen: &HashMap<u64, u8>) {
    match piece {
        Piece::Data { offset, bytes, .. } => {
            assert_eq!(offset, *place);
            for byte in bytes {
                assert_eq!(seen.get(place), Some(byte));
                *place += 1;
            }
        }
        Piece::Gap { offset, len, .. } => {
            assert_eq!(offset, *place);
            assert!((offset..offset + len).all(|at| !seen.contains_key(&at)));
            *place += len;
        }
    }
}

fuzz_target!(|input: &[u8]| {
    let Some((start, mut rest)) = input.split_first_chunk::<4>() else { return };
    let start = u32::from_le_bytes(*start);
    let mut assembler = Assembler::default();
    assembler.start(start);
    let first = assembler.next();
    let mut place = first;
    let mut seen: HashMap<u64, u8> = HashMap::new();
    let mut given = 0;
    // Kind, distance from the start (2 bytes), length, bytes.
    while let Some((&[kind, near, far, len], after)) = rest.split_first_chunk::<4>() {
        let distance = u32::from(near) | u32::from(far & 0x0f) << 8;
        let seq = start.wrapping_add(distance);
        let bytes = &after[..after.len().min(usize::from(len))];
        rest = &after[bytes.len()..];
        given += bytes.len() + 128;
        let before = assembler.next();
        match kind % 4 {
            0 => assembler.lose(seq, u32::from(len), Loss::RingFull, &mut |p| check(p, &mut place, &seen)),
            1 => {
                assembler.give_up_first(Loss::Unseen, &mut |p| check(p, &mut place, &seen));
            }
            kind => {
                let at = first + u64::from(distance);
                for (offset, byte) in (at..).zip(bytes) {
                    if offset >= before {
                        seen.entry(offset).or_insert(*byte);
                    }
                }
                let wire = bytes.len() as u32 + u32::from(kind == 3) * 3;
                let missing = Loss::Unseen;
                let arrival = Arrival { seq, bytes, len: wire, missing, at: 0, ack: None };
                assembler.insert(arrival, &mut |p| check(p, &mut place, &seen));
            }
        }
        assert_eq!(assembler.next(), place);
        assert!(assembler.memory() <= given * 3 + 1024);
    }
    while assembler.give_up_first(Loss::Unseen, &mut |_| {}) {}
    assert_eq!(assembler.memory(), 0);
});
