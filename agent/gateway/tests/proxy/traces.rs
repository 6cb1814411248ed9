//! OpenTelemetry: what a collector gets of requests, and what upstreams are told.

use opentelemetry_proto::tonic::trace::v1::{Span, span::SpanKind};

use crate::{
    collector::{Collector, attribute},
    gateway::{Gateway, eventually},
    upstream::Upstream,
};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

fn start(collector: &Collector, upstream: &Upstream, more: &[&str]) -> Gateway {
    let endpoint = format!("--otel-endpoint=http://{}", collector.address);
    let sections = format!(
        "upstreams: {{u: {{url: 'http://{}'}}}}\nroutes:\n\
         - {{name: orders, matches: [{{path: {{prefix: /orders}}}}], upstream: u, tenant: acme}}\n",
        upstream.address
    );
    Gateway::start(&sections, &[&[endpoint.as_str()], more].concat())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Stops the gateway: what is left must be sent by then.
fn spans_at_the_end(gateway: &mut Gateway, collector: &Collector) -> Vec<Span> {
    gateway.signal("TERM");
    assert!(gateway.wait().success());
    collector.spans()
}

fn sent_parent(text: &str) -> &str {
    text.lines().find_map(|line| line.strip_prefix("traceparent: ")).unwrap()
}

#[test]
fn a_request_is_a_span_between_its_caller_and_the_upstream() {
    let (collector, upstream) = (Collector::start(), Upstream::echo());
    let mut gateway = start(&collector, &upstream, &[]);
    let seen = gateway
        .ask(&format!(
            "GET /orders/ann@example.com?token=s3cr3t HTTP/1.1\r\nHost: shop.example\r\n\
             User-Agent: ann's\r\ntraceparent: 00-{TRACE}-{PARENT}-01\r\ntracestate: a=b\r\n\r\n"
        ))
        .text();
    let spans = spans_at_the_end(&mut gateway, &collector);
    let [span] = &spans[..] else { panic!("{spans:?}") };
    assert_eq!((hex(&span.trace_id), hex(&span.parent_span_id)), (TRACE.into(), PARENT.into()));
    assert_eq!(sent_parent(&seen), format!("00-{TRACE}-{}-01", hex(&span.span_id)));
    assert!(seen.contains("tracestate: a=b"), "{seen}");
    assert_eq!((span.name.as_str(), span.kind()), ("GET /orders/*", SpanKind::Server));
    let took = span.end_time_unix_nano - span.start_time_unix_nano;
    assert!(took > 0 && took < 20_000_000_000, "{took}");
    for (name, value) in [
        ("http.request.method", "GET"),
        ("http.response.status_code", "200"),
        ("http.route", "/orders/*"),
        ("url.scheme", "http"),
        ("network.protocol.version", "1.1"),
        ("stoa.route", "orders"),
        ("stoa.tenant", "acme"),
        ("stoa.upstream", "u"),
    ] {
        assert_eq!(attribute(&span.attributes, name).as_deref(), Some(value), "{span:?}");
    }
    assert!(span.status.is_none(), "{span:?}");
    let text = format!("{span:?}");
    for personal in ["ann", "s3cr3t", "shop.example", "127.0.0.1"] {
        assert!(!text.contains(personal), "{personal} in {text}");
    }
    let resource = collector.resource();
    assert_eq!(attribute(&resource, "service.name").as_deref(), Some("stoa-gateway"));
    assert_eq!(attribute(&resource, "stoa.deployment_mode").as_deref(), Some("proxy"));
}

#[test]
fn the_first_service_decides_whether_a_trace_is_sampled() {
    let (collector, upstream) = (Collector::start(), Upstream::echo());
    let mut gateway = start(&collector, &upstream, &["--otel-sample-rate=0"]);
    let ask = |parent: &str| {
        gateway.ask(&format!("GET /orders HTTP/1.1\r\nHost: x\r\n{parent}\r\n")).text()
    };
    // Ours begins here, and is not sampled; the next is not either, and the last one is.
    let own = ask("");
    assert!(sent_parent(&own).ends_with("-00"), "{own}");
    let unsampled = ask(&format!("traceparent: 00-{TRACE}-{PARENT}-00\r\n"));
    assert!(sent_parent(&unsampled).starts_with(&format!("00-{TRACE}-")), "{unsampled}");
    assert!(sent_parent(&unsampled).ends_with("-00"), "{unsampled}");
    ask(&format!("traceparent: 00-{TRACE}-{PARENT}-01\r\n"));
    let spans = spans_at_the_end(&mut gateway, &collector);
    assert_eq!(spans.len(), 1, "{spans:?}");
    assert_eq!(hex(&spans[0].parent_span_id), PARENT);
}

#[test]
fn steps_have_spans_where_that_is_asked_for() {
    let collector = Collector::start();
    let upstream = Upstream::answering(|_| {
        "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n".to_owned()
    });
    let flags = ["--detailed-tracing", "--rate-limit-default=100"];
    let mut gateway = start(&collector, &upstream, &flags);
    assert_eq!(gateway.get("/orders/7").status, 500);
    assert_eq!(gateway.get("/nowhere").status, 404);
    let odd = gateway.ask("ANN /nowhere HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(odd.status, 404);
    let received = upstream.received();
    let spans = spans_at_the_end(&mut gateway, &collector);
    let find =
        |name: &str| spans.iter().find(|s| s.name == name).unwrap_or_else(|| panic!("{name}"));
    let (request, call) = (find("GET /orders/*"), find("upstream.call"));
    assert_eq!((call.kind(), &call.parent_span_id), (SpanKind::Client, &request.span_id));
    assert!(sent_parent(&received).contains(&hex(&call.span_id)), "{received}");
    assert!(call.start_time_unix_nano >= request.start_time_unix_nano);
    assert_eq!(attribute(&request.attributes, "error.type").as_deref(), Some("500"));
    assert_eq!(request.status.as_ref().map(|s| s.code), Some(2));
    // Without a route there is nothing to call it by but its method.
    let unrouted = find("GET");
    assert_eq!(
        attribute(&unrouted.attributes, "http.response.status_code").as_deref(),
        Some("404")
    );
    assert!(attribute(&unrouted.attributes, "http.route").is_none());
    // Whatever a client calls its method.
    let odd = find("HTTP");
    assert_eq!(attribute(&odd.attributes, "http.request.method").as_deref(), Some("_OTHER"));
    let policy = find("policy");
    assert_eq!(attribute(&policy.attributes, "stoa.policy.verdict").as_deref(), Some("allow"));
}

#[test]
fn a_collector_that_is_away_costs_spans_and_no_request() {
    let (collector, upstream) = (Collector::start(), Upstream::echo());
    // Nobody listens there.
    let flags = ["--otel-endpoint=127.0.0.1:1"];
    let sections = format!("upstream: http://{}\n", upstream.address);
    let gateway = Gateway::start(&sections, &flags);
    let mut client = gateway.connect();
    for _ in 0..3000 {
        client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!(client.answer().status, 200);
    }
    eventually("spans are dropped and counted", || {
        let metrics = gateway.own("/metrics").text();
        let name = "stoa_otel_spans_dropped_total{reason=\"queue_full\"} ";
        let line = metrics.lines().find_map(|line| line.strip_prefix(name))?;
        (line.parse::<u64>().unwrap() > 0).then_some(())
    });
    assert!(collector.spans().is_empty());
}

#[test]
fn requests_of_the_proxy_can_be_left_out() {
    let (collector, upstream) = (Collector::start(), Upstream::echo());
    let flags = ["--proxy-tracing-enabled=false", "--proxy-metrics-enabled=false"];
    let mut gateway = start(&collector, &upstream, &flags);
    let parent = format!("00-{TRACE}-{PARENT}-01");
    let seen =
        gateway.ask(&format!("GET /orders HTTP/1.1\r\nHost: x\r\ntraceparent: {parent}\r\n\r\n"));
    assert_eq!(sent_parent(&seen.text()), parent, "what is not ours passes as it is");
    let metrics = gateway.own("/metrics").text();
    assert!(!metrics.contains("route=\"orders\""), "{metrics}");
    assert!(spans_at_the_end(&mut gateway, &collector).is_empty());
}
