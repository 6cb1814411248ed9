//! What can go wrong with steering, in an operator's words.

use std::{error::Error, io, path::PathBuf};

#[derive(Debug, thiserror::Error)]
pub enum RedirectError {
    #[error(
        "this binary was built without the eBPF objects; run `cargo xtask ebpf` and build again"
    )]
    NotBuilt,
    #[error("the eBPF object lacks `{0}`; run `cargo xtask ebpf` and build again")]
    ObjectMismatch(&'static str),
    #[error(
        "the kernel refuses the eBPF object: {0}. Steering needs Linux 5.10, and root or CAP_BPF, \
         CAP_NET_ADMIN, CAP_PERFMON and CAP_SYS_ADMIN"
    )]
    Load(String),
    #[error("the kernel refuses the program `{program}`: {reason}")]
    Refused { program: &'static str, reason: String },
    #[error("cannot attach `{program}` to {}: {reason}", .to.display())]
    Attach { program: &'static str, to: PathBuf, reason: String },
    #[error("cannot write the map `{map}`: {reason}")]
    Map { map: &'static str, reason: String },
    #[error(
        "cannot pin {}: {reason}. Fail mode `closed` needs a BPF file system: \
         `mount -t bpf bpf /sys/fs/bpf`",
        .path.display()
    )]
    Pin { path: PathBuf, reason: String },
    #[error("`{0}` cannot name a workload: use 1 to 253 of a-z, A-Z, 0-9, `-`, `_`, `.` and `/`")]
    Name(String),
    #[error("name 1 to {limit} ports between 1 and 65535")]
    Ports { limit: usize },
    #[error("`{0}` cannot name a set of policies or a tenant: use 1 to 253 characters of one line")]
    SetName(String),
    #[error(
        "there are policies for the connections that it makes, which are not steered: add `outbound` (`--outbound`)"
    )]
    NotOutbound,
    #[error(
        "the agent itself is in {}, and would lead its own connections to itself: run it in \
         another cgroup, or enrol the workload without `outbound`",
        .path.display()
    )]
    OwnCgroup { path: PathBuf },
    #[error("at most {limit} probes can be given for one workload")]
    TooManyProbes { limit: usize },
    #[error(
        "probes pass without policies only if they come from the node itself: say from where with \
         `--node-address` (`node_addresses`), or give none"
    )]
    NobodyProbes,
    #[error("{} is not a cgroup of the v2 tree", .path.display())]
    NotACgroup { path: PathBuf },
    #[error(
        "there is no process in {}, so its network namespace is not known; name it with `--netns`",
        .path.display()
    )]
    EmptyCgroup { path: PathBuf },
    #[error("cannot enter the network namespace {}: {source}", .path.display())]
    Namespace { path: PathBuf, source: io::Error },
    #[error(
        "{} is the network namespace of this host: workloads in it (hostNetwork pods) are never \
         steered",
        .path.display()
    )]
    HostNamespace { path: PathBuf },
    #[error("its network namespace is enrolled already, as `{0}`")]
    NamespaceTaken(String),
    #[error("cannot listen in the workload's network namespace: {0}. Is `lo` up there?")]
    Listen(io::Error),
    #[error("at most {limit} workloads can be enrolled with one agent")]
    TooMany { limit: usize },
    #[error("there is no workload `{0}`; `stoactl workload list` shows those that there are")]
    Unknown(String),
    #[error("another agent is taking over; try again in a moment")]
    HandingOver,
    #[error("{what} {}: {source}", .path.display())]
    File { what: &'static str, path: PathBuf, source: io::Error },
    #[error("the agent at {} cannot be taken over from: {reason}", .socket.display())]
    TakeOver { socket: PathBuf, reason: String },
    #[error("a thread cannot be started: {0}")]
    Thread(io::Error),
    #[error("the steering service ended by itself; the log says why")]
    Ended,
}

/// An error with its causes; of a verifier's log only the end, which names the reason.
pub(super) fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    let lines: Vec<_> = text.lines().collect();
    match lines.as_slice() {
        [first, .., _] if lines.len() > 12 => {
            format!("{first} [...] {}", lines[lines.len() - 8..].join(" | "))
        }
        _ => text,
    }
}
