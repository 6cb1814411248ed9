//! Settings of shadow mode.

use super::{Kind, Setting, one};

const CAPTURE: &str = "Capture: what to watch, and how";
const CONTRACTS: &str = "Contracts and what is kept";
const LIMITS: &str = "Budgets";

pub const SETTINGS: &[Setting] = &[
    one(
        "capture",
        &["STOA_CAPTURE_METHOD", "STOA_SHADOW_CAPTURE_SOURCE"],
        "METHOD",
        CAPTURE,
        "Ebpf, Inline or PortMirror [default: PortMirror with --interface or --pcap; else Ebpf where the kernel allows; else Inline with --target]",
    ),
    Setting {
        key: "watch",
        variables: &["STOA_WATCH"],
        value_name: "NAME=WHAT",
        group: CAPTURE,
        help: "A service to watch: NAME=port:PORT, NAME=pid:PID or NAME=cgroup:PATH. Repeatable; one NAME is one service",
        kind: Kind::Many,
    },
    one(
        "target",
        &["STOA_TARGET", "STOA_TARGET_URL", "SHADOW_TARGET_BACKEND"],
        "URL",
        CAPTURE,
        "Inline: where the pass-through listener connects to, http://HOST:PORT",
    ),
    one(
        "inline-listen",
        &["STOA_INLINE_LISTEN"],
        "ADDR:PORT",
        CAPTURE,
        "Inline: where clients connect instead [default: 127.0.0.1:9083]",
    ),
    one(
        "service",
        &["STOA_SERVICE"],
        "NAME",
        CAPTURE,
        "Inline: the service's name [default: the host name of --target, or `api`]",
    ),
    one(
        "interface",
        &["STOA_INTERFACE"],
        "IF",
        CAPTURE,
        "PortMirror: the network interface that receives the mirrored packets",
    ),
    one(
        "pcap",
        &["STOA_PCAP"],
        "FILE",
        CAPTURE,
        "PortMirror: a pcap or pcapng file instead of an interface",
    ),
    one(
        "record",
        &["STOA_RECORD"],
        "FILE",
        CAPTURE,
        "Also write what was captured, RAW and UNMASKED, to a pcapng file (for debugging; mode 0600)",
    ),
    one(
        "output",
        &["STOA_UAC_OUTPUT_DIR", "STOA_OUTPUT"],
        "DIR",
        CONTRACTS,
        "Where contracts are written [default: /var/stoa/uac as root, else `contracts` in the state directory]",
    ),
    one(
        "state-dir",
        &["STOA_STATE_DIR"],
        "DIR",
        CONTRACTS,
        "Where masked observations are kept [default: /var/lib/stoa-gateway as root, else ~/.local/state/stoa-gateway]",
    ),
    one(
        "min-requests-for-uac",
        &["STOA_MIN_REQUESTS_FOR_UAC"],
        "N",
        CONTRACTS,
        "Requests after which a service's contract is written [default: 100]",
    ),
    one(
        "analysis-window-hours",
        &["STOA_ANALYSIS_WINDOW_HOURS"],
        "HOURS",
        CONTRACTS,
        "How far back a contract looks [default: 168]",
    ),
    one(
        "retention-days",
        &["STOA_RETENTION_DAYS"],
        "DAYS",
        CONTRACTS,
        "Observations older than this are purged; 1 to 29 [default: 14]",
    ),
    Setting {
        key: "summary",
        variables: &["STOA_SUMMARY"],
        value_name: "BOOL",
        group: CONTRACTS,
        help: "Print a summary of the contracts when the agent stops [default: when stdout is a terminal]",
        kind: Kind::Switch,
    },
    one(
        "body-bytes",
        &["STOA_BODY_BYTES"],
        "SIZE",
        LIMITS,
        "Body bytes read per message and direction [default: 16KiB]",
    ),
    one(
        "ring-bytes",
        &["STOA_RING_BYTES"],
        "SIZE",
        LIMITS,
        "Buffer between the capture and the analysis [default: 8MiB]",
    ),
    one(
        "memory-bytes",
        &["STOA_MEMORY_BYTES"],
        "SIZE",
        LIMITS,
        "Memory for connections that are being read [default: 24MiB]",
    ),
    one(
        "max-connections",
        &["STOA_MAX_CONNECTIONS"],
        "N",
        LIMITS,
        "Connections served at once [default: Inline 4096, proxy mode 65536]",
    ),
    one(
        "nice",
        &["STOA_NICE"],
        "N",
        LIMITS,
        "Niceness of the analysis thread, 0 to 19, or idle: after the services [default: idle]",
    ),
];
