use proptest::prelude::*;

use crate::{
    Reader, ReaderConfig,
    segment::{Direction, Endpoints, Event, FlowId, Loss, Segment},
};

/// Segments of a client that asks for `/0`, `/1`, ... in turn; each response names its request, in
/// its status too: 400 for `/0`, 401 for `/1`, ...
/// `depth`: how many requests are sent before their responses are waited for.
fn conversation(kinds: &[u8], size: usize, depth: usize) -> Vec<(Direction, u32, u32, Vec<u8>)> {
    let mut out = Vec::new();
    let mut next = [1_u32, 1];
    let mut messages = Vec::new();
    for (i, kind) in kinds.iter().enumerate() {
        let request = match kind % 3 {
            0 => format!("GET /{i} HTTP/1.1\r\n\r\n"),
            1 => format!(
                "POST /{i} HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
            ),
            _ => format!("HEAD /{i} HTTP/1.1\r\n\r\n"),
        };
        let body = format!("/{i}#");
        let (n, status) = (body.len(), 400 + i);
        let response = match kind % 3 {
            0 => format!("HTTP/1.1 {status} OK\r\nContent-Length: {n}\r\nX: /{i}\r\n\r\n{body}"),
            1 => format!(
                "HTTP/1.1 {status} OK\r\nTransfer-Encoding: chunked\r\nX: /{i}\r\n\r\n{n:x}\r\n{body}\r\n0\r\n\r\n"
            ),
            _ => format!("HTTP/1.1 {status} OK\r\nContent-Length: {n}\r\nX: /{i}\r\n\r\n"),
        };
        messages.push([request, response]);
    }
    for burst in messages.chunks(depth) {
        for side in [0, 1] {
            let direction = [Direction::ToServer, Direction::ToClient][side];
            for part in burst.iter().flat_map(|pair| pair[side].as_bytes().chunks(size)) {
                out.push((direction, next[side], next[1 - side], part.to_vec()));
                next[side] += part.len() as u32;
            }
        }
    }
    out
}

proptest! {
    /// Whatever is lost, no response is given to a request that it does not answer.
    #[test]
    fn never_the_wrong_response(
        kinds in prop::collection::vec(any::<u8>(), 1..12),
        size in 8_usize..120,
        lost in prop::collection::vec(prop::bool::weighted(0.15), 200),
        from_start in any::<bool>(),
        is_mixed in any::<bool>(),
        snap in prop::option::of(14_usize..90),
        depth in prop_oneof![3 => Just(1_usize), 1 => 2_usize..4],
    ) {
        // Nothing tells of a burst whose first request was sent before the capture began, or of one
        // in which requests may end in what the snap length cut off.
        let depth = if from_start && snap.is_none() { depth } else { 1 };
        let mut segments = conversation(&kinds, size, depth);
        let keeps_all = from_start && !lost.iter().take(segments.len()).any(|l| *l);
        if is_mixed {
            segments.chunks_mut(2).for_each(|pair| pair.reverse());
        }
        let mut reader = Reader::new(ReaderConfig::default());
        let mut seen = Vec::new();
        let endpoints = Endpoints {
            client: ([10, 0, 0, 1], 4000).into(),
            server: ([10, 0, 0, 2], 80).into(),
            service: 0,
        };
        let flow = FlowId(1);
        reader.push(Event::Open { flow, at: 0, endpoints, from_start }, &mut |e| seen.push(e));
        if from_start {
            let syn = Segment {
                flow, direction: Direction::ToServer, at: 0, seq: 0, ack: None, syn: true,
                fin: false, rst: false, len: 0, data: &[], missing: None,
            };
            reader.push(Event::Segment(syn), &mut |e| seen.push(e));
            let answer = Segment { direction: Direction::ToClient, ack: Some(1), ..syn };
            reader.push(Event::Segment(answer), &mut |e| seen.push(e));
        }
        for (i, (direction, seq, ack, data)) in segments.iter().enumerate() {
            // Where a client that pipelines loses requests and their responses together, the next
            // request looks like one of a client that does not.
            let may_be_lost = depth == 1 || *direction == Direction::ToServer;
            if may_be_lost && lost.get(i).copied().unwrap_or(false) {
                continue;
            }
            let segment = Segment {
                flow, direction: *direction, at: i as u64, seq: *seq, ack: Some(*ack), syn: false,
                fin: false, rst: false, len: data.len() as u32,
                data: &data[..data.len().min(snap.unwrap_or(usize::MAX))],
                missing: snap.is_some_and(|n| n < data.len()).then_some(Loss::Unseen),
            };
            reader.push(Event::Segment(segment), &mut |e| seen.push(e));
        }
        reader.push(Event::Close { flow, at: 999 }, &mut |e| seen.push(e));
        for exchange in &seen {
            if let (Some(request), Some(response)) = (&exchange.request, &exchange.response) {
                let own = format!("/{}", response.status - 400);
                prop_assert_eq!(request.target(), own.as_bytes());
                // A head that was cut may have lost it.
                if let Some(target) = response.message.header("x") {
                    prop_assert_eq!(request.target(), target);
                }
            }
            prop_assert_eq!(exchange.is_complete(), exchange.incomplete.is_empty());
        }
        if keeps_all && !is_mixed && snap.is_none() {
            prop_assert_eq!(seen.iter().filter(|e| e.is_complete()).count(), kinds.len());
        }
    }
}
