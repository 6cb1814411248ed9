//! What became of workloads' connections, in Prometheus' text format.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering},
};

use stoa_common::redirect::{count, outbound};

use crate::{
    proxy::counters::Registry,
    telemetry::{policy_tally::PolicyTotals, proxy_metrics::durations},
};

use super::{
    programs::{KernelCounts, SocketCounts},
    workload::{Counts, Workload},
};

/// The workloads that are steered now. Empty where nothing is.
#[derive(Default)]
pub struct Metrics {
    rows: Mutex<BTreeMap<String, Row>>,
    /// Of the requests that went through the policies.
    pub(super) requests: Arc<Registry>,
}

#[derive(Clone)]
pub(super) struct Row {
    pub workload: Arc<Workload>,
    pub kernel: Arc<KernelCounts>,
    pub outbound: Option<Arc<KernelCounts>>,
    pub sockets: Arc<SocketCounts>,
}

/// What the kernel decided about new connections, as metrics and `list` call it.
pub(super) const VERDICTS: [(u32, &str); 5] = [
    (count::STEERED, "steered"),
    (count::REFUSED, "refused"),
    (count::UNSTEERED, "unsteered"),
    (count::OWN, "own"),
    (count::OTHER_PROTOCOL, "other_protocol"),
];
/// The same of connections that the workload makes.
pub(super) const OUTBOUND_VERDICTS: [(u32, &str); 4] = [
    (outbound::STEERED, "steered"),
    (outbound::UNSTEERED, "unsteered"),
    (outbound::OWN, "own"),
    (outbound::OTHER_PROTOCOL, "other_protocol"),
];
/// Sockets that workloads create and that are left alone, in the order of their counts.
pub(super) const KINDS: [&str; 4] = ["udp", "sctp", "raw", "other"];

impl Metrics {
    /// What the policies said of steered requests.
    pub fn policies(&self) -> PolicyTotals {
        self.requests.totals().policies
    }

    pub(super) fn put(&self, row: Row) {
        self.lock().insert(row.workload.spec.name.clone(), row);
    }

    /// Takes it out, unless another has come in its place.
    pub(super) fn remove(&self, workload: &Arc<Workload>) {
        let mut rows = self.lock();
        if rows.get(&workload.spec.name).is_some_and(|row| Arc::ptr_eq(&row.workload, workload)) {
            rows.remove(&workload.spec.name);
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Row>> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Empty where nothing is steered.
    pub fn render(&self) -> String {
        let rows: Vec<Row> = self.lock().values().cloned().collect();
        let mut text = String::new();
        if rows.is_empty() {
            return text;
        }
        let _ = writeln!(
            text,
            "# HELP stoa_redirect_workloads Workloads that are steered\n\
             # TYPE stoa_redirect_workloads gauge\nstoa_redirect_workloads {}",
            rows.len()
        );
        family(&mut text, OPEN, "gauge", "Steered connections that are open");
        for (workload, direction, counts) in sides(&rows) {
            let open = counts.open.load(Ordering::Relaxed);
            put(&mut text, OPEN, workload, &[("direction", direction)], open);
        }
        family(&mut text, CONNECTIONS, "counter", "Steered connections, by what became of them");
        for (workload, direction, counts) in sides(&rows) {
            for (what, value) in counts.connections().filter(|(what, _)| *what != "open") {
                let labels = [("direction", direction), ("outcome", what)];
                put(&mut text, CONNECTIONS, workload, &labels, value);
            }
        }
        family(&mut text, REQUESTS, "counter", "Requests under policies, by what became of them");
        for (workload, direction, counts) in sides(&rows) {
            for (what, value) in counts.requests() {
                let labels = [("direction", direction), ("outcome", what)];
                put(&mut text, REQUESTS, workload, &labels, value);
            }
        }
        family(&mut text, ANSWERS, "counter", "Answers to those requests, by status class");
        for (workload, direction, counts) in sides(&rows) {
            let classes = counts.answers.read().into_iter().flat_map(|answers| answers.classes);
            for (class, count) in ["1xx", "2xx", "3xx", "4xx", "5xx"].into_iter().zip(classes) {
                if count > 0 {
                    let labels = [("direction", direction), ("status", class)];
                    put(&mut text, ANSWERS, workload, &labels, count);
                }
            }
        }
        family(&mut text, DURATION, "histogram", "From a request's head to the end of its answer");
        for (workload, direction, counts) in sides(&rows) {
            if let Some(answers) = counts.answers.read() {
                let name = &workload.spec.name;
                let labels = format!("workload=\"{name}\",direction=\"{direction}\"");
                durations(&mut text, DURATION, &labels, &answers.buckets, answers.microseconds);
            }
        }
        family(&mut text, LOOKUPS, "counter", "New connections, by what the kernel side decided");
        for Row { workload, kernel, outbound, .. } in &rows {
            let inbound = VERDICTS.iter().map(|verdict| ("inbound", kernel, verdict));
            let outbound = outbound
                .iter()
                .flat_map(|counts| OUTBOUND_VERDICTS.iter().map(move |v| ("outbound", counts, v)));
            for (direction, counts, (which, what)) in inbound.chain(outbound) {
                let labels = [("direction", direction), ("verdict", *what)];
                put(&mut text, LOOKUPS, workload, &labels, counts.read(*which));
            }
        }
        family(
            &mut text,
            LEFT_ALONE,
            "counter",
            "Sockets that workloads created and that are left alone",
        );
        for Row { workload, sockets, .. } in &rows {
            for (kind, value) in KINDS.into_iter().zip(sockets.read(workload.netns)) {
                put(&mut text, LEFT_ALONE, workload, &[("kind", kind)], value);
            }
        }
        text
    }
}

const OPEN: &str = "stoa_redirect_connections_open";
const CONNECTIONS: &str = "stoa_redirect_connections_total";
const REQUESTS: &str = "stoa_redirect_requests_total";
const ANSWERS: &str = "stoa_redirect_answers_total";
const DURATION: &str = "stoa_redirect_request_duration_seconds";
const LOOKUPS: &str = "stoa_redirect_lookups_total";
const LEFT_ALONE: &str = "stoa_redirect_sockets_left_alone_total";

fn family(text: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

/// Each workload's counts, by direction.
fn sides(rows: &[Row]) -> impl Iterator<Item = (&Workload, &'static str, &Counts)> {
    rows.iter().flat_map(|row| {
        let workload = &*row.workload;
        workload.directions().map(move |(direction, counts)| (workload, direction, counts))
    })
}

/// Neither names nor labels have anything in them that would need an escape.
fn put(text: &mut String, name: &str, workload: &Workload, labels: &[(&str, &str)], value: u64) {
    let _ = write!(text, "{name}{{workload=\"{}\"", workload.spec.name);
    for (label, what) in labels {
        let _ = write!(text, ",{label}=\"{what}\"");
    }
    let _ = writeln!(text, "}} {value}");
}
