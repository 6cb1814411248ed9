//! The admin API: `/admin/*`, for whoever has the token. It is answered beside `/health` and
//! `/metrics`, never where clients of services connect.
//!
//! | what | file |
//! |---|---|
//! | who is let in | [`gate`], [`token`] |
//! | APIs and policies beside those of the file | [`additions`] |
//! | circuit breakers | [`breakers`] |
//! | quotas | [`quotas`] |
//! | remembered tokens, client certificates | [`credentials`] |
//! | exchanges that failed | [`snapshots`] |

mod additions;
mod breakers;
mod credentials;
pub mod gate;
mod quotas;
mod snapshots;
pub mod token;

use std::{
    borrow::Cow,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Method, Response, StatusCode, header, request::Parts};
use http_body_util::Full;
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};
use stoa_policy::moment::Moment;

use self::{
    gate::{Gate, Refusal},
    token::AdminToken,
};
use crate::{
    catalog::{live::LiveCatalog, routes::decode_query},
    enforcement::Enforcement,
    http::{Answer, json_answer, problem::Problem},
    telemetry::snapshots::Snapshots,
};

/// A longer document is nobody's API or policy.
pub const LONGEST_BODY: usize = 64 << 10;
const LONGEST_PATH_IN_LOG: usize = 200;
const ANSWERED_WITHIN: Duration = Duration::from_secs(30);

/// One for the agent.
pub struct Admin {
    pub gate: Gate,
    mode: &'static str,
    served: Option<Served>,
    /// In every mode, since requests may be steered in every mode.
    snapshots: Option<Arc<Snapshots>>,
    started: Instant,
}

/// What there is to administer, in a mode that has it.
#[derive(Clone)]
pub struct Served {
    pub live: Arc<LiveCatalog>,
    pub enforcement: Arc<Enforcement>,
    /// Of APIs that name none.
    pub tenant: String,
}

impl Admin {
    pub fn new(
        mode: &'static str,
        token: Option<AdminToken>,
        served: Option<Served>,
        snapshots: Option<Arc<Snapshots>>,
    ) -> Arc<Self> {
        if token.as_ref().is_some_and(AdminToken::is_short) {
            tracing::warn!(
                "the admin API's token is short enough to be guessed: use 32 random characters, \
                 such as those of `openssl rand -hex 16`"
            );
        }
        Arc::new(Self { gate: Gate::new(token), mode, served, snapshots, started: Instant::now() })
    }

    /// Whether the path is of the admin API. No other spelling of it is.
    pub fn owns(path: &str) -> bool {
        path == "/admin" || path.starts_with("/admin/")
    }

    /// `body` is asked for only of those who are let in.
    pub async fn answer(
        &self,
        head: &Parts,
        body: impl Future<Output = Result<Bytes, Problem>>,
        peer: SocketAddr,
    ) -> Answer {
        let admitted = self.gate.admit(&head.headers, peer.ip(), Moment::read());
        let answer = match admitted {
            Err(refusal) => refusal.into_response(),
            Ok(()) => {
                let answering = self.admitted(head, body);
                let answered = tokio::time::timeout(ANSWERED_WITHIN, answering).await;
                let late = || {
                    Problem::new(
                        StatusCode::SERVICE_UNAVAILABLE,
                        "it takes too long; look again later",
                    )
                };
                answered.unwrap_or_else(|_| Err(late())).unwrap_or_else(Problem::into_response)
            }
        };
        // A stranger who asks without end fills a counter, not the log.
        if matches!(admitted, Ok(()) | Err(Refusal::Unauthorized)) {
            let path: String = head.uri.path().chars().take(LONGEST_PATH_IN_LOG).collect();
            let status = answer.status().as_u16();
            tracing::info!(
                target: "audit", action = "admin", method = %head.method, path, %peer, status,
                "the admin API was asked"
            );
        }
        answer
    }

    async fn admitted(
        &self,
        head: &Parts,
        body: impl Future<Output = Result<Bytes, Problem>>,
    ) -> Result<Answer, Problem> {
        let path = head.uri.path().strip_prefix("/admin").unwrap_or_default();
        let segments = decode(path)?;
        let segments: Vec<&str> = segments.iter().map(AsRef::as_ref).collect();
        let method = match head.method {
            Method::HEAD => Method::GET,
            ref method => method.clone(),
        };
        if segments == ["health"] {
            only(&method, &Method::GET, "GET, HEAD")?;
            return Ok(json_answer(StatusCode::OK, &self.health()));
        }
        if let ["snapshots", rest @ ..] = &segments[..] {
            let query = head.uri.query().unwrap_or_default();
            return snapshots::answer(self.snapshots.as_deref(), &method, rest, query);
        }
        let served = self.served.as_ref().ok_or_else(|| {
            not_found(format!("{} mode has only /admin/health and /admin/snapshots", self.mode))
        })?;
        match segments[..] {
            ["apis" | "policies", ref rest @ ..] => {
                if self.mode != "proxy" {
                    let reason =
                        format!("{} mode has no routes to add APIs to; proxy mode does", self.mode);
                    return Err(not_found(reason));
                }
                let read = read_json(&method, head, body).await?;
                additions::answer(served, &method, segments[0], rest, read).await
            }
            ["circuit-breaker" | "circuit-breakers", ..] => {
                breakers::answer(served, &method, &segments)
            }
            ["cache", ref rest @ ..] => credentials::answer_cache(served, &method, rest),
            ["mtls", ref rest @ ..] => credentials::answer_mtls(served, &method, rest),
            ["quotas", ref rest @ ..] => {
                quotas::answer(served, &method, rest, head.uri.query().unwrap_or_default()).await
            }
            ["routes", "reload"] => {
                only(&method, &Method::POST, "POST")?;
                reload(served).await
            }
            ["sessions", ..] => Err(not_found(
                "sessions are of edge-mcp mode, which this build does not have".into(),
            )),
            _ => Err(not_found(
                "there are health, apis, policies, circuit-breaker/stats, circuit-breaker/reset, \
                 circuit-breakers, cache/stats, cache/clear, mtls/config, mtls/stats, quotas, \
                 snapshots and routes/reload"
                    .into(),
            )),
        }
    }

    fn health(&self) -> Value {
        let mut health = json!({
            "status": "ok",
            "version": env!("CARGO_PKG_VERSION"),
            "mode": self.mode,
            "uptime_seconds": self.started.elapsed().as_secs(),
            "routes_count": 0,
            "policies_count": 0,
        });
        if let Some(Served { live, .. }) = &self.served {
            let (catalog, additions, status) = (live.current(), live.additions(), live.status());
            health["routes_count"] = json!(catalog.routes.all.len());
            health["policies_count"] = json!(catalog.policies.len() + additions.policies.len());
            health["apis_count"] = json!(additions.apis.len());
            if status.failure.is_some() {
                health["status"] = json!("degraded");
                health["reason"] = json!(status.failure);
            }
        }
        health
    }
}

/// As SIGHUP does, and says how it went.
async fn reload(served: &Served) -> Result<Answer, Problem> {
    let live = Arc::clone(&served.live);
    let reloaded = tokio::task::spawn_blocking(move || live.reload()).await;
    match reloaded.map_err(|_| failed())? {
        Ok(()) => Ok(json_answer(
            StatusCode::OK,
            &json!({
                "status": "ok",
                "routes_count": served.live.current().routes.all.len(),
                "generation": served.live.generation(),
            }),
        )),
        Err(reason) => Err(Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            format!("the previous configuration stays: {reason}"),
        )),
    }
}

/// The segments of a path below `/admin`. A slash at the end means nothing.
fn decode(path: &str) -> Result<Vec<Cow<'_, str>>, Problem> {
    let path = path.strip_suffix('/').unwrap_or(path);
    path.split('/')
        .skip(1)
        .map(|segment| {
            percent_decode_str(segment)
                .decode_utf8()
                .map_err(|_| Problem::new(StatusCode::BAD_REQUEST, "the path is not UTF-8 text"))
        })
        .collect()
}

/// What a POST brings; `None` of other methods.
async fn read_json(
    method: &Method,
    head: &Parts,
    body: impl Future<Output = Result<Bytes, Problem>>,
) -> Result<Option<Value>, Problem> {
    if method != Method::POST {
        return Ok(None);
    }
    let media_type = head.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = media_type.map(|t| t.split(';').next().unwrap_or("").trim().to_lowercase());
    if essence.is_some_and(|t| t != "application/json" && !t.ends_with("+json")) {
        return Err(Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "the body is to be application/json",
        ));
    }
    let body = body.await?;
    serde_json::from_slice(&body).map(Some).map_err(|error| {
        Problem::new(StatusCode::BAD_REQUEST, format!("the body is not JSON: {error}"))
    })
}

fn only(method: &Method, allowed: &Method, names: &'static str) -> Result<(), Problem> {
    match allowed == method {
        true => Ok(()),
        false => Err(Problem::method_not_allowed(names)),
    }
}

fn not_found(reason: String) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, reason)
}

/// The first value of a query parameter.
fn value_of(query: &str, name: &str) -> Option<String> {
    query.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decode_query(key) == name).then(|| decode_query(value))
    })
}

fn number_of(query: &str, name: &'static str, otherwise: usize) -> Result<usize, Problem> {
    let Some(given) = value_of(query, name) else { return Ok(otherwise) };
    given.parse().map_err(|_| {
        let reason = format!("`{name}` is not a number of 0 or more");
        Problem::new(StatusCode::BAD_REQUEST, reason).with("field", name)
    })
}

fn failed() -> Problem {
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "it failed; the log says why")
}

fn done(message: &str) -> Answer {
    json_answer(StatusCode::OK, &json!({ "status": "ok", "message": message }))
}

fn no_content() -> Answer {
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}
