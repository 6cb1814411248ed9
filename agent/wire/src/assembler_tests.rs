use proptest::prelude::*;

use super::*;

/// The stream as it came out: bytes, and holes as `None`.
#[derive(Default)]
struct Collected {
    bytes: Vec<Option<u8>>,
}

impl Collected {
    fn take(&mut self, piece: Piece<'_>) {
        match piece {
            Piece::Data { bytes, .. } => self.bytes.extend(bytes.iter().map(|b| Some(*b))),
            Piece::Gap { len, .. } => self.bytes.extend((0..len).map(|_| None)),
        }
    }
}

fn arrival(seq: u32, bytes: &[u8]) -> Arrival<'_> {
    Arrival { seq, bytes, len: bytes.len() as u32, missing: Loss::Unseen, at: 0, ack: None }
}

fn collect(start: u32, segments: &[(u32, &[u8])]) -> (Assembler, Vec<Option<u8>>) {
    let mut assembler = Assembler::default();
    let mut out = Collected::default();
    assembler.start(start);
    for (seq, bytes) in segments {
        assembler.insert(arrival(*seq, bytes), &mut |p| out.take(p));
    }
    (assembler, out.bytes)
}

fn seen(text: &[u8]) -> Vec<Option<u8>> {
    text.iter().map(|b| Some(*b)).collect()
}

#[test]
fn in_order() {
    assert_eq!(collect(7, &[(7, b"ab"), (9, b"cd")]).1, seen(b"abcd"));
}

#[test]
fn retransmission_is_yielded_once() {
    assert_eq!(collect(7, &[(7, b"ab"), (7, b"ab"), (9, b"cd")]).1, seen(b"abcd"));
}

#[test]
fn reordered() {
    assert_eq!(collect(7, &[(11, b"ef"), (9, b"cd"), (7, b"ab")]).1, seen(b"abcdef"));
}

#[test]
fn first_bytes_win_where_segments_overlap() {
    assert_eq!(collect(7, &[(9, b"cd"), (7, b"XYZZ"), (11, b"e")]).1, seen(b"XYcde"));
}

#[test]
fn first_bytes_win_behind_the_place() {
    assert_eq!(collect(7, &[(7, b"abc"), (8, b"XXd")]).1, seen(b"abcd"));
}

#[test]
fn wraps_around() {
    assert_eq!(collect(u32::MAX - 1, &[(u32::MAX - 1, b"abc"), (1, b"de")]).1, seen(b"abcde"));
}

#[test]
fn wraps_around_out_of_order() {
    assert_eq!(collect(u32::MAX, &[(1, b"cd"), (u32::MAX, b"ab")]).1, seen(b"abcd"));
}

#[test]
fn hole_waits() {
    let (assembler, out) = collect(7, &[(9, b"cd")]);
    assert!(out.is_empty());
    assert!(assembler.memory() > 2);
}

#[test]
fn lost_bytes_are_a_gap() {
    let (mut assembler, _) = collect(7, &[(9, b"cd")]);
    let mut out = Collected::default();
    assembler.lose(7, 2, Loss::RingFull, &mut |p| out.take(p));
    assert_eq!(out.bytes, [None, None, Some(b'c'), Some(b'd')]);
    assert_eq!(assembler.memory(), 0);
}

#[test]
fn seen_after_all() {
    let mut assembler = Assembler::default();
    let mut out = Collected::default();
    assembler.start(7);
    assembler.lose(9, 4, Loss::RingFull, &mut |p| out.take(p));
    assembler.insert(arrival(10, b"XY"), &mut |p| out.take(p));
    assembler.insert(arrival(7, b"ab"), &mut |p| out.take(p));
    assert_eq!(out.bytes, [Some(b'a'), Some(b'b'), None, Some(b'X'), Some(b'Y'), None]);
}

#[test]
fn snapped_segment() {
    let mut assembler = Assembler::default();
    let mut out = Collected::default();
    let snapped = Arrival { len: 4, ..arrival(7, b"ab") };
    assembler.insert(snapped, &mut |p| out.take(p));
    assembler.insert(arrival(11, b"e"), &mut |p| out.take(p));
    assert_eq!(out.bytes, [Some(b'a'), Some(b'b'), None, None, Some(b'e')]);
}

#[test]
fn keep_alive_probe_is_old() {
    assert_eq!(collect(7, &[(7, b"ab"), (8, b"\0"), (9, b"c")]).1, seen(b"abc"));
}

#[test]
fn number_out_of_every_window_is_ignored() {
    let (assembler, out) = collect(7, &[(7 + (1 << 30) + 1, b"zz"), (7, b"a")]);
    assert_eq!(out, seen(b"a"));
    assert_eq!(assembler.memory(), 0);
}

#[test]
fn segment_boundary_is_told() {
    let mut assembler = Assembler::default();
    assembler.start(7);
    assembler.insert(arrival(7, b"abc"), &mut |_| {});
    let mut starts = Vec::new();
    assembler.insert(arrival(9, b"cd"), &mut |p| {
        if let Piece::Data { origin, .. } = p {
            starts.push(origin.starts_segment);
        }
    });
    assert_eq!(starts, [false]);
}

prop_compose! {
    /// A stream, where it starts, and cuts of it: (from, length, is dropped, order).
    fn pieces()(
        len in 1_usize..400,
        start in prop_oneof![any::<u32>(), (0_u32..300).prop_map(|n| u32::MAX - n)],
        cuts in prop::collection::vec((0.0_f64..1.0, 1_usize..80, any::<u32>()), 0..60),
    ) -> (Vec<u8>, u32, Vec<(usize, usize, u32)>) {
        let stream: Vec<u8> = (0..len).map(|i| (i * 31 % 251) as u8).collect();
        let cuts = cuts.into_iter().map(|(at, n, order)| {
            let from = (at * len as f64) as usize;
            (from, n.min(len - from), order)
        }).collect();
        (stream, start, cuts)
    }
}

proptest! {
    #[test]
    fn any_segmentation_gives_the_stream((stream, start, extra) in pieces(), size in 1_usize..90) {
        let mut parts: Vec<(usize, usize, u32)> = extra;
        for from in (0..stream.len()).step_by(size) {
            // A fixed but scattered order.
            parts.push((from, size.min(stream.len() - from), (from as u32).wrapping_mul(2_654_435_761)));
        }
        parts.sort_by_key(|(.., order)| *order);
        let segments: Vec<(u32, &[u8])> = parts
            .iter()
            .map(|(from, n, _)| (start.wrapping_add(*from as u32), &stream[*from..*from + *n]))
            .collect();
        let (assembler, out) = collect(start, &segments);
        prop_assert_eq!(out, seen(&stream));
        prop_assert_eq!(assembler.memory(), 0);
    }

    #[test]
    fn data_and_gaps_add_up((stream, start, mut cuts) in pieces()) {
        cuts.sort_by_key(|(.., order)| *order);
        let segments: Vec<(u32, &[u8])> = cuts
            .iter()
            .map(|(from, n, _)| (start.wrapping_add(*from as u32), &stream[*from..*from + *n]))
            .collect();
        let (mut assembler, before) = collect(start, &segments);
        let mut out = Collected { bytes: before };
        while assembler.give_up_first(Loss::Unseen, &mut |p| out.take(p)) {}
        let mut expected: Vec<Option<u8>> = vec![None; stream.len()];
        for (from, n, _) in &cuts {
            expected[*from..*from + *n].copy_from_slice(&seen(&stream[*from..*from + *n]));
        }
        while expected.last() == Some(&None) {
            expected.pop();
        }
        prop_assert_eq!(out.bytes, expected);
        prop_assert_eq!(assembler.memory(), 0);
    }
}
