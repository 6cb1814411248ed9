//! Sidecar mode: decisions for another gateway.

use std::{
    num::NonZeroUsize,
    rc::Rc,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::runtime::Handle;

use super::{NodeError, redirect, signals::Signals, telemetry};
use crate::{
    admin::{Admin, Served},
    catalog::live::{CatalogReader, LiveCatalog},
    config::{Config, sidecar::SidecarSettings},
    drain::{self, Drained},
    enforcement::Enforcement,
    redirect::Metrics,
    sidecar::{
        counters::Counters,
        decider::Decider,
        doors::{DoorSettings, Doors},
        identity_headers::Names,
        own_routes::OwnRoutes,
        server::{self, MOST_CONNECTIONS, MOST_QUESTIONS},
        user_info::Stating,
    },
    worker::{Workers, accept_until_drained, bind_shared, default_count},
};

/// A gateway waits for no decision as long as this.
const DRAINED_WITHIN: Duration = Duration::from_secs(15);

/// Runs until SIGTERM or SIGINT; SIGHUP reloads the configuration.
pub(super) async fn run(config: Config, settings: SidecarSettings) -> Result<(), NodeError> {
    let mut signals = Signals::catch()?;

    let enforcement =
        Enforcement::start(&config.policy.enforcement, &config.state_dir, &Handle::current())?;
    let live = load_catalog(&config, &enforcement)?;
    let count = default_count();
    let listeners = bind_shared(config.listen, count)
        .map_err(|source| NodeError::Listen { address: config.listen, source })?;
    let address = listeners.first().and_then(|l| l.local_addr().ok()).unwrap_or(config.listen);
    let telemetry = telemetry::start(&config, Some(&enforcement.outside.limits))?;
    let (trigger, watcher) = drain::channel();
    let counters: Vec<Arc<Counters>> = (0..count.get()).map(|_| Arc::default()).collect();
    let steering = Arc::<Metrics>::default();
    let served = Served {
        live: Arc::clone(&live),
        enforcement: Arc::clone(&enforcement),
        tenant: config.tenant.clone(),
    };
    let own = Arc::new(OwnRoutes {
        live: Arc::clone(&live),
        enforcement: Arc::clone(&enforcement),
        counters: counters.clone(),
        drain: watcher.clone(),
        steering: Arc::clone(&steering),
        telemetry: telemetry.clone(),
        admin: Admin::new(
            "sidecar",
            config.admin_token.clone(),
            Some(served),
            telemetry.snapshots.clone(),
        ),
    });
    let steered = redirect::Shared {
        live: Some(Arc::clone(&live)),
        access_log: None,
        telemetry: telemetry.clone(),
        metrics: steering,
        capture: None,
    };
    let redirect = redirect::start(&config, steered).await?;
    let workers = start_workers(count, listeners, &settings, &live, &own, &watcher)?;
    let follower = tokio::spawn(Arc::clone(&live).follow());
    tracing::info!(
        %address,
        workers = count.get(),
        decision_format = ?settings.decision_format,
        envoy_path_prefix = %settings.envoy_path_prefix,
        "ready"
    );

    let ended = signals.wait_while_serving(&workers, || live.ask()).await;
    tracing::info!("stopping: questions under way are answered");
    follower.abort();
    redirect::begin_to_stop(redirect.as_ref());
    drop((own, watcher));
    let drained = tokio::select! {
        drained = trigger.drain(DRAINED_WITHIN) => drained,
        () = signals.wait_for_another() => Drained::CutOff,
    };
    if drained == Drained::CutOff {
        tracing::warn!("stopped while questions were under way");
    }
    let _ = tokio::task::spawn_blocking(move || workers.join()).await;
    redirect::stop(redirect).await;
    // What it drained has spans too.
    telemetry.stop().await;
    let _ = tokio::task::spawn_blocking(move || enforcement.quotas.stop()).await;
    ended
}

fn load_catalog(
    config: &Config,
    enforcement: &Arc<Enforcement>,
) -> Result<Arc<LiveCatalog>, NodeError> {
    let build = config.policy.engine_builder(Arc::clone(enforcement));
    Ok(LiveCatalog::load(config.file.clone(), config.defaults(), build, None)?)
}

fn start_workers(
    count: NonZeroUsize,
    listeners: Vec<std::net::TcpListener>,
    settings: &SidecarSettings,
    live: &Arc<LiveCatalog>,
    own: &Arc<OwnRoutes>,
    watcher: &drain::Watcher,
) -> Result<Workers, NodeError> {
    let doors = DoorSettings {
        trusted: settings.trusted_callers.clone(),
        format: settings.decision_format,
        envoy_prefix: settings.envoy_path_prefix.clone(),
        stating: Stating {
            user: settings.user_info_header.clone(),
            tenant: settings.tenant_id_header.clone(),
            are_overwritten: settings.are_headers_named,
        },
    };
    let names = Names::of(settings.upstream_type, settings.tenant_id_header.clone());
    let (names, live, own) = (Arc::new(names), Arc::clone(live), Arc::clone(own));
    // Handed out once each; no worker takes the lock again.
    let listeners = Arc::new(Mutex::new(listeners));
    let workers = Workers::start(count, "decide", watcher, move |worker| {
        let listener = listeners.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let counters = own.counters.get(worker.index).cloned().unwrap_or_default();
        let reader = CatalogReader::new(Arc::clone(&live));
        let telemetry = own.telemetry.clone();
        let names = Arc::clone(&names);
        let decider = Decider::new(reader, names, counters, telemetry, MOST_QUESTIONS);
        let doors = Doors { decider, settings: doors.clone(), own: Arc::clone(&own) };
        async move {
            let Some(listener) = listener else { return };
            let (doors, drain) = (Rc::new(doors), worker.drain.clone());
            let served =
                accept_until_drained(listener, worker.drain, MOST_CONNECTIONS, |stream, peer| {
                    server::serve(stream, peer, Rc::clone(&doors), drain.clone())
                });
            if let Err(error) = served.await {
                tracing::error!(%error, "a worker could not accept connections");
            }
        }
    })?;
    Ok(workers)
}
