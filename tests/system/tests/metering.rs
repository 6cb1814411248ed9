//! Metering events and error snapshots in a real Kafka, read by a client that is not ours.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use sandbox::{
    Sandbox,
    http::{Connection, Framing, request},
    pause,
};
use serde_json::{Value, json};
use system_tests::{
    decisions::{SECRET, Sidecar, token},
    kafka::{Kafka, PASSWORD, Record, USER},
    markers::sha256,
    proxy::{Proxy, Server, metric_at},
    servers::PORT,
    stage,
    steering::{self, KEY},
};

const TOPIC: &str = "stoa.metering";
const ERRORS: &str = "stoa.errors";
/// Those that wait for nobody take a millisecond.
const LATE: Duration = Duration::from_millis(100);

fn config(upstream: SocketAddr) -> String {
    let jwt = format!("{{jwt: {{secret: '{SECRET}', issuer: tests, any_audience: true}}}}");
    let hash = sha256(KEY.as_bytes());
    let key = format!(
        "{{api_key: {{keys: [{{name: batch, sha256: {hash}, owner: billing, tenant: globex}}]}}}}"
    );
    format!(
        r#"
upstreams:
  shop: {{url: "http://{upstream}"}}
  gone: {{url: "http://127.0.0.1:1"}}
routes:
  - {{name: orders, tenant: acme, upstream: shop, matches: [{{path: {{prefix: /orders}}}}], policies: users}}
  - {{name: broken, tenant: globex, upstream: shop, matches: [{{path: {{prefix: /broken}}}}], policies: keys}}
  - {{name: limited, upstream: shop, matches: [{{path: {{prefix: /limited}}}}], policies: limited}}
  - {{name: gone, upstream: gone, matches: [{{path: {{prefix: /gone}}}}]}}
policies:
  users: {{identity: {{methods: [{jwt}]}}, tenant: {{}}, scopes: {{any_of: ["stoa:read"]}}}}
  keys: {{identity: {{methods: [{key}]}}, tenant: {{}}}}
  steered: {{identity: {{methods: [{key}]}}}}
  limited: {{rate_limit: {{route: {{requests: 2, window_seconds: 3600}}}}}}
"#
    )
}

/// A workload whose connections the agent of `dir` steers, with the policies `steered`.
fn serve_steered(dir: &Path, place: &mut Sandbox) -> Result<SocketAddr> {
    steering::serve_seen(place)?;
    steering::add_with(dir, "api", place, &["--policies", "steered"])?;
    Ok(place.socket(PORT, false))
}

/// Waits until Kafka has so many messages of a topic, and no more wait.
fn wait_for_sent(agent: SocketAddr, topic: &str, wanted: f64) -> Result<()> {
    let deadline = Instant::now() + sandbox::patience(Duration::from_secs(30));
    let metric = |name: &str| metric_at(agent, &format!("{name}{{topic=\"{topic}\"}}"));
    loop {
        let (sent, waiting) =
            (metric("stoa_kafka_messages_sent_total")?, metric("stoa_kafka_messages_waiting")?);
        if waiting == 0.0 && sent >= wanted {
            ensure!(sent == wanted, "{sent} messages of {topic}, and not {wanted}");
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "{sent} sent, {waiting} wait, of {wanted} of {topic}");
        pause(Duration::from_millis(50));
    }
}

fn dropped(agent: SocketAddr, reason: &str) -> Result<f64> {
    let labels = format!("{{topic=\"{TOPIC}\",reason=\"{reason}\"}}");
    metric_at(agent, &format!("stoa_kafka_messages_dropped_total{labels}"))
}

/// By the name that the client gave the request: each has one event.
fn by_request(records: Vec<Record>) -> Result<BTreeMap<String, Record>> {
    let mut found = BTreeMap::new();
    for record in records {
        let name = record.value["request_id"].as_str().context("a request without a name")?;
        let again = found.insert(name.to_owned(), record);
        ensure!(again.is_none(), "two events of one request: {again:?}");
    }
    Ok(found)
}

fn assert_event(events: &BTreeMap<String, Record>, name: &str, wanted: &Value) -> Result<()> {
    let record = events.get(name).with_context(|| format!("no event of {name}: {events:?}"))?;
    let event = &record.value;
    for (field, value) in wanted.as_object().context("not an object")? {
        ensure!(event[field] == *value, "{name}: {field} is not {value}: {event}");
    }
    ensure!(event["tenant_id"] == record.key.as_str(), "{name}: another key than its tenant");
    let number = |field: &str| event[field].as_u64().with_context(|| format!("{name}: {field}"));
    let parts = number("t_gateway_ms")? + event["t_backend_ms"].as_u64().unwrap_or(0);
    ensure!(parts <= number("latency_ms")?, "{name}: parts are longer than the whole: {event}");
    let at = event["timestamp"].as_str().context("no timestamp")?;
    ensure!(at.len() == 24 && at.ends_with('Z') && record.timestamp > 1_700_000_000_000, "{at}");
    ensure!(event["event_id"].as_str().is_some_and(|id| id.len() == 36), "{event}");
    // What nobody here knows is not made up.
    for unknown in ["token_count", "tool_tier", "cost_units_microcents", "user_email"] {
        ensure!(event.get(unknown).is_none(), "{name}: {unknown} in {event}");
    }
    Ok(())
}

#[test]
fn each_request_is_one_event_that_says_who_called_what_and_how_it_ended() -> Result<()> {
    let dir = stage::directory("metering")?;
    let kafka = Kafka::start(&dir)?;
    let upstream = Server::nginx(&dir)?;
    let brokers = kafka.address.to_string();
    let socket = steering::socket(&dir).display().to_string();
    let variables = [
        ("STOA_KAFKA_ENABLED", "true"),
        ("STOA_KAFKA_BROKERS", brokers.as_str()),
        ("STOA_SNAPSHOT_ENABLED", "true"),
        ("STOA_REDIRECT_SOCKET", socket.as_str()),
    ];
    let proxy = Proxy::start(&dir, "proxy", &config(upstream.address), &variables)?;
    let claims = json!({"sub": "ann", "email": "ann@acme.test", "azp": "shop", "tenant": "acme",
                        "scope": "stoa:read stoa:write", "roles": ["viewer"]});
    let reader = format!("Bearer {}", token(&claims)?);
    let writer = json!({"sub": "bob", "tenant": "acme", "scope": "stoa:write"});
    let writer = format!("Bearer {}", token(&writer)?);
    let ask = |name: &str, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]| {
        let headers = [&[("X-Request-ID", name), ("Connection", "close")], headers].concat();
        let mut connection = Connection::open(proxy.address)?;
        anyhow::Ok(connection.exchange(method, target, &headers, body)?.status)
    };
    let ann = ("Authorization", reader.as_str());
    ensure!(ask("r-read", "GET", "/orders/7?token=s3cr3t", &[ann], b"")? == 200);
    ensure!(ask("r-post", "POST", "/orders", &[ann], b"1234567")? == 200);
    let headers = [("X-Request-ID", "r-chunked"), ("Connection", "close"), ann];
    let mut connection = Connection::open(proxy.address)?;
    connection.write(&request("PUT", "/orders/1", &headers, &[b'x'; 5000], Framing::Chunked))?;
    ensure!(connection.receive(false)?.status == 200);
    ensure!(ask("r-nobody", "GET", "/orders", &[], b"")? == 401);
    let bob = ("Authorization", writer.as_str());
    ensure!(ask("r-scope", "DELETE", "/orders/7", &[bob], b"")? == 403);
    ensure!(ask("r-nowhere", "GET", "/nowhere", &[], b"")? == 404);
    ensure!(ask("r-limit-1", "GET", "/limited", &[], b"")? == 200);
    ensure!(ask("r-limit-2", "GET", "/limited", &[], b"")? == 200);
    ensure!(ask("r-limit-3", "GET", "/limited", &[], b"")? == 429);
    let key = ("X-API-Key", KEY);
    ensure!(ask("r-broken", "GET", "/broken/ann@acme.test?k=s3cr3t", &[key], b"")? == 500);
    ensure!(ask("r-gone", "GET", "/gone", &[], b"")? == 503);
    // The agent's own, which nobody is billed for.
    ensure!(ask("r-health", "GET", "/health", &[], b"")? == 200);
    let mut workload = stage::sandbox(&dir)?;
    let steered = serve_steered(&dir, &mut workload)?;
    for (headers, status) in [(&[("X-Request-ID", "s-yes"), key][..], 200), (&[], 401)] {
        let reply = Connection::open(steered)?.exchange("GET", "/a", headers, b"")?;
        ensure!(reply.status == status, "a steered request got {}", reply.status);
    }
    wait_for_sent(proxy.metrics_address(), TOPIC, 13.0)?;
    wait_for_sent(proxy.metrics_address(), ERRORS, 2.0)?;

    let mut records = kafka.read(TOPIC)?;
    let nameless = records.iter().position(|record| record.value.get("request_id").is_none());
    let nameless = records.remove(nameless.context("the request without a name is missing")?).value;
    ensure!(nameless["tool_name"] == "api" && nameless["status"] == "policy_denied", "{nameless}");
    let events = by_request(records)?;
    ensure!(events.len() == 12, "{} events", events.len());
    let steered = json!({"tenant_id": "globex", "tool_name": "api", "status": "success"});
    assert_event(&events, "s-yes", &steered)?;
    let success = |tool: &str, action: &str, bytes: u64| {
        json!({"tenant_id": "acme", "user_id": "ann", "consumer_id": "shop", "tool_name": tool,
               "action": action, "status": "success", "response_status": 200,
               "request_size_bytes": bytes, "scopes": ["stoa:read", "stoa:write"],
               "roles": ["viewer"]})
    };
    assert_event(&events, "r-read", &success("orders", "Read", 0))?;
    assert_event(&events, "r-post", &success("orders", "Create", 7))?;
    assert_event(&events, "r-chunked", &success("orders", "Update", 5000))?;
    let denied = |status: u16, user: Value| {
        json!({"tool_name": "orders", "status": "policy_denied", "response_status": status,
               "user_id": user, "t_backend_ms": 0})
    };
    assert_event(&events, "r-nobody", &denied(401, Value::Null))?;
    assert_event(&events, "r-scope", &denied(403, json!("bob")))?;
    let tenant_of = |name: &str| events.get(name).map(|event| event.key.as_str());
    // Of nobody it is the route's.
    ensure!((tenant_of("r-nobody"), tenant_of("r-scope")) == (Some("acme"), Some("acme")));
    let nowhere = json!({"tenant_id": "default", "tool_name": "", "status": "not_found",
                         "response_status": 404});
    assert_event(&events, "r-nowhere", &nowhere)?;
    for (name, status) in [("r-limit-1", "success"), ("r-limit-3", "rate_limited")] {
        assert_event(&events, name, &json!({"tool_name": "limited", "status": status}))?;
    }
    let broken = json!({"tenant_id": "globex", "user_id": "billing", "consumer_id": "batch",
                        "tool_name": "broken", "status": "error", "response_status": 500});
    assert_event(&events, "r-broken", &broken)?;
    assert_event(&events, "r-gone", &json!({"status": "error", "response_status": 503}))?;
    // One tenant, one partition.
    let homes: BTreeSet<_> = events.values().map(|event| (&event.key, event.partition)).collect();
    ensure!(homes.len() == 3, "tenants and their partitions: {homes:?}");
    ensure!(kafka.codec(TOPIC)? == 3, "it is not LZ4");

    let errors = by_request(kafka.read(ERRORS)?)?;
    ensure!(errors.len() == 2, "{errors:?}");
    let wanted = json!({
        "tenant_id": "globex", "tool_name": "broken", "error_type": "backend",
        "error_message": "the upstream answered 500", "response_status": 500,
        "request_method": "GET", "request_path": "/broken/[REDACTED]",
    });
    assert_event(&errors, "r-broken", &wanted)?;
    assert_event(&errors, "r-gone", &json!({"error_type": "network", "request_path": "/gone"}))?;
    ensure!(errors["r-broken"].value["event_id"] == events["r-broken"].value["event_id"]);
    ensure!(errors["r-gone"].value["gateway_state"]["memory_rss_bytes"].as_u64() > Some(1 << 20));
    for record in events.values().chain(errors.values()) {
        let text = record.value.to_string();
        for secret in ["s3cr3t", "ann@acme.test", KEY, "Bearer", "/orders/7"] {
            ensure!(!text.contains(secret), "{secret} in {text}");
        }
    }
    proxy.stop()?;
    decisions_are_metered_over_tls(&dir, &kafka, &reader)?;
    what_is_sent_again_is_not_written_twice(&dir, &kafka, upstream.address)
}

/// By an agent that Kafka asks who it is, in both ways, and by one that does not know the password.
fn decisions_are_metered_over_tls(dir: &Path, kafka: &Kafka, reader: &str) -> Result<()> {
    let authority = dir.join("ca.pem").display().to_string();
    let brokers = kafka.secure.to_string();
    let policies = format!(
        "policies:\n  default: {{identity: {{methods: [{{jwt: {{secret: '{SECRET}', issuer: tests, \
         any_audience: true}}}}]}}, tenant: {{}}}}\n"
    );
    let start = |topic: &str, mechanism: &str, password: &str| {
        let variables = [
            ("STOA_KAFKA_ENABLED", "true"),
            ("STOA_KAFKA_BROKERS", brokers.as_str()),
            ("STOA_KAFKA_METERING_TOPIC", topic),
            ("STOA_KAFKA_SECURITY_PROTOCOL", "SASL_SSL"),
            ("STOA_KAFKA_SASL_MECHANISM", mechanism),
            ("STOA_KAFKA_SASL_USERNAME", USER),
            ("STOA_KAFKA_SASL_PASSWORD", password),
            ("STOA_METERING_USER_EMAIL", "true"),
            ("STOA_CA_FILE", &authority),
        ];
        Sidecar::start(dir, &policies, &variables)
    };
    for (topic, mechanism) in [("scram", "SCRAM-SHA-512"), ("plain", "PLAIN")] {
        let sidecar = start(topic, mechanism, PASSWORD)?;
        let question = |name: &str, authorization: &str| {
            json!({"method": "GET", "path": "/orders/7", "headers": {
                "x-request-id": name, "authorization": authorization, "content-length": "12"}})
        };
        ensure!(sidecar.ask(&question("q-yes", reader))?.status == 200);
        ensure!(sidecar.ask(&question("q-no", "Bearer a.b.c"))?.status == 401);
        wait_for_sent(sidecar.address(), topic, 2.0)?;
        sidecar.stop()?;
        let events = by_request(kafka.read(topic)?)?;
        ensure!(events.len() == 2, "{events:?}");
        let yes = &events["q-yes"].value;
        ensure!(yes["status"] == "success" && yes["user_id"] == "ann", "{yes}");
        ensure!(yes["user_email"] == "ann@acme.test" && yes["request_size_bytes"] == 12, "{yes}");
        // What became of the request, another gateway knows.
        ensure!(yes.get("t_backend_ms").is_none() && yes.get("response_size_bytes").is_none());
        let no = json!({"status": "policy_denied", "response_status": 401, "tenant_id": "default"});
        assert_event(&events, "q-no", &no)?;
    }
    let sidecar = start("wrong", "SCRAM-SHA-512", "guessed")?;
    sidecar.ask(&json!({"method": "GET", "path": "/"}))?;
    let failed = "stoa_kafka_failed_tries_total{topic=\"wrong\"}";
    let deadline = Instant::now() + sandbox::patience(Duration::from_secs(20));
    while sidecar.metric(failed)? < 1.0 {
        ensure!(Instant::now() < deadline, "a wrong password is not noticed");
        pause(Duration::from_millis(20));
    }
    ensure!(sidecar.metric("stoa_kafka_messages_sent_total{topic=\"wrong\"}")? == 0.0);
    Ok(())
}

/// The broker has a batch, and its answer comes too late for whoever waited for it.
fn what_is_sent_again_is_not_written_twice(
    dir: &Path,
    kafka: &Kafka,
    upstream: SocketAddr,
) -> Result<()> {
    let brokers = kafka.address.to_string();
    let variables = [
        ("STOA_KAFKA_ENABLED", "true"),
        ("STOA_KAFKA_BROKERS", brokers.as_str()),
        ("STOA_KAFKA_METERING_TOPIC", "again"),
    ];
    let proxy = Proxy::start(dir, "again", &format!("upstream: http://{upstream}\n"), &variables)?;
    ensure!(proxy.count_passed(1)? == 1);
    wait_for_sent(proxy.metrics_address(), "again", 1.0)?;
    let failed = || proxy.metric("stoa_kafka_failed_tries_total{topic=\"again\"}");
    let before = failed()?;
    kafka.freeze()?;
    ensure!(proxy.count_passed(3)? == 3, "a request waits for Kafka");
    let deadline = Instant::now() + sandbox::patience(Duration::from_secs(40));
    while failed()? == before {
        ensure!(Instant::now() < deadline, "no answer is missed");
        pause(Duration::from_millis(50));
    }
    kafka.go_on()?;
    wait_for_sent(proxy.metrics_address(), "again", 4.0)?;
    let count = kafka.read("again")?.len();
    ensure!(count == 4, "{count} events of four requests");
    proxy.stop()
}

#[test]
fn requests_do_not_notice_that_kafka_is_away_and_every_event_is_accounted_for() -> Result<()> {
    let dir = stage::directory("metering-outage")?;
    let mut kafka = Kafka::start(&dir)?;
    let upstream = Server::nginx(&dir)?;
    let brokers = kafka.address.to_string();
    let variables = [
        ("STOA_KAFKA_ENABLED", "true"),
        ("STOA_KAFKA_BROKERS", brokers.as_str()),
        ("STOA_KAFKA_QUEUE_CAPACITY", "500"),
    ];
    let config = format!("upstream: http://{}\n", upstream.address);
    let proxy = Proxy::start(&dir, "proxy", &config, &variables)?;
    let (address, metrics) = (proxy.address, proxy.metrics_address());
    let is_over = AtomicBool::new(false);
    let (answered, late) = std::thread::scope(|scope| {
        let client = scope.spawn(|| -> Result<(u64, u64)> {
            let mut connection = Connection::open(address)?;
            let (mut answered, mut late) = (0, 0);
            while !is_over.load(Ordering::SeqCst) {
                let asked = Instant::now();
                let reply = connection.exchange("GET", "/", &[], b"")?;
                late += u64::from(asked.elapsed() > sandbox::patience(LATE));
                ensure!(reply.status == 200, "it got {}", reply.status);
                answered += 1;
            }
            Ok((answered, late))
        });
        let sent = format!("stoa_kafka_messages_sent_total{{topic=\"{TOPIC}\"}}");
        let until = |what: &str, is_so: &dyn Fn() -> Result<bool>| -> Result<()> {
            let deadline = Instant::now() + sandbox::patience(Duration::from_secs(60));
            while !is_so()? {
                ensure!(Instant::now() < deadline && !client.is_finished(), "{what}");
                pause(Duration::from_millis(20));
            }
            Ok(())
        };
        let told = (|| {
            until("nothing is sent", &|| Ok(metric_at(metrics, &sent)? > 100.0))?;
            kafka.kill()?;
            until("nothing is dropped", &|| Ok(dropped(metrics, "queue_full")? > 100.0))?;
            let before = metric_at(metrics, &sent)?;
            kafka.start_again()?;
            until("it does not heal", &|| Ok(metric_at(metrics, &sent)? > before + 500.0))
        })();
        is_over.store(true, Ordering::SeqCst);
        let counted = client.join().expect("the client does not panic");
        told.and(counted)
    })?;
    let deadline = Instant::now() + sandbox::patience(Duration::from_secs(30));
    while proxy.metric(&format!("stoa_kafka_messages_waiting{{topic=\"{TOPIC}\"}}"))? > 0.0 {
        ensure!(Instant::now() < deadline, "some wait still");
        pause(Duration::from_millis(20));
    }
    let sent = proxy.metric(&format!("stoa_kafka_messages_sent_total{{topic=\"{TOPIC}\"}}"))?;
    let lost = dropped(metrics, "queue_full")?;
    ensure!(dropped(metrics, "rejected")? == 0.0);
    ensure!(sent + lost == answered as f64, "{sent} sent, {lost} dropped, {answered} requests");
    // A JVM that starts may keep the machine from one or another. If they waited for Kafka, most of
    // them would be.
    ensure!(late * 1000 <= answered, "{late} of {answered} requests were late");
    let records = kafka.read(TOPIC)?;
    let names: BTreeSet<_> = records.iter().map(|r| r.value["event_id"].to_string()).collect();
    // Also of those whose answer was lost with the broker: none is there twice.
    ensure!(records.len() == names.len(), "{} events, {} names", records.len(), names.len());
    ensure!(records.len() as f64 == sent, "{} events of {sent} sent", records.len());
    println!("{answered} requests: {sent} events, {lost} dropped; {late} requests late");

    // What waits when the agent stops goes out.
    ensure!(proxy.get("/")?.status == 200);
    proxy.stop()?;
    ensure!(kafka.read(TOPIC)?.len() == records.len() + 1, "the last event is missing");
    Ok(())
}
