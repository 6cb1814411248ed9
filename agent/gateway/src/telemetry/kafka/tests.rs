//! Against brokers that are away, or are none. A real one is in `tests/system`.

use std::{
    io::{Read, Write},
    net::TcpListener,
    time::Instant,
};

use super::*;

struct Text(&'static str);

impl Message for Text {
    fn key(&self) -> &str {
        "acme"
    }

    fn timestamp(&self) -> i64 {
        0
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.0.as_bytes());
    }
}

fn settings(port: u16) -> KafkaSettings {
    let brokers = vec![Address { host: "127.0.0.1".to_owned(), port }];
    KafkaSettings { brokers, security: Security::default(), queue_capacity: 8 }
}

fn start(port: u16) -> (Arc<Kafka>, Producer<Text>) {
    let mut preparation = Preparation::new(settings(port), None).unwrap();
    let producer = preparation.producer("stoa.metering");
    (preparation.start().unwrap(), producer)
}

fn shown(kafka: &Kafka, series: &str) -> u64 {
    let mut text = String::new();
    kafka.render(&mut text);
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {series} in:\n{text}")).parse().unwrap()
}

const DROPPED: &str = "stoa_kafka_messages_dropped_total{topic=\"stoa.metering\"";

#[tokio::test]
async fn nothing_waits_for_a_broker_that_is_away_and_everything_is_counted() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (kafka, producer) = start(port);
    let began = Instant::now();
    (0..1000).for_each(|_| producer.offer(Text("x")));
    assert!(began.elapsed() < Duration::from_secs(1));
    let full = shown(&kafka, &format!("{DROPPED},reason=\"queue_full\"}}"));
    // Those of the queue, and what the thread has taken out of it meanwhile.
    assert!((1..=992).contains(&full), "{full}");
    assert_eq!(shown(&kafka, "stoa_kafka_messages_waiting{topic=\"stoa.metering\"}"), 1000 - full);
    kafka.stop().await;
    assert_eq!(shown(&kafka, &format!("{DROPPED},reason=\"stopped\"}}")), 1000 - full);
    assert!(shown(&kafka, "stoa_kafka_failed_tries_total{topic=\"stoa.metering\"}") > 0);
    producer.offer(Text("late"));
    assert_eq!(shown(&kafka, &format!("{DROPPED},reason=\"stopped\"}}")), 1001 - full);
    assert_eq!(shown(&kafka, "stoa_kafka_messages_waiting{topic=\"stoa.metering\"}"), 0);
}

#[tokio::test]
async fn a_server_of_another_protocol_is_no_broker() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let _ = stream.read(&mut [0; 256]);
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        }
    });
    let (kafka, producer) = start(port);
    producer.offer(Text("x"));
    let failed = "stoa_kafka_failed_tries_total{topic=\"stoa.metering\"}";
    let deadline = Instant::now() + Duration::from_secs(20);
    while shown(&kafka, failed) < 2 {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(shown(&kafka, "stoa_kafka_messages_sent_total{topic=\"stoa.metering\"}"), 0);
}

#[test]
fn a_password_is_not_shown() {
    let sasl = Sasl {
        mechanism: Mechanism::ScramSha512,
        username: "stoa".to_owned(),
        password: "hunter2".to_owned(),
    };
    let shown = format!("{sasl:?}");
    assert!(shown.contains("SCRAM-SHA-512 of stoa") && !shown.contains("hunter2"), "{shown}");
}
