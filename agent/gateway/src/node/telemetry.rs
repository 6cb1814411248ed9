//! Starts what is told of requests, beside logs and metrics.

use tokio::runtime::Handle;

use super::NodeError;
use crate::{
    config::{Config, Mode},
    enforcement::{EnforcementError, authorities::Authorities},
    telemetry::{Telemetry, snapshots::Snapshots, traces::Tracer},
};

/// Neither needs its receiver to be there yet.
pub fn start(config: &Config) -> Result<Telemetry, NodeError> {
    let settings = &config.telemetry;
    if settings.lacks_endpoint {
        tracing::warn!(
            "no spans are sent: STOA_OTEL_ENABLED says so, and STOA_OTEL_ENDPOINT not where to"
        );
    }
    let snapshots = settings.snapshots.as_ref().map(Snapshots::start).transpose();
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
    Ok(Telemetry { snapshots: snapshots.map_err(NodeError::Telemetry)?, tracer })
}
