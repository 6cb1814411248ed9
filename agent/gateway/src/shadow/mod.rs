//! Shadow mode: what is known of each service, as status, contracts and files.

pub mod analysis;
pub mod book;
pub mod denials;
mod intake;
pub mod keeper;
mod pace;
mod priority;
pub mod rendering;
pub mod routes;
mod sampling;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use stoa_contract::knowledge::Window;
use tokio::sync::Semaphore;

use crate::store::{
    Store, StoreError,
    contract_files::{self, WriteError},
};
use analysis::{AnalysisHandle, Snapshot, now_seconds};
use denials::Denials;
use keeper::KeeperState;
use rendering::{Rendered, render};

#[derive(Debug, thiserror::Error)]
pub enum ShadowError {
    #[error("the agent is stopping")]
    Stopping,
    #[error("{0}")]
    Store(#[from] StoreError),
    #[error("{0}")]
    Write(#[from] WriteError),
    #[error("the contract could not be rendered")]
    Render,
}

pub struct ShadowConfig {
    pub tenant: String,
    pub output: PathBuf,
    pub min_requests: u64,
    /// `None`: all that is known (a file's traffic is as old as the file).
    pub window: Option<Duration>,
    pub capture: String,
    pub sources: Vec<String>,
    /// Of what else this agent does, in the text format.
    pub more_metrics: Box<dyn Fn() -> String + Send + Sync>,
}

/// What is known of a service without rendering its contract.
#[derive(Clone, Debug, Default)]
pub struct Known {
    pub exchanges: u64,
    /// Watched by this run, not only known from an earlier one.
    pub is_watched: bool,
}

/// A written contract: the file, and what the agent's last line says of it.
#[derive(Clone)]
pub struct Written {
    pub files: Vec<PathBuf>,
    pub contract: Arc<Rendered>,
}

pub struct Shadow {
    pub config: ShadowConfig,
    pub analysis: AnalysisHandle,
    pub keeper: Arc<KeeperState>,
    pub denials: Arc<Denials>,
    store: Arc<Store>,
    /// Name of this run in the store: the live copy stands for all of its current part.
    run: String,
    /// Exchanges in the store from before this run.
    before: Mutex<BTreeMap<String, u64>>,
    rendered: Mutex<BTreeMap<String, (u64, Arc<Rendered>)>>,
    written: Mutex<BTreeMap<String, Written>>,
    contracts_written: AtomicU64,
    /// Rendering is heavy: one at a time.
    renderer: Semaphore,
}

impl Shadow {
    pub fn new(
        config: ShadowConfig,
        analysis: AnalysisHandle,
        keeper: Arc<KeeperState>,
        denials: Arc<Denials>,
        store: Arc<Store>,
        run: String,
    ) -> Result<Self, StoreError> {
        let before = store.exchanges_by_service(|part| part.starts_with(&run))?;
        Ok(Self {
            config,
            analysis,
            keeper,
            denials,
            store,
            run,
            before: Mutex::new(before),
            rendered: Mutex::default(),
            written: Mutex::default(),
            contracts_written: AtomicU64::new(0),
            renderer: Semaphore::new(1),
        })
    }

    /// Every service that something is known of, or that is watched.
    pub fn services(&self, snapshot: &Snapshot) -> BTreeMap<String, Known> {
        let mut services: BTreeMap<String, Known> = BTreeMap::new();
        for (name, exchanges) in lock(&self.before).iter() {
            services.entry(name.clone()).or_default().exchanges = *exchanges;
        }
        for tally in snapshot.tallies.values() {
            let known = services.entry(tally.name.clone()).or_default();
            known.exchanges += tally.exchanges;
            known.is_watched = true;
        }
        services
    }

    /// The contract as of now. Cached for as long as nothing new was recorded.
    pub async fn contract(self: &Arc<Self>, service: &str) -> Result<Arc<Rendered>, ShadowError> {
        let exchanges =
            self.services(&self.analysis.snapshot()).get(service).map_or(0, |k| k.exchanges);
        let cached = || {
            let cache = lock(&self.rendered);
            cache.get(service).filter(|(n, _)| *n == exchanges).map(|(_, r)| Arc::clone(r))
        };
        if let Some(rendered) = cached() {
            return Ok(rendered);
        }
        let _permit = self.renderer.acquire().await.map_err(|_| ShadowError::Stopping)?;
        if let Some(rendered) = cached() {
            return Ok(rendered);
        }
        let live = self.analysis.copy(service).await;
        let (own, name) = (Arc::clone(self), service.to_owned());
        let rendering = tokio::task::spawn_blocking(move || own.render_now(&name, live));
        let rendered = rendering.await.map_err(|_| ShadowError::Render)??;
        lock(&self.rendered).insert(service.to_owned(), (exchanges, Arc::clone(&rendered)));
        Ok(rendered)
    }

    fn render_now(
        &self,
        service: &str,
        live: Option<analysis::LiveCopy>,
    ) -> Result<Arc<Rendered>, ShadowError> {
        let window = match self.config.window {
            Some(length) => {
                Window { from: now_seconds().saturating_sub(length.as_secs()), to: u64::MAX }
            }
            None => Window::ALL,
        };
        let live_part = live.as_ref().map(|copy| copy.part.clone());
        let mut knowledge =
            self.store.knowledge_of(service, window, |part| live_part.as_deref() == Some(part))?;
        if let Some(copy) = live {
            knowledge.combine(&copy.knowledge);
            knowledge.shrink();
        }
        Ok(Arc::new(render(service, &self.config.tenant, &knowledge)))
    }

    /// Renders what the store has; for the end, when the analysis has written its last.
    pub fn write_from_store(&self, service: &str) -> Result<Written, ShadowError> {
        let contract = self.render_now(service, None)?;
        self.write_files(contract)
    }

    /// Renders and writes the contract's files.
    pub async fn write(self: &Arc<Self>, service: &str) -> Result<Written, ShadowError> {
        let contract = self.contract(service).await?;
        let own = Arc::clone(self);
        let writing = tokio::task::spawn_blocking(move || own.write_files(contract));
        writing.await.map_err(|_| ShadowError::Render)?
    }

    fn write_files(&self, contract: Arc<Rendered>) -> Result<Written, ShadowError> {
        let files = contract_files::write(&self.config.output, &contract)?;
        let written = Written { files, contract: Arc::clone(&contract) };
        self.contracts_written.fetch_add(1, Ordering::Relaxed);
        lock(&self.written).insert(contract.service.clone(), written.clone());
        tracing::info!(
            service = %contract.service,
            operations = contract.operations,
            exchanges = contract.exchanges,
            directory = %self.config.output.display(),
            "contract written"
        );
        Ok(written)
    }

    pub fn written(&self) -> BTreeMap<String, Written> {
        lock(&self.written).clone()
    }

    pub fn contracts_written(&self) -> u64 {
        self.contracts_written.load(Ordering::Relaxed)
    }

    /// Operations of the contract as last rendered.
    pub fn operations_of(&self, service: &str) -> usize {
        lock(&self.rendered).get(service).map_or(0, |(_, rendered)| rendered.operations)
    }

    /// Forgets what has been held for longer than `retention`. Returns how many pieces went.
    pub fn purge(&self, retention: Duration) -> Result<u64, StoreError> {
        let purged =
            self.store.purge_held_before(now_seconds().saturating_sub(retention.as_secs()))?;
        if purged > 0 {
            let before = self.store.exchanges_by_service(|part| part.starts_with(&self.run))?;
            *lock(&self.before) = before;
            lock(&self.rendered).clear();
            tracing::info!(target: "audit", action = "purge", pieces = purged, "observations past their retention were deleted");
        }
        Ok(purged)
    }

    /// Writes contracts as services become ready, and again when they have doubled. Ends when
    /// the future is dropped.
    pub async fn write_when_ready(self: Arc<Self>) {
        let mut due: BTreeMap<String, u64> = BTreeMap::new();
        let mut has_finished = false;
        let mut tick = tokio::time::interval(Duration::from_secs(1));
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut failed: BTreeSet<String> = BTreeSet::new();
        loop {
            tick.tick().await;
            let snapshot = self.analysis.snapshot();
            let ends_now = snapshot.is_finished && !has_finished;
            has_finished |= ends_now;
            for (service, known) in self.services(&snapshot) {
                if !known.is_watched {
                    continue;
                }
                let at = *due.get(&service).unwrap_or(&self.config.min_requests);
                let is_due = known.exchanges >= at
                    || (ends_now && known.exchanges >= self.config.min_requests);
                if !is_due {
                    continue;
                }
                due.insert(service.clone(), known.exchanges.saturating_mul(2));
                match self.write(&service).await {
                    Ok(_) => {
                        failed.remove(&service);
                    }
                    Err(error) => {
                        if failed.insert(service.clone()) {
                            tracing::error!(%service, %error, "contract not written");
                        }
                    }
                }
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
