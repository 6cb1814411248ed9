//! From a request to its answer: route, policies, changes, upstream.

use std::{cell::Cell, rc::Rc, sync::Arc, task::Context, time::Duration};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, Version, header,
    uri::{Authority, PathAndQuery, Scheme},
};
use stoa_policy::{
    context::{Body as Read, RequestContext, ResponseContext},
    contract::OperationId,
    decision::{Decision, Denial},
    engine::{BodyNeed, SetId},
};
use tokio::time::Instant;

use super::{
    View, Worker,
    body::Body,
    connection::Origin,
    error::UpstreamError,
    forwarding::{self, X_REQUEST_ID, X_STOA_TRACE_ID, X_TENANT_ID},
    http1::{
        client::{Exchange, Failed, Interim, Sent, is_idempotent},
        length::Length,
    },
    http2,
    pool::{Channel, EndpointPool, Pool},
    request::{Answer, Record, Request},
    target::Target,
    timer::Timer,
    transform,
    tunnel::Tunnel,
};
use crate::{
    catalog::routes::{
        Action, Asked, Backend, Changes, PathRewrite, Redirect, Rewrite, Route, Timeouts,
    },
    http::problem::Problem,
};

/// A body that must be known whole to be sent twice is kept up to this size.
const MOST_MIRRORED: usize = 256 << 10;
const MOST_MIRRORS_UNDER_WAY: usize = 64;
const MIRROR_WITHIN: Duration = Duration::from_secs(30);

/// For an upstream to send a body that policies look at.
const RESPONSE_WITHIN: Duration = Duration::from_secs(30);
/// Fields that say something of a body that was replaced.
const OF_ANOTHER_BODY: [HeaderName; 7] = [
    header::CONTENT_LENGTH,
    header::ETAG,
    header::ACCEPT_RANGES,
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("content-md5"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("repr-digest"),
];

/// What the route decides, or the destination of a redirected connection.
struct Plan {
    route: Option<Arc<Route>>,
    prefix: usize,
    tenant: Arc<str>,
    policies: Policies,
    /// `None` for a redirect, or where no backend has a weight.
    pool: Option<Rc<Pool>>,
}

#[derive(Clone, Copy)]
enum Policies {
    None,
    Set(SetId),
    /// Configured, but not in the configuration in force.
    Missing,
}

impl Worker {
    /// Never fails: what goes wrong is the answer.
    pub async fn answer(
        self: &Rc<Self>,
        view: Rc<View>,
        origin: &Origin,
        mut request: Request,
        started: Instant,
        timer: &mut Timer,
        interim: &mut Interim<'_>,
    ) -> Answer {
        let mut record = Record::new(started, &request.method);
        if self.shared.access_log.is_enabled() {
            request.target.path().clone_into(&mut record.path);
        }
        if request.method == Method::CONNECT {
            let problem = Problem::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "this gateway makes no tunnels for CONNECT",
            );
            return Answer::of_problem(problem, record);
        }
        let plan = match self.plan(&view, origin, &request) {
            Ok(plan) => plan,
            Err(own) => return answer_own(own, record),
        };
        if let Some(route) = &plan.route {
            record.route = Some((Arc::clone(&route.name), route.index));
        }
        record.tenant = Some(Arc::clone(&plan.tenant));

        let mut response_headers = Vec::new();
        let mut decision = None;
        match plan.policies {
            Policies::None => {}
            Policies::Missing => {
                record.code = Some("policies_missing");
                let detail = "the policies of this workload are not in the configuration";
                return self.deny(Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail), record);
            }
            Policies::Set(set) => {
                let (mut made, given_back) =
                    match self.decide(&view, set, &plan, origin, request).await {
                        Ok(decided) => decided,
                        Err(problem) => return self.deny(problem, record),
                    };
                request = given_back;
                record.identity = made.identity.as_ref().map(|i| Arc::clone(&i.subject));
                if let Some(tenant) = &made.tenant {
                    record.tenant = Some(Arc::clone(tenant));
                }
                response_headers = made.response_headers.drain(..).collect();
                let refused = match made.denial.take() {
                    Some(denial) => {
                        record.code = Some(denial.code);
                        record.policy = Some(denial.policy.name());
                        Err(problem_of(denial))
                    }
                    None => self.oblige(&mut request, &mut made),
                };
                if let Err(problem) = refused {
                    let mut answer = self.deny(problem, record);
                    answer.headers.extend(response_headers);
                    return answer;
                }
                decision = Some((set, made));
            }
        }
        let changes = plan.route.as_ref().map(|route| &route.response);
        let method = request.method.clone();
        let made = decision.as_ref().map(|(_, made)| made);
        let mut answer =
            self.act(&view, &plan, origin, request, made, record, timer, interim).await;
        if let Some((set, made)) = &decision
            && (made.obligations.mask_response || made.obligations.validate_response)
            && answer.record.code.is_none()
            && answer.tunnel.is_none()
        {
            answer = self.check_response(&view, *set, made.operation, &method, answer, timer).await;
        }
        if let Some(changes) = changes {
            apply_changes(&mut answer.headers, changes);
            if self.shared.settings.transform_response
                && let Some(change) = &changes.body
            {
                answer = transform::response(answer, change, timer).await;
            }
        }
        for (name, value) in response_headers {
            answer.headers.insert(name, value);
        }
        answer
    }

    fn plan(&self, view: &View, origin: &Origin, request: &Request) -> Result<Plan, Own> {
        if let Some(fixed) = &origin.fixed {
            let policies = match fixed.policies.as_deref() {
                None => Policies::None,
                Some(_) if fixed.overseer.is_exempt(request) => Policies::None,
                Some(name) => {
                    view.catalog.engine.find(name).map_or(Policies::Missing, Policies::Set)
                }
            };
            return Ok(Plan {
                route: None,
                prefix: 0,
                tenant: Arc::clone(&fixed.tenant),
                policies,
                pool: Some(Rc::clone(&fixed.pool)),
            });
        }
        let routes = &view.catalog.routes;
        let asked = Asked {
            host: &request.host,
            path: request.target.path(),
            query: request.target.query(),
            method: &request.method,
            headers: &request.headers,
        };
        let (route, prefix) = match routes.find(&asked) {
            Some(chosen) => (chosen.route, chosen.prefix),
            None => {
                if asked.path == "*" {
                    return Err(Own::Server);
                }
                if let Some(own) = (self.shared.own_answers)(asked.path) {
                    return Err(Own::Answer(Box::new(own)));
                }
                match &routes.fallback {
                    Some(fallback) => (fallback, 0),
                    None => return Err(Own::NoRoute),
                }
            }
        };
        let pool = match &route.action {
            Action::Forward(backends) => {
                self.choose_backend(backends).and_then(|i| view.pools.get(i)).cloned()
            }
            Action::Redirect(_) => None,
        };
        Ok(Plan {
            pool,
            tenant: Arc::clone(&route.tenant),
            policies: route.policies.map_or(Policies::None, Policies::Set),
            route: Some(Arc::clone(route)),
            prefix,
        })
    }

    /// Asks the engine, with the body if it needs that.
    async fn decide(
        &self,
        view: &View,
        set: SetId,
        plan: &Plan,
        origin: &Origin,
        mut request: Request,
    ) -> Result<(Decision, Request), Problem> {
        let engine = &view.catalog.engine;
        let mut body = std::mem::take(&mut request.body);
        let need = engine.body_need(set, &context(plan, origin, &request, Read::Unread));
        let mut whole = None;
        let mut is_longer = false;
        if let BodyNeed::UpTo(most) = need
            && !body.is_empty()
        {
            match body.collect_up_to(most).await {
                Ok(Ok(bytes)) => {
                    body = Body::full(bytes.clone());
                    whole = Some(bytes);
                }
                Ok(Err(longer)) => {
                    body = longer;
                    is_longer = true;
                }
                Err(error) => {
                    return Err(Problem::new(StatusCode::BAD_REQUEST, error.to_string()));
                }
            }
        } else if matches!(need, BodyNeed::UpTo(_)) {
            whole = Some(Bytes::new());
        }
        let read = match &whole {
            Some(bytes) => Read::Whole(bytes),
            None if is_longer => Read::Longer,
            None => Read::Unread,
        };
        let decision = engine.decide(set, &context(plan, origin, &request, read)).await;
        request.body = body;
        Ok((decision, request))
    }

    /// Does what the policies oblige to before the request goes on.
    fn oblige(&self, request: &mut Request, decision: &mut Decision) -> Result<(), Problem> {
        if !decision.query_to_remove.is_empty() {
            request.target = request.target.without_parameters(&decision.query_to_remove);
        }
        if let Some(masked) = decision.masked_body.take() {
            request.body = Body::full(masked);
            for digest in OF_ANOTHER_BODY {
                request.headers.remove(digest);
            }
        }
        if let Some(most) = decision.obligations.request_body_limit {
            match request.body.length() {
                Length::Exact(length) if length > most => {
                    return Err(Problem::new(
                        StatusCode::PAYLOAD_TOO_LARGE,
                        format!("the body has {length} bytes, and at most {most} are allowed"),
                    ));
                }
                Length::Exact(_) => {}
                _ => {
                    let body = std::mem::take(&mut request.body);
                    request.body = Body::Limited(most, Box::new(body));
                }
            }
        }
        if decision.obligations.mask_response || decision.obligations.validate_response {
            // What is to be looked at must be readable.
            request.headers.remove(header::ACCEPT_ENCODING);
        }
        Ok(())
    }

    /// Lets the policies look at what the upstream answered.
    async fn check_response(
        &self,
        view: &View,
        set: SetId,
        operation: Option<OperationId>,
        method: &Method,
        mut answer: Answer,
        timer: &mut Timer,
    ) -> Answer {
        let engine = &view.catalog.engine;
        let need = engine.response_body_need(set, operation, answer.status, &answer.headers);
        let mut whole = None;
        let mut is_longer = false;
        if let BodyNeed::UpTo(most) = need {
            timer.set_after(Some(RESPONSE_WITHIN));
            let body = std::mem::take(&mut answer.body);
            match timer.bound(body.collect_up_to(most)).await {
                Ok(Ok(Ok(bytes))) => {
                    answer.body = Body::full(bytes.clone());
                    whole = Some(bytes);
                }
                Ok(Ok(Err(longer))) => {
                    answer.body = longer;
                    is_longer = true;
                }
                Ok(Err(_)) => return self.fail(&UpstreamError::Closed, answer.record),
                Err(_) => return self.fail(&UpstreamError::Timeout, answer.record),
            }
        }
        let body = match &whole {
            Some(bytes) => Read::Whole(bytes),
            None if is_longer => Read::Longer,
            None => Read::Unread,
        };
        let response =
            ResponseContext { method, status: answer.status, headers: &answer.headers, body };
        let checked = engine.check_response(set, operation, &response);
        if let Some(denial) = checked.denial {
            answer.record.code = Some(denial.code);
            answer.record.policy = Some(denial.policy.name());
            let problem = problem_of(denial);
            return self.deny(problem, answer.record);
        }
        if let Some(masked) = checked.masked_body {
            answer.body = Body::full(masked);
            for digest in OF_ANOTHER_BODY {
                answer.headers.remove(digest);
            }
        }
        answer
    }

    fn deny(&self, problem: Problem, record: Record) -> Answer {
        if let Some(code) = record.code {
            self.counters.failure(code);
        }
        Answer::of_problem(problem, record)
    }

    #[allow(clippy::too_many_arguments)]
    async fn act(
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
            let is_websocket = request
                .upgrade
                .as_ref()
                .is_some_and(|protocol| protocol.as_bytes().eq_ignore_ascii_case(b"websocket"));
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
            let made = forwarding::add_identifiers(&mut request.headers, &self.random);
            record.request_id = Some(made.request_id.clone());
            identifiers = Some(made);
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
                request = match transform::request(request, change).await {
                    Ok(request) => request,
                    Err(problem) => return self.deny(problem, record),
                };
            }
            if settings.transform_response && route.response.body.is_some() {
                // What is to be changed must be readable.
                request.headers.remove(header::ACCEPT_ENCODING);
            }
            if !route.mirrors.is_empty() {
                request = self.mirror(view, route, origin, request).await;
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
        let attempt = Attempts { pool: &pool, origin, timeouts, retries };
        match attempt.send(self, request, &mut record, timer, interim).await {
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

    fn fail(&self, error: &UpstreamError, mut record: Record) -> Answer {
        tracing::debug!(%error, upstream = record.upstream.as_deref(), "no answer of an upstream");
        record.code = Some(error.code());
        let problem = Problem::new(error.status(), error.detail()).with("code", error.code());
        self.deny(problem, record)
    }

    fn choose_backend(&self, backends: &[Backend]) -> Option<usize> {
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

    /// Sends copies elsewhere, whose answers nobody sees.
    async fn mirror(
        self: &Rc<Self>,
        view: &Rc<View>,
        route: &Route,
        origin: &Origin,
        mut request: Request,
    ) -> Request {
        let wanted: Vec<usize> = route
            .mirrors
            .iter()
            .filter(|mirror| self.random.happens(mirror.share))
            .map(|mirror| mirror.upstream)
            .collect();
        if wanted.is_empty() || request.upgrade.is_some() || request.expects_continue {
            return request;
        }
        let bytes = match std::mem::take(&mut request.body).collect_up_to(MOST_MIRRORED).await {
            Ok(Ok(bytes)) => bytes,
            Ok(Err(longer)) => {
                self.counters.mirrors_dropped.add(wanted.len() as u64);
                request.body = longer;
                return request;
            }
            // The request itself will fail the same way.
            Err(_) => {
                request.body = Body::Failed;
                return request;
            }
        };
        request.body = Body::full(bytes.clone());
        for upstream in wanted {
            let Some(pool) = view.pools.get(upstream).cloned() else { continue };
            let under_way = self.mirrors_under_way.get();
            if under_way >= MOST_MIRRORS_UNDER_WAY {
                self.counters.mirrors_dropped.add(1);
                continue;
            }
            self.mirrors_under_way.set(under_way + 1);
            self.counters.mirrored.add(1);
            let copy = Request {
                method: request.method.clone(),
                target: request.target.clone(),
                authority: request.authority.clone(),
                host: request.host.clone(),
                version: request.version,
                headers: request.headers.clone(),
                body: Body::full(bytes.clone()),
                expects_continue: false,
                upgrade: None,
                wants_trailers: false,
            };
            let worker = Rc::clone(self);
            let source = Origin::new(origin.source, origin.local, origin.door);
            tokio::task::spawn_local(async move {
                let counted = Counted(&worker.mirrors_under_way);
                let _ =
                    tokio::time::timeout(MIRROR_WITHIN, send_copy(&worker, &pool, &source, copy))
                        .await;
                drop(counted);
            });
        }
        request
    }
}

struct Counted<'a>(&'a Cell<usize>);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

async fn send_copy(worker: &Rc<Worker>, pool: &Rc<Pool>, origin: &Origin, request: Request) {
    let mut record = Record::new(Instant::now(), &request.method);
    let timeouts = Timeouts::default();
    let attempts = Attempts { pool, origin, timeouts, retries: None };
    let mut interim = |_: &mut Context<'_>, _: StatusCode, _: &HeaderMap| {};
    let sent =
        attempts.send(worker, request, &mut record, &mut Timer::default(), &mut interim).await;
    if let Ok(answered) = sent {
        let mut body = answered.body;
        while std::future::poll_fn(|cx| body.poll_next(cx)).await.is_some_and(|f| f.is_ok()) {}
    }
}

fn problem_of(denial: Denial) -> Problem {
    Problem::new(denial.status, denial.reason)
        .with("code", denial.code)
        .with("policy", denial.policy.name())
}

fn context<'a>(
    plan: &'a Plan,
    origin: &'a Origin,
    request: &'a Request,
    body: Read<'a>,
) -> RequestContext<'a> {
    let fixed_route = origin.fixed.as_ref().map(|fixed| fixed.route.as_ref());
    RequestContext {
        door: origin.door,
        method: &request.method,
        scheme: origin.scheme(),
        authority: request.authority.to_str().unwrap_or(""),
        path: request.target.path(),
        query: request.target.query(),
        headers: &request.headers,
        source: origin.source,
        destination: origin.destination,
        client_certificate: origin.certificate.as_ref(),
        stated: None,
        route: plan.route.as_ref().map(|route| route.name.as_ref()).or(fixed_route),
        tenant: Some(&plan.tenant),
        upstream: plan.pool.as_ref().map(|pool| pool.upstream.name.as_ref()),
        body,
    }
}

/// What the agent answers itself.
enum Own {
    NoRoute,
    Server,
    Answer(Box<http::Response<http_body_util::Full<bytes::Bytes>>>),
}

fn answer_own(own: Own, mut record: Record) -> Answer {
    match own {
        Own::NoRoute => {
            record.code = Some("no_route");
            let problem = Problem::new(StatusCode::NOT_FOUND, "no route matches this request")
                .with("code", "no_route");
            Answer::of_problem(problem, record)
        }
        Own::Server => Answer {
            status: StatusCode::NO_CONTENT,
            headers: HeaderMap::new(),
            body: Body::Empty,
            tunnel: None,
            record,
        },
        Own::Answer(response) => {
            let (parts, body) = response.into_parts();
            Answer::full(parts.status, parts.headers, body, record)
        }
    }
}

fn apply_changes(headers: &mut HeaderMap, changes: &Changes) {
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

/// One request to one upstream, with what it takes to get an answer.
struct Attempts<'a> {
    pool: &'a Rc<Pool>,
    origin: &'a Origin,
    timeouts: Timeouts,
    retries: Option<&'a crate::catalog::routes::Retries>,
}

struct Answered {
    status: StatusCode,
    version: Version,
    headers: HeaderMap,
    body: Body,
    /// Of an answer to HEAD, or 304: the length of a body that is not sent.
    declared_length: Option<HeaderValue>,
    upgrade: Option<HeaderValue>,
    tunnel: Option<Box<Tunnel>>,
}

impl Attempts<'_> {
    async fn send(
        &self,
        worker: &Rc<Worker>,
        mut request: Request,
        record: &mut Record,
        timer: &mut Timer,
        interim: &mut Interim<'_>,
    ) -> Result<Answered, UpstreamError> {
        self.pool.count_request();
        let deadline = self.timeouts.request.map(|within| record.started + within);
        let mut avoid: Option<Rc<EndpointPool>> = None;
        let mut must_be_new = false;
        let mut stale_retries = 0_u8;
        loop {
            let endpoint = self.pool.pick(&worker.random, avoid.as_ref());
            let tried =
                self.try_once(&endpoint, &mut request, must_be_new, deadline, timer, interim).await;
            let failed = match tried {
                Ok(answered) => {
                    let is_worth_it = self.retries.is_some_and(|retries| {
                        retries.statuses.contains(&answered.status)
                            && record.retries < retries.attempts
                    });
                    if !is_worth_it
                        || !is_idempotent(&request.method)
                        || !matches!(request.body, Body::Empty)
                        || !self.is_in_budget(deadline)
                    {
                        return Ok(answered);
                    }
                    record.retries += 1;
                    worker.counters.retries.add(1);
                    avoid = Some(endpoint);
                    continue;
                }
                Err(failed) => failed,
            };
            let Some(body) = failed.body else { return Err(failed.error) };
            let is_repeatable = is_idempotent(&request.method) && matches!(body, Body::Empty);
            request.body = body;
            // An idle connection that had died is no fault of the request: it goes out again, on a
            // new connection, where repeating it does no harm.
            if failed.is_stale && is_repeatable && stale_retries < 1 {
                stale_retries += 1;
                must_be_new = true;
                worker.counters.retries.add(1);
                continue;
            }
            let may_go_again = failed.error.is_before_request() || is_repeatable;
            let has_attempts =
                self.retries.is_some_and(|retries| record.retries < retries.attempts);
            if !may_go_again || !has_attempts || !self.is_in_budget(deadline) {
                return Err(failed.error);
            }
            record.retries += 1;
            worker.counters.retries.add(1);
            avoid = Some(endpoint);
        }
    }

    fn is_in_budget(&self, deadline: Option<Instant>) -> bool {
        let has_time = deadline.is_none_or(|deadline| Instant::now() < deadline);
        has_time && self.retries.is_some_and(|r| self.pool.may_retry(r.budget_percent))
    }

    async fn try_once(
        &self,
        endpoint: &Rc<EndpointPool>,
        request: &mut Request,
        must_be_new: bool,
        deadline: Option<Instant>,
        timer: &mut Timer,
        interim: &mut Interim<'_>,
    ) -> Result<Answered, Failed> {
        let body = std::mem::take(&mut request.body);
        let (channel, lease) = match self.pool.channel(endpoint, self.origin, must_be_new).await {
            Ok(connected) => connected,
            Err(error) => return Err(Failed { error, body: Some(body), is_stale: false }),
        };
        let within = match self.timeouts.upstream {
            Some(each) => {
                let each = Instant::now() + each;
                Some(deadline.map_or(each, |deadline| deadline.min(each)))
            }
            None => deadline,
        };
        let after_body = match (self.timeouts.upstream, self.timeouts.request) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        let host = match request.authority.is_empty() {
            true => endpoint.authority.as_bytes(),
            false => request.authority.as_bytes(),
        };
        let connection = match channel {
            Channel::Http2(sender) => {
                timer.set(within);
                let sent = timer.bound(send_http2(self.pool, sender, request, host, body)).await;
                drop(lease);
                return match sent {
                    Ok(answered) => answered,
                    Err(_) => {
                        Err(Failed { error: UpstreamError::Timeout, body: None, is_stale: false })
                    }
                };
            }
            Channel::Http1(connection) => connection,
        };
        let mut exchange = Exchange::new(
            connection,
            lease,
            Sent {
                method: &request.method,
                target: request.target.as_str(),
                host,
                headers: &request.headers,
                body,
                upgrade: request.upgrade.as_ref().map(HeaderValue::as_bytes),
                expects_continue: request.expects_continue,
            },
        );
        let head = exchange.response(interim, timer, self.timeouts.idle, within, after_body).await;
        let head = match head {
            Ok(head) => head,
            Err(error) => return Err(exchange.fail(error)),
        };
        let mut headers = head.headers;
        let mut tunnel = None;
        let mut upgrade = None;
        let mut declared_length = None;
        let body = if head.status == StatusCode::SWITCHING_PROTOCOLS {
            upgrade = headers.get(header::UPGRADE).cloned();
            let (upstream, read) = exchange.into_stream();
            tunnel = Some(Box::new(Tunnel { upstream, read, idle: self.timeouts.idle }));
            Body::Empty
        } else {
            if request.method == Method::HEAD || head.status == StatusCode::NOT_MODIFIED {
                declared_length = headers.remove(header::CONTENT_LENGTH);
            }
            match exchange.finish_if_done() {
                true => Body::Empty,
                false => Body::Upstream(exchange),
            }
        };
        let version = head.version;
        Ok(Answered {
            status: head.status,
            version,
            headers,
            body,
            declared_length,
            upgrade,
            tunnel,
        })
    }
}

async fn send_http2(
    pool: &Pool,
    mut sender: http2::Sender,
    request: &Request,
    host: &[u8],
    body: Body,
) -> Result<Answered, Failed> {
    let uri = (|| {
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(if pool.upstream.tls.is_some() { Scheme::HTTPS } else { Scheme::HTTP });
        parts.authority = Some(Authority::try_from(host).ok()?);
        parts.path_and_query = Some(PathAndQuery::try_from(request.target.as_str()).ok()?);
        Uri::from_parts(parts).ok()
    })();
    if let Err(error) = sender.ready().await {
        return Err(Failed {
            error: UpstreamError::Http2(error),
            body: Some(body),
            is_stale: true,
        });
    }
    let mut sent = http::Request::new(body);
    *sent.method_mut() = request.method.clone();
    *sent.uri_mut() = uri.unwrap_or_default();
    *sent.version_mut() = Version::HTTP_2;
    *sent.headers_mut() = request.headers.clone();
    if request.wants_trailers {
        sent.headers_mut().insert(header::TE, HeaderValue::from_static("trailers"));
    }
    let response = match sender.try_send_request(sent).await {
        Ok(response) => response,
        Err(mut error) => {
            // Handed back if it was not sent at all.
            let body = error.take_message().map(http::Request::into_body);
            let is_stale = body.is_some();
            let error = UpstreamError::Http2(error.into_error());
            return Err(Failed { error, body, is_stale });
        }
    };
    let (parts, body) = response.into_parts();
    let mut headers = parts.headers;
    let mut declared_length = None;
    if request.method == Method::HEAD || parts.status == StatusCode::NOT_MODIFIED {
        declared_length = headers.remove(header::CONTENT_LENGTH);
    }
    let body = match hyper::body::Body::is_end_stream(&body) {
        true => Body::Empty,
        false => Body::Http2(body),
    };
    Ok(Answered {
        status: parts.status,
        version: Version::HTTP_2,
        headers,
        body,
        declared_length,
        upgrade: None,
        tunnel: None,
    })
}
