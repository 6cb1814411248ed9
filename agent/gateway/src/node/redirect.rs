//! Steering, beside whatever the agent's mode is.

use std::sync::Arc;

use tokio::runtime::Handle;

use super::NodeError;
use crate::{
    catalog::live::LiveCatalog,
    config::{Config, Mode},
    enforcement::Enforcement,
    redirect::{self, Capture, Metrics, Parts, Redirect, RedirectConfig},
    telemetry::{Telemetry, access_log::AccessLog},
};

/// What the mode shares with it.
pub(super) struct Shared {
    /// `None`: the mode has none, and one is made.
    pub live: Option<Arc<LiveCatalog>>,
    pub access_log: Option<Arc<AccessLog>>,
    pub telemetry: Telemetry,
    pub metrics: Arc<Metrics>,
    pub capture: Option<Arc<dyn Capture>>,
}

/// Begins to steer, if that is configured. Takes over from an agent that runs, so this comes last
/// of what may fail.
pub(super) async fn start(config: &Config, shared: Shared) -> Result<Option<Redirect>, NodeError> {
    let Some(settings) = config.redirect.clone() else { return Ok(None) };
    let live = match shared.live {
        Some(live) => live,
        None => {
            let live = load_catalog(config)?;
            tokio::spawn(Arc::clone(&live).follow());
            live
        }
    };
    let access_log = match shared.access_log {
        Some(access_log) => access_log,
        None => Arc::new(start_access_log(&settings)?),
    };
    let parts = Parts {
        enforcement: redirect::Enforcement {
            live,
            access_log,
            telemetry: shared.telemetry,
            has_default_of_settings: !matches!(config.mode, Mode::Sidecar(_)),
        },
        tenant: config.tenant.as_str().into(),
        metrics: shared.metrics,
        capture: shared.capture,
    };
    let started = tokio::task::spawn_blocking(move || Redirect::start(settings, parts)).await;
    let redirect = started.map_err(|e| NodeError::Start(std::io::Error::other(e)))??;
    for line in redirect.describe() {
        tracing::info!("{line}");
    }
    let ended = redirect.ended();
    tokio::spawn(async move {
        ended.await;
        // Another agent has taken over, and the last connection here has ended. Whatever the mode,
        // the agent stops as if it had been told to.
        let _ = nix::sys::signal::raise(nix::sys::signal::Signal::SIGTERM);
    });
    Ok(Some(redirect))
}

/// Begins the end, beside that of the mode.
pub(super) fn begin_to_stop(redirect: Option<&Redirect>) {
    if let Some(redirect) = redirect {
        redirect.begin_to_stop();
    }
}

/// Waits until the last connection has ended, or the deadline has passed.
pub(super) async fn stop(redirect: Option<Redirect>) {
    let _ = tokio::task::spawn_blocking(move || drop(redirect)).await;
}

fn load_catalog(config: &Config) -> Result<Arc<LiveCatalog>, NodeError> {
    let enforcement =
        Enforcement::start(&config.policy.enforcement, &config.state_dir, &Handle::current())?;
    let build = config.policy.engine_builder(enforcement);
    Ok(LiveCatalog::load(config.file.clone(), config.defaults(), build, None)?)
}

fn start_access_log(settings: &RedirectConfig) -> Result<AccessLog, NodeError> {
    let (destination, one_in) = (&settings.proxy.access_log, settings.proxy.access_log_one_in);
    AccessLog::start(destination, one_in)
        .map_err(|source| NodeError::AccessLog { destination: format!("{destination:?}"), source })
}
