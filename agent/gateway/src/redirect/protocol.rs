//! What is said over the control socket: one JSON object a line, each request answered by one line.
//!
//! ```text
//! {"id":1,"op":"hello","source":"kubernetes"}
//! {"id":2,"op":"add","workload":{"name":"shop/cart-7f","cgroup":"/sys/fs/cgroup/...",
//!   "netns":"/proc/4711/ns/net","ports":[8080],"fail_mode":"closed","policies":"members",
//!   "tenant":"shop","probes":[{"port":8080,"method":"GET","path":"/healthz"}],
//!   "node_addresses":["10.0.0.1"],"outbound":true,"outbound_policies":"egress"}}
//! {"id":3,"op":"keep","name":"shop/stock-1"}
//! {"id":4,"op":"snapshot_end"}
//! {"id":5,"op":"remove","name":"shop/cart-7f"}
//! {"id":6,"op":"remove_all"}
//! {"id":7,"op":"list"}
//! ```
//! Answers: `{"id":2,"ok":true}`, `{"id":2,"ok":false,"error":"..."}`; that to `list` also has
//! `workloads`. An answer is sent when what was asked for has been done: after that of `add`, every
//! new connection is steered. `id` is repeated as it came and may be left out.
//!
//! A controller begins each connection with `hello` and what it knows, by `add` (again, if it
//! pleases: the same workload twice is one) or `keep`, then `snapshot_end`: workloads of its
//! source that it did not name are removed. After that it sends what changes. Workloads of other
//! sources are left alone. Without `hello` the source is `operator`.
//!
//! `take_over` and `taken_over` are for the agent that is started in place of this one.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::workload::WorkloadSpec;

/// The longest line that is read.
pub(super) const LINE: u64 = 256 << 10;
/// Of workloads that were enrolled by hand.
pub(super) const OPERATOR: &str = "operator";

#[derive(Debug, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub(super) enum Request {
    Hello { source: String },
    Add { workload: WorkloadSpec },
    Keep { name: String },
    SnapshotEnd,
    Remove { name: String },
    RemoveAll,
    List,
    TakeOver,
    TakenOver,
}

#[derive(Debug, Deserialize)]
pub(super) struct Envelope {
    #[serde(default)]
    pub id: Option<Value>,
    #[serde(flatten)]
    pub request: Request,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Reply {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<Value>,
    pub ok: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Of `remove_all` and `snapshot_end`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub removed: Option<usize>,
    /// Of `list`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workloads: Option<Vec<Value>>,
    /// Of `take_over`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handed: Option<Vec<Handed>>,
}

/// A workload on its way to the agent that takes over.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Handed {
    pub workload: WorkloadSpec,
    pub source: String,
    /// Where its network namespace is held open.
    #[serde(default)]
    pub held: Option<PathBuf>,
}

impl Reply {
    pub(super) fn done() -> Self {
        Self { id: None, ok: true, error: None, removed: None, workloads: None, handed: None }
    }

    pub(super) fn failed(error: impl ToString) -> Self {
        Self { ok: false, error: Some(error.to_string()), ..Self::done() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_read() {
        let line = r#"{"id":2,"op":"add","workload":{"name":"a","cgroup":"/c","ports":[80]}}"#;
        let envelope: Envelope = serde_json::from_str(line).unwrap();
        assert_eq!(envelope.id, Some(2.into()));
        assert!(matches!(envelope.request, Request::Add { workload } if workload.name == "a"));
        let envelope: Envelope = serde_json::from_str(r#"{"op":"list"}"#).unwrap();
        assert!(matches!(envelope.request, Request::List));
        // A misspelt key is not taken for a default.
        let line = r#"{"op":"add","workload":{"name":"a","cgroup":"/c","ports":[80],"failmode":"closed"}}"#;
        assert!(serde_json::from_str::<Envelope>(line).is_err());
    }
}
