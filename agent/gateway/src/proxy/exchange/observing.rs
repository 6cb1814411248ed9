//! What is remembered of an exchange while it lasts, for those who are told of it afterwards.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version};
use stoa_policy::{
    decision::{Decision, Identity},
    rego::action_of,
};
use tokio::time::Instant;

use super::attempts::Answered;
use crate::{
    proxy::{
        Worker,
        body::Body,
        connection::Origin,
        error::UpstreamError,
        excerpt::Excerpt,
        forwarding,
        http1::length::Length,
        request::{Answer, Record, Request, fields_of},
    },
    telemetry::{
        metering::{
            Metering,
            event::{Event, Outcome},
        },
        snapshots::{Category, Failure},
        traces::{Active, Attribute, Kind, Span, Step, known_method},
    },
};

/// Of one exchange, if snapshots are taken. It goes with the exchange, unless that fails.
#[derive(Clone, Debug)]
pub struct Draft {
    path: String,
    sent: Sent,
    request_body: Excerpt,
    response_headers: HeaderMap,
    response_body: Excerpt,
}

/// The fields of a request as they came. Most requests do not fail, so they are copied only where
/// the head itself is not at hand.
#[derive(Clone, Debug)]
enum Sent {
    Text(Bytes),
    Fields(HeaderMap),
}

impl Sent {
    fn fields(&self) -> HeaderMap {
        match self {
            Self::Text(text) => fields_of(text),
            Self::Fields(fields) => fields.clone(),
        }
    }
}

/// Of one request, if requests are metered.
#[derive(Clone, Debug)]
pub struct Metered {
    pub(super) identity: Option<Arc<Identity>>,
    is_outbound: bool,
    request: Size,
    /// When the upstream was asked, after the request had come, and how long its answer took.
    call: Option<(Duration, Duration)>,
    given_name: Option<HeaderValue>,
}

#[derive(Clone, Debug)]
enum Size {
    Announced(u64),
    /// Of a body whose end only tells.
    Passing(Excerpt),
}

impl Metered {
    fn begin(origin: &Origin, request: &mut Request) -> Self {
        let size = match request.body.length() {
            Length::Exact(length) => Size::Announced(length),
            _ => {
                let passing = Excerpt::up_to(0);
                let body = Box::new(std::mem::take(&mut request.body));
                request.body = Body::Copied(passing.clone(), body);
                Size::Passing(passing)
            }
        };
        Self {
            identity: None,
            is_outbound: origin.fixed.as_ref().is_some_and(|fixed| fixed.is_outgoing),
            request: size,
            call: None,
            given_name: forwarding::given_name(&request.headers).cloned(),
        }
    }
}

impl Worker {
    pub(super) fn begin_observing(
        &self,
        origin: &Origin,
        request: &mut Request,
        record: &mut Record,
    ) {
        if let Some(tracer) = &self.shared.telemetry.tracer {
            let mut trace = tracer.begin(&request.headers, || self.random.next());
            trace.scheme = origin.scheme();
            trace.version = version_of(request.version);
            if origin.fixed.as_ref().is_some_and(|fixed| fixed.is_outgoing) {
                trace.kind = Kind::Client;
                trace.server = origin.destination;
            }
            record.trace = Some(Box::new(trace));
        }
        if self.shared.telemetry.metering.is_some() {
            record.metered = Some(Box::new(Metered::begin(origin, request)));
        }
        if let Some(snapshots) = &self.shared.telemetry.snapshots {
            record.draft = Some(Box::new(Draft {
                path: request.target.path().to_owned(),
                sent: match &request.text {
                    Some(text) => Sent::Text(text.clone()),
                    None => Sent::Fields(request.headers.clone()),
                },
                request_body: copy(&mut request.body, snapshots.body_bytes()),
                response_headers: HeaderMap::new(),
                response_body: Excerpt::default(),
            }));
        }
    }

    /// Before the answer goes.
    pub(in crate::proxy) fn observe_answer(&self, answer: &mut Answer) {
        if !answer.status.is_server_error() {
            answer.record.draft = None;
        }
        if let (Some(draft), Some(snapshots)) =
            (&mut answer.record.draft, &self.shared.telemetry.snapshots)
        {
            draft.response_headers = answer.headers.clone();
            // HEAD has none, and its upstream's connection is given back by what the body is.
            if answer.record.method != Method::HEAD {
                draft.response_body = copy(&mut answer.body, snapshots.body_bytes());
            }
        }
    }

    pub(super) fn add_policies(&self, record: &mut Record, asked: Instant, decision: &Decision) {
        let after = asked - record.started;
        if let Some(trace) = &mut record.trace {
            trace.add_policies(after, decision, || self.random.next());
        }
    }

    /// Of an answer that has gone.
    pub(in crate::proxy) fn tell(
        &self,
        record: &Record,
        status: StatusCode,
        bytes: u64,
        took: Duration,
        is_whole: bool,
    ) {
        let mut event = None;
        if let (Some(metered), Some(metering)) = (&record.metered, &self.shared.telemetry.metering)
        {
            let made = self.event_of(metering, record, metered, status, bytes, took, is_whole);
            // Of a failure there may be a snapshot, which wants it too.
            event = record.draft.is_some().then(|| Box::new(made.clone()));
            metering.tell(made);
        }
        if let (Some(trace), Some(tracer)) = (&record.trace, &self.shared.telemetry.tracer)
            && trace.context.is_sampled
        {
            tracer.end(span_of(record, trace, status, took, is_whole));
        }
        if let (Some(draft), Some(snapshots)) = (&record.draft, &self.shared.telemetry.snapshots)
            && status.is_server_error()
        {
            let request_headers = draft.sent.fields();
            snapshots.offer(Failure {
                request_id: self.name_of(record, &request_headers),
                method: record.method.to_string(),
                path: draft.path.clone(),
                status: status.as_u16(),
                category: Category::of(status.as_u16(), record.policy, record.code),
                took,
                request_headers,
                request_body: draft.request_body.beginning(),
                response_headers: draft.response_headers.clone(),
                response_body: draft.response_body.beginning(),
                route: record.route.clone(),
                tenant: record.tenant.clone(),
                upstream: record.upstream.clone(),
                code: record.code,
                event,
            });
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn event_of(
        &self,
        metering: &Metering,
        record: &Record,
        metered: &Metered,
        status: StatusCode,
        bytes: u64,
        took: Duration,
        is_whole: bool,
    ) -> Event {
        let (gateway, backend) = metered.call.unwrap_or((took, Duration::ZERO));
        Event {
            name: metering.name(|| self.random.next()),
            at: SystemTime::now(),
            // Who is known counts, also where no policy compares.
            tenant: Arc::clone(
                (metered.identity.as_ref().and_then(|who| who.tenant.as_ref()))
                    .or(record.tenant.as_ref())
                    .unwrap_or(metering.tenant()),
            ),
            identity: metered.identity.clone(),
            shows_email: metering.shows_email(),
            tool: record.route.clone(),
            is_outbound: metered.is_outbound,
            action: action_of(&record.method),
            status,
            outcome: Outcome::of(status, record.policy, is_whole),
            latency: took,
            gateway,
            backend: Some(backend),
            request_bytes: Some(match &metered.request {
                Size::Announced(length) => *length,
                Size::Passing(passing) => passing.seen(),
            }),
            response_bytes: Some(bytes),
            request_id: record.request_id.as_ref().or(metered.given_name.as_ref()).cloned(),
        }
    }

    /// A request that was refused early has been given no name yet, unless by its client.
    fn name_of(&self, record: &Record, sent: &HeaderMap) -> String {
        let name = record.request_id.as_ref().and_then(|name| name.to_str().ok());
        name.map_or_else(|| forwarding::name_of(sent, &self.random), str::to_owned)
    }
}

/// The call of the upstream, with what was tried again.
pub(super) fn add_call(
    record: &mut Record,
    asked: Instant,
    answered: &Result<Answered, UpstreamError>,
) {
    let after = asked - record.started;
    let took = asked.elapsed();
    if let Some(metered) = &mut record.metered {
        metered.call = Some((after, took));
    }
    let Some(trace) = record.trace.as_mut().filter(|trace| trace.has_steps()) else { return };
    let mut attributes = vec![("http.request.method", known_method(&record.method))];
    if let Some(upstream) = &record.upstream {
        attributes.push(("stoa.upstream", Attribute::Text(upstream.clone())));
    }
    if record.retries > 0 {
        attributes.push(("http.request.resend_count", Attribute::Number(record.retries.into())));
    }
    let is_error = match answered {
        Ok(answered) => {
            let status = answered.status.as_u16().into();
            attributes.push(("http.response.status_code", Attribute::Number(status)));
            // Of a client's span, by the conventions.
            answered.status.as_u16() >= 400
        }
        Err(error) => {
            attributes.push(("error.type", Attribute::Fixed(error.code())));
            true
        }
    };
    let id = trace.call;
    let (name, kind) = ("upstream.call", Kind::Client);
    trace.steps.push(Step { id, name, kind, after, took, attributes, is_error });
}

fn span_of(
    record: &Record,
    trace: &Active,
    status: StatusCode,
    took: Duration,
    is_whole: bool,
) -> Span {
    let mut attributes = vec![
        ("http.request.method", known_method(&record.method)),
        ("http.response.status_code", Attribute::Number(status.as_u16().into())),
        ("url.scheme", Attribute::Fixed(trace.scheme)),
        ("network.protocol.version", Attribute::Fixed(trace.version)),
    ];
    for (name, value) in [
        ("http.route", trace.route.as_ref()),
        ("stoa.route", record.route.as_ref()),
        ("stoa.tenant", record.tenant.as_ref()),
        ("stoa.upstream", record.upstream.as_ref()),
    ] {
        if let Some(value) = value {
            attributes.push((name, Attribute::Text(value.clone())));
        }
    }
    if let Some(policy) = record.policy {
        attributes.push(("stoa.policy.name", Attribute::Fixed(policy)));
    }
    if record.retries > 0 {
        attributes.push(("http.request.resend_count", Attribute::Number(record.retries.into())));
    }
    if let Some(server) = trace.server {
        let address = server.ip().to_canonical().to_string();
        attributes.push(("server.address", Attribute::Text(address.into())));
        attributes.push(("server.port", Attribute::Number(server.port().into())));
    }
    // What the client did wrong is no failure of a server's span, and is one of a client's.
    let has_failed =
        status.is_server_error() || (trace.kind == Kind::Client && status.is_client_error());
    let is_error = has_failed || !is_whole;
    if is_error {
        let kind = match record.code {
            Some(code) => Attribute::Fixed(code),
            None if !is_whole => Attribute::Fixed("cut_off"),
            None => Attribute::Text(status.as_str().into()),
        };
        attributes.push(("error.type", kind));
    }
    let method = match known_method(&record.method) {
        Attribute::Fixed(method) if method != "_OTHER" => method,
        // By the conventions, in a name.
        _ => "HTTP",
    };
    let name = match &trace.route {
        Some(route) => format!("{method} {route}").into(),
        None => method.into(),
    };
    let ended = SystemTime::now();
    let (context, kind, steps) = (trace.context, trace.kind, trace.steps.clone());
    Span { context, kind, name, ended, took, attributes, is_error, steps }
}

fn version_of(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "1.0",
        Version::HTTP_2 => "2",
        _ => "1.1",
    }
}

/// Has the body's beginning copied as it passes.
fn copy(body: &mut Body, most: usize) -> Excerpt {
    let excerpt = Excerpt::up_to(most);
    match body {
        Body::Full(bytes) => {
            excerpt.see(bytes);
            excerpt.end();
        }
        _ if most == 0 || body.is_empty() => excerpt.end(),
        _ => *body = Body::Copied(excerpt.clone(), Box::new(std::mem::take(body))),
    }
    excerpt
}
