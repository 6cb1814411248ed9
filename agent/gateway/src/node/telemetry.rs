//! Starts what is told of requests, beside logs and metrics.

use std::sync::Arc;

use stoa_policy::rate_limit::LimitTable;
use tokio::runtime::Handle;

use super::NodeError;
use crate::{
    config::{Config, Mode},
    enforcement::{EnforcementError, authorities::Authorities},
    telemetry::{
        Telemetry,
        kafka::{Kafka, Preparation},
        metering::Metering,
        snapshots::{Sink, Snapshots},
        traces::Tracer,
    },
};

/// None needs its receiver to be there yet. `limits`: those of the mode, if it has any.
pub fn start(config: &Config, limits: Option<&Arc<LimitTable>>) -> Result<Telemetry, NodeError> {
    let settings = &config.telemetry;
    if settings.lacks_endpoint {
        tracing::warn!(
            "no spans are sent: STOA_OTEL_ENABLED says so, and STOA_OTEL_ENDPOINT not where to"
        );
    }
    if settings.lacks_kafka {
        tracing::warn!(
            "metering events go nowhere: STOA_METERING_ENABLED says so, and STOA_KAFKA_ENABLED not \
             that there is a Kafka for them"
        );
    }
    let Streams { kafka, metering, sink } = start_kafka(config, limits)?;
    let snapshots = settings.snapshots.as_ref();
    let snapshots = snapshots.map(|settings| Snapshots::start(settings, sink)).transpose();
    let is_proxy = matches!(config.mode, Mode::Proxy(_));
    let tracer = match &settings.traces {
        Some(traces) if traces.is_of_proxy || !is_proxy => {
            let ca_file = config.policy.enforcement.ca_file.as_deref();
            let tls = Authorities::load(ca_file).and_then(|known| known.client_config());
            let tls = tls.map_err(EnforcementError::from)?;
            Some(Tracer::start(traces, config.mode.name(), tls, &Handle::current()))
        }
        _ => None,
    };
    let snapshots = snapshots.map_err(NodeError::Telemetry)?;
    Ok(Telemetry { snapshots, tracer, metering, kafka })
}

/// What goes to Kafka.
#[derive(Default)]
struct Streams {
    kafka: Option<Arc<Kafka>>,
    metering: Option<Arc<Metering>>,
    sink: Option<Sink>,
}

fn start_kafka(config: &Config, limits: Option<&Arc<LimitTable>>) -> Result<Streams, NodeError> {
    let settings = &config.telemetry;
    let Some(topics) = &settings.kafka else { return Ok(Streams::default()) };
    let has_snapshots = settings.snapshots.is_some();
    if !topics.has_metering && !has_snapshots {
        return Ok(Streams::default());
    }
    let tls = match topics.kafka.security.is_tls {
        false => None,
        true => {
            let known = Authorities::load(config.policy.enforcement.ca_file.as_deref());
            let tls = known.and_then(|known| known.client_config());
            Some(Arc::new(tls.map_err(EnforcementError::from)?))
        }
    };
    let mut preparation =
        Preparation::new(topics.kafka.clone(), tls).map_err(NodeError::Telemetry)?;
    let events = topics.has_metering.then(|| preparation.producer(&topics.metering_topic));
    let sink = has_snapshots.then(|| Sink {
        errors: preparation.producer(&topics.errors_topic),
        limits: limits.cloned(),
    });
    let metering = Metering::new(&config.tenant, topics.shows_email, events);
    let kafka = preparation.start().map_err(NodeError::Telemetry)?;
    let brokers: Vec<_> = topics.kafka.brokers.iter().map(ToString::to_string).collect();
    tracing::info!(
        brokers = brokers.join(","),
        metering = topics.has_metering.then_some(topics.metering_topic.as_str()),
        errors = has_snapshots.then_some(topics.errors_topic.as_str()),
        "events go to Kafka"
    );
    Ok(Streams { kafka: Some(kafka), metering: Some(metering), sink })
}
