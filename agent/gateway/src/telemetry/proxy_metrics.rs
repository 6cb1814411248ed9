//! The data path's numbers in Prometheus' text format. Labels are routes of the configuration and
//! reasons of this build: never anything that a client sent.

use std::fmt::Write as _;

use stoa_policy::connection_filter::ConnectionFilter;

use crate::{
    catalog::live::Status,
    proxy::counters::{BUCKETS, Totals},
};

/// The text format, version 0.0.4.
pub fn render(
    totals: &Totals,
    connections: &ConnectionFilter,
    status: &Status,
    log_dropped: u64,
) -> String {
    let mut text = String::with_capacity(8 << 10);
    header(&mut text, "stoa_proxy_requests_total", "counter", "Answers, by route and status class");
    for (route, counters) in &totals.routes {
        for (class, count) in counters.classes.iter().enumerate() {
            if *count > 0 {
                let (route, class) = (escape(route), class + 1);
                let name = "stoa_proxy_requests_total";
                let _ = writeln!(text, "{name}{{route=\"{route}\",status=\"{class}xx\"}} {count}");
            }
        }
    }
    let name = "stoa_proxy_request_duration_seconds";
    header(&mut text, name, "histogram", "From a request's head to the end of its answer");
    for (route, counters) in &totals.routes {
        let labels = format!("route=\"{}\"", escape(route));
        durations(&mut text, name, &labels, &counters.buckets, counters.microseconds);
    }
    websockets(&mut text, totals);
    let name = "stoa_proxy_failures_total";
    header(&mut text, name, "counter", "Answers that were not an upstream's, by reason");
    for (reason, count) in &totals.failures {
        let _ = writeln!(text, "{name}{{reason=\"{reason}\"}} {count}");
    }
    let name = "stoa_tcp_connections_rejected_pre_tls_total";
    header(&mut text, name, "counter", "Connections refused right after accept, by reason");
    for (reason, count) in &totals.refused {
        let _ = writeln!(text, "{name}{{reason=\"{reason}\"}} {count}");
    }
    if let Some(evicted) = connections.evicted() {
        let name = "stoa_tcp_rate_limit_evicted_total";
        header(&mut text, name, "counter", "Addresses that were forgotten for want of room");
        let _ = writeln!(text, "{name} {evicted}");
    }
    for (name, count) in &totals.counts {
        let kind = if name.ends_with("_total") { "counter" } else { "gauge" };
        let _ = writeln!(text, "# TYPE {name} {kind}\n{name} {count}");
    }
    for (name, kind, help, value) in [
        (
            "stoa_config_reloads_total",
            "counter",
            "Configurations that came into force after the first",
            status.reloads,
        ),
        (
            "stoa_config_reload_failures_total",
            "counter",
            "Configurations that could not be used",
            status.failed_reloads,
        ),
        (
            "stoa_config_is_stale",
            "gauge",
            "1 while the files say something that is not in force",
            u64::from(status.failure.is_some()),
        ),
        (
            "stoa_config_restart_needed",
            "gauge",
            "1 while the files say something that only a restart brings into force",
            u64::from(!status.needs_restart.is_empty()),
        ),
        (
            "stoa_access_log_dropped_total",
            "counter",
            "Lines of the access log that could not be written in time",
            log_dropped,
        ),
        (
            "gateway_memory_usage_bytes",
            "gauge",
            "Resident memory of the agent",
            super::metrics::resident_bytes(),
        ),
    ] {
        header(&mut text, name, kind, help);
        let _ = writeln!(text, "{name} {value}");
    }
    text
}

/// The series of one histogram whose buckets are [`BUCKETS`].
pub fn durations(
    text: &mut String,
    name: &str,
    labels: &str,
    buckets: &[u64; BUCKETS.len() + 1],
    microseconds: u64,
) {
    let mut sum = 0;
    for (bucket, count) in buckets.iter().enumerate() {
        sum += count;
        let bound = BUCKETS
            .get(bucket)
            .map_or("+Inf".to_owned(), |microseconds| (*microseconds as f64 / 1e6).to_string());
        let _ = writeln!(text, "{name}_bucket{{{labels},le=\"{bound}\"}} {sum}");
    }
    let _ = writeln!(text, "{name}_sum{{{labels}}} {}", microseconds as f64 / 1e6);
    let _ = writeln!(text, "{name}_count{{{labels}}} {sum}");
}

/// Of routes that have had any.
fn websockets(text: &mut String, totals: &Totals) {
    let name = "stoa_ws_proxy_messages_total";
    header(text, name, "counter", "Messages of WebSocket connections that are limited");
    for (route, counters) in &totals.routes {
        let directions = ["client_to_backend", "backend_to_client"].iter().zip(counters.messages);
        for (direction, count) in directions.filter(|(_, count)| *count > 0) {
            let route = escape(route);
            let _ =
                writeln!(text, "{name}{{direction=\"{direction}\",route_id=\"{route}\"}} {count}");
        }
    }
    let name = "stoa_ws_proxy_rate_limited_total";
    header(text, name, "counter", "WebSocket connections closed for too many messages");
    for (route, counters) in &totals.routes {
        let sources = ["client", "backend"].iter().zip(counters.too_many);
        for (source, count) in sources.filter(|(_, count)| *count > 0) {
            let route = escape(route);
            let _ = writeln!(text, "{name}{{route_id=\"{route}\",source=\"{source}\"}} {count}");
        }
    }
}

pub fn header(text: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

pub(super) fn escape(label: &str) -> String {
    label.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
