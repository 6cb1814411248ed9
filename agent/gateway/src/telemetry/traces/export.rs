//! Sends spans to a collector: batches, one at a time, tried again while that may help.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use http::{Uri, uri::PathAndQuery};
use hyper_rustls::HttpsConnector;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use opentelemetry_proto::tonic::{
    collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse},
    common::v1::InstrumentationScope,
    resource::v1::Resource,
    trace::v1::{ResourceSpans, ScopeSpans, Span as Otlp},
};
use rustls::ClientConfig;
use tokio::{sync::mpsc, time::timeout};
use tonic::{Code, Status, client::Grpc};
use tonic_prost::ProstCodec;

use super::{
    Counts,
    span::{Attribute, Span, key_values},
};

const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
/// Of requests: each may have spans of its steps beside.
const LARGEST_BATCH: usize = 512;
const BATCH_WITHIN: Duration = Duration::from_secs(5);
const ANSWERED_WITHIN: Duration = Duration::from_secs(10);
const CONNECT_WITHIN: Duration = Duration::from_secs(3);
/// What the specification of OTLP calls retryable is tried again after each of these.
const AGAIN_AFTER: [Duration; 3] =
    [Duration::from_millis(500), Duration::from_secs(2), Duration::from_secs(5)];
/// A collector that is away is said so once in this time.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);

type Service = Client<HttpsConnector<HttpConnector>, tonic::body::Body>;

pub(super) struct Exporter {
    service: Grpc<Service>,
    endpoint: Uri,
    resource: Resource,
    counts: Arc<Counts>,
    complained: Option<Instant>,
}

impl Exporter {
    pub(super) fn new(
        endpoint: Uri,
        mode: &'static str,
        mut tls: ClientConfig,
        counts: Arc<Counts>,
    ) -> Self {
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_connect_timeout(Some(CONNECT_WITHIN));
        connector.set_nodelay(true);
        tls.alpn_protocols = vec![b"h2".to_vec()];
        let client = Client::builder(TokioExecutor::new())
            .http2_only(true)
            .pool_timer(TokioTimer::new())
            .build(HttpsConnector::from((connector, tls)));
        let mut attributes = vec![
            ("service.name", Attribute::Fixed("stoa-gateway")),
            ("service.version", Attribute::Fixed(env!("CARGO_PKG_VERSION"))),
            ("stoa.deployment_mode", Attribute::Fixed(mode)),
        ];
        if let Some(node) = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok())
        {
            attributes.push(("host.name", Attribute::Text(node.into())));
        }
        Self {
            service: Grpc::with_origin(client, endpoint.clone()),
            endpoint,
            resource: Resource { attributes: key_values(attributes), ..Resource::default() },
            counts,
            complained: None,
        }
    }

    /// Until the last span.
    pub(super) async fn run(mut self, mut spans: mpsc::Receiver<Span>) {
        let mut is_over = false;
        while !is_over {
            let mut batch = Vec::new();
            let Some(first) = spans.recv().await else { return };
            is_over = first.is_last();
            batch.push(first);
            let deadline = tokio::time::Instant::now() + BATCH_WITHIN;
            while !is_over && batch.len() < LARGEST_BATCH {
                match tokio::time::timeout_at(deadline, spans.recv()).await {
                    Ok(Some(span)) => {
                        is_over = span.is_last();
                        batch.push(span);
                    }
                    Ok(None) | Err(_) => break,
                }
            }
            batch.retain(|span| !span.is_last());
            if !batch.is_empty() {
                self.export(batch).await;
            }
        }
    }

    async fn export(&mut self, batch: Vec<Span>) {
        let mut spans = Vec::with_capacity(batch.len());
        batch.into_iter().for_each(|span| span.into_otlp(&mut spans));
        let count = spans.len() as u64;
        let request = self.request(spans);
        let mut waits = AGAIN_AFTER.iter();
        let failure = loop {
            let status = match self.send(request.clone()).await {
                Ok(response) => {
                    let rejected = response.partial_success.map_or(0, |partial| {
                        u64::try_from(partial.rejected_spans).unwrap_or(0).min(count)
                    });
                    self.counts.exported.fetch_add(count - rejected, Relaxed);
                    self.counts.rejected.fetch_add(rejected, Relaxed);
                    return;
                }
                Err(status) => status,
            };
            match waits.next() {
                Some(wait) if is_worth_another_try(status.code()) => {
                    tokio::time::sleep(*wait).await;
                }
                _ => break status,
            }
        };
        self.counts.export_failed.fetch_add(count, Relaxed);
        if self.complained.is_none_or(|at| at.elapsed() >= COMPLAIN_EVERY) {
            self.complained = Some(Instant::now());
            tracing::warn!(
                endpoint = %self.endpoint,
                spans = count,
                code = ?failure.code(),
                reason = failure.message(),
                "spans could not be sent and are dropped; is STOA_OTEL_ENDPOINT a collector's \
                 OTLP port for gRPC, mostly 4317?"
            );
        }
    }

    async fn send(
        &mut self,
        request: ExportTraceServiceRequest,
    ) -> Result<ExportTraceServiceResponse, Status> {
        let exchange = async {
            self.service.ready().await.map_err(|e| Status::unavailable(e.to_string()))?;
            let codec = ProstCodec::default();
            let path = PathAndQuery::from_static(EXPORT);
            self.service.unary(tonic::Request::new(request), path, codec).await
        };
        match timeout(ANSWERED_WITHIN, exchange).await {
            Ok(answered) => answered.map(tonic::Response::into_inner),
            Err(_) => Err(Status::deadline_exceeded("no answer in time")),
        }
    }

    fn request(&self, spans: Vec<Otlp>) -> ExportTraceServiceRequest {
        let scope = InstrumentationScope {
            name: "stoa-gateway".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..InstrumentationScope::default()
        };
        ExportTraceServiceRequest {
            resource_spans: vec![ResourceSpans {
                resource: Some(self.resource.clone()),
                scope_spans: vec![ScopeSpans {
                    scope: Some(scope),
                    spans,
                    ..ScopeSpans::default()
                }],
                ..ResourceSpans::default()
            }],
        }
    }
}

/// OTLP, "Failures": of the others it is known that they fail again.
fn is_worth_another_try(code: Code) -> bool {
    matches!(
        code,
        Code::Cancelled
            | Code::DeadlineExceeded
            | Code::Aborted
            | Code::OutOfRange
            | Code::Unavailable
            | Code::DataLoss
            // A connection that failed is told as this.
            | Code::Unknown
    )
}
