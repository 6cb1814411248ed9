//! Proxy mode: a control thread that watches the configuration, and workers that serve.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::Full;
use serde_json::json;
use tokio::{net::TcpListener, runtime::Handle, sync::watch};

use super::{NodeError, redirect, signals::Signals, telemetry};
use crate::{
    admin::{Admin, Served},
    catalog::{additions::AdditionsFile, live::LiveCatalog},
    config::{Config, proxy::ProxySettings},
    drain::{self, Drained},
    enforcement::Enforcement,
    http::{self as api, problem::Problem},
    proxy::{
        Shared, Worker as ProxyWorker,
        counters::{Registry, Totals},
        listeners::{self, Followed, Listeners},
    },
    redirect::Metrics,
    telemetry::{Telemetry, access_log::AccessLog, policy_metrics, proxy_metrics},
    worker::{Worker, Workers},
};

/// Runs until SIGTERM or SIGINT, then drains.
pub(super) async fn run(config: Config, settings: ProxySettings) -> Result<(), NodeError> {
    let mut signals = Signals::catch()?;

    let enforcement =
        Enforcement::start(&config.policy.enforcement, &config.state_dir, &Handle::current())?;
    let builder = config.policy.engine_builder(Arc::clone(&enforcement));
    let defaults = config.defaults();
    let additions = AdditionsFile::new(&config.state_dir);
    let live = LiveCatalog::load(config.file.clone(), defaults, builder, Some(additions))?;
    let registry = Arc::new(Registry::default());
    let access_log =
        AccessLog::start(&settings.access_log, settings.access_log_one_in).map_err(|source| {
            NodeError::AccessLog { destination: format!("{:?}", settings.access_log), source }
        })?;
    let telemetry = telemetry::start(&config, Some(&enforcement.outside.limits))?;
    let (trigger, watcher) = drain::channel();
    let served = Served {
        live: Arc::clone(&live),
        enforcement: Arc::clone(&enforcement),
        tenant: config.tenant.clone(),
    };
    let state = Arc::new(State {
        admin: Admin::new(
            "proxy",
            config.admin_token.clone(),
            Some(served),
            telemetry.snapshots.clone(),
        ),
        live: Arc::clone(&live),
        enforcement: Arc::clone(&enforcement),
        registry: Arc::clone(&registry),
        access_log: Arc::new(access_log),
        telemetry: telemetry.clone(),
        has_proxy_metrics: config.telemetry.has_proxy_metrics,
        drain: trigger.observe(),
        steering: Arc::default(),
    });
    let count = settings.workers;
    let listeners = Listeners::bind(&live.current().listeners, count)
        .map_err(|error| NodeError::Listen { address: error.address, source: error.source })?;
    let listeners = Arc::new(listeners);
    live.listen_with(Arc::clone(&listeners) as _);
    let admin = TcpListener::bind(settings.admin)
        .await
        .map_err(|source| NodeError::Listen { address: settings.admin, source })?;
    let admin_address = admin.local_addr()?;

    let steered = redirect::Shared {
        live: Some(Arc::clone(&live)),
        access_log: Some(Arc::clone(&state.access_log)),
        telemetry: telemetry.clone(),
        metrics: Arc::clone(&state.steering),
        capture: None,
    };
    let redirect = redirect::start(&config, steered).await?;

    let shared = Shared {
        settings: Arc::new(settings.clone()),
        live: Arc::clone(&live),
        registry,
        access_log: Arc::clone(&state.access_log),
        telemetry: telemetry.clone(),
        own_answers: {
            let state = Arc::downgrade(&state);
            Arc::new(move |path: &str| state.upgrade()?.answer(path))
        },
        most_idle: settings.connection_pool_size.div_ceil(count.get()),
    };
    let most_connections = settings.max_connections.div_ceil(count.get());
    let workers = Workers::start(count, "proxy", &watcher, move |worker| {
        serve(worker, shared.clone(), listeners.follow(), most_connections)
    })?;
    drop(watcher);
    let (stop, stopping) = watch::channel(false);
    let api = tokio::spawn({
        let state = Arc::clone(&state);
        api::serve(admin, stopping, move |call: api::Call| {
            let state = Arc::clone(&state);
            async move {
                let path = call.head.uri.path();
                if Admin::owns(path) {
                    let body = std::future::ready(Ok(call.body));
                    return state.admin.answer(&call.head, body, call.peer).await;
                }
                state.answer(path).unwrap_or_else(|| {
                    Problem::new(
                        StatusCode::NOT_FOUND,
                        "here are /admin, /health, /health/live, /health/ready and /metrics",
                    )
                    .into_response()
                })
            }
        })
    });
    let follower = tokio::spawn(Arc::clone(&live).follow());
    tracing::info!(
        workers = count.get(),
        admin = %admin_address,
        routes = live.current().routes.all.len(),
        "ready"
    );

    let ended = signals.wait_while_serving(&workers, || live.ask()).await;
    tracing::info!(deadline = ?settings.drain, "stopping: what is under way is drained");
    follower.abort();
    redirect::begin_to_stop(redirect.as_ref());
    let drained = tokio::select! {
        drained = trigger.drain(settings.drain) => drained,
        () = signals.wait_for_another() => Drained::CutOff,
    };
    if drained == Drained::CutOff {
        tracing::warn!("connections were cut off");
    }
    stop.send_replace(true);
    let _ = tokio::time::timeout(Duration::from_secs(3), api).await;
    let _ = tokio::task::spawn_blocking(move || workers.join()).await;
    redirect::stop(redirect).await;
    // What it drained has spans too.
    telemetry.stop().await;
    let _ = tokio::task::spawn_blocking(move || enforcement.quotas.stop()).await;
    ended
}

async fn serve(worker: Worker, shared: Shared, followed: Followed, most_connections: usize) {
    let drain = worker.drain.clone();
    let proxy = ProxyWorker::new(shared, worker.drain);
    let sweeper = tokio::task::spawn_local(std::rc::Rc::clone(&proxy).sweep());
    listeners::serve(proxy, worker.index, drain, followed, most_connections).await;
    sweeper.abort();
}

/// What the agent says of itself.
struct State {
    admin: Arc<Admin>,
    live: Arc<LiveCatalog>,
    enforcement: Arc<Enforcement>,
    registry: Arc<Registry>,
    access_log: Arc<AccessLog>,
    telemetry: Telemetry,
    has_proxy_metrics: bool,
    drain: drain::Observer,
    steering: Arc<Metrics>,
}

impl State {
    fn answer(&self, path: &str) -> Option<Response<Full<Bytes>>> {
        match path {
            "/health" | "/health/" => Some(self.health()),
            "/health/live" => Some(api::json_answer(StatusCode::OK, &json!({"status": "live"}))),
            "/health/ready" | "/ready" => Some(self.health()),
            "/metrics" => {
                let totals = self.registry.totals();
                let none = Totals::default();
                let shown = if self.has_proxy_metrics { &totals } else { &none };
                let mut text = proxy_metrics::render(
                    shown,
                    &self.live.current().connections,
                    &self.live.status(),
                    self.access_log.dropped(),
                );
                let mut policies = self.steering.policies();
                policies.combine(&totals.policies);
                policy_metrics::render(&mut text, &policies, &self.enforcement);
                text.push_str(&self.steering.render());
                self.admin.gate.render(&mut text);
                self.telemetry.render(&mut text);
                let mut response = Response::new(Full::new(Bytes::from(text)));
                response.headers_mut().insert(
                    header::CONTENT_TYPE,
                    HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"),
                );
                Some(response)
            }
            _ => None,
        }
    }

    /// A configuration that could not be loaded leaves the agent ready: the one before is in force,
    /// and taking every agent out of service at once would help nobody.
    fn health(&self) -> Response<Full<Bytes>> {
        let status = self.live.status();
        let is_draining = self.drain.is_draining();
        let code = if is_draining { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
        api::json_answer(
            code,
            &json!({
                "status": if is_draining { "draining" } else { "ready" },
                "mode": "proxy",
                "version": env!("CARGO_PKG_VERSION"),
                "configuration": {
                    "state": if status.failure.is_some() { "stale" } else { "current" },
                    "reason": status.failure,
                    "needs_restart": status.needs_restart,
                    "generation": self.live.generation(),
                },
                "components": self.enforcement.components(),
            }),
        )
    }
}
