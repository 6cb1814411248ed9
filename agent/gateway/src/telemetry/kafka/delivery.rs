//! Takes messages from the queue and brings them to Kafka, one batch after another.
//!
//! There is no deadline for a batch: while Kafka is away it waits, the queue behind it fills, and
//! what does not fit is dropped where it comes in. Only what a broker refuses for good, and what is
//! left when the agent stops, is given up.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use kafka_protocol::{
    ResponseError,
    error::ParseResponseErrorCode,
    messages::{
        InitProducerIdRequest, ProduceRequest, ProduceResponse,
        produce_request::{PartitionProduceData, TopicProduceData},
    },
};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep, timeout_at},
};

use super::{
    Counts, FLUSHED_WITHIN, KafkaError, Message,
    batch::{self, ProducerId, Rendered},
    cluster::Cluster,
    partitioner::partition_of,
};
use crate::proxy::random::Random;

/// How long the first message of a batch waits for others, and how many go together.
const LINGER: Duration = Duration::from_millis(100);
const LARGEST_BATCH: usize = 1000;
/// Before compression. A broker takes 1 MiB (`message.max.bytes`) unless it is told otherwise.
const LARGEST_BATCH_BYTES: usize = 512 << 10;
/// Of what the replicas may take (`request.timeout.ms`).
const REPLICATED_WITHIN: Duration = Duration::from_secs(10);
/// All replicas in sync have it: what a leader alone has may be lost with it.
const ACKS: i16 = -1;
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
const LONGEST_BACKOFF: Duration = Duration::from_secs(5);
/// Of the operator: shorter troubles are only counted.
const PATIENCE: Duration = Duration::from_millis(500);
/// Brokers that are away are said so once in this time.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);

pub(super) struct Delivery {
    cluster: Cluster,
    counts: Arc<Counts>,
    producer: Option<ProducerId>,
    /// Of the next record, by partition.
    sequences: HashMap<i32, i32>,
    backoff: Duration,
    random: Random,
    complained: Option<Instant>,
}

/// For one partition, in order.
#[derive(Debug)]
struct Batch {
    partition: i32,
    records: Vec<Rendered>,
}

/// What a broker's answer means for a batch.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    Delivered,
    TooLarge,
    /// It is refused however often it is sent.
    Rejected,
    /// Somebody else leads the partition.
    Moved,
    /// The broker knows the producer otherwise than it knows itself.
    Unidentified,
    Again,
}

impl Fate {
    fn of(error: Option<ResponseError>) -> Self {
        use ResponseError as Error;
        match error {
            // It was written when it was sent before.
            None | Some(Error::DuplicateSequenceNumber) => Self::Delivered,
            Some(Error::MessageTooLarge | Error::RecordListTooLarge) => Self::TooLarge,
            Some(
                Error::CorruptMessage
                | Error::InvalidRecord
                | Error::InvalidTimestamp
                | Error::UnsupportedCompressionType
                | Error::UnsupportedForMessageFormat,
            ) => Self::Rejected,
            Some(
                Error::NotLeaderOrFollower
                | Error::LeaderNotAvailable
                | Error::FencedLeaderEpoch
                | Error::UnknownTopicOrPartition,
            ) => Self::Moved,
            Some(
                Error::OutOfOrderSequenceNumber
                | Error::UnknownProducerId
                | Error::InvalidProducerEpoch
                | Error::InvalidProducerIdMapping,
            ) => Self::Unidentified,
            // Even a missing right may be given later.
            Some(_) => Self::Again,
        }
    }
}

/// Until the agent stops, and what is left is sent or given up.
pub(super) async fn run<M: Message>(
    mut delivery: Delivery,
    mut queue: mpsc::Receiver<M>,
    mut stopping: watch::Receiver<bool>,
) {
    let mut stopped = stopping.clone();
    let deadline = async {
        // Whoever could say so is gone, which says so too.
        let _ = stopped.wait_for(|is_stopping| *is_stopping).await;
        sleep(FLUSHED_WITHIN).await;
    };
    tokio::select! {
        () = delivery.deliver_all(&mut queue, &mut stopping) => {}
        () = deadline => {}
    }
    queue.close();
    while queue.try_recv().is_ok() {}
    let left = delivery.counts.waiting();
    delivery.counts.stopped.fetch_add(left, Relaxed);
    delivery.counts.accepted.fetch_sub(left, Relaxed);
    if left > 0 {
        let topic = &delivery.counts.topic;
        tracing::warn!(topic, messages = left, "the last messages did not reach Kafka in time");
    }
}

impl Delivery {
    pub(super) fn new(cluster: Cluster, counts: Arc<Counts>) -> Self {
        Self {
            cluster,
            counts,
            producer: None,
            sequences: HashMap::new(),
            backoff: FIRST_BACKOFF,
            random: Random::default(),
            complained: None,
        }
    }

    async fn deliver_all<M: Message>(
        &mut self,
        queue: &mut mpsc::Receiver<M>,
        stopping: &mut watch::Receiver<bool>,
    ) {
        loop {
            let records = collect(queue, stopping).await;
            if records.is_empty() {
                return;
            }
            self.deliver(records).await;
        }
    }

    async fn deliver(&mut self, records: Vec<Rendered>) {
        let partitions = loop {
            match self.cluster.partitions().await {
                Ok(partitions) => break partitions,
                Err(error) => self.wait(&error).await,
            }
        };
        let mut batches = by_partition(records, partitions);
        while !batches.is_empty() {
            match self.try_to_deliver(&mut batches).await {
                Ok(()) => self.succeed(),
                Err(error) => self.wait(&error).await,
            }
        }
    }

    fn succeed(&mut self) {
        self.backoff = FIRST_BACKOFF;
        if self.complained.take().is_some() {
            tracing::info!(topic = self.counts.topic, "Kafka takes messages again");
        }
    }

    async fn wait(&mut self, error: &KafkaError) {
        self.counts.failed_tries.fetch_add(1, Relaxed);
        // A topic that is being made, or a leader that is being chosen, is there a moment later.
        let is_lasting = self.backoff > PATIENCE;
        if is_lasting && self.complained.is_none_or(|at| at.elapsed() >= COMPLAIN_EVERY) {
            self.complained = Some(Instant::now());
            tracing::warn!(
                topic = self.counts.topic,
                %error,
                waiting = self.counts.waiting(),
                "messages do not reach Kafka and wait; are the brokers of STOA_KAFKA_BROKERS up, \
                 and may this agent write to the topic?"
            );
        }
        // Agents that lost the same broker do not all come back at once.
        let share = 500 + u32::try_from(self.random.below(500)).unwrap_or(0);
        sleep(self.backoff * share / 1000).await;
        self.backoff = (self.backoff * 2).min(LONGEST_BACKOFF);
    }

    /// The first batch of each partition: one after another, as their order is to stay.
    async fn try_to_deliver(&mut self, batches: &mut Vec<Batch>) -> Result<(), KafkaError> {
        let partitions = self.cluster.partitions().await?;
        regroup(batches, partitions);
        let producer = self.identify().await?;
        let mut failure = None;
        let mut by_leader: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
        for batch in batches.iter() {
            match self.cluster.leader(batch.partition) {
                Ok(leader) => {
                    let partitions = by_leader.entry(leader).or_default();
                    if !partitions.contains(&batch.partition) {
                        partitions.push(batch.partition);
                    }
                }
                Err(error) => failure = Some(error),
            }
        }
        if failure.is_some() {
            self.cluster.forget();
        }
        for (leader, partitions) in by_leader {
            let request = self.request(batches, &partitions, producer)?;
            match self.cluster.ask(leader, &request).await {
                Ok(answer) => {
                    if let Err(error) = self.settle(batches, &partitions, &answer) {
                        failure = Some(error);
                    }
                }
                Err(error) => {
                    self.cluster.forget();
                    failure = Some(error);
                }
            }
        }
        failure.map_or(Ok(()), Err)
    }

    /// What the producer is called from now on.
    async fn identify(&mut self) -> Result<ProducerId, KafkaError> {
        if let Some(producer) = self.producer {
            return Ok(producer);
        }
        let request = InitProducerIdRequest::default().with_transactional_id(None);
        let answer = self.cluster.ask_any(&request).await?;
        let producer = match answer.error_code.err() {
            None => ProducerId { id: answer.producer_id.0, epoch: answer.producer_epoch },
            // Before Kafka 2.8 that was a right of its own.
            Some(error @ ResponseError::ClusterAuthorizationFailed) => {
                tracing::warn!(
                    topic = self.counts.topic,
                    %error,
                    "this agent may not write idempotently: a batch whose answer is lost may be \
                     written twice; `event_id` tells"
                );
                ProducerId::NONE
            }
            Some(error) => {
                return Err(KafkaError::Refused {
                    what: "a producer's identity".to_owned(),
                    error,
                });
            }
        };
        self.sequences.clear();
        self.producer = Some(producer);
        Ok(producer)
    }

    fn request(
        &self,
        batches: &[Batch],
        partitions: &[i32],
        producer: ProducerId,
    ) -> Result<ProduceRequest, KafkaError> {
        let mut data = Vec::with_capacity(partitions.len());
        for partition in partitions {
            let Some(batch) = batches.iter().find(|batch| batch.partition == *partition) else {
                continue;
            };
            let sequence = self.sequences.get(partition).copied().unwrap_or(0);
            let encoded = batch::encode(&batch.records, producer, sequence)?;
            data.push(
                PartitionProduceData::default().with_index(*partition).with_records(Some(encoded)),
            );
        }
        let topic = TopicProduceData::default()
            .with_name(self.cluster.topic().clone())
            .with_partition_data(data);
        Ok(ProduceRequest::default()
            .with_transactional_id(None)
            .with_acks(ACKS)
            .with_timeout_ms(i32::try_from(REPLICATED_WITHIN.as_millis()).unwrap_or(i32::MAX))
            .with_topic_data(vec![topic]))
    }

    /// Takes out of `batches` what needs not be sent again.
    fn settle(
        &mut self,
        batches: &mut Vec<Batch>,
        partitions: &[i32],
        answer: &ProduceResponse,
    ) -> Result<(), KafkaError> {
        let mut failure = None;
        let mut has_moved = false;
        let answered = || answer.responses.iter().flat_map(|topic| &topic.partition_responses);
        for partition in partitions {
            let place = batches.iter().position(|batch| batch.partition == *partition);
            let Some(place) = place else { continue };
            let code = answered().find(|of| of.index == *partition).map(|of| of.error_code);
            // A broker that says nothing of it has not taken it.
            let error = code.map_or(Some(ResponseError::UnknownServerError), |code| code.err());
            let fate = Fate::of(error);
            match fate {
                Fate::Delivered => {
                    let count = batches.remove(place).records.len();
                    let sequence = self.sequences.entry(*partition).or_default();
                    *sequence = batch::advance(*sequence, count);
                    self.counts.sent.fetch_add(count as u64, Relaxed);
                    continue;
                }
                Fate::TooLarge if split(batches, place) => continue,
                Fate::TooLarge | Fate::Rejected => {
                    let count = batches.remove(place).records.len() as u64;
                    self.counts.rejected.fetch_add(count, Relaxed);
                    let topic = &self.counts.topic;
                    tracing::error!(topic, messages = count, ?error, "Kafka refuses messages");
                    continue;
                }
                Fate::Moved => has_moved = true,
                Fate::Unidentified => self.producer = None,
                Fate::Again => {}
            }
            let what = format!("partition {partition} of {}", self.counts.topic);
            failure = error.map(|error| KafkaError::Refused { what, error });
        }
        if has_moved {
            self.cluster.forget();
        }
        failure.map_or(Ok(()), Err)
    }
}

/// Makes two of one, where that is possible.
fn split(batches: &mut Vec<Batch>, place: usize) -> bool {
    let Some(batch) = batches.get_mut(place).filter(|batch| batch.records.len() > 1) else {
        return false;
    };
    let records = batch.records.split_off(batch.records.len() / 2);
    let rest = Batch { partition: batch.partition, records };
    batches.insert(place + 1, rest);
    true
}

/// A topic that was made anew may have fewer partitions.
fn regroup(batches: &mut Vec<Batch>, partitions: usize) {
    let is_there = |batch: &Batch| usize::try_from(batch.partition).is_ok_and(|p| p < partitions);
    if !batches.iter().all(is_there) {
        let records = std::mem::take(batches).into_iter().flat_map(|batch| batch.records);
        *batches = by_partition(records.collect(), partitions);
    }
}

fn by_partition(records: Vec<Rendered>, partitions: usize) -> Vec<Batch> {
    let mut batches: BTreeMap<i32, Vec<Rendered>> = BTreeMap::new();
    for record in records {
        let partition = partition_of(&record.key, partitions);
        batches.entry(i32::try_from(partition).unwrap_or(0)).or_default().push(record);
    }
    batches.into_iter().map(|(partition, records)| Batch { partition, records }).collect()
}

/// The next messages; none where the agent stops and the queue is empty.
async fn collect<M: Message>(
    queue: &mut mpsc::Receiver<M>,
    stopping: &mut watch::Receiver<bool>,
) -> Vec<Rendered> {
    let mut records = Vec::new();
    let first = tokio::select! {
        biased;
        first = queue.recv() => first,
        _ = stopping.wait_for(|is_stopping| *is_stopping) => None,
    };
    let Some(first) = first.or_else(|| queue.try_recv().ok()) else { return records };
    let mut bytes = 0;
    let mut take = |message: M| {
        let rendered = render(&message);
        bytes += rendered.key.len() + rendered.value.len();
        records.push(rendered);
        records.len() < LARGEST_BATCH && bytes < LARGEST_BATCH_BYTES
    };
    let mut has_room = take(first);
    let deadline = Instant::now() + LINGER;
    let mut is_over = false;
    while has_room {
        let next = match queue.try_recv() {
            Ok(next) => next,
            Err(_) if is_over => break,
            Err(_) => tokio::select! {
                next = timeout_at(deadline, queue.recv()) => match next {
                    Ok(Some(next)) => next,
                    Ok(None) | Err(_) => break,
                },
                _ = stopping.wait_for(|is_stopping| *is_stopping) => {
                    is_over = true;
                    continue;
                }
            },
        };
        has_room = take(next);
    }
    records
}

fn render<M: Message>(message: &M) -> Rendered {
    let mut value = Vec::with_capacity(512);
    message.write(&mut value);
    let key = bytes::Bytes::copy_from_slice(message.key().as_bytes());
    Rendered { key, value: value.into(), timestamp: message.timestamp() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_mended_is_sent_again_and_what_cannot_is_not() {
        use ResponseError as Error;
        for (error, fate) in [
            (None, Fate::Delivered),
            (Some(Error::DuplicateSequenceNumber), Fate::Delivered),
            (Some(Error::MessageTooLarge), Fate::TooLarge),
            (Some(Error::InvalidRecord), Fate::Rejected),
            (Some(Error::NotLeaderOrFollower), Fate::Moved),
            (Some(Error::OutOfOrderSequenceNumber), Fate::Unidentified),
            (Some(Error::TopicAuthorizationFailed), Fate::Again),
            (Some(Error::NotEnoughReplicas), Fate::Again),
            (Some(Error::Unknown(999)), Fate::Again),
        ] {
            assert_eq!(Fate::of(error), fate, "{error:?}");
        }
    }

    fn record(key: &str, n: usize) -> Rendered {
        let key = bytes::Bytes::copy_from_slice(key.as_bytes());
        Rendered { key, value: n.to_string().into(), timestamp: 0 }
    }

    #[test]
    fn messages_of_a_key_stay_in_order_also_when_they_are_split() {
        let records = (0..9).map(|n| record(if n % 2 == 0 { "a" } else { "bb" }, n)).collect();
        let mut batches = by_partition(records, 1);
        assert_eq!(batches.len(), 1);
        assert!(split(&mut batches, 0) && split(&mut batches, 0));
        let order: Vec<_> = batches.iter().flat_map(|b| &b.records).map(|r| &r.value[..]).collect();
        assert_eq!(order.concat(), b"012345678");
        assert_eq!(batches.iter().map(|b| b.records.len()).collect::<Vec<_>>(), [2, 2, 5]);
        regroup(&mut batches, 1);
        assert_eq!(batches.len(), 3, "all of them are there");
        batches[2].partition = 7;
        regroup(&mut batches, 1);
        assert_eq!((batches.len(), batches[0].records.len()), (1, 9));
        let mut single = by_partition(vec![record("a", 1)], 8);
        assert!(!split(&mut single, 0));
    }
}
