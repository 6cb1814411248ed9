//! OpenTelemetry traces: a span of each request, sent to a collector by OTLP over gRPC.
//!
//! A worker hands a finished span over without waiting; a task on the control runtime sends them in
//! batches. What the task cannot keep up with is dropped and counted. Attributes are those of the
//! semantic conventions for HTTP servers, but for those that say who somebody is: no path, no
//! query, no host, no address, no agent of the user. The route says where a request went.

mod active;
pub mod context;
mod export;
mod span;

use std::{
    fmt::Write as _,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use http::{HeaderMap, Uri};
use rustls::ClientConfig;
use tokio::{runtime::Handle, sync::mpsc, task::JoinHandle};

pub use self::{
    active::{Active, known_method},
    span::{Attribute, Kind, Span, Step},
};
use self::{
    context::{Context, Parent},
    export::Exporter,
};
use super::proxy_metrics::header;

/// Spans that may wait to be sent.
const MOST_WAITING: usize = 2048;
/// What is left when the agent stops is sent within this time, or dropped.
const FLUSHED_WITHIN: Duration = Duration::from_secs(5);

#[derive(Clone, Debug)]
pub struct TraceSettings {
    /// `http://HOST:PORT` or `https://HOST:PORT`.
    pub endpoint: Uri,
    /// Of traces that begin here, from 0 to 1.
    pub sample_rate: f64,
    /// Spans of each policy and of the upstream, too.
    pub is_detailed: bool,
    /// Requests of proxy mode have spans.
    pub is_of_proxy: bool,
}

/// Shared by the workers.
pub struct Tracer {
    /// Of 2^63: as OpenTelemetry's `TraceIdRatioBased`.
    threshold: u64,
    is_detailed: bool,
    queue: mpsc::Sender<Span>,
    counts: Arc<Counts>,
    exporting: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug, Default)]
struct Counts {
    exported: AtomicU64,
    queue_full: AtomicU64,
    export_failed: AtomicU64,
    /// By the collector, which took the rest.
    rejected: AtomicU64,
}

impl Tracer {
    /// The collector need not be there yet.
    pub fn start(
        settings: &TraceSettings,
        mode: &'static str,
        tls: ClientConfig,
        control: &Handle,
    ) -> Arc<Self> {
        let (queue, spans) = mpsc::channel(MOST_WAITING);
        let counts = Arc::<Counts>::default();
        let exporter = Exporter::new(settings.endpoint.clone(), mode, tls, Arc::clone(&counts));
        let exporting = control.spawn(exporter.run(spans));
        Arc::new(Self {
            threshold: threshold(settings.sample_rate),
            is_detailed: settings.is_detailed,
            queue,
            counts,
            exporting: Mutex::new(Some(exporting)),
        })
    }

    /// Whether a trace is sampled, its first service decides (`ParentBased(TraceIdRatioBased)`).
    pub fn begin(&self, headers: &HeaderMap, random: impl Fn() -> u64) -> Active {
        let span = random().max(1);
        let context = match Parent::of(headers) {
            Some(parent) => Context {
                trace: parent.trace,
                span,
                parent: Some(parent.span),
                is_sampled: parent.is_sampled,
            },
            None => {
                let low = random().max(1);
                Context {
                    trace: u128::from(random()) << 64 | u128::from(low),
                    span,
                    parent: None,
                    is_sampled: low >> 1 < self.threshold,
                }
            }
        };
        let call = (self.is_detailed && context.is_sampled).then(|| random().max(1));
        Active { call: call.unwrap_or(span), ..Active::new(context) }
    }

    pub fn end(&self, span: Span) {
        if self.queue.try_send(span).is_err() {
            self.counts.queue_full.fetch_add(1, Relaxed);
        }
    }

    /// Sends what is left. Spans that end later are dropped.
    pub async fn stop(&self) {
        let exporting = self.exporting.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut exporting) = exporting else { return };
        // An empty span's context marks the end: it comes after all that was handed over before.
        let end = tokio::time::timeout(FLUSHED_WITHIN, async {
            let _ = self.queue.send(Span::last()).await;
            let _ = (&mut exporting).await;
        });
        if end.await.is_err() {
            exporting.abort();
            tracing::warn!("the last spans did not reach the collector in time");
        }
    }

    /// Appends to the text format, version 0.0.4.
    pub fn render(&self, text: &mut String) {
        let name = "gateway_otel_spans_exported_total";
        header(text, name, "counter", "Spans that the collector took");
        let _ = writeln!(text, "{name} {}", self.counts.exported.load(Relaxed));
        let name = "stoa_otel_spans_dropped_total";
        header(text, name, "counter", "Spans that the collector never got, by reason");
        for (reason, counter) in [
            ("queue_full", &self.counts.queue_full),
            ("export_failed", &self.counts.export_failed),
            ("rejected", &self.counts.rejected),
        ] {
            let _ = writeln!(text, "{name}{{reason=\"{reason}\"}} {}", counter.load(Relaxed));
        }
    }
}

/// The conversion saturates.
fn threshold(sample_rate: f64) -> u64 {
    (sample_rate.clamp(0.0, 1.0) * (1_u64 << 63) as f64) as u64
}

#[cfg(test)]
mod tests;
