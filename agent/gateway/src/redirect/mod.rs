//! Steers workloads' connections through the agent: no sidecar, no iptables, no restart.
//!
//! A workload is a cgroup with its network namespace, enrolled at run time over a control socket
//! ([`protocol`]). New connections to its ports come to a listener of the agent inside that
//! namespace; the agent connects to the application there, and the application is told of the true
//! client. What was open before stays as it was. HTTP of a workload with policies goes through them
//! request by request ([`enforcement`]); everything else passes as it comes ([`relay`]). Connections
//! that a workload makes are led to the agent as well, if that is asked for ([`outbound`]).
//!
//! | when | then |
//! |---|---|
//! | a workload is removed, or the agent is stopped | nothing stays attached; connections that are open go on until they end, or the stop's deadline |
//! | the agent dies, fail mode open | the next connection reaches the application |
//! | the agent dies, fail mode closed | the next connection is refused, until an agent runs again or the workload is removed |
//! | an agent is started beside this one, with the same socket | it takes over; this one serves what is open, then ends |
//! | the workload's cgroup goes | it is removed |

mod answers;
mod capture;
mod connection;
mod control;
mod detect;
mod dial;
mod enforcement;
mod error;
mod metrics;
#[allow(unsafe_code)]
mod namespace;
mod outbound;
mod pins;
mod predecessor;
mod programs;
mod protocol;
mod records;
mod registry;
mod relay;
mod worker;
mod workload;

use std::{
    fs,
    num::NonZero,
    path::PathBuf,
    sync::{Arc, mpsc as std_mpsc},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use tokio::{sync::watch, task::LocalSet};

pub use self::{
    capture::Capture, enforcement::Enforcement, error::RedirectError, metrics::Metrics,
    namespace::Namespace,
};
use self::{
    control::Ended,
    pins::Pins,
    predecessor::Predecessor,
    programs::Programs,
    protocol::Handed,
    records::Records,
    registry::{Registry, Surroundings},
    worker::Workers,
};
use crate::config::proxy::ProxySettings;

#[derive(Clone, Debug)]
pub struct RedirectConfig {
    /// Where the control socket goes. It also names this agent: one that is started with the same
    /// socket takes over.
    pub socket: PathBuf,
    /// How long connections may go on after the agent was told to stop.
    pub drain: Duration,
    /// Of HTTP connections that go through policies.
    pub proxy: Arc<ProxySettings>,
}

/// What the rest of the agent gives.
pub struct Parts {
    pub enforcement: Enforcement,
    /// Of workloads that name none.
    pub tenant: Arc<str>,
    pub metrics: Arc<Metrics>,
    /// Where workloads may be observed too.
    pub capture: Option<Arc<dyn Capture>>,
}

/// The running service: a thread for control, one per core for connections. Dropping it stops it.
pub struct Redirect {
    stop: watch::Sender<bool>,
    ended: watch::Receiver<bool>,
    thread: Option<JoinHandle<()>>,
    description: Vec<String>,
}

/// Threads of the data path: connections wait for each other no more than this helps.
const WORKERS: usize = 16;
/// Descriptors kept for everything but connections.
const RESERVED_FILES: u64 = 1024;

impl Redirect {
    /// Loads the programs, takes over from an agent that runs or continues what one that crashed
    /// has left, and listens on the control socket.
    pub fn start(config: RedirectConfig, parts: Parts) -> Result<Self, RedirectError> {
        let failed = |path: &str, source| RedirectError::Namespace { path: path.into(), source };
        Namespace::home().map_err(|e| failed("/proc/self/ns/net", e))?;
        let files = raise_file_limit();
        let programs = Programs::load()?;
        let mut description = programs.describe();
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get).min(WORKERS);
        // Each connection has two sockets, each workload a listener per thread and some maps.
        let connections = usize::try_from(files.saturating_sub(RESERVED_FILES) / 2)
            .unwrap_or(usize::MAX)
            .clamp(64, stoa_common::redirect::PEERS as usize);
        description.push(format!("up to {connections} connections at a time, {cores} threads"));
        let workers = Workers::start(&programs, &parts, &config.proxy, cores, connections)?;
        let records = Records::open(&config.socket)?;
        let pins = Pins::new(&config.socket);
        let Parts { tenant, metrics, capture, .. } = parts;
        let surroundings = Surroundings { tenant, metrics, capture };
        let registry = Registry::new(programs, workers, pins, records, surroundings);

        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(RedirectError::Thread)?;
        let (stop, stopping) = watch::channel(false);
        let (tell_ended, ended) = watch::channel(false);
        let (tell_ready, ready) = std_mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("redirect".to_owned())
            .spawn(move || {
                let run = run(config, registry, stopping, tell_ready);
                LocalSet::new().block_on(&runtime, run);
                tell_ended.send_replace(true);
            })
            .map_err(RedirectError::Thread)?;
        ready.recv().unwrap_or(Err(RedirectError::Ended))?;
        Ok(Self { stop, ended, thread: Some(thread), description })
    }

    /// One line each: what this kernel gives.
    pub fn describe(&self) -> &[String] {
        &self.description
    }

    /// Completes when another agent has taken over and the last connection has ended here; never
    /// once this one has begun to stop.
    pub fn ended(&self) -> impl Future<Output = ()> + Send + 'static {
        let (mut ended, stop) = (self.ended.clone(), self.stop.subscribe());
        async move {
            let _ = ended.wait_for(|ended| *ended).await;
            if *stop.borrow() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Detaches everything, and gives connections until the deadline. Does not wait for it.
    pub fn begin_to_stop(&self) {
        self.stop.send_replace(true);
    }
}

impl Drop for Redirect {
    /// Waits for the end.
    fn drop(&mut self) {
        self.begin_to_stop();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn run(
    config: RedirectConfig,
    mut registry: Registry,
    mut stop: watch::Receiver<bool>,
    ready: std_mpsc::Sender<Result<(), RedirectError>>,
) {
    let listener = match begin(&config, &mut registry).await {
        Ok(listener) => listener,
        Err(error) => {
            registry.end().await;
            let _ = ready.send(Err(error));
            return;
        }
    };
    let _ = ready.send(Ok(()));
    drop(ready);
    match control::serve(listener, &mut registry, stop.clone()).await {
        Ended::Stopped => {
            let _ = fs::remove_file(&config.socket);
            registry.remove_all();
            registry.remove_records();
            let _ = tokio::time::timeout(config.drain, registry.drain()).await;
        }
        Ended::HandedOver => {
            tracing::info!("another agent has taken over; this one serves what is open");
            tokio::select! {
                () = registry.drain() => {}
                _ = stop.wait_for(|stop| *stop) => {
                    let _ = tokio::time::timeout(config.drain, registry.drain()).await;
                }
            }
        }
    }
    registry.end().await;
}

/// Everything until the control socket is this agent's.
async fn begin(
    config: &RedirectConfig,
    registry: &mut Registry,
) -> Result<tokio::net::UnixListener, RedirectError> {
    let started = Instant::now();
    let mut predecessor = Predecessor::find(&config.socket)?;
    let known = match &mut predecessor {
        Some(predecessor) => predecessor.take_over()?,
        None => registry.left_by_a_crash(),
    };
    let count = known.len();
    for Handed { workload, source, held } in known {
        let name = workload.name.clone();
        if let Err(error) = registry.enrol(workload, &source, held.as_deref()).await {
            tracing::warn!(workload = name, %error, "not enrolled again");
            registry.forget(&name);
        }
    }
    let listener = control::bind(&config.socket)?;
    let has_predecessor = predecessor.is_some();
    if let Some(predecessor) = predecessor {
        predecessor.tell_taken_over()?;
    }
    let leftovers = registry.remove_leftovers();
    if count + leftovers > 0 {
        tracing::info!(
            workloads = registry.len(),
            of = count,
            pins_removed = leftovers,
            took_ms = started.elapsed().as_millis(),
            "{}",
            if has_predecessor {
                "took over from the agent that ran"
            } else {
                "continued after a crash"
            }
        );
    }
    Ok(listener)
}

/// To what the system allows; returns it.
fn raise_file_limit() -> u64 {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((1024, 1024));
    match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        Ok(()) => hard,
        Err(_) => soft,
    }
}
