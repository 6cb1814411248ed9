//! Wires the rooms together: start, drain, stop. One file a mode.

mod proxy;
mod redirect;
mod shadow;
mod sidecar;
mod signals;
mod steered_capture;
mod telemetry;

use std::{io, net::SocketAddr};

use crate::{
    capture::CaptureError,
    catalog::CatalogError,
    config::{Config, Mode},
    enforcement::EnforcementError,
    redirect::RedirectError,
    shadow::ShadowError,
    store::StoreError,
};

#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    #[error("{0}")]
    Capture(#[from] CaptureError),
    #[error("{0}")]
    Store(#[from] StoreError),
    #[error("{0}")]
    Shadow(#[from] ShadowError),
    #[error(
        "cannot listen on {address} for the API: {source}. Choose another with --port or --host"
    )]
    Listen { address: SocketAddr, source: io::Error },
    #[error("steering: {0}")]
    Redirect(#[from] RedirectError),
    #[error("the agent could not start: {0}")]
    Start(#[from] io::Error),
    #[error("{0}. Nothing was started")]
    Catalog(#[from] CatalogError),
    #[error("{0}")]
    Enforcement(#[from] EnforcementError),
    #[error(
        "cannot write the access log to {destination}: {source}. Name another with --access-log"
    )]
    AccessLog { destination: String, source: io::Error },
    #[error("cannot start telling of requests: {0}")]
    Telemetry(io::Error),
    #[error("a worker ended by itself; the log says why")]
    WorkerEnded,
    #[error("the analysis ended by itself; the log says why")]
    AnalysisEnded,
}

/// Runs until SIGTERM or SIGINT.
pub fn run(config: Config) -> Result<(), NodeError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(4)
        .thread_name("blocking")
        .build()?;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        mode = config.mode.name(),
        config_file = config.file.as_ref().map(|p| p.display().to_string()),
        "Starting STOA Gateway"
    );
    if !config.without_effect.is_empty() {
        tracing::warn!(
            settings = config.without_effect.join(", "),
            "asked for, and not in this build: these have no effect"
        );
    }
    match config.mode.clone() {
        Mode::Shadow(settings) => runtime.block_on(shadow::run(config, *settings)),
        Mode::Sidecar(settings) => runtime.block_on(sidecar::run(config, *settings)),
        Mode::Proxy(settings) => runtime.block_on(proxy::run(config, *settings)),
    }
}
