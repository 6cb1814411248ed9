//! Prometheus metrics, made from the analysis' own exact counters at the moment of scraping.
//! Labels are services (bounded by configuration and by the capture source), loss reasons and
//! classes of personal data: never anything that was observed.

use std::collections::BTreeMap;

use prometheus::{
    Encoder, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder, core::Collector,
};
use stoa_contract::observation::Personal;

use crate::{
    capture::loss_name,
    shadow::{analysis::Snapshot, denials::ByPolicy},
};

/// What is beside the analysis' snapshot.
pub struct Others {
    pub contracts_written: u64,
    pub store_writes: u64,
    pub store_failures: u64,
    pub is_capturing: bool,
    pub denied: BTreeMap<String, ByPolicy>,
}

/// The text format, version 0.0.4.
pub fn render(snapshot: &Snapshot, others: &Others) -> Result<Vec<u8>, prometheus::Error> {
    let registry = Registry::new();
    let families = Families { registry: &registry };
    let exchanges = families.counter(
        "stoa_shadow_exchanges_total",
        "HTTP exchanges read, by service and whether both messages were seen whole",
        &["service", "complete"],
    )?;
    let incomplete = families.counter(
        "stoa_shadow_exchanges_incomplete_total",
        "Incomplete exchanges by reason; one exchange may have several",
        &["service", "reason"],
    )?;
    let masked = families.counter(
        "stoa_shadow_masked_total",
        "Values of personal data and secrets that were masked, by class",
        &["service", "class"],
    )?;
    let denied = families.counter(
        "stoa_shadow_requests_denied_total",
        "Requests that policy answered, and the service never saw",
        &["service", "policy", "status"],
    )?;
    for (name, counts) in &others.denied {
        for ((policy, status), count) in counts {
            denied.with_label_values(&[name, *policy, &status.to_string()]).inc_by(*count);
        }
    }
    let passed_over = families.counter(
        "stoa_shadow_exchanges_passed_over_total",
        "Exchanges of well-known kinds that were only counted, because the analysis was behind",
        &["service"],
    )?;
    for tally in snapshot.tallies.values() {
        let name = tally.name.as_str();
        passed_over.with_label_values(&[name]).inc_by(tally.passed_over);
        exchanges.with_label_values(&[name, "yes"]).inc_by(tally.complete);
        exchanges
            .with_label_values(&[name, "no"])
            .inc_by(tally.exchanges.saturating_sub(tally.complete));
        for (reason, count) in &tally.incomplete {
            incomplete.with_label_values(&[name, reason.name()]).inc_by(*count);
        }
        for (class, count) in &tally.masked {
            masked.with_label_values(&[name, &class_name(*class)]).inc_by(*count);
        }
    }
    let bytes = families.counter(
        "stoa_capture_bytes_total",
        "Payload bytes of watched connections: due = captured + lost",
        &["service", "state"],
    )?;
    let segments = families.counter(
        "stoa_capture_segments_total",
        "TCP segments with payload of watched connections: due = captured + lost",
        &["service", "state"],
    )?;
    let lost_bytes = families.counter(
        "stoa_capture_lost_bytes_total",
        "Payload bytes that were due and not captured, by reason",
        &["service", "reason"],
    )?;
    let lost_segments = families.counter(
        "stoa_capture_lost_segments_total",
        "Segments that were due and not wholly captured, by reason",
        &["service", "reason"],
    )?;
    let shed = families.counter(
        "stoa_capture_shed_exchanges_total",
        "Exchanges left out whole because the node was busy",
        &["service"],
    )?;
    for counters in &snapshot.counters {
        let name = snapshot.tallies.get(&counters.service).map_or("unknown", |t| t.name.as_str());
        bytes.with_label_values(&[name, "due"]).inc_by(counters.due_bytes);
        bytes.with_label_values(&[name, "captured"]).inc_by(counters.captured_bytes);
        segments.with_label_values(&[name, "due"]).inc_by(counters.due_segments);
        segments.with_label_values(&[name, "captured"]).inc_by(counters.captured_segments);
        shed.with_label_values(&[name]).inc_by(counters.shed_exchanges);
        for (reason, count, size) in &counters.lost {
            lost_segments.with_label_values(&[name, loss_name(*reason)]).inc_by(*count);
            lost_bytes.with_label_values(&[name, loss_name(*reason)]).inc_by(*size);
        }
    }
    let source = families.gauges(
        "stoa_capture_source",
        "Numbers of the capture source itself, by name",
        &["name"],
    )?;
    for (name, value) in &snapshot.source_counters {
        source.with_label_values(&[name]).set(signed(*value));
    }
    let lost_in_stream = families.counter(
        "stoa_reader_lost_bytes_total",
        "Stream bytes that the reader did not see, by reason",
        &["reason"],
    )?;
    for (reason, count) in snapshot.reader.lost_by_reason() {
        lost_in_stream.with_label_values(&[loss_name(reason)]).inc_by(count);
    }
    let reader = &snapshot.reader;
    for (name, help, value) in [
        ("stoa_reader_flows", "Connections that are being read", reader.flows),
        ("stoa_reader_memory_bytes", "Memory held for them", reader.memory),
        (
            "stoa_shadow_knowledge_bytes",
            "Memory held for statistics",
            snapshot.knowledge_bytes as u64,
        ),
        (
            "stoa_shadow_capturing",
            "1 while the capture source delivers",
            u64::from(others.is_capturing),
        ),
        ("gateway_memory_usage_bytes", "Resident memory of the agent", resident_bytes()),
    ] {
        families.gauge(name, help, value)?;
    }
    for (name, help, value) in [
        ("stoa_capture_events_total", "Events handed over by the capture source", snapshot.events),
        ("stoa_reader_flows_opened_total", "Connections seen", reader.flows_opened),
        ("stoa_reader_flows_evicted_total", "Let go of by a bound on memory", reader.flows_evicted),
        ("stoa_reader_flows_expired_total", "Let go of when idle", reader.flows_expired),
        ("stoa_reader_flows_not_http_total", "Something other than HTTP/1", reader.flows_not_http),
        (
            "stoa_reader_heads_refused_total",
            "Heads that were no HTTP/1 message",
            reader.heads_refused,
        ),
        (
            "stoa_reader_decode_failures_total",
            "Bodies that could not be decoded",
            reader.decode_failures,
        ),
        ("stoa_shadow_contracts_written_total", "Contracts written", others.contracts_written),
        ("stoa_store_writes_total", "Commits to the store", others.store_writes),
        ("stoa_store_write_failures_total", "Commits that failed", others.store_failures),
    ] {
        families.counter(name, help, &[])?.with_label_values::<&str>(&[]).inc_by(value);
    }
    let mut text = Vec::new();
    TextEncoder::new().encode(&registry.gather(), &mut text)?;
    Ok(text)
}

struct Families<'a> {
    registry: &'a Registry,
}

impl Families<'_> {
    fn add<C: Collector + Clone + 'static>(&self, family: C) -> Result<C, prometheus::Error> {
        self.registry.register(Box::new(family.clone()))?;
        Ok(family)
    }

    fn counter(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<IntCounterVec, prometheus::Error> {
        self.add(IntCounterVec::new(Opts::new(name, help), labels)?)
    }

    fn gauges(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<IntGaugeVec, prometheus::Error> {
        self.add(IntGaugeVec::new(Opts::new(name, help), labels)?)
    }

    fn gauge(&self, name: &str, help: &str, value: u64) -> Result<(), prometheus::Error> {
        self.add(IntGauge::new(name, help)?)?.set(signed(value));
        Ok(())
    }
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// `national-id`, as contracts write it.
pub fn class_name(class: Personal) -> String {
    match serde_json::to_value(class) {
        Ok(serde_json::Value::String(name)) => name,
        _ => format!("{class:?}").to_lowercase(),
    }
}

/// proc(5), `/proc/pid/statm`: the second field counts pages.
pub fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split_whitespace().nth(1).and_then(|n| n.parse::<u64>().ok());
    pages.unwrap_or(0) * rustix::param::page_size() as u64
}
