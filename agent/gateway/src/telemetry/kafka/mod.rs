//! Sends messages to Kafka: in batches, by key, tried again until a broker has them. Nobody waits
//! for it: a message that finds the queue full is dropped and counted.
//!
//! The codec is `kafka-protocol`'s, and what is around it is here, because a client for this wants
//! little else: one topic, one batch under way, and an idempotent producer (KIP-98), so that what is
//! sent again after a lost answer is not written twice. Versions of the protocol are those of
//! Kafka 2.1, which is also the oldest that Kafka 4 speaks (KIP-896).

mod batch;
mod cluster;
mod connection;
mod delivery;
mod error;
mod partitioner;
mod sasl;

use std::{
    fmt,
    fmt::Write as _,
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use rustls::ClientConfig;
use tokio::{
    runtime::{Builder, Runtime},
    sync::{
        mpsc::{self, error::TrySendError},
        oneshot, watch,
    },
    task::JoinHandle,
};

pub use self::error::KafkaError;
use self::{cluster::Cluster, delivery::Delivery};
use super::proxy_metrics::{escape, header};

/// What is left when the agent stops is sent within this time, or dropped.
const FLUSHED_WITHIN: Duration = Duration::from_secs(5);

#[derive(Clone, Debug)]
pub struct KafkaSettings {
    /// Any of the cluster: the others are learnt from it.
    pub brokers: Vec<Address>,
    pub security: Security,
    /// Messages that may wait, of each topic.
    pub queue_capacity: usize,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address {
    /// A name, or an IP address without brackets.
    pub host: String,
    pub port: u16,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

#[derive(Clone, Debug, Default)]
pub struct Security {
    pub is_tls: bool,
    pub sasl: Option<Sasl>,
}

#[derive(Clone)]
pub struct Sasl {
    pub mechanism: Mechanism,
    pub username: String,
    pub password: String,
}

impl fmt::Debug for Sasl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}, [secret]", self.mechanism.name(), self.username)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mechanism {
    Plain,
    ScramSha256,
    ScramSha512,
}

impl Mechanism {
    pub const ALL: [Self; 3] = [Self::Plain, Self::ScramSha256, Self::ScramSha512];

    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

/// What a topic carries.
pub trait Message: Send + 'static {
    /// Messages of one key stay in order, in one partition.
    fn key(&self) -> &str;

    /// Milliseconds since 1970.
    fn timestamp(&self) -> i64;

    /// Appends what consumers read.
    fn write(&self, out: &mut Vec<u8>);
}

/// Of one topic. Shared by whoever has messages for it.
pub struct Producer<M> {
    queue: mpsc::Sender<M>,
    counts: Arc<Counts>,
}

impl<M: Message> Producer<M> {
    pub fn offer(&self, message: M) {
        let counter = match self.queue.try_send(message) {
            Ok(()) => &self.counts.accepted,
            Err(TrySendError::Full(_)) => &self.counts.queue_full,
            Err(TrySendError::Closed(_)) => &self.counts.stopped,
        };
        counter.fetch_add(1, Relaxed);
    }
}

/// Of one topic.
#[derive(Debug, Default)]
pub(super) struct Counts {
    topic: String,
    accepted: AtomicU64,
    sent: AtomicU64,
    queue_full: AtomicU64,
    /// By a broker, for good.
    rejected: AtomicU64,
    /// There was no time left for them when the agent stopped.
    stopped: AtomicU64,
    failed_tries: AtomicU64,
}

impl Counts {
    fn waiting(&self) -> u64 {
        let gone = self.sent.load(Relaxed) + self.rejected.load(Relaxed);
        self.accepted.load(Relaxed).saturating_sub(gone)
    }

    /// The topic, as the value of a label.
    fn label(&self) -> String {
        escape(&self.topic)
    }
}

/// The thread that sends, and its topics.
pub struct Kafka {
    stopping: watch::Sender<bool>,
    ended: Mutex<Option<oneshot::Receiver<()>>>,
    topics: Vec<Arc<Counts>>,
}

/// Before its thread runs.
pub struct Preparation {
    settings: Arc<KafkaSettings>,
    tls: Option<Arc<ClientConfig>>,
    runtime: Runtime,
    stopping: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
    topics: Vec<Arc<Counts>>,
}

impl Preparation {
    /// The brokers need not be there yet. `tls`: whom to believe, if they speak TLS.
    pub fn new(settings: KafkaSettings, tls: Option<Arc<ClientConfig>>) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().max_blocking_threads(2).build()?;
        Ok(Self {
            settings: Arc::new(settings),
            tls,
            runtime,
            stopping: watch::Sender::new(false),
            tasks: Vec::new(),
            topics: Vec::new(),
        })
    }

    pub fn producer<M: Message>(&mut self, topic: &str) -> Producer<M> {
        let (queue, messages) = mpsc::channel(self.settings.queue_capacity);
        let counts = Arc::new(Counts { topic: topic.to_owned(), ..Counts::default() });
        let cluster = Cluster::new(Arc::clone(&self.settings), self.tls.clone(), topic);
        let delivery = Delivery::new(cluster, Arc::clone(&counts));
        let task = delivery::run(delivery, messages, self.stopping.subscribe());
        self.tasks.push(self.runtime.spawn(task));
        self.topics.push(Arc::clone(&counts));
        Producer { queue, counts }
    }

    pub fn start(self) -> io::Result<Arc<Kafka>> {
        let (end, ended) = oneshot::channel();
        let Self { runtime, tasks, stopping, topics, .. } = self;
        std::thread::Builder::new().name("kafka".to_owned()).spawn(move || {
            runtime.block_on(async {
                for task in tasks {
                    let _ = task.await;
                }
            });
            let _ = end.send(());
        })?;
        Ok(Arc::new(Kafka { stopping, ended: Mutex::new(Some(ended)), topics }))
    }
}

impl Kafka {
    /// Sends what is left, for a bounded time. Messages that come later are dropped.
    pub async fn stop(&self) {
        self.stopping.send_replace(true);
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(ended) = ended {
            let _ = tokio::time::timeout(FLUSHED_WITHIN * 2, ended).await;
        }
    }

    /// Appends to the text format, version 0.0.4.
    pub fn render(&self, text: &mut String) {
        type Read = fn(&Counts) -> u64;
        let families: [(&str, &str, &str, Read); 3] = [
            (
                "stoa_kafka_messages_sent_total",
                "counter",
                "Messages that Kafka has, by topic",
                |counts| counts.sent.load(Relaxed),
            ),
            (
                "stoa_kafka_messages_waiting",
                "gauge",
                "Messages that Kafka does not have yet, by topic",
                |counts| counts.waiting(),
            ),
            (
                "stoa_kafka_failed_tries_total",
                "counter",
                "Tries to send a batch that are followed by another, by topic",
                |counts| counts.failed_tries.load(Relaxed),
            ),
        ];
        for (name, kind, help, read) in families {
            header(text, name, kind, help);
            for counts in &self.topics {
                let _ = writeln!(text, "{name}{{topic=\"{}\"}} {}", counts.label(), read(counts));
            }
        }
        let name = "stoa_kafka_messages_dropped_total";
        header(text, name, "counter", "Messages that Kafka never got, by topic and reason");
        for counts in &self.topics {
            for (reason, counter) in [
                ("queue_full", &counts.queue_full),
                ("rejected", &counts.rejected),
                ("stopped", &counts.stopped),
            ] {
                let (topic, count) = (counts.label(), counter.load(Relaxed));
                let _ = writeln!(text, "{name}{{topic=\"{topic}\",reason=\"{reason}\"}} {count}");
            }
        }
    }
}

#[cfg(test)]
mod tests;
