//! Logs and metrics. Nothing that was observed is ever in either, but for counts and the names
//! that the operator chose.

pub mod access_log;
pub mod counter;
pub mod metrics;
pub mod policy_metrics;
pub mod policy_tally;
pub mod proxy_metrics;

use std::io::{self, IsTerminal};

use tracing_subscriber::{EnvFilter, fmt};

use crate::config::LogFormat;

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
