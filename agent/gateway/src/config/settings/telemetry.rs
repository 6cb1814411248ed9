//! Settings of what the agent tells of the requests that it serves.

use super::{Kind, Setting, one};

const TRACES: &str = "Traces and metrics, of what is proxied, steered or decided";
const SNAPSHOTS: &str = "Error snapshots, of what is proxied, steered or decided";

pub const SETTINGS: &[Setting] = &[
    one(
        "otel-endpoint",
        &["STOA_OTEL_ENDPOINT"],
        "URL",
        TRACES,
        "Where spans go: a collector's OTLP port for gRPC, http://HOST:4317, or https [default: no spans]",
    ),
    Setting {
        key: "otel-enabled",
        variables: &["STOA_OTEL_ENABLED"],
        value_name: "BOOL",
        group: TRACES,
        help: "Send spans to --otel-endpoint, if there is one [default: true]",
        kind: Kind::Switch,
    },
    one(
        "otel-sample-rate",
        &["STOA_OTEL_SAMPLE_RATE"],
        "SHARE",
        TRACES,
        "Of the traces that begin here, from 0 to 1; others are sampled where their first service says so [default: 1]",
    ),
    Setting {
        key: "detailed-tracing",
        variables: &["STOA_DETAILED_TRACING"],
        value_name: "BOOL",
        group: TRACES,
        help: "Spans of each policy and of the upstream's call, too [default: false]",
        kind: Kind::Switch,
    },
    Setting {
        key: "proxy-tracing-enabled",
        variables: &["STOA_PROXY_TRACING_ENABLED"],
        value_name: "BOOL",
        group: TRACES,
        help: "Spans of requests in proxy mode [default: true]",
        kind: Kind::Switch,
    },
    Setting {
        key: "proxy-metrics-enabled",
        variables: &["STOA_PROXY_METRICS_ENABLED"],
        value_name: "BOOL",
        group: TRACES,
        help: "Show what is counted by route (stoa_proxy_*) in /metrics [default: true]",
        kind: Kind::Switch,
    },
    Setting {
        key: "snapshot-enabled",
        variables: &["STOA_SNAPSHOT_ENABLED"],
        value_name: "BOOL",
        group: SNAPSHOTS,
        help: "Keep what an exchange looked like that ended with a status of 500 or above, masked and in memory, for /admin/snapshots [default: false]",
        kind: Kind::Switch,
    },
    one(
        "snapshot-max-count",
        &["STOA_SNAPSHOT_MAX_COUNT"],
        "N",
        SNAPSHOTS,
        "Snapshots that are kept; the oldest goes first [default: 100]",
    ),
    one(
        "snapshot-max-age-secs",
        &["STOA_SNAPSHOT_MAX_AGE_SECS"],
        "SECONDS",
        SNAPSHOTS,
        "How long a snapshot is kept, less than 30 days [default: 3600]",
    ),
    one(
        "snapshot-body-max-bytes",
        &["STOA_SNAPSHOT_BODY_MAX_BYTES"],
        "BYTES",
        SNAPSHOTS,
        "How much of each body is looked at, at most 64KiB; 0 leaves bodies out [default: 4096]",
    ),
    Setting {
        key: "snapshot-extra-pii-patterns",
        variables: &["STOA_SNAPSHOT_EXTRA_PII_PATTERNS"],
        value_name: "REGEX",
        group: SNAPSHOTS,
        help: "What else to mask, beside personal data and credentials. Repeatable; in the variable a JSON list, where a pattern has a comma in it",
        kind: Kind::Many,
    },
];
