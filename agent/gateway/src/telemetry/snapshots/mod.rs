//! Error snapshots: what an exchange looked like that ended with a status of 500 or above, for
//! whoever looks for the reason. In memory only, bounded in number, age and size.
//!
//! A worker hands a failure over without waiting; a thread masks it, and only what is masked is
//! kept. What the thread cannot keep up with is dropped and counted.

mod mask;
mod open_json;

use std::{
    collections::VecDeque,
    fmt::Write as _,
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use http::HeaderMap;
use regex::Regex;
use serde_json::{Value, json};
use stoa_contract::openapi::rfc3339;
use stoa_policy::{decision::PolicyKind, rate_limit::LimitTable};

use self::mask::Mask;
use super::{
    kafka::Producer,
    metering::{
        error_event::{self, ErrorEvent, Shown},
        event::Event,
    },
    proxy_metrics::header,
};

/// Failures that may wait to be masked.
const MOST_WAITING: usize = 64;
/// Of all snapshots together, as JSON: whatever the other bounds add up to.
const MOST_BYTES: usize = 64 << 20;
/// Those that are too old go within this time, whether anybody asks or not.
const PURGE_EVERY: Duration = Duration::from_secs(5);

#[derive(Clone, Debug)]
pub struct SnapshotSettings {
    pub most: usize,
    pub age: Duration,
    /// Of each body.
    pub body_bytes: usize,
    /// What else is masked, beside what the agent knows.
    pub patterns: Vec<Regex>,
}

/// An exchange that failed, before anything of it is masked. Never kept, logged or shown.
pub struct Failure {
    pub request_id: String,
    pub method: String,
    /// Without its query.
    pub path: String,
    pub status: u16,
    pub category: Category,
    pub took: Duration,
    pub request_headers: HeaderMap,
    pub request_body: Beginning,
    pub response_headers: HeaderMap,
    pub response_body: Beginning,
    /// Names of the configuration, and of this build.
    pub route: Option<Arc<str>>,
    pub tenant: Option<Arc<str>>,
    pub upstream: Option<Arc<str>>,
    pub code: Option<&'static str>,
    /// For Kafka.
    pub event: Option<Box<Event>>,
}

/// Where snapshots go beside memory.
pub struct Sink {
    pub errors: Producer<ErrorEvent>,
    pub limits: Option<Arc<LimitTable>>,
}

/// Of a body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Beginning {
    pub bytes: Vec<u8>,
    /// There was more, or nobody knows.
    pub is_cut: bool,
}

/// Where to look first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Category {
    Auth,
    Network,
    Backend,
    Timeout,
    Policy,
    RateLimit,
    Certificate,
    Unknown,
}

impl Category {
    pub fn name(self) -> &'static str {
        match self {
            Self::Auth => "auth",
            Self::Network => "network",
            Self::Backend => "backend",
            Self::Timeout => "timeout",
            Self::Policy => "policy",
            Self::RateLimit => "ratelimit",
            Self::Certificate => "certificate",
            Self::Unknown => "unknown",
        }
    }

    /// By the policy and the code that an answer was counted by; without either, it was the
    /// upstream's own.
    pub fn of(status: u16, policy: Option<&str>, code: Option<&str>) -> Self {
        let is_policy = |kind: PolicyKind| policy == Some(kind.name());
        match (policy, code) {
            (Some(_), _) if is_policy(PolicyKind::Identity) => Self::Auth,
            (Some(_), _) if is_policy(PolicyKind::RateLimit) || is_policy(PolicyKind::Quota) => {
                Self::RateLimit
            }
            (Some(_), _) if is_policy(PolicyKind::CircuitBreaker) => Self::Backend,
            (Some(_), _) | (None, Some("policies_missing")) => Self::Policy,
            (None, Some("upstream_tls")) => Self::Certificate,
            (None, Some(code)) if code.ends_with("timeout") || code.ends_with("timed_out") => {
                Self::Timeout
            }
            (
                None,
                Some(
                    "upstream_unreachable"
                    | "upstream_unresolved"
                    | "upstream_reset"
                    | "upstream_closed",
                ),
            ) => Self::Network,
            (None, Some("no_backend" | "circuit_open")) => Self::Backend,
            (None, Some(code)) if code.starts_with("upstream_") => Self::Backend,
            (None, Some(_)) => Self::Unknown,
            (None, None) if status == 504 => Self::Timeout,
            (None, None) => Self::Backend,
        }
    }
}

/// Shared by the workers and the admin API.
pub struct Snapshots {
    queue: SyncSender<(SystemTime, Box<Failure>)>,
    kept: Arc<Kept>,
    body_bytes: usize,
    dropped: AtomicU64,
}

struct Kept {
    ring: Mutex<Ring>,
    most: usize,
    age: Duration,
    captured: AtomicU64,
    evicted: AtomicU64,
}

/// The oldest first.
#[derive(Default)]
struct Ring {
    entries: VecDeque<Entry>,
    bytes: usize,
}

struct Entry {
    at: Instant,
    request_id: String,
    bytes: usize,
    json: Arc<Value>,
}

impl Snapshots {
    pub fn start(settings: &SnapshotSettings, sink: Option<Sink>) -> io::Result<Arc<Self>> {
        error_event::start_clock();
        let (queue, failures) = sync_channel(MOST_WAITING);
        let kept = Arc::new(Kept {
            ring: Mutex::default(),
            most: settings.most,
            age: settings.age,
            captured: AtomicU64::new(0),
            evicted: AtomicU64::new(0),
        });
        let mask = Mask::new(settings.patterns.clone());
        std::thread::Builder::new().name("snapshots".to_owned()).spawn({
            let kept = Arc::clone(&kept);
            move || keep_all(&failures, &mask, &kept, sink.as_ref())
        })?;
        let (body_bytes, dropped) = (settings.body_bytes, AtomicU64::new(0));
        Ok(Arc::new(Self { queue, kept, body_bytes, dropped }))
    }

    /// How much of a body is wanted.
    pub fn body_bytes(&self) -> usize {
        self.body_bytes
    }

    pub fn offer(&self, failure: Failure) {
        if self.queue.try_send((SystemTime::now(), Box::new(failure))).is_err() {
            self.dropped.fetch_add(1, Relaxed);
        }
    }

    /// The newest first, and how many there are.
    pub fn list(&self, limit: usize, offset: usize) -> (Vec<Arc<Value>>, usize) {
        self.kept.with(|ring| {
            let newest = ring.entries.iter().rev().skip(offset).take(limit);
            (newest.map(|entry| Arc::clone(&entry.json)).collect(), ring.entries.len())
        })
    }

    /// The newest of that request: a client may use a name again.
    pub fn find(&self, request_id: &str) -> Option<Arc<Value>> {
        self.kept.with(|ring| {
            let mut newest = ring.entries.iter().rev();
            let found = newest.find(|entry| entry.request_id == request_id);
            found.map(|entry| Arc::clone(&entry.json))
        })
    }

    /// Forgets all of them; how many there were.
    pub fn clear(&self) -> usize {
        self.kept.with(|ring| std::mem::take(ring).entries.len())
    }

    /// Appends to the text format, version 0.0.4.
    pub fn render(&self, text: &mut String) {
        let size = self.kept.with(|ring| ring.entries.len()) as u64;
        for (name, kind, help, value) in [
            (
                "stoa_snapshots_captured_total",
                "counter",
                "Error snapshots that were taken",
                self.kept.captured.load(Relaxed),
            ),
            ("stoa_snapshot_store_size", "gauge", "Error snapshots that are kept", size),
            (
                "stoa_snapshots_evicted_total",
                "counter",
                "Error snapshots that went for a bound on their number, size or age",
                self.kept.evicted.load(Relaxed),
            ),
            (
                "stoa_snapshots_dropped_total",
                "counter",
                "Failures of which no snapshot was taken, because too many came at once",
                self.dropped.load(Relaxed),
            ),
        ] {
            header(text, name, kind, help);
            let _ = writeln!(text, "{name} {value}");
        }
    }
}

impl Kept {
    /// Without those that are too old.
    fn with<T>(&self, read: impl FnOnce(&mut Ring) -> T) -> T {
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        while ring.entries.front().is_some_and(|oldest| oldest.at.elapsed() > self.age) {
            self.evict(&mut ring);
        }
        read(&mut ring)
    }

    fn evict(&self, ring: &mut Ring) {
        if let Some(gone) = ring.entries.pop_front() {
            ring.bytes = ring.bytes.saturating_sub(gone.bytes);
            self.evicted.fetch_add(1, Relaxed);
        }
    }

    fn add(&self, request_id: String, json: Value) {
        let bytes = json.to_string().len();
        self.captured.fetch_add(1, Relaxed);
        self.with(|ring| {
            ring.bytes += bytes;
            let json = Arc::new(json);
            ring.entries.push_back(Entry { at: Instant::now(), request_id, bytes, json });
            while ring.entries.len() > self.most || ring.bytes > MOST_BYTES {
                self.evict(ring);
            }
        });
    }
}

impl Sink {
    /// `json` is the snapshot's document.
    fn send(&self, failure: &Failure, event: &Event, json: &Value, mask: &Mask) {
        let text = |name: &str| json.get(name).and_then(Value::as_str).unwrap_or_default();
        let subject = event.identity.as_ref().map(|who| who.subject.as_ref());
        let user = subject.filter(|id| !id.is_empty()).map(|id| mask.identifier(id, &mut false));
        let shown = Shown {
            request_id: text("request_id"),
            user_id: user.as_deref(),
            method: text("method"),
            path: text("path"),
            category: failure.category.name(),
            code: failure.code,
            status: failure.status,
        };
        let buckets = self.limits.as_ref().map(|limits| limits.used());
        self.errors.offer(ErrorEvent::new(event, &shown, buckets));
    }
}

/// Until every sender is gone.
fn keep_all(
    failures: &Receiver<(SystemTime, Box<Failure>)>,
    mask: &Mask,
    kept: &Kept,
    sink: Option<&Sink>,
) {
    loop {
        match failures.recv_timeout(PURGE_EVERY) {
            Ok((at, failure)) => {
                let (request_id, json) = show(&failure, at, mask);
                if let (Some(sink), Some(event)) = (sink, &failure.event) {
                    sink.send(&failure, event, &json, mask);
                }
                kept.add(request_id, json);
            }
            Err(RecvTimeoutError::Timeout) => kept.with(|_| ()),
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// The snapshot's document: nothing in it was not masked.
fn show(failure: &Failure, at: SystemTime, mask: &Mask) -> (String, Value) {
    let mut found = false;
    let request_id = mask.identifier(&failure.request_id, &mut found);
    let request_headers = mask.headers(&failure.request_headers, &mut found);
    let response_headers = mask.headers(&failure.response_headers, &mut found);
    let request_body =
        mask.request_body(&failure.request_headers, &failure.request_body, &mut found);
    let response_body =
        mask.response_body(&failure.response_headers, &failure.response_body, &mut found);
    let mut json = json!({
        "request_id": request_id,
        "timestamp": timestamp(at),
        "method": failure.method,
        "path": mask.path(&failure.path, &mut found),
        "status_code": failure.status,
        "error_category": failure.category.name(),
        "duration_ms": failure.took.as_secs_f64() * 1e3,
        "request_headers": request_headers,
        "request_body_excerpt": request_body,
        "response_headers": response_headers,
        "response_body_excerpt": response_body,
        "pii_found": found,
    });
    for (name, value) in [
        ("route", failure.route.as_deref()),
        ("tenant_id", failure.tenant.as_deref()),
        ("upstream", failure.upstream.as_deref()),
        ("error_code", failure.code),
    ] {
        if let Some(value) = value {
            json[name] = json!(value);
        }
    }
    (request_id, json)
}

/// RFC 3339, with milliseconds.
pub fn timestamp(at: SystemTime) -> String {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = rfc3339(since.as_secs());
    format!("{}.{:03}Z", seconds.trim_end_matches('Z'), since.subsec_millis())
}

#[cfg(test)]
mod tests;
