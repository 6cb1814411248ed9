//! Settings of what goes to Kafka.

use super::{Kind, Setting, one};

const KAFKA: &str = "Metering and error snapshots to Kafka, of what is proxied, steered or decided";

pub const SETTINGS: &[Setting] = &[
    Setting {
        key: "metering-enabled",
        variables: &["STOA_METERING_ENABLED", "METERING_ENABLED"],
        value_name: "BOOL",
        group: KAFKA,
        help: "One event of each request, if --kafka-enabled says that there is a Kafka for them [default: true]",
        kind: Kind::Switch,
    },
    Setting {
        key: "metering-user-email",
        variables: &["STOA_METERING_USER_EMAIL"],
        value_name: "BOOL",
        group: KAFKA,
        help: "Say the user's e-mail address in metering events, where the token has one [default: false]",
        kind: Kind::Switch,
    },
    Setting {
        key: "kafka-enabled",
        variables: &["STOA_KAFKA_ENABLED"],
        value_name: "BOOL",
        group: KAFKA,
        help: "Send metering events, and error snapshots if they are taken, to Kafka [default: false]",
        kind: Kind::Switch,
    },
    Setting {
        key: "kafka-brokers",
        variables: &["STOA_KAFKA_BROKERS"],
        value_name: "HOST:PORT",
        group: KAFKA,
        help: "Some of the cluster's brokers, the others are learnt. Repeatable [default: redpanda:9092]",
        kind: Kind::Many,
    },
    one(
        "kafka-metering-topic",
        &["STOA_KAFKA_METERING_TOPIC"],
        "TOPIC",
        KAFKA,
        "Where metering events go, by tenant [default: stoa.metering]",
    ),
    one(
        "kafka-errors-topic",
        &["STOA_KAFKA_ERRORS_TOPIC"],
        "TOPIC",
        KAFKA,
        "Where error snapshots go, without headers and bodies [default: stoa.errors]",
    ),
    one(
        "kafka-queue-capacity",
        &["STOA_KAFKA_QUEUE_CAPACITY"],
        "N",
        KAFKA,
        "Events of each topic that wait while Kafka is away; more are dropped and counted [default: 20000]",
    ),
    one(
        "kafka-security-protocol",
        &["STOA_KAFKA_SECURITY_PROTOCOL"],
        "PROTOCOL",
        KAFKA,
        "How brokers are spoken to: PLAINTEXT, SSL, SASL_PLAINTEXT, SASL_SSL; --ca-file has further authorities [default: PLAINTEXT]",
    ),
    one(
        "kafka-sasl-mechanism",
        &["STOA_KAFKA_SASL_MECHANISM"],
        "MECHANISM",
        KAFKA,
        "PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512 [default: PLAIN]",
    ),
    one("kafka-sasl-username", &["STOA_KAFKA_SASL_USERNAME"], "NAME", KAFKA, "Who writes"),
    one(
        "kafka-sasl-password",
        &["STOA_KAFKA_SASL_PASSWORD"],
        "PASSWORD",
        KAFKA,
        "Its password, better in the variable",
    ),
];
