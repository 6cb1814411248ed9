//! `/shadow/*`, `/health*` and `/metrics`.

use std::sync::Arc;

use http::{HeaderValue, Method, StatusCode, header};
use serde_json::{Value, json};

use super::{Shadow, ShadowError, analysis::Snapshot, denials::ByPolicy, rendering::Rendered};
use crate::{
    capture::{ServiceCounters, loss_name},
    http::{Answer, Call, negotiation, problem::Problem, with_type},
    telemetry::metrics::{self, class_name},
};

const YAML: &[&str] = &[
    "application/yaml",
    "application/openapi+yaml",
    "application/vnd.oai.openapi",
    "application/vnd.oai.openapi+yaml",
    "application/x-yaml",
    "text/yaml",
];
const JSON: &[&str] =
    &["application/json", "application/vnd.oai.openapi+json", "application/openapi+json"];
const UAC: &str = "application/vnd.gostoa.uac+json";
const TABLE: &str = "text/plain";
const FORMATS: &str = "openapi-yaml, openapi-json, uac, summary";

pub async fn answer(shadow: Arc<Shadow>, call: Call) -> Answer {
    let method = match call.head.method {
        Method::HEAD => Method::GET,
        ref method => method.clone(),
    };
    let path = call.head.uri.path().to_owned();
    let path = path.strip_suffix('/').filter(|p| !p.is_empty()).unwrap_or(&path);
    let result = match (path, &method) {
        ("/shadow/status", &Method::GET) => Ok(status(&shadow, &call).await),
        ("/shadow/generate", &Method::POST) => generate(&shadow, &call).await,
        ("/shadow/contracts", &Method::GET) => Ok(list(&shadow, &call).await),
        ("/health" | "/health/live", &Method::GET) => Ok(health(&shadow, false)),
        ("/health/ready", &Method::GET) => Ok(health(&shadow, true)),
        ("/metrics", &Method::GET) => scrape(&shadow),
        ("/shadow/generate", _) => Err(Problem::method_not_allowed("POST")),
        (
            "/shadow/status" | "/shadow/contracts" | "/health" | "/health/live" | "/health/ready"
            | "/metrics",
            _,
        ) => Err(Problem::method_not_allowed("GET, HEAD")),
        _ => match path.strip_prefix("/shadow/contracts/") {
            Some(_) if method != Method::GET => Err(Problem::method_not_allowed("GET, HEAD")),
            Some(name) => show(&shadow, &call, name).await,
            None => Err(Problem::new(
                StatusCode::NOT_FOUND,
                "there is no such resource; there are /shadow/status, /shadow/generate, \
                 /shadow/contracts, /shadow/contracts/{service}, /health, /health/live, \
                 /health/ready and /metrics",
            )),
        },
    };
    result.unwrap_or_else(Problem::into_response)
}

/// Who read what of the observations.
fn audit(call: &Call, action: &str, service: &str) {
    tracing::info!(target: "audit", action, service, peer = %call.peer, "observations were read");
}

fn json_answer(value: &Value) -> Answer {
    with_type(StatusCode::OK, "application/json", format!("{value:#}\n"))
}

fn failed(error: &ShadowError) -> Problem {
    let status = match error {
        ShadowError::Stopping => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    tracing::error!(%error, "API");
    Problem::new(status, error.to_string())
}

/// The five fields that the platform's console reads, then what this agent knows beside.
async fn status(shadow: &Arc<Shadow>, call: &Call) -> Answer {
    audit(call, "status", "*");
    let snapshot = shadow.analysis.snapshot();
    let known = shadow.services(&snapshot);
    let min = shadow.config.min_requests;
    let denied = shadow.denials.by_service();
    let mut patterns = 0;
    let mut services = Vec::new();
    for (name, known) in &known {
        // Rendered only where something new was recorded.
        let operations = match known.exchanges {
            0 => 0,
            _ => shadow.contract(name).await.map_or(0, |contract| contract.operations),
        };
        patterns += operations;
        let tally = snapshot.tallies.iter().find(|(_, tally)| tally.name == *name);
        let mut service = json!({
            "service": name,
            "watched": known.is_watched,
            "exchanges": known.exchanges,
            "operations": operations,
            "ready": known.exchanges >= min,
            "denied": denied_of(denied.get(name)),
        });
        if let (Some((number, tally)), Value::Object(members)) = (tally, &mut service) {
            let of_service = |c: &&ServiceCounters| c.service == *number;
            let incomplete: serde_json::Map<_, _> = tally
                .incomplete
                .iter()
                .map(|(reason, n)| (reason.name().to_owned(), json!(n)))
                .collect();
            let masked: serde_json::Map<_, _> =
                tally.masked.iter().map(|(class, n)| (class_name(*class), json!(n))).collect();
            members.insert("exchanges_since_start".to_owned(), json!(tally.exchanges));
            members.insert("complete_since_start".to_owned(), json!(tally.complete));
            members.insert("with_losses_since_start".to_owned(), json!(tally.lossy));
            members.insert("incomplete".to_owned(), Value::Object(incomplete));
            members.insert("masked".to_owned(), Value::Object(masked));
            if let Some(counters) = snapshot.counters.iter().find(of_service) {
                members.insert("capture".to_owned(), capture_of(counters));
            }
        }
        services.push(service);
    }
    let captured: u64 = known.values().map(|k| k.exchanges).sum();
    json_answer(&json!({
        "transactions_captured": captured,
        "patterns_detected": patterns,
        "uacs_generated": shadow.contracts_written(),
        "min_requests_threshold": min,
        "ready_for_generation": known.values().any(|k| k.exchanges >= min),
        "mode": "shadow",
        "tenant": shadow.config.tenant,
        "capture_method": shadow.config.capture,
        "capturing": snapshot.failure.is_none(),
        "failure": snapshot.failure,
        "sources": shadow.config.sources,
        "services": services,
        "losses": losses(&snapshot),
        "reader": reader_of(&snapshot),
    }))
}

/// What policy has answered in the service's stead since the start.
fn denied_of(counts: Option<&ByPolicy>) -> Value {
    let counts = || counts.into_iter().flatten();
    let total: u64 = counts().map(|(_, count)| count).sum();
    let by: Vec<Value> = counts()
        .map(|((policy, status), count)| {
            json!({ "policy": policy, "status": status, "requests": count })
        })
        .collect();
    json!({ "requests": total, "by": by })
}

fn capture_of(counters: &ServiceCounters) -> Value {
    json!({
        "due_segments": counters.due_segments,
        "due_bytes": counters.due_bytes,
        "captured_segments": counters.captured_segments,
        "captured_bytes": counters.captured_bytes,
        "shed_exchanges": counters.shed_exchanges,
    })
}

fn losses(snapshot: &Snapshot) -> Vec<Value> {
    let mut losses = Vec::new();
    for counters in &snapshot.counters {
        let service = snapshot.tallies.get(&counters.service).map(|t| t.name.as_str());
        for (reason, segments, bytes) in counters.lost.iter().filter(|(_, n, b)| n + b > 0) {
            losses.push(json!({
                "service": service,
                "reason": loss_name(*reason),
                "segments": segments,
                "bytes": bytes,
            }));
        }
    }
    losses
}

fn reader_of(snapshot: &Snapshot) -> Value {
    let reader = &snapshot.reader;
    let source: serde_json::Map<_, _> =
        snapshot.source_counters.iter().map(|(n, v)| ((*n).to_owned(), json!(v))).collect();
    json!({
        "events": snapshot.events,
        "connections": reader.flows,
        "connections_seen": reader.flows_opened,
        "connections_not_http": reader.flows_not_http,
        "connections_evicted": reader.flows_evicted,
        "memory_bytes": reader.memory,
        "knowledge_bytes": snapshot.knowledge_bytes,
        "source": source,
    })
}

async fn list(shadow: &Arc<Shadow>, call: &Call) -> Answer {
    audit(call, "list", "*");
    let known = shadow.services(&shadow.analysis.snapshot());
    let mut contracts = Vec::new();
    for (name, known) in known {
        let rendered = match known.exchanges {
            0 => None,
            _ => shadow.contract(&name).await.ok(),
        };
        contracts.push(json!({
            "service": name,
            "watched": known.is_watched,
            "exchanges": known.exchanges,
            "operations": rendered.as_ref().map_or(0, |r| r.operations),
            "confidence": rendered.as_ref().map_or(0.0, |r| (r.confidence * 1000.0).round() / 1000.0),
            "first_seen": rendered.as_ref().and_then(|r| r.seen).map(|(first, _)| first),
            "last_seen": rendered.as_ref().and_then(|r| r.seen).map(|(_, last)| last),
            "ready": known.exchanges >= shadow.config.min_requests,
            "url": format!("/shadow/contracts/{name}"),
        }));
    }
    json_answer(&json!({ "contracts": contracts }))
}

fn unknown_service(shadow: &Shadow) -> Problem {
    let known = shadow.services(&shadow.analysis.snapshot());
    let names: Vec<String> = known.into_keys().collect();
    Problem::new(
        StatusCode::NOT_FOUND,
        "no service of that name is watched or known; `services` lists those that are",
    )
    .with("services", names)
}

async fn show(shadow: &Arc<Shadow>, call: &Call, name: &str) -> Result<Answer, Problem> {
    let known = shadow.services(&shadow.analysis.snapshot());
    let known = known.get(name).ok_or_else(|| unknown_service(shadow))?;
    let offers: Vec<&str> = YAML.iter().chain(JSON).copied().chain([UAC, TABLE]).collect();
    let chosen = match query_value(call, "format").as_deref() {
        Some("openapi-yaml" | "yaml") => "application/yaml",
        Some("openapi-json" | "json") => "application/json",
        Some("uac") => UAC,
        Some("summary") => TABLE,
        Some(_) => {
            return Err(Problem::new(
                StatusCode::BAD_REQUEST,
                format!("there is no such format; there are: {FORMATS}"),
            ));
        }
        None => {
            let accept = call.head.headers.get_all(header::ACCEPT);
            let accept: Vec<&str> = accept.iter().filter_map(|v| v.to_str().ok()).collect();
            let accept = (!accept.is_empty()).then(|| accept.join(","));
            negotiation::choose(accept.as_deref(), &offers).ok_or_else(|| {
                Problem::new(
                    StatusCode::NOT_ACCEPTABLE,
                    "the contract is not to be had in any of the types that `Accept` names; \
                     `available` lists those it is",
                )
                .with("available", offers.iter().map(|o| json!(o)).collect::<Vec<_>>())
            })?
        }
    };
    audit(call, "contract", name);
    if known.exchanges == 0 {
        return Err(Problem::new(
            StatusCode::NOT_FOUND,
            format!("`{name}` is watched, but no exchange of it has been seen yet"),
        )
        .with("service", name)
        .with("exchanges", 0));
    }
    let contract = shadow.contract(name).await.map_err(|e| failed(&e))?;
    let media_type = offers.iter().find(|o| **o == chosen).copied().unwrap_or(TABLE);
    let body = document(&contract, chosen).ok_or_else(|| {
        Problem::new(
            StatusCode::NOT_FOUND,
            format!("no operation of `{name}` is known yet, and a UAC has at least one"),
        )
        .with("service", name)
        .with("exchanges", contract.exchanges)
    })?;
    let mut answer = with_type(StatusCode::OK, static_type(media_type), body);
    answer.headers_mut().insert(header::VARY, HeaderValue::from_static("Accept"));
    Ok(answer)
}

fn document(contract: &Rendered, media_type: &str) -> Option<String> {
    match media_type {
        UAC => contract.uac_json.clone(),
        TABLE => Some(contract.table.clone()),
        t if JSON.contains(&t) => Some(contract.openapi_json.clone()),
        _ => Some(contract.openapi_yaml.clone()),
    }
}

fn static_type(media_type: &str) -> &'static str {
    match media_type {
        TABLE => "text/plain; charset=utf-8",
        UAC => UAC,
        other => {
            YAML.iter().chain(JSON).copied().find(|t| *t == other).unwrap_or("application/yaml")
        }
    }
}

/// The first value of a query parameter, where it needs no decoding.
fn query_value(call: &Call, name: &str) -> Option<String> {
    let query = call.head.uri.query()?;
    let pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs.into_iter().find(|(key, _)| *key == name).map(|(_, value)| value.to_lowercase())
}

async fn generate(shadow: &Arc<Shadow>, call: &Call) -> Result<Answer, Problem> {
    let wanted = wanted_service(call)?;
    let known = shadow.services(&shadow.analysis.snapshot());
    if let Some(name) = &wanted
        && !known.contains_key(name)
    {
        return Err(unknown_service(shadow));
    }
    audit(call, "generate", wanted.as_deref().unwrap_or("*"));
    let min = shadow.config.min_requests;
    let mut services = Vec::new();
    let mut first = None;
    for (name, known) in known.iter().filter(|(name, _)| wanted.as_ref().is_none_or(|w| w == *name))
    {
        if known.exchanges < min {
            services.push(json!({
                "service": name,
                "status": "insufficient_data",
                "exchanges": known.exchanges,
                "required": min,
            }));
            continue;
        }
        let written = shadow.write(name).await.map_err(|e| failed(&e))?;
        first.get_or_insert_with(|| name.clone());
        services.push(json!({
            "service": name,
            "status": "generated",
            "exchanges": written.contract.exchanges,
            "operations": written.contract.operations,
            "files": written.files.iter().map(|p| p.display().to_string()).collect::<Vec<_>>(),
        }));
    }
    let status = if first.is_some() { "generated" } else { "insufficient_data" };
    let mut body = json!({ "status": status, "services": services });
    if let (Some(name), Value::Object(members)) = (first, &mut body) {
        members.insert("api_id".to_owned(), Value::String(name));
    }
    Ok(json_answer(&body))
}

/// `{"service": "api"}`; no body, or `{}`, means all.
fn wanted_service(call: &Call) -> Result<Option<String>, Problem> {
    if call.body.is_empty() {
        return Ok(None);
    }
    let media_type = call.head.headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok());
    if let Some(media_type) = media_type {
        let essence = media_type.split(';').next().unwrap_or("").trim().to_lowercase();
        if essence != "application/json" && !essence.ends_with("+json") {
            return Err(Problem::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "the body is to be application/json: {\"service\": \"NAME\"}",
            ));
        }
    }
    let bad = |detail: &str| Problem::new(StatusCode::BAD_REQUEST, detail);
    let body: Value = serde_json::from_slice(&call.body)
        .map_err(|_| bad("the body is not JSON; send {\"service\": \"NAME\"}, or nothing"))?;
    let members = body
        .as_object()
        .ok_or_else(|| bad("the body is not an object: {\"service\": \"NAME\"}"))?;
    if members.keys().any(|key| key != "service") {
        return Err(bad("the only member that is known is `service`"));
    }
    match members.get("service") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(name)) => Ok(Some(name.clone())),
        Some(_) => Err(bad("`service` is to be a string")),
    }
}

/// Live: the process answers. Ready: it captures, and the store can be written.
fn health(shadow: &Shadow, is_readiness: bool) -> Answer {
    let snapshot = shadow.analysis.snapshot();
    let is_running = !shadow.analysis.is_over();
    let checks = json!({
        "analysis": is_running,
        "capture": snapshot.failure.is_none(),
        "store": shadow.keeper.can_write(),
    });
    let is_well = checks.as_object().is_some_and(|c| c.values().all(|v| v == &json!(true)));
    let is_up = if is_readiness { is_well } else { is_running };
    let status = if is_up { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let word = match (is_up, is_readiness) {
        (true, true) => "ready",
        (false, true) => "not ready",
        (true, false) => "ok",
        (false, false) => "failed",
    };
    let body = json!({
        "status": word,
        "mode": "shadow",
        "version": env!("CARGO_PKG_VERSION"),
        "checks": checks,
    });
    with_type(status, "application/json", format!("{body}\n"))
}

fn scrape(shadow: &Shadow) -> Result<Answer, Problem> {
    let snapshot = shadow.analysis.snapshot();
    let (store_writes, store_failures) = shadow.keeper.totals();
    let others = metrics::Others {
        contracts_written: shadow.contracts_written(),
        store_writes,
        store_failures,
        is_capturing: snapshot.failure.is_none() && !shadow.analysis.is_over(),
        denied: shadow.denials.by_service(),
    };
    let mut text = metrics::render(&snapshot, &others).map_err(|error| {
        tracing::error!(%error, "metrics");
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the metrics could not be gathered")
    })?;
    text.extend_from_slice((shadow.config.more_metrics)().as_bytes());
    Ok(with_type(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", text))
}
