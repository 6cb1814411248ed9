//! Spans that a collector takes, and snapshots of what failed: of requests that are steered, are
//! proxied, or are asked about.

use std::{
    fs,
    io::Write as _,
    net::{SocketAddr, TcpStream},
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use sandbox::{Process, command, http, http::Connection, pause};
use serde_json::{Value, json};
use system_tests::{
    collector::Collector,
    decisions::{SECRET, Sidecar},
    proxy::{Proxy, metric_at},
    servers::{PORT, python},
    stage,
    steering::{KEY, add_with, members, options_with, read_to_end, serve_seen, stop_agent},
};

const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/servers");
const TOKEN: &str = "a-token-of-the-tests-0123456789";
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "b7ad6b7169203331";

/// What nobody is to see of the requests and answers below.
const HIDDEN: [&str; 4] = ["s3cr3t", "ann@", "4111", KEY];
const BODY: &[u8] = br#"{"card":"4111 1111 1111 1111","quantity":3}"#;

fn traceparent() -> String {
    format!("00-{TRACE}-{CALLER}-01")
}

fn variables(collector: &Collector) -> [(&'static str, String); 3] {
    [
        ("STOA_OTEL_ENDPOINT", collector.endpoint()),
        ("STOA_SNAPSHOT_ENABLED", "true".to_owned()),
        ("STOA_ADMIN_API_TOKEN", TOKEN.to_owned()),
    ]
}

/// A path below `/admin`.
fn ask_admin(api: SocketAddr, path: &str) -> Result<Value> {
    let bearer = format!("Bearer {TOKEN}");
    let headers = [("Authorization", bearer.as_str()), ("Connection", "close")];
    let reply = Connection::open(api)?.exchange("GET", &format!("/admin/{path}"), &headers, b"")?;
    ensure!(reply.status == 200, "{}", reply.text());
    Ok(serde_json::from_slice(&reply.body)?)
}

/// The newest first. They are taken by a thread of their own.
fn snapshots(api: SocketAddr, count: usize) -> Result<Vec<Value>> {
    let deadline = Instant::now() + sandbox::patience(Duration::from_secs(10));
    loop {
        let list = ask_admin(api, "snapshots")?;
        let found = list["snapshots"].as_array().context("no list")?;
        if found.len() == count {
            return Ok(found.clone());
        }
        ensure!(Instant::now() < deadline, "not {count} snapshots: {list}");
        pause(Duration::from_millis(20));
    }
}

/// Nothing of what was to be hidden is in it.
fn check_masked(snapshot: &Value) -> Result<()> {
    let text = snapshot.to_string();
    for hidden in HIDDEN {
        ensure!(!text.contains(hidden), "{hidden} is in {text}");
    }
    ensure!(snapshot["request_headers"]["authorization"] == "[REDACTED]", "{text}");
    ensure!(snapshot["pii_found"] == true, "{text}");
    Ok(())
}

/// What may be seen of the bodies is there.
fn check_bodies(snapshot: &Value) -> Result<()> {
    ensure!(snapshot["response_headers"]["set-cookie"] == "[REDACTED]", "{snapshot}");
    let read = |name: &str| -> Result<Value> {
        Ok(serde_json::from_str(snapshot[name].as_str().context("no body")?)?)
    };
    let (request, answer) = (read("request_body_excerpt")?, read("response_body_excerpt")?);
    ensure!(request["quantity"] == 3 && request["card"] == "[REDACTED]", "{request}");
    ensure!(answer["code"] == 42 && answer["password"] == "[REDACTED]", "{answer}");
    Ok(())
}

/// One that fails, with secrets wherever there may be some.
fn fail(at: SocketAddr, more: &[(&str, &str)]) -> Result<http::Reply> {
    let given = [
        ("Authorization", "Bearer s3cr3t"),
        ("Cookie", "sid=s3cr3t"),
        ("Content-Type", "application/json"),
        ("X-Request-ID", "order-77"),
        ("Connection", "close"),
    ];
    let target = "/fail?status=500&token=s3cr3t";
    Ok(Connection::open(at)?.exchange("POST", target, &[&given[..], more].concat(), BODY)?)
}

/// Which of them, by an attribute or a field of the span.
fn find<'a>(spans: &'a [Value], key: &str, wanted: impl Into<Value>) -> Result<&'a Value> {
    let wanted = wanted.into();
    let found = spans.iter().find(|s| s["attributes"][key] == wanted || s[key] == wanted);
    found.with_context(|| format!("no span has {key} {wanted}: {spans:#?}"))
}

fn seen_server(dir: &Path) -> Result<(Process, SocketAddr)> {
    let port = sandbox::free_port()?;
    let at = SocketAddr::from(([127, 0, 0, 1], port));
    let mut command = Command::new(python());
    command.arg(Path::new(SCRIPTS).join("seen.py")).arg(port.to_string());
    let process = Process::start("seen", command, &dir.join("logs"))?;
    sandbox::wait_for_port(at, Duration::from_secs(15))?;
    Ok((process, at))
}

#[test]
fn steered_requests_leave_what_proxied_ones_do() -> Result<()> {
    let dir = stage::directory("telemetry-steered")?;
    let mut sandbox = stage::sandbox(&dir)?;
    serve_seen(&mut sandbox)?;
    let (_called, called) = seen_server(&dir)?;
    let collector = Collector::start(&dir)?;
    let log = dir.join("access.log");
    let mut options = options_with(&dir, "agent", &members("  calls: {}\n"))?;
    options = options.flag("--access-log", &log);
    for (name, value) in variables(&collector) {
        options = options.env(name, &value);
    }
    let agent = sandbox::Agent::start(&options)?;
    let node = sandbox.host(false).to_string();
    let probe = ["--probe", "8080/healthz", "--node-address", &node];
    add_with(&dir, "shop/api", &sandbox, &[&["--policies", "members"][..], &probe].concat())?;
    let server = sandbox.socket(PORT, false);
    let parent = traceparent();
    let with_key = [("X-API-Key", KEY), ("traceparent", parent.as_str())];
    let mut kept = Connection::open(server)?;
    let mut ask =
        |target: &str, headers: &[(&str, &str)]| kept.exchange("GET", target, headers, b"");
    let headers_of = |reply: &http::Reply| -> Result<Vec<(String, String)>> {
        let seen: Value = serde_json::from_slice(&reply.body)?;
        Ok(serde_json::from_value(seen["headers"].clone())?)
    };

    // A probe arrives as it was sent, and nobody is told of it.
    let probed = headers_of(&ask("/healthz", &[])?)?;
    ensure!(probed.iter().all(|(name, _)| name == "host"), "{probed:?}");
    // A request, with who its parent is, and with nothing else that it did not have.
    let passed = headers_of(&ask("/orders/7?token=s3cr3t", &with_key)?)?;
    let names: Vec<&str> = passed.iter().map(|(name, _)| name.as_str()).collect();
    ensure!(names == ["host", "traceparent"], "{passed:?}");
    let handed_on = passed[1].1.clone();
    ensure!(ask("/denied", &[])?.status == 401);
    ensure!(fail(server, &[("X-API-Key", KEY)])?.status == 500);
    ensure!(ask("/drop", &with_key[..1])?.status == 502);
    drop(kept);
    // What is no HTTP has no span.
    let mut other = TcpStream::connect(server)?;
    other.write_all(b"\x01\x02 no HTTP at all\r\n\r\n")?;
    other.shutdown(std::net::Shutdown::Write)?;
    read_to_end(&other)?;

    let [dropped, failed] = &snapshots(agent.api(), 2)?[..] else { unreachable!() };
    for (snapshot, status, category) in [(failed, 500, "backend"), (dropped, 502, "network")] {
        ensure!(snapshot["status_code"] == status, "{snapshot}");
        ensure!(snapshot["error_category"] == category, "{snapshot}");
        ensure!(snapshot["route"] == "shop/api", "{snapshot}");
        ensure!(snapshot["upstream"] == "workload/shop/api", "{snapshot}");
    }
    check_masked(failed)?;
    check_bodies(failed)?;
    ensure!(&ask_admin(agent.api(), "snapshots/order-77")? == failed);
    ensure!(dropped["error_code"] == "upstream_closed", "{dropped}");

    // Calls that the workload makes are spans of a client.
    let netns = format!("/run/netns/{}", sandbox.namespace());
    let outbound = ["--outbound", "--outbound-policies", "calls", "--netns", &netns];
    add_with(&dir, "shop/api", &sandbox, &[&["--policies", "members"][..], &outbound].concat())?;
    let called = SocketAddr::new(sandbox.host(false), called.port());
    let mut client = sandbox.command("curl");
    client.args(["-s", "-o", "/dev/null", "-w", "%{http_code}", "-H"]);
    client.arg(format!("traceparent: {parent}"));
    client.arg(format!("http://{called}/fail?status=404"));
    ensure!(command::run(&mut client)?.trim() == "404");

    let spans = collector.wait_for(5)?;
    let metrics = http::get(agent.api(), "/metrics")?.text();
    let log_lines = || fs::read_to_string(&log).unwrap_or_default();
    stop_agent(agent)?;
    ensure!(collector.spans()?.len() == 5, "more than five: {:#?}", collector.spans()?);
    ensure!(spans.iter().all(|s| s["resource"]["service.name"] == "stoa-gateway"), "{spans:#?}");
    ensure!(spans.iter().all(|s| s["attributes"]["stoa.route"] == "shop/api"), "{spans:#?}");
    let passed = find(&spans, "http.response.status_code", 200)?;
    ensure!(passed["kind"] == "SERVER" && passed["name"] == "GET", "{passed}");
    ensure!(passed["trace"] == TRACE && passed["parent"] == CALLER, "{passed}");
    let own = passed["id"].as_str().unwrap_or_default();
    ensure!(handed_on == format!("00-{TRACE}-{own}-01"), "{handed_on}, and {passed}");
    ensure!(passed["status"] == "UNSET", "{passed}");
    let denied = find(&spans, "http.response.status_code", 401)?;
    ensure!(denied["attributes"]["stoa.policy.name"] == "identity", "{denied}");
    ensure!(denied["kind"] == "SERVER" && denied["status"] == "UNSET", "{denied}");
    for (status, reason) in [(500, "500"), (502, "upstream_closed")] {
        let failed = find(&spans, "http.response.status_code", status)?;
        ensure!(failed["status"] == "ERROR", "{failed}");
        ensure!(failed["attributes"]["error.type"] == reason, "{failed}");
        ensure!(failed["attributes"]["stoa.upstream"] == "workload/shop/api", "{failed}");
    }
    let call = find(&spans, "kind", "CLIENT")?;
    ensure!(call["trace"] == TRACE && call["parent"] == CALLER, "{call}");
    // A server did as it should, and its client did not get what it wanted.
    ensure!(call["status"] == "ERROR" && call["attributes"]["error.type"] == "404", "{call}");
    let attributes = &call["attributes"];
    ensure!(attributes["server.address"] == called.ip().to_string(), "{call}");
    ensure!(attributes["server.port"] == called.port(), "{call}");
    let text = json!(spans).to_string();
    for hidden in HIDDEN.into_iter().chain(["/orders", "/denied"]) {
        ensure!(!text.contains(hidden), "{hidden} is in {text}");
    }

    for (series, wanted) in [
        (
            "stoa_redirect_answers_total{workload=\"shop/api\",direction=\"outbound\",status=\"4xx\"}",
            1,
        ),
        (
            "stoa_redirect_request_duration_seconds_count{workload=\"shop/api\",direction=\"outbound\"}",
            1,
        ),
        ("stoa_snapshots_captured_total", 2),
    ] {
        ensure!(metrics.contains(&format!("{series} {wanted}\n")), "no {series}:\n{metrics}");
    }
    let lines: Vec<Value> =
        log_lines().lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    // The probe too.
    ensure!(lines.len() == 6, "{lines:#?}");
    ensure!(lines.iter().all(|line| line["route"] == "shop/api"), "{lines:#?}");
    ensure!(!log_lines().contains("s3cr3t"));
    Ok(())
}

#[test]
fn each_request_of_a_steered_http2_connection_has_a_span() -> Result<()> {
    let dir = stage::directory("telemetry-http2")?;
    let mut sandbox = stage::sandbox(&dir)?;
    let script = Path::new(SCRIPTS).join("h2.js");
    let mut server = sandbox.command("node");
    server.arg(&script).args(["serve", &PORT.to_string()]);
    sandbox.serve("h2", server, PORT)?;
    let collector = Collector::start(&dir)?;
    let options = options_with(&dir, "agent", &members(""))?;
    let agent = sandbox::Agent::start(&options.flag("--otel-endpoint", collector.endpoint()))?;
    add_with(&dir, "api", &sandbox, &["--policies", "members"])?;
    let mut client = Command::new("node");
    client.arg(&script).args(["ask", &sandbox.address(false).to_string(), &PORT.to_string(), KEY]);
    command::run(&mut client)?;
    let metrics = http::get(agent.api(), "/metrics")?.text();
    stop_agent(agent)?;
    // Four that are let in and one that is not.
    let spans = collector.wait_for(5)?;
    let of = |status: u16| {
        spans.iter().filter(|s| s["attributes"]["http.response.status_code"] == status).count()
    };
    ensure!((spans.len(), of(200), of(401)) == (5, 4, 1), "{spans:#?}");
    for span in &spans {
        ensure!(span["attributes"]["network.protocol.version"] == "2", "{span}");
        ensure!(span["attributes"]["stoa.route"] == "api" && span["kind"] == "SERVER", "{span}");
    }
    for (status, count) in [("2xx", 4), ("4xx", 1)] {
        let series = format!(
            "stoa_redirect_answers_total{{workload=\"api\",direction=\"inbound\",status=\"{status}\"}} {count}\n"
        );
        ensure!(metrics.contains(&series), "no {series} in {metrics}");
    }
    Ok(())
}

#[test]
fn what_nobody_asked_to_trace_arrives_as_it_was_sent() -> Result<()> {
    let dir = stage::directory("telemetry-untraced")?;
    let mut sandbox = stage::sandbox(&dir)?;
    serve_seen(&mut sandbox)?;
    let collector = Collector::start(&dir)?;
    // Without policies nothing is read but the first bytes, whether or not traces are on.
    let options = options_with(&dir, "agent", "policies: {}\n")?;
    let agent = sandbox::Agent::start(&options.flag("--otel-endpoint", collector.endpoint()))?;
    add_with(&dir, "api", &sandbox, &[])?;
    let ask = || -> Result<String> {
        let parent = traceparent();
        let headers = [("traceparent", parent.as_str()), ("X-API-Key", KEY)];
        let mut connection = Connection::open(sandbox.socket(PORT, false))?;
        Ok(connection.exchange("GET", "/x", &headers, b"")?.text())
    };
    ensure!(ask()?.contains(&traceparent()));
    stop_agent(agent)?;
    ensure!(collector.spans()?.is_empty());
    // With policies, and no traces.
    let agent = sandbox::Agent::start(&options_with(&dir, "again", &members(""))?)?;
    add_with(&dir, "api", &sandbox, &["--policies", "members"])?;
    ensure!(ask()?.contains(&traceparent()));
    stop_agent(agent)
}

#[test]
fn proxied_requests_leave_spans_and_snapshots() -> Result<()> {
    let dir = stage::directory("telemetry-proxied")?;
    let (_server, server) = seen_server(&dir)?;
    let collector = Collector::start(&dir)?;
    let config = format!(
        "upstreams: {{seen: {{url: 'http://{server}'}}}}\n\
         policies: {{limited: {{rate_limit: {{source: {{requests_per_minute: 1000}}}}}}}}\n\
         routes: [{{upstream: seen, name: orders, policies: limited}}]\n"
    );
    let given = variables(&collector);
    let mut surroundings: Vec<(&str, &str)> = given.iter().map(|(n, v)| (*n, v.as_str())).collect();
    surroundings.push(("STOA_DETAILED_TRACING", "true"));
    let proxy = Proxy::start(&dir, "proxy", &config, &surroundings)?;
    let parent = traceparent();
    let reply = proxy.ask("GET", "/orders/7", &[("traceparent", &parent)])?;
    let seen: Value = serde_json::from_slice(&reply.body)?;
    let headers: Vec<(String, String)> = serde_json::from_value(seen["headers"].clone())?;
    let handed_on = headers.iter().find(|(name, _)| name == "traceparent").context("no parent")?;
    ensure!(fail(proxy.address, &[])?.status == 500);

    let [failed] = &snapshots(proxy.metrics_address(), 1)?[..] else { unreachable!() };
    ensure!(failed["route"] == "orders" && failed["upstream"] == "seen", "{failed}");
    check_masked(failed)?;
    check_bodies(failed)?;

    // The request, its policy and its call; twice.
    let spans = collector.wait_for(6)?;
    proxy.stop()?;
    ensure!(collector.spans()?.len() == 6, "more than six");
    let request = find(&spans, "http.route", "/*")?;
    ensure!(request["kind"] == "SERVER" && request["name"] == "GET /*", "{request}");
    ensure!(request["trace"] == TRACE && request["parent"] == CALLER, "{request}");
    ensure!(request["resource"]["stoa.deployment_mode"] == "proxy", "{request}");
    let of_request: Vec<Value> = spans.iter().filter(|s| s["trace"] == TRACE).cloned().collect();
    let call = find(&of_request, "name", "upstream.call")?;
    ensure!(call["kind"] == "CLIENT" && call["parent"] == request["id"], "{call}");
    let id = call["id"].as_str().unwrap_or_default();
    ensure!(handed_on.1 == format!("00-{TRACE}-{id}-01"), "{handed_on:?}, and {call}");
    let policy = find(&of_request, "name", "policy")?;
    ensure!(policy["attributes"]["stoa.policy.name"] == "rate_limit", "{policy}");
    let failed = spans.iter().find(|s| s["kind"] == "SERVER" && s["status"] == "ERROR");
    ensure!(failed.context("no failure")?["attributes"]["error.type"] == "500");
    let text = json!(spans).to_string();
    ensure!(HIDDEN.iter().all(|hidden| !text.contains(hidden)), "{text}");
    Ok(())
}

#[test]
fn decisions_leave_spans_and_snapshots() -> Result<()> {
    let dir = stage::directory("telemetry-decided")?;
    let collector = Collector::start(&dir)?;
    // OPA that is not there decides nothing.
    let config = format!(
        "policies:\n  default:\n    identity: {{methods: [{{jwt: {{secret: '{SECRET}', issuer: tests, any_audience: true}}}}], required: false}}\n\
         \x20   rego: {{engine: opa, query: data.x.allow}}\n"
    );
    let given = variables(&collector);
    let mut surroundings: Vec<(&str, &str)> = given.iter().map(|(n, v)| (*n, v.as_str())).collect();
    surroundings.push(("STOA_OPA_ENDPOINT", "http://127.0.0.1:1"));
    let sidecar = Sidecar::start(&dir, &config, &surroundings)?;
    let document = json!({
        "method": "POST", "path": "/orders/ann@example.com", "headers": {
            "authorization": "Basic s3cr3t", "traceparent": traceparent(),
            "x-request-id": "order-77",
        },
    });
    let reply = sidecar.ask(&document)?;
    ensure!(reply.status == 503, "{}: {}", reply.status, reply.text());
    let [failed] = &snapshots(sidecar.address(), 1)?[..] else { unreachable!() };
    check_masked(failed)?;
    ensure!(failed["error_code"] == "policy_failed", "{failed}");
    let spans = collector.wait_for(1)?;
    ensure!(metric_at(sidecar.address(), "gateway_otel_spans_exported_total")? == 1.0);
    sidecar.stop()?;
    let span = find(&spans, "name", "authz")?;
    ensure!(span["kind"] == "SERVER" && span["status"] == "ERROR", "{span}");
    ensure!(span["trace"] == TRACE && span["parent"] == CALLER, "{span}");
    ensure!(span["attributes"]["stoa.policy.verdict"] == "deny", "{span}");
    ensure!(span["resource"]["stoa.deployment_mode"] == "sidecar", "{span}");
    let text = json!(spans).to_string();
    ensure!(HIDDEN.iter().all(|hidden| !text.contains(hidden)), "{text}");
    Ok(())
}
