//! Checks what the machine gives, loads the object, and says what it found.

use std::{fs, io, path::Path};

use aya::{
    Ebpf, EbpfLoader,
    programs::{CgroupSkb, Program, ProgramError, ProgramType, SockOps},
    sys::{BpfHelper, is_helper_supported},
    util::KernelVersion,
};

use super::{EbpfConfig, error::EbpfError};

/// Empty where the binary was built without it.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/stoa.bpf.o"));

const KERNEL_BTF: &str = "/sys/kernel/btf/vmlinux";
const CAP_NET_ADMIN: u32 = 12;
const CAP_SYS_ADMIN: u32 = 21;
const CAP_BPF: u32 = 39;

/// What this kernel gives.
#[derive(Clone, Debug)]
pub(super) struct Features {
    pub kernel: String,
    /// Both program types may ask for the network namespace of a socket.
    pub has_netns_cookie: bool,
    /// Connections are seen beginning and ending.
    pub has_lifecycle: bool,
}

pub(super) struct Loaded {
    pub object: Ebpf,
    pub features: Features,
}

pub(super) fn load(config: &EbpfConfig) -> Result<Loaded, EbpfError> {
    if OBJECT.is_empty() {
        return Err(EbpfError::NotBuilt);
    }
    check_kernel()?;
    check_capabilities()?;
    raise_memlock();

    let has_netns_cookie = [ProgramType::CgroupSkb, ProgramType::SockOps].into_iter().all(|kind| {
        is_helper_supported(kind, BpfHelper::BPF_FUNC_get_netns_cookie).unwrap_or(false)
    }) && super::processes::own_netns_cookie() != 0;
    let netns_flag = u8::from(has_netns_cookie);
    let ring = config.ring_size();
    let shed_above = u64::from(ring) / 4 * 3;
    let body_budget = config.body_budget.min(MAX_BODY_BUDGET);
    let mut object = EbpfLoader::new()
        .override_global("BODY_BUDGET", &body_budget, true)
        .override_global("SHED_ABOVE", &shed_above, true)
        .override_global("HAS_NETNS_COOKIE", &netns_flag, true)
        .map_max_entries("EVENTS", ring)
        .load(OBJECT)
        .map_err(|e| EbpfError::Load(with_causes(&e)))?;

    for name in ["ingress", "egress"] {
        let program: &mut CgroupSkb = object
            .program_mut(name)
            .and_then(|p| p.try_into().ok())
            .ok_or(EbpfError::ObjectMismatch(name))?;
        program.load().map_err(|e| refused(name, &e))?;
        let verified = program.info().ok().and_then(|info| info.verified_instruction_count());
        tracing::debug!(program = name, verified, "loaded");
    }
    let program = object.program_mut("lifecycle").ok_or(EbpfError::ObjectMismatch("lifecycle"))?;
    let has_lifecycle = match <&mut Program as TryInto<&mut SockOps>>::try_into(program) {
        Ok(program) => match program.load() {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(error = %with_causes(&error), "connections are not seen beginning");
                false
            }
        },
        Err(_) => return Err(EbpfError::ObjectMismatch("lifecycle")),
    };
    let kernel = kernel_release();
    Ok(Loaded { object, features: Features { kernel, has_netns_cookie, has_lifecycle } })
}

/// A segment's window must stay far from half the sequence space.
const MAX_BODY_BUDGET: u32 = 1 << 20;

impl Features {
    /// One line each: what this kernel gives and what is used.
    pub(super) fn describe(&self) -> Vec<String> {
        vec![
            format!("kernel {}: eBPF, cgroup v2", self.kernel),
            "cgroup_skb ingress and egress: payload of HTTP/1 connections, no wake-ups".to_owned(),
            "socket storage: state per connection, freed with it".to_owned(),
            if self.has_lifecycle {
                "sock_ops: connections seen beginning and ending".to_owned()
            } else {
                "this kernel lacks sock_ops as wanted: connections end by FIN and RST alone"
                    .to_owned()
            },
            if self.has_netns_cookie {
                "network namespace cookies: ports are told apart by namespace".to_owned()
            } else {
                "this kernel lacks bpf_get_netns_cookie for cgroup_skb (Linux 6.15): `port:` and \
                 `pid:` match a port in every namespace of this node, `cgroup:` does not"
                    .to_owned()
            },
        ]
    }
}

fn check_kernel() -> Result<(), EbpfError> {
    let found = KernelVersion::current().map_err(|e| EbpfError::Load(e.to_string()))?;
    if found < KernelVersion::new(5, 10, 0) {
        return Err(EbpfError::KernelTooOld { found: kernel_release() });
    }
    // Without it the verifier does not know the context argument of a global function
    // (`btf_get_prog_ctx_type` of kernel/bpf/btf.c).
    if !Path::new(KERNEL_BTF).exists() {
        return Err(EbpfError::NoKernelBtf);
    }
    Ok(())
}

fn kernel_release() -> String {
    fs::read_to_string("/proc/sys/kernel/osrelease")
        .map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned())
}

/// The effective capabilities, or all of them where they cannot be read: the kernel then says no.
fn effective_capabilities() -> u64 {
    fs::read_to_string("/proc/self/status")
        .ok()
        .and_then(|text| {
            let line = text.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
            u64::from_str_radix(line.trim(), 16).ok()
        })
        .unwrap_or(u64::MAX)
}

fn check_capabilities() -> Result<(), EbpfError> {
    let has = |capability: u32| effective_capabilities() & (1 << capability) != 0;
    if has(CAP_SYS_ADMIN) {
        return Ok(());
    }
    let missing: Vec<_> = [(CAP_BPF, "CAP_BPF"), (CAP_NET_ADMIN, "CAP_NET_ADMIN")]
        .into_iter()
        .filter_map(|(capability, name)| (!has(capability)).then_some(name))
        .collect();
    if missing.is_empty() { Ok(()) } else { Err(EbpfError::NotPermitted(missing.join(" and "))) }
}

/// Before 5.11 maps count against RLIMIT_MEMLOCK. Where it cannot be raised, loading says so.
fn raise_memlock() {
    let limit = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: a plain system call with a valid pointer.
    unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const limit) };
}

fn refused(program: &str, error: &ProgramError) -> EbpfError {
    EbpfError::Refused { program: program.to_owned(), reason: with_causes(error) }
}

/// An error with its causes, and of a verifier's log only the end, which names the reason.
pub(super) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        let is_refusal = error
            .downcast_ref::<io::Error>()
            .is_some_and(|io| io.raw_os_error() == Some(libc::EPERM));
        if is_refusal {
            text.push_str(" (not permitted: missing capabilities, a kernel lockdown, or memlock)");
        }
        cause = error.source();
    }
    let lines: Vec<_> = text.lines().collect();
    if lines.len() > 12 {
        format!("{} [...] {}", lines[0], lines[lines.len() - 8..].join(" | "))
    } else {
        text
    }
}
