//! Shadow mode: from a capture to contracts.

use std::{
    io::{self, Write},
    path::Path,
    sync::Arc,
    time::Duration,
};

use stoa_contract::knowledge::Limits;
use stoa_wire::ReaderConfig;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::watch,
};

use super::{NodeError, redirect, steered_capture::SteeredCapture, telemetry};
use crate::{
    admin::Admin,
    capture::{
        CaptureError, CaptureMethod, CaptureSource, Watched,
        ebpf::{EbpfCapture, EbpfConfig},
        inline::{InlineConfig, InlineSource},
        port_mirror::{MirroredServices, PortMirrorSource},
        watch::{check_service_name, number_services},
    },
    config::{Config, shadow::ShadowSettings},
    http,
    redirect::{Capture, Metrics},
    shadow::{
        Shadow, ShadowConfig, ShadowError, Written,
        analysis::{self, AnalysisConfig, Feed, Snapshot},
        book::Book,
        denials::Denials,
        keeper::Keeper,
        routes,
    },
    store::{Store, secret},
    telemetry::{Telemetry, policy_metrics},
};

/// What was chosen to capture with.
struct Chosen {
    method: CaptureMethod,
    feed: Feed,
    names: Vec<String>,
    description: Vec<String>,
    /// For what is steered as well.
    beside: Option<Arc<dyn Capture>>,
}

/// Runs until SIGTERM or SIGINT, then drains, writes and summarises.
pub(super) async fn run(config: Config, settings: ShadowSettings) -> Result<(), NodeError> {
    // Before anything else, so that a stop during the start is a stop too.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;

    let store = Arc::new(Store::open(&config.state_dir, Limits::default())?);
    let key = secret::load_or_make(&config.state_dir)?;
    let listener = TcpListener::bind(config.listen)
        .await
        .map_err(|source| NodeError::Listen { address: config.listen, source })?;
    let address = listener.local_addr()?;
    let denials = Arc::<Denials>::default();
    let chosen = choose_capture(&settings, &denials)?;
    for line in &chosen.description {
        tracing::info!(method = %chosen.method, "{line}");
    }

    let run = name_run()?;
    let (keeper, keeper_state, store_thread) = Keeper::start(Arc::clone(&store))?;
    let is_file = matches!(chosen.feed, Feed::File { .. });
    let reader = ReaderConfig {
        body_limit: settings.body_bytes,
        memory_limit: settings.memory_bytes,
        ..ReaderConfig::default()
    };
    let (handle, analysis_thread) = analysis::start(
        AnalysisConfig { reader, nice: settings.nice, record: settings.record.clone() },
        chosen.feed,
        Book::new(key, run.clone(), &chosen.names),
        keeper,
    )?;
    let steering = Arc::<Metrics>::default();
    // Of steered requests: what is only watched leaves neither spans nor snapshots.
    let telemetry = match &config.redirect {
        Some(_) => telemetry::start(&config, None)?,
        None => Telemetry::default(),
    };
    let steered = redirect::Shared {
        live: None,
        access_log: None,
        telemetry: telemetry.clone(),
        metrics: Arc::clone(&steering),
        capture: chosen.beside,
    };
    let redirect = redirect::start(&config, steered).await?;
    let shadow = Arc::new(Shadow::new(
        ShadowConfig {
            tenant: config.tenant.clone(),
            output: settings.output.clone(),
            min_requests: settings.min_requests,
            window: (!is_file).then_some(settings.analysis_window),
            capture: chosen.method.to_string(),
            sources: chosen.description,
            more_metrics: Box::new({
                let telemetry = telemetry.clone();
                move || {
                    let mut text = steering.render();
                    policy_metrics::decisions(&mut text, &steering.policies());
                    telemetry.render(&mut text);
                    text
                }
            }),
        },
        handle.clone(),
        keeper_state,
        denials,
        store,
        run,
    )?);
    let (stop, stopping) = watch::channel(false);
    let api = {
        let shadow = Arc::clone(&shadow);
        let snapshots = telemetry.snapshots.clone();
        let admin = Admin::new("shadow", config.admin_token.clone(), None, snapshots);
        tokio::spawn(http::serve(listener, stopping, move |call: http::Call| {
            let (shadow, admin) = (Arc::clone(&shadow), Arc::clone(&admin));
            async move {
                match Admin::owns(call.head.uri.path()) {
                    true => {
                        let body = std::future::ready(Ok(call.body));
                        admin.answer(&call.head, body, call.peer).await
                    }
                    false => routes::answer(shadow, call).await,
                }
            }
        }))
    };
    let writer = tokio::spawn(Arc::clone(&shadow).write_when_ready());
    let purger = tokio::spawn(purge_hourly(Arc::clone(&shadow), settings.retention));
    tracing::info!(
        %address,
        state_dir = %config.state_dir.display(),
        output = %settings.output.display(),
        services = chosen.names.join(","),
        "ready"
    );

    let mut watchdog = tokio::time::interval(Duration::from_secs(1));
    let ended_by_itself = loop {
        tokio::select! {
            _ = terminate.recv() => break false,
            _ = interrupt.recv() => break false,
            _ = watchdog.tick() => if handle.is_over() { break true },
        }
    };

    tracing::info!("stopping: what is under way is drained");
    redirect::begin_to_stop(redirect.as_ref());
    stop.send_replace(true);
    writer.abort();
    purger.abort();
    handle.stop();
    let ended = tokio::task::spawn_blocking(move || {
        let _ = analysis_thread.join();
        let _ = store_thread.join();
    });
    // A second signal ends the waiting, not the writing of contracts.
    tokio::select! {
        _ = ended => {}
        _ = terminate.recv() => tracing::warn!("stopped without waiting"),
        _ = interrupt.recv() => tracing::warn!("stopped without waiting"),
    }
    let _ = api.await;
    redirect::stop(redirect).await;
    telemetry.stop().await;
    let finished = Arc::clone(&shadow);
    let is_interactive = settings.summary;
    let written = tokio::task::spawn_blocking(move || write_last(&finished, is_interactive)).await;
    let written = written.map_err(|_| ShadowError::Render)??;
    if is_interactive {
        // Nobody is left to tell where stdout is gone.
        let _ = print_summary(&mut io::stdout().lock(), &written, &shadow.analysis.snapshot());
    }
    match ended_by_itself {
        true => Err(NodeError::AnalysisEnded),
        false => Ok(()),
    }
}

fn choose_capture(settings: &ShadowSettings, denials: &Arc<Denials>) -> Result<Chosen, NodeError> {
    let (names, watched) = number_services(&settings.watches);
    let method = match settings.capture {
        Some(method) => method,
        None if settings.interface.is_some() || settings.pcap.is_some() => {
            CaptureMethod::PortMirror
        }
        None if watched.is_empty() => CaptureMethod::Inline,
        None => {
            return match open_ebpf(settings, &names, &watched, denials) {
                Err(CaptureError::EbpfUnavailable { missing }) if settings.target.is_some() => {
                    tracing::warn!(%missing, "eBPF capture is not possible here; Inline is used");
                    open_inline(settings, names)
                }
                other => Ok(other?),
            };
        }
    };
    match method {
        CaptureMethod::Ebpf => Ok(open_ebpf(settings, &names, &watched, denials)?),
        CaptureMethod::Inline => open_inline(settings, names),
        CaptureMethod::PortMirror => {
            let services = MirroredServices::new(names.clone(), &watched)?;
            if let Some(path) = &settings.pcap {
                // Said now rather than in the log of a thread.
                std::fs::File::open(path).map_err(|e| CaptureError::File {
                    path: path.clone(),
                    reason: e.to_string(),
                })?;
                let description = vec![format!("PortMirror: file {}", path.display())];
                let feed = Feed::File { path: path.clone(), services };
                return Ok(Chosen { method, feed, names, description, beside: None });
            }
            let interface = settings.interface.as_deref().unwrap_or_default();
            let source = PortMirrorSource::open(interface, settings.ring_bytes, services)?;
            let description = source.describe();
            let feed = Feed::Live(Box::new(source));
            Ok(Chosen { method, feed, names, description, beside: None })
        }
    }
}

fn open_ebpf(
    settings: &ShadowSettings,
    names: &[String],
    watched: &[Watched],
    denials: &Arc<Denials>,
) -> Result<Chosen, CaptureError> {
    let clamp = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
    let mut source = EbpfCapture::load(&EbpfConfig {
        ring_bytes: clamp(settings.ring_bytes),
        body_budget: clamp(settings.body_bytes),
    })?;
    for watch in watched {
        source.watch(watch.service, &watch.spec).map_err(|e| match CaptureError::from(e) {
            unavailable @ CaptureError::EbpfUnavailable { .. } => unavailable,
            other => CaptureError::Watch {
                name: watch.name.clone(),
                spec: watch.spec.to_string(),
                reason: other.to_string(),
            },
        })?;
    }
    let mut description = source.describe();
    for (number, name) in names.iter().enumerate() {
        for line in &mut description {
            *line = line.replacen(&format!("service {number} "), &format!("service {name} "), 1);
        }
    }
    let own_sockets = source.take_own_sockets().map_err(CaptureError::from)?;
    let cgroup_of = |path: &Path| source.cgroup_of(path);
    let beside =
        SteeredCapture::new(own_sockets, &settings.watches, cgroup_of, Arc::clone(denials));
    Ok(Chosen {
        method: CaptureMethod::Ebpf,
        feed: Feed::Live(Box::new(source)),
        names: names.to_vec(),
        description,
        beside: Some(Arc::new(beside)),
    })
}

fn open_inline(settings: &ShadowSettings, mut names: Vec<String>) -> Result<Chosen, NodeError> {
    let Some(target) = settings.target.clone() else {
        return Err(CaptureError::Stopped("Inline capture needs --target".to_owned()).into());
    };
    names.truncate(1);
    if let Some(name) = &settings.service {
        names = vec![name.clone()];
    }
    if names.is_empty() {
        names.push(service_of_host(&target.host));
    }
    let source = InlineSource::start(InlineConfig {
        listen: settings.inline_listen,
        target,
        service: 0,
        max_connections: settings.max_connections,
        queue_bytes: settings.ring_bytes,
    })?;
    let description = source.describe();
    Ok(Chosen {
        method: CaptureMethod::Inline,
        feed: Feed::Live(Box::new(source)),
        names,
        description,
        beside: None,
    })
}

/// The host's name, where it says something.
fn service_of_host(host: &str) -> String {
    let name = host.to_lowercase();
    let says_nothing = name == "localhost" || name.parse::<std::net::IpAddr>().is_ok();
    match !says_nothing && check_service_name(&name).is_ok() {
        true => name,
        false => "api".to_owned(),
    }
}

/// Unique to this run: what it writes to the store goes under this name.
fn name_run() -> io::Result<String> {
    let host = nix::unistd::gethostname().unwrap_or_default();
    let random = secret::random_key()?;
    let hex: String = random.iter().take(6).map(|b| format!("{b:02x}")).collect();
    Ok(format!("{}-{hex}", host.to_string_lossy()))
}

/// At the start, then hourly: nothing is kept beyond its retention.
async fn purge_hourly(shadow: Arc<Shadow>, retention: Duration) {
    let mut hour = tokio::time::interval(Duration::from_secs(3600));
    loop {
        hour.tick().await;
        let shadow = Arc::clone(&shadow);
        let purged = tokio::task::spawn_blocking(move || shadow.purge(retention)).await;
        if let Ok(Err(error)) = purged {
            tracing::error!(%error, "old observations could not be purged");
        }
    }
}

/// Contracts of what is watched, as they are at the end. Where somebody waits for the summary,
/// also of services that have not reached the number of requests for a contract.
fn write_last(shadow: &Shadow, is_interactive: bool) -> Result<Vec<Written>, ShadowError> {
    let known = shadow.services(&shadow.analysis.snapshot());
    let mut all = Vec::new();
    for (service, known) in known.into_iter().filter(|(_, known)| known.is_watched) {
        let is_enough = known.exchanges >= shadow.config.min_requests;
        if is_enough || (is_interactive && known.exchanges > 0) {
            all.push(shadow.write_from_store(&service)?);
        }
    }
    Ok(all)
}

fn print_summary(out: &mut impl Write, written: &[Written], snapshot: &Snapshot) -> io::Result<()> {
    writeln!(out)?;
    if written.is_empty() {
        return writeln!(out, "contract: none (0 operations from 0 exchanges, 0 lost)");
    }
    for one in written {
        writeln!(out, "{}", one.contract.table.trim_end())?;
        writeln!(out)?;
    }
    for one in written {
        let contract = &one.contract;
        let file = one.files.first().map(|p| p.display().to_string()).unwrap_or_default();
        let lost: u64 = snapshot
            .tallies
            .iter()
            .filter(|(_, tally)| tally.name == contract.service)
            .map(|(number, tally)| {
                let shed = snapshot.counters.iter().filter(|c| c.service == *number);
                tally.lossy + shed.map(|c| c.shed_exchanges).sum::<u64>()
            })
            .sum();
        writeln!(
            out,
            "contract: {file} ({} operations from {} exchanges, {lost} lost)",
            contract.operations, contract.exchanges
        )?;
    }
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_names_the_service_where_it_says_something() {
        assert_eq!(service_of_host("Orders.example.com"), "orders.example.com");
        for host in ["localhost", "127.0.0.1", "::1", "_"] {
            assert_eq!(service_of_host(host), "api", "{host}");
        }
    }
}
