//! Why a batch is not in Kafka yet.

use std::{io, time::Duration};

use kafka_protocol::error::ResponseError;

use super::Address;

#[derive(Debug, thiserror::Error)]
pub enum KafkaError {
    #[error("cannot connect to {broker}: {source}")]
    Connect { broker: Address, source: io::Error },
    #[error("`{0}` is no name that a certificate could have")]
    ServerName(String),
    #[error("the connection to {broker} failed: {source}")]
    Io { broker: Address, source: io::Error },
    #[error("{broker} gave no answer within {} s", .within.as_secs())]
    Late { broker: Address, within: Duration },
    #[error("{broker} sent what is not Kafka's protocol: {reason}")]
    Protocol { broker: Address, reason: String },
    #[error("{broker} takes no {mechanism}; it offers {offered}")]
    Mechanism { broker: Address, mechanism: &'static str, offered: String },
    #[error("{broker} does not believe the user's password: {reason}")]
    Authentication { broker: Address, reason: String },
    #[error("{what}: {error:?} ({error})")]
    Refused { what: String, error: ResponseError },
    #[error("partition {partition} of {topic} has no leader at present")]
    NoLeader { topic: String, partition: i32 },
    #[error("a batch cannot be written: {0}")]
    Batch(String),
}
