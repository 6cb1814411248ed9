//! Logs, metrics and error snapshots. Nothing that was observed is ever in the first two, but for
//! counts and the names that the operator chose; in snapshots it is masked.

pub mod access_log;
pub mod counter;
pub mod metrics;
pub mod policy_metrics;
pub mod policy_tally;
pub mod proxy_metrics;
pub mod snapshots;

use std::{
    io::{self, IsTerminal},
    sync::Arc,
};

use tracing_subscriber::{EnvFilter, fmt};

use self::snapshots::Snapshots;
use crate::config::{LogFormat, telemetry::TelemetrySettings};

/// What is told of requests beside logs and metrics. `None`: off.
#[derive(Clone, Default)]
pub struct Telemetry {
    pub snapshots: Option<Arc<Snapshots>>,
}

impl Telemetry {
    pub fn start(settings: &TelemetrySettings) -> io::Result<Self> {
        let snapshots = settings.snapshots.as_ref().map(Snapshots::start).transpose()?;
        Ok(Self { snapshots })
    }

    /// Appends to the text format, version 0.0.4.
    pub fn render(&self, text: &mut String) {
        if let Some(snapshots) = &self.snapshots {
            snapshots.render(text);
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
