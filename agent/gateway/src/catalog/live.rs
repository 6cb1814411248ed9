//! The configuration in force. It is replaced whole when its files change; readers take no lock
//! and see the change with their next request.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use tokio::sync::Notify;

use super::{
    BuildEngine, Catalog, CatalogError, Defaults, Listener,
    additions::{Additions, AdditionsError, AdditionsFile, Refused},
    files::Files,
};
use crate::config::layers::{self, Layer};

/// How often the files are looked at, unless the settings say otherwise. Their content counts, not
/// their time: Kubernetes swaps links.
pub const LOOK_EVERY: Duration = Duration::from_secs(1);

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
    /// What the admin API added, where there is one.
    additions: Option<AdditionsFile>,
    /// In a mode that listens where the catalog says.
    listeners: OnceLock<Arc<dyn Listening>>,
    /// One reload at a time.
    reloading: Mutex<()>,
}

/// Listens where a configuration says.
pub trait Listening: Send + Sync {
    /// Opens what is not open yet, or says what cannot be. Nothing is closed, and nothing accepted,
    /// before the returned function is called; dropped, it leaves everything as it was.
    fn prepare(&self, listeners: &[Arc<Listener>]) -> Result<Box<dyn FnOnce() + '_>, String>;
}

/// Why a change was not made. What was before stays.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    #[error("{0}")]
    Refused(#[from] Refused),
    /// It contradicts what the file says, or the file has become unusable.
    #[error("{0}")]
    Unusable(String),
    #[error("{0}")]
    NotKept(#[from] AdditionsError),
    #[error("nothing can be added in this mode")]
    Unsupported,
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
        additions: Option<AdditionsFile>,
    ) -> Result<Arc<Self>, CatalogError> {
        let mut files = Files::default();
        let added = read_additions(additions.as_ref(), &mut files)?;
        let catalog = Catalog::load(file.as_deref(), &added, &defaults, &build_engine, &mut files)?;
        if let Some(kept) = &additions {
            kept.put_in_force(added);
        }
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
            additions,
            listeners: OnceLock::new(),
            reloading: Mutex::new(()),
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

    /// From now on, who opens the listeners of a configuration before it comes into force.
    pub fn listen_with(&self, listening: Arc<dyn Listening>) {
        let _ = self.listeners.set(listening);
    }

    /// What the admin API added.
    pub fn additions(&self) -> Additions {
        self.additions.as_ref().map(AdditionsFile::in_force).unwrap_or_default()
    }

    /// Reload now, whether or not a file has changed (SIGHUP).
    pub fn ask(&self) {
        self.asked.notify_one();
    }

    /// Reloads when a file changes or somebody asks. Runs until it is dropped.
    pub async fn follow(self: Arc<Self>) {
        let every = self.defaults.look_every;
        let mut look = tokio::time::interval(every.unwrap_or(LOOK_EVERY));
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let is_asked = tokio::select! {
                _ = look.tick(), if every.is_some() => false,
                () = self.asked.notified() => true,
            };
            let live = Arc::clone(&self);
            let looked = tokio::task::spawn_blocking(move || {
                if is_asked || live.has_changed() {
                    // It is in the status, and in the log.
                    let _ = live.reload();
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
    pub fn reload(&self) -> Result<(), String> {
        let _turn = self.reloading.lock().unwrap_or_else(PoisonError::into_inner);
        let mut files = Files::default();
        let added = read_additions(self.additions.as_ref(), &mut files);
        let loaded = match added {
            Ok(added) => self.load_again(added, &mut files),
            Err(error) => Err(error.to_string()),
        };
        *self.files.lock().unwrap_or_else(PoisonError::into_inner) = files;
        match loaded.and_then(|loaded| self.put_in_force(loaded)) {
            Ok(()) => Ok(()),
            Err(reason) => {
                tracing::error!(
                    error = reason,
                    "configuration not reloaded; the previous one stays"
                );
                let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
                status.failure = Some(reason.clone());
                status.failed_reloads += 1;
                Err(reason)
            }
        }
    }

    /// Changes what the admin API added, and puts it in force with what the files say now. Blocks:
    /// when it returns, the change is on the disk and in force, or neither.
    pub fn change<T>(
        &self,
        edit: impl FnOnce(&mut Additions) -> Result<T, Refused>,
    ) -> Result<T, ChangeError> {
        let _turn = self.reloading.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = self.additions.as_ref().ok_or(ChangeError::Unsupported)?;
        let changing = kept.begin()?;
        let mut files = Files::default();
        let before = kept.read(&mut files)?;
        let mut additions = before.clone();
        let made = edit(&mut additions)?;
        let loaded =
            self.load_again(additions.clone(), &mut files).map_err(ChangeError::Unusable)?;
        changing.keep(&additions, &mut files)?;
        if let Err(reason) = self.put_in_force(loaded) {
            changing.keep(&before, &mut files)?;
            return Err(ChangeError::Unusable(reason));
        }
        *self.files.lock().unwrap_or_else(PoisonError::into_inner) = files;
        Ok(made)
    }

    /// What the files and these make, or why they make nothing.
    fn load_again(&self, additions: Additions, files: &mut Files) -> Result<Loaded, String> {
        let (file, defaults) = (self.file.as_deref(), &self.defaults);
        let loaded = Catalog::load(file, &additions, defaults, &self.build_engine, files);
        // A misspelt section would otherwise be one that is not there.
        let loaded = loaded.and_then(|catalog| {
            let needs_restart = self.needs_restart(&read_settings(file)?);
            Ok(Loaded { catalog, additions, needs_restart })
        });
        loaded.map_err(|error| error.to_string())
    }

    fn put_in_force(&self, loaded: Loaded) -> Result<(), String> {
        let Loaded { catalog, additions, needs_restart } = loaded;
        let listeners = self.listeners.get();
        let opened =
            listeners.map(|listening| listening.prepare(&catalog.listeners)).transpose()?;
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
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
        if let Some(kept) = &self.additions {
            kept.put_in_force(additions);
        }
        self.generation.fetch_add(1, Ordering::Release);
        status.failure = None;
        status.loaded_at = SystemTime::now();
        status.reloads += 1;
        drop(status);
        if let Some(accept) = opened {
            accept();
        }
        Ok(())
    }

    /// Differences between what the file says and what the agent was started with.
    fn needs_restart(&self, settings: &Layer) -> Vec<String> {
        let values = |layer: &Layer, key: &str| layer.get(key).map(|given| given.values.clone());
        let mut keys: Vec<&str> = self.settings.keys().chain(settings.keys()).copied().collect();
        keys.sort_unstable();
        keys.dedup();
        keys.retain(|key| values(&self.settings, key) != values(settings, key));
        let say = |key: &str| format!("the setting `{}` is still as it was", key.replace('-', "_"));
        keys.into_iter().map(say).collect()
    }
}

/// Read and built, not in force.
struct Loaded {
    catalog: Catalog,
    additions: Additions,
    needs_restart: Vec<String>,
}

fn read_additions(
    kept: Option<&AdditionsFile>,
    files: &mut Files,
) -> Result<Additions, AdditionsError> {
    kept.map_or_else(|| Ok(Additions::default()), |kept| kept.read(files))
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
