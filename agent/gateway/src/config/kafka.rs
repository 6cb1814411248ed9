//! Which Kafka there is, and what goes there.

use super::{
    ConfigError, Values,
    parse::{parse_bool, parse_number},
};
use crate::telemetry::kafka::{Address, KafkaSettings, Mechanism, Sasl, Security};

/// Events are some 600 bytes; a million is what fits a node's memory at most.
const MOST_WAITING: u64 = 1_000_000;

#[derive(Clone, Debug)]
pub struct KafkaTopics {
    pub kafka: KafkaSettings,
    pub has_metering: bool,
    /// In metering events.
    pub shows_email: bool,
    pub metering_topic: String,
    pub errors_topic: String,
}

impl KafkaTopics {
    /// All of it is read where it is off, too: what is wrong is said at once.
    pub(super) fn read(values: &Values) -> Result<Option<Self>, ConfigError> {
        let flag = |key, default| -> Result<bool, ConfigError> {
            Ok(values.read(key, parse_bool)?.unwrap_or(default))
        };
        let topic = |key, default: &str| -> Result<String, ConfigError> {
            Ok(values.read(key, parse_topic)?.unwrap_or_else(|| default.to_owned()))
        };
        let mut brokers = values.read_all("kafka-brokers", parse_broker)?;
        if brokers.is_empty() {
            brokers.push(Address { host: "redpanda".to_owned(), port: 9092 });
        }
        let capacity = values.read("kafka-queue-capacity", |t| parse_number(t, 1, MOST_WAITING))?;
        let topics = Self {
            kafka: KafkaSettings {
                brokers,
                security: read_security(values)?,
                queue_capacity: capacity.and_then(|n| usize::try_from(n).ok()).unwrap_or(20_000),
            },
            has_metering: flag("metering-enabled", true)?,
            shows_email: flag("metering-user-email", false)?,
            metering_topic: topic("kafka-metering-topic", "stoa.metering")?,
            errors_topic: topic("kafka-errors-topic", "stoa.errors")?,
        };
        Ok(flag("kafka-enabled", false)?.then_some(topics))
    }
}

/// The documented default of metering is on, so only who says so expects it.
pub(super) fn lacks_kafka(values: &Values) -> Result<bool, ConfigError> {
    let is_expected = values.read("metering-enabled", parse_bool)? == Some(true);
    Ok(is_expected && !values.read("kafka-enabled", parse_bool)?.unwrap_or(false))
}

fn parse_broker(text: &str) -> Result<Address, String> {
    let read = || {
        let (host, port) = text.rsplit_once(':')?;
        let port = port.parse().ok().filter(|port| *port != 0)?;
        let host = match host.strip_prefix('[') {
            Some(host) => host.strip_suffix(']')?,
            None => Some(host).filter(|host| !host.contains(':'))?,
        };
        let is_host = |c: char| c.is_ascii_alphanumeric() || "-._:".contains(c);
        let host = Some(host).filter(|host| !host.is_empty() && host.chars().all(is_host))?;
        Some(Address { host: host.to_owned(), port })
    };
    read().ok_or_else(|| format!("`{text}` is not a broker; write HOST:PORT, such as kafka:9092"))
}

/// As `org.apache.kafka.common.internals.Topic` has it.
fn parse_topic(text: &str) -> Result<String, String> {
    let is_legal = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    match (1..=249).contains(&text.len()) && text.chars().all(is_legal) && !text.starts_with("..") {
        true if text != "." => Ok(text.to_owned()),
        _ => {
            Err(format!("`{text}` is not a topic: letters, digits, `.`, `_` and `-`, at most 249"))
        }
    }
}

fn read_security(values: &Values) -> Result<Security, ConfigError> {
    let protocol = values.read("kafka-security-protocol", parse_protocol)?;
    let (is_tls, has_sasl) = protocol.unwrap_or_default();
    let mechanism = values.read("kafka-sasl-mechanism", parse_mechanism)?;
    let text = |key| values.read(key, |text| Ok(text.to_owned()));
    let (username, password) = (text("kafka-sasl-username")?, text("kafka-sasl-password")?);
    let sasl = match (has_sasl, username, password) {
        (true, Some(username), Some(password)) => {
            let mechanism = mechanism.unwrap_or(Mechanism::Plain);
            Some(Sasl { mechanism, username, password })
        }
        (true, _, _) => {
            return Err(ConfigError::Contradiction(
                "STOA_KAFKA_SECURITY_PROTOCOL (--kafka-security-protocol) has SASL, which wants \
                 STOA_KAFKA_SASL_USERNAME and STOA_KAFKA_SASL_PASSWORD"
                    .to_owned(),
            ));
        }
        (false, None, None) => None,
        // Whoever gives a password does not mean to write without one.
        (false, _, _) => {
            return Err(ConfigError::Contradiction(
                "STOA_KAFKA_SASL_USERNAME and STOA_KAFKA_SASL_PASSWORD are of use with \
                 STOA_KAFKA_SECURITY_PROTOCOL=SASL_SSL (or SASL_PLAINTEXT) only"
                    .to_owned(),
            ));
        }
    };
    Ok(Security { is_tls, sasl })
}

/// Whether it has TLS, and SASL.
fn parse_protocol(text: &str) -> Result<(bool, bool), String> {
    match text.to_uppercase().as_str() {
        "PLAINTEXT" => Ok((false, false)),
        "SSL" => Ok((true, false)),
        "SASL_PLAINTEXT" => Ok((false, true)),
        "SASL_SSL" => Ok((true, true)),
        _ => Err(format!(
            "`{text}` is not a security protocol of Kafka; valid ones: PLAINTEXT, SSL, \
             SASL_PLAINTEXT, SASL_SSL"
        )),
    }
}

fn parse_mechanism(text: &str) -> Result<Mechanism, String> {
    let found = Mechanism::ALL.into_iter().find(|known| known.name().eq_ignore_ascii_case(text));
    let valid = || Mechanism::ALL.map(Mechanism::name).join(", ");
    found.ok_or_else(|| format!("`{text}` is not a SASL mechanism here; valid ones: {}", valid()))
}
