//! The brokers, and which of them leads which partition of one topic.

use std::{collections::HashMap, sync::Arc, time::Duration};

use kafka_protocol::{
    error::ParseResponseErrorCode,
    messages::{
        MetadataRequest, MetadataResponse, TopicName, metadata_request::MetadataRequestTopic,
    },
    protocol::StrBytes,
};
use rustls::ClientConfig;
use tokio::time::Instant;

use super::{
    Address, KafkaError, KafkaSettings,
    connection::{Ask, Connection},
};

/// Partitions are added to a topic without anybody being told (`metadata.max.age.ms`).
const KNOWN_FOR: Duration = Duration::from_secs(300);

pub(super) struct Cluster {
    settings: Arc<KafkaSettings>,
    tls: Option<Arc<ClientConfig>>,
    topic: TopicName,
    /// By their numbers.
    brokers: HashMap<i32, Address>,
    /// By partition; -1 where there is none.
    leaders: Vec<i32>,
    known_since: Option<Instant>,
    connections: HashMap<i32, Connection>,
    /// For what any broker answers.
    any: Option<Connection>,
    /// Where that is looked for next.
    next: usize,
}

impl Cluster {
    pub(super) fn new(
        settings: Arc<KafkaSettings>,
        tls: Option<Arc<ClientConfig>>,
        topic: &str,
    ) -> Self {
        Self {
            settings,
            tls,
            topic: TopicName(StrBytes::from_string(topic.to_owned())),
            brokers: HashMap::new(),
            leaders: Vec::new(),
            known_since: None,
            connections: HashMap::new(),
            any: None,
            next: 0,
        }
    }

    pub(super) fn topic(&self) -> &TopicName {
        &self.topic
    }

    /// How many partitions the topic has; at least one.
    pub(super) async fn partitions(&mut self) -> Result<usize, KafkaError> {
        if self.known_since.is_none_or(|since| since.elapsed() >= KNOWN_FOR) {
            self.learn().await?;
        }
        Ok(self.leaders.len())
    }

    /// Something has changed: it is asked again before the next use.
    pub(super) fn forget(&mut self) {
        self.known_since = None;
    }

    pub(super) fn leader(&self, partition: i32) -> Result<i32, KafkaError> {
        let place = usize::try_from(partition).ok();
        let leader = place.and_then(|place| self.leaders.get(place)).copied();
        leader
            .filter(|leader| *leader >= 0)
            .ok_or_else(|| KafkaError::NoLeader { topic: self.topic.0.to_string(), partition })
    }

    /// Puts a request to one broker.
    pub(super) async fn ask<A: Ask>(
        &mut self,
        broker: i32,
        request: &A,
    ) -> Result<A::Answer, KafkaError> {
        let mut connection = match self.connections.remove(&broker) {
            Some(connection) => connection,
            None => match self.brokers.get(&broker) {
                Some(address) => self.connect(address).await?,
                // The topic's metadata names a broker that the cluster's does not.
                None => return Err(self.unheard_of(broker)),
            },
        };
        let answer = connection.ask(request).await?;
        self.connections.insert(broker, connection);
        Ok(answer)
    }

    /// Puts a request to whichever broker answers.
    pub(super) async fn ask_any<A: Ask>(&mut self, request: &A) -> Result<A::Answer, KafkaError> {
        let mut connection = match self.any.take() {
            Some(connection) => connection,
            None => self.connect_any().await?,
        };
        let answer = connection.ask(request).await?;
        self.any = Some(connection);
        Ok(answer)
    }

    async fn learn(&mut self) -> Result<(), KafkaError> {
        let topic = MetadataRequestTopic::default().with_name(Some(self.topic.clone()));
        // Where brokers make topics by themselves, being asked is what makes them.
        let request = MetadataRequest::default()
            .with_topics(Some(vec![topic]))
            .with_allow_auto_topic_creation(true);
        let answer = self.ask_any(&request).await?;
        self.read(answer)
    }

    fn read(&mut self, answer: MetadataResponse) -> Result<(), KafkaError> {
        let mut brokers = HashMap::new();
        for broker in answer.brokers {
            let Ok(port) = u16::try_from(broker.port) else { continue };
            brokers.insert(broker.node_id.0, Address { host: broker.host.to_string(), port });
        }
        // A number may have moved to another machine.
        self.connections.retain(|number, open| brokers.get(number) == Some(open.broker()));
        self.brokers = brokers;
        let of_topic = answer.topics.into_iter().find(|of| of.name.as_ref() == Some(&self.topic));
        let refused =
            |error| KafkaError::Refused { what: format!("topic {}", &*self.topic.0), error };
        let Some(of_topic) = of_topic else {
            return Err(refused(kafka_protocol::ResponseError::UnknownTopicOrPartition));
        };
        if let Some(error) = of_topic.error_code.err() {
            return Err(refused(error));
        }
        // As many as there are, whatever their numbers are said to be.
        let mut leaders = vec![-1; of_topic.partitions.len()];
        for partition in of_topic.partitions {
            let place = usize::try_from(partition.partition_index).unwrap_or(usize::MAX);
            if let Some(leader) = leaders.get_mut(place) {
                *leader = partition.leader_id.0;
            }
        }
        if leaders.is_empty() {
            return Err(self.no_leader());
        }
        self.leaders = leaders;
        self.known_since = Some(Instant::now());
        Ok(())
    }

    fn no_leader(&self) -> KafkaError {
        KafkaError::NoLeader { topic: self.topic.0.to_string(), partition: 0 }
    }

    /// The brokers of the configuration in turn, then those that the cluster had: the first may all
    /// have been replaced.
    async fn connect_any(&mut self) -> Result<Connection, KafkaError> {
        let mut places = self.settings.brokers.clone();
        let mut known: Vec<_> = self.brokers.values().cloned().collect();
        known.retain(|address| !places.contains(address));
        known.sort();
        places.append(&mut known);
        let start = self.next;
        self.next = start.wrapping_add(1);
        // One a try: between two of them a batch waits, and so does the agent's end.
        match places.get(start % places.len().max(1)) {
            Some(address) => self.connect(address).await,
            None => Err(self.no_leader()),
        }
    }

    async fn connect(&self, address: &Address) -> Result<Connection, KafkaError> {
        let sasl = self.settings.security.sasl.as_ref();
        Connection::open(address, self.tls.as_ref(), sasl).await
    }

    fn unheard_of(&self, broker: i32) -> KafkaError {
        KafkaError::Refused {
            what: format!("broker {broker}"),
            error: kafka_protocol::ResponseError::BrokerNotAvailable,
        }
    }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::{
        BrokerId,
        metadata_response::{
            MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
        },
    };

    use super::*;
    use crate::telemetry::kafka::Security;

    fn cluster() -> Cluster {
        let settings = KafkaSettings {
            brokers: vec![Address { host: "127.0.0.1".to_owned(), port: 9 }],
            security: Security::default(),
            queue_capacity: 1,
        };
        Cluster::new(Arc::new(settings), None, "stoa.metering")
    }

    fn answer(error: i16, partitions: &[(i32, i32)]) -> MetadataResponse {
        let partitions = partitions.iter().map(|(index, leader)| {
            MetadataResponsePartition::default()
                .with_partition_index(*index)
                .with_leader_id(BrokerId(*leader))
        });
        let name = TopicName(StrBytes::from_static_str("stoa.metering"));
        let topic = MetadataResponseTopic::default()
            .with_name(Some(name))
            .with_error_code(error)
            .with_partitions(partitions.collect());
        let broker = MetadataResponseBroker::default()
            .with_node_id(BrokerId(3))
            .with_host(StrBytes::from_static_str("kafka-3"))
            .with_port(9092);
        MetadataResponse::default().with_topics(vec![topic]).with_brokers(vec![broker])
    }

    #[tokio::test]
    async fn leaders_are_known_until_something_changes() {
        let mut cluster = cluster();
        cluster.read(answer(0, &[(1, 3), (0, -1)])).unwrap();
        assert_eq!(cluster.partitions().await.unwrap(), 2);
        assert_eq!(cluster.leader(1).unwrap(), 3);
        assert!(matches!(cluster.leader(0), Err(KafkaError::NoLeader { partition: 0, .. })));
        assert!(cluster.leader(2).is_err() && cluster.leader(-1).is_err());
        assert_eq!(cluster.brokers[&3].to_string(), "kafka-3:9092");
        cluster.forget();
        // It asks, and nobody is there.
        assert!(matches!(cluster.partitions().await, Err(KafkaError::Connect { .. })));
    }

    #[test]
    fn a_topic_that_there_is_not_is_an_error_and_so_is_an_odd_answer() {
        let mut cluster = cluster();
        let error = cluster.read(answer(3, &[])).unwrap_err().to_string();
        assert!(error.contains("stoa.metering") && error.contains("UnknownTopic"), "{error}");
        assert!(cluster.read(answer(0, &[])).is_err());
        assert!(cluster.read(MetadataResponse::default()).is_err());
        cluster.read(answer(0, &[(i32::MAX, 3)])).unwrap();
        assert!(cluster.leader(0).is_err());
    }
}
