//! Steering beside a capture of the same workloads: who is told what.

use std::{net::TcpListener, path::Path, sync::Arc};

use http::StatusCode;

use super::namespace::Namespace;

/// A capture that runs in this agent. It sees what the application itself receives; what the
/// application never received, it is told.
pub trait Capture: Send + Sync {
    /// What this listener accepts is the agent's, and not to be observed.
    ///
    /// # Errors
    /// Why the capture will see those exchanges twice.
    fn leave_out(&self, listener: &TcpListener) -> Result<(), String>;

    /// The service that is watched in this place, if one is.
    fn service_at(&self, cgroup: &Path, namespace: &Namespace) -> Option<Arc<str>>;

    /// A request to the service that policy denied.
    fn count_denied(&self, service: &str, policy: &'static str, status: StatusCode);
}

/// The service that a workload is observed as.
pub struct Observed {
    pub capture: Arc<dyn Capture>,
    pub service: Arc<str>,
}
