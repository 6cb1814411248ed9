//! Keys that an issuer publishes at a URL: fetched once for all who ask at the same time, kept,
//! refreshed behind the requests' back, and served on while a refresh fails.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::sync::watch;

use super::key_set::KeySet;
use crate::{clock::Now, outside::KeyFetcher};

/// When keys are fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Schedule {
    /// Older keys are fetched again, in the background.
    pub refresh: Duration,
    /// Never sooner than this after the last fetch: a stranger who invents key ids makes us fetch no
    /// more often.
    pub least_interval: Duration,
    /// Keys that could not be refreshed for so long count no more.
    pub most_stale: Duration,
}

/// Where a key set is to be had.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum KeysAt {
    Url(String),
    /// Where the issuer's metadata say (OpenID Connect Discovery 1.0, section 4).
    Issuer(String),
}

impl KeysAt {
    /// What is asked first.
    pub fn url(&self) -> String {
        match self {
            Self::Url(url) => url.clone(),
            Self::Issuer(issuer) => {
                format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'))
            }
        }
    }
}

/// The sources of all sets, by place: sets that trust the same issuer share its keys, and a reload
/// finds them fetched.
#[derive(Debug, Default)]
pub struct KeyRing {
    fetcher: Option<Arc<dyn KeyFetcher>>,
    sources: Mutex<HashMap<(KeysAt, Schedule), Weak<KeySource>>>,
}

/// How the keys of one URL are doing, for metrics and `/health/ready`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyState {
    pub url: String,
    /// How long ago the keys were fetched; `None`: never.
    pub age: Option<Duration>,
    pub fetches: u64,
    pub failures: u64,
    /// Why the last fetch failed; `None` when it did not.
    pub failure: Option<String>,
}

impl KeyRing {
    pub fn new(fetcher: Arc<dyn KeyFetcher>) -> Self {
        Self { fetcher: Some(fetcher), sources: Mutex::default() }
    }

    /// The source of those keys, which begins to fetch if it is new. `None`: there is no fetcher here.
    pub(super) fn source(&self, at: KeysAt, schedule: Schedule) -> Option<Arc<KeySource>> {
        let fetcher = self.fetcher.as_ref()?;
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        sources.retain(|_, source| source.strong_count() > 0);
        let key = (at.clone(), schedule);
        if let Some(source) = sources.get(&key).and_then(Weak::upgrade) {
            return Some(source);
        }
        let source = Arc::new(KeySource {
            at,
            schedule,
            fetcher: Arc::clone(fetcher),
            kept: ArcSwap::default(),
            refresh_at: AtomicU64::new(0),
            stale_at: AtomicU64::new(0),
            is_fetching: AtomicBool::new(false),
            finished: watch::Sender::new(0),
            fetches: AtomicU64::new(0),
            failures: AtomicU64::new(0),
        });
        sources.insert(key, Arc::downgrade(&source));
        drop(sources);
        source.start_fetch(Now::read());
        Some(source)
    }

    /// Fetches all keys anew, as often as each may be fetched.
    pub fn refetch(&self) {
        let sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        let sources: Vec<_> = sources.values().filter_map(Weak::upgrade).collect();
        for source in sources {
            source.start_fetch(Now::read());
        }
    }

    pub fn states(&self) -> Vec<KeyState> {
        let sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        let mut states: Vec<_> =
            sources.values().filter_map(Weak::upgrade).map(|source| source.state()).collect();
        states.sort_by(|a, b| a.url.cmp(&b.url));
        states
    }
}

/// What was fetched, and how the last attempt went.
#[derive(Debug, Default)]
struct Kept {
    set: Arc<KeySet>,
    /// When the set was fetched; `None`: never.
    fetched: Option<Now>,
    attempted: Option<Now>,
    failure: Option<String>,
}

pub(super) struct KeySource {
    at: KeysAt,
    schedule: Schedule,
    fetcher: Arc<dyn KeyFetcher>,
    kept: ArcSwap<Kept>,
    /// Milliseconds since 1970 from which the keys are to be refreshed, and from which they count
    /// no more: what is asked of each request with a token that is remembered.
    refresh_at: AtomicU64,
    stale_at: AtomicU64,
    is_fetching: AtomicBool,
    /// Counts fetches that ended, well or not.
    finished: watch::Sender<u64>,
    fetches: AtomicU64,
    failures: AtomicU64,
}

impl fmt::Debug for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeySource").field("at", &self.at).finish_non_exhaustive()
    }
}

impl KeySource {
    /// Whether what was verified with the keys still counts. Old keys are refreshed meanwhile.
    pub(super) fn is_current(self: &Arc<Self>, now: Now) -> bool {
        if now.0 >= self.refresh_at.load(Ordering::Relaxed) {
            self.start_fetch(now);
        }
        now.0 < self.stale_at.load(Ordering::Relaxed)
    }

    /// What is at hand. `None`: nothing that still counts.
    pub(super) fn at_hand(self: &Arc<Self>, now: Now) -> Option<Arc<KeySet>> {
        self.is_current(now).then(|| Arc::clone(&self.kept.load().set))
    }

    /// Waits for the fetch that runs, or for a new one if the last is long enough ago. What is then
    /// at hand may still be nothing.
    pub(super) async fn refetch(self: &Arc<Self>, now: Now) {
        // Before looking, so that a fetch that ends in between is not waited for.
        let mut finished = self.finished.subscribe();
        if self.start_fetch(now) || self.is_fetching.load(Ordering::Acquire) {
            // The sender lives as long as we do.
            let _ = finished.changed().await;
        }
    }

    /// Whether a fetch was started: not while another runs, nor too soon after it.
    fn start_fetch(self: &Arc<Self>, now: Now) -> bool {
        let is_too_soon = || {
            let attempted = self.kept.load().attempted;
            attempted.is_some_and(|at| now.since(at) < self.schedule.least_interval)
        };
        if is_too_soon() || self.is_fetching.swap(true, Ordering::AcqRel) {
            return false;
        }
        // Another may have ended between the two questions.
        if is_too_soon() {
            self.is_fetching.store(false, Ordering::Release);
            self.finished.send_modify(|count| *count += 1);
            return false;
        }
        self.fetches.fetch_add(1, Ordering::Relaxed);
        self.fetcher.start(&self.at, Delivery { source: Some(Arc::clone(self)) });
        true
    }

    fn finish(&self, result: Result<KeySet, String>) {
        let earlier = self.kept.load_full();
        let now = Now::read();
        let kept = match result {
            Ok(set) => {
                self.refresh_at.store(now.after(self.schedule.refresh).0, Ordering::Relaxed);
                self.stale_at.store(now.after(self.schedule.most_stale).0, Ordering::Relaxed);
                Kept {
                    set: Arc::new(set.succeed(&earlier.set)),
                    fetched: Some(now),
                    attempted: Some(now),
                    failure: None,
                }
            }
            Err(failure) => {
                self.failures.fetch_add(1, Ordering::Relaxed);
                Kept {
                    set: Arc::clone(&earlier.set),
                    fetched: earlier.fetched,
                    attempted: Some(now),
                    failure: Some(failure),
                }
            }
        };
        // Only the one fetch that runs stores: nothing is lost between load and store.
        self.kept.store(Arc::new(kept));
        self.is_fetching.store(false, Ordering::Release);
        self.finished.send_modify(|count| *count += 1);
    }

    fn state(&self) -> KeyState {
        let kept = self.kept.load();
        let now = Now::read();
        KeyState {
            url: self.at.url(),
            age: kept.fetched.map(|at| now.since(at)),
            fetches: self.fetches.load(Ordering::Relaxed),
            failures: self.failures.load(Ordering::Relaxed),
            failure: kept.failure.clone(),
        }
    }
}

/// Takes the outcome of one fetch. Dropped without one, the fetch counts as failed, so that nobody
/// waits for ever.
#[derive(Debug)]
pub struct Delivery {
    source: Option<Arc<KeySource>>,
}

impl Delivery {
    /// The body of a successful answer, or what went wrong, worded for an operator.
    pub fn deliver(mut self, answer: Result<&[u8], String>) {
        if let Some(source) = self.source.take() {
            let parse = |document| KeySet::parse(document).map_err(|e| format!("the answer {e}"));
            source.finish(answer.and_then(parse));
        }
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        if let Some(source) = self.source.take() {
            source.finish(Err("the fetch was given up".to_owned()));
        }
    }
}

#[cfg(test)]
#[path = "key_source_tests.rs"]
mod tests;
