//! Where traffic is seen. Every source feeds the same reader through [`CaptureSource`].

// Reads records that the kernel wrote, and calls what the standard library does not offer.
#[allow(unsafe_code)]
pub mod ebpf;
pub mod inline;
pub mod port_mirror;
pub mod watch;

use std::{fmt, path::PathBuf, str::FromStr};

use stoa_wire::segment::{Event, Loss};

/// A source of observed traffic. The analysis thread owns it and asks it every few milliseconds;
/// nothing here may wait.
pub trait CaptureSource: Send {
    /// What is watched and how, one line each, for the operator at start.
    fn describe(&self) -> Vec<String>;

    /// Hands on what has been seen since the last call, in order, and returns the number of
    /// events. Returns early rather than never when traffic arrives faster than it is read.
    fn drain(&mut self, emit: &mut dyn FnMut(Event<'_>)) -> Result<usize, CaptureError>;

    /// Exact totals since the start, one entry a service.
    fn counters(&self) -> Vec<ServiceCounters>;

    /// Looks again at what is to be watched: cgroups, processes and ports come and go. Called
    /// about once a second.
    fn refresh(&mut self) -> Result<(), CaptureError>;

    /// Stops accepting what is new; what was seen already is still drained.
    fn stop(&mut self) {}

    /// After [`stop`](Self::stop): nothing more will come than what `drain` delivers now.
    fn is_stopped(&self) -> bool {
        true
    }

    /// Asks for one in so many of the exchanges that begin from now on, chosen by chance; the others
    /// are counted as shed. A source that copies nothing for its agent goes on handing on all.
    fn sample(&mut self, _one_in: u32) {}

    /// Totals that belong to no service: name as in metrics, and value.
    fn source_counters(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }
}

/// Payload accounting of one service: `due = captured + lost`, in segments and in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceCounters {
    pub service: u32,
    pub due_segments: u64,
    pub due_bytes: u64,
    pub captured_segments: u64,
    pub captured_bytes: u64,
    /// Reason, segments, bytes.
    pub lost: Vec<(Loss, u64, u64)>,
    /// Exchanges left out whole because the node was busy.
    pub shed_exchanges: u64,
}

/// What `--watch NAME=...` names on a plain host.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum WatchSpec {
    Cgroup(PathBuf),
    Pid(u32),
    /// A TCP port that a process of this host listens on.
    Port(u16),
}

/// A service and where it is: the service's number is its place in the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watched {
    pub service: u32,
    pub name: String,
    pub spec: WatchSpec,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CaptureMethod {
    Ebpf,
    Inline,
    PortMirror,
}

impl CaptureMethod {
    pub const NAMES: &str = "Ebpf, Inline, PortMirror";
}

impl fmt::Display for CaptureMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ebpf => "Ebpf",
            Self::Inline => "Inline",
            Self::PortMirror => "PortMirror",
        })
    }
}

impl FromStr for CaptureMethod {
    type Err = String;

    /// Whatever the case, with or without `-` and `_`.
    fn from_str(text: &str) -> Result<Self, String> {
        let plain: String =
            text.chars().filter(|c| !matches!(c, '-' | '_')).collect::<String>().to_lowercase();
        match plain.as_str() {
            "ebpf" => Ok(Self::Ebpf),
            "inline" => Ok(Self::Inline),
            "portmirror" => Ok(Self::PortMirror),
            "envoytap" | "kafkareplay" | "kafka" => Err(format!(
                "`{text}` is a capture method that this build does not have yet; it has {}",
                Self::NAMES
            )),
            _ => Err(format!("`{text}` is not a capture method; valid ones: {}", Self::NAMES)),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    #[error(
        "eBPF capture is not possible here: {missing}. Capture `Inline` needs no privilege: \
         --capture inline --target http://HOST:PORT --inline-listen ADDR:PORT"
    )]
    EbpfUnavailable { missing: String },
    #[error("eBPF: {what}: {reason}. {remedy}")]
    Ebpf { what: String, reason: String, remedy: String },
    #[error("cannot watch `{name}` ({spec}): {reason}")]
    Watch { name: String, spec: String, reason: String },
    #[error(
        "cannot listen on {address} for Inline capture: {source}. Choose another address with --inline-listen"
    )]
    Listen { address: String, source: std::io::Error },
    #[error("cannot capture on interface `{interface}`: {reason}")]
    Interface { interface: String, reason: String },
    #[error("cannot read capture file {}: {reason}", .path.display())]
    File { path: PathBuf, reason: String },
    #[error("the capture stopped: {0}")]
    Stopped(String),
}

/// The name of a loss reason as metrics, status and logs show it.
pub fn loss_name(loss: Loss) -> &'static str {
    match loss {
        Loss::RingFull => "ring-full",
        Loss::Budget => "budget",
        Loss::Unreadable => "unreadable",
        Loss::Shed => "shed",
        Loss::Evicted => "evicted",
        Loss::Unseen => "unseen",
    }
}
