//! Logs, metrics, traces, metering and error snapshots. Nothing that was observed is ever in the
//! first three, but for counts and the names that the operator chose; metering says who called
//! which of those; in snapshots it is masked.

pub mod access_log;
pub mod counter;
pub mod kafka;
pub mod metering;
pub mod metrics;
pub mod policy_metrics;
pub mod policy_tally;
pub mod proxy_metrics;
pub mod snapshots;
pub mod traces;

use std::{
    io::{self, IsTerminal},
    sync::Arc,
};

use tracing_subscriber::{EnvFilter, fmt};

use self::{kafka::Kafka, metering::Metering, snapshots::Snapshots, traces::Tracer};
use crate::config::LogFormat;

/// What is told of requests beside logs and metrics. `None`: off.
#[derive(Clone, Default)]
pub struct Telemetry {
    pub snapshots: Option<Arc<Snapshots>>,
    pub tracer: Option<Arc<Tracer>>,
    pub metering: Option<Arc<Metering>>,
    /// Where metering and snapshots go.
    pub kafka: Option<Arc<Kafka>>,
}

impl Telemetry {
    /// Lets go of what is still to be told. Nothing is told afterwards.
    pub async fn stop(&self) {
        if let Some(tracer) = &self.tracer {
            tracer.stop().await;
        }
        if let Some(kafka) = &self.kafka {
            kafka.stop().await;
        }
    }

    /// Appends to the text format, version 0.0.4.
    pub fn render(&self, text: &mut String) {
        if let Some(snapshots) = &self.snapshots {
            snapshots.render(text);
        }
        if let Some(tracer) = &self.tracer {
            tracer.render(text);
        }
        if let Some(kafka) = &self.kafka {
            kafka.render(text);
        }
    }
}

/// Logs to stderr; stdout is for what was asked for.
pub fn start_logs(level: &str, format: &LogFormat) {
    let filter = EnvFilter::try_new(level).unwrap_or_else(|_| EnvFilter::new("info"));
    let builder =
        fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(io::stderr().is_terminal());
    // A second start (tests in one process) keeps the first subscriber.
    let _ = match format {
        LogFormat::Text => builder.with_target(true).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
}
