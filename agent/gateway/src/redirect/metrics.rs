//! What became of workloads' connections, in Prometheus' text format.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering},
};

use stoa_common::redirect::count;

use super::{
    programs::{KernelCounts, SocketCounts},
    workload::Workload,
};

/// The workloads that are steered now. Empty where nothing is.
#[derive(Default)]
pub struct Metrics {
    rows: Mutex<BTreeMap<String, Row>>,
}

#[derive(Clone)]
pub(super) struct Row {
    pub workload: Arc<Workload>,
    pub kernel: Arc<KernelCounts>,
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
/// Sockets that workloads create and that are left alone, in the order of their counts.
pub(super) const KINDS: [&str; 4] = ["udp", "sctp", "raw", "other"];

impl Metrics {
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
        for Row { workload, .. } in &rows {
            let open = workload.counts.open.load(Ordering::Relaxed);
            let _ = writeln!(text, "{OPEN}{{workload=\"{}\"}} {open}", workload.spec.name);
        }
        family(&mut text, CONNECTIONS, "counter", "Steered connections, by what became of them");
        for Row { workload, .. } in &rows {
            for (what, value) in workload.counts.connections() {
                put(&mut text, CONNECTIONS, workload, ("outcome", what), value);
            }
        }
        family(
            &mut text,
            REQUESTS,
            "counter",
            "Requests of workloads with policies, by what became of them",
        );
        for Row { workload, .. } in &rows {
            for (what, value) in workload.counts.requests() {
                put(&mut text, REQUESTS, workload, ("outcome", what), value);
            }
        }
        family(&mut text, LOOKUPS, "counter", "New connections, by what the kernel side decided");
        for Row { workload, kernel, .. } in &rows {
            for (which, what) in VERDICTS {
                put(&mut text, LOOKUPS, workload, ("verdict", what), kernel.read(which));
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
                put(&mut text, LEFT_ALONE, workload, ("kind", kind), value);
            }
        }
        text
    }
}

const OPEN: &str = "stoa_redirect_connections_open";
const CONNECTIONS: &str = "stoa_redirect_connections_total";
const REQUESTS: &str = "stoa_redirect_requests_total";
const LOOKUPS: &str = "stoa_redirect_lookups_total";
const LEFT_ALONE: &str = "stoa_redirect_sockets_left_alone_total";

fn family(text: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

/// A workload's name has nothing in it that would need an escape.
fn put(
    text: &mut String,
    name: &str,
    workload: &Workload,
    (label, what): (&str, &str),
    value: u64,
) {
    let _ =
        writeln!(text, "{name}{{workload=\"{}\",{label}=\"{what}\"}} {value}", workload.spec.name);
}
