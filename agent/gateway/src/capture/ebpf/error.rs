//! What can go wrong with eBPF capture, in an operator's words.

use std::{io, path::PathBuf};

use crate::capture::CaptureError;

#[derive(Debug, thiserror::Error)]
pub enum EbpfError {
    #[error(
        "this binary was built without the eBPF object; run `cargo xtask ebpf` and build again"
    )]
    NotBuilt,
    #[error("missing {0}: run as root, or grant CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON")]
    NotPermitted(String),
    #[error("the kernel is {found}; eBPF capture needs 5.10 or later")]
    KernelTooOld { found: String },
    #[error(
        "the kernel does not describe its types: /sys/kernel/btf/vmlinux is missing; it needs \
         CONFIG_DEBUG_INFO_BTF, and sysfs must be mounted"
    )]
    NoKernelBtf,
    #[error(
        "cgroup v2 is not mounted; mount it with \
         `mount -t cgroup2 none /sys/fs/cgroup/unified` (any folder will do)"
    )]
    NoCgroup2,
    #[error("the kernel refuses the program `{program}`: {reason}")]
    Refused { program: String, reason: String },
    #[error("the kernel refuses the eBPF object: {0}")]
    Load(String),
    #[error("the eBPF object lacks `{0}`; run `cargo xtask ebpf` and build again")]
    ObjectMismatch(&'static str),
    #[error("cannot attach `{program}` to {}: {reason}", .cgroup.display())]
    Attach { program: &'static str, cgroup: PathBuf, reason: String },
    #[error("cannot write the map `{map}`: {reason}")]
    Map { map: &'static str, reason: String },
    #[error("{} is not a cgroup of the v2 tree mounted at {}", .path.display(), .mount.display())]
    NotACgroup { path: PathBuf, mount: PathBuf },
    #[error("{} is deeper than {levels} levels below the cgroup root", .path.display())]
    TooDeep { path: PathBuf, levels: u32 },
    #[error("there is no process {0}")]
    NoProcess(u32),
    #[error("cannot read {}: {source}", .path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("at most {limit} {what} can be watched")]
    TooMany { what: &'static str, limit: u32 },
}

impl EbpfError {
    /// The agent could capture here if the machine or the build were different.
    pub fn is_unavailable(&self) -> bool {
        matches!(
            self,
            Self::NotBuilt
                | Self::NotPermitted(_)
                | Self::KernelTooOld { .. }
                | Self::NoKernelBtf
                | Self::NoCgroup2
                | Self::Refused { .. }
                | Self::Load(_)
        )
    }
}

impl From<EbpfError> for CaptureError {
    fn from(error: EbpfError) -> Self {
        if error.is_unavailable() {
            return Self::EbpfUnavailable { missing: error.to_string() };
        }
        let (what, remedy) = match &error {
            EbpfError::NotACgroup { .. } | EbpfError::TooDeep { .. } => {
                ("watching a cgroup", "Name a folder of the cgroup v2 tree")
            }
            EbpfError::NoProcess(_) => ("watching a process", "Name one that runs"),
            EbpfError::TooMany { .. } => ("watching", "Watch fewer services with one agent"),
            EbpfError::Read { .. } => ("reading the system's state", "Run as root"),
            EbpfError::ObjectMismatch(_) => ("loading", "Build the object and the agent together"),
            _ => ("attaching", "See the kernel's log; capture `Inline` works without eBPF"),
        };
        Self::Ebpf { what: what.to_owned(), reason: error.to_string(), remedy: remedy.to_owned() }
    }
}
