//! Changes a request as its route says and sends it on, or answers with a redirect.

use std::{rc::Rc, sync::Arc};

use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use stoa_policy::decision::Decision;
use tokio::time::Instant;

use super::{Plan, attempts::Attempts, observing};
use crate::{
    catalog::routes::{Action, Backend, Changes, PathRewrite, Redirect, Rewrite, Timeouts},
    http::problem::Problem,
    proxy::{
        View, Worker,
        body::Body,
        connection::Origin,
        error::UpstreamError,
        forwarding::{self, X_REQUEST_ID, X_STOA_TRACE_ID, X_TENANT_ID},
        http1::client::Interim,
        request::{Answer, Record, Request},
        target::Target,
        timer::Timer,
        transform,
    },
};

impl Worker {
    #[allow(clippy::too_many_arguments)]
    pub(super) async fn act(
        self: &Rc<Self>,
        view: &Rc<View>,
        plan: &Plan,
        origin: &Origin,
        mut request: Request,
        decision: Option<&Decision>,
        mut record: Record,
        timer: &mut Timer,
        interim: &mut Interim<'_>,
    ) -> Answer {
        let route = plan.route.as_deref();
        if let Some(Action::Redirect(redirect)) = route.map(|route| &route.action) {
            return redirect_to(redirect, plan.prefix, origin, &request, record);
        }
        if request.upgrade.is_some() {
            let is_websocket = request.upgrade.as_ref().is_some_and(is_websocket);
            if is_websocket && !self.shared.settings.websocket_passthrough {
                record.code = Some("websocket_off");
                let detail = "WebSocket connections are not passed on here; \
                              STOA_WEBSOCKET_PASSTHROUGH=true lets them pass";
                return self.deny(Problem::new(StatusCode::FORBIDDEN, detail), record);
            }
            // Any other protocol is not ours to switch to; the request stands without it
            // (RFC 9110 section 7.8).
            let is_passed_on = match origin.is_unseen() {
                true => request.upgrade.as_ref().is_some_and(forwarding::leads_away_from_http),
                false => is_websocket && request.method == Method::GET,
            };
            if !is_passed_on {
                request.upgrade = None;
            }
        }
        if !origin.is_unseen() {
            forwarding::add_forwarding_fields(&mut request, origin);
        }
        let mut identifiers = None;
        if self.shared.settings.inject_headers {
            let tenant = record.tenant.as_ref().unwrap_or(&plan.tenant);
            let value = match route {
                Some(route) if Arc::ptr_eq(tenant, &route.tenant) => route.tenant_header.clone(),
                _ => HeaderValue::from_str(tenant).unwrap_or(HeaderValue::from_static("")),
            };
            request.headers.insert(X_TENANT_ID, value);
            let trace = record.trace.as_deref();
            let made = forwarding::add_identifiers(&mut request.headers, &self.random, trace);
            record.request_id = Some(made.request_id.clone());
            identifiers = Some(made);
        } else if let Some(trace) = &record.trace {
            forwarding::add_trace(&mut request.headers, trace);
        }
        if let Some(decision) = decision {
            for name in &decision.headers_to_remove {
                request.headers.remove(name);
            }
            for (name, value) in &decision.headers_to_set {
                request.headers.insert(name.clone(), value.clone());
            }
        }
        if let Some(route) = route {
            apply_changes(&mut request.headers, &route.request);
            rewrite(&mut request, &route.rewrite, plan.prefix);
            let settings = &self.shared.settings;
            if settings.transform_request
                && let Some(change) = &route.request.body
            {
                let within = settings.request_body;
                if let Err(error) = transform::request(&mut request, change, within, timer).await {
                    record.code = Some(error.code());
                    return self.deny(error.problem(), record);
                }
            }
            if settings.transform_response && route.response.body.is_some() {
                // What is to be changed must be readable.
                request.headers.remove(header::ACCEPT_ENCODING);
            }
            if !route.mirrors.is_empty()
                && let Err(unreadable) = self.mirror(view, route, origin, &mut request, timer).await
            {
                record.code = Some(unreadable.code());
                return self.deny(unreadable.problem(), record);
            }
        }
        let Some(pool) = plan.pool.clone() else {
            let error = UpstreamError::NoBackend;
            return self.fail(&error, record);
        };
        record.upstream = Some(Arc::clone(&pool.upstream.name));
        let timeouts = match (route, &origin.fixed) {
            (Some(route), _) => route.timeouts,
            (None, Some(fixed)) => fixed.timeouts,
            (None, None) => Timeouts::default(),
        };
        let retries = route.and_then(|route| route.retries.as_ref());
        let attempt =
            Attempts { pool: &pool, breaker: plan.breaker.as_ref(), origin, timeouts, retries };
        let is_timed = record.trace.is_some() || record.metered.is_some();
        let asked = is_timed.then(Instant::now);
        let answered = attempt.send(self, request, &mut record, timer, interim).await;
        if let Some(asked) = asked {
            observing::add_call(&mut record, asked, &answered);
        }
        match answered {
            Ok(mut answered) => {
                forwarding::strip_connection_fields(&mut answered.headers);
                answered.headers.remove(header::CONTENT_LENGTH);
                if answered.tunnel.is_none() && !origin.is_unseen() {
                    forwarding::add_via(&mut answered.headers, answered.version);
                }
                if let Some(identifiers) = identifiers {
                    answered.headers.insert(X_REQUEST_ID, identifiers.request_id);
                    answered.headers.insert(X_STOA_TRACE_ID, identifiers.trace_id);
                }
                if let Some(length) = answered.declared_length {
                    answered.headers.insert(header::CONTENT_LENGTH, length);
                }
                if let Some(tunnel) = &mut answered.tunnel
                    && answered.upgrade.as_ref().is_some_and(is_websocket)
                {
                    tunnel.messages = self.shared.settings.websocket_messages;
                }
                if let Some(protocol) = answered.upgrade {
                    answered.headers.insert(header::UPGRADE, protocol);
                }
                Answer {
                    status: answered.status,
                    headers: answered.headers,
                    body: answered.body,
                    tunnel: answered.tunnel,
                    record,
                }
            }
            Err(error) => {
                let mut answer = self.fail(&error, record);
                if let Some(identifiers) = identifiers {
                    answer.headers.insert(X_REQUEST_ID, identifiers.request_id);
                    answer.headers.insert(X_STOA_TRACE_ID, identifiers.trace_id);
                }
                answer
            }
        }
    }

    pub(super) fn fail(&self, error: &UpstreamError, mut record: Record) -> Answer {
        tracing::debug!(%error, upstream = record.upstream.as_deref(), "no answer of an upstream");
        record.code = Some(error.code());
        let problem = Problem::new(error.status(), error.detail()).with("code", error.code());
        let mut answer = self.deny(problem, record);
        if let UpstreamError::CircuitOpen(rejected) = error {
            answer.headers.insert(header::RETRY_AFTER, HeaderValue::from(rejected.seconds()));
        }
        answer
    }

    pub(super) fn choose_backend(&self, backends: &[Backend]) -> Option<usize> {
        if let [only] = backends {
            return (only.weight > 0).then_some(only.upstream);
        }
        let sum: u64 = backends.iter().map(|b| u64::from(b.weight)).sum();
        let mut at = self.random.below(sum);
        backends
            .iter()
            .find(|backend| {
                let weight = u64::from(backend.weight);
                let is_here = at < weight;
                at = at.saturating_sub(weight);
                is_here
            })
            .map(|backend| backend.upstream)
    }
}

pub(super) fn apply_changes(headers: &mut HeaderMap, changes: &Changes) {
    for name in &changes.remove {
        headers.remove(name);
    }
    for (name, value) in &changes.set {
        headers.insert(name.clone(), value.clone());
    }
    for (name, value) in &changes.add {
        headers.append(name.clone(), value.clone());
    }
}

fn rewrite(request: &mut Request, rewrite: &Rewrite, prefix: usize) {
    if let Some(host) = &rewrite.host {
        request.authority = host.clone();
    }
    if let Some(path) = rewritten_path(&rewrite.path, &request.target, prefix) {
        request.target = request.target.with_path(&path);
    }
}

fn rewritten_path(rewrite: &PathRewrite, target: &Target, prefix: usize) -> Option<String> {
    match rewrite {
        PathRewrite::Keep => None,
        PathRewrite::Whole(path) => Some(path.clone()),
        PathRewrite::Prefix(instead) => {
            let rest = target.path().get(prefix..).unwrap_or_default();
            let joined = match rest.strip_prefix('/') {
                Some(rest) => format!("{}/{rest}", instead.trim_end_matches('/')),
                None => instead.clone(),
            };
            Some(joined)
        }
    }
}

fn redirect_to(
    redirect: &Redirect,
    prefix: usize,
    origin: &Origin,
    request: &Request,
    mut record: Record,
) -> Answer {
    record.code = Some("redirect");
    let scheme = redirect.scheme.as_deref().unwrap_or(origin.scheme());
    let host = redirect.host.as_deref().unwrap_or(&request.host);
    // Gateway API: the port given; else the well-known one of a scheme given; else the listener's.
    let port = redirect.port.or(match &redirect.scheme {
        Some(_) => None,
        None => request.authority.to_str().ok().and_then(|authority| {
            authority.rsplit_once(':').and_then(|(_, port)| port.parse().ok())
        }),
    });
    let port = match (scheme, port) {
        ("http", Some(80)) | ("https", Some(443)) | (_, None) => String::new(),
        (_, Some(port)) => format!(":{port}"),
    };
    let target = match rewritten_path(&redirect.path, &request.target, prefix) {
        Some(path) => request.target.with_path(&path),
        None => request.target.clone(),
    };
    let location = format!("{scheme}://{host}{port}{}", target.as_str());
    let mut headers = HeaderMap::new();
    if let Ok(location) = HeaderValue::from_str(&location) {
        headers.insert(header::LOCATION, location);
    }
    Answer { status: redirect.status, headers, body: Body::Empty, tunnel: None, record }
}

fn is_websocket(protocol: &HeaderValue) -> bool {
    protocol.as_bytes().eq_ignore_ascii_case(b"websocket")
}
