use super::*;
use crate::{Reader, ReaderConfig, exchange::Exchange, exchange_json, read_capture};

fn show(exchange: &Exchange) -> String {
    let mut value = exchange_json::to_json(exchange, "s");
    // A replay names flows anew.
    value["connection"]["flow"] = "".into();
    value.to_string()
}

#[test]
fn replay_gives_the_same_exchanges() {
    let endpoints = Endpoints {
        client: ([10, 0, 0, 1], 4000).into(),
        server: ([10, 0, 0, 2], 80).into(),
        service: 5,
    };
    let flow = FlowId(77);
    let long =
        [b"HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n".as_slice(), &vec![b'x'; 100_000]]
            .concat();
    let request = b"GET /a HTTP/1.1\r\n\r\n".as_slice();
    let segment = |direction, seq, ack, data| {
        Event::Segment(Segment {
            flow,
            direction,
            at: 1000 + u64::from(seq),
            seq,
            ack: Some(ack),
            syn: false,
            fin: false,
            rst: false,
            len: <[u8]>::len(data) as u32,
            data,
            missing: None,
        })
    };
    let n = request.len() as u32;
    let after = 100 + long.len() as u32;
    let events = [
        Event::Open { flow, at: 1, endpoints, from_start: true },
        segment(Direction::ToServer, 7, 100, request),
        segment(Direction::ToClient, 100, 7 + n, &long),
        Event::Lost {
            flow,
            direction: Direction::ToClient,
            at: 5,
            seq: after,
            len: 200_000,
            reason: Loss::Budget,
        },
        segment(Direction::ToServer, 7 + n, after + 200_000, request),
        Event::Close { flow, at: 1_000_000_000 },
    ];
    let mut live = Vec::new();
    let mut reader = Reader::new(ReaderConfig::offline());
    let mut recorder = Recorder::new(Vec::new()).unwrap();
    for event in events {
        reader.push(event, &mut |e| live.push(show(&e)));
        recorder.record(event).unwrap();
    }
    let mut replayed = Vec::new();
    let file = recorder.finish().unwrap();
    read_capture(&file[..], ReaderConfig::offline(), &mut |e| replayed.push(show(&e))).unwrap();
    assert_eq!(live.len(), 2);
    assert_eq!(replayed, live);
}
