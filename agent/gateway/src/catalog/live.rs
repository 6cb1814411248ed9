//! The configuration in force. It is replaced whole when its files change; readers take no lock
//! and see the change with their next request.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use tokio::sync::Notify;

use super::{BuildEngine, Catalog, CatalogError, Defaults, files::Files};
use crate::config::layers::{self, Layer};

/// How often the files are looked at. Their content counts, not their time: Kubernetes swaps links.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// One for the agent.
pub struct LiveCatalog {
    current: ArcSwap<Catalog>,
    /// Grows with each configuration that came into force, from 1.
    generation: AtomicU64,
    status: Mutex<Status>,
    /// Those of the last reload, whether it failed or not.
    files: Mutex<Files>,
    asked: Notify,
    file: Option<PathBuf>,
    defaults: Defaults,
    build_engine: Box<BuildEngine>,
    /// The settings of the file when the agent started; they are read only then.
    settings: Layer,
    /// What is listened on, in a mode that listens where the catalog says.
    listening: OnceLock<Vec<(Arc<str>, SocketAddr)>>,
}

/// How the last reload went, for `/health/ready` and metrics.
#[derive(Clone, Debug)]
pub struct Status {
    /// Why what the files say now is not in force; what was before still is.
    pub failure: Option<String>,
    /// What the files say and only a restart brings into force.
    pub needs_restart: Vec<String>,
    pub loaded_at: SystemTime,
    pub reloads: u64,
    pub failed_reloads: u64,
}

impl LiveCatalog {
    pub fn load(
        file: Option<PathBuf>,
        defaults: Defaults,
        build_engine: Box<BuildEngine>,
    ) -> Result<Arc<Self>, CatalogError> {
        let mut files = Files::default();
        let catalog = Catalog::load(file.as_deref(), &defaults, &build_engine, &mut files)?;
        let settings = read_settings(file.as_deref())?;
        Ok(Arc::new(Self {
            current: ArcSwap::from_pointee(catalog),
            generation: AtomicU64::new(1),
            status: Mutex::new(Status {
                failure: None,
                needs_restart: Vec::new(),
                loaded_at: SystemTime::now(),
                reloads: 0,
                failed_reloads: 0,
            }),
            files: Mutex::new(files),
            asked: Notify::new(),
            file,
            defaults,
            build_engine,
            settings,
            listening: OnceLock::new(),
        }))
    }

    pub fn current(&self) -> Arc<Catalog> {
        self.current.load_full()
    }

    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    pub fn status(&self) -> Status {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// That the listeners of the configuration in force are open. They are opened only at the
    /// start, so that a later configuration with others is told apart.
    pub fn note_listening(&self) {
        let listeners =
            self.current().listeners.iter().map(|l| (Arc::clone(&l.name), l.address)).collect();
        let _ = self.listening.set(listeners);
    }

    /// Reload now, whether or not a file has changed (SIGHUP).
    pub fn ask(&self) {
        self.asked.notify_one();
    }

    /// Reloads when a file changes or somebody asks. Runs until it is dropped.
    pub async fn follow(self: Arc<Self>) {
        let mut look = tokio::time::interval(LOOK_EVERY);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let is_asked = tokio::select! {
                _ = look.tick() => false,
                () = self.asked.notified() => true,
            };
            let live = Arc::clone(&self);
            let looked = tokio::task::spawn_blocking(move || {
                if is_asked || live.has_changed() {
                    live.reload();
                }
            });
            let _ = looked.await;
        }
    }

    /// Whether a file is not as it was when it was last read, successfully or not.
    fn has_changed(&self) -> bool {
        let files = self.files.lock().unwrap_or_else(PoisonError::into_inner).clone();
        files.has_changed()
    }

    /// Replaces the configuration, or keeps it and says why.
    pub fn reload(&self) {
        let mut files = Files::default();
        let loaded =
            Catalog::load(self.file.as_deref(), &self.defaults, &self.build_engine, &mut files);
        // A misspelt section would otherwise be one that is not there.
        let loaded = loaded.and_then(|catalog| {
            let settings = read_settings(self.file.as_deref())?;
            let needs_restart = self.needs_restart(&catalog, &settings);
            Ok((catalog, needs_restart))
        });
        *self.files.lock().unwrap_or_else(PoisonError::into_inner) = files;
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        match loaded {
            Ok((catalog, needs_restart)) => {
                if !needs_restart.is_empty() {
                    tracing::warn!(
                        changes = needs_restart.join("; "),
                        "the configuration changes what only a restart brings into force"
                    );
                }
                status.needs_restart = needs_restart;
                tracing::info!(
                    routes = catalog.routes.all.len(),
                    upstreams = catalog.upstreams.len(),
                    "configuration reloaded"
                );
                // Those of steered workloads are not the catalog's to forget.
                let before = self.current();
                catalog.engine.retain_breakers(|name| {
                    catalog.breakers.contains_key(name) || !before.breakers.contains_key(name)
                });
                self.current.store(Arc::new(catalog));
                self.generation.fetch_add(1, Ordering::Release);
                status.failure = None;
                status.loaded_at = SystemTime::now();
                status.reloads += 1;
            }
            Err(error) => {
                tracing::error!(%error, "configuration not reloaded; the previous one stays");
                status.failure = Some(error.to_string());
                status.failed_reloads += 1;
            }
        }
    }

    /// Differences between what the files say and what the agent was started with.
    fn needs_restart(&self, catalog: &Catalog, settings: &Layer) -> Vec<String> {
        let mut changes = Vec::new();
        if let Some(listening) = self.listening.get() {
            let configured = &catalog.listeners;
            let is_configured =
                |address: SocketAddr| configured.iter().any(|l| l.address == address);
            let is_open = |address: SocketAddr| listening.iter().any(|(_, open)| *open == address);
            for listener in configured.iter().filter(|l| !is_open(l.address)) {
                let (name, address) = (&listener.name, listener.address);
                changes.push(format!("listener `{name}` on {address} is not opened"));
            }
            for (name, address) in listening.iter().filter(|(_, a)| !is_configured(*a)) {
                changes.push(format!("listener `{name}` on {address} is still open, as it was"));
            }
        }
        let values = |layer: &Layer, key: &str| layer.get(key).map(|given| given.values.clone());
        let mut keys: Vec<&str> = self.settings.keys().chain(settings.keys()).copied().collect();
        keys.sort_unstable();
        keys.dedup();
        for key in keys {
            if values(&self.settings, key) != values(settings, key) {
                let key = key.replace('-', "_");
                changes.push(format!("the setting `{key}` is still as it was"));
            }
        }
        changes
    }
}

/// The settings in the file, beside the catalog's sections.
fn read_settings(file: Option<&Path>) -> Result<Layer, CatalogError> {
    let Some(path) = file else { return Ok(Layer::new()) };
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path)
        .map_err(|e| CatalogError::Read { file: name.clone(), reason: e.to_string() })?;
    layers::read_file(path, &text)
        .map_err(|e| CatalogError::Syntax { file: name, reason: e.to_string() })
}

/// One worker's view: a plain pointer until the generation changes.
pub struct CatalogReader {
    live: Arc<LiveCatalog>,
    generation: u64,
    catalog: Arc<Catalog>,
}

impl CatalogReader {
    pub fn new(live: Arc<LiveCatalog>) -> Self {
        let generation = live.generation();
        let catalog = live.current();
        Self { live, generation, catalog }
    }

    /// True when there is another one since the last look.
    pub fn refresh(&mut self) -> bool {
        let generation = self.live.generation();
        if generation == self.generation {
            return false;
        }
        self.generation = generation;
        self.catalog = self.live.current();
        true
    }

    pub fn catalog(&self) -> &Arc<Catalog> {
        &self.catalog
    }
}
